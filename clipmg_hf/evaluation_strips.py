"""Pictures of the clips that an evaluation found hardest, and of some right ones, with skeleton and attention.

Needs the extra: pip install "clipmg_hf[viz]". N is the number of clips of the split.
"""

import dataclasses
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.data.statistics import keypoints_of
from clipmg_hf.evaluation import EvaluationOptions
from clipmg_hf.evaluation_results import STRIPS_FILE, STRIPS_FOLDER, write_table
from clipmg_hf.files import complete_file
from clipmg_hf.html_page import file_name
from clipmg_hf.inference import InferenceModel, predict_clip
from clipmg_hf.metrics import log_softmax
from clipmg_hf.processing import CLIPMGProcessor, get_layout
from clipmg_hf.score_files import Scores


try:
    from PIL import Image

    from clipmg_hf.visualization import write_overlay_png
except ImportError as error:
    raise ImportError(
        f"strips of clips (--num_hardest, --num_right) need matplotlib and Pillow ({error}): "
        'pip install "clipmg_hf[viz]"'
    ) from error


_SCALAR_COLUMNS = ("clip_id", "video", "start_frame", "end_frame", "video_start_frame", "width", "height")
_CANVAS_GREY = 150
# With a palette a sheet of photographs takes a third of the bytes, and looks the same.
_NUM_COLORS = 256


def choose_clips(scores: Scores, num_hardest: int, num_right: int) -> list[tuple[str, int]]:
    """Choose the clips to draw: kind and index of each.

    Returns:
        `list[tuple[str, int]]`: `"hardest"`: those of the highest loss, in this order. `"right"`: clips predicted
        right, the surest of each class before any class comes again. Without labels, `"least sure"`: those of the
        lowest probability.
    """
    log_probabilities = log_softmax(scores.logits)
    labelled = np.flatnonzero(scores.labels != HIDDEN_LABEL)
    if not len(labelled):
        order = np.argsort(log_probabilities.max(axis=1), kind="stable")
        return [("least sure", int(index)) for index in order[:num_hardest]]
    labels = scores.labels[labelled]
    losses = -log_probabilities[labelled, labels]
    hardest = labelled[np.argsort(-losses, kind="stable")][:num_hardest]
    is_right = scores.logits[labelled].argmax(axis=1) == labels
    right = labelled[is_right][np.argsort(losses[is_right], kind="stable")]
    seen: dict[int, int] = {}
    turns = []
    for index in right:
        turns.append(seen.setdefault(int(scores.labels[index]), 0))
        seen[int(scores.labels[index])] += 1
    right = right[np.argsort(np.array(turns, int), kind="stable")][:num_right]
    return [("hardest", int(index)) for index in hardest] + [("right", int(index)) for index in right]


def write_strips(
    folder: str | PathLike,
    model: InferenceModel,
    processor: CLIPMGProcessor,
    rows: datasets.Dataset,
    scores: Scores,
    options: EvaluationOptions | None = None,
    *,
    num_hardest: int = 8,
    num_right: int = 4,
    show_progress: bool = True,
) -> list[dict[str, Any]]:
    """Draw clips to `strips/`, and list them in `strips.csv`.

    A picture shows the first view, whose score may differ from the average of several.

    Args:
        folder (`str` or `PathLike`): That of the evaluation.
        model, processor, rows, options: As [`evaluate_checkpoint`] took them.
        scores ([`Scores`]): What it found.
        num_hardest, num_right (`int`): Clips of each kind; see [`choose_clips`].
        show_progress (`bool`, defaults to `True`): With a progress bar.

    Returns:
        `list[dict]`: `kind`, `clip_id`, and `file`, relative to the folder, or `problem`, why there is none.
    """
    folder, options = Path(folder), options or EvaluationOptions()
    chosen = choose_clips(scores, num_hardest, num_right)
    entries: list[dict[str, Any]] = []
    for kind, index in tqdm(chosen, desc="Draw clips", unit="clip", disable=not show_progress):
        clip_id = scores.clip_ids[index]
        file, problem = f"{STRIPS_FOLDER}/{file_name(clip_id)}.png", None
        (folder / STRIPS_FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            _draw_clip(folder / file, model, processor, rows, index, options)
        except ValueError as error:
            problem = str(error)
        entries.append({"kind": kind, "clip_id": clip_id, "file": None if problem else file, "problem": problem})
    if entries:
        write_table(folder / STRIPS_FILE, entries)
    return entries


def _draw_clip(
    path: Path,
    model: InferenceModel,
    processor: CLIPMGProcessor,
    rows: datasets.Dataset,
    index: int,
    options: EvaluationOptions,
) -> None:
    """Draw one clip as the model saw it; a ValueError says why it cannot be drawn."""
    table = rows.with_format("arrow")[index : index + 1]
    row = {name: table[name][0].as_py() for name in _SCALAR_COLUMNS}
    keypoints, layout = (None, None) if options.modality == "rgb" else _read_keypoints(table)
    video, offset = row["video"], row["start_frame"] - (row["video_start_frame"] or 0)
    if video is None or options.modality == "pose":
        if model.config.uses_vision:
            raise ValueError("no frames reached the model, and there is nothing to draw them from.")
        video, offset = _blank_frames(row, keypoints), 0
    elif isinstance(video, dict):
        video = video["path"] if video["bytes"] is None else video["bytes"]
    prediction = predict_clip(
        model,
        processor,
        video,
        keypoints,
        start=offset,
        end=offset + row["end_frame"] - row["start_frame"] + 1,
        missing_keypoints=options.missing_keypoints,
        explain=True,
        source_layout=layout,
    )
    with complete_file(path, ".png") as partial:
        sheet = partial.with_name("sheet.png")
        write_overlay_png(dataclasses.replace(prediction, video=row["clip_id"]), sheet)
        Image.open(sheet).quantize(_NUM_COLORS, kmeans=2).save(partial, format="PNG", optimize=True)


def _read_keypoints(table: pa.Table) -> tuple[np.ndarray | None, str | None]:
    """Keypoints (frames, K, 3) float32 of a single row, missing ones (0, 0, 0), and their layout."""
    if "keypoints" not in table.column_names or table["keypoints"].null_count:
        return None, None
    layout = table["keypoint_layout"][0].as_py()
    points, valid, _ = keypoints_of(table, get_layout(layout))
    return np.where(valid[..., None], points, 0).astype(np.float32), layout


def _blank_frames(row: dict[str, Any], keypoints: np.ndarray | None) -> np.ndarray:
    """Grey frames of the video's size, or of one that holds all points, for a model that reads keypoints alone."""
    if keypoints is None:
        raise ValueError("the clip has no keypoints.")
    width, height = row["width"], row["height"]
    if width is None or height is None:
        width, height = (max(16, int(np.ceil(value)) + 1) for value in keypoints[..., :2].max(axis=(0, 1)))
    return np.full((len(keypoints), height, width, 3), _CANVAS_GREY, np.uint8)


__all__ = ["choose_clips", "write_strips"]
