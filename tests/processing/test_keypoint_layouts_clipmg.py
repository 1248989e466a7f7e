import numpy as np
import pytest

from clipmg_hf.processing.keypoint_layouts_clipmg import (
    LAYOUTS,
    KeypointLayout,
    convert_keypoints,
    describe_conversion,
    get_layout,
    layout_from_count,
    valid_keypoints,
)


# Documented indices into openpose-137.
IMIGUE_22 = [0, 1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18, 99, 103, 107, 111, 115, 120, 124, 128, 132, 136]
IMIGUE_36 = [
    *(0, 1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 18),
    *(27, 29, 33, 37, 39, 44, 49, 52, 73, 76, 79, 82),
    *(95, 99, 103, 107, 111, 115, 116, 120, 124, 128, 132, 136),
]
IMIGUE_22_IN_LIGHT_35 = [*range(8), *range(15, 19), *range(25, 35)]
# Points of kinect-25 that no other layout has: elsewhere nothing may be taken for them.
KINECT_ONLY = {"spine_base", "spine_mid", "kinect_neck", "head", "spine_shoulder"}
KINECT_ONLY |= {f"{side}_{part}" for side in ("left", "right") for part in ("hand", "foot", "hand_tip", "thumb")}
# Points of mediapipe-33 that no other layout has.
MEDIAPIPE_ONLY = {f"{side}_{part}" for side in ("left", "right")
                  for part in ("little_knuckle", "index_knuckle", "thumb_knuckle", "foot_tip")}  # fmt: skip
OWN_POINTS = {"kinect-25": KINECT_ONLY, "mediapipe-33": MEDIAPIPE_ONLY}
BODY_25_FLIP_PAIRS = [(2, 5), (3, 6), (4, 7), (9, 12), (10, 13), (11, 14), (15, 16), (17, 18), (19, 22), (20, 23)]
BODY_25_FLIP_PAIRS += [(21, 24)]
FACE_FLIP_PAIRS = [
    *((0, 16), (1, 15), (2, 14), (3, 13), (4, 12), (5, 11), (6, 10), (7, 9)),
    *((17, 26), (18, 25), (19, 24), (20, 23), (21, 22)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58)),
    *((60, 64), (61, 63), (65, 67)),
    (68, 69),
]
# A frontal face in the 68-point order, x to the image's right of the bridge of the nose, y down.
RIGHT_HALF_OF_FACE = {
    **{i: (-10 + 0.1 * i**2, 1.5 * i) for i in range(8)},  # jaw
    **{17 + i: (-9 + 1.5 * i, -4 - i * (4 - i) / 4) for i in range(5)},  # brow
    **{31: (-2, 6), 32: (-1, 6.5)},
    **{36: (-7, -1), 37: (-6, -2), 38: (-4, -2), 39: (-3, -1), 40: (-4, 0), 41: (-6, 0)},
    **{48: (-4, 9), 49: (-2.5, 8), 50: (-1, 7.5), 58: (-1, 11), 59: (-2.5, 10.5), 60: (-3.5, 9), 61: (-1, 8.5)},
    **{67: (-1, 9.5), 68: (-5, -1)},
}
MIDDLE_OF_FACE = {8: 13, 27: -1, 28: 1, 29: 3, 30: 5, 33: 7, 51: 7.8, 57: 11.3, 62: 8.6, 66: 9.6}

all_layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


def random_keypoints(layout_name, *leading, dtype=np.float32):
    """Valid points: (*leading, K, 3)."""
    shape = (*leading, get_layout(layout_name).num_keypoints, 3)
    return np.random.default_rng(0).uniform(0.1, 1, shape).astype(dtype)


def face_points():
    """(70, 2): a face that is its own mirror image about x = 0."""
    points = np.full((70, 2), np.nan)
    for index, y in MIDDLE_OF_FACE.items():
        points[index] = 0, y
    for right, left in FACE_FLIP_PAIRS:
        index = right if right in RIGHT_HALF_OF_FACE else left
        x, y = RIGHT_HALF_OF_FACE[index]
        points[index] = x, y
        points[right + left - index] = -x, y
    assert not np.isnan(points).any()
    return points


