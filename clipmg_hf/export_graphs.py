"""The graphs that are exported, as modules with named tensors in and a dictionary of tensors out.

Symbols as in `configuration_clipmg`: B clips of T RGB frames and T_p pose frames, K keypoints, N patches, D_v the
tower's width; S is the side of a processed frame, H and W are the size of a source frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from clipmg_hf.inference.onnx_model import MODEL, POSE_FRAMES, RAW_MODEL, VISION_TOWER, WINDOW_HEAD
from clipmg_hf.modeling import CLIPMGClassifierOutput, CLIPMGForMicroGestureClassification
from clipmg_hf.processing import CLIPMGProcessor
from clipmg_hf.processing.video_processing_clipmg import normalize_pixels


_OUTPUTS = ("logits", "gate", "semantic_attention")


class ClipGraph(nn.Module):
    """Processed frames and keypoints to scores."""

    def __init__(self, model: CLIPMGForMicroGestureClassification):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        keypoints: torch.Tensor | None = None,
        keypoint_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """As the model's own; each stream comes with its mask."""
        return _name_outputs(
            self.model(
                pixel_values=pixel_values,
                frame_mask=frame_mask,
                keypoints=keypoints,
                keypoint_mask=keypoint_mask,
                output_explanation=True,
            )
        )


