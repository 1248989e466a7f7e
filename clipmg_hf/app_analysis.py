"""What the app does with a visitor's video, and what it shows of it; without Gradio.

Progress is reported as a stage and a fraction in [0, 1], from which the work is cancelled, too.
"""

import dataclasses
import logging
import math
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from clipmg_hf.app_visitors import CancelledError, Visitor, VisitorError, hide_places
from clipmg_hf.console import show_traceback
from clipmg_hf.data.synthetic import SyntheticConfig, generate_video
from clipmg_hf.event_decoding import EventDecoding
from clipmg_hf.inference import FollowedPeople, InferenceModel, follow_people, predict_timeline
from clipmg_hf.processing import CLIPMGProcessor, VideoReader, get_layout
from clipmg_hf.processing.openpose_clipmg import write_openpose
from clipmg_hf.subject_rules import parse_subject_rule
from clipmg_hf.timeline import Timeline, write_timeline
from clipmg_hf.timeline.annotated_video import write_annotated_video
from clipmg_hf.timeline.formats import ANNOTATED_SUFFIX, FORMATS, make_stem
from clipmg_hf.timeline.page import write_timeline_page
from clipmg_hf.video_writing import write_video


if TYPE_CHECKING:
    from clipmg_hf.pose import PoseEstimator

logger = logging.getLogger(__name__)

Report = Callable[[str, float], None]

