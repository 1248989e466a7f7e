"""Skeleton files are read as documented, every doubt is settled or reported, and conversion survives anything."""

import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time

import datasets
import numpy as np
import openpyxl
import pytest

from clipmg_hf.data import skeletons
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.skeletons import KINDS, SkeletonCache, find_hand_order, read_skeleton, summarize_facts
from clipmg_hf.processing import get_layout, valid_keypoints, write_openpose


NUM_FRAMES = 8
LIGHT = [*range(25), 99, 103, 107, 111, 115, 120, 124, 128, 132, 136]


def person(num_frames=NUM_FRAMES, crossed=False):
    """(N, 137, 3): every point valid, the hands 400 pixels apart and each around its own wrist."""
    random = np.random.default_rng(3)
    keypoints = random.uniform((500, 100, 0.2), (800, 700, 1), (num_frames, 137, 3))
    keypoints[:, 7, :2], keypoints[:, 4, :2] = (850, 600), (450, 600)
    for block, wrist in ((slice(95, 116), 7), (slice(116, 137), 4)):
        keypoints[:, block, :2] = keypoints[:, wrist, None, :2] + random.uniform(-40, 40, (num_frames, 21, 2))
    if crossed:
        keypoints[:, 95:] = np.concatenate([keypoints[:, 116:], keypoints[:, 95:116]], axis=1)
    return keypoints.round(3).astype(np.float32)


def write_rows(path, rows):
    """A workbook of numbers or other cells."""
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet()
    for row in rows:
        sheet.append(list(row))
    workbook.save(path)
    return path


def cells(keypoints):
    return [[float(value) for value in row.reshape(-1)] for row in keypoints]


def write_text(path, rows, header=None):
    lines = [header] if header is not None else []
    lines += [",".join(map(str, row)) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def light_rows(keypoints, index=0):
    rows = cells(keypoints[:, LIGHT])
    return rows if index is None else [[number + index, *row] for number, row in enumerate(rows)]


def write_light(path, keypoints=None, index=0, header=None):
    return write_text(path, light_rows(person() if keypoints is None else keypoints, index), header)


def smg_joints(num_frames=NUM_FRAMES):
    """(N, 25, 11) of a standing person 2.5 m away, pixels as both of Kinect's cameras would give them."""
    random = np.random.default_rng(4)
    joints = np.zeros((num_frames, 25, 11))
    joints[..., :3] = random.uniform((-0.5, -0.9, 2.2), (0.5, 0.6, 2.8), (num_frames, 25, 3))
    joints[..., 3:7] = 0.5
    ray = joints[..., :2] * (1, -1) / joints[..., 2:3]
    joints[..., 7:9] = (256, 212) + 365 * ray
    joints[..., 9:11] = (959.5 + 25, 539.5) + 1081.4 * ray  # the color camera sits beside the other one
    return joints


def write_smg(path, joints):
    return write_text(path, joints.reshape(len(joints), -1).tolist())


# --- openpose_xlsx


def test_a_workbook(tmp_path):
    keypoints = person()
    keypoints[2] = 0
    keypoints[3, :10] = 0
    skeleton = read_skeleton(write_rows(tmp_path / "0001.xlsx", cells(keypoints)), "openpose_xlsx")
    np.testing.assert_array_equal(skeleton.keypoints, keypoints)
    assert skeleton.keypoints.dtype == np.float32 and skeleton.layout == "openpose-137"
    assert json.loads(json.dumps(skeleton.facts)) == {
        "kind": "openpose_xlsx",
        "columns": 411,
        "header_row": False,
        "rows": NUM_FRAMES,
        "hand_order": "left-right",
        "rows_without_person": 1,
        "points_with_confidence_above_1": 0,
        "extent": np.quantile(keypoints[keypoints[..., 2] > 0][:, :2], 0.95, axis=0).round(1).tolist(),
    }


def test_a_workbook_without_rows_is_a_skeleton_of_0_rows(tmp_path):
    skeleton = read_skeleton(write_rows(tmp_path / "0347.xlsx", []), "openpose_xlsx")
    assert skeleton.keypoints.shape == (0, 137, 3) and skeleton.keypoints.dtype == np.float32
    assert skeleton.facts["rows"] == 0


@pytest.mark.parametrize("header", [[f"c{i}" for i in range(411)], range(411), range(1, 412)])
def test_a_header_row_is_no_frame(tmp_path, header):
    skeleton = read_skeleton(write_rows(tmp_path / "0001.xlsx", [header, *cells(person())]), "openpose_xlsx")
    np.testing.assert_array_equal(skeleton.keypoints, person())
    assert skeleton.facts["header_row"]


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, 0, "x", r"row 1, column 1: expected a number, got 'x'"),
        (4, 7, "12.5", r"row 5, column 8: expected a number, got '12\.5'"),
        (4, 7, "NaN", r"row 5, column 8: expected a number, got 'NaN'"),
        (4, 7, None, r"row 5, column 8: expected a number, got ''"),
        (4, 7, True, r"row 5, column 8: expected a number, got True"),
        (4, 7, 1e39, r"row 5, column 8: expected a finite number, got 1e\+39"),
        (4, 8, -0.25, r"row 5, column 9: expected a confidence of 0 or more, got -0\.25"),
        (4, slice(400, 411), [], r"row 5: expected 411 columns|row 5, column 401: expected a number, got ''"),
        (4, slice(411, 412), [3.0], r"row 5: expected 411 columns, got 412"),
        (4, slice(0, 411), [None] * 411, r"row 5, column 1: expected a number, got ''"),
    ],
)
def test_a_bad_cell_of_a_workbook_is_named(tmp_path, row, column, value, message):
    rows = cells(person())
    rows[row][column] = value
    with pytest.raises(DatasetFormatError, match=r"0001\.xlsx, " + message):
        read_skeleton(write_rows(tmp_path / "0001.xlsx", rows), "openpose_xlsx")


