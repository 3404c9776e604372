"""Engines inside the core: which tasks each holds, and how many more it should."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ..ids import Digest, EngineId, EngineUuid, NannyId, TaskId
from ..messages import Attempt, TaskDone
from .tasks import Task

#: With an adaptive hwm an engine holds about this many seconds of work ahead.
PREFETCH_SECONDS = 0.02
#: … but never more tasks than this, nor fewer than the one it runs and one more,
PREFETCH_MOST = 2048
PREFETCH_LEAST = 2
#: unless tasks take this many seconds: then the time it takes to send the next one does not matter.
LONG_SECONDS = 0.1


class Backlog(Protocol):
    """Direct tasks that their engine has no room for yet."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Task]: ...


class Engine:
    """An engine and the tasks it holds. Only `State` changes `held`, `recalled`, `waiting` and `stopping`.

    `held` keeps the order in which tasks were given: the engine runs them in that order.
    """

    __slots__ = (
        "answers",
        "asked",
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
        "preempted",
        "recalled",
        "resources",
        "silent_since",
        "stopping",
        "strays",
        "used",
        "uuid",
        "waiting",
    )

    def __init__(
        self,
        id: EngineId,
        uuid: EngineUuid,
        host: str,
        pid: int,
        nanny: NannyId,
        resources: Mapping[str, Sequence[int]],
        backlog: Backlog,
        hwm: int | None,
        now: float,
    ) -> None:
        self.id, self.uuid, self.host, self.pid, self.nanny = id, uuid, host, pid, nanny
        self.held: dict[TaskId, Task] = {}
        #: direct tasks it has no room for yet: to be read here; `State.backlogs` owns them
        self.backlog = backlog
        #: the indices it has of each named resource
        self.resources = resources
        #: what its properties say against tasks with these functions ("": nothing), until they change
        self.answers: dict[Digest, str] = {}
        #: functions about which it has been asked, and has not answered
        self.asked: set[Digest] = set()
        #: when it was last given a task, counted in tasks
        self.used = 0
        self.fixed_hwm = hwm
        self.hwm: float = PREFETCH_LEAST if hwm is None else hwm or float("inf")
        #: smoothed run time in seconds; None: not yet known
        self.mean: float | None = None
        self.completed = 0
        #: tasks it has been asked to give back
        self.recalled: set[TaskId] = set()
        #: tasks that it said it has, and that are not its own any more: it may be running one of them
        self.strays: deque[TaskId] = deque()
        #: it gets no more tasks, and leaves
        self.stopping = False
        #: since when nothing has been heard of it: it gets no more tasks as long as that is so; None: it is heard
        self.silent_since: float | None = None
        #: why its job must end, if that may cut short what it runs; "": it need not
        self.preempted = ""
        self.last_heard = now
        #: those of `held` that have begun, and wait for other tasks: the engine runs others meanwhile
        self.waiting: set[TaskId] = set()

    @property
    def load(self) -> int:
        """How many tasks it holds, or will hold because no other engine may run them."""
        return len(self.held) + len(self.backlog)

    @property
    def has_room(self) -> bool:
        """Whether it takes another task."""
        has_place = len(self.held) - len(self.waiting) < self.hwm
        return has_place and not self.stopping and self.silent_since is None

    @property
    def room(self) -> int:
        """How many more tasks it takes."""
        return sys.maxsize if self.hwm == float("inf") else max(0, int(self.hwm) + len(self.waiting) - len(self.held))

    @property
    def unstarted(self) -> list[Task]:
        """The tasks it holds, but for those that wait, and the first of the others: it runs that, or is about to."""
        if self.waiting:
            return [task for id, task in self.held.items() if id not in self.waiting][1:]
        return list(self.held.values())[1:]

    def learn(self, results: Sequence[TaskDone]) -> None:
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
            ahead = int(PREFETCH_SECONDS / max(self.mean, 1e-7))
            self.hwm = 1 if self.mean >= LONG_SECONDS else max(PREFETCH_LEAST, min(PREFETCH_MOST, ahead))

    def hold_one(self) -> None:
        """Hold no task ahead until it has ended one. A fixed hwm stays."""
        if self.fixed_hwm is None:
            self.hwm = 1

    def __repr__(self) -> str:
        return f"<Engine {self.id} holds {len(self.held)}>"


def cut_attempt(
    task: Task,
    engine: Engine,
    started: float | None,
    now: float,
    cause: str,
    ended_by: str,
    peak_memory: int | None = None,
) -> Attempt:
    """An attempt that is over without an outcome from its engine.

    `started` is by the clock of the engine's host, `now` by the controller's: where these differ, the attempt does not
    end before it starts.
    """
    ended = now if started is None else max(now, started)
    return Attempt(
        task.attempt, engine.id, engine.uuid, engine.host, started, ended, cause, peak_memory, ended_by=ended_by
    )


def past_attempt(task: Task, done: TaskDone, engine: Engine | None, ended_by: str = "task") -> Attempt:
    """An attempt that is over, for the record. `engine`: where it ran; None: it is not known any more."""
    cause = "ok" if done.error is None else f"{done.error.ename}: {done.error.evalue}"
    uuid, host = (engine.uuid, engine.host) if engine else (EngineUuid(""), "")
    trace = done.error.traceback or None if done.error else None
    return Attempt(
        task.attempt, done.engine, uuid, host, done.started, done.completed, cause, done.peak_memory, trace, ended_by
    )
