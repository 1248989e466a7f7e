"""Class-balanced sampling in an order that seed and epoch alone determine, and the callback that sets the epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# Streams of random numbers that must not repeat each other.
_EPOCH_STREAM, _CLASS_STREAM = 0, 1


class ClassBalancedSampler(Sampler[int]):
    """Draw rare classes more often than they occur (ours).

    Of the C classes with clips, class c of n_c clips gets a share ~ n_c^(1 - power) of every epoch, rounded to whole
    clips by largest remainders, the same in each epoch. Its clips come from one endless sequence of random
    permutations of the class, in which an epoch takes up where the last one ended: every clip is drawn once before any
    is drawn again, also across epochs.

    The order is the same in every process: accelerate shards the batches. It depends on seed and epoch only, so that
    Trainer's skipping of batches resumes exactly. With several processes Trainer does not tell the epoch to the
    sampler when it resumes within one: add [`SamplerEpochCallback`].

    Args:
        labels (`Sequence[int]` or `numpy.ndarray`): Class of every clip, in [0, num_labels - 1].
        num_labels (`int`): Classes, with clips or without.
        power (`float`, defaults to 1.0): In [0, 1]. 1 draws all classes equally often, 0.5 by the square root of
            their clips, 0 in their natural shares (then each epoch is one permutation of all clips).
        seed (`int`, defaults to 0): At least 0.

    Raises:
        ValueError: No clip, a label or `power` out of range.
    """

    def __init__(self, labels: Sequence[int] | np.ndarray, num_labels: int, power: float = 1.0, seed: int = 0):
        labels_array = np.asarray(labels)
        if labels_array.ndim != 1 or not len(labels_array):
            raise ValueError(f"labels have the shape {labels_array.shape}; expected one class for each clip.")
        if labels_array.min() < 0 or labels_array.max() >= num_labels:
            raise ValueError(
                f"labels lie in {labels_array.min()}..{labels_array.max()}; expected 0..{num_labels - 1}."
            )
        if not 0 <= power <= 1:
            raise ValueError(f"power is {power}; expected a number in [0, 1].")
        self.seed = seed
        self.epoch = 0
        self._num_clips = len(labels_array)
        counts = np.bincount(labels_array, minlength=num_labels)
        order = np.argsort(labels_array, kind="stable")
        self._members = np.split(order, np.cumsum(counts)[:-1])
        self._quotas = _share_out(counts, power)

    @property
    def class_counts(self) -> list[int]:
        """Clips of each class in one epoch, as drawn: what a loss that adjusts for frequencies must know."""
        return self._quotas.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_clips

    def __iter__(self) -> Iterator[int]:
        drawn = np.concatenate([self._draw(label) for label in range(len(self._members))])
        np.random.default_rng([self.seed, _EPOCH_STREAM, self.epoch]).shuffle(drawn)
        return iter(drawn.tolist())

    def _draw(self, label: int) -> np.ndarray:
        """The class's clips of this epoch: a window of its endless sequence of permutations."""
        members, quota = self._members[label], int(self._quotas[label])
        if quota == 0:
            return members[:0]
        start = self.epoch * quota
        first, last = start // len(members), (start + quota - 1) // len(members)
        sequence = np.concatenate(
            [
                np.random.default_rng([self.seed, _CLASS_STREAM, label, cycle]).permutation(members)
                for cycle in range(first, last + 1)
            ]
        )
        offset = start - first * len(members)
        return sequence[offset : offset + quota]


def _share_out(counts: np.ndarray, power: float) -> np.ndarray:
    """Whole clips (C,) in the shares n_c^(1 - power), as many as there are clips; 0 where there are none."""
    shares = np.where(counts > 0, counts.astype(float) ** (1 - power), 0.0)
    exact = shares / shares.sum() * counts.sum()
    quotas = np.floor(exact + 1e-9).astype(int)
    remainders = np.argsort(quotas - exact, kind="stable")
    quotas[remainders[: counts.sum() - quotas.sum()]] += 1
    return quotas


class SamplerEpochCallback(TrainerCallback):
    """Tell the training sampler which epoch begins.

    Trainer does so through the loader, but not past the two wrappers that a loader has when several processes resume
    within an epoch: they would go on in the order of epoch 0. Serves any sampler with a `set_epoch`.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """Find the sampler under its wrappers and set its epoch."""
        batch_sampler: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(batch_sampler, "batch_sampler"):
            batch_sampler = batch_sampler.batch_sampler
        sampler: Any = getattr(batch_sampler, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(state.epoch or 0))


__all__ = ["ClassBalancedSampler", "SamplerEpochCallback"]
