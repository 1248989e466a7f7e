"""What a prediction of one clip rests on: attention on source pixels, joints, streams, and the gate over time.

    >>> prediction = predict_clip(model, processor, "clip.mp4", "clip_openpose/", explain=True)
    >>> influence = explain_clip(model, prediction)
    >>> write_explanation(prediction, influence, "explanation/")  # of clipmg_hf.explanation_page

Influence is measured on one quantity, the log-probability of a label in nats: 0.7 nats halve or double a probability.
Symbols as in `configuration_clipmg`: T RGB frames, T_p pose frames, K keypoints, H_p and W_p rows and columns of
patches, D width of the fused embedding, C classes.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from clipmg_hf.inference import ClipExplanation, ClipPrediction
from clipmg_hf.model_state import evaluating
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification
from clipmg_hf.processing import KeypointLayout, get_layout
from clipmg_hf.timeline.records import WindowScores


OCCLUSION_UNIT = "nats"
SENSITIVITY_UNIT = "nats per width of the processed frame"
_PARTS = {
    "head": ("nose", "eye", "ear", "head", "face"),
    "torso": ("neck", "kinect_neck", "shoulder", "hip", "mid_hip", "spine"),
    "arm and hand": ("elbow", "wrist", "hand", "thumb", "little_knuckle", "index_knuckle", "thumb_knuckle"),
    "leg and foot": ("knee", "ankle", "heel", "big_toe", "small_toe", "foot"),
}
_SIDED_PARTS = ("arm and hand", "leg and foot")


@dataclass(frozen=True, eq=False)
class JointInfluence:
    """How much each joint matters for one label.

    Args:
        method: `"occlusion"` or `"gradient"`, see [`joint_influence`].
        label_id: The label.
        log_probability: Of the label with all joints, in nats.
        layout: The model's layout, which names the K points.
        values: (K,) float32; exactly 0 for a joint that is seen in no pose frame.
        parts: The same for parts of the body that have a point that is seen, as `body_parts` names them.
        frame_values: (T_p, K) float32 for `"gradient"`, exactly 0 where the point is not seen; else `None`.
        seen: (T_p, K) bool, which points reached the model.
    """

    method: Literal["occlusion", "gradient"]
    label_id: int
    log_probability: float
    layout: KeypointLayout
    values: np.ndarray
    parts: dict[str, float]
    frame_values: np.ndarray | None
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class StreamInfluence:
    """Predictions with both streams and without one, (C,) float32 probabilities each, which sum to 1.

    Args:
        label_id: The label that is looked at.
        complete: With all that the clip has.
        without_rgb: From the keypoints alone; `None` if the model reads no frames or the clip has no keypoint.
        without_pose: From the frames alone; `None` if the model reads no frames or the clip has no keypoint.
    """

    label_id: int
    complete: np.ndarray
    without_rgb: np.ndarray | None
    without_pose: np.ndarray | None

    def by_name(self) -> dict[str, np.ndarray | None]:
        """The three predictions by the names of their fields."""
        return {"complete": self.complete, "without_rgb": self.without_rgb, "without_pose": self.without_pose}


@dataclass(frozen=True, eq=False)
class ClipInfluence:
    """All influences on one label of one clip.

    Args:
        label_id: The label.
        labels: Names of the C labels, by id.
        streams: The prediction without RGB and without pose.
        occlusion, gradient: The joints; `None` if the model reads no pose or the clip has no keypoint.
    """

    label_id: int
    labels: tuple[str, ...]
    streams: StreamInfluence
    occlusion: JointInfluence | None
    gradient: JointInfluence | None

    @property
    def label(self) -> str:
        """Name of the label."""
        return self.labels[self.label_id]


@dataclass(frozen=True, eq=False)
class GateCurve:
    """The gate of one person's M windows, by time.

    Args:
        person: Number of the person.
        seconds: (M,) float64, the middle of each window, ascending.
        gate: (M,) float32 mean gate in [0, 1], 1 takes RGB and 0 pose; NaN where the model has none.
        pose_share: (M,) float32 share of the window's pose frames with a valid keypoint, in [0, 1].
    """

    person: int
    seconds: np.ndarray
    gate: np.ndarray
    pose_share: np.ndarray


class _Clip(NamedTuple):
    """Vision tokens (1, T, 1 + N, D_v) and keypoints (1, T_p, K, 3), zeros where missing or masked; or `None`."""

    tokens: torch.Tensor | None
    keypoints: torch.Tensor | None


def explanation_of(prediction: ClipPrediction) -> ClipExplanation:
    """What the prediction rests on.

    Raises:
        ValueError: The prediction was made without `explain=True`.
    """
    if prediction.explanation is None:
        raise ValueError(f"{prediction.video}: the prediction holds no explanation; expected one with explain=True.")
    return prediction.explanation


def attention_on_source(explanation: ClipExplanation, head: int | None = None) -> np.ndarray:
    """Map the attention of the sampled frames back to the pixels of their source frames.

    The attention of each patch is spread over the pixels around its centre, and all of it is kept: values are
    attention per pixel, and a frame sums to the attention that it got, hence all frames to 1. What a crop shows beyond
    the border of the frame is lost; a smaller sum tells that the model looked there.

    Args:
        explanation: Of `predict_clip` with `explain=True`.
        head: Which head; the mean of all by default.

    Returns:
        (T, height, width) float32 of at least 0, exactly 0 outside the crop.

    Raises:
        ValueError: The model has no semantic attention, or no such head.
    """
    attention = explanation.semantic_attention
    if attention is None:
        raise ValueError("The model has no semantic attention (fusion='pose' or use_semantic_attention=False).")
    if head is not None and not 0 <= head < len(attention):
        raise ValueError(f"head is {head}; the model has the heads 0 to {len(attention) - 1}.")
    # (heads, T, H_p, W_p) -> (T, H_p, W_p)
    patches = attention.mean(axis=0) if head is None else attention[head]
    clip = explanation.clip
    if clip.crop.flipped:
        patches = patches[..., ::-1]
    top, bottom, rows = _spread(patches.shape[1], clip.crop.top, clip.crop.size, clip.height)
    left, right, columns = _spread(patches.shape[2], clip.crop.left, clip.crop.size, clip.width)
    pixels = np.zeros((len(patches), clip.height, clip.width), dtype=np.float32)
    # (h, H_p) @ (T, H_p, W_p) @ (W_p, w) -> (T, h, w)
    pixels[:, top:bottom, left:right] = rows.T @ patches @ columns
    return pixels


def _spread(num_patches: int, first: int, size: int, length: int) -> tuple[int, int, np.ndarray]:
    """Where a side of the crop lies in the frame, and how much each of its pixels gets of each patch.

    Args:
        num_patches: Patches along the side.
        first, size: First pixel and length of the crop's side; it may leave the frame.
        length: Length of the frame's side.

    Returns:
        First pixel inside the frame and the one behind the last, and weights float32 (num_patches, pixels), which
        would sum to 1 for each patch if the crop lay inside the frame.
    """
    weights = nn.functional.interpolate(
        torch.eye(num_patches)[None, None], (num_patches, size), mode="bilinear", antialias=True
    )[0, 0].numpy()
    weights = weights / weights.sum(axis=1, keepdims=True)
    low = min(max(first, 0), length)
    high = max(low, min(first + size, length))
    return low, high, weights[:, low - first : high - first] if low < high else weights[:, :0]


def body_parts(layout: KeypointLayout | str) -> dict[str, tuple[int, ...]]:
    """Indices of the points of each part of the body; every point belongs to one part.

    Returns:
        "head", "torso", "left arm and hand", "right arm and hand", "left leg and foot" and "right leg and foot",
        without those that the layout has no point of. Left and right are the person's own.
    """
    layout = get_layout(layout) if isinstance(layout, str) else layout
    names = [f"{side}{part}" for part in _PARTS for side in (("left ", "right ") if part in _SIDED_PARTS else ("",))]
    found: dict[str, list[int]] = {name: [] for name in names}
    for index, keypoint in enumerate(layout.keypoints):
        found[_part_of(keypoint)].append(index)
    return {name: tuple(indices) for name, indices in found.items() if indices}


def _part_of(keypoint: str) -> str:
    side, _, stem = keypoint.partition("_")
    if side not in ("left", "right"):
        side, stem = "", keypoint
    for part, stems in _PARTS.items():
        if any(stem == known or stem.startswith(f"{known}_") for known in stems):
            return f"{side} {part}" if part in _SIDED_PARTS else part
    raise AssertionError(f"keypoint {keypoint!r} belongs to no part of the body")


def joint_influence(
    model: CLIPMGForMicroGestureClassification,
    inputs: Mapping[str, torch.Tensor],
    label_id: int | None = None,
    method: Literal["occlusion", "gradient"] = "occlusion",
    batch_size: int = 16,
) -> JointInfluence:
    """Measure how much each joint matters for a label.

    `"occlusion"`: log p(label) of the whole clip minus log p(label) with the joint masked in all pose frames, in nats.
    Above 0 the joint speaks for the label, below 0 against it. Parts of the body are masked as a whole: joints that
    tell the same can each be missed without harm, and their values do not add up. The crop stays as it is.

    `"gradient"`: the length of the gradient of log p(label) with respect to x and y of a point in one pose frame, in
    nats per width of the processed frame: moved by a small share s of that width, the point changes log p by up to s
    times this. It has no sign. A joint's value is the sum over its frames, and a part's that over its joints: the
    bound if all move at once. Gaussians are cut off at 3 sigma; the tiny steps of that are not seen by a gradient.

    Args:
        model: Any model with a pose stream; its mode and gradients are left as they are.
        inputs: What the processor made of one clip (`ClipExplanation.inputs`): `pixel_values` (1, T, 3, H, W),
            `keypoints` (1, T_p, K, 3) and `keypoint_mask` (1, T_p).
        label_id: The label; by default the best one.
        method: See above.
        batch_size: Clips that go through the model at once, for `"occlusion"`.

    Raises:
        ValueError: The model reads no keypoints, the inputs hold none or more than one clip, or no such label.
    """
    if method not in ("occlusion", "gradient"):
        raise ValueError(f"method is {method!r}; expected 'occlusion' or 'gradient'.")
    if not model.config.uses_pose:
        raise ValueError(
            f"This model reads no keypoints (fusion={model.config.fusion!r}), so no joint has an influence; expected "
            "a model with a pose stream."
        )
    with _evaluating(model):
        clip = _encode(model, inputs)
        if clip.keypoints is None:
            raise ValueError("inputs hold no keypoints; expected keypoints of shape (1, T_p, K, 3).")
        log_probabilities = _log_probabilities(model, clip.tokens, clip.keypoints)[0]
        label_id = _check_label(label_id, log_probabilities)
        frame_values = None
        if method == "occlusion":
            values, parts = _measure_occlusion(model, clip.tokens, clip.keypoints, label_id, batch_size)
        else:
            values, parts, frame_values = _measure_gradient(model, clip.tokens, clip.keypoints, label_id)
    return JointInfluence(
        method=method,
        label_id=label_id,
        log_probability=float(log_probabilities[label_id]),
        layout=get_layout(model.config.keypoint_layout),
        values=values,
        parts=parts,
        frame_values=frame_values,
        seen=_seen(clip.keypoints),
    )


def _measure_occlusion(
    model: CLIPMGForMicroGestureClassification,
    tokens: torch.Tensor | None,
    keypoints: torch.Tensor,
    label_id: int,
    batch_size: int,
) -> tuple[np.ndarray, dict[str, float]]:
    seen = _seen_ever(keypoints)
    joints = np.flatnonzero(seen)
    parts = _seen_parts(model, seen)
    # The first row masks nothing.
    masked = torch.zeros(1 + len(joints) + len(parts), len(seen), dtype=torch.bool)
    masked[1 + np.arange(len(joints)), joints] = True
    for row, members in enumerate(parts.values(), start=1 + len(joints)):
        masked[row, list(members)] = True
    results = [
        _log_probabilities(model, tokens, keypoints.masked_fill(rows[:, None, :, None], 0.0))[:, label_id]
        for rows in masked.to(keypoints.device).split(batch_size)
    ]
    log_probabilities = torch.cat(results).cpu().numpy()
    losses = log_probabilities[0] - log_probabilities[1:]
    values = np.zeros(len(seen), dtype=np.float32)
    values[joints] = losses[: len(joints)]
    return values, dict(zip(parts, losses[len(joints) :].tolist(), strict=True))


def _measure_gradient(
    model: CLIPMGForMicroGestureClassification,
    tokens: torch.Tensor | None,
    keypoints: torch.Tensor,
    label_id: int,
) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
    points = keypoints.clone().requires_grad_()
    with torch.enable_grad():
        log_probability = _log_probabilities(model, tokens, points)[0, label_id]
        (gradient,) = torch.autograd.grad(log_probability, points)
    # (1, T_p, K, 3) -> (T_p, K)
    frame_values = gradient[0, ..., :2].norm(dim=-1).cpu().numpy()
    frame_values = np.where(_seen(keypoints), frame_values, np.float32(0))
    values = frame_values.sum(axis=0)
    parts = _seen_parts(model, _seen_ever(keypoints))
    return values, {name: float(values[list(members)].sum()) for name, members in parts.items()}, frame_values


def _seen_parts(model: CLIPMGForMicroGestureClassification, seen: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Parts of the body with a joint that is seen, (K,) bool."""
    parts = body_parts(model.config.keypoint_layout)
    return {name: members for name, members in parts.items() if seen[list(members)].any()}


