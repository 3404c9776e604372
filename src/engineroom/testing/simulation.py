"""A whole cluster in virtual time: the real scheduler, fake engines, messages that take their time or get lost.

    submissions ──▶ Scheduler ──▶ link (delay, cuts) ──▶ FakeEngine ──▶ link ──▶ Scheduler ──▶ outcomes

Everything follows from the seed. What must hold, holds at every moment (`core.checks.check`), and at the end every
task has exactly one outcome and nothing waits. A failure names the call of `simulate` that repeats it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec

from ..config import SchedulerSettings
from ..core import Scheduler, actions, events
from ..core.checks import check
from ..ids import ClientId, Digest, EngineId, EngineUuid, NannyId, TaskId
from ..messages import Held, TaskDone, TaskOptions, TaskSpec
from .clock import VirtualClock
from .engine import FakeEngine

#: By now the first engines have come, and submissions begin.
SETTLED = 0.1
#: An engine sends what it has done when it is idle, or this long after it last did.
GATHER = 0.005
#: How long a restarted controller waits for its engines.
GRACE = 1.0
#: Chaos ends when this part of the tasks has ended: the rest must then end by itself.
CHAOS_UNTIL = 0.9
#: Nothing takes this many virtual seconds unless it takes for ever.
FOR_EVER = 1e6

CLIENT = ClientId("client")


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is submitted. Fractions are of all tasks."""

    duration: float = 0.1  #: seconds; the mean of an exponential distribution
    burst: int = 100  #: tasks per submission
    pause: float = 0.01  #: seconds between submissions
    direct: float = 0.0
    targeted: float = 0.0
    failing: float = 0.0  #: chance of each attempt to raise
    retries: int = 0  #: each task gets 0 … this many


