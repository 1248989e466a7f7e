"""iMiGUE's files on a disk: the Oulu release, the MiGA challenge packs of 2023 to 2026, or a part of either.

Only file names and labels are read here. A clip is named as in the challenge, `<video id>_<number from 0>`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from clipmg_hf.data.discovery import check_folder, list_archives, list_files, shorten
from clipmg_hf.data.imigue_labels import FPS, HEIGHT, WIDTH, Clips, Videos, read_miga, read_oulu
from clipmg_hf.data.labels import IMIGUE_GROUP_NAMES, IMIGUE_GROUPS
from clipmg_hf.data.problems import DatasetFormatError, OnError, ProblemLog
from clipmg_hf.data.source import CLIP_SCHEMA, VIDEO_SCHEMA, Columns, DataSource, make_table
from clipmg_hf.modeling import IMIGUE_LABELS


EXPECTED = "the folder that holds iMiGUE: the Oulu release or the MiGA packs"
# The cross-subject protocol of the paper: these subjects train, all others test.
# fmt: off
TRAIN_SUBJECTS = frozenset((
    2, 4, 5, 6, 9, 10, 12, 13, 14, 15, 17, 18, 20, 21, 22, 23, 25, 28, 29, 30, 31, 35, 36, 38, 39, 41, 42, 43, 44, 46,
    47, 48, 52, 53, 59, 61, 62,
))
# fmt: on
# The MiGA packs take ten training videos for validation and leave four videos out.
MIGA_VALIDATION_VIDEOS = frozenset(f"{number:04d}" for number in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11))
MIGA_ABSENT_VIDEOS = frozenset(("0218", "0319", "0347", "0348"))
KNOWN_COUNTS = {
    "oulu": {"all": (359, 18_498)},
    "2023": {"train": (251, 13_670), "test": (104, 4_562)},
    "2024": {"train": (241, 12_893), "validation": (10, 777), "test": (104, 4_562)},
}


@dataclass
class _Files:
    """Files of a folder by what they are; the keys of dictionaries are video ids."""

    miga_labels: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    oulu_labels: list[Path] = field(default_factory=list)
    workbooks: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    light_hand: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    json_folders: dict[str, set[Path]] = field(default_factory=lambda: defaultdict(set))
    recordings: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))


def find_imigue(path: str | PathLike, on_error: OnError = "raise", skeleton: str = "auto") -> DataSource:
    """Find iMiGUE below a folder: file names and labels are read, nothing else.

    Args:
        path (`str` or `PathLike`): The folder; packs are found at any depth below it.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out what is wrong, and says so in `skipped`.
        skeleton (`str`, defaults to `"auto"`): Which skeletons to take: `"openpose"` (137 points, `.xlsx` or JSON),
            `"light"` (35 points, `_light_hand.csv`), `"none"`, or the first of these that every video has.

    Raises:
        DatasetFormatError: There is no data set, or its files are not as documented; every problem is named.
    """
    root = check_folder(path, EXPECTED)
    log = ProblemLog(str(root), on_error)
    all_files = list_files(root)
    files = _sort_files(all_files, log)
    if not files.miga_labels and not files.oulu_labels:
        raise DatasetFormatError(_explain_nothing(root, files, all_files))
    if len(files.oulu_labels) > 1:
        names = shorten([str(path) for path in files.oulu_labels])
        raise DatasetFormatError(f"{len(files.oulu_labels)} label files of the Oulu release, {names}; expected one.")
    clips, videos = (
        read_oulu(files.oulu_labels[0], log) if files.oulu_labels else read_miga(files.miga_labels, root, log)
    )
    _check_unlabelled(files, videos, log)
    findings, missing = _attach_recordings(files, clips, videos, log)
    layout_name, more_findings, more_missing = _attach_skeletons(files, videos, skeleton, log)
    if files.oulu_labels:
        _assign_oulu_parts(videos)
    log.raise_if_any()
    clip_columns, video_columns, without_files = _to_columns(clips, videos)
    return DataSource(
        name="iMiGUE",
        layout=_describe_layout(files, videos),
        root=root,
        clips=make_table(clip_columns, CLIP_SCHEMA),
        videos=make_table(video_columns, VIDEO_SCHEMA),
        label_names=IMIGUE_LABELS,
        label_groups=IMIGUE_GROUPS,
        group_names=IMIGUE_GROUP_NAMES,
        keypoint_layout=layout_name,
        known_counts=KNOWN_COUNTS[_release(files, videos)],
        findings=(*findings, *more_findings),
        assumptions=tuple(_list_assumptions(videos)),
        missing=(*missing, *more_missing, *without_files),
        skipped=tuple(log.problems),
        fingerprint_files=tuple(str(path) for path in all_files if path.suffix in (".csv", ".xlsx", ".mp4", ".json")),
    )


def _list_assumptions(videos: Videos) -> list[str]:
    """What the files do not tell."""
    assumptions = []
    if any(video.get("subject") is None for video in videos.values()):
        assumptions.append(
            "subjects: the packs do not name them; a split by subject goes by video, so a person may be in two splits."
        )
    if any("video" not in video for video in videos.values()):
        assumptions.append(f"frames without RGB: {WIDTH} x {HEIGHT} pixels and {FPS:g} per second, as published.")
    return assumptions


def _sort_files(paths: list[Path], log: ProblemLog) -> _Files:
    """Tell the files apart by name and place; a file in a numbered folder must carry that number."""
    files = _Files()
    for path in paths:
        folder, name = path.parent.name, path.name
        in_video_folder = re.fullmatch(r"\d{4}", folder) is not None
        if match := re.fullmatch(r"(.+)_(label|light_hand)\.csv", name):
            if not in_video_folder or match[1] != folder:
                log.add(f"{path}: expected <video id>/<video id>_{match[2]}.csv with a video id of four digits.")
                continue
            (files.miga_labels if match[2] == "label" else files.light_hand)[folder].append(path)
        elif re.fullmatch(r"labels_\d+\.csv", name) or (path.suffix == ".csv" and path.parent.name == "Label"):
            files.oulu_labels.append(path)
        elif in_video_folder and path.suffix in (".xlsx", ".mp4"):
            if not re.match(rf"{folder}(_|\.)", name) and re.match(r"\d{4}(_|\.)", name):
                log.add(f"{path}: expected a file of video {folder} in its folder.")
                continue
            (files.workbooks if path.suffix == ".xlsx" else files.recordings)[folder].append(path)
        elif match := re.fullmatch(r"(\d{1,4})_\d{12}_keypoints\.json", name):
            files.json_folders[f"{int(match[1]):04d}"].add(path.parent)
    return files


def _explain_nothing(root: Path, files: _Files, all_files: list[Path]) -> str:
    """Say what a folder without labels holds."""
    if files.recordings or files.workbooks or files.json_folders:
        found = [
            f"{len(group)} videos with {what}"
            for group, what in (
                (files.recordings, "RGB"),
                (files.workbooks, "skeletons"),
                (files.json_folders, "JSON"),
            )
            if group
        ]
        return (
            f"{root}: {', '.join(found)}, but no labels; expected <video id>_label.csv (MiGA's skeleton packs hold "
            "them) or Label/labels_<date>.csv (Oulu release)."
        )
    return (
        f"{root}: no iMiGUE data found; expected folders named imigue_skeleton_train, imigue_skeleton_validate or "
        f"imigue_skeleton_test (MiGA packs), or Label/labels_<date>.csv (Oulu release).{list_archives(all_files)}"
    )


def _check_unlabelled(files: _Files, videos: Videos, log: ProblemLog) -> None:
    """Report videos and skeletons that no label file knows."""
    for group, what in (
        (files.recordings, "RGB"),
        (files.workbooks, "a skeleton"),
        (files.light_hand, "a skeleton"),
        (files.json_folders, "OpenPose JSON"),
    ):
        # A video whose own label file is at fault is reported for that.
        for video_id in sorted(set(group) - set(videos) - set(files.miga_labels)):
            path = sorted(group[video_id])[0]
            log.add(f"{path}: {what} of video {video_id}, which has no labels; expected labels for every video.")


def _attach_recordings(files: _Files, clips: Clips, videos: Videos, log: ProblemLog) -> tuple[list[str], list[str]]:
    """Give every clip its file: the untrimmed video, or a file of its own; say what was found and what is missing."""
    trimmed: dict[str, dict[int, Path]] = {}
    untrimmed = 0
    # A video of one clip has one file, whole or not: its name tells, if the names of others do.
    has_trimmed = any(len(paths) > 1 for paths in files.recordings.values())
    for video_id in sorted(set(files.recordings) & set(videos)):
        paths = files.recordings[video_id]
        whole = [path for path in paths if path.stem == video_id]
        if not whole and (len(paths) > 1 or (has_trimmed and re.fullmatch(r".*_\d+", paths[0].stem))):
            trimmed[video_id] = _number_files(video_id, paths, log)
            continue
        if len(paths) > 1:
            names = shorten([str(path) for path in paths])
            log.add(f"video {video_id} has {len(paths)} files, {names}; expected {video_id}.mp4 or one for each clip.")
            continue
        path = str(paths[0])
        videos[video_id]["video"] = path
        for clip in clips[video_id]:
            clip["video"], clip["video_start_frame"] = path, 0
        untrimmed += 1
    findings, missing = [], []
    if untrimmed:
        findings.append(f"RGB: {untrimmed} untrimmed videos; a clip is an interval of one.")
    if trimmed:
        findings.append(_attach_trimmed(trimmed, clips, log))
    absent = sorted(set(videos) - set(files.recordings))
    if absent and files.recordings:
        missing.append(f"RGB of {len(absent)} videos: {shorten(absent)}.")
    elif absent:
        missing.append("RGB: there are no videos, so clips have keypoints alone.")
    return findings, missing


def _number_files(video_id: str, paths: list[Path], log: ProblemLog) -> dict[int, Path]:
    """Trimmed files by the number at the end of their names."""
    numbered: dict[int, Path] = {}
    for path in paths:
        match = re.search(r"(\d+)$", path.stem)
        if match is None:
            log.add(f"{path}: expected {video_id}.mp4, or the number of a clip at the end of the name.")
        elif int(match[1]) in numbered:
            log.add(
                f"{path}: clip {int(match[1])} of video {video_id} is also {numbered[int(match[1])]}; expected one."
            )
        else:
            numbered[int(match[1])] = path
    return numbered


def _attach_trimmed(trimmed: dict[str, dict[int, Path]], clips: Clips, log: ProblemLog) -> str:
    """Give clips their own files, numbered from 0 or from 1, which the first and last numbers tell."""
    from_zero = any(0 in paths for paths in trimmed.values())
    from_one = any(max(paths, default=-1) == len(clips[video_id]) for video_id, paths in trimmed.items())
    if from_zero == from_one:
        log.add(
            f"{next(iter(trimmed[min(trimmed)].values())).parent}: several files for a video, numbered "
            f"{'both ' if from_zero else 'neither '}from 0 {'and' if from_zero else 'nor'} from 1; expected one "
            "numbering of clips, or one file <video id>.mp4."
        )
    base = 0 if from_zero else 1
    for video_id, paths in trimmed.items():
        by_number = {clip["number"]: clip for clip in clips[video_id]}
        for number, path in sorted(paths.items()):
            clip = by_number.get(number - base)
            if clip is None:
                last = len(by_number) - 1 + base
                log.add(f"{path}: clip {number} is not in the labels of video {video_id}; expected {base}..{last}.")
                continue
            clip["video"], clip["video_start_frame"] = str(path), clip["start_frame"]
    num_files = sum(len(paths) for paths in trimmed.values())
    return f"RGB: {num_files} trimmed clips of {len(trimmed)} videos, numbered from {base} in the order of the labels."


def _attach_skeletons(
    files: _Files, videos: Videos, skeleton: str, log: ProblemLog
) -> tuple[str | None, list[str], list[str]]:
    """Give every video its skeleton file; the layout, and what was found and what is missing."""
    if skeleton not in ("auto", "openpose", "light", "none"):
        raise ValueError(f"skeleton is {skeleton!r}; expected 'auto', 'openpose', 'light' or 'none'.")
    openpose: dict[str, tuple[Path, str]] = {}
    for video_id, folders in files.json_folders.items():
        openpose |= _single(video_id, sorted(folders), "openpose_json", "folders of OpenPose JSON", log)
    for video_id, paths in files.workbooks.items():
        openpose |= _single(video_id, paths, "openpose_xlsx", "workbooks", log)
    light: dict[str, tuple[Path, str]] = {}
    for video_id, paths in files.light_hand.items():
        light |= _single(video_id, paths, "light_hand_csv", "_light_hand.csv files", log)
    if skeleton == "none":
        return None, [], []
    if skeleton == "auto":
        # The light files lose the face and most of the hands, so they serve only in need.
        skeleton = "light" if set(light) - set(openpose) else "openpose"
    chosen = openpose if skeleton == "openpose" else light
    if not chosen:
        return None, [], ["skeletons: there are none, so clips have RGB alone."]
    for video_id in set(chosen) & set(videos):
        path, kind = chosen[video_id]
        videos[video_id]["skeleton"], videos[video_id]["skeleton_kind"] = str(path), kind
    layout = "openpose-137" if skeleton == "openpose" else "imigue-light-35"
    absent = sorted(set(videos) - set(chosen))
    missing = [f"skeletons of {len(absent)} videos: {shorten(absent)}."] if absent else []
    return layout, [f"skeletons: {layout} of {len(set(chosen) & set(videos))} videos."], missing


def _single(
    video_id: str, paths: Iterable[Path], kind: str, what: str, log: ProblemLog
) -> dict[str, tuple[Path, str]]:
    paths = list(paths)
    if len(paths) > 1:
        log.add(f"video {video_id} has {len(paths)} {what}, {shorten([str(path) for path in paths])}; expected one.")
        return {}
    return {video_id: (paths[0], kind)}


def _assign_oulu_parts(videos: Videos) -> None:
    """Derive the parts of the challenge from the subjects and the published video ids; the Oulu labels have none."""
    for video_id, video in videos.items():
        if video_id in MIGA_ABSENT_VIDEOS:
            video["part"] = None
        elif video_id in MIGA_VALIDATION_VIDEOS:
            video["part"] = "validation"
        else:
            video["part"] = "train" if video["subject"] in TRAIN_SUBJECTS else "test"


def _release(files: _Files, videos: Videos) -> str:
    """The pack of 2023 has no validation part: its videos are among the training videos."""
    if files.oulu_labels:
        return "oulu"
    parts = {video["part"] for video in videos.values()}
    first_in_train = any(videos.get(video_id, {}).get("part") == "train" for video_id in MIGA_VALIDATION_VIDEOS)
    return "2023" if first_in_train and "validation" not in parts else "2024"


def _describe_layout(files: _Files, videos: Videos) -> str:
    release = {"oulu": "Oulu release", "2023": "MiGA packs of 2023", "2024": "MiGA packs of 2024 to 2026"}
    parts = [
        name
        for name, group in (
            ("skeletons", files.workbooks or files.light_hand or files.json_folders),
            ("RGB", files.recordings),
        )
        if group
    ]
    more = " with MiGA packs" if files.oulu_labels and files.miga_labels else ""
    return f"{release[_release(files, videos)]}{more} ({' and '.join(parts) or 'labels alone'})"


def _to_columns(clips: Clips, videos: Videos) -> tuple[Columns, Columns, list[str]]:
    """Turn clips and videos to columns; also name the videos with neither RGB nor skeleton, which are left out."""
    absent = [
        v for v, video in videos.items() if not video.get("skeleton") and not any(c.get("video") for c in clips[v])
    ]
    kept = {video_id: video for video_id, video in videos.items() if video_id not in set(absent)}
    rows = [{"video_id": video_id, "video_start_frame": 0, **clip} for video_id in kept for clip in clips[video_id]]
    clip_columns: Columns = {name: [row.get(name) for row in rows] for name in CLIP_SCHEMA.names}
    video_rows = [{"video_id": video_id, **video} for video_id, video in kept.items()]
    video_columns: Columns = {name: [row.get(name) for row in video_rows] for name in VIDEO_SCHEMA.names}
    missing = []
    if absent:
        counts = f"{len(absent)} videos with {sum(len(clips[video_id]) for video_id in absent):,} clips"
        missing.append(f"both RGB and skeleton of {counts}, which are left out: {shorten(absent)}.")
    if unlabelled := [video_id for video_id in kept if not clips[video_id]]:
        missing.append(f"clips of {len(unlabelled)} videos, whose labels are empty: {shorten(unlabelled)}.")
    return clip_columns, video_columns, missing


__all__ = ["TRAIN_SUBJECTS", "find_imigue"]
