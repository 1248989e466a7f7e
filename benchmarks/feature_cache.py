"""Processor time of a training step with and without the kept features of the frozen tower.

    python -m benchmarks feature_cache

Cost: 3 minutes on one core.

The model is the full-size one with
random weights: a frozen ViT-B/16 at 224 pixels, 8 frames and 32 pose frames, semantic attention, gated fusion,
float32, one thread. A step reads a batch (decoding its videos, or reading tokens from the page cache), runs forward
and backward and moves the weights. Both kinds take turns, so that other work on the machine disturbs both alike. The
clips are synthetic ones of 320 x 180: decoding larger videos makes the gain larger.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from benchmarks.measuring import format_ratios, run_benchmark, take_turns
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.imigue import load_imigue
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.feature_cache import cache_features
from clipmg_hf.optimization import parameter_groups


FRAMES, FEATURES = "frames", "kept features"


@dataclass
class Settings:
    """What is measured."""

    batch_size: int = field(default=4, metadata={"help": "Clips of a step."})
    rounds: int = field(default=3, metadata={"help": "Steps of each kind."})


def load_rows(folder: Path, num_clips: int) -> datasets.Dataset:
    """Synthetic clips of one subject."""
    config = SyntheticConfig(
        num_train_subjects=1, num_validate_subjects=0, num_test_subjects=0, clips_per_video=max(6, num_clips)
    )
    generate_dataset(folder / "data", config, show_progress=False)
    return load_imigue(folder / "data", cache_dir=folder / "cache")["train"].select(range(num_clips))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, batch_size: int) -> None:
    """One training step on the first clips."""
    batch = collate_clips([data[index] for index in range(batch_size)])
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each step, of computing the features, and bytes of a clip's features."""
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(CLIPMGConfig()).train()
    rows = load_rows(folder, settings.batch_size)
    clips = ClipDataset(rows, CLIPMGProcessor.from_model_config(model.config))
    start = time.process_time()
    features = cache_features(model, clips, folder / "features", batch_size=settings.batch_size)
    computed = time.process_time() - start
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4, 0.05))
    sources: dict[str, Dataset] = {FRAMES: clips, FEATURES: features}
    ways = {name: partial(step, model, optimizer, data, settings.batch_size) for name, data in sources.items()}
    seconds = {
        name: [value / settings.batch_size for value in values]
        for name, values in take_turns(ways, settings.rounds).items()
    }
    size = sum(path.stat().st_size for path in features.folder.iterdir()) / settings.batch_size
    return {"seconds": seconds, "computed": computed / settings.batch_size, "bytes": size}


def format_tables(report: dict[str, Any]) -> str:
    """The table, and what the features cost."""
    settings, results = report["settings"], report["results"]
    return (
        f"Processor seconds for a clip, of {settings['rounds']} steps of {settings['batch_size']} clips, both kinds "
        "in turns in one run; one thread, float32, the full-size model (frozen ViT-B/16, 8 frames of 224, 32 pose "
        f"frames).\n\n{format_ratios(results['seconds'], FEATURES, 1, 's')}\n"
        f"Computing the features takes {results['computed']:.2f} seconds for a clip and view, once. They take "
        f"{results['bytes'] / 1e6:.2f} MB of disk in float16, keypoints included.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    packages = ["av", "datasets"]
    run_benchmark(
        "feature_cache", Settings, measure, format_tables, doc=__doc__ or "", packages=packages, arguments=arguments
    )


if __name__ == "__main__":
    main()
