"""One index grid and one square crop for both streams: what keeps frames and keypoints together.

Coordinates in pixels of the source frame have integers at pixel centres, as OpenPose writes them. Coordinates of the
processed frame lie in [0, 1], (0, 0) its top left corner and (1, 1) its bottom right corner.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True)
class SquareCrop:
    """A square of whole source pixels, mirrored or not. It may leave the frame; what lies outside is black.

    Args:
        left, top (`int`): First column and row, in pixels of the source frame; may be negative.
        size (`int`): Side in pixels.
        flipped (`bool`): Whether the processed frame is mirrored left to right.
    """

    left: int
    top: int
    size: int
    flipped: bool = False

    def to_processed(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) source pixels to float64 of the processed frame, in [0, 1] for points inside the crop."""
        points = (np.asarray(points, dtype=np.float64) + 0.5 - (self.left, self.top)) / self.size
        if self.flipped:
            points[..., 0] = 1 - points[..., 0]
        return points

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Invert `to_processed`: (..., 2) in [0, 1] of the processed frame to float64 pixels of the source frame."""
        points = np.array(points, dtype=np.float64)
        if self.flipped:
            points[..., 0] = 1 - points[..., 0]
        return points * self.size + (self.left, self.top) - 0.5


def sample_frame_indices(
    num_available: int, num_frames: int, pose_frames_per_frame: int, generator: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sample the one index grid of a clip: uniform segments, clamped and never wrapped (ours).

    The clip is cut into `num_frames * pose_frames_per_frame` segments with one pose frame each. Every group of
    `pose_frames_per_frame` of them gives one RGB frame, which is one of the group's pose frames, so that every RGB
    frame has its own keypoints.

    Args:
        num_available (`int`): Frames in the clip, at least 1. A clip shorter than the grid repeats frames.
        num_frames (`int`): RGB frames T.
        pose_frames_per_frame (`int`): Pose frames per RGB frame, T_p / T.
        generator (`numpy.random.Generator`, *optional*): Draws the frame inside its segment, and the RGB frame inside
            its group (training); without it, the middle of the segment and of the group (evaluation).

    Returns:
        `tuple`: RGB indices int64 (T,) and pose indices int64 (T_p,), both ascending in [0, num_available - 1].
    """
    num_segments = num_frames * pose_frames_per_frame
    starts = np.arange(num_frames) * pose_frames_per_frame
    if generator is None:
        offsets, members = np.full(num_segments, 0.5), starts + pose_frames_per_frame // 2
    else:
        offsets = generator.random(num_segments)
        members = starts + generator.integers(pose_frames_per_frame, size=num_frames)
    positions = np.floor((np.arange(num_segments) + offsets) * num_available / num_segments).astype(np.int64)
    pose_indices = np.clip(positions, 0, num_available - 1)
    return pose_indices[members], pose_indices


def full_frame_crop(width: int, height: int) -> SquareCrop:
    """Return the smallest centred square that holds the whole frame."""
    size = max(width, height)
    return SquareCrop((width - size) // 2, (height - size) // 2, size)


def subject_crop(
    keypoints: np.ndarray,
    width: int,
    height: int,
    padding: float = 0.25,
    min_points: int = 3,
    min_size: float = 10.0,
) -> SquareCrop:
    """Crop the square around the valid keypoints of a whole clip (ours).

    Points outside the frame count as points on its edge, so the square is at most `1 + 2 * padding` times its size.

    Args:
        keypoints (`numpy.ndarray` of shape `(frames, K, 3)`): Pixels of the source frame and confidence; a confidence
            of 0 marks a missing point.
        width, height (`int`): Size of the source frame.
        padding (`float`, defaults to 0.25): Margin on each side, relative to the side of the box.
        min_points (`int`, defaults to 3): With fewer valid points the crop is the full frame.
        min_size (`float`, defaults to 10): With a box of fewer pixels the crop is the full frame.
    """
    is_valid = keypoints[..., 2] > 0
    if np.count_nonzero(is_valid) < min_points:
        return full_frame_crop(width, height)
    # One axis at a time and without a copy: a reduction over rows of two is ten times slower.
    x_and_y = keypoints[..., 0], keypoints[..., 1]
    extremes = (
        [values.min(where=is_valid, initial=np.inf) for values in x_and_y],
        [values.max(where=is_valid, initial=-np.inf) for values in x_and_y],
    )
    low, high = np.clip(extremes, 0, (width - 1, height - 1))
    side = float((high - low).max())
    if side < min_size:
        return full_frame_crop(width, height)
    size = round(side * (1 + 2 * padding))
    # Pixel centres are integers, so the middle of the crop's pixels lies at left + (size - 1) / 2.
    left, top = np.round((low + high - size + 1) / 2).astype(int)
    return SquareCrop(int(left), int(top), size)


def random_resized_crop(
    crop: SquareCrop, area: tuple[float, float], flip_probability: float, generator: np.random.Generator
) -> SquareCrop:
    """Draw a smaller square inside `crop` for training (ours), and mirror it at random.

    Args:
        crop ([`SquareCrop`]): The square to stay in.
        area (`tuple[float, float]`): Least and greatest share of its area that is kept, in (0, 1].
        flip_probability (`float`): In [0, 1].
        generator (`numpy.random.Generator`): Source of the randomness.
    """
    size = max(1, round(crop.size * float(generator.uniform(*area)) ** 0.5))
    left, top = generator.integers(0, crop.size - size + 1, size=2)
    flipped = bool(generator.random() < flip_probability) != crop.flipped
    return replace(crop, left=crop.left + int(left), top=crop.top + int(top), size=size, flipped=flipped)


def crop_and_resize(frames: np.ndarray, crop: SquareCrop, size: int) -> torch.Tensor:
    """Cut the square out of every frame and scale it with antialiased bicubic interpolation.

    On uint8 this takes as long as libswscale, and differs from Pillow's bicubic by rounding alone.

    Args:
        frames (`numpy.ndarray` of shape `(T, H, W, 3)`): uint8 RGB.
        crop ([`SquareCrop`]): May leave the frame; the outside is black.
        size (`int`): Side of the result in pixels.

    Returns:
        `torch.Tensor` of shape `(T, 3, size, size)`: uint8.
    """
    height, width = frames.shape[1:3]
    top, left = max(crop.top, 0), max(crop.left, 0)
    bottom, right = max(top, min(crop.top + crop.size, height)), max(left, min(crop.left + crop.size, width))
    square = frames[:, top:bottom, left:right]
    if square.shape[1:3] != (crop.size, crop.size):
        canvas = np.zeros((len(frames), crop.size, crop.size, 3), dtype=np.uint8)
        canvas[:, top - crop.top : bottom - crop.top, left - crop.left : right - crop.left] = square
        square = canvas
    # (T, side, side, 3) -> (T, 3, side, side); channels stay last in memory, which `interpolate` is fastest on.
    pixels = torch.from_numpy(square).permute(0, 3, 1, 2)
    if crop.size != size:
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    return pixels.flip(-1) if crop.flipped else pixels


__all__ = [
    "SquareCrop",
    "crop_and_resize",
    "full_frame_crop",
    "random_resized_crop",
    "sample_frame_indices",
    "subject_crop",
]
