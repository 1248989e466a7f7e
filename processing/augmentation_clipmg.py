"""Random changes of one clip in training: a shorter stretch, lost streams, lost and shaky keypoints, other colours.

Each purpose has its own generator, a child of the clip's; see `child_generator`. Options of one purpose are drawn
together and always all of them, so that switching one on leaves the draws of every other as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, cast

import numpy as np
import torch


Stream = Literal["video", "pose"]

# Luma of R, G and B, with torchvision's digits.
_LUMA = (0.2989, 0.587, 0.114)


class Purpose(IntEnum):
    """What the draws of a child generator are for. The numbers are part of what a seed means: never reuse one."""

    TIME = 0
    STREAMS = 1
    KEYPOINT_DROPOUT = 2
    KEYPOINT_NOISE = 3
    COLOUR = 4


def child_generator(generator: np.random.Generator, purpose: Purpose) -> np.random.Generator:
    """Derive the generator of one purpose from the seed of `generator`, which is left as it is.

    The child is the same whatever has been drawn from `generator`, and independent of it.
    """
    seeds = cast(np.random.SeedSequence, generator.bit_generator.seed_seq)
    return np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, int(purpose))))


def draw_stretch(num_available: int, least_share: float, generator: np.random.Generator) -> tuple[int, int]:
    """Draw a random stretch of a clip.

    Args:
        num_available (`int`): Frames in the clip, at least 1.
        least_share (`float`): The share that is kept is uniform in [least_share, 1].
        generator (`numpy.random.Generator`): Source of the randomness.

    Returns:
        `tuple`: First frame and number of frames, at least 1.
    """
    num_frames = max(1, round(num_available * float(generator.uniform(least_share, 1.0))))
    return int(generator.integers(num_available - num_frames + 1)), num_frames


def draw_dropped_stream(drop_video: float, drop_pose: float, generator: np.random.Generator) -> Stream | None:
    """Draw which stream of a clip is lost, never both.

    Args:
        drop_video, drop_pose (`float`): Their probabilities; the sum is at most 1.
        generator (`numpy.random.Generator`): Source of the randomness.
    """
    draw = generator.random()
    # At opposite ends of [0, 1): the probability of one stream does not change for which clips the other is lost.
    if draw < drop_video:
        return "video"
    return "pose" if draw >= 1 - drop_pose else None


def drop_keypoints(
    points: np.ndarray, drop_points: float, drop_frames: float, generator: np.random.Generator
) -> np.ndarray:
    """Lose keypoints as a detector does: some of them all the time, and all of them some of the time.

    Args:
        points (`numpy.ndarray` of shape `(T_p, K, 3)`): (0, 0, 0) where missing.
        drop_points (`float`): Probability of each of the K points to be missing in the whole clip.
        drop_frames (`float`): Probability of each pose frame to lose all of its points.
        generator (`numpy.random.Generator`): Source of the randomness.

    Returns:
        `numpy.ndarray` of the same shape. If no valid point were left, all are: a whole stream is lost through
        `draw_dropped_stream` alone.
    """
    num_frames, num_keypoints = points.shape[:2]
    # (K,) and (T_p, 1) -> (T_p, K, 1)
    is_lost = (generator.random(num_keypoints) < drop_points) | (generator.random((num_frames, 1)) < drop_frames)
    kept = np.where(is_lost[..., None], 0.0, points)
    return kept if (kept[..., 2] > 0).any() else points


def shake_keypoints(points: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise to the valid points, independent between points, frames and axes and of the confidence.

    Args:
        points (`numpy.ndarray` of shape `(T_p, K, 3)`): (0, 0, 0) where missing.
        deviation (`float`): Standard deviation in pixels.
        generator (`numpy.random.Generator`): Source of the randomness.
    """
    noise = deviation * generator.standard_normal((*points.shape[:2], 2))
    shaken = points.copy()
    shaken[..., :2] += np.where(points[..., 2:] > 0, noise, 0.0)
    return shaken


