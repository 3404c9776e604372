"""Attempts, provenance and equal calls in the databases, on every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.controller.result_cache import TOGETHER, equal_tasks, why_it_ran
from engineroom.errors import StoreError
from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, CacheKey, Environment, ErrorInfo, Function, TaskDone, TaskOptions, TaskSpec
from engineroom.records.entry import Entry
from engineroom.records.record import document
from engineroom.stores import NoDB, SQLiteDB, TaskStore

NOW = 1_800_000_000.0
F = Digest(b"\x0f\xff")


def task(name: str, key: tuple[str, str] | None = None, at: float = 0.0, status: str | None = "ok") -> Entry:
    """A task that was submitted `at` seconds from now, and ended a second later."""
    options = None if key is None else TaskOptions(cache=CacheKey(*key))
    spec = TaskSpec(TaskId(name), F, b"call", NOW + at, options=options)
    entry = Entry(spec, ClientId("alice"), function_name="fit", environment="e1", host="node1")
    if status is not None:
        error = None if status == "ok" else ErrorInfo("ValueError", "bad", "Traceback …", 3, "u3")
        entry.done = TaskDone(
            spec.id, 1, status, NOW + at, NOW + at + 1, b"r", EngineId(3), error=error, peak_memory=5000
        )
        entry.received, entry.engine_uuid = NOW + at + 1, EngineUuid("u3")
    return entry


def learn(store: TaskStore) -> None:
    """What comes with the first tasks of a client."""
    store.add_functions([Function(F, b"code", "fit", "def fit(): …")])
    store.add_environments([(ClientId("alice"), Environment("e1", b'{"python": "3.11.7"}'))])


def found(store: TaskStore, query: dict[str, object]) -> list[str]:
    ids = [record["msg_id"] for record in store.find_records(query, "msg_id")]
    assert store.count(query) == len(ids)
    return ids


def test_functions_and_environments_are_kept_once(store: TaskStore) -> None:
    learn(store)
    store.add_functions([Function(F, b"code", "other")])
    store.add_environments([(ClientId("bob"), Environment("e1", b'{"python": "3.11.7"}'))])
    function = store.get_function(F)
    assert (function.name, function.source, function.payload) == ("fit", "def fit(): …", b"code")
    assert store.get_environment("e1") == b'{"python": "3.11.7"}'
    with pytest.raises(KeyError):
        store.get_environment("e2")


def test_records_tell_with_what_a_task_was_made(store: TaskStore) -> None:
    learn(store)
    store.write([task("a"), task("b", ("c1", "a1")), task("c", status=None)])
    for entry in (task("a"), task("b", ("c1", "a1")), task("c", status=None)):
        assert store.get_record(entry.id) == document(entry)
    record = store.get_record(TaskId("b"))
    told = ("function_name", "environment", "code_digest", "arguments_digest", "cached_from")
    assert [record[key] for key in told] == ["fit", "e1", "c1", "a1", None]
    assert found(store, {"function_name": "fit"}) == found(store, {"environment": {"$in": ["e1"]}}) == ["a", "b", "c"]
    assert found(store, {"function_name": {"$in": ["other", "fi"]}}) == []
    assert found(store, {"arguments_digest": "a1"}) == ["b"]
    assert store.distinct("function_name", {}) == ["fit"]
    [group] = store.group_by("function_name", {"state": "completed"})
    assert (group["key"], group["count"]) == ("fit", 2)


def test_a_single_attempt_is_a_row_as_any_other(store: TaskStore) -> None:
    learn(store)
    several = task("c", at=2)
    several.attempts = [
        Attempt(1, EngineId(1), EngineUuid("u1"), "node2", None, NOW, "killed by signal 9 (SIGKILL)", 9000),
        Attempt(2, EngineId(3), EngineUuid("u3"), "node1", NOW, NOW + 1, "ok", 7000, None),
    ]
    store.write([task("a"), task("b", at=1, status="error"), several])
    [failed] = store.get_record(TaskId("b"))["attempts"]
    assert (failed["host"], failed["cause"], failed["peak_memory"]) == ("node1", "ValueError: bad", 5000)
    assert failed["traceback"] == "Traceback …"
    assert found(store, {"attempts.host": "node1"}) == ["a", "b", "c"]
    assert found(store, {"attempts.host": "node2"}) == ["c"]
    assert found(store, {"attempts.cause": {"$regex": "SIGKILL"}}) == ["c"]
    assert found(store, {"attempts.peak_memory": {"$gt": 6000}}) == ["c"]
    assert found(store, {"attempts.0.cause": "ok"}) == ["a"]
    assert found(store, {"attempts.traceback": {"$regex": "^Trace"}}) == ["b"]


def test_what_is_known_of_a_pending_task_stays_when_it_ends(store: TaskStore) -> None:
    learn(store)
    store.write([task("a", ("c", "a"), status=None)])
    ended = task("a", ("c", "a"))
    ended.function_name = ended.environment = None  # its client has gone, and the controller was restarted
    store.write([ended])
    assert store.get_record(TaskId("a")) == document(task("a", ("c", "a")))
    assert store.entries([TaskId("a")])[TaskId("a")].done.peak_memory == 5000  # type: ignore[union-attr]


def test_equal_calls_are_found_the_latest_that_ran_and_succeeded(store: TaskStore) -> None:
    hit = task("hit", ("c", "a"), at=9)
    assert hit.done is not None
    hit.done.cached_from = TaskId("late")
    dropped = task("dropped", ("c", "gone"))
    assert dropped.done is not None
    dropped.done.payload = b""
    store.write([
        task("early", ("c", "a")), task("late", ("c", "a"), at=5), hit, task("failed", ("c", "a"), 6, "error"),
        task("pending", ("c", "p"), status=None), task("other", ("c2", "a")), task("plain"), dropped,
    ])  # fmt: skip
    keys = {CacheKey(*key) for key in [("c", "a"), ("c", "p"), ("c3", "a"), ("c2", "a"), ("c", "gone"), ("c", "b")]}
    entries = equal_tasks(store, keys)
    assert {key: entry.id for key, entry in entries.items()} == {
        CacheKey("c", "a"): "late",
        CacheKey("c2", "a"): "other",
    }
    store.drop_record(TaskId("late"))
    assert equal_tasks(store, {CacheKey("c", "a")})[CacheKey("c", "a")].id == "early"
    assert store.get_record(TaskId("hit"))["cached_from"] == "late"
    assert equal_tasks(store, {CacheKey("c", f"x{n}") for n in range(2000)}) == {}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], "was never called with cache=True before"),
        ([task("x", ("c", "a"), status="error")], "the last equal call, x, failed: ValueError"),
        ([task("x", ("c", "a"), status=None)], "had not ended yet"),
        ([task("x", ("old", "a"))], "the function has changed: x called fit with the same arguments"),
        ([task("x", ("c", "b"))], "the arguments differ"),
        ([task("x", ("old", "b"))], "the function has changed, and the arguments differ"),
        ([task("x", ("c", "a"))], "the result of x, an equal call, is not kept any more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_a_call_was_not_answered(store: TaskStore, before: list[Entry], words: str) -> None:
    learn(store)
    store.write([*before, task("new", ("c", "a"), at=5)])
    assert words in why_it_ran(store, store.get_record(TaskId("new")))


def test_a_call_that_cannot_be_compared_is_explained(store: TaskStore) -> None:
    store.write([task("new", ("", ""))])
    assert "it was not looked up" in why_it_ran(store, store.get_record(TaskId("new")))


def test_no_database_keeps_no_environments() -> None:
    store = NoDB()
    store.add_environments([(ClientId("a"), Environment("e", b"{}"))])
    with pytest.raises(KeyError, match="keeps no task records"):
        store.get_environment("e")


def test_an_equal_call_is_found_by_an_index(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([task("a", ("c", "a"))])
    from engineroom.stores.query.parse import parse
    from engineroom.stores.sqlite.where import translate

    for wanted in (["a"], [f"x{n}" for n in range(TOGETHER)]):
        where = translate(parse({"arguments_digest": {"$in": wanted}, "cached_from": None}))
        sql = f"EXPLAIN QUERY PLAN SELECT seq FROM tasks WHERE {where.sql} ORDER BY submitted, msg_id"
        plan = store._read(sql, where.parameters)
        assert "tasks_by_arguments" in str(list(plan))
    store.close()
    with pytest.raises(StoreError):
        store.add_environments([])
