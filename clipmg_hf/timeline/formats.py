"""The files of a timeline.

    write_timeline(timeline, "results")
    write_timeline(timeline, "results", formats=["csv", "elan"], stem="interview 1")

| format   | file           | opens in                             |
|----------|----------------|--------------------------------------|
| csv      | `.csv`         | Excel, LibreOffice                   |
| tsv      | `.tsv`         | R, pandas                            |
| windows  | `.windows.csv` | scores of every window               |
| json     | `.json`        | [`read_timeline`]; nothing is lost   |
| elan     | `.eaf`         | ELAN                                 |
| boris    | `.boris`       | BORIS                                |
| webvtt   | `.vtt`         | browsers, VLC                        |
| textgrid | `.TextGrid`    | Praat                                |
"""

import os
import re
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from clipmg_hf.files import write_file
from clipmg_hf.timeline.boris import render_boris
from clipmg_hf.timeline.elan import render_elan
from clipmg_hf.timeline.json_files import render_json
from clipmg_hf.timeline.records import Timeline
from clipmg_hf.timeline.subtitles import render_webvtt
from clipmg_hf.timeline.tables import render_csv, render_tsv, render_window_csv
from clipmg_hf.timeline.textgrid import render_textgrid


# Of the video with events, skeletons and blurred faces drawn into it.
ANNOTATED_SUFFIX = ".annotated.mp4"
# What file names of Windows may not hold, and control characters.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


class Format(NamedTuple):
    """How a timeline becomes a file: what the name ends in, its text, and whether that also takes the video's path."""

    suffix: str
    render: Callable[..., str]
    names_video: bool = False


FORMATS: dict[str, Format] = {
    "csv": Format(".csv", render_csv),
    "tsv": Format(".tsv", render_tsv),
    "windows": Format(".windows.csv", render_window_csv),
    "json": Format(".json", render_json),
    "elan": Format(".eaf", render_elan, names_video=True),
    "boris": Format(".boris", render_boris, names_video=True),
    "webvtt": Format(".vtt", render_webvtt),
    "textgrid": Format(".TextGrid", render_textgrid),
}


def make_stem(video: str) -> str:
    """Name of a video without its ending, as every file system takes it; "timeline" if nothing is left."""
    return _FORBIDDEN.sub("_", Path(video).stem).strip(". ") or "timeline"


def write_timeline(
    timeline: Timeline,
    folder: str | PathLike,
    formats: Iterable[str] = tuple(FORMATS),
    stem: str | None = None,
    video: str | PathLike | None = None,
) -> list[Path]:
    """Write a timeline to a folder.

    Args:
        timeline (`Timeline`): What to write.
        folder (`str` or `PathLike`): Where to; it is made if needed.
        formats (`Iterable[str]`, defaults to all): Names in [`FORMATS`].
        stem (`str`, *optional*): Name of the files without their endings; by default that of the video.
        video (`str` or `PathLike`, *optional*): Where the video is; ELAN and BORIS get the way there from the folder.
            By default they look for it in the folder.

    Returns:
        `list[Path]`: The files in the order of `formats`. Each is there as a whole or, if it could not be written, as
        it was before; none is written if one cannot be made.

    Raises:
        ValueError: Another format, or a number that is not finite.
    """
    names = list(dict.fromkeys(formats))
    if unknown := [name for name in names if name not in FORMATS]:
        raise ValueError(f"format {unknown[0]!r} is unknown; expected one of {', '.join(FORMATS)}.")
    folder = Path(folder)
    stem = make_stem(timeline.video) if stem is None else stem
    way = None if video is None else Path(os.path.relpath(video, folder)).as_posix()
    contents = {
        folder / f"{stem}{form.suffix}": form.render(timeline, way) if form.names_video else form.render(timeline)
        for form in map(FORMATS.__getitem__, names)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        write_file(path, content)
    return list(contents)


__all__ = ["ANNOTATED_SUFFIX", "FORMATS", "Format", "make_stem", "write_timeline"]
