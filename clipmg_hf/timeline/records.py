"""What a timeline is made of: scores of windows, events, people.

Frames are numbered from 0 in display order, intervals are half open: `start` is in, `end` is not. Seconds count from
the video's first frame. C is the number of classes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class WindowScores:
    """What the model says of one window of one person.

    Args:
        start, end (`int`): Frames of the window.
        start_seconds, end_seconds (`float`): Its limits in time.
        person (`int`): Number of the person, from 0; 0 where no keypoints tell people apart.
        scores (`numpy.ndarray` float32 of shape `(C,)`): Probability of each class; they sum to 1.
        gate (`float`, *optional*): Mean of the gate in [0, 1], 1 takes RGB and 0 pose; `None` without a gate.
        pose_share (`float`): Share of the window's sampled pose frames with a valid keypoint, in [0, 1].
    """

    start: int
    end: int
    start_seconds: float
    end_seconds: float
    person: int
    scores: np.ndarray
    gate: float | None
    pose_share: float


@dataclass(frozen=True)
class Event:
    """One gesture of one person.

    Args:
        start, end (`int`): Frames of the event.
        start_seconds, end_seconds (`float`): Its limits in time.
        label (`str`), label_id (`int`): Its class.
        group (`str`): Part of the body that the class belongs to; "" where the data set names none.
        score (`float`): In [0, 1].
        person (`int`): Number of the person, from 0.
        gate (`float`, *optional*): Mean of the gate over the event, 1 takes RGB and 0 pose; `None` without a gate.
    """

    start: int
    end: int
    start_seconds: float
    end_seconds: float
    label: str
    label_id: int
    group: str
    score: float
    person: int = 0
    gate: float | None = None


@dataclass(frozen=True)
class Person:
    """Somebody who was followed through the video.

    Args:
        number (`int`): From 0.
        first, last (`int`): First and last frame with the person, inclusive.
        num_frames (`int`): How many frames show the person.
        box (`tuple[float, float, float, float]`): Median left, top, right and bottom of the keypoints in pixels of the
            source frame.
    """

    number: int
    first: int
    last: int
    num_frames: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Timeline:
    """Everything found in one video.

    Args:
        video (`str`): Name of the video, no folders.
        num_frames (`int`), duration (`float`): Length in frames and seconds.
        fps (`float`): Average frames per second.
        width, height (`int`): Size of the upright source frame in pixels.
        labels (`tuple[str, ...]`): Names of the C classes, by id.
        people (`tuple[Person, ...]`): Empty where no keypoints tell people apart.
        windows (`tuple[WindowScores, ...]`): By person, then by start.
        events (`tuple[Event, ...]`): By start, then by person.
        settings (`dict`): JSON values: the model, the window and stride in frames, how events were decoded.
        notes (`tuple[str, ...]`): What a reader should know, such as keypoints that were masked.
    """

    video: str
    num_frames: int
    duration: float
    fps: float
    width: int
    height: int
    labels: tuple[str, ...]
    people: tuple[Person, ...] = ()
    windows: tuple[WindowScores, ...] = ()
    events: tuple[Event, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def format_timecode(seconds: float) -> str:
    """Seconds as `HH:MM:SS.mmm`, rounded to the millisecond."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


__all__ = ["Event", "Person", "Timeline", "WindowScores", "format_timecode"]