def test_a_workbook_of_another_width_is_named(tmp_path):
    path = write_rows(tmp_path / "0001.xlsx", [row[:75] for row in cells(person())])
    with pytest.raises(DatasetFormatError, match=r"0001\.xlsx, row 1: expected 411 columns, got 75\."):
        read_skeleton(path, "openpose_xlsx")


@pytest.mark.parametrize("content", [b"", b"no workbook", b"PK\x03\x04" + bytes(50)])
def test_what_is_no_workbook_is_named(tmp_path, content):
    path = tmp_path / "0001.xlsx"
    path.write_bytes(content)
    with pytest.raises(DatasetFormatError, match=r"0001\.xlsx: cannot be read as a workbook"):
        read_skeleton(path, "openpose_xlsx")


def test_a_truncated_workbook_is_named(tmp_path):
    path = write_rows(tmp_path / "0001.xlsx", cells(person()))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetFormatError, match=r"0001\.xlsx: cannot be read as a workbook"):
        read_skeleton(path, "openpose_xlsx")


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_named(tmp_path, kind):
    for read in (read_skeleton, SkeletonCache(tmp_path / "cache").load):
        with pytest.raises(DatasetFormatError, match="nowhere"):
            read(tmp_path / "nowhere", kind)


def test_an_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match="kind is 'xlsx'; expected one of 'openpose_xlsx', 'light_hand_csv'"):
        read_skeleton(tmp_path, "xlsx")


# --- hands


def test_hands_in_the_other_order_are_put_in_the_layouts(tmp_path):
    path = write_rows(tmp_path / "0001.xlsx", cells(person(crossed=True)))
    skeleton = read_skeleton(path, "openpose_xlsx")
    np.testing.assert_array_equal(skeleton.keypoints, person())
    assert skeleton.facts["hand_order"] == "right-left"
    light = read_skeleton(write_light(tmp_path / "0001.csv", person(crossed=True)), "light_hand_csv")
    np.testing.assert_array_equal(light.keypoints, person()[:, LIGHT])
    assert light.facts["hand_order"] == "right-left"


