"""Drawings of predictions, learning curves and confusion matrices. Needs the extra: pip install "clipmg_hf[viz]".

Images are uint8 (H, W, 3) RGB; points are x, y in pixels with integers at pixel centres. Files appear under their name
only when they are complete.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf.explanation import explanation_of
from clipmg_hf.files import complete_file
from clipmg_hf.inference import ClipExplanation, ClipPrediction
from clipmg_hf.pose.heads import face_points
from clipmg_hf.processing import KeypointLayout, SquareCrop, VideoInfo, get_layout, valid_keypoints
from clipmg_hf.processing.geometry_clipmg import crop_and_resize
from clipmg_hf.text import describe_interval
from clipmg_hf.video_writing import write_video


try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    from PIL import Image, ImageDraw, ImageFont
except ImportError as error:
    raise ImportError(
        f'clipmg_hf.visualization needs matplotlib and Pillow ({error}): pip install "clipmg_hf[viz]"'
    ) from error


Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

LEFT_COLOR: Color = (255, 150, 30)
RIGHT_COLOR: Color = (40, 170, 255)
MIDDLE_COLOR: Color = (245, 245, 245)
RGB_COLOR: Color = (94, 79, 162)
POSE_COLOR: Color = (47, 158, 128)
INK: Color = (28, 30, 36)
GREY: Color = (110, 115, 125)
PAPER: Color = (255, 255, 255)
# The dark end of the map would only darken the picture.
_HEAT_COLORS = (matplotlib.colormaps["inferno"](np.linspace(0.35, 1, 256))[:, :3] * 255).astype(np.float32)
_HEAT_OPACITY = 0.7
# Sizes of the contact sheet in pixels.
_TILE, _GAP, _MARGIN, _ROW_LABELS, _MAX_COLUMNS = 208, 6, 28, 132, 8
_SHEET_HEADER, _COLUMN_HEADER = 88, 26
_MIN_SHEET_WIDTH = 980
_MIN_VIDEO_WIDTH = 640
PLOT_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#6e737d",
    "axes.labelcolor": "#1c1e24",
    "xtick.color": "#6e737d",
    "ytick.color": "#6e737d",
    "xtick.labelcolor": "#1c1e24",
    "ytick.labelcolor": "#1c1e24",
    "legend.frameon": False,
}
CURVE_COLORS = ("#2b6cb0", "#dd6b20", "#2f9e80", "#5e4fa2", "#c53030", "#718096")
_NOT_METRICS = ("loss", "runtime", "per_second", "time")


def draw_skeleton(
    image: np.ndarray, points: np.ndarray, layout: KeypointLayout | str, color: Color | None = None
) -> np.ndarray:
    """Draw one person's skeleton: the person's left orange, right blue, the middle white; or all of it in one colour.

    Missing points and the edges that end in them are left out. Opacity follows the confidence, thickness the size of
    the image; hands and face are drawn finer.

    Args:
        image: (H, W, 3) uint8.
        points: (K, 3) x, y in pixels of `image` and confidence, 0 where missing; points may lie outside.
        layout: Layout of `points`, or its name.
        color: Red, green and blue in [0, 255] of the whole skeleton, which tells people apart instead of sides.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: A shape or type that is not as described.
    """
    layout = get_layout(layout) if isinstance(layout, str) else layout
    _check_image(image)
    if points.shape != (layout.num_keypoints, 3):
        raise ValueError(
            f"points have the shape {points.shape}; layout {layout.name!r} needs ({layout.num_keypoints}, 3)."
        )
    # In small pictures, lines in proportion would vanish.
    unit = 1 + 0.8 * max(image.shape[:2]) / 100
    region = _region_of(points[valid_keypoints(points), :2], 2 * unit, image.shape)
    if region is None:
        return image.copy()
    left, top, right, bottom = region
    # Lines of large skeletons are thick enough to look smooth with less.
    factor = 4 if max(right - left, bottom - top) <= 300 else 2
    layer = Image.new("RGBA", ((right - left) * factor, (bottom - top) * factor))
    shifted = np.array(points, dtype=np.float64)
    shifted[:, :2] = (points[:, :2] + 0.5 - (left, top)) * factor
    shifted[~valid_keypoints(points)] = 0
    _paint_skeleton(ImageDraw.Draw(layer), shifted, layout, unit * factor, color)
    layer = layer.reduce(factor)
    drawn = image.copy()
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    part.paste(layer, mask=layer)
    drawn[top:bottom, left:right] = np.asarray(part)
    return drawn


def attention_scale(attention: np.ndarray) -> tuple[float, float]:
    """The values of (T, H_p, W_p) that are drawn transparent and brightest, for all frames of a clip.

    What the mean patch gets, or less, is transparent: attention that is spread evenly points at nothing. The brightest
    is the largest value, but at least twice the mean, so that faint differences stay faint.
    """
    mean = float(attention.mean())
    return mean, max(float(attention.max()), 2 * mean)


def overlay_attention(
    image: np.ndarray, attention: np.ndarray, crop: SquareCrop, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Lay the attention of one frame over its source frame.

    Args:
        image: (H, W, 3) uint8, the source frame.
        attention: (H_p, W_p) attention over the patches of the processed frame.
        crop: The square of the source frame that was processed.
        scale: Values that are transparent and brightest; by default the `attention_scale` of this frame alone.

    Returns:
        (H, W, 3) uint8, a new array.
    """
    _check_image(image)
    low, high = attention_scale(attention[None]) if scale is None else scale
    patches = Image.fromarray(np.asarray(attention[:, ::-1] if crop.flipped else attention, dtype=np.float32))
    heat = np.asarray(patches.resize((crop.size, crop.size), Image.Resampling.BICUBIC))
    height, width = image.shape[:2]
    top, bottom = max(crop.top, 0), min(crop.top + crop.size, height)
    left, right = max(crop.left, 0), min(crop.left + crop.size, width)
    heat = heat[top - crop.top : bottom - crop.top, left - crop.left : right - crop.left]
    heat = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
    colors = _HEAT_COLORS[(heat * 255).astype(np.uint8)]
    opacity = _HEAT_OPACITY * _heat_strength(heat)[..., None]
    drawn = image.copy()
    part = drawn[top:bottom, left:right]
    drawn[top:bottom, left:right] = (part + (colors - part) * opacity).round().astype(np.uint8)
    return drawn


