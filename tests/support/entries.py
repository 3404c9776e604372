"""Tasks as a controller hands them to a store."""

from __future__ import annotations

import time
from typing import Any

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import ErrorInfo, TaskDone, TaskSpec
from engineroom.records.entry import Entry

NOW = 1_800_000_000.123457


def pending(name: str = "a", at: float = NOW, **spec: Any) -> Entry:
    frames = spec.pop("buffers", ())
    made = TaskSpec(TaskId(name), Digest(b"\x0f\xff"), spec.pop("payload", b"call"), at, **spec)
    return Entry(made, ClientId("alice"), frames)


def finished(name: str = "a", at: float = NOW, payload: bytes = b"result", **spec: Any) -> Entry:
    entry = pending(name, at, **spec)
    entry.done = TaskDone(entry.id, 1, "ok", at + 1, at + 2, payload, EngineId(3))
    entry.received, entry.engine_uuid = at + 3, EngineUuid("e3")
    return entry


def failed(name: str = "a", at: float = NOW, ename: str = "ValueError") -> Entry:
    entry = finished(name, at, b"")
    assert entry.done is not None
    entry.done.status, entry.done.error = "error", ErrorInfo(ename, "bad", "Traceback …", 3, "e3")
    entry.done.stdout, entry.done.stderr = "said\n", "warned\n"
    return entry


def of_engines(count: int) -> list[Entry]:
    """A finished task of each of so many engines; the first began 1,000 s ago."""
    begin, entries = time.time() - 1000, []
    for id in range(count):
        entry = finished(f"a-{id}", begin + id / 100)
        assert entry.done is not None
        entry.done.engine, entry.engine_uuid = EngineId(id), EngineUuid(f"e{id}")
        entries.append(entry)
    return entries
