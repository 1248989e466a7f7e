"""Which person of one frame is which of the next: numbers for people, from their keypoints alone.

P is the number of people in a frame, M that of the people who are followed, K that of keypoints. People are (P, K, 3)
float32: x, y in pixels of the source frame and confidence; missing points are (0, 0, 0).

Two detections are compared by the mean distance of the points that both have, over the mean diagonal of their boxes.
It is the `mean_euclidean` of the tracker Norfair (github.com/tryolabs/norfair) in units of the body, as COCO's object
keypoint similarity (cocodataset.org/#keypoints-eval) is; unlike that one it needs no constant for each point, so it
serves every layout, and it does not level off, so that it also ranks people who are far away.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from clipmg_hf.processing import valid_keypoints


# Fewer points do not tell people apart; detectors leave such scraps at the rim of the picture.
MIN_POINTS = 3
NOT_TRACKED = -1
# Frames that are computed together: a long video's keypoints are large.
BLOCK = 1000
# Weight of the newest step in the velocity, and what remains of the velocity after each frame without a detection.
_SMOOTHING, _DAMPING = 0.3, 0.95


class FrameRows:
    """Rows of a long array, of which a copy is made when they are asked for: an array itself may be a memory map.

    Args:
        sequence (`numpy.ndarray` of shape `(N, K, 3)`): Keypoints in every frame.
        rows (`numpy.ndarray` int64 of shape `(n,)`): The rows that count.
    """

    def __init__(self, sequence: np.ndarray, rows: np.ndarray):
        self.sequence = sequence
        self.rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, K, 3)."""
        return len(self.rows), *self.sequence.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self.sequence[self.rows[index]], dtype=np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)


@dataclass(frozen=True, eq=False)
class Track:
    """One person followed through a video, n frames of it.

    Args:
        number (`int`): Unique among the tracks of a video, in order of their first frames.
        frames (`numpy.ndarray` int64 of shape `(n,)`): The frames that show the person, ascending; n is above 0.
        keypoints (`numpy.ndarray` float32 or [`FrameRows`] of shape `(n, K, 3)`): x, y in pixels of the source frame
            and confidence in these frames.
    """

    number: int
    frames: np.ndarray
    keypoints: np.ndarray | FrameRows

    @property
    def first(self) -> int:
        """First frame with the person."""
        return int(self.frames[0])

    @property
    def last(self) -> int:
        """Last frame with the person, inclusive."""
        return int(self.frames[-1])

    def __len__(self) -> int:
        return len(self.frames)


