"""Any data set from its folder: which one it is, is told by its files."""

import re
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import datasets

from clipmg_hf.data.discovery import check_folder, list_files
from clipmg_hf.data.imigue import load_imigue
from clipmg_hf.data.imigue_files import find_imigue
from clipmg_hf.data.ma52 import find_ma52, load_ma52
from clipmg_hf.data.prepared_folder import MANIFEST_NAME, RECORD_NAME, load_prepared, read_manifest
from clipmg_hf.data.problems import DatasetFormatError, OnError
from clipmg_hf.data.smg import find_smg, load_smg
from clipmg_hf.data.source import DataSource, Description, PartCounts


FINDERS: dict[str, Callable[..., DataSource]] = {"imigue": find_imigue, "smg": find_smg, "ma52": find_ma52}
LOADERS: dict[str, Callable[..., datasets.DatasetDict]] = {
    "imigue": load_imigue,
    "smg": load_smg,
    "ma52": load_ma52,
}
# What [`load_named_splits`] is told about splitting; the arguments of training and of evaluation have the same names.
SPLIT_SETTINGS = ("protocol", "validation", "split_seed", "fold", "background_share")
# Files that only one data set has, by their names.
_MARKS = {
    "imigue": r"\d{4}_(label|light_hand)\.csv|\d{4}_openpose\.xlsx|labels_\d{8}\.csv",
    "smg": r"Sample\d+_(finelabels|skeleton)\.csv",
    "ma52": r"\w+_list_videos\.txt",
    "prepared": re.escape(MANIFEST_NAME),
}


def detect_dataset(path: str | PathLike) -> str:
    """Tell which data set a folder holds: `"imigue"`, `"smg"`, `"ma52"` or `"prepared"`.

    What is none of them counts as iMiGUE, whose reader says what it expected.

    Raises:
        DatasetFormatError: There is no folder, or it holds several data sets or none that this function loads.
    """
    root = check_folder(path, "the folder of a data set")
    if (root / MANIFEST_NAME).is_file():
        return "prepared"
    if (root / RECORD_NAME).is_file():
        raise DatasetFormatError(f"{root}: prepare_dataset has not finished here; expected it to be run to the end.")
    found: dict[str, Path] = {}
    packs: list[Path] = []
    for file in list_files(root):
        for name, pattern in _MARKS.items():
            if re.fullmatch(pattern, file.name):
                found.setdefault(name, file)
        if file.suffix in (".pkl", ".pickle"):
            packs.append(file)
    if len(found) > 1:
        places = ", ".join(f"{name} ({file.relative_to(root)})" for name, file in found.items())
        raise DatasetFormatError(f"{root}: several data sets, {places}; expected the folder of one.")
    if not found and packs:
        raise DatasetFormatError(
            f"{root}: holds pickles such as {packs[0].relative_to(root)}; expected a data set's own files. "
            "`clipmg_hf.data.load_pyskl` and `load_miga_arrays` read such packs."
        )
    return next(iter(found), "imigue")


def find_source(path: str | PathLike, on_error: OnError = "raise") -> DataSource:
    """Find whichever data set a folder holds; see [`find_imigue`]. Prepared data has no source: see `load_clips`."""
    return FINDERS[detect_dataset(path)](path, on_error)


def describe_folder(path: str | PathLike, on_error: OnError = "raise") -> Description:
    """Describe whichever data set a folder holds, prepared or not."""
    if detect_dataset(path) == "prepared":
        return describe_prepared(path)
    return find_source(path, on_error).describe()


def describe_prepared(path: str | PathLike) -> Description:
    """Describe a prepared data set from its manifest; how many videos it was cut from is not in there."""
    manifest = read_manifest(path)
    has_keypoints = "keypoints" in manifest["features"]
    parts = [
        PartCounts(split, None, clips := counts["clips"], counts["without_label"], clips, clips * has_keypoints, 0)
        for split, counts in manifest["splits"].items()
    ]
    source = manifest["source"]
    settings = ", ".join(f"{name} {value}" for name, value in manifest["settings"].items())
    return Description(
        name=str(source.get("dataset", "clips")),
        layout="prepared clips",
        root=str(Path(path).resolve()),
        parts=tuple(parts),
        findings=(f"settings: {settings}.", *source.get("description", ())),
    )


def load_clips(path: str | PathLike, name: str = "classification", **options: Any) -> datasets.DatasetDict:
    """Load whichever data set a folder holds, prepared or not; options as in [`load_imigue`].

    Raises:
        DatasetFormatError: The folder or files in it are not as documented.
        ValueError: Options for prepared data, whose splits are fixed.
    """
    kind = detect_dataset(path)
    if kind != "prepared":
        return LOADERS[kind](path, name, **options)
    fixed = sorted(key for key, value in options.items() if value is not None and key not in ("cache_dir", "num_proc"))
    if name != "classification" or fixed:
        raise ValueError(
            f"{Path(path)}: prepared data has fixed clips and splits; expected no {', '.join(fixed) or 'other name'}."
        )
    return load_prepared(path, cache_dir=options.get("cache_dir"))


def load_named_splits(
    path: str | PathLike,
    splits: Sequence[str],
    name: str = "classification",
    *,
    protocol: str | None = None,
    validation: float | None = None,
    split_seed: int | None = None,
    fold: int | None = None,
    background_share: float | None = None,
    **options: Any,
) -> dict[str, datasets.Dataset]:
    """Load splits as training and evaluation are told to: what is `None` is left to the data set.

    Args:
        path, name: As for [`load_clips`].
        splits (`Sequence[str]`): Names of the splits.
        protocol, validation, split_seed, fold: How to split. Where nothing is drawn, there is no seed.
        background_share: As in [`BackgroundSettings`]; 0 is as `None`.
        options: Others of [`load_clips`].

    Raises:
        DatasetFormatError: There is no such split, or as [`load_clips`].
        ValueError: As [`load_clips`].
    """
    options |= {"protocol": protocol, "validation": validation, "fold": fold}
    options["background_share"] = background_share or None
    if protocol is not None or validation is not None or background_share:
        options["seed"] = split_seed
    rows = load_clips(path, name, **{key: value for key, value in options.items() if value is not None})
    for split in splits:
        if split not in rows:
            raise DatasetFormatError(
                f"{path} has no split {split!r}; it has {', '.join(rows)}. Expected one of these, --validation 0.2 to "
                "carve one out of the training subjects, or training without one (--eval_strategy no)."
            )
    return {split: rows[split] for split in splits}


__all__ = ["FINDERS", "LOADERS", "SPLIT_SETTINGS", "detect_dataset", "find_source", "load_clips", "load_named_splits"]
