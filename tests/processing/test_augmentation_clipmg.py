"""Each random change against a slow reference, its statistics over seeds, and all of them in the processor."""

import colorsys
import inspect
import itertools
import json
import math
import pickle

import numpy as np
import pytest
import torch
from disc_clips import HEIGHT, LAYOUT, WIDTH, channel_of, disc_keypoints, draw_discs, find_discs, write_video
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset
from transformers import AutoProcessor

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipTransform
from clipmg_hf.processing import VideoReader
from clipmg_hf.processing.augmentation_clipmg import (
    ColourChange,
    Purpose,
    change_brightness,
    change_contrast,
    change_hue,
    change_saturation,
    child_generator,
    draw_colour_change,
    draw_dropped_stream,
    draw_stretch,
    drop_keypoints,
    shake_keypoints,
)
from clipmg_hf.processing.geometry_clipmg import (
    crop_and_resize,
    full_frame_crop,
    random_resized_crop,
    sample_frame_indices,
    subject_crop,
)
from clipmg_hf.processing.video_processing_clipmg import denormalize_pixels, normalize_pixels


# Beside area and flip: every option by its name, and a value that switches it on.
OPTIONS = {
    "augmentation_time": 0.6,
    "augmentation_drop_video": 0.3,
    "augmentation_drop_pose": 0.2,
    "augmentation_drop_keypoints": 0.2,
    "augmentation_drop_pose_frames": 0.1,
    "augmentation_keypoint_noise": 0.01,
    "augmentation_brightness": 0.3,
    "augmentation_contrast": 0.4,
    "augmentation_saturation": 0.3,
    "augmentation_hue": 0.08,
}
STREAM_OPTIONS = ("augmentation_drop_video", "augmentation_drop_pose")
BOTH_STREAMS = {name: value for name, value in OPTIONS.items() if name not in STREAM_OPTIONS}
NUM_SEEDS = 3000
TINY = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    },
    "num_frames": 4,
    "pose_frames_per_frame": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}


@pytest.fixture(scope="module")
def keypoints():
    return disc_keypoints()


@pytest.fixture(scope="module")
def frames(keypoints):
    return draw_discs(keypoints)


@pytest.fixture(scope="module")
def path(tmp_path_factory, frames):
    return write_video(tmp_path_factory.mktemp("clips") / "discs.mp4", frames)


def make_processor(size=32, num_frames=4, pose_frames_per_frame=2, **options):
    video_processor = CLIPMGVideoProcessor(
        size=size, num_frames=num_frames, pose_frames_per_frame=pose_frames_per_frame
    )
    return CLIPMGProcessor(video_processor, **options)


def generators(num_seeds=NUM_SEEDS):
    return (np.random.default_rng(seed) for seed in range(num_seeds))


def assert_share(count, probability, num_draws):
    """Within five standard deviations of a binomial count."""
    assert abs(count - probability * num_draws) < 5 * math.sqrt(probability * (1 - probability) * num_draws)


def random_points(num_frames=6, seed=0):
    generator = np.random.default_rng(seed)
    points = generator.uniform(10, 400, (num_frames, 22, 3))
    points[..., 2] = generator.uniform(0.05, 1, (num_frames, 22))
    points[generator.random((num_frames, 22)) < 0.3] = 0
    return points