class PersonTracker:
    """Numbers the people of one frame after another; what it keeps does not grow with the length of the video.

    Detections go to the people followed so far by the assignment with the smallest sum of distances (see the module).
    Everybody is expected to go on at the velocity of the last frames, and who was missing may also be back at the old
    place. A detection farther than `max_distance` from everybody starts a new number. To leave somebody unmatched
    costs `max_distance`, so nobody is handed a neighbour's place for the sake of one more match.

    The velocity is there because it was needed: of 15 pairs of synthetic people who pass each other at 20 pixels per
    frame, 7 swap their numbers without it and none with it.

    Args:
        max_gap (`int`, defaults to 250): Frames for which a person may be missing and still keep the number, near the
            place of the last detection.
        max_distance (`float`, defaults to 0.4): In diagonals of a person's box, above 0.
        duplicate_distance (`float`, defaults to 0.07): Two detections in one frame that are closer than this are one
            person, unless both have a number from the frames before: people who cross do come close.

    Raises:
        ValueError: A value outside its range.
    """

    def __init__(self, max_gap: int = 250, max_distance: float = 0.4, duplicate_distance: float = 0.07):
        if max_gap < 0 or not max_distance > 0 or not duplicate_distance >= 0:
            raise ValueError(
                f"Need max_gap={max_gap} >= 0, max_distance={max_distance} > 0 and "
                f"duplicate_distance={duplicate_distance} >= 0."
            )
        self.max_gap = max_gap
        self.max_distance = max_distance
        self.duplicate_distance = duplicate_distance
        self._frame = -1
        self._next_number = 0
        # One row for each person who is followed: last detection (M, K, 3), pixels per frame (M, 2), frame (M,).
        self._numbers = np.empty(0, dtype=np.int64)
        self._people: np.ndarray | None = None
        self._velocities = np.empty((0, 2), dtype=np.float32)
        self._last_frames = np.empty(0, dtype=np.int64)

    def update(self, people: np.ndarray) -> np.ndarray:
        """Number the people of the next frame.

        Args:
            people (`numpy.ndarray` of shape `(P, K, 3)`): P may be 0; K is the same in every call.

        Returns:
            `numpy.ndarray` int64 of shape `(P,)`: Numbers from 0 in order of appearance; -1 for the weaker ones of
            several detections of one person, and for fewer than three valid points.

        Raises:
            ValueError: Another shape, or numbers that are not finite; names the frame.
        """
        self._frame += 1
        people = self._check(people)
        self._forget()
        usable = np.flatnonzero(valid_keypoints(people).sum(axis=-1) >= MIN_POINTS)
        numbers = np.full(len(people), NOT_TRACKED, dtype=np.int64)
        if len(usable):
            numbers[usable] = self._assign(people[usable])
        return numbers

    def _check(self, people: np.ndarray) -> np.ndarray:
        people = np.asarray(people, dtype=np.float32)
        if people.ndim != 3 or people.shape[2] != 3:
            raise ValueError(f"Frame {self._frame}: people have the shape {people.shape}; expected (P, K, 3).")
        if self._people is None:
            self._people = np.empty((0, *people.shape[1:]), dtype=np.float32)
        if people.shape[1:] != self._people.shape[1:]:
            expected = f"expected {self._people.shape[1]} as in the frames before"
            raise ValueError(f"Frame {self._frame}: people have {people.shape[1]} keypoints; {expected}.")
        if not np.isfinite(people).all():
            person, point, _ = np.argwhere(~np.isfinite(people))[0]
            raise ValueError(
                f"Frame {self._frame}: keypoint {point} of person {person} is {people[person, point]}; expected "
                f"finite numbers."
            )
        return people

    def _forget(self) -> None:
        kept = self._frame - self._last_frames <= self.max_gap + 1
        if not kept.all():
            assert self._people is not None
            self._numbers, self._last_frames = self._numbers[kept], self._last_frames[kept]
            self._people, self._velocities = self._people[kept], self._velocities[kept]

    def _assign(self, people: np.ndarray) -> np.ndarray:
        """People with enough valid points (P, K, 3) -> their numbers (P,)."""
        assert self._people is not None
        rows = np.full(len(people), NOT_TRACKED)
        costs = np.minimum(self._distances(people), self.max_distance)
        matched, detections = linear_sum_assignment(costs)
        near = costs[matched, detections] < self.max_distance
        rows[detections[near]] = matched[near]
        new = self._settle_duplicates(people, rows)
        self._move(rows, people)
        numbers = np.full(len(people), NOT_TRACKED, dtype=np.int64)
        numbers[rows != NOT_TRACKED] = self._numbers[rows[rows != NOT_TRACKED]]
        numbers[new] = self._next_number + np.arange(len(new))
        self._next_number += len(new)
        self._numbers = np.concatenate([self._numbers, numbers[new]])
        self._people = np.concatenate([self._people, people[new]])
        self._velocities = np.concatenate([self._velocities, np.zeros((len(new), 2), dtype=np.float32)])
        self._last_frames = np.concatenate([self._last_frames, np.full(len(new), self._frame)])
        return numbers

    def _distances(self, people: np.ndarray) -> np.ndarray:
        """From everybody who is followed to people (P, K, 3): (M, P)."""
        assert self._people is not None
        distances = keypoint_distances(self._predict()[:, None], people)
        if (missing := self._frame - self._last_frames > 1).any():
            in_place = keypoint_distances(self._people[missing][:, None], people)
            distances[missing] = np.minimum(distances[missing], in_place)
        return distances

    def _predict(self) -> np.ndarray:
        """Where everybody is expected in this frame: (M, K, 3)."""
        assert self._people is not None
        steps = self._frame - self._last_frames
        reach = (1 - _DAMPING**steps) / (1 - _DAMPING)
        predicted = self._people.copy()
        shift = (self._velocities * reach[:, None].astype(np.float32))[:, None]
        predicted[..., :2] += shift * valid_keypoints(self._people)[..., None]
        return predicted

    def _settle_duplicates(self, people: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Choose, by changing `rows` (P,), which of several detections carries on; returns those that are new."""
        unmatched = np.flatnonzero(rows == NOT_TRACKED)
        if not len(unmatched) or len(people) == 1:
            return unmatched
        weights = people[..., 2].sum(axis=-1)
        close = keypoint_distances(people[:, None], people) < self.duplicate_distance
        new: list[int] = []
        for index in unmatched[np.argsort(-weights[unmatched], kind="stable")]:
            twins = [other for other in np.flatnonzero(close[index]) if rows[other] != NOT_TRACKED]
            if twins and weights[index] > weights[twins[0]]:
                rows[index], rows[twins[0]] = rows[twins[0]], NOT_TRACKED
            elif not twins and not close[index, new].any():
                new.append(index)
        return np.array(sorted(new), dtype=np.int64)

    def _move(self, rows: np.ndarray, people: np.ndarray) -> None:
        """Take over the detections that go on with people who are followed; rows (P,), people (P, K, 3)."""
        assert self._people is not None
        people, rows = people[rows != NOT_TRACKED], rows[rows != NOT_TRACKED]
        if not len(rows):
            return
        before = self._people[rows]
        common = (valid_keypoints(before) & valid_keypoints(people))[..., None]
        moved = ((people - before)[..., :2] * common).sum(axis=1) / np.maximum(common.sum(axis=1), 1)
        newest = moved / (self._frame - self._last_frames[rows])[:, None]
        self._velocities[rows] += _SMOOTHING * (newest - self._velocities[rows])
        self._people[rows] = people
        self._last_frames[rows] = self._frame


def keypoint_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean distance of the valid points that two people have in common, over the mean diagonal of their boxes.

    With fewer than three points in common it is the distance of the middles of their boxes instead.

    Args:
        first, second (`numpy.ndarray` of shape `(..., K, 3)`): Keypoints; the leading axes are broadcast.

    Returns:
        `numpy.ndarray` float64 of shape `(...)`: 0 and above; infinite where neither box has a size.
    """
    common = valid_keypoints(first) & valid_keypoints(second)
    lengths = np.sqrt(np.square(first[..., :2] - second[..., :2]).sum(axis=-1))
    num_common = common.sum(axis=-1)
    mean_length = (lengths * common).sum(axis=-1, dtype=np.float64) / np.maximum(num_common, 1)
    first_boxes, second_boxes = person_boxes(first), person_boxes(second)
    middles = (first_boxes[..., :2] + first_boxes[..., 2:] - second_boxes[..., :2] - second_boxes[..., 2:]) / 2
    distance = np.where(num_common < MIN_POINTS, np.hypot(middles[..., 0], middles[..., 1]), mean_length)
    size = (_diagonals(first_boxes) + _diagonals(second_boxes)) / 2
    return np.divide(distance, size, out=np.full(distance.shape, np.inf), where=size > 0)


def person_boxes(people: np.ndarray | FrameRows) -> np.ndarray:
    """Left, top, right and bottom of the valid points: (..., K, 3) -> (..., 4) float32; zeros without valid points."""
    if len(people.shape) > 2 and len(people) > BLOCK:
        return np.concatenate([person_boxes(people[first : first + BLOCK]) for first in range(0, len(people), BLOCK)])
    people = np.asarray(people)
    valid = valid_keypoints(people)[..., None]
    low = np.where(valid, people[..., :2], np.inf).min(axis=-2)
    high = np.where(valid, people[..., :2], -np.inf).max(axis=-2)
    boxes = np.concatenate([low, high], axis=-1)
    return np.where(np.isfinite(boxes), boxes, 0).astype(np.float32)


def _diagonals(boxes: np.ndarray) -> np.ndarray:
    return np.hypot(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])


