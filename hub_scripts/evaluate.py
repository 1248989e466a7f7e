"""Evaluate a checkpoint on a split: numbers with intervals, tables, scores of every clip, drawings, a page.

Command:  python hub_scripts/evaluate.py --model runs/full --data_dir /data/imigue --split test --output_dir OUT
          ... --num_views 10 --flip true            # 10-clip x mirrored, averaged
          ... --modality rgb                        # what one stream is worth to a model that was trained on both
          ... --submission 2025 --report true       # also submission.csv, and OUT/report.html of the run
          ... --model runs/full_onnx --backend onnx --run_dir runs/full     # an export, on the split of its run
Cost:     every view decodes its clip again. With clips of 320 x 180 and the demo's small model a view took 15 ms of
          processor time, 21 ms with its mirror image; --num_workers spreads the decoding.
Expected: OUT/metrics.json (also: checkpoint, data, options, versions), scores.parquet (hub_scripts/fuse_scores.py
          fuses several), clips.csv (loss and gate of each clip), per_class.csv, per_group.csv, confusion_matrix.csv,
          calibration.csv, and strips/ with the hardest clips. A split without labels gives scores and clips alone.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import datasets
import torch
from rich.console import Console
from rich.markup import escape
from transformers import HfArgumentParser

from clipmg_hf.console import run as run_command
from clipmg_hf.data.loading import SPLIT_SETTINGS, detect_dataset, load_named_splits
from clipmg_hf.evaluation import EvaluationOptions, evaluate_checkpoint
from clipmg_hf.evaluation_results import (
    METRICS_FILE,
    SUBMISSION_FILE,
    class_groups,
    describe_checkpoint,
    measure,
    options_facts,
    print_results,
    write_evaluation,
)
from clipmg_hf.inference import OnnxModel, load_model
from clipmg_hf.run_files import EXPERIMENT_FILE
from clipmg_hf.run_record import describe_source, read_json_object
from clipmg_hf.score_files import write_submission


@dataclass
class EvaluateArguments:
    """What to evaluate, on what, and where to."""

    model: str = field(metadata={"help": "Folder of a checkpoint, or owner/name on the Hub."})
    data_dir: str = field(metadata={"help": "Folder of the data set, prepared or not."})
    output_dir: str = field(metadata={"help": "Folder of the results; those of the same evaluation are replaced."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Also replace those of another model, data or options."}
    )
    split: str = field(default="validation", metadata={"help": "Name of the split."})
    dataset_configuration: str = field(
        default="classification", metadata={"help": "'classification', or 'emotion' where the data has it."}
    )
    protocol: str | None = field(
        default=None, metadata={"help": "How to split; if unset as for training, else the data set's official way."}
    )
    validation: float | None = field(default=None, metadata={"help": "Share of the training subjects to validate on."})
    split_seed: int | None = field(default=None, metadata={"help": "Seed of that choice."})
    fold: int | None = field(default=None, metadata={"help": "With protocol='folds': the fold that validates."})
    background_share: float | None = field(
        default=None, metadata={"help": "Clips of gaps between gestures, for each gesture; if unset as for training."}
    )
    other_split: bool = field(
        default=False, metadata={"help": "Split otherwise than for training: its clips may be evaluated, too."}
    )
    data_cache_dir: str | None = field(default=None, metadata={"help": "Where converted data lies."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that convert skeletons."})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, ...; cuda if there."})
    backend: Literal["torch", "onnx"] = field(
        default="torch", metadata={"help": "onnx: the model is a folder that hub_scripts/export.py wrote."}
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Type of the weights; auto is the one that they were saved with."}
    )
    bootstrap_samples: int = field(default=1000, metadata={"help": "Draws of videos behind the intervals."})
    confidence: float = field(default=0.95, metadata={"help": "Probability of the intervals."})
    num_hardest: int = field(default=8, metadata={"help": "Clips of the highest loss to draw; 0 draws none."})
    num_right: int = field(default=4, metadata={"help": "Clips predicted right to draw."})
    submission: Literal["2023", "2025"] | None = field(
        default=None, metadata={"help": "Also write submission.csv in this form of the MiGA challenge."}
    )
    report: bool = field(default=False, metadata={"help": "Also write report.html."})
    run_dir: str | None = field(
        default=None, metadata={"help": "Training run of the model, for split and report; its folder if unset."}
    )


def resolve_split(args: EvaluateArguments) -> dict[str, Any]:
    """How to split: as given, else as the run of the model did, so that nothing it was trained on is evaluated.

    Raises:
        ValueError: What is given differs from how the run split its data.
    """
    given = {name: getattr(args, name) for name in SPLIT_SETTINGS}
    records = (Path(folder, EXPERIMENT_FILE) for folder in (args.run_dir, args.model) if folder is not None)
    record = next((path for path in records if path.is_file()), None)
    if record is None or detect_dataset(args.data_dir) == "prepared":
        return given
    data = json.loads(record.read_text(encoding="utf-8"))["data"]
    trained = {name: data.get(name) for name in SPLIT_SETTINGS}
    for name, value in given.items():
        if value is not None and value != trained[name] and not args.other_split:
            raise ValueError(
                f"{name} is {value!r}, but {record} says that the model was trained with {trained[name]!r}: the split "
                "may hold clips that it was trained on. Expected the same, or --other_split true."
            )
    return given if args.other_split else trained


def load_split(args: EvaluateArguments) -> tuple[datasets.Dataset, dict[str, Any]]:
    """The rows to evaluate, and where they come from.

    Raises:
        DatasetFormatError: The data cannot be read, or has no such split.
        ValueError: It is split otherwise than for training.
    """
    how = resolve_split(args)
    rows = load_named_splits(
        args.data_dir,
        [args.split],
        args.dataset_configuration,
        **how,
        cache_dir=args.data_cache_dir,
        num_proc=args.num_proc,
    )[args.split]
    facts = {
        "path": args.data_dir,
        "split": args.split,
        "settings": {name: value for name, value in how.items() if value is not None},
        "source": describe_source(args.data_dir, rows),
        "description": rows.info.description.splitlines(),
        "fingerprint": rows._fingerprint,
    }
    return rows, facts


def check_output_dir(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse to replace another evaluation.

    Args:
        folder (`Path`): Where the results go.
        facts (`dict`): What its `metrics.json` will say of model, data and options.

    Raises:
        ValueError: It holds the results of another evaluation.
        DatasetFormatError: Its `metrics.json` cannot be read.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        return
    found = read_json_object(path)
    # As JSON gives them back.
    different = [name for name, value in json.loads(json.dumps(facts)).items() if found.get(name) != value]
    if different:
        raise ValueError(
            f"{path} is of another evaluation (other {', '.join(different)}); expected another folder, or "
            "--overwrite_output_dir true."
        )


def run(args: EvaluateArguments, options: EvaluationOptions, console: Console) -> None:
    """Load, score, measure, write, draw and report."""
    run_dir = Path(args.run_dir or args.model)
    # Both need an extra, which is said before the work.
    if args.num_hardest or args.num_right:
        from clipmg_hf.evaluation_strips import write_strips
    if args.report:
        from clipmg_hf.run_report import write_run_report
    if args.report and not run_dir.is_dir():
        raise ValueError(
            f"run_dir is {run_dir}, no folder; expected the run that the report tells about, or no report."
        )
    dtype = None if args.dtype == "auto" else getattr(torch, args.dtype)
    model, processor = load_model(args.model, args.device, dtype, args.backend)
    checkpoint = describe_checkpoint(args.model, args.backend)
    rows, data = load_split(args)
    device = model.provider if isinstance(model, OnnxModel) else str(model.device)
    facts = {
        "checkpoint": checkpoint,
        "data": data,
        "options": {**options_facts(options), "backend": args.backend, "device": device, "dtype": str(model.dtype)},
        "bootstrap": {"num_samples": args.bootstrap_samples, "confidence": args.confidence, "unit": "video"},
    }
    output = Path(args.output_dir)
    if not args.overwrite_output_dir:
        check_output_dir(output, facts)
    evaluation = evaluate_checkpoint(
        model, processor, rows, options, checkpoint=args.model, revision=checkpoint["revision"], split=args.split
    )
    groups = class_groups(rows)
    measurement = measure(evaluation.scores, groups, args.bootstrap_samples, args.confidence)
    write_evaluation(output, evaluation, groups, measurement, facts)
    if args.submission is not None:
        write_submission(evaluation.scores, output / SUBMISSION_FILE, form=args.submission)
    if args.num_hardest or args.num_right:
        counts: dict[str, Any] = {"num_hardest": args.num_hardest, "num_right": args.num_right}
        write_strips(output, model, processor, rows, evaluation.scores, options, **counts)
    print_results(console, evaluation.scores, measurement)
    if args.report:
        path = write_run_report(run_dir, output, output)
        console.print(f"wrote {escape(str(path))}", soft_wrap=True, highlight=False)
    console.print(f"wrote {escape(str(output))}", soft_wrap=True, highlight=False)


def main() -> None:
    """Parse the arguments and run."""
    parser = HfArgumentParser(cast(Any, (EvaluateArguments, EvaluationOptions)))
    args, options = parser.parse_args_into_dataclasses()
    run(args, options, Console())


if __name__ == "__main__":
    run_command(main)
