"""Who waits for the outcome of which task, and how outcomes reach them. There is no network here."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ...errors import ProtocolError, TaskAborted
from ...ids import TaskId
from ...messages import ErrorInfo, Output, Published, Results, ResultsUnavailable, Started, TaskDone
from ...wire import frames as wire
from .requests import error_of

#: Guards the moment in which a result without listeners becomes ready (see `results/task_future.py`).
fulfilling = threading.Lock()


#: The threads that take in results at this moment, by their numbers. Nobody may wait for a result in one of them.
delivering: set[int] = set()


def is_delivering() -> bool:
    """Whether this thread takes in results: a wait for one would never end."""
    return threading.get_ident() in delivering


class IOThread(threading.Thread):
    """A thread that takes in results all its life."""

    def run(self) -> None:
        delivering.add(threading.get_ident())
        try:
            super().run()
        finally:
            delivering.discard(threading.get_ident())


class Waiter(Protocol):
    """Who waits for a task: an AsyncResult. The I/O thread calls these."""

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        """Take in an outcome, with `fulfilling` held. True: `_announce` must be called once it is released."""

    def _announce(self) -> None:
        """Tell the threads that wait."""

    def _failed(self, id: TaskId, error: Exception) -> None:
        """There will be no outcome."""

    def _heard(self, id: TaskId, news: Output | Started | Published, frames: Sequence[Any]) -> None:
        """A running task has printed or published something, or has begun."""

    def _forked(self) -> None:
        """This process was forked from the one that waits: here there will be no outcome."""


class Growing(Waiter, Protocol):
    """A map that submits further tasks as results come. At times it waits for none of those that it has submitted."""

    _ids: list[TaskId]

    def _no_more(self) -> None:
        """The tasks are to be aborted: submit no more."""

    def _submit_rest(self) -> None:
        """The session is about to end: submit all that are left."""


class Waiters:
    """A waiter for each task that has no outcome yet.

    Users' threads put waiters into `by_task` and the I/O thread takes them out. Each access is one operation of a
    dict, so that no lock is needed.
    """

    def __init__(self, aborted: set[TaskId] | None = None) -> None:
        """`aborted`: takes in those of which it comes that they were aborted."""
        self.by_task: dict[TaskId, Waiter] = {}
        self._aborted = set() if aborted is None else aborted
        #: each adds itself, and takes itself out
        self.growing: set[Growing] = set()

    def all(self) -> set[Waiter]:
        """Everybody who waits for an outcome, or will."""
        return {*self.by_task.copy().values(), *self.growing.copy()}

    def withdraw(self, ids: Iterable[TaskId]) -> None:
        """Nobody waits for these tasks any more."""
        for id in ids:
            self.by_task.pop(id, None)

    def on_results(self, message: Results, frames: Sequence[Any]) -> None:
        """Give outcomes to their waiters."""
        waiters, announce, now = self.by_task, [], time.time()
        broken: list[tuple[Waiter, TaskId, ProtocolError]] = []
        with fulfilling:
            for done in message.tasks:
                waiter = waiters.get(done.id)
                if waiter is None:
                    continue
                try:
                    buffers = wire.pick(done, frames) if done.frames else ()
                except ProtocolError as error:  # it hurts nobody but its task
                    broken.append((waiter, done.id, error))
                else:
                    if waiter._arrived(done, buffers, now):
                        announce.append(waiter)
                if done.status == "aborted":
                    self._aborted.add(done.id)
                waiters.pop(done.id, None)  # only now: if this thread is interrupted, the outcome is asked for again
        for waiter in announce:
            waiter._announce()
        for waiter, id, reason in broken:
            waiter._failed(id, reason)

    def on_gone(self, message: ResultsUnavailable, frames: Sequence[Any]) -> None:
        """Tell waiters that an outcome cannot be had."""
        for id in message.tasks:
            info = ErrorInfo(message.ename, f"the result of {id} cannot be had: {message.reason}")
            self.fail([id], functools.partial(error_of, info))

    def on_news(self, message: Output | Started | Published, frames: Sequence[Any]) -> None:
        """Tell a waiter what its running task has to say."""
        waiter = self.by_task.get(message.task)
        if waiter is not None:
            waiter._heard(message.task, message, frames)

    def taken_back(self, ids: Iterable[TaskId]) -> None:
        """These tasks were aborted before they were sent."""
        self.fail(ids, lambda: TaskAborted("aborted before it was sent to the controller"))

    def fail(self, ids: Iterable[TaskId], error: Callable[[], Exception]) -> None:
        """Tell waiters that there will be no outcome; `error` makes an exception for each of them."""
        for id in ids:
            waiter = self.by_task.pop(id, None)
            if waiter is not None:
                waiter._failed(id, error())
