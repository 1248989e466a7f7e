"""Which checkpoints of a run are complete."""

import json
import logging
import zipfile
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from clipmg_hf.run_files import LOSS_FILE, RESUME_FILES, STATE_FILE


logger = logging.getLogger(__name__)

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "pytorch_model_fsdp*")


def latest_checkpoint(folder: str | PathLike, save_only_model: bool = False) -> Path | None:
    """Newest complete checkpoint of a run's folder; incomplete ones are named in a warning and left alone.

    Args:
        folder (`str` or `PathLike`): The run's folder.
        save_only_model (`bool`, defaults to `False`): See [`find_damage`].
    """
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit() and path.is_dir()
    }
    for _, path in sorted(numbered.items(), reverse=True):
        problem = find_damage(path, save_only_model)
        if problem is None:
            return path
        logger.warning("%s is ignored: %s.", path, problem)
    return None


def find_damage(checkpoint: Path, save_only_model: bool = False) -> str | None:
    """What is missing or truncated in a checkpoint; `None` if it is complete.

    Args:
        checkpoint (`Path`): Its folder.
        save_only_model (`bool`, defaults to `False`): As in `TrainingArguments`: it was saved without the states of
            optimizer, scheduler and random numbers. A run that resumes with others than it had would change course.
    """
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
    return None if save_only_model else _find_damaged_state(checkpoint)


def _find_damaged_state(checkpoint: Path) -> str | None:
    for what, pattern in RESUME_FILES.items():
        found = sorted(checkpoint.glob(pattern))
        if not found:
            return f"it has no state of {what} ({pattern})"
        for path in found:
            # torch writes archives, whose list of contents is at the end.
            if path.is_file() and not zipfile.is_zipfile(path):
                return f"{path.name} is cut short"
    return None


__all__ = ["find_damage", "latest_checkpoint"]
