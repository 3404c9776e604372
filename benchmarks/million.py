"""A million records in SQLite: questions put to the store.

What is indexed (an id, 2,000 ids, an engine, a state, a label or its beginning, a range of submission or of ends, the
latest; each with a limit of 100 where the answer is large) and what is not: the name of an error, a value in the
metadata, a regular expression on the output, groups with percentiles. Records as most are; one in ten has metadata, one
in a thousand failed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engineroom.stores import SQLiteDB

from .harness import Benchmark, Figures, Goal
from .records import BEGAN, fill, id_of, milliseconds

INDEXED = ("by id", "by 2,000 ids", "engine", "state", "label", "time range", "newest", "ends", "latest ends",
           "newest completed first", "ends, 7,000", "label by glob")  # fmt: skip
SCANNED = ("error name", "metadata", "duration", "regex on stdout", "percentiles by engine")


def store(size: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / "tasks.db", size)
        database = SQLiteDB(Path(folder) / "tasks.db")
        try:
            return _answers(database, size)
        finally:
            database.close()


def _answers(database: SQLiteDB, size: int) -> Figures:
    middle = BEGAN + size / 2000
    few = {"$gte": datetime.fromtimestamp(middle, UTC), "$lt": datetime.fromtimestamp(middle + 0.1, UTC)}
    more_few = {**few, "$lt": datetime.fromtimestamp(middle + 7, UTC)}
    ids = [id_of(n) for n in range(0, size, max(1, size // 2000))]

    def find(query: dict[str, Any], keys: str | None = None, **more: Any) -> Callable[[], object]:
        return lambda: database.find_records(query, keys, **more)

    questions: dict[str, Callable[[], object]] = {
        "by id": find({"msg_id": id_of(size // 3)}),
        "by 2,000 ids": find({"msg_id": {"$in": ids}}, "state"),
        "engine": find({"engine_id": 3}, limit=100),
        "state": find({"state": "failed"}, limit=100),
        "label": find({"label": "fit"}, limit=100),
        "time range": find({"submitted": few}),
        "newest": find({"state": "completed"}, sort=[("submitted", -1)], limit=100),
        "ends": find({"completed": few}),
        "latest ends": find({}, sort=[("completed", -1)], limit=100),
        "newest completed first": find({"state": "completed"}, sort=[("completed", -1)], limit=100),
        "ends, 7,000": find({"completed": more_few}, "msg_id", limit=100),
        "label by glob": find({"label": {"$glob": "fi*"}}, limit=100),
        "error name": find({"result_content.ename": "MemoryError"}, "msg_id"),
        "metadata": find({"metadata.run": 50}, "msg_id"),
        "duration": find({"duration": {"$gt": 0.0955}}, "msg_id"),
        "regex on stdout": find({"stdout": {"$regex": "(error|warning)s?"}}, "msg_id"),
        "percentiles by engine": lambda: database.group_by("engine_id", {}, values="duration", percentiles=(50, 99)),
    }
    return {question: milliseconds(ask) for question, ask in questions.items()}


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
        *(Goal(question, at_most=50 if ",000" in question else 10) for question in INDEXED),
        *(Goal(question, at_most=2000) for question in SCANNED),
    ),
)
