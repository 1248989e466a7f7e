"""The optimizer's parameter groups: a learning rate for each part of the model, weight decay only where it belongs.

The schedule needs nothing of ours: with `lr_scheduler_type="cosine"` and `warmup_steps=0.05` (a share below 1) in its
arguments, Trainer scales the rate of every group alike.
"""

from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments


# In the order of the groups. Trainer logs the learning rate of the first one: the full rate comes first.
PARTS = ("fusion", "head", "pose_encoder", "vision", "lora", "loss")
# What PEFT, DataParallel and torch.compile put before the names of parameters.
_WRAPPERS = frozenset({"base_model", "model", "module", "_orig_mod"})
_HEAD = frozenset({"norm", "classifier"})


def part_of_parameter(name: str) -> str:
    """Name the part of CLIP-MG that a parameter belongs to.

    Args:
        name (`str`): As `named_parameters` gives it, also in a model wrapped by PEFT.

    Returns:
        `str`: `"lora"` (adapters, wherever they sit), `"pose_encoder"`, `"vision"` (the CLIP tower), `"head"` (norm
        and classifier), or `"fusion"` (query, attention, temporal embedding, fusion).
    """
    components = name.split(".")
    while components[0] in _WRAPPERS:
        components = components[1:]
    if any(component.startswith("lora_") for component in components):
        return "lora"
    if "pose_encoder" in components:
        return "pose_encoder"
    if "vision_model" in components:
        return "vision"
    return "head" if components[0] in _HEAD else "fusion"


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    pose_encoder_factor: float = 0.1,
    vision_factor: float = 0.1,
    lora_factor: float = 1.0,
    head_factor: float = 1.0,
    loss: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Group the trainable parameters for an optimizer (factors: ours).

    Norms, biases and embeddings (class, position, temporal and null tokens) do not decay: whatever has fewer than two
    dimensions or belongs to an `nn.Embedding`.

    Args:
        model (`nn.Module`): A CLIP-MG model, in PEFT's wrapper or not; frozen parameters are left out.
        learning_rate, weight_decay (`float`): Of the parts whose factor is 1, and of what decays.
        pose_encoder_factor, vision_factor, lora_factor, head_factor (`float`): Learning rates relative to
            `learning_rate`: of the pose encoder, unfrozen layers of the CLIP tower, LoRA adapters and classifier.
        loss (`nn.Module`, *optional*): A loss with parameters of its own, e.g. [`ClassificationLoss`].

    Returns:
        `list[dict]`: Groups with `name` (a part of `PARTS`, followed by `".no_decay"` where that holds), `params`,
        `lr` and `weight_decay`; every trainable parameter is in exactly one, and none is empty.

    Raises:
        ValueError: A factor is not positive, or nothing is trainable.
    """
    factors = {
        "pose_encoder": pose_encoder_factor,
        "vision": vision_factor,
        "lora": lora_factor,
        "head": head_factor,
    }
    for part, factor in factors.items():
        if factor <= 0:
            raise ValueError(f"{part}_factor is {factor}; expected a positive number (freeze with requires_grad_).")
    members: dict[tuple[str, bool], list[nn.Parameter]] = {
        (part, decays): [] for part in PARTS for decays in (True, False)
    }
    undecayed = _parameters_without_decay(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[part_of_parameter(name), parameter not in undecayed].append(parameter)
    if loss is not None:
        undecayed = _parameters_without_decay(loss)
        for parameter in loss.parameters():
            members["loss", parameter not in undecayed].append(parameter)
    groups = [
        {
            "name": part if decays else f"{part}.no_decay",
            "params": parameters,
            "lr": learning_rate * factors.get(part, 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in members.items()
        if parameters
    ]
    if not groups:
        raise ValueError(f"{type(model).__name__} has no trainable parameter.")
    return groups


def _parameters_without_decay(model: nn.Module) -> set[nn.Parameter]:
    return {
        parameter
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim < 2 or isinstance(module, nn.Embedding)
    }


def make_optimizer(
    model: nn.Module, args: TrainingArguments, *, loss: nn.Module | None = None, **factors: float
) -> torch.optim.Optimizer:
    """Build the optimizer that `args.optim` names over [`parameter_groups`], for a Trainer's `create_optimizer`.

    Args:
        model (`nn.Module`): What is trained.
        args (`TrainingArguments`): Name and options of the optimizer, learning rate and weight decay.
        loss, factors: As in [`parameter_groups`].

    Raises:
        ValueError: The optimizer makes its own parameter groups (GaLore, LOMO, ...).
    """
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)  # type: ignore[arg-type]
    makes_groups = not (isinstance(optimizer_class, type) and issubclass(optimizer_class, torch.optim.Optimizer))
    if makes_groups or {"params", "model", "optimizer_dict"} & options.keys():
        raise ValueError(f"optim={args.optim!r} makes its own parameter groups; expected one such as 'adamw_torch'.")
    groups = parameter_groups(model, args.learning_rate, args.weight_decay, loss=loss, **factors)
    return optimizer_class(groups, **options)


__all__ = ["PARTS", "make_optimizer", "parameter_groups", "part_of_parameter"]
