"""Windows of a stream against the processor and the model on each window by itself."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.inference import CropSchedule, StreamFrame, WindowGrid, predict_clip, stream_windows
from clipmg_hf.processing import SquareCrop


HEIGHT, WIDTH, NUM_FRAMES, RATE = 48, 64, 45, 10
CROP = SquareCrop(6, -4, 52)
TINY = {
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    },
    "num_frames": 4,
    "pose_frames_per_frame": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1),
    "pose_inflate": (0, 1),
    "pose_spatial_strides": (2, 2),
    "pose_temporal_strides": (1, 1),
    "heatmap_size": 12,
}


def build(**values):
    """A model whose every part has an influence on the scores, and its processor."""
    config = CLIPMGConfig(**{**TINY, **values})
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model, CLIPMGProcessor.from_model_config(config)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def keypoints():
    """(45, 22, 3) with a gap of a whole window, a short one, and missing points."""
    generator = np.random.default_rng(1)
    points = generator.uniform((4, 4, 0.3), (60, 44, 1), size=(NUM_FRAMES, 22, 3))
    points[generator.random((NUM_FRAMES, 22)) < 0.2] = 0
    points[5:8] = 0
    points[20:38] = 0
    return points


def as_stream(images, keypoints=None, first=0):
    for index, image in enumerate(images):
        points = None if keypoints is None else keypoints[index]
        yield StreamFrame(first + index, index / RATE, 1 / RATE, lambda image=image: image, points)


def predict_windows(model, processor, images, keypoints, window, stride, crop):
    """Every window by itself: start, end, scores, gate."""
    missing = window + stride
    padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
    points = None if keypoints is None else np.concatenate([keypoints, np.zeros((missing, *keypoints.shape[1:]))])
    num_frames, results = len(images), []
    for start in itertools.count(0, stride):
        end = start + window
        clip_points = None if points is None else points[start:end]
        inputs = processor(padded, clip_points, intervals=(start, end), crops=crop, return_metadata=True)
        clip = inputs.pop("clips")[0]
        if (clip.frame_indices >= num_frames).any():
            inputs["frame_mask"] = torch.from_numpy(clip.frame_indices < num_frames)[None]
        with torch.no_grad():
            outputs = model(**inputs, output_explanation=True)
        gate = None if outputs.gate is None else outputs.gate.mean().item()
        results.append((start, min(end, num_frames), outputs.logits.softmax(-1)[0].numpy(), gate))
        if end >= num_frames:
            return results


def compare(windows, expected):
    assert [(window.start, window.end) for window in windows] == [(start, end) for start, end, _, _ in expected]
    for window, (_, _, scores, gate) in zip(windows, expected, strict=True):
        np.testing.assert_allclose(window.scores, scores, rtol=0, atol=1e-5)
        assert window.gate == (None if gate is None else pytest.approx(gate, abs=1e-5))
    if len(expected) > 1:
        # The comparison can fail: windows differ by more than its tolerance.
        assert max(abs(expected[0][2] - scores).max() for _, _, scores, _ in expected[1:]) > 1e-3


CONFIGURATIONS = [
    {},
    {"fusion": "sum", "query": "pose"},
    {"fusion": "concat", "query": "pose_pool"},
    {"fusion": "gated", "query": "pose_pool", "pose_inflate": (1, 1)},
    {"fusion": "visual"},
    {"fusion": "visual", "use_semantic_attention": False},
    {"fusion": "pose"},
    {"pose_inflate": (0, 0)},
    {"pose_temporal_strides": (2, 1)},
    {"pose_frames_per_frame": 3, "num_frames": 5},
]


@pytest.mark.parametrize("values", CONFIGURATIONS, ids=str)
def test_windows_are_those_of_clips(values, images, keypoints):
    model, processor = build(**values)
    expected = predict_windows(model, processor, images, keypoints, 16, 4, CROP)
    stream = as_stream(images, keypoints)
    windows = list(stream_windows(model, processor, stream, window=16, stride=4, crop=CROP, batch_size=3))
    compare(windows, expected)


@pytest.mark.parametrize(("window", "stride"), [(16, 16), (12, 5), (3, 1), (3, 2), (45, 7), (44, 30), (29, 13)])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_any_window_and_stride(window, stride, batch_size, images, keypoints):
    model, processor = build()
    expected = predict_windows(model, processor, images, keypoints, window, stride, CROP)
    stream = as_stream(images, keypoints)
    windows = list(
        stream_windows(model, processor, stream, window=window, stride=stride, crop=CROP, batch_size=batch_size)
    )
    assert windows[-1].end == NUM_FRAMES
    compare(windows, expected)


def test_without_keypoints_the_whole_frame_is_seen(images):
    model, processor = build()
    expected = predict_windows(model, processor, images, None, 16, 8, None)
    windows = list(stream_windows(model, processor, as_stream(images), window=16, stride=8))
    compare(windows, expected)
    assert all(window.pose_share == 0 and window.gate == 1 for window in windows)


def test_a_mirrored_crop(images, keypoints):
    model, processor = build()
    crop = dataclasses.replace(CROP, flipped=True)
    expected = predict_windows(model, processor, images, keypoints, 16, 8, crop)
    stream = as_stream(images, keypoints)
    compare(list(stream_windows(model, processor, stream, window=16, stride=8, crop=crop)), expected)


def test_scores_are_those_of_predict_clip(images, keypoints):
    """The public function, which cuts around the person of its clip: the same where that is the given crop."""
    model, processor = build()
    clip = processor(images, keypoints, intervals=(8, 20), return_metadata=True)["clips"][0]
    prediction = predict_clip(model, processor, images, keypoints, 8, 20)
    stream = as_stream(images[8:20], keypoints[8:20])
    (window,) = stream_windows(model, processor, stream, window=12, stride=12, crop=clip.crop)
    scores = {model.config.id2label[index]: score for index, score in enumerate(window.scores)}
    assert scores == pytest.approx(dict(prediction.scores), abs=1e-5)
    assert window.gate == pytest.approx(prediction.gate_mean, abs=1e-5)
    assert window.pose_share == prediction.person_fraction


def test_each_frame_has_one_crop_of_a_schedule(images, keypoints):
    model, processor = build()
    other = SquareCrop(0, 0, 30)
    schedule = CropSchedule((0, 16), (CROP, other))
    stream = as_stream(images[:32], keypoints[:32])
    windows = list(stream_windows(model, processor, stream, window=16, stride=8, crop=schedule))
    for window, crop in ((windows[0], CROP), (windows[2], other)):
        expected = predict_windows(model, processor, images[:32], keypoints[:32], 16, 16, crop)
        np.testing.assert_allclose(window.scores, expected[window.start // 16][2], rtol=0, atol=1e-5)


class Counter:
    """Counts the frames that go through a method."""

    def __init__(self, owner, name, monkeypatch):
        self.count, original = 0, getattr(owner, name)

        def count(values, *args, **kwargs):
            self.count += values.shape[0] * values.shape[1]
            return original(values, *args, **kwargs)

        monkeypatch.setattr(owner, name, count)


def test_every_sampled_frame_goes_through_the_towers_once(images, keypoints, monkeypatch):
    model, processor = build()
    in_tower = Counter(model.clipmg, "encode_frames", monkeypatch)
    in_pose_encoder = Counter(model.clipmg.pose_encoder, "encode_frames", monkeypatch)
    read = []
    frames = [
        dataclasses.replace(frame, image=lambda frame=frame: read.append(frame.index) or images[frame.index])
        for frame in as_stream(images[:32], keypoints[:32])
    ]
    windows = list(stream_windows(model, processor, frames, window=16, stride=4, crop=CROP, batch_size=3))
    assert len(windows) == 5
    # Windows sample every 4th image and every 2nd pose; 8 windows of 4 and 8 would be 20 and 40.
    assert in_tower.count == len(read) == len(set(read)) == 8
    visible = keypoints[1:32:2].any(axis=(1, 2)).sum()
    # And one empty frame, for all that show nobody.
    assert in_pose_encoder.count == visible + 1


def test_windows_come_at_once_with_batches_of_one(images, keypoints):
    model, processor = build()
    seen = []

    def count(frames):
        for frame in frames:
            seen.append(frame.index)
            yield frame

    stream = count(as_stream(images, keypoints))
    for window in stream_windows(model, processor, stream, window=16, stride=4, crop=CROP, batch_size=1):
        assert seen[-1] == window.end - 1


def test_what_is_kept_does_not_grow(images, keypoints):
    from clipmg_hf.inference import WindowClassifier

    model, processor = build()
    classifier = WindowClassifier(model, processor, WindowGrid.from_processor(processor, 16, 4), CROP, batch_size=4)

    def count():
        return sum(len(value) for value in vars(classifier).values() if isinstance(value, dict | list))

    kept = []
    for index in range(300):
        image = images[index % NUM_FRAMES]
        classifier.push(StreamFrame(index, index / RATE, 1 / RATE, image, keypoints[index % NUM_FRAMES]))
        kept.append(count())
    assert max(kept[150:]) <= max(kept[:150])


def test_streams_may_begin_anywhere_and_times_are_theirs(images, keypoints):
    model, processor = build()
    stream = as_stream(images[:20], keypoints[:20], first=1000)
    windows = list(stream_windows(model, processor, stream, window=16, stride=16, crop=CROP))
    assert [(window.start, window.end) for window in windows] == [(1000, 1016), (1016, 1020)]
    assert [window.start_seconds for window in windows] == pytest.approx([0, 1.6])
    assert [window.end_seconds for window in windows] == pytest.approx([1.6, 2.0])


def test_the_last_window_is_left_out_where_it_sees_nothing(images, keypoints):
    model, processor = build()
    # The first sampled image of a window is its fourth.
    for num_frames, num_windows in ((16, 1), (17, 1), (19, 1), (20, 2)):
        stream = as_stream(images[:num_frames], keypoints[:num_frames])
        assert len(list(stream_windows(model, processor, stream, window=16, stride=16, crop=CROP))) == num_windows


def test_no_frames_no_windows():
    assert list(stream_windows(*build(), [], window=16, stride=8)) == []


def test_a_model_in_training_is_used_in_evaluation_and_left_as_it_was(images, keypoints):
    model, processor = build()
    expected = predict_windows(model, processor, images, keypoints, 16, 8, CROP)
    model.train()
    stream = as_stream(images, keypoints)
    compare(list(stream_windows(model, processor, stream, window=16, stride=8, crop=CROP)), expected)
    assert model.training


def test_bfloat16(images, keypoints):
    model, processor = build()
    expected = predict_windows(model, processor, images, keypoints, 16, 8, CROP)
    stream = as_stream(images, keypoints)
    windows = list(stream_windows(model.bfloat16(), processor, stream, window=16, stride=8, crop=CROP))
    for window, (_, _, scores, _) in zip(windows, expected, strict=True):
        np.testing.assert_allclose(window.scores, scores, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, r"window is 0 and stride is 4; expected a window of at least 1"),
        ({"stride": 17}, r"window is 16 and stride is 17; .* stride of 1 to as many frames"),
        ({"stride": 0}, r"stride is 0"),
        ({"batch_size": 0}, r"batch_size is 0; expected at least 1"),
    ],
)
def test_settings_outside_their_range(settings, message, images):
    with pytest.raises(ValueError, match=message):
        list(stream_windows(*build(), as_stream(images), **{"window": 16, "stride": 4, **settings}))


def test_frames_out_of_order_or_without_an_image(images):
    frames = list(as_stream(images))
    with pytest.raises(ValueError, match=r"Got frame 3; expected frame 2, the one after the last"):
        list(stream_windows(*build(), [*frames[:2], frames[3]], window=16, stride=4))
    frames[3] = dataclasses.replace(frames[3], image=None)
    with pytest.raises(ValueError, match=r"Frame 3 has no image; expected one"):
        list(stream_windows(*build(), frames, window=16, stride=4))
    frames[1] = dataclasses.replace(frames[1], duration=0.0)
    with pytest.raises(ValueError, match=r"Frame 1 lasts 0.0 seconds"):
        list(stream_windows(*build(), frames, window=16, stride=4))


@pytest.mark.parametrize(("stride", "is_noted"), [(4, False), (8, False), (6, True), (1, True)])
def test_strides_that_share_few_images_are_noted(stride, is_noted):
    _, processor = build()
    note = WindowGrid.from_processor(processor, 16, stride).note
    assert (note is not None) == is_noted
    if is_noted:
        assert f"stride of {stride} frames is no multiple of the 4 frames" in note
