"""Timelines of whole videos: people, windows, crops, interruptions, and keypoints that do not belong to the video."""

import dataclasses
import itertools
import json

import av
import numpy as np
import pytest
import torch

from clipmg_hf.inference import (
    AttentionTrack,
    FollowedPeople,
    crop_segments,
    crop_video,
    file_frames,
    follow_people,
    load_model,
    predict_clip,
    predict_timeline,
    stream_windows,
)
from clipmg_hf.pose.subjects import NoPersonError
from clipmg_hf.pose.tracking import Track
from clipmg_hf.processing import OpenPoseSequence, VideoReader, get_layout
from clipmg_hf.processing.geometry_clipmg import full_frame_crop
from clipmg_hf.timeline.events import EventDecoding


NUM_FRAMES, RATE, WIDTH, HEIGHT = 70, 10, 96, 64
SETTINGS = {"window": 16, "stride": 4}


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(NUM_FRAMES):
            picture = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            picture[:, index : index + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def person(x, y, first=0, last=NUM_FRAMES, seed=0):
    """(70, 137, 3): a cloud of points around (x, y), in the frames from first to before last."""
    generator = np.random.default_rng(seed)
    points = np.zeros((NUM_FRAMES, 137, 3), np.float32)
    shape = generator.uniform((-14, -20, 0.5), (14, 20, 1), size=(137, 3))
    points[first:last] = shape + generator.normal(0, 0.3, (last - first, 137, 3)) * (1, 1, 0)
    points[first:last, :, :2] += (x, y)
    return points


@pytest.fixture(scope="module")
def points():
    return person(40, 32)


def write_people(folder, *people):
    """OpenPose JSON of several people; a person whose points are zeros in a frame is not in it."""
    folder.mkdir()
    parts = np.cumsum([25, 70, 21])
    names = ("pose_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")
    for index in range(NUM_FRAMES):
        present = [points[index] for points in people if points[index].any()]
        entries = [
            {name: part.ravel().tolist() for name, part in zip(names, np.split(points, parts), strict=True)}
            for points in present
        ]
        content = json.dumps({"version": 1.3, "people": entries})
        (folder / f"long_{index:012d}_keypoints.json").write_text(content)
    return folder


def test_people_share_an_array_where_an_empty_frame_lies_between_them():
    layout = get_layout("coco-17")
    limits = {3: (0, 5), 4: (5, 8), 5: (6, 9), 6: (9, 12)}
    others = tuple(
        Track(number, np.arange(*frames), np.full((frames[1] - frames[0], 17, 3), number, np.float32))
        for number, frames in limits.items()
    )
    subject = Track(0, np.arange(12), np.ones((12, 17, 3), np.float32))
    people = FollowedPeople((subject,), others, layout, 12, "keypoints", "largest")
    assert list(people.sequences()) == [0]
    found = {number: points[:, 0, 0].tolist() for number, points in people.sequences(with_others=True).items()}
    assert found == {
        0: [1] * 12,
        1: [3] * 5 + [0] + [5] * 3 + [0] * 3,
        2: [0] * 5 + [4] * 3 + [0] + [6] * 3,
    }


def test_heads_that_are_in_no_track_are_known(long_video, points, tmp_path):
    """Two points are too few to follow, and enough to show a face."""
    layout = get_layout("openpose-137")
    face = np.zeros_like(points)
    for name in ("nose", "left_ear"):
        face[20:22, layout.index(name)] = (80, 30, 0.9)
    face[20:22, layout.index("left_ear"), 0] += 6
    hand = np.zeros_like(points)
    hand[40, layout.index("left_wrist")] = (80, 30, 0.9)
    folder = write_people(tmp_path / "people", points, face, hand)
    people = follow_people(long_video, keypoints=folder)
    assert (len(people.subjects), people.others) == (1, ())
    assert [track.frames.tolist() for track in people.unfollowed] == [[20], [21]]
    shown = people.sequences(with_others=True)
    assert list(people.sequences()) == [0] and list(shown) == [0, 1, 2]
    for frame in (20, 21):
        assert any(np.array_equal(points[frame], face[frame].astype(np.float32)) for points in shown.values())


def predict(loaded, video, **values):
    model, processor = loaded
    return predict_timeline(video, model=model, processor=processor, **{**SETTINGS, **values})


def with_keypoints(video, points):
    """The frames of a file with its keypoints in the model's layout."""
    for frame in file_frames(VideoReader(video), 0, NUM_FRAMES, lambda index: True):
        yield dataclasses.replace(frame, keypoints=points[frame.index])


def assert_equal(windows, expected, atol=1e-6):
    assert [(w.start, w.end, w.person) for w in windows] == [(w.start, w.end, w.person) for w in expected]
    for one, other in zip(windows, expected, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=atol)
        assert (one.start_seconds, one.end_seconds) == (other.start_seconds, other.end_seconds)
        assert (one.gate, one.pose_share) == (pytest.approx(other.gate, abs=atol), other.pose_share)


def test_windows_of_one_person(loaded, long_video, points):
    model, processor = loaded
    timeline = predict(loaded, long_video, keypoints=points)
    own = processor.convert_keypoints(points)
    crop = crop_video(own, WIDTH, HEIGHT, processor.crop_padding, 8)
    frames = with_keypoints(long_video, own)
    assert_equal(timeline.windows, list(stream_windows(model, processor, frames, crop=crop, **SETTINGS)))
    assert len(timeline.windows) == 15 and timeline.windows[-1].end == NUM_FRAMES
    assert (timeline.video, timeline.num_frames, timeline.width, timeline.height) == ("long.mp4", 70, 96, 64)
    assert (timeline.duration, timeline.fps) == (pytest.approx(7), pytest.approx(10))
    assert timeline.labels == tuple(model.config.id2label.values())
    assert [one.number for one in timeline.people] == [0]
    assert timeline.settings["window"] == 16
    assert timeline.settings["decoding"]["threshold"] == EventDecoding().threshold
    json.dumps(timeline.settings)


def test_windows_are_those_of_predict_clip(loaded, long_video, points):
    """Where the person fills the same box in every frame, the crop of a clip is that of the video."""
    model, processor = loaded
    still = points[:1].repeat(NUM_FRAMES, axis=0)
    timeline = predict(loaded, long_video, keypoints=still, stride=8)
    for window in timeline.windows[:-1]:
        clip = predict_clip(model, processor, long_video, still, window.start, window.end)
        scores = {timeline.labels[index]: score for index, score in enumerate(window.scores)}
        assert scores == pytest.approx(dict(clip.scores), abs=1e-5)
        assert window.gate == pytest.approx(clip.gate_mean, abs=1e-5)
        assert (window.start_seconds, window.end_seconds) == (clip.start_seconds, pytest.approx(clip.end_seconds))


def test_a_video_shorter_than_a_window_is_one_clip(loaded, video, points):
    model, processor = loaded
    still = points[:1].repeat(12, axis=0)
    timeline = predict(loaded, video, keypoints=still)
    clip = predict_clip(model, processor, video, still)
    (window,) = timeline.windows
    assert (window.start, window.end) == (0, 12)
    scores = {timeline.labels[index]: score for index, score in enumerate(window.scores)}
    assert scores == pytest.approx(dict(clip.scores), abs=1e-5)


def test_without_keypoints(loaded, long_video):
    model, processor = loaded
    timeline = predict(loaded, long_video)
    frames = file_frames(VideoReader(long_video), 0, NUM_FRAMES, lambda index: True)
    crop = full_frame_crop(WIDTH, HEIGHT)
    assert_equal(timeline.windows, list(stream_windows(model, processor, frames, crop=crop, **SETTINGS)))
    assert timeline.people == ()
    assert timeline.notes == ("No keypoints were given: the model saw the whole frame and no pose.",)


def test_openpose_files_with_two_people(loaded, long_video, tmp_path, monkeypatch):
    left, right = person(24, 32, 0, 45), person(72, 32, 20, 70, seed=1)
    folder = write_people(tmp_path / "people", left, right)
    num_read = []
    original = VideoReader.iter_read

    def count(self, indices):
        num_read.append(len(indices))
        return original(self, indices)

    monkeypatch.setattr(VideoReader, "iter_read", count)
    both = predict(loaded, long_video, keypoints=folder, subject="all")
    # Both go through one pass over the file, which reads every image once.
    assert len(num_read) == 1 and num_read[0] <= NUM_FRAMES
    assert [(one.number, one.first, one.last) for one in both.people] == [(0, 0, 44), (1, 20, 69)]
    for number, points in enumerate((left, right)):
        single = predict(loaded, long_video, keypoints=points)
        windows = [window for window in both.windows if window.person == number]
        assert [window.start for window in windows] == [window.start for window in single.windows]
        for one, other in zip(windows, single.windows, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-5)
    # Nobody is classified where they cannot be.
    assert max(window.start for window in both.windows if window.person == 0) == 44
    assert min(window.start for window in both.windows if window.person == 1) == 8
    assert any("Person 0 is seen in frames 0 to 44: windows before and after are left out" in n for n in both.notes)
    longest = predict(loaded, long_video, keypoints=folder, subject="longest")
    assert [one.first for one in longest.people] == [20]


class Estimator:
    name = "fake"
    layout = get_layout("coco-17")

    def __init__(self, points):
        self.points, self.num_frames = points, 0

    def estimate(self, frames):
        assert frames.dtype == np.uint8 and frames.shape[1:] == (HEIGHT, WIDTH, 3)
        people = [self.points[index][None] for index in range(self.num_frames, self.num_frames + len(frames))]
        self.num_frames += len(frames)
        return people


def test_a_pose_estimator(loaded, long_video, points):
    estimator = Estimator(points[:, :17])
    timeline = predict(loaded, long_video, pose=estimator)
    assert estimator.num_frames == NUM_FRAMES
    assert_equal(timeline.windows, predict(loaded, long_video, keypoints=points[:, :17]).windows)
    assert any("of the model's keypoints are not in coco-17 and were masked" in note for note in timeline.notes)


def test_a_part_of_a_video(loaded, long_video, points):
    timeline = predict(loaded, long_video, keypoints=points, start=2.0, end=5.0, unit="seconds")
    assert [window.start for window in timeline.windows] == [20, 24, 28, 32, 36]
    assert timeline.windows[-1].end == 50 and timeline.settings["interval"] == [20, 50]
    of_part = predict(loaded, long_video, keypoints=points[20:50], start=20, end=50)
    assert_equal(of_part.windows, timeline.windows)
    layout = get_layout("openpose-137").name
    sequence = OpenPoseSequence(points[20:50], layout, np.ones(30, int), np.arange(20, 50))
    assert_equal(predict(loaded, long_video, keypoints=sequence, start=20, end=50).windows, timeline.windows)


def test_files_that_are_numbered_from_one(loaded, long_video, points, tmp_path):
    """As in `predict_clip`: as many files as frames are those of the whole video."""
    folder = write_people(tmp_path / "one", points)
    for path in sorted(folder.iterdir(), reverse=True):
        path.rename(folder / f"long_{int(path.name.split('_')[1]) + 1:012d}_keypoints.json")
    for interval in ({}, {"start": 20, "end": 50}):
        timeline = predict(loaded, long_video, keypoints=folder, **interval)
        assert_equal(timeline.windows, predict(loaded, long_video, keypoints=points, **interval).windows)


def test_arrays_of_as_many_points_as_the_model_has_are_in_its_layout(
    loaded, save_checkpoint, long_video, points, tmp_path
):
    """25 points may be OpenPose's or Kinect's."""
    points = points[:, :25]
    kinect = load_model(save_checkpoint(tmp_path / "kinect", keypoint_layout="kinect-25", num_keypoints=25), "cpu")
    own = predict(kinect, long_video, keypoints=points)
    assert own.settings["keypoint_layout"] == "kinect-25"
    assert not any("of the model's keypoints" in note for note in own.notes)
    people = follow_people(long_video, keypoints=points, source_layout="kinect-25")
    assert_equal(predict(kinect, long_video, keypoints=people).windows, own.windows)
    other = predict(kinect, long_video, keypoints=points, source_layout="openpose-body25")
    assert other.settings["keypoint_layout"] == "openpose-body25"
    message = r"keypoints: 25 points may be those of openpose-body25 or kinect-25; expected"
    for run in (
        lambda: follow_people(long_video, keypoints=points),
        lambda: predict(loaded, long_video, keypoints=points),
    ):
        with pytest.raises(ValueError, match=message):
            run()
    with pytest.raises(ValueError, match=r"keypoints: 25 keypoints; expected the 17 of 'coco-17'"):
        predict(loaded, long_video, keypoints=points, source_layout="coco-17")


def test_keypoints_that_are_no_numbers_are_named(loaded, long_video, points):
    broken = points.copy()
    broken[:30], broken[35, 0, 0] = 0, np.nan
    message = r"keypoints: in the rows of the frames 30 to 69 that show person 0, counted from 0: x of 'nose' is nan"
    with pytest.raises(ValueError, match=f"{message} in row 5"):
        predict(loaded, long_video, keypoints=broken)


def test_crops_in_segments(loaded, long_video):
    model, processor = loaded
    points = np.concatenate([person(24, 32)[:32], person(72, 32)[32:]])
    timeline = predict(loaded, long_video, keypoints=points, crop="segments")
    own = processor.convert_keypoints(points)
    schedule = crop_segments(own, WIDTH, HEIGHT, processor.crop_padding, 8)
    assert schedule.starts == (0, 32)
    frames = with_keypoints(long_video, own)
    assert_equal(timeline.windows, list(stream_windows(model, processor, frames, crop=schedule, **SETTINGS)))
    with pytest.raises(ValueError, match=r"crop is 'face'; expected 'video', 'segments' or a SquareCrop"):
        predict(loaded, long_video, keypoints=points, crop="face")


def test_a_model_of_keypoints_alone_decodes_nothing(save_checkpoint, tmp_path, long_video, points, monkeypatch):
    model, processor = load_model(save_checkpoint(tmp_path / "pose", fusion="pose"), device="cpu")
    wanted, original = [], VideoReader.iter_read

    def read(self, indices):
        wanted.append(indices)
        return original(self, indices)

    monkeypatch.setattr(VideoReader, "iter_read", read)
    timeline = predict((model, processor), long_video, keypoints=points)
    assert len(timeline.windows) == 15 and wanted == [[]]


def test_events_are_decoded(loaded, long_video, points):
    timeline = predict(loaded, long_video, keypoints=points, decoding=EventDecoding(threshold=0.01, change_cost=0.0))
    assert timeline.events and all(event.label in timeline.labels for event in timeline.events)
    assert timeline.settings["decoding"]["threshold"] == 0.01


def test_strides_that_share_few_images_are_noted(loaded, long_video, points):
    timeline = predict(loaded, long_video, keypoints=points, stride=7)
    assert any("A stride of 7 frames is no multiple" in note for note in timeline.notes)
    # A single window shares nothing, whatever the stride.
    assert not any("stride" in note for note in predict(loaded, long_video, window=15, stride=7, end=15).notes)


# --- interruptions


class Stop:
    """Stops a run after some images, as Ctrl-C does."""

    def __init__(self, model, num_images, monkeypatch):
        self.num_images, original = 0, model.clipmg.encode_frames

        def encode(values, *args, **kwargs):
            self.num_images += values.shape[1]
            if num_images is not None and self.num_images > num_images:
                raise KeyboardInterrupt
            return original(values, *args, **kwargs)

        monkeypatch.setattr(model.clipmg, "encode_frames", encode)


@pytest.mark.parametrize("cut", [0, 30])
def test_a_run_that_was_stopped_goes_on(loaded, long_video, tmp_path, monkeypatch, cut):
    left, right = person(24, 32, 0, 60), person(72, 32, 20, 70, seed=1)
    folder = write_people(tmp_path / "people", left, right)
    path = tmp_path / "partial.jsonl"
    values = {"keypoints": folder, "subject": "all", "batch_size": 4}
    expected = predict(loaded, long_video, **values)
    with monkeypatch.context() as patch:
        Stop(loaded[0], 44, patch)
        with pytest.raises(KeyboardInterrupt):
            predict(loaded, long_video, partial_file=path, **values)
    content = path.read_bytes()
    num_finished = content.count(b"\n") - 1
    assert 2 < num_finished < len(expected.windows)
    path.write_bytes(content[: len(content) - cut])
    with monkeypatch.context() as patch:
        rest = Stop(loaded[0], None, patch)
        timeline = predict(loaded, long_video, partial_file=path, **values)
    assert_equal(timeline.windows, expected.windows, atol=1e-5)
    assert [event.label for event in timeline.events] == [event.label for event in expected.events]
    with monkeypatch.context() as patch:
        whole = Stop(loaded[0], None, patch)
        predict(loaded, long_video, **values)
    assert 0 < rest.num_images < whole.num_images
    # Everything is there now: nothing is computed.
    with monkeypatch.context() as patch:
        nothing = Stop(loaded[0], None, patch)
        again = predict(loaded, long_video, partial_file=path, **values)
    assert nothing.num_images == 0
    assert_equal(again.windows, timeline.windows, atol=0)
    assert path.read_bytes().count(b"\n") == len(expected.windows) + 1


def test_a_partial_file_of_another_run(loaded, save_checkpoint, long_video, video, points, tmp_path):
    path = tmp_path / "partial.jsonl"
    predict(loaded, long_video, keypoints=points, partial_file=path)
    content = path.read_bytes()
    other = load_model(save_checkpoint(tmp_path / "other"), device="cpu")
    other[0].classifier.bias.data += 1
    for run, name in (
        (lambda: predict(other, long_video, keypoints=points, partial_file=path), "weights"),
        (lambda: predict(loaded, long_video, keypoints=points, stride=8, partial_file=path), "stride"),
        (lambda: predict(loaded, long_video, keypoints=points + 1, partial_file=path), "keypoints"),
        (lambda: predict(loaded, video, keypoints=points[:12], partial_file=path), "video"),
    ):
        with pytest.raises(ValueError, match=rf"partial\.jsonl holds windows of something else: .*{name} "):
            run()
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match=r"a partial file needs a video that lies in a file"):
        predict(loaded, long_video.read_bytes(), partial_file=tmp_path / "other.jsonl")


