"""Processor time of a timeline, and its memory over the length of the video.

    python -m benchmarks.timeline

Takes about 6 minutes on a CPU and writes `benchmarks/results/timeline.md`. Time: the full-size model with random
weights (ViT-B/16 at 224 pixels, 8 frames and 32 pose frames in a window of 32, stride 8, float32, one thread) on
a part of a synthetic video with keypoints, in three ways: the engine, every window by itself (decoded once, as a loop
over clips in memory would), and the vision tower alone on every frame that some window samples, which no engine can do
without. Memory: a tiny model in a process of its own for each length, so that what it keeps for the video shows.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.data_loading import describe_machine
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.files import write_file
from clipmg_hf.inference import WindowGrid, crop_video, predict_timeline
from clipmg_hf.processing import VideoReader


WIDTH, HEIGHT, RATE, WINDOW, STRIDE = 320, 180, 25, 32, 8
TINY = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    },
    "hidden_size": 32,
    "num_attention_heads": 2,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}
ENGINE, CLIPS, TOWER = "timeline", "every window by itself", "vision tower alone, once per sampled frame"


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    seconds: float = 8.0
    rounds: int = 2
    minutes: tuple[float, ...] = (2.0, 5.0, 20.0)


def write_video(path: Path, num_frames: int) -> None:
    """A moving pattern; what is in the picture does not matter here."""
    generator = np.random.default_rng(0)
    pattern = generator.integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pattern, index, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def make_keypoints(num_frames: int, num_keypoints: int) -> np.ndarray:
    """Somebody in the middle of the picture: (N, K, 3) float32."""
    generator = np.random.default_rng(0)
    shape = generator.uniform((110, 30, 0.5), (210, 170, 1), size=(num_keypoints, 3))
    noise = generator.normal(0, 1, (num_frames, num_keypoints, 3)) * (1, 1, 0)
    return (shape + noise).astype(np.float32)


def build(config: CLIPMGConfig) -> tuple[CLIPMGForMicroGestureClassification, CLIPMGProcessor]:
    """A model with random weights, and its processor."""
    torch.manual_seed(0)
    return CLIPMGForMicroGestureClassification(config).eval(), CLIPMGProcessor.from_model_config(config)


def measure_time(settings: Settings, folder: Path) -> tuple[dict[str, list[float]], int, int]:
    """Processor seconds of each way and round, sampled frames and windows."""
    torch.set_num_threads(1)
    model, processor = build(CLIPMGConfig())
    num_frames = round(settings.seconds * RATE)
    path = folder / "time.mp4"
    write_video(path, num_frames)
    keypoints = make_keypoints(num_frames, model.config.num_keypoints)
    grid = WindowGrid.from_processor(processor, WINDOW, STRIDE)
    sampled = [index for index in range(num_frames) if grid.samples_image(index)]
    starts = range(0, grid.last_start(num_frames) + 1, STRIDE)
    crop = crop_video(keypoints, WIDTH, HEIGHT, processor.crop_padding, WINDOW // 2)

    def run_engine() -> None:
        predict_timeline(path, model=model, processor=processor, keypoints=keypoints, window=WINDOW, stride=STRIDE)

    @torch.inference_mode()
    def run_clips() -> None:
        with VideoReader(path) as reader:
            frames = reader.read(np.arange(num_frames))
        for start in starts:
            interval = (start, min(start + WINDOW, num_frames))
            model(**processor(frames, keypoints, intervals=interval, crops=crop), output_explanation=True)

    @torch.inference_mode()
    def run_tower() -> None:
        for first in range(0, len(sampled), 16):
            model.base_model.encode_frames(torch.zeros(1, len(sampled[first : first + 16]), 3, 224, 224))

    ways: dict[str, Callable[[], None]] = {ENGINE: run_engine, CLIPS: run_clips, TOWER: run_tower}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    return seconds, len(sampled), len(starts)


def measure_memory(minutes: float, folder: Path) -> tuple[float, float]:
    """Peak memory in MB of a process before and after the timeline of a video of this length."""
    path = folder / f"{minutes:g}.mp4"
    write_video(path, round(minutes * 60 * RATE))
    command = [sys.executable, "-m", "benchmarks.timeline", "--memory_of", str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    path.unlink()
    before, after = output.split()
    return float(before), float(after)


def print_memory(path: Path) -> None:
    """In the process that is measured: peak memory after a short part of the video, and after all of it."""
    torch.set_num_threads(1)
    model, processor = build(CLIPMGConfig(**TINY))
    with VideoReader(path) as reader:
        num_frames = reader.info.num_frames
    keypoints = make_keypoints(num_frames, model.config.num_keypoints)
    peaks = []
    for end in (10 * RATE, num_frames):
        predict_timeline(
            path, model=model, processor=processor, keypoints=keypoints, window=WINDOW, stride=STRIDE, end=end
        )
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
    print(*peaks)


def format_report(
    settings: Settings,
    seconds: dict[str, list[float]],
    num_sampled: int,
    num_windows: int,
    memory: dict[float, tuple[float, float]],
) -> str:
    """The two tables."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [
        "# Timeline of a long video",
        "",
        f"{date.today().isoformat()}, {describe_machine()}. `python -m benchmarks.timeline` makes these tables.",
        "",
        f"Processor seconds for {settings.seconds:g} seconds of video ({WIDTH} x {HEIGHT}, {RATE} frames per second), "
        f"{num_windows} windows of {WINDOW} frames with a stride of {STRIDE}, which sample {num_sampled} images; "
        f"median of {settings.rounds} rounds, the ways in turns; one thread, float32, the full-size model.",
        "",
        "| way | seconds | per minute of video | ratio to the tower alone |",
        "|---|---|---|---|",
    ]
    for name, median in medians.items():
        per_minute = median * 60 / settings.seconds
        lines.append(f"| {name} | {median:.1f} | {per_minute:.0f} | {median / medians[TOWER]:.2f} |")
    lines += [
        "",
        "Peak memory of a process with a tiny model, after 10 seconds of the video and after all of it. The keypoints "
        "of the whole video are in memory, in the form that they are given and in that of the model.",
        "",
        "| minutes | MB after 10 seconds | MB at the end | more |",
        "|---|---|---|---|",
    ]
    for minutes, (before, after) in memory.items():
        lines.append(f"| {minutes:g} | {before:.0f} | {after:.0f} | {after - before:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "timeline.md")
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--minutes", type=float, nargs="+", default=Settings.minutes)
    parser.add_argument("--memory_of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of is not None:
        print_memory(args.memory_of)
        return
    settings = Settings(args.seconds, args.rounds, tuple(args.minutes))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        memory = {minutes: measure_memory(minutes, folder) for minutes in settings.minutes}
        report = format_report(settings, *measure_time(settings, folder), memory)
    write_file(args.output, report)
    print(report)


if __name__ == "__main__":
    main()
