"""Packs that others derived from iMiGUE: pickled PYSKL dictionaries, and the arrays that skeleton models read.

    dataset = load_pyskl("imigue.pkl")                       # DatasetDict
    dataset = load_miga_arrays("/data/imigue_arrays")        # train_data.npy + train_label.pkl, ...

Both hold keypoints only, and of the clips only: a row has no video, and its frames count from 0. The rows, those of
`clipmg_hf/data/schema.py`, are kept in memory: there is no cache that could miss a changed file.
"""

import logging
import re
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm import tqdm

from clipmg_hf.data.labels import IMIGUE_GROUP_NAMES, IMIGUE_GROUPS
from clipmg_hf.data.problems import DatasetFormatError, OnError, ProblemLog
from clipmg_hf.data.restricted_pickle import load_pickle
from clipmg_hf.data.schema import HIDDEN_LABEL, clip_features
from clipmg_hf.modeling import IMIGUE_LABELS
from clipmg_hf.processing import KeypointLayout, get_layout, layout_from_count, valid_keypoints


logger = logging.getLogger(__name__)

SPLIT_ALIASES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
}
CLIP_NAME = re.compile(r".+_[0-9]+")
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
ANNOTATION_KEYS = ("frame_dir", "label", "img_shape", "total_frames", "keypoint", "keypoint_score")
# Width and height of iMiGUE's videos, and those that some packs give instead.
IMIGUE_SIZE, WRONG_SIZE = (1280, 720), (1920, 1080)
# A few points of a 720p video lie outside of its frames; of a seated person in 1080p, many are beyond 1280 x 720.
MIN_INSIDE_SHARE = 0.99
MAX_VALUE = 1_000_000
# Where so many points have coordinates of at most 2, those are no pixels; where so many are negative, the origin is
# inside of the frame.
MAX_NORMALIZED, MIN_NORMALIZED_SHARE, MAX_NEGATIVE_SHARE = 2, 0.99, 0.1
# Fingertips leave the frame by a little. Wrong sizes put many points further than a quarter of the frame outside.
FAR_OUTSIDE, MAX_FAR_SHARE = 0.25, 0.01
ROWS_PER_CHUNK = 256


@dataclass(frozen=True)
class _Clip:
    """A checked clip. `read` gives its keypoints, float32 (T, K, 3): a missing point is 0, 0, 0, any other has a score
    above 0. `size` is (width, height) in pixels.
    """

    clip_id: str
    video_id: str
    label: int
    size: tuple[int, int]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Classes:
    """Names of the classes, and for each the name of its group.

    Raises:
        ValueError: Not one group for each class, or a group without a name.
    """

    label_names: Sequence[str]
    label_groups: Sequence[str]
    group_names: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.label_groups) != len(self.label_names):
            raise ValueError(f"{len(self.label_names)} label_names have {len(self.label_groups)} label_groups.")
        if unknown := sorted(set(self.label_groups) - set(self.group_names)):
            raise ValueError(f"label_groups are not among group_names {tuple(self.group_names)}: {unknown}.")

    def group_of(self, label: int) -> int:
        """Index of the group of a label; -1 for a hidden one."""
        return HIDDEN_LABEL if label == HIDDEN_LABEL else self.group_names.index(self.label_groups[label])


