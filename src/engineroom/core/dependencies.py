"""Which tasks wait for which others: the graph dependencies, and the outcomes of the tasks that ended last.

An edge leads from a task to a task that was known before it, so there are no cycles. Only a task that was named
before it came can close a cycle: then the graph is searched for one. Where the core does not know a task (it ended
long ago, or before the controller's last start), the store is asked for its outcome; until the answer comes, the
tasks that depend on it wait. When a dependency can no longer be met, the task is impossible, and so are the tasks
that depend on it: the reason names the path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..ids import EngineUuid, TaskId
from ..messages import GraphDependency, TaskDone
from .effects import Effects
from .tasks import Task

#: An error names at most this many tasks of a path of tasks that failed because of each other.
PATH_NAMED = 6


class TaskOutcome(msgspec.Struct, frozen=True):
    """How a task ended: what the tasks that depend on it must know."""

    ok: bool
    #: the engine it ran on
    engine: EngineUuid | None = None
    direct: bool = False
    #: of a failure: what went wrong, as the end of a sentence about the task at the end of `path`
    cause: str = ""
    #: of a failure: the tasks from this one to the one that failed first, at most `PATH_NAMED`
    path: tuple[TaskId, ...] = ()
    #: how long the whole path is
    length: int = 0

    def behind(self, id: TaskId) -> TaskOutcome:
        """The outcome of a task that is impossible because of this one."""
        return TaskOutcome(False, None, False, self.cause, (id, *self.path)[:PATH_NAMED], self.length + 1)

    def in_words(self) -> str:
        """The path and the cause, as part of a sentence about a task that depends on this one."""
        *between, root = self.path
        skipped = self.length - len(self.path)
        words = "".join(f"{id}, which depends on " for id in between)
        if skipped > 0:
            words += f"{root}, which depends on {skipped} more, the last of which {self.cause}"
        else:
            words += f"{root}, which {self.cause}"
        return words


class RecentOutcomes:
    """The outcomes of the tasks that ended last.

    They are in two dicts: when the younger is full, the older is dropped, and the younger takes its place.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most // 2)
        self.young: dict[TaskId, TaskOutcome] = {}
        self._old: dict[TaskId, TaskOutcome] = {}

    def get(self, id: TaskId) -> TaskOutcome | None:
        """The outcome of a task; None: it is forgotten, or has not ended."""
        return self.young.get(id) or self._old.get(id)

    def trim(self) -> None:
        """Forget the older half, if there are many."""
        if len(self.young) >= self._most:
            self._old, self.young = self.young, {}


class Condition(msgspec.Struct, gc=False, eq=False):
    """One dependency of one task, and how far it is from being met."""

    # A Struct, here and below, for the same reasons as Task: there may be a hundred thousand.

    #: "after", "follow" or "inputs"
    word: str
    dependency: GraphDependency
    #: tasks that have not ended
    pending: int = 0
    met: bool = False
    #: "follow" only: the engines on which the tasks ran that count
    engines: frozenset[EngineUuid] = frozenset()

    def take(self, id: TaskId, outcome: TaskOutcome) -> str | None:
        """One of the tasks has ended. Returns why the condition can no longer be met; None: it still can."""
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
        """All tasks have ended. Returns why the condition is not met; None: it is met."""
        wish = self.dependency
        if not wish.all and not self.met and wish.tasks:
            which = "succeeded" if wish.success else "failed"
            return f"none of the {len(wish.tasks)} tasks of its {self.word!r} {which}"
        if self.word == "follow" and not self.engines and wish.tasks:
            return "none of the tasks it follows ran on an engine"
        self.met = True
        return None

    def _wrong(self, id: TaskId, outcome: TaskOutcome) -> str:
        if outcome.ok:
            return f"it depends on the failure of {id}, which succeeded"
        return f"it depends on {outcome.in_words()}" if outcome.path else f"it depends on {id}, which failed"


class Waiting(msgspec.Struct, gc=False, eq=False):
    """A task that waits, and the conditions it waits for."""

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

    def __init__(self, reason: str, blame: TaskOutcome | None = None, error: str = "ImpossibleDependency") -> None:
        super().__init__(reason)
        self.reason, self.blame, self.error = reason, blame, error


