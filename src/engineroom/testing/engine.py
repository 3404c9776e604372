"""An engine that only pretends: it holds tasks, takes virtual time over them, and keeps its results until stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from ..ids import EngineId, EngineUuid, TaskId
from ..messages import AttemptKey, ErrorInfo, TaskDone
from ..messages.bounds import Status


class FakeEngine:
    """What an engine process knows; whoever drives it tells it when things happen.

    One task at a time: `begin` takes the next, `finish` ends it. `held` is what its Hello would say.
    """

    def __init__(self, id: EngineId, uuid: EngineUuid) -> None:
        self.id, self.uuid = id, uuid
        self.queue: deque[AttemptKey] = deque()
        self.running: AttemptKey | None = None
        self.leaving = False
        #: results that have not been acknowledged, by number
        self.unstored: dict[int, list[TaskDone]] = {}
        self.number = 0
        self.begun = 0

    def receive(self, tasks: Iterable[AttemptKey]) -> None:
        """Take in tasks, in order."""
        self.queue.extend(tasks)

    def give_back(self, ids: Collection[TaskId] | None = None) -> list[AttemptKey]:
        """Those of these (None: of all) that have not started."""
        back = [held for held in self.queue if ids is None or held.id in ids]
        self.queue = deque(held for held in self.queue if ids is not None and held.id not in ids)
        return back

    def begin(self) -> AttemptKey | None:
        """Start the next task; None if there is none, or one is running already."""
        if self.running is not None or not self.queue or self.leaving:
            return None
        self.running = self.queue.popleft()
        self.begun += 1
        return self.running

    def finish(self, started: float, now: float, status: Status = "ok", error: ErrorInfo | None = None) -> TaskDone:
        """End the running task."""
        assert self.running is not None
        held, self.running = self.running, None
        return TaskDone(held.id, held.attempt, status, started, now, engine=self.id, error=error)

    def hand_in(self, results: list[TaskDone]) -> int:
        """Keep results until they are stored; returns their number."""
        self.number += 1
        self.unstored[self.number] = results
        return self.number

    def stored(self, number: int) -> None:
        """Forget the results of this number and all before."""
        for old in [n for n in self.unstored if n <= number]:
            del self.unstored[old]

    @property
    def last_stored(self) -> int:
        """The number of the last results that are stored."""
        return min(self.unstored, default=self.number + 1) - 1

    @property
    def held(self) -> list[AttemptKey]:
        """Everything in hand: running, queued, and done but not known to be stored."""
        running = [self.running] if self.running is not None else []
        return [*running, *self.queue, *(AttemptKey(d.id, d.attempt) for done in self.unstored.values() for d in done)]