def track_people(frames: Iterable[np.ndarray], tracker: PersonTracker | None = None) -> list[Track]:
    """Follow everybody through a video.

    Args:
        frames (iterable of `numpy.ndarray` of shape `(P, K, 3)`): The people of every frame, in order; P may be 0.
        tracker (`PersonTracker`, *optional*): A fresh one with other settings than the defaults.

    Returns:
        `list[Track]`: By number; a detection that was taken for a duplicate is in none.
    """
    tracker = PersonTracker() if tracker is None else tracker
    seen: dict[int, list[tuple[int, np.ndarray]]] = {}
    for frame, people in enumerate(frames):
        people = np.asarray(people, dtype=np.float32)
        for number, person in zip(tracker.update(people).tolist(), people, strict=True):
            if number != NOT_TRACKED:
                seen.setdefault(number, []).append((frame, person))
    # Popped, so that the frames of one person at a time are in memory twice.
    return [_make_track(number, seen.pop(number)) for number in sorted(seen)]


def _make_track(number: int, detections: list[tuple[int, np.ndarray]]) -> Track:
    frames, people = zip(*detections, strict=True)
    return Track(number, np.array(frames, dtype=np.int64), np.stack(people))


__all__ = [
    "MIN_POINTS",
    "NOT_TRACKED",
    "FrameRows",
    "PersonTracker",
    "Track",
    "keypoint_distances",
    "person_boxes",
    "track_people",
]
