"""Queries, as text and as documents, put to the memory store and to SQLite.

`QueryTextTarget`: a case is what a user types into a terminal or the dashboard. `QueriesTarget`: a case is a list in
msgpack, `[query, keys, sort, limit, skip, key to group by]`, as a client sends it.

Both stores must give the same answer, or refuse with the same typed error.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Self

import msgspec

from engineroom.errors import EngineroomError, QueryError
from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, ErrorInfo, TaskDone, TaskOptions, TaskSpec
from engineroom.reading.query_text import parse_query
from engineroom.records.entry import Entry
from engineroom.records.fields import KEYS
from engineroom.stores import DictDB, SQLiteDB, TaskStore
from engineroom.stores.query.deadline import Asker, asked_by

from . import mutations
from .target import Complaints, Finding, Target, TreeTarget, memory_folder

#: Processor seconds that a query may take here. Whoever is out of time is not compared.
QUERY_SECONDS = 2.0
NOW = 1_800_000_000.0

_OPERATORS = (
    "$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$all", "$mod", "$exists", "$size", "$type", "$not",
    "$elemMatch", "$glob", "$regex", "$options", "$and", "$or", "$nor", "$date", "$le", "$ge",
)  # fmt: skip
ATOMS = (
    *_OPERATORS, *KEYS, "header.label", "metadata.x", "metadata.x.0", "attempts.cause", "attempts.0.host", "duration",
    "t1", "t2", "pending", "completed", "failed", "aborted", "ValueError", "-2h", "2027-01-15", "number", "string",
    "^t", "[ab]*",
    "(a+)+$", "im", "a", {"$gt": 1}, {"$exists": True}, {"$in": ["a", None]}, {"$regex": "^t"}, {"state": "failed"},
    {"$size": 2}, {"$not": {"$eq": 1}}, {"$elemMatch": {"cause": "ok"}}, {"$type": "string"}, {"$mod": [2, 1]}, 3,
    NOW, -1,
)  # fmt: skip
_QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"state": "failed"},
    {"msg_id": {"$in": ["t1", "t2", "t9"]}},
    {"$or": [{"label": "a"}, {"engine_id": {"$gte": 1}}]},
    {"$and": [{"completed": None}, {"$nor": [{"label": {"$exists": False}}]}]},
    {"header.label": {"$regex": "^A", "$options": "i"}, "retries": {"$ne": 0}},
    {"attempts": {"$elemMatch": {"cause": {"$glob": "no*"}, "number": {"$lt": 3}}}},
    {"metadata.x": {"$all": [1, 2]}, "metadata": {"$type": "object"}},
    {"metadata.x": {"$size": 2}, "engine_id": {"$mod": [2, 1]}},
    {"result_content.ename": {"$not": {"$in": ["ValueError"]}}},
    {"duration": {"$gt": 0.5, "$lte": 100}},
    {"buffers": None, "stdout": {"$ne": ""}},
)


class _Stores:
    """Both stores with the same few records."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=memory_folder())
        self._complaints = Complaints()
        self._complaints.__enter__()
        self.memory, self.sqlite = DictDB(), SQLiteDB(Path(self._folder.name) / "tasks.db", synchronous="OFF")
        for store in (self.memory, self.sqlite):
            store.write(_entries())
            store.add_record(
                TaskId("t8"), {"label": "ünï", "metadata": {"x": [1, 2], "y": {"0": None}}, "stdout": "a\nb"}
            )
            store.add_record(
                TaskId("t9"), {"pyout": [1.5, float("nan"), {"x": -0.0}], "submitted": datetime.fromtimestamp(NOW, UTC)}
            )

    def close(self) -> None:
        self.sqlite.close()
        self._complaints.__exit__()
        self._folder.cleanup()

    def compare(self, ask: Callable[[TaskStore], Any]) -> None:
        """Raises Finding unless both stores give the same answer, or refuse with the same error."""
        asker = Asker()
        answers: list[Any] = []
        for store in (self.memory, self.sqlite):
            asker.until_thread_time = time.thread_time() + QUERY_SECONDS
            try:
                with asked_by(asker):
                    answers.append(ask(store))
            except EngineroomError as error:
                if "given up" in str(error):
                    return
                answers.append(type(error))
        if repr(answers[0]) != repr(answers[1]):
            raise Finding(f"memory answers {answers[0]!r:.400}, SQLite {answers[1]!r:.400}")
        self._complaints.check()


class _OnStores:
    """A target whose cases are put to both stores."""

    def __enter__(self) -> Self:
        self._stores = _Stores()
        return self

    def __exit__(self, *error: object) -> None:
        self._stores.close()


