"""Files that are there as a whole or not at all, and what identifies their contents."""

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any


PARTIAL_SUFFIX = ".partial"


def write_file(path: str | PathLike, content: bytes | str) -> None:
    """Write a file under a temporary name beside it, and give it its own when it is complete.

    Args:
        path (`str` or `PathLike`): The file, in a folder that exists; several processes may write it at once.
        content (`bytes` or `str`): What to write; text in UTF-8.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        with _errors_that_name(path, partial):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def complete_file(path: str | PathLike, suffix: str | None = None) -> Iterator[Path]:
    """A place to write a file in, moved to `path` when the block ends well.

    Args:
        path (`str` or `PathLike`): The file, in a folder that exists.
        suffix (`str`, *optional*): What its name must end in.

    Raises:
        ValueError: The name ends in something else.
        FileNotFoundError: There is no folder.
        OSError: The disk is full; the error names `path` and not the place in between.
    """
    path = Path(path)
    if suffix is not None and path.suffix.lower() != suffix:
        raise ValueError(f"{path}: expected a file name that ends in {suffix}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".clipmg_") as staging:
        partial = Path(staging, f"partial{path.suffix}")
        with _errors_that_name(path, partial):
            yield partial
            partial.replace(path)


def digest_file(path: Path) -> dict[str, Any]:
    """`bytes` and `sha256` of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


@contextmanager
def _errors_that_name(path: Path, partial: Path) -> Iterator[None]:
    """Let errors of writing name the file, and not the place in between, or nothing as those of a full disk do."""
    try:
        yield
    except OSError as error:
        is_of_partial = error.filename is not None and Path(os.fsdecode(error.filename)) == partial
        if not is_of_partial and (error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT)):
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


__all__ = ["PARTIAL_SUFFIX", "complete_file", "digest_file", "write_file"]
