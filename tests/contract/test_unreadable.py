"""A record that cannot be read is left out of answers, and named in the log; all others are answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.entries import pending

from engineroom.messages import TaskOptions
from engineroom.stores import DictDB, SQLiteDB, TaskStore
from engineroom.stores.base import QueryDict

BAD = TaskOptions(metadata={"x": msgspec.msgpack.Ext(5, b"z")})


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    store: TaskStore = SQLiteDB(tmp_path / "tasks.db") if request.param == "sqlite" else DictDB()
    entries = [pending(id) for id in ("a", "bad", "c")]
    entries[1].spec = msgspec.structs.replace(entries[1].spec, options=BAD)
    store.write(entries)
    yield store
    store.close()


@pytest.mark.parametrize("query", [{}, {"header.msg_type": {"$ne": None}}])
def test_one_record_hides_no_other(store: TaskStore, query: QueryDict, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert [record["msg_id"] for record in store.find_records(query)] == ["a", "c"]
    assert [record["msg_id"] for record in store.find_records(query, sort=[("header.label", 1)])] == ["a", "c"]
    assert [record["msg_id"] for record in store.page(query, limit=10).records] == ["a", "c"]
    assert len(store.distinct("header.msg_id", query)) == 2
    assert sum(each["count"] for each in store.group_by("header.msg_id", query)) == 2
    [told] = [record.getMessage() for record in caplog.records]
    assert "the record of task 'bad' cannot be read" in told
