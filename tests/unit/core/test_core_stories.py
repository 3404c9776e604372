"""The scheduler's rules, told as stories: events in, actions out. `run` checks the invariants after each event."""

from __future__ import annotations

import pytest
from stories import (
    done,
    finished,
    joined,
    outcome,
    raised,
    recovered,
    returned,
    run,
    scheduler,
    started,
    submitted,
    unmet,
)

from engineroom.core import Scheduler, actions
from engineroom.core.checks import check
from engineroom.core.events import (
    AbortRequested,
    Answer,
    ControllerStopped,
    EngineLeft,
    EngineLost,
    EnginesLost,
    EnginesSilent,
    EnginesStopped,
    Event,
    RecoveredTask,
    TasksAnswered,
    TasksFailed,
    TasksRecovered,
    TasksWatched,
    Ticked,
)
from engineroom.core.explain import explain
from engineroom.core.placement.queues import TaskQueue
from engineroom.core.tasks import TRANSITIONS, TaskState
from engineroom.messages import Attempt, ErrorInfo, GraphDependency, TaskDone, TaskSpec

# -------------------------------------------------------------------------------------------- who gets what


def test_an_idle_engine_gets_a_task_at_once():
    assert run(scheduler(), joined(0), submitted("a"), finished(0, "a")) == [("send", 0, "a"), ("end", "a", "ok")]


def test_a_new_task_is_to_be_recorded_before_it_is_sent():
    core = scheduler()
    run(core, joined(0))
    first, second = core.handle(submitted("a"), 0.0)
    assert isinstance(first, actions.RecordTasks)
    assert isinstance(second, actions.SendTasks)


def test_tasks_wait_for_the_first_engine_and_go_first_in_first_out():
    assert run(scheduler(), submitted("a"), submitted("b", "c"), joined(0), finished(0, "a"), finished(0, "b")) == [
        ("send", 0, "a"),
        ("send", 0, "b"),
        ("end", "a", "ok"),
        ("send", 0, "c"),
        ("end", "b", "ok"),
    ]


def test_the_engine_with_least_to_do_is_served_first():
    core = scheduler(hwm=3)
    run(core, joined(0), submitted("a", engine=0), joined(1))
    assert run(core, submitted("b")) == [("send", 1, "b")]


def test_among_equals_the_engine_used_longest_ago_is_served_first():
    core = scheduler(hwm=2)
    run(core, joined(0), joined(1), joined(2))
    assert run(core, submitted("a"), submitted("b"), submitted("c")) == [
        ("send", 0, "a"),
        ("send", 1, "b"),
        ("send", 2, "c"),
    ]
    run(core, finished(1, "b"), finished(0, "a"), finished(2, "c"))
    assert run(core, submitted("d"), submitted("e"), submitted("f")) == [
        ("send", 1, "d"),
        ("send", 0, "e"),
        ("send", 2, "f"),
    ]


def test_many_tasks_are_spread_evenly():
    core = scheduler(hwm=0)
    run(core, *(joined(n) for n in range(4)), submitted(*(f"t{n}" for n in range(400))))
    loads = [engine.load for engine in core.engines.values()]
    assert sum(loads) == 400
    assert max(loads) - min(loads) <= 1


def test_an_engine_holds_no_more_than_its_hwm():
    assert run(scheduler(hwm=2), joined(0), submitted("a", "b", "c"), finished(0, "a")) == [
        ("send", 0, "a", "b"),
        ("send", 0, "c"),
        ("end", "a", "ok"),
    ]


def test_hwm_zero_means_no_limit():
    ids = [f"t{n}" for n in range(50)]
    assert run(scheduler(hwm=0), joined(0), submitted(*ids)) == [("send", 0, *ids)]


def test_an_adaptive_engine_holds_many_short_tasks_ahead_and_few_long_ones():
    core = scheduler(hwm=None)
    ids = [f"t{n}" for n in range(100)]
    run(core, joined(0), submitted(*ids))
    engine = core.engines[0]
    assert len(engine.held) == 2, "nothing is known of the run times yet"
    run(core, finished(0, done("t0", took=0.001)))
    assert len(engine.held) == 20, "20 ms of work"
    for id in ids[1:60]:
        run(core, finished(0, done(id, took=10.0)))
    assert len(engine.held) == 1, "only the one it runs: sending the next takes no time beside it"


# -------------------------------------------------------------------------------------------- direct tasks


def test_a_direct_task_goes_to_its_engine_though_another_is_idle():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", engine=1))
    assert run(core, submitted("b", "c", engine=1)) == [], "they wait their turn"
    assert run(core, finished(1, "a")) == [("send", 1, "b"), ("end", "a", "ok")]


def test_a_direct_task_for_an_engine_that_is_not_there_fails():
    core = scheduler()
    run(core, joined(0))
    error = outcome(core, submitted("a", engine=7)).error
    assert error is not None
    assert error.ename == "EngineError"
    assert "7" in error.evalue


