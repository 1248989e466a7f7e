"""Pools of worker processes that end with the process that made them."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def make_pool(
    num_proc: int, preload: str, initializer: Callable[..., None] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Start a pool; a script that asks for one needs an `if __name__ == "__main__"` guard.

    Args:
        num_proc (`int`): Processes.
        preload (`str`): Module that a server imports once, from which workers are forked; where there is no such
            server, every worker imports it.
        initializer (`Callable`, *optional*): Called once in every worker, with `arguments`.
    """
    # A plain fork would copy locks that other threads hold.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(num_proc, context, _start_worker, (initializer, arguments))


def _start_worker(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    # A pool's workers outlive a parent that is killed, and would write beside the run that resumes.
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


__all__ = ["make_pool"]
