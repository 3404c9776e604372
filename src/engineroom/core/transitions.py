"""The moves of a task: it arrives, waits for others, is queued, given to an engine, tried again; it ends.

What happens decides which (`scheduler.py`, `fleet.py`, `recovery.py`, `aborting.py`); how it is done stands here.
Only the hot path of `scheduler.py` has two shortcuts: plain tasks go straight to their queue, and outcomes that
engines send end their tasks there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import SchedulerSettings
from ..errors import ConfigError
from ..ids import EngineId, EngineUuid, TaskId
from ..messages import Attempt, ErrorInfo, TaskDone, TaskOptions
from .actions import Ended
from .deadlines import Deadlines
from .dependencies import Graph, Impossible, Outcome, Waits, depends
from .effects import Turn
from .engines import Engine
from .placement.pools import Pool, Pools
from .placement.requirements import in_words
from .placement.schemes import NOT_WITH_PURE
from .tasks import Needs, State, Task

_NO_OPTIONS = TaskOptions()


class Moves:
    """Moves tasks, and keeps tables, queues, graph and turn in step with that."""

    def __init__(
        self,
        settings: SchedulerSettings,
        tasks: dict[TaskId, Task],
        engines: dict[EngineId, Engine],
        pools: Pools,
        graph: Graph,
        deadlines: Deadlines,
        turn: Turn,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._engines = engines
        self._pools = pools
        self._graph = graph
        self._deadlines = deadlines
        self._turn = turn

    # ------------------------------------------------------------------------------------------ to a queue

    def arrive(self, task: Task) -> None:
        """A task begins its way: it is queued, or waits for others, or ends here and now."""
        options = task.spec.options
        if options is None:
            self.enqueue(task)
            return
        recovering = task.state is State.RECOVERING
        if not recovering:
            self._graph.want(task)
        if task.is_direct:
            if depends(options):
                self.fail(
                    task, "InvalidDependency", "a direct task cannot depend on others: only its view's order holds"
                )
            else:
                self.enqueue(task)
            return
        if not self.check_scheme(task, options):
            return
        if options.timeout is not None:
            deadline = self._turn.now + options.timeout
            if recovering:  # some of it has passed in the controller's earlier life
                deadline = max(self._turn.now, min(deadline, task.spec.submitted + options.timeout))
            task.needs = Needs(deadline=deadline)
            self._deadlines.add(deadline, self.out_of_time, task)
        if not depends(options):
            self.enqueue(task)
            return
        try:
            waits = self._graph.add(task, self._tasks)
        except Impossible as impossible:
            self._impossible(task, impossible)
            return
        if waits.is_over:
            self._released(task, waits)
        elif recovering:
            task.move(State.WAITING)
        else:
            task.state = State.WAITING

    def check_scheme(self, task: Task, options: TaskOptions) -> bool:
        """Whether there is the scheme that a task asks for, and it can honour the rest; else the task ends."""
        if (options.scheme or self._settings.scheme) == "pure":
            wished = [name for name in NOT_WITH_PURE if getattr(options, name) != getattr(_NO_OPTIONS, name)]
            if wished:
                self.fail(
                    task,
                    "ConfigError",
                    f"the scheme 'pure' decides nothing for single tasks, so it cannot honour {', '.join(wished)}: "
                    "leave that out, or use another scheme",
                )
                return False
        try:
            self._pools.index_of(options.scheme or "")
        except ConfigError as error:
            self.fail(task, "ConfigError", str(error))
            return False
        return True

    def _released(self, task: Task, waits: Waits) -> None:
        """All that a task depends on has ended well."""
        if waits.followed is not None:
            task.needs = task.needs or Needs()
            task.needs.followed = waits.followed
        if task.state is not State.QUEUED:
            task.move(State.QUEUED)
        self.enqueue(task)

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a QUEUED task where it belongs; end it if there is no such place."""
        if task.state is State.RECOVERING:
            task.move(State.QUEUED)
        if task.is_direct:
            engine = self._engines.get(task.spec.engine)
            if engine is None or engine.stopping:
                self.fail(
                    task,
                    "EngineError",
                    f"there is no engine {task.spec.engine} (any more), which this direct task is for",
                )
                return
            engine.backlog.push((task,), task.client, first=first)
            if not first:
                self.fill_direct(engine)
            return
        requirement = self._pools.requirement_of(task)
        if requirement not in self._pools.pools:
            reason = self._pools.hopeless(requirement)
            if reason is not None:
                self.fail(task, "ImpossibleDependency", reason + _last_refusal(task))
                return
        pool = self._pools.put(task, requirement, first=first)
        if pool is not None and pool.orphaned_at is None and self._pools.is_orphan(pool):
            self._orphan(pool)

    def again(self, task: Task, attempt: Attempt, *, first: bool, queue: bool = True) -> None:
        """Queue a task for its next attempt."""
        task.attempts = [*(task.attempts or ()), attempt]
        task.attempt += 1
        task.engine = None
        task.move(State.QUEUED)
        self._turn.retried.append(task)
        if queue:
            self.enqueue(task, first=first)

    def requeue(self, tasks: Sequence[Task]) -> None:
        """Put unstarted tasks that an engine held back to the front, keeping their order.

        Direct ones go to their engine with the caller's `fill_direct`.
        """
        for task in reversed(tasks):
            task.engine = None
            if task.aborting:
                self.end(task, "aborted", "TaskAborted", "aborted before it started")
            else:
                task.move(State.QUEUED)
                self.enqueue(task, first=True)

    # ------------------------------------------------------------------------------------------ to an engine

    def give(self, engine: Engine, tasks: list[Task]) -> None:
        """Give an engine tasks that a queue has let go of."""
        now = self._turn.now
        if not engine.held:
            engine.last_heard = now
        held, state = engine.held, State.HELD
        for task in tasks:
            task.state = state  # from QUEUED: queues give no others
            task.engine = engine
            held[task.spec.id] = task
        self._pools.given(engine)
        self._turn.send(engine, tasks)

    def fill_direct(self, engine: Engine) -> None:
        """Give an engine its direct tasks, as many as it has room for."""
        backlog = engine.backlog
        while backlog and engine.has_room:
            tasks = backlog.take(engine.room)
            if tasks:
                self.give(engine, tasks)
        self._pools.changed(engine)

    # ------------------------------------------------------------------------------------------ to its end

    def fail(self, task: Task, ename: str, evalue: str, engine: Engine | None = None) -> None:
        """End a task with an error of ours."""
        self.end(task, "error", ename, evalue, engine)

    def _impossible(self, task: Task, impossible: Impossible) -> None:
        blame = impossible.blame.behind(task.id) if impossible.blame is not None else None
        self.end(task, "error", impossible.error, f"task {task.id} can never run: {impossible.reason}", blame=blame)

    def end(
        self,
        task: Task,
        status: str,
        ename: str,
        evalue: str,
        engine: Engine | None = None,
        traceback: str = "",
        *,
        blame: Outcome | None = None,
    ) -> None:
        """Give a task an outcome that no engine made."""
        task.move(State.ENDED)
        task.engine = None
        del self._tasks[task.id]
        error = ErrorInfo(
            ename, evalue, traceback, engine.id if engine else None, engine.uuid if engine else None, task.spec.kind
        )
        done = TaskDone(task.id, task.attempt, status, None, self._turn.now, error=error)
        if engine is not None:
            done.engine = engine.id
        self._turn.ended.append(Ended(task, done))
        if task.spec.options is not None:
            self._graph.remove(task)
            self._graph.unwant(task)
        self.remember(task, done, None, blame)

    def remember(self, task: Task, done: TaskDone, engine: EngineUuid | None, blame: Outcome | None = None) -> None:
        """Keep how a task ended for those that depend on it, and tell those that wait."""
        outcome = blame
        if outcome is None:
            cause = _outcome_in_words(done.status, done.error)
            path = (task.id,) if done.status != "ok" else ()
            outcome = Outcome(done.status == "ok", engine, task.is_direct, cause, path, len(path))
        self._graph.memory.young[task.id] = outcome
        if task.id in self._graph.dependents:
            self._turn.news.append((task.id, outcome))

    def settle(self) -> None:
        """Tasks have ended: let those that waited for them go on, or end. One after another, however long the chain."""
        for id, outcome in self._turn.news:  # it grows meanwhile
            for task, verdict in self._graph.ended(id, outcome):
                if isinstance(verdict, Impossible):
                    self._impossible(task, verdict)
                else:
                    self._released(task, verdict)

    def out_of_time(self, task: Task) -> None:
        """The dependencies of a task had to be met by now."""
        options = task.spec.options
        assert options is not None
        waits = self._graph.waiting.get(task.id)
        if waits is not None and waits.task is task:
            pending = sum(condition.pending for condition in waits.conditions if not condition.met)
            self.fail(
                task,
                "DependencyTimeout",
                f"task {task.id} waited {options.timeout:g} s for the tasks it depends on: {pending} had not ended",
            )
        elif task.state is State.QUEUED and options.resources and self._waits_for_resources(task):
            wish = in_words(self._pools.requirement_of(task))
            self.fail(task, "DependencyTimeout", f"task {task.id} found no engine {wish} within {options.timeout:g} s")
        elif task.state is State.QUEUED and task.needs is not None and task.needs.refused:
            count = len(task.needs.refused)
            self.fail(
                task,
                "DependencyTimeout",
                f"task {task.id} found no engine within {options.timeout:g} s: {count} raised UnmetDependency"
                + _last_refusal(task),
            )

    # ------------------------------------------------------------------------------------------ where no engine fits

    def look_again(self, pool: Pool) -> None:
        """An engine that a pool counted on is gone: what waits there may wait for others, or have to end."""
        requirement = pool.requirement
        if self._pools.pools.get(requirement) is not pool:
            return
        if requirement.follows:
            for task in self._pools.take_out(pool):
                self.enqueue(task)
        elif (reason := self._pools.hopeless(requirement)) is not None:
            for task in self._pools.take_out(pool):
                self.fail(task, "ImpossibleDependency", reason + _last_refusal(task))
        elif self._pools.is_orphan(pool):
            self._orphan(pool)

    def _orphan(self, pool: Pool) -> None:
        """There is no engine with the resources these tasks need: they wait for one for a while."""
        pool.orphaned_at = self._turn.now
        self._deadlines.add(self._turn.now + self._settings.engine_grace, self._orphaned, pool)

    def _orphaned(self, pool: Pool) -> None:
        """End the tasks of a pool for which there has been no engine all the while."""
        grace = self._settings.engine_grace
        if self._pools.pools.get(pool.requirement) is not pool or not self._pools.is_orphan(pool):
            return
        if pool.orphaned_at is None or self._turn.now < pool.orphaned_at + grace:
            return  # one has come and gone meanwhile
        reason = f"for {grace:g} s there has been no engine {in_words(pool.requirement)}"
        for task in self._pools.take_out(pool):
            self.fail(task, "ImpossibleDependency", reason)

    def _waits_for_resources(self, task: Task) -> bool:
        """There is no engine with the resources a queued task needs."""
        pool = self._pools.pools.get(self._pools.requirement_of(task))
        return pool is not None and self._pools.is_orphan(pool)


def _last_refusal(task: Task) -> str:
    """What the last engine said that refused a task, as the end of a sentence."""
    if task.needs is None or not task.needs.refused or not task.attempts:
        return ""
    last = task.attempts[-1]
    return f". Engine {last.engine} said: {last.cause}"


def _outcome_in_words(status: str, error: ErrorInfo | None) -> str:
    """What became of a task, as the end of a sentence that begins with "which"."""
    if status == "aborted":
        return "was aborted"
    return f"failed: {error.ename}: {error.evalue[:200]}" if error is not None else "succeeded"
