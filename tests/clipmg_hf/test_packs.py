"""Packs in exactly the forms that others publish become rows of the schema, and what is wrong with them is named."""

import copy
import logging
import pickle
import zipfile

import numpy as np
import pytest

from clipmg_hf.data.labels import IMIGUE_GROUP_NAMES, IMIGUE_GROUPS, SMG_GROUP_NAMES, SMG_GROUPS, SMG_LABELS
from clipmg_hf.data.packs import find_array_files, load_miga_arrays, load_pyskl, rename_splits
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.schema import clip_features
from clipmg_hf.modeling import IMIGUE_LABELS


LABELS = {"0001_0": 3, "0001_1": 31, "0002_0": 7, "0003_0": 12, "0003_1": 0, "0004_0": 5, "0004_1": 6}
SPLIT = {"train": ["0001_0", "0001_1", "0002_0"], "val": ["0003_1", "0003_0"], "test": ["0004_0", "0004_1"]}


def make_points(seed: int, num_frames: int, num_keypoints: int = 22, size: tuple[int, int] = (1280, 720)):
    """(T, K, 3) points inside the frame; one of them is missing in every frame, and a frame has no person."""
    generator = np.random.default_rng(seed)
    points = generator.uniform((1, 1, 0.2), (*size, 1), size=(num_frames, num_keypoints, 3)).astype(np.float32)
    points[:, 4] = 0
    points[num_frames // 2] = 0
    return points


def make_pyskl(num_keypoints: int = 22, size: tuple[int, int] = (1280, 720), dtype=np.float32) -> dict:
    annotations = []
    for index, (name, label) in enumerate(LABELS.items()):
        points = make_points(index, 6 + index, num_keypoints, size)[None].astype(dtype)
        annotations.append(
            {
                "frame_dir": name,
                "label": label,
                "img_shape": size[::-1],
                "original_shape": size[::-1],
                "total_frames": points.shape[1],
                "keypoint": points[..., :2],
                "keypoint_score": points[..., 2],
            }
        )
    return {"split": copy.deepcopy(SPLIT), "annotations": annotations}


def write(path, content, protocol: int = 4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.fixture
def load(tmp_path):
    """Write a pickled PYSKL dictionary and load it."""

    def load(content, **arguments):
        return load_pyskl(write(tmp_path / "pyskl.pkl", content), show_progress=False, **arguments)

    return load


@pytest.mark.parametrize("protocol", range(6))
def test_a_pyskl_file_becomes_rows_of_the_schema(tmp_path, protocol):
    pack = make_pyskl()
    rows = load_pyskl(write(tmp_path / "pyskl.pkl", pack, protocol), show_progress=False)
    assert {name: split["clip_id"][:] for name, split in rows.items()} == {
        "train": ["0001_0", "0001_1", "0002_0"],
        "validation": ["0003_1", "0003_0"],
        "test": ["0004_0", "0004_1"],
    }
    annotations = {annotation["frame_dir"]: annotation for annotation in pack["annotations"]}
    for name, split in rows.items():
        assert split.features == clip_features(IMIGUE_LABELS, IMIGUE_GROUP_NAMES, "imigue-22")
        assert str(split.split) == name
        for row in split.with_format("numpy"):
            annotation = annotations[row["clip_id"]]
            expected = np.concatenate([annotation["keypoint"][0], annotation["keypoint_score"][0][..., None]], -1)
            np.testing.assert_array_equal(row["keypoints"], expected)
            np.testing.assert_array_equal(row["keypoints_valid"], expected[..., 2] > 0)
    assert {key: value for key, value in rows["train"][1].items() if not key.startswith("keypoints")} == {
        "clip_id": "0001_1",
        "video_id": "0001",
        "start_frame": 0,
        "end_frame": 6,
        "fps": None,
        "label": 31,
        "group": IMIGUE_GROUP_NAMES.index("none"),
        "subject": None,
        "emotion": None,
        "width": 1280,
        "height": 720,
        "video": None,
        "video_start_frame": 0,
        "keypoint_layout": "imigue-22",
    }


def test_groups_follow_the_labels(load):
    for split in load(make_pyskl()).values():
        for label, group in zip(split["label"], split["group"], strict=True):
            assert IMIGUE_GROUP_NAMES[group] == IMIGUE_GROUPS[label]


@pytest.mark.parametrize(("num_keypoints", "layout"), [(17, "coco-17"), (36, "imigue-36"), (137, "openpose-137")])
def test_the_number_of_points_names_the_layout(load, num_keypoints, layout):
    row = load(make_pyskl(num_keypoints))["train"].with_format("numpy")[0]
    assert row["keypoint_layout"] == layout
    assert row["keypoints"].shape == (6, num_keypoints, 3)


def test_half_precision_is_read(load):
    pack = make_pyskl(dtype=np.float16)
    row = load(pack)["train"].with_format("numpy")[0]
    assert row["keypoints"].dtype == np.float32
    np.testing.assert_array_equal(row["keypoints"][..., :2], pack["annotations"][0]["keypoint"][0].astype(np.float32))


def test_points_without_a_score_become_missing_points(load):
    pack = make_pyskl()
    pack["annotations"][0]["keypoint_score"][0, 1, 2] = 0
    row = load(pack)["train"].with_format("numpy")[0]
    assert not row["keypoints"][1, 2].any()
    assert not row["keypoints_valid"][1, 2]


def test_more_rows_than_a_chunk_keep_their_order(load, monkeypatch):
    expected = load(make_pyskl())["train"].with_format("numpy")[:]
    monkeypatch.setattr("clipmg_hf.data.packs.ROWS_PER_CHUNK", 2)
    found = load(make_pyskl())["train"].with_format("numpy")[:]
    assert found["clip_id"].tolist() == expected["clip_id"].tolist()
    for first, second in zip(found["keypoints"], expected["keypoints"], strict=True):
        np.testing.assert_array_equal(first, second)


def test_of_several_people_the_surest_is_taken(load, caplog):
    pack = make_pyskl()
    annotation = pack["annotations"][1]
    keypoint, score = annotation["keypoint"], annotation["keypoint_score"]
    annotation["keypoint"] = np.concatenate([keypoint[:, ::-1], keypoint, keypoint[:, ::-1]])
    annotation["keypoint_score"] = np.concatenate([0.5 * score[:, ::-1], score, 0.9 * score[:, ::-1]])
    row = load(pack)["train"].with_format("numpy")[1]
    np.testing.assert_array_equal(row["keypoints"][..., :2], keypoint[0])
    assert "pyskl.pkl: 1 clips show several people; the one with the highest sum of scores is taken" in caplog.text


def test_other_data_sets_bring_their_own_names(load):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        annotation["label"] = annotation["label"] % len(SMG_LABELS)
    names = {"label_names": SMG_LABELS, "label_groups": SMG_GROUPS, "group_names": SMG_GROUP_NAMES}
    row = load(pack, **names)["train"][0]
    assert row["group"] == SMG_GROUP_NAMES.index(SMG_GROUPS[row["label"]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_names": SMG_LABELS}, "17 label_names have 32 label_groups"),
        ({"group_names": ("head",)}, "label_groups are not among group_names"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'raise' or 'skip'"),
        ({"keypoint_layout": "imigue-23"}, "Unknown keypoint layout 'imigue-23'"),
    ],
)
def test_wrong_arguments_are_named(load, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(make_pyskl(), **arguments)


# Sizes of the frames


def test_a_wrong_image_shape_is_corrected_and_said_once(load, caplog):
    pack = make_pyskl()
    for annotation in pack["annotations"][1:]:
        annotation["img_shape"] = (1080, 1920)
    # A fingertip beyond the edge of the frame does not hide that the points are those of a 720p video.
    pack["annotations"][2]["keypoint"][0, 0, 0] = (1290, 725)
    rows = load(pack)
    assert {size for split in rows.values() for size in zip(split["width"], split["height"], strict=True)} == {
        (1280, 720)
    }
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "6 of 7 annotations say img_shape (1080, 1920), but their points fit (720, 1280)" in warnings[0]


def test_a_right_image_shape_of_1080_is_kept(load, caplog):
    rows = load(make_pyskl(size=(1920, 1080)))
    assert set(rows["train"]["width"]) == {1920}
    assert not caplog.records


def test_a_given_image_size_replaces_the_image_shapes(load):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        del annotation["img_shape"]
    row = load(pack, image_size=(1300, 730))["train"][0]
    assert (row["width"], row["height"]) == (1300, 730)


def test_points_far_outside_of_the_frame_are_a_problem(load):
    pack = make_pyskl()
    pack["annotations"][3]["keypoint"] *= 2
    message = r"clip 0003_0 of .*pyskl\.pkl: \d+ of 168 points lie far outside of the frame of 1280 x 720"
    with pytest.raises(DatasetFormatError, match=message) as info:
        load(pack)
    assert len(info.value.problems) == 1


def test_fingertips_that_leave_the_frame_are_none(load):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        annotation["keypoint"][:, 0, -5:, 1] = 790
        annotation["keypoint"][:, 0, -5:, 0] = -40
    assert load(pack)["train"].num_rows == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points / (1280, 720), "the points are normalised to at most 2"),
        (lambda points: points / (640, 360) - 1, "the points are normalised to at most 2"),
        (lambda points: points - (640, 360), r"7\d% of the points have negative coordinates, as if they were centred"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_points_that_are_no_pixels_are_refused(load, change, message, on_error):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        annotation["keypoint"] = change(annotation["keypoint"])
    with pytest.raises(DatasetFormatError, match=rf"pyskl\.pkl: {message}; expected x, y in pixels"):
        load(pack, on_error=on_error)


def test_scores_that_are_all_zero_are_refused(load):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        annotation["keypoint_score"][:] = 0
    with pytest.raises(DatasetFormatError, match="no point has a score above 0"):
        load(pack)


# Splits


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["train", "val", "test"], ["train", "validation", "test"]),
        (["xsub_train", "xsub_val"], ["train", "validation"]),
        (["train", "valid"], ["train", "validation"]),
        (["xsub_train", "xsub_val", "xset_train", "xset_val"], ["xsub_train", "xsub_val", "xset_train", "xset_val"]),
        (["train", "xsub_train", "val"], ["train", "xsub_train", "validation"]),
        (["train1", "holdout"], ["train1", "holdout"]),
    ],
)
def test_splits_keep_their_names_where_they_must(given, expected):
    assert list(rename_splits(given).values()) == expected


def test_a_clip_may_be_in_several_splits(load):
    pack = make_pyskl()
    everything = list(LABELS)
    pack["split"] = {"xsub_train": everything[:5], "xsub_test": everything[5:], "all_train": everything}
    rows = load(pack)
    assert {name: split["clip_id"][:] for name, split in rows.items()} == {
        "xsub_train": everything[:5],
        "test": everything[5:],
        "all_train": everything,
    }


def test_placeholders_of_a_test_split_become_hidden_labels(load, caplog):
    pack = make_pyskl()
    for annotation in pack["annotations"][-2:]:
        annotation["label"] = 0
    rows = load(pack)
    assert rows["test"]["label"][:] == [-1, -1]
    assert rows["test"]["group"][:] == [-1, -1]
    assert "all 2 labels of the test split are 0; they are taken as placeholders" in caplog.text


def test_hidden_labels_are_read(load):
    pack = make_pyskl()
    pack["annotations"][-1]["label"] = -1
    assert load(pack)["test"]["label"][:] == [5, -1]


# Problems


def bad_annotations() -> dict[str, tuple]:
    """Changes of an annotation and the problem that each makes."""
    nan = make_points(0, 6)[None, ..., :2]
    nan[0, 1, 2, 0] = np.nan
    zeros = np.zeros
    return {
        "no label": ({"label": None}, r"expected a label 0\.\.31, or -1 for a hidden one, got None"),
        "label too high": ({"label": 32}, r"expected a label 0\.\.31, .* got 32"),
        "label too low": ({"label": -2}, r"expected a label 0\.\.31, .* got -2"),
        "huge label": ({"label": 10**6000}, r"expected a label 0\.\.31, .* got an integer of more than 64 bits"),
        "label with a point": ({"label": 1.0}, r"expected a label 0\.\.31, .* got 1\.0"),
        "name without number": (
            {"frame_dir": "0001"},
            r"expected a name <video>_<number>, such as 0187_0, got '0001'",
        ),
        "name that is no text": ({"frame_dir": 5}, r"expected a name <video>_<number>, such as 0187_0, got 5"),
        "img_shape": ({"img_shape": (720, 1280, 3)}, r"expected 'img_shape' \(height, width\), got \(720, 1280, 3\)"),
        "img_shape of zero": ({"img_shape": (0, 1280)}, r"expected 'img_shape' \(height, width\), got \(0, 1280\)"),
        "frames": ({"total_frames": 7}, r"'total_frames' is 7, but 'keypoint' has 6 frames"),
        "NaN": ({"keypoint": nan}, r"expected finite numbers below 1,000,000 in 'keypoint'"),
        "huge point": ({"keypoint": zeros((1, 6, 22, 2)) + 1e300}, r"expected finite numbers below 1,000,000"),
        "no person": (
            {"keypoint": zeros((0, 6, 22, 2))},
            r"expected 'keypoint' \(M, T, K, 2\), got an array float64",
        ),
        "no people axis": ({"keypoint": zeros((6, 22, 2))}, r"expected 'keypoint' \(M, T, K, 2\), got an array"),
        "three channels": ({"keypoint": zeros((1, 6, 22, 3))}, r"expected 'keypoint' \(M, T, K, 2\), got an array"),
        "list of points": ({"keypoint": [[1.0]]}, r"expected 'keypoint' \(M, T, K, 2\), got a list"),
        "other points": (
            {"keypoint": zeros((1, 6, 17, 2)), "keypoint_score": zeros((1, 6, 17))},
            r"expected the 22 points of layout 'imigue-22', got an array float64 of shape \(1, 6, 17, 2\)",
        ),
        "scores": ({"keypoint_score": zeros((1, 5, 22))}, r"expected 'keypoint_score' \(1, 6, 22\), got an array"),
    }


@pytest.mark.parametrize("name", bad_annotations())
def test_a_bad_annotation_is_named(load, name):
    change, message = bad_annotations()[name]
    pack = make_pyskl()
    pack["annotations"][0].update(change)
    with pytest.raises(DatasetFormatError, match=rf"annotation 0 \([^ ]+\): {message}"):
        load(pack)


@pytest.mark.parametrize("key", ["frame_dir", "label", "img_shape", "total_frames", "keypoint", "keypoint_score"])
def test_a_missing_key_is_named(load, key):
    pack = make_pyskl()
    del pack["annotations"][2][key]
    with pytest.raises(DatasetFormatError, match=rf"annotation 2 \([^ ]+\): lacks '{key}'"):
        load(pack)


def make_broken_pyskl() -> dict:
    """Has one problem of each of several kinds; the clips 0001_1, 0002_0 and 0003_1 have none."""
    pack = make_pyskl()
    annotations = pack["annotations"]
    annotations[0]["label"] = 99
    annotations[0]["total_frames"] = 1
    annotations[3]["keypoint"] = annotations[3]["keypoint"] * 2
    annotations.append({**annotations[2], "label": 1})
    annotations.append("0005_0")
    pack["split"] = {"train": ["0001_0", "0001_1", "0002_0", "0001_1"], "val": ["0003_1", "0003_0", "0009_0"]}
    pack["split"]["test"] = 5
    return pack


def test_all_problems_are_raised_at_once(load):
    with pytest.raises(DatasetFormatError) as info:
        load(make_broken_pyskl())
    expected = [
        "annotation 0 ('0001_0'): expected a label 0..31, or -1 for a hidden one, got 99.",
        "annotation 0 ('0001_0'): 'total_frames' is 1, but 'keypoint' has 6 frames.",
        "annotation 7 ('0002_0'): another annotation has the same 'frame_dir'.",
        "annotation 8 (None): expected a dictionary, got '0005_0'.",
        "clip 0003_0 of ",
        "split 'train': '0001_1' is in it 2 times.",
        "split 'val': no annotation is called '0009_0'.",
        "split 'test': expected a list of names of annotations, got 5.",
        "annotation '0004_0': it is in no split.",
        "annotation '0004_1': it is in no split.",
    ]
    assert len(info.value.problems) == len(expected)
    for problem, start in zip(info.value.problems, expected, strict=True):
        assert problem.startswith(start)
    assert "pyskl.pkl: 10 problems" in str(info.value)


def test_skip_leaves_out_what_has_problems_and_says_so(load, caplog):
    rows = load(make_broken_pyskl(), on_error="skip")
    assert {name: split["clip_id"][:] for name, split in rows.items()} == {
        "train": ["0001_1", "0002_0"],
        "validation": ["0003_1"],
    }
    assert rows["train"]["label"][:] == [31, 7]
    assert "pyskl.pkl: 10 problems" in caplog.text
    assert "annotation 8 (None): expected a dictionary, got '0005_0'." in caplog.text


def test_nothing_left_is_an_error_even_when_skipping(load):
    pack = make_pyskl()
    for annotation in pack["annotations"]:
        annotation["label"] = 99
    with pytest.raises(DatasetFormatError, match="7 problems"):
        load(pack, on_error="skip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a dictionary with the keys 'split'"),
        ({"annotations": []}, "expected a dictionary with the keys 'split'"),
        ({"split": {}}, "expected 'annotations' to be a list of dictionaries, got None"),
        ({"split": {}, "annotations": []}, r"expected 'annotations' to be a list of dictionaries, got \(\)"),
        (
            {"split": {}, "annotations": [{"label": 1}]},
            r"no annotation has an array 'keypoint' of shape \(M, T, K, 2\)",
        ),
        ({**make_pyskl(), "split": {"a b": []}}, "expected letters, digits and _ as the name of a split, got 'a b'"),
        (make_pyskl(23), "No keypoint layout has 23 points"),
    ],
)
def test_another_content_is_named(load, content, message):
    with pytest.raises(DatasetFormatError, match=rf"pyskl\.pkl: {message}"):
        load(content)


