"""Faces made unrecognisable, with the head found from the keypoints.

A head region is an ellipse with upright axes: x and y of its centre and its two half axes, in pixels of the source
frame. It covers the whole head with a margin, so that a detector's small errors uncover nothing. Inside it about five
patches per half axis are left of the picture, which tell hair from skin and no more.

Where a head cannot be found, more is blurred, never less: a lost head keeps its last region, which grows; a frame with
a person whose head was never found, or with nobody at all, is blurred as a whole. Only people whose keypoints are
given are blurred, so give everybody's, not the subject's alone. K is the number of points of a layout, P of people.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clipmg_hf.processing import KeypointLayout, get_layout, valid_keypoints


try:
    from PIL import Image, ImageFilter
except ImportError as error:
    raise ImportError(f'clipmg_hf.timeline.face_blur needs Pillow ({error}): pip install "clipmg_hf[viz]"') from error


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
_FEATHER = 1.2  # the blur ends at this multiple of the ellipse, and is whole inside the ellipse
_PATCHES = 5  # of the pixelation, per larger half axis
_PATCHES_OF_FRAME = 8  # along its shorter side, where the whole frame is blurred
# A lost head's region has grown to 1.6 times its size after this many frames, and stays so.
_GROWTH, _GROWTH_FRAMES = 0.6, 25
_MEDIAN_FRAMES = 15
_CHUNK = 4096


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
    is_face = np.array([name.startswith("face_") for name in layout.keypoints])
    face_low, face_high = _box(points[..., is_face, :])
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


def blur_face(image: np.ndarray, keypoints: np.ndarray, layout: KeypointLayout | str) -> np.ndarray:
    """Blur the heads in one picture; the whole picture if it shows nobody, or somebody whose head cannot be told.

    Args:
        image (`numpy.ndarray` uint8 of shape `(H, W, 3)`): Not changed.
        keypoints (`numpy.ndarray` of shape `(P, K, 3)` or `(K, 3)`): Everybody in the picture, in its pixels.
        layout ([`KeypointLayout`] or `str`): Layout of the keypoints, or its name.

    Returns:
        `numpy.ndarray` uint8 of shape `(H, W, 3)`, a new array.
    """
    return FaceBlur(layout)(image, keypoints)


def blur_frame(image: np.ndarray) -> np.ndarray:
    """Blur a whole picture, uint8 (H, W, 3), until nothing in it can be told; a new array."""
    return _pixelate(image, min(image.shape[:2]) / _PATCHES_OF_FRAME)


def blur_regions(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Blur ellipses, (R, 4) in pixels of the picture; a new array."""
    blurred = image.copy()
    height, width = image.shape[:2]
    for x, y, half_width, half_height in regions:
        low = np.floor((x - _FEATHER * half_width, y - _FEATHER * half_height))
        high = np.ceil((x + _FEATHER * half_width, y + _FEATHER * half_height)) + 1
        left, top = (int(value) for value in np.clip(low, 0, (width, height)))
        right, bottom = (int(value) for value in np.clip(high, 0, (width, height)))
        if left >= right or top >= bottom:
            continue
        part = blurred[top:bottom, left:right]
        smooth = _pixelate(part, max(half_width, half_height) / _PATCHES).astype(np.float32)
        across = (np.arange(left, right, dtype=np.float32) - x) / half_width
        down = (np.arange(top, bottom, dtype=np.float32) - y) / half_height
        distance = np.hypot(across[None], down[:, None])
        opacity = np.clip((_FEATHER - distance) / (_FEATHER - 1), 0, 1)[..., None]
        blurred[top:bottom, left:right] = (part + (smooth - part) * opacity).round().astype(np.uint8)
    return blurred


