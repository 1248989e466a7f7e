"""Metrics of micro-gesture classification, as plain functions of arrays.

N is the number of clips, L that of the classes. Scores that are equal, as rounded ones often are, rank in the order of
the classes: the prediction is the first of the highest scores, and top-5 goes on in the same order.
Imports nothing but numpy: `clipmg_hf.metric_space` publishes this file by itself.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    from transformers import EvalPrediction


# What a clip's highest score decides; the other metrics need all of its scores.
PREDICTION_METRICS = ("top1", "mean_class_accuracy", "macro_f1", "weighted_f1", "group_accuracy")


def _check_scores(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"Expected logits (num_clips, num_labels) and labels (num_clips,) of at least one clip, got "
            f"{logits.shape} and {labels.shape}."
        )
    _check_classes("Labels", labels, logits.shape[1])
    if not np.isfinite(logits).all():
        raise ValueError(f"Scores of {int((~np.isfinite(logits)).any(axis=1).sum())} clips are not finite.")
    return logits, labels


def _check_classes(name: str, classes: np.ndarray, num_labels: int) -> None:
    if not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"{name} are {classes.dtype}; expected integers.")
    if classes.min() < 0 or classes.max() >= num_labels:
        missing = int((classes < 0).sum())
        note = f" {missing} of {len(classes)} clips have no class (negative): leave them out." if missing else ""
        raise ValueError(f"{name} must lie in 0..{num_labels - 1}, got {classes.min()}..{classes.max()}.{note}")


def _check_length(name: str, values: Sequence, expected: int) -> None:
    if len(values) != expected:
        raise ValueError(f"{name} has {len(values)} entries; expected {expected}.")


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _is_in_top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    true_classes = np.asarray(labels)[:, None]
    true_scores = np.take_along_axis(logits, true_classes, axis=1)
    comes_first_of_tie = (logits == true_scores) & (np.arange(logits.shape[1]) < true_classes)
    return ((logits > true_scores) | comes_first_of_tie).sum(axis=1) < k


def _true_log_probability(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.take_along_axis(log_softmax(logits), labels[:, None], axis=1)[:, 0]


def _clip_values(logits: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The metrics that are means over the clips, as a value of each clip: (N,)."""
    predictions = logits.argmax(axis=1)
    values = {
        "top1": predictions == labels,
        "top5": _is_in_top_k(logits, labels, 5),
        "nll": -_true_log_probability(logits, labels),
    }
    if groups is not None:
        _check_length("groups", groups, logits.shape[1])
        group_of_class = np.asarray(groups)
        values["group_accuracy"] = group_of_class[predictions] == group_of_class[labels]
    return values