def _seen(keypoints: torch.Tensor) -> np.ndarray:
    """(1, T_p, K, 3) -> (T_p, K) bool."""
    return (keypoints[0, ..., 2] > 0).cpu().numpy()


def _seen_ever(keypoints: torch.Tensor) -> np.ndarray:
    """(1, T_p, K, 3) -> (K,) bool."""
    return (keypoints[0, ..., 2] > 0).any(dim=0).cpu().numpy()


def stream_influence(
    model: CLIPMGForMicroGestureClassification, inputs: Mapping[str, torch.Tensor], label_id: int | None = None
) -> StreamInfluence:
    """Predict without the frames, and without the keypoints.

    Without the pose the query of the semantic attention changes as well, so the frames are read in another way. A
    model that never missed a stream in training may say anything without one.

    Args:
        model, inputs: As in [`joint_influence`]; any model, the keypoints may be missing.
        label_id: The label that is looked at; by default the best one of the complete prediction.

    Raises:
        ValueError: The inputs hold nothing that the model reads or more than one clip, or no such label.
    """
    with _evaluating(model):
        clip = _encode(model, inputs)
        complete = _log_probabilities(model, clip.tokens, clip.keypoints)[0]
        label_id = _check_label(label_id, complete)
        without_rgb = without_pose = None
        if clip.tokens is not None and clip.keypoints is not None and _seen_ever(clip.keypoints).any():
            without_rgb = _log_probabilities(model, None, clip.keypoints)[0].exp().cpu().numpy()
            without_pose = _log_probabilities(model, clip.tokens, None)[0].exp().cpu().numpy()
    return StreamInfluence(label_id, complete.exp().cpu().numpy(), without_rgb, without_pose)


