"""Time of the full-size model on a clip, beside transformers' video models of base size on the same frames.

    python -m benchmarks peer_models

Cost: 4 minutes on one core, 6 GB of memory.

Expected: less time than every peer but X-CLIP, which reads no pose and takes as long as the tower, as we do without
keypoints; its vision part counts, without the texts. Random weights, frames of 224 x 224, one clip, without gradients,
in one thread; each model reads the number of frames that it was made for, of the same 32. V-JEPA 2 starts at the large
size. All peers read frames alone; ours reads 32 pose frames of 22 keypoints, and frames alone in a row of its own.
Arithmetic is counted with eager attention; a multiplication and an addition are two operations.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, PreTrainedConfig, XCLIPConfig, XCLIPModel, XCLIPVisionConfig

from benchmarks import forward
from benchmarks.measuring import clock_of, format_ratios, run_benchmark, take_turns
from clipmg_hf import CLIPMGForMicroGestureClassification


OURS, FRAMES_ALONE = "CLIP-MG, 8 frames and pose", "CLIP-MG, 8 frames alone"
TOWER = "CLIP ViT-B/16, 8 frames one by one"


class Peer(NamedTuple):
    """A model of transformers: names of its classes, frames it reads, and fields that differ from the defaults."""

    config: str
    model: str
    num_frames: int
    fields: dict[str, Any]


PEERS = {
    "X-CLIP B/16, 8 frames": Peer("XCLIPVisionConfig", "XCLIPModel", 8, {"patch_size": 16, "num_frames": 8}),
    "TimeSformer B, 8 frames": Peer("TimesformerConfig", "TimesformerForVideoClassification", 8, {}),
    "VideoMAE B, 16 frames": Peer("VideoMAEConfig", "VideoMAEForVideoClassification", 16, {}),
    "ViViT B, 32 frames": Peer("VivitConfig", "VivitForVideoClassification", 32, {}),
    "V-JEPA 2 L, 16 frames": Peer(
        "VJEPA2Config", "VJEPA2ForVideoClassification", 16, {"crop_size": 224, "frames_per_clip": 16}
    ),
}


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=3, metadata={"help": "Repetitions of each model."})
    device: str = field(default="cpu", metadata={"help": "cpu, in one thread, or cuda."})
    dtype: str = field(default="float32", metadata={"help": "Type of weights and frames."})
    peers: list[str] = field(default_factory=lambda: list(PEERS), metadata={"help": "Which of the peers."})


def make_peer_config(peer: Peer, attention: str | None) -> PreTrainedConfig:
    """Configuration of a peer; the defaults of transformers are the base sizes."""
    config = getattr(transformers, peer.config)(**peer.fields)
    if isinstance(config, XCLIPVisionConfig):
        config = XCLIPConfig(vision_config=config.to_dict())
    if attention is not None:
        config._attn_implementation = attention
    return config


def make_peer(name: str, frames: torch.Tensor, attention: str | None) -> Callable[[], Any]:
    """A peer that reads as many of the frames (1, 32, 3, H, W) as it is made for."""
    peer = PEERS[name]
    config = make_peer_config(peer, attention)
    with frames.device:
        model: nn.Module = getattr(transformers, peer.model)(config).to(frames.dtype).eval()
    # Every n-th frame.
    clip = frames[:, :: frames.shape[1] // peer.num_frames]
    if isinstance(model, XCLIPModel):
        # Its texts are the same for all clips.
        return lambda: model.get_video_features(clip)
    argument = "pixel_values_videos" if peer.model.startswith("VJEPA2") else "pixel_values"
    return lambda: model(**{argument: clip})


def make_ours(frames: torch.Tensor, attention: str | None) -> dict[str, Callable[[], Any]]:
    """The full-size model and its tower."""
    config = forward.make_config()
    if attention is not None:
        config._attn_implementation = attention
    with frames.device:
        model = CLIPMGForMicroGestureClassification(config).to(frames.dtype).eval()
        inputs = forward.make_inputs(config, 1, str(frames.device), frames.dtype)
    inputs["pixel_values"] = frames[:, :: frames.shape[1] // config.num_frames]
    ways = forward.make_ways(model, inputs)
    frames_alone = {"pixel_values": inputs["pixel_values"]}
    return {OURS: ways[forward.MODEL], FRAMES_ALONE: lambda: model(**frames_alone), TOWER: ways[forward.TOWER]}


def make_ways(names: Sequence[str], frames: torch.Tensor, attention: str | None) -> dict[str, Callable[[], Any]]:
    """All models on the same frames; without an attention, with the fastest that each has in transformers."""
    return make_ours(frames, attention) | {name: make_peer(name, frames, attention) for name in names}


@torch.inference_mode()
def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each model and round, and billions of operations."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = cast(int, cast(CLIPVisionConfig, forward.make_config().vision_config).image_size)
    operations = {}
    for name, run in make_ways(settings.peers, torch.empty(1, 32, 3, size, size, device="meta"), "eager").items():
        with FlopCounterMode(display=False) as counter:
            run()
        operations[name] = counter.get_total_flops() / 1e9
    frames = torch.randn(1, 32, 3, size, size, device=settings.device, dtype=getattr(torch, settings.dtype))
    ways = make_ways(settings.peers, frames, None)
    gc.collect()
    seconds = take_turns(ways, settings.rounds, clock_of(settings.device))
    return {"seconds": seconds, "operations": operations}


def format_tables(report: dict[str, Any]) -> str:
    """One table."""
    settings, results = report["settings"], report["results"]
    counts = {name: f"{count:.0f}" for name, count in results["operations"].items()}
    return (
        f"{settings['dtype']}, {settings['device']}; medians of {settings['rounds']} rounds in which all models take "
        f"turns.\n\n{format_ratios(results['seconds'], OURS, more={'GFLOP': counts})}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark("peer_models", Settings, measure, format_tables, doc=__doc__ or "", arguments=arguments)


if __name__ == "__main__":
    main()
