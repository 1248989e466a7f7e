"""The whole round trip: train and push every save, be killed, go on elsewhere from the Hub, read the card, predict."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from test_train import ROOT, SCRIPT, data, losses, words  # noqa: F401 (data is a fixture)
from tiny_models import write_clip

from clipmg_hf.inference import load_model


PUSHES = {
    "max_steps": 8, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2,
    "save_total_limit": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_top1",
    "hub_strategy": "checkpoint", "push_to_hub": True, "hub_always_push": True, "max_eval_clips": 4,
    "keypoint_layout": "imigue-36",
}  # fmt: skip
# Killed between two saves; what was pushed before has arrived.
KILLED = """
import os, signal, sys
from transformers import TrainerCallback
from clipmg_hf.arguments import parse_arguments
from clipmg_hf.experiment import prepare_experiment, run_experiment

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            experiment.trainer._finish_current_push()
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    experiment = prepare_experiment(parse_arguments(sys.argv[1:]))
    experiment.trainer.add_callback(Kill())
    run_experiment(experiment)
"""
COMPLETE = {
    "config.json", "model.safetensors", "processor_config.json", "configuration_clipmg.py", "modeling_clipmg.py",
    "processing_clipmg.py", "pipeline_clipmg.py", "requirements.txt", "README.md", "experiment.json",
    "trainer_state.json",
}  # fmt: skip
RESUMABLE = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def files_of(api, repo_id, revision):
    return set(api.list_repo_files(repo_id, revision=revision))


@pytest.mark.slow
def test_train_push_kill_resume_from_the_hub_and_predict_elsewhere(data, tmp_path, hub, run_command):  # noqa: F811
    repo_id, api, environment = hub.repository("clip-mg"), hub.api(), hub.environment()
    pushed = {**PUSHES, "hub_model_id": repo_id, "hub_token": environment["HF_TOKEN"]}
    alone = {**PUSHES, "push_to_hub": False, "hub_strategy": None}
    run_command([sys.executable, str(SCRIPT), *words(data, tmp_path / "whole", **alone)], timeout=500)

    # 1. Every save before the kill is one commit, which holds all of it.
    run = [sys.executable, "-c", KILLED, *words(data, tmp_path / "killed", **pushed)]
    run_command(run, expected=-9, timeout=500, env=environment)
    commits = api.list_repo_commits(repo_id)
    assert [commit.title for commit in commits][:2] == ["Training in progress, step 4", "Training in progress, step 2"]
    for commit in commits[:2]:
        names = files_of(api, repo_id, commit.commit_id)
        assert names >= COMPLETE | {f"last-checkpoint/{name}" for name in RESUMABLE}
        assert not [name for name in names if name.endswith("training_args.bin")]

    # 2. In another folder, as on another machine, it goes on as if it had not been killed.
    resumed = {**pushed, "resume_from_checkpoint": f"hub:{repo_id}"}
    run = [sys.executable, str(SCRIPT), *words(data, tmp_path / "resumed", **resumed)]
    run_command(run, timeout=500, env=environment)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    whole, there = (json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("whole", "resumed"))
    assert there["eval_loss"] == whole["eval_loss"]

    # 3. The last commit has the results in its card, and nothing of the machine.
    assert api.list_repo_commits(repo_id)[0].title == "End of training"
    pulled = Path(api.snapshot_download(repo_id, local_dir=tmp_path / "pulled"))
    card = ModelCard.load(pulled / "README.md")
    card.validate()
    top1 = next(result for result in card.data.eval_results if result.metric_name == "top-1")
    assert (top1.metric_value, top1.dataset_type, top1.dataset_split) == (
        pytest.approx(there["eval_top1"], abs=1e-4), "synthetic", "validation"
    )  # fmt: skip
    for path in pulled.rglob("*.*"):
        if path.suffix in (".json", ".md"):
            text = path.read_text()
            assert str(tmp_path) not in text and str(data) not in text and environment["HF_TOKEN"] not in text, path

    # 4. What the card tells to do works for somebody without the package.
    (tmp_path / "elsewhere").mkdir()
    write_clip(tmp_path / "elsewhere")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", card.text, re.S) if "trust_remote_code" in block)
    stranger = f"import os, sys\nsys.modules['clipmg_hf'] = None\nos.chdir({str(tmp_path / 'elsewhere')!r})\n{code}"
    printed = run_command([sys.executable, "-c", stranger], env=hub.environment()).stdout.split("\n")[-2]
    model, processor = load_model(tmp_path / "resumed", device="cpu")
    inputs = processor(str(tmp_path / "elsewhere" / "clip.mp4"), str(tmp_path / "elsewhere" / "openpose_json"))
    with torch.no_grad():
        scores = model(**inputs).logits.softmax(-1)[0]
    label, _, score = printed.rpartition(" ")
    assert label == model.config.id2label[scores.argmax().item()]
    assert float(score) == pytest.approx(scores.max().item(), abs=1e-5)


def test_a_repository_without_a_checkpoint_is_refused(data, tmp_path, hub, run_command):  # noqa: F811
    repo_id = hub.repository("empty")
    hub.api().create_repo(repo_id)
    values = {"resume_from_checkpoint": f"hub:{repo_id}"}
    done = run_command(
        [sys.executable, str(SCRIPT), *words(data, tmp_path, **values)], expected=1, env=hub.environment()
    )
    assert f"error: {repo_id} has no last-checkpoint" in done.stderr.strip().splitlines()[-1]
