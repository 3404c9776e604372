"""`simulate`: a workload on a cluster in virtual time, in fair weather or foul, until every task has ended.

Everything follows from the seed. What must hold, holds at every moment (`core.checks.check`), and at the end every
task has exactly one outcome and nothing waits. A failure names the call of `simulate` that repeats it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec

from ..config import SchedulerSettings
from ..ids import ClientId
from ..messages import TaskSpec
from .peers import EnginePeer
from .virtual import SETTLED, VirtualCluster
from .workload import Source, Workload

#: Chaos ends when this part of the tasks has ended: the rest must then end by itself.
CHAOS_UNTIL = 0.9


class Chaos(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. Rates are per engine and second, chances per message or submission."""

    deaths: float = 0.0  #: rate; another engine takes the place of a dead one
    cuts: float = 0.0  #: rate; everything on its way, both ways, is lost
    stops: float = 0.0  #: rate; an engine is asked to leave
    repeated: float = 0.0  #: chance that results, or a submission, come twice
    late: float = 0.0  #: chance that a submission comes late: after some that depend on it
    aborts: float = 0.0  #: chance that a submission is followed by the abort of some tasks
    cancels: float = 0.0  #: the same, of running ones, too
    restarts: int = 0  #: how often the controller loses its memory

    @classmethod
    def wild(cls) -> Chaos:
        """Some of everything."""
        return cls(deaths=0.1, cuts=0.2, stops=0.05, repeated=0.1, late=0.1, aborts=0.3, cancels=0.3, restarts=2)


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
    waited: float  #: mean seconds from the submission of a task to the start of its last attempt
    busy: dict[int, float]  #: virtual seconds at work, by engine number
    events: int  #: handled by the scheduler
    faults: Counter[str]  #: deaths, cuts, stops, repeated, late, aborts, cancels, restarts
    asked: Counter[str]  #: what the scheduler asked for: outcomes from the store, interruptions, kills


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
        Check the scheduler's invariants after every so many events. A check looks at all tasks. 0: only at the end.

    Raises
    ------
    AssertionError
        Something that must hold did not. Its note says how to repeat it.
    """
    workload, chaos = workload or Workload(), chaos or Chaos()
    source = Source(workload, tasks, engines, seed)
    cluster = VirtualCluster(
        engines,
        source.conduct,
        resources=source.resources(),
        settings=settings,
        seed=seed,
        latency=latency,
        check_every=check_every,
    )
    weather = _Weather(cluster, chaos, tasks, seed)
    try:
        for moment, client, specs in source.submissions():
            weather.plan(moment, client, specs)
        cluster.run()
    except BaseException as error:
        error.add_note(
            f"at {cluster.clock():.6f} s, after {cluster.events} events of simulate({seed}, engines={engines}, "
            f"tasks={tasks}, workload={workload}, chaos={chaos}, settings={settings}, latency={latency}, "
            f"check_every={check_every})"
        )
        raise
    return _report(cluster, seed, weather.faults)


def _report(cluster: VirtualCluster, seed: int, faults: Counter[str]) -> Report:
    done = cluster.done.values()
    waits = [d.started - SETTLED - cluster.specs[d.id].submitted for d in done if d.started is not None]
    return Report(
        seed=seed,
        tasks=len(done),
        outcomes=Counter(d.status for d in done),
        errors=Counter(d.error.ename for d in done if d.error is not None),
        per_engine=Counter(int(d.engine) for d in done),
        attempts=Counter(d.attempt for d in done),
        begun=cluster.begun,
        makespan=cluster.ended - cluster.submitted,
        waited=sum(waits) / len(waits) if waits else 0.0,
        busy=dict(cluster.busy),
        events=cluster.events,
        faults=faults,
        asked=cluster.asked,
    )


class _Weather:
    """Has things go wrong."""

    def __init__(self, cluster: VirtualCluster, chaos: Chaos, tasks: int, seed: int) -> None:
        self._cluster, self._chaos, self._tasks = cluster, chaos, tasks
        self._rng = Random(f"{seed} weather")
        self.faults: Counter[str] = Counter()
        cluster.on_start = self._expect_faults
        for _ in range(chaos.restarts):
            cluster.clock.later(SETTLED + self._rng.uniform(0, 3.0), self._restart)

    def plan(self, moment: float, client: str, specs: list[TaskSpec]) -> None:
        """A submission, and what happens because of it."""
        rng, chaos, cluster = self._rng, self._chaos, self._cluster
        if rng.random() < chaos.late:
            self.faults["late"] += 1
            moment += rng.uniform(0, 0.2)
        cluster.plan(moment, client, specs)
        if rng.random() < chaos.repeated:
            self.faults["repeated"] += 1
            cluster.clock.later(SETTLED + moment + rng.uniform(0, 0.1), lambda: cluster.submit(ClientId(client), specs))
        for chance, fault, running in ((chaos.aborts, "aborts", False), (chaos.cancels, "cancels", True)):
            if rng.random() < chance:
                self.faults[fault] += 1
                cluster.clock.later(SETTLED + moment + rng.uniform(0, 0.5), lambda r=running: self._abort(r))  # type: ignore[misc]

    def _abort(self, running: bool) -> None:
        """Some tasks are aborted: any that have come, and some of those that run at this moment."""
        rng, cluster = self._rng, self._cluster
        ids = rng.choices(list(cluster.clients), k=4) if cluster.clients else []
        at_work = [link.engine.running.id for link in cluster.links if link.engine.running is not None]
        cluster.abort([*ids, *rng.sample(at_work, min(2, len(at_work)))], running)

    def _restart(self) -> None:
        self.faults["restarts"] += 1
        self._cluster.restart()

    def _expect_faults(self, link: EnginePeer) -> None:
        """Let faults happen to an engine some time, at their rates."""
        chaos, cluster = self._chaos, self._cluster
        self._expect(link, chaos.deaths, "deaths", cluster.die)
        self._expect(link, chaos.cuts, "cuts", cluster.cut)
        self._expect(link, chaos.stops, "stops", cluster.stop)
        self._expect(link, chaos.repeated and 1.0, "repeated", self._repeat)

    def _expect(self, link: EnginePeer, rate: float, name: str, fault: Callable[[EnginePeer], None]) -> None:
        def happen() -> None:
            if link.is_alive and len(self._cluster.done) < CHAOS_UNTIL * self._tasks:
                self.faults[name] += 1
                fault(link)
                self._expect(link, rate, name, fault)

        if rate:
            self._cluster.clock.later(self._rng.expovariate(rate), happen)

    def _repeat(self, link: EnginePeer) -> None:
        """Results that have not been acknowledged come twice."""
        link.send_unstored()
