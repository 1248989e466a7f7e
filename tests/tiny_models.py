"""The tiny model of the tests: two layers of everything, frames of 32 x 32. Fields are replaced by `{**TINY, ...}`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np

from clipmg_hf.processing import write_openpose


VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TINY = {
    "vision_config": VISION,
    "num_frames": 2,
    "pose_frames_per_frame": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}


def command_line(values: Mapping[str, Any]) -> list[str]:
    """Arguments of the training script; values of `None` are left out."""
    words = []
    for name, value in values.items():
        if isinstance(value, dict):
            words += [f"--{name}", json.dumps(value)]
        elif isinstance(value, list | tuple):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def write_clip(folder: Path) -> None:
    """`clip.mp4` of 12 frames and `openpose_json/`, by the names of the examples in README and model card."""
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(12):
            picture = np.full((64, 96, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    keypoints = np.random.default_rng(0).uniform((20, 10, 0.5), (70, 50, 1), (12, 137, 3))
    write_openpose(folder / "openpose_json", keypoints, "clip")
