"""Registers CLIP-MG with transformers' Auto classes; done once, when `clipmg_hf` is imported."""

from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from clipmg_hf.modeling import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGModel
from clipmg_hf.processing import CLIPMGProcessor, CLIPMGVideoProcessor


def register_auto_classes() -> None:
    """Make `Auto*.from_pretrained` find CLIP-MG, and make saving copy the code beside the weights."""
    AutoConfig.register(CLIPMGConfig.model_type, CLIPMGConfig, exist_ok=True)
    AutoModel.register(CLIPMGConfig, CLIPMGModel, exist_ok=True)
    AutoModelForVideoClassification.register(CLIPMGConfig, CLIPMGForMicroGestureClassification, exist_ok=True)
    AutoVideoProcessor.register(CLIPMGConfig, CLIPMGVideoProcessor, exist_ok=True)
    AutoProcessor.register(CLIPMGConfig, CLIPMGProcessor, exist_ok=True)
    CLIPMGConfig.register_for_auto_class()
    CLIPMGModel.register_for_auto_class("AutoModel")
    CLIPMGForMicroGestureClassification.register_for_auto_class("AutoModelForVideoClassification")
    CLIPMGVideoProcessor.register_for_auto_class()
    CLIPMGProcessor.register_for_auto_class()


__all__ = ["register_auto_classes"]
