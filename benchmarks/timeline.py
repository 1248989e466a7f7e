"""Time of the timeline of a long video, beside one pass of the vision tower per sampled frame.

    python -m benchmarks timeline

Cost: about 10 minutes on one core. The full-size model would take 20 minutes for 5 minutes of video: it has the first
seconds of it, and the ratio is the same in every second but the first and last.

Expected: the full-size timeline takes at most 1.1 times as long as decoding the sampled frames and taking them through
the tower once, which no engine can do without. Windows of 32 frames with a stride of 8, random weights, which cost
what trained ones do, float32 in one thread, synthetic 320 x 180 H.264 video with keypoints. What peers do, processor
and model for every window by itself as for a clip, is there too, and so is the arithmetic of a window: operators with
eager attention, a multiplication and an addition are two operations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import format_ratios, format_table, run_benchmark, take_turns
from benchmarks.timeline_events import DENSE, LongVideo, make_video
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data.synthetic import SyntheticConfig
from clipmg_hf.demo import small_config
from clipmg_hf.inference import WindowGrid, crop_video, predict_timeline
from clipmg_hf.inference.pose_stream import SharedLayers
from clipmg_hf.processing import VideoReader


WINDOW, STRIDE, BATCH_SIZE = 32, 8, 16
SEED, FPS = 80, SyntheticConfig().fps
DEMO, FULL = "model of the demo", "full-size model"
ENGINE, CLIPS, TOWER = "timeline", "every window by itself", "decoding and tower, once per sampled frame"
CONFIGS: dict[str, Callable[[], CLIPMGConfig]] = {DEMO: lambda: small_config("gated"), FULL: CLIPMGConfig}


@dataclass
class Settings:
    """What is measured."""

    minutes: float = field(default=5.0, metadata={"help": "Length of the video of the demo's model."})
    full_size_seconds: float = field(default=13.0, metadata={"help": "Length of the video of the full-size model."})
    rounds: int = field(default=3, metadata={"help": "Repetitions of each way."})


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

    ways = {TOWER: run_tower, ENGINE: run_engine, CLIPS: run_clips}
    seconds = take_turns(ways, rounds, warm_up=0, description=name)
    # The last window ends with the video: the engine masks what it lacks, a shorter clip has another grid.
    difference = float(np.abs(scores[ENGINE][:-1] - scores[CLIPS][:-1]).max())
    counts = {"frames": num_frames, "windows": len(starts), "sampled": len(sampled)}
    counts |= {"images_of_windows": len(starts) * model.config.num_frames}
    spread = float(np.ptp(scores[ENGINE], axis=0).max())
    return {"seconds": seconds, "largest_difference": difference, "spread": spread, **counts}


@torch.no_grad()
def count_operations() -> dict[str, float]:
    """GFLOP of the parts of one window more, full-size, in a stream that goes on."""
    model, _ = build(FULL)
    model.set_attn_implementation("eager")
    config, base, encoder = model.config, model.base_model, model.base_model.pose_encoder
    size, step = config.vision_config.image_size, WINDOW // config.num_frames
    new_images, new_poses = STRIDE // step, STRIDE * config.num_pose_frames // WINDOW
    keypoints = torch.rand(1, config.num_pose_frames, config.num_keypoints, 3)
    features, visible = encoder.encode_frames(keypoints), torch.ones(1, config.num_pose_frames, dtype=torch.bool)
    shared = SharedLayers(encoder, config.num_pose_frames, new_poses)
    # Past its start, every stride is like the next.
    shared.push(features.repeat(1, 2, 1, 1, 1))
    tokens = torch.zeros(
        1, config.num_frames, 1 + (size // config.vision_config.patch_size) ** 2, base.config.vision_config.hidden_size
    )
    pose = encoder.combine(features, visible)
    parts: dict[str, Callable[[], Any]] = {
        "vision tower": lambda: base.encode_frames(torch.zeros(1, new_images, 3, size, size)),
        "pose encoder, layers that see one frame": lambda: encoder.encode_frames(keypoints[:, :new_poses]),
        "pose encoder, other layers, shared": lambda: shared.push(features[:, :new_poses]),
        "pose encoder, other layers, for each window": lambda: encoder.combine(features, visible),
        "attention, fusion and head": lambda: model(
            vision_tokens=tokens, keypoints=keypoints, pose_features=pose, output_explanation=True
        ),
    }
    counts = {}
    for name, run in parts.items():
        with FlopCounterMode(display=False) as counter:
            run()
        counts[name] = counter.get_total_flops() / 1e9
    return counts


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Times and arithmetic."""
    torch.set_num_threads(1)
    video = make_video(folder, DENSE, SEED, settings.minutes)
    lengths = {FULL: round(settings.full_size_seconds * FPS), DEMO: len(video.keypoints)}
    times = {
        name: measure_time(name, video, min(length, len(video.keypoints)), settings.rounds)
        for name, length in lengths.items()
    }
    return {"gflop": count_operations(), "time": times}


def format_tables(report: dict[str, Any]) -> str:
    """Markdown of a report."""
    text = (
        f"Processor seconds in one thread, float32; windows of {WINDOW} frames with a stride of {STRIDE}, "
        f"{BATCH_SIZE} images at a time; medians and quartiles of {report['settings']['rounds']} rounds, the ways in "
        "turns.\n"
    )
    for name, result in report["results"]["time"].items():
        text += f"\n{name.capitalize()}, {result['frames'] / FPS:.0f} seconds of video:\n\n"
        text += format_ratios(result["seconds"], TOWER, scale=1, unit="s")
        text += (
            f"\n{result['frames']} frames, {result['windows']} windows, which hold {result['images_of_windows']} "
            f"images, {result['sampled']} different ones. Largest difference of a score between the timeline and "
            f"windows by themselves: {result['largest_difference']:.1e}; over the windows a score varies by up to "
            f"{result['spread']:.1e}.\n"
        )
    counts = report["results"]["gflop"]
    tower = counts["vision tower"]
    text += "\nArithmetic of one window more, full-size model:\n\n"
    text += format_table(
        ["part", "GFLOP", "/ vision tower"],
        [[name, f"{value:.2f}", f"{value / tower:.3f}"] for name, value in counts.items()],
    )
    least = sum(value for name, value in counts.items() if "for each window" not in name)
    plain = sum(value for name, value in counts.items() if not name.endswith("shared"))
    text += (
        f"\nSo the least is {least / tower:.3f} times the tower, if all parts ran at its speed, and "
        f"{plain / tower:.3f} times if windows shared nothing but the tower and the pose encoder's first layers.\n"
    )
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and write."""
    run_benchmark(
        "timeline", Settings, measure, format_tables, doc=__doc__ or "", packages=["av"], arguments=arguments
    )


if __name__ == "__main__":
    main()
