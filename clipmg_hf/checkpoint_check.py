"""Check that a checkpoint's folder is complete and works for a stranger, before it is pushed.

    check_checkpoint("runs/full")        # a CheckpointError lists everything that is wrong

The files are looked at here; then a process of its own, in which this package cannot be imported and the Hub is
offline, loads nothing but them through the Auto classes and predicts (`clipmg_hf.checkpoint_stranger`).
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from safetensors import SafetensorError, safe_open

from clipmg_hf.hub import FileToPush, list_files
from clipmg_hf.inference import CheckpointError
from clipmg_hf.modeling.checkpoint_files_clipmg import (
    CARD_FILE,
    CONFIG_FILE,
    OTHER_PARTS,
    PROCESSOR_FILE,
    REQUIREMENTS_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
)
from clipmg_hf.run_files import BY_PRODUCTS
from clipmg_hf.text import plural


STRANGER = Path(__file__).with_name("checkpoint_stranger.py")
TIMEOUT = 1800  # Seconds; loading a large model twice from a slow disk takes minutes.
AUTO_CLASSES = ("AutoConfig", "AutoModel", "AutoModelForVideoClassification", "AutoProcessor", "AutoVideoProcessor")
PIPELINE = "the pipeline"
_MAY_BE_PICKLES = (".bin", ".ckpt", ".h5", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
_LARGEST_TEXT = 10_000_000


def select_files(folder: str | os.PathLike) -> tuple[list[FileToPush], list[str]]:
    """The files of a run's folder that make up its checkpoint, and what is left beside them.

    Folders in it (earlier checkpoints, evaluations, logs) and [`BY_PRODUCTS`] are left out. Anything else is taken; if
    it does not belong there, [`check_checkpoint`] says so.

    Returns:
        The files to push, and the names of what is left out, folders with a `/`.
    """
    chosen, left_out = [], set()
    for file in list_files(folder):
        top, slash, _ = file.path.partition("/")
        if slash or any(fnmatchcase(top, pattern) for pattern in BY_PRODUCTS):
            left_out.add(top + slash)
        else:
            chosen.append(file)
    return chosen, sorted(left_out)


def check_checkpoint(folder: str | os.PathLike, files: Sequence[FileToPush] | None = None) -> None:
    """Refuse a checkpoint that would not work for others, naming every problem at once.

    Raises:
        CheckpointError: See [`find_problems`].
    """
    if problems := find_problems(folder, files):
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise CheckpointError(f"{folder} is not fit to be published, {plural(len(problems), 'problem')}:{listed}")


def find_problems(folder: str | os.PathLike, files: Sequence[FileToPush] | None = None) -> list[str]:
    """What is wrong with a checkpoint, a sentence each; nothing is fine.

    Args:
        folder (`str` or `PathLike`): Written by `save_pretrained` of model and processor.
        files (`Sequence[FileToPush]`, *optional*): Those of its files that count; by default all.
    """
    folder = Path(folder)
    files = list_files(folder) if files is None else files
    names = {file.path for file in files}
    weights, entries = _weight_files(folder, names), _entries(folder)
    problems = [
        *_missing(names, weights),
        *_foreign(files, weights),
        *_json_problems(folder, names),
        *_card_problems(folder, names),
        *_code_problems(folder, names, entries),
        *(problem for name in sorted(weights & names) for problem in _weight_problems(folder / name)),
    ]
    # Without these it would say the same again.
    if {CONFIG_FILE, PROCESSOR_FILE, *weights, *map(_file_of, entries.values())} <= names:
        problems += run_stranger(folder, sorted(names))
    return problems


def run_stranger(folder: Path, names: Iterable[str]) -> list[str]:
    """What a process without this package finds when it uses those files of a folder and no others."""
    with tempfile.TemporaryDirectory(prefix="clipmg_") as staging:
        checkpoint, output = Path(staging, "checkpoint"), Path(staging, "problems.json")
        for name in names:
            link = checkpoint / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / name).resolve())
        command = [sys.executable, "-P", str(STRANGER), str(checkpoint), str(output)]
        try:
            process = subprocess.run(
                command, cwd=staging, env=_stranger_environment(staging), capture_output=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return [f"a process that loads it did not end within {TIMEOUT} s."]
        if process.returncode or not output.is_file():
            last = (process.stderr.decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
            return [f"a process that loads it ended with status {process.returncode}, and said: {last}"]
        return [problem.replace(str(checkpoint), str(folder)) for problem in json.loads(output.read_text())]


def _stranger_environment(staging: str) -> dict[str, str]:
    """No token, no cache of ours, no network, no GPU."""
    ours = ("HF_", "HUGGING", "TRANSFORMERS_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "HF_HOME": str(Path(staging, "home")),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _weight_files(folder: Path, names: set[str]) -> set[str]:
    """The files that have to be there for the weights."""
    if WEIGHTS_INDEX_FILE not in names or WEIGHTS_FILE in names:
        return {WEIGHTS_FILE}
    shards = _read_json(folder / WEIGHTS_INDEX_FILE).get("weight_map")
    return {WEIGHTS_INDEX_FILE, *shards.values()} if isinstance(shards, dict) else {WEIGHTS_INDEX_FILE}


def _missing(names: set[str], weights: set[str]) -> Iterator[str]:
    expected = {
        CONFIG_FILE: "model.save_pretrained writes it",
        PROCESSOR_FILE: "processor.save_pretrained writes it",
        CARD_FILE: "the model card; clipmg_hf.model_card writes it",
        REQUIREMENTS_FILE: "what the code needs; save_pretrained writes it",
        **dict.fromkeys(sorted(weights), "weights; model.save_pretrained writes them as safetensors"),
    }
    for name, what in expected.items():
        if name not in names:
            yield f"{name} is missing ({what})."


def _foreign(files: Sequence[FileToPush], weights: set[str]) -> Iterator[str]:
    parts = {CONFIG_FILE, PROCESSOR_FILE, CARD_FILE, REQUIREMENTS_FILE, "generation_config.json", *weights}
    for file in files:
        is_part = file.path in parts or ("/" not in file.path and any(fnmatchcase(file.path, p) for p in OTHER_PARTS))
        if file.path.lower().endswith(_MAY_BE_PICKLES):
            yield f"{file.path} may be a pickle, which can run anything when it is loaded; remove it."
        elif not is_part:
            yield f"{file.path} is no part of a checkpoint; remove it."
        elif file.size > _LARGEST_TEXT and file.path not in weights:
            yield f"{file.path} has {file.size:,} bytes; expected less than {_LARGEST_TEXT:,} besides the weights."


def _read_json(path: Path) -> dict[str, Any]:
    """The contents; empty if there is no such object, which others report."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return {}
    return content if isinstance(content, dict) else {}


