import copy
import json
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from disc_clips import (
    HEIGHT,
    LAYOUT,
    NUM_FRAMES,
    WIDTH,
    Clips,
    disc_keypoints,
    draw_discs,
    find_discs,
    real_data,
    write_video,
)
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoModelForVideoClassification, AutoProcessor, Trainer, TrainingArguments, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.processing import (
    SquareCrop,
    VideoReader,
    convert_keypoints,
    get_layout,
    read_openpose,
    write_openpose,
)
from clipmg_hf.processing.processing_clipmg import rows_of_interval
from clipmg_hf.processing.video_processing_clipmg import process_frames


SIGNER = "openpose/slp_full137"
TENSORS = ("pixel_values", "keypoints", "keypoint_mask")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def keypoints():
    return disc_keypoints()


@pytest.fixture(scope="module")
def frames(keypoints):
    return draw_discs(keypoints)


@pytest.fixture(scope="module")
def path(folder, frames):
    return write_video(folder / "discs.mp4", frames)


@pytest.fixture(scope="module")
def processor():
    return CLIPMGProcessor(CLIPMGVideoProcessor())


@pytest.fixture(scope="module")
def small():
    return CLIPMGProcessor(CLIPMGVideoProcessor(size=32, num_frames=4, pose_frames_per_frame=2))


@pytest.fixture(scope="module")
def model():
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPMGConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 16},
        num_frames=4,
        pose_frames_per_frame=2,
        hidden_size=32,
        num_attention_heads=4,
        pose_base_width=4,
        pose_stage_blocks=(1, 1, 1),
        heatmap_size=16,
    )
    torch.manual_seed(0)
    return CLIPMGForMicroGestureClassification(config).eval()


def settings_of(processor):
    """What is saved, without `auto_map`: saving adds it, and transformers does not load a processor's."""
    settings = processor.to_dict()
    settings.get("video_processor", settings).pop("auto_map", None)
    settings.pop("auto_map", None)
    return settings


def assert_same(first, second):
    for name in TENSORS:
        assert torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])), name


# Frames and keypoints stay together


def case_inputs(name, folder, path, frames, keypoints):
    if name.startswith("rotated"):
        turns = int(name[-1])
        path = folder / f"{name}.mp4"
        return {"videos": path if path.exists() else write_video(path, frames, turns), "keypoints": keypoints}
    return {
        "file": {"videos": path, "keypoints": keypoints},
        "arrays": {"videos": frames, "keypoints": keypoints},
        "frame interval": {"videos": path, "keypoints": keypoints, "intervals": (7, 31)},
        "interval of keypoints": {"videos": path, "keypoints": keypoints[7:31], "intervals": (7, 31)},
        "second interval": {
            "videos": path,
            "keypoints": keypoints,
            "intervals": (0.3, 1.3),
            "interval_unit": "seconds",
        },
        "short": {"videos": path, "keypoints": keypoints, "intervals": (40, 45)},
    }[name]


@pytest.mark.parametrize(
    "case",
    [
        *("file", "arrays", "frame interval", "interval of keypoints", "second interval", "short"),
        *("rotated 1", "rotated 2", "rotated 3"),
    ],
)
def test_discs_are_where_the_keypoints_say(case, processor, folder, path, frames, keypoints):
    inputs = case_inputs(case, folder, path, frames, keypoints)
    flips, crops, num_discs = set(), set(), 0
    for seed in (None, *range(9)):
        errors, clip = find_discs(processor, seed, **inputs)
        assert max(errors) < 0.75
        flips.add(clip.crop.flipped)
        crops.add(clip.crop)
        num_discs += len(errors)
        assert (clip.width, clip.height) == (WIDTH, HEIGHT)
    assert flips == {False, True} and len(crops) > 7 and num_discs > 300


def test_the_disc_test_sees_a_frame_too_late_and_swapped_sides(processor, path, keypoints):
    late, _ = find_discs(processor, 0, videos=path, keypoints=np.roll(keypoints, 1, axis=0))
    assert min(late) > 0.75
    swapped, _ = find_discs(processor, 0, videos=path, keypoints=keypoints[:, LAYOUT.flip_permutation])
    assert np.isinf(swapped).any()


