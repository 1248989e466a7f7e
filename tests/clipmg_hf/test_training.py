"""Train -> save -> resume -> evaluate -> reload, through Trainer."""

import json

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, TrainingArguments, set_seed

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data import load_imigue
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.training import make_trainer


TINY = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "num_frames": 2,
    "pose_frames_per_frame": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "pose_base_width": 4,
    "pose_stage_blocks": (1, 1, 1),
    "heatmap_size": 16,
}


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


def trainer_for(rows, output_dir, config=None, **values):
    set_seed(0)
    config = CLIPMGConfig(**TINY, **(config or {}))
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
    processor = CLIPMGProcessor.from_model_config(config, augmentation_area=(1.0, 1.0), augmentation_flip=0.0)
    trainer = make_trainer(
        CLIPMGForMicroGestureClassification(config),
        processor,
        rows["train"],
        rows["validation"],
        TrainingArguments(output_dir=str(output_dir), **arguments),
    )
    # The same views in every run: what a resumed run must reproduce is the order of the clips and the optimizer.
    trainer.train_dataset.augment = False
    return trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_train_save_resume_evaluate_reload(rows, tmp_path):
    whole = trainer_for(rows, tmp_path / "whole")
    whole.train()
    assert len(losses(whole)) == 4

    resumed = trainer_for(rows, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert losses(resumed)[-2:] == pytest.approx(losses(whole)[-2:], abs=1e-5)

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


def test_evaluation_stores_only_logits(rows, tmp_path):
    prediction = trainer_for(rows, tmp_path).predict(trainer_for(rows, tmp_path).eval_dataset)
    assert prediction.predictions.shape == (10, 32)


def test_gradient_accumulation_equals_a_larger_batch(rows, tmp_path):
    curves = []
    for batch_size, steps in ((4, 1), (2, 2)):
        trainer = trainer_for(
            rows,
            tmp_path,
            # Without dropout and batch norms, whose draws and statistics differ between batches by nature.
            config={
                "fusion": "visual",
                "hidden_dropout_prob": 0.0,
                "attention_dropout": 0.0,
                "classifier_dropout": 0.0,
            },
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=2,
        )
        trainer.train()
        curves.append(losses(trainer))
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_the_configuration_of_a_checkpoint_is_complete(rows, tmp_path):
    trainer = trainer_for(rows, tmp_path, max_steps=1, save_steps=1)
    trainer.train()
    config = json.loads((tmp_path / "checkpoint-1" / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"}
