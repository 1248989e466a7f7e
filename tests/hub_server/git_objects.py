"""Ids of blobs, trees and commits, as git computes them: clients compare them with those of local files."""

import hashlib
from collections.abc import Mapping


def git_id(kind: str, content: bytes) -> str:
    """Id of a git object of the kind `blob`, `tree` or `commit`."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that stands in a commit for a large file of `size` bytes."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blob_ids: Mapping[str, str]) -> dict[str, str]:
    """Id of every folder of a revision.

    Args:
        blob_ids: Path of each file, with "/", to the id of its blob.

    Returns:
        Path of each folder to the id of its tree; "" is the root.
    """
    # Folder -> name of a member -> id of a blob, or None for a folder.
    members: dict[str, dict[str, str | None]] = {"": {}}
    for path, blob_id in blob_ids.items():
        folder, _, name = path.rpartition("/")
        members.setdefault(folder, {})[name] = blob_id
        while folder:
            parent, _, name = folder.rpartition("/")
            members.setdefault(parent, {})[name] = None
            folder = parent
    ids: dict[str, str] = {}
    # A folder comes after all that it holds.
    for folder in sorted(members, key=lambda folder: folder.count("/") + bool(folder), reverse=True):
        rows = []
        for name, blob in members[folder].items():
            if blob is None:
                # git sorts a folder as if its name ended in "/".
                rows.append((f"{name}/".encode(), b"40000 ", ids[f"{folder}/{name}".lstrip("/")]))
            else:
                rows.append((name.encode(), b"100644 ", blob))
        rows.sort()
        content = b"".join(mode + name.rstrip(b"/") + b"\0" + bytes.fromhex(id_) for name, mode, id_ in rows)
        ids[folder] = git_id("tree", content)
    return ids


def commit_id(tree: str, parent: str | None, author: str, seconds: int, message: str) -> str:
    """Id of a commit of `author`, `seconds` after 1970."""
    who = f"{author} <{author}@users.noreply.hub.local> {seconds} +0000"
    head = f"tree {tree}\n" + (f"parent {parent}\n" if parent else "")
    return git_id("commit", f"{head}author {who}\ncommitter {who}\n\n{message}\n".encode())