# --- keypoints of another video


def test_keypoints_of_another_length(loaded, long_video, points):
    message = r"keypoints: 69 rows; expected 70, one for each frame of .*long\.mp4"
    with pytest.raises(ValueError, match=message):
        predict(loaded, long_video, keypoints=points[:69])
    with pytest.raises(ValueError, match=r"69 rows; expected 70, .* or 10 for its interval \[5, 15\)"):
        predict(loaded, long_video, keypoints=points[:69], start=5, end=15)


def test_keypoints_of_a_larger_picture(loaded, long_video, points):
    message = r"keypoints: \d+% of the points lie outside the 96 x 64 frames of .*long\.mp4 \(they reach \d+ x \d+\)"
    with pytest.raises(ValueError, match=message):
        predict(loaded, long_video, keypoints=points * (3, 3, 1))
    # A few wild points are damage, not another video.
    wild = points.copy()
    wild[::20, :5, 0] = 900
    assert len(predict(loaded, long_video, keypoints=wild).windows) == 15


def test_nobody(loaded, long_video, points, tmp_path):
    with pytest.raises(NoPersonError, match=r"keypoints: nobody in any frame of .*long\.mp4; expected a person"):
        predict(loaded, long_video, keypoints=np.zeros_like(points))
    folder = write_people(tmp_path / "nobody", np.zeros_like(points))
    with pytest.raises(NoPersonError, match=r"nobody: nobody in any frame of .*long\.mp4"):
        predict(loaded, long_video, keypoints=folder)
    with pytest.raises(NoPersonError, match=r"nobody in any frame within \[20, 70\) of .*long\.mp4"):
        predict(loaded, long_video, keypoints=np.where(np.arange(70)[:, None, None] < 20, points, 0), start=20)


