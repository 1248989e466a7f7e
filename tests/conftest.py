"""What tests of several packages share."""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
from hub_server import Hub, open_hub


ROOT = Path(__file__).parents[1]
# One thread each: several processes share the machine, and sums of floats keep their order.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"}
MARK = "CLIPMG_TEST_COMMAND"
RunCommand = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def run_command() -> RunCommand:
    """Run a command from the root of the repository; one that does not end fails with the stacks of its processes."""

    def run(
        command: Sequence[str], expected: int = 0, timeout: float = 240, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess:
        mark = uuid.uuid4().hex
        environment = {**os.environ, **ENVIRONMENT, **(env or {}), MARK: mark}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, cwd=ROOT, **options) as process:
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _abort(mark)
                output, errors = process.communicate(timeout=10)
                pytest.fail(f"{' '.join(command)}: no end after {timeout} s\n{output}\n{errors}")
        assert process.returncode == expected, output + errors
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    return run


@pytest.fixture
def hub(tmp_path_factory, monkeypatch) -> Iterator[Hub]:
    """A Hub of this test alone: on loopback, or the real one when HF_TOKEN and CLIPMG_HUB_NAMESPACE are set."""
    with open_hub(tmp_path_factory.mktemp("hub"), monkeypatch) as hub:
        yield hub


def _abort(mark: str) -> None:
    """Abort a command and all that it has started, orphans too: Python then writes where each thread was."""
    family = [process for process in psutil.process_iter() if _mark_of(process) == mark]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGABRT)
    _, left = psutil.wait_procs(family, timeout=10)
    for process in left:
        process.kill()


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None
