"""A training run from its arguments: data, model, trainer, results; what `hub_scripts/train.py` does, step by step.

    experiment = prepare_experiment(parse_arguments(["hub_scripts/configs/synthetic.yaml"]))
    run_experiment(experiment)

A run's folder holds the model and the processor (ready for `clipmg predict`), `experiment.json` (what was asked for
and what was found), `trainer_state.json` (the curves), `all_results.json` and checkpoints. With LoRA the model is the
merged one; `adapter/` holds the adapter alone and `base/` what it was trained on.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from clipmg_hf.arguments import ExperimentArguments
from clipmg_hf.data.clips import ClipDataset
from clipmg_hf.data.imigue import IMiGUE
from clipmg_hf.data.loading import SPLIT_SETTINGS, detect_dataset, load_named_splits
from clipmg_hf.data.ma52 import MA52
from clipmg_hf.data.prepared_folder import MANIFEST_NAME, read_manifest
from clipmg_hf.data.smg import SMG
from clipmg_hf.data.splits import DEFAULT_FRACTION
from clipmg_hf.feature_cache import cache_features
from clipmg_hf.files import write_file
from clipmg_hf.hub_runs import HUB_PREFIX, adopt_checkpoint, download_checkpoint
from clipmg_hf.model_building import add_lora, build_model
from clipmg_hf.modeling import CLIPMGConfig
from clipmg_hf.processing import CLIPMGProcessor
from clipmg_hf.run_checkpoints import find_damage, latest_checkpoint
from clipmg_hf.run_files import (
    ADAPTER_FOLDER,
    BASE_FOLDER,
    EXPERIMENT_FILE,
    PARTIAL_PREFIX,
    RESULTS_FILE,
    STATE_FILE,
)
from clipmg_hf.run_record import check_resumed, describe_run, describe_source
from clipmg_hf.training import CLIPMGTrainer, make_trainer


logger = logging.getLogger(__name__)

LAST = "last"
TRAINED_POSE_FACTOR = 0.1
# The first protocol of each is its official one.
_PROTOCOLS = {"imigue": IMiGUE.PROTOCOLS, "smg": SMG.PROTOCOLS, "ma52": MA52.PROTOCOLS}


@dataclass(frozen=True)
class ClipSplits:
    """Rows to train and evaluate on.

    Args:
        train, evaluation (`datasets.Dataset`): The rows.
        label_names (`list[str]`): Names of the classes.
        settings (`dict`): How they were split (`SPLIT_SETTINGS`).
        source (`dict`): Which data set they are of; see [`describe_source`].
    """

    train: datasets.Dataset
    evaluation: datasets.Dataset | None
    label_names: list[str]
    settings: dict[str, Any]
    source: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A run that is ready to start.

    Args:
        arguments, splits, trainer: What it was made of.
        record (`dict`): Contents of `experiment.json`.
        checkpoint (`str`, *optional*): Where it goes on from.
    """

    arguments: ExperimentArguments
    splits: ClipSplits
    trainer: CLIPMGTrainer
    record: dict[str, Any]
    checkpoint: str | None


def prepare_experiment(arguments: ExperimentArguments) -> Experiment:
    """Load and check everything; nothing is trained yet.

    Raises:
        DatasetFormatError: The data is not as documented.
        ValueError: Data, model and arguments do not fit; the message says what to change.
    """
    training = arguments.training
    check_processes(arguments)
    check_output_dir(arguments)
    set_seed(training.seed)
    with training.main_process_first(desc="load the data"):
        splits = load_splits(arguments)
    record = describe_run(arguments, splits, learning_rate_factors(arguments))
    checkpoint = find_resume_point(arguments, record)
    model = build_model(arguments.model, arguments.config, splits.label_names)
    check_modalities(model.config, splits)
    check_classes(splits)
    processor = build_processor(arguments, model.config)
    if arguments.model.lora_rank:
        base, resumes = Path(_output_dir(arguments), BASE_FOLDER), training.resume_from_checkpoint is not None
        model = add_lora(model, arguments.model, base, training.should_save, resumes)
    train_dataset, eval_dataset = build_datasets(arguments, splits, processor, model)
    patience = arguments.optimization.early_stopping_patience
    trainer = make_trainer(
        model,
        processor,
        train_dataset,
        eval_dataset,
        training,
        loss_settings=arguments.loss,
        learning_rate_factors=learning_rate_factors(arguments),
        sampling_power=arguments.optimization.balanced_sampling,
        freeze_batch_norm=arguments.model.freeze_batch_norm,
        callbacks=[EarlyStoppingCallback(patience)] if patience else None,
    )
    trainer.record = record
    return Experiment(arguments, splits, trainer, record, checkpoint)


