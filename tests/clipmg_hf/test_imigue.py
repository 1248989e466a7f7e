"""iMiGUE is read from every layout it is handed out in, and what cannot be read is named, all of it at once."""

import csv
import dataclasses
import shutil
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest

from clipmg_hf.data import ClipDataset, DatasetFormatError, collate_clips, load_imigue
from clipmg_hf.data.imigue import IMiGUE, register
from clipmg_hf.data.imigue_files import find_imigue
from clipmg_hf.data.imigue_labels import OULU_COLUMNS, canonical_label
from clipmg_hf.data.labels import IMIGUE_GROUP_NAMES, IMIGUE_GROUPS
from clipmg_hf.data.synthetic import generate_video
from clipmg_hf.data.synthetic_layouts import default_config, plan_layout, write_index, write_layout
from clipmg_hf.modeling import IMIGUE_LABELS
from clipmg_hf.processing import VideoReader


SPLITS = {"train": "train", "validate": "validation", "test": "test"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Write each layout once, when it is asked for."""
    folder = tmp_path_factory.mktemp("packs")

    def write(layout: str, **options) -> Path:
        root = folder / "-".join([layout, *map(str, options.values())])
        return root if root.exists() else write_layout(root, layout, **options)

    return write


@pytest.fixture
def copy(packs, tmp_path):
    """A copy of a layout to damage."""
    return lambda layout, **options: shutil.copytree(packs(layout, **options), tmp_path / layout)


def expected_rows(layout: str, split: str, hidden: bool = False):
    plans = [plan for plan in plan_layout(layout, default_config(layout)) if SPLITS[plan.split] == split]
    return [
        (f"{plan.video_id}_{index}", start, end, -1 if hidden else label)
        for plan in sorted(plans, key=lambda plan: plan.video_id)
        for index, (label, start, end) in enumerate(plan.labels)
    ]


def found_rows(rows):
    return list(zip(*(rows[name] for name in ("clip_id", "start_frame", "end_frame", "label")), strict=True))


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("miga", {}),
        ("miga", {"light_hand_header": True}),
        ("oulu", {}),
        ("oulu", {"trimmed_rgb": True}),
        ("openpose-json", {}),
    ],
)
def test_every_clip_of_every_layout_is_there(packs, cache, layout, options):
    rows = load_imigue(packs(layout, **options), cache_dir=cache)
    assert set(rows) == {"train", "validation", "test"}
    for split, split_rows in rows.items():
        assert found_rows(split_rows) == expected_rows(layout, split, hidden=layout == "miga" and split == "test")


def test_the_packs_of_2023_have_the_validation_videos_in_train(packs, cache):
    rows = load_imigue(packs("miga-2023"), cache_dir=cache)
    assert {split: len(part) for split, part in rows.items()} == {"train": 30, "test": 10}
    assert found_rows(rows["test"]) == expected_rows("miga-2023", "test", hidden=True)
    assert rows["train"][0]["video"] is None
    description = str(find_imigue(packs("miga-2023")).describe())
    assert "MiGA packs of 2023 (skeletons)" in description
    assert "train: 3 videos and 30 clips; the published data has 251 and 13,670." in description


def test_columns_hold_what_the_files_say(packs, cache):
    rows = load_imigue(packs("oulu"), cache_dir=cache)
    assert rows["train"].features["label"].names == list(IMIGUE_LABELS)
    assert rows["train"].features["group"].names == list(IMIGUE_GROUP_NAMES)
    for row in rows["train"].remove_columns(["keypoints", "keypoints_valid"]):
        assert IMIGUE_GROUP_NAMES[row["group"]] == IMIGUE_GROUPS[row["label"]]
        assert (row["width"], row["height"], row["fps"]) == (160, 90, 25)
        assert row["keypoint_layout"] == "openpose-137"
        assert row["video_start_frame"] == 0
        assert Path(row["video"]).stem == row["video_id"]
        assert row["emotion"] in (0, 1)
        assert row["subject"] > 0
        assert "gender" not in row
    assert set(rows["train"]["subject"]).isdisjoint(rows["test"]["subject"])


def test_keypoints_are_those_of_the_interval(packs, cache):
    config = default_config("miga")
    plan = plan_layout("miga", config)[0]
    row = load_imigue(packs("miga"), cache_dir=cache)["train"].with_format("numpy")[3]
    video = generate_video(config, plan.subject, plan.video_id)
    expected = video.keypoints[row["start_frame"] : row["end_frame"] + 1]
    np.testing.assert_allclose(row["keypoints"], expected, atol=1e-3)
    assert row["keypoints"].dtype == np.float32
    assert np.array_equal(row["keypoints_valid"], expected[..., 2] > 0)


def test_light_skeletons_and_no_skeletons_are_a_choice(packs, cache):
    full, light, none = (
        load_imigue(packs("miga"), cache_dir=cache, skeleton=skeleton)["train"].with_format("numpy")
        for skeleton in ("openpose", "light", "none")
    )
    assert light[0]["keypoint_layout"] == "imigue-light-35"
    tips = [95 + tip for tip in (4, 8, 12, 16, 20)] + [116 + tip for tip in (4, 8, 12, 16, 20)]
    np.testing.assert_allclose(light[5]["keypoints"], full[5]["keypoints"][:, [*range(25), *tips]], atol=1e-3)
    assert "keypoints" not in none.column_names
    with pytest.raises(ValueError, match="skeleton is 'lite'; expected 'auto', 'openpose', 'light' or 'none'"):
        load_imigue(packs("miga"), skeleton="lite")


@pytest.mark.parametrize("fault", ["frames_without_person", "swapped_hands", "one_frame_short"])
def test_documented_faults_are_read_and_reported(packs, cache, fault):
    sound = load_imigue(packs("miga"), cache_dir=cache)["train"].with_format("numpy")
    rows = load_imigue(packs("miga", faults=(fault,)), cache_dir=cache)["train"].with_format("numpy")
    description = rows.info.description
    assert len(rows) == len(sound)
    if fault == "frames_without_person":
        assert "rows without a person" in description
        assert rows[0]["start_frame"] == sound[0]["start_frame"]
    elif fault == "swapped_hands":
        assert "right, left" in description
        np.testing.assert_array_equal(rows[2]["keypoints"], sound[2]["keypoints"])
    else:
        assert "frames of the video minus rows of the skeleton, over 4 videos: -1 in 4." in description


def test_an_empty_workbook_leaves_its_clips_without_pose(packs, cache):
    source = find_imigue(packs("oulu", faults=("empty_xlsx",)))
    rows = load_imigue(source.root, cache_dir=cache)
    without = {
        video_id
        for part in rows.values()
        for video_id, keypoints in zip(part["video_id"], part.with_format("arrow")[:]["keypoints"], strict=True)
        if not keypoints.is_valid
    }
    assert len(without) == 1
    assert (
        f"skeletons without a row: {without.pop()}; their clips have no keypoints." in rows["train"].info.description
    )


def test_clips_without_anything_are_left_out_and_named(packs, cache, caplog):
    rows = load_imigue(packs("oulu", rgb=False, faults=("empty_xlsx",)), cache_dir=cache)
    assert sum(map(len, rows.values())) == 30
    note = "10 clips have neither video nor keypoints and are left out"
    assert note in rows["test"].info.description
    assert note in caplog.text


def test_empty_labels_are_named(copy, cache):
    root = copy("miga")
    next(root.rglob("0012_label.csv")).write_text("")
    assert "clips of 1 videos, whose labels are empty: 0012." in find_imigue(root).describe().missing
    assert len(load_imigue(root, cache_dir=cache)["train"]) == 10
    timelines = load_imigue(root, "online", cache_dir=cache)["train"]
    assert [len(segments) for segments in timelines["segments"]] == [10, 0]
    assert all(timelines["num_frames"])


def test_a_changed_reader_is_noticed(packs, cache, monkeypatch):
    from clipmg_hf.data import builder

    before = builder.fingerprint(find_imigue(packs("miga")), "1 1")
    assert before != builder.fingerprint(find_imigue(packs("miga")), "1 2")
    first = IMiGUE(str(cache), data_dir=packs("miga")).cache_dir
    monkeypatch.setattr(builder, "READER_VERSION", -1)
    assert IMiGUE(str(cache), data_dir=packs("miga")).cache_dir != first


def test_two_people_in_a_frame_are_reported_and_the_larger_one_is_taken(packs, cache):
    sound = load_imigue(packs("openpose-json"), cache_dir=cache)["train"].with_format("numpy")
    rows = load_imigue(packs("openpose-json", faults=("two_people",)), cache_dir=cache)["train"].with_format("numpy")
    assert "frames with several people, of whom the largest is taken" in rows.info.description
    np.testing.assert_array_equal(rows[4]["keypoints"], sound[4]["keypoints"])


def test_the_last_clip_may_be_missing(packs, cache):
    rows = load_imigue(packs("miga", faults=("last_clip_missing",)), cache_dir=cache)
    assert found_rows(rows["test"]) == expected_rows("miga", "test", hidden=True)[:-1]


def test_trimmed_videos_start_at_their_clip(packs, cache):
    whole = load_imigue(packs("oulu"), cache_dir=cache)["train"]
    trimmed = load_imigue(packs("oulu", trimmed_rgb=True), cache_dir=cache)["train"]
    for index in (0, 13):
        row, cut = whole[index], trimmed[index]
        assert (cut["clip_id"], cut["video_start_frame"]) == (row["clip_id"], row["start_frame"])
        with VideoReader(cut["video"]) as reader:
            assert reader.info.num_frames == row["end_frame"] - row["start_frame"] + 1


def test_repeated_and_single_trimmed_files(copy, cache):
    root = copy("oulu", trimmed_rgb=True)
    kept = next(root.rglob("0005_1.mp4"))
    shutil.copy(kept, kept.with_name("0005_01.mp4"))
    with pytest.raises(DatasetFormatError, match=r"0005_1\.mp4: clip 1 of video 0005 is also .*0005_01\.mp4"):
        load_imigue(root, cache_dir=cache)
    for path in list(kept.parent.iterdir()):
        if path != kept:
            path.unlink()
    rows = load_imigue(root, cache_dir=cache)["train"]
    own = [row for row in rows.remove_columns(["keypoints", "keypoints_valid"]) if row["video_id"] == "0005"]
    assert [row["video"] is not None for row in own] == [True] + [False] * 9
    assert own[0]["video_start_frame"] == own[0]["start_frame"]


def test_personal_data_is_there_only_if_asked_for(packs, cache):
    rows = load_imigue(packs("oulu"), cache_dir=cache, personal_data=True)["train"]
    assert {"gender", "nationality"} <= set(rows.column_names)
    assert all(rows["nationality"])


def test_timelines_of_untrimmed_videos(packs, cache):
    rows = load_imigue(packs("oulu"), "online", cache_dir=cache)["train"]
    plans = {plan.video_id: plan for plan in plan_layout("oulu", default_config("oulu"))}
    assert len(rows) == 2
    for row in rows.with_format("numpy"):
        plan = plans[str(row["video_id"])]
        timeline = [(int(s["label"]), int(s["start_frame"]), int(s["end_frame"])) for s in row["segments"]]
        assert timeline == plan.labels
        assert row["keypoints"].shape == (plan.num_frames, 137, 3)
        assert row["num_frames"] == plan.num_frames


def test_timelines_of_trimmed_videos_are_keypoints_alone(packs, copy, cache):
    rows = load_imigue(packs("oulu", trimmed_rgb=True), "online", cache_dir=cache)["train"]
    assert rows["video"][:] == [None, None]
    assert "2 videos have no untrimmed file" in rows.info.description.replace("4 videos", "2 videos")
    root = copy("oulu", trimmed_rgb=True)
    shutil.rmtree(root / "mg_skeleton_only")
    with pytest.raises(DatasetFormatError, match=r"every clip has a file of its own, .*; expected untrimmed videos"):
        load_imigue(root, "online", cache_dir=cache)


def test_emotions_are_labels_of_whole_videos(packs, cache):
    rows = load_imigue(packs("oulu"), "emotion", cache_dir=cache)["train"]
    assert rows.features["label"].names == ["loss", "win"]
    plans = {plan.video_id: plan for plan in plan_layout("oulu", default_config("oulu"))}
    with (packs("oulu") / "Label" / "labels_20200831.csv").open() as file:
        outcome = {f"{int(row['video_id']):04d}": row["win_or_lose"] for row in csv.DictReader(file)}
    for row in rows:
        assert row["label"] == (outcome[row["video_id"]] == "Win")
        assert (row["start_frame"], row["end_frame"]) == (0, plans[row["video_id"]].num_frames - 1)
    with pytest.raises(DatasetFormatError, match=r"no video says who won; expected the Oulu release"):
        load_imigue(packs("miga"), "emotion", cache_dir=cache)


def test_the_protocol_decides_the_splits(packs, cache):
    official = load_imigue(packs("oulu"), cache_dir=cache)
    crossed = load_imigue(packs("oulu"), cache_dir=cache, protocol="cross_subject", validation=0)
    assert set(crossed) == {"train", "test"}
    assert len(crossed["train"]) == len(official["train"]) + len(official["validation"])
    folds = [load_imigue(packs("oulu"), cache_dir=cache, protocol="folds", num_folds=3, fold=k) for k in range(3)]
    validated = [subject for rows in folds for subject in set(rows["validation"]["subject"])]
    assert sorted(validated) == sorted(set(crossed["train"]["subject"]))
    assert '"protocol": "folds"' in folds[1]["train"].info.description
    with pytest.raises(ValueError, match=r"protocol is 'cv'; expected one of 'miga', 'cross_subject', 'folds'"):
        load_imigue(packs("oulu"), cache_dir=cache, protocol="cv")


def test_a_changed_label_file_is_noticed(copy, tmp_path):
    root = copy("miga")
    before = load_imigue(root, cache_dir=tmp_path / "cache")
    labels = next(root.rglob("*_label.csv"))
    labels.write_text(labels.read_text().split("\n", 1)[1])
    after = load_imigue(root, cache_dir=tmp_path / "cache")
    assert sum(map(len, after.values())) == sum(map(len, before.values())) - 1


@pytest.mark.parametrize("part", ["imigue_data_phase1", "imigue_skeleton_train", "imigue_rgb_phase1"])
def test_partial_downloads_give_what_is_there(copy, cache, part):
    root = copy("miga")
    kept = root if part == "imigue_rgb_phase1" else next(root.rglob(part))
    if part == "imigue_rgb_phase1":
        shutil.rmtree(root / "imigue_rgb_phase2")
        shutil.rmtree(root / "imigue_data_phase2")
    rows = load_imigue(kept, cache_dir=cache)
    expected = {"imigue_skeleton_train": ["train"]}.get(part, ["train", "validation"])
    assert list(rows) == expected
    assert (rows["train"][0]["video"] is None) == (part != "imigue_rgb_phase1")


def test_rgb_with_labels_alone_has_no_keypoint_columns(copy, cache):
    root = copy("oulu")
    shutil.rmtree(root / "mg_skeleton_only")
    rows = load_imigue(root, cache_dir=cache)
    assert "keypoints" not in rows["train"].column_names
    assert "skeletons: there are none, so clips have RGB alone." in find_imigue(root).describe().missing


@pytest.mark.parametrize("alias", ["train", "train_data", "imigue_rgb_train"])
def test_aliases_of_parts_are_known(copy, alias):
    root = copy("miga")
    next(root.rglob("imigue_skeleton_train")).rename(root / alias)
    assert find_imigue(root).describe().parts[0].num_clips == 20


def test_the_index_of_the_whole_release_is_described(tmp_path):
    description = find_imigue(write_index(tmp_path)).describe()
    total = description.parts[-1]
    assert (total.num_videos, total.num_clips) == (359, 18_498)
    assert description.warnings == ()


def test_load_dataset_finds_the_registered_builder(packs, tmp_path, monkeypatch):
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    monkeypatch.delitem(_PACKAGED_DATASETS_MODULES, "imigue", raising=False)
    register()
    options = {"data_dir": str(packs("miga")), "cache_dir": str(tmp_path)}
    rows = datasets.load_dataset("imigue", **options)
    assert found_rows(rows["train"]) == expected_rows("miga", "train")
    streamed = datasets.load_dataset("imigue", "classification", streaming=True, **options)["validation"]
    assert [row["clip_id"] for row in streamed] == [clip for clip, *_ in expected_rows("miga", "validation")]
    monkeypatch.delitem(_PACKAGED_DATASETS_MODULES, "imigue")


# What cannot be read: damage a pack, and see that every damage is named.


def damage_labels(root, text, video="0001"):
    path = next(root.rglob(f"{video}_label.csv"))
    path.write_text(text)


def add_oulu_row(root, **values):
    path = root / "Label" / "labels_20200831.csv"
    lines = path.read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True)) | {k: str(v) for k, v in values.items()}
    path.write_text("\n".join([*lines, ",".join(row.values())]) + "\n")


MIGA_DAMAGE = [
    (lambda r: damage_labels(r, "3,1\n"), r"0001_label\.csv, row 1: expected integers class,.* got '3,1'"),
    (lambda r: damage_labels(r, "3,1,5\nclass,a,b\n"), r"0001_label\.csv, row 2: .*got 'class,a,b'"),
    (lambda r: damage_labels(r, "\xff\xfe3,1,5\n"), r"0001_label\.csv, row 1: expected integers"),
    (lambda r: damage_labels(r, "3,5,1\n"), r"row 1: the interval is 5\.\.1; expected 0 <= start <= end"),
    (lambda r: damage_labels(r, "3,-2,1\n"), r"row 1: the interval is -2\.\.1; expected 0 <= start"),
    (lambda r: damage_labels(r, "32,1,5\n"), r"row 1: class 32 is unknown; expected 1\.\.31 or 99"),
    (lambda r: damage_labels(r, "0,1,5\n"), r"row 1: class 0 is unknown; expected 1\.\.31 or 99"),
    (
        lambda r: damage_labels(r, "3,0,9999\n"),
        r"clip 0001_0: the interval 0\.\.9999 lies beyond its video: .*0001\.mp4 ends at frame \d+\.",
    ),
    (
        lambda r: next(r.rglob("0001_label.csv")).unlink(),
        r"0001\.mp4: RGB of video 0001, which has no labels",
    ),
    (
        lambda r: shutil.copytree(next(r.rglob("imigue_skeleton_train")), r / "old" / "imigue_skeleton_train"),
        r"video 0005 has 2 label files, .*: packs of different years do not mix",
    ),
    (
        lambda r: next(r.rglob("0001_label.csv")).rename(next(r.rglob("0001_label.csv")).with_name("0002_label.csv")),
        r"0002_label\.csv: expected <video id>/<video id>_label\.csv",
    ),
    (
        lambda r: next(r.rglob("0001_openpose.xlsx")).write_bytes(b"not a workbook"),
        r"0001_openpose\.xlsx: .*workbook",
    ),
    (lambda r: next(r.rglob("0001.mp4")).write_bytes(b"no video"), r"0001\.mp4: cannot be read as a video \(\D+\)\."),
    (
        lambda r: shutil.copy(next(r.rglob("0001.mp4")), next(r.rglob("0001.mp4")).with_name("a_copy.mp4")),
        r"video 0001 has 2 files, .*; expected 0001\.mp4 or one for each clip",
    ),
    (
        lambda r: shutil.move(next(r.rglob("0001.mp4")), next(r.rglob("0001.mp4")).with_name("0012.mp4")),
        r"0001/0012\.mp4: expected a file of video 0001 in its folder",
    ),
    (
        lambda r: shutil.move(next(r.rglob("0001_o*.xlsx")), next(r.rglob("0001_o*.xlsx")).with_name("0005_o.xlsx")),
        r"0005_o\.xlsx: expected a file of video 0001 in its folder",
    ),
]
OULU_DAMAGE = [
    (lambda r: add_oulu_row(r, label_id="x"), r"row 42: label_id is 'x'; expected an integer"),
    (lambda r: add_oulu_row(r), r"row 42: label_id 1 comes twice in video \d{4}"),
    (lambda r: add_oulu_row(r, label_id=11, subject_id=70), r"row 42: subject of video \d{4} is 70; rows above say"),
    (lambda r: add_oulu_row(r, label_id=11, win_or_lose="Draw"), r"win_or_lose is 'Draw'; expected Win or Loss"),
    (lambda r: add_oulu_row(r, video_id="../../etc", label_id=11), r"video_id is '../../etc'; expected an integer"),
    (lambda r: add_oulu_row(r, label_id=11, **{"class": 50}), r"class 50 is unknown"),
    (lambda r: add_oulu_row(r, label_id=11, subject_gender="F,M"), r"row 42: 12 values; expected 11"),
    (lambda r: shutil.rmtree(r / "mg_skeleton_only" / "0012"), None),
    (
        lambda r: (r / "Label" / "labels_20200831.csv").write_text("video_id,class\n1,2\n"),
        r"row 1: the header is 'video_id,class'; expected 'video_id,label_id,",
    ),
]


@pytest.mark.parametrize(("damage", "message"), MIGA_DAMAGE)
def test_damage_to_a_pack_is_named(copy, cache, damage, message):
    root = copy("miga")
    damage(root)
    if message is None:
        load_imigue(root, cache_dir=cache)
        return
    with pytest.raises(DatasetFormatError, match=message):
        load_imigue(root, cache_dir=cache)


@pytest.mark.parametrize(("damage", "message"), OULU_DAMAGE)
def test_damage_to_the_oulu_release_is_named(copy, cache, damage, message):
    root = copy("oulu")
    damage(root)
    if message is None:
        load_imigue(root, cache_dir=cache)
        return
    with pytest.raises(DatasetFormatError, match=message):
        load_imigue(root, cache_dir=cache)


def test_all_problems_come_at_once_or_are_skipped(copy, cache):
    root = copy("miga")
    damage_labels(root, "77,1,5\n3,9,2\n4,1,5\n")
    next(root.rglob("0012_label.csv")).write_text("5,x,1\n6,2,8\n")
    with pytest.raises(DatasetFormatError) as caught:
        load_imigue(root, cache_dir=cache)
    assert len(caught.value.problems) == 3
    assert "3 problems" in str(caught.value)
    source = find_imigue(root, on_error="skip")
    assert len(source.skipped) == 3
    rows = load_imigue(root, cache_dir=cache, on_error="skip")
    assert "0001_2" in {clip for part in rows.values() for clip in part["clip_id"]}
    assert "skipped: " in rows["train"].info.description
    with pytest.raises(ValueError, match="on_error is 'ignore'; expected 'raise' or 'skip'"):
        load_imigue(root, on_error="ignore")


def test_what_is_no_data_set_is_told_from_it(tmp_path, packs):
    with pytest.raises(DatasetFormatError, match=r"nowhere: no such folder"):
        load_imigue(tmp_path / "nowhere")
    with pytest.raises(DatasetFormatError, match=r"no iMiGUE data found; expected folders named imigue_skeleton"):
        load_imigue(tmp_path)
    archive = tmp_path / "imigue.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", "b")
    with pytest.raises(DatasetFormatError, match=r"imigue\.zip: this is an archive; expected the folder that it unp"):
        load_imigue(archive)
    with pytest.raises(DatasetFormatError, match=r"It holds archives \(imigue\.zip\): unpack them"):
        load_imigue(tmp_path)
    with pytest.raises(DatasetFormatError, match=r"4 videos with RGB, but no labels"):
        shutil.copytree(packs("oulu"), tmp_path / "rgb", ignore=shutil.ignore_patterns("Label", "mg_skeleton_only"))
        load_imigue(tmp_path / "rgb")


def test_a_smaller_copy_of_a_video_is_told_by_its_keypoints(copy, cache):
    root = copy("miga")
    small = write_layout(
        root.parent / "small", "miga", dataclasses.replace(default_config("miga"), width=80, height=44)
    )
    shutil.copy(next(small.rglob("0001.mp4")), next(root.rglob("0001.mp4")))
    with pytest.raises(
        DatasetFormatError, match=r"0001\.mp4: its frames have 80 x 44 pixels, but 95 % of the keypoints"
    ):
        load_imigue(root, cache_dir=cache)


def test_raw_classes_become_canonical_labels():
    assert [canonical_label(raw, "here") for raw in (1, 31, 99)] == [0, 30, 31]


def test_items_have_the_shapes_of_the_model(packs, cache, loaded):
    model, processor = loaded
    items = ClipDataset(load_imigue(packs("miga"), cache_dir=cache)["train"], processor, augment=True)
    batch = collate_clips([items[0], items[1]])
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    assert shapes["pixel_values"] == (2, 8, 3, 32, 32)
    assert shapes["keypoints"] == (2, 32, 22, 3)
    assert model(**batch).loss.isfinite()


def test_rows_without_labels_cannot_be_learned_from(packs, cache, loaded):
    rows = load_imigue(packs("miga"), cache_dir=cache)["test"]
    with pytest.raises(ValueError, match=r"10 of 10 rows have no label, first row 0"):
        ClipDataset(rows, loaded[1])


def test_real_openpose_files_are_read(realdata, tmp_path):
    source = realdata / "openpose" / "slp_full137"
    skeleton, rgb = (tmp_path / name / "0005" for name in ("mg_skeleton_only", "imigue_rgb_train"))
    for folder in (skeleton, rgb, tmp_path / "Label"):
        folder.mkdir(parents=True)
    files = sorted((source / "json").glob("*.json"))
    for number, file in enumerate(files):
        shutil.copy(file, skeleton / f"5_{number:012d}_keypoints.json")
    shutil.copy(source / "video.mp4", rgb / "0005.mp4")
    row = f"5,1,0.0,0,0.3,{len(files) - 1},12,2,F,Atlantis,Win"
    (tmp_path / "Label" / "labels_20200831.csv").write_text(f"{','.join(OULU_COLUMNS)}\n{row}\n")
    clip = load_imigue(tmp_path, cache_dir=tmp_path / "cache")["train"].with_format("numpy")[0]
    assert clip["keypoints"].shape == (len(files), 137, 3)
    assert (int(clip["width"]), int(clip["height"])) == (1280, 720)
    # One person, whose face and hands are seen in every frame.
    assert clip["keypoints_valid"][:, [0, 1, 25 + 30, 95, 116]].all()
