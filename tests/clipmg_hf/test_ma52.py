"""MA-52: lists of trimmed clips."""

import shutil

import pytest

from clipmg_hf.data import ClipDataset, DatasetFormatError, load_ma52
from clipmg_hf.data.labels import MA52_GROUP_NAMES, MA52_GROUPS
from clipmg_hf.data.ma52 import find_ma52
from clipmg_hf.data.synthetic_layouts import MA52_CLASSES, default_config, plan_layout, write_layout


CONFIG = default_config("ma52")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_layout(tmp_path_factory.mktemp("ma52"), "ma52", CONFIG)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "ma52")


def test_every_clip_is_there(folder, cache):
    rows = load_ma52(folder, cache_dir=cache)
    plans = plan_layout("ma52", CONFIG)
    for split, name in (("train", "train"), ("validate", "validation"), ("test", "test")):
        clips = [clip for plan in plans if plan.split == split for clip in plan.labels]
        assert len(rows[name]) == len(clips)
        labels = [MA52_CLASSES[label] for label, _, _ in clips] if split != "test" else [-1] * len(clips)
        assert sorted(rows[name]["label"]) == sorted(labels)
        lengths = [end - start + 1 for _, start, end in clips]
        assert sorted(end + 1 for end in rows[name]["end_frame"]) == sorted(lengths)
    row = rows["train"][0]
    assert MA52_GROUP_NAMES[row["group"]] == MA52_GROUPS[row["label"]]
    assert rows["train"].features["label"].names[0].startswith("synthetic action")
    assert (row["width"], row["height"], row["start_frame"]) == (160, 90, 0)
    assert "keypoints" not in rows["train"].column_names


def test_clips_are_processed_without_pose(folder, cache, loaded):
    item = ClipDataset(load_ma52(folder, cache_dir=cache)["train"], loaded[1])[0]
    assert "keypoints" not in item
    assert item["pixel_values"].shape == (8, 3, 32, 32)


def test_names_are_optional(copy):
    next(copy.rglob("label_name.txt")).unlink()
    source = find_ma52(copy)
    assert source.label_names[3] == "micro-action 3"
    assert "label_name.txt is missing: classes are called by their numbers." in source.findings


def test_one_part_alone_is_enough(copy, cache):
    shutil.rmtree(next(copy.rglob("videos_test")))
    rows = load_ma52(copy, cache_dir=cache)
    assert set(rows) == {"train", "validation"}
    assert any("RGB of the part test" in text for text in find_ma52(copy).missing)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../etc/passwd.mp4 3", r"row 1: the name is '\.\./\.\./etc/passwd\.mp4'; expected one without folders"),
        ("a.mp4", r"row 1: expected a file name and a class, got 'a\.mp4'"),
        ("a.mp4 52", r"row 1: class 52 is unknown; expected 0\.\.51"),
        ("nowhere.mp4 3", r"nowhere\.mp4 is not among the videos of its part"),
    ],
)
def test_bad_lines_are_named(copy, line, message):
    path = next(copy.rglob("train_list_videos.txt"))
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(DatasetFormatError, match=message):
        find_ma52(copy)


def test_repeated_and_unlisted_videos_are_named(copy):
    path = next(copy.rglob("train_list_videos.txt"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[:-1]]) + "\n")
    with pytest.raises(DatasetFormatError) as caught:
        find_ma52(copy)
    assert "is also in" in str(caught.value)
    assert "1 videos of the part train have no label" in str(caught.value)
