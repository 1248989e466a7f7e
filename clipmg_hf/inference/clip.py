"""From one clip of a video to scores, with what a drawing of them needs on request.

Symbols as in `configuration_clipmg`: T RGB frames, T_p pose frames, K keypoints, D the width of the fused embedding;
H_p and W_p are the rows and columns of the patches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from transformers import BatchFeature

from clipmg_hf.inference.onnx_model import InferenceModel
from clipmg_hf.model_state import evaluating
from clipmg_hf.modeling import CLIPMGClassifierOutput
from clipmg_hf.processing import (
    CLIPMGClip,
    CLIPMGProcessor,
    KeypointLayout,
    OpenPoseSequence,
    VideoInfo,
    VideoReader,
    describe_conversion,
    get_layout,
    read_openpose,
    valid_keypoints,
)
from clipmg_hf.processing.processing_clipmg import layout_of_array, rows_of_interval
from clipmg_hf.processing.video_processing_clipmg import DecodedVideo, open_video


# Keypoints of a person who leans out of the picture lie a little outside it; those of a larger video far, and many.
OUTSIDE_MARGIN, OUTSIDE_SHARE = 0.1, 0.05
# Frames whose keypoints are looked at together.
BLOCK = 1000


class _SourceKeypoints(NamedTuple):
    """Keypoints (end - start, K, 3) of the clip, their layout and their name in messages; `None` without keypoints."""

    points: np.ndarray | None
    layout: KeypointLayout | None
    name: str | None


@dataclass(frozen=True, eq=False)
class ClipExplanation:
    """What a drawing of a prediction needs.

    Args:
        semantic_attention: (heads, T, H_p, W_p) float32 attention of the query over the patches of the processed
            frames, which sums to 1 for each head; `None` for a model without semantic attention.
        gate: (D,) float32 in [0, 1], 1 takes RGB and 0 pose; `None` for a model without a gate.
        clip: The frames that were sampled and the square that they were cut to.
        inputs: The tensors that went to the model, with a batch of one, on the CPU.
        keypoints: (end - start, K, 3) float64 x, y in pixels of the source frame and confidence for every frame of
            the clip, in the source's own `layout`; `None` without keypoints.
        layout: Layout of `keypoints`.
        video: Reader of the source frames.
    """

    semantic_attention: np.ndarray | None
    gate: np.ndarray | None
    clip: CLIPMGClip
    inputs: dict[str, torch.Tensor]
    keypoints: np.ndarray | None
    layout: KeypointLayout | None
    video: VideoReader | DecodedVideo


@dataclass(frozen=True, eq=False)
class ClipPrediction:
    """Scores of one clip, and what they rest on.

    Args:
        video: Path of the video, or what stands for it: `"videos"` for frames in memory, `"<bytes>"`.
        start, end: The clip in frames of the video, half open.
        start_seconds, end_seconds: The same in seconds since the video's first frame; `None` for frames in memory.
        scores: `(label, probability)` of every class, best first; they sum to 1.
        rgb_used: Whether the model has a visual stream.
        pose_used: Whether a valid keypoint reached the pose stream.
        num_pose_frames: Different frames whose keypoints were sampled; 0 when no keypoints were given.
        num_person_frames: How many of these hold a valid keypoint of the model's layout.
        gate_mean: Mean of the gate: 1 = all RGB, 0 = all pose; `None` for a model without a gate.
        num_keypoints: Keypoints K that the model reads.
        missing_keypoints: Names of those that the source's layout lacks; they were masked.
        explanation: With `explain=True`, what a drawing needs.
    """

    video: str
    start: int
    end: int
    start_seconds: float | None
    end_seconds: float | None
    scores: tuple[tuple[str, float], ...]
    rgb_used: bool
    pose_used: bool
    num_pose_frames: int
    num_person_frames: int
    gate_mean: float | None
    num_keypoints: int
    missing_keypoints: tuple[str, ...]
    explanation: ClipExplanation | None = None

    @property
    def label(self) -> str:
        """The best label."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """Probability of the best label."""
        return self.scores[0][1]

    @property
    def person_fraction(self) -> float:
        """Share of the sampled pose frames that show a person, in [0, 1]; 0 without keypoints."""
        return self.num_person_frames / max(self.num_pose_frames, 1)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Everything but the explanation as JSON values, with the `top` best scores (all by default)."""
        return {
            "video": self.video,
            "start": self.start,
            "end": self.end,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "scores": [{"label": label, "score": score} for label, score in self.scores[:top]],
            "rgb_used": self.rgb_used,
            "pose_used": self.pose_used,
            "num_pose_frames": self.num_pose_frames,
            "num_person_frames": self.num_person_frames,
            "gate_mean": self.gate_mean,
            "num_keypoints": self.num_keypoints,
            "missing_keypoints": list(self.missing_keypoints),
        }


