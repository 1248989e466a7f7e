"""Clips of gaps lie between the annotated gestures of whole videos, and are a class from loading to the results."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import TINY, command_line

from clipmg_hf.arguments import parse_arguments
from clipmg_hf.data import DatasetFormatError, load_imigue, load_ma52, load_smg
from clipmg_hf.data.background import BackgroundSettings, add_background, add_background_class, draw_intervals
from clipmg_hf.data.labels import IMIGUE_GROUPS, check_labels, known_groups
from clipmg_hf.data.prepare import PrepareConfig, prepare_dataset, verify_dataset
from clipmg_hf.data.source import CLIP_SCHEMA, VIDEO_SCHEMA, DataSource, make_table
from clipmg_hf.data.synthetic_layouts import default_config, write_layout
from clipmg_hf.experiment import load_splits, prepare_experiment, run_experiment
from clipmg_hf.inference import load_model
from clipmg_hf.modeling import IMIGUE_LABELS


FPS, NUM_FRAMES, NUM_VIDEOS = 10.0, 400, 12


def make_source(**values) -> DataSource:
    """12 videos of 400 frames at 10 per second, each with 6 gestures that may overlap."""
    generator = np.random.default_rng(0)
    ids = [f"{number:04d}" for number in range(NUM_VIDEOS)]
    files = [f"{video}.mp4" for video in ids]
    videos: dict[str, list] = {
        "video_id": ids,
        "video": files,
        "fps": [FPS] * NUM_VIDEOS,
        "num_frames": [NUM_FRAMES] * NUM_VIDEOS,
    }
    starts = generator.integers(0, NUM_FRAMES - 30, (NUM_VIDEOS, 6)).ravel()
    lengths = generator.integers(5, 31, NUM_VIDEOS * 6)
    clips: dict[str, list] = {
        "clip_id": [f"{video}_{number}" for video in ids for number in range(6)],
        "video_id": [video for video in ids for _ in range(6)],
        "start_frame": starts.tolist(),
        "end_frame": (starts + lengths - 1).tolist(),
        "label": [0, 1] * 3 * NUM_VIDEOS,
        "video": [file for file in files for _ in range(6)],
        "video_start_frame": [0] * 6 * NUM_VIDEOS,
    }
    source = DataSource(
        name="test",
        layout="made up",
        root=Path("nowhere"),
        clips=make_table(clips, CLIP_SCHEMA),
        videos=make_table(videos, VIDEO_SCHEMA),
        label_names=("nod", "rub"),
        label_groups=("head", "none"),
        group_names=("head", "none"),
        keypoint_layout=None,
    )
    return add_background_class(dataclasses.replace(source, **values))


SPLITS = np.array(["train"] * 8 + ["validation"] * 4, dtype=object)
SETTINGS = BackgroundSettings(share=0.5, margin=0.25, seed=0)


def add(source, settings=SETTINGS, splits=SPLITS, num_frames=None):
    counts = np.full(len(source.videos), NUM_FRAMES) if num_frames is None else num_frames
    return add_background(source, splits, counts, settings)


def set_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def background_of(source):
    return [row for row in source.clips.to_pylist() if row["label"] == 2]


def test_clips_of_gaps_keep_away_from_gestures_and_from_one_another():
    source = make_source()
    found = add(source)
    assert found.label_names == ("nod", "rub", "Background") and found.label_groups == ("head", "none", "none")
    rows = background_of(found)
    of_train = [row for row in rows if int(row["video_id"]) < 8]
    # Half as many as there are gestures in each split, and no longer than those.
    assert (len(of_train), len(rows) - len(of_train)) == (24, 12)
    gestures = source.clips.to_pylist()
    lengths = {row["end_frame"] - row["start_frame"] + 1 for row in gestures}
    taken = np.zeros((NUM_VIDEOS, NUM_FRAMES), int)
    for row in gestures:
        # 0.25 s are 2.5 frames: three stay free.
        taken[int(row["video_id"]), max(row["start_frame"] - 3, 0) : row["end_frame"] + 4] = 1
    for row in rows:
        assert row["end_frame"] - row["start_frame"] + 1 in lengths and row["video"] == f"{row['video_id']}.mp4"
        taken[int(row["video_id"]), row["start_frame"] : row["end_frame"] + 1] += 2
    assert set(taken.ravel()) == {0, 1, 2}
    assert len({row["clip_id"] for row in found.clips.to_pylist()}) == len(found.clips)
    # By video, gestures first and unchanged.
    assert (np.diff(found.video_indices) >= 0).all()
    assert found.clips.filter(pa.array(found.clips["label"].to_numpy() < 2)) == source.clips


def test_the_seed_decides_and_the_order_of_rows_does_not():
    source = make_source()
    rows = background_of(add(source))
    order = np.random.default_rng(1).permutation(NUM_VIDEOS)
    videos = source.videos.take(pa.array(order))
    rank = np.argsort(order)[source.video_indices]
    # Clips are sorted by video; within one they come backwards.
    clips = source.clips.take(pa.array(np.lexsort((-np.arange(len(rank)), rank))))
    shuffled = add(dataclasses.replace(source, videos=videos, clips=clips), splits=SPLITS[order])
    key = lambda row: row["clip_id"]  # noqa: E731
    assert sorted(background_of(shuffled), key=key) == sorted(rows, key=key)
    assert background_of(add(source, dataclasses.replace(SETTINGS, seed=1))) != rows


def test_draws_end_where_no_gap_has_room_and_fill_every_place():
    generator = np.random.default_rng(0)
    gaps = np.array([(0, 10, 15), (1, 0, 3)])
    assert draw_intervals(gaps, np.array([3]), 9, generator).tolist() == sorted(
        draw_intervals(gaps, np.array([3]), 2, np.random.default_rng(0)).tolist()
    )
    starts = [tuple(draw_intervals(gaps, np.array([3]), 1, generator)[0].tolist()) for _ in range(400)]
    counts = {start: starts.count(start) for start in set(starts)}
    assert set(counts) == {(0, 10, 13), (0, 11, 14), (0, 12, 15), (1, 0, 3)} and min(counts.values()) > 60
    assert draw_intervals(gaps, np.array([6]), 2, generator).shape == (0, 3)


def test_only_whole_videos_with_known_labels_have_gaps():
    source = make_source()
    clips = source.clips.to_pylist()
    files = ["0000_0.mp4" if row["clip_id"] == "0000_0" else row["video"] for row in clips]
    labels = [-1 if row["video_id"] == "0001" else row["label"] for row in clips]
    rates = [None if video == "0002" else FPS for video in source.videos["video_id"].to_pylist()]
    changed = set_column(set_column(source.clips, "video", files), "label", labels)
    damaged = dataclasses.replace(source, clips=changed, videos=set_column(source.videos, "fps", rates))
    lengths = np.array([0 if number == 3 else NUM_FRAMES for number in range(NUM_VIDEOS)])
    found = add(damaged, num_frames=lengths)
    unfit = {f"{number:04d}" for number in range(4)}
    assert unfit & {row["video_id"] for row in background_of(add(source))}
    assert not unfit & {row["video_id"] for row in background_of(found)}
    assert "background: none of 4 videos, which are not whole or hide their labels." in found.findings
    # Hidden labels are no gestures that clips are counted by.
    hidden = dataclasses.replace(
        source, clips=set_column(source.clips, "label", [-1 if n >= 48 else 0 for n in range(72)])
    )
    assert {row["video_id"] for row in background_of(add(hidden))} <= {f"{number:04d}" for number in range(8)}


def test_too_little_room_is_said_and_none_is_an_error():
    source = make_source()
    found = add(source, BackgroundSettings(share=1.0, margin=4.0))
    assert any(note.startswith("background: ") and "for which no gap has room" in note for note in found.missing)
    with pytest.raises(DatasetFormatError, match=r"no gap between the clips has room .*12 of 12 videos are whole"):
        add(source, BackgroundSettings(share=0.1, margin=40.0))
    with pytest.raises(DatasetFormatError, match=r"left out what 1 problems concern, such as a\.csv: wrong"):
        add(dataclasses.replace(source, skipped=("a.csv: wrong.",)))
    with pytest.raises(DatasetFormatError, match="there is a class 'Background' already"):
        add_background_class(source)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 10}, r"background_share is 10; expected a number in \(0, 1\]"),
        ({"share": -0.1}, "background_share is -0.1"),
        ({"share": float("nan")}, "background_share is nan"),
        ({"share": 0.1, "margin": -1}, "background_margin is -1; expected seconds of at least 0"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        BackgroundSettings(**values)


def small_config(layout, **values):
    return dataclasses.replace(default_config(layout), clips_per_video=6, width=96, height=54, **values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small data sets with rests of about 2 seconds between the gestures; that of SMG has skeletons alone."""
    root = tmp_path_factory.mktemp("data")
    for layout in ("miga", "smg"):
        config = small_config(layout, min_gap_frames=40, max_gap_frames=60)
        write_layout(root / layout, layout, config, rgb=layout == "miga")
    return root


