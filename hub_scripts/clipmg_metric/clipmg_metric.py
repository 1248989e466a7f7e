"""Metric of the `evaluate` library for micro-gesture classification.

    metric = evaluate.load("<namespace>/clipmg_metric")     # or the path of the folder
    metric.compute(predictions=logits, references=labels, video_ids=video_ids)

The formulas are in `metrics_clipmg.py`, a copy of `clipmg_hf/metrics.py`: `clipmg_hf.metric_space.write_metric_space`
writes the two side by side into a folder that `evaluate` loads and that is a Space as it is.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics_clipmg import (
    PREDICTION_METRICS,
    bootstrap_intervals,
    calibration,
    classification_metrics,
    confusion_matrix,
    f1_mean,
    log_softmax,
    per_class_table,
    per_group_table,
)


DESCRIPTION = """
Top-1 and top-5 accuracy, mean class accuracy, macro and weighted F1, negative log-likelihood, calibration error,
accuracy by body part and MA-52's F1_mean of micro-gesture classification, with bootstrap intervals over videos, tables
of classes and groups, and the confusion matrix.
"""

INPUTS_DESCRIPTION = """
Args:
    predictions: Scores of each clip, lists of num_labels numbers; or each clip's class.
    references: True class of each clip.
    video_ids (optional): Video of each clip; adds the intervals. An input of `add` and `add_batch` in the
        configuration "videos", which is also the one for several processes; else give it to `compute`.
    groups (list of str, optional): Body-part group of each class; adds group_accuracy and f1_mean.
    tables (bool, defaults to False): Adds per_class, confusion_matrix, with groups per_group, and of scores
        reliability.
    class_names (list of str, optional): For the tables; else the classes' numbers.
    num_samples, confidence, seed (defaults to 1000, 0.95, 0): Of the intervals.

Returns:
    dict: top1, top5, mean_class_accuracy, macro_f1, weighted_f1, nll, ece and mce, without top5, nll, ece and mce if
    classes are given; with video_ids also the bounds of each but the last two, such as top1_low and top1_high.
"""


class ClipMGMetric(evaluate.Metric):
    """Metrics of micro-gesture classification; see `INPUTS_DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "videos"):
            raise ValueError(f"config_name is {self.config_name!r}; expected 'default' or 'videos'.")
        inputs: dict[str, Any] = {"references": datasets.Value("int64")}
        if self.config_name == "videos":
            inputs["video_ids"] = datasets.Value("string")
        scores, classes = datasets.Sequence(datasets.Value("float64")), datasets.Value("int64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="CLIP-MG: https://arxiv.org/abs/2506.16385",
            inputs_description=INPUTS_DESCRIPTION,
            features=[datasets.Features({"predictions": kind, **inputs}) for kind in (scores, classes)],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]] | Sequence[int],
        references: Sequence[int],
        video_ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        tables: bool = False,
        class_names: Sequence[str] | None = None,
        **sampling: Any,
    ) -> dict[str, Any]:
        labels = np.asarray(references)
        lengths = {np.size(row) for row in predictions}
        if len(lengths) > 1:
            raise ValueError(
                f"Clips have {sorted(lengths)} scores; expected as many of each clip as there are classes."
            )
        scores = np.asarray(predictions)
        has_scores = scores.ndim == 2
        if not has_scores:
            all_classes = class_names if groups is None else groups
            scores = score_classes(scores, labels, None if all_classes is None else len(all_classes))
        metrics = classification_metrics(scores, labels, groups)
        metrics = {name: value for name, value in metrics.items() if has_scores or name in PREDICTION_METRICS}
        results: dict[str, Any] = dict(metrics)
        if video_ids is not None:
            intervals = bootstrap_intervals(scores, labels, list(video_ids), list(metrics), groups=groups, **sampling)
            results |= {f"{name}_{end}": intervals[name][end] for name in metrics for end in ("low", "high")}
        if groups is not None:
            results |= f1_mean(labels, scores.argmax(axis=1), groups)
        bins = None
        if has_scores:
            errors = calibration(np.exp(log_softmax(scores)), labels)
            bins = errors.pop("bins")
            results |= errors
        return results | (make_tables(scores, labels, groups, class_names, bins) if tables else {})


def make_tables(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None,
    class_names: Sequence[str] | None,
    bins: list[dict[str, Any]] | None,
) -> dict[str, list]:
    """What is more than a number; without bins, the scores stand for classes and are no probabilities."""
    num_labels = scores.shape[1]
    names = [str(label) for label in range(num_labels)] if class_names is None else class_names
    per_class = per_class_table(scores, labels, names)
    tables = {
        "per_class": per_class,
        "confusion_matrix": confusion_matrix(labels, scores.argmax(axis=1), num_labels).tolist(),
    }
    if bins is None:
        for row in per_class:
            del row["mean_true_probability"]
    else:
        tables["reliability"] = bins
    if groups is not None:
        tables["per_group"] = per_group_table(scores, labels, groups)
    return tables


def score_classes(predictions: np.ndarray, labels: np.ndarray, num_labels: int | None) -> np.ndarray:
    """Scores that are 1 for the predicted class, else 0: (num_clips, num_labels)."""
    if num_labels is None:
        num_labels = int(max(predictions.max(), labels.max())) + 1
    if predictions.min() < 0 or predictions.max() >= num_labels:
        raise ValueError(
            f"Predicted classes must lie in 0..{num_labels - 1}, got {predictions.min()}..{predictions.max()}."
        )
    return np.eye(num_labels)[predictions]
