"""Processes of this host that are peers: the kernel tells at once when one ends."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Callable

from ...system.processes import state_of


class ProcessWatcher:
    """Watches processes; `ended(uuid)` is called from its thread when one is gone.

    Where the system cannot do that (no pidfd, or the process is in another pid namespace), nothing is watched,
    and peers are lost by their silence.
    """

    def __init__(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._selector = selectors.DefaultSelector()
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        self._selector.register(self._read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="process-watcher", daemon=True)
        self._thread.start()

    def watch(self, uuid: str, pid: int) -> None:
        """Watch a process, under a peer's name."""
        self.forget(uuid)
        with contextlib.suppress(OSError, AttributeError), self._lock:
            descriptor = os.pidfd_open(pid)
            self._descriptors[uuid] = descriptor
            self._selector.register(descriptor, selectors.EVENT_READ, uuid)

    def forget(self, uuid: str) -> None:
        """Watch it no more."""
        with self._lock:
            descriptor = self._descriptors.pop(uuid, None)
            if descriptor is not None:
                self._selector.unregister(descriptor)
                os.close(descriptor)

    def is_running(self, pid: int) -> bool:
        """Whether there is such a process, and it is not stopped (as by SIGSTOP)."""
        state = state_of(pid)
        return state is not None and not (state.is_stopped or state.has_ended)

    def close(self) -> None:
        """Watch nothing more."""
        os.write(self._write, b"q")
        self._thread.join()
        for uuid in list(self._descriptors):
            self.forget(uuid)
        self._selector.close()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        while True:
            for ready, _ in self._selector.select():
                if ready.data is None:
                    return
                self.forget(ready.data)
                self._ended(ready.data)
