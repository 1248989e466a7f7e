"""The commands that evaluate a checkpoint and fuse scores, from their arguments to their files."""

import csv
import dataclasses
import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.arguments import parse_arguments
from clipmg_hf.data import DatasetFormatError, load_clips
from clipmg_hf.data.labels import IMIGUE_GROUPS, MA52_GROUPS
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.data.synthetic_layouts import write_layout
from clipmg_hf.evaluation_results import measure
from clipmg_hf.experiment import load_splits
from clipmg_hf.export import export_model
from clipmg_hf.inference import load_model
from clipmg_hf.metrics import bootstrap_intervals, f1_mean
from clipmg_hf.score_files import fuse_scores, read_scores


TINY = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "num_frames": 2,
    "pose_frames_per_frame": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}
RESULTS = {
    *("metrics.json", "scores.parquet", "clips.csv", "per_class.csv", "per_group.csv"),
    *("confusion_matrix.csv", "calibration.csv"),
}


def load_script(name: str, monkeypatch):
    """Import a script of `hub_scripts`."""
    path = Path(__file__).parents[2] / "hub_scripts" / f"{name}.py"
    # Not under its own name: `evaluate` is a library, too.
    spec = importlib.util.spec_from_file_location(f"{name}_script", path)
    script = importlib.util.module_from_spec(spec)
    # Dataclasses look their annotations up there.
    monkeypatch.setitem(sys.modules, spec.name, script)
    spec.loader.exec_module(script)
    return script


def run_script(name: str, monkeypatch, **options) -> None:
    """Run a script's `main` with options; a list gives several values."""
    script = load_script(name, monkeypatch)
    words = [f"{name}.py"]
    for option, value in options.items():
        words += [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
    monkeypatch.setattr(sys, "argv", words)
    script.main()


def save_model(folder: Path, seed: int = 0, **values) -> Path:
    config = CLIPMGConfig(**{**TINY, **values})
    torch.manual_seed(seed)
    model = CLIPMGForMicroGestureClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder)
    CLIPMGProcessor.from_model_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def pack(root):
    config = SyntheticConfig(
        seed=6,
        num_train_subjects=1,
        num_validate_subjects=2,
        num_test_subjects=1,
        clips_per_video=6,
        max_clip_frames=20,
        max_gap_frames=4,
        width=160,
        height=90,
    )
    return generate_dataset(root / "pack", config, show_progress=False)


@pytest.fixture(scope="module")
def common(root, pack):
    model = save_model(root / "model")
    return {"model": model, "data_dir": pack, "data_cache_dir": root / "cache", "device": "cpu"}


def test_everything_that_is_promised_is_written(common, root, tmp_path, monkeypatch, capsys):
    output = tmp_path / "evaluation"
    options = {"num_views": 2, "flip": True, "bootstrap_samples": 40, "num_hardest": 2, "num_right": 1}
    run_script("evaluate", monkeypatch, **common, output_dir=output, **options, submission="2023", report=True)
    assert RESULTS | {"strips.csv", "submission.csv", "report.html"} <= {path.name for path in output.iterdir()}
    content = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    scores = read_scores(output / "scores.parquet")
    expected = bootstrap_intervals(
        scores.logits, scores.labels, scores.video_ids, num_samples=40, groups=IMIGUE_GROUPS
    )
    assert content["metrics"] == expected
    rows = load_clips(common["data_dir"], cache_dir=common["data_cache_dir"])["validation"]
    assert scores.clip_ids == rows["clip_id"] and scores.labels.tolist() == rows["label"] and scores.views == 4
    assert content["data"]["fingerprint"] == scores.data_fingerprint == rows._fingerprint
    assert content["data"]["description"] and len(content["checkpoint"]["weights_sha256"]["model.safetensors"]) == 64
    assert content["options"]["num_views"] == 2 and content["options"]["device"] == "cpu"
    assert content["f1_mean"] is None and content["bootstrap"]["unit"] == "video"
    submission = (output / "submission.csv").read_text().splitlines()
    assert len(submission) == 12 and re.fullmatch(r"\d+_0,\d+", submission[0])
    page = (output / "report.html").read_text(encoding="utf-8")
    for file in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert (output / file).is_file()
    printed = capsys.readouterr().out
    assert f"{100 * expected['top1']['value']:.1f} %" in printed and "interval by video" in printed


