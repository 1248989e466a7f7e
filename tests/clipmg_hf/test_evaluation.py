"""Scores of a split against the model called by hand, and the files of an evaluation against metrics.py."""

import csv
import dataclasses
import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TrainingArguments

from clipmg_hf import IMIGUE_LABELS, CLIPMGProcessor
from clipmg_hf.data import ClipDataset, DatasetFormatError, collate_clips
from clipmg_hf.data.labels import (
    IMIGUE_GROUP_NAMES,
    IMIGUE_GROUPS,
    MA52_GROUP_NAMES,
    MA52_GROUPS,
    SMG_LABELS,
    check_labels,
    known_groups,
)
from clipmg_hf.data.schema import clip_features
from clipmg_hf.evaluation import (
    Evaluation,
    EvaluationOptions,
    average_views,
    evaluate_checkpoint,
    mirror_batch,
)
from clipmg_hf.evaluation_results import (
    class_groups,
    describe_checkpoint,
    measure,
    options_facts,
    write_evaluation,
)
from clipmg_hf.evaluation_strips import choose_clips, write_strips
from clipmg_hf.inference import load_model, predict_clip
from clipmg_hf.metrics import (
    bootstrap_intervals,
    calibration,
    classification_metrics,
    confusion_matrix,
    f1_mean,
    log_softmax,
    per_class_table,
    per_group_table,
)
from clipmg_hf.processing import get_layout
from clipmg_hf.score_files import Scores, read_scores
from clipmg_hf.training import make_trainer


NUM_CLIPS = 9
# What clips lack, by their number; the others have both streams.
WITHOUT_VIDEO, WITHOUT_POSE = {2, 7}, {4}
LABELS = [31, 3, 3, 0, 16, 31, 16, 31, 3]
FEATURES = clip_features(IMIGUE_LABELS, IMIGUE_GROUP_NAMES, "openpose-137")
TTA = {"num_views": 3, "flip": True}


def evaluate(loaded, rows, **values):
    return evaluate_checkpoint(*loaded, rows, EvaluationOptions(**values), show_progress=False)


def make_rows(file, points, labels=LABELS, **values) -> datasets.Dataset:
    """Clips of different intervals of one file, under the names of three videos."""
    rows = []
    for index in range(NUM_CLIPS):
        start, end = index % 4, 7 + index % 5
        has_pose = index not in WITHOUT_POSE
        label = labels[index]
        row = dict.fromkeys(FEATURES) | {
            "clip_id": f"v{index % 3}_{index}",
            "video_id": f"v{index % 3}",
            "start_frame": start,
            "end_frame": end,
            "label": label,
            "group": -1 if label < 0 else IMIGUE_GROUP_NAMES.index(IMIGUE_GROUPS[label]),
            "video": None if index in WITHOUT_VIDEO else str(file),
            "video_start_frame": 0,
            "keypoints": points[start : end + 1] if has_pose else None,
            "keypoints_valid": np.ones((end + 1 - start, 137), bool) if has_pose else None,
            "keypoint_layout": "openpose-137" if has_pose else None,
        }
        rows.append(row | values)
    return datasets.Dataset.from_list(rows, features=FEATURES)


@pytest.fixture(scope="module")
def checkpoint(save_checkpoint, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("small"), num_frames=2, pose_frames_per_frame=2)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def rows(video, points):
    return make_rows(video, points)


@pytest.fixture(scope="module")
def plain(loaded, rows):
    return evaluate(loaded, rows)


@pytest.fixture(scope="module")
def augmented(loaded, rows):
    return evaluate(loaded, rows, **TTA)


def reference_logits(loaded, rows, view=0, flip=False) -> np.ndarray:
    """One clip at a time, through the processor's own mirroring."""
    model, processor = loaded
    drawing = CLIPMGProcessor.from_model_config(
        model.config, augmentation_area=(1.0, 1.0), augmentation_flip=float(flip)
    )
    if view:
        items = ClipDataset(rows, drawing, augment=True, seed=0)
        items.set_epoch(view)
    else:
        items = ClipDataset(rows, processor)
    logits = []
    for item in items:
        batch = collate_clips([item])
        batch.pop("labels")
        with torch.inference_mode():
            logits.append(model(**batch).logits[0].numpy())
    return np.stack(logits)


