"""SMG: Kinect skeletons as a named layout, labels whose first index is found out."""

import shutil

import numpy as np
import pytest

from clipmg_hf.data import DatasetFormatError, load_smg
from clipmg_hf.data.labels import SMG_LABELS
from clipmg_hf.data.smg import find_smg
from clipmg_hf.data.synthetic import generate_video
from clipmg_hf.data.synthetic_layouts import SMG_CLASSES, default_config, kinect_skeleton, plan_layout, write_layout


CONFIG = default_config("smg")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_layout(tmp_path_factory.mktemp("smg"), "smg", CONFIG)


@pytest.fixture
def copy(pack, tmp_path):
    return shutil.copytree(pack, tmp_path / "smg")


def test_every_clip_is_there(pack, cache):
    rows = load_smg(pack, cache_dir=cache)
    assert rows["train"].features["label"].names == list(SMG_LABELS)
    names = {"train": "train", "validate": "validation", "test": "test"}
    for plan in plan_layout("smg", CONFIG):
        split = rows[names[plan.split]]
        ids = split["video_id"]
        video_id = next(v for v in set(ids) if int(v.removeprefix("Sample")) == int(plan.video_id))
        mine = [row for row in split.remove_columns(["keypoints", "keypoints_valid"]) if row["video_id"] == video_id]
        assert [(row["start_frame"], row["end_frame"]) for row in mine] == [(s, e) for _, s, e in plan.labels]
        if plan.split != "test":
            assert [row["label"] for row in mine] == [SMG_CLASSES[label] for label, _, _ in plan.labels]
        assert {row["fps"] for row in mine} == {28}


def test_labels_that_count_from_1_are_moved(pack, tmp_path, cache):
    root = write_layout(tmp_path / "smg", "smg", CONFIG, rgb=False, first_frame=1)
    assert any(
        "frames count from 1 (intervals end at the number of frames" in text for text in find_smg(root).findings
    )
    moved, plain = (load_smg(folder, cache_dir=cache)["train"] for folder in (root, pack))
    assert moved["start_frame"][:] == plain["start_frame"][:]
    # The last clip of each video lasts to its end here.
    assert moved["end_frame"][:9] == plain["end_frame"][:9]


def test_a_clip_that_starts_at_0_tells_the_index_base(copy, cache):
    labels = next(copy.rglob("smg_skeleton_train/*/*_finelabels.csv"))
    labels.write_text(f"3,0,9\n{labels.read_text()}")
    assert any("frames count from 0 (an interval starts there)" in text for text in find_smg(copy).findings)
    row = load_smg(copy, cache_dir=cache)["train"][0]
    assert (row["start_frame"], row["end_frame"], row["label"]) == (0, 9, 2)


def test_an_index_base_that_nothing_tells_is_reported(pack):
    assert any("nothing tells whether frames count from 0 or from 1" in text for text in find_smg(pack).assumptions)


def test_joints_are_pixels_of_the_color_image(pack, cache):
    plan = plan_layout("smg", CONFIG)[0]
    video = generate_video(CONFIG, plan.subject, plan.video_id)
    row = load_smg(pack, cache_dir=cache)["train"].with_format("numpy")[0]
    values = kinect_skeleton(video.clean_keypoints, CONFIG.width, CONFIG.height)
    expected = values.reshape(len(values), 25, 11)[row["start_frame"] : row["end_frame"] + 1, :, 9:11]
    valid = row["keypoints_valid"]
    assert valid.any()
    np.testing.assert_allclose(row["keypoints"][valid][:, :2], expected[valid], atol=1e-2)
    assert row["keypoint_layout"] == "kinect-25"


def test_skeletons_may_be_left_alone(pack, cache):
    assert "keypoints" not in load_smg(pack, cache_dir=cache, skeleton="none")["train"].column_names


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("finelabels", "18,1,5\n", r"_finelabels\.csv, row 1: class 18 is unknown; expected 1\.\.17"),
        ("finelabels", "3,1\n", r"_finelabels\.csv, row 1: expected integers class,start,end, got '3,1'"),
        ("finelabels", "3,9,5\n", r"row 1: the interval is 9\.\.5; expected"),
        ("data", "many\n", r"_data\.csv: expected numFrames,fps,maxDepth, got 'many'"),
        ("skeleton", "1,2,3\n", r"_skeleton\.csv.*275"),
    ],
)
def test_damage_is_named(copy, cache, file, text, message):
    next((copy).rglob(f"smg_skeleton_train/*/*_{file}.csv")).write_text(text)
    with pytest.raises(DatasetFormatError, match=message):
        load_smg(copy, cache_dir=cache)


def test_video_without_labels_and_wrong_folders_are_named(copy):
    next(copy.rglob("*_finelabels.csv")).unlink()
    with pytest.raises(DatasetFormatError, match=r"has no labels; expected Sample\d+_finelabels\.csv"):
        find_smg(copy)
    with pytest.raises(DatasetFormatError, match=r"no SMG labels found"):
        find_smg(copy / "SMG_RGB_Phase1")
