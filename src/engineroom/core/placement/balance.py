"""Recalls unstarted tasks: for engines that are idle, and from engines that are stuck in a long task.

While no task is queued and an engine is idle, engines that are behind give back half of their unstarted tasks.
An engine is *stuck* if it holds tasks ahead and has been silent for much longer than its tasks usually take: then
the tasks behind the long one go to the engine that is free first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping

from ...ids import EngineId, TaskId
from ..engines import Engine
from ..tasks import Task

#: An engine that holds tasks and has been silent for this many seconds may have to give some to an idle one.
RECALL_AFTER = 0.01
#: Seconds between two searches for such engines, for each engine beyond a hundred.
LOOK_REST = 2e-6
#: Of many idle engines, this many are asked whether they may run a task.
IDLE_ASKED = 32


#: An engine is stuck after silence for this many times its mean run time, and at least RECALL_AFTER.
STUCK_FACTOR = 4
#: Seconds between two searches for stuck engines, for each engine.
STUCK_REST = 2e-6

#: an engine, and the tasks it is to give back
Recall = tuple[Engine, list[TaskId]]


class Balancer:
    """Decides which tasks to recall, and when to look again. It changes no engine and no task."""

    def __init__(self) -> None:
        #: when to look for stuck engines; None: no engine holds tasks ahead
        self.stuck_at: float | None = None
        #: when to look again whether an idle engine can relieve another
        self.look_at: float | None = None
        #: no look before this time
        self._rest_until = 0.0

    def for_idle(
        self,
        engines: Mapping[EngineId, Engine],
        idle: Collection[Engine],
        may_run: Callable[[Task, Engine], bool],
        now: float,
    ) -> list[Recall]:
        """What to recall for the idle engines; no task is queued."""
        self.look_at = None
        if not idle or len(idle) == len(engines):
            return []
        if now < self._rest_until:
            self.look_at = self._rest_until
            return []
        # A search takes a while where there are many engines: spend a few percent of the time on it, no more.
        self._rest_until = now + max(0, len(engines) - 100) * LOOK_REST
        behind: list[tuple[float, Engine]] = []
        for engine in engines.values():
            if len(engine.held) < 2 or engine.recalled:
                continue
            due = engine.last_heard + RECALL_AFTER
            wait = (len(engine.held) - 1) * (engine.mean or 0.0)
            if now >= due:
                wait = max(wait, RECALL_AFTER, now - engine.last_heard)
            elif self.look_at is None or due < self.look_at:
                self.look_at = due
            if wait >= RECALL_AFTER / 2:
                behind.append((wait, engine))
        behind.sort(key=lambda pair: pair[0], reverse=True)
        asked = list(itertools.islice(idle, IDLE_ASKED))
        recalls: list[Recall] = []
        for _, engine in behind:
            movable = [
                task.id
                for task in engine.unstarted
                if not task.is_direct and any(may_run(task, other) for other in asked)
            ]
            if movable:
                recalls.append((engine, movable[len(movable) // 2 :]))
                if len(recalls) == len(idle):
                    break
        return recalls

    def watch(self, engines: int, now: float) -> None:
        """Engines have been given tasks: look after a while whether one is stuck."""
        if self.stuck_at is None:
            self.stuck_at = now + RECALL_AFTER + engines * STUCK_REST

    def from_stuck(self, engines: Mapping[EngineId, Engine], now: float) -> list[Recall]:
        """What to recall from stuck engines, if it is time to look."""
        if self.stuck_at is None or now < self.stuck_at:
            return []
        self.stuck_at = None
        recalls: list[Recall] = []
        for engine in engines.values():
            if len(engine.held) < 2:
                continue
            self.watch(len(engines), now)
            if engine.recalled or now < engine.last_heard + max(RECALL_AFTER, STUCK_FACTOR * (engine.mean or 0.0)):
                continue
            movable = [task.id for task in engine.unstarted if not task.is_direct]
            if movable:
                recalls.append((engine, movable))
        return recalls
