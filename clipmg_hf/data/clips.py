"""From rows of a data set to batches for Trainer: processed in the DataLoader's workers, stacked by the collator."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from clipmg_hf.processing import CLIPMGProcessor


class ClipDataset(Dataset):
    """Rows of a `datasets` data set, processed when they are asked for.

    Args:
        rows (`datasets.Dataset`): Has `start_frame` and `end_frame` (included), `label`, and `video` (a path),
            `keypoints` (T, K, 3) of the interval, or both; see [`load_imigue`].
        processor ([`CLIPMGProcessor`]): Samples, crops and normalises.
        augment (`bool`, defaults to `False`): Draw another random view of the clip each time (training).
        missing_keypoints (`str`, defaults to `"error"`): What to do about points that the data's layout lacks.

    Items are dictionaries of tensors without a batch dimension: `pixel_values` (T, 3, H, W), `keypoints` (T_p, K, 3),
    `keypoint_mask` (T_p,) and `labels` ().
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        processor: CLIPMGProcessor,
        augment: bool = False,
        missing_keypoints: str = "error",
    ):
        hidden = [index for index, label in enumerate(rows["label"]) if label < 0]
        if hidden:
            raise ValueError(
                f"{len(hidden)} of {len(rows)} rows have no label, first row {hidden[0]} "
                f"({rows[hidden[0]]['clip_id']}): test packs hide them; train and evaluate on train and validation."
            )
        self.rows = rows.with_format("numpy")
        self.processor = processor
        self.augment = augment
        self.missing_keypoints = missing_keypoints

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        keypoints = row.get("keypoints")
        if row["video"] is None:
            features = self.processor(
                keypoints=keypoints, augment=self.augment, missing_keypoints=self.missing_keypoints
            )
        else:
            features = self.processor(
                str(row["video"]),
                keypoints,
                intervals=(int(row["start_frame"]), int(row["end_frame"]) + 1),
                augment=self.augment,
                missing_keypoints=self.missing_keypoints,
            )
        item = {name: tensor[0] for name, tensor in features.items()}
        item["labels"] = torch.tensor(int(row["label"]))
        return item


def collate_clips(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack items of [`ClipDataset`] to a batch; every tensor gains a first dimension B."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


__all__ = ["ClipDataset", "collate_clips"]
