"""The pose encoder equals an independent SlowOnly network with the names of PYSKL and mmaction2."""

import pytest
import torch
import torch.nn.functional as F
from tiny_clipmg import random_inputs, randomise, tiny_config

from clipmg_hf.modeling import CLIPMGConfig, CLIPMGForMicroGestureClassification, pose_encoder_weights_from_poseconv3d
from clipmg_hf.modeling.heatmaps_clipmg import draw_heatmaps
from clipmg_hf.modeling.pose_encoder_clipmg import CLIPMGPoseEncoder


LIGHT = {"stage_blocks": (4, 6, 3), "inflate": (0, 1, 1), "spatial": (2, 2, 2), "temporal": (1, 1, 1)}


def pyskl_state(num_keypoints: int, width: int, stage_blocks, inflate, seed: int = 0, **_) -> dict[str, torch.Tensor]:
    """A random checkpoint of ResNet3dSlowOnly, with the names and shapes that PYSKL writes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def conv_module(name, inputs, outputs, kernel):
        weight = torch.randn(outputs, inputs, *kernel, generator=generator)
        # Activations keep their size through the layers, so that a tolerance means something.
        state[f"{name}.conv.weight"] = weight / weight[0].numel() ** 0.5
        state[f"{name}.bn.weight"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.bn.bias"] = torch.randn(outputs, generator=generator) * 0.1
        state[f"{name}.bn.running_mean"] = torch.randn(outputs, generator=generator) * 0.1
        state[f"{name}.bn.running_var"] = torch.rand(outputs, generator=generator) + 0.5
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    conv_module("backbone.conv1", num_keypoints, width, (1, 7, 7))
    channels = width
    for stage, blocks in enumerate(stage_blocks):
        planes = width * 2**stage
        for index in range(blocks):
            name = f"backbone.layer{stage + 1}.{index}"
            conv_module(f"{name}.conv1", channels, planes, (3, 1, 1) if inflate[stage] else (1, 1, 1))
            conv_module(f"{name}.conv2", planes, planes, (1, 3, 3))
            conv_module(f"{name}.conv3", planes, planes * 4, (1, 1, 1))
            if index == 0:
                conv_module(f"{name}.downsample", channels, planes * 4, (1, 1, 1))
            channels = planes * 4
    state["cls_head.fc_cls.weight"] = torch.zeros(60, channels)
    state["cls_head.fc_cls.bias"] = torch.zeros(60)
    return state


def slow_network(state, heatmaps, stage_blocks, inflate, spatial, temporal) -> torch.Tensor:
    """SlowOnly in evaluation mode, one functional call at a time: (B, K, T, H, W) -> (B, D_p, T', h, w)."""

    def conv_module(name, inputs, stride=1, padding=0, activate=True):
        outputs = F.conv3d(inputs, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        statistics = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        outputs = F.batch_norm(outputs, *statistics, state[f"{name}.bn.weight"], state[f"{name}.bn.bias"], eps=1e-5)
        return F.relu(outputs) if activate else outputs

    hidden = conv_module("backbone.conv1", heatmaps, 1, (0, 3, 3))
    hidden = F.max_pool3d(hidden, (1, 3, 3), 1, (0, 1, 1))
    for stage, blocks in enumerate(stage_blocks):
        for index in range(blocks):
            name = f"backbone.layer{stage + 1}.{index}"
            stride = (temporal[stage], spatial[stage], spatial[stage]) if index == 0 else 1
            identity = conv_module(f"{name}.downsample", hidden, stride, 0, False) if index == 0 else hidden
            hidden = conv_module(f"{name}.conv1", hidden, 1, (1, 0, 0) if inflate[stage] else 0)
            hidden = conv_module(f"{name}.conv2", hidden, stride, (0, 1, 1))
            hidden = F.relu(conv_module(f"{name}.conv3", hidden, 1, 0, False) + identity)
    return hidden


def ours_from(state: dict[str, torch.Tensor], config: CLIPMGConfig) -> CLIPMGPoseEncoder:
    encoder = CLIPMGPoseEncoder(config)
    renamed = pose_encoder_weights_from_poseconv3d(state)
    prefix = "clipmg.pose_encoder."
    assert all(name.startswith(prefix) for name in renamed)
    encoder.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in renamed.items()})
    return encoder.eval()