@dataclass(frozen=True)
class ColourChange:
    """One change of colours for all frames of a clip, as torchvision's `ColorJitter` defines it.

    Args:
        brightness, contrast, saturation (`float`): Factors, at least 0; 1 changes nothing.
        hue (`float`): Turn of the colour circle, in [-0.5, 0.5]; 0 changes nothing.
        order (`tuple[int, ...]`): Permutation of (0, 1, 2, 3): the order in which these four are applied.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...] = (0, 1, 2, 3)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Change uint8 RGB (T, 3, H, W); rounded once, at the end."""
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        steps = (
            (self.brightness, 1.0, change_brightness),
            (self.contrast, 1.0, change_contrast),
            (self.saturation, 1.0, change_saturation),
            (self.hue, 0.0, change_hue),
        )
        for amount, neutral, change in (steps[index] for index in self.order):
            if amount != neutral:
                values = change(values, amount)
        return values.round().to(torch.uint8)


def draw_colour_change(limits: Sequence[float], generator: np.random.Generator) -> ColourChange:
    """Draw factors and their order.

    Args:
        limits (`Sequence[float]`): Of brightness, contrast, saturation and hue. The first three factors are uniform in
            [max(0, 1 - limit), 1 + limit], the hue in [-limit, limit].
        generator (`numpy.random.Generator`): Source of the randomness.
    """
    order = tuple(int(index) for index in generator.permutation(len(limits)))
    ranges = [(max(0.0, 1.0 - limit), 1.0 + limit) for limit in limits[:3]] + [(-limits[3], limits[3])]
    shares = generator.random(len(limits))
    amounts = [least + (most - least) * float(share) for (least, most), share in zip(ranges, shares, strict=True)]
    return ColourChange(amounts[0], amounts[1], amounts[2], amounts[3], order)


def change_brightness(values: torch.Tensor, factor: float) -> torch.Tensor:
    """Scale float RGB (T, 3, H, W) in [0, 255]."""
    return (values * factor).clamp_(0, 255)


def change_contrast(values: torch.Tensor, factor: float) -> torch.Tensor:
    """Move float RGB (T, 3, H, W) in [0, 255] away from the mean grey of each frame, or towards it."""
    # In float64, so that the number of threads, which is the order of the sum, leaves no trace.
    mean = _grey(values).mean(dim=(-3, -2, -1), keepdim=True, dtype=torch.float64)
    return (values * factor).add_((mean * (1 - factor)).float()).clamp_(0, 255)


def change_saturation(values: torch.Tensor, factor: float) -> torch.Tensor:
    """Move float RGB (T, 3, H, W) in [0, 255] away from the grey of each pixel, or towards it."""
    return (values * factor).add_(_grey(values).mul_(1 - factor)).clamp_(0, 255)


def change_hue(values: torch.Tensor, turn: float) -> torch.Tensor:
    """Turn the hue of float RGB (T, 3, H, W) in [0, 255] by a share of the circle; HSV value and saturation stay."""
    red, green, blue = values.unbind(-3)
    value = values.amax(dim=-3)
    chroma = value - values.amin(dim=-3)
    # Grey has no hue, and any other than NaN will do.
    scale = chroma.clamp(min=torch.finfo(chroma.dtype).tiny).reciprocal_()
    # In sixths of the circle: red at 0, green at 2, blue at 4.
    hue = torch.where(
        value == red,
        (green - blue).mul_(scale),
        torch.where(value == green, (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)),
    ).add_(6 * turn)
    hue.sub_((hue / 6).floor_().mul_(6))
    # How far each channel lies below the value, as a share of the chroma: the six cases of HSV in three lines.
    depths = (2 - (hue - 3).abs_(), (hue - 2).abs_().sub_(1), (hue - 4).abs_().sub_(1))
    return torch.stack([value - depth.clamp_(0, 1).mul_(chroma) for depth in depths], dim=-3)


def _grey(values: torch.Tensor) -> torch.Tensor:
    """(T, 3, H, W) -> (T, 1, H, W)."""
    red, green, blue = (channel * weight for channel, weight in zip(values.unbind(-3), _LUMA, strict=True))
    return red.add_(green).add_(blue).unsqueeze_(-3)


__all__ = [
    "ColourChange",
    "Purpose",
    "change_brightness",
    "change_contrast",
    "change_hue",
    "change_saturation",
    "child_generator",
    "draw_colour_change",
    "draw_dropped_stream",
    "draw_stretch",
    "drop_keypoints",
    "shake_keypoints",
]
