"""A run that goes on keeps to its record, and data that was prepared keeps to how it was split."""

import json
import shutil

import pytest
from tiny_models import TINY, command_line

from clipmg_hf.arguments import parse_arguments
from clipmg_hf.data import load_clips
from clipmg_hf.data.prepare import prepare_dataset
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.experiment import load_splits, prepare_experiment, run_experiment
from clipmg_hf.run_record import check_resumed, plan_steps, public_record


# 8 training clips, 2 steps an epoch.
RUN = {
    **TINY, "per_device_train_batch_size": 4, "max_steps": 2, "save_steps": 1, "save_strategy": "steps",
    "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Synthetic iMiGUE, raw and prepared, and the folder of a finished run."""
    root = tmp_path_factory.mktemp("record")
    config = SyntheticConfig(
        seed=6, num_train_subjects=2, num_validate_subjects=0, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    generate_dataset(root / "raw", config, show_progress=False)
    split = {"protocol": "cross_subject", "validation": 0.5, "seed": 3, "num_folds": 5, "fold": 0}
    rows = load_clips(root / "raw", cache_dir=str(root / "cache"), **split)
    source = {"dataset": "imigue", "description": rows["train"].info.description.splitlines(), **split}
    prepare_dataset(rows, root / "prepared", None, 1, source, show_progress=False)
    run_experiment(prepare_experiment(parse(root, root / "run")))
    return root


def parse(folders, output_dir, data="prepared", **values):
    given = {"data_dir": folders / data, "data_cache_dir": folders / "cache", "output_dir": output_dir}
    return parse_arguments(command_line({**given, **RUN, **values}))


def test_a_prepared_folder_counts_as_the_data_set_that_it_was_made_of(folders, tmp_path):
    asked = {"dataset": "imigue", "protocol": "cross_subject", "validation": 0.5, "eval_strategy": "epoch"}
    splits = load_splits(parse(folders, tmp_path, **asked))
    raw = load_splits(parse(folders, tmp_path, "raw", **asked, split_seed=3))
    assert splits.train["clip_id"] == raw.train["clip_id"]
    assert splits.evaluation["clip_id"] == raw.evaluation["clip_id"]
    expected = {
        **{"protocol": "cross_subject", "validation": 0.5, "split_seed": 3, "fold": 0},
        "background_share": 0.0,
    }
    assert splits.settings == expected and load_splits(parse(folders, tmp_path)).settings == expected
    record = json.loads((folders / "run" / "experiment.json").read_text())["data"]
    assert {name: record[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dataset": "smg"}, r"holds prepared clips of 'imigue', says its manifest\.json; expected 'smg'"),
        ({"protocol": "miga"}, r"prepared with protocol='cross_subject', .* and 'miga' is asked for"),
        ({"validation": 0.2}, r"prepared with validation=0\.5, .* and 0\.2 is asked for; .*--validation null"),
        ({"protocol": "cross_subject", "split_seed": 0}, r"prepared with split_seed=3, .* and 0 is asked for"),
        ({"protocol": "folds", "fold": 1}, r"prepared with protocol='cross_subject', .* and 'folds' is asked for"),
    ],
)
def test_prepared_data_that_was_split_otherwise_is_refused(folders, tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        load_splits(parse(folders, tmp_path, **asked))


def test_the_official_way_has_its_name_also_where_it_was_not_given(folders, tmp_path):
    shutil.copytree(folders / "prepared", tmp_path / "prepared")
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    manifest["source"] |= {"protocol": "", "validation": None}
    (tmp_path / "prepared" / "manifest.json").write_text(json.dumps(manifest))
    given = {"data_dir": tmp_path / "prepared", "data_cache_dir": tmp_path}
    assert load_splits(parse(folders, tmp_path, **given, protocol="miga")).settings["protocol"] == "miga"
    with pytest.raises(ValueError, match="prepared with protocol='miga'"):
        load_splits(parse(folders, tmp_path, **given, protocol="cross_subject"))
    manifest["source"] |= {"protocol": "cross_subject"}
    (tmp_path / "prepared" / "manifest.json").write_text(json.dumps(manifest))
    asked = {"protocol": "cross_subject", "validation": 0.2}
    assert load_splits(parse(folders, tmp_path, **given, **asked)).settings["validation"] == 0.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 1e-2}, r"learning_rate was 0\.001 and is 0\.01"),
        ({"hidden_dropout_prob": 0.3}, r"hidden_dropout_prob was None and is 0\.3"),
        ({"per_device_train_batch_size": 2}, "clips_per_step was 4 and is 2"),
        ({"label_smoothing": 0.1, "seed": 1}, r"label_smoothing was 0\.0 and is 0\.1; seed was 42 and is 1"),
        ({"crop_padding": 0.3}, r"crop_padding was None and is 0\.3"),
        ({"max_train_clips": 4}, "max_train_clips was None and is 4; the train clips were 8 and are 4"),
        ({"max_steps": 1}, "the steps were 2 and are 1, fewer"),
    ],
)
def test_what_the_result_depends_on_may_not_change(folders, values, message):
    before = (folders / "run" / "experiment.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        prepare_experiment(parse(folders, folders / "run", resume_from_checkpoint="last", **values))
    assert (folders / "run" / "experiment.json").read_bytes() == before


def test_where_it_runs_and_how_long_may_change(folders, tmp_path):
    run = shutil.copytree(folders / "run", tmp_path / "run")
    data = shutil.copytree(folders / "prepared", tmp_path / "moved")
    values = {
        "max_steps": 3, "logging_steps": 1, "save_steps": 2, "per_device_train_batch_size": 2, "data_dir": data,
        "gradient_accumulation_steps": 2, "dataloader_num_workers": 1, "dataset": "imigue",
    }  # fmt: skip
    experiment = prepare_experiment(parse(folders, run, resume_from_checkpoint="last", **values))
    assert experiment.checkpoint == str(run / "checkpoint-2")
    run_experiment(experiment)
    assert json.loads((run / "experiment.json").read_text())["training"]["planned_steps"] == 3
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 3


def test_a_checkpoint_without_a_record_is_not_taken_on_trust(folders, tmp_path):
    shutil.copytree(folders / "run" / "checkpoint-2", tmp_path / "checkpoint-2")
    with pytest.raises(ValueError, match=r"experiment\.json cannot be read .*expected the record of the run"):
        prepare_experiment(parse(folders, tmp_path, resume_from_checkpoint=tmp_path / "checkpoint-2"))


def test_steps_are_planned_as_the_library_does(folders, tmp_path):
    for values in ({"max_steps": 7}, {"max_steps": -1, "num_train_epochs": 1.5}):
        arguments = parse(folders, tmp_path, **values, per_device_train_batch_size=3, gradient_accumulation_steps=2)
        trainer = prepare_experiment(arguments).trainer
        *_, max_steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
        assert plan_steps(arguments, 8) == max_steps


def test_a_record_keeps_no_token_and_is_published_without_places(folders, tmp_path):
    values = {"hub_token": "hf_secret", "clip_cache": tmp_path / "clips"}
    record = prepare_experiment(parse(folders, tmp_path / "new", **values)).record
    assert "hf_secret" not in json.dumps(record) and str(tmp_path) in json.dumps(record)
    public = public_record(record)
    text = json.dumps(public)
    assert str(tmp_path) not in text and str(folders) not in text
    (tmp_path / "experiment.json").write_text(text)
    check_resumed(str(tmp_path / "checkpoint-1"), record)
    assert record["source"]["synthetic"] and record["source"]["title"].startswith("iMiGUE, MiGA packs")
    assert record["hardware"]["type"] == "cpu" and record["hardware"]["name"]
