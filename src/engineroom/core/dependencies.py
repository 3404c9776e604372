"""Who waits for whom: the graph dependencies of tasks.

An edge leads from a task to one that was known before it, so there are no cycles; where a task was named before it
was known, they are looked for. What is not known here (ended long ago, or before the controller's last start) is
asked of the store; until the answer comes, the task waits.
As soon as a dependency can no longer be met, the task is impossible, and so is what depends on it: the reason
names the path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ..ids import EngineUuid, TaskId
from ..messages import GraphDependency
from .tasks import Task

#: Of a long path of tasks that failed because of each other, this many are named.
PATH_NAMED = 6


class Outcome(msgspec.Struct, frozen=True):
    """How a task ended, as far as others depend on it."""

    ok: bool
    #: the engine it ran on
    engine: EngineUuid | None = None
    direct: bool = False
    #: of a failure: what went wrong at its root, and the tasks from this one to that
    cause: str = ""
    path: tuple[TaskId, ...] = ()
    length: int = 0

    def behind(self, id: TaskId) -> Outcome:
        """The outcome of a task that is impossible because of this one."""
        return Outcome(False, None, False, self.cause, (id, *self.path)[:PATH_NAMED], self.length + 1)

    def in_words(self) -> str:
        """Why what depends on it is impossible."""
        *between, root = self.path
        skipped = self.length - len(self.path)
        words = "".join(f"{id}, which depends on " for id in between)
        if skipped > 0:
            words += f"{root}, which depends on {skipped} more, the last of which {self.cause}"
        else:
            words += f"{root}, which {self.cause}"
        return words


class Memory:
    """The outcomes of the tasks that ended last, in two generations: the older is dropped when the younger is full."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most // 2)
        self.young: dict[TaskId, Outcome] = {}
        self._old: dict[TaskId, Outcome] = {}

    def get(self, id: TaskId) -> Outcome | None:
        """The outcome of a task; None if it is not remembered."""
        return self.young.get(id) or self._old.get(id)

    def trim(self) -> None:
        """Forget the older ones, when there are many."""
        if len(self.young) >= self._most:
            self._old, self.young = self.young, {}


class Condition(msgspec.Struct, gc=False, eq=False):
    """One dependency of one task, and how far it is from being met."""

    # A Struct, here and below, for the same reasons as Task: a hundred thousand of them may wait.

    #: "after", "follow" or "inputs"
    word: str
    dependency: GraphDependency
    #: tasks that have not ended
    pending: int = 0
    met: bool = False
    #: follow: where those ran that count
    engines: frozenset[EngineUuid] = frozenset()

    def take(self, id: TaskId, outcome: Outcome) -> str | None:
        """One of the tasks has ended; returns why this can no longer be met, if so."""
        wish = self.dependency
        counts = wish.success if outcome.ok else wish.failure
        if counts and outcome.engine is not None and self.word == "follow":
            self.engines |= {outcome.engine}
        if wish.all:
            if not counts:
                return self._wrong(id, outcome)
            if self.word == "follow" and len(self.engines) > 1:
                return "the tasks it follows ran on more than one engine"
        elif counts and (self.word != "follow" or self.engines):
            self.met = True
        return None

    def closed(self) -> str | None:
        """Nothing is pending any more; returns why this is not met, if so."""
        wish = self.dependency
        if not wish.all and not self.met and wish.tasks:
            which = "succeeded" if wish.success else "failed"
            return f"none of the {len(wish.tasks)} tasks of its {self.word!r} {which}"
        if self.word == "follow" and not self.engines and wish.tasks:
            return "none of the tasks it follows ran on an engine"
        self.met = True
        return None

    def _wrong(self, id: TaskId, outcome: Outcome) -> str:
        if outcome.ok:
            return f"it depends on the failure of {id}, which succeeded"
        return f"it depends on {outcome.in_words()}" if outcome.path else f"it depends on {id}, which failed"


class Waits(msgspec.Struct, gc=False, eq=False):
    """All that one task waits for."""

    task: Task
    conditions: list[Condition]

    @property
    def is_over(self) -> bool:
        """Every condition is met."""
        return all(condition.met for condition in self.conditions)

    @property
    def followed(self) -> frozenset[EngineUuid] | None:
        """The engines it may run on because it follows others; None: any."""
        for condition in self.conditions:
            if condition.word == "follow" and condition.dependency.tasks:
                return condition.engines
        return None


class Impossible(Exception):
    """A dependency cannot be met. `error` is the name of the error the task ends with."""

    def __init__(self, reason: str, blame: Outcome | None = None, error: str = "ImpossibleDependency") -> None:
        super().__init__(reason)
        self.reason, self.blame, self.error = reason, blame, error


