"""Numbers of people: hand-made scenes, synthetic people whose tracks must stay pure, and a slow reference."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from clipmg_hf.data.synthetic import SyntheticConfig, generate_video
from clipmg_hf.pose import tracking
from clipmg_hf.pose.tracking import PersonTracker, keypoint_distances, person_boxes, track_people
from clipmg_hf.processing import read_openpose


REALDATA = Path(os.environ.get("CLIPMG_REALDATA", Path(__file__).parents[4] / "shared" / "realdata")) / "openpose"
K = 12


def make_person(x, y=0.0, size=100.0, confidence=0.8):
    """(12, 3): points on an ellipse in a box of `size / 2` by `size` pixels whose left top is (x, y)."""
    angles = np.linspace(0, 2 * np.pi, K, endpoint=False)
    points = np.stack([x + size / 4 * (1 + np.cos(angles)), y + size / 2 * (1 + np.sin(angles))], axis=-1) + 1
    return np.column_stack([points, np.full(K, confidence)]).astype(np.float32)


def make_frame(*people):
    return np.stack(people) if people else np.empty((0, K, 3), dtype=np.float32)


def number_all(frames, tracker=None):
    tracker = tracker or PersonTracker()
    return [tracker.update(frame).tolist() for frame in frames]


def shift(keypoints, x, scale=1.0):
    """Keypoints (N, K, 3) scaled and moved by x (N,) pixels; missing points stay missing."""
    moved = keypoints.copy()
    moved[..., :2] *= scale
    moved[..., 0] += np.asarray(x, dtype=np.float32)[:, None] * (keypoints[..., 2] > 0)
    return moved


@pytest.fixture(scope="module")
def synthetic():
    """Keypoints (N, 137, 3) of four people in pictures of 320 x 180, more than 350 frames each."""
    videos = [generate_video(SyntheticConfig(seed=3), number, f"{number:04d}").keypoints for number in (1, 2, 3, 4)]
    return [video[: min(map(len, videos))] for video in videos]


def follow_two(first, second, seen=None, tracker=None):
    """Numbers (N, 2) of two people in one picture, in changing order; -2 where `seen` (N,) hides the second one."""
    generator, tracker = np.random.default_rng(0), tracker or PersonTracker()
    numbers = np.full((len(first), 2), -2)
    for frame in range(len(first)):
        here = generator.permutation(2 if seen is None or seen[frame] else 1)
        numbers[frame, here] = tracker.update(np.stack([first[frame], second[frame]])[here])
    return numbers


def is_pure(numbers):
    """Whether nobody has two numbers, apart from frames of a detector's dropout (-1) and hidden ones (-2)."""
    return all(len(set(column[column >= 0].tolist())) == 1 for column in numbers.T)


def test_distance_is_the_mean_over_common_points_in_diagonals():
    first, second = make_person(0), make_person(30)
    diagonal = np.hypot(50, 100)
    np.testing.assert_allclose(keypoint_distances(first, second), 30 / diagonal, rtol=1e-5)
    second[0] = 0
    first[1] = 0
    sizes = [np.hypot(*(box[2:] - box[:2])) for box in person_boxes(np.stack([first, second]))]
    np.testing.assert_allclose(keypoint_distances(first, second), 30 / np.mean(sizes), rtol=1e-5)
    # The same picture at twice the size.
    doubled = [person * np.float32([2, 2, 1]) for person in (first, second)]
    np.testing.assert_allclose(keypoint_distances(*doubled), keypoint_distances(first, second), rtol=1e-5)


def test_distance_without_common_points_is_that_of_the_middles():
    first, second = make_person(0), make_person(30)
    first[::2], second[1::2] = 0, 0
    boxes = person_boxes(np.stack([first, second]))
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    expected = np.hypot(*(middles[1] - middles[0])) / np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T).mean()
    np.testing.assert_allclose(keypoint_distances(first, second), expected, rtol=1e-5)
    nobody = np.zeros_like(first)
    assert keypoint_distances(nobody, nobody) == np.inf


