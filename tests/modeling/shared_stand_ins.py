"""Make the shared model tests of transformers importable as `transformers_tests`.

They come with the source distribution of a release (`make test` unpacks it into `.shared_tests`), which lacks the
three helper folders that `test_modeling_common` and `test_configuration_common` import: those get stand-ins here. The
package name differs from theirs (`tests`), which would clash with our own folder.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import transformers


SHARED_TESTS = Path(__file__).parents[2] / ".shared_tests" / f"transformers-{transformers.__version__}" / "tests"
MISSING = f"{SHARED_TESTS} is absent: `make test` fetches it"
# What the missing folders would define: generation and their export tests are not for this model (ours are in
# `test_integration_clipmg.py`), and composite configurations skip the common keywords.
_STAND_INS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}


def import_shared(name: str) -> ModuleType:
    """Import one of their test modules, e.g. `"test_modeling_common"`."""
    if "transformers_tests" not in sys.modules:
        package = ModuleType("transformers_tests")
        package.__path__ = [str(SHARED_TESTS)]
        sys.modules["transformers_tests"] = package
        for path, contents in _STAND_INS.items():
            folder, _ = path.split(".")
            for module_name in (f"transformers_tests.{folder}", f"transformers_tests.{path}"):
                module = sys.modules.setdefault(module_name, ModuleType(module_name))
                module.__path__ = []
            vars(module).update(contents)
    # `test_configuration_common` reads their `tests/__init__.py`, which is missing too, and uses nothing of it.
    with mock.patch("transformers.utils.direct_transformers_import"):
        return importlib.import_module(f"transformers_tests.{name}")
