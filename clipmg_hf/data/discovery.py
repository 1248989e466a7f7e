"""Finding files of a data set below a folder, whatever its packs are nested in."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipmg_hf.data.problems import DatasetFormatError


ARCHIVE_SUFFIXES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz")
# The names that the packs give to their parts, lower case, as folder names or after a prefix such as "smg_rgb_".
PART_ALIASES = {
    "train": "train",
    "train_data": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "validation_data": "validation",
    "test": "test",
    "test_data": "test",
}


def check_folder(path: str | os.PathLike, expected: str) -> Path:
    """The folder at `path`; a `DatasetFormatError` that says what is there instead.

    Args:
        path (`str` or `PathLike`): What the user gave.
        expected (`str`): What should be there, for the message.
    """
    root = Path(path)
    if root.is_dir():
        return root.resolve()
    if not root.exists():
        raise DatasetFormatError(f"{root}: no such folder; expected {expected}.")
    if root.suffix.lower() in ARCHIVE_SUFFIXES:
        raise DatasetFormatError(f"{root}: this is an archive; expected the folder that it unpacks to ({expected}).")
    raise DatasetFormatError(f"{root}: this is a file; expected {expected}.")


def list_files(root: Path) -> list[Path]:
    """Every file below `root` in a fixed order; hidden ones left out, links to folders followed once."""
    files: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return files


def part_of(path: Path, root: Path, prefixes: Sequence[str], others: dict[str, str] | None = None) -> str | None:
    """The part that the folders above a file name, the nearest first; `None` if none does.

    Args:
        path (`Path`): A file below `root`; the name of `root` itself counts too.
        root (`Path`): Folder of the data set.
        prefixes (`Sequence[str]`): What may stand before a part's name, such as `"smg_rgb_"`; lower case.
        others (`dict[str, str]`, *optional*): Further folder names, lower case, and their part.
    """
    folders = [root.name, *path.relative_to(root).parts[:-1]]
    for folder in reversed(folders):
        name = folder.lower()
        if others and name in others:
            return others[name]
        stem = next((name[len(prefix) :] for prefix in prefixes if name.startswith(prefix)), name)
        if stem in PART_ALIASES:
            return PART_ALIASES[stem]
    return None


def list_archives(files: Iterable[Path]) -> str:
    """Name the archives among `files`, for a message about a folder without data; "" without any."""
    names = [path.name for path in files if path.suffix.lower() in ARCHIVE_SUFFIXES]
    return (
        f" It holds archives ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): unpack them."
        if names
        else ""
    )


def shorten(names: Sequence[str], limit: int = 5) -> str:
    """Join names with commas; after `limit` of them say how many more there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


__all__ = ["check_folder", "list_archives", "list_files", "part_of", "shorten"]
