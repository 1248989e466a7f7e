"""Processor of CLIP-MG: frames and keypoints of a clip through one index grid and one square crop.

B clips of T RGB frames and T_p pose frames; K is the number of keypoints of a layout.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_processing_utils import VideoProcessorMixin

from .augmentation_clipmg import (
    ColourChange,
    Purpose,
    Stream,
    child_generator,
    draw_colour_change,
    draw_dropped_stream,
    draw_stretch,
    drop_keypoints,
    shake_keypoints,
)
from .geometry_clipmg import SquareCrop, full_frame_crop, random_resized_crop, subject_crop
from .keypoint_layouts_clipmg import KeypointLayout, convert_keypoints, get_layout, layout_from_count, valid_keypoints
from .openpose_clipmg import read_openpose
from .video_processing_clipmg import (
    CLIPMGVideoProcessor,
    CLIPMGVideoProcessorKwargs,
    UntimedFrames,
    check_argument_names,
    open_video,
    process_frames,
    sample_clip,
    split_batch,
    stack_clips,
)


if TYPE_CHECKING:
    # Loading a folder looks for missing packages among the imports of this file alone, and then names them.
    import av  # noqa: F401

# Far beyond any frame: a coordinate of more pixels is damage, and squares of it still fit float32.
MAX_KEYPOINT_VALUE = 1e6
# In the order of `draw_colour_change`.
_COLOURS = ("brightness", "contrast", "saturation", "hue")
_AMOUNTS = ("keypoint_noise", *_COLOURS)


class CLIPMGProcessorKwargs(ProcessingKwargs, total=False):
    """Keyword arguments of [`CLIPMGProcessor`]."""

    videos_kwargs: CLIPMGVideoProcessorKwargs  # type: ignore[misc]
    _defaults = {}  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class CLIPMGClip:
    """What the processor did to one clip.

    Args:
        name (`str`): The video's path, or what errors call it.
        frame_indices (`numpy.ndarray` int64 of shape `(T,)`): Index of each RGB frame in the whole video.
        pose_frame_indices (`numpy.ndarray` int64 of shape `(T_p,)`): Index of each pose frame in the whole video.
        timestamps (`numpy.ndarray` float64 of shape `(T,)`): Seconds since the video's first frame; NaN for frames in
            memory and for clips without a video.
        crop ([`SquareCrop`]): The square that both streams were cut to.
        width, height (`int`): Size of the source frame in pixels; 0 for clips without a video.
    """

    name: str
    frame_indices: np.ndarray
    pose_frame_indices: np.ndarray
    timestamps: np.ndarray
    crop: SquareCrop
    width: int
    height: int

    def to_source(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 2) in [0, 1] of the processed frame to pixels of the source frame."""
        return self.crop.to_source(points)


@dataclass(frozen=True, eq=False)
class _Keypoints:
    """Keypoints of one clip, or of the whole video that holds it.

    Args:
        name: Their path, or the argument that they came in.
        points: Finite float64 (rows, K, 3) in the model's layout; (0, 0, 0) where missing.
        first_number: Frame that the first row is said to show; 0 for arrays.
    """

    name: str
    points: np.ndarray
    first_number: int


