"""What is held back, what is written when, and in which order acknowledgements come."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom.controller.storage.backlog import Backlog
from engineroom.controller.storage.pending import Scope
from engineroom.ids import ClientId, Digest, EngineId, TaskId
from engineroom.messages import TaskDone, TaskSpec
from engineroom.records.entry import Entry


def entry(id: str, ended: bool = False) -> Entry:
    spec = TaskSpec(TaskId(id), Digest(b"f"), b"", 1.0, EngineId(-1))
    return Entry(spec, ClientId("c"), (), TaskDone(spec.id, 1, "ok", 1.0, 2.0) if ended else None)


def entries(*made: Entry) -> dict[TaskId, Entry]:
    return {one.id: one for one in made}


def ended(written: Iterable[Entry]) -> dict[str, bool]:
    return {one.id: one.done is not None for one in written}


def test_without_holding_everything_is_written_at_once() -> None:
    backlog = Backlog(0.0)
    due = backlog.take(entries(entry("a"), entry("b", True)), ["t"], 0.0, all=False)
    assert ended(due.values()) == {"a": False, "b": True}
    assert backlog.written() == ["t"]
    assert backlog.due_in(0.0) is None


def test_a_task_that_ends_in_time_is_written_once() -> None:
    backlog = Backlog(1.0)
    assert backlog.take(entries(entry("a")), ["submitted"], 0.0, all=False) == {}
    assert backlog.written() == []
    assert backlog.due_in(0.25) == 0.75
    due = backlog.take(entries(entry("a", True)), ["ended"], 0.5, all=False)
    assert ended(due.values()) == {"a": True}
    assert backlog.written() == ["submitted", "ended"]
    assert backlog.due_in(0.5) is None


def test_a_task_that_does_not_end_is_written_as_pending_when_its_time_is_up() -> None:
    backlog = Backlog(1.0)
    backlog.take(entries(entry("long")), [1], 0.0, all=False)
    backlog.written()
    due = backlog.take(entries(entry("short", True)), [2], 0.5, all=False)
    assert ended(due.values()) == {"short": True}
    assert backlog.written() == []  # acknowledgements keep their order
    due = backlog.take({}, [], 1.0, all=False)
    assert ended(due.values()) == {"long": False}
    assert backlog.written() == [1, 2]
    assert ended(backlog.take(entries(entry("long", True)), [3], 9.0, all=False).values()) == {"long": True}
    assert backlog.written() == [3]


def test_large_arguments_are_not_held_back() -> None:
    backlog = Backlog(1.0)
    large = entry("a")
    large.frames = (b"large",)
    assert ended(backlog.take(entries(large), [1], 0.0, all=False).values()) == {"a": False}
    assert backlog.written() == [1]


def test_who_asks_gets_everything_written() -> None:
    backlog = Backlog(1.0)
    backlog.take(entries(entry("a")), [1], 0.0, all=False)
    assert ended(backlog.take(entries(entry("b")), [2], 0.1, all=True).values()) == {"a": False, "b": False}
    assert backlog.written() == [1, 2]


def test_news_of_a_held_task_waits_no_longer_than_the_task() -> None:
    backlog = Backlog(1.0)
    backlog.take(entries(entry("a")), [1], 0.0, all=False)
    backlog.written()
    again = entry("a")
    backlog.take(entries(again), [2], 0.9, all=False)
    backlog.written()
    assert backlog.take({}, [], 1.0, all=False)[TaskId("a")] is again
    assert backlog.written() == [1, 2]


def test_what_the_store_does_not_take_comes_back_with_its_outcome() -> None:
    backlog = Backlog(1.0)
    backlog.take(entries(entry("a"), entry("b")), [1], 0.0, all=False)
    backlog.written()
    backlog.take(entries(entry("a", True)), [2], 0.5, all=False)
    back, tokens = backlog.failed()
    assert ended(back.values()) == {"a": True, "b": False}
    assert tokens == [1, 2]
    assert backlog.due_in(5.0) is None
    assert backlog.take(back, tokens, 5.0, all=True) == back
    assert backlog.written() == [1, 2]


@given(st.lists(st.tuples(st.sampled_from(["submit", "end", "wait", "ask", "fail"]), st.integers(0, 9)), max_size=60))
@settings(deadline=None)
def test_every_task_and_every_token_comes_through(steps: list[tuple[str, int]]) -> None:
    backlog, now, submitted, finished = Backlog(1.0), 0.0, 0, set()
    store: dict[str, bool] = {}
    tokens: list[int] = []
    again: tuple[dict[TaskId, Entry], list[int]] = ({}, [])
    for number, (what, which) in enumerate(steps):
        news = {}
        if what == "submit":
            news = entries(entry(f"task {submitted}"))
            submitted += 1
        elif what == "end" and which < submitted:
            news = entries(entry(f"task {which}", True))
            finished.add(which)
        now += 0.3 if what == "wait" else 0.01
        due = backlog.take(again[0] | news, [*again[1], number], now, all=what == "ask")
        again = ({}, [])
        if what == "fail":
            again = backlog.failed()
            continue
        store |= ended(due.values())
        tokens += backlog.written()
        if what == "ask":
            assert store.keys() == {f"task {n}" for n in range(submitted)}
            assert tokens == list(range(number + 1))
        waiting = backlog.due_in(now)
        assert waiting is None or waiting > 0
    store |= ended(backlog.take(*again, now, all=True).values())
    tokens += backlog.written()
    assert tokens == list(range(len(steps)))
    assert store == {f"task {n}": n in finished for n in range(submitted)}


# -------------------------------------------------------------------------------------------- direct tasks


def direct(id: str, *, engine: int = 0, client: str = "c", size: int = 0, has_ended: bool = False) -> Entry:
    spec = TaskSpec(TaskId(id), Digest(b"f"), b"", 1.0, EngineId(engine))
    done = TaskDone(spec.id, 1, "ok", 1.0, 2.0) if has_ended else None
    return Entry(spec, ClientId(client), (bytes(size),) if size else (), done)


def test_a_direct_task_with_large_data_is_not_recorded_before_those_that_come_before_it() -> None:
    backlog = Backlog(1.0)
    before = entries(direct("a"), direct("other", engine=1), direct("theirs", client="d"))
    assert not backlog.take(before, [], 0.0, False)
    backlog.written()
    taken = backlog.take(entries(direct("b"), entry("any"), direct("large", size=1), direct("c")), [], 0.1, False)
    assert list(taken) == ["a", "b", "large"]
    backlog.written()
    assert list(backlog.take({}, [], 2.0, True)) == ["other", "theirs", "any", "c"]


def test_nor_is_one_that_somebody_asks_about() -> None:
    backlog = Backlog(1.0)
    scope = [Scope(tasks={TaskId("b")})]
    taken = backlog.take(entries(direct("a"), direct("b"), direct("c"), direct("d", engine=1)), [], 0.0, False, scope)
    assert list(taken) == ["a", "b"]


def test_one_that_has_ended_takes_no_other_with_it() -> None:
    backlog = Backlog(1.0)
    backlog.take(entries(direct("a"), direct("b")), [], 0.0, False)
    backlog.written()
    assert list(backlog.take(entries(direct("a", has_ended=True)), [], 0.1, False)) == ["a"]
    backlog.written()
    assert list(backlog.take(entries(direct("large", size=1)), [], 0.2, False)) == ["b", "large"]
