"""The columns of a row, the same for every data set and every storage form.

A row is a clip: an interval of an untrimmed video, its label, and its keypoints. T is the number of frames of the
interval, K that of the keypoints of the data set's layout.

| column | type | meaning |
|---|---|---|
| clip_id, video_id | string | unique in the data set; the untrimmed video |
| start_frame, end_frame | int32 | 0-based frames of the untrimmed video, end included: T = end - start + 1 |
| fps | float32 or None | frames per second |
| label | ClassLabel | -1 where the files hide it; with `background_share` the last class is "Background" |
| group | ClassLabel | part of the body that the class concerns; -1 where the label is |
| subject | int32 or None | number of the person, where the files have it |
| emotion | ClassLabel or None | "loss" or "win", where the files have it (iMiGUE) |
| width, height | int32 or None | size of the video's frames in pixels |
| video | string or None, or {"bytes", "path"} | path of a file, or in prepared data the file itself |
| video_start_frame | int32 | frame of the untrimmed video that the file's first frame shows; 0 for untrimmed files |
| keypoints | float32 (T, K, 3) or None | x, y in pixels of the video's frames, confidence; missing points are 0 |
| keypoints_valid | bool (T, K) or None | which points are there |
| keypoint_layout | string or None | name of the layout, see `clipmg_hf.processing.LAYOUTS` |

`datasets` shows keypoints that are None as NaN in every format but Arrow.

`gender` and `nationality` (strings) are there only if asked for. Data sets without skeletons lack the three keypoint
columns. Prepared data has `crop` besides: left, top, width, height in source pixels of what the file shows.
"""

from collections.abc import Sequence
from typing import Any

import datasets

from clipmg_hf.processing import get_layout


EMOTIONS = ("loss", "win")
HIDDEN_LABEL = -1
PERSONAL_COLUMNS = ("gender", "nationality")


def clip_features(
    label_names: Sequence[str],
    group_names: Sequence[str],
    keypoint_layout: str | None,
    personal_data: bool = False,
    prepared: bool = False,
) -> datasets.Features:
    """The features of a clip data set, in the order of the table above.

    Args:
        label_names, group_names (`Sequence[str]`): Names of the classes and of the body-part groups.
        keypoint_layout (`str` or `None`): Layout of the keypoints; `None` for data without skeletons.
        personal_data (`bool`, defaults to `False`): With gender and nationality.
        prepared (`bool`, defaults to `False`): The rows hold the video files.
    """
    features: dict[str, Any] = {
        "clip_id": datasets.Value("string"),
        "video_id": datasets.Value("string"),
        "start_frame": datasets.Value("int32"),
        "end_frame": datasets.Value("int32"),
        "fps": datasets.Value("float32"),
        "label": datasets.ClassLabel(names=list(label_names)),
        "group": datasets.ClassLabel(names=list(group_names)),
        "subject": datasets.Value("int32"),
        "emotion": datasets.ClassLabel(names=list(EMOTIONS)),
        **{name: datasets.Value("string") for name in PERSONAL_COLUMNS if personal_data},
        "width": datasets.Value("int32"),
        "height": datasets.Value("int32"),
        "video": datasets.Video(decode=False) if prepared else datasets.Value("string"),
        "video_start_frame": datasets.Value("int32"),
        **keypoint_features(keypoint_layout),
    }
    if prepared:
        features["crop"] = datasets.List(datasets.Value("int32"), length=4)
    return datasets.Features(features)


def keypoint_features(keypoint_layout: str | None) -> dict[str, Any]:
    """The three columns of keypoints of a layout; none without a layout."""
    if keypoint_layout is None:
        return {}
    num_keypoints = get_layout(keypoint_layout).num_keypoints
    return {
        "keypoints": datasets.Array3D((None, num_keypoints, 3), "float32"),
        "keypoints_valid": datasets.Array2D((None, num_keypoints), "bool"),
        "keypoint_layout": datasets.Value("string"),
    }


__all__ = ["EMOTIONS", "HIDDEN_LABEL", "PERSONAL_COLUMNS", "clip_features", "keypoint_features"]
