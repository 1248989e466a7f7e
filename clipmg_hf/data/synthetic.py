"""Synthetic micro-gesture videos in the layout of the MiGA challenge packs, for demos, tests and smoke training.

    python -m clipmg_hf.data.synthetic --output DIR --seed 0 --num-workers 2

The default takes about 130 seconds of processor time, so a good minute on two free cores, for 528 training clips of
44 subjects, 192 validation clips of 16 others and one test video, 0.13 GB. The same code that reads the licensed data
reads DIR; `DIR/synthetic.json` adds the seed, all settings and the subject of every video.

One set of kinematics gives the picture and the 137 keypoints. The classes need both: 2/3 and 22/25 move alike and
differ only by a hat or a held object (hats and objects are elsewhere in other clips, too); 19, 28 and 30 are small
movements amid camera shake, flicker and people passing behind, and other clips have tight lips that keep still.
Nothing here is derived from recordings of people.

N is the number of frames of a video.
"""

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipmg_hf.console import run
from clipmg_hf.data.synthetic_motion import Body, animate, pose_keypoints, wander
from clipmg_hf.data.synthetic_rendering import SHAKE_STEPS, ClipStyle, PersonStyle, Prop, SceneRenderer, SceneStyle


Array = NDArray[Any]
Clip = tuple[int, int, int]  # canonical class, first frame, last frame (inclusive)

GENERATOR_VERSION = 1
SYNTHETIC_CLASSES: dict[int, str] = {
    2: "Touching hat",
    3: "Touching or scratching head",
    11: "Touching or scratching neck",
    16: "Folding arms",
    19: "Moving torso",
    22: "Rubbing or holding hands",
    25: "Playing or manipulating objects",
    28: "Pressing lips",
    30: "Shaking shoulders",
    31: "Illustrative body language",
}
# Every video holds these once, so that the pairs that differ only in the picture are seen on every subject; its other
# clips follow the shares, the long tail of iMiGUE in small.
_IN_EVERY_VIDEO = (2, 3, 22, 25, 30, 31)
_EXTRA_SHARES = {31: 0.22, 30: 0.14, 28: 0.21, 19: 0.16, 11: 0.09, 16: 0.08, 22: 0.035, 25: 0.035, 2: 0.015, 3: 0.015}

SPLITS = ("train", "validate", "test")
_SKELETON_FOLDERS = {
    "train": "imigue_data_phase1/datasets/imigue_skeleton_train",
    "validate": "imigue_data_phase1/datasets/imigue_skeleton_validate",
    "test": "imigue_data_phase2/imigue_skeleton_test",
}
_RGB_FOLDERS = {
    "train": "imigue_rgb_phase1/train_data",
    "validate": "imigue_rgb_phase1/validation_data",
    "test": "imigue_rgb_phase2",
}
_FINGERTIPS = np.array([4, 8, 12, 16, 20])
_LIGHT_HAND = np.concatenate([np.arange(25), 95 + _FINGERTIPS, 116 + _FINGERTIPS])
_UNSEEN = np.array([8, 9, 10, 11, 12, 13, 14, 19, 20, 21, 22, 23, 24])  # hips and legs, behind the desk


