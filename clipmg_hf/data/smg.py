"""SMG from a local folder: the MiGA packs with Kinect skeletons, RGB, or both.

    dataset = load_smg("/data/smg")          # DatasetDict: train, validation, test

The 25 Kinect joints are the layout "kinect-25". The files do not say who is in a video, so splits go by video.
"""

import csv
import re
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from clipmg_hf.data.builder import ClipBuilder, ClipConfig, load_source
from clipmg_hf.data.discovery import check_folder, list_archives, list_files, part_of, shorten
from clipmg_hf.data.examination import VideoHeader, read_header
from clipmg_hf.data.labels import SMG_GROUP_NAMES, SMG_GROUPS, SMG_LABELS
from clipmg_hf.data.problems import DatasetFormatError, OnError, ProblemLog
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.data.source import CLIP_SCHEMA, VIDEO_SCHEMA, DataSource, make_table


PART_PREFIXES = ("smg_skeleton_", "smg_rgb_")
# Frames per second and size of the published RGB; a video's own values replace them.
FPS, WIDTH, HEIGHT = 28.0, 1920, 1080
KNOWN_COUNTS: dict[str, tuple[int | None, int]] = {
    "train": (None, 2_452),
    "validation": (None, 637),
    "test": (None, 610),
}
_FILE = re.compile(r"(Sample\d+)_(finelabels|skeleton|data)\.csv|(Sample\d+)_color\.mp4")
_Row = tuple[int, int, int, str]  # raw class, start, end, where it stands


