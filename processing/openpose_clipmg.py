"""The JSON files of OpenPose 1.2 and 1.3: one file per frame, named `<stem>_%012d_keypoints.json`.

T is the number of frames, K that of points: 137, or 25 without face and hands. Keypoints are (T, K, 3) float32: x, y
in pixels of the source frame, then the confidence as written, nominally in [0, 1]. Missing points are (0, 0, 0).
"""

import itertools
import json
import os
import re
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .keypoint_layouts_clipmg import get_layout, valid_keypoints


KeypointFiles = str | os.PathLike | Sequence[str | os.PathLike]

_BODY_FIELD = "pose_keypoints_2d"
# Points per field, in the order of openpose-137. A person may leave any field but the body empty.
_FIELDS = {_BODY_FIELD: 25, "face_keypoints_2d": 70, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21}
_OTHER_MODELS = {(_BODY_FIELD, 54): " (COCO, not BODY_25)", (_BODY_FIELD, 45): " (MPI, not BODY_25)"}
_FILE_PATTERN = "*_keypoints.json"
_FILE_NAME = re.compile(r"(?:(?P<stem>.*)_)?(?P<number>\d+)_keypoints\.json")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class KeypointFileError(ValueError):
    """Keypoint files that cannot be read; the message names the file, the field, the value and what was expected."""


@dataclass(frozen=True, eq=False)
class OpenPoseSequence:
    """One person's keypoints over T frames, in ascending order of the frame numbers.

    Args:
        keypoints: (T, K, 3) float32 x, y in pixels of the source frame and confidence; all zeros without a person.
        layout: "openpose-137", or "openpose-body25" when nobody in any frame has a face or a hand.
        num_people: (T,) int64, how many people each file lists; 0 for a frame without a file.
        frame_numbers: (T,) int64, consecutive, from the file names; the first need not be 0.
        name: What errors call them: the path that they were read from; "" for a list of files.
    """

    keypoints: np.ndarray
    layout: str
    num_people: np.ndarray
    frame_numbers: np.ndarray
    name: str = ""


@dataclass(frozen=True, eq=False)
class OpenPoseFrames:
    """Everybody's keypoints in T frames, in ascending order of the frame numbers.

    Args:
        people: T arrays (P, K, 3) float32, the P people of a frame in the order of its file; P may be 0.
        person_ids: T arrays (P,) int64, the numbers that OpenPose gave them when it tracked people, else -1.
        layout: "openpose-137", or "openpose-body25" when nobody in any frame has a face or a hand.
        frame_numbers: (T,) int64, consecutive, from the file names; the first need not be 0.
    """

    people: tuple[np.ndarray, ...]
    person_ids: tuple[np.ndarray, ...]
    layout: str
    frame_numbers: np.ndarray


def read_openpose(
    source: KeypointFiles, *, person: Literal["largest"] | int = "largest", allow_gaps: bool = False
) -> OpenPoseSequence:
    """Read one person's keypoints from OpenPose's JSON files.

    Args:
        source: A folder of `*_keypoints.json` files, one file, or a list of files. Frames are ordered by the number in
            the file name; a file that stands alone may have any name and is then frame 0.
        person: "largest" takes, in each frame by itself, the person whose valid points span the largest bounding box
            (the first one if equal). An index from 0 takes the person at that place in each file; OpenPose does not
            track people, so it may be another one in the next frame. A frame without that person is all zeros.
        allow_gaps: Return missing frame numbers as frames of zeros instead of raising.

    Raises:
        KeypointFileError: A path, file name, frame number or file content that is not as described.
        ValueError: Another `person`.
    """
    if person != "largest" and (not isinstance(person, int) or person < 0):
        raise ValueError(f"person is {person!r}, expected 'largest' or an index from 0.")
    frames = read_openpose_frames(source, allow_gaps=allow_gaps)
    keypoints = np.zeros((len(frames.people), get_layout(frames.layout).num_keypoints, 3), dtype=np.float32)
    for frame, people in enumerate(frames.people):
        if person == "largest" and len(people):
            keypoints[frame] = max(people, key=_box_area)
        elif person != "largest" and person < len(people):
            keypoints[frame] = people[person]
    num_people = np.array([len(people) for people in frames.people], dtype=np.int64)
    name = str(source) if isinstance(source, str | os.PathLike) else ""
    return OpenPoseSequence(keypoints, frames.layout, num_people, frames.frame_numbers, name)


