"""Arguments, starting points and whole runs: every shipped configuration, both stages, LoRA, and unusable input."""

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import TINY, VISION, command_line
from transformers import CLIPVisionConfig, CLIPVisionModel

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.arguments import make_parser, parse_arguments, read_config
from clipmg_hf.data import DatasetFormatError, load_imigue
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.data.synthetic_layouts import write_layout
from clipmg_hf.experiment import (
    build_processor,
    check_processes,
    learning_rate_factors,
    prepare_experiment,
    run_experiment,
)
from clipmg_hf.inference import load_model
from clipmg_hf.model_building import load_pose_encoder
from clipmg_hf.modeling.pose_encoder_clipmg import POSE_ENCODER_PREFIX


CONFIGS = Path(__file__).parents[2] / "hub_scripts" / "configs"
EXPERIMENTS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith("accelerate"))
# The shape of a run that takes seconds: tiny layers, two steps, one process.
SMALL = {
    **TINY, "max_steps": "2",
    "per_device_train_batch_size": "4", "per_device_eval_batch_size": "8", "gradient_accumulation_steps": "1",
    "dataloader_num_workers": "0", "dataloader_persistent_workers": "false", "logging_steps": "1", "use_cpu": "true",
    "eval_strategy": "steps", "eval_steps": "2", "save_strategy": "steps", "save_steps": "2", "report_to": "none",
    "disable_tqdm": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny synthetic data set in each layout, and a tiny CLIP tower."""
    root = tmp_path_factory.mktemp("data")
    config = SyntheticConfig(
        seed=6, num_train_subjects=2, num_validate_subjects=1, num_test_subjects=0, clips_per_video=8,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    generate_dataset(root / "imigue", config, show_progress=False)
    for layout in ("smg", "ma52"):
        write_layout(root / layout, layout)
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(root / "clip")
    return root


def parse(folders, output_dir, config=None, data="imigue", **values):
    """Arguments of a small run; values of `None` leave out what would be given."""
    given = {"data_dir": str(folders / data), "data_cache_dir": str(folders / "cache"), "output_dir": str(output_dir)}
    return parse_arguments(([] if config is None else [str(config)]) + command_line({**given, **SMALL, **values}))


def run(folders, output_dir, **values):
    experiment = prepare_experiment(parse(folders, output_dir, **values))
    return experiment, run_experiment(experiment)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_configuration_runs(folders, tmp_path, name):
    path = CONFIGS / f"{name}.yaml"
    given = read_config(path)
    data = given["dataset"]
    values = {"bf16": "false", "vision_config": None}
    if "clip_checkpoint" in given:
        values["clip_checkpoint"] = str(folders / "clip")
    elif name == "synthetic":
        values |= {"num_trainable_vision_layers": "-1", "vision_config": VISION}
    _, metrics = run(folders, tmp_path, config=path, data=data, **values)
    assert 0 <= metrics["eval_top1"] <= 1 and "eval_mean_class_accuracy" in metrics
    model, processor = load_model(tmp_path)
    expected = {
        "fusion": "pose" if given.get("stage") == "pose" else given.get("fusion", "gated"),
        "use_semantic_attention": given.get("use_semantic_attention", True),
        "keypoint_layout": given.get("keypoint_layout", "imigue-22"),
    }
    assert {key: getattr(model.config, key) for key in expected} == expected
    assert len(model.config.id2label) == {"imigue": 32, "smg": 17, "ma52": 52}[data]
    assert processor.keypoint_layout == expected["keypoint_layout"]
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["train"]["clips"] > record["evaluation"]["clips"] > 0 and record["processes"] == 1
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["global_step"] == 2 and [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2]


def test_the_headers_say_command_cost_and_expected_result():
    assert set(EXPERIMENTS) == {
        *("imigue_full", "imigue_no_pose", "imigue_pose_only", "imigue_no_attention", "imigue_concat"),
        *("smg", "ma52", "synthetic", "synthetic_frozen"),
    }
    for name in EXPERIMENTS:
        text = (CONFIGS / f"{name}.yaml").read_text()
        assert f"configs/{name}.yaml" in text
        assert all(f"# {word}" in text for word in ("Command:", "Cost:", "Expected:"))


def test_files_and_command_line(tmp_path):
    flat = tmp_path / "flat.json"
    flat.write_text(json.dumps({"fusion": "concat", "learning_rate": 1e-3, "pose_stage_blocks": [1, 2, 3]}))
    nested = tmp_path / "nested.yaml"
    # 1e-3 is a string in YAML 1.1: types come from the arguments.
    nested.write_text("model:\n  fusion: concat\n  pose_stage_blocks: [1, 2, 3]\ntrain:\n  learning_rate: 1e-3\n")
    for path in (flat, nested):
        arguments = parse_arguments([str(path), "--output_dir", str(tmp_path)])
        assert arguments.config == {"fusion": "concat", "pose_stage_blocks": [1, 2, 3]}
        assert arguments.training.learning_rate == 1e-3
    words = ["--fusion=sum", "--learning_rate", "null", "--augmentation_area", "0.5", "1", "--use_cpu", "--seed", "7"]
    arguments = parse_arguments([str(nested), *words])
    assert arguments.config["fusion"] == "sum" and arguments.training.learning_rate == 5e-5
    assert arguments.processor == {"augmentation_area": [0.5, 1.0]}
    assert arguments.training.use_cpu and arguments.training.seed == 7
    arguments = parse_arguments(["--vision_config", json.dumps(VISION), "--focal_gamma", "2"])
    assert arguments.config == {"vision_config": VISION} and arguments.loss.focal_gamma == 2


def test_every_field_of_model_and_processor_is_an_argument():
    names = {action.dest for action in make_parser()._actions}
    assert set(CLIPMGConfig.__annotations__) <= names
    assert {"crop_padding", "augmentation_area", "augmentation_flip", "augmentation_drop_pose"} <= names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rat", "1"], r"learning_rat \(did you mean learning_rate\?\)"),
        (["--fusoin", "sum"], r"fusoin \(did you mean fusion\?\)"),
        (["--augmentation_flp", "0"], r"did you mean augmentation_flip"),
        (["--fusion", "gatd"], r"fusion.*'gatd'.*'gated'"),
        (["--max_steps", "many"], "max_steps.*'many'"),
        (["--vision_config", "tiny"], "vision_config is 'tiny'; expected a mapping"),
        (["--label_smoothing", "2"], r"label_smoothing is 2.0; expected a number in \[0, 1\)"),
        (["--seed", "1", "--seed"], "seed"),
    ],
)
def test_typos_and_wrong_values_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--feature_views", "2"], "feature_views=2 has no effect without a feature_cache"),
        (["--feature_precision", "float32"], "feature_precision='float32' has no effect without a feature_cache"),
        (["--fold", "1"], "fold=1 has no effect without protocol='folds'"),
        (["--lora_alpha", "8", "--lora_dropout", "0.1"], "lora_alpha=8 .* a lora_rank above 0; lora_dropout=0.1 has"),
        (["--lora_targets", "q_proj"], "lora_targets='q_proj' has no effect without a lora_rank"),
        (["--lora_factor", "2"], "lora_factor=2.0 has no effect without a lora_rank"),
        (["--effective_number_beta", "0.9"], "effective_number_beta=0.9 has no effect without class_weighting="),
        (["--label_embedding_distance", "mse"], "label_embedding_distance='mse' has no effect without a label_emb"),
        (["--clip_checkpoint", "c", "--vision_config", "{}"], "vision_config has no effect with a clip_checkpoint"),
    ],
)
def test_options_without_effect_are_named(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(words)
    # Where they have one, or ask for nothing, they pass.
    parse_arguments(["--feature_cache", "f", "--feature_views", "2", "--lora_rank", "2", "--lora_alpha", "8"])
    parse_arguments(["--feature_views", "0", "--lora_factor", "1", "--protocol", "folds", "--fold", "1"])


def test_freezing_the_batch_norms_of_no_pose_encoder_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="freeze_batch_norm=True has no effect: a model with fusion='visual'"):
        prepare_experiment(parse(folders, tmp_path, fusion="visual", freeze_batch_norm="true"))


def test_a_configuration_replaces_values_of_its_base(tmp_path):
    (tmp_path / "full.yaml").write_text("model:\n  fusion: gated\n  query: pose\nrun:\n  seed: 3\n")
    (tmp_path / "part").mkdir()
    part = tmp_path / "part" / "concat.yaml"
    part.write_text("base: ../full.yaml\nmodel:\n  fusion: concat\n  query: null\n")
    assert read_config(part) == {"fusion": "concat", "query": None, "seed": 3}
    arguments = parse_arguments([str(part), "--seed", "4"])
    assert arguments.config == {"fusion": "concat"} and arguments.training.seed == 4
    part.with_name("next.yaml").write_text("base: concat.yaml\n")
    with pytest.raises(ValueError, match=r"next\.yaml has the base .*concat\.yaml, which has a base itself"):
        read_config(part.with_name("next.yaml"))
    (tmp_path / "lost.yaml").write_text("base: absent.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"no configuration .*absent\.yaml"):
        read_config(tmp_path / "lost.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  fusoin: sum\n", r"config\.yaml: unknown fusoin \(did you mean fusion\?\)"),
        ("fusion: sum\nmodel:\n  fusion: sum\n", "gives fusion twice"),
        ("- fusion\n", "holds a list"),
        ("a: [", "cannot be read"),
    ],
)
def test_unusable_files_are_named(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(path)])
    with pytest.raises(FileNotFoundError, match="no configuration"):
        parse_arguments([str(tmp_path / "absent.yaml")])


def test_two_stages(folders, tmp_path):
    pose, _ = run(folders, tmp_path / "pose", stage="pose", fusion="gated")
    assert pose.trainer.model.vision_tower is None
    assert "pixel_values" not in pose.trainer.train_dataset[0]
    assert learning_rate_factors(pose.arguments)["pose_encoder_factor"] == 1.0
    joint = prepare_experiment(parse(folders, tmp_path / "joint", pose_checkpoint=str(tmp_path / "pose")))
    weights = load_file(tmp_path / "pose" / "model.safetensors")
    taken = {name for name, tensor in joint.trainer.model.state_dict().items() if POSE_ENCODER_PREFIX in name}
    assert taken and all(torch.equal(joint.trainer.model.state_dict()[name].cpu(), weights[name]) for name in taken)
    rates = {group["name"]: group["lr"] for group in joint.trainer.create_optimizer().param_groups}
    assert rates["pose_encoder"] == pytest.approx(rates["head"] / 10)
    with pytest.raises(ValueError, match=r"another pose encoder: .*pose_base_width is 4 there, 8 here"):
        prepare_experiment(
            parse(folders, tmp_path / "joint", pose_checkpoint=str(tmp_path / "pose"), pose_base_width="8")
        )
    with pytest.raises(ValueError, match="fusion='visual' reads no pose"):
        prepare_experiment(parse(folders, tmp_path / "joint", pose_checkpoint=str(tmp_path / "pose"), fusion="visual"))


def tiny_model(**values):
    return CLIPMGForMicroGestureClassification(CLIPMGConfig(**{**TINY, **values}))


def poseconv3d_weights(model, num_keypoints=22):
    """The pose encoder under the names that PYSKL saves."""
    weights = {
        "backbone." + name.removeprefix(POSE_ENCODER_PREFIX): torch.randn_like(tensor.float()).to(tensor.dtype)
        for name, tensor in model.state_dict().items()
        if name.startswith(POSE_ENCODER_PREFIX)
    }
    stem = weights["backbone.conv1.conv.weight"]
    weights["backbone.conv1.conv.weight"] = torch.randn(stem.shape[0], num_keypoints, *stem.shape[2:])
    return weights | {"cls_head.fc_cls.weight": torch.zeros(60, 64)}


def test_poseconv3d_checkpoints_are_read_without_unpickling(tmp_path, caplog):
    torch.manual_seed(0)
    model = tiny_model()
    weights = poseconv3d_weights(model)
    torch.save({"meta": {"epoch": 3}, "state_dict": weights}, tmp_path / "pyskl.pth")
    load_pose_encoder(model, str(tmp_path / "pyskl.pth"))
    name = "layer1.0.conv2.conv.weight"
    assert torch.equal(model.state_dict()[POSE_ENCODER_PREFIX + name], weights[f"backbone.{name}"])

    stem = model.state_dict()[f"{POSE_ENCODER_PREFIX}conv1.conv.weight"].clone()
    torch.save(poseconv3d_weights(model, num_keypoints=17), tmp_path / "coco.pth")
    with caplog.at_level(logging.WARNING):
        load_pose_encoder(model, str(tmp_path / "coco.pth"))
    assert "reads 17 keypoints, the model 22" in caplog.text
    assert torch.equal(model.state_dict()[f"{POSE_ENCODER_PREFIX}conv1.conv.weight"], stem)

    torch.save(poseconv3d_weights(tiny_model(pose_base_width=8)), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="another pose encoder"):
        load_pose_encoder(model, str(tmp_path / "wide.pth"))
    torch.save({"state_dict": weights, "hook": Path("x")}, tmp_path / "objects.pth")
    with pytest.raises(DatasetFormatError, match="as a file of tensors alone"):
        load_pose_encoder(model, str(tmp_path / "objects.pth"))
    for content in (torch.zeros(3), [torch.zeros(3)], {"state_dict": [1]}, {"weight": 1}, {1: torch.zeros(3)}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(
            DatasetFormatError, match=r"other\.pth holds a \w+ without named weights; expected tensors"
        ):
            load_pose_encoder(model, str(tmp_path / "other.pth"))
    with pytest.raises(FileNotFoundError, match="no pose_checkpoint"):
        load_pose_encoder(model, str(tmp_path / "absent.pth"))


def test_lora_saves_an_adapter_that_loads_and_merges(folders, tmp_path):
    values = {"vision_config": None, "clip_checkpoint": str(folders / "clip"), "learning_rate": "1e-2"}
    # Of an earlier run in the folder, with other weights, nothing may stay.
    run(folders, tmp_path, lora_rank="4", max_steps="1", save_strategy="no")
    experiment, _ = run(folders, tmp_path, lora_rank="4", lora_dropout="0.1", max_steps="4", **values)
    inputs = {name: tensor[None] for name, tensor in experiment.trainer.eval_dataset[0].items() if name != "labels"}
    base = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path / "base")
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "base"
    )
    changed = [name for name, tensor in adapted.named_parameters() if "lora_B" in name and tensor.abs().max() > 0]
    assert len(changed) == 2 * 2
    with torch.no_grad():
        logits = adapted(**inputs).logits
        plain = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path / "base")
        assert not torch.allclose(logits, plain(**inputs).logits, atol=1e-3)
        merged, _ = load_model(tmp_path, device="cpu")
        torch.testing.assert_close(merged(**inputs).logits, logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(adapted.merge_and_unload()(**inputs).logits, logits, atol=1e-5, rtol=0)
    clip = load_file(folders / "clip" / "model.safetensors")
    tower = load_file(tmp_path / "base" / "model.safetensors")
    name = "encoder.layers.0.mlp.fc1.weight"
    (ours,) = (tensor for key, tensor in tower.items() if key.endswith(name))
    (theirs,) = (tensor for key, tensor in clip.items() if key.endswith(name))
    assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="needs a frozen tower"):
        prepare_experiment(parse(folders, tmp_path / "b", lora_rank="4", num_trainable_vision_layers="1"))


def test_a_run_on_kept_features(folders, tmp_path):
    values = {"feature_cache": str(tmp_path / "features"), "feature_precision": "float32"}
    experiment, _ = run(folders, tmp_path / "run", augment="false", **values)
    assert "vision_tokens" in experiment.trainer.train_dataset[0]
    views, _ = run(folders, tmp_path / "views", feature_views="2", **values)
    assert views.trainer.train_dataset.num_views == 2
    with pytest.raises(ValueError, match="expected no augmentation"):
        prepare_experiment(parse(folders, tmp_path / "b", **values))
    with pytest.raises(ValueError, match="expected num_trainable_vision_layers=0"):
        prepare_experiment(parse(folders, tmp_path / "c", num_trainable_vision_layers="1", augment="false", **values))


def test_continuing_from_a_checkpoint(folders, tmp_path):
    run(folders, tmp_path / "first")
    first = str(tmp_path / "first")
    only = dict.fromkeys(TINY)
    experiment = prepare_experiment(
        parse(folders, tmp_path / "second", **only, model_name_or_path=first, hidden_dropout_prob="0.3")
    )
    weights = load_file(tmp_path / "first" / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in experiment.trainer.model.state_dict().items())
    assert experiment.trainer.model.config.hidden_dropout_prob == 0.3
    with pytest.raises(
        ValueError, match="query is 'fused' in the checkpoint, 'pose' was asked for; fusion is 'gated'"
    ):
        prepare_experiment(
            parse(folders, tmp_path / "third", **only, model_name_or_path=first, fusion="concat", query="pose")
        )
    with pytest.raises(ValueError, match="has 32 classes, the data 17; only in the data: "):
        prepare_experiment(parse(folders, tmp_path / "third", data="smg", **only, model_name_or_path=first))


def test_missing_splits_streams_and_classes_are_named(folders, tmp_path, caplog):
    with pytest.raises(ValueError, match=r"has no split 'held_out'; it has train, validation.*--validation 0\.2"):
        prepare_experiment(parse(folders, tmp_path, eval_split="held_out"))
    assert parse(folders, tmp_path, eval_split="held_out", eval_strategy="no", eval_steps=None)
    with pytest.raises(ValueError, match="holds the data set 'smg'; expected 'imigue'"):
        prepare_experiment(parse(folders, tmp_path, data="smg", dataset="imigue"))
    with pytest.raises(ValueError, match="data_dir is missing"):
        prepare_experiment(parse(folders, tmp_path, data_dir=None))
    with pytest.raises(ValueError, match=r"no keypoints, which a model with fusion='gated' needs.*--fusion visual"):
        prepare_experiment(parse(folders, tmp_path, data="ma52"))
    options = {"balanced_sampling": "0.5", "class_weighting": "inverse_sqrt", "logit_adjustment": "1"}
    for given in ({}, options):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="clipmg_hf.experiment"):
            prepare_experiment(parse(folders, tmp_path, **given))
        assert "classes have no training clip" in caplog.text and "'Turtle neck'" in caplog.text
    # Each formula has an answer for such a class: it trains.
    _, metrics = run(folders, tmp_path, **options)
    assert math.isfinite(metrics["train_loss"]) and math.isfinite(metrics["eval_loss"])


def test_data_without_rgb_trains_the_pose_encoder_alone(folders, tmp_path):
    pack = write_layout(tmp_path / "pack", "miga", rgb=False)
    values = {"data_dir": str(pack), "data_cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ValueError, match=r"no video, which a model with fusion='gated' needs.*--fusion pose"):
        prepare_experiment(parse(folders, tmp_path / "run", **values))
    _, metrics = run(folders, tmp_path / "run", stage="pose", **values)
    assert "eval_top1" in metrics


def test_a_second_run_does_not_mix_with_the_first(folders, tmp_path):
    run(folders, tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run"):
        prepare_experiment(parse(folders, tmp_path))
    experiment, _ = run(folders, tmp_path, resume_from_checkpoint="last", max_steps="4")
    assert experiment.trainer.state.global_step == 4
    fresh, _ = run(folders, tmp_path / "new", resume_from_checkpoint="last")
    assert fresh.trainer.state.global_step == 2


def test_a_second_process_that_would_train_alone_is_refused(folders, tmp_path, monkeypatch):
    arguments = parse(folders, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were launched, but training sees 1"):
        check_processes(arguments)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="would run DDP on CPUs"):
        check_processes(arguments)


def test_the_processor_gets_what_is_given(folders, tmp_path):
    arguments = parse(
        folders, tmp_path, augmentation_area=(0.3, 0.9), augmentation_drop_pose="0.25", crop_padding="0.1"
    )
    processor = build_processor(arguments, CLIPMGConfig())
    assert processor.augmentation_area == (0.3, 0.9) and processor.augmentation_drop_pose == 0.25
    assert processor.crop_padding == 0.1 and processor.augmentation_flip == 0.5
    assert asdict(arguments.loss)["label_embedding_weight"] == 0
    assert load_imigue(folders / "imigue", cache_dir=folders / "cache")["train"].num_rows == 16
