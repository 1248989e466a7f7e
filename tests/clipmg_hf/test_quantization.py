"""int8 weights by torchao, through transformers: load with a `TorchAoConfig`, save, and load as any other checkpoint.

    model = AutoModelForVideoClassification.from_pretrained(folder, quantization_config=TorchAoConfig(...))

Only linear layers change; no module needs to be left out.
"""

import pytest
import torch
from tiny_models import NO_DROPOUT, TINY
from transformers import AutoModelForVideoClassification, TorchAoConfig

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.inference import load_model


torchao = pytest.importorskip("torchao.quantization", reason="needs the extra quantization")
CONFIGS = [torchao.Int8WeightOnlyConfig, torchao.Int8DynamicActivationInt8WeightConfig]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float32")
    torch.manual_seed(0)
    config = CLIPMGConfig(**TINY, **NO_DROPOUT)
    CLIPMGForMicroGestureClassification(config).eval().save_pretrained(folder)
    processor = CLIPMGProcessor.from_model_config(config)
    processor.save_pretrained(folder)
    return folder


def make_inputs(config: CLIPMGConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = config.vision_config.image_size
    return {
        "pixel_values": torch.randn(3, config.num_frames, 3, size, size, generator=generator),
        "keypoints": torch.rand(3, config.num_pose_frames, config.num_keypoints, 3, generator=generator),
        "frame_mask": torch.tensor([[True, False], [True, True], [False, False]]),
        "has_pose": torch.tensor([True, False, True]),
    }


@torch.no_grad()
@pytest.mark.parametrize("quantization", CONFIGS)
def test_quantised_model_predicts_saves_and_loads(checkpoint, quantization, tmp_path):
    expected_model, processor = load_model(checkpoint, "cpu")
    inputs = make_inputs(expected_model.config)
    expected = expected_model(**inputs, output_explanation=True)

    model = AutoModelForVideoClassification.from_pretrained(
        checkpoint, quantization_config=TorchAoConfig(quantization())
    )
    for name, module in model.named_modules():
        if (weight := getattr(module, "weight", None)) is not None:
            assert isinstance(weight, torchao.Int8Tensor) == isinstance(module, torch.nn.Linear), name
    outputs = model(**inputs, output_explanation=True)
    error = (outputs.logits - expected.logits).abs().max() / expected.logits.abs().max()
    assert 0 < error < 0.03
    torch.testing.assert_close(outputs.semantic_attention, expected.semantic_attention, atol=0.02, rtol=0)

    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    weights = "model.safetensors"
    assert (tmp_path / weights).stat().st_size < 0.8 * (checkpoint / weights).stat().st_size
    again, _ = load_model(tmp_path, "cpu")
    assert torch.equal(again(**inputs).logits, outputs.logits)
