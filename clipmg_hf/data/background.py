"""A class for "nothing happens": clips of the gaps between the annotated gestures of whole videos.

    rows = load_imigue("/data/imigue", background_share=0.1)     # one background clip for ten gestures

A model that was trained on gestures alone has no class for a person who sits still, and names a gesture there. A gap
is what no annotated interval covers, less a margin on both sides of each; its clips never overlap one another. How
many there are, how long they are and where they lie are our choice: see [`BackgroundSettings`].

Only a video whose length and gestures are known has gaps: its clips are intervals of one file, or of its skeleton
where there is no RGB at all. A clip that was cut out beforehand shows nothing else.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipmg_hf.data.labels import BACKGROUND_GROUP, BACKGROUND_LABEL
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.data.source import CLIP_SCHEMA, PARTS, DataSource, make_table


@dataclass(frozen=True)
class BackgroundSettings:
    """Which clips of gaps are drawn.

    Args:
        share (`float`): Their number relative to that of the gestures of a split, in (0, 1]; at least one clip. About
            1 divided by the number of classes gives the class a mean number of clips.
        margin (`float`, defaults to 0.2): Seconds of a gap that are left out beside a gesture, whose limits are not
            exact.
        seed (`int`, defaults to 0): Of the lengths and places. A length is that of a random gesture of the split that
            fits into a gap, and every place where it fits is equally likely.

    Raises:
        ValueError: A value outside its range.
    """

    share: float
    margin: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"background_share is {self.share}; expected a number in (0, 1], relative to that of the gestures, or "
                "0 for no background clips."
            )
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"background_margin is {self.margin}; expected seconds of at least 0.")


def add_background_class(source: DataSource) -> DataSource:
    """Add the class, as the last one; its group is that of the classes of no body part."""
    if BACKGROUND_LABEL in source.label_names:
        raise DatasetFormatError(f"{source.root}: there is a class {BACKGROUND_LABEL!r} already; expected none.")
    has_group = BACKGROUND_GROUP in source.group_names
    return dataclasses.replace(
        source,
        label_names=(*source.label_names, BACKGROUND_LABEL),
        label_groups=(*source.label_groups, BACKGROUND_GROUP),
        group_names=source.group_names if has_group else (*source.group_names, BACKGROUND_GROUP),
    )


def add_background(
    source: DataSource, split_of_video: np.ndarray, num_frames: np.ndarray, settings: BackgroundSettings
) -> DataSource:
    """Add clips of the gaps to the clips of their videos. Videos with hidden labels are left as they are.

    Args:
        source ([`DataSource`]): Examined, with the class of [`add_background_class`].
        split_of_video (`numpy.ndarray` of `object`, shape `(num_videos,)`): Splits as in [`SplitAssignment`].
        num_frames (`numpy.ndarray` of `int64`, shape `(num_videos,)`): Frames that both the video and its skeleton
            have, 0 where nobody knows.
        settings ([`BackgroundSettings`]): Which gaps.

    Returns:
        [`DataSource`]: Clips are sorted by video, and those of gaps follow the gestures. The order of the rows of
        `source` changes nothing else.

    Raises:
        DatasetFormatError: There is no gap, or clips were left out, which may lie in gaps.
    """
    if source.skipped:
        raise DatasetFormatError(
            f"{source.root}: on_error='skip' left out what {len(source.skipped)} problems concern, such as "
            f"{source.skipped[0]} Gestures among it would count as background; expected files without problems, or "
            "no background_share."
        )
    is_whole = _find_whole_videos(source, num_frames)
    gaps, lengths = _find_gaps(source, is_whole, num_frames, settings.margin), _count_frames(source)
    is_labelled = source.clips["label"].to_numpy() != HIDDEN_LABEL
    split_of_clip = split_of_video[source.video_indices]
    drawn, findings, missing = [], [], []
    for split in PARTS:
        gestures = np.sort(lengths[(split_of_clip == split) & is_labelled])
        if not len(gestures):
            continue
        count = max(round(settings.share * len(gestures)), 1)
        generator = np.random.default_rng([settings.seed, *split.encode()])
        found = draw_intervals(gaps[split_of_video[gaps[:, 0]] == split], gestures, count, generator)
        drawn.append(found)
        findings.append(f"background: {len(found)} clips of gaps beside {len(gestures)} gestures in {split}.")
        if len(found) < count:
            missing.append(f"background: {count - len(found)} of {count} clips in {split}, for which no gap has room.")
    intervals = np.concatenate(drawn) if drawn else np.zeros((0, 3), np.int64)
    if not len(intervals):
        raise DatasetFormatError(
            f"{source.root}: background_share={settings.share:g}, but no gap between the clips has room for one "
            f"({int(is_whole.sum())} of {len(is_whole)} videos are whole and labelled, margin {settings.margin:g} s). "
            "Expected whole videos with their annotations: iMiGUE with untrimmed RGB or with skeletons alone, or SMG. "
            "Clips that were cut out beforehand, as those of MA-52 and trimmed RGB, have no gaps."
        )
    if not is_whole.all():
        unfit = int((~is_whole).sum())
        findings.append(f"background: none of {unfit} videos, which are not whole or hide their labels.")
    return dataclasses.replace(
        source,
        clips=_merge_clips(source, intervals),
        findings=(*source.findings, *findings),
        missing=(*source.missing, *missing),
    )


def draw_intervals(gaps: np.ndarray, lengths: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw intervals inside gaps that do not overlap.

    Args:
        gaps (`numpy.ndarray` of `int64`, shape `(G, 3)`): Video, first frame, end (excluded).
        lengths (`numpy.ndarray` of `int64`): Those that are drawn from.
        count (`int`): How many; fewer where no gap has room.
        generator (`numpy.random.Generator`): Decides.

    Returns:
        `numpy.ndarray` of `int64`, shape `(N, 3)`, sorted: video, first frame, end (excluded).
    """
    # What is left of a gap takes its place, and a new row.
    free = np.concatenate([gaps, np.zeros((count, 3), np.int64)])
    drawn: list[tuple[int, int, int]] = []
    for row in range(len(gaps), len(free)):
        rooms = free[:, 2] - free[:, 1]
        fitting = lengths[lengths <= rooms.max()]
        if not len(fitting):
            break
        length = int(generator.choice(fitting))
        places = np.maximum(rooms - length + 1, 0).cumsum()
        place = int(generator.integers(places[-1]))
        chosen = int(np.searchsorted(places, place, side="right"))
        video, start, end = free[chosen].tolist()
        first = start + place - (int(places[chosen - 1]) if chosen else 0)
        drawn.append((video, first, first + length))
        free[chosen] = (video, start, first)
        free[row] = (video, first + length, end)
    return np.array(sorted(drawn), dtype=np.int64).reshape(-1, 3)