def random_points(batch_size: int, num_frames: int, num_keypoints: int) -> torch.Tensor:
    return torch.rand(batch_size, num_frames, num_keypoints, 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("num_keypoints", [17, 22])
def test_full_size_equals_slowonly_light(num_keypoints):
    state = pyskl_state(num_keypoints, 32, LIGHT["stage_blocks"], LIGHT["inflate"])
    encoder = ours_from(state, CLIPMGConfig(num_keypoints=num_keypoints))
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    assert round(parameters / 1e6, 1) == 2.0
    keypoints = random_points(2, 4, num_keypoints)
    with torch.no_grad():
        reference = slow_network(state, draw_heatmaps(keypoints.transpose(1, 2), 56, 0.6), **LIGHT)
        pose = encoder(keypoints)
    assert reference.shape == (2, 512, 4, 7, 7)
    assert pose.shape == (2, 512)
    torch.testing.assert_close(pose, reference.mean(dim=(2, 3, 4)), atol=1e-4, rtol=1e-5)
    assert 0.1 < reference.std() < 100


def test_temporal_strides_equal_the_reference():
    layout = {"stage_blocks": (1, 2), "inflate": (0, 1), "spatial": (2, 1), "temporal": (2, 2)}
    state = pyskl_state(5, 4, **layout)
    config = tiny_config(
        pose_stage_blocks=[1, 2], pose_inflate=[0, 1], pose_spatial_strides=[2, 1], pose_temporal_strides=[2, 2]
    )
    keypoints = random_points(2, 7, 5)
    with torch.no_grad():
        reference = slow_network(state, draw_heatmaps(keypoints.transpose(1, 2), 16, 0.6), **layout)
        pose = ours_from(state, config)(keypoints)
    assert reference.shape[2] == 2
    torch.testing.assert_close(pose, reference.mean(dim=(2, 3, 4)), atol=1e-5, rtol=1e-5)


def test_folded_norms_have_the_gradients_of_convolution_and_norm():
    state = pyskl_state(5, 4, (1, 1), (0, 1))
    encoder = ours_from(state, tiny_config(pose_stage_blocks=[1, 1], pose_inflate=[0, 1]))
    keypoints = random_points(2, 6, 5)
    block = encoder.layer2[0]
    hidden = torch.randn(2, 16, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    for module in (encoder.conv1, block.conv1, block.conv2, block.conv3, block.downsample):
        inputs = draw_heatmaps(keypoints.transpose(1, 2), 16, 0.6) if module is encoder.conv1 else hidden
        if module in (block.conv2, block.conv3):
            inputs = hidden[:, : module.conv.in_channels]
        convolved = F.conv3d(inputs, module.conv.weight, stride=module.conv.stride, padding=module.conv.padding)
        expected = module.bn(convolved)
        expected = F.relu(expected) if module.activate else expected
        parameters = [module.conv.weight, module.bn.weight, module.bn.bias]
        weights = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1))
        theirs = torch.autograd.grad((expected * weights).sum(), parameters)
        outputs = module(inputs)
        ours = torch.autograd.grad((outputs * weights).sum(), parameters)
        torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_training_normalises_with_the_batch():
    encoder = randomise(CLIPMGPoseEncoder(tiny_config())).train()
    module = encoder.layer1[0].conv2
    inputs = torch.randn(2, module.conv.in_channels, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    convolved = F.conv3d(inputs, module.conv.weight, stride=module.conv.stride, padding=module.conv.padding)
    expected = F.relu(F.batch_norm(convolved, None, None, module.bn.weight, module.bn.bias, training=True))
    torch.testing.assert_close(module(inputs), expected, atol=1e-5, rtol=1e-5)


def test_wrapped_convolution_is_called():
    """Adapters put a module of their own in its place."""

    class Doubled(torch.nn.Module):
        def __init__(self, convolution):
            super().__init__()
            self.convolution = convolution

        def forward(self, inputs):
            return 2 * self.convolution(inputs)

    module = randomise(CLIPMGPoseEncoder(tiny_config())).eval().conv1
    inputs = torch.rand(1, 5, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = F.relu(module.bn(2 * module.conv(inputs)))
    module.conv = Doubled(module.conv)
    torch.testing.assert_close(module(inputs), expected)


def test_mean_counts_only_frames_with_a_point():
    encoder = randomise(CLIPMGPoseEncoder(tiny_config(pose_inflate=[0, 0]))).eval()
    keypoints = random_points(1, 4, 5)
    hidden = keypoints.clone()
    hidden[:, 1:] = 0
    with torch.no_grad():
        torch.testing.assert_close(encoder(hidden), encoder(keypoints[:, :1]))
        assert encoder(torch.zeros_like(keypoints)).eq(0).all()


def test_checkpoint_initialises_the_whole_model():
    state = pyskl_state(5, 4, (2, 1), (0, 1))
    model = CLIPMGForMicroGestureClassification(tiny_config())
    missing, unexpected = model.load_state_dict(pose_encoder_weights_from_poseconv3d(state), strict=False)
    assert not unexpected and not any(".pose_encoder." in name for name in missing)
    ours = model.clipmg.pose_encoder.layer1[0].downsample.conv.weight
    assert torch.equal(ours, state["backbone.layer1.0.downsample.conv.weight"])


def test_foreign_names_are_an_error_that_lists_them():
    with pytest.raises(ValueError, match=r"module.fc.weight"):
        pose_encoder_weights_from_poseconv3d({"module.fc.weight": torch.zeros(1)})


def test_names_and_shapes_are_pinned():
    """Published checkpoints depend on them."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in CLIPMGPoseEncoder(CLIPMGConfig()).state_dict().items()
        if name.endswith("conv.weight")
    }
    assert shapes["conv1.conv.weight"] == (32, 22, 1, 7, 7)
    assert shapes["layer1.0.conv1.conv.weight"] == (32, 32, 1, 1, 1)
    assert shapes["layer1.0.downsample.conv.weight"] == (128, 32, 1, 1, 1)
    assert shapes["layer2.0.conv1.conv.weight"] == (64, 128, 3, 1, 1)
    assert shapes["layer2.5.conv2.conv.weight"] == (64, 64, 1, 3, 3)
    assert shapes["layer3.2.conv3.conv.weight"] == (512, 128, 1, 1, 1)
    expected = pyskl_state(22, 32, LIGHT["stage_blocks"], LIGHT["inflate"])
    names = {name.removeprefix("backbone.") for name in expected if name.startswith("backbone.")}
    assert set(CLIPMGPoseEncoder(CLIPMGConfig()).state_dict()) == names


# --- frames that clips share


@pytest.mark.parametrize(
    ("inflate", "strides", "num_shared"),
    [([0, 1], [1, 1], 1), ([1, 1], [1, 1], 0), ([0, 0], [1, 1], 2), ([0, 0], [2, 1], 0), ([0, 0], [1, 2], 1)],
)
def test_frames_are_encoded_each_by_itself_and_combined(inflate, strides, num_shared):
    config = tiny_config(pose_inflate=inflate, pose_temporal_strides=strides, num_frames=4)
    encoder = randomise(CLIPMGPoseEncoder(config)).eval()
    keypoints = random_inputs(config)["keypoints"]
    keypoints[0, 2:5] = 0
    assert encoder.num_frame_stages == num_shared
    with torch.no_grad():
        expected = encoder(keypoints)
        features = torch.cat([encoder.encode_frames(frame) for frame in keypoints.split(1, dim=1)], dim=1)
        combined = encoder.combine(features, (keypoints[..., 2] > 0).any(dim=-1))
    torch.testing.assert_close(combined, expected, rtol=0, atol=1e-6)
