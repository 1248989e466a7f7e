"""The ablations of one experiment over several seeds, and the table of their results.

Each run is one of `hub_scripts/train.py` in a process of its own, in `<output_dir>/<variant>/seed<n>`; what is
finished is not run again, and what was killed goes on from its last checkpoint. The last model of a run counts, none
is chosen by its results.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console

from clipmg_hf.arguments import read_config
from clipmg_hf.files import write_file
from clipmg_hf.run_files import LOG_FILE, RESULTS_FILE


TRAIN_SCRIPT = Path(__file__).parents[1] / "hub_scripts" / "train.py"


@dataclass(frozen=True)
class Variant:
    """What a run changes in the full model.

    Args:
        title (`str`): Its name in the table.
        overrides (`tuple[str, ...]`): Arguments of the training script.
        paper (`str`): Top-1 on iMiGUE that the paper states, in percent; "" where it states none.
    """

    title: str
    overrides: tuple[str, ...] = ()
    paper: str = ""


# "stated, second-hand": a summary of the paper gives the number.
VARIANTS = {
    "full": Variant("full model", (), "61.82"),
    "no_pose": Variant(
        "no pose: RGB alone",
        ("--fusion", "visual", "--pose_checkpoint", "null", "--freeze_batch_norm", "false"),
        "45.30 (second-hand)",
    ),
    # There is no tower whose features could be kept.
    "pose_only": Variant("pose alone", ("--fusion", "pose", "--feature_cache", "null", "--feature_views", "0")),
    "no_attention": Variant(
        "mean of the patches, no attention", ("--use_semantic_attention", "false"), "lower than full"
    ),
    "concat": Variant("concatenation, no gate", ("--fusion", "concat")),
    "sum": Variant("sum, no gate", ("--fusion", "sum")),
    "query_pose": Variant("query of the pose alone", ("--query", "pose")),
    "query_pose_pool": Variant("query of the patches under the keypoints", ("--query", "pose_pool")),
}
METRICS = {"eval_top1": "top-1", "eval_mean_class_accuracy": "mean class", "eval_macro_f1": "macro F1"}
# The last model counts, and the others would only fill the disk.
FIXED_OVERRIDES = ("--load_best_model_at_end", "false", "--eval_strategy", "no", "--do_eval", "true")


@dataclass(frozen=True)
class RunResult:
    """Metrics of a finished run, in [0, 1], by Trainer's names."""

    variant: str
    seed: int
    metrics: dict[str, float]


def run_ablation(
    config: str,
    output_dir: Path,
    seeds: Sequence[int],
    variants: Sequence[str] = tuple(VARIANTS),
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> list[RunResult]:
    """Run what is missing of the matrix.

    Args:
        config (`str`): Configuration of the full model.
        output_dir (`Path`): Folder of the runs; every run in it must have been started with these arguments.
        seeds (`Sequence[int]`): Seeds of initialisation, order and augmentation.
        variants (`Sequence[str]`, defaults to all): Keys of `VARIANTS`.
        overrides (`Sequence[str]`): Arguments for every run, such as `--data_dir DIR`.

    Raises:
        ValueError: An unknown variant, or runs of other arguments in the folder.
        RuntimeError: A run has failed; the message names its log and quotes its end.
    """
    if unknown := sorted(set(variants) - set(VARIANTS)):
        raise ValueError(f"variants: {', '.join(unknown)} unknown; expected some of {', '.join(VARIANTS)}.")
    _claim(output_dir, {"config": read_config(config), "overrides": list(overrides)})
    console = console or Console(stderr=True)
    # Seed by seed: a table of one seed is there early.
    matrix = [(variant, seed) for seed in seeds for variant in variants]
    for number, (variant, seed) in enumerate(matrix, start=1):
        folder = output_dir / variant / f"seed{seed}"
        if not (folder / RESULTS_FILE).is_file():
            console.print(f"{number}/{len(matrix)} {variant}, seed {seed}")
            _run(config, folder, [*overrides, *VARIANTS[variant].overrides, "--seed", str(seed)])
    return [
        RunResult(variant, seed, json.loads((output_dir / variant / f"seed{seed}" / RESULTS_FILE).read_text()))
        for variant, seed in matrix
    ]


def _claim(output_dir: Path, arguments: dict) -> None:
    """Record what the runs of a folder have in common, or check it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "ablation.json"
    if not path.exists():
        write_file(path, json.dumps(arguments, indent=2) + "\n")
    elif (found := json.loads(path.read_text(encoding="utf-8"))) != arguments:
        raise ValueError(f"{output_dir}: holds runs of {found}; expected {arguments}, or another folder.")


def _run(config: str, folder: Path, words: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(TRAIN_SCRIPT), config, *words, *FIXED_OVERRIDES]
    command += ["--output_dir", str(folder), "--resume_from_checkpoint", "last"]
    with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        end = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")[-1000:]
        raise RuntimeError(f"{folder / LOG_FILE}: the run ended with status {done.returncode}:\n{end}")


def format_table(results: Sequence[RunResult]) -> str:
    """The Markdown table: mean and spread (sample standard deviation) over the seeds, in percent."""
    seeds = sorted({result.seed for result in results})
    lines = [
        f"| variant | {' | '.join(METRICS.values())} | top-1 of each seed | paper, top-1 on iMiGUE's test subjects |",
        "|---|" + "---|" * (len(METRICS) + 2),
    ]
    for name, variant in VARIANTS.items():
        runs = sorted((result for result in results if result.variant == name), key=lambda run: run.seed)
        if not runs:
            continue
        cells = [format_mean([run.metrics[metric] for run in runs]) for metric in METRICS]
        each = ", ".join(f"{100 * run.metrics['eval_top1']:.1f}" for run in runs)
        lines.append(f"| {variant.title} | {' | '.join(cells)} | {each} | {variant.paper or 'not known'} |")
    return "\n".join([*lines, "", f"Seeds: {', '.join(map(str, seeds))}."]) + "\n"


def format_mean(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in percent, such as "87.1 ± 0.9"; the mean alone of one value."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def compare_with_full(results: Sequence[RunResult]) -> list[str]:
    """Say of each variant whether the full model is above it by more than the spread.

    The spread of a difference is the larger of the two standard deviations over seeds.
    """
    top1 = {name: [run.metrics["eval_top1"] for run in results if run.variant == name] for name in VARIANTS}
    lines = []
    for name, values in top1.items():
        if name == "full" or len(values) < 2 or len(top1["full"]) < 2:
            continue
        gap, spread = mean(top1["full"]) - mean(values), max(stdev(top1["full"]), stdev(values))
        verdict = "above by more than the spread" if gap > spread else "NOT above by more than the spread"
        lines.append(f"full against {name}: {100 * gap:+.1f} points, spread {100 * spread:.1f}: {verdict}.")
    return lines


__all__ = ["METRICS", "VARIANTS", "RunResult", "Variant", "compare_with_full", "format_table", "run_ablation"]
