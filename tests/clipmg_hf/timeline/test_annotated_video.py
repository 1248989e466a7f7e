"""The annotated video plays, keeps its times, shows what was found, and appears as a whole."""

from fractions import Fraction

import av
import numpy as np
import pytest

from clipmg_hf.processing import SquareCrop, VideoReader, get_layout
from clipmg_hf.timeline.annotated_video import write_annotated_video
from clipmg_hf.timeline.colors import group_colors, person_color, to_rgb
from clipmg_hf.timeline.records import Event, Person, Timeline
from clipmg_hf.video_writing import write_video


LAYOUT = get_layout("openpose-137")


def timeline(num_frames=12, people=1, duration=1.2, **values) -> Timeline:
    events = (
        Event(2, 6, duration / 6, duration / 2, "Touching or scratching head", 3, "head-hand", 0.9, 0, 0.4),
        Event(4, 12, duration / 3, duration, "Folding arms", 16, "body-hand", 0.6, people - 1, 0.7),
    )
    persons = tuple(Person(n, 0, num_frames - 1, num_frames, (0.0, 0.0, 1.0, 1.0)) for n in range(people))
    return Timeline("clip.mp4", num_frames, duration, 10.0, 96, 64, ("a",) * 32, persons, (), events, **values)


def decode(path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264" and not container.streams.audio
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [frame.time for frame in frames]


def has_color(image: np.ndarray, color: str, tolerance: int = 30) -> bool:
    return bool((np.abs(image.astype(int) - to_rgb(color)).max(axis=-1) < tolerance).any())


@pytest.fixture
def uneven_video(tmp_path):
    """6 frames of 96 x 64 at uneven times."""
    path, ticks = tmp_path / "uneven.mp4", (0, 3, 5, 12, 13, 20)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 20)
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * tick, np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_video_plays_and_shows_gesture_and_skeleton(video, points, tmp_path):
    path = tmp_path / "annotated.mp4"
    write_annotated_video(timeline(), video, path, keypoints=points, layout=LAYOUT)
    frames, times = decode(path)
    assert times == pytest.approx([0.1 * index for index in range(12)], abs=1e-3)
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")
    # 96 x 64 is enlarged to 672 x 448; the bar lies below.
    assert frames.shape[2] == 672 and frames.shape[1] > 448 + 30
    colors = group_colors(timeline())
    left = frames[:, 448:490, :60]
    assert not has_color(left[0], colors["head-hand"]) and has_color(left[3], colors["head-hand"])
    assert has_color(left[8], colors["body-hand"])
    plain = tmp_path / "plain.mp4"
    write_annotated_video(timeline(), video, plain)
    assert np.abs(decode(plain)[0][5, :448].astype(int) - frames[5, :448]).max() > 60
    assert sorted(file.name for file in tmp_path.iterdir()) == ["annotated.mp4", "plain.mp4"]


def test_uneven_times_are_kept(uneven_video, tmp_path):
    with VideoReader(uneven_video) as reader:
        write_annotated_video(timeline(6, duration=1.2), reader, tmp_path / "out.mp4")
        expected = reader.info.timestamps
    assert decode(tmp_path / "out.mp4")[1] == pytest.approx(expected, abs=1e-3)


def test_people_have_colours_of_their_own(video, points, tmp_path):
    second = points.copy()
    second[..., 0] -= 15
    write_annotated_video(
        timeline(people=2), video, tmp_path / "out.mp4", keypoints={0: points, 1: second}, layout=LAYOUT
    )
    frame = decode(tmp_path / "out.mp4")[0][5]
    for place in range(2):
        assert has_color(frame[:448], person_color(place), 60) and has_color(frame[448:], person_color(place), 60)


def test_attention_lies_where_it_is(video, tmp_path):
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    maps = [None] * 6 + [(heat, SquareCrop(0, 0, 64))] * 6
    write_annotated_video(timeline(), video, tmp_path / "out.mp4", attention=maps.__getitem__)
    write_annotated_video(timeline(), video, tmp_path / "plain.mp4")
    frames, plain = (decode(tmp_path / name)[0].astype(int) for name in ("out.mp4", "plain.mp4"))
    difference = np.abs(frames - plain).max(axis=-1)
    assert difference[2, :448].max() < 25
    # The patch is 16 of 96 pixels wide, enlarged seven times.
    assert difference[9, 40:70, 40:70].min() > 60 and difference[9, 200:440, 300:].max() < 25


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """3 frames of 768 x 512 in which every patch of 8 pixels has its own colour."""
    path = tmp_path_factory.mktemp("noise") / "noise.mp4"
    patches = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    write_video(path, ((index / 10, patches.repeat(8, axis=0).repeat(8, axis=1)) for index in range(3)), 10)
    return path


