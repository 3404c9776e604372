"""Interrupting user code: because its task was cancelled, or something in it has had its time.

The attendant thread notices, and signals the main thread; whether to raise is decided there, by the handler. What is
wished for belongs to the task that is running: with it, it is forgotten, so that no other task is ever interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ...messages.bounds import Status
from ..shared_page import SharedPage
from .executor import Executor, Interrupted

#: A process without a handler ignores this signal, so processes that tasks start are not hurt by it.
SIGNAL = signal.SIGURG


class _Wish:
    """A wish to interrupt the running task, from a moment on (monotonic seconds; 0: now). It is granted once."""

    __slots__ = ("deadline", "ename", "granted", "seconds", "status", "text")

    def __init__(self, status: Status, ename: str, text: str, seconds: float = 0.0) -> None:
        self.status, self.ename, self.text = status, ename, text
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds if seconds else 0.0
        self.granted = False

    def is_due(self) -> bool:
        """Whether the moment has come, and nobody was interrupted."""
        return not self.granted and time.monotonic() >= self.deadline


class Interrupter:
    """Made in the main thread. Everything but `look` and `cancel` is called there."""

    def __init__(self, executor: Executor, page: SharedPage) -> None:
        self._executor = executor
        self._page = page
        self._main, self._pid = threading.get_ident(), os.getpid()
        #: what the running task is to be interrupted for; empty for nearly all
        self.wishes: list[_Wish] = []
        signal.signal(SIGNAL, self._on_signal)

    def cancel(self) -> None:
        """Interrupt the running task. Called with the link's lock held, so that it cannot end meanwhile."""
        self.wishes.append(_Wish("aborted", "TaskAborted", "cancelled while it was running"))
        self.look()

    def look(self) -> None:
        """Signal the main thread if it is time. Again and again: it may have been about to enter a system call."""
        now = time.monotonic()
        if any(now >= wish.deadline and not wish.granted for wish in tuple(self.wishes)):
            signal.pthread_kill(self._main, SIGNAL)

    @contextlib.contextmanager
    def limit(self, seconds: float, ename: str, text: str) -> Iterator[None]:
        """Interrupt what runs inside after some seconds: its task ends with this error.

        Other threads of a task, and processes that it forked, are not limited.
        """
        if threading.get_ident() != self._main or os.getpid() != self._pid:
            yield
            return
        wish = _Wish("error", ename, text, seconds)
        self.wishes.append(wish)
        self._tell_nanny()
        try:
            yield
        finally:
            self.wishes.remove(wish)
            self._tell_nanny()

    def resume(self, wishes: list[_Wish]) -> None:
        """A task goes on that had waited for others. Called with the link's lock held."""
        self.wishes = wishes
        self._tell_nanny()

    def forget(self) -> None:
        """The task has ended. Called with the link's lock held."""
        self.wishes.clear()
        self._page.limit(0.0)

    def _tell_nanny(self) -> None:
        """Write the first deadline into the shared page: the zygote kills an engine whose task goes on after it."""
        first = min((wish for wish in self.wishes if wish.deadline), key=lambda wish: wish.deadline, default=None)
        if first is None:
            self._page.limit(0.0)
        else:
            self._page.limit(first.deadline, first.seconds, is_run_timeout=first.ename == "TaskTimeout")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._executor.is_running:
            return  # between two tasks; or in our own code, and `look` will signal again
        now = time.monotonic()
        for wish in self.wishes:
            if now >= wish.deadline and not wish.granted:
                wish.granted = True
                raise Interrupted(wish.status, wish.ename, wish.text)


def spare_forked_processes(in_child: Callable[[], None]) -> None:
    """Processes that tasks fork are not engines: signals mean to them what they mean to anybody.

    `in_child` is called in each of them.

    The signals are blocked around the fork: one that comes before the child has forgotten the engine's handlers
    would be taken by those, and lost.
    """
    ours = {signal.SIGINT, signal.SIGTERM}
    before: list[set[Any]] = []

    def block() -> None:
        before.append(signal.pthread_sigmask(signal.SIG_BLOCK, ours))

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.pop())

    def forget() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(SIGNAL, signal.SIG_DFL)
        in_child()
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=forget)