# --- scores


def test_plain_evaluation_equals_the_model_called_by_hand(loaded, rows, plain):
    np.testing.assert_allclose(plain.scores.logits, reference_logits(loaded, rows), atol=1e-4)
    assert plain.scores.clip_ids == rows["clip_id"] and plain.scores.video_ids == rows["video_id"]
    assert plain.scores.labels.tolist() == LABELS and plain.scores.label_names == list(IMIGUE_LABELS)
    assert plain.scores.data_fingerprint == rows._fingerprint and plain.scores.views == 1


def test_plain_evaluation_equals_trainers(loaded, rows, plain, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    trainer = make_trainer(*loaded, rows, rows, args)
    np.testing.assert_allclose(trainer.predict(trainer.eval_dataset).predictions, plain.scores.logits, atol=1e-4)


def test_views_are_averaged_as_probabilities(loaded, rows, augmented):
    single = [reference_logits(loaded, rows, view, flip) for view in (1, 2) for flip in (False, True)]
    drawn = np.exp(log_softmax(np.stack(single, axis=1)))
    # The middle grid is not drawn: its mirror image is checked by `mirror_batch` alone.
    middle = evaluate(loaded, rows, flip=True)
    expected = (2 * np.exp(log_softmax(middle.scores.logits)) + drawn.sum(axis=1)) / 6
    np.testing.assert_allclose(np.exp(log_softmax(augmented.scores.logits)), expected, atol=1e-5)
    np.testing.assert_allclose(np.exp(augmented.scores.logits).sum(axis=1), 1, atol=1e-5)
    assert augmented.scores.views == 6


def test_averages_of_views():
    logits = np.random.default_rng(0).normal(size=(4, 5, 7))
    expected = np.log(np.mean(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), axis=1))
    np.testing.assert_allclose(average_views(logits), expected)
    np.testing.assert_allclose(average_views(logits, "logits"), logits.mean(axis=1))
    np.testing.assert_array_equal(average_views(logits[:, :1]), logits[:, 0])


def test_average_of_logits(loaded, rows):
    both = evaluate(loaded, rows, num_views=2, average="logits")
    expected = (reference_logits(loaded, rows) + reference_logits(loaded, rows, view=1)) / 2
    np.testing.assert_allclose(both.scores.logits, expected, atol=1e-4)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (4, 2), (64, 1)])
def test_batches_and_workers_change_nothing(loaded, rows, augmented, batch_size, num_workers):
    # Clips with both streams, with either alone, and more than one batch.
    kept = [2, 3, 4, 7]
    again = evaluate(loaded, rows.select(kept), **TTA, batch_size=batch_size, num_workers=num_workers)
    np.testing.assert_allclose(again.scores.logits, augmented.scores.logits[kept], atol=1e-5)
    np.testing.assert_allclose(again.gate_means, augmented.gate_means[kept], atol=1e-6)


def test_views_depend_on_the_seed_and_not_on_the_other_clips(loaded, rows, augmented):
    part = rows.select([5, 1])
    np.testing.assert_allclose(evaluate(loaded, part, **TTA).scores.logits, augmented.scores.logits[[5, 1]], atol=1e-5)
    other = evaluate(loaded, part, **TTA, seed=1)
    assert abs(other.scores.logits - augmented.scores.logits[[5, 1]]).max() > 1e-3


def test_the_model_is_left_in_its_mode(loaded, rows):
    model = loaded[0].train()
    try:
        evaluate(loaded, rows.select([0]))
        assert model.training
    finally:
        model.eval()


def test_half_precision_changes_little(checkpoint, rows, plain):
    model, processor = load_model(checkpoint, device="cpu", dtype=torch.bfloat16)
    half = evaluate((model, processor), rows)
    difference = np.exp(log_softmax(half.scores.logits)) - np.exp(log_softmax(plain.scores.logits))
    assert 0 < abs(difference).max() < 0.1


