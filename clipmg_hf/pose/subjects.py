"""Who of the people in a video is the subject: a rule, what it chose, and what a reader should know about it.

    subjects = choose_subjects(track_people(frames), parse_subject_rule("largest"), width, height, num_frames)
    sequences = [to_sequence(subject, num_frames) for subject in subjects]

N is the number of frames of the video, n that of the frames with one person, P that of people in a frame and K that of
keypoints: x, y in pixels of the source frame and confidence; missing points are (0, 0, 0).

Every rule adds up a value of each frame, so that somebody who passes close to the camera does not outdo the person who
sits through the interview: `"largest"` adds the areas of the person's boxes, `"most_central"` the closeness of their
centres to that of the picture (1 in the centre, 0 in a corner), `"longest"` the frames, and a box (left, top, right,
bottom in pixels of the source frame) the overlap with it (intersection over union). An index from 0 takes a person in
the order of `"all"`: by first frame, then from left to right in the picture.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from clipmg_hf.pose.tracking import (
    BLOCK,
    MIN_POINTS,
    FrameRows,
    Track,
    keypoint_distances,
    person_boxes,
)
from clipmg_hf.processing import valid_keypoints
from clipmg_hf.subject_rules import RULES, Box, SubjectRule, check_subject_rule, parse_subject_rule
from clipmg_hf.timeline import Person, format_timecode


# Our choice: a second at 25 frames per second.
MIN_FRAMES = 25
# More intervals than this in one note hide the others.
_MAX_SHOWN = 10
_WITHOUT_PERSON = "A model with a visual stream also works on RGB alone: pass no keypoints and no pose estimator."


class NoPersonError(ValueError):
    """Nobody in a video can be the subject; the message names the video and what can be done."""


def choose_subjects(
    tracks: Sequence[Track],
    rule: SubjectRule,
    width: int,
    height: int,
    num_frames: int,
    *,
    min_frames: int = MIN_FRAMES,
    video: str = "the video",
) -> list[Track]:
    """Choose the subject, or the subjects.

    Args:
        tracks (`Sequence[Track]`): Everybody in the video.
        rule (`str`, `int` or `tuple`): See the module.
        width, height (`int`): Size of the upright source frame in pixels.
        num_frames (`int`): N.
        min_frames (`int`, defaults to 25): With "all" and with an index, people in fewer frames, or in less than half
            of a shorter video, do not count.
        video (`str`): Its name in messages.

    Returns:
        `list[Track]`: At least one, by first frame, then from left to right; numbered from 0.

    Raises:
        NoPersonError: No tracks, nobody with enough frames, or nobody in the box.
        ValueError: Another rule, or an index that is too large.
    """
    rule = check_subject_rule(rule)
    if not tracks:
        raise NoPersonError(f"{video}: no person was found in {num_frames} frames. {_WITHOUT_PERSON}")
    ordered = sorted(tracks, key=lambda track: (track.first, _left_edge(track.keypoints[0]), track.number))
    if rule == "all" or isinstance(rule, int):
        needed = min(min_frames, (num_frames + 1) // 2)
        chosen = [track for track in ordered if len(track) >= needed]
        if not chosen:
            most = max(len(track) for track in ordered)
            raise NoPersonError(
                f"{video}: nobody is in at least {needed} of {num_frames} frames (the most is {most}). "
                f"{_WITHOUT_PERSON}"
            )
        if isinstance(rule, int):
            if rule >= len(chosen):
                raise ValueError(
                    f"{video}: the subject's index is {rule}; expected 0 to {len(chosen) - 1}, as {len(chosen)} "
                    f"people are in at least {needed} frames."
                )
            chosen = [chosen[rule]]
    else:
        scores = [float(frame_scores(track.keypoints, rule, width, height).sum()) for track in ordered]
        if max(scores) <= 0 and not isinstance(rule, str):
            raise NoPersonError(f"{video}: nobody is in the box {rule} of the {width} x {height} picture.")
        chosen = [ordered[int(np.argmax(scores))]]
    return [Track(number, track.frames, track.keypoints) for number, track in enumerate(chosen)]


def frame_scores(people: np.ndarray | FrameRows, rule: SubjectRule, width: int, height: int) -> np.ndarray:
    """What one frame says for each person: (P, K, 3) -> (P,) float64, 0 and above; see the module for the rules."""
    boxes = person_boxes(people).astype(np.float64)
    low, high = boxes[:, :2], boxes[:, 2:]
    area = (high - low).prod(axis=-1)
    if rule == "largest":
        return area
    if rule == "most_central":
        middle = np.array([width - 1, height - 1]) / 2
        distance = np.hypot(*((low + high) / 2 - middle).T)
        return np.maximum(1 - distance / np.hypot(*middle), 0)
    if isinstance(rule, str | int):
        return np.ones(len(people))
    shared = np.maximum(np.minimum(high, rule[2:]) - np.maximum(low, rule[:2]), 0).prod(axis=-1)
    return shared / (area + (rule[2] - rule[0]) * (rule[3] - rule[1]) - shared)


def _left_edge(person: np.ndarray) -> float:
    return float(person_boxes(person[None])[0, 0])


def to_sequence(track: Track, num_frames: int) -> np.ndarray:
    """The person's keypoints in every frame: (N, K, 3) float32, zeros where absent.

    Raises:
        ValueError: The track goes on after the last frame.
    """
    if track.last >= num_frames:
        raise ValueError(f"Person {track.number} is in frame {track.last}; expected frames 0 to {num_frames - 1}.")
    sequence = np.zeros((num_frames, *track.keypoints.shape[1:]), dtype=np.float32)
    for first in range(0, len(track), BLOCK):
        rows = slice(first, first + BLOCK)
        sequence[track.frames[rows]] = track.keypoints[rows]
    return sequence


def from_sequence(sequence: np.ndarray, number: int = 0) -> Track | None:
    """The track of keypoints (N, K, 3) of one person; frames without a valid point are absent, `None` if all are."""
    blocks = (sequence[first : first + BLOCK] for first in range(0, len(sequence), BLOCK))
    frames = np.flatnonzero(np.concatenate([valid_keypoints(block).any(axis=-1) for block in blocks]))
    # No copy, as a long video's keypoints are large.
    return Track(number, frames, FrameRows(sequence, frames)) if len(frames) else None


def describe(track: Track) -> Person:
    """What a timeline says of the person."""
    left, top, right, bottom = np.median(person_boxes(track.keypoints), axis=0).tolist()
    return Person(track.number, track.first, track.last, len(track), (left, top, right, bottom))


def find_jumps(track: Track) -> list[int]:
    """Frames in which the keypoints are more than a body's width away from the frame before.

    Nobody moves that fast: the keypoints went over to another person, or the camera cut. The way is the mean one of
    the points that both frames have, the width the largest of both boxes' and of the median one. Frames after an
    absence or with fewer than three points of the frame before do not count.
    """
    parts = [_mean_way(track.keypoints[first : first + BLOCK + 1]) for first in range(0, len(track), BLOCK)]
    way, num_common = (np.concatenate(values) for values in zip(*parts, strict=True))
    boxes = person_boxes(track.keypoints)
    widths = np.maximum(boxes[:, 2] - boxes[:, 0], np.median(boxes[:, 2] - boxes[:, 0]))
    jumps = np.hypot(*way.T) > np.maximum(widths[1:], widths[:-1])
    counts = (num_common[:, 0] >= MIN_POINTS) & (np.diff(track.frames) == 1)
    return track.frames[1:][jumps & counts].tolist()


def _mean_way(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean way (n - 1, 2) of the points that a frame and the one before have, and how many these are (n - 1, 1)."""
    valid = valid_keypoints(keypoints)
    common = (valid[1:] & valid[:-1])[..., None]
    num_common = common.sum(axis=1)
    return (np.diff(keypoints[..., :2], axis=0) * common).sum(axis=1) / np.maximum(num_common, 1), num_common


