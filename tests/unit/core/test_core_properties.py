"""The scheduler under any sequence of events, nonsense included.

After each event the invariants hold and no task has ended twice; at the end well-behaved engines run what is
left, and every task that was ever submitted has exactly one outcome. `ENGINEROOM_NIGHTLY=1` tries 25,000 sequences.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engineroom.config import SchedulerSettings
from engineroom.core import Scheduler, actions, events
from engineroom.core.checks import check
from engineroom.core.dependencies import TaskOutcome
from engineroom.core.explain import explain
from engineroom.messages import AttemptKey, ErrorInfo, GraphDependency, TaskDone, TaskOptions, TaskSpec

NIGHTLY = bool(os.environ.get("ENGINEROOM_NIGHTLY"))

# Few names, so that they meet: most events concern tasks and engines there are, some do not.
task_ids = st.integers(0, 19).map("t{}".format)
engine_ids = st.integers(0, 4)
uuids = st.sampled_from(["u", "v"])
attempts = st.one_of(st.just(0), st.integers(1, 4))  # 0 stands for the right one
batches = st.lists(st.tuples(task_ids, attempts), max_size=6)
few_tasks = st.lists(task_ids, max_size=3, unique=True).map(tuple)
ends = st.sampled_from([(True, False), (True, False), (False, True), (True, True)])
dependencies = st.one_of(
    st.none(),
    st.none(),
    st.builds(lambda tasks, all, counts: GraphDependency(tasks, all, *counts), few_tasks, st.booleans(), ends),
)
wishes = st.one_of(
    st.none(),
    st.builds(
        TaskOptions,
        retries=st.integers(0, 3),
        targets=st.one_of(st.none(), st.lists(engine_ids, min_size=1, max_size=3, unique=True).map(tuple)),
        after=dependencies,
        follow=dependencies,
        inputs=st.one_of(st.just(()), few_tasks),
        timeout=st.one_of(st.none(), st.sampled_from([0.001, 1.0])),
        priority=st.sampled_from([0, 0, 1, -1]),
        resources=st.sampled_from([None, None, {"gpu": 1}, {"gpu": 2}]),
        depend=st.sampled_from([False, False, True]),
        scheme=st.sampled_from([None, None, "lru", "twobin", "weighted", "pure", "nonsense"]),
    ),
)
functions = st.sampled_from([b"f", b"g"])
clients = st.sampled_from(["c", "d"])
outcomes = st.sampled_from(
    [
        None,
        TaskOutcome(True, "u0"),
        TaskOutcome(True, "v1"),
        TaskOutcome(True, None),
        TaskOutcome(True, "u0", True),
        TaskOutcome(False, "u0", False, "failed", ("x",), 1),
    ]
)
direct = st.one_of(st.just(-1), st.just(-1), engine_ids)


class AnyStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler()
        self.now = 1.7e9
        self.accepted: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        #: what the store was asked for, and has not answered
        self.asked: set[str] = set()
        self.refused: set[tuple[str, str]] = set()

    def happen(self, event: events.Event) -> None:
        before = set(self.core.tasks)
        for action in self.core.handle(event, self.now):
            match action:
                case actions.RecordTasks(tasks):
                    for task in tasks:
                        assert task.id not in before
                        self.accepted[task.id] += 1
                case actions.SendTasks(engine, tasks):
                    for task in tasks:
                        if task.engine is not None and task.spec.options is not None and task.spec.options.depend:
                            answers = self.core.engines[task.engine].answers
                            agreed = task.is_direct or answers.get(task.spec.function) == ""
                            assert agreed, "sent where its properties are not known to be right"
                        if task.engine is not None:  # nonsense may end it in the same breath
                            assert task.engine == engine
                            assert (task.id, self.core.engines[engine].uuid) not in self.refused, "asked twice"
                case actions.FindOutcomes(ids):
                    self.asked |= set(ids)
                case actions.EndTasks(ended):
                    for one in ended:
                        assert one.done.id == one.task.id
                        self.ended[one.task.id] += 1
                        self.refused = {pair for pair in self.refused if pair[0] != one.task.id}
        for id, count in self.ended.items():
            assert count <= self.accepted[id], f"{id} ended more often than it was accepted"

    def attempt(self, id: str, attempt: int) -> int:
        task = self.core.tasks.get(id)
        return attempt or (task.attempt if task is not None else 1)

    def held(self, batch: list[tuple[str, int]]) -> list[AttemptKey]:
        return [AttemptKey(id, self.attempt(id, attempt)) for id, attempt in batch]

    @invariant()
    def all_is_well(self) -> None:
        check(self.core)
        waiting = set(self.core.tasks)
        assert waiting == {id for id, count in self.accepted.items() if count > self.ended[id]}

    @rule(seconds=st.sampled_from([1e-6, 0.001, 0.01, 1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_deadline_comes(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.happen(events.Ticked())
            after = self.core.next_deadline()
            assert after is None or after > self.now, "the loop would spin"

    @rule(
        ids=st.lists(task_ids, min_size=1, max_size=8),
        function=functions,
        engine=direct,
        options=wishes,
        client=clients,
    )
    def tasks_are_submitted(
        self, ids: list[str], function: bytes, engine: int, options: TaskOptions | None, client: str
    ) -> None:
        specs = [TaskSpec(id, function, b"", self.now, engine, (), options) for id in ids]
        self.happen(events.TasksSubmitted(client, specs))

    @rule(outcome=outcomes, all=st.booleans(), others=few_tasks)
    def the_store_answers(self, outcome: TaskOutcome | None, all: bool, others: tuple[str, ...]) -> None:
        ids = [*(sorted(self.asked) if all else ()), *others]
        self.asked -= set(ids)
        self.happen(events.OutcomesFound(dict.fromkeys(ids, outcome)))

    @rule(ids=st.lists(task_ids, max_size=6, unique=True), engine=direct, options=wishes, grace=st.floats(0, 5))
    def tasks_are_recovered(self, ids: list[str], engine: int, options: TaskOptions | None, grace: float) -> None:
        self.accepted.update(id for id in ids if id not in self.core.tasks)
        found = [events.RecoveredTask(TaskSpec(id, b"f", b"", self.now, engine, (), options), "c") for id in ids]
        self.happen(events.TasksRecovered(found, self.now + grace))

    @rule(engine=engine_ids, uuid=uuids, batch=batches, gpus=st.integers(0, 2))
    def an_engine_joins(self, engine: int, uuid: str, batch: list[tuple[str, int]], gpus: int) -> None:
        has = {"gpu": list(range(gpus))} if gpus else {}
        self.happen(events.EngineJoined(engine, f"{uuid}{engine}", "h", 1, "n", self.held(batch), has))

    @rule(
        engine=engine_ids,
        batch=batches,
        status=st.sampled_from(["ok", "ok", "error", "unmet", "aborted"]),
        took=st.sampled_from([0.0, 1e-5, 0.1, -1.0]),
    )
    def results_come(self, engine: int, batch: list[tuple[str, int]], status: str, took: float) -> None:
        error = ErrorInfo("ValueError", "no") if status != "ok" else None
        results = [TaskDone(h.id, h.attempt, status, self.now - took, self.now, error=error) for h in self.held(batch)]
        self.happen(events.TasksFinished(engine, results))

    @rule(engine=engine_ids, count=st.integers(1, 5))
    def an_engine_works(self, engine: int, count: int) -> None:
        known = self.core.engines.get(engine)
        if known is not None:
            done = [TaskDone(t.id, t.attempt, "ok", self.now, self.now + 0.001) for t in list(known.held.values())]
            self.happen(events.TasksFinished(engine, done[:count]))

    @rule(engine=engine_ids, count=st.integers(1, 5))
    def an_engine_refuses_tasks(self, engine: int, count: int) -> None:
        known = self.core.engines.get(engine)
        if known is not None:
            error = ErrorInfo("UnmetDependency", "no")
            tasks = list(known.held.values())[:count]
            self.refused |= {(t.id, known.uuid) for t in tasks if not t.is_direct}
            done = [TaskDone(t.id, t.attempt, "unmet", self.now, self.now, error=error) for t in tasks]
            self.happen(events.TasksFinished(engine, done))

    @rule(engine=engine_ids, batch=batches)
    def tasks_are_returned(self, engine: int, batch: list[tuple[str, int]]) -> None:
        self.happen(events.TasksReturned(engine, self.held(batch)))

    @rule(engine=engine_ids, count=st.integers(0, 3), stray=task_ids)
    def tasks_wait_for_others(self, engine: int, count: int, stray: str) -> None:
        known = self.core.engines.get(engine)
        ids = list(known.held)[:count] if known is not None else []
        self.happen(events.TasksWaiting(engine, [*ids, stray] if count == 3 else ids))

    @rule(engine=engine_ids)
    def an_engine_gives_back_what_was_recalled(self, engine: int) -> None:
        known = self.core.engines.get(engine)
        if known is not None:
            ids = [id for id in known.held if id in known.recalled]
            self.happen(events.TasksReturned(engine, self.held([(id, 0) for id in ids])))

    @rule(engine=engine_ids, running=st.one_of(st.none(), task_ids), known=st.booleans(), overran=st.booleans())
    def an_engine_is_lost(self, engine: int, running: str | None, known: bool, overran: bool) -> None:
        self.happen(events.EngineLost(engine, "killed", running, known, overran))

    @rule(ids=st.lists(task_ids, max_size=4))
    def somebody_asks_why(self, ids: list[str]) -> None:
        for id in ids:
            told = explain(self.core, [id], self.now)[id]
            assert (told is None) == (id not in self.core.tasks)
            assert told is None or told["reason"]

    @rule(engine=engine_ids, function=functions, reason=st.sampled_from(["", "no"]))
    def an_engine_answers(self, engine: int, function: bytes, reason: str) -> None:
        self.happen(events.PropertiesAnswered(engine, {function: reason}))

    @rule(engines=st.lists(engine_ids, max_size=2))
    def properties_change(self, engines: list[int]) -> None:
        self.happen(events.PropertiesChanged(engines))

    @rule(engines=st.lists(engine_ids, max_size=3))
    def engines_are_silent(self, engines: list[int]) -> None:
        self.happen(events.EnginesSilent(dict.fromkeys(engines, 0.0)))

    @rule(engine=engine_ids)
    def an_engine_leaves(self, engine: int) -> None:
        self.happen(events.EngineLeft(engine))

    @rule(engines=st.lists(engine_ids, max_size=2))
    def engines_are_stopped(self, engines: list[int]) -> None:
        self.happen(events.EnginesStopped(engines))

    @rule(ids=st.lists(task_ids, max_size=8), running=st.booleans())
    def tasks_are_aborted(self, ids: list[str], running: bool) -> None:
        self.happen(events.AbortRequested(ids, running))

    @rule(ids=st.lists(task_ids, max_size=4))
    def tasks_cannot_be_served(self, ids: list[str]) -> None:
        self.happen(events.TasksFailed(ids, ErrorInfo("StoreDamaged", "its function cannot be read")))
        assert not self.core.tasks.keys() & set(ids), "what has failed is still known"

    @rule(ids=st.lists(task_ids, max_size=4, unique=True), ok=st.booleans())
    def tasks_end_as_they_come(self, ids: list[str], ok: bool) -> None:
        self.accepted.update(id for id in ids if id not in self.core.tasks and self.core.outcome(id) is None)
        error = None if ok else ErrorInfo("StoreDamaged", "its function cannot be read")
        done = [TaskDone(id, 1, "ok" if ok else "error", None, self.now, error=error) for id in ids]
        answers = [events.Answer(TaskSpec(d.id, b"f", b"", self.now, -1), (), d) for d in done]
        self.happen(events.TasksAnswered("c", answers))

    @rule(ids=st.lists(task_ids, max_size=4), client=clients)
    def tasks_are_watched(self, ids: list[str], client: str) -> None:
        self.happen(events.TasksWatched(client, ids))
        for id in ids:
            task = self.core.task(id)
            assert task is None or client in (task.client, *(task.watchers or ()))

    @rule(really=st.integers(0, 9))
    def the_controller_stops(self, really: int) -> None:
        if really == 0:  # seldom: little is left to happen afterwards
            self.happen(events.ControllerStopped("bye"))

    def teardown(self) -> None:
        """Well-behaved engines run what is left."""
        core = self.core
        for id in list(core.engines):
            self.happen(events.EngineLeft(id))
        self.now += 10.0
        self.happen(events.Ticked())
        for id in range(5):
            self.happen(events.EngineJoined(id, f"w{id}", "h", 1, "n", (), {"gpu": [0, 1]}))
        self.happen(events.OutcomesFound(dict.fromkeys(self.asked)))
        turns = 0
        while core.tasks:
            turns += 1
            assert turns < 1000, f"these wait for ever: {list(core.tasks.values())}"
            self.now += 0.001
            for engine in list(core.engines.values()):
                self.happen(events.PropertiesAnswered(engine.id, dict.fromkeys([b"f", b"g"], "")))
                done = [TaskDone(t.id, t.attempt, "ok", self.now, self.now) for t in engine.held.values()]
                self.happen(events.TasksFinished(engine.id, done))
            check(core)
        assert self.ended == self.accepted, "every task ends exactly once"


class AnyStoryWithOneAtATime(AnyStory):
    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SchedulerSettings(hwm=1))


class AnyStoryWithoutLimit(AnyStory):
    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SchedulerSettings(hwm=0, death_limit=1, outcomes_kept=4))


class AnyStoryByLru(AnyStory):
    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SchedulerSettings(hwm=2, scheme="lru"))


class AnyStoryInPureTurns(AnyStory):
    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SchedulerSettings(scheme="pure"))


pytestmark = pytest.mark.timeout(4 * 3600 if NIGHTLY else 90)

profile = settings(
    max_examples=5_000 if NIGHTLY else 40,
    stateful_step_count=50,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],  # it traces every line, and takes ten times longer
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestAnyStory = AnyStory.TestCase
TestAnyStoryWithOneAtATime = AnyStoryWithOneAtATime.TestCase
TestAnyStoryWithoutLimit = AnyStoryWithoutLimit.TestCase
TestAnyStoryByLru = AnyStoryByLru.TestCase
TestAnyStoryInPureTurns = AnyStoryInPureTurns.TestCase
for case in (
    TestAnyStory,
    TestAnyStoryWithOneAtATime,
    TestAnyStoryWithoutLimit,
    TestAnyStoryByLru,
    TestAnyStoryInPureTurns,
):
    case.settings = profile
del case