def load_pyskl(
    path: str | PathLike,
    *,
    label_names: Sequence[str] = IMIGUE_LABELS,
    label_groups: Sequence[str] = IMIGUE_GROUPS,
    group_names: Sequence[str] = IMIGUE_GROUP_NAMES,
    keypoint_layout: str | None = None,
    image_size: tuple[int, int] | None = None,
    on_error: OnError = "raise",
    show_progress: bool = True,
) -> datasets.DatasetDict:
    """Load a pickled PYSKL dictionary, `{"split": {name: [frame_dir, ...]}, "annotations": [{...}, ...]}`.

    An annotation holds `frame_dir` (`<video>_<number>`), `label`, `img_shape` (height, width), `total_frames`,
    `keypoint` (M, T, K, 2) in pixels and `keypoint_score` (M, T, K). Of M people, the one with the highest sum of
    scores is taken. Some packs say 1080 x 1920 of points in 720 x 1280: where the points fit that, it is what the
    rows say. Both are logged.

    The splits keep their names, but `val` becomes `validation`, and `<protocol>_train`, `_val` and `_test` become
    `train`, `validation` and `test` where the file has one of a kind. A test split whose labels are all the same has
    placeholders: its labels become -1.

    Args:
        path (`str` or `PathLike`): The file. It is not trusted: [`load_pickle`] runs nothing in it.
        label_names (`Sequence[str]`): Names of the classes 0, 1, ...; iMiGUE's 32 by default.
        label_groups (`Sequence[str]`): For each class, the name of its body-part group.
        group_names (`Sequence[str]`): The groups, in the order of the column's ids.
        keypoint_layout (`str`, *optional*): Name of the points' layout; by default the one with as many points.
        image_size (`tuple[int, int]`, *optional*): Width and height in pixels, instead of every `img_shape`.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out the clips that have problems, and logs them.
        show_progress (`bool`, defaults to `True`): Show a bar.

    Returns:
        `datasets.DatasetDict` in memory, with the columns of `clipmg_hf/data/schema.py`; `fps`, `subject`, `emotion`
        and `video` are None, and the frames are 0..T-1.

    Raises:
        DatasetFormatError: The file is no such pickle, or no clip of it can be read, as when its points are no
            pixels; with `"raise"`, all problems of annotations and splits.
        ValueError: The names do not fit each other, or the layout or `on_error` is unknown.
    """
    classes = _Classes(label_names, label_groups, group_names)
    log = ProblemLog(str(path), on_error)
    splits, layout = _read_pyskl(Path(path), len(label_names), keypoint_layout, image_size, log)
    return _build(splits, classes, layout, log, show_progress)


def load_miga_arrays(
    files: str | PathLike | Mapping[str, tuple[str | PathLike, str | PathLike]],
    *,
    label_names: Sequence[str] = IMIGUE_LABELS,
    label_groups: Sequence[str] = IMIGUE_GROUPS,
    group_names: Sequence[str] = IMIGUE_GROUP_NAMES,
    keypoint_layout: str | None = None,
    image_size: tuple[int, int] = IMIGUE_SIZE,
    on_error: OnError = "raise",
    show_progress: bool = True,
) -> datasets.DatasetDict:
    """Load arrays (N, 3, T, K, M), such as (N, 3, 90, 22, 1), with pickled names and labels.

    The channels are x and y in pixels of the video's frames, and the score. The arrays give every clip the same
    number of frames, by padding or by repeating [unknown]; a clip's own number is not in the files. Frames at its end
    that are all 0 are cut, and at least one frame is kept: a repeated clip stays as it is. Of M people, the one with
    the highest sum of scores is taken. A test split whose labels are all the same has placeholders: its labels
    become -1.

    Args:
        files (`str`, `PathLike` or `Mapping`): For each split, the `.npy` file and the pickle of `(names, labels)`;
            or a folder with one of each whose names contain train, val or test, as `train_data.npy` and
            `train_label.pkl`. None of the files is trusted.
        label_names, label_groups, group_names, keypoint_layout, on_error, show_progress: As in [`load_pyskl`].
        image_size (`tuple[int, int]`, defaults to iMiGUE's): Width and height of the video's frames in pixels.

    Returns:
        `datasets.DatasetDict` as that of [`load_pyskl`].

    Raises:
        DatasetFormatError: A file is missing or not as above, or no clip can be read, as when the points are no
            pixels; with `"raise"`, all problems of the clips.
        ValueError: The names do not fit each other, or the layout or `on_error` is unknown.
    """
    classes = _Classes(label_names, label_groups, group_names)
    if not files:
        raise ValueError("files is empty; expected the two files of each split, or a folder.")
    mapping = files if isinstance(files, Mapping) else find_array_files(files)
    paths = {split: (Path(data), Path(names)) for split, (data, names) in mapping.items()}
    log = ProblemLog(", ".join(str(data) for data, _ in paths.values()), on_error)
    splits: dict[str, list[_Clip]] = {}
    for split, (data, names) in paths.items():
        _check_split_name(split, log.where)
        array = _open_array(data)
        layout = _choose_layout(array.shape[3], keypoint_layout, str(data)).name
        clips = _check_clips(array, _read_names(names, len(array)), len(label_names), image_size, data.name, log)
        splits[split] = _check_points(clips, str(data), log)
        # The splits of a data set share one layout.
        keypoint_layout = layout
    return _build(splits, classes, layout, log, show_progress)


