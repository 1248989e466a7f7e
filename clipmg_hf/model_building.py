"""Where a model starts: new, from CLIP, from one of our checkpoints, with a trained pose encoder, with LoRA adapters.

Whatever does not fit is named with both values: classes, fields of the configuration, weights.
"""

import logging
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from clipmg_hf.arguments import ModelArguments
from clipmg_hf.data.labels import check_labels
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.modeling import (
    CLIPMGConfig,
    CLIPMGForMicroGestureClassification,
    pose_encoder_weights_from_poseconv3d,
)
from clipmg_hf.modeling.checkpoint_files_clipmg import WEIGHTS_FILE
from clipmg_hf.modeling.pose_encoder_clipmg import POSE_ENCODER_PREFIX
from clipmg_hf.processing import get_layout
from clipmg_hf.run_files import PARTIAL_PREFIX


logger = logging.getLogger(__name__)

# May differ from those of a checkpoint that training continues from; all others are its architecture.
_FREE_FIELDS = frozenset(
    {"hidden_dropout_prob", "attention_dropout", "classifier_dropout", "num_trainable_vision_layers"}
)
# What a pose encoder and the keypoints that it reads consist of.
_POSE_FIELDS = (
    *("keypoint_layout", "num_keypoints", "heatmap_size", "heatmap_sigma", "pose_base_width", "pose_stage_blocks"),
    *("pose_inflate", "pose_spatial_strides", "pose_temporal_strides"),
)
_STEM = f"{POSE_ENCODER_PREFIX}conv1.conv.weight"


def build_model(
    arguments: ModelArguments, config_values: dict[str, Any], label_names: list[str]
) -> CLIPMGForMicroGestureClassification:
    """Build the model, from CLIP, from a checkpoint or with random weights.

    Raises:
        ValueError: Two starting points, a checkpoint of other classes or of another architecture, or options of a
            pose encoder for a model without one.
    """
    values = _complete_config(arguments, config_values)
    if arguments.model_name_or_path is not None:
        if arguments.clip_checkpoint is not None:
            raise ValueError("clip_checkpoint and model_name_or_path are both given; expected one starting point.")
        model = _continue_from(arguments.model_name_or_path, values, label_names)
    else:
        labels = {"id2label": dict(enumerate(label_names))}
        if arguments.clip_checkpoint is None or values.get("fusion") == "pose":
            model = CLIPMGForMicroGestureClassification(CLIPMGConfig(**values, **labels))
        else:
            model = CLIPMGForMicroGestureClassification.from_clip(arguments.clip_checkpoint, **values, **labels)
    if arguments.freeze_batch_norm and not model.config.uses_pose:
        raise ValueError(
            f"freeze_batch_norm=True has no effect: a model with fusion={model.config.fusion!r} has no pose encoder."
        )
    if arguments.pose_checkpoint is not None:
        load_pose_encoder(model, arguments.pose_checkpoint)
    return model


def _complete_config(arguments: ModelArguments, values: dict[str, Any]) -> dict[str, Any]:
    """Fields that follow from others: the stage's fusion and the layout's number of keypoints."""
    values = dict(values)
    if arguments.stage == "pose":
        values["fusion"] = "pose"
        # Without frames there is nothing that a query could ask.
        values.pop("query", None)
    if "keypoint_layout" in values:
        values.setdefault("num_keypoints", get_layout(values["keypoint_layout"]).num_keypoints)
    return values


def _continue_from(
    name_or_path: str, values: dict[str, Any], label_names: list[str]
) -> CLIPMGForMicroGestureClassification:
    config = CLIPMGConfig.from_pretrained(name_or_path)
    assert config.id2label is not None
    check_labels(label_names, [config.id2label[index] for index in range(len(config.id2label))], name_or_path)
    differing = [
        f"{field} is {getattr(config, field)!r} in the checkpoint, {value!r} was asked for"
        for field, value in values.items()
        if field not in _FREE_FIELDS and _plain(getattr(config, field)) != _plain(value, getattr(config, field))
    ]
    if differing:
        raise ValueError(f"{name_or_path} is another model: {'; '.join(differing)}.")
    free = {field: value for field, value in values.items() if field in _FREE_FIELDS}
    return CLIPMGForMicroGestureClassification.from_pretrained(name_or_path, **free)


def _plain(value: Any, like: Any = None) -> Any:
    """Values that can be compared: sequences as lists, and of a nested configuration the fields that are given."""
    if isinstance(value, dict) and hasattr(like, "to_dict"):
        return like.to_dict() | value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return list(value) if isinstance(value, tuple | list) else value


