"""The synthetic data set: MiGA layout, determinism, and the properties that make its classes need both streams."""

import csv
import dataclasses
import json
import shutil

import av
import numpy as np
import openpyxl
import pytest

from clipmg_hf.data.synthetic import (
    SYNTHETIC_CLASSES,
    SyntheticConfig,
    generate_dataset,
    generate_video,
    plan_dataset,
    raw_class,
)
from clipmg_hf.data.synthetic_rendering import Canvas


TINY = SyntheticConfig(
    seed=3,
    num_train_subjects=1,
    num_validate_subjects=1,
    num_test_subjects=1,
    clips_per_video=10,
    max_clip_frames=24,
    max_gap_frames=4,
    width=160,
    height=90,
)
STILL = dataclasses.replace(TINY, width=320, height=180, camera_shake=0.0, flicker=0.0)
UNSEEN = [8, 9, 10, 11, 12, 13, 14, 19, 20, 21, 22, 23, 24]
SKELETONS = {
    "0001": "imigue_data_phase1/datasets/imigue_skeleton_train/0001",
    "0002": "imigue_data_phase1/datasets/imigue_skeleton_validate/0002",
    "0003": "imigue_data_phase2/imigue_skeleton_test/0003",
}
VIDEOS = {
    "0001": "imigue_rgb_phase1/train_data/0001/0001.mp4",
    "0002": "imigue_rgb_phase1/validation_data/0002/0002.mp4",
    "0003": "imigue_rgb_phase2/0003/0003.mp4",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_dataset(tmp_path_factory.mktemp("synthetic"), TINY, show_progress=False)


@pytest.fixture(scope="module")
def still():
    return generate_video(STILL, 5, "0005")


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def read_xlsx(path):
    book = openpyxl.load_workbook(path, read_only=True)
    rows = np.array(list(book.active.iter_rows(values_only=True)), dtype=np.float64)
    book.close()
    return rows


# Files


def test_layout_is_that_of_the_miga_packs(root):
    expected = {"synthetic.json", *VIDEOS.values()}
    for video_id, folder in SKELETONS.items():
        expected |= {f"{folder}/{video_id}{end}" for end in ("_label.csv", "_light_hand.csv", "_openpose.xlsx")}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == expected


@pytest.mark.parametrize("subject, video_id", [(1, "0001"), (3, "0003")])
def test_xlsx_and_light_hand_hold_the_keypoints(root, subject, video_id):
    keypoints = generate_video(TINY, subject, video_id).keypoints
    folder = root / SKELETONS[video_id]
    sheet = read_xlsx(folder / f"{video_id}_openpose.xlsx")
    assert sheet.shape == (len(keypoints), 411)
    np.testing.assert_allclose(sheet.reshape(-1, 137, 3), keypoints, atol=1e-3)
    light = np.array(read_csv(folder / f"{video_id}_light_hand.csv"), dtype=np.float64)
    assert light.shape == (len(keypoints), 106)
    assert light[:, 0].tolist() == list(range(len(keypoints)))
    order = [*range(25), 99, 103, 107, 111, 115, 120, 124, 128, 132, 136]
    np.testing.assert_allclose(light[:, 1:].reshape(-1, 35, 3), keypoints[:, order], atol=1e-3)


def test_xlsx_is_read_by_calamine(root):
    calamine = pytest.importorskip("python_calamine")
    path = root / SKELETONS["0001"] / "0001_openpose.xlsx"
    rows = calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python(skip_empty_area=False)
    np.testing.assert_array_equal(np.array(rows, dtype=np.float64), read_xlsx(path))


def test_video_holds_the_rendered_frames(root):
    video = generate_video(TINY, 1, "0001")
    with av.open(str(root / VIDEOS["0001"])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (160, 90, 25)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == len(video)
    for index in (0, len(video) // 2, len(video) - 1):
        difference = decoded[index].astype(float) - video.frame(index)
        assert np.abs(difference).mean() < 8


def test_label_file_holds_raw_classes_and_hides_those_of_the_test_set(root):
    for subject, video_id in ((1, "0001"), (2, "0002"), (3, "0003")):
        rows = [tuple(map(int, row)) for row in read_csv(root / SKELETONS[video_id] / f"{video_id}_label.csv")]
        labels = generate_video(TINY, subject, video_id).labels
        raw = [0] * len(labels) if video_id == "0003" else [raw_class(label) for label, _, _ in labels]
        assert rows == [(label, start, end) for label, (_, start, end) in zip(raw, labels, strict=True)]
    assert raw_class(31) == 99 and [31 if raw_class(c) == 99 else raw_class(c) - 1 for c in range(32)] == list(
        range(32)
    )


def test_summary_proves_that_splits_share_no_subject(root):
    summary = json.loads((root / "synthetic.json").read_text())
    assert summary["settings"] == dataclasses.asdict(TINY) and summary["seed"] == 3
    subjects: dict[str, set[int]] = {split: set() for split in ("train", "validate", "test")}
    for video_id, video in summary["videos"].items():
        subjects[video["split"]].add(video["subject"])
        assert video["num_frames"] == len(generate_video(TINY, video["subject"], video_id))
        assert video["num_clips"] == sum(video["clips_per_class"].values()) == 10
    assert len(set.union(*subjects.values())) == sum(map(len, subjects.values())) == 3


def test_finished_videos_are_skipped_and_missing_ones_are_added(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    lost = root / SKELETONS["0002"] / "0002_label.csv"
    content = lost.read_bytes()
    lost.unlink()
    generate_dataset(root, TINY, show_progress=False)
    assert lost.read_bytes() == content
    changed = {path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert {path.parent.name for path in changed} == {"0002"}


def test_a_worker_process_writes_the_same_files(root, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    written = [copy / VIDEOS["0002"], *(copy / SKELETONS["0002"]).iterdir()]
    for path in written:
        path.unlink()
    generate_dataset(copy, TINY, num_workers=2, show_progress=False)
    for path in written:
        assert path.read_bytes() == (root / path.relative_to(copy)).read_bytes(), path.name


def test_a_root_of_other_settings_is_refused(root, tmp_path):
    with pytest.raises(ValueError, match="seed 3 there, 4 asked for"):
        generate_dataset(root, dataclasses.replace(TINY, seed=4), show_progress=False)
    (tmp_path / "imigue_rgb_phase1/train_data").mkdir(parents=True)
    with pytest.raises(ValueError, match="not a synthetic data set"):
        generate_dataset(tmp_path, TINY, show_progress=False)


@pytest.mark.parametrize(
    "setting", [{"clips_per_video": 5}, {"max_clip_frames": 19}, {"width": 321}, {"flicker": 0.5}]
)
def test_impossible_settings_are_refused(setting):
    with pytest.raises(ValueError, match=str(next(iter(setting.values())))):
        SyntheticConfig(**setting)


# Plan


def test_default_plan_is_a_demo_with_a_long_tail():
    plans = plan_dataset(SyntheticConfig())
    counts = {split: dict.fromkeys(SYNTHETIC_CLASSES, 0) for split in ("train", "validate", "test")}
    for plan in plans:
        for label, _, _ in plan.labels:
            counts[plan.split][label] += 1
    train, validate = counts["train"], counts["validate"]
    assert 500 <= sum(train.values()) <= 600 and 150 <= sum(validate.values()) <= 200
    assert min(validate.values()) >= 5
    assert sorted(train, key=lambda label: train[label])[-2:] == [30, 31]
    assert max(train.values()) >= 4 * min(train.values())
    assert sum(plan.num_frames for plan in plans) < 30_000


@pytest.mark.parametrize("plan", plan_dataset(SyntheticConfig(seed=1))[:4], ids=lambda plan: plan.video_id)
def test_clips_are_disjoint_and_inside_their_video(plan):
    ends = [-1]
    for label, start, end in plan.labels:
        assert label in SYNTHETIC_CLASSES
        assert start > ends[-1] and 20 <= end - start + 1 <= 60
        ends.append(end)
    assert ends[-1] < plan.num_frames


# Keypoints


def test_keypoints_depend_on_the_seed_alone():
    first, again = (generate_video(TINY, 1, "0001").keypoints for _ in range(2))
    assert first.dtype == np.float32 and first.shape[1:] == (137, 3)
    assert first.tobytes() == again.tobytes()
    other = generate_video(dataclasses.replace(TINY, seed=4), 1, "0001").keypoints
    assert other.shape != first.shape or not np.allclose(other, first)


@pytest.mark.parametrize("one, other", [(2, 3), (22, 25)])
def test_pairs_differ_in_the_picture_alone(one, other):
    videos = [generate_video(STILL, 1, "0001", classes=[label] * 10) for label in (one, other)]
    assert videos[0].keypoints.tobytes() == videos[1].keypoints.tobytes()
    assert videos[0].clean_keypoints.tobytes() == videos[1].clean_keypoints.tobytes()
    _, start, end = videos[0].labels[0]
    pictures = [video.frame((start + end) // 2).astype(int) for video in videos]
    changed = np.abs(pictures[0] - pictures[1]).max(2) > 40
    assert changed.sum() >= 40


def test_hats_and_objects_tell_nothing_alone():
    plans, config = plan_dataset(SyntheticConfig())[:12], SyntheticConfig()
    styles: dict[int, list] = {label: [] for label in SYNTHETIC_CLASSES}
    for plan in plans:
        video = generate_video(config, plan.subject, plan.video_id)
        for (label, _, _), style in zip(video.labels, video.clip_styles, strict=True):
            styles[label].append(style)
    assert all(style.hat for style in styles[2]) and not any(style.hat for style in styles[3])
    others = [style for label, own in styles.items() if label not in (2, 3) for style in own]
    assert 0.2 < np.mean([style.hat for style in others]) < 0.4
    assert all((style.held is not None) == (label == 25) for label, own in styles.items() for style in own)
    assert 0.3 < np.mean([bool(style.on_desk) for style in others]) < 0.6


def test_observation_has_the_noise_and_the_gaps_of_a_detector(still):
    videos = [generate_video(STILL, subject, f"{subject:04d}") for subject in range(1, 9)]
    observed = np.concatenate([video.keypoints for video in videos])
    clean = np.concatenate([video.clean_keypoints for video in videos])
    missing = observed[..., 2] == 0
    assert np.all(observed[missing] == 0)
    assert 0.002 < missing.all(1).mean() < 0.02
    assert missing[:, UNSEEN].all()
    assert 0.01 < missing[:, :8].mean() < 0.03
    assert 0.04 < missing[:, 95:].mean() < 0.1
    assert 0.2 < missing[:, [17, 18]].any(1).mean() < 0.7
    error = observed[..., :2] - clean
    for points, jitter, low, high in (
        (range(8), 0.65, 0.6, 0.95),
        (range(25, 95), 0.3, 0.5, 0.9),
        (range(95, 137), 1.0, 0.3, 0.6),
    ):
        seen = ~missing[:, points]
        assert error[:, points][seen].std() == pytest.approx(jitter, rel=0.05)
        confidence = observed[:, points, 2][seen]
        assert low <= confidence.min() and confidence.max() <= high


def clip_spread(video, label, signal):
    """The standard deviation of `signal` in the clips of one class, averaged."""
    spans = [slice(start, end + 1) for found, start, end in video.labels if found == label]
    return np.mean([signal(video.clean_keypoints[span]).std() for span in spans])


def shoulder_speed(points):
    return np.diff(points[:, [2, 5], 1], axis=0)


def shoulder_height(points):
    return points[:, [2, 5], 1].mean(1) - points[:, 0, 1]


def lip_height(points):
    return points[:, 25 + 57, 1] - points[:, 25 + 51, 1]


def torso_position(points):
    return points[:, 1, 0]


def test_small_gestures_move_their_own_points(still):
    others = max(clip_spread(still, label, shoulder_speed) for label in (3, 16, 22, 28))
    assert clip_spread(still, 30, shoulder_speed) > 4 * others
    assert 1.0 < clip_spread(still, 30, shoulder_height) < 4.0
    others = max(clip_spread(still, label, torso_position) for label in (3, 22, 28, 30))
    assert clip_spread(still, 19, torso_position) > 2 * others
    assert clip_spread(still, 28, lip_height) > 0.7


def test_camera_shake_moves_everything_alike():
    shaken = dataclasses.replace(STILL, camera_shake=2.0)
    offset = generate_video(shaken, 1, "0001").clean_keypoints - generate_video(STILL, 1, "0001").clean_keypoints
    np.testing.assert_allclose(offset, np.broadcast_to(offset[:, :1], offset.shape), atol=1e-3)
    assert 0.5 < np.abs(offset).max() < 2.01


# Pictures


def test_wrists_are_drawn_where_the_keypoints_are(still):
    skin = np.array(still._renderer.person.skin)
    for index in range(0, len(still), 29):
        frame = still.frame(index)
        assert frame.shape == (180, 320, 3) and frame.dtype == np.uint8
        for x, y in np.rint(still.clean_keypoints[index, [4, 7]]).astype(int):
            if 0 <= x < 320 and 0 <= y < 180:
                color = frame[y, x].astype(float)
                # Shading scales the colour and leaves its direction.
                cosine = color @ skin / (np.linalg.norm(color) * np.linalg.norm(skin))
                assert cosine > 0.99, (index, x, y)


def test_frames_are_reproducible(still):
    index = len(still) // 2
    last = still.frame(index)
    assert np.array_equal(still.frame(index - 1), generate_video(STILL, 5, "0005").frame(index - 1))
    assert np.array_equal(still.frame(index), last)


def test_canvas_covers_the_area_of_its_shapes():
    areas = []
    for draw in (
        lambda canvas: canvas.capsules([[[30.3, 40.0], [30.3, 40.0]]], [[10.0, 10.0]], (200.0, 0.0, 0.0)),
        lambda canvas: canvas.ellipses([(40.2, 40.7)], (12.0, 12.0), (200.0, 0.0, 0.0)),
        lambda canvas: canvas.polygon([[20.5, 20.5], [40.5, 20.5], [40.5, 30.5], [20.5, 30.5]], (200.0, 0.0, 0.0)),
    ):
        canvas = Canvas(np.zeros((3, 80, 80), dtype=np.float32))
        draw(canvas)
        areas.append(canvas.pixels[0].sum() / 200)
        assert canvas.pixels[1:].max() == 0
    assert areas == pytest.approx([np.pi * 100, np.pi * 144, 200], rel=0.02)


def test_canvas_clips_shapes_at_the_border():
    canvas = Canvas(np.zeros((3, 20, 20), dtype=np.float32))
    canvas.capsules([[[-30.0, -30.0], [-25.0, -30.0]]], [[3.0, 3.0]], (200.0, 200.0, 200.0))
    assert canvas.pixels.max() == 0
    canvas.ellipses([(0.0, 0.0)], (4.0, 4.0), (200.0, 200.0, 200.0))
    assert canvas.pixels[0, 0, 0] == pytest.approx(200) and canvas.pixels[0, 10:, 10:].max() == 0


def test_streams_fail_in_their_share_of_the_clips_and_never_both():
    hard = dataclasses.replace(STILL, pose_failure_rate=0.4, dark_rate=0.4)
    failed = dark = 0
    for video in range(1, 5):
        easy_video, hard_video = (
            generate_video(STILL, video, f"{video:04d}"),
            generate_video(hard, video, f"{video:04d}"),
        )
        for index, (_, start, end) in enumerate(hard_video.labels):
            easy, guessed = easy_video.keypoints[start : end + 1], hard_video.keypoints[start : end + 1]
            is_failed, is_dark = not np.array_equal(easy, guessed), hard_video.dark_clips[index]
            assert not (is_failed and is_dark)
            failed, dark = failed + is_failed, dark + is_dark
            frames = easy_video.frame(start), hard_video.frame(start)
            assert np.array_equal(*frames) != is_dark
            if is_dark:
                # Nothing but a hint of the scene is left, and it is the same each time.
                correlation = np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]
                assert 0.02 < correlation < 0.4 and np.array_equal(frames[1], hard_video.frame(start))
            if is_failed:
                seen = easy[..., 2] > 0
                assert np.array_equal(guessed[..., 2], easy[..., 2] * np.float32(0.5))
                distance = np.linalg.norm(guessed[seen, :2] - easy[seen, :2], axis=1)
                assert np.median(distance) > 8 > 1 > np.linalg.norm(guessed[~seen])
                assert (guessed[seen, :2].min(0) >= easy[seen, :2].min(0)).all()
                assert (guessed[seen, :2].max(0) <= easy[seen, :2].max(0)).all()
    # Of 40 clips, 16 each expected.
    assert 8 <= failed <= 24 and 8 <= dark <= 24


@pytest.mark.parametrize("rates", [{"pose_failure_rate": -0.1}, {"pose_failure_rate": 0.6, "dark_rate": 0.5}])
def test_shares_of_failing_streams_are_checked(rates):
    with pytest.raises(ValueError, match="shares that sum to 1 at most, got pose_failure_rate="):
        dataclasses.replace(STILL, **rates)
