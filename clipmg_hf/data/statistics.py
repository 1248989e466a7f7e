"""Numbers about a data set, column by column: counts, lengths, missing keypoints.

The rows have the columns of `clipmg_hf.data.schema`. K is the number of points of their keypoint layout, F the number
of frames with keypoints of some rows.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from clipmg_hf.processing import KeypointLayout, get_layout


LONG_CLIP = 90  # frames
_SMALL_COLUMNS = ("video_id", "start_frame", "end_frame", "label", "group", "subject")
_LARGE_COLUMNS = ("width", "height", "video", "keypoints", "keypoints_valid")
# Clips at a time: a few megabytes of keypoints.
_BATCH_SIZE = 32


@dataclass(frozen=True)
class SplitStatistics:
    """What a split holds. Rates and shares are in [0, 1]; what cannot be told is `None`.

    Args:
        num_clips, num_videos (`int`): Rows and different videos.
        num_subjects (`int` or `None`): Different persons; `None` where the files do not number them.
        num_frames (`int`): Frames of all clips; frames that two clips share count twice.
        length_min, length_median, length_mean, length_90th_percentile, length_max (`float`): Frames of a clip.
        share_longer_than_90 (`float`): Share of the clips with more than 90 frames.
        share_overlapping (`float`): Share of the clips that share frames with another clip of their video.
        class_counts, group_counts (`dict[str, int]`): Clips of each class and of each group, in the order of the ids.
        imbalance (`float`): Clips of the largest class over those of the smallest that is there.
        absent_classes (`list[str]`): Classes without a clip; `None` where all labels are hidden.
        num_without_label, num_without_video, num_without_keypoints (`int`): Clips that lack it.
        num_frames_with_keypoints (`int`): Frames of the clips that have keypoints.
        num_frames_without_points (`int`): Those of them in which every point is missing.
        missing_rates (`dict[str, float]`): Share of these frames in which a point is missing, by name.
        mean_confidences (`dict[str, float]`): Mean confidence of a point where it is there, by name.
        share_outside_frame (`float`): Share of the points that are there and lie outside their video's frame.
    """

    num_clips: int
    num_videos: int
    num_subjects: int | None
    num_frames: int
    length_min: int | None
    length_median: float | None
    length_mean: float | None
    length_90th_percentile: float | None
    length_max: int | None
    share_longer_than_90: float | None
    share_overlapping: float | None
    class_counts: dict[str, int]
    group_counts: dict[str, int]
    imbalance: float | None
    absent_classes: list[str] | None
    num_without_label: int
    num_without_video: int
    num_without_keypoints: int
    num_frames_with_keypoints: int
    num_frames_without_points: int
    missing_rates: dict[str, float] | None
    mean_confidences: dict[str, float | None] | None
    share_outside_frame: float | None


@dataclass(frozen=True)
class DataStatistics:
    """What a data set holds.

    Args:
        keypoint_layout (`str` or `None`): Layout of the keypoints; `None` if no row has any.
        class_groups (`dict[str, str]`): Group of each class, in the order of the ids; `None` for a class without a
            clip, whose group the rows do not tell.
        splits (`dict[str, SplitStatistics]`): By name.
        shared_videos, shared_subjects (`dict[str, int]`): How many two splits share, by "first & second"; pairs that
            share none are left out.
    """

    keypoint_layout: str | None
    class_groups: dict[str, str | None]
    splits: dict[str, SplitStatistics]
    shared_videos: dict[str, int]
    shared_subjects: dict[str, int]


def data_statistics(rows: datasets.DatasetDict) -> DataStatistics:
    """Count what the splits hold, in one pass over the columns; memory stays bounded.

    Args:
        rows (`datasets.DatasetDict`): At least one split, with the columns of `clipmg_hf.data.schema`.
    """
    return collect_statistics(rows, tqdm(disable=True))


def collect_statistics(rows: datasets.DatasetDict, bar: tqdm) -> DataStatistics:
    layout = _layout_of(rows)
    tables = {name: small_columns(split) for name, split in rows.items()}
    splits = {
        name: _split_statistics(tables[name], _tally_large_columns(split, layout, bar), split.features)
        for name, split in rows.items()
    }
    has_keypoints = any(split.num_frames_with_keypoints for split in splits.values())
    return DataStatistics(
        keypoint_layout=layout.name if layout is not None and has_keypoints else None,
        class_groups=_class_groups(tables.values(), next(iter(rows.values())).features),
        splits=splits,
        shared_videos=_count_shared(tables, "video_id"),
        shared_subjects=_count_shared(tables, "subject"),
    )


def _layout_of(rows: datasets.DatasetDict) -> KeypointLayout | None:
    """The layout that the rows name, which are of one data set; they may name it without having keypoints."""
    for split in rows.values():
        if "keypoint_layout" in split.column_names:
            table = split.select_columns("keypoint_layout").with_format("arrow")[:]
            for name in pc.unique(table["keypoint_layout"]).drop_null().to_pylist():
                return get_layout(name)
    return None


def small_columns(split: datasets.Dataset) -> pa.Table:
    return split.select_columns(list(_SMALL_COLUMNS)).with_format("arrow")[:]


def integers(table: pa.Table, name: str) -> np.ndarray:
    """A column without missing values as (N,) int64."""
    return table[name].to_numpy().astype(np.int64)


def clip_lengths(table: pa.Table) -> np.ndarray:
    """(N,) frames."""
    return integers(table, "end_frame") - integers(table, "start_frame") + 1


def _overlapping_clips(table: pa.Table) -> np.ndarray:
    """(N,) bool, in no particular order: which clips share frames with another one of their video."""
    videos = table["video_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    starts, ends = integers(table, "start_frame"), integers(table, "end_frame")
    # One time axis for all: each video begins after the last frame of the one before it.
    offsets = videos * (ends.max(initial=0) + 1)
    order = np.argsort(offsets + starts, kind="stable")
    starts, ends = (offsets + starts)[order], (offsets + ends)[order]
    overlaps = np.zeros(len(starts), dtype=bool)
    overlaps[1:] |= np.maximum.accumulate(ends)[:-1] >= starts[1:]
    overlaps[:-1] |= starts[1:] <= ends[:-1]
    return overlaps


def _class_groups(tables: Iterable[pa.Table], features: datasets.Features) -> dict[str, str | None]:
    """Class name -> name of the group that most of its clips have."""
    names, group_names = features["label"].names, features["group"].names
    counts = np.zeros((len(names), len(group_names)), dtype=np.int64)
    for table in tables:
        labels, groups = integers(table, "label"), integers(table, "group")
        known = (labels >= 0) & (groups >= 0)
        np.add.at(counts, (labels[known], groups[known]), 1)
    return {
        name: group_names[int(row.argmax())] if row.any() else None for name, row in zip(names, counts, strict=True)
    }


def _count_shared(tables: Mapping[str, pa.Table], column: str) -> dict[str, int]:
    values = {name: set(pc.unique(table[column]).drop_null().to_pylist()) for name, table in tables.items()}
    pairs = itertools.combinations(values, 2)
    shared = {f"{first} & {second}": len(values[first] & values[second]) for first, second in pairs}
    return {pair: count for pair, count in shared.items() if count}


class _Tally:
    """What one pass over the large columns of a split adds up."""

    def __init__(self, layout: KeypointLayout | None):
        self.layout = layout
        num_keypoints = 0 if layout is None else layout.num_keypoints
        self.num_without_video = 0
        self.num_without_keypoints = 0
        self.num_frames = 0
        self.num_empty_frames = 0
        self.num_valid = np.zeros(num_keypoints, dtype=np.int64)
        self.confidence_sums = np.zeros(num_keypoints)
        # Of the points of videos whose size is known.
        self.num_placed = 0
        self.num_outside = 0

    def add(self, table: pa.Table) -> None:
        """Count the rows of one batch."""
        self.num_without_video += table["video"].null_count
        if self.layout is None:
            self.num_without_keypoints += len(table)
            return
        self.num_without_keypoints += table["keypoints"].null_count
        points, valid, lengths = keypoints_of(table, self.layout)
        self.num_frames += len(points)
        self.num_empty_frames += int((~valid.any(axis=1)).sum())
        self.num_valid += valid.sum(axis=0)
        self.confidence_sums += np.where(valid, points[..., 2], 0).sum(axis=0, dtype=np.float64)
        sizes = np.stack([pc.cast(table[name], pa.float64()).to_numpy() for name in ("width", "height")], axis=1)
        # (N, 2) -> (F, 1, 2)
        sizes = sizes.repeat(lengths, axis=0)[:, None]
        placed = valid & ~np.isnan(sizes).any(axis=-1)
        inside = ((points[..., :2] >= 0) & (points[..., :2] < sizes)).all(axis=-1)
        self.num_placed += int(placed.sum())
        self.num_outside += int((placed & ~inside).sum())


def _tally_large_columns(split: datasets.Dataset, layout: KeypointLayout | None, bar: tqdm) -> _Tally:
    tally = _Tally(layout)
    columns = [name for name in _LARGE_COLUMNS if name in split.column_names]
    for table in split.select_columns(columns).with_format("arrow").iter(_BATCH_SIZE):
        tally.add(table)
        bar.update(len(table))
    return tally


def keypoints_of(table: pa.Table, layout: KeypointLayout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keypoints of all rows in sequence: (F, K, 3), which are there (F, K), frames per row (N,)."""
    points, valid = (
        pa.concat_arrays([chunk.storage for chunk in table[name].chunks]) for name in ("keypoints", "keypoints_valid")
    )
    lengths = pc.fill_null(pc.list_value_length(points), 0).to_numpy()
    return (
        points.flatten().flatten().flatten().to_numpy().reshape(-1, layout.num_keypoints, 3),
        valid.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, layout.num_keypoints),
        lengths,
    )


