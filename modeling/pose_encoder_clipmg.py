"""The pose encoder: SlowOnly-R50 "light" of PoseConv3D (Duan et al. 2022) over keypoint heatmaps.

Shapes and parameter names are those of PYSKL and mmaction2, so their checkpoints initialise it: drop the `backbone.`
prefix of theirs and put `POSE_ENCODER_PREFIX` in front (see `pose_encoder_weights_from_poseconv3d`).
"""

import re
from collections.abc import Mapping
from math import prod
from typing import cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.import_utils import is_torchdynamo_exporting

from .configuration_clipmg import CLIPMGConfig
from .heatmaps_clipmg import draw_heatmaps


POSE_ENCODER_PREFIX = "clipmg.pose_encoder."
# Their names -> ours. Their classifier (`cls_head.fc_cls`) belongs to other classes and is left behind.
POSECONV3D_KEY_MAP = {
    r"^backbone\.conv1\.(conv|bn)\.(.+)$": POSE_ENCODER_PREFIX + r"conv1.\1.\2",
    r"^backbone\.layer(\d+)\.(\d+)\.(conv[123]|downsample)\.(conv|bn)\.(.+)$": (
        POSE_ENCODER_PREFIX + r"layer\1.\2.\3.\4.\5"
    ),
    r"^cls_head\..+$": None,
}


