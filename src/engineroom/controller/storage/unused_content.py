"""Drops functions and environments once no record refers to them any more.

After records were dropped, a scan in the writer's thread compares what the store has with what its records refer to
(`housekeeping.py`). The loop decides: a function that was used since the scan began may belong to a task that is not
recorded yet, so it stays. Clients are asked to send a dropped function again.

    loop                                       writer's thread
    sweep: records were dropped ─────────────▶ scan, after everything before is written
    found: forget what was not used since ◀─── some content that no record refers to
    ────────────────────────────────────────▶ drop what was not sent again meanwhile
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from ...ids import ClientId, Digest
from ...stores import TaskStore
from ...stores.base import References
from .housekeeping import OnScan

log = logging.getLogger(__name__)

#: After a scan there is none for this many times as long as it took.
REST = 100.0


class Library(Protocol):
    """The functions in memory."""

    def __contains__(self, digest: Digest) -> bool: ...

    def forget_unused(self, digests: frozenset[Digest], since: float) -> set[Digest]: ...


class UnusedContent:
    """Decides what is dropped.

    Parameters
    ----------
    store : TaskStore
        Only its count of dropped records is read here.
    in_writer : callable
        Calls a function with the store in the writer's thread, once everything before is recorded.
    scan : callable
        Begins a scan; to be called in the writer's thread.
    freed : callable
        Has the space given back that was freed; to be called in the writer's thread.
    post : callable
        Has the loop call a function.
    environment_of : mapping
        The environments of clients that are here, or may have tasks: they tell them once, so these stay.
    interval : float
        Seconds between two scans, at least.
    """

    def __init__(
        self,
        store: TaskStore,
        library: Library,
        in_writer: Callable[[Callable[[TaskStore], Any]], Future[Any]],
        scan: Callable[[TaskStore, OnScan], None],
        freed: Callable[[], None],
        post: Callable[[Callable[[], None]], None],
        environment_of: Mapping[ClientId, str],
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._library, self._in_writer, self._scan, self._freed = store, library, in_writer, scan, freed
        self._post, self._environment_of, self._interval, self._clock = post, environment_of, interval, clock
        self._dropped = -1  # an earlier life may have ended between a purge and its scan
        #: when the scan under way began
        self._began: float | None = None
        #: the environments of clients at that moment: some may have gone since, and their records came after the scan
        self._were_here: Mapping[ClientId, str] = {}
        self._rest_until = clock() + interval

    def sweep(self, now: float) -> None:
        """Begin a scan if records were dropped since the last one."""
        if self._began is not None or now < self._rest_until or self._store.dropped == self._dropped:
            return
        self._began, self._dropped, self._were_here = now, self._store.dropped, dict(self._environment_of)
        begun = self._in_writer(lambda store: self._scan(store, self._told))
        begun.add_done_callback(lambda done: self._told(None) if done.exception() is not None else None)

    def _told(self, found: References | float | None) -> None:
        """In the writer's thread: the scan has found something, or is over."""
        self._post(lambda: self._drop(found) if isinstance(found, References) else self._end(found))

    def _end(self, seconds: float | None) -> None:
        if seconds is None:  # the store failed
            self._dropped = -1
        self._began, self._rest_until = None, self._clock() + max(self._interval, REST * (seconds or 0.0))

    def _drop(self, unused: References) -> None:
        began = self._began if self._began is not None else self._clock()
        functions, were_here = self._library.forget_unused(unused.functions, began), self._were_here

        def drop(store: TaskStore) -> int:
            here = {**were_here, **self._environment_of}
            dropped = store.drop_references(
                References(
                    frozenset(digest for digest in functions if digest not in self._library),
                    unused.clients.difference(here),
                    unused.environments.difference(here.values()),
                    unused.engines,
                )
            )
            self._freed()
            return dropped

        self._in_writer(drop).add_done_callback(_tell)


def _tell(dropped: Future[int]) -> None:
    if dropped.exception() is not None:
        log.warning("functions that no record refers to could not be dropped: %s", dropped.exception())
    elif dropped.result():
        log.info("%d functions dropped that no record refers to", dropped.result())
