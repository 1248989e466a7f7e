"""Checking a checkpoint as a stranger and pushing it: what arrives works elsewhere, and what is wrong is all said."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from tiny_models import TINY

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, checkpoint_check
from clipmg_hf.checkpoint_check import check_checkpoint, find_problems, run_stranger, select_files
from clipmg_hf.hub import PushError
from clipmg_hf.inference import CheckpointError
from clipmg_hf.run_files import BY_PRODUCTS


SCRIPT = str(Path(__file__).parents[2] / "hub_scripts" / "push_model.py")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    config = CLIPMGConfig(**TINY)
    torch.manual_seed(0)
    CLIPMGForMicroGestureClassification(config).save_pretrained(folder)
    CLIPMGProcessor.from_model_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "checkpoint")


@pytest.fixture
def without_stranger(monkeypatch):
    """Only what the files tell."""
    monkeypatch.setattr(checkpoint_check, "run_stranger", lambda folder, names: [])


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# --- the script


@pytest.fixture
def script(hub, monkeypatch):
    """The script in this process, turned to the test's Hub."""
    spec = importlib.util.spec_from_file_location("push_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "push_model", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("HF_TOKEN", hub.environment()["HF_TOKEN"])
    return module


def test_push_and_pull(hub, folder, run_command, tmp_path):
    """One push of a run's folder: in one commit, private, tagged; what arrives is what was checked."""
    for name in ("training_args.bin", "trainer_state.json", "all_results.json"):
        (folder / name).write_text("{}")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"")
    repo_id = hub.repository("clip-mg")
    command = [sys.executable, SCRIPT, "--folder", str(folder), "--repo_id", repo_id, "--private", "true"]
    output = run_command([*command, "--tag", "v1", "--commit_message", "First"], env=hub.environment()).stdout
    info = hub.api().repo_info(repo_id, revision="v1")
    lines = output.splitlines()
    assert lines[0] == f"{folder / 'README.md'}: written; read it before others do"
    assert lines[-2] == "left out: all_results.json, checkpoint-5/, trainer_state.json, training_args.bin"
    assert lines[-1] == f"{hub.endpoint}/{repo_id}/commit/{info.sha}"
    assert info.private
    assert [commit.title for commit in hub.api().list_repo_commits(repo_id)] == ["First", "initial commit"]
    pulled = Path(snapshot_download(repo_id, local_dir=tmp_path / "pulled", token=hub.api().token))
    files, _ = select_files(folder)
    assert {path.name for path in pulled.iterdir() if path.name[0] != "."} == {file.path for file in files}
    assert all((pulled / file.path).read_bytes() == (folder / file.path).read_bytes() for file in files)


def test_a_dry_run_without_token_and_network(folder, run_command, tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, SCRIPT, "--folder", str(folder), "--repo_id", "alice/clip-mg", "--dry_run", "true"]
    output = run_command(command, env={**environment, "HF_TOKEN": ""}).stdout.splitlines()
    size = (folder / "model.safetensors").stat().st_size
    assert any(line.split() == [f"{size:,}", "model.safetensors"] for line in output)
    assert output[-1] == "dry run: nothing was sent to http://127.0.0.1:9/alice/clip-mg"


def test_a_pull_request_and_a_card_of_ones_own(hub, folder, script, without_stranger, capsys):
    card = "---\nlicense: apache-2.0\n---\n# Ours\n"
    (folder / "README.md").write_text(card)
    repo_id = hub.repository("clip-mg")
    script.push(script.PushModelArguments(str(folder), repo_id))
    before = hub.api().repo_info(repo_id).sha
    script.push(script.PushModelArguments(str(folder), repo_id))
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"{hub.endpoint}/{repo_id}/commit/{before} has all of this already"
    )
    edit_json(folder / "config.json", classifier_dropout=0.25)
    script.push(script.PushModelArguments(str(folder), repo_id, create_pr=True))
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.endpoint}/{repo_id}/discussions/1"
    assert hub.api().repo_info(repo_id).sha == before
    assert (folder / "README.md").read_text() == card
    script.push(script.PushModelArguments(str(folder), repo_id, renew_card=True, dry_run=True))
    assert (folder / "README.md").read_text() != card and "library_name" in (folder / "README.md").read_text()


def test_old_shards_and_code_are_replaced(hub, folder, script, without_stranger):
    repo_id = hub.repository("clip-mg")
    model = CLIPMGForMicroGestureClassification.from_pretrained(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    script.push(script.PushModelArguments(str(folder), repo_id))
    for path in folder.glob("model-*"):
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    weights.write_bytes(whole)
    script.push(script.PushModelArguments(str(folder), repo_id))
    names = {file.rfilename for file in hub.api().repo_info(repo_id).siblings}
    assert {name for name in names if "safetensors" in name} == {"model.safetensors"}


def test_a_missing_permission_is_named(hub, folder, script, without_stranger, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.environment("hf_bob_write")["HF_TOKEN"])
    with pytest.raises(PushError, match=r"^the token of bob may not write to alice/clip-mg: bob is not a member"):
        script.push(script.PushModelArguments(str(folder), "alice/clip-mg"))


def test_nothing_is_pushed_of_a_checkpoint_that_is_wrong(hub, folder, script, without_stranger):
    (folder / "requirements.txt").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="2 problems"):
        script.push(script.PushModelArguments(str(folder), "alice/clip-mg"))
    assert hub.log == []


