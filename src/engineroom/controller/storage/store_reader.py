"""Reads from the store, in threads: nothing else in the controller does, so that a slow store delays no scheduling.

A read sees everything that was recorded before it. What it found is handed back to the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ...errors import StoreDamaged, StoreError
from ...ids import Digest, TaskId
from ...messages import Function
from ...records.entry import Entry
from ...stores import TaskStore

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Queries that run at the same time.
THREADS = 2


class Reader(Protocol):
    """What the controller needs to read from the store."""

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        recorded: bool = True,
    ) -> None:
        """Call `work` with the store in a thread, then `then` with its result in the loop.

        If reading fails, or `then` raises, `failed` is called in the loop with the error. `recorded`: wait until
        everything that happened before is committed.
        """

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        """Call `work` with the store, and wait for its result. Only for the start of the controller."""

    def close(self) -> None:
        """Let reads that have begun end. Reads that have not begun are dropped."""


class StoreReader:
    """A `Reader` with threads of its own.

    `record` hands what the loop has gathered to the writer, `flush` waits until the writer has committed it, `post`
    has the loop call a function.
    """

    def __init__(
        self,
        store: TaskStore,
        record: Callable[[], None],
        flush: Callable[[], None],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._store, self._record, self._flush, self._post = store, record, flush, post
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="query")

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        recorded: bool = True,
    ) -> None:
        if recorded:
            self._record()

        def run() -> None:
            try:
                if recorded and self._store.keeps:
                    self._flush()
                found = work(self._store)
            except Exception as error:
                self._post(_bound(failed, error))
            else:
                self._post(lambda: hand_over(found, then, failed))

        self._threads.submit(run)

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        return self._threads.submit(work, self._store).result()

    def close(self) -> None:
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