def test_direct_tasks_go_down_with_their_engine():
    assert run(
        scheduler(), joined(0), joined(1), submitted("a", "b", engine=0, retries=3), EngineLost(0, "killed")
    ) == [
        ("send", 0, "a"),
        ("end", "a", "EngineError"),
        ("end", "b", "EngineError"),
    ]


def test_direct_tasks_that_are_given_back_keep_their_order():
    core = scheduler(hwm=3)
    run(core, joined(0), submitted("a", "b", "c", "d", engine=0))
    assert run(core, returned(0, "b", "c")) == [("send", 0, "b", "c")]


# -------------------------------------------------------------------------------------------- targets


def test_a_task_with_targets_runs_on_one_of_them_only():
    core = scheduler()
    run(core, joined(0), joined(1), joined(2))
    assert run(core, submitted("a", "b", "c", targets=(1, 2))) == [("send", 1, "a"), ("send", 2, "b")]
    assert run(core, finished(2, "b")) == [("send", 2, "c"), ("end", "b", "ok")]


def test_tasks_with_targets_do_not_hold_up_others():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", "b", targets=(0,)))
    assert run(core, submitted("c")) == [("send", 1, "c")]


def test_a_task_whose_targets_are_all_gone_is_impossible():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", "b", "c", targets=(0, 1), retries=1))
    assert run(core, EngineLost(0, "killed")) == []
    assert sorted(run(core, EngineLost(1, "killed"))) == [("end", id, "ImpossibleDependency") for id in "abc"]
    assert run(core, submitted("d", targets=(0, 1))) == [("end", "d", "ImpossibleDependency")]


# -------------------------------------------------------------------------------------------- retries


def test_a_task_that_raises_is_tried_again_as_often_as_it_may_be():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=2))
    assert run(core, finished(0, raised("a", 1))) == [("send", 0, "a#2")]
    assert run(core, finished(0, raised("a", 2))) == [("send", 0, "a#3")]
    assert run(core, finished(0, raised("a", 3))) == [("end", "a", "ValueError")]


def test_every_attempt_is_listed():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", retries=2), finished(0, raised("a")))
    task = core.tasks["a"]
    run(core, EngineLost(1, "killed"), finished(0, done("a", 3)))
    assert [(a.number, a.engine, a.cause) for a in task.attempts or ()] == [
        (1, -1, "ValueError: no"),
        (2, 1, "killed"),
        (3, -1, "ok"),
    ]


def test_a_retry_queues_behind_the_others():
    core = scheduler()
    run(core, joined(0), submitted("a", "b", retries=1))
    assert run(core, finished(0, raised("a"))) == [("send", 0, "b")]


# -------------------------------------------------------------------------------------------- engines go


def test_a_lost_engine_burns_the_task_it_was_running_and_returns_the_rest_in_order():
    core = scheduler(hwm=3)
    run(core, joined(0), submitted("a", "b", "c", "d"))
    assert run(core, EngineLost(0, "killed by signal 9", running="b", known=True)) == [("end", "b", "EngineError")]
    assert run(core, joined(1)) == [("send", 1, "a#2", "c#2", "d")]


def test_where_nobody_knows_what_ran_it_was_the_first_that_was_held():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, EngineLost(0, "silent")) == [("end", "a", "EngineError")]
    assert run(core, joined(1)) == [("send", 1, "b#2")]


def test_an_engine_that_died_idle_burns_nothing():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, EngineLost(0, "killed", running=None, known=True)) == []
    assert run(core, joined(1)) == [("send", 1, "a#2", "b#2")]


def test_the_error_names_the_engine_the_task_and_the_cause():
    core = scheduler()
    run(core, joined(0), submitted("a"))
    found = outcome(core, EngineLost(0, "killed by signal 9 (SIGKILL)"))
    assert found.error is not None
    for part in ("engine 0", "node", "pid 1", "task a", "SIGKILL", "while running"):
        assert part in found.error.evalue
    assert (found.engine, found.error.engine_uuid) == (0, "u0")


def test_a_task_with_retries_survives_its_engine():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), EngineLost(0, "killed"))
    assert run(core, joined(1), finished(1, done("a", 2))) == [("send", 1, "a#2"), ("end", "a", "ok")]


@pytest.mark.fault(9)
def test_a_task_that_kills_three_engines_is_poison_whatever_its_retries():
    core = scheduler(death_limit=3)
    run(core, submitted("a", retries=100))
    for life in range(3):
        assert run(core, joined(life)) == [("send", life, "a" if not life else f"a#{life + 1}")]
        told = run(core, EngineLost(life, "killed"))
    assert told == [("end", "a", "EngineError")]


@pytest.mark.fault(8)
def test_a_task_is_tried_once_more_after_memory_ran_out_whatever_its_retries():
    core = scheduler(death_limit=3)
    run(core, submitted("a", retries=100))
    for life in range(2):
        assert run(core, joined(life)) == [("send", life, "a" if not life else f"a#{life + 1}")]
        lost = EngineLost(life, "memory ran out", "a", known=True, out_of_memory=True)
        ended = outcome(core, lost) if life else run(core, lost)
    assert ended.error.ename == "EngineError"
    assert "memory ran out. It was running on 2 engines when they died, so it is not tried again" in ended.error.evalue