def test_hands_without_evidence_are_left_as_they_are(tmp_path):
    together = person(crossed=True)
    together[:, 4] = together[:, 7]
    no_wrist, few = person(), person(4, crossed=True)
    no_wrist[:, 4] = 0
    no_hands = person()
    no_hands[:, 95:] = 0
    for number, keypoints in enumerate((together, no_wrist, few, no_hands)):
        assert find_hand_order(keypoints, "openpose-137") == "undecided"
        path = write_rows(tmp_path / f"{number}.xlsx", cells(keypoints))
        np.testing.assert_array_equal(read_skeleton(path, "openpose_xlsx").keypoints, keypoints)


def test_missing_hand_points_are_no_evidence():
    keypoints = person(20)
    # Zeros lie nearer to the right wrist than to the left one.
    keypoints[:, 95:116][:, 1:] = 0
    keypoints[3:15, 116:] = 0
    assert find_hand_order(keypoints, "openpose-137") == "left-right"
    assert find_hand_order(keypoints[:, LIGHT], "imigue-light-35") == "left-right"


# --- light_hand_csv


@pytest.mark.parametrize(
    ("index", "header", "found"),
    [
        (0, None, "from 0"),
        (1, None, "from 1"),
        (None, None, "none"),
        (0, ",".join(["", *map(str, range(105))]), "from 0"),
        (0, "frame," + ",".join(f"{axis}{i}" for i in range(35) for axis in "xyc"), "from 0"),
        (None, ",".join(map(str, range(105))), "none"),
    ],
)
def test_a_light_hand_file_with_and_without_header_and_index(tmp_path, index, header, found):
    path = write_light(tmp_path / "0001_light_hand.csv", person(), index, header)
    skeleton = read_skeleton(path, "light_hand_csv")
    np.testing.assert_array_equal(skeleton.keypoints, person()[:, LIGHT])
    assert skeleton.layout == "imigue-light-35"
    assert skeleton.facts["header_row"] is (header is not None)
    assert skeleton.facts["index_column"] == found
    assert skeleton.facts["columns"] == (105 if index is None else 106)


def test_byte_order_mark_and_empty_lines_at_the_end_are_no_content(tmp_path):
    path = write_light(tmp_path / "0001.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    np.testing.assert_array_equal(read_skeleton(path, "light_hand_csv").keypoints, person()[:, LIGHT])


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, 5, "x", r"row 1, column 6: expected a number, got 'x'"),
        (3, 5, "", r"row 4, column 6: expected a number, got ''"),
        (3, 5, "nan", r"row 4, column 6: expected a finite number, got nan"),
        (3, 5, "-inf", r"row 4, column 6: expected a finite number, got -inf"),
        (3, 6, -1, r"row 4, column 7: expected a confidence of 0 or more, got -1\.0"),
        (3, slice(9, 10), [], r"row 4: expected 106 columns, got 105"),
        (3, slice(0, 106), [], r"row 4: expected 106 columns, got 0"),
        (3, 0, 4, r"row 4, column 1: expected the index column to count the frames .*, got 4\.0"),
        (0, slice(0, 60), [], r"row 1: expected 106 or 105 columns, got 46"),
    ],
)
def test_a_bad_cell_of_a_light_hand_file_is_named(tmp_path, row, column, value, message):
    rows = light_rows(person())
    rows[row][column] = value
    with pytest.raises(DatasetFormatError, match=r"0001\.csv, " + message):
        read_skeleton(write_text(tmp_path / "0001.csv", rows), "light_hand_csv")


def test_rows_are_counted_with_the_header(tmp_path):
    rows = light_rows(person())
    rows[3][5] = "inf"
    path = write_text(tmp_path / "0001.csv", rows, "," + ",".join(map(str, range(105))))
    with pytest.raises(DatasetFormatError, match=r"row 5, column 6: expected a finite number, got inf"):
        read_skeleton(path, "light_hand_csv")


