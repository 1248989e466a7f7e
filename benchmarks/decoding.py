"""Time from the bytes of a video to the tensors of a clip, beside decoding the same frames alone.

    python -m benchmarks decoding

Cost: 3 minutes, of which one writes the videos; OpenCV and decord take part once `python -m benchmarks.peers` has
installed them.

Expected: a prepared clip takes at most 1.25 times as long as decoding its frames, an interval of a long 720p video at
most 1.3 times as long as a seek and decoding exactly the packets that it needs. A clip is 60 frames of synthetic video
(see `data_loading`), read as 8 frames of 224 x 224 with 32 frames of 137 keypoints, in one thread as in a worker of a
loader. All ways decode from the key frame before the first of the 8 to the last; ours pass over frames that no other
needs, which the limit does, too, in a second row. The peers decode the clip and convert its 8 frames to RGB or BGR;
they neither crop, scale nor normalise them.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import datasets
import torch

from benchmarks.data_loading import KEY_FRAME_INTERVAL, make_forms
from benchmarks.data_loading import Settings as DataSettings
from benchmarks.measuring import Seconds, format_ratios, run_benchmark, take_turns
from benchmarks.peers import PeerDecoder, find_peer_python
from clipmg_hf import CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipDataset
from clipmg_hf.processing import VideoReader, video_decoding_clipmg
from clipmg_hf.processing.geometry_clipmg import sample_frame_indices


DECODE, DECODE_NEEDED = "decoding", "decoding without frames that no other needs"
PROCESSOR, ITEM, READ = "processor", "item of a ClipDataset", "VideoReader alone"
SCAN = "processor, the file seen for the first time"
PEERS = {"OpenCV": "opencv", "decord": "decord"}
CLIP_COLUMNS = ["video", "start_frame", "end_frame", "video_start_frame"]
NUM_FRAMES, POSE_FRAMES_PER_FRAME = 8, 4


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=15, metadata={"help": "Repetitions of each way."})
    clips: int = field(default=8, metadata={"help": "Clips, all of which are read in a repetition."})
    peers: bool = field(default=True, metadata={"help": "With OpenCV and decord, if they are installed."})


@dataclass(frozen=True)
class Clip:
    """Where the frames are: `wanted` are numbers of the file's frames, of which the clip begins at `first`."""

    source: str | bytes
    first: int
    end: int
    wanted: tuple[int, ...]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Clip":
        """The frames that the processor takes of a row."""
        first, end = row["start_frame"] - row["video_start_frame"], row["end_frame"] + 1 - row["video_start_frame"]
        indices, _ = sample_frame_indices(end - first, NUM_FRAMES, POSE_FRAMES_PER_FRAME)
        video = row["video"]
        source = video if isinstance(video, str) else video["bytes"]
        return cls(source, first, end, tuple(int(first + index) for index in indices))


