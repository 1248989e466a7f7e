"""`clipmg timeline`: the micro-gestures in whole videos."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from clipmg_hf.commands import shared
from clipmg_hf.commands.shared import HELP, check_subject, choice, make_table, quiet_libraries, say
from clipmg_hf.console import errors_to_exit
from clipmg_hf.timeline_options import BACKENDS, CROPS, DEFAULT_FORMATS, DTYPES, FORMATS, TimelineOptions


if TYPE_CHECKING:
    from clipmg_hf.timeline import Timeline
    from clipmg_hf.timeline_job import VideoOutcome


DEFAULTS = TimelineOptions()
_MAX_EVENTS = 20
_STATUS = {"done": "done", "skipped": "was done", "busy": "busy elsewhere", "failed": "failed"}
_EVENTS, _RUN = "Events", "Running"


def _check_formats(value: str) -> str:
    unknown = [name for name in value.split(",") if name.strip() not in FORMATS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(FORMATS)}.")
    return value


def timeline(
    videos: Annotated[Path, typer.Argument(help="A video, or a folder of videos.", show_default=False)],
    model: shared.ModelOption,
    output: Annotated[
        Path,
        typer.Option(help="Folder of the results: each video gets a folder in it.", metavar="DIR", show_default=False),
    ],
    keypoints: Annotated[
        Path | None,
        typer.Option(
            help="OpenPose JSON of the video, a folder or a file; for a folder of videos a folder with an entry for "
            "each, named like the video.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    pose: shared.PoseOption = None,
    pose_weights: shared.PoseWeightsOption = None,
    person_detector: shared.PersonDetectorOption = None,
    subject: Annotated[
        str, typer.Option(callback=check_subject, help=HELP["subject"], metavar="RULE")
    ] = DEFAULTS.subject,
    start: Annotated[float | None, typer.Option(help=HELP["start"], show_default="video's start")] = None,
    end: Annotated[float | None, typer.Option(help=HELP["end"], show_default="video's end")] = None,
    formats: Annotated[str, typer.Option(callback=_check_formats, help=HELP["formats"], metavar="A,B,...")] = ",".join(
        DEFAULT_FORMATS
    ),
    attention: Annotated[bool, typer.Option("--attention", help=HELP["attention"])] = DEFAULTS.attention,
    blur_face: Annotated[bool, typer.Option("--blur-face", help=HELP["blur_face"])] = DEFAULTS.blur_face,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that were made with other settings.")
    ] = False,
    window: Annotated[int, typer.Option(min=1, help=HELP["window"], rich_help_panel=_EVENTS)] = DEFAULTS.window,
    stride: Annotated[int, typer.Option(min=1, help=HELP["stride"], rich_help_panel=_EVENTS)] = DEFAULTS.stride,
    crop: Annotated[str, typer.Option(help=HELP["crop"], rich_help_panel=_EVENTS, **choice(CROPS))] = DEFAULTS.crop,
    threshold: Annotated[float, typer.Option(help=HELP["threshold"], rich_help_panel=_EVENTS)] = DEFAULTS.threshold,
    change_cost: Annotated[
        float, typer.Option(help=HELP["change_cost"], rich_help_panel=_EVENTS)
    ] = DEFAULTS.change_cost,
    smoothing: Annotated[float, typer.Option(help=HELP["smoothing"], rich_help_panel=_EVENTS)] = DEFAULTS.smoothing,
    min_duration: Annotated[
        float, typer.Option(help=HELP["min_duration"], rich_help_panel=_EVENTS)
    ] = DEFAULTS.min_duration,
    max_duration: Annotated[
        float | None, typer.Option(help=HELP["max_duration"], rich_help_panel=_EVENTS, show_default="none")
    ] = None,
    merge_gap: Annotated[float, typer.Option(help=HELP["merge_gap"], rich_help_panel=_EVENTS)] = DEFAULTS.merge_gap,
    overlapping: Annotated[
        bool, typer.Option("--overlapping", help=HELP["overlapping"], rich_help_panel=_EVENTS)
    ] = DEFAULTS.overlapping,
    num_proc: Annotated[
        int, typer.Option(min=1, help="Videos that are worked on at a time.", rich_help_panel=_RUN)
    ] = 1,
    batch_size: Annotated[
        int, typer.Option(min=1, help=HELP["batch_size"], rich_help_panel=_RUN)
    ] = DEFAULTS.batch_size,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cuda if there", rich_help_panel=_RUN)
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Type of the weights.", rich_help_panel=_RUN, **choice(DTYPES))
    ] = DEFAULTS.dtype,
    backend: Annotated[
        str, typer.Option(help=HELP["backend"], rich_help_panel=_RUN, **choice(BACKENDS))
    ] = DEFAULTS.backend,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.", rich_help_panel=_RUN)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Nothing but errors on stderr.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Find the micro-gestures in a video of any length, or in all videos of a folder.

    Run again, the same command goes on where it was stopped and leaves out what is done.
    """
    with errors_to_exit(), quiet_libraries(quiet):
        options = TimelineOptions(
            pose=pose,  # type: ignore[arg-type]
            pose_weights=pose_weights,
            person_detector=person_detector,
            subject=subject,
            crop=crop,  # type: ignore[arg-type]
            start=start,
            end=end,
            window=window,
            stride=stride,
            threshold=threshold,
            change_cost=change_cost,
            smoothing=smoothing,
            min_duration=min_duration,
            max_duration=max_duration,
            merge_gap=merge_gap,
            overlapping=overlapping,
            formats=[name.strip() for name in formats.split(",")],
            attention=attention,
            blur_face=blur_face,
            batch_size=batch_size,
            device=device,
            dtype=dtype,  # type: ignore[arg-type]
            backend=backend,  # type: ignore[arg-type]
        )
        messages = Console(stderr=True, quiet=quiet)
        with messages.status("Loading"):
            from clipmg_hf.timeline_job import find_videos, plan_jobs, run_jobs

        jobs = plan_jobs(find_videos(videos), output, keypoints, is_folder=videos.is_dir())
        outcomes = []
        for outcome in run_jobs(jobs, model, options, num_proc=num_proc, overwrite=overwrite, show_progress=not quiet):
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


