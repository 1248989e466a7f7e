"""The layouts of the synthetic data: names, columns and counts as documented, labels as planned, and the faults."""

import csv
import dataclasses
import hashlib
import json
import pickle
import sys
from collections import Counter

import av
import numpy as np
import openpyxl
import pytest
import python_calamine

from clipmg_hf.console import run
from clipmg_hf.data import synthetic_layouts
from clipmg_hf.data.synthetic import generate_video, raw_class
from clipmg_hf.data.synthetic_layouts import (
    FAULTS,
    LAYOUTS,
    default_config,
    kinect_skeleton,
    main,
    plan_layout,
    write_index,
    write_layout,
)
from clipmg_hf.processing import read_openpose, valid_keypoints


TINY = dataclasses.replace(default_config("miga"), seed=5, num_train_subjects=1, clips_per_video=7, max_clip_frames=20)
# Ids as in the packs: 0001 is to validate.
TRAIN, VALIDATE, TEST = "0005", "0001", "0012"
IMIGUE_22 = [*range(8), 15, 16, 17, 18, 99, 103, 107, 111, 115, 120, 124, 128, 132, 136]
LIGHT_35 = [*range(25), 99, 103, 107, 111, 115, 120, 124, 128, 132, 136]


@pytest.fixture
def write(tmp_path):
    """Write a layout to a new folder, by default without RGB."""

    def write_new(layout, config=TINY, **options):
        number = sum(1 for _ in tmp_path.iterdir())
        return write_layout(tmp_path / str(number), layout, config, **{"rgb": False, **options})

    return write_new


@pytest.fixture(scope="module")
def videos():
    """Video id -> plan and video of the iMiGUE layouts."""
    plans = plan_layout("miga", TINY)
    return {plan.video_id: (plan, generate_video(TINY, plan.subject, plan.video_id)) for plan in plans}


