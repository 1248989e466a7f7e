"""Timelines as TextGrid, the annotations of Praat."""

from clipmg_hf.timeline.records import Timeline
from clipmg_hf.timeline.spans import Span, make_tiers, one_line


def _write_limits(start: int, end: int, indent: str) -> str:
    limits = {"xmin": start, "xmax": end}
    return "".join(f"{indent}{name} = {time // 1000}.{time % 1000:03}\n" for name, time in limits.items())


def _quote(text: str) -> str:
    return '"' + one_line(text).replace('"', '""') + '"'


def fill_gaps(spans: list[Span], length: int) -> list[tuple[int, int, str]]:
    """Start, end and text of intervals that follow each other from 0 to the length, in milliseconds."""
    intervals = []
    end = 0
    for span in spans:
        if span.start > end:
            intervals.append((end, span.start, ""))
        intervals.append((span.start, span.end, span.event.label))
        end = span.end
    if end < length:
        intervals.append((end, length, ""))
    return intervals


def render_textgrid(timeline: Timeline) -> str:
    """An interval tier for every person, further ones where events of a person overlap; gaps are empty intervals.

    All tiers end with the video, or with the last event if that ends later.
    """
    tiers = make_tiers(timeline)
    ends = [tier.spans[-1].end for tier in tiers if tier.spans]
    # Praat knows no TextGrid without a duration.
    length = max(round(timeline.duration * 1000), 1, *ends)
    parts = ['File type = "ooTextFile"\nObject class = "TextGrid"\n\n', _write_limits(0, length, "")]
    parts.append(f"tiers? <exists>\nsize = {len(tiers)}\nitem []:\n")
    indent = " " * 8
    for i, tier in enumerate(tiers, start=1):
        intervals = fill_gaps(tier.spans, length)
        parts.append(f'    item [{i}]:\n{indent}class = "IntervalTier"\n{indent}name = {_quote(tier.name)}\n')
        parts.append(f"{_write_limits(0, length, indent)}{indent}intervals: size = {len(intervals)}\n")
        for j, (start, end, text) in enumerate(intervals, start=1):
            limits = _write_limits(start, end, indent + "    ")
            parts.append(f"{indent}intervals [{j}]:\n{limits}{indent}    text = {_quote(text)}\n")
    return "".join(parts)


__all__ = ["fill_gaps", "render_textgrid"]
