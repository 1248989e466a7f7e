"""Keypoint heatmaps, drawn on the model's device from normalised keypoints."""

from math import ceil

import torch


def draw_heatmaps(
    keypoints: torch.Tensor,
    size: int,
    sigma: float,
    dtype: torch.dtype | None = None,
    keypoints_last: bool = False,
) -> torch.Tensor:
    """Draw one Gaussian per keypoint, scaled by its confidence and cut at 3 sigma.

    Only the cells within 3 sigma are computed, and put into zeros: the time is that of writing the zeros. The Gaussian
    is the product of one exponential per axis, in float32 whatever the model's precision: bfloat16 cannot resolve
    positions to a cell. Cell `i` has its centre at (i + 0.5) / `size`. The formula and the window are those of
    PoseConv3D (Duan et al. 2022).

    Args:
        keypoints (`torch.Tensor` of shape `(..., 3)`): x, y in [0, 1] of the processed frame and confidence >= 0.
            Must be finite. A confidence of 0 draws nothing; points outside [0, 1] are drawn as far as they reach in.
        size (`int`): Height and width of the heatmap in cells.
        sigma (`float`): Standard deviation in cells.
        dtype (`torch.dtype`, *optional*): Type of the result; float32 by default.
        keypoints_last (`bool`, defaults to `False`): Put the keypoints, `(..., K, 3)`, last: the memory format
            "channels last" of convolutions needs no copy then.

    Returns:
        `torch.Tensor` of shape `(..., size, size)`, or `(..., size, size, K)`: rows before columns, in
        [0, confidence], differentiable in its inputs.
    """
    # All windows have as many cells as the largest (a little more than 6 sigma, as coordinates are rounded); one that
    # reaches over the edge is moved in.
    num_cells = min(ceil(6 * sigma + 1e-3) + 1, size)
    centre = keypoints[..., :2].float().unsqueeze(-1) * size - 0.5
    # The window of PoseConv3D: whole cells from int(centre - 3 sigma) to int(centre + 3 sigma).
    low, high = torch.trunc(centre - 3 * sigma), torch.trunc(centre + 3 * sigma)
    cells = low.long().clamp(0, size - num_cells) + torch.arange(num_cells, device=keypoints.device)
    profile = torch.exp((cells - centre).square() * (-0.5 / sigma**2)) * ((cells >= low) & (cells <= high))
    # (..., 2, num_cells) -> (..., num_cells) for columns (x) and rows (y)
    (columns, rows), (column_cells, row_cells) = profile.unbind(-2), cells.unbind(-2)
    rows = rows * keypoints[..., 2:].float()
    # (..., rows, columns) -> (..., num_cells * num_cells)
    values = (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2).to(dtype or torch.float32)
    places = (row_cells.unsqueeze(-1) * size + column_cells.unsqueeze(-2)).flatten(-2)
    if not keypoints_last:
        heatmaps = values.new_zeros(*values.shape[:-1], size * size)
        return heatmaps.scatter_(-1, places, values).unflatten(-1, (size, size))
    values, places = values.transpose(-1, -2), places.transpose(-1, -2)
    heatmaps = values.new_zeros(*values.shape[:-2], size * size, values.shape[-1])
    return heatmaps.scatter_(-2, places, values).unflatten(-2, (size, size))


__all__ = ["draw_heatmaps"]
