"""Synthetic videos in every layout that the readers of this package know, with the faults of the real files.

    python -m clipmg_hf.data.synthetic_layouts --layout oulu --output DIR
    python -m clipmg_hf.data.synthetic_layouts --layout miga --output DIR --num-videos 6 --faults empty_xlsx

The default, 4 videos of 10 clips at 160 x 90, takes a few seconds, most of them for the pictures. Videos, keypoints
and clips are those of `clipmg_hf.data.synthetic`; names, columns and headers are those of the real data sets, and
everything else is made up.

| layout | what is written |
|---|---|
| miga | MiGA packs of iMiGUE: `_label.csv`, `_light_hand.csv`, `_openpose.xlsx`, mp4 |
| miga-2023 | the packs of 2023: the same without RGB and with the validation videos among the training videos |
| oulu | Oulu release of iMiGUE: one label file with subjects and outcome, xlsx, mp4 (one per video or per clip) |
| openpose-json | Oulu release with OpenPose's JSON in place of the xlsx |
| smg | MiGA packs of SMG: Kinect skeletons, labels, mp4 |
| ma52 | MA-52: one mp4 per clip and lists of labels |
| pyskl | one pickle of clips of 22 points, as PYSKL reads it |
| miga-arrays | `(N, 3, 90, 22, 1)` arrays and pickles of names and labels |

N is the number of frames of a video, T that of a clip.
"""

import argparse
import dataclasses
import itertools
import json
import pickle
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipmg_hf.console import run
from clipmg_hf.data.synthetic import (
    SyntheticConfig,
    SyntheticVideo,
    VideoPlan,
    generate_video,
    light_hand_rows,
    miga_label_rows,
    plan_clips,
    plan_dataset,
    raw_class,
    write_lines,
    write_mp4,
    write_whole,
    write_xlsx,
)
from clipmg_hf.processing import convert_keypoints, write_openpose


Array = NDArray[Any]

LAYOUTS = ("miga", "miga-2023", "oulu", "smg", "ma52", "pyskl", "miga-arrays", "openpose-json")
_POSE_FAULT, _SHEET_FAULTS, _VIDEO_FAULT = "frames_without_person", ("empty_xlsx", "swapped_hands"), "one_frame_short"
FAULTS: dict[str, tuple[str, ...]] = {
    "miga": (*_SHEET_FAULTS, _POSE_FAULT, "last_clip_missing", _VIDEO_FAULT),
    "miga-2023": (*_SHEET_FAULTS, _POSE_FAULT, "last_clip_missing"),
    "oulu": (*_SHEET_FAULTS, _POSE_FAULT, _VIDEO_FAULT),
    "smg": (_POSE_FAULT, _VIDEO_FAULT),
    "ma52": (),
    "pyskl": (_POSE_FAULT,),
    "miga-arrays": (_POSE_FAULT,),
    "openpose-json": (_POSE_FAULT, "two_people", _VIDEO_FAULT),
}
# Faults by the files that they change; the label files have the others.
_SKELETON_FAULTS = {*_SHEET_FAULTS, _POSE_FAULT, "two_people"}
_OPTIONS = {
    "light_hand_header": ("miga", "miga-2023"),
    "trimmed_rgb": ("oulu", "openpose-json"),
    "first_frame": ("smg",),
    "wrong_image_shape": ("pyskl",),
}
_SKELETONS_ALONE = ("pyskl", "miga-arrays")
# One frame in so many has no person, or two people; frame 0 is the first.
NO_PERSON_PERIOD, TWO_PEOPLE_PERIOD = 10, 4

