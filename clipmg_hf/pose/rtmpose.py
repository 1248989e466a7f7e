"""RTMPose and RTMW through `rtmlib` on ONNX Runtime (extra `rtmpose`): 133 points of the whole body of each person.

rtmlib's own `Wholebody` gives a frame without people one person as large as the frame, and takes the frame in one
order of colours though the detector learned from BGR and the pose model from RGB; so its two models are called here.
"""

import contextlib
import io
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from clipmg_hf.pose.estimators import PoseEstimatorError, check_frames, clean_people, clip_boxes, import_extra
from clipmg_hf.processing import get_layout


_EXTRA = "rtmpose"
# rtmlib's choice between accuracy and speed: RTMW-x of 256 x 192 pixels.
_MODE = "balanced"


class RTMPoseEstimator:
    """Finds people with YOLOX and their points with RTMPose; made by [`load_rtmpose`].

    RTMPose scores a point by the height of two peaks, which is often above 1: it is clipped to [0, 1] here.

    Args:
        detector: rtmlib's `YOLOX`, of people only.
        model: rtmlib's `RTMPose` with 133 points.
        min_confidence, min_keypoint_confidence: See [`load_estimator`].
    """

    name = "rtmpose"
    layout = get_layout("coco-wholebody-133")

    def __init__(
        self, detector: Any, model: Any, *, min_confidence: float = 0.5, min_keypoint_confidence: float = 0.1
    ):
        self.detector = detector
        self.model = model
        self.min_confidence = min_confidence
        self.min_keypoint_confidence = min_keypoint_confidence
        detector.score_thr = min_confidence

    def estimate(self, frames: np.ndarray) -> list[np.ndarray]:
        """For each frame (P, 133, 3) float32, see [`PoseEstimator`]."""
        check_frames(frames)
        return [self._estimate_frame(np.ascontiguousarray(frame)) for frame in frames]

    def _estimate_frame(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        boxes = clip_boxes(self._detect_people(np.ascontiguousarray(frame[..., ::-1])), height, width)
        if not len(boxes):
            return np.zeros((0, self.layout.num_keypoints, 3), dtype=np.float32)
        points, scores = self.model(frame, bboxes=boxes)
        if points.shape[1] != self.layout.num_keypoints:
            raise PoseEstimatorError(
                f"The RTMPose weights give {points.shape[1]} points, expected {self.layout.num_keypoints} of a whole "
                "body."
            )
        people = np.concatenate([points, scores[..., None]], axis=-1)
        return clean_people(people, height, width, self.min_keypoint_confidence)

    def _detect_people(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) BGR -> (P, 4) left, top, right, bottom in pixels."""
        padded, ratio = self.detector.preprocess(image)
        found = self.detector.inference(padded)[0]
        if found.shape[-1] != 5:
            return self.detector.postprocess(found, ratio)
        # A network that suppresses overlaps itself: box and score. rtmlib's threshold is a fixed one for these.
        return found[0, found[0, :, 4] >= self.min_confidence, :4] / ratio


def load_rtmpose(
    weights: str | PathLike | None = None,
    person_detector: str | PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    min_confidence: float = 0.5,
    min_keypoint_confidence: float = 0.1,
) -> RTMPoseEstimator:
    """Load RTMPose and YOLOX; for the arguments see [`load_estimator`]. rtmlib downloads what is not given.

    Raises:
        PoseEstimatorError: The extra is not installed, a file is not there or not ONNX, the download fails.
        ValueError: A device that ONNX Runtime cannot use.
    """
    runtime, rtmlib = import_extra("onnxruntime", _EXTRA), import_extra("rtmlib", _EXTRA)
    for argument, path in (("weights", weights), ("person_detector", person_detector)):
        if path is not None and not Path(path).is_file():
            raise PoseEstimatorError(f"{argument}: {path} does not exist; {_how_to_fetch(rtmlib)}")
    device_name = _resolve_device(runtime, device)
    try:
        # rtmlib prints what it loads, where `--json` has the result.
        with contextlib.redirect_stdout(io.StringIO()):
            models = rtmlib.Wholebody(
                det=None if person_detector is None else str(person_detector),
                pose=None if weights is None else str(weights),
                mode=_MODE,
                backend="onnxruntime",
                device=device_name,
            )
    # ONNX Runtime's errors share no class but this one.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise PoseEstimatorError(
            f"The RTMPose weights cannot be loaded ({reason}); {_how_to_fetch(rtmlib)}"
        ) from error
    # rtmlib assumes a size for a given file. Its detector has height first, its pose model width first.
    for model, order in ((models.det_model, 1), (models.pose_model, -1)):
        size = model.session.get_inputs()[0].shape[2:]
        if all(isinstance(length, int) for length in size):
            model.model_input_size = tuple(size[::order])
    return RTMPoseEstimator(
        models.det_model,
        models.pose_model,
        min_confidence=min_confidence,
        min_keypoint_confidence=min_keypoint_confidence,
    )


def _how_to_fetch(rtmlib: ModuleType) -> str:
    urls = rtmlib.Wholebody.MODE[_MODE]
    return (
        f"fetch and unpack {urls['pose']} and {urls['det']} elsewhere, and give their end2end.onnx as weights and "
        "person_detector."
    )


def _resolve_device(runtime: ModuleType, device: str | torch.device | None) -> str:
    """The name that rtmlib takes. ONNX Runtime itself would fall back to the CPU without an error."""
    has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    if device is None:
        return "cuda" if has_cuda else "cpu"
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda", "mps") or (kind == "cuda" and not has_cuda):
        hint = " (for CUDA: pip uninstall onnxruntime && pip install onnxruntime-gpu)" if kind == "cuda" else ""
        known = ", ".join(runtime.get_available_providers())
        raise ValueError(f"device {str(device)!r} cannot be used by ONNX Runtime, which has {known}{hint}.")
    return str(device)


__all__ = ["RTMPoseEstimator", "load_rtmpose"]