class CLIPMGBatchNorm(nn.BatchNorm3d):
    """Batch norm whose running statistics count a batch once, also under activation checkpointing."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # Checkpointing runs a block a second time during the backward pass, and only then is there a graph task.
        # Compiled graphs recompute without repeating the update.
        if self.training and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            assert self.running_mean is not None and self.running_var is not None
            mean, variance = self.running_mean.clone(), self.running_var.clone()
            return nn.functional.batch_norm(
                hidden_states, mean, variance, self.weight, self.bias, training=True, eps=self.eps
            )
        return super().forward(hidden_states)


class CLIPMGConv3d(nn.Conv3d):
    """3-D convolution that looks along time or across space, which on CPUs is done as a 2-D one of the same values.

    In one thread torch sends float32 kernels of one pixel to a routine that copies the input and takes 2.4 times as
    long as oneDNN; as 2-D convolutions all of them go to oneDNN.
    """

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if input.device.type != "cpu" or input.dtype != torch.float32 or is_torchdynamo_exporting():
            return super()._conv_forward(input, weight, bias)
        stride, padding = self.stride, cast(tuple[int, ...], self.padding)
        if self.kernel_size[0] == stride[0] == 1:
            # (B, C, T, h, w) -> (B * T, C, h, w)
            frames = input.transpose(1, 2).flatten(0, 1)
            frames = nn.functional.conv2d(frames, weight.squeeze(2), bias, stride[1:], padding[1:])
            return frames.unflatten(0, (input.shape[0], input.shape[2])).transpose(1, 2)
        if self.kernel_size[1:] == stride[1:] == (1, 1):
            # A batch of one loses its memory format when flattened, and torch then goes by that of the weight.
            weight = weight.squeeze(-1).contiguous(memory_format=torch.channels_last)
            # (B, C, T, h, w) -> (B, C, T, h * w)
            pixels = nn.functional.conv2d(input.flatten(3), weight, bias, (stride[0], 1), (padding[0], 0))
            return pixels.unflatten(-1, input.shape[3:])
        return super()._conv_forward(input, weight, bias)


class CLIPMGConvModule(nn.Module):
    """3-D convolution, batch norm and (optionally) ReLU, named as in PYSKL and mmaction2.

    Outside of training the norm is folded into the convolution; the parameters stay what they are.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        activate: bool = True,
    ):
        super().__init__()
        padding = (kernel_size[0] // 2, kernel_size[1] // 2, kernel_size[2] // 2)
        self.conv = CLIPMGConv3d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = CLIPMGBatchNorm(out_channels)
        self.activate = activate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.bn.training or not isinstance(self.conv, CLIPMGConv3d):
            # An adapter around the convolution has its own forward.
            hidden_states = self.bn(self.conv(hidden_states))
        else:
            hidden_states = self.conv._conv_forward(hidden_states, *self._fold_norm())
        return nn.functional.relu(hidden_states, inplace=True) if self.activate else hidden_states

    def _fold_norm(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the convolution that does what convolution and norm do with the running statistics."""
        norm = self.bn
        scale = norm.weight.float() * torch.rsqrt(cast(torch.Tensor, norm.running_var).float() + norm.eps)
        weight = self.conv.weight * scale.view(-1, 1, 1, 1, 1)
        bias = norm.bias - cast(torch.Tensor, norm.running_mean) * scale
        return weight.to(self.conv.weight.dtype), bias.to(self.conv.weight.dtype)


class CLIPMGPoseBlock(GradientCheckpointingLayer):
    """Bottleneck block; `inflate` lets its first convolution see one pose frame to each side."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: tuple[int, int, int], inflate: bool, downsample: bool):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = CLIPMGConvModule(in_channels, width, (3, 1, 1) if inflate else (1, 1, 1))
        self.conv2 = CLIPMGConvModule(width, width, (1, 3, 3), stride)
        self.conv3 = CLIPMGConvModule(width, out_channels, (1, 1, 1), activate=False)
        self.downsample = (
            CLIPMGConvModule(in_channels, out_channels, (1, 1, 1), stride, activate=False) if downsample else None
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states if self.downsample is None else self.downsample(hidden_states)
        hidden_states = self.conv3(self.conv2(self.conv1(hidden_states)))
        return nn.functional.relu(hidden_states + residual, inplace=True)


class CLIPMGPoseEncoder(nn.Module):
    """Keypoints to one pose embedding per clip (sizes: ours; the paper says "a 3D CNN")."""

    def __init__(self, config: CLIPMGConfig):
        super().__init__()
        self.heatmap_size = config.heatmap_size
        self.heatmap_sigma = config.heatmap_sigma
        self.conv1 = CLIPMGConvModule(config.num_keypoints, config.pose_base_width, (1, 7, 7))
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=1, padding=(0, 1, 1))
        self.num_stages = len(config.pose_stage_blocks)
        self.temporal_stride = prod(config.pose_temporal_strides)
        channels = config.pose_base_width
        for stage in range(self.num_stages):
            width = config.pose_base_width * 2**stage
            temporal, spatial = config.pose_temporal_strides[stage], config.pose_spatial_strides[stage]
            blocks = []
            for index in range(config.pose_stage_blocks[stage]):
                stride = (temporal, spatial, spatial) if index == 0 else (1, 1, 1)
                inflate = bool(config.pose_inflate[stage])
                blocks.append(CLIPMGPoseBlock(channels, width, stride, inflate, downsample=index == 0))
                channels = width * CLIPMGPoseBlock.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        # Leading stages that see one pose frame at a time.
        is_temporal = [
            bool(inflate) or stride > 1
            for inflate, stride in zip(config.pose_inflate, config.pose_temporal_strides, strict=True)
        ]
        self.num_frame_stages = [*is_temporal, True].index(True)

    def forward(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Encode keypoints.

        Args:
            keypoints (`torch.Tensor` of shape `(B, T_p, K, 3)`): Normalised keypoints; missing points hold zeros.

        Returns:
            `torch.Tensor` of shape `(B, D_p)`: mean over space and over the frames with a point; 0 where none has.
        """
        return self.combine(self.encode_frames(keypoints), (keypoints[..., 2] > 0).any(dim=-1))

    def encode_frames(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Apply the layers that see one pose frame at a time; overlapping clips share what this returns.

        Args:
            keypoints (`torch.Tensor` of shape `(B, T_p, K, 3)`): As in `forward`; any number of frames.

        Returns:
            `torch.Tensor` of shape `(B, T_p, C, h, w)`: Features of each frame, whatever the others are.
        """
        heatmaps = draw_heatmaps(
            keypoints, self.heatmap_size, self.heatmap_sigma, self.conv1.conv.weight.dtype, keypoints_last=True
        )
        # (B, T_p, size, size, K) -> (B, K, T_p, size, size): keypoints become channels
        hidden_states = self.maxpool(self.conv1(_arrange(heatmaps.movedim(-1, 1))))
        for stage in range(self.num_frame_stages):
            hidden_states = getattr(self, f"layer{stage + 1}")(hidden_states)
        # (B, C, T_p, h, w) -> (B, T_p, C, h, w)
        return hidden_states.transpose(1, 2)

    def combine(self, features: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Apply the layers that look across frames, and average.

        Args:
            features (`torch.Tensor` of shape `(B, T_p, C, h, w)`): What `encode_frames` made of the frames, in order.
            visible (`torch.BoolTensor` of shape `(B, T_p)`): Which frames have a point.

        Returns:
            `torch.Tensor` of shape `(B, D_p)`: As in `forward`.
        """
        # (B, T_p, C, h, w) -> (B, C, T_p, h, w)
        hidden_states = _arrange(features.transpose(1, 2))
        for stage in range(self.num_frame_stages, self.num_stages):
            hidden_states = getattr(self, f"layer{stage + 1}")(hidden_states)
        # (B, D_p, T_p / stride, h, w) -> (B, D_p, T_p / stride)
        hidden_states = hidden_states.mean(dim=(-2, -1))
        # A strided step counts as visible when any of its frames is. `max_pool1d` would tie a compiled graph to one
        # number of frames.
        weights = visible[:, None, None].float()
        weights = nn.functional.max_pool2d(weights, (1, self.temporal_stride), ceil_mode=True).flatten(1, 2)
        weights = (weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)).to(hidden_states.dtype)
        return (hidden_states * weights).sum(dim=-1)


def _arrange(hidden_states: torch.Tensor) -> torch.Tensor:
    """Lay (B, C, T_p, h, w) out in memory as the device's convolutions like it."""
    # Narrow 3-D convolutions on CPUs are faster with channels last, by more than the copy costs.
    is_cpu = hidden_states.device.type == "cpu"
    return hidden_states.contiguous(memory_format=torch.channels_last_3d if is_cpu else torch.contiguous_format)


def pose_encoder_weights_from_poseconv3d(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of a PYSKL or mmaction2 PoseConv3D (SlowOnly) checkpoint to ours.

    Args:
        state_dict: Their `state_dict`, e.g. of `posec3d/slowonly_r50_*`; load it with `weights_only=True`.

    Returns:
        `dict`: Weights under the names of [`CLIPMGForMicroGestureClassification`], ready for `load_state_dict`.

    Raises:
        ValueError: A name belongs to no layer of a SlowOnly network; the message lists such names.
    """
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        pattern = next((pattern for pattern in POSECONV3D_KEY_MAP if re.match(pattern, name)), None)
        if pattern is None:
            unknown.append(name)
        elif (replacement := POSECONV3D_KEY_MAP[pattern]) is not None:
            renamed[re.sub(pattern, replacement, name)] = tensor
    if unknown:
        raise ValueError(f"Not the names of a PoseConv3D SlowOnly checkpoint: {', '.join(sorted(unknown)[:8])}.")
    return renamed


__all__ = ["POSECONV3D_KEY_MAP", "CLIPMGPoseEncoder", "pose_encoder_weights_from_poseconv3d"]
