"""One language, one answer: random records, random questions, and a MongoDB-protocol server as the judge.

The same records, in the same order, from memory, SQLite and the server. ENGINEROOM_NIGHTLY=1 asks 100,000 times.
Where FerretDB differs from MongoDB (`support/ferrets.py`) it is not asked, unless $MONGODB_URI names another server.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ferrets
from support.drawing import PATHS, Drawing

from engineroom.ids import TaskId
from engineroom.records.fields import KEYS
from engineroom.stores import DictDB, MongoDB, SQLiteDB, TaskStore

NIGHTLY = bool(os.environ.get("ENGINEROOM_NIGHTLY"))
QUESTIONS = 100_000 if NIGHTLY else 500
#: questions about the same records
A_ROUND = 125
ENTRIES, RECORDS = 6, 10


@pytest.fixture
def stores(tmp_path: Path, open_mongodb: Callable[..., MongoDB]) -> Iterator[tuple[TaskStore, TaskStore, TaskStore]]:
    sqlite = SQLiteDB(tmp_path / "tasks.db", synchronous="OFF")
    yield DictDB(), sqlite, open_mongodb()
    sqlite.close()


def ids(store: TaskStore, query: Any, sort: Any, **window: Any) -> list[str]:
    return [record["msg_id"] for record in store.find_records(query, "msg_id", sort=sort, **window)]


@pytest.mark.timeout(7200 if NIGHTLY else 120)
def test_all_answer_as_the_server_does(stores: tuple[TaskStore, TaskStore, TaskStore]) -> None:
    memory, sqlite, server = stores
    asked, seed, passed_over = 0, 0, Counter[str]()
    by_ferret = "MONGODB_URI" not in os.environ
    while asked < QUESTIONS:
        draw = Drawing(seed, ferrets.can_hold)
        records = fill(stores, draw)
        for _ in range(A_ROUND):
            query, sort = draw.query(), draw.sort()
            window = {"limit": draw.random.choice([None, None, 3]), "skip": draw.random.choice([0, 0, 1])}
            ours = ids(memory, query, sort, **window)
            assert ids(sqlite, query, sort, **window) == ours, f"seed {seed}: SQLite, {query!r} sorted by {sort!r}"
            why = ferrets.differs(query, sort, records) if by_ferret else None
            if why is not None:
                passed_over[why] += 1
                continue
            assert ids(server, query, sort, **window) == ours, f"seed {seed}: the server, {query!r} sorted by {sort!r}"
            asked += 1
        seed += 1
    print(f"{asked} questions agreed; passed over: {dict(passed_over)}")


def fill(stores: tuple[TaskStore, ...], draw: Drawing) -> list[Any]:
    """Put the same records into all; returns them."""
    entries = [draw.entry(f"t{n}") for n in range(ENTRIES)]
    added = {TaskId(f"r{n}"): draw.record() for n in range(RECORDS)}
    for store in stores:
        store.drop_matching_records({})
        store.write(entries)
        for msg_id, record in added.items():
            store.add_record(msg_id, record)
    wholes = [store.find_records({}, list(KEYS)) for store in stores]
    for found in zip(*wholes, strict=True):
        assert repr(found[0]) == repr(found[1]) == repr(found[2])
    return list(wholes[0])


def test_groups_pages_and_distinct_values_are_the_same_everywhere(
    stores: tuple[TaskStore, TaskStore, TaskStore],
) -> None:
    for seed in range(3):
        draw = Drawing(seed, ferrets.can_hold)
        fill(stores, draw)
        for _ in range(20):
            key = draw.random.choice(PATHS)
            measure = draw.random.choice(["duration", "engine_id", "metadata.x", None])
            answers = [
                (
                    repr(store.distinct(key, {})),
                    repr(store.group_by(key, {}, values=measure, percentiles=(50, 99.5))),
                    list(pages(store, 3, {"state": {"$ne": "failed"}})),
                )
                for store in stores
            ]
            assert answers[0] == answers[1] == answers[2], (seed, key, measure)


def pages(store: TaskStore, size: int, query: dict[str, Any]) -> Iterator[str]:
    after = None
    while True:
        page = store.page(query, "state", after=after, limit=size)
        yield from (record["msg_id"] for record in page.records)
        if page.next is None:
            return
        after = page.next
