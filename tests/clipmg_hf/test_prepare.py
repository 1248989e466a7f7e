"""Prepared data holds exactly the frames and keypoints of its rows, loads without us, and survives interruptions."""

import errno
import hashlib
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from clipmg_hf import console
from clipmg_hf.data import clip_cutting, prepare, prepared_folder
from clipmg_hf.data.clip_cutting import Crop, PrepareConfig, fit, move_keypoints, person_crop
from clipmg_hf.data.prepare import LOCK_NAME, load_prepared, prepare_dataset, verify_dataset
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.schema import clip_features
from clipmg_hf.processing import VideoReader, convert_keypoints
from clipmg_hf.processing.geometry_clipmg import subject_crop


WIDTH, HEIGHT, NUM_BITS = 128, 96, 8
LABELS, GROUPS = ("nod", "shrug", "wave"), ("head", "body")
SMALL = {"short_side": 48, "clips_per_shard": 2}
SOURCE = {"dataset": "made up", "seed": 3}
STORAGES = ("parquet", "webdataset")
UNCHANGED = ("clip_id", "video_id", "start_frame", "end_frame", "fps", "label", "group", "subject", "emotion")
# Video, first frame, last frame, label.
TRAIN = [
    ("a", 0, 6, 0),
    ("a", 5, 5, 2),
    ("a", 20, 39, 1),
    ("b", 3, 9, 0),
    ("b", 3, 9, 2),
    ("c", 1, 4, 1),
    (None, 0, 3, 1),
]
TEST = [("b", 10, 12, -1), ("b", 0, 2, -1)]


def numbered_frame(number, width=WIDTH, height=HEIGHT):
    """A frame that shows its number: bright bars are the ones of its binary form, the highest to the left."""
    frame = np.full((height, width, 3), 30, np.uint8)
    for bit in range(NUM_BITS):
        if number >> (NUM_BITS - 1 - bit) & 1:
            frame[:, bit * width // NUM_BITS : (bit + 1) * width // NUM_BITS] = (220, 200, 180)
    return frame


def number_of(frame):
    bars = np.array_split(frame[..., 1].astype(float), NUM_BITS, axis=1)
    return sum(int(bar.mean() > 110) << (NUM_BITS - 1 - bit) for bit, bar in enumerate(bars))


def write_video(path, frames, codec="libx264", rate=25, options=None, pix_fmt="yuv420p"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"crf": "12", "preset": "ultrafast"})
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], pix_fmt
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def decode(data):
    with VideoReader(data) as reader:
        return np.stack([frame for _, frame in reader.iter_frames()])


def random_points(num_frames, seed, num_keypoints=22):
    """Keypoints (T, K, 3) in the frame; every fifth is missing, and zero but for its x, which nothing may keep."""
    generator = np.random.default_rng(seed)
    points = generator.uniform((20, 15, 0.3), (100, 80, 1), (num_frames, num_keypoints, 3)).astype(np.float32)
    valid = generator.random((num_frames, num_keypoints)) > 0.2
    points[~valid, 1:] = 0
    return points, valid


