"""Processes that outlive the engine whose task started them: the zygote becomes their parent, and kills them.

Most children of tasks are in their engine's process group, and are killed with it. Those in a session of their own are
not: they are found by a variable in their environment. (Linux; elsewhere nothing is found.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable

from ...system.processes import state_of

#: Names the engine whose task started a process.
VARIABLE = "ENGINEROOM_ENGINE"

_PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """Have the kernel make this process the parent of its descendants that lose theirs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_of(engine: str) -> None:
    """Kill the children of this process that tasks of an engine, which has ended, have started."""
    mark = f"{VARIABLE}={engine}".encode()
    _kill(lambda pid: mark in _environment(pid))


def kill_all() -> None:
    """Kill the children of this process."""
    _kill(lambda pid: True)


def _kill(wanted: Callable[[int], bool]) -> None:
    """Kill children until there are none: those of a child that is killed become ours."""
    killed: set[int] = set()
    while new := [pid for pid in _children() if pid not in killed and wanted(pid)]:
        for pid in new:
            killed.add(pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in new:
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    us, found = os.getpid(), []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc") if os.path.isdir("/proc") else [])):
        state = state_of(pid)
        if state is not None and state.parent == us and not state.has_ended:
            found.append(pid)
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
