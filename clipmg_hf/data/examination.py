"""Opening what was found: headers of videos, skeletons, and every interval checked against both."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import av
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from av.error import FFmpegError
from av.video.stream import VideoStream
from tqdm import tqdm

from clipmg_hf.data.discovery import shorten
from clipmg_hf.data.problems import OnError, ProblemLog
from clipmg_hf.data.skeletons import Facts, SkeletonCache, summarize_facts
from clipmg_hf.data.source import CLIP_SCHEMA, DataSource
from clipmg_hf.processing.video_decoding_clipmg import FILE_OPTIONS


# A video and its skeleton may disagree by this many frames at the end; more is a problem (our choice).
FRAME_TOLERANCE = 1
# Stands for a length that nobody knows: beyond every video, and safe to add to.
UNKNOWN = int(np.iinfo(np.int32).max)
# Keypoints are those of a larger video if most of them span more than this part of its width and height (our choice).
MAX_EXTENT = 1.1
# Below this many files the headers are read before anyone has seen a progress bar.
MIN_FILES_FOR_PROGRESS = 200


@dataclass(frozen=True)
class VideoHeader:
    """What a file says without decoding: number of frames, frames per second (0: unknown), size in pixels."""

    num_frames: int
    fps: float
    width: int
    height: int


def read_header(path: str) -> VideoHeader | str:
    """Read the header of a video, or return what is wrong with it. The picture is not decoded."""
    try:
        with av.open(f"file:{path}", options=FILE_OPTIONS) as container:
            stream = cast(VideoStream | None, container.streams.best("video"))
            if stream is None:
                return f"{path}: no video stream; expected a video."
            rate = stream.average_rate
            # Matroska and MPEG-TS do not say: a packet is a frame in nearly every codec.
            num_frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
            return VideoHeader(num_frames, float(rate) if rate else 0.0, stream.width, stream.height)
    except (FFmpegError, OSError) as error:
        # Its text would repeat the path and FFmpeg's number.
        return f"{path}: cannot be read as a video ({error.strerror or error})."


def read_headers(paths: Sequence[str], show_progress: bool = True) -> list[VideoHeader | str]:
    """Read the headers of many videos with threads: it is the disk that takes the time."""
    with ThreadPoolExecutor(8) as pool:
        hide = not show_progress or datasets.are_progress_bars_disabled() or len(paths) < MIN_FILES_FOR_PROGRESS
        return list(
            tqdm(pool.map(read_header, paths), total=len(paths), desc="Read videos", unit="video", disable=hide)
        )


def examine(
    source: DataSource,
    cache: SkeletonCache,
    on_error: OnError = "raise",
    num_proc: int | None = None,
    show_progress: bool = True,
) -> DataSource:
    """Open every video, convert every skeleton, and check every interval against both.

    Args:
        source ([`DataSource`]): As it was found.
        cache ([`SkeletonCache`]): Keeps the converted skeletons.
        on_error (`str`, defaults to `"raise"`): `"skip"` leaves out what is wrong and says so in `skipped`.
        num_proc (`int`, *optional*): Processes that convert.
        show_progress (`bool`, defaults to `True`): Show one bar for each of the two steps.

    Returns:
        [`DataSource`] with frame counts, rates, sizes, and what was found out. Ends that lie one frame beyond the
        video or skeleton are moved to its last frame, and counted in `findings`.

    Raises:
        DatasetFormatError: All problems at once.
    """
    log = ProblemLog(str(source.root), on_error)
    source, file_frames = _examine_videos(source, log, show_progress)
    source, skeleton_rows = _examine_skeletons(source, cache, log, num_proc, show_progress)
    source = _check_intervals(source, file_frames, skeleton_rows, log)
    log.raise_if_any()
    return dataclasses.replace(source, skipped=(*source.skipped, *log.problems))


def _examine_videos(source: DataSource, log: ProblemLog, show_progress: bool) -> tuple[DataSource, dict[str, int]]:
    """Fill in rates, sizes and, for untrimmed files, frame counts; also return the frames of every readable file."""
    paths = sorted({*source.clips["video"].to_pylist(), *source.videos["video"].to_pylist()} - {None})
    headers = dict(zip(paths, read_headers(paths, show_progress), strict=True))
    for problem in headers.values():
        if isinstance(problem, str):
            log.add(problem)
    good = {path: header for path, header in headers.items() if isinstance(header, VideoHeader)}
    unreadable = pa.array([path for path in paths if path not in good], pa.string())
    is_bad = pc.is_in(source.clips["video"], value_set=unreadable)
    clips = source.clips.filter(pc.invert(is_bad))
    first_file = _first_file_of_videos(source, clips)
    columns = {name: source.videos[name].to_pylist() for name in ("num_frames", "fps", "width", "height", "video")}
    for row, path in enumerate(first_file):
        if path not in good:
            continue
        header = good[path]
        columns["fps"][row] = header.fps or columns["fps"][row]
        columns["width"][row], columns["height"][row] = header.width, header.height
        if columns["video"][row] == path:
            columns["num_frames"][row] = header.num_frames or None
    videos = source.videos
    for name in ("num_frames", "fps", "width", "height"):
        place = videos.schema.get_field_index(name)
        videos = videos.set_column(
            place, videos.schema.field(place), pa.array(columns[name], videos.schema.field(place).type)
        )
    return dataclasses.replace(source, clips=clips, videos=videos), {p: h.num_frames for p, h in good.items()}


def _first_file_of_videos(source: DataSource, clips: pa.Table) -> list[str | None]:
    """For each video the file of its first clip that has one, or its own."""
    with_file = clips.filter(pc.is_valid(clips["video"]))
    first = pc.index_in(source.videos["video_id"], value_set=with_file["video_id"].combine_chunks())
    files = pc.take(with_file["video"].combine_chunks(), first.combine_chunks())
    return pc.coalesce(files, source.videos["video"].combine_chunks()).to_pylist()


def _examine_skeletons(
    source: DataSource, cache: SkeletonCache, log: ProblemLog, num_proc: int | None, show_progress: bool
) -> tuple[DataSource, np.ndarray]:
    """Convert the skeletons; also return the rows of each video's, -1 without one."""
    rows = np.full(len(source.videos), -1, dtype=np.int64)
    if source.keypoint_layout is None:
        return source, rows
    video_ids, paths, kinds = (source.videos[name].to_pylist() for name in ("video_id", "skeleton", "skeleton_kind"))
    files = _first_file_of_videos(source, source.clips)
    sizes = list(zip(source.videos["width"].to_pylist(), source.videos["height"].to_pylist(), strict=True))
    places = [place for place, path in enumerate(paths) if path is not None]
    problems = cache.convert([(paths[p], kinds[p]) for p in places], num_proc, show_progress)
    keep = np.ones(len(rows), dtype=bool)
    facts: dict[str, Facts] = {}
    for place, problem in zip(places, problems, strict=True):
        if problem is not None:
            log.problems += problem.problems
            keep[place] = False
            continue
        found = facts[video_ids[place]] = cache.facts(paths[place], kinds[place])
        rows[place] = cache.num_frames(paths[place], kinds[place])
        if files[place] is not None and (rescaled := _tell_rescaled(files[place], sizes[place], found)):
            log.add(rescaled)
            keep[place] = False
    empty = [video_ids[int(place)] for place in np.flatnonzero(rows == 0)]
    findings = [*source.findings, *summarize_facts(facts)]
    if empty:
        findings.append(f"skeletons without a row: {shorten(empty)}; their clips have no keypoints.")
    source = dataclasses.replace(source, findings=tuple(findings)).select_videos(keep)
    return source, rows[keep]


