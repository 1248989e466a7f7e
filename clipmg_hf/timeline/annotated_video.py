"""The video with what was found in it: skeletons, attention, and a bar with the gesture of the moment.

Needs the extra: pip install "clipmg_hf[viz]". N is the number of frames, K that of points of a layout.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clipmg_hf.pose.heads import face_points
from clipmg_hf.processing import KeypointLayout, SquareCrop, VideoReader, get_layout, valid_keypoints
from clipmg_hf.timeline.colors import group_colors, person_color, to_rgb
from clipmg_hf.timeline.face_blur import SequenceFaceBlur, blur_frame
from clipmg_hf.timeline.records import Event, Timeline, format_timecode
from clipmg_hf.video_writing import write_video
from clipmg_hf.visualization import INK, PAPER, draw_skeleton, fit_text, overlay_attention, text_font


try:
    from PIL import Image, ImageDraw
except ImportError as error:
    raise ImportError(f'annotated videos need Pillow ({error}): pip install "clipmg_hf[viz]"') from error


Attention = Callable[[int], tuple[np.ndarray, SquareCrop] | None]

_MAX_SIDE, _MIN_WIDTH = 1280, 640
_LIGHT_GREY, _NO_GESTURE, _TRACK = (190, 195, 205), (120, 126, 138), (54, 58, 68)
# Sizes of the bar in units of a 1280th of its width.
_PADDING, _ROW, _LANE, _CAPTION, _GAP = 14, 40, 16, 18, 8
_MAX_ROWS = 4
# Of a longer video, a second strip shows what is near.
_SHORT_VIDEO, _NEAR = 120.0, 30.0  # seconds


def write_annotated_video(
    timeline: Timeline,
    video: VideoReader | str | PathLike,
    path: str | PathLike,
    *,
    keypoints: np.ndarray | Mapping[int, np.ndarray] | None = None,
    layout: KeypointLayout | str | None = None,
    attention: Attention | None = None,
    blur_face: bool = False,
    show_progress: bool = False,
) -> None:
    """Write the video with its skeletons, and a bar below it, as a file that browsers play (H.264, MP4).

    The bar holds each person's gesture with its part of the body and score, the time, and the timeline with a
    playhead. Frames keep their times; the sound is left out. Large videos are scaled down to 1280 pixels, small ones
    up. Frames pass one by one, so memory does not grow with the length. The file is there when it is complete.

    Args:
        timeline ([`Timeline`]): What was found in the video.
        video ([`VideoReader`], `str` or `PathLike`): The source.
        path (`str` or `PathLike`): File to write, `.mp4`; replaced if it exists.
        keypoints (`numpy.ndarray` or `Mapping`, *optional*): (N, K, 3) x, y in pixels of the source frame and
            confidence, zeros where absent; or one such array by the number of each person. Somebody who is not in
            `timeline.people` is not drawn, but blurred.
        layout ([`KeypointLayout`] or `str`, *optional*): Layout of the keypoints, or its name.
        attention (`Callable`, *optional*): Of a frame's number: attention (H_p, W_p) over the patches and the square
            of the source frame that they cover, or `None`.
        blur_face (`bool`, defaults to `False`): Blur all heads in `keypoints`, and leave out face points; see
            `clipmg_hf.timeline.face_blur` on heads that are not found. Outside the timeline's interval, where nobody
            was looked for, the whole picture is blurred.
        show_progress (`bool`, defaults to `False`): With a progress bar.

    Raises:
        ValueError: The timeline or the keypoints belong to another video, faces cannot be blurred for want of
            keypoints, `path` is the source or has another suffix.
        FileNotFoundError: The folder does not exist.
        VideoDecodingError: The video cannot be read.
    """
    source = Path(video.name if isinstance(video, VideoReader) else video)
    if source.exists() and Path(path).exists() and Path(path).samefile(source):
        raise ValueError(f"{path}: this is the source; expected another file to write.")
    with nullcontext(video) if isinstance(video, VideoReader) else VideoReader(video) as reader:
        if timeline.num_frames != reader.info.num_frames:
            raise ValueError(
                f"{reader.name} has {reader.info.num_frames} frames; the timeline of {timeline.video} has "
                f"{timeline.num_frames}. Expected the timeline of this video."
            )
        people = _check_keypoints(timeline, reader, keypoints, layout)
        if blur_face and not people:
            raise ValueError(f"{reader.name}: faces are found by keypoints, and there are none; expected keypoints.")
        painter = _Painter(timeline, reader, people, layout, attention, blur_face)
        frames = tqdm(
            reader.iter_frames(),
            total=timeline.num_frames,
            desc=f"Write {Path(path).name}",
            unit="frame",
            disable=not show_progress,
        )
        write_video(path, painter.pictures(frames), reader.info.average_rate, preset="veryfast")


def _check_keypoints(
    timeline: Timeline,
    reader: VideoReader,
    keypoints: np.ndarray | Mapping[int, np.ndarray] | None,
    layout: KeypointLayout | str | None,
) -> dict[int, np.ndarray]:
    """Keypoints (N, K, 3) by the number of the person."""
    if keypoints is None:
        return {}
    if layout is None:
        raise ValueError(f"{reader.name}: keypoints without a layout; expected its name.")
    only = timeline.people[0].number if timeline.people else 0
    people = {only: keypoints} if isinstance(keypoints, np.ndarray) else dict(keypoints)
    num_points = (get_layout(layout) if isinstance(layout, str) else layout).num_keypoints
    for number, points in people.items():
        if points.shape != (reader.info.num_frames, num_points, 3):
            raise ValueError(
                f"{reader.name}: the keypoints of person {number} have the shape {points.shape}; expected "
                f"({reader.info.num_frames}, {num_points}, 3), the frames of the video and the points of the layout."
            )
    return people


class _Painter:
    """Draws the pictures of one annotated video."""

    def __init__(
        self,
        timeline: Timeline,
        reader: VideoReader,
        people: dict[int, np.ndarray],
        layout: KeypointLayout | str | None,
        attention: Attention | None,
        blur_face: bool,
    ) -> None:
        self._layout = get_layout(layout) if isinstance(layout, str) else layout
        self._timestamps = reader.info.timestamps
        self._interval = range(*timeline.settings.get("interval", (0, timeline.num_frames)))
        self._size, self._scale = _picture_size(reader.info.width, reader.info.height)
        self._attention = attention
        self._blur = SequenceFaceBlur(list(people.values()), self._layout) if blur_face and self._layout else None
        subjects = sorted(
            {person.number for person in timeline.people} or people or {e.person for e in timeline.events}
        )
        self._subjects = {number: people[number] for number in subjects if number in people}
        self._colors = {number: to_rgb(person_color(place)) for place, number in enumerate(subjects)}
        self._bar = _Bar(timeline, subjects, self._size[0])

    def pictures(self, frames: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
        """Yield times in seconds and pictures uint8 (H, W, 3) with the bar."""
        for index, frame in frames:
            seconds = float(self._timestamps[index])
            yield seconds, np.concatenate([self._draw(index, frame), self._bar.draw(index, seconds)])

    def _draw(self, index: int, frame: np.ndarray) -> np.ndarray:
        """The frame at its size in the video, with everything over it."""
        picture = np.asarray(Image.fromarray(frame).resize(self._size, Image.Resampling.BICUBIC, reducing_gap=2.0))
        if self._blur is not None:
            is_known = index in self._interval
            picture = self._blur(picture, index, self._scale) if is_known else blur_frame(picture)
        heat = None if self._attention is None else self._attention(index)
        if heat is not None:
            crop = heat[1]
            left, top, size = (round(value * self._scale) for value in (crop.left, crop.top, crop.size))
            picture = overlay_attention(picture, heat[0], SquareCrop(left, top, size, crop.flipped))
        for number, points in self._subjects.items():
            picture = self._draw_person(picture, number, points[index])
        return picture

    def _draw_person(self, picture: np.ndarray, number: int, points: np.ndarray) -> np.ndarray:
        assert self._layout is not None
        is_there = valid_keypoints(points)
        if self._blur is not None:
            # The shape of a face tells who somebody is.
            is_there &= ~face_points(self._layout)
        if not is_there.any():
            return picture
        scaled = np.array(points, dtype=np.float64)
        scaled[:, :2] = (scaled[:, :2] + 0.5) * self._scale - 0.5
        scaled[~is_there] = 0
        if len(self._colors) == 1:
            return draw_skeleton(picture, scaled, self._layout)
        color = self._colors[number]
        tagged = Image.fromarray(draw_skeleton(picture, scaled, self._layout, color))
        x, y = scaled[is_there, 0].mean(), scaled[is_there, 1].min()
        size = max(self._size) / 60
        ImageDraw.Draw(tagged).text(
            (x.clip(2 * size, self._size[0] - 2 * size), max(y - 1.2 * size, 2 * size)),
            f"Person {number}",
            fill=color,
            font=text_font(size, bold=True),
            anchor="mb",
            stroke_width=max(1, round(size / 8)),
            stroke_fill=INK,
        )
        return np.asarray(tagged)


class _Bar:
    """The bar below the picture: a row per person, and one or two strips of the timeline."""

    def __init__(self, timeline: Timeline, subjects: list[int], width: int) -> None:
        self._timeline = timeline
        self._subjects = subjects or [0]
        self._rows = self._subjects[:_MAX_ROWS]
        self._colors = {group: to_rgb(color) for group, color in group_colors(timeline).items()}
        self._unit = max(width / 1280, 0.62)
        self._width, self._events = width, {}
        for number in self._subjects:
            events = [event for event in timeline.events if event.person == number]
            limits = np.array([(event.start, event.end) for event in events], dtype=np.int64).reshape(-1, 2)
            self._events[number] = (events, limits)
        self._has_near = timeline.duration > _SHORT_VIDEO
        strip = len(self._subjects) * _LANE + _CAPTION
        self._strip_top = _PADDING + len(self._rows) * _ROW + _GAP
        self._whole_top = self._strip_top + (strip + _GAP) * self._has_near
        self._height = math.ceil((self._whole_top + strip + _GAP) * self._unit / 2) * 2
        self._base = self._draw_base()

    def draw(self, index: int, seconds: float) -> np.ndarray:
        """The bar at frame `index`, uint8 (height, width, 3)."""
        bar = self._base.copy()
        draw = ImageDraw.Draw(bar)
        u = self._unit
        right = self._width - _PADDING * u
        clock = format_timecode(seconds)
        draw.text((right, (_PADDING + _ROW / 2) * u), clock, fill=PAPER, font=text_font(24 * u), anchor="rm")
        text_right = right - text_font(24 * u).getlength("00:00:00.000") - 2 * _PADDING * u
        for row, number in enumerate(self._rows):
            middle = (_PADDING + (row + 0.5) * _ROW) * u
            self._draw_row(draw, number, self._event_at(number, index), middle, text_right)
        if self._has_near:
            self._draw_strip(draw, self._strip_top, seconds - _NEAR, seconds + _NEAR)
            self._draw_captions(draw, self._strip_top, f"-{_NEAR:.0f} s", f"+{_NEAR:.0f} s")
            self._draw_playhead(draw, self._strip_top, 0.5)
        self._draw_playhead(draw, self._whole_top, min(seconds / max(self._timeline.duration, 1e-9), 1))
        return np.asarray(bar)

    def _draw_base(self) -> Image.Image:
        """What is the same in every frame."""
        base = Image.new("RGB", (self._width, self._height), INK)
        draw = ImageDraw.Draw(base)
        self._draw_strip(draw, self._whole_top, 0, self._timeline.duration)
        self._draw_captions(draw, self._whole_top, _clock(0), _clock(self._timeline.duration))
        return base

    def _event_at(self, number: int, index: int) -> Event | None:
        """The person's best event at a frame."""
        events, limits = self._events[number]
        places = np.flatnonzero((limits[:, 0] <= index) & (index < limits[:, 1]))
        return max((events[place] for place in places), key=lambda event: event.score, default=None)

    def _draw_row(
        self, draw: ImageDraw.ImageDraw, number: int, event: Event | None, middle: float, right: float
    ) -> None:
        u = self._unit
        left = _PADDING * u
        if len(self._subjects) > 1:
            color = to_rgb(person_color(self._subjects.index(number)))
            font = text_font(20 * u, bold=True)
            draw.text((left, middle), f"Person {number}", fill=color, font=font, anchor="lm")
            left += font.getlength("Person 00") + _PADDING * u
        if event is None:
            draw.text((left, middle), "no gesture", fill=_NO_GESTURE, font=text_font(20 * u), anchor="lm")
            return
        color = self._colors[event.group]
        draw.rounded_rectangle((left, middle - 11 * u, left + 8 * u, middle + 11 * u), 3 * u, color)
        left += 20 * u
        detail = f"{event.group + '   ' if event.group else ''}{100 * event.score:.0f} %"
        detail_font = text_font(20 * u)
        space = right - left - detail_font.getlength(detail) - _PADDING * u
        font, text = _fit(event.label, 25 * u, space)
        draw.text((left, middle), text, fill=PAPER, font=font, anchor="lm")
        left += font.getlength(text) + _PADDING * u
        draw.text((left, middle), detail, fill=_LIGHT_GREY, font=detail_font, anchor="lm")

    def _draw_strip(self, draw: ImageDraw.ImageDraw, top: float, first: float, last: float) -> None:
        """Draw the events from `first` to `last` second, a lane per person."""
        u = self._unit
        left, width = _PADDING * u, self._width - 2 * _PADDING * u
        for lane, number in enumerate(self._subjects):
            low, high = (top + lane * _LANE) * u, (top + (lane + 1) * _LANE - 3) * u
            low_second, high_second = max(first, 0), min(last, self._timeline.duration)
            span = [left + width * (second - first) / max(last - first, 1e-9) for second in (low_second, high_second)]
            draw.rectangle((span[0], low, span[1], high), _TRACK)
            for event in self._events[number][0]:
                if event.end_seconds <= first or event.start_seconds >= last:
                    continue
                start = max((event.start_seconds - first) / (last - first), 0)
                end = min((event.end_seconds - first) / (last - first), 1)
                box = (left + width * start, low, max(left + width * end, left + width * start + 1), high)
                draw.rectangle(box, self._colors[event.group])

    def _draw_captions(self, draw: ImageDraw.ImageDraw, top: float, first: str, last: str) -> None:
        u = self._unit
        y, font = (top + len(self._subjects) * _LANE) * u, text_font(14 * u)
        draw.text((_PADDING * u, y), first, fill=_LIGHT_GREY, font=font, anchor="lt")
        draw.text((self._width - _PADDING * u, y), last, fill=_LIGHT_GREY, font=font, anchor="rt")

    def _draw_playhead(self, draw: ImageDraw.ImageDraw, top: float, place: float) -> None:
        u = self._unit
        x = _PADDING * u + (self._width - 2 * _PADDING * u) * place
        bottom = (top + len(self._subjects) * _LANE - 2) * u
        draw.line((x, top * u - 3 * u, x, bottom), fill=PAPER, width=max(2, round(2 * u)))


def _picture_size(width: int, height: int) -> tuple[tuple[int, int], float]:
    """Even width and height of the picture without the bar, and its scale."""
    scale = min(_MAX_SIDE / max(width, height), max(1, math.ceil(_MIN_WIDTH / width)))
    return (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)), scale


def _clock(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on; with tenths where the seconds alone say little."""
    if 0 < seconds < 10:
        return f"0:{math.floor(10 * seconds) / 10:04.1f}"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


# Measuring text costs more than drawing it, and a label stays for many frames.
_fit = functools.lru_cache(maxsize=256)(functools.partial(fit_text, bold=True))


__all__ = ["Attention", "write_annotated_video"]
