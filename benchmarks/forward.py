"""Time of the full-size model on a clip, beside the bare CLIP tower on the same frames.

    python -m benchmarks forward

Cost: about 6 minutes on one core; with --compiled false, 4.

Expected: the model takes at most 1.15 times as long as the tower alone. Random weights, one clip of 8 frames of 224
and 32 pose frames with 22 keypoints, in one thread, without gradients. Arithmetic is counted on the operators of the
model with eager attention, since the counter misses the fused attention of CPUs; a multiplication and an addition are
two operations. The pose encoder by itself is measured in the forms that were tried, too.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig

from benchmarks.measuring import clock_of, format_ratios, run_benchmark, take_turns
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.modeling import pose_encoder_clipmg


MODEL, TOWER, POSE = "full model", "CLIP tower", "pose encoder"
COMPILED = ", compiled"
CONTIGUOUS, CONV3D, UNFOLDED = "not channels-last", "3-D convolutions by torch", "and batch norms by themselves"


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=7, metadata={"help": "Repetitions of each way."})
    device: str = field(default="cpu", metadata={"help": "cpu, in one thread, or cuda."})
    dtypes: list[str] = field(
        default_factory=lambda: ["float32", "bfloat16"], metadata={"help": "Types of weights and frames."}
    )
    compiled: bool = field(default=True, metadata={"help": "Also with torch.compile."})
    clips: int = field(default=1, metadata={"help": "Clips in a batch."})


def make_config() -> CLIPMGConfig:
    """The full-size model."""
    return CLIPMGConfig()


def make_inputs(config: CLIPMGConfig, clips: int, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random frames, and keypoints of which all are there."""
    size = cast(int, cast(CLIPVisionConfig, config.vision_config).image_size)
    keypoints = torch.rand(clips, config.num_pose_frames, config.num_keypoints, 3, device=device) * 0.5 + 0.25
    frames = torch.randn(clips, config.num_frames, 3, size, size, device=device, dtype=dtype)
    return {"pixel_values": frames, "keypoints": keypoints}


def count_operations(clips: int) -> dict[str, float]:
    """Billions of operations of the model, the tower and the pose encoder, without doing them."""
    config = make_config()
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = CLIPMGForMicroGestureClassification(config).eval()
        inputs = make_inputs(config, clips, "meta", torch.float32)
    counts = {}
    for name, run in make_ways(model, inputs).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts[name] = counter.get_total_flops() / 1e9
    return counts


def make_ways(
    model: CLIPMGForMicroGestureClassification, inputs: dict[str, torch.Tensor]
) -> dict[str, Callable[[], Any]]:
    """The model and its two large parts on the same clip."""
    tower, pose_encoder = model.clipmg.vision_model, model.clipmg.pose_encoder
    assert tower is not None and pose_encoder is not None
    frames = inputs["pixel_values"].flatten(0, 1)
    return {
        TOWER: lambda: tower(frames),
        MODEL: lambda: model(**inputs),
        POSE: lambda: pose_encoder(inputs["keypoints"]),
    }


@contextlib.contextmanager
def pose_encoder_as(form: str) -> Iterator[None]:
    """The pose encoder in one of the forms that were given up."""
    with contextlib.ExitStack() as stack:
        if form == CONTIGUOUS:
            stack.enter_context(patch.object(pose_encoder_clipmg, "_arrange", torch.Tensor.contiguous))
        if form in (CONV3D, UNFOLDED):
            convolve = torch.nn.Conv3d._conv_forward
            stack.enter_context(patch.object(pose_encoder_clipmg.CLIPMGConv3d, "_conv_forward", convolve))
        if form == UNFOLDED:
            stack.enter_context(patch.object(pose_encoder_clipmg.CLIPMGConvModule, "forward", forward_unfolded))
        yield


def forward_unfolded(self: pose_encoder_clipmg.CLIPMGConvModule, hidden_states: torch.Tensor) -> torch.Tensor:
    """Convolution, batch norm and ReLU one after the other, each with a result of its own."""
    hidden_states = self.bn(self.conv(hidden_states))
    return torch.nn.functional.relu(hidden_states) if self.activate else hidden_states


def in_form(form: str, run: Callable[[], Any]) -> Callable[[], Any]:
    """A way that runs with the pose encoder in a form."""

    def run_in_form() -> Any:
        with pose_encoder_as(form):
            return run()

    return run_in_form


@torch.inference_mode()
def measure_dtype(settings: Settings, dtype: torch.dtype) -> dict[str, list[float]]:
    """Seconds of each way and round."""
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(make_config()).to(settings.device, dtype).eval()
    inputs = make_inputs(model.config, settings.clips, settings.device, dtype)
    ways = make_ways(model, inputs)
    ways |= {f"{POSE}, {form}": in_form(form, ways[POSE]) for form in (CONTIGUOUS, CONV3D, UNFOLDED)}
    if settings.compiled:
        tower = torch.compile(model.clipmg.vision_model)
        compiled = torch.compile(model)
        frames = inputs["pixel_values"].flatten(0, 1)
        ways[TOWER + COMPILED] = lambda: tower(frames)
        ways[MODEL + COMPILED] = lambda: compiled(**inputs)
    return take_turns(ways, settings.rounds, clock_of(settings.device), warm_up=2, description=str(dtype))


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of everything by type, and operations."""
    torch.set_num_threads(1)
    seconds = {name: measure_dtype(settings, getattr(torch, name)) for name in settings.dtypes}
    return {"operations": count_operations(settings.clips), "seconds": seconds}


def format_tables(report: dict[str, Any]) -> str:
    """One table for each type, with and without compilation."""
    settings, results = report["settings"], report["results"]
    counts = results["operations"]
    lines = [
        f"{settings['clips']} clip in a batch, {settings['device']}; medians of {settings['rounds']} rounds in which "
        f"all ways take turns. Operations: {TOWER} {counts[TOWER]:.1f} billion, {MODEL} {counts[MODEL]:.1f}, {POSE} "
        f"{counts[POSE]:.1f}: the model needs {counts[MODEL] / counts[TOWER]:.3f} times those of the tower.\n"
    ]
    for name, seconds in results["seconds"].items():
        plain = {way: values for way, values in seconds.items() if not way.endswith(COMPILED)}
        columns = {
            "GFLOP": {way: f"{count:.1f}" for way, count in counts.items()},
            "GFLOP/s": {way: f"{counts[way] / min(seconds[way]):.0f}" for way in counts},
        }
        lines += [f"\n## {name}\n\n", format_ratios(plain, TOWER, more=columns)]
        compiled = {way: values for way, values in seconds.items() if way not in plain}
        if compiled:
            lines += ["\nWith `torch.compile`:\n\n", format_ratios(compiled, TOWER + COMPILED)]
    return "".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark("forward", Settings, measure, format_tables, doc=__doc__ or "", arguments=arguments)


if __name__ == "__main__":
    main()
