"""ViTPose of transformers on the boxes of a person detector of transformers: 17 points of COCO for each person.

Neither needs torchvision: the image processors are transformers' own for PIL, whatever else is installed.
"""

from os import PathLike
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    PreTrainedConfig,
    VitPoseForPoseEstimation,
)

from clipmg_hf.pose.estimators import PoseEstimatorError, check_frames, clean_people, clip_boxes
from clipmg_hf.processing import get_layout


DEFAULT_WEIGHTS = "usyd-community/vitpose-plus-base"
DEFAULT_PERSON_DETECTOR = "PekingU/rtdetr_r50vd_coco_o365"
# ViTPose++ has an expert for each of its data sets; this one learned from COCO.
_COCO_EXPERT = 0


class ViTPoseEstimator:
    """Finds people with a detector and their points with ViTPose; made by [`load_vitpose`].

    Args:
        model, processor: A `VitPoseForPoseEstimation` with 17 points, and its image processor.
        detector, detector_processor: A model for object detection with a class "person", and its image processor.
        min_confidence, min_keypoint_confidence: See [`load_estimator`].
        batch_size: Frames that the detector, and people that ViTPose sees at once.
    """

    name = "vitpose"
    layout = get_layout("coco-17")

    def __init__(
        self,
        model: Any,
        processor: Any,
        detector: Any,
        detector_processor: Any,
        *,
        min_confidence: float = 0.5,
        min_keypoint_confidence: float = 0.1,
        batch_size: int = 16,
    ):
        self.model = model
        self.processor = processor
        self.detector = detector
        self.detector_processor = detector_processor
        self.min_confidence = min_confidence
        self.min_keypoint_confidence = min_keypoint_confidence
        self.batch_size = batch_size
        self._person = _person_label(detector.config)

    @torch.inference_mode()
    def estimate(self, frames: np.ndarray) -> list[np.ndarray]:
        """For each frame (P, 17, 3) float32, see [`PoseEstimator`]."""
        check_frames(frames)
        people: list[np.ndarray] = []
        for start in range(0, len(frames), self.batch_size):
            batch = frames[start : start + self.batch_size]
            people += self._estimate_points(batch, self._detect_people(batch))
        return people

    def _detect_people(self, frames: np.ndarray) -> list[np.ndarray]:
        """(n, H, W, 3) -> n arrays (P, 4) float32: left, top, right, bottom in pixels."""
        height, width = frames.shape[1:3]
        inputs = self.detector_processor(list(frames), input_data_format="channels_last", return_tensors="pt")
        outputs = self.detector(**inputs.to(self.detector.device, self.detector.dtype))
        # In half precision, boxes in pixels would lie on a grid of several pixels.
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        found = self.detector_processor.post_process_object_detection(
            outputs, threshold=self.min_confidence, target_sizes=[(height, width)] * len(frames)
        )
        boxes = [result["boxes"][result["labels"] == self._person].cpu().numpy() for result in found]
        return [clip_boxes(frame_boxes, height, width) for frame_boxes in boxes]

    def _estimate_points(self, frames: np.ndarray, boxes: list[np.ndarray]) -> list[np.ndarray]:
        """Points in the boxes of n frames: n arrays (P, 17, 3) float32."""
        height, width = frames.shape[1:3]
        people = [np.zeros((0, self.layout.num_keypoints, 3), dtype=np.float32) for _ in frames]
        indices = [index for index, frame_boxes in enumerate(boxes) if len(frame_boxes)]
        if not indices:
            return people
        # ViTPose's boxes are left, top, width, height.
        sized = [np.concatenate([boxes[i][:, :2], boxes[i][:, 2:] - boxes[i][:, :2]], axis=1) for i in indices]
        inputs = self.processor(
            [frames[index] for index in indices], boxes=sized, input_data_format="channels_last", return_tensors="pt"
        )
        outputs = [self._run(crops) for crops in inputs["pixel_values"].split(self.batch_size)]
        outputs[0].heatmaps = torch.cat([part.heatmaps.float().cpu() for part in outputs])
        found = self.processor.post_process_pose_estimation(outputs[0], boxes=sized)
        for index, poses in zip(indices, found, strict=True):
            points = [torch.cat([pose["keypoints"], pose["scores"][:, None]], dim=1).numpy() for pose in poses]
            people[index] = clean_people(np.stack(points), height, width, self.min_keypoint_confidence)
        return people

    def _run(self, crops: torch.Tensor) -> Any:
        experts = None
        if self.model.config.backbone_config.num_experts > 1:
            experts = torch.full((len(crops),), _COCO_EXPERT, device=self.model.device)
        return self.model(crops.to(self.model.device, self.model.dtype), dataset_index=experts)


