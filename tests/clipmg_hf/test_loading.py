"""Any folder is told from its files, described, and loaded."""

import json

import datasets
import pytest
from typer.testing import CliRunner

from clipmg_hf.cli import app
from clipmg_hf.data import DatasetFormatError, describe_folder, load_clips
from clipmg_hf.data.loading import detect_dataset, load_named_splits
from clipmg_hf.data.prepare import PrepareConfig, prepare_dataset
from clipmg_hf.data.synthetic_layouts import write_layout


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each data set, and the first one prepared."""
    root = tmp_path_factory.mktemp("folders")
    folders = {
        name: write_layout(root / name, layout)
        for name, layout in (("imigue", "oulu"), ("smg", "smg"), ("ma52", "ma52"))
    }
    rows = load_clips(folders["imigue"], cache_dir=root / "cache")
    prepare_dataset(rows, root / "prepared", PrepareConfig(), source={"dataset": "imigue"}, show_progress=False)
    return {**folders, "prepared": root / "prepared", "cache": root / "cache"}


@pytest.mark.parametrize("name", ["imigue", "smg", "ma52", "prepared"])
def test_each_folder_is_told_described_and_loaded(folders, name):
    assert detect_dataset(folders[name]) == name
    description = describe_folder(folders[name])
    counts = {part.name: part.num_clips for part in description.parts if part.name != "all"}
    assert counts == {"train": 20, "validation": 10, "test": 10}
    rows = load_clips(folders[name], cache_dir=folders["cache"])
    assert {split: len(part) for split, part in rows.items()} == counts


def test_prepared_data_has_fixed_splits(folders):
    with pytest.raises(ValueError, match=r"prepared data has fixed clips and splits; expected no protocol"):
        load_clips(folders["prepared"], protocol="folds")


def test_splits_by_name(folders):
    # Training always has a seed; where nothing is drawn, it is no option.
    rows = load_named_splits(folders["prepared"], ["validation"], split_seed=3)
    assert {split: len(part) for split, part in rows.items()} == {"validation": 10}
    with pytest.raises(ValueError, match="expected no seed, validation"):
        load_named_splits(folders["prepared"], ["validation"], validation=0.5, split_seed=3)
    with pytest.raises(DatasetFormatError, match=r"has no split 'dev'; it has train, validation, test\. Expected one"):
        load_named_splits(folders["prepared"], ["train", "dev"])


def test_a_folder_of_nothing_says_what_was_expected(tmp_path):
    with pytest.raises(
        DatasetFormatError, match=r"no iMiGUE data found; expected folders named imigue_skeleton_train"
    ):
        describe_folder(tmp_path)


@pytest.mark.parametrize("name", ["imigue", "prepared"])
def test_the_command_prints_the_counts(folders, name):
    result = CliRunner().invoke(app, ["data", str(folders[name])], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "train" in result.stdout
    assert "validation" in result.stdout
    as_json = CliRunner().invoke(app, ["data", str(folders[name]), "--json"])
    parts = json.loads(as_json.stdout)["parts"]
    assert {part["name"]: part["num_clips"] for part in parts}["train"] == 20


def test_the_command_writes_the_report(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    result = CliRunner().invoke(
        app, ["data", str(folders["prepared"]), "--report", str(tmp_path / "report"), "--quiet"]
    )
    # What --quiet switches off holds for the process, which is that of the other tests.
    datasets.enable_progress_bars()
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report" / "index.html").is_file()


def test_the_command_lists_the_problems(tmp_path):
    root = write_layout(tmp_path / "miga", "miga", rgb=False)
    labels = next(root.rglob("0001_label.csv"))
    labels.write_text("77,1,2\n3,b,5\n5,1,9\n")
    result = CliRunner().invoke(app, ["data", str(root)])
    assert result.exit_code == 1
    assert "2 problems" in result.stderr
    assert "class 77 is unknown" in result.stderr
    skipped = CliRunner().invoke(app, ["data", str(root), "--on-error", "skip", "--json"])
    assert len(json.loads(skipped.stdout)["skipped"]) == 2


def test_several_data_sets_in_a_folder_are_told_apart(folders):
    with pytest.raises(
        DatasetFormatError, match=r"several data sets, imigue \(imigue/.*smg \(smg/.*expected the folder of"
    ):
        describe_folder(folders["imigue"].parent)


def test_packs_and_unfinished_folders_are_told(tmp_path):
    write_layout(tmp_path / "pyskl", "pyskl")
    with pytest.raises(DatasetFormatError, match=r"holds pickles such as .*`clipmg_hf.data.load_pyskl`"):
        describe_folder(tmp_path / "pyskl")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".unfinished.json").write_text("{}")
    with pytest.raises(DatasetFormatError, match=r"prepare_dataset has not finished here"):
        describe_folder(tmp_path / "half")


def test_what_is_assumed_is_said_once(tmp_path, caplog):
    root = write_layout(tmp_path / "miga", "miga", rgb=False)
    rows = load_clips(root, cache_dir=tmp_path / "cache", protocol="cross_subject")
    for note in ("subjects: the packs do not name them", "frames without RGB: 1280 x 720 pixels"):
        assert note in rows["train"].info.description
        assert caplog.text.count(note) == 1
    load_clips(root, cache_dir=tmp_path / "cache", protocol="cross_subject")
    assert caplog.text.count("subjects: the packs do not name them") == 1
    with pytest.raises(ValueError, match="num_proc is 0; expected at least 1"):
        load_clips(root, num_proc=0)
