"""The report on a data set: numbers against a slow reference, a sound page, strips that show the clip."""

import dataclasses
import importlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from clipmg_hf.data import report as report_module
from clipmg_hf.data.report import write_data_report
from clipmg_hf.data.schema import clip_features
from clipmg_hf.data.statistics import data_statistics
from clipmg_hf.processing import get_layout


LAYOUT = get_layout("imigue-22")
LABELS = ("nod", "wave <b>&", "$shrug$ \\frac{", "never")
GROUPS = ("head", "hand")
VOID_TAGS = {"meta", "img", "br"}


def clip(clip_id: str, start: int, num_frames: int, label: int, **values) -> dict:
    row = {
        "clip_id": clip_id,
        "video_id": clip_id.partition("_")[0],
        "start_frame": start,
        "end_frame": start + num_frames - 1,
        "fps": 25.0,
        "label": label,
        "group": -1 if label < 0 else min(label, 1),
        "subject": 1,
        "emotion": None,
        "width": 96,
        "height": 64,
        "video": None,
        "video_start_frame": 0,
        "keypoints": None,
        "keypoints_valid": None,
        "keypoint_layout": None,
    }
    return row | values


def keypoint_columns(keypoints: np.ndarray, valid: np.ndarray) -> dict:
    return {
        "keypoints": np.where(valid[..., None], keypoints, 0).astype(np.float32),
        "keypoints_valid": valid,
        "keypoint_layout": LAYOUT.name,
    }


def random_clips(prefix: str, count: int, rng: np.random.Generator, **values) -> list[dict]:
    """Clips of four videos, some without keypoints, without a subject, without a size, and frames without a point."""
    rows = []
    for index in range(count):
        num_frames, start = int(rng.choice([1, 7, 95, 120])), int(rng.integers(0, 1500))
        keypoints = rng.uniform((-20, -20, 0.1), (120, 80, 1), (num_frames, LAYOUT.num_keypoints, 3))
        valid = rng.random((num_frames, LAYOUT.num_keypoints)) > 0.2
        valid[rng.random(num_frames) < 0.2] = False
        valid[:, 3] = False
        row = clip(f"{prefix}{index % 4}_{index}", start, num_frames, int(rng.integers(0, 3)))
        row["subject"] = index % 5 if index % 7 else None
        if index % 6:
            row |= keypoint_columns(keypoints, valid)
        if index % 9 == 0:
            row["width"] = None
        if index % 4 == 1:
            row["video"] = "there.mp4"
        rows.append(row | values)
    return rows


def to_dataset(rows: list[dict], layout: str | None = LAYOUT.name, prepared: bool = False) -> datasets.Dataset:
    features = clip_features(LABELS, GROUPS, layout, prepared=prepared)
    return datasets.Dataset.from_list([{name: row.get(name) for name in features} for row in rows], features=features)


@pytest.fixture(scope="module")
def clips() -> dict[str, list[dict]]:
    rng = np.random.default_rng(0)
    return {
        "train": random_clips("a", 75, rng),
        "validation": [*random_clips("b", 10, rng), clip("a1_900", 5, 30, 0, subject=77)],
        "test": random_clips("c", 8, rng, label=-1, group=-1, subject=None),
    }


@pytest.fixture(scope="module")
def rows(clips) -> datasets.DatasetDict:
    return datasets.DatasetDict({name: to_dataset(split) for name, split in clips.items()})


