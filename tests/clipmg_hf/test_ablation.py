"""The matrix of ablations: what is run, what is not run again, and the table."""

import json

import pytest

from clipmg_hf import ablation
from clipmg_hf.ablation import VARIANTS, RunResult, compare_with_full, format_table, run_ablation
from clipmg_hf.arguments import parse_arguments
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset


# Stands in for the training script: writes down how it was called, and metrics that depend on the seed.
STAND_IN = """
import json, pathlib, sys

words = sys.argv[1:]
value = {word[2:]: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
folder = pathlib.Path(value["output_dir"])
with (folder.parent.parent / "calls.txt").open("a") as calls:
    print(*words, file=calls)
if value.get("fusion") == "sum" and not (folder.parent.parent / "repaired").exists():
    sys.exit("no memory left")
metrics = {"eval_top1": 0.5 + int(value["seed"]) / 10, "eval_mean_class_accuracy": 0.4, "eval_macro_f1": 0.3}
(folder / "all_results.json").write_text(json.dumps(metrics))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(ablation, "TRAIN_SCRIPT", script)
    monkeypatch.chdir(tmp_path)
    for name in "cd":
        (tmp_path / f"{name}.yaml").write_text(f"run_name: {name}\n")
    return tmp_path / "runs"


def calls(folder):
    return (folder / "calls.txt").read_text().splitlines()


def test_every_variant_runs_with_every_seed_once(stand_in):
    arguments = ("c.yaml", stand_in, [0, 1], ["full", "no_pose"], ["--data_dir", "d"])
    results = run_ablation(*arguments)
    assert [(result.variant, result.seed) for result in results] == [
        ("full", 0),
        ("no_pose", 0),
        ("full", 1),
        ("no_pose", 1),
    ]
    assert [result.metrics["eval_top1"] for result in results] == [0.5, 0.5, 0.6, 0.6]
    assert all(line.startswith("c.yaml --data_dir d") for line in calls(stand_in))
    assert ["--fusion visual" in line for line in calls(stand_in)] == [False, True, False, True]
    assert run_ablation(*arguments) == results
    assert len(calls(stand_in)) == 4


def test_a_failed_run_is_named_and_tried_again(stand_in):
    arguments = ("c.yaml", stand_in, [0], ["full", "sum"])
    with pytest.raises(RuntimeError, match=r"sum/seed0/log\.txt: the run ended with status 1:\nno memory left"):
        run_ablation(*arguments)
    (stand_in / "repaired").touch()
    assert len(run_ablation(*arguments)) == 2
    assert len(calls(stand_in)) == 3


def test_runs_of_other_arguments_do_not_mix(stand_in):
    run_ablation("c.yaml", stand_in, [0], ["full"])
    with pytest.raises(ValueError, match=r"holds runs of .*'run_name': 'c'.*; expected .*'run_name': 'd'"):
        run_ablation("d.yaml", stand_in, [0], ["full"])
    with pytest.raises(ValueError, match=r"variants: fulll unknown; expected some of full, no_pose"):
        run_ablation("c.yaml", stand_in, [0], ["fulll"])


def results_of(**top1):
    return [
        RunResult(name, seed, {"eval_top1": value, "eval_mean_class_accuracy": 0.5, "eval_macro_f1": 0.25})
        for name, values in top1.items()
        for seed, value in enumerate(values)
    ]


def test_the_table_has_means_spreads_and_the_papers_numbers():
    table = format_table(results_of(full=[0.8, 0.9, 1.0], no_pose=[0.5]))
    rows = [line.split(" | ") for line in table.splitlines()]
    assert rows[2] == ["| full model", "90.0 ± 10.0", "50.0 ± 0.0", "25.0 ± 0.0", "80.0, 90.0, 100.0", "61.82 |"]
    assert rows[3][1] == "50.0"
    assert "45.30" in table and "Seeds: 0, 1, 2." in table


def test_the_comparison_asks_for_more_than_the_spread():
    lines = compare_with_full(results_of(full=[0.8, 0.9], no_pose=[0.5, 0.5], concat=[0.83, 0.83], sum=[0.2]))
    assert lines == [
        "full against no_pose: +35.0 points, spread 7.1: above by more than the spread.",
        "full against concat: +2.0 points, spread 7.1: NOT above by more than the spread.",
    ]


@pytest.mark.parametrize("config_file", ["synthetic", "synthetic_frozen", "imigue_full"])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_an_argument_of_the_training_script(name, config_file, tmp_path):
    words = [*VARIANTS[name].overrides, *ablation.FIXED_OVERRIDES, "--output_dir", str(tmp_path), "--use_cpu", "true"]
    words += ["--bf16", "false"]
    path = f"hub_scripts/configs/{config_file}.yaml"
    arguments, full = parse_arguments([path, *words]), parse_arguments([path, *words[len(VARIANTS[name].overrides) :]])
    assert (arguments.config != full.config) == (name != "full")


@pytest.mark.slow
def test_the_real_script_trains_a_variant(tmp_path):
    config = SyntheticConfig(
        num_train_subjects=1, num_validate_subjects=1, num_test_subjects=0, clips_per_video=8, width=160, height=90
    )
    data = generate_dataset(tmp_path / "data", config, show_progress=False)
    overrides = ["--data_dir", str(data), "--max_steps", "1", "--save_strategy", "no", "--report_to", "none"]
    overrides += ["--use_cpu", "true", "--data_cache_dir", str(tmp_path / "cache"), "--dataloader_num_workers", "0"]
    overrides += ["--dataloader_persistent_workers", "false"]
    config_file = "hub_scripts/configs/synthetic.yaml"
    (result,) = run_ablation(config_file, tmp_path / "runs", [3], ["pose_only"], overrides)
    assert 0 <= result.metrics["eval_top1"] <= 1
    saved = json.loads((tmp_path / "runs" / "pose_only" / "seed3" / "config.json").read_text())
    assert saved["fusion"] == "pose"
