"""Real videos and OpenPose files through `predict_timeline`, `predict_clip` and the command line.

Nothing of them is in the repository: the tests are skipped where the folder is absent, see `realdata`.
"""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from clipmg_hf import cli
from clipmg_hf.inference import follow_people, predict_clip, predict_timeline
from clipmg_hf.processing import VideoDecodingError, VideoReader, read_openpose
from clipmg_hf.timeline.events import EventDecoding


# Path, upright size, frames in all, and how many to look at: a few seconds of CPU for all files together.
VIDEOS = [
    ("openpose/slp_full137/video.mp4", (1280, 720), 9, 9),
    ("openpose/openposer_psychologie/video.mp4", (640, 480), 157, 40),
    ("people/seated_webcam_480x320.mp4", (480, 320), 309, 40),
    ("people/webcam_vfr_640x480.mov", (640, 480), 123, 40),
    ("people/fullbody_vp9_1768x994.mp4", (1768, 994), 230, 24),
    ("people/chaplin_bw_640x360.mp4", (640, 360), 241, 40),
    ("robustness/rotated_minus90.mov", (480, 640), 25, 25),
    ("robustness/mpeg1_non_square_pixels.mpg", (352, 288), 36, 30),
    ("robustness/no_duration_vp9.webm", (1280, 720), 74, 24),
    ("robustness/tc_h264_10bits.mp4", (200, 200), 30, 30),
    ("robustness/tc_nasa_13013.mp4", (480, 270), 390, 40),
    ("images/astronaut.png", (512, 512), 1, 1),
]
BROKEN = [
    ("robustness/broken.mp4", "cannot be opened as a video .*cut short before its index"),
    ("robustness/empty.flv", "cannot be opened as a video"),
    ("robustness/audio_only.mp3", "has no video stream; its streams are 0: audio"),
    ("other_skeleton/openpose.pose", "cannot be opened as a video"),
]
POSES = [("slp_full137", 137, 9), ("openposer_psychologie", 25, 157)]
ANY = EventDecoding(threshold=0.01, min_duration=0)


def real(realdata, name):
    path = realdata / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.mark.parametrize(("name", "size", "num_frames", "end"), VIDEOS)
def test_videos(realdata, loaded, name, size, num_frames, end):
    path = real(realdata, name)
    model, processor = loaded
    timeline = predict_timeline(path, model=model, processor=processor, end=end, window=8, stride=4, decoding=ANY)
    assert (timeline.width, timeline.height, timeline.num_frames) == (*size, num_frames)
    window = min(8, end)
    assert [item.start for item in timeline.windows] == list(range(0, 4 * math.ceil((end - window) / 4) + 1, 4))
    assert all(np.isfinite(item.scores).all() and abs(item.scores.sum() - 1) < 1e-4 for item in timeline.windows)
    assert timeline.events
    for event in timeline.events:
        assert 0 <= event.start < event.end <= end
        assert 0 <= event.start_seconds < event.end_seconds <= timeline.duration + 1e-6
    clip = predict_clip(model, processor, path, start=0, end=window)
    first = dict(zip(timeline.labels, timeline.windows[0].scores, strict=True))
    assert dict(clip.scores) == pytest.approx(first, abs=1e-4)


@pytest.mark.parametrize(("name", "message"), BROKEN)
def test_broken_files(realdata, loaded, name, message):
    path = real(realdata, name)
    model, processor = loaded
    with pytest.raises(VideoDecodingError, match=message):
        predict_timeline(path, model=model, processor=processor)
    with pytest.raises(VideoDecodingError, match=message):
        predict_clip(model, processor, path)


def test_a_damaged_frame_is_named(realdata, loaded):
    path = real(realdata, "robustness/mpeg1_non_square_pixels.mpg")
    model, processor = loaded
    with pytest.raises(VideoDecodingError, match=r"frame 34 .*is damaged .*: leave this part out, or encode"):
        predict_timeline(path, model=model, processor=processor, window=8, stride=1)


