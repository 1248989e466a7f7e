"""Processor time of a timeline, and its memory over the length of the video.

    python -m benchmarks.timeline

Takes 5 minutes of processor time and writes `benchmarks/results/timeline.md` and `.json`. All in one thread and
float32, with random weights, which cost what trained ones do, on synthetic videos with keypoints (320 x 180, H.264).

Time: the model of the demo on 5 minutes, and the full-size one (ViT-B/16 at 224 pixels) on a few seconds, in three
ways that take turns: the engine; every window by itself, so processor and model for each as for a clip; and, which no
engine can do without, decoding the sampled frames and taking them through the vision tower once. Memory: the peak of a
process of its own for each length; the video of 20 minutes is that of 5 four times over, the same packets.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from benchmarks.data_loading import describe_machine
from benchmarks.timeline_events import DENSE, LongVideo, make_video
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data.synthetic import SyntheticConfig
from clipmg_hf.demo import small_config
from clipmg_hf.files import write_file
from clipmg_hf.inference import WindowGrid, crop_video, predict_timeline
from clipmg_hf.processing import VideoReader


WINDOW, STRIDE, BATCH_SIZE = 32, 8, 16
SEED, FPS = 80, SyntheticConfig().fps
DEMO, FULL = "model of the demo", "full-size model"
ENGINE, CLIPS, TOWER = "timeline", "every window by itself", "decoding and vision tower alone, once per sampled frame"
CONFIGS: dict[str, Callable[[], CLIPMGConfig]] = {DEMO: lambda: small_config("gated"), FULL: CLIPMGConfig}


@dataclass(frozen=True)
class Settings:
    """What is measured. `repeats`: how many times 5 minutes are put together."""

    minutes: float = 5.0
    full_size_seconds: float = 6.0
    rounds: int = 2
    repeats: tuple[int, ...] = (1, 4)


def build(name: str) -> tuple[CLIPMGForMicroGestureClassification, CLIPMGProcessor]:
    """A model with random weights, and its processor."""
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(CONFIGS[name]()).eval()
    return model, CLIPMGProcessor.from_model_config(model.config, crop_padding=0.1)


def measure_time(name: str, video: LongVideo, num_frames: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of each way and round on the first frames, and what they were spent on."""
    model, processor = build(name)
    size = model.config.vision_config.image_size
    grid = WindowGrid.from_processor(processor, WINDOW, STRIDE)
    sampled = [index for index in range(num_frames) if grid.samples_image(index)]
    starts = range(0, grid.last_start(num_frames) + 1, STRIDE)
    scores: dict[str, np.ndarray] = {}

    def run_engine() -> None:
        timeline = predict_timeline(
            video.path,
            model=model,
            processor=processor,
            keypoints=video.keypoints,
            window=WINDOW,
            stride=STRIDE,
            end=num_frames,
            batch_size=BATCH_SIZE,
        )
        scores[ENGINE] = np.array([window.scores for window in timeline.windows])

    @torch.inference_mode()
    def run_clips() -> None:
        per_batch = BATCH_SIZE // model.config.num_frames
        found = []
        with VideoReader(video.path) as reader:
            points = processor.convert_keypoints(video.keypoints[:num_frames], "openpose-137").astype(np.float32)
            crop = crop_video(points, reader.info.width, reader.info.height, processor.crop_padding, WINDOW // 2)
            for first in range(0, len(starts), per_batch):
                intervals = [(start, min(start + WINDOW, num_frames)) for start in starts[first : first + per_batch]]
                rows = [points[slice(*interval)] for interval in intervals]
                count = len(intervals)
                inputs = processor([reader] * count, rows, intervals=intervals, crops=[crop] * count)
                found.append(model(**inputs, output_explanation=True).logits.softmax(dim=-1).numpy())
        scores[CLIPS] = np.concatenate(found)

    @torch.inference_mode()
    def run_tower() -> None:
        with VideoReader(video.path) as reader:
            for _ in reader.iter_read(sampled):
                pass
        for first in range(0, len(sampled), BATCH_SIZE):
            count = len(sampled[first : first + BATCH_SIZE])
            model.base_model.encode_frames(torch.zeros(1, count, 3, size, size))

    ways: dict[str, Callable[[], None]] = {ENGINE: run_engine, CLIPS: run_clips, TOWER: run_tower}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
    # The last window ends with the video: the engine masks what it lacks, a shorter clip has another grid.
    difference = float(np.abs(scores[ENGINE][:-1] - scores[CLIPS][:-1]).max())
    counts = {"frames": num_frames, "windows": len(starts), "sampled": len(sampled)}
    counts |= {"images_of_windows": len(starts) * model.config.num_frames}
    spread = float(np.ptp(scores[ENGINE], axis=0).max())
    return {"seconds": seconds, "largest_difference": difference, "spread": spread, **counts}


def repeat_video(source: Path, target: Path, repeats: int) -> None:
    """Put a video behind itself, packet by packet and without decoding."""
    with av.open(str(target), "w", format="mp4") as output:
        stream: Any = None
        offset = 0
        for _ in range(repeats):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    output.mux(packet)
                offset += video.duration or 0


def measure_memory(video: LongVideo, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Peak memory in MB of processes that make the timeline of a video, without and with its keypoints."""
    path, points = folder / "repeated.mp4", folder / "repeated.npy"
    repeat_video(video.path, path, repeats)
    np.save(points, np.tile(video.keypoints, (repeats, 1, 1)))
    rows = []
    for keypoints in (None, points):
        command = [sys.executable, "-m", "benchmarks.timeline", "--memory_of", str(path)]
        command += [] if keypoints is None else ["--keypoints", str(keypoints)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({"keypoints": keypoints is not None, **json.loads(output)})
    return rows


def print_memory(path: Path, keypoints: Path | None) -> None:
    """In the process that is measured: peak memory after 10 seconds of the video, and after all of it."""
    model, processor = build(DEMO)
    with VideoReader(path) as reader:
        num_frames, rate = reader.info.num_frames, reader.info.average_rate
    common: dict[str, Any] = {"model": model, "processor": processor, "window": WINDOW, "stride": STRIDE}
    predict_timeline(path, end=10, unit="seconds", **common)
    before = read_peak()
    points = None if keypoints is None else np.load(keypoints)
    timeline = predict_timeline(path, keypoints=points, **common)
    result = {"minutes": num_frames / rate / 60, "windows": len(timeline.windows)}
    print(json.dumps({**result, "before": before, "after": read_peak()}))


def read_peak() -> float:
    """Peak memory of this process so far, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def format_report(report: dict[str, Any]) -> str:
    """Markdown of a report."""
    lines = [
        "# Timeline of a long video",
        "",
        f"{report['date']}, {report['machine']}. `{report['command']}` makes these tables.",
        "",
        f"Processor seconds in one thread, float32; windows of {WINDOW} frames with a stride of {STRIDE}, "
        f"{BATCH_SIZE} images at a time; median of {report['settings']['rounds']} rounds, the ways in turns.",
        "",
        "| model | way | seconds | from | to | per minute of video | ratio to the timeline | ratio to decoding and "
        "tower |",
        "|" + "---|" * 8,
    ]
    for name, result in report["time"].items():
        medians = {way: statistics.median(values) for way, values in result["seconds"].items()}
        minutes = result["frames"] / FPS / 60
        for way, median in medians.items():
            values = result["seconds"][way]
            numbers = f"{median:.1f} | {min(values):.1f} | {max(values):.1f} | {median / minutes:.1f}"
            ratios = f"{median / medians[ENGINE]:.2f} | {median / medians[TOWER]:.2f}"
            lines.append(f"| {name} | {way} | {numbers} | {ratios} |")
    for name, result in report["time"].items():
        lines += [
            "",
            f"{name.capitalize()}: {result['frames']} frames, {result['windows']} windows, which hold "
            f"{result['images_of_windows']} images, {result['sampled']} different ones. Largest difference of a score "
            f"between the timeline and windows by themselves: {result['largest_difference']:.1e}; over the windows "
            f"a score varies by up to {result['spread']:.1e}.",
        ]
    lines += [
        "",
        "Peak memory of a process with the model of the demo, after 10 seconds of the video without keypoints and "
        "after all of it. Not flat with given keypoints: those of the whole video (137 points, 1.6 kB for a frame), "
        "and a copy that is sorted by people, are in memory; without them, events are decoded from score curves of "
        "the whole video.",
        "",
        "| minutes | keypoints | windows | MB after 10 seconds | MB at the end | more |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["memory"]:
        numbers = f"{row['before']:.0f} | {row['after']:.0f} | {row['after'] - row['before']:.0f}"
        given = "given" if row["keypoints"] else "none"
        lines.append(f"| {row['minutes']:.1f} | {given} | {row['windows']} | {numbers} |")
    return "\n".join(lines) + "\n"


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Everything, and the date and machine."""
    video = make_video(folder, DENSE, SEED, settings.minutes)
    memory = [row for repeats in settings.repeats for row in measure_memory(video, repeats, folder)]
    lengths = {DEMO: len(video.keypoints), FULL: round(settings.full_size_seconds * FPS)}
    times = {name: measure_time(name, video, length, settings.rounds) for name, length in lengths.items()}
    return {
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "command": "python -m benchmarks.timeline",
        "settings": {**asdict(settings), "window": WINDOW, "stride": STRIDE, "batch_size": BATCH_SIZE},
        "time": times,
        "memory": memory,
    }


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "timeline.md")
    parser.add_argument("--minutes", type=float, default=Settings.minutes)
    parser.add_argument("--full_size_seconds", type=float, default=Settings.full_size_seconds)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--repeats", type=int, nargs="+", default=Settings.repeats)
    parser.add_argument("--memory_of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keypoints", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of is not None:
        print_memory(args.memory_of, args.keypoints)
        return
    settings = Settings(args.minutes, args.full_size_seconds, args.rounds, tuple(args.repeats))
    with tempfile.TemporaryDirectory() as folder:
        report = measure(settings, Path(folder))
    write_file(args.output.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    write_file(args.output, format_report(report))
    print(format_report(report))


if __name__ == "__main__":
    main()
