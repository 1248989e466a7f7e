"""First-class in transformers: save and load, attention backends, checkpointing, device maps, compile and export."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_clipmg import no_dropout, random_inputs, randomise, tiny_config
from torch.nn.attention.flex_attention import flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flex_attention_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from clipmg_hf.modeling import CLIPMGForMicroGestureClassification, CLIPMGModel


MASKS = {
    "frame_mask": torch.tensor([[True, False], [True, True], [False, False]]),
    "has_pose": torch.tensor([True, False, True]),
}


# Compilers trace every block: one of each kind is enough for them.
ONE_BLOCK = {"pose_stage_blocks": [1], "pose_inflate": [1], "pose_spatial_strides": [2], "pose_temporal_strides": [1]}
SMALLEST = {**ONE_BLOCK, "num_hidden_layers": 1, "vision": {"num_hidden_layers": 1}}


def random_model(**values) -> CLIPMGForMicroGestureClassification:
    torch.manual_seed(0)
    return randomise(CLIPMGForMicroGestureClassification(no_dropout(**values))).eval()


# --- save and load


@pytest.mark.parametrize("max_shard_size", ["5GB", "50KB"])
def test_saved_model_loads_exactly(tmp_path, max_shard_size):
    model = random_model(query="pose_pool", num_labels=3)
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert not list(tmp_path.glob("*.bin")) and list(tmp_path.glob("*.safetensors"))
    for device_map in (None, "cpu", "auto"):
        loaded, info = CLIPMGForMicroGestureClassification.from_pretrained(
            tmp_path, output_loading_info=True, device_map=device_map
        )
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert not loaded.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name]), name
        inputs = random_inputs(model.config)
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_base_model_and_head_load_from_each_other(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path / "head")
    base = CLIPMGModel.from_pretrained(tmp_path / "head").eval()
    base.save_pretrained(tmp_path / "base")
    again = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path / "base").eval()
    inputs = random_inputs(model.config)
    expected = model(**inputs, output_explanation=True).fused_embedding
    assert torch.equal(base(**inputs).fused_embedding, expected)
    assert torch.equal(again(**inputs, output_explanation=True).fused_embedding, expected)


def test_missing_weights_are_initialised_like_a_new_model(tmp_path):
    """Statistics of every kind of layer, when a checkpoint holds nothing but the classifier."""
    config = tiny_config(hidden_size=64, pose_base_width=16)
    torch.manual_seed(0)
    new = CLIPMGForMicroGestureClassification(config)
    new.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if name.startswith("classifier")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = CLIPMGForMicroGestureClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.weight, new.classifier.weight)
    for name, tensor in new.state_dict().items():
        other = loaded.state_dict()[name]
        if tensor.numel() == 1 or tensor.float().std() == 0:
            assert torch.equal(tensor, other), name
        else:
            assert not torch.equal(tensor, other) or name.startswith("classifier") or "position_ids" in name, name
            ratio = (tensor.float().std() / other.float().std()).item()
            # A standard deviation of n samples is known to about 1 / sqrt(2 n).
            assert abs(ratio - 1) < 6 / (2 * tensor.numel()) ** 0.5, (name, ratio)
    assert loaded.clipmg.temporal_embedding.weight.eq(0).all()


# --- attention backends


def flex_without_compiler(module, query, key, value, attention_mask, scaling, **kwargs):
    """Flex attention as transformers calls it, interpreted.

    Compiled for a CPU, torch 2.13's kernel reads past the end of the keys in cross-attention (or fails to compile).
    """
    return flex_attention(query, key, value, block_mask=attention_mask, scale=scaling).transpose(1, 2), None


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("implementation", ["sdpa", "flex_without_compiler"])
def test_attention_backends_equal_eager(implementation, masked):
    AttentionInterface.register("flex_without_compiler", flex_without_compiler)
    AttentionMaskInterface.register("flex_without_compiler", flex_attention_mask)
    model = random_model()
    inputs = {**random_inputs(model.config), **(MASKS if masked else {})}
    outputs = []
    for name in ("eager", implementation):
        model.set_attn_implementation(name)
        assert model.config._attn_implementation == model.config.vision_config._attn_implementation == name
        with torch.no_grad():
            outputs.append(model(**inputs, output_explanation=True))
    for name, tensor in outputs[0].items():
        torch.testing.assert_close(tensor, outputs[1][name], atol=1e-5, rtol=0)


def test_our_attention_goes_through_the_registered_functions():
    seen = []

    def recording(module, query, key, value, attention_mask, **kwargs):
        seen.append((type(module).__name__, tuple(key.shape), attention_mask))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("recording", recording)
    AttentionMaskInterface.register("recording", sdpa_mask)
    model = random_model()
    model.set_attn_implementation("recording")
    model(**random_inputs(model.config), **MASKS)
    assert [name for name, *_ in seen] == ["CLIPAttention"] * 2 + ["CLIPMGSemanticAttention"] * 2
    shape, mask = seen[-1][1:]
    assert shape == (3, 4, 2 * 4, 8)
    assert mask.expand(3, 1, 1, 8)[0].flatten().tolist() == [True] * 4 + [False] * 4


# --- checkpointing


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("num_layers", [0, -1])
def test_checkpointing_changes_nothing(num_layers, use_reentrant):
    """Outputs, gradients and the running statistics of batch norm, over two steps."""
    plain = random_model(num_trainable_vision_layers=num_layers).train()
    recomputed = copy.deepcopy(plain)
    recomputed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    inputs = random_inputs(plain.config)
    if use_reentrant:
        # Re-entrant checkpointing needs an input that takes gradients.
        inputs["keypoints"].requires_grad_()
        inputs["pixel_values"].requires_grad_()
    counts = []
    block = recomputed.clipmg.pose_encoder.layer1[0]
    block.conv1.conv.register_forward_pre_hook(lambda *_: counts.append(1))
    for _ in range(2):
        losses = [model(**inputs, **MASKS, labels=torch.arange(3)).loss for model in (plain, recomputed)]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
    assert len(counts) == 4, "the block was not recomputed"
    for (name, one), other in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-5, msg=name)
    for (name, one), other in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(one, other), name
    # A forward pass alone updates the statistics once too.
    with torch.no_grad():
        for model in (plain, recomputed):
            model(**random_inputs(plain.config, seed=1))
    for (name, one), other in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(one, other), name


# --- compile and export


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def test_compiled_inference_equals_eager():
    """One graph, without breaks, for batches of any size; `aot_eager` traces what Inductor would compile."""
    model = random_model(**SMALLEST, query="pose_pool")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        # Below 16 pose frames torch takes another routine for 1 x 1 convolutions in one thread, and a graph for it.
        for batch_size in (8, 10):
            inputs = random_inputs(model.config, batch_size)
            inputs["has_pose"] = torch.arange(batch_size) != 1
            inputs["frame_mask"] = torch.tensor([[True, False], [True, True]]).repeat(batch_size // 2, 1)
            expected = model(**inputs).logits
            for tensor in inputs.values():
                torch._dynamo.mark_dynamic(tensor, 0)
            torch.testing.assert_close(compiled(**inputs).logits, expected, atol=1e-5, rtol=0)


def test_inductor_compiles_inference():
    model = random_model(**SMALLEST)
    inputs = random_inputs(model.config)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)(**inputs)
        torch.testing.assert_close(compiled.logits, model(**inputs).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_training_equals_eager(checkpointing):
    eager = random_model(**SMALLEST).train()
    traced = copy.deepcopy(eager)
    if checkpointing:
        traced.activation_checkpointing_enable()
    compiled = torch.compile(traced, fullgraph=True, backend="aot_eager")
    inputs = {**random_inputs(eager.config), **MASKS, "labels": torch.arange(3)}
    for model in (eager, compiled):
        model(**inputs).loss.backward()
    for (name, one), other in zip(eager.named_parameters(), traced.named_parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other[1].grad, atol=1e-5, rtol=1e-4, msg=name)
    for (name, one), other in zip(eager.named_buffers(), traced.buffers(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5, msg=name)


def test_export_with_a_dynamic_batch():
    model = random_model()
    batch = torch.export.Dim("batch", min=2, max=64)
    inputs = {**random_inputs(model.config, 2), "has_pose": torch.tensor([True, False])}
    dynamic = {name: {0: batch} for name in inputs}
    program = torch.export.export(model, (), inputs, dynamic_shapes=dynamic, strict=False)
    for batch_size in (2, 5):
        inputs = {**random_inputs(model.config, batch_size), "has_pose": torch.arange(batch_size) != 1}
        with torch.no_grad():
            exported, eager = program.module()(**inputs), model(**inputs)
        torch.testing.assert_close(exported["logits"], eager.logits, atol=1e-5, rtol=0)
