"""Keypoint heatmaps, drawn on the model's device from normalised keypoints."""

import torch


def draw_heatmaps(keypoints: torch.Tensor, size: int, sigma: float, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Draw one Gaussian per keypoint, scaled by its confidence and cut at 3 sigma.

    The Gaussian is the product of one exponential per axis, so 2 * `size` exponentials draw `size`² cells. It is
    computed in float32 whatever the model's precision: bfloat16 cannot resolve positions to a cell. Cell `i` has its
    centre at (i + 0.5) / `size`. The formula and the window are those of PoseConv3D (Duan et al. 2022).

    Args:
        keypoints (`torch.Tensor` of shape `(..., 3)`): x, y in [0, 1] of the processed frame and confidence >= 0.
            Must be finite. A confidence of 0 draws nothing; points outside [0, 1] are drawn as far as they reach in.
        size (`int`): Height and width of the heatmap in cells.
        sigma (`float`): Standard deviation in cells.
        dtype (`torch.dtype`, *optional*): Type of the result; float32 by default.

    Returns:
        `torch.Tensor` of shape `(..., size, size)`: rows first, in [0, confidence], differentiable in its inputs.
    """
    cells = torch.arange(size, device=keypoints.device, dtype=torch.float32)
    centre = keypoints[..., :2].float().unsqueeze(-1) * size - 0.5
    distance = cells - centre
    # The window of PoseConv3D: whole cells from int(centre - 3 sigma) to int(centre + 3 sigma).
    inside = (cells >= torch.trunc(centre - 3 * sigma)) & (cells <= torch.trunc(centre + 3 * sigma))
    profile = torch.exp(distance.square() * (-0.5 / sigma**2)) * inside
    # (..., 2, size) -> (..., size) for columns (x) and rows (y)
    columns, rows = profile.unbind(-2)
    rows = rows * keypoints[..., 2:].float()
    if dtype is not None:
        rows, columns = rows.to(dtype), columns.to(dtype)
    return rows.unsqueeze(-1) * columns.unsqueeze(-2)


__all__ = ["draw_heatmaps"]
