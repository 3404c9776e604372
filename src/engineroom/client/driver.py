"""Who turns the wheel of a connection: a thread of its own, or a thread that waits for a result anyway.

A round trip through an I/O thread costs two more thread switches than one without. So a thread that waits for a
result takes the wheel: it sends and receives by itself until the result is there. Meanwhile the I/O thread is
parked, and stays so for a moment in case the same thread comes back, as it does in a loop of `apply_sync`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

#: How long the I/O thread stays parked after the last waiting thread has left the wheel.
PARKED_SECONDS = 0.01


class Driver:
    """Calls `turn` again and again, from one thread at a time.

    `turn` handles what has arrived, sends what has gathered, and calls `sleep` when there is neither; `idle` tells
    whether nothing has gathered. At the end `end` is called, once.
    """

    def __init__(self, turn: Callable[[], None], idle: Callable[[], bool], end: Callable[[], None], name: str) -> None:
        self._turn = turn
        self._idle = idle
        self._end = end
        self._wheel = threading.Lock()
        self._waiters = threading.Lock()  # one waiting thread drives; the others wait for what it announces
        self._wanted = False
        self._unpark = threading.Event()
        self._asleep = False
        self._stopping = False
        self._driving_thread: int | None = None
        self._drives = 0  # counts them
        self._limit: float | None = None  # until when the driving thread may sleep
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    def stop(self) -> None:
        """No more turns after the one under way."""
        self._stopping = True
        self.wake()

    def join(self) -> None:
        """Wait for the end, unless called from within a turn."""
        if threading.get_ident() not in (self._driving_thread, self._thread.ident):
            self._thread.join()

    # ------------------------------------------------------------------------------------------ sleeping and waking

    @property
    def needs_wake(self) -> bool:
        """Whether new work must be announced by `wake`: nobody would see it otherwise."""
        return self._asleep

    def wake(self) -> None:
        """End a `sleep`, and the parking of the I/O thread."""
        self._unpark.set()
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._write, b"w")

    def sleep(self, descriptor: int, until: float) -> None:
        """Sleep until the descriptor is readable, `wake` is called, or it is `until`."""
        self._asleep = True
        if self._idle() and not self._stopping:  # looked at again: who added work before saw us awake
            if self._limit is not None:
                until = min(until, self._limit)
            select.select([descriptor, self._read], [], [], max(0.0, until - time.monotonic()))
        self._asleep = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    # ------------------------------------------------------------------------------------------ the I/O thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                if self._wanted:
                    self._park()
                    continue
                with self._wheel:
                    if not self._wanted and not self._stopping:
                        self._turn()
        finally:
            self._stopping = True
            with self._wheel:
                self._end()
                read, write, self._read, self._write = self._read, self._write, -1, -1
                os.close(read)
                os.close(write)

    def _park(self) -> None:
        """Leave the wheel to a waiting thread, and for a moment after it has left."""
        drives = -1
        while not self._stopping:
            # A long wait is not looked in upon often: its end calls.
            called = self._unpark.wait(PARKED_SECONDS if drives != self._drives else 25 * PARKED_SECONDS)
            if self._driving_thread is not None:
                if called:
                    self._unpark.clear()  # meant for who drives
                drives = self._drives
            elif called or drives == self._drives:
                self._wanted = False
                return
            else:
                drives = self._drives  # somebody was here a moment ago, and may come back

    # ------------------------------------------------------------------------------------------ a waiting thread

    def drive(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Take the wheel until `done()` or the timeout.

        Returns
        -------
        bool
            False: another thread has it, and `done` must be waited for in another way.
        """
        if threading.get_ident() in (self._driving_thread, self._thread.ident):
            raise RuntimeError("a callback of a result cannot wait for another one: it would wait for ever")
        if self._stopping or not self._waiters.acquire(blocking=False):
            return False
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        interrupts = _Interrupts(self)
        try:
            self._drives += 1
            self._driving_thread, self._limit = threading.get_ident(), deadline
            if not self._wanted:
                self._wanted = True
                self.wake()  # the I/O thread leaves its sleep, sees that it is not wanted, and parks
            with self._wheel, interrupts:
                while not (done() or self._stopping or interrupts.came):
                    if deadline is not None and time.monotonic() >= deadline:
                        break
                    self._turn()
        finally:
            self._driving_thread = self._limit = None
            # From here on new work must call the I/O thread out of its parking; what came before is seen here.
            self._asleep = True
            self._unpark.clear()
            if not self._idle() or time.monotonic() - began > PARKED_SECONDS:
                self._unpark.set()
            self._waiters.release()
        interrupts.deliver()
        return True


class _Interrupts:
    """Holds Ctrl-C back while the main thread turns the wheel: nothing that has arrived may be half handled."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handler: Any = None
        self._frame: FrameType | None = None
        self.came = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *exc: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came, self._frame = True, frame
        self._driver.wake()

    def deliver(self) -> None:
        """Let the handler of before have the interrupt, if one came."""
        if self.came:
            self._handler(signal.SIGINT, self._frame)