def reference(clips: list[dict]) -> dict:
    """What `SplitStatistics` says, clip by clip and point by point."""
    lengths = [row["end_frame"] - row["start_frame"] + 1 for row in clips]
    overlapping = 0
    for row in clips:
        others = [other for other in clips if other is not row and other["video_id"] == row["video_id"]]
        overlapping += any(
            other["start_frame"] <= row["end_frame"] and row["start_frame"] <= other["end_frame"] for other in others
        )
    counts = [sum(row["label"] == label for row in clips) for label in range(len(LABELS))]
    labelled = any(counts)
    frames = placed = outside = empty = 0
    confidences: list[list[float]] = [[] for _ in range(LAYOUT.num_keypoints)]
    for row in clips:
        if row["keypoints"] is None:
            continue
        for points, valid in zip(row["keypoints"], row["keypoints_valid"], strict=True):
            frames += 1
            empty += not valid.any()
            for index in np.flatnonzero(valid):
                x, y, confidence = points[index]
                confidences[index].append(float(confidence))
                if row["width"] is not None:
                    placed += 1
                    outside += not (0 <= x < row["width"] and 0 <= y < row["height"])
    return {
        "num_clips": len(clips),
        "num_videos": len({row["video_id"] for row in clips}),
        "num_subjects": len({row["subject"] for row in clips} - {None}) or None,
        "num_frames": sum(lengths),
        "length_min": min(lengths),
        "length_median": float(np.median(lengths)),
        "length_mean": pytest.approx(np.mean(lengths)),
        "length_90th_percentile": pytest.approx(np.percentile(lengths, 90)),
        "length_max": max(lengths),
        "share_longer_than_90": sum(length > 90 for length in lengths) / len(clips),
        "share_overlapping": overlapping / len(clips),
        "class_counts": dict(zip(LABELS, counts, strict=True)),
        "group_counts": {name: sum(row["group"] == index for row in clips) for index, name in enumerate(GROUPS)},
        "imbalance": max(counts) / min(count for count in counts if count) if labelled else None,
        "absent_classes": [name for name, count in zip(LABELS, counts, strict=True) if not count]
        if labelled
        else None,
        "num_without_label": sum(row["label"] < 0 for row in clips),
        "num_without_video": sum(row["video"] is None for row in clips),
        "num_without_keypoints": sum(row["keypoints"] is None for row in clips),
        "num_frames_with_keypoints": frames,
        "num_frames_without_points": empty,
        "missing_rates": pytest.approx(
            {name: 1 - len(values) / frames for name, values in zip(LAYOUT.keypoints, confidences, strict=True)}
        ),
        "mean_confidences": {
            name: pytest.approx(np.mean(values)) if values else None
            for name, values in zip(LAYOUT.keypoints, confidences, strict=True)
        },
        "share_outside_frame": pytest.approx(outside / placed),
    }


# --- statistics


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_statistics_agree_with_the_reference(clips, rows, split):
    assert dataclasses.asdict(data_statistics(rows).splits[split]) == reference(clips[split])


def test_statistics_follow_the_selected_rows(clips, rows):
    chosen = [40, 3, 3 + 4, 11, 70, 1]
    selected = datasets.DatasetDict(train=rows["train"].select(chosen))
    expected = reference([clips["train"][index] for index in chosen])
    assert dataclasses.asdict(data_statistics(selected).splits["train"]) == expected


def test_statistics_of_the_whole_data_set(rows):
    statistics = data_statistics(rows)
    assert statistics.keypoint_layout == LAYOUT.name
    assert statistics.class_groups == dict(zip(LABELS, ("head", "hand", "hand", None), strict=True))
    assert statistics.shared_videos == {"train & validation": 1}
    assert statistics.shared_subjects == {"train & validation": 5}


@pytest.mark.parametrize("layout", [LAYOUT.name, None])
@pytest.mark.parametrize("named", [LAYOUT.name, None])
def test_statistics_without_keypoints(layout, named):
    clips = [clip(f"a_{index}", 4 * index, 5, 0, keypoint_layout=named) for index in range(2)]
    rows = datasets.DatasetDict(train=to_dataset(clips, layout))
    statistics = data_statistics(rows)
    split = statistics.splits["train"]
    assert statistics.keypoint_layout is None and split.num_without_keypoints == 2
    assert split.missing_rates is split.mean_confidences is split.share_outside_frame is None
    assert split.share_overlapping == 1 and split.imbalance == 1


def test_touching_clips_do_not_overlap():
    clips = [clip("a_0", 0, 5, 0), clip("a_1", 5, 5, 0), clip("b_0", 3, 5, 0)]
    assert data_statistics(datasets.DatasetDict(train=to_dataset(clips))).splits["train"].share_overlapping == 0


