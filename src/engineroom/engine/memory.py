"""How much memory this process has in use."""

from __future__ import annotations

import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_in_use() -> int | None:
    """Bytes of this process that are in memory at this moment; None where the system does not say it like Linux."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
