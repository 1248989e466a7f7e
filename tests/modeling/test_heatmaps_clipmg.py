"""Heatmaps equal a slow reference, pixel by pixel, and are differentiable."""

import math

import pytest
import torch

from clipmg_hf.modeling.heatmaps_clipmg import draw_heatmaps


def slow_heatmap(x: float, y: float, confidence: float, size: int, sigma: float) -> torch.Tensor:
    """One keypoint, one pixel at a time, by the formula and window of PoseConv3D; x, y in [0, 1] of the frame."""
    mu_x, mu_y = x * size - 0.5, y * size - 0.5
    heatmap = torch.zeros(size, size)
    for row in range(max(int(mu_y - 3 * sigma), 0), min(int(mu_y + 3 * sigma) + 1, size)):
        for column in range(max(int(mu_x - 3 * sigma), 0), min(int(mu_x + 3 * sigma) + 1, size)):
            distance = (column - mu_x) ** 2 + (row - mu_y) ** 2
            heatmap[row, column] = math.exp(-distance / 2 / sigma**2) * confidence
    return heatmap


def random_keypoints(seed: int = 0) -> torch.Tensor:
    """(2, 3, 7, 3): x, y in [-0.2, 1.2], confidence in [0, 1], some of it 0."""
    keypoints = torch.rand(2, 3, 7, 3, generator=torch.Generator().manual_seed(seed))
    keypoints[..., :2] = keypoints[..., :2] * 1.4 - 0.2
    keypoints[:, :, 0, 2] = 0
    return keypoints


@pytest.mark.parametrize(("size", "sigma"), [(56, 0.6), (16, 0.6), (14, 2.0), (1, 0.6)])
def test_heatmaps_equal_the_slow_reference(size, sigma):
    keypoints = random_keypoints()
    heatmaps = draw_heatmaps(keypoints, size, sigma)
    reference = torch.stack([slow_heatmap(*point.tolist(), size, sigma) for point in keypoints.flatten(0, 2)])
    torch.testing.assert_close(heatmaps.flatten(0, 2), reference, atol=1e-4, rtol=0)


def test_window_at_the_borders_is_theirs():
    """Points just outside the frame, whose window `int` rounds towards the frame."""
    positions = torch.linspace(-0.2, 0.2, 201)
    keypoints = torch.stack([positions, torch.full_like(positions, 0.5), torch.ones_like(positions)], dim=-1)
    reference = torch.stack([slow_heatmap(*point.tolist(), 16, 0.6) for point in keypoints])
    torch.testing.assert_close(draw_heatmaps(keypoints, 16, 0.6), reference, atol=1e-4, rtol=0)


def test_centre_confidence_and_orientation():
    """A point at the centre of a cell has its confidence there; x counts columns, y counts rows."""
    heatmap = draw_heatmaps(torch.tensor([(10 + 0.5) / 56, (20 + 0.5) / 56, 0.7]), 56, 0.6)
    assert heatmap.argmax().item() == 20 * 56 + 10
    assert heatmap.max().item() == pytest.approx(0.7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_result_is_the_rounded_exact_one(dtype):
    keypoints = random_keypoints()
    exact, rounded = draw_heatmaps(keypoints, 56, 0.6), draw_heatmaps(keypoints, 56, 0.6, dtype)
    assert rounded.dtype == dtype
    assert torch.equal(rounded, exact.to(dtype))
    assert torch.isfinite(draw_heatmaps(keypoints.to(dtype), 56, 0.6, dtype)).all()


def test_gradients_equal_those_of_the_formula():
    keypoints = random_keypoints().double().requires_grad_()
    weights = torch.rand(2, 3, 7, 12, 12, generator=torch.Generator().manual_seed(1))
    (draw_heatmaps(keypoints, 12, 1.0) * weights).sum().backward()
    cells = torch.arange(12).double()
    other = keypoints.detach().clone().requires_grad_()
    x, y, confidence = (value[..., None, None] for value in other.unbind(-1))
    x, y = x * 12 - 0.5, y * 12 - 0.5
    formula = torch.exp(-((cells - x) ** 2 + (cells[:, None] - y) ** 2) / 2) * confidence
    inside = (cells >= (x - 3).trunc()) & (cells <= (x + 3).trunc())
    inside = inside & (cells[:, None] >= (y - 3).trunc()) & (cells[:, None] <= (y + 3).trunc())
    (formula * inside * weights).sum().backward()
    torch.testing.assert_close(keypoints.grad, other.grad, atol=1e-4, rtol=1e-4)
    assert keypoints.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [1, 5, 16])
def test_keypoints_last_are_the_same_heatmaps_in_channels_last(size):
    keypoints = random_keypoints()
    heatmaps = draw_heatmaps(keypoints, size, 0.6, keypoints_last=True)
    assert heatmaps.is_contiguous() and heatmaps.shape == (2, 3, size, size, 7)
    assert torch.equal(heatmaps.movedim(-1, 2), draw_heatmaps(keypoints, size, 0.6))
    channels_first = heatmaps.movedim(-1, 1)
    assert channels_first.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("value", [1e6, -1e6, 1e30, math.inf, math.nan])
def test_coordinates_that_are_far_away_or_no_numbers_touch_no_other_heatmap(value):
    keypoints = random_keypoints()
    expected = draw_heatmaps(keypoints, 16, 0.6)
    keypoints[0, 0, 1, 0] = value
    heatmaps = draw_heatmaps(keypoints, 16, 0.6)
    expected[0, 0, 1] = heatmaps[0, 0, 1]
    torch.testing.assert_close(heatmaps, expected, equal_nan=True)
    assert not math.isfinite(value) or heatmaps[0, 0, 1].eq(0).all()
