"""A whole cluster in virtual time: the real scheduler, fake engines, messages that take their time or get lost.

    submissions ──▶ Scheduler ──▶ link (delay, cuts) ──▶ FakeEngine ──▶ link ──▶ Scheduler ──▶ outcomes

The controller around the scheduler is told here in a few lines: what it keeps in its store, how it looks up
outcomes, which results it keeps for tasks that take them as arguments. What is promised to a task (that what it
depends on has ended, that the results it takes are there, where it may run) is checked whenever one is sent.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

import msgspec

from ..config import SchedulerSettings
from ..core import Scheduler, actions, events
from ..core.checks import check, check_at_rest
from ..core.dependencies import TaskOutcome
from ..core.tasks import Task
from ..ids import ClientId, Digest, EngineId, EngineUuid, NannyId, TaskId
from ..messages import Attempt, AttemptKey, ErrorInfo, GraphDependency, TaskDone, TaskSpec
from .clock import VirtualClock
from .engine import FakeEngine

#: By now the first engines have come, and submissions begin.
SETTLED = 0.1
#: An engine sends what it has done when it is idle, or this long after it last did.
GATHER = 0.005
#: How long a restarted controller waits for its engines.
GRACE = 1.0
#: Seconds in which the store answers, once everything is recorded.
LOOK_UP = 0.02
#: Engines have one property, a number below this; it changes every so often, on the mean after so many seconds.
LEVELS = 3
DRIFT = 0.2
#: Until a result is recorded, it is to be had only if the controller keeps it.
COMMIT = 0.02
#: Nothing takes this many virtual seconds unless it takes for ever.
FOR_EVER = 1e7

_ERRORS = {
    "error": ErrorInfo("ValueError", "it raised"),
    "unmet": ErrorInfo("UnmetDependency", "not here"),
    "aborted": ErrorInfo("TaskAborted", "interrupted"),
    "overran": ErrorInfo("TaskTimeout", "it ran for too long"),
}


class Run(msgspec.Struct, frozen=True):
    """What an attempt of a task does if it is left alone."""

    seconds: float
    status: str = "ok"  #: "ok", "error", or "unmet"
    is_deaf: bool = False  #: it does not heed an interruption


#: What a task does on an attempt, by its number.
Conduct = Callable[[TaskSpec, int], Run]


class Link:
    """An engine and the way to it."""

    def __init__(self, engine: FakeEngine, resources: Mapping[str, Sequence[int]]) -> None:
        self.engine = engine
        self.resources = resources
        self.is_alive = True
        #: cuts so far: what was sent before the last one never arrives
        self.cuts = 0
        self.up = self.down = 0.0  # when the latest message arrives: none overtakes it
        self.outbox: list[TaskDone] = []
        self.sent = 0.0
        #: its property, and the functions it has been asked about
        self.level = 0
        self.questions: dict[Digest, None] = {}
        #: what it is running since when
        self.run = Run(0.0)
        self.began = 0.0


class VirtualCluster:
    """A controller, its store, and engines.

    Parameters
    ----------
    engines : int
        How many.
    conduct : callable
        `conduct(spec, attempt)` says what an attempt does: a `Run`.
    resources : sequence of dict
        The indices of named resources that each of the first engines has; the others have none.
    settings : SchedulerSettings
        Of the scheduler under test.
    seed : int
        Decides everything that is left to chance.
    latency : float
        Seconds a message takes; each takes between half and one and a half of it, and none overtakes another.
    check_every : int
        Check the scheduler's invariants after every so many events. A check looks at all tasks. 0: only at the end.
    watch : callable
        Told every action before it is performed.

    Attributes
    ----------
    done : dict
        The outcomes so far: msg_id → TaskDone.
    busy : dict
        Virtual seconds at work, by engine number.
    """

    def __init__(
        self,
        engines: int,
        conduct: Conduct,
        *,
        resources: Sequence[Mapping[str, Sequence[int]]] = (),
        settings: SchedulerSettings | None = None,
        seed: int = 0,
        latency: float = 0.0005,
        check_every: int = 1,
        watch: Callable[[actions.Action], None] | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.settings = settings or SchedulerSettings()
        self.scheduler = Scheduler(self.settings, seed)
        self._conduct, self._latency, self._check_every, self._watch = conduct, latency, check_every, watch
        self.links: list[Link] = []  # all that live
        self.at: dict[EngineId, Link] = {}  # as the controller knows them
        self.lives = 0
        self._next_engine = 0
        self._tick: float | None = None
        self._last_planned = 0.0
        #: called when an engine has come
        self.on_start: Callable[[Link], None] = lambda link: None
        # the store
        self.specs: dict[TaskId, TaskSpec] = {}  # all there will be
        self.clients: dict[TaskId, ClientId] = {}  # of those that have come
        self.done: dict[TaskId, TaskDone] = {}
        self._attempts: dict[TaskId, list[Attempt]] = {}
        self._ran_on: dict[TaskId, EngineUuid] = {}
        self._recorded: dict[TaskId, float] = {}  # when its outcome is in the store
        self._values: set[TaskId] = set()
        self._ending: dict[TaskId, TaskDone] = {}  # decided, about to be performed
        # what came of it
        self.events = self.begun = 0
        self.busy: defaultdict[int, float] = defaultdict(float)
        self.asked: Counter[str] = Counter()
        self.submitted = 0.0  # when the first task came
        self.ended = 0.0  # when the last one ended
        for number in range(engines):
            self.start_engine(
                EngineId(number),
                self.rng.uniform(0, 0.9 * SETTLED),
                resources[number] if number < len(resources) else {},
            )

    # ------------------------------------------------------------------------------------------ its user

    def plan(self, moment: float, client: str, specs: Sequence[TaskSpec]) -> None:
        """Have a client submit tasks, this many seconds after the engines have come."""
        self.specs.update((spec.id, spec) for spec in specs)
        self._last_planned = max(self._last_planned, moment)
        self.clock.at(SETTLED + moment, lambda: self.submit(ClientId(client), specs))

    def submit(self, client: ClientId, specs: Sequence[TaskSpec]) -> None:
        """A submission arrives; what has ended is answered from the store."""
        if not self.clients:
            self.submitted = self.clock()
        self.clients.update((spec.id, client) for spec in specs)
        self.handle(events.TasksSubmitted(client, [spec for spec in specs if spec.id not in self.done]))

    def run(self) -> None:
        """Let time pass until everything has ended, and nothing is left to do.

        Raises
        ------
        AssertionError
            Something that must hold did not.
        """
        while self.clock.step():
            assert self.clock() < self._last_planned + FOR_EVER, (
                f"{len(self.specs) - len(self.done)} tasks wait for ever"
            )
        assert len(self.done) == len(self.specs), f"{len(self.specs) - len(self.done)} tasks wait for ever"
        check_at_rest(self.scheduler)
        assert not self._values, f"results are kept that nobody wants: {sorted(self._values)[:3]}"
        for link in self.links:
            assert not link.engine.held, f"engine {link.engine.id} still holds {link.engine.held}"

    # ------------------------------------------------------------------------------------------ the controller

    def handle(self, event: events.Event) -> None:
        """What the controller does: let the scheduler decide, and perform it."""
        self.events += 1
        todo = self.scheduler.handle(event, self.clock())
        self._ending = {one.done.id: one.done for a in todo if isinstance(a, actions.EndTasks) for one in a.tasks}
        for done in self._ending.values():
            if done.engine in self.at:
                self._ran_on[done.id] = self.at[done.engine].engine.uuid
        for action in todo:
            if self._watch is not None:
                self._watch(action)
            self._perform(action)
        if self._check_every and self.events % self._check_every == 0:
            check(self.scheduler)
        self._plan_tick()

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.SendTasks(engine, tasks):
                self._promised(engine, tasks)
                given = [AttemptKey(task.id, task.attempt) for task in tasks]
                self._to_engine(engine, lambda link: self._received(link, given))
            case actions.RecallTasks(engine, ids):
                wanted = frozenset(ids)
                self._to_engine(engine, lambda link: self._recalled(link, wanted))
            case actions.AskEngine(engine, functions):
                self.asked["properties"] += len(functions)
                self._to_engine(engine, lambda link: self._was_asked(link, functions))
            case actions.CancelTasks(engine, ids):
                cancelled = frozenset(ids)
                self._to_engine(engine, lambda link: self._cancelled(link, cancelled))
            case actions.KillTask(engine, id):
                self._kill_task(engine, id)
            case actions.StopEngine(engine):
                self._to_engine(engine, self._told_to_stop)
            case actions.EndTasks(ended):
                for one in ended:
                    self._ended(one)
            case actions.KeepValues(ended):
                self._values.update(one.done.id for one in ended)
            case actions.RecordTasks(tasks):
                for task in tasks:
                    assert task.id in self.clients
            case actions.RecordAttempts(tasks):
                self._attempts.update((task.id, list(task.attempts or ())) for task in tasks)
            case actions.FindOutcomes(ids):
                self._find_outcomes(ids)
            case actions.ReleaseValues(ids):
                self._values.difference_update(ids)
            case _:
                raise AssertionError(f"nobody performs {action}")

    def _ended(self, ended: actions.Ended) -> None:
        done = ended.done
        assert done.id not in self.done, f"{ended.task} ends a second time: {done}, before: {self.done[done.id]}"
        self.done[done.id] = done
        self.ended = self.clock()
        self._recorded[done.id] = self.clock() + COMMIT

    def _find_outcomes(self, ids: Sequence[TaskId]) -> None:
        """Ask the store; it has what ended before the question, and says nothing of what ends meanwhile."""
        self.asked["outcomes"] += len(ids)
        life, wanted = self.scheduler, set(filter(self.scheduler.wants, ids))

        def look() -> None:
            there = {id for id in ids if self._recorded.get(id, math.inf) <= self.clock()}
            found = {id: self._outcome(id) for id in ids if id in there or id not in self.specs}
            values = wanted & there
            self.clock.later(self.rng.uniform(0, LOOK_UP / 2), lambda: answer(found, values))

        def answer(found: dict[TaskId, TaskOutcome | None], values: set[TaskId]) -> None:
            if self.scheduler is life:
                self._values.update(filter(self.scheduler.wants, values))
                self.handle(events.OutcomesFound(found))

        self.clock.later(COMMIT + self.rng.uniform(0, LOOK_UP / 2), look)

    def _outcome(self, id: TaskId) -> TaskOutcome | None:
        done = self.done.get(id)
        if done is None:
            return None
        ok, direct = done.status == "ok", self.specs[id].engine >= 0
        cause, path = ("", ()) if ok else (f"ended {done.status}", (id,))
        return TaskOutcome(ok, self._ran_on.get(id), direct, cause, path, 1)

    def _plan_tick(self) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is not None and (self._tick is None or deadline < self._tick):
            self._tick = deadline
            self.clock.at(deadline, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self.handle(events.Ticked())
            after = self.scheduler.next_deadline()
            assert after is None or after > self.clock(), "time has come, but nothing came of it: the loop would spin"
        self._plan_tick()

    def _welcome(self, link: Link, held: list[AttemptKey]) -> None:
        engine = link.engine
        if self.at.get(engine.id) is not link:  # the first time in this life of the controller
            if engine.id < 0 or engine.id in self.scheduler.engines:
                engine.id = EngineId(self._next_engine)
            self._next_engine = max(self._next_engine, engine.id + 1)
            self.at[engine.id] = link
        joined = events.EngineJoined(engine.id, engine.uuid, "host", 1, NannyId(""), held, link.resources)
        self.handle(joined)
        if not link.is_alive:
            self._lost(link, None)

    def _lost(self, link: Link, running: AttemptKey | None, *, known: bool = False, overran: bool = False) -> None:
        id = link.engine.id
        if self.at.get(id) is link:
            del self.at[id]
            running_id = running.id if running is not None and known else None
            self.handle(events.EngineLost(id, "killed", running_id, known, overran))

    def _results(self, link: Link, number: int, results: list[TaskDone]) -> None:
        if self.at.get(link.engine.id) is not link:
            return  # of an engine that is not known (any more): the controller would not listen
        self.handle(
            events.TasksFinished(
                link.engine.id, [msgspec.structs.replace(done, engine=link.engine.id) for done in results]
            )
        )
        self._to_engine(link.engine.id, lambda link: link.engine.stored(number))

    def _left(self, link: Link) -> None:
        if self.at.get(link.engine.id) is link:
            del self.at[link.engine.id]
            self.handle(events.EngineLeft(link.engine.id))

    def _returned(self, link: Link, back: list[AttemptKey]) -> None:
        if self.at.get(link.engine.id) is link:
            self.handle(events.TasksReturned(link.engine.id, back))

    def _told(self, link: Link, event: Callable[[EngineId], events.Event]) -> None:
        """An engine tells the controller something about its properties."""

        def hear() -> None:
            if self.at.get(link.engine.id) is link:
                self.handle(event(link.engine.id))

        self._to_controller(link, hear)

    # ------------------------------------------------------------------------------------------ promises

    def _promised(self, engine: EngineId, tasks: Iterable[Task]) -> None:
        """What a task may rely on when it is sent to an engine."""
        for task in tasks:
            options = task.spec.options
            if options is None:
                continue
            uuid = self.scheduler.engines[engine].uuid
            assert options.targets is None or engine in options.targets, f"{task} is not for engine {engine}"
            for name, amount in (options.resources or {}).items():
                has = len(self.scheduler.engines[engine].resources.get(name, ()))
                assert has >= amount, f"{task} needs {name}={amount}, engine {engine} has {has}"
            if options.after is not None:
                assert self._is_met(options.after), f"{task} is sent before its time"
            if options.follow is not None and options.follow.tasks:
                assert self._is_met(options.follow), f"{task} is sent before its time"
                where = {self._ran_on.get(id) for id in options.follow.tasks if self._counts(options.follow, id)}
                assert uuid in where, f"{task} follows tasks that ran on {where}, and is sent to {uuid}"
            for id in options.inputs:
                is_there = id in self._values or self._recorded.get(id, math.inf) <= self.clock()
                assert is_there, f"{task} is sent without the value of its argument {id}"

    def _counts(self, dependency: GraphDependency, id: TaskId) -> bool:
        done = self.done.get(id) or self._ending.get(id)
        return done is not None and (dependency.success if done.status == "ok" else dependency.failure)

    def _is_met(self, dependency: GraphDependency) -> bool:
        counts = [self._counts(dependency, id) for id in dependency.tasks]
        return all(counts) if dependency.all else any(counts) or not counts

    # ------------------------------------------------------------------------------------------ between

    def _to_engine(self, id: EngineId, call: Callable[[Link], None]) -> None:
        link = self.at.get(id)
        if link is None:
            return
        cuts = link.cuts
        link.down = max(link.down, self._arrival())
        self.clock.at(link.down, lambda: call(link) if link.is_alive and link.cuts == cuts else None)

    def _to_controller(self, link: Link, call: Callable[[], None]) -> None:
        cuts = link.cuts
        link.up = max(link.up, self._arrival())
        self.clock.at(link.up, lambda: call() if link.cuts == cuts else None)

    def _arrival(self) -> float:
        return self.clock() + self._latency * self.rng.uniform(0.5, 1.5)

    # ------------------------------------------------------------------------------------------ engines

    def start_engine(self, wish: EngineId, delay: float, resources: Mapping[str, Sequence[int]]) -> None:
        """Have an engine come; it would like this number."""
        self.lives += 1
        link = Link(FakeEngine(wish, EngineUuid(f"u{self.lives}")), resources)

        def start() -> None:
            self.links.append(link)
            self._hello(link)
            if any(spec.options is not None and spec.options.depend for spec in self.specs.values()):
                self._drift(link)
            self.on_start(link)

        self.clock.later(delay, start)

    def _hello(self, link: Link) -> None:
        if not link.is_alive:
            return
        held = [*link.engine.held, *(AttemptKey(done.id, done.attempt) for done in link.outbox)]
        self._to_controller(link, lambda: self._welcome(link, held))
        for number, results in link.engine.unstored.items():
            self.send_results(link, number, results)

    def _received(self, link: Link, tasks: list[AttemptKey]) -> None:
        link.engine.receive(tasks)
        self._work(link)

    def _drift(self, link: Link) -> None:
        """An engine's property changes, again and again, as long as there is work."""
        if link.is_alive and len(self.done) < len(self.specs):
            link.level = self.rng.randrange(LEVELS)
            self._told(link, lambda id: events.PropertiesChanged([id]))
            self.clock.later(self.rng.expovariate(1 / DRIFT), lambda: self._drift(link))

    def _was_asked(self, link: Link, functions: Sequence[Digest]) -> None:
        link.questions.update(dict.fromkeys(functions))
        self._work(link)

    def _against(self, link: Link, function: Digest) -> str:
        """What an engine's property has against tasks with a function, which is the level they need."""
        return "" if link.level >= int(function) else "its level is too low"

    def _look_at_properties(self, link: Link) -> None:
        """Between two tasks an engine answers questions, and gives back what its property does not allow any more."""
        engine = link.engine
        if engine.running is not None or engine.leaving:
            return
        answers = {function: self._against(link, function) for function in link.questions}
        link.questions.clear()
        back: list[AttemptKey] = []
        while engine.queue:
            spec = self.specs[engine.queue[0].id]
            if spec.options is None or not spec.options.depend or not (why := self._against(link, spec.function)):
                break
            answers[spec.function] = why
            alike = [held.id for held in engine.queue if self.specs[held.id].function == spec.function]
            back += engine.give_back(alike)
        if answers:
            self._told(link, lambda id: events.PropertiesAnswered(id, answers))
        if back:
            self._to_controller(link, lambda: self._returned(link, back))

    def _work(self, link: Link) -> None:
        engine = link.engine
        self._look_at_properties(link)
        held = engine.begin()
        if held is None:
            if engine.running is None:
                self._flush(link)
                if engine.leaving:
                    self._leave(link)
            return
        self.begun += 1
        spec = self.specs[held.id]
        link.run, link.began = run, _ = self._conduct(spec, held.attempt), self.clock()
        limit = spec.options.run_timeout if spec.options is not None else None
        if limit is not None and run.seconds > limit:
            self.clock.later(limit, lambda: self._overran(link, held))
        self.clock.later(run.seconds, lambda: self._finish(link, held, run.status))

    def _finish(self, link: Link, held: AttemptKey, status: str) -> None:
        """The running task ends, unless it has ended otherwise."""
        if not link.is_alive or link.engine.running is not held:
            return
        now, error = self.clock(), _ERRORS.get(status)
        self.busy[link.engine.id] += now - link.began
        link.outbox.append(link.engine.finish(link.began, now, "error" if status == "overran" else status, error))
        if now - link.sent > GATHER:
            self._flush(link)
        self._work(link)

    def _overran(self, link: Link, held: AttemptKey) -> None:
        """A task has used up its run_timeout: it is interrupted, and killed if that does not help."""
        if not link.run.is_deaf:
            self._finish(link, held, "overran")
        elif link.is_alive and link.engine.running is held:
            self.clock.later(self.settings.cancel_grace, lambda: self._kill(link, held, overran=True))

    def _kill_task(self, engine: EngineId, id: TaskId) -> None:
        """A nanny is to kill an engine, if that is what it is running."""
        link = self.at.get(engine)

        def kill() -> None:
            assert link is not None
            running = link.engine.running
            if running is not None and running.id == id:
                self._kill(link, running)

        if link is not None:
            self.clock.at(self._arrival(), kill)

    def _kill(self, link: Link, held: AttemptKey, *, overran: bool = False) -> None:
        if link.is_alive and link.engine.running is held:
            self.asked["kills"] += 1
            self._end(link)
            self.clock.at(self._arrival(), lambda: self._lost(link, held, known=True, overran=overran))

    def _flush(self, link: Link) -> None:
        if link.outbox:
            results, link.outbox = link.outbox, []
            link.sent = self.clock()
            self.send_results(link, link.engine.hand_in(results), results)

    def send_results(self, link: Link, number: int, results: list[TaskDone]) -> None:
        """An engine sends results, for the first time or again."""
        self._to_controller(link, lambda: self._results(link, number, results))

    def _recalled(self, link: Link, ids: frozenset[TaskId]) -> None:
        back = link.engine.give_back(ids)
        self._to_controller(link, lambda: self._returned(link, back))

    def _cancelled(self, link: Link, ids: frozenset[TaskId]) -> None:
        self._recalled(link, ids)
        running = link.engine.running
        if running is not None and running.id in ids and not link.run.is_deaf:
            self.asked["interruptions"] += 1
            self._finish(link, running, "aborted")

    def _told_to_stop(self, link: Link) -> None:
        if link.engine.leaving:
            return
        link.engine.leaving = True
        if link.engine.running is None:
            self._work(link)

    def _leave(self, link: Link) -> None:
        """Give back what has not started, and go."""
        back = link.engine.give_back()
        self._to_controller(link, lambda: self._returned(link, back))
        self._to_controller(link, lambda: self._left(link))
        self._end(link)

    def _end(self, link: Link) -> None:
        if link.engine.running is not None:
            self.busy[link.engine.id] += self.clock() - link.began
        link.is_alive = False
        self.links.remove(link)
        self.start_engine(link.engine.id, self.rng.uniform(0.01, 0.5), link.resources)

    # ------------------------------------------------------------------------------------------ faults

    def die(self, link: Link) -> None:
        """An engine ends without a word; the controller notices some time later, and may not know what it ran."""
        running = link.engine.running
        self._end(link)
        known = self.rng.random() < 0.5
        self.clock.later(self.rng.uniform(0, 0.2), lambda: self._lost(link, running, known=known))

    def cut(self, link: Link) -> None:
        """What is on its way, both ways, is lost; the engine notices some time later."""
        link.cuts += 1
        self.clock.later(self.rng.uniform(0, 0.2), lambda: self._hello(link))

    def stop(self, link: Link) -> None:
        """An engine is asked to leave."""
        if self.at.get(link.engine.id) is link:
            self.handle(events.EnginesStopped([link.engine.id]))

    def restart(self) -> None:
        """The controller dies and comes back with what the store holds."""
        self.scheduler = Scheduler(self.settings, self.rng.randrange(1 << 30))
        self.at.clear()
        self._values.clear()
        self._next_engine = 0
        unfinished = [
            events.RecoveredTask(self.specs[id], client, (), self._attempts.get(id, ()))
            for id, client in self.clients.items()
            if id not in self.done
        ]
        self.handle(events.TasksRecovered(unfinished, self.clock() + GRACE))
        for link in self.links:
            link.cuts += 1
            self.clock.later(self.rng.uniform(0, 1.2 * GRACE), lambda link=link: self._hello(link))  # type: ignore[misc]
