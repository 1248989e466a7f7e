"""Training losses for few and unevenly many clips per class: weighting, focal, logit adjustment, label embeddings.

Symbols: C classes, n_c training clips of class c, B clips of a batch, D the width of the fused embedding, D_e that of
a label embedding. Every option is ours (the paper says cross-entropy) and off by default; they compose:

    loss of a clip of class y = w_y (1 - p_y)^gamma (- sum_c q_c log p_c) + lambda d(W f, e_y)
    p = softmax(logits + tau log prior),  q = (1 - epsilon) one-hot(y) + epsilon / C

with class weights w, focal loss (Lin et al. 2017), logit adjustment (Menon et al. 2021), label smoothing and an
auxiliary loss that pulls a projection of the fused embedding f to the embedding e_y of the class's name.
"""

import hashlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.files import complete_file
from clipmg_hf.run_files import LOSS_FILE


logger = logging.getLogger(__name__)

ClassWeighting = Literal["none", "inverse_sqrt", "effective_number"]
EmbeddingDistance = Literal["cosine", "mse"]
IGNORED_LABEL = -100
# Beside the model's weights in a checkpoint; a loaded model does not need it.
# They join the words that tell classes apart and would make all such classes alike.
_JOINING_WORDS = frozenset({"a", "an", "and", "of", "or", "the", "to", "with"})


