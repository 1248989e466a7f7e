"""Parameter groups of every kind of model, and the step and the schedule that follow from them."""

import math
from collections import Counter

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import TINY
from transformers import Trainer, TrainingArguments

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGModel
from clipmg_hf.losses import ClassificationLoss, LossSettings
from clipmg_hf.optimization import PARTS, make_optimizer, parameter_groups, part_of_parameter


ADAPTED = r".*vision_model\..*\.(q_proj|v_proj)"


def make_model(model_class=CLIPMGForMicroGestureClassification, **values):
    torch.manual_seed(0)
    return model_class(CLIPMGConfig(**{**TINY, **values}))


def named_groups(model, **options):
    """Names of the parameters of each group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        group["name"]: [names[parameter] for parameter in group["params"]]
        for group in parameter_groups(model, 1.0, 0.05, **options)
    }


def make_arguments(tmp_path, **values):
    return TrainingArguments(str(tmp_path), learning_rate=0.1, weight_decay=0.0, use_cpu=True, report_to=[], **values)


def make_lora_model(**values):
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=ADAPTED, **values))
    # As for fine-tuning: everything but the tower's own weights.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_model" not in name or "lora_" in name)
    return model


MODELS = {
    "frozen": lambda: make_model(),
    "one layer": lambda: make_model(num_trainable_vision_layers=1),
    "whole tower": lambda: make_model(num_trainable_vision_layers=-1),
    "pose": lambda: make_model(fusion="pose"),
    "visual": lambda: make_model(fusion="visual"),
    "concat": lambda: make_model(fusion="concat", query="pose_pool"),
    "no attention": lambda: make_model(use_semantic_attention=False),
    "no head": lambda: make_model(CLIPMGModel, num_trainable_vision_layers=1),
    "lora": make_lora_model,
    "dora": lambda: make_lora_model(use_dora=True),
    "modules to save": lambda: get_peft_model(
        make_model(), LoraConfig(r=2, target_modules=ADAPTED, modules_to_save=["fusion", "classifier", "null_pose"])
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_trainable_parameter_is_in_exactly_one_group(name):
    model = MODELS[name]()
    groups = parameter_groups(model, 1.0, 0.05)
    counted = Counter(parameter for group in groups for parameter in group["params"])
    assert set(counted.values()) == {1}
    assert set(counted) == {parameter for parameter in model.parameters() if parameter.requires_grad}
    assert all(group["params"] and group["name"].removesuffix(".no_decay") in PARTS for group in groups)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("frozen", {"fusion", "head", "pose_encoder"}),
        ("whole tower", {"fusion", "head", "pose_encoder", "vision"}),
        ("pose", {"fusion", "head", "pose_encoder"}),
        ("visual", {"fusion", "head"}),
        ("no head", {"fusion", "pose_encoder", "vision"}),
        ("lora", {"fusion", "head", "pose_encoder", "lora"}),
        ("modules to save", {"fusion", "head", "lora"}),
    ],
)
def test_models_have_the_groups_of_their_parts(name, parts):
    assert {group.removesuffix(".no_decay") for group in named_groups(MODELS[name]())} == parts


def test_parameters_belong_to_their_parts():
    parts = {
        "clipmg.vision_model.encoder.layers.0.self_attn.q_proj.weight": "vision",
        "clipmg.pose_encoder.conv1.conv.weight": "pose_encoder",
        "clipmg.semantic_query.norm.weight": "fusion",
        "clipmg.semantic_query.null_pose.weight": "fusion",
        "clipmg.temporal_embedding.weight": "fusion",
        "clipmg.fusion.gate.bias": "fusion",
        "norm.weight": "head",
        "classifier.bias": "head",
        "fusion.gate.weight": "fusion",
        "pose_encoder.conv1.bn.bias": "pose_encoder",
        "base_model.model.classifier.modules_to_save.default.weight": "head",
        "base_model.model.clipmg.pose_encoder.conv1.conv.lora_A.default.weight": "lora",
        "module.base_model.model.clipmg.vision_model.encoder.layers.0.self_attn.q_proj.lora_B.default.weight": "lora",
        "_orig_mod.norm.bias": "head",
    }
    assert {name: part_of_parameter(name) for name in parts} == parts


def test_norms_biases_and_embeddings_do_not_decay():
    model = make_model(num_trainable_vision_layers=-1)
    groups = named_groups(model)
    undecayed = {name for group, names in groups.items() if group.endswith(".no_decay") for name in names}
    tokens = {
        "clipmg.vision_model.embeddings.class_embedding",
        "clipmg.vision_model.embeddings.position_embedding.weight",
        "clipmg.temporal_embedding.weight",
        "clipmg.semantic_query.null_pose.weight",
    }
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.LayerNorm | torch.nn.BatchNorm3d)
        for kind in ("weight", "bias")
    }
    biases = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert undecayed == tokens | norms | biases
    decays = {group["name"]: group["weight_decay"] for group in parameter_groups(model, 1.0, 0.05)}
    assert all(value == (0.0 if name.endswith(".no_decay") else 0.05) for name, value in decays.items())


def test_dora_magnitudes_do_not_decay():
    groups = named_groups(MODELS["dora"]())
    assert all("lora_magnitude_vector" in name for name in groups["lora.no_decay"])
    assert len(groups["lora"]) == 8 and len(groups["lora.no_decay"]) == 4


def test_frozen_parameters_are_left_out():
    model = make_model()
    model.clipmg.pose_encoder.requires_grad_(False)
    assert not any("pose_encoder" in group for group in named_groups(model))
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="CLIPMGForMicroGestureClassification has no trainable parameter"):
        parameter_groups(model, 1.0, 0.05)


def test_factors_multiply_the_learning_rate_and_the_full_rate_comes_first():
    model = make_lora_model()
    model.base_model.model.clipmg.vision_model.post_layernorm.requires_grad_(True)
    factors = {"pose_encoder_factor": 0.1, "vision_factor": 0.2, "lora_factor": 3.0, "head_factor": 5.0}
    groups = parameter_groups(model, 1e-3, 0.05, **factors)
    rates = {group["name"].removesuffix(".no_decay"): group["lr"] for group in groups}
    assert rates == pytest.approx({"fusion": 1e-3, "head": 5e-3, "pose_encoder": 1e-4, "vision": 2e-4, "lora": 3e-3})
    assert groups[0]["name"] == "fusion"
    with pytest.raises(ValueError, match="vision_factor is 0"):
        parameter_groups(model, 1e-3, 0.05, vision_factor=0)


def test_a_step_moves_each_part_by_its_learning_rate(tmp_path):
    model = make_model(num_trainable_vision_layers=-1)
    loss = ClassificationLoss(LossSettings(label_embedding_weight=1.0), [1, 2], ["Head up", "Folding arms"], 32)
    optimizer = make_optimizer(
        model, make_arguments(tmp_path, optim="sgd"), loss=loss, pose_encoder_factor=0.5, vision_factor=0.25
    )
    assert optimizer.param_groups[-1]["name"] == "loss"
    parameters = {**dict(model.named_parameters()), "loss": loss.projection}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    expected = {"pose_encoder": 0.05, "vision": 0.025}
    for name, parameter in parameters.items():
        moved = before[name] - parameter.detach()
        rate = expected.get(part_of_parameter(name), 0.1)
        torch.testing.assert_close(moved, torch.full_like(moved, rate), atol=1e-6, rtol=0, msg=name)


def test_the_cosine_schedule_of_trainer_scales_all_groups_alike(tmp_path):
    model = make_model()
    args = make_arguments(tmp_path, lr_scheduler_type="cosine", warmup_steps=0.05)
    trainer = Trainer(model, args, optimizers=(make_optimizer(model, args), None))
    scheduler = trainer.create_scheduler(num_training_steps=100)
    for step in range(101):
        scale = step / 5 if step < 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 95))
        rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
        assert rates["fusion"] == rates["head"] == pytest.approx(0.1 * scale)
        assert rates["pose_encoder"] == pytest.approx(0.01 * scale)
        trainer.optimizer.step()
        scheduler.step()


def test_the_options_of_the_arguments_reach_the_optimizer(tmp_path):
    optimizer = make_optimizer(make_model(), make_arguments(tmp_path, optim="adamw_torch", adam_beta2=0.98))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.98)}


@pytest.mark.parametrize("made", [(torch.optim.SGD, {"optimizer_dict": {}}), (lambda: None, {})])
def test_an_optimizer_with_groups_of_its_own_is_refused(tmp_path, monkeypatch, made):
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda args, model: made))
    with pytest.raises(ValueError, match="makes its own parameter groups"):
        make_optimizer(make_model(), make_arguments(tmp_path))