def find_absences(track: Track, num_frames: int, min_frames: int = MIN_FRAMES) -> list[tuple[int, int]]:
    """Intervals (start, end), half open, of at least `min_frames` frames without the person, from frame 0 to N."""
    edges = [-1, *track.frames.tolist(), num_frames]
    return [(a + 1, b) for a, b in itertools.pairwise(edges) if b - a - 1 >= min_frames]


def find_encounters(
    track: Track, others: Sequence[Track], max_distance: float = 0.25, max_pause: int = MIN_FRAMES
) -> list[tuple[int, int]]:
    """Intervals (start, end), half open, in which somebody else is where the person is.

    There, keypoints alone may mistake one for the other; look at the video.

    Args:
        track (`Track`): The person.
        others (`Sequence[Track]`): Everybody; the track that holds the same array as the person's is left out.
        max_distance (`float`): Of their points, in mean diagonals of their boxes.
        max_pause (`int`): Frames by which two intervals may be apart and still be one.
    """
    close: set[int] = set()
    for other in others:
        if other.keypoints is not track.keypoints:
            frames, mine, its = np.intersect1d(track.frames, other.frames, assume_unique=True, return_indices=True)
            for first in range(0, len(frames), BLOCK):
                rows = slice(first, first + BLOCK)
                distances = keypoint_distances(track.keypoints[mine[rows]], other.keypoints[its[rows]])
                close.update(frames[rows][distances < max_distance].tolist())
    intervals: list[tuple[int, int]] = []
    for frame in sorted(close):
        if intervals and frame - intervals[-1][1] <= max_pause:
            intervals[-1] = intervals[-1][0], frame + 1
        else:
            intervals.append((frame, frame + 1))
    return intervals


