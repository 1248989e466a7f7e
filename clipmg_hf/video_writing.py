"""Videos that browsers play."""

from collections.abc import Iterable
from fractions import Fraction
from os import PathLike

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from clipmg_hf.files import complete_file


_CLOCK = 90_000  # ticks per second


def write_video(
    path: str | PathLike, pictures: Iterable[tuple[float, np.ndarray]], rate: float, preset: str = "medium"
) -> None:
    """Write pictures as they come as H.264 in MP4, with the index in front; nothing is left behind on an error.

    Args:
        path (`str` or `PathLike`): File to write, `.mp4`, in a folder that exists; replaced if it exists.
        pictures (`Iterable[tuple[float, numpy.ndarray]]`): Times in seconds, rising from 0, and uint8 `(H, W, 3)` RGB,
            all of one size with even sides.
        rate (`float`): Pictures per second on average; the times alone say when a picture is shown.
        preset (`str`, defaults to "medium"): Of x264: a faster one makes larger files.

    Raises:
        ValueError: Another suffix, no picture, or an odd or changing size.
        FileNotFoundError: There is no folder.
    """
    with (
        complete_file(path, ".mp4") as partial,
        av.open(str(partial), "w", options={"movflags": "faststart"}) as file,
    ):
        stream = file.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options={"crf": "20", "preset": preset}
        )
        context = stream.codec_context
        context.pix_fmt, context.time_base = "yuv420p", Fraction(1, _CLOCK)
        # Untagged, browsers take large pictures for BT.709 and small ones for BT.601.
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        size: tuple[int, int] | None = None
        for seconds, picture in pictures:
            height, width = picture.shape[:2]
            if size is None:
                context.width, context.height = size = width, height
            if (width, height) != size or width % 2 or height % 2:
                raise ValueError(
                    f"{path}: a picture of {width} x {height}; expected even sides and the first's {size}."
                )
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts = round(seconds * _CLOCK)
            frame.time_base = context.time_base
            file.mux(stream.encode(frame))
        if size is None:
            raise ValueError(f"{path}: no picture to write; expected at least one.")
        file.mux(stream.encode(None))


__all__ = ["write_video"]
