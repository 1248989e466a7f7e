"""Timelines for BORIS: a project of format 7.0; BORIS 8.27 and 10.0 were seen to read it.

It holds an ethogram of the classes as state events, in categories where events have groups, the people as subjects,
and one observation of the video, which is looked for beside the file or where its path leads. Comments of events give
score and gate.
BORIS can also import that observation into another project (File, Import observations).
"""

import itertools
import json
from datetime import UTC, datetime
from typing import Any

from clipmg_hf.timeline.records import Timeline
from clipmg_hf.timeline.spans import Span, list_people, make_spans, name_row, one_line, split_overlaps


PROJECT_FORMAT = "7.0"
NUM_PLAYERS = 8


def make_code(label: str) -> str:
    """Name of a class as a code of BORIS, which has no `|`."""
    return one_line(label).replace("|", "/")


def _list_tracks(timeline: Timeline) -> list[tuple[str, list[Span]]]:
    """Spans by subject and class.

    BORIS stores no ends, but takes every second event of a subject and class for one: of a class that overlaps itself,
    the further events are those of a further subject.
    """
    spans = sorted(make_spans(timeline), key=lambda span: (span.event.person, make_code(span.event.label)))
    groups = itertools.groupby(spans, key=lambda span: (span.event.person, make_code(span.event.label)))
    return [(name_row(person, i), row) for (person, _), group in groups for i, row in enumerate(split_overlaps(group))]


def _list_events(tracks: list[tuple[str, list[Span]]]) -> list[list[Any]]:
    """Rows of time in seconds, subject, code, modifier, comment and frame: the start and the end of every span."""
    rows = []
    for subject, spans in tracks:
        for span in spans:
            event = span.event
            comment = f"score {event.score:.2f}" + ("" if event.gate is None else f", gate {event.gate:.2f}")
            code = make_code(event.label)
            rows.append([span.start / 1000, subject, code, "", comment, event.start])
            rows.append([span.end / 1000, subject, code, "", "", event.end])
    return sorted(rows, key=lambda row: row[0])


def _make_ethogram(timeline: Timeline) -> dict[str, dict[str, Any]]:
    groups = {make_code(event.label): one_line(event.group) for event in timeline.events}
    codes = dict.fromkeys([*map(make_code, timeline.labels), *groups])
    return {
        str(i): {
            "type": "State event",
            "key": "",
            "code": code,
            "description": "",
            "color": "",
            "category": groups.get(code, ""),
            "modifiers": {},
            "excluded": "",
            "coding map": "",
        }
        for i, code in enumerate(codes)
    }


def _make_observation(timeline: Timeline, video: str, events: list[list[Any]], date: str) -> dict[str, Any]:
    return {
        "file": {str(player): [video] if player == 1 else [] for player in range(1, NUM_PLAYERS + 1)},
        "type": "MEDIA",
        "date": date,
        "description": "\n".join(map(one_line, timeline.notes)),
        "time offset": 0.0,
        "events": events,
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {video: timeline.duration},
            "fps": {video: timeline.fps},
            "hasVideo": {video: True},
            # BORIS asks for an answer, and a timeline has none; picking the video again in BORIS finds the sound.
            "hasAudio": {video: False},
            "offset": {"1": 0.0},
        },
    }


def render_boris(timeline: Timeline, video: str | None = None) -> str:
    """The project of a timeline; `video` is the path from the file to the video.

    ASCII, because BORIS reads it in the encoding of the operating system.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    name = one_line(timeline.video)
    tracks = _list_tracks(timeline)
    ethogram = _make_ethogram(timeline)
    people = [name_row(person, 0) for person in list_people(timeline)]
    subjects = dict.fromkeys([*people, *sorted(subject for subject, _ in tracks)])
    project = {
        "time_format": "hh:mm:ss",
        "project_date": date,
        "project_name": name,
        "project_description": "",
        "project_format_version": PROJECT_FORMAT,
        "subjects_conf": {str(i): {"key": "", "name": name, "description": ""} for i, name in enumerate(subjects)},
        "behaviors_conf": ethogram,
        "observations": {name: _make_observation(timeline, one_line(video or name), _list_events(tracks), date)},
        "behavioral_categories": sorted({behavior["category"] for behavior in ethogram.values()} - {""}),
        "behavioral_categories_config": {},
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    return json.dumps(project, indent=1) + "\n"


__all__ = ["PROJECT_FORMAT", "make_code", "render_boris"]