SUBJECTS = {
    "the largest in the picture": "largest",
    "the most central": "most_central",
    "who is there longest": "longest",
    "everybody, each in a timeline of their own": "all",
}
RESULTS_PATH = "results"
NO_VIDEO = "<p>No video yet.</p>"
BLURRED_WHOLE = (
    "Faces are found by keypoints, and there are none: the whole picture is blurred. Give keypoints to blur faces "
    "alone, or switch the blur off."
)
_DOWNLOADS = {
    FORMATS["csv"].suffix: "Excel, LibreOffice",
    FORMATS["tsv"].suffix: "R, pandas",
    FORMATS["windows"].suffix: "scores over time",
    FORMATS["json"].suffix: "everything, for programs",
    FORMATS["elan"].suffix: "ELAN",
    FORMATS["boris"].suffix: "BORIS",
    FORMATS["webvtt"].suffix: "subtitles (WebVTT)",
    FORMATS["textgrid"].suffix: "Praat",
    ANNOTATED_SUFFIX: "the annotated video",
    ".zip": "all of these and the page",
}
_PAGE = "index.html"
_EXAMPLE = SyntheticConfig(seed=7, clips_per_video=6, max_clip_frames=45)
_UNEXPECTED = "Something went wrong on our side; the log of the app says what. Your files are untouched."


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """What looks at videos: the model and its processor, and what finds people where there are no keypoints."""

    model: InferenceModel
    processor: CLIPMGProcessor
    estimator: "PoseEstimator | None" = None


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a visitor chooses: whom to follow (as in `parse_subject_rule`), a score in (0, 1), and blurred faces."""

    subject: str = "largest"
    threshold: float = EventDecoding.threshold
    blur_face: bool = True


class WatchedVideo(VideoReader):
    """A video that tells how far its reading has come.

    Args:
        path (`Path`): The file.
        report (`Callable[[float], None]`): Gets the fraction after every frame; what it raises ends the reading.
    """

    def __init__(self, path: Path, report: Callable[[float], None]):
        super().__init__(path)
        # Names in timelines and messages.
        self.name = path.name
        self.report = report

    def iter_read(self, indices: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """As in [`VideoReader`]."""
        num_frames = self.info.num_frames
        for index, frame in super().iter_read(indices):
            self.report(index / num_frames)
            yield index, frame


def analyse(visitor: Visitor, engine: Engine, choices: Choices, report: Report) -> Timeline:
    """Find the gestures in a visitor's video and write all results into the visitor's folder.

    Args:
        visitor ([`Visitor`]): Gets the results by their names.
        engine ([`Engine`]): Looks at the video.
        choices ([`Choices`]): How.
        report (`Callable[[str, float], None]`): Gets the stage and how much of it is done.

    Raises:
        VisitorError: There is no video.
        CancelledError: The visitor has cancelled it or left.
        ValueError: Choices, keypoints or a video that cannot be used; the message may name places, see
            [`explain_error`].
    """
    with visitor.working():
        if visitor.video is None:
            raise VisitorError("Please upload a video first, or take the example.")
        rule, decoding = parse_subject_rule(choices.subject), EventDecoding(threshold=choices.threshold)
        stage = "Looking for people"

        def tell(fraction: float) -> None:
            visitor.check_cancelled()
            report(stage, fraction)

        folder = visitor.new_results()
        stem = make_stem(visitor.video.name)
        with WatchedVideo(visitor.video, tell) as video:
            pose = engine.estimator if visitor.keypoints is None else None
            people = follow_people(video, keypoints=visitor.keypoints, pose=pose, subject=rule)
            stage = "Looking for gestures"
            timeline = predict_timeline(
                video, model=engine.model, processor=engine.processor, keypoints=people, decoding=decoding
            )
            # Visitors need not know where on the server a model lies.
            settings = {**timeline.settings, "model": hide_places(timeline.settings["model"])}
            notes = [*timeline.notes, *[BLURRED_WHOLE] * (people is None and choices.blur_face)]
            timeline = dataclasses.replace(timeline, settings=settings, notes=tuple(notes))
            stage = "Drawing the video"
            annotated = folder / f"{stem}{ANNOTATED_SUFFIX}"
            _draw(timeline, video, annotated, people, choices.blur_face)
        files = write_timeline(timeline, folder)
        page = write_timeline_page(timeline, folder, annotated, copy_video=False, faces_blurred=choices.blur_face)
        visitor.check_cancelled()
        archive = _pack([*files, annotated, page], folder / f"{stem}.zip")
        visitor.results = {path.name: path for path in (*files, annotated, page, archive)}
        return timeline


def _draw(timeline: Timeline, video: VideoReader, path: Path, people: FollowedPeople | None, blur_face: bool) -> None:
    """Write the annotated video; without keypoints, a blurred one is blurred as a whole."""
    if people is not None:
        sequences, layout = people.sequences(with_others=blur_face), people.layout
    else:
        # A head that is found nowhere blurs everything.
        layout = get_layout("openpose-body25")
        sequences = {0: np.zeros((timeline.num_frames, layout.num_keypoints, 3), np.float32)} if blur_face else {}
    write_annotated_video(timeline, video, path, keypoints=sequences, layout=layout, blur_face=blur_face)


def _pack(files: Sequence[Path], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            kind = zipfile.ZIP_STORED if file.suffix == ".mp4" else None
            archive.write(file, f"{path.stem}/{file.name}", kind)
    return path


class Example:
    """A video of a drawn person and its keypoints, made when it is asked for the first time.

    Args:
        folder (`Path`): Where to; made then.
        config ([`SyntheticConfig`], *optional*): Of the data set that it is from.
    """

    def __init__(self, folder: Path, config: SyntheticConfig = _EXAMPLE):
        self._folder = folder
        self._config = config
        self._lock = threading.Lock()

    def give(self, visitor: Visitor) -> None:
        """Make it the video of a visitor."""
        with self._lock:
            video, keypoints = self._folder / "example.mp4", self._folder / "keypoints"
            if not video.exists():
                synthetic = generate_video(self._config, 1, "1")
                write_openpose(keypoints, synthetic.keypoints, "example")
                pictures = ((index / self._config.fps, frame) for index, frame in enumerate(synthetic.frames()))
                write_video(video, pictures, self._config.fps)
        visitor.start_over()
        with visitor.working(), VideoReader(video) as reader:
            visitor.video, visitor.info, visitor.keypoints = video, reader.info, keypoints


def explain_error(error: Exception, *folders: Path) -> str:
    """What to tell a visitor about an error; one that is ours goes to the log.

    Args:
        error (`Exception`): What was raised.
        folders (`Path`): Places of the server that the message may name and the visitor must not see.
    """
    if isinstance(error, VisitorError | CancelledError):
        return str(error)
    if isinstance(error, ValueError):
        show_traceback(error)
        return hide_places(str(error), *folders)
    if isinstance(error, OSError) and error.strerror:
        logger.error("%s", error)
        return f"The app cannot write or read its files ({error.strerror})."
    logger.error("an analysis failed", exc_info=error)
    return _UNEXPECTED


def describe_inputs(visitor: Visitor, engine: Engine) -> str:
    """HTML that says what there is, and what follows for the analysis."""
    count = 0 if visitor.keypoints is None else sum(1 for _ in visitor.keypoints.iterdir())
    if visitor.video is None or visitor.info is None:
        return f"{NO_VIDEO}<p>Keypoints of {count} frames.</p>" if count else NO_VIDEO
    info = visitor.info
    video = (
        f"<b>{escape(visitor.video.name)}</b>: {info.duration:.1f} seconds, {info.num_frames} frames of "
        f"{info.width} x {info.height} pixels."
    )
    if count:
        people = f"Keypoints of {count} frames: the model sees pictures and pose."
    elif engine.estimator is not None:
        people = f"No keypoints: {escape(engine.estimator.name)} will look for people."
    else:
        people = (
            "No keypoints, and this app was started without a pose estimator: the model sees the pictures alone. "
            "Faces cannot be found, so with the blur on the whole picture is blurred."
        )
    return f"<p>{video}</p><p>{people}</p>"


def render_results(visitor: Visitor, timeline: Timeline) -> str:
    """HTML of the page of results in a frame, and links to the files; addresses are relative to the app's page."""
    base = f"{RESULTS_PATH}/{quote(visitor.secret)}"
    stem = make_stem(timeline.video)
    links = []
    for suffix, purpose in _DOWNLOADS.items():
        path = visitor.results[f"{stem}{suffix}"]
        links.append(
            f'<li><a href="{base}/{quote(path.name, safe="")}" download="{escape(path.name)}">{escape(path.name)}</a> '
            f"<span>{escape(purpose)}, {_format_size(path.stat().st_size)}</span></li>"
        )
    count = len(timeline.events)
    page = f"{base}/{_PAGE}"
    return (
        f"<p><b>{count} gesture{'' if count == 1 else 's'}</b> in {timeline.duration:.1f} s. Click one to see it. "
        f'<a href="{page}" target="_blank" rel="noopener">Open the page in a tab</a></p>'
        f'<iframe class="timeline" src="{page}" title="Timeline of {escape(timeline.video)}"></iframe>'
        f'<h3>Downloads</h3><ul class="downloads">{"".join(links)}</ul>'
    )


def _format_size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{math.ceil(size / 1000)} kB"


def throttled(report: Callable[[float, str], Any]) -> Report:
    """Report to a progress bar at whole per cents and new stages alone."""
    last: tuple[str, int] | None = None

    def tell(stage: str, fraction: float) -> None:
        nonlocal last
        if (now := (stage, int(100 * fraction))) != last:
            last = now
            report(fraction, stage)

    return tell


__all__ = [
    "NO_VIDEO",
    "RESULTS_PATH",
    "SUBJECTS",
    "Choices",
    "Engine",
    "Example",
    "Report",
    "WatchedVideo",
    "analyse",
    "describe_inputs",
    "explain_error",
    "render_results",
    "throttled",
]