@pytest.mark.fault(8)
def test_memory_that_another_task_took_costs_a_task_one_retry():
    core = scheduler(death_limit=3)
    run(core, submitted("a", retries=1), joined(0))
    run(core, EngineLost(0, "memory ran out", "a", known=True, out_of_memory=True))
    assert run(core, joined(1), finished(1, done("a", 2))) == [("send", 1, "a#2"), ("end", "a", "ok")]


@pytest.mark.fault(5)
def test_engines_that_are_lost_together_get_none_of_each_others_tasks():
    core = scheduler(death_limit=3)
    run(core, *(joined(engine) for engine in range(4)), submitted("a", retries=100))
    assert run(core, EnginesLost(range(4), "their nanny is gone")) == []
    assert run(core, joined(4), finished(4, done("a", 2))) == [("send", 4, "a#2"), ("end", "a", "ok")]


def test_tasks_that_did_not_run_when_their_engine_died_keep_their_retries():
    core = scheduler(hwm=2)
    run(core, submitted("a", "b"))
    for life in range(5):
        run(core, joined(life))
        assert run(core, EngineLost(life, "killed", running=None, known=True)) == []
    assert run(core, joined(9), finished(9, done("a", 6), done("b", 6)))[1:] == [("end", "a", "ok"), ("end", "b", "ok")]


@pytest.mark.fault(48)
def test_an_engine_that_leaves_burns_nothing():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, EngineLeft(0)) == []
    assert run(core, joined(1)) == [("send", 1, "a#2", "b#2")]


def test_an_engine_is_lost_only_once():
    core = scheduler()
    run(core, joined(0), submitted("a"))
    assert run(core, EngineLost(0, "killed"), EngineLost(0, "killed"), EngineLeft(0)) == [("end", "a", "EngineError")]


@pytest.mark.fault(10)
def test_a_result_after_the_loss_of_its_engine_is_late():
    assert run(
        scheduler(),
        joined(0),
        submitted("a", retries=1),
        EngineLost(0, "silent"),
        joined(1),
        finished(0, "a"),  # late: ignored
        finished(1, done("a", 2)),
    ) == [("send", 0, "a"), ("send", 1, "a#2"), ("end", "a", "ok")]


def test_stopped_engines_get_nothing_more_and_leave():
    core = scheduler(hwm=2)
    run(core, joined(0), joined(1), submitted("a", "b"))
    assert run(core, EnginesStopped([0, 5])) == [("stop", 0)]
    assert run(core, EnginesStopped([0])) == [], "it has been told"
    assert run(core, submitted("c", "d")) == [("send", 1, "c")]
    assert run(core, finished(0, "a"), EngineLeft(0)) == [("end", "a", "ok")]
    assert run(core, submitted("e", engine=0)) == [("end", "e", "EngineError")]


def test_direct_tasks_for_a_stopping_engine_fail_rather_than_wait():
    core = scheduler()
    run(core, joined(0), submitted("a", "b", engine=0), EnginesStopped([0]))
    assert run(core, submitted("c", engine=0)) == [("end", "c", "EngineError")]
    assert run(core, finished(0, "a"), EngineLeft(0)) == [("end", "a", "ok"), ("end", "b", "EngineError")]


# -------------------------------------------------------------------------------------------- engines come back


def test_an_engine_that_comes_back_goes_on_with_what_it_holds():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, joined(0, held=[("a", 1), ("b", 1)])) == []


def test_what_was_lost_on_the_way_to_an_engine_is_sent_again_in_order():
    core = scheduler(hwm=3)
    run(core, joined(0), submitted("a", "b", "c"))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "b", "c")]


def test_direct_tasks_lost_on_the_way_are_sent_again_in_order():
    core = scheduler(hwm=3)
    run(core, joined(0), submitted("a", "b", "c", "d", engine=0))
    assert run(core, joined(0)) == [("send", 0, "a", "b", "c")]


def test_a_retry_lost_on_the_way_is_sent_again_though_its_old_result_is_still_there():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), finished(0, raised("a")))
    assert run(core, joined(0, held=[("a", 1)])) == [("send", 0, "a#2")]
    assert run(core, joined(0, held=[("a", 2), ("a", 1)])) == [], "now it has both"


def test_an_engine_is_spared_what_has_ended_or_was_given_to_another():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), EngineLost(0, "silent"), joined(1))
    assert run(core, joined(0, held=[("a", 1), ("z", 1)])) == [("cancel", 0, "a", "z")]


def test_an_abort_lost_on_the_way_is_repeated():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, AbortRequested(["b"])) == [("recall", 0, "b")]
    assert run(core, joined(0, held=[("a", 1), ("b", 1)])) == [("recall", 0, "b")]


def test_an_aborted_task_that_was_lost_on_the_way_is_not_sent_again():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"), AbortRequested(["b"]))
    assert run(core, joined(0, held=[("a", 1)])) == [("end", "b", "TaskAborted")]


