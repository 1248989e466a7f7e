"""From rows of a data set to inputs of the model: map-style, `with_transform`, `map` or streaming.

    items = ClipDataset(rows, processor)                      # fastest for rows on disk
    rows.with_transform(ClipTransform(processor))
    map_clips(rows, ClipTransform(processor), num_proc=4)     # writes the items to `datasets`' cache
    stream_clips(streamed_rows, ClipTransform(processor))
    DataLoader(items, batch_size=16, num_workers=4, collate_fn=collate_clips)

All of them give the same items, from raw rows (`video` is a path) and prepared ones (`video` holds the file); see
`clipmg_hf.data.schema`. An item is a dictionary of tensors: `pixel_values` float32 (T, 3, H, W) and `frame_mask` bool
(T,) if the rows have the column `video`, `keypoints` float32 (T_p, K, 3) and `keypoint_mask` bool (T_p,) if they have
the column `keypoints`, and `labels` int64 (). What a single row lacks is zero, and masked.

`datasets` 5.2 makes Python lists of keypoints for `with_transform` and for a plain `map`, 10 ms a row, and fails there
on batches in which only some rows have keypoints; the functions of this module do neither.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.utils.data import Dataset, default_collate

from clipmg_hf.files import write_file
from clipmg_hf.processing import CLIPMGProcessor, get_layout
from clipmg_hf.processing.video_processing_clipmg import denormalize_pixels, normalize_pixels


# Part of every cache key: entries of another version are not read.
CACHE_VERSION = 1
SCALAR_COLUMNS = ("clip_id", "start_frame", "end_frame", "label", "video", "video_start_frame", "keypoint_layout")
ARRAY_COLUMNS = ("keypoints", "keypoints_valid")
READ_COLUMNS = (*SCALAR_COLUMNS, *ARRAY_COLUMNS)
TENSORS_OF_COLUMN = {"video": ("pixel_values", "frame_mask"), "keypoints": ("keypoints", "keypoint_mask")}
REQUIRED_COLUMNS = ("clip_id", "start_frame", "end_frame")
MAX_NAMED_CLIPS = 5
NO_LABELS_HINT = (
    "test packs hide them; train and evaluate on train and validation, or set allow_hidden_labels=True to predict"
)


@dataclass(frozen=True, eq=False)
class _Clip:
    """What the processor needs of a row.

    Args:
        clip_id: Its name in errors, in cache keys and in the seeds of the augmentation.
        video: Path or bytes of a file; `None` for keypoints alone.
        interval: Half-open frames of that file.
        keypoints: (T, K, 3) of the interval, zeros where missing; `None` for a video alone.
        keypoint_layout: Their layout; `None` to tell it from K.
    """

    clip_id: str
    video: str | bytes | None
    interval: tuple[int, int]
    keypoints: np.ndarray | None
    keypoint_layout: str | None


class ClipTransform:
    """The processor as a step of a `datasets` pipeline: a batch of rows to a batch of inputs. It can be pickled.

    Args:
        processor ([`CLIPMGProcessor`]): Samples, crops and normalises.
        augment (`bool`, defaults to `False`): Draw a random view of each clip (training).
        missing_keypoints (`str`, defaults to `"error"`): What to do about points that the data's layout lacks.
        seed (`int`, *optional*): A clip's view depends on the seed, its `clip_id` and the epoch alone, whatever the
            process and the order; see `set_epoch`. `None`: another view each time, drawn from torch.
        cache_dir (`str` or `PathLike`, *optional*): Keep processed videos there, about 1.2 MB for 8 frames of 224
            pixels, so that later epochs and runs do not decode. Entries of other settings or of files that have
            changed stay unused; delete the folder to be rid of them.
        allow_hidden_labels (`bool`, defaults to `False`): Take rows without a label, for prediction: no item has
            `labels`.

    Raises:
        TypeError: The processor is none.
        ValueError: `cache_dir` with `augment=True`.
    """

    def __init__(
        self,
        processor: CLIPMGProcessor,
        augment: bool = False,
        missing_keypoints: str = "error",
        seed: int | None = None,
        cache_dir: str | PathLike | None = None,
        allow_hidden_labels: bool = False,
    ):
        # Not the class: that of a checkpoint on the Hub is another one of the same name.
        if not hasattr(processor, "video_processor"):
            raise TypeError(f"processor is a {type(processor).__name__}; expected a CLIPMGProcessor.")
        if augment and cache_dir is not None:
            raise ValueError(
                f"cache_dir={str(cache_dir)!r} with augment=True: every epoch would read the view that the first one "
                "drew; expected augment=False, or no cache_dir."
            )
        self.processor = processor
        self.augment = augment
        self.missing_keypoints = missing_keypoints
        self.seed = seed
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.allow_hidden_labels = allow_hidden_labels
        # In shared memory: workers that live for several epochs see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the views of an epoch (with a seed); between two epochs, also for workers that stay alive."""
        self._epoch.fill_(epoch)

    def __call__(self, batch: Mapping[str, Sequence[Any]] | pa.Table) -> dict[str, list[torch.Tensor]]:
        """Process a batch of rows.

        Args:
            batch: The columns of B rows: lists, NumPy arrays or an Arrow table.

        Returns:
            `dict` from the names of an item's tensors to lists of B tensors.

        Raises:
            ValueError: A clip cannot be processed, or has no label; the message names it.
        """
        columns = _read_table(batch) if isinstance(batch, pa.Table) else batch
        labels = None if self.allow_hidden_labels else _read_labels(columns)
        names = _tensor_names(columns)
        clips = [_read_clip(columns, index) for index in range(len(columns["clip_id"]))]
        items = [self._process(clip, "video" in columns) for clip in clips]
        outputs = {name: [item[name] for item in items] for name in names}
        return outputs if labels is None else outputs | {"labels": list(labels)}

    def _process(self, clip: _Clip, has_frames: bool) -> dict[str, torch.Tensor]:
        """Tensors of one clip, from the cache if it is there; with or without those of its frames."""
        try:
            if self.cache_dir is None or self.augment or clip.video is None:
                return self._run_processor(clip, has_frames)
            return self._read_or_write_cache(clip, self.cache_dir)
        except (ValueError, OSError) as error:
            raise ValueError(f"clip {clip.clip_id}: {error}") from error
        except Exception as error:
            # No fault of the data.
            error.add_note(f"It was raised by the clip {clip.clip_id}.")
            raise

    def _run_processor(self, clip: _Clip, has_frames: bool = True) -> dict[str, torch.Tensor]:
        options: dict[str, Any] = {
            "source_layout": None if clip.keypoints is None else clip.keypoint_layout,
            "missing_keypoints": self.missing_keypoints,
            "augment": self.augment,
        }
        if self.augment and self.seed is not None:
            options["seeds"] = [self._view_seed(clip.clip_id)]
        if clip.video is None:
            # A batch of one that lacks its video has masked frames, a batch without videos has none.
            features = self.processor([None] if has_frames else None, [clip.keypoints], **options)
        else:
            features = self.processor(clip.video, clip.keypoints, intervals=clip.interval, **options)
        item = {name: tensor[0] for name, tensor in features.items()}
        if clip.video is not None:
            # The processor gives one if the augmentation hides the video.
            item.setdefault("frame_mask", torch.ones(len(item["pixel_values"]), dtype=torch.bool))
        return item

    def _view_seed(self, clip_id: str) -> int:
        digest = hashlib.sha256(f"{self.seed} {int(self._epoch)} {clip_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big")

    def _read_or_write_cache(self, clip: _Clip, cache_dir: Path) -> dict[str, torch.Tensor]:
        settings = self.processor.video_processor
        normalisation = (settings.image_mean, settings.image_std)
        key = self._cache_key(clip)
        path = cache_dir / key[:2] / f"{key}.safetensors"
        if (stored := _read_entry(path)) is not None:
            return stored | {"pixel_values": normalize_pixels(stored["pixel_values"], *normalisation)}
        item = self._run_processor(clip)
        # Frames are whole numbers until they are normalised: a quarter of the bytes gives the same values.
        _write_entry(path, item | {"pixel_values": denormalize_pixels(item["pixel_values"], *normalisation)})
        return item

    def _cache_key(self, clip: _Clip) -> str:
        """Digest of everything that the tensors depend on."""
        if isinstance(clip.video, bytes):
            source: Any = hashlib.sha256(clip.video).hexdigest()
        else:
            path = Path(str(clip.video)).resolve()
            status = path.stat()
            source = (str(path), status.st_size, status.st_mtime_ns)
        points = None
        if clip.keypoints is not None:
            points = (clip.keypoint_layout, clip.keypoints.shape, zlib.crc32(clip.keypoints.tobytes()))
        settings = (self.processor.to_dict(), self.missing_keypoints)
        identity = (CACHE_VERSION, settings, clip.clip_id, source, clip.interval, points)
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


