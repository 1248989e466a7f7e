"""Runs on the Hub: what of a run is pushed, and how it goes on from there on another machine.

    python hub_scripts/train.py CONFIG.yaml ... --push_to_hub true --hub_model_id owner/name --hub_strategy checkpoint
    python hub_scripts/train.py CONFIG.yaml ... --resume_from_checkpoint hub:owner/name     # anywhere else

A push is one commit: the model as a complete checkpoint in the root of the repository and, by strategy, the checkpoint
to go on from in `last-checkpoint/` (with the best model so far in `best-checkpoint/`), or in a folder for each. Of a
run's folder nothing else is pushed: evaluations may hold pictures of people, logs and pickled arguments tell of the
machine and may hold a token.
"""

import json
import os
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from clipmg_hf.files import write_file
from clipmg_hf.losses import LOSS_FILE
from clipmg_hf.run_record import EXPERIMENT_FILE, public_record


HUB_PREFIX = "hub:"
LAST_CHECKPOINT, BEST_CHECKPOINT = "last-checkpoint", "best-checkpoint"
STATE_FILE = "trainer_state.json"
# The files that a model consists of, with what tells of its run.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.py",
    "requirements.txt",
    "README.md",
    "LICENSE*",
)
_NEVER_PUSHED = ("training_args.bin",)


def stage_model(folder: Path, target: Path, record: Mapping[str, Any] | None) -> None:
    """Gather the model of a folder as it is pushed, in a new folder beside it.

    Args:
        folder (`Path`): Folder of a checkpoint or of a run.
        target (`Path`): Made. Its files share the disk space of those in `folder`, and stay when these are removed.
        record (`Mapping`, *optional*): The run's record.
    """
    target.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        is_of_model = any(fnmatch(path.name, pattern) for pattern in MODEL_FILES) and path.name != LOSS_FILE
        if path.is_file() and is_of_model and not path.name.startswith((".", "_")):
            _link(path, target / path.name)
    if record is not None:
        write_file(target / EXPERIMENT_FILE, json.dumps(public_record(record), indent=2) + "\n")
    _hide_place(target / STATE_FILE)


def stage_checkpoint(checkpoint: Path, target: Path) -> None:
    """Gather a checkpoint to go on from, as [`stage_model`] does."""
    target.mkdir(parents=True)
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name not in _NEVER_PUSHED:
            copy = target / path.relative_to(checkpoint)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link(path, copy)
    _hide_place(target / STATE_FILE)


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:
        # Some file systems have no hard links.
        shutil.copyfile(path, copy)


def _hide_place(state_file: Path) -> None:
    """Keep of the best checkpoint its name alone."""
    if state_file.is_file():
        _place_best(state_file, None)


def _place_best(state_file: Path, folder: Path | None) -> None:
    state = json.loads(state_file.read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint"):
        name = Path(state["best_model_checkpoint"]).name
        state["best_model_checkpoint"] = name if folder is None else str(folder / name)
    write_file(state_file, json.dumps(state, indent=2, sort_keys=True) + "\n")


def download_checkpoint(place: str, staging: Path, run_dir: Path, token: str | None = None) -> Path:
    """Download the newest checkpoint of a run, with the run's record and its best model.

    Args:
        place (`str`): `"owner/name"`, or `"owner/name@revision"`.
        staging (`Path`): Folder to download to.
        run_dir (`Path`): Where [`adopt_checkpoint`] will move it.
        token (`str`, *optional*): In place of the environment's.

    Returns:
        `Path` of the checkpoint, in `staging`.

    Raises:
        ValueError: The repository holds no checkpoint to go on from.
        OSError: It cannot be read.
    """
    repo_id, _, revision = place.partition("@")
    info = HfApi().model_info(repo_id, revision=revision or None, token=token)
    folders = {file.rfilename.partition("/")[0] for file in info.siblings or [] if "/" in file.rfilename}
    numbered = [name for name in folders if name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")]
    if LAST_CHECKPOINT in folders:
        source, others = LAST_CHECKPOINT, [BEST_CHECKPOINT]
    elif numbered:
        source, others = max(numbered, key=lambda name: int(name.rpartition("-")[2])), numbered
    else:
        raise ValueError(
            f"{repo_id} has no {LAST_CHECKPOINT} at {info.sha}; expected a run that is pushed with --hub_strategy "
            "checkpoint or all_checkpoints."
        )
    _download([source], repo_id, info.sha, staging, token, [EXPERIMENT_FILE])
    state = json.loads((staging / source / STATE_FILE).read_text(encoding="utf-8"))
    checkpoint = staging / f"{PREFIX_CHECKPOINT_DIR}-{state['global_step']}"
    (staging / source).rename(checkpoint)
    best = Path(state.get("best_model_checkpoint") or "").name
    wanted = BEST_CHECKPOINT if BEST_CHECKPOINT in others else best
    if best and best != checkpoint.name and wanted in folders:
        _download([wanted], repo_id, info.sha, staging, token)
        (staging / wanted).rename(staging / best)
    _place_best(checkpoint / STATE_FILE, run_dir.resolve())
    return checkpoint


def _download(
    folders: list[str],
    repo_id: str,
    commit: str | None,
    staging: Path,
    token: str | None,
    files: list[str] | None = None,
) -> None:
    # Weights are read from safetensors alone; nothing of a checkpoint's code is needed to go on.
    snapshot_download(
        repo_id,
        revision=commit,
        local_dir=staging,
        token=token,
        allow_patterns=[*(f"{folder}/*" for folder in folders), *(files or [])],
        ignore_patterns=["*.bin"],
    )


def adopt_checkpoint(staging: Path, run_dir: Path) -> None:
    """Move what [`download_checkpoint`] brought into the folder of the run."""
    run_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(staging.iterdir()):
        if path.name == EXPERIMENT_FILE or path.name.startswith(PREFIX_CHECKPOINT_DIR):
            path.replace(run_dir / path.name)


__all__ = [
    "BEST_CHECKPOINT",
    "HUB_PREFIX",
    "LAST_CHECKPOINT",
    "adopt_checkpoint",
    "download_checkpoint",
    "stage_checkpoint",
    "stage_model",
]
