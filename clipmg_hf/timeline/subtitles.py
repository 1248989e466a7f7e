"""Timelines as WebVTT subtitles, which browsers and VLC show over the video."""

import html

from clipmg_hf.timeline.records import Timeline, format_timecode
from clipmg_hf.timeline.spans import make_spans, one_line


def render_webvtt(timeline: Timeline) -> str:
    """A cue for every event, such as `person 0: Rubbing eyes (0.83)`; cues that overlap are shown together."""
    blocks = ["WEBVTT\n"]
    for span in make_spans(timeline):
        event = span.event
        times = f"{format_timecode(span.start / 1000)} --> {format_timecode(span.end / 1000)}"
        label = html.escape(one_line(event.label), quote=False)
        blocks.append(f"{times}\nperson {event.person}: {label} ({event.score:.2f})\n")
    return "\n".join(blocks)


__all__ = ["render_webvtt"]
