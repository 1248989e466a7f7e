"""Faces: nothing of a face is left, and no face flashes up, in videos and in the drawings of a clip."""

import sys

import numpy as np
import pytest
from standing_person import LAYOUT, person

from clipmg_hf.inference import predict_clip
from clipmg_hf.pose.heads import face_points
from clipmg_hf.processing import VideoReader, get_layout, read_openpose
from clipmg_hf.timeline.face_blur import SequenceFaceBlur, blur_clip, blur_frame, is_blurred


NOISE = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)


def blur(image: np.ndarray, *people: np.ndarray) -> np.ndarray:
    """Blur the only frame of a video with these people, (K, 3) each."""
    return SequenceFaceBlur([points[None] for points in people], LAYOUT)(image, 0)


def detail(image: np.ndarray, x: int, y: int, half: int = 20) -> float:
    """Standard deviation of neighbouring pixels' differences around a place; 80 in the noise."""
    part = image[y - half : y + half, x - half : x + half].astype(float)
    return float(np.diff(part, axis=1).std())


def test_nothing_of_the_face_is_left_and_the_rest_is_untouched():
    blurred = blur(NOISE, person())
    assert detail(NOISE, 200, 150) > 70 and detail(blurred, 200, 150) < 1
    assert (blurred[300:] == NOISE[300:]).all() and (blurred[:, 320:] == NOISE[:, 320:]).all()
    assert NOISE.flags.owndata and blurred is not NOISE
    # Faces with the same colours in the large come out alike.
    checked = NOISE.copy()
    checked[100:200, 150:250] = np.where(np.indices((100, 100)).sum(0)[..., None] // 5 % 2, 200, 60)
    other = NOISE.copy()
    other[100:200, 150:250] = np.where(np.indices((100, 100))[0][..., None] // 5 % 2, 200, 60)
    faces = [blur(image, person())[120:180, 170:230].astype(int) for image in (checked, other)]
    assert np.abs(faces[0] - faces[1]).max() < 12


def test_everybody_is_blurred():
    blurred = blur(NOISE, person(), person(shift=(250, 60)))
    assert detail(blurred, 200, 150) < 1 and detail(blurred, 450, 210) < 1 and detail(blurred, 330, 420) > 70


def test_heads_at_the_edge_and_outside():
    assert detail(blur(NOISE, person(shift=(-190, 0))), 20, 150) < 1
    assert (blur(NOISE, person(shift=(5000, 0))) == NOISE).all()


@pytest.mark.parametrize("people", [[], [np.zeros((25, 3))], [person("nose")], [person("mid_hip")]])
def test_an_unknown_head_blurs_the_whole_picture(people):
    blurred = blur(NOISE, *people)
    np.testing.assert_array_equal(blurred, blur_frame(NOISE))
    assert max(detail(blurred, x, y) for x in (50, 320, 600) for y in (50, 240, 440)) < 1


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


def test_a_clip_is_drawn_with_blurred_faces(loaded, video, points):
    plain = predict_clip(*loaded, video, points, start=2, end=10, explain=True)
    blurred = blur_clip(plain)
    assert is_blurred(blurred) and not is_blurred(plain) and blurred.scores == plain.scores
    before, after = plain.explanation, blurred.explanation
    face = face_points(before.layout)
    assert before.keypoints[:, face].all() and not after.keypoints[:, face].any()
    np.testing.assert_array_equal(after.keypoints[:, ~face], before.keypoints[:, ~face])
    expected = SequenceFaceBlur(before.keypoints, before.layout)
    with VideoReader(video) as reader:
        frames = reader.read(range(12))
    for index, frame in after.video.iter_frames():
        # Nobody was looked for outside the clip.
        is_known = 2 <= index < 10
        np.testing.assert_array_equal(
            frame, expected(frames[index], index - 2) if is_known else blur_frame(frames[index])
        )
        np.testing.assert_array_equal(after.video.read([index])[0], frame)


def test_a_clip_in_memory_is_blurred_with_its_bystanders(loaded, video, points):
    with VideoReader(video) as reader:
        frames = reader.read(range(12))
    prediction = predict_clip(*loaded, frames, points, explain=True)
    other = prediction.explanation.keypoints * (0.1, 0.1, 1)
    alone, both = (blur_clip(prediction, others).explanation.video.read([3])[0] for others in ((), (other,)))
    assert (alone != frames[3]).any() and (alone != both).any()
    with pytest.raises(ValueError, match="bystander 0 has keypoints of shape"):
        blur_clip(prediction, [other[1:]])


def test_a_clip_without_keypoints_or_explanation_cannot_be_blurred(loaded, video, points):
    with pytest.raises(ValueError, match="faces are found by keypoints, and there are none"):
        blur_clip(predict_clip(*loaded, video, explain=True))
    with pytest.raises(ValueError, match="holds no explanation; expected one with explain=True"):
        blur_clip(predict_clip(*loaded, video, points))


def test_blurring_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'faces are blurred with Pillow .*pip install "clipmg_hf\[viz\]"'):
        blur_frame(NOISE)


def test_heads_of_real_people(realdata):
    folder = realdata / "openpose" / "slp_full137"
    sequence = read_openpose(folder / "json")
    with VideoReader(folder / "video.mp4") as reader:
        frames = reader.read(range(len(sequence.keypoints)))
    blur = SequenceFaceBlur(sequence.keypoints, sequence.layout)
    layout = get_layout(sequence.layout)
    face = face_points(layout)
    for index, (frame, points) in enumerate(zip(frames, sequence.keypoints, strict=True)):
        left, top = points[face, :2].min(axis=0).astype(int)
        right, bottom = points[face, :2].max(axis=0).astype(int)
        before, after = (
            np.abs(np.diff(image[top:bottom, left:right].astype(float), axis=1)).max()
            for image in (frame, blur(frame, index))
        )
        assert after < 8 < before
