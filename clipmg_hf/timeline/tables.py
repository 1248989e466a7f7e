"""Timelines as tables: an event or a window in every row.

Numbers have a decimal point. Line breaks and control characters in names become spaces. A name that a spreadsheet
would take for a formula starts with an apostrophe. JSON keeps names and numbers exactly.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from clipmg_hf.timeline.records import Timeline, format_timecode
from clipmg_hf.timeline.spans import one_line


# Excel takes a file for UTF-8 only if it starts with this mark. pandas skips it; R needs fileEncoding="UTF-8-BOM".
BYTE_ORDER_MARK = "\ufeff"
# With the full-width forms, which some spreadsheets accept.
FORMULA_STARTS = tuple("=+-@＝＋－＠")  # noqa: RUF001
EVENT_COLUMNS = (
    "video",
    "person",
    "start_frame",
    "end_frame",
    "start_seconds",
    "end_seconds",
    "start_timecode",
    "end_timecode",
    "label",
    "label_id",
    "group",
    "score",
    "gate",
)
WINDOW_COLUMNS = (
    "video",
    "person",
    "start_frame",
    "end_frame",
    "start_seconds",
    "end_seconds",
    "gate",
    "pose_share",
)


def make_cell(text: str) -> str:
    """Text of one line that no spreadsheet takes for a formula."""
    text = one_line(text)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _format_share(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"


def _render(header: Sequence[str], rows: Iterable[Sequence], separator: str, line_end: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=line_end)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def list_event_rows(timeline: Timeline) -> list[tuple[str | int, ...]]:
    """Cells of the events by [`EVENT_COLUMNS`]: seconds with three decimals, score and gate with four.

    `end_frame` is the first frame after the event. Without a gate its cell is empty.
    """
    video = make_cell(timeline.video)
    return [
        (
            video,
            event.person,
            event.start,
            event.end,
            f"{event.start_seconds:.3f}",
            f"{event.end_seconds:.3f}",
            format_timecode(event.start_seconds),
            format_timecode(event.end_seconds),
            make_cell(event.label),
            event.label_id,
            make_cell(event.group),
            _format_share(event.score),
            _format_share(event.gate),
        )
        for event in timeline.events
    ]


def render_csv(timeline: Timeline) -> str:
    """Events with commas between the cells, for spreadsheets: starts with a byte order mark, lines end in CR LF.

    Where numbers have a decimal comma, Excel opens it by Data, From Text/CSV.
    """
    return BYTE_ORDER_MARK + _render(EVENT_COLUMNS, list_event_rows(timeline), ",", "\r\n")


def render_tsv(timeline: Timeline) -> str:
    """Events with tabs between the cells, for programs: no byte order mark, lines end in LF."""
    return _render(EVENT_COLUMNS, list_event_rows(timeline), "\t", "\n")


def render_window_csv(timeline: Timeline) -> str:
    """Windows as [`render_csv`] writes events: [`WINDOW_COLUMNS`], then `score: <class>` for every class by its id."""
    video = make_cell(timeline.video)
    header = (*WINDOW_COLUMNS, *(f"score: {one_line(label)}" for label in timeline.labels))
    rows = (
        (
            video,
            window.person,
            window.start,
            window.end,
            f"{window.start_seconds:.3f}",
            f"{window.end_seconds:.3f}",
            _format_share(window.gate),
            _format_share(window.pose_share),
            *map(_format_share, window.scores.tolist()),
        )
        for window in timeline.windows
    )
    return BYTE_ORDER_MARK + _render(header, rows, ",", "\r\n")


__all__ = [
    "BYTE_ORDER_MARK",
    "EVENT_COLUMNS",
    "WINDOW_COLUMNS",
    "list_event_rows",
    "make_cell",
    "render_csv",
    "render_tsv",
    "render_window_csv",
]
