"""What the scores of an evaluation amount to, and the files that say so.

    measurement = measure(evaluation.scores, groups := class_groups(rows))
    write_evaluation("evaluation", evaluation, groups, measurement, facts)
    print_results(Console(), evaluation.scores, measurement)

N is the number of clips, L that of the classes. `clipmg_hf.evaluation_strips` draws clips, `clipmg_hf.run_report`
writes a page from the files.
"""

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from huggingface_hub import snapshot_download
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clipmg_hf.data.labels import MA52_GROUP_NAMES, MA52_GROUPS, known_groups
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.evaluation import Evaluation, EvaluationOptions
from clipmg_hf.files import digest_file, write_file
from clipmg_hf.inference.onnx_model import ONNX_WEIGHTS_FILE
from clipmg_hf.metrics import (
    bootstrap_intervals,
    calibration,
    classification_metrics,
    confusion_matrix,
    f1_mean,
    log_softmax,
    per_class_table,
    per_group_table,
)
from clipmg_hf.score_files import Scores, write_scores


METRICS_FILE, SCORES_FILE, CLIPS_FILE = "metrics.json", "scores.parquet", "clips.csv"
PER_CLASS_FILE, PER_GROUP_FILE = "per_class.csv", "per_group.csv"
CONFUSION_FILE, CALIBRATION_FILE, STRIPS_FILE = "confusion_matrix.csv", "calibration.csv", "strips.csv"
STRIPS_FOLDER, SUBMISSION_FILE, REPORT_FILE = "strips", "submission.csv", "report.html"
PICTURES = ("learning_curves.png", "confusion_matrix.png", "class_bars.png", "reliability.png", "gates.png")
# What an evaluation and its report consist of, with the pictures in `strips/`: those of an earlier one do not survive.
RESULT_FILES = (
    *(METRICS_FILE, SCORES_FILE, CLIPS_FILE, PER_CLASS_FILE, PER_GROUP_FILE, CONFUSION_FILE, CALIBRATION_FILE),
    *(STRIPS_FILE, SUBMISSION_FILE, REPORT_FILE, *PICTURES),
)
UNKNOWN_GROUP = "unknown"
# In the order of the tables; all are shares.
METRIC_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "group_accuracy": "body-part group",
}
# By backend; in those of an export the computation is a part of the files.
_WEIGHT_FILES = {"torch": ("*.safetensors",), "onnx": ("*.onnx", ONNX_WEIGHTS_FILE)}
_PACKAGES = ("torch", "transformers", "datasets", "numpy", "av")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What scores amount to; see the functions of the same names in `clipmg_hf.metrics`.

    Args:
        metrics (`dict`): For each metric `value`, and `low` and `high` of its interval, which are `None` where the
            clips are of a single video.
        calibration (`dict`): `ece`, `mce` and `bins`.
        per_class, per_group (`list[dict]`): Tables.
        confusion (`numpy.ndarray` int64 of shape `(L, L)`): Rows are true classes.
        f1_mean (`dict` or `None`): The official metric of MA-52; `None` for other data.
        num_labelled, num_videos (`int`): Clips with a label, and their videos.
    """

    metrics: dict[str, dict[str, float | None]]
    calibration: dict[str, Any]
    per_class: list[dict[str, Any]]
    per_group: list[dict[str, Any]]
    confusion: np.ndarray
    f1_mean: dict[str, float] | None
    num_labelled: int
    num_videos: int


def class_groups(rows: datasets.Dataset) -> list[str]:
    """Body-part group of each class: that of the data set, else what the rows say.

    Classes of other data sets without a clip are of the group "unknown".
    """
    names = rows.features["label"].names
    group_names = rows.features["group"].names
    if (known := known_groups(names)) is not None:
        return list(known)
    if len(names) == len(MA52_GROUPS) and tuple(group_names) == MA52_GROUP_NAMES:
        return list(MA52_GROUPS)
    small = rows.select_columns(["label", "group"]).with_format("arrow")[:]
    pairs = zip(small["label"].to_pylist(), small["group"].to_pylist(), strict=True)
    found = {label: group_names[group] for label, group in pairs if label >= 0 and group >= 0}
    return [found.get(label, UNKNOWN_GROUP) for label in range(len(names))]


def measure(
    scores: Scores,
    groups: Sequence[str],
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Measurement | None:
    """Measure the clips that have a label; `None` if all labels are hidden.

    Args:
        scores ([`Scores`]): Of a split.
        groups (`Sequence[str]` of length L): Group of each class.
        num_samples, confidence, seed: Of the intervals; see [`bootstrap_intervals`].
    """
    labelled = scores.labels != HIDDEN_LABEL
    if not labelled.any():
        return None
    logits, labels = scores.logits[labelled], scores.labels[labelled]
    videos = np.array(scores.video_ids, object)[labelled].tolist()
    num_videos = len(set(videos))
    metrics: dict[str, dict[str, float | None]]
    if num_videos > 1:
        intervals = bootstrap_intervals(
            logits, labels, videos, num_samples=num_samples, confidence=confidence, seed=seed, groups=groups
        )
        metrics = {name: dict(interval) for name, interval in intervals.items()}
    else:
        values = classification_metrics(logits, labels, groups)
        metrics = {name: {"value": value, "low": None, "high": None} for name, value in values.items()}
    predictions = logits.argmax(axis=1)
    return Measurement(
        metrics=metrics,
        calibration=calibration(np.exp(log_softmax(logits)), labels),
        per_class=per_class_table(logits, labels, scores.label_names),
        per_group=per_group_table(logits, labels, groups),
        confusion=confusion_matrix(labels, predictions, logits.shape[1]),
        f1_mean=f1_mean(labels, predictions, groups) if tuple(groups) == MA52_GROUPS else None,
        num_labelled=int(labelled.sum()),
        num_videos=num_videos,
    )


def describe_checkpoint(path_or_name: str | os.PathLike, backend: str = "torch") -> dict[str, Any]:
    """Where a checkpoint comes from.

    Args:
        path_or_name, backend: As [`load_model`] took them: a model of the Hub is in the local cache.

    Returns:
        `dict`: `name`, `revision` (commit of a model on the Hub, else `None`) and `weights_sha256`, by file name.
    """
    folder, revision = Path(path_or_name), None
    if not folder.is_dir():
        folder = Path(snapshot_download(str(path_or_name), local_files_only=True, allow_patterns=["*.json"]))
        revision = folder.name
    weights = sorted(path for pattern in _WEIGHT_FILES[backend] for path in folder.glob(pattern))
    return {
        "name": str(path_or_name),
        "revision": revision,
        "weights_sha256": {path.name: digest_file(path)["sha256"] for path in weights},
    }


def package_versions() -> dict[str, str]:
    """Versions of Python, this package and those that the numbers depend on."""
    from clipmg_hf import __version__

    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "clipmg_hf": __version__, **versions}


def clip_table(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for each clip, in the order of the scores.

    Returns:
        `list[dict]`: `clip_id`, `video_id`, `label` and `predicted` (names), `probability` of the predicted class,
        `true_probability` and `loss` (negative log-likelihood in nats) of the true one, `gate_mean`, `has_video` and
        `has_pose`; `None` where there is none.
    """
    scores = evaluation.scores
    log_probabilities = log_softmax(scores.logits)
    predictions = scores.logits.argmax(axis=1)
    table = []
    for index, (clip_id, label, predicted) in enumerate(zip(scores.clip_ids, scores.labels, predictions, strict=True)):
        true = None if label == HIDDEN_LABEL else float(log_probabilities[index, label])
        table.append(
            {
                "clip_id": clip_id,
                "video_id": scores.video_ids[index],
                "label": None if true is None else scores.label_names[label],
                "predicted": scores.label_names[predicted],
                "probability": float(np.exp(log_probabilities[index, predicted])),
                "true_probability": None if true is None else float(np.exp(true)),
                "loss": None if true is None else -true,
                "gate_mean": _entry(evaluation.gate_means, index),
                "has_video": _entry(evaluation.has_video, index),
                "has_pose": _entry(evaluation.has_pose, index),
            }
        )
    return table


