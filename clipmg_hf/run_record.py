"""`experiment.json`, the record of a run: what was asked for and what was found; a run that goes on keeps to it.

When a run is resumed, what its result depends on must be as recorded: model, data, loss, optimisation, the clips of a
step, what chooses the best model. These may differ:

- where things lie and what runs them: folders, workers, processes and their share of a step's clips, devices,
  `torch_compile`, activation checkpointing. With other processes, batch norms that are not frozen see other batches,
  and dropout draws other numbers.
- how often is logged, saved and evaluated, `save_total_limit`, `report_to` and all of the Hub.
- `num_train_epochs` and `max_steps`, but upwards alone. The learning rate then follows the schedule of the longer run,
  which a cosine makes another one from the checkpoint on.
"""

import json
import math
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from transformers import TrainingArguments

from clipmg_hf.arguments import ExperimentArguments
from clipmg_hf.data.loading import detect_dataset
from clipmg_hf.data.prepared_folder import read_manifest
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.source import SYNTHETIC_NOTE
from clipmg_hf.run_files import EXPERIMENT_FILE


if TYPE_CHECKING:
    from clipmg_hf.experiment import ClipSplits


_SECRETS = ("hub_token", "push_to_hub_token")
# Sections of the record, and what of them may differ. Where data lies tells less than what is in it: see "train".
_COMPARED: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "config": frozenset(),
    "processor": frozenset(),
    "data": frozenset({"data_dir", "dataset", "data_cache_dir", "num_proc", "clip_cache", "feature_cache"}),
    "optimization": frozenset(),
    "loss": frozenset(),
    "training": frozenset({"planned_steps"}),
}
# Those of TrainingArguments that the result depends on.
_TRAINING_FIELDS = (
    *("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args"),
    *("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules", "max_grad_norm"),
    *("average_tokens_across_devices", "label_smoothing_factor", "bf16", "fp16", "neftune_noise_alpha"),
    *("seed", "data_seed", "dataloader_drop_last", "train_sampling_strategy", "ignore_data_skip"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
)


def describe_run(
    arguments: ExperimentArguments, splits: "ClipSplits", learning_rate_factors: Mapping[str, float]
) -> dict[str, Any]:
    """The record, as JSON reads it back: arguments, versions, clips per split and class."""
    record = {
        "given": {name: value for name, value in arguments.given.items() if name not in _SECRETS},
        "model": asdict(arguments.model),
        "config": arguments.config,
        "processor": arguments.processor,
        # As it was split, which prepared data tells itself.
        "data": {
            **asdict(arguments.data),
            **splits.settings,
            "has_feature_cache": arguments.data.feature_cache is not None,
        },
        "optimization": asdict(arguments.optimization),
        "loss": asdict(arguments.loss),
        "learning_rate_factors": learning_rate_factors,
        "source": splits.source,
        **describe_training(arguments.training, splits.train, splits.evaluation, splits.label_names),
    }
    return json.loads(json.dumps(record, default=str))


def describe_training(
    training: TrainingArguments,
    train: datasets.Dataset,
    evaluation: datasets.Dataset | None,
    label_names: list[str],
) -> dict[str, Any]:
    """What any training with Trainer tells of itself: the part of the record that needs no configuration file.

    Args:
        training (`TrainingArguments`): Of the run.
        train, evaluation (`datasets.Dataset`): Rows with a column `label`.
        label_names (`list[str]`): Of the model's classes.
    """
    fields = training.to_dict()
    return {
        "training": {
            **{name: fields[name] for name in _TRAINING_FIELDS},
            "clips_per_step": _clips_per_step(training),
            "planned_steps": _plan_steps(training, len(train)),
        },
        "processes": training.world_size,
        "device": str(training.device),
        "hardware": describe_hardware(training.device),
        "code": describe_code(),
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
        "train": _describe_rows(train, label_names),
        "evaluation": None if evaluation is None else _describe_rows(evaluation, label_names),
    }


def _clips_per_step(training: TrainingArguments) -> int:
    return training.train_batch_size * training.gradient_accumulation_steps * training.world_size


def plan_steps(arguments: ExperimentArguments, num_clips: int) -> int:
    """Steps of the optimizer in the whole run."""
    return _plan_steps(arguments.training, num_clips)


def _plan_steps(training: TrainingArguments, num_clips: int) -> int:
    if training.max_steps > 0:
        return training.max_steps
    return math.ceil(training.num_train_epochs * math.ceil(num_clips / _clips_per_step(training)))


def describe_source(data_dir: str | Path, rows: datasets.Dataset) -> dict[str, Any]:
    """Which data set rows are of.

    Args:
        data_dir (`str` or `Path`): The folder that they were loaded from.
        rows (`datasets.Dataset`): Any split of it.

    Returns:
        `dict`: `dataset` ("imigue", ...), `title` (name and layout, as found) and `synthetic`: whether our generator
        made it, in the layout of that data set.
    """
    kind = detect_dataset(data_dir)
    if kind != "prepared":
        return {"dataset": kind, **describe_rows_source(rows)}
    source = read_manifest(data_dir)["source"]
    return {"dataset": source.get("dataset"), **_read_description(source.get("description", []))}


def describe_rows_source(rows: datasets.Dataset) -> dict[str, Any]:
    """`title` and `synthetic` of [`describe_source`], as far as rows tell it themselves."""
    return _read_description(rows.info.description.splitlines())


def _read_description(lines: list[str]) -> dict[str, Any]:
    return {"title": lines[0].rstrip(".") if lines else None, "synthetic": SYNTHETIC_NOTE in lines}


def describe_hardware(device: torch.device) -> dict[str, str]:
    """Kind and name of a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name()
    return {"type": device.type, "name": name}


def _processor_name() -> str:
    # The standard library knows it on some systems alone.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_code() -> dict[str, Any]:
    """Version of this package and, where it runs from a checkout, its `commit` and whether files were `changed`."""
    from clipmg_hf import __version__

    root = Path(__file__).resolve().parents[1]
    code: dict[str, Any] = {"version": __version__, "commit": None, "changed": None}
    # A package may be installed somewhere inside another repository.
    if _git(root, "rev-parse", "--show-toplevel") == str(root):
        code["commit"] = _git(root, "rev-parse", "HEAD")
        code["changed"] = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return code


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it may be published: without what tells of the machine; a run can go on from it all the same.

    Where a model or a pose encoder was taken from stays: a run that goes on must say the same.
    """
    public = {name: value for name, value in record.items() if name != "given"}
    if "data" in public:
        hidden = _COMPARED["data"] - {"dataset"}
        public["data"] = {name: value for name, value in public["data"].items() if name not in hidden}
    return public


def _describe_rows(rows: datasets.Dataset, label_names: list[str]) -> dict[str, Any]:
    labels = rows.with_format("arrow").select_columns("label")[:]["label"].to_numpy()
    counts = np.bincount(labels, minlength=len(label_names)).tolist()
    return {
        "clips": len(rows),
        "fingerprint": rows._fingerprint,
        "classes": dict(zip(label_names, counts, strict=True)),
    }


def read_json_object(path: Path) -> dict[str, Any]:
    """The contents of a file of a run.

    Raises:
        DatasetFormatError: They are no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetFormatError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DatasetFormatError(f"{path}: holds a {type(content).__name__}; expected an object.")
    return content


def check_resumed(checkpoint: str, record: Mapping[str, Any]) -> None:
    """Compare a run that goes on from a checkpoint with the record in the folder of that checkpoint.

    Args:
        checkpoint (`str`): The checkpoint, in the folder of its run.
        record (`Mapping`): What [`describe_run`] says of the run that goes on.

    Raises:
        ValueError: There is no record, or something differs that the result depends on; both values are named.
    """
    path = Path(checkpoint).resolve().parent / EXPERIMENT_FILE
    try:
        differences = list(_differences(json.loads(path.read_text(encoding="utf-8")), record))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read ({error!r}); expected the record of the run that resume_from_checkpoint is of."
        ) from error
    if differences:
        raise ValueError(
            f"{checkpoint} is of another run: {'; '.join(differences)}. Expected the arguments of {path}, or another "
            "output_dir."
        )


def _differences(recorded: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    for section, free in _COMPARED.items():
        old, new = recorded[section], record[section]
        for name in sorted({*old, *new} - free):
            if old.get(name) != new.get(name):
                yield f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
    for split in ("train", "evaluation"):
        # Evaluation may be added or left out, but not be that of other clips.
        old, new = recorded[split], record[split]
        if old is not None and new is not None and old["classes"] != new["classes"]:
            yield f"the {split} clips were {old['clips']} and are {new['clips']}, or of other classes"
    old_steps, new_steps = (content["training"]["planned_steps"] for content in (recorded, record))
    if new_steps < old_steps:
        yield f"the steps were {old_steps} and are {new_steps}, fewer"


__all__ = [
    "check_resumed",
    "describe_code",
    "describe_hardware",
    "describe_rows_source",
    "describe_run",
    "describe_source",
    "describe_training",
    "plan_steps",
    "public_record",
    "read_json_object",
]