class CLIPMGProcessor(ProcessorMixin):
    """Turns clips and their keypoints into the inputs of CLIP-MG.

    Args:
        video_processor ([`CLIPMGVideoProcessor`]): Sampling, resizing and normalisation of frames.
        keypoint_layout (`str`, defaults to `"imigue-22"`): Layout that the model reads; keypoints of other layouts are
            converted to it.
        crop_padding (`float`, defaults to 0.25): Margin around the person, relative to the side of the keypoints' box.
        augmentation_area (`tuple[float, float]`, defaults to `(0.56, 1.0)`): The share of the crop's area that is
            kept; `(1.0, 1.0)` is off.
        augmentation_flip (`float`, defaults to 0.5): Probability of mirroring, with left and right exchanged.
        augmentation_time (`float`, defaults to 1.0): Least share of the clip's length that is kept, a random stretch
            for both streams; in (0, 1]. Without effect where every frame is kept (`do_sample_frames=False`).
        augmentation_drop_video, augmentation_drop_pose (`float`, defaults to 0.0): Probabilities of hiding one of the
            streams of a clip that has both; their sum is at most 1. A clip without its video is not decoded. A clip
            without its pose shows the whole frame, as it does in prediction without keypoints.
        augmentation_drop_keypoints (`float`, defaults to 0.0): Probability of each keypoint to be missing in the whole
            clip; in [0, 1).
        augmentation_drop_pose_frames (`float`, defaults to 0.0): Probability of each pose frame to lose all of its
            keypoints; in [0, 1). If the two would leave no keypoint in a clip, they leave all.
        augmentation_keypoint_noise (`float`, defaults to 0.0): Standard deviation of x and y, relative to the side of
            the processed frame; whatever the confidence.
        augmentation_brightness, augmentation_contrast, augmentation_saturation (`float`, defaults to 0.0): How far
            the factor, one for all frames of a clip, may lie from 1, as in torchvision's `ColorJitter`.
        augmentation_hue (`float`, defaults to 0.0): Likewise in turns of the colour circle, in [0, 0.5].

    Everything named `augmentation_` takes effect with `augment=True` alone. The crop is chosen from the true keypoints
    of the whole clip, so that the view of the frames depends neither on the stretch nor on lost or noisy keypoints.

    A clip's seed gives one generator, which draws in this order: the frames inside their segments, the RGB frames
    inside their groups, then the square and the mirroring. Stretch, hidden stream, lost keypoints, noise and colours
    each have a child generator (`augmentation_clipmg.child_generator`): none of these changes the draws of another.

    Raises:
        ValueError: An unknown layout, or a number outside its range.
    """

    valid_processor_kwargs: Any = CLIPMGProcessorKwargs
    # Trainer reads the special tokens of every processor's tokenizer.
    tokenizer = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None)

    def __init__(
        self,
        video_processor=None,
        keypoint_layout="imigue-22",
        crop_padding=0.25,
        augmentation_area=(0.56, 1.0),
        augmentation_flip=0.5,
        augmentation_time=1.0,
        augmentation_drop_video=0.0,
        augmentation_drop_pose=0.0,
        augmentation_drop_keypoints=0.0,
        augmentation_drop_pose_frames=0.0,
        augmentation_keypoint_noise=0.0,
        augmentation_brightness=0.0,
        augmentation_contrast=0.0,
        augmentation_saturation=0.0,
        augmentation_hue=0.0,
    ):
        super().__init__(video_processor)
        self.keypoint_layout = get_layout(keypoint_layout).name
        self.crop_padding = crop_padding
        self.augmentation_area = tuple(augmentation_area)
        self.augmentation_flip = augmentation_flip
        self.augmentation_time = augmentation_time
        self.augmentation_drop_video = augmentation_drop_video
        self.augmentation_drop_pose = augmentation_drop_pose
        self.augmentation_drop_keypoints = augmentation_drop_keypoints
        self.augmentation_drop_pose_frames = augmentation_drop_pose_frames
        self.augmentation_keypoint_noise = augmentation_keypoint_noise
        self.augmentation_brightness = augmentation_brightness
        self.augmentation_contrast = augmentation_contrast
        self.augmentation_saturation = augmentation_saturation
        self.augmentation_hue = augmentation_hue
        self._check_settings()

    def _check_settings(self) -> None:
        """Raise a ValueError for a number outside its range; the comparisons are false for NaN."""
        least, greatest = self.augmentation_area
        if not 0 < least <= greatest <= 1:
            raise ValueError(f"augmentation_area is {self.augmentation_area}; expected 0 < least <= greatest <= 1.")
        for name in ("crop_padding", *(f"augmentation_{name}" for name in _AMOUNTS)):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} is {value}; expected at least 0.")
        for name in ("augmentation_flip", "augmentation_drop_video", "augmentation_drop_pose"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; expected a probability.")
        for name in ("augmentation_drop_keypoints", "augmentation_drop_pose_frames"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}; expected a probability below 1.")
        if not 0 < self.augmentation_time <= 1:
            raise ValueError(f"augmentation_time is {self.augmentation_time}; expected a share in (0, 1].")
        if self.augmentation_hue > 0.5:
            raise ValueError(f"augmentation_hue is {self.augmentation_hue}; expected at most 0.5, half a turn.")
        if self.augmentation_drop_video + self.augmentation_drop_pose > 1:
            raise ValueError(
                f"augmentation_drop_video is {self.augmentation_drop_video} and augmentation_drop_pose is "
                f"{self.augmentation_drop_pose}; expected a sum of at most 1: no clip loses both."
            )

    @classmethod
    def from_model_config(cls, config: Any, **kwargs: Any) -> "CLIPMGProcessor":
        """Build the processor that fits a model: its frame size, frame counts and keypoint layout."""
        video_processor = CLIPMGVideoProcessor(
            size=config.vision_config.image_size,
            num_frames=config.num_frames,
            pose_frames_per_frame=config.pose_frames_per_frame,
        )
        return cls(video_processor, keypoint_layout=config.keypoint_layout, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that go to the model."""
        return [*super().model_input_names, "keypoints", "keypoint_mask"]

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        """Accept any video processor: the library's own check needs torchvision."""
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"{argument_name} is a {type(argument).__name__}; expected a video processor.")
        return VideoProcessorMixin

    def __call__(
        self,
        videos: Any = None,
        keypoints: Any = None,
        intervals: Any = None,
        interval_unit: Literal["frames", "seconds"] | None = None,
        crops: Any = None,
        source_layout: str | None = None,
        missing_keypoints: Literal["error", "mask"] | None = None,
        augment: bool | None = None,
        seeds: int | Sequence[int] | None = None,
        return_metadata: bool | None = None,
        **kwargs: Unpack[CLIPMGProcessorKwargs],
    ) -> BatchFeature:
        """Process one clip or a batch of B clips.

        Args:
            videos: A path, bytes, file object, `av` container or uint8 frames (arrays, tensors, PIL images), or a list
                of these, with `None` for a clip of keypoints alone. `None` for keypoints alone throughout.
            keypoints: For each clip: an array (N, K, 3) of x, y in pixels of the upright source frame (integers at
                pixel centres) and confidence, one row per frame of the video or of the interval; or OpenPose JSON (a
                folder, a file, a list of files, an [`OpenPoseSequence`]); or `None`. A missing point has confidence 0
                or is (0, 0). Without videos, a list is a batch.
            intervals: For each clip `(start, end)`, half open, either may be `None`; `None` for the whole video.
            interval_unit (`str`, defaults to `"frames"`): `"frames"` or `"seconds"` since the first frame.
            crops: For each clip the [`SquareCrop`] of the source frame that both streams are cut to; `None` for the
                square around the person of the clip. With `augment` a random part of it.
            source_layout (`str`, *optional*): Layout of arrays; by default the model's if it has as many keypoints,
                else the only one that has.
            missing_keypoints (`str`, defaults to `"error"`): `"mask"` fills the points that the source layout lacks.
            augment (`bool`, defaults to `False`): Draw frames inside their segments, crop and mirror at random, and
                whatever else the processor's attributes `augmentation_...` switch on.
            seeds (`int` or one per clip, *optional*): Seeds of the augmentation; by default drawn from torch. With the
                same seed and attributes a clip gives the same, whatever the process and the other clips of a batch; an
                `int` stands for another seed at each place of the batch.
            return_metadata (`bool`, defaults to `False`): Also return `clips`, a list of [`CLIPMGClip`].
            kwargs: Any of [`CLIPMGVideoProcessorKwargs`], for this call.

        Returns:
            `BatchFeature` with `pixel_values` float32 (B, T, 3, size, size); `keypoints` float32 (B, T_p, K, 3): x, y
            in [0, 1] of the processed frame where inside it, and confidence; `keypoint_mask` bool (B, T_p), `False`
            where no person is. What is missing is zero. Without videos there are no `pixel_values`; if only some clips
            lack one, or hide it (`augmentation_drop_video`), `frame_mask` bool (B, T) is `False` for them.

        Raises:
            VideoDecodingError: A video or an interval cannot be read.
            TypeError: An unknown argument; the message names it and the nearest known one.
            ValueError: Keypoints of another length, layout or unit than expected, or not finite; batches of unequal
                length. The message names the source, the value and what was expected.
        """
        settings = self._resolve_settings(kwargs)
        unit = _check_choice("interval_unit", interval_unit or "frames", ("frames", "seconds"))
        missing = _check_choice("missing_keypoints", missing_keypoints or "error", ("error", "mask"))
        clips = _pair_inputs(videos, keypoints, intervals, crops)
        generators = _make_generators(seeds, len(clips)) if augment else [None] * len(clips)
        columns: dict[str, list[torch.Tensor]] = {}
        metadata = []
        for clip, generator in zip(clips, generators, strict=True):
            points = None if clip.keypoints is None else self._read_keypoints(clip, source_layout, missing)
            tensors, clip_metadata = self._process_clip(clip, points, unit, settings, generator)
            metadata.append(clip_metadata)
            for name, tensor in tensors.items():
                columns.setdefault(name, []).append(tensor)
        if videos is None:
            del columns["pixel_values"]
        if videos is None or all(mask.all() for mask in columns["frame_mask"]):
            del columns["frame_mask"]
        data = {name: stack_clips(tensors) for name, tensors in columns.items()}
        features = BatchFeature(data, tensor_type=settings.return_tensors)
        if return_metadata:
            features["clips"] = metadata
        return features

    def _resolve_settings(self, kwargs: Any) -> SimpleNamespace:
        known = [*inspect.signature(self.__call__).parameters, *CLIPMGVideoProcessorKwargs.__annotations__]
        known[known.index("kwargs")] = "videos_kwargs"
        check_argument_names(type(self).__name__, kwargs, known)
        return self.video_processor.resolve_settings(**kwargs.pop("videos_kwargs", {}), **kwargs)

    def _read_keypoints(self, clip: "_ClipInput", source_layout: str | None, missing: Any) -> _Keypoints:
        """Read keypoints of any kind into the model's layout."""
        source, name, first_number = clip.keypoints, f"keypoints{clip.place}", 0
        if _is_path(source) or (isinstance(source, list | tuple) and all(map(_is_path, source))):
            source = read_openpose(source)
        if hasattr(source, "frame_numbers"):
            name, first_number = source.name or name, int(source.frame_numbers[0])
            source_layout, source = source.layout, source.keypoints
        try:
            points = self.convert_keypoints(source, source_layout, missing)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
        return _Keypoints(name, points, first_number)

    def convert_keypoints(
        self,
        keypoints: Any,
        source_layout: str | None = None,
        missing_keypoints: Literal["error", "mask"] = "error",
    ) -> np.ndarray:
        """Check an array or tensor of keypoints and convert it to the model's layout.

        Args:
            keypoints: (N, K_source, 3) x, y in pixels of the source frame and confidence.
            source_layout, missing_keypoints: As in a call.

        Returns:
            (N, K, 3) float64, (0, 0, 0) where missing.

        Raises:
            ValueError: Another shape, values that cannot be pixels, points that the source layout lacks, or a number
                of points that several layouts have.
        """
        source = keypoints.detach().cpu() if isinstance(keypoints, torch.Tensor) else keypoints
        points = np.asarray(source, np.float64)
        layout = _check_keypoints(points, source_layout, self.keypoint_layout)
        points = np.where(valid_keypoints(points)[..., None], points, 0.0)
        return convert_keypoints(points, layout, self.keypoint_layout, missing_keypoints=missing_keypoints)

    def _process_clip(
        self,
        clip: "_ClipInput",
        keypoints: _Keypoints | None,
        unit: str,
        settings: SimpleNamespace,
        generator: np.random.Generator | None,
    ) -> tuple[dict[str, torch.Tensor], CLIPMGClip]:
        """Process one clip: the same frames, crop and mirror for both streams."""
        with clip.open(keypoints) as video:
            first, last = video.resolve_interval(*clip.interval, unit)
            points = None
            if keypoints is not None:
                num_rows, first_number = len(keypoints.points), keypoints.first_number
                rows = rows_of_interval(
                    num_rows, first_number, (first, last), video.num_frames, keypoints.name, video.name
                )
                points = keypoints.points[rows]
            rgb_indices, pose_indices = self._choose_frames(last - first, settings, generator)
            pose = None if points is None else points[pose_indices]
            dropped = self._choose_dropped_stream(clip.video is not None, pose, generator)
            if dropped == "pose":
                points = pose = None
            has_frames = clip.video is not None and dropped != "video"
            # Before `info`, which would decode a frame of its own.
            frames = video.read(first + rgb_indices) if has_frames else None
            info = video.info
            crop = self._choose_crop(clip.crop, points, info.width, info.height, generator)
            if frames is not None:
                colours = self._choose_colours(generator)
                pixel_values = process_frames(frames, crop, settings, colours)
            else:
                pixel_values = torch.zeros(len(rgb_indices), 3, settings.size.height, settings.size.width)
        if pose is not None and generator is not None:
            pose = self._augment_keypoints(pose, crop, generator)
        tensors = {
            "pixel_values": pixel_values,
            "frame_mask": torch.full((len(rgb_indices),), has_frames),
            **self._process_pose(pose, crop, len(pose_indices)),
        }
        return tensors, CLIPMGClip(
            name=info.name,
            frame_indices=first + rgb_indices,
            pose_frame_indices=first + pose_indices,
            timestamps=info.timestamps[first + rgb_indices],
            crop=crop,
            width=info.width,
            height=info.height,
        )

    def _choose_frames(
        self, num_available: int, settings: SimpleNamespace, generator: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices of RGB and pose frames in a clip; in training, in a random stretch of it."""
        start = 0
        if generator is not None and self.augmentation_time < 1 and settings.do_sample_frames:
            child = child_generator(generator, Purpose.TIME)
            start, num_available = draw_stretch(num_available, self.augmentation_time, child)
        rgb_indices, pose_indices = sample_clip(num_available, settings, generator)
        return start + rgb_indices, start + pose_indices

    def _choose_dropped_stream(
        self, has_video: bool, pose: np.ndarray | None, generator: np.random.Generator | None
    ) -> Stream | None:
        """Which stream to hide; none if nothing else were left."""
        probabilities = (self.augmentation_drop_video, self.augmentation_drop_pose)
        if generator is None or not any(probabilities):
            return None
        if not has_video or pose is None or not (pose[..., 2] > 0).any():
            return None
        return draw_dropped_stream(*probabilities, child_generator(generator, Purpose.STREAMS))

    def _choose_crop(
        self,
        given: SquareCrop | None,
        points: np.ndarray | None,
        width: int,
        height: int,
        generator: np.random.Generator | None,
    ) -> SquareCrop:
        """Square around the person if one is known, else around the whole frame; a random part of it in training."""
        if given is not None:
            crop = given
        elif points is None:
            crop = full_frame_crop(width, height)
        else:
            if not width:
                # Without a video the frame's size is unknown: the extent of the points stands in for it.
                width, height = (max(1, int(np.ceil(extent)) + 1) for extent in points[..., :2].max(axis=(0, 1)))
            crop = subject_crop(points, width, height, self.crop_padding)
        if generator is None:
            return crop
        return random_resized_crop(crop, self.augmentation_area, self.augmentation_flip, generator)

    def _choose_colours(self, generator: np.random.Generator | None) -> ColourChange | None:
        """Change of colours of all frames of a clip, if there is any."""
        limits = [getattr(self, f"augmentation_{name}") for name in _COLOURS]
        if generator is None or not any(limits):
            return None
        return draw_colour_change(limits, child_generator(generator, Purpose.COLOUR))

    def _augment_keypoints(self, points: np.ndarray, crop: SquareCrop, generator: np.random.Generator) -> np.ndarray:
        """Lose and move source pixels (T_p, K, 3)."""
        probabilities = (self.augmentation_drop_keypoints, self.augmentation_drop_pose_frames)
        if any(probabilities):
            points = drop_keypoints(points, *probabilities, child_generator(generator, Purpose.KEYPOINT_DROPOUT))
        if self.augmentation_keypoint_noise:
            deviation = self.augmentation_keypoint_noise * crop.size
            points = shake_keypoints(points, deviation, child_generator(generator, Purpose.KEYPOINT_NOISE))
        return points

    def _process_pose(
        self, points: np.ndarray | None, crop: SquareCrop, num_pose_frames: int
    ) -> dict[str, torch.Tensor]:
        """Tensors of the pose stream; all masked without source pixels (T_p, K, 3)."""
        if points is None:
            points = np.zeros((num_pose_frames, get_layout(self.keypoint_layout).num_keypoints, 3))
        processed = self.process_keypoints(points, crop)
        return {"keypoints": processed, "keypoint_mask": (processed[..., 2] > 0).any(dim=1)}

    def process_keypoints(self, points: np.ndarray, crop: SquareCrop) -> torch.Tensor:
        """Map keypoints to the processed frame; a mirrored left wrist is a right wrist.

        Args:
            points: (N, K, 3) x, y in pixels of the source frame and confidence, in the model's layout; (0, 0, 0) where
                missing.
            crop: The square that the frames are cut to.

        Returns:
            float32 (N, K, 3): x, y in [0, 1] of the processed frame where inside it, and confidence.
        """
        processed = np.zeros(points.shape, dtype=np.float32)
        is_valid = points[..., 2] > 0
        processed[is_valid, :2] = crop.to_processed(points[is_valid, :2])
        processed[is_valid, 2] = points[is_valid, 2]
        if crop.flipped:
            processed = processed[:, get_layout(self.keypoint_layout).flip_permutation]
        return torch.from_numpy(processed)


@dataclass(frozen=True, eq=False)
class _ClipInput:
    """Arguments of one clip.

    Args:
        video: As in [`CLIPMGProcessor`]; `None` for keypoints alone.
        keypoints: As in [`CLIPMGProcessor`]; `None` for a video alone.
        interval: Start and end, `None` for those of the video.
        crop: The square to cut to; `None` for the processor's choice.
        place: `"[2]"` for the third clip of a batch, `""` for a single clip.
    """

    video: Any
    keypoints: Any
    interval: tuple[float | None, float | None]
    crop: SquareCrop | None
    place: str

    def open(self, keypoints: _Keypoints | None) -> Any:
        """Open the video, or a stand-in with as many frames as there are rows of keypoints."""
        if self.video is not None:
            return open_video(self.video, f"videos{self.place}")
        if keypoints is None:
            raise ValueError(f"videos{self.place} and keypoints{self.place} are None; expected at least one of them.")
        return UntimedFrames(keypoints.name, len(keypoints.points))


def _pair_inputs(videos: Any, keypoints: Any, intervals: Any, crops: Any) -> list[_ClipInput]:
    """Line up videos, keypoints, intervals and crops clip by clip."""
    if videos is None:
        is_batch = isinstance(keypoints, list | tuple) or getattr(keypoints, "ndim", 0) == 4
        sources: list[Any] = [None] * (len(keypoints) if is_batch else 1)
    else:
        sources, is_batch = split_batch(videos)
    if not sources:
        raise ValueError("keypoints: the batch is empty; expected at least one clip.")
    columns = []
    for name, values, ndim in (("keypoints", keypoints, 4), ("intervals", intervals, 2), ("crops", crops, None)):
        if values is None:
            values = [None] * len(sources)
        elif not is_batch:
            values = [values]
        elif not isinstance(values, list | tuple) and getattr(values, "ndim", 0) != ndim:
            raise ValueError(f"{name} is one {type(values).__name__}; expected a list with one for each of the clips.")
        if len(values) != len(sources):
            raise ValueError(
                f"{name} has the length {len(values)}; expected {len(sources)}, one for each of the clips."
            )
        columns.append(values)
    places = [f"[{index}]" if is_batch else "" for index in range(len(sources))]
    return [
        _ClipInput(video, points, _check_interval(interval, place), _check_crop(crop, place), place)
        for video, points, interval, crop, place in zip(sources, *columns, places, strict=True)
    ]


def _check_interval(interval: Any, place: str) -> tuple[float | None, float | None]:
    if interval is None:
        return None, None
    is_pair = hasattr(interval, "__len__") and len(interval) == 2
    if not is_pair or not all(limit is None or isinstance(limit, Real) for limit in interval):
        raise ValueError(f"intervals{place} is {interval!r}; expected (start, end), two numbers or None.")
    return interval[0], interval[1]


def _check_crop(crop: Any, place: str) -> SquareCrop | None:
    if crop is not None and not isinstance(crop, SquareCrop):
        raise ValueError(f"crops{place} is {crop!r}; expected a SquareCrop or None.")
    return crop


def _check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, choices))}.")
    return value


def _make_generators(seeds: Any, num_clips: int) -> list[np.random.Generator]:
    if seeds is None:
        # DataLoader seeds torch in every worker, but not NumPy.
        seeds = torch.randint(2**62, (num_clips,)).tolist()
    elif isinstance(seeds, Integral):
        return [np.random.default_rng((int(seeds), index)) for index in range(num_clips)]
    elif len(seeds) != num_clips:
        raise ValueError(f"seeds has the length {len(seeds)}; expected {num_clips}, one for each of the clips.")
    return [np.random.default_rng(int(seed)) for seed in seeds]


def rows_of_interval(
    num_rows: int, first_number: int, interval: tuple[int, int], num_frames: int, name: str, video: str
) -> slice:
    """Which rows of keypoints show the frames of an interval.

    As many rows as the video has frames show all of them, whatever the number of the first: there are files that are
    numbered from 1. As many as the interval has show it alone, if they are numbered from 0 or from its start.

    Args:
        num_rows: How many rows there are.
        first_number: Frame that the first one is said to show; 0 for arrays.
        interval: First and last + 1 of the frames, within the video.
        num_frames: N, the length of the video.
        name, video: What errors call the keypoints and the video.

    Raises:
        ValueError: Rows that are neither.
    """
    first, last = interval
    if num_rows == num_frames:
        return slice(first, last)
    is_part = last - first < num_frames
    if is_part and num_rows == last - first and first_number in (0, first):
        return slice(None)
    start = f", the first for frame {first_number}" if first_number else ""
    part = f", or {last - first} for its interval [{first}, {last})" if is_part else ""
    raise ValueError(f"{name}: {num_rows} rows{start}; expected {num_frames}, one for each frame of {video}{part}.")


def _is_path(source: Any) -> bool:
    return isinstance(source, str | PathLike)


def layout_of_array(shape: tuple[int, ...], source_layout: str | None, own_layout: str | None) -> KeypointLayout:
    """The layout of an array of keypoints.

    Args:
        shape: Of the array, (rows, K, 3).
        source_layout: Its layout, if it is known.
        own_layout: Layout of the model, which comes first where several have K keypoints.

    Raises:
        ValueError: Another shape, or no single layout of K keypoints.
    """
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"the shape is {shape}; expected (frames, keypoints, 3) with x, y and confidence.")
    layout = layout_from_count(shape[1], own_layout) if source_layout is None else get_layout(source_layout)
    if layout.num_keypoints != shape[1]:
        raise ValueError(f"{shape[1]} keypoints; expected the {layout.num_keypoints} of {layout.name!r}.")
    return layout


def _check_keypoints(points: np.ndarray, source_layout: str | None, own_layout: str) -> KeypointLayout:
    """Tell the layout of keypoints (rows, K, 3), and raise a ValueError for values that cannot be pixels."""
    layout = layout_of_array(points.shape, source_layout, own_layout)
    # The comparison is false for NaN.
    bad = ~(np.abs(points) <= MAX_KEYPOINT_VALUE)
    bad[..., 2] |= points[..., 2] < 0
    if bad.any():
        row, index, axis = (int(place) for place in np.argwhere(bad)[0])
        raise ValueError(
            f"{('x', 'y', 'confidence')[axis]} of {layout.keypoints[index]!r} is {points[row, index, axis]} in row "
            f"{row}; expected finite pixels and a confidence of at least 0 (a missing point is 0, 0, 0)."
        )
    positions = points[valid_keypoints(points), :2]
    if len(positions) > 1 and positions.min() >= 0 and positions.max() <= 1:
        raise ValueError("all x and y lie in [0, 1]; expected pixels of the source frame.")
    return layout


__all__ = ["CLIPMGClip", "CLIPMGProcessor", "CLIPMGProcessorKwargs", "layout_of_array", "rows_of_interval"]
