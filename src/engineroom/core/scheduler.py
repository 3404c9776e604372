"""The task scheduler: events in, actions out.

No sockets, clocks, files or threads here. Time arrives as `now`, so a test can replay any run. Only `handle`
changes state. Everything comes and goes in batches, so that a task costs a few microseconds.

Duplicates, late news and unknown ids are expected: each has its line below, and changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..config import SchedulerSettings
from ..ids import EngineId, TaskId
from ..messages import Attempt, ErrorInfo, TaskDone
from .actions import Action, Ended, EndTasks, RecallTasks, RecordAttempts, RecordTasks, SendTasks, StopEngine
from .engines import Engine, LoadIndex
from .events import (
    AbortRequested,
    ControllerStopped,
    EngineJoined,
    EngineLeft,
    EngineLost,
    EnginesStopped,
    Event,
    TasksFinished,
    TasksRecovered,
    TasksReturned,
    TasksSubmitted,
    Ticked,
)
from .tasks import State, Task

#: An engine that holds work and has been silent this long may have work taken back for an idle one.
RECALL_AFTER = 0.01
#: Seconds between two looks for such engines, for each engine beyond a hundred.
LOOK_REST = 2e-6

Targets = tuple[EngineId, ...]


class Scheduler:
    """Who runs what, when, and what becomes of it."""

    def __init__(self, settings: SchedulerSettings | None = None) -> None:
        self.settings = settings or SchedulerSettings()
        self.tasks: dict[TaskId, Task] = {}
        self.engines: dict[EngineId, Engine] = {}
        #: load-balanced tasks that any engine may run; ended ones are skipped when they come up
        self.ready: deque[Task] = deque()
        #: load-balanced tasks restricted to some engines
        self.restricted: dict[Targets, deque[Task]] = {}
        self.index = LoadIndex()
        #: until when engines may claim recovered tasks
        self.recovery_deadline: float | None = None
        self._now = 0.0
        #: when to look again whether an idle engine can relieve another; and not before
        self._look_at: float | None = None
        self._rest_until = 0.0
        self._ended: list[Ended] = []
        self._retried: list[Task] = []
        self._sends: dict[EngineId, list[Task]] = {}
        self._handlers: dict[type[Event], Callable[[Any], Iterable[Action] | None]] = {
            TasksSubmitted: self._submitted,
            TasksRecovered: self._recovered,
            TasksFinished: self._finished,
            TasksReturned: self._returned,
            EngineJoined: self._joined,
            EngineLost: self._lost,
            EngineLeft: self._left,
            EnginesStopped: self._stopped,
            AbortRequested: self._abort_requested,
            ControllerStopped: self._controller_stopped,
            Ticked: self._ticked,
        }

    # ------------------------------------------------------------------------------------------ the face

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event; returns what is to be done, in order."""
        self._now = now
        actions = list(self._handlers[type(event)](event) or ())
        self._assign()
        if self._sends:
            actions += [SendTasks(engine, tasks) for engine, tasks in self._sends.items()]
            self._sends = {}
        if self._retried:
            actions.append(RecordAttempts(self._retried))
            self._retried = []
        if self._ended:
            actions.append(EndTasks(self._ended))
            self._ended = []
        if self.ready:
            self._look_at = None
        else:
            actions += self._balance()
        return actions

    def next_deadline(self) -> float | None:
        """When to send Ticked, unless something happens before; None: not needed."""
        deadlines = [at for at in (self.recovery_deadline, self._look_at) if at is not None]
        return min(deadlines, default=None)

    def waiting(self) -> int:
        """How many tasks are in the core's queues, not at an engine."""
        return sum(task.state is State.QUEUED for task in self.ready) + sum(
            task.state is State.QUEUED for queue in self.restricted.values() for task in queue
        )

    # ------------------------------------------------------------------------------------------ tasks come

    def _submitted(self, event: TasksSubmitted) -> Iterable[Action]:
        known, client, frames, new, ready = self.tasks, event.client, event.frames, [], self.ready
        for spec in event.tasks:
            if spec.id in known:
                continue  # a repetition
            task = Task(spec, client)
            known[spec.id] = task
            new.append(task)
            if frames:
                task.frames = frames.get(spec.id, ())
            if spec.engine < 0 and spec.options is None:
                ready.append(task)  # what `_enqueue` would do
            else:
                task.retries_left = spec.options.retries if spec.options is not None else 0
                self._enqueue(task)
        return [RecordTasks(new)] if new else ()

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

    def _enqueue(self, task: Task, *, first: bool = False) -> None:
        """Put a QUEUED task where it belongs; end it if that place is gone."""
        spec = task.spec
        if spec.engine < 0 and (spec.options is None or spec.options.targets is None):
            queue = self.ready
        elif spec.engine >= 0:
            engine = self.engines.get(spec.engine)
            if engine is None or engine.stopping:
                self._fail(
                    task, "EngineError", f"there is no engine {spec.engine} (any more), which this direct task is for"
                )
                return
            queue = engine.backlog
        else:
            assert spec.options is not None
            targets = spec.options.targets
            assert targets is not None
            if not any(target in self.engines for target in targets):
                self._fail(task, "ImpossibleDependency", _no_targets(targets))
                return
            queue = self.restricted.setdefault(targets, deque())
        if first:
            queue.appendleft(task)
        else:
            queue.append(task)
        if spec.engine >= 0 and not first:
            self._fill_direct(self.engines[spec.engine])

    # ------------------------------------------------------------------------------------------ tasks go

    def _assign(self) -> None:
        """Give queued tasks to engines that have room."""
        for targets in list(self.restricted):
            self._assign_restricted(targets)
        ready, index, sends = self.ready, self.index, self._sends
        while ready:
            engine = index.least()
            if engine is None:
                return
            # One task at a time keeps the load even, and costs an update of the index each. Where there are many
            # tasks to an engine, give half of an even share at once: what is uneven, later and smaller shares mend.
            share = min(max(1, len(ready) // (2 * len(index))), engine.room)
            if not engine.held:
                engine.last_heard = self._now
            held, given = engine.held, sends.setdefault(engine.id, [])
            while share and ready:
                task = ready.popleft()
                if task.state is not State.QUEUED:
                    continue  # aborted while it waited
                task.state = State.HELD
                task.engine = engine
                held[task.spec.id] = task
                given.append(task)
                share -= 1
            index.update(engine)
            if not given:
                del sends[engine.id]

    def _assign_restricted(self, targets: Targets) -> None:
        queue = self.restricted[targets]
        while queue:
            if queue[0].state is not State.QUEUED:
                queue.popleft()
                continue
            engines = [e for target in targets if (e := self.engines.get(target)) is not None and e.has_room]
            if not engines:
                return
            self._give(queue.popleft(), min(engines, key=lambda e: e.load), self._sends)
        del self.restricted[targets]

    def _fill_direct(self, engine: Engine) -> None:
        backlog = engine.backlog
        while backlog and engine.has_room:
            task = backlog.popleft()
            if task.state is State.QUEUED:
                self._give(task, engine, self._sends)
        self.index.update(engine)

    def _give(self, task: Task, engine: Engine, sends: dict[EngineId, list[Task]]) -> None:
        task.state = State.HELD  # from QUEUED: checked by the callers, who skip all others
        task.engine = engine
        if not engine.held:
            engine.last_heard = self._now
        engine.held[task.spec.id] = task
        self.index.update(engine)
        if engine.id in sends:
            sends[engine.id].append(task)
        else:
            sends[engine.id] = [task]

    # ------------------------------------------------------------------------------------------ outcomes

    def _finished(self, event: TasksFinished) -> None:
        engine = self.engines.get(event.engine)
        frames, ended, tasks = event.frames, self._ended, self.tasks
        accepted = []
        for done in event.results:
            task = tasks.get(done.id)
            if task is None:
                continue  # it has its outcome already
            if task.state is State.RECOVERING:
                task.attempt = done.attempt
            elif engine is None or task.engine is not engine or done.attempt != task.attempt:
                continue  # late news of an attempt we gave up on
            accepted.append(done)
            if engine is not None:
                engine.held.pop(done.id, None)
            if done.status == "error" and task.retries_left > 0 and not task.aborting:
                task.retries_left -= 1
                self._again(task, _attempt(task, done, engine), first=False)
                continue
            if task.attempts is not None:
                task.attempts.append(_attempt(task, done, engine))
            task.state = State.ENDED  # from HELD or RECOVERING: all others were skipped above
            task.engine = None
            del tasks[done.id]
            ended.append(Ended(task, done, frames.get(done.id, ()) if frames else ()))
        if engine is not None:
            engine.last_heard = self._now
            engine.completed += len(accepted)
            engine.learn(accepted)
            if engine.recalled:
                engine.recalled.difference_update(done.id for done in accepted)
            self._fill_direct(engine)

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

    def _again(self, task: Task, attempt: Attempt, *, first: bool) -> None:
        """Queue a task for its next attempt."""
        task.attempts = [*(task.attempts or ()), attempt]
        task.attempt += 1
        task.engine = None
        task.move(State.QUEUED)
        self._retried.append(task)
        self._enqueue(task, first=first)

    def _fail(self, task: Task, ename: str, evalue: str, engine: Engine | None = None) -> None:
        self._end(task, "error", ename, evalue, engine)

    def _end(self, task: Task, status: str, ename: str, evalue: str, engine: Engine | None = None) -> None:
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
        self._ended.append(Ended(task, done))

    # ------------------------------------------------------------------------------------------ aborting

    def _abort_requested(self, event: AbortRequested) -> Iterable[Action]:
        recalls: dict[EngineId, list[TaskId]] = {}
        for id in event.tasks:
            task = self.tasks.get(id)
            if task is None:
                continue  # it has ended
            if task.engine is None:
                self._end(task, "aborted", "TaskAborted", "aborted before it started")
            else:
                task.aborting = True
                recalls.setdefault(task.engine.id, []).append(id)
        return [self._recall(self.engines[engine], ids) for engine, ids in recalls.items()]

    def _controller_stopped(self, event: ControllerStopped) -> None:
        for task in list(self.tasks.values()):
            self._end(task, "aborted", "TaskAborted", event.reason)
        for engine in self.engines.values():
            engine.held.clear()
            engine.backlog.clear()
            engine.recalled.clear()
            self.index.update(engine)

    # ------------------------------------------------------------------------------------------ engines come and go

    def _joined(self, event: EngineJoined) -> Iterable[Action]:
        engine = self.engines.get(event.engine)
        if engine is not None and engine.uuid != event.uuid:
            self._remove(event.engine, "another engine took its place", burnt=lambda task: False)
            engine = None
        if engine is None:
            engine = Engine(event.engine, event.uuid, event.host, event.pid, event.nanny, self.settings.hwm, self._now)
            self.engines[event.engine] = engine
        in_hand: dict[TaskId, int] = {}
        for held in event.held:  # of a task that is being retried there may be an old result, too
            in_hand[held.id] = max(held.attempt, in_hand.get(held.id, 0))
        recalled = []
        for id, attempt in in_hand.items():
            task = self.tasks.get(id)
            if task is not None and task.state is State.RECOVERING and _may_run_on(task, engine):
                task.move(State.HELD)
                task.engine, task.attempt = engine, attempt
                engine.held[id] = task
            elif task is None or task.engine is not engine or task.aborting:
                recalled.append(id)  # ended, aborted, or given to another: spare the engine the work
        # Of what we gave it, it has not got these: they were lost on the way.
        missing = [task for id, task in engine.held.items() if in_hand.get(id) != task.attempt]
        for task in missing:
            del engine.held[task.id]
        engine.recalled.clear()
        self._requeue(missing)
        self._fill_direct(engine)
        if recalled:
            yield RecallTasks(engine.id, recalled)
        if engine.stopping:
            yield StopEngine(engine.id)  # it may not have heard

    def _left(self, event: EngineLeft) -> None:
        self._remove(event.engine, "it left", burnt=lambda task: False)

    def _lost(self, event: EngineLost) -> None:
        engine = self.engines.get(event.engine)
        first = next(iter(engine.held), None) if engine else None
        running = event.running if event.known else first
        self._remove(event.engine, event.cause, burnt=lambda task: task.id == running)

    def _remove(self, id: EngineId, cause: str, burnt: Callable[[Task], bool]) -> None:
        """Forget an engine; its tasks go to others, except where they went down with it."""
        engine = self.engines.pop(id, None)
        if engine is None:
            return  # known already
        self.index.remove(engine)
        back = []
        for task in engine.held.values():
            task.engine = None
            if task.aborting:
                self._end(task, "aborted", "TaskAborted", f"aborted; engine {id} was lost meanwhile: {cause}")
            elif task.is_direct:
                self._fail(task, "EngineError", _died(engine, cause, task, burnt(task)), engine)
            elif not burnt(task):
                # It may have run, with its result lost on the way: another attempt, at no cost to its retries.
                task.attempt += 1
                back.append(task)
            else:
                self._burn(task, engine, cause)
        for task in engine.backlog:
            if task.state is State.QUEUED:
                self._fail(task, "EngineError", _died(engine, cause, task, False), engine)
        self._requeue(back)
        self._drop_impossible()

    def _burn(self, task: Task, engine: Engine, cause: str) -> None:
        """An engine died running this task."""
        task.deaths += 1
        attempt = Attempt(task.attempt, engine.id, engine.uuid, engine.host, None, self._now, cause)
        if task.retries_left > 0 and task.deaths < self.settings.death_limit:
            task.retries_left -= 1
            self._again(task, attempt, first=True)
            return
        task.attempts = [*(task.attempts or ()), attempt]
        message = _died(engine, cause, task, True)
        if task.deaths > 1:
            message += f" It was running on {task.deaths} engines when they died, so it is not tried again."
        self._fail(task, "EngineError", message, engine)

    def _drop_impossible(self) -> None:
        """End the tasks none of whose targets is left."""
        for targets in [t for t in self.restricted if not any(target in self.engines for target in t)]:
            for task in self.restricted.pop(targets):
                if task.state is State.QUEUED:
                    self._fail(task, "ImpossibleDependency", _no_targets(targets))

    def _stopped(self, event: EnginesStopped) -> Iterable[Action]:
        for id in event.engines:
            engine = self.engines.get(id)
            if engine is None or engine.stopping:
                continue
            engine.stopping = True
            self.index.update(engine)
            yield StopEngine(id)

    # ------------------------------------------------------------------------------------------ time

    def _ticked(self, event: Ticked) -> None:
        if self.recovery_deadline is not None and self._now >= self.recovery_deadline:
            self.recovery_deadline = None
            for task in [t for t in self.tasks.values() if t.state is State.RECOVERING]:
                if task.is_direct and task.spec.engine not in self.engines:
                    self._fail(
                        task,
                        "EngineError",
                        f"engine {task.spec.engine} did not come back after the controller's restart",
                    )
                else:
                    # It may have been started in the controller's earlier life.
                    task.attempt += 1
                    task.move(State.QUEUED)
                    self._enqueue(task)

    # ------------------------------------------------------------------------------------------ balance

    def _balance(self) -> Iterable[Action]:
        """While engines are idle and nothing is queued, take unstarted tasks back from those that are behind."""
        self._look_at = None
        idle = {engine.id for engine in self.index.idle()}
        if not idle:
            return
        if self._now < self._rest_until:
            self._look_at = self._rest_until
            return
        # A look takes a while where engines are many: spend a few percent of the time on it, no more.
        self._rest_until = self._now + max(0, len(self.engines) - 100) * LOOK_REST
        behind: list[tuple[float, Engine]] = []
        for engine in self.engines.values():
            if len(engine.held) < 2 or engine.recalled:
                continue
            due = engine.last_heard + RECALL_AFTER
            wait = (len(engine.held) - 1) * (engine.mean or 0.0)
            if self._now >= due:
                wait = max(wait, RECALL_AFTER, self._now - engine.last_heard)
            elif self._look_at is None or due < self._look_at:
                self._look_at = due
            if wait >= RECALL_AFTER / 2:
                behind.append((wait, engine))
        behind.sort(key=lambda pair: pair[0], reverse=True)
        helpers = len(idle)
        for _, engine in behind:
            unstarted = [t.id for t in list(engine.held.values())[1:] if _may_run_on_one_of(t, idle)]
            if unstarted:
                yield self._recall(engine, unstarted[len(unstarted) // 2 :])
                helpers -= 1
                if not helpers:
                    return

    def _recall(self, engine: Engine, ids: list[TaskId]) -> RecallTasks:
        engine.recalled.update(ids)
        return RecallTasks(engine.id, ids)


def _may_run_on(task: Task, engine: Engine) -> bool:
    options = task.spec.options
    if task.is_direct:
        return task.spec.engine == engine.id
    return options is None or options.targets is None or engine.id in options.targets


def _may_run_on_one_of(task: Task, engines: set[EngineId]) -> bool:
    options = task.spec.options
    if task.is_direct:
        return False
    return options is None or options.targets is None or not engines.isdisjoint(options.targets)


def _attempt(task: Task, done: TaskDone, engine: Engine | None) -> Attempt:
    cause = "ok" if done.error is None else f"{done.error.ename}: {done.error.evalue}"
    uuid, host = (engine.uuid, engine.host) if engine else ("", "")
    return Attempt(task.attempt, done.engine, uuid, host, done.started, done.completed, cause)  # type: ignore[arg-type]


def _no_targets(targets: Targets) -> str:
    return f"none of the engines this task may run on is there: {', '.join(map(str, targets))}"


def _died(engine: Engine, cause: str, task: Task, running: bool) -> str:
    doing = "while running" if running else "before it ran"
    return f"engine {engine.id} ({engine.host}, pid {engine.pid}) was lost {doing} task {task.id}: {cause}."
