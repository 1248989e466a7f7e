"""`clipmg timeline`: the micro-gestures in whole videos."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clipmg_hf.commands import shared
from clipmg_hf.commands.shared import HELP, check_subject, choice, pick, quiet_libraries
from clipmg_hf.console import errors_to_exit, say
from clipmg_hf.timeline_options import BACKENDS, CROPS, DEFAULT_FORMATS, DTYPES, FORMATS, TimelineOptions


DEFAULTS = TimelineOptions()
_FORMATS = ",".join(DEFAULT_FORMATS)


def _option(name: str, *words: str, **settings: Any) -> Any:
    """An option that is a field of [`TimelineOptions`]; a switch has its word, else it could also be switched off."""
    return typer.Option(*words, help=HELP[name], **settings)


_events = partial(_option, rich_help_panel="Events")
_running = partial(_option, rich_help_panel="Running")


def _check_formats(value: str) -> str:
    unknown = [name for name in value.split(",") if name.strip() not in FORMATS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}.")
    return value


Output = Annotated[
    Path,
    typer.Option(help="Folder of the results: each video gets a folder in it.", metavar="DIR", show_default=False),
]
Keypoints = Annotated[
    Path | None,
    typer.Option(
        help="OpenPose JSON of the video, a folder or a file; for a folder of videos a folder with an entry for each, "
        "named like the video.",
        metavar="PATH",
        show_default=False,
    ),
]
Formats = Annotated[str, _option("formats", callback=_check_formats, metavar="A,B,...")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that were made with other settings.")]
NumProc = Annotated[int, typer.Option(min=1, help="Videos that are worked on at a time.", rich_help_panel="Running")]


def timeline(
    videos: Annotated[Path, typer.Argument(help="A video, or a folder of videos.", show_default=False)],
    model: shared.ModelOption,
    output: Output,
    revision: shared.RevisionOption = None,
    keypoints: Keypoints = None,
    pose: shared.PoseOption = None,
    pose_weights: shared.PoseWeightsOption = None,
    person_detector: shared.PersonDetectorOption = None,
    subject: Annotated[str, _option("subject", callback=check_subject, metavar="RULE")] = DEFAULTS.subject,
    start: Annotated[float | None, _option("start", show_default="video's start")] = None,
    end: Annotated[float | None, _option("end", show_default="video's end")] = None,
    formats: Formats = _FORMATS,
    attention: Annotated[bool, _option("attention", "--attention")] = DEFAULTS.attention,
    blur_face: Annotated[bool, _option("blur_face", "--blur-face")] = DEFAULTS.blur_face,
    overwrite: Overwrite = False,
    window: Annotated[int, _events("window", min=1)] = DEFAULTS.window,
    stride: Annotated[int, _events("stride", min=1)] = DEFAULTS.stride,
    crop: Annotated[str, _events("crop", **choice(CROPS))] = DEFAULTS.crop,
    threshold: Annotated[float, _events("threshold")] = DEFAULTS.threshold,
    change_cost: Annotated[float, _events("change_cost")] = DEFAULTS.change_cost,
    smoothing: Annotated[float, _events("smoothing")] = DEFAULTS.smoothing,
    min_duration: Annotated[float, _events("min_duration")] = DEFAULTS.min_duration,
    max_duration: Annotated[float | None, _events("max_duration", show_default="none")] = DEFAULTS.max_duration,
    merge_gap: Annotated[float, _events("merge_gap")] = DEFAULTS.merge_gap,
    overlapping: Annotated[bool, _events("overlapping", "--overlapping")] = DEFAULTS.overlapping,
    num_proc: NumProc = 1,
    batch_size: Annotated[int, _running("batch_size", min=1)] = DEFAULTS.batch_size,
    device: Annotated[str | None, _running("device", show_default=False)] = None,
    dtype: Annotated[str, _running("dtype", **choice(DTYPES))] = DEFAULTS.dtype,
    backend: Annotated[str, _running("backend", **choice(BACKENDS))] = DEFAULTS.backend,
    as_json: shared.JsonOption = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Find the micro-gestures in a video of any length, or in all videos of a folder.

    Run again, the same command goes on where it was stopped and leaves out what is done.
    """
    arguments = {**locals(), "formats": [name.strip() for name in formats.split(",")]}
    messages = Console(stderr=True, quiet=quiet)
    with errors_to_exit(), quiet_libraries(quiet):
        options = pick(TimelineOptions, arguments)
        with messages.status("Loading"):
            from clipmg_hf.timeline_job import find_videos, plan_jobs, run_jobs
            from clipmg_hf.timeline_outcomes import describe_failure, exit_status, print_outcomes

        jobs = plan_jobs(find_videos(videos), output, keypoints, is_folder=videos.is_dir())
        running: dict[str, Any] = {"revision": revision, "num_proc": num_proc, "overwrite": overwrite}
        outcomes = []
        for outcome in run_jobs(jobs, model, options, **running, show_progress=not quiet):
            outcomes.append(outcome)
            if outcome.error is not None:
                print(describe_failure(outcome), file=sys.stderr)
        order = {job: number for number, job in enumerate(jobs)}
        outcomes.sort(key=lambda outcome: order[outcome.job])
        # Of a single video that failed, the message says all.
        if len(jobs) > 1 or outcomes[0].error is None:
            print_outcomes(outcomes, as_json)
            say(messages, f"results in {output if len(jobs) > 1 else jobs[0].folder}")
    raise typer.Exit(exit_status(outcomes))


__all__ = ["timeline"]