def _json_problems(folder: Path, names: set[str]) -> Iterator[str]:
    for name in sorted(name for name in names if name.endswith(".json")):
        if not _read_json(folder / name):
            yield f"{name} is not JSON with an object."


def _card_problems(folder: Path, names: set[str]) -> Iterator[str]:
    if CARD_FILE not in names:
        return
    try:
        card = ModelCard((folder / CARD_FILE).read_text(encoding="utf-8"))
    except Exception as error:  # Whatever the YAML parser raises.
        yield f"{CARD_FILE} cannot be read: {' '.join(str(error).split())}"
        return
    if not card.data.to_dict():
        yield f"{CARD_FILE} has no metadata (YAML between lines of ---), by which the Hub finds it."


def _code_problems(folder: Path, names: set[str], entries: Mapping[str, str]) -> Iterator[str]:
    for what in (*AUTO_CLASSES, PIPELINE):
        if what not in entries:
            yield f"no entry names the class of {what}; save it again with clipmg_hf imported."
    for what, entry in entries.items():
        if _file_of(entry) not in names:
            yield f"{what} is {entry!r}, but {_file_of(entry)} is missing."
    known = _requirements(folder, names)
    for name in sorted(name for name in names if name.endswith(".py")):
        try:
            tree = ast.parse((folder / name).read_bytes())
        except (SyntaxError, ValueError) as error:
            yield f"{name} is not Python: {error}."
            continue
        for module in sorted(_imports(tree)):
            if module.startswith("."):
                if f"{module[1:]}.py" not in names:
                    yield f"{name} imports {module}, but {module[1:]}.py is missing."
            elif known is not None and module not in known:
                yield f"{name} imports {module}, which {REQUIREMENTS_FILE} does not name."


def _entries(folder: Path) -> dict[str, str]:
    """What the Auto classes and the pipeline load, as `module.Class`."""
    config, processor = _read_json(folder / CONFIG_FILE), _read_json(folder / PROCESSOR_FILE)
    nested = processor.get("video_processor") or {}
    entries = {key: value for part in (nested, processor, config) for key, value in part.get("auto_map", {}).items()}
    for pipeline in (config.get("custom_pipelines") or {}).values():
        entries[PIPELINE] = pipeline["impl"]
    return entries


def _file_of(entry: str) -> str:
    return f"{entry.rpartition('.')[0]}.py"


def _requirements(folder: Path, names: set[str]) -> set[str] | None:
    """The packages that may be imported; `None` if no file names any."""
    if REQUIREMENTS_FILE not in names:
        return None
    # It comes with transformers.
    known = {"huggingface_hub"}
    lines = (folder / REQUIREMENTS_FILE).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"\s*([\w.-]+)", line) for line in lines)
    return known | {match[1].lower().replace("-", "_") for match in found if match}


def _imports(tree: ast.AST) -> set[str]:
    """Packages outside the standard library, and siblings with a leading dot."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            modules.add(name if node.level else name.partition(".")[0])
    return modules - sys.stdlib_module_names


def _weight_problems(path: Path) -> Iterator[str]:
    """Values that are no numbers, a tensor at a time."""
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                tensor = weights.get_tensor(name)
                if tensor.is_floating_point() and (count := int((~torch.isfinite(tensor)).sum())):
                    yield f"{path.name}: {name} is NaN or infinite in {count:,} of {tensor.numel():,} values."
    except (SafetensorError, OSError) as error:
        yield f"{path.name} cannot be read as safetensors: {error}"


__all__ = ["AUTO_CLASSES", "check_checkpoint", "find_problems", "run_stranger", "select_files"]