def test_processed_points_map_back_to_source_pixels(processor, path, keypoints):
    for seed in range(6):
        output = processor(path, keypoints, intervals=(5, 40), augment=True, seeds=seed, return_metadata=True)
        clip = output["clips"][0]
        source = clip.to_source(output["keypoints"][0, ..., :2].numpy())
        expected = keypoints[clip.pose_frame_indices]
        if clip.crop.flipped:
            expected = expected[:, LAYOUT.flip_permutation]
        visible = expected[..., 2] > 0
        np.testing.assert_allclose(source[visible], expected[visible][:, :2], atol=1e-3)


def test_a_given_crop_is_that_of_both_streams(processor, small, path, keypoints):
    crop = SquareCrop(-10, 5, 120)
    output = processor(path, keypoints, intervals=(5, 40), crops=crop, return_metadata=True)
    clip = output["clips"][0]
    assert clip.crop == crop
    points = keypoints[clip.pose_frame_indices]
    visible = points[..., 2] > 0
    expected = crop.to_processed(points[visible][:, :2])
    np.testing.assert_allclose(output["keypoints"][0].numpy()[visible][:, :2], expected, atol=1e-6)
    settings = processor.video_processor.resolve_settings()
    pixels = process_frames(VideoReader(path).read(clip.frame_indices), crop, settings)
    torch.testing.assert_close(output["pixel_values"][0], pixels)
    # One for each clip of a batch; None is the processor's own choice.
    batch = small([path, path], [keypoints, keypoints], crops=[crop, None], return_metadata=True)
    own = small(path, keypoints, return_metadata=True)
    assert [clip.crop for clip in batch["clips"]] == [crop, own["clips"][0].crop]
    torch.testing.assert_close(batch["pixel_values"][1:], own["pixel_values"])
    # With augmentation a part of it.
    part = small(path, keypoints, crops=crop, augment=True, seeds=1, return_metadata=True)["clips"][0].crop
    assert part.size <= crop.size and part.left >= crop.left and part.top >= crop.top


def test_crops_of_another_kind_are_refused(small, path):
    with pytest.raises(ValueError, match=r"crops is \(0, 0, 10\); expected a SquareCrop or None"):
        small(path, crops=(0, 0, 10))
    with pytest.raises(ValueError, match=r"crops has the length 1; expected 2"):
        small([path, path], crops=[None])


def test_metadata_names_the_frames_of_the_whole_video(processor, path, keypoints):
    clip = processor(path, keypoints, intervals=(8, 40), return_metadata=True)["clips"][0]
    np.testing.assert_array_equal(clip.pose_frame_indices, np.arange(8, 40))
    np.testing.assert_array_equal(clip.frame_indices, np.arange(10, 40, 4))
    np.testing.assert_allclose(clip.timestamps, clip.frame_indices / 25)
    assert clip.name == str(path)


# Kinds of input


def test_output_shapes_types_and_zeros(processor, path, keypoints):
    keypoints = keypoints.copy()
    keypoints[:24] = 0
    keypoints[24:, LAYOUT.index("nose")] = [0, 0, 0.9]
    keypoints[24:, LAYOUT.index("neck")] = [300, 200, 0]
    output = processor(path, keypoints)
    assert list(output) == list(TENSORS)
    assert output["pixel_values"].shape == (1, 8, 3, 224, 224) and output["pixel_values"].dtype == torch.float32
    assert output["keypoints"].shape == (1, 32, 22, 3) and output["keypoints"].dtype == torch.float32
    assert output["keypoint_mask"].dtype == torch.bool
    assert output["keypoint_mask"].tolist() == [[False] * 16 + [True] * 16]
    missing = output["keypoints"][..., 2] == 0
    assert not output["keypoints"][missing].any()
    assert missing[0, :, [LAYOUT.index("nose"), LAYOUT.index("neck")]].all()
    assert (~missing).sum() == 16 * 6


