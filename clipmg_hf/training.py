"""Fine-tuning CLIP-MG: transformers' Trainer with the package's losses, sampling, learning rates and safe checkpoints.

    trainer = make_trainer(model, processor, rows["train"], rows["validation"], TrainingArguments("runs/first"))
    trainer.train()

What is random depends on seed, epoch and clip alone, so that a run that was killed continues from its last checkpoint
with the losses that it would have had. A checkpoint appears under its name once it is complete, never before.
"""

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.files import write_file
from clipmg_hf.hub_runs import HubTrainer
from clipmg_hf.losses import ClassificationLoss, LossGradientCallback, LossSettings
from clipmg_hf.metrics import compute_metrics
from clipmg_hf.model_card import make_model_card
from clipmg_hf.model_card_facts import read_card_facts, read_results
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification
from clipmg_hf.modeling.checkpoint_files_clipmg import CARD_FILE, CONFIG_FILE
from clipmg_hf.optimization import make_optimizer
from clipmg_hf.processing import CLIPMGProcessor
from clipmg_hf.run_checkpoints import find_damage, latest_checkpoint
from clipmg_hf.run_files import PARTIAL_PREFIX, STATE_FILE
from clipmg_hf.run_record import describe_rows_source, describe_training
from clipmg_hf.samplers import ClassBalancedSampler, SamplerEpochCallback


logger = logging.getLogger(__name__)

_CLIP_INDEX = "clip_index"
_FACTORS = ("pose_encoder_factor", "vision_factor", "lora_factor", "head_factor")


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch is NaN or infinite; the message names the batch's clips."""


@dataclasses.dataclass(frozen=True)
class BatchRecord:
    """What is kept of a training batch of B clips until its loss is looked at.

    Args:
        step (`int`): Steps of the optimizer before it.
        loss (`torch.Tensor` of shape `()`): Its loss, on the device.
        finite_scores (`torch.Tensor` of shape `(B,)`): Whether all scores of a clip are finite, on the device.
        indices (`torch.Tensor` of shape `(B,)`, *optional*): Numbers of the clips; `None` for a stream.
    """

    step: int
    loss: torch.Tensor
    finite_scores: torch.Tensor
    indices: torch.Tensor | None


class NumberedClips(Dataset):
    """A data set whose items also tell their index, so that a batch can be traced back to its clips."""

    def __init__(self, items: Any):
        self.items = items

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to data sets that draw views."""
        if hasattr(self.items, "set_epoch"):
            self.items.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        # A number: unlike a string it passes every way that tensors take between processes and devices.
        return {**self.items[index], _CLIP_INDEX: torch.tensor(index)}


class ViewEpochCallback(TrainerCallback):
    """Tell the training data set which epoch begins, whatever its loader is wrapped in."""

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the epoch of a data set with a `set_epoch`."""
        dataset: Any = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


class LossCheckCallback(TrainerCallback):
    """Look at the losses where the library waits for the device anyway: see [`CLIPMGTrainer.check_losses`].

    Args:
        trainer ([`CLIPMGTrainer`]): Whose losses they are.
    """

    def __init__(self, trainer: "CLIPMGTrainer"):
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before anything is logged, evaluated or saved."""
        if control.should_log or control.should_evaluate or control.should_save:
            self.trainer.check_losses()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Also the last event of a training before its results."""
        self.trainer.check_losses()


