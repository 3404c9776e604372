"""How long a query may take, and whether anybody still wants its answer."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ...errors import QueryError

_T = TypeVar("_T")


class Asker:
    """Whoever waits for the answer of a query. A query of an asker that has left ends at once."""

    def __init__(self) -> None:
        self.has_left = False


_thread = threading.local()


@contextlib.contextmanager
def asked_by(asker: Asker) -> Iterator[None]:
    """Queries that begin within, in this thread, are this asker's."""
    _thread.asker = asker
    try:
        yield
    finally:
        _thread.asker = None


class Deadline:
    """The moment by which a query must be answered; it has passed, too, once the asker has left."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds
        self._asker: Asker | None = getattr(_thread, "asker", None)

    def left(self) -> float:
        """Seconds left; negative when the moment has passed."""
        if self._asker is not None and self._asker.has_left:
            return -math.inf
        return self._at - time.monotonic()

    def passed(self, why: str = "") -> QueryError:
        """The error to raise."""
        if self._asker is not None and self._asker.has_left:
            return QueryError("the query was given up: the client that asked has left")
        hint = why or "name an indexed key (msg_id, submitted, engine_id, state, label), or a limit"
        return QueryError(f"the query was given up after {self.seconds:g} s: {hint}")

    def watch(self, items: Iterable[_T]) -> Iterator[_T]:
        """The items, until the time is up: then the error."""
        for number, item in enumerate(items):
            if not number & 255 and self.left() < 0:
                raise self.passed()
            yield item
