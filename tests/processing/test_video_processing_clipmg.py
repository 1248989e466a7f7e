import io
import json
import pickle

import av
import numpy as np
import pytest
import torch
from disc_clips import disc_keypoints, draw_discs, write_video
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from clipmg_hf.processing import CLIPMGVideoProcessor, VideoDecodingError, VideoReader
from clipmg_hf.processing.video_processing_clipmg import (
    DecodedVideo,
    denormalize_pixels,
    normalize_pixels,
    open_video,
    split_batch,
)


FRAMES = np.random.default_rng(0).integers(0, 256, (12, 40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def processor():
    return CLIPMGVideoProcessor(size=32, num_frames=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "discs.mp4", draw_discs(disc_keypoints()[:12]))


def pixels_of(processor, *args, **kwargs):
    return processor(*args, **kwargs)["pixel_values"]


@pytest.mark.parametrize(
    "convert",
    [
        lambda frames: torch.from_numpy(frames),
        lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2),
        lambda frames: frames.transpose(0, 3, 1, 2),
        lambda frames: frames[:, :, ::-1][:, :, ::-1],
        lambda frames: list(frames),
        lambda frames: tuple(torch.from_numpy(frame) for frame in frames),
        lambda frames: [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames],
        lambda frames: [Image.fromarray(frame) for frame in frames],
        lambda frames: [frames],
        lambda frames: [list(frames)],
        lambda frames: frames[None],
        lambda frames: DecodedVideo(frames),
    ],
)
def test_frames_of_every_kind_give_the_same(processor, convert):
    expected = pixels_of(processor, FRAMES)
    assert expected.shape == (1, 4, 3, 32, 32) and expected.dtype == torch.float32
    assert torch.equal(pixels_of(processor, convert(FRAMES)), expected)


def test_sources_of_every_kind_give_the_same(processor, path):
    expected = pixels_of(processor, path)
    assert torch.equal(pixels_of(processor, str(path)), expected)
    assert torch.equal(pixels_of(processor, path.read_bytes()), expected)
    assert torch.equal(pixels_of(processor, io.BytesIO(path.read_bytes())), expected)
    assert torch.equal(pixels_of(processor, VideoReader(path)), expected)
    with path.open("rb") as file:
        assert torch.equal(pixels_of(processor, file), expected)
        assert not file.closed
    with av.open(str(path)) as container:
        assert torch.equal(pixels_of(processor, container), expected)
    assert torch.equal(pixels_of(processor, VideoReader(path).read(np.arange(12))), expected)
    batch = pixels_of(processor, [path, FRAMES, path.read_bytes()])
    assert torch.equal(batch, torch.cat([expected, pixels_of(processor, FRAMES), expected]))


def test_frames_are_squared_with_black_bars(processor):
    pixels = denormalize_pixels(
        pixels_of(processor, np.full((4, 30, 60, 3), 255, dtype=np.uint8)), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    )
    rows = pixels[0, 0, 0].float().mean(dim=1)
    assert (rows[:6] == 0).all() and (rows[10:22] == 255).all() and (rows[26:] == 0).all()


def test_only_the_wanted_frames_are_converted(processor, path, monkeypatch):
    converted = []
    original = VideoReader._to_rgb

    def count(reader, frame):
        converted.append(frame)
        return original(reader, frame)

    monkeypatch.setattr(VideoReader, "_to_rgb", count)
    processor(path)
    assert len(converted) == 4


def test_without_sampling_every_frame_is_kept(processor):
    pixels = pixels_of(processor, FRAMES, do_sample_frames=False)
    expected = [pixels_of(processor, FRAMES[index : index + 1])[0, 0] for index in range(12)]
    assert torch.equal(pixels[0], torch.stack(expected))
    with pytest.raises(ValueError, match=r"The clips have \[5, 12\] frames; expected one length"):
        processor([FRAMES, FRAMES[:5]], do_sample_frames=False)


def test_normalisation_is_that_of_clip():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    normalized = normalize_pixels(pixels.to(memory_format=torch.channels_last), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    torch.testing.assert_close(normalized, (pixels / 255 - mean) / std, rtol=0, atol=1e-6)
    assert normalized.is_contiguous()
    assert torch.equal(denormalize_pixels(normalized, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD), pixels)


def test_settings_of_one_call_leave_the_processor_alone(processor):
    before = processor.to_dict()
    output = processor(FRAMES, size=48, num_frames=3, image_mean=[0, 0, 0], image_std=[1, 1, 1], return_tensors="np")
    assert isinstance(output["pixel_values"], np.ndarray) and output["pixel_values"].shape == (1, 3, 3, 48, 48)
    assert output["pixel_values"].min() >= 0 and output["pixel_values"].max() <= 1
    assert processor.to_dict() == before


def test_input_frames_are_not_changed(processor):
    frames = FRAMES.copy()
    processor(frames, size=60, do_sample_frames=False)
    np.testing.assert_array_equal(frames, FRAMES)


def test_saving_and_loading(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    for loaded in (
        CLIPMGVideoProcessor.from_pretrained(tmp_path),
        AutoVideoProcessor.from_pretrained(tmp_path),
        CLIPMGVideoProcessor.from_json_file(tmp_path / "video_preprocessor_config.json"),
        pickle.loads(pickle.dumps(processor)),
    ):
        assert type(loaded) is CLIPMGVideoProcessor and loaded.to_dict() == processor.to_dict()
        assert torch.equal(pixels_of(loaded, FRAMES), pixels_of(processor, FRAMES))
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    settings = {"size", "num_frames", "pose_frames_per_frame", "do_sample_frames", "image_mean", "image_std"}
    assert set(saved) == settings | {"auto_map", "video_processor_type"}
    assert CLIPMGVideoProcessor.from_pretrained(tmp_path, num_frames=2).num_frames == 2


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([], "videos: the batch is empty; expected at least one clip"),
        (np.zeros((0, 2, 8, 8, 3), np.uint8), "videos: the batch is empty"),
        (np.zeros((8, 8, 3), np.uint8), r"videos: uint8 values of the shape \(8, 8, 3\); expected .*\(frames, height"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"videos: uint8 values of the shape \(2, 8, 8, 4\); expected"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"videos: uint8 values of the shape \(0, 8, 8, 3\); expected"),
        (np.zeros((2, 8, 8, 3)), "videos: float64 frames; expected uint8 in 0..255"),
        ([FRAMES, FRAMES / 255], r"videos\[1\]: float64 frames; expected uint8"),
        (
            [FRAMES[0], FRAMES[0, :20]],
            r"videos: frames of the shapes \[\(20, 60, 3\), \(40, 60, 3\)\]; expected a single",
        ),
        (5, r"videos: int64 values of the shape \(\); expected a video file or RGB frames"),
        ("https://example.org/v.mp4", "https://example.org/v.mp4: this is a URL; expected the path of a downloaded"),
        ("RTSP://camera/1", "RTSP://camera/1: this is a URL"),
        ("missing.mp4", "missing.mp4: no such file"),
    ],
)
def test_bad_videos_are_named(processor, videos, message):
    with pytest.raises(ValueError, match=message):
        processor(videos)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"nmu_frames": 4},
            TypeError,
            "CLIPMGVideoProcessor has no argument 'nmu_frames'; did you mean 'num_frames'?",
        ),
        ({"fps": 2}, TypeError, "CLIPMGVideoProcessor has no argument 'fps'; expected one of size, num_frames"),
        ({"size": {"height": 32, "width": 48}}, ValueError, "size is .*32.*48.*; expected equal height and width"),
        ({"size": {"shortest_edge": 32}}, ValueError, "size is .*shortest_edge.*; expected equal height and width"),
        ({"size": 0}, ValueError, "size is .*0.*; expected equal height and width"),
        ({"num_frames": 0}, ValueError, "num_frames is 0; expected at least 1"),
        ({"num_frames": "8"}, Exception, "num_frames"),
        ({"pose_frames_per_frame": -1}, ValueError, "pose_frames_per_frame is -1; expected at least 1"),
        ({"image_mean": [0.5]}, ValueError, r"image_mean is .*0.5.*; expected a value for each of R, G and B"),
        ({"return_tensors": "tf"}, Exception, "return_tensors"),
    ],
)
def test_bad_settings_are_named(processor, settings, error, message):
    with pytest.raises(error, match=message):
        processor(FRAMES, **settings)
    with pytest.raises(error, match=message):
        CLIPMGVideoProcessor(**settings)


