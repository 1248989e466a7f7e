"""Registers CLIP-MG with transformers' Auto classes and pipelines, as soon as a process loads any of them.

`import clipmg_hf` calls `register_on_import`, which imports neither torch nor transformers. Where the Auto classes are
loaded already it registers at once. Where not, it waits for the import that loads them, or our own classes, to end:
only the outermost import of transformers or `clipmg_hf` counts, because within it modules may be half executed.
"""

import contextlib
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    # `importlib.abc` imports half the standard library; its classes add nothing that is needed.
    Loader = MetaPathFinder = object


# Whoever loads one of these may use what is registered: to load by name, or to save with the code.
_TRIGGERS = (
    "transformers.models.auto.configuration_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.pipelines",
    "clipmg_hf.modeling",
    "clipmg_hf.processing",
)
_PACKAGES = ("clipmg_hf", "transformers")


class _Thread(threading.local):
    """How many imports of transformers and `clipmg_hf` this thread is within."""

    depth = 0


_thread = _Thread()


class _Loader(Loader):
    """Loads a module like the loader that it stands for; then registers, if it was the outermost."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        # `python -m` and importlib.resources ask loaders for more than loading.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _thread.depth += 1
        try:
            self._loader.exec_module(module)
        except Exception:
            # What was loaded before it failed stays loaded.
            _register_if_outermost()
            raise
        else:
            _register_if_outermost()
        finally:
            _thread.depth -= 1


class _Finder(MetaPathFinder):
    """Has modules of transformers and `clipmg_hf` found by the finders behind it, and loaded by `_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in _PACKAGES or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                # A namespace package has no loader.
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


_finder = _Finder()


def register_on_import() -> None:
    """Register now if a process can ask for what is registered, else right after the import that lets it."""
    if _is_triggered():
        register_auto_classes()
    elif _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _is_triggered() -> bool:
    return any(name in sys.modules for name in _TRIGGERS)


def _register_if_outermost() -> None:
    if _thread.depth == 1 and _finder in sys.meta_path and _is_triggered():
        register_auto_classes()
        # Another thread may have done the same.
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(_finder)


def register_auto_classes() -> None:
    """Make `Auto*.from_pretrained` find CLIP-MG, and make saving copy the code beside the weights."""
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from clipmg_hf.modeling import (
        PIPELINE_TASK,
        CLIPMGConfig,
        CLIPMGForMicroGestureClassification,
        CLIPMGModel,
        CLIPMGPipeline,
    )
    from clipmg_hf.processing import CLIPMGProcessor, CLIPMGVideoProcessor

    AutoConfig.register(CLIPMGConfig.model_type, CLIPMGConfig, exist_ok=True)
    AutoModel.register(CLIPMGConfig, CLIPMGModel, exist_ok=True)
    AutoModelForVideoClassification.register(CLIPMGConfig, CLIPMGForMicroGestureClassification, exist_ok=True)
    AutoVideoProcessor.register(CLIPMGConfig, CLIPMGVideoProcessor, exist_ok=True)
    AutoProcessor.register(CLIPMGConfig, CLIPMGProcessor, exist_ok=True)
    if PIPELINE_TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            PIPELINE_TASK, pipeline_class=CLIPMGPipeline, pt_model=AutoModelForVideoClassification, type="video"
        )
    CLIPMGConfig.register_for_auto_class()
    CLIPMGModel.register_for_auto_class("AutoModel")
    CLIPMGForMicroGestureClassification.register_for_auto_class("AutoModelForVideoClassification")
    CLIPMGVideoProcessor.register_for_auto_class()
    CLIPMGProcessor.register_for_auto_class()


__all__ = ["register_auto_classes", "register_on_import"]
