"""The metric's folder, as strangers use it: offline, and where clipmg_hf cannot be imported."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import clipmg_hf.metrics
from clipmg_hf.data.labels import MA52_GROUPS
from clipmg_hf.evaluation_results import measure
from clipmg_hf.metric_space import FILES, FORMULAS_COPY, METRIC_NAME, write_metric_space
from clipmg_hf.metrics import bootstrap_intervals, calibration, classification_metrics, f1_mean, log_softmax
from clipmg_hf.score_files import Scores


GROUPS = ["head", "head", "hand", "body", "hand", "body"]
SAMPLING = {"num_samples": 60, "confidence": 0.9, "seed": 3}
# Code of the metric's own processes: no clipmg_hf, and the results as one line of JSON.
PREAMBLE = """
import json, sys
sys.modules["clipmg_hf"] = None
import evaluate, numpy as np
folder, case = sys.argv[1], json.load(open(sys.argv[2]))
scores, classes, labels, videos = (case[name] for name in ("scores", "classes", "labels", "videos"))
groups, sampling = case["groups"], case["sampling"]
results = {}
"""
TWO_PROCESSES = """
rank = int(sys.argv[3])
metric = evaluate.load(folder, "videos", num_process=2, process_id=rank, experiment_id="pair")
# Uneven halves: 20 clips and the rest.
half = slice(0, 20) if rank == 0 else slice(20, None)
metric.add_batch(predictions=scores[half], references=labels[half], video_ids=videos[half])
results["two processes"] = metric.compute(**sampling)
if rank:
    print(json.dumps(results))
    sys.exit()
"""
ONE_PROCESS = """
metric = evaluate.load(folder)
results["scores"] = metric.compute(predictions=scores, references=labels)
arrays = {"predictions": np.array(scores, np.float32), "references": np.array(labels)}
results["groups"] = metric.compute(**arrays, groups=groups)
results["videos"] = metric.compute(predictions=scores, references=labels, video_ids=videos, groups=groups, **sampling)
results["classes"] = metric.compute(predictions=classes, references=labels, groups=groups)
arguments = {"groups": case["ma52_groups"], "class_names": case["ma52_names"], "tables": True}
inputs = {"predictions": case["ma52_scores"], "references": labels, "video_ids": videos}
results["MA-52"] = metric.compute(**inputs, **arguments, **sampling)
arguments["predictions"] = np.argmax(case["ma52_scores"], axis=1)
results["classes of MA-52"] = metric.compute(references=labels, **arguments)
del arguments["groups"]
results["names alone"] = metric.compute(references=labels, **arguments)
results["classes and videos"] = metric.compute(predictions=classes, references=labels, video_ids=videos, **sampling)
metric.add(prediction=scores[0], reference=labels[0])
for start in range(1, len(labels), 7):
    metric.add_batch(predictions=scores[start : start + 7], references=labels[start : start + 7])
results["batches"] = metric.compute()
metric = evaluate.load(folder, "videos")
for start in range(0, len(labels), 7):
    part = slice(start, start + 7)
    metric.add_batch(predictions=scores[part], references=labels[part], video_ids=videos[part])
results["batches of videos"] = metric.compute(**sampling)
errors = results["errors"] = []
for config, arguments in (
    ("default", {"predictions": [[1.0, 2.0], [1.0]], "references": [0, 0]}),
    ("default", {"predictions": [[1.0, 2.0], [1.0, 2.0]], "references": [0, -1]}),
    ("default", {"predictions": [-1, 0], "references": [0, 0]}),
    ("default", {"predictions": [0, 2], "references": [0, 0], "groups": ["a", "b"]}),
    ("default", {"predictions": [0, 1], "references": [0, 0], "video_ids": ["a"]}),
    ("videos", {"predictions": [0, 1], "references": [0, 0]}),
    ("audio", {}),
):
    try:
        errors.append(evaluate.load(folder, config).compute(**arguments))
    except ValueError as error:
        errors.append(str(error))
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def case() -> dict:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, size=45)
    scores = rng.normal(size=(45, 6)).astype(np.float32) + 2 * np.eye(6, dtype=np.float32)[labels]
    ma52_scores = 2 * rng.normal(size=(45, 52)) + 5 * np.eye(52)[labels]
    return {
        "ma52_scores": ma52_scores.astype(np.float32).tolist(),
        "ma52_groups": list(MA52_GROUPS),
        "ma52_names": [f"action {label}" for label in range(52)],
        "scores": scores.tolist(),
        "classes": scores.argmax(axis=1).tolist(),
        "labels": labels.tolist(),
        "videos": [f"{v:04d}" for v in rng.integers(0, 8, size=45)],
        "groups": GROUPS,
        "sampling": SAMPLING,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory, case) -> list[dict]:
    """What each of two processes computes with the folder of the metric, away from the repository."""
    home = tmp_path_factory.mktemp("home")
    folder = write_metric_space(home / METRIC_NAME)
    (home / "case.json").write_text(json.dumps(case))
    # Nothing else of this environment: neither its paths nor its caches.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "huggingface"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", PREAMBLE + TWO_PROCESSES + ONE_PROCESS, str(folder), str(home / "case.json")]
    options = {"cwd": home, "env": offline, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen([*command, str(rank)], **options) for rank in range(2)]
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def with_bounds(values: dict, intervals: dict) -> dict:
    bounds = {f"{name}_{end}": intervals[name][end] for name in values for end in ("low", "high")}
    return {**values, **bounds}