def test_an_index_that_starts_late_is_named(tmp_path):
    path = write_light(tmp_path / "0001.csv", index=7)
    with pytest.raises(DatasetFormatError, match=r"row 1, column 1: expected the index column .* got 7\.0"):
        read_skeleton(path, "light_hand_csv")


@pytest.mark.parametrize("kind", ["light_hand_csv", "smg_csv"])
def test_an_empty_text_file_is_named(tmp_path, kind):
    (tmp_path / "empty.csv").write_text("\n\n")
    with pytest.raises(DatasetFormatError, match=r"empty\.csv: no row of numbers; expected one for each frame"):
        read_skeleton(tmp_path / "empty.csv", kind)


def test_binary_content_is_no_table(tmp_path):
    (tmp_path / "0001.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(DatasetFormatError, match=r"0001\.csv"):
        read_skeleton(tmp_path / "0001.csv", "light_hand_csv")


# --- openpose_json


def test_a_folder_of_json_files(tmp_path):
    keypoints = person()
    keypoints[5] = 0
    write_openpose(tmp_path / "0001", keypoints, "0001")
    path = tmp_path / "0001" / "0001_000000000002_keypoints.json"
    content = json.loads(path.read_text())
    content["people"].insert(0, {"pose_keypoints_2d": [1.0] * 75})
    path.write_text(json.dumps(content))
    skeleton = read_skeleton(tmp_path / "0001", "openpose_json")
    np.testing.assert_array_equal(skeleton.keypoints, keypoints)
    assert skeleton.layout == "openpose-137"
    facts = skeleton.facts
    assert (facts["rows"], facts["rows_without_person"], facts["frames_with_several_people"]) == (NUM_FRAMES, 1, 1)
    assert facts["face_and_hands"]


def test_json_files_of_the_body_alone_have_the_same_layout(tmp_path):
    write_openpose(tmp_path / "0001", person()[:, :25], "0001")
    skeleton = read_skeleton(tmp_path / "0001", "openpose_json")
    assert skeleton.layout == "openpose-137" and not skeleton.facts["face_and_hands"]
    np.testing.assert_array_equal(skeleton.keypoints[:, :25], person()[:, :25])
    layout = get_layout("openpose-137")
    roots = {layout.index(f"{side}_hand_0"): layout.index(f"{side}_wrist") for side in ("left", "right")}
    for root, wrist in roots.items():
        np.testing.assert_array_equal(skeleton.keypoints[:, root], skeleton.keypoints[:, wrist])
    others = [index for index in range(25, 137) if index not in roots]
    assert not skeleton.keypoints[:, others].any()


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (4, None, r"1 frames lack a file, 4; expected every number from 0 to 7"),
        (0, None, r"0001: the first file is of frame 1; expected frame 0"),
        (4, ("[", "{"), r"_000000000004_keypoints\.json: invalid JSON"),
        (4, ('"pose_keypoints_2d":[', '"pose_keypoints_2d":[1.0,'), r"pose_keypoints_2d has 76 numbers"),
    ],
)
def test_bad_json_files_are_named(tmp_path, number, change, message):
    write_openpose(tmp_path / "0001", person(), "0001")
    path = tmp_path / "0001" / f"0001_{number:012d}_keypoints.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(*change))
    with pytest.raises(DatasetFormatError, match=message):
        read_skeleton(tmp_path / "0001", "openpose_json")


def test_a_negative_confidence_in_json_is_named(tmp_path):
    keypoints = person()
    keypoints[2, 3, 2] = -0.5
    write_openpose(tmp_path / "0001", keypoints, "0001")
    with pytest.raises(DatasetFormatError, match=r"0001, frame 2, point right_elbow: .* 0 or more, got -0\.5"):
        read_skeleton(tmp_path / "0001", "openpose_json")


# --- smg_csv


