# Copyright 2026 The CLIP-MG HF authors. Licensed under the Apache License, Version 2.0.
"""Frame-exact reading of video files.

`VideoReader` numbers the frames of a video in display order, as a decoder that starts at the first packet would show
them, and reads any of them as upright RGB. Headers are never believed: the frames are counted from the packets. Every
packet carries its own number through the decoder, so a frame is recognised by the packet it came from and not by its
timestamp, which AVI files with B-frames get wrong.
"""

import ctypes
import gc
import io
import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch.utils.data import get_worker_info


logger = logging.getLogger(__name__)

VideoSource = str | os.PathLike[str] | bytes | BinaryIO | InputContainer

# Codecs whose every packet shows exactly one frame at the packet's own time. VP8 hides frames in packets of their own,
# MPEG-4 part 2 packs two frames in one packet: those are counted by decoding.
ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mjpeg", "prores", "ffv1"}
)
# Top-level boxes of MP4 and MOV; anything else at the end of a file may be a camera's private trailer.
ISO_BOXES = frozenset(
    b"ftyp styp moov moof mdat free skip wide udta meta uuid sidx mfra pdin emsg prft ssix pnot".split()
)
# FFmpeg's names of formats that hold the pictures themselves. Playlists (HLS, DASH, concat) and descriptions of
# streams (SDP) name other files and addresses, whatever the file that names them is called.
VIDEO_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,dv,gxf,nut,rm,wtv,ivf,obu,av1,"
    "h261,h263,h264,hevc,vvc,m4v,vc1,mjpeg,yuv4mpegpipe,gif,apng,image2,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "mp3,wav,flac,aac"
)
# For `av.open` of a file: it is read, and nothing else is; "%03d" in the name of a picture stands for itself.
FILE_OPTIONS = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file", "pattern_type": "none"}
# A gap of unneeded packets that pays a seek: the seek costs about a tenth of a 720p frame, but empties the pipeline of
# a decoder with frame threads.
MIN_SKIPPED_PACKETS = 8


class VideoDecodingError(ValueError):
    """A video cannot be read as asked; the message names the file, what is wrong and what was expected."""


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """What a video holds, measured from its packets.

    Attributes:
        name: File name, or `<bytes>`, `<file object>`.
        width, height: Size in pixels of the upright frames, after `rotation`. Non-square pixels are not stretched.
        rotation: Counter-clockwise turn that makes the stored frames upright: 0, 90, 180 or 270 degrees.
        average_rate: Frames per second between the first and the last frame; the header's rate for a single frame.
        num_frames: Number of frames that are displayed.
        timestamps: float64 `(num_frames,)`, seconds since the first displayed frame, strictly increasing from 0.
        start_time: Seconds on the clock of the file at which the first frame is displayed; may be negative.
        duration: Seconds from the first frame's start to the last frame's end, one mean frame period after its start.
    """

    name: str
    width: int
    height: int
    rotation: int
    average_rate: float
    num_frames: int
    timestamps: np.ndarray
    start_time: float
    duration: float


class _Packet(NamedTuple):
    """What the scan keeps of a packet; `pts` and `dts` in units of the stream's time base, `pos` and `size` in bytes.

    pts, pos and size tell a packet from the others of its stream also after a seek, when dts may change. In
    MPEG-PS pts changes too: no packet is recognised there, and reading starts at the beginning of the file.
    """

    pts: int | None
    pos: int | None
    size: int
    dts: int | None
    is_keyframe: bool
    is_discard: bool
    is_corrupt: bool