def find_smg(path: str | PathLike, on_error: OnError = "raise", skeleton: str = "auto") -> DataSource:
    """Find SMG below a folder: file names and labels are read, nothing else.

    Args:
        path (`str` or `PathLike`): The folder; packs are found at any depth below it.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out what is wrong, and says so in `skipped`.
        skeleton (`str`, defaults to `"auto"`): `"none"` leaves the skeletons alone.

    Raises:
        DatasetFormatError: There is no data set, or its files are not as documented; every problem is named.
    """
    if skeleton not in ("auto", "none"):
        raise ValueError(f"skeleton is {skeleton!r}; expected 'auto' or 'none'.")
    root = check_folder(path, "the folder that holds SMG's packs")
    log = ProblemLog(str(root), on_error)
    all_files = list_files(root)
    files = _sort_files(all_files, log)
    if not files["finelabels"]:
        raise DatasetFormatError(
            f"{root}: no SMG labels found; expected Sample<number>_finelabels.csv below folders named "
            f"smg_skeleton_train, smg_skeleton_validate or smg_skeleton_test.{list_archives(all_files)}"
        )
    for kind in ("skeleton", "color"):
        for video_id in sorted(set(files[kind]) - set(files["finelabels"])):
            log.add(f"{files[kind][video_id]}: video {video_id} has no labels; expected {video_id}_finelabels.csv.")
    labels = {video_id: _read_labels(file, log) for video_id, file in sorted(files["finelabels"].items())}
    facts = {video_id: _read_facts(files["data"].get(video_id), log) for video_id in labels}
    parts = {video_id: part_of(files["finelabels"][video_id], root, PART_PREFIXES) for video_id in labels}
    for video_id in [v for v, part in parts.items() if part is None]:
        log.add(
            f"{files['finelabels'][video_id]}: no folder above it names a part; expected smg_skeleton_train or so."
        )
    lengths = {v: facts[v][0] or _count_frames(files["color"].get(v)) for v in labels}
    base, base_finding, base_is_assumed = _tell_index_base(labels, lengths)
    has_skeletons = skeleton == "auto" and bool(files["skeleton"])
    missing = [] if has_skeletons else ["skeletons: there are none, so clips have RGB alone."]
    if has_skeletons and (absent := sorted(set(labels) - set(files["skeleton"]))):
        missing.append(f"skeletons of {len(absent)} of {len(labels)} videos: {shorten(absent)}.")
    if absent := sorted(set(labels) - set(files["color"])):
        missing.append(f"RGB of {len(absent)} of {len(labels)} videos: {shorten(absent)}.")
    clips, hidden_finding = _make_clips(labels, parts, files["color"], base, log)
    log.raise_if_any()
    kinds = ["skeletons"] * has_skeletons + ["RGB"] * bool(files["color"])
    columns: dict[str, list] = {
        "video_id": list(labels),
        "part": list(parts.values()),
        "fps": [facts[v][1] or FPS for v in labels],
        "width": [WIDTH] * len(labels),
        "height": [HEIGHT] * len(labels),
        "video": [_text(files["color"].get(v)) for v in labels],
        "skeleton": [_text(files["skeleton"].get(v)) if has_skeletons else None for v in labels],
        "skeleton_kind": ["smg_csv" if has_skeletons and v in files["skeleton"] else None for v in labels],
    }
    return DataSource(
        name="SMG",
        layout=f"MiGA packs ({' and '.join(kinds) or 'labels alone'})",
        root=root,
        clips=make_table(clips, CLIP_SCHEMA),
        videos=make_table(columns, VIDEO_SCHEMA),
        label_names=SMG_LABELS,
        label_groups=SMG_GROUPS,
        group_names=SMG_GROUP_NAMES,
        keypoint_layout="kinect-25" if has_skeletons else None,
        known_counts=KNOWN_COUNTS,
        findings=(*hidden_finding, *([] if base_is_assumed else [base_finding])),
        assumptions=(
            *([base_finding] if base_is_assumed else []),
            "subjects: the files do not name them; a split by subject goes by video.",
        ),
        missing=tuple(missing),
        skipped=tuple(log.problems),
        fingerprint_files=tuple(str(path) for path in all_files if path.suffix in (".csv", ".mp4")),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _sort_files(paths: list[Path], log: ProblemLog) -> dict[str, dict[str, Path]]:
    """Files by kind and video id."""
    files: dict[str, dict[str, Path]] = {kind: {} for kind in ("finelabels", "skeleton", "data", "color")}
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        video_id, kind = (match[1], match[2]) if match[1] else (match[3], "color")
        if path.parent.name != video_id:
            log.add(f"{path}: expected it in a folder named {video_id}.")
        elif video_id in files[kind]:
            log.add(f"{path}: video {video_id} has {files[kind][video_id]} as well; expected one.")
        else:
            files[kind][video_id] = path
    return files


def _read_labels(path: Path, log: ProblemLog) -> list[_Row]:
    """Read `_finelabels.csv`: one `class,start,end` per row."""
    rows = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            where = f"{path}, row {number}"
            try:
                raw_class, start, end = (int(value) for value in row)
            except ValueError:
                log.add(f"{where}: expected integers class,start,end, got {','.join(row)!r}.")
                continue
            if not 0 <= start <= end:
                log.add(f"{where}: the interval is {start}..{end}; expected 0 <= start <= end (end included).")
                continue
            rows.append((raw_class, start, end, where))
    return rows


def _read_facts(path: Path | None, log: ProblemLog) -> tuple[int | None, float | None]:
    """Number of frames and frames per second from `_data.csv`: `numFrames,fps,maxDepth`."""
    if path is None:
        return None, None
    text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
    try:
        num_frames, fps = (float(value) for value in text.split(",")[:2])
    except ValueError:
        log.add(f"{path}: expected numFrames,fps,maxDepth, got {text[:40]!r}.")
        return None, None
    return int(num_frames), fps


def _count_frames(recording: Path | None) -> int | None:
    """Frames of a video by its header."""
    header = None if recording is None else read_header(str(recording))
    return header.num_frames if isinstance(header, VideoHeader) else None


def _tell_index_base(labels: dict[str, list[_Row]], num_frames: dict[str, int | None]) -> tuple[int, str, bool]:
    """Tell whether frames count from 0 or from 1: a start of 0 or an end past the last index gives it away.

    Returns:
        `tuple`: The first number, a sentence about it, and whether it is assumed.
    """
    starts = min((start for rows in labels.values() for _, start, _, _ in rows), default=0)
    full = [v for v, rows in labels.items() if num_frames[v] and any(end == num_frames[v] for _, _, end, _ in rows)]
    if starts == 0:
        return 0, "labels: frames count from 0 (an interval starts there).", False
    if full:
        return 1, f"labels: frames count from 1 (intervals end at the number of frames: {shorten(full)}).", False
    return (
        0,
        "labels: nothing tells whether frames count from 0 or from 1; 0 is assumed, which may be a frame late.",
        True,
    )


def _make_clips(
    labels: dict[str, list[_Row]],
    parts: dict[str, str | None],
    recordings: dict[str, Path],
    base: int,
    log: ProblemLog,
) -> tuple[dict[str, list], list[str]]:
    """Columns of `CLIP_SCHEMA`, and a finding if the test part hides its classes."""
    test_classes = {raw_class for v, rows in labels.items() if parts[v] == "test" for raw_class, *_ in rows}
    num_test = sum(len(rows) for v, rows in labels.items() if parts[v] == "test")
    hidden = bool(test_classes) and (0 in test_classes or (len(test_classes) == 1 and num_test > 1))
    columns: dict[str, list] = {name: [] for name in CLIP_SCHEMA.names}
    for video_id, rows in labels.items():
        for index, (raw_class, start, end, where) in enumerate(rows):
            is_hidden = hidden and parts[video_id] == "test"
            if not is_hidden and not 1 <= raw_class <= len(SMG_LABELS):
                log.add(f"{where}: class {raw_class} is unknown; expected 1..{len(SMG_LABELS)}.")
                continue
            label = HIDDEN_LABEL if is_hidden else raw_class - 1
            values = (
                f"{video_id}_{index}",
                video_id,
                start - base,
                end - base,
                label,
                _text(recordings.get(video_id)),
                0,
            )
            for name, value in zip(columns, values, strict=True):
                columns[name].append(value)
    finding = f"labels of the test part are placeholders ({sorted(test_classes)[:3]} alone): they become -1."
    return columns, [finding] if hidden else []


class SMG(ClipBuilder):
    """`datasets` builder for SMG; use it through [`load_smg`]. Configurations: `classification`, `online`."""

    BUILDER_CONFIGS = [
        ClipConfig(name=name, version=datasets.Version("1.0.0")) for name in ("classification", "online")
    ]
    DEFAULT_CONFIG_NAME = "classification"
    PROTOCOLS = ("miga", "folds")

    def find(self, path: str, on_error: OnError, skeleton: str) -> DataSource:
        """See [`find_smg`]."""
        return find_smg(path, on_error, skeleton)


def load_smg(path: str | PathLike, name: str = "classification", **options: Any) -> datasets.DatasetDict:
    """Load SMG from a folder that holds its packs; arguments as in [`load_imigue`].

    Keypoints are the layout "kinect-25" in pixels of the 1920 x 1080 RGB frames.

    Raises:
        DatasetFormatError: The folder or files in it are not as documented; all problems are named at once.
    """
    return load_source(SMG, path, name, **options)


__all__ = ["SMG", "find_smg", "load_smg"]
