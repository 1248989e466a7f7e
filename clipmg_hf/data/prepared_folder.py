"""The files of a prepared folder: shards in Parquet or WebDataset, the manifest, loading and checking.

    rows = load_prepared("prepared")                    # or datasets.load_dataset("prepared")
    problems = verify_dataset("prepared", decode=True)

`clipmg_hf.data.prepare` writes them.
"""

import io
import itertools
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.files import PARTIAL_SUFFIX, digest_file
from clipmg_hf.processing import VideoDecodingError, VideoReader


MANIFEST_NAME = "manifest.json"
README_NAME = "README.md"
# Says whose unfinished run is in a folder; `manifest.json` takes its place.
RECORD_NAME = ".unfinished.json"
LOCK_NAME = ".lock"
EXTENSIONS = {"parquet": "parquet", "webdataset": "tar"}
ARRAY_COLUMNS = ("keypoints", "keypoints_valid")
# A reader of a stream holds one group in memory: about 3 MB of H.264 at 256 pixels, 25 MB of JPEG.
ROWS_PER_GROUP = 16
VERIFY_HINT = "hub_scripts/prepare_dataset.py --verify names all that is wrong; preparing again repairs it"


def other_files(folder: Path, known: Iterable[str]) -> list[str]:
    """Files below the folder that are not known. Hidden entries of the top are other programs', unless partial."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    visible = [path for path in found if not path.parts[0].startswith(".") or path.name.endswith(PARTIAL_SUFFIX)]
    return sorted({path.as_posix() for path in visible} - set(known))


def write_rows(path: Path, storage: str, features: datasets.Features, rows: Iterator[dict[str, Any]]) -> None:
    """Write prepared rows as one shard; its bytes depend on nothing else."""
    write = {"parquet": _write_parquet, "webdataset": _write_tar}[storage]
    write(path, features, rows)


def _write_parquet(path: Path, features: datasets.Features, rows: Iterator[dict[str, Any]]) -> None:
    schema = features.arrow_schema
    # Neither helps encoded video; keypoints lose a third to a half.
    compression = {name: "NONE" if name.startswith("video.") else "ZSTD" for name in _leaf_names(schema)}
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as writer:
        while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
            columns = {name: [row[name] for row in group] for name in features}
            writer.write_table(datasets.Dataset.from_dict(columns, features=features).data.table)


def _leaf_names(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns."""
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    leaves = pq.ParquetFile(file).schema
    return [leaves.column(index).path for index in range(len(leaves.names))]


