"""The builder reads what the generator of MiGA packs writes, and names what it cannot read."""

import shutil

import numpy as np
import openpyxl
import pytest

from clipmg_hf.data import ClipDataset, DatasetFormatError, collate_clips, load_imigue
from clipmg_hf.data.imigue import find_videos, read_labels, read_skeleton
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset, generate_video, plan_dataset
from clipmg_hf.modeling import IMIGUE_LABELS
from clipmg_hf.processing import VideoReader


SMALL = SyntheticConfig(
    seed=5,
    num_train_subjects=2,
    num_validate_subjects=1,
    num_test_subjects=1,
    clips_per_video=10,
    max_clip_frames=24,
    max_gap_frames=4,
    width=160,
    height=90,
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return generate_dataset(tmp_path_factory.mktemp("pack"), SMALL, show_progress=False)


@pytest.fixture(scope="module")
def rows(pack, tmp_path_factory):
    return load_imigue(pack, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def copy(pack, tmp_path):
    return shutil.copytree(pack, tmp_path / "pack")


def test_every_clip_of_every_video_is_there(rows):
    plans = plan_dataset(SMALL)
    for split, name in (("train", "train"), ("validate", "validation"), ("test", "test")):
        expected = [
            (f"{plan.video_id}_{index}", start, end, label if split != "test" else -1)
            for plan in plans
            if plan.split == split
            for index, (label, start, end) in enumerate(plan.labels)
        ]
        found = rows[name]
        columns = (found[column] for column in ("clip_id", "start_frame", "end_frame", "label"))
        assert list(zip(*columns, strict=True)) == expected


def test_labels_carry_the_32_names(rows):
    assert rows["train"].features["label"].names == list(IMIGUE_LABELS)


def test_keypoints_are_those_of_the_interval(rows):
    video = generate_video(SMALL, 1, "0001")
    row = rows["train"].with_format("numpy")[3]
    expected = video.keypoints[row["start_frame"] : row["end_frame"] + 1]
    np.testing.assert_allclose(row["keypoints"], expected, atol=1e-3)
    assert row["keypoints"].dtype == np.float32


def test_the_video_holds_the_frames_of_the_clip(rows):
    row = rows["validation"][0]
    with VideoReader(row["video"]) as reader:
        assert reader.info.num_frames > row["end_frame"]


def test_a_changed_label_file_is_noticed(copy, tmp_path):
    before = load_imigue(copy, cache_dir=tmp_path / "cache")
    labels = find_videos(copy)[0].labels
    labels.write_text(labels.read_text().split("\n", 1)[1])
    after = load_imigue(copy, cache_dir=tmp_path / "cache")
    assert len(after["train"]) == len(before["train"]) - 1


def test_a_skeleton_only_pack_has_no_videos(copy, tmp_path):
    shutil.rmtree(copy / "imigue_rgb_phase1")
    found = load_imigue(copy, cache_dir=tmp_path / "cache")
    assert found["train"][0]["video"] is None


def test_a_missing_folder_and_a_folder_without_a_pack_are_named(tmp_path):
    with pytest.raises(DatasetFormatError, match=r"nowhere: no such folder"):
        load_imigue(tmp_path / "nowhere")
    with pytest.raises(
        DatasetFormatError, match=r"no iMiGUE pack found; expected folders named imigue_skeleton_train"
    ):
        load_imigue(tmp_path)


def test_a_video_folder_without_labels_is_named(copy):
    find_videos(copy)[0].labels.unlink()
    with pytest.raises(DatasetFormatError, match=r"0001_label\.csv: no such file"):
        load_imigue(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3,1\n", r"row 1: expected integers class,start_frame,end_frame, got '3,1'"),
        ("3,1,5\nclass,a,b\n", r"row 2: expected integers class,start_frame,end_frame, got 'class,a,b'"),
        ("3,5,1\n", r"row 1: the interval 5\.\.1 is not inside the 50 frames"),
        ("3,40,50\n", r"row 1: the interval 40\.\.50 is not inside the 50 frames"),
        ("32,1,5\n", r"row 1: class 32 is unknown; expected 1\.\.31 or 99"),
    ],
)
def test_a_bad_row_of_labels_is_named(tmp_path, text, message):
    path = tmp_path / "0001_label.csv"
    path.write_text(text)
    with pytest.raises(DatasetFormatError, match=r"0001_label\.csv, " + message):
        read_labels(path, 50, has_classes=True)


def test_raw_classes_become_canonical_labels(tmp_path):
    path = tmp_path / "0001_label.csv"
    path.write_text("1,0,1\n31,2,3\n99,4,5\n")
    assert [label for label, _, _ in read_labels(path, 50, has_classes=True)] == [0, 30, 31]
    assert [label for label, _, _ in read_labels(path, 50, has_classes=False)] == [-1, -1, -1]


def write_workbook(path, rows):
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet()
    for row in rows:
        sheet.append(row)
    workbook.save(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0] * 411, [1.0] * 410 + ["x"]], r"row 2, column 411: expected a number, got 'x'"),
        ([[1.0] * 106], r"row 1: expected 411 columns \(137 x \(x, y, confidence\)\), got 106"),
    ],
)
def test_a_bad_skeleton_is_named(tmp_path, rows, message):
    write_workbook(tmp_path / "0001_openpose.xlsx", rows)
    with pytest.raises(DatasetFormatError, match=r"0001_openpose\.xlsx, " + message):
        read_skeleton(tmp_path / "0001_openpose.xlsx")


def test_a_skeleton_that_is_no_workbook_is_named(copy, tmp_path):
    find_videos(copy)[0].skeleton.write_bytes(b"not a workbook")
    with pytest.raises(DatasetFormatError, match=r"0001_openpose\.xlsx: cannot be read as a workbook"):
        load_imigue(copy, cache_dir=tmp_path / "cache")


def test_leading_frames_without_a_person_are_kept(tmp_path):
    write_workbook(tmp_path / "a_openpose.xlsx", [[0] * 411, [1.5] * 411])
    keypoints = read_skeleton(tmp_path / "a_openpose.xlsx")
    assert keypoints.shape == (2, 137, 3)
    assert not keypoints[0].any()


def test_items_have_the_shapes_of_the_model(rows, loaded):
    model, processor = loaded
    items = ClipDataset(rows["train"], processor, augment=True)
    batch = collate_clips([items[0], items[1]])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "pixel_values": (2, 8, 3, 32, 32),
        "keypoints": (2, 32, 22, 3),
        "keypoint_mask": (2, 32),
        "labels": (2,),
    }
    assert model(**batch).loss.isfinite()


def test_rows_without_labels_cannot_be_learned_from(rows, loaded):
    with pytest.raises(ValueError, match=r"10 of 10 rows have no label, first row 0 \(0004_0\)"):
        ClipDataset(rows["test"], loaded[1])
