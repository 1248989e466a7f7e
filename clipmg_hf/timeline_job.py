"""Timelines of many videos, each in a folder of its own, with results that are complete or not there.

    jobs = plan_jobs(find_videos("interviews"), "results")
    for outcome in run_jobs(jobs, "runs/full", TimelineOptions(formats=["csv", "elan"])):
        print(outcome.job.video, outcome.status)

`results/NAME/` gets the files of the video NAME. `settings.json` is written last: it says what the files were made
with, and a video with the same settings is not done again. While a video is worked on, its folder holds hidden files:
the settings, finished windows and a lock, so that whoever comes after a kill goes on, and nobody works on it twice.
"""

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from tqdm import tqdm

from clipmg_hf.console import is_of_the_user, show_traceback
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.files import PARTIAL_SUFFIX, digest_file, write_file
from clipmg_hf.inference import AttentionTrack, follow_people, load_model, predict_timeline
from clipmg_hf.inference.checkpoint import resolve_folder
from clipmg_hf.inference.onnx_model import DESCRIPTION_FILE
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE, PROCESSOR_FILE
from clipmg_hf.pose_choice import load_pose_choice
from clipmg_hf.processes import make_pool
from clipmg_hf.subject_rules import parse_subject_rule
from clipmg_hf.timeline.formats import ANNOTATED_SUFFIX, FORMATS, make_stem, write_timeline
from clipmg_hf.timeline.json_files import read_timeline
from clipmg_hf.timeline.page import write_timeline_page
from clipmg_hf.timeline.records import Timeline
from clipmg_hf.timeline_options import TimelineOptions


# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
])
# fmt: on
SETTINGS_FILE = "settings.json"
# Hidden while a video is worked on.
_STARTED_FILE, _WINDOWS_FILE, _LOCK_FILE = ".settings.json", ".windows.jsonl", ".lock"
_STAGING = ".clipmg_*"
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MAX_NAMED = 5


@dataclass(frozen=True)
class VideoJob:
    """One video: where it is, where its results go, and its keypoints (OpenPose JSON, a folder or a file)."""

    video: Path
    folder: Path
    keypoints: Path | None = None


@dataclass(frozen=True, eq=False)
class VideoOutcome:
    """What became of a video.

    Args:
        job ([`VideoJob`]): The video.
        status (`str`): "done"; "skipped" if the results were there; "busy" if another process works on it; "failed".
        timeline ([`Timeline`], *optional*): What was found, without windows: those of many videos are too much.
        files (`tuple[Path, ...]`): The results.
        error (`str`, *optional*): Why it failed.
    """

    job: VideoJob
    status: Literal["done", "skipped", "busy", "failed"]
    timeline: Timeline | None = None
    files: tuple[Path, ...] = ()
    error: str | None = None


