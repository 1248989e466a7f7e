"""MA-52 (Micro-Action-52) from a local folder: trimmed clips with labels and without skeletons.

dataset = load_ma52("/data/ma52")          # DatasetDict: train, validation, test
"""

import re
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from clipmg_hf.data.builder import ClipBuilder, ClipConfig, load_source
from clipmg_hf.data.discovery import PART_ALIASES, check_folder, list_archives, list_files, shorten
from clipmg_hf.data.labels import MA52_GROUP_NAMES, MA52_GROUPS
from clipmg_hf.data.problems import DatasetFormatError, OnError, ProblemLog
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.data.source import CLIP_SCHEMA, VIDEO_SCHEMA, DataSource, make_table


NUM_CLASSES = len(MA52_GROUPS)
KNOWN_COUNTS: dict[str, tuple[int | None, int]] = {"all": (22_422, 22_422)}


def find_ma52(path: str | PathLike, on_error: OnError = "raise", skeleton: str = "auto") -> DataSource:
    """Find MA-52 below a folder: lists of clips and file names are read, nothing else.

    Args:
        path (`str` or `PathLike`): The folder that holds `<part>_list_videos.txt` and `videos_<part>/`.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out what is wrong, and says so in `skipped`.
        skeleton (`str`, defaults to `"auto"`): There are none, whatever it is.

    Raises:
        DatasetFormatError: There is no data set, or its files are not as documented; every problem is named.
    """
    root = check_folder(path, "the folder that holds MA-52")
    log = ProblemLog(str(root), on_error)
    all_files = list_files(root)
    lists = _find_by_part(all_files, r"(\w+)_list_videos\.txt", log)
    if not lists:
        raise DatasetFormatError(
            f"{root}: no MA-52 data found; expected train_list_videos.txt and videos_train.{list_archives(all_files)}"
        )
    recordings: dict[str, dict[str, Path]] = {}
    for file in all_files:
        match = re.fullmatch(r"videos_(\w+)", file.parent.name)
        if match and match[1] in PART_ALIASES and file.suffix == ".mp4":
            others = recordings.setdefault(PART_ALIASES[match[1]], {})
            if others.setdefault(file.name, file) is not file:
                log.add(f"{file}: {others[file.name]} has the same name and part; expected one.")
    names, name_finding = _read_names(all_files, log)
    columns: dict[str, list] = {name: [] for name in (*CLIP_SCHEMA.names, "part")}
    findings, missing = [name_finding], ["skeletons: MA-52 has none, so clips have RGB alone."]
    seen: dict[str, str] = {}
    for part, file in sorted(lists.items(), key=lambda item: ("train", "validation", "test").index(item[0])):
        clips = _read_list(file, seen, log)
        if part not in recordings:
            missing.append(f"RGB of the part {part}: {len(clips):,} clips, which are left out.")
            continue
        if part == "test" and clips and not any(label for _, label in clips):
            findings.append("labels of the test part are all 0, placeholders: they become -1.")
            clips = [(name, HIDDEN_LABEL) for name, _ in clips]
        _add_clips(columns, part, clips, recordings[part], file, log)
    for part in sorted(set(recordings) - set(lists)):
        log.add(f"{root}: videos of the part {part} without its list; expected <part>_list_videos.txt.")
    log.raise_if_any()
    clip_ids = columns["clip_id"]
    videos = {"video_id": clip_ids, "part": columns.pop("part"), "video": columns["video"]}
    return DataSource(
        name="MA-52",
        layout="trimmed clips (RGB)",
        root=root,
        clips=make_table(columns, CLIP_SCHEMA),
        videos=make_table(videos, VIDEO_SCHEMA),
        label_names=names,
        label_groups=MA52_GROUPS,
        group_names=MA52_GROUP_NAMES,
        keypoint_layout=None,
        known_counts=KNOWN_COUNTS,
        findings=tuple(findings),
        missing=tuple(missing),
        skipped=tuple(log.problems),
        fingerprint_files=tuple(str(path) for path in all_files if path.suffix in (".txt", ".mp4")),
    )


