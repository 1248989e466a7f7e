import itertools
import math

import numpy as np
import pytest

from clipmg_hf.data.labels import IMIGUE_GROUPS, SMG_GROUPS, SMG_LABELS, known_groups
from clipmg_hf.modeling import IMIGUE_LABELS
from clipmg_hf.timeline import Event, Person, WindowScores
from clipmg_hf.timeline.events import (
    NON_ILLUSTRATIVE_FILTER,
    EventDecoding,
    best_states,
    decode_events,
    score_curves,
    suppress_overlaps,
)


LABELS = ("nod", "rub", "lips", "Illustrative body language")
FPS = 25
# Segmentation alone: nothing smoothed, dropped, merged or cut.
PLAIN = EventDecoding(threshold=0.5, change_cost=0, min_duration=0, merge_gap=0, smoothing=0, nms_iou=1)


def plain(**changes):
    return EventDecoding(**{**vars(PLAIN), **changes})


def window(start, end, scores, person=0, gate=0.5, seconds=None):
    start_seconds, end_seconds = seconds or (start / FPS, end / FPS)
    return WindowScores(start, end, start_seconds, end_seconds, person, np.float32(scores), gate, 1.0)


def frames_as_windows(curves, person=0, gate=0.5):
    """One window for each frame: the score curves are exactly `curves` (N, C)."""
    return [window(frame, frame + 1, scores, person, gate) for frame, scores in enumerate(curves)]


def curves_of(*runs, num_frames=100, low=0.05, num_labels=4):
    """Scores (num_frames, num_labels) of `low`, and of the given height in runs (label, start, end, height)."""
    curves = np.full((num_frames, num_labels), low)
    for label, start, end, height in runs:
        curves[start:end, label] = height
    return curves


def decode(curves, decoding=PLAIN, **options):
    return decode_events(frames_as_windows(curves), LABELS, decoding, **options)


def spans(events):
    return [(event.label, event.start, event.end) for event in events]


def slow_curves(windows):
    """The formula of the module, frame by frame."""
    first, last = min(w.start for w in windows), max(w.end for w in windows)
    scores, gates = [], []
    for frame in range(first, last):
        over = [w for w in windows if w.start <= frame < w.end]
        weights = [math.sin(math.pi * (frame + 0.5 - w.start) / (w.end - w.start)) ** 2 for w in over]
        mean = sum(weight * w.scores.astype(np.float64) for weight, w in zip(weights, over, strict=True))
        scores.append(mean / sum(weights) if over else np.zeros(len(windows[0].scores)))
        gated = [(weight, w.gate) for weight, w in zip(weights, over, strict=True) if w.gate is not None]
        total = sum(weight for weight, _ in gated)
        gates.append(sum(weight * gate for weight, gate in gated) / total if gated else math.nan)
    return np.array(scores), np.array(gates)


@pytest.mark.parametrize("seed", range(12))
def test_score_curves_equal_the_formula(seed):
    rng = np.random.default_rng(seed)
    windows = []
    for _ in range(int(rng.integers(1, 30))):
        start, length = int(rng.integers(0, 150)), int(rng.choice([1, 2, 7, 16, 32]))
        gate = None if rng.random() < 0.2 else float(rng.random())
        windows.append(window(start, start + length, rng.dirichlet(np.ones(5)), gate=gate))
    windows += windows[:2]  # the same frames twice
    seconds, scores, gate = score_curves(windows)
    expected, expected_gate = slow_curves(windows)
    assert scores.dtype == gate.dtype == np.float32 and seconds.dtype == np.float64
    assert seconds.shape == gate.shape == scores.shape[:1]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(gate, expected_gate, atol=1e-6)
    np.testing.assert_allclose(seconds, (np.arange(len(scores)) + min(w.start for w in windows)) / FPS)


def test_curves_of_constant_windows_are_constant_up_to_the_limits():
    windows = [window(start, start + 32, [0.1, 0.6, 0.3]) for start in range(0, 200, 8)]
    _, scores, gate = score_curves(windows, smoothing=0.5)
    np.testing.assert_allclose(scores, np.broadcast_to(np.float32([0.1, 0.6, 0.3]), scores.shape), rtol=1e-5)
    np.testing.assert_allclose(gate, 0.5, rtol=1e-6)