def calibration_errors(scores: np.ndarray, labels: np.ndarray) -> dict:
    errors = calibration(np.exp(log_softmax(scores)), labels)
    return {name: errors[name] for name in ("ece", "mce")}


def test_the_metric_equals_the_package(results, case):
    scores, labels, videos = np.array(case["scores"]), np.array(case["labels"]), case["videos"]
    plain = classification_metrics(scores, labels)
    grouped = classification_metrics(scores, labels, GROUPS)
    errors = calibration_errors(scores, labels)
    ma52 = f1_mean(labels, np.array(case["classes"]), GROUPS)
    intervals = bootstrap_intervals(scores, labels, videos, groups=GROUPS, **SAMPLING)
    of_classes = {name: value for name, value in grouped.items() if name not in ("top5", "nll")}
    without_groups = {name: value for name, value in of_classes.items() if name != "group_accuracy"}
    expected = {
        "scores": plain | errors,
        "groups": grouped | errors | ma52,
        "videos": with_bounds(grouped, intervals) | errors | ma52,
        "classes": of_classes | ma52,
        "classes and videos": with_bounds(without_groups, intervals),
        "batches": plain | errors,
        "batches of videos": with_bounds(plain, intervals) | errors,
    }
    for name, values in expected.items():
        assert results[0][name] == pytest.approx(values, abs=1e-12), name


def test_the_metric_gives_what_an_evaluation_gives(results, case):
    scores = Scores(
        clip_ids=[f"clip {index}" for index in range(45)],
        video_ids=case["videos"],
        logits=case["ma52_scores"],
        labels=case["labels"],
        label_names=case["ma52_names"],
        checkpoint="run",
    )
    expected = measure(scores, MA52_GROUPS, **SAMPLING)
    found = dict(results[0]["MA-52"])
    tables = {name: found.pop(name) for name in ("per_class", "per_group", "confusion_matrix", "reliability")}
    for name, table in (
        ("per_class", expected.per_class),
        ("per_group", expected.per_group),
        ("reliability", expected.calibration["bins"]),
    ):
        assert tables[name] == [pytest.approx(row, abs=1e-6) for row in table], name
    assert tables["confusion_matrix"] == expected.confusion.tolist()
    values = {name: metric["value"] for name, metric in expected.metrics.items()}
    errors = {name: expected.calibration[name] for name in ("ece", "mce")}
    assert found == pytest.approx(with_bounds(values, expected.metrics) | errors | expected.f1_mean, abs=1e-6)
    of_classes = results[0]["classes of MA-52"]
    # Classes are no probabilities.
    assert not {"ece", "nll", "top5", "reliability"} & set(of_classes)
    assert of_classes["per_group"] == tables["per_group"]
    assert of_classes["confusion_matrix"] == tables["confusion_matrix"]
    for row in tables["per_class"]:
        del row["mean_true_probability"]
    assert of_classes["per_class"] == results[0]["names alone"]["per_class"] == tables["per_class"]
    assert of_classes["f1_mean"] == found["f1_mean"] and "f1_mean" not in results[0]["names alone"]


def test_bad_input_is_named(results):
    assert results[0]["errors"] == [
        "Clips have [1, 2] scores; expected as many of each clip as there are classes.",
        "Labels must lie in 0..1, got -1..0. 1 of 2 clips have no class (negative): leave them out.",
        "Predicted classes must lie in 0..0, got -1..0.",
        "Predicted classes must lie in 0..1, got 0..2.",
        "video_ids has 1 entries; expected 2.",
        "Evaluation module inputs are missing: ['video_ids']. All required inputs are "
        "['predictions', 'references', 'video_ids']",
        "config_name is 'audio'; expected 'default' or 'videos'.",
    ]


def test_two_processes_give_the_result_of_one(results, case):
    scores, labels = np.array(case["scores"]), np.array(case["labels"])
    intervals = bootstrap_intervals(scores, labels, case["videos"], **SAMPLING)
    expected = with_bounds(classification_metrics(scores, labels), intervals) | calibration_errors(scores, labels)
    assert results[0]["two processes"] == pytest.approx(expected, abs=1e-12)
    assert results[1] == {"two processes": None}


def test_the_folder_is_a_space_with_a_copy_of_the_formulas(tmp_path):
    folder = write_metric_space(tmp_path / "deep" / METRIC_NAME)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, FORMULAS_COPY])
    source = Path(clipmg_hf.metrics.__file__).read_text(encoding="utf-8")
    first_line, _, copy = (folder / FORMULAS_COPY).read_text(encoding="utf-8").partition("\n")
    assert copy == source and first_line.startswith("# Written by clipmg_hf.metric_space")
    assert set(runpy.run_path(str(folder / FORMULAS_COPY))["__all__"]) == set(clipmg_hf.metrics.__all__)
    card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert card["sdk"] == "gradio" and (folder / card["app_file"]).is_file()
    assert {"evaluate", "metric"} <= set(card["tags"])
    requirements = (folder / "requirements.txt").read_text().split()
    assert {line.partition(">=")[0] for line in requirements} == {"datasets", "evaluate", "numpy"}


def test_writing_again_replaces_the_files(tmp_path):
    folder = write_metric_space(tmp_path / METRIC_NAME)
    (folder / FORMULAS_COPY).write_text("old")
    write_metric_space(folder)
    assert (folder / FORMULAS_COPY).read_text() != "old"
    assert len(list(folder.iterdir())) == len(FILES) + 1


def test_a_folder_of_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"expected a {METRIC_NAME}/"):
        write_metric_space(tmp_path / "metric")
    assert not (tmp_path / "metric").exists()