def find_array_files(folder: str | PathLike) -> dict[str, tuple[Path, Path]]:
    """Find the `.npy` file and the pickle of each split, by the words train, val or test in their names.

    Raises:
        DatasetFormatError: The folder is missing or holds no arrays, or a split has not exactly one of each.
    """
    folder = Path(folder)
    expected = "expected the folder that holds the arrays, or a dictionary with the files of each split"
    if folder.is_file():
        raise DatasetFormatError(f"{folder}: this is a file; {expected}.")
    if not folder.is_dir():
        raise DatasetFormatError(f"{folder}: no such folder; {expected}.")
    found: dict[str, tuple[Path, Path]] = {}
    for split in dict.fromkeys(SPLIT_ALIASES.values()):
        arrays, names = (
            [path for path in sorted(folder.glob(pattern)) if split in _splits_in_name(path.stem)]
            for pattern in ("*.npy", "*.pkl")
        )
        if not arrays and not names:
            continue
        if len(arrays) != 1 or len(names) != 1:
            listed = ", ".join(path.name for path in arrays + names)
            raise DatasetFormatError(
                f"{folder}: expected one .npy file and one .pkl file of split {split!r}, found {listed}; "
                "name the files of each split instead of the folder."
            )
        found[split] = arrays[0], names[0]
    if not found:
        raise DatasetFormatError(
            f"{folder}: no arrays found; expected files such as train_data.npy and train_label.pkl."
        )
    return found


def _splits_in_name(name: str) -> set[str]:
    words = re.split(r"[^a-z]+", name.lower())
    return {SPLIT_ALIASES[word] for word in words if word in SPLIT_ALIASES}


def _read_pyskl(
    path: Path, num_labels: int, keypoint_layout: str | None, image_size: tuple[int, int] | None, log: ProblemLog
) -> tuple[dict[str, list[_Clip]], str]:
    """Check a PYSKL file: the clips of each split, which share their arrays with nothing else, and the layout."""
    _check_is_pickle(path)
    pack = load_pickle(path)
    if not isinstance(pack, dict) or not isinstance(pack.get("split"), dict):
        raise DatasetFormatError(
            f"{path}: expected a dictionary with the keys 'split' (a dictionary) and 'annotations'."
        )
    annotations = pack.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise DatasetFormatError(
            f"{path}: expected 'annotations' to be a list of dictionaries, got {_show(annotations)}."
        )
    for name in pack["split"]:
        _check_split_name(name, str(path))
    counts = Counter(
        annotation["keypoint"].shape[2]
        for annotation in annotations
        if isinstance(annotation, dict) and _is_numeric(annotation.get("keypoint"), 4)
    )
    if not counts:
        raise DatasetFormatError(f"{path}: no annotation has an array 'keypoint' of shape (M, T, K, 2).")
    layout = _choose_layout(counts.most_common(1)[0][0], keypoint_layout, str(path))
    clips, known = _check_annotations(annotations, num_labels, layout, image_size, log)
    if image_size is None:
        clips = _correct_sizes(clips, str(path))
    clips = _check_points(clips, str(path), log)
    return _assign_splits(pack["split"], {clip.clip_id: clip for clip in clips}, known, log), layout.name


def _check_is_pickle(path: Path) -> None:
    """Say what a path is that leads to another thing."""
    expected = "expected the file of a PYSKL pickle, such as imigue.pkl"
    if path.is_dir():
        raise DatasetFormatError(f"{path}: this is a folder; {expected} (load_miga_arrays reads folders of arrays).")
    if not path.is_file():
        raise DatasetFormatError(f"{path}: no such file; {expected}.")
    if zipfile.is_zipfile(path):
        raise DatasetFormatError(f"{path}: this is a zip archive; {expected}: unpack it first.")


