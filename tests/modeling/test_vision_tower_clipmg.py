"""The CLIP tower: taken from any CLIP checkpoint, frozen when it should be, adapted by LoRA."""

import json
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_clipmg import TINY, no_dropout, random_inputs, randomise, save_clip, tiny_config
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from clipmg_hf.modeling import CLIPMGForMicroGestureClassification, CLIPMGModel


LORA = {"r": 4, "lora_alpha": 8, "target_modules": r".*vision_model.*\.(q_proj|v_proj)", "lora_dropout": 0.0}


def tower_features(model, pixel_values):
    """What our model makes of the frames: CLS (B * T, D_v) and patches (B * T, N, D_v), seen where it reads them."""
    seen = []
    hook = model.vision_tower.post_layernorm.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        model(pixel_values)
    hook.remove()
    # The first call is CLIP's own, for its pooled output.
    return seen[-1][:, 0], seen[-1][:, 1:]


# --- from_clip


@pytest.mark.parametrize(("patch_size", "image_size"), [(16, 224), (32, 224), (14, 224), (14, 336), (16, 32)])
@pytest.mark.parametrize("vision_only", [False, True])
def test_features_equal_those_of_clip(tmp_path, patch_size, image_size, vision_only):
    save_clip(tmp_path, patch_size, image_size, vision_only)
    model = CLIPMGForMicroGestureClassification.from_clip(tmp_path, **TINY)
    clip = CLIPVisionModel.from_pretrained(tmp_path).eval()
    pixel_values = torch.randn(1, 2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = clip(pixel_values[0])
        patches = clip.post_layernorm(outputs.last_hidden_state)[:, 1:]
    features = tower_features(model, pixel_values)
    torch.testing.assert_close(features, (outputs.pooler_output, patches), atol=1e-5, rtol=0)
    assert features[1].shape[1] == (image_size // patch_size) ** 2
    assert not model.training and not any(parameter.requires_grad for parameter in model.vision_tower.parameters())


def test_sharded_and_projected_checkpoints_and_the_base_model(tmp_path):
    clip = save_clip(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    projected = randomise(CLIPVisionModelWithProjection(clip.config.vision_config))
    projected.save_pretrained(tmp_path / "projected")
    for folder, tower in (("sharded", clip.vision_model), ("projected", projected.vision_model)):
        model = CLIPMGModel.from_clip(tmp_path / folder, **TINY)
        for name, tensor in tower.state_dict().items():
            assert torch.equal(model.vision_tower.state_dict()[name], tensor), name


def test_dtype_labels_and_attention_are_settings(tmp_path):
    save_clip(tmp_path).half().save_pretrained(tmp_path)
    values = {"attn_implementation": "eager", "id2label": {0: "a", 1: "b"}, **TINY}
    model = CLIPMGForMicroGestureClassification.from_clip(tmp_path, **values)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.vision_tower.config._attn_implementation == model.config._attn_implementation == "eager"
    assert model.classifier.out_features == 2
    for dtype in (torch.bfloat16, "auto"):
        model = CLIPMGForMicroGestureClassification.from_clip(tmp_path, dtype=dtype, **TINY)
        expected = torch.float16 if dtype == "auto" else dtype
        assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert CLIPMGModel.from_clip(tmp_path, fusion="pose", **TINY).vision_tower is None


def test_from_clip_survives_a_round_trip(tmp_path):
    save_clip(tmp_path / "clip")
    model = CLIPMGForMicroGestureClassification.from_clip(tmp_path / "clip", num_trainable_vision_layers=1, **TINY)
    model.save_pretrained(tmp_path / "ours")
    loaded = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path / "ours")
    inputs = random_inputs(model.config)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert loaded.config.vision_config.to_dict() == model.config.vision_config.to_dict()


def test_other_checkpoints_are_clear_errors(tmp_path):
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**size, image_size=32)).save_pretrained(tmp_path / "siglip")
    CLIPTextModel(CLIPTextConfig(**size, vocab_size=50)).save_pretrained(tmp_path / "text")
    for folder, model_type in (("siglip", "siglip_vision_model"), ("text", "clip_text_model")):
        with pytest.raises(ValueError, match=rf"{folder}.*'{model_type}'.*CLIPModel"):
            CLIPMGModel.from_clip(tmp_path / folder)
    for folder in (tmp_path / "missing_folder", "./missing_folder", "some/missing_folder/clip"):
        with pytest.raises(FileNotFoundError, match=r"There is no folder .*missing_folder"):
            CLIPMGModel.from_clip(folder)
    save_clip(tmp_path / "clip")
    with pytest.raises(ValueError, match="leave it out"):
        CLIPMGModel.from_clip(tmp_path / "clip", vision_config={})
    with pytest.raises(TypeError, match="num_frame"):
        CLIPMGModel.from_clip(tmp_path / "clip", num_frame=4)


def test_checkpoint_that_lacks_weights_is_an_error(tmp_path):
    save_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if "vision_model.post_layernorm" not in name}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 2 weights of the vision tower: post_layernorm"):
        CLIPMGModel.from_clip(tmp_path, **TINY)


# --- frozen, unfrozen


def frozen_and_trained(model):
    """Names of the tower's parameters that take gradients, without their last component."""
    return {name.rpartition(".")[0] for name, value in model.vision_tower.named_parameters() if value.requires_grad}