def load(folders, layout="miga", **options):
    loader = {"miga": load_imigue, "smg": load_smg}[layout]
    return loader(folders / layout, cache_dir=folders / "cache", **options)


@pytest.mark.parametrize("layout", ["miga", "smg"])
def test_rows_of_gaps_are_those_of_the_whole_video(folders, layout):
    rows, plain = (load(folders, layout, background_share=share) for share in (0.5, 0.0))
    names = plain["train"].features["label"].names
    assert rows["train"].features["label"].names == [*names, "Background"]
    whole = {}
    for split in rows:
        for row in load(folders, layout, name="online")[split].with_format("numpy"):
            whole[row["video_id"]] = row
    for split, count in (("train", 6), ("validation", 3)):
        found = rows[split].with_format("numpy")
        label = np.array(rows[split]["label"])
        gestures, gaps = (found.select(np.flatnonzero(mask)) for mask in (label < len(names), label == len(names)))
        assert len(gaps) == count
        for ours, theirs in zip(gestures, plain[split].with_format("numpy"), strict=True):
            assert all(
                np.array_equal(ours[name], theirs[name], equal_nan=name == "emotion")
                for name in ("clip_id", "keypoints", "video")
            )
        for row in gaps:
            start, end = row["start_frame"], row["end_frame"] + 1
            np.testing.assert_array_equal(row["keypoints"], whole[row["video_id"]]["keypoints"][start:end])
            assert row["video"] == whole[row["video_id"]]["video"] and row["width"] == whole[row["video_id"]]["width"]
    # The labels of the challenge's test pack are hidden.
    assert (layout == "smg") == (len(names) in rows["test"]["label"])