def _entry(values: np.ndarray | None, index: int) -> Any:
    return None if values is None else values[index].item()


def write_evaluation(
    folder: str | os.PathLike,
    evaluation: Evaluation,
    groups: Sequence[str],
    measurement: Measurement | None,
    facts: Mapping[str, Any],
) -> Path:
    """Write the numbers of an evaluation: the scores, a row for each clip, the tables and, last, `metrics.json`.

    Files of an earlier evaluation in the folder are replaced or removed, with its report and its pictures of clips;
    nothing else is touched. Without labels there are no tables.

    Args:
        folder (`str` or `PathLike`): Made if missing.
        evaluation ([`Evaluation`]): Scores and gates.
        groups (`Sequence[str]` of length L): Group of each class.
        measurement ([`Measurement`] or `None`): Of the same scores.
        facts (`Mapping`): JSON values that go to `metrics.json` as they are, such as checkpoint, data and options.

    Returns:
        `Path` of `metrics.json`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_results(folder)
    scores = evaluation.scores
    write_scores(scores, folder / SCORES_FILE)
    write_table(folder / CLIPS_FILE, clip_table(evaluation))
    if measurement is not None:
        grouped = [{**row, "group": group} for row, group in zip(measurement.per_class, groups, strict=True)]
        write_table(folder / PER_CLASS_FILE, grouped)
        write_table(folder / PER_GROUP_FILE, measurement.per_group)
        write_table(folder / CALIBRATION_FILE, measurement.calibration["bins"])
        names = scores.label_names
        matrix = [[name, *row.tolist()] for name, row in zip(names, measurement.confusion, strict=True)]
        _write_csv(folder / CONFUSION_FILE, [["true \\ predicted", *names], *matrix])
    content = _metrics_content(evaluation, groups, measurement) | dict(facts)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = folder / METRICS_FILE
    write_file(path, text)
    return path


def _remove_results(folder: Path) -> None:
    for path in (*(folder / name for name in RESULT_FILES), *folder.glob(f"{STRIPS_FOLDER}/*.png")):
        path.unlink(missing_ok=True)
    # It stays where it holds something else.
    with contextlib.suppress(OSError):
        (folder / STRIPS_FOLDER).rmdir()


def _metrics_content(evaluation: Evaluation, groups: Sequence[str], measurement: Measurement | None) -> dict[str, Any]:
    scores = evaluation.scores
    counts = {
        "clips": len(scores.clip_ids),
        "labelled_clips": 0 if measurement is None else measurement.num_labelled,
        "videos": len(set(scores.video_ids)),
        "classes": len(scores.label_names),
        "classes_with_clips": len(set(scores.labels.tolist()) - {HIDDEN_LABEL}),
    }
    for name, present in (("video", evaluation.has_video), ("pose", evaluation.has_pose)):
        if present is not None:
            counts[f"clips_without_{name}"] = int((~present).sum())
    content: dict[str, Any] = {"metrics": None, "calibration": None, "f1_mean": None}
    if measurement is not None:
        content = {
            "metrics": measurement.metrics,
            "calibration": {name: measurement.calibration[name] for name in ("ece", "mce")},
            "f1_mean": measurement.f1_mean,
        }
    source = {
        "checkpoint": scores.checkpoint,
        "revision": scores.revision,
        "data_fingerprint": scores.data_fingerprint,
        "split": scores.split,
        "views": scores.views,
    }
    classes = {"names": scores.label_names, "groups": list(groups)}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {**content, "counts": counts, "source": source, "classes": classes, "versions": package_versions()} | {
        "date": date
    }


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys as CSV, all of it or nothing; `None` is empty."""
    _write_csv(path, [list(rows[0]), *([*row.values()] for row in rows)])


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_file(path, text.getvalue())


