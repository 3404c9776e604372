"""Taking unstarted tasks back: for engines that are idle, and from engines that are stuck in a long task.

While nothing is queued and an engine is idle, those that are behind give it half of what they have not started.
Besides, an engine that holds tasks ahead, and has been silent for much longer than its tasks usually take, is in a
long one: what waits behind that goes to whoever is free first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping

from ...ids import EngineId, TaskId
from ..actions import RecallTasks
from ..engines import Engine
from ..tasks import Task

#: An engine that holds work and has been silent this long may have work taken back for an idle one.
RECALL_AFTER = 0.01
#: Seconds between two looks for such engines, for each engine beyond a hundred.
LOOK_REST = 2e-6
#: Of many idle engines, this many are asked whether they may run a task.
IDLE_ASKED = 32


#: An engine is stuck that has been silent for this many times its mean run time, and at least RECALL_AFTER.
STUCK_FACTOR = 4
#: Seconds between two looks for such engines, for each engine.
STUCK_REST = 2e-6


class Balancer:
    """Decides what to take back, and when to look again."""

    def __init__(self) -> None:
        #: when to look for engines that are stuck; None: nobody holds tasks ahead
        self.stuck_at: float | None = None
        #: when to look again whether an idle engine can relieve another
        self.look_at: float | None = None
        #: and not before
        self._rest_until = 0.0

    def recalls(
        self,
        engines: Mapping[EngineId, Engine],
        idle: Collection[Engine],
        may_run: Callable[[Task, Engine], bool],
        now: float,
    ) -> Iterator[RecallTasks]:
        """What to ask back for the idle ones; nothing is queued."""
        self.look_at = None
        if not idle:
            return
        if now < self._rest_until:
            self.look_at = self._rest_until
            return
        # A look takes a while where engines are many: spend a few percent of the time on it, no more.
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
        helpers, asked = len(idle), list(itertools.islice(idle, IDLE_ASKED))
        for _, engine in behind:
            unstarted = [
                task.id
                for task in list(engine.held.values())[1:]
                if not task.is_direct and any(may_run(task, other) for other in asked)
            ]
            if unstarted:
                yield recall(engine, unstarted[len(unstarted) // 2 :])
                helpers -= 1
                if not helpers:
                    return

    def watch(self, engines: int, now: float) -> None:
        """Engines have been given tasks: look after a while whether one is stuck."""
        if self.stuck_at is None:
            self.stuck_at = now + RECALL_AFTER + engines * STUCK_REST

    def stuck(self, engines: Mapping[EngineId, Engine], now: float) -> Iterator[RecallTasks]:
        """What to ask back from engines that are in a long task, when it is time to look."""
        if self.stuck_at is None or now < self.stuck_at:
            return
        self.stuck_at = None
        for engine in engines.values():
            if len(engine.held) < 2:
                continue
            self.watch(len(engines), now)
            if engine.recalled or now < engine.last_heard + max(RECALL_AFTER, STUCK_FACTOR * (engine.mean or 0.0)):
                continue
            unstarted = [task.id for task in list(engine.held.values())[1:] if not task.is_direct]
            if unstarted:
                engine.hwm = 1  # until it has ended a task
                yield recall(engine, unstarted)


def recall(engine: Engine, ids: list[TaskId]) -> RecallTasks:
    """Ask for tasks back, and note that they are asked for."""
    engine.recalled.update(ids)
    return RecallTasks(engine.id, ids)
