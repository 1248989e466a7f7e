"""CLIP-MG: a CLIP vision tower whose patches are attended by a pose-guided query, fused with the pose by a gate.

Paper: arXiv 2506.16385, which states the parts (frozen CLIP ViT-B/16, a 3-D CNN over OpenPose skeletons, a pose-guided
query that cross-attends the patch tokens, gated fusion) but neither code nor most of the sizes; what is our choice is
marked "ours". Shapes use the symbols of `configuration_clipmg`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple

from .checkpoint_files_clipmg import check_weight_files, safetensors_only, write_first_card
from .configuration_clipmg import CLIPMGConfig
from .pose_encoder_clipmg import CLIPMGPoseEncoder


if TYPE_CHECKING:
    # Saving copies the files that are imported here, and the pipeline belongs to a saved model.
    from .pipeline_clipmg import CLIPMGPipeline  # noqa: F401


@dataclass
class CLIPMGModelOutput(ModelOutput):
    """Output of [`CLIPMGModel`].

    Args:
        fused_embedding (`torch.FloatTensor` of shape `(B, D)`): The fused embedding f.
        gate (`torch.FloatTensor` of shape `(B, D)`, *optional*, with `output_explanation=True`): In [0, 1]; 1 takes
            the visual stream, 0 the pose stream. Only the gated fusion has one.
        semantic_attention (`torch.FloatTensor` of shape `(B, heads, T, H_p, W_p)`, *optional*, with
            `output_explanation=True`): Attention of the query over the patches in the last semantic-attention layer;
            sums to 1 over T, H_p and W_p for each head.
        hidden_states, attentions (`tuple`, *optional*): Of the vision tower, with the frames in the batch:
            `(B * T, 1 + N, D_v)` and `(B * T, heads, 1 + N, 1 + N)`.
    """

    fused_embedding: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    semantic_attention: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class CLIPMGClassifierOutput(ModelOutput):
    """Output of [`CLIPMGForMicroGestureClassification`]: lean by default, only what Trainer needs.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, with `labels`): The loss.
        logits (`torch.FloatTensor` of shape `(B, num_labels)`): Scores before the softmax.
        fused_embedding (`torch.FloatTensor` of shape `(B, D)`, *optional*, in training mode or with
            `output_explanation=True`).
        gate, semantic_attention, hidden_states, attentions (*optional*): As in [`CLIPMGModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    fused_embedding: torch.Tensor | None = None
    gate: torch.Tensor | None = None
    semantic_attention: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(Q K^T / sqrt(d)) V, with the weights, from (B, heads, length, d) to (B, length, heads, d)."""
    weights = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def pool_patches_under_keypoints(
    patches: torch.Tensor, keypoints: torch.Tensor, grid: tuple[int, int], frame_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average the patch tokens under the keypoints (query="pose_pool", ours).

    Each keypoint spreads its confidence over the four nearest patch centres (bilinear weights); points outside the
    frame and points in masked frames add nothing.

    Args:
        patches (`torch.Tensor` of shape `(B, T, N, D_v)`).
        keypoints (`torch.Tensor` of shape `(B, T_p, K, 3)`): T_p must be a multiple of T; zeros where missing.
        grid (`tuple[int, int]`): Rows and columns of the patches, rows * columns = N.
        frame_mask (`torch.Tensor` of shape `(B, T)`, *optional*): False where an RGB frame is missing.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: The average (B, D_v) and whether any point was counted (B, 1).
    """
    num_frames = patches.shape[1]
    if keypoints.shape[1] % num_frames:
        raise ValueError(
            f"query='pose_pool' needs a whole number of pose frames per RGB frame, got {keypoints.shape[1]} pose "
            f"frames for {num_frames} RGB frames."
        )
    x, y, confidence = keypoints.float().unbind(-1)
    inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    rows = torch.arange(grid[0], device=x.device)
    columns = torch.arange(grid[1], device=x.device)
    row_weights = (1 - (y.unsqueeze(-1) * grid[0] - 0.5 - rows).abs()).clamp(min=0)
    column_weights = (1 - (x.unsqueeze(-1) * grid[1] - 0.5 - columns).abs()).clamp(min=0)
    # (B, T_p, K), (B, T_p, K, rows), (B, T_p, K, columns) -> (B, T_p, rows, columns)
    weights = torch.einsum("btk,btki,btkj->btij", confidence * inside, row_weights, column_weights)
    # (B, T_p, rows, columns) -> (B, T, T_p / T, rows, columns) -> (B, T, N)
    weights = weights.unflatten(1, (num_frames, -1)).sum(dim=2).flatten(2)
    if frame_mask is not None:
        weights = weights * frame_mask.unsqueeze(-1)
    total = weights.sum(dim=(1, 2)).unsqueeze(-1)
    weights = weights / total.clamp(min=1e-6).unsqueeze(-1)
    return torch.einsum("btn,btnd->bd", weights.to(patches.dtype), patches), total > 0


class CLIPMGSemanticQuery(nn.Module):
    """The pose-guided semantic query q = LayerNorm(W_q [frames ; pose]) (stated in words; the form is ours).

    A missing pose is replaced by a learned token, in an `nn.Embedding` so that PEFT can train it. Missing frames need
    none: the fusion drops what their query finds.
    """

    def __init__(self, config: CLIPMGConfig):
        super().__init__()
        self.uses_frames = config.query != "pose"
        self.null_pose = nn.Embedding(1, config.pose_hidden_size) if config.uses_pose else None
        size = config.vision_hidden_size * self.uses_frames + config.pose_hidden_size * config.uses_pose
        self.projection = nn.Linear(size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, frames: torch.Tensor, pose: torch.Tensor, pose_present: torch.Tensor) -> torch.Tensor:
        """Build the query: frames (B, D_v), pose (B, D_p), pose_present (B, 1) -> (B, 1, D)."""
        parts = [frames] if self.uses_frames else []
        if self.null_pose is not None:
            null_pose = self.null_pose(torch.zeros_like(pose_present[:, 0], dtype=torch.long))
            parts.append(torch.where(pose_present, pose, null_pose.to(pose.dtype)))
        return self.norm(self.projection(torch.cat(parts, dim=-1))).unsqueeze(1)


class CLIPMGSemanticAttention(nn.Module):
    """Multi-head cross-attention of the query over the patch tokens: softmax(Q K^T / sqrt(d)) V (stated)."""

    def __init__(self, config: CLIPMGConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        # (B, length, D) -> (B, heads, length, head_dim)
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def forward(self, query: torch.Tensor, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Attend: query (B, 1, D), tokens (B, T * N, D_v) -> (B, 1, D)."""
        if self._reads_tokens(attention_mask):
            return self._attend_to_tokens(query, tokens, attention_mask)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, _ = attention_interface(
            self,
            self._split_heads(self.q_proj(query)),
            self._split_heads(self.k_proj(tokens)),
            self._split_heads(self.v_proj(tokens)),
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=self.is_causal,
        )
        # (B, 1, heads, head_dim) -> (B, 1, D)
        return self.out_proj(attended.flatten(2))

    def weigh(self, query: torch.Tensor, tokens: torch.Tensor, token_mask: torch.Tensor | None) -> torch.Tensor:
        """Return the attention weights (B, heads, T * N), which the fused kernels do not give, without dropout."""
        if self._reads_tokens(None):
            weights = self._score_tokens(query, tokens)
        else:
            keys = self._split_heads(self.k_proj(tokens))
            weights = torch.matmul(self._split_heads(self.q_proj(query)), keys.transpose(-1, -2)).squeeze(2)
            weights = weights.float() * self.scaling
        if token_mask is not None:
            weights = weights.masked_fill(~token_mask.unsqueeze(1), -torch.inf)
        return weights.softmax(dim=-1)

    def _reads_tokens(self, attention_mask: Any) -> bool:
        """Whether keys and values of the tokens are left out: without gradients, with plain layers and masks.

        A clip asks once. So a head turns its query into one over tokens, q (W_k x + b) = (q W_k) x + constant, and
        projects the mean of the tokens instead of each token: the same up to rounding, for a thirtieth of the work.
        """
        is_known = attention_mask is None or (isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4)
        if self.training or torch.is_grad_enabled() or not is_known:
            return False
        # Adapters and quantised weights are reached by a call of their layer alone.
        layers = (self.k_proj, self.v_proj)
        return all(type(layer) is nn.Linear and not hasattr(layer.weight, "__tensor_flatten__") for layer in layers)

    def _score_tokens(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Scores up to a constant for each head: query (B, 1, D), tokens (B, T * N, D_v) -> (B, heads, T * N)."""
        # (D, D_v) -> (heads, head_dim, D_v)
        weight = self.k_proj.weight.unflatten(0, (self.num_heads, self.head_dim))
        asked = torch.matmul(self._split_heads(self.q_proj(query)) * self.scaling, weight).squeeze(2)
        return torch.matmul(asked, tokens.transpose(-1, -2)).float()

    def _attend_to_tokens(
        self, query: torch.Tensor, tokens: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> torch.Tensor:
        scores = self._score_tokens(query, tokens)
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attention_mask.squeeze(2), -torch.inf)
        elif attention_mask is not None:
            scores = scores + attention_mask.squeeze(2)
        # (B, heads, T * N), (B, T * N, D_v) -> (B, heads, D_v)
        means = torch.matmul(scores.softmax(dim=-1).to(tokens.dtype), tokens)
        # (heads, D_v, head_dim)
        weight = self.v_proj.weight.unflatten(0, (self.num_heads, self.head_dim)).transpose(-1, -2)
        # (B, heads, 1, head_dim) -> (B, 1, D)
        attended = torch.matmul(means.unsqueeze(2), weight).transpose(1, 2).flatten(2)
        return self.out_proj(attended if self.v_proj.bias is None else attended + self.v_proj.bias)


class CLIPMGSemanticAttentionLayer(GradientCheckpointingLayer):
    """Cross-attention and MLP, each with a residual (one layer; sizes ours). The tokens arrive normalised."""

    def __init__(self, config: CLIPMGConfig):
        super().__init__()
        self.attention = CLIPMGSemanticAttention(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.hidden_size * config.mlp_ratio)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.hidden_size * config.mlp_ratio, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, query: torch.Tensor, tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        query = query + self.dropout(self.attention(query, tokens, attention_mask))
        hidden_states = self.fc2(self.activation(self.fc1(self.norm(query))))
        return query + self.dropout(hidden_states)


class CLIPMGFusion(nn.Module):
    """Fusion of the visual z and the pose p (gated: stated; as in the gated multimodal unit: ours).

    gated: g * tanh(W_z z) + (1 - g) * tanh(W_p p), g = sigmoid(W_g [z ; p] + b), of layer-normalised z and p: without
    the norms (ours) tanh saturates. A clip that lacks a stream has its gate fixed to the other one, so a missing
    stream has no influence. `sum` drops a missing stream, `concat` puts zeros in its place.
    """

    def __init__(self, config: CLIPMGConfig):
        super().__init__()
        size, pose_size = config.hidden_size, config.pose_hidden_size
        self.mode = config.fusion
        if self.mode in ("gated", "sum", "concat"):
            self.visual_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        if self.mode != "visual":
            self.pose_norm = nn.LayerNorm(pose_size, eps=config.layer_norm_eps)
        if self.mode in ("gated", "sum"):
            self.visual_transform = nn.Linear(size, size)
        if self.mode in ("gated", "sum", "pose"):
            self.pose_transform = nn.Linear(pose_size, size)
        if self.mode == "gated":
            self.gate = nn.Linear(size + pose_size, size)
        if self.mode == "concat":
            self.projection = nn.Linear(size + pose_size, size)

    def forward(
        self, visual: torch.Tensor, pose: torch.Tensor, video_present: torch.Tensor, pose_present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Fuse: visual (B, D), pose (B, D_p), video_present, pose_present (B, 1) -> f (B, D) and the gate (B, D)."""
        if self.mode == "visual":
            return visual, None
        pose = torch.where(pose_present, self.pose_norm(pose), 0.0)
        if self.mode == "pose":
            return torch.tanh(self.pose_transform(pose)), None
        visual = torch.where(video_present, self.visual_norm(visual), 0.0)
        if self.mode == "concat":
            return self.projection(torch.cat([visual, pose], dim=-1)), None
        from_visual = torch.tanh(self.visual_transform(visual))
        from_pose = torch.tanh(self.pose_transform(pose))
        if self.mode == "sum":
            return torch.where(video_present, from_visual, 0.0) + torch.where(pose_present, from_pose, 0.0), None
        gate = torch.sigmoid(self.gate(torch.cat([visual, pose], dim=-1)))
        gate = torch.where(video_present, torch.where(pose_present, gate, 1.0), 0.0)
        return gate * from_visual + (1 - gate) * from_pose, gate


class CLIPMGPreTrainedModel(PreTrainedModel):
    """Weight initialisation, loading and the rules for a frozen tower."""

    config: CLIPMGConfig
    config_class = CLIPMGConfig
    base_model_prefix = "clipmg"
    main_input_name = "pixel_values"
    input_modalities = ["video"]
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "CLIPEncoderLayer",
        "CLIPVisionEmbeddings",
        "CLIPMGPoseEncoder",
        "CLIPMGSemanticQuery",
        "CLIPMGSemanticAttentionLayer",
        "CLIPMGFusion",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def is_custom_code(cls) -> bool:
        """Have `_init_weights` called for every module.

        transformers skips CLIP's modules that own no parameter in custom models, and weights missing from a checkpoint
        would get another initialisation than those of a new model.
        """
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, CLIPMGModel) and hasattr(module, "temporal_embedding"):
            init.zeros_(module.temporal_embedding.weight)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """Load a checkpoint from safetensors; see [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            PickledWeightsError: The weights are in pickles alone, or `use_safetensors=False` asks for these.
        """
        with safetensors_only(pretrained_model_name_or_path, kwargs):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        # Loading makes new parameters, all of which require gradients.
        (loaded[0] if isinstance(loaded, tuple) else loaded).apply_vision_freezing()
        return loaded

    @staticmethod
    def _load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs):
        # PEFT adapters come this way alone: the library takes their pickle where they have no safetensors.
        check_weight_files(checkpoint_files or [])
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kwargs)

    def save_pretrained(self, save_directory: str | PathLike, is_main_process: bool = True, *args, **kwargs) -> None:
        """Save weights, configuration and code, and a first `README.md` where there is none.

        See [`~transformers.PreTrainedModel.save_pretrained`]. With `push_to_hub=True` a `README.md` on the Hub stays.
        """
        # Before the rest: what is pushed is what this method of the library writes.
        if is_main_process and self._auto_class is not None and not getattr(self, "_hf_peft_config_loaded", False):
            is_head = isinstance(self, CLIPMGForMicroGestureClassification)
            write_first_card(save_directory, "AutoModelForVideoClassification" if is_head else "AutoModel")
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)

    @classmethod
    def from_clip(
        cls,
        pretrained_model_name_or_path: str | PathLike,
        *,
        revision: str = "main",
        cache_dir: str | PathLike | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str = torch.float32,
        attn_implementation: str | None = None,
        **config_values: Any,
    ) -> Self:
        """Start from the vision tower of a CLIP checkpoint; everything else is new. The model is in eval mode.

        Args:
            pretrained_model_name_or_path (`str` or `PathLike`): Name or folder of a `CLIPModel` or `CLIPVisionModel`
                checkpoint of any size, e.g. `"openai/clip-vit-base-patch16"`.
            revision, cache_dir, token, local_files_only: As in `from_pretrained`.
            dtype (`torch.dtype` or `str`, *optional*, defaults to float32): Type of the whole model; `"auto"` takes
                that of the checkpoint.
            attn_implementation (`str`, *optional*): `"eager"`, `"sdpa"`, `"flash_attention_2"`, ...
            config_values: Fields of [`CLIPMGConfig`], e.g. `num_trainable_vision_layers=2` or `id2label=...`.

        Raises:
            ValueError: The checkpoint is not a CLIP model (the message names its type), lacks weights of the tower, or
                has pickled ones alone.
            OSError: There is no such checkpoint.
        """
        name = fspath(pretrained_model_name_or_path)
        # No name on the Hub looks like this; the Hub's own message would be about how to spell one.
        if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not Path(name).is_dir():
            raise FileNotFoundError(f"There is no folder {name}.")
        hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
        hub["local_files_only"] = local_files_only
        clip_config = AutoConfig.from_pretrained(name, **hub)
        if clip_config.model_type not in ("clip", "clip_vision_model"):
            raise ValueError(
                f"{name} holds a model of type {clip_config.model_type!r}; from_clip expects "
                "a CLIPModel ('clip') or CLIPVisionModel ('clip_vision_model') checkpoint."
            )
        if "vision_config" in config_values:
            raise ValueError("from_clip takes vision_config from the checkpoint; leave it out.")
        vision_config = getattr(clip_config, "vision_config", clip_config)
        config = CLIPMGConfig(vision_config=vision_config.to_dict(), **config_values)
        tower = _load_clip_tower(name, dtype=dtype, **hub)
        model = cls._from_config(config, dtype=tower.dtype, attn_implementation=attn_implementation)
        if model.vision_tower is not None:
            model.vision_tower.load_state_dict(tower.state_dict())
        return model.eval()

    @property
    def vision_tower(self) -> CLIPVisionModel | None:
        """The CLIP vision tower, or `None` with fusion="pose"."""
        return cast(CLIPMGModel, self.base_model).vision_model

    def get_input_embeddings(self) -> nn.Module:
        """Return the patch embedding, or the first convolution over heatmaps in a model without vision tower."""
        if self.vision_tower is None:
            return self.base_model.get_submodule("pose_encoder.conv1.conv")
        return self.vision_tower.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace what `get_input_embeddings` returns."""
        if self.vision_tower is None:
            self.base_model.set_submodule("pose_encoder.conv1.conv", value)
        else:
            self.vision_tower.set_input_embeddings(value)

    def apply_vision_freezing(self, num_trainable_layers: int | None = None) -> None:
        """Freeze the tower but for its last layers, and put what is frozen in eval mode.

        Args:
            num_trainable_layers (`int`, *optional*): As `num_trainable_vision_layers` of the configuration, which it
                replaces when given.

        Raises:
            ValueError: The tower has fewer layers; nothing is changed.
        """
        if num_trainable_layers is not None:
            replaced = self.config.num_trainable_vision_layers
            self.config.num_trainable_vision_layers = num_trainable_layers
            try:
                self.config.validate_architecture()
            except ValueError:
                self.config.num_trainable_vision_layers = replaced
                raise
        tower = self.vision_tower
        if tower is None:
            return
        num_trainable_layers = self.config.num_trainable_vision_layers
        tower.requires_grad_(num_trainable_layers == -1)
        if num_trainable_layers > 0:
            tower.encoder.layers[-num_trainable_layers:].requires_grad_(True)
            tower.post_layernorm.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for parts of the tower in which nothing is trained: those stay in eval mode.

        A block that holds LoRA adapters trains something, and follows `mode`.
        """
        super().train(mode)
        if (tower := self.vision_tower) is not None:
            for part in (tower, tower.embeddings, tower.pre_layrnorm, *tower.encoder.layers, tower.post_layernorm):
                if not any(parameter.requires_grad for parameter in part.parameters()):
                    part.eval()
        return self


def _load_clip_tower(name_or_path: str | PathLike, **kwargs: Any) -> CLIPVisionModel:
    verbosity = logging.get_verbosity()
    # The report of a CLIPModel checkpoint would list its hundred text weights as unexpected.
    logging.set_verbosity_error()
    try:
        with safetensors_only(name_or_path, kwargs):
            loaded: Any = CLIPVisionModel.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    finally:
        logging.set_verbosity(verbosity)
    tower, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{name_or_path} lacks {len(missing)} weights of the vision tower: {', '.join(missing[:4])}, ..."
        )
    return tower


class CLIPMGModel(CLIPMGPreTrainedModel):
    """CLIP-MG without the classifier: frames and keypoints to one fused embedding per clip."""

    def __init__(self, config: CLIPMGConfig):
        super().__init__(config)
        self.pose_encoder = CLIPMGPoseEncoder(config) if config.uses_pose else None
        self.vision_model = CLIPVisionModel._from_config(config.vision_config) if config.uses_vision else None
        if config.uses_vision and config.use_semantic_attention:
            self.temporal_embedding = nn.Embedding(config.num_frames, config.vision_hidden_size)
            self.semantic_query = CLIPMGSemanticQuery(config)
            self.semantic_attention = nn.ModuleList(
                CLIPMGSemanticAttentionLayer(config) for _ in range(config.num_hidden_layers)
            )
        elif config.uses_vision:
            self.patch_projection = nn.Linear(config.vision_hidden_size, config.hidden_size)
        self.fusion = CLIPMGFusion(config)
        self.post_init()
        self.apply_vision_freezing()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        keypoints: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        keypoint_mask: torch.Tensor | None = None,
        has_pose: torch.Tensor | None = None,
        output_explanation: bool = False,
        interpolate_pos_encoding: bool = False,
        vision_tokens: torch.Tensor | None = None,
        pose_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CLIPMGModelOutput:
        """Embed clips. Masked frames and points have no influence, on outputs or gradients, whatever they hold.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, T, 3, H, W)`, *optional*): Normalised RGB frames, T at most
                `config.num_frames`. May be left out when keypoints are given.
            keypoints (`torch.FloatTensor` of shape `(B, T_p, K, 3)`, *optional*): x, y in [0, 1] of the processed
                frame ((0, 0) its top left corner, (1, 1) its bottom right corner) and confidence; finite where not
                masked. A confidence of 0 marks a missing point. Keep them in float32 whatever the model's precision.
                `None`: no clip of the batch has a pose.
            frame_mask (`torch.BoolTensor` of shape `(B, T)`, *optional*): False where an RGB frame is missing. A clip
                without any takes the pose-only path.
            keypoint_mask (`torch.BoolTensor` of shape `(B, T_p)`, *optional*): False where a pose frame is missing.
            has_pose (`torch.BoolTensor` of shape `(B,)`, *optional*): False where the whole clip has no pose.
            output_explanation (`bool`, *optional*, defaults to `False`): Also return gate and semantic attention.
            interpolate_pos_encoding (`bool`, *optional*, defaults to `False`): Take frames of another size than the
                tower was trained for.
            vision_tokens (`torch.FloatTensor` of shape `(B, T, 1 + N, D_v)`, *optional*): What `encode_frames` made of
                the frames, in place of `pixel_values`: a frozen tower need not run again. N is that of
                `config.vision_config.image_size`.
            pose_features (`torch.FloatTensor` of shape `(B, T_p, C, h, w)` or `(B, D_p)`, *optional*): What
                `pose_encoder.encode_frames` made of the keypoints, with zeros where they are missing or masked, or
                what the whole encoder did; `keypoints` are needed all the same.

        Raises:
            ValueError: A shape disagrees with the configuration, or neither stream that the model needs is given.
        """
        frames = self._check_frames(pixel_values, vision_tokens)
        self._check_inputs(frames, keypoints, frame_mask=frame_mask, keypoint_mask=keypoint_mask, has_pose=has_pose)
        self._check_pose_features(pose_features, keypoints)
        # A stream that the whole batch lacks is one that every clip lacks.
        first = cast(torch.Tensor, frames if keypoints is None else keypoints)
        video_present = pose_present = first.new_zeros(first.shape[0], 1, dtype=torch.bool)
        visual = first.new_zeros(first.shape[0], self.config.hidden_size, dtype=self.dtype)
        pose = first.new_zeros(first.shape[0], self.config.pose_hidden_size, dtype=self.dtype)
        attention, vision_outputs = None, BaseModelOutputWithPooling()
        if keypoints is not None and self.pose_encoder is not None:
            keypoints = _mask_keypoints(keypoints, keypoint_mask, has_pose)
            pose, pose_present = self._encode_pose(keypoints, pose_features)
        if frames is not None and self.vision_model is not None:
            frames, frame_mask, video_present = _mask_frames(frames, frame_mask)
            patch_size = cast(int, self.vision_model.config.patch_size)
            if vision_tokens is None:
                tokens, vision_outputs = self.encode_frames(
                    frames, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs
                )
                grid = (frames.shape[-2] // patch_size, frames.shape[-1] // patch_size)
            else:
                tokens = frames.to(self.dtype)
                grid = (cast(int, self.vision_model.config.image_size) // patch_size,) * 2
            visual, attention = self._read_tokens(
                tokens, grid, frame_mask, keypoints, pose, pose_present, output_explanation
            )
        fused_embedding, gate = self.fusion(visual, pose, video_present, pose_present)
        return CLIPMGModelOutput(
            fused_embedding=fused_embedding,
            gate=gate if output_explanation else None,
            semantic_attention=attention,
            hidden_states=vision_outputs.hidden_states,
            attentions=vision_outputs.attentions,
        )

    def encode_frames(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, BaseModelOutputWithPooling]:
        """Tokens that the model reads: pixel_values (B, T, 3, H, W) -> (B, T, 1 + N, D_v), and the tower's outputs."""
        assert self.vision_model is not None
        # (B, T, 3, H, W) -> (B * T, 3, H, W)
        outputs = self.vision_model(pixel_values.flatten(0, 1), **kwargs)
        # The paper does not say which layer norm: CLIP's own, on CLS and patches alike, no projection (ours).
        tokens = self.vision_model.post_layernorm(outputs.last_hidden_state)
        # (B * T, 1 + N, D_v) -> (B, T, 1 + N, D_v)
        return tokens.unflatten(0, pixel_values.shape[:2]), outputs

    def _check_frames(
        self, pixel_values: torch.Tensor | None, vision_tokens: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Whichever form the frames have; a ValueError for both, or for another shape than the model reads."""
        if pixel_values is not None and vision_tokens is not None:
            raise ValueError("Got pixel_values and vision_tokens; expected one of them.")
        name, frames, last = "pixel_values", pixel_values, "3, height, width"
        fits = frames is None or frames.ndim == 5
        if vision_tokens is not None:
            vision_config = cast(CLIPVisionConfig, self.config.vision_config)
            num_patches = (cast(int, vision_config.image_size) // cast(int, vision_config.patch_size)) ** 2
            name, frames, last = "vision_tokens", vision_tokens, f"{1 + num_patches}, {vision_config.hidden_size}"
            fits = frames.ndim == 4 and frames.shape[2:] == (1 + num_patches, vision_config.hidden_size)
        if frames is not None and not (fits and 1 <= frames.shape[1] <= self.config.num_frames):
            raise ValueError(
                f"{name} must have the shape (clips, 1 to num_frames={self.config.num_frames} frames, {last}), got "
                f"{tuple(frames.shape)}."
            )
        return frames

    def _check_inputs(
        self, frames: torch.Tensor | None, keypoints: torch.Tensor | None, **masks: torch.Tensor | None
    ) -> None:
        config = self.config
        streams = {
            "pixel_values (or vision_tokens)": (config.uses_vision, frames),
            "keypoints": (config.uses_pose, keypoints),
        }
        readable = {name: values for name, (used, values) in streams.items() if used}
        if all(values is None for values in readable.values()):
            raise ValueError(f"A model with fusion={config.fusion!r} needs {' or '.join(readable)}, got None.")
        if keypoints is not None and (keypoints.ndim != 4 or keypoints.shape[2:] != (config.num_keypoints, 3)):
            raise ValueError(
                f"keypoints must have the shape (clips, pose frames, num_keypoints={config.num_keypoints}, 3), got "
                f"{tuple(keypoints.shape)}; this model reads the layout {config.keypoint_layout!r}."
            )
        if frames is not None and keypoints is not None and frames.shape[0] != keypoints.shape[0]:
            name = "pixel_values" if frames.ndim == 5 else "vision_tokens"
            raise ValueError(f"Got {frames.shape[0]} clips in {name} and {keypoints.shape[0]} in keypoints.")
        for name, mask in masks.items():
            if mask is None:
                continue
            stream = "pixel_values (or vision_tokens)" if name == "frame_mask" else "keypoints"
            masked = streams[stream][1]
            if masked is None:
                raise ValueError(f"Got {name} {tuple(mask.shape)} without {stream}, which it masks.")
            expected = masked.shape[:1] if name == "has_pose" else masked.shape[:2]
            if mask.shape != expected:
                raise ValueError(f"{name} must have the shape {tuple(expected)}, got {tuple(mask.shape)}.")

    def _check_pose_features(self, pose_features: torch.Tensor | None, keypoints: torch.Tensor | None) -> None:
        if pose_features is None:
            return
        if keypoints is None:
            raise ValueError(f"Got pose_features {tuple(pose_features.shape)} without keypoints; expected both.")
        whole = (keypoints.shape[0], self.config.pose_hidden_size)
        if pose_features.ndim == 2:
            fits = pose_features.shape == whole
        else:
            fits = pose_features.ndim == 5 and pose_features.shape[:2] == keypoints.shape[:2]
        if not fits:
            raise ValueError(
                f"pose_features must have the shape {whole} or {(*keypoints.shape[:2], 'C', 'h', 'w')}, as keypoints "
                f"{tuple(keypoints.shape)} have so many clips and frames; got {tuple(pose_features.shape)}."
            )

    def _encode_pose(
        self, keypoints: torch.Tensor, pose_features: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pose embeddings (B, D_p) of masked keypoints (B, T_p, K, 3), and which clips have a point (B, 1)."""
        encoder = cast(CLIPMGPoseEncoder, self.pose_encoder)
        visible = (keypoints[..., 2] > 0).any(dim=-1)
        if pose_features is None:
            pose = encoder(keypoints)
        elif pose_features.ndim == 2:
            pose = pose_features.to(self.dtype)
        else:
            pose = encoder.combine(pose_features.to(self.dtype), visible)
        return pose, visible.any(dim=1, keepdim=True)

    def _read_tokens(
        self,
        tokens: torch.Tensor,
        grid: tuple[int, int],
        frame_mask: torch.Tensor | None,
        keypoints: torch.Tensor | None,
        pose: torch.Tensor,
        pose_present: torch.Tensor,
        output_explanation: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens (B, T, 1 + N, D_v) to z (B, D) and, on request, attention weights (B, heads, T, H_p, W_p)."""
        # (B, T, 1 + N, D_v) -> (B, T, D_v) and (B, T, N, D_v)
        frames, patches = tokens[:, :, 0], tokens[:, :, 1:]
        if not self.config.use_semantic_attention:
            return self.patch_projection(_mean_over_frames(patches.mean(dim=2), frame_mask)), None
        frames = _mean_over_frames(frames, frame_mask)
        if self.config.query == "pose_pool" and keypoints is not None:
            pooled, found = pool_patches_under_keypoints(patches, keypoints, grid, frame_mask)
            frames = torch.where(found, pooled, frames)
        query = self.semantic_query(frames, pose, pose_present)
        num_frames, num_patches = patches.shape[1:3]
        positions = self.temporal_embedding(torch.arange(num_frames, device=patches.device))
        # (B, T, N, D_v) -> (B, T * N, D_v)
        patches = (patches + positions.unsqueeze(1)).flatten(1, 2)
        token_mask, attention_mask = None, None
        if frame_mask is not None:
            # (B, T) -> (B, T * N)
            token_mask = frame_mask.repeat_interleave(num_patches, dim=1)
            attention_mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=query,
                attention_mask=token_mask,
                encoder_hidden_states=patches,
                # To find out whether anything is masked, the host would wait for the device.
                allow_is_bidirectional_skip=False,
            )
        asked = query
        for layer in self.semantic_attention:
            asked, query = query, layer(query, patches, attention_mask)
        weights = None
        if output_explanation:
            last = cast(CLIPMGSemanticAttentionLayer, self.semantic_attention[-1])
            # (B, heads, T * N) -> (B, heads, T, H_p, W_p)
            weights = last.attention.weigh(asked, patches, token_mask).unflatten(-1, (num_frames, *grid))
        return query.squeeze(1), weights


def _mask_keypoints(
    keypoints: torch.Tensor, keypoint_mask: torch.Tensor | None, has_pose: torch.Tensor | None
) -> torch.Tensor:
    """Put zeros where a point (B, T_p, K, 3) is missing or masked."""
    valid = keypoints[..., 2] > 0
    if keypoint_mask is not None:
        valid = valid & keypoint_mask.unsqueeze(-1).bool()
    if has_pose is not None:
        valid = valid & has_pose[:, None, None].bool()
    return torch.where(valid.unsqueeze(-1), keypoints, 0.0)


def _mask_frames(
    frames: torch.Tensor, frame_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Zero masked frames (B, T, ...); also the mask (B, T) to attend with and what clips have a frame (B, 1)."""
    if frame_mask is None:
        return frames, None, torch.ones_like(frames.flatten(1)[:, :1], dtype=torch.bool)
    frame_mask = frame_mask.bool()
    video_present = frame_mask.any(dim=1, keepdim=True)
    frames = torch.where(frame_mask.reshape(*frame_mask.shape, *[1] * (frames.ndim - 2)), frames, 0.0)
    # A softmax needs something to attend to; what it finds there is dropped later.
    return frames, frame_mask | ~video_present, video_present


def _mean_over_frames(features: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of (B, T, D_v) over the unmasked frames."""
    if frame_mask is None:
        return features.mean(dim=1)
    weights = frame_mask / frame_mask.sum(dim=1, keepdim=True)
    return (features * weights.unsqueeze(-1).to(features.dtype)).sum(dim=1)


class CLIPMGForMicroGestureClassification(CLIPMGPreTrainedModel):
    """CLIP-MG with its classification head: layer norm, dropout and a linear layer (head: ours)."""

    def __init__(self, config: CLIPMGConfig):
        super().__init__(config)
        self.num_labels = cast(int, config.num_labels)
        # The class name maps to no loss of the library; this one handles every `problem_type`.
        self.loss_type = "ForVideoClassification"
        self.clipmg = CLIPMGModel(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        keypoints: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        keypoint_mask: torch.Tensor | None = None,
        has_pose: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_explanation: bool = False,
        vision_tokens: torch.Tensor | None = None,
        pose_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CLIPMGClassifierOutput:
        """Classify clips.

        Args:
            pixel_values, keypoints, frame_mask, keypoint_mask, has_pose, output_explanation, vision_tokens,
                pose_features: As in [`CLIPMGModel.forward`].
            labels (`torch.Tensor` of shape `(B,)` or `(B, num_labels)`, *optional*): Class ids in
                [0, num_labels - 1]; one float per class for multi-label classification.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        outputs: CLIPMGModelOutput = self.clipmg(
            pixel_values=pixel_values,
            keypoints=keypoints,
            frame_mask=frame_mask,
            keypoint_mask=keypoint_mask,
            has_pose=has_pose,
            output_explanation=output_explanation,
            vision_tokens=vision_tokens,
            pose_features=pose_features,
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(self.norm(outputs.fused_embedding)))
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return CLIPMGClassifierOutput(
            loss=loss,
            logits=logits,
            # A loss may need it; it is too wide to gather in every evaluation.
            fused_embedding=outputs.fused_embedding if output_explanation or self.training else None,
            gate=outputs.gate,
            semantic_attention=outputs.semantic_attention,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        loss = self.loss_function(
            labels=labels, pooled_logits=logits, config=self.config, num_items_in_batch=num_items_in_batch
        )
        if num_items_in_batch is not None and self.config.problem_type != "single_label_classification":
            # Only the library's cross-entropy divides by the labels of all accumulated batches, not by this batch's.
            loss = loss * labels.numel() / num_items_in_batch
        return loss


__all__ = [
    "CLIPMGClassifierOutput",
    "CLIPMGForMicroGestureClassification",
    "CLIPMGModel",
    "CLIPMGModelOutput",
    "CLIPMGPreTrainedModel",
]
