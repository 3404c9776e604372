"""How SQLite answers questions to many records: which index it uses. The answers are the same on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.entries import NOW, finished

from engineroom.messages import TaskOptions
from engineroom.stores import SQLiteDB, TaskStore
from engineroom.stores.query.match import compile
from engineroom.stores.query.parse import parse
from engineroom.stores.query.patterns import behind_prefix, glob_prefix, literal_prefix
from engineroom.stores.sqlite.where import MAX_COUNTED

COUNT = 60
MANY, ENOUGH = 10, 50_000


def labelled(number: int, label: str | None) -> Any:
    entry = finished(f"t{number:03}", NOW + number)
    return msgspec.structs.replace(entry, spec=msgspec.structs.replace(entry.spec, options=TaskOptions(label=label)))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SQLiteDB]:
    made = SQLiteDB(tmp_path / "tasks.db")
    made.write([labelled(n, f"sweep-{n % 7}" if n % 2 else None) for n in range(COUNT)])
    yield made
    made.close()


def plans(database: SQLiteDB, ask: Callable[[], object]) -> list[str]:
    """How SQLite answers each statement of a question, except those that only count."""
    steps: list[str] = []
    connection = database._connections.reader()
    connection.set_trace_callback(steps.append)
    try:
        ask()
    finally:
        connection.set_trace_callback(None)
    wanted = [sql for sql in steps if sql.startswith("SELECT") and not sql.startswith("SELECT count(*) FROM (")]
    return [" ".join(row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")) for sql in wanted]


@pytest.mark.parametrize("query", [{"state": "completed"}, {"engine_id": 3}, {"completed": {"$ne": None}}, {}])
def test_the_latest_of_many_come_from_the_index_on_ends(
    database: SQLiteDB, query: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engineroom.stores.sqlite.where.SORTED", MANY)
    asked = plans(database, lambda: database.find_records(query, sort=[("completed", -1)], limit=5))
    assert "tasks_by_end" in asked[0]
    found = database.find_records(query, "msg_id", sort=[("completed", -1)], limit=3)
    assert [record["msg_id"] for record in found] == ["t059", "t058", "t057"]


def test_the_latest_of_few_are_looked_up_and_sorted(database: SQLiteDB) -> None:
    [plan] = plans(database, lambda: database.find_records({"state": "failed"}, sort=[("completed", -1)], limit=5))
    assert "tasks_by_state" in plan


def test_a_range_of_ends_that_holds_thousands_is_looked_up(database: SQLiteDB) -> None:
    assert MAX_COUNTED >= 7000
    since = {"completed": {"$gte": datetime.fromtimestamp(NOW + 30, UTC)}}
    asked = plans(database, lambda: database.find_records(since, "msg_id"))
    assert all("tasks_by_end" in plan for plan in asked if "seq" not in plan)


@pytest.mark.parametrize(
    "condition", [{"$glob": "sweep-3*"}, {"$glob": "sw?ep-3"}, {"$regex": r"^sweep\-3"}, {"$gte": "sweep-6"}]
)
@pytest.mark.parametrize("few", [MANY, ENOUGH])
def test_labels_by_their_beginning_use_the_index_on_labels(
    database: SQLiteDB, condition: Any, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engineroom.stores.sqlite.where.MAX_COUNTED", few)
    [plan] = plans(database, lambda: database.find_records({"label": condition}, "msg_id"))
    is_few = few == ENOUGH or "?" not in str(condition)  # all labels begin with "sw"
    assert ("tasks_by_label" in plan) == is_few
    assert len(database.find_records({"label": condition}, "msg_id")) == (5 if "3" in str(condition) else 4)


def test_only_functions_are_searched_for_a_pattern_of_names(database: SQLiteDB) -> None:
    matched: list[str] = []
    connection = database._connections.reader()
    connection.create_function("text_matches", 3, lambda pattern, flags, value: matched.append(value) or False)
    assert database.count({"function_name": {"$glob": "fit*"}}) == 0
    assert len(matched) <= 1, "one function, not all records"


TEXTS = ["", "a", "ab", "abc", "abd", "a.c", "a*c", "a\nabc", "é", "éa", "\U0010ffff", "\U0010ffffa", "ABC",
         "a|c", "[a", "ab[", "\ud7ff", "\ue000"]  # fmt: skip
GLOBS = ("a*", "ab*", "abc", "a?c", "a[b]c", "*", "", "a**", "\U0010ffff*", "é*", "[a*", "ab[")
REGEXES = ("^a", "^ab?", "^ab*", "^ab+c", "^a|c", "^a.c", r"^a\.c", r"^a\*c", "^(?i)abc", "^ab{2}", r"^\w", "a", "^",
           "^é", "^ab$", r"^a\nabc")  # fmt: skip
CONDITIONS: list[Any] = [
    *({"$glob": text} for text in GLOBS),
    *({"$regex": text} for text in REGEXES),
    {"$regex": "^abc", "$options": "i"}, {"$regex": "^abc", "$options": "m"}, {"$gt": "ab"},
    {"$lt": "abc", "$gt": ""}, {"$not": {"$glob": "a*"}}, {"$not": {"$regex": "^ab"}},
]  # fmt: skip


@pytest.mark.parametrize("few", [MANY - 8, ENOUGH])
def test_patterns_find_the_same_on_every_backend(
    store: TaskStore, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engineroom.stores.sqlite.where.MAX_COUNTED", few)
    store.write([labelled(n, text) for n, text in enumerate(TEXTS)])
    for condition in CONDITIONS:
        matches = compile(parse({"label": condition}))
        wanted = [f"t{n:03}" for n, text in enumerate(TEXTS) if matches({"label": text})]
        found = [record["msg_id"] for record in store.find_records({"label": condition}, "msg_id")]
        assert found == wanted, condition
        assert store.count({"label": condition}) == len(wanted), condition


@pytest.mark.parametrize(
    ("pattern", "flags", "prefix"),
    [("^ab", 0, "ab"), ("ab", 0, ""), ("^ab*c", 0, "a"), (r"^a\.b", 0, "a.b"), (r"^a\wb", 0, "a"), ("^ab", 2, ""),
     ("^a|b", 0, ""), ("^ab(?i)c", 0, ""), ("^a{2}", 0, ""), ("^ab[c]", 0, "ab"), ("^ab$", 0, "ab"),
     ("^ab", 64, ""), ("^ab", 8, "")],
)  # fmt: skip
def test_the_beginning_that_a_regular_expression_names(pattern: str, flags: int, prefix: str) -> None:
    assert literal_prefix(pattern, flags) == prefix


def test_the_beginning_that_a_shell_pattern_names() -> None:
    assert glob_prefix("fit-*") == ("fit-", True)
    assert glob_prefix("fit") == ("fit", False)
    assert glob_prefix("f*t*") == ("f", False)
    assert glob_prefix("*") == ("", True)
    assert [behind_prefix(text) for text in ("a", "a\U0010ffff", "\U0010ffff", "", "\ud7ff")] == [
        "b", "b", None, None, "\ue000"
    ]  # fmt: skip


@pytest.mark.parametrize("never", [{"msg_id": {"$in": []}}, {"state": 7}, {"engine_id": "x"}])
@pytest.mark.parametrize("few", [{"label": {"$glob": "sweep-1*"}}, {"completed": {"$gt": "-"}}, {"msg_id": "t001"}])
def test_a_range_and_what_no_record_is(database: SQLiteDB, few: dict[str, Any], never: dict[str, Any]) -> None:
    """SQLite has no plan for a named index whose condition is false from the beginning: "no query solution"."""
    query = {"$and": [few, never]}
    assert database.find_records(query, sort=[("completed", -1)], limit=5) == []
    assert database.find_records(query) == []
    assert database.group_by("label", query) == []
    assert database.count(query) == 0
    assert len(database.find_records({"$or": [query, {"msg_id": "t002"}]})) == 1
