"""The task scheduler: events in, actions out.

No sockets, clocks, files or threads here. Time arrives as `now`, chance follows from a seed, so a test can replay
any run. Only `handle` changes state. Everything comes and goes in batches, so that a task costs a few
microseconds.

Duplicates, late news and unknown ids are expected: each has its line below, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any

from ..config import SchedulerSettings
from ..errors import ConfigError
from ..ids import EngineId, EngineUuid, TaskId
from ..messages import Attempt, ErrorInfo, TaskDone, TaskOptions
from .actions import (
    Action,
    AskEngine,
    CancelTasks,
    Ended,
    KillTask,
    RecallTasks,
    RecordTasks,
    StopEngine,
)
from .balance import Balancer, recall
from .deadlines import Deadlines
from .engines import Engine
from .events import (
    AbortRequested,
    ControllerStopped,
    EngineJoined,
    EngineLeft,
    EngineLost,
    EnginesStopped,
    Event,
    OutcomesFound,
    PropertiesAnswered,
    PropertiesChanged,
    TasksAnswered,
    TasksFinished,
    TasksRecovered,
    TasksReturned,
    TasksSubmitted,
    Ticked,
)
from .graph import Graph, Impossible, Outcome, Waits, depends
from .pools import Pool, Pools
from .queues import TaskQueue
from .requirements import Requirement, in_words, is_plain, requirement_of
from .schemes import NOT_WITH_PURE
from .tasks import Needs, State, Task
from .turn import Turn

_NO_OPTIONS = TaskOptions()

#: Seconds an engine has to give tasks back. One whose task holds the GIL cannot, for as long as that takes.
PATIENCE = 1.0
#: Seconds between two orders to kill the same task, at least.
KILL_REST = 0.1

#: What to do for a task whose targets are gone.
_NO_WAITING = (
    ". It does not wait for others to take these numbers, whatever its retries: give it more targets, or resubmit it "
    "once one is there"
)


class Scheduler:
    """Who runs what, when, and what becomes of it."""

    def __init__(self, settings: SchedulerSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or SchedulerSettings()
        self.tasks: dict[TaskId, Task] = {}
        self.engines: dict[EngineId, Engine] = {}
        self.pools = Pools(self.engines, self.settings.scheme, Random(seed))
        self.graph = Graph(self.settings.outcomes_kept)
        self.balancer = Balancer()
        #: until when engines may claim recovered tasks
        self.recovery_deadline: float | None = None
        self._numbers: dict[EngineUuid, EngineId] = {}
        #: dependencies that must be met, cancelled tasks that must have stopped, pools that must have found an engine
        self._deadlines = Deadlines(lambda subject: isinstance(subject, Task) and subject.state is State.ENDED)
        self._now = 0.0
        self._turn = Turn()
        self._handlers: dict[type[Event], Callable[[Any], Iterable[Action] | None]] = {
            TasksSubmitted: self._submitted,
            TasksAnswered: self._answered,
            TasksRecovered: self._recovered,
            TasksFinished: self._finished,
            TasksReturned: self._returned,
            EngineJoined: self._joined,
            EngineLost: self._lost,
            EngineLeft: self._left,
            EnginesStopped: self._stopped,
            AbortRequested: self._abort_requested,
            OutcomesFound: self._outcomes_found,
            PropertiesAnswered: self._properties_answered,
            PropertiesChanged: self._properties_changed,
            ControllerStopped: self._controller_stopped,
            Ticked: self._ticked,
        }

    # ------------------------------------------------------------------------------------------ the face

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event; returns what is to be done, in order."""
        self._now = now
        turn = self._turn = Turn()
        actions = list(self._handlers[type(event)](event) or ())
        if turn.news:
            self._settle()
        for engine, tasks in self.pools.deal():
            self._give(engine, tasks)
        actions += turn.actions(self.graph)
        if self.pools.questions:
            actions += [AskEngine(engine, functions) for engine, functions in self.pools.questions.items()]
            self.pools.questions = {}
        if self.settings.scheme == "pure":
            return actions
        if self.settings.hwm is None and any(
            len(tasks) > 1 or len(self.engines[id].held) > 1 for id, tasks in turn.sends.items()
        ):
            self.balancer.watch(len(self.engines), now)
        recalls = list(self.balancer.stuck(self.engines, now))
        if self.pools.ready:
            self.balancer.look_at = None
        else:
            recalls += self.balancer.recalls(self.engines, self.pools.idle.values(), self._may_run_on, now)
        for asked in recalls:
            engine = self.engines[asked.engine]
            self.pools.changed(engine)  # one that is stuck takes no more
            self._deadlines.add(now + PATIENCE, self._unanswered, engine)
        actions += recalls
        return actions

    def next_deadline(self) -> float | None:
        """When to send Ticked, unless something happens before; None: not needed."""
        balancer = self.balancer
        deadlines = (self.recovery_deadline, balancer.look_at, balancer.stuck_at, self._deadlines.next)
        return min((at for at in deadlines if at is not None), default=None)

    def queued(self) -> Iterator[Task]:
        """The load-balanced tasks that wait for an engine."""
        return iter(self.pools)

    # ------------------------------------------------------------------------------------------ tasks come

    def _submitted(self, event: TasksSubmitted) -> Iterable[Action]:
        known, client, frames, new, plain = self.tasks, event.client, event.frames, [], []
        decides = self.settings.scheme != "pure"  # which refuses some options
        for spec in event.tasks:
            if spec.id in known:
                continue  # a repetition
            task = Task(spec, client)
            known[spec.id] = task
            new.append(task)
            if frames:
                task.frames = frames.get(spec.id, ())
            options = spec.options
            if options is not None:
                task.retries_left = options.retries
            if spec.engine < 0 and (options is None or (decides and is_plain(options))):
                plain.append(task)  # what `_arrive` would do
            else:
                self._arrive(task)
        if plain:
            self.pools.ready.push(plain, client)
        return [RecordTasks(new)] if new else ()

    def _answered(self, event: TasksAnswered) -> None:
        for answer in event.answers:
            id = answer.spec.id
            if id in self.tasks or self.graph.memory.get(id) is not None:
                continue  # a repetition
            task = Task(answer.spec, event.client, answer.frames, state=State.ENDED)
            self._turn.ended.append(Ended(task, answer.done, answer.result_frames))
            if id in self.graph.wanted:
                self._turn.kept.append(self._turn.ended[-1])
            self._remember(task, answer.done, answer.engine)
        self.graph.memory.trim()

    def _recovered(self, event: TasksRecovered) -> None:
        self.recovery_deadline = event.deadline
        for found in event.tasks:
            if found.spec.id in self.tasks:
                continue  # a repetition
            retries = found.spec.options.retries if found.spec.options is not None else 0
            task = Task(found.spec, found.client, found.frames, retries)
            if found.attempts:
                task.attempts = list(found.attempts)
                task.attempt = found.attempts[-1].number + 1
                task.retries_left = max(0, retries - len(found.attempts))
                task.deaths = sum(attempt.started is None for attempt in found.attempts)  # only a death leaves that
            task.state = State.RECOVERING
            self.tasks[task.id] = task
            self.graph.want(task)
            if found.spec.options is not None and not task.is_direct:
                self._check_scheme(task, found.spec.options)

    def _arrive(self, task: Task) -> None:
        """A task begins its way: it is queued, or waits for others, or ends here and now."""
        options = task.spec.options
        if options is None:
            self._enqueue(task)
            return
        recovering = task.state is State.RECOVERING
        if not recovering:
            self.graph.want(task)
        if task.is_direct:
            if depends(options):
                self._fail(
                    task, "InvalidDependency", "a direct task cannot depend on others: only its view's order holds"
                )
            else:
                self._enqueue(task)
            return
        if not self._check_scheme(task, options):
            return
        if options.timeout is not None:
            deadline = self._now + options.timeout
            if recovering:  # some of it has passed in the controller's earlier life
                deadline = max(self._now, min(deadline, task.spec.submitted + options.timeout))
            task.needs = Needs(deadline=deadline)
            self._deadlines.add(deadline, self._out_of_time, task)
        if not depends(options):
            self._enqueue(task)
            return
        try:
            waits = self.graph.add(task, self.tasks)
        except Impossible as impossible:
            self._impossible(task, impossible)
            return
        if waits.is_over:
            self._released(task, waits)
        elif recovering:
            task.move(State.WAITING)
        else:
            task.state = State.WAITING

    def _check_scheme(self, task: Task, options: TaskOptions) -> bool:
        """Whether there is the scheme that a task asks for, and it can honour the rest; else the task ends."""
        if (options.scheme or self.settings.scheme) == "pure":
            wished = [name for name in NOT_WITH_PURE if getattr(options, name) != getattr(_NO_OPTIONS, name)]
            if wished:
                self._fail(
                    task,
                    "ConfigError",
                    f"the scheme 'pure' decides nothing for single tasks, so it cannot honour {', '.join(wished)}: "
                    "leave that out, or use another scheme",
                )
                return False
        try:
            self.pools.index_of(options.scheme or "")
        except ConfigError as error:
            self._fail(task, "ConfigError", str(error))
            return False
        return True

    def _released(self, task: Task, waits: Waits) -> None:
        """All that a task depends on has ended well."""
        if waits.followed is not None:
            task.needs = task.needs or Needs()
            task.needs.followed = waits.followed
        if task.state is not State.QUEUED:
            task.move(State.QUEUED)
        self._enqueue(task)

    def _enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a QUEUED task where it belongs; end it if there is no such place."""
        if task.state is State.RECOVERING:
            task.move(State.QUEUED)
        if task.is_direct:
            engine = self.engines.get(task.spec.engine)
            if engine is None or engine.stopping:
                self._fail(
                    task,
                    "EngineError",
                    f"there is no engine {task.spec.engine} (any more), which this direct task is for",
                )
                return
            engine.backlog.push((task,), task.client, first=first)
            if not first:
                self._fill_direct(engine)
            return
        requirement = requirement_of(task, self._numbers)
        if requirement not in self.pools.pools:
            reason = self._hopeless(requirement)
            if reason is not None:
                self._fail(task, "ImpossibleDependency", reason + _last_refusal(task))
                return
        pool = self.pools.put(task, requirement, first=first)
        if pool is not None and pool.orphaned_at is None and self.pools.is_orphan(pool):
            self._orphan(pool)

    def _hopeless(self, requirement: Requirement) -> str | None:
        """Why no engine that is there will ever run such tasks."""
        if requirement.targets is not None and not any(target in self.engines for target in requirement.targets):
            reason = f"none of the engines it may run on is there (any more): it needs one {in_words(requirement)}"
            return reason if requirement.follows else reason + _NO_WAITING
        if requirement.refused and not any(requirement.allows(engine) for engine in self.engines.values()):
            return f"every engine that it may run on has raised UnmetDependency: it needs one {in_words(requirement)}"
        return None

    # ------------------------------------------------------------------------------------------ tasks go

    def _give(self, engine: Engine, tasks: list[Task]) -> None:
        if not engine.held:
            engine.last_heard = self._now
        held, state = engine.held, State.HELD
        for task in tasks:
            task.state = state  # from QUEUED: queues give no others
            task.engine = engine
            held[task.spec.id] = task
        self.pools.given(engine)
        self._turn.send(engine, tasks)

    def _fill_direct(self, engine: Engine) -> None:
        backlog = engine.backlog
        while backlog and engine.has_room:
            tasks = backlog.take(engine.room)
            if tasks:
                self._give(engine, tasks)
        self.pools.changed(engine)

    def _may_have_begun(self, task: Task, engine: Engine) -> bool:
        """Whether an engine that has a task in hand may keep it: whether its properties allow it, it looks itself."""
        return task.spec.engine == engine.id if task.is_direct else requirement_of(task, self._numbers).allows(engine)

    def _may_run_on(self, task: Task, engine: Engine) -> bool:
        if task.is_direct:
            return task.spec.engine == engine.id
        return requirement_of(task, self._numbers).fits(engine)

    # ------------------------------------------------------------------------------------------ outcomes

    def _finished(self, event: TasksFinished) -> None:
        engine = self.engines.get(event.engine)
        frames, ended, tasks, shares = event.frames, self._turn.ended, self.tasks, self.pools.shares
        graph, several = self.graph, len(shares) > 1
        dependents, wanted, memory = graph.dependents, graph.wanted, graph.memory.young
        well = Outcome(True, engine.uuid if engine is not None else None)
        accepted = []
        for done in event.results:
            task = tasks.get(done.id)
            if task is None:
                continue  # it has its outcome already
            if task.state is State.RECOVERING:
                task.attempt = done.attempt
                _ran_before(task, engine)
            elif engine is None or task.engine is not engine or done.attempt != task.attempt:
                continue  # late news of an attempt we gave up on
            accepted.append(done)
            if engine is not None:
                engine.held.pop(done.id, None)
            if several:
                shares.learn(task.client, done)
            if done.status != "ok" and self._goes_on(task, done, engine):
                continue
            if task.attempts is not None:
                task.attempts.append(_attempt(task, done, engine))
            task.state = State.ENDED  # from HELD or RECOVERING: all others were skipped above
            task.engine = None
            del tasks[done.id]
            ended.append(Ended(task, done, frames.get(done.id, ()) if frames else ()))
            if done.status != "ok" or task.spec.engine >= 0:
                self._remember(task, done, well.engine)
            else:
                memory[done.id] = well
                if done.id in dependents:
                    self._turn.news.append((done.id, well))
                if done.id in wanted:
                    self._turn.kept.append(ended[-1])
            if task.spec.options is not None:
                self.graph.unwant(task)
        self.graph.memory.trim()
        if engine is not None:
            engine.last_heard = self._now
            engine.completed += len(accepted)
            engine.learn(accepted)
            if engine.recalled:
                engine.recalled.difference_update(done.id for done in accepted)
            self._fill_direct(engine)

    def _goes_on(self, task: Task, done: TaskDone, engine: Engine | None) -> bool:
        """Whether a task that did not end well gets another attempt."""
        if done.status == "unmet":
            done.status = "error"
            if engine is None or task.is_direct or task.aborting:
                return False
            task.needs = task.needs or Needs()
            task.needs.refused |= {engine.uuid}
            if task.needs.deadline is not None and self._now >= task.needs.deadline:
                self._again(task, _attempt(task, done, engine), first=True, queue=False)
                self._out_of_time(task)
            else:
                self._again(task, _attempt(task, done, engine), first=True)
            return True
        if done.status == "error" and task.retries_left > 0 and not task.aborting:
            task.retries_left -= 1
            self._again(task, _attempt(task, done, engine), first=False)
            return True
        return False

    def _again(self, task: Task, attempt: Attempt, *, first: bool, queue: bool = True) -> None:
        """Queue a task for its next attempt."""
        task.attempts = [*(task.attempts or ()), attempt]
        task.attempt += 1
        task.engine = None
        task.move(State.QUEUED)
        self._turn.retried.append(task)
        if queue:
            self._enqueue(task, first=first)

    def _returned(self, event: TasksReturned) -> None:
        engine = self.engines.get(event.engine)
        if engine is None:
            return
        engine.last_heard = self._now
        back = []
        for held in event.tasks:
            task = engine.held.get(held.id)
            if task is None or task.attempt != held.attempt:
                continue  # it is no longer ours to take back
            del engine.held[held.id]
            back.append(task)
        engine.recalled.clear()
        self._requeue(back)
        self._fill_direct(engine)

    def _unanswered(self, engine: Engine) -> None:
        """An engine was asked for tasks back some time ago. If it has been silent since, others run them.

        It reads its messages before it begins another task, so it will not run them too. Should it have begun one,
        its result comes too late, as that of an earlier attempt.
        """
        silent = self._now - engine.last_heard >= PATIENCE
        if self.engines.get(engine.id) is not engine or not engine.recalled or not silent:
            return
        back = [
            task
            for task in list(engine.held.values())[1:]
            if task.id in engine.recalled and not task.aborting and not task.is_direct
        ]
        for task in back:
            del engine.held[task.id]
            engine.recalled.discard(task.id)
            task.attempt += 1
        if engine.fixed_hwm is None:
            engine.hwm = 1
        self._requeue(back)
        self.pools.changed(engine)

    def _requeue(self, tasks: Sequence[Task]) -> None:
        """Put unstarted tasks that an engine held back to the front, keeping their order.

        Direct ones go to their engine with the caller's `_fill_direct`.
        """
        for task in reversed(tasks):
            task.engine = None
            if task.aborting:
                self._end(task, "aborted", "TaskAborted", "aborted before it started")
            else:
                task.move(State.QUEUED)
                self._enqueue(task, first=True)

    def _fail(self, task: Task, ename: str, evalue: str, engine: Engine | None = None) -> None:
        self._end(task, "error", ename, evalue, engine)

    def _impossible(self, task: Task, impossible: Impossible) -> None:
        blame = impossible.blame.behind(task.id) if impossible.blame is not None else None
        self._end(task, "error", impossible.error, f"task {task.id} can never run: {impossible.reason}", blame=blame)

    def _end(
        self,
        task: Task,
        status: str,
        ename: str,
        evalue: str,
        engine: Engine | None = None,
        *,
        blame: Outcome | None = None,
    ) -> None:
        """Give a task an outcome that no engine made."""
        task.move(State.ENDED)
        task.engine = None
        del self.tasks[task.id]
        error = ErrorInfo(
            ename, evalue, "", engine.id if engine else None, engine.uuid if engine else None, task.spec.kind
        )
        done = TaskDone(task.id, task.attempt, status, None, self._now, error=error)
        if engine is not None:
            done.engine = engine.id
        self._turn.ended.append(Ended(task, done))
        if task.spec.options is not None:
            self.graph.remove(task)
            self.graph.unwant(task)
        self._remember(task, done, None, blame)

    # ------------------------------------------------------------------------------------------ dependencies

    def _remember(self, task: Task, done: TaskDone, engine: EngineUuid | None, blame: Outcome | None = None) -> None:
        """Keep how a task ended for those that depend on it, and tell those that wait."""
        outcome = blame
        if outcome is None:
            cause = outcome_in_words(done.status, done.error)
            path = (task.id,) if done.status != "ok" else ()
            outcome = Outcome(done.status == "ok", engine, task.is_direct, cause, path, len(path))
        self.graph.memory.young[task.id] = outcome
        if task.id in self.graph.dependents:
            self._turn.news.append((task.id, outcome))

    def _settle(self) -> None:
        """Tasks have ended: let those that waited for them go on, or end. One after another, however long the chain."""
        for id, outcome in self._turn.news:  # it grows meanwhile
            for task, verdict in self.graph.ended(id, outcome):
                if isinstance(verdict, Impossible):
                    self._impossible(task, verdict)
                else:
                    self._released(task, verdict)

    def _outcomes_found(self, event: OutcomesFound) -> None:
        self._turn.news += event.outcomes.items()

    def _out_of_time(self, task: Task) -> None:
        """The dependencies of a task had to be met by now."""
        options = task.spec.options
        assert options is not None
        waits = self.graph.waiting.get(task.id)
        if waits is not None and waits.task is task:
            pending = sum(condition.pending for condition in waits.conditions if not condition.met)
            self._fail(
                task,
                "DependencyTimeout",
                f"task {task.id} waited {options.timeout:g} s for the tasks it depends on: {pending} had not ended",
            )
        elif task.state is State.QUEUED and options.resources and self._is_orphan(task):
            wish = in_words(requirement_of(task, self._numbers))
            self._fail(task, "DependencyTimeout", f"task {task.id} found no engine {wish} within {options.timeout:g} s")
        elif task.state is State.QUEUED and task.needs is not None and task.needs.refused:
            count = len(task.needs.refused)
            self._fail(
                task,
                "DependencyTimeout",
                f"task {task.id} found no engine within {options.timeout:g} s: {count} raised UnmetDependency"
                + _last_refusal(task),
            )

    def _is_orphan(self, task: Task) -> bool:
        """There is no engine with the resources a queued task needs."""
        pool = self.pools.pools.get(requirement_of(task, self._numbers))
        return pool is not None and self.pools.is_orphan(pool)

    # ------------------------------------------------------------------------------------------ aborting

    def _abort_requested(self, event: AbortRequested) -> Iterable[Action]:
        asked: dict[EngineId, list[TaskId]] = {}
        for id in event.tasks:
            task = self.tasks.get(id)
            if task is None:
                continue  # it has ended
            if task.engine is None and task.state is not State.RECOVERING:
                self._end(task, "aborted", "TaskAborted", "aborted before it started")
                continue
            task.aborting = True
            task.cancelling |= event.running
            if task.engine is None:
                continue  # an engine that is on its way back may be running it
            asked.setdefault(task.engine.id, []).append(id)
            if event.running:
                self._deadlines.add(self._now + self.settings.cancel_grace, self._kill, task)
        self.pools.drop_empty()
        for number, ids in asked.items():
            engine = self.engines[number]
            recall_tasks = recall(engine, ids)
            yield CancelTasks(number, ids) if event.running else recall_tasks

    def _kill(self, task: Task) -> None:
        """A cancelled task has had its grace, and gets another: its engine may not even have begun it."""
        if task.engine is not None:
            self._turn.kills.append(KillTask(task.engine.id, task.id))
            self._deadlines.add(self._now + max(self.settings.cancel_grace, KILL_REST), self._kill, task)

    def _kill_other(self, subject: tuple[Engine, TaskId]) -> None:
        """An engine came back with a task that is no longer its own, and has had time to let go of it."""
        engine, id = subject
        task = self.tasks.get(id)
        if self.engines.get(engine.id) is engine and (task is None or task.engine is not engine):
            self._turn.kills.append(KillTask(engine.id, id))

    def _controller_stopped(self, event: ControllerStopped) -> None:
        for task in list(self.tasks.values()):
            self._end(task, "aborted", "TaskAborted", event.reason)
        self._turn.news.clear()
        for engine in self.engines.values():
            engine.held.clear()
            engine.backlog.clear()
            engine.recalled.clear()
            self.pools.changed(engine)

    # ------------------------------------------------------------------------------------------ engines come and go

    def _joined(self, event: EngineJoined) -> Iterable[Action]:
        engine = self.engines.get(event.engine)
        if engine is not None and engine.uuid != event.uuid:
            self._remove(event.engine, "another engine took its place", running=None)
            engine = None
        if engine is None:
            engine = Engine(
                event.engine,
                event.uuid,
                event.host,
                event.pid,
                event.nanny,
                event.resources,
                TaskQueue(self.pools.shares),
                self.settings.hwm,
                self._now,
            )
            self.engines[event.engine] = engine
            self._numbers[event.uuid] = event.engine
            self.pools.joined(engine)
        engine.asked.clear()  # the question, or the answer, may have been lost
        self.pools.properties_changed(engine)
        in_hand: dict[TaskId, int] = {}
        for held in event.held:  # of a task that is being retried there may be an old result, too
            in_hand[held.id] = max(held.attempt, in_hand.get(held.id, 0))
        recalled, cancelled = [], []
        for id, attempt in in_hand.items():
            task = self.tasks.get(id)
            if task is not None and task.state is State.RECOVERING and self._may_have_begun(task, engine):
                task.move(State.HELD)
                task.engine, task.attempt = engine, attempt
                engine.held[id] = task
                _ran_before(task, engine)
            if task is None or task.engine is not engine:
                cancelled.append(id)  # ended, or given to another: it is not to keep the engine from its tasks
                self._deadlines.add(self._now + self.settings.cancel_grace, self._kill_other, (engine, id))
            elif task.cancelling:
                cancelled.append(id)
                self._deadlines.add(self._now + self.settings.cancel_grace, self._kill, task)
            elif task.aborting:
                recalled.append(id)
        # Of what we gave it, it has not got these: they were lost on the way.
        missing = [task for id, task in engine.held.items() if in_hand.get(id) != task.attempt]
        for task in missing:
            del engine.held[task.id]
        engine.recalled.clear()
        self._requeue(missing)
        self._fill_direct(engine)
        if recalled:
            yield RecallTasks(engine.id, recalled)
        if cancelled:
            yield CancelTasks(engine.id, cancelled)
        if engine.stopping:
            yield StopEngine(engine.id)  # it may not have heard

    def _left(self, event: EngineLeft) -> None:
        self._remove(event.engine, "it left", running=None)

    def _lost(self, event: EngineLost) -> None:
        engine = self.engines.get(event.engine)
        first = next(iter(engine.held), None) if engine else None
        running = event.running if event.known else first
        self._remove(event.engine, event.cause, running, event.overran, event.peak_memory)

    def _remove(
        self,
        id: EngineId,
        cause: str,
        running: TaskId | None,
        overran: bool = False,
        peak_memory: int | None = None,
    ) -> None:
        """Forget an engine; its tasks go to others, except the one that was running when it went down."""
        engine = self.engines.pop(id, None)
        if engine is None:
            return  # known already
        self._numbers.pop(engine.uuid, None)
        pools = self.pools.removed(engine)
        back = []
        for task in engine.held.values():
            task.engine = None
            attempt = None
            if task.id == running:
                attempt = Attempt(task.attempt, id, engine.uuid, engine.host, None, self._now, cause, peak_memory)
            if task.aborting:
                self._note(task, attempt)
                self._end(task, "aborted", "TaskAborted", f"aborted; engine {id} was lost meanwhile: {cause}")
            elif attempt is not None and overran:
                self._overran(task, engine, cause, attempt)
            elif task.is_direct:
                self._note(task, attempt)
                self._fail(task, "EngineError", _died(engine, cause, task, task.id == running), engine)
            elif attempt is None:
                # It may have run, with its result lost on the way: another attempt, at no cost to its retries.
                task.attempt += 1
                back.append(task)
            else:
                self._burn(task, engine, cause, attempt)
        for task in list(engine.backlog):
            self._fail(task, "EngineError", _died(engine, cause, task, False), engine)
        self._requeue(back)
        for pool in pools:
            self._look_again(pool)

    def _note(self, task: Task, attempt: Attempt | None) -> None:
        if attempt is not None:
            task.attempts = [*(task.attempts or ()), attempt]

    def _burn(self, task: Task, engine: Engine, cause: str, attempt: Attempt) -> None:
        """An engine died running this task."""
        task.deaths += 1
        if task.retries_left > 0 and task.deaths < self.settings.death_limit:
            task.retries_left -= 1
            self._again(task, attempt, first=True)
            return
        self._note(task, attempt)
        message = _died(engine, cause, task, True)
        if task.deaths > 1:
            message += f" It was running on {task.deaths} engines when they died, so it is not tried again."
        self._fail(task, "EngineError", message, engine)

    def _overran(self, task: Task, engine: Engine, cause: str, attempt: Attempt) -> None:
        """An engine was killed because this task ran for too long."""
        if task.retries_left > 0 and not task.is_direct:
            task.retries_left -= 1
            self._again(task, attempt, first=True)
            return
        self._note(task, attempt)
        self._fail(task, "TaskTimeout", cause, engine)

    def _look_again(self, pool: Pool) -> None:
        """An engine that a pool counted on is gone: what waits there may wait for others, or have to end."""
        requirement = pool.requirement
        if self.pools.pools.get(requirement) is not pool:
            return
        if requirement.follows:
            for task in self.pools.take_out(pool):
                self._enqueue(task)
        elif (reason := self._hopeless(requirement)) is not None:
            for task in self.pools.take_out(pool):
                self._fail(task, "ImpossibleDependency", reason + _last_refusal(task))
        elif self.pools.is_orphan(pool):
            self._orphan(pool)

    def _orphan(self, pool: Pool) -> None:
        """There is no engine with the resources these tasks need: they wait for one for a while."""
        pool.orphaned_at = self._now
        self._deadlines.add(self._now + self.settings.engine_grace, self._orphaned, pool)

    def _orphaned(self, pool: Pool) -> None:
        """End the tasks of a pool for which there has been no engine all the while."""
        grace = self.settings.engine_grace
        if self.pools.pools.get(pool.requirement) is not pool or not self.pools.is_orphan(pool):
            return
        if pool.orphaned_at is None or self._now < pool.orphaned_at + grace:
            return  # one has come and gone meanwhile
        reason = f"for {grace:g} s there has been no engine {in_words(pool.requirement)}"
        for task in self.pools.take_out(pool):
            self._fail(task, "ImpossibleDependency", reason)

    def _properties_answered(self, event: PropertiesAnswered) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None:
            self.pools.answered(engine, event.answers)

    def _properties_changed(self, event: PropertiesChanged) -> None:
        for id in event.engines:
            engine = self.engines.get(id)
            if engine is not None:
                self.pools.properties_changed(engine)

    def _stopped(self, event: EnginesStopped) -> Iterable[Action]:
        for id in event.engines:
            engine = self.engines.get(id)
            if engine is None or engine.stopping:
                continue
            engine.stopping = True
            self.pools.changed(engine)
            yield StopEngine(id)

    # ------------------------------------------------------------------------------------------ time

    def _ticked(self, event: Ticked) -> None:
        if self.recovery_deadline is not None and self._now >= self.recovery_deadline:
            self.recovery_deadline = None
            self._give_up_recovery()
        for due, subject in self._deadlines.due(self._now):
            due(subject)

    def _give_up_recovery(self) -> None:
        """Engines have had their time to come back with what they were doing."""
        for task in [t for t in self.tasks.values() if t.state is State.RECOVERING]:
            if task.state is not State.RECOVERING:
                continue  # it has ended with another
            if task.aborting:
                self._end(task, "aborted", "TaskAborted", "aborted; its engine did not come back with it")
            elif task.is_direct and task.spec.engine not in self.engines:
                self._fail(
                    task,
                    "EngineError",
                    f"engine {task.spec.engine} did not come back after the controller's restart",
                )
            else:
                # It may have been started in the controller's earlier life.
                task.attempt += 1
                self._arrive(task)


def _ran_before(task: Task, engine: Engine | None) -> None:
    """In the controller's earlier life a task was given to this engine: if it follows others, they ran there."""
    options = task.spec.options
    if engine is not None and options is not None and options.follow is not None and options.follow.tasks:
        task.needs = Needs(followed=frozenset({engine.uuid}))


def _last_refusal(task: Task) -> str:
    """What the last engine said that refused a task, as the end of a sentence."""
    if task.needs is None or not task.needs.refused or not task.attempts:
        return ""
    last = task.attempts[-1]
    return f". Engine {last.engine} said: {last.cause}"


def outcome_in_words(status: str, error: ErrorInfo | None) -> str:
    """What became of a task, as the end of a sentence that begins with "which"."""
    if status == "aborted":
        return "was aborted"
    return f"failed: {error.ename}: {error.evalue[:200]}" if error is not None else "succeeded"


def _attempt(task: Task, done: TaskDone, engine: Engine | None) -> Attempt:
    cause = "ok" if done.error is None else f"{done.error.ename}: {done.error.evalue}"
    uuid, host = (engine.uuid, engine.host) if engine else ("", "")
    trace = done.error.traceback or None if done.error else None
    return Attempt(task.attempt, done.engine, uuid, host, done.started, done.completed, cause, done.peak_memory, trace)  # type: ignore[arg-type]


def _died(engine: Engine, cause: str, task: Task, running: bool) -> str:
    doing = "while running" if running else "before it ran"
    return f"engine {engine.id} ({engine.host}, pid {engine.pid}) was lost {doing} task {task.id}: {cause}."
