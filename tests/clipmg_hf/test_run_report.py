"""The page about a run: sound, escaped, complete, honest about what is missing, and equal to the files."""

import csv
import dataclasses
import importlib
import json
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipmg_hf.data import DatasetFormatError
from clipmg_hf.evaluation import Evaluation
from clipmg_hf.evaluation_results import measure, write_evaluation, write_table
from clipmg_hf.metrics import classification_metrics
from clipmg_hf.run_report import write_run_report
from clipmg_hf.score_files import Scores


NAMES = ["nod", "wave <b>&", "$shrug$ \\frac{", "never"]
GROUPS = ["head", "hand", "hand", "<i>body"]
NUM_CLIPS = 40
PICTURES = {"learning_curves.png", "confusion_matrix.png", "class_bars.png", "reliability.png", "gates.png"}
VOID_TAGS = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a page shows and refers to; fails where tags do not match."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.images, self.links, self.tags, self.stack, self.text = {}, [], set(), [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if tag == "img":
            self.images[values["src"]] = values["alt"]
        self.links += [values[name] for name in ("src", "href") if name in values]
        if tag not in VOID_TAGS:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data if self.stack and self.stack[-1] != "style" else ""


def make_evaluation(labels=None, seed=0) -> Evaluation:
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=NUM_CLIPS) if labels is None else labels
    logits = generator.normal(size=(NUM_CLIPS, len(NAMES)))
    logits[np.arange(NUM_CLIPS), np.maximum(labels, 0)] += 1
    scores = Scores(
        clip_ids=[f"v{index % 5}_{index}" for index in range(NUM_CLIPS - 1)] + ["<script>alert(1)</script>"],
        video_ids=[f"v{index % 5}" for index in range(NUM_CLIPS)],
        logits=logits,
        labels=labels,
        label_names=NAMES,
        checkpoint="runs/<i>full</i>",
        split="validation",
        views=2,
    )
    has_pose = np.arange(NUM_CLIPS) != 3
    gates = np.where(has_pose, generator.uniform(0.4, 0.6, NUM_CLIPS), 1)
    return Evaluation(scores, gates, np.ones(NUM_CLIPS, bool), has_pose)


def write_files(folder, evaluation, **facts):
    measurement = measure(evaluation.scores, GROUPS, num_samples=30)
    write_evaluation(folder, evaluation, GROUPS, measurement, facts)
    (folder / "strips").mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / "strips" / "v0_0.png")
    entries = [
        {"kind": "hardest", "clip_id": "v0_0", "file": "strips/v0_0.png", "problem": None},
        {"kind": "hardest", "clip_id": "v1_1", "file": "strips/gone.png", "problem": None},
        {"kind": "right", "clip_id": "<script>alert(1)</script>", "file": None, "problem": "no <frames> & points."},
    ]
    write_table(folder / "strips.csv", entries)