def picture(num_frames=2, size=24, seed=0):
    """(T, 3, size, size) uint8 with greys, black, white and pure colours among noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (num_frames, 3, size, size), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, size).astype(np.uint8)
    pixels[:, :, 1, :8] = np.array(list(itertools.product((0, 255), repeat=3)), dtype=np.uint8).T
    return torch.from_numpy(pixels)


# Generators


@pytest.mark.parametrize("seed", [3, (3, 1), 2**64 - 1])
def test_children_depend_on_the_seed_and_the_purpose_alone(seed):
    generator = np.random.default_rng(seed)
    state = generator.bit_generator.state
    first = {purpose: child_generator(generator, purpose).random(4).tolist() for purpose in Purpose}
    assert generator.bit_generator.state == state
    generator.random(100)
    assert first == {purpose: child_generator(generator, purpose).random(4).tolist() for purpose in Purpose}
    other = np.random.default_rng((5, 1))
    draws = [*first.values(), *(child_generator(other, purpose).random(4).tolist() for purpose in Purpose)]
    assert len(set(map(tuple, [*draws, np.random.default_rng(seed).random(4).tolist()]))) == 2 * len(Purpose) + 1


# Stretches


def test_stretches_keep_the_asked_share_and_reach_every_frame():
    drawn = [draw_stretch(200, 0.4, generator) for generator in generators()]
    starts, lengths = np.array(drawn).T
    assert lengths.min() in (80, 81) and lengths.max() in (199, 200)
    assert (starts >= 0).all() and (starts + lengths <= 200).all()
    # A uniform share of [0.4, 1] has the mean 0.7 and the standard deviation 0.6 / sqrt(12).
    assert abs(lengths.mean() / 200 - 0.7) < 5 * 0.6 / math.sqrt(12 * NUM_SEEDS)
    places = starts[lengths < 200] / (200 - lengths[lengths < 200])
    assert abs(places.mean() - 0.5) < 5 / math.sqrt(12 * NUM_SEEDS)
    assert starts.min() == 0 and (starts + lengths).max() == 200


@pytest.mark.parametrize(("num_available", "least_share"), [(1, 0.01), (2, 0.1), (7, 0.9), (7, 1.0)])
def test_stretches_of_short_clips_are_not_empty(num_available, least_share):
    for generator in generators(50):
        start, length = draw_stretch(num_available, least_share, generator)
        assert 0 <= start < start + length <= num_available
        assert least_share < 1 or length == num_available


# Hidden streams


def test_streams_are_hidden_as_often_as_asked_and_never_both():
    drawn = [draw_dropped_stream(0.3, 0.2, generator) for generator in generators()]
    assert_share(drawn.count("video"), 0.3, NUM_SEEDS)
    assert_share(drawn.count("pose"), 0.2, NUM_SEEDS)
    assert {draw_dropped_stream(1.0, 0.0, generator) for generator in generators(50)} == {"video"}
    assert {draw_dropped_stream(0.0, 1.0, generator) for generator in generators(50)} == {"pose"}
    assert {draw_dropped_stream(0.4, 0.6, generator) for generator in generators(50)} == {"video", "pose"}
    assert {draw_dropped_stream(0.0, 0.0, generator) for generator in generators(50)} == {None}


def test_hiding_one_stream_does_not_change_for_which_clips_the_other_is_hidden():
    for video, pose in itertools.product((0.0, 0.2, 0.5), repeat=2):
        drawn = [draw_dropped_stream(video, pose, generator) for generator in generators(300)]
        for stream, probabilities in (("video", (video, 0.0)), ("pose", (0.0, pose))):
            alone = [draw_dropped_stream(*probabilities, generator) for generator in generators(300)]
            assert [draw == stream for draw in drawn] == [draw == stream for draw in alone]


# Lost and shaky keypoints


def drop_keypoints_slowly(points, drop_points, drop_frames, generator):
    lost_points = [generator.random() < drop_points for _ in range(points.shape[1])]
    lost_frames = [generator.random() < drop_frames for _ in range(points.shape[0])]
    result = points.copy()
    for frame, index in itertools.product(range(points.shape[0]), range(points.shape[1])):
        if lost_frames[frame] or lost_points[index]:
            result[frame, index] = 0
    return result if result[..., 2].any() else points


@pytest.mark.parametrize("probabilities", [(0.0, 0.4), (0.4, 0.0), (0.3, 0.3), (0.999, 0.0), (0.0, 0.999)])
def test_lost_keypoints_are_those_of_a_slow_reference(probabilities):
    points = random_points()
    unchanged = points.copy()
    for seed in range(20):
        result = drop_keypoints(points, *probabilities, np.random.default_rng(seed))
        expected = drop_keypoints_slowly(points, *probabilities, np.random.default_rng(seed))
        np.testing.assert_array_equal(result, expected)
        assert (result[..., 2] > 0).any()
    np.testing.assert_array_equal(points, unchanged)


def test_keypoints_are_lost_as_often_as_asked():
    points = np.ones((5, 22, 3))
    whole, frames = 0, 0
    for generator in generators():
        kept = drop_keypoints(points, 0.25, 0.15, generator)[..., 2] > 0
        whole += int((~kept[kept.any(axis=1)]).all(axis=0).sum())
        frames += int((~kept).all(axis=1).sum())
        # A point is lost in the whole clip, a frame with all of its points.
        assert (kept == kept.any(axis=1)[:, None] & kept.any(axis=0)).all()
    assert_share(whole, 0.25, 22 * NUM_SEEDS)
    assert_share(frames, 0.15, 5 * NUM_SEEDS)


def test_noise_is_that_of_a_slow_reference_and_leaves_missing_points_missing():
    points = random_points()
    unchanged = points.copy()
    shaken = shake_keypoints(points, 3.0, np.random.default_rng(1))
    generator, expected = np.random.default_rng(1), points.copy()
    for frame, index, axis in itertools.product(range(6), range(22), range(2)):
        noise = generator.standard_normal()
        if points[frame, index, 2] > 0:
            expected[frame, index, axis] += 3.0 * noise
    np.testing.assert_allclose(shaken, expected, rtol=0, atol=1e-12)
    assert not shaken[points[..., 2] == 0].any()
    np.testing.assert_array_equal(points, unchanged)


def test_noise_has_the_asked_deviation_whatever_the_confidence():
    points = np.full((8, 22, 3), 100.0)
    points[..., 2] = np.linspace(0.01, 1, 22)
    noise = np.stack([shake_keypoints(points, 2.5, generator) - points for generator in generators(400)])
    assert not noise[..., 2].any()
    # (seeds, T_p, K, 2)
    noise = noise[..., :2]
    count = noise.size
    assert abs(noise.mean()) < 5 * 2.5 / math.sqrt(count)
    assert abs(noise.std() / 2.5 - 1) < 5 / math.sqrt(2 * count)
    deviations = noise.std(axis=(0, 1, 3))
    assert abs(deviations / 2.5 - 1).max() < 5 / math.sqrt(2 * count / 22)
    flat = noise.reshape(400, -1)
    neighbours = (flat[:, 1:] * flat[:, :-1]).mean() / 2.5**2
    assert abs(neighbours) < 5 / math.sqrt(count)


# Colours


ENHANCERS = {
    change_brightness: ImageEnhance.Brightness,
    change_contrast: ImageEnhance.Contrast,
    change_saturation: ImageEnhance.Color,
}


@pytest.mark.parametrize("change", list(ENHANCERS))
@pytest.mark.parametrize("factor", [0.0, 0.4, 0.9, 1.3, 2.5])
def test_colours_agree_with_pillow(change, factor):
    pixels = picture()
    result = change(pixels.float(), factor).permute(0, 2, 3, 1).numpy()
    for frame, values in zip(pixels.permute(0, 2, 3, 1).numpy(), result, strict=True):
        expected = np.asarray(ENHANCERS[change](Image.fromarray(frame)).enhance(factor)).astype(float)
        # Pillow rounds the grey to whole numbers, which the factor then multiplies, and cuts the result down.
        assert abs(values - expected).max() <= 1 + 0.6 * abs(1 - factor)
        assert values.min() >= 0 and values.max() <= 255


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.03, 1 / 3, 0.5])
def test_hues_agree_with_colorsys(turn):
    pixels = picture()
    result = change_hue(pixels.float(), turn)
    for frame, row, column in itertools.product(range(2), range(24), range(24)):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[frame, :, row, column] / 255).tolist())
        expected = torch.tensor(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        torch.testing.assert_close(result[frame, :, row, column], expected, rtol=0, atol=2e-3)


def test_hues_of_nearly_grey_pixels_are_finite():
    values = torch.full((1, 3, 2, 2), 100.0)
    values[0, 0, 0] = torch.nextafter(torch.tensor(100.0), torch.tensor(101.0))
    values[0, :, 1, 1] = torch.tensor([0.0, 1e-38, 1e-44])
    torch.testing.assert_close(change_hue(values, 0.3), values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_colours_are_changed_in_the_drawn_order_and_alike_in_all_frames(order):
    pixels = picture(3)
    unchanged = pixels.clone()
    expected = pixels.float()
    changes = (change_brightness, change_contrast, change_saturation, change_hue)
    amounts = (1.2, 0.7, 1.4, -0.1)
    for index in order:
        expected = changes[index](expected, amounts[index])
    change = ColourChange(*amounts, order=order)
    result = change(pixels)
    assert result.dtype == torch.uint8 and torch.equal(result, expected.round().to(torch.uint8))
    assert torch.equal(change(pixels.to(memory_format=torch.channels_last)), result)
    assert torch.equal(torch.cat([change(pixels[index : index + 1]) for index in range(3)]), result)
    assert torch.equal(ColourChange(1.0, 1.0, 1.0, 0.0, order)(pixels), pixels)
    assert torch.equal(pixels, unchanged)


def test_drawn_colours_fill_their_ranges():
    limits = (0.3, 1.5, 0.2, 0.1)
    drawn = [draw_colour_change(limits, generator) for generator in generators()]
    ranges = {"brightness": (0.7, 1.3), "contrast": (0.0, 2.5), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    amounts = np.array([[getattr(change, name) for name in ranges] for change in drawn])
    for values, (least, most) in zip(amounts.T, ranges.values(), strict=True):
        assert least <= values.min() < least + 0.02 * (most - least)
        assert most - 0.02 * (most - least) < values.max() <= most
        assert abs(values.mean() - (least + most) / 2) < 5 * (most - least) / math.sqrt(12 * NUM_SEEDS)
    assert abs(np.corrcoef(amounts.T) - np.eye(4)).max() < 5 / math.sqrt(NUM_SEEDS)
    orders = [change.order for change in drawn]
    assert set(orders) == set(itertools.permutations(range(4)))
    for order in set(orders):
        assert_share(orders.count(order), 1 / 24, NUM_SEEDS)


def test_switching_a_colour_on_does_not_change_the_others():
    limits = (0.3, 0.4, 0.2, 0.1)
    full = draw_colour_change(limits, np.random.default_rng(0))
    for index, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        alone = draw_colour_change([limits[index] * (place == index) for place in range(4)], np.random.default_rng(0))
        assert getattr(alone, name) == getattr(full, name) and alone.order == full.order
        neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
        assert all(getattr(alone, other) == value for other, value in neutral.items() if other != name)


# The processor


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("has_pose", [True, False])
def test_with_everything_off_the_steps_are_segments_square_and_mirror(seed, has_pose, frames, keypoints):
    processor = make_processor(num_frames=8, pose_frames_per_frame=4)
    output = processor(frames, keypoints if has_pose else None, augment=seed is not None, seeds=seed)
    generator = None if seed is None else np.random.default_rng((seed, 0))
    rgb_indices, pose_indices = sample_frame_indices(len(frames), 8, 4, generator)
    crop = subject_crop(keypoints, WIDTH, HEIGHT) if has_pose else full_frame_crop(WIDTH, HEIGHT)
    if generator is not None:
        crop = random_resized_crop(crop, (0.56, 1.0), 0.5, generator)
    settings = processor.video_processor
    pixels = normalize_pixels(crop_and_resize(frames[rgb_indices], crop, 32), settings.image_mean, settings.image_std)
    assert list(output) == ["pixel_values", "keypoints", "keypoint_mask"]
    assert torch.equal(output["pixel_values"][0], pixels)
    expected = np.zeros((32, 22, 3), dtype=np.float32)
    if has_pose:
        expected = keypoints[pose_indices].copy()
        expected[..., :2] = np.where(expected[..., 2:] > 0, crop.to_processed(expected[..., :2]), 0)
        expected = (expected[:, LAYOUT.flip_permutation] if crop.flipped else expected).astype(np.float32)
    np.testing.assert_array_equal(output["keypoints"][0].numpy(), expected)


def test_everything_but_area_and_flip_is_off_by_default():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(CLIPMGProcessor).parameters.items()
        if name.startswith("augmentation_")
    }
    off = {name: 1.0 if name == "augmentation_time" else 0.0 for name in OPTIONS}
    assert defaults == {"augmentation_area": (0.56, 1.0), "augmentation_flip": 0.5} | off


def test_without_augment_the_options_do_nothing(frames, keypoints):
    plain, full = make_processor()(frames, keypoints), make_processor(**OPTIONS)(frames, keypoints)
    assert list(plain) == list(full) and all(torch.equal(plain[name], full[name]) for name in plain)


def drawn_views(options, frames, keypoints, seed):
    output = make_processor(**options)(frames, keypoints, augment=True, seeds=[seed], return_metadata=True)
    clip = output["clips"][0]
    return {
        "pixels": output["pixel_values"].numpy(),
        "points": output["keypoints"][..., :2].numpy(),
        "found": output["keypoints"][..., 2].numpy(),
        "mask": output["keypoint_mask"].numpy(),
        "frames": np.concatenate([clip.frame_indices, clip.pose_frame_indices]),
        "crop": np.array([clip.crop.left, clip.crop.top, clip.crop.size, clip.crop.flipped]),
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("augmentation_time", {"pixels", "points", "frames"}),
        ("augmentation_drop_keypoints", {"points", "found"}),
        ("augmentation_drop_pose_frames", {"points", "found", "mask"}),
        ("augmentation_keypoint_noise", {"points"}),
        *((f"augmentation_{colour}", {"pixels"}) for colour in ("brightness", "contrast", "saturation", "hue")),
    ],
)
def test_an_option_changes_its_own_outputs_alone(name, changed, frames, keypoints):
    value = 0.5 if name == "augmentation_drop_pose_frames" else OPTIONS[name]
    seen = set()
    for seed in range(4):
        before = drawn_views({}, frames, keypoints, seed)
        after = drawn_views({name: value}, frames, keypoints, seed)
        seen |= {key for key in before if not np.array_equal(before[key], after[key])}
    assert seen == changed


@pytest.mark.parametrize("name", list(BOTH_STREAMS))
def test_switching_an_option_off_does_not_change_the_draws_of_the_others(name, frames, keypoints):
    rest = {option: value for option, value in BOTH_STREAMS.items() if option != name}
    for seed in (0, 1):
        full = drawn_views(BOTH_STREAMS, frames, keypoints, seed)
        part = drawn_views(rest, frames, keypoints, seed)
        np.testing.assert_array_equal(full["crop"], part["crop"])
        if name != "augmentation_time":
            np.testing.assert_array_equal(full["frames"], part["frames"])
            both = (full["found"] > 0) & (part["found"] > 0)
            if name != "augmentation_keypoint_noise":
                np.testing.assert_array_equal(full["points"][both], part["points"][both])
        if name in ("augmentation_drop_keypoints", "augmentation_drop_pose_frames", "augmentation_keypoint_noise"):
            np.testing.assert_array_equal(full["pixels"], part["pixels"])
        if not name.startswith("augmentation_drop"):
            np.testing.assert_array_equal(full["found"], part["found"])


def test_a_hidden_video_is_masked_and_not_decoded(path, keypoints, monkeypatch):
    shown = make_processor()(path, keypoints, augment=True, seeds=[5])
    monkeypatch.setattr(VideoReader, "read", lambda *_: pytest.fail("the video was decoded"))
    processor = make_processor(augmentation_drop_video=1.0, augmentation_brightness=0.5)
    output = processor(path, keypoints, augment=True, seeds=[5], return_metadata=True)
    assert output["frame_mask"].tolist() == [[False] * 4] and output["frame_mask"].dtype == torch.bool
    assert output["pixel_values"].shape == (1, 4, 3, 32, 32) and not output["pixel_values"].any()
    assert torch.equal(output["keypoints"], shown["keypoints"]) and output["keypoint_mask"].all()
    assert output["clips"][0].width == WIDTH


def test_a_hidden_pose_is_as_no_pose(frames, keypoints):
    processor = make_processor(**BOTH_STREAMS, augmentation_drop_pose=1.0)
    hidden = processor(frames, keypoints, augment=True, seeds=[5])
    without = processor(frames, augment=True, seeds=[5])
    assert list(hidden) == list(without) == ["pixel_values", "keypoints", "keypoint_mask"]
    assert all(torch.equal(hidden[name], without[name]) for name in hidden)
    assert not hidden["keypoints"].any() and not hidden["keypoint_mask"].any() and hidden["pixel_values"].any()


def test_a_clip_keeps_its_only_stream(frames, keypoints):
    late = keypoints * (np.arange(len(keypoints)) == 0)[:, None, None]
    for seed in range(4):
        hide_video = make_processor(augmentation_drop_video=1.0, augmentation_drop_pose_frames=0.9)
        options = {"augment": True, "seeds": [seed]}
        # Keypoints that are not seen, by anyone or in the frames that are sampled, are no stream.
        for points in (None, np.zeros_like(keypoints), late[::-1]):
            output = hide_video(frames, points, num_frames=1, pose_frames_per_frame=1, **options)
            assert output["pixel_values"].any() or output["keypoints"].any()
        hide_pose = make_processor(augmentation_drop_pose=1.0, augmentation_drop_keypoints=0.99)
        assert hide_pose(keypoints=keypoints, **options)["keypoint_mask"].any()
        assert hide_video(keypoints=keypoints, **options)["keypoint_mask"].any()


def test_streams_are_hidden_as_often_as_asked_and_a_batch_is_its_clips():
    points = random_points(2)
    clip = np.zeros((2, 8, 8, 3), dtype=np.uint8) + np.uint8(255)
    processor = make_processor(size=8, num_frames=1, pose_frames_per_frame=1, **OPTIONS)
    num_clips = 600
    output = processor([clip] * num_clips, [points] * num_clips, augment=True, seeds=range(num_clips))
    video = output["frame_mask"].any(dim=1)
    pose = output["keypoint_mask"].any(dim=1)
    assert (video | pose).all()
    assert_share(int((~video).sum()), 0.3, num_clips)
    assert_share(int((~pose).sum()), 0.2, num_clips)
    assert torch.equal(output["pixel_values"].flatten(1).any(dim=1), video)
    for index in range(0, num_clips, 40):
        single = processor(clip, points, augment=True, seeds=[index])
        assert ("frame_mask" in single) == (not video[index])
        assert all(torch.equal(single[name][0], output[name][index]) for name in single)


def test_clips_of_a_data_set_keep_the_mask_of_a_hidden_video(path, keypoints):
    row = {"clip_id": ["a"], "label": [0], "video": [str(path)], "start_frame": [0], "end_frame": [47]}
    row["keypoints"], row["keypoints_valid"] = [keypoints], [keypoints[..., 2] > 0]
    for probability in (0.0, 1.0):
        transform = ClipTransform(make_processor(augmentation_drop_video=probability), augment=True, seed=0)
        assert transform(row)["frame_mask"][0].tolist() == [probability == 0] * 4


def test_without_sampling_every_frame_is_kept(frames, keypoints):
    output = make_processor(augmentation_time=0.5)(frames, keypoints, do_sample_frames=False, augment=True, seeds=1)
    assert output["pixel_values"].shape[1] == len(frames)


def test_colours_do_not_depend_on_the_sampling():
    clip = np.zeros((6, 32, 32, 3), dtype=np.uint8) + np.array([200, 120, 40], dtype=np.uint8)
    processor = make_processor(augmentation_brightness=0.5, augmentation_saturation=0.5)
    sampled, full = (
        processor(clip, do_sample_frames=do_sample, augment=True, seeds=1)["pixel_values"]
        for do_sample in (True, False)
    )
    assert torch.equal(sampled[0, 0], full[0, 0])
    assert not torch.equal(full[0, 0], processor(clip)["pixel_values"][0, 0])


# Frames and keypoints stay together


def test_discs_are_where_the_keypoints_say_with_everything_on(path, keypoints):
    options = {**BOTH_STREAMS, "augmentation_keypoint_noise": 0.0}
    processor = make_processor(224, 8, 4, **options)
    noisy = make_processor(224, 8, 4, **BOTH_STREAMS)
    flips, spans, noise, num_discs = set(), set(), [], 0
    for seed in range(6):
        errors, clip = find_discs(processor, seed, videos=path, keypoints=keypoints)
        assert max(errors) < 0.75
        num_discs += len(errors)
        flips.add(clip.crop.flipped)
        spans.add(int(np.ptp(clip.pose_frame_indices)))
        inputs = {"videos": path, "keypoints": keypoints, "augment": True, "seeds": seed}
        plain, shaken = processor(**inputs), noisy(**inputs)
        assert torch.equal(plain["pixel_values"], shaken["pixel_values"])
        assert torch.equal(plain["keypoints"][..., 2], shaken["keypoints"][..., 2])
        valid = plain["keypoints"][..., 2] > 0
        noise.append((shaken["keypoints"] - plain["keypoints"])[valid][:, :2])
        assert_sides(plain, clip, processor)
    values = torch.cat(noise)
    assert abs(values.std() / 0.01 - 1) < 5 / math.sqrt(2 * values.numel())
    assert abs(values.mean()) < 5 * 0.01 / math.sqrt(values.numel())
    assert flips == {False, True} and len(spans) > 3 and min(spans) < 40 and num_discs > 100


def assert_sides(output, clip, processor):
    """Discs stay the reddest, greenest or bluest where the keypoint of that side is, also with hues turned by 0.08."""
    settings = processor.video_processor
    pixels = denormalize_pixels(output["pixel_values"][0], settings.image_mean, settings.image_std).float()
    groups = clip.pose_frame_indices.reshape(len(clip.frame_indices), -1)
    num_checked = 0
    for index, (frame_index, group) in enumerate(zip(clip.frame_indices, groups, strict=True)):
        row = index * groups.shape[1] + int(np.flatnonzero(group == frame_index)[0])
        for place, (x, y, confidence) in enumerate(output["keypoints"][0, row].tolist()):
            if confidence > 0 and min(x, y) > 0.03 and max(x, y) < 0.97:
                column, line = int(x * 224), int(y * 224)
                colour = pixels[index, :, line - 2 : line + 3, column - 2 : column + 3].mean(dim=(1, 2))
                drawn_for = LAYOUT.flip_permutation[place] if clip.crop.flipped else place
                assert int(colour.argmax()) == channel_of(drawn_for)
                num_checked += 1
    assert num_checked > 10


def test_a_mirrored_noisy_left_is_right(frames, keypoints):
    options = {"augmentation_area": (1.0, 1.0), **BOTH_STREAMS, "augmentation_drop_keypoints": 0.0}
    straight = make_processor(augmentation_flip=0.0, **options)(frames, keypoints, augment=True, seeds=3)
    mirrored = make_processor(augmentation_flip=1.0, **options)(frames, keypoints, augment=True, seeds=3)
    expected = straight["keypoints"][:, :, list(LAYOUT.flip_permutation)].clone()
    expected[..., 0] = torch.where(expected[..., 2] > 0, 1 - expected[..., 0], 0.0)
    torch.testing.assert_close(mirrored["keypoints"], expected, rtol=0, atol=1e-6)
    left, right = (LAYOUT.index(f"{side}_wrist") for side in ("left", "right"))
    seen = straight["keypoint_mask"][0]
    assert (straight["keypoints"][0, seen, left, 0] > straight["keypoints"][0, seen, right, 0]).all()
    assert (mirrored["keypoints"][0, seen, left, 0] > mirrored["keypoints"][0, seen, right, 0]).all()
    # One level of 255: the mean grey of a mirrored frame is summed in another order.
    torch.testing.assert_close(straight["pixel_values"].flip(-1), mirrored["pixel_values"], rtol=0, atol=0.016)


# Seeds, saving, bad settings


class AugmentedClips(Dataset):
    """Twelve augmented views of one clip."""

    def __init__(self, processor, frames, keypoints):
        self.processor, self.frames, self.keypoints = processor, frames, keypoints

    def __len__(self):
        return 12

    def __getitem__(self, index):
        features = self.processor(self.frames, self.keypoints, augment=True, seeds=[index])
        return {"frame_mask": torch.ones(4, dtype=torch.bool), **{name: value[0] for name, value in features.items()}}


def test_views_do_not_depend_on_the_number_of_workers(frames, keypoints):
    clips = AugmentedClips(make_processor(**OPTIONS), frames[:12], keypoints[:12])
    expected = list(DataLoader(clips, batch_size=3))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    again = list(DataLoader(clips, batch_size=3, num_workers=2))
    for batch, other in zip(expected, again, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in batch)
    video, pose = (torch.cat([batch[name] for batch in expected]) for name in ("frame_mask", "keypoint_mask"))
    assert {(bool(seen), bool(found)) for seen, found in zip(video.any(1), pose.any(1), strict=True)} == {
        (True, True),
        (True, False),
        (False, True),
    }


def test_saving_and_loading_keep_every_option(tmp_path, frames, keypoints):
    config = CLIPMGConfig(**TINY)
    processor = CLIPMGProcessor.from_model_config(config, augmentation_area=(0.7, 0.9), **OPTIONS)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert {name: saved[name] for name in OPTIONS} == OPTIONS and saved["augmentation_area"] == [0.7, 0.9]
    for loaded in (AutoProcessor.from_pretrained(tmp_path), pickle.loads(pickle.dumps(processor))):
        assert {name: getattr(loaded, name) for name in OPTIONS} == OPTIONS
        output = loaded(frames, keypoints, augment=True, seeds=2)
        expected = processor(frames, keypoints, augment=True, seeds=2)
        assert all(torch.equal(output[name], expected[name]) for name in expected)


def test_the_model_takes_every_mixture(frames, keypoints):
    config = CLIPMGConfig(**TINY)
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(config).eval()
    processor = CLIPMGProcessor.from_model_config(config, **OPTIONS)
    batch = processor([frames] * 12, [keypoints] * 12, augment=True, seeds=range(12))
    assert not batch["frame_mask"].all() and not batch["keypoint_mask"].any(dim=1).all()
    with torch.no_grad():
        assert model(**batch).logits.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augmentation_time": 0}, r"augmentation_time is 0; expected a share in \(0, 1\]"),
        ({"augmentation_time": 1.1}, "augmentation_time is 1.1; expected a share"),
        ({"augmentation_drop_video": -0.1}, "augmentation_drop_video is -0.1; expected a probability"),
        ({"augmentation_drop_pose": 1.5}, "augmentation_drop_pose is 1.5; expected a probability"),
        (
            {"augmentation_drop_video": 0.7, "augmentation_drop_pose": 0.6},
            "augmentation_drop_video is 0.7 and augmentation_drop_pose is 0.6; expected a sum of at most 1",
        ),
        ({"augmentation_drop_keypoints": 1}, "augmentation_drop_keypoints is 1; expected a probability below 1"),
        ({"augmentation_drop_pose_frames": 1.0}, "augmentation_drop_pose_frames is 1.0; expected a probability below"),
        ({"augmentation_keypoint_noise": -1}, "augmentation_keypoint_noise is -1; expected at least 0"),
        ({"augmentation_brightness": float("inf")}, "augmentation_brightness is inf; expected at least 0"),
        ({"augmentation_contrast": -0.5}, "augmentation_contrast is -0.5; expected at least 0"),
        ({"augmentation_saturation": float("nan")}, "augmentation_saturation is nan; expected at least 0"),
        ({"augmentation_hue": 0.6}, "augmentation_hue is 0.6; expected at most 0.5"),
        ({"augmentation_hue": -0.1}, "augmentation_hue is -0.1; expected at least 0"),
        ({"augmentation_area": (0.9, 0.5)}, r"augmentation_area is \(0.9, 0.5\); expected 0 < least"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_processor(**settings)