SHORT_PARTS = {"train": "train", "validate": "val", "test": "test"}
_OULU_RGB = {
    "train": "iMiGUE_RGB_Phase1/imigue_rgb_train",
    "validate": "iMiGUE_RGB_Phase1/imigue_rgb_validate",
    "test": "iMiGUE_RGB_Phase2/imigue_rgb_test",
}
# Published ids of iMiGUE: videos to validate, videos in no pack, and the first ten subjects on each side of the
# cross-subject protocol. They are written here again, apart from the readers that are tested with them.
_VALIDATION_VIDEOS, _ABSENT_VIDEOS = (1, 2, 3, 4, 6, 7, 8, 9, 10, 11), (218, 319, 347, 348)
_TRAIN_SUBJECTS, _TEST_SUBJECTS = (2, 4, 5, 6, 9, 10, 12, 13, 14, 15), (1, 3, 7, 8, 11, 16, 19, 24, 26, 27)
_SMG_PHASES = {"train": 1, "validate": 1, "test": 2}
OULU_HEADER = (
    "video_id,label_id,start_time,start_frame,end_time,end_frame,class,subject_id,subject_gender,subject_nationality,"
    "win_or_lose"
)
OULU_LABELS, OULU_SKELETONS = "Label/labels_20200831.csv", "mg_skeleton_only"
# The class that stands for each canonical one; SMG has no counterpart of some.
SMG_CLASSES = {2: 12, 3: 1, 11: 5, 16: 2, 19: 4, 22: 7, 25: 15, 28: 11, 30: 0, 31: 16}
MA52_CLASSES = {2: 39, 3: 38, 11: 32, 16: 11, 19: 0, 22: 12, 25: 23, 28: 5, 30: 1, 31: 48}
NUM_MA52_CLASSES = 52
ARRAY_FRAMES = 90
WRONG_IMAGE_SHAPE = (1080, 1920)


@dataclass(frozen=True)
class _Options:
    """What `write_layout` was asked for."""

    config: SyntheticConfig
    rgb: bool
    skeletons: bool
    faults: frozenset[str]
    light_hand_header: bool
    trimmed_rgb: bool
    first_frame: int
    wrong_image_shape: bool


_Videos = Iterable[tuple[VideoPlan, SyntheticVideo]]


def default_config(layout: str) -> SyntheticConfig:
    """A small data set: 2 videos to train, 1 to validate and 1 to test, 160 x 90, at the layout's frame rate."""
    return SyntheticConfig(
        num_train_subjects=2,
        num_validate_subjects=1,
        num_test_subjects=1,
        clips_per_video=10,
        max_clip_frames=24,
        width=160,
        height=90,
        fps=28 if layout == "smg" else 25,
    )


