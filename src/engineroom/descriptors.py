"""File descriptors: waiting for them, and whether this process may open enough."""

from __future__ import annotations

import contextlib
import os
import resource
import select
from collections.abc import Sequence

from .errors import EngineroomError

#: What a link or a listener opens, with a reserve.
NEEDED = 24
#: What the processes of engines let themselves open, if the system lets them.
MOST_OF_AN_ENGINE = 1 << 16


def require_descriptors(purpose: str) -> None:
    """Check that there are enough file descriptors.

    Raises
    ------
    EngineroomError
        There are not.
    """
    opened: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while len(opened) < NEEDED:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        if len(opened) < NEEDED:
            limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            raising = f"or raise the limit (`ulimit -n {most}`)"
            if limit == most:
                raising = "or start it with a higher limit, which the system's administrator sets (`ulimit -Hn`)"
            raise EngineroomError(
                f"{purpose} needs {NEEDED} file descriptors, and this process may open {len(opened)} more: its limit "
                f"is {limit}. Close files or clients, {raising}"
            )
    finally:
        for descriptor in opened:
            os.close(descriptor)


def wait_readable(descriptors: Sequence[int], timeout: float) -> list[int]:
    """Those that are readable, after `timeout` seconds at most. (`select.select` fails for numbers from 1024 on.)"""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout * 1000)]


def raise_limit(most: int | None = None) -> None:
    """Let this process open as many as the system lets it, or `most`. A higher limit that it has stays."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return
    if most is None or (hard != resource.RLIM_INFINITY and hard <= most):
        wanted = hard
    else:
        wanted = max(limit, most)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