class _Index:
    """The packets in decoding order and, once `set_frames` was called, where the frames are.

    Attributes:
        packets: The packets of the stream.
        numbers: Number of a packet by its pts, pos and size, which tell where a seek has landed.
        is_counted: True if the frames were found by decoding, False if the packets told them.
        frame_packets: int64 `(num_frames,)`, number of the packet that holds each frame, frames in display order.
        ticks: int64 `(num_frames,)`, display times in units of `tick`.
        tick: Numerator and denominator of the time unit in seconds.
        starts: int64 `(num_frames,)`, number of the last packet from which each frame can be decoded.
    """

    def __init__(self, packets: list[_Packet]) -> None:
        self.packets = packets
        self.numbers = {(packet.pts, packet.pos, packet.size): number for number, packet in enumerate(packets)}
        self.is_counted = False

    def set_frames(self, frame_packets: Sequence[int] | np.ndarray, ticks: np.ndarray, tick: tuple[int, int]) -> None:
        """Record the frames in display order."""
        self.frame_packets, self.ticks, self.tick = np.asarray(frame_packets, np.int64), ticks, tick
        frames = {number: frame for frame, number in enumerate(frame_packets)} if self.is_counted else {}
        # First frame that is whole when decoding starts at the key packet: the leading frames of an open group of
        # pictures come before it, and a key frame that an edit list hides still starts the frames shown after it.
        first_frames, key_packets = [-1], [0]
        for number, packet in enumerate(self.packets):
            if packet.is_keyframe:
                frame = frames.get(number, -1) if self.is_counted else int(np.searchsorted(ticks, packet.pts or 0))
                if frame >= max(first_frames[-1], 0):
                    first_frames.append(frame)
                    key_packets.append(number)
        places = np.searchsorted(first_frames, np.arange(len(ticks)), side="right") - 1
        while (late := np.array(key_packets)[places] > self.frame_packets).any():
            places[late] -= 1
        self.starts = np.array(key_packets)[places]

    def start_before(self, frame: int) -> int:
        """The starting packet before `starts[frame]`, the first packet if there is none."""
        earlier = self.starts[self.starts < self.starts[frame]]
        return int(earlier.max()) if len(earlier) else 0

    def end_of(self, frames: Sequence[int]) -> int:
        """Number of the last packet that `frames` need, with the packets behind it that have no frame of their own."""
        last = int(self.frame_packets[list(frames)].max())
        if not self.is_counted:
            return last
        following = self.frame_packets[self.frame_packets > last]
        return int(following.min()) - 1 if len(following) else len(self.packets) - 1

    def run_length(self, frames: Sequence[int]) -> int:
        """How many of the first `frames` are decoded in one go (`MIN_SKIPPED_PACKETS` says when)."""
        last_packets = np.maximum.accumulate(self.frame_packets[list(frames)])
        is_far = self.starts[list(frames)][1:] > last_packets[:-1] + MIN_SKIPPED_PACKETS
        return int(is_far.argmax()) + 1 if is_far.any() else len(frames)


_readers: "weakref.WeakSet[VideoReader]" = weakref.WeakSet()


