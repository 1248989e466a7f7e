"""A whole video to a timeline: who is in it, the scores of sliding windows, and the events in them.

Symbols: N frames of the video, K keypoints, P people in a frame.
"""

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from tqdm import tqdm

from clipmg_hf.inference.attention import AttentionTrack
from clipmg_hf.inference.checkpoint import model_source
from clipmg_hf.inference.clip import absent_keypoints, check_inside, is_keypoint_files, read_keypoint_array
from clipmg_hf.inference.cropping import CropSchedule, crop_segments, crop_video
from clipmg_hf.inference.engine import WindowClassifier, WindowGrid
from clipmg_hf.inference.onnx_model import InferenceModel, OnnxModel
from clipmg_hf.inference.partial_file import PartialFile, digest_arrays
from clipmg_hf.inference.video_stream import file_frames
from clipmg_hf.model_state import digest_weights
from clipmg_hf.pose.heads import head_regions
from clipmg_hf.pose.openpose_people import read_openpose_people
from clipmg_hf.pose.subjects import (
    NoPersonError,
    SubjectRule,
    choose_subjects,
    describe,
    from_sequence,
    subject_notes,
    to_sequence,
)
from clipmg_hf.pose.tracking import Track, track_people
from clipmg_hf.processing import (
    CLIPMGProcessor,
    KeypointLayout,
    SquareCrop,
    VideoReader,
    get_layout,
)
from clipmg_hf.processing.geometry_clipmg import full_frame_crop
from clipmg_hf.processing.processing_clipmg import rows_of_interval
from clipmg_hf.processing.video_processing_clipmg import open_video
from clipmg_hf.timeline.events import EventDecoding, decode_events
from clipmg_hf.timeline.records import Person, Timeline, WindowScores


if TYPE_CHECKING:
    from clipmg_hf.pose.estimators import PoseEstimator


# Frames that a pose estimator gets together.
POSE_BATCH_SIZE = 8
# Frames whose keypoints are converted together.
BLOCK = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class FollowedPeople:
    """Everybody in a video, as [`follow_people`] found them.

    Args:
        subjects (`tuple[Track, ...]`): Those whom the rule chose, at least one, numbered from 0.
        others (`tuple[Track, ...]`): Everybody else.
        layout ([`KeypointLayout`]): Layout of the keypoints, that of their source.
        num_frames (`int`): N, the length of the video.
        name (`str`): What messages call the source.
        rule (`str`, `int` or `tuple`): The rule that chose.
        unfollowed (`tuple[Track, ...]`): Heads in single frames that belong to none of them, such as a face of two
            points.
    """

    subjects: tuple[Track, ...]
    others: tuple[Track, ...]
    layout: KeypointLayout
    num_frames: int
    name: str
    rule: SubjectRule
    unfollowed: tuple[Track, ...] = ()

    def sequences(self, with_others: bool = False) -> dict[int, np.ndarray]:
        """Keypoints (N, K, 3) float32 in pixels of the source frame, by the number of the person; zeros where absent.

        The others come after the subjects; they share an array where a frame without either lies between them, by
        which `SequenceFaceBlur` tells them apart.
        """
        sequences = {track.number: to_sequence(track, self.num_frames) for track in self.subjects}
        ends: dict[int, int] = {}
        others = (*self.others, *self.unfollowed) if with_others else ()
        for track in sorted(others, key=lambda track: track.first):
            number = next((number for number, end in ends.items() if end + 1 < track.first), len(sequences))
            if number not in sequences:
                sequences[number] = to_sequence(track, self.num_frames)
            sequences[number][track.frames] = track.keypoints
            ends[number] = track.last
        return sequences


class _Subject(NamedTuple):
    """Somebody whose windows are classified: keypoints (N, K, 3) float32 in the model's layout, or `None` for both."""

    person: Person | None
    keypoints: np.ndarray | None

    @property
    def number(self) -> int:
        return 0 if self.person is None else self.person.number