@dataclass(frozen=True)
class SyntheticConfig:
    """Everything that determines the data set. Pixels are those of a 320 x 180 frame and scale with the frame size."""

    seed: int = 0
    # Size: one video per subject, no subject in two splits.
    num_train_subjects: int = 44
    num_validate_subjects: int = 16
    num_test_subjects: int = 1
    clips_per_video: int = 12
    min_clip_frames: int = 20
    max_clip_frames: int = 60
    min_gap_frames: int = 3
    max_gap_frames: int = 6
    # Video: pixels, pixels, frames per second.
    width: int = 320
    height: int = 180
    fps: int = 25
    # Keypoint noise: standard deviations in pixels; rates per point, per hand and per frame.
    body_jitter: float = 0.65
    face_jitter: float = 0.3
    hand_jitter: float = 1.0
    point_dropout: float = 0.01
    hand_dropout: float = 0.05
    frame_dropout: float = 0.008
    # Streams that fail: shares of clips in which the pose detector guesses, and of others that lie in the dark.
    pose_failure_rate: float = 0.0
    dark_rate: float = 0.0
    # Scene: largest camera offset in pixels, relative lighting change, shares of clips with a hat and with an object
    # on the desk.
    camera_shake: float = 1.5
    flicker: float = 0.03
    hat_rate: float = 0.3
    desk_object_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.clips_per_video < len(_IN_EVERY_VIDEO):
            raise ValueError(
                f"clips_per_video is {self.clips_per_video}; expected at least {len(_IN_EVERY_VIDEO)}, one of each "
                "class that is in every video."
            )
        if not 16 <= self.min_clip_frames <= self.max_clip_frames:
            raise ValueError(
                f"Need 16 <= min_clip_frames={self.min_clip_frames} <= max_clip_frames={self.max_clip_frames}."
            )
        if not 1 <= self.min_gap_frames <= self.max_gap_frames:
            raise ValueError(
                f"Need 1 <= min_gap_frames={self.min_gap_frames} <= max_gap_frames={self.max_gap_frames}."
            )
        if self.width % 2 or self.height % 2:
            raise ValueError(f"H.264 yuv420p needs an even frame size, got {self.width} x {self.height}.")
        if not (self.pose_failure_rate >= 0 <= self.dark_rate and self.pose_failure_rate + self.dark_rate <= 1):
            raise ValueError(
                f"Need shares that sum to 1 at most, got pose_failure_rate={self.pose_failure_rate} and "
                f"dark_rate={self.dark_rate}."
            )
        if not (0 <= self.camera_shake <= 2.5 and 0 <= self.flicker <= 0.05):
            raise ValueError(
                f"Need 0 <= camera_shake={self.camera_shake} <= 2.5 and 0 <= flicker={self.flicker} <= 0.05."
            )

    @property
    def scale(self) -> float:
        """Pixels per body unit at camera zoom 1."""
        return min(self.width / 320, self.height / 180)

    def rng(self, stream: str, *ids: int) -> np.random.Generator:
        """The generator of one purpose, independent of every other, so that nothing depends on the order of work."""
        return np.random.default_rng([self.seed, *stream.encode(), *ids])


@dataclass(frozen=True)
class VideoPlan:
    """Where a video belongs and what happens in it."""

    video_id: str
    subject: int
    split: str
    labels: list[Clip]
    num_frames: int

    def files(self, root: Path) -> dict[str, Path]:
        """The four files of the video."""
        skeleton = root / _SKELETON_FOLDERS[self.split] / self.video_id
        return {
            "video": root / _RGB_FOLDERS[self.split] / self.video_id / f"{self.video_id}.mp4",
            "openpose": skeleton / f"{self.video_id}_openpose.xlsx",
            "light_hand": skeleton / f"{self.video_id}_light_hand.csv",
            "label": skeleton / f"{self.video_id}_label.csv",
        }


