import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from clipmg_hf.metrics import (
    bootstrap_intervals,
    calibration,
    classification_metrics,
    confusion_matrix,
    f1_mean,
    log_softmax,
    macro_f1,
    mean_class_accuracy,
    per_class_table,
    per_group_table,
    top_k_accuracy,
    weighted_f1,
)


GROUPS = ("head", "head", "hand", "body", "hand", "none", "body", "head", "leg")


def make_case(seed: int, num_clips: int = 60, num_labels: int = 9, num_occurring: int = 7, ties: bool = False):
    """Scores, labels of only some classes, and videos of unequal length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_occurring, size=num_clips)
    logits = rng.normal(size=(num_clips, num_labels)) + np.eye(num_labels)[labels] * rng.uniform(0, 3)
    videos = rng.integers(0, 12, size=num_clips) ** 2
    return (logits.round() if ties else logits), labels, [f"video {v}" for v in videos]


CASES = {
    **{f"seed {seed}": {"seed": seed} for seed in range(30)},
    **{f"ties {seed}": {"seed": seed, "ties": True} for seed in range(10)},
    "one class occurs": {"seed": 1, "num_occurring": 1},
    "one class": {"seed": 2, "num_labels": 1, "num_occurring": 1},
    "two classes": {"seed": 3, "num_labels": 2, "num_occurring": 2},
    "one clip": {"seed": 4, "num_clips": 1},
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return make_case(**request.param)


def test_metrics_equal_scikit_learn(case):
    logits, labels, _ = case
    num_labels = logits.shape[1]
    predictions = logits.argmax(axis=1)
    result = classification_metrics(logits, labels)
    assert list(result) == ["top1", "top5", "mean_class_accuracy", "macro_f1", "weighted_f1", "nll"]
    assert all(type(value) is float for value in result.values())
    assert result["top1"] == pytest.approx(reference.accuracy_score(labels, predictions))
    recall = reference.recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    assert result["mean_class_accuracy"] == mean_class_accuracy(labels, predictions) == pytest.approx(recall)
    macro = reference.f1_score(labels, predictions, average="macro")
    assert result["macro_f1"] == macro_f1(labels, predictions) == pytest.approx(macro)
    weighted = reference.f1_score(labels, predictions, average="weighted")
    assert result["weighted_f1"] == weighted_f1(labels, predictions) == pytest.approx(weighted)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # scikit-learn knows no likelihood of a single class: it is 1.
    nll = reference.log_loss(labels, probabilities, labels=range(num_labels)) if num_labels > 1 else 0
    assert result["nll"] == pytest.approx(nll)
    # Of equal scores scikit-learn ranks the last classes first.
    expected = (
        reference.top_k_accuracy_score(num_labels - 1 - labels, logits[:, ::-1], k=5, labels=range(num_labels))
        if num_labels > 5
        else 1
    )
    assert result["top5"] == pytest.approx(expected)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, num_labels),
        reference.confusion_matrix(labels, predictions, labels=range(num_labels)),
    )


def test_equal_scores_rank_in_the_order_of_the_classes():
    equal = np.zeros((6, 6))
    assert [top_k_accuracy(equal, np.arange(6), k) for k in range(1, 7)] == pytest.approx(np.arange(1, 7) / 6)
    assert top_k_accuracy(np.array([[1.0, 2.0, 1.0, 1.0]] * 4), np.arange(4), 2) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_top1_is_the_top_k_of_one_also_of_rounded_scores(seed):
    logits, labels, _ = make_case(seed, num_clips=2000)
    rounded = torch.tensor(logits).bfloat16().float().numpy()
    assert (rounded == rounded.max(axis=1, keepdims=True)).sum() > len(labels)
    result = classification_metrics(rounded, labels)
    assert top_k_accuracy(rounded, labels, 1) == result["top1"] == (rounded.argmax(axis=1) == labels).mean()
    assert result["top1"] <= result["top5"]


def test_metrics_of_a_hand_made_case():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    assert mean_class_accuracy(labels, predictions) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1(labels, predictions) == pytest.approx((4 / 5 + 1 + 0) / 3)
    assert weighted_f1(labels, predictions) == pytest.approx((3 * 4 / 5 + 1) / 4)


def test_log_softmax_of_large_logits_is_finite():
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[0, -1e4], [-np.log(2)] * 2])


def test_per_class_table_equals_scikit_learn(case):
    logits, labels, _ = case
    num_labels = logits.shape[1]
    table = per_class_table(logits, labels, [f"class {c}" for c in range(num_labels)])
    columns = {name: [row[name] for row in table] for name in table[0]}
    assert columns["class"] == [f"class {c}" for c in range(num_labels)]
    predictions = logits.argmax(axis=1)
    expected = reference.precision_recall_fscore_support(
        labels, predictions, labels=range(num_labels), zero_division=np.nan
    )
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(np.array(columns[name], float), values, err_msg=name)
    assert columns["predicted"] == np.bincount(predictions, minlength=num_labels).tolist()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for c, value in enumerate(columns["mean_true_probability"]):
        assert (value is None) == (c not in labels)
        assert value is None or value == pytest.approx(probabilities[labels == c, c].mean())


@pytest.mark.parametrize("seed", range(10))
def test_group_results_are_those_of_the_collapsed_labels(seed):
    logits, labels, _ = make_case(seed)
    predictions = logits.argmax(axis=1)
    true_groups, predicted_groups = ([GROUPS[c] for c in classes] for classes in (labels, predictions))
    table = {row["group"]: row for row in per_group_table(logits, labels, GROUPS)}
    assert list(table) == ["head", "hand", "body", "none", "leg"]
    recall = reference.recall_score(true_groups, predicted_groups, labels=list(table), average=None, zero_division=0)
    for (group, row), value in zip(table.items(), recall, strict=True):
        inside = np.array(true_groups) == group
        assert row["support"] == inside.sum() and row["predicted"] == predicted_groups.count(group)
        assert row["num_classes"] == GROUPS.count(group)
        assert (row["group_accuracy"] or 0) == pytest.approx(value)
        if inside.any():
            expected = reference.accuracy_score(labels[inside], predictions[inside])
            assert row["class_accuracy"] == pytest.approx(expected)
    assert table["leg"]["group_accuracy"] is None and table["leg"]["class_accuracy"] is None
    accuracy = reference.accuracy_score(true_groups, predicted_groups)
    assert classification_metrics(logits, labels, GROUPS)["group_accuracy"] == pytest.approx(accuracy)


def slow_calibration(probabilities, labels, num_bins):
    """(count, mean confidence, accuracy) of each bin, clip by clip."""
    table = []
    for b in range(num_bins):
        clips = [
            (max(row), np.argmax(row) == label)
            for row, label in zip(probabilities.tolist(), labels, strict=True)
            if b / num_bins < max(row) <= (b + 1) / num_bins
        ]
        table.append((len(clips), *np.mean(clips, axis=0)) if clips else (0, None, None))
    return table


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(5))
def test_calibration_equals_a_slow_reference(seed, num_bins):
    logits, labels, _ = make_case(seed, num_clips=200)
    probabilities = np.exp(log_softmax(logits * 2))
    result = calibration(probabilities, labels, num_bins)
    expected = slow_calibration(probabilities, labels, num_bins)
    for row, values in zip(result["bins"], expected, strict=True):
        assert (row["count"], row["confidence"], row["accuracy"]) == pytest.approx(values)
    gaps = [(count, abs(accuracy - confidence)) for count, confidence, accuracy in expected if count]
    assert result["ece"] == pytest.approx(sum(count * gap for count, gap in gaps) / 200)
    assert result["mce"] == pytest.approx(max(gap for _, gap in gaps))


def test_calibration_of_a_hand_made_case():
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.25, 0.75]])
    result = calibration(probabilities, np.array([0, 0, 1, 0]), num_bins=4)
    # A bin holds its upper edge: 0.5 is in the second, 0.75 in the third, 1.0 in the last.
    assert [row["count"] for row in result["bins"]] == [0, 1, 2, 1]
    assert result["ece"] == pytest.approx((0.5 + 2 * 0.25 + 0) / 4)
    assert result["mce"] == 0.5


@pytest.mark.parametrize("row", [[0.5, 0.6], [-0.5, 1.5], [3.0, 1.0]])
def test_calibration_refuses_logits(row):
    with pytest.raises(ValueError, match=r"1 rows of probabilities .* the first is clip 1; expected the softmax"):
        calibration(np.array([[0.5, 0.5], row]), np.array([0, 1]))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_bootstrap_equals_a_loop_over_resampled_videos(seed, ties):
    logits, labels, videos = make_case(seed, num_occurring=4, ties=ties)
    result = bootstrap_intervals(logits, labels, videos, num_samples=80, confidence=0.9, seed=seed, groups=GROUPS)
    names = sorted(set(videos))
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(80):
        drawn = [names[i] for i in rng.integers(len(names), size=len(names))]
        clips = [i for name in drawn for i in range(len(videos)) if videos[i] == name]
        samples.append(classification_metrics(logits[clips], labels[clips], GROUPS))
    assert set(result) == {*classification_metrics(logits, labels), "group_accuracy"}
    for name, interval in result.items():
        low, high = np.percentile([sample[name] for sample in samples], [5, 95])
        assert interval["value"] == classification_metrics(logits, labels, GROUPS)[name]
        assert (interval["low"], interval["high"]) == pytest.approx((low, high)), name


def test_bootstrap_draws_videos_and_not_clips():
    # Two videos, one all right and one all wrong: a draw gets 0, half, or all of the clips right.
    labels = np.repeat([0, 1], 500)
    result = bootstrap_intervals(np.tile([1.0, 0.0], (1000, 1)), labels, ["a"] * 500 + ["b"] * 500, ["top1"])
    assert result == {"top1": {"value": 0.5, "low": 0.0, "high": 1.0}}


def test_bootstrap_is_deterministic_and_does_not_depend_on_the_order_of_clips():
    logits, labels, videos = make_case(0)
    order = np.random.default_rng(1).permutation(len(labels))
    first = bootstrap_intervals(logits, labels, videos, num_samples=50)
    shuffled = bootstrap_intervals(logits[order], labels[order], [videos[i] for i in order], num_samples=50)
    for name, interval in first.items():
        assert shuffled[name] == pytest.approx(interval)
    assert first != bootstrap_intervals(logits, labels, videos, num_samples=50, seed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_ids": ["a"] * 60}, "All clips are of video a; expected clips of two videos"),
        ({"video_ids": ["a", "b"]}, "video_ids has 2 entries; expected 60"),
        ({"metrics": ["top1", "top2"]}, r"Unknown metrics \['top2'\]; expected some of \['top1'"),
        ({"metrics": ["group_accuracy"]}, "Unknown metrics"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"confidence": 95}, "confidence 95; expected"),
        ({"groups": ["head"]}, "groups has 1 entries; expected 9"),
    ],
)
def test_bad_options_of_bootstrap_are_named(options, message):
    logits, labels, videos = make_case(0)
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(logits, labels, **{"video_ids": videos, **options})


@pytest.mark.parametrize("seed", range(10))
def test_f1_mean_equals_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, 9, size=(2, 50))
    bodies = np.array(GROUPS)[actions]
    result = f1_mean(*actions, GROUPS)
    expected = {
        f"{kind}_{average}_f1": reference.f1_score(*arrays, average=average)
        for kind, arrays in (("body", bodies), ("action", actions))
        for average in ("macro", "micro")
    }
    assert result == pytest.approx({**expected, "f1_mean": np.mean(list(expected.values()))})


def test_f1_mean_refuses_hidden_labels_and_other_shapes():
    with pytest.raises(ValueError, match=r"Labels must lie in 0\.\.1, got -1\.\.1\. 1 of 3 clips have no class"):
        f1_mean([0, -1, 1], [0, 1, 1], ["a", "b"])
    with pytest.raises(ValueError, match=r"Predicted classes must lie in 0\.\.1, got 0\.\.2\.$"):
        f1_mean([0, 1], [0, 2], ["a", "b"])
    with pytest.raises(ValueError, match=r"of at least one clip, got \(2,\) and \(1,\)"):
        f1_mean([0, 1], [0], ["a", "b"])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 4)), np.zeros(2, int), r"got \(3, 4\) and \(2,\)"),
        (np.zeros((0, 4)), np.zeros(0, int), "at least one clip"),
        (np.zeros((2, 4)), np.array([0, 4]), r"must lie in 0\.\.3, got 0\.\.4\.$"),
        (np.zeros((2, 4)), np.array([-1, 0]), r"must lie in 0\.\.3, got -1\.\.0\. 1 of 2 clips have no class"),
        (np.zeros((2, 4)), np.array([0.0, 1.0]), "Labels are float64; expected integers"),
        (np.array([[np.nan, 1.0], [1.0, 0.0]]), np.array([0, 1]), "Scores of 1 clips are not finite"),
    ],
)
def test_bad_input_is_named(logits, labels, message):
    names = [str(c) for c in range(logits.shape[1])]
    for measure in (
        classification_metrics,
        lambda *scores: per_class_table(*scores, names),
        lambda *scores: per_group_table(*scores, names),
        lambda *scores: bootstrap_intervals(*scores, ["a", "b"]),
        calibration,
    ):
        with pytest.raises(ValueError, match=message):
            measure(logits, labels)


def test_tables_refuse_another_number_of_names():
    logits, labels, _ = make_case(0)
    for measure in (per_class_table, per_group_table):
        with pytest.raises(ValueError, match=r"has 2 entries; expected 9\."):
            measure(logits, labels, ["a", "b"])


def test_the_module_imports_nothing_but_numpy():
    code = """
import runpy, sys
runpy.run_path(sys.argv[1])
print([name for name in ("transformers", "torch", "datasets", "clipmg_hf", "sklearn") if name in sys.modules])
"""
    path = sys.modules["clipmg_hf.metrics"].__file__
    output = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
