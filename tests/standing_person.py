"""Keypoints of a person who stands before the camera."""

import numpy as np

from clipmg_hf.processing import get_layout


LAYOUT = get_layout("openpose-body25")
# A head 92 pixels high, from 100 to 192, seen from the front: x is 200, the eyes are half way.
PLACES = {
    "nose": (200, 159),
    "left_eye": (212, 146),
    "right_eye": (188, 146),
    "left_ear": (230, 150),
    "right_ear": (170, 150),
    "neck": (200, 240),
    "left_shoulder": (272, 240),
    "right_shoulder": (128, 240),
    "mid_hip": (200, 430),
}


def person(*names, shift=(0, 0), confidence=0.9) -> np.ndarray:
    """(25, 3) with the named points of `PLACES`, all of them without names."""
    points = np.zeros((LAYOUT.num_keypoints, 3), np.float32)
    for name in names or PLACES:
        points[LAYOUT.index(name)] = (*np.add(PLACES[name], shift), confidence)
    return points