def _count_classes(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Clips predicted right, labelled and predicted as each class that occurs: (3, number of these classes)."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    classes, index = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    true, predicted = index[: len(labels)], index[len(labels) :]
    return np.stack([np.bincount(c, minlength=len(classes)) for c in (true[true == predicted], true, predicted)])


def _class_averages(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics that are means over classes; counts (3, ..., number of classes) as [`_count_classes`] gives them."""
    hits, support, predicted = counts
    occurs, counted = support > 0, support + predicted > 0
    recall = np.divide(hits, support, out=np.zeros(support.shape), where=occurs)
    f1 = np.divide(2 * hits, support + predicted, out=np.zeros(support.shape), where=counted)
    return {
        "mean_class_accuracy": recall.sum(axis=-1) / occurs.sum(axis=-1),
        "macro_f1": f1.sum(axis=-1) / counted.sum(axis=-1),
        "weighted_f1": (support * f1).sum(axis=-1) / support.sum(axis=-1),
    }


def _draw(num_videos: int, num_samples: int, seed: int) -> np.ndarray:
    """How often each video is in each sample: float64 (num_samples, num_videos)."""
    generator = np.random.default_rng(seed)
    draws = [generator.integers(num_videos, size=num_videos) for _ in range(num_samples)]
    return np.stack([np.bincount(videos, minlength=num_videos) for videos in draws]).astype(np.float64)


def _resample(
    times_drawn: np.ndarray,
    video_of_clip: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None,
) -> dict[str, np.ndarray]:
    """Every metric of every sample: (num_samples,). All of them follow from sums over the clips of a video."""
    (num_samples, num_videos), num_labels = times_drawn.shape, logits.shape[1]
    num_clips = times_drawn @ np.bincount(video_of_clip)
    values = _clip_values(logits, labels, groups)
    means = {
        name: times_drawn @ np.bincount(video_of_clip, clip_values) / num_clips for name, clip_values in values.items()
    }
    predictions = logits.argmax(axis=1)
    counts = np.empty((3, num_samples, num_labels))
    hit = labels == predictions
    for index, (kept, classes) in enumerate(((hit, labels), (slice(None), labels), (slice(None), predictions))):
        flat = video_of_clip[kept] * num_labels + classes[kept]
        by_video = np.bincount(flat, minlength=num_videos * num_labels).reshape(num_videos, num_labels)
        counts[index] = times_drawn @ by_video
    return means | _class_averages(counts)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Count clips: int64 (num_labels, num_labels), rows are true classes, columns predicted ones."""
    flat = np.asarray(labels) * num_labels + np.asarray(predictions)
    return np.bincount(flat, minlength=num_labels**2).reshape(num_labels, num_labels)


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of clips whose true class is among the k highest scores; of a tie, the first classes are."""
    return float(_is_in_top_k(logits, labels, k).mean())


def mean_class_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` of the share of their clips that is predicted right."""
    return float(_class_averages(_count_classes(labels, predictions))["mean_class_accuracy"])


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes that occur in `labels` or `predictions`."""
    return float(_class_averages(_count_classes(labels, predictions))["macro_f1"])


def weighted_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean F1 over the classes, weighted by their number of clips."""
    return float(_class_averages(_count_classes(labels, predictions))["weighted_f1"])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithm of the probabilities, float64; of the last axis."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def classification_metrics(
    logits: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None = None
) -> dict[str, float]:
    """Summarise the scores of a split.

    Args:
        logits (`numpy.ndarray` of shape `(N, L)`): Scores.
        labels (`numpy.ndarray` of shape `(N,)`): True classes in [0, L - 1].
        groups (`Sequence[str]` of length L, *optional*): Body-part group of each class.

    Returns:
        `dict[str, float]`: `top1`, `top5` (equal scores rank in the order of the classes), `mean_class_accuracy` over
        the classes that occur, `macro_f1` over those that occur or are predicted, `weighted_f1` by the classes'
        number of clips, each in [0, 1]; `nll`, the mean negative log-likelihood of the true class in nats; and with
        `groups` also `group_accuracy`, the share of clips whose predicted class is of the true class's group.

    Raises:
        ValueError: No clip, shapes that do not match, a label out of range or hidden, or scores that are not finite.
    """
    logits, labels = _check_scores(logits, labels)
    means = {name: values.mean() for name, values in _clip_values(logits, labels, groups).items()}
    averages = _class_averages(_count_classes(labels, logits.argmax(axis=1)))
    ordered = {"top1": means.pop("top1"), "top5": means.pop("top5"), **averages, **means}
    return {name: float(value) for name, value in ordered.items()}


def per_class_table(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Results of each class.

    Args:
        logits, labels: As for [`classification_metrics`].
        names (`Sequence[str]` of length L): Names of the classes.

    Returns:
        `list[dict]` of length L: `class`, `support` (clips of the class), `predicted` (clips predicted as it),
        `precision`, `recall`, `f1`, and `mean_true_probability`, the mean probability that clips of the class give
        it. What has no clip to count is `None`: precision where nothing is predicted, recall without support.

    Raises:
        ValueError: As [`classification_metrics`], or another number of names.
    """
    logits, labels = _check_scores(logits, labels)
    num_labels = logits.shape[1]
    _check_length("names", names, num_labels)
    predictions = logits.argmax(axis=1)
    hits = np.bincount(labels[labels == predictions], minlength=num_labels)
    support = np.bincount(labels, minlength=num_labels)
    predicted = np.bincount(predictions, minlength=num_labels)
    probability = np.bincount(labels, np.exp(_true_log_probability(logits, labels)), num_labels)
    return [
        {
            "class": names[c],
            "support": int(support[c]),
            "predicted": int(predicted[c]),
            "precision": _ratio(hits[c], predicted[c]),
            "recall": _ratio(hits[c], support[c]),
            "f1": _ratio(2 * hits[c], support[c] + predicted[c]),
            "mean_true_probability": _ratio(probability[c], support[c]),
        }
        for c in range(num_labels)
    ]


def per_group_table(logits: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Results of each body-part group; the predicted group is that of the predicted class.

    Args:
        logits, labels: As for [`classification_metrics`].
        groups (`Sequence[str]` of length L): Group of each class.

    Returns:
        `list[dict]` in the order of the groups' first classes: `group`, `num_classes`, `support` and `predicted`
        (clips), and of the group's clips the shares `group_accuracy` (predicted as any of its classes) and
        `class_accuracy` (predicted as their class); these are `None` without support.

    Raises:
        ValueError: As [`classification_metrics`], or another number of groups.
    """
    logits, labels = _check_scores(logits, labels)
    _check_length("groups", groups, logits.shape[1])
    group_names = list(dict.fromkeys(groups))
    group_of_class = np.array([group_names.index(group) for group in groups])
    predictions = logits.argmax(axis=1)
    true_groups, predicted_groups = group_of_class[labels], group_of_class[predictions]
    table = []
    for index, name in enumerate(group_names):
        inside = true_groups == index
        support = int(inside.sum())
        table.append(
            {
                "group": name,
                "num_classes": int((group_of_class == index).sum()),
                "support": support,
                "predicted": int((predicted_groups == index).sum()),
                "group_accuracy": _ratio((predicted_groups[inside] == index).sum(), support),
                "class_accuracy": _ratio((predictions[inside] == labels[inside]).sum(), support),
            }
        )
    return table


def calibration(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> dict[str, Any]:
    """Compare the confidence of the predictions, the highest probability, with their accuracy (Guo et al., 2017).

    Args:
        probabilities (`numpy.ndarray` of shape `(N, L)`): Rows in [0, 1] that sum to 1.
        labels (`numpy.ndarray` of shape `(N,)`): True classes in [0, L - 1].
        num_bins (`int`, defaults to 15): Bins of equal width in (0, 1]; a bin contains its upper edge.

    Returns:
        `dict`: `ece` and `mce`, the mean over the clips and the maximum over the bins of |accuracy - confidence| of
        a bin; and `bins`, a list of `num_bins` dictionaries `lower`, `upper`, `count`, `confidence` (mean) and
        `accuracy`, both `None` in an empty bin.

    Raises:
        ValueError: As [`classification_metrics`], rows that are no probabilities, or no bin.
    """
    probabilities, labels = _check_scores(probabilities, labels)
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; expected at least 1.")
    # Half precision rounds a row's sum by up to some thousandths.
    is_wrong = (probabilities < 0).any(axis=1) | (abs(probabilities.sum(axis=1, dtype=np.float64) - 1) > 1e-2)
    if is_wrong.any():
        raise ValueError(
            f"{int(is_wrong.sum())} rows of probabilities are negative or do not sum to 1, the first is clip "
            f"{int(is_wrong.argmax())}; expected the softmax of the logits."
        )
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    bin_of_clip = np.searchsorted(edges[1:-1], confidence, side="left")
    count = np.bincount(bin_of_clip, minlength=num_bins)
    confidence_sum = np.bincount(bin_of_clip, confidence, num_bins)
    hits = np.bincount(bin_of_clip, is_right, num_bins)
    clips_off = abs(hits - confidence_sum)
    filled = count > 0
    bins = [
        {
            "lower": float(edges[b]),
            "upper": float(edges[b + 1]),
            "count": int(count[b]),
            "confidence": _ratio(confidence_sum[b], count[b]),
            "accuracy": _ratio(hits[b], count[b]),
        }
        for b in range(num_bins)
    ]
    return {
        "ece": float(clips_off.sum() / len(labels)),
        "mce": float((clips_off[filled] / count[filled]).max()),
        "bins": bins,
    }


def bootstrap_intervals(
    logits: np.ndarray,
    labels: np.ndarray,
    video_ids: Sequence[str],
    metrics: Iterable[str] | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Percentile intervals of [`classification_metrics`], by drawing videos with replacement.

    Whole videos are drawn because the clips of a video are alike: intervals from single clips would be too narrow.
    They say how the numbers vary with the videos that happen to be tested, not between training runs.
    Means over classes are over those of the draw: rare classes are missing from some draws, which widens and shifts
    the intervals of `mean_class_accuracy` and `macro_f1`.

    Args:
        logits, labels, groups: As for [`classification_metrics`].
        video_ids (`Sequence[str]` of length N): Video of each clip.
        metrics (`Iterable[str]`, *optional*): Names of metrics; by default all.
        num_samples (`int`, defaults to 1000): Draws, each of as many videos as there are.
        confidence (`float`, defaults to 0.95): Probability of the interval, in (0, 1).
        seed (`int`, defaults to 0): Of the draws; they depend on nothing else but the number of videos.

    Returns:
        `dict[str, dict[str, float]]`: For each metric `value` on all clips, `low` and `high`.

    Raises:
        ValueError: As [`classification_metrics`], an unknown metric, fewer than two videos, or values out of range.
    """
    value = classification_metrics(logits, labels, groups)
    logits, labels = np.asarray(logits), np.asarray(labels)
    metrics = list(value if metrics is None else metrics)
    if unknown := [name for name in metrics if name not in value]:
        raise ValueError(f"Unknown metrics {unknown}; expected some of {list(value)}.")
    if num_samples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"num_samples is {num_samples} and confidence {confidence}; expected at least 1, and a share in (0, 1)."
        )
    _check_length("video_ids", video_ids, len(labels))
    videos, video_of_clip = np.unique(np.asarray(video_ids), return_inverse=True)
    if len(videos) < 2:
        raise ValueError(f"All clips are of video {videos[0]}; expected clips of two videos or more to draw from.")
    times_drawn = _draw(len(videos), num_samples, seed)
    samples = _resample(times_drawn, video_of_clip, logits, labels, groups)
    tail = (1 - confidence) / 2
    bounds = {name: np.quantile(samples[name], [tail, 1 - tail]) for name in metrics}
    return {
        name: {"value": value[name], "low": float(bounds[name][0]), "high": float(bounds[name][1])} for name in metrics
    }


def f1_mean(labels: np.ndarray, predictions: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """The official metric of MA-52: the mean of macro and micro F1 of the 52 actions and of the 7 body groups.

    Args:
        labels, predictions (`numpy.ndarray` of shape `(N,)`): Classes in [0, L - 1].
        groups (`Sequence[str]` of length L): Group of each class; a clip's is that of its class.

    Returns:
        `dict[str, float]`: `body_macro_f1`, `body_micro_f1`, `action_macro_f1`, `action_micro_f1`, and `f1_mean` of
        these four. Micro F1 of single-label classification is the accuracy.

    Raises:
        ValueError: No clip, shapes that do not match, or a class out of range or hidden.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or predictions.shape != labels.shape or not len(labels):
        raise ValueError(
            f"Expected labels and predictions (num_clips,) of at least one clip, got {labels.shape} and "
            f"{predictions.shape}."
        )
    _check_classes("Labels", labels, len(groups))
    _check_classes("Predicted classes", predictions, len(groups))
    _, group_of_class = np.unique(np.asarray(groups), return_inverse=True)
    bodies, predicted_bodies = group_of_class[labels], group_of_class[predictions]
    scores = {
        "body_macro_f1": macro_f1(bodies, predicted_bodies),
        "body_micro_f1": float((bodies == predicted_bodies).mean()),
        "action_macro_f1": macro_f1(labels, predictions),
        "action_micro_f1": float((labels == predictions).mean()),
    }
    return {**scores, "f1_mean": float(np.mean(list(scores.values())))}


def compute_metrics(prediction: "EvalPrediction", groups: Sequence[str] | None = None) -> dict[str, float]:
    """Adapt [`classification_metrics`] to Trainer; with groups: `functools.partial(compute_metrics, groups=...)`."""
    return classification_metrics(np.asarray(prediction.predictions), np.asarray(prediction.label_ids), groups)


__all__ = [
    "PREDICTION_METRICS",
    "bootstrap_intervals",
    "calibration",
    "classification_metrics",
    "compute_metrics",
    "confusion_matrix",
    "f1_mean",
    "log_softmax",
    "macro_f1",
    "mean_class_accuracy",
    "per_class_table",
    "per_group_table",
    "top_k_accuracy",
    "weighted_f1",
]