def read_openpose_frames(source: KeypointFiles, *, allow_gaps: bool = False) -> OpenPoseFrames:
    """Read everybody's keypoints from OpenPose's JSON files; the arguments and errors are those of `read_openpose`."""
    files = _number_files(_list_files(source))
    if not allow_gaps:
        _check_gaps(files)
    frame_numbers = np.arange(min(files), max(files) + 1, dtype=np.int64)
    frames = [_read_people(files[number]) if number in files else [] for number in frame_numbers.tolist()]
    body_only = all(len(points) == _FIELDS[_BODY_FIELD] for people in frames for points, _ in people)
    layout = get_layout("openpose-body25" if body_only else "openpose-137")
    keypoints = []
    for people in frames:
        keypoints.append(np.zeros((len(people), layout.num_keypoints, 3), dtype=np.float32))
        for row, (points, _) in zip(keypoints[-1], people, strict=True):
            row[: len(points)] = points
    person_ids = tuple(np.array([number for _, number in people], dtype=np.int64) for people in frames)
    return OpenPoseFrames(tuple(keypoints), person_ids, layout.name, frame_numbers)


def _list_files(source: KeypointFiles) -> list[Path]:
    paths = [Path(path) for path in ([source] if isinstance(source, str | os.PathLike) else source)]
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        paths = list(Path(source).glob(_FILE_PATTERN))
    if not paths:
        raise KeypointFileError(f"{source}: no {_FILE_PATTERN} file, expected at least one.")
    for path in paths:
        if not path.is_file():
            raise KeypointFileError(f"{path}: no such file, expected a keypoint file or a folder of them.")
    return paths


def _number_files(paths: list[Path]) -> dict[int, Path]:
    """Frame number -> file, for files of one sequence."""
    if len(paths) == 1 and not _FILE_NAME.fullmatch(paths[0].name):
        return {0: paths[0]}
    files: dict[tuple[str, int], Path] = {}
    for path in paths:
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise KeypointFileError(f"{path}: no frame number in the name, expected <stem>_<number>_keypoints.json.")
        key = match["stem"] or "", int(match["number"])
        if key in files:
            raise KeypointFileError(f"{path}: frame {key[1]} is also in {files[key]}, expected one file per frame.")
        files[key] = path
    if len(stems := {stem for stem, _ in files}) > 1:
        names = textwrap.shorten(", ".join(repr(stem) for stem in sorted(stems)), 150)
        raise KeypointFileError(f"{paths[0].parent}: files of {len(stems)} sequences, {names}; expected one sequence.")
    return {number: path for (_, number), path in files.items()}


def _check_gaps(files: dict[int, Path]) -> None:
    numbers = sorted(files)
    gaps = [(before + 1, after - 1) for before, after in itertools.pairwise(numbers) if after - before > 1]
    if gaps:
        num_missing = sum(end - start + 1 for start, end in gaps)
        names = textwrap.shorten(", ".join(f"{start}-{end}" if start < end else f"{end}" for start, end in gaps), 150)
        expected = f"expected every number from {numbers[0]} to {numbers[-1]} (allow_gaps=True fills them with zeros)"
        raise KeypointFileError(f"{files[numbers[0]].parent}: {num_missing} frames lack a file, {names}; {expected}.")


