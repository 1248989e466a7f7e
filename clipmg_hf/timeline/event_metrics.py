"""How well events of untrimmed videos were found: precision, recall and F1, pooled over videos.

A prediction and a true event fit when they are of the same video and class and their temporal intersection over union
(IoU) is *greater* than the threshold, as in track 2 of the MiGA challenge (IoU > 0.3). Each counts once: the number of
true positives is that of a maximum matching (Hopcroft-Karp), the most pairs that can be formed. It depends on neither
the order nor the scores of the predictions, and is never below what pairing greedily by score finds: that can give a
true event away to a prediction that had another choice.

Intervals are half open and in one unit, frames or seconds: first and last frame of a label file are `first, last + 1`.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching


MIGA_IOU = 0.3
# Tenths, so that 0.3 is the number that 3 / 10 gives.
IOU_THRESHOLDS = tuple(tenths / 10 for tenths in range(1, 10))


class LabelledSpan(Protocol):
    """What the metrics read of an event; [`~clipmg_hf.timeline.Event`] and [`TrueEvent`] have it."""

    @property
    def label(self) -> str:
        """Its class."""

    @property
    def start(self) -> float:
        """Where it begins."""

    @property
    def end(self) -> float:
        """Where it has ended; not part of it."""


@dataclass(frozen=True)
class TrueEvent:
    """An annotated gesture.

    Args:
        label (`str`): Its class.
        start, end (`float`): Half open, in frames or in seconds.
    """

    label: str
    start: float
    end: float

    @classmethod
    def from_inclusive(cls, label: str, first: int, last: int) -> "TrueEvent":
        """From the first and last frame of a label file, both part of the gesture."""
        return cls(label, first, last + 1)


@dataclass(frozen=True)
class EventScores:
    """Counts and what follows from them.

    Args:
        num_matched (`int`): Pairs of a predicted and a true event, the true positives.
        num_predicted, num_true (`int`): Events of either kind.
    """

    num_matched: int
    num_predicted: int
    num_true: int

    @property
    def precision(self) -> float | None:
        """Matched share of the predicted events; `None` if there are none."""
        return self.num_matched / self.num_predicted if self.num_predicted else None

    @property
    def recall(self) -> float | None:
        """Matched share of the true events; `None` if there are none."""
        return self.num_matched / self.num_true if self.num_true else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; `None` if there are no events at all."""
        total = self.num_predicted + self.num_true
        return 2 * self.num_matched / total if total else None


@dataclass(frozen=True)
class EventEvaluation:
    """Event scores of a set of videos.

    Args:
        by_threshold (`dict[float, EventScores]`): All classes together, for each IoU threshold.
        by_class (`dict[float, dict[str, EventScores]]`): For each IoU threshold, every class with an event, in order
            of its name.
    """

    by_threshold: dict[float, EventScores]
    by_class: dict[float, dict[str, EventScores]]

    @property
    def miga_f1(self) -> float | None:
        """F1 at IoU > 0.3; `None` if there are no events at all or this threshold was not asked for."""
        return self.by_threshold[MIGA_IOU].f1 if MIGA_IOU in self.by_threshold else None

    @property
    def mean_f1(self) -> float | None:
        """Mean of F1 over the thresholds; `None` if there are no events at all."""
        values = [scores.f1 for scores in self.by_threshold.values()]
        return float(np.mean([value for value in values if value is not None])) if None not in values else None


def evaluate_events(
    predicted: Mapping[Hashable, Iterable[LabelledSpan]],
    true: Mapping[Hashable, Iterable[LabelledSpan]],
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    ignored_labels: Collection[str] = (),
) -> EventEvaluation:
    """Score the events of several videos as one pool.

    Args:
        predicted: Events of each video; a key may also be a pair of video and person.
        true: Annotated events of each of the same videos, which may have none.
        thresholds: IoU thresholds in [0, 1); an event fits above them.
        ignored_labels: Classes to leave out on both sides, such as the non-illustrative filter of the decoding.

    Raises:
        ValueError: Videos differ, an interval is empty or not finite, or a threshold lies outside [0, 1).
    """
    if different := sorted(map(str, predicted.keys() ^ true.keys())):
        raise ValueError(
            f"{len(different)} videos are in one of predicted and true alone, the first {different[0]!r}; "
            "expected the same videos in both, without events if need be."
        )
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise ValueError(f"The IoU threshold is {threshold}; expected it in [0, 1).")
    counts: dict[str, np.ndarray] = {}
    for video, true_events in true.items():
        found = _by_label(predicted[video], ignored_labels, f"predicted events of {video}")
        wanted = _by_label(true_events, ignored_labels, f"true events of {video}")
        for label in found.keys() | wanted.keys():
            spans, true_spans = found.get(label, _NO_SPANS), wanted.get(label, _NO_SPANS)
            overlap = interval_iou(spans, true_spans)
            matched = [(match_events(overlap, threshold) >= 0).sum() for threshold in thresholds]
            new = np.array([matched, [len(spans)] * len(matched), [len(true_spans)] * len(matched)])
            counts[label] = counts.get(label, 0) + new
    # (thresholds, classes, 3)
    table = np.array([counts[label].T for label in sorted(counts)]).reshape(-1, len(thresholds), 3).swapaxes(0, 1)
    by_class = {
        threshold: {
            label: EventScores(*row) for label, row in zip(sorted(counts), rows.astype(int).tolist(), strict=True)
        }
        for threshold, rows in zip(thresholds, table, strict=True)
    }
    totals = table.sum(axis=1).astype(int).tolist()
    by_threshold = {threshold: EventScores(*row) for threshold, row in zip(thresholds, totals, strict=True)}
    return EventEvaluation(by_threshold, by_class)


def interval_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of half-open intervals (n, 2) and (m, 2), none of them empty: float64 (n, m)."""
    starts, ends = first[:, None, 0], first[:, None, 1]
    common = np.minimum(ends, second[:, 1]) - np.maximum(starts, second[:, 0])
    common = np.maximum(common, 0)
    return common / ((ends - starts) + (second[:, 1] - second[:, 0]) - common)


def match_events(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Pair as many rows as possible with a column of IoU above `threshold`: int (n,), -1 for rows without one."""
    if 0 in iou.shape:
        return np.full(len(iou), -1)
    return maximum_bipartite_matching(csr_array(iou > threshold), perm_type="column")


_NO_SPANS = np.empty((0, 2))


def _by_label(events: Iterable[LabelledSpan], ignored_labels: Collection[str], name: str) -> dict[str, np.ndarray]:
    """Start and end of the events of each class: float64 (n, 2)."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if not -np.inf < event.start < event.end < np.inf:
            raise ValueError(
                f"{name}: {event.label!r} spans [{event.start}, {event.end}); expected a start before the end."
            )
        if event.label not in ignored_labels:
            spans.setdefault(event.label, []).append((event.start, event.end))
    return {label: np.array(rows, dtype=np.float64) for label, rows in spans.items()}


__all__ = [
    "IOU_THRESHOLDS",
    "MIGA_IOU",
    "EventEvaluation",
    "EventScores",
    "TrueEvent",
    "evaluate_events",
    "interval_iou",
    "match_events",
]