@pytest.mark.parametrize(("name", "num_points", "num_frames"), POSES)
def test_openpose_files(realdata, loaded, name, num_points, num_frames):
    folder = real(realdata, f"openpose/{name}")
    video, source = folder / "video.mp4", folder / "json"
    model, processor = loaded
    people = follow_people(video, keypoints=source, subject="all")
    assert (len(people.subjects), people.layout.num_keypoints, people.num_frames) == (1, num_points, num_frames)
    # The tracker hands on what the files hold.
    np.testing.assert_array_equal(people.sequences()[0], read_openpose(source).keypoints.astype(np.float32))
    timeline = predict_timeline(
        video,
        model=model,
        processor=processor,
        keypoints=people,
        window=8,
        stride=4,
        end=40 if num_frames > 40 else None,
    )
    (person,) = timeline.people
    assert person.num_frames == num_frames and timeline.windows[0].gate is not None
    window = timeline.windows[0]
    clip = predict_clip(model, processor, video, source, window.start, window.end)
    assert clip.pose_used and clip.person_fraction == 1
    assert bool(clip.missing_keypoints) == (num_points == 25) == any("masked" in note for note in timeline.notes)


def test_keypoints_of_another_video(realdata, loaded):
    long, short = (real(realdata, f"openpose/{name}") for name, *_ in reversed(POSES))
    model, processor = loaded
    message = r"slp_full137/json: 9 rows; expected 157, one for each frame of .*psychologie/video\.mp4"
    with pytest.raises(ValueError, match=message):
        predict_timeline(long / "video.mp4", model=model, processor=processor, keypoints=short / "json")
    with pytest.raises(ValueError, match=message):
        predict_clip(model, processor, long / "video.mp4", short / "json")
    # As many frames, but of another size.
    small = real(realdata, "robustness/tc_h264_10bits.mp4")
    message = r"json: 100% of the points lie outside the 200 x 200 frames of .*10bits\.mp4 \(they reach \d+ x \d+\)"
    with pytest.raises(ValueError, match=message):
        predict_timeline(small, model=model, processor=processor, keypoints=short / "json", end=9)
    with pytest.raises(ValueError, match=message):
        predict_clip(model, processor, small, short / "json", 0, 9)


def test_a_folder_with_broken_files(realdata, checkpoint, tmp_path):
    folder = real(realdata, "robustness")
    arguments = ["timeline", folder, "--model", checkpoint, "--output", tmp_path, "--formats", "csv", "--end", "1"]
    result = CliRunner().invoke(cli.app, [str(word) for word in (*arguments, "--json", "--quiet", "--device", "cpu")])
    assert result.exit_code == 1
    statuses = {video["video"].rpartition("/")[2]: video["status"] for video in json.loads(result.stdout)["videos"]}
    failed = {name for name, status in statuses.items() if status == "failed"}
    assert failed == {"broken.mp4", "empty.flv"} and len(statuses) > 4
    assert {path.name for path in tmp_path.iterdir()} == {name.rpartition(".")[0] for name in statuses.keys() - failed}
    assert result.stderr.count("error: ") == 2 == result.stderr.count("\n")


@pytest.mark.parametrize("kind", ["timeline", "clip", "explanation"])
def test_drawings_with_blurred_faces(realdata, checkpoint, tmp_path, kind):
    folder = real(realdata, "openpose/slp_full137")
    arguments = {
        "timeline": ["timeline", "--output", tmp_path, "--formats", "video,page", "--subject", "all"],
        "clip": ["predict", "--overlay", tmp_path / "clip.mp4"],
        "explanation": ["explain", "--output", tmp_path / "explanation"],
    }[kind]
    options = ["--model", checkpoint, "--keypoints", folder / "json", "--blur-face", "--quiet", "--device", "cpu"]
    words = [arguments[0], folder / "video.mp4", *arguments[1:], *options]
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert (result.exit_code, result.stderr) == (0, "")
    if kind == "explanation":
        assert (tmp_path / "explanation" / "index.html").exists()
        return
    drawn = tmp_path / ("clip.mp4" if kind == "clip" else "video/video.annotated.mp4")
    with VideoReader(drawn) as reader, VideoReader(folder / "video.mp4") as source:
        assert reader.info.num_frames == source.info.num_frames == 9
        pictures, frames = (item.read([4])[0, :720].astype(float) for item in (reader, source))
    # Brow to chin: no detail is left. The hands keep theirs.
    nose, wrist = (read_openpose(folder / "json").keypoints[4, index, :2].astype(int) for index in (0, 4))
    for (x, y), is_blurred in ((nose + np.array([30, 60]), True), (wrist, False)):
        before, after = (
            np.abs(np.diff(image[y - 25 : y + 25, x - 25 : x + 25].mean(-1))).mean() for image in (frames, pictures)
        )
        assert (after < 0.7 * before) == is_blurred