def predict_timeline(
    video: Any,
    *,
    model: InferenceModel,
    processor: CLIPMGProcessor,
    keypoints: Any = None,
    source_layout: str | None = None,
    pose: "PoseEstimator | None" = None,
    subject: SubjectRule = "largest",
    window: int = 32,
    stride: int = 8,
    start: float | None = None,
    end: float | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    crop: Literal["video", "segments"] | SquareCrop = "video",
    batch_size: int = 16,
    decoding: EventDecoding | None = None,
    partial_file: str | PathLike | None = None,
    attention: AttentionTrack | None = None,
    show_progress: bool = False,
) -> Timeline:
    """Find the micro-gestures in a video of any length.

    Every sampled frame is decoded and goes through the vision tower once for each person; see `engine`. Windows in
    which a person cannot be, before the first and after the last frame that shows them, are left out.

    Args:
        video: A path, bytes or a file object.
        model, processor: As `load_model` returns them, on the device and in the type that computes.
        keypoints: OpenPose JSON (a folder, a file or a list of files) with any number of people in a frame; or of one
            person an [`OpenPoseSequence`] or an array (N, K, 3), x, y in pixels of the upright source frame and
            confidence. One row for each frame of the video, or of the interval. Or what [`follow_people`] returned.
        source_layout: Layout of an array; by default the model's if it has as many keypoints, else the only one that
            has.
        pose: What finds people where there are no keypoints; the video is then decoded twice. Without either, the
            model sees the whole frame and no pose.
        subject: Whom to follow, a rule of `clipmg_hf.pose.subjects.choose_subjects`; `"all"` makes one pass for each.
            Of no effect on people who were followed before.
        window, stride: Length of a window and distance of their starts, in frames. A video shorter than a window is
            one clip.
        start, end: The part of the video to look at, half open; `None` is the video's own start or end.
        unit: Of `start` and `end`.
        crop: `"video"` cuts all frames to one square around the person's usual place, see `cropping`; `"segments"` to
            a few, one after another, for people who move far and for videos with cuts; or the square itself.
        batch_size: Frames that go through the vision tower together.
        decoding: How windows become events.
        partial_file: A file for finished windows. If the run is stopped, another one with the same arguments goes on
            with it. It is not removed.
        attention: Collects where the model looked in each sampled frame, for `write_annotated_video`; not together
            with `partial_file`, which does not keep it.
        show_progress: Show a bar over the frames.

    Raises:
        VideoDecodingError: The video or the interval cannot be read.
        ValueError: Keypoints of another video or without anybody, settings outside their range, or a partial file of
            another run.
    """
    if attention is not None and partial_file is not None:
        raise ValueError(
            "Got attention and partial_file; expected one of them: finished windows do not keep attention."
        )
    with _open(video) as reader:
        interval = first, last = reader.resolve_interval(start, end, unit)
        people = keypoints
        if not isinstance(keypoints, FollowedPeople):
            layouts = (source_layout, processor.keypoint_layout)
            people = _follow(reader, keypoints, pose, subject, layouts, interval, show_progress)
        subjects, person_notes = _prepare_subjects(people, reader, processor, interval)
        grid = WindowGrid.from_processor(processor, min(window, last - first), min(stride, last - first), first)
        crops = [_choose_crop(item.keypoints, crop, reader, processor, grid, last) for item in subjects]
        settings = _list_settings(model, people, grid, interval, crop)
        partial: PartialFile | nullcontext[None] = nullcontext()
        if partial_file is not None:
            partial = PartialFile(partial_file, _identify(reader, model, processor, subjects, crops, settings))
        with partial as kept:
            finished = [] if kept is None else kept.windows
            passes = [
                _Pass(item, WindowClassifier(model, processor, own_grid, own_crop, batch_size, item.number, attention))
                for item, own_crop in zip(subjects, crops, strict=True)
                if (own_grid := _remaining_grid(grid, last, item, finished)) is not None
            ]
            windows = list(finished)
            for batch in _run(reader, passes, last, show_progress):
                windows += batch
                if kept is not None:
                    kept.append(batch)
    notes = [*_take_notes(people, subjects, grid, processor, interval), *person_notes]
    return _make_timeline(reader, model, subjects, windows, decoding or EventDecoding(), settings, notes)


def follow_people(
    video: Any,
    *,
    keypoints: Any = None,
    source_layout: str | None = None,
    pose: "PoseEstimator | None" = None,
    subject: SubjectRule = "largest",
    start: float | None = None,
    end: float | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    show_progress: bool = False,
) -> FollowedPeople | None:
    """Find the people in a video and choose the subjects: the first step of [`predict_timeline`], with its arguments.

    No model is known here: an array whose number of keypoints several layouts have needs `source_layout`.

    Returns:
        Keypoints for `predict_timeline` and for drawings; `None` without keypoints and pose estimator.

    Raises:
        VideoDecodingError: The video or the interval cannot be read.
        ValueError: Keypoints of another video or without anybody, or no such subject.
    """
    with _open(video) as reader:
        interval = reader.resolve_interval(start, end, unit)
        return _follow(reader, keypoints, pose, subject, (source_layout, None), interval, show_progress)


