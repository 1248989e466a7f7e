"""Everybody in OpenPose's JSON files, in the form in which pose estimators return people."""

from typing import NamedTuple

import numpy as np

from clipmg_hf.processing import KeypointLayout, get_layout, read_openpose_frames, valid_keypoints
from clipmg_hf.processing.openpose_clipmg import KeypointFiles


class OpenPosePeople(NamedTuple):
    """The people of T frames, in ascending order of the frame numbers.

    Args:
        people: T arrays (P, K, 3) float32: x, y in pixels of the source frame and confidence in [0, 1]; a missing
            point is (0, 0, 0), nobody lacks all points.
        layout: "openpose-137", or "openpose-body25" when nobody in any frame has a face or a hand.
        frame_numbers: (T,) int64, consecutive, from the file names; the first need not be 0.
        person_ids: T arrays (P,) int64, the numbers that OpenPose gave when it tracked people, else -1.
    """

    people: list[np.ndarray]
    layout: KeypointLayout
    frame_numbers: np.ndarray
    person_ids: list[np.ndarray]


def read_openpose_people(source: KeypointFiles, *, allow_gaps: bool = False) -> OpenPosePeople:
    """Read everybody's keypoints from OpenPose's JSON files.

    Args:
        source: A folder of `*_keypoints.json` files, one file, or a list of files.
        allow_gaps: Return missing frame numbers as frames without people instead of raising.

    Raises:
        KeypointFileError: A path, file name, frame number or file content that is not OpenPose's.
    """
    frames = read_openpose_frames(source, allow_gaps=allow_gaps)
    people, person_ids = [], []
    for points, numbers in zip(frames.people, frames.person_ids, strict=True):
        is_there = valid_keypoints(points)
        # OpenPose's confidence exceeds 1 now and then.
        cleaned = np.where(is_there[..., None], np.minimum(points, (np.inf, np.inf, 1)), 0).astype(np.float32)
        kept = is_there.any(axis=1)
        people.append(cleaned[kept])
        person_ids.append(numbers[kept])
    return OpenPosePeople(people, get_layout(frames.layout), frames.frame_numbers, person_ids)


__all__ = ["OpenPosePeople", "read_openpose_people"]