# --- mirroring


def test_mirroring_a_batch_equals_the_processors(loaded, rows):
    processor = loaded[1]
    settings = {"keypoint_layout": processor.keypoint_layout, "augmentation_area": (1.0, 1.0)}
    batches = {}
    for flip in (0.0, 1.0):
        processor_of_flip = CLIPMGProcessor(processor.video_processor, augmentation_flip=flip, **settings)
        items = ClipDataset(rows, processor_of_flip, augment=True, seed=0)
        batches[flip] = collate_clips([items[index] for index in range(len(items))])
    mirrored = mirror_batch(batches[0.0], get_layout(processor.keypoint_layout))
    assert set(mirrored) == set(batches[1.0])
    for name, tensor in batches[1.0].items():
        torch.testing.assert_close(mirrored[name], tensor, atol=1e-6, rtol=0)
    assert abs(mirrored["keypoints"] - batches[0.0]["keypoints"]).max() > 0.1


def test_a_symmetric_clip_is_its_own_mirror_image(loaded):
    layout = get_layout("imigue-22")
    torch.manual_seed(0)
    batch = {"pixel_values": torch.randn(2, 2, 3, 32, 32), "keypoints": torch.rand(2, 4, 22, 3)}
    other = mirror_batch(batch, layout)
    points = (batch["keypoints"] + other["keypoints"]) / 2
    symmetric = {"pixel_values": batch["pixel_values"] + other["pixel_values"], "keypoints": points}
    mirrored = mirror_batch(symmetric, layout)
    with torch.inference_mode():
        logits, mirrored_logits = (loaded[0](**inputs).logits for inputs in (symmetric, mirrored))
        assert abs(loaded[0](**batch).logits - loaded[0](**other).logits).max() > 1e-3
    torch.testing.assert_close(mirrored_logits, logits, atol=1e-4, rtol=0)


# --- streams


def test_streams_and_gates_of_each_clip(loaded, rows, plain):
    assert set(np.flatnonzero(~plain.has_video)) == WITHOUT_VIDEO
    assert set(np.flatnonzero(~plain.has_pose)) == WITHOUT_POSE
    batch = collate_clips([ClipDataset(rows, loaded[1])[index] for index in range(NUM_CLIPS)])
    with torch.inference_mode():
        gate = loaded[0](**batch, output_explanation=True).gate.mean(dim=-1).numpy()
    np.testing.assert_allclose(plain.gate_means, gate, atol=1e-5)
    assert plain.gate_means[list(WITHOUT_VIDEO)].tolist() == [0, 0] and plain.gate_means[4] == 1


def test_a_hidden_stream_has_no_influence(loaded, rows, video, points, plain):
    rgb = evaluate(loaded, rows, modality="rgb")
    moved = make_rows(video, points[:, ::-1].copy())
    np.testing.assert_array_equal(evaluate(loaded, moved, modality="rgb").scores.logits, rgb.scores.logits)
    assert not rgb.has_pose.any() and (rgb.gate_means[rgb.has_video] == 1).all()
    assert set(np.flatnonzero(~rgb.has_video)) == WITHOUT_VIDEO
    pose = evaluate(loaded, rows, modality="pose")
    blind = make_rows(video, points, video=None)
    has_pose = pose.has_pose
    np.testing.assert_allclose(
        evaluate(loaded, blind.select(np.flatnonzero(has_pose))).scores.logits, pose.scores.logits[has_pose], atol=1e-5
    )
    assert not pose.has_video.any() and (pose.gate_means[pose.has_pose] == 0).all()
    for one, other in ((rgb, pose), (rgb, plain), (pose, plain)):
        assert abs(one.scores.logits - other.scores.logits).max() > 1e-2


