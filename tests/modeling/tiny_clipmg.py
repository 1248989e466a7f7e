"""Tiny random models, inputs and CLIP checkpoints for the tests of `modeling/`."""

import torch
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from clipmg_hf.modeling import CLIPMGConfig


TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 16,
}
TINY = {
    "num_frames": 2,
    "pose_frames_per_frame": 2,
    "num_keypoints": 5,
    "heatmap_size": 16,
    "pose_base_width": 4,
    "pose_stage_blocks": [2, 1],
    "pose_inflate": [0, 1],
    "pose_spatial_strides": [2, 2],
    "pose_temporal_strides": [1, 1],
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
}
# Every combination that the configuration allows: fusion="visual" has no pose to ask with.
ABLATIONS = [
    {"query": query, "fusion": fusion, "use_semantic_attention": attention}
    for query in ("fused", "pose", "pose_pool")
    for fusion in ("gated", "concat", "sum", "visual", "pose")
    for attention in (True, False)
    if query == "fused" or fusion != "visual"
]


def tiny_config(vision: dict | None = None, **values) -> CLIPMGConfig:
    """Tiny configuration; `vision` and `values` replace fields of the tower and of ours."""
    return CLIPMGConfig(vision_config={**TINY_VISION, **(vision or {})}, **{**TINY, **values})


def no_dropout(**values) -> CLIPMGConfig:
    """Tiny configuration whose training mode is deterministic."""
    return tiny_config(**{"hidden_dropout_prob": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0, **values})


def random_inputs(config: CLIPMGConfig, batch_size: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Frames (B, T, 3, H, W) and keypoints (B, T_p, K, 3) inside the frame with confidence in [0.2, 1]."""
    generator = torch.Generator().manual_seed(seed)
    size = config.vision_config.image_size
    pixel_values = torch.randn(batch_size, config.num_frames, 3, size, size, generator=generator)
    keypoints = torch.rand(batch_size, config.num_pose_frames, config.num_keypoints, 3, generator=generator)
    keypoints[..., 2] = 0.2 + 0.8 * keypoints[..., 2]
    return {"pixel_values": pixel_values, "keypoints": keypoints}


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter and running statistic a random value, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            if name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


def save_clip(folder, patch_size: int = 16, image_size: int = 32, vision_only: bool = False, **save_kwargs):
    """Save a tiny random CLIPModel (or CLIPVisionModel) and return it."""
    vision = {**TINY_VISION, "patch_size": patch_size, "image_size": image_size}
    torch.manual_seed(0)
    if vision_only:
        model = CLIPVisionModel(CLIPVisionConfig(**vision))
    else:
        text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = CLIPModel(CLIPConfig(vision_config=vision, text_config={**text, "vocab_size": 50}, projection_dim=16))
    randomise(model)
    model.save_pretrained(folder, **save_kwargs)
    return model
