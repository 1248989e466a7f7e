import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from clipmg_hf.processing.keypoint_layouts_clipmg import convert_keypoints, get_layout, valid_keypoints
from clipmg_hf.processing.openpose_clipmg import KeypointFileError, read_openpose, read_openpose_frames, write_openpose


REALDATA = Path(os.environ.get("CLIPMG_REALDATA", Path(__file__).parents[3] / "shared" / "realdata")) / "openpose"
SIGNER, PSYCHOLOGIE = REALDATA / "slp_full137" / "json", REALDATA / "openposer_psychologie" / "json"
real_files = pytest.mark.skipif(not REALDATA.is_dir(), reason="needs the real OpenPose files, see CLIPMG_REALDATA")

LENGTHS = {
    "pose_keypoints_2d": 75,
    "face_keypoints_2d": 210,
    "hand_left_keypoints_2d": 63,
    "hand_right_keypoints_2d": 63,
}


def make_person(value=1.0, *, size=1.0, body_only=False):
    """Points on a diagonal from (value, value) to (value + size, value + size), confidence 0.5."""
    person = {}
    for field, length in LENGTHS.items():
        line = np.linspace(value, value + size, length // 3)
        points = np.stack([line, line, np.full_like(line, 0.5)], axis=-1)
        person[field] = [] if body_only and field != "pose_keypoints_2d" else points.ravel().tolist()
    return person


def write_frame(folder, number, people, stem="clip"):
    path = folder / f"{stem}_{number:012d}_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": people}))
    return path


def random_sequence(num_frames, num_keypoints):
    """(T, K, 3) float32 with every fourth point missing."""
    generator = np.random.default_rng(0)
    keypoints = generator.uniform(-50, 1300, (num_frames, num_keypoints, 3)).astype(np.float32)
    keypoints[..., 2] = generator.uniform(1e-6, 1, keypoints.shape[:2])
    keypoints[:, ::4] = 0
    return keypoints


@pytest.mark.parametrize(("num_keypoints", "layout"), [(137, "openpose-137"), (25, "openpose-body25")])
def test_what_is_written_reads_back_exactly(tmp_path, num_keypoints, layout):
    keypoints = random_sequence(12, num_keypoints)
    keypoints[5] = 0
    write_openpose(tmp_path / "new" / "folder", keypoints, "my_clip_7")
    sequence = read_openpose(tmp_path / "new" / "folder")
    np.testing.assert_array_equal(sequence.keypoints, keypoints)
    assert sequence.keypoints.dtype == np.float32
    assert sequence.layout == layout
    np.testing.assert_array_equal(sequence.num_people, [1] * 5 + [0] + [1] * 6)
    np.testing.assert_array_equal(sequence.frame_numbers, np.arange(12))
    assert sequence.num_people.dtype == sequence.frame_numbers.dtype == np.int64


def test_extreme_float32_values_survive(tmp_path):
    limits = np.finfo(np.float32)
    keypoints = random_sequence(1, 25)
    keypoints[0, 0] = limits.max, limits.min, limits.tiny
    keypoints[0, 1] = np.nextafter(np.float32(1), np.float32(2)), np.float32(1) / 3, limits.smallest_subnormal
    write_openpose(tmp_path, keypoints, "clip")
    np.testing.assert_array_equal(read_openpose(tmp_path).keypoints, keypoints)


def test_the_written_files_have_the_form_of_version_1_3(tmp_path):
    write_openpose(tmp_path, np.concatenate([random_sequence(1, 25), np.zeros((1, 25, 3))]), "0012")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0012_000000000000_keypoints.json",
        "0012_000000000001_keypoints.json",
    ]
    first, second = (json.loads(path.read_text()) for path in sorted(tmp_path.iterdir()))
    assert first["version"] == 1.3 and second == {"version": 1.3, "people": []}
    (person,) = first["people"]
    assert person.pop("person_id") == [-1]
    assert {field: len(values) for field, values in person.items()} == {
        **dict.fromkeys(LENGTHS, 0),
        **{field.replace("2d", "3d"): 0 for field in LENGTHS},
        "pose_keypoints_2d": 75,
    }


