"""Heads are found whatever is visible, and the points of a face are told from those of hands and body."""

import numpy as np
import pytest
from standing_person import LAYOUT, person

from clipmg_hf.pose.heads import face_points, head_regions
from clipmg_hf.processing import convert_keypoints, get_layout


def inside(region: np.ndarray, x: float, y: float) -> bool:
    return ((x - region[0]) / region[2]) ** 2 + ((y - region[1]) / region[3]) ** 2 < 1


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("nose", "left_eye", "right_eye"),
        ("left_ear", "right_ear"),
        ("nose", "left_ear", "left_eye"),
        ("nose", "neck"),
        ("neck", "left_shoulder", "right_shoulder"),
        ("left_shoulder", "right_shoulder", "mid_hip"),
        ("nose", "left_shoulder", "right_shoulder"),
    ],
)
def test_the_head_is_covered_whatever_is_visible(names):
    region = head_regions(person(*names), LAYOUT)
    for x, y in ((200, 105), (200, 190), (172, 150), (228, 150), (200, 150)):
        assert inside(region, x, y), (x, y, region)
    assert region[2] < 100 and region[3] < 130, "the region does not take the picture"


def test_regions_of_other_layouts_and_many_frames():
    coco = convert_keypoints(person(), LAYOUT, "coco-17", missing_keypoints="mask")
    assert inside(head_regions(coco, "coco-17"), 200, 105)
    many = np.stack([person(), person(shift=(50, 20)), np.zeros_like(person())])
    regions = head_regions(many[:, None], LAYOUT)
    assert regions.shape == (3, 1, 4)
    np.testing.assert_allclose(regions[1, 0] - regions[0, 0], (50, 20, 0, 0), atol=1e-3)
    assert np.isnan(regions[2]).all() and np.isnan(head_regions(person("nose"), LAYOUT)).all()


def test_face_points_widen_the_region():
    layout = get_layout("openpose-137")
    points = np.zeros((137, 3))
    points[:25] = person()
    points[layout.index("face_8")] = (200, 260, 1)
    assert inside(head_regions(points, layout), 200, 259)


def test_points_that_a_detector_guessed_do_not_move_the_region():
    guessed = person()
    guessed[LAYOUT.index("left_ear")] = (600, 20, 0.02)
    np.testing.assert_allclose(head_regions(guessed, LAYOUT)[:2], head_regions(person(), LAYOUT)[:2], atol=12)
    assert inside(head_regions(person(confidence=0.02), LAYOUT), 200, 150)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"keypoints have the shape \(1, 17, 3\); layout 'openpose-body25' needs"):
        head_regions(np.zeros((1, 17, 3)), LAYOUT)


def test_points_of_the_face_are_those_that_draw_its_shape():
    layout = get_layout("openpose-137")
    assert np.flatnonzero(face_points(layout)).tolist() == list(range(25, 95))
    assert not face_points(LAYOUT).any()