def explain_clip(
    model: CLIPMGForMicroGestureClassification, prediction: ClipPrediction, label: str | int | None = None
) -> ClipInfluence:
    """Measure all influences on one label of a clip.

    Args:
        model: The model that made the prediction.
        prediction: Made with `explain=True`.
        label: Name or id of the label; by default the predicted one. Another one answers "why not this?".

    Raises:
        ValueError: The prediction holds no explanation, or no such label.
    """
    inputs = explanation_of(prediction).inputs
    label_id = resolve_label(model, prediction.label if label is None else label)
    occlusion = gradient = None
    if prediction.pose_used:
        occlusion, gradient = (
            joint_influence(model, inputs, label_id, method) for method in ("occlusion", "gradient")
        )
    streams = stream_influence(model, inputs, label_id)
    labels = tuple(model.config.id2label[index] for index in range(len(model.config.id2label)))
    return ClipInfluence(label_id, labels, streams, occlusion, gradient)


def resolve_label(model: CLIPMGForMicroGestureClassification, label: str | int) -> int:
    """The id of a label that is given by its name, in any case, or by its id.

    Raises:
        ValueError: The model has no such label; the message names similar ones.
    """
    names = model.config.id2label
    if isinstance(label, int):
        if label not in names:
            raise ValueError(f"label is {label}; the model has the labels 0 to {len(names) - 1}.")
        return label
    ids = {name.casefold(): index for index, name in names.items()}
    if label.casefold() not in ids:
        similar = difflib.get_close_matches(label.casefold(), ids, n=3, cutoff=0.4) or sorted(ids)[:3]
        raise ValueError(
            f"The model has no label {label!r} among its {len(names)}; expected a name such as "
            f"{', '.join(repr(names[ids[name]]) for name in similar)}."
        )
    return ids[label.casefold()]


