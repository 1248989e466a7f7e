"""Skeleton files to arrays: read with every doubt checked, and converted once into a cache.

    cache = SkeletonCache()
    problems = cache.convert([("0001_openpose.xlsx", "openpose_xlsx")], num_proc=4)
    keypoints = cache.load("0001_openpose.xlsx", "openpose_xlsx").keypoints

| kind | file | layout |
|---|---|---|
| openpose_xlsx | iMiGUE: 411 columns, 137 x (x, y, confidence) | openpose-137 |
| light_hand_csv | iMiGUE: 35 x (x, y, confidence), as a rule after an index | imigue-light-35 |
| openpose_json | iMiGUE: a folder of OpenPose's JSON files, one for each frame | openpose-137 |
| smg_csv | SMG: 25 Kinect joints x 11 values | kinect-25 |

Row i of a file is frame i of the video. What the sources do not agree on is found out for each file and kept as its
facts. N is the number of rows, K that of the layout's points.
"""

import csv
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import datasets
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors
from tqdm import tqdm

from clipmg_hf.data.discovery import shorten
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.files import PARTIAL_SUFFIX, write_file
from clipmg_hf.processes import make_pool
from clipmg_hf.processing import KeypointFileError, convert_keypoints, get_layout, read_openpose, valid_keypoints


logger = logging.getLogger(__name__)

Facts: TypeAlias = dict[str, Any]
T = TypeVar("T")

# Change it when a reader changes what it returns: entries of another version are converted again.
READER_VERSION = 2
CACHE_FOLDER = "clipmg_skeletons"
# A conversion takes seconds: what is older was left behind by a process that was killed.
ABANDONED_AFTER = 3600  # seconds
# Layout of each kind of file.
KINDS = {
    "openpose_xlsx": "openpose-137",
    "light_hand_csv": "imigue-light-35",
    "openpose_json": "openpose-137",
    "smg_csv": "kinect-25",
}

# First and second hand of a row. The layouts have the left one first; not every source agrees that the files do.
HAND_BLOCKS = {
    "openpose-137": (slice(95, 116), slice(116, 137)),
    "imigue-light-35": (slice(25, 30), slice(30, 35)),
}
# The hands' order counts as known if it brings the hands this much closer to their wrists, over this many frames or
# more (our choice). In real files a hand is several times farther from the other wrist, unless the hands touch.
HAND_DISTANCE_RATIO = 1.5
MIN_HAND_FRAMES = 5

# The 11 values of a joint: world x, y, z in metres; an orientation (4); then, as is believed, its pixels in the depth
# and in the color image. The order of the two pairs is a guess, hence checked.
SMG_PIXEL_PAIRS = {"columns 10 and 11 of each joint": slice(9, 11), "columns 8 and 9 of each joint": slice(7, 9)}
# Kinect v2: size in pixels, focal length and center. The color camera's are calibrated values of one device; the
# depth camera's are round. Both images are mirrored, so that x grows with the world's.
COLOR_SIZE, COLOR_FOCAL, COLOR_CENTER = (1920, 1080), 1081.4, (959.5, 539.5)
DEPTH_FOCAL, DEPTH_CENTER = 365.0, (256.0, 212.0)
# Pixels are those of the color image if this share of the joints is not farther outside than half an image (Kinect
# guesses hidden joints), they are more than fractions of the image, and they are not the depth camera's.
MIN_SHARE_INSIDE, MAX_FRACTION, DEPTH_TOLERANCE = 0.8, 2.0, 40.0

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The keypoints of an untrimmed video.

    Args:
        keypoints (`numpy.ndarray`): float32 (N, K, 3) x, y in pixels of the video's frames and confidence; missing
            points are (0, 0, 0).
        layout (`str`): Name of the layout.
        facts (`dict`): What was found out about the file; JSON.
    """

    keypoints: np.ndarray
    layout: str
    facts: Facts


@dataclass(frozen=True, eq=False)
class _Table:
    """A table of numbers: float64 (N, C), and the number of the file's row that the first one is."""

    path: Path
    values: np.ndarray
    first_row: int

    @property
    def facts(self) -> Facts:
        return {
            "columns": self.values.shape[1],
            "header_row": self.first_row > 1,
            "rows": len(self.values),
        }

    def check(self, is_bad: np.ndarray, expected: str) -> None:
        """Raise a `DatasetFormatError` that names the first cell where `is_bad` (N, C) is true."""
        if is_bad.any():
            row, column = np.argwhere(is_bad)[0]
            raise _cell_error(
                self.path, int(row) + self.first_row, int(column), float(self.values[row, column]), expected
            )