def find_videos(path: str | PathLike) -> list[Path]:
    """A video file, or the videos of a folder by name; folders below it are not looked at.

    Raises:
        DatasetFormatError: There is no such file or folder, or the folder holds no video.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetFormatError(f"{path}: no such file or folder; expected a video or a folder of videos.")
    if not path.is_dir():
        return [path]
    videos = sorted(
        entry for entry in path.iterdir() if entry.suffix.lower() in VIDEO_SUFFIXES and not entry.name.startswith(".")
    )
    if not videos:
        known = ", ".join(sorted(VIDEO_SUFFIXES))
        raise DatasetFormatError(f"{path}: no video; expected files in the folder itself that end in {known}.")
    return videos


def plan_jobs(
    videos: Sequence[Path], output_dir: str | PathLike, keypoints: str | PathLike | None = None, is_folder: bool = True
) -> list[VideoJob]:
    """Give every video its folder and its keypoints.

    Args:
        videos (`Sequence[Path]`): The videos.
        output_dir (`str` or `PathLike`): Where the folders of the results go.
        keypoints (`str` or `PathLike`, *optional*): A folder with an entry for each video: a folder with the video's
            name without its ending, or such a file with the ending `.json`; without `is_folder` those of the video.
        is_folder (`bool`, defaults to `True`): Whether the videos are those of a folder.

    Raises:
        DatasetFormatError: Videos without keypoints, or two whose results would get the same name.
    """
    folders: dict[str, Path] = {}
    for video in videos:
        # Some file systems do not tell cases apart.
        if (other := folders.setdefault(make_stem(video.name).casefold(), video)) != video:
            raise DatasetFormatError(
                f"{other} and {video.name}: the results of both would be named {make_stem(video.name)!r}; expected "
                "names that differ without their endings."
            )
    found = {video: None if keypoints is None else Path(keypoints) for video in videos}
    if keypoints is not None and is_folder:
        found = {video: _find_keypoints(Path(keypoints), video) for video in videos}
        if missing := [video.name for video, path in found.items() if path is None]:
            more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
            raise DatasetFormatError(
                f"{keypoints}: no keypoints of {', '.join(missing[:_MAX_NAMED])}{more}; expected for each video a "
                f"folder such as {Path(missing[0]).stem!r}, or {Path(missing[0]).stem + '.json'!r}."
            )
    return [VideoJob(video, Path(output_dir, make_stem(video.name)), found[video]) for video in videos]


def _find_keypoints(folder: Path, video: Path) -> Path | None:
    candidates = (folder / video.stem, folder / f"{video.stem}.json")
    return next((path for path in candidates if path.exists()), None)


def run_jobs(
    jobs: Sequence[VideoJob],
    model: str,
    options: TimelineOptions,
    *,
    revision: str | None = None,
    num_proc: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Iterator[VideoOutcome]:
    """Make the timelines of videos, and yield what became of each as it is known.

    Args:
        jobs (`Sequence[VideoJob]`): The videos.
        model (`str`): Folder of a checkpoint, or owner/name on the Hub; loaded once there is something to do.
        options ([`TimelineOptions`]): How.
        revision (`str`, *optional*): Commit, tag or branch of a Hub name; by default the newest commit of `main`.
        num_proc (`int`, defaults to 1): Processes; more than one need an `if __name__ == "__main__"` guard.
        overwrite (`bool`, defaults to `False`): Replace results that were made with other settings.
        show_progress (`bool`, defaults to `False`): Show bars: over frames, or with several processes over videos.

    Raises:
        ValueError: Options that cannot be, results of other settings without `overwrite`, or an unusable model.
        OSError: The disk is full. What was finished stays, and the same call goes on from there.
    """
    _check_options(jobs, options)
    # One commit for all processes, whatever is pushed in the meantime.
    folder = resolve_folder(model, options.backend, revision)
    common = {"model": _describe_model(folder, options.backend), **options.to_settings()}
    work = _Work(folder, options, common, overwrite)
    states = {job: work.state(job) for job in jobs}
    if not overwrite:
        _refuse_others(states)
    for job, state in states.items():
        if state.is_done:
            yield _read_outcome(job)
    pending = [job for job, state in states.items() if not state.is_done]
    if num_proc > 1 and len(pending) > 1:
        yield from _run_in_processes(pending, work, min(num_proc, len(pending)), show_progress)
        return
    for number, job in enumerate(pending, start=1):
        if show_progress and len(pending) > 1:
            tqdm.write(f"{job.video.name} ({number} of {len(pending)})", file=sys.stderr)
        yield work.run(job, show_progress)


def run_share(
    jobs: Sequence[VideoJob],
    model: str,
    options: TimelineOptions,
    *,
    revision: str | None = None,
    overwrite: bool = False,
) -> list[VideoOutcome] | None:
    """Make this process's share of timelines in a launch of several processes, on one machine or more.

    Args:
        jobs, model, options, revision, overwrite: As in [`run_jobs`], the same in all processes; without a device,
            each process takes a GPU of its machine where there are some.

    Returns:
        `list[VideoOutcome]`: What became of all jobs, in their order, in the main process; else `None`. Processes wait
        here for the last one: a launcher ends all when one ends with an error.

    Raises:
        ValueError, OSError: As in `run_jobs`.
    """
    # Only for who is who: no tensor is sent, and the last video may take long.
    state = PartialState(cpu=True, timeout=timedelta(days=30))
    if options.device is None and torch.cuda.is_available():
        options = replace(options, device=f"cuda:{state.local_process_index % torch.cuda.device_count()}")
    if state.is_main_process and not Path(model).is_dir():
        revision = resolve_folder(model, options.backend, revision).name
    # The commit, as a branch may move between the looks of two processes.
    (revision,) = broadcast_object_list([revision])
    share = deal_jobs(jobs, state.num_processes)[state.process_index]
    outcomes = []
    for outcome in run_jobs(share, model, options, revision=revision, overwrite=overwrite):
        outcomes.append(outcome)
        say = f"failed: {outcome.error}" if outcome.error else outcome.status
        # One write a line: `print` writes the line end by itself, and the lines of two processes may mix.
        sys.stderr.write(f"process {state.process_index}: {outcome.job.video.name} {say}\n")
        sys.stderr.flush()
    shares = [outcomes]
    if state.num_processes > 1:
        shares = [[]] * state.num_processes
        torch.distributed.all_gather_object(shares, outcomes)
        state.wait_for_everyone()
        state.destroy_process_group()
    if state.process_index > 0:
        return None
    order = {job: number for number, job in enumerate(jobs)}
    return sorted(itertools.chain(*shares), key=lambda outcome: order[outcome.job])


def deal_jobs(jobs: Sequence[VideoJob], num_shares: int) -> list[list[VideoJob]]:
    """Deal videos out by the size of their files, the largest first; every process deals in the same way."""
    sizes = {job: job.video.stat().st_size for job in jobs}
    ordered = sorted(jobs, key=lambda job: (-sizes[job], job.video.name))
    return [ordered[index::num_shares] for index in range(num_shares)]


def _check_options(jobs: Sequence[VideoJob], options: TimelineOptions) -> None:
    """Find what would make every video fail, before a model is loaded."""
    parse_subject_rule(options.subject)
    _ = options.decoding
    has_keypoints = any(job.keypoints is not None for job in jobs)
    if has_keypoints and options.pose is not None:
        raise ValueError("Got keypoints and a pose estimator; expected one of them.")
    if "video" not in options.formats:
        if options.attention:
            raise ValueError("attention is drawn over the annotated video; expected video among the formats.")
        if options.blur_face:
            raise ValueError(
                "Faces are blurred in the annotated video, also on the page; expected video among the formats."
            )
    else:
        # Only to fail early where the extra is missing.
        import clipmg_hf.timeline.annotated_video  # noqa: F401

        if options.blur_face and not has_keypoints and options.pose is None:
            raise ValueError("Faces are found by keypoints; expected keypoints or a pose estimator to blur them.")


@dataclass(frozen=True)
class _State:
    """Whether the results of a video are there, and how those that are there or begun were made otherwise."""

    is_done: bool
    differences: tuple[str, ...] = ()


class _Work:
    """What a process needs for one video after another; the model is loaded for the first of them."""

    def __init__(self, model: Path, options: TimelineOptions, common: dict[str, Any], overwrite: bool):
        self.model = model
        self.options = options
        self.common = common
        self.overwrite = overwrite
        self._loaded: tuple[Any, Any, Any] | None = None

    def settings(self, job: VideoJob) -> dict[str, Any]:
        """All that the results of a video depend on; a missing video has none of its own."""
        video = {"video": _fingerprint(job.video)} if job.video.exists() else {}
        keypoints = None if job.keypoints is None else _fingerprint(job.keypoints)
        return json.loads(json.dumps({**video, "keypoints": keypoints, **self.common}))

    def state(self, job: VideoJob) -> _State:
        """What is there of a video."""
        for name in (SETTINGS_FILE, _STARTED_FILE):
            record = _read_record(job.folder / name)
            if record is None:
                continue
            differences = _differences(record["settings"], self.settings(job))
            is_complete = name == SETTINGS_FILE and all((job.folder / file).is_file() for file in record["files"])
            return _State(is_complete and not differences, differences)
        return _State(False)

    def run(self, job: VideoJob, show_progress: bool = False) -> VideoOutcome:
        """Make the results of one video; what is wrong with it becomes an outcome."""
        # A model that cannot be used must not leave a folder that is claimed for it.
        if self._loaded is None and not self.state(job).is_done:
            self._loaded = _load(self.model, self.options)
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(job.folder / _LOCK_FILE, timeout=0):
                return self._run_alone(job, show_progress)
        except Timeout:
            return VideoOutcome(job, "busy")
        except OSError as error:
            if error.errno not in _FULL_DISK:
                raise
            raise OSError(error.errno, os.strerror(error.errno), str(job.folder)) from error

    def _run_alone(self, job: VideoJob, show_progress: bool) -> VideoOutcome:
        state = self.state(job)
        if state.is_done:
            return _read_outcome(job)
        if state.differences:
            _remove_results(job.folder)
        _remove_leftovers(job.folder, with_windows=bool(state.differences))
        settings = self.settings(job)
        # With the files' names: results of other settings must not find them and stay beside them.
        write_file(job.folder / _STARTED_FILE, _render_record(settings, _planned_files(job, self.options)))
        (job.folder / SETTINGS_FILE).unlink(missing_ok=True)
        assert self._loaded is not None
        try:
            timeline, files = _make_results(job, *self._loaded, self.options, show_progress)
        except Exception as error:
            if not is_of_the_user(error) or getattr(error, "errno", None) in _FULL_DISK:
                raise
            # Windows serve again after an error of the place.
            if not isinstance(error, OSError):
                _remove_results(job.folder)
                _remove_leftovers(job.folder, with_windows=True)
            if all(path.name == _LOCK_FILE for path in job.folder.iterdir()):
                (job.folder / _LOCK_FILE).unlink(missing_ok=True)
                job.folder.rmdir()
            show_traceback(error)
            return VideoOutcome(job, "failed", error=str(error) or type(error).__name__)
        write_file(job.folder / SETTINGS_FILE, _render_record(settings, files))
        _remove_leftovers(job.folder, with_windows=True)
        return VideoOutcome(job, "done", replace(timeline, windows=()), files)


def _load(model: Path, options: TimelineOptions) -> tuple[Any, Any, Any]:
    """Model, processor and pose estimator."""
    estimator = load_pose_choice(options.pose, options.pose_weights, options.person_detector, options.device)
    dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
    return *load_model(model, options.device, dtype, options.backend), estimator


def _make_results(
    job: VideoJob, model: Any, processor: Any, estimator: Any, options: TimelineOptions, show_progress: bool
) -> tuple[Timeline, tuple[Path, ...]]:
    """From the video to its files."""
    interval: dict[str, Any] = {"start": options.start, "end": options.end, "unit": "seconds"}
    people = follow_people(
        job.video,
        keypoints=job.keypoints,
        pose=estimator,
        subject=parse_subject_rule(options.subject),
        **interval,
        show_progress=show_progress,
    )
    attention = AttentionTrack() if options.attention else None
    timeline = predict_timeline(
        job.video,
        model=model,
        processor=processor,
        keypoints=people,
        window=options.window,
        stride=options.stride,
        **interval,
        crop=options.crop,
        batch_size=options.batch_size,
        decoding=options.decoding,
        partial_file=None if options.attention else job.folder / _WINDOWS_FILE,
        attention=attention,
        show_progress=show_progress,
    )
    # Always there: it tells what was found when the video is skipped.
    formats = dict.fromkeys(["json", *(name for name in options.formats if name not in ("page", "video"))])
    files = write_timeline(timeline, job.folder, formats, video=job.video)
    annotated = None
    if "video" in options.formats:
        from clipmg_hf.timeline.annotated_video import write_annotated_video

        annotated = job.folder / f"{make_stem(job.video.name)}{ANNOTATED_SUFFIX}"
        write_annotated_video(
            timeline,
            job.video,
            annotated,
            # Faces of everybody are blurred, skeletons of the subjects drawn.
            keypoints=None if people is None else people.sequences(with_others=options.blur_face),
            layout=None if people is None else people.layout,
            attention=attention,
            blur_face=options.blur_face,
            show_progress=show_progress,
        )
        files.append(annotated)
    if "page" in options.formats:
        page = write_timeline_page(
            timeline, job.folder, annotated or job.video, copy_video=False, faces_blurred=options.blur_face
        )
        files.append(page)
    return timeline, tuple(files)


def _planned_files(job: VideoJob, options: TimelineOptions) -> tuple[Path, ...]:
    stem = make_stem(job.video.name)
    suffixes = {name: f"{stem}{form.suffix}" for name, form in FORMATS.items()}
    names = suffixes | {"video": f"{stem}{ANNOTATED_SUFFIX}", "page": "index.html"}
    return tuple(job.folder / names[name] for name in dict.fromkeys(["json", *options.formats]))


def _describe_model(folder: Path, backend: str) -> dict[str, str]:
    """Digests of the files of a checkpoint that its scores come from, by name."""
    # The description of an export holds digests of its weights and graphs.
    weights = DESCRIPTION_FILE if backend == "onnx" else "*.safetensors"
    patterns = (CONFIG_FILE, PROCESSOR_FILE, weights)
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {path.name: digest_file(path)["sha256"] for path in paths}


def _fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and time of change of a file; of a folder the number of its files and a digest of theirs."""
    if path.is_file():
        status = path.stat()
        return {"name": path.name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    if not path.is_dir():
        return {"name": path.name}
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    return {"name": path.name, "files": len(found), "digest": hashlib.sha256(repr(found).encode()).hexdigest()[:16]}


def _render_record(settings: dict[str, Any], files: Sequence[Path]) -> str:
    return json.dumps({"settings": settings, "files": [path.name for path in files]}, indent=2) + "\n"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"settings", "files"} <= record.keys():
        raise DatasetFormatError(f"{path}: not written by this program; expected another folder for the results.")
    return record


