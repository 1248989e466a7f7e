"""Gradients that are accumulated in several processes: the clips of a step are those of one process."""

import json
import sys
from pathlib import Path

import pytest
from tiny_models import NO_DROPOUT, TINY, command_line

from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset


SCRIPTS = Path(__file__).parents[2] / "hub_scripts"
RUN = {
    **TINY, **NO_DROPOUT, "fusion": "visual", "max_steps": 3, "learning_rate": 1e-2, "logging_steps": 1,
    "label_embedding_weight": 0.3, "class_weighting": "inverse_sqrt", "save_strategy": "no", "report_to": "none",
    "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


def losses(output_dir):
    state = json.loads((output_dir / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_two_processes_that_accumulate_give_the_losses_of_one(tmp_path, run_command):
    """To 1e-4: 8 clips a step, of which 16 make an epoch, so that the last step begins another one."""
    config = SyntheticConfig(
        seed=6, num_train_subjects=2, num_validate_subjects=0, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    data = generate_dataset(tmp_path / "data", config, show_progress=False)
    launch = ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
    launch += ["--config_file", str(SCRIPTS / "configs" / "accelerate_ddp_cpu.yaml")]
    runs = {
        "one": ([], {"per_device_train_batch_size": 8}),
        "two": (launch, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    }
    for name, (start, batch) in runs.items():
        where = {"data_dir": data, "data_cache_dir": tmp_path / "cache", "output_dir": tmp_path / name}
        words = command_line({**where, **RUN, **batch})
        run_command([sys.executable, *start, str(SCRIPTS / "train.py"), *words])
    records = [json.loads((tmp_path / name / "experiment.json").read_text()) for name in runs]
    assert [record["processes"] for record in records] == [1, 2]
    assert [record["training"]["clips_per_step"] for record in records] == [8, 8]
    assert len(losses(tmp_path / "one")) == 3
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