def test_intervals_of_frames_in_memory():
    video = DecodedVideo(FRAMES)
    assert video.resolve_interval(None, None, "frames") == video.resolve_interval(None, None, "seconds") == (0, 12)
    assert video.resolve_interval(3, None, "frames") == (3, 12)
    assert video.resolve_interval(None, 5.0, "frames") == (0, 5)
    for start, end, message in (
        (-1, 3, r"the interval \[-1, 3\) frames lies outside the video; the video holds \[0, 12\) frames"),
        (3, 3, r"the interval \[3, 3\) frames is empty or reversed; the video holds \[0, 12\) frames"),
        (5, 2, "empty or reversed"),
        (0, 13, "outside the video"),
        (0.5, 3, r"frame number 0\.5 is not an integer; expected one"),
        (float("nan"), 3, "outside the video"),
        (0, float("inf"), "outside the video"),
        (0, float("-inf"), "empty or reversed"),
    ):
        with pytest.raises(VideoDecodingError, match=f"^videos: .*{message}"):
            video.resolve_interval(start, end, "frames")
    with pytest.raises(VideoDecodingError, match="videos: the interval is in seconds, but only files have timestamps"):
        video.resolve_interval(0, 1, "seconds")


def test_frames_in_memory_come_one_after_another():
    video = DecodedVideo(FRAMES)
    for arguments in ((), (3,), (3, 5)):
        indices, frames = zip(*video.iter_frames(*arguments), strict=True)
        assert indices == tuple(range(12))[slice(*arguments, *[None] * (2 - len(arguments)))]
        np.testing.assert_array_equal(frames, FRAMES[list(indices)])
    with pytest.raises(VideoDecodingError, match="outside the video"):
        next(video.iter_frames(0, 13))


def test_opening_leaves_open_videos_alone():
    video = DecodedVideo(FRAMES)
    assert open_video(video) is video


def test_a_batch_is_told_from_a_clip():
    assert split_batch("a.mp4") == (["a.mp4"], False)
    assert split_batch(["a.mp4"]) == (["a.mp4"], True)
    assert split_batch(("a.mp4", None)) == (["a.mp4", None], True)
    assert [len(split_batch(videos)[0]) for videos in (FRAMES, [FRAMES, FRAMES], list(FRAMES), FRAMES[None])] == [
        1,
        2,
        1,
        1,
    ]