def read_skeleton(path: str | PathLike, kind: str) -> Skeleton:
    """Read one skeleton file, or one folder of JSON files.

    A workbook without a row is a skeleton of 0 rows: two of the Oulu release are empty.

    Args:
        path (`str` or `PathLike`): The file or folder.
        kind (`str`): One of `KINDS`.

    Returns:
        [`Skeleton`]. Hands that the file has in the order right, left are put in the order of the layout.

    Raises:
        DatasetFormatError: The file is not as documented; the message names file, row, column, value and what was
            expected. Rows and columns are counted from 1.
        ValueError: Another `kind`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(map(repr, KINDS))}.")
    return _READERS[kind](Path(path))


def _read_openpose_xlsx(path: Path) -> Skeleton:
    table = _parse_table(path, _read_workbook(path), (411,), _cells_to_numbers)
    return _openpose_skeleton(table, "openpose_xlsx", {})


def _read_light_hand_csv(path: Path) -> Skeleton:
    table = _parse_table(path, _read_csv(path), (106, 105), _texts_to_numbers)
    if not len(table.values):
        raise DatasetFormatError(f"{path}: no row of numbers; expected one for each frame.")
    if table.values.shape[1] == 105:
        return _openpose_skeleton(table, "light_hand_csv", {"index_column": "none"})
    index = table.values[:, 0]
    base = index[0] if index[0] in (0, 1) else 0
    is_bad = np.zeros(table.values.shape, dtype=bool)
    is_bad[:, 0] = index != np.arange(len(index)) + base
    table.check(is_bad, "the index column to count the frames from 0 or 1 without a gap")
    return _openpose_skeleton(table, "light_hand_csv", {"index_column": f"from {int(base)}"})


def _openpose_skeleton(table: _Table, kind: str, more_facts: Facts) -> Skeleton:
    """Check the last 3 K columns of a table as OpenPose's points, and put the hands in the layout's order."""
    layout = KINDS[kind]
    table.check(~(np.abs(table.values) <= _FLOAT32_MAX), "a finite number")
    first = table.values.shape[1] - 3 * get_layout(layout).num_keypoints
    is_bad = np.zeros(table.values.shape, dtype=bool)
    is_bad[:, first + 2 :: 3] = table.values[:, first + 2 :: 3] < 0
    table.check(is_bad, "a confidence of 0 or more")
    keypoints = table.values[:, first:].astype(np.float32).reshape(-1, get_layout(layout).num_keypoints, 3)
    hand_order = find_hand_order(keypoints, layout)
    if hand_order == "right-left":
        left, right = HAND_BLOCKS[layout]
        keypoints[:, left], keypoints[:, right] = keypoints[:, right], keypoints[:, left].copy()
    facts = {"kind": kind, **table.facts, **more_facts, "hand_order": hand_order, **_count_points(keypoints)}
    return Skeleton(keypoints, layout, facts)


def _count_points(keypoints: np.ndarray) -> Facts:
    valid = valid_keypoints(keypoints)
    points = keypoints[valid, :2]
    return {
        "rows_without_person": int((~valid.any(axis=1)).sum()),
        "points_with_confidence_above_1": int((keypoints[..., 2] > 1).sum()),
        # 95 % of the points do not lie further right, or further down: tells pixels of a rescaled video.
        "extent": np.quantile(points, 0.95, axis=0).round(1).tolist() if len(points) else None,
    }


def find_hand_order(keypoints: np.ndarray, layout: str) -> str:
    """Tell by the wrists which hand comes first in the rows.

    Compares the median distance of the hands' points from their own wrists, if the left hand is the first one, with
    that from the other wrists, over the frames with both wrists.

    Args:
        keypoints (`numpy.ndarray`): (N, K, 3).
        layout (`str`): A layout of `HAND_BLOCKS`.

    Returns:
        `str`: `"left-right"`, `"right-left"`, or `"undecided"` where neither is clearly closer.
    """
    wrists = [get_layout(layout).index(f"{side}_wrist") for side in ("left", "right")]
    valid = valid_keypoints(keypoints)
    frames = valid[:, wrists].all(axis=1)
    points, valid = keypoints[frames], valid[frames]

    def distances(block: slice, wrist: int) -> np.ndarray:
        offsets = points[:, block, :2] - points[:, wrist, None, :2]
        return np.linalg.norm(offsets, axis=-1)[valid[:, block]]

    first, second = HAND_BLOCKS[layout]
    if (valid[:, first].any(axis=1) | valid[:, second].any(axis=1)).sum() < MIN_HAND_FRAMES:
        return "undecided"
    left, right = wrists
    own = np.median(np.concatenate([distances(first, left), distances(second, right)]))
    crossed = np.median(np.concatenate([distances(first, right), distances(second, left)]))
    if own * HAND_DISTANCE_RATIO < crossed:
        return "left-right"
    return "right-left" if crossed * HAND_DISTANCE_RATIO < own else "undecided"


def _read_openpose_json(path: Path) -> Skeleton:
    try:
        sequence = read_openpose(path)
    except KeypointFileError as error:
        raise DatasetFormatError(str(error)) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if first := int(sequence.frame_numbers[0]):
        raise DatasetFormatError(f"{path}: the first file is of frame {first}; expected frame 0.")
    layout = KINDS["openpose_json"]
    if (sequence.keypoints[..., 2] < 0).any():
        frame, point = np.argwhere(sequence.keypoints[..., 2] < 0)[0]
        name, value = get_layout(sequence.layout).keypoints[point], sequence.keypoints[frame, point, 2]
        raise DatasetFormatError(
            f"{path}, frame {frame}, point {name}: expected a confidence of 0 or more, got {float(value)!r}."
        )
    keypoints = convert_keypoints(sequence.keypoints, sequence.layout, layout, missing_keypoints="mask")
    facts = {
        "kind": "openpose_json",
        "rows": len(keypoints),
        "face_and_hands": sequence.layout == layout,
        "frames_with_several_people": int((sequence.num_people > 1).sum()),
        **_count_points(keypoints),
    }
    return Skeleton(keypoints, layout, facts)


def _read_smg_csv(path: Path) -> Skeleton:
    layout = get_layout(KINDS["smg_csv"])
    num_joints = layout.num_keypoints
    table = _parse_table(path, _read_csv(path), (num_joints * 11,), _texts_to_numbers)
    if not len(table.values):
        raise DatasetFormatError(f"{path}: no row of numbers; expected one for each frame.")
    joints = table.values.reshape(-1, num_joints, 11)
    world = joints[..., :3]
    # Kinect's own mapping gives infinite pixels for what a camera does not see.
    has_position = np.isfinite(world).all(axis=-1) & (world != 0).any(axis=-1)
    source, pixels = _find_color_pixels(joints, has_position)
    is_there = has_position & (np.abs(pixels) <= _FLOAT32_MAX).all(axis=-1) & (pixels != 0).any(axis=-1)
    keypoints = np.zeros((len(joints), num_joints, 3), dtype=np.float32)
    keypoints[is_there] = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)[is_there]
    facts = {
        "kind": "smg_csv",
        **table.facts,
        "pixels": source,
        "confidence": "position",
        "joints_without_position": int((~is_there).sum()),
        "rows_without_person": int((~is_there.any(axis=1)).sum()),
    }
    return Skeleton(keypoints, layout.name, facts)


def _find_color_pixels(joints: np.ndarray, has_position: np.ndarray) -> tuple[str, np.ndarray]:
    """Where the pixels of the color image come from, and the pixels (N, 25, 2); not finite where there are none.

    Args:
        joints (`numpy.ndarray`): (N, 25, 11).
        has_position (`numpy.ndarray`): (N, 25) bool.
    """
    depth_pixels = _project(joints[..., :3], DEPTH_FOCAL, DEPTH_CENTER)
    for source, columns in SMG_PIXEL_PAIRS.items():
        pixels = joints[..., columns]
        seen = has_position & np.isfinite(pixels).all(axis=-1) & np.isfinite(depth_pixels).all(axis=-1)
        if not seen.any():
            continue
        points, size = pixels[seen], np.array(COLOR_SIZE)
        share_inside = ((points >= -size / 2) & (points <= size * 1.5)).all(axis=-1).mean()
        is_fraction = np.abs(points).max() <= MAX_FRACTION
        from_depth = np.median(np.linalg.norm(points - depth_pixels[seen], axis=-1))
        if share_inside >= MIN_SHARE_INSIDE and not is_fraction and from_depth > DEPTH_TOLERANCE:
            return source, pixels
    return "projected", _project(joints[..., :3], COLOR_FOCAL, COLOR_CENTER)


def _project(world: np.ndarray, focal: float, center: tuple[float, float]) -> np.ndarray:
    """World points (..., 3), y up, to pixels (..., 2), y down; NaN behind the camera."""
    in_front = world[..., 2] > 0
    depth = np.where(in_front, world[..., 2], np.nan)[..., None]
    with np.errstate(invalid="ignore", over="ignore"):
        return np.array(center) + focal * world[..., :2] * (1, -1) / depth


_READERS: dict[str, Callable[[Path], Skeleton]] = {
    "openpose_xlsx": _read_openpose_xlsx,
    "light_hand_csv": _read_light_hand_csv,
    "openpose_json": _read_openpose_json,
    "smg_csv": _read_smg_csv,
}


def _read_workbook(path: Path) -> list[list[Any]]:
    """Cells of the first sheet; empty ones are ""."""
    import python_calamine

    try:
        sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
        rows = sheet.to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError) as error:
        raise DatasetFormatError(f"{path}: cannot be read as a workbook ({error}); expected an .xlsx file.") from error
    if rows and len(rows[0]) != 411:
        # Calamine fills all rows up to the longest, which hides where the file is wrong.
        rows = [row[: max((i for i, cell in enumerate(row, start=1) if cell != ""), default=0)] for row in rows]
    return rows


def _read_csv(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return list(csv.reader(file))
    except csv.Error as error:
        raise DatasetFormatError(f"{path}: cannot be read as comma-separated values ({error}).") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _parse_table(
    path: Path, rows: list[list[Any]], widths: tuple[int, ...], to_numbers: Callable[[list[Any]], list[float]]
) -> _Table:
    """Check that rows are of equal, expected width and hold numbers; a header row and empty rows at the end go.

    Args:
        path (`Path`): For messages.
        rows (`list`): Cells.
        widths (`tuple[int, ...]`): Expected numbers of columns.
        to_numbers (`Callable`): The numbers of a row's cells; a `ValueError` if one is none.
    """
    while rows and not any(cell != "" for cell in rows[-1]):
        rows = rows[:-1]
    width = len(rows[0]) if rows and len(rows[0]) in widths else widths[0]
    for index, row in enumerate(rows, start=1):
        if len(row) != width:
            expected = " or ".join(map(str, widths)) if index == 1 else str(width)
            raise DatasetFormatError(f"{path}, row {index}: expected {expected} columns, got {len(row)}.")
    start = int(bool(rows) and _is_header(rows[0], to_numbers))
    values = []
    for index, row in enumerate(rows[start:], start=start + 1):
        try:
            values.append(to_numbers(row))
        except ValueError:
            column = next(column for column, cell in enumerate(row) if not _is_number(cell, to_numbers))
            raise _cell_error(path, index, column, row[column], "a number") from None
    return _Table(path, np.array(values, dtype=np.float64).reshape(-1, width), start + 1)


def _is_header(row: list[Any], to_numbers: Callable[[list[Any]], list[float]]) -> bool:
    """Whether a first row names the columns: different words, or the numbers from 0 or 1 that pandas gives them."""
    words = {cell for cell in row if isinstance(cell, str) and cell != "" and not _is_number(cell, to_numbers)}
    if len(words) > len(row) / 2:
        return True
    # The name of an index column is empty.
    if not all(_is_number(cell, to_numbers) for cell in row[1:]):
        return False
    numbers = to_numbers(row[1:])
    return any(numbers == list(range(first, first + len(numbers))) for first in (0, 1, 2))


def _is_number(cell: Any, to_numbers: Callable[[list[Any]], list[float]]) -> bool:
    try:
        return bool(to_numbers([cell]))
    except ValueError:
        return False


def _cells_to_numbers(row: list[Any]) -> list[float]:
    """Cells of a workbook; text that looks like a number is none."""
    if not {*map(type, row)} <= {float, int}:
        raise ValueError("not all cells are numbers")
    return row


def _texts_to_numbers(row: list[str]) -> list[float]:
    return [*map(float, row)]


def _cell_error(path: Path, row: int, column: int, value: Any, expected: str) -> DatasetFormatError:
    """Name a cell by its row, counted from 1, and its column, counted from 0 here and from 1 in the message."""
    return DatasetFormatError(f"{path}, row {row}, column {column + 1}: expected {expected}, got {value!r:.40}.")


def _unreadable(path: Path, error: OSError) -> DatasetFormatError:
    return DatasetFormatError(f"{path}: cannot be read ({error.strerror or error}); expected a skeleton.")


class SkeletonCache:
    """Converted skeletons on a disk, made anew when their file changes.

    An entry is a safetensors file with the points and, as metadata, the facts, the state of the file that it was made
    of, and a checksum. It appears under its name when it is complete, so a process may be killed at any time, and
    several may convert the same file at once.

    Args:
        folder (`str` or `PathLike`, *optional*): Where the entries lie; created when needed. By default a folder in
            `datasets`' cache.
    """

    def __init__(self, folder: str | PathLike | None = None):
        self.folder = Path(datasets.config.HF_DATASETS_CACHE, CACHE_FOLDER) if folder is None else Path(folder)

    def convert(
        self, files: Sequence[tuple[str | PathLike, str]], num_proc: int | None = None, show_progress: bool = True
    ) -> list[DatasetFormatError | None]:
        """Convert the files that have no entry, or that changed since.

        Args:
            files (`Sequence[tuple]`): Path and kind of each.
            num_proc (`int`, *optional*): Processes that convert; by default this one.
            show_progress (`bool`, defaults to `True`): Show a bar while files are converted, unless
                `datasets.disable_progress_bars()` was called.

        Returns:
            `list`: What is wrong with each file, `None` where nothing is. One wrong file does not stop the others.
        """
        keys = [(str(Path(path).resolve()), kind) for path, kind in files]
        missing = [key for key in dict.fromkeys(keys) if not self._is_converted(*key)]
        self._remove_abandoned()
        problems: dict[tuple[str, str], DatasetFormatError | None] = {}
        hide = not (show_progress and missing) or datasets.are_progress_bars_disabled()
        with tqdm(total=len(missing), desc="Convert skeletons", unit="file", disable=hide) as bar:
            for key, problem in self._convert_all(missing, min(num_proc or 1, len(missing))):
                problems[key] = problem
                bar.update()
        return [problems.get(key) for key in keys]

    def load(self, path: str | PathLike, kind: str) -> Skeleton:
        """The skeleton of a file, converted if need be; a damaged entry is made anew, with a warning in the log.

        Args:
            path (`str` or `PathLike`): The file or folder.
            kind (`str`): One of `KINDS`.

        Raises:
            DatasetFormatError: The file is not as documented.
        """
        skeleton = self._look_up(path, kind, _read_entry)
        return self._make(path, kind) if skeleton is None else skeleton

    def facts(self, path: str | PathLike, kind: str) -> Facts:
        """What was found out about a file, see [`load`]; the points are not read."""
        header = self._look_up(path, kind, _read_header)
        return self._make(path, kind).facts if header is None else header.facts

    def num_frames(self, path: str | PathLike, kind: str) -> int:
        """The number of rows of a file, see [`load`]; the points are not read."""
        header = self._look_up(path, kind, _read_header)
        return len(self._make(path, kind).keypoints) if header is None else header.num_frames

    def _entry(self, path: str | PathLike, kind: str) -> Path:
        name = hashlib.sha256(f"{kind}\n{Path(path).resolve()}".encode(errors="surrogateescape")).hexdigest()[:32]
        return self.folder / f"{name}.safetensors"

    def _look_up(self, path: str | PathLike, kind: str, read: Callable[[Path, str], T | None]) -> T | None:
        """Read the entry of a file; `None` if there is none, it is damaged, or the file has changed since."""
        entry, state = self._entry(path, kind), _file_state(Path(path), kind)
        try:
            return read(entry, state)
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            logger.warning("%s: this cache entry of %s is damaged (%s); it is made anew.", entry, path, error)
            return None

    def _is_converted(self, path: str, kind: str) -> bool:
        try:
            return self._look_up(path, kind, _read_header) is not None
        except DatasetFormatError:
            return False

    def _make(self, path: str | PathLike, kind: str) -> Skeleton:
        # Taken before the file is read: if it changes meanwhile, the entry is already out of date.
        state = _file_state(Path(path), kind)
        skeleton = read_skeleton(path, kind)
        _write_entry(self._entry(path, kind), skeleton, str(Path(path).resolve()), state)
        return skeleton

    def _try_to_make(self, path: str, kind: str) -> DatasetFormatError | None:
        try:
            self._make(path, kind)
        except DatasetFormatError as error:
            return error
        return None

    def _convert_all(
        self, keys: list[tuple[str, str]], num_proc: int
    ) -> Iterator[tuple[tuple[str, str], DatasetFormatError | None]]:
        """Convert files, and yield each with its problem as it is done."""
        if num_proc < 2:
            yield from ((key, self._try_to_make(*key)) for key in keys)
            return
        executor = make_pool(num_proc, __name__)
        try:
            futures = {executor.submit(self._try_to_make, *key): key for key in keys}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            executor.shutdown(cancel_futures=True)

    def _remove_abandoned(self) -> None:
        """Remove what processes that were killed left half written."""
        for path in self.folder.glob(f".*{PARTIAL_SUFFIX}"):
            try:
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                    path.unlink()
            except FileNotFoundError:
                # Another process was faster.
                continue


@dataclass(frozen=True)
class _Header:
    """What an entry says about itself, and the checksum that it must have."""

    num_frames: int
    layout: str
    facts: Facts
    checksum: int


def _file_state(path: Path, kind: str) -> str:
    """Size and time of a file, or a digest of those of a folder's JSON files; changes when they do."""
    try:
        if kind != "openpose_json":
            status = path.stat()
            return f"{READER_VERSION} {status.st_size} {status.st_mtime_ns}"
        digest = hashlib.sha256()
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".json"):
                    status = entry.stat()
                    digest.update(f"{entry.name!r} {status.st_size} {status.st_mtime_ns}\n".encode())
        return f"{READER_VERSION} {digest.hexdigest()}"
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_header(entry: Path, state: str) -> _Header | None:
    """Read what an entry says about itself; `None` if it was made of another state of the file."""
    with safe_open(entry, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata["state"] != state:
            return None
        num_frames = file.get_slice("keypoints").get_shape()[0]
    return _Header(num_frames, metadata["layout"], json.loads(metadata["facts"]), int(metadata["crc32"]))


def _read_entry(entry: Path, state: str) -> Skeleton | None:
    """Read an entry; `None` if it was made of another state of the file, a `ValueError` if it is damaged."""
    header = _read_header(entry, state)
    if header is None:
        return None
    with safe_open(entry, framework="numpy") as file:
        keypoints = file.get_tensor("keypoints")
    if _checksum(keypoints, header.layout, json.dumps(header.facts)) != header.checksum:
        raise ValueError("its checksum differs")
    return Skeleton(keypoints, header.layout, header.facts)


def _write_entry(entry: Path, skeleton: Skeleton, source: str, state: str) -> None:
    keypoints, facts = np.ascontiguousarray(skeleton.keypoints), json.dumps(skeleton.facts)
    metadata = {
        "source": source.encode(errors="replace").decode(),
        "state": state,
        "layout": skeleton.layout,
        "facts": facts,
        "crc32": str(_checksum(keypoints, skeleton.layout, facts)),
    }
    content = save_tensors({"keypoints": keypoints}, metadata)
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_file(entry, content)


def _checksum(keypoints: np.ndarray, layout: str, facts: str) -> int:
    return zlib.crc32(keypoints.data, zlib.crc32(f"{keypoints.shape} {layout} {facts}".encode()))


# What to say about a fact that has one of a few values; and about one that counts, of what.
_VALUE_FACTS: dict[str, dict[Any, str]] = {
    "header_row": {False: "no header row", True: "a header row"},
    "index_column": {
        "none": "no index column",
        "from 0": "an index column from 0",
        "from 1": "an index column from 1",
    },
    "hand_order": {
        "left-right": "hands in the order left, right",
        "right-left": "hands in the order right, left, put in the layout's order",
        "undecided": "hands in an order that the wrists do not tell, left as they are",
    },
    "face_and_hands": {True: "with face and hands", False: "the body alone"},
    "pixels": {
        **{source: f"pixels from {source}" for source in SMG_PIXEL_PAIRS},
        "projected": "pixels projected from the world with a nominal color camera, expect an offset",
    },
    "confidence": {"position": "confidence 1 for joints with a position; the files' own tracking state is unknown"},
}
_COUNT_FACTS = {
    "rows_without_person": "rows without a person",
    "frames_with_several_people": "frames with several people, of whom the largest is taken",
    "joints_without_position": "joints without a position",
    "points_with_confidence_above_1": "points with a confidence above 1",
}


def summarize_facts(facts: Mapping[str, Facts]) -> list[str]:
    """Say what was found out about the files of a data set, one line for each kind of file and fact.

    Args:
        facts (`Mapping[str, dict]`): The facts of each file by its name, such as the video's id. Files without a row
            are left out: nothing can be found out about them.

    Returns:
        `list[str]`: Such as "light_hand_csv files: no header row (7 of 10), a header row (3 of 10: 0003, 0007, 0009)."
    """
    lines = []
    for kind in KINDS:
        group = {name: entry for name, entry in facts.items() if entry["kind"] == kind and entry["rows"]}
        for fact, phrases in _VALUE_FACTS.items():
            names_of_value = {
                value: [name for name, entry in group.items() if entry.get(fact) == value] for value in phrases
            }
            parts = [
                f"{phrases[value]} ({_share(names, len(group))})" for value, names in names_of_value.items() if names
            ]
            if parts:
                lines.append(f"{kind} files: {', '.join(parts)}.")
        for fact, phrase in _COUNT_FACTS.items():
            names = [name for name, entry in group.items() if entry.get(fact)]
            if names:
                count = sum(group[name][fact] for name in names)
                num_rows = sum(entry["rows"] for entry in group.values())
                lines.append(f"{kind} files: {count:,} {phrase}, in {num_rows:,} rows ({_share(names, len(group))}).")
    return lines


def _share(names: Iterable[str], total: int) -> str:
    """Say how many of the files these are, and which if they are the minority."""
    names = list(names)
    if len(names) == total:
        return f"all {total}"
    return f"{len(names)} of {total}" + (f": {shorten(names)}" if 2 * len(names) <= total else "")


__all__ = ["KINDS", "Facts", "Skeleton", "SkeletonCache", "find_hand_order", "read_skeleton", "summarize_facts"]
