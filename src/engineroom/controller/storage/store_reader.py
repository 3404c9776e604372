"""Reads from the store, in threads: nothing else in the controller does, so that a slow store delays no scheduling.

A read says what must be recorded before it (`after`). What it found is handed back to the loop. What the controller
itself looks up has threads of its own: no question of a client keeps it waiting. `question_lanes.py` has the questions.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from ...errors import StoreDamaged, StoreError
from ...ids import ClientId, Digest, TaskId, digest_of
from ...messages import Function
from ...records.entry import Entry
from ...stores import TaskStore
from ...stores.query.deadline import Asker
from ...watchdog.watchdog import HANG_SECONDS
from .pending import Scope
from .question_lanes import DONE, Question, Questions, guarded
from .reading_threads import ReadingThreads

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Look-ups of the controller that run at the same time.
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
        slow: bool = False,
    ) -> Callable[[], None]:
        """Call `work` with the store in a thread, then `then` with its result in the loop.

        If reading fails, or `then` raises, `failed` is called in the loop with the error. `after`: wait until what
        happened before is committed, as far as it is in this scope; None: do not wait. `client`: who asks; None: the
        controller itself. `slow`: the work is likely to take long.

        Returns what to call if nobody waits for the result any more: then a question of a client ends with an error.
        """

    def client_left(self, client: ClientId) -> None:
        """Nobody waits for the answers to this client's questions any more."""

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        """Call `work` with the store, and wait for its result. Only for the start of the controller."""

    def close(self) -> bool:
        """Let reads that have begun end. Reads that have not begun are dropped. False: one hangs, and is left alone."""


class StoreReader:
    """A `Reader` with threads of its own.

    `record` hands what the loop has gathered to the writer, `recorded` gives a future that is done once the writer has
    committed what is in a scope, `post` has the loop call a function.
    """

    def __init__(
        self,
        store: TaskStore,
        record: Callable[[], None],
        recorded: Callable[[Scope], Future[None]],
        post: Callable[[Callable[[], None]], None],
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self._store, self._record, self._recorded, self._post = store, record, recorded, post
        self._lookups = ReadingThreads(LOOKUP_THREADS, "lookup", hang_seconds)
        self._questions = Questions(hang_seconds)

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        after: Scope | None,
        client: ClientId | None = None,
        slow: bool = False,
    ) -> Callable[[], None]:
        if after is not None:
            self._record()
        store = self._store

        def begin() -> Future[None]:
            """What must be recorded before."""
            return self._recorded(after) if after is not None and store.keeps else DONE

        once = _Once()

        def run() -> None:
            found = work(store)
            self._post(lambda: once.call(lambda: hand_over(found, then, failed)))

        def fail(error: Exception) -> None:
            self._post(lambda: once.call(lambda: failed(error)))

        if client is not None:
            question = Question(begin, run, fail, slow)
            self._questions.add(client, question)
            return lambda: self._questions.withdraw(client, question)

        def look() -> None:
            with self._lookups.reading(Asker()):  # what waits for it goes on when the database answers
                guarded(run, fail)

        def look_up(recorded: Future[None]) -> None:
            error = recorded.exception()
            if isinstance(error, Exception):
                fail(error)
                return
            with contextlib.suppress(RuntimeError):  # the controller is closing
                self._lookups.submit(look)

        begin().add_done_callback(look_up)
        return lambda: None

    def client_left(self, client: ClientId) -> None:
        self._questions.drop(client)

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        def look() -> T:
            with self._lookups.reading(Asker()):
                return work(self._store)

        return self._lookups.submit(look).result()

    def close(self) -> bool:
        are_questions_closed, are_lookups_closed = self._questions.close(), self._lookups.close()
        return are_questions_closed and are_lookups_closed


class _Once:
    """Answers a question once: a reading that was given up may come back later. For the loop."""

    def __init__(self) -> None:
        self._is_answered = False

    def call(self, answer: Callable[[], None]) -> None:
        if not self._is_answered:
            self._is_answered = True
            answer()


def hand_over(found: T, then: Callable[[T], None], failed: Callable[[Exception], None]) -> None:
    """Call `then` with what was found; if it raises, call `failed`."""
    try:
        then(found)
    except Exception as error:
        log.exception("a bug: what was read from the store could not be used")
        failed(error)


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
            function = store.get_function(digest)
            if digest_of(function.payload) == digest:
                found.append(function)
            else:
                missing[digest] = "it is damaged in the database"
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
