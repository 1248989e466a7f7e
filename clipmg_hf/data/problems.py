"""What is wrong with a folder of data: collected, so that a user sees all of it at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


OnError = Literal["raise", "skip"]
# More lines than this hide the message's first line in a terminal.
MAX_SHOWN = 50


class DatasetFormatError(ValueError):
    """Files of a data set that cannot be read.

    Args:
        problems (`str` or `list[str]`): One message for each problem, naming file, row, value and what was expected.
        where (`str`, *optional*): The folder or file that they were found in.
        can_skip (`bool`, defaults to `False`): Whether `on_error="skip"` leaves out what they concern.
    """

    def __init__(self, problems: str | list[str], where: str | None = None, can_skip: bool = False):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.where = where
        self.can_skip = can_skip
        super().__init__(self.problems, where, can_skip)

    def __str__(self) -> str:
        if self.where is None and len(self.problems) == 1:
            return self.problems[0]
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        shown = [f"  - {problem}" for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            shown.append(f"  ... and {len(self.problems) - MAX_SHOWN} more")
        hint = " (on_error='skip' leaves out what they concern)" if self.can_skip else ""
        return "\n".join([f"{self.where or 'data set'}: {count}{hint}:", *shown])


class ProblemLog:
    """Collects problems while a data set is read.

    Args:
        where (`str`): The folder that is read; starts the message.
        on_error (`str`): `"raise"`: `raise_if_any` raises all of them at once. `"skip"`: what they concern is left
            out, and `problems` says what and why.

    Raises:
        ValueError: Another `on_error`.
    """

    def __init__(self, where: str, on_error: OnError = "raise"):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; expected 'raise' or 'skip'.")
        self.where = where
        self.on_error = on_error
        self.problems: list[str] = []

    def add(self, problem: str) -> None:
        """Record one problem."""
        self.problems.append(problem)

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Record the problems of a `DatasetFormatError` raised inside; the block ends there."""
        try:
            yield
        except DatasetFormatError as error:
            self.problems += error.problems

    def raise_if_any(self) -> None:
        """Raise everything that was recorded, unless it is to be skipped."""
        if self.problems and self.on_error == "raise":
            raise DatasetFormatError(self.problems, self.where, can_skip=True)


__all__ = ["DatasetFormatError", "OnError", "ProblemLog"]