def test_distance_of_all_pairs_equals_that_of_each_pair():
    generator = np.random.default_rng(0)
    people = generator.uniform(1, 100, (5, K, 3)).astype(np.float32)
    people[generator.random((5, K)) < 0.3] = 0
    matrix = keypoint_distances(people[:3, None], people)
    assert matrix.shape == (3, 5)
    for row, column in np.ndindex(matrix.shape):
        np.testing.assert_allclose(matrix[row, column], keypoint_distances(people[row], people[column]))
    np.testing.assert_allclose(matrix[:, :3], matrix[:, :3].T)


def test_boxes_leave_missing_points_out():
    people = make_frame(make_person(10, 20), np.zeros((K, 3), dtype=np.float32))
    people[0, 0] = 0
    valid = people[0, 1:, :2]
    np.testing.assert_array_equal(person_boxes(people), [[*valid.min(0), *valid.max(0)], [0, 0, 0, 0]])


def test_numbers_do_not_depend_on_the_order_of_the_detections():
    frames = [make_frame(make_person(0), make_person(200), make_person(400)) for _ in range(6)]
    orders = [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2)]
    shuffled = [frame[list(order)] for frame, order in zip(frames, orders, strict=True)]
    assert number_all(shuffled) == [list(order) for order in orders]


def test_the_assignment_is_the_best_of_all(monkeypatch):
    """Against every way to match, where leaving somebody out costs `max_distance`."""
    monkeypatch.setattr(tracking, "_SMOOTHING", 0.0)
    generator = np.random.default_rng(0)
    for _ in range(150):
        counts = generator.integers(1, 5, 2)
        before, now = (
            np.stack([make_person(*generator.uniform(0, 120, 2)) for _ in range(count)]) for count in counts
        )
        tracker = PersonTracker(duplicate_distance=0)
        tracker.update(before)
        numbers = tracker.update(now)
        distances = keypoint_distances(before[:, None], now)
        best = min(
            sum(min(distances[row, column], 0.4) - 0.4 for row, column in zip(rows, columns, strict=True))
            for rows in itertools.permutations(range(counts[0]), int(min(counts)))
            for columns in itertools.combinations(range(counts[1]), int(min(counts)))
        )
        old = numbers < counts[0]
        assert (distances[numbers[old], old.nonzero()[0]] < 0.4).all()
        assert (distances[numbers[old], old.nonzero()[0]] - 0.4).sum() == pytest.approx(best)
        assert sorted(numbers[~old]) == list(range(counts[0], counts[0] + (~old).sum()))


def test_nobody_is_handed_a_neighbours_place_for_one_more_match():
    """The left person leaves and somebody appears on the right: the one in the middle keeps the number."""
    first = make_frame(make_person(0), make_person(43))
    second = make_frame(make_person(43), make_person(86))
    assert number_all([first, second]) == [[0, 1], [1, 2]]


def test_a_person_keeps_the_number_over_a_gap_up_to_max_gap():
    sitting, other = make_person(0), make_person(300)
    for missing, expected in ((7, 0), (8, 2)):
        frames = [make_frame(sitting, other), *[make_frame(other)] * missing, make_frame(sitting, other)]
        assert number_all(frames, PersonTracker(max_gap=7))[-1] == [expected, 1]


def test_somebody_who_comes_back_elsewhere_is_new():
    frames = [make_frame(make_person(0)), make_frame(), make_frame(make_person(200))]
    assert number_all(frames) == [[0], [], [1]]


def test_who_was_moving_may_come_back_to_the_old_place():
    """A lean to the side when the detections stop, and the person sits upright again when they go on."""
    lean = [make_frame(make_person(4 * step)) for step in range(10)]
    frames = [*lean, *[make_frame()] * 30, make_frame(make_person(30))]
    assert number_all(frames)[-1] == [0]


