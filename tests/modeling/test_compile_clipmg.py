"""`torch.compile`: one graph without breaks, few recompilations; and no step at which the host waits for a device.

`test_integration_clipmg` compares compiled training and Inductor's code with eager mode. Here the backend is "eager":
the graph is traced and guarded in full, and run as it is.
"""

import pytest
import torch
from tiny_clipmg import no_dropout, random_inputs, randomise
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clipmg_hf.modeling import CLIPMGForMicroGestureClassification


# Tracing takes its time for every block: one of each kind.
SMALLEST = {
    "pose_stage_blocks": [1],
    "pose_inflate": [1],
    "pose_spatial_strides": [2],
    "pose_temporal_strides": [2],
    "num_hidden_layers": 1,
    "vision": {"num_hidden_layers": 1},
    "num_frames": 6,
}
FRAMES, KEYPOINTS = ("pixel_values", "frame_mask"), ("keypoints", "keypoint_mask", "has_pose")
STREAMS = {
    "both": FRAMES + KEYPOINTS,
    "frames": FRAMES,
    "keypoints": KEYPOINTS,
    "both, unmasked": FRAMES[:1] + KEYPOINTS[:1],
}
QUERIES = ("fused", "pose_pool")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    counters.clear()


def small_model(**values) -> CLIPMGForMicroGestureClassification:
    torch.manual_seed(0)
    return randomise(CLIPMGForMicroGestureClassification(no_dropout(**SMALLEST, **values))).eval()


def clips(model, streams: str, batch_size: int, num_frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Clips of which some lack frames, some a pose, and some both, drawn with the seed."""
    inputs = random_inputs(model.config, batch_size, seed)
    num_pose_frames = num_frames * model.config.pose_frames_per_frame
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "pixel_values": inputs["pixel_values"][:, :num_frames].contiguous(),
        "keypoints": inputs["keypoints"][:, :num_pose_frames].contiguous(),
        "frame_mask": torch.rand(batch_size, num_frames, generator=generator) < 0.4,
        "keypoint_mask": torch.rand(batch_size, num_pose_frames, generator=generator) < 0.7,
        "has_pose": torch.rand(batch_size, generator=generator) < 0.6,
    }
    return {name: inputs[name] for name in STREAMS[streams]}


def num_graphs() -> int:
    return counters["stats"]["unique_graphs"]


@torch.no_grad()
def test_two_graphs_serve_clips_of_all_sizes_and_mixes():
    """The first is of one size; once the sizes change, the second has symbols for them.

    In one thread on a CPU torch has other convolutions for batches below 16, which would be a third graph: clips are
    fewer here, and the frames that go through a convolution together more.
    """
    model = small_model(query="pose_pool")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    sizes = [(4, 4), (5, 6), (6, 3), (15, 2), (4, 5), (3, 6)]
    for seed, size in enumerate(sizes):
        for mix in range(3):
            inputs = clips(model, "both", *size, seed=10 * seed + mix)
            torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0)
        assert num_graphs() <= min(1 + seed, 2), f"a new graph at {size}"


@torch.no_grad()
def test_each_set_of_inputs_has_its_graph():
    """Which streams there are, and whether an explanation is asked for, are choices that a graph has made."""
    model = small_model()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    for number, (streams, explained) in enumerate(
        [("both", True), ("frames", False), ("keypoints", False), ("both, unmasked", False)], start=1
    ):
        # Sizes that no other dimension has: equal ones would share a symbol.
        for batch_size, num_frames in ((7, 4), (9, 5)):
            inputs = {**clips(model, streams, batch_size, num_frames), "output_explanation": explained}
            outputs, expected = compiled(**inputs), model(**inputs)
            assert list(outputs) == list(expected)
            for name in expected:
                torch.testing.assert_close(outputs[name], expected[name], atol=1e-5, rtol=0, msg=f"{streams}: {name}")
        assert num_graphs() == number


def test_two_graphs_serve_training_batches_of_all_sizes():
    model = small_model().train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for batch_size in (6, 5, 3, 7):
        inputs = clips(model, "both", batch_size, 6, seed=batch_size)
        compiled(**inputs, labels=torch.arange(batch_size)).loss.backward()
    assert num_graphs() <= 2
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


class StaysOnDevice(TorchDispatchMode):
    """Fail at an operator that makes a tensor on the host; reading a value back from "meta" fails by itself."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            assert not isinstance(tensor, torch.Tensor) or tensor.is_meta, f"{func} made a tensor on {tensor.device}"
        return outputs


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("query", QUERIES)
def test_host_never_waits_for_the_device(query, training, streams):
    """What CUDA graphs ask for: nothing is read back, no shape depends on a value, nothing is copied to the device."""
    with torch.device("meta"):
        model = CLIPMGForMicroGestureClassification(no_dropout(**SMALLEST, query=query)).train(training)
    inputs = {name: tensor.to("meta") for name, tensor in clips(model, streams, 3, 2).items()}
    labels = torch.zeros(3, dtype=torch.long, device="meta")
    with torch.set_grad_enabled(training), StaysOnDevice():
        outputs = model(**inputs, labels=labels, output_explanation=True)
        if training:
            outputs.loss.backward()
    assert outputs.loss.shape == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_cuda_graph_replays_other_clips():
    model = small_model().cuda()
    static, other = (
        {name: tensor.cuda() for name, tensor in clips(model, "both", 4, 6, seed).items()} for seed in (0, 1)
    )
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        model(**static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = model(**static)
    for name, tensor in other.items():
        static[name].copy_(tensor)
    graph.replay()
    torch.testing.assert_close(outputs.logits, model(**other).logits, atol=1e-4, rtol=0)
