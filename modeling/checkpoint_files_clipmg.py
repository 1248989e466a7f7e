"""Files of a checkpoint: which weights are read, and what is written beside them, configuration and code."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from transformers.utils import cached_file


CONFIG_FILE, PROCESSOR_FILE = "config.json", "processor_config.json"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
# Code and licences, as patterns.
OTHER_PARTS = ("*.py", "LICENSE*", "NOTICE*")
# What the code of a saved folder needs, with the ranges of the package.
REQUIREMENTS = ("torch>=2.6", "transformers>=5.19", "av>=17.0", "numpy>=1.26", "safetensors>=0.5")
REQUIREMENTS_FILE = "requirements.txt"
CARD_FILE = "README.md"
CARD = """\
---
library_name: transformers
pipeline_tag: video-classification
tags:
- clipmg
- micro-gesture-recognition
---

# CLIP-MG

Micro-gesture recognition from video and body keypoints ([arXiv 2506.16385](https://arxiv.org/abs/2506.16385)).
What it was trained on, and how well it does, is not written here yet.

```bash
pip install -r requirements.txt
```

```python
import transformers

folder = "path/to/this/folder"  # or its name on the Hub
model = transformers.{auto_class}.from_pretrained(folder, trust_remote_code=True)
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)

outputs = model(**processor("clip.mp4", "openpose_json/"))
```

`trust_remote_code=True` runs the Python files of this folder. Read them first, and name the commit that you have read
(`revision="..."`); or install the package `clipmg_hf`, whose own classes then load the same files without it.
"""
# The library's words for a checkpoint without safetensors: in a folder, on the Hub, and of an adapter in a folder.
_NO_SAFETENSORS = ("Error no file named", "cannot be loaded with `safetensors`", "adapter_model.safetensors")


def write_requirements(folder: str | PathLike) -> None:
    """Write `requirements.txt`, in place of one that is there."""
    _write(Path(folder, REQUIREMENTS_FILE), "".join(f"{requirement}\n" for requirement in REQUIREMENTS))


def write_first_card(folder: str | PathLike, auto_class: str) -> None:
    """Write `README.md` if there is none: it says how to load the folder with `auto_class`, and no facts of a run."""
    path = Path(folder, CARD_FILE)
    if not path.exists():
        _write(path, CARD.format(auto_class=auto_class))


class PickledWeightsError(ValueError):
    """A checkpoint has no safetensors, or names other files as its weights."""

    def __init__(self, place: Any):
        super().__init__(
            f"{place}: expected weights in safetensors. A pickle, such as pytorch_model.bin, can run any code and is "
            "never read; whoever trusts it can save its tensors anew with safetensors.torch.save_file."
        )


def check_weight_files(files: Iterable[Any]) -> None:
    """Raise a PickledWeightsError for the first that is no safetensors file."""
    for file in files:
        if not str(file).endswith(".safetensors"):
            raise PickledWeightsError(file)


@contextmanager
def safetensors_only(name_or_path: str | PathLike | None, arguments: dict[str, Any]) -> Iterator[None]:
    """Have `from_pretrained` read safetensors alone within the block.

    Args:
        name_or_path: Folder, name on the Hub, or `None` for weights given as tensors.
        arguments: Those of `from_pretrained`; `use_safetensors` is set.

    Raises:
        PickledWeightsError: There is no such file, or an index of shards names others.
    """
    if arguments.get("use_safetensors") is False:
        raise PickledWeightsError("use_safetensors=False")
    arguments["use_safetensors"] = True
    if name_or_path is not None and Path(name_or_path).is_file():
        check_weight_files([name_or_path])
    elif name_or_path is not None:
        _check_index(name_or_path, arguments)
    try:
        yield
    except OSError as error:
        if any(words in str(error) for words in _NO_SAFETENSORS):
            raise PickledWeightsError(name_or_path) from error
        raise


def _check_index(name_or_path: str | PathLike, arguments: dict[str, Any]) -> None:
    """The library reads whatever files the index of a sharded checkpoint names."""
    variant = f".{arguments['variant']}" if arguments.get("variant") else ""
    names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
    index = cached_file(
        fspath(name_or_path),
        WEIGHTS_INDEX_FILE.replace(".json", f"{variant}.json"),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **{name: arguments[name] for name in names if arguments.get(name) is not None},
    )
    if index is not None:
        check_weight_files(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


__all__ = [
    "CARD",
    "CARD_FILE",
    "CONFIG_FILE",
    "OTHER_PARTS",
    "PROCESSOR_FILE",
    "REQUIREMENTS",
    "REQUIREMENTS_FILE",
    "WEIGHTS_FILE",
    "WEIGHTS_INDEX_FILE",
    "PickledWeightsError",
    "check_weight_files",
    "safetensors_only",
    "write_first_card",
    "write_requirements",
]
