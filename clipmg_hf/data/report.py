"""A report on a data set: how much there is, what is missing and what it looks like, on one page to read offline.

    clipmg data DATA --report REPORT

Needs the extra: pip install "clipmg_hf[viz]". The rows have the columns of `clipmg_hf.data.schema`. K is the number of
points of their keypoint layout, F the number of frames with keypoints of some rows.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from clipmg_hf import html_page
from clipmg_hf.data.discovery import shorten as join
from clipmg_hf.data.statistics import (
    LONG_CLIP,
    DataStatistics,
    SplitStatistics,
    clip_lengths,
    collect_statistics,
    integers,
    keypoints_of,
    quantiles,
    ratio,
    small_columns,
)
from clipmg_hf.files import complete_file
from clipmg_hf.html_page import UNKNOWN, file_name, number, percent
from clipmg_hf.processing import KeypointLayout, VideoDecodingError, VideoReader, get_layout
from clipmg_hf.text import plural


try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter
    from PIL import Image, ImageDraw

    from clipmg_hf.visualization import (
        CURVE_COLORS,
        GREY,
        INK,
        PAPER,
        PLOT_STYLE,
        draw_skeleton,
        fit_text,
        shorten,
        text_font,
    )
except ImportError as error:
    raise ImportError(
        f'clipmg_hf.data.report needs matplotlib and Pillow ({error}): pip install "clipmg_hf[viz]"'
    ) from error


_KEYPOINT_COLUMNS = ("keypoints", "keypoints_valid", "keypoint_layout")
_FRAMES_PER_STRIP = 8
# Sizes of a strip in pixels.
_TILE_WIDTH, _TILE_HEIGHT, _GAP, _MARGIN, _HEADER, _FOOTER = 320, 240, 8, 14, 58, 26
_STRIP_WIDTH = 4 * (_TILE_WIDTH + _GAP) - _GAP
_CANVAS_GREY = 150
_INK, _GREY, _LINES, _RED = "#1c1e24", "#6e737d", "#e6e8ec", "#c53030"
_GROUP_COLORS = (*CURVE_COLORS, "#b7791f", "#d53f8c", "#38a3c7", "#6b8e23")
# Names in the data may hold dollar signs, which are no formulas.
_STYLE = {**PLOT_STYLE, "text.parse_math": False, "figure.constrained_layout.h_pad": 0.09}
_MAX_POINTS_PER_COLUMN = 42
# How the description of the loaded rows begins the line with the record of their splits.
SPLITS_NOTE = "Splits: "
_PROTOCOLS = {
    "official": "the parts as handed out",
    "cross_subject": "the cross-subject protocol",
    "folds": "folds by subject",
}


@dataclass(frozen=True)
class _Strip:
    """A sample clip: its picture, relative to the page, or why there is none."""

    label: str
    details: str
    file: str | None
    error: str | None = None


def write_data_report(
    rows: datasets.DatasetDict,
    folder: str | PathLike,
    *,
    title: str,
    notes: Sequence[str] = (),
    num_strips: int = 8,
    seed: int = 0,
    show_progress: bool = True,
) -> Path:
    """Write `index.html` with its pictures, and `statistics.json`.

    The page needs nothing from the network. A sample clip whose video cannot be read is shown as its error.

    Args:
        rows (`datasets.DatasetDict`): At least one split, with the columns of `clipmg_hf.data.schema`.
        folder (`str` or `PathLike`): Where to write; made if missing, files of an earlier report are replaced.
        title (`str`): Heading of the page.
        notes (`Sequence[str]`): What the loader found, shown on top.
        num_strips (`int`, defaults to 8): Number of sample clips, spread over the classes.
        seed (`int`, defaults to 0): Chooses them.
        show_progress (`bool`, defaults to `True`): With progress bars.

    Returns:
        `Path` of `index.html`.
    """
    folder = Path(folder)
    (folder / "strips").mkdir(parents=True, exist_ok=True)
    samples = _choose_clips(rows, num_strips, seed)
    total = sum(map(len, rows.values()))
    with tqdm(total=total, desc="Count", unit="clip", disable=not show_progress) as bar:
        statistics = collect_statistics(rows, bar)
    drawn = tqdm(samples, desc="Draw samples", unit="clip", disable=not show_progress)
    strips = [_write_strip(rows[name], index, name, folder) for name, index in drawn]
    with complete_file(folder / "statistics.json", ".json") as partial:
        text = json.dumps(dataclasses.asdict(statistics), indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
    _plot_class_counts(statistics, folder / "class_counts.png")
    _plot_clip_lengths(
        {name: clip_lengths(small_columns(split)) for name, split in rows.items()}, folder / "clip_lengths.png"
    )
    if statistics.keypoint_layout is not None:
        _plot_missing_keypoints(statistics, folder / "missing_keypoints.png")
    with complete_file(folder / "index.html", ".html") as partial:
        partial.write_text(_page(title, notes, statistics, strips), encoding="utf-8")
    return folder / "index.html"


def _choose_clips(rows: datasets.DatasetDict, num_strips: int, seed: int) -> list[tuple[str, int]]:
    """Split and index of the sample clips, by class: each class once, in random order, before any comes again.

    Clips without a label count as one class.
    """
    generator = np.random.default_rng(seed)
    labels = np.concatenate([integers(small_columns(split), "label") for split in rows.values()])
    order = generator.permutation(len(labels))
    classes, codes, counts = np.unique(labels[order], return_inverse=True, return_counts=True)
    # The how manieth of its class each clip is, in this order.
    by_class = np.argsort(codes, kind="stable")
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = order[np.lexsort((generator.permutation(len(classes))[codes], turn))][:num_strips]
    chosen = chosen[np.lexsort((labels[chosen], labels[chosen] < 0))]
    names, ends = list(rows), np.cumsum([len(split) for split in rows.values()])
    owners = np.searchsorted(ends, chosen, side="right")
    return [
        (names[owner], int(index - ends[owner] + len(rows[names[owner]])))
        for owner, index in zip(owners, chosen, strict=True)
    ]


def _write_strip(split: datasets.Dataset, index: int, split_name: str, folder: Path) -> _Strip:
    """Draw a sample clip and write it to `strips/`; an unreadable video gives a strip with its error."""
    table = split.with_format("arrow")[index : index + 1]
    row = {name: table[name][0].as_py() for name in table.column_names if name not in _KEYPOINT_COLUMNS}
    names = split.features["label"].names
    label = "label hidden" if row["label"] < 0 else f"{row['label']} {names[row['label']]}"
    subject = "" if row["subject"] is None else f", subject {row['subject']}"
    interval = f"frames {row['start_frame']} to {row['end_frame']} of {row['video_id']}"
    details = f"{row['clip_id']}: {split_name}, {interval}{subject}"
    try:
        picture = _draw_strip(row, table, label, details)
    except (VideoDecodingError, OSError) as error:
        return _Strip(label, details, None, str(error))
    if picture is None:
        return _Strip(label, details, None, "The clip has neither a video nor keypoints.")
    file = f"strips/{file_name(row['clip_id'])}.png"
    with complete_file(folder / file, ".png") as partial:
        picture.save(partial, format="PNG")
    return _Strip(label, details, file)


def _draw_strip(row: Mapping[str, Any], table: pa.Table, label: str, caption: str) -> Image.Image | None:
    """Up to eight frames, evenly over the clip, with their skeletons; `None` if the clip shows nothing.

    Raises:
        VideoDecodingError, OSError: The video cannot be read.
    """
    num_frames = row["end_frame"] - row["start_frame"] + 1
    positions = np.unique(np.linspace(0, num_frames - 1, min(_FRAMES_PER_STRIP, num_frames)).round().astype(int))
    points, layout = _row_keypoints(table)
    frames = _row_frames(row, positions)
    if frames is None:
        if points is None:
            return None
        frames = itertools.repeat(_blank_frame(row, points), len(positions))
    tiles = [
        _tile(frame, None if points is None else points[position], layout)
        for frame, position in zip(frames, positions, strict=True)
    ]
    return _join_tiles(tiles, [f"frame {row['start_frame'] + position}" for position in positions], label, caption)


def _row_keypoints(table: pa.Table) -> tuple[np.ndarray | None, KeypointLayout | None]:
    """Keypoints (T, K, 3) of a single row, missing ones (0, 0, 0), and their layout."""
    if "keypoints" not in table.column_names or table["keypoints"].null_count:
        return None, None
    layout = get_layout(table["keypoint_layout"][0].as_py())
    points, valid, _ = keypoints_of(table, layout)
    return np.where(valid[..., None], points, 0), layout


def _row_frames(row: Mapping[str, Any], positions: np.ndarray) -> Iterable[np.ndarray] | None:
    """The frames at `positions` of the clip; `None` without a video."""
    source = row["video"]
    if source is None:
        return None
    if isinstance(source, dict):
        source = source["path"] if source["bytes"] is None else source["bytes"]
    with VideoReader(source) as reader:
        return reader.read(row["start_frame"] - row["video_start_frame"] + positions)


def _blank_frame(row: Mapping[str, Any], points: np.ndarray) -> np.ndarray:
    """A grey frame of the video's size; where the files do not tell it, one that holds all points."""
    width, height = row["width"], row["height"]
    if width is None or height is None:
        width, height = (max(16, math.ceil(value) + 1) for value in points[..., :2].max(axis=(0, 1)))
    return np.full((height, width, 3), _CANVAS_GREY, dtype=np.uint8)