@pytest.mark.parametrize(
    ("keypoints", "stem", "message"),
    [
        (np.zeros((3, 22, 3)), "clip", r"shape \(3, 22, 3\), expected \(T, 137, 3\) or \(T, 25, 3\)"),
        (np.zeros((137, 3)), "clip", r"shape \(137, 3\)"),
        (np.zeros((0, 137, 3)), "clip", r"shape \(0, 137, 3\), .* T above 0"),
        (np.full((2, 25, 3), np.nan), "clip", r"keypoints\[0, 0\] is \[nan nan nan\], expected finite"),
        (np.zeros((2, 25, 3)), "a/b", "stem is 'a/b', expected the start of a file name"),
        (np.zeros((2, 25, 3)), "", "stem is ''"),
    ],
)
def test_what_cannot_be_written_leaves_no_folder(tmp_path, keypoints, stem, message):
    with pytest.raises(ValueError, match=message):
        write_openpose(tmp_path / "new", keypoints, stem)
    assert not (tmp_path / "new").exists()


def test_writing_does_not_mix_two_sequences(tmp_path):
    write_openpose(tmp_path, random_sequence(4, 25), "clip")
    with pytest.raises(FileExistsError, match=r"clip_0+\d_keypoints\.json exists, expected a folder without"):
        write_openpose(tmp_path, random_sequence(2, 25), "clip")
    assert len(list(tmp_path.iterdir())) == 4


def test_interrupted_writing_leaves_no_file(tmp_path, monkeypatch):
    calls = []

    def dumps_twice(*args, **kwargs):
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return "{}"

    monkeypatch.setattr("clipmg_hf.processing.openpose_clipmg.json.dumps", dumps_twice)
    with pytest.raises(KeyboardInterrupt):
        write_openpose(tmp_path, random_sequence(5, 25), "clip")
    assert list(tmp_path.iterdir()) == []


def test_frames_are_ordered_by_number_and_may_start_anywhere(tmp_path):
    for number in (9, 10, 11):
        # Without zero padding "10" sorts before "9" as text.
        path = write_frame(tmp_path, number, [make_person(number)])
        path.rename(tmp_path / f"clip_{number}_keypoints.json")
    sequence = read_openpose(tmp_path)
    np.testing.assert_array_equal(sequence.frame_numbers, [9, 10, 11])
    np.testing.assert_array_equal(sequence.keypoints[:, 0, 0], [9, 10, 11])


def test_a_list_of_files_is_ordered_by_number_too(tmp_path):
    paths = [write_frame(tmp_path, number, [make_person(number)]) for number in (4, 5, 6)]
    sequence = read_openpose([str(paths[2]), paths[1]])
    np.testing.assert_array_equal(sequence.frame_numbers, [5, 6])
    np.testing.assert_array_equal(sequence.keypoints[:, 0, 0], [5, 6])


def test_one_file_is_one_frame(tmp_path):
    path = write_frame(tmp_path, 7, [make_person(3)])
    assert read_openpose(path).frame_numbers.tolist() == [7]
    renamed = path.rename(tmp_path / "photo.json")
    sequence = read_openpose(str(renamed))
    assert sequence.frame_numbers.tolist() == [0]
    assert sequence.keypoints.shape == (1, 137, 3)


def test_other_files_in_the_folder_are_ignored(tmp_path):
    write_frame(tmp_path, 0, [make_person()])
    (tmp_path / "video.mp4").touch()
    (tmp_path / "notes.json").write_text("nothing")
    assert len(read_openpose(tmp_path).keypoints) == 1


