"""Timelines of many videos: what is written, what is done again and what is not, and how it fails."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from clipmg_hf import timeline_job, timeline_options
from clipmg_hf.console import TRACEBACK
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.inference.checkpoint import resolve_folder
from clipmg_hf.processing import VideoReader, write_openpose
from clipmg_hf.timeline import FORMATS, read_timeline
from clipmg_hf.timeline.counts import count_gestures, gestures_per_minute, observed_seconds
from clipmg_hf.timeline.events import EventDecoding
from clipmg_hf.timeline.records import Event, Person, Timeline
from clipmg_hf.timeline_job import deal_jobs, find_videos, plan_jobs, run_jobs, run_share
from clipmg_hf.timeline_options import TimelineOptions


SMALL = {"window": 4, "stride": 2, "threshold": 0.05, "min_duration": 0.1, "formats": ["csv"], "device": "cpu"}


@pytest.fixture
def videos(video, tmp_path):
    """a.mp4 and b.mp4 in a folder."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(video, folder / name)
    return folder


@pytest.fixture
def make(checkpoint, videos, tmp_path):
    """Make the timelines of the folder."""

    def call(keypoints=None, overwrite=False, **values):
        jobs = plan_jobs(find_videos(videos), tmp_path / "out", keypoints)
        options = TimelineOptions(**{**SMALL, **values})
        outcomes = list(run_jobs(jobs, str(checkpoint), options, overwrite=overwrite))
        return {outcome.job.video.name: outcome for outcome in outcomes}

    return call


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def statuses(outcomes) -> dict[str, str]:
    return {name: outcome.status for name, outcome in outcomes.items()}


# --- options


def test_options_agree_with_what_they_set():
    assert TimelineOptions().decoding == EventDecoding()
    assert set(timeline_options.FORMATS) == {*FORMATS, "page", "video"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 4, "stride": 8}, "window is 4 and stride is 8"),
        ({"formats": ["csv", "docx"]}, "'docx' is none of them; expected one or more of csv, "),
        ({"formats": []}, "empty is none"),
        ({"pose": "openpose"}, "pose is 'openpose'; expected None, vitpose"),
        ({"dtype": "int8"}, "dtype is 'int8'; expected auto"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"pose_weights": "x"}, "pose_weights is 'x' without pose; expected the estimator that it is for: vitpose"),
    ],
)
def test_options_that_cannot_be(values, message):
    with pytest.raises(ValueError, match="expected") as error:
        TimelineOptions(**values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"subject": "tallest"}, "tallest"),
        ({"blur_face": True, "formats": ["video"]}, "Faces are found by keypoints"),
        ({"blur_face": True, "formats": ["page"]}, "expected video among the formats"),
        ({"attention": True, "formats": ["page"]}, "expected video among the formats"),
    ],
)
def test_what_fails_for_every_video_fails_before_the_model_is_loaded(make, monkeypatch, values, message):
    monkeypatch.setattr(timeline_job, "load_model", None)
    with pytest.raises(ValueError, match=message):
        make(**values)