def _check_annotations(
    annotations: list[Any],
    num_labels: int,
    layout: KeypointLayout,
    image_size: tuple[int, int] | None,
    log: ProblemLog,
) -> tuple[list[_Clip], set[str]]:
    """The clips without problems, and the names of all."""
    clips: list[_Clip] = []
    known: set[str] = set()
    num_crowded = 0
    for index, annotation in enumerate(annotations):
        problems = list(_find_annotation_problems(annotation, num_labels, layout, image_size is None))
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if isinstance(name, str):
            if name in known:
                problems.append("another annotation has the same 'frame_dir'")
            known.add(name)
        for problem in problems:
            log.add(f"annotation {index} ({_show(name)}): {problem}.")
        if not problems:
            keypoint, score = annotation["keypoint"], annotation["keypoint_score"]
            height, width = annotation["img_shape"] if image_size is None else image_size[::-1]
            read = partial(_read_person, keypoint, score)
            clips.append(_make_clip(name, annotation["label"], (int(width), int(height)), read))
            num_crowded += len(keypoint) > 1
    _log_crowded(num_crowded, log.where)
    return clips, known


def _find_annotation_problems(
    annotation: Any, num_labels: int, layout: KeypointLayout, needs_size: bool
) -> Iterator[str]:
    if not isinstance(annotation, dict):
        yield f"expected a dictionary, got {_show(annotation)}"
        return
    missing = [key for key in ANNOTATION_KEYS if key not in annotation and (needs_size or key != "img_shape")]
    if missing:
        yield f"lacks {', '.join(map(repr, missing))}"
        return
    yield from _find_name_problems(annotation["frame_dir"], annotation["label"], num_labels)
    size = annotation.get("img_shape")
    if needs_size and not (isinstance(size, list | tuple) and len(size) == 2 and all(_is_integer(i, 1) for i in size)):
        yield f"expected 'img_shape' (height, width), got {_show(size)}"
    keypoint, score = annotation["keypoint"], annotation["keypoint_score"]
    if not _is_numeric(keypoint, 4) or keypoint.shape[3] != 2 or 0 in keypoint.shape:
        yield f"expected 'keypoint' (M, T, K, 2), got {_show(keypoint)}"
        return
    if keypoint.shape[2] != layout.num_keypoints:
        yield f"expected the {layout.num_keypoints} points of layout {layout.name!r}, got {_show(keypoint)}"
    if not _is_numeric(score, 3) or score.shape != keypoint.shape[:3]:
        yield f"expected 'keypoint_score' {keypoint.shape[:3]}, got {_show(score)}"
    elif not (_is_bounded(keypoint) and _is_bounded(score)):
        yield f"expected finite numbers below {MAX_VALUE:,} in 'keypoint' and 'keypoint_score'"
    if not _is_integer(annotation["total_frames"]) or annotation["total_frames"] != keypoint.shape[1]:
        yield f"'total_frames' is {_show(annotation['total_frames'])}, but 'keypoint' has {keypoint.shape[1]} frames"


def _find_name_problems(name: Any, label: Any, num_labels: int) -> Iterator[str]:
    if not isinstance(name, str) or not CLIP_NAME.fullmatch(name):
        yield f"expected a name <video>_<number>, such as 0187_0, got {_show(name)}"
    if not _is_integer(label, HIDDEN_LABEL, num_labels - 1):
        yield f"expected a label 0..{num_labels - 1}, or -1 for a hidden one, got {_show(label)}"


def _make_clip(name: Any, label: Any, size: tuple[int, int], read: Callable[[], np.ndarray]) -> _Clip:
    return _Clip(str(name), str(name).rpartition("_")[0], int(label), size, read)


def _is_integer(value: Any, minimum: int = 0, maximum: int = MAX_VALUE) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and minimum <= int(value) <= maximum