def _open(video: Any) -> VideoReader:
    reader = open_video(video)
    if not isinstance(reader, VideoReader):
        raise ValueError("video: frames in memory have no times; expected a path, bytes or a file object.")
    return reader


class _Source(NamedTuple):
    """Keypoints of a video: the people (P, K, 3) of each of its N frames, their layout and name in messages.

    `is_one` says that a frame shows the same one person as the others; `people` is then an array (n, 1, K, 3) of the
    n frames of the interval alone.
    """

    people: Sequence[np.ndarray]
    layout: KeypointLayout
    name: str
    is_one: bool


def _read_keypoints(
    reader: VideoReader,
    keypoints: Any,
    pose: Any,
    layouts: tuple[str | None, str | None],
    interval: tuple[int, int],
    show_progress: bool,
) -> _Source | None:
    """Keypoints of the frames, whatever they come from; nobody outside the interval.

    `layouts` are that of an array and that of the model, which decides where several have as many keypoints.
    """
    if keypoints is not None and pose is not None:
        raise ValueError("Got keypoints and pose; expected one of them.")
    if keypoints is None and pose is None:
        return None
    people: Sequence[np.ndarray]
    first_number, is_one, name = 0, False, "keypoints"
    if keypoints is None:
        people, layout, name = (
            _estimate_people(reader, pose, interval, show_progress),
            pose.layout,
            type(pose).__name__,
        )
    elif is_keypoint_files(keypoints):
        name = str(keypoints) if isinstance(keypoints, str | PathLike) else name
        people, layout, numbers, _ = read_openpose_people(keypoints)
        first_number = int(numbers[0])
    else:
        points, layout, first_number, name = read_keypoint_array(keypoints, *layouts)
        people, is_one = cast(Sequence[np.ndarray], points[:, None]), True
    info = reader.info
    people = people[rows_of_interval(len(people), first_number, interval, info.num_frames, name, info.name)]
    if not is_one:
        nobody = np.zeros((0, layout.num_keypoints, 3), np.float32)
        people = [nobody] * interval[0] + list(people) + [nobody] * (info.num_frames - interval[1])
    check_inside(people, info, name)
    return _Source(people, layout, name, is_one)


def _estimate_people(
    reader: VideoReader, pose: Any, interval: tuple[int, int], show_progress: bool
) -> list[np.ndarray]:
    """People (P, K, 3) in each frame of the interval."""
    images = reader.iter_frames(*interval)
    people: list[np.ndarray] = []
    with tqdm(total=interval[1] - interval[0], desc="Find people", unit="frame", disable=not show_progress) as bar:
        for _ in range(*interval, POSE_BATCH_SIZE):
            frames = np.stack([image for _, image in itertools.islice(images, POSE_BATCH_SIZE)])
            people += pose.estimate(frames)
            bar.update(len(frames))
    return people


def _follow(
    reader: VideoReader,
    keypoints: Any,
    pose: Any,
    rule: SubjectRule,
    layouts: tuple[str | None, str | None],
    interval: tuple[int, int],
    show_progress: bool,
) -> FollowedPeople | None:
    source = _read_keypoints(reader, keypoints, pose, layouts, interval, show_progress)
    if source is None:
        return None
    info = reader.info
    if source.is_one:
        track = from_sequence(cast(np.ndarray, source.people)[:, 0])
        tracks = [] if track is None else [dataclasses.replace(track, frames=track.frames + interval[0])]
    else:
        tracks = track_people(source.people)
    if not tracks:
        part = "" if interval == (0, info.num_frames) else f" within [{interval[0]}, {interval[1]})"
        raise NoPersonError(
            f"{source.name}: nobody in any frame{part} of {info.name}; expected a person, or no keypoints, to go "
            "by the images alone."
        )
    chosen = tracks
    if not source.is_one:
        chosen = choose_subjects(tracks, rule, info.width, info.height, info.num_frames, video=info.name)
    others = [track for track in tracks if all(track.keypoints is not subject.keypoints for subject in chosen)]
    unfollowed = () if source.is_one else _unfollowed_heads(source.people, tracks, source.layout)
    return FollowedPeople(tuple(chosen), tuple(others), source.layout, info.num_frames, source.name, rule, unfollowed)