def predict_clip(
    model: InferenceModel,
    processor: CLIPMGProcessor,
    video: Any,
    keypoints: Any = None,
    start: float | None = None,
    end: float | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    missing_keypoints: Literal["error", "mask"] = "mask",
    explain: bool = False,
    source_layout: str | None = None,
) -> ClipPrediction:
    """Classify one clip of a video.

    Args:
        model, processor: As `load_model` returns them.
        video: One video as [`CLIPMGProcessor`] takes it: path, bytes, file object or uint8 frames.
        keypoints: As [`CLIPMGProcessor`] takes them for one clip: OpenPose JSON (a folder, a file
            or a list of files), an [`OpenPoseSequence`], an array (N, K, 3) with one row for each frame of the video
            or of the clip, or `None`.
        start, end: The clip, half open; `None` is the video's own start or end.
        unit: Of `start` and `end`.
        missing_keypoints: What happens to keypoints of the model that the source's layout lacks: `"mask"` takes them
            as missing, `"error"` refuses the source.
        explain: Also return attention, gate and inputs, for `clipmg_hf.visualization`.
        source_layout: Layout of an array; by default the model's if it has as many keypoints, else the only one that
            has.

    Raises:
        VideoDecodingError: The video or the interval cannot be read.
        KeypointFileError: Keypoint files cannot be read.
        ValueError: Keypoints that do not fit the video or the model, or none for a model that reads nothing else.
    """
    reader = open_video(video)
    first, last = reader.resolve_interval(start, end, unit)
    source, inputs, clip = _process(processor, reader, keypoints, (first, last), source_layout, missing_keypoints)
    if source.points is not None:
        check_inside([source.points], reader.info, source.name or "keypoints")
    has_person = inputs["keypoint_mask"][0].numpy()
    pose_used = model.config.uses_pose and bool(has_person.any())
    if not pose_used and not model.config.uses_vision:
        raise ValueError(
            f"{reader.info.name}: this model reads keypoints alone (fusion='pose'), and the frames {first}..{last} "
            f"have {f'no valid one in {source.name}' if source.name else 'none'}; expected at least one."
        )
    outputs = _run_model(model, inputs)
    explanation = _explain(outputs, inputs, clip, source, reader)
    pose_frames = clip.pose_frame_indices if source.points is not None else clip.pose_frame_indices[:0]
    return ClipPrediction(
        video=reader.info.name,
        start=first,
        end=last,
        start_seconds=_seconds(reader, first),
        end_seconds=_seconds(reader, last),
        scores=_rank(outputs.logits[0], model.config.id2label),
        rgb_used=model.config.uses_vision,
        pose_used=pose_used,
        # A clip shorter than the grid repeats frames.
        num_pose_frames=len(np.unique(pose_frames)),
        num_person_frames=len(np.unique(clip.pose_frame_indices[has_person])),
        gate_mean=None if explanation.gate is None else float(explanation.gate.mean()),
        num_keypoints=model.config.num_keypoints,
        missing_keypoints=absent_keypoints(source.layout, get_layout(processor.keypoint_layout)),
        explanation=explanation if explain else None,
    )


def _process(
    processor: CLIPMGProcessor,
    reader: VideoReader | DecodedVideo,
    keypoints: Any,
    interval: tuple[int, int],
    source_layout: str | None,
    missing_keypoints: Literal["error", "mask"],
) -> tuple[_SourceKeypoints, BatchFeature, CLIPMGClip]:
    """Turn one clip into a batch of one, reading keypoint files once."""
    if is_keypoint_files(keypoints):
        keypoints = read_openpose(keypoints)
    inputs = processor(
        reader,
        keypoints,
        intervals=interval,
        source_layout=source_layout,
        missing_keypoints=missing_keypoints,
        return_metadata=True,
    )
    clip = inputs.pop("clips")[0]
    if keypoints is None:
        return _SourceKeypoints(None, None, None), inputs, clip
    source = read_keypoint_array(keypoints, source_layout, processor.keypoint_layout)
    rows = rows_of_interval(
        len(source.points), source.first_number, interval, reader.num_frames, source.name, reader.name
    )
    return _SourceKeypoints(source.points[rows], source.layout, source.name), inputs, clip


class KeypointArray(NamedTuple):
    """Keypoints (rows, K, 3) of one person, the number of the first row's frame, and what messages call them."""

    points: np.ndarray
    layout: KeypointLayout
    first_number: int
    name: str


