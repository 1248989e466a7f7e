"""Load a checkpoint for inference, and make sure that its parts belong together."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Literal, overload

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForVideoClassification, AutoProcessor
from transformers.utils import logging

from clipmg_hf.inference.onnx_model import ONNX_FILES, InferenceModel, OnnxModel
from clipmg_hf.modeling import CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.modeling.checkpoint_files_clipmg import (
    CONFIG_FILE,
    PROCESSOR_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
)
from clipmg_hf.processing import CLIPMGProcessor, get_layout


WEIGHT_FILES = (WEIGHTS_FILE, WEIGHTS_INDEX_FILE)
# What a backend reads of a folder on the Hub; checkpoints of a training lie in folders below it.
_PATTERNS = {"torch": ("*.json", "*.safetensors"), "onnx": ONNX_FILES}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CACHED = re.compile(r"models--([\w.-]+)/snapshots/([^/]+)")
_LOADING_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError)


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the folder, what is wrong and what was expected."""


@overload
def load_model(
    path_or_name: str | PathLike,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    backend: Literal["torch"] = "torch",
    revision: str | None = None,
) -> tuple[CLIPMGForMicroGestureClassification, CLIPMGProcessor]: ...


@overload
def load_model(
    path_or_name: str | PathLike,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    backend: str = "torch",
    revision: str | None = None,
) -> tuple[InferenceModel, CLIPMGProcessor]: ...


def load_model(
    path_or_name: str | PathLike,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    backend: str = "torch",
    revision: str | None = None,
) -> tuple[InferenceModel, CLIPMGProcessor]:
    """Load a checkpoint for inference, and make sure that its parts belong together.

    A Hub name is first downloaded to the local cache: configuration and weights only, no code.

    Args:
        path_or_name: Folder written by `save_pretrained` of model and processor, or `"owner/name"` on the Hub.
        device: Where the model goes; by default the first CUDA device, else the CPU.
        dtype: Type of the weights; by default the one they were saved with.
        backend: `"onnx"` runs an export in ONNX Runtime, in float32; `path_or_name` is then that of a folder that
            `clipmg_hf.export` has written.
        revision: Commit, tag or branch of a Hub name; by default the newest commit of `main`.

    Returns:
        The model in eval mode, and its processor.

    Raises:
        CheckpointError: The folder is incomplete or its parts disagree; no weight is ever initialised anew.
        ValueError: The device cannot be used.
        ImportError: The extra `onnx` is missing.
    """
    if backend == "onnx":
        return _load_onnx(path_or_name, device, dtype, revision)
    device = _resolve_device(device)
    folder = resolve_folder(path_or_name, backend, revision)
    with _quiet_transformers():
        config = _load_config(folder)
        if not any((folder / name).is_file() for name in WEIGHT_FILES):
            raise CheckpointError(f"{folder} holds no weights; expected {' or '.join(WEIGHT_FILES)}.")
        processor = _load_processor(folder)
        _check_agreement(folder, config, processor)
        model = _load_weights(folder, config, dtype)
    return model.to(device).eval(), processor


def _load_onnx(
    path_or_name: str | PathLike, device: str | torch.device | None, dtype: torch.dtype | None, revision: str | None
) -> tuple[OnnxModel, CLIPMGProcessor]:
    if dtype not in (None, torch.float32):
        raise ValueError(f"dtype is {dtype}; expected float32, in which models are exported to ONNX.")
    folder = resolve_folder(path_or_name, "onnx", revision)
    with _quiet_transformers():
        config = _load_config(folder)
        processor = _load_processor(folder)
        _check_agreement(folder, config, processor)
    try:
        return OnnxModel(folder, config, device), processor
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error


def _resolve_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        # Reading a value back also tells apart "meta", which holds none.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device {str(device)!r} cannot be used on this machine; expected {', '.join(known)}."
        ) from error
    return torch.device(device)


