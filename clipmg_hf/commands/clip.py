"""One clip, for `clipmg predict` and `clipmg explain`: the prediction, and blurred faces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf import inference
from clipmg_hf.inference import ClipPrediction, FollowedPeople, InferenceModel, follow_people, load_model
from clipmg_hf.pose_choice import check_pose_choice, load_pose_choice
from clipmg_hf.processing import OpenPoseSequence
from clipmg_hf.subject_rules import parse_subject_rule
from clipmg_hf.timeline.face_blur import blur_clip
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
    revision: str | None
    backend: str = "torch"


@dataclass(frozen=True, eq=False)
class PredictedClip:
    """A prediction with its model.

    Args:
        model: The model.
        prediction: Its prediction; on request drawn with blurred faces.
        windows: To explain it, the clip in overlapping windows of half its length, at most 32 frames.
    """

    model: InferenceModel
    prediction: ClipPrediction
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
    check_pose_choice(request.pose, request.pose_weights, request.person_detector)
    interval: dict[str, Any] = {"start": request.start, "end": request.end, "unit": request.unit}
    model, processor = load_model(request.model, request.device, None, request.backend, request.revision)
    keypoints: Any = request.keypoints
    people = None
    if request.pose is not None or request.subject is not None or request.blur_face:
        people = _follow(request, interval, show_progress)
        # Otherwise the faces alone are wanted, and they must not change what is predicted.
        if request.pose is not None or request.subject is not None:
            keypoints = _to_sequence(people)
    prediction = inference.predict_clip(model, processor, request.video, keypoints, **interval, explain=explain)
    if request.blur_face and people is not None:
        sequences = people.sequences(with_others=True).values()
        prediction = blur_clip(prediction, [points[prediction.start : prediction.end] for points in sequences])
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
    return PredictedClip(model, prediction, windows)


def _follow(request: ClipRequest, interval: dict[str, Any], show_progress: bool) -> FollowedPeople:
    people = follow_people(
        request.video,
        keypoints=request.keypoints,
        pose=load_pose_choice(request.pose, request.pose_weights, request.person_detector, request.device),
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


__all__ = ["ClipRequest", "PredictedClip", "predict_request"]
