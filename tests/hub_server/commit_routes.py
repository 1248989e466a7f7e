"""Routes of a push: which files are large, and the commit itself."""

import base64
import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import HubError
from .hub_handler import API, HubHandler, route
from .storage import FileEntry, Repository


Files = dict[str, FileEntry]


@route("POST", f"{API}/preupload/(?P<revision>[^/]+)")
def plan_upload(request: HubHandler, repo_type: str, repo_id: str, revision: str) -> None:
    values = request.json()
    request.need_account()
    repository = request.repository(repo_type, repo_id, write=not request.flag("create_pr"))
    sha = repository.resolve(revision)
    files = repository.commit(sha).files
    attributes = repository.text(sha, ".gitattributes").splitlines()
    large = [line.split()[0] for line in attributes if "filter=lfs" in line]
    ignored = values.get("gitIgnore") or repository.text(sha, ".gitignore")
    rows = []
    for item in values["files"]:
        path = item["path"]
        is_large = (
            item["size"] > request.server.hub.lfs_threshold
            or _matches(path, large)
            or b"\0" in base64.b64decode(item["sample"])
        )
        row = {
            "path": path,
            "uploadMode": "lfs" if is_large else "regular",
            "shouldIgnore": _matches(path, ignored.splitlines()),
        }
        if path in files:
            row["oid"] = files[path].sha256 or files[path].blob_id
        rows.append(row)
    request.send_json({"files": rows, "commitOid": sha})


def _matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches a line of .gitattributes or .gitignore, simply understood."""
    name = path.rpartition("/")[2]
    for line in patterns:
        pattern = line.strip().lstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        pattern += "*" if pattern.endswith("/") else ""
        if fnmatch.fnmatchcase(path, pattern) or ("/" not in pattern and fnmatch.fnmatchcase(name, pattern)):
            return True
    return False


@route("POST", f"{API}/commit/(?P<revision>[^/]+)")
def commit(request: HubHandler, repo_type: str, repo_id: str, revision: str) -> None:
    lines = [json.loads(line) for line in request.body().splitlines() if line.strip()]
    as_pull_request = request.flag("create_pr")
    author = request.need_account().user
    repository = request.repository(repo_type, repo_id, write=not as_pull_request)
    header: dict[str, str] = next((line["value"] for line in lines if line["key"] == "header"), {})
    if not header.get("summary"):
        raise HubError(400, "Missing commit summary")
    with repository.lock:
        refs = repository.refs
        head = repository.resolve(revision)
        if not as_pull_request:
            _check_head(repository, revision, head, header.get("parentCommit"))
        files = dict(repository.commit(head).files)
        for line in lines:
            if line["key"] != "header":
                _change(request, repository, files, line["key"], line["value"])
        _check_folders(files)
        sha = repository.add_commit(files, head, header["summary"], header.get("description", ""), author)
        page = request.address(repository)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}", "hookOutput": ""}
        if as_pull_request:
            number = len(refs["pulls"]) + 1
            revision = f"refs/pr/{number}"
            answer["pullRequestUrl"] = f"{page}/discussions/{number}"
        refs["branches" if revision in refs["branches"] else "pulls"][revision] = sha
        repository.save_refs(refs)
    request.send_json(answer)


def _check_head(repository: Repository, revision: str, head: str, parent: str | None) -> None:
    """Refuse a commit to what is no branch, or by a client that does not know the last commit."""
    refs = repository.refs
    if revision not in refs["branches"] and revision not in refs["pulls"]:
        raise HubError(400, f"Cannot commit to {revision}: not a branch")
    if parent and not head.startswith(parent):
        message = "A commit has happened since. Please refresh and try again."
        raise HubError(412, message, "PreconditionFailed")


def _change(request: HubHandler, repository: Repository, files: Files, key: str, value: Mapping[str, Any]) -> None:
    """Apply one line of a commit to the files of a revision."""
    changes: dict[str, Callable[[], None]] = {
        "file": lambda: _add_small(repository, files, value, request.server.hub.lfs_threshold),
        "lfsFile": lambda: _add_large(repository, files, value),
        "deletedFile": lambda: _delete(files, [path for path in files if path == value["path"]], value["path"]),
        "deletedFolder": lambda: _delete(
            files, [path for path in files if path.startswith(value["path"].rstrip("/") + "/")], value["path"]
        ),
    }
    if key not in changes:
        raise HubError(400, f"Unknown operation: {key}")
    if not {"", ".", "..", ".git"}.isdisjoint(value["path"].rstrip("/").split("/")):
        raise HubError(400, f"Invalid path: {value['path']}")
    changes[key]()


def _add_small(repository: Repository, files: Files, value: Mapping[str, Any], limit: int) -> None:
    content = value["content"].encode()
    if value.get("encoding") == "base64":
        content = base64.b64decode(content)
    if len(content) > limit:
        raise HubError(400, f"Your push was rejected because {value['path']} is too large for a regular file")
    files[value["path"]] = repository.add_blob(content)


def _add_large(repository: Repository, files: Files, value: Mapping[str, Any]) -> None:
    if not repository.storage.large_file(value["oid"]).exists():
        message = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
        raise HubError(400, f"{message} Offending file: {value['path']}")
    files[value["path"]] = repository.add_pointer(value["oid"])


def _delete(files: Files, paths: list[str], path: str) -> None:
    if not paths:
        raise HubError(404, f"A file or folder with this name doesn't exist: {path}", "EntryNotFound")
    for name in paths:
        del files[name]


def _check_folders(files: Files) -> None:
    for path in files:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in files:
                raise HubError(400, f"{folder} is both a file and a folder")
            folder = folder.rpartition("/")[0]
