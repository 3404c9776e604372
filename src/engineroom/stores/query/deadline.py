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
    """Whoever waits for the answer of a query. It has some time for its query, which may change while that runs.

    A query of an asker that has left ends at once.
    """

    def __init__(self) -> None:
        self.has_left = False
        #: monotonic seconds
        self.until = math.inf
        #: processor time of the thread that asks, in seconds
        self.until_thread_time = math.inf
        #: until then a server may take its time for the answer (monotonic seconds)
        self.elsewhere_until = 0.0

    def left(self) -> float:
        """Seconds left. To be called in the thread that asks."""
        left = self.left_elsewhere()
        if self.until_thread_time < math.inf:
            left = min(left, self.until_thread_time - time.thread_time())
        return left

    def left_elsewhere(self) -> float:
        """Seconds left for a server that answers: the processor time of our thread does not count."""
        return -math.inf if self.has_left else self.until - time.monotonic()


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
    """The moment by which a query must be answered; it has passed, too, once its asker has no time left."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds
        self._asker: Asker | None = getattr(_thread, "asker", None)

    def left(self) -> float:
        """Seconds left; negative when the moment has passed."""
        left = self._at - time.monotonic()
        return left if self._asker is None else min(left, self._asker.left())

    def left_elsewhere(self) -> float:
        """Seconds that a server may take for the answer; negative when the moment has passed."""
        left = self._at - time.monotonic()
        if self._asker is not None:
            left = min(left, self._asker.left_elsewhere())
            self._asker.elsewhere_until = time.monotonic() + left
        return left

    def passed(self, why: str = "") -> QueryError:
        """The error to raise."""
        if self._asker is not None and self._asker.has_left:
            return QueryError("the query was given up: the client that asked has left")
        hint = why or "name an indexed key (msg_id, submitted, engine_id, state, label), or a limit"
        if self._asker is not None and self._asker.left() < 0 <= self._at - time.monotonic():
            return QueryError(f"the query was given up, because others wait for slow queries: {hint}")
        return QueryError(f"the query was given up after {self.seconds:g} s: {hint}")

    def watch(self, items: Iterable[_T]) -> Iterator[_T]:
        """The items, until the time is up: then the error."""
        for number, item in enumerate(items):
            if not number & 255 and self.left() < 0:
                raise self.passed()
            yield item
