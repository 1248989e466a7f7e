"""From scores of overlapping windows to events.

1. Score curves: the score of class c in frame f is the weighted mean of the windows over f. A window [start, end) has
   the weight `sin(pi * (f + 0.5 - start) / (end - start)) ** 2`: most at its centre, next to nothing at its limits.
2. Smoothing over time.
3. Segmentation: every class has the gain `log(score / threshold)` per second and the background 0; the labels with the
   greatest sum of gains over time are chosen, where every change of label costs `change_cost`. Without that cost these
   are the classes above their thresholds, the one with the greatest gain where only one may be.
4. Merging of close events of a class, limits of duration, and suppression of overlapping events.

Classes without events, such as illustrative movements, still compete for the frames; "Background", the class of clips
without a gesture, never has any.

W is the number of windows, N that of the frames from the first window to the end of the last, C that of the classes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import convolve1d

from clipmg_hf.data.labels import BACKGROUND_LABEL, known_groups
from clipmg_hf.event_decoding import NON_ILLUSTRATIVE_FILTER, EventDecoding
from clipmg_hf.timeline.records import Event, Person, WindowScores


_LEAST_SCORE = 1e-6


class _Curves(NamedTuple):
    """Curves of one person: first frame, seconds of the N + 1 limits of frames, scores (N, C), gate (N,)."""

    first: int
    seconds: np.ndarray
    scores: np.ndarray
    gate: np.ndarray

    @property
    def frame_seconds(self) -> float:
        """Mean length of a frame."""
        return float(self.seconds[-1] - self.seconds[0]) / len(self.scores)


def decode_events(
    windows: Sequence[WindowScores],
    labels: Sequence[str],
    decoding: EventDecoding | None = None,
    groups: Sequence[str] | None = None,
    people: Sequence[Person] = (),
) -> tuple[Event, ...]:
    """Find the events of one or several people in the scores of their windows.

    Args:
        windows: In any order; they may overlap, leave gaps and differ in length.
        labels: Names of the C classes, by id.
        decoding: Settings; by default those of [`EventDecoding`].
        groups: Body part of each class; by default those of iMiGUE or SMG where the labels are theirs, else "".
        people: Those of the windows, if they were followed: nobody has an event before the first or after the last
            frame with them, where windows of the time before or after may reach.

    Returns:
        Events by start, then by person and class. `score` and `gate` are means of the curves over the event.

    Raises:
        ValueError: Windows with impossible frames, seconds or scores, another number of labels or groups than scores,
            or a threshold for a class that the model does not have.
    """
    decoding = decoding or EventDecoding()
    groups = (known_groups(labels) or ("",) * len(labels)) if groups is None else groups
    if len(groups) != len(labels):
        raise ValueError(f"groups has {len(groups)} entries; expected {len(labels)}, one for each label.")
    if unknown := [label for label in decoding.class_thresholds if label not in labels]:
        raise ValueError(f"class_thresholds has {unknown[0]!r}; expected labels of the model: {', '.join(labels)}.")
    for window in windows:
        if np.shape(window.scores) != (len(labels),):
            raise ValueError(
                f"The window [{window.start}, {window.end}) has scores of shape {np.shape(window.scores)}; expected "
                f"{(len(labels),)}, one for each label."
            )
    events: list[Event] = []
    seen = {person.number: person for person in people}
    for person in sorted({window.person for window in windows}):
        curves = _curves([window for window in windows if window.person == person])
        curves = _smooth(_keep_seen(curves, seen.get(person)), decoding.smoothing)
        events += _events_of_person(curves, person, labels, groups, decoding)
    return tuple(sorted(events, key=lambda event: (event.start, event.person, event.label_id, event.end)))


def score_curves(windows: Sequence[WindowScores], smoothing: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores over time of one person, frame by frame.

    Args:
        windows: At least one, all of one person, in any order.
        smoothing: As in [`EventDecoding`], in seconds.

    Returns:
        Time at which each frame begins in seconds, float64 (N,), between the limits of windows interpolated; scores
        float32 (N, C), 0 in frames without a window; gate float32 (N,), NaN in frames without one.

    Raises:
        ValueError: No window, windows of several people, or impossible frames, seconds or scores.
    """
    if len(people := {window.person for window in windows}) != 1:
        raise ValueError(f"The windows are of the people {sorted(people)}; expected those of a single one.")
    curves = _smooth(_curves(windows), smoothing)
    return curves.seconds[:-1], curves.scores, curves.gate