def _read_people(path: Path) -> list[tuple[np.ndarray, int]]:
    """The people of a file: their points, (137, 3) or (25, 3), and their number."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise KeypointFileError(f"{path}: invalid JSON ({error}), expected a keypoint file of OpenPose.") from error
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        raise KeypointFileError(f"{path}: no list under the key 'people', expected a keypoint file of OpenPose.")
    return [_read_person(person, f"{path}: people[{index}]") for index, person in enumerate(people)]


def _read_person(person: Any, where: str) -> tuple[np.ndarray, int]:
    """One entry of "people" -> (137, 3) float32, or (25, 3) without face and hands, and its number or -1."""
    if not isinstance(person, dict):
        raise KeypointFileError(f"{where} is {person!r:.40}, expected an object.")
    parts = []
    for field, num_points in _FIELDS.items():
        values = person.get(field, [])
        if values != [] or field == _BODY_FIELD:
            _check_values(values, field, f"{where}.{field}")
        parts.append(np.array(values or [0] * 3 * num_points, dtype=np.float32).reshape(num_points, 3))
    points = np.concatenate(parts) if any(person.get(field) for field in list(_FIELDS)[1:]) else parts[0]
    # Version 1.3 writes a list of one number, version 1.2 nothing; other writers' values are no reason to fail.
    match person.get("person_id"):
        case [int(number)] if number >= 0:
            return points, number
    return points, -1


def _check_values(values: Any, field: str, where: str) -> None:
    expected = f"expected {3 * _FIELDS[field]} numbers (x, y, confidence of {_FIELDS[field]} points)"
    if not isinstance(values, list):
        raise KeypointFileError(f"{where} is {values!r:.40}, {expected}.")
    if len(values) != 3 * _FIELDS[field]:
        reason = _OTHER_MODELS.get((field, len(values)), " (not divisible by 3)" if len(values) % 3 else "")
        raise KeypointFileError(f"{where} has {len(values)} numbers{reason}, {expected}.")
    for index, value in enumerate(values):
        # The comparison is false for NaN and for numbers that float32 cannot hold; bool is no number in JSON.
        if type(value) not in (int, float) or not abs(value) <= _FLOAT32_MAX:
            raise KeypointFileError(f"{where}[{index}] is {value!r:.40}, expected a finite number.")


def _box_area(person: np.ndarray) -> float:
    """(K, 3) -> area of the bounding box of the valid points, in square pixels."""
    points = person[valid_keypoints(person), :2].astype(np.float64)
    return float(np.ptp(points, axis=0).prod()) if len(points) else 0.0


def write_openpose(folder: str | os.PathLike, keypoints: np.ndarray, stem: str) -> None:
    """Write a person's keypoints as OpenPose 1.3 does, one file per frame, numbered from 0.

    `read_openpose` returns the same float32 values; a frame of zeros becomes a file without people.

    Args:
        folder: Created if need be; it must not hold keypoint files. All are complete before the first one appears.
        keypoints: (T, 137, 3) or (T, 25, 3) finite x, y in pixels of the source frame and confidence.
        stem: Start of the file names `<stem>_%012d_keypoints.json`.

    Raises:
        ValueError: Keypoints or a stem that are not as described.
        FileExistsError: The folder holds keypoint files already.
    """
    folder, keypoints = Path(folder), np.asarray(keypoints, dtype=np.float32)
    if keypoints.shape[1:] not in ((137, 3), (25, 3)) or not len(keypoints):
        raise ValueError(f"keypoints have the shape {keypoints.shape}, expected (T, 137, 3) or (T, 25, 3), T above 0.")
    if not np.isfinite(keypoints).all():
        frame, point, _ = np.argwhere(~np.isfinite(keypoints))[0]
        raise ValueError(f"keypoints[{frame}, {point}] is {keypoints[frame, point]}, expected finite float32 numbers.")
    if not stem or Path(stem).name != stem:
        raise ValueError(f"stem is {stem!r}, expected the start of a file name.")
    if existing := next(folder.glob(_FILE_PATTERN), None):
        raise FileExistsError(f"{existing} exists, expected a folder without {_FILE_PATTERN} files.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".write_openpose_") as staging:
        for number, frame in enumerate(keypoints):
            path = Path(staging, f"{stem}_{number:012d}_keypoints.json")
            path.write_text(json.dumps(_frame_content(frame), separators=(",", ":")), encoding="utf-8")
        for path in sorted(Path(staging).iterdir()):
            path.replace(folder / path.name)


def _frame_content(frame: np.ndarray) -> dict[str, Any]:
    """(K, 3) -> the content of a file."""
    if not frame.any():
        return {"version": 1.3, "people": []}
    parts = np.split(frame, np.cumsum(list(_FIELDS.values()))[:-1])
    person = {field: part.ravel().tolist() for field, part in zip(_FIELDS, parts, strict=True)}
    empty_3d: dict[str, list] = {field.replace("2d", "3d"): [] for field in _FIELDS}
    return {"version": 1.3, "people": [{"person_id": [-1], **person, **empty_3d}]}


__all__ = [
    "KeypointFileError",
    "OpenPoseFrames",
    "OpenPoseSequence",
    "read_openpose",
    "read_openpose_frames",
    "write_openpose",
]
