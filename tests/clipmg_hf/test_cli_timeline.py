"""`clipmg timeline`, `clipmg explain`, `clipmg app`, and people and faces in `clipmg predict`."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from clipmg_hf import cli
from clipmg_hf.inference import follow_people, predict_clip
from clipmg_hf.processing import get_layout, write_openpose
from clipmg_hf.timeline import read_timeline


SMALL = ["--window", "4", "--stride", "2", "--threshold", "0.05", "--min-duration", "0.1", "--device", "cpu"]


@pytest.fixture
def videos(video, tmp_path):
    """a.mp4 and b.mp4 in a folder."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(video, folder / name)
    return folder


@pytest.fixture
def keypoints(points, tmp_path):
    write_openpose(tmp_path / "json", points, "clip")
    return tmp_path / "json"


class Estimator:
    """Finds one person, whose hips go to the right."""

    name, layout = "vitpose", get_layout("coco-17")

    def estimate(self, frames):
        person = np.random.default_rng(0).uniform((20, 10, 0.5), (60, 50, 1), size=(1, 17, 3)).astype(np.float32)
        return [person] * len(frames)


@pytest.fixture
def estimator(monkeypatch):
    monkeypatch.setattr("clipmg_hf.pose.load_estimator", lambda name, **options: Estimator())


@pytest.fixture
def run(checkpoint, tmp_path):
    """Run `clipmg timeline` on the tiny checkpoint."""

    def call(*arguments, command="timeline"):
        words = ["--model", str(checkpoint)]
        if command == "timeline":
            words += ["--output", str(tmp_path / "out"), *SMALL]
        return CliRunner().invoke(cli.app, [command, *words, *map(str, arguments)])

    return call


# --- timeline


