"""What the kernel says of processes, in `/proc` (Linux; elsewhere nothing is known).

The numbers of processes are used again: a number and the time of birth name one process, as long as the host is not
restarted.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessState(NamedTuple):
    """A process, at the moment of the look."""

    #: a letter, as `ps` shows it: R (runs), S (sleeps), D (waits for a disk), T (stopped), Z (ended, not yet reaped), …
    letter: str
    #: the number of its parent
    parent: int
    #: when it began, in clock ticks since the start of the host
    born: int

    @property
    def has_ended(self) -> bool:
        """Whether only its entry in the table of processes is left."""
        return self.letter in "ZX"

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped it, as SIGSTOP does."""
        return self.letter == "T"


def state_of(pid: int) -> ProcessState | None:
    """Look at a process of this host. None: there is none, or nothing is known of it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()  # before that is its name, which may hold anything
        return ProcessState(fields[0].decode(), int(fields[1]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None


def birth_of(pid: int) -> str:
    """When a process began: no other has this number and this birth. "": it has ended, or nothing is known of it.

    (psutil's `create_time` depends on the host's clock: two processes that ask may get times a second apart.)
    """
    state, boot = state_of(pid), boot_id()
    return f"{boot} {state.born}" if state is not None and not state.has_ended and boot else ""


def age_of(pid: int) -> float:
    """How many seconds ago a process began; 0.0: nothing is known of it.

    (psutil's `create_time` may be a second off.)
    """
    state = state_of(pid)
    if state is None:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - state.born / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Names the time since the host was started; "": unknown."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
