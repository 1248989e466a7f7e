"""Fine-tuning CLIP-MG: transformers' Trainer with the package's losses, sampling, learning rates and safe checkpoints.

    trainer = make_trainer(model, processor, rows["train"], rows["validation"], TrainingArguments("runs/first"))
    trainer.train()

What is random depends on seed, epoch and clip alone, so that a run that was killed continues from its last checkpoint
with the losses that it would have had. A checkpoint appears under its name once it is complete, never before.
"""

import dataclasses
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.losses import LOSS_FILE, ClassificationLoss, LossGradientCallback, LossSettings
from clipmg_hf.metrics import compute_metrics
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification
from clipmg_hf.optimization import make_optimizer
from clipmg_hf.processing import CLIPMGProcessor
from clipmg_hf.samplers import ClassBalancedSampler, SamplerEpochCallback


logger = logging.getLogger(__name__)

# Of folders that are being written. Uploads of the library leave out what starts with an underscore.
PARTIAL_PREFIX = "_partial-"
STATE_FILE = "trainer_state.json"
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "pytorch_model_fsdp*")
_CLIP_INDEX = "clip_index"
_FACTORS = ("pose_encoder_factor", "vision_factor", "lora_factor", "head_factor")


class NonFiniteLossError(FloatingPointError):
    """The loss of a batch is NaN or infinite; the message names the batch's clips."""


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


class CLIPMGTrainer(Trainer):
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
        self._staging: Path | None = None
        self._batch_indices: list[int] = []
        self.add_callback(SamplerEpochCallback())
        self.add_callback(ViewEpochCallback())
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
        indices = prepared.pop(_CLIP_INDEX, None)
        self._batch_indices = [] if indices is None else indices.tolist()
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
        """Compute the loss of a batch.

        Raises:
            NonFiniteLossError: In training, it is NaN or infinite.
        """
        if self.loss_module is not None:
            self.loss_module.train(model.training)
        if model.training and self.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eval()
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training and not torch.isfinite(loss).all():
            raise NonFiniteLossError(self._describe_failure(model, loss, outputs))
        return (loss, outputs) if return_outputs else loss

    def _describe_failure(self, model: nn.Module, loss: torch.Tensor, outputs: Any) -> str:
        clips = name_clips(self.train_dataset, self._batch_indices) or ["unknown: the data set is a stream"]
        logits = outputs["logits"].detach().float()
        bad = (~logits.isfinite().all(dim=-1)).nonzero().flatten().tolist()
        broken = [name for name, value in model.named_parameters() if not value.isfinite().all()]
        lines = [
            f"The loss is {loss.item()} at step {self.state.global_step} (process {self.args.process_index}).",
            f"Clips of the batch: {', '.join(clips)}.",
        ]
        if 0 < len(bad) < len(clips):
            lines.append(f"Scores are not finite for: {', '.join(clips[index] for index in bad)}.")
        if broken:
            lines.append(f"An earlier step broke weights: {', '.join(broken[:3])}; lower learning_rate.")
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
            ValueError: `True`, and there is no complete checkpoint.
            NonFiniteLossError: A loss is NaN or infinite.
        """
        if resume_from_checkpoint is True:
            checkpoint = latest_checkpoint(self._run_dir)
            if checkpoint is None:
                raise ValueError(f"{self._run_dir} holds no complete checkpoint to resume from.")
            resume_from_checkpoint = str(checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    @property
    def _run_dir(self) -> str:
        return cast(str, self.args.output_dir)

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
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save model and processor; files of the same names are replaced once all new ones are written."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self._run_dir)
        staging = folder / f"{PARTIAL_PREFIX}model"
        self._start_folder(staging)
        try:
            super().save_model(str(staging), _internal_call=True)
        except Exception as error:
            self._explain_failed_save(error, staging, folder)
            raise
        self.accelerator.wait_for_everyone()
        if self.args.should_save and staging.is_dir():
            for path in sorted(staging.iterdir()):
                path.replace(folder / path.name)
            shutil.rmtree(staging)
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _start_folder(self, staging: Path) -> None:
        """Remove what a killed process left, in one process, before any other writes there."""
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _explain_failed_save(self, error: Exception, staging: Path, target: Path) -> None:
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        free = shutil.disk_usage(self._run_dir).free
        complete = latest_checkpoint(self._run_dir)
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
        args (`TrainingArguments`): Its `remove_unused_columns` and `label_names` are set to what the model needs.
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


def latest_checkpoint(folder: str | PathLike) -> Path | None:
    """Newest complete checkpoint of a run's folder; incomplete ones are named in a warning and left alone."""
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit() and path.is_dir()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        problem = find_damage(path)
        if problem is None:
            return path
        logger.warning("%s is ignored: %s.", path, problem)
    return None


def end_processes() -> None:
    """Let the processes of a launch end together: gloo aborts one that exits while another still listens to it."""
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()


def find_damage(checkpoint: Path) -> str | None:
    """What is missing or truncated in a checkpoint; `None` if it is complete."""
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{STATE_FILE} cannot be read ({error})"
    weights = [path for pattern in _WEIGHT_FILES for path in checkpoint.glob(pattern) if path.name != LOSS_FILE]
    if not weights:
        return "it has no weights"
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (OSError, SafetensorError) as error:
                return f"{path.name} cannot be read ({error})"
    return None


__all__ = [
    "CLIPMGTrainer",
    "NonFiniteLossError",
    "NumberedClips",
    "ViewEpochCallback",
    "end_processes",
    "find_damage",
    "latest_checkpoint",
    "make_trainer",
    "name_clips",
    "read_labels",
]
