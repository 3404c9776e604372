"""How much memory this process has in use."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..config import MIB

_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_in_use() -> int | None:
    """Bytes of this process that are in memory at this moment; None where the system does not say it like Linux."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


class MemoryLimit:
    """Decides when another process should take the place of an engine, because tasks have left too much in its memory.

    Parameters
    ----------
    limit : int
        Bytes that the process may have in memory after a task; 0: as many as it likes.
    look : callable
        How many it has.
    """

    def __init__(self, limit: int, look: Callable[[], int | None] = memory_in_use) -> None:
        self._limit, self._look = limit, look
        #: whether a direct task has run here: then the namespace is the user's, and the process stays
        self.has_user = False

    def begin(self) -> str:
        """No task has run yet. Returns what to write to the log; "": nothing."""
        used = self._look() or 0
        if not self._limit or used < self._limit:
            return ""
        limit, self._limit = self._limit, 0
        return (
            f"memory_limit has no effect: it is {limit / MIB:.0f} MiB, and an engine has {used / MIB:.0f} MiB in "
            "memory before its first task"
        )

    def passed(self) -> str:
        """Whether the limit is passed, as a text for the log; "": it is not."""
        if not self._limit or self.has_user:
            return ""
        used = self._look() or 0
        if used <= self._limit:
            return ""
        return (
            f"another process takes the place of this engine: its tasks have left {used / MIB:.0f} MiB in memory, and "
            f"memory_limit is {self._limit / MIB:.0f} MiB"
        )