def render_overlay(prediction: ClipPrediction) -> list[np.ndarray]:
    """Draw attention, skeleton and crop over the T sampled source frames, (H, W, 3) uint8 each.

    Raises:
        ValueError: The prediction was made without `explain=True`.
    """
    explanation = explanation_of(prediction)
    indices = explanation.clip.frame_indices
    frames = explanation.video.read(indices)
    return [
        _draw_over_frame(prediction, explanation, frame, int(index))
        for frame, index in zip(frames, indices, strict=True)
    ]


def write_overlay_video(prediction: ClipPrediction, path: str | PathLike) -> None:
    """Write every frame of the clip with its overlay as a video that browsers play (H.264, MP4).

    Each frame shows its own skeleton and the attention of the nearest sampled frame; a band below it the label, its
    score and the gate. Frames keep their times (25 frames per second for frames in memory). Small videos are enlarged.

    Args:
        prediction: Made with `explain=True`.
        path: File to write, `.mp4`; replaced if it exists.

    Raises:
        ValueError: The prediction was made without `explain=True`, or another suffix.
        FileNotFoundError: The folder does not exist.
    """
    explanation = explanation_of(prediction)
    info = explanation.video.info
    times = info.timestamps[prediction.start : prediction.end]
    if np.isnan(times).any():
        times = np.arange(prediction.end - prediction.start) / 25
    pictures = zip(times - times[0], _overlay_frames(prediction, explanation), strict=True)
    write_video(path, pictures, rate=(len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 25.0)


def write_overlay_png(prediction: ClipPrediction, path: str | PathLike) -> None:
    """Write a contact sheet: the T sampled frames as the model saw them, with skeleton and attention in rows below.

    Rows without content (no keypoints, no semantic attention) are left out.

    Args:
        prediction: Made with `explain=True`.
        path: File to write, `.png`; replaced if it exists.

    Raises:
        ValueError: The prediction was made without `explain=True`, or another suffix.
        FileNotFoundError: The folder does not exist.
    """
    explanation = explanation_of(prediction)
    rows = _sheet_rows(prediction, explanation)
    num_frames = len(explanation.clip.frame_indices)
    num_columns = min(num_frames, _MAX_COLUMNS)
    num_blocks = math.ceil(num_frames / num_columns)
    block_height = _COLUMN_HEADER + len(rows) * (_TILE + _GAP) + _GAP
    width = max(2 * _MARGIN + _ROW_LABELS + num_columns * (_TILE + _GAP), _MIN_SHEET_WIDTH)
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _SHEET_HEADER + num_blocks * block_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_sheet_header(draw, prediction, width)
    for position in range(num_frames):
        block, column = divmod(position, num_columns)
        left = _MARGIN + _ROW_LABELS + column * (_TILE + _GAP)
        top = _MARGIN + _SHEET_HEADER + block * block_height
        draw.text(
            (left + _TILE / 2, top),
            _clock(prediction, int(explanation.clip.frame_indices[position])),
            fill=GREY,
            font=text_font(15),
            anchor="ma",
        )
        for row, (name, tiles) in enumerate(rows.items()):
            row_top = top + _COLUMN_HEADER + row * (_TILE + _GAP)
            sheet.paste(Image.fromarray(tiles[position]), (left, row_top))
            if column == 0:
                _draw_row_label(draw, name, row_top, explanation)
    with complete_file(path, ".png") as partial:
        sheet.save(partial, format="PNG")


def plot_learning_curves(log_history: Sequence[Mapping[str, Any]], path: str | PathLike) -> None:
    """Plot a training run: losses, validation metrics and learning rate over the steps.

    Args:
        log_history: `trainer.state.log_history`; panels without an entry are left out.
        path: File to write, `.png`; replaced if it exists.

    Raises:
        ValueError: No entry can be plotted, or another suffix.
        FileNotFoundError: The folder does not exist.
    """
    panels = {title: series for title, series in _curves(log_history).items() if series}
    if not panels:
        raise ValueError(f"Nothing to plot in {len(log_history)} log entries; expected 'loss', 'eval_*' or others.")
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(4.6 * len(panels), 3.6), layout="constrained")
        for axes, (title, series) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            _plot_series(axes, series)
            axes.set_title(title, loc="left")
            axes.set_xlabel("step")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
        with complete_file(path, ".png") as partial:
            figure.savefig(partial, dpi=150)


