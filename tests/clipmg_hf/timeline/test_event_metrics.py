import itertools

import numpy as np
import pytest

from clipmg_hf.timeline import Event
from clipmg_hf.timeline.event_metrics import (
    IOU_THRESHOLDS,
    EventScores,
    TrueEvent,
    evaluate_events,
    interval_iou,
    match_events,
)


def spans(*rows):
    return [TrueEvent(label, start, end) for label, start, end in rows]


def f1(predicted, true, threshold=0.3):
    return evaluate_events({"v": spans(*predicted)}, {"v": spans(*true)}, (threshold,)).by_threshold[threshold].f1


def most_pairs(fits):
    """Size of a maximum matching, by trying every assignment of rows to columns."""
    short, long = sorted(fits.shape)
    fits = fits if len(fits) == short else fits.T
    return max(
        sum(fits[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(long), short)
    )


def test_hand_made_case():
    true = spans(("nod", 0, 10), ("nod", 20, 30), ("rub", 40, 50), ("rub", 60, 70))
    predicted = spans(
        ("nod", 0, 9),  # IoU 0.9 with the first
        ("nod", 2, 10),  # 0.8 with the first, which is taken
        ("nod", 41, 49),  # another class
        ("rub", 65, 75),  # 1/3 with the last
    )
    result = evaluate_events({"v": predicted}, {"v": true}, (0.3, 0.5))
    assert result.by_threshold == {0.3: EventScores(2, 4, 4), 0.5: EventScores(1, 4, 4)}
    assert result.by_class[0.3] == {"nod": EventScores(1, 3, 2), "rub": EventScores(1, 1, 2)}
    assert result.by_class[0.5] == {"nod": EventScores(1, 3, 2), "rub": EventScores(0, 1, 2)}
    assert result.miga_f1 == 0.5
    assert result.mean_f1 == pytest.approx((0.5 + 0.25) / 2)
    nod = result.by_class[0.3]["nod"]
    assert (nod.precision, nod.recall, nod.f1) == (1 / 3, 0.5, 0.4)


def test_pooled_is_neither_the_mean_of_videos_nor_matched_across_them():
    true = {"a": spans(("nod", 0, 10)), "b": spans(*(("nod", 20 * k, 20 * k + 10) for k in range(3))), "c": []}
    predicted = {"a": spans(("nod", 0, 10)), "b": [], "c": spans(("nod", 20, 30))}
    assert evaluate_events(predicted, true, (0.3,)).by_threshold[0.3] == EventScores(1, 2, 4)


def test_an_iou_equal_to_the_threshold_does_not_fit():
    # 3 common frames of 10.
    assert f1([("nod", 0, 3)], [("nod", 0, 10)]) == 0
    assert f1([("nod", 0, 4)], [("nod", 0, 10)]) == 1
    for threshold in IOU_THRESHOLDS:
        tenths = round(10 * threshold)
        assert f1([("nod", 5, 5 + tenths)], [("nod", 5, 15)], threshold) == 0
        assert f1([("nod", 50, 51 + 10 * tenths)], [("nod", 50, 150)], threshold) == 1


def test_inclusive_frames_of_a_label_file():
    first_to_last = TrueEvent.from_inclusive("nod", 4, 6)
    assert first_to_last == TrueEvent("nod", 4, 7)
    assert TrueEvent.from_inclusive("nod", 4, 4).end == 5
    iou = interval_iou(np.array([[4.0, 7.0]]), np.array([[6.0, 9.0], [7.0, 9.0], [4.0, 7.0]]))
    assert iou.tolist() == [[1 / 5, 0, 1]]


def test_greedy_pairing_would_lose_a_pair():
    # The better prediction fits both true events; pairing it with the first leaves the other prediction alone.
    true = [("nod", 0, 10), ("nod", 10, 20)]
    assert f1([("nod", 5, 15), ("nod", 0, 8)], true) == 1
    assert f1([("nod", 0, 8), ("nod", 5, 15)], true) == 1


@pytest.mark.parametrize("seed", range(60))
def test_matching_is_a_maximum(seed):
    rng = np.random.default_rng(seed)
    intervals = []
    for count in rng.integers(1, 7, 2):
        start = rng.integers(0, 25, count)
        intervals.append(np.stack([start, start + rng.integers(1, 15, count)], 1).astype(float))
    iou = interval_iou(*intervals)
    for row, (start, end) in enumerate(intervals[0].astype(int)):
        for column, (true_start, true_end) in enumerate(intervals[1].astype(int)):
            frames, true_frames = set(range(start, end)), set(range(true_start, true_end))
            assert iou[row, column] == len(frames & true_frames) / len(frames | true_frames)
    for threshold in (0.0, 0.1, 0.3, 0.6):
        columns = match_events(iou, threshold)
        pairs = [(row, column) for row, column in enumerate(columns) if column >= 0]
        assert len({column for _, column in pairs}) == len(pairs) == most_pairs(iou > threshold)
        assert all(iou[pair] > threshold for pair in pairs)


@pytest.mark.parametrize("seed", range(10))
def test_random_videos_equal_a_slow_reference(seed):
    rng = np.random.default_rng(seed)

    def draw():
        starts, lengths = rng.integers(0, 60, 9), rng.integers(4, 20, 9)
        labels = rng.choice(["nod", "rub", "lips"], 9).tolist()
        return spans(*zip(labels, starts.tolist(), (starts + lengths).tolist(), strict=True))

    predicted, true = ({video: draw() for video in "ab"} for _ in range(2))
    result = evaluate_events(predicted, true)
    matched = dict.fromkeys(IOU_THRESHOLDS, 0)
    for video, label in itertools.product("ab", ("nod", "rub", "lips")):
        rows, columns = (
            np.array([(e.start, e.end) for e in events[video] if e.label == label], dtype=float).reshape(-1, 2)
            for events in (predicted, true)
        )
        for threshold in IOU_THRESHOLDS if len(rows) and len(columns) else ():
            matched[threshold] += most_pairs(interval_iou(rows, columns) > threshold)
    assert {threshold: scores.num_matched for threshold, scores in result.by_threshold.items()} == matched
    f1_values = [2 * number / 36 for number in matched.values()]
    assert result.mean_f1 == pytest.approx(np.mean(f1_values))
    for threshold in IOU_THRESHOLDS:
        assert sum(scores.num_matched for scores in result.by_class[threshold].values()) == matched[threshold]


def test_ignored_labels_count_on_neither_side():
    result = evaluate_events(
        {"v": spans(("nod", 0, 10), ("talk", 0, 10))}, {"v": spans(("talk", 30, 40))}, (0.3,), ignored_labels=("talk",)
    )
    assert result.by_threshold[0.3] == EventScores(0, 1, 0)
    assert list(result.by_class[0.3]) == ["nod"]
    scores = result.by_threshold[0.3]
    assert (scores.precision, scores.recall, scores.f1) == (0, None, 0)


def test_no_events():
    empty = evaluate_events({"v": []}, {"v": []})
    assert set(empty.by_threshold.values()) == {EventScores(0, 0, 0)}
    assert empty.miga_f1 is None and empty.mean_f1 is None
    assert empty.by_class == {threshold: {} for threshold in IOU_THRESHOLDS}
    assert evaluate_events({}, {}).miga_f1 is None
    assert evaluate_events({"v": []}, {"v": spans(("nod", 0, 2))}).miga_f1 == 0
    assert evaluate_events({"v": []}, {"v": []}, (0.5,)).miga_f1 is None


def test_takes_decoded_events():
    event = Event(5, 15, 0.2, 0.6, "nod", 0, "head", 0.9)
    assert evaluate_events({("v", 0): [event]}, {("v", 0): spans(("nod", 5, 14))}).miga_f1 == 1


@pytest.mark.parametrize("start, end", [(5, 5), (6, 5), (float("nan"), 5), (0, float("inf"))])
def test_bad_intervals(start, end):
    with pytest.raises(ValueError, match=r"true events of v: 'nod' spans .* expected a start before the end"):
        evaluate_events({"v": []}, {"v": spans(("nod", start, end))})


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"2 videos are in one of predicted and true alone, the first 'a'"):
        evaluate_events({"a": [], "c": []}, {"b": [], "c": []})
    for threshold in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"IoU threshold is .*; expected it in \[0, 1\)"):
            evaluate_events({}, {}, (threshold,))
