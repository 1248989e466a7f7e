"""Train -> save -> resume -> evaluate -> reload through Trainer, and what stops or spoils a training."""

import errno
import json
import logging
import resource
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from tiny_models import NO_DROPOUT, TINY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset
from transformers import (
    AutoModelForVideoClassification,
    AutoProcessor,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, hub_runs
from clipmg_hf.arguments import ModelArguments
from clipmg_hf.data import load_imigue
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.hub import PushError, push_folder
from clipmg_hf.losses import LossSettings
from clipmg_hf.model_building import add_lora
from clipmg_hf.run_checkpoints import find_damage, latest_checkpoint
from clipmg_hf.samplers import ClassBalancedSampler
from clipmg_hf.training import NonFiniteLossError, make_trainer, name_clips


FACTORS = {"pose_encoder_factor": 0.1, "vision_factor": 0.1, "lora_factor": 1.0, "head_factor": 1.0}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    config = SyntheticConfig(
        seed=6,
        num_train_subjects=1,
        num_validate_subjects=1,
        num_test_subjects=0,
        clips_per_video=10,
        max_clip_frames=20,
        max_gap_frames=4,
        width=160,
        height=90,
    )
    pack = generate_dataset(tmp_path_factory.mktemp("pack"), config, show_progress=False)
    return load_imigue(pack, cache_dir=tmp_path_factory.mktemp("cache"))


def trainer_for(rows, output_dir, config=None, options=None, **values):
    set_seed(0)
    config = CLIPMGConfig(**{**TINY, **(config or {})})
    arguments = {
        "per_device_train_batch_size": 5,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **values,
    }
    return make_trainer(
        CLIPMGForMicroGestureClassification(config),
        CLIPMGProcessor.from_model_config(config),
        rows["train"],
        rows["validation"],
        TrainingArguments(output_dir=str(output_dir), **arguments),
        **(options or {}),
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class ItemsWithNaN(Dataset):
    """Clips of which one has a NaN in its frames."""

    def __init__(self, clips, bad):
        self.clips = clips
        self.bad = bad

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        item = self.clips[index]
        if index == self.bad:
            item["pixel_values"][0, 0, 0, 0] = float("nan")
        return item


def test_train_save_resume_evaluate_reload(rows, tmp_path):
    whole = trainer_for(rows, tmp_path / "whole")
    whole.train()
    assert len(losses(whole)) == 4
    metrics = whole.evaluate()
    assert {"eval_top1", "eval_top5", "eval_mean_class_accuracy", "eval_macro_f1"} <= set(metrics)

    checkpoint = tmp_path / "whole" / "checkpoint-4"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "modeling_clipmg.py"} <= names
    model = AutoModelForVideoClassification.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    item = whole.eval_dataset[0]
    inputs = {name: tensor[None] for name, tensor in item.items() if name != "labels"}
    torch.testing.assert_close(model(**inputs).logits, whole.model.eval()(**inputs).logits)
    assert processor.keypoint_layout == "imigue-22"
    config = json.loads((checkpoint / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_resuming_repeats_the_losses_with_augmentation(rows, tmp_path, workers, step):
    values = {"save_steps": 1, "dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0}
    options = {"sampling_power": 0.5, "loss_settings": LossSettings(label_embedding_weight=0.5)}
    whole = trainer_for(rows, tmp_path / "whole", options=options, **values)
    whole.train()
    resumed = trainer_for(rows, tmp_path / "resumed", options=options, **values)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert losses(resumed) == losses(whole)


def test_views_differ_between_epochs_and_not_between_runs(rows, tmp_path):
    seen = []

    class Remember(TrainerCallback):
        def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
            seen.append(train_dataloader.dataset[0]["pixel_values"])

    for name in ("a", "b"):
        trainer_for(rows, tmp_path / name, options={"callbacks": [Remember()]}).train()
    # The callback runs before the ones of the trainer: it sees the epoch before.
    assert len(seen) == 4
    first, second = trainer_for(rows, tmp_path).train_dataset, trainer_for(rows, tmp_path, seed=1).train_dataset
    views = [first[0]["pixel_values"]]
    first.set_epoch(1)
    views += [first[0]["pixel_values"], second[0]["pixel_values"]]
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert torch.equal(seen[0], views[0]) and torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_evaluation_stores_only_logits(rows, tmp_path):
    trainer = trainer_for(rows, tmp_path)
    assert trainer.predict(trainer.eval_dataset).predictions.shape == (10, 32)


def test_without_options_it_trains_like_the_plain_trainer(rows, tmp_path):
    """The demo's recipe: the model's own loss, the library's parameter groups, any data set of inputs."""
    ours = trainer_for(rows, tmp_path, max_steps=4, save_strategy="no")
    items = [ours.train_dataset[index] for index in range(10)]
    ours.train_dataset = items
    ours.train()
    set_seed(0)
    plain = Trainer(
        CLIPMGForMicroGestureClassification(CLIPMGConfig(**TINY)),
        ours.args,
        data_collator=collate_clips,
        train_dataset=items,
    )
    plain.train()
    assert losses(ours) == losses(plain)
    assert ours.loss_module is None


@pytest.mark.parametrize("batch_size", [2, 4])
def test_gradient_accumulation_equals_a_larger_batch(rows, tmp_path, batch_size):
    curves = []
    for size, steps in ((4, 1), (batch_size // 2, 8 // batch_size)):
        # Without dropout and batch norms, whose draws and statistics differ between batches by nature.
        trainer = trainer_for(
            rows,
            tmp_path,
            config={"fusion": "visual", **NO_DROPOUT},
            options={"loss_settings": LossSettings(class_weighting="inverse_sqrt", label_embedding_weight=0.5)},
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=2,
            save_strategy="no",
        )
        trainer.train()
        curves.append(losses(trainer))
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_bf16_on_cpu(rows, tmp_path):
    trainer = trainer_for(rows, tmp_path, config=NO_DROPOUT, bf16=True, max_steps=2, save_strategy="no")
    trainer.train()
    reference = trainer_for(rows, tmp_path, config=NO_DROPOUT, max_steps=2, save_strategy="no")
    reference.train()
    assert losses(trainer) != losses(reference)
    assert losses(trainer) == pytest.approx(losses(reference), rel=2e-2)
    assert next(trainer.model.parameters()).dtype == torch.float32


def test_activation_checkpointing_changes_nothing(rows, tmp_path):
    curves = []
    for checkpointing in (False, True):
        config = {**NO_DROPOUT, "num_trainable_vision_layers": 1}
        trainer = trainer_for(
            rows, tmp_path, config=config, activation_checkpointing=checkpointing, max_steps=3, save_strategy="no"
        )
        trainer.train()
        curves.append(losses(trainer))
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


@pytest.mark.slow
def test_torch_compile_changes_nothing(rows, tmp_path):
    curves = []
    for compile_model in (False, True):
        config = {**NO_DROPOUT, "fusion": "visual"}
        trainer = trainer_for(
            rows, tmp_path, config=config, torch_compile=compile_model, max_steps=2, save_strategy="no"
        )
        trainer.train()
        curves.append(losses(trainer))
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_frozen_batch_norms_keep_their_statistics(rows, tmp_path):
    states = {}
    for freeze in (False, True):
        trainer = trainer_for(rows, tmp_path, options={"freeze_batch_norm": freeze}, max_steps=1, save_strategy="no")
        before = trainer.model.clipmg.pose_encoder.conv1.bn.running_mean.clone()
        trainer.train()
        states[freeze] = torch.equal(before, trainer.model.clipmg.pose_encoder.conv1.bn.running_mean)
    assert states == {False: False, True: True}


def test_parts_have_their_learning_rates(rows, tmp_path):
    options = {"learning_rate_factors": FACTORS, "loss_settings": LossSettings(label_embedding_weight=1.0)}
    trainer = trainer_for(rows, tmp_path, options=options)
    rates = {group["name"]: group["lr"] for group in trainer.create_optimizer().param_groups}
    assert rates["pose_encoder"] == pytest.approx(1e-3) and rates["head"] == rates["loss"] == pytest.approx(1e-2)


def test_balanced_sampling_tells_the_loss_what_it_draws(rows, tmp_path):
    settings = LossSettings(logit_adjustment=1.0)
    trainer = trainer_for(rows, tmp_path, options={"sampling_power": 1.0, "loss_settings": settings})
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, ClassBalancedSampler)
    shares = np.maximum(sampler.class_counts, 1) / np.maximum(sampler.class_counts, 1).sum()
    torch.testing.assert_close(trainer.loss_module.adjustment.exp(), torch.tensor(shares, dtype=torch.float32))


def test_early_stopping_and_the_best_model_by_mean_class_accuracy(rows, tmp_path):
    trainer = trainer_for(
        rows,
        tmp_path,
        options={"callbacks": [EarlyStoppingCallback(2)], "freeze_batch_norm": True},
        # Nothing is learned, so no evaluation after the first is better.
        learning_rate=1e-12,
        num_train_epochs=20,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mean_class_accuracy",
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.global_step == 6
    best = tmp_path / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(best) and best.is_dir()
    saved = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert saved["best_model_checkpoint"] == str(best)
    assert {path.name for path in tmp_path.glob("*checkpoint*")} == {"checkpoint-2", "checkpoint-6"}
    for name, tensor in load_file(best / "model.safetensors").items():
        assert torch.equal(trainer.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("step", [4, 6])
def test_a_resumed_run_stops_early_where_the_whole_one_does(rows, tmp_path, step):
    values = {
        "learning_rate": 1e-12, "num_train_epochs": 20, "eval_strategy": "epoch", "save_strategy": "epoch",
        "load_best_model_at_end": True, "metric_for_best_model": "eval_mean_class_accuracy",
        "greater_is_better": True,
    }  # fmt: skip

    def options():
        return {"callbacks": [EarlyStoppingCallback(3)], "freeze_batch_norm": True}

    whole = trainer_for(rows, tmp_path, options=options(), **values)
    whole.train()
    assert whole.state.global_step == 8
    resumed = trainer_for(rows, tmp_path, options=options(), **values)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert resumed.state.global_step == 8


def test_a_loss_that_is_not_a_number_names_the_clips(rows, tmp_path):
    trainer = trainer_for(rows, tmp_path, max_steps=4)
    trainer.train_dataset = ItemsWithNaN(trainer.train_dataset, bad=7)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    message = str(caught.value)
    bad = rows["train"]["clip_id"][7]
    assert "nan" in message and message.count(bad) == 2 and f"not finite for: {bad}" in message
    assert sum(clip_id in message for clip_id in rows["train"]["clip_id"]) == 5
    assert "broke the weights" not in message


def test_weights_that_broke_earlier_are_told_from_a_bad_clip(rows, tmp_path):
    trainer = trainer_for(rows, tmp_path, max_steps=4)
    with torch.no_grad():
        trainer.model.classifier.bias[0] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"at step 0 .*No clip has finite scores: an earlier step broke"):
        trainer.train()


@pytest.mark.parametrize(
    "values",
    [
        {"logging_steps": 3, "save_strategy": "no"},
        {"logging_strategy": "no", "save_steps": 3},
        {"logging_strategy": "no", "save_strategy": "no", "eval_strategy": "steps", "eval_steps": 3},
        {"logging_strategy": "no", "save_strategy": "no"},
    ],
)
def test_losses_are_looked_at_before_anything_is_made_of_them(rows, tmp_path, values):
    """The batch that was bad is named, however many steps later; nothing is saved of the weights that it spoiled."""
    trainer = trainer_for(rows, tmp_path, **{**values, "per_device_train_batch_size": 2, "max_steps": 5})
    bad = list(trainer._get_train_sampler())[2]
    trainer.train_dataset = ItemsWithNaN(trainer.train_dataset, bad)
    with pytest.raises(NonFiniteLossError, match=r"at step 1 .*not finite for: ") as caught:
        trainer.train()
    assert rows["train"]["clip_id"][bad] in str(caught.value)
    assert not list(tmp_path.glob("checkpoint-*")) and not trainer.state.log_history


class CountReads(TorchDispatchMode):
    """Counts how often a number of a tensor is read, for which a device has to be waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_its_loss(rows, tmp_path, monkeypatch):
    trainer = trainer_for(rows, tmp_path, max_steps=4, save_strategy="no", logging_strategy="no")
    counts = []
    compute_loss = trainer.compute_loss

    def count_reads(*args, **kwargs):
        with CountReads() as mode:
            loss = compute_loss(*args, **kwargs)
        counts.append(mode.count)
        return loss

    monkeypatch.setattr(trainer, "compute_loss", count_reads)
    checked = []
    monkeypatch.setattr(type(trainer), "check_losses", lambda self: checked.append(self.state.global_step))
    trainer.train()
    assert counts == [0, 0, 0, 0] and checked == [2, 4]
    # The library's own look at each loss is off, too.
    assert trainer.args.logging_nan_inf_filter is False


def test_clips_of_other_data_sets_are_numbered(rows, tmp_path):
    clips = ClipDataset(rows["train"], CLIPMGProcessor.from_model_config(CLIPMGConfig(**TINY)))
    assert name_clips(clips, [2]) == [rows["train"]["clip_id"][2]]
    assert name_clips([1, 2, 3], [2]) == ["number 2"]
    with pytest.raises(ValueError, match="tells no labels"):
        trainer = trainer_for(rows, tmp_path, options={"sampling_power": 1.0})
        trainer.train_dataset = [1, 2, 3]
        trainer._get_train_sampler()


@pytest.mark.parametrize("part", ["weights", "optimizer", "state", "projection"])
def test_a_full_disk_leaves_nothing_half_written(rows, tmp_path, monkeypatch, part):
    options = {"loss_settings": LossSettings(label_embedding_weight=0.5)}
    trainer = trainer_for(rows, tmp_path, options=options)
    complete = {}

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    class FillDisk(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:
                complete.update({path.name: path.read_bytes() for path in (tmp_path / "checkpoint-2").iterdir()})
                if part == "weights":
                    # Real: no file may grow beyond this, and the failure comes in the middle of writing.
                    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit))
                elif part == "optimizer":
                    monkeypatch.setattr(torch, "save", fail)
                elif part == "state":
                    monkeypatch.setattr(type(state), "save_to_json", fail)
                else:
                    monkeypatch.setattr(trainer.loss_module, "save_projection", fail)

    trainer.add_callback(FillDisk())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(Exception, match=r"space|too large") as caught:
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    assert "checkpoint-4 could not be saved" in caught.value.__notes__[0]
    assert f"newest complete checkpoint is {tmp_path / 'checkpoint-2'}" in caught.value.__notes__[0]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoint-2").iterdir()} == complete
    resumed = trainer_for(rows, tmp_path, options=options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4 and (tmp_path / "checkpoint-4").is_dir()


def test_a_final_model_replaces_the_old_one_as_a_whole(rows, tmp_path, monkeypatch):
    trainer = trainer_for(rows, tmp_path)
    trainer.save_model()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with torch.no_grad():
        trainer.model.classifier.bias.fill_(3.0)
    with monkeypatch.context() as context:
        context.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="space"):
            trainer.save_model()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    trainer.save_model()
    assert load_file(tmp_path / "model.safetensors")["classifier.bias"].eq(3).all()


def test_incomplete_checkpoints_are_ignored(rows, tmp_path, caplog):
    trainer_for(rows, tmp_path, save_steps=1, num_train_epochs=2).train()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    weights = tmp_path / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-2" / "model.safetensors").unlink()
    shutil.copytree(tmp_path / "checkpoint-1", tmp_path / "_partial-checkpoint-9" / "checkpoint-9")
    with caplog.at_level(logging.WARNING, logger="clipmg_hf.run_checkpoints"):
        assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert all(f"checkpoint-{number} is ignored" in caplog.text for number in (2, 3, 4))
    first = tmp_path / "checkpoint-1"
    assert find_damage(first) is None
    states = {"optimizer.pt": "optimizer", "scheduler.pt": "scheduler", "rng_state.pth": "random numbers"}
    for name, what in states.items():
        content = (first / name).read_bytes()
        (first / name).write_bytes(content[:-100])
        assert find_damage(first) == f"{name} is cut short"
        (first / name).unlink()
        assert find_damage(first).startswith(f"it has no state of {what}")
        assert find_damage(first, save_only_model=True) is None
        with pytest.raises(ValueError, match=f"checkpoint-1: it has no state of {what}"):
            trainer_for(rows, tmp_path).train(resume_from_checkpoint=str(first))
        (first / name).write_bytes(content)
    resumed = trainer_for(rows, tmp_path, save_strategy="no")
    resumed.train(resume_from_checkpoint=True)
    assert len(losses(resumed)) == 4
    with pytest.raises(ValueError, match="no complete checkpoint"):
        trainer_for(rows, tmp_path / "empty").train(resume_from_checkpoint=True)


def test_a_run_that_saves_models_alone_goes_on_from_them(rows, tmp_path):
    trainer_for(rows, tmp_path, save_only_model=True).train()
    resumed = trainer_for(rows, tmp_path, save_only_model=True, num_train_epochs=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path, save_only_model=True) is not None


MODEL = {
    "config.json", "model.safetensors", "processor_config.json", "modeling_clipmg.py", "processing_clipmg.py",
    "requirements.txt", "README.md", "experiment.json", "trainer_state.json",
}  # fmt: skip
STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "model.safetensors"}


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_every_save_is_pushed_whole_in_one_commit(rows, tmp_path, hub, monkeypatch, strategy):
    repo_id, api = hub.repository("pushed"), hub.api()
    values = {
        "save_steps": 2, "save_total_limit": 1, "push_to_hub": True, "hub_strategy": strategy, "hub_always_push": True,
        "hub_model_id": repo_id, "hub_token": api.token,
    }  # fmt: skip
    started = threading.Event()

    def push_late(folder, *args, **kwargs):
        # The first checkpoint is gone by then.
        started.wait(60)
        return push_folder(folder, *args, **kwargs)

    monkeypatch.setattr(hub_runs, "push_folder", push_late)
    trainer = trainer_for(rows, tmp_path, **values)
    finish = trainer._finish_current_push

    def start_and_finish():
        started.set()
        finish()

    monkeypatch.setattr(trainer, "_finish_current_push", start_and_finish)
    trainer.train()
    last, first = api.list_repo_commits(repo_id)[:2]
    assert (first.title, last.title) == ("Training in progress, step 2", "Training in progress, step 4")
    folders = {"every_save": [], "checkpoint": ["last-checkpoint"]}
    for commit, steps in ((first, (2,)), (last, (2, 4))):
        names = set(api.list_repo_files(repo_id, revision=commit.commit_id))
        expected = folders.get(strategy, [f"checkpoint-{step}" for step in steps])
        assert {name.partition("/")[0] for name in names if "/" in name} == set(expected)
        assert names >= MODEL | {f"{folder}/{name}" for folder in expected for name in STATE}
        assert not any(name.endswith("training_args.bin") for name in names)
    assert {path.name for path in tmp_path.glob("*checkpoint*")} == {"checkpoint-4"}
    assert not list(tmp_path.glob("_partial*"))
    trainer.push_to_hub(license="mit", tags="mine")
    card = ModelCard.load(api.hf_hub_download(repo_id, "README.md", local_dir=tmp_path / "pulled"))
    assert card.data.license == "mit" and "mine" in card.data.tags and repo_id in card.text
    assert api.list_repo_commits(repo_id)[0].title == "End of training"


def test_a_push_that_fails_is_said_and_stops_nothing(rows, tmp_path, hub, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise PushError("the Hub is on fire")

    monkeypatch.setattr(hub_runs, "push_folder", fail)
    values = {"push_to_hub": True, "hub_model_id": hub.repository("failing"), "hub_token": hub.api().token}
    trainer = trainer_for(rows, tmp_path, hub_always_push=True, **values)
    with caplog.at_level(logging.ERROR, logger="clipmg_hf.hub_runs"):
        trainer.train()
    for step in (2, 4):
        assert (
            f"Training in progress, step {step}: not pushed to {trainer.hub_model_id}: the Hub is on fire"
            in caplog.text
        )
    assert "The newest save is not on the Hub" in caplog.text
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4" and not list(tmp_path.glob("_partial*"))
    with pytest.raises(PushError, match="on fire"):
        trainer.push_to_hub()
    assert (tmp_path / "model.safetensors").is_file()


def test_a_wrong_token_stops_a_run_before_it_begins(rows, tmp_path, hub):
    with pytest.raises(OSError, match="401"):
        trainer_for(rows, tmp_path, push_to_hub=True, hub_model_id=hub.repository("x"), hub_token="hf_wrong")


def test_adapters_are_pushed_as_the_merged_model(rows, tmp_path, hub):
    pytest.importorskip("peft")
    config = CLIPMGConfig(**TINY)
    model = CLIPMGForMicroGestureClassification(config)
    model = add_lora(model, ModelArguments(lora_rank=2), tmp_path / "base", is_main=True)
    repo_id, api = hub.repository("lora"), hub.api()
    args = TrainingArguments(
        str(tmp_path / "run"), use_cpu=True, report_to=[], max_steps=1, save_steps=1, disable_tqdm=True,
        per_device_train_batch_size=5, push_to_hub=True, hub_model_id=repo_id, hub_token=api.token,
    )  # fmt: skip
    trainer = make_trainer(model, CLIPMGProcessor.from_model_config(config), rows["train"], None, args)
    trainer.train()
    assert (tmp_path / "run" / "checkpoint-1" / "adapter_model.safetensors").is_file()
    pulled = api.snapshot_download(repo_id, local_dir=tmp_path / "pulled")
    assert {path.name for path in Path(pulled).iterdir()} >= MODEL - {"trainer_state.json"}
    merged = AutoModelForVideoClassification.from_pretrained(pulled)
    inputs = {name: tensor[None] for name, tensor in trainer.train_dataset[0].items() if name != "labels"}
    torch.testing.assert_close(merged(**inputs).logits, trainer.model.eval()(**inputs).logits, atol=1e-5, rtol=0)


def test_tensorboard_receives_the_losses(rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = trainer_for(rows, tmp_path, report_to=["tensorboard"], max_steps=3, save_strategy="no")
    trainer.train()
    (folder,) = {path.parent for path in (tmp_path / "runs").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    written = [event.value for event in events.Scalars("train/loss")]
    assert written == pytest.approx(losses(trainer), rel=1e-5)


def test_trackio_receives_the_losses(rows, tmp_path, monkeypatch):
    # Read at import, so before the library loads it.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    trainer = trainer_for(rows, tmp_path, report_to=["trackio"], project="clipmg", max_steps=3, save_strategy="no")
    trainer.train()
    (run,) = SQLiteStorage.get_runs("clipmg")
    logged = [entry["train/loss"] for entry in SQLiteStorage.get_logs("clipmg", run) if "train/loss" in entry]
    assert logged == pytest.approx(losses(trainer))


def test_hyper_parameters_are_searched_through_the_library(rows, tmp_path):
    pytest.importorskip("optuna")
    config = CLIPMGConfig(**TINY)
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], max_steps=1, disable_tqdm=True, save_strategy="no",
        eval_strategy="steps", eval_steps=1, per_device_train_batch_size=4,
    )  # fmt: skip
    trainer = make_trainer(
        None,
        CLIPMGProcessor.from_model_config(config),
        rows["train"],
        rows["validation"],
        args,
        model_init=lambda trial: CLIPMGForMicroGestureClassification(config),
        loss_settings=LossSettings(label_embedding_weight=0.5),
        learning_rate_factors=FACTORS,
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        compute_objective=lambda metrics: metrics["eval_mean_class_accuracy"],
        direction="maximize",
        n_trials=2,
        backend="optuna",
    )
    assert 1e-4 <= best.hyperparameters["learning_rate"] <= 1e-2 and 0 <= best.objective <= 1
