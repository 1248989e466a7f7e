"""Tiny checkpoints, videos and keypoints for the tests of inference, drawings and the command line."""

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tiny_models import TINY

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.inference import load_model


FRAMES = {"num_frames": 8, "pose_frames_per_frame": 4}
WIDTH, HEIGHT, NUM_FRAMES, RATE = 96, 64, 12, 10


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., Path]:
    """Save a tiny random model and its processor to a folder; keywords replace fields of the configuration."""

    def save(folder: Path, **values) -> Path:
        config = CLIPMGConfig(**{**TINY, **FRAMES, **values})
        torch.manual_seed(0)
        model = CLIPMGForMicroGestureClassification(config)
        # Scores that differ by more than rounding.
        torch.nn.init.normal_(model.classifier.weight)
        model.save_pretrained(folder)
        CLIPMGProcessor.from_model_config(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, save_checkpoint) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu")


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> Path:
    """12 frames of 96 x 64 at 10 frames per second; a bright square moves to the right."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(NUM_FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
            picture[20:40, 5 * index : 5 * index + 20] = (230, 200, 90)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def points() -> np.ndarray:
    """(12, 137, 3) keypoints inside the frame, all valid."""
    generator = np.random.default_rng(0)
    points = generator.uniform((20, 10, 0.4), (70, 50, 1), size=(1, 137, 3)).repeat(NUM_FRAMES, axis=0)
    points[..., 0] += np.arange(NUM_FRAMES)[:, None]
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = Path(os.environ.get("CLIPMG_REALDATA") or Path(__file__).parents[3] / "shared" / "realdata")
    if not folder.is_dir():
        pytest.skip("no folder of real videos; set CLIPMG_REALDATA")
    return folder
