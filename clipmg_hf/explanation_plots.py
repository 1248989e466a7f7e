"""Pictures of what a prediction rests on. Needs the extra: pip install "clipmg_hf[viz]".

Symbols as in `clipmg_hf.explanation`. Files appear under their name when they are complete.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clipmg_hf.explanation import GateCurve, JointInfluence, explanation_of, gate_histogram
from clipmg_hf.files import complete_file
from clipmg_hf.inference import ClipExplanation, ClipPrediction
from clipmg_hf.pose.heads import face_points
from clipmg_hf.processing import SquareCrop
from clipmg_hf.timeline.face_blur import is_blurred
from clipmg_hf.visualization import (
    CURVE_COLORS,
    PLOT_STYLE,
    POSE_COLOR,
    RGB_COLOR,
    attention_scale,
    draw_skeleton,
    overlay_attention,
)


_STYLE = {**PLOT_STYLE, "text.parse_math": False}
_INK, _GREY, _LINES = "#1c1e24", "#6e737d", "#e6e8ec"
_PRO, _CONTRA = "#c2410c", "#2563a8"
_SIGNED_MAP = LinearSegmentedColormap.from_list("signed", ("#1d4f91", "#7fb0e0", "#f4f4f4", "#f0a35e", "#b93806"))
_STRENGTH_MAP = LinearSegmentedColormap.from_list("strength", ("#f7f4ec", "#f3c66b", "#d9661c", "#7a1f0e"))
# The same colours as the heat of `overlay_attention`.
_HEAT_MAP = matplotlib.colors.ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.35, 1, 256)))
_NUM_JOINTS = 12
_MAX_COLUMNS = 4
# The full colour stands for at least so much, so that what does not matter stays pale.
_MIN_OCCLUSION, _MIN_SENSITIVITY = 0.05, 1.0
_FINGERS = ("thumb", "index finger", "middle finger", "ring finger", "little finger")
_FACE_PARTS = (
    *((17, "jaw"), (22, "right brow"), (27, "left brow"), (31, "bridge of the nose"), (36, "nostrils")),
    *((42, "right eyelid"), (48, "left eyelid"), (60, "outer lips"), (68, "inner lips"), (70, "pupil")),
)


def plot_attention(prediction: ClipPrediction, path: str | PathLike) -> None:
    """The sampled source frames: above with the skeleton, below with the attention, mean of the heads.

    What the model did not see of a frame is pale.

    Args:
        prediction: Made with `explain=True` by a model with semantic attention.
        path: File to write, `.png`.
    """
    explanation = explanation_of(prediction)
    assert explanation.semantic_attention is not None
    clip, attention = explanation.clip, explanation.semantic_attention.mean(axis=0)
    low, high = attention_scale(attention)
    pictures = [_pale_outside(frame, clip.crop) for frame in explanation.video.read(clip.frame_indices)]
    columns = min(len(pictures), _MAX_COLUMNS)
    blocks = math.ceil(len(pictures) / columns)
    tile_width = 2.9
    tile_height = tile_width * clip.height / clip.width
    with _saved_figure((columns * tile_width + 0.3, blocks * (2 * tile_height + 0.6) + 0.75), path) as figure:
        axes = figure.subplots(2 * blocks, columns, squeeze=False)
        for tile in axes.flat:
            tile.set_axis_off()
        for position, picture in enumerate(pictures):
            block, column = divmod(position, columns)
            index = int(clip.frame_indices[position])
            skeleton, heat = axes[2 * block, column], axes[2 * block + 1, column]
            skeleton.imshow(_with_skeleton(picture, explanation, index - prediction.start))
            heat.imshow(overlay_attention(picture, attention[position], clip.crop, (low, high)))
            skeleton.set_title(_moment(clip.timestamps[position], index), fontsize=8.5)
            heat.set_title(f"{100 * attention[position].sum():.0f} % of the attention", fontsize=8.5)
        bar = figure.colorbar(
            ScalarMappable(Normalize(1, high / low), _HEAT_MAP),
            ax=axes,
            location="bottom",
            aspect=50,
            shrink=0.5,
            pad=0.02,
        )
        bar.set_label("attention of a patch, in units of the mean patch", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)


def plot_occlusion(influence: JointInfluence, prediction: ClipPrediction, path: str | PathLike) -> None:
    """The skeleton with each joint's occlusion influence as its colour, and bars of parts and of the strongest joints.

    Args:
        influence: By `"occlusion"`.
        prediction: Made with `explain=True`.
        path: File to write, `.png`.
    """
    with _saved_figure((11.5, 4.3), path) as figure:
        picture, parts, joints = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        limit = max(float(np.abs(influence.values).max()), _MIN_OCCLUSION)
        norm = TwoSlopeNorm(0, -limit, limit)
        _plot_skeleton(picture, prediction, influence, norm, _SIGNED_MAP)
        _color_bar(figure, picture, norm, _SIGNED_MAP, "nats: blue against, orange for the label")
        _plot_bars(parts, influence.parts)
        parts.set_title("A whole part masked", loc="left", fontsize=9.5)
        _plot_bars(joints, _strongest(influence))
        joints.set_title("One joint masked", loc="left", fontsize=9.5)
        for axes in (parts, joints):
            axes.set_xlabel("loss of log-probability in nats", fontsize=8)


def plot_sensitivity(influence: JointInfluence, prediction: ClipPrediction, path: str | PathLike) -> None:
    """The skeleton with each joint's gradient as its colour, and the strongest joints over the pose frames.

    Args:
        influence: By `"gradient"`.
        prediction: Made with `explain=True`.
        path: File to write, `.png`.
    """
    assert influence.frame_values is not None
    names = list(_strongest(influence))
    order = [index for index in np.argsort(-influence.values, kind="stable") if influence.values[index] > 0]
    order = order[:_NUM_JOINTS]
    indices = explanation_of(prediction).clip.pose_frame_indices
    with _saved_figure((11.5, 4.3), path) as figure:
        picture, table = figure.subplots(1, 2, width_ratios=(1.25, 2))
        norm = Normalize(0, max(float(influence.values.max()), _MIN_SENSITIVITY))
        _plot_skeleton(picture, prediction, influence, norm, _STRENGTH_MAP)
        _color_bar(figure, picture, norm, _STRENGTH_MAP, "sum over the frames, nats per width of the crop")
        shown = influence.frame_values[:, order].T
        frame_norm = Normalize(0, max(float(shown.max(initial=0)), _MIN_SENSITIVITY / len(indices)))
        image = table.imshow(shown, _STRENGTH_MAP, aspect="auto", interpolation="nearest", norm=frame_norm)
        table.set_yticks(range(len(order)), names, fontsize=8)
        places = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), 9)).round().astype(int))
        table.set_xticks(places, [str(indices[place]) for place in places], fontsize=8)
        table.set_xlabel("frame of the video", fontsize=8)
        table.set_title("The strongest joints, frame by frame", loc="left", fontsize=9.5)
        table.tick_params(length=0)
        table.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=table, shrink=0.7, aspect=25, pad=0.02)
        bar.set_label("nats per width of the crop", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)


def plot_gate(gate: np.ndarray | None, curves: Sequence[GateCurve], path: str | PathLike) -> None:
    """The clip's gate as a histogram, and the gate over the time of the video, a curve per person.

    Args:
        gate: (D,) gate of a clip in [0, 1], or `None`.
        curves: As `clipmg_hf.explanation.gate_curves` returns them; may be empty if there is a `gate`.
        path: File to write, `.png`.
    """
    panels = ([] if gate is None else ["clip"]) + (["video"] if curves else [])
    width = {"clip": 5.0, "video": 7.5}
    with _saved_figure((sum(width[panel] for panel in panels), 3.2), path) as figure:
        all_axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=[width[panel] for panel in panels])[0]
        for panel, axes in zip(panels, all_axes, strict=True):
            if panel == "clip" and gate is not None:
                _plot_gate_histogram(axes, gate)
            else:
                _plot_gate_curves(axes, curves)


def display_name(keypoint: str) -> str:
    """A keypoint's name in words: `left_hand_8` is `left index fingertip`, `face_57` is `outer lips (face 57)`."""
    if match := re.fullmatch(r"(left|right)_hand_(\d+)", keypoint):
        side, number = match[1], int(match[2])
        if number == 0:
            return f"{side} root of the hand"
        finger, joint = _FINGERS[(number - 1) // 4], (number - 1) % 4 + 1
        return f"{side} {finger} tip".replace("finger tip", "fingertip") if joint == 4 else f"{side} {finger} {joint}"
    if match := re.fullmatch(r"face_(\d+)", keypoint):
        part = next(part for end, part in _FACE_PARTS if int(match[1]) < end)
        return f"{part} (face {match[1]})"
    return keypoint.replace("_", " ")


@contextmanager
def _saved_figure(size: tuple[float, float], path: str | PathLike) -> Iterator[Figure]:
    """A figure of `size` inches in the house style, which is written when the block ends well."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with complete_file(path, ".png") as partial:
            figure.savefig(partial, dpi=150)


def _pale_outside(frame: np.ndarray, crop: SquareCrop) -> np.ndarray:
    """Make what lies outside the crop pale."""
    pale = (255 - (255 - frame.astype(np.float32)) * 0.3).round().astype(np.uint8)
    rows = slice(max(crop.top, 0), max(crop.top + crop.size, 0))
    columns = slice(max(crop.left, 0), max(crop.left + crop.size, 0))
    pale[rows, columns] = frame[rows, columns]
    return pale


def _with_skeleton(picture: np.ndarray, explanation: ClipExplanation, position: int) -> np.ndarray:
    """Draw the subject's skeleton of a frame of the clip."""
    if explanation.keypoints is None or explanation.layout is None:
        return picture
    return draw_skeleton(picture, explanation.keypoints[position], explanation.layout)


def _moment(seconds: float, index: int) -> str:
    return f"frame {index}" if np.isnan(seconds) else f"frame {index}, {seconds:.2f} s"


def _plot_skeleton(
    axes: Axes, prediction: ClipPrediction, influence: JointInfluence, norm: Normalize, colors: Colormap
) -> None:
    """A pose frame near the middle that shows most joints, with their influence as colour and size."""
    explanation = explanation_of(prediction)
    clip, layout = explanation.clip, influence.layout
    num_seen = influence.seen.sum(axis=1)
    full = np.flatnonzero(num_seen >= 0.9 * num_seen.max())
    position = full[np.abs(full - len(num_seen) // 2).argmin()]
    index = clip.pose_frame_indices[position]
    frame = explanation.video.read(np.array([index]))[0]
    grey = np.repeat(frame.mean(axis=-1, keepdims=True), 3, axis=-1)
    axes.imshow((255 - (255 - grey) * 0.55).round().astype(np.uint8))
    points = clip.to_source(explanation.inputs["keypoints"][0, position, :, :2].numpy())
    shown = influence.seen[position].copy()
    is_face = face_points(layout)
    if is_blurred(prediction):
        shown &= ~is_face
    for first, second in layout.edges:
        if shown[first] and shown[second]:
            axes.plot(*points[[first, second]].T, color=_INK, linewidth=0.9, alpha=0.55)
    is_fine = is_face | np.array(["_hand_" in name for name in layout.keypoints])
    strength = np.abs(influence.values) / max(abs(norm.vmin or 0), abs(norm.vmax or 0))
    sizes = np.where(is_fine, 10, 26) + 90 * strength
    # The strongest on top.
    order = np.flatnonzero(shown)[np.argsort(strength[shown], kind="stable")]
    axes.scatter(
        points[order, 0],
        points[order, 1],
        s=sizes[order],
        c=influence.values[order],
        cmap=colors,
        norm=norm,
        edgecolors=_INK,
        linewidths=0.6,
        zorder=3,
    )
    axes.set_xlim(max(clip.crop.left, 0) - 0.5, min(clip.crop.left + clip.crop.size, clip.width) - 0.5)
    axes.set_ylim(min(clip.crop.top + clip.crop.size, clip.height) - 0.5, max(clip.crop.top, 0) - 0.5)
    axes.set_axis_off()
    axes.set_title(f"frame {index}", loc="left", fontsize=9.5)


def _color_bar(figure: Figure, axes: Axes, norm: Normalize, colors: Colormap, label: str) -> None:
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=axes, location="bottom", aspect=35, shrink=0.85, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _strongest(influence: JointInfluence) -> dict[str, float]:
    """Names and values of the strongest joints, strongest first."""
    order = np.argsort(-np.abs(influence.values), kind="stable")[:_NUM_JOINTS]
    return {
        display_name(influence.layout.keypoints[index]): float(influence.values[index])
        for index in order
        if influence.values[index] != 0
    }


def _plot_bars(axes: Axes, values: dict[str, float]) -> None:
    """Horizontal bars, the first on top, with their values."""
    places, numbers = range(len(values)), list(values.values())
    axes.barh(places, numbers, 0.68, color=[_PRO if number > 0 else _CONTRA for number in numbers])
    axes.set_yticks(places, list(values), fontsize=8)
    axes.set_ylim(max(len(values), 4) - 0.4, -0.6)
    axes.axvline(0, color=_GREY, linewidth=0.8)
    low, high = min(0, *numbers, 0), max(_MIN_OCCLUSION, *numbers, 0)
    room = 0.22 * (high - low)
    axes.set_xlim(low - (room if low < 0 else 0), high + room)
    for place, number in zip(places, numbers, strict=True):
        text = f" {number:.2f} " if abs(number) >= 0.1 else f" {number:.3f} "
        axes.text(number, place, text, ha="left" if number >= 0 else "right", va="center", fontsize=7.5, color=_GREY)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color=_LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines["left"].set_visible(False)


def _plot_gate_histogram(axes: Axes, gate: np.ndarray) -> None:
    limits, counts = gate_histogram(gate)
    middles = (limits[1:] + limits[:-1]) / 2
    pose, rgb = np.array(POSE_COLOR) / 255, np.array(RGB_COLOR) / 255
    axes.bar(middles, counts, 0.92 * np.diff(limits), color=[pose + (rgb - pose) * middle for middle in middles])
    axes.axvline(gate.mean(), color=_INK, linewidth=1.2)
    axes.text(
        gate.mean(), 1.0, f" mean {gate.mean():.2f}", transform=axes.get_xaxis_transform(), va="bottom", fontsize=8
    )
    axes.set_xlim(0, 1)
    axes.set_xticks((0, 0.5, 1), ("0\nall pose", "0.5", "1\nall pictures"), fontsize=8)
    axes.set_ylabel("dimensions of the embedding", fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title("Gate of this clip", loc="left", fontsize=9.5, pad=14)


def _plot_gate_curves(axes: Axes, curves: Sequence[GateCurve]) -> None:
    for position, curve in enumerate(curves):
        color = CURVE_COLORS[position % len(CURVE_COLORS)]
        marker = "o" if len(curve.seconds) < 40 else ""
        axes.plot(curve.seconds, curve.gate, color=color, linewidth=1.4, marker=marker, ms=3, clip_on=False)
        axes.plot([], [], color=color, label=f"person {curve.person}")
    if len(curves) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, handlelength=1.2, fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.5, 1), ("all pose", "50 %", "all pictures"), fontsize=8)
    axes.set_xlabel("seconds, the middle of each window", fontsize=8)
    axes.grid(color=_LINES, linewidth=0.8)
    axes.set_title("Mean gate over the video", loc="left", fontsize=9.5, pad=14)


__all__ = [
    "display_name",
    "plot_attention",
    "plot_gate",
    "plot_occlusion",
    "plot_sensitivity",
]