def test_people_who_cross_keep_their_numbers():
    """They look alike, so only the velocity tells them apart; one is hidden while they overlap."""
    for hidden in (0, 3):
        frames = []
        for step in range(41):
            left, right = make_person(8 * step), make_person(320 - 8 * step, 4)
            overlap = abs(step - 20) < hidden
            frames.append(make_frame(left) if overlap else make_frame(left, right)[:: 1 if step % 2 else -1])
        numbers = number_all(frames)
        assert sorted(numbers[0]) == [0, 1]
        right_first = numbers[0][0]
        for step, (frame, found) in enumerate(zip(frames, numbers, strict=True)):
            if len(found) == 2:
                right = int(frame[0, 0, 1] < frame[1, 0, 1])
                assert found[right] == right_first, f"hidden {hidden}, frame {step}"


def test_a_person_who_enters_gets_a_number_and_the_others_keep_theirs():
    frames = [make_frame(make_person(0))] * 3 + [make_frame(make_person(150), make_person(0))] * 3
    assert number_all(frames) == [[0]] * 3 + [[1, 0]] * 3


def test_missing_points_do_not_break_a_track():
    generator = np.random.default_rng(0)
    frames = []
    for _ in range(100):
        frame = make_frame(make_person(0), make_person(70))
        frame[generator.random((2, K)) < 0.4] = 0
        frames.append(frame)
    seen = np.stack(frames)[..., 2] > 0
    assert ((seen[1:] & seen[:-1]).sum(axis=-1) < 3).sum() > 10
    assert set(map(tuple, number_all(frames))) <= {(0, 1), (-1, 1), (0, -1)}


def test_fewer_than_three_points_are_nobody():
    scrap = make_person(0)
    scrap[2:] = 0
    tracker = PersonTracker()
    assert number_all([make_frame(scrap, make_person(200)), make_frame(scrap)], tracker) == [[-1, 0], [-1]]
    assert number_all([np.zeros((2, K, 3)), make_frame()]) == [[-1, -1], []]


def test_of_two_detections_of_one_person_the_surer_one_counts():
    weak, strong = make_person(1, confidence=0.5), make_person(0, confidence=0.9)
    assert number_all([make_frame(weak, strong)] * 2) == [[-1, 0]] * 2
    # The surer one takes over even where the weaker one is nearer to the frame before.
    assert number_all([make_frame(make_person(1)), make_frame(weak, strong)]) == [[0], [-1, 0]]
    assert number_all([make_frame(make_person(1)), make_frame(strong, weak, make_person(200))])[1] == [0, -1, 1]
    assert number_all([make_frame(weak, strong)], PersonTracker(duplicate_distance=0)) == [[0, 1]]


def test_two_people_who_come_close_are_no_duplicates():
    apart = make_frame(make_person(0), make_person(20))
    close = make_frame(make_person(9), make_person(11))
    assert [sorted(numbers) for numbers in number_all([apart, close, close, apart])] == [[0, 1]] * 4


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_tracks_of_synthetic_people_side_by_side_are_pure(synthetic, scale):
    for first, second in itertools.combinations(synthetic, 2):
        numbers = follow_two(first, shift(second, np.full(len(second), 150.0), scale))
        assert len(numbers) > 300
        assert is_pure(numbers)


def test_the_velocity_keeps_synthetic_people_who_pass_each_other_apart(synthetic, monkeypatch):
    def count_mixed():
        return sum(not is_pure(follow_two(a, shift(b, way))) for a, b in itertools.combinations(synthetic, 2))

    # To and fro between -130 and 130 pixels, at 20 pixels per frame.
    way = np.abs((np.arange(len(synthetic[0])) * 20) % 520 - 260) - 130
    assert count_mixed() == 0
    monkeypatch.setattr(tracking, "_SMOOTHING", 0.0)
    assert count_mixed() > 0


