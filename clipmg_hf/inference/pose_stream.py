"""The pose encoder over a stream of frames: overlapping windows share what its layers make of a frame.

Its first layers see one frame at a time. Each of the others looks one frame to either side, and takes for zero what
lies outside of the window. So the n-th of them gives a frame the same values in all windows in which at least n frames
lie on both sides of it: these are computed once. For the n frames at either end of a window they are computed again.
With 9 layers, and windows of 32 frames of which 8 are new, that is 18 frames a layer and window on average, not 32.

Symbols as in `configuration_clipmg`: B windows, T_p pose frames, K keypoints, D_p the width of the pose embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from clipmg_hf.inference.onnx_model import InferenceModel
from clipmg_hf.modeling.pose_encoder_clipmg import CLIPMGPoseEncoder


class PoseWindows:
    """Pose of the windows of one person, while frames come in.

    Args:
        model: As `load_model` returns it.
        offsets (`numpy.ndarray` int64 of shape `(T_p,)`): Frames that a window samples, counted from its start.
        stride (`int`): Frames from a window's start to the next one's.
        batch_size (`int`): Frames that go through the first layers together.
    """

    def __init__(self, model: InferenceModel, offsets: np.ndarray, stride: int, batch_size: int):
        self.model = model
        self.offsets = offsets
        self.batch_size = batch_size
        # By frame: keypoints (K, 3) of the processed frame, where there are some.
        self._keypoints: dict[int, torch.Tensor] = {}
        self._no_keypoints = torch.zeros(model.config.num_keypoints, 3)
        self._no_features: torch.Tensor | None = None
        # Without shared layers, by frame: what the first layers made of it, (C, h, w).
        self._waiting: list[int] = []
        self._features: dict[int, torch.Tensor] = {}
        # With them: frames from one sample to the next, and the first sample of the stream.
        steps = np.unique(np.diff(offsets)).tolist()
        self._step = steps[0] if len(steps) == 1 and steps[0] > 0 and stride % steps[0] == 0 else 0
        self._stride = stride
        self._layers: SharedLayers | None = None
        self._origin = 0

    def add(self, frame: int, keypoints: torch.Tensor) -> None:
        """Take the keypoints (K, 3) of a processed frame that shows the person."""
        self._keypoints[frame] = keypoints
        self._waiting.append(frame)

    def encode(self, start: int, end: int) -> None:
        """Bring the frames before `end` through the layers that windows share; the next window begins at `start`."""
        if not self.model.config.uses_pose:
            return
        encoder: Any = self.model.base_model.pose_encoder
        if self._layers is None and self._waiting and self._step and SharedLayers.fit(encoder, len(self.offsets)):
            self._layers = SharedLayers(encoder, len(self.offsets), self._stride // self._step)
            self._origin = start + int(self.offsets[0])
        if self._layers is not None:
            begin = self._origin + self._layers.end * self._step
            for frames in self._batches(range(begin, end, self._step)):
                self._layers.push(self._encode(frames))
        else:
            for frames in self._batches(self._waiting):
                self._features.update(zip(frames, self._encode(frames)[0], strict=True))
        self._waiting = []

    def inputs(self, starts: np.ndarray) -> dict[str, torch.Tensor]:
        """What the model takes for the windows with these starts (B,); nothing where it can do without."""
        frames = starts[:, None] + self.offsets
        keypoints = gather_frames(self._keypoints, frames, self._no_keypoints)
        if not keypoints.any() and self.model.config.uses_vision:
            return {}
        inputs = {"keypoints": keypoints.to(self.model.device)}
        if self._layers is not None:
            places = (starts + self.offsets[0] - self._origin) // self._step
            visible = (inputs["keypoints"][..., 2] > 0).any(dim=-1)
            inputs["pose_features"] = self._layers.embed(places.tolist(), visible)
        elif self.model.config.uses_pose:
            inputs["pose_features"] = gather_frames(self._features, frames, self._encode_nobody()[0, 0])
        return inputs

    def share(self, start: int, end: int) -> float:
        """Share of a window's sampled frames, those before `end`, that show the person."""
        frames = np.unique(start + self.offsets)
        frames = frames[frames < end].tolist()
        return sum(frame in self._keypoints for frame in frames) / max(len(frames), 1)

    def forget(self, start: int) -> None:
        """Drop what only windows before `start` need."""
        for kept in (self._keypoints, self._features):
            for frame in [frame for frame in kept if frame < start]:
                del kept[frame]
        if not self._keypoints:
            # Nobody comes back for windows without the person; who does come back begins anew.
            self._layers = None
        elif self._layers is not None:
            self._layers.forget((start + int(self.offsets[0]) - self._origin) // self._step)

    def _batches(self, frames: Sequence[int]) -> Iterator[Sequence[int]]:
        return (frames[first : first + self.batch_size] for first in range(0, len(frames), self.batch_size))

    def _encode(self, frames: Sequence[int]) -> torch.Tensor:
        """Features (1, n, C, h, w) of frames."""
        seen = [frame for frame in frames if frame in self._keypoints]
        if not seen:
            return self._encode_nobody().expand(-1, len(frames), -1, -1, -1)
        keypoints = torch.stack([self._keypoints[frame] for frame in seen])
        encoder: Any = self.model.base_model.pose_encoder
        features = encoder.encode_frames(keypoints.unsqueeze(0).to(self.model.device))
        if len(seen) == len(frames):
            return features
        places = {frame: place for place, frame in enumerate(seen)}
        order = [places.get(frame, len(seen)) for frame in frames]
        return torch.cat([features, self._encode_nobody()], dim=1)[:, order]

    def _encode_nobody(self) -> torch.Tensor:
        """Features (1, 1, C, h, w) of a frame without the person."""
        if self._no_features is None:
            encoder: Any = self.model.base_model.pose_encoder
            self._no_features = encoder.encode_frames(self._no_keypoints[None, None].to(self.model.device))
        assert self._no_features is not None
        return self._no_features


class SharedLayers:
    """The layers that look across frames, over a stream; places in it are counted in sampled frames.

    Args:
        encoder: Of the model; `fit` says which will do.
        window (`int`): T_p, frames of a window.
        stride (`int`): Frames from a window's start to the next one's. The first window starts with the stream.
    """

    def __init__(self, encoder: Any, window: int, stride: int):
        self.window = window
        self.stride = stride
        self.end = 0
        self._blocks = _blocks_across_frames(encoder)
        # By layer: the last of the frames (1, C, n, h, w) that go into it, with both neighbours in all layers before.
        # Those of layer d end d frames before the stream does.
        self._inputs: list[torch.Tensor | None] = [None] * len(self._blocks)
        # Means (D_p,) of the last layer's frames by place, and those (L, D_p) of a window's first and last L frames by
        # its start, with L layers.
        self._means: dict[int, torch.Tensor] = {}
        self._heads: dict[int, torch.Tensor] = {}
        self._tails: dict[int, torch.Tensor] = {}
        self._next_head = self._next_tail = 0

    @staticmethod
    def fit(encoder: Any, window: int) -> bool:
        """Whether layers and windows are such that they can be shared."""
        # Not those of an exported model.
        if not isinstance(encoder, CLIPMGPoseEncoder):
            return False
        blocks = _blocks_across_frames(encoder)
        looks_aside = all(block.conv1.conv.kernel_size[0] == 3 for block in blocks)
        return looks_aside and encoder.temporal_stride == 1 and 0 < 2 * len(blocks) <= window

    def push(self, features: torch.Tensor) -> None:
        """Take what the layers before made of the next frames, (1, n, C, h, w)."""
        self.end += features.shape[1]
        # (1, n, C, h, w) -> (1, C, n, h, w)
        new = features.transpose(1, 2)
        for depth, block in enumerate(self._blocks):
            held = self._inputs[depth]
            frames = new if held is None else _join([held, new])
            self._inputs[depth] = frames
            if frames.shape[2] < 3:
                break
            frames = frames[:, :, -(new.shape[2] + 2) :]
            new = _finish(block, block.conv1(frames)[:, :, 1:-1], frames[:, :, 1:-1])
        else:
            # (1, D_p, n, h, w) -> (n, D_p)
            means = new.mean(dim=(-2, -1))[0].T
            first = self.end - len(self._blocks) - len(means)
            self._means.update(zip(range(first, first + len(means)), means, strict=True))
        self._compute_ends()

    def embed(self, starts: Sequence[int], visible: torch.Tensor) -> torch.Tensor:
        """Pose embeddings (B, D_p) of windows that the stream has passed; `visible` (B, T_p): who is seen."""
        reach = len(self._blocks)
        means = []
        for start in starts:
            middle = [self._means[place] for place in range(start + reach, start + self.window - reach)]
            means.append(torch.cat([self._heads[start], *[mean[None] for mean in middle], self._tails[start]]))
        weights = visible.float()
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
        # (B, T_p), (B, T_p, D_p) -> (B, D_p)
        frames = torch.stack(means)
        return (frames * weights.to(frames.dtype).unsqueeze(-1)).sum(dim=1)

    def forget(self, start: int) -> None:
        """Drop what only windows that start before this place need."""
        for kept in (self._means, self._heads, self._tails):
            for place in [place for place in kept if place < start]:
                del kept[place]

    def _compute_ends(self) -> None:
        """Compute the first and last frames of the windows for which the stream has come far enough."""
        reach = len(self._blocks)
        heads, tails = [], []
        while self._next_head + 2 * reach <= self.end:
            heads.append(self._next_head)
            self._next_head += self.stride
        while self._next_tail + self.window <= self.end:
            tails.append(self._next_tail)
            self._next_tail += self.stride
        if heads or tails:
            # (B, D_p, L, h, w) -> (B, L, D_p)
            means = self._run_ends(heads, [start + self.window for start in tails]).mean(dim=(-2, -1)).mT
            self._heads.update(zip(heads, means, strict=False))
            self._tails.update(zip(tails, means[len(heads) :], strict=True))
        for depth, frames in enumerate(self._inputs):
            if frames is not None:
                # A copy: a view would keep all of them.
                self._inputs[depth] = frames[:, :, -max(2, 2 * (reach - depth) - 1) :].clone()

    def _run_ends(self, heads: Sequence[int], tails: Sequence[int]) -> torch.Tensor:
        """First L frames of windows that start at `heads`, last L of those that end at `tails`, in the last layer."""
        ends: torch.Tensor | None = None
        for depth, block in enumerate(self._blocks):
            frames = self._inputs[depth]
            assert frames is not None
            base = self.end - depth - frames.shape[2]
            places = [head + depth - base for head in heads] + [tail - depth - 2 - base for tail in tails]
            windows = [frames[:, :, place : place + 2] for place in places]
            # Beside them lie the frames of the layer before, and behind those nothing, which convolutions take for 0.
            if ends is not None:
                windows = [
                    _join([end, inner] if index < len(heads) else [inner, end])
                    for index, (end, inner) in enumerate(zip(ends.split(1), windows, strict=True))
                ]
            hidden = block.conv1(_stack(windows)).split(1)
            # The innermost frame lacks its neighbour.
            kept = [slice(None, -1)] * len(heads) + [slice(1, None)] * len(tails)
            hidden, inputs = (
                _stack([window[:, :, own] for window, own in zip(part, kept, strict=True)])
                for part in (hidden, windows)
            )
            ends = _finish(block, hidden, inputs)
        assert ends is not None
        return ends


def _blocks_across_frames(encoder: Any) -> list[Any]:
    stages = range(encoder.num_frame_stages, encoder.num_stages)
    return [block for stage in stages for block in getattr(encoder, f"layer{stage + 1}")]


def _finish(block: Any, hidden: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """A block after its first convolution, of whose frames `hidden` has those of `inputs`."""
    residual = inputs if block.downsample is None else block.downsample(inputs)
    return nn.functional.relu(block.conv3(block.conv2(hidden)).add_(residual), inplace=True)


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """One part (B, C, n, h, w) after the other in time, with channels last in memory."""
    return torch.cat([part.movedim(1, -1) for part in parts], dim=1).movedim(-1, 1)


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Windows (1, C, n, h, w) to a batch of them, with channels last in memory."""
    return torch.cat([part.movedim(1, -1) for part in parts]).movedim(-1, 1)


def gather_frames(values: Mapping[int, torch.Tensor], frames: np.ndarray, default: torch.Tensor) -> torch.Tensor:
    """Stack the values of the frames (B, n) to (B, n, ...)."""
    return torch.stack([values.get(frame, default) for frame in frames.ravel().tolist()]).unflatten(0, frames.shape)


__all__ = ["PoseWindows", "SharedLayers", "gather_frames"]