def test_who_leaves_has_no_events_afterwards(loaded, long_video, points):
    gone = np.where(np.arange(70)[:, None, None] < 20, points, 0)
    timeline = predict(loaded, long_video, keypoints=gone, decoding=EventDecoding(threshold=0.01, min_duration=0))
    assert max(window.end for window in timeline.windows) > 20 == max(event.end for event in timeline.events)


def test_arguments_that_do_not_go_together(loaded, long_video, points):
    with pytest.raises(ValueError, match=r"Got keypoints and pose; expected one of them"):
        predict(loaded, long_video, keypoints=points, pose=Estimator(points))
    with pytest.raises(ValueError, match=r"frames in memory have no times"):
        predict(loaded, np.zeros((20, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(ValueError, match=r"keypoints: the shape is \(70, 137\); expected"):
        predict(loaded, long_video, keypoints=points[..., 0])


def test_attention_is_that_of_the_windows(loaded, long_video, points):
    """The mean over the windows that sampled a frame, until the next sampled one."""
    model, processor = loaded
    track = AttentionTrack()
    timeline = predict(loaded, long_video, keypoints=points, attention=track)
    crop = crop_video(
        processor.convert_keypoints(points), WIDTH, HEIGHT, processor.crop_padding, SETTINGS["window"] // 2
    )
    expected: dict[int, list] = {}
    whole = [window for window in timeline.windows if window.end - window.start == SETTINGS["window"]]
    for window in whole:
        inputs = processor(
            str(long_video), points, intervals=(window.start, window.end), crops=crop, return_metadata=True
        )
        frame_indices = inputs.pop("clips")[0].frame_indices.tolist()
        with torch.no_grad():
            maps = model(**inputs, output_explanation=True).semantic_attention[0].mean(dim=0)
        for frame, attention in zip(frame_indices, maps.numpy(), strict=True):
            expected.setdefault(frame, []).append(attention)
    # What follows is also seen by the last window, whose frames are not all there.
    seen_by_whole_windows = range(whole[-1].start + SETTINGS["stride"])
    frames = sorted(expected)
    assert track(frames[0] - 1) is None
    for frame, following in itertools.pairwise(frame for frame in frames if frame in seen_by_whole_windows):
        for shown in (frame, following - 1):
            attention, square = track(shown)
            np.testing.assert_allclose(attention, np.mean(expected[frame], axis=0), atol=1e-6)
            assert square == crop


def test_attention_is_not_kept_in_partial_files(loaded, long_video, points, tmp_path):
    with pytest.raises(ValueError, match="Got attention and partial_file"):
        predict(loaded, long_video, keypoints=points, attention=AttentionTrack(), partial_file=tmp_path / "windows")
