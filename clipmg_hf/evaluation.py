"""Scores of a checkpoint on every clip of a split: several views of each, one stream or both.

    evaluation = evaluate_checkpoint(model, processor, rows, EvaluationOptions(num_views=10, flip=True))

N is the number of clips, L that of the classes, V that of the views of a clip, B that of the views in a batch.
`hub_scripts/evaluate.py` is the command; `clipmg_hf.evaluation_results` measures and writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets
import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from tqdm import tqdm

from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.labels import check_labels
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.inference import InferenceModel
from clipmg_hf.metrics import log_softmax
from clipmg_hf.model_state import evaluating
from clipmg_hf.processing import CLIPMGProcessor, KeypointLayout, get_layout
from clipmg_hf.score_files import Scores


Modality = Literal["both", "rgb", "pose"]
Average = Literal["probabilities", "logits"]
HIDDEN_COLUMNS: dict[str, tuple[str, ...]] = {
    "both": (),
    "rgb": ("keypoints", "keypoints_valid", "keypoint_layout"),
    "pose": ("video",),
}


@dataclass(frozen=True)
class EvaluationOptions:
    """How clips are scored.

    Args:
        num_views (`int`): Index grids of a clip; 10 is the peers' "10-clip". The first is the middle of each segment,
            as in plain evaluation. In every other one a frame is drawn at random inside each segment, the same in
            every run: it depends on `seed`, the number of the view and the clip's name alone. The crop stays.
        flip (`bool`): Score each view mirrored, too, with left and right keypoints exchanged.
        average (`str`): Of the views: `"probabilities"` (the logits are then its logarithm) or `"logits"`.
        modality (`str`): `"rgb"` and `"pose"` hide the other stream, as if the data lacked it: without keypoints
            nothing says where the person is, so the crop is the whole frame. A clip that has nothing else is scored
            on masked zeros, so that the clips stay the same.
        batch_size, num_workers (`int`): Of the loading; they change nothing but rounding.
        seed (`int`): Of the views.
        missing_keypoints (`str`): `"mask"` takes keypoints that the data's layout lacks as missing.

    Raises:
        ValueError: A value is out of range.
    """

    num_views: int = field(default=1, metadata={"help": "Index grids of each clip; 10 for the usual 10-clip."})
    flip: bool = field(default=False, metadata={"help": "Score each view mirrored, too."})
    average: Average = field(default="probabilities", metadata={"help": "What is averaged over the views."})
    modality: Modality = field(default="both", metadata={"help": "rgb or pose hides the other stream."})
    batch_size: int = field(default=16, metadata={"help": "Views in a batch."})
    num_workers: int = field(default=0, metadata={"help": "Processes that decode."})
    seed: int = field(default=0, metadata={"help": "Seed of the views after the first."})
    missing_keypoints: Literal["error", "mask"] = field(
        default="error", metadata={"help": "What to do about keypoints that the data's layout lacks."}
    )

    def __post_init__(self) -> None:
        for name, least in (("num_views", 1), ("batch_size", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        for name, allowed in (
            ("average", ("probabilities", "logits")),
            ("modality", tuple(HIDDEN_COLUMNS)),
            ("missing_keypoints", ("error", "mask")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}.")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of the clips of a split, and what they rest on.

    Args:
        scores ([`Scores`]): Averaged over the views.
        gate_means (`numpy.ndarray` of shape `(N,)` or `None`): Mean gate over its entries and the views, in [0, 1]:
            1 takes RGB alone, 0 pose alone; a clip that lacks a stream has exactly that. `None` without a gate.
        has_video, has_pose (`numpy.ndarray` bool of shape `(N,)` or `None`): Whether a frame, and whether a valid
            keypoint reached the model in any view; `None` for fused scores.
    """

    scores: Scores
    gate_means: np.ndarray | None = None
    has_video: np.ndarray | None = None
    has_pose: np.ndarray | None = None


