"""One clip out of its video: interval, crop, size, keypoints and encoding. See `clipmg_hf.data.prepare`.

T is the number of frames of a clip, K that of the keypoints of its layout.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from clipmg_hf.data.prepared_folder import ARRAY_COLUMNS, EXTENSIONS
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.processing import VideoReader
from clipmg_hf.processing.geometry_clipmg import subject_crop


# At 256 pixels 32 saves a fifth of the bytes, and the frame that is farthest from a key frame costs a quarter more
# time; 8 costs 40 % more bytes and saves a fifth.
GOP = 16


class Codec(NamedTuple):
    """How frames are stored.

    Args:
        encoder: FFmpeg's name.
        qualities: Best and worst value of `PrepareConfig.quality`.
        default_quality: Its default.
        bytes_per_pixel: Of noisy video at that default; a careful estimate for the check of the disk.
        color_range: Of luma and chroma.
    """

    encoder: str
    qualities: tuple[int, int]
    default_quality: int
    bytes_per_pixel: float
    color_range: ColorRange

    def options(self, quality: int) -> dict[str, str]:
        """Options of the encoder."""
        if self.encoder == "mjpeg":
            return {"flags": "+bitexact", "qmin": str(quality), "qmax": str(quality)}
        # With macroblock trees x264 reads memory that it has not written: small frames come out one way or another.
        # They save 4 % at this GOP.
        options = {"flags": "+bitexact", "preset": "veryfast", "x264-params": "mbtree=0"}
        return options | {"crf": str(quality), "g": str(GOP)}


CODECS = {
    "h264": Codec("libx264", (0, 51), 20, 0.05, ColorRange.MPEG),
    "mjpeg": Codec("mjpeg", (2, 31), 3, 0.35, ColorRange.JPEG),
}


@dataclass(frozen=True)
class PrepareConfig:
    """Everything, besides the rows, that determines the bytes of a prepared data set."""

    short_side: int | None = field(
        default=256, metadata={"help": "Shorter side of the stored frames in pixels; smaller ones are not enlarged."}
    )
    codec: Literal["h264", "mjpeg"] = field(
        default="h264", metadata={"help": "mjpeg: eight times the size, but every frame is a key frame."}
    )
    quality: int | None = field(
        default=None, metadata={"help": "h264: CRF, 0 to 51, default 20. mjpeg: 2 to 31, default 3. Lower is better."}
    )
    crop_person: bool = field(
        default=False, metadata={"help": "Store the surroundings of the clip's keypoints alone."}
    )
    # Twice the processor's default of 0.25. The squares that it draws around the same keypoints lie inside, and those
    # around a part of them, such as the upper body, as long as that part is not a thin column at the edge.
    crop_padding: float = field(
        default=0.5, metadata={"help": "Margin of the person's crop on each side, relative to the keypoints' box."}
    )
    storage: Literal["parquet", "webdataset"] = field(default="parquet", metadata={"help": "Kind of the shards."})
    clips_per_shard: int = field(default=128, metadata={"help": "Clips in a file."})
    keep_personal_columns: bool = field(default=False, metadata={"help": "Keep gender and nationality."})

    def __post_init__(self) -> None:
        for name, choices in (("codec", CODECS), ("storage", EXTENSIONS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")
        if self.short_side is not None and (self.short_side < 16 or self.short_side % 2):
            raise ValueError(f"short_side is {self.short_side}; expected an even number from 16 on, or None.")
        best, worst = CODECS[self.codec].qualities
        if not best <= self.stored_quality <= worst:
            raise ValueError(
                f"quality is {self.quality}; expected {best} (best) to {worst} with codec={self.codec!r}."
            )
        if not 0 <= self.crop_padding < float("inf"):
            raise ValueError(f"crop_padding is {self.crop_padding}; expected at least 0.")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard is {self.clips_per_shard}; expected at least 1.")

    @property
    def stored_quality(self) -> int:
        """The quality that is meant: the codec's default unless one is given."""
        return CODECS[self.codec].default_quality if self.quality is None else self.quality


class Crop(NamedTuple):
    """A rectangle of whole pixels of a source frame."""

    left: int
    top: int
    width: int
    height: int


def prepare_row(row: dict[str, Any], reader: VideoReader | None, config: PrepareConfig) -> dict[str, Any]:
    """Cut a clip out of its video and move its keypoints to the stored frames.

    Args:
        row (`dict`): Arrays as `numpy.ndarray`, everything else as plain values.
        reader ([`VideoReader`] or `None`): Of the row's video; without one, keypoints and sizes stay as they are.
        config ([`PrepareConfig`]): Settings.

    Raises:
        DatasetFormatError: Keypoints or sizes do not fit the video.
        VideoDecodingError: The interval is not in the video, or it is damaged there.
    """
    arrays = _read_arrays(row)
    if reader is None:
        return {**row, **arrays, "video": None, "crop": None}
    first, last = reader.resolve_interval(*_interval_in_file(row), "frames")
    width, height = reader.info.width, reader.info.height
    if row["width"] is not None and (row["width"], row["height"]) != (width, height):
        raise DatasetFormatError(
            f"frames of {width} x {height} in {reader.name}; expected {row['width']} x {row['height']}, the size that "
            "the keypoints are for."
        )
    crop = Crop(0, 0, width, height)
    points, valid = arrays.get("keypoints"), arrays.get("keypoints_valid")
    if config.crop_person and points is not None and valid is not None:
        crop = person_crop(points, valid, width, height, config.crop_padding)
    crop, size = fit(crop, config.short_side)
    if points is not None and valid is not None:
        arrays["keypoints"] = move_keypoints(points, valid, crop, size)
    pixels = (
        frame[crop.top :, crop.left :][: crop.height, : crop.width] for _, frame in reader.iter_frames(first, last)
    )
    rate = Fraction(reader.info.average_rate).limit_denominator(1001)
    return {
        **row,
        **arrays,
        "width": size[0],
        "height": size[1],
        "video": {"bytes": encode_clip(pixels, size, rate, config), "path": f"{row['clip_id']}.mp4"},
        "video_start_frame": row["start_frame"],
        "crop": list(crop),
    }


