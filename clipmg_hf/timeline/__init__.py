"""Timelines of micro-gestures: from scores of windows to events, and the files that hold them."""

from clipmg_hf.timeline.records import Event, Person, Timeline, WindowScores, format_timecode


__all__ = ["Event", "Person", "Timeline", "WindowScores", "format_timecode"]
