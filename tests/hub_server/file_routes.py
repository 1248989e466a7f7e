"""Routes of the files of a revision: listings and downloads."""

import re
from typing import Any
from urllib.parse import parse_qs

from .errors import HubError
from .git_objects import lfs_pointer
from .hub_handler import API, PAGE, HubHandler, disposition, route
from .request import YES
from .storage import FileEntry, Repository


@route("GET", f"{API}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?")
def list_folder(request: HubHandler, repo_type: str, repo_id: str, revision: str, path: str | None) -> None:
    repository = request.repository(repo_type, repo_id)
    sha = repository.resolve(revision)
    commit = repository.commit(sha)
    recursive, history_of = request.flag("recursive"), sha if request.flag("expand") else None
    folders = commit.tree_ids()
    base = (path or "").strip("/")
    if base in commit.files:
        request.send_json([_file_row(repository, base, commit.files[base], history_of)])
        return
    if base not in folders:
        headers = {"X-Repo-Commit": sha}
        raise HubError(404, f'{base} does not exist on "{revision}"', "EntryNotFound", headers)

    def is_member(name: str) -> bool:
        inside = name.removeprefix(f"{base}/") if base else name
        return name != base and (not base or inside != name) and (recursive or "/" not in inside)

    rows = [_folder_row(repository, name, tree, history_of) for name, tree in folders.items() if is_member(name)]
    rows += [_file_row(repository, name, entry, history_of) for name, entry in commit.files.items() if is_member(name)]
    request.send_page(sorted(rows, key=lambda row: row["path"]))


@route("POST", f"{API}/paths-info/(?P<revision>[^/]+)")
def list_paths(request: HubHandler, repo_type: str, repo_id: str, revision: str) -> None:
    repository = request.repository(repo_type, repo_id)
    if "json" in request.headers.get("Content-Type", ""):
        values = request.json()
        paths, expand = values.get("paths", []), values.get("expand", False)
    else:
        form = parse_qs(request.body().decode())
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() in YES
    sha = repository.resolve(revision)
    commit, history_of = repository.commit(sha), sha if expand else None
    folders = commit.tree_ids()
    rows = []
    for path in paths:
        if path in commit.files:
            rows.append(_file_row(repository, path, commit.files[path], history_of))
        elif path and path in folders:
            rows.append(_folder_row(repository, path, folders[path], history_of))
    request.send_json(rows)


def _file_row(repository: Repository, path: str, entry: FileEntry, history_of: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.blob_id, "size": entry.size, "path": path}
    if entry.sha256 is not None:
        pointer_size = len(lfs_pointer(entry.sha256, entry.size))
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    if history_of is not None:
        row["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return row | _last_commit(repository, path, history_of)


def _folder_row(repository: Repository, path: str, tree: str, history_of: str | None) -> dict[str, Any]:
    row = {"type": "directory", "oid": tree, "size": 0, "path": path}
    return row | _last_commit(repository, path, history_of)


def _last_commit(repository: Repository, path: str, history_of: str | None) -> dict[str, Any]:
    if history_of is None:
        return {}
    sha, commit = repository.last_commit(history_of, path)
    return {"lastCommit": {"id": sha, "title": commit.title, "date": commit.date}}


@route("GET HEAD", f"{PAGE}/(?P<how>resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)")
def download(request: HubHandler, repo_type: str | None, repo_id: str, how: str, revision: str, path: str) -> None:
    unquoted = re.fullmatch(r"(refs/[^/]+/[^/]+)/(.+)", f"{revision}/{path}")
    if unquoted:
        # Some clients do not quote the slashes of refs/pr/1.
        revision, path = unquoted.groups()
    repository = request.repository(repo_type, repo_id)
    sha = repository.resolve(revision)
    headers = {"X-Repo-Commit": sha}
    entry = repository.commit(sha).files.get(path)
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    headers["Content-Disposition"] = disposition(path)
    if entry.sha256 is None or how == "raw":
        request.send_file(repository.blob(entry), {**headers, "ETag": f'"{entry.blob_id}"'})
        return
    headers |= {
        "ETag": f'"{entry.sha256}"',
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "Location": request.server.hub.signed_address(f"/get/{entry.sha256}"),
    }
    request.start_response(302, headers, 0)
