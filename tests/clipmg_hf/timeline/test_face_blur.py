"""Faces: heads are found whatever is visible, nothing of a face is left, and no face flashes up."""

import numpy as np
import pytest

from clipmg_hf.processing import VideoReader, convert_keypoints, get_layout, read_openpose
from clipmg_hf.timeline.face_blur import FaceBlur, SequenceFaceBlur, blur_face, blur_frame, head_regions


LAYOUT = get_layout("openpose-body25")
# A head 92 pixels high, from 100 to 192, seen from the front: x is 200, the eyes are half way.
PLACES = {
    "nose": (200, 159),
    "left_eye": (212, 146),
    "right_eye": (188, 146),
    "left_ear": (230, 150),
    "right_ear": (170, 150),
    "neck": (200, 240),
    "left_shoulder": (272, 240),
    "right_shoulder": (128, 240),
    "mid_hip": (200, 430),
}
NOISE = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)


def person(*names, shift=(0, 0), confidence=0.9) -> np.ndarray:
    """(25, 3) with the named points of `PLACES`, all of them without names."""
    points = np.zeros((LAYOUT.num_keypoints, 3), np.float32)
    for name in names or PLACES:
        points[LAYOUT.index(name)] = (*np.add(PLACES[name], shift), confidence)
    return points


def detail(image: np.ndarray, x: int, y: int, half: int = 20) -> float:
    """Standard deviation of neighbouring pixels' differences around a place; 80 in the noise."""
    part = image[y - half : y + half, x - half : x + half].astype(float)
    return float(np.diff(part, axis=1).std())


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
    coco = convert_keypoints(person(), LAYOUT, "coco-17", missing="mask")
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


