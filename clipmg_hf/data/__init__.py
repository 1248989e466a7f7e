"""Data sets: iMiGUE, SMG and MA-52 from local folders, prepared and synthetic data, and batches for Trainer."""

from clipmg_hf.data.clips import ClipDataset, ClipTransform, collate_clips, map_clips, stream_clips
from clipmg_hf.data.imigue import IMiGUE, load_imigue
from clipmg_hf.data.loading import describe_folder, load_clips
from clipmg_hf.data.ma52 import MA52, load_ma52
from clipmg_hf.data.packs import load_miga_arrays, load_pyskl
from clipmg_hf.data.prepare import load_prepared, prepare_dataset, verify_dataset
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.smg import SMG, load_smg


__all__ = [
    "MA52",
    "SMG",
    "ClipDataset",
    "ClipTransform",
    "DatasetFormatError",
    "IMiGUE",
    "collate_clips",
    "describe_folder",
    "load_clips",
    "load_imigue",
    "load_ma52",
    "load_miga_arrays",
    "load_prepared",
    "load_pyskl",
    "load_smg",
    "map_clips",
    "prepare_dataset",
    "stream_clips",
    "verify_dataset",
]