def test_what_is_no_file_of_a_pickle_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as archive:
        archive.writestr("imigue.pkl", b"")
    for path, message in (
        (tmp_path, "this is a folder; expected the file of a PYSKL pickle"),
        (tmp_path / "pack.zip", "this is a zip archive; .*: unpack it first"),
        (tmp_path / "nowhere.pkl", "no such file; expected the file of a PYSKL pickle"),
    ):
        with pytest.raises(DatasetFormatError, match=message):
            load_pyskl(path)


def test_a_layout_with_another_number_of_points_is_refused(load):
    with pytest.raises(DatasetFormatError, match="expected the 36 points of layout 'imigue-36', got 22"):
        load(make_pyskl(), keypoint_layout="imigue-36")


def test_deeply_shared_values_do_not_make_endless_messages(load):
    bomb: list = [1]
    for _ in range(60):
        bomb = [bomb] * 10
    pack = make_pyskl()
    pack["annotations"][0].update(label=bomb, img_shape=bomb, total_frames=bomb)
    pack["annotations"][1].update(frame_dir=bomb, keypoint=bomb, keypoint_score=bomb)
    with pytest.raises(DatasetFormatError, match="got a list") as info:
        load(pack)
    assert len(str(info.value)) < 2000


def test_a_pickle_that_names_a_function_is_refused(tmp_path):
    marker = tmp_path / "marker"

    class Run:
        def __reduce__(self):
            return marker.touch, ()

    pack = make_pyskl()
    pack["annotations"][0]["label"] = Run()
    with pytest.raises(DatasetFormatError, match=r"pyskl\.pkl, byte \d+: global '.*' is refused"):
        load_pyskl(write(tmp_path / "pyskl.pkl", pack))
    assert not marker.exists()