class ClipDataset(Dataset):
    """Rows of a `datasets` data set, processed when they are asked for.

    A row is read from Arrow without Python lists: 0.1 ms instead of 10. The columns `video` and `keypoints` count as
    absent where all of their values are `None`.

    Args:
        rows (`datasets.Dataset`): Has the columns of `clipmg_hf.data.schema`.
        processor, augment, missing_keypoints, seed, cache_dir, allow_hidden_labels: As in [`ClipTransform`].

    Raises:
        TypeError: The rows are several splits, or none.
        ValueError: The rows are no clips or one has no label, or as [`ClipTransform`].

    Items are dictionaries of tensors; see the module.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        processor: CLIPMGProcessor,
        augment: bool = False,
        missing_keypoints: str = "error",
        seed: int | None = None,
        cache_dir: str | PathLike | None = None,
        allow_hidden_labels: bool = False,
    ):
        self.transform = ClipTransform(processor, augment, missing_keypoints, seed, cache_dir, allow_hidden_labels)
        _check_rows(rows, allow_hidden_labels)
        if not allow_hidden_labels:
            _check_labels(rows)
        empty = [
            name
            for name in TENSORS_OF_COLUMN
            if name in rows.column_names and rows.data.column(name).null_count == len(rows.data)
        ]
        kept = [name for name in READ_COLUMNS if name in rows.column_names and name not in empty]
        self.rows = rows.select_columns(kept).with_format("arrow")

    @property
    def augment(self) -> bool:
        """Whether items are random views."""
        return self.transform.augment

    @augment.setter
    def augment(self, value: bool) -> None:
        self.transform.augment = value

    def set_epoch(self, epoch: int) -> None:
        """As [`ClipTransform.set_epoch`]."""
        self.transform.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: values[0] for name, values in self.transform(self.rows[index]).items()}


def map_clips(
    rows: datasets.Dataset, transform: ClipTransform, num_proc: int | None = None, batch_size: int = 8
) -> datasets.Dataset:
    """Process all rows now and write the items, float32, to `datasets`' cache: 4.8 MB for 8 frames of 224 pixels.

    Args:
        rows (`datasets.Dataset`): Has the columns of `clipmg_hf.data.schema`.
        transform ([`ClipTransform`]): With `augment=True`, the items are one view of each clip.
        num_proc (`int`, *optional*): Processes.
        batch_size (`int`, defaults to 8): Clips in memory at a time, in each process.

    Raises:
        TypeError, ValueError: As [`ClipDataset`].
    """
    _check_rows(rows, transform.allow_hidden_labels)
    if not transform.allow_hidden_labels:
        _check_labels(rows)
    items = rows.with_format("arrow").map(
        _ArrayTransform(transform),
        batched=True,
        batch_size=batch_size,
        num_proc=num_proc,
        remove_columns=rows.column_names,
        features=_output_features(transform, rows.column_names),
    )
    return items.with_format("torch")


def stream_clips(rows: datasets.IterableDataset, transform: ClipTransform) -> datasets.IterableDataset:
    """Items of a streamed data set, one by one, from rows that are read as arrays.

    Shuffle the rows and split them between ranks before, best with `split_dataset_by_node(..., strategy="shards")`:
    where ranks cannot share the shards evenly, the default strategy has every rank process every clip. `state_dict`
    resumes exactly; also after a shuffle of the shards alone,
    `rows.shuffle(seed, buffer_size=1, max_buffer_input_shards=1)`. The contents of a larger shuffle buffer are not
    part of the state: its rows are lost.

    Args:
        rows (`datasets.IterableDataset`): Has the columns of `clipmg_hf.data.schema`. Remove `video` or `keypoints` if
            all of its values are `None`: the items would hold masked zeros.
        transform ([`ClipTransform`]): Its `set_epoch` chooses the augmented views, that of the stream the order.

    Raises:
        TypeError, ValueError: The rows are several splits, or no clips.
    """
    _check_rows(rows, transform.allow_hidden_labels)
    items = rows.with_format("numpy").map(transform, batched=True, batch_size=1, remove_columns=rows.column_names)
    return items.with_format(None)


def collate_clips(items: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack items to a batch; every tensor gains a first dimension B.

    Items of different data sets may differ in `pixel_values` and `keypoints`: what an item lacks is zero, and masked.
    A `frame_mask` that masks nothing is left out, which spares the model an attention mask.

    Raises:
        ValueError: Only some of the items have labels.
    """
    examples = {name: tensor for item in items for name, tensor in item.items()}
    num_labelled = sum("labels" in item for item in items)
    if num_labelled not in (0, len(items)):
        raise ValueError(f"{num_labelled} of {len(items)} items have labels; expected all of them, or none.")
    # In a worker, torch's own function stacks into shared memory.
    batch = {
        name: default_collate([item[name] if name in item else torch.zeros_like(example) for item in items])
        for name, example in examples.items()
    }
    if "frame_mask" in batch and batch["frame_mask"].all():
        del batch["frame_mask"]
    return batch