def test_statistics_of_prepared_videos(video):
    videos = (
        {"bytes": b"...", "path": None},
        {"bytes": None, "path": str(video)},
        None,
    )
    clips = [clip(f"a_{index}", 0, 5, 0, video=value) for index, value in enumerate(videos)]
    rows = datasets.DatasetDict(train=to_dataset(clips, None, prepared=True))
    assert data_statistics(rows).splits["train"].num_without_video == 1


def test_an_empty_split_is_counted():
    rows = datasets.DatasetDict(
        train=to_dataset([clip("a_0", 0, 5, 0)]), test=to_dataset([clip("a", 0, 1, 0)]).select([])
    )
    split = data_statistics(rows).splits["test"]
    assert split.num_clips == 0 and split.length_median is None and split.share_overlapping is None


# --- page


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what the page refers to and says."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.images: dict[str, str] = {}
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "img":
            self.images[values["src"]] = values["alt"]
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def report(rows, tmp_path_factory) -> Path:
    """Strips without a picture: the videos of the rows do not exist."""
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    title, notes = "Clips <script>alert(1)</script> & more", ["train: 3 of <i>4</i>", 'quoted " & closed']
    return write_data_report(rows, folder, title=title, notes=notes, num_strips=40, show_progress=False)


def test_page_refers_to_what_is_there(report):
    page = Page(report)
    assert report.name == "index.html" and page.links == list(page.images)
    assert {"class_counts.png", "clip_lengths.png", "missing_keypoints.png"} < set(page.images)
    for name, alt in page.images.items():
        with Image.open(report.parent / name) as picture:
            picture.verify()
        assert len(alt) > 20
    strips = {f"strips/{path.name}" for path in (report.parent / "strips").iterdir()}
    assert strips and strips == {name for name in page.images if name.startswith("strips/")}


def test_page_escapes_the_data(report):
    page = Page(report)
    assert not page.tags & {"script", "i", "b", "link", "iframe"}
    for text in ("Clips <script>alert(1)</script> & more", "3 of <i>4</i>", 'quoted " & closed', "wave <b>&"):
        assert text in page.text
    assert "http" not in report.read_text(encoding="utf-8")


def test_page_shows_the_numbers(clips, report):
    expected = reference(clips["train"])
    text = Page(report).text
    assert f"{expected['num_frames']:,}" in text and f"{100 * expected['share_overlapping']:.1f} %" in text
    assert "train & validation share 1 video" in text


def test_the_note_on_the_splits_is_a_sentence(tmp_path):
    rows = datasets.DatasetDict(train=to_dataset([clip("a_0", 0, 5, 0)]))
    record = {"protocol": "official", "validation": None, "seed": 3, "num_folds": 5, "fold": 1}
    units = {f"fold {index}": [f"subject {index}"] for index in range(5)}
    notes = [
        f"Splits: {json.dumps(record)}",
        f"Splits: {json.dumps(record | {'validation': 0.2, 'units': {'validation': ['subject 4', 'video 0007']}})}",
        f"Splits: {json.dumps(record | {'protocol': 'cross_subject', 'validation': 0})}",
        f"Splits: {json.dumps(record | {'protocol': 'folds', 'units': units})}",
    ]
    text = Page(write_data_report(rows, tmp_path, title="Notes", notes=notes, show_progress=False)).text
    for sentence in (
        "Splits: the parts as handed out.",
        "handed out; about 20.0 % of the training clips validate, seed 3: subject 4, video 0007.",
        "Splits: the cross-subject protocol.",
        "Splits: folds by subject; fold 1 of 5 (counted from 0) validates: subject 1.",
    ):
        assert sentence in text
    assert '"protocol"' not in text


@pytest.mark.parametrize(("low", "high"), [(20, 22), (20, 24), (5, 5), (1, 2), (7, 33), (4, 900), (1, 12_345)])
def test_ticks_of_the_clip_lengths_are_different_whole_numbers(low, high):
    ticks = report_module._length_ticks(low, high)
    assert ticks and ticks == sorted(set(ticks)) and low <= ticks[0] and ticks[-1] <= high
    assert all(isinstance(tick, int) for tick in ticks) and len(ticks) <= 18


