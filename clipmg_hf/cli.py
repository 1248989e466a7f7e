"""The command `clipmg`: classify a clip of a video, or look at a data set, from the shell.

    clipmg predict VIDEO --keypoints FOLDER --start 12.5 --end 14 --model MODEL --overlay sheet.png
    clipmg data FOLDER --report REPORT

Results go to stdout, progress and messages to stderr; exit codes are those of `clipmg_hf.console`. What is heavy to
import is imported inside the commands.
"""

import dataclasses
import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipmg_hf.console import errors_to_exit


if TYPE_CHECKING:
    from clipmg_hf.data.source import Description
    from clipmg_hf.inference import ClipPrediction


OVERLAY_SUFFIXES = (".png", ".mp4")

app = typer.Typer(
    name="clipmg",
    help="Micro-gesture recognition from RGB and pose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Unit(enum.StrEnum):
    """Unit of an interval."""

    SECONDS = "seconds"
    FRAMES = "frames"


class OnErrorChoice(enum.StrEnum):
    """What to do about files that are wrong."""

    RAISE = "raise"
    SKIP = "skip"


def _show_version(value: bool) -> None:
    if value:
        from clipmg_hf import __version__

        typer.echo(f"clipmg {__version__}")
        raise typer.Exit()


def _check_overlay(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in OVERLAY_SUFFIXES:
        raise typer.BadParameter(f"{path} must end in {' or '.join(OVERLAY_SUFFIXES)}.")
    return path


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Micro-gesture recognition from RGB and pose."""


@app.command()
def predict(
    video: Annotated[Path, typer.Argument(help="Video file.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="Folder of a checkpoint, or owner/name on the Hub.", metavar="DIR", show_default=False)
    ],
    keypoints: Annotated[
        Path | None,
        typer.Option(help="OpenPose JSON of the video or of the clip: a folder or a file.", show_default=False),
    ] = None,
    start: Annotated[
        float | None, typer.Option(help="First moment of the clip.", show_default="video's start")
    ] = None,
    end: Annotated[float | None, typer.Option(help="End of the clip, exclusive.", show_default="video's end")] = None,
    unit: Annotated[
        Unit, typer.Option(help="Unit of --start and --end, counted from the first frame.")
    ] = Unit.SECONDS,
    top: Annotated[int, typer.Option(min=1, help="Number of labels to show.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            callback=_check_overlay,
            help="Also draw skeleton, attention and gate: a contact sheet (.png) or a video (.mp4).",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cuda if there")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Classify one clip of a video; the whole video by default."""
    messages = Console(stderr=True, quiet=quiet)
    with errors_to_exit():
        write_overlay = None if overlay is None else _overlay_writer(overlay)
        with messages.status("Loading the model") as status:
            from clipmg_hf.inference import load_model, predict_clip

            loaded_model, processor = load_model(model, device=device)
            status.update("Predicting")
            prediction = predict_clip(
                loaded_model,
                processor,
                video,
                keypoints,
                start=start,
                end=end,
                unit=unit.value,
                explain=overlay is not None,
            )
            if write_overlay is not None:
                status.update("Drawing the overlay")
                write_overlay(prediction, overlay)
    if as_json:
        typer.echo(json.dumps(prediction.to_dict(top), allow_nan=False))
    else:
        _print_prediction(prediction, top)
    if overlay is not None:
        messages.print(f"wrote {escape(str(overlay))}", highlight=False, soft_wrap=True)


@app.command()
def data(
    path: Annotated[
        Path, typer.Argument(help="Folder of iMiGUE, SMG, MA-52 or of a prepared data set.", show_default=False)
    ],
    report: Annotated[
        Path | None,
        typer.Option(
            help="Also load every clip and write a page with counts, lengths, missing keypoints and sample strips.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    on_error: Annotated[
        OnErrorChoice, typer.Option(help="Stop at files that are wrong, or leave out what they concern.")
    ] = OnErrorChoice.RAISE,
    num_proc: Annotated[
        int | None, typer.Option(min=1, help="Processes that convert skeletons.", show_default="1")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Say what a data set holds and lacks, beside the published numbers; only names and labels are read."""
    messages = Console(stderr=True, quiet=quiet)
    with errors_to_exit():
        with messages.status("Reading labels"):
            from clipmg_hf.data.loading import describe_folder

            description = describe_folder(path, on_error=on_error.value)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(description)))
        else:
            _print_description(description)
        if report is not None:
            index = _write_report(path, report, description.name, on_error, num_proc, quiet)
            messages.print(f"wrote {escape(str(index))}", highlight=False, soft_wrap=True)


def _write_report(
    path: Path, folder: Path, title: str, on_error: OnErrorChoice, num_proc: int | None, quiet: bool
) -> Path:
    import datasets

    from clipmg_hf.data.loading import load_clips
    from clipmg_hf.data.report import write_data_report

    if quiet:
        datasets.disable_progress_bars()
    # Prepared data has no such option.
    options = {"on_error": "skip"} if on_error is OnErrorChoice.SKIP else {}
    rows = load_clips(path, num_proc=num_proc, **options)
    notes = next(iter(rows.values())).info.description.splitlines()
    return write_data_report(rows, folder, title=title, notes=notes, show_progress=not quiet)


def _print_description(description: "Description") -> None:
    """Print the counts as a table, and what was found, is missing, differs and was skipped."""
    from clipmg_hf.data.source import DESCRIPTION_HEADER, describe_counts

    console = Console(highlight=False)
    console.print(f"[bold]{escape(description.name)}[/]: {escape(description.layout)}", soft_wrap=True)
    console.print(escape(description.root), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in DESCRIPTION_HEADER:
        table.add_column(column, justify="left" if column == "part" else "right")
    for part in description.parts:
        table.add_row(*describe_counts(part), style="bold" if part.name == "all" else None)
    console.print(table)
    styles = {"findings": "none", "assumptions": "yellow", "missing": "yellow", "warnings": "yellow", "skipped": "red"}
    for title, style in styles.items():
        for entry in getattr(description, title):
            console.print(f"[{style}]{title}:[/] {escape(entry)}", soft_wrap=True)


def _overlay_writer(path: Path) -> Callable:
    """The function that writes `path`; what would make it fail is found before the model is loaded."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; expected a place for the overlay.")
    from clipmg_hf.visualization import write_overlay_png, write_overlay_video

    return write_overlay_png if path.suffix.lower() == ".png" else write_overlay_video


def _print_prediction(prediction: "ClipPrediction", top: int) -> None:
    """Print the clip, its best labels and the streams they rest on."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(prediction.video)}[/]  {_describe_interval(prediction)}", soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("label")
    table.add_column("score", justify="right")
    table.add_column("", min_width=10, max_width=30, ratio=1)
    for rank, (label, score) in enumerate(prediction.scores[:top], start=1):
        # Block characters cannot be written to every pipe, such as one of Windows in cp1252.
        bar = "#" * round(24 * score) if console.options.ascii_only else Bar(1, 0, score, width=24, color="cyan")
        table.add_row(str(rank), escape(label), f"{score:.3f}", bar)
    console.print(table)
    console.print(f"streams: {_describe_streams(prediction)}", soft_wrap=True)


def _describe_interval(prediction: "ClipPrediction") -> str:
    frames = f"frames {prediction.start} to {prediction.end - 1}"
    if prediction.start_seconds is None or prediction.end_seconds is None:
        return frames
    return f"{frames}, {prediction.start_seconds:.2f} to {prediction.end_seconds:.2f} s"


def _describe_streams(prediction: "ClipPrediction") -> str:
    """One line: which streams were used, what the pose stream saw, and how the gate weighed them."""
    if not prediction.num_pose_frames:
        return "RGB only, no keypoints given"
    people = f"a person in {prediction.num_person_frames} of {prediction.num_pose_frames} sampled frames"
    if not prediction.pose_used:
        return f"RGB only, keypoints with {people}"
    parts = [f"{'RGB and pose' if prediction.rgb_used else 'pose only'}, {people}"]
    if prediction.missing_keypoints:
        parts.append(f"{len(prediction.missing_keypoints)} of {prediction.num_keypoints} keypoints masked")
    if prediction.gate_mean is not None:
        parts.append(f"mean gate {prediction.gate_mean:.2f} (1 = all RGB, 0 = all pose)")
    return ", ".join(parts)


def main() -> None:
    """Entry point of the command `clipmg`."""
    app()


__all__ = ["app", "main"]


if __name__ == "__main__":
    main()
