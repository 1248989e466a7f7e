"""Metrics of micro-gesture classification, as plain functions of arrays."""

import numpy as np
from transformers import EvalPrediction


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Count clips: int64 (num_labels, num_labels), rows are true classes, columns predicted ones."""
    flat = np.asarray(labels) * num_labels + np.asarray(predictions)
    return np.bincount(flat, minlength=num_labels**2).reshape(num_labels, num_labels)


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of clips whose true class is among the k highest scores; ties count as misses of the true class."""
    true_scores = np.take_along_axis(logits, np.asarray(labels)[:, None], axis=1)
    return float(((logits >= true_scores).sum(axis=1) <= k).mean())


def mean_class_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` of the share of their clips that is predicted right."""
    return float(np.mean([(predictions[labels == c] == c).mean() for c in np.unique(labels)]))


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in `labels` or `predictions`."""
    scores = []
    for c in np.union1d(labels, predictions):
        hits = np.sum((labels == c) & (predictions == c))
        scores.append(2 * hits / (np.sum(labels == c) + np.sum(predictions == c)))
    return float(np.mean(scores))


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1, top-5, mean class accuracy and macro F1, each in [0, 1].

    Args:
        logits (`numpy.ndarray` of shape `(num_clips, num_labels)`): Scores.
        labels (`numpy.ndarray` of shape `(num_clips,)`): True classes in [0, num_labels - 1].

    Raises:
        ValueError: No clip, shapes that do not match, a label out of range, or scores that are not finite.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"Expected logits (num_clips, num_labels) and labels (num_clips,) of at least one clip, got "
            f"{logits.shape} and {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"Labels must lie in 0..{logits.shape[1] - 1}, got {labels.min()}..{labels.max()}.")
    if not np.isfinite(logits).all():
        raise ValueError(f"Scores of {int((~np.isfinite(logits)).any(axis=1).sum())} clips are not finite.")
    predictions = logits.argmax(axis=1)
    return {
        "top1": float((predictions == labels).mean()),
        "top5": top_k_accuracy(logits, labels, min(5, logits.shape[1])),
        "mean_class_accuracy": mean_class_accuracy(labels, predictions),
        "macro_f1": macro_f1(labels, predictions),
    }


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Adapt [`classification_metrics`] to Trainer."""
    return classification_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))


__all__ = [
    "classification_metrics",
    "compute_metrics",
    "confusion_matrix",
    "macro_f1",
    "mean_class_accuracy",
    "top_k_accuracy",
]