def test_a_stop_lost_on_the_way_is_repeated():
    core = scheduler()
    run(core, joined(0), EnginesStopped([0]))
    assert run(core, joined(0)) == [("stop", 0)]


def test_another_engine_under_the_same_number_does_not_inherit():
    core = scheduler()
    run(core, joined(0, "old"), submitted("a", retries=1))
    assert run(core, joined(0, "new")) == [("send", 0, "a#2")]
    assert core.engines[0].uuid == "new"


# -------------------------------------------------------------------------------------------- balance


def test_unstarted_tasks_are_taken_back_for_an_idle_engine():
    core = scheduler(hwm=4)
    run(core, joined(0), submitted("a", "b", "c", "d"))
    assert run(core, (0.001, joined(1))) == [], "it may be done in no time"
    due = core.next_deadline()
    assert due == pytest.approx(0.01)
    assert run(core, (due, Ticked())) == [("recall", 0, "c", "d")]
    assert core.next_deadline() == pytest.approx(1.01), "one recall at a time, and some patience"
    assert run(core, (0.02, returned(0, "c", "d"))) == [("send", 1, "c", "d")]


def test_an_engine_that_is_known_to_be_behind_is_relieved_at_once():
    core = scheduler(hwm=4)
    run(core, joined(0), submitted("a", "b", "c", "d"), finished(0, done("a", took=1.0)))
    assert run(core, joined(1)) == [("recall", 0, "d")]


def test_as_many_engines_are_relieved_as_are_idle():
    core = scheduler(hwm=3)
    run(core, joined(0), joined(1), joined(2), submitted(*"abcdefghi"), (0.001, joined(3)), (0.001, joined(4)))
    recalls = run(core, (0.01, Ticked()))
    assert [(word, engine) for word, engine, *_ in recalls] == [("recall", 0), ("recall", 1)]


def test_where_engines_are_many_nobody_looks_without_a_rest():
    core = scheduler(hwm=1)
    run(core, *(joined(n) for n in range(200)), (1.0, submitted("a", "b", engine=0)))
    assert core.next_deadline() is None, "the second waits in the backlog: nobody is behind"
    core = scheduler(hwm=2)
    run(core, *(joined(n) for n in range(200)), (1.0, submitted("a", "b", engine=0)))
    due = core.next_deadline()
    assert due is not None
    run(core, (due, Ticked()))
    assert run(core, (due, submitted("c"))) == [("send", 1, "c")]
    rest = core.next_deadline()
    assert rest is not None
    assert due < rest < due + 0.001


def test_a_balanced_cluster_is_left_alone_however_long_its_tasks_take():
    core = scheduler(hwm=1)
    run(core, joined(0), joined(1), submitted("a"))
    assert core.next_deadline() is None
    assert run(core, (99.0, Ticked())) == []


def test_direct_tasks_are_not_taken_back_and_nobody_looks_again_and_again():
    core = scheduler(hwm=2)
    run(core, joined(0), joined(1), submitted("a", "b", engine=0))
    due = core.next_deadline()
    assert due is not None
    assert run(core, (due, Ticked())) == []
    assert core.next_deadline() is None


def test_where_the_engine_most_behind_has_nothing_to_give_another_is_asked():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b", engine=0), (1.0, joined(1)), submitted("c", "d", targets=(1, 2)))
    assert run(core, (3.0, joined(2))) == [("recall", 1, "d")]


# -------------------------------------------------------------------------------------------- aborting


def test_a_queued_task_is_aborted_at_once():
    core = scheduler()
    run(core, joined(0), submitted("a", "b", "c"))
    assert run(core, AbortRequested(["b"])) == [("end", "b", "TaskAborted")]
    assert run(core, finished(0, "a")) == [("send", 0, "c"), ("end", "a", "ok")]


def test_an_aborted_task_ends_with_status_aborted():
    core = scheduler()
    run(core, submitted("a"))
    found = outcome(core, AbortRequested(["a"]))
    assert (found.status, found.started) == ("aborted", None)


def test_a_task_at_an_engine_is_recalled_and_ends_when_it_is_given_back():
    core = scheduler(hwm=2)
    run(core, joined(0), submitted("a", "b"))
    assert run(core, AbortRequested(["a", "b"])) == [("recall", 0, "a", "b")]
    assert run(core, returned(0, "b")) == [("end", "b", "TaskAborted")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")], "it had started"


def test_an_aborted_task_is_not_tried_again():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=5), AbortRequested(["a"]))
    assert run(core, finished(0, raised("a"))) == [("end", "a", "ValueError")]


def test_an_aborted_task_whose_engine_is_lost_is_aborted():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=5), AbortRequested(["a"]))
    assert run(core, EngineLost(0, "killed")) == [("end", "a", "TaskAborted")]


def test_aborting_twice_too_late_or_the_unknown_does_nothing():
    core = scheduler()
    run(core, submitted("a"))
    assert run(core, AbortRequested(["a", "a", "z"]), AbortRequested(["a"])) == [("end", "a", "TaskAborted")]
    run(core, joined(0), submitted("b"), finished(0, "b"))
    assert run(core, AbortRequested(["b"])) == []


