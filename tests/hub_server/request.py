"""One HTTP request of either origin: its body, its faults, its answer and its line in the log."""

import json
import re
import secrets
import time
import traceback
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from .errors import HubError
from .faults import Fault


if TYPE_CHECKING:
    from .server import Listener

BLOCK = 1 << 20
YES = ("1", "true")


class LineCutError(ConnectionError):
    """The line is to be cut instead of an answer."""


class RequestHandler(BaseHTTPRequestHandler):
    """Serves one connection; a subclass answers the requests of its origin."""

    server: "Listener"
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Answer the request.

        Raises:
            HubError: The answer is this error.
        """
        raise NotImplementedError

    def do_GET(self) -> None:
        """Take one request, whatever its method."""
        started = time.monotonic()
        self.target = urlsplit(self.path)
        self.query = parse_qs(self.target.query, keep_blank_values=True)
        self.user: str | None = None
        self.status: int | str | None = None
        self._body: bytes | None = None
        self._fault: Fault | None = self.server.hub.faults.take(self.command, self.path)
        try:
            self._serve()
        except ConnectionError:
            # The client, or a fault, cut the line.
            self.status = "cut"
            self.close_connection = True
        self.server.hub.log.append(
            {
                "method": self.command,
                "path": self.path,
                "status": self.status,
                "cdn": self.server.is_cdn,
                "user": self.user,
                "milliseconds": round(1e3 * (time.monotonic() - started), 1),
            }
        )

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        fault = self._fault
        try:
            if fault is not None and not fault.late:
                if fault.drop:
                    self._read_half_and_cut()
                raise HubError(fault.status, "a fault that the test ordered")
            self.answer()
        except HubError as error:
            self.send_json({"error": error.message, **error.fields}, error.status, error.headers)
        except ConnectionError:
            raise
        except Exception as error:
            # The test must see a mistake of this server, not wait for an answer.
            traceback.print_exc()
            self.close_connection = True
            if self.status is None:
                self.send_json({"error": f"mistake of the test server: {error!r}"}, 500)

    def _read_half_and_cut(self) -> None:
        left = int(self.headers.get("Content-Length") or 0) // 2
        while left > 0:
            left -= len(self.rfile.read(min(left, BLOCK))) or left
        raise LineCutError

    def log_message(self, *args: object) -> None:
        """Print nothing: the requests are in the log."""

    def blocks(self) -> Iterator[bytes]:
        """The body, as it comes in.

        Raises:
            ConnectionResetError: It ended early.
        """
        if self.is_chunked:
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0:
            block = self.rfile.read(min(left, BLOCK))
            if not block:
                raise ConnectionResetError
            left -= len(block)
            yield block

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def body(self) -> bytes:
        """The whole body; for what is small."""
        if self._body is None:
            self._body = b"".join(self.blocks())
        return self._body

    def body_is_read(self) -> None:
        """To be called by who has read `blocks`."""
        self._body = b""

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body() or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise HubError(400, "Invalid JSON body")
        return value

    def flag(self, name: str) -> bool:
        """Whether a parameter of the query says yes."""
        return self.query.get(name, [""])[0].lower() in YES

    def start_response(self, status: int, headers: Mapping[str, str], length: int) -> None:
        """Send the status and the headers of an answer of `length` bytes."""
        if self._body is None:
            for _ in self.blocks():
                pass
        if self._fault is not None and self._fault.late:
            raise LineCutError
        self.status = status
        self.send_response(status)
        self.send_header("X-Request-Id", f"Root=1-{secrets.token_hex(8)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send_json(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(value, default=str).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
        self.start_response(status, headers, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_file(self, path: Path, headers: Mapping[str, str]) -> None:
        """Send a file, or the range of it that the client wants."""
        size = path.stat().st_size
        wanted = _byte_range(self.headers.get("Range", ""), size)
        if wanted is not None and not wanted:
            self.start_response(416, {"Content-Range": f"bytes */{size}"}, 0)
            return
        status, part = (200, range(size)) if wanted is None else (206, wanted)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if status == 206:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        self.start_response(status, headers, len(part))
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(part.start)
            for start in range(part.start, part.stop, BLOCK):
                self.wfile.write(file.read(min(BLOCK, part.stop - start)))


def _byte_range(header: str, size: int) -> range | None:
    """Bytes of a file of `size` bytes that a Range header asks for; empty: none of them exist, None: all."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1) if last else size)