def _unfollowed_heads(
    people: Sequence[np.ndarray] | np.ndarray, tracks: list[Track], layout: KeypointLayout
) -> tuple[Track, ...]:
    """Detections that show a head and are in no track: whoever blurs faces must know of them."""
    followed: dict[int, list[np.ndarray]] = defaultdict(list)
    for track in tracks:
        for row, frame in enumerate(track.frames.tolist()):
            followed[frame].append(track.keypoints[row])
    heads: list[Track] = []
    for frame, detections in enumerate(people):
        if len(detections) > len(followed[frame]):
            is_head = np.isfinite(head_regions(detections, layout)).all(axis=-1)
            for points in detections[is_head]:
                if not any(np.array_equal(points, other) for other in followed[frame]):
                    heads.append(Track(len(heads), np.array([frame]), points[None]))
    return tuple(heads)


def _prepare_subjects(
    people: FollowedPeople | None, reader: VideoReader, processor: CLIPMGProcessor, interval: tuple[int, int]
) -> tuple[list[_Subject], list[str]]:
    """Whose windows to classify, and what a reader should know about their keypoints."""
    if people is None:
        return [_Subject(None, None)], []
    info = reader.info
    if people.num_frames != info.num_frames:
        raise ValueError(
            f"{people.name}: people of a video of {people.num_frames} frames; expected {info.num_frames}, as "
            f"{info.name} has."
        )
    subjects, notes = [], []
    for track in people.subjects:
        subjects.append(_Subject(describe(track), _convert(track, people, processor)))
        # Outside an interval nobody was looked for.
        if interval == (0, info.num_frames):
            everybody = (*people.subjects, *people.others)
            notes += subject_notes(track, everybody, info.num_frames, info.timestamps.tolist())
    return subjects, notes


def _convert(track: Track, people: FollowedPeople, processor: CLIPMGProcessor) -> np.ndarray:
    """Keypoints (N, K, 3) float32 in the model's layout, zeros where the person is absent."""
    points = np.zeros((people.num_frames, get_layout(processor.keypoint_layout).num_keypoints, 3), np.float32)
    # In blocks: the conversion of an hour at once takes a gigabyte.
    for first in range(0, len(track), BLOCK):
        rows = slice(first, first + BLOCK)
        frames = track.frames[rows]
        try:
            converted = processor.convert_keypoints(track.keypoints[rows], people.layout.name, "mask")
        except ValueError as error:
            shown = f"the rows of the frames {frames[0]} to {frames[-1]} that show person {track.number}"
            raise ValueError(f"{people.name}: in {shown}, counted from 0: {error}") from error
        points[frames] = converted
    return points