def saved_by(model, inputs):
    """Shapes of the tensors that are kept for the backward pass while the tower runs."""
    shapes, running = [], [False]
    tower = model.vision_tower
    hooks = [
        tower.register_forward_pre_hook(lambda *_: running.__setitem__(0, True)),
        tower.register_forward_hook(lambda *_: running.__setitem__(0, False)),
    ]

    def pack(tensor):
        if running[0]:
            shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(**inputs, labels=torch.arange(3)).loss.backward()
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.mark.parametrize("loaded", [False, True])
def test_frozen_means_frozen(tmp_path, loaded):
    config = tiny_config(vision={"attention_dropout": 0.5})
    model = CLIPMGForMicroGestureClassification(config)
    if loaded:
        model.save_pretrained(tmp_path)
        model = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path)
    inputs = random_inputs(config)
    model.train()
    assert model.clipmg.pose_encoder.training and not any(module.training for module in model.vision_tower.modules())
    before = {name: tensor.clone() for name, tensor in model.vision_tower.state_dict().items()}
    features = [tower_features(model, inputs["pixel_values"])[1] for _ in range(2)]
    assert torch.equal(*features), "dropout inside a frozen tower"
    assert saved_by(model, inputs) == []
    assert all(parameter.grad is None for parameter in model.vision_tower.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=1.0)
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.vision_tower.state_dict().items())


def test_checkpointing_keeps_a_frozen_tower_free_of_activations():
    model = CLIPMGForMicroGestureClassification(tiny_config()).train()
    model.gradient_checkpointing_enable()
    assert saved_by(model, random_inputs(model.config)) == []


@pytest.mark.parametrize("num_layers", [-1, 1, 2])
def test_unfrozen_layers_are_trained_and_only_they(tmp_path, num_layers):
    model = CLIPMGForMicroGestureClassification(tiny_config(num_trainable_vision_layers=num_layers))
    model.save_pretrained(tmp_path)
    late = CLIPMGForMicroGestureClassification(tiny_config())
    late.apply_vision_freezing(num_layers)
    every = frozen_and_trained(CLIPMGForMicroGestureClassification(tiny_config(num_trainable_vision_layers=-1)))
    first = min(2 - num_layers, 2)
    expected = {name for name in every if re.match(rf"encoder\.layers\.[{first}-9]|post_layernorm", name)}
    expected = every if num_layers == -1 else expected
    for candidate in (model, late, CLIPMGForMicroGestureClassification.from_pretrained(tmp_path)):
        assert frozen_and_trained(candidate) == expected
        candidate.train()
        candidate(**random_inputs(candidate.config), labels=torch.arange(3)).loss.backward()
        for name, parameter in candidate.vision_tower.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
        blocks = [block.training for block in candidate.vision_tower.encoder.layers]
        assert blocks == ([False, True] if num_layers == 1 else [True, True])
    late.apply_vision_freezing(0)
    assert frozen_and_trained(late) == set() and not late.vision_tower.training


# --- LoRA


def lora_model(**values):
    torch.manual_seed(0)
    model = randomise(CLIPMGForMicroGestureClassification(no_dropout(**values)))
    heads = ["pose_encoder", "temporal_embedding", "semantic_query", "semantic_attention.0", "semantic_attention.1"]
    return get_peft_model(model, LoraConfig(**LORA, modules_to_save=[*heads, "fusion", "classifier"]))


def test_lora_trains_adapters_and_nothing_else_of_the_tower(tmp_path):
    model = lora_model().train()
    inputs = {**random_inputs(model.config), "has_pose": torch.tensor([True, False, True])}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs, labels=torch.arange(3)).loss.backward()
        optimizer.step()
    tower = {name: value for name, value in model.named_parameters() if "vision_model" in name}
    adapters = {name for name in tower if "lora_" in name}
    assert len(adapters) == 2 * 2 * 2
    assert all(tower[name].grad.ne(0).any() for name in adapters)
    assert all(value.grad is None for name, value in tower.items() if name not in adapters)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert adapters <= changed and not (tower.keys() - adapters) & changed
    assert any("pose_encoder" in name for name in changed) and any("null_pose" in name for name in changed)

    model.eval()
    logits = model(**inputs).logits
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 4
    torch.manual_seed(0)
    base = randomise(CLIPMGForMicroGestureClassification(no_dropout()))
    restored = PeftModel.from_pretrained(base, tmp_path).eval()
    assert torch.equal(restored(**inputs).logits, logits)
    merged = restored.merge_and_unload()
    torch.testing.assert_close(merged(**inputs).logits, logits, atol=1e-5, rtol=0)
    assert set(merged.state_dict()) == set(CLIPMGForMicroGestureClassification(no_dropout()).state_dict())


def test_blocks_with_adapters_follow_the_training_mode():
    model = lora_model(num_trainable_vision_layers=0).train()
    tower = model.get_base_model().vision_tower
    assert all(block.training for block in tower.encoder.layers) and not tower.embeddings.training
    model.eval()
    assert not any(module.training for module in tower.modules())


def test_vision_config_objects_may_be_shared():
    vision = CLIPVisionConfig(**tiny_config().vision_config.to_dict())
    config = tiny_config()
    config.vision_config = vision
    assert CLIPMGModel(config).vision_tower.config is vision