def test_seconds_of_a_variable_frame_rate():
    # 10 frames of 0.1 s, then 10 of 0.3 s.
    times = np.concatenate([np.arange(10) * 0.1, 1 + np.arange(11) * 0.3])
    curves = curves_of((0, 4, 14, 0.9), num_frames=20)
    windows = [
        window(frame, frame + 1, scores, seconds=(times[frame], times[frame + 1]))
        for frame, scores in enumerate(curves)
    ]
    (event,) = decode_events(windows, LABELS, PLAIN)
    assert (event.start, event.end) == (4, 14)
    assert (event.start_seconds, event.end_seconds) == pytest.approx((0.4, 2.2))
    # Between the limits of windows, seconds are interpolated.
    seconds, *_ = score_curves([window(0, 10, [1.0], seconds=(0, 1)), window(10, 20, [1.0], seconds=(1, 4))])
    np.testing.assert_allclose(seconds, times[:-1])
    # 10 frames, but 1.8 seconds.
    assert decode_events(windows, LABELS, plain(min_duration=1.8)) == (event,)
    assert decode_events(windows, LABELS, plain(min_duration=1.81)) == ()


def test_events_of_a_plain_curve():
    curves = curves_of((0, 10, 20, 0.8), (1, 20, 40, 0.7), (0, 60, 100, 0.6))
    events = decode(curves, groups=("head", "hand", "lips", "none"))
    assert spans(events) == [("nod", 10, 20), ("rub", 20, 40), ("nod", 60, 100)]
    first = events[0]
    assert (first.start_seconds, first.end_seconds) == pytest.approx((0.4, 0.8))
    assert (first.label_id, first.group, first.person) == (0, "head", 0)
    assert first.score == pytest.approx(0.8) and first.gate == pytest.approx(0.5)
    assert type(first.start) is type(first.end) is int and type(first.score) is type(first.gate) is float


def test_overlapping_windows_find_a_gesture():
    # A window says "nod" as far as it lies inside [64, 112).
    windows = []
    for start in range(0, 200, 8):
        share = max(min(start + 32, 112) - max(start, 64), 0) / 32
        windows.append(window(start, start + 32, [share, 0.0, 1 - share, 0.0]))
    (event,) = (e for e in decode_events(windows, LABELS, PLAIN) if e.label == "nod")
    assert abs(event.start - 64) <= 4 and abs(event.end - 112) <= 4


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_nobody_has_events_where_they_are_not(smoothing):
    windows = [window(start, start + 20, np.array([0.1, 0.9])) for start in range(0, 80, 5)]
    person = Person(0, 30, 59, 30, (0, 0, 1, 1))
    (event,) = decode_events(windows, ["a", "b"], plain(smoothing=smoothing), people=[person])
    assert (event.start, event.end, event.score) == (30, 60, pytest.approx(0.9, abs=1e-5))
    (event,) = decode_events(windows, ["a", "b"], plain(smoothing=smoothing))
    assert (event.start, event.end) == (0, 95)


def test_threshold_of_each_class():
    curves = curves_of((0, 10, 20, 0.4), (1, 30, 40, 0.4), (2, 50, 60, 0.9))
    assert spans(decode(curves, plain(threshold=0.41))) == [("lips", 50, 60)]
    assert spans(decode(curves, plain(threshold=0.39))) == [("nod", 10, 20), ("rub", 30, 40), ("lips", 50, 60)]
    changed = plain(threshold=0.5, class_thresholds={"rub": 0.3, "lips": 0.95})
    assert spans(decode(curves, changed)) == [("rub", 30, 40)]


def test_one_at_a_time_or_overlapping():
    curves = curves_of((0, 10, 40, 0.45), (1, 20, 60, 0.5))
    assert spans(decode(curves, plain(threshold=0.4))) == [("nod", 10, 20), ("rub", 20, 60)]
    assert spans(decode(curves, plain(threshold=0.4, one_at_a_time=False))) == [("nod", 10, 40), ("rub", 20, 60)]


def test_illustrative_movement_has_no_events_but_takes_its_frames():
    curves = curves_of((3, 10, 40, 0.6), (0, 20, 30, 0.35))
    assert spans(decode(curves, plain(threshold=0.3))) == []
    asked_for = plain(threshold=0.3, ignored_labels=())
    assert spans(decode(curves, asked_for)) == [("Illustrative body language", 10, 40)]
    assert spans(decode(curves, plain(threshold=0.3, one_at_a_time=False))) == [("nod", 20, 30)]
    assert IMIGUE_LABELS[-1] in NON_ILLUSTRATIVE_FILTER and SMG_LABELS[-1] in NON_ILLUSTRATIVE_FILTER


def test_background_never_has_events_but_takes_its_frames():
    labels = ["nod", "rub", "lips", "Background"]
    curves = curves_of((3, 10, 40, 0.6), (0, 20, 30, 0.35))
    for settings in (plain(threshold=0.3), plain(threshold=0.3, ignored_labels=())):
        assert decode_events(frames_as_windows(curves), labels, settings) == ()
    alone = decode_events(frames_as_windows(curves[:, :3]), labels[:3], plain(threshold=0.3))
    assert spans(alone) == [("nod", 20, 30)]
    assert known_groups([*IMIGUE_LABELS, "Background"])[-2:] == ("none", "none")


