"""The README's sections about the Hub: every block of them is executed over HTTP, with tiny models and data."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, write_clip

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data import load_imigue, prepare_dataset
from clipmg_hf.data.clip_cutting import PrepareConfig
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset


ROOT = Path(__file__).parents[1]
CONFIG = Path("hub_scripts", "configs", "imigue_full.yaml")
REPOSITORIES = ("clip-mg", "clip-mg-tuned", "imigue-clips", "clipmg_metric", "micro-gestures")
# The configuration of the README as it is, but for these values.
SMALL = {
    "protocol": None, "validation": None, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    "bf16": False, "use_cpu": True, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, "max_eval_clips": 2,
    "save_strategy": "steps", "save_steps": 2, "dataloader_num_workers": 0, "dataloader_persistent_workers": False,
    "disable_tqdm": True,
}  # fmt: skip
# Blocks one after the other in one process, each in its folder: importing torch takes longer than most of them.
RUNNER = """
import contextlib, io, json, os, runpy, shlex, sys
from pathlib import Path

def call(words):
    if words[0] == "clipmg":
        from clipmg_hf.cli import main
    elif words[0] == "python" and words[1].endswith(".py"):
        words = words[1:]
        main = lambda: runpy.run_path(words[0], run_name="__main__")
    else:
        raise ValueError(f"no way to run {words}")
    sys.argv, path = words, sys.path[:]
    # As a script's folder is.
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    try:
        main()
    except SystemExit as end:
        assert not end.code, f"{words} ended with {end.code}"
    finally:
        sys.path[:] = path

def run(language, text):
    if language == "python":
        exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
    elif language == "bash":
        for line in text.replace("\\\\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                call(words)
    else:
        raise ValueError(f"no way to run a block of {language!r}")

if __name__ == "__main__":
    if sys.argv[2] == "without":
        sys.modules["clipmg_hf"] = None
    outputs = []
    for folder, language, text in json.loads(sys.argv[1]):
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            run(language, text)
        outputs.append(output.getvalue())
    print(json.dumps(outputs))
"""


def read_blocks(section: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", text, re.S | re.M)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", body, re.S | re.M)
    assert body.count("```") == 2 * len(blocks)
    return blocks


def make_place(folder: Path, max_steps: int) -> Path:
    """A folder to work in: the scripts with a configuration of a few steps, a short video and its keypoints."""
    configs = folder / CONFIG.parent
    configs.mkdir(parents=True)
    for script in (ROOT / "hub_scripts").glob("*.py"):
        (configs.parent / script.name).symlink_to(script)
    values = {"base": str(ROOT / CONFIG), **SMALL, "max_steps": max_steps}
    (folder / CONFIG).write_text(json.dumps(values))
    write_clip(folder)
    return folder


def make_run(folder: Path) -> None:
    """A model and its processor, as a run leaves them."""
    config = CLIPMGConfig(**TINY)
    torch.manual_seed(0)
    CLIPMGForMicroGestureClassification(config).save_pretrained(folder)
    CLIPMGProcessor.from_model_config(config).save_pretrained(folder)


def make_data(folder: Path, prepared: Path) -> set[str]:
    """`data/imigue`, and a prepared folder of it; returns the names of the clips to train on."""
    config = SyntheticConfig(
        seed=6, num_train_subjects=1, num_validate_subjects=1, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    generate_dataset(folder / "data" / "imigue", config, show_progress=False)
    rows = load_imigue(folder / "data" / "imigue", cache_dir=folder / "cache")
    source = {"dataset": "imigue", "protocol": "", "description": []}
    prepare_dataset(rows, prepared, PrepareConfig(short_side=32), source=source, show_progress=False)
    return set(rows["train"]["clip_id"])


def read_losses(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.mark.slow
def test_publish_fine_tune_and_use(hub, tmp_path, run_command):
    # `evaluate` needs the metric's very name, which on the real Hub may be somebody's: `log` skips the test there.
    assert hub.log == []
    home, elsewhere = make_place(tmp_path / "home", max_steps=2), make_place(tmp_path / "elsewhere", max_steps=4)
    make_run(home / "runs" / "full")
    clip_ids = make_data(tmp_path, home / "prepared")
    api, environment = hub.api(), {**hub.environment(), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}

    def repository(name: str) -> str:
        assert name in REPOSITORIES
        return f"{hub.namespace}/{name}"

    def run(blocks, folders, environment, flag="with"):
        """What the blocks print, each in its folder."""
        steps = []
        for folder, (language, text) in zip(folders, blocks, strict=True):
            text = text.replace("/data/", f"{tmp_path}/data/")
            steps.append([str(folder), language, re.sub(r"owner/([\w-]+)", lambda name: repository(name[1]), text)])
        done = run_command([sys.executable, "-c", RUNNER, json.dumps(steps), flag], timeout=500, env=environment)
        return json.loads(done.stdout.splitlines()[-1])

    # 1. All four are on the Hub, each by one commit, and are loaded from there.
    pushed, loaded = run(read_blocks("Publish"), [home, home], environment)
    tag = api.model_info(repository("clip-mg"), revision="v1").sha
    assert f"{hub.endpoint}/{repository('clip-mg')}/commit/{tag}" in pushed
    kinds = {"imigue-clips": "dataset", "clipmg_metric": "space", "micro-gestures": "space", "clip-mg": "model"}
    for name, kind in kinds.items():
        assert len(api.list_repo_commits(repository(name), repo_type=kind)) == 2
        assert api.repo_info(repository(name), repo_type=kind).private == (name == "imigue-clips")
    clip_id, top1 = loaded.split()
    assert clip_id in clip_ids and float(top1) == 1

    # 2. A run goes on on another machine, and a model of other classes is saved.
    run(read_blocks("Fine-tune"), [home, elsewhere, elsewhere], environment)
    first, whole = (read_losses(place / "runs" / "tuned") for place in (home, elsewhere))
    assert whole[:2] == first and len(whole) == 4
    titles = [commit.title for commit in api.list_repo_commits(repository("clip-mg-tuned"))]
    assert titles[:2] == ["End of training", "Training in progress, step 4"]
    assert "Training in progress, step 2" in titles
    assert api.model_info(repository("clip-mg-tuned")).private
    own = CLIPMGConfig.from_pretrained(elsewhere / "own-clip-mg")
    assert own.id2label == {0: "Nodding", 1: "Shrugging"}

    # 3. The tag gives what was pushed, whatever came after it.
    api.upload_file(
        path_or_fileobj=b"raise RuntimeError('not what was read')", path_in_repo="modeling_clipmg.py",
        repo_id=repository("clip-mg"),
    )  # fmt: skip
    *with_package, without_package = read_blocks("Use a checkpoint")
    label, table = run(with_package, [home, home], environment)
    (printed,) = run([without_package], [home], hub.environment(), "without")
    shape, scores = printed.splitlines()
    assert ast.literal_eval(scores)[0]["label"] == label.strip()
    assert re.search(rf"1\s+{re.escape(label.strip())}", table)
    assert shape == f"torch.Size([1, {TINY['hidden_size']}])"
