"""A timeline as a page to read offline: the video, a timeline to click on, a table of events, counts and curves.

The page is one file, `index.html`, with its style and script inside and the video beside it; it asks the network for
nothing. Every name on it is escaped, and the script reads only attributes of elements.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from clipmg_hf import html_page
from clipmg_hf.data.labels import BACKGROUND_LABEL
from clipmg_hf.files import complete_file, write_file
from clipmg_hf.html_page import percent
from clipmg_hf.text import plural
from clipmg_hf.timeline.colors import NO_GROUP_COLOR, group_colors
from clipmg_hf.timeline.counts import count_gestures, observed_seconds
from clipmg_hf.timeline.records import Event, Timeline, WindowScores, format_timecode


# Of the curves: at most so many points, and so many classes per person.
_MAX_POINTS, _MAX_CURVES = 2000, 8
# Windows further apart than this many of their usual distances leave a gap in a curve.
_GAP = 3.5
# Heights of the timeline's rows in CSS pixels.
_EVENT, _LANE_PADDING, _CURVE, _TICKS, _HEADING = 18, 6, 30, 24, 22
_RGB_COLOR, _POSE_COLOR = "#5e4fa2", "#2f9e80"
# The video is left to the browser's default, as its file may lie in another folder.
_POLICY = (
    "script-src 'unsafe-inline'; connect-src 'none'; img-src 'none'; font-src 'none'; object-src 'none'; "
    "frame-src 'none'; form-action 'none'; base-uri 'none'"
)
_PRIVACY = (
    "This page opens without a network and sends nothing anywhere. Its folder may hold a recording of people, and "
    "holds claims about their behaviour: keep, share and delete it as was agreed with them."
)
_CAUTION = (
    "The gestures are a model's estimates and can be wrong; a score is not the probability of being right. A gesture "
    "alone says nothing certain about what a person feels or thinks."
)


@dataclass(frozen=True)
class _Row:
    """A row of the timeline: its name and its content in HTML, its height in CSS pixels and its class."""

    name: str
    content: str
    height: int
    kind: str


def write_timeline_page(
    timeline: Timeline,
    folder: str | PathLike,
    video: str | PathLike | None = None,
    *,
    copy_video: bool = True,
    faces_blurred: bool = False,
) -> Path:
    """Write `index.html`, and the video beside it.

    A click on an event moves the video to its start and plays it, another pauses it. Curves of long videos keep their
    peaks, but not every window.

    Args:
        timeline ([`Timeline`]): What was found in the video.
        folder (`str` or `PathLike`): Where to write; made if missing, an earlier page is replaced.
        video (`str` or `PathLike`, *optional*): The annotated video, or the source if browsers play it: H.264 in MP4.
        copy_video (`bool`, defaults to `True`): Copy the video into the folder; otherwise the page links to it where
            it is, and the two can only move together.
        faces_blurred (`bool`, defaults to `False`): What the page says about faces in the video.

    Returns:
        `Path` of `index.html`.

    Raises:
        FileNotFoundError: There is no such video.
    """
    folder = Path(folder)
    if video is not None and not Path(video).is_file():
        raise FileNotFoundError(f"{video}: no such file; expected a video to show on the page.")
    folder.mkdir(parents=True, exist_ok=True)
    source = None if video is None else _place_video(Path(video), folder, copy_video)
    write_file(folder / "index.html", _page(timeline, source, faces_blurred))
    return folder / "index.html"


def _place_video(video: Path, folder: Path, copy: bool) -> str:
    """Address of the video relative to the page."""
    if not copy:
        return quote(Path(os.path.relpath(video.resolve(), folder.resolve())).as_posix())
    target = folder / f"{html_page.file_name(video.stem)}{video.suffix.lower()}"
    if not (target.exists() and target.samefile(video)):
        with complete_file(target) as partial:
            shutil.copyfile(video, partial)
    return quote(target.name)


def _page(timeline: Timeline, source: str | None, faces_blurred: bool) -> str:
    style, script = (
        resources.files("clipmg_hf.timeline").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    colors = group_colors(timeline)
    facts = [
        format_timecode(timeline.duration),
        plural(timeline.num_frames, "frame"),
        f"{timeline.fps:.4g} frames per second",
        f"{timeline.width} x {timeline.height} pixels",
        *([plural(len(timeline.people), "person", "people")] if timeline.people else []),
        plural(len(timeline.events), "gesture"),
    ]
    faces = ""
    if source is not None:
        blurred = "Heads that were found by keypoints are blurred; people without keypoints are not."
        faces = f" {blurred if faces_blurred else 'Faces in the video are not blurred.'}"
    sections = [
        html_page.heading(timeline.video, facts),
        html_page.notes("Notes", timeline.notes),
        _watch(timeline, source),
        html_page.section("Timeline", _tools(timeline, colors), _timeline(timeline, colors)),
        html_page.section("Gestures", _summary(timeline)),
        html_page.section("Settings", _settings(timeline.settings)) if timeline.settings else "",
        html_page.section("About this page", html_page.paragraph(_CAUTION), html_page.paragraph(_PRIVACY + faces)),
        '<div class="tooltip" role="status" hidden></div>',
        f"<script>\n{script}</script>",
    ]
    head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>\n{style}</style>\n'
    return html_page.page(timeline.video, sections, head)


def _watch(timeline: Timeline, source: str | None) -> str:
    """The video beside the table of events."""
    if source is None:
        player = html_page.missing("The video is not shown here; a click on an event moves the line in the timeline.")
    else:
        player = (
            f'<video controls preload="metadata" src="{escape(source)}"></video>\n'
            '<p id="broken" class="unreadable" hidden>This browser cannot play the video; expected H.264 in '
            "MP4, as in the annotated video.</p>"
        )
    return (
        f'<section class="watch{" silent" if source is None else ""}">\n<div>\n{player}\n<p class="now"></p>\n</div>\n'
        f"<div>\n{_events(timeline)}\n</div>\n</section>"
    )


def _events(timeline: Timeline) -> str:
    """The table of events with its filters."""
    if not timeline.events:
        return html_page.missing("No gesture was found.")
    groups = "".join(
        f'<option value="{escape(name)}">{escape(name or "none")}</option>' for name in group_colors(timeline)
    )
    filters = (
        '<div class="filters">'
        '<input id="text" type="search" placeholder="gesture" aria-label="Gestures with these letters"> '
        f'<select id="group" aria-label="Part of the body"><option value="*">all groups</option>{groups}</select>'
        '<label>score from <input id="least" type="range" min="0" max="1" step="0.01" value="0"> '
        f'<output id="least_value">0.00</output></label><span id="count">{len(timeline.events)} of '
        f"{len(timeline.events)}</span></div>"
    )
    has_people, has_gate = _has_people(timeline), any(event.gate is not None for event in timeline.events)
    names = ["start", "gesture", "seconds", "score"] + ["person"] * has_people + ["gate"] * has_gate
    css = {"gesture": ' class="text"'}
    header = "".join(
        f'<th scope="col"{css.get(name, "")}><button type="button">{name}</button></th>' for name in names
    )
    rows = "\n".join(_event_row(number, event, has_people, has_gate) for number, event in enumerate(timeline.events))
    return (
        f'{filters}\n<div class="events"><table>\n<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _event_row(number: int, event: Event, has_people: bool, has_gate: bool) -> str:
    length = event.end_seconds - event.start_seconds
    cells = [
        f'<th scope="row" data-value="{event.start_seconds:.3f}"><button type="button" class="seek">'
        f"{format_timecode(event.start_seconds)[:-2]}</button></th>",
        f'<td class="text">{escape(event.label)}</td>',
        f'<td data-value="{length:.3f}">{length:.1f}</td>',
        f'<td data-value="{event.score:.4f}">{event.score:.2f}</td>',
    ]
    if has_people:
        cells.append(f'<td data-value="{event.person}">{event.person}</td>')
    if has_gate:
        gate = "" if event.gate is None else f"{event.gate:.2f}"
        cells.append(f'<td data-value="{gate or -1}">{gate}</td>')
    person = f' data-person="{event.person}"' if has_people else ""
    return (
        f'<tr data-event="{number}" data-start="{event.start_seconds:.4f}" data-end="{event.end_seconds:.4f}" '
        f'data-score="{event.score:.4f}" data-label="{escape(event.label)}" data-group="{escape(event.group)}"'
        f"{person}>{''.join(cells)}</tr>"
    )


def _tools(timeline: Timeline, colors: Mapping[str, str]) -> str:
    """Buttons above the timeline, and its legend."""
    keys = [(name or "no group", color) for name, color in colors.items()]
    if any(window.gate is not None for window in timeline.windows):
        keys += [("gate: RGB", _RGB_COLOR), ("gate: pose", _POSE_COLOR)]
    legend = "".join(
        f'<span class="key"><span class="swatch" style="background:{color}"></span>{escape(name)}</span>'
        for name, color in keys
    )
    return (
        '<div class="tools"><span><button type="button" id="closer">closer</button> '
        '<button type="button" id="farther">farther</button> '
        '<button type="button" id="whole">whole video</button></span>'
        '<label><input type="checkbox" id="stop"> stop at the end of the event</label>'
        f"<span>{legend}</span></div>"
    )


def _timeline(timeline: Timeline, colors: Mapping[str, str]) -> str:
    """Lanes of events, curves of scores and of the gate over one time axis."""
    rows = [_Row("", "", _TICKS, "ticks")]
    windows: dict[int, list[WindowScores]] = {}
    for window in timeline.windows:
        windows.setdefault(window.person, []).append(window)
    events: dict[int, list[tuple[int, Event]]] = {person.number: [] for person in timeline.people}
    for number, event in enumerate(timeline.events):
        events.setdefault(event.person, []).append((number, event))
    for person in sorted({*events, *windows}):
        if _has_people(timeline):
            rows.append(_Row(f"Person {person}", "", _HEADING, "person"))
        rows += _lanes(events.get(person, []), colors, timeline.duration)
        rows += _curves(timeline, windows.get(person, []), [event for _, event in events.get(person, [])], colors)
    names = "\n".join(
        f'<div class="{row.kind}" style="height:{row.height}px" title="{escape(row.name)}">'
        f"<span>{escape(row.name)}</span></div>"
        for row in rows
    )
    track = "\n".join(f'<div class="{row.kind}" style="height:{row.height}px">{row.content}</div>' for row in rows)
    return (
        f'<div class="timeline">\n<div class="names">\n{names}\n</div>\n<div class="view">\n'
        f'<div class="track" role="group" aria-label="Events; arrow keys move between them, Enter plays one" '
        f'data-duration="{max(timeline.duration, 1e-3):.4f}">\n{track}\n'
        '<div class="playhead"></div>\n</div>\n</div>\n</div>'
    )


def _lanes(events: Sequence[tuple[int, Event]], colors: Mapping[str, str], duration: float) -> Iterator[_Row]:
    """A lane for each group; events that overlap lie below each other."""
    for group, color in colors.items():
        ends: list[float] = []
        blocks = []
        for number, event in events:
            if event.group != group:
                continue
            level = next((place for place, end in enumerate(ends) if end <= event.start_seconds), len(ends))
            ends[level : level + 1] = [event.end_seconds]
            left = 100 * event.start_seconds / max(duration, 1e-3)
            width = 100 * (event.end_seconds - event.start_seconds) / max(duration, 1e-3)
            top = _LANE_PADDING // 2 + level * _EVENT
            blocks.append(
                f'<button type="button" class="event" tabindex="-1" data-event="{number}" style="left:{left:.4f}%;'
                f'width:{width:.4f}%;top:{top}px;background:{color}" aria-label="{escape(_describe(event))}">'
                f"{escape(event.label)}</button>"
            )
        if blocks:
            yield _Row(group or "gestures", "".join(blocks), _LANE_PADDING + len(ends) * _EVENT, "lane")


def _describe(event: Event) -> str:
    return f"{event.label}, {format_timecode(event.start_seconds)[:-2]}, score {event.score:.2f}"


def _curves(
    timeline: Timeline, windows: Sequence[WindowScores], events: Sequence[Event], colors: Mapping[str, str]
) -> Iterator[_Row]:
    """The scores of one person's most frequent gestures and of the background, and the gate."""
    if not windows:
        return
    times = np.array([(window.start_seconds + window.end_seconds) / 2 for window in windows])
    order = np.argsort(times, kind="stable")
    scores = np.stack([window.scores for window in windows])[order]
    group_of = {event.label_id: event.group for event in events}
    shown = _curve_labels(events, scores)
    shown += [label for label, name in enumerate(timeline.labels) if name == BACKGROUND_LABEL and label not in shown]
    for label in shown:
        color = colors.get(group_of.get(label, ""), NO_GROUP_COLOR)
        x, values = _downsample(times[order], scores[:, label], timeline.duration, np.maximum)
        svg = _svg(timeline.duration, [(_area(x, values), color)])
        yield _Row(timeline.labels[label], svg, _CURVE, "curve")
    gates = np.array([np.nan if window.gate is None else window.gate for window in windows])[order]
    known = ~np.isnan(gates)
    if known.any():
        x, values = _downsample(times[order][known], gates[known], timeline.duration, np.add)
        areas = [(_area(x, np.ones_like(values)), _POSE_COLOR), (_area(x, values), _RGB_COLOR)]
        yield _Row("gate", _svg(timeline.duration, areas), _CURVE, "curve")


