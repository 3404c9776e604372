"""What a query may cost: long lists use the index, and what takes too long is given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.entries import NOW, finished

from engineroom.errors import QueryError
from engineroom.ids import TaskId
from engineroom.stores import DictDB, SQLiteDB, TaskStore
from engineroom.stores.query import match
from engineroom.stores.query.parse import MAX_LIST

SECONDS = 0.6


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    made: TaskStore = (
        DictDB(query_seconds=SECONDS)
        if request.param == "memory"
        else SQLiteDB(tmp_path / "tasks.db", query_seconds=SECONDS)
    )
    yield made
    made.close()


@pytest.mark.parametrize("key", ["stdout", "metadata.text"])
@pytest.mark.parametrize("ask", ["find_records", "count", "drop_matching_records"])
def test_a_catastrophic_pattern_is_given_up(store: TaskStore, key: str, ask: str) -> None:
    store.add_record(TaskId("a"), {"stdout": "a" * 5000, "metadata": {"text": "a" * 5000}})
    with pytest.raises(QueryError, match=r"given up after 0\.6 s.*takes too long on some text"):
        getattr(store, ask)({key: {"$regex": "(a|aa)+$b"}})
    assert store.count({key: {"$regex": "^a+$"}}) == 1


def test_the_error_names_the_limit_that_a_search_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search ends after some processor time of the process: on the clock, that may be before the query's deadline."""

    class OutOfTime:
        def search(self, text: str, **options: object) -> None:
            raise TimeoutError

    monkeypatch.setattr(match, "compiled", lambda pattern, flags: OutOfTime())
    for store in DictDB(query_seconds=60), SQLiteDB(tmp_path / "tasks.db", query_seconds=60):
        store.add_record(TaskId("a"), {"stdout": "a"})
        for longest, words in (1000.0, "given up after 60 s: .* some text$"), (2.0, "some text, more than 2 s$"):
            monkeypatch.setattr(match, "_LONGEST", longest)
            with pytest.raises(QueryError, match=words):
                store.count({"stdout": {"$regex": "(a|aa)+$b"}})
        store.close()


def test_many_searches_that_are_each_in_time_are_given_up_together(store: TaskStore) -> None:
    """Each text takes some milliseconds: so little that nobody looked at the time."""
    for number in range(500):
        store.add_record(TaskId(f"t{number}"), {"stdout": "a" * 20})
    searched = 0
    real = match.compiled

    class Slow:
        def search(self, text: str, **options: object) -> None:
            nonlocal searched
            searched += 1
            time.sleep(0.002)  # what a search takes that is just in time

    match.compiled = lambda pattern, flags: Slow()  # type: ignore[assignment]
    try:
        with pytest.raises(QueryError, match=r"given up after 0\.6 s"):
            store.count({"stdout": {"$regex": "(a|aa)+$b"}})
    finally:
        match.compiled = real
    assert searched < 300


def test_a_pattern_has_less_time_for_one_text_than_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "_LONGEST", 0.05)
    store = SQLiteDB(tmp_path / "tasks.db", query_seconds=1000.0)
    store.add_record(TaskId("a"), {"stdout": "a" * 5000})
    with pytest.raises(QueryError, match=r"takes too long on some text, more than 0\.05 s"):
        store.count({"stdout": {"$regex": "(a|aa)+$b"}})
    store.close()


def test_a_search_of_everything_is_given_up(tmp_path: Path) -> None:
    for store in DictDB(query_seconds=0), SQLiteDB(tmp_path / "tasks.db", query_seconds=0):
        store.write([finished(f"t{n}", NOW + n) for n in range(1000)])
        with pytest.raises(QueryError, match="name an indexed key"):
            store.find_records({"pyin": {"$ne": 5}})
        store.close()


def test_a_long_list_of_ids_is_looked_up(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(f"t{n}", NOW + n) for n in range(3000)])
    wanted = [f"t{n}" for n in range(0, 3000, 2)] + [f"none{n}" for n in range(5000)] + [None, 5]
    steps: list[str] = []
    connection = store._connections.reader()
    connection.set_trace_callback(steps.append)
    assert len(store.find_records({"msg_id": {"$in": wanted}}, "msg_id")) == 1500
    [sql] = [step for step in steps if step.startswith("SELECT")]
    plan = " ".join(row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
    assert "SEARCH tasks USING" in plan, plan
    assert "(msg_id=?)" in plan, plan
    assert store.count({"engine_id": {"$in": list(range(1000))}}) == 3000
    store.close()


def test_an_enormous_list_is_refused(store: TaskStore) -> None:
    with pytest.raises(QueryError, match="at most"):
        store.count({"msg_id": {"$in": ["x"] * (MAX_LIST + 1)}})


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 1 << 62])
def test_a_page_has_a_record_or_more(store: TaskStore, limit: int) -> None:
    store.write([finished("a")])
    with pytest.raises(QueryError, match="a page has 1 record or more"):
        store.page({}, limit=limit)


@pytest.mark.parametrize("window", [{"limit": 5, "skip": 2**63 - 1}, {"limit": 2**63}, {"skip": 2**62}, {"limit": -1}])
def test_a_window_is_within_what_can_be_counted(store: TaskStore, window: dict[str, int]) -> None:
    store.write([finished("a")])
    with pytest.raises(QueryError, match="must be a whole number, 0 or more"):
        store.find_records({}, **window)  # type: ignore[arg-type]
