"""Processor time of a training step with and without the kept features of the frozen tower.

    python -m benchmarks.feature_cache

Takes about 3 minutes on a CPU and writes `benchmarks/results/feature_cache.md`. The model is the full-size one with
random weights: a frozen ViT-B/16 at 224 pixels, 8 frames and 32 pose frames, semantic attention, gated fusion,
float32, one thread. A step reads a batch (decoding its videos, or reading tokens from the page cache), runs forward
and backward and moves the weights. Both kinds take turns, so that other work on the machine disturbs both alike. The
clips are synthetic ones of 320 x 180: decoding larger videos makes the gain larger.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from benchmarks.data_loading import describe_machine
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.imigue import load_imigue
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.feature_cache import cache_features
from clipmg_hf.files import write_file
from clipmg_hf.optimization import parameter_groups


FRAMES, FEATURES = "frames", "kept features"


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    batch_size: int = 4
    rounds: int = 3


def load_rows(folder: Path, num_clips: int) -> datasets.Dataset:
    """Synthetic clips of one subject."""
    config = SyntheticConfig(
        num_train_subjects=1, num_validate_subjects=0, num_test_subjects=0, clips_per_video=max(6, num_clips)
    )
    generate_dataset(folder / "data", config, show_progress=False)
    return load_imigue(folder / "data", cache_dir=folder / "cache")["train"].select(range(num_clips))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, batch_size: int) -> float:
    """Seconds of processor time of one training step on the first clips."""
    start = time.process_time()
    batch = collate_clips([data[index] for index in range(batch_size)])
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time() - start


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each step, of computing the features, and bytes of a clip's features."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(CLIPMGConfig()).train()
    rows = load_rows(folder, settings.batch_size)
    clips = ClipDataset(rows, CLIPMGProcessor.from_model_config(model.config))
    start = time.process_time()
    features = cache_features(model, clips, folder / "features", batch_size=settings.batch_size)
    computed = time.process_time() - start
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4, 0.05))
    sources: dict[str, Dataset] = {FRAMES: clips, FEATURES: features}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(settings.rounds + 1):
        for name, data in sources.items():
            taken = step(model, optimizer, data, settings.batch_size)
            # The first round allocates.
            if number:
                seconds[name].append(taken / settings.batch_size)
    size = sum(path.stat().st_size for path in features.folder.iterdir()) / settings.batch_size
    return {"seconds": seconds, "computed": computed / settings.batch_size, "bytes": size}


def format_report(settings: Settings, result: dict[str, Any]) -> str:
    """The table, with the ratio of the medians."""
    medians = {name: statistics.median(values) for name, values in result["seconds"].items()}
    lines = [
        "# Training on kept features of the frozen tower",
        "",
        f"{date.today().isoformat()}, {describe_machine()}.",
        "",
        f"Processor seconds for a clip, of {settings.rounds} steps of {settings.batch_size} clips, both kinds "
        "in turns in one run; one thread, float32, the full-size model (frozen ViT-B/16, 8 frames of 224, 32 pose "
        "frames). `python -m benchmarks.feature_cache` makes this table.",
        "",
        "| a step reads | median seconds | from | to | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, values in result["seconds"].items():
        ratio = medians[name] / medians[FEATURES]
        lines.append(f"| {name} | {medians[name]:.2f} | {min(values):.2f} | {max(values):.2f} | {ratio:.1f} |")
    lines += [
        "",
        f"Computing the features takes {result['computed']:.2f} seconds for a clip and view, once. They take "
        f"{result['bytes'] / 1e6:.2f} MB of disk in float16, keypoints included.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "feature_cache.md")
    parser.add_argument("--batch_size", type=int, default=Settings.batch_size)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    args = parser.parse_args()
    settings = Settings(args.batch_size, args.rounds)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        report = format_report(settings, measure(settings, Path(folder)))
    write_file(args.output, report)
    print(report)


if __name__ == "__main__":
    main()
