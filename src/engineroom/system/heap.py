"""How the C library divides the memory of a process (glibc; elsewhere nothing is done)."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8


def one_heap() -> None:
    """Have all threads of this process share one heap. Call it before there are any.

    Unless told so, glibc gives every thread a heap of its own. In a process that lives for days, where one thread makes
    what another gives back, each of them slowly fills with holes: memory grows, though no more of it is in use.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
