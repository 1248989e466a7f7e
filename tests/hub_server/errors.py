"""The one exception of this server: what goes wrong in a request becomes the answer to it."""

from collections.abc import Mapping
from typing import Any


class HubError(Exception):
    """An answer other than success.

    Args:
        status: HTTP status.
        message: The text for the user; sent in the body and as `X-Error-Message`.
        code: `X-Error-Code`, from which huggingface_hub chooses its exception.
        headers: Further headers.
        fields: Further fields of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message.replace("\n", " "), **(headers or {})}
        if code is not None:
            self.headers["X-Error-Code"] = code
        self.fields = dict(fields or {})