def test_nothing_of_the_face_is_left_and_the_rest_is_untouched():
    blurred = blur_face(NOISE, person(), LAYOUT)
    assert detail(NOISE, 200, 150) > 70 and detail(blurred, 200, 150) < 1
    assert (blurred[300:] == NOISE[300:]).all() and (blurred[:, 320:] == NOISE[:, 320:]).all()
    assert NOISE.flags.owndata and blurred is not NOISE
    # Faces with the same colours in the large come out alike.
    checked = NOISE.copy()
    checked[100:200, 150:250] = np.where(np.indices((100, 100)).sum(0)[..., None] // 5 % 2, 200, 60)
    other = NOISE.copy()
    other[100:200, 150:250] = np.where(np.indices((100, 100))[0][..., None] // 5 % 2, 200, 60)
    faces = [blur_face(image, person(), LAYOUT)[120:180, 170:230].astype(int) for image in (checked, other)]
    assert np.abs(faces[0] - faces[1]).max() < 12


def test_everybody_is_blurred():
    blurred = blur_face(NOISE, np.stack([person(), person(shift=(250, 60))]), LAYOUT)
    assert detail(blurred, 200, 150) < 1 and detail(blurred, 450, 210) < 1 and detail(blurred, 330, 420) > 70


def test_heads_at_the_edge_and_outside():
    assert detail(blur_face(NOISE, person(shift=(-190, 0)), LAYOUT), 20, 150) < 1
    assert (blur_face(NOISE, person(shift=(5000, 0)), LAYOUT) == NOISE).all()


@pytest.mark.parametrize("points", [np.zeros((25, 3)), np.zeros((0, 25, 3)), person("nose"), person("mid_hip")])
def test_an_unknown_head_blurs_the_whole_picture(points):
    blurred = blur_face(NOISE, points, LAYOUT)
    np.testing.assert_array_equal(blurred, blur_frame(NOISE))
    assert max(detail(blurred, x, y) for x in (50, 320, 600) for y in (50, 240, 440)) < 1


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"keypoints have the shape \(1, 17, 3\); layout 'openpose-body25' needs"):
        blur_face(NOISE, np.zeros((17, 3)), LAYOUT)


def test_a_stream_holds_the_last_region_and_lets_it_grow():
    blur = FaceBlur(LAYOUT)
    np.testing.assert_array_equal(blur(NOISE, np.zeros((1, 25, 3))), blur_frame(NOISE))
    found = blur(NOISE, person())
    lost = [blur(NOISE, np.zeros((1, 25, 3), np.float32)) for _ in range(40)]
    areas = [(image != NOISE).any(axis=-1).sum() for image in (found, lost[0], lost[20], lost[39])]
    assert areas[0] < areas[1] < areas[2] < areas[3] < 0.3 * NOISE[..., 0].size
    assert all(detail(image, 200, 150) < 1 for image in lost)
    # Nobody in the array at all is the same as somebody who is not found.
    assert detail(blur(NOISE, np.zeros((0, 25, 3))), 200, 150) < 1


def test_a_stream_covers_the_place_that_a_point_jumped_away_from():
    blur = FaceBlur(LAYOUT)
    for _ in range(10):
        blur(NOISE, person())
    assert detail(blur(NOISE, person(shift=(300, 200))), 200, 150) < 1


def test_a_stream_blurs_the_whole_frame_for_somebody_whose_head_was_never_seen():
    blur = FaceBlur(LAYOUT)
    people = np.stack([person(), person("mid_hip", shift=(200, 0))])
    np.testing.assert_array_equal(blur(NOISE, people), blur_frame(NOISE))


def test_a_sequence_looks_ahead():
    points = np.zeros((30, 25, 3), np.float32)
    points[10], points[20] = person(), person(shift=(200, 0))
    blur = SequenceFaceBlur(points, LAYOUT)
    assert detail(blur(NOISE, 0), 200, 150) < 1
    assert detail(blur(NOISE, 15), 300, 150) < 1
    assert detail(blur(NOISE, 29), 400, 150) < 1
    assert detail(blur(NOISE, 29), 500, 400) > 70


def test_a_sequence_covers_the_place_that_a_point_jumped_away_from():
    points = np.stack([person()] * 30)
    points[12:15] = person(shift=(300, 200))
    assert detail(SequenceFaceBlur(points, LAYOUT)(NOISE, 13), 200, 150) < 1


def test_a_sequence_without_a_head_is_blurred_as_a_whole():
    nobody = np.zeros((5, 25, 3), np.float32)
    np.testing.assert_array_equal(SequenceFaceBlur([nobody], LAYOUT)(NOISE, 2), blur_frame(NOISE))
    headless = nobody.copy()
    headless[3] = person("mid_hip")
    blur = SequenceFaceBlur([np.stack([person()] * 5), headless], LAYOUT)
    np.testing.assert_array_equal(blur(NOISE, 3), blur_frame(NOISE))
    assert detail(blur(NOISE, 2), 500, 400) > 70


def test_somebody_without_a_head_is_not_covered_by_the_head_of_who_was_there_before():
    points = np.zeros((30, 25, 3), np.float32)
    points[:10], points[11:20] = person(shift=(-60, 0)), person("mid_hip", shift=(250, 0))
    blur = SequenceFaceBlur(points, LAYOUT)
    for index in (11, 15, 19):
        np.testing.assert_array_equal(blur(NOISE, index), blur_frame(NOISE))
    for index in (5, 10, 25):
        assert detail(blur(NOISE, index), 140, 150) < 1 and detail(blur(NOISE, index), 500, 400) > 70
    # Before the head is found it is where that person's head is, not where the one before had it.
    points[19] = person(shift=(250, 0))
    blur = SequenceFaceBlur(points, LAYOUT)
    assert detail(blur(NOISE, 11), 450, 150) < 1 and detail(blur(NOISE, 11), 600, 400) > 70


def test_a_sequence_of_a_scaled_picture():
    blur = SequenceFaceBlur(np.stack([person()] * 3), LAYOUT)
    half = NOISE[:240, :320]
    assert detail(blur(half, 1, scale=0.5), 100, 75, 10) < 1
    assert (blur(half, 1, scale=0.5)[150:] == half[150:]).all()


def test_heads_of_real_people(realdata):
    folder = realdata / "openpose" / "slp_full137"
    sequence = read_openpose(folder / "json")
    with VideoReader(folder / "video.mp4") as reader:
        frames = reader.read(range(len(sequence.keypoints)))
    blur = SequenceFaceBlur(sequence.keypoints, sequence.layout)
    layout = get_layout(sequence.layout)
    face = [index for index, name in enumerate(layout.keypoints) if name.startswith("face_")]
    for index, (frame, points) in enumerate(zip(frames, sequence.keypoints, strict=True)):
        left, top = points[face, :2].min(axis=0).astype(int)
        right, bottom = points[face, :2].max(axis=0).astype(int)
        before, after = (
            np.abs(np.diff(image[top:bottom, left:right].astype(float), axis=1)).max()
            for image in (frame, blur(frame, index))
        )
        assert after < 8 < before