def write_training(folder, **config):
    history = [
        *({"step": step, "loss": 3.0 / step, "learning_rate": 1e-3 / step, "epoch": step / 2} for step in range(1, 5)),
        {"step": 4, "eval_loss": 1.1, "eval_top1": 0.5, "eval_nll": 1.1, "eval_runtime": 3.0},
    ]
    state = {"global_step": 4321, "epoch": 2.0, "best_metric": 0.6543, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "config.json").write_text(json.dumps({"fusion": "gated", "num_frames": 8, **config}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "full <b>"
    (folder / "evaluation").mkdir(parents=True)
    write_training(folder)
    experiment = {"learning_rate": 0.000123, "augment": {"flip": 0.5, "unset": None}, "note": "<u>quoted"}
    (folder / "experiment.json").write_text(json.dumps(experiment))
    facts = {"bootstrap": {"confidence": 0.95, "num_samples": 30}, "data": {"description": ["3 of <i>4</i>"]}}
    write_files(folder / "evaluation", make_evaluation(), **facts)
    return folder


@pytest.fixture(scope="module")
def report(run):
    return write_run_report(run)


def test_page_refers_to_what_is_there(run, report):
    page = Page(report)
    assert report == run / "evaluation" / "report.html"
    assert set(page.images) == PICTURES | {"strips/v0_0.png"}
    assert set(page.links) == set(page.images)
    for name, alt in page.images.items():
        with Image.open(report.parent / name) as picture:
            picture.verify()
        assert len(alt) > 20
    assert "http" not in report.read_text(encoding="utf-8")


def test_page_escapes_what_it_shows(report):
    page = Page(report)
    assert not page.tags & {"script", "i", "b", "u", "frames", "link", "iframe"}
    for text in (
        *NAMES,
        "<script>alert(1)</script>",
        "3 of <i>4</i>",
        "no <frames> & points.",
        "<u>quoted",
        "<i>body",
    ):
        assert text in page.text


def test_page_shows_the_numbers(run, report):
    scores = make_evaluation().scores
    text = Page(report).text
    for name, value in classification_metrics(scores.logits, scores.labels, GROUPS).items():
        assert (f"{value:.3f}" if name == "nll" else f"{100 * value:.1f} %") in text, name
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    assert f"{100 * metrics['top1']['low']:.1f} to {100 * metrics['top1']['high']:.1f} %" in text
    counts = np.bincount(scores.labels)
    assert f"{100 * counts.max() / NUM_CLIPS:.1f} % top-1" in text
    for text_part in ("4,321", "0.6543", "0.000123", "augment.flip", "gated", "1 clip that lack a stream"):
        assert text_part in text
    assert "unset" not in text and "Without a clip in this split: never." in text


def test_clips_are_shown_with_what_was_found(run, report):
    text = Page(report).text
    with (run / "evaluation" / "clips.csv").open(newline="") as file:
        clip = next(row for row in csv.DictReader(file) if row["clip_id"] == "v0_0")
    assert f"predicted {clip['predicted']} ({100 * float(clip['probability']):.1f} %)" in text
    assert f"loss {float(clip['loss']):.2f}" in text and "strips/gone.png is missing" in text
    assert "Highest loss" in text and "Predicted right" in text and "mean of 2 views" in text


def test_another_folder_holds_all_of_the_page(run, report, tmp_path):
    path = write_run_report(run, run / "evaluation", tmp_path / "page")
    moved = tmp_path / "moved"
    shutil.move(path.parent, moved)
    assert {file.relative_to(moved).as_posix() for file in moved.rglob("*.*")} == (
        PICTURES | {"strips/v0_0.png", "report.html"}
    )
    assert Page(moved / "report.html").images == Page(report).images


def test_a_run_without_an_evaluation(run, tmp_path):
    write_training(tmp_path)
    page = Page(write_run_report(tmp_path))
    assert set(page.images) == {"learning_curves.png"}
    assert page.text.count("Not evaluated") == 7 and "No recipe" in page.text


def test_the_newest_complete_checkpoint_stands_in_for_the_run(tmp_path):
    for step, fusion in ((9, "concat"), (100, "sum"), (20, "gated"), (300, "visual")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        write_training(tmp_path / f"checkpoint-{step}", fusion=fusion)
        save_file({"weight": torch.zeros(1)}, tmp_path / f"checkpoint-{step}" / "model.safetensors")
    (tmp_path / "checkpoint-best").mkdir()
    # Training would not resume from it, either.
    (tmp_path / "checkpoint-300" / "model.safetensors").write_bytes(b"cut off")
    assert "fusion sum" in Page(write_run_report(tmp_path)).text


def test_an_evaluation_without_its_run(run, tmp_path):
    (tmp_path / "empty").mkdir()
    page = Page(write_run_report(tmp_path / "empty", run / "evaluation", tmp_path / "page"))
    assert set(page.images) == PICTURES - {"learning_curves.png"} | {"strips/v0_0.png"}
    assert "No curves: trainer_state.json is missing" in page.text and "config.json is missing" in page.text


def test_scores_without_labels(tmp_path):
    write_files(tmp_path, make_evaluation(np.full(NUM_CLIPS, -1)))
    page = Page(write_run_report(tmp_path, tmp_path))
    assert set(page.images) == {"gates.png", "strips/v0_0.png"}
    assert "No label: the 40 clips were scored" in page.text and "by predicted class" in page.images["gates.png"]


@pytest.mark.parametrize("name", ["per_class.csv", "per_group.csv", "confusion_matrix.csv", "calibration.csv"])
def test_a_missing_table_is_said(run, tmp_path, name):
    folder = shutil.copytree(run / "evaluation", tmp_path / "evaluation")
    (folder / name).unlink()
    text = Page(write_run_report(run, folder)).text
    assert f"{name} is missing" in text


def test_scores_without_a_gate(run, tmp_path):
    write_files(tmp_path, dataclasses.replace(make_evaluation(), gate_means=None))
    page = Page(write_run_report(run, tmp_path))
    assert "gates.png" not in page.images and "no gate" in page.text


def test_pictures_of_an_earlier_report_are_removed(run, tmp_path):
    write_files(tmp_path, make_evaluation())
    write_run_report(run, tmp_path)
    write_files(tmp_path, make_evaluation(np.full(NUM_CLIPS, -1)))
    write_run_report(run, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"gates.png", "learning_curves.png"}


def test_folders_and_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetFormatError, match="nothing: no such folder"):
        write_run_report(tmp_path / "nothing")
    with pytest.raises(DatasetFormatError, match="nothing: no such folder"):
        write_run_report(tmp_path, tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DatasetFormatError, match=r"config\.json: not valid JSON"):
        write_run_report(tmp_path)


def test_import_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for module in ("clipmg_hf.run_report", "clipmg_hf.run_plots"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=r'run_report needs matplotlib and Pillow .*"clipmg_hf\[viz\]"'):
        importlib.import_module("clipmg_hf.run_report")