def _tell_rescaled(path: str | None, size: tuple[int, int], facts: Facts) -> str | None:
    """The problem of a video whose frames are much smaller than what its OpenPose points span; `None` without one."""
    extent = facts.get("extent")
    if extent is None or not (np.array(extent) > MAX_EXTENT * np.array(size)).any():
        return None
    return (
        f"{path}: its frames have {size[0]} x {size[1]} pixels, but 95 % of the keypoints span {extent[0]:g} x "
        f"{extent[1]:g}; expected the video that the skeletons were made from, not a smaller copy."
    )


def _check_intervals(
    source: DataSource, file_frames: dict[str, int], skeleton_rows: np.ndarray, log: ProblemLog
) -> DataSource:
    """Check that every interval lies inside its file and its skeleton, and fill in the ends of trimmed clips."""
    start, end = (source.clips[name].to_numpy().copy() for name in ("start_frame", "end_frame"))
    in_file = _frames_in_files(source, file_frames)
    rows = skeleton_rows[source.video_indices]
    in_skeleton = np.where(rows > 0, rows, UNKNOWN)
    is_open = end < 0
    end[is_open] = in_file[is_open] - 1
    limit = np.minimum(in_file, in_skeleton)
    is_bad = (end >= limit + FRAME_TOLERANCE) | (start >= limit) | (is_open & (in_file == UNKNOWN))
    for place in np.flatnonzero(is_bad):
        clip_id, path = (source.clips[name][int(place)].as_py() for name in ("clip_id", "video"))
        interval = f"clip {clip_id}: the interval {start[place]}..{end[place]}"
        if in_file[place] == UNKNOWN and is_open[place]:
            log.add(f"clip {clip_id}: {path} does not say how many frames it has; expected at least one.")
        elif in_file[place] <= in_skeleton[place]:
            log.add(f"{interval} lies beyond its video: {path} ends at frame {in_file[place] - 1}.")
        else:
            log.add(f"{interval} lies beyond its video: the skeleton has {rows[place]} rows.")
    late = ~is_bad & (end >= limit)
    end[late] = limit[late] - 1
    findings = [*source.findings, *_compare_lengths(source, skeleton_rows)]
    if late.any():
        findings.append(f"{int(late.sum())} clips ended one frame beyond their video; they end at its last frame.")
    field_index = source.clips.schema.get_field_index("end_frame")
    clips = source.clips.set_column(field_index, CLIP_SCHEMA.field("end_frame"), pa.array(end, pa.int32()))
    clips = clips.filter(pa.array(~is_bad))
    return _drop_empty_clips(dataclasses.replace(source, clips=clips, findings=tuple(findings)), skeleton_rows)


