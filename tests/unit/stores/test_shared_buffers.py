"""The memory store: a buffer that many tasks share is kept, and counted, once."""

from __future__ import annotations

from engineroom.ids import ClientId, TaskId
from engineroom.messages import TaskDone, TaskSpec
from engineroom.records.entry import Entry
from engineroom.stores import DictDB

SIZE = 1_000_000


def entries(first: int, number: int, buffer: memoryview, *, ended: bool = False) -> list[Entry]:
    specs = [TaskSpec(TaskId(f"c-{n}"), None, b"", float(n)) for n in range(first, first + number)]
    done = [TaskDone(spec.id, 1, "ok", 1.0, 2.0) if ended else None for spec in specs]
    return [Entry(spec, ClientId("c"), (buffer,), end) for spec, end in zip(specs, done, strict=True)]


def test_a_shared_buffer_is_kept_once() -> None:
    store, buffer = DictDB(size_limit=3 * SIZE), memoryview(bytearray(SIZE))
    store.write(entries(0, 50, buffer))
    store.write(entries(50, 50, buffer, ended=True))  # the next group
    assert store.usage().used == SIZE
    kept = {id(entry.frames[0]) for entry in store.entries([TaskId(f"c-{n}") for n in range(100)]).values()}
    assert len(kept) == 1, "and no record had to go for want of room"
    store.write(entries(0, 100, buffer, ended=True))
    store.drop_matching_records({"msg_id": {"$ne": "c-7"}})
    assert store.usage().used == SIZE
    store.drop_record(TaskId("c-7"))
    assert store.usage().used == 0


def test_other_buffers_count_each() -> None:
    store = DictDB()
    for number in range(4):
        store.write(entries(number, 1, memoryview(bytearray(SIZE))))
    assert store.usage().used == 4 * SIZE
