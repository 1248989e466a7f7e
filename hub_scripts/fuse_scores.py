"""Fuse the scores of several runs on the same clips (late fusion), and measure the result.

Command:  python hub_scripts/fuse_scores.py --scores A/scores.parquet B/scores.parquet --weights 2 1 --output_dir OUT
Cost:     seconds; no model and no video is read.
Expected: OUT with the numbers that hub_scripts/evaluate.py writes for a single run, and a table on the screen.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console
from rich.markup import escape
from transformers import HfArgumentParser

from clipmg_hf.console import run as run_command
from clipmg_hf.data.labels import known_groups
from clipmg_hf.evaluation import Evaluation
from clipmg_hf.evaluation_results import (
    METRICS_FILE,
    SUBMISSION_FILE,
    UNKNOWN_GROUP,
    measure,
    print_results,
    write_evaluation,
)
from clipmg_hf.score_files import Scores, fuse_scores, write_submission


@dataclass
class FuseArguments:
    """What to fuse and where to."""

    scores: list[str] = field(metadata={"help": "Score files of two runs or more."})
    output_dir: str = field(metadata={"help": "Folder of the results; those of an earlier evaluation are replaced."})
    weights: list[float] | None = field(default=None, metadata={"help": "Weight of each run; equal if unset."})
    kind: Literal["probabilities", "logits"] = field(default="probabilities", metadata={"help": "What is averaged."})
    bootstrap_samples: int = field(default=1000, metadata={"help": "Draws of videos behind the intervals."})
    confidence: float = field(default=0.95, metadata={"help": "Probability of the intervals."})
    submission: Literal["2023", "2025"] | None = field(
        default=None, metadata={"help": "Also write submission.csv in this form of the MiGA challenge."}
    )


def find_groups(scores: Scores, files: list[str]) -> list[str]:
    """Groups of the classes: told by their names, else by the `metrics.json` beside one of the score files."""
    if (known := known_groups(scores.label_names)) is not None:
        return list(known)
    for file in files:
        path = Path(file).with_name(METRICS_FILE)
        if path.is_file():
            classes = json.loads(path.read_text(encoding="utf-8")).get("classes", {})
            if classes.get("names") == scores.label_names:
                return classes["groups"]
    return [UNKNOWN_GROUP] * len(scores.label_names)


def run(args: FuseArguments, console: Console) -> None:
    """Fuse, measure and write."""
    fused = fuse_scores(args.scores, args.weights, args.kind)
    groups = find_groups(fused, args.scores)
    measurement = measure(fused, groups, args.bootstrap_samples, args.confidence)
    facts = {
        "late_fusion": {"scores": args.scores, "weights": args.weights, "kind": args.kind},
        "bootstrap": {"num_samples": args.bootstrap_samples, "confidence": args.confidence, "unit": "video"},
    }
    output = Path(args.output_dir)
    write_evaluation(output, Evaluation(fused), groups, measurement, facts)
    if args.submission is not None:
        write_submission(fused, output / SUBMISSION_FILE, form=args.submission)
    print_results(console, fused, measurement)
    console.print(f"wrote {escape(str(output))}", soft_wrap=True, highlight=False)


def main() -> None:
    """Parse the arguments and run."""
    parser = HfArgumentParser(cast(Any, FuseArguments))
    (args,) = parser.parse_args_into_dataclasses()
    run(args, Console())


if __name__ == "__main__":
    run_command(main)
