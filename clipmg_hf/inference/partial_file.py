"""Windows of an unfinished timeline in a file, so that a run that was stopped goes on where it ended.

The first line is a JSON object that says what the windows are of, every further line one window. A line counts once it
ends in a line break: what a killed process or a full disk has cut off is dropped.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf.timeline.records import WindowScores


FORMAT = "clipmg windows 1"


class PartialFile:
    """Keeps finished windows; use it in a `with` block.

    Args:
        path (`str` or `PathLike`): The file, in a folder that exists. It stays when the timeline is finished.
        identity (`dict`): JSON values of everything that the windows depend on.

    Attributes:
        windows (`list[WindowScores]`): Those that the file held.

    Raises:
        ValueError: The file is of something else, or none of ours; the message names what differs.
        FileNotFoundError: There is no folder.
    """

    def __init__(self, path: str | PathLike, identity: dict[str, Any]):
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path}: the folder {self.path.parent} does not exist.")
        header = json.loads(json.dumps({"format": FORMAT, **identity}))
        content = self.path.read_bytes() if self.path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        first, *lines = complete.splitlines() or [b""]
        if first:
            self._check(first, header)
        self.windows = [_read_window(line) for line in lines]
        self._file = self.path.open("r+b" if content else "w+b")
        self._file.truncate(len(complete))
        self._file.seek(len(complete))
        if not first:
            self._write([header])

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def append(self, windows: Iterable[WindowScores]) -> None:
        """Add finished windows."""
        self._write([asdict(window) | {"scores": window.scores.tolist()} for window in windows])

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines))
        self._file.flush()

    def _check(self, first: bytes, header: dict[str, Any]) -> None:
        try:
            found = json.loads(first)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{self.path} is no file of windows ({FORMAT!r}); expected one, or a new name.")
        different = [
            f"{name} {found.get(name)!r:.80} there and {value!r:.80} here"
            for name, value in header.items()
            if found.get(name) != value
        ]
        if different:
            raise ValueError(
                f"{self.path} holds windows of something else: {'; '.join(different)}. Expected the same video, model "
                "and settings; remove the file to start anew."
            )


def _read_window(line: bytes) -> WindowScores:
    values = json.loads(line)
    return WindowScores(**values | {"scores": np.array(values["scores"], np.float32)})


def digest_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Digest of the values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


__all__ = ["PartialFile", "digest_arrays"]