class QueryTextTarget(_OnStores, Target):
    """Text through `parse_query`, then to both stores."""

    name = "query-text"
    longest = 2048

    def seeds(self) -> list[bytes]:
        texts = [
            *map(msgspec.json.encode, _QUERIES),
            *(repr(query).encode() for query in _QUERIES),
            b'{"submitted": {"$gt": "-2h"}, "completed": {"$lt": "2027-01-31T14:00+02:00"}}',
            b'{"submitted": {"$gt": {"$date": "2027-01-15"}}}',
            b"{'msg_id': ('t1', 't2'), 'label': {1, 2}}",
            b"{'buffers': [b'x'], 'engine_id': -1.5e3}",
            b"", b"[]", b"state=failed", b"{[]: 1}", b"{1: 2}", b"{'state': 1 + 2j}",
        ]  # fmt: skip
        return texts

    def mutate(self, case: bytes, rng: Random) -> bytes:
        if rng.random() < 0.2:
            text = case.decode(errors="replace")
            at = rng.randint(0, len(text))
            piece = rng.choice(
                ("{", "}", "[", "'", '"', "\\", "(", "-", "1e999", "{[]:1}", "[" * 150, "'\\ud800'", "$date")
            )
            return f"{text[:at]}{piece}{text[at:]}".encode()
        return mutations.change_json(case, rng, ATOMS)

    def run(self, case: bytes) -> None:
        try:
            query = parse_query(case.decode("utf-8", "surrogateescape"))
        except QueryError as error:
            str(error).encode(errors="replace")
            return
        self._stores.compare(lambda store: _ids(store, query))
        self._stores.compare(lambda store: store.count(query))


class QueriesTarget(_OnStores, TreeTarget):
    """Queries, keys, orders and windows as clients send them."""

    name = "queries"
    atoms = (*ATOMS, datetime.fromtimestamp(NOW, UTC), b"x")

    def seeds(self) -> list[bytes]:
        moment = {"submitted": {"$gte": datetime.fromtimestamp(NOW, UTC)}, "buffers": b"x"}
        cases: list[Any] = [
            [query, ["msg_id", "state"], [["submitted", -1]], 5, 0, "state"] for query in (*_QUERIES, moment)
        ]
        cases += [[{}, [key], [[key, 1], ["label", -1]], None, 2, key] for key in KEYS]
        return [msgspec.msgpack.encode(case) for case in cases]

    def run(self, case: bytes) -> None:
        try:
            query, keys, sort, limit, skip, group = msgspec.msgpack.decode(
                case, type=tuple[dict[str, Any], list[str] | None, list[tuple[str, int]] | None, int | None, int, str]
            )
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        compare = self._stores.compare
        compare(lambda store: store.find_records(query, keys, sort=sort, limit=limit, skip=skip))
        compare(lambda store: store.count(query))
        compare(lambda store: store.distinct(group, query))
        compare(lambda store: store.group_by(group, query))
        compare(lambda store: store.page(query, keys, limit=3 if limit is None else limit))


def _ids(store: TaskStore, query: dict[str, Any]) -> list[str]:
    return [str(record["msg_id"]) for record in store.find_records(query, "msg_id")]


def _entries() -> list[Entry]:
    """Tasks that wait, have succeeded, and have failed."""
    found = []
    for n, status in enumerate((None, "ok", "error", "ok", "aborted")):
        options = TaskOptions(label=("a", "b", None)[n % 3], retries=n % 2, metadata={"x": [1, 2], "y": {"0": n}})
        spec = TaskSpec(TaskId(f"t{n}"), Digest(b"\x0f" * 16), b"args", NOW + n, EngineId(n - 1), (0,), options)
        entry = Entry(spec, ClientId("u1"), (b"frame",))
        if status is not None:
            error = ErrorInfo("ValueError", "bad", "Traceback", n, "e") if status != "ok" else None
            entry.done = TaskDone(
                spec.id, 1, status, NOW + n, NOW + 2 * n, b"value", EngineId(n), (), "said", "warned", error,
                {"execution_count": n, "data": {"x": [None, n]}}, 1 << 20,
            )  # fmt: skip
            entry.received, entry.engine_uuid = NOW + 3 * n, EngineUuid(f"e{n % 2}")
            entry.attempts = [
                Attempt(0, EngineId(1), EngineUuid("e1"), "host", NOW, NOW + n, ("ok", "no memory")[n % 2])
            ]
        found.append(entry)
    return found
