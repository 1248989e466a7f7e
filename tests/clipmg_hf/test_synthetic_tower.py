"""The small tower of the synthetic data: what it is taught is where it is drawn, and it learns some of it."""

import numpy as np
import pytest
import torch
from transformers import CLIPVisionModel

from clipmg_hf import CLIPMGForMicroGestureClassification
from clipmg_hf.data.synthetic import SyntheticConfig, generate_video
from clipmg_hf.data.synthetic_rendering import HAT_COLOR, PROP_COLOR
from clipmg_hf.synthetic_tower import CONTENTS, TowerArguments, patch_contents, train_tower


STILL = SyntheticConfig(seed=11, camera_shake=0.0, flicker=0.0)
WHOLE, GRID = (70.0, 0.0, 180.0), 30  # a square of the frame, in cells of 6 pixels


def patches_of_color(frame, color):
    """Cells in which at least a third of the pixels have the hue of a colour."""
    left, top, side = (int(value) for value in WHOLE)
    pixels = frame[top : top + side, left : left + side].astype(float)
    unit = np.array(color) / np.linalg.norm(color)
    is_color = (pixels @ unit) / (np.linalg.norm(pixels, axis=-1) + 1e-6) > 0.985
    return is_color.reshape(GRID, 6, GRID, 6).mean((1, 3)).reshape(-1) > 1 / 3


@pytest.mark.parametrize(
    ("content", "color", "classes", "has"),
    [
        ("hat", HAT_COLOR, [2], lambda style: style.hat),
        ("held object", PROP_COLOR, [25], lambda style: not style.on_desk),
        ("object on the desk", PROP_COLOR, [31], lambda style: bool(style.on_desk)),
    ],
)
def test_hats_and_objects_are_where_their_colour_is(content, color, classes, has):
    checked = 0
    for subject in range(1, 4):
        video = generate_video(STILL, subject, f"{subject:04d}", classes * STILL.clips_per_video)
        for _, start, end in video.labels:
            index = (start + end) // 2
            if not has(video.clip_style(index)):
                continue
            shown = patch_contents(video, index, WHOLE, GRID)[:, CONTENTS.index(content)]
            colored = patches_of_color(video.frame(index), color)
            if colored.sum() < 4:  # behind an arm, or outside the square
                continue
            grown = torch.nn.functional.max_pool2d(torch.from_numpy(colored).view(1, GRID, GRID).float(), 5, 1, 2)
            # What is taught lies at the colour, within two cells, and most of the colour is taught.
            assert (shown & (grown.view(-1).numpy() > 0)).sum() >= 0.8 * shown.sum()
            near = torch.nn.functional.max_pool2d(torch.from_numpy(shown).view(1, GRID, GRID).float(), 3, 1, 1)
            assert (colored & (near.view(-1).numpy() > 0)).sum() >= 0.7 * colored.sum()
            checked += 1
    assert checked >= 5


def test_a_tower_learns_and_takes_the_place_of_clip(tmp_path):
    output = str(tmp_path / "tower")
    args = TowerArguments(output, num_videos=6, pictures_per_video=8, steps=200, hidden_size=32, image_size=48)
    found = train_tower(args)
    assert set(found) == set(CONTENTS)
    # The brightest things are learnt first; a guess at random has the precision of their frequency, below 0.1.
    assert found["face"][0] > 0.3 and found["face"][1] > 0.5
    assert CLIPVisionModel.from_pretrained(output).config.image_size == 48
    model = CLIPMGForMicroGestureClassification.from_clip(output, hidden_size=32, num_attention_heads=4)
    assert not any(parameter.requires_grad for parameter in model.vision_tower.parameters())