def test_a_changed_file_is_noticed(load):
    pack = make_pyskl()
    assert load(pack)["train"][0]["label"] == 3
    pack["annotations"][0]["label"] = 4
    assert load(pack)["train"][0]["label"] == 4


# Arrays


def make_array(names, num_frames: int = 90, num_people: int = 1) -> np.ndarray:
    """(N, 3, T, 22, M): the clips of `make_points`, with zeros after their last frame."""
    array = np.zeros((len(names), 3, num_frames, 22, num_people), np.float32)
    for index in range(len(names)):
        points = make_points(index, 6 + index)
        array[index, :, : len(points), :, 0] = points.transpose(2, 0, 1)
    return array


@pytest.fixture
def arrays(tmp_path):
    """A folder of arrays in the usual names, one test label of which is a placeholder."""
    folder = tmp_path / "arrays"
    folder.mkdir()
    for split, names in SPLIT.items():
        np.save(folder / f"{split}_data.npy", make_array(names))
        write(folder / f"{split}_label.pkl", (names, [LABELS[name] for name in names]))
    return folder


def test_arrays_become_rows_of_the_schema(arrays):
    rows = load_miga_arrays(arrays, show_progress=False)
    assert {name: split["clip_id"][:] for name, split in rows.items()} == {
        "train": SPLIT["train"],
        "validation": SPLIT["val"],
        "test": SPLIT["test"],
    }
    for split in rows.values():
        assert split.features == clip_features(IMIGUE_LABELS, IMIGUE_GROUP_NAMES, "imigue-22")
        for index, row in enumerate(split.with_format("numpy")):
            expected = make_points(index, 6 + index)
            np.testing.assert_array_equal(row["keypoints"], expected)
            np.testing.assert_array_equal(row["keypoints_valid"], expected[..., 2] > 0)
            assert row["label"] == LABELS[row["clip_id"]]
            assert (row["start_frame"], row["end_frame"], row["width"], row["height"]) == (0, 5 + index, 1280, 720)


