"""Which pose estimator is chosen, for the command line and for scripts; imports nothing that is heavy."""

from os import PathLike
from typing import TYPE_CHECKING, Literal, get_args


if TYPE_CHECKING:
    import torch

    from clipmg_hf.pose import PoseEstimator

PoseName = Literal["vitpose", "rtmpose", "rtmw", "mediapipe", "mediapipe-holistic"]
ESTIMATORS: tuple[str, ...] = get_args(PoseName)


def check_pose_choice(
    pose: str | None, pose_weights: str | PathLike | None, person_detector: str | PathLike | None
) -> None:
    """Raise a ValueError for what belongs to an estimator where none is chosen."""
    for option, value in (("pose_weights", pose_weights), ("person_detector", person_detector)):
        if pose is None and value is not None:
            known = ", ".join(ESTIMATORS)
            raise ValueError(
                f"{option} is {str(value)!r} without pose; expected the estimator that it is for: {known}."
            )


def load_pose_choice(
    pose: str | None,
    pose_weights: str | PathLike | None,
    person_detector: str | PathLike | None,
    device: "str | torch.device | None",
) -> "PoseEstimator | None":
    """Load the pose estimator that was chosen; `None` if none was.

    Raises:
        ValueError: As in `clipmg_hf.pose.load_estimator`, or weights without the name of an estimator.
    """
    check_pose_choice(pose, pose_weights, person_detector)
    if pose is None:
        return None
    from clipmg_hf.pose import load_estimator

    return load_estimator(pose, device=device, weights=pose_weights, person_detector=person_detector)


__all__ = ["ESTIMATORS", "PoseName", "check_pose_choice", "load_pose_choice"]