def write_layout(
    root: str | Path,
    layout: str,
    config: SyntheticConfig | None = None,
    *,
    rgb: bool = True,
    skeletons: bool = True,
    faults: Collection[str] = (),
    light_hand_header: bool = False,
    trimmed_rgb: bool = False,
    first_frame: int = 0,
    wrong_image_shape: bool = False,
    show_progress: bool = False,
) -> Path:
    """Write a synthetic data set in one of the layouts; `plan_layout` says what is in it.

    Equal arguments give equal bytes. An interrupted call leaves the folder empty.

    Args:
        root (`str` or `Path`): Folder to write to; it must be absent or empty.
        layout (`str`): One of `LAYOUTS`.
        config (`SyntheticConfig`, *optional*): `default_config(layout)` by default.
        rgb, skeletons (`bool`, defaults to `True`): Which files to write where the layout has both; without RGB no
            frame is rendered.
        faults (`Collection[str]`): Faults of the real files, of those that `FAULTS` has for the layout:
            `"empty_xlsx"`: the sheet of the first video has no row;
            `"frames_without_person"`: frames 0, 10, 20, ... of every video are zeros;
            `"two_people"`: frames 0, 4, 8, ... list a smaller second person, in frames 0, 8, 16, ... before the first;
            `"last_clip_missing"`: the label file of the first test video lacks its last row;
            `"swapped_hands"`: the right hand comes before the left one;
            `"one_frame_short"`: every mp4 has one frame fewer than its skeleton has rows.
        light_hand_header (`bool`, defaults to `False`): MiGA: `_light_hand.csv` starts with a header.
        trimmed_rgb (`bool`, defaults to `False`): Oulu: one mp4 per clip.
        first_frame (`int`, defaults to 0): SMG: number of the first frame in the label files, 0 or 1. With 1 the last
            clip of every video lasts until its last frame, as nothing else tells the two apart.
        wrong_image_shape (`bool`, defaults to `False`): PYSKL: `img_shape` is (1080, 1920) whatever the frames are.
        show_progress (`bool`, defaults to `False`): Show a bar of videos.

    Returns:
        `Path`: `root`.

    Raises:
        ValueError: An unknown layout; a fault or option that the layout, or what of it is written, does not have.
        FileExistsError: There is something in `root`.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    options = _Options(
        config=config or default_config(layout),
        rgb=rgb,
        skeletons=skeletons,
        faults=frozenset(faults),
        light_hand_header=light_hand_header,
        trimmed_rgb=trimmed_rgb,
        first_frame=first_frame,
        wrong_image_shape=wrong_image_shape,
    )
    _check_options(layout, options)
    root = Path(root)
    if root.is_dir() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty; expected a new folder. Delete what a killed run has left.")
    plans = plan_layout(layout, options.config)
    bar = tqdm(plans, desc=f"Write {layout}", unit="video", disable=not show_progress)
    videos = ((plan, generate_video(options.config, plan.subject, plan.video_id)) for plan in bar)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".clipmg_") as staging:
        _WRITERS[layout](Path(staging), videos, options)
        for path in Path(staging).iterdir():
            path.replace(root / path.name)
    return root


def _check_options(layout: str, options: _Options) -> None:
    """Refuse what would change nothing."""
    for name, layouts in _OPTIONS.items():
        if getattr(options, name) and layout not in layouts:
            raise ValueError(f"{name} is for the layouts {', '.join(layouts)}; got {layout!r}.")
    if options.first_frame not in (0, 1):
        raise ValueError(f"first_frame is {options.first_frame}; expected 0 or 1.")
    if layout in _SKELETONS_ALONE and not options.skeletons:
        raise ValueError(f"The layout {layout!r} holds nothing but skeletons; expected skeletons=True.")
    possible = set(FAULTS[layout])
    if not options.skeletons:
        possible -= _SKELETON_FAULTS
    if not options.rgb or options.trimmed_rgb:
        possible -= {_VIDEO_FAULT}
    if not options.config.num_test_subjects:
        possible -= {"last_clip_missing"}
    if unknown := sorted(options.faults - possible):
        raise ValueError(
            f"faults: {', '.join(unknown)}; what is written in the layout {layout!r} can have: "
            f"{', '.join(sorted(possible)) or 'none'}."
        )


def plan_layout(layout: str, config: SyntheticConfig) -> list[VideoPlan]:
    """All videos that `write_layout` writes in a layout, by part.

    Those of iMiGUE have ids and subjects that agree with its published parts: ids 0001 to 0011 without 0005 are to
    validate, and subjects of the test part are not among those that the cross-subject protocol trains on. After ten
    videos on either side the subjects come again.
    """
    plans = plan_dataset(config)
    if layout in ("smg", "ma52"):
        return plans
    validation_ids = iter(_VALIDATION_VIDEOS)
    other_ids = (number for number in itertools.count(1) if number not in (*_VALIDATION_VIDEOS, *_ABSENT_VIDEOS))
    train_subjects, test_subjects = itertools.cycle(_TRAIN_SUBJECTS), itertools.cycle(_TEST_SUBJECTS)
    renumbered = []
    for plan in plans:
        video = next(validation_ids, None) if plan.split == "validate" else None
        video = next(other_ids) if video is None else video
        subject = next(test_subjects if plan.split == "test" else train_subjects)
        renumbered.append(VideoPlan(f"{video:04d}", subject, plan.split, *plan_clips(config, video)))
    return renumbered


def _write_recording(path: Path, video: SyntheticVideo, options: _Options) -> None:
    """Write a whole video, or all of it but the last frame."""
    frames = itertools.islice(video.frames(), len(video) - (_VIDEO_FAULT in options.faults))
    write_whole(path, lambda partial: write_mp4(partial, frames, options.config))


def _write_clip(path: Path, video: SyntheticVideo, start: int, end: int, options: _Options) -> None:
    """Write frames `start` to `end` as a video of their own."""
    frames = (video.frame(index) for index in range(start, end + 1))
    write_whole(path, lambda partial: write_mp4(partial, frames, options.config))


def _skeleton(video: SyntheticVideo, options: _Options) -> Array:
    """The keypoints (N, 137, 3) as the files have them."""
    keypoints = video.keypoints.copy()
    if _POSE_FAULT in options.faults:
        keypoints[::NO_PERSON_PERIOD] = 0.0
    if "swapped_hands" in options.faults:
        keypoints[:, 95:] = np.roll(keypoints[:, 95:], 21, axis=1)
    return keypoints


def _write_sheet(path: Path, keypoints: Array, is_first: bool, options: _Options) -> None:
    """Write keypoints (N, 137, 3) as a workbook."""
    rows = keypoints.reshape(len(keypoints), -1)
    rows = rows[:0] if is_first and "empty_xlsx" in options.faults else rows
    write_whole(path, lambda partial: write_xlsx(partial, rows))


def _light_hand_header() -> str:
    return ",".join(["index", *(f"{axis}{point}" for point in range(35) for axis in "xyc")])


def _write_miga(root: Path, videos: _Videos, options: _Options) -> None:
    """MiGA's packs of iMiGUE."""
    faulty_test = "last_clip_missing" in options.faults
    for index, (plan, video) in enumerate(videos):
        files = plan.files(root)
        if options.skeletons:
            keypoints = _skeleton(video, options)
            _write_sheet(files["openpose"], keypoints, index == 0, options)
            header = [_light_hand_header()] if options.light_hand_header else []
            write_lines(files["light_hand"], header + light_hand_rows(keypoints))
        labels = miga_label_rows(plan)
        if plan.split == "test" and faulty_test:
            labels, faulty_test = labels[:-1], False
        write_lines(files["label"], labels)
        if options.rgb:
            _write_recording(files["video"], video, options)


