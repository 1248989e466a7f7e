"""iMiGUE from a local folder: a `datasets` builder that reads the MiGA packs as they are handed out.

    dataset = load_imigue("/data/imigue")          # DatasetDict: train, validation, test

A row is a clip: its interval in an untrimmed video, its label and its 137 OpenPose keypoints. Nothing is downloaded,
and no video is decoded here: the processor decodes the frames that it samples.
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from clipmg_hf.modeling import IMIGUE_LABELS
from clipmg_hf.processing import get_layout


# The folder names of every pack, and the split they mean.
SKELETON_FOLDERS = {
    "imigue_skeleton_train": "train",
    "imigue_skeleton_validate": "validation",
    "imigue_skeleton_test": "test",
}
RGB_FOLDERS = {
    "train": ("train", "train_data", "imigue_rgb_train"),
    "validation": ("val", "valid", "validate", "validation_data", "imigue_rgb_validate"),
    "test": ("test", "test_data", "imigue_rgb_test", "imigue_rgb_phase2", "iMiGUE_RGB_Phase2"),
}
ILLUSTRATIVE_RAW_CLASS = 99
SKELETON_LAYOUT = "openpose-137"


class DatasetFormatError(ValueError):
    """A file of a data set that cannot be read; the message names file, row, value and what was expected."""


@dataclass(frozen=True)
class VideoFiles:
    """The files of one untrimmed video.

    Args:
        video_id (`str`): Four digits.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        labels (`Path`): `<video_id>_label.csv`.
        skeleton (`Path`): `<video_id>_openpose.xlsx`.
        video (`Path` or `None`): The mp4, when the RGB pack is there.
    """

    video_id: str
    split: str
    labels: Path
    skeleton: Path
    video: Path | None


def find_videos(root: str | PathLike) -> list[VideoFiles]:
    """Find the videos of the MiGA packs below `root`, in the order train, validation, test and by video id.

    Raises:
        DatasetFormatError: The folder is missing, holds no pack, or a video lacks its labels or skeleton.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetFormatError(f"{root}: no such folder; expected the folder that holds the iMiGUE packs.")
    videos = []
    for name, split in SKELETON_FOLDERS.items():
        for folder in sorted(root.rglob(name)):
            recordings = {path.parent.name: path for path in _find_recordings(root, split)}
            for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
                video_id = entry.name
                labels, skeleton = entry / f"{video_id}_label.csv", entry / f"{video_id}_openpose.xlsx"
                for path in (labels, skeleton):
                    if not path.is_file():
                        raise DatasetFormatError(f"{path}: no such file; every video folder of a pack holds one.")
                videos.append(VideoFiles(video_id, split, labels, skeleton, recordings.get(video_id)))
    if not videos:
        raise DatasetFormatError(
            f"{root}: no iMiGUE pack found; expected folders named {', '.join(SKELETON_FOLDERS)} somewhere below it."
        )
    return videos


def _find_recordings(root: Path, split: str) -> list[Path]:
    folders = [path for name in RGB_FOLDERS[split] for path in sorted(root.rglob(name)) if path.is_dir()]
    return [path for folder in folders for path in sorted(folder.glob("*/*.mp4"))]


def read_labels(path: Path, num_frames: int, has_classes: bool) -> list[tuple[int, int, int]]:
    """Read `<video_id>_label.csv`: one `class,start_frame,end_frame` per row, 0-based, end included.

    Args:
        path (`Path`): The file.
        num_frames (`int`): Rows of the video's skeleton; intervals must lie inside.
        has_classes (`bool`): `False` for the test packs, whose classes are placeholders: their labels become -1.

    Returns:
        `list[tuple[int, int, int]]`: Canonical label in 0..31 or -1, first and last frame.

    Raises:
        DatasetFormatError: A row is malformed; the message names it.
    """
    clips = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row:
                continue
            try:
                raw_class, start, end = (int(value) for value in row)
            except ValueError:
                raise DatasetFormatError(
                    f"{path}, row {number}: expected integers class,start_frame,end_frame, got {','.join(row)!r}."
                ) from None
            if not 0 <= start <= end < num_frames:
                raise DatasetFormatError(
                    f"{path}, row {number}: the interval {start}..{end} is not inside the {num_frames} frames of the "
                    "skeleton (0-based, end included)."
                )
            clips.append((canonical_label(raw_class, f"{path}, row {number}") if has_classes else -1, start, end))
    return clips


def canonical_label(raw_class: int, where: str) -> int:
    """Map a raw class (1..31, and 99 for illustrative gestures) to the canonical label 0..31."""
    if raw_class == ILLUSTRATIVE_RAW_CLASS:
        return len(IMIGUE_LABELS) - 1
    if not 1 <= raw_class < len(IMIGUE_LABELS):
        raise DatasetFormatError(
            f"{where}: class {raw_class} is unknown; expected 1..{len(IMIGUE_LABELS) - 1} or {ILLUSTRATIVE_RAW_CLASS}."
        )
    return raw_class - 1


