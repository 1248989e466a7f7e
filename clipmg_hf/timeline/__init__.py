"""Timelines of micro-gestures: from scores of windows to events, and the files that hold them."""

from clipmg_hf.timeline.formats import FORMATS, write_timeline
from clipmg_hf.timeline.json_files import read_timeline
from clipmg_hf.timeline.records import Event, Person, Timeline, WindowScores, format_timecode


__all__ = [
    "FORMATS",
    "Event",
    "Person",
    "Timeline",
    "WindowScores",
    "format_timecode",
    "read_timeline",
    "write_timeline",
]
