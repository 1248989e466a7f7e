"""One clip, for `clipmg predict` and `clipmg explain`: the prediction, and blurred faces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf import inference
from clipmg_hf.inference import ClipPrediction, FollowedPeople, InferenceModel, follow_people, load_model
from clipmg_hf.pose import load_estimator
from clipmg_hf.processing import OpenPoseSequence, VideoReader
from clipmg_hf.subject_rules import parse_subject_rule
from clipmg_hf.timeline.face_blur import SequenceFaceBlur
from clipmg_hf.timeline.records import WindowScores


_MAX_WINDOW, _WINDOWS_PER_LENGTH = 32, 4


@dataclass(frozen=True)
class ClipRequest:
    """What to predict, as it is given on the command line."""

    video: Path
    model: str
    keypoints: Path | None
    start: float | None
    end: float | None
    unit: Any
    pose: str | None
    pose_weights: str | None
    person_detector: str | None
    subject: str | None
    blur_face: bool
    device: str | None
    backend: str = "torch"


@dataclass(frozen=True, eq=False)
class PredictedClip:
    """A prediction with its model.

    Args:
        model: The model.
        prediction: Its prediction.
        bystanders: Keypoints (end - start, K, 3) of everybody whose face to blur.
        windows: To explain it, the clip in overlapping windows of half its length, at most 32 frames.
    """

    model: InferenceModel
    prediction: ClipPrediction
    bystanders: tuple[np.ndarray, ...]
    windows: tuple[WindowScores, ...] = ()


def predict_request(request: ClipRequest, explain: bool, show_progress: bool) -> PredictedClip:
    """Load what is needed and classify the clip.

    Raises:
        ValueError: Anything that cannot be: keypoints together with an estimator, faces to blur without either.
    """
    if request.keypoints is not None and request.pose is not None:
        raise ValueError("Got --keypoints and --pose; expected one of them.")
    if request.keypoints is None and request.pose is None:
        if request.blur_face:
            raise ValueError("Faces are found by keypoints; expected --keypoints or --pose to blur them.")
        if request.subject is not None:
            raise ValueError("People are found by keypoints; expected --keypoints or --pose to choose a subject.")
    if request.pose is None and (request.pose_weights or request.person_detector):
        raise ValueError("Got weights of a pose estimator without --pose; expected its name.")
    interval: dict[str, Any] = {"start": request.start, "end": request.end, "unit": request.unit}
    model, processor = load_model(request.model, request.device, backend=request.backend)
    keypoints: Any = request.keypoints
    people = None
    if request.pose is not None or request.subject is not None or request.blur_face:
        people = _follow(request, interval, show_progress)
        # Otherwise the faces alone are wanted, and they must not change what is predicted.
        if request.pose is not None or request.subject is not None:
            keypoints = _to_sequence(people)
    prediction = inference.predict_clip(model, processor, request.video, keypoints, **interval, explain=explain)
    bystanders: tuple[np.ndarray, ...] = ()
    if request.blur_face and people is not None:
        sequences = people.sequences(with_others=True).values()
        bystanders = tuple(points[prediction.start : prediction.end] for points in sequences)
    windows: tuple[WindowScores, ...] = ()
    if explain and prediction.gate_mean is not None:
        size = max(1, min(_MAX_WINDOW, (prediction.end - prediction.start) // 2))
        timeline = inference.predict_timeline(
            request.video,
            model=model,
            processor=processor,
            keypoints=keypoints if prediction.pose_used else None,
            window=size,
            stride=max(1, size // _WINDOWS_PER_LENGTH),
            start=prediction.start,
            end=prediction.end,
        )
        windows = timeline.windows
    return PredictedClip(model, prediction, bystanders, windows)


def _follow(request: ClipRequest, interval: dict[str, Any], show_progress: bool) -> FollowedPeople:
    estimator = None
    if request.pose is not None:
        estimator = load_estimator(
            request.pose,
            device=request.device,
            weights=request.pose_weights,
            person_detector=request.person_detector,
        )
    people = follow_people(
        request.video,
        keypoints=request.keypoints,
        pose=estimator,
        subject=parse_subject_rule(request.subject or "largest"),
        **interval,
        show_progress=show_progress,
    )
    assert people is not None
    return people


def _to_sequence(people: FollowedPeople) -> OpenPoseSequence:
    """The subject's keypoints, one row for each frame of the video."""
    points = people.sequences()[people.subjects[0].number]
    seen = points.any(axis=(1, 2)).astype(np.int64)
    return OpenPoseSequence(points, people.layout.name, seen, np.arange(people.num_frames))


class _BlurredVideo(VideoReader):
    """Shows a video with blurred faces; the blur counts the frames from `first`."""

    def __init__(self, source: Path, blur: SequenceFaceBlur, first: int):
        super().__init__(source)
        self._blur = blur
        self._first = first

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        frames = zip(super().read(indices), indices, strict=True)
        return np.stack([self._blur(frame, int(index) - self._first) for frame, index in frames])

    def iter_read(self, indices: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in super().iter_read(indices):
            yield index, self._blur(frame, index - self._first)


def blur_faces(clip: PredictedClip) -> ClipPrediction:
    """The prediction, to be drawn with blurred faces and without points of the face."""
    prediction, explanation = clip.prediction, clip.prediction.explanation
    assert explanation is not None and explanation.layout is not None and explanation.keypoints is not None
    blur = SequenceFaceBlur([explanation.keypoints, *clip.bystanders], explanation.layout)
    is_face = np.array([name.startswith("face_") for name in explanation.layout.keypoints])
    return replace(
        prediction,
        explanation=replace(
            explanation,
            video=_BlurredVideo(Path(prediction.video), blur, prediction.start),
            keypoints=np.where(is_face[:, None], 0.0, explanation.keypoints),
        ),
    )


__all__ = ["ClipRequest", "PredictedClip", "blur_faces", "predict_request"]