def test_a_wrong_model_leaves_nothing(make, checkpoint, videos, tmp_path):
    jobs = plan_jobs(find_videos(videos), tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        list(run_jobs(jobs, str(videos), TimelineOptions(**SMALL)))
    assert not (tmp_path / "out").exists()
    assert set(statuses(make()).values()) == {"done"}


# --- which videos


def test_videos_of_a_folder(videos, tmp_path):
    (videos / "notes.txt").touch()
    (videos / ".hidden.mp4").touch()
    (videos / "below").mkdir()
    assert [path.name for path in find_videos(videos)] == ["a.mp4", "b.mp4"]
    assert find_videos(videos / "a.mp4") == [videos / "a.mp4"]
    with pytest.raises(DatasetFormatError, match="nowhere: no such file or folder"):
        find_videos(tmp_path / "nowhere")
    with pytest.raises(DatasetFormatError, match=r"below: no video; expected files in the folder itself .*\.mp4"):
        find_videos(videos / "below")


def test_each_video_has_its_folder_and_keypoints(videos, tmp_path):
    keypoints = tmp_path / "keypoints"
    (keypoints / "a").mkdir(parents=True)
    (keypoints / "b.json").touch()
    jobs = plan_jobs(find_videos(videos), "out", keypoints)
    assert [job.folder for job in jobs] == [Path("out/a"), Path("out/b")]
    assert [job.keypoints for job in jobs] == [keypoints / "a", keypoints / "b.json"]
    (keypoints / "b.json").unlink()
    with pytest.raises(DatasetFormatError, match=r"no keypoints of b\.mp4; expected .* folder such as 'b'"):
        plan_jobs(find_videos(videos), "out", keypoints)
    shutil.copy(videos / "a.mp4", videos / "A.avi")
    with pytest.raises(DatasetFormatError, match="the results of both would be named 'a'"):
        plan_jobs(find_videos(videos), "out")


def test_shares_are_a_partition_with_the_largest_first(videos):
    (videos / "b.mp4").write_bytes(bytes(10**6))
    jobs = plan_jobs(find_videos(videos), "out")
    assert [[job.video.name for job in share] for share in deal_jobs(jobs, 3)] == [["b.mp4"], ["a.mp4"], []]
    assert [len(share) for share in deal_jobs(jobs, 1)] == [2]


# --- what is written


def test_results_of_a_video(make, tmp_path, points):
    for name in ("a", "b"):
        write_openpose(tmp_path / "keypoints" / name, points, name)
    formats = ["csv", "elan", "page", "video"]
    outcomes = make(tmp_path / "keypoints", formats=formats, blur_face=True)
    assert statuses(outcomes) == {"a.mp4": "done", "b.mp4": "done"}
    folder = tmp_path / "out" / "a"
    expected = {"a.csv", "a.eaf", "a.json", "a.annotated.mp4", "index.html", "settings.json"}
    assert names(folder) == expected
    assert {path.name for path in outcomes["a.mp4"].files} == expected - {"settings.json"}
    timeline = read_timeline(folder / "a.json")
    assert timeline.windows and timeline.events == outcomes["a.mp4"].timeline.events
    assert outcomes["a.mp4"].timeline.windows == ()
    assert [person.number for person in timeline.people] == [0]
    with VideoReader(folder / "a.annotated.mp4") as reader:
        assert reader.info.num_frames == timeline.num_frames == 12
    page = (folder / "index.html").read_text()
    assert "a.annotated.mp4" in page and "are blurred" in page


def test_a_page_without_an_annotated_video_shows_the_source(make, tmp_path):
    make(formats=["page"])
    assert "videos/a.mp4" in (tmp_path / "out" / "a" / "index.html").read_text()


# --- done, begun, other


def test_finished_videos_are_not_done_again(make, tmp_path, monkeypatch):
    first = make()
    (tmp_path / "out" / "b" / "b.csv").unlink()
    again = make()
    assert statuses(again) == {"a.mp4": "skipped", "b.mp4": "done"}
    assert again["a.mp4"].timeline.events == first["a.mp4"].timeline.events
    assert again["a.mp4"].files == first["a.mp4"].files
    monkeypatch.setattr(timeline_job, "load_model", None)
    assert set(statuses(make()).values()) == {"skipped"}


def test_other_settings_are_refused_or_replace(make, videos, tmp_path):
    make(formats=["csv", "elan"])
    with pytest.raises(
        ValueError, match=r"out/a holds results of other settings: window 4 there and 6 here\. So do 1"
    ):
        make(window=6, formats=["elan", "csv"])
    assert statuses(make(window=6, overwrite=True)) == {"a.mp4": "done", "b.mp4": "done"}
    assert names(tmp_path / "out" / "a") == {"a.csv", "a.json", "settings.json"}
    assert read_timeline(tmp_path / "out" / "a" / "a.json").settings["window"] == 6
    # To give the command again is not to do it again.
    assert set(statuses(make(window=6, overwrite=True)).values()) == {"skipped"}
    os.utime(videos / "a.mp4", (1, 1))
    with pytest.raises(ValueError, match="another video"):
        make(window=6)


def test_another_model_is_another_setting(make, checkpoint, save_checkpoint, videos, tmp_path):
    make()
    other = save_checkpoint(tmp_path / "other", hidden_size=64)
    jobs = plan_jobs(find_videos(videos), tmp_path / "out")
    with pytest.raises(ValueError, match="another model"):
        list(run_jobs(jobs, str(other), TimelineOptions(**SMALL)))


@pytest.fixture
def pushed(hub, save_checkpoint, tmp_path):
    """A model on the Hub, its tagged first commit, and what pushes a second one."""
    repo_id, api = hub.repository("clip-mg"), hub.api()
    api.create_repo(repo_id)
    first = save_checkpoint(tmp_path / "first")
    # As a training leaves it, which nobody needs for inference.
    shutil.copytree(first, first / "last-checkpoint")
    commit = api.upload_folder(repo_id=repo_id, folder_path=first).oid
    api.create_tag(repo_id, tag="v1", revision=commit)
    second = save_checkpoint(tmp_path / "second", hidden_size=64)
    return repo_id, commit, lambda: api.upload_folder(repo_id=repo_id, folder_path=second).oid


def test_a_commit_that_is_pushed_in_the_meantime_is_not_used(pushed, videos, tmp_path, monkeypatch):
    repo_id, first, push = pushed
    options, jobs = TimelineOptions(**SMALL), plan_jobs([videos / "a.mp4"], tmp_path / "out")
    describe = timeline_job._describe_model

    def describe_and_push(*args):
        push()
        return describe(*args)

    monkeypatch.setattr(timeline_job, "_describe_model", describe_and_push)
    (outcome,) = run_jobs(jobs, repo_id, options)
    assert outcome.timeline.settings["model"] == f"{repo_id}@{first}"
    with pytest.raises(ValueError, match="another model"):
        list(run_jobs(jobs, repo_id, options))
    assert [outcome.status for outcome in run_jobs(jobs, repo_id, options, revision="v1")] == ["skipped"]
    assert [outcome.status for outcome in run_share(jobs, repo_id, options, revision=first)] == ["skipped"]
    folder = resolve_folder(repo_id, revision="v1")
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "processor_config.json"}