def _curve_labels(events: Sequence[Event], scores: np.ndarray) -> list[int]:
    """The classes with most events, by number; without events, those with the highest scores."""
    counts = np.bincount([event.label_id for event in events], minlength=scores.shape[1])
    ranks = np.lexsort((np.arange(len(counts)), -scores.max(axis=0), -counts))
    return sorted(int(label) for label in ranks[:_MAX_CURVES] if counts[label] or not events)


def _downsample(
    times: np.ndarray, values: np.ndarray, duration: float, combine: np.ufunc
) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of at most `_MAX_POINTS` points: the largest value of each, or with `np.add` the mean."""
    if len(times) <= _MAX_POINTS:
        return times, values
    places = np.minimum(times / max(duration, 1e-9) * _MAX_POINTS, _MAX_POINTS - 1).astype(np.int64)
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    combined = combine.reduceat(values, firsts)
    if combine is np.add:
        combined = combined / np.diff(firsts, append=len(values))
    return times[firsts], combined


def _area(times: np.ndarray, values: np.ndarray) -> str:
    """SVG path of the areas below a curve, in hundredths of seconds and per cent; gaps in time stay empty."""
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 1.0
    path = []
    for part in np.split(np.arange(len(times)), np.flatnonzero(steps > _GAP * usual) + 1):
        # A point stands for the time around it.
        x = np.concatenate([times[part[:1]] - usual / 2, times[part], times[part[-1:]] + usual / 2])
        y = np.concatenate([values[part[:1]], values[part], values[part[-1:]]])
        points = "L".join(f"{round(100 * a)} {round(100 - 100 * float(b), 1):g}" for a, b in zip(x, y, strict=True))
        path.append(f"M{round(100 * x[0])} 100L{points}L{round(100 * x[-1])} 100Z")
    return "".join(path)


def _svg(duration: float, areas: Iterable[tuple[str, str]]) -> str:
    paths = "".join(f'<path d="{path}" fill="{color}" fill-opacity=".75"/>' for path, color in areas)
    width = max(round(100 * duration), 1)
    return f'<svg viewBox="0 0 {width} 100" preserveAspectRatio="none" aria-hidden="true">{paths}</svg>'


def _summary(timeline: Timeline) -> str:
    """Counts, rates and durations of each gesture of each person."""
    if not timeline.events:
        return html_page.missing("No gesture was found.")
    seen, has_people = observed_seconds(timeline), _has_people(timeline)
    rows = [
        [
            gesture.label,
            gesture.group or html_page.UNKNOWN,
            *([f"Person {gesture.person}"] if has_people else []),
            f"{gesture.num_events:,}",
            f"{gesture.per_minute:.2f}",
            f"{gesture.seconds:.1f} s",
            f"{gesture.seconds / gesture.num_events:.1f} s",
            percent(gesture.seconds / seen[gesture.person]),
            f"{gesture.mean_score:.2f}",
        ]
        for gesture in count_gestures(timeline)
    ]
    header = [
        *("gesture", "group", *(["person"] if has_people else [])),
        *("count", "per minute", "total", "mean", "share of time", "mean score"),
    ]
    caption = "Rates and shares count the time in which the person was looked at."
    return html_page.table(caption, header, rows, num_text_columns=3 if has_people else 2)


def _settings(settings: Mapping[str, Any]) -> str:
    return html_page.table("How the timeline was made", ("setting", "value"), _flatten(settings), 2)


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)


def _has_people(timeline: Timeline) -> bool:
    """Whether there are several people to tell apart."""
    return len({person.number for person in timeline.people} | {event.person for event in timeline.events}) > 1


__all__ = ["write_timeline_page"]