@pytest.mark.parametrize(
    "content",
    [
        [["0001_0", "0001_1", "0002_0"], np.array([1, 2, 3])],
        (np.array(["0001_0", "0001_1", "0002_0"]), [np.int64(1), np.int64(2), np.int64(3)]),
        (np.array(["0001_0", "0001_1", "0002_0"], object), (1, 2, 3)),
    ],
)
def test_names_and_labels_may_be_lists_tuples_or_arrays(arrays, content):
    write(arrays / "train_label.pkl", content, 2)
    assert load_miga_arrays(arrays, show_progress=False)["train"]["label"][:] == [1, 2, 3]


def test_only_zeros_at_the_end_are_cut_and_a_frame_is_kept(arrays):
    array = make_array(SPLIT["train"])
    array[0] = array[0, :, :1]
    array[0, :, 10:20] = 0
    array[1] = 0
    np.save(arrays / "train_data.npy", array)
    rows = load_miga_arrays(arrays, show_progress=False)["train"].with_format("numpy")
    assert rows["end_frame"][:].tolist() == [89, 0, 7]
    assert not rows[0]["keypoints"][10:20].any()
    assert not rows[1]["keypoints_valid"].any()


def test_of_several_people_in_an_array_the_surest_is_taken(arrays, caplog):
    array = make_array(SPLIT["train"], num_people=2)
    array[1, :, :, :, 1] = make_points(5, 90).transpose(2, 0, 1)
    np.save(arrays / "train_data.npy", array)
    rows = load_miga_arrays(arrays, show_progress=False)["train"].with_format("numpy")
    np.testing.assert_array_equal(rows[1]["keypoints"], make_points(5, 90))
    np.testing.assert_array_equal(rows[0]["keypoints"], make_points(0, 6))
    assert "train_data.npy: 1 clips show several people" in caplog.text


