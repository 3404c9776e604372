"""The laws of the schemes, measured.

Every figure follows from a seed, so none of these fails now and then; each bound is one that the law gives with a
probability of at least 1 - 1e-6, so another seed would do as well.
"""

from __future__ import annotations

import importlib.metadata
import math
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest

from engineroom.config import SchedulerSettings
from engineroom.core import Scheduler, actions, events
from engineroom.core.checks import check
from engineroom.core.placement import schemes
from engineroom.ids import EngineId
from engineroom.messages import TaskDone, TaskSpec
from engineroom.testing import Chaos, Workload, simulate

OURS = list(schemes.SCHEMES)

#: How many standard deviations a normal variable stays within with a probability of 1 - 1e-6.
SIGMAS = 4.9


def chi_square_bound(freedom: int) -> float:
    """What a chi-square variable exceeds with a probability of 1e-6 (Wilson and Hilferty's approximation)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 4.75 * math.sqrt(spread)) ** 3


class Core:
    """A scheduler with engines that hold whatever they are given."""

    def __init__(self, scheme: str, engines: int, *, seed: int = 1, hwm: int | None = 0) -> None:
        self.scheduler = Scheduler(SchedulerSettings(scheme=scheme, hwm=hwm), seed)
        self.count = 0
        for id in range(engines):
            self.tell(events.EngineJoined(EngineId(id), f"u{id}", "host", 1, "nanny"))

    def tell(self, event: events.Event, now: float = 0.0) -> list[int]:
        """Something happens; returns the engines that are given tasks, one for each task, in order."""
        gifts = [a for a in self.scheduler.handle(event, now) if isinstance(a, actions.SendTasks)]
        return [gift.engine for gift in gifts for _ in gift.tasks]

    def submit(self, tasks: int = 1) -> list[int]:
        """Tasks come, together; returns who got one."""
        ids = [f"t{self.count + n}" for n in range(tasks)]
        self.count += tasks
        return self.tell(events.TasksSubmitted("me", [TaskSpec(id, b"f", b"", 0.0) for id in ids]))

    def finish(self, engine: int, now: float = 0.0) -> list[int]:
        """An engine is done with the first task it holds."""
        id, task = next(iter(self.scheduler.engines[EngineId(engine)].held.items()))
        return self.tell(events.TasksFinished(engine, [TaskDone(id, task.attempt, "ok", now, now)]), now)

    @property
    def loads(self) -> list[int]:
        return [engine.load for engine in self.scheduler.engines.values()]


def max_gap(scheme: str, engines: int, tasks: int, seed: int) -> float:
    """How far the most loaded engine is above the mean, when tasks only arrive, one by one."""
    core = Core(scheme, engines, seed=seed)
    for _ in range(tasks):
        core.submit()
    return max(core.loads) - tasks / engines


# ---------------------------------------------------------------------------------------------- lru


@pytest.mark.parametrize("together", [1, 1000])
def test_lru_gives_every_engine_the_same_number(together: int):
    core, given = Core("lru", 7), Counter[int]()
    for _ in range(1000 // together):
        given.update(core.submit(together))
    assert max(given.values()) - min(given.values()) <= 1
    assert len(given) == 7


def test_lru_always_chooses_the_engine_used_longest_ago():
    core, rng = Core("lru", 9, hwm=3), Random(2)
    last = dict.fromkeys(range(9), -1)
    for moment in range(3000):
        engines = core.scheduler.engines
        free = [id for id, engine in engines.items() if engine.has_room]
        busy = [id for id, engine in engines.items() if engine.held]
        if busy and (not free or rng.random() < 0.5):
            core.finish(rng.choice(busy))
            continue
        [chosen] = core.submit()
        assert last[chosen] == min(last[id] for id in free)
        last[chosen] = moment


# ---------------------------------------------------------------------------------------------- chance


def test_plainrandom_is_uniform_and_does_not_look_at_the_load():
    engines, tasks = 20, 20_000
    given = Counter(Core("plainrandom", engines, seed=3).submit(tasks))
    expected = tasks / engines
    chi_square = sum((given[id] - expected) ** 2 / expected for id in range(engines))
    assert chi_square < chi_square_bound(engines - 1), f"{chi_square:.1f}"


def test_of_two_the_less_recently_used_spreads_tasks_more_evenly_than_chance_by_its_law():
    """Where n is large, the time between two uses of an engine, in tasks over n, has the survival function sech².

    It has the mean 1 and the variance 2 ln 2 - 1, and so, by the renewal theorem, the number of tasks of an engine
    varies by 0.386 of what it does under plainrandom, where that time is exponential.
    """
    engines, tasks = 200, 100_000
    dispersion, apart = {}, {}
    for scheme in ("plainrandom", "twobin"):
        core, used, times = Core(scheme, engines, seed=5), dict[int, int](), []
        given = [core.submit()[0] for _ in range(tasks)]
        for moment, engine in enumerate(given):
            if engine in used:
                times.append((moment - used[engine]) / engines)
            used[engine] = moment
        counts = Counter(given)
        dispersion[scheme] = sum((counts[id] - tasks / engines) ** 2 for id in range(engines)) / (tasks / engines)
        apart[scheme] = sum(time > 2 for time in times) / len(times)
    freedom = engines - 1
    spread = SIGMAS * math.sqrt(2 / freedom)  # of chi-square over its freedom
    assert dispersion["plainrandom"] / freedom == pytest.approx(1, rel=spread)
    assert dispersion["twobin"] / freedom == pytest.approx(2 * math.log(2) - 1, rel=spread)
    assert apart["plainrandom"] == pytest.approx(math.exp(-2), abs=0.006)
    assert apart["twobin"] == pytest.approx(1 / math.cosh(2) ** 2, abs=0.006)


def test_weighted_lies_between_chance_and_leastload():
    gaps = {scheme: max_gap(scheme, 50, 20_000, 7) for scheme in ("plainrandom", "weighted", "leastload")}
    assert gaps["leastload"] <= 1
    assert gaps["leastload"] < gaps["weighted"] < 0.5 * gaps["plainrandom"], str(gaps)


def test_weighted_draws_two_by_inverse_load_and_takes_the_less_loaded():
    """Loads 0, 1 and 3: weights 1, 1/2 and 1/4, so 4/7, 2/7 and 1/7; the less loaded of two draws."""
    p = {0: 4 / 7, 1: 2 / 7, 3: 1 / 7}
    law = {0: 1 - (1 - p[0]) ** 2, 1: (1 - p[0]) ** 2 - p[3] ** 2, 3: p[3] ** 2}
    assert sum(law.values()) == pytest.approx(1)
    for draw in drawers("weighted", [0, 1, 3]):
        drawn = Counter(draw() for _ in range(20_000))
        for load, engine in ((0, 0), (1, 1), (3, 2)):
            spread = math.sqrt(law[load] * (1 - law[load]) / 20_000)
            assert abs(drawn[engine] / 20_000 - law[load]) < SIGMAS * spread


# ---------------------------------------------------------------------------------------------- leastload, pure


def test_under_leastload_no_engine_is_more_than_one_ahead_at_any_moment():
    core, rng = Core("leastload", 13), Random(11)
    for _ in range(300):
        core.submit(rng.choice([1, 2, 5, 100]))
        assert max(core.loads) - min(core.loads) <= 1


def test_under_leastload_the_least_loaded_engine_is_chosen_and_of_several_the_least_recently_used():
    core, rng, used = Core("leastload", 8, hwm=5), Random(12), dict.fromkeys(range(8), -1)
    for moment in range(3000):
        before = core.loads
        busy = [id for id in range(8) if before[id]]
        if (busy and rng.random() < 0.5) or min(before) == 5:
            core.finish(rng.choice(busy))
            continue
        [chosen] = core.submit()
        assert before[chosen] == min(before)
        used[chosen] = moment


def test_pure_ends_everything_in_even_shares():
    report = simulate(
        4,
        engines=8,
        tasks=4000,
        workload=Workload(duration=0.01),
        settings=SchedulerSettings(scheme="pure"),
        check_every=50,
    )
    assert report.outcomes == {"ok": 4000}
    assert report.begun == 4000
    assert max(report.per_engine.values()) < 2 * min(report.per_engine.values())


# ---------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("scheme", OURS)
@pytest.mark.parametrize("hwm", [None, 1, 0])
def test_every_scheme_runs_every_task_once_and_leaves_no_engine_idle(scheme: str, hwm: int | None):
    report = simulate(
        6,
        engines=5,
        tasks=500,
        workload=Workload(duration=0.05),
        settings=SchedulerSettings(scheme=scheme, hwm=hwm),
        check_every=10,
    )
    assert report.outcomes == {"ok": 500}
    assert set(report.per_engine) == set(range(5))
    ideal = sum(report.busy.values()) / 5
    # Nothing is taken back from engines that are behind under pure: its law is a share, not a balance.
    assert report.makespan < (1.2 if scheme != "pure" else 2.0) * ideal


def drawers(scheme: str, loads: list[int]) -> Iterator[Callable[[], int]]:
    """Two ways to draw an engine, for engines used in this order: by the scheme's function, and by its index."""
    core = Core("plainrandom", len(loads))
    function, index_class = schemes.SCHEMES[scheme]
    index = index_class(function, Random(21))
    engines = list(core.scheduler.engines.values())
    for used, (engine, load) in enumerate(zip(engines, loads, strict=True), 1):
        engine.used = used
        engine.held = {f"{engine.id}-{n}": None for n in range(load)}  # type: ignore[assignment, misc]
        index.update(engine)
    rng = Random(22)
    yield lambda: function(loads, rng)
    yield lambda: index.pick().id  # type: ignore[union-attr]


