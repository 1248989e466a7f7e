import numpy as np
import pytest
from disc_clips import real_data
from PIL import Image

from clipmg_hf.processing.geometry_clipmg import (
    SquareCrop,
    crop_and_resize,
    full_frame_crop,
    random_resized_crop,
    sample_frame_indices,
    subject_crop,
)


CROPS = [SquareCrop(0, 0, 100), SquareCrop(-37, 12, 250), SquareCrop(300, -8, 41, flipped=True)]


@pytest.mark.parametrize("crop", CROPS)
def test_crop_maps_there_and_back(crop):
    points = np.random.default_rng(0).uniform(-50, 700, (4, 5, 2))
    unchanged = points.copy()
    processed = crop.to_processed(points)
    np.testing.assert_allclose(crop.to_source(processed), points, atol=1e-10)
    np.testing.assert_array_equal(points, unchanged)


@pytest.mark.parametrize("crop", CROPS)
def test_crop_maps_its_first_and_last_pixel_centres(crop):
    last = crop.size - 1
    corners = np.array([[crop.left, crop.top], [crop.left + last, crop.top + last]])
    half = 0.5 / crop.size
    expected = np.array([[half, half], [1 - half, 1 - half]])
    if crop.flipped:
        expected[:, 0] = 1 - expected[:, 0]
    np.testing.assert_allclose(crop.to_processed(corners), expected)


def test_sampling_takes_the_middle_of_each_segment():
    rgb, pose = sample_frame_indices(64, 8, 4)
    np.testing.assert_array_equal(pose, np.arange(1, 64, 2))
    np.testing.assert_array_equal(rgb, pose[2::4])
    assert rgb.dtype == pose.dtype == np.int64


@pytest.mark.parametrize("num_available", [1, 2, 7, 31, 32, 33, 64, 1000])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_sampling_stays_inside_its_segments_and_shares_the_grid(num_available, seed):
    generator = None if seed is None else np.random.default_rng(seed)
    rgb, pose = sample_frame_indices(num_available, 8, 4, generator)
    starts = np.arange(32) * num_available / 32
    assert (pose >= np.floor(starts)).all() and (pose < np.ceil(starts + num_available / 32)).all()
    assert (pose >= 0).all() and (pose < num_available).all()
    assert (np.diff(pose) >= 0).all() and (np.diff(rgb) >= 0).all()
    assert all(index in group for index, group in zip(rgb, pose.reshape(8, 4), strict=True))


def test_sampling_at_random_reaches_every_frame():
    seen = {int(i) for seed in range(200) for i in sample_frame_indices(40, 4, 2, np.random.default_rng(seed))[0]}
    assert seen == set(range(40))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (333, 100), (5, 5)])
def test_full_frame_crop_holds_the_frame_in_its_middle(width, height):
    crop = full_frame_crop(width, height)
    margins = np.array([-crop.left, crop.left + crop.size - width, -crop.top, crop.top + crop.size - height])
    assert (margins >= 0).all() and margins.min() == 0
    assert abs(margins[0] - margins[1]) <= 1 and abs(margins[2] - margins[3]) <= 1


def test_subject_crop_pads_the_box_of_valid_points_of_all_frames():
    keypoints = np.zeros((2, 4, 3))
    keypoints[0, :2] = [[200, 100, 1], [240, 150, 0.1]]
    keypoints[1, 0] = [260, 300, 0.5]
    keypoints[1, 3] = [600, 10, 0]
    assert subject_crop(keypoints, 640, 480) == SquareCrop(left=80, top=50, size=300)


@pytest.mark.parametrize(
    "points", [[], [[100, 100, 1], [300, 300, 1]], [[100, 100, 1], [105, 109, 1], [101, 102, 1], [103, 104, 1]]]
)
def test_subject_crop_falls_back_to_the_full_frame(points):
    keypoints = np.zeros((1, 4, 3))
    keypoints[0, : len(points)] = np.reshape(points, (-1, 3))
    assert subject_crop(keypoints, 640, 480) == full_frame_crop(640, 480)


@pytest.mark.parametrize("far", [-1e6, 1e6])
def test_subject_crop_is_bounded_by_the_frame(far):
    keypoints = np.array([[[far, 10, 1], [100, 20, 1], [200, 200, 1], [30, far, 1]]], dtype=float)
    crop = subject_crop(keypoints, 640, 480)
    assert crop.size <= 1.5 * 640
    assert -crop.size < crop.left < 640 and -crop.size < crop.top < 480


def test_random_crop_stays_inside_and_keeps_the_asked_area():
    crop = SquareCrop(-20, 30, 400)
    drawn = [random_resized_crop(crop, (0.56, 1.0), 0.5, np.random.default_rng(seed)) for seed in range(300)]
    for part in drawn:
        assert crop.left <= part.left and part.left + part.size <= crop.left + crop.size
        assert crop.top <= part.top and part.top + part.size <= crop.top + crop.size
    shares = np.array([(part.size / crop.size) ** 2 for part in drawn])
    assert 0.555 < shares.min() < 0.6 and 0.96 < shares.max() <= 1
    assert 100 < sum(part.flipped for part in drawn) < 200


def test_random_crop_mirrors_a_mirrored_crop_back():
    part = random_resized_crop(SquareCrop(0, 0, 50, flipped=True), (1.0, 1.0), 1.0, np.random.default_rng(0))
    assert part == SquareCrop(0, 0, 50, flipped=False)


def pictures():
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    astronaut = Image.open(real_data("images/astronaut.png")).convert("RGB")
    return {"noise": noise, "astronaut": np.array(astronaut)}


@pytest.mark.parametrize("name", ["noise", "astronaut"])
@pytest.mark.parametrize(
    "crop", [SquareCrop(20, 10, 280), SquareCrop(200, 100, 90), SquareCrop(-60, -90, 700), SquareCrop(1, 2, 31)]
)
@pytest.mark.parametrize("size", [32, 112, 224, 384])
def test_resizing_agrees_with_pillow(name, crop, size):
    picture = pictures()[name]
    box = (crop.left, crop.top, crop.left + crop.size, crop.top + crop.size)
    expected = np.asarray(Image.fromarray(picture).crop(box).resize((size, size), Image.Resampling.BICUBIC))
    result = crop_and_resize(picture[None], crop, size)[0].permute(1, 2, 0).numpy()
    difference = np.abs(result.astype(int) - expected.astype(int))
    assert result.dtype == np.uint8 and difference.mean() < 0.05 and difference.max() <= 2


@pytest.mark.parametrize("left", [-500, -100, 640, 900])
def test_a_crop_beside_the_frame_is_black(left):
    frames = np.full((2, 480, 640, 3), 200, dtype=np.uint8)
    assert not crop_and_resize(frames, SquareCrop(left, -100, 100), 100).any()


def test_frames_are_cropped_alike_and_mirrored():
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
    unchanged = frames.copy()
    crop = SquareCrop(10, 5, 48)
    batch = crop_and_resize(frames, crop, 32)
    assert batch.shape == (3, 3, 32, 32)
    for index in range(3):
        assert (batch[index] == crop_and_resize(frames[index : index + 1], crop, 32)[0]).all()
    assert (crop_and_resize(frames, SquareCrop(10, 5, 48, flipped=True), 32) == batch.flip(-1)).all()
    np.testing.assert_array_equal(
        crop_and_resize(frames, crop, 48).permute(0, 2, 3, 1).numpy(), frames[:, 5:53, 10:58]
    )
    np.testing.assert_array_equal(frames, unchanged)