def _write_tar(path: Path, features: datasets.Features, rows: Iterator[dict[str, Any]]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for row in rows:
            for extension, data in _tar_members(row, features).items():
                # A new one has time, owner and group 0.
                member = tarfile.TarInfo(f"{row['clip_id']}.{extension}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def _tar_members(row: dict[str, Any], features: datasets.Features) -> dict[str, bytes]:
    """The files of a row. Readers of WebDataset expect the same ones in every row: without a video it is empty."""
    scalars = {name: row[name] for name in features if name not in (*ARRAY_COLUMNS, "video")}
    label = features["label"].int2str(row["label"]) if row["label"] >= 0 else ""
    scalars |= {"label_name": label, "has_video": row["video"] is not None}
    members = {}
    if "keypoints" in features:
        scalars["has_keypoints"] = row["keypoints"] is not None
        num_frames, num_keypoints = row["end_frame"] - row["start_frame"] + 1, features["keypoints"].shape[1]
        missing = {"keypoints": np.zeros((num_frames, num_keypoints, 3), np.float32)}
        missing["keypoints_valid"] = np.zeros((num_frames, num_keypoints), bool)
        for name, absent in missing.items():
            buffer = io.BytesIO()
            np.save(buffer, absent if row[name] is None else row[name], allow_pickle=False)
            members[f"{name}.npy"] = buffer.getvalue()
    video = b"" if row["video"] is None else row["video"]["bytes"]
    return {"json": json.dumps(scalars).encode(), **members, "mp4": video}


def _read_tar(path: Path, extensions: tuple[str, ...] | None = None) -> Iterator[dict[str, bytes]]:
    """Yield the files of each row by their extensions; `None` reads all."""
    with tarfile.open(path) as archive:
        for _, members in itertools.groupby(archive, key=lambda member: member.name.partition(".")[0]):
            sample = {}
            for member in members:
                extension = member.name.partition(".")[2]
                file = archive.extractfile(member)
                if file is not None and (extensions is None or extension in extensions):
                    sample[extension] = file.read()
            yield sample


def _generate_tar_rows(files: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of tar shards, given as path and digest; the digest tells `datasets`' cache that one changed."""
    for path, _ in files:
        for sample in _read_tar(Path(path)):
            row = json.loads(sample["json"])
            has_video, has_keypoints = row.pop("has_video"), row.pop("has_keypoints", False)
            del row["label_name"]
            row["video"] = {"bytes": sample["mp4"], "path": f"{row['clip_id']}.mp4"} if has_video else None
            for name in ARRAY_COLUMNS:
                if f"{name}.npy" in sample:
                    array = np.load(io.BytesIO(sample[f"{name}.npy"]), allow_pickle=False)
                    row[name] = array if has_keypoints else None
            yield row


def load_prepared(
    folder: str | os.PathLike, streaming: bool = False, cache_dir: str | os.PathLike | None = None
) -> datasets.DatasetDict | datasets.IterableDatasetDict:
    """Load a prepared folder: rows of `clipmg_hf.data.schema` for either storage.

    Args:
        folder (`str` or `PathLike`): As [`prepare_dataset`] wrote it.
        streaming (`bool`, defaults to `False`): Read the shards as they are iterated over, and copy nothing.
        cache_dir (`str` or `PathLike`, *optional*): Where `datasets` keeps its Arrow copy.

    Raises:
        DatasetFormatError: There is no `manifest.json`, or a file that it names is missing or has changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    _check_sizes(folder, manifest)
    entries = manifest["files"].items()
    cache = None if cache_dir is None else str(cache_dir)
    files: dict[str, list[tuple[str, str]]] = {
        split: [(str(folder / n), entry["sha256"]) for n, entry in entries if _split_of(n) == split]
        for split in manifest["splits"]
    }
    if manifest["settings"]["storage"] == "parquet":
        paths = {split: [path for path, _ in pairs] for split, pairs in files.items()}
        with _damage_to_error(folder):
            return datasets.load_dataset("parquet", data_files=paths, streaming=streaming, cache_dir=cache)
    features = datasets.Features.from_dict(manifest["features"])
    options: dict[str, Any] = {"generator": _generate_tar_rows, "features": features}
    if streaming:
        streams = {
            split: datasets.IterableDataset.from_generator(**options, gen_kwargs={"files": pairs}, split=split)
            for split, pairs in files.items()
        }
        return datasets.IterableDatasetDict(streams)
    with _damage_to_error(folder):
        tables = {
            split: datasets.Dataset.from_generator(
                **options, gen_kwargs={"files": pairs}, split=split, cache_dir=cache
            )
            for split, pairs in files.items()
        }
    return datasets.DatasetDict(tables)


def _check_sizes(folder: Path, manifest: dict[str, Any]) -> None:
    """Find shards that are missing or cut short before `datasets` fails at them."""
    problems = []
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: no such file")
        elif path.stat().st_size != entry["bytes"]:
            problems.append(f"{name}: {path.stat().st_size:,} bytes; expected {entry['bytes']:,}")
    if problems:
        raise DatasetFormatError(problems, f"{folder}, as manifest.json names its files ({VERIFY_HINT})")


@contextmanager
def _damage_to_error(folder: Path) -> Iterator[None]:
    """Say which folder it was that `datasets` could not read. A full disk is no damage."""
    try:
        yield
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowInvalid) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        reason = str(cause).partition("\n")[0]
        raise DatasetFormatError(f"{folder}: a file cannot be read ({reason}); {VERIFY_HINT}.") from error


def _split_of(shard_name: str) -> str:
    return Path(shard_name).name.rsplit("-", 3)[0]


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The contents of `manifest.json`; a `DatasetFormatError` without one."""
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        raise DatasetFormatError(f"{path}: no such file; expected a folder that prepare_dataset has finished.")
    return json.loads(path.read_text(encoding="utf-8"))


def verify_dataset(folder: str | os.PathLike, decode: bool = False) -> list[str]:
    """Compare a prepared folder with its manifest. `README.md`, which its owner may edit, is not compared.

    Args:
        folder (`str` or `PathLike`): As [`prepare_dataset`] wrote it.
        decode (`bool`, defaults to `False`): Decode every video, too: its frames are as many as its interval has, and
            as large as its row says.

    Returns:
        `list[str]`: All problems; empty if there are none.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except (DatasetFormatError, json.JSONDecodeError) as error:
        return [str(error)]
    problems = [
        f"{name}: not in the manifest"
        for name in other_files(folder, [*manifest["files"], README_NAME, MANIFEST_NAME])
    ]
    labels: dict[str, Counter[int]] = {split: Counter() for split in manifest["splits"]}
    incomplete = set()
    for name, entry in manifest["files"].items():
        found, file_labels = _verify_file(folder / name, name, entry, decode)
        problems += found
        if file_labels is None:
            incomplete.add(_split_of(name))
        else:
            labels[_split_of(name)].update(file_labels)
    class_names = manifest["features"]["label"]["names"]
    for split in sorted(set(labels) - incomplete):
        expected = manifest["splits"][split]
        counted = {class_name: labels[split][index] for index, class_name in enumerate(class_names)}
        pairs = [("clips", labels[split].total()), ("without_label", labels[split][-1])]
        problems += [
            f"{split}: {count} {key}; expected {expected[key]}" for key, count in pairs if count != expected[key]
        ]
        problems += [
            f"{split}: {count} clips of class {class_name!r}; expected {expected['classes'].get(class_name, 0)}"
            for class_name, count in counted.items()
            if count != expected["classes"].get(class_name, 0)
        ]
    return problems


def _verify_file(path: Path, name: str, entry: dict[str, Any], decode: bool) -> tuple[list[str], list[int] | None]:
    """Problems of one shard, and the labels of its rows; `None` if it cannot be read."""
    if not path.is_file():
        return [f"{name}: no such file"], None
    problems = []
    digest = digest_file(path)
    if digest["bytes"] != entry["bytes"]:
        problems.append(f"{name}: changed, {digest['bytes']:,} bytes; expected {entry['bytes']:,}")
    elif digest["sha256"] != entry["sha256"]:
        found, expected = (digests["sha256"][:12] for digests in (digest, entry))
        problems.append(f"{name}: changed, same size, other contents (sha256 {found}...; expected {expected}...)")
    labels = []
    try:
        for row in _read_for_verification(path, decode):
            labels.append(row["label"])
            if decode and row["video"] is not None:
                problems += [f"{name}, clip {row['clip_id']}: {problem}" for problem in _verify_video(row)]
    except (OSError, ValueError, KeyError, pa.ArrowException, tarfile.TarError) as error:
        return [*problems, f"{name}: cannot be read ({error})"], None
    if len(labels) != entry["rows"]:
        problems.append(f"{name}: {len(labels)} rows; expected {entry['rows']}")
    return problems, labels


def _read_for_verification(path: Path, with_video: bool) -> Iterator[dict[str, Any]]:
    """Yield rows with scalar columns and, if asked for, `video`: the bytes, or `None`."""
    if path.suffix == ".parquet":
        names = ["clip_id", "start_frame", "end_frame", "label", "width", "height", *["video"] * with_video]
        for batch in pq.ParquetFile(path).iter_batches(ROWS_PER_GROUP, columns=names):
            for row in batch.to_pylist():
                video = row.get("video")
                yield {**row, "video": None if video is None else video["bytes"]}
        return
    for sample in _read_tar(path, ("json", *["mp4"] * with_video)):
        yield {**json.loads(sample["json"]), "video": sample.get("mp4") or None}


def _verify_video(row: dict[str, Any]) -> list[str]:
    try:
        with VideoReader(row["video"], num_threads=1) as reader:
            num_frames = sum(1 for _ in reader.iter_frames())
            found = (num_frames, reader.info.width, reader.info.height)
    except VideoDecodingError as error:
        return [str(error)]
    expected = (row["end_frame"] - row["start_frame"] + 1, row["width"], row["height"])
    if found == expected:
        return []
    return ["{} frames of {} x {}; expected {} of {} x {}".format(*found, *expected)]


__all__ = [
    "ARRAY_COLUMNS",
    "EXTENSIONS",
    "LOCK_NAME",
    "MANIFEST_NAME",
    "README_NAME",
    "RECORD_NAME",
    "load_prepared",
    "other_files",
    "read_manifest",
    "verify_dataset",
    "write_rows",
]
