"""CLIP-MG: micro-gesture recognition from RGB and pose, as a Hugging Face transformers model package."""

from clipmg_hf.modeling import (
    IMIGUE_LABELS,
    CLIPMGConfig,
    CLIPMGForMicroGestureClassification,
    CLIPMGModel,
    CLIPMGPreTrainedModel,
)
from clipmg_hf.processing import CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.registration import register_auto_classes


register_auto_classes()


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
