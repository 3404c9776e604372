"""Reads from the store, in threads: nothing else in the controller does, so that a slow store delays no scheduling.

A read says what must be recorded before it (`after`). What it found is handed back to the loop.

What the controller itself looks up has threads of its own: no question of a client keeps it waiting. Each client has
one question under way at a time; its others wait behind it, and those of other clients do not. When a client
leaves, its questions end.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ...errors import StoreDamaged, StoreError
from ...ids import ClientId, Digest, TaskId
from ...messages import Function
from ...records.entry import Entry
from ...stores import TaskStore
from ...stores.query.deadline import Asker, asked_by
from .pending import Scope

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Questions of clients that run at the same time, and look-ups of the controller.
QUESTION_THREADS = 4
LOOKUP_THREADS = 2


class Reader(Protocol):
    """What the controller needs to read from the store."""

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        after: Scope | None,
        client: ClientId | None = None,
    ) -> None:
        """Call `work` with the store in a thread, then `then` with its result in the loop.

        If reading fails, or `then` raises, `failed` is called in the loop with the error. `after`: wait until what
        happened before is committed, as far as it is in this scope; None: do not wait. `client`: who asks; None: the
        controller itself.
        """

    def client_left(self, client: ClientId) -> None:
        """Nobody waits for the answers to this client's questions any more."""

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        """Call `work` with the store, and wait for its result. Only for the start of the controller."""

    def close(self) -> None:
        """Let reads that have begun end. Reads that have not begun are dropped."""


class StoreReader:
    """A `Reader` with threads of its own.

    `record` hands what the loop has gathered to the writer, `flush` waits until the writer has committed what is in a
    scope, `post` has the loop call a function.
    """

    def __init__(
        self,
        store: TaskStore,
        record: Callable[[], None],
        flush: Callable[[Scope], None],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._store, self._record, self._flush, self._post = store, record, flush, post
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
        self._questions = _Questions()

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        after: Scope | None,
        client: ClientId | None = None,
    ) -> None:
        if after is not None:
            self._record()

        def run() -> None:
            try:
                if after is not None and self._store.keeps:
                    self._flush(after)
                found = work(self._store)
            except Exception as error:
                self._post(_bound(failed, error))
            else:
                self._post(lambda: hand_over(found, then, failed))

        if client is None:
            self._lookups.submit(run)
        else:
            self._questions.add(client, run)

    def client_left(self, client: ClientId) -> None:
        self._questions.drop(client)

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        return self._lookups.submit(work, self._store).result()

    def close(self) -> None:
        self._questions.close()
        self._lookups.shutdown(wait=True, cancel_futures=True)


class _Questions:
    """Runs the questions of clients: of each client one at a time, in their order."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(QUESTION_THREADS, thread_name_prefix="question")
        self._lock = threading.Lock()
        #: client → its questions that wait behind the one that was handed to the threads
        self._waiting: dict[ClientId, deque[Callable[[], None]]] = {}
        #: the same clients, as askers
        self._askers: dict[ClientId, Asker] = {}

    def add(self, client: ClientId, run: Callable[[], None]) -> None:
        """Run a question, once those that this client asked before are answered."""
        with self._lock:
            if client in self._waiting:
                self._waiting[client].append(run)
                return
            self._waiting[client] = deque()
            asker = self._askers[client] = Asker()
        self._threads.submit(self._run, client, asker, run)

    def _run(self, client: ClientId, asker: Asker, run: Callable[[], None]) -> None:
        try:
            if not asker.has_left:
                with asked_by(asker):
                    run()
        finally:
            with self._lock:
                waiting = self._waiting.get(client)
                if self._askers.get(client) is asker and waiting is not None:
                    if waiting:
                        with contextlib.suppress(RuntimeError):  # the controller is closing
                            self._threads.submit(self._run, client, asker, waiting.popleft())
                    else:
                        del self._waiting[client], self._askers[client]

    def drop(self, client: ClientId) -> None:
        """Forget the questions of a client, and end the one that runs."""
        with self._lock:
            self._waiting.pop(client, None)
            asker = self._askers.pop(client, None)
            if asker is not None:
                asker.has_left = True

    def close(self) -> None:
        """End what runs, and forget the rest."""
        with self._lock:
            for asker in self._askers.values():
                asker.has_left = True
        self._threads.shutdown(wait=True, cancel_futures=True)


def hand_over(found: T, then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
    """Call `then` with what was found; if it raises, call `failed`."""
    try:
        then(found)
    except Exception as error:
        log.exception("a bug: what was read from the store could not be used")
        failed(error)


def _bound(failed: Callable[[Exception], None], error: Exception) -> Callable[[], None]:
    # The name of an exception is unbound where its handler ends.
    return lambda: failed(error)


def readable_entries(store: TaskStore, ids: Sequence[TaskId]) -> tuple[dict[TaskId, Entry], dict[TaskId, str]]:
    """What the store knows of these tasks; and for each record that is damaged, what is wrong with it."""
    try:
        return store.entries(ids), {}
    except StoreDamaged:
        found: dict[TaskId, Entry] = {}
        damaged: dict[TaskId, str] = {}
        for id in ids:
            try:
                found |= store.entries([id])
            except StoreDamaged as error:
                damaged[id] = str(error)
        return found, damaged


def readable_functions(store: TaskStore, digests: Iterable[Digest]) -> tuple[list[Function], dict[Digest, str]]:
    """The functions of these digests; and for each that cannot be read, why."""
    found: list[Function] = []
    missing: dict[Digest, str] = {}
    for digest in digests:
        try:
            found.append(store.get_function(digest))
        except KeyError:
            missing[digest] = "it is not in the database (any more)"
        except StoreError as error:
            missing[digest] = str(error)
    return found, missing


def ok_value(entry: Entry | None) -> tuple[bytes, Sequence[Any]] | None:
    """The result in an entry: (payload, frames); None: the task has not succeeded, or its result is not kept."""
    if entry is None or entry.done is None or entry.done.status != "ok" or entry.is_light:
        return None
    return entry.done.payload, entry.result_frames