def load_vitpose(
    weights: str | PathLike | None = None,
    person_detector: str | PathLike | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    min_confidence: float = 0.5,
    min_keypoint_confidence: float = 0.1,
) -> ViTPoseEstimator:
    """Load ViTPose and a person detector from folders or from the Hub; for the arguments see [`load_estimator`].

    Raises:
        PoseEstimatorError: Weights that cannot be had, or that are those of another model.
    """
    weights = str(weights or DEFAULT_WEIGHTS)
    person_detector = str(person_detector or DEFAULT_PERSON_DETECTOR)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = _load(AutoConfig, weights, "weights")
    num_keypoints = ViTPoseEstimator.layout.num_keypoints
    if config.model_type != "vitpose" or config.num_labels != num_keypoints:
        found = f"{weights} holds a model of type {config.model_type!r} with {config.num_labels} outputs"
        raise PoseEstimatorError(f"{found}; expected 'vitpose' with {num_keypoints}, such as {DEFAULT_WEIGHTS}.")
    if _person_label(detector_config := _load(AutoConfig, person_detector, "person_detector")) is None:
        found = f"{person_detector} holds a model of type {detector_config.model_type!r} without a class 'person'"
        raise PoseEstimatorError(f"{found}; expected a detector such as {DEFAULT_PERSON_DETECTOR}.")
    model = _load_model(VitPoseForPoseEstimation, weights, "weights", dtype).to(device)
    detector = _load_model(AutoModelForObjectDetection, person_detector, "person_detector", dtype).to(device)
    return ViTPoseEstimator(
        model,
        _load(AutoImageProcessor, weights, "weights", backend="pil"),
        detector,
        _load(AutoImageProcessor, person_detector, "person_detector", backend="pil"),
        min_confidence=min_confidence,
        min_keypoint_confidence=min_keypoint_confidence,
    )


def _person_label(config: PreTrainedConfig) -> int | None:
    names = {str(name).lower(): int(label) for label, name in (config.id2label or {}).items()}
    return names.get("person")


def _load(loader: Any, name: str, argument: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PoseEstimatorError(
            f"{name} cannot be loaded ({reason}); expected a folder saved by save_pretrained, or a model on the Hub. "
            f"Without a network, run `hf download {_hub_name(name, argument)} --local-dir FOLDER` elsewhere and give "
            f"the folder as {argument}."
        ) from error


def _hub_name(name: str, argument: str) -> str:
    default = DEFAULT_WEIGHTS if argument == "weights" else DEFAULT_PERSON_DETECTOR
    return name if name.count("/") == 1 and not name.startswith(("/", ".")) else default


def _load_model(loader: Any, name: str, argument: str, dtype: torch.dtype | None) -> Any:
    """Read safetensors that have all weights of the configuration."""
    model, report = _load(
        loader, name, argument, dtype=dtype or torch.float32, use_safetensors=True, output_loading_info=True
    )
    # transformers would go on with random weights.
    parameters = {parameter_name for parameter_name, _ in model.named_parameters()}
    if missing := sorted(parameters.intersection(report["missing_keys"])):
        raise PoseEstimatorError(f"{name} lacks {len(missing)} weights (first {missing[0]}), expected all.")
    return model.eval()


__all__ = ["DEFAULT_PERSON_DETECTOR", "DEFAULT_WEIGHTS", "ViTPoseEstimator", "load_vitpose"]
