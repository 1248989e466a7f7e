"""How windows become events, as in `clipmg_hf.timeline.events`, with the defaults; imports nothing that is heavy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


NON_ILLUSTRATIVE_FILTER = ("Illustrative body language", "Illustrative hand gestures")


@dataclass(frozen=True)
class EventDecoding:
    """How windows become events. All defaults are our choice.

    Args:
        smoothing (`float`, defaults to 0.0): Full width of the Hann window that smooths the curves, in seconds, on top
            of what the overlap of windows does; 0 is off.
        threshold (`float`, defaults to 0.35): Score that a class needs, in (0, 1).
        class_thresholds (`Mapping[str, float]`, defaults to none): Other thresholds by the name of the class.
        one_at_a_time (`bool`, defaults to `True`): Whether a person makes one gesture at a time. Otherwise every class
            has events by itself, and they may overlap.
        change_cost (`float`, defaults to 0.1): Cost of every change of label, in seconds at a gain of 1 (a score of e
            times the threshold); at least 0. It drops short and weak runs and bridges short dips.
        merge_gap (`float`, defaults to 0.0): Events of a class that are no further apart become one, in seconds; 0
            merges none.
        min_duration (`float`, defaults to 0.4): Shorter events are dropped, in seconds; at least 0.
        max_duration (`float`, *optional*, defaults to none): Longer events are cut where their score is lowest, in
            seconds; at least twice `min_duration`.
        nms_iou (`float`, defaults to 0.5): Of two events with a greater intersection over union in time, the one with
            the lower score is dropped; in [0, 1], and 1 drops none.
        nms_across_classes (`bool`, defaults to `False`): Whether that also goes for events of different classes.
        ignored_labels (`tuple[str, ...]`, defaults to the illustrative class of iMiGUE and of SMG): Classes without
            events; those that the model does not have are of no effect.

    Raises:
        ValueError: A value outside its range; the message quotes it.
    """

    smoothing: float = 0.0
    threshold: float = 0.35
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    one_at_a_time: bool = True
    change_cost: float = 0.1
    merge_gap: float = 0.0
    min_duration: float = 0.4
    max_duration: float | None = None
    nms_iou: float = 0.5
    nms_across_classes: bool = False
    ignored_labels: tuple[str, ...] = NON_ILLUSTRATIVE_FILTER

    def __post_init__(self) -> None:
        for name in ("smoothing", "change_cost", "merge_gap", "min_duration"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} is {value}; expected a finite number of at least 0.")
        thresholds = {"threshold": self.threshold}
        thresholds |= {f"class_thresholds[{label!r}]": value for label, value in self.class_thresholds.items()}
        for name, value in thresholds.items():
            if not 0 < value < 1:
                raise ValueError(f"{name} is {value}; expected a score in (0, 1).")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"nms_iou is {self.nms_iou}; expected it in [0, 1].")
        if self.max_duration is not None and not 0 < self.max_duration >= 2 * self.min_duration:
            raise ValueError(
                f"max_duration is {self.max_duration} and min_duration is {self.min_duration}; expected "
                "max_duration > 0 and at least twice min_duration, so that halves of a long event are long enough."
            )
        if isinstance(self.ignored_labels, str):
            raise ValueError(f"ignored_labels is {self.ignored_labels!r}; expected several names.")


__all__ = ["NON_ILLUSTRATIVE_FILTER", "EventDecoding"]