def read_keypoint_array(keypoints: Any, source_layout: str | None, own_layout: str | None) -> KeypointArray:
    """Take an array, a tensor or an [`OpenPoseSequence`].

    Args:
        keypoints: Of one person.
        source_layout: Layout of an array; `None` tells it from the number of keypoints.
        own_layout: Layout of the model, for a number that several layouts have.

    Raises:
        ValueError: Another shape or number of keypoints.
    """
    if isinstance(keypoints, OpenPoseSequence):
        name = keypoints.name or "keypoints"
        return KeypointArray(keypoints.keypoints, get_layout(keypoints.layout), int(keypoints.frame_numbers[0]), name)
    points = np.asarray(keypoints.detach().cpu() if isinstance(keypoints, torch.Tensor) else keypoints)
    try:
        layout = layout_of_array(points.shape, source_layout, own_layout)
    except ValueError as error:
        raise ValueError(f"keypoints: {error}") from None
    return KeypointArray(points, layout, 0, "keypoints")


def is_keypoint_files(source: Any) -> bool:
    """Whether keypoints are a path or a list of paths."""
    paths = source if isinstance(source, list | tuple) else [source]
    return all(isinstance(path, str | PathLike) for path in paths)


@torch.inference_mode()
def _run_model(model: InferenceModel, inputs: BatchFeature) -> CLIPMGClassifierOutput:
    with evaluating(model):
        return model(
            # Keypoints stay float32: bfloat16 would move them by up to half a pixel.
            pixel_values=inputs["pixel_values"].to(model.device, model.dtype),
            keypoints=inputs["keypoints"].to(model.device),
            keypoint_mask=inputs["keypoint_mask"].to(model.device),
            output_explanation=True,
        )


def _explain(
    outputs: CLIPMGClassifierOutput,
    inputs: BatchFeature,
    clip: CLIPMGClip,
    source: _SourceKeypoints,
    reader: VideoReader | DecodedVideo,
) -> ClipExplanation:
    attention, gate = (
        None if values is None else values[0].float().cpu().numpy()
        for values in (outputs.semantic_attention, outputs.gate)
    )
    return ClipExplanation(
        semantic_attention=attention,
        gate=gate,
        clip=clip,
        inputs=dict(inputs),
        keypoints=None if source.points is None else source.points.astype(np.float64),
        layout=source.layout,
        video=reader,
    )


def _rank(logits: torch.Tensor, id2label: dict[int, str]) -> tuple[tuple[str, float], ...]:
    """Logits (num_labels,) -> labels with their probability, best first; equal ones in the order of their ids."""
    probabilities = logits.float().softmax(dim=-1).cpu()
    order = probabilities.argsort(descending=True, stable=True)
    return tuple((id2label[index], float(probabilities[index])) for index in order.tolist())


def absent_keypoints(source: KeypointLayout | None, target: KeypointLayout) -> tuple[str, ...]:
    """As `describe_conversion`; none without keypoints."""
    return () if source is None else describe_conversion(source, target)


def check_inside(people: Sequence[np.ndarray], info: VideoInfo, name: str) -> None:
    """Refuse keypoints (..., K, 3) that were found in larger pictures with a ValueError that calls them `name`."""
    size = np.array([info.width, info.height])
    num_points, num_outside, reach = 0, 0, np.zeros(2)
    # In blocks: those of a long video are large.
    for first in range(0, len(people), BLOCK):
        points = np.concatenate([points[valid_keypoints(points), :2] for points in people[first : first + BLOCK]])
        outside = ((points < -OUTSIDE_MARGIN * size) | (points > (1 + OUTSIDE_MARGIN) * size)).any(axis=1)
        num_points, num_outside = num_points + len(points), num_outside + int(outside.sum())
        reach = np.maximum(reach, points.max(axis=0, initial=0))
    if num_points and num_outside / num_points > OUTSIDE_SHARE:
        raise ValueError(
            f"{name}: {num_outside / num_points:.0%} of the points lie outside the {info.width} x {info.height} "
            f"frames of {info.name} (they reach {reach[0]:.0f} x {reach[1]:.0f}); expected keypoints of this "
            "video, in its pixels."
        )


def _seconds(reader: VideoReader | DecodedVideo, frame: int) -> float | None:
    """Time at which a frame starts, in seconds since the first; the end of the video for the frame behind the last."""
    info = reader.info
    seconds = float(info.timestamps[frame]) if frame < info.num_frames else info.duration
    return None if math.isnan(seconds) else seconds


__all__ = [
    "ClipExplanation",
    "ClipPrediction",
    "KeypointArray",
    "absent_keypoints",
    "check_inside",
    "is_keypoint_files",
    "predict_clip",
    "read_keypoint_array",
]
