"""The export script, and the example that predicts without torch, in a process that has none."""

import io
import json
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import av
import numpy as np
import pytest
import torch
from tiny_models import TINY

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.inference import load_model, predict_clip
from clipmg_hf.processing import write_openpose


pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SCRIPTS = Path(__file__).parents[2] / "hub_scripts"
NUM_FRAMES = 12
# Runs a script in which nothing heavier than NumPy can be imported.
WITHOUT_TORCH = """
import runpy, sys

for name in ("torch", "transformers", "clipmg_hf", "datasets", "huggingface_hub", "onnx", "onnxscript"):
    sys.modules[name] = None
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, a video whose frames lie on their side, and keypoints of its upright frames."""
    root = tmp_path_factory.mktemp("export_script")
    config = CLIPMGConfig(**{**TINY, "vision_config": {**TINY["vision_config"], "num_hidden_layers": 1}})
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(root / "model")
    CLIPMGProcessor.from_model_config(config).save_pretrained(root / "model")
    with av.open(str(root / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        pictures = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 8, 12, 3), np.uint8)
        for picture in pictures.repeat(8, axis=1).repeat(8, axis=2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    points = np.random.default_rng(1).uniform((5, 10, 0.4), (60, 90, 1), size=(NUM_FRAMES, 137, 3))
    points[3] = 0
    points[4, 5:9] = 0
    write_openpose(root / "json", points.astype(np.float32), "clip")
    return root


def run_export(*arguments):
    """Exit status, stdout and stderr of the script."""
    words, output, errors = [str(SCRIPTS / "export.py"), *map(str, arguments)], io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", words), redirect_stdout(output), redirect_stderr(errors):
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            return end.code, output.getvalue(), errors.getvalue()
    raise AssertionError("the script has no exit status")


@pytest.fixture(scope="module")
def exported(root):
    status, output, errors = run_export("--model", root / "model", "--output_dir", root / "onnx")
    assert status in (None, 0)
    assert "model_with_preprocessing.onnx" in output and "weights.bin" in output
    assert errors.splitlines()[-1] == f"exported to {root / 'onnx'}"
    return root / "onnx"


@pytest.mark.parametrize("with_pose", [True, False])
def test_the_example_without_torch_gives_the_packages_scores(root, exported, run_command, with_pose):
    words = [str(root / "clip.mp4"), "--model", str(exported), "--start", "1", "--end", "11", "--json"]
    if with_pose:
        words += ["--keypoints", str(root / "json")]
    script = str(SCRIPTS / "predict_onnx.py")
    found = json.loads(run_command([sys.executable, "-c", WITHOUT_TORCH, script, *words]).stdout)
    keypoints = root / "json" if with_pose else None
    prediction = predict_clip(*load_model(root / "model", device="cpu"), root / "clip.mp4", keypoints, start=1, end=11)
    assert found == pytest.approx(dict(prediction.scores), abs=1e-3)
    assert np.ptp(list(found.values())) > 0.02


@pytest.mark.parametrize(("start", "end"), [(1, NUM_FRAMES + 1), (5, 5), (5, 3), (-1, 4)])
def test_the_example_refuses_an_interval_that_is_not_in_the_video(root, exported, run_command, start, end):
    words = [str(root / "clip.mp4"), "--model", str(exported), f"--start={start}", f"--end={end}"]
    done = run_command([sys.executable, str(SCRIPTS / "predict_onnx.py"), *words], expected=1)
    assert done.stderr.startswith(
        f"error: start is {start} and end is {end}; expected 0 <= start < end <= {NUM_FRAMES},"
    )


def test_a_folder_has_no_revision(root, tmp_path):
    status, _, errors = run_export("--model", root / "model", "--revision", "v1", "--output_dir", tmp_path / "out")
    assert status == 1 and "is a folder and has no revision 'v1'; expected a name on the Hub" in errors


def test_an_export_is_not_overwritten_unasked(root, exported):
    status, _, errors = run_export("--model", root / "model", "--output_dir", exported)
    assert status == 1
    assert errors.splitlines()[-1].startswith(f"error: {exported} holds an earlier export")