def _read_arrays(row: dict[str, Any]) -> dict[str, np.ndarray | None]:
    """Keypoints, with 0, 0, 0 for missing points, and which are there; the columns that the row has."""
    # `datasets` gives NaN for a missing array.
    arrays = {name: row[name] if np.ndim(row[name]) else None for name in ARRAY_COLUMNS if name in row}
    points, valid = (arrays.get(name) for name in ARRAY_COLUMNS)
    if points is None or valid is None:
        return dict.fromkeys(arrays)
    num_frames = row["end_frame"] - row["start_frame"] + 1
    if points.shape[:2] != valid.shape or len(points) != num_frames:
        raise DatasetFormatError(
            f"keypoints {points.shape} and keypoints_valid {valid.shape}; expected {num_frames} frames in both."
        )
    return {"keypoints": np.where(valid[..., None], points, 0).astype(np.float32), "keypoints_valid": valid}


def _interval_in_file(row: dict[str, Any]) -> tuple[int, int]:
    """Half-open interval of frames of the file."""
    return row["start_frame"] - row["video_start_frame"], row["end_frame"] + 1 - row["video_start_frame"]


def person_crop(points: np.ndarray, valid: np.ndarray, width: int, height: int, padding: float) -> Crop:
    """The part of the frame that the square around all valid keypoints of a clip shows, see `subject_crop`.

    Args:
        points (`numpy.ndarray` of shape `(T, K, 3)`): Pixels of the source frame.
        valid (`numpy.ndarray` of shape `(T, K)`): bool.
        width, height (`int`): Size of the source frame.
        padding (`float`): Margin on each side, relative to the side of the keypoints' box.
    """
    square = subject_crop(np.concatenate([points[..., :2], valid[..., None]], axis=-1), width, height, padding)
    left, top = max(square.left, 0), max(square.top, 0)
    right, bottom = min(square.left + square.size, width), min(square.top + square.size, height)
    return Crop(left, top, right - left, bottom - top)


def fit(crop: Crop, short_side: int | None) -> tuple[Crop, tuple[int, int]]:
    """Choose the size of the stored frames: even, never larger than the crop.

    Returns:
        `tuple`: The crop, without its last column or row where it is odd and not scaled; width and height in pixels.
    """
    shorter = min(crop.width, crop.height)
    if short_side is None or shorter <= short_side:
        crop = crop._replace(width=crop.width // 2 * 2, height=crop.height // 2 * 2)
        return crop, (crop.width, crop.height)
    scale = short_side / shorter
    return crop, (2 * round(crop.width * scale / 2), 2 * round(crop.height * scale / 2))


def move_keypoints(points: np.ndarray, valid: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """Map keypoints from pixels of the source frame to pixels of the stored one; integers are pixel centres.

    Args:
        points (`numpy.ndarray` of shape `(T, K, 3)`): x, y and confidence.
        valid (`numpy.ndarray` of shape `(T, K)`): bool; the other points become 0, 0, 0.
        crop ([`Crop`]): What the stored frame shows.
        size (`tuple[int, int]`): Width and height of the stored frame.

    Returns:
        `numpy.ndarray` float32 of shape `(T, K, 3)`.
    """
    scale = np.array(size) / (crop.width, crop.height)
    moved = np.array(points, dtype=np.float64)
    moved[..., :2] = (moved[..., :2] + 0.5 - (crop.left, crop.top)) * scale - 0.5
    return np.where(valid[..., None], moved, 0).astype(np.float32)


def encode_clip(frames: Iterator[np.ndarray], size: tuple[int, int], rate: Fraction, config: PrepareConfig) -> bytes:
    """Encode frames to an mp4 whose bytes depend on nothing else.

    Args:
        frames (`Iterator[numpy.ndarray]`): uint8 RGB (height, width, 3) of any size.
        size (`tuple[int, int]`): Width and height of the stored frames, even.
        rate (`Fraction`): Frames per second.
        config ([`PrepareConfig`]): Codec and quality.
    """
    codec = CODECS[config.codec]
    reformatter = VideoReformatter()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = codec.options(config.stored_quality)
        stream = cast(VideoStream, container.add_stream(codec.encoder, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = Colorspace.ITU601, codec.color_range
        for index, pixels in enumerate(frames):
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
                *size,
                "yuv420p",
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=codec.color_range,
                # Half the time of bicubic from RGB, and every source pixel counts.
                interpolation=Interpolation.AREA,
                threads=1,
            )
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


__all__ = ["CODECS", "Crop", "PrepareConfig", "encode_clip", "fit", "move_keypoints", "person_crop", "prepare_row"]