def evaluate_checkpoint(
    model: InferenceModel,
    processor: CLIPMGProcessor,
    rows: datasets.Dataset,
    options: EvaluationOptions | None = None,
    *,
    checkpoint: str = "model",
    revision: str | None = None,
    split: str | None = None,
    show_progress: bool = True,
) -> Evaluation:
    """Score every clip of a split, on the model's device and in its precision.

    Args:
        model, processor: As [`load_model`] returns them; the model is left in the mode that it was in.
        rows (`datasets.Dataset`): Columns of `clipmg_hf.data.schema`; labels may be hidden.
        options ([`EvaluationOptions`], *optional*): By default one view.
        checkpoint, revision, split: Kept in the scores.
        show_progress (`bool`, defaults to `True`): With a progress bar.

    Raises:
        DatasetFormatError: No clip, or classes that are not those of the checkpoint.
        ValueError: The model reads none of the streams that are left, or a clip cannot be processed.
    """
    options = options or EvaluationOptions()
    label_names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    check_labels(rows.features["label"].names, label_names, checkpoint)
    if not len(rows):
        raise DatasetFormatError(f"split {split or rows.split}: no clip; expected at least one.")
    visible = rows.remove_columns([name for name in HIDDEN_COLUMNS[options.modality] if name in rows.column_names])
    _check_streams(model, visible, options.modality)
    outputs = _score_views(model, processor, visible, options, show_progress)
    small = rows.select_columns(["clip_id", "video_id", "label"]).with_format("arrow")[:]
    scores = Scores(
        clip_ids=small["clip_id"].to_pylist(),
        video_ids=small["video_id"].to_pylist(),
        logits=average_views(outputs["logits"], options.average),
        labels=small["label"].to_numpy(),
        label_names=label_names,
        checkpoint=checkpoint,
        revision=revision,
        data_fingerprint=rows._fingerprint,
        split=split,
        views=outputs["logits"].shape[1],
    )
    return Evaluation(
        scores=scores,
        gate_means=outputs["gate"].mean(axis=1) if "gate" in outputs else None,
        has_video=outputs["has_video"].max(axis=1),
        has_pose=outputs["has_pose"].max(axis=1),
    )


def _check_streams(model: InferenceModel, rows: datasets.Dataset, modality: Modality) -> None:
    streams = {"video": model.config.uses_vision, "keypoints": model.config.uses_pose}
    there = {name: bool(_is_there(rows, name).any()) for name in streams}
    if not any(streams[name] and there[name] for name in streams):
        read = " and ".join(name for name, used in streams.items() if used)
        found = " and ".join(name for name, is_there in there.items() if is_there) or "neither"
        raise ValueError(
            f"The model (fusion={model.config.fusion!r}) reads {read}; with modality={modality!r} the clips have "
            f"{found}. Expected a stream that it reads."
        )