def suppress_overlaps(events: Sequence[Event], iou: float, across_classes: bool = False) -> tuple[Event, ...]:
    """Temporal non-maximum suppression: keep the best events, drop those that overlap a kept one too much.

    Args:
        events: In any order; only events of the same person, and of the same class unless `across_classes`, compete.
        iou: Greatest intersection over union in frames that two kept events may have, in [0, 1].
        across_classes: Whether events of different classes compete, too.

    Returns:
        The kept events in the order that they came in. Of equal scores the first one counts as better.
    """
    kept: dict[object, list[int]] = {}
    for index in sorted(range(len(events)), key=lambda index: -events[index].score):
        event = events[index]
        rivals = kept.setdefault((event.person, None if across_classes else event.label_id), [])
        if all(_iou(event, events[rival]) <= iou for rival in rivals):
            rivals.append(index)
    return tuple(events[index] for index in sorted(index for indices in kept.values() for index in indices))


def _iou(first: Event, second: Event) -> float:
    common = max(min(first.end, second.end) - max(first.start, second.start), 0)
    return common / (first.end - first.start + second.end - second.start - common)


def _curves(windows: Sequence[WindowScores]) -> _Curves:
    """Step 1: weighted means of all windows of one person, those of one length at a time."""
    starts, ends = np.array([(window.start, window.end) for window in windows], dtype=np.int64).T
    scores = np.array([window.scores for window in windows], dtype=np.float64)
    seconds = np.array([(window.start_seconds, window.end_seconds) for window in windows], dtype=np.float64)
    _check_windows(starts, ends, seconds, scores)
    gate = np.array([math.nan if window.gate is None else window.gate for window in windows], dtype=np.float64)
    has_gate = np.isfinite(gate)
    # One row per window of what is summed: scores, gate, 1 for the weight, 1 for the weight of the gates.
    values = np.column_stack([scores, np.where(has_gate, gate, 0.0), np.ones(len(windows)), has_gate])
    first, lengths = starts.min(), ends - starts
    sums = np.zeros((ends.max() - first, values.shape[1]))
    for length in np.unique(lengths):
        rows, begins = values[lengths == length], starts[lengths == length] - first
        for offset in range(length):
            np.add.at(sums, begins + offset, math.sin(math.pi * (offset + 0.5) / length) ** 2 * rows)
    weight, gate_weight = sums[:, -2], sums[:, -1]
    curve = sums[:, :-3] / np.where(weight > 0, weight, 1.0)[:, None]
    gate_curve = np.divide(sums[:, -3], gate_weight, out=np.full(len(sums), math.nan), where=gate_weight > 0)
    return _Curves(
        int(first),
        _frame_seconds(starts, ends, seconds, np.arange(first, ends.max() + 1)),
        curve.astype(np.float32),
        gate_curve.astype(np.float32),
    )


def _keep_seen(curves: _Curves, person: Person | None) -> _Curves:
    """Curves without scores in the frames before and after those with the person."""
    if person is None:
        return curves
    frames = np.arange(curves.first, curves.first + len(curves.scores))
    is_seen = (frames >= person.first) & (frames <= person.last)
    return curves._replace(scores=curves.scores * is_seen[:, None])


def _check_windows(starts: np.ndarray, ends: np.ndarray, seconds: np.ndarray, scores: np.ndarray) -> None:
    bad = (starts < 0) | (starts >= ends) | ~np.isfinite(seconds).all(1) | ~(seconds[:, 0] < seconds[:, 1])
    if bad.any():
        index = int(bad.argmax())
        raise ValueError(
            f"A window spans the frames [{starts[index]}, {ends[index]}) and the seconds "
            f"[{seconds[index, 0]:g}, {seconds[index, 1]:g}); expected 0 <= start < end of both."
        )
    # NaN fails both comparisons.
    wrong = ~((scores >= 0) & (scores <= 1)).all(axis=1)
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(f"The window [{starts[index]}, {ends[index]}) has scores outside [0, 1]: {scores[index]}.")


