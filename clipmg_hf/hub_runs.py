"""Runs on the Hub: what of a run is pushed, and how it goes on from there on another machine.

    python hub_scripts/train.py CONFIG.yaml ... --push_to_hub true --hub_model_id owner/name --hub_strategy checkpoint
    python hub_scripts/train.py CONFIG.yaml ... --resume_from_checkpoint hub:owner/name     # anywhere else

A push is one commit: the model as a complete checkpoint in the root of the repository and, by strategy, the checkpoint
to go on from in `last-checkpoint/` (with the best model so far in `best-checkpoint/`), or in a folder for each. Of a
run's folder nothing else is pushed: evaluations may hold pictures of people, logs and pickled arguments tell of the
machine and may hold a token.
"""

import copy
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent import futures
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from huggingface_hub import HfApi, snapshot_download
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, SaveStrategy
from transformers.utils.hub import PushInProgress

from clipmg_hf.files import write_file
from clipmg_hf.hub import PushResult, push_folder
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE
from clipmg_hf.run_files import (
    BEST_CHECKPOINT,
    EXPERIMENT_FILE,
    LAST_CHECKPOINT,
    LOSS_FILE,
    MODEL_FILES,
    PARTIAL_PREFIX,
    STATE_FILE,
    TRAINING_ARGUMENTS_FILE,
)
from clipmg_hf.run_record import public_record


logger = logging.getLogger(__name__)

HUB_PREFIX = "hub:"


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
        if path.is_file() and path.name != TRAINING_ARGUMENTS_FILE:
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


