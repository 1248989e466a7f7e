"""Plots of an evaluation for the report of a run. Needs the extra: pip install "clipmg_hf[viz]".

Rows are those of the files of `clipmg_hf.evaluation_results`; values that are not there are `None`.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from clipmg_hf.files import complete_file
from clipmg_hf.visualization import CURVE_COLORS, PLOT_STYLE, plot_confusion_matrix, shorten


_INK, _GREY, _LINES = "#1c1e24", "#6e737d", "#e6e8ec"
_GROUP_COLORS = (*CURVE_COLORS, "#b7791f", "#d53f8c", "#38a3c7", "#6b8e23")
# Names in the data may hold dollar signs, which are no formulas.
_STYLE = {**PLOT_STYLE, "text.parse_math": False}
_MAX_NAME = 52
_NUM_GATE_BINS = 24


def plot_confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Plot counts (C, C); rows are true classes."""
    with matplotlib.rc_context({"text.parse_math": False}):
        plot_confusion_matrix(matrix, names, path)


def plot_class_bars(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A bar for the recall of each class, coloured by group, its F1 as a mark, and its number of clips.

    Args:
        rows: `class`, `group`, `support`, `predicted`, `recall` and `f1` of each class.
        path: File to write, `.png`.
    """
    names = [shorten(row["class"], _MAX_NAME) for row in rows]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    colors = dict(zip(groups, itertools.cycle(_GROUP_COLORS), strict=False))
    with matplotlib.rc_context(_STYLE):
        size = (6.6 + 0.062 * max(map(len, names)), 0.23 * len(rows) + 1.7)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        places = range(len(rows))
        axes.barh(places, [row["recall"] or 0 for row in rows], 0.72, color=[colors[row["group"]] for row in rows])
        marks = [(place, row["f1"]) for place, row in zip(places, rows, strict=True) if row["f1"] is not None]
        axes.plot([f1 for _, f1 in marks], [place for place, _ in marks], "D", color=_INK, ms=4, mew=0.8, mec="white")
        axes.lines[0].set_clip_on(False)
        for place, row in zip(places, rows, strict=True):
            text = f"{row['support']:,} clips, {row['predicted']:,} predicted" if row["support"] else "no clip"
            if row["predicted"] and not row["support"]:
                text += f", {row['predicted']:,} predicted"
            axes.text(1.02, place, text, va="center", fontsize=7.5, color=_INK if row["support"] else _GREY)
        axes.set_yticks(places, names, fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        _share_axis(axes, "x")
        axes.set_xlabel("recall of the class (bar)")
        axes.tick_params(axis="y", length=0)
        handles: list[Any] = [Patch(color=color, label=group) for group, color in colors.items()]
        handles.append(Line2D([], [], color=_INK, marker="D", ms=4, linestyle="", label="F1"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), handlelength=0.9)
        _save(figure, path)


def plot_reliability(bins: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy over confidence of the predictions, with the number of clips of each bin below.

    Args:
        bins: As `clipmg_hf.metrics.calibration` gives them.
        path: File to write, `.png`.
    """
    filled = [row for row in bins if row["count"]]
    width = bins[0]["upper"] - bins[0]["lower"]
    centers = [(row["lower"] + row["upper"]) / 2 for row in filled]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 5.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        upper.bar(centers, [row["accuracy"] for row in filled], 0.94 * width, color=CURVE_COLORS[0], alpha=0.75)
        upper.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="calibrated")
        points = ([row["confidence"] for row in filled], [row["accuracy"] for row in filled])
        upper.plot(*points, "o", color=CURVE_COLORS[1], ms=5, clip_on=False, label="mean confidence of the bin")
        _share_axis(upper, "y")
        upper.set_ylabel("accuracy")
        lower.bar(centers, [row["count"] for row in filled], 0.94 * width, color=_GREY)
        lower.set_ylabel("clips")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        lower.grid(axis="y", color=_LINES, linewidth=0.8)
        lower.set_axisbelow(True)
        _share_axis(lower, "x")
        lower.set_xlabel("confidence: probability of the predicted class")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        _save(figure, path)


def plot_gates(gates: Mapping[str, Sequence[float]], path: Path) -> None:
    """Histogram of the mean gate of the clips: of all of them on top, and of each class as a row of shades.

    Args:
        gates: Values in [0, 1] of each class, at least one; 1 takes RGB alone, 0 pose alone.
        path: File to write, `.png`.
    """
    values = np.concatenate([np.asarray(values, float) for values in gates.values()])
    # Means of hundreds of entries lie close together: all of [0, 1] would show a single bar.
    low, high = np.floor(20 * values.min()) / 20, np.ceil(20 * values.max()) / 20
    low, high = max(0.0, min(low, high - 0.1)), min(1.0, max(high, low + 0.1))
    edges = np.linspace(low, high, _NUM_GATE_BINS + 1)
    names = [f"{shorten(name, _MAX_NAME)} ({len(clips)})" for name, clips in gates.items()]
    shares = np.stack([np.histogram(clips, edges)[0] / len(clips) for clips in gates.values()])
    with matplotlib.rc_context(_STYLE):
        size = (5.4 + 0.062 * max(map(len, names)), 0.25 * len(names) + 2.9)
        figure = Figure(figsize=size, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, max(0.25 * len(names), 0.5)))
        upper.hist(values, edges, color=CURVE_COLORS[3], alpha=0.8)
        upper.set_title(f"all classes: {len(values):,} clips", loc="left", fontsize=9)
        upper.set_ylabel("clips")
        upper.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        picture = lower.pcolormesh(edges, np.arange(len(names) + 1), shares, cmap="Purples", vmin=0)
        means = [float(np.mean(clips)) for clips in gates.values()]
        lower.plot(means, np.arange(len(names)) + 0.5, "D", color=CURVE_COLORS[1], ms=4, mew=0.8, mec="white")
        lower.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
        lower.set_ylim(len(names), 0)
        lower.tick_params(axis="y", length=0)
        lower.spines[:].set_visible(False)
        lower.xaxis.set_major_formatter(StrMethodFormatter("{x:.2f}"))
        lower.set_xlabel("mean gate: 0 all pose, 1 all RGB; the mark is the mean of the class")
        figure.colorbar(picture, ax=lower, label="share of the class", aspect=30, pad=0.02)
        _save(figure, path)


def _share_axis(axes: Axes, which: str) -> None:
    """An axis from 0 to 100 % with lines."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(0, 1)
    axis.set_ticks((0, 0.25, 0.5, 0.75, 1))
    axis.set_major_formatter(PercentFormatter(1))
    axis.grid(color=_LINES, linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    with complete_file(path, ".png") as partial:
        figure.savefig(partial, dpi=150)


__all__ = ["plot_class_bars", "plot_confusion", "plot_gates", "plot_reliability"]
