"""Time of exported models beside torch: a clip, a clip from source frames, and a timeline.

    python -m benchmarks export

Cost: about 12 minutes on one core, and 3 GB of disk; needs the extra `onnx`, and takes OpenVINO where it is installed.

Random weights and keypoints, one clip, float32, one thread. From source frames: 1280 x 720, cut to a square of 560
pixels, once by the processor's functions and the eager model, once inside the graph. The timeline is that of
`clipmg_hf.inference.stream_windows` over images of 320 x 180 with a window of 32 frames and a stride of 8. What the
ways compute is compared, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import format_ratios, format_table, run_benchmark, take_turns
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.demo import small_config
from clipmg_hf.export import OPENVINO_FILE, PT2_FILE, FormatName, export_model, load_graph
from clipmg_hf.inference import OnnxModel, StreamFrame, stream_windows
from clipmg_hf.inference.onnx_model import MODEL, RAW_MODEL, InferenceModel
from clipmg_hf.processing import SquareCrop
from clipmg_hf.processing.video_processing_clipmg import process_frames


EAGER, ONNX, PT2, OPENVINO = "eager", "ONNX Runtime", "torch.export", "OpenVINO"
CLIP, RAW, TIMELINE = "a clip", "a clip from source frames", "a timeline"
CROP = SquareCrop(300, 80, 560)
WINDOW, STRIDE = 32, 8
CONFIGS: dict[str, Callable[[], CLIPMGConfig]] = {
    "model of the demo": lambda: small_config("gated"),
    "full-size model": CLIPMGConfig,
}
Way = Callable[[], Any]


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=7, metadata={"help": "Repetitions of each way."})
    timeline_rounds: int = field(default=2, metadata={"help": "Repetitions of a timeline."})
    timeline_frames: int = field(default=96, metadata={"help": "Frames of the timeline."})
    models: list[str] = field(default_factory=lambda: list(CONFIGS), metadata={"help": "Which models."})


def make_clip(config: CLIPMGConfig) -> dict[str, torch.Tensor]:
    """Random frames, and keypoints of which all are there."""
    size = config.vision_config.image_size
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(1, config.num_pose_frames, config.num_keypoints, 3, generator=generator)
    return {
        "pixel_values": torch.randn(1, config.num_frames, 3, size, size, generator=generator),
        "frame_mask": torch.ones(1, config.num_frames, dtype=torch.bool),
        "keypoints": keypoints * 0.5 + 0.25,
        "keypoint_mask": torch.ones(1, config.num_pose_frames, dtype=torch.bool),
    }


def make_way(path: Path, inputs: dict[str, torch.Tensor]) -> Way:
    """Run an exported file."""
    run = load_graph(path)
    return lambda: run(inputs)["logits"]


def clip_ways(model: CLIPMGForMicroGestureClassification, folder: Path) -> dict[str, Way]:
    """A processed clip, by each format that there is."""
    inputs = make_clip(model.config)
    ways: dict[str, Way] = {EAGER: lambda: model(**inputs, output_explanation=True).logits.numpy()}
    for name, file in {ONNX: MODEL, PT2: PT2_FILE, OPENVINO: OPENVINO_FILE}.items():
        if (folder / file).is_file():
            ways[name] = make_way(folder / file, inputs)
    return ways


def raw_ways(model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, folder: Path) -> dict[str, Way]:
    """A clip of source frames."""
    config, inputs = model.config, make_clip(model.config)
    settings = processor.video_processor.resolve_settings()
    frames = np.random.default_rng(0).integers(0, 256, (config.num_frames, 720, 1280, 3), np.uint8)
    points = inputs["keypoints"].clone()
    points[..., :2] = torch.from_numpy(CROP.to_source(points[..., :2].numpy()))
    raw = {
        "crops": torch.tensor([[CROP.left, CROP.top, CROP.size]]),
        "frames": torch.from_numpy(frames[None]),
        "frame_mask": inputs["frame_mask"],
        "source_keypoints": points,
    }

    def run_eager() -> np.ndarray:
        pixel_values = process_frames(frames, CROP, settings)[None]
        return model(pixel_values=pixel_values, keypoints=inputs["keypoints"], output_explanation=True).logits.numpy()

    return {EAGER: run_eager, ONNX: make_way(folder / RAW_MODEL, raw)}


def timeline_ways(
    model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, folder: Path, num_frames: int
) -> dict[str, Way]:
    """All windows of a stream."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_frames, 180, 320, 3), np.uint8)
    points = generator.uniform((80, 20, 0.5), (240, 170, 1), (num_frames, model.config.num_keypoints, 3))
    frames = [StreamFrame(index, index / 25, 1 / 25, images[index], points[index]) for index in range(num_frames)]

    def classify_with(chosen: InferenceModel) -> Way:
        def run() -> np.ndarray:
            windows = stream_windows(chosen, processor, frames, window=WINDOW, stride=STRIDE)
            return np.stack([window.scores for window in windows])

        return run

    return {EAGER: classify_with(model), ONNX: classify_with(OnnxModel(folder, model.config, "cpu"))}


