"""What a test sees of a Hub: the server of this folder, or the real Hub when the environment names it."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from .accounts import TOKENS
from .server import HubServer


WRITE_TOKEN = "hf_alice_write"
REAL_ENDPOINT = "https://huggingface.co"


class Hub:
    """A Hub to push to and pull from.

    A test that uses what only the server on loopback has (`fail`, `log`, other accounts) is skipped on the real Hub.

    Args:
        folder: An empty folder for homes and caches.
        server: The server on loopback; None for the real Hub.
        token: A token that may write to `namespace`.

    Attributes:
        endpoint: Its address.
        namespace: Where the test may make repositories.
    """

    def __init__(self, folder: Path, server: HubServer | None, namespace: str, token: str):
        self.folder = folder
        self.namespace = namespace
        self.endpoint = REAL_ENDPOINT if server is None else server.endpoint
        self._server = server
        self._token = token
        self._repositories: list[tuple[str, str]] = []

    def repository(self, name: str, repo_type: str = "model") -> str:
        """The id of a repository to be made by the test; the real Hub is rid of it afterwards."""
        if self._server is None:
            name = f"clipmg-test-{name}-{uuid.uuid4().hex[:8]}"
        repo_id = f"{self.namespace}/{name}"
        self._repositories.append((repo_id, repo_type))
        return repo_id

    def api(self, token: str | None = WRITE_TOKEN) -> HfApi:
        """A client in this process; None: without a token."""
        return HfApi(endpoint=self.endpoint, token=self._real_token(token) or False)

    def environment(self, token: str | None = WRITE_TOKEN) -> dict[str, str]:
        """Environment of a child process: a client with an empty home; None: without a token."""
        names = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "CLIPMG_HUB_NAMESPACE"}
        environment = {name: value for name, value in os.environ.items() if name not in names} | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / f"home-{uuid.uuid4().hex[:8]}"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            # `run_command` sets it to 1.
            "HF_HUB_OFFLINE": "0",
        }
        real_token = self._real_token(token)
        return environment if real_token is None else {**environment, "HF_TOKEN": real_token}

    def fail(
        self,
        pattern: str,
        status: int = 503,
        times: int = 1,
        method: str | None = None,
        drop: bool = False,
        late: bool = False,
    ) -> None:
        """Let the next `times` requests fail whose path and query match a regular expression.

        Args:
            pattern: For example `"/commit/"`, `"/put/"` (a large file), `"/preupload/"`.
            status: The answer.
            method: Only requests of this HTTP method.
            drop: Cut the line in the middle of the request instead.
            late: Carry the request out, then cut the line instead of answering.
        """
        self._local().fail(pattern, status=status, times=times, method=method, drop=drop, late=late)

    @property
    def log(self) -> list[dict[str, Any]]:
        """Requests so far, see `HubServer`."""
        return self._local().log

    def delete_repositories(self) -> None:
        for repo_id, repo_type in self._repositories:
            self.api().delete_repo(repo_id, repo_type=repo_type, missing_ok=True)

    def _local(self) -> HubServer:
        if self._server is None:
            pytest.skip("only the server on loopback can do this")
        return self._server

    def _real_token(self, token: str | None) -> str | None:
        if token == WRITE_TOKEN:
            return self._token
        if token in TOKENS:
            self._local()
        return token


@contextlib.contextmanager
def open_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Hub]:
    """A Hub of one test, and this process turned to it: huggingface_hub read its environment when it was imported.

    Args:
        folder: An empty folder.
        monkeypatch: The fixture.
        options: Of `HubServer`; the real Hub has its own.
    """
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    token, namespace = os.environ.get("HF_TOKEN"), os.environ.get("CLIPMG_HUB_NAMESPACE")
    if token and namespace:
        hub = Hub(folder, None, namespace, token)
        try:
            yield hub
        finally:
            hub.delete_repositories()
        return
    with HubServer(folder / "server", **options) as server:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield Hub(folder, server, "alice", WRITE_TOKEN)