class Dependencies:
    """Tasks that wait for others, and the outcomes of the tasks that ended last."""

    def __init__(self, outcomes_kept: int, effects: Effects) -> None:
        self._effects = effects
        self.outcomes = RecentOutcomes(outcomes_kept)
        #: tasks that wait
        self.waiting: dict[TaskId, Waiting] = {}
        #: task → the tasks that wait for its end, and the condition of theirs that names it
        self.dependents: dict[TaskId, list[tuple[Waiting, Condition]]] = {}
        #: task → how many unfinished tasks take its result as an argument
        self.wanted: dict[TaskId, int] = {}
        #: outcomes of which dependent tasks are still to hear; None: there is no such task
        self.news: list[tuple[TaskId, TaskOutcome | None]] = []

    # ------------------------------------------------------------------------------------------ tasks come and go

    def want(self, task: Task) -> None:
        """Count the results that a task takes as arguments, until `unwant`."""
        options = task.spec.options
        for id in options.inputs if options is not None else ():
            self.wanted[id] = self.wanted.get(id, 0) + 1

    def unwant(self, task: Task) -> None:
        """A task has ended: it needs its arguments no longer."""
        options = task.spec.options
        for id in options.inputs if options is not None else ():
            left = self.wanted.get(id, 0) - 1
            if left > 0:
                self.wanted[id] = left
            elif self.wanted.pop(id, None) is not None:
                self._effects.released.append(id)

    def add(self, task: Task, known: Mapping[TaskId, Task]) -> Waiting:
        """Have a task wait for what it depends on. If the returned `Waiting` is over, it need not wait.

        Raises
        ------
        Impossible
            One of its dependencies cannot be met.
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
        waiting = Waiting(task, conditions)
        edges: list[tuple[TaskId, Condition]] = []
        unknown: list[TaskId] = []
        for condition in conditions:
            for id in dict.fromkeys(condition.dependency.tasks):
                self._look(waiting, condition, id, known, edges, unknown)
            if not condition.pending:
                self._close(condition)
        if waiting.is_over:
            return waiting
        if task.id in self.dependents and self._comes_back(task.id, {id for id, _ in edges}):
            raise Impossible("it depends on tasks that depend on it", error="InvalidDependency")
        for id, condition in edges:
            self.dependents.setdefault(id, []).append((waiting, condition))
        self._effects.to_find += unknown
        self.waiting[task.id] = waiting
        return waiting

    def _look(
        self,
        waiting: Waiting,
        condition: Condition,
        id: TaskId,
        known: Mapping[TaskId, Task],
        edges: list[tuple[TaskId, Condition]],
        unknown: list[TaskId],
    ) -> None:
        if id == waiting.task.id:
            raise Impossible("it depends on itself", error="InvalidDependency")
        other = known.get(id)
        if other is None:
            outcome = self.outcomes.get(id)
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
        """Whether one of `others` waits, directly or through other tasks, for the task `id`."""
        seen, pending = {id}, [id]
        while pending:
            for waiting, _ in self.dependents.get(pending.pop(), ()):
                behind = waiting.task.id
                if self.waiting.get(behind) is waiting and behind not in seen:
                    seen.add(behind)
                    pending.append(behind)
        return not seen.isdisjoint(others)

    def remove(self, task: Task) -> None:
        """A task waits no longer: it is queued, or has ended."""
        self.waiting.pop(task.id, None)

    # ------------------------------------------------------------------------------------------ tasks end

    def remember(
        self, task: Task, done: TaskDone, engine: EngineUuid | None, blame: TaskOutcome | None = None
    ) -> None:
        """Keep how a task ended, and have the tasks that wait for it hear of it. `blame`: what made it impossible."""
        outcome = blame
        if outcome is None:
            path = (task.id,) if done.status != "ok" else ()
            outcome = TaskOutcome(done.status == "ok", engine, task.is_direct, _cause(done), path, len(path))
        self.outcomes.young[task.id] = outcome
        if task.id in self.dependents:
            self.news.append((task.id, outcome))

    def ended(self, id: TaskId, outcome: TaskOutcome | None) -> Iterator[tuple[Task, Waiting | Impossible]]:
        """A task has ended (None: there is no such task). Yields the tasks whose waiting ends with that, and how."""
        for waiting, condition in self.dependents.pop(id, ()):
            if self.waiting.get(waiting.task.id) is not waiting:
                continue  # it has ended meanwhile
            try:
                if outcome is None:
                    raise Impossible(
                        f"it depends on {id}, and there is no such task: never submitted here, or not kept",
                        error="InvalidDependency",
                    )
                self._take(condition, id, outcome)
                condition.pending -= 1
                if not condition.pending:
                    self._close(condition)
            except Impossible as impossible:
                self.remove(waiting.task)
                yield waiting.task, impossible
                continue
            if condition.met and waiting.is_over:
                self.remove(waiting.task)
                yield waiting.task, waiting

    def _take(self, condition: Condition, id: TaskId, outcome: TaskOutcome) -> None:
        if outcome.direct:
            raise _on_direct(id)
        reason = condition.take(id, outcome)
        if reason is not None:
            raise Impossible(reason, outcome)

    def _close(self, condition: Condition) -> None:
        reason = condition.closed()
        if reason is not None:
            raise Impossible(reason)


def _cause(done: TaskDone) -> str:
    """What became of a task, as the end of a sentence that begins with "which"."""
    if done.status == "aborted":
        return "was aborted"
    return f"failed: {done.error.ename}: {done.error.evalue[:200]}" if done.error is not None else "succeeded"


def _on_direct(id: TaskId) -> Impossible:
    return Impossible(
        f"it depends on {id}, a direct task; load-balanced tasks can only depend on load-balanced ones",
        error="InvalidDependency",
    )