def test_the_plot_and_the_table_tell_the_same_median(tmp_path, monkeypatch):
    marks = []
    annotate = report_module.Axes.annotate

    def record(axes, text, *arguments, **options):
        marks.append(text)
        return annotate(axes, text, *arguments, **options)

    monkeypatch.setattr(report_module.Axes, "annotate", record)
    rows = datasets.DatasetDict(train=to_dataset([clip("a_0", 0, 20, 0), clip("a_1", 40, 21, 0)]))
    text = Page(write_data_report(rows, tmp_path, title="Median", show_progress=False)).text
    assert "median 20.5" in marks and "20.5" in text


def test_the_bars_count_clips(tmp_path, capsys):
    rows = datasets.DatasetDict(train=to_dataset([clip(f"a_{index}", 0, 5, 0) for index in range(5)]))
    write_data_report(rows, tmp_path, title="Bars", num_strips=2)
    printed = capsys.readouterr().err
    assert "5/5" in printed and "2/2" in printed and "/7" not in printed


def test_statistics_are_written(rows, report):
    written = json.loads((report.parent / "statistics.json").read_text(encoding="utf-8"))
    assert written == dataclasses.asdict(data_statistics(rows))


def test_nothing_else_is_left_in_the_folder(report):
    pictures = {"class_counts.png", "clip_lengths.png", "missing_keypoints.png"}
    assert {path.name for path in report.parent.iterdir()} == pictures | {"index.html", "statistics.json", "strips"}
    assert all(path.suffix == ".png" for path in (report.parent / "strips").iterdir())


def test_unreadable_videos_are_said_and_do_not_stop_the_report(report):
    text = Page(report).text
    assert "there.mp4: no such file; expected a video file" in text
    assert "neither a video nor keypoints" in text


@pytest.mark.parametrize("layout", [LAYOUT.name, None])
def test_page_without_keypoints_and_labels(tmp_path, layout):
    clips = [clip(f"{video}_0", 0, 5, -1, keypoint_layout=layout) for video in "ab"]
    rows = datasets.DatasetDict(test=to_dataset(clips, layout))
    page = Page(write_data_report(rows, tmp_path, title="Hidden", show_progress=False))
    assert set(page.images) == {"class_counts.png", "clip_lengths.png"}
    assert "No clip has keypoints." in page.text and "label hidden" in page.text


def test_a_second_report_replaces_the_first(tmp_path):
    for title in ("First", "Second"):
        rows = datasets.DatasetDict(train=to_dataset([clip("a_0", 0, 5, 0)]))
        path = write_data_report(rows, tmp_path, title=title, show_progress=False)
    assert "Second" in Page(path).text and "First" not in Page(path).text


@pytest.mark.parametrize("layout", ["openpose-137", "openpose-body25", "imigue-light-35"])
def test_missing_keypoints_of_every_layout(tmp_path, layout):
    num_keypoints = get_layout(layout).num_keypoints
    valid = np.ones((4, num_keypoints), dtype=bool)
    row = clip("a_0", 0, 4, 0, keypoints=np.ones((4, num_keypoints, 3), np.float32), keypoints_valid=valid)
    rows = datasets.DatasetDict(train=to_dataset([row | {"keypoint_layout": layout}], layout))
    page = Page(write_data_report(rows, tmp_path, title="Points", show_progress=False))
    assert "missing_keypoints.png" in page.images and "left ear" in page.text


# --- strips


def write_strips(rows: datasets.Dataset, folder: Path, **values) -> list[str]:
    path = write_data_report(datasets.DatasetDict(train=rows), folder, title="Strips", show_progress=False, **values)
    return [name for name in Page(path).images if name.startswith("strips/")]


def drawn_clips(num_frames: int = 9) -> list[dict]:
    """Twenty clips without video, all but the last two of class 0; everybody's nose at (30, 20)."""
    points = np.zeros((num_frames, LAYOUT.num_keypoints, 3))
    points[:, LAYOUT.index("nose")] = (30, 20, 1)
    columns = keypoint_columns(points, points[..., 2] > 0)
    return [clip(f"v_{index}", 10, num_frames, max(0, index - 17), **columns) for index in range(20)]