def list_names(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_xlsx(path):
    sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    return np.array(sheet.to_python(skip_empty_area=False), dtype=np.float64)


def read_pickle(path):
    return pickle.loads(path.read_bytes())


def count_frames(path):
    """Frames of a video, and its frame rate and size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sum(1 for _ in container.decode(stream)), (stream.average_rate, stream.width, stream.height)


def lengths(plan):
    return [end - start + 1 for _, start, end in plan.labels]


# Plan


def test_ids_and_subjects_agree_with_the_published_parts():
    config = dataclasses.replace(TINY, num_train_subjects=3, num_validate_subjects=6, num_test_subjects=2)
    plans = plan_layout("oulu", config)
    assert [(plan.video_id, plan.subject) for plan in plans if plan.split == "train"] == [
        ("0005", 2),
        ("0012", 4),
        ("0013", 5),
    ]
    assert [plan.video_id for plan in plans if plan.split == "validate"] == [
        *("0001", "0002", "0003", "0004", "0006", "0007")
    ]
    assert [(plan.video_id, plan.subject) for plan in plans if plan.split == "test"] == [("0014", 1), ("0015", 3)]
    assert [(plan.video_id, plan.subject) for plan in plan_layout("smg", TINY)] == [
        *(("0001", 1), ("0002", 2), ("0003", 3))
    ]


def test_more_videos_than_ids_to_validate_and_subjects():
    config = dataclasses.replace(
        TINY, num_train_subjects=40, num_validate_subjects=12, num_test_subjects=36, clips_per_video=6
    )
    plans = plan_layout("miga", config)
    subjects = {split: {plan.subject for plan in plans if plan.split == split} for split in ("train", "test")}
    assert len({plan.video_id for plan in plans}) == len(plans) == 88
    assert (len(subjects["train"]), len(subjects["test"])) == (10, 10) and not subjects["train"] & subjects["test"]


# MiGA


def test_miga_has_the_folders_of_the_packs(write):
    root = write("miga", rgb=True)
    ends = ("_label.csv", "_light_hand.csv", "_openpose.xlsx")
    folders = {
        TRAIN: "imigue_data_phase1/datasets/imigue_skeleton_train",
        VALIDATE: "imigue_data_phase1/datasets/imigue_skeleton_validate",
        TEST: "imigue_data_phase2/imigue_skeleton_test",
    }
    recordings = {
        f"imigue_rgb_phase1/train_data/{TRAIN}/{TRAIN}.mp4",
        f"imigue_rgb_phase1/validation_data/{VALIDATE}/{VALIDATE}.mp4",
        f"imigue_rgb_phase2/{TEST}/{TEST}.mp4",
    }
    assert list_names(root) == recordings | {
        f"{folder}/{video_id}/{video_id}{end}" for video_id, folder in folders.items() for end in ends
    }


def test_miga_2023_has_no_validation_folder_and_no_rgb(write):
    root = write("miga-2023", rgb=True)
    folders = {TRAIN: "phase1/datasets/imigue_skeleton_train", TEST: "phase2/imigue_skeleton_test"}
    folders[VALIDATE] = folders[TRAIN]
    assert list_names(root) == {
        f"imigue_data_{folder}/{video_id}/{video_id}{end}"
        for video_id, folder in folders.items()
        for end in ("_label.csv", "_light_hand.csv", "_openpose.xlsx")
    }
    assert read_csv(next(root.rglob(f"{VALIDATE}_label.csv")))[0][0] != "0"


@pytest.mark.parametrize("layout", ["miga", "miga-2023"])
def test_miga_files_hold_the_plan_and_the_keypoints(write, videos, layout):
    root = write(layout)
    for video_id, (plan, video) in videos.items():
        labels = [tuple(map(int, row)) for row in read_csv(next(root.rglob(f"{video_id}_label.csv")))]
        classes = [0 if video_id == TEST else raw_class(label) for label, _, _ in plan.labels]
        assert labels == [(label, *clip[1:]) for label, clip in zip(classes, plan.labels, strict=True)]
        sheet = read_xlsx(next(root.rglob(f"{video_id}_openpose.xlsx")))
        assert sheet.shape == (plan.num_frames, 411)
        np.testing.assert_allclose(sheet.reshape(-1, 137, 3), video.keypoints, atol=1e-3)


@pytest.mark.parametrize("header", [False, True])
def test_light_hand_has_106_columns_and_perhaps_a_header(write, videos, header):
    root = write("miga", light_hand_header=header)
    rows = read_csv(next(root.rglob(f"{TRAIN}_light_hand.csv")))
    if header:
        assert len(rows[0]) == 106 and not any(value.isdigit() for value in rows.pop(0))
    values = np.array(rows, dtype=np.float64)
    keypoints = videos[TRAIN][1].keypoints[:, LIGHT_35]
    assert values[:, 0].tolist() == list(range(len(keypoints)))
    np.testing.assert_allclose(values[:, 1:].reshape(-1, 35, 3), keypoints, atol=1e-3)


# Oulu


def test_oulu_labels_have_the_header_and_rows_of_the_release(write, videos):
    root = write("oulu")
    path = root / "Label/labels_20200831.csv"
    assert list_names(root) == {path.relative_to(root).as_posix()} | {
        f"mg_skeleton_only/{video_id}/{video_id}_2.xlsx" for video_id in videos
    }
    header = "video_id,label_id,start_time,start_frame,end_time,end_frame,class,subject_id,subject_gender,"
    assert path.read_text(encoding="utf-8").splitlines()[0] == header + "subject_nationality,win_or_lose"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list] = {}
    for row in rows:
        clip = int(row["class"]), int(row["start_frame"]), int(row["end_frame"])
        found.setdefault(f"{int(row['video_id']):04d}", []).append((int(row["label_id"]), clip))
        for name in ("start", "end"):
            assert len(row[f"{name}_time"].split(".")[1]) == 4
            assert round(float(row[f"{name}_time"]) * 25) == int(row[f"{name}_frame"])
    # The test part has its classes, too.
    assert found == {
        video_id: [
            (number, (raw_class(label), start, end)) for number, (label, start, end) in enumerate(plan.labels, 1)
        ]
        for video_id, (plan, _) in videos.items()
    }
    assert {(int(row["video_id"]), int(row["subject_id"])) for row in rows} == {(5, 2), (1, 4), (12, 1)}
    assert {row["win_or_lose"] for row in rows} == {"Win", "Loss"}
    assert {row["subject_gender"] for row in rows} == {"F", "M"}
    sheet = read_xlsx(root / f"mg_skeleton_only/{TEST}/{TEST}_2.xlsx")
    np.testing.assert_allclose(sheet.reshape(-1, 137, 3), videos[TEST][1].keypoints, atol=1e-3)


OULU_RGB = {
    TRAIN: "iMiGUE_RGB_Phase1/imigue_rgb_train",
    VALIDATE: "iMiGUE_RGB_Phase1/imigue_rgb_validate",
    TEST: "iMiGUE_RGB_Phase2/imigue_rgb_test",
}


def test_oulu_rgb_is_one_video_or_one_file_per_clip(write, videos):
    whole = write("oulu", rgb=True, skeletons=False)
    assert list_names(whole) == {"Label/labels_20200831.csv"} | {
        f"{folder}/{video_id}/{video_id}.mp4" for video_id, folder in OULU_RGB.items()
    }
    trimmed = write("oulu", rgb=True, skeletons=False, trimmed_rgb=True)
    files = {
        f"{folder}/{video_id}/{video_id}_{number}.mp4": length
        for video_id, folder in OULU_RGB.items()
        for number, length in enumerate(lengths(videos[video_id][0]), start=1)
    }
    assert list_names(trimmed) == {"Label/labels_20200831.csv", *files}
    for name in list(files)[::4]:
        assert count_frames(trimmed / name) == (files[name], (25, 160, 90))
    plan, video = videos[TRAIN]
    assert count_frames(whole / OULU_RGB[TRAIN] / TRAIN / f"{TRAIN}.mp4") == (plan.num_frames, (25, 160, 90))
    with av.open(str(trimmed / OULU_RGB[TRAIN] / TRAIN / f"{TRAIN}_2.mp4")) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(first.astype(float) - video.frame(plan.labels[1][1])).mean() < 8


def test_openpose_json_is_one_file_per_frame(write, videos):
    root = write("openpose-json")
    for video_id, (plan, video) in videos.items():
        folder = root / "mg_skeleton_only" / video_id
        assert sorted(path.name for path in folder.iterdir()) == [
            f"{video_id}_{index:012d}_keypoints.json" for index in range(plan.num_frames)
        ]
        np.testing.assert_array_equal(read_openpose(folder).keypoints, video.keypoints)
    assert len(read_csv(root / "Label/labels_20200831.csv")) == 1 + 3 * 7


# SMG and MA-52


def test_smg_files_have_documented_names_and_columns(write):
    config = dataclasses.replace(default_config("smg"), clips_per_video=6, max_clip_frames=20)
    assert config.fps == 28
    root = write("smg", config, rgb=True)
    plans = plan_layout("smg", config)
    expected = set()
    for plan in plans:
        name, phase = f"Sample{plan.video_id}", 2 if plan.split == "test" else 1
        folder = f"smg_data_phase{phase}/smg_skeleton_{plan.split}/{name}"
        expected |= {f"{folder}/{name}_{kind}.csv" for kind in ("skeleton", "data", "finelabels")}
        expected |= {f"SMG_RGB_Phase{phase}/smg_rgb_{plan.split}/{name}/{name}_color.mp4"}
        clips = [tuple(map(int, row)) for row in read_csv(root / folder / f"{name}_finelabels.csv")]
        assert [clip[1:] for clip in clips] == [clip[1:] for clip in plan.labels]
        assert all(1 <= label <= 17 for label, _, _ in clips)
        assert read_csv(root / folder / f"{name}_data.csv") == [[str(plan.num_frames), "28", "4500"]]
        assert np.array(read_csv(root / folder / f"{name}_skeleton.csv")).shape == (plan.num_frames, 275)
    assert list_names(root) == expected
    video = root / "SMG_RGB_Phase1/smg_rgb_train/Sample0001/Sample0001_color.mp4"
    assert count_frames(video) == (plans[0].num_frames, (28, 160, 90))


def test_smg_classes_correspond_one_to_one(write):
    root = write("smg")
    pairs = set()
    for plan in plan_layout("smg", TINY):
        rows = read_csv(next(root.rglob(f"Sample{plan.video_id}_finelabels.csv")))
        pairs |= {(label, int(row[0])) for (label, _, _), row in zip(plan.labels, rows, strict=True)}
    assert len(pairs) == len({label for label, _ in pairs}) == len({raw for _, raw in pairs})
    # "Touching or scratching neck" is 11 of iMiGUE and 5 of SMG, folding arms 16 and 2.
    assert {label - 1 for canonical, label in pairs if canonical in (11, 16)} <= {5, 2}


def test_smg_can_count_frames_from_one(write):
    clips = [read_csv(next(write("smg", first_frame=base).rglob("Sample0002_finelabels.csv"))) for base in (0, 1)]
    plan = plan_layout("smg", TINY)[1]
    zero, one = (np.array(rows, dtype=int)[:, 1:] for rows in clips)
    assert one[-1, 1] == plan.num_frames
    one[-1, 1] = zero[-1, 1] + 1
    np.testing.assert_array_equal(one, zero + 1)


def test_kinect_skeleton_is_that_of_a_pinhole_camera(videos):
    points = videos[TRAIN][1].clean_keypoints
    joints = kinect_skeleton(points, 160, 90)
    world, orientation, depth, color = np.split(joints, (3, 7, 9), axis=-1)
    assert joints.shape == (len(points), 25, 11)
    focal = 1081 * 160 / 1920
    np.testing.assert_allclose(focal * world[..., 0] / world[..., 2] + 80, color[..., 0])
    np.testing.assert_allclose(45 - focal * world[..., 1] / world[..., 2], color[..., 1])
    np.testing.assert_allclose((depth - (256, 212)) / 365, (color - (80, 45)) / focal)
    np.testing.assert_allclose(np.linalg.norm(orientation, axis=-1), 1)
    # Shoulders, elbows, wrists, left then right: OpenPose's order is the other way round.
    np.testing.assert_allclose(color[:, [4, 5, 6, 8, 9, 10]], points[:, [5, 6, 7, 2, 3, 4]], rtol=1e-6)
    width = np.linalg.norm(world[:, 4] - world[:, 8], axis=-1)
    assert width.min() > 0.3 and width.max() < 0.46 and world[..., 2].min() > 0.5
    # Upright: the head is above the spine, the left hand right of the right one in the picture.
    assert (world[:, 3, 1] > world[:, 20, 1]).all() and (world[:, 20, 1] > world[:, 0, 1]).all()
    assert (world[:, 4, 0] > world[:, 8, 0]).all()


def test_smg_skeleton_file_ends_in_colour_pixels(write):
    root = write("smg")
    plan = plan_layout("smg", TINY)[0]
    clean = generate_video(TINY, plan.subject, plan.video_id).clean_keypoints
    rows = np.array(read_csv(next(root.rglob("Sample0001_skeleton.csv"))), dtype=float).reshape(-1, 25, 11)
    np.testing.assert_allclose(rows[:, 8, 9:], clean[:, 2], atol=1e-2)


def test_ma52_has_trimmed_clips_and_lists(write):
    root = write("ma52", rgb=True)
    expected = {"label_name.txt"}
    for plan, part in zip(plan_layout("ma52", TINY), ("train", "val", "test"), strict=True):
        lines = [line.split(" ") for line in (root / f"{part}_list_videos.txt").read_text().splitlines()]
        assert [name for name, _ in lines] == [f"{plan.subject:04d}_01_{index:04d}.mp4" for index in range(1, 8)]
        expected |= {f"{part}_list_videos.txt", *(f"videos_{part}/{name}" for name, _ in lines)}
        labels = [int(label) for _, label in lines]
        assert (set(labels) == {0}) if part == "test" else (min(labels) >= 0 and len(set(labels)) > 1)
        assert max(labels) < 52
        assert count_frames(root / f"videos_{part}" / lines[2][0]) == (lengths(plan)[2], (25, 160, 90))
    assert list_names(root) == expected
    names = [line.split("\t") for line in (root / "label_name.txt").read_text().splitlines()]
    assert names[0] == ["0", "synthetic action 00"] and [int(label) for label, _ in names] == list(range(52))
    assert not list(write("ma52").rglob("*.mp4"))


# Derived packs


def test_pyskl_has_the_documented_form(write, videos):
    root = write("pyskl")
    assert list_names(root) == {"imigue_pyskl.pkl"}
    content = read_pickle(root / "imigue_pyskl.pkl")
    assert set(content) == {"split", "annotations"}
    assert content["split"] == {
        part: [f"{video_id}_{index}" for index in range(7)]
        for part, video_id in (("train", TRAIN), ("val", VALIDATE), ("test", TEST))
    }
    annotations = {annotation["frame_dir"]: annotation for annotation in content["annotations"]}
    assert len(annotations) == len(content["annotations"]) == 21
    for video_id, (plan, video) in videos.items():
        for index, (label, start, end) in enumerate(plan.labels):
            annotation = annotations[f"{video_id}_{index}"]
            points, scores = annotation.pop("keypoint"), annotation.pop("keypoint_score")
            assert annotation == {
                "frame_dir": f"{video_id}_{index}",
                "label": 0 if video_id == TEST else label,
                "img_shape": (90, 160),
                "total_frames": end - start + 1,
            }
            expected = video.keypoints[None, start : end + 1, IMIGUE_22]
            np.testing.assert_array_equal(points, expected[..., :2])
            np.testing.assert_array_equal(scores, expected[..., 2])


def test_pyskl_can_have_the_wrong_image_shape(write):
    annotations = read_pickle(write("pyskl", wrong_image_shape=True) / "imigue_pyskl.pkl")["annotations"]
    assert {annotation["img_shape"] for annotation in annotations} == {(1080, 1920)}


def test_miga_arrays_have_90_frames(write, videos):
    root = write("miga-arrays")
    for part, video_id in (("train", TRAIN), ("val", VALIDATE), ("test", TEST)):
        data = np.load(root / f"{part}_data_joint.npy")
        names, labels = read_pickle(root / f"{part}_label.pkl")
        plan, video = videos[video_id]
        assert data.shape == (7, 3, 90, 22, 1) and data.dtype == np.float32
        assert names == [f"{video_id}_{index}" for index in range(7)]
        assert labels == [0 if part == "test" else label for label, _, _ in plan.labels]
        for row, (_, start, end) in zip(data, plan.labels, strict=True):
            length = end - start + 1
            for point in range(22):
                expected = video.keypoints[start : end + 1, IMIGUE_22[point]].T
                np.testing.assert_array_equal(row[:, :length, point, 0], expected)
            assert not row[:, length:].any()
    assert len(list_names(root)) == 6


def test_arrays_cut_clips_after_90_frames(tmp_path):
    config = dataclasses.replace(TINY, num_validate_subjects=0, min_clip_frames=100, max_clip_frames=101)
    root = write_layout(tmp_path, "miga-arrays", dataclasses.replace(config, num_test_subjects=0))
    data = np.load(root / "train_data_joint.npy")
    assert data.shape[2] == 90 and data[:, :, -5:].any()
    assert list_names(root) == {"train_data_joint.npy", "train_label.pkl"}


# Faults


@pytest.mark.parametrize("layout", ["miga", "miga-2023", "oulu"])
def test_empty_xlsx_concerns_one_video(write, layout):
    root = write(layout, faults=["empty_xlsx"])
    rows = {path.parent.name: len(read_xlsx(path)) for path in root.rglob("*.xlsx")}
    assert rows == {plan.video_id: plan.num_frames * (plan.video_id != TRAIN) for plan in plan_layout(layout, TINY)}
    book = openpyxl.load_workbook(next(root.rglob(f"{TRAIN}_*.xlsx")))
    assert [cell.value for row in book.active.iter_rows() for cell in row] in ([], [None])


def test_frames_without_person_are_zeros_in_every_skeleton(write, videos):
    faults = ["frames_without_person"]
    miga, oulu, smg, json_files = (write(layout, faults=faults) for layout in ("miga", "oulu", "smg", "openpose-json"))
    skeletons = [
        read_xlsx(next(miga.rglob(f"{TEST}_openpose.xlsx"))),
        np.array(read_csv(next(miga.rglob(f"{TEST}_light_hand.csv"))), dtype=float)[:, 1:],
        read_xlsx(next(oulu.rglob(f"{TEST}_2.xlsx"))),
        np.array(read_csv(next(smg.rglob("Sample0003_skeleton.csv"))), dtype=float),
    ]
    sequence = read_openpose(json_files / "mg_skeleton_only" / TEST)
    skeletons.append(sequence.keypoints.reshape(len(sequence.keypoints), -1))
    for rows in skeletons:
        assert not rows[::10].any()
        assert rows[1::10].any(axis=1).mean() > 0.8
    assert (sequence.num_people[::10] == 0).all()


def test_frames_without_person_reach_the_derived_packs(write, videos):
    faults = ["frames_without_person"]
    annotations = read_pickle(write("pyskl", faults=faults) / "imigue_pyskl.pkl")["annotations"]
    data = np.load(write("miga-arrays", faults=faults) / "train_data_joint.npy")
    for index, (_, start, end) in enumerate(videos[TRAIN][0].labels):
        empty = [frame - start for frame in range(start, end + 1) if frame % 10 == 0]
        assert not annotations[index]["keypoint"][0, empty].any() and not data[index][:, empty].any()
        assert annotations[index]["keypoint"].any() and data[index].any()


def test_two_people_add_a_smaller_one_before_or_after(write, videos):
    root = write("openpose-json", faults=["two_people"])
    folder = root / "mg_skeleton_only" / TRAIN
    keypoints = videos[TRAIN][1].keypoints
    largest = read_openpose(folder)
    np.testing.assert_array_equal(largest.keypoints, keypoints)
    seen = keypoints.reshape(len(keypoints), -1).any(axis=1)
    expected = np.where(np.arange(len(keypoints)) % 4 == 0, 2, 1) * seen
    np.testing.assert_array_equal(largest.num_people, expected)
    first = read_openpose(folder, person=0).keypoints
    is_other = np.array([not np.array_equal(*pair) for pair in zip(first, keypoints, strict=True)])
    np.testing.assert_array_equal(np.flatnonzero(is_other), [i for i in range(0, len(keypoints), 8) if seen[i]])
    frame = int(np.flatnonzero(is_other)[0])
    np.testing.assert_allclose(first[frame][..., :2], 0.4 * keypoints[frame][..., :2], atol=1e-2)
    np.testing.assert_array_equal(valid_keypoints(first[frame]), valid_keypoints(keypoints[frame]))
    content = json.loads((folder / f"{TRAIN}_{frame:012d}_keypoints.json").read_text())
    assert [set(person) for person in content["people"]] == [set(content["people"][0])] * 2


@pytest.mark.parametrize("layout", ["miga", "miga-2023"])
def test_last_clip_of_one_test_video_is_missing(write, layout):
    config = dataclasses.replace(TINY, num_test_subjects=2)
    root = write(layout, config, faults=["last_clip_missing"], skeletons=False)
    plans = plan_layout(layout, config)
    missing = {
        plan.video_id: len(plan.labels) - len(read_csv(next(root.rglob(f"{plan.video_id}_label.csv"))))
        for plan in plans
    }
    assert missing == {TRAIN: 0, VALIDATE: 0, "0012": 1, "0013": 0}
    rows = read_csv(next(root.rglob("0012_label.csv")))
    test = next(plan for plan in plans if plan.video_id == "0012")
    assert [(int(start), int(end)) for _, start, end in rows] == [clip[1:] for clip in test.labels[:-1]]


def test_swapped_hands_put_the_right_one_first(write, videos):
    root = write("miga", faults=["swapped_hands"])
    keypoints = videos[TRAIN][1].keypoints
    order = [*range(95), *range(116, 137), *range(95, 116)]
    sheet = read_xlsx(next(root.rglob(f"{TRAIN}_openpose.xlsx"))).reshape(-1, 137, 3)
    np.testing.assert_allclose(sheet, keypoints[:, order], atol=1e-3)
    light = np.array(read_csv(next(root.rglob(f"{TRAIN}_light_hand.csv"))), dtype=float)[:, 1:].reshape(-1, 35, 3)
    np.testing.assert_allclose(light, keypoints[:, [*LIGHT_35[:25], *LIGHT_35[30:], *LIGHT_35[25:30]]], atol=1e-3)
    sheet = read_xlsx(next(write("oulu", faults=["swapped_hands"]).rglob(f"{TRAIN}_2.xlsx")))
    np.testing.assert_allclose(sheet.reshape(-1, 137, 3), keypoints[:, order], atol=1e-3)


@pytest.mark.parametrize("layout", ["oulu", "smg"])
def test_videos_can_be_one_frame_short(write, layout):
    config = dataclasses.replace(TINY, num_validate_subjects=0, num_test_subjects=0, clips_per_video=6)
    (plan,) = plan_layout(layout, config)
    root = write(layout, config, rgb=True, skeletons=False, faults=["one_frame_short"])
    (path,) = root.rglob("*.mp4")
    assert count_frames(path)[0] == plan.num_frames - 1 > plan.labels[-1][2]


# Arguments and determinism


@pytest.mark.parametrize(
    "layout, options, message",
    [
        ("miga", {"faults": ["no_such"]}, "faults: no_such; .* can have: empty_xlsx, frames_without_person"),
        ("ma52", {"faults": ["empty_xlsx"]}, "can have: none"),
        ("oulu", {"faults": ["one_frame_short"], "rgb": False}, "one_frame_short;"),
        ("oulu", {"faults": ["one_frame_short"], "trimmed_rgb": True}, "one_frame_short;"),
        ("oulu", {"faults": ["empty_xlsx"], "skeletons": False}, "empty_xlsx;"),
        ("pyskl", {"skeletons": False}, "nothing but skeletons"),
        ("oulu", {"light_hand_header": True}, "light_hand_header is for the layouts miga, miga-2023; got 'oulu'"),
        ("smg", {"first_frame": 2}, "first_frame is 2"),
        ("imigue", {}, "layout is 'imigue'; expected one of miga, miga-2023"),
    ],
)
def test_what_would_change_nothing_is_refused(tmp_path, layout, options, message):
    with pytest.raises(ValueError, match=message):
        write_layout(tmp_path / "new", layout, TINY, **options)
    assert not (tmp_path / "new").exists()


def test_last_clip_missing_needs_a_test_video(tmp_path):
    config = dataclasses.replace(TINY, num_test_subjects=0)
    with pytest.raises(ValueError, match="last_clip_missing;"):
        write_layout(tmp_path, "miga", config, faults=["last_clip_missing"])


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        write_layout(tmp_path, "pyskl", TINY)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_depend_on_the_seed_alone(write, layout):
    config = dataclasses.replace(
        TINY, num_validate_subjects=0, clips_per_video=6, max_clip_frames=20, num_test_subjects=0
    )
    rgb = layout in ("ma52", "smg")
    digests = [
        {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in list_names(root)}
        for root in (
            write(layout, config, rgb=rgb),
            write(layout, config, rgb=rgb),
            write(layout, dataclasses.replace(config, seed=6), rgb=rgb),
        )
    ]
    assert digests[0] == digests[1] and digests[0] != digests[2]


def test_every_layout_has_a_row_in_the_table_and_a_list_of_faults():
    assert set(FAULTS) == set(LAYOUTS)
    for layout in LAYOUTS:
        assert f"| {layout} |" in str(synthetic_layouts.__doc__)
    for fault in {fault for faults in FAULTS.values() for fault in faults}:
        assert f'`"{fault}"`' in str(write_layout.__doc__)


# Scale and command line


def test_index_has_the_published_size(tmp_path):
    root = write_index(tmp_path / "index")
    rows = read_csv(root / "Label/labels_20200831.csv")[1:]
    clips_of_videos = Counter(int(row[0]) for row in rows)
    assert len(rows) == 18_498 and sorted(clips_of_videos) == list(range(1, 360))
    assert {int(row[7]) for row in rows} == set(range(1, 73))
    assert {int(row[6]) for row in rows} == {*range(1, 32), 99}
    assert all(0 <= int(row[3]) < int(row[5]) for row in rows)
    assert [int(row[1]) for row in rows if row[0] == "7"] == list(range(1, clips_of_videos[7] + 1))
    sheets = sorted(path.relative_to(root / "mg_skeleton_only").as_posix() for path in root.rglob("*.xlsx"))
    assert sheets == [f"{video:04d}/{video:04d}_2.xlsx" for video in range(1, 360)]
    assert read_xlsx(root / "mg_skeleton_only" / sheets[0]).size == 0


def test_index_depends_on_the_seed(tmp_path):
    texts = [
        (write_index(tmp_path / str(number), 5, 40, seed) / "Label/labels_20200831.csv").read_bytes()
        for number, seed in enumerate((1, 1, 2))
    ]
    assert texts[0] == texts[1] != texts[2]
    with pytest.raises(ValueError, match="num_videos is 5"):
        write_index(tmp_path / "small", 5, 4)


def test_command_line_writes_a_layout_or_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    command = ["synthetic_layouts", "--layout", "pyskl", "--output", str(tmp_path / "new"), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", [*command, "--faults", "frames_without_person"])
    main()
    config = dataclasses.replace(default_config("pyskl"), seed=3)
    expected = write_layout(tmp_path / "same", "pyskl", config, faults=["frames_without_person"])
    assert (tmp_path / "new/imigue_pyskl.pkl").read_bytes() == (expected / "imigue_pyskl.pkl").read_bytes()
    with pytest.raises(SystemExit, match="1"):
        run(main)
    assert "is not empty; expected a new folder" in capsys.readouterr().err


def test_the_command_line_counts_training_videos_and_writes_trimmed_clips(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic_layouts, "default_config", lambda layout: TINY)
    command = ["synthetic_layouts", "--layout", "oulu", "--output", str(tmp_path / "new"), "--num-videos", "3"]
    monkeypatch.setattr(sys, "argv", [*command, "--trimmed-rgb"])
    main()
    assert len(list((tmp_path / "new").rglob("*.xlsx"))) == 5
    assert len(list((tmp_path / "new").rglob("*.mp4"))) == 5 * TINY.clips_per_video


def test_the_help_names_the_faults_of_each_layout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["synthetic_layouts", "--help"])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().out
    for layout, faults in FAULTS.items():
        assert f"  {layout}: {', '.join(faults) or 'none'}\n" in printed


def test_an_interrupted_run_leaves_the_folder_to_the_next_one(tmp_path, monkeypatch):
    def stop(config, subject, video_id):
        if video_id != "0005":
            raise KeyboardInterrupt
        return generate_video(config, subject, video_id)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic_layouts, "generate_video", stop)
        with pytest.raises(KeyboardInterrupt):
            write_layout(tmp_path / "new", "miga", TINY, rgb=False)
    assert list((tmp_path / "new").iterdir()) == []
    again, other = (write_layout(tmp_path / name, "miga", TINY, rgb=False) for name in ("new", "other"))
    assert list_names(again) == list_names(other)