def _frames_in_files(source: DataSource, file_frames: dict[str, int]) -> np.ndarray:
    """(num_clips,) int64: frame of the untrimmed video at which each clip's file ends; `UNKNOWN` without a file."""
    files = source.clips["video"].dictionary_encode().combine_chunks()
    num_frames = np.array([*(file_frames.get(path, 0) for path in files.dictionary.to_pylist()), 0], dtype=np.int64)
    codes = pc.fill_null(files.indices, len(num_frames) - 1).to_numpy(zero_copy_only=False)
    return np.where(num_frames[codes] > 0, num_frames[codes] + source.clips["video_start_frame"].to_numpy(), UNKNOWN)


def _compare_lengths(source: DataSource, skeleton_rows: np.ndarray) -> list[str]:
    """Compare the frame counts of the headers with the rows of the skeletons."""
    frames = pc.fill_null(source.videos["num_frames"], 0).to_numpy()
    both = (frames > 0) & (skeleton_rows > 0)
    if not both.any():
        return []
    difference = (frames - skeleton_rows)[both]
    values, counts = np.unique(difference, return_counts=True)
    if len(values) == 1 and values[0] == 0:
        return [f"video and skeleton have the same number of frames in all {int(both.sum())} videos that have both."]
    parts = [f"{value:+d} in {count}" for value, count in zip(values[:6], counts[:6], strict=True)]
    more = f", {len(values) - 6} more values" if len(values) > 6 else ""
    return [
        f"frames of the video minus rows of the skeleton, over {int(both.sum())} videos: {', '.join(parts)}{more}."
    ]


def _drop_empty_clips(source: DataSource, skeleton_rows: np.ndarray) -> DataSource:
    """Leave out clips that have neither frames nor keypoints, and say which videos they belong to."""
    has_video = pc.is_valid(source.clips["video"]).to_numpy(zero_copy_only=False)
    empty = ~has_video & ~(skeleton_rows[source.video_indices] > 0)
    if not empty.any():
        return source
    videos = pc.unique(source.clips.filter(pa.array(empty))["video_id"]).to_pylist()
    note = f"{int(empty.sum())} clips have neither video nor keypoints and are left out: videos {shorten(videos)}."
    return dataclasses.replace(source, clips=source.clips.filter(pa.array(~empty)), missing=(*source.missing, note))


__all__ = ["examine"]