def test_a_video_gives_counts_and_events(run, videos, tmp_path):
    result = run(videos / "a.mp4", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    timeline = read_timeline(tmp_path / "out" / "a" / "a.json")
    lines = result.stdout.splitlines()
    assert lines[0] == f"a.mp4  00:00:01, 12 frames, {len(timeline.events)} gesture" + "s" * (
        len(timeline.events) != 1
    )
    assert lines[1] == "note: No keypoints were given: the model saw the whole frame and no pose."
    assert timeline.events and any(line.startswith("all ") for line in lines)
    assert sum(line.count("00:00:0") for line in lines[1:]) == len(timeline.events)


def test_a_folder_gives_a_row_for_each_video(run, videos, tmp_path):
    (videos / "c.mp4").write_bytes(b"no video" * 100)
    result = run(videos, "--quiet")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {videos / 'c.mp4'}: cannot be opened") and result.stderr.count("\n") == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["video", "result", "length", "people", "gestures", "per", "minute"]
    assert [line.split()[:2] for line in lines[1:4]] == [["a.mp4", "done"], ["b.mp4", "done"], ["c.mp4", "failed"]]
    assert lines[4] == "3 videos, 1 failed"
    again = run(videos, "--json", "--quiet")
    found = json.loads(again.stdout)["videos"]
    assert [video["status"] for video in found] == ["skipped", "skipped", "failed"]
    assert found[0]["num_events"] == len(found[0]["events"]) and found[0]["files"][0].endswith("out/a/a.json")
    assert "cannot be opened" in found[2]["error"] and "events" not in found[2]


def test_other_settings_are_an_error_that_says_what_to_do(run, videos):
    run(videos / "a.mp4")
    result = run(videos / "a.mp4", "--subject", "longest")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "subject largest there and longest here" in result.stderr and "--overwrite" in result.stderr
    assert run(videos / "a.mp4", "--subject", "longest", "--overwrite").exit_code == 0


def test_people_come_from_an_estimator(run, videos, tmp_path, estimator):
    result = run(videos / "a.mp4", "--pose", "vitpose", "--formats", "csv,video", "--blur-face")
    assert result.exit_code == 0, result.stderr
    timeline = read_timeline(tmp_path / "out" / "a" / "a.json")
    assert [person.num_frames for person in timeline.people] == [12]
    assert timeline.settings["keypoint_layout"] == "coco-17"
    assert (tmp_path / "out" / "a" / "a.annotated.mp4").exists()


def test_processes_give_what_one_gives(checkpoint, videos, tmp_path):
    command = [sys.executable, "-m", "clipmg_hf.cli", "timeline", str(videos), "--model", str(checkpoint), *SMALL]
    command += ["--num-proc", "2", "--formats", "csv", "--quiet", "--json", "--output"]
    done = subprocess.run([*command, str(tmp_path / "two")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [video["status"] for video in json.loads(done.stdout)["videos"]] == ["done", "done"]
    timelines = [read_timeline(tmp_path / "two" / name / f"{name}.json") for name in ("a", "b")]
    assert timelines[0].events == timelines[1].events


SLOW = """
import signal, sys, time
from clipmg_hf import cli
from clipmg_hf.inference import timeline

run = timeline._run

def slow(*args):
    for finished in run(*args):
        yield finished
        print("a window", flush=True)
        time.sleep(60)

timeline._run = slow
# A shell that starts the tests in the background has the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main()
"""


def test_an_interrupt_ends_with_130_and_goes_on(checkpoint, videos, tmp_path, run):
    command = [sys.executable, "-c", SLOW, "timeline", str(videos / "a.mp4"), "--model", str(checkpoint), *SMALL]
    command += ["--output", str(tmp_path / "out"), "--batch-size", "1", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "a window\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; run the same command again to go on\n")
    assert len((tmp_path / "out" / "a" / ".windows.jsonl").read_text().splitlines()) == 2
    assert run(videos / "a.mp4", "--batch-size", "1").exit_code == 0
    assert read_timeline(tmp_path / "out" / "a" / "a.json").windows[0].start == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subject", "tallest"], "expected largest, most_central"),
        (["--formats", "csv,docx"], "'docx' is not one of csv, tsv"),
        (["--pose", "openpose"], "'openpose' is not one of vitpose"),
        (["--crop", "face"], "'face' is not one of video, segments"),
        (["--num-proc", "0"], "--num-proc"),
    ],
)
def test_wrong_usage_exits_with_2(run, videos, arguments, message):
    result = run(videos, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    # The box around the message folds it.
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_bad_input_is_one_line(run, videos, tmp_path):
    for arguments, part in (
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([tmp_path], "no video; expected files in the folder itself"),
        ([videos, "--keypoints", tmp_path], "no keypoints of a.mp4, b.mp4; expected for each video"),
        ([videos, "--stride", "5"], "window is 4 and stride is 5"),
        ([videos, "--blur-face", "--formats", "video"], "Faces are found by keypoints"),
        ([videos, "--blur-face"], "expected video among the formats"),
        ([videos, "--person-detector", "x"], "person_detector is 'x' without pose; expected the estimator"),
        ([videos, "--revision", "v1"], "is a folder and has no revision 'v1'; expected a name on the Hub"),
        ([videos / "a.mp4", "--end", "90"], "the interval [0, 90) seconds lies outside the video"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), result.stderr
        assert result.stderr.startswith("error: ") and part in result.stderr


def write_file_without_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()


def test_every_command_says_what_is_wrong_with_its_input(run, video, points, tmp_path):
    write_file_without_frames(tmp_path / "no_frames.avi")
    write_openpose(tmp_path / "short", points[:9], "clip")
    write_openpose(tmp_path / "large", points * (4, 4, 1), "clip")
    for arguments, part in (
        ([tmp_path / "no_frames.avi"], "no_frames.avi: holds no video frame; expected at least one"),
        ([video, "--keypoints", tmp_path / "short"], f"short: 9 rows; expected 12, one for each frame of {video}"),
        ([video, "--keypoints", tmp_path / "large"], f"of the points lie outside the 96 x 64 frames of {video}"),
    ):
        for command in ("timeline", "predict", "explain"):
            result = run(*arguments, command=command)
            assert (result.exit_code, result.stdout) == (1, ""), command
            # Bars of progress may stand before it.
            assert part in result.stderr.splitlines()[-1] and "error: " in result.stderr, command


def test_a_full_disk_names_the_overlay(run, video, tmp_path, monkeypatch):
    def fail(path, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("clipmg_hf.video_writing.av", SimpleNamespace(open=fail))
    result = run(video, "--overlay", tmp_path / "a.mp4", "--quiet", command="predict")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: [Errno 28] No space left on device: '{tmp_path / 'a.mp4'}'\n"
    assert not [path for path in tmp_path.iterdir() if "clipmg" in path.name or path.suffix == ".mp4"]


# --- people and faces in predict


def test_predict_with_an_estimator(run, video, loaded, estimator):
    result = run(video, "--pose", "vitpose", "--json", command="predict")
    assert result.exit_code == 0, result.stderr
    people = follow_people(video, pose=Estimator())
    expected = predict_clip(*loaded, video, people.sequences()[0])
    assert json.loads(result.stdout)["scores"] == json.loads(json.dumps(expected.to_dict(5)))["scores"]


def test_blurred_faces_change_the_drawing_and_not_the_prediction(run, video, keypoints, tmp_path):
    shown, blurred = (
        run(
            video, "--keypoints", keypoints, "--overlay", tmp_path / f"{name}.mp4", "--json", *extra, command="predict"
        )
        for name, extra in (("shown", []), ("blurred", ["--blur-face"]))
    )
    assert blurred.exit_code == 0, blurred.stderr
    assert shown.stdout == blurred.stdout
    frames = []
    for name in ("shown", "blurred"):
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            frames.append(next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int))
    assert np.abs(frames[0] - frames[1]).max() > 40
    sheet = run(
        video, "--keypoints", keypoints, "--overlay", tmp_path / "a.png", "--blur-face", "--quiet", command="predict"
    )
    assert (sheet.exit_code, sheet.stderr) == (0, "")


def test_people_need_keypoints(run, video, keypoints, tmp_path):
    for arguments, part in (
        (["--blur-face", "--overlay", tmp_path / "a.png"], "expected --keypoints or --pose to blur them"),
        (["--blur-face", "--keypoints", keypoints], "expected --overlay with --blur-face"),
        (["--subject", "longest"], "expected --keypoints or --pose to choose a subject"),
        (["--keypoints", keypoints, "--pose", "vitpose"], "Got --keypoints and --pose"),
        (["--pose-weights", "x"], "pose_weights is 'x' without pose; expected the estimator"),
    ):
        result = run(video, *arguments, command="predict")
        assert (result.exit_code, result.stdout) == (1, "") and part in result.stderr
    assert run(video, "--subject", "all", command="predict").exit_code == 2
    assert run(video, "--keypoints", keypoints, "--subject", "longest", command="predict").exit_code == 0


# --- explain, app


def test_explain(run, video, keypoints, loaded, tmp_path):
    folder = tmp_path / "explanation"
    result = run(video, "--keypoints", keypoints, "--output", folder, "--blur-face", command="explain")
    assert result.exit_code == 0, result.stderr
    label = loaded[0].config.id2label[2]
    assert "without RGB" in result.stdout and "joint left out" in result.stdout
    assert (folder / "index.html").exists() and result.stderr == f"wrote {folder / 'index.html'}\n"
    result = run(video, "--keypoints", keypoints, "--label", label, "--json", command="explain")
    assert json.loads(result.stdout)["label"]["name"] == label
    for arguments, part in (
        (["--label", "sneezing"], "sneezing"),
        (["--keypoints", keypoints, "--blur-face"], "expected --output with --blur-face"),
        (["--revision", "v1"], "is a folder and has no revision 'v1'"),
    ):
        result = run(video, *arguments, command="explain")
        assert (result.exit_code, result.stdout) == (1, "") and part in result.stderr


def test_explain_without_anybody(run, video, points, tmp_path):
    write_openpose(tmp_path / "nobody", np.zeros_like(points), "clip")
    for arguments, line in (([], "no keypoints"), (["--keypoints", tmp_path / "nobody"], "nobody in the keypoints")):
        result = run(video, *arguments, command="explain")
        assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"joints: {line}"


def test_the_app_says_what_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run(command="app")
    assert result.exit_code == 1 and 'pip install "clipmg_hf[app]"' in result.stderr


def test_the_app_takes_the_model_that_was_asked_for(run, monkeypatch):
    for arguments, part in (
        (["--person-detector", "x"], "person_detector is 'x' without pose; expected the estimator"),
        (["--revision", "v1"], "is a folder and has no revision 'v1'; expected a name on the Hub"),
        (
            ["--backend", "onnx"],
            "holds no preprocessing.json; expected a folder that hub_scripts/export.py",
        ),
    ):
        monkeypatch.setattr("clipmg_hf.app._import_gradio", lambda: None)
        result = run(*arguments, command="app")
        assert (result.exit_code, result.stdout) == (1, "") and part in result.stderr


def test_every_command_has_help():
    for command in ("predict", "timeline", "explain", "app", "data"):
        result = CliRunner().invoke(cli.app, [command, "--help"], terminal_width=200)
        assert result.exit_code == 0 and "--help" in result.stdout
