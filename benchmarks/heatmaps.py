"""Time of drawing the heatmaps of a clip, beside the loop over keypoints that pose networks use.

    python -m benchmarks heatmaps

Cost: half a minute.

Expected on one core: at least 5.5 times faster than the loop without, and 9 times with `torch.compile`. The loop is
our own, in numpy, after the description of PYSKL and mmaction2: for each frame, keypoint and person it evaluates the
Gaussian on the cells within 3 sigma and takes the larger of old and new value. There it runs in the loader, which
hands the heatmaps on; here the loader hands on keypoints, and the model draws. Writing the bytes alone is the limit.
The allocator keeps freed memory, as it does when the model draws in the course of a forward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import clock_of, format_ratios, keep_freed_memory, run_benchmark, take_turns
from clipmg_hf.modeling.heatmaps_clipmg import draw_heatmaps


SIGMA = 0.6
LOOP = "the loop"
LAST, FIRST = "drawn, keypoints last as the model does", "drawn, keypoints first"
COMPILED = ", compiled"
WRITTEN = "zeros written, nothing else"


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=50, metadata={"help": "Repetitions of each way."})
    device: str = field(default="cpu", metadata={"help": "Where the model draws: cpu, in one thread, or cuda."})
    frames: int = field(default=48, metadata={"help": "Pose frames of the clip."})
    keypoints: int = field(default=22, metadata={"help": "Keypoints of a frame."})
    size: int = field(default=56, metadata={"help": "Height and width of a heatmap in cells."})
    compiled: bool = field(default=True, metadata={"help": "Also with torch.compile."})


def loop_over_keypoints(keypoints: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Heatmaps (K, T, size, size) of (people, T, K, 3): x, y in cells and confidence."""
    num_frames, num_keypoints = keypoints.shape[1:3]
    heatmaps = np.zeros((num_keypoints, num_frames, size, size), np.float32)
    for frame in range(num_frames):
        for keypoint in range(num_keypoints):
            heatmap = heatmaps[keypoint, frame]
            for x, y, confidence in keypoints[:, frame, keypoint]:
                left, right = max(int(x - 3 * sigma), 0), min(int(x + 3 * sigma) + 1, size)
                top, bottom = max(int(y - 3 * sigma), 0), min(int(y + 3 * sigma) + 1, size)
                columns = np.arange(left, right, dtype=np.float32)
                rows = np.arange(top, bottom, dtype=np.float32)[:, None]
                if confidence == 0 or not (columns.size and rows.size):
                    continue
                patch = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / sigma**2) * confidence
                window = heatmap[top:bottom, left:right]
                heatmap[top:bottom, left:right] = np.maximum(window, patch)
    return heatmaps


@torch.inference_mode()
def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each way and round, the largest difference to the loop, and bytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    points = torch.rand(1, settings.frames, settings.keypoints, 3) * torch.tensor([1, 1, 0.5])
    points[..., 2] += 0.5
    in_cells = (points.numpy() * (settings.size, settings.size, 1) - (0.5, 0.5, 0)).astype(np.float32)
    points = points.to(settings.device)
    shape = (1, settings.keypoints, settings.frames, settings.size, settings.size)

    def draw_last(points: torch.Tensor) -> torch.Tensor:
        return draw_heatmaps(points, settings.size, SIGMA, keypoints_last=True).movedim(-1, 1)

    def draw_first(points: torch.Tensor) -> torch.Tensor:
        return draw_heatmaps(points.transpose(1, 2), settings.size, SIGMA)

    ways: dict[str, Callable[[], Any]] = {
        LOOP: lambda: loop_over_keypoints(in_cells, settings.size, SIGMA),
        LAST: lambda: draw_last(points),
        FIRST: lambda: draw_first(points),
        WRITTEN: lambda: torch.zeros(shape, device=settings.device),
    }
    if settings.compiled:
        compiled_last, compiled_first = torch.compile(draw_last), torch.compile(draw_first)
        ways[LAST + COMPILED] = lambda: compiled_last(points)
        ways[FIRST + COMPILED] = lambda: compiled_first(points)
    expected = torch.from_numpy(ways[LOOP]())
    differences = {way: float((run()[0].cpu() - expected).abs().max()) for way, run in ways.items() if "drawn" in way}
    seconds = take_turns(ways, settings.rounds, clock_of(settings.device), warm_up=5)
    sizes = {"keypoints": points.numel() * 4, "heatmaps": expected.numel() * 4}
    return {"seconds": seconds, "differences": differences, "bytes": sizes}


def format_tables(report: dict[str, Any]) -> str:
    """One table."""
    settings, results = report["settings"], report["results"]
    sizes = results["bytes"]
    differences = {way: f"{value:.0e}" for way, value in results["differences"].items()}
    return (
        f"{settings['keypoints']} keypoints, {settings['frames']} frames, {settings['size']} x {settings['size']} "
        f"cells, sigma {SIGMA:g}, float32, {settings['device']}; medians of {settings['rounds']} rounds in which all "
        f"ways take turns, one thread. The loader hands on {sizes['keypoints'] / 1e3:.1f} kB of keypoints and no "
        f"heatmaps, which would be {sizes['heatmaps'] / 1e6:.1f} MB.\n\n"
        + format_ratios(results["seconds"], LOOP, inverse=True, more={"largest difference to the loop": differences})
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark(
        "heatmaps", Settings, measure, format_tables, doc=__doc__ or "", packages=["numpy"], arguments=arguments
    )


if __name__ == "__main__":
    main()