def _write_miga_2023(root: Path, videos: _Videos, options: _Options) -> None:
    """The packs of 2023: what later became the validation videos is in the training part, and there is no RGB."""
    joined = (
        (dataclasses.replace(plan, split="train") if plan.split == "validate" else plan, video)
        for plan, video in videos
    )
    _write_miga(root, joined, dataclasses.replace(options, rgb=False))


def _write_oulu(root: Path, videos: _Videos, options: _Options) -> None:
    """The Oulu release with workbooks."""
    _write_oulu_release(root, videos, options, _write_oulu_sheet)


def _write_openpose_json(root: Path, videos: _Videos, options: _Options) -> None:
    """The Oulu release with OpenPose's JSON."""
    _write_oulu_release(root, videos, options, _write_json_frames)


_SkeletonWriter = Callable[[Path, str, Array, bool, _Options], None]


def _write_oulu_release(root: Path, videos: _Videos, options: _Options, write_skeleton: _SkeletonWriter) -> None:
    rows = [OULU_HEADER]
    for index, (plan, video) in enumerate(videos):
        video_id = plan.video_id
        clips = [(raw_class(label), start, end) for label, start, end in plan.labels]
        rows += oulu_rows(int(video_id), plan.subject, clips, options.config.fps)
        if options.skeletons:
            folder = root / OULU_SKELETONS / video_id
            write_skeleton(folder, video_id, _skeleton(video, options), index == 0, options)
        folder = root / _OULU_RGB[plan.split] / video_id
        if options.rgb and options.trimmed_rgb:
            for number, (_, start, end) in enumerate(plan.labels, start=1):
                _write_clip(folder / f"{video_id}_{number}.mp4", video, start, end, options)
        elif options.rgb:
            _write_recording(folder / f"{video_id}.mp4", video, options)
    write_lines(root / OULU_LABELS, rows)


def oulu_rows(video: int, subject: int, clips: Iterable[tuple[int, int, int]], fps: int = 25) -> list[str]:
    """The rows of one video in the Oulu release's label file.

    Args:
        video, subject (`int`): Numbers of the video and of its subject, whose gender and country are made up.
        clips (`Iterable[tuple[int, int, int]]`): Raw class, first and last frame.
        fps (`int`, defaults to 25): Frames per second, for the times.
    """
    person = f"{subject},{'FM'[subject % 2]},{('Atlantis', 'Lilliput', 'Erewhon')[subject % 3]}"
    outcome = "Loss" if video % 3 == 0 else "Win"
    return [
        f"{video},{number},{start / fps:.4f},{start},{end / fps:.4f},{end},{label},{person},{outcome}"
        for number, (label, start, end) in enumerate(clips, start=1)
    ]


def _write_oulu_sheet(folder: Path, video_id: str, keypoints: Array, is_first: bool, options: _Options) -> None:
    _write_sheet(folder / f"{video_id}_2.xlsx", keypoints, is_first, options)


def _write_json_frames(folder: Path, video_id: str, keypoints: Array, _: bool, options: _Options) -> None:
    """One file per frame, some of them with a second person."""
    write_openpose(folder, keypoints, video_id)
    if "two_people" not in options.faults:
        return
    for index in range(0, len(keypoints), TWO_PEOPLE_PERIOD):
        if keypoints[index].any():
            path = folder / f"{video_id}_{index:012d}_keypoints.json"
            _add_person(path, before=index % (2 * TWO_PEOPLE_PERIOD) == 0)


