"""What a user can cause ends in one message and an exit status; mistakes of ours keep their traceback."""

import errno
import importlib.util
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from clipmg_hf.console import TRACEBACK, run
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.synthetic_layouts import write_layout


def fail_with(error, cause=None):
    def main():
        raise error from cause

    return main


def assert_ends(main, status, message, capsys):
    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("kind", [ValueError, DatasetFormatError, FileNotFoundError, ImportError, FloatingPointError])
def test_errors_of_users_are_one_message(kind, capsys):
    assert_ends(fail_with(kind("no")), 1, "error: no\n", capsys)


@pytest.mark.parametrize("value", ["1", "0", None])
def test_an_error_shows_its_traceback_when_asked_to(value, monkeypatch, capsys):
    monkeypatch.delenv(TRACEBACK, raising=False)
    if value is not None:
        monkeypatch.setenv(TRACEBACK, value)
    with pytest.raises(SystemExit):
        run(fail_with(ValueError("no"), KeyError("why")))
    printed = capsys.readouterr().err
    assert printed.endswith("error: no\n")
    assert ("in main" in printed and "KeyError: 'why'" in printed) == (value == "1") == (printed != "error: no\n")


def test_a_status_is_handed_on_and_none_is_success(capsys):
    assert_ends(lambda: 1, 1, "", capsys)
    assert_ends(lambda: None, None, "", capsys)


def test_an_interruption_says_how_to_go_on(capsys):
    assert_ends(fail_with(KeyboardInterrupt()), 130, "interrupted; run the same command again to go on\n", capsys)


def test_a_reader_that_has_enough_is_no_error():
    script = "from clipmg_hf.console import run; run(lambda: print('line\\n' * 100_000))"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_mistakes_of_ours_are_not_hidden():
    for error in (RuntimeError("a bug"), datasets.exceptions.DatasetGenerationError("a bug")):
        with pytest.raises(type(error), match="a bug"):
            run(fail_with(error))


def test_the_error_behind_that_of_datasets_is_told(capsys):
    hiding = datasets.exceptions.DatasetGenerationError("An error occurred")
    assert_ends(fail_with(hiding, ValueError("row 3")), 1, "error: row 3\n", capsys)


def test_a_full_disk_says_where_the_cache_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    hint = f"; converted data goes to {tmp_path}: expected room and permission to write there, or HF_HOME set to"
    full = OSError(errno.ENOSPC, "No space left on device")
    hiding = datasets.exceptions.DatasetGenerationError("An error occurred")
    for main in (fail_with(full), fail_with(hiding, full), fail_with(OSError(errno.EROFS, "no", str(tmp_path / "a")))):
        with pytest.raises(SystemExit):
            run(main)
        assert hint in capsys.readouterr().err
    elsewhere = OSError(errno.ENOSPC, "No space left on device", "/out")
    assert_ends(fail_with(elsewhere), 1, "error: [Errno 28] No space left on device: '/out'\n", capsys)


@pytest.fixture
def imigue_script(monkeypatch):
    path = Path(__file__).parents[2] / "hub_scripts" / "imigue.py"
    spec = importlib.util.spec_from_file_location("imigue_script", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["imigue.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run(module.main)
        return end.value.code

    return call


def test_the_data_set_script_refuses_in_words(imigue_script, tmp_path, capsys):
    assert imigue_script("--data_dir", tmp_path / "nowhere") == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")
    assert imigue_script("--data_dir", tmp_path, "--name", "offline") == 2
    assert imigue_script("--data_dir", tmp_path, "--protocol", "random") == 2


def test_the_data_set_script_leaves_out_what_is_wrong(imigue_script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = write_layout(tmp_path / "miga", "miga", rgb=False)
    next(root.rglob("0001_label.csv")).write_text("77,1,2\n3,4,5\n5,6,9\n")
    assert imigue_script("--data_dir", root) == 1
    assert "class 77 is unknown" in capsys.readouterr().err
    assert imigue_script("--data_dir", root, "--on_error", "skip", "--load") is None
    printed = capsys.readouterr().out
    assert "skipped" in printed and "class 77 is unknown" in printed and "DatasetDict" in printed
