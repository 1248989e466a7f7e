"""CLIP-MG: micro-gesture recognition from RGB and pose, as a Hugging Face transformers model package.

Importing it is quick: torch and transformers are imported when one of its names is first used. `Auto*.from_pretrained`
and `pipeline` know CLIP-MG from then on, whichever of transformers and `clipmg_hf` is imported first.
"""

import importlib
from typing import TYPE_CHECKING, Any

from clipmg_hf.registration import register_on_import


if TYPE_CHECKING:
    from clipmg_hf.modeling import (
        IMIGUE_LABELS,
        CLIPMGConfig,
        CLIPMGForMicroGestureClassification,
        CLIPMGModel,
        CLIPMGPreTrainedModel,
    )
    from clipmg_hf.processing import CLIPMGProcessor, CLIPMGVideoProcessor


__version__ = "0.1.0"
__all__ = [
    "IMIGUE_LABELS",
    "CLIPMGConfig",
    "CLIPMGForMicroGestureClassification",
    "CLIPMGModel",
    "CLIPMGPreTrainedModel",
    "CLIPMGProcessor",
    "CLIPMGVideoProcessor",
]
_PROCESSING = ("CLIPMGProcessor", "CLIPMGVideoProcessor")


if not TYPE_CHECKING:  # Type checkers would take any name for one of the package.

    def __getattr__(name: str) -> Any:
        if name in ("modeling", "processing"):
            return importlib.import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        package = importlib.import_module(f"{__name__}.{'processing' if name in _PROCESSING else 'modeling'}")
        globals()[name] = getattr(package, name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_on_import()