@dataclass(frozen=True)
class _ArrayTransform:
    """A transform whose outputs are arrays, which `datasets` can write."""

    transform: ClipTransform

    def __call__(self, table: pa.Table) -> dict[str, list[Any]]:
        outputs = self.transform(table)
        return {name: [tensor.numpy()[()] for tensor in tensors] for name, tensors in outputs.items()}


def _output_features(transform: ClipTransform, column_names: Sequence[str]) -> datasets.Features:
    """Features of the outputs: without them `datasets` takes frames for lists of lists, and reads them as slowly."""
    size = transform.processor.video_processor.size["height"]
    num_keypoints = get_layout(transform.processor.keypoint_layout).num_keypoints
    features: dict[str, Any] = {
        "pixel_values": datasets.Array4D((None, 3, size, size), "float32"),
        "frame_mask": datasets.List(datasets.Value("bool")),
        "keypoints": datasets.Array3D((None, num_keypoints, 3), "float32"),
        "keypoint_mask": datasets.List(datasets.Value("bool")),
        "labels": datasets.Value("int64"),
    }
    names = _tensor_names(column_names) + ([] if transform.allow_hidden_labels else ["labels"])
    return datasets.Features({name: features[name] for name in names})


def _tensor_names(columns: Iterable[str]) -> list[str]:
    columns = set(columns)
    return [name for column, names in TENSORS_OF_COLUMN.items() if column in columns for name in names]


