"""Push a prepared folder to the Hub as a data set that plain `datasets` loads and streams.

    result = push_dataset("prepared", "owner/name")
    rows = datasets.load_dataset("owner/name", streaming=True)

`hub_scripts/push_dataset.py` is the command.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from clipmg_hf.data.data_card import data_card
from clipmg_hf.data.prepared_folder import (
    MANIFEST_NAME,
    README_NAME,
    VERIFY_HINT,
    read_manifest,
    verify_dataset,
)
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.schema import PERSONAL_COLUMNS
from clipmg_hf.hub import PushError, PushResult, push_folder


COMMIT_MESSAGE = "Upload prepared clips"
# Shards of an earlier push that are not in this one would be loaded with it.
SHARD_PATTERNS = ("data/*-?????-of-?????.parquet", "data/*-?????-of-?????.tar")


def push_dataset(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = True,
    public_licensed_data: bool = False,
    dry_run: bool = False,
    api: HfApi | None = None,
) -> PushResult:
    """Compare a prepared folder with its manifest, and push it in one commit with its data set card.

    Shards of an earlier push are replaced. What had arrived when a push was cut off is not sent again by the next one.

    Args:
        folder (`str` or `PathLike`): As `prepare_dataset` wrote it. A README.md that was edited is pushed as it is.
        repo_id (`str`): `"owner/name"`; made if it is not there.
        private (`bool`, defaults to `True`): Only for those who may read the owner's private repositories.
        public_licensed_data (`bool`, defaults to `False`): With `private=False`: whoever pushes may give these
            recordings of people to everybody, by the agreement they came under.
        dry_run (`bool`, defaults to `False`): Compare and list the files only; needs neither a token nor a network.
        api (`HfApi`, *optional*): Endpoint and token; by default those of the environment.

    Raises:
        DatasetFormatError: The folder is unfinished, or not what its manifest says.
        PushError: A public push without permission to publish, or into a private repository; or what `push_folder`
            raises.
        ValueError: The metadata of an edited README.md are not valid.
    """
    folder = Path(folder)
    _check_permission(private, public_licensed_data)
    manifest = read_manifest(folder)
    # What is wrong with the name shows before all files are read.
    push_folder(folder, repo_id, repo_type="dataset", commit_message=COMMIT_MESSAGE, api=api, dry_run=True)
    if not private and not dry_run and _is_private(repo_id, api or HfApi()):
        raise PushError(
            f"the data set {repo_id} is private, and a public push does not change that; make it public in its "
            "settings, or push privately. Nothing was pushed."
        )
    if problems := verify_dataset(folder):
        raise DatasetFormatError(problems, f"{folder} is not what its manifest says ({VERIFY_HINT})")
    card = data_card(manifest, repo_id, is_public=not private)
    if is_card_edited(folder, manifest):
        card = (folder / README_NAME).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        # The card names the repository; the folder, which may be on a disk that is read only, keeps its own.
        staging = Path(place)
        for name in (*manifest["files"], MANIFEST_NAME):
            (staging / name).parent.mkdir(exist_ok=True)
            (staging / name).symlink_to((folder / name).resolve())
        (staging / README_NAME).write_text(card, encoding="utf-8")
        return push_folder(
            staging,
            repo_id,
            repo_type="dataset",
            private=private,
            commit_message=COMMIT_MESSAGE,
            delete_patterns=SHARD_PATTERNS,
            api=api,
            dry_run=dry_run,
        )


def is_card_edited(folder: str | os.PathLike, manifest: dict[str, Any]) -> bool:
    """Whether the README.md of a prepared folder is another one than its facts give; one that is missing is not."""
    path = Path(folder) / README_NAME
    return path.is_file() and path.read_text(encoding="utf-8") != data_card(manifest)


def describe_clips(manifest: dict[str, Any]) -> str:
    """How much a folder holds, and of whom it tells more than can be seen."""
    splits = ", ".join(f"{split} {count['clips']:,}" for split, count in manifest["splits"].items())
    personal = [name for name in PERSONAL_COLUMNS if name in manifest["features"]]
    also = f"; with the columns {' and '.join(personal)} of the people in them" if personal else ""
    return f"clips: {splits}{also}"


def _check_permission(private: bool, public_licensed_data: bool) -> None:
    """Let nobody publish recordings of people without having said that they may."""
    if private and public_licensed_data:
        raise PushError(
            "public_licensed_data has no effect on a private push; leave it out, or push publicly (--public, or "
            "private=False)."
        )
    if not private and not public_licensed_data:
        raise PushError(
            "a public push would give recordings of people to everybody, and they came under an agreement that, as a "
            "rule, forbids it. Push privately; or, if those who made the data set allow you to publish it, say so "
            "with --public_licensed_data. Nothing was pushed."
        )


def _is_private(repo_id: str, api: HfApi) -> bool:
    """Whether there is such a repository, and it is private. What keeps this from being known, the push tells of."""
    with contextlib.suppress(HTTPError, OfflineModeIsEnabled):
        return bool(api.dataset_info(repo_id).private)
    return False


__all__ = ["describe_clips", "is_card_edited", "push_dataset"]