@pytest.mark.parametrize("scheme", OURS)
@pytest.mark.parametrize("loads", [[0, 0, 0], [3, 1, 2, 1], [5, 0, 0, 2, 2, 9]], ids=str)
def test_the_index_of_a_scheme_draws_as_its_function_does(scheme: str, loads: list[int]):
    draws = 4000
    one, other = (Counter(draw() for _ in range(draws)) for draw in drawers(scheme, loads))
    drawn = [(one[id], other[id]) for id in range(len(loads)) if one[id] + other[id]]
    if len(drawn) == 1:
        return  # nothing is left to chance, and they agree
    chi_square = sum((a - b) ** 2 / (a + b) for a, b in drawn)
    assert chi_square < chi_square_bound(len(drawn) - 1), f"{one} and {other}"


# ---------------------------------------------------------------------------------------------- a user's own


def most_loaded(loads: Sequence[int], rng: Random) -> int:
    return max(range(len(loads)), key=loads.__getitem__)


def raises(loads: Sequence[int], rng: Random) -> int:
    raise RuntimeError("thought too hard")


def wrong_index(loads: Sequence[int], rng: Random) -> int:
    return len(loads)


def no_index(loads: Sequence[int], rng: Random) -> int:
    return None  # type: ignore[return-value]


@pytest.fixture
def my_schemes(monkeypatch: pytest.MonkeyPatch) -> str:
    module = types.ModuleType("my_schemes")
    for function in (most_loaded, raises, wrong_index, no_index):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "my_schemes", module)
    return "my_schemes"