def test_frames_of_every_kind_give_the_same(small, frames, keypoints):
    expected = small(frames, keypoints)
    for videos, points in (
        (torch.from_numpy(frames), torch.from_numpy(keypoints)),
        (list(frames), keypoints.tolist()),
        ([Image.fromarray(frame) for frame in frames], keypoints.astype(np.float32).astype(np.float64)),
        ([frames], [keypoints]),
        (frames[None], keypoints[None]),
    ):
        output = small(videos, points)
        assert torch.equal(output["pixel_values"], expected["pixel_values"])
        torch.testing.assert_close(output["keypoints"], expected["keypoints"], rtol=0, atol=1e-6)


def test_a_batch_is_its_clips(small, path, frames, keypoints):
    clips = [
        {"videos": path, "keypoints": keypoints, "intervals": (3, 30)},
        {"videos": frames[:20], "keypoints": None, "intervals": None},
        {"videos": path.read_bytes(), "keypoints": keypoints[20:30], "intervals": (20, 30)},
        {"videos": list(frames), "keypoints": keypoints, "intervals": (None, 9)},
    ]
    batch = small(**{name: [clip[name] for clip in clips] for name in clips[0]})
    singles = [small(**clip) for clip in clips]
    assert_same(batch, {name: torch.cat([single[name] for single in singles]) for name in TENSORS})
    assert not batch["keypoints"][1].any() and batch["keypoint_mask"].any(dim=1).tolist() == [True, False, True, True]


def test_augmented_batch_is_its_clips_with_their_seeds(small, path, keypoints):
    batch = small([path] * 3, [keypoints] * 3, augment=True, seeds=[4, 5, 4])
    singles = [small(path, keypoints, augment=True, seeds=[seed]) for seed in (4, 5, 4)]
    assert_same(batch, {name: torch.cat([single[name] for single in singles]) for name in TENSORS})
    assert not torch.equal(batch["keypoints"][0], batch["keypoints"][1])
    same = small([path] * 2, [keypoints] * 2, augment=True, seeds=4)
    assert not torch.equal(same["keypoints"][0], same["keypoints"][1])


def test_augmentation_without_seeds_follows_torch(small, path, keypoints):
    torch.manual_seed(0)
    first, second = (small(path, keypoints, augment=True) for _ in range(2))
    torch.manual_seed(0)
    assert_same(small(path, keypoints, augment=True), first)
    assert not torch.equal(first["keypoints"], second["keypoints"])


def test_clips_without_video(small, path, keypoints):
    with_video = small(path, keypoints, intervals=(4, 40))
    alone = small(keypoints=keypoints, intervals=(4, 40), return_metadata=True)
    assert set(alone) == {"keypoints", "keypoint_mask", "clips"}
    assert torch.equal(alone["keypoints"], with_video["keypoints"])
    assert alone["clips"][0].width == 0 and np.isnan(alone["clips"][0].timestamps).all()
    assert small(keypoints=[keypoints, keypoints[:9]])["keypoints"].shape[0] == 2
    mixed = small([path, None], [None, keypoints], [None, (4, 40)])
    assert mixed["frame_mask"].tolist() == [[True] * 4, [False] * 4]
    assert not mixed["pixel_values"][1].any() and mixed["pixel_values"][0].any()
    assert torch.equal(mixed["keypoints"][1], alone["keypoints"][0])
    nobody = small(keypoints=np.zeros((9, 22, 3)))
    assert not nobody["keypoints"].any() and not nobody["keypoint_mask"].any()


def test_openpose_files_of_every_kind_give_the_same(small, folder, frames):
    points = np.zeros((NUM_FRAMES, 137, 3), dtype=np.float32)
    points[:] = np.random.default_rng(0).uniform(10, 400, (137, 3))
    points[..., 2] = 0.5
    write_openpose(folder / "json", points, "clip")
    expected = small(frames, points)
    files = sorted((folder / "json").iterdir())
    for source in (folder / "json", str(folder / "json"), files, read_openpose(folder / "json")):
        assert_same(small(frames, source), expected)
    assert_same(small(frames, folder / "json", source_layout="imigue-22"), expected)
    assert_same(small(frames[:1], files[0]), small(frames[:1], points[:1]))
    converted = convert_keypoints(points.astype(np.float64), "openpose-137", "imigue-22")
    assert_same(small(frames, converted), expected)


