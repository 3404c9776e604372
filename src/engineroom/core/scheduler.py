"""The task scheduler: events in, actions out.

No sockets, clocks, files or threads here. Time arrives as `now`, chance follows from a seed, so a test can replay
any run. Only `handle` changes state. Everything comes and goes in batches, so that a task costs a few
microseconds.

Here is what happens to every task: it is submitted, dealt to an engine, finished. What happens now and then has
modules of its own: engines that come and go (`fleet.py`), a controller that was killed (`recovery.py`), tasks that
nobody wants any more (`aborting.py`). All of them move tasks by `moves.py`.

Duplicates, late news and unknown ids are expected: each has its line, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

from ..config import SchedulerSettings
from ..ids import ClientId, EngineId, TaskId
from ..messages import Attempt, TaskDone
from .actions import Action, AskEngine, Ended, RecallTasks, RecordTasks
from .cancellation import Aborting
from .deadlines import Deadlines
from .dependencies import Graph, Outcome
from .effects import Turn
from .engine_events import Fleet
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
    TasksFailed,
    TasksFinished,
    TasksRecovered,
    TasksReturned,
    TasksSubmitted,
    TasksWatched,
    Ticked,
)
from .placement.balance import Balancer
from .placement.pools import Pools
from .placement.requirements import is_plain
from .recovery import Recovery, ran_before
from .tasks import Needs, State, Task
from .transitions import Moves


class Scheduler:
    """Decides which engine runs which task, and when.

    `handle` is the only way to change anything. All other methods and attributes are for reading: a caller must not
    change what they return.
    """

    def __init__(self, settings: SchedulerSettings | None = None, seed: int = 0) -> None:
        self.settings = settings = settings or SchedulerSettings()
        self.tasks: dict[TaskId, Task] = {}
        self.engines: dict[EngineId, Engine] = {}
        self.pools = Pools(self.engines, settings.scheme, Random(seed))
        self.graph = Graph(settings.outcomes_kept)
        #: dependencies that must be met, cancelled tasks that must have stopped, pools that must have found an engine
        self._deadlines = Deadlines(lambda subject: isinstance(subject, Task) and subject.state is State.ENDED)
        self._balancer = Balancer()
        self._turn = Turn()
        self._moves = Moves(settings, self.tasks, self.engines, self.pools, self.graph, self._deadlines, self._turn)
        self._recovery = Recovery(self.tasks, self.engines, self.graph, self._moves)
        aborting = Aborting(settings, self.tasks, self.engines, self.pools, self._deadlines, self._turn, self._moves)
        self._fleet = fleet = Fleet(
            settings,
            self.tasks,
            self.engines,
            self.pools,
            self._deadlines,
            self._turn,
            self._moves,
            self._recovery,
            aborting,
        )
        self._handlers: dict[type[Event], Callable[[Any], Iterable[Action] | None]] = {
            TasksSubmitted: self._submitted,
            TasksAnswered: self._answered,
            TasksRecovered: self._recovery.recovered,
            TasksFinished: self._finished,
            TasksReturned: self._returned,
            EngineJoined: fleet.joined,
            EngineLost: fleet.lost,
            EngineLeft: fleet.left,
            EnginesStopped: fleet.stopped,
            AbortRequested: aborting.requested,
            TasksFailed: aborting.failed,
            TasksWatched: self._watched,
            OutcomesFound: self._outcomes_found,
            PropertiesAnswered: fleet.properties_answered,
            PropertiesChanged: fleet.properties_changed,
            ControllerStopped: aborting.controller_stopped,
            Ticked: self._ticked,
        }

    # ------------------------------------------------------------------------------------------ the face

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event; returns what is to be done, in order."""
        turn, pools, moves = self._turn, self.pools, self._moves
        turn.begin(now)
        actions = list(self._handlers[type(event)](event) or ())
        if turn.news:
            moves.settle()
        for engine, tasks in pools.deal():
            moves.give(engine, tasks)
        actions += turn.actions(self.graph)
        if pools.questions:
            actions += [AskEngine(engine, functions) for engine, functions in pools.questions.items()]
            pools.questions = {}
        if self.settings.scheme != "pure":
            actions += self._recalls(now)
        return actions

    def next_deadline(self) -> float | None:
        """When to send Ticked, unless something happens before; None: not needed."""
        balancer = self._balancer
        deadlines = (self._recovery.deadline, balancer.look_at, balancer.stuck_at, self._deadlines.next)
        return min((at for at in deadlines if at is not None), default=None)

    def task(self, id: TaskId) -> Task | None:
        """A task that has not ended; None: the core does not know it (any more)."""
        return self.tasks.get(id)

    def tasks_of(self, client: ClientId) -> Iterator[Task]:
        """The tasks of a client that have not ended."""
        return (task for task in self.tasks.values() if task.client == client)

    def queued(self) -> Iterator[Task]:
        """The load-balanced tasks that wait for an engine."""
        return iter(self.pools)

    def outcome(self, id: TaskId) -> Outcome | None:
        """How a task ended; None: it has not ended, or the core has forgotten it (`outcomes_kept`)."""
        return self.graph.memory.get(id)

    def wants(self, id: TaskId) -> bool:
        """Whether a task that has not ended takes the result of this one as an argument."""
        return id in self.graph.wanted

    @property
    def now(self) -> float:
        """When the last event came."""
        return self._turn.now

    @property
    def recovery_deadline(self) -> float | None:
        """Until when engines may claim recovered tasks; None: they had their time."""
        return self._recovery.deadline

    def _recalls(self, now: float) -> list[RecallTasks]:
        """What engines are to give back, for others that are idle or because they are stuck."""
        balancer, engines, sends = self._balancer, self.engines, self._turn.sends
        if self.settings.hwm is None and any(
            len(tasks) > 1 or len(engines[id].held) > 1 for id, tasks in sends.items()
        ):
            balancer.watch(len(engines), now)
        recalls = list(balancer.stuck(engines, now))
        if self.pools.ready:
            balancer.look_at = None
        else:
            recalls += balancer.recalls(engines, self.pools.idle.values(), self.pools.may_run, now)
        for asked in recalls:
            engine = engines[asked.engine]
            self.pools.changed(engine)  # one that is stuck takes no more
            self._fleet.expect_back(engine)
        return recalls

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
                plain.append(task)  # what `arrive` would do
            else:
                self._moves.arrive(task)
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
            if answer.done.status == "ok" and id in self.graph.wanted:
                self._turn.kept.append(self._turn.ended[-1])
            self._moves.remember(task, answer.done, answer.engine)
        self.graph.memory.trim()

    def _watched(self, event: TasksWatched) -> None:
        for id in event.tasks:
            task = self.tasks.get(id)
            if task is not None and task.client != event.client:
                task.watchers = (task.watchers or set()) | {event.client}

    # ------------------------------------------------------------------------------------------ engines answer

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
                ran_before(task, engine)
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
                self._moves.remember(task, done, well.engine)
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
            engine.last_heard = self._turn.now
            engine.completed += len(accepted)
            engine.learn(accepted)
            if engine.recalled:
                engine.recalled.difference_update(done.id for done in accepted)
            self._moves.fill_direct(engine)

    def _goes_on(self, task: Task, done: TaskDone, engine: Engine | None) -> bool:
        """Whether a task that did not end well gets another attempt."""
        if done.status == "unmet":
            done.status = "error"
            if engine is None or task.is_direct or task.aborting:
                return False
            task.needs = task.needs or Needs()
            task.needs.refused |= {engine.uuid}
            if task.needs.deadline is not None and self._turn.now >= task.needs.deadline:
                self._moves.again(task, _attempt(task, done, engine), first=True, queue=False)
                self._moves.out_of_time(task)
            else:
                self._moves.again(task, _attempt(task, done, engine), first=True)
            return True
        if done.status == "error" and task.retries_left > 0 and not task.aborting:
            task.retries_left -= 1
            self._moves.again(task, _attempt(task, done, engine), first=False)
            return True
        return False

    def _returned(self, event: TasksReturned) -> None:
        engine = self.engines.get(event.engine)
        if engine is None:
            return
        engine.last_heard = self._turn.now
        back = []
        for held in event.tasks:
            task = engine.held.get(held.id)
            if task is None or task.attempt != held.attempt:
                continue  # it is no longer ours to take back
            del engine.held[held.id]
            back.append(task)
        engine.recalled.clear()
        self._moves.requeue(back)
        self._moves.fill_direct(engine)

    # ------------------------------------------------------------------------------------------ the store, and time

    def _outcomes_found(self, event: OutcomesFound) -> None:
        self._turn.news += event.outcomes.items()

    def _ticked(self, event: Ticked) -> None:
        self._recovery.look(self._turn.now)
        for due, subject in self._deadlines.due(self._turn.now):
            due(subject)


def _attempt(task: Task, done: TaskDone, engine: Engine | None) -> Attempt:
    cause = "ok" if done.error is None else f"{done.error.ename}: {done.error.evalue}"
    uuid, host = (engine.uuid, engine.host) if engine else ("", "")
    trace = done.error.traceback or None if done.error else None
    return Attempt(task.attempt, done.engine, uuid, host, done.started, done.completed, cause, done.peak_memory, trace)  # type: ignore[arg-type]