def _check_rows(rows: datasets.Dataset | datasets.IterableDataset, allow_hidden_labels: bool) -> None:
    """Raise an error that says what was expected if these are not the clips of one split."""
    if isinstance(rows, Mapping):
        splits = list(rows)
        example = f", such as rows[{splits[0]!r}]" if splits else ""
        raise TypeError(f"rows is a {type(rows).__name__} of {', '.join(splits)}; expected one split{example}.")
    if not isinstance(rows, datasets.Dataset | datasets.IterableDataset):
        raise TypeError(f"rows is a {type(rows).__name__}; expected a data set of the package datasets.")
    columns = rows.column_names
    # A stream may not know its columns.
    if columns is None:
        return
    if "segments" in columns:
        raise ValueError("rows are whole videos with segments (name='online'); expected clips, name='classification'.")
    required = REQUIRED_COLUMNS if allow_hidden_labels else (*REQUIRED_COLUMNS, "label")
    lacking = [name for name in required if name not in columns]
    if not any(name in columns for name in TENSORS_OF_COLUMN):
        lacking.append(" or ".join(TENSORS_OF_COLUMN))
    if lacking:
        raise ValueError(
            f"rows lack {', '.join(lacking)}; expected the columns of clipmg_hf.data.schema, got {', '.join(columns)}."
        )