def test_a_direct_task_in_its_backlog_is_aborted_at_once():
    core = scheduler()
    run(core, joined(0), submitted("a", "b", "c", engine=0))
    assert run(core, AbortRequested(["b"])) == [("end", "b", "TaskAborted")]
    assert run(core, finished(0, "a")) == [("send", 0, "c"), ("end", "a", "ok")]


# -------------------------------------------------------------------------------------------- oddities we expect


def test_a_repeated_submission_does_nothing():
    core = scheduler()
    assert run(core, submitted("a"), submitted("a", "a"), joined(0), submitted("a")) == [("send", 0, "a")]


def test_a_repeated_result_does_nothing():
    assert run(scheduler(), joined(0), submitted("a"), finished(0, "a", "a"), finished(0, "a")) == [
        ("send", 0, "a"),
        ("end", "a", "ok"),
    ]


@pytest.mark.parametrize(
    "nonsense",
    [
        finished(0, "unknown"),
        finished(1, "held"),  # by another
        finished(9, "held"),  # from nobody
        finished(9, "queued"),
        finished(9, raised("queued")),
        finished(0, "queued"),
        finished(0, done("held", 2)),
        finished(0, done("held", 0)),
        returned(0, "unknown", "queued"),
        returned(9, "held"),
        returned(0, "held", attempt=2),
        AbortRequested(["unknown"]),
        EngineLost(9, "killed", "held", known=True),
        EngineLeft(9),
        EnginesStopped([9]),
        Ticked(),
    ],
    ids=repr,
)
def test_nonsense_changes_nothing(nonsense: Event):
    core = scheduler()
    run(core, joined(0), submitted("held", retries=1), joined(1), submitted("x", engine=1))
    run(core, submitted("queued", retries=1))
    before = [(t.id, t.state, t.attempt) for t in core.tasks.values()]
    assert run(core, nonsense) == []
    assert [(t.id, t.state, t.attempt) for t in core.tasks.values()] == before


# -------------------------------------------------------------------------------------------- silence


