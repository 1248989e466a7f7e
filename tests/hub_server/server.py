"""The server: two origins on loopback, the accounts, the storage, the faults to come and the log."""

import contextlib
import hmac
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

# Imported for their routes.
from . import cards, commit_routes, file_routes, repository_routes  # noqa: F401
from .accounts import TOKENS, Account
from .errors import HubError
from .faults import Fault, Faults
from .hub_handler import HubHandler
from .large_files import CdnHandler
from .request import RequestHandler
from .storage import Storage


class HubServer:
    """A Hub on loopback, which serves while it is used as a context.

    Args:
        folder: Where repositories are kept.
        port: 0 takes a free one.
        tokens: Token to account.
        page_size: The most rows of one answer.
        lfs_threshold: Bytes; a larger file goes the way of large files.
        multipart_threshold: Bytes; a larger file is uploaded in parts.
        part_size: Bytes of a part.

    Attributes:
        endpoint: Address of the Hub, for `HF_ENDPOINT`.
        log: Every request, in the order of the answers: `method`, `path` with the query, `status` (`"cut"` when the
            line was cut), `cdn` (it went to the second origin), `user`, `milliseconds`.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        tokens: Mapping[str, Account] = TOKENS,
        page_size: int = 1000,
        lfs_threshold: int = 10_000_000,
        multipart_threshold: int = 50_000_000,
        part_size: int = 20_000_000,
    ):
        self.tokens = tokens
        self.page_size = page_size
        self.lfs_threshold = lfs_threshold
        self.multipart_threshold = multipart_threshold
        self.part_size = part_size
        self.storage = Storage(folder)
        self.faults = Faults()
        self.log: list[dict[str, Any]] = []
        self._secret = secrets.token_bytes(32)
        self._listeners = [Listener(self, port, HubHandler), Listener(self, 0, CdnHandler)]
        self.endpoint, self._cdn_endpoint = (listener.address for listener in self._listeners)

    def __enter__(self) -> "HubServer":
        for listener in self._listeners:
            options = {"poll_interval": 0.02}
            threading.Thread(target=listener.serve_forever, kwargs=options, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def fail(self, pattern: str, **options: Any) -> None:
        """Order a fault; the options are the fields of `Fault`."""
        self.faults.add(Fault(pattern, **options))

    def sign(self, path: str, **values: object) -> str:
        """A path with a query that only this server can have made and that is good for an hour."""
        query = urlencode(sorted({**values, "expires": int(time.time()) + 3600}.items()))
        return f"{path}?{query}&signature={self._signature(path, query)}"

    def signed_address(self, path: str, **values: object) -> str:
        """The address of a large file on the second origin."""
        return self._cdn_endpoint + self.sign(path, **values)

    def check_signature(self, path: str, query: Mapping[str, list[str]]) -> dict[str, str]:
        """The signed values of a query.

        Raises:
            HubError: The signature is wrong or too old.
        """
        values = {name: found[0] for name, found in query.items()}
        signature = values.pop("signature", "")
        expected = self._signature(path, urlencode(sorted(values.items())))
        if not hmac.compare_digest(signature, expected) or int(values["expires"]) < time.time():
            raise HubError(403, "SignatureDoesNotMatch")
        return values

    def _signature(self, path: str, query: str) -> str:
        return hmac.new(self._secret, f"{path}?{query}".encode(), "sha256").hexdigest()


class Listener(ThreadingHTTPServer):
    """One origin; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: HubServer, port: int, handler: type[RequestHandler]):
        self.hub = hub
        self.is_cdn = handler is CdnHandler
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"

    def server_bind(self) -> None:
        # Without the look-up of the host's name, which may take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback, unless the client has hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Stop listening and end the connections that clients hold open."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
