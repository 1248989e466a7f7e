"""Frames one after another: of a file, or of a camera, a network stream or a pipe."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from clipmg_hf.inference.engine import StreamFrame
from clipmg_hf.processing import VideoDecodingError, VideoReader
from clipmg_hf.processing.video_decoding_clipmg import to_upright_rgb


logger = logging.getLogger(__name__)

# For streams that tell neither times nor a rate, until the second frame has come.
DEFAULT_RATE = 25.0


def file_frames(video: VideoReader, start: int, end: int, is_wanted: Callable[[int], bool]) -> Iterator[StreamFrame]:
    """The frames [start, end) of a file, decoded in one go.

    Args:
        video: The file.
        start, end: Frame numbers within the video.
        is_wanted: Which frames need an image, such as `WindowGrid.samples_image`; no other is converted to RGB.
    """
    info = video.info
    limits = np.append(info.timestamps, info.duration)
    images = video.iter_read([index for index in range(start, end) if is_wanted(index)])
    wanted = next(images, None)
    for index in range(start, end):
        image = None
        if wanted is not None and wanted[0] == index:
            image, wanted = wanted[1], None
        yield StreamFrame(
            index=index,
            seconds=float(limits[index]),
            duration=float(limits[index + 1] - limits[index]),
            image=image,
        )
        if image is not None:
            # Only now: the frame before has been used, and is not in memory beside this one.
            wanted = next(images, None)


class LiveVideo:
    """Iterates over the frames of an open stream as they arrive; use it in a `with` block.

    Seconds come from the timestamps of the stream, or else from the clock on arrival. Frames that arrive damaged are
    left out: their number goes to the next one, and `num_damaged` counts their packets.

    Args:
        name (`str`): What errors call it.
        container: The open stream.

    Raises:
        VideoDecodingError: It has no video.
    """

    def __init__(self, name: str, container: InputContainer):
        self.name = name
        self.num_damaged = 0
        self._container = container
        stream = container.streams.best("video")
        if stream is None:
            held = ", ".join(stream.type for stream in container.streams) or "none"
            container.close()
            raise VideoDecodingError(f"{name}: has no video stream; its streams are {held}")
        self._stream: Any = stream
        # Threads that decode several frames at a time would hold back as many.
        stream.codec_context.thread_type = "SLICE"
        self._reformatter = VideoReformatter()

    def __enter__(self) -> "LiveVideo":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._container.close()

    def __iter__(self) -> Iterator[StreamFrame]:
        rate = self._stream.average_rate or self._stream.guessed_rate
        period = 1 / float(rate or DEFAULT_RATE)
        origin: float | None = None
        last = -period
        for index, frame in enumerate(self._frames()):
            moment = monotonic() if frame.time is None else float(frame.time)
            origin = moment if origin is None else origin
            # Clocks of cameras are set back at times; a timeline goes on.
            seconds = moment - origin if moment - origin > last else last + period
            if index and not rate:
                period = seconds - last
            last = seconds
            duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else period
            yield StreamFrame(index, seconds, duration, image=partial(self._to_rgb, frame))

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        return np.array(to_upright_rgb(frame, self._reformatter))

    def _frames(self) -> Iterator[VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                raise VideoDecodingError(f"{self.name}: the stream broke off ({error.strerror})") from error
            if packet is None:
                return
            try:
                frames = packet.decode()
            except FFmpegError as error:
                # Who tunes in between two key frames cannot decode the first ones either.
                self.num_damaged += 1
                logger.debug("%s: a packet cannot be decoded (%s)", self.name, error.strerror)
                continue
            yield from frames


def open_live(
    source: Any, format: str | None = None, options: dict[str, str] | None = None, timeout: float | None = None
) -> LiveVideo:
    """Open a camera, a network stream, a pipe or a file that still grows; no index, no seek, any number of frames.

        with open_live("rtsp://camera/stream", options={"rtsp_transport": "tcp"}) as frames:
            for scores in stream_windows(model, processor, frames, window=32, stride=8, batch_size=1): ...

    Args:
        source: What FFmpeg opens: a device ("/dev/video0"), a URL ("rtsp://..."), a path, or a binary file object
            with `read`, such as a pipe.
        format: FFmpeg's name of the format, needed for devices ("v4l2", "avfoundation", "dshow") and pipes ("mpegts").
        options: FFmpeg's options of that format, such as `{"video_size": "1280x720", "framerate": "30"}`.
        timeout: Seconds to wait for the stream to open and for each packet; without one, for ever.

    Raises:
        VideoDecodingError: It cannot be opened, or has no video.
    """
    name = _hide_password(source) if isinstance(source, str) else getattr(source, "name", None) or "<file object>"
    try:
        container = av.open(source, mode="r", format=format, options=options or {}, timeout=timeout)
    except (FFmpegError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise VideoDecodingError(
            f"{name}: cannot be opened ({problem}); expected a camera, a stream or a file, and its format where "
            "FFmpeg cannot tell it"
        ) from None
    return LiveVideo(str(name), container)


def _hide_password(source: str) -> str:
    """A URL without the user and password that cameras have in theirs."""
    if "://" not in source or "@" not in urlsplit(source).netloc:
        return source
    return source.replace(urlsplit(source).netloc, urlsplit(source).netloc.rpartition("@")[2], 1)


__all__ = ["LiveVideo", "file_frames", "open_live"]