def test_the_known_layouts_and_their_sizes():
    assert {name: layout.num_keypoints for name, layout in LAYOUTS.items()} == {
        "openpose-137": 137,
        "openpose-body25": 25,
        "imigue-22": 22,
        "imigue-36": 36,
        "imigue-light-35": 35,
        "coco-17": 17,
        "coco-wholebody-133": 133,
        "mediapipe-33": 33,
        "kinect-25": 25,
    }
    assert all(layout.name == name for name, layout in LAYOUTS.items())


@pytest.mark.parametrize(
    ("layout_name", "expected"),
    [
        ("openpose-137", {0: "nose", 1: "neck", 4: "right_wrist", 7: "left_wrist", 8: "mid_hip", 15: "right_eye"}),
        ("openpose-137", {19: "left_big_toe", 24: "right_heel", 25: "face_0", 93: "face_68", 94: "face_69"}),
        ("openpose-137", {95: "left_hand_0", 115: "left_hand_20", 116: "right_hand_0", 136: "right_hand_20"}),
        ("coco-17", {0: "nose", 1: "left_eye", 4: "right_ear", 5: "left_shoulder", 10: "right_wrist"}),
        ("coco-17", {11: "left_hip", 16: "right_ankle"}),
        ("coco-wholebody-133", {16: "right_ankle", 17: "left_big_toe", 18: "left_small_toe", 19: "left_heel"}),
        ("coco-wholebody-133", {20: "right_big_toe", 22: "right_heel", 23: "face_0", 90: "face_67"}),
        ("coco-wholebody-133", {91: "left_hand_0", 111: "left_hand_20", 112: "right_hand_0", 132: "right_hand_20"}),
        ("kinect-25", {0: "spine_base", 2: "kinect_neck", 3: "head", 4: "left_shoulder", 7: "left_hand"}),
        ("kinect-25", {8: "right_shoulder", 11: "right_hand", 12: "left_hip", 15: "left_foot", 16: "right_hip"}),
        ("kinect-25", {19: "right_foot", 20: "spine_shoulder", 21: "left_hand_tip", 22: "left_thumb"}),
        ("kinect-25", {23: "right_hand_tip", 24: "right_thumb"}),
        ("mediapipe-33", {0: "nose", 1: "face_42", 2: "left_eye", 3: "face_45", 4: "face_39", 5: "right_eye"}),
        ("mediapipe-33", {6: "face_36", 7: "left_ear", 9: "face_54", 10: "face_48", 11: "left_shoulder"}),
        ("mediapipe-33", {16: "right_wrist", 17: "left_little_knuckle", 20: "right_index_knuckle", 23: "left_hip"}),
        ("mediapipe-33", {21: "left_thumb_knuckle", 28: "right_ankle", 29: "left_heel", 32: "right_foot_tip"}),
        ("imigue-light-35", {24: "right_heel", 25: "left_hand_4", 29: "left_hand_20", 30: "right_hand_4"}),
    ],
)
def test_names_stand_at_their_documented_indices(layout_name, expected):
    layout = get_layout(layout_name)
    assert {index: layout.keypoints[index] for index in expected} == expected
    assert [layout.index(name) for name in expected.values()] == list(expected)


@all_layouts
def test_every_name_is_unique_and_belongs_to_the_shared_vocabulary(layout):
    vocabulary = {*get_layout("openpose-137").keypoints, *OWN_POINTS.get(layout.name, ())}
    assert len(set(layout.keypoints)) == layout.num_keypoints
    assert set(layout.keypoints) <= vocabulary


def test_index_of_an_unknown_name():
    with pytest.raises(
        ValueError, match=r"'coco-17' has no keypoint 'left_wirst'\. Did you mean 'left_wrist'\? Known:"
    ):
        get_layout("coco-17").index("left_wirst")