def test_a_folder_of_something_else_is_refused(make, tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "settings.json").write_text("[]")
    with pytest.raises(DatasetFormatError, match=r"settings\.json: not written by this program"):
        make()


def interrupt_at(monkeypatch, error):
    """Raise while results are written, as if the disk were full, or somebody pressed Ctrl-C."""
    written = timeline_job.write_timeline

    def write(*args, **kwargs):
        monkeypatch.setattr(timeline_job, "write_timeline", written)
        raise error

    monkeypatch.setattr(timeline_job, "write_timeline", write)


def test_an_interrupted_video_goes_on_at_its_last_window(make, checkpoint, tmp_path, monkeypatch):
    expected = make()
    shutil.rmtree(tmp_path / "out")
    interrupt_at(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        make()
    folder = tmp_path / "out" / "a"
    assert names(folder) == {".settings.json", ".windows.jsonl"}
    (folder / ".a.csv.0.partial").touch()
    (folder / ".clipmg_0").mkdir()
    with pytest.raises(ValueError, match="holds results of other settings: window 4 there and 6 here"):
        make(window=6)
    # No window is left to classify.
    monkeypatch.setattr("clipmg_hf.inference.timeline.WindowClassifier", None)
    jobs = plan_jobs([tmp_path / "videos" / "a.mp4"], tmp_path / "out")
    (outcome,) = run_jobs(jobs, str(checkpoint), TimelineOptions(**SMALL))
    assert outcome.status == "done" and outcome.timeline.events == expected["a.mp4"].timeline.events
    assert names(folder) == {"a.csv", "a.json", "settings.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("the page cannot be written")])
def test_begun_results_do_not_stay_beside_those_of_other_settings(make, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(timeline_job, "write_timeline_page", fail)
        make(formats=["csv", "elan", "page"])
    make(window=6, formats=["json"], overwrite=True)
    assert names(tmp_path / "out" / "a") == {"a.json", "settings.json"}


def test_a_full_disk_stops_everything_and_leaves_nothing_half_written(make, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match=r"No space left on device: .*out/a"):
        make()
    assert names(tmp_path / "out") == {"a"}
    assert names(tmp_path / "out" / "a") == {".settings.json", ".windows.jsonl"}
    assert statuses(make()) == {"a.mp4": "done", "b.mp4": "done"}


def test_a_failed_video_shows_its_traceback_when_asked_to(make, monkeypatch, capsys):
    monkeypatch.setenv(TRACEBACK, "1")
    interrupt_at(monkeypatch, ValueError("perhaps a bug"))
    assert make()["a.mp4"].error == "perhaps a bug"
    assert "timeline_job.py" in (printed := capsys.readouterr().err) and "ValueError: perhaps a bug" in printed


def test_a_broken_video_does_not_stop_the_others(make, videos, tmp_path):
    (videos / "a.mp4").write_bytes(b"no video" * 100)
    outcomes = make()
    assert statuses(outcomes) == {"a.mp4": "failed", "b.mp4": "done"}
    assert "a.mp4: cannot be opened as a video" in outcomes["a.mp4"].error
    assert names(tmp_path / "out") == {"b"}


def test_a_video_that_another_process_works_on_is_left_to_it(make, tmp_path):
    (tmp_path / "out" / "a").mkdir(parents=True)
    with timeline_job.FileLock(tmp_path / "out" / "a" / ".lock"):
        assert statuses(make()) == {"a.mp4": "busy", "b.mp4": "done"}


def test_mistakes_of_ours_are_not_hidden(make, monkeypatch):
    interrupt_at(monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        make()


def test_one_process_alone_has_all_shares(checkpoint, videos, tmp_path, capsys):
    jobs = plan_jobs(find_videos(videos), tmp_path / "out")
    outcomes = run_share(jobs, str(checkpoint), TimelineOptions(**SMALL))
    assert [(outcome.job, outcome.status) for outcome in outcomes] == [(job, "done") for job in jobs]
    assert capsys.readouterr().err == "process 0: a.mp4 done\nprocess 0: b.mp4 done\n"


# --- counts


def make_event(start, end, label_id, person=0):
    return Event(start, end, start / 10, end / 10, f"label {label_id}", label_id, "", 0.5, person)


def test_counts_and_rates():
    events = (make_event(0, 10, 1), make_event(20, 30, 0), make_event(40, 60, 1), make_event(0, 10, 1, person=1))
    people = (Person(0, 0, 99, 100, (0, 0, 1, 1)), Person(1, 0, 49, 50, (0, 0, 1, 1)))
    timeline = Timeline("a.mp4", 100, 10.0, 10.0, 4, 4, ("label 0", "label 1"), people, (), events)
    assert observed_seconds(timeline) == {0: 10, 1: 5}
    counts = count_gestures(timeline)
    assert [(c.person, c.label, c.num_events, c.per_minute, c.seconds) for c in counts] == [
        (0, "label 1", 2, 12, 3), (0, "label 0", 1, 6, 1), (1, "label 1", 1, 12, 1),
    ]  # fmt: skip
    assert gestures_per_minute(timeline) == 16
    without = Timeline("a.mp4", 100, 10.0, 10.0, 4, 4, (), events=events[:1], settings={"interval": [0, 50]})
    assert gestures_per_minute(without) == 12
    assert gestures_per_minute(Timeline("a.mp4", 100, 10.0, 10.0, 4, 4, ())) == 0
    assert json.dumps([count._asdict() for count in counts])
