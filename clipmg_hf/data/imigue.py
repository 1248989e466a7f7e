"""iMiGUE from a local folder: the Oulu release, the MiGA challenge packs of 2023 to 2026, or a part of either.

    dataset = load_imigue("/data/imigue")          # DatasetDict: train, validation, test

A row is a clip: its interval in an untrimmed video, its label and its OpenPose keypoints (`clipmg_hf.data.schema`).
Nothing is downloaded, and no video is decoded here: the processor decodes the frames that it samples.
"""

from os import PathLike
from typing import Any

import datasets

from clipmg_hf.data.builder import ClipBuilder, ClipConfig, load_source
from clipmg_hf.data.imigue_files import TRAIN_SUBJECTS, find_imigue
from clipmg_hf.data.problems import OnError
from clipmg_hf.data.source import DataSource


class IMiGUE(ClipBuilder):
    """`datasets` builder for iMiGUE; use it through [`load_imigue`].

    Configurations: `classification` (clips), `online` (untrimmed videos with their timelines), `emotion` (untrimmed
    videos labelled "loss" or "win").
    """

    BUILDER_CONFIGS = [
        ClipConfig(name=name, version=datasets.Version("2.0.0")) for name in ("classification", "online", "emotion")
    ]
    DEFAULT_CONFIG_NAME = "classification"
    PROTOCOLS = ("miga", "cross_subject", "folds")
    train_subjects = TRAIN_SUBJECTS

    def find(self, path: str, on_error: OnError, skeleton: str) -> DataSource:
        """See [`find_imigue`]."""
        return find_imigue(path, on_error, skeleton)


def load_imigue(path: str | PathLike, name: str = "classification", **options: Any) -> datasets.DatasetDict:
    """Load iMiGUE from a folder that holds the Oulu release, the MiGA packs, or a part of either.

    Args:
        path (`str` or `PathLike`): The folder; packs are found at any depth below it.
        name (`str`, defaults to `"classification"`): `"classification"`, `"online"` or `"emotion"`.
        options: See [`load_source`]: `protocol` (`"miga"`, `"cross_subject"`, `"folds"`), `validation`, `seed`,
            `num_folds`, `fold`, `background_share`, `background_margin`, `skeleton`, `personal_data`, `on_error`,
            `cache_dir`, `num_proc`.

    Returns:
        `datasets.DatasetDict` with the splits that are there; columns as in `clipmg_hf.data.schema`.

    Raises:
        DatasetFormatError: The folder or files in it are not as documented; all problems are named at once.
    """
    return load_source(IMiGUE, path, name, **options)


def register() -> None:
    """Make `datasets.load_dataset("imigue", data_dir=...)` find the builder, in this process.

    It writes to a private table of `datasets`, which has no public way to register a builder.
    """
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    _PACKAGED_DATASETS_MODULES["imigue"] = (__name__, "clipmg_hf")


__all__ = ["IMiGUE", "load_imigue", "register"]