def test_subjects_stay_in_their_split(folders):
    rows = load(folders, background_share=0.5, protocol="folds", num_folds=3, fold=1)
    videos = [set(split["video_id"]) for split in rows.values()]
    assert all(not first & second for first, second in itertools.combinations(videos, 2))


def test_data_without_gaps_says_which_has_them(folders, tmp_path):
    with pytest.raises(ValueError, match=r"background_share is 0\.5 for 'online', whose rows are whole videos"):
        load(folders, name="online", background_share=0.5)
    message = r"no gap between the clips .*Expected whole videos .*: iMiGUE with untrimmed RGB or .*, or SMG"
    with pytest.raises(DatasetFormatError, match=message):
        root = write_layout(tmp_path / "ma52", "ma52", small_config("ma52"))
        load_ma52(root, cache_dir=tmp_path / "cache", background_share=0.1)
    trimmed = write_layout(tmp_path / "oulu", "oulu", small_config("oulu"), trimmed_rgb=True)
    with pytest.raises(DatasetFormatError, match=r"0 of 4 videos are whole and labelled"):
        load_imigue(trimmed, cache_dir=tmp_path / "cache", background_share=0.1)


def parse(folders, output_dir, data_dir, **values):
    given = {
        **{"data_dir": data_dir, "data_cache_dir": folders / "cache", "output_dir": output_dir, **TINY},
        **{"max_steps": 1, "per_device_train_batch_size": 2, "use_cpu": "true", "report_to": "none"},
        **{"dataloader_num_workers": 0, "disable_tqdm": "true", "save_strategy": "no", "do_eval": "true"},
    }
    return parse_arguments(command_line({**given, **values}))


def test_a_run_has_the_class_and_says_so(folders, tmp_path):
    experiment = prepare_experiment(parse(folders, tmp_path, folders / "miga", background_share=0.5))
    run_experiment(experiment)
    record = experiment.record
    assert record["data"]["background_share"] == 0.5
    assert record["train"]["classes"]["Background"] == 6 and record["evaluation"]["classes"]["Background"] == 3
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Clips of the gaps between gestures, 0.5 for each of these, are the class Background." in card
    model, _ = load_model(tmp_path, device="cpu")
    assert model.config.id2label[len(IMIGUE_LABELS)] == "Background" and model.config.num_labels == 33
    with pytest.raises(DatasetFormatError, match=r"only in the checkpoint: 'Background'.* come with background_share"):
        check_labels(IMIGUE_LABELS, list(model.config.id2label.values()), "model")


def test_prepared_clips_of_gaps(folders, tmp_path):
    rows = load(folders, background_share=0.5)
    source = {"dataset": "imigue", "protocol": "", "validation": None, "seed": 0, "background_share": 0.5}
    config = PrepareConfig(short_side=48)
    manifest = prepare_dataset(rows, tmp_path / "prepared", config, 1, source, show_progress=False)
    assert manifest["splits"]["train"]["classes"]["Background"] == 6
    assert verify_dataset(tmp_path / "prepared", decode=True) == []
    for asked in ({}, {"background_share": 0.5}):
        splits = load_splits(parse(folders, tmp_path, tmp_path / "prepared", **asked))
        assert splits.settings["background_share"] == 0.5 and splits.label_names[-1] == "Background"
    message = r"prepared with background_share=0\.5, .* and 0\.1 is asked for; .*--background_share null"
    with pytest.raises(ValueError, match=message):
        load_splits(parse(folders, tmp_path, tmp_path / "prepared", background_share=0.1))
    plain = load(folders)
    prepare_dataset(plain, tmp_path / "plain", config, 1, {"dataset": "imigue"}, show_progress=False)
    with pytest.raises(ValueError, match=r"prepared with background_share=0\.0, .* and 0\.1 is asked for"):
        load_splits(parse(folders, tmp_path, tmp_path / "plain", background_share=0.1))


def test_groups_are_known_with_the_class():
    assert known_groups([*IMIGUE_LABELS, "Background"]) == (*IMIGUE_GROUPS, "none")
