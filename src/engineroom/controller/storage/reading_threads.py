"""Threads that read from the store, each of them watched: a disk that does not answer keeps a thread in the kernel.

A thread that reads gives signs of life by using the processor. One that has given none for some seconds hangs: the log
says where, and who waits for it gets an error. Threads are daemons: none that hangs keeps the process from ending.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from ...errors import StoreError
from ...stores.query.deadline import Asker, asked_by
from ...watchdog.watchdog import Watchdog, to_log

T = TypeVar("T")

#: Called with the error, in a thread of a watchdog, for a reading that hangs.
GiveUp = Callable[[StoreError], None]


class ReadingThreads:
    """Up to `count` threads that work off what is submitted.

    Parameters
    ----------
    count : int
        Threads at most. They are started when they are needed.
    name : str
        What they are called in the log.
    hang_seconds : float
        A thread that has used no processor time for so many seconds while it reads hangs.
    on_all_hang : callable, optional
        Is called with the error when the last of the threads hangs.
    """

    def __init__(self, count: int, name: str, hang_seconds: float, on_all_hang: GiveUp = lambda error: None) -> None:
        self._count, self._name, self._on_all_hang = count, name, on_all_hang
        self.hang_seconds = hang_seconds
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[_ReadingThread] = []
        self._idle = threading.Semaphore(0)
        self._closing = False

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Have a thread call a function. RuntimeError: they are closed."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            if self._closing:
                raise RuntimeError("the reading threads are closed")
            self._work.put(work)
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
                self._threads.append(_ReadingThread(self, f"{self._name}-{len(self._threads)}"))
        return future

    @contextlib.contextmanager
    def reading(self, asker: Asker, give_up: GiveUp = lambda error: None) -> Iterator[None]:
        """Within, the thread of these that calls this reads from the store for an asker."""
        with _here.thread.watched(asker, give_up), asked_by(asker):
            yield

    @property
    def error(self) -> StoreError | None:
        """Why nothing can be read at present; None: some thread can."""
        with self._lock:
            if len(self._threads) < self._count or not all(thread.hangs for thread in self._threads):
                return None
        return self.hang_error()

    def hang_error(self) -> StoreError:
        """The error of a reading that hangs."""
        return StoreError(
            f"the task database does not answer: nothing has come of reading from it for {self.hang_seconds:g} s"
        )

    def close(self) -> bool:
        """End the threads; wait for those that do not hang. Work that has not begun is dropped. False: one hangs."""
        with self._lock:
            self._closing = True
            with contextlib.suppress(queue.Empty):
                while True:
                    self._work.get_nowait()
            for _ in self._threads:
                self._work.put(None)
        for thread in self._threads:
            thread.join()
        return not any(thread.hangs for thread in self._threads)

    def serve(self) -> None:
        """What each thread does."""
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                self._idle.release()
                work = self._work.get()
            if work is None:
                return
            work()
            del work  # so that it keeps nothing alive

    def one_hangs(self) -> None:
        """A watchdog has seen that a thread hangs."""
        if (error := self.error) is not None:
            self._on_all_hang(error)


class _Here(threading.local):
    """The thread that runs."""

    thread: _ReadingThread


_here = _Here()


class _Reading:
    """What a thread reads."""

    __slots__ = ("asker", "give_up", "hangs", "number")

    def __init__(self, asker: Asker, give_up: GiveUp, number: int) -> None:
        self.asker, self.give_up, self.number = asker, give_up, number
        self.hangs = False


class _ReadingThread:
    """One of the threads, and the watch on it."""

    def __init__(self, lane: ReadingThreads, name: str) -> None:
        self._lane, self._name = lane, name
        self._readings = 0
        self._reading: _Reading | None = None
        #: what it read when the watchdog looked last
        self._seen: _Reading | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether the reading that is under way hangs."""
        reading = self._reading
        return reading is not None and reading.hangs

    def join(self) -> None:
        while self._thread.is_alive() and not self.hangs:
            self._thread.join(0.1)

    @contextlib.contextmanager
    def watched(self, asker: Asker, give_up: GiveUp) -> Iterator[None]:
        self._readings += 1
        self._reading = _Reading(asker, give_up, self._readings)
        try:
            yield
        finally:
            self._reading = None

    def _run(self) -> None:
        _here.thread = self
        what = f"the thread {self._name} that reads from the task database"
        with Watchdog(what, self._signs_of_life, self._lane.hang_seconds, say=self._say):
            self._lane.serve()

    def _signs_of_life(self) -> int:
        reading, ident = self._reading, self._thread.ident
        if reading is None or ident is None or time.monotonic() < reading.asker.elsewhere_until:
            return 0  # it does not read, or a server has time for the answer
        if not hasattr(time, "pthread_getcpuclockid"):
            return 0  # not on this system
        self._seen = reading
        used = time.clock_gettime(time.pthread_getcpuclockid(ident))
        return reading.number + int(used * 1000)

    def _say(self, text: str, is_hanging: bool) -> None:
        to_log(text, is_hanging)
        if is_hanging and (reading := self._seen) is not None:  # it may have come back meanwhile: that does no harm
            reading.hangs = True
            reading.give_up(self._lane.hang_error())
            self._lane.one_hangs()
