"""Routes of accounts and repositories: who am I, create, delete, settings, facts, branches and tags."""

import re
from typing import Any

from .cards import card_of
from .errors import HubError
from .git_objects import lfs_pointer
from .hub_handler import API, REPO_ID, HubHandler, route
from .storage import Commit, FileEntry, RefKind, Repository, iso_date


@route("GET", "/api/whoami-v2")
def who_am_i(request: HubHandler) -> None:
    account = request.need_account()
    request.send_json(
        {
            "type": "user",
            "id": account.user,
            "name": account.user,
            "fullname": account.user,
            "email": f"{account.user}@hub.local",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "orgs": [
                {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": role}
                for name, role in account.organizations.items()
            ],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}},
        }
    )


@route("POST", "/api/repos/create")
def create(request: HubHandler) -> None:
    values = request.json()
    account = request.need_account()
    repo_type = values.get("type") or "model"
    namespace = values.get("organization") or account.user
    repo_id = f"{namespace}/{values.get('name')}"
    if repo_type not in ("model", "dataset", "space") or not re.fullmatch(REPO_ID, repo_id):
        raise HubError(400, f"Invalid repo type or name: {repo_type} {repo_id}")
    if repo_type == "space" and not values.get("sdk"):
        raise HubError(400, "A Space needs an sdk")
    if not request.may_write(namespace):
        raise HubError(403, f'You don\'t have the rights to create a {repo_type} under the namespace "{namespace}"')
    repository = request.server.hub.storage.repository(repo_type, repo_id)
    address = request.address(repository)
    with repository.lock:
        if repository.exists():
            # The client reads `url` here when it accepts an existing repository.
            raise HubError(409, f"You already created this {repo_type} repo: {repo_id}", fields={"url": address})
        repository.create(account.user, _wants_private(values), values.get("sdk"))
    request.send_json({"url": address, "name": repo_id, "id": repository.settings["_id"]})


@route("DELETE", "/api/repos/delete")
def delete(request: HubHandler) -> None:
    values = request.json()
    namespace = values.get("organization") or request.need_account().user
    request.repository(values.get("type"), f"{namespace}/{values.get('name')}", write=True).delete()
    request.send_json({})


@route("PUT", f"{API}/settings")
def change_settings(request: HubHandler, repo_type: str, repo_id: str) -> None:
    values = request.json()
    repository = request.repository(repo_type, repo_id, write=True)
    with repository.lock:
        settings = repository.settings | {"private": _wants_private(values)}
        repository.save_settings(settings)
    request.send_json({"private": settings["private"], "gated": False})


def _wants_private(values: dict[str, Any]) -> bool:
    return values.get("visibility") == "private" or bool(values.get("private"))


@route("GET HEAD", f"{API}(/revision/(?P<revision>[^/]+))?")
def facts(request: HubHandler, repo_type: str, repo_id: str, revision: str | None) -> None:
    repository = request.repository(repo_type, repo_id)
    sha = repository.resolve(revision or "main")
    values = _facts(repository, sha, repository.commit(sha), request.flag("blobs"))
    wanted = {part for text in request.query.get("expand", []) for part in text.split(",")}
    if wanted:
        values = {name: value for name, value in values.items() if name in wanted | {"_id", "id", "modelId"}}
    request.send_json(values)


def _facts(repository: Repository, sha: str, commit: Commit, with_blobs: bool) -> dict[str, Any]:
    settings = repository.settings
    card = card_of(repository, sha)
    values = {
        "_id": settings["_id"],
        "id": repository.id,
        "author": repository.namespace,
        "sha": sha,
        "private": settings["private"],
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card),
        "lastModified": commit.date,
        "createdAt": iso_date(settings["created"]),
        "siblings": [_sibling(path, entry, with_blobs) for path, entry in sorted(commit.files.items())],
        "usedStorage": sum(entry.size for entry in commit.files.values()),
    }
    if card:
        values["cardData"] = card
    if repository.type == "space":
        values["sdk"] = settings["sdk"]
    if repository.type == "model":
        values["modelId"] = repository.id
        values |= {name: card[name] for name in ("pipeline_tag", "library_name") if name in card}
    return values


