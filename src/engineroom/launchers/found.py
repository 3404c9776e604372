"""A process that another one started: the controller or a nanny of a cluster that this process attached to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..messages import signal_number
from .base import STOP_SECONDS, LauncherFacts, end_of

if TYPE_CHECKING:  # it takes long to import, and not every process looks for others
    import psutil

#: How long the kernel may take between the start of a program and its command line in `/proc`, on a busy host.
STARTING_SECONDS = 2.0
#: The thread of the kernel that is the parent of all others: they have no command line.
KTHREADD = 2


class FoundProcess(LauncherFacts):
    """A process that another one started, known by its pid.

    Parameters
    ----------
    pid : int
        Its process id, as a file tells it.
    marker : str
        Text that its command line holds. Without it the pid belongs to another program by now.
    log_file : Path, optional
        Its log.
    count : int
        How many engines it has.
    """

    def __init__(self, pid: int, marker: str, log_file: Path | None = None, count: int = 0) -> None:
        self._count = count
        self._pid = pid
        self.log_file = log_file
        import psutil

        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):  # also a number that no process can have
            process = psutil.Process(pid)
            # the system gives old pids to new processes
            if any(marker in argument for argument in _arguments(process)):
                self._process = process

    @property
    def n(self) -> int:
        """How many engines; 1 for a controller."""
        return self._count or 1

    def find_args(self) -> list[str]:
        """The command that was started, as a list of words; [] once it has ended."""
        import psutil

        with contextlib.suppress(psutil.Error):
            return list(self._process.cmdline()) if self._process is not None else []
        return []

    @property
    def state(self) -> str:
        """ "running", or "after" its end."""
        return "running" if self.running else "after"

    @property
    def running(self) -> bool:
        if self._process is None:
            return False
        import psutil

        try:
            return bool(self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    @property
    def expected(self) -> int:
        return self._count if self.running else 0

    @property
    def waiting(self) -> int:
        return 0

    @property
    def pid(self) -> int | None:
        return self._pid if self._process is not None else None

    def start(self) -> None:
        raise ConfigError("another process started this one, so it cannot be started from here")

    def stop(self) -> None:
        if self._process is None:
            return
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.terminate()
            self._process.resume()  # somebody may have suspended it
            if not self.join(STOP_SECONDS):
                self._process.kill()

    def signal(self, number: int | str) -> None:
        if self._process is not None:
            import psutil

            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(signal_number(number))

    def join(self, timeout: float | None = None) -> bool:
        # `wait` of psutil would wait until the parent of a process that has ended asks for its exit code, too.
        deadline, pause = None if timeout is None else time.monotonic() + timeout, 0.001
        while self.running:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.04)
        return True

    def on_stop(self, callback: Callable[[int], None]) -> None:
        call_after(self.join, callback)

    def get_output(self, remove: bool = False) -> str:
        return end_of(self.log_file, remove) if self.log_file else ""

    def explain(self) -> str:
        return ""  # the process that started it knows

    def to_dict(self) -> dict[str, Any]:
        return {"class": "local", "pid": self._pid, "log_file": str(self.log_file or ""), "args": []}


def _arguments(process: psutil.Process) -> list[str]:
    """The command line of a process. One that is just being started has none for a moment."""
    deadline = time.monotonic() + STARTING_SECONDS
    arguments: list[str]
    while not (arguments := process.cmdline()) and not _is_of_kernel(process) and time.monotonic() < deadline:
        time.sleep(0.001)
    return arguments


def _is_of_kernel(process: psutil.Process) -> bool:
    return KTHREADD in (process.pid, process.ppid())


def call_after(join: Callable[[], Any], callback: Callable[[int], None]) -> None:
    """Have a thread call `join`, and `callback` with 0 then: exit codes of other processes' children are unknown."""

    def wait() -> None:
        join()
        callback(0)

    threading.Thread(target=wait, daemon=True).start()
