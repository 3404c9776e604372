"""How the threads of a client sleep until there is something to do for its connection.

The I/O thread sleeps here. Another thread may take its place for a while: it waits for the same things, and the I/O
thread, which sleeps on, is not woken by them.
"""

from __future__ import annotations

import contextlib
import os
import select


class Wakeup:
    """`sleep` in the I/O thread, `wait` in the thread that has taken its place, `wake` from any."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: readable when something has arrived."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        #: readable when there is something to do
        self._work = select.epoll()
        self._work.register(descriptor, select.EPOLLIN)
        self._work.register(self._wake, select.EPOLLIN)
        # Taking `_work` out of what the I/O thread sleeps on is one quick system call, and does not wake that thread.
        self._sleep = select.epoll()
        self._sleep.register(self._work, select.EPOLLIN)

    def wake(self) -> None:
        """End the sleep, or the next one. Safe after `close`, and in a signal handler."""
        with contextlib.suppress(OSError, ValueError):
            os.eventfd_write(self._wake, 1)

    def sleep(self, timeout: float) -> None:
        """Sleep until there is something to do, for so many seconds at most. For the I/O thread."""
        self._sleep.poll(timeout, 1)

    def clear(self) -> None:
        """Forget past calls of `wake`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def take(self) -> None:
        """Take the place of the I/O thread."""
        self._sleep.unregister(self._work)

    def give_back(self) -> None:
        """The I/O thread is in its place again."""
        self._sleep.register(self._work, select.EPOLLIN)

    def wait(self, timeout: float) -> None:
        """Wait until there is something to do, for so many seconds at most. For the thread that has taken the place."""
        for descriptor, _ in self._work.poll(timeout, 2):
            if descriptor == self._wake:
                self.clear()

    def close(self) -> None:
        """Give the descriptors back."""
        wake, self._wake = self._wake, -1
        self._sleep.close()
        self._work.close()
        os.close(wake)