def make_rows(videos, clips, layout="imigue-22", **overrides):
    """Rows of clips `(video, first, last, label)`; a clip of one frame has no keypoints."""
    features = clip_features(LABELS, GROUPS, layout, personal_data=True)
    columns = {name: [] for name in features}
    for index, (video, start, end, label) in enumerate(clips):
        points, valid = random_points(max(end - start + 1, 0), index)
        has_points = end > start
        row = {
            "clip_id": f"{video}_{index}",
            "video_id": str(video),
            "start_frame": start,
            "end_frame": end,
            "fps": 25.0,
            "label": label,
            "group": min(label, 1),
            "subject": 3,
            "emotion": 1,
            "gender": "F",
            "nationality": "X",
            "width": WIDTH,
            "height": HEIGHT,
            "video": None if video is None else str(videos[video]),
            "video_start_frame": 0,
            "keypoints": points if has_points else None,
            "keypoints_valid": valid if has_points else None,
            "keypoint_layout": layout,
            **overrides,
        }
        for name in columns:
            columns[name].append(row[name])
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Untrimmed videos; frame n of each shows n."""
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / f"{name}.mp4", map(numbered_frame, range(40))) for name in "abc"}


@pytest.fixture(scope="module")
def rows(videos):
    return datasets.DatasetDict({"train": make_rows(videos, TRAIN), "test": make_rows(videos, TEST)})


@pytest.fixture(scope="module")
def prepared(rows, tmp_path_factory):
    """Finished folders by storage; not to be changed."""
    folders = {storage: tmp_path_factory.mktemp(storage) / "prepared" for storage in STORAGES}
    for storage, folder in folders.items():
        prepare_dataset(rows, folder, PrepareConfig(**SMALL, storage=storage), source=SOURCE, show_progress=False)
    return folders


def one_clip(video, start, end, tmp_path, config, **overrides):
    """The prepared row of a single clip."""
    rows = make_rows({"v": video}, [("v", start, end, 0)], **overrides)
    prepare_dataset(datasets.DatasetDict(train=rows), tmp_path / "one", config, show_progress=False)
    assert verify_dataset(tmp_path / "one", decode=True) == []
    arrays = list(prepared_folder.ARRAY_COLUMNS)
    loaded = load_prepared(tmp_path / "one", cache_dir=tmp_path / "cache")["train"]
    return loaded.with_format("numpy", columns=arrays, output_all_columns=True)[0]


def digests(folder):
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
@pytest.mark.parametrize(("start", "end"), [(0, 0), (1, 34), (17, 39)])
def test_the_stored_frames_are_those_of_the_interval(videos, tmp_path, codec, start, end):
    row = one_clip(videos["a"], start, end, tmp_path, PrepareConfig(short_side=48, codec=codec))
    frames = decode(row["video"]["bytes"])
    assert [number_of(frame) for frame in frames] == list(range(start, end + 1))
    assert frames.shape[1:3] == (row["height"], row["width"]) == (48, 64)
    assert (row["video"]["path"], row["video_start_frame"], row["crop"]) == ("v_0.mp4", start, [0, 0, WIDTH, HEIGHT])


def test_a_trimmed_file_is_cut_relative_to_its_first_frame(videos, tmp_path):
    row = one_clip(videos["a"], 110, 113, tmp_path, PrepareConfig(short_side=48), video_start_frame=100)
    assert [number_of(frame) for frame in decode(row["video"]["bytes"])] == [10, 11, 12, 13]


@pytest.mark.parametrize(("codec", "quality"), [("h264", 1), ("mjpeg", 2)])
def test_frames_that_are_not_scaled_keep_their_pixels(videos, tmp_path, codec, quality):
    row = one_clip(videos["a"], 10, 20, tmp_path, PrepareConfig(short_side=None, codec=codec, quality=quality))
    with VideoReader(videos["a"]) as reader:
        expected = reader.read(np.arange(10, 21))
    difference = np.abs(decode(row["video"]["bytes"]).astype(int) - expected)
    assert difference.mean() < 1.5
    # Colours blur at the edges of the bars; elsewhere matrix and range are right.
    assert np.quantile(difference, 0.9) <= 3


def test_smaller_frames_are_not_enlarged(videos, tmp_path):
    row = one_clip(videos["a"], 1, 2, tmp_path, PrepareConfig(short_side=256))
    assert (row["width"], row["height"]) == (WIDTH, HEIGHT)


def test_odd_frames_lose_a_column_and_a_row(tmp_path):
    frames = (numbered_frame(n, 129, 97) for n in range(4))
    video = write_video(tmp_path / "odd.mkv", frames, "ffv1", options={"level": "3"}, pix_fmt="bgr0")
    row = one_clip(video, 1, 3, tmp_path, PrepareConfig(short_side=None), width=129, height=97)
    assert row["crop"] == [0, 0, 128, 96]
    assert decode(row["video"]["bytes"]).shape == (3, 96, 128, 3)


@pytest.mark.parametrize("short_side", [16, 48, 254, None])
@pytest.mark.parametrize("size", [(129, 97), (300, 255), (255, 300), (1280, 720), (720, 1280), (48, 48), (17, 401)])
def test_sizes_are_even_keep_the_shape_and_never_grow(size, short_side):
    crop, (width, height) = fit(Crop(0, 0, *size), short_side)
    assert width % 2 == height % 2 == 0
    assert width <= size[0] and height <= size[1]
    assert width / crop.width == pytest.approx(height / crop.height, abs=1 / min(width, height))
    if short_side is not None and min(size) > short_side:
        assert min(width, height) == short_side


def test_the_stream_is_what_readers_expect(videos, tmp_path):
    video = write_video(tmp_path / "v.mp4", map(numbered_frame, range(50)), rate=Fraction(30000, 1001))
    keys = {}
    for codec in ("h264", "mjpeg"):
        row = one_clip(video, 0, 49, tmp_path / codec, PrepareConfig(short_side=48, codec=codec))
        with av.open(io.BytesIO(row["video"]["bytes"])) as container:
            stream = container.streams.video[0]
            assert (container.format.name.split(",")[0], stream.codec_context.name) == ("mov", codec)
            assert stream.average_rate == Fraction(30000, 1001)
            assert not container.metadata.get("creation_time") and not container.metadata.get("encoder")
            keys[codec] = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
            assert stream.codec_context.pix_fmt.replace("yuvj", "yuv") == "yuv420p"
    assert all(keys["mjpeg"])
    distances = np.diff([*np.flatnonzero(keys["h264"]), 50])
    assert len(distances) > 1 and distances.max() <= clip_cutting.GOP


def test_keypoints_move_with_the_pixels():
    points, valid = random_points(5, 1)
    crop, size = Crop(13, 7, 90, 60), (60, 40)
    moved = move_keypoints(points, valid, crop, size)
    assert moved.dtype == np.float32
    for frame in range(5):
        for k in range(22):
            x, y, confidence = points[frame, k].astype(float)
            expected = ((x + 0.5 - 13) * 60 / 90 - 0.5, (y + 0.5 - 7) * 40 / 60 - 0.5, confidence)
            np.testing.assert_allclose(moved[frame, k], expected if valid[frame, k] else 0, rtol=1e-6, atol=1e-5)


def test_keypoints_that_do_not_move_keep_their_bits(videos, tmp_path):
    row = one_clip(videos["a"], 1, 6, tmp_path, PrepareConfig(short_side=None))
    points, valid = random_points(6, 0)
    points[~valid] = 0
    assert np.array_equal(row["keypoints"], points)
    assert np.array_equal(row["keypoints_valid"], valid)


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_a_keypoint_on_a_spot_stays_on_it(tmp_path, codec):
    centers = np.stack([np.linspace(60, 160, 8), np.linspace(50, 130, 8)], axis=1)
    y, x = np.mgrid[:180, :320]
    spots = [255 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 5.0**2)) for a, b in centers]
    frames = [np.repeat(spot[..., None], 3, axis=2).astype(np.uint8) for spot in spots]
    video = write_video(tmp_path / "spot.mp4", frames)
    points = np.concatenate([np.broadcast_to(centers[:, None], (8, 22, 2)), np.ones((8, 22, 1))], axis=2)
    points[:, 1, 0] += 10
    arrays = {"keypoints": points.astype(np.float32), "keypoints_valid": np.ones((8, 22), bool)}
    config = PrepareConfig(short_side=64, codec=codec, crop_person=True, crop_padding=0.2)
    row = one_clip(video, 0, 7, tmp_path, config, width=320, height=180, **arrays)
    assert row["crop"][0] > 0 and row["crop"][3] < 180
    for frame, (px, py, _) in zip(decode(row["video"]["bytes"]), row["keypoints"][:, 0], strict=True):
        weights = np.clip(frame[..., 1].astype(float) - 20, 0, None)
        y, x = np.mgrid[: row["height"], : row["width"]]
        found = (weights * x).sum() / weights.sum(), (weights * y).sum() / weights.sum()
        np.testing.assert_allclose(found, (px, py), atol=0.1)


@pytest.mark.parametrize("layout", ["openpose-137", "imigue-22", "imigue-36"])
def test_the_processors_square_shows_the_same_in_prepared_frames(layout):
    generator = np.random.default_rng(0)
    for _ in range(50):
        center, spread = generator.uniform((200, 100), (1100, 600)), generator.uniform(10, 120)
        points = np.ones((20, 137, 3))
        points[..., :2] = generator.normal(center, spread, (20, 137, 2))
        crop, size = fit(person_crop(points, points[..., 2] > 0, 1280, 720, PrepareConfig().crop_padding), 256)
        moved = move_keypoints(points, points[..., 2] > 0, crop, size)
        original, stored = (convert_keypoints(p, "openpose-137", layout) for p in (points, moved))
        square, small = subject_crop(original, 1280, 720), subject_crop(stored, *size)
        scale = size[0] / crop.width
        # What the square shows of the source frame is in the crop; beyond it, both are black.
        low, high = max(square.left, 0), min(square.left + square.size, 1280)
        assert crop.left <= low and high <= crop.left + crop.width
        low, high = max(square.top, 0), min(square.top + square.size, 720)
        assert crop.top <= low and high <= crop.top + crop.height
        found = np.array([small.left, small.top, small.size]) / scale + (crop.left, crop.top, 0)
        np.testing.assert_allclose(found, (square.left, square.top, square.size), atol=1.5 / min(scale, 1) + 1)


def test_without_keypoints_the_whole_frame_is_kept(videos, tmp_path):
    points = np.zeros((3, 22, 3), np.float32)
    arrays = {"keypoints": points, "keypoints_valid": points[..., 0] > 0}
    row = one_clip(videos["a"], 1, 3, tmp_path, PrepareConfig(short_side=48, crop_person=True), **arrays)
    assert row["crop"] == [0, 0, WIDTH, HEIGHT]
    assert not row["keypoints"].any()


# Runs where neither `clipmg_hf` nor torchcodec can be imported.
_PLAIN = """
import io, json, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "clipmg_hf":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
sys.modules["torchcodec"] = None
import av, datasets, numpy as np
folder, storage = sys.argv[1:]
video = datasets.Video(decode=False)
if storage == "parquet":
    files = {"train": folder + "/data/train-*.parquet", "test": folder + "/data/test-*.parquet"}
    loads = {"folder": (folder,), "parquet": ("parquet", None, None, files)}