def gate_curves(windows: Sequence[WindowScores]) -> tuple[GateCurve, ...]:
    """The gate over time of everybody in a timeline (`Timeline.windows`), by the number of the person."""
    curves = []
    for person in sorted({window.person for window in windows}):
        own = sorted((window for window in windows if window.person == person), key=lambda window: window.start)
        gate = [np.nan if window.gate is None else window.gate for window in own]
        curves.append(
            GateCurve(
                person=person,
                seconds=np.array([(window.start_seconds + window.end_seconds) / 2 for window in own]),
                gate=np.array(gate, dtype=np.float32),
                pose_share=np.array([window.pose_share for window in own], dtype=np.float32),
            )
        )
    return tuple(curves)


def gate_histogram(gate: np.ndarray, num_bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """How a clip's gate is spread: the model mixes the streams in each of the D dimensions anew.

    Args:
        gate: (D,) in [0, 1] of `ClipExplanation.gate`.
        num_bins: Bins of equal width over [0, 1].

    Returns:
        Limits float64 (num_bins + 1,) and counts int64 (num_bins,), which sum to D.
    """
    counts, limits = np.histogram(gate, bins=num_bins, range=(0.0, 1.0))
    return limits, counts


def explanation_to_dict(
    prediction: ClipPrediction, influence: ClipInfluence, windows: Sequence[WindowScores] = ()
) -> dict[str, Any]:
    """All numbers of an explanation as JSON values.

    Args:
        prediction, influence, windows: As in `clipmg_hf.explanation_page.write_explanation`.

    Returns:
        `prediction`: as `ClipPrediction.to_dict`, the video without its folders. `label`: the `id` and `name` of the
        label that is explained, its `probability` and `log_probability`. `streams`: its probability, and the best
        `label` with its `score`, `complete`, `without_rgb` and `without_pose`; `null` where there is no such thing.
        `attention`: the `crop` of the source frame (`left`, `top`, `size`, `flipped`), `frame_indices` (T),
        `values` [heads][T][H_p][W_p], and for each frame its `share` of the mean of the heads with the brightest
        pixel `peak` [x, y]; `null` without semantic attention. `gate`: `mean`, `limits` and `counts` of its histogram;
        `null` without. `occlusion` and `gradient`: the `unit`, `joints` and `parts` by name, `seen`, the pose frames
        with each joint, and for the gradient `frames` by joint [T_p] with their `frame_indices`; `null` without pose.
        `gate_over_time`: for each person `seconds`, `gate` and `pose_share`.
    """
    explanation, label_id = explanation_of(prediction), influence.label_id
    probability = float(influence.streams.complete[label_id])
    return {
        "prediction": prediction.to_dict() | {"video": Path(prediction.video).name},
        "label": {
            "id": label_id,
            "name": influence.label,
            "probability": _round(probability),
            "log_probability": _round(np.log(max(probability, 1e-30))),
        },
        "streams": {
            name: None
            if scores is None
            else {
                "probability": _round(scores[label_id]),
                "label": influence.labels[int(scores.argmax())],
                "score": _round(scores.max()),
            }
            for name, scores in influence.streams.by_name().items()
        },
        "attention": _attention_values(explanation),
        "gate": _gate_values(explanation.gate),
        "occlusion": _joint_values(influence.occlusion, OCCLUSION_UNIT, explanation),
        "gradient": _joint_values(influence.gradient, SENSITIVITY_UNIT, explanation),
        "gate_over_time": [
            {
                "person": curve.person,
                "seconds": _round(curve.seconds),
                "gate": _round(curve.gate),
                "pose_share": _round(curve.pose_share),
            }
            for curve in gate_curves(windows)
        ],
    }


def _round(values: Any) -> Any:
    """A number or an array as JSON values of six digits; `None` for NaN."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [_round(value) for value in values]
    return None if np.isnan(values) else float(f"{float(values):.6g}")


def _attention_values(explanation: ClipExplanation) -> dict[str, Any] | None:
    attention, clip = explanation.semantic_attention, explanation.clip
    if attention is None:
        return None
    pixels = attention_on_source(explanation)
    peaks = [np.unravel_index(frame.argmax(), frame.shape)[::-1] for frame in pixels]
    crop = clip.crop
    return {
        "crop": {"left": crop.left, "top": crop.top, "size": crop.size, "flipped": crop.flipped},
        "frame_indices": clip.frame_indices.tolist(),
        "share": _round(attention.mean(axis=0).sum(axis=(1, 2))),
        "peak": [[int(value) for value in peak] for peak in peaks],
        "values": _round(attention),
    }


def _gate_values(gate: np.ndarray | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    limits, counts = gate_histogram(gate)
    return {"mean": _round(gate.mean()), "limits": _round(limits), "counts": counts.tolist()}


def _joint_values(influence: JointInfluence | None, unit: str, explanation: ClipExplanation) -> dict[str, Any] | None:
    if influence is None:
        return None
    names = influence.layout.keypoints
    values = {
        "unit": unit,
        "joints": dict(zip(names, _round(influence.values), strict=True)),
        "parts": {name: _round(value) for name, value in influence.parts.items()},
        "seen": dict(zip(names, influence.seen.sum(axis=0).tolist(), strict=True)),
    }
    if influence.frame_values is not None:
        values["frame_indices"] = explanation.clip.pose_frame_indices.tolist()
        values["frames"] = dict(zip(names, _round(influence.frame_values.T), strict=True))
    return values


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, but with tensors that may enter a graph."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


def _encode(model: CLIPMGForMicroGestureClassification, inputs: Mapping[str, torch.Tensor]) -> _Clip:
    """Run the vision tower once, as no joint changes what it sees, and put zeros where points are masked."""
    tokens, keypoints = inputs.get("pixel_values"), inputs.get("keypoints")
    for name, values in (("pixel_values", tokens), ("keypoints", keypoints)):
        if values is not None and values.shape[0] != 1:
            raise ValueError(f"{name} hold {values.shape[0]} clips; expected one.")
    if not model.config.uses_vision:
        tokens = None
    if not model.config.uses_pose:
        keypoints = None
    if tokens is not None:
        tokens = model.clipmg.encode_frames(tokens.to(model.device, model.dtype))[0]
    if keypoints is not None:
        valid = keypoints[..., 2:] > 0
        if (mask := inputs.get("keypoint_mask")) is not None:
            valid = valid & mask.bool()[..., None, None]
        # Keypoints stay float32: bfloat16 would move them by up to half a pixel.
        keypoints = torch.where(valid, keypoints.float(), 0.0).to(model.device)
    return _Clip(tokens, keypoints)


def _log_probabilities(
    model: CLIPMGForMicroGestureClassification, tokens: torch.Tensor | None, keypoints: torch.Tensor | None
) -> torch.Tensor:
    """Tokens (1, T, 1 + N, D_v) and keypoints (B, T_p, K, 3) to log-probabilities float32 (B, C)."""
    if tokens is not None and keypoints is not None:
        tokens = tokens.expand(len(keypoints), -1, -1, -1)
    return model(vision_tokens=tokens, keypoints=keypoints).logits.float().log_softmax(dim=-1)


def _check_label(label_id: int | None, log_probabilities: torch.Tensor) -> int:
    """The label's id; that of the best one for `None`."""
    if label_id is None:
        return int(log_probabilities.argmax())
    if not 0 <= label_id < len(log_probabilities):
        raise ValueError(f"label_id is {label_id}; the model has the labels 0 to {len(log_probabilities) - 1}.")
    return label_id


__all__ = [
    "OCCLUSION_UNIT",
    "SENSITIVITY_UNIT",
    "ClipInfluence",
    "GateCurve",
    "JointInfluence",
    "StreamInfluence",
    "attention_on_source",
    "body_parts",
    "explain_clip",
    "explanation_of",
    "explanation_to_dict",
    "gate_curves",
    "gate_histogram",
    "joint_influence",
    "resolve_label",
    "stream_influence",
]