@dataclass(frozen=True)
class SyntheticVideo:
    """One video in memory. Coordinates are pixels of the frame."""

    video_id: str
    subject: int
    labels: list[Clip]
    keypoints: Array  # (N, 137, 3) x, y, confidence as a detector would give them; missing points are 0, 0, 0
    clean_keypoints: Array  # (N, 137, 2) what the frames are drawn from: no noise, nothing missing
    clip_styles: list[ClipStyle]
    dark_clips: list[bool]
    _renderer: SceneRenderer
    _camera: tuple[Array, Array, Array]  # offset (N, 2), lighting (N,), clip in view (N,)
    _fps: int

    def __len__(self) -> int:
        return len(self.keypoints)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """One frame, (height, width, 3) uint8 RGB."""
        shake, gain, owner = (track[index] for track in self._camera)
        style = self.clip_style(index)
        frame = self._renderer.render(self.clean_keypoints[index], style, shake, float(gain), index / self._fps)
        return _darken(frame, int(self.video_id), index) if self.dark_clips[int(owner)] else frame

    @property
    def unit(self) -> float:
        """Pixels of a body unit in this video."""
        return self._renderer.unit

    def clip_style(self, index: int) -> ClipStyle:
        """Hat and objects in a frame."""
        return self.clip_styles[int(self._camera[2][index])]

    def desk_edge(self, index: int) -> tuple[float, float]:
        """What the shaking camera adds to x of the desk, and y of its upper edge in a frame, in pixels."""
        shake = self._camera[0][index]
        return float(shake[0]), float(shake[1]) + self._renderer.scene.desk_top

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All frames in order."""
        return (self.frame(index) for index in range(len(self)))


def generate_video(
    config: SyntheticConfig, subject: int, video_id: str, classes: Sequence[int] | None = None
) -> SyntheticVideo:
    """Generate one video in memory; frames are rendered when asked for.

    `classes` replaces the classes of the clips, one canonical id each, and leaves all random numbers as they were.
    """
    video = int(video_id)
    labels, num_frames = plan_clips(config, video, classes)
    body = Body.random(config.rng("body", subject), config.rng("camera", video), config.width, config.height)
    rng = config.rng("scene", video)
    shake, gain = _camera_tracks(config, num_frames, rng)
    gestures = [config.rng("gesture", video, index) for index in range(len(labels))]
    motion = animate(body, labels, num_frames, config.fps, config.rng("idle", video), gestures)
    clean = pose_keypoints(motion, body) + shake[:, None]
    styles = [_clip_style(config, body, video, index, clip[0]) for index, clip in enumerate(labels)]
    # Hats and objects change in the middle of the gaps.
    changes = [(before[2] + after[1]) // 2 for before, after in itertools.pairwise(labels)]
    owner = np.searchsorted(changes, np.arange(num_frames), side="left")
    desk_top = body.origin[1] + 64 * body.unit
    renderer = SceneRenderer(
        width=config.width,
        height=config.height,
        unit=body.unit,
        person=PersonStyle.random(config.rng("looks", subject)),
        scene=SceneStyle.random(rng, config.width, body.unit, desk_top, body.origin[0]),
    )
    observed = _observe(clean, motion.yaw, config, config.rng("detector", video))
    faults = [float(config.rng("faults", video, index).random()) for index in range(len(labels))]
    for index, (_, start, end) in enumerate(labels):
        if faults[index] < config.pose_failure_rate:
            observed[start : end + 1] = _guess(observed[start : end + 1], config.rng("guesses", video, index))
    dark = [fault >= 1 - config.dark_rate for fault in faults]
    return SyntheticVideo(
        video_id, subject, labels, observed, clean, styles, dark, renderer, (shake, gain, owner), config.fps
    )


def generate_dataset(
    root: str | Path,
    config: SyntheticConfig = SyntheticConfig(),
    num_workers: int = 1,
    show_progress: bool = True,
) -> Path:
    """Write the data set below `root`, or what is missing of it, and return `root`.

    Several workers are started by spawning: a script that asks for them needs an `if __name__ == "__main__"` guard.
    Raises ValueError when `root` holds a data set of other settings or one that this module did not write.
    """
    root = Path(root)
    plans = plan_dataset(config)
    _claim_root(root, config, plans)
    pending = [plan for plan in plans if not all(path.exists() for path in plan.files(root).values())]
    with tqdm(total=len(plans), initial=len(plans) - len(pending), unit="video", disable=not show_progress) as bar:
        if num_workers <= 1:
            for plan in pending:
                _write_video(root, config, plan)
                bar.update()
            return root
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=spawn) as pool:
            for done in as_completed([pool.submit(_write_video, root, config, plan) for plan in pending]):
                done.result()
                bar.update()
    return root


def plan_dataset(config: SyntheticConfig) -> list[VideoPlan]:
    """All videos of the data set. Subjects are numbered from 1 through train, validate and test."""
    counts = (config.num_train_subjects, config.num_validate_subjects, config.num_test_subjects)
    splits = [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]
    plans = []
    for subject, split in enumerate(splits, start=1):
        labels, num_frames = plan_clips(config, subject)
        plans.append(VideoPlan(f"{subject:04d}", subject, split, labels, num_frames))
    return plans


def plan_clips(config: SyntheticConfig, video: int, classes: Sequence[int] | None = None) -> tuple[list[Clip], int]:
    """The disjoint clips of a video and its number of frames."""
    rng = config.rng("plan", video)
    count = config.clips_per_video
    # Systematic sampling: every video has nearly the same number of each class, the rest evens out over videos.
    num_extra = count - len(_IN_EVERY_VIDEO)
    ticks = (np.arange(num_extra) + rng.random()) / max(num_extra, 1)
    extra = np.searchsorted(np.cumsum(list(_EXTRA_SHARES.values())), ticks)
    drawn = np.concatenate([list(_IN_EVERY_VIDEO), np.array(list(_EXTRA_SHARES))[extra]]).astype(int)
    drawn = rng.permutation(drawn)
    spread = config.max_clip_frames - config.min_clip_frames
    lengths = config.min_clip_frames + np.rint(spread * rng.beta(1.2, 3.2, count)).astype(int)
    gaps = rng.integers(config.min_gap_frames, config.max_gap_frames + 1, count + 1)
    starts = np.cumsum(gaps[:count]) + np.cumsum(lengths) - lengths
    order = drawn if classes is None else np.asarray(classes)
    if len(order) != count or not set(order.tolist()) <= set(SYNTHETIC_CLASSES):
        raise ValueError(f"classes must be {count} ids of {list(SYNTHETIC_CLASSES)}, got {order.tolist()}.")
    labels = [(int(c), int(s), int(s + n - 1)) for c, s, n in zip(order, starts, lengths, strict=True)]
    return labels, int(gaps.sum() + lengths.sum())


def _clip_style(config: SyntheticConfig, body: Body, video: int, index: int, label: int) -> ClipStyle:
    """Hat and objects. All numbers are drawn for every class, so that the class changes nothing else."""
    rng = config.rng("objects", video, index)
    hat = rng.random() < config.hat_rate
    held = Prop.random(rng)
    on_desk = []
    for side in (-1, 1):
        present, x = rng.random() < config.desk_object_rate / 2, rng.uniform(62, 88)
        prop = Prop.random(rng)
        if present:
            on_desk.append((body.origin[0] + side * x * body.unit, prop))
    return ClipStyle(
        hat=label == 2 or (label != 3 and bool(hat)), held=held if label == 25 else None, on_desk=tuple(on_desk)
    )


def _camera_tracks(config: SyntheticConfig, num_frames: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Camera offset (N, 2) in pixels and lighting (N,)."""
    slow = np.stack([wander(rng, num_frames, 3.0 * config.fps) for _ in range(2)], 1)
    quick = rng.normal(0.0, 0.15, (num_frames, 2))
    shake = config.camera_shake * config.scale * np.clip(0.85 * slow + quick, -1.0, 1.0)
    slow, quick = wander(rng, num_frames, 0.8 * config.fps), rng.normal(0.0, 0.3, num_frames)
    gain = 1.0 + config.flicker * np.clip(slow + quick, -1.0, 1.0)
    return (np.rint(shake * SHAKE_STEPS) / SHAKE_STEPS).astype(np.float32), gain.astype(np.float32)


