"""MediaPipe's landmarkers through its Tasks API (extra `mediapipe`), always on the CPU.

The pose landmarker gives 33 points of several people, layout "mediapipe-33": no fingers, little of the face. The
holistic landmarker adds the hands and the face of one person, in the layout "coco-wholebody-133". Frames are taken as
single images: MediaPipe's own tracking would make a result depend on the frames before it.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf.pose.estimators import PoseEstimatorError, check_frames, clean_people, import_extra
from clipmg_hf.processing import KeypointLayout, convert_keypoints, get_layout


_EXTRA = "mediapipe"
_STORAGE = "https://storage.googleapis.com/mediapipe-models"
POSE_URL = f"{_STORAGE}/pose_landmarker/pose_landmarker_full/float16/latest/pose_landmarker_full.task"
HOLISTIC_URL = f"{_STORAGE}/holistic_landmarker/holistic_landmarker/float16/latest/holistic_landmarker.task"

# The vertices of MediaPipe's face mesh that lie closest to the 68 points of iBUG, in their order.
# fmt: off
_FACE_VERTICES = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # outer lips
    78, 81, 13, 311, 308, 402, 14, 178,  # inner lips
)
# fmt: on


class MediaPipePoseEstimator:
    """The 33 points of several people; made by [`load_mediapipe`].

    Args:
        landmarker: MediaPipe's `PoseLandmarker` for images.
        make_image: Turns a frame (H, W, 3) into MediaPipe's image.
        min_keypoint_confidence: See [`load_estimator`].
    """

    name = "mediapipe"
    layout = get_layout("mediapipe-33")

    def __init__(self, landmarker: Any, make_image: Any, *, min_keypoint_confidence: float = 0.1):
        self.landmarker = landmarker
        self.make_image = make_image
        self.min_keypoint_confidence = min_keypoint_confidence

    def estimate(self, frames: np.ndarray) -> list[np.ndarray]:
        """For each frame (P, K, 3) float32, see [`PoseEstimator`]."""
        check_frames(frames)
        height, width = frames.shape[1:3]
        people = []
        for frame in frames:
            result = self.landmarker.detect(self.make_image(np.ascontiguousarray(frame)))
            points = self._read_people(result, height, width).reshape(-1, self.layout.num_keypoints, 3)
            people.append(clean_people(points, height, width, self.min_keypoint_confidence))
        return people

    def _read_people(self, result: Any, height: int, width: int) -> np.ndarray:
        return np.array([_read_points(landmarks, height, width) for landmarks in result.pose_landmarks])


class MediaPipeHolisticEstimator(MediaPipePoseEstimator):
    """The body, hands and face of one person; made by [`load_mediapipe`].

    MediaPipe has no confidence for points of hands and face: it is 1 where the hand or the face was found. Missing are
    the toes.

    Args:
        landmarker: MediaPipe's `HolisticLandmarker` for images.
        make_image, min_keypoint_confidence: As for [`MediaPipePoseEstimator`].
    """

    name = "mediapipe-holistic"
    layout: KeypointLayout = get_layout("coco-wholebody-133")

    def _read_people(self, result: Any, height: int, width: int) -> np.ndarray:
        if not result.pose_landmarks:
            return np.zeros((0, self.layout.num_keypoints, 3))
        body = _read_points(result.pose_landmarks, height, width)
        points = convert_keypoints(body, MediaPipePoseEstimator.layout, self.layout, missing_keypoints="mask")
        parts = {"left_hand_0": result.left_hand_landmarks, "right_hand_0": result.right_hand_landmarks}
        if result.face_landmarks:
            parts["face_0"] = [result.face_landmarks[vertex] for vertex in _FACE_VERTICES]
        for first_name, landmarks in parts.items():
            if landmarks:
                first = self.layout.index(first_name)
                points[first : first + len(landmarks)] = _read_points(landmarks, height, width)
                points[first : first + len(landmarks), 2] = 1
        return points[None]


def _read_points(landmarks: Sequence[Any], height: int, width: int) -> np.ndarray:
    """Landmarks in shares of the image, 0 and 1 at its borders -> (n, 3) pixels, and the visibility, else 0."""
    points = np.array([(landmark.x, landmark.y, landmark.visibility or 0) for landmark in landmarks])
    points[:, :2] = points[:, :2] * (width, height) - 0.5
    return points


def load_mediapipe(
    weights: str | PathLike | None = None,
    *,
    whole_body: bool = False,
    max_people: int = 4,
    min_confidence: float = 0.5,
    min_keypoint_confidence: float = 0.1,
) -> MediaPipePoseEstimator:
    """Load MediaPipe's pose landmarker, or with `whole_body` its holistic landmarker; see also [`load_estimator`].

    Args:
        weights: The `.task` file.
        max_people: At most so many people in a frame; the holistic landmarker knows only one.

    Raises:
        PoseEstimatorError: The extra is not installed, or the file is not there or not one of MediaPipe's.
    """
    url = HOLISTIC_URL if whole_body else POSE_URL
    how_to_fetch = f"fetch {url} and give the file as weights."
    mediapipe = import_extra("mediapipe", _EXTRA)
    tasks = import_extra("mediapipe.tasks.python", _EXTRA)
    if weights is None:
        raise PoseEstimatorError(f"MediaPipe comes without weights; {how_to_fetch}")
    if not Path(weights).is_file():
        raise PoseEstimatorError(f"weights: {weights} does not exist; {how_to_fetch}")
    options: dict[str, Any] = {
        "base_options": tasks.BaseOptions(model_asset_path=str(weights)),
        "running_mode": tasks.vision.RunningMode.IMAGE,
        "min_pose_detection_confidence": min_confidence,
    }
    try:
        if whole_body:
            options = tasks.vision.HolisticLandmarkerOptions(**options)
            landmarker = tasks.vision.HolisticLandmarker.create_from_options(options)
        else:
            options = tasks.vision.PoseLandmarkerOptions(**options, num_poses=max_people)
            landmarker = tasks.vision.PoseLandmarker.create_from_options(options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PoseEstimatorError(f"{weights} cannot be loaded by MediaPipe ({reason}); {how_to_fetch}") from error

    def make_image(frame: np.ndarray) -> Any:
        return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)

    estimator = MediaPipeHolisticEstimator if whole_body else MediaPipePoseEstimator
    return estimator(landmarker, make_image, min_keypoint_confidence=min_keypoint_confidence)


__all__ = ["HOLISTIC_URL", "POSE_URL", "MediaPipeHolisticEstimator", "MediaPipePoseEstimator", "load_mediapipe"]