def test_synthetic_people_behind_one_another_are_pure(synthetic):
    """The one who walks is not detected while behind the one who sits."""
    middle = [video[..., 0].sum(1) / np.maximum((video[..., 2] > 0).sum(1), 1) for video in synthetic]
    way = np.abs((np.arange(len(synthetic[0])) * 5) % 520 - 260) - 130
    walking = shift(synthetic[1], way)
    hidden = np.abs(middle[0] - (middle[1] + way)) < 20
    assert hidden.sum() > 30
    assert is_pure(follow_two(synthetic[0], walking, ~hidden))


@pytest.mark.skipif(not REALDATA.is_dir(), reason="needs the real OpenPose files, see CLIPMG_REALDATA")
@pytest.mark.parametrize("name", ["slp_full137", "openposer_psychologie"])
def test_real_openpose_people_are_pure(name):
    person = read_openpose(REALDATA / name / "json").keypoints
    (track,) = track_people(person[:, None])
    np.testing.assert_array_equal(track.frames, np.arange(len(person)))
    width = float(np.ptp(person_boxes(person)[:, ::2]))
    assert is_pure(follow_two(person, shift(person, np.full(len(person), width), 0.9)))


def test_tracks_hold_the_frames_with_the_person(synthetic):
    first, second = synthetic[0][:60].copy(), shift(synthetic[1][:60], np.full(60, 150.0))
    frames = [
        np.stack([one, other]) if 20 <= frame < 50 else one[None]
        for frame, (one, other) in enumerate(zip(first, second, strict=True))
    ]
    frames[30] = np.empty((0, 137, 3))
    tracks = track_people(iter(frames))
    assert [track.number for track in tracks] == [0, 1]
    assert (tracks[1].first, tracks[1].last, len(tracks[1])) == (20, 49, 29)
    assert 30 not in tracks[1].frames
    assert tracks[1].keypoints.dtype == np.float32 and tracks[1].frames.dtype == np.int64
    np.testing.assert_array_equal(tracks[1].keypoints, second[tracks[1].frames])
    np.testing.assert_array_equal(tracks[0].keypoints, first[tracks[0].frames])
    assert track_people([]) == [] == track_people([np.empty((0, 137, 3))] * 4)


def test_what_is_kept_does_not_grow():
    tracker = PersonTracker(max_gap=5)
    for frame in range(200):
        tracker.update(make_frame(make_person(0), make_person(300 + 200 * (frame % 50))))
    assert len(tracker._numbers) <= 8


def test_results_of_an_update_do_not_change_the_tracker():
    frame = make_frame(make_person(0))
    tracker = PersonTracker()
    tracker.update(frame)[:] = 7
    frame[:] = 0
    assert tracker.update(make_frame(make_person(0))).tolist() == [0]


@pytest.mark.parametrize(
    ("people", "message"),
    [
        (np.zeros((K, 3)), r"Frame 1: people have the shape \(12, 3\); expected \(P, K, 3\)"),
        (np.zeros((1, K, 2)), r"Frame 1: people have the shape"),
        (np.zeros((1, 17, 3)), "Frame 1: people have 17 keypoints; expected 12 as in the frames before"),
        (np.full((1, K, 3), np.nan), "Frame 1: keypoint 0 of person 0 is .*; expected finite numbers"),
    ],
)
def test_wrong_people_are_named(people, message):
    tracker = PersonTracker()
    tracker.update(make_frame(make_person(0)))
    with pytest.raises(ValueError, match=message):
        tracker.update(people)


@pytest.mark.parametrize(
    "values", [{"max_gap": -1}, {"max_distance": 0}, {"max_distance": float("nan")}, {"duplicate_distance": -0.1}]
)
def test_wrong_settings_are_named(values):
    with pytest.raises(ValueError, match="Need max_gap="):
        PersonTracker(**values)