class HubTrainer(Trainer):
    """The part of [`CLIPMGTrainer`] that pushes the run, in the background where it goes on meanwhile."""

    # Set by the library where pushes are asked for.
    hub_model_id: Any
    push_in_progress: Any = None
    # Where the checkpoint lies that is being written.
    _staging: Path | None = None
    _uploads: futures.ThreadPoolExecutor | None = None
    # Of the trainer that this is a part of.
    describe_run: Callable[[], dict[str, Any]]
    save_model_files: Callable[[], None]
    _write_card: Callable[[Path], None]

    @property
    def _run_dir(self) -> str:
        return cast(str, self.args.output_dir)

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository, or find that it is there, before anything is trained.

        Raises:
            ValueError: Pushes to another branch than main are asked for.
            OSError: The Hub refuses.
        """
        if self.args.hub_revision not in (None, "main"):
            raise ValueError(f"hub_revision is {self.args.hub_revision!r}; expected none: runs are pushed to main.")
        if not self.is_world_process_zero():
            return
        name = self.args.hub_model_id or Path(self._run_dir).absolute().name
        private = self.args.hub_private_repo if private is None else private
        url = HfApi(token=token or self.args.hub_token).create_repo(name, private=private, exist_ok=True)
        self.hub_model_id, self.push_in_progress = url.repo_id, None

    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        private: bool | None = None,
        **card_options: Any,
    ) -> "PushResult | futures.Future[PushResult] | None":
        """Save the model and push it with its card, in one commit; see the module.

        Args:
            commit_message (`str`, defaults to `"End of training"`): First line of the commit.
            blocking (`bool`, defaults to `True`): Whether to wait; else a future is returned.
            token, private (*optional*): In place of those of the arguments.
            card_options: Those of [`CLIPMGTrainer.create_model_card`].

        Returns:
            [`PushResult`] or a future of it; `None` in all processes but the first.

        Raises:
            PushError: The push failed; the model is in the run's folder all the same.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model_files()
        return self._push_run(commit_message, blocking, token, **card_options)

    def _push_run(
        self, message: str, blocking: bool = True, token: str | None = None, **card_options: Any
    ) -> "PushResult | futures.Future[PushResult] | None":
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.create_model_card(**card_options)
        # Newer than any save that is still on its way.
        self._finish_current_push()
        run_dir = Path(self._run_dir)
        staging = self._start_push("model")
        stage_model(run_dir, staging, self.describe_run())
        push = self._submit_push(staging, message, token)
        return push.result() if blocking else push

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a save in the background, unless the one before is still on its way and `hub_always_push` is off."""
        # While it is written the checkpoint has another name.
        if self._staging is not None or self.args.hub_strategy == HubStrategy.END or not self.is_world_process_zero():
            return
        is_busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        step = self.state.global_step
        if is_busy and not self.args.hub_always_push:
            logger.info("Step %d is not pushed: the push of an earlier save is still on its way.", step)
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        staging = self._start_push(str(step))
        self._stage_save(checkpoint, staging)
        if self.args.hub_strategy == HubStrategy.CHECKPOINT:
            stage_checkpoint(checkpoint, staging / LAST_CHECKPOINT)
            best = Path(self.state.best_model_checkpoint or checkpoint)
            if best.name != checkpoint.name and best.is_dir():
                stage_model(best, staging / BEST_CHECKPOINT, None)
        elif self.args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
            stage_checkpoint(checkpoint, staging / checkpoint.name)
        when = (
            f"step {step}" if self.args.save_strategy == SaveStrategy.STEPS else f"epoch {int(self.state.epoch or 0)}"
        )
        self._submit_push(staging, f"Training in progress, {when}")

    def _stage_save(self, checkpoint: Path, staging: Path) -> None:
        """The model of a checkpoint, ready to use; one with adapters is merged."""
        if (checkpoint / CONFIG_FILE).is_file():
            stage_model(checkpoint, staging, self.describe_run())
            return
        merged = checkpoint.with_name(f"{PARTIAL_PREFIX}merged-{checkpoint.name}")
        shutil.rmtree(merged, ignore_errors=True)
        try:
            copy.deepcopy(cast(Any, self.accelerator.unwrap_model(self.model))).merge_and_unload().save_pretrained(
                merged
            )
            cast(Any, self.processing_class).save_pretrained(merged)
            self._write_card(merged)
            stage_model(merged, staging, self.describe_run())
        finally:
            shutil.rmtree(merged, ignore_errors=True)

    def _start_push(self, name: str) -> Path:
        """A place for a push, cleared of what a killed process left."""
        staging = Path(self._run_dir, f"{PARTIAL_PREFIX}push-{name}")
        shutil.rmtree(staging, ignore_errors=True)
        return staging

    def _submit_push(self, staging: Path, message: str, token: str | None = None) -> "futures.Future[PushResult]":
        """Push in the background, after the pushes before; what fails is logged at once."""
        if self._uploads is None:
            self._uploads = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")
        push = self._uploads.submit(self._push_staged, staging, message, HfApi(token=token or self.args.hub_token))
        jobs: list[Any] = [] if self.push_in_progress is None else self.push_in_progress.jobs
        self.push_in_progress = PushInProgress(cast(Any, [*(job for job in jobs if not job.done()), push]))
        return push

    def _push_staged(self, staging: Path, message: str, api: HfApi) -> PushResult:
        repo_id = cast(str, self.hub_model_id)
        # Of an earlier checkpoint, which another number of processes may have written.
        delete_patterns = [
            f"{name}/*" for name in (LAST_CHECKPOINT, BEST_CHECKPOINT) if (staging / LAST_CHECKPOINT).is_dir()
        ]
        try:
            return push_folder(staging, repo_id, commit_message=message, delete_patterns=delete_patterns, api=api)
        except Exception as error:
            logger.error("%s: not pushed to %s: %s", message, repo_id, error)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        jobs = getattr(self.push_in_progress, "jobs", [])
        if jobs and (error := jobs[-1].exception()) is not None:
            logger.error("The newest save is not on the Hub: %s", error)


__all__ = [
    "HUB_PREFIX",
    "HubTrainer",
    "adopt_checkpoint",
    "download_checkpoint",
    "stage_checkpoint",
    "stage_model",
]