def plot_confusion_matrix(matrix: np.ndarray, labels: Sequence[str], path: str | PathLike) -> None:
    """Plot counts, coloured by their share of the row.

    Args:
        matrix: (C, C) counts; rows are true classes, columns predicted ones.
        labels: C names.
        path: File to write, `.png`; replaced if it exists.

    Raises:
        ValueError: A shape that is not as described, a negative count, or another suffix.
        FileNotFoundError: The folder does not exist.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(labels), len(labels)) or not matrix.size or (matrix < 0).any():
        raise ValueError(
            f"matrix has the shape {matrix.shape} and a minimum of {matrix.min(initial=0):g}; expected counts of at "
            f"least 0, ({len(labels)}, {len(labels)}) for {len(labels)} labels."
        )
    side = len(labels) * (0.38 if len(labels) > 12 else 0.5)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(side + 5.2, side + 2.9), layout="constrained")
        axes = figure.subplots()
        totals = matrix.sum(axis=1, keepdims=True)
        shares = matrix / np.maximum(totals, 1)
        picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            if matrix[row, column]:
                color = "white" if share > 0.55 else "#1c1e24"
                axes.text(column, row, f"{matrix[row, column]:g}", ha="center", va="center", color=color, fontsize=8)
        _label_matrix(axes, labels, totals[:, 0])
        figure.colorbar(picture, ax=axes, shrink=0.6, label="share of the true class", aspect=30, pad=0.02)
        with complete_file(path, ".png") as partial:
            figure.savefig(partial, dpi=150)


def _curves(log_history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[list, list]]]:
    """Log entries -> panel title -> name -> (steps, values)."""
    panels: dict[str, dict[str, tuple[list, list]]] = {"Loss": {}, "Validation": {}, "Learning rate": {}}
    for entry in log_history:
        for key, value in entry.items():
            if key in ("loss", "eval_loss"):
                panel, name = "Loss", "training" if key == "loss" else "validation"
            elif key == "learning_rate":
                panel, name = "Learning rate", "learning rate"
            elif key.startswith("eval_") and not key.endswith(_NOT_METRICS) and isinstance(value, int | float):
                panel, name = "Validation", key.removeprefix("eval_").replace("_", " ")
            else:
                continue
            steps, values = panels[panel].setdefault(name, ([], []))
            # After training the best model may be evaluated again, under the number of the last step.
            if entry["step"] not in steps[-1:]:
                steps.append(entry["step"])
                values.append(value)
    return panels


def _plot_series(axes: Axes, series: dict[str, tuple[list, list]]) -> None:
    for color, (name, (steps, values)) in zip(
        (CURVE_COLORS[index % len(CURVE_COLORS)] for index in range(len(series))), series.items(), strict=True
    ):
        axes.plot(steps, values, color=color, label=name, linewidth=1.6, marker="o" if len(steps) < 40 else "", ms=3)
    axes.grid(color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(series) > 1:
        # Below the axes: no curve can run through it.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, handlelength=1.2)


def _label_matrix(axes: Axes, labels: Sequence[str], totals: np.ndarray) -> None:
    columns, rows = ([shorten(label, limit) for label in labels] for limit in (36, 52))
    places = range(len(labels))
    axes.set_xticks(places, columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, [f"{name} ({total:g})" for name, total in zip(rows, totals, strict=True)], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (clips)")
    axes.set_xticks(np.arange(-0.5, len(labels)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(labels)), minor=True)
    axes.grid(which="minor", color="#eceef1", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def shorten(text: str, limit: int) -> str:
    """Cut `text` to at most `limit` characters, with an ellipsis where something is cut off."""
    return text if len(text) <= limit else text[: limit - 1].rstrip(" ,") + "…"


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.dtype} of shape {image.shape}; expected uint8 of shape (H, W, 3).")


def _region_of(points: np.ndarray, margin: float, shape: tuple[int, ...]) -> Box | None:
    """Left, top, right, bottom of the pixels around `points` that lie in the image; `None` if none do."""
    if not len(points):
        return None
    low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin) + 1
    left, top = (int(value) for value in np.maximum(low, 0))
    right, bottom = (int(value) for value in np.minimum(high, (shape[1], shape[0])))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _heat_strength(heat: Any) -> Any:
    """Opacity in [0, 1] of heat in [0, 1]: rises fast, but without an edge where it begins."""
    return 1 - (1 - heat) ** 2


def _paint_skeleton(
    draw: ImageDraw.ImageDraw, points: np.ndarray, layout: KeypointLayout, unit: float, color: Color | None
) -> None:
    """Paint points (K, 3) in pixels of the layer: a dark rim below everything, then edges, then points."""
    is_face = face_points(layout)
    is_fine = is_face | np.array(["_hand_" in name for name in layout.keypoints])
    radii = unit * np.where(is_face, 0.2, np.where(is_fine, 0.32, 0.75))
    colors = [color or _side_color(name) for name in layout.keypoints]
    opacity = 0.3 + 0.7 * points[:, 2].clip(0, 1)
    rim = 0.18 * unit
    edges = []
    for first, second in layout.edges:
        if points[first, 2] > 0 and points[second, 2] > 0:
            side = colors[first] if colors[first] != MIDDLE_COLOR else colors[second]
            width = unit * (0.32 if is_fine[first] or is_fine[second] else 0.7)
            edges.append((points[first, :2], points[second, :2], side, min(opacity[first], opacity[second]), width))
    dots = [
        (points[index, :2], colors[index], opacity[index], radii[index]) for index in np.flatnonzero(points[:, 2] > 0)
    ]
    for start, end, _, alpha, width in edges:
        _paint_line(draw, start, end, width + 2 * rim, (*INK, round(150 * alpha)))
    for center, _, alpha, radius in dots:
        _paint_dot(draw, center, radius + rim, (*INK, round(150 * alpha)))
    for start, end, side, alpha, width in edges:
        _paint_line(draw, start, end, width, (*side, round(255 * alpha)))
    for center, side, alpha, radius in dots:
        _paint_dot(draw, center, radius, (*side, round(255 * alpha)))


def _paint_line(
    draw: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, width: float, color: tuple[int, ...]
) -> None:
    draw.line((*start, *end), fill=color, width=max(1, round(width)))
    for point in (start, end):
        _paint_dot(draw, point, width / 2, color)


def _paint_dot(draw: ImageDraw.ImageDraw, center: np.ndarray, radius: float, color: tuple[int, ...]) -> None:
    draw.ellipse((*(center - radius), *(center + radius)), fill=color)


def _side_color(name: str) -> Color:
    return {"left": LEFT_COLOR, "right": RIGHT_COLOR}.get(name.partition("_")[0], MIDDLE_COLOR)


def _mean_attention(explanation: ClipExplanation) -> np.ndarray | None:
    """(heads, T, H_p, W_p) -> (T, H_p, W_p)."""
    attention = explanation.semantic_attention
    return None if attention is None else attention.mean(axis=0)


def _draw_over_frame(
    prediction: ClipPrediction, explanation: ClipExplanation, frame: np.ndarray, index: int
) -> np.ndarray:
    """Attention of the nearest sampled frame, then the crop, then the skeleton of frame `index` itself."""
    clip = explanation.clip
    attention = _mean_attention(explanation)
    if attention is not None:
        nearest = int(np.abs(clip.frame_indices - index).argmin())
        frame = overlay_attention(frame, attention[nearest], clip.crop, attention_scale(attention))
    frame = _draw_crop(frame, clip.crop)
    if explanation.keypoints is not None and explanation.layout is not None:
        frame = draw_skeleton(frame, explanation.keypoints[index - prediction.start], explanation.layout)
    return frame


def _draw_crop(frame: np.ndarray, crop: SquareCrop) -> np.ndarray:
    """Draw the sides of the crop that lie inside the frame; nothing if it holds the whole frame."""
    height, width = frame.shape[:2]
    if max(crop.left, crop.top) <= 0 and crop.left + crop.size >= width and crop.top + crop.size >= height:
        return frame
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    thickness = max(1, round(max(height, width) / 400))
    box = (crop.left, crop.top, crop.left + crop.size - 1, crop.top + crop.size - 1)
    draw.rectangle(
        tuple(v + s * thickness for v, s in zip(box, (-1, -1, 1, 1), strict=True)), None, INK, 3 * thickness
    )
    draw.rectangle(box, None, PAPER, thickness)
    return np.array(image)


def _video_size(info: VideoInfo) -> tuple[int, int]:
    """Even width and height of the picture in the overlay video, without the band."""
    factor = math.ceil(_MIN_VIDEO_WIDTH / info.width)
    return max(2, info.width * factor // 2 * 2), max(2, info.height * factor // 2 * 2)


def _band_height(width: int) -> int:
    return max(2, round(width * 0.075 / 2) * 2)


def _overlay_frames(prediction: ClipPrediction, explanation: ClipExplanation) -> Iterator[np.ndarray]:
    """Yield the pictures of the overlay video, all of one even size."""
    size = _video_size(explanation.video.info)
    for index, frame in explanation.video.iter_frames(prediction.start, prediction.end):
        picture = Image.fromarray(_draw_over_frame(prediction, explanation, frame, index))
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        yield np.concatenate([np.asarray(picture), _band(prediction, index, size[0])])


def _band(prediction: ClipPrediction, index: int, width: int) -> np.ndarray:
    """The band below a frame, uint8 (height, width, 3): label, score and time on the left, the gate on the right."""
    height = _band_height(width)
    margin, gate_width = round(0.22 * height), round(0.3 * width)
    band = Image.new("RGB", (width, height), INK)
    draw = ImageDraw.Draw(band)
    text_width = width - gate_width - 4 * margin
    font, text = fit_text(prediction.label, 0.36 * height, text_width, bold=True)
    draw.text((margin, 0.32 * height), text, fill=PAPER, font=font, anchor="lm")
    detail = f"{100 * prediction.score:.1f} %   {_clock(prediction, index)}"
    font, text = fit_text(detail, 0.27 * height, text_width)
    draw.text((margin, 0.72 * height), text, fill=(190, 195, 205), font=font, anchor="lm")
    _draw_gate(draw, prediction, (width - margin - gate_width, margin, width - margin, height - margin), PAPER)
    return np.asarray(band)


def _clock(prediction: ClipPrediction, index: int) -> str:
    timestamps = explanation_of(prediction).video.info.timestamps
    return f"frame {index}" if np.isnan(timestamps[index]) else f"{timestamps[index]:.2f} s"


def _draw_gate(draw: ImageDraw.ImageDraw, prediction: ClipPrediction, box: Box, ink: Color) -> None:
    """Draw the mean gate as a bar that pose fills from the left and RGB from the right; or name the only stream."""
    left, top, right, bottom = box
    middle = (top + bottom) / 2
    gate = prediction.gate_mean
    if gate is None or not prediction.pose_used:
        streams = "RGB" if not prediction.pose_used else "RGB and pose" if prediction.rgb_used else "pose"
        font, text = fit_text(f"{streams}{'' if ' and ' in streams else ' only'}", 0.5 * (bottom - top), right - left)
        draw.text((right, middle), text, fill=ink, font=font, anchor="rm")
        return
    size = min(0.42 * (bottom - top), (right - left) / 15)
    draw.text((left, top), f"pose {100 - round(100 * gate)} %", fill=ink, font=text_font(size), anchor="lt")
    draw.text((right, top), f"RGB {round(100 * gate)} %", fill=ink, font=text_font(size), anchor="rt")
    if right - left > 14 * size:
        draw.text(((left + right) / 2, top), "gate", fill=GREY, font=text_font(size), anchor="mt")
    split = left + (right - left) * (1 - gate)
    draw.rectangle((left, middle + 0.14 * (bottom - top), right, bottom), fill=RGB_COLOR)
    draw.rectangle((left, middle + 0.14 * (bottom - top), split, bottom), fill=POSE_COLOR)


def _sheet_rows(prediction: ClipPrediction, explanation: ClipExplanation) -> dict[str, list[np.ndarray]]:
    """The rows of a contact sheet: name -> T tiles (_TILE, _TILE, 3)."""
    clip = explanation.clip
    frames = explanation.video.read(clip.frame_indices)
    # (T, 3, H, W) -> (T, H, W, 3)
    tiles = [
        np.ascontiguousarray(tile) for tile in crop_and_resize(frames, clip.crop, _TILE).permute(0, 2, 3, 1).numpy()
    ]
    rows = {"Source": tiles}
    if explanation.keypoints is not None and explanation.layout is not None:
        rows_of_points = explanation.keypoints[clip.frame_indices - prediction.start]
        rows["Skeleton"] = [
            draw_skeleton(tile, _to_tile(points, clip.crop), explanation.layout)
            for tile, points in zip(tiles, rows_of_points, strict=True)
        ]
    attention = _mean_attention(explanation)
    if attention is not None:
        whole, scale = SquareCrop(0, 0, _TILE), attention_scale(attention)
        rows["Attention"] = [
            overlay_attention(tile, heat, whole, scale) for tile, heat in zip(tiles, attention, strict=True)
        ]
    return rows


def _to_tile(points: np.ndarray, crop: SquareCrop) -> np.ndarray:
    """Map points (K, 3) from source pixels to pixels of a tile; missing points stay (0, 0, 0)."""
    return np.concatenate([crop.to_processed(points[:, :2]) * _TILE - 0.5, points[:, 2:]], axis=1) * (
        points[:, 2:] > 0
    )


def _draw_sheet_header(draw: ImageDraw.ImageDraw, prediction: ClipPrediction, width: int) -> None:
    """Label and score with the source below them on the left, the gate on the right."""
    gate_width = 300
    score = f"   {100 * prediction.score:.1f} %"
    text_width = width - 2 * _MARGIN - gate_width - 40
    font, text = fit_text(prediction.label, 30, text_width - text_font(30).getlength(score), bold=True)
    draw.text((_MARGIN, _MARGIN + 30), text, fill=INK, font=font, anchor="ls")
    draw.text((_MARGIN + font.getlength(text), _MARGIN + 30), score, fill=GREY, font=text_font(30), anchor="ls")
    font, text = fit_text(f"{Path(prediction.video).name}: {describe_interval(prediction)}", 16, text_width)
    draw.text((_MARGIN, _MARGIN + 58), text, fill=GREY, font=font, anchor="ls")
    right = width - _MARGIN - _GAP
    _draw_gate(draw, prediction, (right - gate_width, _MARGIN + 4, right, _MARGIN + 52), INK)


def _draw_row_label(draw: ImageDraw.ImageDraw, name: str, top: int, explanation: ClipExplanation) -> None:
    """Name of a row, with the key to its colours."""
    draw.text((_MARGIN, top + 2), name, fill=INK, font=text_font(18, bold=True), anchor="lt")
    if name == "Source":
        draw.text((_MARGIN, top + 30), "the model's crop", fill=GREY, font=text_font(13), anchor="lt")
    if name == "Skeleton":
        for line, (side, color) in enumerate((("left", LEFT_COLOR), ("right", RIGHT_COLOR))):
            middle = top + 37 + 22 * line
            draw.text((_MARGIN, middle), "●", fill=color, font=text_font(16), anchor="lm")
            draw.text((_MARGIN + 19, middle), f"person's {side}", fill=GREY, font=text_font(13), anchor="lm")
    attention = _mean_attention(explanation)
    if name == "Attention" and attention is not None:
        low, high = attention_scale(attention)
        width = _ROW_LABELS - 28
        for x in range(width):
            strength = x / (width - 1)
            color = PAPER + (_HEAT_COLORS[round(strength * 255)] - PAPER) * _heat_strength(strength)
            draw.line((_MARGIN + x, top + 32, _MARGIN + x, top + 43), fill=tuple(int(value) for value in color))
        for text, x, anchor in (("1x", _MARGIN, "lt"), (f"{high / low:.1f}x", _MARGIN + width, "rt")):
            draw.text((x, top + 50), text, fill=GREY, font=text_font(13), anchor=anchor)
        draw.text((_MARGIN, top + 70), "the mean patch", fill=GREY, font=text_font(13), anchor="lt")


@functools.lru_cache(maxsize=64)
def text_font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), max(size, 6))


def fit_text(text: str, size: float, width: float, bold: bool = False) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font and the text that fit `width` pixels: down to three quarters of `size`, then with an ellipsis."""
    font = text_font(max(0.75 * size, min(size, size * width / max(text_font(size, bold).getlength(text), 1))), bold)
    if font.getlength(text) <= width:
        return font, text
    while text and font.getlength(text + "…") > width:
        text = text[:-1].rstrip()
    return font, text + "…"


__all__ = [
    "CURVE_COLORS",
    "PLOT_STYLE",
    "attention_scale",
    "draw_skeleton",
    "fit_text",
    "overlay_attention",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "render_overlay",
    "shorten",
    "text_font",
    "write_overlay_png",
    "write_overlay_video",
]
