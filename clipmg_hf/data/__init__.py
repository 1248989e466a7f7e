"""Data sets: iMiGUE from a local folder, synthetic clips in its layout, and batches for Trainer."""

from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.imigue import DatasetFormatError, IMiGUE, load_imigue


__all__ = ["ClipDataset", "DatasetFormatError", "IMiGUE", "collate_clips", "load_imigue"]
