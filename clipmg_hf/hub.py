"""Push a folder to the Hub in one commit, whose errors say what is missing.

    result = push_folder("runs/full", "owner/clip-mg", commit_message="Upload CLIP-MG", tag="v1")
    print(result.url)

`huggingface_hub.upload_folder` is not used: with Xet it makes several commits, and a push that is cut off between them
leaves a revision that does not load.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from clipmg_hf.text import plural


logger = logging.getLogger(__name__)

RepoType = Literal["model", "dataset", "space"]
Value = TypeVar("Value")

# Seconds before each further attempt. huggingface_hub itself repeats the upload of large files, but neither the making
# of a repository nor the commit.
RETRY_WAITS = (1.0, 2.0, 4.0)
_PASSING_STATUS = (408, 500, 502, 503, 504)
_CONFLICT_STATUS = (409, 412)
_NOTHING_WRITTEN = "Nothing was written."
_TAG = re.compile(r"[A-Za-z0-9_](?:[\w.+/-]*[\w+-])?", re.ASCII)


class PushError(ValueError):
    """A push cannot be made or did not succeed; the message says what is missing and what is on the Hub now."""


@dataclass(frozen=True)
class FileToPush:
    """A file of the folder: its path in the repository, with `/`, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        url (`str`): Page of the commit or the pull request; of a dry run, that of the repository.
        commit (`str`, *optional*): Id of the commit that holds the files; `None` after a dry run.
        files (`tuple[FileToPush, ...]`): The files of the folder, also those that were on the Hub already.
        is_new (`bool`): Whether there was anything to write; without, `commit` is the one before.
    """

    url: str
    commit: str | None
    files: tuple[FileToPush, ...]
    is_new: bool


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    repo_type: RepoType = "model",
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
    commit_message: str,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    delete_patterns: Sequence[str] = (),
    space_sdk: str | None = None,
    api: HfApi | None = None,
    dry_run: bool = False,
) -> PushResult:
    """Push the files of a folder in one commit, so that no revision of the repository ever holds half of them.

    What passes (server errors, a cut connection) is tried again. A push that meets another one in between is refused.

    Args:
        folder (`str` or `PathLike`): The folder; [`list_files`] says which of its files are pushed.
        repo_id (`str`): `"owner/name"`; the repository is made if it is not there, unless `create_pr`.
        repo_type (`str`, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.
        private (`bool`, defaults to `False`): Make a private repository; one that is there and public is refused.
        create_pr (`bool`, defaults to `False`): Leave `main` alone and open a pull request.
        tag (`str`, *optional*): A new tag for the commit.
        commit_message (`str`): First line of the commit.
        allow_patterns (`Sequence[str]`, *optional*): Patterns of files to push; `*` also matches `/`.
        ignore_patterns (`Sequence[str]`, *optional*): Patterns of files to leave out.
        delete_patterns (`Sequence[str]`, defaults to none): Files of the repository to remove in the same commit,
            unless the folder has them: shards of an earlier push, say. One without `/` is for files of the root.
        space_sdk (`str`, *optional*): What runs a new Space, such as `"gradio"`.
        api (`HfApi`, *optional*): Endpoint and token; by default those of the environment.
        dry_run (`bool`, defaults to `False`): Only list the files; needs neither a token nor a network.

    Raises:
        PushError: Nothing can be pushed, a permission is missing, another push came first, or the Hub does not answer.
        ValueError: The metadata of README.md are not valid.
    """
    _check_request(repo_id, tag, create_pr, commit_message)
    files = list_files(folder, allow_patterns, ignore_patterns)
    repository = _Repository(api or HfApi(), repo_id, repo_type, create_pr)
    if dry_run:
        return PushResult(repository.url, None, tuple(files), False)
    repository.check_token()
    repository.ensure(private, space_sdk)
    if tag is not None:
        repository.check_tag_is_new(tag)
    parent, remote = repository.head()
    kept = {file.path for file in files}
    removed = [path for path in remote if path not in kept and _matches(path, delete_patterns)]
    info = repository.commit(folder, files, removed, parent, commit_message)
    repository.check_complete(files, info.pr_revision or info.oid)
    if tag is not None:
        repository.make_tag(tag, info.oid)
    return PushResult(info.pr_url or info.commit_url, info.oid, tuple(files), info.oid != parent)


def list_files(
    folder: str | os.PathLike,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
) -> list[FileToPush]:
    """The files of a folder that a push takes, by name; hidden files, and folders, never: they may hold secrets.

    Raises:
        PushError: There is no such folder, nothing in it is pushed, or a file cannot be read or named on the Hub.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PushError(f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}; expected a folder.")
    files = []
    for path in sorted(_walk(folder)):
        if not path.is_file():
            raise PushError(f"{path} is a broken link or no plain file; remove it, or leave it out by a pattern.")
        files.append(FileToPush(path.relative_to(folder).as_posix(), path.stat().st_size))
    allow, ignore = (None if patterns is None else list(patterns) for patterns in (allow_patterns, ignore_patterns))
    chosen = list(filter_repo_objects(files, allow_patterns=allow, ignore_patterns=ignore, key=lambda file: file.path))
    if not chosen:
        raise PushError(f"{folder} holds no file to push; expected at least one that is not hidden or left out.")
    if unnamable := [file.path for file in chosen if not _can_be_named(file.path)]:
        raise PushError(
            f"{folder}: {unnamable[0]!r} cannot be a file name on the Hub; expected UTF-8 without control characters "
            "and backslashes."
        )
    return chosen


def describe_files(files: Sequence[FileToPush]) -> str:
    """A line for each file with its size in bytes, and one for all."""
    rows = [*((f"{file.size:,}", file.path) for file in files)]
    rows.append((f"{sum(file.size for file in files):,}", f"bytes in {plural(len(files), 'file')}"))
    width = max(len(size) for size, _ in rows)
    return "\n".join(f"{size:>{width}}  {name}" for size, name in rows)


class _Repository:
    """A repository on the Hub. What goes wrong with it is a PushError."""

    def __init__(self, api: HfApi, repo_id: str, repo_type: RepoType, create_pr: bool):
        self.api, self.repo_id, self.repo_type, self.create_pr = api, repo_id, repo_type, create_pr
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        self.url = f"{api.endpoint}/{prefix}{repo_id}"
        self.identity: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type}

    def check_token(self) -> None:
        """Refuse to push without a token, before anything is sent."""
        token = get_token() if self.api.token is None else self.api.token
        if not token:
            raise PushError(
                f"there is no token to push to {self.repo_id} with; expected one that may write: make it at "
                f"{self._tokens}, then `hf auth login` or HF_TOKEN."
            )
        if not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise PushError("the token holds characters that no token has; expected hf_ and letters and digits.")

    def ensure(self, private: bool, space_sdk: str | None) -> None:
        """Make the repository if it is not there; a public one is no place for what shall be private."""
        options: dict[str, Any] = {"private": private, "exist_ok": True, "space_sdk": space_sdk}
        with self._clear_errors("looking for the repository"):
            try:
                info = _repeat(lambda: self.api.repo_info(**self.identity))
            except RepositoryNotFoundError as error:
                if self.create_pr or error.response.status_code != 404:
                    raise
                _repeat(lambda: self.api.create_repo(**self.identity, **options))
                info = _repeat(lambda: self.api.repo_info(**self.identity))
        if private and not info.private:
            raise PushError(
                f"{self.url} is public, and a private push does not change that; make it private at "
                f"{self.url}/settings, or push without private. {_NOTHING_WRITTEN}"
            )

    def check_tag_is_new(self, tag: str) -> None:
        """Refuse a tag that would move, before anything is written."""
        refs = self._refs()
        for kind, names in (("tag", refs.tags), ("branch", refs.branches)):
            for ref in names:
                if ref.name == tag:
                    raise PushError(
                        f"{self.url} has a {kind} {tag!r} already, at {ref.target_commit[:7]}; expected a new tag. "
                        f"{_NOTHING_WRITTEN}"
                    )

    def head(self) -> tuple[str, list[str]]:
        """The newest commit of `main`, and the paths of its files."""
        return self._revision("main")

    def commit(
        self,
        folder: str | os.PathLike,
        files: Sequence[FileToPush],
        removed: Sequence[str],
        parent: str,
        message: str,
    ) -> Any:
        """Upload the large files and make the commit, on top of `parent` or not at all."""

        def commit() -> Any:
            # Made anew for each attempt: they remember what the Hub had, and a commit whose answer was lost is there
            # by then. Compared again, it turns out to need no second one.
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(file.path, Path(folder, file.path)) for file in files
            ]
            operations += [CommitOperationDelete(path) for path in removed]
            return self.api.create_commit(
                **self.identity,
                operations=operations,
                commit_message=message,
                parent_commit=parent,
                create_pr=self.create_pr,
            )

        if self.create_pr:
            # Not repeated: one whose answer was lost would be opened twice.
            state = f"A pull request may be open: look at {self.url}/discussions before you try again."
            with self._clear_errors("uploading", state, parent):
                return commit()
        state = f"{self.repo_id} holds all of this push or is as it was, never a half."
        with self._clear_errors("uploading", state, parent):
            return _repeat(commit)

    def check_complete(self, files: Sequence[FileToPush], revision: str) -> None:
        """Refuse to call a push done that lacks files: the Hub leaves out what a .gitignore there names."""
        _, remote = self._revision(revision, "The push itself was written.")
        if missing := sorted({file.path for file in files} - set(remote)):
            raise PushError(
                f"{self.url} was written, but lacks {', '.join(missing)}; is there a .gitignore on the Hub that names "
                "them? Remove it, and push again."
            )

    def make_tag(self, tag: str, commit: str) -> None:
        """Tag a commit; the answer to an attempt that worked may have been lost."""

        def make() -> None:
            try:
                self.api.create_tag(**self.identity, tag=tag, revision=commit)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                known = {ref.name: ref.target_commit for ref in self._refs().tags}
                if known.get(tag) != commit:
                    raise

        with self._clear_errors("tagging", f"{self.url}/commit/{commit} was written, but not its tag {tag!r}."):
            _repeat(make)

    def _refs(self) -> Any:
        with self._clear_errors("looking for tags"):
            return _repeat(lambda: self.api.list_repo_refs(**self.identity))

    def _revision(self, revision: str, state: str = _NOTHING_WRITTEN) -> tuple[str, list[str]]:
        with self._clear_errors("looking at the repository", state):
            info: Any = _repeat(lambda: self.api.repo_info(**self.identity, revision=revision))
        return info.sha, [file.rfilename for file in info.siblings or []]

    @property
    def _tokens(self) -> str:
        return f"{self.api.endpoint}/settings/tokens"

    @contextmanager
    def _clear_errors(self, doing: str, state: str = _NOTHING_WRITTEN, parent: str | None = None) -> Iterator[None]:
        """Turn errors of the Hub into sentences.

        Args:
            doing (`str`): What was done.
            state (`str`): What is on the Hub if the answer did not come.
            parent (`str`, *optional*): The commit that this one was to follow.
        """
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise PushError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.") from error
        except HfHubHTTPError as error:
            raise PushError(self._explain(error, doing, state, parent)) from error
        except HTTPError as error:
            raise PushError(
                f"{self.api.endpoint} did not answer while {doing} ({type(error).__name__}: {error}). {state} "
                "Expected a network, and HF_ENDPOINT unset or right."
            ) from error

    def _explain(self, error: HfHubHTTPError, doing: str, state: str, parent: str | None) -> str:
        status = error.response.status_code
        said = (error.server_message or error.response.reason_phrase).strip().rstrip(".")
        if status < 500 and parent is not None:
            state = _NOTHING_WRITTEN
        if status == 401:
            return (
                f"the Hub does not accept the token (401: {said}); is it mistyped, expired or of another Hub than "
                f"{self.api.endpoint}? Make one that may write at {self._tokens}, then `hf auth login` or HF_TOKEN."
            )
        if status == 403:
            return f"{self._missing_permission()} (403 while {doing}: {said}). {state}"
        if status == 404:
            return f"there is no {self.repo_type} {self.repo_id} that this token can see (404 while {doing}: {said})."
        if status in _CONFLICT_STATUS and parent is not None:
            return (
                f"another push came first: {self.url} is no longer at {parent[:7]}, where this one began ({status}: "
                f"{said}). {state} Look at {self.url}/commits/main; the same command again pushes on top."
            )
        if status == 429:
            return f"the Hub asks to wait (429 while {doing}: {said}). {state} Try again later."
        if status < 500:
            return f"the Hub refuses this (HTTP {status} while {doing}: {said}). {state}"
        return f"the Hub is in trouble (HTTP {status} while {doing}: {said}). {state} Try again later."

    def _missing_permission(self) -> str:
        """Which right the token lacks, as far as the Hub tells."""
        owner = self.repo_id.split("/")[0]
        elsewhere = "" if self.create_pr else ", or a pull request (create_pr)"
        try:
            account = self.api.whoami()
        except (HTTPError, OSError):
            return f"the token may not write to {self.repo_id}; expected one with write access to {owner}"
        name, orgs = account["name"], {org["name"]: org.get("roleInOrg") for org in account.get("orgs", [])}
        role = account.get("auth", {}).get("accessToken", {}).get("role")
        whose = f"the token of {name} may not write to {self.repo_id}"
        if owner != name and owner not in orgs:
            own = " or ".join(f"{own}/..." for own in (name, *orgs))
            return f"{whose}: {name} is not a member of {owner}; expected {own}{elsewhere}"
        if role == "read":
            return f"{whose}: it only reads; expected a token of the type 'write', from {self._tokens}"
        if role == "fineGrained":
            right = "Write access to contents/settings of repos"
            return f"{whose}: its permissions lack {right!r} for {owner}; add it at {self._tokens}"
        if owner in orgs:
            return f"{whose}: its role in {owner} is {orgs[owner]!r}; expected one that writes{elsewhere}"
        return f"{whose}; expected a token with write access to {owner}, from {self._tokens}"