def options_facts(options: EvaluationOptions) -> dict[str, Any]:
    """The options that change the numbers, as JSON values."""
    return {
        name: value for name, value in dataclasses.asdict(options).items() if name not in ("batch_size", "num_workers")
    }


def metric_rows(
    metrics: Mapping[str, Any], error: float, ma52: Mapping[str, float] | None
) -> list[tuple[str, str, str]]:
    """Name, value and interval of each metric, as text.

    Args:
        metrics: As in [`Measurement`].
        error: The expected calibration error.
        ma52: Its official metric, for MA-52.
    """

    def describe(name: str, pattern: str, factor: float) -> tuple[str, str]:
        value, low, high = (metrics[name][key] for key in ("value", "low", "high"))
        between = "-" if low is None else f"{factor * low:{pattern}} to {factor * high:{pattern}}"
        return f"{factor * value:{pattern}}", between

    rows = []
    for name, label in METRIC_NAMES.items():
        if name in metrics:
            value, interval = describe(name, ".1f", 100)
            rows.append((label, f"{value} %", interval if interval == "-" else f"{interval} %"))
    if ma52 is not None:
        rows += [(f"{name.replace('_', ' ')} (MA-52)", f"{100 * value:.1f} %", "-") for name, value in ma52.items()]
    return [
        *rows,
        ("negative log-likelihood", *describe("nll", ".3f", 1)),
        ("expected calibration error", f"{100 * error:.1f} %", "-"),
    ]


def print_results(console: Console, scores: Scores, measurement: Measurement | None) -> None:
    """Print the metrics as a table, or that there are no labels."""
    num_videos, views = len(set(scores.video_ids)), "" if scores.views == 1 else f", {scores.views} views each"
    title = f"{scores.checkpoint} on {scores.split}: {len(scores.clip_ids)} clips of {num_videos} videos{views}"
    if measurement is None:
        console.print(f"{title}. No label: scores alone.", markup=False, soft_wrap=True)
        return
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("interval by video", justify="right")
    for row in metric_rows(measurement.metrics, measurement.calibration["ece"], measurement.f1_mean):
        table.add_row(*row)
    console.print(table)


__all__ = [
    "METRIC_NAMES",
    "UNKNOWN_GROUP",
    "Measurement",
    "class_groups",
    "clip_table",
    "describe_checkpoint",
    "measure",
    "metric_rows",
    "options_facts",
    "package_versions",
    "print_results",
    "write_evaluation",
    "write_table",
]
