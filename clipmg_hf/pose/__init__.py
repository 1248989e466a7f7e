"""Where keypoints come from: pose estimators, OpenPose files, and who in the picture is the subject."""

from clipmg_hf.pose.estimators import ESTIMATORS, PoseEstimator, PoseEstimatorError, load_estimator
from clipmg_hf.pose.openpose_people import OpenPosePeople, read_openpose_people


__all__ = [
    "ESTIMATORS",
    "OpenPosePeople",
    "PoseEstimator",
    "PoseEstimatorError",
    "load_estimator",
    "read_openpose_people",
]
