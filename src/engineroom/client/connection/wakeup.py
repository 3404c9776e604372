"""A pipe by which users' threads wake the I/O thread."""

from __future__ import annotations

import contextlib
import os

from ...descriptors import wait_readable


class Wakeup:
    """`sleep` in one thread, `wake` from any."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """End the sleep, or the next one. Safe after `close`, too."""
        with contextlib.suppress(OSError):
            os.write(self._write, b"w")

    def sleep(self, fd: int, timeout: float) -> None:
        """Sleep until a file descriptor is readable, until `wake`, or for so many seconds."""
        wait_readable([fd, self._read], timeout)

    def clear(self) -> None:
        """Forget past calls of `wake`."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        """Give the pipe back."""
        read, write = self._read, self._write
        self._read = self._write = -1
        os.close(read)
        os.close(write)