def _check_labels(rows: datasets.Dataset) -> None:
    """Raise a ValueError if a row has no label."""
    labels = rows.select_columns("label").with_format("arrow")[:]["label"].to_numpy()
    hidden = np.flatnonzero(labels < 0)
    if len(hidden):
        raise ValueError(
            f"{len(hidden)} of {len(rows)} rows have no label, first row {hidden[0]} "
            f"({rows[int(hidden[0])]['clip_id']}): {NO_LABELS_HINT}."
        )


def _read_labels(columns: Mapping[str, Sequence[Any]]) -> torch.Tensor:
    """Labels int64 (B,)."""
    hidden = [clip_id for clip_id, label in zip(columns["clip_id"], columns["label"], strict=True) if label < 0]
    if hidden:
        named = ", ".join(map(str, hidden[:MAX_NAMED_CLIPS])) + ", ..." * (len(hidden) > MAX_NAMED_CLIPS)
        # How many there are of all rows, a batch does not know.
        raise ValueError(f"clips without a label ({named}): {NO_LABELS_HINT}.")
    return torch.tensor([int(label) for label in columns["label"]])


def _read_clip(columns: Mapping[str, Sequence[Any]], index: int) -> _Clip:
    row: dict[str, Any] = dict.fromkeys(READ_COLUMNS)
    for name in READ_COLUMNS:
        if name in columns and not _is_missing(value := columns[name][index]):
            row[name] = value
    video = row["video"]
    if isinstance(video, Mapping):
        video = video["path"] if video["bytes"] is None else video["bytes"]
    offset = int(row["video_start_frame"] or 0)
    layout = row["keypoint_layout"]
    return _Clip(
        clip_id=str(row["clip_id"]),
        video=video if video is None or isinstance(video, bytes) else str(video),
        interval=(int(row["start_frame"]) - offset, int(row["end_frame"]) + 1 - offset),
        keypoints=_mask_points(row["keypoints"], row["keypoints_valid"]),
        keypoint_layout=None if layout is None else str(layout),
    )


def _is_missing(value: Any) -> bool:
    """Whether a value stands for `None`, which the "numpy" format turns into NaN."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _mask_points(keypoints: Any, valid: Any) -> np.ndarray | None:
    """Points (T, K, 3) with zeros where they are not valid (T, K)."""
    if keypoints is None or valid is None:
        return None if keypoints is None else np.asarray(keypoints, np.float32)
    return np.where(np.asarray(valid, bool)[..., None], np.asarray(keypoints, np.float32), np.float32(0))


def _read_table(table: pa.Table) -> dict[str, list[Any]]:
    """The columns that are read, keypoints as arrays."""
    return {
        name: [_read_array(value) for value in table[name]] if name in ARRAY_COLUMNS else table[name].to_pylist()
        for name in READ_COLUMNS
        if name in table.column_names
    }


def _read_array(value: Any) -> np.ndarray | None:
    """Array of a scalar of nested lists whose inner lengths are equal."""
    if not value.is_valid:
        return None
    value = value.value if isinstance(value, pa.ExtensionScalar) else value
    values, shape = value.values, [len(value)]
    while pa.types.is_nested(values.type):
        shape.append(len(values[0]))
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _read_entry(path: Path) -> dict[str, torch.Tensor] | None:
    """Tensors of a cache entry; `None` where it is absent or damaged."""
    try:
        tensors = safetensors.torch.load(path.read_bytes())
        checksum = int(tensors.pop("checksum"))
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return tensors if checksum_tensors(tensors) == checksum else None


def _write_entry(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.torch.save(tensors | {"checksum": torch.tensor(checksum_tensors(tensors))})
    write_file(path, content)


def checksum_tensors(tensors: Mapping[str, torch.Tensor]) -> int:
    """CRC-32 of the values of named tensors on the CPU, in the order of their names."""
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().tobytes(), checksum)
    return checksum


__all__ = ["ClipDataset", "ClipTransform", "checksum_tensors", "collate_clips", "map_clips", "stream_clips"]
