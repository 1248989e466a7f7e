"""The training script as a user runs it: killed and resumed, in two processes, sharded, and with unusable input."""

import json
import sys
from pathlib import Path

import pytest
from tiny_models import NO_DROPOUT, TINY, VISION, command_line

from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset


ROOT = Path(__file__).parents[2]
SCRIPT, CONFIGS = ROOT / "hub_scripts" / "train.py", ROOT / "hub_scripts" / "configs"
CONFIG = CONFIGS / "imigue_full.yaml"
SMALL = {
    **TINY, "clip_checkpoint": "null", "protocol": "null", "validation": "null", "max_steps": 6,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-2,
    "dataloader_num_workers": 0, "dataloader_persistent_workers": False, "logging_steps": 1, "use_cpu": True,
    "eval_strategy": "no", "load_best_model_at_end": False, "save_strategy": "no", "report_to": "none",
    "bf16": False, "disable_tqdm": True,
}  # fmt: skip
LAUNCH = ["-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file"]
# Kills itself, as nothing else could be sure to do, in the middle of the second epoch.
KILLED = """
import os, signal, sys
from transformers import TrainerCallback
from clipmg_hf.arguments import parse_arguments
from clipmg_hf.experiment import prepare_experiment, run_experiment

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    experiment = prepare_experiment(parse_arguments(sys.argv[1:]))
    experiment.trainer.add_callback(Kill())
    run_experiment(experiment)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 clips to train on: 4 steps an epoch."""
    root = tmp_path_factory.mktemp("data")
    config = SyntheticConfig(
        seed=6, num_train_subjects=2, num_validate_subjects=1, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    generate_dataset(root / "imigue", config, show_progress=False)
    return root


def words(data, output_dir, **values):
    where = {"data_dir": data / "imigue", "data_cache_dir": data / "cache", "output_dir": output_dir}
    return [str(CONFIG), *command_line({**where, **SMALL, **values})]


def losses(output_dir):
    state = json.loads((output_dir / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_killed_run_goes_on_with_the_same_losses(data, tmp_path, run_command):
    values = {
        "save_strategy": "steps", "save_steps": "3", "dataloader_num_workers": "2",
        "dataloader_persistent_workers": "true", "augmentation_drop_pose": "0.2",
        "augmentation_keypoint_noise": "0.01", "label_embedding_weight": "0.3",
    }  # fmt: skip
    run_command([sys.executable, str(SCRIPT), *words(data, tmp_path / "whole", **values)])
    run_command([sys.executable, "-c", KILLED, *words(data, tmp_path / "killed", **values)], expected=-9)
    assert (tmp_path / "killed" / "checkpoint-3").is_dir() and not (tmp_path / "killed" / "config.json").exists()
    resume = {"resume_from_checkpoint": "last"}
    run_command([sys.executable, str(SCRIPT), *words(data, tmp_path / "killed", **values, **resume)])
    assert len(losses(tmp_path / "whole")) == 6
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.parametrize(
    ("values", "one", "two"),
    [
        ({"fusion": "visual"}, {}, {"per_device_train_batch_size": 2}),
        ({"freeze_batch_norm": True}, {}, {"per_device_train_batch_size": 2}),
        # 16 clips make an epoch, so that the last step begins another one.
        (
            {"fusion": "visual", "max_steps": 3, "class_weighting": "inverse_sqrt"},
            {"per_device_train_batch_size": 8},
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        ),
    ],
    ids=["visual", "frozen batch norms", "accumulation"],
)
def test_two_processes_give_the_losses_of_one(data, tmp_path, run_command, values, one, two):
    """To 1e-4, with the same clips in every step: gradients are sums of the same numbers in another order."""
    values |= {**NO_DROPOUT, "label_embedding_weight": 0.3, "eval_strategy": "steps", "eval_steps": 3}
    run_command([sys.executable, str(SCRIPT), *words(data, tmp_path / "one", **values, **one)])
    launch = [sys.executable, *LAUNCH, str(CONFIGS / "accelerate_ddp_cpu.yaml"), str(SCRIPT)]
    run_command([*launch, *words(data, tmp_path / "two", **values, **two)])
    records = [json.loads((tmp_path / name / "experiment.json").read_text()) for name in ("one", "two")]
    assert [record["processes"] for record in records] == [1, 2]
    assert records[0]["training"]["clips_per_step"] == records[1]["training"]["clips_per_step"]
    assert len(losses(tmp_path / "one")) == values.get("max_steps", 6)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    results = [json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("one", "two")]
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], abs=1e-4)
    assert results[0]["eval_top1"] == results[1]["eval_top1"]


SHARDED = """
import json, sys
import torch, yaml
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification

distributed.init_process_group("gloo")
names = yaml.safe_load(open(sys.argv[1]))["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"].split(",")
config = CLIPMGConfig(
    **json.loads(sys.argv[2]), num_frames=2, pose_frames_per_frame=2, hidden_size=32, num_attention_heads=4,
    pose_base_width=4, pose_stage_blocks=(1, 1, 1), heatmap_size=16,
    hidden_dropout_prob=0.0, attention_dropout=0.0, classifier_dropout=0.0,
)
torch.manual_seed(0)
whole = CLIPMGForMicroGestureClassification(config).train()
sharded = CLIPMGForMicroGestureClassification(config).train()
sharded.load_state_dict(whole.state_dict())
mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
found = [module for module in sharded.modules() if type(module).__name__ in names]
assert {type(module).__name__ for module in found} == set(names)
for module in found:
    fully_shard(module, mesh=mesh)
fully_shard(sharded, mesh=mesh)
assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
inputs = {"pixel_values": torch.randn(4, 2, 3, 32, 32), "keypoints": torch.rand(4, 4, 22, 3)}
inputs["labels"] = torch.arange(4)
curves = []
for model in (whole, sharded):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    curve = []
    for _ in range(3):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    curves.append(curve)
torch.testing.assert_close(curves[0], curves[1], atol=1e-4, rtol=0)
print("equal" if distributed.get_world_size() == 2 else "alone", flush=True)
distributed.barrier()
distributed.destroy_process_group()
"""


def test_sharding_the_layers_of_the_fsdp2_configuration_changes_nothing(tmp_path, run_command):
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run_command(
        [*command, str(script), str(CONFIGS / "accelerate_fsdp2.yaml"), json.dumps({"vision_config": VISION})]
    )
    assert done.stdout.count("equal") == 2


def test_fsdp_on_cpus_is_refused_instead_of_running_ddp(data, tmp_path, run_command):
    launch = [sys.executable, *LAUNCH, str(CONFIGS / "accelerate_fsdp2.yaml"), str(SCRIPT)]
    done = run_command([*launch, *words(data, tmp_path)], expected=1)
    assert "FSDP was asked for" in done.stderr


def test_unusable_input_is_one_line(data, tmp_path, run_command):
    done = run_command([sys.executable, str(SCRIPT), *words(data, tmp_path, learning_rat="1")], expected=1)
    assert done.stderr.strip().splitlines()[-1] == (
        "error: arguments: unknown learning_rat (did you mean learning_rate?); see --help."
    )
    assert "--feature_cache" in run_command([sys.executable, str(SCRIPT), "--help"]).stdout