@cache
def _guard_forks() -> None:
    """Make forked children leave alone what was open in their parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_abandon_containers)


def _abandon_containers() -> None:
    # A child has none of the decoder's threads: freeing an inherited decoder there waits for ever. PyAV's containers
    # and streams refer to each other, so those of dead readers wait for the garbage collector: keep them from it.
    gc.freeze()
    for reader in _readers:
        reader._abandon()


class VideoReader:
    """Reads frames of one video stream by their number in display order.

    The file is opened and its packets are scanned at construction. Frames whose times the packets do not tell
    (AVI, raw streams, MPEG-4 part 2, VP8, recordings that start between key frames) are counted by one decode of
    everything. `close` frees the file; the reader opens it again when used, as it does in another process or after a
    fork.

    Args:
        source: Path of a file, its bytes, a seekable binary file object, or an open PyAV container. The last two
            are not closed, their position changes, and they serve only the process that made the reader. A decoder
            that has already been used keeps its settings, and with them FFmpeg's habit of painting over damage.
        stream_index: Index of the video stream among all streams of the file; FFmpeg's choice (the largest) if None.
        num_threads: Threads of the decoder, 0 for as many as there are cores. None means 0, but 1 in a `DataLoader`
            worker, where the workers are the parallelism.
        allow_truncated: Read the frames that are there of a file that ends too early, with a warning in the log.

    Raises:
        VideoDecodingError: the file is missing, empty, not a video, has no such video stream, is cut short (where the
            container tells its length, which MPEG-TS and MPEG-PS do not), or is damaged and has to be counted.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        stream_index: int | None = None,
        num_threads: int | None = None,
        allow_truncated: bool = False,
    ) -> None:
        self.name = _source_name(source)
        self._source = source
        self._stream_index = stream_index
        self._num_threads = num_threads
        self._process = os.getpid()
        self._info: VideoInfo | None = None
        self._run = 0
        self._num_decoded = 0
        self._reset()
        try:
            self._open()
            self._index = self._scan(allow_truncated)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self._source, (str, os.PathLike, bytes)):
            raise self._error("cannot be sent to another process; expected a path or bytes as source")
        return self.__dict__ | {"_container": None, "_stream": None, "_reformatter": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def close(self) -> None:
        """Free the file and the decoder; an open container given as source stays open."""
        if self._container is not None and self._container is not self._source:
            self._container.close()
        elif self._stream is not None:
            self._stream.codec_context.skip_frame = "DEFAULT"
        self._reset()

    @property
    def num_frames(self) -> int:
        """How many frames are displayed, as in `info`, without decoding one."""
        return len(self._index.ticks)

    @property
    def info(self) -> VideoInfo:
        """Size, rate and frame times; decodes a frame, which alone tells the rotation, unless one was read before."""
        if self._info is None:
            next(self._decode([0]))
        assert self._info is not None
        return self._info

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read frames by their number in display order.

        The wanted frames are decoded in display order whatever their order in `indices`: one seek to the key frame
        before the first, then forward to the last, with another seek only where it skips at least
        `MIN_SKIPPED_PACKETS` packets.

        Args:
            indices: Integers `(T,)` in `[0, num_frames)`, in any order, repeats allowed.

        Returns:
            uint8 `(T, height, width, 3)`, upright RGB in `[0, 255]`, converted with the matrix and range of the file.

        Raises:
            VideoDecodingError: an index is outside the video, or a wanted frame or one that it needs is damaged.
        """
        wanted = self._check_indices(indices)
        if not len(wanted):
            return np.empty((0, self.info.height, self.info.width, 3), np.uint8)
        unique, places = np.unique(wanted, return_inverse=True)
        frames: np.ndarray | None = None
        for position, (index, frame) in enumerate(self._decode(unique.tolist())):
            size = _upright_size(frame)
            if frames is None:
                frames = np.empty((len(wanted), *size, 3), np.uint8)
            if size != frames.shape[1:3]:
                raise self._error(f"frame {index} is {size}; expected the size of the first one, {frames.shape[1:3]}")
            # No name here for the converted frame: two alive at a time cost as many page faults as the copy.
            frames[places == position] = self._to_rgb(frame)
        assert frames is not None
        return frames

    def iter_frames(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(index, frame)` for `start <= index < end`; frame: uint8 `(height, width, 3)` as in `read`.

        Other reads between two frames are allowed and cost a seek.
        """
        yield from self.iter_read(range(*self.resolve_interval(start, end, "frames")))

    def iter_read(self, indices: Sequence[int] | np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(index, frame)` as `iter_frames` does, for the indices `(T,)` alone, which increase.

        Only the wanted frames are converted to RGB, one at a time: memory does not depend on how many there are.

        Raises:
            VideoDecodingError: As in `read`, or the indices do not increase.
        """
        wanted = self._check_indices(indices)
        if (np.diff(wanted) <= 0).any():
            raise self._error("the indices do not increase; expected ascending ones without repeats")
        for index, frame in self._decode(wanted.tolist()):
            yield index, np.array(self._to_rgb(frame))

    def resolve_interval(
        self, start: float | None, end: float | None, unit: Literal["frames", "seconds"]
    ) -> tuple[int, int]:
        """Turn a half-open interval into frame numbers `(first, last + 1)`.

        Args:
            start, end: Frames with `start <= index < end`, or frames displayed at a time `start <= t < end` in seconds
                since the first frame. None is the start or the end of the video.
            unit: `"frames"` or `"seconds"`.

        Raises:
            VideoDecodingError: the interval holds no frame, is reversed, or lies partly outside the video (in seconds,
                an end at most one frame period late is taken for rounding).
        """
        if unit not in ("frames", "seconds"):
            raise ValueError(f'unit is {unit!r}; expected "frames" or "seconds"')
        num_frames = len(self._index.ticks)
        if unit == "frames":
            return resolve_frames(start, end, num_frames, self.name)
        duration = self.info.duration
        low, high = 0 if start is None else start, duration if end is None else end
        interval, held = f"the interval [{low:g}, {high:g}) seconds", f"the video holds [0, {duration:g}) seconds"
        if not (0 <= low < duration and high <= duration + duration / num_frames):
            raise self._error(f"{interval} lies outside the video; {held}")
        first, last = (int(place) for place in np.searchsorted(self.info.timestamps, [low, high]))
        if first >= last:
            raise self._error(f"{interval} is empty or reversed; {held}")
        return first, last

    def _error(self, problem: str) -> VideoDecodingError:
        return VideoDecodingError(f"{self.name}: {problem}")

    def _reset(self) -> None:
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._reformatter: VideoReformatter | None = None
        _readers.add(self)

    def _abandon(self) -> None:
        # Not to be freed even when the child exits.
        for inherited in (self._container, self._reformatter):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
        self._run += 1
        self._reset()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        """Open the file unless this process has it open."""
        if self._container is None or self._stream is None:
            _guard_forks()
            self._container = self._open_container()
            self._stream = self._choose_stream(self._container)
            context = self._stream.codec_context
            context.flags |= Flags.copy_opaque
            if not context.is_open:
                context.thread_type = "AUTO"
                context.thread_count = self._threads
                # Without it H.264 paints over damage with neighbouring pixels and says nothing.
                context.options = {"err_detect": "explode"}
            self._reformatter = VideoReformatter()
        return self._container, self._stream

    @property
    def _threads(self) -> int:
        if self._num_threads is None:
            return 0 if get_worker_info() is None else 1
        return self._num_threads

    def _open_container(self) -> InputContainer:
        source = self._source
        if isinstance(source, (str, os.PathLike, bytes)):
            if not isinstance(source, bytes) and not Path(source).is_file():
                raise self._error("no such file; expected a video file")
        elif os.getpid() != self._process:
            raise self._error("cannot be used in another process; expected a path or bytes as source")
        if isinstance(source, InputContainer):
            return source
        with _bytes_of(source) as file:
            if file is not None and not _size(file):
                raise self._error("the file is empty (0 bytes); expected a video file")
        if isinstance(source, bytes):
            source = io.BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            # Without the prefix a name such as "http:a.mp4" is an address.
            source = f"file:{os.fspath(source)}"
        else:
            source.seek(0)
        try:
            return av.open(source, mode="r", options=FILE_OPTIONS)
        except FFmpegError as error:
            raise self._error(
                f"cannot be opened as a video ({error.strerror}); expected a video file: this one is of another kind "
                "(what a playlist names is not opened), damaged, or cut short before its index"
            ) from error

    def _choose_stream(self, container: InputContainer) -> VideoStream:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        held = ", ".join(f"{stream.index}: {stream.type}" for stream in container.streams) or "none"
        if not streams:
            raise self._error(f"has no video stream; its streams are {held}")
        if self._stream_index is None:
            best = container.streams.best("video")
            return best if best in streams else streams[0]
        for stream in streams:
            if stream.index == self._stream_index:
                return stream
        raise self._error(f"stream {self._stream_index} is not a video stream; its streams are {held}")

    def _scan(self, allow_truncated: bool) -> _Index:
        """Read all packets without decoding, and number the frames."""
        container, stream = self._open()
        if container is self._source:
            container.seek(0)
        try:
            packets = [
                _Packet(
                    packet.pts,
                    packet.pos,
                    packet.size,
                    packet.dts,
                    packet.is_keyframe,
                    packet.is_discard,
                    packet.is_corrupt,
                )
                for packet in container.demux(stream)
                if packet.size
            ]
        except FFmpegError as error:
            raise self._error(f"its packets cannot be read ({error.strerror}); expected an undamaged file") from error
        is_cut = bool(packets) and packets[-1].is_corrupt
        while packets and packets[-1].is_corrupt:
            packets.pop()
        self._check_truncation(len(packets), is_cut, allow_truncated)
        if not packets:
            raise self._error("holds no video frame; expected at least one")
        self._index = index = _Index(packets)
        tick = (stream.time_base.numerator, stream.time_base.denominator) if stream.time_base else (1, 1)
        if self._packets_tell_frames(container, stream, index):
            ticks = np.array([packet.pts for packet in packets], np.int64)
            shown = np.flatnonzero([not packet.is_discard for packet in packets])
            shown = shown[np.argsort(ticks[shown])]
            index.set_frames(shown, ticks[shown], tick)
        else:
            index.is_counted = True
            counted = self._count_frames()
            index.set_frames(counted, *self._counted_ticks([packets[number] for number in counted], tick))
        if not len(index.frame_packets):
            raise self._error(f"none of its {len(packets)} video packets can be decoded; expected at least one frame")
        return index

    def _check_truncation(self, num_packets: int, is_cut: bool, allow_truncated: bool) -> None:
        _, stream = self._open()
        with _bytes_of(self._source) as file:
            missing = max(_declared_size(file) - _size(file), 0) if file is not None else 0
        # Only MP4 and MOV list every frame in their index; some of the entries may be empty.
        num_promised = 0
        if stream.container.format.name.startswith("mov") and len(stream.index_entries) > num_packets:
            num_promised = sum(entry.size > 0 for entry in stream.index_entries)
        if num_packets >= num_promised and not missing and not is_cut:
            return
        of_promised = f" of {num_promised}" if num_promised > num_packets else ""
        ending = f"it ends {missing} bytes too early" if missing else "it ends within a frame"
        problem = f"the file is truncated: {num_packets}{of_promised} frames are present, {ending}"
        if not allow_truncated:
            raise self._error(f"{problem}; expected a whole file (allow_truncated=True reads what is there)")
        logger.warning("%s: %s", self.name, problem)

    @staticmethod
    def _packets_tell_frames(container: InputContainer, stream: VideoStream, index: _Index) -> bool:
        """Whether each packet shows one frame, at its own time, from the first packet on."""
        packets = index.packets
        return (
            _are_distinct([packet.pts for packet in packets])
            # AVI has no presentation times: FFmpeg numbers H.264 with B-frames in decoding order.
            and container.format.name != "avi"
            and stream.codec_context.name in ONE_FRAME_PER_PACKET
            and packets[0].is_keyframe
            and packets[0].pts == min(packet.pts for packet in packets if packet.pts is not None)
        )

    def _count_frames(self) -> list[int]:
        """Decode everything; packet numbers of the frames in display order."""
        numbers: list[int] = []
        self._run += 1
        for number, packet in self._packets(0):
            try:
                numbers += [_packet_number(frame) for frame in self._feed(number, packet)]
            except FFmpegError as error:
                # A recording that starts between two key frames has packets that cannot be decoded yet.
                if numbers:
                    raise self._error(f"packet {number} is damaged ({error.strerror}); expected whole data") from error
        _, stream = self._open()
        try:
            numbers += [_packet_number(frame) for frame in stream.codec_context.decode(None)]
        except FFmpegError as error:
            raise self._error(f"the last packet is damaged ({error.strerror}); expected whole data") from error
        return numbers

    def _counted_ticks(self, packets: list[_Packet], tick: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
        """Display times of counted frames, given their packets in display order, and the time unit."""
        pts, dts = [packet.pts for packet in packets], [packet.dts for packet in packets]
        if _are_distinct(pts) and pts == sorted(pts, key=lambda time: time or 0):
            return np.array(pts, np.int64), tick
        if _are_distinct(dts):
            # Decoding times are the display times in another order, up to a shift.
            return np.sort(np.array(dts, np.int64)), tick
        _, stream = self._open()
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise self._error("has neither frame times nor a frame rate; expected one of them")
        return np.arange(len(packets)), (rate.denominator, rate.numerator)

    def _measure(self, frame: VideoFrame) -> VideoInfo:
        numerator, denominator = self._index.tick
        ticks = self._index.ticks
        timestamps = (ticks - ticks[0]) * numerator / denominator
        timestamps.flags.writeable = False
        _, stream = self._open()
        if len(ticks) > 1:
            rate = (len(ticks) - 1) / float(timestamps[-1])
        else:
            rate = float(stream.average_rate or stream.guessed_rate or 1)
        rotation = round(frame.rotation / 90) * 90 % 360
        height, width = _upright_size(frame)
        return VideoInfo(
            name=self.name,
            width=width,
            height=height,
            rotation=rotation,
            average_rate=rate,
            num_frames=len(ticks),
            timestamps=timestamps,
            start_time=int(ticks[0]) * numerator / denominator,
            duration=float(timestamps[-1]) + 1 / rate,
        )

    def _check_indices(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(indices)
        num_frames = len(self._index.ticks)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise self._error(f"indices have shape {wanted.shape}, type {wanted.dtype}; expected integers (T,)")
        outside = wanted[(wanted < 0) | (wanted >= num_frames)]
        if outside.size:
            raise self._error(f"frame {outside[0]} is outside the video; expected 0 to {num_frames - 1}")
        return wanted

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        """Upright RGB, uint8 `(height, width, 3)`; a view of the converted frame."""
        assert self._reformatter is not None
        return to_upright_rgb(frame, self._reformatter, self._threads)

    def _decode(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield `(index, frame)` for the frame numbers `frames`, which increase."""
        index, position, attempt = self._index, 0, 0
        while position < len(frames):
            start, stop = position, position + index.run_length(frames[position:])
            self._run += 1
            run = self._run
            # Some packets marked as key frames are none (gradual refresh): then the one before, then the first packet.
            first = (int(index.starts[frames[start]]), index.start_before(frames[start]), 0)[attempt]
            for frame in self._decode_run(first, frames[start:stop], attempt == 2):
                self._info = self._info or self._measure(frame)
                yield frames[position], frame
                position += 1
            if position == stop or self._run != run:
                attempt = 0
            elif attempt == 2:
                raise self._error(f"frame {frames[position]} is damaged or lost; expected data that can be decoded")
            else:
                attempt = attempt + 1 if position == start else 1

    def _decode_run(self, first_packet: int, frames: Sequence[int], is_last_try: bool) -> Iterator[VideoFrame]:
        """Decode from `first_packet` and yield `frames`; ends early at one that does not come out whole, or if another
        run has moved the file meanwhile.
        """
        run = self._run
        wanted = dict(zip(self._index.frame_packets[list(frames)].tolist(), frames, strict=True))
        pending = iter(frames)
        expected = next(pending)
        has_output = False
        try:
            for frame in self._frames(first_packet, self._index.end_of(frames), wanted):
                has_output = True
                index = wanted.get(_packet_number(frame))
                if index is None:
                    continue
                if index != expected or frame.is_corrupt:
                    return
                yield frame
                if self._run != run or (expected := next(pending, -1)) < 0:
                    return
        except FFmpegError as error:
            if has_output or is_last_try:
                raise self._error(
                    f"the data of frame {expected} or of one it needs is damaged ({error.strerror}); "
                    "expected data that can be decoded: leave this part out, or encode the video anew"
                ) from error

    def _frames(self, first_packet: int, last_packet: int, wanted: dict[int, int]) -> Iterator[VideoFrame]:
        """Frames that the packets from first to last give, in display order; the decoder is emptied after the last."""
        for number, packet in self._packets(first_packet):
            if number > last_packet:
                break
            yield from self._feed(number, packet, number in wanted)
        # Asked for only now: `_packets` may have opened the file anew.
        _, stream = self._open()
        yield from stream.codec_context.decode(None)

    def _feed(self, number: int, packet: av.Packet, is_wanted: bool = True) -> list[VideoFrame]:
        """Frames that come out when a packet goes in."""
        _, stream = self._open()
        context = stream.codec_context
        if context.name == "mjpeg" and not is_wanted and not self._index.is_counted:
            # Every packet is a picture of its own: 8 of 60 frames in less than half the time.
            return []
        if context.name == "h264" and not self._index.is_counted:
            # Skips frames that no other needs, 15-35 % of the time of a clip; the others come out bit-identical.
            context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        # A new object each time: PyAV before 19 confuses the holders of a shared one.
        packet.opaque = [number]
        self._num_decoded += 1
        return context.decode(packet)

    def _packets(self, first_packet: int) -> Iterator[tuple[int, av.Packet]]:
        """Yield `(number, packet)` from `first_packet` on, with an empty decoder."""
        wanted = self._index.packets[first_packet]
        container, stream = self._open()
        # MP4 and Matroska seek by presentation time, MPEG-TS by decoding time; the landing is checked in any case.
        for time in (wanted.pts, wanted.dts):
            if time is None:
                continue
            container.seek(time, stream=stream)
            numbered = self._number(container, stream, None)
            landing = next(numbered, None)
            if landing is not None and landing[0] <= first_packet:
                break
        else:
            container, stream = self._rewind()
            numbered = self._number(container, stream, 0)
            landing = next(numbered)
        stream.codec_context.flush_buffers()
        while landing is not None and landing[0] < len(self._index.packets):
            if landing[0] >= first_packet:
                yield landing
            landing = next(numbered, None)

    def _number(
        self, container: InputContainer, stream: VideoStream, number: int | None
    ) -> Iterator[tuple[int, av.Packet]]:
        """Number the packets that follow; a first number of None is looked up, and nothing comes if it is unknown."""
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if number is None:
                number = self._index.numbers.get((packet.pts, packet.pos, packet.size))
                if number is None:
                    return
            yield number, packet
            number += 1

    def _rewind(self) -> tuple[InputContainer, VideoStream]:
        """Open the file anew: streams without times cannot be sought."""
        if self._container is self._source:
            raise self._error("its packets have no times to seek by; expected a path, bytes or a file object instead")
        self.close()
        return self._open()


def resolve_frames(start: float | None, end: float | None, num_frames: int, name: str) -> tuple[int, int]:
    """Turn a half-open interval of frames into `(first, last + 1)`, as `VideoReader.resolve_interval` does.

    Args:
        start, end: Frames with `start <= index < end`; None is the start or the end of the video.
        num_frames: N, the length of the video.
        name: What errors call it.
    """
    low, high = 0 if start is None else start, num_frames if end is None else end
    interval, held = f"{name}: the interval [{low:g}, {high:g}) frames", f"the video holds [0, {num_frames}) frames"
    if not (0 <= low < num_frames and high <= num_frames):
        raise VideoDecodingError(f"{interval} lies outside the video; {held}")
    if low >= high:
        raise VideoDecodingError(f"{interval} is empty or reversed; {held}")
    for frame in (low, high):
        if frame != int(frame):
            raise VideoDecodingError(
                f"{name}: frame number {frame:g} is not an integer; expected one, or in a file an interval in seconds"
            )
    return int(low), int(high)


def to_upright_rgb(frame: VideoFrame, reformatter: VideoReformatter, num_threads: int = 0) -> np.ndarray:
    """Convert a decoded frame to upright RGB, uint8 `(height, width, 3)`; a view of the converted frame."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=num_threads)
    plane = rgb.planes[0]
    image = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height, : rgb.width * 3]
    return np.rot90(image.reshape(rgb.height, rgb.width, 3), round(frame.rotation / 90))


@contextmanager
def _bytes_of(source: VideoSource) -> Iterator[BinaryIO | None]:
    """The bytes of a source where they can be seen, else None; the position of a file object is put back."""
    if isinstance(source, InputContainer):
        source = source.name
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") if Path(source).is_file() else nullcontext() as file:
            yield file
    else:
        position = source.tell()
        yield source
        source.seek(position)


def _size(file: BinaryIO) -> int:
    return file.seek(0, io.SEEK_END)


def _bytes_at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _declared_size(file: BinaryIO) -> int:
    """Bytes that the container says it has, 0 where it does not say."""
    head = _bytes_at(file, 0, 8)
    if head[:4] == b"RIFF":
        declared = int.from_bytes(head[4:], "little")
        return declared + 8 if declared < 2**32 - 1 else 0
    if head[:4] == b"\x1aE\xdf\xa3":
        # Matroska: an EBML header and one segment, whose size a live recording does not know.
        offset, length = _element_size(file, 4)
        if _bytes_at(file, offset + length, 4) != b"\x18\x53\x80\x67":
            return 0
        offset, length = _element_size(file, offset + length + 4)
        return offset + length if length else 0
    return _iso_size(file)


def _element_size(file: BinaryIO, offset: int) -> tuple[int, int]:
    """Offset behind the size of an EBML element, and that size; 0 if it is unknown, which is written as all ones."""
    data = _bytes_at(file, offset, 8)
    length = 9 - data[0].bit_length()
    all_ones = (1 << 7 * length) - 1
    value = int.from_bytes(data[:length], "big") & all_ones
    return offset + length, 0 if value == all_ones else value


def _iso_size(file: BinaryIO) -> int:
    """End of the last top-level box of an MP4 or MOV file."""
    offset, size = 0, _size(file)
    while offset < size:
        head = _bytes_at(file, offset, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if head[4:8] not in ISO_BOXES or length < 8:
            return 0
        offset += length
    return offset


def _source_name(source: VideoSource) -> str:
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    # PyAV names a container of a file object "<none>".
    return source.name if isinstance(source, InputContainer) and Path(source.name).is_file() else "<file object>"


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width after the rotation."""
    return (frame.width, frame.height) if round(frame.rotation / 90) % 2 else (frame.height, frame.width)


def _packet_number(frame: VideoFrame) -> int:
    """Number of the packet that a frame was decoded from, put there by `VideoReader._feed`."""
    return cast(list[int], frame.opaque)[0]


def _are_distinct(values: Sequence[int | None]) -> bool:
    return None not in values and len(set(values)) == len(values)


__all__ = [
    "FILE_OPTIONS",
    "VIDEO_FORMATS",
    "VideoDecodingError",
    "VideoInfo",
    "VideoReader",
    "VideoSource",
    "resolve_frames",
    "to_upright_rgb",
]
