"""Sliding windows over a stream of frames: every frame goes through each tower once, and windows share the results.

A window [start, start + W) is sampled by the grid that [`CLIPMGProcessor`] uses for a clip of W frames, and its scores
are those that the model gives that clip with the same crop. Windows start every `stride` frames. When the stream ends,
one more window covers the last frames if no other has; what it lacks is masked.

Symbols as in `configuration_clipmg`: T RGB frames, T_p pose frames, K keypoints, N patches, D_v the tower's width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from clipmg_hf.inference.attention import AttentionTrack
from clipmg_hf.inference.cropping import CropSchedule
from clipmg_hf.inference.onnx_model import InferenceModel
from clipmg_hf.inference.pose_stream import PoseWindows, gather_frames
from clipmg_hf.model_state import evaluating
from clipmg_hf.processing import CLIPMGProcessor, SquareCrop, valid_keypoints
from clipmg_hf.processing.geometry_clipmg import crop_and_resize, full_frame_crop, sample_frame_indices
from clipmg_hf.processing.video_processing_clipmg import normalize_pixels
from clipmg_hf.timeline.records import WindowScores


# A window's own layers cost as much as a few frames in the vision tower, in time and memory.
FRAMES_PER_WINDOW = 4


@dataclass(frozen=True, eq=False)
class StreamFrame:
    """One frame of a stream.

    Args:
        index (`int`): Number of the frame; the next one has the next number.
        seconds (`float`): When it is shown, since the first frame of the stream.
        duration (`float`): For how long, in seconds; above 0.
        image: uint8 (H, W, 3) upright RGB, or a function that returns it and is called for sampled frames alone;
            `None` where nobody needs it.
        keypoints (`numpy.ndarray` of shape `(K, 3)`, *optional*): x, y in pixels of the frame and confidence, in the
            model's layout; `None` without a person.
    """

    index: int
    seconds: float
    duration: float
    image: np.ndarray | Callable[[], np.ndarray] | None = None
    keypoints: np.ndarray | None = None

    def read_image(self) -> np.ndarray:
        """The image; a ValueError when there is none."""
        if self.image is None:
            raise ValueError(f"Frame {self.index} has no image; expected one: the model samples this frame.")
        return self.image() if callable(self.image) else self.image


@dataclass(frozen=True, eq=False)
class WindowGrid:
    """Where windows lie and which of their frames the model sees.

    Args:
        window (`int`): Frames of a window, at least 1.
        stride (`int`): Frames from a window's start to the next one's, in 1..window.
        rgb (`numpy.ndarray` int64 of shape `(T,)`), pose (`numpy.ndarray` int64 of shape `(T_p,)`): Sampled frames,
            counted from the window's start.
        first (`int`, defaults to 0): Start of the first window.
        last (`int`, *optional*): Start of the last window; `None` goes on as long as the stream.
    """

    window: int
    stride: int
    rgb: np.ndarray
    pose: np.ndarray
    first: int = 0
    last: int | None = None

    @classmethod
    def from_processor(
        cls, processor: CLIPMGProcessor, window: int, stride: int, first: int = 0, last: int | None = None
    ) -> "WindowGrid":
        """The grid of a processor's clips; a ValueError for a window or stride outside its range."""
        if window < 1 or not 1 <= stride <= window:
            raise ValueError(
                f"window is {window} and stride is {stride}; expected a window of at least 1 frame and a stride of 1 "
                "to as many frames as the window."
            )
        settings = processor.video_processor.resolve_settings()
        rgb, pose = sample_frame_indices(window, settings.num_frames, settings.pose_frames_per_frame)
        return cls(window, stride, rgb, pose, first, last)

    def starts_over(self, frame: int) -> range:
        """Starts of the windows that hold a frame."""
        earliest = max(0, -((self.first + self.window - 1 - frame) // self.stride))
        latest = (frame if self.last is None else min(frame, self.last)) - self.first
        return range(self.first + earliest * self.stride, self.first + latest + 1, self.stride)

    def samples_image(self, frame: int) -> bool:
        """Whether any window takes the frame's image."""
        return any(frame - start in self._rgb_offsets for start in self.starts_over(frame))

    def samples_pose(self, frame: int) -> bool:
        """Whether any window takes the frame's keypoints."""
        return any(frame - start in self._pose_offsets for start in self.starts_over(frame))

    @cached_property
    def _rgb_offsets(self) -> frozenset[int]:
        return frozenset(self.rgb.tolist())

    @cached_property
    def _pose_offsets(self) -> frozenset[int]:
        return frozenset(self.pose.tolist())

    def last_start(self, end: int) -> int:
        """Start of the last window of a stream that ends before the frame `end`."""
        return self.first + -(-max(0, end - self.first - self.window) // self.stride) * self.stride

    @property
    def note(self) -> str | None:
        """What to tell the user when windows share few frames; `None` when they share all they can."""
        if self.stride * len(self.rgb) % self.window == 0:
            return None
        step = f"{self.window / len(self.rgb):g}"
        return (
            f"A stride of {self.stride} frames is no multiple of the {step} frames between the images of a window of "
            f"{self.window}: windows share few images, and the timeline takes longer than with a multiple."
        )


class _Window(NamedTuple):
    """A window whose frames are all there, in frames and seconds; `end` is that of the stream for the last one."""

    start: int
    end: int
    start_seconds: float
    end_seconds: float


class WindowClassifier:
    """Classifies the windows of one person while frames come in. What it keeps does not grow with the stream.

    Args:
        model, processor: As `load_model` returns them.
        grid ([`WindowGrid`]): The windows.
        crop ([`SquareCrop`] or [`CropSchedule`]): The square of the source frame that both streams are cut to.
        batch_size (`int`, defaults to 16): Images that go through the vision tower together. Windows come out in
            batches, too; with 1, each as soon as its last frame is there.
        person (`int`, defaults to 0): Number that the windows get.
        attention ([`AttentionTrack`], *optional*): Collects where the model looked, if this is its person.

    Raises:
        ValueError: A batch size below 1.
    """

    def __init__(
        self,
        model: InferenceModel,
        processor: CLIPMGProcessor,
        grid: WindowGrid,
        crop: SquareCrop | CropSchedule,
        batch_size: int = 16,
        person: int = 0,
        attention: AttentionTrack | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1.")
        self.model = model
        self.processor = processor
        self.grid = grid
        self.crops = crop if isinstance(crop, CropSchedule) else CropSchedule((0,), (crop,))
        self.batch_size = batch_size
        self.person = person
        self._attention = attention if attention is not None and attention.person == person else None
        self._settings = processor.video_processor.resolve_settings()
        self._next_index: int | None = None
        self._end_seconds = 0.0
        # By frame: limits in time of starting windows, uint8 images (3, size, size) that wait for the tower, tokens
        # (1 + N, D_v).
        self._start_seconds: dict[int, float] = {}
        self._images: dict[int, torch.Tensor] = {}
        self._tokens: dict[int, torch.Tensor] = {}
        self._poses = PoseWindows(model, grid.pose, grid.stride, batch_size * self._settings.pose_frames_per_frame)
        self._ready: list[_Window] = []
        self._next_start = grid.first

    def push(self, frame: StreamFrame) -> list[WindowScores]:
        """Take the next frame; returns the windows that are finished.

        Raises:
            ValueError: The frame does not follow the one before, begins too late, or lacks its image.
        """
        self._check_order(frame)
        self._end_seconds = frame.seconds + frame.duration
        if len(starts := self.grid.starts_over(frame.index)) == 0:
            return []
        if starts[-1] == frame.index:
            self._start_seconds[frame.index] = frame.seconds
        self._admit(frame)
        if frame.index + 1 == self._next_start + self.grid.window:
            self._complete(frame.index + 1)
        is_full = len(self._images) >= self.batch_size or len(self._ready) >= self.batch_size
        return self._flush() if is_full else []

    def finish(self) -> list[WindowScores]:
        """End the stream; returns the remaining windows, the last of them with masked frames if it needs some."""
        end, grid = self._next_index, self.grid
        offsets = grid.rgb if self.model.config.uses_vision else grid.pose
        # A window that would see masked frames alone is none.
        if end is not None and self._next_start + int(offsets[0]) < end:
            is_covered = self._next_start > grid.first and self._next_start - grid.stride + grid.window >= end
            if not is_covered if grid.last is None else self._next_start <= grid.last:
                self._complete(end)
        return self._flush()

    def _check_order(self, frame: StreamFrame) -> None:
        if self._next_index is None and frame.index > self.grid.first:
            raise ValueError(
                f"The stream begins with frame {frame.index}; the first window does at {self.grid.first}."
            )
        if self._next_index is not None and frame.index != self._next_index:
            raise ValueError(f"Got frame {frame.index}; expected frame {self._next_index}, the one after the last.")
        if not frame.duration > 0:
            raise ValueError(f"Frame {frame.index} lasts {frame.duration} seconds; expected more than 0.")
        self._next_index = frame.index + 1

    def _admit(self, frame: StreamFrame) -> None:
        """Cut out what windows will sample."""
        crop = self.crops.at(frame.index)
        if self.model.config.uses_vision and self.grid.samples_image(frame.index):
            image = frame.read_image()
            self._images[frame.index] = crop_and_resize(image[None], crop, self._settings.size.height)[0]
        if frame.keypoints is not None and self.grid.samples_pose(frame.index):
            points = np.asarray(frame.keypoints, np.float64)
            points = np.where(valid_keypoints(points)[..., None], points, 0.0)
            # Frames without a person take the features of an empty frame.
            if points.any():
                self._poses.add(frame.index, self.processor.process_keypoints(points[None], crop)[0])

    def _complete(self, end: int) -> None:
        start = self._next_start
        self._ready.append(_Window(start, end, self._start_seconds.pop(start), self._end_seconds))
        self._next_start += self.grid.stride

    @torch.inference_mode()
    def _flush(self) -> list[WindowScores]:
        """Bring waiting frames through the towers and ready windows through the rest."""
        with evaluating(self.model):
            self._encode_images()
            # The last window may reach beyond the stream.
            ends = [self._next_index or 0, *(window.start + self.grid.window for window in self._ready)]
            self._poses.encode(self._ready[0].start if self._ready else self._next_start, max(ends))
            size = max(1, self.batch_size // FRAMES_PER_WINDOW)
            batches = (self._ready[first : first + size] for first in range(0, len(self._ready), size))
            scores = [window for batch in batches for window in self._classify(batch)]
        self._ready = []
        self._poses.forget(self._next_start)
        for index in [index for index in self._tokens if index < self._next_start]:
            del self._tokens[index]
        return scores

    def _encode_images(self) -> None:
        indices = list(self._images)
        for first in range(0, len(indices), self.batch_size):
            batch = indices[first : first + self.batch_size]
            pixels = torch.stack([self._images.pop(index) for index in batch])
            values = normalize_pixels(pixels, self._settings.image_mean, self._settings.image_std)
            tokens, _ = self.model.base_model.encode_frames(
                values.unsqueeze(0).to(self.model.device, self.model.dtype)
            )
            self._tokens.update(zip(batch, tokens[0], strict=True))

    def _classify(self, windows: list[_Window]) -> Iterator[WindowScores]:
        starts = np.array([window.start for window in windows])
        inputs = self._poses.inputs(starts)
        if self.model.config.uses_vision:
            inputs |= self._gather_tokens(starts[:, None] + self.grid.rgb)
        outputs: Any = self.model(**inputs, output_explanation=True)
        if self._attention is not None and outputs.semantic_attention is not None:
            # (B, heads, T, H_p, W_p) -> (B, T, H_p, W_p)
            self._collect(self._attention, windows, outputs.semantic_attention.mean(dim=1).cpu().numpy())
        scores = outputs.logits.float().softmax(dim=-1).cpu().numpy()
        gates = [None] * len(windows) if outputs.gate is None else outputs.gate.float().mean(dim=1).tolist()
        for window, window_scores, gate in zip(windows, scores, gates, strict=True):
            yield WindowScores(
                **window._asdict(),
                person=self.person,
                scores=window_scores,
                gate=gate,
                pose_share=self._poses.share(window.start, window.end),
            )

    def _collect(self, track: AttentionTrack, windows: list[_Window], maps: np.ndarray) -> None:
        for window, window_maps in zip(windows, maps, strict=True):
            for frame, attention in zip((window.start + self.grid.rgb).tolist(), window_maps, strict=True):
                # The last window may reach beyond the video.
                if frame < window.end:
                    track.add(frame, attention, self.crops.at(frame))

    def _gather_tokens(self, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """Tokens of the frames (B, T), with a mask when some are missing."""
        missing = [index for index in frames.ravel().tolist() if index not in self._tokens]
        nothing = torch.zeros_like(next(iter(self._tokens.values())))
        inputs = {"vision_tokens": gather_frames(self._tokens, frames, nothing)}
        if missing:
            inputs["frame_mask"] = torch.from_numpy(~np.isin(frames, missing)).to(self.model.device)
        return inputs


def stream_windows(
    model: InferenceModel,
    processor: CLIPMGProcessor,
    frames: Iterable[StreamFrame],
    *,
    window: int,
    stride: int,
    crop: SquareCrop | CropSchedule | None = None,
    batch_size: int = 16,
) -> Iterator[WindowScores]:
    """Classify the windows of a camera, a stream or a file as its frames come.

    Args:
        model, processor: As `load_model` returns them.
        frames: The frames, in order and without gaps, such as `open_live` or `file_frames` give; the first window
            starts at the first one.
        window, stride: Length of a window and distance of their starts, in frames.
        crop: The square of the source frame that both streams are cut to, or several over time; by default the whole
            frame. A clip that is predicted by itself is cut around its person; see `cropping`.
        batch_size: Images that go through the vision tower together; with 1, a window comes out as soon as its last
            frame is there.

    Yields:
        [`WindowScores`] by start. If the stream is no multiple of the stride long, the last window is cut short.

    Raises:
        ValueError: A window, stride or batch size outside its range, or frames that are not as described.
    """
    classifier = None
    for frame in frames:
        if classifier is None:
            grid = WindowGrid.from_processor(processor, window, stride, first=frame.index)
            if crop is None:
                height, width = frame.read_image().shape[:2]
                crop = full_frame_crop(width, height)
            classifier = WindowClassifier(model, processor, grid, crop, batch_size)
        yield from classifier.push(frame)
    if classifier is not None:
        yield from classifier.finish()


__all__ = ["StreamFrame", "WindowClassifier", "WindowGrid", "stream_windows"]