def test_a_silent_engine_gets_no_more_tasks_until_it_is_heard():
    core = scheduler()
    run(core, joined(0), joined(1), submitted("a", "b"))
    assert run(core, (1.0, EnginesSilent({0: 1.0})), submitted("c", "d"), submitted("e", engine=0)) == []
    assert run(core, finished(1, "b")) == [("send", 1, "c"), ("end", "b", "ok")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")], "a message that was on its way"
    told = explain(core, ["d"], 3.0)["d"]
    assert told["details"]["silent"] == {0: 2.0}
    assert told["reason"].endswith("1 of these engines are silent: 0")
    assert explain(core, ["e"], 3.5)["e"]["reason"].endswith("and has been silent for 2.5 s")
    assert sorted(run(core, (4.0, EnginesSilent({})))) == [("send", 0, "e")]


def test_many_tasks_are_explained_in_one_look_through_each_queue(monkeypatch: pytest.MonkeyPatch):
    core = scheduler()
    run(core, joined(0), submitted("running"))
    balanced, direct = [f"b{n}" for n in range(40)], [f"d{n}" for n in range(40)]
    for id in balanced:
        run(core, submitted(id, priority=1))
    for id in direct:
        run(core, submitted(id, engine=0))
    run(core, *[submitted(f"w{n}", after=GraphDependency(balanced)) for n in range(5)])
    looks: list[object] = []
    places = TaskQueue.places
    monkeypatch.setattr(TaskQueue, "places", lambda *args: (looks.append(args[0]), places(*args))[1])
    told = explain(core, [*balanced, *direct, *(f"w{n}" for n in range(5)), "nobody"], 1.0)
    assert told["nobody"] is None
    for ids in (balanced, direct):
        queued = [told[id]["details"]["ahead"] for id in ids if told[id]["state"] == "queued"]
        assert len(queued) > 20
        assert queued == list(range(queued[0], queued[0] + len(queued)))
    assert all(told[f"w{n}"]["details"]["after"] == {"pending": balanced, "of": 40} for n in range(5))
    assert len(looks) == 2


def test_a_silent_engine_that_says_hello_again_or_is_lost_is_silent_no_more():
    core = scheduler()
    run(core, joined(0), (1.0, EnginesSilent({0: 0.5, 7: 0.5})), submitted("a"))
    assert run(core, joined(0)) == [("send", 0, "a")]
    run(core, EnginesSilent({0: 0.5}), EngineLost(0, "unknown"), submitted("b"))
    assert run(core, joined(0, "other")) == [("send", 0, "b")]


# -------------------------------------------------------------------------------------------- recovery


def test_an_engine_claims_what_it_held_before_the_controller_died():
    core = scheduler(hwm=2)
    assert run(core, recovered("a", "b")) == []
    assert run(core, (1.0, joined(0, held=[("a", 2)]))) == [], "b may be on an engine that is still to come"
    assert run(core, finished(0, done("a", 2))) == [("end", "a", "ok")]
    assert core.next_deadline() == 5.0
    assert run(core, (5.0, Ticked())) == [("send", 0, "b#2")]
    assert core.recovery_deadline is None


def test_what_nobody_claims_in_time_runs_again_in_order():
    core = scheduler(hwm=3)
    run(core, recovered("a", "b"), joined(0))
    assert run(core, (4.9, Ticked())) == []
    assert run(core, (5.0, Ticked())) == [("send", 0, "a#2", "b#2")]


def test_a_result_that_comes_before_its_engine_has_claimed_the_task_counts():
    assert run(scheduler(), recovered("a"), joined(0), finished(0, done("a", 4))) == [("end", "a", "ok")]


def test_a_restart_counts_retries_and_deaths_as_before():
    core = scheduler(death_limit=2)
    run(core, joined(0), joined(1), submitted("a", retries=2))
    run(core, finished(0, unmet("a")), joined(2))  # costs no retry
    run(core, EngineLost(1, "it ran for too long", "a", known=True, overran=True))  # one retry, and no death
    before = core.tasks["a"]
    [spec], attempts = submitted("a", retries=2).tasks, before.attempts
    again = scheduler(death_limit=2)
    run(again, TasksRecovered([RecoveredTask(spec, "me", attempts=attempts)], 5.0))
    after = again.tasks["a"]
    assert (after.retries_left, after.deaths) == (before.retries_left, before.deaths) == (1, 0)


def test_an_engine_that_names_an_impossible_attempt_is_not_believed():
    core = scheduler()
    run(core, recovered("a"))
    assert run(core, joined(0, held=[("a", 2**62)])) == [("cancel", 0, "a")]
    assert run(core, finished(0, done("a", 2**62))) == []
    assert run(core, (5.0, Ticked())) == [("send", 0, "a#2"), ("kill", 0, "a")]


def test_a_direct_task_whose_engine_does_not_come_back_fails():
    core = scheduler()
    run(core, recovered("a", engine=3), recovered("b", engine=0), joined(0))
    assert run(core, (5.0, Ticked())) == [("end", "a", "EngineError")]


def test_a_direct_task_does_not_wait_for_the_deadline_if_its_engine_is_back_without_it():
    core = scheduler(hwm=3)
    run(core, recovered("a", "b", "c", engine=0))
    assert run(core, joined(0, held=[("b", 1)])) == [("send", 0, "a#2", "c#2")]
    assert run(core, finished(0, done("a", 1))) == [], "that attempt is over"
    assert run(core, joined(0, held=[("a", 2), ("b", 1), ("c", 2)])) == []


def test_a_direct_task_is_not_claimed_by_an_engine_with_another_number():
    core = scheduler()
    assert run(core, recovered("a", engine=3), joined(0, held=[("a", 1)])) == [("cancel", 0, "a")]
    assert run(core, finished(0, "a")) == [("end", "a", "ok")], "but if it has run, it has run"


def test_recovered_tasks_whose_targets_do_not_come_back_are_impossible():
    core = scheduler()
    run(core, recovered("a", targets=(3, 4)), joined(0))
    assert run(core, (5.0, Ticked())) == [("end", "a", "ImpossibleDependency")]


def test_a_recovering_task_can_be_aborted():
    core = scheduler()
    assert run(core, recovered("a"), AbortRequested(["a"])) == [], "an engine may come back that is running it"
    assert run(core, (5.0, Ticked()), joined(0)) == [("end", "a", "TaskAborted")]


def test_attempts_are_counted_on_from_the_record():
    core = scheduler()
    [spec] = submitted("a").tasks
    before = Attempt(1, 0, "u0", "node", 0.0, 1.0, "ValueError: no")
    run(core, TasksRecovered([RecoveredTask(spec, "me", (), [before])], 5.0), joined(0))
    assert run(core, (5.0, Ticked())) == [("send", 0, "a#3")]


def test_new_tasks_need_not_wait_for_the_recovery():
    assert run(scheduler(), recovered("a"), joined(0), submitted("b")) == [("send", 0, "b")]


def test_direct_tasks_wait_in_order_for_an_engine_that_may_still_come_back():
    core = scheduler(hwm=2)
    story = recovered(), submitted("a", engine=0), (1.0, submitted("b", "c", engine=0)), (4.9, Ticked())
    assert run(core, *story) == [], "the engines have until 5.0, also if the store has nothing unfinished"
    assert run(core, (4.9, joined(0))) == [("send", 0, "a", "b")]
    assert run(core, finished(0, "a")) == [("send", 0, "c"), ("end", "a", "ok")]
    assert run(core, (5.0, Ticked())) == []


def test_direct_tasks_fail_when_their_engine_has_not_come_back_in_time():
    core = scheduler()
    assert run(core, recovered(), joined(0), submitted("a", engine=1), (4.0, EngineLost(1, "unknown"))) == []
    assert core.next_deadline() == 5.0
    assert run(core, (5.0, Ticked())) == [("end", "a", "EngineError")]
    assert run(core, submitted("b", engine=1)) == [("end", "b", "EngineError")], "it had its time"


def test_a_direct_task_that_waits_for_its_engine_can_be_aborted_and_explained():
    core = scheduler()
    run(core, recovered(), submitted("a", "b", engine=0))
    told = explain(core, ["b"], 2.0)["b"]
    assert told["state"] == "queued"
    assert told["details"] == {"attempt": 1, "retries_left": 0, "ahead": 1, "engine": 0}
    assert "engine 0 may come back: for 3.0 s more" in told["reason"]
    assert run(core, AbortRequested(["a"])) == [("end", "a", "TaskAborted")]
    assert run(core, joined(0)) == [("send", 0, "b")]


def test_tasks_that_wait_for_their_engine_end_with_the_controller():
    core = scheduler()
    story = recovered(), submitted("a", engine=0), ControllerStopped("enough")
    assert run(core, *story) == [("end", "a", "TaskAborted")]
    assert run(core, (5.0, Ticked())) == []


def test_recovering_twice_is_recovering_once():
    core = scheduler()
    run(core, recovered("a"), joined(0, held=[("a", 1)]))
    assert run(core, recovered("a"), finished(0, "a"), (5.0, Ticked())) == [("end", "a", "ok")]


# -------------------------------------------------------------------------------------------- the end


def test_a_stopped_controller_aborts_everything():
    core = scheduler()
    run(core, joined(0), recovered("r"), submitted("a", "b"), submitted("c", engine=0), submitted("d", targets=(0,)))
    assert sorted(run(core, ControllerStopped("bye"))) == [("end", id, "TaskAborted") for id in "abcdr"]
    assert run(core, finished(0, "a"), returned(0, "a"), EngineLeft(0), ControllerStopped("bye")) == []


def test_every_move_but_the_legal_ones_is_a_bug():
    core = scheduler()
    run(core, submitted("a"))
    task = core.tasks["a"]
    for before in TaskState:
        for after in TaskState:
            task.state = before
            if (before, after) in TRANSITIONS:
                task.move(after)
            else:
                with pytest.raises(AssertionError, match="cannot go"):
                    task.move(after)


def test_attempts_are_recorded_as_they_are_spent_and_taken_up_after_a_restart():
    core = scheduler()
    core.handle(joined(0), 0.0)
    core.handle(submitted("a", retries=3), 0.0)
    after = core.handle(finished(0, raised("a")), 1.0)
    [spent] = [action.tasks for action in after if isinstance(action, actions.RecordProgress)]
    assert [(task.id, [attempt.number for attempt in task.attempts]) for task in spent] == [("a", [1])]
    again = scheduler()
    task = spent[0]
    kept = RecoveredTask(task.spec, task.client, (), tuple(task.attempts))
    again.handle(TasksRecovered([kept], deadline=10.0), 2.0)
    assert (again.tasks["a"].attempt, again.tasks["a"].retries_left) == (2, 2)


# tasks that run


def progress(core: Scheduler, event: Event, now: float = 5.0) -> list[tuple[str, float | None]]:
    """Whose records an event changes, and since when the task runs."""
    changed = [a.tasks for a in core.handle(event, now) if isinstance(a, actions.RecordProgress)]
    check(core)
    return [(task.id, task.started) for tasks in changed for task in tasks]


def test_a_task_that_its_engine_announces_runs():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b"))
    assert progress(core, started(0, "a")) == [("a", 1.0)]
    assert progress(core, started(0, "a")) == [], "it is announced again and again"
    assert progress(core, started(0, "b")) == [], "the engine does not hold it"
    assert progress(core, started(0, "a", attempt=2)) == []
    assert progress(core, started(7, "a")) == []
    assert progress(core, finished(0, "a")) == [], "its end says all"


def test_a_task_runs_no_more_when_its_engine_is_gone():
    core = scheduler()
    run(core, joined(0), submitted("a", retries=1), started(0, "a"))
    assert ("a", None) in progress(core, EngineLost(0, "killed", "a", known=True))
    core = scheduler()
    run(core, joined(0), submitted("a"), started(0, "a"))
    assert ("a", None) in progress(core, EngineLeft(0))
    run(core, joined(1))
    assert progress(core, started(1, "a", 9.0, attempt=2)) == [("a", 9.0)]


def test_a_task_that_failed_and_is_tried_again_does_not_run_meanwhile():
    core = scheduler()
    run(core, joined(0), submitted("a", "b", retries=1), started(0, "a"))
    assert ("a", None) in progress(core, finished(0, raised("a")))


def test_after_a_restart_a_task_runs_on_if_its_engine_comes_back():
    [spec] = submitted("a").tasks
    taken_up = TasksRecovered([RecoveredTask(spec, "me", started=1.0)], deadline=10.0)
    core = scheduler()
    run(core, taken_up, joined(0, held=[("a", 1)]))
    assert core.tasks["a"].started == 1.0
    assert progress(core, started(0, "a", 1.0)) == []
    alone = scheduler()
    run(alone, taken_up)
    assert progress(alone, Ticked(), now=11.0) == [("a", None)]


# calls that the store answers


def answered(*ids: str) -> TasksAnswered:
    """The store holds the results of equal calls, made on engine u9."""
    answers = []
    for id in ids:
        result = TaskDone(id, 1, "ok", None, 0.0, b"old", cached_from="before")
        answers.append(Answer(TaskSpec(id, b"f", b"", 0.0), (), result, (), "u9"))
    return TasksAnswered("me", answers)


def test_a_task_that_the_store_answers_ends_without_an_engine():
    core = scheduler()
    assert run(core, answered("a", "b")) == [("end", "a", "ok"), ("end", "b", "ok")]
    assert run(core, answered("a")) == [], "a repetition"
    assert core.tasks == {}


def test_what_waits_for_an_answered_task_goes_on():
    core = scheduler()
    run(core, joined(0))
    after = GraphDependency(("a",))
    assert run(core, submitted("b", after=after)) == [("find", "a")]
    assert run(core, answered("a")) == [("send", 0, "b"), ("end", "a", "ok")]
    assert run(core, finished(0, "b"))[0] == ("end", "b", "ok")


def test_the_result_of_an_answered_task_is_kept_for_those_that_take_it():
    core = scheduler()
    run(core, joined(0), submitted("b", inputs=("a",)))
    assert run(core, answered("a")) == [("keep", "a"), ("send", 0, "b"), ("end", "a", "ok")]


def test_an_engine_that_dies_leaves_an_attempt_with_its_memory():
    core = scheduler()
    run(core, joined(0), submitted("a", engine=0))
    [ended] = [a for a in core.handle(EngineLost(0, "killed", "a", True, peak_memory=7), 1.0) if hasattr(a, "tasks")]
    [attempt] = ended.tasks[0].task.attempts
    assert (attempt.cause, attempt.host, attempt.peak_memory) == ("killed", "node", 7)


# -------------------------------------------------------------------------------------------- what the shell cannot do


DAMAGED = ErrorInfo("StoreDamaged", "its function cannot be read")


def test_tasks_that_cannot_be_served_end_wherever_they_are():
    core = scheduler()
    run(core, recovered("r"), joined(0), submitted("held"), submitted("queued"), submitted("direct", engine=0))
    run(core, submitted("waiting", after=GraphDependency(("queued",))))
    assert run(core, TasksFailed(["waiting", "held", "queued", "direct", "r", "unknown"], DAMAGED)) == [
        ("cancel", 0, "held"),
        ("end", "waiting", "StoreDamaged"),
        ("end", "held", "StoreDamaged"),
        ("end", "queued", "StoreDamaged"),
        ("end", "direct", "StoreDamaged"),
        ("end", "r", "StoreDamaged"),
    ]
    assert run(core, finished(0, "held"), submitted("next"), finished(0, "next")) == [
        ("send", 0, "next"),
        ("end", "next", "ok"),
    ]


def test_an_engine_whose_task_could_not_be_sent_gets_the_next():
    core = scheduler()
    run(core, joined(0), submitted("a", "b"), submitted("c", engine=0))
    told = run(core, TasksFailed(["a"], DAMAGED))
    assert told == [("cancel", 0, "a"), ("send", 0, "c"), ("end", "a", "StoreDamaged")]
    told = run(core, TasksFailed(["c"], DAMAGED))
    assert told == [("cancel", 0, "c"), ("send", 0, "b"), ("end", "c", "StoreDamaged")]


def test_what_depends_on_a_task_that_could_not_be_sent_is_impossible():
    core = scheduler()
    run(core, joined(0), submitted("a"), submitted("b", after=GraphDependency(("a",))))
    assert "failed: StoreDamaged" in outcome_of("b", core, TasksFailed(["a"], DAMAGED)).error.evalue


def outcome_of(id: str, core: Scheduler, event: Event) -> TaskDone:
    ended = [e for a in core.handle(event, core.now) if isinstance(a, actions.EndTasks) for e in a.tasks]
    return next(one.done for one in ended if one.done.id == id)


def test_a_task_may_end_with_an_error_as_it_comes():
    core = scheduler()
    run(core, submitted("b", after=GraphDependency(("a",))))
    [spec] = submitted("a").tasks
    event = TasksAnswered("me", [Answer(spec, (), TaskDone("a", 1, "error", None, 0.0, error=DAMAGED))])
    assert run(core, event) == [("end", "a", "StoreDamaged"), ("end", "b", "ImpossibleDependency")]
    assert run(core, event) == []
    assert core.outcome("a").ok is False


def test_another_client_may_wait_for_a_task():
    core = scheduler()
    run(core, submitted("a"), TasksWatched("other", ["a", "unknown"]), TasksWatched("me", ["a"]))
    assert core.task("a").watchers == {"other"}
    assert [task.id for task in core.tasks_of("me")] == ["a"]
    assert list(core.tasks_of("other")) == []
