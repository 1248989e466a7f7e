"""The square that a whole video is cut to, so that overlapping windows share what the towers make of a frame.

A clip that is predicted by itself, or trained on, is cut around everything that its person reaches (`subject_crop`).
Windows that share frames need the same square in each of them, and the model needs a person of the size that it knows.
So the video is taken in parts as long as a short clip, and each side of the square lies where the person's box ends in
the median part. A square around everything that the person reaches in the whole video makes the person small: with a
model trained on synthetic clips it took a third of the accuracy, and half of the F1 of events. (All of this is ours.)
"""

import itertools
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from clipmg_hf.processing import SquareCrop, valid_keypoints
from clipmg_hf.processing.geometry_clipmg import full_frame_crop, subject_crop


# A segment of a video ends when the middle of the person's box moves by more than this share of its side, or when the
# side grows or shrinks by more than this factor. A raised arm does less.
LARGEST_MOVE, LARGEST_GROWTH = 0.5, 1.6


@dataclass(frozen=True)
class CropSchedule:
    """One square after another, each from its frame until the next one's.

    Args:
        starts (`tuple[int, ...]`): First frame of each square, ascending; the first square also holds before it.
        crops (`tuple[SquareCrop, ...]`): The squares.
    """

    starts: tuple[int, ...]
    crops: tuple[SquareCrop, ...]

    def at(self, frame: int) -> SquareCrop:
        """The square of a frame."""
        return self.crops[max(bisect_right(self.starts, frame) - 1, 0)]


def crop_video(keypoints: np.ndarray, width: int, height: int, padding: float, part: int) -> SquareCrop:
    """One square for a whole video, around the place that a person takes in its clips.

    Args:
        keypoints (`numpy.ndarray` of shape `(N, K, 3)`): x, y in pixels of the source frame and confidence; (0, 0, 0)
            where missing.
        width, height (`int`): Size of the source frame.
        padding (`float`): Margin on each side, relative to the side of the person's box (`processor.crop_padding`).
        part (`int`): Frames of a part; half of a window is a good choice.

    Returns:
        [`SquareCrop`]: The whole frame where nobody is.
    """
    return _crop_around(_typical_box(_part_boxes(keypoints, part)), width, height, padding)


def crop_segments(
    keypoints: np.ndarray, width: int, height: int, padding: float, part: int, first: int = 0
) -> CropSchedule:
    """Squares that follow a person who moves far, or whom a cut of the camera moves; each holds as long as it can.

    A part of the video in which the person's box has left its place, or is of another size, begins a new square.

    Args:
        keypoints, width, height, padding, part: As in `crop_video`.
        first (`int`, defaults to 0): Frame that the first row of the keypoints belongs to.
    """
    boxes = _part_boxes(keypoints, part)
    limits = [0]
    for index in range(1, len(boxes)):
        before = _typical_box(boxes[limits[-1] : index])
        if before is not None and np.isfinite(boxes[index]).all() and _has_moved(before, boxes[index]):
            limits.append(index)
    crops = [
        _crop_around(_typical_box(boxes[start:end]), width, height, padding)
        for start, end in itertools.pairwise([*limits, len(boxes)])
    ]
    return CropSchedule(tuple(first + part * index for index in limits), tuple(crops))


def _part_boxes(keypoints: np.ndarray, part: int) -> np.ndarray:
    """(N, K, 3) -> (parts, 4): left, top, right and bottom of everything in each part; NaN without a person."""
    boxes = np.empty((-(-len(keypoints) // part), 4))
    for index in range(len(boxes)):
        rows = keypoints[index * part : (index + 1) * part]
        points, valid = rows[..., :2].astype(np.float64), valid_keypoints(rows)[..., None]
        boxes[index, :2] = np.where(valid, points, np.inf).min(axis=(0, 1))
        boxes[index, 2:] = np.where(valid, points, -np.inf).max(axis=(0, 1))
    boxes[~np.isfinite(boxes).all(axis=1)] = np.nan
    return boxes


def _typical_box(boxes: np.ndarray) -> np.ndarray | None:
    """Median of each side over the parts that show somebody."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    return np.median(boxes, axis=0) if len(boxes) else None


def _has_moved(before: np.ndarray, now: np.ndarray) -> bool:
    way = np.abs((now[:2] + now[2:]) - (before[:2] + before[2:])).max() / 2
    growth = max(_side(now), 1.0) / max(_side(before), 1.0)
    return bool(way > LARGEST_MOVE * _side(before) or not 1 / LARGEST_GROWTH <= growth <= LARGEST_GROWTH)


def _side(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).max())


def _crop_around(box: np.ndarray | None, width: int, height: int, padding: float) -> SquareCrop:
    if box is None:
        return full_frame_crop(width, height)
    corners = np.array([[*box[:2], 1], [*box[2:], 1]])
    return subject_crop(corners[None], width, height, padding, min_points=1)


__all__ = ["CropSchedule", "crop_segments", "crop_video"]
