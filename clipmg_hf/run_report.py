"""A page about a run, from the run's own files: how it was trained, how good it is, and what it gets wrong.

    write_run_report("runs/full", "runs/full/evaluation")          # runs/full/evaluation/report.html

Or `python hub_scripts/evaluate.py ... --report true`. Needs the extra: pip install "clipmg_hf[viz]". The training
gives `trainer_state.json`, `config.json` and `experiment.json`, the evaluation what `clipmg_hf.evaluation_results`
writes. What is not there is said to be missing.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf import html_page
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.evaluation_results import (
    CALIBRATION_FILE,
    CLIPS_FILE,
    CONFUSION_FILE,
    METRICS_FILE,
    PER_CLASS_FILE,
    PER_GROUP_FILE,
    PICTURES,
    REPORT_FILE,
    STRIPS_FILE,
    STRIPS_FOLDER,
    metric_rows,
)
from clipmg_hf.files import write_file
from clipmg_hf.html_page import percent
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE
from clipmg_hf.run_checkpoints import latest_checkpoint
from clipmg_hf.run_files import EVALUATION_FOLDER, EXPERIMENT_FILE, STATE_FILE
from clipmg_hf.run_record import read_json_object
from clipmg_hf.text import plural


try:
    from clipmg_hf.run_plots import plot_class_bars, plot_confusion, plot_gates, plot_reliability
    from clipmg_hf.visualization import plot_learning_curves
except ImportError as error:
    raise ImportError(
        f'clipmg_hf.run_report needs matplotlib and Pillow ({error}): pip install "clipmg_hf[viz]"'
    ) from error


# Of the model's configuration, what tells its ablations apart; the file has the rest.
_MODEL_FIELDS = (
    *("fusion", "query", "use_semantic_attention", "num_trainable_vision_layers", "num_frames"),
    *("pose_frames_per_frame", "keypoint_layout", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("pose_base_width", "hidden_dropout_prob", "attention_dropout", "classifier_dropout"),
)
_STATE_FIELDS = {
    "global_step": "steps",
    "max_steps": "steps planned",
    "epoch": "epochs",
    "num_train_epochs": "epochs planned",
    "train_batch_size": "batch size of a device",
    "best_metric": "best value",
    "best_global_step": "step of the best value",
    "best_model_checkpoint": "best checkpoint",
}
_NUMBERS = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class _Files:
    """What was found; `None` for what is not there.

    Args:
        run: Folder of the training.
        state, config: Of Trainer and of the model.
        experiment: What the run was asked for.
        evaluation: Folder of the evaluation.
        metrics: Contents of its `metrics.json`.
        tables: Rows of its other files, by name.
    """

    run: Path
    state: dict[str, Any] | None
    config: dict[str, Any] | None
    experiment: dict[str, Any] | None
    evaluation: Path | None
    metrics: dict[str, Any] | None
    tables: dict[str, list[dict[str, Any]]]


def write_run_report(
    run_dir: str | PathLike, evaluation_dir: str | PathLike | None = None, output_dir: str | PathLike | None = None
) -> Path:
    """Write `report.html` with its pictures.

    Args:
        run_dir (`str` or `PathLike`): Folder that Trainer wrote to, or one of its checkpoints.
        evaluation_dir (`str` or `PathLike`, *optional*): Folder of an evaluation; by default `evaluation` in `run_dir`
            if it is there.
        output_dir (`str` or `PathLike`, *optional*): Made if missing; by default the folder of the evaluation, else
            that of the run.

    Returns:
        `Path` of `report.html`. The page needs nothing from the network, and the folder can be moved.

    Raises:
        DatasetFormatError: There is no such folder, or a file cannot be read; the message names it.
    """
    run = Path(run_dir)
    default = run / EVALUATION_FOLDER if (run / EVALUATION_FOLDER).is_dir() else None
    evaluation = default if evaluation_dir is None else Path(evaluation_dir)
    for folder in (run, evaluation):
        if folder is not None and not folder.is_dir():
            raise DatasetFormatError(f"{folder}: no such folder; expected one of a run or of an evaluation.")
    files = _read_files(run, evaluation)
    output = Path(output_dir) if output_dir is not None else evaluation or run
    output.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        (output / name).unlink(missing_ok=True)
    page = html_page.page(_title(files), list(_sections(files, output)))
    write_file(output / REPORT_FILE, page)
    return output / REPORT_FILE


def _read_files(run: Path, evaluation: Path | None) -> _Files:
    # For reading, what only a run that goes on needs may be missing.
    checkpoint = latest_checkpoint(run, save_only_model=True)
    folders = [run] if checkpoint is None else [run, checkpoint]
    tables = {}
    if evaluation is not None:
        names = (CLIPS_FILE, PER_CLASS_FILE, PER_GROUP_FILE, CONFUSION_FILE, CALIBRATION_FILE, STRIPS_FILE)
        tables = {name: _read_csv(evaluation / name) for name in names if (evaluation / name).is_file()}
    return _Files(
        run=run,
        state=_find_json(folders, STATE_FILE),
        config=_find_json(folders, CONFIG_FILE),
        experiment=_find_json([run], EXPERIMENT_FILE),
        evaluation=evaluation,
        metrics=None if evaluation is None else _find_json([evaluation], METRICS_FILE),
        tables=tables,
    )


def _find_json(folders: Iterable[Path], name: str) -> dict[str, Any] | None:
    """The contents of the first such file."""
    for folder in folders:
        if (folder / name).is_file():
            return read_json_object(folder / name)
    return None


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows as they are, in text."""
    with path.open(encoding="utf-8", newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def _parse(row: Mapping[str, str], text: Sequence[str] = ()) -> dict[str, Any]:
    """Values of a row: numbers and booleans, `None` where empty; the columns in `text` as they are."""

    def value(name: str, entry: str) -> Any:
        if name in text:
            return entry
        if entry in ("", "True", "False"):
            return None if entry == "" else entry == "True"
        if not _NUMBERS.fullmatch(entry):
            return entry
        return float(entry) if set(entry) & set(".eE") else int(entry)

    return {name: value(name, entry) for name, entry in row.items()}


def _title(files: _Files) -> str:
    return f"Run {files.run.resolve().name}"


def _sections(files: _Files, output: Path) -> Iterator[str]:
    """The parts of the page; draws their pictures on the way."""
    yield html_page.heading(_title(files), _facts(files))
    yield html_page.section("Results", *_results(files))
    yield html_page.section("Training", *_training(files, output))
    yield html_page.section("Classes", *_classes(files, output))
    yield html_page.section("Confusion", *_confusion(files, output))
    yield html_page.section("Calibration", *_calibration(files, output))
    yield html_page.section("Gate", *_gates(files, output))
    yield html_page.section("Clips", *_clips(files, output))
    yield html_page.section("Where the numbers come from", *_origin(files))


def _facts(files: _Files) -> list[str]:
    facts = []
    if files.config is not None:
        facts.append(f"fusion {files.config.get('fusion')}")
    if files.state is not None:
        facts.append(f"{files.state.get('global_step', 0):,} steps")
    if files.metrics is not None:
        counts = files.metrics["counts"]
        facts += [
            f"evaluated on {files.metrics['source']['split']}",
            f"{plural(counts['clips'], 'clip')} of {plural(counts['videos'], 'video')}",
            files.metrics["date"][:10],
        ]
    return facts


def _no_evaluation(files: _Files) -> str:
    where = "no folder of an evaluation" if files.evaluation is None else f"{files.evaluation} has no {METRICS_FILE}"
    return html_page.missing(f"Not evaluated: {where}. python hub_scripts/evaluate.py writes one.")


def _no_file(name: str) -> str:
    return html_page.missing(f"{name} is missing in the folder of the evaluation.")


def _results(files: _Files) -> Iterator[str]:
    if files.metrics is None:
        yield _no_evaluation(files)
        return
    counts, views = files.metrics["counts"], files.metrics["source"]["views"]
    if files.metrics["metrics"] is None:
        yield html_page.missing(f"No label: the {plural(counts['clips'], 'clip')} were scored, but not measured.")
        return
    rows = metric_rows(files.metrics["metrics"], files.metrics["calibration"]["ece"], files.metrics["f1_mean"])
    bootstrap = files.metrics.get("bootstrap", {})
    interval = f"{100 * bootstrap['confidence']:g} % interval" if "confidence" in bootstrap else "interval"
    caption = (
        f"{plural(counts['labelled_clips'], 'clip')} with a label, {plural(views, 'view')} each. The intervals come "
        "from drawing whole videos; they say nothing about other training runs."
    )
    yield html_page.table(caption, ["Metric", "Value", interval], rows)
    supports = [(int(row["support"]), row["class"]) for row in files.tables.get(PER_CLASS_FILE, [])]
    if supports:
        largest, name = max(supports)
        share = percent(largest / counts["labelled_clips"])
        yield html_page.paragraph(f"To compare: always saying “{name}”, the most frequent class, gives {share} top-1.")


def _training(files: _Files, output: Path) -> Iterator[str]:
    if files.state is None:
        yield html_page.missing(f"No curves: {STATE_FILE} is missing in {files.run} and its newest checkpoint.")
    else:
        yield from _curves(files.state, output)
        rows = [
            [name, _text(files.state[key])] for key, name in _STATE_FIELDS.items() if files.state.get(key) is not None
        ]
        yield html_page.table("What Trainer recorded.", ["", "Value"], rows)
    if files.config is None:
        yield html_page.missing(f"No model: {CONFIG_FILE} is missing in {files.run} and its newest checkpoint.")
    else:
        rows = [[name, _text(files.config[name])] for name in _MODEL_FIELDS if name in files.config]
        table = html_page.table(f"From {CONFIG_FILE}.", ["Setting", "Value"], rows)
        yield html_page.details("The model", table)
    if files.experiment is None:
        yield html_page.missing(f"No recipe: {EXPERIMENT_FILE} is missing in {files.run}.")
    else:
        rows = [[name, _text(value)] for name, value in _flatten(files.experiment)]
        table = html_page.table(f"All of {EXPERIMENT_FILE}.", ["Setting", "Value"], rows)
        yield html_page.details("The recipe", table)


def _curves(state: Mapping[str, Any], output: Path) -> Iterator[str]:
    # Beside the shares, the likelihood would squeeze them, and it is the validation loss again.
    history = [
        {key: value for key, value in entry.items() if key != "eval_nll"} for entry in state.get("log_history", [])
    ]
    try:
        plot_learning_curves(history, output / "learning_curves.png")
    except ValueError as error:
        yield html_page.missing(f"No curves: {error}")
        return
    losses = [entry["loss"] for entry in history if "loss" in entry]
    fact = f" Training loss from {losses[0]:.3g} to {losses[-1]:.3g}." if losses else ""
    alt = f"Curves over the steps: losses, metrics of the validation and learning rate.{fact}"
    yield html_page.figure(
        "learning_curves.png", alt, f"Losses, metrics on the validation split, learning rate.{fact}"
    )


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested objects under dotted names; what is unset or empty is left out."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value not in (None, []):
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _classes(files: _Files, output: Path) -> Iterator[str]:
    if files.metrics is None:
        yield _no_evaluation(files)
        return
    if PER_CLASS_FILE not in files.tables:
        yield _no_file(PER_CLASS_FILE)
        return
    rows = [_parse(row, text=("class", "group")) for row in files.tables[PER_CLASS_FILE]]
    shown = [row for row in rows if row["support"] or row["predicted"]]
    absent = [row["class"] for row in rows if not row["support"]]
    plot_class_bars(shown, output / "class_bars.png")
    worst = min((row for row in rows if row["support"]), key=lambda row: row["recall"])
    alt = (
        f"Bars: recall and F1 of {len(shown)} classes. The lowest recall is "
        f"{percent(worst['recall'])} of {worst['class']}."
    )
    caption = "Recall of each class (bar, coloured by group), F1 (mark), clips of it and clips predicted as it."
    yield html_page.figure("class_bars.png", alt, caption)
    if absent:
        yield html_page.paragraph(f"Without a clip in this split: {'; '.join(absent)}.")
    cells = (
        [
            row["class"],
            row["group"],
            *(f"{row[name]:,}" for name in ("support", "predicted")),
            *(percent(row[name]) for name in ("precision", "recall", "f1", "mean_true_probability")),
        ]
        for row in rows
    )
    header = ["Class", "Group", "Clips", "Predicted", "Precision", "Recall", "F1", "Mean probability"]
    caption = "The mean probability is that which clips of the class give it."
    yield html_page.details("Table of the classes", html_page.table(caption, header, cells, num_text_columns=2))
    yield from _groups(files)


def _groups(files: _Files) -> Iterator[str]:
    yield html_page.subheading("Groups")
    if PER_GROUP_FILE not in files.tables:
        yield _no_file(PER_GROUP_FILE)
        return
    rows = (_parse(row, text=("group",)) for row in files.tables[PER_GROUP_FILE])
    cells = (
        [
            row["group"],
            *(f"{row[name]:,}" for name in ("num_classes", "support", "predicted")),
            *(percent(row[name]) for name in ("group_accuracy", "class_accuracy")),
        ]
        for row in rows
    )
    header = ["Group", "Classes", "Clips", "Predicted", "Group right", "Class right"]
    yield html_page.table("Clips of each body-part group whose group, and whose class, is predicted.", header, cells)


def _confusion(files: _Files, output: Path) -> Iterator[str]:
    if files.metrics is None or CONFUSION_FILE not in files.tables:
        yield _no_evaluation(files) if files.metrics is None else _no_file(CONFUSION_FILE)
        return
    names = [next(iter(row.values())) for row in files.tables[CONFUSION_FILE]]
    matrix = np.array([[int(value) for value in list(row.values())[1:]] for row in files.tables[CONFUSION_FILE]])
    kept = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    plot_confusion(matrix[np.ix_(kept, kept)], [names[index] for index in kept], output / "confusion_matrix.png")
    wrong = matrix * (1 - np.eye(len(names), dtype=int))
    pairs = [divmod(int(flat), len(names)) for flat in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    facts = [f"{names[true]} taken for {names[found]} ({wrong[true, found]})" for true, found in pairs]
    most = f" Most often: {'; '.join(facts)}." if wrong.any() else ""
    alt = f"Matrix of {len(kept)} true and predicted classes.{most}"
    yield html_page.figure("confusion_matrix.png", alt, f"Clips of each true class (row) by predicted class.{most}")


def _calibration(files: _Files, output: Path) -> Iterator[str]:
    if files.metrics is None or CALIBRATION_FILE not in files.tables:
        yield _no_evaluation(files) if files.metrics is None else _no_file(CALIBRATION_FILE)
        return
    plot_reliability([_parse(row) for row in files.tables[CALIBRATION_FILE]], output / "reliability.png")
    errors = files.metrics["calibration"]
    fact = f"Expected calibration error {percent(errors['ece'])}, largest {percent(errors['mce'])}."
    alt = f"Accuracy over confidence, and clips of each bin. {fact}"
    yield html_page.figure("reliability.png", alt, fact, width=560)


def _gates(files: _Files, output: Path) -> Iterator[str]:
    if files.metrics is None or CLIPS_FILE not in files.tables:
        yield _no_evaluation(files) if files.metrics is None else _no_file(CLIPS_FILE)
        return
    rows = [_parse(row, text=("clip_id", "video_id", "label", "predicted")) for row in files.tables[CLIPS_FILE]]
    with_gate = [row for row in rows if row["gate_mean"] is not None]
    both = [row for row in with_gate if row["has_video"] and row["has_pose"]]
    if not both:
        reason = "no clip has both streams" if with_gate else "the scores come with no gate, as without gated fusion"
        yield html_page.missing(f"No histogram: {reason}.")
        return
    by = "label" if all(row["label"] for row in both) else "predicted"
    gates: dict[str, list[float]] = {name: [] for name in files.metrics["classes"]["names"]}
    for row in both:
        gates[row[by]].append(row["gate_mean"])
    gates = {name: values for name, values in gates.items() if values}
    plot_gates(gates, output / "gates.png")
    mean = float(np.mean([row["gate_mean"] for row in both]))
    fact = f"Mean gate {mean:.2f}: 0 takes pose alone, 1 RGB alone."
    which = "class" if by == "label" else "predicted class"
    left_out = len(with_gate) - len(both)
    rest = f" {plural(left_out, 'clip')} that lack a stream are left out." if left_out else ""
    alt = f"Histograms of the mean gate of each clip, by {which}. {fact}"
    yield html_page.figure("gates.png", alt, f"Mean gate of each clip, by {which} (clips in brackets). {fact}{rest}")


def _clips(files: _Files, output: Path) -> Iterator[str]:
    if files.metrics is None or files.evaluation is None:
        yield _no_evaluation(files)
        return
    if STRIPS_FILE not in files.tables:
        yield html_page.missing("No clip was drawn.")
        return
    clips = {row["clip_id"]: row for row in files.tables.get(CLIPS_FILE, [])}
    views = files.metrics["source"]["views"]
    if views > 1:
        yield html_page.paragraph(
            f"A picture shows the first view alone, the line above it the mean of {views} views."
        )
    kind = None
    for entry in files.tables[STRIPS_FILE]:
        if entry["kind"] != kind:
            kind = entry["kind"]
            yield html_page.subheading({"hardest": "Highest loss", "right": "Predicted right"}.get(kind, "Least sure"))
        yield _strip(entry, clips.get(entry["clip_id"]), files.evaluation, output)


def _strip(entry: Mapping[str, str], clip: Mapping[str, str] | None, evaluation: Path, output: Path) -> str:
    """The picture of a clip, or why there is none, with what the evaluation found."""
    caption = f"<strong>{escape(entry['clip_id'])}</strong>"
    if clip is not None:
        values = _parse(clip, text=("clip_id", "video_id", "label", "predicted"))
        found = f"predicted {values['predicted']} ({percent(values['probability'])})"
        if values["label"]:
            found = f"true {values['label']} ({percent(values['true_probability'])}), {found}"
            found += f", loss {values['loss']:.2f}"
        caption += f"<br>{escape(found)}"
    caption = f"<figcaption>{caption}</figcaption>"
    source = evaluation / entry["file"] if entry["file"] else None
    if source is None or not source.is_file():
        reason = entry["problem"] if source is None else f"{entry['file']} is missing."
        return f'<figure class="strip">\n{caption}\n<p class="unreadable">{escape(reason)}</p>\n</figure>'
    target = output / STRIPS_FOLDER / source.name
    if target.resolve() != source.resolve():
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    file = f"{STRIPS_FOLDER}/{source.name}"
    alt = f"Sampled frames of the clip {entry['clip_id']} with skeleton and attention."
    return f'<figure class="strip">\n{caption}\n<a href="{escape(file)}">{html_page.image(file, alt)}</a>\n</figure>'


def _origin(files: _Files) -> Iterator[str]:
    if files.metrics is None:
        yield _no_evaluation(files)
        return
    parts = ("source", "checkpoint", "data", "late_fusion", "options", "bootstrap", "counts", "versions", "date")
    content = {name: files.metrics[name] for name in parts if name in files.metrics}
    rows = ([name, _text(value)] for name, value in _flatten(content))
    yield html_page.table(f"From {METRICS_FILE}.", ["", "Value"], rows, num_text_columns=2)


__all__ = ["write_run_report"]
