"""A task that waits for other tasks: its engine runs tasks meanwhile, in the thread that waits.

A task may use a `Client` of its own cluster. If it then waits, and holds the last engine, what it waits for could
never run. So the wait tells the controller, which gives this engine more tasks. They run inside the wait, one after
another; one of them may wait in its turn. Which task runs when is decided in the core, as ever.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from ..errors import WaitError
from .execution.executor import Executor, Terminated
from .execution.interrupts import Interrupter
from .protocol import EngineProtocol
from .shared_page import SharedPage

#: How many tasks of an engine may wait, one inside the other.
DEEPEST = 20
#: A wait that ends within this time runs no other tasks.
SHORT_SECONDS = 0.005
#: How often a wait looks whether it is over.
LOOK_SECONDS = 0.01


class Loop(Protocol):
    """What an Engine does with its link, for a wait."""

    def take_link(self) -> None:
        """The main thread tends the link."""

    def leave_link(self) -> None:
        """The main thread goes back to user code."""

    def serve_once(self, until: Callable[[], bool], seconds: float) -> None:
        """Run the tasks that there are, until the condition is true; or wait for a message for some seconds."""


class NestedRuns:
    """The waits of this engine's tasks. Everything is called in the main thread, but for `interrupt`."""

    def __init__(
        self,
        url: str,
        protocol: EngineProtocol,
        executor: Executor,
        interrupter: Interrupter,
        page: SharedPage,
        loop: Loop,
    ) -> None:
        self._url = url
        self._protocol, self._executor, self._interrupter, self._page = protocol, executor, interrupter, page
        self._loop = loop
        self._is_interrupted = False  # SIGINT came while a wait was looking for work
        #: whether SIGTERM has come
        self.is_terminated = False

    def interrupt(self) -> None:
        """SIGINT has come: if a task waits, and nothing runs inside the wait, it is for this task."""
        self._is_interrupted = bool(self._protocol.waiting) and self._protocol.job is None

    def wait(self, ready: Callable[[], bool], seconds: float | None, url: Callable[[], str]) -> bool:
        """See `task_context.wait`, which calls this from user code."""
        if (
            self._protocol.job is None
            or url() != self._url
            or not self._executor.is_running
            or self._executor.is_forked
            or threading.current_thread() is not threading.main_thread()
        ):
            return False
        deadline = None if seconds is None else time.monotonic() + seconds
        if _soon(ready, deadline):
            return True
        if len(self._protocol.waiting) >= DEEPEST:
            raise WaitError(
                f"{DEEPEST} tasks of this engine wait for other tasks already, one inside the other, and this would "
                "be one more. Submit all tasks from one place, or let tasks depend on each other (after=, arguments "
                "that are results) instead of waiting"
            )
        job = self._protocol.job
        wishes = self._interrupter.wishes

        def is_over() -> bool:
            return (
                ready()
                or self._protocol.is_leaving
                or self._is_interrupted
                or job[0].id in self._protocol.cancelled
                or (deadline is not None and time.monotonic() >= deadline)
                or any(wish.is_due() for wish in wishes)
            )

        self._executor.is_running = False  # no signal interrupts what follows
        try:
            with self._suspended(), self._executor.suspended():
                while not is_over():
                    self._loop.serve_once(is_over, LOOK_SECONDS)
        finally:
            self._executor.is_running = True
        if self.is_terminated:
            raise Terminated
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt
        if job[0].id in self._protocol.cancelled:
            self._protocol.cancelled.discard(job[0].id)
            self._interrupter.cancel()
        elif any(wish.is_due() for wish in wishes):
            self._interrupter.look()
        return ready() or (deadline is not None and time.monotonic() >= deadline)

    @contextlib.contextmanager
    def _suspended(self) -> Iterator[None]:
        """The running task waits inside the block."""
        protocol, job, wishes = self._protocol, self._protocol.job, self._interrupter.wishes
        assert job is not None
        self._loop.take_link()
        protocol.begin_wait(job)
        self._interrupter.wishes = []
        try:
            yield
        finally:
            self._interrupter.resume(wishes)
            protocol.end_wait(job)
            self._page.run(job[0].id)
            self._loop.leave_link()


def _soon(ready: Callable[[], bool], deadline: float | None) -> bool:
    """Whether a wait is over within a moment."""
    end = time.monotonic() + SHORT_SECONDS
    while not ready():
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            return True
        if now >= end:
            return False
        time.sleep(0.0005)
    return True


