"""What became of the videos of [`run_jobs`], for a terminal or as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from clipmg_hf.console import make_table, say
from clipmg_hf.text import plural
from clipmg_hf.timeline import Timeline, format_timecode
from clipmg_hf.timeline.counts import count_gestures, gestures_per_minute
from clipmg_hf.timeline_job import VideoOutcome


_MAX_EVENTS = 20
_STATUS = {"done": "done", "skipped": "was done", "busy": "busy elsewhere", "failed": "failed"}


def exit_status(outcomes: Sequence[VideoOutcome]) -> int:
    """1 if a video failed, else 0."""
    return int(any(outcome.status == "failed" for outcome in outcomes))


def describe_failure(outcome: VideoOutcome) -> str:
    """One line about a video that failed."""
    error, video = str(outcome.error), str(outcome.job.video)
    return f"error: {error if video in error else f'{video}: {error}'}"


def print_outcomes(outcomes: Sequence[VideoOutcome], as_json: bool) -> None:
    """Print what was found in each video, as a table or as one JSON object."""
    if as_json:
        print(json.dumps({"videos": [_to_dict(outcome) for outcome in outcomes]}, allow_nan=False))
    elif len(outcomes) == 1 and outcomes[0].timeline is not None:
        _print_timeline(outcomes[0].timeline, outcomes[0].files)
    else:
        _print_videos(outcomes)


def _to_dict(outcome: VideoOutcome) -> dict[str, Any]:
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


def _print_timeline(found: Timeline, files: tuple[Path, ...]) -> None:
    """Print the counts and the first events of one video."""
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


def _describe(found: Timeline) -> str:
    parts = [format_timecode(found.duration)[:-4], plural(found.num_frames, "frame")]
    if found.people:
        parts.append(plural(len(found.people), "person", "people"))
    return ", ".join([*parts, plural(len(found.events), "gesture")])


def _print_videos(outcomes: Sequence[VideoOutcome]) -> None:
    """Print a row for each video."""
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


__all__ = ["describe_failure", "exit_status", "print_outcomes"]