def run_experiment(experiment: Experiment) -> dict[str, float]:
    """Train, evaluate, and write the results to the run's folder; returns the metrics.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
        PushError: The results are written, but could not be pushed.
    """
    trainer, training = experiment.trainer, experiment.arguments.training
    if training.should_save:
        folder = Path(_output_dir(experiment.arguments))
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / EXPERIMENT_FILE, json.dumps(experiment.record, indent=2) + "\n")
    result = trainer.train(resume_from_checkpoint=experiment.checkpoint)
    metrics = dict(result.metrics)
    if experiment.splits.evaluation is not None:
        metrics |= trainer.evaluate()
    save_final_model(trainer)
    if training.should_save:
        trainer.state.save_to_json(str(folder / STATE_FILE))
        # Last: a run with results is a finished one.
        write_file(folder / RESULTS_FILE, json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    if training.push_to_hub:
        # Nothing of the run is lost if the Hub refuses.
        trainer.push_to_hub()
    return metrics


def _output_dir(arguments: ExperimentArguments) -> str:
    return cast(str, arguments.training.output_dir)


def check_processes(arguments: ExperimentArguments) -> None:
    """Raise a ValueError where accelerate would silently run something else than it was asked for."""
    training = arguments.training
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched != training.world_size:
        raise ValueError(
            f"{launched} processes were launched, but training sees {training.world_size}: each would train a model "
            "of its own. On CPUs add --use_cpu."
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and training.device.type == "cpu":
        raise ValueError(
            "FSDP was asked for, but accelerate shards on accelerators alone and would run DDP on CPUs; expected the "
            "configuration accelerate_ddp_cpu.yaml there."
        )


def check_output_dir(arguments: ExperimentArguments) -> None:
    """Refuse to mix a new run, or one from the Hub, with the checkpoints of another one."""
    output, wanted = Path(_output_dir(arguments)), arguments.training.resume_from_checkpoint
    if (wanted is None or wanted.startswith(HUB_PREFIX)) and any(output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        raise ValueError(
            f"output_dir={output} holds checkpoints of an earlier run; expected --resume_from_checkpoint {LAST} to "
            "go on with it, or another folder."
        )


def find_resume_point(arguments: ExperimentArguments, record: Mapping[str, Any]) -> str | None:
    """Checkpoint to go on from; `"last"` is the newest complete one, and a new start where there is none.

    `"hub:owner/name"` or `"hub:owner/name@revision"` brings the newest one of a run that was pushed to `output_dir`.

    Raises:
        ValueError: It is of another run, or the repository has none that is complete.
        OSError: The repository cannot be read.
    """
    training = arguments.training
    wanted: str | None = training.resume_from_checkpoint
    if wanted is None:
        return None
    if wanted.startswith(HUB_PREFIX):
        with training.main_process_first(desc="download the checkpoint"):
            if training.local_process_index == 0:
                fetch_checkpoint(arguments, record)
            wanted = LAST
    if wanted == LAST:
        found = latest_checkpoint(_output_dir(arguments), training.save_only_model)
        if found is None and training.resume_from_checkpoint != LAST:
            raise ValueError(f"{training.resume_from_checkpoint} did not arrive in {_output_dir(arguments)}.")
        wanted = None if found is None else str(found)
    if wanted is not None:
        check_resumed(wanted, record)
    return wanted


def fetch_checkpoint(arguments: ExperimentArguments, record: Mapping[str, Any]) -> None:
    """Download a run's newest checkpoint, check it, and only then move it to `output_dir`.

    Raises:
        ValueError, OSError: See [`find_resume_point`].
    """
    training, output = arguments.training, Path(_output_dir(arguments))
    staging = output / f"{PARTIAL_PREFIX}hub"
    shutil.rmtree(staging, ignore_errors=True)
    place = cast(str, training.resume_from_checkpoint).removeprefix(HUB_PREFIX)
    try:
        checkpoint = download_checkpoint(place, staging, output, training.hub_token)
        problem = find_damage(checkpoint, training.save_only_model)
        if problem is not None:
            raise ValueError(f"{place}: {problem}; expected a complete checkpoint.")
        check_resumed(str(checkpoint), record)
        adopt_checkpoint(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_splits(arguments: ExperimentArguments) -> ClipSplits:
    """Load the data set and pick its splits.

    Raises:
        ValueError: It is another data set than asked for, or a split is missing.
    """
    data = arguments.data
    if data.data_dir is None:
        raise ValueError("data_dir is missing; expected --data_dir with the folder of the data set.")
    kind = detect_dataset(data.data_dir)
    settings: dict[str, Any] = {name: getattr(data, name) for name in SPLIT_SETTINGS}
    options = dict(settings)
    if kind == "prepared":
        # A seed or share that nobody gave is no request.
        asked = {name: value if name in arguments.given else None for name, value in settings.items()}
        settings, options = check_prepared(data.data_dir, data.dataset, asked), {}
    elif data.dataset not in ("auto", kind):
        raise ValueError(f"{data.data_dir} holds the data set {kind!r}; expected {data.dataset!r}, see --dataset.")
    wants_evaluation = arguments.training.eval_strategy != "no" or arguments.training.do_eval
    rows = load_named_splits(
        data.data_dir,
        [data.train_split, data.eval_split][: 1 + wants_evaluation],
        data.dataset_configuration,
        **options,
        cache_dir=data.data_cache_dir,
        num_proc=data.num_proc,
    )
    train = _first_clips(rows[data.train_split], data.max_train_clips)
    evaluation = _first_clips(rows[data.eval_split], data.max_eval_clips) if wants_evaluation else None
    source = describe_source(data.data_dir, train)
    return ClipSplits(train, evaluation, list(train.features["label"].names), settings, source)


def check_prepared(data_dir: str, dataset: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Compare what is asked for with what a prepared folder was made of: its splits are fixed.

    Args:
        data_dir (`str`): The folder.
        dataset (`str`): The data set that its clips must be of; `"auto"` or `"prepared"` take any.
        asked (`Mapping`): Values of `SPLIT_SETTINGS`; those that are `None` are taken as they are.

    Returns:
        `dict`: How it was split, by the same names.

    Raises:
        ValueError: The manifest tells another data set, or that it was split in another way.
    """
    source = read_manifest(data_dir)["source"]
    found = source.get("dataset")
    if dataset not in ("auto", "prepared", found):
        raise ValueError(
            f"{data_dir} holds prepared clips of {found!r}, says its {MANIFEST_NAME}; expected {dataset!r}, see "
            "--dataset."
        )
    recorded = {name: source.get("seed" if name == "split_seed" else name) for name in SPLIT_SETTINGS}
    recorded["background_share"] = recorded["background_share"] or 0.0
    if not recorded["protocol"] and found in _PROTOCOLS:
        recorded["protocol"] = _PROTOCOLS[found][0]
    if recorded["validation"] is None and recorded["protocol"] == "cross_subject":
        recorded["validation"] = DEFAULT_FRACTION
    for name, value in asked.items():
        if value is not None and value != recorded[name]:
            raise ValueError(
                f"{data_dir} was prepared with {name}={recorded[name]!r}, says its {MANIFEST_NAME}, and {value!r} is "
                f"asked for; expected data that was prepared so, or --{name} null to take it as it is."
            )
    return recorded


def _first_clips(rows: datasets.Dataset, limit: int | None) -> datasets.Dataset:
    return rows if limit is None else rows.select(range(min(limit, len(rows))))


def check_modalities(config: CLIPMGConfig, splits: ClipSplits) -> None:
    """Raise a ValueError where no clip has what the model is made for."""
    needs = {"video": (config.uses_vision, "pose"), "keypoints": (config.uses_pose, "visual")}
    for split in (splits.train, splits.evaluation):
        for column, (is_needed, alternative) in needs.items():
            if split is not None and is_needed and _is_empty(split, column):
                raise ValueError(
                    f"The data has no {column}, which a model with fusion={config.fusion!r} needs; expected "
                    f"--fusion {alternative}, or data with both."
                )


def _is_empty(rows: datasets.Dataset, column: str) -> bool:
    return column not in rows.column_names or rows.data.column(column).null_count == len(rows.data)


def check_classes(splits: ClipSplits) -> None:
    """Warn of classes without a training clip, by name. Sampling, weights and logit adjustment can do without."""
    counts = np.bincount(splits.train["label"], minlength=len(splits.label_names))
    empty = [name for name, count in zip(splits.label_names, counts, strict=True) if not count]
    if not empty:
        return
    names = ", ".join(map(repr, empty))
    logger.warning("%d of %d classes have no training clip: %s.", len(empty), len(counts), names)
    if splits.evaluation is not None:
        unseen = int(np.isin(splits.evaluation["label"], np.flatnonzero(counts == 0)).sum())
        if unseen:
            logger.warning("%d of %d clips to evaluate are of such classes.", unseen, len(splits.evaluation))


def build_datasets(
    arguments: ExperimentArguments, splits: ClipSplits, processor: CLIPMGProcessor, model: Any
) -> tuple[Dataset, Dataset | None]:
    """Data sets of inputs; a stream that the model does not read is not decoded."""
    data, config = arguments.data, model.config
    make = partial(ClipDataset, processor=processor, missing_keypoints=data.missing_keypoints)

    def read(rows: datasets.Dataset) -> datasets.Dataset:
        # Keypoints stay without a pose encoder: the crop goes by them.
        return rows if config.uses_vision or "video" not in rows.column_names else rows.remove_columns("video")

    train = make(read(splits.train), augment=data.augment, seed=arguments.training.seed)
    evaluation = None
    if splits.evaluation is not None:
        evaluation = make(read(splits.evaluation), cache_dir=data.clip_cache)
    if data.feature_cache is None:
        return train, evaluation
    keep = partial(
        cache_features,
        model.to(arguments.training.device),
        cache_dir=data.feature_cache,
        precision=data.feature_precision,
        batch_size=arguments.training.per_device_eval_batch_size,
        num_workers=arguments.training.dataloader_num_workers,
    )
    with arguments.training.main_process_first(desc="keep features"):
        return keep(clips=train, num_views=data.feature_views), None if evaluation is None else keep(clips=evaluation)


def learning_rate_factors(arguments: ExperimentArguments) -> dict[str, float]:
    """Learning rates of the parts: a pose encoder that was trained before moves slowly."""
    optimization, model = arguments.optimization, arguments.model
    factor = optimization.pose_encoder_factor
    if factor is None:
        was_trained = model.pose_checkpoint is not None or model.model_name_or_path is not None
        factor = TRAINED_POSE_FACTOR if was_trained and model.stage == "joint" else 1.0
    return {
        "pose_encoder_factor": factor,
        "vision_factor": optimization.vision_factor,
        "lora_factor": optimization.lora_factor,
        "head_factor": optimization.head_factor,
    }


def build_processor(arguments: ExperimentArguments, config: CLIPMGConfig) -> CLIPMGProcessor:
    """The processor that fits the model; a checkpoint's own, with what is given replaced."""
    source = arguments.model.model_name_or_path
    if source is None:
        return CLIPMGProcessor.from_model_config(config, **arguments.processor)
    return CLIPMGProcessor.from_pretrained(source, **arguments.processor)


def save_final_model(trainer: CLIPMGTrainer) -> None:
    """Save model and processor to the run's folder; with LoRA the merged model, and the adapter beside it."""
    model: Any = trainer.model
    if hasattr(model, "merge_and_unload"):
        trainer.save_model_files(str(Path(cast(str, trainer.args.output_dir), ADAPTER_FOLDER)))
        trainer.model = model.merge_and_unload()
    trainer.save_model_files()


__all__ = [
    "ClipSplits",
    "Experiment",
    "build_datasets",
    "build_processor",
    "check_classes",
    "check_modalities",
    "learning_rate_factors",
    "load_splits",
    "prepare_experiment",
    "run_experiment",
    "save_final_model",
]
