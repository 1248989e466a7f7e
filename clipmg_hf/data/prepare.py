"""From rows of a clip data set to a compact folder that plain `datasets` loads, without `clipmg_hf` or torchcodec.

    python hub_scripts/prepare_dataset.py --data_dir /data/imigue --output_dir prepared --num_proc 8

Every clip's interval is cut out of its video, scaled and stored beside its row, in Parquet or WebDataset shards. A
shard depends on its rows and the settings alone: an interrupted run goes on where it stopped, and the bytes are the
same in the end, whatever was killed and however many processes worked. `manifest.json` comes last: a folder without
it is unfinished.
"""

import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock, Timeout
from tqdm import tqdm

from clipmg_hf.data.clip_cutting import CODECS, Crop, PrepareConfig, fit, prepare_row
from clipmg_hf.data.data_card import data_card
from clipmg_hf.data.prepared_folder import (
    ARRAY_COLUMNS,
    EXTENSIONS,
    LOCK_NAME,
    MANIFEST_NAME,
    README_NAME,
    RECORD_NAME,
    load_prepared,
    other_files,
    verify_dataset,
    write_rows,
)
from clipmg_hf.data.problems import DatasetFormatError, ProblemLog
from clipmg_hf.data.schema import PERSONAL_COLUMNS
from clipmg_hf.files import PARTIAL_SUFFIX, digest_file, write_file
from clipmg_hf.processes import make_pool
from clipmg_hf.processing import VideoDecodingError, VideoReader


logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
UNKNOWN_FRAME_SIZE = (1280, 720)
# Of a message: differences between two runs, and characters of a value.
MAX_DIFFERENCES, MAX_VALUE_LENGTH = 3, 80


@dataclass(frozen=True)
class Shard:
    """One file: rows `start` to `stop - 1` of a split."""

    split: str
    start: int
    stop: int
    name: str