def _is_there(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Which rows (N,) have a value, told without reading it."""
    if column not in rows.column_names:
        return np.zeros(len(rows), bool)
    there = rows.data.column(column).is_valid().to_numpy()
    return there if rows._indices is None else there[rows._indices.column(0).to_numpy()]


class _Clips(Dataset):
    """Items of a [`ClipDataset`], masked zeros for the clips that have nothing to process."""

    def __init__(self, clips: ClipDataset, is_empty: np.ndarray, blank: Mapping[str, torch.Tensor]):
        self.clips, self.is_empty, self.blank = clips, is_empty, blank

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Mapping[str, torch.Tensor]:
        return self.blank if self.is_empty[index] else self.clips[index]


def _blank_item(processor: CLIPMGProcessor, rows: datasets.Dataset) -> dict[str, torch.Tensor]:
    frames, item = processor.video_processor, {}
    if _is_there(rows, "video").any():
        size = frames.size["height"]
        item["pixel_values"] = torch.zeros(frames.num_frames, 3, size, size)
        item["frame_mask"] = torch.zeros(frames.num_frames, dtype=torch.bool)
    if _is_there(rows, "keypoints").any():
        num_pose_frames = frames.num_frames * frames.pose_frames_per_frame
        num_keypoints = get_layout(processor.keypoint_layout).num_keypoints
        item["keypoints"] = torch.zeros(num_pose_frames, num_keypoints, 3)
        item["keypoint_mask"] = torch.zeros(num_pose_frames, dtype=torch.bool)
    return item


def _score_views(
    model: InferenceModel,
    processor: CLIPMGProcessor,
    rows: datasets.Dataset,
    options: EvaluationOptions,
    show_progress: bool,
) -> dict[str, np.ndarray]:
    """`logits` (N, V, L), `has_video`, `has_pose` and, of a gated model, `gate` (N, V); mirrored views count in V.

    All views of a clip follow each other, so that its video is opened and its file cached once.
    """
    is_empty = ~(_is_there(rows, "video") | _is_there(rows, "keypoints"))
    blank = _blank_item(processor, rows)
    views: ConcatDataset = ConcatDataset(
        [_Clips(clips, is_empty, blank) for clips in _make_views(rows, processor, options)]
    )
    order = [view * len(rows) + clip for clip in range(len(rows)) for view in range(options.num_views)]
    loader = DataLoader(
        views,
        batch_size=options.batch_size,
        sampler=order,
        num_workers=options.num_workers,
        collate_fn=collate_clips,
        pin_memory=model.device.type == "cuda",
    )
    layout = get_layout(processor.keypoint_layout)
    columns: dict[str, list[np.ndarray]] = {}
    with evaluating(model), tqdm(total=len(order), desc="Evaluate", unit="view", disable=not show_progress) as bar:
        for batch in loader:
            variants = [batch, mirror_batch(batch, layout)] if options.flip else [batch]
            outputs = [_run_model(model, variant) for variant in variants]
            for name in outputs[0]:
                # (B,) or (B, L) of each variant -> (B, variants) or (B, variants, L)
                columns.setdefault(name, []).append(np.stack([output[name] for output in outputs], axis=1))
            bar.update(len(outputs[0]["logits"]))
    # (N * num_views, variants, ...) -> (N, num_views * variants, ...)
    return {
        name: (joined := np.concatenate(parts)).reshape(len(rows), -1, *joined.shape[2:])
        for name, parts in columns.items()
    }


def _make_views(
    rows: datasets.Dataset, processor: CLIPMGProcessor, options: EvaluationOptions
) -> Iterable[ClipDataset]:
    """The clips once for each view."""
    shared: dict[str, Any] = {"missing_keypoints": options.missing_keypoints, "allow_hidden_labels": True}
    yield ClipDataset(rows, processor, **shared)
    # Of the augmentation, nothing is on but the draw of the frames.
    drawing = CLIPMGProcessor(
        processor.video_processor,
        keypoint_layout=processor.keypoint_layout,
        crop_padding=processor.crop_padding,
        augmentation_area=(1.0, 1.0),
        augmentation_flip=0.0,
    )
    for view in range(1, options.num_views):
        clips = ClipDataset(rows, drawing, augment=True, seed=options.seed, **shared)
        clips.set_epoch(view)
        yield clips


def mirror_batch(batch: Mapping[str, torch.Tensor], layout: KeypointLayout) -> dict[str, torch.Tensor]:
    """Mirror clips left to right, as the processor does in training; a left wrist becomes a right one.

    Args:
        batch: `pixel_values` (B, T, 3, H, W) and `keypoints` (B, T_p, K, 3) in [0, 1], either may be absent; all else
            stays.
        layout: Layout of the keypoints.
    """
    mirrored = dict(batch)
    if "pixel_values" in batch:
        mirrored["pixel_values"] = batch["pixel_values"].flip(-1)
    if "keypoints" in batch:
        points = batch["keypoints"].clone()
        points[..., 0] = torch.where(points[..., 2] > 0, 1 - points[..., 0], points[..., 0])
        mirrored["keypoints"] = points[:, :, torch.as_tensor(layout.flip_permutation)]
    return mirrored


@torch.inference_mode()
def _run_model(model: InferenceModel, batch: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    inputs = {name: tensor.to(model.device, non_blocking=True) for name, tensor in batch.items()}
    if "pixel_values" in inputs:
        # Keypoints stay float32: bfloat16 would move them by up to half a pixel.
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    has_gate = model.config.fusion == "gated"
    outputs = model(**inputs, output_explanation=has_gate)
    results = {"logits": outputs.logits.float().cpu().numpy()}
    if has_gate:
        results["gate"] = outputs.gate.float().mean(dim=-1).cpu().numpy()
    return results | _find_streams(batch)


def _find_streams(batch: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Which clips (B,) have a frame and a valid keypoint."""
    num_clips = len(next(iter(batch.values())))
    has_video = np.full(num_clips, "pixel_values" in batch)
    if "frame_mask" in batch:
        has_video &= batch["frame_mask"].any(dim=1).numpy()
    has_pose = batch["keypoint_mask"].any(dim=1).numpy() if "keypoint_mask" in batch else np.zeros(num_clips, bool)
    return {"has_video": has_video, "has_pose": has_pose}


def average_views(logits: np.ndarray, average: Average = "probabilities") -> np.ndarray:
    """Average views: logits (N, V, L) to float64 (N, L); one view is returned as it is.

    `"probabilities"` gives the logarithm of the mean softmax, so that the softmax of the result is that mean.
    """
    logits = np.asarray(logits, np.float64)
    if logits.shape[1] == 1:
        return logits[:, 0]
    if average == "logits":
        return logits.mean(axis=1)
    return np.logaddexp.reduce(log_softmax(logits), axis=1) - np.log(logits.shape[1])


__all__ = [
    "Evaluation",
    "EvaluationOptions",
    "average_views",
    "evaluate_checkpoint",
    "mirror_batch",
]
