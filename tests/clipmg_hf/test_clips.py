"""The same clip gives the same tensors by every way: map-style, with_transform, map, streaming, many processes."""

import gc
import json
import multiprocessing
import pickle
import shutil
import time
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from torch.utils.data import ConcatDataset, DataLoader
from transformers import Trainer, TrainingArguments

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipDataset, ClipTransform, collate_clips, map_clips, stream_clips
from clipmg_hf.data.schema import clip_features
from clipmg_hf.processing import get_layout


NUM_CLIPS, NUM_SHARDS, NUM_KEYPOINTS = 14, 4, 22
WIDTH, HEIGHT = 96, 64
# What clips lack, by their number; the others have both streams.
WITHOUT_VIDEO, WITHOUT_POSE = {3, 9}, {2, 10, 13}
TINY = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    },
    "num_frames": 4,
    "pose_frames_per_frame": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")]


class CountingProcessor(CLIPMGProcessor):
    """Counts its calls."""

    calls = 0

    def __call__(self, *args, **kwargs):
        type(self).calls += 1
        return super().__call__(*args, **kwargs)


def make_processor(size=32, **kwargs):
    return CLIPMGProcessor(CLIPMGVideoProcessor(size=size, num_frames=4, pose_frames_per_frame=2), **kwargs)


