"""Large files: git LFS on the Hub's origin, and the second origin that takes and serves their bytes.

The second origin stands for the object store behind the Hub. Like that one it trusts signed addresses alone, refuses
a request that carries a token, and takes no body of unknown length.
"""

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import HubError
from .hub_handler import PAGE, HubHandler, route
from .request import BLOCK, RequestHandler


COMPLETE = "/api/complete_multipart"


@route("POST", rf"{PAGE}\.git/info/lfs/objects/batch")
def plan_transfer(request: HubHandler, repo_type: str | None, repo_id: str) -> None:
    values = request.json()
    if values.get("operation") != "upload" or values.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "only uploads, with sha256, are planned here")
    repository = request.repository(repo_type, repo_id, write=True)
    verify = {"href": f"{request.address(repository)}.git/info/lfs/objects/verify"}
    # One answer names one way of transfer: in parts, as soon as one file needs it.
    sizes = [item["size"] for item in values["objects"]]
    in_parts = "multipart" in values.get("transfers", []) and max(sizes) > request.server.hub.multipart_threshold
    rows = []
    for item in values["objects"]:
        sha256, size = item["oid"], item["size"]
        row = {"oid": sha256, "size": size}
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            row["error"] = {"code": 422, "message": "bad oid"}
        elif not request.server.hub.storage.large_file(sha256).exists():
            row["actions"] = {"upload": _upload_action(request, sha256, size, in_parts), "verify": verify}
        rows.append(row)
    answer = {"transfer": "multipart" if in_parts else "basic", "objects": rows, "hash_algo": "sha256"}
    request.send_json(answer, headers={"Content-Type": "application/vnd.git-lfs+json"})


def _upload_action(request: HubHandler, sha256: str, size: int, in_parts: bool) -> dict[str, Any]:
    hub = request.server.hub
    if not in_parts or size <= hub.multipart_threshold:
        return {"href": hub.signed_address(f"/put/{sha256}", size=size)}
    parts = range(1, 1 - (-size // hub.part_size))
    header = {str(part): hub.signed_address(f"/put/{sha256}", part=part) for part in parts}
    href = hub.endpoint + hub.sign(COMPLETE, sha256=sha256, size=size)
    return {"href": href, "header": {"chunk_size": str(hub.part_size), **header}}


@route("POST", COMPLETE)
def complete(request: HubHandler) -> None:
    """Join the parts of a file. The client sends no token: the signature is the right."""
    values = request.json()
    signed = request.server.hub.check_signature(COMPLETE, request.query)
    target = request.server.hub.storage.large_file(signed["sha256"])
    if not target.exists():
        _join(target, signed["sha256"], int(signed["size"]), values["parts"])
    request.send_json({"success": True})


def _join(target: Path, sha256: str, size: int, parts: Sequence[Mapping[str, Any]]) -> None:
    with _new_file(target, sha256, size) as write:
        for part in parts:
            piece = _part(target, part["partNumber"], part["etag"].strip('"'))
            if not piece.exists():
                raise HubError(400, f"InvalidPart: {part}")
            with piece.open("rb") as file:
                while block := file.read(BLOCK):
                    write(block)
            piece.unlink()


@route("POST", rf"{PAGE}\.git/info/lfs/objects/verify")
def verify(request: HubHandler, repo_type: str | None, repo_id: str) -> None:
    values = request.json()
    request.repository(repo_type, repo_id, write=True)
    path = request.server.hub.storage.large_file(values["oid"])
    if not path.exists() or path.stat().st_size != values["size"]:
        raise HubError(404, "object does not exist")
    request.send_json({})


class CdnHandler(RequestHandler):
    """Takes and serves the bytes of large files."""

    def answer(self) -> None:
        if self.headers.get("Authorization"):
            raise HubError(400, "InvalidArgument: a token was sent to the object store")
        path = self.target.path
        signed = self.server.hub.check_signature(path, self.query)
        action, _, sha256 = path.strip("/").partition("/")
        target = self.server.hub.storage.large_file(sha256)
        if action == "get" and self.command in ("GET", "HEAD"):
            self.send_file(target, {"ETag": f'"{sha256}"'})
        elif action == "put" and self.command == "PUT":
            self._take(target, sha256, signed)
        else:
            raise HubError(405, "MethodNotAllowed")

    def _take(self, target: Path, sha256: str, signed: dict[str, str]) -> None:
        if self.is_chunked:
            raise HubError(501, "NotImplemented: Transfer-Encoding chunked")
        tag = secrets.token_hex(16)
        if "part" in signed:
            new_file = _new_file(_part(target, signed["part"], tag))
        else:
            new_file = _new_file(target, sha256, int(signed["size"]))
        with new_file as write:
            for block in self.blocks():
                write(block)
            self.body_is_read()
        self.start_response(200, {"ETag": f'"{tag}"'}, 0)


@contextlib.contextmanager
def _new_file(path: Path, sha256: str | None = None, size: int = 0) -> Iterator[Callable[[bytes], None]]:
    """A file that is there when all of it has been written and is what was announced; otherwise nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as file:

            def write(block: bytes) -> None:
                file.write(block)
                if sha256 is not None:
                    digest.update(block)

            yield write
        if sha256 is not None and (digest.hexdigest(), partial.stat().st_size) != (sha256, size):
            raise HubError(400, "BadDigest: the content has another sha256 or size than announced")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _part(target: Path, number: int | str, tag: str) -> Path:
    """Where a part waits for the others; a part that was sent twice has two tags."""
    return target.with_name(f".{target.name}.part{number}.{tag}")