def test_rows_of_an_interval():
    def find(num_rows, first_number, interval):
        return rows_of_interval(num_rows, first_number, interval, 48, "json", "a.mp4")

    # Of the whole video, whatever the number of the first file; and of the interval alone.
    assert find(48, 0, (10, 20)) == find(48, 1, (10, 20)) == find(48, 10, (10, 20)) == slice(10, 20)
    assert find(10, 0, (10, 20)) == find(10, 10, (10, 20)) == slice(None)
    message = (
        r"^json: 10 rows, the first for frame 1; expected 48, one for each frame of a\.mp4, or 10 for its interval"
    )
    with pytest.raises(ValueError, match=message):
        find(10, 1, (10, 20))
    with pytest.raises(ValueError, match=r"^json: 9 rows; expected 48, one for each frame of a\.mp4\.$"):
        find(9, 0, (0, 48))


def test_openpose_files_of_another_part_of_the_video_are_refused(small, folder, path, keypoints):
    part = folder / "json of 10 to 19"
    write_openpose(folder / "renamed", np.full((10, 25, 3), 100.0), "clip")
    part.mkdir()
    for number, file in enumerate(sorted((folder / "renamed").iterdir())):
        file.rename(part / f"clip_{number + 10:012d}_keypoints.json")
    small(path, part, intervals=(10, 20), missing_keypoints="mask")
    message = r"json of 10 to 19: 10 rows, the first for frame 10; expected 48, .*or 10 for its interval \[20, 30\)"
    for source in (part, read_openpose(part)):
        with pytest.raises(ValueError, match=message):
            small(path, source, intervals=(20, 30), missing_keypoints="mask")
    with pytest.raises(ValueError, match=r"^keypoints: 10 rows, the first for frame 10; expected 48"):
        small(path, read_openpose(sorted(part.iterdir())), intervals=(20, 30), missing_keypoints="mask")


def test_missing_keypoints_can_be_masked(small, frames):
    points = np.full((NUM_FRAMES, 25, 3), 0.5) + np.arange(25)[:, None] * 9
    output = small(frames, points, source_layout="openpose-body25", missing_keypoints="mask")["keypoints"][0]
    assert (output[:, :12, 2] > 0).all() and not output[:, 12:].any()


def test_as_many_points_as_the_model_has_are_in_its_layout(small, frames):
    """25 points may be OpenPose's or Kinect's: of the wrong ones some have the right names, in other places."""
    points = np.full((NUM_FRAMES, 25, 3), 0.5) + np.arange(25)[:, None] * 9
    for layout in ("kinect-25", "openpose-body25"):
        model = CLIPMGProcessor(small.video_processor, keypoint_layout=layout)
        assert_same(model(frames, points, missing_keypoints="mask"), model(frames, points, source_layout=layout))
    with pytest.raises(
        ValueError, match=r"keypoints: 25 points may be those of openpose-body25 or kinect-25; expected"
    ):
        small(frames, points, missing_keypoints="mask")


def test_every_layout_reaches_the_model_by_name(frames):
    points = np.full((NUM_FRAMES, 22, 3), 1.0)
    points[..., :2] = np.random.default_rng(0).uniform(10, 400, (22, 2))
    processor = CLIPMGProcessor(CLIPMGVideoProcessor(size=32), keypoint_layout="imigue-36")
    output = processor(frames, points, missing_keypoints="mask", return_metadata=True)
    target, source = get_layout("imigue-36"), get_layout("imigue-22")
    shared = [name for name in target.keypoints if name in source.keypoints]
    back = output["clips"][0].to_source(output["keypoints"][0, 0, :, :2].numpy())
    for name in shared:
        np.testing.assert_allclose(back[target.index(name)], points[0, source.index(name), :2], atol=1e-3)


