"""Engines inside the core: what each holds, and an index of who has least to do."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Iterator

from ..ids import EngineId, EngineUuid, NannyId, TaskId
from ..messages import TaskDone
from .tasks import Task

#: With an adaptive hwm an engine holds about this many seconds of work ahead.
PREFETCH_SECONDS = 0.02
#: … but never more tasks than this, nor fewer than the one it runs and one more.
PREFETCH_MOST = 2048
PREFETCH_LEAST = 2


class Engine:
    """An engine and the tasks it holds.

    `held` keeps the order in which tasks were given: the engine runs them in that order.
    """

    __slots__ = (
        "backlog",
        "completed",
        "fixed_hwm",
        "held",
        "host",
        "hwm",
        "id",
        "last_heard",
        "mean",
        "nanny",
        "pid",
        "recalled",
        "stopping",
        "uuid",
    )

    def __init__(
        self, id: EngineId, uuid: EngineUuid, host: str, pid: int, nanny: NannyId, hwm: int | None, now: float
    ) -> None:
        self.id, self.uuid, self.host, self.pid, self.nanny = id, uuid, host, pid, nanny
        self.held: dict[TaskId, Task] = {}
        #: direct tasks it has no room for yet
        self.backlog: deque[Task] = deque()
        self.fixed_hwm = hwm
        self.hwm: float = PREFETCH_LEAST if hwm is None else hwm or float("inf")
        #: smoothed run time in seconds; None: not yet known
        self.mean: float | None = None
        self.completed = 0
        #: tasks it has been asked to give back
        self.recalled: set[TaskId] = set()
        self.stopping = False
        self.last_heard = now

    @property
    def load(self) -> int:
        return len(self.held) + len(self.backlog)

    @property
    def has_room(self) -> bool:
        return len(self.held) < self.hwm and not self.stopping

    @property
    def room(self) -> int:
        """How many more tasks it takes."""
        return sys.maxsize if self.hwm == float("inf") else max(0, int(self.hwm) - len(self.held))

    def learn(self, results: list[TaskDone]) -> None:
        """Follow the run times: hold many short tasks ahead, few long ones."""
        spent, count = 0.0, 0
        for done in results:
            if done.started is not None:
                spent += done.completed - done.started
                count += 1
        if not count:
            return
        mean = spent / count
        weight = min(0.5, count / 16) if self.mean is not None else 1.0
        self.mean = mean * weight + (self.mean or 0.0) * (1 - weight)
        if self.fixed_hwm is None:
            self.hwm = max(PREFETCH_LEAST, min(PREFETCH_MOST, int(PREFETCH_SECONDS / max(self.mean, 1e-7))))

    def __repr__(self) -> str:
        return f"<Engine {self.id} holds {len(self.held)}>"


class LoadIndex:
    """Engines with room, by load; among equals the one used longest ago comes first. All in O(1)."""

    def __init__(self) -> None:
        # Dicts keep insertion order, so equal engines are served in turn.
        self._levels: dict[int, dict[EngineId, Engine]] = {}
        self._level_of: dict[EngineId, int] = {}
        self._lowest = 0

    def update(self, engine: Engine) -> None:
        """Put the engine where its load says, behind its equals; or out, if it has no room."""
        self.remove(engine)
        if engine.has_room:
            level = engine.load
            self._levels.setdefault(level, {})[engine.id] = engine
            self._level_of[engine.id] = level
            self._lowest = min(self._lowest, level)

    def remove(self, engine: Engine) -> None:
        """Take the engine out, if it is in."""
        level = self._level_of.pop(engine.id, None)
        if level is not None:
            members = self._levels[level]
            del members[engine.id]
            if not members:
                del self._levels[level]

    def least(self) -> Engine | None:
        """The engine with least to do; None if none has room."""
        levels = self._levels
        if not levels:
            return None
        members = levels.get(self._lowest)
        if members is None:  # the lowest level has emptied: find the next
            self._lowest = min(levels)
            members = levels[self._lowest]
        return next(iter(members.values()))

    def idle(self) -> Collection[Engine]:
        """The engines with nothing to do."""
        return self._levels.get(0, {}).values()

    def __len__(self) -> int:
        return len(self._level_of)

    def __iter__(self) -> Iterator[Engine]:
        for level in sorted(self._levels):
            yield from self._levels[level].values()

    def __contains__(self, engine: Engine) -> bool:
        return engine.id in self._level_of
