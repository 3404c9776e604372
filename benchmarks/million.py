"""A million records in SQLite: questions put to the store.

What is indexed (an id, 2,000 ids, an engine, a state, a label, a range of submission, each with a limit of 100 where
the answer is large) and what is not: the name of an error, a value in the metadata, a regular expression on the
output, groups with percentiles. Records as most are; one in ten has metadata, one in a thousand failed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import ErrorInfo, TaskDone, TaskOptions, TaskSpec
from engineroom.records import Entry
from engineroom.stores import SQLiteDB

from .harness import Benchmark, Figures, Goal

BEGAN = 1.8e9
INDEXED = ("by id", "by 2,000 ids", "engine", "state", "label", "time range", "newest")
SCANNED = ("error name", "metadata", "duration", "regex on stdout", "percentiles by engine")


def store(size: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDB(Path(folder) / "tasks.db", synchronous="OFF")
        for start in range(0, size, 2000):
            database.write([entry(n) for n in range(start, min(size, start + 2000))])
        try:
            return _answers(database, size)
        finally:
            database.close()


def _answers(database: SQLiteDB, size: int) -> Figures:
    middle = BEGAN + size / 2000
    few = {"$gte": datetime.fromtimestamp(middle, UTC), "$lt": datetime.fromtimestamp(middle + 0.1, UTC)}
    ids = [_id(n) for n in range(0, size, max(1, size // 2000))]

    def find(query: dict[str, Any], keys: str | None = None, **more: Any) -> Callable[[], object]:
        return lambda: database.find_records(query, keys, **more)

    questions: dict[str, Callable[[], object]] = {
        "by id": find({"msg_id": _id(size // 3)}),
        "by 2,000 ids": find({"msg_id": {"$in": ids}}, "state"),
        "engine": find({"engine_id": 3}, limit=100),
        "state": find({"state": "failed"}, limit=100),
        "label": find({"label": "fit"}, limit=100),
        "time range": find({"submitted": few}),
        "newest": find({"state": "completed"}, sort=[("submitted", -1)], limit=100),
        "error name": find({"result_content.ename": "MemoryError"}, "msg_id"),
        "metadata": find({"metadata.run": 50}, "msg_id"),
        "duration": find({"duration": {"$gt": 0.0955}}, "msg_id"),
        "regex on stdout": find({"stdout": {"$regex": "(error|warning)s?"}}, "msg_id"),
        "percentiles by engine": lambda: database.group_by("engine_id", {}, values="duration", percentiles=(50, 99)),
    }
    return {question: _milliseconds(ask) for question, ask in questions.items()}


def _id(n: int) -> TaskId:
    return TaskId(f"c2edfdcff135ecb4-{n}")


def entry(n: int) -> Entry:
    at = BEGAN + n / 1000
    options = TaskOptions(label="fit" if not n % 1000 else None, metadata={"run": n % 100}) if not n % 10 else None
    spec = TaskSpec(_id(n), Digest(bytes(16)), b"x" * 60, at, EngineId(-1), (), options)
    done = TaskDone(spec.id, 1, "ok", at + 0.01, at + 0.01 + n % 97 / 1000, b"r" * 40, EngineId(n % 16))
    if n % 1000 == 7:
        done.status, done.error = "error", ErrorInfo("MemoryError" if n % 2000 == 7 else "ValueError", "no room")
    return Entry(spec, ClientId("alice"), (), done, (), at + 0.2, EngineUuid(f"engine-{n % 16}"), None, "node1")


def _milliseconds(ask: Callable[[], object], times: int = 5) -> float:
    ask()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)


BENCHMARK = Benchmark(
    name="million",
    text=__doc__,
    unit="ms",
    size=1_000_000,
    quick_size=20_000,
    repeat=1,
    timeout=600.0,
    subjects=(store,),
    goals=(
        *(Goal(question, at_most=50 if "2,000" in question else 10) for question in INDEXED),
        *(Goal(question, at_most=2000) for question in SCANNED),
    ),
)