def _add_person(path: Path, before: bool) -> None:
    """Add a copy of the person at 0.4 times the size, towards the frame's top left corner, to a frame's file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    (person,) = content["people"]
    other = dict(person)
    for field in [name for name in person if name.endswith("_2d")]:
        points = np.array(person[field]).reshape(-1, 3) * (0.4, 0.4, 1.0)
        other[field] = points.round(3).ravel().tolist()
    content["people"] = [other, person] if before else [person, other]
    text = json.dumps(content, separators=(",", ":"))
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _write_smg(root: Path, videos: _Videos, options: _Options) -> None:
    """MiGA's packs of SMG."""
    config, base = options.config, options.first_frame
    for plan, video in videos:
        sample = f"Sample{plan.video_id}"
        phase = _SMG_PHASES[plan.split]
        folder = root / f"smg_data_phase{phase}" / f"smg_skeleton_{plan.split}" / sample
        clips = [[SMG_CLASSES[label] + 1, start + base, end + base] for label, start, end in plan.labels]
        if base == 1:
            clips[-1][2] = len(video)
        write_lines(folder / f"{sample}_finelabels.csv", (",".join(map(str, clip)) for clip in clips))
        write_lines(folder / f"{sample}_data.csv", [f"{len(video)},{config.fps},4500"])
        if options.skeletons:
            joints = kinect_skeleton(video.clean_keypoints, config.width, config.height)
            if _POSE_FAULT in options.faults:
                joints[::NO_PERSON_PERIOD] = 0.0
            rows = joints.reshape(len(joints), -1).tolist()
            write_lines(folder / f"{sample}_skeleton.csv", (",".join(f"{v:.6g}" for v in row) for row in rows))
        if options.rgb:
            folder = root / f"SMG_RGB_Phase{phase}" / f"smg_rgb_{plan.split}" / sample
            _write_recording(folder / f"{sample}_color.mp4", video, options)


# For each Kinect joint: the openpose-137 points whose mean it is, the joint that its bone comes from, and its distance
# from the shoulders towards the camera in metres.
_KINECT_JOINTS: tuple[tuple[tuple[int, ...], int, float], ...] = (
    ((8,), 0, 0.0),  # SpineBase
    ((1, 8), 0, 0.0),  # SpineMid
    ((1, 0), 20, 0.0),  # Neck
    ((17, 18), 2, 0.02),  # Head
    ((5,), 20, 0.0),  # ShoulderLeft
    ((6,), 4, 0.08),  # ElbowLeft
    ((7,), 5, 0.2),  # WristLeft
    ((95, 104), 6, 0.22),  # HandLeft
    ((2,), 20, 0.0),  # ShoulderRight
    ((3,), 8, 0.08),  # ElbowRight
    ((4,), 9, 0.2),  # WristRight
    ((116, 125), 10, 0.22),  # HandRight
    ((12,), 0, 0.0),  # HipLeft
    ((13,), 12, 0.3),  # KneeLeft
    ((14,), 13, 0.2),  # AnkleLeft
    ((19, 20), 14, 0.3),  # FootLeft
    ((9,), 0, 0.0),  # HipRight
    ((10,), 16, 0.3),  # KneeRight
    ((11,), 17, 0.2),  # AnkleRight
    ((22, 23), 18, 0.3),  # FootRight
    ((1,), 1, 0.0),  # SpineShoulder
    ((107,), 7, 0.24),  # HandTipLeft
    ((99,), 7, 0.23),  # ThumbLeft
    ((128,), 11, 0.24),  # HandTipRight
    ((120,), 11, 0.23),  # ThumbRight
)
# Focal lengths and centres of Kinect v2 in pixels: colour for a frame 1920 wide, depth 512 x 424.
_COLOR_FOCAL, _DEPTH_FOCAL, _DEPTH_CENTER = 1081.0, 365.0, np.array([256.0, 212.0])
_SHOULDER_WIDTH = 0.38  # metres