class Graph:
    """Tasks that wait for others, and what has become of those."""

    def __init__(self, outcomes_kept: int) -> None:
        self.memory = Memory(outcomes_kept)
        #: tasks that wait
        self.waiting: dict[TaskId, Waits] = {}
        #: task → who waits for its end
        self.dependents: dict[TaskId, list[tuple[Waits, Condition]]] = {}
        #: tasks the store is to be asked about
        self.to_ask: list[TaskId] = []
        #: task → how many unfinished tasks take its result as an argument
        self.wanted: dict[TaskId, int] = {}
        #: tasks whose results nobody wants any more
        self.released: list[TaskId] = []

    # ------------------------------------------------------------------------------------------ tasks come and go

    def want(self, task: Task) -> None:
        """Note the results a task takes as arguments, until `unwant`."""
        options = task.spec.options
        for id in options.inputs if options is not None else ():
            self.wanted[id] = self.wanted.get(id, 0) + 1

    def unwant(self, task: Task) -> None:
        """A task has ended: it needs its arguments no more."""
        options = task.spec.options
        for id in options.inputs if options is not None else ():
            left = self.wanted.get(id, 0) - 1
            if left > 0:
                self.wanted[id] = left
            elif self.wanted.pop(id, None) is not None:
                self.released.append(id)

    def add(self, task: Task, known: Mapping[TaskId, Task]) -> Waits:
        """Have a task wait, unless what comes back `is_over`: all it depends on has ended well.

        Raises
        ------
        Impossible
            It cannot be met.
        """
        options = task.spec.options
        assert options is not None
        conditions = []
        if options.after is not None:
            conditions.append(Condition("after", options.after))
        if options.follow is not None:
            conditions.append(Condition("follow", options.follow))
        if options.inputs:
            conditions.append(Condition("inputs", GraphDependency(options.inputs)))
        waits = Waits(task, conditions)
        edges: list[tuple[TaskId, Condition]] = []
        unknown: list[TaskId] = []
        for condition in conditions:
            for id in dict.fromkeys(condition.dependency.tasks):
                self._look(waits, condition, id, known, edges, unknown)
            if not condition.pending:
                self._close(condition)
        if waits.is_over:
            return waits
        if task.id in self.dependents and self._comes_back(task.id, {id for id, _ in edges}):
            raise Impossible("it depends on tasks that depend on it", error="InvalidDependency")
        for id, condition in edges:
            self.dependents.setdefault(id, []).append((waits, condition))
        self.to_ask += unknown
        self.waiting[task.id] = waits
        return waits

    def _look(
        self,
        waits: Waits,
        condition: Condition,
        id: TaskId,
        known: Mapping[TaskId, Task],
        edges: list[tuple[TaskId, Condition]],
        unknown: list[TaskId],
    ) -> None:
        if id == waits.task.id:
            raise Impossible("it depends on itself", error="InvalidDependency")
        other = known.get(id)
        if other is None:
            outcome = self.memory.get(id)
            if outcome is not None and (condition.word != "inputs" or not outcome.ok):  # a result must be fetched
                self._take(condition, id, outcome)
                return
            if id not in self.dependents:
                unknown.append(id)
        elif other.is_direct:
            raise _on_direct(id)
        edges.append((id, condition))
        condition.pending += 1

    def _comes_back(self, id: TaskId, others: set[TaskId]) -> bool:
        """Whether one of these waits, by whatever detour, for a task that was named before it was known."""
        seen, pending = {id}, [id]
        while pending:
            for waits, _ in self.dependents.get(pending.pop(), ()):
                behind = waits.task.id
                if self.waiting.get(behind) is waits and behind not in seen:
                    seen.add(behind)
                    pending.append(behind)
        return not seen.isdisjoint(others)

    def remove(self, task: Task) -> None:
        """A task waits no more: it is queued, or has ended."""
        self.waiting.pop(task.id, None)

    # ------------------------------------------------------------------------------------------ news

    def ended(self, id: TaskId, outcome: Outcome | None) -> Iterator[tuple[Task, Waits | Impossible]]:
        """A task has ended (or, None, there is no such task): what becomes of those that waited for it."""
        for waits, condition in self.dependents.pop(id, ()):
            if self.waiting.get(waits.task.id) is not waits:
                continue  # it has ended meanwhile
            try:
                if outcome is None:
                    raise Impossible(
                        f"it depends on {id}, and there is no such task: never submitted here, or not kept"
                    )
                self._take(condition, id, outcome)
                condition.pending -= 1
                if not condition.pending:
                    self._close(condition)
            except Impossible as impossible:
                self.remove(waits.task)
                yield waits.task, impossible
                continue
            if condition.met and waits.is_over:
                self.remove(waits.task)
                yield waits.task, waits

    def _take(self, condition: Condition, id: TaskId, outcome: Outcome) -> None:
        if outcome.direct:
            raise _on_direct(id)
        reason = condition.take(id, outcome)
        if reason is not None:
            raise Impossible(reason, outcome)

    def _close(self, condition: Condition) -> None:
        reason = condition.closed()
        if reason is not None:
            raise Impossible(reason)


def depends(options: Any) -> bool:
    """Whether a task with these options waits for others."""
    return options.after is not None or options.follow is not None or bool(options.inputs)


def _on_direct(id: TaskId) -> Impossible:
    return Impossible(
        f"it depends on {id}, a direct task; load-balanced tasks can only depend on load-balanced ones",
        error="InvalidDependency",
    )