def _tile(frame: np.ndarray, points: np.ndarray | None, layout: KeypointLayout | None) -> Image.Image:
    """The frame, as large as a tile allows, with the skeleton (K, 3) drawn at that size."""
    height, width = frame.shape[:2]
    factor = min(_TILE_WIDTH / width, _TILE_HEIGHT / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    if points is None or layout is None:
        return picture
    scaled = points.astype(np.float64)
    scaled[:, :2] = (points[:, :2] + 0.5) * factor - 0.5
    scaled[points[:, 2] <= 0] = 0
    return Image.fromarray(draw_skeleton(np.asarray(picture), scaled, layout))


def _join_tiles(tiles: Sequence[Image.Image], names: Sequence[str], label: str, caption: str) -> Image.Image:
    tile_width, tile_height = tiles[0].size
    num_columns = (_STRIP_WIDTH + _GAP) // (tile_width + _GAP)
    num_rows = math.ceil(len(tiles) / num_columns)
    width = _STRIP_WIDTH + 2 * _MARGIN
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _HEADER + num_rows * (tile_height + _FOOTER)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for text, size, bottom, color, bold in ((label, 20, 20, INK, True), (caption, 14, 42, GREY, False)):
        font, fitting = fit_text(text, size, width - 2 * _MARGIN, bold=bold)
        draw.text((_MARGIN, _MARGIN + bottom), fitting, fill=color, font=font, anchor="ls")
    for index, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        line, column = divmod(index, num_columns)
        left = _MARGIN + column * (tile_width + _GAP)
        top = _MARGIN + _HEADER + line * (tile_height + _FOOTER)
        sheet.paste(tile, (left, top))
        draw.text((left + tile_width / 2, top + tile_height + 4), name, fill=GREY, font=text_font(14), anchor="ma")
    return sheet


def _group_colors(statistics: DataStatistics) -> dict[str | None, str]:
    """A colour for each group that a class has, in the order of the groups; the ink for classes of unknown group."""
    names = next(iter(statistics.splits.values())).group_counts
    used = [name for name in names if name in statistics.class_groups.values()]
    return {None: _INK, **dict(zip(used, itertools.cycle(_GROUP_COLORS), strict=False))}


def _plot_class_counts(statistics: DataStatistics, path: Path) -> None:
    """One panel of bars for each split."""
    names, groups = list(statistics.class_groups), list(statistics.class_groups.values())
    colors = _group_colors(statistics)
    labels = [f"{shorten(name, 52)}  {index}" for index, name in enumerate(names)]
    num_splits = len(statistics.splits)
    largest = max(max(split.class_counts.values()) for split in statistics.splits.values())
    with matplotlib.rc_context(_STYLE):
        size = (2.4 * num_splits + 0.8 + 0.062 * max(map(len, labels)), 0.21 * len(names) + 1.5)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, num_splits, sharex=True, sharey=True, squeeze=False)[0]
        panels[0].set_xscale("log")
        panels[0].set_xlim(0.7, 10 ** (1.25 * math.log10(max(largest, 10)) + 0.2))
        for axes, (name, split) in zip(panels, statistics.splits.items(), strict=True):
            _plot_counts(axes, split, [colors[group] for group in groups])
            axes.set_title(f"{shorten(name, 16)}: {plural(split.num_clips, 'clip')}", loc="left", fontsize=9)
        panels[0].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panels[0].set_yticks(range(len(names)), labels, fontsize=8)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, group in zip(panels[0].get_yticklabels(), groups, strict=True):
            tick.set_color(colors[group])
        handles = [Patch(color=color, label=group) for group, color in colors.items() if group is not None]
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), handlelength=0.9)
        _save(figure, path)