def test_an_export_is_measured_as_its_checkpoint(common, root, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    model, processor = load_model(common["model"], "cpu")
    export_model(model, processor, tmp_path / "onnx")
    outputs = tmp_path / "torch_scores", tmp_path / "onnx_scores"
    options = {"modality": "rgb", "flip": True, "num_hardest": 1, "num_right": 0}
    run_script("evaluate", monkeypatch, **common, output_dir=outputs[0], **options)
    exported = {**common, "model": tmp_path / "onnx", "backend": "onnx"}
    run_script("evaluate", monkeypatch, **exported, output_dir=outputs[1], **options)
    expected, found = (read_scores(output / "scores.parquet") for output in outputs)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
    gates = [
        [row["gate_mean"] for row in csv.DictReader((output / "clips.csv").read_text().splitlines())]
        for output in outputs
    ]
    np.testing.assert_allclose(*(np.array(values, float) for values in gates), atol=1e-5)
    content = json.loads((outputs[1] / "metrics.json").read_text(encoding="utf-8"))
    assert content["options"]["backend"] == "onnx" and content["options"]["device"] == "CPUExecutionProvider"
    assert {"model.onnx", "weights.bin"} <= content["checkpoint"]["weights_sha256"].keys()
    assert len(list((outputs[1] / "strips").iterdir())) == 1
    with pytest.raises(ValueError, match="expected float32"):
        run_script("evaluate", monkeypatch, **exported, output_dir=tmp_path, dtype="bfloat16")


def test_only_the_same_evaluation_is_replaced(common, root, tmp_path, monkeypatch):
    options = {"output_dir": tmp_path, "num_hardest": 0, "num_right": 0, "bootstrap_samples": 10}
    run_script("evaluate", monkeypatch, **common, **options)
    before = (tmp_path / "scores.parquet").read_bytes()
    run_script("evaluate", monkeypatch, **common, **options)
    other = {**common, "model": save_model(root / "other", seed=1)}
    with pytest.raises(ValueError, match=r"another evaluation \(other checkpoint\); .*--overwrite_output_dir true"):
        run_script("evaluate", monkeypatch, **other, **options)
    with pytest.raises(ValueError, match=r"another evaluation \(other options\)"):
        run_script("evaluate", monkeypatch, **common, **options, modality="rgb")
    with pytest.raises(ValueError, match=r"another evaluation \(other data\)"):
        run_script("evaluate", monkeypatch, **common, **options, split="train")
    assert (tmp_path / "scores.parquet").read_bytes() == before
    run_script("evaluate", monkeypatch, **other, **options, overwrite_output_dir=True)
    assert (tmp_path / "scores.parquet").read_bytes() != before


def test_a_split_without_labels_gives_a_submission(common, tmp_path, monkeypatch, capsys):
    run_script("evaluate", monkeypatch, **common, output_dir=tmp_path, split="test", submission="2025", num_hardest=0)
    scores = read_scores(tmp_path / "scores.parquet")
    if (scores.labels >= 0).any():
        pytest.fail("the synthetic test pack shows its labels; expected hidden ones")
    assert {path.name for path in tmp_path.iterdir()} >= {"metrics.json", "scores.parquet", "submission.csv"}
    assert not (tmp_path / "per_class.csv").exists()
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0] == "Id,Target" and len(lines) == 1 + len(scores.clip_ids)
    assert "No label" in capsys.readouterr().out


def test_a_single_stream(common, tmp_path, monkeypatch):
    for modality in ("both", "rgb", "pose"):
        options = {"output_dir": tmp_path / modality, "modality": modality, "num_hardest": 0, "num_right": 0}
        run_script("evaluate", monkeypatch, **common, **options)
    both, rgb, pose = (read_scores(tmp_path / name / "scores.parquet") for name in ("both", "rgb", "pose"))
    assert abs(both.logits - rgb.logits).max() > 1e-3 and abs(both.logits - pose.logits).max() > 1e-3
    counts = json.loads((tmp_path / "pose" / "metrics.json").read_text())["counts"]
    assert (counts["clips_without_video"], counts["clips_without_pose"]) == (12, 0)