@pytest.mark.parametrize(
    ("keypoints", "edges", "message"),
    [
        (("nose", "neck", "nose"), (), "'mine' has keypoints with the same name: nose"),
        (("nose", "left_eye", "face_0"), (), "'mine' lacks the mirror images of: left_eye, face_0"),
        (("nose", "neck"), ((0, 2),), r"'mine': edge \(0, 2\) does not join two of points 0 to 1"),
        (("nose", "neck"), ((1, 1),), r"'mine': edge \(1, 1\) does not join"),
        (("nose", "neck"), ((-1, 0),), r"'mine': edge \(-1, 0\) does not join"),
    ],
)
def test_a_layout_that_contradicts_itself(keypoints, edges, message):
    with pytest.raises(ValueError, match=message):
        KeypointLayout("mine", keypoints, edges)


def test_get_layout_of_an_unknown_name_lists_the_names_and_the_closest_one():
    with pytest.raises(
        ValueError, match=r"'imigue22'\. Did you mean 'imigue-22'\? Known: openpose-137, .*, kinect-25\.$"
    ):
        get_layout("imigue22")


@all_layouts
def test_layout_from_count(layout):
    assert layout_from_count(layout.num_keypoints, layout.name) is layout
    if layout.num_keypoints != 25:
        assert (
            layout_from_count(layout.num_keypoints) is layout_from_count(layout.num_keypoints, "kinect-25") is layout
        )


def test_a_count_of_several_layouts_needs_a_name():
    for preferred in (None, "imigue-22"):
        with pytest.raises(ValueError, match=r"25 points may be those of openpose-body25 or kinect-25; expected the"):
            layout_from_count(25, preferred)


def test_layout_from_an_unknown_count_lists_the_counts():
    with pytest.raises(ValueError, match=r"No keypoint layout has 18 points\. Known: 137 \(openpose-137\), 25 "):
        layout_from_count(18)


@all_layouts
def test_the_flip_is_an_involution_over_its_pairs(layout):
    permutation = layout.flip_permutation
    assert permutation.shape == (layout.num_keypoints,)
    np.testing.assert_array_equal(permutation[permutation], np.arange(layout.num_keypoints))
    assert all(first < second for first, second in layout.flip_pairs)
    moved = [index for index, other in enumerate(permutation) if index != other]
    assert sorted(index for pair in layout.flip_pairs for index in pair) == moved
    assert all(permutation[first] == second for first, second in layout.flip_pairs)


@all_layouts
def test_a_flip_swaps_left_and_right_and_leaves_no_sided_point_in_place(layout):
    for name, other in zip(layout.keypoints, layout.flip_permutation, strict=True):
        side, _, part = name.partition("_")
        if side in ("left", "right"):
            assert layout.keypoints[other] == {"left": "right", "right": "left"}[side] + f"_{part}"


def test_the_documented_flip_pairs():
    pairs = [(2, 5), (3, 6), (4, 7), (8, 9), (10, 11), (12, 17), (13, 18), (14, 19), (15, 20), (16, 21)]
    assert list(get_layout("imigue-22").flip_pairs) == pairs
    assert list(get_layout("openpose-body25").flip_pairs) == BODY_25_FLIP_PAIRS
    face = [(25 + right, 25 + left) for right, left in FACE_FLIP_PAIRS]
    hands = [(95 + i, 116 + i) for i in range(21)]
    assert list(get_layout("openpose-137").flip_pairs) == sorted(BODY_25_FLIP_PAIRS + face + hands)
    kinect = [(4 + i, 8 + i) for i in range(4)] + [(12 + i, 16 + i) for i in range(4)] + [(21, 23), (22, 24)]
    assert list(get_layout("kinect-25").flip_pairs) == kinect
    mediapipe = [(1, 4), (2, 5), (3, 6)] + [(i, i + 1) for i in range(7, 33, 2)]
    assert list(get_layout("mediapipe-33").flip_pairs) == mediapipe
    coco = [(i, i + 1) for i in range(1, 17, 2)]
    assert list(get_layout("coco-17").flip_pairs) == coco


