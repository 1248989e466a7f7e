"""What travels to the Hub imports little, reads no environment, opens no network and writes where it is told to."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "modeling").glob("*.py"), *(ROOT / "processing").glob("*.py")])
STANDARD_LIBRARY = {
    "collections", "contextlib", "copy", "ctypes", "dataclasses", "difflib", "enum", "functools", "gc",
    "inspect", "io", "itertools", "json", "logging", "math", "numbers", "os", "pathlib", "re", "tempfile",
    "textwrap", "types", "typing", "weakref",
}  # fmt: skip
LIBRARIES = {"av", "huggingface_hub", "numpy", "torch", "transformers"}
# Of modules that can do more than they are imported for.
PARTS = {
    "os": {"PathLike", "fspath", "getpid", "register_at_fork"},
    "ctypes": {"pythonapi", "py_object"},
    "tempfile": {"TemporaryDirectory"},
    "huggingface_hub": set(),
    "huggingface_hub.dataclasses": {"strict", "validate_typed_dict"},
}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "__builtins__", "globals", "breakpoint"}
FORBIDDEN_ATTRIBUTES = {
    "environ", "getenv", "putenv", "import_module", "pickle", "hub", "hf_hub_download", "snapshot_download", "urlopen",
    "download_url", "define_macro", "CDLL", "cpp_extension", "token_file", "expanduser", "home",
}  # fmt: skip
WRITING = {"write_text", "write_bytes", "touch", "unlink", "rename", "symlink_to", "hardlink_to", "rmdir", "mkdir"}
# Functions that write, into a folder that their caller names.
WRITERS = {("checkpoint_files_clipmg.py", "_write"), ("openpose_clipmg.py", "write_openpose")}
# transformers' own look-up of a checkpoint's file: the one that `from_pretrained` makes too.
LOOKUPS = {("checkpoint_files_clipmg.py", "_check_index")}


def find_problems(name: str, source: str) -> list[str]:
    """What the file does and must not, as `line: what`."""
    problems = []
    for function, node in _nodes(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            problems += [f"{line}: imports {what}" for what in _wrong_imports(node)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PARTS:
            if node.attr not in PARTS[node.value.id]:
                problems.append(f"{line}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES:
            problems.append(f"{line}: .{node.attr}")
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            problems.append(f"{line}: {node.id}")
        elif isinstance(node, ast.Call):
            problems += [f"{line}: {what}" for what in _wrong_calls(node, (name, function))]
    return problems


def _nodes(tree: ast.AST, function: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield inner, node
        yield from _nodes(node, inner)


def _wrong_imports(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.level:
        return [] if node.level == 1 and node.module else ["a package"]
    modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    wrong = [module for module in modules if module.partition(".")[0] not in STANDARD_LIBRARY | LIBRARIES]
    if isinstance(node, ast.Import):
        return wrong + [module for module in modules if module.startswith("huggingface_hub")]
    allowed = PARTS.get(modules[0])
    return wrong + [alias.name for alias in node.names if allowed is not None and alias.name not in allowed]


def _wrong_calls(node: ast.Call, place: tuple[str, str]) -> list[str]:
    called = ast.unparse(node.func)
    last = called.rpartition(".")[2]
    wrong = []
    if called in ("torch.load", "torch.save", "np.load", "np.save", "np.memmap"):
        wrong.append(called)
    if (last in WRITING and place not in WRITERS) or (last == "cached_file" and place not in LOOKUPS):
        wrong.append(f"{called} in {place[1] or 'the module'}")
    if last == "open" and called != "av.open":
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        wrong += [f"{called} to write" for mode in modes if set(mode) <= set("rwxabt+") and set(mode) & set("wxa+")]
    if called == "av.open" and not any(keyword.arg == "options" for keyword in node.keywords):
        wrong.append("av.open of anything")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_code_of_a_checkpoint_is_harmless(path):
    assert find_problems(path.name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import socket",
        "import urllib.request",
        "from urllib import request",
        "import requests",
        "import subprocess",
        "import pickle",
        "import importlib",
        "import huggingface_hub",
        "from huggingface_hub import snapshot_download",
        "from os import environ",
        "from .. import modeling",
        "from . import modeling_clipmg",
        "from clipmg_hf import console",
        "import safetensors.torch, joblib",
        "import os\nos.environ['HF_TOKEN']",
        "import os\nos.getenv('HOME')",
        "import os\nos.system('ls')",
        "def f():\n    import socket",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import torch\ntorch.load('a.bin')",
        "import torch\ntorch.hub.load('a', 'b')",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "open('a', 'w')",
        "open('a', mode='ab')",
        "from pathlib import Path\nPath('a').open('x')",
        "from pathlib import Path\nPath('a').write_text('b')",
        "from pathlib import Path\nPath.home()",
        "import av\nav.open('a')",
        "from transformers.utils import cached_file\ncached_file('a', 'b')",
    ],
)
def test_what_is_not_harmless_is_found(source):
    assert find_problems("modeling_clipmg.py", source)


def test_files_of_both_folders_lie_side_by_side_under_their_own_names():
    names = [path.name for path in FILES if path.name != "__init__.py"]
    assert len(set(names)) == len(names)
    assert all(name.endswith("_clipmg.py") for name in names)