class Chaos(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. Rates are per engine and second, chances per message or submission."""

    deaths: float = 0.0  #: rate; another engine takes the place of a dead one
    cuts: float = 0.0  #: rate; everything on its way, both ways, is lost
    stops: float = 0.0  #: rate; an engine is asked to leave
    repeated: float = 0.0  #: chance that results, or a submission, come twice
    aborts: float = 0.0  #: chance that a submission is followed by the abort of some tasks
    restarts: int = 0  #: how often the controller loses its memory

    @classmethod
    def wild(cls) -> Chaos:
        """Some of everything."""
        return cls(deaths=0.1, cuts=0.2, stops=0.05, repeated=0.1, aborts=0.3, restarts=2)


class Report(msgspec.Struct, kw_only=True):
    """What came of it."""

    seed: int
    tasks: int
    outcomes: Counter[str]  #: by status: ok, error, aborted
    errors: Counter[str]  #: of those with status error or aborted: by name
    per_engine: Counter[int]  #: outcomes by engine number; -1: none
    attempts: Counter[int]  #: number of attempts: tasks that ended with it
    begun: int  #: times a task was begun on an engine
    makespan: float  #: virtual seconds from the first submission to the last outcome
    events: int  #: handled by the scheduler
    faults: Counter[str]  #: deaths, cuts, stops, repeated, aborts, restarts


def simulate(
    seed: int,
    *,
    engines: int = 10,
    tasks: int = 1000,
    workload: Workload | None = None,
    chaos: Chaos | None = None,
    settings: SchedulerSettings | None = None,
    latency: float = 0.0005,
    check_every: int = 1,
) -> Report:
    """Run a cluster in virtual time until every task has ended.

    Parameters
    ----------
    seed : int
        Decides everything; the same seed gives an equal report.
    engines, tasks : int
        How many.
    workload : Workload
        What the tasks are like.
    chaos : Chaos
        What goes wrong; by default nothing.
    settings : SchedulerSettings
        Of the scheduler under test.
    latency : float
        Seconds a message takes; each takes between half and one and a half of it, and none overtakes another.
    check_every : int
        Check the scheduler's invariants after every so many events. A check looks at all tasks.

    Raises
    ------
    AssertionError
        Something that must hold did not. Its note says how to repeat it.
    """
    simulation = _Simulation(
        seed, engines, tasks, workload or Workload(), chaos or Chaos(), settings, latency, check_every
    )
    try:
        return simulation.run()
    except BaseException as error:
        error.add_note(
            f"at {simulation.clock():.6f} s, after {simulation.report.events} events of simulate({seed}, "
            f"engines={engines}, tasks={tasks}, workload={workload}, chaos={chaos}, settings={settings}, "
            f"latency={latency}, check_every={check_every})"
        )
        raise


class _Link:
    """An engine and the way to it."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.is_alive = True
        #: cuts so far: what was sent before the last one never arrives
        self.cuts = 0
        self.up = self.down = 0.0  # when the latest message arrives: none overtakes it
        self.outbox: list[TaskDone] = []
        self.sent = 0.0


class _Simulation:
    def __init__(
        self,
        seed: int,
        engines: int,
        tasks: int,
        workload: Workload,
        chaos: Chaos,
        settings: SchedulerSettings | None,
        latency: float,
        check_every: int,
    ) -> None:
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.engines, self.tasks, self.workload, self.chaos = engines, tasks, workload, chaos
        self.settings, self.latency, self.check_every = settings, latency, check_every
        self.scheduler = Scheduler(settings)
        self.links: list[_Link] = []  # all that live
        self.at: dict[EngineId, _Link] = {}  # as the controller knows them
        self.next_engine = self.lives = 0
        self.specs: dict[TaskId, TaskSpec] = {}  # the store: all that was submitted …
        self.done: dict[TaskId, TaskDone] = {}  # … and all that has ended
        self.tick: float | None = None
        self.report = Report(
            seed=seed,
            tasks=tasks,
            outcomes=Counter(),
            errors=Counter(),
            per_engine=Counter(),
            attempts=Counter(),
            begun=0,
            makespan=0.0,
            events=0,
            faults=Counter(),
        )

    def run(self) -> Report:
        for _ in range(self.engines):
            self._start_engine(EngineId(-1), self.rng.uniform(0, 0.9 * SETTLED))
        for index, first in enumerate(range(0, self.tasks, self.workload.burst)):
            count = min(self.workload.burst, self.tasks - first)
            self.clock.later(SETTLED + index * self.workload.pause, lambda f=first, c=count: self._submit(f, c))  # type: ignore[misc]
        for _ in range(self.chaos.restarts):
            self.clock.later(SETTLED + self.rng.uniform(0, 3.0), self._restart)
        while self.clock.step():
            assert self.clock() < FOR_EVER, f"{len(self.specs) - len(self.done)} tasks wait for ever"
        check(self.scheduler)
        assert len(self.done) == self.tasks, f"{self.tasks - len(self.done)} tasks wait for ever"
        assert not self.scheduler.tasks, "tasks that have ended are still known"
        assert not any(engine.load for engine in self.scheduler.engines.values()), "an engine holds ended tasks"
        for link in self.links:
            assert not link.engine.held, f"engine {link.engine.id} still holds {link.engine.held}"
        return self.report

    # ------------------------------------------------------------------------------------------ the controller

    def _handle(self, event: events.Event) -> None:
        """What the controller does: let the scheduler decide, and perform it."""
        self.report.events += 1
        for action in self.scheduler.handle(event, self.clock()):
            match action:
                case actions.SendTasks(engine, tasks):
                    given = [Held(task.id, task.attempt) for task in tasks]
                    self._to_engine(engine, lambda link, given=given: self._received(link, given))  # type: ignore[misc]
                case actions.RecallTasks(engine, ids):
                    wanted = frozenset(ids)
                    self._to_engine(engine, lambda link, wanted=wanted: self._recalled(link, wanted))  # type: ignore[misc]
                case actions.StopEngine(engine):
                    self._to_engine(engine, self._told_to_stop)
                case actions.EndTasks(ended):
                    for one in ended:
                        self._ended(one)
                case actions.RecordTasks(tasks):
                    for task in tasks:
                        assert task.id in self.specs
        if self.report.events % self.check_every == 0:
            check(self.scheduler)
        self._plan_tick()

    def _ended(self, ended: actions.Ended) -> None:
        done = ended.done
        assert done.id not in self.done, f"{ended.task} ends a second time: {done}, before: {self.done[done.id]}"
        self.done[done.id] = done
        report = self.report
        report.outcomes[done.status] += 1
        if done.error is not None:
            report.errors[done.error.ename] += 1
        report.per_engine[done.engine] += 1
        report.attempts[done.attempt] += 1
        report.makespan = self.clock() - SETTLED

    def _plan_tick(self) -> None:
        deadline = self.scheduler.next_deadline()
        if deadline is not None and (self.tick is None or deadline < self.tick):
            self.tick = deadline
            self.clock.at(deadline, self._ticked)

    def _ticked(self) -> None:
        self.tick = None
        deadline = self.scheduler.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self._handle(events.Ticked())
            after = self.scheduler.next_deadline()
            assert after is None or after > self.clock(), "time has come, but nothing came of it: the loop would spin"
        self._plan_tick()

    def _submit(self, first: int, count: int) -> None:
        rng, work = self.rng, self.workload
        specs = []
        for number in range(first, first + count):
            id, engine, targets = TaskId(f"t{number}"), -1, None
            kind = rng.random()
            if kind < work.direct:
                engine = rng.randrange(self.engines)
            elif kind < work.direct + work.targeted:
                targets = tuple(EngineId(e) for e in rng.sample(range(self.engines), min(self.engines, 3)))
            retries = rng.randint(0, work.retries)
            options = TaskOptions(retries=retries, targets=targets) if retries or targets else None
            specs.append(TaskSpec(id, Digest(b""), b"", self.clock(), EngineId(engine), (), options))
            self.specs[id] = specs[-1]
        self._handle(events.TasksSubmitted(CLIENT, specs))
        if rng.random() < self.chaos.repeated:
            self.report.faults["repeated"] += 1
            self.clock.later(rng.uniform(0, 0.1), lambda: self._submit_again(specs))
        if rng.random() < self.chaos.aborts:
            self.report.faults["aborts"] += 1
            ids = [TaskId(f"t{rng.randrange(first + count)}") for _ in range(5)]
            self.clock.later(rng.uniform(0, 0.5), lambda: self._handle(events.AbortRequested(ids)))

    def _submit_again(self, specs: list[TaskSpec]) -> None:
        """As the controller does it: what has ended is answered from the store."""
        self._handle(events.TasksSubmitted(CLIENT, [spec for spec in specs if spec.id not in self.done]))

    def _restart(self) -> None:
        """The controller dies and comes back with what the store holds."""
        self.report.faults["restarts"] += 1
        self.scheduler = Scheduler(self.settings)
        self.at.clear()
        self.next_engine = 0
        unfinished = [events.RecoveredTask(s, CLIENT) for id, s in self.specs.items() if id not in self.done]
        self._handle(events.TasksRecovered(unfinished, self.clock() + GRACE))
        for link in self.links:
            link.cuts += 1
            self.clock.later(self.rng.uniform(0, 1.2 * GRACE), lambda link=link: self._hello(link))  # type: ignore[misc]

    def _welcome(self, link: _Link, held: list[Held]) -> None:
        engine = link.engine
        if self.at.get(engine.id) is not link:  # the first time in this life of the controller
            if engine.id < 0 or engine.id in self.scheduler.engines:
                engine.id = EngineId(self.next_engine)
            self.next_engine = max(self.next_engine, engine.id + 1)
            self.at[engine.id] = link
        self._handle(events.EngineJoined(engine.id, engine.uuid, "host", 1, NannyId(""), held))
        if not link.is_alive:
            self._lost(link, None)

    def _lost(self, link: _Link, running: Held | None) -> None:
        id = link.engine.id
        if self.at.get(id) is link:
            del self.at[id]
            known = self.rng.random() < 0.5
            self._handle(events.EngineLost(id, "killed", running.id if running and known else None, known))

    def _results(self, link: _Link, number: int, results: list[TaskDone]) -> None:
        if self.at.get(link.engine.id) is not link:
            return  # of an engine that is not known (any more): the controller would not listen
        self._handle(events.TasksFinished(link.engine.id, results))
        self._to_engine(link.engine.id, lambda link: link.engine.stored(number))

    def _left(self, link: _Link) -> None:
        if self.at.get(link.engine.id) is link:
            del self.at[link.engine.id]
            self._handle(events.EngineLeft(link.engine.id))

    # ------------------------------------------------------------------------------------------ between

    def _to_engine(self, id: EngineId, call: Callable[[_Link], None]) -> None:
        link = self.at.get(id)
        if link is None:
            return
        cuts = link.cuts
        link.down = max(link.down, self._arrival())
        self.clock.at(link.down, lambda: call(link) if link.is_alive and link.cuts == cuts else None)

    def _to_controller(self, link: _Link, call: Callable[[], None]) -> None:
        cuts = link.cuts
        link.up = max(link.up, self._arrival())
        self.clock.at(link.up, lambda: call() if link.cuts == cuts else None)

    def _arrival(self) -> float:
        return self.clock() + self.latency * self.rng.uniform(0.5, 1.5)

    # ------------------------------------------------------------------------------------------ engines

    def _start_engine(self, wish: EngineId, delay: float) -> None:
        self.lives += 1
        link = _Link(FakeEngine(wish, EngineUuid(f"u{self.lives}")))

        def start() -> None:
            self.links.append(link)
            self._hello(link)
            for rate, fault in (
                (self.chaos.deaths, self._die),
                (self.chaos.cuts, self._cut),
                (self.chaos.stops, self._stop),
            ):
                self._expect(link, rate, fault)

        self.clock.later(delay, start)

    def _expect(self, link: _Link, rate: float, fault: Callable[[_Link], None]) -> None:
        """Let a fault happen to an engine some time, at this rate."""

        def happen() -> None:
            if link.is_alive and len(self.done) < CHAOS_UNTIL * self.tasks:
                fault(link)
                self._expect(link, rate, fault)

        if rate:
            self.clock.later(self.rng.expovariate(rate), happen)

    def _hello(self, link: _Link) -> None:
        if not link.is_alive:
            return
        held = [*link.engine.held, *(Held(done.id, done.attempt) for done in link.outbox)]
        self._to_controller(link, lambda: self._welcome(link, held))
        for number, results in link.engine.unstored.items():
            self._send_results(link, number, results)

    def _received(self, link: _Link, tasks: list[Held]) -> None:
        link.engine.receive(tasks)
        self._work(link)

    def _work(self, link: _Link) -> None:
        engine, work = link.engine, self.workload
        if engine.begin() is None:
            if engine.running is None:
                self._flush(link)
                if engine.leaving:
                    self._leave(link)
            return
        self.report.begun += 1
        started = self.clock()

        def finish() -> None:
            if not link.is_alive:
                return
            status = "error" if self.rng.random() < work.failing else "ok"
            link.outbox.append(engine.finish(started, self.clock(), status))
            if self.clock() - link.sent > GATHER:
                self._flush(link)
            self._work(link)

        self.clock.later(self.rng.expovariate(1 / work.duration), finish)

    def _flush(self, link: _Link) -> None:
        if link.outbox:
            results, link.outbox = link.outbox, []
            link.sent = self.clock()
            number = link.engine.hand_in(results)
            self._send_results(link, number, results)
            if self.rng.random() < self.chaos.repeated:
                self.report.faults["repeated"] += 1
                self._send_results(link, number, results)

    def _send_results(self, link: _Link, number: int, results: list[TaskDone]) -> None:
        self._to_controller(link, lambda: self._results(link, number, results))

    def _recalled(self, link: _Link, ids: frozenset[TaskId]) -> None:
        back = link.engine.give_back(ids)
        self._to_controller(link, lambda: self._returned(link, back))

    def _returned(self, link: _Link, back: list[Held]) -> None:
        if self.at.get(link.engine.id) is link:
            self._handle(events.TasksReturned(link.engine.id, back))

    def _told_to_stop(self, link: _Link) -> None:
        if link.engine.leaving:
            return
        link.engine.leaving = True
        if link.engine.running is None:
            self._work(link)

    def _leave(self, link: _Link) -> None:
        """Give back what has not started, and go."""
        back = link.engine.give_back()
        self._to_controller(link, lambda: self._returned(link, back))
        self._to_controller(link, lambda: self._left(link))
        self._end(link)

    def _end(self, link: _Link) -> None:
        link.is_alive = False
        self.links.remove(link)
        self._start_engine(link.engine.id, self.rng.uniform(0.01, 0.5))

    # ------------------------------------------------------------------------------------------ faults

    def _die(self, link: _Link) -> None:
        """Without a word; the controller notices some time later."""
        self.report.faults["deaths"] += 1
        running = link.engine.running
        self._end(link)
        self.clock.later(self.rng.uniform(0, 0.2), lambda: self._lost(link, running))

    def _cut(self, link: _Link) -> None:
        """Messages get lost; the engine notices some time later."""
        self.report.faults["cuts"] += 1
        link.cuts += 1
        self.clock.later(self.rng.uniform(0, 0.2), lambda: self._hello(link))

    def _stop(self, link: _Link) -> None:
        self.report.faults["stops"] += 1
        if self.at.get(link.engine.id) is link:
            self._handle(events.EnginesStopped([link.engine.id]))