def resolve_folder(path_or_name: str | PathLike, backend: str = "torch", revision: str | None = None) -> Path:
    """The local folder of a checkpoint: of a Hub name that of one commit, with the files that the backend reads.

    Args:
        path_or_name, backend, revision: As in [`load_model`], which takes the folder as well.

    Raises:
        CheckpointError: There is no such folder or name, or a revision of a folder.
        ValueError: An unknown backend.
    """
    if backend not in _PATTERNS:
        raise ValueError(f"backend is {backend!r}; expected 'torch' or 'onnx'.")
    folder = Path(path_or_name)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"{folder} is a folder and has no revision {revision!r}; expected a name on the Hub."
            )
        return folder
    expected = "expected a folder saved by save_pretrained, or owner/name of a model on the Hub"
    if folder.exists() or not _HUB_NAME.fullmatch(str(path_or_name)):
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise CheckpointError(f"{folder} {problem}; {expected}.")
    try:
        return Path(
            snapshot_download(
                str(path_or_name),
                revision=revision,
                allow_patterns=list(_PATTERNS[backend]),
                ignore_patterns=["*/*"],
            )
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        wanted = path_or_name if revision is None else f"{path_or_name} at {revision!r}"
        raise CheckpointError(
            f"{wanted}: no such folder, and not to be had from the Hub ({reason}); {expected}."
        ) from error


def model_source(model: InferenceModel) -> str:
    """Where a model was loaded from: `owner/name@commit` of the Hub, or the folder as it was given."""
    source = model.config._name_or_path
    found = _CACHED.fullmatch("/".join(Path(source).parts[-3:]))
    return source if found is None else f"{found[1].replace('--', '/')}@{found[2]}"


def _load_config(folder: Path) -> CLIPMGConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}; expected a folder saved by save_pretrained.")
    try:
        values = json.loads(path.read_bytes())
        model_type = values.get("model_type") if isinstance(values, dict) else None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    # Known before transformers sees it: a folder of another type may ask to run its own code.
    if model_type != CLIPMGConfig.model_type:
        raise CheckpointError(
            f"{path} describes a model of type {model_type!r}; expected {CLIPMGConfig.model_type!r}."
        )
    try:
        return AutoConfig.from_pretrained(folder)
    except (*_LOADING_ERRORS, StrictDataclassError) as error:
        raise CheckpointError(f"{path} is not a valid configuration: {error}") from error


def _load_processor(folder: Path) -> CLIPMGProcessor:
    path = folder / PROCESSOR_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {PROCESSOR_FILE}; expected the processor beside the model (processor.save_pretrained)."
        )
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (*_LOADING_ERRORS, StrictDataclassError) as error:
        raise CheckpointError(f"{path} is not a valid processor configuration: {error}") from error
    if not isinstance(processor, CLIPMGProcessor):
        raise CheckpointError(f"{path} describes a {type(processor).__name__}; expected a CLIPMGProcessor.")
    return processor


def _check_agreement(folder: Path, config: CLIPMGConfig, processor: CLIPMGProcessor) -> None:
    """Refuse a processor that was saved with another model."""
    frames = processor.video_processor
    layout = get_layout(processor.keypoint_layout)
    pairs = {
        "keypoint_layout": (layout.name, config.keypoint_layout),
        "num_keypoints": (layout.num_keypoints, config.num_keypoints),
        "num_frames": (frames.num_frames, config.num_frames),
        "pose_frames_per_frame": (frames.pose_frames_per_frame, config.pose_frames_per_frame),
        "image_size": (frames.size["height"], config.vision_config.image_size),
    }
    different = [f"{name} {own!r} and {other!r}" for name, (own, other) in pairs.items() if own != other]
    if different:
        raise CheckpointError(
            f"{folder}: {PROCESSOR_FILE} and {CONFIG_FILE} disagree: {', '.join(different)}; expected the processor "
            "that the model was trained with."
        )


def _load_weights(
    folder: Path, config: CLIPMGConfig, dtype: torch.dtype | None
) -> CLIPMGForMicroGestureClassification:
    """Load weights that fit the configuration one to one."""
    try:
        model, report = AutoModelForVideoClassification.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            use_safetensors=True,
            # Reported here, tensor by tensor; transformers would only point to its log.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except _LOADING_ERRORS as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error
    problems = [
        f"{name} is {tuple(saved)}, expected {tuple(wanted)}"
        + (f" for the {config.num_labels} labels of id2label" if name.startswith("classifier.") else "")
        for name, saved, wanted in sorted(report["mismatched_keys"])
    ]
    problems += [f"{name} is missing" for name in sorted(report["missing_keys"])]
    problems += [f"{name} belongs to no layer" for name in sorted(report["unexpected_keys"])]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(f"{folder}: the weights do not fit {CONFIG_FILE}: {'; '.join(problems[:3])}{more}.")
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and load reports: what they say becomes an error here."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


__all__ = ["CheckpointError", "load_model", "model_source", "resolve_folder"]