def test_change_cost_drops_short_runs_and_bridges_short_dips():
    # Gains of 1 and, in the dip, of -1 per second.
    curves = curves_of((0, 10, 13, 0.25 * math.e), (1, 30, 60, 0.25 * math.e))
    curves[44:46, 1] = 0.25 / math.e
    both = plain(threshold=0.25, change_cost=0)
    assert spans(decode(curves, both)) == [("nod", 10, 13), ("rub", 30, 44), ("rub", 46, 60)]
    # In and out of a run of 3 frames costs 2 * 0.07 s > 3 / 25 s; out of one and back again 2 * 0.07 s > 2 / 25 s.
    assert spans(decode(curves, plain(threshold=0.25, change_cost=0.07))) == [("rub", 30, 60)]
    assert spans(decode(curves, plain(threshold=0.25, change_cost=0.05))) == [("nod", 10, 13), ("rub", 30, 60)]
    assert spans(decode(curves, plain(threshold=0.25, change_cost=0.03))) == spans(decode(curves, both))


@pytest.mark.parametrize("seed", range(12))
def test_best_states_equal_the_best_of_all_sequences(seed):
    rng = np.random.default_rng(seed)
    gains, cost = rng.normal(size=(6, 2, 3)), float(rng.uniform(0, 1.5))

    def total(states, chain):
        changes = sum(first != second for first, second in itertools.pairwise(states))
        return sum(gains[step, chain, state] for step, state in enumerate(states)) - cost * changes

    states = best_states(gains, cost)
    for chain in range(2):
        best = max(itertools.product(range(3), repeat=6), key=lambda states: total(states, chain))
        assert states[:, chain].tolist() == list(best)
    assert (best_states(gains, 0.0) == gains.argmax(axis=2)).all()


def test_smoothing_bridges_a_dip_and_keeps_to_covered_frames():
    curves = curves_of((0, 20, 60, 0.9), num_frames=80)
    curves[39:41, 0] = 0.1
    assert spans(decode(curves)) == [("nod", 20, 39), ("nod", 41, 60)]
    assert spans(decode(curves, plain(smoothing=0.4))) == [("nod", 20, 60)]
    # The person is away in 30..60.
    windows = [w for w in frames_as_windows(curves_of((0, 0, 100, 0.8))) if not 30 <= w.start < 60]
    _, scores, gate = score_curves(windows, smoothing=0.4)
    assert (scores[30:60] == 0).all() and np.isnan(gate[30:60]).all()
    np.testing.assert_allclose(np.delete(scores[:, 0], np.s_[30:60]), 0.8, rtol=1e-6)
    assert spans(decode_events(windows, LABELS, plain(smoothing=0.4))) == [("nod", 0, 30), ("nod", 60, 100)]


def test_merging():
    curves = curves_of((0, 10, 20, 0.9), (0, 25, 35, 0.7), (0, 41, 50, 0.9), (1, 20, 25, 0.9))
    assert len(decode(curves)) == 4
    events = decode(curves, plain(merge_gap=0.2))
    assert spans(events) == [("nod", 10, 35), ("rub", 20, 25), ("nod", 41, 50)]
    assert events[0].score == pytest.approx((10 * 0.9 + 5 * 0.05 + 10 * 0.7) / 25)
    assert spans(decode(curves, plain(merge_gap=0.24)))[0] == ("nod", 10, 50)


def test_shortest_and_longest_duration():
    curves = curves_of((0, 10, 15, 0.9), (1, 20, 60, 0.9))
    curves[33, 1] = 0.6
    assert spans(decode(curves, plain(min_duration=0.2))) == [("nod", 10, 15), ("rub", 20, 60)]
    assert spans(decode(curves, plain(min_duration=0.24))) == [("rub", 20, 60)]
    cut = decode(curves, plain(max_duration=1.2, min_duration=0.4))
    assert spans(cut) == [("rub", 20, 33), ("rub", 33, 60)]
    # Where the score is the same everywhere, halves.
    assert spans(decode(curves_of((0, 0, 100, 0.9)), plain(max_duration=1.0))) == [
        ("nod", start, start + 25) for start in (0, 25, 50, 75)
    ]


def event(start, end, score, label_id=0, person=0):
    return Event(start, end, start / FPS, end / FPS, LABELS[label_id], label_id, "", score, person)


