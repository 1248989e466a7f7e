"""The balanced sampler alone, and in a Trainer of two processes that resumes within an epoch.

This file is also the program of those processes: `accelerate launch ... test_samplers.py FOLDER`.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from clipmg_hf.samplers import ClassBalancedSampler, SamplerEpochCallback
from clipmg_hf.training import end_processes


LABELS = [0] * 14 + [1] * 6 + [3] * 3 + [4]  # class 2 has no clip


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_quotas_by_hand():
    # 24 clips of 4 classes; their square roots share them as 10.06, 6.59, 4.66 and 2.69.
    assert ClassBalancedSampler(LABELS, 5, power=1.0).class_counts == [6, 6, 0, 6, 6]
    assert ClassBalancedSampler(LABELS, 5, power=0.5).class_counts == [10, 6, 0, 5, 3]
    assert ClassBalancedSampler(LABELS, 5, power=0.0).class_counts == [14, 6, 0, 3, 1]


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_has_its_quotas_and_the_length_of_the_data(power, seed):
    labels = np.random.default_rng(seed).geometric(0.4, size=97) - 1
    sampler = ClassBalancedSampler(labels, int(labels.max()) + 2, power=power, seed=seed)
    counts = np.bincount(labels, minlength=len(sampler.class_counts))
    exact = np.where(counts > 0, counts ** (1.0 - power), 0)
    assert np.abs(sampler.class_counts - exact / exact.sum() * 97).max() < 1
    for epoch in range(3):
        order = epoch_of(sampler, epoch)
        assert len(order) == len(sampler) == 97
        drawn = np.bincount(labels[order], minlength=len(counts))
        assert drawn.tolist() == sampler.class_counts


def test_power_0_is_a_permutation_of_all_clips():
    sampler = ClassBalancedSampler(LABELS, 5, power=0.0)
    orders = [epoch_of(sampler, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert orders[0] != orders[1]


def test_every_clip_is_drawn_before_any_is_drawn_again():
    sampler = ClassBalancedSampler(LABELS, 5, power=1.0)
    drawn = Counter()
    for epoch in range(9):
        drawn.update(epoch_of(sampler, epoch))
        for label in set(LABELS):
            times = [drawn[clip] for clip in range(24) if LABELS[clip] == label]
            assert max(times) - min(times) <= 1, (epoch, label)
    # Classes are 9 * 6 draws each, whatever their size.
    assert [drawn[clip] for clip in range(20, 24)] == [18, 18, 18, 54]


def test_a_rare_class_does_not_always_come_in_the_same_order():
    sampler = ClassBalancedSampler(LABELS, 5)
    orders = {tuple(clip for clip in epoch_of(sampler, epoch) if LABELS[clip] == 3) for epoch in range(6)}
    assert len(orders) > 1


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = ClassBalancedSampler(LABELS, 5, seed=3), ClassBalancedSampler(LABELS, 5, seed=3)
    list(first)
    np.random.seed(0)  # noqa: NPY002 (the global generator must change nothing)
    torch.manual_seed(0)
    assert epoch_of(first, 4) == epoch_of(first, 4) == epoch_of(second, 4)
    assert epoch_of(first, 4) != epoch_of(first, 5)
    assert epoch_of(first, 4) != epoch_of(ClassBalancedSampler(LABELS, 5, seed=4), 4)


@pytest.mark.parametrize(
    ("labels", "power", "message"),
    [
        ([], 1.0, "one class for each clip"),
        ([0, -1], 1.0, r"lie in -1\.\.0; expected 0\.\.4"),
        ([0, 5], 1.0, r"lie in 0\.\.5; expected 0\.\.4"),
        ([0, 1], 1.5, r"power is 1\.5"),
    ],
)
def test_bad_values_are_named(labels, power, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedSampler(labels, 5, power=power)


class RecordingModel(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.clips = []

    def forward(self, clip, labels):
        self.clips += clip.int().flatten().tolist()
        return {"loss": (self.layer(clip) - labels.unsqueeze(1)).square().mean()}


class BalancedTrainer(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return ClassBalancedSampler(LABELS, 5, seed=self.args.seed)


def record(output_dir, resume=None):
    """Clips that this process's model sees in 2 epochs, 3 at a time, with a checkpoint within each epoch."""
    model = RecordingModel()
    trainer = BalancedTrainer(
        model,
        TrainingArguments(
            output_dir=str(output_dir),
            per_device_train_batch_size=3,
            num_train_epochs=2,
            save_steps=2,
            seed=5,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[
            {"clip": torch.tensor([float(index)]), "labels": torch.tensor(label)} for index, label in enumerate(LABELS)
        ],
        callbacks=[SamplerEpochCallback()],
    )
    trainer.train(resume_from_checkpoint=resume)
    return model.clips


def expected_order():
    sampler = ClassBalancedSampler(LABELS, 5, seed=5)
    return epoch_of(sampler, 0) + epoch_of(sampler, 1)


def test_trainer_follows_the_order_and_resumes_within_the_second_epoch(tmp_path):
    assert record(tmp_path / "whole") == expected_order()
    resumed = record(tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-10"))
    assert resumed == expected_order()[30:]


def main(folder):
    whole = record(folder / "whole")
    torch.distributed.barrier()
    record_of_rank = {
        "world_size": torch.distributed.get_world_size(),
        "whole": whole,
        "resumed": record(folder / "resumed", resume=str(folder / "whole" / "checkpoint-6")),
    }
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(record_of_rank))


def test_two_processes_share_the_order_and_resume_within_the_second_epoch(tmp_path):
    # `--cpu` would silently run one process; Trainer's use_cpu keeps these on the CPU (gloo).
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, __file__, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    for name, expected in (("whole", expected_order()), ("resumed", expected_order()[36:])):
        # The processes take batches of 3 by turns.
        batches = [np.reshape(rank[name], (-1, 3)) for rank in ranks]
        assert np.stack(batches, axis=1).flatten().tolist() == expected


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    end_processes()
