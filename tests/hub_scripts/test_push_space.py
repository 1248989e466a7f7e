"""The app as a Space: complete without this repository, with a model that is on the Hub."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceCard, constants

from clipmg_hf.hub import PushError
from clipmg_hf.spaces import APP_SOURCE, check_model, push_app, requirements, write_app_space


ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "hub_scripts" / "push_space.py"
CHECKPOINT_FILES = ("config.json", "processor_config.json", "model.safetensors")
# As the Space starts, but for gradio: the page's file beside its copy of the package.
START = """
import runpy, sys
from pathlib import Path
space = Path(sys.argv[1])
sys.path.insert(0, str(space))
import clipmg_hf.app
served = []
clipmg_hf.app.launch = lambda model, **options: served.append((model, options["host"], options["port"]))
runpy.run_path(str(space / "app.py"), run_name="__main__")
ours = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "clipmg_hf"}
import clipmg_hf.modeling.modeling_clipmg
outside = [name for name, file in ours.items() if not Path(file).is_relative_to(space)]
print(served, outside)
"""


@pytest.fixture
def model(hub) -> str:
    """The name of a repository with the files of a checkpoint, empty ones."""
    return make_model(hub, CHECKPOINT_FILES)


def make_model(hub, names: tuple[str, ...], private: bool = False) -> str:
    repo_id = hub.repository(f"model-{len(names)}", "model")
    hub.api().create_repo(repo_id, private=private)
    for name in names:
        hub.api().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id=repo_id)
    return repo_id


def test_the_space_is_complete_and_names_its_model(hub, model, run_command, tmp_path):
    space = hub.repository("micro-gestures", "space")
    push_app(space, model, api=hub.api())
    copy = Path(hub.api().snapshot_download(space, repo_type="space", local_dir=tmp_path / "space"))
    card = SpaceCard.load(copy / "README.md")
    card.validate()
    assert card.data["models"] == [model] and card.data["sdk"] == "gradio"
    assert (copy / card.data["app_file"]).is_file()
    assert f"`{model}`" in card.text
    assert (copy / "clipmg_hf" / "timeline" / "page.css").is_file()
    assert not [path for path in copy.rglob("*") if path.name == "__pycache__"]

    # Python finds the Space's copy before an installed package.
    output = run_command([sys.executable, "-c", START, str(copy)], env=hub.environment()).stdout
    assert output == f"[({model!r}, '0.0.0.0', 7860)] []\n"


@pytest.mark.parametrize("name", ["README.md", "app.py", "requirements.txt"])
def test_no_placeholder_is_left(name, tmp_path):
    text = (write_app_space(tmp_path / "space", "lab/clip-mg") / name).read_text(encoding="utf-8")
    assert "<" not in text.replace("<7", "") and "namespace" not in text


def test_a_new_placeholder_is_noticed(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    for path in APP_SOURCE.iterdir():
        if path.is_file():
            (source / path.name).write_text(path.read_text(encoding="utf-8") + "<owner>", encoding="utf-8")
    monkeypatch.setattr("clipmg_hf.spaces.APP_SOURCE", source)
    with pytest.raises(AssertionError, match="<owner>"):
        write_app_space(tmp_path / "space", "lab/clip-mg")


def test_the_requirements_are_those_of_the_extra():
    project = {
        "dependencies": ["torch>=2"],
        "optional-dependencies": {
            "viz": ["matplotlib"],
            "app": ["clipmg_hf[viz, more]", "gradio>=6,<7"],
            "more": ["clipmg_hf[viz]", "x"],
            "dev": ["pytest"],
        },
    }
    assert requirements(project, "app") == ["torch>=2", "matplotlib", "matplotlib", "x", "gradio>=6,<7"]


def test_the_sdk_is_a_version_that_the_package_takes(tmp_path):
    folder = write_app_space(tmp_path / "space", "lab/clip-mg")
    lines = (folder / "requirements.txt").read_text().splitlines()
    card = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    minimum = next(line for line in lines if line.startswith("gradio>=")).removeprefix("gradio>=").split(",")[0]
    assert card["sdk_version"].startswith(f"{minimum}.")
    assert len(card["short_description"]) <= 60
    assert {line.split(">")[0] for line in lines} >= {"torch", "transformers", "av", "matplotlib"}
    assert not [line for line in lines if "clipmg_hf" in line or "pytest" in line]


def test_a_model_that_is_not_there_is_refused(hub):
    space = hub.repository("micro-gestures", "space")
    for name, text in (
        (f"{hub.namespace}/nowhere", f"there is no model {hub.namespace}/nowhere"),
        ("runs/full/checkpoint", "is no name of a model"),
        (make_model(hub, ("README.md",)), "has no config.json and no processor_config.json"),
    ):
        with pytest.raises(PushError, match=text) as raised:
            push_app(space, name, api=hub.api())
        assert "push_model.py" in str(raised.value)
    assert not hub.api().repo_exists(space, repo_type="space")


def test_a_private_model_is_none_for_others_and_needs_a_secret(hub, caplog):
    private = make_model(hub, CHECKPOINT_FILES, private=True)
    with pytest.raises(PushError, match="that this token can see"):
        check_model(private, hub.api("hf_bob_write"))
    assert not caplog.records
    check_model(private, hub.api())
    assert "secret HF_TOKEN" in caplog.text


def test_a_hub_that_fails_is_no_missing_model(hub, model):
    hub.fail(f"/api/models/{model}", status=500)
    with pytest.raises(PushError, match="cannot tell whether there is a model"):
        check_model(model, hub.api())
    hub.fail(f"/api/models/{model}", drop=True)
    with pytest.raises(PushError, match="does not answer"):
        check_model(model, hub.api())


def test_the_command_lists_and_pushes(hub, model, capsys, monkeypatch):
    space = hub.repository("micro-gestures", "space")

    def call(*options: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["push_space.py", "--repo_id", space, "--model", model, *options])
        with pytest.raises(SystemExit) as exit_status:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        output = capsys.readouterr()
        assert (exit_status.value.code or 0) == status, output.err
        return output.err if status else output.out

    with monkeypatch.context() as context:
        context.delenv("HF_TOKEN", raising=False)
        context.setattr(constants, "HF_HUB_OFFLINE", True)
        listed = call("--dry-run")
        assert call(status=1) == "error: HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.\n"
    assert "  clipmg_hf/modeling/modeling_clipmg.py\n" in listed
    assert f"nothing was sent to {hub.endpoint}/spaces/{space}; whether there is a model {model}" in listed
    assert not hub.api().repo_exists(space, repo_type="space")

    monkeypatch.setenv("HF_TOKEN", hub.environment()["HF_TOKEN"])
    pushed = call("--private")
    assert f"{hub.endpoint}/spaces/{space}/commit/" in pushed
    assert hub.api().space_info(space).private
    assert "has all of this already" in call("--private")
