"""Splitting a data set: the official parts, the cross-subject protocol, validation by subject, folds by subject.

A split never cuts through a subject, or through a video where the subject is unknown.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from clipmg_hf.data.source import PARTS, DataSource


DEFAULT_FRACTION = 0.2


@dataclass(frozen=True)
class SplitSettings:
    """How a data set is split.

    Args:
        protocol (`str`): `"official"` (the parts as handed out), `"cross_subject"`, or `"folds"`.
        validation (`float`, *optional*): Share of the training clips to carve out for validation, in [0, 1): by
            subject, seeded. By default the official validation part where the protocol has one, else 0.2.
        seed (`int`, defaults to 0): Of the carving and of the folds.
        num_folds, fold (`int`): Number of folds, and the one, from 0, that validates.
    """

    protocol: str
    validation: float | None = None
    seed: int = 0
    num_folds: int = 5
    fold: int = 0

    def __post_init__(self) -> None:
        if self.validation is not None and not 0 <= self.validation < 1:
            raise ValueError(f"validation is {self.validation}; expected a share in [0, 1), or None.")
        if not 0 <= self.fold < self.num_folds or self.num_folds < 2:
            raise ValueError(f"fold is {self.fold} of {self.num_folds}; expected 0 <= fold < num_folds, at least 2.")


@dataclass(frozen=True)
class SplitAssignment:
    """Which split every video is in.

    Args:
        split_of_video (`numpy.ndarray` of `object`, shape `(num_videos,)`): `"train"`, `"validation"`, `"test"`, or
            `""` for videos that the protocol leaves out; in the order of `source.videos`.
        record (`dict`): Everything that determines the assignment, and the units that were drawn; JSON-able.
    """

    split_of_video: np.ndarray
    record: dict[str, Any]


def assign_splits(
    source: DataSource, settings: SplitSettings, train_subjects: Collection[int] | None = None
) -> SplitAssignment:
    """Assign every video to a split.

    Args:
        source ([`DataSource`]): The data set.
        settings ([`SplitSettings`]): The protocol.
        train_subjects (`Collection[int]`, *optional*): The subjects that the cross-subject protocol trains on.

    Raises:
        ValueError: The protocol needs what the data does not have: subjects, a training part, enough of either.
    """
    parts = np.array(pc.fill_null(source.videos["part"], "").to_pylist(), dtype=object)
    if settings.protocol == "official":
        splits = parts.copy()
    else:
        splits = _cross_subject(source, parts, train_subjects)
    record: dict[str, Any] = asdict(settings)
    is_train = splits == "train"
    if settings.protocol == "folds":
        splits, record["units"] = _fold(source, splits, settings)
    elif settings.validation is not None or (settings.protocol == "cross_subject" and is_train.any()):
        fraction = DEFAULT_FRACTION if settings.validation is None else settings.validation
        # The official validation part shares its people with the training part.
        splits[splits == "validation"] = "train"
        record["validation"] = fraction
        if fraction > 0:
            splits, record["units"] = _carve(source, splits, fraction, settings.seed)
    return SplitAssignment(splits, record)


def _cross_subject(source: DataSource, parts: np.ndarray, train_subjects: Collection[int] | None) -> np.ndarray:
    """Train on the protocol's subjects and test on the others, or on the parts that follow the protocol."""
    subjects = source.videos["subject"].to_pylist()
    if train_subjects is not None and subjects and all(subject is not None for subject in subjects):
        return np.array(["train" if subject in train_subjects else "test" for subject in subjects], dtype=object)
    # MiGA's parts: train and validation are the protocol's training subjects, test the others.
    splits = parts.copy()
    splits[parts == "validation"] = "train"
    return splits


def units_of_videos(source: DataSource) -> np.ndarray:
    """(num_videos,) `object`: what a split must not cut: `"subject 12"`, or `"video 0012"` where it is unknown."""
    subjects, videos = (source.videos[name].to_pylist() for name in ("subject", "video_id"))
    return np.array(
        [
            f"video {video}" if subject is None else f"subject {subject}"
            for subject, video in zip(subjects, videos, strict=True)
        ],
        dtype=object,
    )


def _count_clips(source: DataSource) -> np.ndarray:
    return np.bincount(source.video_indices, minlength=len(source.videos))


def _shuffled_units(source: DataSource, chosen: np.ndarray, seed: int) -> tuple[list[str], dict[str, int]]:
    """The units of the chosen videos in a seeded order, and the number of clips of each."""
    units, counts = units_of_videos(source), _count_clips(source)
    clips: dict[str, int] = {}
    for unit, count in zip(units[chosen], counts[chosen], strict=True):
        clips[unit] = clips.get(unit, 0) + int(count)
    # Sorted first, so that the order of files on the disk changes nothing.
    order = np.random.default_rng(seed).permutation(sorted(clips)).tolist()
    return order, clips


def _carve(source: DataSource, splits: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, dict]:
    """Move whole units from train to validation until they hold as nearly as possible `fraction` of the clips."""
    order, clips = _shuffled_units(source, splits == "train", seed)
    if len(order) < 2:
        raise ValueError(
            f"{source.root}: the training part has {len(order)} subjects or videos; expected at least 2 to carve "
            "validation from (validation=0 leaves it whole)."
        )
    shares = np.cumsum([clips[unit] for unit in order]) / max(sum(clips.values()), 1)
    size = min(int(np.abs(shares - fraction).argmin()) + 1, len(order) - 1)
    return _move(source, splits, order[:size]), {"validation": sorted(order[:size])}


def _fold(source: DataSource, splits: np.ndarray, settings: SplitSettings) -> tuple[np.ndarray, dict]:
    """Deal whole units to folds, always to the smallest one, and validate on one of them."""
    order, clips = _shuffled_units(source, splits == "train", settings.seed)
    if len(order) < settings.num_folds:
        raise ValueError(
            f"{source.root}: {len(order)} subjects or videos for num_folds={settings.num_folds}; expected at least "
            "one for each fold."
        )
    folds: list[list[str]] = [[] for _ in range(settings.num_folds)]
    # The largest first, which evens out best; ties keep the seeded order.
    sizes = np.zeros(settings.num_folds)
    for unit in sorted(order, key=lambda unit: -clips[unit]):
        smallest = int(sizes.argmin())
        folds[smallest].append(unit)
        sizes[smallest] += clips[unit]
    units = {f"fold {index}": sorted(fold) for index, fold in enumerate(folds)}
    return _move(source, splits, folds[settings.fold]), units


def _move(source: DataSource, splits: np.ndarray, units: list[str]) -> np.ndarray:
    splits = splits.copy()
    splits[(splits == "train") & np.isin(units_of_videos(source), units)] = "validation"
    return splits


__all__ = ["PARTS", "SplitAssignment", "SplitSettings", "assign_splits", "units_of_videos"]
