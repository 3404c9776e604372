"""Records that cannot be read: each is left out of answers, and named in the log once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import QueryError, StoreError

T = TypeVar("T")
V = TypeVar("V")

log = logging.getLogger(__name__)

#: Unreadable records that are named in the log.
MOST_NAMED = 1000


class Unreadable:
    """Which records could not be read."""

    def __init__(self) -> None:
        self._named: set[object] = set()

    def name(self, key: object, find_id: Callable[[], object], error: Exception) -> None:
        """Name a record in the log, unless it has been. `key` is what the store knows it by."""
        if key not in self._named and len(self._named) < MOST_NAMED:
            self._named.add(key)
            log.error("the record of task %r cannot be read, and is left out of answers: %s", find_id(), error)

    def each(self, found: Iterable[T], id_of: Callable[[T], object], make: Callable[[T], V]) -> Iterator[tuple[T, V]]:
        """What was found with what is made of it, without the records of which it cannot be made."""
        for one in found:
            try:
                made = make(one)
            except (StoreError, QueryError, MemoryError):  # of the database or the question, not of this record
                raise
            except Exception as error:
                id = id_of(one)
                self.name(id, lambda id=id: id, error)  # type: ignore[misc]
            else:
                yield one, made
