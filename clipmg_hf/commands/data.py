"""`clipmg data`: what a data set holds and lacks."""

import dataclasses
import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from clipmg_hf.commands import shared
from clipmg_hf.commands.shared import quiet_libraries
from clipmg_hf.console import errors_to_exit, make_table, say


if TYPE_CHECKING:
    from clipmg_hf.data.source import Description


class OnErrorChoice(enum.StrEnum):
    """What to do about files that are wrong."""

    RAISE = "raise"
    SKIP = "skip"


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
    as_json: shared.JsonOption = False,
    quiet: shared.QuietOption = False,
) -> None:
    """Say what a data set holds and lacks, beside the published numbers; only names and labels are read."""
    messages = Console(stderr=True, quiet=quiet)
    with errors_to_exit(), quiet_libraries(quiet):
        with messages.status("Reading labels"):
            from clipmg_hf.data.loading import describe_folder

            description = describe_folder(path, on_error=on_error.value)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(description)))
        else:
            _print_description(description)
        if report is not None:
            index = _write_report(path, report, description.name, on_error, num_proc, quiet)
            say(messages, f"wrote {index}")


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
    say(console, description.root)
    table = make_table(DESCRIPTION_HEADER)
    for part in description.parts:
        table.add_row(*describe_counts(part), style="bold" if part.name == "all" else None)
    console.print(table)
    styles = {"findings": "none", "assumptions": "yellow", "missing": "yellow", "warnings": "yellow", "skipped": "red"}
    for title, style in styles.items():
        for entry in getattr(description, title):
            console.print(f"[{style}]{title}:[/] {escape(entry)}", soft_wrap=True)


__all__ = ["data"]