class CLIPMGTrainer(HubTrainer):
    """Trainer of [`CLIPMGForMicroGestureClassification`], in PEFT's wrapper or not; see [`make_trainer`].

    Args:
        args, kwargs: As for `transformers.Trainer`.
        loss_settings ([`LossSettings`], *optional*): What the training loss adds to cross-entropy; `None`: the
            model's own loss. Evaluation reports plain cross-entropy either way.
        learning_rate_factors (`Mapping[str, float]`, *optional*): See [`parameter_groups`]; `None`: the groups of
            Trainer, one learning rate for all parts.
        sampling_power (`float`, defaults to 0.0): See [`ClassBalancedSampler`]; 0 shuffles as Trainer does.
        freeze_batch_norm (`bool`, defaults to `False`): The pose encoder's batch norms use the statistics that they
            have, in training as well. Several processes then give the losses of one; without it each normalises by
            its own part of the batch, and the running statistics are those of the first process.

    Raises:
        ValueError: The data set tells no labels although sampling or loss need them.
    """

    def __init__(
        self,
        *args: Any,
        loss_settings: LossSettings | None = None,
        learning_rate_factors: Mapping[str, float] | None = None,
        sampling_power: float = 0.0,
        freeze_batch_norm: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.loss_settings = loss_settings
        self.learning_rate_factors = learning_rate_factors
        self.sampling_power = sampling_power
        self.freeze_batch_norm = freeze_batch_norm
        self.record: dict[str, Any] | None = None
        self._step_of_weights: int | None = None
        self._batch_indices: torch.Tensor | None = None
        self._unchecked: list[BatchRecord] = []
        self.add_callback(SamplerEpochCallback())
        self.add_callback(ViewEpochCallback())
        self.add_callback(LossCheckCallback(self))
        self._make_loss(cast(Any, self.model).config)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> DataLoader:
        if not isinstance(dataset, IterableDataset | datasets.IterableDataset):
            dataset = NumberedClips(dataset)
        loader = super()._get_dataloader(dataset, *args, **kwargs)
        if self.args.dataloader_num_workers:
            # Starting workers draws a seed. Workers that stay alive are started once, but once more where a run
            # resumes: drawn from torch's own generator, that would change every dropout from the next epoch on.
            generator = torch.Generator().manual_seed(self.args.seed)
            for part in (loader, getattr(loader, "base_dataloader", loader)):
                part.generator = generator
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if not self.sampling_power:
            return super()._get_train_sampler(train_dataset)
        return self._make_sampler(cast(Any, self.model).config.num_labels)

    def _make_sampler(self, num_labels: int) -> ClassBalancedSampler:
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return ClassBalancedSampler(read_labels(self.train_dataset), num_labels, self.sampling_power, seed)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared = super()._prepare_inputs(inputs)
        self._batch_indices = prepared.pop(_CLIP_INDEX, None)
        return prepared

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make the model of a search's next trial, and a loss that has not been trained by the last one."""
        model: Any = super().call_model_init(trial)
        # The library makes a first model before there is anything to train it with.
        if "loss_settings" in vars(self):
            self._make_loss(model.config)
        return model

    def _make_loss(self, config: Any) -> None:
        """Build the loss from the clips of each class, as the sampler draws them."""
        if self.loss_settings is None:
            return
        num_labels = config.num_labels
        if self.sampling_power:
            counts = self._make_sampler(num_labels).class_counts
        else:
            counts = np.bincount(read_labels(self.train_dataset), minlength=num_labels).tolist()
        names = [config.id2label[index] for index in range(num_labels)]
        loss = ClassificationLoss(self.loss_settings, counts, names, config.hidden_size).to(self.args.device)
        self.remove_callback(LossGradientCallback)
        self.add_callback(LossGradientCallback(loss))
        self.compute_loss_func = loss

    @property
    def loss_module(self) -> ClassificationLoss | None:
        """The loss, if it is not the model's own."""
        return cast("ClassificationLoss | None", self.compute_loss_func)

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Compute the loss of a batch; in training it is remembered for [`CLIPMGTrainer.check_losses`]."""
        if self.loss_module is not None:
            self.loss_module.train(model.training)
        if model.training and self.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eval()
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:
            finite_scores = outputs["logits"].detach().isfinite().all(dim=-1)
            record = BatchRecord(self.state.global_step, loss.detach().mean(), finite_scores, self._batch_indices)
            self._unchecked.append(record)
        return (loss, outputs) if return_outputs else loss

    def check_losses(self) -> None:
        """Look at the losses of all batches since the last call, and stop at the first that is not finite.

        To look at a loss is to wait for the device. That happens where the library waits as well, before it logs,
        evaluates or saves, and not in every step: a training that diverges goes on for up to `logging_steps` steps,
        which are lost with it, and neither a checkpoint nor a result is made of the weights that they spoil.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
        """
        records, self._unchecked = self._unchecked, []
        if not records:
            return
        finite = torch.stack([record.loss for record in records]).isfinite().tolist()
        if not all(finite):
            raise NonFiniteLossError(self._describe_failure(records[finite.index(False)]))

    def _describe_failure(self, record: BatchRecord) -> str:
        indices = [] if record.indices is None else record.indices.tolist()
        clips = name_clips(self.train_dataset, indices) or ["unknown: the data set is a stream"]
        is_finite = record.finite_scores.tolist()
        lines = [
            f"The loss is {record.loss.item()} at step {record.step} (process {self.args.process_index}).",
            f"Clips of the batch: {', '.join(clips)}.",
        ]
        if not any(is_finite) and len(is_finite) > 1:
            lines.append("No clip has finite scores: an earlier step broke the weights; lower learning_rate.")
        elif not all(is_finite) and indices:
            bad = [clip for clip, finite in zip(clips, is_finite, strict=True) if not finite]
            lines.append(f"Scores are not finite for: {', '.join(bad)}.")
        return " ".join(lines)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer; Trainer's own, unless there are factors or a projection to train with the loss."""
        factors = self.learning_rate_factors
        has_projection = self.loss_module is not None and self.loss_module.projection is not None
        if self.optimizer is not None or not (factors or has_projection):
            return super().create_optimizer(model)
        target = cast(nn.Module, self.model if model is None else model)
        factors = dict.fromkeys(_FACTORS, 1.0) if factors is None else factors
        self.optimizer = make_optimizer(target, self.args, loss=self.loss_module, **factors)
        return self.optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the newest complete checkpoint.

        Raises:
            ValueError: `True`, and there is no complete checkpoint; or the one that is given is not complete.
            NonFiniteLossError: A loss is NaN or infinite.
        """
        if resume_from_checkpoint is True:
            checkpoint = latest_checkpoint(self._run_dir, self.args.save_only_model)
            if checkpoint is None:
                raise ValueError(f"{self._run_dir} holds no complete checkpoint to resume from.")
            resume_from_checkpoint = str(checkpoint)
        elif resume_from_checkpoint:
            problem = find_damage(Path(resume_from_checkpoint), self.args.save_only_model)
            if problem is not None:
                raise ValueError(f"{resume_from_checkpoint}: {problem}; expected a complete checkpoint.")
        self._unchecked = []
        self._step_of_weights = None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staging = run_dir / f"{PARTIAL_PREFIX}{name}"
        self._start_folder(staging)
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save and self.loss_module is not None:
                self.loss_module.save_projection(staging / name)
            if self.args.should_save and (staging / name / CONFIG_FILE).is_file():
                self._write_card(staging / name)
            if self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = str(run_dir / name)
                if self.args.should_save:
                    self.state.save_to_json(str(staging / name / STATE_FILE))
        except Exception as error:
            self._explain_failed_save(error, staging, run_dir / name)
            raise
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            shutil.rmtree(run_dir / name, ignore_errors=True)
            (staging / name).replace(run_dir / name)
            shutil.rmtree(staging)
            rotate_checkpoints(str(run_dir), self.args.save_total_limit, self.state.best_model_checkpoint)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run_dir / name))
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model, processor and card; files of the same names are replaced once all new ones are written.

        With `push_to_hub` the run's model is pushed, too; see [`CLIPMGTrainer.push_to_hub`].
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        self.save_model_files(output_dir)
        if self.args.push_to_hub and output_dir in (None, self._run_dir):
            self._push_run("Model save")

    def save_model_files(self, output_dir: str | None = None) -> None:
        """Save as [`CLIPMGTrainer.save_model`] does, without a push."""
        folder = Path(output_dir or self._run_dir)
        staging = folder / f"{PARTIAL_PREFIX}model"
        self._start_folder(staging)
        try:
            super().save_model(str(staging), _internal_call=True)
            if self.args.should_save and (staging / CONFIG_FILE).is_file():
                self._write_card(staging)
        except Exception as error:
            self._explain_failed_save(error, staging, folder)
            raise
        self.accelerator.wait_for_everyone()
        if self.args.should_save and staging.is_dir():
            for path in sorted(staging.iterdir()):
                path.replace(folder / path.name)
            shutil.rmtree(staging)
        self.accelerator.wait_for_everyone()

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._step_of_weights = self.state.best_global_step

    def describe_run(self) -> dict[str, Any]:
        """The run's record: `record`, else what the trainer knows by itself."""
        if self.record is not None:
            return self.record
        clips, evaluated = (_rows_of(dataset) for dataset in (self.train_dataset, self.eval_dataset))
        if clips is None:
            return {}
        config = cast(Any, self.model).config
        names = [config.id2label[index] for index in range(config.num_labels)]
        return {
            "source": describe_rows_source(clips),
            "learning_rate_factors": self.learning_rate_factors,
            **describe_training(self.args, clips, evaluated, names),
        }

    def create_model_card(  # type: ignore[override]
        self,
        model_name: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
    ) -> None:
        """Write the card of the model in the run's folder, as `clipmg_hf.model_card` makes it.

        Args:
            model_name (`str`, *optional*): Its title.
            license (`str`, *optional*): Of the weights, by the Hub's identifier.
            tags (`str` or `list[str]`, *optional*): Added to those of every CLIP-MG.
            dataset_tags (`str` or `list[str]`, *optional*): Data sets of the Hub that it was trained on.
        """
        if self.is_world_process_zero():
            tags, datasets_ = ([entry] if isinstance(entry, str) else entry or [] for entry in (tags, dataset_tags))
            options = {"model_name": model_name, "license": license, "tags": tags, "datasets": datasets_}
            self._write_card(Path(self._run_dir), **options)

    def _write_card(self, folder: Path, **options: Any) -> None:
        state = dataclasses.asdict(self.state)
        step = self.state.global_step if self._step_of_weights is None else self._step_of_weights
        results = read_results(state, step)
        facts = read_card_facts(folder, record=self.describe_run(), state=state, results=results)
        write_file(folder / CARD_FILE, str(make_model_card(facts, repo_id=self.hub_model_id, **options)))

    def _start_folder(self, staging: Path) -> None:
        """Remove what a killed process left, in one process, before any other writes there."""
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _explain_failed_save(self, error: Exception, staging: Path, target: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        free = shutil.disk_usage(self._run_dir).free
        complete = latest_checkpoint(self._run_dir, self.args.save_only_model)
        error.add_note(
            f"{target} could not be saved ({free:,} bytes are free); nothing of it is left. "
            f"The newest complete checkpoint is {complete or 'none'}."
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.loss_module is not None:
            self.loss_module.load_projection(resume_from_checkpoint)


def make_trainer(
    model: CLIPMGForMicroGestureClassification | None,
    processor: CLIPMGProcessor,
    train_dataset: datasets.Dataset | Dataset,
    eval_dataset: datasets.Dataset | Dataset | None,
    args: TrainingArguments,
    **options: Any,
) -> CLIPMGTrainer:
    """Wire model, processor and data to a Trainer.

    Args:
        model, processor: Must agree on frames and keypoints; see [`CLIPMGProcessor.from_model_config`]. The model is
            `None` with the option `model_init` (hyper-parameter search).
        train_dataset, eval_dataset (`datasets.Dataset` or `torch.utils.data.Dataset`): Rows as `load_clips` gives
            them, whose training views are random and depend on `args.seed`, epoch and clip alone; or data sets whose
            items are inputs of the model with `labels`.
        args (`TrainingArguments`): Its `remove_unused_columns` and `label_names` are set to what the model needs, and
            `logging_nan_inf_filter` is off: it would wait for the device in every step, and hide what stops the run.
        options: Those of [`CLIPMGTrainer`], and `callbacks` or `model_init` of `transformers.Trainer`.

    Returns:
        [`CLIPMGTrainer`] that reports top-1, top-5, mean class accuracy and F1, and saves the processor into every
        checkpoint.
    """
    # With its callbacks' states, a resumed run stops early where the whole one would.
    args = dataclasses.replace(
        args,
        remove_unused_columns=False,
        label_names=["labels"],
        logging_nan_inf_filter=False,
        restore_callback_states_from_checkpoint=True,
    )
    if isinstance(train_dataset, datasets.Dataset):
        train_dataset = ClipDataset(train_dataset, processor, augment=True, seed=args.seed)
    if isinstance(eval_dataset, datasets.Dataset):
        eval_dataset = ClipDataset(eval_dataset, processor)
    return CLIPMGTrainer(
        model,
        args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        data_collator=collate_clips,
        compute_metrics=compute_metrics,
        processing_class=processor,
        **options,
    )


def _rows_of(dataset: Any) -> datasets.Dataset | None:
    """The rows behind a data set of inputs, if there are some."""
    clips = getattr(dataset, "clips", dataset)
    return clips.rows if isinstance(clips, ClipDataset) else None


def read_labels(dataset: Any) -> np.ndarray:
    """Labels int64 (N,) of a [`ClipDataset`] or of a data set made of one, which has it as `clips`.

    Raises:
        ValueError: It is another data set.
    """
    clips = getattr(dataset, "clips", dataset)
    if not isinstance(clips, ClipDataset):
        raise ValueError(f"{type(dataset).__name__} tells no labels; class weights and sampling need a ClipDataset.")
    return clips.rows.with_format("arrow")[:]["label"].to_numpy()


def name_clips(dataset: Any, indices: Sequence[int]) -> list[str]:
    """Ids of clips; their numbers where the data set has no ids."""
    clips = getattr(dataset, "clips", dataset)
    if not isinstance(clips, ClipDataset):
        return [f"number {index}" for index in indices]
    ids = clips.rows.with_format("arrow").select_columns("clip_id")[:]["clip_id"]
    return [ids[index].as_py() for index in indices]


def end_processes() -> None:
    """Let the processes of a launch end together: gloo aborts one that exits while another still listens to it."""
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()


__all__ = [
    "BatchRecord",
    "CLIPMGTrainer",
    "LossCheckCallback",
    "NonFiniteLossError",
    "NumberedClips",
    "ViewEpochCallback",
    "end_processes",
    "make_trainer",
    "name_clips",
    "read_labels",
]
