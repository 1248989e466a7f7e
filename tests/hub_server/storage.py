"""Repositories on disk: blobs, whole manifests as commits, and the names that point to commits.

A commit is visible from the moment when `refs.json` names it, and that file is replaced in one step.
"""

import dataclasses
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from .errors import HubError
from .git_objects import commit_id, git_id, lfs_pointer, tree_ids


RefKind = Literal["branches", "tags", "pulls"]
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lz4 *.model *.msgpack *.npy *.npz *.onnx *.ot "
    "*.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
# Data sets have these too.
LFS_MEDIA_PATTERNS = (
    "*.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.jpeg *.webp *.mp4 *.webm"
)


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of a revision: id of its blob (a pointer if the file is large), size in bytes, sha256 if it is large."""

    blob_id: str
    size: int
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Commit:
    """A revision: all of its files, and where it comes from; `seconds` since 1970."""

    parent: str | None
    title: str
    message: str
    author: str
    seconds: int
    files: Mapping[str, FileEntry]

    @property
    def date(self) -> str:
        return iso_date(self.seconds)

    def tree_ids(self) -> dict[str, str]:
        """Id of every folder, "" is the root."""
        return tree_ids({path: entry.blob_id for path, entry in self.files.items()})


class Storage:
    """All that the server keeps."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._locks: dict[str, threading.RLock] = {}

    def repository(self, repo_type: str, repo_id: str) -> "Repository":
        """A repository, which need not exist. Args: `model`, `dataset` or `space`; namespace/name."""
        folder = self.folder / f"{repo_type}s" / repo_id
        lock = self._locks.setdefault(f"{repo_type}s/{repo_id}", threading.RLock())
        return Repository(self, repo_type, repo_id, folder, lock)

    def repositories(self, repo_type: str) -> Iterator["Repository"]:
        """Those of a type, sorted by name."""
        base = self.folder / f"{repo_type}s"
        for path in sorted(base.glob("*/*/settings.json")):
            yield self.repository(repo_type, path.parent.relative_to(base).as_posix())

    def large_file(self, sha256: str) -> Path:
        """Where a large file is, or will be."""
        return self.folder / "large_files" / sha256[:2] / sha256


class Repository:
    """One repository.

    Args:
        lock: To be held by who changes the repository.
    """

    def __init__(self, storage: Storage, repo_type: str, repo_id: str, folder: Path, lock: threading.RLock):
        self.storage = storage
        self.type = repo_type
        self.id = repo_id
        self.namespace = repo_id.partition("/")[0]
        self.folder = folder
        self.lock = lock

    def exists(self) -> bool:
        return (self.folder / "settings.json").is_file()

    def create(self, author: str, private: bool, sdk: str | None) -> None:
        """Make the repository, with a first commit as the Hub makes it."""
        patterns = f"{LFS_PATTERNS} {LFS_MEDIA_PATTERNS}" if self.type == "dataset" else LFS_PATTERNS
        content = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in patterns.split()).encode()
        with self.lock:
            files = {".gitattributes": self.add_blob(content)}
            sha = self.add_commit(files, None, "initial commit", "", author)
            self.save_refs({"branches": {"main": sha}, "tags": {}, "pulls": {}})
            self.save_settings({"_id": secrets.token_hex(12), "private": private, "created": time.time(), "sdk": sdk})

    def delete(self) -> None:
        with self.lock:
            shutil.rmtree(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """`_id`, `private`, `created` (seconds since 1970), `sdk` of a Space."""
        return json.loads((self.folder / "settings.json").read_text())

    def save_settings(self, settings: Mapping[str, Any]) -> None:
        write_atomically(self.folder / "settings.json", json.dumps(settings).encode())

    @property
    def refs(self) -> dict[RefKind, dict[str, str]]:
        """Names of branches, tags and pull requests, each to the id of a commit."""
        return json.loads((self.folder / "refs.json").read_text())

    def save_refs(self, refs: Mapping[RefKind, Mapping[str, str]]) -> None:
        write_atomically(self.folder / "refs.json", json.dumps(refs, indent=1).encode())

    def commit(self, sha: str) -> Commit:
        values = json.loads((self.folder / "commits" / f"{sha}.json").read_text())
        values["files"] = {path: FileEntry(**entry) for path, entry in values["files"].items()}
        return Commit(**values)

    def add_commit(
        self, files: Mapping[str, FileEntry], parent: str | None, title: str, message: str, author: str
    ) -> str:
        """Store a commit, which nothing points to yet. Returns its id."""
        commit = Commit(parent, title, message, author, int(time.time()), dict(files))
        text = f"{title}\n\n{message}" if message else title
        sha = commit_id(commit.tree_ids()[""], parent, author, commit.seconds, text)
        content = json.dumps(dataclasses.asdict(commit)).encode()
        write_atomically(self.folder / "commits" / f"{sha}.json", content)
        return sha

    def add_blob(self, content: bytes) -> FileEntry:
        blob_id = git_id("blob", content)
        write_atomically(self.folder / "blobs" / blob_id, content)
        return FileEntry(blob_id, len(content))

    def add_pointer(self, sha256: str) -> FileEntry:
        """The entry of a large file that has been uploaded."""
        size = self.storage.large_file(sha256).stat().st_size
        return dataclasses.replace(self.add_blob(lfs_pointer(sha256, size)), size=size, sha256=sha256)

    def blob(self, entry: FileEntry) -> Path:
        """Where the blob of an entry is; that of a large file is its pointer."""
        return self.folder / "blobs" / entry.blob_id

    def text(self, sha: str, path: str) -> str:
        """A text file of a revision; "" if there is none."""
        entry = self.commit(sha).files.get(path)
        if entry is None or entry.sha256 is not None:
            return ""
        return self.blob(entry).read_text(errors="replace")

    def resolve(self, revision: str) -> str:
        """Id of the commit that a branch, a tag, a pull request or the start of an id names.

        Raises:
            HubError: Nothing of that name.
        """
        for kind, names in self.refs.items():
            for name, sha in names.items():
                if revision in (name, f"refs/heads/{name}" if kind == "branches" else f"refs/tags/{name}"):
                    return sha
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            found = [path.stem for path in (self.folder / "commits").glob(f"{revision}*.json")]
            if len(found) == 1:
                return found[0]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, sha: str) -> Iterator[tuple[str, Commit]]:
        """Commits and their ids, from a commit back to the first."""
        parent: str | None = sha
        while parent:
            sha, commit = parent, self.commit(parent)
            yield sha, commit
            parent = commit.parent

    def last_commit(self, sha: str, path: str) -> tuple[str, Commit]:
        """The newest commit that changed a file or a folder of the revision `sha`."""
        found, state = (sha, self.commit(sha)), None
        for commit_sha, commit in self.history(sha):
            members = {name: e for name, e in commit.files.items() if name == path or name.startswith(f"{path}/")}
            if state is not None and members != state:
                break
            found, state = (commit_sha, commit), members
        return found


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that other threads see as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    partial.write_bytes(content)
    partial.replace(path)


def iso_date(seconds: float) -> str:
    """The Hub's form of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
