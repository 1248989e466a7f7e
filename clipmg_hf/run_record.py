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
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np

from clipmg_hf.arguments import ExperimentArguments


if TYPE_CHECKING:
    from clipmg_hf.experiment import ClipSplits


EXPERIMENT_FILE = "experiment.json"
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
    training = arguments.training.to_dict()
    record = {
        "given": arguments.given,
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
        "training": {
            **{name: training[name] for name in _TRAINING_FIELDS},
            "clips_per_step": _clips_per_step(arguments),
            "planned_steps": plan_steps(arguments, len(splits.train)),
        },
        "learning_rate_factors": learning_rate_factors,
        "processes": arguments.training.world_size,
        "device": str(arguments.training.device),
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
        "train": _describe_rows(splits.train, splits.label_names),
        "evaluation": None if splits.evaluation is None else _describe_rows(splits.evaluation, splits.label_names),
    }
    return json.loads(json.dumps(record, default=str))


def _clips_per_step(arguments: ExperimentArguments) -> int:
    training = arguments.training
    return training.train_batch_size * training.gradient_accumulation_steps * training.world_size


def plan_steps(arguments: ExperimentArguments, num_clips: int) -> int:
    """Steps of the optimizer in the whole run."""
    training = arguments.training
    if training.max_steps > 0:
        return training.max_steps
    return math.ceil(training.num_train_epochs * math.ceil(num_clips / _clips_per_step(arguments)))


def _describe_rows(rows: datasets.Dataset, label_names: list[str]) -> dict[str, Any]:
    counts = np.bincount(rows["label"], minlength=len(label_names)).tolist()
    return {
        "clips": len(rows),
        "fingerprint": rows._fingerprint,
        "classes": dict(zip(label_names, counts, strict=True)),
    }


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


__all__ = ["EXPERIMENT_FILE", "check_resumed", "describe_run", "plan_steps"]
