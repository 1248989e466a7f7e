"""Splits never cut through a subject, are seeded, and follow the published protocols."""

from pathlib import Path

import numpy as np
import pytest

from clipmg_hf.data.source import CLIP_SCHEMA, VIDEO_SCHEMA, DataSource, make_table
from clipmg_hf.data.splits import SplitSettings, assign_splits


NUM_VIDEOS = 60


def make_source(subjects: bool = True, parts: tuple[str, ...] = ("train", "validation", "test")) -> DataSource:
    """60 videos of 20 subjects; the parts in runs of 40, 8 and 12 videos, and 1 to 9 clips in a video."""
    generator = np.random.default_rng(0)
    ids = [f"{number:04d}" for number in range(NUM_VIDEOS)]
    part_of_video = [parts[min(0 if n < 40 else 1 if n < 48 else 2, len(parts) - 1)] for n in range(NUM_VIDEOS)]
    videos = {"video_id": ids, "part": part_of_video}
    if subjects:
        videos["subject"] = [n // 3 for n in range(NUM_VIDEOS)]
    counts = generator.integers(1, 10, NUM_VIDEOS)
    owners = [video for video, count in zip(ids, counts, strict=True) for _ in range(count)]
    clips = {
        "video_id": owners,
        "clip_id": [f"{video}_{index}" for index, video in enumerate(owners)],
        "label": [0] * len(owners),
    }
    return DataSource(
        name="test",
        layout="made up",
        root=Path("nowhere"),
        clips=make_table(clips, CLIP_SCHEMA),
        videos=make_table(videos, VIDEO_SCHEMA),
        label_names=("a",),
        label_groups=("x",),
        group_names=("x",),
        keypoint_layout=None,
    )


def members(source, assignment):
    """Split -> set of subjects (or videos where they are unknown)."""
    subjects, videos = source.videos["subject"].to_pylist(), source.videos["video_id"].to_pylist()
    found: dict[str, set] = {}
    for subject, video, split in zip(subjects, videos, assignment.split_of_video, strict=True):
        found.setdefault(split, set()).add(video if subject is None else subject)
    return found


def share_of_clips(source, assignment, split="validation", among=("train", "validation")):
    per_clip = assignment.split_of_video[source.video_indices]
    return (per_clip == split).sum() / np.isin(per_clip, among).sum()


def test_official_parts_are_taken_as_they_are():
    source = make_source()
    assignment = assign_splits(source, SplitSettings("official"))
    assert assignment.split_of_video.tolist() == source.videos["part"].to_pylist()


def test_cross_subject_follows_the_subjects_not_the_parts():
    source = make_source()
    assignment = assign_splits(source, SplitSettings("cross_subject", validation=0), train_subjects={0, 5, 19})
    assert members(source, assignment)["train"] == {0, 5, 19}
    assert members(source, assignment)["test"] == set(range(20)) - {0, 5, 19}


def test_cross_subject_without_subjects_joins_train_and_validation():
    source = make_source(subjects=False)
    assignment = assign_splits(source, SplitSettings("cross_subject", validation=0), train_subjects={0})
    assert (assignment.split_of_video == "train").sum() == 48
    assert (assignment.split_of_video == "test").sum() == 12


@pytest.mark.parametrize("subjects", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_carved_validation_is_disjoint_and_near_its_share(subjects, seed):
    source = make_source(subjects)
    settings = SplitSettings("cross_subject", seed=seed)
    assignment = assign_splits(source, settings, train_subjects=set(range(15)))
    groups = members(source, assignment)
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    # One subject holds about 7 % of the clips, one video 2 %.
    assert share_of_clips(source, assignment) == pytest.approx(0.2, abs=0.05 if subjects else 0.02)
    unit = "subject" if subjects else "video"
    assert assignment.record["units"]["validation"] == sorted(f"{unit} {name}" for name in groups["validation"])


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    source = make_source()
    splits = [
        assign_splits(source, SplitSettings("official", validation=0.2, seed=seed)).split_of_video.tolist()
        for seed in (3, 3, 4)
    ]
    assert splits[0] == splits[1] != splits[2]


def test_the_order_of_the_videos_changes_nothing():
    source = make_source()
    order = np.random.default_rng(1).permutation(NUM_VIDEOS)
    shuffled = DataSource(**{**vars(source), "videos": source.videos.take(order)})
    settings = SplitSettings("official", validation=0.3, seed=7)
    one, other = (members(s, assign_splits(s, settings)) for s in (source, shuffled))
    assert one == other


def test_carving_takes_back_the_official_validation_part():
    source = make_source(subjects=False)
    assignment = assign_splits(source, SplitSettings("official", validation=0))
    assert "validation" not in set(assignment.split_of_video)
    assert (assignment.split_of_video == "train").sum() == 48


@pytest.mark.parametrize("subjects", [True, False])
def test_folds_cover_everything_once_and_are_even(subjects):
    source = make_source(subjects)
    validated: list = []
    shares = []
    for fold in range(4):
        settings = SplitSettings("folds", num_folds=4, fold=fold, seed=1)
        assignment = assign_splits(source, settings, train_subjects=set(range(16)))
        groups = members(source, assignment)
        assert not groups["train"] & groups["validation"]
        validated += groups["validation"]
        shares.append(share_of_clips(source, assignment))
    assert len(validated) == len(set(validated)) == (16 if subjects else 48)
    assert shares == pytest.approx([0.25] * 4, abs=0.06)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.0}, r"validation is 1\.0; expected a share in \[0, 1\)"),
        ({"fold": 5}, r"fold is 5 of 5"),
        ({"num_folds": 1}, r"fold is 0 of 1"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitSettings("folds", **options)


def test_too_few_units_are_an_error():
    source = make_source()
    with pytest.raises(ValueError, match=r"20 subjects or videos for num_folds=30"):
        assign_splits(source, SplitSettings("folds", num_folds=30), train_subjects=set(range(20)))
    with pytest.raises(ValueError, match=r"1 subjects or videos; expected at least 2 to carve"):
        assign_splits(source, SplitSettings("cross_subject"), train_subjects={3})