def kinect_skeleton(points: Array, width: int, height: int) -> Array:
    """Kinect v2 joints of a body whose keypoints are known.

    Args:
        points (`numpy.ndarray` of shape `(N, 137, 2)`): Noise-free openpose-137 points in pixels of the frame.
        width, height (`int`): Size of the frame in pixels.

    Returns:
        `numpy.ndarray` float64 of shape `(N, 25, 11)`: world x (right), y (up), z (away from the camera) in metres;
        orientation of the bone as a unit quaternion x, y, z, w; x, y in pixels of the depth image (512 x 424); x, y
        in pixels of the frame. The two cameras share one optical axis.
    """
    points = points.astype(np.float64)
    color = np.stack([points[:, list(members)].mean(1) for members, _, _ in _KINECT_JOINTS], 1)  # (N, 25, 2)
    focal = _COLOR_FOCAL * width / 1920
    shoulder = np.linalg.norm(points[:, 5] - points[:, 2], axis=1).mean()
    depth = _SHOULDER_WIDTH * focal / shoulder - np.array([ahead for *_, ahead in _KINECT_JOINTS])
    ray = (color - (width / 2, height / 2)) / focal
    world = np.stack([ray[..., 0] * depth, -ray[..., 1] * depth, np.broadcast_to(depth, ray.shape[:2])], -1)
    bone = world - world[:, [parent for _, parent, _ in _KINECT_JOINTS]]
    half_angle = np.arctan2(-bone[..., 0], bone[..., 1]) / 2  # turn in the picture, from upright
    zeros = np.zeros_like(half_angle)
    orientation = np.stack([zeros, zeros, np.sin(half_angle), np.cos(half_angle)], -1)
    return np.concatenate([world, orientation, _DEPTH_CENTER + _DEPTH_FOCAL * ray, color], -1)


def _write_ma52(root: Path, videos: _Videos, options: _Options) -> None:
    """MA-52: trimmed clips."""
    lists: dict[str, list[str]] = {part: [] for part in SHORT_PARTS.values()}
    for plan, video in videos:
        part = SHORT_PARTS[plan.split]
        for number, (label, start, end) in enumerate(plan.labels, start=1):
            name = f"{plan.subject:04d}_01_{number:04d}.mp4"
            lists[part].append(f"{name} {0 if part == 'test' else MA52_CLASSES[label]}")
            if options.rgb:
                _write_clip(root / f"videos_{part}" / name, video, start, end, options)
    for part, lines in lists.items():
        write_lines(root / f"{part}_list_videos.txt", lines)
    names = [f"{label}\tsynthetic action {label:02d}" for label in range(NUM_MA52_CLASSES)]
    write_lines(root / "label_name.txt", names)


def _imigue_22_clips(videos: _Videos, options: _Options) -> Iterator[tuple[str, str, int, Array]]:
    """Part, name, label and keypoints (T, 22, 3) of every clip; labels of the test part are a placeholder 0."""
    for plan, video in videos:
        keypoints = convert_keypoints(_skeleton(video, options), "openpose-137", "imigue-22")
        for index, (label, start, end) in enumerate(plan.labels):
            label = 0 if plan.split == "test" else label
            yield SHORT_PARTS[plan.split], f"{plan.video_id}_{index}", label, keypoints[start : end + 1]


def _write_pyskl(root: Path, videos: _Videos, options: _Options) -> None:
    """The pickle of PYSKL."""
    image_shape = WRONG_IMAGE_SHAPE if options.wrong_image_shape else (options.config.height, options.config.width)
    split: dict[str, list[str]] = {}
    annotations = []
    for part, name, label, keypoints in _imigue_22_clips(videos, options):
        split.setdefault(part, []).append(name)
        annotations.append(
            {
                "frame_dir": name,
                "label": label,
                "img_shape": image_shape,
                "total_frames": len(keypoints),
                "keypoint": np.ascontiguousarray(keypoints[None, ..., :2]),  # (T, K, 3) -> (1, T, K, 2)
                "keypoint_score": np.ascontiguousarray(keypoints[None, ..., 2]),
            }
        )
    _write_pickle(root / "imigue_pyskl.pkl", {"split": split, "annotations": annotations})


def _write_miga_arrays(root: Path, videos: _Videos, options: _Options) -> None:
    """The challenge's arrays: clips are cut, or filled up with zeros, to 90 frames."""
    parts: dict[str, list[tuple[str, int, Array]]] = {}
    for part, name, label, keypoints in _imigue_22_clips(videos, options):
        parts.setdefault(part, []).append((name, label, keypoints))
    for part, clips in parts.items():
        names, labels, points = zip(*clips, strict=True)
        data = np.zeros((len(clips), 3, ARRAY_FRAMES, 22, 1), dtype=np.float32)
        for row, clip in zip(data, points, strict=True):
            row[:, : len(clip), :, 0] = clip[:ARRAY_FRAMES].transpose(2, 0, 1)  # (T, K, 3) -> (3, T, K)
        _write_array(root / f"{part}_data_joint.npy", data)
        _write_pickle(root / f"{part}_label.pkl", (list(names), list(labels)))


