"""How commands end and print: what a user can cause is one message on stderr and an exit status, not a traceback.

    if __name__ == "__main__":
        run(main)

Exit statuses: 0 done, 1 unusable input (`error: ...`), 2 wrong usage, 130 interrupted. A mistake of ours may look like
unusable input: with `CLIPMG_TRACEBACK=1` in the environment every error also shows its traceback.
"""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn


if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TRACEBACK = "CLIPMG_TRACEBACK"
INTERRUPTED = "interrupted; run the same command again to go on"
# Errors of a place to write to, whatever was to be written.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def run(main: Callable[[], int | None], interrupted: str = INTERRUPTED) -> NoReturn:
    """Call the main function of a script and exit with the status that it returns; `None` is 0.

    `interrupted` is said after Ctrl-C.
    """
    with errors_to_exit(interrupted):
        sys.exit(main())


@contextmanager
def errors_to_exit(interrupted: str = INTERRUPTED) -> Iterator[None]:
    """Turn what a user can cause into a message and an exit status; what is a mistake of ours keeps its traceback.

    Raises:
        SystemExit: With status 1 after a ValueError, OSError, ImportError or FloatingPointError, 130 after a
            KeyboardInterrupt; without a message where nobody reads the output any more.
    """
    try:
        yield
    except KeyboardInterrupt:
        _exit(interrupted, 130)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough; the flush at the end must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        cause = _cause_of(error)
        if not is_of_the_user(cause):
            raise
        show_traceback(error)
        _exit(f"error: {describe_error(cause)}", 1)


def describe_error(error: BaseException) -> str:
    """The message of an error; that of a full or read-only disk says where `datasets` writes."""
    text = str(error) or type(error).__name__
    if not isinstance(error, OSError) or error.errno not in _DISK_ERRORS:
        return text
    from datasets import config

    cache = Path(config.HF_DATASETS_CACHE)
    if error.filename is not None and not Path(str(error.filename)).is_relative_to(cache):
        return text
    return (
        f"{text}; converted data goes to {cache}: expected room and permission to write there, or HF_HOME set to "
        "another folder."
    )


def show_traceback(error: BaseException) -> None:
    """Print the traceback of an error that is told in one line, if the environment asks for it."""
    if os.environ.get(TRACEBACK) == "1":
        traceback.print_exception(error)


def _cause_of(error: BaseException) -> BaseException:
    """The error behind the one with which `datasets` hides it."""
    from datasets.exceptions import DatasetGenerationError

    while isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep warnings and logs of libraries off stderr; errors pass."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def is_of_the_user(error: BaseException) -> bool:
    """Whether what went wrong is input, a place or an installation, and no mistake of ours."""
    # A field of a configuration that contradicts another is no ValueError there; a training that diverges stops with a
    # FloatingPointError.
    from huggingface_hub.errors import StrictDataclassError

    return isinstance(error, ValueError | OSError | ImportError | FloatingPointError | StrictDataclassError)


def make_table(columns: Sequence[str], num_text_columns: int = 1) -> "Table":
    """A table without lines; the first columns hold text, the others numbers."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < num_text_columns else "right", overflow="fold")
    return table


def say(console: "Console", text: str) -> None:
    """Print text as it is, of any length in one line."""
    from rich.markup import escape

    console.print(escape(text), highlight=False, soft_wrap=True)


def _exit(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(status)


__all__ = [
    "TRACEBACK",
    "describe_error",
    "errors_to_exit",
    "is_of_the_user",
    "make_table",
    "no_warnings",
    "run",
    "say",
    "show_traceback",
]