def _plot_counts(axes: Axes, split: SplitStatistics, colors: Sequence[str]) -> None:
    """A bar with its number for each class, absent ones in red; the hidden labels as words."""
    counts = list(split.class_counts.values())
    axes.barh(range(len(counts)), counts, height=0.72, color=colors)
    for place, count in enumerate(counts if split.absent_classes is not None else ()):
        axes.text(
            max(count, 0.72) * 1.12, place, f"{count:,}", va="center", fontsize=7.5, color=_INK if count else _RED
        )
    if split.num_without_label:
        text = f"{split.num_without_label:,} without a label"
        axes.text(0.97, 0.01, text, transform=axes.transAxes, ha="right", va="bottom", color=_GREY, fontsize=8)
    axes.set_xlabel("clips")
    axes.grid(axis="x", color=_LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _plot_clip_lengths(lengths: Mapping[str, np.ndarray], path: Path) -> None:
    """One histogram below the other, `lengths` of each split (N,) in frames."""
    all_lengths = np.concatenate(list(lengths.values()))
    low, high = (int(all_lengths.min()), int(all_lengths.max()) + 1) if len(all_lengths) else (1, 2)
    # Lengths are whole numbers: finer bins would leave gaps at the short end.
    edges = np.unique(np.geomspace(low, high, 31).round()) - 0.5
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 0.7 + 1.75 * len(lengths)), layout="constrained")
        panels = figure.subplots(len(lengths), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values), color in zip(panels, lengths.items(), itertools.cycle(CURVE_COLORS), strict=False):
            axes.hist(values, bins=edges, color=color, alpha=0.8)
            _mark_quantiles(axes, quantiles(values))
            axes.set_title(f"{shorten(name, 40)}: {plural(len(values), 'clip')}", loc="left", fontsize=9)
            axes.set_ylabel("clips")
            axes.grid(axis="y", color=_LINES, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panels[-1].set_xscale("log")
        panels[-1].xaxis.set_major_locator(FixedLocator(_length_ticks(low, high - 1)))
        panels[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        panels[-1].xaxis.set_minor_formatter(NullFormatter())
        panels[-1].set_xlabel("frames of a clip")
        _save(figure, path)


def _length_ticks(low: int, high: int) -> list[int]:
    """Whole numbers from `low` to `high` that read well on a logarithmic axis."""
    decades = range(len(str(high)))
    ticks = [factor * 10**power for power in decades for factor in (1, 2, 3, 5) if low <= factor * 10**power <= high]
    if len(ticks) < 4:
        # Less than a decade: even steps.
        steps = MaxNLocator(6, integer=True).tick_values(low, high)
        ticks = [round(tick) for tick in steps if low <= tick <= high]
    return ticks


def _mark_quantiles(axes: Axes, quantiles: Sequence[float]) -> None:
    """Lines at the median and at the 90th percentile, their values beside them."""
    axes.margins(x=0.03, y=0.25)
    styles = (("median", "-", "right", -4), ("90 % up to", "--", "left", 4))
    for value, (name, line, side, shift) in zip(quantiles, styles, strict=False):
        axes.axvline(value, color=_INK, linewidth=1.1, linestyle=line)
        axes.annotate(
            f"{name} {number(value)}",
            (value, 0.98),
            (shift, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=8,
        )


def _part_of(name: str) -> str:
    return "face" if name.startswith("face_") else "hands" if "_hand_" in name else "body"


def _columns_of_points(layout: KeypointLayout) -> list[tuple[str, list[str]]]:
    """The points by part of the body, parts with too many for one column of the plot in several equal ones."""
    columns = []
    for part in ("body", "face", "hands"):
        names = [name for name in layout.keypoints if _part_of(name) == part]
        num_columns = math.ceil(len(names) / _MAX_POINTS_PER_COLUMN)
        for chunk in np.array_split(np.array(names), num_columns) if names else []:
            columns.append((part, chunk.tolist()))
    return columns


def _plot_missing_keypoints(statistics: DataStatistics, path: Path) -> None:
    assert statistics.keypoint_layout is not None
    columns = _columns_of_points(get_layout(statistics.keypoint_layout))
    rates = {name: split.missing_rates for name, split in statistics.splits.items() if split.missing_rates}
    num_rows = max(len(names) for _, names in columns)
    row_height = max(0.17, 0.055 * len(rates) + 0.04)
    with matplotlib.rc_context(_STYLE):
        size = (max(3.1 * len(columns), 5.6), row_height * num_rows + 1.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(columns), sharex=True, squeeze=False)[0]
        for axes, (part, names) in zip(panels, columns, strict=True):
            _plot_rates(axes, names, rates)
            axes.set_ylim(num_rows - 0.4, -0.6)
            axes.set_title(part, loc="left")
        if len(rates) > 1:
            handles = [
                Patch(color=color, label=shorten(name, 30))
                for name, color in zip(rates, itertools.cycle(CURVE_COLORS), strict=False)
            ]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(rates), 6), handlelength=0.9)
        _save(figure, path)


def _plot_rates(axes: Axes, names: Sequence[str], rates: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each point and split, on an axis from 0 to 100 % above them."""
    thickness = 0.78 / len(rates)
    places = np.arange(len(names))
    for index, (split, color) in enumerate(zip(rates, itertools.cycle(CURVE_COLORS), strict=False)):
        offset = (index - (len(rates) - 1) / 2) * thickness
        axes.barh(places + offset, [rates[split][name] for name in names], height=thickness, color=color)
    axes.set_yticks(places, [name.replace("_", " ") for name in names], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_xticks((0, 0.25, 0.5, 0.75, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["bottom", "left"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with complete_file(path, ".png") as partial:
        figure.savefig(partial, dpi=150)


def _page(title: str, notes: Sequence[str], statistics: DataStatistics, strips: Sequence[_Strip]) -> str:
    sections = [
        _heading(title, statistics),
        html_page.notes("Notes of the loader", [_in_words(note) for note in notes]),
        html_page.section("Splits", _summary_table(statistics), _shared_sentences(statistics)),
        html_page.section("Classes", _class_figure(statistics), _group_table(statistics), _class_table(statistics)),
        html_page.section("Clip lengths", _length_figure(statistics)),
        html_page.section("Keypoints", *_keypoint_parts(statistics)),
        html_page.section("Sample clips", *(_strip_figure(strip) for strip in strips)) if strips else "",
    ]
    return html_page.page(title, sections)


def _heading(title: str, statistics: DataStatistics) -> str:
    splits = statistics.splits.values()
    facts = [
        plural(sum(split.num_clips for split in splits), "clip"),
        plural(len(splits), "split"),
        f"{len(statistics.class_groups)} class{'' if len(statistics.class_groups) == 1 else 'es'}",
        f"keypoints {statistics.keypoint_layout}" if statistics.keypoint_layout else "no keypoints",
    ]
    return html_page.heading(title, facts)


def _in_words(note: str) -> str:
    """A note as it is; that on the splits, which holds JSON for programs, as a sentence."""
    if not note.startswith(SPLITS_NOTE):
        return note
    record = json.loads(note.removeprefix(SPLITS_NOTE))
    units = record.get("units", {})
    text = f"Splits: {_PROTOCOLS.get(record['protocol'], record['protocol'])}"
    if record["protocol"] == "folds":
        chosen = units.get(f"fold {record['fold']}", [])
        return f"{text}; fold {record['fold']} of {record['num_folds']} (counted from 0) validates: {join(chosen)}."
    if chosen := units.get("validation"):
        share = f"about {percent(record['validation'])} of the training clips validate, seed {record['seed']}"
        return f"{text}; {share}: {join(chosen)}."
    return f"{text}."


def _absent(split: SplitStatistics) -> str:
    return UNKNOWN if split.absent_classes is None else f"{len(split.absent_classes)}"


def _empty_frames(split: SplitStatistics) -> str:
    count = split.num_frames_without_points
    share = ratio(count, split.num_frames_with_keypoints)
    return UNKNOWN if share is None else f"{count:,} ({percent(share)})"


_SUMMARY: dict[str, Callable[[SplitStatistics], str]] = {
    "Clips": lambda split: number(split.num_clips),
    "Videos": lambda split: number(split.num_videos),
    "Subjects": lambda split: number(split.num_subjects),
    "Frames of all clips": lambda split: number(split.num_frames),
    "Shortest clip, frames": lambda split: number(split.length_min),
    "Median clip": lambda split: number(split.length_median),
    "Mean clip": lambda split: number(split.length_mean),
    "90 % of the clips up to": lambda split: number(split.length_90th_percentile),
    "Longest clip": lambda split: number(split.length_max),
    f"Clips of more than {LONG_CLIP} frames": lambda split: percent(split.share_longer_than_90),
    "Clips that overlap another of their video": lambda split: percent(split.share_overlapping),
    "Largest class over smallest": lambda split: number(split.imbalance),
    "Classes absent": _absent,
    "Clips without a label": lambda split: number(split.num_without_label),
    "Clips without a video": lambda split: number(split.num_without_video),
    "Clips without keypoints": lambda split: number(split.num_without_keypoints),
    "Frames without any point": _empty_frames,
    "Points outside the frame": lambda split: percent(split.share_outside_frame),
}


def _summary_table(statistics: DataStatistics) -> str:
    rows = ([name, *(text_of(split) for split in statistics.splits.values())] for name, text_of in _SUMMARY.items())
    return html_page.table("What each split holds; - where the data does not tell.", ["", *statistics.splits], rows)


def _shared_sentences(statistics: DataStatistics) -> str:
    shared = {"video": statistics.shared_videos, "subject": statistics.shared_subjects}
    facts = [f"{pair} share {plural(count, noun)}" for noun, pairs in shared.items() for pair, count in pairs.items()]
    return f"<p>{escape('; '.join(facts))}.</p>" if facts else ""


def _group_table(statistics: DataStatistics) -> str:
    names = next(iter(statistics.splits.values())).group_counts
    rows = ([name, *(f"{split.group_counts[name]:,}" for split in statistics.splits.values())] for name in names)
    return html_page.table("Clips of each group.", ["Group", *statistics.splits], rows)


def _class_table(statistics: DataStatistics) -> str:
    rows = (
        [
            f"{index}",
            name,
            group or UNKNOWN,
            *(f"{split.class_counts[name]:,}" for split in statistics.splits.values()),
        ]
        for index, (name, group) in enumerate(statistics.class_groups.items())
    )
    header = ["Id", "Class", "Group", *statistics.splits]
    return html_page.details(
        "Table of the classes", html_page.table("Clips of each class.", header, rows, num_text_columns=3)
    )


def _class_figure(statistics: DataStatistics) -> str:
    facts = []
    for name, split in statistics.splits.items():
        if split.absent_classes is None:
            facts.append(f"{name}: no labels")
        else:
            largest = max(split.class_counts, key=lambda label: split.class_counts[label])
            facts.append(f"{name}: most of {largest} ({split.class_counts[largest]:,}), {_absent(split)} absent")
    alt = f"Bars: clips of each class and split on a logarithmic axis. {'; '.join(facts)}."
    return html_page.figure("class_counts.png", alt, "Clips of each class, coloured by group. Logarithmic axis.")


def _length_figure(statistics: DataStatistics) -> str:
    facts = (
        f"{name}: median {number(split.length_median)}, 90 % up to {number(split.length_90th_percentile)} frames"
        for name, split in statistics.splits.items()
    )
    alt = f"Histograms of the clip lengths of each split on a logarithmic axis. {'; '.join(facts)}."
    caption = "Frames of a clip, with the median (line) and the 90th percentile (dashed). Logarithmic axis."
    return html_page.figure("clip_lengths.png", alt, caption)


def _keypoint_parts(statistics: DataStatistics) -> Iterator[str]:
    if statistics.keypoint_layout is None:
        yield "<p>No clip has keypoints.</p>"
        return
    splits = {name: split for name, split in statistics.splits.items() if split.missing_rates}
    means = "; ".join(
        f"{name}: {percent(float(np.mean(list((split.missing_rates or {}).values()))))} on average"
        for name, split in splits.items()
    )
    alt = f"Bars: share of the frames in which each point is missing, by split. {means}."
    caption = f"Share of the frames in which a point of {statistics.keypoint_layout} is missing."
    yield html_page.figure("missing_keypoints.png", alt, caption)
    columns = [f"{name}, {value}" for value in ("missing", "confidence") for name in splits]
    rows = (
        [
            point.replace("_", " "),
            *(percent((split.missing_rates or {})[point]) for split in splits.values()),
            *(_confidence((split.mean_confidences or {})[point]) for split in splits.values()),
        ]
        for point in get_layout(statistics.keypoint_layout).keypoints
    )
    table = html_page.table("Missing rate, and mean confidence where the point is there.", ["Point", *columns], rows)
    yield html_page.details("Table of the points", table)


def _confidence(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _strip_figure(strip: _Strip) -> str:
    """The picture, which shows label and clip; or these in words, with the error."""
    if strip.file is not None:
        alt = f"Frames with skeletons of the clip {strip.details}: {strip.label}."
        return f'<figure class="strip">{html_page.image(strip.file, alt)}</figure>'
    return (
        f'<figure class="strip">\n<figcaption><strong>{escape(strip.label)}</strong><br>{escape(strip.details)}'
        f'</figcaption>\n<p class="unreadable">{escape(strip.error or "")}</p>\n</figure>'
    )


__all__ = ["write_data_report"]
