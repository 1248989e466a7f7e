"""Who is the subject: every rule on hand-made scenes, and notes on what went wrong."""

import tracemalloc

import numpy as np
import pytest

from clipmg_hf.pose.subjects import (
    NoPersonError,
    check_subject_rule,
    choose_subjects,
    describe,
    find_absences,
    find_encounters,
    find_jumps,
    frame_scores,
    from_sequence,
    parse_subject_rule,
    subject_notes,
    to_sequence,
)
from clipmg_hf.pose.tracking import BLOCK, Track
from clipmg_hf.timeline import Person


K, WIDTH, HEIGHT, N = 8, 640, 360, 200


def make_person(left, top, width, height):
    """(8, 3): points on the rim of a box."""
    x = left + width * np.array([0, 0.5, 1, 1, 1, 0.5, 0, 0])
    y = top + height * np.array([0, 0, 0, 0.5, 1, 1, 1, 0.5])
    return np.column_stack([x, y, np.full(K, 0.9)]).astype(np.float32)


def make_track(number, first, last, box):
    frames = np.arange(first, last + 1)
    return Track(number, frames, np.repeat(make_person(*box)[None], len(frames), axis=0))


# left, top, width, height
SEATED = make_track(0, 0, 199, (40, 100, 120, 200))
CENTRAL = make_track(1, 0, 179, (290, 140, 60, 90))
PASSER_BY = make_track(2, 90, 109, (200, 5, 250, 350))
FLICKER = make_track(3, 30, 32, (600, 10, 20, 30))
EVERYBODY = [SEATED, CENTRAL, PASSER_BY, FLICKER]


def choose(rule, tracks=EVERYBODY, **keywords):
    return choose_subjects(tracks, rule, WIDTH, HEIGHT, N, **keywords)


def test_each_rule_chooses_its_person():
    chosen = {
        "largest": SEATED,
        "most_central": CENTRAL,
        "longest": SEATED,
        0: SEATED,
        1: CENTRAL,
        (280, 120, 360, 240): CENTRAL,
        (0.0, 0.0, 200.0, 360.0): SEATED,
        (590, 0, 640, 50): FLICKER,
    }
    for rule, expected in chosen.items():
        (subject,) = choose(rule)
        assert subject.keypoints is expected.keypoints, rule
        assert subject.number == 0
    assert [subject.keypoints for subject in choose("longest", [FLICKER, CENTRAL])] == [CENTRAL.keypoints]


def test_all_is_in_a_stable_order_without_those_seen_too_briefly():
    right_first = make_track(7, 0, 150, (500, 100, 50, 90))
    tracks = [FLICKER, PASSER_BY, right_first, CENTRAL, SEATED]
    expected = [SEATED, CENTRAL, right_first]
    for order in (tracks, tracks[::-1]):
        chosen = choose("all", order)
        assert [subject.number for subject in chosen] == [0, 1, 2]
        assert all(one.keypoints is other.keypoints for one, other in zip(chosen, expected, strict=True))
        assert choose(2, order)[0].keypoints is right_first.keypoints
    assert len(choose("all", min_frames=1)) == 4
    assert len(choose("all", min_frames=20)) == 3
    # Half of a video that is too short for min_frames.
    short = choose_subjects([make_track(0, 0, 4, (0, 0, 9, 9)), make_track(1, 2, 5, (90, 0, 9, 9))], "all", 99, 99, 9)
    assert [len(subject) for subject in short] == [5]


def test_values_of_a_frame():
    people = np.stack([make_person(0, 0, 10, 20), make_person(0, 0, WIDTH - 1, HEIGHT - 1)])
    scores = {rule: frame_scores(people, rule, WIDTH, HEIGHT) for rule in ("largest", "most_central", "longest")}
    np.testing.assert_allclose(scores["largest"], [200, 639 * 359])
    np.testing.assert_allclose(scores["most_central"][1], 1)
    assert 0 < scores["most_central"][0] < 0.1
    np.testing.assert_array_equal(scores["longest"], [1, 1])
    np.testing.assert_allclose(frame_scores(people[:1], (5, 0, 15, 20), WIDTH, HEIGHT), [1 / 3])