@pytest.fixture(scope="module")
def processor():
    return make_processor()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two untrimmed videos of 40 frames, each frame another."""
    folder, generator = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    for name in ("0001.mp4", "0002.mp4"):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "12"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            picture = generator.integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            for index in range(40):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, 5 * index, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return folder


@pytest.fixture(scope="module")
def written(videos):
    """Rows whose label is the number of the clip, so that a batch tells which clips it holds."""
    generator = np.random.default_rng(1)
    rows = []
    for index in range(NUM_CLIPS):
        start, length = 2 * index, 6 + index % 5
        keypoints = generator.uniform((5, 5, 0.2), (WIDTH - 5, HEIGHT - 5, 1), (length, NUM_KEYPOINTS, 3))
        valid = generator.random((length, NUM_KEYPOINTS)) < 0.8
        has_pose = index not in WITHOUT_POSE
        rows.append(
            dict.fromkeys(features_of(prepared=False))
            | {
                "clip_id": f"clip_{index}",
                "video_id": f"000{1 + index % 2}",
                "start_frame": start,
                "end_frame": start + length - 1,
                "label": index,
                "group": 0,
                "video": None if index in WITHOUT_VIDEO else str(videos / f"000{1 + index % 2}.mp4"),
                "video_start_frame": 0,
                "keypoints": keypoints.astype(np.float32) if has_pose else None,
                "keypoints_valid": valid if has_pose else None,
                "keypoint_layout": "imigue-22" if has_pose else None,
            }
        )
    return rows


@pytest.fixture(scope="module")
def raw(written):
    return datasets.Dataset.from_list(written, features=features_of(prepared=False))


def features_of(prepared):
    return clip_features([f"class_{index}" for index in range(NUM_CLIPS)], ["all"], "imigue-22", prepared=prepared)


@pytest.fixture(scope="module")
def shards(written, tmp_path_factory):
    """The prepared form in Parquet: the same files as bytes, whose first frame is said to be number 100."""

    def prepare(row):
        path = row["video"]
        video = None if path is None else {"path": "clip.mp4", "bytes": Path(path).read_bytes()}
        shifted = {"start_frame": row["start_frame"] + 100, "end_frame": row["end_frame"] + 100}
        return row | shifted | {"video": video, "video_start_frame": 100, "crop": [0, 0, WIDTH, HEIGHT]}

    rows = datasets.Dataset.from_list([prepare(row) for row in written], features=features_of(prepared=True))
    folder = tmp_path_factory.mktemp("shards")
    for number in range(NUM_SHARDS):
        rows.shard(NUM_SHARDS, number).to_parquet(folder / f"{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def prepared(shards, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return datasets.load_dataset("parquet", data_files=str(shards / "*.parquet"), split="train", cache_dir=cache)


def streamed(shards):
    return datasets.load_dataset("parquet", data_files=str(shards / "*.parquet"), split="train", streaming=True)


@pytest.fixture(scope="module")
def expected(written, processor):
    """The slow reference: the processor called on values written out by hand."""
    items = {}
    for index, row in enumerate(written):
        points = None
        if row["keypoints"] is not None:
            points = np.where(row["keypoints_valid"][..., None], row["keypoints"], 0)
        interval = (row["start_frame"], row["end_frame"] + 1)
        intervals = None if row["video"] is None else [interval]
        features = processor([row["video"]], [points], intervals=intervals)
        item = {name: tensor[0] for name, tensor in features.items()}
        item["frame_mask"] = torch.full((4,), row["video"] is not None)
        items[index] = item | {"labels": torch.tensor(index)}
    return items


def assert_equal_items(items, expected):
    """Each clip once, and each of its tensors to the last bit."""
    assert sorted(int(item["labels"]) for item in items) == sorted(expected)
    for item in items:
        reference = expected[int(item["labels"])]
        assert set(item) == set(reference)
        for name, tensor in reference.items():
            assert item[name].dtype == tensor.dtype, name
            assert torch.equal(item[name], tensor), name


def split(batches):
    """Items of batches, copied out of the memory that workers share."""
    return [
        {name: tensor[index].clone() for name, tensor in batch.items()}
        for batch in batches
        for index in range(len(batch["labels"]))
    ]


def labels(items):
    return [int(item["labels"]) for item in items]


def without_frame_mask(items):
    return {index: {name: tensor for name, tensor in item.items() if name != "frame_mask"} for index, item in items}


def test_every_way_gives_the_items_of_the_processor(raw, prepared, shards, processor, expected):
    # Row by row: `datasets` makes no Python lists of a batch in which only some rows have keypoints.
    transform, plain = ClipTransform(processor), {"batched": True, "batch_size": 1}
    ways = {
        "raw": list(ClipDataset(raw, processor)),
        "prepared": list(ClipDataset(prepared, processor)),
        "with_transform": list(prepared.with_transform(transform)),
        "stream": list(stream_clips(streamed(shards), transform)),
        "map": list(map_clips(prepared, transform, batch_size=4)),
        "plain map": list(prepared.map(transform, **plain, remove_columns=prepared.column_names).with_format("torch")),
        "plain streaming map": list(streamed(shards).map(transform, **plain)),
    }
    for items in ways.values():
        known = [{name: item[name] for name in expected[0]} for item in items]
        assert_equal_items(known, expected)


def test_map_in_two_processes(raw, processor, expected):
    assert_equal_items(list(map_clips(raw, ClipTransform(processor), num_proc=2, batch_size=3)), expected)


def test_a_shuffled_selection_reads_its_own_rows(raw, processor, expected):
    rows = raw.shuffle(seed=0).select(range(3, 9))
    items = list(ClipDataset(rows, processor))
    assert labels(items) == rows["label"][:]
    assert_equal_items(items, {label: expected[label] for label in rows["label"]})


def test_invalid_points_are_missing(raw, processor):
    row = raw.select([0]).with_format("numpy")[0]
    none_valid = np.zeros((1, *row["keypoints_valid"].shape), bool)
    batch = {name: [value] for name, value in row.items()} | {"keypoints_valid": none_valid}
    outputs = ClipTransform(processor)(batch)
    assert not outputs["keypoints"][0].any()
    assert not outputs["keypoint_mask"][0].any()


def test_the_layout_of_the_row_is_the_one_that_counts(raw, processor):
    batch = {name: [raw[0][name]] for name in raw.column_names} | {"keypoint_layout": ["openpose-137"]}
    with pytest.raises(ValueError, match=r"clip clip_0: keypoints: 22 keypoints; expected the 137 of 'openpose-137'"):
        ClipTransform(processor)(batch)


@pytest.mark.parametrize("column", ["video", "keypoints"])
@pytest.mark.parametrize("is_removed", [True, False])
def test_data_without_a_stream_has_no_tensors_of_it(raw, processor, column, is_removed):
    rows = raw.select(sorted(set(range(NUM_CLIPS)) - WITHOUT_POSE - WITHOUT_VIDEO))
    if is_removed:
        rows = rows.remove_columns([column, "keypoints_valid", "keypoint_layout"][: 1 if column == "video" else 3])
    else:
        rows = datasets.Dataset.from_list([rows[index] | {column: None} for index in range(4)], raw.features)
    items = ClipDataset(rows, processor)
    other = {"video": {"keypoints", "keypoint_mask"}, "keypoints": {"pixel_values", "frame_mask"}}[column]
    assert set(items[0]) == other | {"labels"}
    batch = collate_clips([items[0], items[1]])
    assert set(batch) == (other | {"labels"}) - {"frame_mask"}


def test_batches_of_any_mixture_train_the_model(raw, processor):
    config = CLIPMGConfig(**TINY, num_labels=NUM_CLIPS)
    model = CLIPMGForMicroGestureClassification(config).eval()
    items = ClipDataset(raw, processor)
    for indices in ([0, 2, 3], [3, 9], [2, 13]):
        batch = collate_clips([items[index] for index in indices])
        assert ("frame_mask" in batch) == any(index in WITHOUT_VIDEO for index in indices)
        together = model(**batch)
        assert together.loss.isfinite()
        alone = torch.cat([model(**collate_clips([items[index]])).logits for index in indices])
        torch.testing.assert_close(together.logits, alone, atol=1e-5, rtol=1e-4)


def test_items_of_data_sets_with_other_streams_share_a_batch(raw, processor):
    video_alone = ClipDataset(raw.remove_columns(["keypoints", "keypoints_valid", "keypoint_layout"]), processor)
    pose_alone = ClipDataset(raw.remove_columns("video"), processor)
    both = ClipDataset(raw, processor)
    items = ConcatDataset([video_alone, pose_alone, both])
    batch = collate_clips([items[0], items[NUM_CLIPS], items[2 * NUM_CLIPS]])
    assert batch["frame_mask"].tolist() == [[True] * 4, [False] * 4, [True] * 4]
    assert batch["keypoint_mask"].any(dim=1).tolist() == [False, True, True]
    assert not batch["pixel_values"][1].any()
    with pytest.raises(ValueError, match=r"1 of 2 items have labels"):
        collate_clips([both[0], {name: tensor for name, tensor in both[1].items() if name != "labels"}])


def test_errors_name_the_clip(raw, processor, tmp_path):
    def change(**values):
        return datasets.Dataset.from_list([raw[0] | values], raw.features)

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    for rows, message in (
        (change(video=str(tmp_path / "gone.mp4")), r"clip clip_0: .*gone\.mp4: no such file"),
        (change(video=str(tmp_path / "broken.mp4")), r"clip clip_0: .*broken\.mp4: cannot be opened as a video"),
        (change(end_frame=50), r"clip clip_0: .*0001\.mp4: the interval .* lies outside the video"),
        (change(start_frame=1), r"clip clip_0: keypoints: 6 rows; expected 40"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            ClipDataset(rows, processor)[0]
        # Of which a DataLoader makes another in the main process.
        assert type(caught.value) is ValueError


def test_errors_of_the_code_stay_what_they_are(raw, processor, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyError("frame_maks")

    monkeypatch.setattr(type(processor), "__call__", fail)
    with pytest.raises(KeyError, match="frame_maks") as caught:
        ClipDataset(raw, processor)[1]
    assert caught.value.__notes__ == ["It was raised by the clip clip_1."]


def test_hidden_labels(raw, processor):
    rows = datasets.Dataset.from_list([raw[0], raw[1] | {"label": -1, "group": -1}], raw.features)
    message = r"1 of 2 rows have no label, first row 1 \(clip_1\): .*set allow_hidden_labels=True to predict"
    with pytest.raises(ValueError, match=message):
        ClipDataset(rows, processor)
    with pytest.raises(ValueError, match=message):
        map_clips(rows, ClipTransform(processor), batch_size=1)
    with pytest.raises(ValueError, match=r"clips without a label \(clip_1\): .*set allow_hidden_labels=True"):
        rows.with_transform(ClipTransform(processor))[:]
    for items in (
        ClipDataset(rows, processor, allow_hidden_labels=True),
        rows.with_transform(transform := ClipTransform(processor, allow_hidden_labels=True)),
        map_clips(rows, transform),
    ):
        assert set(items[1]) == {"pixel_values", "frame_mask", "keypoints", "keypoint_mask"}


@pytest.mark.parametrize("use", [ClipDataset, lambda rows, processor: map_clips(rows, ClipTransform(processor))])
def test_what_is_no_split_of_clips_is_named(raw, processor, use):
    for rows, error, message in (
        (datasets.DatasetDict(train=raw), TypeError, r"a DatasetDict of train; expected one split, such as rows\['tr"),
        ([raw[0]], TypeError, "rows is a list; expected a data set"),
        (raw.add_column("segments", [[]] * NUM_CLIPS), ValueError, "whole videos with segments .*'classification'"),
        (raw.remove_columns(["label", "clip_id"]), ValueError, "rows lack clip_id, label; expected the columns of"),
        (raw.remove_columns(["video", "keypoints"]), ValueError, "rows lack video or keypoints"),
    ):
        with pytest.raises(error, match=message):
            use(rows, processor)


def test_streams_of_several_splits_are_refused(raw, processor):
    rows = datasets.IterableDatasetDict(train=raw.to_iterable_dataset())
    with pytest.raises(TypeError, match="a IterableDatasetDict of train; expected one split"):
        stream_clips(rows, ClipTransform(processor))


def test_a_transform_is_no_processor(raw, processor):
    with pytest.raises(TypeError, match="processor is a ClipTransform; expected a CLIPMGProcessor"):
        ClipDataset(raw, ClipTransform(processor))


def open_files():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_no_more_open_files(limit):
    """The threads that feed the queues of a loader close them a little later than it ends."""
    deadline = time.monotonic() + 10
    while open_files() > limit and time.monotonic() < deadline:
        time.sleep(0.02)
    assert open_files() <= limit


@pytest.mark.parametrize("num_workers", [0, 1, 4])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_every_worker_count_gives_every_clip_once(raw, shards, processor, expected, num_workers, is_streamed):
    clips = stream_clips(streamed(shards), ClipTransform(processor)) if is_streamed else ClipDataset(raw, processor)
    loader = DataLoader(
        clips, batch_size=2, num_workers=num_workers, collate_fn=collate_clips, shuffle=not is_streamed
    )
    before = open_files()
    for _ in range(2):
        items = split(loader)
        assert_equal_items([item for item in items if "frame_mask" in item], subset(expected, items, True))
        assert_equal_items([item for item in items if "frame_mask" not in item], subset(expected, items, False))
        assert sorted(labels(items)) == list(range(NUM_CLIPS))
        assert_no_more_open_files(before)
    assert not multiprocessing.active_children()


def subset(expected, items, has_mask):
    """The clips of the batches that kept their frame mask, or of those that left it out."""
    chosen = {
        index: expected[index] for item in items if ("frame_mask" in item) == has_mask for index in labels([item])
    }
    return chosen if has_mask else without_frame_mask(chosen.items())


@pytest.mark.parametrize("is_streamed", [False, True])
def test_workers_that_stay_leave_nothing_behind(raw, shards, processor, is_streamed):
    clips = stream_clips(streamed(shards), ClipTransform(processor)) if is_streamed else ClipDataset(raw, processor)
    before = open_files()
    loader = DataLoader(clips, 2, num_workers=2, collate_fn=collate_clips, persistent_workers=True)
    assert sorted(labels(split(loader))) == list(range(NUM_CLIPS))
    during = open_files()
    for _ in range(2):
        assert sorted(labels(split(loader))) == list(range(NUM_CLIPS))
        assert_no_more_open_files(during)
    del loader
    assert_no_more_open_files(before)
    assert not multiprocessing.active_children()


def test_spawned_workers(raw, shards, processor):
    clips = ClipDataset(raw, processor, augment=True, seed=4)
    stream = stream_clips(streamed(shards), ClipTransform(processor, augment=True, seed=4))
    # The default collation keeps every frame mask. Both start at once, to save seconds.
    loaders = [
        iter(DataLoader(dataset, 3, num_workers=1, multiprocessing_context="spawn")) for dataset in (clips, stream)
    ]
    alone = {int(item["labels"]): item for item in clips}
    for loader in loaders:
        assert_equal_items(split(loader), alone)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("strategy", ["auto", "shards"])
def test_ranks_share_a_stream(shards, processor, world_size, num_workers, strategy):
    found = []
    for rank in range(world_size):
        rows = split_dataset_by_node(streamed(shards), rank, world_size, strategy)
        clips = stream_clips(rows, ClipTransform(processor))
        found += labels(split(DataLoader(clips, 2, num_workers=num_workers, collate_fn=collate_clips)))
    assert sorted(found) == list(range(NUM_CLIPS))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_rows_on_disk(raw, processor, world_size):
    parts = [split_dataset_by_node(raw, rank, world_size) for rank in range(world_size)]
    found = [label for rows in parts for label in labels(ClipDataset(rows, processor))]
    assert sorted(found) == list(range(NUM_CLIPS))


@pytest.mark.parametrize("shuffles_shards", [False, True])
def test_a_stream_resumes_where_it_stopped(shards, processor, shuffles_shards):
    def stream():
        CountingProcessor.calls = 0
        rows = streamed(shards)
        if shuffles_shards:
            rows = rows.shuffle(seed=3, buffer_size=1, max_buffer_input_shards=1)
        counting = CountingProcessor(processor.video_processor)
        return stream_clips(rows, ClipTransform(counting))

    whole = labels(stream())
    assert sorted(whole) == list(range(NUM_CLIPS))
    assert (whole == labels(stream_clips(streamed(shards), ClipTransform(processor)))) != shuffles_shards
    for stop in (1, 4, 5, 13):
        first = stream()
        iterator = iter(first)
        taken = labels([next(iterator) for _ in range(stop)])
        state = json.loads(json.dumps(first.state_dict()))
        second = stream()
        second.load_state_dict(state)
        assert taken + labels(second) == whole
        # The last clip is processed again, and one more where the shuffle's buffer of one row is filled.
        assert CountingProcessor.calls <= NUM_CLIPS - stop + 1 + shuffles_shards


@pytest.mark.parametrize("is_streamed", [False, True])
def test_seeded_views_depend_on_clip_and_epoch_alone(raw, shards, processor, is_streamed):
    clips = ClipDataset(raw, processor, augment=True, seed=7)
    if is_streamed:
        clips = stream_clips(streamed(shards), transform := ClipTransform(processor, augment=True, seed=7))
    set_epoch = transform.set_epoch if is_streamed else clips.set_epoch
    epochs = {}
    for epoch in (0, 1):
        set_epoch(epoch)
        epochs[epoch] = {int(item["labels"]): item for item in clips}
    assert not torch.equal(epochs[0][0]["pixel_values"], epochs[1][0]["pixel_values"])
    for num_workers in (1, 4):
        # Workers that stay alive hear of the new epoch, too.
        loader = DataLoader(clips, 2, num_workers=num_workers, persistent_workers=True)
        for epoch in (1, 0):
            set_epoch(epoch)
            assert_equal_items(split(loader), epochs[epoch])


def test_views_differ_by_seed_and_are_drawn_from_torch_without_one(raw, processor):
    def view(seed):
        return ClipDataset(raw, processor, augment=True, seed=seed)[0]["pixel_values"]

    assert torch.equal(view(1), view(1))
    assert not torch.equal(view(1), view(2))
    torch.manual_seed(0)
    first, second = view(None), view(None)
    torch.manual_seed(0)
    assert torch.equal(view(None), first)
    assert not torch.equal(first, second)


def test_trainer_counts_the_epochs(raw, processor, tmp_path):
    seen = []

    class Recorder(ClipDataset):
        def set_epoch(self, epoch):
            seen.append(epoch)
            super().set_epoch(epoch)

    args = TrainingArguments(
        str(tmp_path),
        num_train_epochs=2,
        per_device_train_batch_size=7,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    model = CLIPMGForMicroGestureClassification(CLIPMGConfig(**TINY, num_labels=NUM_CLIPS))
    clips = Recorder(raw, processor, augment=True, seed=0)
    Trainer(model, args, train_dataset=clips, data_collator=collate_clips).train()
    assert {0, 1} <= set(seen)


def test_a_transform_can_be_pickled(raw, processor, expected):
    transform = pickle.loads(pickle.dumps(ClipTransform(processor, seed=3)))
    assert transform.seed == 3
    assert_equal_items(list(raw.with_transform(transform)), expected)


def cached(rows, folder, size=32, **kwargs):
    """All items, and how many of them were processed."""
    CountingProcessor.calls = 0
    options = {name: kwargs.pop(name) for name in ("missing_keypoints",) if name in kwargs}
    processor = CountingProcessor(make_processor(size).video_processor, **kwargs)
    return list(ClipDataset(rows, processor, cache_dir=folder, **options)), CountingProcessor.calls


@pytest.fixture
def writable(written, videos, tmp_path):
    """Clips with a video, whose files a test may change."""
    folder = shutil.copytree(videos, tmp_path / "videos")
    moved = [row | {"video": str(folder / f"{row['video_id']}.mp4")} for row in written if row["video"] is not None]
    return datasets.Dataset.from_list(moved, features_of(prepared=False))


def test_a_cached_clip_is_equal_and_not_decoded(prepared, writable, expected, tmp_path):
    num_videos = NUM_CLIPS - len(WITHOUT_VIDEO)
    for rows in (writable, prepared):
        items, calls = cached(rows, tmp_path / "cache")
        assert calls == len(rows)
        again, calls = cached(rows, tmp_path / "cache")
        # Clips of keypoints alone are quicker processed than read.
        assert calls == len(rows) - num_videos
        for found in (items, again):
            assert_equal_items(found, {label: expected[label] for label in rows["label"]})
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2 * num_videos
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.parametrize(
    "change", [{"size": 48}, {"crop_padding": 0.5}, {"keypoint_layout": "openpose-137", "missing_keypoints": "mask"}]
)
def test_other_settings_have_other_entries(writable, tmp_path, change):
    rows = writable.select(range(2))
    cached(rows, tmp_path / "cache")
    changed, calls = cached(rows, tmp_path / "cache", **change)
    assert calls == 2
    assert changed[0]["pixel_values"].shape[-1] == change.get("size", 32)
    assert changed[0]["keypoints"].shape[1] == get_layout(change.get("keypoint_layout", "imigue-22")).num_keypoints
    assert cached(rows, tmp_path / "cache")[1] == 0


def test_a_changed_file_or_row_has_another_entry(writable, videos, expected, tmp_path):
    rows, folder = writable.select([0]), tmp_path / "cache"
    cached(rows, folder)
    shutil.copy(videos / "0002.mp4", writable[0]["video"])
    (item,), calls = cached(rows, folder)
    assert calls == 1
    assert not torch.equal(item["pixel_values"], expected[0]["pixel_values"])
    row = rows[0]
    points = np.array(row["keypoints"], np.float32)
    for change in (
        {"clip_id": "other"},
        {"keypoints": points + 1},
        {"keypoints_valid": np.zeros(points.shape[:2], bool)},
        {"keypoints": None, "start_frame": 1},
    ):
        assert cached(datasets.Dataset.from_list([row | change], rows.features), folder)[1] == 1
    assert cached(rows, folder)[1] == 0


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "garbage"])
def test_a_damaged_entry_is_made_again(writable, expected, tmp_path, damage):
    rows = writable.select([0])
    cached(rows, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    damaged = {"empty": b"", "cut": content[:-50], "bit": content, "garbage": b"\xff" * 99}[damage]
    path.write_bytes(damaged)
    for calls in (1, 0):
        items, found_calls = cached(rows, tmp_path / "cache")
        assert found_calls == calls
        assert_equal_items(items, {0: expected[0]})


def test_workers_share_a_cache(raw, shards, processor, expected, tmp_path):
    clips = ClipDataset(raw, processor, cache_dir=tmp_path / "cache")
    twice = ConcatDataset([clips, clips])
    items = split(DataLoader(twice, batch_size=1, num_workers=4))
    for part in (items[:NUM_CLIPS], items[NUM_CLIPS:]):
        assert_equal_items(part, expected)
    stream = stream_clips(streamed(shards), ClipTransform(processor, cache_dir=tmp_path / "cache"))
    for _ in range(2):
        assert_equal_items(split(DataLoader(stream, batch_size=2, num_workers=2)), expected)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_random_views_are_not_cached(processor, tmp_path):
    with pytest.raises(ValueError, match=r"cache_dir=.* with augment=True: every epoch would read the view"):
        ClipTransform(processor, augment=True, cache_dir=tmp_path)