def exit_status(outcomes: "list[VideoOutcome]") -> int:
    """1 if a video failed, else 0."""
    return int(any(outcome.status == "failed" for outcome in outcomes))


def describe_failure(outcome: "VideoOutcome") -> str:
    """One line about a video that failed."""
    error, video = str(outcome.error), str(outcome.job.video)
    return f"error: {error if video in error else f'{video}: {error}'}"


def print_outcomes(outcomes: "list[VideoOutcome]", as_json: bool) -> None:
    """Print what was found in each video, as a table or as one JSON object."""
    if as_json:
        typer.echo(json.dumps({"videos": [_to_dict(outcome) for outcome in outcomes]}, allow_nan=False))
    elif len(outcomes) == 1 and outcomes[0].timeline is not None:
        _print_timeline(outcomes[0].timeline, outcomes[0].files)
    else:
        _print_videos(outcomes)


def _to_dict(outcome: "VideoOutcome") -> dict[str, Any]:
    from clipmg_hf.timeline.counts import count_gestures, gestures_per_minute

    values: dict[str, Any] = {
        "video": str(outcome.job.video),
        "status": outcome.status,
        "error": outcome.error,
        "files": [str(path) for path in outcome.files],
    }
    if (found := outcome.timeline) is not None:
        values |= {
            "num_frames": found.num_frames,
            "duration": found.duration,
            "fps": found.fps,
            "people": [dataclasses.asdict(person) for person in found.people],
            "num_events": len(found.events),
            "per_minute": gestures_per_minute(found),
            "counts": [count._asdict() for count in count_gestures(found)],
            "events": [dataclasses.asdict(event) for event in found.events],
            "notes": list(found.notes),
        }
    return values


def _print_timeline(found: "Timeline", files: tuple[Path, ...]) -> None:
    """Print the counts and the first events of one video."""
    from clipmg_hf.timeline import format_timecode
    from clipmg_hf.timeline.counts import count_gestures, gestures_per_minute

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.video)}[/]  {_describe(found)}", soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    if not found.events:
        return
    has_people = len(found.people) > 1
    table = make_table(["gesture", *["person"] * has_people, "count", "per minute", "seconds", "mean score"])
    for count in count_gestures(found):
        table.add_row(
            escape(count.label),
            *[str(count.person)] * has_people,
            str(count.num_events),
            f"{count.per_minute:.2f}",
            f"{count.seconds:.1f}",
            f"{count.mean_score:.2f}",
        )
    total = gestures_per_minute(found)
    table.add_row("all", *[""] * has_people, str(len(found.events)), f"{total:.2f}", style="bold")
    console.print(table)
    console.print()
    table = make_table(["gesture", *["person"] * has_people, "start", "seconds", "score"])
    for event in found.events[:_MAX_EVENTS]:
        table.add_row(
            escape(event.label),
            *[str(event.person)] * has_people,
            format_timecode(event.start_seconds)[:-2],
            f"{event.end_seconds - event.start_seconds:.1f}",
            f"{event.score:.2f}",
        )
    console.print(table)
    if len(found.events) > _MAX_EVENTS:
        say(console, f"and {len(found.events) - _MAX_EVENTS} more in {files[0]}")


def _describe(found: "Timeline") -> str:
    from clipmg_hf.html_page import plural
    from clipmg_hf.timeline import format_timecode

    parts = [format_timecode(found.duration)[:-4], plural(found.num_frames, "frame")]
    if found.people:
        parts.append(plural(len(found.people), "person").replace("persons", "people"))
    return ", ".join([*parts, plural(len(found.events), "gesture")])


def _print_videos(outcomes: "list[VideoOutcome]") -> None:
    """Print a row for each video."""
    from clipmg_hf.timeline import format_timecode
    from clipmg_hf.timeline.counts import gestures_per_minute

    console = Console(highlight=False)
    table = make_table(["video", "result", "length", "people", "gestures", "per minute"], 2)
    for outcome in outcomes:
        cells = [escape(outcome.job.video.name), _STATUS[outcome.status]]
        if (found := outcome.timeline) is not None:
            cells += [
                format_timecode(found.duration)[:-4],
                str(len(found.people)) if found.people else "-",
                str(len(found.events)),
                f"{gestures_per_minute(found):.2f}",
            ]
        table.add_row(*cells, style="red" if outcome.status == "failed" else None)
    console.print(table)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    say(console, f"{len(outcomes)} videos, {failed} failed")


__all__ = ["describe_failure", "exit_status", "print_outcomes", "timeline"]
