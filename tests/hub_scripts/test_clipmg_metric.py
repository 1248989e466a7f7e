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
from clipmg_hf.metric_space import FILES, FORMULAS_COPY, METRIC_NAME, write_metric_space
from clipmg_hf.metrics import bootstrap_intervals, classification_metrics


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
    return {
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


def test_the_metric_equals_the_package(results, case):
    scores, labels, videos = np.array(case["scores"]), np.array(case["labels"]), case["videos"]
    plain = classification_metrics(scores, labels)
    grouped = classification_metrics(scores, labels, GROUPS)
    intervals = bootstrap_intervals(scores, labels, videos, groups=GROUPS, **SAMPLING)
    of_classes = {name: value for name, value in grouped.items() if name not in ("top5", "nll")}
    without_groups = {name: value for name, value in of_classes.items() if name != "group_accuracy"}
    expected = {
        "scores": plain,
        "groups": grouped,
        "videos": with_bounds(grouped, intervals),
        "classes": of_classes,
        "classes and videos": with_bounds(without_groups, intervals),
        "batches": plain,
        "batches of videos": with_bounds(plain, intervals),
    }
    found = {name: value for name, value in results[0].items() if name not in ("errors", "two processes")}
    assert found == {name: pytest.approx(values, abs=1e-12) for name, values in expected.items()}


def test_bad_input_is_named(results):
    assert results[0]["errors"] == [
        "Clips have [1, 2] scores; expected as many of each clip as there are classes.",
        "Labels must lie in 0..1, got -1..0. 1 of 2 clips have no label (negative): leave them out.",
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
    expected = with_bounds(classification_metrics(scores, labels), intervals)
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