@all_layouts
def test_a_mirrored_face_is_the_face_itself(layout):
    names = [name for name in layout.keypoints if name.startswith("face_")]
    face = face_points()
    points = np.zeros((layout.num_keypoints, 2))
    for name in names:
        points[layout.index(name)] = face[int(name.removeprefix("face_"))]
    mirrored = points[layout.flip_permutation] * (-1, 1)
    np.testing.assert_array_equal(mirrored, points)


@all_layouts
def test_the_drawing_is_symmetric_and_draws_no_line_twice(layout):
    edges = {frozenset(edge) for edge in layout.edges}
    assert len(edges) == len(layout.edges)
    assert {frozenset(int(layout.flip_permutation[index]) for index in edge) for edge in edges} == edges


def test_the_documented_edges_of_imigue_22():
    expected = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (0, 8), (8, 10), (0, 9), (9, 11)]
    expected += [(7, tip) for tip in range(12, 17)] + [(4, tip) for tip in range(17, 22)]
    assert list(get_layout("imigue-22").edges) == expected


def test_the_edges_of_body_25():
    expected = {(1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13)}
    expected |= {(13, 14), (1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (14, 19), (19, 20), (14, 21), (11, 22)}
    expected |= {(22, 23), (11, 24)}
    assert {frozenset(edge) for edge in get_layout("openpose-body25").edges} == {frozenset(edge) for edge in expected}


@all_layouts
def test_every_point_but_the_pupils_is_drawn(layout):
    drawn = {layout.keypoints[index] for edge in layout.edges for index in edge}
    assert set(layout.keypoints) - drawn == {"face_68", "face_69"} & set(layout.keypoints)


@pytest.mark.parametrize(
    "name", ["openpose-body25", "imigue-22", "imigue-36", "imigue-light-35", "coco-17", "mediapipe-33", "kinect-25"]
)
def test_layouts_without_a_full_face_are_one_connected_figure(name):
    layout, reached = get_layout(name), {0}
    for _ in range(layout.num_keypoints):
        reached |= {index for edge in layout.edges if reached & {*edge} for index in edge}
    assert len(reached) == layout.num_keypoints


def test_faces_have_closed_eyes_and_lips():
    layout = get_layout("openpose-137")
    ring = {frozenset((layout.index(f"face_{first}"), layout.index(f"face_{last}")))
            for first, last in [(36, 41), (42, 47), (48, 59), (60, 67)]}  # fmt: skip
    assert ring <= {frozenset(edge) for edge in layout.edges}


@pytest.mark.parametrize(
    ("source", "target", "indices"),
    [
        ("openpose-137", "imigue-22", IMIGUE_22),
        ("openpose-137", "imigue-36", IMIGUE_36),
        ("openpose-137", "openpose-body25", list(range(25))),
        ("openpose-137", "imigue-light-35", [*range(25), *IMIGUE_22[12:]]),
        ("imigue-light-35", "imigue-22", IMIGUE_22_IN_LIGHT_35),
        ("imigue-36", "imigue-22", [*range(12), *range(25, 30), *range(31, 36)]),
    ],
)
def test_conversion_picks_the_documented_indices(source, target, indices):
    keypoints = random_keypoints(source, 2, 5)
    converted = convert_keypoints(keypoints, source, target)
    np.testing.assert_array_equal(converted, keypoints[..., indices, :])
    assert converted.dtype == keypoints.dtype


@all_layouts
def test_conversion_to_the_same_layout_is_a_copy(layout):
    keypoints = random_keypoints(layout.name, 3, dtype=np.float64)
    converted = convert_keypoints(keypoints, layout, layout.name)
    np.testing.assert_array_equal(converted, keypoints)
    assert converted.dtype == np.float64 and not np.shares_memory(converted, keypoints)


@all_layouts
def test_conversion_commutes_with_the_flip(layout):
    source = layout if layout.name in OWN_POINTS else get_layout("openpose-137")
    keypoints = random_keypoints(source.name, 4)
    flipped_first = convert_keypoints(keypoints[:, source.flip_permutation], source, layout)
    flipped_last = convert_keypoints(keypoints, source, layout)[:, layout.flip_permutation]
    np.testing.assert_array_equal(flipped_first, flipped_last)


@pytest.mark.parametrize("target", ["imigue-22", "imigue-36"])
def test_whole_body_keypoints_convert_to_the_subsets_of_imigue(target):
    source, layout = get_layout("coco-wholebody-133"), get_layout(target)
    keypoints = random_keypoints(source.name, 3)
    converted = convert_keypoints(keypoints, source, target)
    for index, name in enumerate(layout.keypoints):
        if name != "neck":
            np.testing.assert_array_equal(converted[:, index], keypoints[:, source.index(name)])
    left, right = (keypoints[:, source.index(f"{side}_shoulder")] for side in ("left", "right"))
    np.testing.assert_allclose(converted[:, 1, :2], (left + right)[:, :2] / 2)
    np.testing.assert_array_equal(converted[:, 1, 2], np.minimum(left[:, 2], right[:, 2]))


def test_whole_body_keypoints_convert_to_openpose_but_for_the_pupils():
    keypoints = random_keypoints("coco-wholebody-133", 3)
    with pytest.raises(
        ValueError, match="'openpose-137' has 2 keypoints that 'coco-wholebody-133' lacks: face_68, face_69"
    ):
        convert_keypoints(keypoints, "coco-wholebody-133", "openpose-137")
    converted = convert_keypoints(keypoints, "coco-wholebody-133", "openpose-137", missing_keypoints="mask")
    assert list(np.flatnonzero(~valid_keypoints(converted).all(axis=0))) == [93, 94]
    assert not converted[:, 93:95].any()


def test_coco_keypoints_become_body_25_with_a_neck_and_a_middle_of_the_hips():
    source, target = get_layout("coco-17"), get_layout("openpose-body25")
    keypoints = np.zeros((17, 3), dtype=np.float32)
    for name, values in {
        "left_shoulder": (4, 2, 0.5),
        "right_shoulder": (0, 0, 0.9),  # missing, whatever its confidence
        "left_hip": (6, 8, 0.25),
        "right_hip": (2, 8, 0.75),
    }.items():
        keypoints[source.index(name)] = values
    converted = convert_keypoints(keypoints, source, target, missing_keypoints="mask")
    np.testing.assert_array_equal(converted[target.index("neck")], (0, 0, 0))
    np.testing.assert_array_equal(converted[target.index("mid_hip")], (4, 8, 0.25))
    np.testing.assert_array_equal(converted[target.index("left_heel")], (0, 0, 0))


def test_kinect_keypoints_give_openpose_the_common_joints_and_derive_neck_and_hips():
    source, target = get_layout("kinect-25"), get_layout("openpose-body25")
    keypoints = random_keypoints("kinect-25", 4)
    converted = convert_keypoints(keypoints, source, target, missing_keypoints="mask")
    common = [f"{side}_{part}" for side in ("left", "right")
              for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")]  # fmt: skip
    for name in common:
        np.testing.assert_array_equal(converted[:, target.index(name)], keypoints[:, source.index(name)])
    for name, part in (("neck", "shoulder"), ("mid_hip", "hip")):
        middle = (keypoints[:, source.index(f"left_{part}")] + keypoints[:, source.index(f"right_{part}")]) / 2
        np.testing.assert_allclose(converted[:, target.index(name), :2], middle[:, :2])
    others = [index for index, name in enumerate(target.keypoints) if name not in (*common, "neck", "mid_hip")]
    assert not converted[:, others].any()


def test_the_first_point_of_a_hand_is_the_wrist_where_the_source_has_no_hands():
    keypoints = random_keypoints("coco-17", 4)
    source, target = get_layout("coco-17"), get_layout("imigue-36")
    keypoints[0, source.index("left_wrist")] = 0
    converted = convert_keypoints(keypoints, source, target, missing_keypoints="mask")
    for side in ("left", "right"):
        wrist = keypoints[:, source.index(f"{side}_wrist")]
        np.testing.assert_array_equal(converted[:, target.index(f"{side}_hand_0")], wrist)
    with_hands = random_keypoints("coco-wholebody-133")
    hand = get_layout("coco-wholebody-133").index("left_hand_0")
    expected = with_hands[hand]
    np.testing.assert_array_equal(
        convert_keypoints(with_hands, "coco-wholebody-133", target)[target.index("left_hand_0")], expected
    )


TIPS = {f"{side}_hand_{point}" for side in ("left", "right") for point in range(4, 21, 4)}
FACE_12 = {f"face_{point}" for point in (2, 4, 8, 12, 14, 19, 24, 27, 48, 51, 54, 57)}
TOES = {f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")}
HEELS = {"left_heel", "right_heel"}


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        ("coco-17", "imigue-22", TIPS),
        ("coco-17", "imigue-36", TIPS | FACE_12),
        ("coco-17", "imigue-light-35", TIPS | TOES),
        ("coco-wholebody-133", "imigue-22", set()),
        ("coco-wholebody-133", "imigue-36", set()),
        ("coco-wholebody-133", "imigue-light-35", set()),
        ("mediapipe-33", "imigue-22", TIPS),
        ("mediapipe-33", "imigue-36", TIPS | FACE_12 - {"face_48", "face_54"}),
        ("mediapipe-33", "imigue-light-35", TIPS | TOES - HEELS),
        ("openpose-body25", "imigue-22", TIPS),
        ("openpose-137", "imigue-36", set()),
    ],
)
def test_the_points_that_an_estimator_cannot_give(source, target, missing):
    names = describe_conversion(source, target)
    assert set(names) == missing and list(names) == [name for name in get_layout(target).keypoints if name in missing]
    converted = convert_keypoints(
        random_keypoints(source, 2), get_layout(source), get_layout(target), missing_keypoints="mask"
    )
    given = valid_keypoints(converted).all(axis=0)
    assert names == tuple(name for name, there in zip(get_layout(target).keypoints, given, strict=True) if not there)


def test_a_conversion_between_unknown_layouts():
    with pytest.raises(ValueError, match="Unknown keypoint layout 'coco-18'"):
        describe_conversion("coco-18", "imigue-22")


def test_a_neck_that_the_source_has_is_not_derived():
    keypoints = random_keypoints("openpose-137")
    keypoints[1] = 0
    assert not convert_keypoints(keypoints, "openpose-137", "imigue-22")[1].any()


def test_many_missing_points_are_summarized():
    message = (
        r"'openpose-137' has 116 keypoints that 'coco-17' lacks: left_big_toe, .*, face_0\.\.face_69 \(70\), "
        r"left_hand_1\.\.left_hand_20 \(20\), right_hand_1\.\.right_hand_20 \(20\)\. With missing_keypoints='mask'"
    )
    with pytest.raises(ValueError, match=message):
        convert_keypoints(random_keypoints("coco-17"), "coco-17", "openpose-137")


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (np.zeros((4, 25, 3), np.float32), r"float32 of shape \(4, 25, 3\); layout 'openpose-137' needs .* 137, 3\)"),
        (np.zeros((4, 137, 2), np.float32), r"float32 of shape \(4, 137, 2\)"),
        (np.zeros((4, 137, 3), np.int64), r"int64 of shape \(4, 137, 3\); .* floating point"),
    ],
)
def test_keypoints_that_do_not_fit_the_source_layout(keypoints, message):
    with pytest.raises(ValueError, match=message):
        convert_keypoints(keypoints, "openpose-137", "imigue-22")


def test_an_unknown_way_with_missing_points():
    with pytest.raises(ValueError, match="missing_keypoints is 'zero', expected 'error' or 'mask'"):
        convert_keypoints(random_keypoints("coco-17"), "coco-17", "coco-17", missing_keypoints="zero")


def test_valid_keypoints():
    keypoints = np.array(
        [[[5, 6, 0.5], [0, 6, 0.5], [5, 0, 0.5], [-3, -1, 0.1]], [[0, 0, 0]] * 2 + [[0, 0, 1], [5, 6, 0]]]
    )
    np.testing.assert_array_equal(valid_keypoints(keypoints), [[True] * 4, [False] * 4])
