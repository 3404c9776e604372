"""What cannot be read of a database. Unreadable records are left out of answers, and named in the log once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from ..errors import QueryError, StoreDamaged, StoreError
from ..ids import Digest
from ..messages import Function
from ..printable import one_line

T = TypeVar("T")
V = TypeVar("V")

log = logging.getLogger(__name__)

#: Errors of the database or the question, not of a record.
NOT_OF_RECORD = (StoreError, QueryError, MemoryError)

#: Unreadable records that are named in the log.
MOST_NAMED = 1000


def make_or_name(made: Callable[[], V], id: object) -> V:
    """What is made of a record; StoreDamaged names the record if nothing can be made of it."""
    try:
        return made()
    except NOT_OF_RECORD:
        raise
    except Exception as error:
        text = one_line(f"the record of task {id!s:.200} cannot be read: {type(error).__name__}: {error}")
        raise StoreDamaged(f"{text:.1000}; others can, unless `engineroom db verify` says so") from error


def function_of(digest: Digest, payload: object, name: object, source: object) -> Function:
    """A function, of what a database has; StoreDamaged if nothing can be made of it. Only readers need its texts."""
    code = bytes_of(payload, f"function {digest.hex()}")
    return Function(digest, code, name if isinstance(name, str) else None, source if isinstance(source, str) else "")


def environment_of(digest: str, content: bytes) -> dict[str, Any]:
    """An environment, of the bytes that a client has sent; StoreDamaged if nothing can be made of them."""
    try:
        return msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreDamaged(f"environment {digest!r:.100} cannot be read: {error!s:.300}") from None


def bytes_of(value: object, what: str) -> bytes:
    """A value that must be bytes; StoreDamaged if it is not."""
    if not isinstance(value, bytes):
        raise StoreDamaged(f"{what} cannot be read: the database has a {type(value).__name__} in its place")
    return value


class Unreadable:
    """Which records could not be read."""

    def __init__(self) -> None:
        self._named: set[object] = set()

    def name(self, key: object, find_id: Callable[[], object], error: Exception) -> None:
        """Name a record in the log, unless it has been. `key` is what the store knows it by."""
        if key not in self._named and len(self._named) < MOST_NAMED:
            self._named.add(key)
            log.error("the record of task %.200r cannot be read, and is left out of answers: %.1000s", find_id(), error)

    def each(self, found: Iterable[T], id_of: Callable[[T], object], make: Callable[[T], V]) -> Iterator[tuple[T, V]]:
        """What was found with what is made of it, without the records of which it cannot be made."""
        for one in found:
            try:
                made = make(one)
            except NOT_OF_RECORD:
                raise
            except Exception as error:
                id = id_of(one)
                self.name(id, lambda id=id: id, error)  # type: ignore[misc]
            else:
                yield one, made