@pytest.mark.parametrize(("fusion", "modality"), [("visual", "pose"), ("pose", "rgb")])
def test_a_model_that_reads_nothing_of_what_is_left(save_checkpoint, tmp_path, rows, fusion, modality):
    loaded = load_model(save_checkpoint(tmp_path / fusion, fusion=fusion), device="cpu")
    with pytest.raises(ValueError, match=rf"fusion='{fusion}'\) reads .*modality='{modality}'"):
        evaluate(loaded, rows, modality=modality)
    assert evaluate(loaded, rows).gate_means is None


# --- labels


def test_classes_that_disagree_are_named():
    check_labels(("a", "b"), ["a", "b"], "run")
    with pytest.raises(
        DatasetFormatError, match=r"run has 3 classes, the data 2; .*data: 'x'; .*checkpoint: 'b', 'c'\. Expected"
    ):
        check_labels(["a", "x"], ["a", "b", "c"], "run")
    with pytest.raises(DatasetFormatError, match=r"run has .* another order: class 1 is 'b' and 'c', class 2 is"):
        check_labels(["a", "c", "b"], ["a", "b", "c"], "run")
    with pytest.raises(DatasetFormatError, match=r"data: none; .*, and 25 more\."):
        check_labels(IMIGUE_LABELS[:2], IMIGUE_LABELS, "run")


def test_rows_of_another_data_set_are_refused(loaded, rows):
    other = rows.cast_column("label", datasets.ClassLabel(names=[f"class {index}" for index in range(32)]))
    with pytest.raises(DatasetFormatError, match="only in the data: 'class 0'"):
        evaluate(loaded, other)
    with pytest.raises(DatasetFormatError, match="no clip"):
        evaluate(loaded, rows.select([]))


def test_options_out_of_range():
    for values in ({"num_views": 0}, {"batch_size": 0}, {"average": "votes"}, {"modality": "depth"}):
        with pytest.raises(ValueError, match=next(iter(values))):
            EvaluationOptions(**values)
    assert "batch_size" not in options_facts(EvaluationOptions())


def test_groups_of_classes(rows):
    assert class_groups(rows) == list(IMIGUE_GROUPS)
    assert known_groups(["a"]) is None and len(known_groups(SMG_LABELS)) == len(SMG_LABELS)
    features = clip_features([f"action {index}" for index in range(52)], MA52_GROUP_NAMES, None)
    empty = datasets.Dataset.from_list([dict.fromkeys(features) | {"label": 3, "group": 0}], features=features)
    assert class_groups(empty) == list(MA52_GROUPS)
    features = clip_features(["a", "b"], ["left", "right"], None)
    other = datasets.Dataset.from_list([dict.fromkeys(features) | {"label": 1, "group": 1}], features=features)
    assert class_groups(other) == ["unknown", "right"]


# --- measures and files


def random_scores(num_clips=60, names=IMIGUE_LABELS, num_videos=6, seed=0, **values) -> Scores:
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(names), size=num_clips)
    logits = generator.normal(size=(num_clips, len(names)))
    logits[np.arange(num_clips), labels] += 1.5
    clips = [f"{index % num_videos:04d}_{index}" for index in range(num_clips)]
    return Scores(
        **{
            "clip_ids": clips,
            "video_ids": [clip.partition("_")[0] for clip in clips],
            "logits": logits,
            "labels": labels,
            "label_names": list(names),
            "checkpoint": "run",
            **values,
        }
    )


def test_measures_equal_metrics():
    scores = random_scores()
    found = measure(scores, IMIGUE_GROUPS, num_samples=50)
    arguments = (scores.logits, scores.labels)
    assert found.metrics == bootstrap_intervals(*arguments, scores.video_ids, num_samples=50, groups=IMIGUE_GROUPS)
    assert found.calibration == calibration(np.exp(log_softmax(scores.logits)), scores.labels)
    assert found.per_class == per_class_table(*arguments, IMIGUE_LABELS)
    assert found.per_group == per_group_table(*arguments, IMIGUE_GROUPS)
    assert (found.confusion == confusion_matrix(scores.labels, scores.logits.argmax(axis=1), 32)).all()
    assert (found.f1_mean, found.num_labelled, found.num_videos) == (None, 60, 6)


