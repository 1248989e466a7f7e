"""How often, how long and how sure: the gestures of a timeline, counted."""

from typing import NamedTuple

from clipmg_hf.timeline.records import Event, Timeline


class GestureCount(NamedTuple):
    """All events of one gesture of one person.

    Args:
        person (`int`): Number of the person.
        label (`str`), group (`str`): The gesture, and the part of the body that it belongs to.
        num_events (`int`): Their number.
        per_minute (`float`): Events in a minute of the time in which the person was looked at.
        seconds (`float`): Length of all events together.
        mean_score (`float`): In [0, 1].
    """

    person: int
    label: str
    group: str
    num_events: int
    per_minute: float
    seconds: float
    mean_score: float


def observed_seconds(timeline: Timeline) -> dict[int, float]:
    """For how long each person was looked at: the frames that show them, or else the interval or the whole video."""
    frame = timeline.duration / timeline.num_frames
    first, last = timeline.settings.get("interval", (0, timeline.num_frames))
    seconds = {event.person: (last - first) * frame for event in timeline.events}
    if timeline.people:
        return seconds | {person.number: person.num_frames * frame for person in timeline.people}
    return seconds or {0: (last - first) * frame}


def count_gestures(timeline: Timeline) -> list[GestureCount]:
    """Count the events of each person and gesture: by person, the most frequent ones first."""
    found: dict[tuple[int, int], list[Event]] = {}
    for event in timeline.events:
        found.setdefault((event.person, event.label_id), []).append(event)
    seconds = observed_seconds(timeline)
    order = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1]))
    return [
        GestureCount(
            person=person,
            label=events[0].label,
            group=events[0].group,
            num_events=len(events),
            per_minute=60 * len(events) / seconds[person],
            seconds=sum(event.end_seconds - event.start_seconds for event in events),
            mean_score=sum(event.score for event in events) / len(events),
        )
        for (person, _), events in order
    ]


def gestures_per_minute(timeline: Timeline) -> float:
    """Events of all people in a minute of the time in which somebody was looked at, person by person."""
    return 60 * len(timeline.events) / sum(observed_seconds(timeline).values())


__all__ = ["GestureCount", "count_gestures", "gestures_per_minute", "observed_seconds"]
