"""Decoders of other projects, in an environment of their own: `python -m benchmarks.peers` installs it.

transformers' own video models need no environment: see `benchmarks.peer_models`.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


FOLDER = Path(__file__).parent
ENVIRONMENT = FOLDER / ".venv"


def find_peer_python() -> Path | None:
    """The interpreter of the environment, if it is installed."""
    python = ENVIRONMENT / "bin" / "python"
    return python if (ENVIRONMENT / ".installed").exists() else None


class PeerDecoder:
    """A process that decodes the same clips whenever it is asked to.

    Args:
        library: "opencv" or "decord".
        jobs: For each clip `path` of its file and `indices` of its frames.
    """

    def __init__(self, library: str, jobs: Sequence[dict[str, Any]]):
        self.library = library
        self.jobs = jobs

    def __enter__(self) -> "PeerDecoder":
        command = [str(find_peer_python()), str(FOLDER / "decode.py"), self.library]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate()

    def run(self) -> float:
        """Processor seconds of decoding all clips once."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(self.jobs) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())
