import numpy as np
import pytest
import torch

from clipmg_hf.pose.estimators import (
    ESTIMATORS,
    PoseEstimatorError,
    check_frames,
    clean_people,
    clip_boxes,
    import_extra,
    load_estimator,
)


def test_an_unknown_estimator_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown pose estimator 'openpose'\. Known: vitpose, rtmpose, .*holistic\."):
        load_estimator("openpose")


@pytest.mark.parametrize("argument", ["min_confidence", "min_keypoint_confidence"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_thresholds_lie_between_0_and_1(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}, expected a number in \[0, 1\]"):
        load_estimator("vitpose", **{argument: value})


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "vitpose"])
def test_only_vitpose_has_a_type_to_choose(name):
    with pytest.raises(ValueError, match=rf"dtype is torch.bfloat16, but '{name}' runs in the type of its weights"):
        load_estimator(name, dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ["mediapipe", "mediapipe-holistic"])
def test_mediapipe_has_its_own_detector(name):
    with pytest.raises(ValueError, match=rf"person_detector is 'yolox.onnx', but '{name}' has its own"):
        load_estimator(name, person_detector="yolox.onnx")


def test_a_missing_extra_is_named_with_the_command():
    with pytest.raises(PoseEstimatorError, match=r'no_such_module cannot be .*pip install "clipmg_hf\[rtmpose\]"'):
        import_extra("no_such_module", "rtmpose")


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
    ],
)
def test_frames_of_another_form(frames):
    with pytest.raises(ValueError, match=rf"frames are {frames.dtype} of shape .*, expected uint8 of shape \(n, H, W"):
        check_frames(frames)


def test_boxes_are_cut_at_the_borders_and_empty_ones_left_out():
    boxes = [[-5, 2, 30, 9], [3, 4, 3.5, 9], [50, 0, 60, 9], [8, 1, 4, 9], [np.nan, 0, 5, 5], [10, 3, 20, 4]]
    np.testing.assert_array_equal(clip_boxes(boxes, 8, 25), [[0, 2, 25, 8], [10, 3, 20, 4]])
    assert clip_boxes(np.array([]), 8, 25).shape == (0, 4)


def test_points_that_cannot_be_seen_are_missing():
    height, width = 8, 25
    people = np.array(
        [
            # The centres of the outermost pixels, and just inside the borders of the frame.
            [[24, 7, 0.5], [24.5, -0.5, 1.7], [0, 3, 0.3], [24, 0, 0.2]],
            # Outside, not sure enough, not a number.
            [[25, 4, 0.9], [3, 7.6, 0.9], [4, 4, 0.19], [4, 4, np.nan]],
            [[np.inf, 4, 0.9], [3, np.nan, 0.9], [4, -0.6, 1], [5, 6, 0.9]],
        ]
    )
    cleaned = clean_people(people, height, width, 0.2)
    expected = np.zeros((2, 4, 3), np.float32)
    expected[0] = [[24, 7, 0.5], [24.5, -0.5, 1], [0, 3, 0.3], [24, 0, 0.2]]
    expected[1, 3] = 5, 6, 0.9
    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == np.float32
    assert clean_people(np.zeros((0, 4, 3)), height, width, 0.2).shape == (0, 4, 3)


def test_a_confidence_of_0_is_missing_whatever_is_asked_for():
    cleaned = clean_people(np.array([[[3, 4, 0], [3, 4, -0.5], [3, 4, 0.01]]]), 8, 25, 0)
    np.testing.assert_allclose(cleaned, [[[0, 0, 0], [0, 0, 0], [3, 4, 0.01]]])