def test_real_openpose_clip(processor):
    video, json_folder = real_data(f"{SIGNER}/video.mp4"), real_data(f"{SIGNER}/json")
    output = processor(video, json_folder, return_metadata=True)
    clip = output["clips"][0]
    assert output["keypoint_mask"].all() and (clip.width, clip.height) == (1280, 720)
    visible = output["keypoints"][..., 2] > 0
    inside = output["keypoints"][..., :2][visible]
    assert inside.min() > 0.1 and inside.max() < 0.9
    assert output["pixel_values"][:, :, :, 112].std() > 0.1


def test_keypoints_are_not_changed(small, frames, keypoints):
    unchanged = keypoints.copy()
    small(frames, keypoints, augment=True, seeds=1)
    np.testing.assert_array_equal(keypoints, unchanged)


# Bad input


def with_value(keypoints, place, value):
    keypoints = keypoints.copy()
    keypoints[place] = value
    return keypoints


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((3, 5, 0), np.nan, "keypoints: x of 'left_shoulder' is nan in row 3; expected finite pixels"),
        ((3, 5, 1), np.inf, "keypoints: y of 'left_shoulder' is inf in row 3"),
        ((3, 5, 1), -np.inf, "keypoints: y of 'left_shoulder' is -inf in row 3"),
        ((3, 5, 0), 1e300, r"keypoints: x of 'left_shoulder' is 1e\+300 in row 3"),
        ((0, 0, 2), np.nan, "keypoints: confidence of 'nose' is nan in row 0"),
        ((0, 0, 2), -0.5, "keypoints: confidence of 'nose' is -0.5 in row 0; expected .* at least 0"),
    ],
)
def test_values_that_are_no_pixels_are_refused(small, frames, keypoints, place, value, message):
    with pytest.raises(ValueError, match=message):
        small(frames, with_value(keypoints, place, value))
    with pytest.raises(ValueError, match=message.replace("keypoints:", r"keypoints\[1\]:")):
        small([frames, frames], [None, with_value(keypoints, place, value)])


def test_bad_keypoints_are_named(small, path, frames, keypoints):
    for points, message in (
        (keypoints[:-1], rf"keypoints: 47 rows; expected 48, one for each frame of {path}\."),
        (keypoints[..., :2], r"keypoints: the shape is \(48, 22, 2\); expected \(frames, keypoints, 3\)"),
        (keypoints[0], r"keypoints: the shape is \(22, 3\)"),
        (keypoints[:0], r"keypoints: the shape is \(0, 22, 3\)"),
        (keypoints[:, :11], "keypoints: No keypoint layout has 11 points"),
        ([[1, 2], [3]], "keypoints: .*inhomogeneous"),
        ("missing folder", "missing folder: no such file"),
        (keypoints / 1000, r"keypoints: all x and y lie in \[0, 1\]; expected pixels of the source frame"),
        (
            np.ones((48, 17, 3)) * 9,
            "keypoints: Layout 'imigue-22' has 10 .* With missing_keypoints='mask' they become",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            small(path, points)
    with pytest.raises(ValueError, match="keypoints: 22 keypoints; expected the 25 of 'openpose-body25'"):
        small(path, keypoints, source_layout="openpose-body25")
    with pytest.raises(ValueError, match="Unknown keypoint layout 'imigue-23'"):
        small(path, keypoints, source_layout="imigue-23")
    with pytest.raises(ValueError, match=r"47 rows; expected 48, .* or 10 for its interval \[3, 13\)"):
        small(path, keypoints[1:], intervals=(3, 13))


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        (
            (40, 49),
            r"discs.mp4: the interval \[40, 49\) frames lies outside the video; the video holds \[0, 48\) frames",
        ),
        ((-1, 5), r"discs.mp4: the interval \[-1, 5\) frames lies outside"),
        ((9, 9), r"discs.mp4: the interval \[9, 9\) frames is empty or reversed"),
        ((9, 3), r"discs.mp4: the interval \[9, 3\) frames is empty or reversed"),
        ((float("nan"), 3), r"discs.mp4: the interval \[nan, 3\)"),
        ((1.5, 3), "1.5 is not an integer"),
        ((1, 2, 3), r"intervals is \(1, 2, 3\); expected \(start, end\), two numbers or None"),
        (5, r"intervals is 5; expected \(start, end\)"),
        (("0", "5"), r"intervals is \('0', '5'\); expected \(start, end\)"),
    ],
)
def test_bad_intervals_are_named(small, path, interval, message):
    with pytest.raises(ValueError, match=message):
        small(path, intervals=interval)


