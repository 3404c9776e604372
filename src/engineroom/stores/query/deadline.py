"""How long a query may take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ...errors import QueryError

_T = TypeVar("_T")


class Deadline:
    """The moment by which a query must be answered."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; negative when the moment has passed."""
        return self._at - time.monotonic()

    def passed(self, why: str = "") -> QueryError:
        """The error to raise."""
        hint = why or "name an indexed key (msg_id, submitted, engine_id, state, label), or a limit"
        return QueryError(f"the query was given up after {self.seconds:g} s: {hint}")

    def watch(self, items: Iterable[_T]) -> Iterator[_T]:
        """The items, until the time is up: then the error."""
        for number, item in enumerate(items):
            if not number & 255 and time.monotonic() > self._at:
                raise self.passed()
            yield item