def test_smg_has_the_pixels_of_the_color_image(tmp_path):
    joints = smg_joints()
    joints[1, 4] = 0  # not tracked
    joints[2] = 0
    joints[3, 5, 9:] = -np.inf  # not in the color image
    joints[3, 6, :3] = np.nan
    skeleton = read_skeleton(write_smg(tmp_path / "Sample0001.csv", joints), "smg_csv")
    valid = valid_keypoints(skeleton.keypoints)
    expected = np.ones((NUM_FRAMES, 25), dtype=bool)
    expected[1, 4] = expected[3, 5] = expected[3, 6] = expected[2] = False
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(skeleton.keypoints[valid][:, :2], joints[valid][:, 9:].astype(np.float32))
    np.testing.assert_array_equal(skeleton.keypoints[..., 2], expected)
    assert not skeleton.keypoints[~valid].any()
    assert skeleton.layout == "kinect-25"
    assert skeleton.facts == {
        "kind": "smg_csv",
        "columns": 275,
        "header_row": False,
        "rows": NUM_FRAMES,
        "pixels": "columns 10 and 11 of each joint",
        "confidence": "position",
        "joints_without_position": 28,
        "rows_without_person": 1,
    }


def test_smg_with_the_pairs_of_pixels_in_the_other_order(tmp_path):
    joints = smg_joints()
    joints = joints[..., [0, 1, 2, 3, 4, 5, 6, 9, 10, 7, 8]]
    skeleton = read_skeleton(write_smg(tmp_path / "Sample0001.csv", joints), "smg_csv")
    assert skeleton.facts["pixels"] == "columns 8 and 9 of each joint"
    np.testing.assert_array_equal(skeleton.keypoints[..., :2], joints[..., 7:9].astype(np.float32))


@pytest.mark.parametrize("other", ["zeros", "depth", "fractions", "far outside", "infinite"])
def test_smg_without_pixels_of_the_color_image_is_projected(tmp_path, other):
    joints = smg_joints()
    color = joints[..., 9:].copy()
    values = {
        "zeros": 0 * color,
        "depth": joints[..., 7:9],
        "fractions": color / (1920, 1080),
        "far outside": color * 100,
        "infinite": color * np.inf,
    }[other]
    joints[..., 7:9], joints[..., 9:11] = values, values
    joints[0, 0, 2] = -1  # behind the camera
    skeleton = read_skeleton(write_smg(tmp_path / "Sample0001.csv", joints), "smg_csv")
    assert skeleton.facts["pixels"] == "projected"
    valid = valid_keypoints(skeleton.keypoints)
    assert not valid[0, 0] and valid.sum() == NUM_FRAMES * 25 - 1
    np.testing.assert_allclose(skeleton.keypoints[valid][:, :2], color[valid] - (25, 0), atol=1e-3)


def test_joints_keep_their_names(tmp_path):
    joints = smg_joints()
    keypoints = read_skeleton(write_smg(tmp_path / "Sample0001.csv", joints), "smg_csv").keypoints
    layout = get_layout("kinect-25")
    for name, index in (("head", 3), ("left_wrist", 6), ("right_wrist", 10), ("right_thumb", 24)):
        np.testing.assert_allclose(keypoints[:, layout.index(name), :2], joints[:, index, 9:], rtol=1e-6)


def test_bad_smg_files_are_named(tmp_path):
    rows = smg_joints().reshape(NUM_FRAMES, -1).tolist()
    rows[2][30] = "lost"
    with pytest.raises(DatasetFormatError, match=r"a\.csv, row 3, column 31: expected a number, got 'lost'"):
        read_skeleton(write_text(tmp_path / "a.csv", rows), "smg_csv")
    with pytest.raises(DatasetFormatError, match=r"b\.csv, row 1: expected 275 columns, got 225"):
        read_skeleton(write_text(tmp_path / "b.csv", [row[:225] for row in rows]), "smg_csv")


# --- the cache


@pytest.fixture
def cache(tmp_path):
    return SkeletonCache(tmp_path / "cache")