def test_bad_intervals_without_a_file_are_named(small, frames, keypoints):
    with pytest.raises(ValueError, match=r"videos: the interval \[40, 49\) frames lies outside the video"):
        small(frames, intervals=(40, 49))
    with pytest.raises(ValueError, match="videos: the interval is in seconds, but only files have timestamps"):
        small(frames, intervals=(0, 1), interval_unit="seconds")
    with pytest.raises(ValueError, match=r"keypoints: the interval \[40, 49\) frames lies outside the video"):
        small(keypoints=keypoints, intervals=(40, 49))


def test_batches_that_do_not_match_are_named(small, path, keypoints):
    for inputs, message in (
        ({"videos": []}, "videos: the batch is empty; expected at least one clip"),
        ({"keypoints": []}, "keypoints: the batch is empty; expected at least one clip"),
        ({}, "videos and keypoints are None; expected at least one of them"),
        ({"videos": [path, None]}, r"videos\[1\] and keypoints\[1\] are None; expected at least one of them"),
        (
            {"videos": [path, path], "keypoints": [keypoints]},
            "keypoints has the length 1; expected 2, one for each of the clips",
        ),
        (
            {"videos": [path, path], "keypoints": keypoints},
            "keypoints is one ndarray; expected a list with one for each",
        ),
        ({"videos": [path], "keypoints": "folder"}, "keypoints is one str; expected a list with one for each"),
        ({"videos": [path, path], "intervals": [(0, 5)]}, "intervals has the length 1; expected 2"),
        ({"videos": [path, path], "intervals": (0, 5)}, r"intervals\[0\] is 0; expected \(start, end\)"),
        ({"videos": [path, path], "augment": True, "seeds": [1]}, "seeds has the length 1; expected 2"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**inputs)


def test_bad_arguments_are_named(small, path):
    for arguments, error, message in (
        ({"interval": (0, 5)}, TypeError, "CLIPMGProcessor has no argument 'interval'; did you mean 'intervals'?"),
        ({"missing": "mask"}, TypeError, "CLIPMGProcessor has no argument 'missing'"),
        ({"num_frame": 3}, TypeError, "CLIPMGProcessor has no argument 'num_frame'; did you mean 'num_frames'?"),
        (
            {"videos_kwargs": {"sise": 3}},
            TypeError,
            "CLIPMGVideoProcessor has no argument 'sise'; did you mean 'size'?",
        ),
        ({"videos_kwargs": {"size": 32}, "size": 48}, TypeError, "multiple values for keyword argument 'size'"),
        ({"interval_unit": "minutes"}, ValueError, "interval_unit is 'minutes'; expected 'frames' or 'seconds'"),
        ({"missing_keypoints": "drop"}, ValueError, "missing_keypoints is 'drop'; expected 'error' or 'mask'"),
        ({"size": {"height": 32, "width": 48}}, ValueError, "expected equal height and width"),
    ):
        with pytest.raises(error, match=message):
            small(path, **arguments)


def test_bad_settings_are_named():
    for settings, error, message in (
        ({"keypoint_layout": "imigue-2"}, ValueError, "Unknown keypoint layout 'imigue-2'"),
        ({"augmentation_area": (0.5, 1.5)}, ValueError, r"augmentation_area is \(0.5, 1.5\); expected 0 < least"),
        ({"augmentation_flip": 2}, ValueError, "augmentation_flip is 2; expected a probability"),
        ({"crop_padding": -0.1}, ValueError, "crop_padding is -0.1; expected at least 0"),
        ({"crop_pading": 0.1}, TypeError, "crop_pading"),
        ({"video_processor": 5}, TypeError, "video_processor is a int; expected a video processor"),
    ):
        with pytest.raises(error, match=message):
            CLIPMGProcessor(**{"video_processor": CLIPMGVideoProcessor(), **settings})


# Around the processor


@pytest.mark.parametrize(
    "method", [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]
)
def test_loader_workers_give_the_same(method, small, path, keypoints):
    dataset = Clips(small, path, keypoints)
    expected = list(DataLoader(dataset, batch_size=2))
    batches = list(DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=method))
    for batch, other in zip(batches, expected, strict=True):
        assert_same(batch, other)


