"""Configuration of CLIP-MG: every architectural choice and every ablation is a value here.

Symbols used throughout the package: B clips, T RGB frames, T_p pose frames, K keypoints, N patches per frame, D_v the
width of the CLIP tower, D_p the width of the pose embedding, D the width of the fused embedding.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import CLIPVisionConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .checkpoint_files_clipmg import write_requirements


# The canonical order of iMiGUE: id = raw class - 1, and 31 for the raw class 99 ("illustrative").
IMIGUE_LABELS = (
    "Turtle neck",
    "Bulging face, deep breath",
    "Touching hat",
    "Touching or scratching head",
    "Touching or scratching forehead",
    "Covering face",
    "Rubbing eyes",
    "Touching or scratching facial parts",
    "Touching ears",
    "Biting nails",
    "Touching jaw",
    "Touching or scratching neck",
    "Playing or adjusting hair",
    "Buckle button, pulling shirt collar, adjusting tie",
    "Touching or covering suprasternal notch",
    "Scratching back",
    "Folding arms",
    "Dustoffing clothes",
    "Putting arms behind body",
    "Moving torso",
    "Sitting straightly",
    "Scratching or touching arms",
    "Rubbing or holding hands",
    "Crossing fingers",
    "Minaret gesture",
    "Playing or manipulating objects",
    "Hold back arms",
    "Head up",
    "Pressing lips",
    "Arms akimbo",
    "Shaking shoulders",
    "Illustrative body language",
)

_MODELING_FILE = "modeling_clipmg"
_AUTO_MAP = {
    "AutoConfig": "configuration_clipmg.CLIPMGConfig",
    "AutoModel": f"{_MODELING_FILE}.CLIPMGModel",
    "AutoModelForVideoClassification": f"{_MODELING_FILE}.CLIPMGForMicroGestureClassification",
}
PIPELINE_TASK = "micro-gesture-classification"
_PIPELINE_FILE = "pipeline_clipmg"
_CUSTOM_PIPELINES = {
    PIPELINE_TASK: {
        "impl": f"{_PIPELINE_FILE}.CLIPMGPipeline",
        "pt": ["AutoModelForVideoClassification"],
        "type": "video",
    }
}
# What transformers itself keeps in a configuration beside its declared fields; everything else is a misspelt field.
_LIBRARY_KEYWORDS = frozenset(
    {
        "attn_implementation",
        "auto_map",
        "custom_pipelines",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "peft_type",
        "quantization_config",
        "tie_word_embeddings",
        "torch_dtype",
        # Trainer sets it on every model's configuration.
        "use_cache",
    }
)
_PER_STAGE = ("pose_stage_blocks", "pose_inflate", "pose_spatial_strides", "pose_temporal_strides")


@strict
class CLIPMGConfig(PreTrainedConfig):
    """Configuration of [`CLIPMGModel`] and [`CLIPMGForMicroGestureClassification`].

    The defaults are the full-size model: a frozen CLIP ViT-B/16 (stated by the paper) with the pose encoder, query,
    attention and fusion that this package chose where the paper is silent (see the README, "Stated and chosen").

    Args:
        vision_config (`CLIPVisionConfig` or `dict`, *optional*): The CLIP vision tower; `None` is ViT-B/16 at 224.
        num_trainable_vision_layers (`int`, defaults to 0): 0 freezes the tower, `n` trains its last `n` blocks and
            the final layer norm, -1 trains all of it. LoRA adapters are added with PEFT on top of 0.
        num_frames (`int`, defaults to 8): RGB frames T per clip, and the most that the temporal embedding takes.
        pose_frames_per_frame (`int`, defaults to 4): Pose frames per RGB frame, so T_p = T * pose_frames_per_frame.
        keypoint_layout (`str`, defaults to `"imigue-22"`): Name of the keypoint layout, read by the processor.
        num_keypoints (`int`, defaults to 22): Keypoints K of that layout.
        heatmap_size (`int`, defaults to 56): Height and width of the heatmaps in cells.
        heatmap_sigma (`float`, defaults to 0.6): Standard deviation of the Gaussians in heatmap cells.
        pose_base_width (`int`, defaults to 32): Channels of the pose encoder's stem.
        pose_stage_blocks, pose_inflate, pose_spatial_strides, pose_temporal_strides: One entry per stage of the
            SlowOnly network of PoseConv3D: residual blocks, whether their first convolution spans time, and strides.
        hidden_size (`int`, defaults to 512): Width D of query, attention and fused embedding.
        num_hidden_layers (`int`, defaults to 1): Semantic-attention layers.
        num_attention_heads (`int`, defaults to 8): Heads of the semantic attention.
        mlp_ratio (`int`, defaults to 4): Hidden width of the MLP behind the attention, relative to D.
        hidden_act (`str`, defaults to `"gelu"`): Activation of that MLP.
        hidden_dropout_prob, attention_dropout, classifier_dropout (`float`): Dropout on residual branches, on
            attention weights and before the classifier.
        query (`str`, defaults to `"fused"`): What asks the patches: `"fused"` (frames and pose), `"pose"`, or
            `"pose_pool"` (patches under the keypoints, joined with the pose).
        use_semantic_attention (`bool`, defaults to `True`): `False` replaces the attention by the mean of the patches.
        fusion (`str`, defaults to `"gated"`): `"gated"`, `"concat"`, `"sum"`, or one stream alone: `"visual"` (the
            paper's "no pose" ablation; builds no pose encoder) and `"pose"` (builds no vision tower).
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of our layer norms.
        initializer_range (`float`, defaults to 0.02): Standard deviation for new linear layers.

    Raises:
        huggingface_hub.errors.StrictDataclassError: A value has the wrong type or contradicts another field; the
            message names the field or quotes both values. Also raised by `save_pretrained`.
        TypeError: A keyword is not a field (misspelt); the message names it and the closest field.
        ValueError: `num_labels` disagrees with `id2label`.
    """

    model_type = "clipmg"
    sub_configs = {"vision_config": CLIPVisionConfig}
    keys_to_ignore_at_inference = [
        "fused_embedding",
        "gate",
        "semantic_attention",
        "hidden_states",
        "attentions",
    ]

    # vision tower
    vision_config: dict[str, Any] | CLIPVisionConfig | None = None
    num_trainable_vision_layers: int = 0
    # sampling and keypoints
    num_frames: int = 8
    pose_frames_per_frame: int = 4
    keypoint_layout: str = "imigue-22"
    num_keypoints: int = 22
    # pose encoder
    heatmap_size: int = 56
    heatmap_sigma: float | int = 0.6
    pose_base_width: int = 32
    pose_stage_blocks: list[int] | tuple[int, ...] = (4, 6, 3)
    pose_inflate: list[int] | tuple[int, ...] = (0, 1, 1)
    pose_spatial_strides: list[int] | tuple[int, ...] = (2, 2, 2)
    pose_temporal_strides: list[int] | tuple[int, ...] = (1, 1, 1)
    # semantic attention and fusion
    hidden_size: int = 512
    num_hidden_layers: int = 1
    num_attention_heads: int = 8
    mlp_ratio: int = 4
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_dropout: float | int = 0.1
    query: Literal["fused", "pose", "pose_pool"] = "fused"
    use_semantic_attention: bool = True
    fusion: Literal["gated", "concat", "sum", "visual", "pose"] = "gated"
    # head and initialisation
    classifier_dropout: float | int = 0.5
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs):
        self._refuse_unknown(kwargs)
        if self.vision_config is None:
            self.vision_config = CLIPVisionConfig(patch_size=16)
        elif isinstance(self.vision_config, dict):
            for name in self.vision_config.keys() - CLIPVisionConfig.__dataclass_fields__.keys():
                # CLIP checkpoints carry keys of earlier releases: only what resembles a field is a misspelt one.
                if get_close_matches(name, CLIPVisionConfig.__dataclass_fields__, 1, cutoff=0.8):
                    described = _did_you_mean(name, CLIPVisionConfig.__dataclass_fields__)
                    raise TypeError(f"vision_config has no field {described}.")
            self.vision_config = CLIPVisionConfig(**self.vision_config)
        # JSON has no tuples: a loaded configuration must equal the one that was saved.
        for name in _PER_STAGE:
            setattr(self, name, list(getattr(self, name)))
        self._settle_labels(kwargs.get("num_labels"))
        super().__post_init__(**kwargs)
        self._forget_custom_pipelines()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """Build from saved values; labels among the keywords replace the saved names, ids and number as a whole."""
        saved = config_dict.get("id2label")
        if "id2label" in kwargs or (saved is not None and kwargs.get("num_labels", len(saved)) != len(saved)):
            config_dict = {name: value for name, value in config_dict.items() if name not in ("id2label", "label2id")}
            config_dict |= {name: kwargs.pop(name) for name in ("id2label", "label2id") if name in kwargs}
        return super().from_dict(config_dict, **kwargs)

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        fields = self.__dataclass_fields__
        unknown = sorted(name for name in names if name[0] != "_" and name not in {*fields, *_LIBRARY_KEYWORDS})
        if unknown:
            raise TypeError(f"CLIPMGConfig has no field {', '.join(_did_you_mean(name, fields) for name in unknown)}.")

    def _settle_labels(self, num_labels: int | None) -> None:
        if self.id2label is None and num_labels in (None, len(IMIGUE_LABELS)):
            self.id2label = dict(enumerate(IMIGUE_LABELS))
        if self.id2label is None:
            return
        self.id2label = {int(index): name for index, name in self.id2label.items()}
        if num_labels is not None and num_labels != len(self.id2label):
            raise ValueError(
                f"num_labels={num_labels} disagrees with the {len(self.id2label)} entries of id2label: "
                f"{_shorten(self.id2label)}. Leave num_labels out, or pass matching names."
            )
        if self.label2id is None:
            self.label2id = {name: index for index, name in self.id2label.items()}

    def save_pretrained(self, save_directory: str | PathLike, *args: Any, **kwargs: Any) -> None:
        """Save; beside the code, name the class of every Auto class and the pipeline, not only what was saved."""
        if Path(save_directory, f"{_MODELING_FILE}.py").is_file():
            own = getattr(self, "auto_map", None) or {}
            # The code lies in this folder: "owner/name--file.Class" would fetch that of the Hub.
            self.auto_map = {**_AUTO_MAP, **{name: place for name, place in own.items() if "--" not in place}}
            self.custom_pipelines = _CUSTOM_PIPELINES
            # The model's own `save_pretrained` is too early: its push uploads what the library's method writes.
            write_requirements(save_directory)
        super().save_pretrained(save_directory, *args, **kwargs)
        self._forget_custom_pipelines()

    def _forget_custom_pipelines(self) -> None:
        """Let the installed package serve its pipeline: with this entry transformers insists on the folder's code."""
        is_remote_code = type(self).__module__.startswith(TRANSFORMERS_DYNAMIC_MODULE_NAME)
        if not is_remote_code and hasattr(self, "custom_pipelines"):
            del self.custom_pipelines

    @property
    def num_pose_frames(self) -> int:
        """Pose frames T_p per clip."""
        return self.num_frames * self.pose_frames_per_frame

    @property
    def pose_hidden_size(self) -> int:
        """Width D_p of the pose embedding: bottleneck blocks widen by 4, stages double."""
        return self.pose_base_width * 2 ** (len(self.pose_stage_blocks) - 1) * 4

    @property
    def vision_hidden_size(self) -> int:
        """Width D_v of the vision tower."""
        assert isinstance(self.vision_config, CLIPVisionConfig)
        return self.vision_config.hidden_size

    @property
    def uses_vision(self) -> bool:
        """Whether the model has a vision tower."""
        return self.fusion != "pose"

    @property
    def uses_pose(self) -> bool:
        """Whether the model has a pose encoder."""
        return self.fusion != "visual"

    def validate_architecture(self) -> None:
        """Check the fields against each other; every message quotes both values."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}."
            )
        if len({len(getattr(self, name)) for name in _PER_STAGE}) != 1 or not self.pose_stage_blocks:
            described = ", ".join(f"{name}={list(getattr(self, name))}" for name in _PER_STAGE)
            raise ValueError(f"The pose encoder needs one entry per stage in each of: {described}.")
        if self.fusion == "visual" and self.query != "fused":
            raise ValueError(f"fusion={self.fusion!r} has no pose stream, which query={self.query!r} needs.")
        if isinstance(self.vision_config, CLIPVisionConfig):
            num_layers = self.vision_config.num_hidden_layers
            if not -1 <= self.num_trainable_vision_layers <= num_layers:
                raise ValueError(
                    f"num_trainable_vision_layers={self.num_trainable_vision_layers} must lie in -1..{num_layers}: "
                    f"vision_config.num_hidden_layers={num_layers} (-1 trains the whole tower)."
                )

    def validate_ranges(self) -> None:
        """Check that counts and sizes are positive and that probabilities lie in [0, 1)."""
        positive = (
            "num_frames pose_frames_per_frame num_keypoints heatmap_size heatmap_sigma pose_base_width hidden_size "
            "num_hidden_layers num_attention_heads mlp_ratio"
        )
        for name in positive.split():
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in _PER_STAGE:
            if min(getattr(self, name), default=1) < (name != "pose_inflate"):
                raise ValueError(f"{name} must hold positive numbers, got {getattr(self, name)}.")
        for name in ("hidden_dropout_prob", "attention_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not one of {', '.join(ACT2FN)}.")

    def validate_fields(self) -> None:
        """Check for attributes that are no fields: what could not be loaded again is not saved either."""
        self._refuse_unknown(vars(self))

    def validate_labels(self) -> None:
        """Check that id2label numbers its labels from 0, without repetition, and that label2id is its inverse."""
        id2label, label2id = self.id2label or {}, self.label2id or {}
        if sorted(id2label) != list(range(len(id2label))):
            raise ValueError(f"id2label must number its labels 0..{len(id2label) - 1}, got {sorted(id2label)}.")
        if {int(index): name for name, index in label2id.items()} != id2label:
            raise ValueError(f"label2id {_shorten(label2id)} is not the inverse of id2label {_shorten(id2label)}.")


def _did_you_mean(name: str, fields: Iterable[str]) -> str:
    return f"{name!r}" + "".join(f" (did you mean {match!r}?)" for match in get_close_matches(name, list(fields), 1))


def _shorten(mapping: dict[Any, Any], limit: int = 4) -> str:
    items = [f"{key!r}: {value!r}" for key, value in list(mapping.items())[:limit]]
    return "{" + ", ".join(items) + (", ..." if len(mapping) > limit else "") + "}"


__all__ = ["IMIGUE_LABELS", "PIPELINE_TASK", "CLIPMGConfig"]
