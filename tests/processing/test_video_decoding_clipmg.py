"""Every frame of the videos made here shows its own number as twelve black or white blocks, so a frame that was read
proves which one it is. The reference decodes everything from the start.
"""

import io
import logging
import os
import pickle
import struct
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from disc_clips import real_data

from clipmg_hf.processing.video_decoding_clipmg import VideoDecodingError, VideoReader


NUM_FRAMES = 60
B_FRAMES = {"bf": "3"}
VFR_TIMES = np.cumsum([40, 33, 50, 100, 20] * (NUM_FRAMES // 5)).tolist()  # milliseconds
LATE_TIMES = range(5000, 5000 + 40 * NUM_FRAMES, 40)

# File name -> encoder and arguments of `make_video`.
VIDEOS = {
    "gop12.mp4": ("libx264", {"options": B_FRAMES}),
    "gop250.mp4": ("libx264", {"options": B_FRAMES, "gop": 250}),
    "faststart.mp4": ("libx264", {"options": B_FRAMES, "muxer": {"movflags": "faststart"}}),
    "fragmented.mp4": ("libx264", {"options": B_FRAMES, "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    "open_gop.mkv": ("libx264", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
    "open_gop.ts": ("libx264", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
    "gradual_refresh.ts": ("libx264", {"options": {"x264-params": "intra-refresh=1:bframes=3"}}),
    "h264.ts": ("libx264", {"options": B_FRAMES}),
    "h264.avi": ("libx264", {"options": B_FRAMES}),
    "raw.h264": ("libx264", {"options": B_FRAMES}),
    "mpeg4.avi": ("mpeg4", {"max_b_frames": 2}),
    "mpeg4.mp4": ("mpeg4", {"max_b_frames": 2}),
    "mpeg2.mpg": ("mpeg2video", {"max_b_frames": 2}),
    "vp9.webm": ("libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "hevc.mp4": ("libx265", {"options": {"x265-params": "log-level=none"}}),
    "vfr.mov": ("libx264", {"times": VFR_TIMES}),
    "late.mp4": ("libx264", {"times": LATE_TIMES}),
    "late.mkv": ("libx264", {"times": LATE_TIMES}),
    "odd_size.mp4": ("libx264", {"pix_fmt": "yuv444p", "size": (191, 127)}),
    "ten_bits.mp4": ("libx264", {"pix_fmt": "yuv420p10le"}),
    "full_range.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "rotated.mp4": ("libx264", {"rotation": 90}),
}


def draw_number(number, size):
    """(height, width, 3) uint8: bit b of the number is block b, four blocks a row."""
    width, height = size
    bits = number >> np.arange(12).reshape(3, 4) & 1
    blocks = np.kron(np.where(bits, 235, 20), np.ones((height // 3, width // 4)))
    blocks = np.pad(blocks, ((0, height - blocks.shape[0]), (0, width - blocks.shape[1])), mode="edge")
    return np.repeat(blocks[..., None], 3, axis=2).astype(np.uint8)


def read_number(image):
    height, width = image.shape[0] // 3, image.shape[1] // 4
    centres = image[height // 2 : 3 * height : height, width // 2 : 4 * width : width, 1]
    return int(((centres > 128) << np.arange(12).reshape(3, 4)).sum())


def make_video(
    target,
    encoder="libx264",
    *,
    container_format=None,
    num_frames=NUM_FRAMES,
    gop=12,
    size=(192, 128),
    pix_fmt="yuv420p",
    options=None,
    muxer=None,
    max_b_frames=None,
    times=None,
    rotation=0,
):
    """Encode the numbers from 0 on, at 25 frames/s or at `times` in milliseconds."""
    with av.open(target, "w", format=container_format, options=muxer or {}) as container:
        stream = container.add_stream(encoder, rate=25, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if max_b_frames is not None:
            stream.codec_context.max_b_frames = max_b_frames
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw_number(number, size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, 25 if times is None else 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_all(source, stream_index=None):
    """The slow reference: every frame, one after the other, upright."""
    with av.open(source) as container:
        stream = container.streams.best("video") if stream_index is None else container.streams[stream_index]
        stream.codec_context.thread_count = 1
        return [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in container.decode(stream)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Folder in which `get(name)` makes a video of `VIDEOS` when it is first asked for."""
    folder = tmp_path_factory.mktemp("videos")

    def get(name):
        path = folder / name
        if not path.exists():
            encoder, arguments = VIDEOS[name]
            make_video(str(path), encoder, **arguments)
        return path

    return get


def check_against_reference(reader, reference, num_draws=12):
    num_frames = len(reference)
    generator = np.random.default_rng(0)
    assert reader.info.num_frames == num_frames
    assert reader.info.timestamps.shape == (num_frames,)
    assert reader.info.timestamps[0] == 0 and (np.diff(reader.info.timestamps) > 0).all()
    assert reference[0].shape == (reader.info.height, reader.info.width, 3)
    draws = [generator.integers(num_frames, size=generator.integers(1, 9)) for _ in range(num_draws)]
    first = int(generator.integers(max(num_frames - 9, 1)))
    draws += [[0], [num_frames - 1], np.arange(first, min(first + 9, num_frames)), [0, num_frames - 1, 0]]
    for indices in draws:
        frames = reader.read(indices)
        assert frames.dtype == np.uint8
        for index, frame in zip(indices, frames, strict=True):
            np.testing.assert_array_equal(frame, reference[index], err_msg=f"frame {index} of {indices}")


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_exact(videos, name, num_threads):
    path = videos(name)
    reference = decode_all(path)
    turns = VIDEOS[name][1].get("rotation", 0) // 90
    assert [read_number(np.rot90(image, -turns)) for image in reference] == list(range(NUM_FRAMES))
    with VideoReader(path, num_threads=num_threads) as reader:
        np.testing.assert_array_equal(reader.read([NUM_FRAMES - 1])[0], reference[-1])
        check_against_reference(reader, reference)
        indices, frames = zip(*reader.iter_frames(7, 33), strict=True)
        assert indices == tuple(range(7, 33))
        np.testing.assert_array_equal(frames, reference[7:33])
        np.testing.assert_array_equal(np.stack([frame for _, frame in reader.iter_frames()]), reference)
        indices, frames = zip(*reader.iter_read(np.array([0, 3, 4, 30, NUM_FRAMES - 1])), strict=True)
        assert indices == (0, 3, 4, 30, NUM_FRAMES - 1)
        np.testing.assert_array_equal(frames, [reference[index] for index in indices])
        assert list(reader.iter_read([])) == []
        for wrong in ([3, 3], [4, 2]):
            with pytest.raises(VideoDecodingError, match="the indices do not increase"):
                next(reader.iter_read(wrong))


@pytest.mark.parametrize("name", ["gop12.mp4", "h264.avi", "h264.ts", "mpeg2.mpg", "open_gop.mkv", "fragmented.mp4"])
def test_times_of_a_constant_rate(videos, name):
    info = VideoReader(videos(name)).info
    np.testing.assert_allclose(info.timestamps, np.arange(NUM_FRAMES) / 25, atol=1e-6)
    assert info.average_rate == pytest.approx(25) and info.duration == pytest.approx(2.4)


def test_times_of_a_variable_rate_and_of_a_late_start(videos):
    info = VideoReader(videos("vfr.mov")).info
    np.testing.assert_allclose(info.timestamps, (np.array(VFR_TIMES) - VFR_TIMES[0]) / 1000, atol=1e-9)
    assert info.average_rate == pytest.approx(59 / info.timestamps[-1])
    for name in ("late.mp4", "late.mkv"):
        assert VideoReader(videos(name)).info.start_time == pytest.approx(5)


def test_info_of_a_rotated_video(videos):
    info = VideoReader(videos("rotated.mp4")).info
    assert (info.width, info.height, info.rotation) == (128, 192, 90)
    assert info.name == str(videos("rotated.mp4"))
    with pytest.raises(ValueError, match="read-only"):
        info.timestamps[0] = 1


def test_an_edit_list_hides_the_first_frames(videos):
    data = bytearray(videos("gop12.mp4").read_bytes())
    fields = data.find(b"elst") + 12
    duration, start = struct.unpack_from(">Ii", data, fields)
    for num_hidden in (5, 17):
        # Times in milliseconds and in 1/12800 s; the key frame before the first frame shown is hidden with the others.
        struct.pack_into(">Ii", data, fields, duration - 40 * num_hidden, start + 512 * num_hidden)
        reference = decode_all(io.BytesIO(data))
        assert read_number(reference[0]) == num_hidden
        with VideoReader(bytes(data)) as reader:
            check_against_reference(reader, reference)


@pytest.mark.parametrize("name", ["h264.ts", "open_gop.ts", "gradual_refresh.ts"])
def test_a_recording_that_starts_between_key_frames(videos, name):
    packets = videos(name).read_bytes()
    data = packets[: 3 * 188] + packets[len(packets) // 188 // 4 * 188 :]
    with VideoReader(data) as reader:
        check_against_reference(reader, decode_all(io.BytesIO(data)))


def test_hidden_frames_of_vp8_are_not_counted(tmp_path):
    path = str(tmp_path / "vp8.webm")
    try:
        make_video(path, "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good"})
    except av.error.FFmpegError:
        pytest.skip("this PyAV cannot encode VP8")
    with VideoReader(path) as reader:
        check_against_reference(reader, decode_all(path))


def test_an_interval_decodes_from_its_key_frame_only(tmp_path):
    path = str(tmp_path / "long.mp4")
    make_video(path, num_frames=1000, gop=50, options={"bf": "3", "sc_threshold": "0"})
    with VideoReader(path) as reader:
        assert [read_number(frame) for frame in reader.read(range(520, 540))] == list(range(520, 540))
        assert 20 <= reader._num_decoded <= 44
        reader._num_decoded = 0
        assert [read_number(frame) for frame in reader.read([951, 3, 502, 3])] == [951, 3, 502, 3]
        assert reader._num_decoded <= 20
        reader._num_decoded = 0
        # Five key frames lie between, none of them worth a seek.
        reader.read(range(100, 350))
        assert reader._num_decoded <= 255


def test_stored_jpegs_are_decoded_only_if_they_are_wanted(tmp_path):
    path = str(tmp_path / "jpegs.mp4")
    make_video(path, "mjpeg", pix_fmt="yuvj420p")
    reference = decode_all(path)
    with VideoReader(path) as reader:
        _ = reader.info
        reader._num_decoded = 0
        wanted = [2, 5, 6, 11, 17]
        assert np.array_equal(reader.read(wanted), [reference[number] for number in wanted])
        assert reader._num_decoded == len(wanted)


def test_reads_between_the_frames_of_an_iteration(videos):
    reference = decode_all(videos("gop12.mp4"))
    with VideoReader(videos("gop12.mp4")) as reader:
        for index, frame in reader.iter_frames(3, 40):
            np.testing.assert_array_equal(frame, reference[index])
            np.testing.assert_array_equal(reader.read([59 - index])[0], reference[59 - index])


def test_a_closed_reader_opens_again(videos):
    reader = VideoReader(videos("gop12.mp4"))
    reader.close()
    assert read_number(reader.read([31])[0]) == 31


def test_sources(videos):
    path = videos("gop12.mp4")
    data = path.read_bytes()
    with path.open("rb") as file, av.open(str(path)) as container, av.open(io.BytesIO(data)) as in_memory:
        for opened in (container, in_memory):
            next(opened.decode(video=0))
        sources = {"<bytes>": data, str(path): str(path)}
        for name, source in [*sources.items(), ("<file object>", io.BytesIO(data)), ("<file object>", file)]:
            with VideoReader(source) as reader:
                assert reader.info.name == name
                assert [read_number(frame) for frame in reader.read([50, 3])] == [50, 3]
        for source in (container, in_memory):
            with VideoReader(source) as reader:
                assert [read_number(frame) for frame in reader.read([50, 3])] == [50, 3]
            source.seek(0)
            assert read_number(next(source.decode(video=0)).to_ndarray(format="rgb24")) == 0


@pytest.mark.parametrize(("full_range", "tolerance"), [(False, 2), (True, 2)])
def test_colours_follow_the_matrix_and_the_range_of_the_file(full_range, tolerance):
    luma, blue, red = 120, 90, 200
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "colorspace": "bt709"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = 2 if full_range else 1
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(frame.planes, (luma, blue, red), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.colorspace, frame.color_range = 0, 1, 2 if full_range else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    y, u, v = (
        (luma / 255, (blue - 128) / 255, (red - 128) / 255)
        if full_range
        else ((luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224)
    )
    bt709 = [y + 1.5748 * v, y - 0.1873 * u - 0.4681 * v, y + 1.8556 * u]
    with VideoReader(data.getvalue()) as reader:
        np.testing.assert_allclose(reader.read([0])[0, 32, 32], np.array(bt709) * 255, atol=tolerance)


def test_intervals(videos):
    reader = VideoReader(videos("gop12.mp4"))
    assert reader.resolve_interval(None, None, "frames") == (0, 60)
    assert reader.resolve_interval(10, 12, "frames") == (10, 12)
    assert reader.resolve_interval(0.12, 0.2, "seconds") == (3, 5)
    assert reader.resolve_interval(0.121, None, "seconds") == (4, 60)
    assert reader.resolve_interval(2.0, 2.41, "seconds") == (50, 60)


@pytest.mark.parametrize(
    ("start", "end", "unit", "problem"),
    [
        (0, 61, "frames", r"\[0, 61\) frames lies outside the video; the video holds \[0, 60\) frames"),
        (60, None, "frames", "outside the video"),
        (-1, 4, "frames", "outside the video"),
        (10, 5, "frames", r"\[10, 5\) frames is empty or reversed"),
        (5, 5, "frames", "empty or reversed"),
        (1, 9, "seconds", r"\[1, 9\) seconds lies outside the video; the video holds \[0, 2.4\) seconds"),
        (float("nan"), 1, "seconds", "outside the video"),
        (0.01, 0.02, "seconds", "empty or reversed"),
    ],
)
def test_intervals_that_cannot_be(videos, start, end, unit, problem):
    path = videos("gop12.mp4")
    with pytest.raises(VideoDecodingError, match=problem) as caught:
        VideoReader(path).resolve_interval(start, end, unit)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("indices", "problem"),
    [
        ([3, 60], "frame 60 is outside the video; expected 0 to 59"),
        ([-1], "frame -1 is outside the video"),
        ([0.5], "expected integers"),
        ([[1]], r"indices have shape \(1, 1\)"),
    ],
)
def test_indices_that_cannot_be(videos, indices, problem):
    reader = VideoReader(videos("gop12.mp4"))
    with pytest.raises(VideoDecodingError, match=problem):
        reader.read(indices)
    assert reader.read([]).shape == (0, 128, 192, 3)


def test_files_that_are_no_video(tmp_path, videos):
    empty, text, sound = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "sound.wav"
    empty.touch()
    text.write_text("no video at all\n" * 100)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    for source, problem in [
        (tmp_path / "missing.mp4", "no such file"),
        (empty, r"the file is empty \(0 bytes\)"),
        (text, "cannot be opened as a video"),
        (sound, "has no video stream; its streams are 0: audio"),
    ]:
        with pytest.raises(VideoDecodingError, match=problem) as caught:
            VideoReader(source)
        assert str(caught.value).startswith(str(source))
    with pytest.raises(VideoDecodingError, match=r"<bytes>: the file is empty \(0 bytes\)"):
        VideoReader(b"")
    with pytest.raises(VideoDecodingError, match="<file object>: the file is empty"):
        VideoReader(io.BytesIO())
    with pytest.raises(VideoDecodingError, match="stream 3 is not a video stream; its streams are 0: video"):
        VideoReader(videos("gop12.mp4"), stream_index=3)


@pytest.mark.parametrize("share", [0.55, 0.95])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("faststart.mp4", r"truncated: \d+ of 60 frames are present, it ends \d+ bytes too early"),
        ("fragmented.mp4", r"truncated: \d+( of \d+)? frames are present, it ends \d+ bytes too early"),
        ("h264.avi", r"truncated: \d+ frames are present, it ends \d+ bytes too early"),
        ("mpeg4.avi", r"truncated: \d+ frames are present"),
        ("open_gop.mkv", r"truncated: \d+ frames are present"),
        ("vp9.webm", r"truncated: \d+ frames are present"),
    ],
)
def test_truncated_files(videos, caplog, name, share, problem):
    data = videos(name).read_bytes()
    data = data[: int(len(data) * share)]
    with pytest.raises(VideoDecodingError, match=problem):
        VideoReader(data)
    with caplog.at_level(logging.WARNING), VideoReader(data, allow_truncated=True) as reader:
        num_frames = reader.info.num_frames
        assert f"<bytes>: the file is truncated: {num_frames}" in caplog.text
        numbers = [read_number(frame) for frame in reader.read(range(num_frames))]
    # B-frames of the last pictures may be missing.
    assert numbers[:-3] == list(range(num_frames - 3)) and numbers == sorted(set(numbers))


def test_an_mp4_without_its_index_is_named_as_such(videos):
    data = videos("gop12.mp4").read_bytes()
    with pytest.raises(
        VideoDecodingError, match=r"<bytes>: cannot be opened as a video .* cut short before its index"
    ):
        VideoReader(data[: len(data) // 2], allow_truncated=True)


def test_damaged_data_is_not_painted_over(videos):
    data = bytearray(videos("faststart.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300 : 7] = bytes(value ^ 0x5A for value in data[middle : middle + 300 : 7])
    with VideoReader(bytes(data)) as reader:
        assert reader.info.num_frames == NUM_FRAMES
        assert [read_number(frame) for frame in reader.read([0, 5, 55])] == [0, 5, 55]
        with pytest.raises(VideoDecodingError, match=r"<bytes>: the data of frame \d+ or of one it needs is damaged"):
            reader.read(range(NUM_FRAMES))


class ReaderDataset(torch.utils.data.Dataset):
    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return 6

    def __getitem__(self, index):
        frames = self.reader.read([index, 59 - index])
        return [read_number(frame) for frame in frames], self.reader._stream.codec_context.thread_count


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_read_the_same_frames(videos, start_method):
    # Readers that are dead but not yet collected must not stop a forked worker either.
    VideoReader(videos("gop12.mp4"), num_threads=2).read([3])
    reader = VideoReader(videos("gop12.mp4"))
    frames = reader.iter_frames()
    next(frames)
    loader = torch.utils.data.DataLoader(
        ReaderDataset(reader), batch_size=None, num_workers=2, multiprocessing_context=start_method, timeout=60
    )
    assert [tuple(item) for item in loader] == [([index, 59 - index], 1) for index in range(6)]
    assert [index for index, frame in frames if read_number(frame) == index] == list(range(1, NUM_FRAMES))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_open_decoders_alone(videos):
    reader = VideoReader(videos("gop12.mp4"), num_threads=2)
    reader.read([5])
    child = os.fork()
    if not child:
        is_exact = read_number(reader.read([7])[0]) == 7
        del reader
        os._exit(0 if is_exact else 1)
    deadline = time.monotonic() + 30
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert status == (child, 0)
    assert read_number(reader.read([9])[0]) == 9


def test_pickling(videos):
    path = videos("h264.avi")
    for source in (path, path.read_bytes()):
        copy = pickle.loads(pickle.dumps(VideoReader(source)))
        assert copy.info.num_frames == NUM_FRAMES and read_number(copy.read([31])[0]) == 31
    with pytest.raises(VideoDecodingError, match="<file object>: cannot be sent to another process"):
        pickle.dumps(VideoReader(io.BytesIO(path.read_bytes())))


# name -> frames, width, height, rotation, mean rate
REAL_VIDEOS = {
    "openpose/slp_full137/video.mp4": (9, 1280, 720, 0, 24),
    "openpose/openposer_psychologie/video.mp4": (157, 640, 480, 0, 25),
    "people/seated_webcam_480x320.mp4": (309, 480, 320, 0, 30),
    "people/webcam_vfr_640x480.mov": (123, 640, 480, 0, 24600 / 1469),
    "people/fullbody_vp9_1768x994.mp4": (230, 1768, 994, 0, 30),
    "people/chaplin_bw_640x360.mp4": (241, 640, 360, 0, 25),
    "robustness/rotated_minus90.mov": (25, 480, 640, 270, 625 / 26),
    "robustness/mpeg1_non_square_pixels.mpg": (36, 352, 288, 0, 25),
    "robustness/no_duration_vp9.webm": (74, 1280, 720, 0, 15000 / 1001),
    "robustness/tc_h264_10bits.mp4": (30, 200, 200, 0, 30),
    "robustness/tc_nasa_13013.mp4": (390, 480, 270, 0, 30000 / 1001),
}


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos(name):
    path = real_data(name)
    num_frames, width, height, rotation, rate = REAL_VIDEOS[name]
    with VideoReader(path) as reader:
        info = reader.info
        assert (info.num_frames, info.width, info.height, info.rotation) == (num_frames, width, height, rotation)
        assert info.average_rate == pytest.approx(rate, rel=0.04)
        # The last picture but one of the MPEG-1 file is cut off.
        indices = [0, 1, num_frames // 3, num_frames // 2, num_frames - 3]
        wanted = {}
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(container.streams.best("video"))):
                if index in indices:
                    wanted[index] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        assert index == num_frames - 1
        np.testing.assert_array_equal(reader.read(indices), [wanted[index] for index in indices])


def test_real_stream_index():
    with VideoReader(real_data("robustness/tc_nasa_13013.mp4"), stream_index=0) as reader:
        assert (reader.info.num_frames, reader.info.width, reader.info.height) == (325, 320, 180)


def test_real_cut_picture_is_refused():
    with (
        VideoReader(real_data("robustness/mpeg1_non_square_pixels.mpg")) as reader,
        pytest.raises(VideoDecodingError, match="the data of frame 34 or of one it needs is damaged"),
    ):
        reader.read([34])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("robustness/broken.mp4", "cannot be opened as a video"),
        ("robustness/empty.flv", "cannot be opened as a video"),
        ("robustness/audio_only.mp3", "has no video stream; its streams are 0: audio"),
        ("other_skeleton/openpose.pose", "cannot be opened as a video"),
    ],
)
def test_real_files_that_are_no_video(name, problem):
    with pytest.raises(VideoDecodingError, match=problem):
        VideoReader(real_data(name))
