"""Faults that a test orders: the next requests that match are answered with an error, or the line is cut."""

import re
import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """What is to happen to the next `times` requests.

    Attributes:
        pattern: Regular expression, searched in the path and query of a request.
        status: The answer, unless the line is cut.
        times: How many requests are left.
        method: Only requests of this HTTP method.
        drop: Cut the line when half of the body has been read.
        late: Carry the request out, then cut the line instead of answering.
    """

    pattern: str
    status: int = 503
    times: int = 1
    method: str | None = None
    drop: bool = False
    late: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in (None, method) and re.search(self.pattern, path) is not None


class Faults:
    """The faults that are still to happen."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """The first fault that concerns a request; it is used up by one."""
        with self._lock:
            for fault in self._faults:
                if fault.matches(method, path):
                    fault.times -= 1
                    return fault
        return None