def prepare_dataset(
    rows: datasets.DatasetDict,
    output_dir: str | os.PathLike,
    config: PrepareConfig | None = None,
    num_proc: int = 1,
    source: dict[str, Any] | None = None,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Write the prepared data set below `output_dir`, or what is missing of it.

    Several processes import the main script: one that asks for them needs an `if __name__ == "__main__"` guard.

    Args:
        rows (`datasets.DatasetDict`): Rows of `clipmg_hf.data.schema`, not prepared ones.
        output_dir (`str` or `PathLike`): Empty, missing, or with a run of the same rows and settings.
        config ([`PrepareConfig`], *optional*): Settings.
        num_proc (`int`, defaults to 1): Processes; each works on a shard.
        source (`dict`, *optional*): JSON-able description of the rows, for the manifest: data set, layout,
            fingerprint, protocol and seed of the split. Keypoints that change without a change here are not noticed
            on resuming.
        show_progress (`bool`, defaults to `True`): With a bar that counts clips.

    Returns:
        The contents of `manifest.json`.

    Raises:
        DatasetFormatError: Rows or videos are not as documented. Everything else is written; after a repair of the
            videos the same call writes the rest.
        ValueError: The folder holds other files or a run of other settings, the rows are not as documented, or
            `crop_person` is asked for and no row has keypoints.
        OSError: The disk is too small.
    """
    folder, config = Path(output_dir), config or PrepareConfig()
    features = _prepared_features(rows, config)
    columns = {split: _read_scalars(dataset) for split, dataset in rows.items()}
    _check_rows(columns, config)
    shards = _plan_shards(columns, config)
    identity = _describe_run(columns, features, config, source or {})
    with _lock(folder):
        finished = _claim_folder(folder, identity, [shard.name for shard in shards])
        _remove_changed(folder, finished)
        _check_space(folder, columns, features, config, shards)
        (folder / "data").mkdir(exist_ok=True)
        work = Work(rows, folder, config, features)
        files, problems = _write_shards(work, shards, num_proc, show_progress)
        if problems:
            raise DatasetFormatError(problems, str(folder))
        return _finish(folder, identity, columns, features, shards, files)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock of a killed run is free."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(f"{folder}: another process is writing to it; expected to be the only one.") from error


def _remove_changed(folder: Path, finished: dict[str, dict[str, Any]]) -> None:
    """Remove shards of a finished run that are no longer what its manifest says, so that they are written again."""
    for name, entry in finished.items():
        path = folder / name
        if path.exists() and digest_file(path)["sha256"] != entry["sha256"]:
            logger.warning("%s: has changed since it was written; it is written again", path)
            path.unlink()


def _finish(
    folder: Path,
    identity: dict[str, Any],
    columns: dict[str, dict[str, list]],
    features: datasets.Features,
    shards: list[Shard],
    files: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Write the files that say what the shards are, the manifest last."""
    manifest = {
        **identity,
        "splits": {split: _count(values, features) for split, values in columns.items()},
        "files": {shard.name: {"rows": shard.stop - shard.start, **files[shard.name]} for shard in shards},
    }
    write_file(folder / README_NAME, data_card(manifest))
    write_file(folder / MANIFEST_NAME, json.dumps(manifest, indent=2) + "\n")
    (folder / RECORD_NAME).unlink(missing_ok=True)
    return manifest


def _read_scalars(dataset: datasets.Dataset) -> dict[str, list]:
    """All columns but the arrays."""
    names = [name for name in dataset.column_names if name not in ARRAY_COLUMNS]
    return dataset.with_format(None).select_columns(names)[:]


def _prepared_features(rows: datasets.DatasetDict, config: PrepareConfig) -> datasets.Features:
    if not rows:
        raise ValueError("rows hold no split; expected at least one.")
    first, *others = rows
    for split in others:
        if rows[split].features != rows[first].features:
            raise ValueError(f"The columns of the splits {first!r} and {split!r} differ; expected the same features.")
    if rows[first].features["video"] != datasets.Value("string"):
        raise ValueError("The column video holds no paths; expected rows of a loader, which are not prepared yet.")
    if config.crop_person and not any(map(_has_keypoints, rows.values())):
        raise ValueError("crop_person=True, but no row has keypoints, which tell where the person is; expected False.")
    dropped = () if config.keep_personal_columns else PERSONAL_COLUMNS
    features = {name: feature for name, feature in rows[first].features.items() if name not in dropped}
    features["video"] = datasets.Video(decode=False)
    features["crop"] = datasets.List(datasets.Value("int32"), length=4)
    return datasets.Features(features)


def _has_keypoints(dataset: datasets.Dataset) -> bool:
    if "keypoints" not in dataset.column_names:
        return False
    column = dataset.data.column("keypoints")
    return column.null_count < len(column)


def _check_rows(columns: dict[str, dict[str, list]], config: PrepareConfig) -> None:
    """Find what can be found without opening a video."""
    log = ProblemLog("rows")
    seen: dict[str, str] = {}
    exists: dict[str, bool] = {}
    for split, values in columns.items():
        if not values["clip_id"]:
            log.add(f"{split}: no rows; expected at least one, or no such split.")
        names = ("clip_id", "start_frame", "end_frame", "video_start_frame", "video")
        for index, (clip_id, start, end, offset, video) in enumerate(zip(*(values[n] for n in names), strict=True)):
            where = f"{split} row {index} ({clip_id})"
            if clip_id in seen:
                log.add(f"{where}: clip_id is already that of {seen[clip_id]}; expected one of its own.")
            seen[clip_id] = where
            if not offset <= start <= end:
                log.add(
                    f"{where}: frames {start} to {end} of a file from frame {offset} on; expected an interval in it."
                )
            if video is not None and not exists.setdefault(video, Path(video).is_file()):
                log.add(f"{where}: {video}: no such file; expected the video.")
            if config.storage == "webdataset" and ("." in clip_id or "/" in clip_id):
                log.add(f"{where}: clip_id has a dot or a slash; expected none with storage='webdataset'.")
    log.raise_if_any()


def _plan_shards(columns: dict[str, dict[str, list]], config: PrepareConfig) -> list[Shard]:
    shards = []
    for split, values in columns.items():
        num_rows, size = len(values["clip_id"]), config.clips_per_shard
        count = -(-num_rows // size)
        for index in range(count):
            name = f"data/{split}-{index:05d}-of-{count:05d}.{EXTENSIONS[config.storage]}"
            shards.append(Shard(split, index * size, min((index + 1) * size, num_rows), name))
    return shards


def _describe_run(
    columns: dict[str, dict[str, list]], features: datasets.Features, config: PrepareConfig, source: dict[str, Any]
) -> dict[str, Any]:
    """What must agree for two runs to write the same bytes."""
    digests = {}
    for split, values in columns.items():
        # Data may move to another folder between two runs.
        names = [None if video is None else Path(video).name for video in values["video"]]
        digests[split] = hashlib.sha256(json.dumps({**values, "video": names}, sort_keys=True).encode()).hexdigest()
    identity = {
        "format_version": FORMAT_VERSION,
        "settings": {**asdict(config), "quality": config.stored_quality},
        "source": source,
        "packages": {name: version(name) for name in ("clipmg_hf", "datasets", "pyarrow", "av")},
        "rows_sha256": digests,
        "features": features.to_dict(),
    }
    return json.loads(json.dumps(identity))


def _claim_folder(folder: Path, identity: dict[str, Any], shard_names: list[str]) -> dict[str, dict[str, Any]]:
    """Record whose folder it is, or check that it is this run's; remove what a killed run left half-written.

    Returns:
        `dict`: The files that the manifest of a finished run names, with their digests.
    """
    record = next((folder / name for name in (MANIFEST_NAME, RECORD_NAME) if (folder / name).exists()), None)
    known: list[str] = []
    finished: dict[str, dict[str, Any]] = {}
    if record is not None:
        content = json.loads(record.read_text(encoding="utf-8"))
        finished = content.pop("files", {})
        different = _differences(content, identity)
        if different:
            more = f"; and {len(different) - MAX_DIFFERENCES} more" if len(different) > MAX_DIFFERENCES else ""
            raise ValueError(
                f"{folder}: holds a run of other rows or settings ({'; '.join(different[:MAX_DIFFERENCES])}{more}); "
                "expected an empty folder or one of the same run."
            )
        known = [*shard_names, README_NAME, MANIFEST_NAME, RECORD_NAME]
    others = other_files(folder, known)
    leftovers = [name for name in others if name.endswith(PARTIAL_SUFFIX)]
    if foreign := sorted(set(others) - set(leftovers)):
        shown = ", ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise ValueError(f"{folder}: holds files of another origin ({shown}); expected an empty folder.")
    for name in leftovers:
        (folder / name).unlink()
    if record is None:
        write_file(folder / RECORD_NAME, json.dumps(identity, indent=2) + "\n")
    return finished


def _differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, such as `settings.codec: 'h264' instead of 'mjpeg'`."""
    if found == expected:
        return []
    if isinstance(found, list) and isinstance(expected, list):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return [f"{where}: {' instead of '.join(_shorten_values(found, expected))}"]
    # A manifest holds more than a run is told by.
    names = [name for name in {**expected, **found} if where or name in expected]
    pairs = ((name, found.get(name), expected.get(name)) for name in names)
    return [line for name, a, b in pairs for line in _differences(a, b, f"{where}.{name}" if where else name)]


def _shorten_values(*values: Any) -> list[str]:
    """Different values as they are written in Python; long ones as the part where they begin to differ."""
    texts = [repr(value) for value in values]
    if max(map(len, texts)) <= MAX_VALUE_LENGTH:
        return texts
    same = itertools.takewhile(lambda characters: len(set(characters)) == 1, zip(*texts, strict=False))
    start = max(0, sum(1 for _ in same) - MAX_VALUE_LENGTH // 4)
    cuts = [text[start : start + MAX_VALUE_LENGTH] for text in texts]
    return [
        "..." * (start > 0) + cut + "..." * (start + len(cut) < len(text))
        for cut, text in zip(cuts, texts, strict=True)
    ]


def _check_space(
    folder: Path,
    columns: dict[str, dict[str, list]],
    features: datasets.Features,
    config: PrepareConfig,
    shards: list[Shard],
) -> None:
    missing = [shard for shard in shards if not (folder / shard.name).exists()]
    needed = sum(_estimate_bytes(columns[shard.split], features, config, shard) for shard in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"about {needed:,} bytes are needed and {free:,} are free; expected more room", str(folder)
        )


def _estimate_bytes(columns: dict[str, list], features: datasets.Features, config: PrepareConfig, shard: Shard) -> int:
    """A careful guess of the size of a shard, from frames, sizes and settings."""
    codec = CODECS[config.codec]
    # Six steps of CRF halve H.264; JPEG shrinks a little less than its quantiser grows.
    steps = config.stored_quality - codec.default_quality
    ratio = 0.5 ** (steps / 6) if config.codec == "h264" else (config.stored_quality / codec.default_quality) ** -0.7
    per_keypoint = 3 * 4 + 1
    keypoint_bytes = features["keypoints"].shape[1] * per_keypoint if "keypoints" in features else 0
    total = 0.0
    names = ("start_frame", "end_frame", "width", "height", "video")
    for start, end, width, height, video in zip(*(columns[n][shard.start : shard.stop] for n in names), strict=True):
        whole = Crop(0, 0, width or UNKNOWN_FRAME_SIZE[0], height or UNKNOWN_FRAME_SIZE[1])
        _, (stored_width, stored_height) = fit(whole, config.short_side)
        pixels = 0 if video is None else stored_width * stored_height
        total += (end - start + 1) * (pixels * codec.bytes_per_pixel * ratio + keypoint_bytes)
    return round(total)


@dataclass(frozen=True)
class Work:
    """What every process needs; the rows are pickled as references to their Arrow files."""

    rows: datasets.DatasetDict
    folder: Path
    config: PrepareConfig
    features: datasets.Features


def _write_shards(
    work: Work, shards: list[Shard], num_proc: int, show_progress: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Write the missing shards; size and digest of every file, and all problems in the order of the rows."""
    files: dict[str, dict[str, Any]] = {}
    problems: dict[str, list[str]] = {}
    total = sum(shard.stop - shard.start for shard in shards)
    with tqdm(total=total, desc="Prepare", unit="clip", disable=not show_progress) as bar:
        for shard, entry, found in _finished(work, shards, num_proc):
            files[shard.name], problems[shard.name] = entry, found
            bar.update(shard.stop - shard.start)
    return files, [problem for shard in shards for problem in problems[shard.name]]


def _finished(work: Work, shards: list[Shard], num_proc: int) -> Iterator[tuple[Shard, dict[str, Any], list[str]]]:
    """Yield shards as they are finished."""
    if num_proc <= 1:
        yield from ((shard, *write_shard(work, shard)) for shard in shards)
        return
    with make_pool(min(num_proc, len(shards)), __name__, _start_worker, work) as pool:
        futures = {pool.submit(_write_in_worker, shard): shard for shard in shards}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_worker_work: Work


def _start_worker(work: Work) -> None:
    global _worker_work
    _worker_work = work


def _write_in_worker(shard: Shard) -> tuple[dict[str, Any], list[str]]:
    return write_shard(_worker_work, shard)


def write_shard(work: Work, shard: Shard) -> tuple[dict[str, Any], list[str]]:
    """Write a shard unless it is there.

    Returns:
        `tuple`: `bytes` and `sha256` of the file, and the problems of its rows; with problems there is no file.
    """
    path = work.folder / shard.name
    if not path.exists():
        log = ProblemLog(shard.name)
        partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            write_rows(partial, work.config.storage, work.features, _prepare_rows(work, shard, log))
        except OSError as error:
            partial.unlink(missing_ok=True)
            # Arrow does not say where the disk is full.
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(work.folder)) from error
        if log.problems:
            partial.unlink()
            return {}, log.problems
        partial.replace(path)
    return digest_file(path), []


def _prepare_rows(work: Work, shard: Shard, log: ProblemLog) -> Iterator[dict[str, Any]]:
    """Yield the prepared rows of a shard; those with problems are left out and logged."""
    split = work.rows[shard.split]
    arrays = [name for name in ARRAY_COLUMNS if name in work.features]
    # Only arrays: `datasets` cuts trailing zeros off other columns in this format.
    split = split.with_format("numpy", columns=arrays, output_all_columns=True)
    numbered = ((index, split[index]) for index in range(shard.start, shard.stop))
    # The clips of a video follow each other and share its reader, whose opening scans the whole file.
    for video, group in itertools.groupby(numbered, key=lambda item: item[1]["video"]):
        reader: VideoReader | None = None
        problem = ""
        try:
            reader = None if video is None else VideoReader(video, num_threads=1)
        except VideoDecodingError as error:
            problem = str(error)
        with nullcontext() if reader is None else reader:
            for index, row in group:
                try:
                    if problem:
                        raise DatasetFormatError(problem)
                    yield prepare_row(row, reader, work.config)
                except (DatasetFormatError, VideoDecodingError) as error:
                    log.add(f"{shard.split} row {index} ({row['clip_id']}): {error}")


def _count(columns: dict[str, list], features: datasets.Features) -> dict[str, Any]:
    """Clips, frames, and clips of each class that occurs."""
    labels = Counter(columns["label"])
    frames = sum(end - start + 1 for start, end in zip(columns["start_frame"], columns["end_frame"], strict=True))
    return {
        "clips": labels.total(),
        "frames": frames,
        "without_label": labels[-1],
        "classes": {name: labels[index] for index, name in enumerate(features["label"].names) if labels[index]},
    }


__all__ = ["MANIFEST_NAME", "PrepareConfig", "load_prepared", "prepare_dataset", "verify_dataset"]