@torch.inference_mode()
def measure_model(name: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of all ways, by how much they differ, and what was written."""
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(CONFIGS[name]()).eval()
    processor = CLIPMGProcessor.from_model_config(model.config)
    files = export_model(model, processor, folder, find_formats())
    results: dict[str, Any] = {"megabytes": {file.name: file.num_bytes / 1e6 for file in files}}
    for task, ways, rounds in (
        (CLIP, clip_ways(model, folder), settings.rounds),
        (RAW, raw_ways(model, processor, folder), settings.rounds),
        (TIMELINE, timeline_ways(model, processor, folder, settings.timeline_frames), settings.timeline_rounds),
    ):
        expected = ways[EAGER]()
        differences = {way: float(np.abs(run() - expected).max()) for way, run in ways.items()}
        seconds = take_turns(ways, rounds, description=f"{name}, {task}")
        results[task] = {"seconds": seconds, "differences": differences}
    return results


def find_formats() -> list[FormatName]:
    """All formats whose packages are there."""
    try:
        import openvino  # noqa: F401
    except ImportError:
        return ["onnx", "pt2"]
    return ["onnx", "pt2", "openvino"]


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Everything by model."""
    torch.set_num_threads(1)
    return {name: measure_model(name, settings, folder / name.replace(" ", "_")) for name in settings.models}


def format_tables(report: dict[str, Any]) -> str:
    """One table for each model and task."""
    settings = report["settings"]
    lines = [
        f"Processor time in one thread; medians of {settings['rounds']} rounds in which all ways take turns, of "
        f"{settings['timeline_rounds']} for the timeline of {settings['timeline_frames']} frames. Differences are the "
        "largest ones of a logit, in the timeline of a score. torch.export runs the saved program as it is, without "
        "compilation.\n"
    ]
    for name, results in report["results"].items():
        lines.append(f"\n## {name.capitalize()}\n")
        for task in (CLIP, RAW, TIMELINE):
            seconds, differences = results[task]["seconds"], results[task]["differences"]
            column = {way: f"{difference:.1e}" for way, difference in differences.items() if way != EAGER}
            lines += [f"\n{task.capitalize()}:\n\n", format_ratios(seconds, EAGER, more={"difference": column})]
        sizes = sorted(results["megabytes"].items(), key=lambda item: -item[1])
        rows = [(file, f"{size:.1f}") for file, size in sizes if size >= 0.1]
        lines += ["\nFiles from 0.1 MB:\n\n", format_table(["file", "MB"], rows)]
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark(
        "export",
        Settings,
        measure,
        format_tables,
        doc=__doc__ or "",
        packages=("onnxruntime", "onnxscript", *(["openvino"] if "openvino" in find_formats() else [])),
        arguments=arguments,
    )


if __name__ == "__main__":
    main()