def test_strips_show_every_class_before_any_comes_again(tmp_path):
    rows = to_dataset(drawn_clips())
    names = write_strips(rows, tmp_path / "a", num_strips=3)
    assert names[1:] == ["strips/v_18.png", "strips/v_19.png"]
    assert names == write_strips(rows, tmp_path / "b", num_strips=3)
    assert names != write_strips(rows, tmp_path / "c", num_strips=3, seed=1)
    assert len(write_strips(rows, tmp_path / "d", num_strips=5)) == 5


@pytest.mark.parametrize("prepared", [False, True])
def test_strip_shows_the_frames_of_the_clip(tmp_path, video, points, prepared):
    """The file's first frame is frame 100 of the untrimmed video; the square is at x = 15 to 35 in its frame 3."""
    source = {"bytes": video.read_bytes(), "path": None} if prepared else str(video)
    row = clip("v_0", 103, 9, 0, video=source, video_start_frame=100)
    (name,) = write_strips(to_dataset([row], None, prepared=prepared), tmp_path)
    picture = np.asarray(Image.open(tmp_path / name).convert("L")).astype(int)
    # The first tile is 320 x 213 at (14, 72); four in a line, two lines.
    bright = np.nonzero(picture[72 + 100, 14 : 14 + 320] > 140)[0]
    assert (bright.min(), bright.max()) == pytest.approx((15 / 96 * 320, 35 / 96 * 320), abs=6)
    last = np.nonzero(picture[72 + 213 + 26 + 100, 14 + 3 * 328 : 14 + 3 * 328 + 320] > 140)[0]
    assert (last.min(), last.max()) == pytest.approx((55 / 96 * 320, 75 / 96 * 320), abs=6)


def test_strip_without_video_is_drawn_on_grey(tmp_path):
    (name,) = write_strips(to_dataset(drawn_clips()[:1]), tmp_path)
    picture = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
    tile = picture[72 : 72 + 213, 14 : 14 + 320]
    ys, xs = np.nonzero((tile != 150).any(axis=-1))
    assert (xs.mean() * 96 / 320, ys.mean() * 64 / 213) == pytest.approx((30, 20), abs=0.5)


def test_strip_of_a_single_frame_of_unknown_size(tmp_path):
    rows = to_dataset([drawn_clips(num_frames=1)[0] | {"width": None, "height": None}])
    (name,) = write_strips(rows, tmp_path)
    assert Image.open(tmp_path / name).size == (1332, 2 * 14 + 58 + round(320 / 31 * 21) + 26)


def test_clip_ids_cannot_leave_the_folder(tmp_path):
    first, second = drawn_clips()[:2]
    rows = to_dataset([first | {"clip_id": "../../a b"}, second | {"clip_id": "../../a_b"}])
    names = write_strips(rows, tmp_path / "report")
    assert len(set(names)) == 2 and all((tmp_path / "report" / name).is_file() for name in names)
    assert {path.parent.name for path in tmp_path.rglob("*.png")} == {"report", "strips"}


def test_a_damaged_video_is_said(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    rows = datasets.DatasetDict(train=to_dataset([clip("v_0", 0, 5, 0, video=str(tmp_path / "bad.mp4"))]))
    text = Page(write_data_report(rows, tmp_path / "report", title="Damaged", show_progress=False)).text
    assert "bad.mp4: cannot be opened as a video" in text


def test_an_interval_beyond_the_video_is_said(tmp_path, video):
    rows = datasets.DatasetDict(train=to_dataset([clip("v_0", 0, 50, 0, video=str(video))]))
    text = Page(write_data_report(rows, tmp_path, title="Short", show_progress=False)).text
    assert "clip.mp4" in text and "49" in text


@pytest.mark.parametrize("module", ["matplotlib", "PIL"])
def test_import_without_the_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "clipmg_hf.data.report")
    message = r'clipmg_hf\.data\.report needs matplotlib and Pillow .*pip install "clipmg_hf\[viz\]"'
    with pytest.raises(ImportError, match=message):
        importlib.import_module("clipmg_hf.data.report")