def record_reads(monkeypatch):
    """The names of the light_hand files that are read from now on, in order."""
    names, read = [], skeletons._READERS["light_hand_csv"]

    def read_and_record(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setitem(skeletons._READERS, "light_hand_csv", read_and_record)
    return names


@pytest.fixture
def reads(monkeypatch):
    return record_reads(monkeypatch)


def write_all_kinds(folder):
    write_openpose(folder / "json", person(), "0001")
    return [
        (write_rows(folder / "0001.xlsx", cells(person())), "openpose_xlsx"),
        (write_rows(folder / "0347.xlsx", []), "openpose_xlsx"),
        (write_light(folder / "0001.csv"), "light_hand_csv"),
        (folder / "json", "openpose_json"),
        (write_smg(folder / "Sample0001.csv", smg_joints()), "smg_csv"),
    ]


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_converted_skeleton_is_the_one_that_was_read(tmp_path, cache, num_proc, capsys):
    # A command that was run with --quiet before may have switched them off.
    datasets.enable_progress_bars()
    files = write_all_kinds(tmp_path)
    assert cache.convert(files, num_proc) == [None] * len(files)
    assert capsys.readouterr().err.count("Convert skeletons") >= 1
    assert len([*cache.folder.iterdir()]) == len(files)
    assert all(path.suffix == ".safetensors" for path in cache.folder.iterdir())
    assert cache.convert(files) == [None] * len(files)
    assert capsys.readouterr().err == ""
    for path, kind in files:
        read, loaded = read_skeleton(path, kind), cache.load(path, kind)
        np.testing.assert_array_equal(loaded.keypoints, read.keypoints, strict=True)
        assert (loaded.layout, loaded.facts) == (read.layout, read.facts)
        assert cache.facts(path, kind) == read.facts and cache.num_frames(path, kind) == len(read.keypoints)


def test_the_bar_follows_the_switch_of_datasets(tmp_path, cache, capsys):
    files = write_all_kinds(tmp_path)
    datasets.disable_progress_bars()
    try:
        cache.convert(files)
    finally:
        datasets.enable_progress_bars()
    assert capsys.readouterr().err == ""


def test_load_converts_what_is_absent_and_only_that(tmp_path, cache, reads):
    path = write_light(tmp_path / "0001.csv")
    assert cache.num_frames(path, "light_hand_csv") == NUM_FRAMES
    cache.load(path, "light_hand_csv")
    cache.convert([(path, "light_hand_csv"), (str(path), "light_hand_csv")])
    assert reads == ["0001.csv"]


def test_the_folder_is_in_the_cache_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    path = write_light(tmp_path / "0001.csv")
    SkeletonCache().load(path, "light_hand_csv")
    assert [file.suffix for file in (tmp_path / "hub" / "clipmg_skeletons").iterdir()] == [".safetensors"]


def test_a_relative_path_is_the_same_file(tmp_path, cache, reads, monkeypatch):
    path = write_light(tmp_path / "0001.csv")
    cache.load(path, "light_hand_csv")
    monkeypatch.chdir(tmp_path)
    cache.load("0001.csv", "light_hand_csv")
    assert reads == ["0001.csv"]


def test_a_changed_file_is_converted_again(tmp_path, cache, reads):
    before, after = person(), person()
    before[0, 0, 0], after[0, 0, 0] = 611.125, 722.375
    path = write_light(tmp_path / "0001.csv", before)
    status = path.stat()
    np.testing.assert_array_equal(cache.load(path, "light_hand_csv").keypoints, before[:, LIGHT])
    write_light(path, after)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert path.stat().st_size == status.st_size
    np.testing.assert_array_equal(cache.load(path, "light_hand_csv").keypoints, after[:, LIGHT])
    write_light(path, person(5))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache.num_frames(path, "light_hand_csv") == 5
    assert len(reads) == 3 and len([*cache.folder.iterdir()]) == 1


def test_a_changed_json_file_is_noticed(tmp_path, cache):
    write_openpose(tmp_path / "json", person(), "0001")
    cache.convert([(tmp_path / "json", "openpose_json")])
    path = tmp_path / "json" / f"0001_{NUM_FRAMES:012d}_keypoints.json"
    path.write_text('{"people": []}')
    assert cache.convert([(tmp_path / "json", "openpose_json")]) == [None]
    assert cache.num_frames(tmp_path / "json", "openpose_json") == NUM_FRAMES + 1


def test_another_version_of_the_readers_converts_again(tmp_path, cache, reads, monkeypatch):
    path = write_light(tmp_path / "0001.csv")
    cache.load(path, "light_hand_csv")
    monkeypatch.setattr(skeletons, "READER_VERSION", skeletons.READER_VERSION + 1)
    cache.load(path, "light_hand_csv")
    assert len(reads) == 2


def damage(entry, how):
    content = bytearray(entry.read_bytes())
    if how == "point":
        content[-5] ^= 1
    elif how == "fact":
        content[:] = content.replace(b"left-right", b"right-left")
    elif how == "truncated":
        del content[-100:]
    elif how == "header":
        del content[20:]
    elif how == "empty":
        content.clear()
    elif how == "other":
        content[:] = bytes(range(256)) * 8
    assert content != entry.read_bytes()
    entry.write_bytes(content)


@pytest.mark.parametrize("how", ["point", "fact", "truncated", "header", "empty", "other"])
def test_a_damaged_entry_is_made_anew_with_a_warning(tmp_path, cache, caplog, how):
    path = write_light(tmp_path / "0001.csv")
    cache.convert([(path, "light_hand_csv")], show_progress=False)
    (entry,) = cache.folder.iterdir()
    damage(entry, how)
    with caplog.at_level(logging.WARNING):
        loaded = cache.load(path, "light_hand_csv")
    assert "is damaged" in caplog.text and str(path) in caplog.text
    np.testing.assert_array_equal(loaded.keypoints, person()[:, LIGHT])
    assert loaded.facts["hand_order"] == "left-right"
    caplog.clear()
    np.testing.assert_array_equal(cache.load(path, "light_hand_csv").keypoints, loaded.keypoints)
    assert not caplog.text


@pytest.mark.parametrize("num_proc", [None, 2])
def test_all_problems_are_collected(tmp_path, cache, num_proc):
    files = [(write_light(tmp_path / f"{number}.csv"), "light_hand_csv") for number in range(5)]
    files.insert(1, (write_text(tmp_path / "short.csv", [[1, 2, 3]]), "light_hand_csv"))
    files.insert(4, (tmp_path / "absent.xlsx", "openpose_xlsx"))
    for _ in range(2):
        problems = cache.convert(files, num_proc, show_progress=False)
        assert [place for place, problem in enumerate(problems) if problem is not None] == [1, 4]
        assert "short.csv, row 1: expected 106 or 105 columns, got 3" in str(problems[1])
        assert "absent.xlsx: cannot be read (No such file or directory)" in str(problems[4])
    assert len([*cache.folder.iterdir()]) == 5


def test_a_full_disk_is_no_problem_of_a_file_and_leaves_nothing(tmp_path, cache, monkeypatch):
    path = write_light(tmp_path / "0001.csv")
    write = skeletons.Path.write_bytes

    def write_half(self, content):
        write(self, content[: len(content) // 2])
        assert self.suffix == ".partial"
        raise OSError(28, "No space left")

    monkeypatch.setattr(skeletons.Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        cache.convert([(path, "light_hand_csv")], show_progress=False)
    assert [*cache.folder.iterdir()] == []


CONVERT = """
import sys
from clipmg_hf.data.skeletons import SkeletonCache

files = [(path, "light_hand_csv") for path in sys.argv[3:]]
SkeletonCache(sys.argv[1]).convert(files, int(sys.argv[2]), show_progress=False)
"""


def is_being_read(pipe):
    """Whether a process waits for a named pipe's content."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        assert error.errno == errno.ENXIO
        return False
    return True


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the readers hang at named pipes")
@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_killed_conversion_goes_on_where_it_stopped(tmp_path, cache, monkeypatch, num_proc):
    sound = [write_light(tmp_path / f"{number}.csv") for number in range(4)]
    pipes = [tmp_path / f"{number}.csv" for number in range(4, 8)]
    for pipe in pipes:
        os.mkfifo(pipe)
    command = [sys.executable, "-c", CONVERT, str(cache.folder), str(num_proc), *map(str, [*sound, *pipes])]
    with subprocess.Popen(command) as process:
        wait_until(lambda: len([*cache.folder.glob("*.safetensors")]) == 4)
        time.sleep(0.5)
        process.kill()
    wait_until(lambda: not any(map(is_being_read, pipes)))
    for pipe in pipes:
        pipe.unlink()
        write_light(pipe)

    files = [(path, "light_hand_csv") for path in [*sound, *pipes]]
    names = record_reads(monkeypatch)
    assert cache.convert(files, show_progress=False) == [None] * 8
    assert names == [f"{number}.csv" for number in range(4, 8)]
    for path, kind in files:
        np.testing.assert_array_equal(cache.load(path, kind).keypoints, person()[:, LIGHT])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes inherit the barrier")
def test_two_processes_may_convert_the_same_file_at_once(tmp_path, cache, monkeypatch):
    path = write_light(tmp_path / "0001.csv")
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    read, replace = skeletons._READERS["light_hand_csv"], skeletons.Path.replace

    def replace_together(self, target):
        barrier.wait(20)  # both have written, neither has given the entry its name
        return replace(self, target)

    monkeypatch.setattr(skeletons.Path, "replace", replace_together)

    def load():
        loaded = cache.load(path, "light_hand_csv").keypoints
        results.put(bool(np.array_equal(loaded, read(path).keypoints)))

    processes = [context.Process(target=load) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert [results.get(), results.get()] == [True, True]
    assert [file.suffix for file in cache.folder.iterdir()] == [".safetensors"]


def test_half_written_entries_of_killed_processes_go(tmp_path, cache):
    cache.folder.mkdir()
    old, new = cache.folder / ".a.1.partial", cache.folder / ".a.2.partial"
    for partial in (old, new):
        partial.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.convert([])
    assert not old.exists() and new.exists()


# --- findings


def test_facts_are_summarized_one_line_for_each_kind_of_fact(tmp_path):
    facts = {}
    for number in range(1, 11):
        keypoints = person(crossed=number in (3, 7))
        keypoints[:2] = 0 if number == 5 else keypoints[:2]
        header = ",".join(["", *map(str, range(105))]) if number in (1, 2, 4) else None
        path = write_light(tmp_path / f"{number}.csv", keypoints, header=header)
        facts[f"{number:04d}"] = read_skeleton(path, "light_hand_csv").facts
    assert summarize_facts(facts) == [
        "light_hand_csv files: no header row (7 of 10), a header row (3 of 10: 0001, 0002, 0004).",
        "light_hand_csv files: an index column from 0 (all 10).",
        "light_hand_csv files: hands in the order left, right (8 of 10), hands in the order right, left, put in the "
        "layout's order (2 of 10: 0003, 0007).",
        "light_hand_csv files: 2 rows without a person, in 80 rows (1 of 10: 0005).",
    ]


def test_every_fact_has_words(tmp_path):
    facts = {str(path): read_skeleton(path, kind).facts for path, kind in write_all_kinds(tmp_path)}
    lines = summarize_facts(facts)
    words = skeletons._VALUE_FACTS | skeletons._COUNT_FACTS
    for entry in facts.values():
        assert set(entry) - set(words) == {"kind", "rows"} | ({"columns", "extent"} & set(entry))
        assert all(entry[fact] in words[fact] for fact in entry.keys() & skeletons._VALUE_FACTS.keys())
    assert "smg_csv files: pixels from columns 10 and 11 of each joint (all 1)." in lines
    assert any("tracking state is unknown" in line for line in lines)
    assert "openpose_json files: with face and hands (all 1)." in lines
    assert summarize_facts({}) == []