def _differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """What differs, in words."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    # Digests tell a reader nothing.
    return tuple(
        f"another {name}"
        if name in ("video", "model")
        else f"other {name}"
        if name == "keypoints" and old.get(name) and new.get(name)
        else f"{name} {_name(old.get(name))} there and {_name(new.get(name))} here"
        for name in names
    )


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("name"))
    return ", ".join(value) if isinstance(value, list) else "none" if value is None else str(value)


def _refuse_others(states: dict[VideoJob, _State]) -> None:
    """Raise if results of other settings are there."""
    others = {job: state.differences for job, state in states.items() if state.differences}
    if not others:
        return
    job, differences = next(iter(others.items()))
    more = f" So do {len(others) - 1} more videos." if len(others) > 1 else ""
    raise ValueError(
        f"{job.folder} holds results of other settings: {'; '.join(differences)}.{more} Expected the same settings, "
        "another output folder, or --overwrite to replace them."
    )


def _read_outcome(job: VideoJob) -> VideoOutcome:
    """The outcome of a video whose results are there."""
    record = _read_record(job.folder / SETTINGS_FILE)
    assert record is not None
    timeline = read_timeline(job.folder / f"{make_stem(job.video.name)}.json")
    return VideoOutcome(
        job, "skipped", replace(timeline, windows=()), tuple(job.folder / name for name in record["files"])
    )


def _remove_leftovers(folder: Path, with_windows: bool) -> None:
    """Remove what a process that was killed has left, or what a finished video needs no more."""
    for path in folder.glob(_STAGING):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)
    if with_windows:
        for name in (_WINDOWS_FILE, _STARTED_FILE):
            (folder / name).unlink(missing_ok=True)


def _remove_results(folder: Path) -> None:
    """Remove finished and begun results, so that none of them stays beside those of other settings."""
    for name in (SETTINGS_FILE, _STARTED_FILE):
        record = _read_record(folder / name)
        for file in () if record is None else record["files"]:
            (folder / Path(file).name).unlink(missing_ok=True)
    (folder / SETTINGS_FILE).unlink(missing_ok=True)


def _run_in_processes(jobs: list[VideoJob], work: _Work, num_proc: int, show_progress: bool) -> Iterator[VideoOutcome]:
    num_threads = max(1, torch.get_num_threads() // num_proc)
    with make_pool(num_proc, __name__, _start_worker, work, num_threads) as pool:
        futures = {pool.submit(_run_in_worker, job): job for job in jobs}
        try:
            bar = tqdm(as_completed(futures), "Videos", len(futures), unit="video", disable=not show_progress)
            for future in bar:
                yield future.result()
        except BaseException as error:
            # They would finish their videos first.
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise OSError(
                    "A process of --num-proc was killed, perhaps for want of memory; run the same command again to go "
                    "on, with fewer processes."
                ) from error
            raise


_worker_work: _Work


def _start_worker(work: _Work, num_threads: int) -> None:
    global _worker_work
    _worker_work = work
    torch.set_num_threads(num_threads)
    # The parent gets the interrupt as well, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_in_worker(job: VideoJob) -> VideoOutcome:
    return _worker_work.run(job)


__all__ = [
    "SETTINGS_FILE",
    "VIDEO_SUFFIXES",
    "VideoJob",
    "VideoOutcome",
    "deal_jobs",
    "find_videos",
    "plan_jobs",
    "run_jobs",
    "run_share",
]