def test_a_scheme_of_your_own_decides(my_schemes: str):
    core = Core(f"{my_schemes}:most_loaded", 4, hwm=3)
    assert core.submit(7) == [0, 0, 0, 1, 1, 1, 2]
    check(core.scheduler)


def test_a_scheme_of_your_own_can_come_by_an_entry_point(monkeypatch: pytest.MonkeyPatch, my_schemes: str):
    entry = importlib.metadata.EntryPoint("greedy", "my_schemes:most_loaded", "engineroom.schemes")
    found = importlib.metadata.entry_points

    def entry_points(**wanted: str) -> object:
        if wanted.get("group") == "engineroom.schemes":
            return importlib.metadata.EntryPoints([entry]).select(name=wanted["name"])
        return found(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert Core("greedy", 4, hwm=3).submit(4) == [0, 0, 0, 1]
    report = simulate(
        8, engines=4, tasks=200, workload=Workload(duration=0.01), settings=SchedulerSettings(scheme="greedy", hwm=2)
    )
    assert report.outcomes == {"ok": 200}


@pytest.mark.parametrize("function", ["raises", "wrong_index", "no_index"])
def test_a_broken_scheme_loses_no_task(my_schemes: str, function: str, caplog: pytest.LogCaptureFixture):
    report = simulate(
        9,
        engines=4,
        tasks=100,
        workload=Workload(duration=0.01, retries=5),
        chaos=Chaos(cuts=0.5, repeated=0.2, restarts=1),
        settings=SchedulerSettings(scheme=f"{my_schemes}:{function}", hwm=2),
    )
    assert report.outcomes == {"ok": 100}
    assert "leastload chose" in caplog.text


def test_a_scheme_that_always_fails_is_logged_now_and_then(my_schemes: str, caplog: pytest.LogCaptureFixture):
    core = Core(f"{my_schemes}:raises", 4)
    assert len(core.submit(2345)) == 2345
    first, *later = [record.getMessage() for record in caplog.records]
    assert first.startswith("the scheme raises failed, so leastload chose: ")
    assert [text.partition(",")[0] for text in later] == [
        f"the scheme raises failed (for the {count}th time)" for count in (10, 100, 1000)
    ]
