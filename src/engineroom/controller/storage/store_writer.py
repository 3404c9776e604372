"""The one thread that writes to the store.

The thread takes what has gathered (`pending.py`: how much, and what first) and commits it at once. A task that was
submitted and finished between two commits is written once. After the commit, and only then, the writer hands back the
tokens that came with the entries: they are the acknowledgements that the controller owes. While the store fails nothing
is lost and nothing is acknowledged: the writer keeps what it has and tries again.

The store may also hang: a disk that does not answer (a network file system whose server is gone) keeps the thread in
the kernel, without an error. A watchdog notices. Then no more tasks are taken in (`backpressure.py`), and who waits
for records gets an error.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from ...config import RetentionSettings
from ...errors import StoreError, StoreRefused
from ...ids import ClientId, TaskId
from ...messages import Environment, Function
from ...records.entry import Entry
from ...stores import TaskStore
from ...watchdog.watchdog import HANG_SECONDS, Watchdog, to_log
from . import isolation
from .backlog import Backlog
from .housekeeping import Housekeeping, OnScan
from .pending import FEW, Group, Pending, Scope, buffer_bytes
from .question_lanes import DONE

log = logging.getLogger(__name__)

#: The writer waits this long for more entries: there are fewer commits, a short task is written once instead of twice,
#: and the loop is disturbed less often. Nobody waits urgently for an acknowledgement.
GATHER_SECONDS = 0.02
#: … but not for more entries than this: a batch is written while the next one gathers.
GATHER_MOST = 2000
#: Between attempts while the store fails.
RETRY_SECONDS = 0.5

_STOPPING = "the controller is stopping"
_HANGS = "the task database does not answer: nothing has been written for {:.0f} s. What has ended is kept meanwhile"


class Writer(Protocol):
    """Who writes to the store, as the controller knows it. The simulation has its own."""

    hangs: bool
    unwritten: int

    def put(
        self,
        entries: Sequence[Entry],
        tokens: Sequence[Any] = (),
        functions: Sequence[Function] = (),
        environments: Sequence[tuple[ClientId, Environment]] = (),
    ) -> None:
        """Have these written; the tokens come back once they are. Never blocks."""

    def call(self, function: Callable[[TaskStore], Any]) -> Future[Any]: ...

    def change(self, function: Callable[[TaskStore], Iterator[int]]) -> Future[int]: ...

    def hurry(self) -> None: ...

    def recorded(self, scope: Scope) -> Future[None]: ...

    def refusal(self, size: int = 0) -> StoreError | None: ...

    def scan(self, store: TaskStore, on_scan: OnScan) -> None: ...

    def purged(self) -> None: ...

    def pinned(self) -> None: ...

    def close(self) -> bool: ...


class StoreWriter:
    """A `Writer` with a thread of its own: writes entries in groups.

    `on_commit(tokens)` is called from its thread, and so is `on_refused` with entries that the store cannot hold.
    """

    def __init__(
        self,
        store: TaskStore,
        on_commit: Callable[[list[Any]], None],
        retention: RetentionSettings | None = None,
        on_refused: Callable[[list[tuple[Entry, StoreRefused]]], None] = lambda refused: None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self.store = store
        self.housekeeping = Housekeeping(store, retention or RetentionSettings())
        #: why the store takes nothing at present; None: it does
        self.failure: StoreError | None = None
        #: whether the thread has been in the store for `hang_seconds`, without an error
        self.hangs = False
        #: so many records could not be written before the end
        self.unwritten = 0
        self._on_commit, self._on_refused, self._hang_seconds = on_commit, on_refused, hang_seconds
        self._turns = 0  # how often the thread came back from the store
        self._is_resting = True  # it is not in the store
        self._backlog = Backlog(store.hold_seconds)
        self._condition = threading.Condition()
        self._pending = Pending()
        self._under_way: dict[TaskId, Entry] = {}  # those that are being written
        self._functions: list[Function] = []
        self._environments: list[tuple[ClientId, Environment]] = []
        self._hurried = False  # somebody waits: nothing more gathers
        self._is_behind = False  # the last group did not have all: nothing more gathers, either
        self._idle = True  # waits for work …
        self._gathering = False  # … or for more of it
        self._closing = False
        self._ended = False  # the thread has ended: calls are not answered any more
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(
        self,
        entries: Sequence[Entry],
        tokens: Sequence[Any] = (),
        functions: Sequence[Function] = (),
        environments: Sequence[tuple[ClientId, Environment]] = (),
    ) -> None:
        """Have these written; the tokens come back once they are. Never blocks."""
        with self._condition:
            self._pending.add(entries, tokens)
            self._functions += functions
            self._environments += environments
            if self._idle or (self._gathering and len(self._pending) > GATHER_MOST):
                self._idle = self._gathering = False
                self._condition.notify()

    def call(self, function: Callable[[TaskStore], Any]) -> Future[Any]:
        """Run a function in the writer's thread, after everything put before it is committed.

        Its error is a StoreError if the store takes nothing, or the writer is closed.
        """
        future: Future[Any] = Future()
        with self._condition:
            if self._ended or self.hangs:
                future.set_exception(self._no_answer())
            else:
                self._pending.call((function, future))
                self._hurried = True
                self._condition.notify()
        return future

    def change(self, function: Callable[[TaskStore], Iterator[int]]) -> Future[int]:
        """Make a change that takes long, after everything put before it is committed; commits come in between.

        Each `next` of the iterator makes a part of it, and gives how many records that changed. The future gives how
        many changed in all. Its error is a StoreError if the writer is closed before the change is complete.
        """
        future: Future[int] = Future()

        def tell_failure(begun: Future[Any]) -> None:
            error = begun.exception()
            if error is not None:
                future.set_exception(error)

        begun = self.call(lambda store: self.housekeeping.change(function(store), future))
        begun.add_done_callback(tell_failure)
        return future

    def hurry(self) -> None:
        """Write everything put so far, without waiting for more."""
        self.call(lambda store: None)

    def flush(self) -> None:
        """Wait until everything put so far is committed.

        Raises
        ------
        StoreError
            The store takes nothing at present, or the writer is closed.
        """
        self.call(lambda store: None).result()

    def recorded(self, scope: Scope) -> Future[None]:
        """A future: what is in a scope, of everything put so far, is committed. It may have a StoreError instead."""
        with self._condition:
            if self._ended or self.hangs:
                failed: Future[None] = Future()
                failed.set_exception(self._no_answer())
                return failed
            if scope.tasks and scope.client is None and not self._is_to_be_written(scope.tasks):
                return DONE
            question = self._pending.ask(scope)
            self._hurried = True
            self._condition.notify()
        return question.future

    def _is_to_be_written(self, ids: Collection[TaskId]) -> bool:
        is_under_way = not self._under_way.keys().isdisjoint(ids)
        return is_under_way or self._pending.has(ids) or self._backlog.holds(ids) or self.failure is not None

    def refusal(self, size: int = 0) -> StoreError | None:
        """Why new tasks (with so many bytes of large buffers) cannot be taken; None: they can."""
        return self.failure or self.housekeeping.refusal() or self.housekeeping.refusal(size, self._waiting_bytes)

    def scan(self, store: TaskStore, on_scan: OnScan) -> None:
        """Begin to look for content that no record refers to. For `call`."""
        self.housekeeping.scan(store, on_scan)

    def purged(self) -> None:
        """Records were purged. For functions that are called in the writer's thread."""
        self.housekeeping.shrink()

    def pinned(self) -> None:
        """Pins were changed. For functions that are called in the writer's thread."""
        self.housekeeping.rescan()

    def _waiting_bytes(self) -> int:
        with self._condition:
            entries = [*self._pending.entries, *self._under_way.values()]
        results = (entry.done.payload for entry in entries if entry.done is not None)
        payloads = itertools.chain((entry.spec.payload for entry in entries), results)
        return sum(map(len, payloads)) + buffer_bytes(entries, set())

    def close(self) -> bool:
        """Write what is left (once) and stop. False: the store hangs, so the thread cannot be waited for."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        while self._thread.is_alive() and not self.hangs:
            self._thread.join(0.1)
        if self.hangs:
            self.unwritten = len(self._pending.entries)
            log.error("the task database hangs, so what is not written is lost: %d records", self.unwritten)
        return not self.hangs

    def _no_answer(self) -> StoreError:
        return StoreError(_STOPPING if self._ended else _HANGS.format(self._hang_seconds))

    def _say(self, text: str, is_hanging: bool) -> None:
        """The watchdog has seen that the thread hangs, or that it goes on."""
        to_log(text, is_hanging)
        with self._condition:
            self.hangs = is_hanging
            left = self._pending.drop_futures() if is_hanging else []
        for future in left:
            future.set_exception(self._no_answer())

    def _run(self) -> None:
        with Watchdog(
            "the thread that writes to the task database",
            lambda: 0 if self._is_resting else self._turns,
            self._hang_seconds,
            say=self._say,
        ):
            self._serve()

    def _serve(self) -> None:
        try:
            while True:
                try:
                    self._work()
                    break
                except Exception:
                    log.exception("a bug: the store writer failed; it goes on")
                    time.sleep(RETRY_SECONDS)
        finally:
            with self._condition:
                self._ended = True
                left = self._pending.drop_futures()
            for future in left:
                future.set_exception(StoreError(_STOPPING))
            self.housekeeping.stop(StoreError(f"{_STOPPING}; a part of the change was made"))

    @property
    def _has_work(self) -> bool:
        return bool(self._pending or self._functions or self._environments)

    def _work(self) -> None:
        while True:
            with self._condition:
                while not (self._has_work or self._closing):
                    self._idle = True
                    pauses = (self.housekeeping.until_due(), self._backlog.due_in(time.monotonic()))
                    pause = min((seconds for seconds in pauses if seconds is not None), default=None)
                    if pause == 0.0 or (not self._condition.wait(pause) and pause is not None):
                        break
                self._idle = False
                is_urgent = self._hurried or self._is_behind or self._closing or len(self._pending) > GATHER_MOST
                if self._pending and not is_urgent:
                    self._gathering = True
                    self._condition.wait(GATHER_SECONDS)
                    self._gathering = False
                group, self._hurried = self._pending.take(), False
                self._is_behind = not group.is_all
                is_little = group.is_all and len(self._backlog) < FEW
                all = self._closing or bool(group.calls) or (bool(group.questions) and is_little)
                now = time.monotonic()
                scopes = [question.scope for question in group.questions]
                self._under_way = self._backlog.take(
                    group.entries, group.tokens, now, all=all, scopes=scopes, newest=self._pending.pop
                )
                functions, self._functions = self._functions, []
                environments, self._environments = self._environments, []
                closing = self._closing
            with self._in_store():
                is_written = self._commit(group, functions, environments)
            if not is_written:
                with self._condition:
                    if self._closing:
                        self.unwritten = len(self._pending.entries)
                        log.error("%d records could not be written before the end", self.unwritten)
                        return
                    self._condition.wait(RETRY_SECONDS)
                continue
            if closing and not self._pending:
                return
            if self.housekeeping.until_due() == 0.0:
                with self._in_store():
                    self.housekeeping.turn(busy=bool(group.entries))

    @contextlib.contextmanager
    def _in_store(self) -> Iterator[None]:
        """The thread is in the store: it should come back soon."""
        self._turns += 1
        self._is_resting = False
        try:
            yield
        finally:
            self._is_resting = True

    def _commit(
        self,
        group: Group,
        functions: list[Function],
        environments: list[tuple[ClientId, Environment]],
    ) -> bool:
        """Write what is due, and tell those who wait for it. False: the store took nothing, and all of it is kept."""
        done = self._write(self._under_way, functions, environments)
        futures = [question.future for question in group.questions]
        if not done:
            error = self.failure or StoreError(_STOPPING)
            entries, tokens = self._backlog.failed()
            with self._condition:  # keep all of it for the next attempt
                self._pending.give_back(entries, tokens)
                self._functions = functions + self._functions
                self._environments = environments + self._environments
                self._under_way = {}
                futures += self._pending.drop_futures()
            for future in (*futures, *(future for _, future in group.calls)):
                future.set_exception(error)
            return False
        self._under_way = {}
        try:
            if free := self._backlog.written():
                self._on_commit(free)
        finally:
            for waiting in futures:
                waiting.set_result(None)
            for function, future in group.calls:
                try:
                    future.set_result(function(self.store))
                except Exception as error:
                    future.set_exception(error)
        return True

    def _write(
        self,
        entries: Mapping[TaskId, Entry],
        functions: list[Function],
        environments: list[tuple[ClientId, Environment]],
    ) -> bool:
        try:
            if functions:
                isolation.each(self.store.add_functions, functions)
            if environments:
                isolation.each(self.store.add_environments, environments)
            if entries:
                refused = isolation.write(self.store, list(entries.values()))
                if refused:
                    self._on_refused(refused)
        except Exception as caught:
            error = caught if isinstance(caught, StoreError) else StoreError(f"{type(caught).__name__}: {caught}")
            if self.failure is None and error is not caught:
                log.error("a bug: the store failed with an error that is none of its own", exc_info=caught)
            if self.failure is None:
                log.error("the store takes nothing: %s; new tasks are refused until it does", error)
            self.failure = error
            return False
        if self.failure is not None:
            log.warning("the store works again")
            self.failure = None
        return True