def head(x: int, y: int) -> np.ndarray:
    """(3, 137, 3) of somebody with a nose at a place, ears beside it and a chin below."""
    points = np.zeros((3, 137, 3), np.float32)
    for name, (right, down) in {
        "nose": (0, 0),
        "left_ear": (30, -5),
        "right_ear": (-30, -5),
        "face_8": (0, 45),
    }.items():
        points[:, LAYOUT.index(name)] = (x + right, y + down, 1)
    return points


def roughness(part: np.ndarray) -> int:
    return int(np.abs(np.diff(part.astype(int), axis=1)).max())


def test_faces_are_blurred_and_their_points_left_out(noise, tmp_path):
    write_annotated_video(
        timeline(3), noise, tmp_path / "out.mp4", keypoints=head(400, 150), layout=LAYOUT, blur_face=True
    )
    frame = decode(tmp_path / "out.mp4")[0][1]
    assert roughness(frame[180:200, 380:420]) < 25 and roughness(frame[400:440, 600:]) > 100


def test_somebody_who_is_no_subject_is_blurred_but_not_drawn(noise, tmp_path):
    people = {0: head(200, 150), 7: head(550, 300)}
    write_annotated_video(timeline(3), noise, tmp_path / "out.mp4", keypoints=people, layout=LAYOUT, blur_face=True)
    frame = decode(tmp_path / "out.mp4")[0][1]
    assert roughness(frame[140:160, 160:240]) > 60, "the subject's nose and ears"
    assert roughness(frame[290:310, 510:590]) < 25


def test_outside_the_interval_the_whole_picture_is_blurred(noise, tmp_path):
    found = timeline(3, settings={"interval": [1, 2]})
    points = head(400, 150) * np.array([0, 1, 0], np.float32)[:, None, None]
    write_annotated_video(found, noise, tmp_path / "out.mp4", keypoints=points, layout=LAYOUT, blur_face=True)
    frames = decode(tmp_path / "out.mp4")[0][:, 400:440, 600:760]
    assert roughness(frames[1]) > 100 and max(roughness(frames[0]), roughness(frames[2])) < 25


def test_what_does_not_belong_together_is_refused(video, points, tmp_path):
    out = tmp_path / "out.mp4"
    with pytest.raises(ValueError, match=r"clip\.mp4 has 12 frames; the timeline of clip\.mp4 has 11"):
        write_annotated_video(timeline(11), video, out)
    with pytest.raises(
        ValueError, match=r"keypoints of person 0 have the shape \(11, 137, 3\); expected \(12, 137, 3\)"
    ):
        write_annotated_video(timeline(), video, out, keypoints=points[:11], layout=LAYOUT)
    with pytest.raises(ValueError, match="keypoints without a layout"):
        write_annotated_video(timeline(), video, out, keypoints=points)
    with pytest.raises(ValueError, match="faces are found by keypoints, and there are none"):
        write_annotated_video(timeline(), video, out, blur_face=True)
    with pytest.raises(ValueError, match="this is the source"):
        write_annotated_video(timeline(), video, video)
    with pytest.raises(ValueError, match=r"out\.avi: expected a file name that ends in \.mp4"):
        write_annotated_video(timeline(), video, tmp_path / "out.avi")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_video_leaves_the_old_one(video, tmp_path):
    path = tmp_path / "out.mp4"
    path.write_text("old")

    def interrupt(index):
        if index == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_annotated_video(timeline(), video, path, attention=interrupt)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("duration", "people"), [(1.2, 1), (1.2, 7), (4000.0, 2)])
def test_long_videos_and_many_people_have_a_bar_that_fits(video, tmp_path, duration, people):
    write_annotated_video(timeline(people=people, duration=duration), video, tmp_path / "out.mp4")
    height = decode(tmp_path / "out.mp4")[0].shape[1]
    assert height % 2 == 0 and 448 < height < 448 + 330


def test_writing_no_picture_or_an_odd_one_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no picture to write"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(ValueError, match=r"a picture of 33 x 32; expected even sides"):
        write_video(tmp_path / "a.mp4", [(0.0, np.zeros((32, 33, 3), np.uint8))], 25)
    assert not list(tmp_path.iterdir())
