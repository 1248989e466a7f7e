"""The model: configuration, pose encoder, CLIP-MG and its classification head. Travels with the weights to the Hub."""

from .configuration_clipmg import IMIGUE_LABELS, PIPELINE_TASK, CLIPMGConfig
from .modeling_clipmg import (
    CLIPMGClassifierOutput,
    CLIPMGForMicroGestureClassification,
    CLIPMGModel,
    CLIPMGModelOutput,
    CLIPMGPreTrainedModel,
)
from .pipeline_clipmg import CLIPMGPipeline
from .pose_encoder_clipmg import pose_encoder_weights_from_poseconv3d


__all__ = [
    "IMIGUE_LABELS",
    "PIPELINE_TASK",
    "CLIPMGClassifierOutput",
    "CLIPMGConfig",
    "CLIPMGForMicroGestureClassification",
    "CLIPMGModel",
    "CLIPMGModelOutput",
    "CLIPMGPipeline",
    "CLIPMGPreTrainedModel",
    "pose_encoder_weights_from_poseconv3d",
]
