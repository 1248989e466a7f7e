"""iMiGUE's label files: the challenge's one per video, and the one of the Oulu release.

Clips and videos are dictionaries here, the keys video ids; `imigue_files` adds the files and makes tables of them.
"""

import csv
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from clipmg_hf.data.discovery import part_of, shorten
from clipmg_hf.data.problems import DatasetFormatError, ProblemLog
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.modeling import IMIGUE_LABELS


Clips = dict[str, list[dict[str, Any]]]
Videos = dict[str, dict[str, Any]]

PART_PREFIXES = ("imigue_skeleton_", "imigue_rgb_")
OTHER_PARTS = {"imigue_rgb_phase2": "test", "imigue_data_phase2": "test"}
ILLUSTRATIVE_RAW_CLASS = 99
EMOTION_NAMES = {"loss": 0, "lose": 0, "win": 1}
# Published: https://arxiv.org/abs/2107.00285 and the challenge's pages.
FPS, WIDTH, HEIGHT = 25.0, 1280, 720
OULU_COLUMNS = (
    *("video_id", "label_id", "start_time", "start_frame", "end_time", "end_frame", "class"),
    *("subject_id", "subject_gender", "subject_nationality", "win_or_lose"),
)


def canonical_label(raw_class: int, where: str) -> int:
    """Map a raw class (1..31, and 99 for illustrative gestures) to the canonical label 0..31."""
    if raw_class == ILLUSTRATIVE_RAW_CLASS:
        return len(IMIGUE_LABELS) - 1
    if not 1 <= raw_class < len(IMIGUE_LABELS):
        raise DatasetFormatError(
            f"{where}: class {raw_class} is unknown; expected 1..{len(IMIGUE_LABELS) - 1} or {ILLUSTRATIVE_RAW_CLASS}."
        )
    return raw_class - 1


def _check_interval(start: int, end: int, where: str) -> None:
    if not 0 <= start <= end:
        raise DatasetFormatError(
            f"{where}: the interval is {start}..{end}; expected 0 <= start <= end (end included)."
        )


def read_miga_labels(path: Path, has_classes: bool, log: ProblemLog) -> list[tuple[int, int, int, int]]:
    """Read `<video_id>_label.csv`: one `class,start_frame,end_frame` per row, 0-based, end included.

    Args:
        path (`Path`): The file.
        has_classes (`bool`): `False` for the test packs, whose classes are placeholders: their labels become -1.
        log ([`ProblemLog`]): Takes the rows that are malformed.

    Returns:
        `list[tuple[int, int, int, int]]`: Row number from 0, label in 0..31 or -1, first and last frame.
    """
    clips = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    for index, (number, row) in enumerate(rows):
        where = f"{path}, row {number}"
        with log.catch():
            try:
                raw_class, start, end = (int(value) for value in row)
            except ValueError:
                raise DatasetFormatError(
                    f"{where}: expected integers class,start_frame,end_frame, got {','.join(row)!r}."
                ) from None
            _check_interval(start, end, where)
            clips.append((index, canonical_label(raw_class, where) if has_classes else HIDDEN_LABEL, start, end))
    return clips


def _new_video(**values: Any) -> dict[str, Any]:
    return {"fps": FPS, "width": WIDTH, "height": HEIGHT, **values}


def read_miga(label_files: dict[str, list[Path]], root: Path, log: ProblemLog) -> tuple[Clips, Videos]:
    """Read the label files of the packs."""
    clips: Clips = {}
    videos: Videos = {}
    for video_id, paths in sorted(label_files.items()):
        if len(paths) > 1:
            log.add(
                f"video {video_id} has {len(paths)} label files, {shorten([str(path) for path in paths])}; expected "
                "one: packs of different years do not mix."
            )
            continue
        part = part_of(paths[0], root, PART_PREFIXES, OTHER_PARTS)
        if part is None:
            log.add(f"{paths[0]}: no folder above it names a part; expected imigue_skeleton_train or the like.")
            continue
        rows = read_miga_labels(paths[0], part != "test", log)
        clips[video_id] = [
            {"clip_id": f"{video_id}_{index}", "start_frame": start, "end_frame": end, "label": label, "number": index}
            for index, label, start, end in rows
        ]
        videos[video_id] = _new_video(part=part)
    return clips, videos


def read_oulu(path: Path, log: ProblemLog) -> tuple[Clips, Videos]:
    """Read `labels_<date>.csv` of the Oulu release."""
    clips: Clips = defaultdict(list)
    videos: Videos = {}
    seen: set[str] = set()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = tuple(name.strip() for name in next(reader, []))
        if header != OULU_COLUMNS:
            raise DatasetFormatError(
                f"{path}, row 1: the header is {','.join(header)!r}; expected {','.join(OULU_COLUMNS)!r}."
            )
        for number, row in enumerate(reader, start=2):
            with log.catch():
                _read_oulu_row(row, f"{path}, row {number}", clips, videos, seen)
    return dict(sorted(clips.items())), dict(sorted(videos.items()))


def _read_oulu_row(row: list[str], where: str, clips: Clips, videos: Videos, seen: set[str]) -> None:
    """Add one row of the Oulu file to the clips and its video's facts to the videos."""
    if len(row) != len(OULU_COLUMNS):
        raise DatasetFormatError(f"{where}: {len(row)} values; expected {len(OULU_COLUMNS)}, got {','.join(row)!r}.")
    values = dict(zip(OULU_COLUMNS, (value.strip() for value in row), strict=True))
    numbers = {}
    for name in ("video_id", "label_id", "start_frame", "end_frame", "class", "subject_id"):
        if not re.fullmatch(r"-?\d+", values[name]):
            raise DatasetFormatError(f"{where}: {name} is {values[name]!r}; expected an integer.")
        numbers[name] = int(values[name])
    if not 0 <= numbers["video_id"] <= 9999 or numbers["label_id"] < 1:
        raise DatasetFormatError(
            f"{where}: video_id is {values['video_id']} and label_id {values['label_id']}; expected a video id of at "
            "most four digits and labels counted from 1."
        )
    emotion = EMOTION_NAMES.get(values["win_or_lose"].lower())
    if emotion is None:
        raise DatasetFormatError(f"{where}: win_or_lose is {values['win_or_lose']!r}; expected Win or Loss.")
    _check_interval(numbers["start_frame"], numbers["end_frame"], where)
    label = canonical_label(numbers["class"], where)
    video_id = f"{numbers['video_id']:04d}"
    clip_id = f"{video_id}_{numbers['label_id'] - 1}"
    if clip_id in seen:
        raise DatasetFormatError(
            f"{where}: label_id {numbers['label_id']} comes twice in video {video_id}; expected each once."
        )
    facts = {
        "subject": numbers["subject_id"],
        "emotion": emotion,
        "gender": values["subject_gender"] or None,
        "nationality": values["subject_nationality"] or None,
    }
    known = videos.setdefault(video_id, _new_video(**facts))
    for name, value in facts.items():
        if known[name] != value:
            raise DatasetFormatError(
                f"{where}: {name} of video {video_id} is {value!r}; rows above say {known[name]!r}."
            )
    seen.add(clip_id)
    clips[video_id].append(
        {
            "clip_id": clip_id,
            "start_frame": numbers["start_frame"],
            "end_frame": numbers["end_frame"],
            "label": label,
            "number": numbers["label_id"] - 1,
        }
    )


__all__ = ["Clips", "Videos", "canonical_label", "read_miga", "read_miga_labels", "read_oulu"]
