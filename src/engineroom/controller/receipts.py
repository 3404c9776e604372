"""Receipts for results: an engine keeps its results until it is told that they are recorded (`Stored`)."""

from __future__ import annotations

from ..core import Scheduler
from ..ids import EngineUuid
from .outbox import Outbox


class Receipts:
    """What engines are to be told. After a restart, results may be of tasks that their clients have not said again.

    There is nothing to record of these yet. So their engine is told nothing, also not of later ones, as a number
    speaks for all before it.
    """

    def __init__(self, scheduler: Scheduler, outbox: Outbox) -> None:
        self._scheduler, self._outbox = scheduler, outbox
        #: engine → the number of its latest message that waits; how many results wait, and their bytes
        self._waiting: dict[EngineUuid, tuple[int, int, int]] = {}

    def owe(self, engine: EngineUuid, number: int, count: int, weight: int) -> None:
        """Give a receipt for a message with so many results once they are recorded. `weight`: its bytes."""
        if self._scheduler.has_unclaimed_of(engine):
            _, others, bytes = self._waiting.get(engine, (0, 0, 0))
            self._waiting[engine] = number, others + count, bytes + weight
        else:
            self._outbox.owe("stored", engine, number, count, weight)

    def settle(self) -> None:
        """Give those that need not wait any more."""
        for engine in [each for each in self._waiting if not self._scheduler.has_unclaimed_of(each)]:
            self._outbox.owe("stored", engine, *self._waiting.pop(engine))