else:
    files = {"train": folder + "/data/train-*.tar", "test": folder + "/data/test-*.tar"}
    loads = {"folder": (folder,), "webdataset": ("webdataset", None, None, files)}
found = {}
for name, args in loads.items():
    for streaming in (False, True):
        rows = datasets.load_dataset(*args, streaming=streaming)
        if storage == "webdataset":
            rows = rows.cast_column("mp4", video)
        for split, dataset in rows.items():
            for row in dataset:
                points, data = row.get("keypoints", row.get("keypoints.npy")), row.get("video", row.get("mp4"))
                row = row.get("json", row)
                frames = 0
                if data is not None and data["bytes"]:
                    with av.open(io.BytesIO(data["bytes"])) as container:
                        frames = sum(1 for _ in container.decode(video=0))
                shape = [] if points is None else list(np.shape(points))
                key = f"{name} {streaming} {split}"
                found.setdefault(key, []).append([row["clip_id"], row["label"], frames, shape, sorted(row)])
        features = rows["train"].features
        found[f"{name} {streaming}"] = str({k: f for k, f in features.items() if k in ("label", "keypoints", "video")})
assert "clipmg_hf" not in sys.modules
json.dump(found, sys.stdout)
"""


def load_plainly(folder, storage, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", _PLAIN, str(folder), storage]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected_plain(clips, absent):
    """Per row: clip_id, label, frames of the video and shape of the keypoints."""
    return [
        [
            f"{video}_{index}",
            label,
            0 if video is None else end - start + 1,
            absent if start == end else [end - start + 1, 22, 3],
        ]
        for index, (video, start, end, label) in enumerate(clips)
    ]


def test_parquet_loads_with_plain_datasets(prepared, tmp_path):
    found = load_plainly(prepared["parquet"], "parquet", tmp_path)
    for name in ("folder", "parquet"):
        for streaming in (False, True):
            for split, clips in (("train", TRAIN), ("test", TEST)):
                rows = found[f"{name} {streaming} {split}"]
                assert [row[:4] for row in rows] == expected_plain(clips, [])
                assert not {"gender", "nationality"} & set(rows[0][4])
            features = found[f"{name} {streaming}"]
            for text in ("ClassLabel(names=['nod', 'shrug', 'wave'])", "Array3D(shape=(None, 22, 3)", "decode=False"):
                assert text in features


def test_webdataset_loads_with_plain_datasets(prepared, tmp_path):
    found = load_plainly(prepared["webdataset"], "webdataset", tmp_path)
    for name in ("folder", "webdataset"):
        for streaming in (False, True):
            for split, clips in (("train", TRAIN), ("test", TEST)):
                rows = found[f"{name} {streaming} {split}"]
                assert [row[:4] for row in rows] == expected_plain(clips, [1, 22, 3])
                assert {"label_name", "crop", "fps", "video_id"} <= set(rows[0][4])
                assert not {"gender", "nationality"} & set(rows[0][4])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("streaming", [False, True])
def test_both_storages_give_the_schemas_rows(prepared, rows, tmp_path, storage, streaming):
    loaded = load_prepared(prepared[storage], streaming=streaming, cache_dir=tmp_path)
    assert list(loaded) == ["train", "test"]
    for split, clips in (("train", TRAIN), ("test", TEST)):
        assert loaded[split].features == clip_features(LABELS, GROUPS, "imigue-22", prepared=True)
        found = list(loaded[split])
        assert len(found) == len(clips)
        for index, (row, original) in enumerate(zip(found, rows[split], strict=True)):
            for name in UNCHANGED:
                assert row[name] == original[name]
            video, start, end, _ = clips[index]
            assert (row["video"] is None) == (row["crop"] is None) == (video is None)
            assert (row["width"], row["height"]) == ((WIDTH, HEIGHT) if video is None else (64, 48))
            points, valid = random_points(end - start + 1, index)
            if start == end:
                # `datasets` has None or NaN for a missing array.
                assert np.ndim(row["keypoints"]) == np.ndim(row["keypoints_valid"]) == 0
                continue
            size = (WIDTH, HEIGHT) if video is None else (64, 48)
            expected = move_keypoints(points, valid, Crop(0, 0, WIDTH, HEIGHT), size)
            np.testing.assert_allclose(np.array(row["keypoints"]), expected, atol=1e-5)
            assert np.array_equal(row["keypoints_valid"], valid)


@pytest.mark.parametrize("storage", STORAGES)
def test_rows_without_keypoint_columns_are_prepared(videos, tmp_path, storage):
    rows = datasets.DatasetDict(train=make_rows(videos, TRAIN[:3], layout=None))
    config = PrepareConfig(**SMALL, storage=storage)
    prepare_dataset(rows, tmp_path / "p", config, show_progress=False)
    loaded = load_prepared(tmp_path / "p", cache_dir=tmp_path)["train"]
    assert loaded.features == clip_features(LABELS, GROUPS, None, prepared=True)
    assert [number_of(frame) for frame in decode(loaded[0]["video"]["bytes"])] == list(range(7))
    assert verify_dataset(tmp_path / "p", decode=True) == []


def test_personal_columns_are_there_only_if_asked_for(videos, tmp_path):
    rows = datasets.DatasetDict(train=make_rows(videos, TRAIN[:1]))
    for keep in (False, True):
        folder = tmp_path / str(keep)
        prepare_dataset(rows, folder, PrepareConfig(**SMALL, keep_personal_columns=keep), show_progress=False)
        names = pq.read_schema(folder / "data/train-00000-of-00001.parquet").names
        assert {"gender", "nationality"} <= set(names) if keep else not {"gender", "nationality"} & set(names)


def test_parquet_has_small_row_groups(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_folder, "ROWS_PER_GROUP", 2)
    prepare_dataset(rows, tmp_path / "p", PrepareConfig(short_side=48), show_progress=False)
    file = pq.ParquetFile(tmp_path / "p/data/train-00000-of-00001.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [2, 2, 2, 1]


def test_tar_members_tell_no_time_and_no_owner(prepared):
    with tarfile.open(prepared["webdataset"] / "data/train-00000-of-00004.tar") as archive:
        members = archive.getmembers()
    names = [
        f"{clip}.{ending}"
        for clip in ("a_0", "a_1")
        for ending in ("json", "keypoints.npy", "keypoints_valid.npy", "mp4")
    ]
    assert [member.name for member in members] == names
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, 0, "", "")
    }


@pytest.mark.parametrize("storage", STORAGES)
def test_the_manifest_describes_the_folder(prepared, storage):
    folder = prepared[storage]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["source"] == SOURCE
    assert manifest["settings"]["short_side"] == 48 and manifest["settings"]["quality"] == 20
    assert set(manifest["packages"]) == {"clipmg_hf", "datasets", "pyarrow", "av"}
    frames = sum(end - start + 1 for _, start, end, _ in TRAIN)
    classes = {"nod": 2, "shrug": 3, "wave": 2}
    assert manifest["splits"]["train"] == {"clips": 7, "frames": frames, "without_label": 0, "classes": classes}
    assert manifest["splits"]["test"] == {"clips": 2, "frames": 6, "without_label": 2, "classes": {}}
    assert [entry["rows"] for entry in manifest["files"].values()] == [2, 2, 2, 1, 2]
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == digests(folder)[name]
        assert entry["bytes"] == (folder / name).stat().st_size
    assert set(digests(folder)) == {*manifest["files"], "manifest.json", "README.md"}
    assert verify_dataset(folder, decode=True) == []


def test_the_readme_says_that_the_data_is_private(prepared):
    text = (prepared["parquet"] / "README.md").read_text()
    assert "Licensed data: keep it private" in text
    assert "| train | 7 |" in text
    assert "gender" not in text and "nationality" not in text


def test_verification_names_everything_that_is_wrong(prepared, tmp_path):
    folder = shutil.copytree(prepared["parquet"], tmp_path / "p")
    name = "data/train-0000{}-of-00004.parquet".format
    size = (folder / name(1)).stat().st_size
    (folder / name(0)).unlink()
    (folder / name(1)).write_bytes((folder / name(1)).read_bytes()[:-1])
    shutil.copy(folder / name(3), folder / name(2))
    (folder / "data/other.parquet").write_bytes(b"")
    (folder / "data/.train.7.partial").write_bytes(b"")
    problems = "\n".join(verify_dataset(folder))
    for text in (
        "data/.train.7.partial: not in the manifest",
        "data/other.parquet: not in the manifest",
        f"{name(0)}: no such file",
        f"{name(1)}: changed, {size - 1:,} bytes; expected {size:,}",
        f"{name(1)}: cannot be read",
        f"{name(2)}: changed, ",
        f"{name(2)}: 1 rows; expected 2",
    ):
        assert text in problems


def test_verification_names_other_contents_of_the_same_size(prepared, tmp_path):
    folder = shutil.copytree(prepared["parquet"], tmp_path / "p")
    path = folder / "data/train-00001-of-00004.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    first = verify_dataset(folder)[0]
    found, expected = (digests(place)["data/train-00001-of-00004.parquet"] for place in (folder, prepared["parquet"]))
    assert f"same size, other contents (sha256 {found[:12]}...; expected {expected[:12]}...)" in first
    assert "{" not in first


@pytest.mark.parametrize("storage", STORAGES)
def test_loading_names_the_files_that_are_missing_or_changed(prepared, tmp_path, storage):
    folder = shutil.copytree(prepared[storage], tmp_path / "p")
    extension = prepared_folder.EXTENSIONS[storage]
    first, second = (folder / f"data/train-0000{index}-of-00004.{extension}" for index in (0, 1))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-7])
    with pytest.raises(DatasetFormatError) as error:
        load_prepared(folder, cache_dir=tmp_path / "cache")
    assert len(error.value.problems) == 2
    for text in ("train-00000-of-00004", "no such file", "train-00001-of-00004", "bytes; expected", "--verify"):
        assert text in str(error.value)


@pytest.mark.parametrize("storage", STORAGES)
def test_loading_a_damaged_file_of_the_same_size_points_to_the_verification(prepared, tmp_path, storage):
    folder = shutil.copytree(prepared[storage], tmp_path / "p")
    path = next(folder.glob("data/train-00000*"))
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(DatasetFormatError, match=r"a file cannot be read .*--verify names all that is wrong"):
        load_prepared(folder, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("storage", STORAGES)
def test_verification_compares_classes_and_decodes(videos, tmp_path, storage, monkeypatch):
    rows = datasets.DatasetDict(train=make_rows(videos, [("a", 2, 5, 0), ("a", 2, 5, 1)]))
    cut = prepare.prepare_row

    def damage(row, reader, config):
        row = cut({**row, "end_frame": 4, "keypoints": None}, reader, config)
        return {**row, "end_frame": 5, "label": 0}

    monkeypatch.setattr(prepare, "prepare_row", damage)
    folder = tmp_path / "p"
    prepare_dataset(rows, folder, PrepareConfig(**SMALL, storage=storage), show_progress=False)
    expected = [
        "train: 2 clips of class 'nod'; expected 1",
        "train: 0 clips of class 'shrug'; expected 1",
    ]
    assert verify_dataset(folder) == expected
    name = f"data/train-00000-of-00001.{prepared_folder.EXTENSIONS[storage]}"
    frames = [f"{name}, clip a_{index}: 3 frames of 64 x 48; expected 4 of 64 x 48" for index in (0, 1)]
    assert verify_dataset(folder, decode=True) == frames + expected


def test_an_unfinished_folder_is_named(tmp_path):
    (problem,) = verify_dataset(tmp_path)
    assert "manifest.json: no such file" in problem
    with pytest.raises(DatasetFormatError, match=r"manifest\.json: no such file"):
        load_prepared(tmp_path)


def _run_and_die(rows, folder, config, event, count):
    """Prepare, and be killed at the count-th `event`."""
    seen = 0

    def dying(call, before):
        def wrapper(*args, **kwargs):
            nonlocal seen
            seen += 1
            if before and seen == count:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapper

    if event == "clip":
        prepare.prepare_row = dying(prepare.prepare_row, before=False)
    elif event == "workers":
        prepare.tqdm.update = dying(prepare.tqdm.update, before=False)
    else:
        Path.replace = dying(Path.replace, before=event == "before rename")
    prepare_dataset(rows, folder, config, 2 if event == "workers" else 1, SOURCE, show_progress=False)


def die(rows, folder, config, event, count):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clipmg_hf.data.prepare"])
    process = context.Process(target=_run_and_die, args=(rows, folder, config, event, count))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


# Renames: the record, five shards, the README, the manifest.
@pytest.mark.parametrize(
    ("event", "count"),
    [
        ("clip", 1),
        ("clip", 4),
        ("before rename", 1),
        ("after rename", 1),
        ("before rename", 3),
        ("after rename", 3),
        ("after rename", 7),
        ("before rename", 8),
        ("after rename", 8),
    ],
)
@pytest.mark.parametrize("storage", STORAGES)
def test_a_killed_run_ends_with_the_same_bytes(prepared, rows, tmp_path, storage, event, count):
    config = PrepareConfig(**SMALL, storage=storage)
    folder = tmp_path / "p"
    die(rows, folder, config, event, count)
    assert (folder / "manifest.json").exists() == ((event, count) == ("after rename", 8))
    if count in (3, 4):
        assert any(folder.glob("data/train-00000-*"))
    prepare_dataset(rows, folder, config, source=SOURCE, show_progress=False)
    assert digests(folder) == digests(prepared[storage])


def test_several_processes_write_the_same_bytes_also_when_killed(prepared, rows, tmp_path):
    config = PrepareConfig(**SMALL)
    die(rows, tmp_path / "p", config, "workers", 1)
    assert not (tmp_path / "p/manifest.json").exists()
    prepare_dataset(rows, tmp_path / "p", config, 2, SOURCE, show_progress=False)
    assert digests(tmp_path / "p") == digests(prepared["parquet"])


def test_a_finished_folder_stays_as_it_is_and_lost_shards_come_back(prepared, rows, tmp_path):
    folder = shutil.copytree(prepared["parquet"], tmp_path / "p")
    (folder / "data/train-00001-of-00004.parquet").unlink()
    kept = {path: path.stat().st_ino for path in folder.glob("data/*")}
    prepare_dataset(rows, folder, PrepareConfig(**SMALL), source=SOURCE, show_progress=False)
    assert digests(folder) == digests(prepared["parquet"])
    assert {path: path.stat().st_ino for path in kept} == kept


def test_a_folder_of_another_run_is_refused(prepared, rows, tmp_path):
    folder = shutil.copytree(prepared["parquet"], tmp_path / "p")
    before = digests(folder)
    with pytest.raises(
        ValueError, match=r"settings\.codec: 'h264' instead of 'mjpeg'; settings\.quality: 20 instead of 3"
    ):
        prepare_dataset(rows, folder, PrepareConfig(**SMALL, codec="mjpeg"), source=SOURCE)
    with pytest.raises(ValueError, match=r"source\.seed: 3 instead of 4"):
        prepare_dataset(rows, folder, PrepareConfig(**SMALL), source={**SOURCE, "seed": 4})
    fewer = datasets.DatasetDict(train=rows["train"].select(range(5)), test=rows["test"])
    with pytest.raises(ValueError, match=r"rows_sha256\.train"):
        prepare_dataset(fewer, folder, PrepareConfig(**SMALL), source=SOURCE)
    assert digests(folder) == before


def test_what_differs_from_another_run_is_short(prepared, rows, tmp_path):
    folder = shutil.copytree(prepared["parquet"], tmp_path / "p")
    source = {"dataset": "made up", "seed": 3, "description": ["a" * 500, "b"], "x": 1, "y": 2, "z": 3}
    with pytest.raises(
        ValueError, match=r"settings\.codec: .*; settings\.quality: .*; and \d more\); expect"
    ) as error:
        prepare_dataset(rows, folder, PrepareConfig(**SMALL, codec="mjpeg", crop_padding=1.0), source=source)
    assert len(str(error.value)) < 600
    first, second = (["same", "x" * 300 + end + "y" * 300] for end in ("1", "2"))
    (line,) = prepare._differences({"d": first}, {"d": second})
    assert line == f"d.1: ...{'x' * 20}1{'y' * 59}... instead of ...{'x' * 20}2{'y' * 59}..."
    assert prepare._differences({"a": [1]}, {"a": [1, 2]}) == ["a.1: None instead of 2"]


@pytest.mark.parametrize("layout", [None, "imigue-22"])
def test_a_crop_around_a_person_needs_keypoints(videos, tmp_path, layout):
    rows = make_rows(videos, [("a", 0, 3, 0)], keypoints=None, keypoints_valid=None)
    if layout is None:
        rows = rows.remove_columns(["keypoints", "keypoints_valid", "keypoint_layout"])
    with pytest.raises(ValueError, match="crop_person=True, but no row has keypoints"):
        prepare_dataset(datasets.DatasetDict(train=rows), tmp_path / "p", PrepareConfig(crop_person=True))
    assert not (tmp_path / "p").exists()


def test_a_full_disk_is_named_and_leaves_no_half_shard(rows, tmp_path, monkeypatch):
    def fill(path, *others):
        path.write_bytes(b"half")
        # As Arrow says it: without the file.
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(prepare, "write_rows", fill)
    with pytest.raises(OSError, match="Error writing bytes") as error:
        prepare_dataset(rows, tmp_path / "p", PrepareConfig(**SMALL), show_progress=False)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "p"))
    assert not list((tmp_path / "p/data").iterdir())


def test_a_folder_with_other_files_is_refused_and_left_alone(rows, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files of another origin \(notes\.txt\); expected an empty folder"):
        prepare_dataset(rows, tmp_path)
    assert set(digests(tmp_path)) == {"notes.txt"}


def test_a_full_disk_is_noticed_before_the_work(rows, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"about [\d,]+ bytes are needed and 1,000 are free.*p'"):
        prepare_dataset(rows, tmp_path / "p", PrepareConfig(**SMALL))
    assert not (tmp_path / "p/data").exists()


@pytest.mark.parametrize("codec", ["h264", "mjpeg"])
def test_the_estimate_of_the_disk_is_careful(tmp_path, codec):
    generator = np.random.default_rng(0)
    texture = generator.uniform(80, 180, (90, 160, 3)).repeat(2, axis=0).repeat(2, axis=1)
    frames = (texture + generator.normal(0, 3, (20, 180, 320, 3))).astype(np.uint8)
    video = write_video(tmp_path / "noise.mp4", frames)
    rows = make_rows({"v": video}, [("v", 0, 19, 0)], width=320, height=180)
    config = PrepareConfig(short_side=128, codec=codec)
    manifest = prepare_dataset(datasets.DatasetDict(train=rows), tmp_path / "p", config, show_progress=False)
    (entry,) = manifest["files"].values()
    columns, features = prepare._read_scalars(rows), rows.features
    estimate = prepare._estimate_bytes(columns, features, config, prepare.Shard("train", 0, 1, ""))
    assert entry["bytes"] / 2 < estimate < 20 * entry["bytes"]


def test_all_rows_that_cannot_be_cut_are_named_and_the_rest_is_written(videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    clips = [
        ("a", 0, 3, 0),
        ("a", 38, 41, 1),
        ("broken", 0, 2, 1),
        ("broken", 4, 5, 1),
        ("b", 0, 3, 1),
        ("b", 4, 5, 2),
    ]
    rows = datasets.DatasetDict(train=make_rows({**videos, "broken": broken}, clips))
    with pytest.raises(DatasetFormatError) as error:
        prepare_dataset(rows, tmp_path / "p", PrepareConfig(**SMALL), show_progress=False)
    assert len(error.value.problems) == 3
    beyond, first, second = error.value.problems
    assert "train row 1 (a_1)" in beyond and "a.mp4" in beyond and "[38, 42)" in beyond and "[0, 40)" in beyond
    assert "train row 2 (broken_2)" in first and "cannot be opened as a video" in first
    assert "train row 3 (broken_3)" in second
    assert set(digests(tmp_path / "p")) == {".unfinished.json", "data/train-00002-of-00003.parquet"}


def test_a_repaired_video_is_all_that_is_left_to_do(videos, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows = datasets.DatasetDict(train=make_rows({"a": videos["a"], "v": broken}, [("a", 0, 3, 0), ("v", 0, 2, 1)]))
    config = PrepareConfig(short_side=48, clips_per_shard=1)
    with pytest.raises(DatasetFormatError, match=r"train row 1 \(v_1\)"):
        prepare_dataset(rows, tmp_path / "p", config, show_progress=False)
    shutil.copy(videos["b"], broken)
    prepare_dataset(rows, tmp_path / "p", config, show_progress=False)
    assert verify_dataset(tmp_path / "p", decode=True) == []


def test_rows_are_checked_before_a_video_is_opened(videos, tmp_path):
    gone = {**videos, "gone": tmp_path / "gone.mp4"}
    train = make_rows(gone, [("gone", 0, 3, 0), ("a", 5, 3, 1), ("b", 2, 3, 1)])
    test = make_rows(videos, [("c", 0, 1, 0), ("c", 0, 1, 0), ("b", 0, 3, 0)], video_start_frame=0)
    rows = datasets.DatasetDict(train=train, test=test)
    with pytest.raises(DatasetFormatError) as error:
        prepare_dataset(rows, tmp_path / "p")
    missing, reversed_interval, double = error.value.problems
    assert "train row 0 (gone_0)" in missing and "gone.mp4: no such file" in missing
    assert "train row 1 (a_1): frames 5 to 3" in reversed_interval
    assert "test row 2 (b_2): clip_id is already that of train row 2 (b_2)" in double
    assert not (tmp_path / "p").exists()


def test_sizes_and_keypoints_must_fit_the_video(videos, tmp_path):
    short = random_points(2, 0)
    for overrides, message in (
        ({"width": 64, "height": 48}, r"frames of 128 x 96 in .*a\.mp4; expected 64 x 48"),
        ({"keypoints": short[0], "keypoints_valid": short[1]}, r"keypoints \(2, 22, 3\).*expected 4 frames"),
    ):
        rows = datasets.DatasetDict(train=make_rows(videos, [("a", 0, 3, 0)], **overrides))
        folder = tmp_path / str(len(message))
        with pytest.raises(DatasetFormatError, match=message):
            prepare_dataset(rows, folder, PrepareConfig(**SMALL), show_progress=False)


def test_clip_ids_with_dots_have_no_place_in_webdataset(videos, tmp_path):
    rows = datasets.DatasetDict(train=make_rows(videos, [("a", 0, 3, 0)], clip_id="a.b"))
    with pytest.raises(DatasetFormatError, match=r"train row 0 \(a\.b\): clip_id has a dot"):
        prepare_dataset(rows, tmp_path / "p", PrepareConfig(storage="webdataset"))


def test_prepared_rows_are_not_prepared_again(prepared, tmp_path):
    loaded = load_prepared(prepared["parquet"], cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"video holds no paths"):
        prepare_dataset(loaded, tmp_path / "p")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"codec": "hevc"}, r"codec is 'hevc'; expected one of 'h264', 'mjpeg'"),
        ({"storage": "zip"}, r"storage is 'zip'; expected one of 'parquet', 'webdataset'"),
        ({"short_side": 255}, r"short_side is 255; expected an even number"),
        ({"codec": "mjpeg", "quality": 40}, r"quality is 40; expected 2 \(best\) to 31 with codec='mjpeg'"),
        ({"crop_padding": -1.0}, r"crop_padding is -1\.0"),
        ({"clips_per_shard": 0}, r"clips_per_shard is 0"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**values)


@pytest.fixture
def script():
    path = Path(__file__).parents[2] / "hub_scripts" / "prepare_dataset.py"
    spec = importlib.util.spec_from_file_location("prepare_dataset_script", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run_script(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        console.run(script.main)
    return end.value.code


def test_the_script_prepares_and_verifies(script, rows, tmp_path, monkeypatch, capsys):
    calls = []

    def load(path, **options):
        calls.append((path, options))
        return rows

    monkeypatch.setitem(script.LOADERS, "smg", load)
    arguments = ("--output_dir", tmp_path / "p", "--short_side", 48, "--codec", "mjpeg", "--storage", "webdataset")
    assert run_script(script, monkeypatch, "--data_dir", "/d", "--dataset", "smg", "--seed", 5, *arguments) == 0
    expected = {
        "num_proc": 1,
        "num_folds": 5,
        "fold": 0,
        "background_share": 0.0,
        "on_error": "raise",
        "personal_data": False,
        "protocol": "",
        "validation": None,
        "seed": 5,
    }
    assert calls == [("/d", expected)]
    output = capsys.readouterr().out
    assert "train: 7 clips" in output and "licensed data" in output
    manifest = json.loads((tmp_path / "p/manifest.json").read_text())
    assert (manifest["source"]["dataset"], manifest["source"]["seed"]) == ("smg", 5)
    assert manifest["source"]["description"] == rows["train"].info.description.splitlines()
    assert (manifest["settings"]["codec"], manifest["settings"]["short_side"]) == ("mjpeg", 48)

    assert run_script(script, monkeypatch, "--output_dir", tmp_path / "p", "--verify") == 0
    next((tmp_path / "p/data").glob("*.tar")).unlink()
    assert run_script(script, monkeypatch, "--output_dir", tmp_path / "p", "--verify") == 1
    output = capsys.readouterr().out
    assert "no such file" in output and ": 0 problems\n" in output


def test_the_script_can_leave_out_what_is_wrong(script, rows, tmp_path, monkeypatch):
    options = {}
    monkeypatch.setitem(script.LOADERS, "smg", lambda path, **given: options.update(given) or rows)
    arguments = ("--data_dir", "/d", "--dataset", "smg", "--on_error", "skip", "--short_side", 48)
    assert run_script(script, monkeypatch, "--output_dir", tmp_path / "p", *arguments) == 0
    assert options["on_error"] == "skip"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data_dir is missing; expected --data_dir"),
        (("--data_dir", "/nowhere"), "/nowhere: no such folder"),
        (("--data_dir", "/nowhere", "--quality", 99), "quality is 99; expected 0 (best) to 51"),
    ],
)
def test_the_script_ends_in_a_message(script, tmp_path, monkeypatch, capsys, arguments, message):
    assert run_script(script, monkeypatch, "--output_dir", tmp_path / "p", *arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed and not (tmp_path / "p").exists()


def test_a_damaged_shard_of_a_finished_folder_is_written_again(rows, tmp_path, caplog):
    manifest = prepare_dataset(rows, tmp_path / "out", PrepareConfig(clips_per_shard=2), show_progress=False)
    shard = tmp_path / "out" / next(iter(manifest["files"]))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert verify_dataset(tmp_path / "out")
    again = prepare_dataset(rows, tmp_path / "out", PrepareConfig(clips_per_shard=2), show_progress=False)
    assert again == manifest
    assert verify_dataset(tmp_path / "out") == []
    assert "has changed since it was written" in caplog.text


def test_a_second_run_keeps_out_of_the_folder(rows, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / LOCK_NAME), pytest.raises(ValueError, match="another process is writing to it"):
        prepare_dataset(rows, tmp_path / "out", show_progress=False)
