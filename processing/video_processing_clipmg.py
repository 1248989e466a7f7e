"""Video processor of CLIP-MG: any video to normalised frames, with PyAV and torch alone."""

import copy
import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from av.container import InputContainer
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import Unpack
from transformers.video_processing_utils import VideoProcessorMixin

from .geometry_clipmg import crop_and_resize, full_frame_crop, sample_frame_indices
from .video_decoding_clipmg import VideoDecodingError, VideoInfo, VideoReader, resolve_frames


class CLIPMGVideoProcessorKwargs(TypedDict, total=False):
    """Settings of [`CLIPMGVideoProcessor`], for good or for one call.

    Not all of `VideosKwargs`: a setting without effect would be accepted in silence.

    Args:
        size (`int` or `dict`): Side of the processed frames in pixels, or equal "height" and "width".
        num_frames (`int`): RGB frames T sampled from a clip.
        pose_frames_per_frame (`int`): Pose frames per RGB frame in the common index grid, T_p / T.
        do_sample_frames (`bool`): `False` keeps every frame of the clip, with its own keypoints.
        image_mean, image_std (`tuple[float, float, float]`): Normalisation of RGB in [0, 1].
        return_tensors (`str`): `"pt"` or `"np"`.
    """

    size: int | dict[str, int] | None
    num_frames: int | None
    pose_frames_per_frame: int | None
    do_sample_frames: bool | None
    image_mean: list[float | int] | tuple[float | int, ...] | None
    image_std: list[float | int] | tuple[float | int, ...] | None
    return_tensors: Literal["pt", "np"] | None


class UntimedFrames:
    """Frames that are known by their number alone: what tells the length of a [`VideoReader`], without its frames.

    Args:
        name (`str`): What errors call them.
        num_frames (`int`): How many there are.
        width, height (`int`): Size in pixels; 0 if unknown.
    """

    def __init__(self, name: str, num_frames: int, width: int = 0, height: int = 0):
        self.info = VideoInfo(
            name=name,
            width=width,
            height=height,
            rotation=0,
            average_rate=float("nan"),
            num_frames=num_frames,
            timestamps=np.full(num_frames, np.nan),
            start_time=0.0,
            duration=float("nan"),
        )

    @property
    def name(self) -> str:
        """What errors call the frames."""
        return self.info.name

    @property
    def num_frames(self) -> int:
        """How many there are."""
        return self.info.num_frames

    def __enter__(self) -> "UntimedFrames":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def resolve_interval(self, start: float | None, end: float | None, unit: str) -> tuple[int, int]:
        """Check a half-open interval as [`VideoReader`] does; there are no seconds."""
        if unit != "frames" and (start, end) != (None, None):
            raise VideoDecodingError(
                f"{self.name}: the interval is in {unit}, but only files have timestamps; expected it in frames."
            )
        return resolve_frames(start, end, self.num_frames, self.name)


