"""The command `clipmg`: what it prints where, and that every bad input ends in one message and exit code 1."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clipmg_hf import __version__, cli
from clipmg_hf.commands import predict as predict_command
from clipmg_hf.inference import predict_clip
from clipmg_hf.processing import write_openpose


@pytest.fixture
def keypoints(points, tmp_path):
    write_openpose(tmp_path / "json", points, "clip")
    return tmp_path / "json"


@pytest.fixture
def run(checkpoint):
    """Run `clipmg predict` on the tiny checkpoint."""

    def call(*arguments, model=checkpoint):
        return CliRunner().invoke(cli.app, ["predict", "--model", str(model), *map(str, arguments)])

    return call


def assert_refused(result, *parts: str) -> None:
    """One message with all `parts` on stderr, nothing on stdout, exit code 1."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


# --- what is printed


def test_table(run, loaded, video, keypoints):
    result = run(video, "--keypoints", keypoints, "--top", 3)
    prediction = predict_clip(*loaded, video, keypoints)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{video}  frames 0 to 11, 0.00 to 1.20 s"
    assert lines[1].split() == ["rank", "label", "score"]
    for rank, (label, score) in enumerate(prediction.scores[:3], start=1):
        assert lines[1 + rank].rstrip(" █▉▊▋▌▍▎▏").split() == [str(rank), *label.split(), f"{score:.3f}"]
    gate = f"mean gate {prediction.gate_mean:.2f} (1 = all RGB, 0 = all pose)"
    assert lines[5:] == [f"streams: RGB and pose, a person in 12 of 12 sampled frames, {gate}"]
    assert result.stderr == ""


def test_streams_line(loaded, video, points):
    def line(*arguments, **options):
        return predict_command._describe_streams(predict_clip(*loaded, video, *arguments, **options))

    assert line() == "RGB only, no keypoints given"
    assert line(0 * points) == "RGB only, keypoints with a person in 0 of 12 sampled frames"
    assert ", 10 of 22 keypoints masked, mean gate " in line(points[:, :25], source_layout="openpose-body25")
    pose_only = replace(predict_clip(*loaded, video, points), rgb_used=False, gate_mean=None)
    assert predict_command._describe_streams(pose_only) == "pose only, a person in 12 of 12 sampled frames"


def test_bars_without_block_characters(loaded, video, capsys, monkeypatch):
    prediction = replace(predict_clip(*loaded, video), scores=(("a [b] label", 0.5), ("other", 0.25)))
    monkeypatch.setattr("rich.console.ConsoleOptions.ascii_only", True)
    predict_command._print_prediction(prediction, 5)
    printed = capsys.readouterr().out
    assert printed.isascii() and "a [b] label" in printed
    assert [line.count("#") for line in printed.splitlines()[2:4]] == [12, 6]