def _is_numeric(value: Any, num_dimensions: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim == num_dimensions


def _is_bounded(values: np.ndarray) -> bool:
    """Neither NaN nor infinite, nor so large that it becomes so in float32."""
    # float16 cannot hold the limit.
    return bool((np.abs(values) < np.float64(MAX_VALUE)).all())


def _show(value: Any) -> str:
    """A short text for a value of an untrusted file, whose own text could be endless."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} of shape {value.shape}"
    if isinstance(value, list | tuple) and len(value) <= 4 and not any(isinstance(i, list | tuple) for i in value):
        return f"({', '.join(map(_show, value))})"
    if isinstance(value, int) and value.bit_length() > 64:
        return "an integer of more than 64 bits"
    if value is None or isinstance(value, int | float | np.number):
        return str(value)
    return repr(str(value)[:60]) if isinstance(value, str) else f"a {type(value).__name__}"


def _read_person(keypoint: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(M, T, K, 2) and (M, T, K) -> (T, K, 3) of the person with the highest sum of scores."""
    person = score.sum(axis=(1, 2), dtype=np.float64).argmax()
    points = np.concatenate([keypoint[person], score[person][..., None]], axis=-1, dtype=np.float32)
    points[~valid_keypoints(points)] = 0
    return points


def _log_crowded(num_crowded: int, where: str) -> None:
    if num_crowded:
        logger.warning(
            "%s: %d clips show several people; the one with the highest sum of scores is taken.", where, num_crowded
        )


def _correct_sizes(clips: list[_Clip], where: str) -> list[_Clip]:
    """Replace 1920 x 1080 by 1280 x 720 if the points of these clips fit that."""
    suspects = [clip for clip in clips if clip.size == WRONG_SIZE]
    counts = sum((_count_points(clip.read(), IMIGUE_SIZE) for clip in suspects), start=np.zeros(5, int))
    num_points, num_inside = counts[0], counts[3]
    if num_points == 0 or num_inside < MIN_INSIDE_SHARE * num_points:
        return clips
    logger.warning(
        "%s: %d of %d annotations say img_shape (1080, 1920), but their points fit (720, 1280), which is taken "
        "instead; pass image_size if that is wrong.",
        *(where, len(suspects), len(clips)),
    )
    return [replace(clip, size=IMIGUE_SIZE) if clip.size == WRONG_SIZE else clip for clip in clips]


def _count_points(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How many points are valid, no pixels, at negative places, inside the frame, and far outside of it: (5,)."""
    x, y = points[points[..., 2] > 0][:, :2].T
    # Distance from the frame, in shares of its size; negative inside.
    outside = np.maximum(np.maximum(-x, x - size[0]) / size[0], np.maximum(-y, y - size[1]) / size[1])
    marks = (
        np.maximum(np.abs(x), np.abs(y)) <= MAX_NORMALIZED,
        np.minimum(x, y) < 0,
        outside <= 0,
        outside > FAR_OUTSIDE,
    )
    return np.array([len(x), *map(np.count_nonzero, marks)])


def _check_points(clips: list[_Clip], where: str, log: ProblemLog) -> list[_Clip]:
    """The clips whose points are where their frames are; none if the points of the file are no pixels at all."""
    if not clips:
        return []
    counts = [_count_points(clip.read(), clip.size) for clip in clips]
    num_points, num_normalized, num_negative = np.sum(counts, axis=0)[:3]
    problem = None
    if num_points == 0:
        problem = "no point has a score above 0"
    elif num_normalized >= MIN_NORMALIZED_SHARE * num_points:
        problem = f"the points are normalised to at most {MAX_NORMALIZED}"
    elif num_negative > MAX_NEGATIVE_SHARE * num_points:
        problem = f"{num_negative / num_points:.0%} of the points have negative coordinates, as if they were centred"
    if problem is not None:
        log.add(f"{where}: {problem}; expected x, y in pixels from the frame's upper left corner, and scores above 0.")
        return []
    kept = []
    for clip, (num_valid, *_, num_far) in zip(clips, counts, strict=True):
        if num_far > MAX_FAR_SHARE * num_valid:
            width, height = clip.size
            log.add(
                f"clip {clip.clip_id} of {where}: {num_far} of {num_valid} points lie far outside of the frame of "
                f"{width} x {height}."
            )
        else:
            kept.append(clip)
    return kept


def _choose_layout(num_keypoints: int, keypoint_layout: str | None, where: str) -> KeypointLayout:
    if keypoint_layout is None:
        try:
            return layout_from_count(num_keypoints)
        except ValueError as error:
            raise DatasetFormatError(f"{where}: {error}") from None
    layout = get_layout(keypoint_layout)
    if layout.num_keypoints != num_keypoints:
        raise DatasetFormatError(
            f"{where}: expected the {layout.num_keypoints} points of layout {layout.name!r}, got {num_keypoints}."
        )
    return layout


def _check_split_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not SPLIT_NAME.fullmatch(name):
        raise DatasetFormatError(f"{where}: expected letters, digits and _ as the name of a split, got {_show(name)}.")


def rename_splits(names: Iterable[str]) -> dict[str, str]:
    """The names under which the splits of a file are returned, such as validation for xsub_val.

    A name keeps its form if another one of the file has the same kind.
    """
    names = list(names)
    kinds = {name: SPLIT_ALIASES.get(name.lower().rpartition("_")[2]) for name in names}
    num_names = Counter(kinds.values())
    return {name: kind if kind is not None and num_names[kind] == 1 else name for name, kind in kinds.items()}


def _assign_splits(
    splits: dict[str, Any], clips: dict[str, _Clip], known: set[str], log: ProblemLog
) -> dict[str, list[_Clip]]:
    """The clips of each split under the split's final name."""
    assigned: dict[str, list[_Clip]] = {}
    used: set[str] = set()
    for original, name in rename_splits(splits).items():
        members = splits[original]
        if not isinstance(members, list | tuple | set) or not all(isinstance(member, str) for member in members):
            log.add(f"split {original!r}: expected a list of names of annotations, got {_show(members)}.")
            continue
        for member, count in Counter(members).items():
            if count > 1:
                log.add(f"split {original!r}: {_show(member)} is in it {count} times.")
            if member not in known:
                log.add(f"split {original!r}: no annotation is called {_show(member)}.")
        unique = dict.fromkeys(members)
        used.update(unique)
        assigned[name] = [clips[member] for member in unique if member in clips]
    for name in sorted(known - used):
        log.add(f"annotation {_show(name)}: it is in no split.")
    return assigned


def _open_array(path: Path) -> np.ndarray:
    """Map an array (N, 3, T, K, M) to memory; never unpickles."""
    if not path.is_file():
        raise DatasetFormatError(f"{path}: no such file; expected an array of keypoints.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # A broken header can fail in any way.
    except Exception as error:
        raise DatasetFormatError(f"{path}: cannot be read as an array of numbers ({error}).") from error
    if not _is_numeric(array, 5) or array.shape[1] != 3 or 0 in array.shape:
        raise DatasetFormatError(
            f"{path}: expected numbers (N, 3, T, K, M), such as (N, 3, 90, 22, 1), got {_show(array)}."
        )
    return array


def _read_names(path: Path, num_clips: int) -> list[tuple[Any, Any]]:
    """Read the pickled `(names, labels)` of an array as pairs."""
    content = load_pickle(path)
    columns = content if isinstance(content, list | tuple) and len(content) == 2 else ()
    if not columns or not all(
        isinstance(c, list | tuple) or (isinstance(c, np.ndarray) and c.ndim == 1) for c in columns
    ):
        raise DatasetFormatError(f"{path}: expected the two lists (names, labels), got {_show(content)}.")
    names, labels = columns
    if not len(names) == len(labels) == num_clips:
        raise DatasetFormatError(
            f"{path}: expected a name and a label for each of the {num_clips} clips of the array, got {len(names)} "
            f"names and {len(labels)} labels."
        )
    return list(zip(names, labels, strict=True))


def _check_clips(
    array: np.ndarray,
    names_labels: list[tuple[Any, Any]],
    num_labels: int,
    size: tuple[int, int],
    file_name: str,
    log: ProblemLog,
) -> list[_Clip]:
    """The clips of an array without problems."""
    clips: dict[str, _Clip] = {}
    num_crowded = 0
    for index, (name, label) in enumerate(names_labels):
        problems = list(_find_name_problems(name, label, num_labels))
        if isinstance(name, str) and name in clips:
            problems.append("another clip has the same name")
        if not _is_bounded(array[index]):
            problems.append(f"expected finite numbers below {MAX_VALUE:,}")
        for problem in problems:
            log.add(f"{file_name}, clip {index} ({_show(name)}): {problem}.")
        if not problems:
            clips[name] = _make_clip(name, label, size, partial(_read_padded, array, index))
            num_crowded += int(array[index].any(axis=(0, 1, 2)).sum()) > 1
    _log_crowded(num_crowded, file_name)
    return list(clips.values())


def _read_padded(array: np.ndarray, index: int) -> np.ndarray:
    """(N, 3, T_padded, K, M) -> (T, K, 3) of the person with the highest sum of scores, without zeros at the end."""
    block = np.asarray(array[index], dtype=np.float32)
    person = block[2].sum(axis=(0, 1), dtype=np.float64).argmax()
    # (3, T_padded, K) -> (T_padded, K, 3)
    points = block[..., person].transpose(1, 2, 0).copy()
    frames = np.flatnonzero(points.any(axis=(1, 2)))
    points = points[: frames[-1] + 1 if len(frames) else 1]
    points[~valid_keypoints(points)] = 0
    return points


def _hide_placeholders(clips: list[_Clip], where: str) -> list[_Clip]:
    """Hide the labels of a test split that are all the same."""
    labels = {clip.label for clip in clips}
    if len(clips) < 2 or len(labels) > 1 or labels == {HIDDEN_LABEL}:
        return clips
    logger.warning(
        "%s: all %d labels of the test split are %d; they are taken as placeholders and become -1.",
        *(where, len(clips), clips[0].label),
    )
    return [replace(clip, label=HIDDEN_LABEL) for clip in clips]


def _build(
    splits: dict[str, list[_Clip]], classes: _Classes, layout: str, log: ProblemLog, show_progress: bool
) -> datasets.DatasetDict:
    """Raise or log the problems, and convert the clips."""
    log.raise_if_any()
    if log.problems:
        logger.warning("%s", DatasetFormatError(log.problems, log.where))
    filled = {name: clips for name, clips in splits.items() if clips}
    if not filled:
        raise DatasetFormatError(log.problems or "no split has a clip", log.where)
    if "test" in filled:
        filled["test"] = _hide_placeholders(filled["test"], log.where)
    splits.clear()
    total = sum(map(len, filled.values()))
    with tqdm(total=total, desc="Convert clips", unit="clip", disable=not show_progress) as bar:
        return datasets.DatasetDict(
            {name: _build_split(name, filled.pop(name), classes, layout, bar) for name in list(filled)}
        )


def _build_split(name: str, clips: list[_Clip], classes: _Classes, layout: str, bar: tqdm) -> datasets.Dataset:
    features = clip_features(classes.label_names, classes.group_names, layout)
    waiting, chunks = deque(clips), []
    clips.clear()
    while waiting:
        # A clip's source is let go as soon as it is converted, so that only a chunk is held twice.
        rows = [_make_row(waiting.popleft(), classes, layout) for _ in range(min(ROWS_PER_CHUNK, len(waiting)))]
        columns = {column: [row[column] for row in rows] for column in features}
        chunks.append(datasets.Dataset.from_dict(columns, features=features))
        bar.update(len(rows))
    return datasets.concatenate_datasets(chunks, split=datasets.NamedSplit(name))


def _make_row(clip: _Clip, classes: _Classes, layout: str) -> dict[str, Any]:
    keypoints = clip.read()
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "start_frame": 0,
        "end_frame": len(keypoints) - 1,
        "fps": None,
        "label": clip.label,
        "group": classes.group_of(clip.label),
        "subject": None,
        "emotion": None,
        "width": clip.size[0],
        "height": clip.size[1],
        "video": None,
        "video_start_frame": 0,
        "keypoints": keypoints,
        "keypoints_valid": keypoints[..., 2] > 0,
        "keypoint_layout": layout,
    }


__all__ = ["find_array_files", "load_miga_arrays", "load_pickle", "load_pyskl", "rename_splits"]