def test_nobody_is_an_error_that_names_the_video():
    with pytest.raises(NoPersonError, match=r"talk\.mp4: no person was found in 200 frames\. .* RGB alone"):
        choose("largest", [], video="talk.mp4")
    with pytest.raises(NoPersonError, match=r"talk\.mp4: nobody is in at least 25 of 200 frames \(the most is 3\)"):
        choose("all", [FLICKER], video="talk.mp4")
    with pytest.raises(
        NoPersonError, match=r"the video: nobody is in the box \(500, 300, 600, 350\) of the 640 x 360"
    ):
        choose((500, 300, 600, 350))
    with pytest.raises(ValueError, match="index is 2; expected 0 to 1, as 2 people are in at least 25 frames"):
        choose(2)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("largest", "largest"),
        (" most_central ", "most_central"),
        ("longest", "longest"),
        ("all", "all"),
        ("index:0", 0),
        ("index: 12", 12),
        ("box:10,20,300,400", (10, 20, 300, 400)),
        ("box:-1.5, 2, 3, 4e1", (-1.5, 2, 3, 40)),
    ],
)
def test_rules_of_the_command_line(text, rule):
    assert parse_subject_rule(text) == rule == check_subject_rule(rule)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("biggest", "Subject 'biggest': expected largest, most_central, longest, all, index:NUMBER or box:"),
        ("", "Subject '': expected"),
        ("largest:1", "Subject 'largest:1': expected"),
        ("index", "Subject 'index': invalid literal"),
        ("index:-1", "Subject 'index:-1': the index is -1, not an integer from 0; expected"),
        ("index:1.5", "invalid literal"),
        ("box:1,2,3", "Subject 'box:1,2,3': not enough values"),
        ("box:1,2,3,4,5", "too many values"),
        ("box:1,2,x,4", "could not convert string to float"),
        ("box:1,2,nan,4", "not four finite numbers"),
        ("box:300,20,10,400", "whose right or bottom is not above its left or top"),
    ],
)
def test_wrong_rules_of_the_command_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_subject_rule(text)


@pytest.mark.parametrize("rule", ["Largest", "index:1", -1, True, 1.5, (1, 2, 3), None])
def test_wrong_rules(rule):
    with pytest.raises(ValueError, match=r"the (rule|index|box) is"):
        choose(rule)


