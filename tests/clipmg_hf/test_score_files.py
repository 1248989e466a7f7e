"""Score files come back as they were, runs are fused clip by clip, and submissions have the challenge's form."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.metrics import log_softmax
from clipmg_hf.score_files import Scores, fuse_scores, read_scores, write_scores, write_submission


NAMES = ["Rubbing eyes", "Crossing, fingers", "Nicken äöü"]


def make_scores(seed: int = 0, num_clips: int = 12, **values) -> Scores:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(-1, 3, size=num_clips)
    fields = {
        "clip_ids": [f"{54 + i // 7:04d}_{i}" for i in range(num_clips)],
        "video_ids": [f"{54 + i // 7:04d}" for i in range(num_clips)],
        "logits": rng.normal(size=(num_clips, 3)) * 4,
        "labels": labels,
        "label_names": NAMES,
        "checkpoint": f"lab/model-{seed}",
        "revision": "0123abc",
        "data_fingerprint": "f1",
        "split": "test",
        "views": 2,
    }
    return Scores(**{**fields, **values})


def assert_equal(first: Scores, second: Scores):
    for field in dataclasses.fields(Scores):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other and type(one) is type(other), field.name


def shuffle(scores: Scores, seed: int) -> Scores:
    order = np.random.default_rng(seed).permutation(len(scores.clip_ids))
    return dataclasses.replace(
        scores,
        clip_ids=[scores.clip_ids[i] for i in order],
        video_ids=[scores.video_ids[i] for i in order],
        logits=scores.logits[order],
        labels=scores.labels[order],
    )


@pytest.mark.parametrize("num_clips", [1, 12, 3000])
def test_a_file_comes_back_as_it_was(tmp_path, num_clips):
    scores = make_scores(num_clips=num_clips)
    path = write_scores(scores, tmp_path / "runs" / "a.parquet")
    assert_equal(read_scores(path), scores)
    write_scores(make_scores(1, revision=None, data_fingerprint=None, split=None), path)
    assert_equal(read_scores(path), make_scores(1, revision=None, data_fingerprint=None, split=None))
    assert [file.name for file in path.parent.iterdir()] == ["a.parquet"]


def test_pandas_reads_the_file(tmp_path):
    scores = make_scores()
    frame = pd.read_parquet(write_scores(scores, tmp_path / "a.parquet"))
    assert list(frame.columns) == ["clip_id", "video_id", "label", "logits"]
    np.testing.assert_array_equal(np.stack(frame["logits"]), scores.logits)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_scores(make_scores(), tmp_path / "a.parquet")
    before = path.read_bytes()

    def fail(table, where, **options):
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_scores(make_scores(1), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_ids": ["0054_0", "0054_1", "0054_0"]}, r"1 clips \(0054_0\) are there more than once"),
        ({"labels": [0, 3, -2]}, r"2 clips \(0054_1, 0054_2\) have labels outside -1\.\.2"),
        (
            {"logits": [[0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0]]},
            r"2 clips \(0054_1, 0054_2\) have scores that are not",
        ),
        ({"logits": np.zeros((3, 2))}, r"logits \(3, 2\), labels \(3,\) and 3 label_names; expected N, N, \(N, L\)"),
        ({"video_ids": ["0054"]}, "3 clip_ids, 1 video_ids"),
        (
            {"clip_ids": [], "video_ids": [], "logits": np.zeros((0, 3)), "labels": np.zeros(0)},
            "expected .* with N at least 1",
        ),
    ],
)
def test_wrong_scores_are_refused(values, message):
    with pytest.raises(DatasetFormatError, match=message):
        make_scores(**{"num_clips": 3, **values})


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(DatasetFormatError, match=r"absent\.parquet: no such file"):
        read_scores(tmp_path / "absent.parquet")
    for name, write in {
        "text.parquet": lambda path: path.write_text("clip_id,label"),
        "other.parquet": lambda path: pq.write_table(pa.table({"clip_id": ["a"]}), path),
    }.items():
        write(tmp_path / name)
        with pytest.raises(DatasetFormatError, match=rf"{name}: .*; expected scores as write_scores"):
            read_scores(tmp_path / name)
    path = write_scores(make_scores(), tmp_path / "twice.parquet")
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)
    with pytest.raises(DatasetFormatError, match=r"twice\.parquet: .*\(0054_0\) are there more than once"):
        read_scores(path)
    metadata = json.loads(table.schema.metadata[b"clipmg_scores"])
    pq.write_table(table.replace_schema_metadata({"clipmg_scores": json.dumps({**metadata, "extra": 1})}), path)
    with pytest.raises(DatasetFormatError, match=r"twice\.parquet: .*extra"):
        read_scores(path)


@pytest.mark.parametrize("weights", [None, [1, 1, 1], [3, 0, 1], [0.2, 0.3, 0.1]])
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_fusion_equals_a_loop_over_clips(tmp_path, kind, weights):
    runs = [make_scores(0), shuffle(make_scores(1), 5), shuffle(make_scores(2), 6)]
    files = [runs[0], *(write_scores(run, tmp_path / f"{run.checkpoint[-1]}.parquet") for run in runs[1:])]
    fused = fuse_scores(files, weights, kind)
    assert fused.clip_ids == runs[0].clip_ids and fused.label_names == NAMES
    np.testing.assert_array_equal(fused.labels, runs[0].labels)
    shares = np.array(weights or [1, 1, 1]) / np.sum(weights or [1, 1, 1])
    for i, clip_id in enumerate(fused.clip_ids):
        expected = np.zeros(3)
        for share, run in zip(shares, runs, strict=True):
            logits = run.logits[run.clip_ids.index(clip_id)].astype(float)
            expected += share * (np.exp(logits) / np.exp(logits).sum() if kind == "probabilities" else logits)
        result = np.exp(log_softmax(fused.logits[i])) if kind == "probabilities" else fused.logits[i]
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_fusion_says_what_was_fused():
    fused = fuse_scores([make_scores(0), make_scores(1, revision=None), make_scores(2, split="other")], [3, 1, 0])
    assert fused.checkpoint == "0.75 x lab/model-0@0123abc + 0.25 x lab/model-1"
    assert (fused.revision, fused.data_fingerprint, fused.split, fused.views) == (None, "f1", "test", 4)


def test_fused_probabilities_of_certain_runs_stay_finite():
    certain = make_scores(num_clips=2, logits=[[5000, 0, -5000], [0, 0, 0]])
    fused = fuse_scores([certain, make_scores(num_clips=2, logits=[[-5000, 5000, 0], [0, 0, 0]])])
    np.testing.assert_allclose(np.exp(log_softmax(fused.logits)), [[0.5, 0.5, 0], [1 / 3] * 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": NAMES[::-1]}, "run 1 and run 0 have different classes: 3 and 3, class 0 is 'Nicken äöü' and"),
        (
            {"label_names": [*NAMES, "Nod"], "logits": np.zeros((12, 4))},
            "different classes: 4 and 3, class 3 is 'Nod' and None",
        ),
        (
            {"clip_ids": ["x_0", "x_1", *make_scores().clip_ids[2:]]},
            r"different clips: 2 clips \(x_0, x_1\) only in the one, 2 clips \(0054_0, 0054_1\) only in the other",
        ),
        ({"labels": np.full(12, 2)}, r"different labels of \d+ clips \(0054_"),
        ({"video_ids": ["0099"] * 12}, r"different videos of 12 clips \(0054_0, .*, \.\.\.\)"),
    ],
)
def test_runs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DatasetFormatError, match=message):
        fuse_scores([make_scores(), make_scores(1, **change)])


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, np.nan], [[1, 1]]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match="expected one for each, not negative, not all 0"):
        fuse_scores([make_scores(), make_scores(1)], weights)


def test_wrong_choices_are_refused(tmp_path):
    with pytest.raises(ValueError, match="0 runs"):
        fuse_scores([])
    with pytest.raises(ValueError, match="kind is 'votes'"):
        fuse_scores([make_scores()], kind="votes")
    with pytest.raises(ValueError, match="form is '2024'"):
        write_submission(make_scores(), tmp_path / "a.csv", form="2024")
    assert not list(tmp_path.iterdir())


def test_submissions_have_the_form_of_the_challenge(tmp_path):
    clip_ids = ["0100_0", "0054_10", "0054_9", "0054_0"]
    scores = make_scores(
        num_clips=4,
        clip_ids=clip_ids,
        video_ids=[clip_id.split("_")[0] for clip_id in clip_ids],
        logits=np.eye(3)[[2, 1, 0, 1]],
        labels=[-1] * 4,
    )
    path = write_submission(scores, tmp_path / "new" / "2023.csv", form="2023")
    assert path.read_bytes() == b"0054_0,1\n0054_9,0\n0054_10,1\n0100_0,2\n"
    path = write_submission(scores, tmp_path / "new" / "2025.csv", form="2025")
    assert path.read_bytes() == b"Id,Target\n0054_0,1\n0054_9,0\n0054_10,1\n0100_0,2\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["2023.csv", "2025.csv"]


def test_a_submission_has_no_background(tmp_path, caplog):
    scores = make_scores(
        num_clips=3,
        clip_ids=["0054_0", "0054_background_81", "0054_1"],
        video_ids=["0054"] * 3,
        label_names=["nod", "rub", "Background"],
        logits=[[-9.0, -7.0, -5.0], [1.0, 0.0, 2.0], [2.0, 0.0, 1.0]],
        labels=[0, 2, -1],
    )
    path = write_submission(scores, tmp_path / "a.csv")
    assert path.read_bytes() == b"Id,Target\n0054_0,1\n0054_1,0\n"
    assert "1 of 3 clips are left out, which were made of gaps, and 1 of the others" in caplog.text


def test_a_submission_refuses_clips_without_a_number(tmp_path):
    scores = make_scores(num_clips=2, clip_ids=["0054_0", "intro"])
    with pytest.raises(DatasetFormatError, match=r"1 clips \(intro\) cannot be ordered; expected <video>_<number>"):
        write_submission(scores, tmp_path / "a.csv")