def test_a_gap_names_the_missing_numbers(tmp_path):
    for number in (2, 3, 5, 9):
        write_frame(tmp_path, number, [make_person(number)])
    with pytest.raises(KeypointFileError, match="4 frames lack a file, 4, 6-8; expected every number from 2 to 9"):
        read_openpose(tmp_path)
    sequence = read_openpose(tmp_path, allow_gaps=True)
    np.testing.assert_array_equal(sequence.frame_numbers, np.arange(2, 10))
    np.testing.assert_array_equal(sequence.num_people, [1, 1, 0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(sequence.keypoints[:, 0, 0], [2, 3, 0, 5, 0, 0, 0, 9])


def test_several_sequences_in_a_folder_are_named(tmp_path):
    for stem in ("left_cam", "right_cam"):
        write_frame(tmp_path, 0, [make_person()], stem)
    with pytest.raises(KeypointFileError, match="files of 2 sequences, 'left_cam', 'right_cam'; expected one"):
        read_openpose(tmp_path)


def test_a_frame_may_not_come_twice(tmp_path):
    write_frame(tmp_path, 1, [make_person()])
    shutil.copy(tmp_path / "clip_000000000001_keypoints.json", tmp_path / "clip_1_keypoints.json")
    with pytest.raises(KeypointFileError, match=r"frame 1 is also in .*, expected one file per frame"):
        read_openpose(tmp_path)


def test_a_file_without_a_number_among_others(tmp_path):
    write_frame(tmp_path, 0, [make_person()])
    (tmp_path / "photo_keypoints.json").write_text("{}")
    with pytest.raises(KeypointFileError, match=r"photo_keypoints\.json: no frame number in the name"):
        read_openpose(tmp_path)


@pytest.mark.parametrize(
    "source", ["nowhere", "nowhere.json", ["nowhere_1_keypoints.json", "nowhere_2_keypoints.json"]]
)
def test_a_missing_path(tmp_path, source):
    paths = [tmp_path / name for name in source] if isinstance(source, list) else tmp_path / source
    with pytest.raises(KeypointFileError, match=r"nowhere.*: no such file, expected a keypoint file or a folder"):
        read_openpose(paths)


def test_an_empty_folder_or_list(tmp_path):
    with pytest.raises(
        KeypointFileError, match=rf"{tmp_path.name}: no \*_keypoints\.json file, expected at least one"
    ):
        read_openpose(tmp_path)
    with pytest.raises(KeypointFileError, match=r"\[\]: no \*_keypoints\.json file"):
        read_openpose([])


def test_the_largest_person_is_chosen_in_each_frame(tmp_path):
    write_frame(tmp_path, 0, [make_person(1, size=10), make_person(2, size=20), make_person(3, size=20)])
    write_frame(tmp_path, 1, [make_person(4, size=30), make_person(5, size=20)])
    write_frame(tmp_path, 2, [])
    sequence = read_openpose(tmp_path)
    np.testing.assert_array_equal(sequence.keypoints[:, 0, 0], [2, 4, 0])
    np.testing.assert_array_equal(sequence.num_people, [3, 2, 0])
    assert not sequence.keypoints[2].any()


def test_everybody_is_read_with_their_numbers(tmp_path):
    write_frame(tmp_path, 3, [make_person(1) | {"person_id": [7]}, make_person(2, body_only=True)])
    write_frame(tmp_path, 4, [])
    write_frame(tmp_path, 6, [make_person(3) | {"person_id": [-1]}, make_person(4) | {"person_id": ["b"]}])
    frames = read_openpose_frames(tmp_path, allow_gaps=True)
    assert frames.layout == "openpose-137"
    np.testing.assert_array_equal(frames.frame_numbers, [3, 4, 5, 6])
    assert [people.shape for people in frames.people] == [(count, 137, 3) for count in (2, 0, 0, 2)]
    assert all(people.dtype == np.float32 for people in frames.people)
    assert [numbers.tolist() for numbers in frames.person_ids] == [[7, -1], [], [], [-1, -1]]
    np.testing.assert_array_equal(frames.people[0][:, 0, 0], [1, 2])
    assert not frames.people[0][1, 25:].any()
    with pytest.raises(KeypointFileError, match="1 frames lack a file, 5"):
        read_openpose_frames(tmp_path)
    for index in (0, 1):
        one = read_openpose(tmp_path, person=index, allow_gaps=True)
        for frame, people in enumerate(frames.people):
            expected = people[index] if index < len(people) else np.zeros((137, 3))
            np.testing.assert_array_equal(one.keypoints[frame], expected)


def test_missing_points_do_not_widen_the_box(tmp_path):
    far = make_person(500, size=10)
    far["pose_keypoints_2d"][:3] = 0, 0, 0
    far["pose_keypoints_2d"][3:6] = 9000, 9000, 0
    path = write_frame(tmp_path, 0, [far, make_person(7, size=50)])
    assert read_openpose(path).keypoints[0, 0, 0] == 7


def test_a_person_can_be_chosen_by_index(tmp_path):
    write_frame(tmp_path, 0, [make_person(1, size=10), make_person(2, size=1)])
    write_frame(tmp_path, 1, [make_person(3)])
    sequence = read_openpose(tmp_path, person=1)
    np.testing.assert_array_equal(sequence.keypoints[:, 0, 0], [2, 0])
    np.testing.assert_array_equal(sequence.num_people, [2, 1])
    assert not sequence.keypoints[1].any()


@pytest.mark.parametrize("person", ["first", -1, 1.0, None])
def test_an_unknown_person(tmp_path, person):
    with pytest.raises(ValueError, match=r"person is .*, expected 'largest' or an index from 0"):
        read_openpose(tmp_path, person=person)


def test_fields_go_to_their_places(tmp_path):
    person = {field: [float(index)] * length for index, (field, length) in enumerate(LENGTHS.items(), start=1)}
    keypoints = read_openpose(write_frame(tmp_path, 0, [person])).keypoints[0]
    layout = get_layout("openpose-137")
    expected = [1] * 25 + [2] * 70 + [3] * 21 + [4] * 21
    np.testing.assert_array_equal(keypoints[:, 0], expected)
    assert {layout.keypoints[i].rsplit("_", 1)[0] for i, part in enumerate(expected) if part == 3} == {"left_hand"}


def test_body_alone_gives_25_points_and_one_face_or_hand_gives_137(tmp_path):
    write_frame(tmp_path, 0, [make_person(1, body_only=True)])
    write_frame(tmp_path, 1, [{"pose_keypoints_2d": make_person(2)["pose_keypoints_2d"]}])
    sequence = read_openpose(tmp_path)
    assert sequence.layout == "openpose-body25" and sequence.keypoints.shape == (2, 25, 3)

    with_left_hand = make_person(3) | {"face_keypoints_2d": [], "hand_right_keypoints_2d": []}
    write_frame(tmp_path, 2, [with_left_hand])
    sequence = read_openpose(tmp_path)
    assert sequence.layout == "openpose-137" and sequence.keypoints.shape == (3, 137, 3)
    is_there = valid_keypoints(sequence.keypoints)
    np.testing.assert_array_equal(is_there[:2], np.tile(np.arange(137) < 25, (2, 1)))
    np.testing.assert_array_equal(np.flatnonzero(is_there[2]), [*range(25), *range(95, 116)])


def test_nobody_in_any_frame(tmp_path):
    write_frame(tmp_path, 0, [])
    sequence = read_openpose(tmp_path)
    assert sequence.layout == "openpose-body25" and not sequence.keypoints.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "invalid JSON"),
        ("", "invalid JSON"),
        (b"\xff\xfe\xfa", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ('{"version": 1.3}', "no list under the key 'people'"),
        ('{"people": {}}', "no list under the key 'people'"),
        ("[]", "no list under the key 'people'"),
        ('{"people": [3]}', r"people\[0\] is 3, expected an object"),
    ],
)
def test_a_file_that_is_no_keypoint_file(tmp_path, content, message):
    path = tmp_path / "clip_000000000000_keypoints.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KeypointFileError, match=rf"clip_000000000000_keypoints\.json: {message}"):
        read_openpose(tmp_path)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("pose_keypoints_2d", [1.0] * 54, r" has 54 numbers \(COCO, not BODY_25\), expected 75 numbers"),
        ("pose_keypoints_2d", [1.0] * 45, r" has 45 numbers \(MPI, not BODY_25\), expected 75 numbers"),
        ("pose_keypoints_2d", [1.0] * 405, " has 405 numbers, expected 75 numbers"),
        ("pose_keypoints_2d", [], " has 0 numbers, expected 75 numbers"),
        ("pose_keypoints_2d", [1.0] * 74, r" has 74 numbers \(not divisible by 3\), expected 75 numbers"),
        ("pose_keypoints_2d", None, " is None, expected 75 numbers"),
        (
            "face_keypoints_2d",
            [1.0] * 204,
            r" has 204 numbers, expected 210 numbers \(x, y, confidence of 70 points\)",
        ),
        ("hand_left_keypoints_2d", [1.0] * 54, " has 54 numbers, expected 63 numbers"),
        ("hand_right_keypoints_2d", "none", " is 'none', expected 63 numbers"),
        ("pose_keypoints_2d", [1.0] * 74 + ["4"], r"\[74\] is '4', expected a finite number"),
        ("pose_keypoints_2d", [1.0, None] + [1.0] * 73, r"\[1\] is None, expected a finite number"),
        ("pose_keypoints_2d", [True] + [1.0] * 74, r"\[0\] is True, expected a finite number"),
        ("face_keypoints_2d", [float("nan")] * 210, r"\[0\] is nan, expected a finite number"),
        ("hand_left_keypoints_2d", [1.0] * 62 + [float("inf")], r"\[62\] is inf, expected a finite number"),
        ("hand_left_keypoints_2d", [1e39] * 63, r"\[0\] is 1e\+39, expected a finite number"),
        ("hand_left_keypoints_2d", [10**400] * 63, r"\[0\] is 10000.*, expected a finite number"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_file_and_person(tmp_path, field, values, message):
    write_frame(tmp_path, 3, [make_person(), make_person() | {field: values}])
    with pytest.raises(KeypointFileError, match=rf"clip_000000000003_keypoints\.json: people\[1\]\.{field}{message}"):
        read_openpose(tmp_path)


@real_files
def test_real_files_of_version_1_3_with_face_and_hands():
    sequence = read_openpose(SIGNER)
    assert sequence.layout == "openpose-137"
    assert sequence.keypoints.shape == (9, 137, 3)
    np.testing.assert_array_equal(sequence.frame_numbers, np.arange(9))
    assert (sequence.num_people == 1).all()
    points = sequence.keypoints[0]
    np.testing.assert_array_equal(points[0], np.float32([627.385, 245.392, 0.816087]))
    np.testing.assert_array_equal(points[25], np.float32([576.736, 181.115, 0.580158]))
    assert not valid_keypoints(points[8:15]).any()


@real_files
def test_names_tell_the_sides_of_a_real_person_who_faces_the_camera():
    layout, points = get_layout("openpose-137"), read_openpose(SIGNER).keypoints[0]
    x = {name: points[index, 0] for index, name in enumerate(layout.keypoints) if valid_keypoints(points)[index]}
    for part in ("shoulder", "elbow", "wrist", "eye", "ear"):
        assert x[f"right_{part}"] < x[f"left_{part}"]
    assert x["face_0"] < x["face_16"] and x["face_48"] < x["face_54"]
    # The pupils of the face lie on the eyes of the body, the hands hang on the wrists of the body.
    for body, part in {"eye": ("face_68", "face_69"), "wrist": ("right_hand_0", "left_hand_0")}.items():
        for side, same, other in (("right", *part), ("left", *reversed(part))):
            to_same, to_other = (
                points[layout.index(f"{side}_{body}")] - points[layout.index(n)] for n in (same, other)
            )
            assert np.linalg.norm(to_same[:2]) < np.linalg.norm(to_other[:2]) / 3


@real_files
def test_real_files_of_version_1_2_without_face_and_hands():
    sequence = read_openpose(PSYCHOLOGIE)
    assert sequence.layout == "openpose-body25"
    assert sequence.keypoints.shape == (157, 25, 3)
    assert (sequence.num_people == 1).all()
    ankles_and_feet = [11, 14, *range(19, 25)]
    assert not sequence.keypoints[:, ankles_and_feet].any()


@real_files
@pytest.mark.parametrize("folder", [SIGNER, PSYCHOLOGIE], ids=["137", "25"])
def test_real_files_survive_a_round_trip(tmp_path, folder):
    sequence = read_openpose(folder)
    write_openpose(tmp_path, sequence.keypoints, "copy")
    np.testing.assert_array_equal(read_openpose(tmp_path).keypoints, sequence.keypoints)


@real_files
def test_real_keypoints_convert_to_the_default_layout():
    sequence = read_openpose(SIGNER)
    converted = convert_keypoints(sequence.keypoints, sequence.layout, "imigue-22")
    assert converted.shape == (9, 22, 3)
    assert valid_keypoints(converted).mean() > 0.9
