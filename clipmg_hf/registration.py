"""Registers CLIP-MG with transformers' Auto classes and pipelines; done once, when `clipmg_hf` is imported."""

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


def register_auto_classes() -> None:
    """Make `Auto*.from_pretrained` find CLIP-MG, and make saving copy the code beside the weights."""
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


__all__ = ["register_auto_classes"]
