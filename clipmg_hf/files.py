"""Files that are there as a whole or not at all."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


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
    """
    path = Path(path)
    if suffix is not None and path.suffix.lower() != suffix:
        raise ValueError(f"{path}: expected a file name that ends in {suffix}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".clipmg_") as staging:
        partial = Path(staging, f"partial{path.suffix}")
        yield partial
        partial.replace(path)


__all__ = ["PARTIAL_SUFFIX", "complete_file", "write_file"]