class FaceBlur:
    """Blurs the heads in frames that come one after the other, as from a camera.

    Every person is blurred at the head of this frame and at the median of the last half second, which covers a head
    whose keypoints jump away. A head that is not found keeps its last region, which grows. Until the first head is
    found, and while somebody is there whose head never was, the whole frame is blurred.

    Args:
        layout ([`KeypointLayout`] or `str`): Layout of the keypoints, or its name.
    """

    def __init__(self, layout: KeypointLayout | str) -> None:
        self._layout = get_layout(layout) if isinstance(layout, str) else layout
        self._known: dict[int, deque[np.ndarray]] = {}
        self._num_lost: dict[int, int] = {}

    def __call__(self, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """Blur the next frame.

        Args:
            image (`numpy.ndarray` uint8 of shape `(H, W, 3)`): Not changed.
            keypoints (`numpy.ndarray` of shape `(P, K, 3)` or `(K, 3)`): Everybody in the frame, in its pixels; a
                person keeps the place in all frames and is all zeros where not found.

        Returns:
            `numpy.ndarray` uint8 of shape `(H, W, 3)`, a new array.
        """
        people = keypoints[None] if keypoints.ndim == 2 else keypoints
        found = head_regions(people, self._layout)
        is_unknown = False
        for number, region in enumerate(found):
            if not np.isnan(region).any():
                self._known.setdefault(number, deque(maxlen=_MEDIAN_FRAMES)).append(region)
                self._num_lost[number] = 0
            elif number not in self._known:
                is_unknown = is_unknown or bool(valid_keypoints(people[number]).any())
        if is_unknown or not self._known:
            return blur_frame(image)
        regions = []
        for number, known in self._known.items():
            is_found = number < len(found) and not np.isnan(found[number]).any()
            self._num_lost[number] += not is_found
            regions += [_grow(known[-1], self._num_lost[number]), np.median(known, axis=0)]
        return blur_regions(image, np.array(regions))


class SequenceFaceBlur:
    """Blurs the heads in any frame of a video whose keypoints are all known.

    Gaps are filled from both sides, so a head is covered before it is found for the first time as well. A frame is
    blurred as a whole if it shows somebody whose head is found in no frame between two absences; all frames are if no
    head is found at all.

    Args:
        keypoints (`Sequence[numpy.ndarray]`): Everybody's keypoints (N, K, 3), or one such array; zeros where absent.
            People may share an array if at least one frame without either lies between them.
        layout ([`KeypointLayout`] or `str`): Layout of the keypoints, or its name.
    """

    def __init__(self, keypoints: Sequence[np.ndarray] | np.ndarray, layout: KeypointLayout | str) -> None:
        people = [keypoints] if isinstance(keypoints, np.ndarray) and keypoints.ndim == 3 else list(keypoints)
        self._regions: list[np.ndarray] = []
        self._is_unknown = np.zeros(len(people[0]) if people else 0, dtype=bool)
        for points in people:
            chunks = [points[start : start + _CHUNK] for start in range(0, len(points), _CHUNK)]
            found = np.concatenate([head_regions(chunk, layout) for chunk in chunks])
            is_there = np.concatenate([valid_keypoints(chunk).any(axis=1) for chunk in chunks])
            filled, is_covered = _fill_gaps(found, is_there)
            self._is_unknown |= ~is_covered
            if not np.isnan(filled).any():
                self._regions += [filled, _running_median(filled)]

    def __call__(self, image: np.ndarray, index: int, scale: float = 1.0) -> np.ndarray:
        """Blur frame `index`, uint8 (H, W, 3), which is `scale` times as large as the source; a new array."""
        if not self._regions or self._is_unknown[index]:
            return blur_frame(image)
        regions = np.array([track[index] for track in self._regions])
        return blur_regions(image, np.concatenate([(regions[:, :2] + 0.5) * scale - 0.5, regions[:, 2:] * scale], 1))


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


def _grow(region: np.ndarray, num_lost: np.ndarray | int) -> np.ndarray:
    """Regions (..., 4) of a head that was lost `num_lost` (...) frames ago."""
    factor = 1 + _GROWTH * np.minimum(np.asarray(num_lost) / _GROWTH_FRAMES, 1)
    return region * np.stack([np.ones_like(factor), np.ones_like(factor), factor, factor], axis=-1)


def _fill_gaps(regions: np.ndarray, is_there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions of heads in all frames, and whether they cover whoever is there.

    Args:
        regions: (N, 4), NaN where no head was found.
        is_there: (N,) bool, whether the frame shows the person.

    Returns:
        Regions (N, 4), NaN only if there is no head at all: while somebody is there they come from the frames of that
        presence, else from all frames; and (N,) bool, `False` while somebody is there without a head in any frame.
    """
    is_covered = np.ones(len(regions), dtype=bool)
    filled = _interpolate(regions)
    for frames in np.split(np.arange(len(regions)), np.flatnonzero(np.diff(is_there)) + 1):
        own = regions[frames]
        is_lost = np.isnan(own).any(axis=1)
        if not is_there[frames].all() or not is_lost.any():
            continue
        if is_lost.all():
            is_covered[frames] = False
        else:
            filled[frames] = _interpolate(own)
    return filled, is_covered


def _interpolate(regions: np.ndarray) -> np.ndarray:
    """Regions (N, 4) without NaN: they move evenly between known ones, and stay at the first and the last."""
    frames = np.arange(len(regions))
    known = np.flatnonzero(~np.isnan(regions).any(axis=1))
    if not len(known):
        return regions
    filled = np.stack([np.interp(frames, known, regions[known, column]) for column in range(4)], axis=1)
    following = np.searchsorted(known, frames).clip(max=len(known) - 1)
    distance = np.minimum(np.abs(frames - known[following]), np.abs(frames - known[np.maximum(following - 1, 0)]))
    return _grow(filled, distance)


def _running_median(regions: np.ndarray) -> np.ndarray:
    """Median of the frames around each one, (N, 4)."""
    padded = np.pad(regions, ((_MEDIAN_FRAMES // 2, _MEDIAN_FRAMES // 2), (0, 0)), mode="edge")
    return np.median(sliding_window_view(padded, _MEDIAN_FRAMES, axis=0), axis=-1)


def _pixelate(image: np.ndarray, patch: float) -> np.ndarray:
    """Mean colours of patches with sides of `patch` pixels, smoothed, at the size of the image."""
    height, width = image.shape[:2]
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (math.ceil(width / max(patch, 1)), math.ceil(height / max(patch, 1))), Image.Resampling.BOX
    )
    return np.asarray(small.filter(ImageFilter.GaussianBlur(0.8)).resize((width, height), Image.Resampling.BICUBIC))


__all__ = ["FaceBlur", "SequenceFaceBlur", "blur_face", "blur_frame", "blur_regions", "head_regions"]