def read_skeleton(path: Path) -> np.ndarray:
    """Read `<video_id>_openpose.xlsx`: no header, one row per frame, 137 x (x, y, confidence).

    Returns:
        `numpy.ndarray` float32 of shape `(N, 137, 3)`: pixels of the video frame; missing points are (0, 0, 0).

    Raises:
        DatasetFormatError: The file is no workbook, or a row or cell is malformed; the message names it.
    """
    import python_calamine

    num_keypoints = get_layout(SKELETON_LAYOUT).num_keypoints
    try:
        sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except (python_calamine.CalamineError, OSError) as error:
        raise DatasetFormatError(f"{path}: cannot be read as a workbook ({error}).") from error
    rows = sheet.to_python(skip_empty_area=False)
    for number, row in enumerate(rows, start=1):
        if len(row) != num_keypoints * 3:
            raise DatasetFormatError(
                f"{path}, row {number}: expected {num_keypoints * 3} columns ({num_keypoints} x (x, y, confidence)), "
                f"got {len(row)}."
            )
    try:
        values = np.array(rows, dtype=np.float32).reshape(-1, num_keypoints, 3)
    except ValueError:
        number, column = next(
            (r, c) for r, row in enumerate(rows) for c, value in enumerate(row) if not isinstance(value, int | float)
        )
        raise DatasetFormatError(
            f"{path}, row {number + 1}, column {column + 1}: expected a number, got {rows[number][column]!r}."
        ) from None
    if not np.isfinite(values).all():
        number = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DatasetFormatError(f"{path}, row {number + 1}: expected finite numbers.")
    return values


@dataclass
class IMiGUEConfig(datasets.BuilderConfig):
    """Configuration of [`IMiGUE`].

    Args:
        fingerprint (`str`): Stands for the contents of the folder in `datasets`' cache, which knows only its path.
    """

    fingerprint: str = ""


class IMiGUE(datasets.GeneratorBasedBuilder):
    """`datasets` builder for the MiGA packs of iMiGUE; use it through [`load_imigue`]."""

    BUILDER_CONFIG_CLASS = IMiGUEConfig
    BUILDER_CONFIGS = [IMiGUEConfig(name="classification", version=datasets.Version("1.0.0"))]
    DEFAULT_CONFIG_NAME = "classification"

    def _info(self) -> datasets.DatasetInfo:
        num_keypoints = get_layout(SKELETON_LAYOUT).num_keypoints
        features = {
            "clip_id": datasets.Value("string"),
            "video_id": datasets.Value("string"),
            "video": datasets.Value("string"),
            "start_frame": datasets.Value("int32"),
            "end_frame": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=list(IMIGUE_LABELS)),
            "keypoints": datasets.Array3D((None, num_keypoints, 3), "float32"),
        }
        return datasets.DatasetInfo(
            description="Micro-gesture clips of iMiGUE: intervals of untrimmed videos with OpenPose keypoints.",
            features=datasets.Features(features),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        videos = find_videos(self.config.data_dir)
        splits = {video.split: [v for v in videos if v.split == video.split] for video in videos}
        return [datasets.SplitGenerator(split, gen_kwargs={"videos": files}) for split, files in splits.items()]

    def _generate_examples(self, videos: list[VideoFiles]) -> Iterator[tuple[str, dict[str, Any]]]:
        for files in videos:
            keypoints = read_skeleton(files.skeleton)
            clips = read_labels(files.labels, len(keypoints), has_classes=files.split != "test")
            for index, (label, start, end) in enumerate(clips):
                clip_id = f"{files.video_id}_{index}"
                yield (
                    f"{files.split}/{clip_id}",
                    {
                        "clip_id": clip_id,
                        "video_id": files.video_id,
                        "video": None if files.video is None else str(files.video),
                        "start_frame": start,
                        "end_frame": end,
                        "label": label,
                        "keypoints": keypoints[start : end + 1],
                    },
                )


def load_imigue(
    path: str | PathLike, cache_dir: str | PathLike | None = None, num_proc: int | None = None
) -> datasets.DatasetDict:
    """Load iMiGUE from the folder that holds the MiGA packs.

    Args:
        path (`str` or `PathLike`): The folder; packs are found at any depth below it.
        cache_dir (`str` or `PathLike`, *optional*): Where the converted data set lies; `datasets`' own cache by
            default. A changed file in the folder is noticed and converted again.
        num_proc (`int`, *optional*): Processes that read the workbooks.

    Returns:
        `datasets.DatasetDict` with the splits that are there. Rows hold `clip_id`, `video_id`, `video` (path of the
        untrimmed mp4, or None), `start_frame` and `end_frame` (0-based, end included), `label` (`ClassLabel` with the
        32 names; -1 in the test packs, which hide it) and `keypoints` float32 (T, 137, 3) in pixels of the frame.

    Raises:
        DatasetFormatError: The folder or a file in it is not as the packs are; the message names it.
    """
    path = Path(path).resolve()
    manifest = hashlib.sha256()
    for video in find_videos(path):
        for file in (video.labels, video.skeleton, video.video):
            if file is not None:
                status = file.stat()
                manifest.update(f"{file.relative_to(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    builder = IMiGUE(
        data_dir=str(path),
        cache_dir=None if cache_dir is None else str(cache_dir),
        fingerprint=manifest.hexdigest()[:16],
    )
    try:
        builder.download_and_prepare(num_proc=num_proc)
    except datasets.exceptions.DatasetGenerationError as error:
        # `datasets` hides which file was wrong behind its own error.
        if isinstance(error.__cause__, DatasetFormatError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset()


__all__ = ["DatasetFormatError", "IMiGUE", "IMiGUEConfig", "VideoFiles", "find_videos", "load_imigue"]