def test_json_is_the_only_thing_on_stdout(run, loaded, video, keypoints, tmp_path):
    result = run(video, "--keypoints", keypoints, "--json", "--top", 2, "--overlay", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == json.loads(json.dumps(predict_clip(*loaded, video, keypoints).to_dict(2)))
    assert result.stdout.count("\n") == 1
    assert result.stderr == f"wrote {tmp_path / 'sheet.png'}\n"


def test_interval_in_seconds_or_frames(run, video):
    in_seconds = run(video, "--start", 0.3, "--end", 0.9, "--json")
    in_frames = run(video, "--start", 3, "--end", 9, "--unit", "frames", "--json")
    assert in_seconds.exit_code == 0 and in_seconds.stdout == in_frames.stdout
    content = json.loads(in_seconds.stdout)
    assert (content["start"], content["end"]) == (3, 9)


def test_overlays(run, video, keypoints, tmp_path):
    for name in ("sheet.png", "overlay.MP4"):
        result = run(video, "--keypoints", keypoints, "--overlay", tmp_path / name, "--quiet")
        assert (result.exit_code, result.stderr) == (0, "")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == 1900
    with av.open(str(tmp_path / "overlay.MP4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).stdout == f"clipmg {__version__}\n"
    assert "predict" in (printed := runner.invoke(cli.app, ["--help"]).stdout) and "CLIPMG_TRACEBACK=1" in printed
    assert "--keypoints" in runner.invoke(cli.app, ["predict", "--help"], terminal_width=200).stdout


def test_real_process_is_silent_on_stderr(checkpoint, video):
    command = [sys.executable, "-m", "clipmg_hf.cli", "predict", str(video), "--model", str(checkpoint), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["scores"]) == 5


# --- wrong usage


@pytest.mark.parametrize(
    "arguments",
    [["--unit", "hours"], ["--top", "0"], ["--start", "soon"], ["--overlay", "a.gif"], ["--modle", "x"]],
)
def test_wrong_usage_exits_with_2(run, video, arguments):
    result = run(video, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert arguments[0] in result.stderr and "Traceback" not in result.stderr


# --- bad input


def test_missing_and_empty_video(run, tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert_refused(run(tmp_path / "nowhere.mp4"), "nowhere.mp4: no such file; expected a video file")
    assert_refused(run(tmp_path / "empty.mp4"), "empty.mp4: the file is empty (0 bytes); expected a video file")
    assert_refused(run(tmp_path), f"{tmp_path}: no such file; expected")


def test_truncated_video(run, video, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes()[:-300])
    assert_refused(run(path), "cut.mp4: ", "expected")


def test_text_instead_of_a_video(run, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video at all\n" * 100)
    assert_refused(run(path), "notes.mp4: cannot be opened as a video", "expected a video file")


def test_audio_without_video(run, tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    assert_refused(run(path), "sound.wav: has no video stream; its streams are 0: audio")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--start", "5", "--end", "50"],
            "the interval [5, 50) seconds lies outside the video; the video holds [0, 1.2)",
        ),
        (["--start", "-1"], "the interval [-1, 1.2) seconds lies outside the video"),
        (["--start", "nan"], "the interval [nan, 1.2) seconds lies outside the video"),
        (["--start", "0.9", "--end", "0.3"], "the interval [0.9, 0.3) seconds is empty or reversed"),
        (
            ["--end", "13", "--unit", "frames"],
            "the interval [0, 13) frames lies outside the video; the video holds [0, 12)",
        ),
        (["--start", "1.5", "--unit", "frames"], "1.5"),
    ],
)
def test_interval_outside_the_video(run, video, arguments, message):
    assert_refused(run(video, *arguments), message)


def test_keypoints_of_another_length(run, video, points, tmp_path):
    write_openpose(tmp_path / "short", points[:5], "clip")
    result = run(video, "--keypoints", tmp_path / "short")
    assert_refused(result, f"{tmp_path / 'short'}: 5 rows; expected 12, one for each frame of {video}")


def test_missing_keypoints(run, video, tmp_path):
    (tmp_path / "none").mkdir()
    assert_refused(run(video, "--keypoints", tmp_path / "nowhere"), "nowhere: no such file, expected a keypoint file")
    assert_refused(
        run(video, "--keypoints", tmp_path / "none"), "none: no *_keypoints.json file, expected at least one"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "{broken", "invalid JSON"),
        ("", '{"people": {}}', "no list under the key 'people', expected a keypoint file of OpenPose"),
        ("", '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 3 numbers, expected 75 numbers"),
        ("", json.dumps({"people": [{"pose_keypoints_2d": [0.0] * 54}]}), "has 54 numbers (COCO, not BODY_25)"),
        ('"pose_keypoints_2d":[', '"pose_keypoints_2d":[NaN,', "expected 75 numbers"),
        ("", '{"people": [{"pose_keypoints_2d": [' + "NaN," * 74 + "0]}]}", "is nan, expected a finite number"),
    ],
)
def test_broken_keypoint_file(run, video, keypoints, old, new, message):
    path = keypoints / "clip_000000000003_keypoints.json"
    path.write_text(path.read_text().replace(old, new) if old else new)
    assert_refused(run(video, "--keypoints", keypoints), path.name, message)


def test_missing_keypoint_frame(run, video, keypoints):
    (keypoints / "clip_000000000004_keypoints.json").unlink()
    assert_refused(run(video, "--keypoints", keypoints), "1 frames lack a file, 4; expected every number from 0 to 11")


def test_wrong_checkpoints(run, video, checkpoint, tmp_path):
    assert_refused(run(video, model=tmp_path / "nowhere"), f"{tmp_path / 'nowhere'} does not exist; expected a folder")
    (tmp_path / "empty").mkdir()
    assert_refused(
        run(video, model=tmp_path / "empty"), "empty holds no config.json; expected a folder saved by save_"
    )
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "a", "1": "b"}, {"a": 0, "b": 1}
    (copy / "config.json").write_text(json.dumps(config))
    result = run(video, model=copy)
    assert_refused(result, f"{copy}: the weights do not fit config.json", "(32,), expected (2,) for the 2 labels")


def test_other_bad_input(run, video, tmp_path, monkeypatch):
    assert_refused(run(video, "--device", "abacus"), "device 'abacus' cannot be used on this machine; expected cpu")
    missing = tmp_path / "nowhere" / "sheet.png"
    assert_refused(
        run(video, "--overlay", missing), f"{missing}: the folder {missing.parent} does not exist; expected"
    )
    assert_refused(run(video, "--revision", "v1"), "is a folder and has no revision 'v1'; expected a name on the Hub")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "clipmg_hf.visualization", raising=False)
    assert_refused(run(video, "--overlay", tmp_path / "sheet.png"), 'pip install "clipmg_hf[viz]"')


def test_failures_of_ours_are_not_hidden(run, video, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr("clipmg_hf.inference.predict_clip", fail)
    assert isinstance(run(video).exception, RuntimeError)


# --- real data


def test_real_video(run, realdata, tmp_path):
    folder = realdata / "openpose" / "openposer_psychologie"
    arguments = (folder / "video.mp4", "--keypoints", folder / "json", "--start", 2, "--end", 3)
    result = run(*arguments, "--overlay", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.stderr
    assert "frames 50 to 74, 2.00 to 3.00 s" in result.stdout
    assert "a person in 25 of 25 sampled frames, 10 of 22 keypoints masked" in result.stdout


@pytest.mark.parametrize("name", ["broken.mp4", "empty.flv", "audio_only.mp3"])
def test_real_files_that_are_no_video(run, realdata, name):
    assert_refused(run(realdata / "robustness" / name), f"{name}: ")
