"""Records go from one store to another, and back, and are the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.entries import failed, finished, pending

from engineroom.errors import StoreDamaged, StoreError
from engineroom.ids import Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, Function, TaskOptions
from engineroom.records.fields import KEYS
from engineroom.stores import DictDB, MongoDB, SQLiteDB, TaskStore
from engineroom.stores.maintenance.copy import StoreSide, copy
from engineroom.stores.maintenance.parquet import ParquetReader, ParquetWriter


def fill(store: TaskStore) -> None:
    """One of everything."""
    store.add_functions([Function(Digest(b"\x0f\xff"), b"a pickle")])
    retried = finished("retried", 1e9 + 4)
    retried.attempts = [Attempt(0, EngineId(1), EngineUuid("e1"), "node1", 1e9, 1e9 + 1, "killed by SIGKILL")]
    labelled = finished("labelled", 1e9 + 5, options=TaskOptions(label="fit", metadata={"run": 7, "a.b": {"$c": None}}))
    cell = finished("cell", 1e9 + 6, kind="execute", payload=b"")
    cell.spec.payload = b"print(1)"
    large = finished("large", 1e9 + 7, buffers=(os.urandom(5 << 20), b""))
    framed = finished("framed", 1e9 + 8)
    framed.spec.payload, framed.frames = b"", (b"stream", b"array")
    light = finished("light", 1e9 + 9)
    store.write([pending("waits", 1e9), finished("done", 1e9 + 1.123456), failed("failed", 1e9 + 2), retried, labelled,
                 cell, large, framed, light])  # fmt: skip
    store.drop_buffers([TaskId("light")])
    store.update_record(TaskId("done"), {"resubmitted": "again", "pyout": {"x": datetime(2024, 1, 2, tzinfo=UTC)}})
    store.pin([TaskId("failed")], True)
    store.add_record(TaskId("added"), {"label": "ünï", "header": {"raw": b"\x00", "n": [1, 2.5]}, "buffers": [b"x"]})


def contents(store: TaskStore) -> tuple[Any, ...]:
    records = store.find_records({}, list(KEYS))
    entries = store.entries([record["msg_id"] for record in records])
    calls = {id: (e.spec.payload, [bytes(f) for f in e.frames], [bytes(f) for f in e.result_frames])
             for id, e in entries.items()}  # fmt: skip
    return records, calls, [entry.id for entry in store.unfinished()], store.get_function(Digest(b"\x0f\xff"))


@pytest.fixture(params=["sqlite", "mongodb", "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: TaskStore = (
        request.getfixturevalue("open_mongodb")()
        if request.param == "mongodb"
        else DictDB()
        if request.param == "memory"
        else SQLiteDB(tmp_path / "source.db")
    )
    with contextlib.closing(made):
        fill(made)
        yield made


def test_everything_arrives_and_a_second_time_changes_nothing(source: TaskStore, tmp_path: Path) -> None:
    with contextlib.closing(SQLiteDB(tmp_path / "target.db")) as target:
        target.write([finished("done", 5e8)])
        done = copy(StoreSide(source), StoreSide(target))
        assert (done.read, done.new, done.functions) == (10, 9, 1)
        assert target.get_record(TaskId("done"))["resubmitted"] is None, "what is there stays"
        target.drop_record(TaskId("done"))
        copy(StoreSide(source), StoreSide(target))
        assert contents(target) == contents(source)
        assert copy(StoreSide(source), StoreSide(target)).new == 0


def test_sqlite_to_mongodb(open_mongodb: Callable[..., MongoDB], tmp_path: Path) -> None:
    target = open_mongodb()
    with contextlib.closing(SQLiteDB(tmp_path / "source.db")) as source:
        fill(source)
        copy(StoreSide(source), StoreSide(target))
        assert contents(target) == contents(source)


def test_through_a_parquet_file(source: TaskStore, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    writer = ParquetWriter(tmp_path / "tasks.parquet")
    copy(StoreSide(source), writer)
    writer.close(True)
    with contextlib.closing(SQLiteDB(tmp_path / "target.db")) as target:
        with contextlib.closing(ParquetReader(tmp_path / "tasks.parquet")) as reader:
            assert copy(reader, StoreSide(target)).new == 10
        assert contents(target) == contents(source)


def test_other_programs_can_read_the_parquet_file(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    store = DictDB()
    fill(store)
    writer = ParquetWriter(tmp_path / "tasks.parquet")
    copy(StoreSide(store), writer)
    writer.close(True)
    table = parquet.read_table(tmp_path / "tasks.parquet", columns=["msg_id", "submitted", "duration", "metadata"])
    [row] = [row for row in table.to_pylist() if row["msg_id"] == "labelled"]
    assert row["metadata"] == '{"run":7,"a.b":{"$c":null}}'
    assert (row["duration"], row["submitted"]) == (1.0, datetime.fromtimestamp(1e9 + 5, UTC))
    with pytest.raises(StoreError, match="already"):
        ParquetWriter(tmp_path / "tasks.parquet")
    parquet.write_table(table, tmp_path / "theirs.parquet")
    with pytest.raises(StoreError, match="not one of"):
        ParquetReader(tmp_path / "theirs.parquet")
    (tmp_path / "text.parquet").write_text("Dear diary")
    with pytest.raises(StoreDamaged, match="not a Parquet file"):
        ParquetReader(tmp_path / "text.parquet")