def test_only_clips_with_a_label_are_measured():
    scores = random_scores()
    hidden = dataclasses.replace(scores, labels=np.where(np.arange(60) < 20, scores.labels, -1))
    found = measure(hidden, IMIGUE_GROUPS, num_samples=10)
    values = {name: metric["value"] for name, metric in found.metrics.items()}
    assert values == classification_metrics(scores.logits[:20], scores.labels[:20], IMIGUE_GROUPS)
    assert found.num_labelled == 20
    assert measure(dataclasses.replace(scores, labels=np.full(60, -1)), IMIGUE_GROUPS) is None


def test_a_single_video_has_no_intervals():
    found = measure(random_scores(num_videos=1), IMIGUE_GROUPS)
    assert {metric["low"] for metric in found.metrics.values()} == {None}
    assert found.metrics["top1"]["value"] > 0


def test_the_metric_of_ma52():
    scores = random_scores(names=[f"action {index}" for index in range(52)])
    found = measure(scores, MA52_GROUPS, num_samples=10).f1_mean
    assert found == f1_mean(scores.labels, scores.logits.argmax(axis=1), MA52_GROUPS)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_hold_the_numbers(tmp_path, plain):
    measurement = measure(plain.scores, IMIGUE_GROUPS, num_samples=20)
    path = write_evaluation(tmp_path, plain, IMIGUE_GROUPS, measurement, {"data": {"path": "here"}})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metrics"] == measurement.metrics and content["data"] == {"path": "here"}
    assert content["counts"] == {
        "clips": 9,
        "labelled_clips": 9,
        "videos": 3,
        "classes": 32,
        "classes_with_clips": 4,
        "clips_without_video": 2,
        "clips_without_pose": 1,
    }
    assert content["classes"] == {"names": list(IMIGUE_LABELS), "groups": list(IMIGUE_GROUPS)}
    assert content["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    np.testing.assert_array_equal(read_scores(tmp_path / "scores.parquet").logits, plain.scores.logits)
    per_class = read_csv(tmp_path / "per_class.csv")
    assert [row["class"] for row in per_class] == list(IMIGUE_LABELS) and per_class[5]["recall"] == ""
    assert [int(row["support"]) for row in per_class] == np.bincount(LABELS, minlength=32).tolist()
    matrix = [[int(value) for value in list(row.values())[1:]] for row in read_csv(tmp_path / "confusion_matrix.csv")]
    assert (np.array(matrix) == measurement.confusion).all()
    assert len(read_csv(tmp_path / "per_group.csv")) == len(set(IMIGUE_GROUPS))
    assert len(read_csv(tmp_path / "calibration.csv")) == 15
    clips = read_csv(tmp_path / "clips.csv")
    losses = -log_softmax(plain.scores.logits)[np.arange(NUM_CLIPS), LABELS]
    np.testing.assert_allclose([float(row["loss"]) for row in clips], losses)
    np.testing.assert_allclose([float(row["gate_mean"]) for row in clips], plain.gate_means)
    assert [row["has_video"] for row in clips] == [str(index not in WITHOUT_VIDEO) for index in range(NUM_CLIPS)]
    assert not list(tmp_path.glob("*.tmp"))


def test_hidden_labels_give_scores_alone(tmp_path, loaded, video, points, plain):
    labelled = Evaluation(random_scores())
    write_evaluation(tmp_path, labelled, IMIGUE_GROUPS, measure(labelled.scores, IMIGUE_GROUPS, 10), {})
    old = {"report.html", "submission.csv", "strips.csv", "gates.png", "strips/v0_0.png"}
    own = {"notes.txt", "figure.png", "strips_of_mine/v0_0.png"}
    for name in (*old, *own):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    hidden = evaluate(loaded, make_rows(video, points, labels=[-1] * NUM_CLIPS))
    np.testing.assert_array_equal(hidden.scores.logits, plain.scores.logits)
    path = write_evaluation(tmp_path, hidden, IMIGUE_GROUPS, measure(hidden.scores, IMIGUE_GROUPS), {})
    # Nothing of the evaluation before is left, and nothing else is gone.
    left = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")}
    assert left == {"metrics.json", "scores.parquet", "clips.csv"} | own
    assert not (tmp_path / "strips").exists()
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"] is None
    assert {row["label"] + row["loss"] for row in read_csv(tmp_path / "clips.csv")} == {""}


def test_checkpoint_of_a_folder_and_of_the_hub(checkpoint, tmp_path, monkeypatch):
    described = describe_checkpoint(checkpoint)
    assert described["revision"] is None and len(described["weights_sha256"]["model.safetensors"]) == 64
    commit = tmp_path / "0123abc"
    commit.symlink_to(checkpoint)
    monkeypatch.setattr("clipmg_hf.evaluation_results.snapshot_download", lambda name, **options: str(commit))
    assert describe_checkpoint("owner/name") == described | {"name": "owner/name", "revision": "0123abc"}


# --- strips


def test_choice_of_clips():
    scores = random_scores(num_clips=40, names=["a", "b", "c"])
    losses = -log_softmax(scores.logits)[np.arange(40), scores.labels]
    chosen = choose_clips(scores, 3, 5)
    assert [index for kind, index in chosen if kind == "hardest"] == np.argsort(-losses)[:3].tolist()
    right = [index for kind, index in chosen if kind == "right"]
    assert (scores.logits[right].argmax(axis=1) == scores.labels[right]).all()
    assert len(right) == 5 and set(scores.labels[right[:3]]) == {0, 1, 2}
    hidden = dataclasses.replace(scores, labels=np.full(40, -1))
    expected = np.argsort(log_softmax(scores.logits).max(axis=1))[:3].tolist()
    assert choose_clips(hidden, 3, 5) == [("least sure", index) for index in expected]


def test_strips_are_drawn_and_listed(tmp_path, loaded, rows, plain):
    entries = write_strips(tmp_path, *loaded, rows, plain.scores, num_hardest=9, num_right=0, show_progress=False)
    assert sorted(entry["clip_id"] for entry in entries) == sorted(rows["clip_id"])
    undrawn = {entry["clip_id"] for entry in entries if entry["file"] is None}
    assert undrawn == {rows["clip_id"][index] for index in WITHOUT_VIDEO}
    for entry in entries:
        if entry["file"]:
            with Image.open(tmp_path / entry["file"]) as picture:
                picture.verify()
    listed = read_csv(tmp_path / "strips.csv")
    assert [row["file"] or None for row in listed] == [entry["file"] for entry in entries]
    assert all("no frames" in row["problem"] for row in listed if not row["file"])


def test_strips_show_what_was_evaluated(tmp_path, loaded, rows, plain, monkeypatch):
    seen = {}

    def keep(*arguments, **options):
        prediction = predict_clip(*arguments, **options)
        seen[len(seen)] = prediction
        return prediction

    monkeypatch.setattr("clipmg_hf.evaluation_strips.predict_clip", keep)
    part = rows.select([0, 1, 4])
    scores = evaluate(loaded, part).scores
    order = [index for _, index in choose_clips(scores, 3, 0)]
    write_strips(tmp_path, *loaded, part, scores, num_hardest=3, num_right=0, show_progress=False)
    probabilities = np.exp(log_softmax(scores.logits))
    for position, index in enumerate(order):
        found = dict(seen[position].scores)
        np.testing.assert_allclose([found[name] for name in IMIGUE_LABELS], probabilities[index], atol=1e-5)


def test_strips_of_a_model_that_reads_keypoints_alone(save_checkpoint, tmp_path, video, points):
    loaded = load_model(save_checkpoint(tmp_path / "pose", fusion="pose"), device="cpu")
    rows = make_rows(video, points, video=None, width=None, height=None).select([0, 4])
    scores = evaluate(loaded, rows).scores
    entries = write_strips(tmp_path, *loaded, rows, scores, num_hardest=2, num_right=0, show_progress=False)
    by_clip = {entry["clip_id"]: entry for entry in entries}
    assert (tmp_path / by_clip["v0_0"]["file"]).is_file() and "no keypoints" in by_clip["v1_4"]["problem"]