@dataclass(frozen=True)
class LossSettings:
    """What is added to plain cross-entropy; by default nothing.

    Args:
        class_weighting (`str`): `"none"`, `"inverse_sqrt"` or `"effective_number"`; see [`class_weights`].
        effective_number_beta (`float`): In [0, 1); 0 weighs all classes alike, towards 1 by inverse frequency.
        focal_gamma (`float`): At least 0; by how much clips that are classified well count less.
        logit_adjustment (`float`): tau, at least 0; 1 aims at the mean class accuracy instead of top-1. Balanced
            sampling or class weights on top correct for the frequencies a second time.
        label_smoothing (`float`): epsilon, in [0, 1).
        label_embedding_weight (`float`): lambda, at least 0; 0 builds no projection.
        label_embedding_distance (`str`): `"cosine"` or `"mse"`; see [`embedding_distances`].
        label_embedding_file (`str`, *optional*): A .safetensors or .npy file; see [`read_label_embeddings`]. By
            default the embeddings of [`hash_label_names`], which need no other model.

    Raises:
        ValueError: A value is out of range.
    """

    class_weighting: ClassWeighting = "none"
    effective_number_beta: float = 0.999
    focal_gamma: float = 0.0
    logit_adjustment: float = 0.0
    label_smoothing: float = 0.0
    label_embedding_weight: float = 0.0
    label_embedding_distance: EmbeddingDistance = "cosine"
    label_embedding_file: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (
            ("class_weighting", get_args(ClassWeighting)),
            ("label_embedding_distance", get_args(EmbeddingDistance)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}.")
        for name in ("effective_number_beta", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number in [0, 1).")
        for name in ("focal_gamma", "logit_adjustment", "label_embedding_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number of at least 0.")


def class_weights(
    counts: Sequence[int], scheme: Literal["inverse_sqrt", "effective_number"] = "inverse_sqrt", beta: float = 0.999
) -> torch.Tensor:
    """Weigh rare classes more, so that the mean weight over the training *clips* is 1: sum(n w) / sum(n) = 1.

    The loss keeps its scale, and with it the learning rate keeps its meaning. Classes without a clip get 0, and a
    warning names them.

    Args:
        counts (`Sequence[int]` of length `C`): Training clips of each class, n_c.
        scheme (`str`): `"inverse_sqrt"`: w_c ~ n_c^(-1/2). `"effective_number"` (Cui et al. 2019):
            w_c ~ (1 - beta) / (1 - beta^n_c).
        beta (`float`): Of the effective number, in [0, 1).

    Returns:
        `torch.Tensor` of shape `(C,)`, float32.

    Raises:
        ValueError: Another scheme, or the counts are negative or all 0.
    """
    clips = _check_counts(counts)
    present = clips > 0
    if not present.all():
        logger.warning("Classes without a training clip, of weight 0: %s.", np.flatnonzero(~present).tolist())
    weights = np.zeros(len(clips))
    if scheme == "inverse_sqrt":
        weights[present] = clips[present] ** -0.5
    elif scheme == "effective_number":
        weights[present] = (1 - beta) / (1 - beta ** clips[present])
    else:
        raise ValueError(f"scheme is {scheme!r}; expected 'inverse_sqrt' or 'effective_number'.")
    return torch.tensor(weights * clips.sum() / (weights * clips).sum(), dtype=torch.float32)


def log_prior(counts: Sequence[int]) -> torch.Tensor:
    """Logarithm of the classes' shares of the training clips, float32 (C,); a class without clips counts as one clip.

    Its true logarithm is minus infinity, which label smoothing would carry into the loss.
    """
    clips = np.maximum(_check_counts(counts), 1)
    return torch.tensor(np.log(clips / clips.sum()), dtype=torch.float32)


def _check_counts(counts: Sequence[int]) -> np.ndarray:
    clips = np.asarray(counts, dtype=np.float64)
    if clips.ndim != 1 or not len(clips) or clips.min() < 0 or clips.sum() == 0:
        raise ValueError(f"counts are {list(counts)}; expected the clips of each class, none negative, not all 0.")
    return clips


def classification_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    adjustment: torch.Tensor | None = None,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Loss of each clip: w_y (1 - p_y)^gamma (- sum_c q_c log p_c), see the module's formula.

    Smoothing and focal loss together, as here, are ours: neither paper combines them. The weight is the true class's
    for the whole smoothed sum, where `torch.nn.functional.cross_entropy` weighs each class of that sum.

    Args:
        logits (`torch.Tensor` of shape `(B, C)`): Scores.
        labels (`torch.Tensor` of shape `(B,)`): Classes in [0, C - 1], or `IGNORED_LABEL`.
        weights, adjustment (`torch.Tensor` of shape `(C,)`, *optional*): w, and tau log prior, added to the logits.
        focal_gamma, label_smoothing (`float`): gamma and epsilon.

    Returns:
        `torch.Tensor` of shape `(B,)`: 0 where the label is `IGNORED_LABEL`.
    """
    valid = labels != IGNORED_LABEL
    labels = torch.where(valid, labels, 0)
    if adjustment is not None:
        logits = logits + adjustment
    log_probabilities = logits.log_softmax(dim=-1)
    true = log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    losses = -(1 - label_smoothing) * true - label_smoothing * log_probabilities.mean(dim=1)
    if focal_gamma:
        # 1 - p_y without cancellation; at exactly 0 the power has no finite derivative for gamma < 1.
        remainder = (-torch.expm1(true)).clamp(min=torch.finfo(true.dtype).tiny)
        losses = remainder**focal_gamma * losses
    if weights is not None:
        losses = weights[labels] * losses
    return torch.where(valid, losses, 0.0)


def embedding_distances(projected: torch.Tensor, targets: torch.Tensor, distance: EmbeddingDistance) -> torch.Tensor:
    """Distance of each projected clip to its class (both forms: ours).

    Args:
        projected, targets (`torch.Tensor` of shape `(B, D_e)`).
        distance (`str`): `"cosine"`: 1 - cosine, in [0, 2]. `"mse"`: mean squared difference of the components.

    Returns:
        `torch.Tensor` of shape `(B,)`.
    """
    if distance == "cosine":
        return 1 - nn.functional.cosine_similarity(projected, targets, dim=-1)
    return (projected - targets).square().mean(dim=-1)


def hash_label_names(names: Sequence[str], size: int = 256) -> torch.Tensor:
    """Embed label names as hashed bags of words (ours): names that share words are near each other.

    Each different word, in lower case and without the joining ones ("or", "and", "the", ...), is a vector of -1 and 1
    made of the bits of its SHAKE-256 hash, the same on every machine; a name is the sum over its words.

    Args:
        names (`Sequence[str]` of length `C`): Names of the classes, e.g. `"Touching or scratching neck"`.
        size (`int`, defaults to 256): Width D_e, a multiple of 8.

    Returns:
        `torch.Tensor` of shape `(C, D_e)`, float32.

    Raises:
        ValueError: A name has no word; the message quotes it.
    """
    rows = []
    for index, name in enumerate(names):
        words = sorted(set(re.findall(r"\w+", name.lower())) - _JOINING_WORDS)
        if not words:
            raise ValueError(f"Label {index} is {name!r}; expected a name of at least one word.")
        bits = [np.unpackbits(np.frombuffer(hashlib.shake_256(w.encode()).digest(size // 8), np.uint8)) for w in words]
        rows.append(np.sum(np.array(bits) * 2.0 - 1.0, axis=0))
    return torch.tensor(np.stack(rows), dtype=torch.float32)


def read_label_embeddings(path: str | PathLike, num_labels: int) -> torch.Tensor:
    """Read label embeddings, e.g. those of a text encoder.

    Args:
        path (`str` or `PathLike`): A .safetensors file of one tensor, or a .npy file; row i belongs to class i.
        num_labels (`int`): Expected rows C.

    Returns:
        `torch.Tensor` of shape `(C, D_e)`, float32.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetFormatError: It cannot be read, has another shape, or holds a row that is 0 or not finite.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            if len(tensors) != 1:
                raise DatasetFormatError(f"{path} holds the tensors {sorted(tensors)}; expected exactly one.")
            (embeddings,) = tensors.values()
        elif path.suffix == ".npy":
            embeddings = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        else:
            raise DatasetFormatError(f"{path}: label embeddings are read from .safetensors or .npy files.")
    except (ValueError, EOFError, TypeError, SafetensorError) as error:
        if isinstance(error, DatasetFormatError):
            raise
        raise DatasetFormatError(f"{path} cannot be read as label embeddings: {error}") from error
    embeddings = embeddings.float()
    if embeddings.ndim != 2 or len(embeddings) != num_labels:
        raise DatasetFormatError(
            f"{path} holds an array {tuple(embeddings.shape)}; expected (num_labels={num_labels}, width)."
        )
    usable = embeddings.isfinite().all(dim=1) & embeddings.any(dim=1)
    if not usable.all():
        raise DatasetFormatError(f"{path}: rows {(~usable).nonzero()[:, 0].tolist()} are 0 or not finite.")
    return embeddings


def _average_over_processes(gradient: torch.Tensor) -> torch.Tensor:
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return gradient
    gradient = gradient.clone()
    distributed.all_reduce(gradient)
    return gradient / distributed.get_world_size()


class ClassificationLoss(nn.Module):
    """The loss, to be called as Trainer calls its `compute_loss_func`. In eval mode it is plain cross-entropy.

    With `num_items_in_batch` the clips' losses are summed and divided by it, as the library's own loss does, so that
    accumulated batches add up to the loss of the large batch. Without it they are divided by the labelled clips of the
    batch, never by the sum of their weights.

    The projection W (D_e, D) of the label-embedding loss is a parameter of this module and not of the model: the
    model's saved weights do not know it. It starts the same in every process, and its gradient is averaged over the
    processes here, as nothing wraps this module for distributed training; not for sharded training (FSDP, DeepSpeed).
    Trainer clears and clips the gradients of the model only: add [`LossGradientCallback`], which clears this one.

    Args:
        settings ([`LossSettings`]): What to add to cross-entropy.
        class_counts (`Sequence[int]` of length `C`): Training clips of each class, as the sampler draws them.
        label_names (`Sequence[str]` of length `C`): Names of the classes, for the hashed label embeddings.
        hidden_size (`int`): Width D of the fused embedding, `config.hidden_size`.

    Raises:
        ValueError: The lengths differ, or the counts, names or embeddings are unusable.
    """

    weights: torch.Tensor | None
    adjustment: torch.Tensor | None
    targets: torch.Tensor | None
    projection: nn.Parameter | None

    def __init__(
        self, settings: LossSettings, class_counts: Sequence[int], label_names: Sequence[str], hidden_size: int
    ):
        super().__init__()
        if len(class_counts) != len(label_names):
            raise ValueError(f"Got counts of {len(class_counts)} classes and names of {len(label_names)}.")
        self.settings = settings
        weights, adjustment, targets, projection = None, None, None, None
        if settings.class_weighting != "none":
            weights = class_weights(class_counts, settings.class_weighting, settings.effective_number_beta)
        if settings.logit_adjustment:
            adjustment = settings.logit_adjustment * log_prior(class_counts)
        if settings.label_embedding_weight:
            if settings.label_embedding_file is None:
                targets = hash_label_names(label_names)
            else:
                targets = read_label_embeddings(settings.label_embedding_file, len(label_names))
            # Components of root mean square 1: both distances start near 1, whatever the scale and width of the file.
            targets = nn.functional.normalize(targets, dim=-1) * targets.shape[1] ** 0.5
            # A generator of its own: the same start in every process, and the model's dropout draws as without it.
            start = torch.randn(targets.shape[1], hidden_size, generator=torch.Generator().manual_seed(0))
            projection = nn.Parameter(start / hidden_size**0.5)
            projection.register_hook(_average_over_processes)
        # Made again from the settings, so never saved.
        for name, values in (("weights", weights), ("adjustment", adjustment), ("targets", targets)):
            self.register_buffer(name, values, persistent=False)
        self.register_parameter("projection", projection)

    def forward(
        self,
        outputs: Mapping[str, Any],
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss, float32 ().

        Args:
            outputs ([`CLIPMGClassifierOutput`]): `logits` (B, C), and `fused_embedding` (B, D) for the label-embedding
                loss in training mode, so the model must be called with `output_explanation=True` there.
            labels (`torch.Tensor` of shape `(B,)`): Classes in [0, C - 1], or `IGNORED_LABEL`.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*): Labelled clips of all accumulated batches.

        Raises:
            ValueError: `labels` has another shape, or the fused embedding is missing.
        """
        logits = outputs["logits"]
        # At least float32, whatever autocast made of them.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = labels.to(logits.device)
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"Got labels {tuple(labels.shape)} for logits {tuple(logits.shape)}; expected one class.")
        if self.training:
            settings = self.settings
            losses = classification_losses(
                logits, labels, self.weights, self.adjustment, settings.focal_gamma, settings.label_smoothing
            )
            if self.projection is not None:
                losses = losses + settings.label_embedding_weight * self._distances(outputs, labels)
        else:
            losses = classification_losses(logits, labels)
        num_items: torch.Tensor | int
        if num_items_in_batch is None:
            num_items = (labels != IGNORED_LABEL).sum()
        elif torch.is_tensor(num_items_in_batch):
            num_items = num_items_in_batch.to(losses.device)
        else:
            num_items = num_items_in_batch
        return losses.sum() / num_items

    def _distances(self, outputs: Mapping[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Distances (B,) of the projected fused embeddings to their classes; 0 without a label."""
        assert self.projection is not None and self.targets is not None
        embedding = outputs.get("fused_embedding")
        if embedding is None:
            raise ValueError("The label-embedding loss needs fused_embedding: call with output_explanation=True.")
        projected = nn.functional.linear(embedding.to(self.projection.dtype), self.projection).to(self.targets.dtype)
        valid = labels != IGNORED_LABEL
        targets = self.targets[torch.where(valid, labels, 0)]
        distances = embedding_distances(projected, targets, self.settings.label_embedding_distance)
        return torch.where(valid, distances, 0.0)

    def save_projection(self, folder: str | PathLike) -> None:
        """Write the projection to `LOSS_FILE` in a checkpoint's folder; nothing where there is none."""
        if self.projection is None:
            return
        with complete_file(Path(folder, LOSS_FILE)) as partial:
            save_file(self.state_dict(), partial)

    def load_projection(self, folder: str | PathLike) -> None:
        """Read what `save_projection` wrote; nothing where there is no projection.

        Raises:
            FileNotFoundError: The checkpoint was made without the label-embedding loss.
            RuntimeError: The projection has another shape.
        """
        if self.projection is None:
            return
        path = Path(folder, LOSS_FILE)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: the checkpoint was made without the label-embedding loss.")
        self.load_state_dict(load_file(path))


class LossGradientCallback(TrainerCallback):
    """Clear the gradients of a loss's own parameters after each step of the optimizer.

    Trainer clears those of the model only: the others would add up over the whole training.

    Args:
        loss ([`ClassificationLoss`]): The loss that is trained.
    """

    def __init__(self, loss: ClassificationLoss):
        self.loss = loss

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clear them, also when a step was skipped because gradients were not finite."""
        self.loss.zero_grad()


__all__ = [
    "IGNORED_LABEL",
    "ClassificationLoss",
    "LossGradientCallback",
    "LossSettings",
    "class_weights",
    "classification_losses",
    "embedding_distances",
    "hash_label_names",
    "log_prior",
    "read_label_embeddings",
]