def _observe(clean: Array, yaw: Array, config: SyntheticConfig, rng: np.random.Generator) -> Array:
    """What a pose detector reports: (N, 137, 3) with jitter, confidences and missing points."""
    num_frames = len(clean)
    counts = (25, 70, 42)
    jitter = np.repeat([config.body_jitter, config.face_jitter, config.hand_jitter], counts)[:, None] * config.scale
    low, high = np.repeat([0.6, 0.5, 0.3], counts), np.repeat([0.95, 0.9, 0.6], counts)
    # A point keeps most of its confidence over a video.
    share = 0.6 * rng.random((1, 137)) + 0.4 * rng.random((num_frames, 137))
    keypoints = np.empty((num_frames, 137, 3), dtype=np.float32)
    keypoints[..., :2] = clean + jitter * rng.normal(size=clean.shape)
    keypoints[..., 2] = low + (high - low) * share
    missing = rng.random((num_frames, 137)) < config.point_dropout
    missing[:, _UNSEEN] = True
    missing[:, 17] |= yaw < -0.2
    missing[:, 18] |= yaw > 0.2
    missing[:, 95:116] |= rng.random((num_frames, 1)) < config.hand_dropout
    missing[:, 116:] |= rng.random((num_frames, 1)) < config.hand_dropout
    missing |= rng.random((num_frames, 1)) < config.frame_dropout
    keypoints[missing] = 0.0
    return keypoints