def _choose_crop(
    keypoints: np.ndarray | None,
    crop: Literal["video", "segments"] | SquareCrop,
    reader: VideoReader,
    processor: CLIPMGProcessor,
    grid: WindowGrid,
    end: int,
) -> SquareCrop | CropSchedule:
    if isinstance(crop, SquareCrop):
        return crop
    if crop not in ("video", "segments"):
        raise ValueError(f"crop is {crop!r}; expected 'video', 'segments' or a SquareCrop.")
    size = (reader.info.width, reader.info.height)
    if keypoints is None:
        return full_frame_crop(*size)
    rows, part = keypoints[grid.first : end], max(1, grid.window // 2)
    if crop == "segments":
        return crop_segments(rows, *size, processor.crop_padding, part, grid.first)
    return crop_video(rows, *size, processor.crop_padding, part)


def _remaining_grid(
    grid: WindowGrid, end: int, subject: _Subject, finished: Sequence[WindowScores]
) -> WindowGrid | None:
    """The windows of a person that are not finished: `None` when all are."""
    starts = range(grid.first, grid.last_start(end) + 1, grid.stride)
    if subject.person is not None:
        starts = range(
            next((start for start in starts if start + grid.window > subject.person.first), end),
            min(subject.person.last, starts[-1]) + 1,
            grid.stride,
        )
    done = [window.start for window in finished if window.person == subject.number]
    if done:
        starts = range(max(done) + grid.stride, starts.stop, grid.stride)
    return dataclasses.replace(grid, first=starts[0], last=starts[-1]) if starts else None


class _Pass(NamedTuple):
    """What classifies the windows of one person."""

    subject: _Subject
    classifier: WindowClassifier


def _run(reader: VideoReader, passes: list[_Pass], end: int, show_progress: bool) -> Iterator[list[WindowScores]]:
    """Yield windows as they are finished, those of all people in one pass over the frames."""
    if not passes:
        return
    grids = [classifier.grid for _, classifier in passes]
    first = min(grid.first for grid in grids)
    end = min(end, max(cast(int, grid.last) + grid.window for grid in grids))
    uses_vision = passes[0].classifier.model.config.uses_vision

    def is_sampled(index: int) -> bool:
        return uses_vision and any(grid.samples_image(index) for grid in grids)

    frames = file_frames(reader, first, end, is_sampled)
    for frame in tqdm(frames, "Windows", end - first, unit="frame", disable=not show_progress):
        for subject, classifier in passes:
            points = None if subject.keypoints is None else subject.keypoints[frame.index]
            if finished := classifier.push(dataclasses.replace(frame, keypoints=points)):
                yield finished
    for _, classifier in passes:
        yield classifier.finish()


def _list_settings(
    model: InferenceModel,
    people: FollowedPeople | None,
    grid: WindowGrid,
    interval: tuple[int, int],
    crop: str | SquareCrop,
) -> dict[str, Any]:
    """What the timeline was made with, as JSON values."""
    rule = None if people is None else people.rule
    return {
        "model": model_source(model),
        "window": grid.window,
        "stride": grid.stride,
        "interval": list(interval),
        "crop": dataclasses.asdict(crop) if isinstance(crop, SquareCrop) else crop,
        "subject": list(rule) if isinstance(rule, tuple) else rule,
        "keypoint_layout": None if people is None else people.layout.name,
    }


def _identify(
    reader: VideoReader,
    model: InferenceModel,
    processor: CLIPMGProcessor,
    subjects: list[_Subject],
    crops: list[SquareCrop | CropSchedule],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """What the windows depend on, for a partial file."""
    path = Path(reader.info.name)
    if not path.is_file():
        raise ValueError(f"{path}: a partial file needs a video that lies in a file.")
    status = path.stat()
    return {
        "video": {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns},
        "weights": model.digest if isinstance(model, OnnxModel) else digest_weights(model),
        "processor": json.loads(json.dumps(processor.to_dict(), default=str)),
        "people": [item.number for item in subjects],
        "keypoints": digest_arrays(item.keypoints for item in subjects if item.keypoints is not None),
        "crops": [dataclasses.asdict(crop) for crop in crops],
        **{name: value for name, value in settings.items() if name not in ("model", "subject")},
    }


def _take_notes(
    people: FollowedPeople | None,
    subjects: list[_Subject],
    grid: WindowGrid,
    processor: CLIPMGProcessor,
    interval: tuple[int, int],
) -> list[str]:
    """What a reader of the timeline should know."""
    # A single window shares nothing.
    notes = [grid.note] if grid.note is not None and grid.last_start(interval[1]) > grid.first else []
    if people is None:
        return [*notes, "No keypoints were given: the model saw the whole frame and no pose."]
    if absent := absent_keypoints(people.layout, get_layout(processor.keypoint_layout)):
        notes.append(
            f"{len(absent)} of the model's keypoints are not in {people.layout.name} and were masked: "
            f"{', '.join(absent)}."
        )
    first, last = interval
    for person, _ in subjects:
        if person is not None and (person.first >= first + grid.window or person.last < last - grid.window):
            notes.append(
                f"Person {person.number} is seen in frames {person.first} to {person.last}: windows before and after "
                "are left out."
            )
    return notes


def _make_timeline(
    reader: VideoReader,
    model: InferenceModel,
    subjects: list[_Subject],
    windows: list[WindowScores],
    decoding: EventDecoding,
    settings: dict[str, Any],
    notes: list[str],
) -> Timeline:
    info = reader.info
    labels = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
    windows = sorted(windows, key=lambda window: (window.person, window.start))
    people = tuple(item.person for item in subjects if item.person is not None)
    return Timeline(
        video=Path(info.name).name,
        num_frames=info.num_frames,
        duration=info.duration,
        fps=info.average_rate,
        width=info.width,
        height=info.height,
        labels=labels,
        people=people,
        windows=tuple(windows),
        events=decode_events(windows, labels, decoding, people=people),
        settings={**settings, "decoding": dataclasses.asdict(decoding)},
        notes=tuple(notes),
    )


__all__ = ["FollowedPeople", "follow_people", "predict_timeline"]