def test_the_processor_fits_the_model(model, path, keypoints):
    processor = CLIPMGProcessor.from_model_config(model.config)
    with torch.no_grad():
        for inputs in (
            {"videos": path},
            {"videos": path, "keypoints": keypoints},
            {"keypoints": keypoints},
            {"videos": [path, path, None], "keypoints": [keypoints, None, keypoints]},
        ):
            logits = model(**processor(**inputs)).logits
            assert logits.shape[1] == model.config.num_labels and logits.isfinite().all()
        mixed = logits
        for row, inputs in enumerate(
            ({"videos": path, "keypoints": keypoints}, {"videos": path}, {"keypoints": keypoints})
        ):
            torch.testing.assert_close(mixed[row], model(**processor(**inputs)).logits[0], rtol=1e-4, atol=1e-5)


def test_saving_and_loading(tmp_path, path, keypoints):
    processor = CLIPMGProcessor(
        CLIPMGVideoProcessor(size=48, num_frames=3),
        keypoint_layout="imigue-36",
        crop_padding=0.1,
        augmentation_area=(0.8, 0.9),
        augmentation_flip=0.25,
    )
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["video_processor"]["size"] == {"height": 48, "width": 48}
    assert saved["keypoint_layout"] == "imigue-36" and saved["augmentation_area"] == [0.8, 0.9]
    inputs = {"keypoints": keypoints, "missing_keypoints": "mask", "augment": True, "seeds": 0}
    for loaded in (
        CLIPMGProcessor.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
        pickle.loads(pickle.dumps(processor)),
    ):
        assert type(loaded) is CLIPMGProcessor and settings_of(loaded) == settings_of(processor)
        assert_same(loaded(path, **inputs), processor(path, **inputs))
    assert settings_of(AutoVideoProcessor.from_pretrained(tmp_path)) == settings_of(processor.video_processor)
    assert processor.model_input_names == ["pixel_values", "keypoints", "keypoint_mask"]
    assert CLIPMGProcessor.from_pretrained(tmp_path, crop_padding=0.5).crop_padding == 0.5


def test_pipeline_of_a_saved_folder(tmp_path, model, path):
    processor = CLIPMGProcessor.from_model_config(model.config)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    classifier = pipeline("video-classification", model=str(tmp_path))
    with torch.no_grad():
        expected = AutoModelForVideoClassification.from_pretrained(tmp_path)(**processor.video_processor(path)).logits
    result = classifier(str(path), top_k=3)
    scores, labels = expected.softmax(-1)[0].topk(3)
    assert [entry["label"] for entry in result] == [model.config.id2label[int(label)] for label in labels]
    np.testing.assert_allclose([entry["score"] for entry in result], scores, atol=1e-6)


def test_trainer_takes_and_saves_the_processor(tmp_path, model, path, keypoints):
    processor = CLIPMGProcessor.from_model_config(model.config)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    trained = copy.deepcopy(model)
    dataset = Clips(processor, path, keypoints)
    trainer = Trainer(trained, arguments, train_dataset=dataset, processing_class=processor)
    trainer.train()
    trainer.processing_class.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert settings_of(loaded) == settings_of(processor)