def _split_statistics(table: pa.Table, tally: _Tally, features: datasets.Features) -> SplitStatistics:
    names, group_names = features["label"].names, features["group"].names
    lengths, labels, groups = clip_lengths(table), integers(table, "label"), integers(table, "group")
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    group_counts = np.bincount(groups[groups >= 0], minlength=len(group_names))
    length_quantiles = quantiles(lengths)
    has_labels = bool(counts.any())
    return SplitStatistics(
        num_clips=len(table),
        num_videos=pc.count_distinct(table["video_id"]).as_py(),
        num_subjects=pc.count_distinct(table["subject"]).as_py() or None,
        num_frames=int(lengths.sum()),
        length_min=int(lengths.min()) if len(lengths) else None,
        length_median=length_quantiles[0] if length_quantiles else None,
        length_mean=float(lengths.mean()) if len(lengths) else None,
        length_90th_percentile=length_quantiles[1] if length_quantiles else None,
        length_max=int(lengths.max()) if len(lengths) else None,
        share_longer_than_90=ratio((lengths > LONG_CLIP).sum(), len(lengths)),
        share_overlapping=ratio(_overlapping_clips(table).sum(), len(lengths)),
        class_counts=dict(zip(names, counts.tolist(), strict=True)),
        group_counts=dict(zip(group_names, group_counts.tolist(), strict=True)),
        imbalance=ratio(counts.max(), counts[counts > 0].min()) if has_labels else None,
        absent_classes=[name for name, count in zip(names, counts, strict=True) if not count] if has_labels else None,
        num_without_label=int((labels < 0).sum()),
        num_without_video=tally.num_without_video,
        num_without_keypoints=tally.num_without_keypoints,
        num_frames_with_keypoints=tally.num_frames,
        num_frames_without_points=tally.num_empty_frames,
        **_keypoint_statistics(tally),
    )


def _keypoint_statistics(tally: _Tally) -> dict[str, Any]:
    if tally.layout is None or not tally.num_frames:
        return {"missing_rates": None, "mean_confidences": None, "share_outside_frame": None}
    names = tally.layout.keypoints
    confidences = [ratio(*pair) for pair in zip(tally.confidence_sums, tally.num_valid, strict=True)]
    return {
        "missing_rates": dict(zip(names, (1 - tally.num_valid / tally.num_frames).tolist(), strict=True)),
        "mean_confidences": dict(zip(names, confidences, strict=True)),
        "share_outside_frame": ratio(tally.num_outside, tally.num_placed),
    }


def ratio(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def quantiles(lengths: np.ndarray) -> list[float]:
    """The median and the 90th percentile; nothing of nothing."""
    return np.quantile(lengths, (0.5, 0.9)).tolist() if len(lengths) else []


__all__ = ["LONG_CLIP", "DataStatistics", "SplitStatistics", "data_statistics"]
