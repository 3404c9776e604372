"""Records to measure with: of tasks as most are, and of no-ops; and how long a question to them takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId, new_uuid
from engineroom.messages import ErrorInfo, TaskDone, TaskOptions, TaskSpec
from engineroom.records.entry import Entry
from engineroom.stores import SQLiteDB

BEGAN = 1.8e9


def id_of(n: int) -> TaskId:
    """The id of a record."""
    return TaskId(f"c2edfdcff135ecb4-{n}")


def entry(n: int) -> Entry:
    """A finished task: a thousand were submitted each second, one in ten has metadata, one in a thousand failed."""
    at = BEGAN + n / 1000
    options = TaskOptions(label="fit" if not n % 1000 else None, metadata={"run": n % 100}) if not n % 10 else None
    spec = TaskSpec(id_of(n), Digest(bytes(16)), b"x" * 60, at, EngineId(-1), (), options)
    done = TaskDone(spec.id, 1, "ok", at + 0.01, at + 0.01 + n % 97 / 1000, b"r" * 40, EngineId(n % 16))
    if n % 1000 == 7:
        done.status, done.error = "error", ErrorInfo("MemoryError" if n % 2000 == 7 else "ValueError", "no room")
    return Entry(spec, ClientId("alice"), (), done, (), at + 0.2, EngineUuid(f"engine-{n % 16}"), None, "node1")


def fill(path: Path, size: int) -> None:
    """A database of so many records."""
    store = SQLiteDB(path, synchronous="OFF")
    for start in range(0, size, 2000):
        store.write([entry(n) for n in range(start, min(size, start + 2000))])
    store.close()


def noops(count: int) -> list[Entry]:
    """Finished no-op tasks of one client on four engines."""
    client, engines = ClientId(new_uuid()), [EngineUuid(new_uuid()) for _ in range(4)]
    function, call, result = Digest(b"f" * 20), b"c" * 60, b"r" * 20
    made = []
    for number in range(count):
        time_, task = BEGAN + number * 1e-5, TaskId(f"{client}-{number}")
        done = TaskDone(task, 1, "ok", time_ + 1e-3, time_ + 1.1e-3, result, EngineId(number % 4))
        spec = TaskSpec(task, function, call, time_)
        made.append(Entry(spec, client, (), done, (), time_ + 2e-3, engines[number % 4]))
    return made


def milliseconds(ask: Callable[[], object], times: int = 5) -> float:
    """How long a question takes: the median of some times, after one to warm up."""
    ask()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)
