"""What the frozen CLIP tower makes of each clip, computed once and read from disk in every epoch.

    features = cache_features(model, ClipDataset(rows, processor), "cache")       # the views of the evaluation
    features = cache_features(model, ClipDataset(rows, processor, augment=True, seed=0), "cache", num_views=4)

The tower takes most of a training step's arithmetic (`benchmarks/results/feature_cache.md`). An entry is a view of a
clip: its tokens (T, 1 + N, D_v), 2.4 MB for 8 frames of ViT-B/16 in float16, and the keypoints of the same view. A
folder belongs to one tower, one processor, one set of rows and one set of views: whatever changes, another one is
used. A computation that was killed goes on where it stopped. A checksum is compared when an entry is first read.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from clipmg_hf.data.clips import ClipDataset, checksum_tensors, collate_clips
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.model_state import digest_weights, evaluating
from clipmg_hf.run_files import PARTIAL_PREFIX


# Part of every key: folders of another version are not read.
CACHE_VERSION = 1
CHECKSUMS_FILE, DESCRIPTION_FILE, TOKENS = "checksums.npy", "features.json", "vision_tokens"
_NOT_COMPUTED = -1
Precision = Literal["float16", "float32"]


def check_frozen(model: nn.Module) -> None:
    """Raise a ValueError unless the tower is there and nothing in it is trained."""
    base = _unwrap(model)
    if base.vision_tower is None:
        raise ValueError(f"A model with fusion={base.config.fusion!r} has no vision tower whose features to keep.")
    trained = [name for name, parameter in base.vision_tower.named_parameters() if parameter.requires_grad]
    if trained:
        raise ValueError(
            f"Features of a tower that is trained change with every step: {len(trained)} of its weights are trained "
            f"(first {trained[0]}); expected num_trainable_vision_layers=0 and no LoRA."
        )


def _unwrap(model: Any) -> Any:
    """The model inside PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class CachedFeatures(Dataset):
    """Clips whose items hold `vision_tokens` in place of `pixel_values`; made by [`cache_features`].

    Args:
        clips ([`ClipDataset`]): The clips.
        folder (`Path`): Folder of the entries.
        num_views (`int`): Views of each clip. An item is view `epoch % num_views`; see `set_epoch`.
    """

    def __init__(self, clips: ClipDataset, folder: Path, num_views: int):
        self.clips = clips
        self.folder = folder
        self.num_views = num_views
        # In shared memory: workers that live for several epochs see it change.
        self._view = torch.zeros((), dtype=torch.int64).share_memory_()
        labels = clips.rows.with_format("arrow").select_columns("label")[:]["label"]
        self._labels = torch.from_numpy(labels.to_numpy().astype(np.int64))
        self._open()

    def _open(self) -> None:
        description = json.loads((self.folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        self._arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in description["tensors"]}
        self._checksums = np.load(self.folder / CHECKSUMS_FILE, mmap_mode="r")
        self._checked = np.zeros(len(self._checksums), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would copy what it maps.
        return {name: value for name, value in vars(self).items() if name not in ("_arrays", "_checksums", "_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def set_epoch(self, epoch: int) -> None:
        """Choose the view of an epoch, also for workers that stay alive."""
        self._view.fill_(epoch % self.num_views)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        entry = int(self._view) * len(self) + index
        # A copy: a map must not be written to, and its pages are not pinned.
        item = {name: torch.from_numpy(np.array(array[entry])) for name, array in self._arrays.items()}
        if not self._checked[entry]:
            if checksum_tensors(item) != self._checksums[entry]:
                raise DatasetFormatError(
                    f"{self.folder}: entry {entry} (clip {index}) is damaged or was not computed; delete the folder."
                )
            self._checked[entry] = True
        return item | {"labels": self._labels[index]}


def cache_features(
    model: nn.Module,
    clips: ClipDataset,
    cache_dir: str | PathLike,
    num_views: int = 0,
    precision: Precision = "float16",
    batch_size: int = 8,
    num_workers: int = 0,
) -> CachedFeatures:
    """Compute what is not there yet, on the model's device, and open it.

    Args:
        model (`nn.Module`): A CLIP-MG model whose tower is frozen.
        clips ([`ClipDataset`]): With `video`. For views: with `augment=True` and a seed.
        cache_dir (`str` or `PathLike`): Holds one folder for each key.
        num_views (`int`, defaults to 0): Fixed random views of each clip, those of the epochs 0 to `num_views - 1`; 0
            for the views of the evaluation.
        precision (`str`, defaults to `"float16"`): `"float32"` keeps the tokens of a float32 model exactly.
        batch_size (`int`, defaults to 8): Clips that the tower takes at once.
        num_workers (`int`, defaults to 0): Processes that decode.

    Raises:
        ValueError: The tower is trained, the clips have no video, or augmentation and `num_views` contradict.
        OSError: The disk has no room for all entries; nothing is left behind.
    """
    check_frozen(model)
    _check_views(clips, num_views)
    base = _unwrap(model)
    folder = Path(cache_dir) / feature_key(base, clips, num_views, precision)
    if not folder.is_dir():
        _create_folder(folder, _example(base, clips, precision), len(clips) * max(num_views, 1))
    for view in range(max(num_views, 1)):
        _compute_view(base, clips, folder, view, batch_size, num_workers)
    clips.set_epoch(0)
    return CachedFeatures(clips, folder, max(num_views, 1))


def _check_views(clips: ClipDataset, num_views: int) -> None:
    if "video" not in clips.rows.column_names:
        raise ValueError("The clips have no video: there are no frames whose features to keep.")
    if num_views == 0 and clips.augment:
        raise ValueError(
            "Kept features show every clip in the same way in every epoch, but the training views are random; "
            "expected no augmentation, or a number of fixed random views (num_views)."
        )
    if num_views and not (clips.augment and clips.transform.seed is not None):
        raise ValueError(f"num_views={num_views} needs random views with a seed; expected augment=True and a seed.")


def feature_key(model: Any, clips: ClipDataset, num_views: int, precision: str) -> str:
    """Digest of everything that the entries depend on: tower, processor, rows and views."""
    tower = model.vision_tower
    transform = clips.transform
    identity = {
        "version": CACHE_VERSION,
        "weights": digest_weights(tower),
        "tower": tower.config.to_dict(),
        "dtype": str(tower.dtype),
        "precision": precision,
        "processor": transform.processor.to_dict(),
        "missing_keypoints": transform.missing_keypoints,
        "rows": clips.rows._fingerprint,
        "views": (num_views, transform.seed if num_views else None),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _example(model: Any, clips: ClipDataset, precision: Precision) -> dict[str, np.ndarray]:
    """Arrays of one entry, for their shapes and types."""
    item = clips[0]
    arrays = {name: value.numpy() for name, value in item.items() if name not in ("pixel_values", "labels")}
    vision_config = model.config.vision_config
    num_tokens = 1 + (vision_config.image_size // vision_config.patch_size) ** 2
    shape = (len(item["pixel_values"]), num_tokens, vision_config.hidden_size)
    return {TOKENS: np.zeros(shape, precision), **arrays}


def _create_folder(folder: Path, example: Mapping[str, np.ndarray], num_entries: int) -> None:
    """Reserve the room of all entries, so that a disk that is too small is noticed now."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
    size = num_entries * sum(array.nbytes for array in example.values())
    try:
        partial.mkdir()
        for name, array in example.items():
            path = partial / f"{name}.npy"
            np.lib.format.open_memmap(path, "w+", array.dtype, (num_entries, *array.shape))
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        np.save(partial / CHECKSUMS_FILE, np.full(num_entries, _NOT_COMPUTED, np.int64))
        description = json.dumps({"version": CACHE_VERSION, "tensors": list(example), "entries": num_entries})
        (partial / DESCRIPTION_FILE).write_text(description + "\n", encoding="utf-8")
        partial.replace(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.is_dir():
            # Another process was faster.
            return
        free = shutil.disk_usage(folder.parent).free
        error.add_note(f"{folder} needs {size:,} bytes for {num_entries:,} entries; {free:,} are free.")
        raise


@torch.inference_mode()
def _compute_view(model: Any, clips: ClipDataset, folder: Path, view: int, batch_size: int, num_workers: int) -> None:
    """Compute the entries of one view that are not there yet."""
    checksums = np.load(folder / CHECKSUMS_FILE, mmap_mode="r+")
    first = view * len(clips)
    missing = np.flatnonzero(checksums[first : first + len(clips)] == _NOT_COMPUTED).tolist()
    if not missing:
        return
    names = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["tensors"]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names}
    clips.set_epoch(view)
    loader = DataLoader(Subset(clips, missing), batch_size, num_workers=num_workers, collate_fn=collate_clips)
    done = 0
    with evaluating(model):
        for batch in tqdm(loader, desc=f"Keep features, view {view}", unit="batch"):
            pixel_values = batch.pop("pixel_values")
            tokens, _ = model.base_model.encode_frames(pixel_values.to(model.device))
            batch[TOKENS] = tokens.cpu()
            # The collator leaves out a mask that masks nothing.
            batch.setdefault("frame_mask", torch.ones(pixel_values.shape[:2], dtype=torch.bool))
            for row in range(len(pixel_values)):
                entry = first + missing[done]
                for name, array in arrays.items():
                    array[entry] = batch[name][row].numpy()
                # Last: an entry counts once all of it is written.
                written = {name: torch.from_numpy(np.array(array[entry])) for name, array in arrays.items()}
                checksums[entry] = checksum_tensors(written)
                done += 1
    for array in (*arrays.values(), checksums):
        array.flush()


__all__ = ["CachedFeatures", "cache_features", "check_frozen", "feature_key"]
