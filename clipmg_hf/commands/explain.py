"""`clipmg explain`: what the prediction of one clip rests on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from clipmg_hf.commands import shared
from clipmg_hf.commands.shared import Unit, pick, quiet_libraries
from clipmg_hf.console import errors_to_exit, make_table, say
from clipmg_hf.text import describe_interval


if TYPE_CHECKING:
    from clipmg_hf.explanation import ClipInfluence
    from clipmg_hf.inference import ClipPrediction


_NUM_JOINTS = 8


def explain(
    video: shared.VideoArgument,
    model: shared.ModelOption,
    revision: shared.RevisionOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Also write a page with pictures, and all numbers.", metavar="DIR", show_default=False),
    ] = None,
    keypoints: shared.ClipKeypointsOption = None,
    pose: shared.PoseOption = None,
    pose_weights: shared.PoseWeightsOption = None,
    person_detector: shared.PersonDetectorOption = None,
    subject: shared.ClipSubjectOption = None,
    start: shared.StartOption = None,
    end: shared.EndOption = None,
    unit: shared.UnitOption = Unit.SECONDS,
    label: Annotated[
        str | None,
        typer.Option(help="Explain this label: its name.", metavar="NAME", show_default="the predicted one"),
    ] = None,
    blur_face: shared.BlurFaceOption = False,
    as_json: shared.JsonOption = False,
    device: shared.DeviceOption = None,
    quiet: shared.QuietOption = False,
) -> None:
    """Say what the prediction of a clip rests on: frames or pose, which joints, and where the model looked."""
    arguments, messages = {**locals(), "backend": "torch"}, Console(stderr=True, quiet=quiet)
    with errors_to_exit(), quiet_libraries(quiet):
        if blur_face and output is None:
            raise ValueError("Faces are blurred in what is drawn; expected --output with --blur-face.")
        with messages.status("Loading the model") as status:
            from clipmg_hf.commands.clip import ClipRequest, predict_request
            from clipmg_hf.explanation import explain_clip, explanation_to_dict

            if output is not None:
                # Before the model is loaded, to fail early where the extra is missing.
                from clipmg_hf.explanation_page import write_explanation

            clip = predict_request(pick(ClipRequest, arguments), explain=True, show_progress=False)
            status.update("Leaving out joints and streams")
            influence = explain_clip(clip.model, clip.prediction, label)
            if output is not None:
                status.update("Drawing")
                write_explanation(clip.prediction, influence, output, windows=clip.windows)
        if as_json:
            typer.echo(json.dumps(explanation_to_dict(clip.prediction, influence, clip.windows), allow_nan=False))
        else:
            _print_influence(clip.prediction, influence)
        if output is not None:
            say(messages, f"wrote {output / 'index.html'}")


def _print_influence(prediction: "ClipPrediction", influence: "ClipInfluence") -> None:
    """Print the streams, and the joints that matter most."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(prediction.video)}[/]  {describe_interval(prediction)}", soft_wrap=True)
    console.print(f"label: [bold]{escape(influence.label)}[/]", soft_wrap=True)
    table = make_table(["what the model sees", "probability"])
    streams = influence.streams
    for name, scores in (
        ("everything", streams.complete),
        ("without RGB", streams.without_rgb),
        ("without pose", streams.without_pose),
    ):
        if scores is not None:
            table.add_row(name, f"{scores[influence.label_id]:.3f}")
    console.print(table)
    if influence.occlusion is None:
        say(console, "joints: nobody in the keypoints" if prediction.num_pose_frames else "joints: no keypoints")
        return
    values = zip(influence.occlusion.layout.keypoints, influence.occlusion.values.tolist(), strict=True)
    order = sorted(values, key=lambda item: -abs(item[1]))[:_NUM_JOINTS]
    table = make_table(["joint left out", "log p lost"])
    for name, value in order:
        table.add_row(name.replace("_", " "), f"{value:+.3f}")
    console.print(table)


__all__ = ["explain"]