def _sibling(path: str, entry: FileEntry, with_blobs: bool) -> dict[str, Any]:
    values: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        values |= {"size": entry.size, "blobId": entry.blob_id}
        if entry.sha256 is not None:
            pointer_size = len(lfs_pointer(entry.sha256, entry.size))
            values["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": pointer_size}
    return values


def _tags(card: dict[str, Any]) -> list[str]:
    tags = []
    for name in ("license", "language", "base_model", "datasets", "tags"):
        values = card.get(name) or []
        for value in values if isinstance(values, list) else [values]:
            tags.append(value if name == "tags" else f"{name}:{value}")
    return tags


@route("GET", r"/api/(?P<repo_type>model|dataset|space)s")
def list_repositories(request: HubHandler, repo_type: str) -> None:
    author, search = request.query.get("author", [None])[0], request.query.get("search", [""])[0]
    rows = []
    for repository in request.server.hub.storage.repositories(repo_type):
        if author in (None, repository.namespace) and search in repository.id and request.may_read(repository):
            sha = repository.resolve("main")
            rows.append(_facts(repository, sha, repository.commit(sha), with_blobs=False))
    request.send_page(rows)


@route("GET", f"{API}/auth-check(?P<write>/write)?")
def check_rights(request: HubHandler, repo_type: str, repo_id: str, write: str | None) -> None:
    request.repository(repo_type, repo_id, write=write is not None)
    request.send_json({})


@route("GET", f"{API}/refs")
def list_refs(request: HubHandler, repo_type: str, repo_id: str) -> None:
    refs = request.repository(repo_type, repo_id).refs

    def rows(kind: RefKind, prefix: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"{prefix}{name}", "targetCommit": sha} for name, sha in sorted(refs[kind].items())
        ]

    values = {"branches": rows("branches", "refs/heads/"), "converts": [], "tags": rows("tags", "refs/tags/")}
    if "include_prs" in request.query:
        values["pullRequests"] = rows("pulls", "")
    request.send_json(values)


@route("GET", f"{API}/commits/(?P<revision>[^/]+)")
def list_commits(request: HubHandler, repo_type: str, repo_id: str, revision: str) -> None:
    repository = request.repository(repo_type, repo_id)
    rows = [
        {
            "id": sha,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author, "avatar": ""}],
        }
        for sha, commit in repository.history(repository.resolve(revision))
    ]
    request.send_page(rows, {"X-Total-Count": str(len(rows))})


@route("POST", f"{API}/branch/(?P<name>[^/]+)")
def create_branch(request: HubHandler, repo_type: str, repo_id: str, name: str) -> None:
    start = request.json().get("startingPoint") or "main"
    repository = request.repository(repo_type, repo_id, write=True)
    if name.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {name}")
    _add_ref(repository, "branches", name, start)
    request.send_json({})


@route("POST", f"{API}/tag/(?P<revision>[^/]+)")
def create_tag(request: HubHandler, repo_type: str, repo_id: str, revision: str) -> None:
    name = request.json()["tag"]
    _add_ref(request.repository(repo_type, repo_id, write=True), "tags", name, revision)
    request.send_json({})


@route("DELETE", f"{API}/branch/(?P<name>[^/]+)")
def delete_branch(request: HubHandler, repo_type: str, repo_id: str, name: str) -> None:
    if name == "main":
        raise HubError(403, "Cannot delete the main branch")
    _delete_ref(request.repository(repo_type, repo_id, write=True), "branches", name)
    request.send_json({})


@route("DELETE", f"{API}/tag/(?P<name>[^/]+)")
def delete_tag(request: HubHandler, repo_type: str, repo_id: str, name: str) -> None:
    _delete_ref(request.repository(repo_type, repo_id, write=True), "tags", name)
    request.send_json({})


def _add_ref(repository: Repository, kind: RefKind, name: str, revision: str) -> None:
    with repository.lock:
        refs = repository.refs
        if name in refs[kind]:
            raise HubError(409, f"Reference already exists: {name}")
        refs[kind][name] = repository.resolve(revision)
        repository.save_refs(refs)


def _delete_ref(repository: Repository, kind: RefKind, name: str) -> None:
    with repository.lock:
        refs = repository.refs
        if refs[kind].pop(name, None) is None:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        repository.save_refs(refs)
