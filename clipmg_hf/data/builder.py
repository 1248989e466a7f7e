"""What the `datasets` builders of all data sets share: from a source on a disk to Arrow tables, one for each video.

`datasets` 5 runs no loading scripts. A builder class in an installed package and script-free Parquet
(`clipmg_hf.data.prepare`) are what is left of them.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipmg_hf.data.background import BackgroundSettings, add_background, add_background_class
from clipmg_hf.data.examination import examine
from clipmg_hf.data.problems import DatasetFormatError, OnError
from clipmg_hf.data.schema import EMOTIONS, HIDDEN_LABEL, clip_features, keypoint_features
from clipmg_hf.data.skeletons import READER_VERSION, SkeletonCache
from clipmg_hf.data.source import PARTS, SYNTHETIC_FILE, SYNTHETIC_NOTE, DataSource, fingerprint
from clipmg_hf.data.splits import SplitSettings, assign_splits
from clipmg_hf.processing import valid_keypoints


logger = logging.getLogger(__name__)

# Change it when rows of the same files change: `datasets` would serve those it has.
BUILDER_VERSION = 1
# Videos with few clips share a table: a record batch for each row would cost more than the row.
MIN_ROWS_PER_TABLE = 128
# Notes of a kind that go to the log.
MAX_LOGGED = 20


@dataclass
class ClipConfig(datasets.BuilderConfig):
    """Configuration of a [`ClipBuilder`]; all of it enters the name of the cache.

    Args:
        protocol (`str`): How the data set is split; "" is the builder's first protocol.
        validation, seed, num_folds, fold: See [`SplitSettings`].
        background_share, background_margin (`float`): See [`BackgroundSettings`], which takes the same seed; a
            share of 0 adds neither class nor clips.
        skeleton (`str`): Which skeleton files to read; what there is depends on the data set.
        personal_data (`bool`): With gender and nationality of the subjects.
        on_error (`str`): `"raise"` or `"skip"`.
        fingerprint (`str`): Stands for the contents of the folder, of which `datasets` knows only the path; filled in
            by the builder.
    """

    protocol: str = ""
    validation: float | None = None
    seed: int = 0
    num_folds: int = 5
    fold: int = 0
    background_share: float = 0.0
    background_margin: float = BackgroundSettings.margin
    skeleton: str = "auto"
    personal_data: bool = False
    on_error: OnError = "raise"
    fingerprint: str = ""


class ClipBuilder(datasets.ArrowBasedBuilder):
    """Base of the builders.

    Args:
        data_dir (`str` or `PathLike`): Folder of the data set.
        kwargs: Those of `datasets.DatasetBuilder` and the fields of [`ClipConfig`].

    Raises:
        DatasetFormatError: No folder is given, or its files are not as documented.
    """

    BUILDER_CONFIG_CLASS = ClipConfig
    BUILDER_CONFIGS: list[ClipConfig] = []
    # The first one is the official one.
    PROTOCOLS: tuple[str, ...] = ()
    train_subjects: frozenset[int] | None = None
    # Processes that convert skeletons; `download_and_prepare` does not hand its own on.
    num_proc: int | None = None

    def __init__(self, cache_dir: str | None = None, *, data_dir: str | PathLike | None = None, **kwargs: Any):
        if data_dir is None:
            raise DatasetFormatError(f"{type(self).__name__}: no data_dir; expected the folder of the data set.")
        on_error: OnError = kwargs.get("on_error") or "raise"
        self.source = self.find(str(data_dir), on_error, kwargs.get("skeleton") or "auto")
        kwargs["fingerprint"] = fingerprint(self.source, f"{BUILDER_VERSION} {READER_VERSION}")
        # The features that the base class asks for have it.
        if kwargs.get("background_share"):
            self.source = add_background_class(self.source)
        super().__init__(cache_dir, data_dir=str(Path(data_dir).resolve()), **kwargs)
        self.settings = self._settings()
        self.background = self._background_settings()

    def find(self, path: str, on_error: OnError, skeleton: str) -> DataSource:
        """Find the data set below `path`."""
        raise NotImplementedError

    def _settings(self) -> SplitSettings:
        config = self.config
        protocol = config.protocol or self.PROTOCOLS[0]
        if protocol not in self.PROTOCOLS:
            raise ValueError(f"protocol is {protocol!r}; expected one of {', '.join(map(repr, self.PROTOCOLS))}.")
        protocol = "official" if protocol == self.PROTOCOLS[0] else protocol
        return SplitSettings(protocol, config.validation, config.seed, config.num_folds, config.fold)

    def _background_settings(self) -> BackgroundSettings | None:
        config = self.config
        if config.background_share == 0:
            return None
        if config.name != "classification":
            raise ValueError(
                f"background_share is {config.background_share} for {config.name!r}, whose rows are whole videos; "
                "expected 0, or 'classification'."
            )
        return BackgroundSettings(config.background_share, config.background_margin, config.seed)

    def _info(self) -> datasets.DatasetInfo:
        source, layout = self.source, self.source.keypoint_layout
        if self.config.name == "emotion":
            features = clip_features(EMOTIONS, ("none",), layout, self.config.personal_data)
        else:
            features = clip_features(source.label_names, source.group_names, layout, self.config.personal_data)
        if self.config.name == "online":
            names = ("video_id", "fps", "subject", "emotion", "gender", "nationality", "width", "height", "video")
            segment = {name: features[name] for name in ("clip_id", "start_frame", "end_frame", "label", "group")}
            columns = {name: features[name] for name in names if name in features}
            columns |= {"num_frames": datasets.Value("int32"), "segments": datasets.List(segment)}
            features = datasets.Features(columns | keypoint_features(layout))
        return datasets.DatasetInfo(description=f"{source.name}, {source.layout}.", features=features)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        cache = SkeletonCache(Path(self._cache_dir_root) / "clipmg_skeletons")
        source = examine(self.source, cache, self.config.on_error, self.num_proc)
        if self.config.name in ("online", "emotion"):
            source = _keep_whole_videos(source)
        if self.config.name == "emotion":
            source = _keep_known_emotions(source)
        assignment = assign_splits(source, self.settings, self.train_subjects)
        if self.background is not None:
            num_frames = _shared_frames(source, cache)
            source = add_background(source, assignment.split_of_video, num_frames, self.background)
        _log_notes(source)
        self.info.description = "\n".join(
            [
                f"{source.name}, {source.layout}.",
                f"Files: {self.config.fingerprint}",
                f"Splits: {json.dumps(assignment.record)}",
                *([SYNTHETIC_NOTE] if (source.root / SYNTHETIC_FILE).is_file() else []),
                *source.findings,
                *(f"assumed: {note}" for note in source.assumptions),
                *(f"missing: {note}" for note in source.missing),
                *(f"skipped: {problem}" for problem in source.skipped),
            ]
        )
        generators = []
        with_clips = np.bincount(source.video_indices, minlength=len(source.videos)) > 0
        for split in PARTS:
            rows = np.flatnonzero((assignment.split_of_video == split) & (with_clips | (self.config.name == "online")))
            if len(rows):
                kwargs = {"rows": rows.tolist(), "source": source, "cache": cache}
                generators.append(datasets.SplitGenerator(split, gen_kwargs=kwargs))
        if not generators:
            raise DatasetFormatError(f"{source.root}: no clip is left; expected at least one.")
        return generators

    def _generate_tables(
        self, rows: list[int], source: DataSource, cache: SkeletonCache
    ) -> Iterator[tuple[int, pa.Table]]:
        firsts = np.searchsorted(source.video_indices, np.arange(len(source.videos) + 1))
        tables: list[pa.Table] = []
        for row in rows:
            clips = source.clips.slice(firsts[row], firsts[row + 1] - firsts[row])
            video = {name: source.videos[name][row].as_py() for name in source.videos.column_names}
            keypoints = None
            if video["skeleton"] is not None:
                keypoints = cache.load(video["skeleton"], video["skeleton_kind"]).keypoints
                keypoints = keypoints if len(keypoints) else None
            tables.append(self._make_table(source, video, clips, keypoints))
            if sum(map(len, tables)) >= MIN_ROWS_PER_TABLE or row == rows[-1]:
                yield row, pa.concat_tables(tables).combine_chunks()
                tables = []

    def _make_table(
        self, source: DataSource, video: dict[str, Any], clips: pa.Table, keypoints: np.ndarray | None
    ) -> pa.Table:
        """The rows of one video: arguments as in [`clip_table`]."""
        schema = self.info.features.arrow_schema
        if self.config.name not in ("online", "emotion"):
            return clip_table(source, video, clips, keypoints, schema)
        # Frames that both the video and its skeleton have.
        num_frames = min(n for n in (video["num_frames"], None if keypoints is None else len(keypoints)) if n)
        values = {**video, "num_frames": num_frames}
        values |= {"segments": _segments(source, clips)} if self.config.name == "online" else _whole_clip(values)
        columns = keypoint_columns(keypoints, [(0, num_frames)], source.keypoint_layout, schema)
        for name in schema.names:
            if name not in columns:
                columns[name] = pa.array([values[name]], schema.field(name).type)
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _shared_frames(source: DataSource, cache: SkeletonCache) -> np.ndarray:
    """Frames int64 (num_videos,) that both a video and its skeleton have, or the one that is there; else 0."""
    counts = []
    columns = (source.videos[name].to_pylist() for name in ("num_frames", "skeleton", "skeleton_kind"))
    for in_video, path, kind in zip(*columns, strict=True):
        in_skeleton = None if path is None else cache.num_frames(path, kind)
        counts.append(min((number for number in (in_video, in_skeleton) if number), default=0))
    return np.array(counts, dtype=np.int64)


def _log_notes(source: DataSource) -> None:
    """Say once, when rows are made, what they rest on; it stays in `info.description`."""
    notes = {"assumed": source.assumptions, "missing": source.missing, "left out": source.skipped}
    for title, lines in notes.items():
        for line in lines[:MAX_LOGGED]:
            logger.warning("%s: %s: %s", source.name, title, line)
        if (more := len(lines) - MAX_LOGGED) > 0:
            logger.warning("%s: %s: and %d more, see info.description", source.name, title, more)


def _keep_whole_videos(source: DataSource) -> DataSource:
    """Keep the videos that can be shown as a whole: with an untrimmed file, or by their keypoints alone.

    Raises:
        DatasetFormatError: None can.
    """
    whole = pc.is_valid(source.videos["video"]).to_numpy(zero_copy_only=False)
    keep = whole | pc.is_valid(source.videos["skeleton"]).to_numpy(zero_copy_only=False)
    if not keep.any():
        raise DatasetFormatError(
            f"{source.root}: every clip has a file of its own, such as {source.clips['video'][0].as_py()}, and there "
            "are no skeletons; expected untrimmed videos or skeletons."
        )
    notes = []
    if (trimmed := int((keep & ~whole).sum())) and pc.any(pc.is_valid(source.clips["video"])).as_py():
        notes.append(f"{trimmed} videos have no untrimmed file: they are there as keypoints alone.")
    if not keep.all():
        notes.append(f"{int((~keep).sum())} videos have neither an untrimmed file nor a skeleton and are left out.")
    return dataclasses.replace(source.select_videos(keep), missing=(*source.missing, *notes))


def _keep_known_emotions(source: DataSource) -> DataSource:
    known = pc.is_valid(source.videos["emotion"]).to_numpy(zero_copy_only=False)
    if not known.any():
        raise DatasetFormatError(
            f"{source.root}: no video says who won; expected the Oulu release's Label/labels_<date>.csv."
        )
    return source.select_videos(known)


def clip_table(
    source: DataSource,
    video: dict[str, Any],
    clips: pa.Table,
    keypoints: np.ndarray | None,
    schema: pa.Schema,
) -> pa.Table:
    """Rows of the clips of one video, see `clipmg_hf.data.schema`.

    Args:
        source ([`DataSource`]): For the groups of the labels.
        video (`dict`): Row of `source.videos`.
        clips (`pyarrow.Table`): Rows of `source.clips`.
        keypoints (`numpy.ndarray` or `None`): float32 (N, K, 3) of the whole video.
        schema (`pyarrow.Schema`): Names, order and types of the columns.
    """
    labels = clips["label"].to_numpy()
    group_of_label = np.array([source.group_names.index(name) for name in source.label_groups] + [HIDDEN_LABEL])
    size = len(clips)
    columns: dict[str, Any] = {
        name: clips[name].combine_chunks()
        for name in ("clip_id", "video_id", "start_frame", "end_frame", "video", "video_start_frame")
    }
    columns["label"] = pa.array(labels, pa.int64())
    columns["group"] = pa.array(group_of_label[labels], pa.int64())
    for name in ("fps", "subject", "emotion", "gender", "nationality", "width", "height"):
        if name in schema.names:
            columns[name] = pa.array([video[name]] * size, schema.field(name).type)
    starts, ends = clips["start_frame"].to_numpy(), clips["end_frame"].to_numpy() + 1
    columns |= keypoint_columns(keypoints, list(zip(starts, ends, strict=True)), source.keypoint_layout, schema)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _segments(source: DataSource, clips: pa.Table) -> list[dict[str, Any]]:
    """The timeline of an untrimmed video."""
    labels = clips["label"].to_pylist()
    group_of_label = [source.group_names.index(name) for name in source.label_groups] + [HIDDEN_LABEL]
    return [
        {"clip_id": clip_id, "start_frame": start, "end_frame": end, "label": label, "group": group_of_label[label]}
        for clip_id, start, end, label in zip(
            *(clips[name].to_pylist() for name in ("clip_id", "start_frame", "end_frame")), labels, strict=True
        )
    ]


def _whole_clip(video: dict[str, Any]) -> dict[str, Any]:
    """An untrimmed video as a single clip, labelled by its emotion."""
    return {
        "clip_id": video["video_id"],
        "start_frame": 0,
        "end_frame": video["num_frames"] - 1,
        "label": video["emotion"],
        "group": 0,
        "video_start_frame": 0,
    }


def keypoint_columns(
    keypoints: np.ndarray | None, intervals: list[tuple[int, int]], layout: str | None, schema: pa.Schema
) -> dict[str, pa.Array]:
    """The three keypoint columns of intervals of one video; null without keypoints, none without a layout.

    Args:
        keypoints (`numpy.ndarray` or `None`): float32 (N, K, 3) of the whole video.
        intervals (`list[tuple[int, int]]`): Half-open intervals of its frames, one for each row.
        layout (`str` or `None`): Name of the layout of the data set.
        schema (`pyarrow.Schema`): Of the rows.
    """
    if layout is None:
        return {}
    size = len(intervals)
    names = ("keypoints", "keypoints_valid")
    types = {name: schema.field(name).type for name in names}
    columns: dict[str, pa.Array] = {"keypoint_layout": pa.array([layout] * size, pa.string())}
    if keypoints is None:
        nulls = {name: pa.nulls(size, kind.storage_type) for name, kind in types.items()}
        return columns | {name: pa.ExtensionArray.from_storage(types[name], array) for name, array in nulls.items()}
    values = np.concatenate([keypoints[start:end] for start, end in intervals]) if size else keypoints[:0]
    lengths = np.array([end - start for start, end in intervals], dtype=np.int64)
    for name, array in zip(names, (values, valid_keypoints(values)), strict=True):
        columns[name] = pa.ExtensionArray.from_storage(types[name], nested_lists(array, lengths))
    return columns


def nested_lists(values: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Arrow lists of lists over one flat buffer: rows of `lengths` steps along the first axis of `values`."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        count = int(np.prod(values.shape[:axis]))
        offsets = np.arange(count + 1, dtype=np.int32) * values.shape[axis]
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), array)


def load_source(
    builder_class: type[ClipBuilder],
    path: str | PathLike,
    name: str,
    *,
    cache_dir: str | PathLike | None = None,
    num_proc: int | None = None,
    **config: Any,
) -> datasets.DatasetDict:
    """Build a data set, or take it from the cache, and return its splits.

    Args:
        builder_class (`type`): The builder.
        path (`str` or `PathLike`): Folder of the data set.
        name (`str`): Configuration.
        cache_dir (`str` or `PathLike`, *optional*): Where converted skeletons and rows lie; `datasets`' own cache by
            default. A changed file in the folder is noticed.
        num_proc (`int`, *optional*): Processes that convert and write.
        config: Fields of [`ClipConfig`].

    Raises:
        DatasetFormatError: Files are not as documented; all problems are named at once.
        ValueError: An option is not as described.
    """
    if num_proc is not None and num_proc < 1:
        raise ValueError(f"num_proc is {num_proc}; expected at least 1, or None.")
    cache = None if cache_dir is None else str(cache_dir)
    builder = builder_class(cache, data_dir=path, config_name=name, **config)
    builder.num_proc = num_proc
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        # `datasets` hides which file was wrong behind its own error.
        if isinstance(error.__cause__, DatasetFormatError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset()


__all__ = ["ClipBuilder", "ClipConfig", "clip_table", "load_source"]
