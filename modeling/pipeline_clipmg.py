"""The transformers pipeline of CLIP-MG, for videos with or without keypoints.

    from transformers import pipeline

    classifier = pipeline("micro-gesture-classification", model="owner/clip-mg", trust_remote_code=True)
    classifier("clip.mp4", keypoints="openpose_json/", top_k=3)

With `clipmg_hf` imported, its own classes serve and nothing needs to be trusted.
"""

from collections.abc import Mapping, Sequence, Sized
from os import PathLike
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import BatchFeature, Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator


PROCESSOR_ARGUMENTS = ("keypoints", "interval", "interval_unit", "source_layout", "missing_keypoints")
# Of these a batch has one for each clip.
CLIP_ARGUMENTS = ("keypoints", "interval")


class CLIPMGPipeline(Pipeline):
    """Classifies clips; task `"micro-gesture-classification"`."""

    _load_processor: Any = True
    _load_video_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(
                "This pipeline needs a processor; expected a model folder that holds one, or the argument processor."
            )
        # The processor's stand-in for Trainer, which a pipeline would try to save.
        self.tokenizer = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Classify one clip or a list of clips.

        Args:
            inputs: A video as the processor takes it (path, bytes, uint8 frames), or a dictionary with `"video"` and
                any of `keypoints`, `interval`; a list, generator or data set of these is a batch.
            keypoints: OpenPose JSON or an array, as the processor takes them; of a list of clips, one for each.
            interval (`tuple`): `(start, end)`, half open, for a clip of a longer video; of a list of clips, one for
                each.
            interval_unit (`str`, defaults to `"frames"`): `"frames"` or `"seconds"`.
            source_layout (`str`, *optional*): Layout of keypoint arrays; by default told from their number, as in the
                processor.
            missing_keypoints (`str`, defaults to `"mask"`): What happens to points that the source's layout lacks:
                `"mask"` or `"error"`.
            top_k (`int`, defaults to 5): Labels to return.
            batch_size (`int`, defaults to 1): Clips that go through the model at a time.

        Returns:
            `list[dict]`: `label` and `score`, best first; the scores of all labels sum to 1. For a batch a list of
            such lists.

        Raises:
            ValueError: Something cannot be read or does not fit; the message names it.
        """
        if isinstance(inputs, list):
            each = {name: kwargs.pop(name) for name in CLIP_ARGUMENTS if kwargs.get(name) is not None}
            inputs = _pair(inputs, each)
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(
        self, top_k: int | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := sorted(set(kwargs) - set(PROCESSOR_ARGUMENTS)):
            raise TypeError(
                f"Unknown argument {', '.join(unknown)}; expected {', '.join((*PROCESSOR_ARGUMENTS, 'top_k'))}."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; expected at least 1.")
        return kwargs, {}, {} if top_k is None else {"top_k": top_k}

    def preprocess(self, input_: Any, **parameters: Any) -> Any:
        """Read and process one clip."""
        given = {"missing_keypoints": "mask", **parameters}
        if isinstance(input_, Mapping):
            given |= {name: input_[name] for name in input_ if name != "video"}
            input_ = input_.get("video")
        interval = given.pop("interval", None)
        inputs = cast(Any, self.processor)(input_, intervals=interval, **given)
        if "pixel_values" in inputs:
            # Keypoints stay as precise as they are: in half precision they would move by pixels.
            inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return inputs

    def _forward(self, input_tensors: Any, **parameters: Any) -> Any:
        return self.model(**input_tensors)

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, top_k: int = 5
    ) -> list[dict[str, Any]]:
        """Logits (1, C) to the best labels."""
        probabilities = model_outputs["logits"][0].float().softmax(dim=-1)
        scores, ids = probabilities.topk(min(top_k, len(probabilities)))
        names = cast(dict[int, str], self.model.config.id2label)
        return [
            {"score": score, "label": names[id_]} for score, id_ in zip(scores.tolist(), ids.tolist(), strict=True)
        ]

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Save model, processor and code."""
        super().save_pretrained(save_directory, **kwargs)
        # The library's method forgets it.
        cast(Any, self.processor).save_pretrained(save_directory)

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> PipelineIterator:
        """As the library's, with a collator that takes clips: its own pads text and images alone."""
        make = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        clips = make(inputs, self.preprocess, preprocess_params)
        workers = num_workers if make is PipelineDataset else min(num_workers, 1)
        loader = DataLoader(clips, num_workers=workers, batch_size=batch_size, collate_fn=_join_clips)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(outputs, self.postprocess, postprocess_params)


def _pair(videos: list[Any], each: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Give every clip of a batch its own keypoints and interval."""
    for name, values in each.items():
        is_list = isinstance(values, Sequence) and not isinstance(values, str)
        if not is_list or len(values) != len(videos):
            found = f"a list of {len(values)}" if is_list else f"a {type(values).__name__}"
            raise ValueError(f"{name} is {found}; expected a list with one for each of {len(videos)} videos.")
    clips = [video if isinstance(video, Mapping) else {"video": video} for video in videos]
    return [{**clip, **{name: each[name][place] for name in each}} for place, clip in enumerate(clips)]


def _join_clips(clips: list[BatchFeature]) -> BatchFeature:
    """Join processed clips to one batch; one without video gets masked frames, as in a batch of the processor."""
    frames = next((clip["pixel_values"] for clip in clips if "pixel_values" in clip), None)
    if frames is not None and any("pixel_values" not in clip for clip in clips):
        for clip in clips:
            has_video = "pixel_values" in clip
            clip["frame_mask"] = torch.full(frames.shape[:2], has_video)
            if not has_video:
                clip["pixel_values"] = torch.zeros_like(frames)
    return BatchFeature({name: torch.cat([clip[name] for clip in clips]) for name in clips[0]})


__all__ = ["CLIPMGPipeline"]