class DecodedVideo(UntimedFrames):
    """Frames in memory, behind the interface of [`VideoReader`].

    Args:
        frames (`numpy.ndarray`, `torch.Tensor` or `list`): uint8 RGB of shape (N, H, W, 3) or (N, 3, H, W), or a list
            of frames, which may also be PIL images.
        name (`str`, defaults to `"videos"`): What errors call them.

    Raises:
        VideoDecodingError: Other shapes or types; the message quotes them.
    """

    def __init__(self, frames: Any, name: str = "videos"):
        if isinstance(frames, Sequence):
            frames = [_to_array(frame) for frame in frames]
            if len(sizes := {frame.shape for frame in frames}) > 1:
                raise VideoDecodingError(f"{name}: frames of the shapes {sorted(sizes)}; expected a single one.")
        frames = _to_array(frames)
        if frames.ndim == 4 and frames.shape[-1] != 3 and frames.shape[1] == 3:
            # (N, 3, H, W) -> (N, H, W, 3)
            frames = frames.transpose(0, 2, 3, 1)
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise VideoDecodingError(
                f"{name}: {frames.dtype} values of the shape {frames.shape}; expected a video file or RGB frames "
                "(frames, height, width, 3) or (frames, 3, height, width)."
            )
        if frames.dtype != np.uint8:
            raise VideoDecodingError(f"{name}: {frames.dtype} frames; expected uint8 in 0..255.")
        super().__init__(name, len(frames), width=frames.shape[2], height=frames.shape[1])
        self.frames = frames

    def __enter__(self) -> "DecodedVideo":
        return self

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return the frames at `indices` as uint8 (n, H, W, 3)."""
        return self.frames[indices]

    def iter_frames(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(index, frame)` for `start <= index < end`; frame: uint8 (H, W, 3)."""
        yield from self.iter_read(np.arange(*self.resolve_interval(start, end, "frames")))

    def iter_read(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(index, frame)` for the indices; frame: uint8 (H, W, 3)."""
        for index in indices:
            yield int(index), self.frames[index]


def _to_array(frames: Any) -> np.ndarray:
    if isinstance(frames, torch.Tensor):
        return frames.cpu().numpy()
    return np.asarray(frames.convert("RGB") if hasattr(frames, "convert") else frames)


def open_video(source: Any, name: str = "videos") -> VideoReader | DecodedVideo:
    """Open anything that shows frames: path, bytes, file object, `av` container, arrays, tensors or PIL images.

    Args:
        source: The video; an open [`VideoReader`] or [`DecodedVideo`] is returned as it is.
        name (`str`, defaults to `"videos"`): What errors call frames in memory.

    Raises:
        VideoDecodingError: The source cannot be read; the message names it.
    """
    if hasattr(source, "resolve_interval"):
        return source
    if isinstance(source, str) and "://" in source:
        raise VideoDecodingError(f"{source}: this is a URL; expected the path of a downloaded video.")
    if isinstance(source, str | PathLike) and Path(source).is_file():
        status = Path(source).stat()
        return copy.copy(_scanned_reader(str(source), status.st_size, status.st_mtime_ns))
    if isinstance(source, str | PathLike | bytes | InputContainer) or hasattr(source, "read"):
        return VideoReader(source)
    return DecodedVideo(source, name)


@lru_cache(maxsize=32)
def _scanned_reader(path: str, size: int, modified: int) -> VideoReader:
    """Keep the packet index of a file: many clips are cut from one video, and each would scan all of it again.

    The reader is closed; a copy opens the file for itself.
    """
    reader = VideoReader(path)
    with reader:
        _ = reader.info
    return reader


def split_batch(videos: Any) -> tuple[list[Any], bool]:
    """Tell one clip from a batch: the clips, and whether they came as a batch.

    A list or tuple is a batch unless its first element is a frame (PIL image or 3-D array); a 5-D array is a batch.

    Raises:
        ValueError: There is no clip.
    """
    is_sequence = isinstance(videos, list | tuple)
    if (is_sequence or getattr(videos, "ndim", 0) == 5) and len(videos) == 0:
        raise ValueError("videos: the batch is empty; expected at least one clip.")
    if is_sequence:
        is_frame = hasattr(videos[0], "convert") or getattr(videos[0], "ndim", 0) == 3
        return ([videos], False) if is_frame else (list(videos), True)
    return (list(videos), True) if getattr(videos, "ndim", 0) == 5 else ([videos], False)


class CLIPMGVideoProcessor(VideoProcessorMixin):
    """Turns videos into `pixel_values` (B, T, 3, size, size): sampled, squared, resized and normalised for CLIP.

    Without keypoints nothing says where the person is, so the whole frame is squared with black bars.
    [`CLIPMGProcessor`] crops around the person and shares these steps.

    Args:
        auto_map (`dict`, *optional*): For transformers alone: where the code of a loaded processor lies.
        kwargs: Any of [`CLIPMGVideoProcessorKwargs`]; the class attributes are the defaults.

    Raises:
        TypeError: A name that is not among them.
        ValueError: A value that is not as described there.
    """

    valid_kwargs: Any = CLIPMGVideoProcessorKwargs
    model_input_names = ["pixel_values"]
    size = {"height": 224, "width": 224}
    num_frames = 8
    pose_frames_per_frame = 4
    do_sample_frames = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD

    def __init__(self, auto_map: dict[str, str] | None = None, **kwargs: Unpack[CLIPMGVideoProcessorKwargs]):
        settings = vars(self.resolve_settings(**kwargs))
        super().__init__()
        self._set_attributes(**{name: settings[name] for name in kwargs})
        if auto_map is not None:
            self.auto_map = auto_map

    def preprocess(self, videos: Any, **kwargs: Unpack[CLIPMGVideoProcessorKwargs]) -> BatchFeature:
        """Process one video or a batch.

        Args:
            videos: A path, bytes, file object, `av` container, uint8 frames (arrays, tensors, PIL images), or a list
                of these.
            kwargs: Any of [`CLIPMGVideoProcessorKwargs`], for this call.

        Returns:
            `BatchFeature` with `pixel_values` float32 (B, T, 3, size, size).

        Raises:
            VideoDecodingError: A video cannot be read.
            TypeError, ValueError: A setting is unknown or wrong; clips differ in length with `do_sample_frames=False`.
        """
        settings = self.resolve_settings(**kwargs)
        sources, is_batch = split_batch(videos)
        clips = []
        for index, source in enumerate(sources):
            with open_video(source, f"videos[{index}]" if is_batch else "videos") as video:
                indices, _ = sample_clip(video.num_frames, settings)
                frames = video.read(indices)
                crop = full_frame_crop(frames.shape[2], frames.shape[1])
                clips.append(process_frames(frames, crop, settings))
        return BatchFeature({"pixel_values": stack_clips(clips)}, tensor_type=settings.return_tensors)

    def resolve_settings(self, **kwargs: Any) -> SimpleNamespace:
        """Combine the arguments of one call with the processor's own values, and check them."""
        names = self.valid_kwargs.__annotations__
        check_argument_names(type(self).__name__, kwargs, names)
        validate_typed_dict(self.valid_kwargs, kwargs)
        own = {name: getattr(self, name, None) for name in names}
        given = {name: value for name, value in kwargs.items() if value is not None}
        values = {**own, "return_tensors": "pt", **given}
        settings = SimpleNamespace(**self._standardize_kwargs(**values, default_to_square=True))
        for name in ("num_frames", "pose_frames_per_frame"):
            if getattr(settings, name) < 1:
                raise ValueError(f"{name} is {getattr(settings, name)}; expected at least 1.")
        for name in ("image_mean", "image_std"):
            if len(getattr(settings, name)) != 3:
                raise ValueError(f"{name} is {getattr(settings, name)}; expected a value for each of R, G and B.")
        size = settings.size
        if not size.height or size.height < 1 or size.height != size.width:
            raise ValueError(f"size is {dict(size)}; expected equal height and width, or one integer.")
        return settings

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Build from a saved dictionary; names of classes in it are left out."""
        known = [*cls.valid_kwargs.__annotations__, "auto_map"]
        settings = {name: value for name, value in video_processor_dict.items() if name in known}
        return super().from_dict(settings, **kwargs)

    @classmethod
    def from_json_file(cls, json_file: str | PathLike) -> "CLIPMGVideoProcessor":
        """Build from a file that `to_json_file` has written."""
        return cls.from_dict(json.loads(Path(json_file).read_text(encoding="utf-8")))


def check_argument_names(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a TypeError for the first name in `given` that is not in `known`; it proposes the nearest."""
    known = list(known)
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(known)}."
            raise TypeError(f"{owner} has no argument {name!r}; {hint}")


def sample_clip(
    num_available: int, settings: SimpleNamespace, generator: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Apply `sample_frame_indices` to a clip; without sampling, every frame with its own keypoints."""
    num_frames = settings.num_frames if settings.do_sample_frames else num_available
    generator = generator if settings.do_sample_frames else None
    return sample_frame_indices(num_available, num_frames, settings.pose_frames_per_frame, generator)


def process_frames(
    frames: np.ndarray,
    crop: Any,
    settings: SimpleNamespace,
    change_colours: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Cut, scale and normalise uint8 (T, H, W, 3) to float32 (T, 3, size, size).

    `change_colours` is applied to the scaled frames, uint8 (T, 3, size, size).
    """
    pixels = crop_and_resize(frames, crop, settings.size.height)
    if change_colours is not None:
        pixels = change_colours(pixels)
    return normalize_pixels(pixels, settings.image_mean, settings.image_std)


def stack_clips(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack clips of T frames each into a batch; a ValueError when T differs (`do_sample_frames=False`)."""
    if len(lengths := {len(clip) for clip in clips}) > 1:
        raise ValueError(f"The clips have {sorted(lengths)} frames; expected one length, or do_sample_frames=True.")
    # A single clip, as loaders ask for, needs no copy of its 4.8 MB.
    return clips[0].unsqueeze(0) if len(clips) == 1 else torch.stack(list(clips))


def normalize_pixels(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Scale uint8 (..., 3, H, W) to [0, 1] and normalise each channel; float32, contiguous."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    return values.mul_(1 / (255 * scale)).sub_(shift / scale)


def denormalize_pixels(pixel_values: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Invert `normalize_pixels`: float (..., 3, H, W) to uint8 in 0..255, on the CPU."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
    return ((pixel_values.float().cpu() * scale + shift) * 255).round().clamp(0, 255).to(torch.uint8)


__all__ = [
    "CLIPMGVideoProcessor",
    "CLIPMGVideoProcessorKwargs",
    "DecodedVideo",
    "UntimedFrames",
    "check_argument_names",
    "denormalize_pixels",
    "normalize_pixels",
    "open_video",
    "process_frames",
    "sample_clip",
    "split_batch",
    "stack_clips",
]
