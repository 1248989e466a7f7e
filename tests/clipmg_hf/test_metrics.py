import numpy as np
import pytest
from sklearn import metrics as reference

from clipmg_hf.metrics import classification_metrics, confusion_matrix, macro_f1, mean_class_accuracy, top_k_accuracy


@pytest.mark.parametrize("seed", range(10))
def test_metrics_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, 9))
    labels = rng.integers(0, 7, size=60)  # classes 7 and 8 never occur
    predictions = logits.argmax(axis=1)
    result = classification_metrics(logits, labels)
    assert result["top1"] == pytest.approx(reference.accuracy_score(labels, predictions))
    assert result["top5"] == pytest.approx(reference.top_k_accuracy_score(labels, logits, k=5, labels=range(9)))
    assert result["macro_f1"] == pytest.approx(reference.f1_score(labels, predictions, average="macro"))
    recalls = reference.recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    assert result["mean_class_accuracy"] == pytest.approx(recalls)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, 9), reference.confusion_matrix(labels, predictions, labels=range(9))
    )


def test_a_tie_does_not_count_as_a_hit():
    assert top_k_accuracy(np.zeros((4, 6)), np.arange(4), k=5) == 0.0


def test_metrics_of_a_hand_made_case():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    assert mean_class_accuracy(labels, predictions) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1(labels, predictions) == pytest.approx((4 / 5 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 4)), np.zeros(2, int), r"got \(3, 4\) and \(2,\)"),
        (np.zeros((0, 4)), np.zeros(0, int), "at least one clip"),
        (np.zeros((2, 4)), np.array([0, 4]), r"must lie in 0\.\.3, got 0\.\.4"),
        (np.zeros((2, 4)), np.array([-1, 0]), r"must lie in 0\.\.3, got -1\.\.0"),
        (np.array([[np.nan, 1.0], [1.0, 0.0]]), np.array([0, 1]), "Scores of 1 clips are not finite"),
    ],
)
def test_bad_input_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(logits, labels)
