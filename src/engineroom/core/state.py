"""State: every table of the core, and every transition of a task.

The handlers (`handlers/`) decide which transition a task makes. State makes it, so that the tables, the queues and the
dependencies stay in step. Each transition is checked against `TRANSITIONS`. Where many tasks make the
same one (`enqueue_plain`, `hold`, `finish`), it is checked once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from random import Random
from typing import Any

from ..config import SchedulerSettings
from ..ids import ClientId, EngineId, EngineUuid, TaskId
from ..messages import Attempt, ErrorInfo, TaskDone
from ..messages.bounds import Status
from .actions import Ended
from .deadlines import Deadlines
from .dependencies import Dependencies, TaskOutcome, Waiting
from .effects import Effects
from .engines import Engine, past_attempt
from .events import EngineJoined
from .placement.balance import Balancer
from .placement.pools import Pool, Pools
from .placement.queues import TaskQueue
from .placement.requirements import in_words
from .tasks import TRANSITIONS, Needs, Task, TaskState
from .unclaimed import UnclaimedTasks

# The transitions that are checked once for many tasks.
_SUBMITTED = TaskState.NEW, TaskState.QUEUED
_GIVEN = TaskState.QUEUED, TaskState.HELD
_FINISHED = TaskState.HELD, TaskState.ENDED
_FINISHED_AT_LAST = TaskState.RECOVERING, TaskState.ENDED

#: So many attempts of a task may have begun before a restart without a record of them. An engine that names more lies.
UNRECORDED_ATTEMPTS = 1_000_000


class State:
    """The tasks that have not ended, the engines, and everything that is known about them."""

    def __init__(self, settings: SchedulerSettings, seed: int, effects: Effects) -> None:
        self.settings = settings
        self.effects = effects
        #: when the last event came
        self.now = 0.0
        self.tasks: dict[TaskId, Task] = {}
        self.engines: dict[EngineId, Engine] = {}
        #: for each engine the direct tasks that it has no room for yet. Until `recovery_deadline` also for numbers of
        #: engines that are not there: these may come back
        self.backlogs: dict[EngineId, TaskQueue] = {}
        self.pools = Pools(self.engines, settings.scheme, Random(seed), effects)
        self.dependencies = Dependencies(settings.outcomes_kept, effects)
        #: dependencies that must be met, cancelled tasks that must have stopped, pools that must have found an engine
        self.deadlines = Deadlines(lambda subject: isinstance(subject, Task) and subject.state is TaskState.ENDED)
        #: until when engines may come back after a restart, and claim recovered tasks; None: they had their time
        self.recovery_deadline: float | None = None
        #: the engines that may come back until then; None: nobody knows which were there before the restart
        self.awaited: dict[EngineUuid, EngineId] | None = None
        #: by the numbers of engines that have not come back: RECOVERING tasks that only these may run
        self.recovering_named: dict[EngineId, list[Task]] = {}
        #: what engines came back with after a restart, and is not known
        self.unclaimed = UnclaimedTasks()
        #: QUEUED in no queue until the end of the event: tasks that must wait again for what they take as arguments
        self.to_wait: list[Task] = []
        self.balancer = Balancer()

    def after(self, seconds: float, due: Callable[[State, Any], None], subject: Any) -> None:
        """Have `due(state, subject)` called when so much time has passed."""
        self.deadlines.add(self.now + seconds, due, subject)

    def do_what_is_due(self) -> None:
        """Make the calls whose time has come."""
        for due, subject in self.deadlines.due(self.now):
            due(self, subject)

    # ------------------------------------------------------------------------------------------ engines

    def add_engine(self, joined: EngineJoined) -> Engine:
        """An engine has joined."""
        backlog = self._backlog_of(joined.engine)
        engine = self.engines[joined.engine] = Engine(
            joined.engine,
            joined.uuid,
            joined.host,
            joined.pid,
            joined.nanny,
            joined.resources,
            backlog,
            self.settings.hwm,
            self.now,
        )
        self.pools.joined(engine)
        return engine

    def remove_engine(self, engine: Engine) -> tuple[list[Task], list[Pool]]:
        """Forget an engine. Returns the tasks it held, in order, and the pools whose tasks it might have run."""
        del self.engines[engine.id]
        self.backlogs.pop(engine.id).clear()
        pools = self.pools.removed(engine)
        if self.unclaimed:
            self.unclaimed.drop(engine)
        return self.release(engine, list(engine.held)), pools

    def stop_engine(self, engine: Engine, *, restart: bool = False) -> None:
        """An engine gets no more tasks, and leaves; with `restart`, another takes its place."""
        engine.stopping = True
        self.pools.changed(engine)
        self.effects.stop(engine.id, restart=restart)

    def set_silent(self, engine: Engine, since: float | None) -> None:
        """An engine has not been heard since this moment; None: it is heard again."""
        was_silent, engine.silent_since = engine.silent_since is not None, since
        if was_silent != (since is not None):
            self.pools.changed(engine)
            self.fill_direct(engine)

    # ------------------------------------------------------------------------------------------ to a queue

    def add(self, task: Task) -> None:
        """A task is known from now on, and NEW."""
        self.tasks[task.id] = task

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        """Queue a task that may run now; end it if no engine will ever run it."""
        if task.state is not TaskState.QUEUED:  # else it comes from a pool that is no more
            task.move(TaskState.QUEUED)
        if task.is_direct:
            self._enqueue_direct(task, first)
            return
        options = task.spec.options
        if options is not None and any(id in self.tasks for id in options.inputs):
            self.to_wait.append(task)  # an engine came back with it after a restart that has cost their results
            return
        requirement = self.pools.requirement_of(task)
        if task.needs is not None and self.pools.is_worn_out(requirement):
            task.needs.failed = frozenset()
            requirement = self.pools.requirement_of(task)
        if requirement not in self.pools.pools:
            reason = self.pools.hopeless(requirement)
            if reason is not None:
                self.fail(task, "ImpossibleDependency", reason + task.last_refusal)
                return
        pool = self.pools.put(task, requirement, first=first)
        if pool is not None and pool.orphaned_at is None and self.pools.is_orphan(pool):
            self.await_engine(pool)

    def enqueue_plain(self, tasks: Sequence[Task], client: ClientId) -> None:
        """What `enqueue` does, for many NEW tasks of one client that any engine may run."""
        assert _SUBMITTED in TRANSITIONS
        for task in tasks:
            task.state = TaskState.QUEUED
        self.pools.ready.push(tasks, client)

    def _enqueue_direct(self, task: Task, first: bool) -> None:
        engine = self.engines.get(task.spec.engine)
        if engine is None and self.recovery_deadline is not None:
            self._backlog_of(task.spec.engine).push((task,), task.client, first=first)
            return
        if engine is None or engine.stopping:
            reason = f"there is no engine {task.spec.engine} (any more), which this direct task is for"
            self.fail(task, "EngineError", reason)
            return
        self.backlogs[engine.id].push((task,), task.client, first=first)
        if not first:
            self.fill_direct(engine)

    def _backlog_of(self, number: EngineId) -> TaskQueue:
        backlog = self.backlogs.get(number)
        if backlog is None:
            backlog = self.backlogs[number] = TaskQueue(self.pools.shares)
        return backlog

    def end_recovery(self) -> None:
        """The engines are back, or had their time: the direct tasks of those that have not come back fail."""
        self.recovery_deadline = self.awaited = None
        self.recovering_named.clear()
        for number in sorted(self.backlogs.keys() - self.engines.keys()):
            backlog = self.backlogs.pop(number)
            tasks = list(backlog)
            backlog.clear()
            for task in tasks:
                self.enqueue(task)

    def requeue(self, tasks: Sequence[Task]) -> None:
        """Put released, unstarted tasks back to the front, in their order. The caller is to call `fill_direct`."""
        for task in reversed(tasks):
            if task.aborting:
                self.abort(task, "aborted before it started")
            else:
                self.enqueue(task, first=True)

    def retry(self, task: Task, attempt: Attempt, *, first: bool) -> None:
        """Queue a released task for its next attempt, in front if `first`."""
        self.end_attempt(task, attempt)
        self.enqueue(task, first=first)

    def end_attempt(self, task: Task, attempt: Attempt) -> None:
        """Note that an attempt of a released task is over. The task is QUEUED; the caller enqueues it, or ends it."""
        task.note(attempt)
        task.attempt += 1
        task.move(TaskState.QUEUED)
        task.started = None
        self.effects.progress.append(task)

    def start(self, task: Task, started: float) -> None:
        """The engine that holds a task has announced that it runs it."""
        task.started = started
        self.effects.progress.append(task)

    def unstart(self, task: Task) -> None:
        """A task does not run any more, or is not known to: its record must not say so. It has not ended."""
        if task.started is not None:
            task.started = None
            self.effects.progress.append(task)

    def wait(self, task: Task) -> Waiting:
        """Have a task wait for what it depends on. If the returned `Waiting` is over, it need not wait.

        Raises
        ------
        Impossible
            One of its dependencies cannot be met.
        """
        waiting = self.dependencies.add(task, self.tasks)
        if not waiting.is_over:
            task.move(TaskState.WAITING)
        return waiting

    def recover(self, task: Task) -> None:
        """A task from before a restart: an engine may still have it, or have had it."""
        self.add(task)
        task.move(TaskState.RECOVERING)
        for number in task.named_engines if self.recovery_deadline is not None else ():
            self.recovering_named.setdefault(number, []).append(task)
        self.dependencies.want(task)

    def await_engine(self, pool: Pool) -> None:
        """No engine has the resources that these tasks need: they end unless one comes within the grace."""
        pool.orphaned_at = self.now
        self.after(self.settings.engine_grace, _end_orphans, pool)

    # ------------------------------------------------------------------------------------------ to an engine

    def hold(self, engine: Engine, tasks: list[Task]) -> None:
        """Give an engine tasks that a queue has let go of: these are QUEUED."""
        assert _GIVEN in TRANSITIONS
        if not engine.held:
            engine.last_heard = self.now
        held, state, number = engine.held, TaskState.HELD, engine.id
        for task in tasks:
            task.state = state
            task.engine = number
            held[task.spec.id] = task
        self.pools.given(engine)
        self.effects.send(number, tasks)

    def fill_direct(self, engine: Engine) -> None:
        """Give an engine its direct tasks, as many as it has room for."""
        backlog = self.backlogs[engine.id]
        while backlog and engine.has_room:
            tasks = backlog.take(engine.room)
            if tasks:
                self.hold(engine, tasks)
        self.pools.changed(engine)

    def is_credible(self, task: Task, attempt: int) -> bool:
        """Whether a recovered task may have come to this attempt before the restart. Not all attempts are recorded."""
        return attempt <= task.attempt + UNRECORDED_ATTEMPTS

    def may_have(self, engine: Engine, task: Task, attempt: int) -> bool:
        """Whether an engine may keep an attempt with which it came back. It checks itself what its properties allow."""
        if not self.is_credible(task, attempt):
            return False
        return task.spec.engine == engine.id if task.is_direct else self.pools.requirement_of(task).allows(engine)

    def claim(self, engine: Engine, task: Task, attempt: int, *, waits: bool = False) -> None:
        """A RECOVERING task is in the hands of an engine that came back."""
        task.move(TaskState.HELD)
        task.engine, task.attempt = engine.id, attempt
        engine.held[task.id] = task
        if waits:
            engine.waiting.add(task.id)
        ran_before(task, engine)

    def recall(self, engine: Engine, ids: Sequence[TaskId], *, interrupt: bool = False) -> None:
        """Ask an engine to give back tasks; `interrupt`: also the one that it is running."""
        engine.recalled.update(ids)
        if interrupt:
            self.effects.cancel(engine.id, ids)
        else:
            self.effects.recall(engine.id, ids)

    def release(self, engine: Engine, ids: Sequence[TaskId]) -> list[Task]:
        """Take tasks away from an engine: the only way by which it comes to hold fewer. Other ids are ignored.

        The caller must let each returned task make its next transition, then call `fill_direct`.
        """
        released = list(filter(None, map(engine.held.pop, ids, repeat(None))))
        for task in released:
            task.engine = None
            if task.started is not None and task.state is not TaskState.ENDED:
                self.unstart(task)
        if engine.recalled:
            engine.recalled.difference_update(ids)
        if engine.waiting:
            engine.waiting.difference_update(ids)
        return released

    def set_waiting(self, engine: Engine, ids: Sequence[TaskId]) -> None:
        """These tasks of an engine wait for others, so that it has room for more."""
        engine.waiting = {id for id in ids if id in engine.held}
        if self.unclaimed:
            self.unclaimed.waiting(engine, ids)
        self.pools.changed(engine)

    # ------------------------------------------------------------------------------------------ to its end

    def finish(
        self,
        engine: Engine | None,
        results: Sequence[TaskDone],
        frames: Mapping[TaskId, Sequence[Any]],
        goes_on: Callable[[State, Task, TaskDone, Engine | None], bool],
    ) -> list[TaskDone]:
        """An engine (None: one that is not known any more) sent results: end their tasks.

        Where a task did not succeed, `goes_on` may have given it another attempt: then it returns True.
        Returns the results that were accepted: those of unknown tasks, and of attempts that the core has given up,
        are ignored.
        """
        assert _FINISHED in TRANSITIONS
        assert _FINISHED_AT_LAST in TRANSITIONS
        tasks, shares, dependencies = self.tasks, self.pools.shares, self.dependencies
        dependents, wanted, outcomes = dependencies.dependents, dependencies.wanted, dependencies.outcomes.young
        ended, several, recovering = self.effects.ended, len(shares) > 1, TaskState.RECOVERING
        number, uuid = (engine.id, engine.uuid) if engine is not None else (None, None)
        success = TaskOutcome(True, uuid)
        accepted, succeeded = [], []
        for done in results:
            id = done.id
            task = tasks.get(id)
            if task is None:  # it has its outcome already, or its client has not said it again
                if self.unclaimed:
                    self.unclaimed.finished(engine, done, frames.get(id, ()))
                continue
            if task.state is recovering:
                if not self.is_credible(task, done.attempt):
                    continue
                task.attempt = done.attempt
                ran_before(task, engine)
            elif number is None or task.engine != number or done.attempt != task.attempt:
                continue  # late news of an attempt that the core has given up
            accepted.append(done)
            if several:
                shares.learn(task.client, done)
            if done.status != "ok":
                if engine is not None:
                    self.release(engine, (id,))
                if not goes_on(self, task, done, engine):
                    if task.attempts is not None:
                        task.note(past_attempt(task, done, engine))
                    self.end(task, done, frames.get(id, ()), uuid)
                continue
            if task.attempts is not None:
                task.note(past_attempt(task, done, engine))
            task.state = TaskState.ENDED
            del tasks[id]
            succeeded.append(id)
            ended.append(Ended(task, done, frames.get(id, ()) if frames else ()))
            if task.spec.engine >= 0:
                dependencies.remember(task, done, uuid)
            else:  # the same, with one outcome for all
                outcomes[id] = success
                if id in dependents:
                    dependencies.news.append((id, success))
                if id in wanted:
                    self.effects.kept.append(ended[-1])
            if task.spec.options is not None:
                dependencies.unwant(task)
        if engine is not None:
            self.release(engine, succeeded)
        dependencies.outcomes.trim()
        return accepted

    def end(
        self,
        task: Task,
        done: TaskDone,
        frames: Sequence[Any] = (),
        ran_on: EngineUuid | None = None,
        blame: TaskOutcome | None = None,
        *,
        cut_short: bool = False,
    ) -> None:
        """A task has its outcome. If an engine held it, it is released by then.

        Parameters
        ----------
        frames : sequence of buffers
            The large buffers of its result.
        ran_on : EngineUuid, optional
            The engine that produced the outcome.
        blame : TaskOutcome, optional
            The outcome of another task which made this one impossible.
        cut_short : bool
            An engine had begun the task, and has sent no outcome.
        """
        task.move(TaskState.ENDED)
        self.tasks.pop(task.id, None)
        ended = Ended(task, done, frames, cut_short)
        self.effects.ended.append(ended)
        if done.status == "ok" and task.id in self.dependencies.wanted:
            self.effects.kept.append(ended)
        if task.spec.options is not None:
            self.dependencies.remove(task)
            self.dependencies.unwant(task)
        self.dependencies.remember(task, done, ran_on, blame)

    def abort(self, task: Task, reason: str, attempt: Attempt | None = None) -> None:
        """End a task because it is not wanted any more. `attempt`: the one that this cuts short."""
        arguments = task.spec.arguments or None
        error = ErrorInfo("TaskAborted", reason, method=task.spec.kind, arguments=arguments)
        if attempt is not None:
            error.engine_id, error.engine_uuid, error.host = attempt.engine, attempt.engine_uuid, attempt.host
        self._end_with(task, "aborted", error, attempt=attempt)

    def fail(
        self,
        task: Task,
        ename: str,
        evalue: str,
        engine: Engine | None = None,
        *,
        traceback: str = "",
        blame: TaskOutcome | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        """End a task with an error that no engine sent.

        `engine`: where it was or should have been; `attempt`: the one that this cuts short.
        """
        number, uuid = (engine.id, engine.uuid) if engine is not None else (None, None)
        error = ErrorInfo(ename, evalue, traceback, number, uuid, task.spec.kind)
        error.host, error.arguments = engine.host if engine is not None else None, task.spec.arguments or None
        self._end_with(task, "error", error, blame, attempt)

    def _end_with(
        self,
        task: Task,
        status: Status,
        error: ErrorInfo,
        blame: TaskOutcome | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        done = TaskDone(task.id, task.attempt, status, None, self.now, error=error)
        if error.engine_id is not None:
            done.engine = EngineId(error.engine_id)
        if attempt is not None:
            task.note(attempt)
            error.stopped = True
            done.started, done.completed, done.peak_memory = attempt.started, attempt.ended, attempt.peak_memory
        self.end(task, done, blame=blame, cut_short=attempt is not None)


def ran_before(task: Task, engine: Engine | None) -> None:
    """Note where the tasks that this one follows have run, when the core learns that an engine had it before a restart.

    It was given to `engine` only if they had run there; where they ran is not kept anywhere else.
    """
    options = task.spec.options
    if engine is not None and options is not None and options.follow is not None and options.follow.tasks:
        task.needs = task.needs or Needs()
        task.needs.followed = frozenset({engine.uuid})


def _end_orphans(state: State, pool: Pool) -> None:
    """End the tasks of a pool for which there has been no engine for the whole grace."""
    grace = state.settings.engine_grace
    if state.pools.pools.get(pool.requirement) is not pool or not state.pools.is_orphan(pool):
        return
    if pool.orphaned_at is None or state.now < pool.orphaned_at + grace:
        return  # an engine has come and gone meanwhile
    reason = f"for {grace:g} s there has been no engine {in_words(pool.requirement)}"
    for task in state.pools.take_out(pool):
        state.fail(task, "ImpossibleDependency", reason)
