"""The tiny model of the tests: two layers of everything, frames of 32 x 32. Fields are replaced by `{**TINY, ...}`."""

import json
from collections.abc import Mapping
from typing import Any


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