class RawClipGraph(nn.Module):
    """Source frames and keypoints in their pixels to scores: cuts, scales and normalises inside the graph."""

    def __init__(self, model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor):
        super().__init__()
        self.model = model
        self.settings = processor.video_processor.resolve_settings()

    def forward(
        self,
        crops: torch.Tensor,
        frames: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        source_keypoints: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Classify clips.

        Args:
            crops (`torch.LongTensor` of shape `(B, 3)`): Left, top and side, in pixels of the source frame, of the
                square that both streams are cut to. It may leave the frame; what lies outside is black.
            frames (`torch.ByteTensor` of shape `(B, T, H, W, 3)`): Upright RGB.
            frame_mask (`torch.BoolTensor` of shape `(B, T)`): False where a frame is missing.
            source_keypoints (`torch.FloatTensor` of shape `(B, T_p, K, 3)`): x, y in pixels of the source frame and
                confidence, in the model's layout; (0, 0, 0) where missing.
        """
        pixel_values, keypoints = None, None
        if frames is not None:
            settings = self.settings
            pixels = crop_and_resize_clips(frames, crops, settings.size.height)
            pixel_values = normalize_pixels(pixels, settings.image_mean, settings.image_std)
        if source_keypoints is not None:
            position, confidence = source_keypoints[..., :2], source_keypoints[..., 2:]
            is_valid = (confidence > 0) & (position != 0).any(dim=-1, keepdim=True)
            corner, side = crops[:, None, None, :2].float(), crops[:, None, None, 2:].float()
            processed = torch.cat([(position + 0.5 - corner) / side, confidence], dim=-1)
            keypoints = torch.where(is_valid, processed, 0.0)
        return _name_outputs(
            self.model(pixel_values=pixel_values, frame_mask=frame_mask, keypoints=keypoints, output_explanation=True)
        )


class VisionTowerGraph(nn.Module):
    """Processed frames (n, 3, S, S), of any clips, to tokens (n, 1 + N, D_v)."""

    def __init__(self, model: CLIPMGForMicroGestureClassification):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode frames."""
        tokens, _ = self.model.base_model.encode_frames(pixel_values.unsqueeze(1))
        return {"vision_tokens": tokens.squeeze(1)}


class PoseFramesGraph(nn.Module):
    """Keypoints (n, K, 3) of the processed frame, of any clips, to pose features (n, C, h, w)."""

    def __init__(self, model: CLIPMGForMicroGestureClassification):
        super().__init__()
        self.model = model

    def forward(self, keypoints: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode pose frames."""
        encoder: Any = self.model.base_model.pose_encoder
        return {"pose_features": encoder.encode_frames(keypoints.unsqueeze(1)).squeeze(1)}


class WindowHeadGraph(nn.Module):
    """What the two graphs above made of the frames of a clip to its scores."""

    def __init__(self, model: CLIPMGForMicroGestureClassification):
        super().__init__()
        self.model = model

    def forward(
        self,
        vision_tokens: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        keypoints: torch.Tensor | None = None,
        pose_features: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Classify clips: tokens (B, T, 1 + N, D_v), keypoints (B, T_p, K, 3), features (B, T_p, C, h, w)."""
        return _name_outputs(
            self.model(
                vision_tokens=vision_tokens,
                frame_mask=frame_mask,
                keypoints=keypoints,
                pose_features=pose_features,
                output_explanation=True,
            )
        )


def _name_outputs(outputs: CLIPMGClassifierOutput) -> dict[str, torch.Tensor]:
    return {name: outputs[name] for name in _OUTPUTS if outputs.get(name) is not None}


def crop_and_resize_clips(frames: torch.Tensor, crops: torch.Tensor, size: int) -> torch.Tensor:
    """Cut a square out of every clip and scale it as `geometry_clipmg.crop_and_resize` does, each at its own place.

    The antialiased bicubic filter is written as two matrix products, columns first, each rounded to whole values as
    the filter for uint8 does. That one has weights of 16 bits, so values differ by rounding: by 1 in less than 1 % of
    them, seldom by 2.

    Args:
        frames (`torch.ByteTensor` of shape `(B, T, H, W, 3)`): RGB.
        crops (`torch.LongTensor` of shape `(B, 3)`): Left, top and side in pixels.
        size (`int`): Side of the result.

    Returns:
        `torch.Tensor` of shape `(B, T, 3, size, size)`: float32 whole numbers in 0..255.
    """
    left, top, side = crops.unbind(dim=1)
    columns = resize_weights(left, side, frames.shape[3], size)
    rows = resize_weights(top, side, frames.shape[2], size)
    # (B, T, H, W, 3) -> (B, T, 3, H, W)
    pixels = frames.permute(0, 1, 4, 2, 3).float()
    # (B, T, 3, H, W) -> (B, T, 3, H, size) -> (B, T, 3, size, size)
    pixels = torch.matmul(pixels, columns[:, None, None].transpose(-1, -2)).round().clamp(0, 255)
    return torch.matmul(rows[:, None, None], pixels).round().clamp(0, 255)


def resize_weights(first: torch.Tensor, side: torch.Tensor, length: int, size: int) -> torch.Tensor:
    """Weights of source pixels in the pixels of a scaled square, along one axis.

    Args:
        first, side (`torch.LongTensor` of shape `(B,)`): Where the square starts, and its side.
        length (`int`): Pixels of the source frame along the axis.
        size (`int`): Pixels of the result.

    Returns:
        `torch.Tensor` of shape `(B, size, length)`: rows sum to 1, or to less where the square leaves the frame.
    """
    scale = (side / size)[:, None, None]
    centre = (torch.arange(size, device=side.device) + 0.5)[:, None] * scale
    stretch = scale.clamp(min=1.0)
    # A row sums to 1 with the pixels that lie outside the frame, of which a frame's length to each side is enough: a
    # filter that is wider belongs to a square in which the frame is a speck.
    places = torch.arange(3 * length, device=side.device) - length - first[:, None, None]
    start = torch.trunc(centre - 2 * stretch + 0.5).clamp(min=0)
    end = torch.minimum(torch.trunc(centre + 2 * stretch + 0.5), side[:, None, None].float())
    weights = _cubic((places - centre + 0.5) / stretch)
    weights = torch.where((places >= start) & (places < end), weights, 0.0)
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    return weights[..., length : 2 * length]


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """The cubic convolution filter with a = -0.5, as for all antialiased resizing."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


@dataclass(frozen=True, eq=False)
class Graph:
    """A module to export.

    Args:
        name: File name.
        module: The module, in eval mode.
        make_inputs: Examples of the inputs for a number of clips (or frames, or pose frames): the first has both
            streams, the second no frames, the third no pose, the others a part of each.
        axes: Names of the axes that may have any length, by input and axis.
    """

    name: str
    module: nn.Module
    make_inputs: Callable[[int], dict[str, torch.Tensor]]
    axes: dict[str, dict[int, str]]


def make_graphs(model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor) -> list[Graph]:
    """The graphs of a model: of a clip, of a clip with preprocessing, and the parts that a stream of frames needs."""
    config = model.config
    modules: dict[str, nn.Module] = {MODEL: ClipGraph(model), RAW_MODEL: RawClipGraph(model, processor)}
    if config.uses_vision:
        modules[VISION_TOWER] = VisionTowerGraph(model)
    if config.uses_pose:
        modules[POSE_FRAMES] = PoseFramesGraph(model)
    modules[WINDOW_HEAD] = WindowHeadGraph(model)
    graphs = []
    for name, module in modules.items():
        make_inputs = partial(_make_inputs, name, model, processor)
        first = {VISION_TOWER: "frames", POSE_FRAMES: "pose_frames"}.get(name, "clips")
        axes = {key: {0: first, **({2: "height", 3: "width"} if key == "frames" else {})} for key in make_inputs(2)}
        graphs.append(Graph(name, module.eval(), make_inputs, axes))
    return graphs


@torch.no_grad()
def _make_inputs(
    name: str, model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, count: int
) -> dict[str, torch.Tensor]:
    config, generator = model.config, torch.Generator().manual_seed(count)
    size = processor.video_processor.resolve_settings().size.height
    images = torch.randn(count, config.num_frames, 3, size, size, generator=generator)
    keypoints = torch.rand(count, config.num_pose_frames, config.num_keypoints, 3, generator=generator)
    if name == VISION_TOWER:
        return {"pixel_values": images[:, 0]}
    if name == POSE_FRAMES:
        return {"keypoints": keypoints[:, 0]}
    frame_mask = _make_mask(count, config.num_frames, 1, generator)
    keypoint_mask = _make_mask(count, config.num_pose_frames, 2, generator)
    masked = torch.where(keypoint_mask[..., None, None], keypoints, 0.0)
    visual, pose = {"pixel_values": images}, {"keypoints": keypoints, "keypoint_mask": keypoint_mask}
    crops: dict[str, torch.Tensor] = {}
    if name == RAW_MODEL:
        crops = {"crops": torch.tensor([[-3, 5, 40], [8, 0, 24], [0, -8, 64]])[torch.arange(count) % 3]}
        shape = (count, config.num_frames, 48, 64, 3)
        visual = {"frames": torch.randint(256, shape, dtype=torch.uint8, generator=generator)}
        pose = {"source_keypoints": masked * torch.tensor([64.0, 48.0, 1.0])}
    if name == WINDOW_HEAD:
        if config.uses_vision:
            visual = {"vision_tokens": model.base_model.encode_frames(images)[0]}
        if config.uses_pose:
            encoder: Any = model.base_model.pose_encoder
            pose = {"keypoints": masked, "pose_features": encoder.encode_frames(masked)}
    visual["frame_mask"] = frame_mask
    return {**crops, **(visual if config.uses_vision else {}), **(pose if config.uses_pose else {})}


def _make_mask(count: int, length: int, missing: int, generator: torch.Generator) -> torch.Tensor:
    """(count, length) bool: row 0 has everything, row `missing` nothing, the others a part."""
    mask = torch.rand(count, length, generator=generator) > 0.3
    mask[0] = True
    mask[missing : missing + 1] = False
    return mask


__all__ = ["Graph", "crop_and_resize_clips", "make_graphs", "resize_weights"]
