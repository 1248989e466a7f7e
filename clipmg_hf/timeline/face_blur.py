"""Faces made unrecognisable, with the head found from the keypoints. Needs the extra: pip install "clipmg_hf[viz]".

Inside a head region (see `clipmg_hf.pose.heads`) about five patches per half axis are left of the picture, which tell
hair from skin and no more.

Where a head cannot be found, more is blurred, never less: a lost head keeps its last region, which grows; a frame with
a person whose head was never found is blurred as a whole, and so is every frame where no head was found at all. Only
people whose keypoints are given are blurred, so give everybody's, not the subject's alone. K is the number of points
of a layout.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clipmg_hf.explanation import explanation_of
from clipmg_hf.inference import ClipPrediction
from clipmg_hf.pose.heads import face_points, head_regions
from clipmg_hf.processing import KeypointLayout, VideoReader, valid_keypoints
from clipmg_hf.processing.video_processing_clipmg import DecodedVideo


_FEATHER = 1.2  # the blur ends at this multiple of the ellipse, and is whole inside the ellipse
_PATCHES = 5  # of the pixelation, per larger half axis
_PATCHES_OF_FRAME = 8  # along its shorter side, where the whole frame is blurred
# A lost head's region has grown to 1.6 times its size after this many frames, and stays so.
_GROWTH, _GROWTH_FRAMES = 0.6, 25
_MEDIAN_FRAMES = 15
_CHUNK = 4096


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


class BlurredVideo:
    """The frames of a clip's video with blurred heads, read as from a [`VideoReader`].

    Frames outside the clip, where nobody was looked for, are blurred as a whole.

    Args:
        video ([`VideoReader`] or [`DecodedVideo`]): The source.
        blur ([`SequenceFaceBlur`]): Of everybody in the clip.
        clip (`range`): The numbers of the frames that `blur` knows.
    """

    def __init__(self, video: VideoReader | DecodedVideo, blur: SequenceFaceBlur, clip: range) -> None:
        self._video, self._blur, self._clip = video, blur, clip
        self.info = video.info

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 (n, H, W, 3)."""
        frames = zip(indices, self._video.read(indices), strict=True)
        return np.stack([self._blur_frame(int(index), frame) for index, frame in frames])

    def iter_frames(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(index, frame)` for `start <= index < end`; frame: uint8 (H, W, 3)."""
        for index, frame in self._video.iter_frames(start, end):
            yield index, self._blur_frame(index, frame)

    def _blur_frame(self, index: int, frame: np.ndarray) -> np.ndarray:
        return self._blur(frame, index - self._clip.start) if index in self._clip else blur_frame(frame)


def blur_clip(prediction: ClipPrediction, bystanders: Sequence[np.ndarray] = ()) -> ClipPrediction:
    """The same prediction, to be drawn with blurred heads and without points of the face.

    Args:
        prediction: Made with `explain=True`.
        bystanders: Keypoints (end - start, K, 3) of everybody else, in the layout of the subject's.

    Raises:
        ValueError: The prediction holds no explanation, or faces cannot be found for want of keypoints.
    """
    explanation = explanation_of(prediction)
    if explanation.keypoints is None or explanation.layout is None:
        raise ValueError(f"{prediction.video}: faces are found by keypoints, and there are none; expected keypoints.")
    for number, points in enumerate(bystanders):
        if points.shape != explanation.keypoints.shape:
            raise ValueError(
                f"bystander {number} has keypoints of shape {points.shape}; expected "
                f"{explanation.keypoints.shape}, as those of the subject."
            )
    blur = SequenceFaceBlur([explanation.keypoints, *bystanders], explanation.layout)
    video = BlurredVideo(explanation.video, blur, range(prediction.start, prediction.end))
    keypoints = np.where(face_points(explanation.layout)[:, None], 0.0, explanation.keypoints)
    # Drawings read it as they read the source.
    return replace(prediction, explanation=replace(explanation, video=cast(VideoReader, video), keypoints=keypoints))


def is_blurred(prediction: ClipPrediction) -> bool:
    """Whether the prediction is drawn with blurred heads, as [`blur_clip`] made it."""
    return isinstance(explanation_of(prediction).video, BlurredVideo)


def _grow(region: np.ndarray, num_lost: np.ndarray) -> np.ndarray:
    """Regions (..., 4) of a head that was lost `num_lost` (...) frames ago."""
    factor = 1 + _GROWTH * np.minimum(num_lost / _GROWTH_FRAMES, 1)
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
    try:
        from PIL import Image, ImageFilter
    except ImportError as error:
        raise ImportError(f'faces are blurred with Pillow ({error}): pip install "clipmg_hf[viz]"') from error
    height, width = image.shape[:2]
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (math.ceil(width / max(patch, 1)), math.ceil(height / max(patch, 1))), Image.Resampling.BOX
    )
    return np.asarray(small.filter(ImageFilter.GaussianBlur(0.8)).resize((width, height), Image.Resampling.BICUBIC))


__all__ = ["BlurredVideo", "SequenceFaceBlur", "blur_clip", "blur_frame", "blur_regions", "is_blurred"]