def test_suppression_of_overlapping_events():
    events = (event(0, 10, 0.5), event(2, 12, 0.9), event(8, 18, 0.6), event(0, 10, 0.4, 1), event(0, 10, 0.4, 0, 1))
    # The first overlaps the second by 8 / 12, the third by 2 / 18.
    assert suppress_overlaps(events, 0.5) == events[1:]
    assert suppress_overlaps(events, 0.67) == events
    assert suppress_overlaps(events, 0.5, across_classes=True) == (events[1], events[2], events[4])
    assert suppress_overlaps(events, 0.2) == (events[1], events[3], events[4])
    assert suppress_overlaps(events, 1.0, across_classes=True) == events
    assert suppress_overlaps((), 0.5) == ()


def test_decoding_suppresses_across_classes():
    curves = curves_of((0, 10, 40, 0.45), (1, 12, 40, 0.5))
    apart = plain(threshold=0.4, one_at_a_time=False, nms_iou=0.5)
    assert len(decode(curves, apart)) == 2
    assert spans(decode(curves, EventDecoding(**{**vars(apart), "nms_across_classes": True}))) == [("rub", 12, 40)]


def test_people_are_decoded_by_themselves():
    windows = frames_as_windows(curves_of((0, 10, 20, 0.9)), person=3, gate=None)
    windows += frames_as_windows(curves_of((0, 15, 25, 0.9), (1, 10, 15, 0.9)), person=1)
    rng = np.random.default_rng(0)
    events = decode_events([windows[index] for index in rng.permutation(len(windows))], LABELS, PLAIN)
    assert [(e.person, e.label, e.start, e.end) for e in events] == [
        (1, "rub", 10, 15),
        (3, "nod", 10, 20),
        (1, "nod", 15, 25),
    ]
    assert [e.gate for e in events] == [pytest.approx(0.5), None, pytest.approx(0.5)]
    with pytest.raises(ValueError, match=r"people \[1, 3\]; expected those of a single one"):
        score_curves(windows)
    assert decode_events([], LABELS) == ()


def test_body_parts_of_the_classes():
    assert known_groups(IMIGUE_LABELS) == IMIGUE_GROUPS
    assert known_groups(SMG_LABELS) == SMG_GROUPS
    # Of a model with some of the classes, in another order.
    assert known_groups(["Pressing lips", "Turtle neck"]) == ("head", "head")
    assert known_groups(LABELS) is None


def test_the_defaults_find_events_of_imigue():
    curves = curves_of((28, 20, 50, 0.7), (31, 60, 90, 0.9), num_labels=32, low=0.01)
    (found,) = decode_events(frames_as_windows(curves), IMIGUE_LABELS)
    assert (found.label, found.group, found.start, found.end) == ("Pressing lips", "head", 20, 50)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"smoothing": -1}, "smoothing is -1"),
        ({"change_cost": math.nan}, "change_cost is nan"),
        ({"merge_gap": math.inf}, "merge_gap is inf"),
        ({"min_duration": -0.1}, "min_duration is -0.1"),
        ({"threshold": 0}, "threshold is 0; expected a score in"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"class_thresholds": {"nod": 1.5}}, r"class_thresholds\['nod'\] is 1.5"),
        ({"nms_iou": 1.1}, "nms_iou is 1.1"),
        ({"max_duration": 0.5, "min_duration": 0.3}, "max_duration is 0.5 and min_duration is 0.3"),
        ({"max_duration": 0, "min_duration": 0}, "max_duration is 0 "),
        ({"ignored_labels": "nod"}, "ignored_labels is 'nod'"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        EventDecoding(**changes)


@pytest.mark.parametrize(
    "windows, options, message",
    [
        ([window(0, 8, [0.5, 0.5])], {}, r"window \[0, 8\) has scores of shape \(2,\); expected \(4,\)"),
        ([window(8, 8, [0.25] * 4)], {}, r"frames \[8, 8\) and the seconds"),
        ([window(-1, 8, [0.25] * 4)], {}, r"frames \[-1, 8\)"),
        ([window(0, 8, [0.25] * 4, seconds=(1, 1))], {}, r"seconds \[1, 1\)"),
        ([window(0, 8, [0.25] * 4, seconds=(0, math.nan))], {}, r"seconds \[0, nan\)"),
        ([window(0, 8, [math.nan] * 4)], {}, r"window \[0, 8\) has scores outside \[0, 1\]"),
        ([window(0, 8, [-1.5, 3, 0, 0])], {}, r"window \[0, 8\) has scores outside \[0, 1\]"),
        ([], {"groups": ("head",)}, "groups has 1 entries; expected 4"),
        ([], {"decoding": EventDecoding(class_thresholds={"nodd": 0.5})}, "class_thresholds has 'nodd'; .* nod, rub"),
    ],
)
def test_bad_windows(windows, options, message):
    with pytest.raises(ValueError, match=message):
        decode_events(windows, LABELS, **options)
