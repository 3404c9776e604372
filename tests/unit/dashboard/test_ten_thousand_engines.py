"""The dashboard with 10,000 engines: what it sends stays small, and none is left out of the sums. No cluster."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.entries import of_engines

from engineroom.dashboard import past
from engineroom.dashboard.overview import ENGINES, Overview
from engineroom.dashboard.stream import Stream
from engineroom.reading.records import Records
from engineroom.stores import SQLiteDB

COUNT = 10_000
#: Bytes of an answer, at most.
LARGEST = 2_000_000


class Client:
    """A cluster with very many engines, each of which runs a task."""

    def queue_status(self) -> dict[Any, Any]:
        begin = time.time() - 100
        engines = {
            id: {"queue": 0, "tasks": 2, "completed": id, "memory": 1 << 20, "host": f"node{id // 64}", "pid": id + 9,
                 "silent": 7.0 if id == 70 else None,
                 "running": {"msg_id": f"a-{id}", "function": "f", "label": "x", "code": None, "started": begin - id}}
            for id in range(COUNT)
        }  # fmt: skip
        return {**engines, "unassigned": 0}

    def db_group(self, *args: Any, **more: Any) -> list[Any]:
        return []


class Source:
    """A file with a task of each engine; with a client, a running cluster."""

    place, file, opened = None, None, 1

    def __init__(self, store: SQLiteDB, client: Any = None) -> None:
        self._found = Records(store=store)
        self._found_live = self._found if client is None else _Live(self._found, client)

    def records(self) -> Any:
        return self._found_live


class _Live:
    def __init__(self, found: Records, client: Any) -> None:
        self.client, self._found = client, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)

    @property
    def origin(self) -> str:
        return "running"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with contextlib.closing(SQLiteDB(tmp_path_factory.mktemp("many") / Path("tasks.db"))) as made:
        made.write(of_engines(COUNT))
        yield made


def small(found: Any) -> Any:
    text = msgspec.json.encode(found, enc_hook=str)
    assert len(text) < LARGEST
    return found


def test_the_overview_of_a_running_cluster(store: SQLiteDB):
    overview = Overview(Source(store, Client()))  # type: ignore[arg-type]
    overview.look()
    found = small(overview.look())
    assert found["problem"] is None
    assert (found["engine_count"], found["busy"], found["held"]) == (COUNT, COUNT, 2 * COUNT)
    assert found["completed"] == sum(range(COUNT))
    assert sum(host["engines"] for host in found["hosts"]) == COUNT
    assert len(found["engines"]) == ENGINES
    longest = max(engine["id"] for engine in found["engines"])
    assert longest == COUNT - 1, "those that run something for longest are shown"
    assert [engine["id"] for engine in found["engines"] if engine["silent"]] == [70], "and those that are silent"
    assert sum(host["silent"] for host in found["hosts"]) == found["silent"] == 1
    assert "engines on node1 are silent: 1 of 64." in found["warnings"][0]["text"]


def test_the_overview_of_a_file(store: SQLiteDB):
    overview = Overview(Source(store))  # type: ignore[arg-type]
    assert "past_engines" not in overview.look(), "the first picture does not wait for what takes long"
    overview.count_past_engines()
    found = small(overview.look())
    assert found["states"] == {"completed": COUNT}
    assert (len(found["past_engines"]), found["past_engine_count"]) == (ENGINES, COUNT)


def test_the_task_stream(store: SQLiteDB):
    found = small(Stream(Source(store)).window(None, None, "function"))  # type: ignore[arg-type]
    assert found["count"] == COUNT
    drawn = {cell[1] for cell in found.get("cells", ())} | {task[0] for task in found["tasks"]}
    assert drawn == set(range(COUNT))


def test_a_moment_of_the_past(store: SQLiteDB):
    begin = time.time() - 1000
    found = small(past.at(Records(store=store), begin + 50))
    assert found["states"]["running"] == len(found["then_running"])
    assert sum(found["states"].values()) == pytest.approx(5000, abs=3000)