def _check_request(repo_id: str, tag: str | None, create_pr: bool, commit_message: str) -> None:
    """Refuse what the Hub would refuse, without asking it."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(
            f"{repo_id!r} is no name of a repository; expected OWNER/NAME of letters, digits, '-', '_', '.': {error}"
        ) from error
    if "/" not in repo_id:
        raise PushError(f"{repo_id!r} names no owner; expected OWNER/NAME, such as your-account/{repo_id}.")
    if not commit_message.strip():
        raise PushError("the commit message is empty; expected a line that says what is pushed.")
    if tag is None:
        return
    if create_pr:
        raise PushError(f"tag {tag!r} with create_pr: a pull request cannot be tagged; tag what is merged.")
    if not _TAG.fullmatch(tag) or ".." in tag or tag.endswith(".lock"):
        raise PushError(f"{tag!r} is no name of a tag; expected letters, digits, '.', '-', '_', such as v1.0.")


def _repeat(call: Callable[[], Value]) -> Value:
    """Call until it works or what fails will not pass."""
    for wait in RETRY_WAITS:
        try:
            return call()
        except HTTPError as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _PASSING_STATUS:
                raise
            logger.warning("%s; trying again in %g s", str(error).split("\n")[0] or type(error).__name__, wait)
        time.sleep(wait)
    return call()


def _walk(folder: Path) -> Iterator[Path]:
    """All files but hidden ones. Links to files count as files: the Hub's own cache is made of them."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_left_out(name)]
        for name in folders:
            if Path(root, name).is_symlink():
                raise PushError(f"{Path(root, name)} is a link to a folder; expected the folder itself.")
        yield from (Path(root, name) for name in names if not _is_left_out(name))


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches; one without `/` only in the root."""
    return any(fnmatchcase(path, pattern) and ("/" in pattern or "/" not in path) for pattern in patterns)


def _can_be_named(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return path.isprintable() and "\\" not in path


__all__ = ["FileToPush", "PushError", "PushResult", "describe_files", "list_files", "push_folder"]