def _guess(keypoints: Array, rng: np.random.Generator) -> Array:
    """What a detector reports that does not see the person well: points (n, 137, 3) anywhere near, at half confidence.

    They stay in the box of the true ones, so that a crop around them still holds the person.
    """
    seen = keypoints[..., 2] > 0
    if not seen.any():
        return keypoints
    low, high = keypoints[seen, :2].min(0), keypoints[seen, :2].max(0)
    guess = keypoints.copy()
    guess[..., :2] += 0.12 * (high - low).max() * rng.normal(size=guess[..., :2].shape)
    guess[..., :2] = np.clip(guess[..., :2], low, high)
    guess[..., 2] *= 0.5
    guess[~seen] = 0.0
    return guess


def _darken(frame: NDArray[np.uint8], *ids: int) -> NDArray[np.uint8]:
    """What a camera shows of a dark room: little of the scene (height, width, 3), and noise, the same each time."""
    noise = np.random.default_rng(ids).normal(0.0, 40.0, frame.shape)
    return np.clip(24 + 0.12 * frame + noise, 0, 255).astype(np.uint8)


def _write_video(root: Path, config: SyntheticConfig, plan: VideoPlan) -> None:
    """Write the four files of one video; the label file last, each under its final name only when complete."""
    video = generate_video(config, plan.subject, plan.video_id)
    files = plan.files(root)
    write_whole(files["video"], lambda path: write_mp4(path, video.frames(), config))
    write_whole(files["openpose"], lambda path: write_xlsx(path, video.keypoints.reshape(len(video), -1)))
    write_lines(files["light_hand"], light_hand_rows(video.keypoints))
    write_lines(files["label"], miga_label_rows(plan))


def light_hand_rows(keypoints: Array) -> list[str]:
    """The rows of `_light_hand.csv` for keypoints (N, 137, 3): index, then the body and ten fingertips."""
    light = keypoints[:, _LIGHT_HAND].reshape(len(keypoints), -1).tolist()
    return [f"{index}," + ",".join(f"{round(value, 3):.7g}" for value in row) for index, row in enumerate(light)]


def miga_label_rows(plan: VideoPlan) -> list[str]:
    """The rows of `_label.csv`: raw class, first and last frame."""
    # MiGA keeps the classes of the test set to itself.
    raw = [0 if plan.split == "test" else raw_class(label) for label, _, _ in plan.labels]
    return [f"{label},{start},{end}" for label, (_, start, end) in zip(raw, plan.labels, strict=True)]


