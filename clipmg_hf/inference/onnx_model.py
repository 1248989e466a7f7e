"""An exported model in ONNX Runtime, in place of the torch model for inference.

    model, processor = load_model("runs/full/onnx", backend="onnx")

`clipmg_hf.export` writes the folder. A clip takes one graph; a stream of frames takes three, so that each frame goes
through the vision tower once, as with torch. Symbols as in `configuration_clipmg`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipmg_hf.modeling import CLIPMGClassifierOutput, CLIPMGConfig, CLIPMGForMicroGestureClassification


MODEL, RAW_MODEL = "model.onnx", "model_with_preprocessing.onnx"
VISION_TOWER, POSE_FRAMES, WINDOW_HEAD = "vision_tower.onnx", "pose_frames.onnx", "window_head.onnx"
ONNX_WEIGHTS_FILE, DESCRIPTION_FILE = "weights.bin", "preprocessing.json"
EXPORT_FORMAT = "clipmg export 1"
# What the backend reads of a folder, as patterns.
ONNX_FILES = ("*.json", "*.onnx", ONNX_WEIGHTS_FILE)


class OnnxModel:
    """Graphs of one checkpoint, with what `predict_clip` and the streaming engine ask of a model.

    Args:
        folder: Written by `clipmg_hf.export.export_model`.
        config: The configuration that lies in it.
        device: `"cpu"` or `"cuda"` (`"cuda:1"`, ...), which needs the package `onnxruntime-gpu`; by default CUDA where
            ONNX Runtime has it. Tensors come from the CPU and go back there.

    Raises:
        ImportError: The extra `onnx` is missing.
        FileNotFoundError: The folder lacks a file, or one was cut off.
        ValueError: A device that ONNX Runtime does not have, or a folder that is no export.
    """

    def __init__(self, folder: Path, config: CLIPMGConfig, device: str | torch.device | None = None):
        self._runtime = import_onnxruntime()
        self._folder = folder
        self._providers = _choose_providers(self._runtime, device)
        self._sessions: dict[str, Any] = {}
        self.config = config
        self.description = read_description(folder)
        self.training = False
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    def eval(self) -> "OnnxModel":
        """Return itself: graphs do not train."""
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        """Return itself; a ValueError for training mode."""
        if mode:
            raise ValueError(f"{self._folder}: an exported model cannot be trained; expected the checkpoint.")
        return self

    @property
    def base_model(self) -> "OnnxModel":
        """What encodes frames: itself."""
        return self

    @property
    def pose_encoder(self) -> "_OnnxPoseEncoder":
        """What encodes pose frames."""
        return _OnnxPoseEncoder(self)

    @property
    def provider(self) -> str:
        """What runs the graphs, as ONNX Runtime calls it."""
        first = self._providers[0]
        return first if isinstance(first, str) else first[0]

    @property
    def digest(self) -> str:
        """Of all weights and graphs, as the export recorded them."""
        return hashlib.sha256(json.dumps(self.description["files"], sort_keys=True).encode()).hexdigest()[:16]

    def encode_frames(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Tokens of frames: (B, T, 3, H, W) -> (B, T, 1 + N, D_v); `None` stands for the tower's other outputs."""
        tokens = self.run(VISION_TOWER, {"pixel_values": pixel_values.flatten(0, 1)})["vision_tokens"]
        return tokens.unflatten(0, pixel_values.shape[:2]), None

    def __call__(
        self,
        *,
        pixel_values: torch.Tensor | None = None,
        keypoints: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        keypoint_mask: torch.Tensor | None = None,
        vision_tokens: torch.Tensor | None = None,
        pose_features: torch.Tensor | None = None,
        output_explanation: bool = False,
    ) -> CLIPMGClassifierOutput:
        """Classify clips as the torch model does; arguments and outputs are those of its forward.

        Raises:
            ValueError: Tokens with keypoints but without what the pose encoder made of them.
        """
        if vision_tokens is not None and keypoints is not None and pose_features is None and self.config.uses_pose:
            raise ValueError("Got vision_tokens and keypoints without pose_features; expected all three.")
        given = {
            "pixel_values": pixel_values,
            "keypoints": keypoints,
            "frame_mask": frame_mask,
            "keypoint_mask": keypoint_mask,
            "vision_tokens": vision_tokens,
            "pose_features": pose_features,
        }
        inputs = {name: tensor for name, tensor in given.items() if tensor is not None}
        name = WINDOW_HEAD if inputs.keys() & {"vision_tokens", "pose_features"} else MODEL
        outputs = self.run(name, inputs)
        if pixel_values is None and vision_tokens is None:
            # There was nothing to attend to.
            outputs.pop("semantic_attention", None)
        if not output_explanation:
            outputs = {"logits": outputs["logits"]}
        return CLIPMGClassifierOutput(**outputs)

    def run(self, name: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run a graph; a stream that is not among the inputs is missing in all clips, and masks are then `False`."""
        session = self._open(name)
        count = len(next(iter(inputs.values())))
        feed = {}
        for entry in session.get_inputs():
            if entry.name in inputs:
                feed[entry.name] = inputs[entry.name].numpy(force=True)
            else:
                is_given = _STREAM_OF_MASK.get(entry.name, set()) & inputs.keys()
                dtype = bool if entry.type == "tensor(bool)" else np.float32
                feed[entry.name] = np.full((count, *entry.shape[1:]), bool(is_given), dtype)
        values = session.run(None, feed)
        return {
            entry.name: torch.from_numpy(value) for entry, value in zip(session.get_outputs(), values, strict=True)
        }

    def _open(self, name: str) -> Any:
        if name not in self._sessions:
            options = self._runtime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self._sessions[name] = self._runtime.InferenceSession(
                str(self._folder / name), options, providers=self._providers
            )
        return self._sessions[name]


InferenceModel = CLIPMGForMicroGestureClassification | OnnxModel
_STREAM_OF_MASK = {"frame_mask": {"pixel_values", "vision_tokens"}, "keypoint_mask": {"keypoints"}}


class _OnnxPoseEncoder:
    """The layers that see one pose frame at a time."""

    def __init__(self, model: OnnxModel):
        self._model = model

    def encode_frames(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Features of pose frames: (B, T_p, K, 3) -> (B, T_p, C, h, w)."""
        features = self._model.run(POSE_FRAMES, {"keypoints": keypoints.flatten(0, 1)})["pose_features"]
        return features.unflatten(0, keypoints.shape[:2])


def import_onnxruntime() -> Any:
    """The package `onnxruntime`; an ImportError that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("Exported models run in ONNX Runtime: pip install clipmg_hf[onnx].") from error
    return onnxruntime


def read_description(folder: Path) -> dict[str, Any]:
    """What the export says of itself, once all of its files are found to be there in full length.

    Raises:
        FileNotFoundError: A file is missing or was cut off.
        ValueError: The folder is no export.
    """
    path = folder / DESCRIPTION_FILE
    expected = "expected a folder that hub_scripts/export.py has written"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {DESCRIPTION_FILE}; {expected}.")
    try:
        description = json.loads(path.read_bytes())
    except ValueError:
        description = None
    if not isinstance(description, dict) or description.get("format") != EXPORT_FORMAT:
        raise ValueError(f"{path} is no description of an export ({EXPORT_FORMAT!r}); {expected}.")
    for name, facts in description["files"].items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != facts["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise FileNotFoundError(
                f"{folder / name} {found}; expected {facts['bytes']} bytes. Export the model again."
            )
    return description


def _choose_providers(runtime: Any, device: str | torch.device | None) -> list[Any]:
    available = runtime.get_available_providers()
    if device is None:
        device = "cuda" if "CUDAExecutionProvider" in available else "cpu"
    kind, _, index = str(device).partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if kind != "cuda" or "CUDAExecutionProvider" not in available:
        raise ValueError(
            f"device {str(device)!r} cannot be used by ONNX Runtime here; expected cpu, or cuda with the package "
            "onnxruntime-gpu."
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]


__all__ = [
    "DESCRIPTION_FILE",
    "EXPORT_FORMAT",
    "MODEL",
    "ONNX_FILES",
    "ONNX_WEIGHTS_FILE",
    "POSE_FRAMES",
    "RAW_MODEL",
    "VISION_TOWER",
    "WINDOW_HEAD",
    "InferenceModel",
    "OnnxModel",
    "import_onnxruntime",
    "read_description",
]
