"""`clipmg predict`: classify one clip of a video."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape

from clipmg_hf.commands import shared
from clipmg_hf.commands.shared import Unit, pick, quiet_libraries
from clipmg_hf.console import errors_to_exit, make_table, say
from clipmg_hf.text import describe_interval


if TYPE_CHECKING:
    from clipmg_hf.inference import ClipPrediction


OVERLAY_SUFFIXES = (".png", ".mp4")


def _check_overlay(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in OVERLAY_SUFFIXES:
        raise typer.BadParameter(f"{path} must end in {' or '.join(OVERLAY_SUFFIXES)}.")
    return path


def predict(
    video: shared.VideoArgument,
    model: shared.ModelOption,
    revision: shared.RevisionOption = None,
    keypoints: shared.ClipKeypointsOption = None,
    pose: shared.PoseOption = None,
    pose_weights: shared.PoseWeightsOption = None,
    person_detector: shared.PersonDetectorOption = None,
    subject: shared.ClipSubjectOption = None,
    start: shared.StartOption = None,
    end: shared.EndOption = None,
    unit: shared.UnitOption = Unit.SECONDS,
    top: Annotated[int, typer.Option(min=1, help="Number of labels to show.")] = 5,
    as_json: shared.JsonOption = False,
    overlay: Annotated[
        Path | None,
        typer.Option(
            callback=_check_overlay,
            help="Also draw skeleton, attention and gate: a contact sheet (.png) or a video (.mp4).",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    blur_face: shared.BlurFaceOption = False,
    device: shared.DeviceOption = None,
    backend: shared.BackendOption = "torch",
    quiet: shared.QuietOption = False,
) -> None:
    """Classify one clip of a video; the whole video by default."""
    arguments, messages = locals(), Console(stderr=True, quiet=quiet)
    with errors_to_exit(), quiet_libraries(quiet), messages.status("Loading the model") as status:
        if blur_face and overlay is None:
            raise ValueError("Faces are blurred in what is drawn; expected --overlay with --blur-face.")
        write_overlay = None if overlay is None else _overlay_writer(overlay)
        from clipmg_hf.commands.clip import ClipRequest, predict_request

        clip = predict_request(pick(ClipRequest, arguments), explain=overlay is not None, show_progress=False)
        if write_overlay is not None:
            status.update("Drawing the overlay")
            write_overlay(clip.prediction, overlay)
    if as_json:
        typer.echo(json.dumps(clip.prediction.to_dict(top), allow_nan=False))
    else:
        _print_prediction(clip.prediction, top)
    if overlay is not None:
        say(messages, f"wrote {overlay}")


def _overlay_writer(path: Path) -> Callable:
    """The function that writes `path`; what would make it fail is found before the model is loaded."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; expected a place for the overlay.")
    from clipmg_hf.visualization import write_overlay_png, write_overlay_video

    return write_overlay_png if path.suffix.lower() == ".png" else write_overlay_video


def _print_prediction(prediction: "ClipPrediction", top: int) -> None:
    """Print the clip, its best labels and the streams they rest on."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(prediction.video)}[/]  {describe_interval(prediction)}", soft_wrap=True)
    table = make_table(["rank", "label", "score"], num_text_columns=0)
    table.columns[1].justify = "left"
    table.add_column("", min_width=10, max_width=30, ratio=1)
    for rank, (label, score) in enumerate(prediction.scores[:top], start=1):
        # Block characters cannot be written to every pipe, such as one of Windows in cp1252.
        bar = "#" * round(24 * score) if console.options.ascii_only else Bar(1, 0, score, width=24, color="cyan")
        table.add_row(str(rank), escape(label), f"{score:.3f}", bar)
    console.print(table)
    console.print(f"streams: {_describe_streams(prediction)}", soft_wrap=True)


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


__all__ = ["predict"]
