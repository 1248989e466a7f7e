"""Attention over the frames of a video, collected while windows are classified.

T are the RGB frames of a window, H_p and W_p the rows and columns of the patches.
"""

from bisect import bisect_right

import numpy as np

from clipmg_hf.processing import SquareCrop


class AttentionTrack:
    """Where the model looked in each sampled frame, as the mean over heads and over the windows that saw the frame.

    Pass one to [`predict_timeline`] and then to `write_annotated_video`. A map is kept for every sampled frame: 784
    bytes with 14 x 14 patches.

    Args:
        person (`int`, defaults to 0): Number of the person whose windows are collected.
    """

    def __init__(self, person: int = 0):
        self.person = person
        self._sums: dict[int, np.ndarray] = {}
        self._counts: dict[int, int] = {}
        self._crops: dict[int, SquareCrop] = {}
        self._frames: list[int] = []

    def add(self, frame: int, attention: np.ndarray, crop: SquareCrop) -> None:
        """Add what one window says of a frame: attention (H_p, W_p) over the patches of its square."""
        if frame not in self._sums:
            self._sums[frame] = np.zeros(attention.shape, np.float32)
            self._counts[frame] = 0
            self._crops[frame] = crop
        self._sums[frame] += attention
        self._counts[frame] += 1

    def __len__(self) -> int:
        return len(self._sums)

    def __call__(self, frame: int) -> tuple[np.ndarray, SquareCrop] | None:
        """Attention (H_p, W_p) and square of a frame: those of the last sampled one until the next; `None` before."""
        if len(self._frames) != len(self._sums):
            self._frames = sorted(self._sums)
        place = bisect_right(self._frames, frame) - 1
        if place < 0:
            return None
        sampled = self._frames[place]
        return self._sums[sampled] / self._counts[sampled], self._crops[sampled]


__all__ = ["AttentionTrack"]
