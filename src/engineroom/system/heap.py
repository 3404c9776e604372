"""How the C library divides the memory of a process (glibc; elsewhere nothing is done)."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1
#: Blocks of so many bytes and more have pages of their own, which the system has back at once.
OWN_PAGES = 512 << 10
#: So much free memory at the end of the heap goes back to the system.
TRIMMED = 2 << 20


def one_heap() -> None:
    """Have all threads of this process share one heap, and keep large blocks out of it. Call it before there are any.

    Unless told so, glibc gives every thread a heap of its own, and once a large block was given back it has larger ones
    come from the heap. In a process that lives for days, where one thread makes what another gives back, a heap then
    slowly fills with holes: memory grows, though no more of it is in use.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, OWN_PAGES)
        mallopt(_M_TRIM_THRESHOLD, TRIMMED)