def test_wrong_names_show_before_the_checkpoint_is_looked_at(hub, folder, script):
    (folder / "config.json").unlink()
    with pytest.raises(PushError, match="names no owner"):
        script.push(script.PushModelArguments(str(folder), "clip-mg"))


# --- the stranger


def test_a_stranger_finds_what_only_running_shows(folder):
    """One process for several mistakes: a call to the network, weights that are not all there, an import of ours."""
    path = folder / "modeling_clipmg.py"
    path.write_text(path.read_text() + "\nimport socket\nsocket.getaddrinfo('example.org', 80)\n")
    problems = run_stranger(folder, [path.name for path in folder.iterdir()])
    assert "its code looks a host up: example.org." in problems
    assert any(
        problem.startswith("AutoModel fails: PermissionError: its code looks a host up") for problem in problems
    )


def test_a_stranger_has_no_package(folder):
    path = folder / "processing_clipmg.py"
    path.write_text(path.read_text() + "\nfrom clipmg_hf.files import write_file\n")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    weights["classifier.weight"].fill_(torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    problems = find_problems(folder)
    assert "model.safetensors: classifier.weight is NaN or infinite in 1,024 of 1,024 values." in problems
    assert "processing_clipmg.py imports clipmg_hf, which requirements.txt does not name." in problems
    assert any(problem.startswith("AutoProcessor fails: ") and "clipmg_hf" in problem for problem in problems)
    assert "weights are missing: classifier.bias." in problems


# --- what the files tell


def test_a_saved_checkpoint_is_complete(folder, without_stranger):
    check_checkpoint(folder)


def test_every_problem_is_said_at_once(folder, without_stranger):
    for name in ("README.md", "requirements.txt", "heatmaps_clipmg.py"):
        (folder / name).unlink()
    (folder / "optimizer.pt").write_bytes(b"")
    (folder / "notes.doc").write_text("")
    with (folder / "LICENSE").open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(CheckpointError) as error:
        check_checkpoint(folder)
    assert str(error.value).splitlines() == [
        f"{folder} is not fit to be published, 6 problems:",
        "- README.md is missing (the model card; clipmg_hf.model_card writes it).",
        "- requirements.txt is missing (what the code needs; save_pretrained writes it).",
        "- LICENSE has 20,000,000 bytes; expected less than 10,000,000 besides the weights.",
        "- notes.doc is no part of a checkpoint; remove it.",
        "- optimizer.pt may be a pickle, which can run anything when it is loaded; remove it.",
        "- pose_encoder_clipmg.py imports .heatmaps_clipmg, but heatmaps_clipmg.py is missing.",
    ]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "README.md",
            "# no metadata",
            "README.md has no metadata (YAML between lines of ---), by which the Hub finds",
        ),
        ("README.md", "---\na: [\n---\n", "README.md cannot be read: "),
        ("config.json", "{", "config.json is not JSON with an object."),
        ("model.safetensors", "pickle", "model.safetensors cannot be read as safetensors: "),
        ("heatmaps_clipmg.py", "def", "heatmaps_clipmg.py is not Python: "),
        ("heatmaps_clipmg.py", "import pandas", "heatmaps_clipmg.py imports pandas, which requirements.txt does not"),
        ("heatmaps_clipmg.py", "from .gone import x", "heatmaps_clipmg.py imports .gone, but gone.py is missing."),
    ],
)
def test_files_that_are_wrong(folder, without_stranger, name, content, problem):
    (folder / name).write_text(content)
    assert any(found.startswith(problem) for found in find_problems(folder)), find_problems(folder)


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "model.safetensors"])
def test_files_that_are_missing(folder, without_stranger, name):
    (folder / name).unlink()
    assert any(found.startswith(f"{name} is missing (") for found in find_problems(folder))


def test_entries_that_are_missing(folder, without_stranger):
    edit_json(folder / "config.json", auto_map={"AutoModel": "gone.CLIPMGModel"}, custom_pipelines={})
    problems = find_problems(folder)
    assert "AutoModel is 'gone.CLIPMGModel', but gone.py is missing." in problems
    assert "no entry names the class of AutoConfig; save it again with clipmg_hf imported." in problems
    assert "no entry names the class of the pipeline; save it again with clipmg_hf imported." in problems


def test_shards_are_weights_and_a_missing_one_is_said(folder, without_stranger):
    model = CLIPMGForMicroGestureClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1 and find_problems(folder) == []
    shards[0].unlink()
    assert [problem for problem in find_problems(folder) if shards[0].name in problem]


def test_what_belongs_to_a_checkpoint(folder):
    expected = sorted(path.name for path in folder.iterdir())
    for name in BY_PRODUCTS:
        (folder / name.replace("*", "x")).write_text("")
    (folder / "validation").mkdir()
    (folder / "validation" / "report.html").write_text("")
    files, left_out = select_files(folder)
    assert [file.path for file in files] == expected
    assert left_out == sorted([*(name.replace("*", "x") for name in BY_PRODUCTS), "validation/"])
