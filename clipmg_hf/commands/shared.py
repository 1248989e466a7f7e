"""Options that several commands have, and what these do with them."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from clipmg_hf.console import no_warnings
from clipmg_hf.pose_choice import ESTIMATORS
from clipmg_hf.subject_rules import parse_subject_rule
from clipmg_hf.timeline_options import BACKENDS, TimelineOptions


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Chosen = TypeVar("Chosen", bound="DataclassInstance")
HELP = {option.name: option.metadata["help"] for option in fields(TimelineOptions)}


def choice(known: Sequence[str]) -> dict[str, Any]:
    """Settings of an option that takes one of several words."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}.")
        return value

    return {"callback": check, "metavar": "|".join(known)}


class Unit(enum.StrEnum):
    """Unit of an interval."""

    SECONDS = "seconds"
    FRAMES = "frames"


def _check_one_subject(value: str | None) -> str | None:
    if value == "all":
        raise typer.BadParameter("a clip is of one person; 'all' is for clipmg timeline.")
    return check_subject(value)


def check_subject(value: str | None) -> str | None:
    """Refuse a rule that cannot be read as wrong usage."""
    try:
        if value is not None:
            parse_subject_rule(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return value


ModelOption = Annotated[
    str, typer.Option(help="Folder of a checkpoint, or owner/name on the Hub.", metavar="DIR", show_default=False)
]
RevisionOption = Annotated[
    str | None,
    typer.Option(help="Commit, tag or branch of a model on the Hub.", metavar="NAME", show_default="main"),
]
VideoArgument = Annotated[Path, typer.Argument(help="Video file.", show_default=False)]
ClipKeypointsOption = Annotated[
    Path | None,
    typer.Option(help="OpenPose JSON of the video or of the clip: a folder or a file.", show_default=False),
]
StartOption = Annotated[float | None, typer.Option(help="First moment of the clip.", show_default="video's start")]
EndOption = Annotated[float | None, typer.Option(help="End of the clip, exclusive.", show_default="video's end")]
UnitOption = Annotated[Unit, typer.Option(help="Unit of --start and --end, counted from the first frame.")]
ClipSubjectOption = Annotated[
    str | None,
    typer.Option(
        callback=_check_one_subject,
        help="Whose clip it is: largest, most_central, longest, index:1 or box:10,20,300,400 in pixels.",
        metavar="RULE",
        show_default="largest",
    ),
]
PoseOption = Annotated[
    str | None, typer.Option(help=HELP["pose"], show_default=False, **{**choice(ESTIMATORS), "metavar": "NAME"})
]
PoseWeightsOption = Annotated[str | None, typer.Option(help=HELP["pose_weights"], metavar="PATH", show_default=False)]
PersonDetectorOption = Annotated[
    str | None, typer.Option(help=HELP["person_detector"], metavar="PATH", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="cuda if there")]
BackendOption = Annotated[str, typer.Option(help=HELP["backend"], **choice(BACKENDS))]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Nothing but errors on stderr.")]
BlurFaceOption = Annotated[
    bool, typer.Option("--blur-face", help="Make faces unrecognisable in what is drawn; needs keypoints.")
]


def pick(cls: type[Chosen], arguments: Mapping[str, Any]) -> Chosen:
    """An object of a dataclass from those arguments of a command that are named like its fields."""
    return cls(**{field.name: arguments[field.name] for field in fields(cls)})


@contextmanager
def quiet_libraries(quiet: bool) -> Iterator[None]:
    """Keep bars, warnings and logs of libraries off stderr."""
    if not quiet:
        yield
        return
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    had_bars, had_hub_bars = transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with no_warnings():
            yield
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()
        if had_hub_bars:
            enable_progress_bars()


__all__ = [
    "HELP",
    "BackendOption",
    "BlurFaceOption",
    "ClipKeypointsOption",
    "ClipSubjectOption",
    "DeviceOption",
    "EndOption",
    "JsonOption",
    "ModelOption",
    "PersonDetectorOption",
    "PoseOption",
    "PoseWeightsOption",
    "QuietOption",
    "RevisionOption",
    "StartOption",
    "Unit",
    "UnitOption",
    "VideoArgument",
    "check_subject",
    "choice",
    "pick",
    "quiet_libraries",
]