def _write_array(path: Path, values: Array) -> None:
    def write(partial: Path) -> None:
        # Given a name, numpy would append its own suffix.
        with partial.open("wb") as file:
            np.save(file, values)

    write_whole(path, write)


def _write_pickle(path: Path, content: Any) -> None:
    write_whole(path, lambda partial: partial.write_bytes(pickle.dumps(content, protocol=4)))


_WRITERS: dict[str, Callable[[Path, _Videos, _Options], None]] = {
    "miga": _write_miga,
    "miga-2023": _write_miga_2023,
    "oulu": _write_oulu,
    "smg": _write_smg,
    "ma52": _write_ma52,
    "pyskl": _write_pyskl,
    "miga-arrays": _write_miga_arrays,
    "openpose-json": _write_openpose_json,
}


def write_index(root: str | Path, num_videos: int = 359, num_clips: int = 18_498, seed: int = 0) -> Path:
    """Write the Oulu layout at its published size without contents, for tests of scale.

    Classes, intervals and the share of clips of each video are random, subjects are 1 to 72 in turn, and every
    workbook has no row.

    Args:
        root (`str` or `Path`): Folder to write to.
        num_videos, num_clips (`int`): Every video has at least one clip.
        seed (`int`, defaults to 0): Of everything random.

    Returns:
        `Path`: `root`.
    """
    if not 1 <= num_videos <= min(num_clips, 9999):
        raise ValueError(f"num_videos is {num_videos}; expected 1 to 9999 and at most num_clips={num_clips}.")
    root, rng = Path(root), np.random.default_rng(seed)
    counts = 1 + rng.multinomial(num_clips - num_videos, rng.dirichlet(np.full(num_videos, 4.0)))
    rows = [OULU_HEADER]
    for video, count in enumerate(counts.tolist(), start=1):
        labels = [raw_class(label) for label in rng.integers(32, size=count).tolist()]
        starts = np.sort(rng.integers(15_000, size=count))
        ends = starts + rng.integers(4, 150, size=count)
        clips = zip(labels, starts.tolist(), ends.tolist(), strict=True)
        rows += oulu_rows(video, 1 + (video - 1) % 72, clips)
        sheet = root / OULU_SKELETONS / f"{video:04d}" / f"{video:04d}_2.xlsx"
        write_whole(sheet, lambda partial: write_xlsx(partial, np.zeros((0, 411))))
    write_lines(root / OULU_LABELS, rows)
    return root


def main() -> None:
    """Command line."""
    faults = "\n".join(f"  {layout}: {', '.join(names) or 'none'}" for layout, names in FAULTS.items())
    parser = argparse.ArgumentParser(
        description="Write a small synthetic data set in the layout of a real one.",
        epilog=f"faults of each layout, explained at write_layout:\n{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--output", type=Path, required=True, help="new folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num-videos",
        type=int,
        default=2,
        metavar="N",
        help="videos to train on; one more validates, one tests",
    )
    parser.add_argument("--faults", nargs="*", default=(), metavar="NAME", help="faults of the real files, see below")
    parser.add_argument("--no-rgb", action="store_true", help="no videos, which take most of the time")
    parser.add_argument(
        "--trimmed-rgb", action="store_true", help=f"one mp4 per clip ({', '.join(_OPTIONS['trimmed_rgb'])})"
    )
    arguments = parser.parse_args()
    if arguments.num_videos < 1:
        parser.error(f"--num-videos is {arguments.num_videos}; expected at least 1.")
    config = dataclasses.replace(
        default_config(arguments.layout), seed=arguments.seed, num_train_subjects=arguments.num_videos
    )
    write_layout(
        arguments.output,
        arguments.layout,
        config,
        rgb=not arguments.no_rgb,
        faults=arguments.faults,
        trimmed_rgb=arguments.trimmed_rgb,
        show_progress=True,
    )


if __name__ == "__main__":
    run(main)


__all__ = [
    "FAULTS",
    "LAYOUTS",
    "default_config",
    "kinect_skeleton",
    "main",
    "oulu_rows",
    "plan_layout",
    "write_index",
    "write_layout",
]