def test_the_metric_of_ma52_with_its_groups(common, root, tmp_path, monkeypatch, capsys):
    folder = write_layout(tmp_path / "ma52", "ma52")
    names = load_clips(folder, cache_dir=common["data_cache_dir"])["validation"].features["label"].names
    model = save_model(tmp_path / "model", id2label=dict(enumerate(names)))
    options = {"num_hardest": 0, "num_right": 0, "output_dir": tmp_path / "evaluation"}
    run_script("evaluate", monkeypatch, **{**common, "model": model, "data_dir": folder}, **options)
    content = json.loads((tmp_path / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    scores = read_scores(tmp_path / "evaluation" / "scores.parquet")
    assert content["f1_mean"] == f1_mean(scores.labels, scores.logits.argmax(axis=1), MA52_GROUPS)
    assert content["classes"]["groups"] == list(MA52_GROUPS) and "f1 mean (MA-52)" in capsys.readouterr().out
    # The names do not tell the groups; the file beside the scores does.
    fused = {"scores": [tmp_path / "evaluation" / "scores.parquet"], "output_dir": tmp_path / "fused"}
    run_script("fuse_scores", monkeypatch, **fused)
    fused_content = json.loads((tmp_path / "fused" / "metrics.json").read_text(encoding="utf-8"))
    assert fused_content["f1_mean"] == content["f1_mean"]


def test_refusals(common, tmp_path, monkeypatch):
    with pytest.raises(DatasetFormatError, match=r"no split 'dev'; it has train, validation, test"):
        run_script("evaluate", monkeypatch, **common, output_dir=tmp_path, split="dev")
    other = save_model(tmp_path / "other", id2label={0: "nod", 1: "wave"})
    with pytest.raises(DatasetFormatError, match=r"other has 2 classes, the data 32; .*checkpoint: 'nod', 'wave'"):
        run_script("evaluate", monkeypatch, **{**common, "model": other}, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fusion_of_runs(common, root, tmp_path, monkeypatch, capsys):
    files = []
    for seed in (0, 1):
        model, output = save_model(tmp_path / f"model_{seed}", seed), tmp_path / f"evaluation_{seed}"
        options = {"output_dir": output, "num_hardest": 0, "num_right": 0}
        run_script("evaluate", monkeypatch, **{**common, "model": model}, **options)
        files.append(output / "scores.parquet")
    options = {"weights": [2, 1], "bootstrap_samples": 30, "submission": "2025", "output_dir": tmp_path / "fused"}
    run_script("fuse_scores", monkeypatch, scores=files, **options)
    expected = fuse_scores(files, [2, 1])
    content = json.loads((tmp_path / "fused" / "metrics.json").read_text(encoding="utf-8"))
    assert content["metrics"] == measure(expected, IMIGUE_GROUPS, 30).metrics
    assert content["late_fusion"] == {"scores": list(map(str, files)), "weights": [2.0, 1.0], "kind": "probabilities"}
    np.testing.assert_array_equal(read_scores(tmp_path / "fused" / "scores.parquet").logits, expected.logits)
    assert RESULTS | {"submission.csv"} == {path.name for path in (tmp_path / "fused").iterdir()}
    assert "0.6667 x" in capsys.readouterr().out


def test_the_split_is_the_one_of_the_training_run(pack, tmp_path, monkeypatch):
    evaluate_script = load_script("evaluate", monkeypatch)
    expected = {
        **{"protocol": "cross_subject", "validation": 0.2, "split_seed": 3, "fold": None},
        "background_share": 0.1,
    }
    record = {"data": expected}
    (tmp_path / "experiment.json").write_text(json.dumps(record))

    def resolve(**given):
        arguments = {"model": str(tmp_path), "data_dir": str(pack), "output_dir": "out", **given}
        return evaluate_script.resolve_split(evaluate_script.EvaluateArguments(**arguments))

    assert resolve() == resolve(protocol="cross_subject") == expected
    with pytest.raises(ValueError, match=r"protocol is 'miga', but .*experiment\.json says .* 'cross_subject'"):
        resolve(protocol="miga")
    assert resolve(protocol="miga", other_split=True)["protocol"] == "miga"
    # The folder of an export has no record of its own.
    assert resolve(model=str(tmp_path / "onnx"), run_dir=str(tmp_path)) == expected
    (tmp_path / "experiment.json").unlink()
    assert set(resolve().values()) == {None}


@pytest.mark.parametrize("how", [{}, {"validation": "0.5", "split_seed": "1"}])
def test_training_and_evaluation_read_the_same_clips(common, tmp_path, monkeypatch, how):
    evaluate_script = load_script("evaluate", monkeypatch)
    data = {"data_dir": str(common["data_dir"]), "data_cache_dir": str(common["data_cache_dir"])}
    given = {"output_dir": str(tmp_path), "eval_strategy": "epoch", "use_cpu": "true", **data, **how}
    arguments = parse_arguments([f"--{name}={value}" for name, value in given.items()])
    (tmp_path / "experiment.json").write_text(json.dumps({"data": dataclasses.asdict(arguments.data)}))
    trained = load_splits(arguments)
    args = evaluate_script.EvaluateArguments(model=str(tmp_path), output_dir="out", **data)
    rows, facts = evaluate_script.load_split(args)
    assert rows["clip_id"] == trained.evaluation["clip_id"] != trained.train["clip_id"]
    assert {name: str(facts["settings"][name]) for name in how} == how