def raw_class(label: int) -> int:
    """The class id that iMiGUE's files hold for a canonical one."""
    return 99 if label == 31 else label + 1


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text under the final name only when complete."""
    write_whole(path, lambda partial: partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))


def write_mp4(path: Path, frames: Iterable[NDArray[np.uint8]], config: SyntheticConfig) -> None:
    """Encode frames (height, width, 3) RGB of the configured size and rate as H.264."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=config.fps, options={"preset": "superfast", "tune": "fastdecode", "crf": "22", "g": "25"}
        )
        stream.width, stream.height, stream.pix_fmt = config.width, config.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, config.fps)
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_xlsx(path: Path, values: Array) -> None:
    """Write numbers (rows, columns) as a one-sheet workbook, about ten times faster than openpyxl does.

    The archive carries no time of writing: equal numbers give equal bytes.
    """
    columns = [_column_name(index) for index in range(values.shape[1])]
    cells = "".join(f'<c r="{name}#"><v>%.7g</v></c>' for name in columns)
    size = f"A1:{columns[-1]}{len(values)}" if len(values) else "A1"
    sheet = [f'{_XML}<worksheet xmlns="{_MAIN}"><dimension ref="{size}"/><sheetData>']
    for number, row in enumerate(np.round(values.astype(np.float64), 3).tolist(), start=1):
        sheet.append(f'<row r="{number}">{cells.replace("#", str(number)) % tuple(row)}</row>')
    sheet.append("</sheetData></worksheet>")
    parts = {**_XLSX_PARTS, "xl/worksheets/sheet1.xml": "".join(sheet)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED, compresslevel=1)


def _column_name(index: int) -> str:
    name = ""
    while index >= 0:
        name, index = chr(65 + index % 26) + name, index // 26 - 1
    return name


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_SHEET_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XLSX_PARTS = {
    "[Content_Types].xml": f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_SHEET_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_SHEET_TYPE}.worksheet+xml"/></Types>',
    "_rels/.rels": f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}


def _claim_root(root: Path, config: SyntheticConfig, plans: list[VideoPlan]) -> None:
    """Write `synthetic.json`, or check that the one in `root` says the same."""
    path = root / "synthetic.json"
    wanted = _describe(config, plans)
    if not path.exists():
        taken = [name for name in (*_SKELETON_FOLDERS.values(), *_RGB_FOLDERS.values()) if (root / name).exists()]
        if taken:
            raise ValueError(f"{root} holds {taken[0]} but no synthetic.json: it is not a synthetic data set.")
        write_whole(path, lambda partial: partial.write_text(json.dumps(wanted, indent=2) + "\n"))
        return
    found = json.loads(path.read_text())
    found = {"generator_version": found["generator_version"], **found["settings"]}
    expected = {"generator_version": GENERATOR_VERSION, **wanted["settings"]}
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if names:
        changes = ", ".join(f"{name} {found.get(name)} there, {expected.get(name)} asked for" for name in names)
        raise ValueError(f"{root} holds a synthetic data set of other settings: {changes}. Use another folder.")


def _describe(config: SyntheticConfig, plans: list[VideoPlan]) -> dict[str, Any]:
    """The content of `synthetic.json`."""
    videos = {}
    for plan in plans:
        classes = [label for label, _, _ in plan.labels]
        videos[plan.video_id] = {
            "split": plan.split,
            "subject": plan.subject,
            "num_frames": plan.num_frames,
            "num_clips": len(classes),
            "clips_per_class": {str(label): classes.count(label) for label in SYNTHETIC_CLASSES},
        }
    return {
        "generator_version": GENERATOR_VERSION,
        "seed": config.seed,
        "settings": dataclasses.asdict(config),
        "classes": {str(label): name for label, name in SYNTHETIC_CLASSES.items()},
        "videos": videos,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a synthetic micro-gesture data set in the MiGA layout.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--num-workers", type=int, default=1, help="processes")
    for setting in dataclasses.fields(SyntheticConfig):
        kind = type(setting.default)
        parser.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, default=setting.default)
    options = vars(parser.parse_args())
    output, num_workers = options.pop("output"), options.pop("num_workers")
    generate_dataset(output, SyntheticConfig(**options), num_workers)


if __name__ == "__main__":
    run(main)


__all__ = [
    "SYNTHETIC_CLASSES",
    "SyntheticConfig",
    "SyntheticVideo",
    "VideoPlan",
    "generate_dataset",
    "generate_video",
    "light_hand_rows",
    "miga_label_rows",
    "plan_clips",
    "plan_dataset",
    "raw_class",
    "write_lines",
    "write_mp4",
    "write_whole",
    "write_xlsx",
]
