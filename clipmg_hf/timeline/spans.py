"""Events as other programs take them: whole milliseconds, tiers without overlaps, text of one line."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from clipmg_hf.timeline.records import Event, Timeline


# Control characters, line and paragraph separators, surrogates and the noncharacters that XML 1.0 forbids.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Span:
    """An event in time.

    Args:
        start, end (`int`): Milliseconds from the first frame; `end` is greater than `start`.
        event (`Event`): The event.
    """

    start: int
    end: int
    event: Event


class Tier(NamedTuple):
    """A row of spans that do not overlap, by start, with its name and that of its person."""

    name: str
    person: str
    spans: list[Span]


def one_line(text: str) -> str:
    """Text with a space for every line break, control character, and character that XML cannot hold."""
    return _UNPRINTABLE.sub(" ", text).strip()


def make_spans(timeline: Timeline) -> list[Span]:
    """Events in milliseconds, by start and then by person.

    An event of less than a millisecond gets one: ELAN, Praat and WebVTT know none without a duration. An event that
    ends after the video keeps its end.
    """
    spans = []
    for event in timeline.events:
        start = round(event.start_seconds * 1000)
        spans.append(Span(start, max(round(event.end_seconds * 1000), start + 1), event))
    return sorted(spans, key=lambda span: (span.start, span.event.person))


def split_overlaps(spans: Iterable[Span]) -> list[list[Span]]:
    """Spans in as few rows as possible, so that none of a row overlap; in each row by start."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span.start):
        for row in rows:
            if row[-1].end <= span.start:
                row.append(span)
                break
        else:
            rows.append([span])
    return rows


def list_people(timeline: Timeline) -> list[int]:
    """Numbers of the people that were followed or have events, in order; 0 if there is nobody."""
    numbers = {person.number for person in timeline.people} | {event.person for event in timeline.events}
    return sorted(numbers) or [0]


def name_row(person: int, row: int) -> str:
    """`person 0` for the first row of a person, `person 0 (2)` for the second."""
    return f"person {person}" if row == 0 else f"person {person} ({row + 1})"


def make_tiers(timeline: Timeline) -> list[Tier]:
    """Tiers of everybody, empty or not; events of a person that overlap go to further tiers, named by [`name_row`]."""
    spans = make_spans(timeline)
    tiers = []
    for person in list_people(timeline):
        rows = split_overlaps(span for span in spans if span.event.person == person) or [[]]
        tiers += [Tier(name_row(person, i), name_row(person, 0), row) for i, row in enumerate(rows)]
    return tiers


__all__ = ["Span", "Tier", "list_people", "make_spans", "make_tiers", "name_row", "one_line", "split_overlaps"]