def test_files_may_be_named(arrays):
    files = {"holdout": (arrays / "val_data.npy", str(arrays / "val_label.pkl"))}
    rows = load_miga_arrays(files, show_progress=False)
    assert {name: split.num_rows for name, split in rows.items()} == {"holdout": 2}
    with pytest.raises(ValueError, match="files is empty"):
        load_miga_arrays({})


def test_ambiguous_and_incomplete_folders_are_named(arrays, tmp_path):
    assert {name: array.name for name, (array, _) in find_array_files(arrays).items()} == {
        "train": "train_data.npy",
        "validation": "val_data.npy",
        "test": "test_data.npy",
    }
    np.save(arrays / "train_bone.npy", np.zeros(1))
    with pytest.raises(DatasetFormatError, match=r"split 'train', found train_bone\.npy, train_data\.npy, train_lab"):
        load_miga_arrays(arrays)
    (arrays / "train_bone.npy").unlink()
    (arrays / "val_label.pkl").unlink()
    with pytest.raises(DatasetFormatError, match=r"of split 'validation', found val_data\.npy; name the files"):
        load_miga_arrays(arrays)
    with pytest.raises(DatasetFormatError, match="nowhere: no such folder"):
        load_miga_arrays(tmp_path / "nowhere")
    with pytest.raises(DatasetFormatError, match=r"train_data\.npy: this is a file; expected the folder"):
        load_miga_arrays(arrays / "train_data.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetFormatError, match=r"empty: no arrays found; expected files such as train_data\.npy"):
        load_miga_arrays(tmp_path / "empty")


def test_an_array_of_pickled_objects_is_refused(arrays):
    marker = arrays / "marker"

    class Run:
        def __reduce__(self):
            return marker.touch, ()

    content = np.empty((3, 3, 90, 22, 1), object)
    content[0, 0, 0, 0, 0] = Run()
    np.save(arrays / "train_data.npy", content, allow_pickle=True)
    with pytest.raises(DatasetFormatError, match=r"train_data\.npy: cannot be read as an array of numbers"):
        load_miga_arrays(arrays)
    (arrays / "train_data.npy").write_bytes(pickle.dumps(Run()))
    with pytest.raises(DatasetFormatError, match=r"train_data\.npy: cannot be read as an array of numbers"):
        load_miga_arrays(arrays)
    assert not marker.exists()
    write(arrays / "val_label.pkl", (["0003_1", Run()], [1, 2]))
    np.save(arrays / "train_data.npy", make_array(SPLIT["train"]))
    with pytest.raises(DatasetFormatError, match=r"val_label\.pkl, byte \d+: global '.*' is refused"):
        load_miga_arrays(arrays)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3, 90, 22, 1)}", "cannot be read"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3, 90, 22, 1)}", "cannot be read"),
        ("(" * 5000, "cannot be read"),
        ("__import__('os').abort()", "cannot be read"),
    ],
)
def test_a_crafted_array_is_refused(arrays, header, message):
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
    (arrays / "train_data.npy").write_bytes(content)
    with pytest.raises(DatasetFormatError, match=rf"train_data\.npy: {message}"):
        load_miga_arrays(arrays)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, 90, 22, 3)),
            r"expected numbers \(N, 3, T, K, M\), .* got an array float64 of shape \(3, 90, 22, 3\)",
        ),
        (np.zeros((3, 2, 90, 22, 1)), r"expected numbers \(N, 3, T, K, M\), .* of shape \(3, 2, 90, 22, 1\)"),
        (np.zeros((3, 3, 90, 22, 1), bool), r"expected numbers \(N, 3, T, K, M\), .* got an array bool"),
        (np.zeros((3, 3, 90, 23, 1)), "No keypoint layout has 23 points"),
        (make_array(SPLIT["train"]) / 1280, "the points are normalised to at most 2; expected x, y in pixels"),
        (np.zeros((3, 3, 90, 22, 1)), "no point has a score above 0; expected x, y in pixels"),
    ],
)
def test_another_array_is_named(arrays, array, message):
    np.save(arrays / "train_data.npy", array)
    with pytest.raises(DatasetFormatError, match=rf"train_data\.npy: {message}"):
        load_miga_arrays(arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0001_0": 1}, r"expected the two lists \(names, labels\), got a dict"),
        (["0001_0", "0001_1", "0002_0"], r"expected the two lists \(names, labels\)"),
        (
            (["0001_0"], [1]),
            "expected a name and a label for each of the 3 clips of the array, got 1 names and 1 labels",
        ),
    ],
)
def test_other_names_and_labels_are_named(arrays, content, message):
    write(arrays / "train_label.pkl", content)
    with pytest.raises(DatasetFormatError, match=rf"train_label\.pkl: {message}"):
        load_miga_arrays(arrays)


