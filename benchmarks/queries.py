"""Queries: 10,000 records, three questions.

One record by its id; the ids of the half that was submitted first; three keys of all of them. Through
`rc.db_query`, with the records in SQLite and in memory. The reference is what the rows alone cost: the same
questions put to a bare sqlite3 table with an index, in the asking process.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from .harness import Benchmark, Figures, Goal
from .ours import cluster, noop
from .records import milliseconds

THREE_KEYS = ["submitted", "completed", "engine_uuid"]


def sqlite(size: int) -> Figures:
    return _engineroom("sqlite", "engineroom, SQLite", size)


def memory(size: int) -> Figures:
    return _engineroom("memory", "engineroom, memory", size)


def _engineroom(database: str, who: str, size: int) -> Figures:
    with cluster(database) as rc:
        view = rc.load_balanced_view()
        results = [view.apply_async(noop) for _ in range(size)]
        for result in results:
            result.get()
        while len(records := rc.db_query({"state": "completed"}, keys=["submitted"])) < size:
            time.sleep(0.05)
        middle = sorted(record["submitted"] for record in records)[size // 2]
        one = results[size // 3].msg_ids[0]
        return _summary(
            who,
            size,
            by_id=lambda: rc.db_query({"msg_id": one}),
            half=lambda: rc.db_query({"submitted": {"$lt": middle}}, keys=["msg_id"]),
            all_=lambda: rc.db_query({}, keys=THREE_KEYS),
        )


def bare(size: int) -> Figures:
    table = sqlite3.connect(":memory:")
    table.row_factory = lambda cursor, row: dict(zip([c[0] for c in cursor.description], row, strict=True))
    table.executescript("""
        create table tasks (msg_id text primary key, submitted real, completed real, engine_uuid text);
        create index by_time on tasks (submitted);
    """)
    rows = [(str(uuid.uuid4()), float(n), n + 0.5, str(uuid.uuid4())) for n in range(size)]
    table.executemany("insert into tasks values (?, ?, ?, ?)", rows)

    def everything() -> list[dict[str, object]]:
        found = table.execute("select msg_id, submitted, completed, engine_uuid from tasks").fetchall()
        for row in found:
            for key in ("submitted", "completed"):
                row[key] = datetime.fromtimestamp(row[key], UTC)
        return found

    return _summary(
        "bare sqlite3",
        size,
        by_id=lambda: table.execute("select * from tasks where msg_id = ?", rows[size // 3][:1]).fetchall(),
        half=lambda: table.execute("select msg_id from tasks where submitted < ?", (size // 2,)).fetchall(),
        all_=everything,
    )


def _summary(who: str, size: int, **questions: Callable[[], list[object]]) -> Figures:
    expected = {"by_id": 1, "half": size // 2, "all_": size}
    names = {"by_id": "by id", "half": "ids of half", "all_": "all, three keys"}
    figures = {}
    for question, ask in questions.items():
        found = len(ask())
        assert abs(found - expected[question]) <= size // 100, (question, found)  # equal times happen
        figures[f"{who}, {names[question]}"] = milliseconds(ask, 100 if question == "by_id" else 5)
    return figures


BENCHMARK = Benchmark(
    name="queries",
    text=__doc__,
    unit="ms",
    size=10_000,
    quick_size=2_000,
    subjects=(sqlite, bare, memory),
    goals=(
        Goal("engineroom, SQLite, all, three keys", at_most=60),
        *(
            Goal(f"engineroom, {where}, {question}", f"bare sqlite3, {question}")
            for where in ("SQLite", "memory")
            for question in ("by id", "ids of half", "all, three keys")
        ),
    ),
)