def load_pose_encoder(model: CLIPMGForMicroGestureClassification, checkpoint: str) -> None:
    """Initialise the pose encoder from a stage "pose" run, or from a PYSKL or mmaction2 PoseConv3D checkpoint.

    A PoseConv3D of other keypoints than ours leaves the first convolution at its random start, and a warning says so.

    Raises:
        ValueError: The model has no pose encoder, or the checkpoint's is another one.
        FileNotFoundError: There is no such checkpoint.
        DatasetFormatError: The .pth file holds something else than named tensors.
    """
    if not model.config.uses_pose:
        raise ValueError(f"pose_checkpoint is given, but a model with fusion={model.config.fusion!r} reads no pose.")
    path = Path(checkpoint)
    if path.is_dir():
        _check_pose_fields(model.config, path)
        weights = {
            name: tensor for name, tensor in load_file(path / WEIGHTS_FILE).items() if POSE_ENCODER_PREFIX in name
        }
    elif path.is_file():
        weights = pose_encoder_weights_from_poseconv3d(_read_pth(path))
    else:
        raise FileNotFoundError(f"There is no pose_checkpoint {path}; expected a run's folder or a .pth file.")
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(POSE_ENCODER_PREFIX)}
    stem = weights.get(_STEM)
    if stem is not None and stem.shape[0] == own[_STEM].shape[0] and stem.shape[1] != own[_STEM].shape[1]:
        logger.warning(
            "%s reads %d keypoints, the model %d: its first convolution is not taken over.",
            *(path, stem.shape[1], own[_STEM].shape[1]),
        )
        weights[_STEM] = own[_STEM]
    differing = [name for name, tensor in own.items() if name not in weights or weights[name].shape != tensor.shape]
    # Older checkpoints do not count the batches that a batch norm has seen.
    differing = [name for name in differing if not name.endswith("num_batches_tracked")]
    if differing or weights.keys() - own.keys():
        named = differing or sorted(weights.keys() - own.keys())
        raise ValueError(f"{path} is another pose encoder: {len(named)} weights do not fit, first {named[0]}.")
    model.load_state_dict(weights, strict=False)


def _check_pose_fields(config: CLIPMGConfig, folder: Path) -> None:
    saved = CLIPMGConfig.from_pretrained(folder)
    differing = [
        f"{name} is {getattr(saved, name)!r} there, {getattr(config, name)!r} here"
        for name in _POSE_FIELDS
        if getattr(saved, name) != getattr(config, name)
    ]
    if not saved.uses_pose:
        differing.insert(0, f"fusion is {saved.fusion!r} there, which has no pose encoder")
    if differing:
        raise ValueError(f"{folder} is another pose encoder: {'; '.join(differing)}.")


def _read_pth(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DatasetFormatError(
            f"{path} cannot be read as a file of tensors alone; expected a PYSKL or mmaction2 checkpoint, saved again "
            f"without its hooks and messages if need be ({error})."
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items()
    ):
        raise DatasetFormatError(
            f"{path} holds a {type(content).__name__} without named weights; expected tensors by their names, or such "
            "a 'state_dict', as in a PYSKL or mmaction2 checkpoint."
        )
    return weights


def add_lora(
    model: CLIPMGForMicroGestureClassification,
    arguments: ModelArguments,
    base_folder: Path,
    is_main: bool,
    resumes: bool = False,
) -> Any:
    """Wrap the model: adapters in the tower's blocks, everything outside the tower is trained as before.

    The layer norm in front of the classifier stays as it is: PEFT goes by the ends of names, and this one's would hit
    the tower's norms.

    Args:
        model: What the adapters are added to; saved to `base_folder`, which the adapter's configuration names.
        arguments: Rank, scale, dropout and targets.
        base_folder (`Path`): Written, unless it is there and the run goes on.
        is_main (`bool`): Whether this process writes.
        resumes (`bool`): Whether the run goes on from a checkpoint.

    Raises:
        ValueError: The model has no tower, or trains it.
    """
    from peft import LoraConfig, get_peft_model

    if model.vision_tower is None or model.config.num_trainable_vision_layers:
        raise ValueError(
            f"lora_rank={arguments.lora_rank} needs a frozen tower, got fusion={model.config.fusion!r} and "
            f"num_trainable_vision_layers={model.config.num_trainable_vision_layers}."
        )
    if is_main and not (resumes and (base_folder / WEIGHTS_FILE).is_file()):
        _save_whole(model, base_folder)
    trained = ["classifier"]
    for name, module in model.clipmg.named_children():
        if isinstance(module, torch.nn.ModuleList):
            trained += [f"{name}.{index}" for index in range(len(module))]
        elif name != "vision_model":
            trained.append(name)
    model.name_or_path = str(base_folder)
    targets = "|".join(arguments.lora_targets.split(","))
    config = LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha or 2 * arguments.lora_rank,
        lora_dropout=arguments.lora_dropout,
        target_modules=rf".*vision_model\..*\.({targets})",
        modules_to_save=trained,
    )
    return get_peft_model(model, config)


def _save_whole(model: CLIPMGForMicroGestureClassification, folder: Path) -> None:
    """Save a model beside its folder and move it there, in place of what an earlier run left."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=PARTIAL_PREFIX) as staging:
        model.save_pretrained(Path(staging, folder.name))
        shutil.rmtree(folder, ignore_errors=True)
        Path(staging, folder.name).replace(folder)


__all__ = ["add_lora", "build_model", "load_pose_encoder"]