def _frame_seconds(starts: np.ndarray, ends: np.ndarray, seconds: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Interpolate the time at which frames begin from the limits of windows; float64, never falling."""
    known, index = np.unique(np.concatenate([starts, ends]), return_index=True)
    return np.interp(frames, known, np.maximum.accumulate(seconds.T.ravel()[index]))


def _smooth(curves: _Curves, width: float) -> _Curves:
    """Step 2: mean of the frames around, weighted by a Hann window; frames without scores neither give nor take."""
    half = int(width / curves.frame_seconds / 2)
    if half == 0:
        return curves
    kernel = np.cos(np.pi * np.arange(-half, half + 1) / (2 * half + 2)) ** 2
    covered = curves.scores.any(axis=1, keepdims=True)
    sums = convolve1d(curves.scores.astype(np.float64), kernel, axis=0, mode="constant")
    weights = convolve1d(covered.astype(np.float64), kernel, axis=0, mode="constant")
    scores = np.where(covered, sums / np.maximum(weights, kernel.max()), 0.0)
    return curves._replace(scores=scores.astype(np.float32))


def _events_of_person(
    curves: _Curves, person: int, labels: Sequence[str], groups: Sequence[str], decoding: EventDecoding
) -> tuple[Event, ...]:
    thresholds = np.array([decoding.class_thresholds.get(label, decoding.threshold) for label in labels])
    gains = curves.frame_seconds * np.log(np.maximum(curves.scores, _LEAST_SCORE) / thresholds)
    if decoding.one_at_a_time:
        # The background is the last state of a single chain.
        states = best_states(np.pad(gains, ((0, 0), (0, 1)))[:, None], decoding.change_cost)
        active = states == np.arange(len(labels))
    else:
        # Every class has a chain of two states: background and class.
        active = best_states(np.stack([np.zeros_like(gains), gains], axis=-1), decoding.change_cost) == 1
    events = []
    for label_id, label in enumerate(labels):
        if label == BACKGROUND_LABEL or label in decoding.ignored_labels:
            continue
        for start, end in _limit(_merge(_runs(active[:, label_id]), curves, decoding), label_id, curves, decoding):
            events.append(
                Event(
                    start=curves.first + start,
                    end=curves.first + end,
                    start_seconds=float(curves.seconds[start]),
                    end_seconds=float(curves.seconds[end]),
                    label=label,
                    label_id=label_id,
                    group=groups[label_id],
                    score=float(curves.scores[start:end, label_id].mean(dtype=np.float64)),
                    person=person,
                    gate=_mean_gate(curves.gate[start:end]),
                )
            )
    return suppress_overlaps(events, decoding.nms_iou, decoding.nms_across_classes)


def best_states(gains: np.ndarray, change_cost: float) -> np.ndarray:
    """The states with the greatest sum of gains when every change costs the same, by dynamic programming (Viterbi).

    Args:
        gains: float64 (N, M, S): of S states in each of N steps, for M chains by themselves.
        change_cost: At least 0.

    Returns:
        int64 (N, M), states in 0..S - 1.
    """
    num_steps, num_chains, _ = gains.shape
    chains = np.arange(num_chains)
    stays = np.empty(gains.shape, dtype=bool)
    origins = np.empty((num_steps, num_chains), dtype=np.int64)
    total = np.zeros(gains.shape[1:])
    for step, gain in enumerate(gains):
        origins[step] = total.argmax(axis=1)
        changed = total[chains, origins[step]][:, None] - change_cost
        stays[step] = total >= changed
        total = np.where(stays[step], total, changed) + gain
    states = np.empty((num_steps, num_chains), dtype=np.int64)
    state = total.argmax(axis=1)
    for step in range(num_steps - 1, -1, -1):
        states[step] = state
        state = np.where(stays[step, chains, state], state, origins[step])
    return states


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of `True` in (N,)."""
    limits = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    return [(start, end) for start, end in limits.reshape(-1, 2).tolist()]


def _merge(runs: list[tuple[int, int]], curves: _Curves, decoding: EventDecoding) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in runs:
        # A rate such as 30 frames per second has no exact seconds.
        if merged and curves.seconds[start] - curves.seconds[merged[-1][1]] <= decoding.merge_gap + 1e-6:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _limit(
    runs: list[tuple[int, int]], label_id: int, curves: _Curves, decoding: EventDecoding
) -> list[tuple[int, int]]:
    """Cut long runs at their lowest score until they are short enough, then drop the short ones."""
    kept, pending = [], runs[::-1]
    while pending:
        start, end = pending.pop()
        duration = curves.seconds[end] - curves.seconds[start]
        if decoding.max_duration is not None and duration > decoding.max_duration + 1e-6 and end - start > 1:
            cut = _lowest(start, end, label_id, curves, decoding.min_duration)
            pending += [(cut, end), (start, cut)]
        elif duration >= decoding.min_duration - 1e-6:
            kept.append((start, end))
    return kept


def _lowest(start: int, end: int, label_id: int, curves: _Curves, margin: float) -> int:
    """Frame of the lowest score at least `margin` seconds inside a run; of equal ones the most central."""
    frames = np.arange(start + 1, end)
    seconds = curves.seconds[frames]
    inside = (seconds >= curves.seconds[start] + margin) & (seconds <= curves.seconds[end] - margin)
    frames = frames[inside] if inside.any() else frames
    order = np.lexsort((abs(2 * frames - start - end), curves.scores[frames, label_id]))
    return int(frames[order[0]])


def _mean_gate(gate: np.ndarray) -> float | None:
    known = gate[np.isfinite(gate)]
    return float(known.mean(dtype=np.float64)) if len(known) else None


__all__ = [
    "NON_ILLUSTRATIVE_FILTER",
    "EventDecoding",
    "best_states",
    "decode_events",
    "score_curves",
    "suppress_overlaps",
]