def test_all_problems_of_arrays_are_raised_at_once_or_skipped(arrays, caplog):
    write(arrays / "train_label.pkl", (["0001_0", "0001", "0001_0"], [1, 2, 3]))
    write(arrays / "val_label.pkl", (SPLIT["val"], [4, 99]))
    array = make_array(SPLIT["val"])
    array[1, 0, 1, 2] = np.inf
    np.save(arrays / "val_data.npy", array)
    expected = [
        "train_data.npy, clip 1 ('0001'): expected a name <video>_<number>, such as 0187_0, got '0001'.",
        "train_data.npy, clip 2 ('0001_0'): another clip has the same name.",
        "val_data.npy, clip 1 ('0003_0'): expected a label 0..31, or -1 for a hidden one, got 99.",
        "val_data.npy, clip 1 ('0003_0'): expected finite numbers below 1,000,000.",
    ]
    with pytest.raises(DatasetFormatError) as info:
        load_miga_arrays(arrays)
    assert info.value.problems == expected
    rows = load_miga_arrays(arrays, on_error="skip", show_progress=False)
    assert {name: split["clip_id"][:] for name, split in rows.items()} == {
        "train": ["0001_0"],
        "validation": ["0003_1"],
        "test": SPLIT["test"],
    }
    assert expected[0] in caplog.text
