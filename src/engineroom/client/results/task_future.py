"""A Future over the outcomes of one task or several: how it becomes ready, and who is told.

Values, errors and metadata are made of outcomes in `result.py`; nothing is unpickled here. A future costs little
until somebody waits: its lock and its list of listeners are made on demand.

How readiness stays exact without a lock per future: all futures share the lock `fulfilling`. A future without a
condition becomes ready with that lock held, and its condition is made with that lock held. So either the condition
exists, and the change is made under it; or it does not exist, and no listener can have missed the change.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from types import MappingProxyType
from typing import Any

from ...errors import ControllerLost, EngineroomError
from ...ids import TaskId
from ...messages import Output, Published, Started, TaskDone
from ...wire import payload
from ..connection.waiters import fulfilling, is_delivering
from ..waiting.callbacks import run_callbacks
from ..waiting.waits import wait_for_result, wait_until
from .ending import Ending, succeeded
from .port import ResultPort

log = logging.getLogger(__name__)

#: Seconds to wait for what the controller knows of a running task.
CATCH_UP_SECONDS = 5.0

PENDING, FINISHED = "PENDING", "FINISHED"


def wait_for_all(futures: Iterable[Future[Any]], limit: float | None) -> bool:
    """Wait until all futures are done, or `limit` seconds are over. Returns whether all are.

    It waits for one after the other. So futures that are done, or become so meanwhile, need no condition, and no time
    is spent on the rest once the limit is over. (`concurrent.futures.wait` locks every future, twice.)
    """
    deadline = None if limit is None else time.monotonic() + limit
    futures = list(futures)
    try:
        for future in futures:
            if not future.done():
                left = None if deadline is None else deadline - time.monotonic()
                if isinstance(future, TaskFuture):
                    future._wait_until_done(left)
                else:
                    wait_futures([future], left)
                if not future.done():
                    return False
    except KeyboardInterrupt:  # the wait for one of them has been told, the others are waited for, too
        for future in futures:
            if isinstance(future, TaskFuture) and not future.done():
                future._port.interrupted(future._ids)
        raise
    return True


_NONE_YET: Mapping[TaskId, Ending] = MappingProxyType({})


class TaskFuture(Future):  # type: ignore[type-arg]
    """A Future that is ready once each of its tasks has ended.

    There is no `__init__`, and Future's, which makes a lock, is not called: a result costs as little as it can. A
    subclass sets `_ids`, the tasks' ids; `_port`, the client's port; and `_state` to FINISHED, if there are none.
    """

    _ids: Sequence[TaskId]
    _port: ResultPort

    # concurrent.futures reads `_state`. These become instance attributes when they change.
    _state = PENDING
    _cond: threading.Condition | None = None
    #: whether outcomes, and nothing else, make it ready
    _ends_with_outcomes = True
    #: how many of the ids name a task that another one of them names, too
    _doubles = 0
    #: whether this process was forked from the one that waits for the tasks
    _is_forked = False
    #: of tasks that run: what they have printed and published so far
    _live: dict[TaskId, dict[str, Any]] | None = None
    #: of tasks submitted elsewhere: done once the controller has told us what they have printed so far
    _caught_up: Future[Any] | None = None
    #: futures that are told when one of our tasks ends, by task
    _followers: dict[TaskId, list[TaskFuture]] | None = None
    #: called, in any thread, when something about this future has changed
    _listeners: tuple[Callable[[], None], ...] = ()
    #: large buffers of results, by task
    _frames: dict[TaskId, Sequence[Any]] | None = None
    # Shared until the first outcome comes: a future that waits is as few objects as can be.
    _outcomes: Mapping[TaskId, Ending] = _NONE_YET
    #: when the last outcome came, in seconds since the epoch
    _received: float | None = None

    def done(self) -> bool:
        """Whether all outcomes are there."""
        return self._state != PENDING

    def running(self) -> bool:
        """Whether a task is known to have begun (those that end within a moment are never announced)."""
        return not self.done() and self._live is not None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._is_forked and not self.done():
            raise ControllerLost(
                "this result belongs to the parent process, and was not ready when it forked: get it there, or with a "
                "Client() of your own"
            )
        condition = self._cond
        if condition is None:
            with fulfilling:
                condition = self._cond
                if condition is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Callable[[Any], Any]] = []
                    self._news: list[TaskId] = []
                    condition = self._cond = threading.Condition()
        return condition

    def _wait_until_done(self, limit: float | None) -> None:
        if self._state != PENDING:
            return
        if self._ends_with_outcomes:
            wait_for_result(lambda: self._condition, self.done, limit, self._port, self._ids)
        else:
            wait_until(self._condition, self.done, limit, self._port, self._ids)

    def _wait_for(self, id: TaskId) -> None:
        """Wait until one of the tasks has ended."""
        if id not in self._outcomes:
            wait_until(self._condition, lambda: id in self._outcomes, None, self._port, self._ids)

    def _all_there(self) -> bool:
        return len(self._outcomes) + self._doubles >= len(self._ids)

    # ------------------------------------------------------------------------------------------ called by the channel

    def _arrived(self, done: TaskDone, frames: Sequence[Any], now: float) -> bool:
        """Keep an outcome, with `fulfilling` held. True: `_announce` must be called once it is released."""
        if frames or self._cond is not None or self._outcomes is not _NONE_YET:
            self._keep(done.id, done, frames)
        else:  # the hot path
            self._outcomes = {done.id: done}
        self._received = now
        if self._cond is not None:
            return True
        if self._all_there():
            self._state = FINISHED
        return False

    def _announce(self) -> None:
        """Tell the threads that wait, and the followers of tasks that have ended."""
        with self._condition:
            finished = self._state == PENDING and self._all_there()
            if finished:
                self._state = FINISHED
                failed = not all(map(succeeded, self._outcomes.values()))
                for waiter in self._waiters:
                    (waiter.add_exception if failed else waiter.add_result)(self)
            self._condition.notify_all()
            followers = self._followers_to_tell()
        for follower, id in followers:
            follower._take(id, self)
        self._tell_listeners()
        if finished:
            self._invoke_callbacks()

    def _listen(self, listener: Callable[[], None]) -> None:
        """Have a function called, in any thread and quickly, whenever an outcome has come."""
        with self._condition:  # it is made now: so every outcome is announced
            self._listeners = (*self._listeners, listener)

    def _unlisten(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        with self._condition:
            self._listeners = tuple([one for one in self._listeners if one is not listener])

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _invoke_callbacks(self) -> None:
        """Call the callbacks. Not in the thread through which the results come: they may wait for some."""
        if self._done_callbacks and is_delivering():
            run_callbacks(self, self._done_callbacks)
        elif self._done_callbacks:
            super()._invoke_callbacks()  # type: ignore[misc]

    def _failed(self, id: TaskId, error: Exception) -> None:
        """Let an error stand for the outcome of a task: none will come."""
        with self._condition:
            self._keep(id, error)
        self._announce()

    def _heard(self, id: TaskId, news: Output | Started | Published, frames: Sequence[Any]) -> None:
        """Keep what a running task has printed or published."""
        with self._condition:
            if self._live is None:
                self._live = {}
            live = self._live.get(id)
            if live is None:
                live = {"stdout": [], "stderr": [], "data": {}, "started": None, "engine": None}
                self._live = {**self._live, id: live}
            if isinstance(news, Output):
                live[news.stream].append(news.text)
            elif isinstance(news, Started):
                if live["started"] not in (None, news.started):  # another attempt: it prints anew
                    live["stdout"], live["stderr"] = [], []
                live["started"], live["engine"] = news.started, news.engine
            else:
                try:
                    live["data"] = live["data"] | payload.loads(news.payload, frames)
                except Exception as error:  # the task's value may still be good
                    log.warning("what task %s has published cannot be unpickled here: %s", id, error)
            self._condition.notify_all()
            followers = list(self._followers.get(id, ())) if self._followers else []
        for follower in followers:
            follower._share(id, live)

    def _share(self, id: TaskId, live: dict[str, Any]) -> None:
        """Show what another future hears of a running task: both have the same dict."""
        with self._condition:
            if self._live is None or self._live.get(id) is not live:
                self._live = {**(self._live or {}), id: live}
            self._condition.notify_all()

    def _news_of(self, id: TaskId) -> dict[str, Any] | None:
        """What a task has printed and published while it runs; None: nothing that we know of.

        Waits until we know what the controller knows: it has been asked when this future was made.
        """
        if self._caught_up is not None and not self.done():
            with contextlib.suppress(EngineroomError, TimeoutError):
                self._caught_up.result(CATCH_UP_SECONDS)
            self._caught_up = None
        return None if self._live is None else self._live.get(id)

    def _forked(self) -> None:
        """This process was forked from the one that waits: here there will be no outcome."""
        self._is_forked = True

    def _no_more(self) -> None:
        """Submit no further chunks: the tasks are about to be aborted. Only a growing map has chunks left."""

    def _keep(self, id: TaskId, ending: Ending, frames: Sequence[Any] = ()) -> None:
        """Keep an outcome, if there is none."""
        if id in self._outcomes:
            return
        if frames:
            self._frames = {**(self._frames or {}), id: frames}
        if self._outcomes is _NONE_YET:
            self._outcomes = {id: ending}
        else:
            self._outcomes[id] = ending  # type: ignore[index]
        if self._cond is not None:
            self._news.append(id)

    # ------------------------------------------------------------------------------------------ followers

    def _follow(self, id: TaskId, follower: TaskFuture) -> None:
        """Pass the outcome of one of our tasks on to another future, now or when it is there."""
        with self._condition:
            if id not in self._outcomes:
                if self._followers is None:
                    self._followers = {}
                self._followers.setdefault(id, []).append(follower)
                live = self._live.get(id) if self._live else None
            else:
                live = None
        if id in self._outcomes:
            follower._take(id, self)
        elif live is not None:
            follower._share(id, live)

    def _followers_to_tell(self) -> list[tuple[TaskFuture, TaskId]]:
        """Followers of the tasks that have ended since the last call; each is named once."""
        found = []
        while self._news:  # emptied in place: outcomes arrive meanwhile
            id = self._news.pop()
            if self._followers:
                found += [(follower, id) for follower in self._followers.pop(id, ())]
        return found

    def _take(self, id: TaskId, source: TaskFuture) -> None:
        """Take over the outcome of a task from another future."""
        with self._condition:
            self._keep(id, source._outcomes[id], (source._frames or {}).get(id, ()))
            self._received = source._received
        self._announce()