def _count_frames(source: DataSource) -> np.ndarray:
    return source.clips["end_frame"].to_numpy().astype(np.int64) + 1 - source.clips["start_frame"].to_numpy()


def _find_whole_videos(source: DataSource, num_frames: np.ndarray) -> np.ndarray:
    """Which videos (num_videos,) have a length, a frame rate, and clips that have labels and no file of their own."""
    indices, files = source.video_indices, source.videos["video"].to_pylist()
    own_file = [
        file != files[index] for file, index in zip(source.clips["video"].to_pylist(), indices.tolist(), strict=True)
    ]
    is_unfit = np.array(own_file, dtype=bool) | (source.clips["label"].to_numpy() == HIDDEN_LABEL)
    num_clips, num_unfit = (np.bincount(indices, weights=mask, minlength=len(files)) for mask in (None, is_unfit))
    has_rate = pc.is_valid(source.videos["fps"]).to_numpy(zero_copy_only=False)
    return (num_frames > 0) & has_rate & (num_clips > 0) & (num_unfit == 0)


def _find_gaps(source: DataSource, is_whole: np.ndarray, num_frames: np.ndarray, margin: float) -> np.ndarray:
    """Gaps int64 (G, 3) of whole videos: row of the video, first frame, end (excluded); by name of the video."""
    indices = source.video_indices
    starts, ends = source.clips["start_frame"].to_numpy(), source.clips["end_frame"].to_numpy() + 1
    order = np.lexsort((starts, indices))
    firsts = np.searchsorted(indices[order], np.arange(len(source.videos) + 1))
    video_ids, rates = source.videos["video_id"].to_pylist(), source.videos["fps"].to_pylist()
    gaps = []
    for video in sorted(np.flatnonzero(is_whole).tolist(), key=video_ids.__getitem__):
        width = math.ceil(margin * rates[video])
        position = 0
        for clip in order[firsts[video] : firsts[video + 1]]:
            gaps.append((video, position, int(starts[clip]) - width))
            position = max(position, int(ends[clip]) + width)
        gaps.append((video, position, int(num_frames[video])))
    return np.array([gap for gap in gaps if gap[1] < gap[2]], dtype=np.int64).reshape(-1, 3)


def _merge_clips(source: DataSource, intervals: np.ndarray) -> pa.Table:
    """The clips with those of gaps, by video."""
    videos = source.videos.take(pa.array(intervals[:, 0]))
    video_ids = videos["video_id"].to_pylist()
    columns = {
        "clip_id": [f"{video}_background_{start}" for video, start in zip(video_ids, intervals[:, 1], strict=True)],
        "video_id": video_ids,
        "start_frame": intervals[:, 1].tolist(),
        "end_frame": (intervals[:, 2] - 1).tolist(),
        "label": [source.label_names.index(BACKGROUND_LABEL)] * len(intervals),
        "video": videos["video"].to_pylist(),
        "video_start_frame": [0] * len(intervals),
    }
    clips = pa.concat_tables([source.clips, make_table(columns, CLIP_SCHEMA)])
    owners = np.concatenate([source.video_indices, intervals[:, 0]])
    return clips.take(pa.array(np.argsort(owners, kind="stable")))


__all__ = ["BackgroundSettings", "add_background", "add_background_class", "draw_intervals"]