def decode(clip: Clip, skip: bool) -> int:
    """Decode from the key frame before the clip to the last wanted frame; returns how many wanted ones came out."""
    source: Any = clip.source if isinstance(clip.source, str) else io.BytesIO(clip.source)
    with av.open(source, mode="r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None and stream.average_rate is not None
        frame_ticks = 1 / (stream.time_base * stream.average_rate)
        if clip.first:
            container.seek(int(clip.wanted[0] * frame_ticks), stream=stream)
        wanted = set(clip.wanted)
        found = 0
        for packet in container.demux(stream):
            if skip:
                is_wanted = packet.pts is None or round(packet.pts / frame_ticks) in wanted
                stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            for frame in packet.decode():
                found += round((frame.pts or 0) / frame_ticks) in wanted
                if found == len(wanted):
                    return found
    return found


def make_ways(rows: datasets.Dataset, processor: CLIPMGProcessor, is_prepared: bool) -> dict[str, Callable[[], Any]]:
    """Ways to read all clips of a form."""
    clips = [Clip.from_row(row) for row in rows.select_columns(CLIP_COLUMNS).with_format("arrow")[:].to_pylist()]
    keypoints = [torch.as_tensor(points).numpy() for points in rows.with_format("numpy")["keypoints"]]
    items = ClipDataset(rows, processor)

    def run_decode(skip: bool) -> None:
        assert all(decode(clip, skip) == len(set(clip.wanted)) for clip in clips)

    def run_processor() -> None:
        for clip, points in zip(clips, keypoints, strict=True):
            processor(clip.source, points, intervals=(clip.first, clip.end))

    def run_reader() -> None:
        for clip in clips:
            with VideoReader(clip.source) as reader:
                reader.read(clip.wanted)

    def run_scan() -> None:
        for clip, points in zip(clips, keypoints, strict=True):
            with VideoReader(clip.source) as reader:
                processor(reader, points, intervals=(clip.first, clip.end))

    ways: dict[str, Callable[[], Any]] = {
        DECODE: lambda: run_decode(False),
        DECODE_NEEDED: lambda: run_decode(True),
        PROCESSOR: run_processor,
        ITEM: lambda: [items[index] for index in range(len(items))],
    }
    return ways | ({READ: run_reader} if is_prepared else {SCAN: run_scan})


def add_peers(stack: ExitStack, ways: dict[str, Callable[[], Any]], rows: datasets.Dataset, folder: Path) -> None:
    """Let the peers' decoders take turns, each in a process of its own, on files of the same bytes."""
    clips = [Clip.from_row(row) for row in rows.select_columns(CLIP_COLUMNS).with_format("arrow")[:].to_pylist()]
    jobs = []
    for number, clip in enumerate(clips):
        path = clip.source
        if isinstance(path, bytes):
            path = str(folder / f"{number}.mp4")
            Path(path).write_bytes(clip.source)  # type: ignore[arg-type]
        jobs.append({"path": path, "indices": clip.wanted})
    for name, library in PEERS.items():
        ways[name] = stack.enter_context(PeerDecoder(library, jobs)).run


def measure_form(rows: datasets.Dataset, is_prepared: bool, settings: Settings, folder: Path) -> Seconds:
    """Seconds for a clip of each way and round."""
    video_processor = CLIPMGVideoProcessor(num_frames=NUM_FRAMES, pose_frames_per_frame=POSE_FRAMES_PER_FRAME)
    ways = make_ways(rows, CLIPMGProcessor(video_processor, keypoint_layout="openpose-137"), is_prepared)
    folder.mkdir()
    with ExitStack() as stack:
        if settings.peers and find_peer_python() is not None:
            add_peers(stack, ways, rows, folder)
        # Workers of a loader decode in one thread; here there are none.
        stack.enter_context(patch.object(video_decoding_clipmg, "get_worker_info", return_value=True))
        seconds = take_turns(ways, settings.rounds)
    return {way: [value / len(rows) for value in values] for way, values in seconds.items()}


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds by the form in which clips are stored."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    forms = make_forms(folder, DataSettings(num_videos=1, clips_per_video=settings.clips))
    return {
        name: measure_form(rows, name.startswith("prepared"), settings, folder / f"peers_{number}")
        for number, (name, rows) in enumerate(forms.items())
    }


def format_tables(report: dict[str, Any]) -> str:
    """A table for each form."""
    settings = report["settings"]
    lines = [
        f"Processor time in one thread for a clip of 60 frames, of {settings['rounds']} rounds in which all ways take "
        f"turns and read {settings['clips']} clips. The long video is 1280 x 720, H.264 with B-frames and a key frame "
        f"every {KEY_FRAME_INTERVAL} frames; prepared clips have a short side of 256 pixels.\n"
    ]
    for form, seconds in report["results"].items():
        lines.append(f"\n## {form[0].upper()}{form[1:]}\n\n{format_ratios(seconds, DECODE)}")
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    packages = ["av", "numpy", "datasets"]
    run_benchmark(
        "decoding", Settings, measure, format_tables, doc=__doc__ or "", packages=packages, arguments=arguments
    )


if __name__ == "__main__":
    main()
