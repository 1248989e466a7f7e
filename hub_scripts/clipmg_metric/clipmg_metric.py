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

from .metrics_clipmg import PREDICTION_METRICS, bootstrap_intervals, classification_metrics


DESCRIPTION = """
Top-1 and top-5 accuracy, mean class accuracy, macro and weighted F1, negative log-likelihood and accuracy by body part
of micro-gesture classification, with bootstrap intervals over videos.
"""

INPUTS_DESCRIPTION = """
Args:
    predictions: Scores of each clip, lists of num_labels numbers; or each clip's class.
    references: True class of each clip.
    video_ids (optional): Video of each clip; adds the intervals. An input of `add` and `add_batch` in the
        configuration "videos", which is also the one for several processes; else give it to `compute`.
    groups (list of str, optional): Body-part group of each class; adds group_accuracy.
    num_samples, confidence, seed (defaults to 1000, 0.95, 0): Of the intervals.

Returns:
    dict: top1, top5, mean_class_accuracy, macro_f1, weighted_f1 and nll, without top5 and nll if classes are given;
    with video_ids also the bounds of each, such as top1_low and top1_high.
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
        **sampling: Any,
    ) -> dict[str, float]:
        labels = np.asarray(references)
        lengths = {np.size(row) for row in predictions}
        if len(lengths) > 1:
            raise ValueError(
                f"Clips have {sorted(lengths)} scores; expected as many of each clip as there are classes."
            )
        scores = np.asarray(predictions)
        has_scores = scores.ndim == 2
        if not has_scores:
            scores = score_classes(scores, labels, None if groups is None else len(groups))
        metrics = classification_metrics(scores, labels, groups)
        metrics = {name: value for name, value in metrics.items() if has_scores or name in PREDICTION_METRICS}
        if video_ids is None:
            return metrics
        intervals = bootstrap_intervals(scores, labels, list(video_ids), list(metrics), groups=groups, **sampling)
        bounds = {f"{name}_{end}": intervals[name][end] for name in metrics for end in ("low", "high")}
        return metrics | bounds


def score_classes(predictions: np.ndarray, labels: np.ndarray, num_labels: int | None) -> np.ndarray:
    """Scores that are 1 for the predicted class, else 0: (num_clips, num_labels)."""
    if num_labels is None:
        num_labels = int(max(predictions.max(), labels.max())) + 1
    if predictions.min() < 0 or predictions.max() >= num_labels:
        raise ValueError(
            f"Predicted classes must lie in 0..{num_labels - 1}, got {predictions.min()}..{predictions.max()}."
        )
    return np.eye(num_labels)[predictions]