def _find_by_part(files: list[Path], pattern: str, log: ProblemLog) -> dict[str, Path]:
    """The one file of each part whose name matches; the pattern's group is the part."""
    found: dict[str, Path] = {}
    for path in files:
        match = re.fullmatch(pattern, path.name)
        if match is None:
            continue
        part = PART_ALIASES.get(match[1])
        if part is None:
            log.add(f"{path}: {match[1]!r} is no part; expected train, val or test.")
        elif part in found:
            log.add(f"{path}: {found[part]} is the same part; expected one.")
        else:
            found[part] = path
    return found


def _read_names(files: list[Path], log: ProblemLog) -> tuple[tuple[str, ...], str]:
    """Class names of `label_name.txt`, `<class><TAB><name>` per line; numbers without it."""
    path = next((path for path in files if path.name == "label_name.txt"), None)
    numbered = tuple(f"micro-action {number}" for number in range(NUM_CLASSES))
    if path is None:
        return numbered, "label_name.txt is missing: classes are called by their numbers."
    names: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        match = re.fullmatch(r"(\d+)\s+(\S.*?)\s*", line)
        if not line.strip():
            continue
        if match is None or int(match[1]) >= NUM_CLASSES or int(match[1]) in names:
            log.add(
                f"{path}, row {number}: expected a class in 0..{NUM_CLASSES - 1}, once, and its name, got {line!r}."
            )
            continue
        names[int(match[1])] = match[2]
    if len(set(names.values())) < NUM_CLASSES:
        log.add(f"{path}: {len(set(names.values()))} names; expected {NUM_CLASSES} different ones.")
        return numbered, "label_name.txt is incomplete: classes are called by their numbers."
    return tuple(names[number] for number in range(NUM_CLASSES)), f"class names are those of {path.name}."


def _read_list(path: Path, seen: dict[str, str], log: ProblemLog) -> list[tuple[str, int]]:
    """Read `<part>_list_videos.txt`: a file name and a class in each line."""
    clips = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        where = f"{path}, row {number}"
        if not line.strip():
            continue
        match = re.fullmatch(r"(\S+)\s+(\d+)\s*", line)
        if match is None:
            log.add(f"{where}: expected a file name and a class, got {line!r}.")
        elif Path(match[1]).name != match[1] or "\\" in match[1] or match[1] in (".", ".."):
            log.add(f"{where}: the name is {match[1]!r}; expected one without folders.")
        elif int(match[2]) >= NUM_CLASSES:
            log.add(f"{where}: class {match[2]} is unknown; expected 0..{NUM_CLASSES - 1}.")
        elif match[1] in seen:
            log.add(f"{where}: {match[1]} is also in {seen[match[1]]}; expected each clip once.")
        else:
            seen[match[1]] = where
            clips.append((match[1], int(match[2])))
    return clips


def _add_clips(
    columns: dict[str, list],
    part: str,
    clips: list[tuple[str, int]],
    recordings: dict[str, Path],
    file: Path,
    log: ProblemLog,
) -> None:
    """Append the clips whose file is there; `examine` fills in the ends."""
    absent = [name for name, _ in clips if name not in recordings]
    for name in absent:
        log.add(f"{file}: {name} is not among the videos of its part; expected a file for every line.")
    if unlisted := sorted(set(recordings) - {name for name, _ in clips}):
        log.add(f"{len(unlisted)} videos of the part {part} have no label in {file}: {shorten(unlisted)}.")
    for name, label in clips:
        if name in recordings:
            clip_id = Path(name).stem
            values = (clip_id, clip_id, 0, -1, label, str(recordings[name]), 0, part)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)


class MA52(ClipBuilder):
    """`datasets` builder for MA-52; use it through [`load_ma52`]. Configuration: `classification`."""

    BUILDER_CONFIGS = [ClipConfig(name="classification", version=datasets.Version("1.0.0"))]
    DEFAULT_CONFIG_NAME = "classification"
    PROTOCOLS = ("official", "folds")

    def find(self, path: str, on_error: OnError, skeleton: str) -> DataSource:
        """See [`find_ma52`]."""
        return find_ma52(path, on_error, skeleton)


def load_ma52(path: str | PathLike, name: str = "classification", **options: Any) -> datasets.DatasetDict:
    """Load MA-52 from its folder; arguments as in [`load_imigue`]. There are no keypoint columns.

    Raises:
        DatasetFormatError: The folder or files in it are not as documented; all problems are named at once.
    """
    return load_source(MA52, path, name, **options)


__all__ = ["MA52", "find_ma52", "load_ma52"]
