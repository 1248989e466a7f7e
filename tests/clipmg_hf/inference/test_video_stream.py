"""Frames of files, pipes and network streams: numbers, times and pictures, and what is decoded."""

import io
import os
import socket
import threading

import av
import numpy as np
import pytest

from clipmg_hf.inference import file_frames, load_model, open_live, stream_windows
from clipmg_hf.inference.video_stream import _hide_password
from clipmg_hf.processing import VideoDecodingError, VideoReader


NUM_FRAMES, RATE = 40, 10


@pytest.fixture(scope="module")
def transport_stream() -> bytes:
    """40 frames of 96 x 64 at 10 frames per second in MPEG-TS; brightness rises with the frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "10", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(NUM_FRAMES):
            picture = np.full((64, 96, 3), 20 + 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def check_frames(frames, transport_stream):
    frames = list(frames)
    assert [frame.index for frame in frames] == list(range(NUM_FRAMES))
    assert [frame.seconds for frame in frames] == pytest.approx([index / RATE for index in range(NUM_FRAMES)])
    assert [frame.duration for frame in frames] == pytest.approx([1 / RATE] * NUM_FRAMES)
    images = np.stack([frame.read_image() for frame in frames])
    assert np.array_equal(images, VideoReader(transport_stream).read(np.arange(NUM_FRAMES)))


# --- files


def test_a_file_gives_every_frame_and_the_wanted_images(video):
    reader = VideoReader(video)
    frames = list(file_frames(reader, 2, 11, lambda index: index % 3 == 0))
    assert [frame.index for frame in frames] == list(range(2, 11))
    assert [frame.index for frame in frames if frame.image is not None] == [3, 6, 9]
    assert all(
        np.array_equal(frame.image, reader.read([frame.index])[0]) for frame in frames if frame.image is not None
    )
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(2, 11) / 10)
    assert [frame.duration for frame in frames] == pytest.approx([0.1] * 9)


def test_a_file_is_decoded_once(video):
    reader = VideoReader(video)
    _ = reader.info
    before = reader._num_decoded
    list(file_frames(reader, 0, 12, lambda index: index % 4 == 2))
    assert reader._num_decoded - before <= 12


# --- live


def test_a_pipe_gives_frames_while_it_is_written(transport_stream):
    reading, writing = os.pipe()
    is_read, is_early = threading.Event(), []

    def write():
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            half = len(transport_stream) // 2
            pipe.write(transport_stream[:half])
            # The rest comes once the first frames are out.
            is_early.append(is_read.wait(timeout=30))
            pipe.write(transport_stream[half:])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        options = {"probesize": "2000", "analyzeduration": "1"}
        with open_live(pipe, format="mpegts", options=options) as live:
            frames = []
            for frame in live:
                frames.append(frame)
                is_read.set()
            check_frames(frames, transport_stream)
    thread.join(timeout=30)
    assert is_early == [True] and not thread.is_alive()


def test_a_network_stream_to_windows(transport_stream, checkpoint):
    model, processor = load_model(checkpoint, device="cpu")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(transport_stream)

        thread = threading.Thread(target=serve)
        thread.start()
        with open_live(f"tcp://127.0.0.1:{server.getsockname()[1]}", format="mpegts", timeout=30) as live:
            windows = list(stream_windows(model, processor, live, window=16, stride=8, batch_size=1))
        thread.join(timeout=30)
    reader = VideoReader(transport_stream)
    frames = file_frames(reader, 0, NUM_FRAMES, lambda index: True)
    expected = list(stream_windows(model, processor, frames, window=16, stride=8))
    assert [(window.start, window.end) for window in windows] == [(0, 16), (8, 24), (16, 32), (24, 40)]
    assert all(np.allclose(a.scores, b.scores, atol=1e-5) for a, b in zip(windows, expected, strict=True))
    assert [window.end_seconds for window in windows] == pytest.approx([window.end_seconds for window in expected])


def test_who_tunes_in_late_gets_frames_from_the_next_key_frame(transport_stream):
    packets = [transport_stream[place : place + 188] for place in range(0, len(transport_stream), 188)]
    late = b"".join(packets[:3] + packets[len(packets) // 3 :])
    with open_live(io.BytesIO(late), format="mpegts") as live:
        frames = list(live)
    assert 0 < len(frames) < NUM_FRAMES
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()


def test_streams_without_times_take_the_clock(tmp_path, monkeypatch):
    clock = iter(np.arange(1000) * 0.5)
    monkeypatch.setattr("clipmg_hf.inference.video_stream.monotonic", lambda: 7 + next(clock))
    with open_live(
        io.BytesIO(bytes(16 * 16 * 3 * 4)), "rawvideo", {"video_size": "16x16", "pixel_format": "rgb24"}
    ) as live:
        frames = live._frames
        live._frames = lambda: (_without_time(frame) for frame in frames())
        assert [frame.seconds for frame in live] == [0, 0.5, 1.0, 1.5]


def _without_time(frame):
    frame.pts = None
    return frame


def test_clocks_that_are_set_back_do_not_stop_time(transport_stream):
    with open_live(io.BytesIO(transport_stream), format="mpegts") as live:
        frames = live._frames

        def jump():
            for index, frame in enumerate(frames()):
                if index >= 20:
                    frame.pts -= 90000
                yield frame

        live._frames = jump
        seconds = [frame.seconds for frame in live]
    assert (np.diff(seconds) > 0).all()


def test_streams_that_cannot_be_opened():
    with pytest.raises(VideoDecodingError, match=r"/dev/nothing: cannot be opened \(.*\); expected a camera"):
        open_live("/dev/nothing")
    with pytest.raises(VideoDecodingError, match=r"tcp://127.0.0.1:9/x: cannot be opened") as caught:
        open_live("tcp://me:secret@127.0.0.1:9/x", format="mpegts", timeout=5)
    assert "secret" not in str(caught.value)
    with pytest.raises(VideoDecodingError, match=r"<file object>: cannot be opened"):
        open_live(io.BytesIO(b"no video" * 1000))


def test_streams_without_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    buffer.seek(0)
    with pytest.raises(VideoDecodingError, match=r"has no video stream; its streams are audio"):
        open_live(buffer)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://me:secret@camera:554/stream?x=a@b", "rtsp://camera:554/stream?x=a@b"),
        ("rtsp://camera/stream", "rtsp://camera/stream"),
        ("/videos/a@b.mp4", "/videos/a@b.mp4"),
    ],
)
def test_passwords_are_not_shown(source, shown):
    assert _hide_password(source) == shown
