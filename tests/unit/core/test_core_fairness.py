"""Priorities and fair shares: stories."""

from __future__ import annotations

from stories import done, finished, joined, run, scheduler, submitted

from engineroom.core import Scheduler


def order(core: Scheduler, took: dict[str, float] | float = 0.0) -> list[str]:
    """Let engine 0 run everything, one after the other; returns the order."""
    ran = []
    while core.engines[0].held:
        id = next(iter(core.engines[0].held))
        ran.append(id)
        seconds = took if isinstance(took, float) else took[id[0]]
        run(core, (core.now + seconds, finished(0, done(id, took=seconds))))
    return ran


def test_higher_priorities_go_first_and_equals_in_order():
    core = scheduler()
    run(core, submitted("low1", "low2"), submitted("high1", "high2", priority=5), submitted("mid", priority=1))
    run(core, submitted("last", priority=-3), joined(0))
    assert order(core) == ["high1", "high2", "mid", "low1", "low2", "last"]


def test_priorities_hold_between_tasks_with_and_without_requirements():
    core = scheduler()
    run(core, joined(0), submitted("first"))
    run(core, submitted("t0", targets=(0,)), submitted("p2", priority=2), submitted("t3", targets=(0,), priority=3))
    run(core, submitted("t1", targets=(0,), priority=1), submitted("p0"))
    assert order(core) == ["first", "t3", "p2", "t1", "t0", "p0"]


def test_clients_take_turns():
    core = scheduler()
    run(core, submitted(*[f"a{n}" for n in range(1000)], client="A"), joined(0))
    run(core, submitted(*[f"b{n}" for n in range(10)], client="B"))
    ran = order(core, 0.001)
    assert max(ran.index(f"b{n}") for n in range(10)) < 40, "ten tasks do not wait for a thousand"
    assert [id for id in ran if id[0] == "a"] == [f"a{n}" for n in range(1000)]


def test_turns_are_counted_in_engine_time():
    core = scheduler()
    took = {"a": 1.0, "b": 0.001}
    run(core, submitted(*[f"a{n}" for n in range(50)], client="A"), joined(0))
    run(core, submitted(*[f"b{n}" for n in range(500)], client="B"))
    ran = order(core, took)
    position = max(ran.index(f"b{n}") for n in range(500))
    assert sum(id[0] == "a" for id in ran[:position]) < 10, "half a second of work does not wait for fifty seconds"


def test_a_client_that_comes_back_has_saved_nothing_up():
    core = scheduler()
    run(core, submitted("a0", client="A"), submitted("b0", client="B"), joined(0))
    order(core, 0.001)
    run(core, submitted(*[f"a{n}" for n in range(1, 200)], client="A"))
    for _ in range(1, 100):
        id = next(iter(core.engines[0].held))
        run(core, (core.now + 0.001, finished(0, done(id, took=0.001))))
    run(core, submitted(*[f"b{n}" for n in range(1, 51)], client="B"))
    ran = order(core, 0.001)
    assert sum(id[0] == "a" for id in ran[:20]) >= 8, "A is not shut out meanwhile"


def test_direct_tasks_of_several_clients_take_turns_too():
    core = scheduler()
    run(core, joined(0), submitted(*[f"a{n}" for n in range(100)], engine=0, client="A"))
    run(core, submitted("b0", "b1", engine=0, client="B"))
    ran = order(core, 0.001)
    assert ran.index("b1") < 10
    assert [id for id in ran if id[0] == "a"] == [f"a{n}" for n in range(100)], "each in the order it was submitted"