def test_sequences_and_back():
    track = Track(3, np.array([2, 3, 6]), np.stack([make_person(x, 0, 10, 20) for x in (1, 2, 3)]))
    sequence = to_sequence(track, 8)
    assert sequence.shape == (8, K, 3) and sequence.dtype == np.float32
    np.testing.assert_array_equal(sequence[[2, 3, 6]], track.keypoints)
    assert not sequence[[0, 1, 4, 5, 7]].any()
    back = from_sequence(sequence, 3)
    np.testing.assert_array_equal(back.frames, track.frames)
    np.testing.assert_array_equal(back.keypoints, track.keypoints)
    assert from_sequence(np.zeros((4, K, 3))) is None
    with pytest.raises(ValueError, match="Person 3 is in frame 6; expected frames 0 to 5"):
        to_sequence(track, 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_track_of_a_memory_map_copies_nothing(tmp_path, dtype):
    """More frames than are computed together, with absences; a copy would take 1.7 MB."""
    sequence = np.repeat(make_person(40, 100, 120, 200)[None].astype(dtype), 20 * BLOCK + 7, axis=0)
    sequence[:, :, 0] += np.arange(len(sequence))[:, None] % 5
    sequence[::9] = 0
    np.save(tmp_path / "points.npy", sequence)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    tracemalloc.start()
    track = from_sequence(mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6
    frames = np.flatnonzero(np.arange(len(sequence)) % 9)
    copied = Track(0, frames, sequence[frames].astype(np.float32))
    np.testing.assert_array_equal(track.frames, frames)
    np.testing.assert_array_equal(track.keypoints, copied.keypoints)
    assert track.keypoints.shape == copied.keypoints.shape and track.keypoints[5:9].dtype == np.float32
    assert describe(track) == describe(copied) and find_jumps(track) == find_jumps(copied)
    np.testing.assert_array_equal(to_sequence(track, len(sequence)), sequence)


def test_description_of_a_person():
    boxes = [(0, 10, 20, 30), (2, 10, 20, 30), (300, 200, 20, 30)]
    track = Track(4, np.array([5, 6, 9]), np.stack([make_person(*box) for box in boxes]))
    assert describe(track) == Person(4, first=5, last=9, num_frames=3, box=(2.0, 10.0, 22.0, 40.0))


def test_a_jump_to_another_person_is_found():
    keypoints = np.concatenate([SEATED.keypoints[:50], SEATED.keypoints[:50]])
    keypoints[50:, :, 0] += 121
    assert find_jumps(Track(0, np.arange(100), keypoints)) == [50]
    keypoints[50:, :, 0] -= 2
    assert find_jumps(Track(0, np.arange(100), keypoints)) == []
    # After an absence a person may be elsewhere.
    keypoints[50:, :, 0] += 200
    assert find_jumps(Track(0, np.r_[0:50, 51:101], keypoints)) == []
    assert find_jumps(Track(0, np.arange(100), keypoints)) == [50]
    # Too few common points say nothing.
    keypoints[:50, ::2], keypoints[50:, 1:6] = 0, 0
    assert find_jumps(Track(0, np.arange(100), keypoints)) == []


def test_long_encounters_are_found():
    box = (40, 100, 120, 200)
    person, other = make_track(0, 0, 2 * BLOCK + 400, box), make_track(1, BLOCK - 100, 2 * BLOCK + 99, box)
    assert find_encounters(person, [person, other]) == [(BLOCK - 100, 2 * BLOCK + 100)]


def test_missing_points_are_no_jump():
    generator = np.random.default_rng(0)
    keypoints = SEATED.keypoints.copy()
    keypoints[generator.random(keypoints.shape[:2]) < 0.5] = 0
    assert find_jumps(from_sequence(keypoints)) == []
    assert find_jumps(Track(0, np.array([4]), SEATED.keypoints[:1])) == []


def test_absences_are_found():
    frames = np.r_[30:60, 61:100, 125:180]
    track = Track(0, frames, np.repeat(SEATED.keypoints[:1], len(frames), axis=0))
    assert find_absences(track, N) == [(0, 30), (100, 125)]
    assert find_absences(track, 205) == [(0, 30), (100, 125), (180, 205)]
    assert find_absences(track, 180, min_frames=1) == [(0, 30), (60, 61), (100, 125)]
    assert find_absences(SEATED, N) == []


def test_encounters_are_found():
    way = np.abs(np.arange(N) - 100.0)
    walking = CENTRAL.keypoints[:1].repeat(N, axis=0)
    walking[..., 0] += way[:, None]
    other = Track(5, np.arange(N), walking)
    ((start, end),) = find_encounters(CENTRAL, [SEATED, CENTRAL, other])
    near = 0.25 * np.hypot(60, 90)
    assert (start, end) == (int(np.ceil(100 - near)), int(np.floor(100 + near)) + 1)
    assert find_encounters(SEATED, [SEATED, CENTRAL, other]) == []


def test_notes_name_frames_and_times():
    frames = np.r_[0:50, 100:N]
    keypoints = np.repeat(SEATED.keypoints[:1], len(frames), axis=0)
    keypoints[-10:, :, 0] += 300
    subject = Track(0, frames, keypoints)
    seconds = np.arange(N) / 25
    visitor = make_track(6, 110, 119, (40, 100, 120, 200))
    assert subject_notes(SEATED, [SEATED], N, seconds) == []
    assert subject_notes(subject, [subject, visitor], N, seconds) == [
        "Person 0 jumps by more than a body's width, perhaps to another person: frame 190 (00:00:07.600).",
        "Person 0 is not seen for 25 frames or more: frames 50-99 (00:00:02.000 to 00:00:03.960).",
        "Person 0 and somebody else are in the same place and may be mixed up: "
        "frames 110-119 (00:00:04.400 to 00:00:04.760).",
    ]
    restless = Track(0, np.arange(N), np.repeat(SEATED.keypoints[:1], N, axis=0))
    restless.keypoints[::2, :, 0] += 300
    (note,) = subject_notes(restless, [restless], N, seconds)
    assert note.endswith("frame 10 (00:00:00.400), and 189 more.")