def subject_notes(
    subject: Track, tracks: Sequence[Track], num_frames: int, frame_seconds: Sequence[float]
) -> list[str]:
    """What a reader of the timeline should know about the keypoints of one person, in sentences.

    Args:
        subject (`Track`): The person.
        tracks (`Sequence[Track]`): Everybody in the video.
        num_frames (`int`): N.
        frame_seconds (`Sequence[float]` of N): Time of each frame since the first.
    """
    name = f"Person {subject.number}"
    jumps = [(frame, frame + 1) for frame in find_jumps(subject)]
    findings = {
        f"{name} jumps by more than a body's width, perhaps to another person": jumps,
        f"{name} is not seen for {MIN_FRAMES} frames or more": find_absences(subject, num_frames),
        f"{name} and somebody else are in the same place and may be mixed up": find_encounters(subject, tracks),
    }
    return [
        f"{text}: {_list_intervals(intervals, frame_seconds)}." for text, intervals in findings.items() if intervals
    ]


def _list_intervals(intervals: Sequence[tuple[int, int]], frame_seconds: Sequence[float]) -> str:
    shown = []
    for start, end in intervals[:_MAX_SHOWN]:
        times = [format_timecode(frame_seconds[frame]) for frame in (start, end - 1)]
        one = end - start == 1
        shown.append(f"frame {start} ({times[0]})" if one else f"frames {start}-{end - 1} ({times[0]} to {times[1]})")
    if len(intervals) > _MAX_SHOWN:
        shown.append(f"and {len(intervals) - _MAX_SHOWN} more")
    return ", ".join(shown)


__all__ = [
    "MIN_FRAMES",
    "RULES",
    "Box",
    "NoPersonError",
    "SubjectRule",
    "check_subject_rule",
    "choose_subjects",
    "describe",
    "find_absences",
    "find_encounters",
    "find_jumps",
    "frame_scores",
    "from_sequence",
    "parse_subject_rule",
    "subject_notes",
    "to_sequence",
]
