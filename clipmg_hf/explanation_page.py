"""What a prediction rests on, as a folder to read offline: a page in plain words, its pictures, and all numbers.

Needs the extra: pip install "clipmg_hf[viz]". Symbols as in `clipmg_hf.explanation`.
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from clipmg_hf import html_page
from clipmg_hf.explanation import (
    ClipInfluence,
    GateCurve,
    JointInfluence,
    explanation_of,
    explanation_to_dict,
    gate_curves,
)
from clipmg_hf.files import write_file
from clipmg_hf.html_page import percent
from clipmg_hf.inference import ClipExplanation, ClipPrediction
from clipmg_hf.text import describe_interval
from clipmg_hf.timeline.face_blur import is_blurred
from clipmg_hf.timeline.records import WindowScores


try:
    from clipmg_hf.explanation_plots import display_name, plot_attention, plot_gate, plot_occlusion, plot_sensitivity
except ImportError as error:
    raise ImportError(
        f'clipmg_hf.explanation_page needs matplotlib and Pillow ({error}): pip install "clipmg_hf[viz]"'
    ) from error


JSON_FILE, PAGE_FILE = "explanation.json", "index.html"
ATTENTION_FILE, JOINTS_FILE, SENSITIVITY_FILE, GATE_FILE = "attention.png", "joints.png", "sensitivity.png", "gate.png"
_FILES = (JSON_FILE, PAGE_FILE, ATTENTION_FILE, JOINTS_FILE, SENSITIVITY_FILE, GATE_FILE)
_PRIVACY = (
    "This page opens without a network and sends nothing anywhere. Its folder holds pictures of people and claims "
    "about their behaviour: keep, share and delete it as was agreed with them."
)


def write_explanation(
    prediction: ClipPrediction,
    influence: ClipInfluence,
    folder: str | PathLike,
    *,
    windows: Sequence[WindowScores] = (),
) -> list[Path]:
    """Write the page, its pictures and the numbers.

    `explanation.json` holds what `explanation_to_dict` returns. `attention.png`, `joints.png`, `sensitivity.png` and
    `gate.png` are written where there is something to show; those of an earlier explanation are removed otherwise.

    Args:
        prediction: Made with `explain=True`; that of `clipmg_hf.timeline.face_blur.blur_clip` to show blurred heads.
        influence: Of `explain_clip`, for the same prediction.
        folder: Where to write; made if missing, an earlier explanation is replaced.
        windows: Of a timeline of the clip or of its video, for the gate over time.

    Returns:
        The files, `index.html` last.

    Raises:
        ValueError: The prediction holds no explanation, or the folder pictures with blurred heads that others would
            replace.
    """
    explanation, faces_blurred = explanation_of(prediction), is_blurred(prediction)
    curves = tuple(curve for curve in gate_curves(windows) if not np.isnan(curve.gate).all())
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_to_unblur(folder, faces_blurred)
    # Without pose the gate is fixed, and tells nothing.
    gate = explanation.gate if prediction.pose_used else None
    pictures: list[str] = []
    if explanation.semantic_attention is not None:
        plot_attention(prediction, folder / ATTENTION_FILE)
        pictures.append(ATTENTION_FILE)
    if influence.occlusion is not None and influence.gradient is not None:
        plot_occlusion(influence.occlusion, prediction, folder / JOINTS_FILE)
        plot_sensitivity(influence.gradient, prediction, folder / SENSITIVITY_FILE)
        pictures += [JOINTS_FILE, SENSITIVITY_FILE]
    if gate is not None or curves:
        plot_gate(gate, curves, folder / GATE_FILE)
        pictures.append(GATE_FILE)
    values = {**explanation_to_dict(prediction, influence, windows), "faces_blurred": faces_blurred}
    write_file(folder / JSON_FILE, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_file(folder / PAGE_FILE, _page(prediction, influence, curves, pictures))
    # A picture of an earlier run may show a face that is to be blurred now.
    for name in set(_FILES) - {JSON_FILE, PAGE_FILE, *pictures}:
        (folder / name).unlink(missing_ok=True)
    return [folder / name for name in (JSON_FILE, *pictures, PAGE_FILE)]


def _refuse_to_unblur(folder: Path, faces_blurred: bool) -> None:
    """Raise a ValueError if pictures with blurred faces would be replaced by others."""
    try:
        was_blurred = json.loads((folder / JSON_FILE).read_text(encoding="utf-8")).get("faces_blurred", False)
    except FileNotFoundError:
        return
    if was_blurred and not faces_blurred:
        raise ValueError(f"{folder} holds pictures with blurred faces; expected --blur-face again, or another folder.")


def _page(
    prediction: ClipPrediction,
    influence: ClipInfluence,
    curves: Sequence[GateCurve],
    pictures: Sequence[str],
) -> str:
    title = f"Why “{influence.label}”?"
    facts = [Path(prediction.video).name, describe_interval(prediction)]
    faces = (
        "Heads that were found by keypoints are blurred; people without keypoints are not."
        if is_blurred(prediction)
        else "Faces are not blurred."
    )
    sections = [
        html_page.heading(title, facts),
        html_page.notes("Notes", _notes(prediction, influence)),
        _answer(prediction, influence),
        _stream_section(prediction, influence),
        _attention_section(prediction, pictures),
        _joint_section(influence, pictures),
        _sensitivity_section(influence, pictures),
        _gate_section(prediction, curves, pictures),
        _limits(influence),
        html_page.section("About this page", html_page.paragraph(f"{_PRIVACY} {faces}")),
    ]
    return html_page.page(title, sections)


def _notes(prediction: ClipPrediction, influence: ClipInfluence) -> list[str]:
    entries = []
    if influence.label != prediction.label:
        entries.append(
            f"The model's own answer is “{prediction.label}” ({percent(prediction.score)}). This page asks what "
            f"speaks for and against “{influence.label}” instead."
        )
    if not prediction.pose_used:
        entries.append("No keypoint reached the model: it answered from the pictures alone.")
    elif prediction.person_fraction < 1:
        entries.append(
            f"The person was found in {prediction.num_person_frames} of {prediction.num_pose_frames} pose frames."
        )
    if prediction.missing_keypoints and prediction.pose_used:
        absent = ", ".join(display_name(name) for name in prediction.missing_keypoints)
        entries.append(f"The keypoints lack what the model knows from training, and it did without: {absent}.")
    return entries


def _answer(prediction: ClipPrediction, influence: ClipInfluence) -> str:
    rows = [[label, percent(score)] for label, score in prediction.scores[:3]]
    if influence.label not in [row[0] for row in rows]:
        rows.append([influence.label, percent(dict(prediction.scores)[influence.label])])
    return html_page.section("The answer", html_page.table("The model's best answers", ["label", "score"], rows))


def _stream_section(prediction: ClipPrediction, influence: ClipInfluence) -> str:
    title = "Pictures or skeleton?"
    streams = influence.streams.by_name()
    if streams["without_pose"] is None:
        reason = (
            "This model reads the skeleton alone."
            if not prediction.rgb_used
            else "The model had the pictures alone, so there is nothing to take away."
        )
        return html_page.section(title, html_page.missing(reason))
    names = {
        "complete": "pictures and skeleton",
        "without_rgb": "skeleton alone",
        "without_pose": "pictures alone",
    }
    rows = [
        [
            names[name],
            f"{influence.labels[int(scores.argmax())]} ({percent(float(scores.max()))})",
            percent(float(scores[influence.label_id])),
        ]
        for name, scores in streams.items()
        if scores is not None
    ]
    header = ["the model is given", "its answer", f"score of “{influence.label}”"]
    return html_page.section(
        title,
        html_page.table("The same clip with a part of it hidden from the model", header, rows, 2),
        html_page.paragraph(
            "What it says: if the score stays high with the skeleton alone, the movement was enough; if it falls, the "
            "model needed what only the pictures show, such as an object. The same the other way round."
        ),
        html_page.paragraph(
            "What it does not say: the two are not shares of one whole. Both can be enough, or neither. The model "
            "reads the pictures with the skeleton's help, so hiding the skeleton changes how it looks at the pictures "
            "too. A model that never missed one of them in training may give any answer when it does."
        ),
    )


def _attention_section(prediction: ClipPrediction, pictures: Sequence[str]) -> str:
    title = "Where the model looked"
    if ATTENTION_FILE not in pictures:
        return html_page.section(title, html_page.missing("This model has no attention over the pictures."))
    assert prediction.explanation is not None
    skeleton = "above with the skeleton that was given, below " if prediction.num_pose_frames else ""
    pale = " What is pale was cut away before the model saw the picture." if _cuts_away(prediction.explanation) else ""
    question = ", when it asked with the skeleton in mind" if prediction.pose_used else ""
    return html_page.section(
        title,
        html_page.figure(
            ATTENTION_FILE,
            "The frames that the model saw, with its attention as heat",
            f"The frames that the model saw, {skeleton}with its attention: the brighter, the more; no colour is what "
            f"an average patch gets, or less. Above each frame stands its share of the whole attention.{pale}",
        ),
        html_page.paragraph(
            f"What it says: from which places the model collected what it knows of the pictures{question}."
        ),
        html_page.paragraph(
            "What it does not say: attention is not a cause. What is found at a bright place may have counted little, "
            "and a patch carries knowledge of its surroundings, so a place without colour may have counted. It says "
            "nothing at all about the skeleton, nor about where the person looked."
        ),
    )


def _cuts_away(explanation: ClipExplanation) -> bool:
    """Whether a part of the source frame is outside the square that the model saw."""
    crop, info = explanation.clip.crop, explanation.video.info
    return not (
        crop.left <= 0
        and crop.top <= 0
        and crop.left + crop.size >= info.width
        and crop.top + crop.size >= info.height
    )


def _joint_section(influence: ClipInfluence, pictures: Sequence[str]) -> str:
    title = "Which joints the answer rests on"
    if JOINTS_FILE not in pictures or influence.occlusion is None:
        return html_page.section(title, html_page.missing("No joints reached the model."))
    return html_page.section(
        title,
        html_page.figure(
            JOINTS_FILE,
            "The skeleton coloured by influence, and bars of the strongest joints",
            "Joints and parts of the body were hidden from the model, one at a time and in all frames. Orange: "
            f"without it, “{influence.label}” becomes less probable, so it speaks for the label. Blue: it speaks "
            "against it. A nat is a unit of probability: 0.7 halves or doubles it. Left and right are the person's "
            "own.",
        ),
        _joint_table(influence.occlusion),
        html_page.paragraph(
            "What it says: what this one answer would lose if the camera or the pose estimation had missed a joint."
        ),
        html_page.paragraph(
            "What it does not say: joints that tell the same stand in for each other, so each alone may seem useless "
            "where a whole part is needed; the values do not add up. A body without an arm is something the model has "
            "hardly ever seen, and a large loss may be the surprise and not the arm. A high value does not mean that "
            "the gesture is done with that joint."
        ),
    )


def _joint_table(influence: JointInfluence) -> str:
    rows = [
        [display_name(name), f"{value:.3f}", f"{seen} of {len(influence.seen)}"]
        for name, value, seen in zip(
            influence.layout.keypoints, influence.values, influence.seen.sum(axis=0), strict=True
        )
    ]
    header = ["joint", "loss in nats", "pose frames with it"]
    return html_page.details("All joints", html_page.table("Each joint masked in all frames", header, rows))


def _sensitivity_section(influence: ClipInfluence, pictures: Sequence[str]) -> str:
    if SENSITIVITY_FILE not in pictures:
        return ""
    return html_page.section(
        "When and where a small shift would matter",
        html_page.figure(
            SENSITIVITY_FILE,
            "The skeleton coloured by sensitivity, and the strongest joints frame by frame",
            "How fast the log-probability would change if a point were moved a little in its most effective "
            "direction. A value of 10 in a frame means that a shift by one hundredth of the crop's width changes it "
            "by 0.1, which is a tenth of the probability.",
        ),
        html_page.paragraph(
            "What it says: which joints have to be located well, and in which frames; large values warn that the "
            "small errors of pose estimation may decide the answer."
        ),
        html_page.paragraph(
            "What it does not say: whether a joint speaks for or against the label, or what a large movement would "
            "do. Where the model is very sure, all values are small; compare the joints with each other, not clips."
        ),
    )


def _gate_section(prediction: ClipPrediction, curves: Sequence[GateCurve], pictures: Sequence[str]) -> str:
    title = "The gate"
    if GATE_FILE not in pictures:
        reason = (
            "This model has no gate between pictures and skeleton."
            if prediction.gate_mean is None
            else "Without a skeleton the gate is fixed to the pictures."
        )
        return html_page.section(title, html_page.missing(reason))
    over_time = "" if not curves else " The curve shows its mean over overlapping windows."
    return html_page.section(
        title,
        html_page.figure(
            GATE_FILE,
            "Histogram of the gate",
            "For every number of its summary of the clip the model mixes skeleton (0) and pictures (1) anew; the "
            f"histogram counts these mixtures.{over_time}",
            None if curves else 480,
        ),
        html_page.paragraph("What it says: how the model weighed the two when it put them together, clip by clip."),
        html_page.paragraph(
            "What it does not say: how much either of them decided. A stream with a small weight can still decide, if "
            "its numbers are the ones that tell the labels apart; the table further up answers that better. Compare "
            "gates of one model only."
        ),
    )


def _limits(influence: ClipInfluence) -> str:
    return html_page.section(
        "What no picture here says",
        html_page.paragraph(
            "All of this is about the model, not about the person. It explains why the model says "
            f"“{influence.label}”, and does so for right answers and wrong ones alike: a convincing picture is no "
            "sign that the label is true. Nothing here says what the person felt, thought or meant."
        ),
    )


__all__ = [
    "ATTENTION_FILE",
    "GATE_FILE",
    "JOINTS_FILE",
    "JSON_FILE",
    "PAGE_FILE",
    "SENSITIVITY_FILE",
    "write_explanation",
]
