"""A small vision tower that knows what it sees: the stand-in for CLIP on synthetic data.

    python -m clipmg_hf.synthetic_tower --output synthetic_tower

The method rests on a frozen tower whose patch tokens already mean something. CLIP's weights know nothing of drawn
people, so this one learns, from pictures of other drawn people than the data set's, to say of each patch what it
shows: a face, a hand, a hat, an object in the hands or on the desk. It learns nothing of gestures. The result is a
`CLIPVisionModel` checkpoint, which takes CLIP's place as `clip_checkpoint`
(`hub_scripts/configs/synthetic_frozen.yaml`). Takes about 2 minutes on one core.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModel, HfArgumentParser, set_seed

from clipmg_hf.console import run
from clipmg_hf.data.synthetic import SYNTHETIC_CLASSES, SyntheticConfig, SyntheticVideo, generate_video
from clipmg_hf.data.synthetic_rendering import PROP_SCALE, place_in_hands, place_on_desk
from clipmg_hf.processing import CLIPMGVideoProcessor


Array = NDArray[Any]

CONTENTS = (
    "face",
    "mouth",
    "eyes",
    "right hand",
    "left hand",
    "arm",
    "shoulder",
    "trunk",
    "hat",
    "held object",
    "object on the desk",
)
# Points of openpose-137.
_UPPER_BODY, _NECK, _ARMS = slice(0, 8), 1, ((2, 3, 4), (5, 6, 7))
_FACE, _RIGHT_HAND, _LEFT_HAND = slice(25, 95), slice(116, 137), slice(95, 116)
_EYES, _MOUTH, _TEMPLES = slice(36, 48), slice(48, 68), (0, 16)  # of the face


@dataclass
class TowerArguments:
    """Size and training of the tower; the seed is that of its pictures and of its training."""

    output: str = field(metadata={"help": "Folder of the checkpoint."})
    seed: int = field(default=777, metadata={"help": "Another one than the data set's: other people, other rooms."})
    num_videos: int = field(default=400, metadata={"help": "Synthetic videos, each of another person."})
    pictures_per_video: int = field(default=24, metadata={"help": "Pictures of each."})
    steps: int = field(default=1500, metadata={"help": "Steps of 32 pictures."})
    learning_rate: float = field(default=2e-3, metadata={"help": "Highest learning rate."})
    hidden_size: int = field(default=64, metadata={"help": "Width."})
    num_hidden_layers: int = field(default=2, metadata={"help": "Blocks."})
    num_attention_heads: int = field(default=2, metadata={"help": "Heads."})
    image_size: int = field(default=96, metadata={"help": "Side of the pictures in pixels."})
    patch_size: int = field(default=8, metadata={"help": "Side of a patch in pixels."})


def train_tower(args: TowerArguments) -> dict[str, tuple[float, float]]:
    """Train a tower and save it.

    Returns:
        Precision and recall of each of `CONTENTS` over the patches of pictures of people that it has not seen.
    """
    set_seed(args.seed)
    train = draw_pictures(args, args.num_videos, args.seed)
    held_out = draw_pictures(args, max(args.num_videos // 20, 1), args.seed + 1)
    config = CLIPVisionConfig(
        hidden_size=args.hidden_size,
        intermediate_size=2 * args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        image_size=args.image_size,
        patch_size=args.patch_size,
    )
    classifier = PatchClassifier(CLIPVisionModel(config))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=args.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=args.steps, pct_start=0.05
    )
    for _ in tqdm(range(args.steps), desc="Train the tower", unit="step"):
        chosen = torch.randint(len(train[0]), (32,))
        brightness = torch.empty(32, 1, 1, 1).uniform_(0.85, 1.15)
        logits = classifier((train[0][chosen] * brightness).clamp(0, 255))
        # Most patches show little: a hit weighs three times.
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, train[1][chosen].float(), pos_weight=torch.tensor(3.0)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.tower.save_pretrained(args.output)
    return _test(classifier.eval(), *held_out)


class PatchClassifier(nn.Module):
    """A CLIP vision tower and a linear layer on each patch token."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, tower: CLIPVisionModel):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.config.hidden_size, len(CONTENTS))
        processor = CLIPMGVideoProcessor()
        self.register_buffer("mean", 255 * torch.tensor(processor.image_mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(processor.image_std).view(1, 3, 1, 1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, size, size) in [0, 255] -> logits (B, N, len(CONTENTS))."""
        hidden_states = self.tower((pictures.float() - self.mean) / self.std).last_hidden_state
        # The model reads the tokens after this norm.
        return self.head(self.tower.post_layernorm(hidden_states)[:, 1:])


def draw_pictures(args: TowerArguments, num_videos: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (P, 3, size, size) uint8 and what their patches show (P, N, len(CONTENTS)) bool."""
    config, rng = SyntheticConfig(seed=seed), np.random.default_rng(seed)
    grid = args.image_size // args.patch_size
    pictures, contents = [], []
    for subject in tqdm(range(1, num_videos + 1), desc="Draw pictures", unit="video"):
        classes = rng.choice(list(SYNTHETIC_CLASSES), config.clips_per_video).tolist()
        video = generate_video(config, subject, f"{subject:04d}", classes)
        for index in rng.integers(0, len(video), args.pictures_per_video).tolist():
            box = _random_square(video.clean_keypoints[index, _UPPER_BODY], rng)
            pictures.append(_cut(video.frame(index), box, args.image_size))
            contents.append(patch_contents(video, index, box, grid))
    return torch.stack(pictures), torch.from_numpy(np.stack(contents))


def _random_square(points: Array, rng: np.random.Generator) -> tuple[float, float, float]:
    """A square around points (K, 2): left, top and side in pixels."""
    low, high = points.min(0), points.max(0)
    side = float((high - low).max() * rng.uniform(0.9, 1.7))
    left, top = (low + high - side) / 2 + rng.uniform(-0.12, 0.12, 2) * side
    return float(left), float(top), side


def _cut(frame: NDArray[np.uint8], box: tuple[float, float, float], size: int) -> torch.Tensor:
    """A square of a frame (height, width, 3) as (3, size, size) uint8, black where it leaves the frame."""
    left, top, side = box
    steps = (torch.arange(size) + 0.5) / size * side
    height, width = frame.shape[:2]
    x, y = (left + steps) / width * 2 - 1, (top + steps) / height * 2 - 1
    grid = torch.stack([x.expand(size, size), y[:, None].expand(size, size)], dim=-1)[None]
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    return nn.functional.grid_sample(planes, grid, align_corners=False)[0].clamp(0, 255).byte()


def patch_contents(video: SyntheticVideo, index: int, box: tuple[float, float, float], grid: int) -> Array:
    """What the patches of a square (left, top, side in pixels) of a frame show: (grid * grid, len(CONTENTS)) bool."""
    left, top, side = box
    shown = np.zeros((grid, grid, len(CONTENTS)), dtype=bool)
    for content, points in _visible_points(video, index).items():
        columns, rows = np.floor((points - (left, top)) / side * grid).astype(int).T
        inside = (columns >= 0) & (columns < grid) & (rows >= 0) & (rows < grid)
        shown[rows[inside], columns[inside], CONTENTS.index(content)] = True
    return shown.reshape(-1, len(CONTENTS))


def _visible_points(video: SyntheticVideo, index: int) -> dict[str, Array]:
    """Points (K, 2) of the frame, in pixels, at which each of `CONTENTS` can be seen."""
    points, style, unit = video.clean_keypoints[index], video.clip_style(index), video.unit
    face = points[_FACE]
    along = np.linspace(0, 1, 7)[:, None]
    bones = [(points[a], points[b]) for arm in _ARMS for a, b in itertools.pairwise(arm)]
    # Objects reach from 12 of their units below their middle to 16 above.
    reach = np.linspace(-12, 16, 9)[:, None] * PROP_SCALE * unit
    found = {
        "face": face,
        "mouth": face[_MOUTH],
        "eyes": face[_EYES],
        "right hand": points[_RIGHT_HAND],
        "left hand": points[_LEFT_HAND],
        "arm": np.concatenate([start + along * (end - start) for start, end in bones]),
        "shoulder": points[[arm[0] for arm in _ARMS]],
        "trunk": points[_NECK] + along * (0, 72 * unit),
    }
    if style.hat:
        temples = face[list(_TEMPLES)]
        half = float(np.linalg.norm(temples[1] - temples[0])) / 2
        columns, rows = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1.6, -0.5, 5))
        found["hat"] = temples.mean(0) + half * np.stack([columns.ravel(), rows.ravel()], axis=1)
    if style.held is not None:
        found["held object"] = place_in_hands(points, unit) + reach * _upwards(style.held.angle)
    on_desk, (shift, edge) = [], video.desk_edge(index)
    for x, prop in style.on_desk:
        middle, angle = place_on_desk(prop, x + shift, edge, unit)
        on_desk.append(middle + reach * _upwards(angle))
    if on_desk:
        found["object on the desk"] = np.concatenate(on_desk)
    return found


def _upwards(angle: float) -> Array:
    return np.array((np.sin(angle), -np.cos(angle)))


@torch.no_grad()
def _test(
    classifier: PatchClassifier, pictures: torch.Tensor, contents: torch.Tensor
) -> dict[str, tuple[float, float]]:
    said = torch.cat([classifier(part) for part in pictures.split(64)]) > 0
    right = (said & contents).sum((0, 1))
    precision, recall = right / said.sum((0, 1)).clamp(min=1), right / contents.sum((0, 1)).clamp(min=1)
    return dict(zip(CONTENTS, zip(precision.tolist(), recall.tolist(), strict=True), strict=True))


def main() -> None:
    """Command line."""
    (args,) = HfArgumentParser(cast(Any, TowerArguments)).parse_args_into_dataclasses()
    if Path(args.output).exists():
        raise FileExistsError(f"{args.output} is there already; expected a new folder.")
    for content, (precision, recall) in train_tower(args).items():
        print(f"{content}: precision {precision:.2f}, recall {recall:.2f}")


if __name__ == "__main__":
    run(main)


__all__ = ["CONTENTS", "PatchClassifier", "TowerArguments", "draw_pictures", "patch_contents", "train_tower"]
