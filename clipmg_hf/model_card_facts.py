"""What the files of a checkpoint and of its run say of it, for the model card; see `clipmg_hf.model_card`."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.evaluation_results import METRICS_FILE, PER_CLASS_FILE, describe_checkpoint
from clipmg_hf.modeling import CLIPMGConfig
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE, PROCESSOR_FILE
from clipmg_hf.run_files import EXPERIMENT_FILE, RESULTS_FILE, STATE_FILE
from clipmg_hf.run_record import read_json_object


@dataclass(frozen=True)
class EvaluationFacts:
    """An evaluation of the weights.

    Args:
        metrics (`dict`): Contents of its `metrics.json`.
        per_class (`list[dict]`): Rows of its `per_class.csv`; empty without labels.
    """

    metrics: dict[str, Any]
    per_class: list[dict[str, str]]


@dataclass(frozen=True)
class CardFacts:
    """What is known of a checkpoint; `None` or empty where no file says it.

    Args:
        config ([`CLIPMGConfig`]): Of the model.
        processor (`dict`): Contents of `processor_config.json`.
        record (`dict`): The run's record, or as much of it as [`describe_training`] gives.
        state (`dict`): Of Trainer.
        results (`dict`): What Trainer measured of these very weights, by its names.
        evaluations (`tuple[EvaluationFacts, ...]`): Of these weights.
        num_parameters (`int`, *optional*): In the file of weights.
    """

    config: CLIPMGConfig
    processor: dict[str, Any]
    record: dict[str, Any]
    state: dict[str, Any]
    results: dict[str, float]
    evaluations: tuple[EvaluationFacts, ...] = ()
    num_parameters: int | None = None


def read_card_facts(
    folder: str | PathLike,
    evaluation_dirs: Sequence[str | PathLike] | None = None,
    record: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
    results: Mapping[str, float] | None = None,
) -> CardFacts:
    """Read what a folder says of its weights.

    Args:
        folder (`str` or `PathLike`): Folder of a run, or of a checkpoint in the folder of its run.
        evaluation_dirs (`Sequence[str | PathLike]`, *optional*): Folders of evaluations; by default those in `folder`
            that are of its weights.
        record, state, results (`Mapping`, *optional*): In place of what the files say.

    Raises:
        DatasetFormatError: `config.json` is missing, a file cannot be read, or an evaluation that was asked for is
            missing or of other weights.
    """
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise DatasetFormatError(f"{folder / CONFIG_FILE}: no such file; expected the folder of a checkpoint.")
    is_checkpoint = folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")
    if record is None:
        record = _read_json(folder / EXPERIMENT_FILE)
        if not record and is_checkpoint:
            record = _read_json(folder.parent / EXPERIMENT_FILE)
    state = _read_json(folder / STATE_FILE) if state is None else state
    if results is None:
        results = read_results(state, state.get("global_step")) if is_checkpoint else _read_json(folder / RESULTS_FILE)
    return CardFacts(
        config=CLIPMGConfig.from_pretrained(folder),
        processor=_read_json(folder / PROCESSOR_FILE),
        record=dict(record),
        state=dict(state),
        results={name: value for name, value in results.items() if name.startswith("eval_")},
        evaluations=tuple(_read_evaluations(folder, evaluation_dirs)),
        num_parameters=_count_parameters(folder),
    )


def read_results(state: Mapping[str, Any], step: int | None) -> dict[str, float]:
    """What Trainer measured after a step; empty where it was not evaluated then."""
    found = {}
    for entry in state.get("log_history", []):
        if entry.get("step") == step and any(name.startswith("eval_") for name in entry):
            found = entry
    return dict(found)


def _read_json(path: Path) -> dict[str, Any]:
    """The contents; empty where there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def _read_evaluations(folder: Path, wanted: Sequence[str | PathLike] | None) -> Iterator[EvaluationFacts]:
    given = wanted is not None
    folders = [Path(path) for path in wanted] if wanted is not None else sorted(folder.iterdir())
    weights = None
    for path in folders:
        if not (path / METRICS_FILE).is_file():
            if given:
                raise DatasetFormatError(f"{path / METRICS_FILE}: no such file; expected the folder of an evaluation.")
            continue
        metrics = _read_json(path / METRICS_FILE)
        weights = describe_checkpoint(folder)["weights_sha256"] if weights is None else weights
        evaluated = metrics.get("checkpoint", {}).get("weights_sha256")
        if evaluated != weights:
            if given:
                raise DatasetFormatError(
                    f"{path}: an evaluation of other weights than those in {folder}; expected one of these."
                )
            continue
        if metrics.get("metrics"):
            yield EvaluationFacts(metrics, _read_csv(path / PER_CLASS_FILE))


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _count_parameters(folder: Path) -> int | None:
    total = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                total += math.prod(weights.get_slice(name).get_shape())
    return total or None


__all__ = ["CardFacts", "EvaluationFacts", "read_card_facts", "read_results"]
