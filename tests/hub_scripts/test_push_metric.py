"""The metric as a Space: pushed with its owner's name, and loaded from the Hub by `evaluate` alone."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard, constants

from clipmg_hf.hub import PushError
from clipmg_hf.metric_space import FILES, FORMULAS_COPY
from clipmg_hf.metrics import classification_metrics
from clipmg_hf.spaces import push_metric


SCRIPT = Path(__file__).parents[2] / "hub_scripts" / "push_metric.py"
SCORES, LABELS = [[2.0, 0.5, 0.1], [0.3, 0.2, 1.5], [0.9, 1.0, 0.0]], [0, 2, 0]
# From the Hub, and from a downloaded folder.
LOAD = """
import json, sys
sys.modules["clipmg_hf"] = None
import evaluate
scores, labels = json.loads(sys.argv[1])
print(json.dumps([evaluate.load(name).compute(predictions=scores, references=labels) for name in sys.argv[2:]]))
"""


@pytest.fixture
def space(hub) -> str:
    # `evaluate` needs this very name, which on the real Hub may be somebody's: `log` skips the test there.
    assert hub.log == []
    return hub.repository("clipmg_metric", "space")


def test_evaluate_loads_the_metric_from_the_hub_without_the_package(hub, space, run_command, tmp_path):
    push_metric(space, private=True, api=hub.api())
    assert hub.api().space_info(space).private
    copy = Path(hub.api().snapshot_download(space, repo_type="space", local_dir=tmp_path / "clipmg_metric"))
    assert {path.name for path in copy.iterdir() if path.name[0] != "."} == {*FILES, FORMULAS_COPY}
    SpaceCard.load(copy / "README.md").validate()
    for name in FILES:
        assert "<namespace>" not in (copy / name).read_text(encoding="utf-8")
    assert f'evaluate.load("{space}", "videos")' in (copy / "README.md").read_text(encoding="utf-8")

    # It would count the download at another host, and import torch, which takes longer than all the rest.
    environment = {**hub.environment(), "HF_UPDATE_DOWNLOAD_COUNTS": "0", "USE_TORCH": "0"}
    command = [sys.executable, "-c", LOAD, json.dumps([SCORES, LABELS]), space, str(copy)]
    from_hub, from_folder = json.loads(run_command(command, env=environment).stdout.splitlines()[-1])
    assert from_hub == from_folder
    assert {"ece", "mce"} < set(from_hub)
    for name, value in classification_metrics(SCORES, LABELS).items():
        assert from_hub[name] == pytest.approx(value)


@pytest.mark.parametrize("repo_id", ["alice/metrics", "clipmg_metric_2"])
def test_another_name_is_refused(hub, repo_id):
    with pytest.raises(PushError, match="script of the Space's name"):
        push_metric(repo_id, api=hub.api())


def test_an_owner_is_needed(hub):
    with pytest.raises(PushError, match="names no owner"):
        push_metric("clipmg_metric", api=hub.api())


def test_a_second_push_replaces_old_modules(hub, space):
    push_metric(space, api=hub.api())
    for name in ("old_formulas.py", "example.json"):
        hub.api().upload_file(path_or_fileobj=b"1", path_in_repo=name, repo_id=space, repo_type="space")
    assert push_metric(space, api=hub.api()).is_new
    files = set(hub.api().list_repo_files(space, repo_type="space"))
    assert files == {*FILES, FORMULAS_COPY, "example.json", ".gitattributes"}
    assert not push_metric(space, api=hub.api()).is_new


def test_the_command_lists_and_pushes(hub, space, capsys, monkeypatch):
    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["push_metric.py", "--repo_id", space, *options])
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        output = capsys.readouterr()
        assert not exit_status.value.code, output.err
        return output.out

    with monkeypatch.context() as context:
        context.delenv("HF_TOKEN", raising=False)
        context.setattr(constants, "HF_HUB_OFFLINE", True)
        listed = call("--dry_run")
    for name in (*FILES, FORMULAS_COPY):
        assert f"  {name}\n" in listed
    assert listed.endswith(f"dry run: nothing was sent to {hub.endpoint}/spaces/{space}\n")
    assert not hub.api().repo_exists(space, repo_type="space")

    monkeypatch.setenv("HF_TOKEN", hub.environment()["HF_TOKEN"])
    assert f"{hub.endpoint}/spaces/{space}/commit/" in call()
    assert f'metric = evaluate.load("{space}")' in call()
