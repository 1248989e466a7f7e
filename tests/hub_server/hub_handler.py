"""The Hub's own origin: routes, who is asking, and what they may do."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlencode

from .accounts import Account
from .errors import HubError
from .request import RequestHandler
from .storage import Repository


REPO_ID = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+"
# Start of the routes of a repository's API.
API = rf"/api/(?P<repo_type>model|dataset|space)s/(?P<repo_id>{REPO_ID})"
# Start of a repository's own routes; models have no prefix.
PAGE = rf"/((?P<repo_type>model|dataset|space)s/)?(?P<repo_id>{REPO_ID})"

Action = Callable[..., None]
ROUTES: list[tuple[Sequence[str], re.Pattern[str], Action]] = []


def route(methods: str, pattern: str) -> Callable[[Action], Action]:
    """Let a function answer requests: it gets the handler, and the groups of the pattern by name.

    Args:
        methods: HTTP methods, separated by blanks.
        pattern: Regular expression for the whole path, as it is quoted on the line; groups are unquoted.
    """

    def add(action: Action) -> Action:
        ROUTES.append((methods.split(), re.compile(pattern), action))
        return action

    return add


class HubHandler(RequestHandler):
    """Serves the Hub's API and the files of repositories."""

    account: Account | None

    def answer(self) -> None:
        self.account = self._authenticate()
        self.user = None if self.account is None else self.account.user
        for methods, pattern, action in ROUTES:
            found = pattern.fullmatch(self.target.path)
            if found and self.command in methods:
                values = {name: value and unquote(value) for name, value in found.groupdict().items()}
                action(self, **values)
                return
        raise HubError(404, f"The test server has no route {self.command} {self.target.path}")

    def _authenticate(self) -> Account | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if not kind:
            return None
        account = self.server.hub.tokens.get(token.strip())
        if account is None or kind.lower() != "bearer":
            raise HubError(401, "Invalid credentials in Authorization header")
        return account

    def need_account(self) -> Account:
        """Who is asking; an error if nobody is known to be."""
        if self.account is None:
            raise HubError(401, "Invalid username or password.")
        return self.account

    def may_write(self, namespace: str) -> bool:
        return self.account is not None and self.account.rights(namespace) == "write"

    def may_read(self, repository: Repository) -> bool:
        known = self.account is not None and self.account.rights(repository.namespace) is not None
        return known or not repository.settings["private"]

    def repository(self, repo_type: str | None, repo_id: str, write: bool = False) -> Repository:
        """A repository that the client may see.

        Args:
            repo_type: None stands for `model`.
            write: The client wants to change it.

        Raises:
            HubError: It does not exist, or must not be seen or changed by this client.
        """
        repository = self.server.hub.storage.repository(repo_type or "model", repo_id)
        if not repository.exists() or not self.may_read(repository):
            if self.account is None:
                # Over https the client takes a bare 401 for a missing repository, over http it needs the code.
                headers = {"WWW-Authenticate": "Bearer"}
                raise HubError(401, "Invalid username or password.", "RepoNotFound", headers)
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write and not self.may_write(repository.namespace):
            if self.need_account().rights(repository.namespace) is None:
                raise HubError(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return repository

    def address(self, repository: Repository) -> str:
        """Address of the page of a repository."""
        prefix = "" if repository.type == "model" else f"{repository.type}s/"
        return f"{self.server.hub.endpoint}/{prefix}{repository.id}"

    def send_page(self, rows: Sequence[Any], headers: dict[str, str] | None = None) -> None:
        """Send the rows of the page that the query asks for, with a link to the next one."""
        size = min(int(self.query.get("limit", ["1000"])[0]), self.server.hub.page_size)
        start = int(base64.b64decode(self.query["cursor"][0])) if "cursor" in self.query else 0
        headers = dict(headers or {})
        if start + size < len(rows):
            query = {name: values[0] for name, values in self.query.items()}
            query["cursor"] = base64.b64encode(str(start + size).encode()).decode()
            address = f"{self.server.hub.endpoint}{self.target.path}?{urlencode(query)}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.send_json(rows[start : start + size], headers=headers)


def disposition(path: str) -> str:
    """The header that names a downloaded file."""
    return f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}"
