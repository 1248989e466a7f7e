"""Pose estimators behind one interface: frames in, the people of every frame out.

    estimator = load_estimator("vitpose")
    people = estimator.estimate(frames)  # for each frame (P, K, 3)

K is the number of points of `estimator.layout`. [`describe_conversion`] names the points of another layout that it
cannot give, [`convert_keypoints`] with `missing_keypoints="mask"` converts and masks these.
"""

import importlib
from os import PathLike
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from clipmg_hf.pose_choice import ESTIMATORS
from clipmg_hf.processing import KeypointLayout


class PoseEstimatorError(ValueError):
    """An estimator cannot be used; the message says what was found and what to install or fetch."""


class PoseEstimator(Protocol):
    """Finds people and their keypoints in frames, each frame by itself."""

    name: str
    layout: KeypointLayout

    def estimate(self, frames: np.ndarray) -> list[np.ndarray]:
        """Find the people of every frame.

        Args:
            frames: (n, H, W, 3) uint8 RGB, upright.

        Returns:
            For each frame (P, K, 3) float32: x, y in pixels of the frame, integers at pixel centres, and a confidence
            in [0, 1]. A missing point is (0, 0, 0); P is 0 where nobody was found, and nobody lacks all points.

        Raises:
            ValueError: Frames of another type or shape.
        """
        ...


def load_estimator(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    weights: str | PathLike | None = None,
    person_detector: str | PathLike | None = None,
    min_confidence: float = 0.5,
    min_keypoint_confidence: float = 0.1,
) -> PoseEstimator:
    """Load a pose estimator.

    Args:
        name: "vitpose" (17 points, of transformers), "rtmpose" or "rtmw" (133 points of the whole body; extra
            `rtmpose`), "mediapipe" (33 points) or "mediapipe-holistic" (133 points of one person; extra `mediapipe`).
        device: A CUDA device where there is one, else the CPU. MediaPipe always runs on the CPU.
        dtype: Type of ViTPose's and its detector's weights; float32 by default. The others have none to choose.
        weights: ViTPose: a folder or a name on the Hub. RTMPose: an `.onnx` file. MediaPipe: a `.task` file, which has
            to be given. The defaults of the others are downloaded.
        person_detector: ViTPose: a folder or a name on the Hub. RTMPose: an `.onnx` file. MediaPipe brings its own.
        min_confidence: People whom the detector is less sure of are left out; in [0, 1].
        min_keypoint_confidence: Points below it are missing; in [0, 1].

    Raises:
        PoseEstimatorError: The extra is not installed, or weights are not there or not what they should be.
        ValueError: An unknown name, or an argument out of its range or that the estimator does not take.
    """
    for argument, value in (("min_confidence", min_confidence), ("min_keypoint_confidence", min_keypoint_confidence)):
        if not 0 <= value <= 1:
            raise ValueError(f"{argument} is {value!r}, expected a number in [0, 1].")
    if name not in ESTIMATORS:
        raise ValueError(f"Unknown pose estimator {name!r}. Known: {', '.join(ESTIMATORS)}.")
    if dtype is not None and name != "vitpose":
        raise ValueError(f"dtype is {dtype}, but {name!r} runs in the type of its weights; expected None.")
    thresholds: dict[str, Any] = {
        "min_confidence": min_confidence,
        "min_keypoint_confidence": min_keypoint_confidence,
    }
    # Each module imports what only its own users have installed.
    if name == "vitpose":
        from clipmg_hf.pose.vitpose import load_vitpose

        return load_vitpose(weights, person_detector, device=device, dtype=dtype, **thresholds)
    if name in ("rtmpose", "rtmw"):
        from clipmg_hf.pose.rtmpose import load_rtmpose

        return load_rtmpose(weights, person_detector, device=device, **thresholds)
    if person_detector is not None:
        raise ValueError(f"person_detector is {str(person_detector)!r}, but {name!r} has its own; expected None.")
    from clipmg_hf.pose.mediapipe_pose import load_mediapipe

    return load_mediapipe(weights, whole_body=name == "mediapipe-holistic", **thresholds)


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency; a PoseEstimatorError that names the extra when it cannot be."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PoseEstimatorError(
            f'{module} cannot be imported ({error}); install it with: pip install "clipmg_hf[{extra}]"'
        ) from error


def check_frames(frames: np.ndarray) -> None:
    """Raise a ValueError unless `frames` are (n, H, W, 3) uint8."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:3]:
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}, expected uint8 of shape (n, H, W, 3).")


def clip_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut boxes at the borders of the frame and leave out those without a pixel.

    Args:
        boxes: (P, 4) left, top, right, bottom in pixels of a frame of the given size.

    Returns:
        (P', 4) float32, P' at most P.
    """
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    # The comparison is false for NaN.
    return boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)]


def clean_people(people: np.ndarray, height: int, width: int, min_keypoint_confidence: float) -> np.ndarray:
    """Make what a network says the result of an estimator.

    Confidences are clipped to [0, 1]. Points become missing, (0, 0, 0), that are less sure than asked for, not finite
    or outside the frame, where nothing can be seen. People without a point are left out.

    Args:
        people: (P, K, 3) x, y in pixels of a frame of the given size and confidence.

    Returns:
        (P', K, 3) float32, P' at most P.
    """
    people = np.array(people, dtype=np.float32)
    people[..., 2] = np.clip(people[..., 2], 0, 1)
    x, y, confidence = np.moveaxis(people, -1, 0)
    # Comparisons are false for NaN.
    is_there = (confidence > 0) & (confidence >= min_keypoint_confidence)
    is_there &= (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    people[~is_there] = 0
    return people[is_there.any(axis=1)]


__all__ = ["ESTIMATORS", "PoseEstimator", "PoseEstimatorError", "load_estimator"]
