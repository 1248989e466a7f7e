"""Heads and faces in keypoints.

A head region is an ellipse with upright axes: x and y of its centre and its two half axes, in pixels of the source
frame. It covers the whole head with a margin, so that a detector's small errors uncover nothing. K is the number of
points of a layout.
"""

import numpy as np

from clipmg_hf.processing import KeypointLayout, get_layout, valid_keypoints


_HEAD_POINTS = frozenset({"nose", "left_eye", "right_eye", "left_ear", "right_ear", "head"})
# Height of a head (chin to crown) in units of the distance between two points, from adults' proportions. A distance is
# at most its true length in the picture, so the largest estimate is the best one.
_HEAD_HEIGHT = {
    ("left_ear", "right_ear"): 1.5,
    ("left_eye", "right_eye"): 3.6,
    ("nose", "left_eye"): 4.2,
    ("nose", "right_eye"): 4.2,
    ("nose", "left_ear"): 1.9,
    ("nose", "right_ear"): 1.9,
    ("left_eye", "left_ear"): 2.4,
    ("right_eye", "right_ear"): 2.4,
    ("left_shoulder", "right_shoulder"): 0.62,
    ("neck", "left_shoulder"): 1.24,
    ("neck", "right_shoulder"): 1.24,
    ("neck", "nose"): 1.0,
    ("kinect_neck", "head"): 1.4,
}
_FACE_HEIGHT = 1.55  # of a head, in units of the longer side of the box around the face points
# Half axes in units of the head's height, and how far they reach beyond the points.
_HALF_AXES, _MARGINS = (0.58, 0.72), (0.2, 0.15)
# A head known from the shoulders alone: how far above them, and how much more is covered.
_ABOVE_SHOULDERS, _UNCERTAINTY = 0.9, 1.5
# Estimators that give every point a place put the hidden ones anywhere, with confidences below this.
_MIN_CONFIDENCE = 0.1


def face_points(layout: KeypointLayout) -> np.ndarray:
    """Which points of a layout draw the shape of a face, (K,) bool; nose, eyes and ears are not among them."""
    return np.array([name.startswith("face_") for name in layout.keypoints])


def head_regions(keypoints: np.ndarray, layout: KeypointLayout | str) -> np.ndarray:
    """Where the heads are.

    Args:
        keypoints (`numpy.ndarray` of shape `(..., K, 3)`): x, y in pixels of the source frame and confidence,
            (0, 0, 0) where missing.
        layout ([`KeypointLayout`] or `str`): Layout of the keypoints, or its name.

    Returns:
        `numpy.ndarray` float64 of shape `(..., 4)`: x, y, half width and half height; NaN where no head can be told.
    """
    layout = get_layout(layout) if isinstance(layout, str) else layout
    if keypoints.shape[-2:] != (layout.num_keypoints, 3):
        raise ValueError(
            f"keypoints have the shape {keypoints.shape}; layout {layout.name!r} needs "
            f"(..., {layout.num_keypoints}, 3)."
        )
    points = np.where(_trusted(keypoints)[..., None], keypoints[..., :2], np.nan).astype(np.float64)
    place = {name: points[..., index, :] for index, name in enumerate(layout.keypoints)}
    nowhere = np.full((*keypoints.shape[:-2], 2), np.nan)
    distances = [
        factor * np.linalg.norm(place.get(first, nowhere) - place.get(second, nowhere), axis=-1)
        for (first, second), factor in _HEAD_HEIGHT.items()
    ]
    face_low, face_high = _box(points[..., face_points(layout), :])
    height = np.fmax.reduce([*distances, _FACE_HEIGHT * (face_high - face_low).max(axis=-1)])[..., None]
    height[height == 0] = np.nan
    low, high = _box(points[..., np.isin(layout.keypoints, list(_HEAD_POINTS)), :])
    # The middle between brows and chin lies lower than that of eyes and nose, which is the head's.
    center = (low + high) / 2
    center = np.where(np.isnan(center), (face_low + face_high) / 2, center)
    reach = np.fmax(np.fmax(high, face_high) - center, center - np.fmin(low, face_low))
    from_head = np.concatenate([center, np.fmax(_HALF_AXES * height, reach + _MARGINS * height)], axis=-1)
    from_body = _regions_above_shoulders(place, nowhere, height)
    return np.where(np.isnan(from_head).any(axis=-1, keepdims=True), from_body, from_head)


def _trusted(keypoints: np.ndarray) -> np.ndarray:
    """Points (..., K) to go by: the confident ones, or all that are there in a person without any."""
    is_valid = valid_keypoints(keypoints)
    is_strong = is_valid & (keypoints[..., 2] >= _MIN_CONFIDENCE)
    return np.where(is_strong.any(axis=-1, keepdims=True), is_strong, is_valid)


def _box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y of (..., M, 2) without the NaN; NaN where there is no point."""
    nothing = np.full((*points.shape[:-2], 1, 2), np.nan)
    points = np.concatenate([points, nothing], axis=-2)
    return np.fmin.reduce(points, axis=-2), np.fmax.reduce(points, axis=-2)


def _regions_above_shoulders(place: dict[str, np.ndarray], nowhere: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Regions of heads none of whose points is there; up is away from the hips, or else up in the picture."""
    shoulders = (place.get("left_shoulder", nowhere) + place.get("right_shoulder", nowhere)) / 2
    base = shoulders
    for name in ("neck", "kinect_neck", "spine_shoulder"):
        base = np.where(np.isnan(base), place.get(name, nowhere), base)
    hips = (place.get("left_hip", nowhere) + place.get("right_hip", nowhere)) / 2
    hips = np.where(np.isnan(hips), place.get("mid_hip", nowhere), hips)
    body = base - hips
    length = np.linalg.norm(body, axis=-1, keepdims=True)
    up = np.where(np.isnan(length) | (length == 0), (0.0, -1.0), body / np.where(length == 0, 1, length))
    axes = _UNCERTAINTY * height * _HALF_AXES
    return np.concatenate([base + _ABOVE_SHOULDERS * height * up, axes], axis=-1)


__all__ = ["face_points", "head_regions"]
