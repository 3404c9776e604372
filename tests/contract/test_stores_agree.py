"""Memory and SQLite give the same answers: random records, random queries, same ids in the same order."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import Attempt, ErrorInfo, TaskDone, TaskOptions, TaskSpec
from engineroom.records.entry import Entry
from engineroom.records.fields import KEYS, TIMES
from engineroom.stores import DictDB, SQLiteDB

NOW = 1_800_000_000.0

# few values, so that they meet
texts = st.sampled_from(["", "a", "b", "ünï", "ok", "error", "ValueError", "e1", "e2", "apply_request", "0f", "f"])
numbers = st.sampled_from([0, 1, 2, -1, 1.0, 1.5, -0.0, float("inf"), float("nan"), 1 << 40])
moments = st.builds(
    lambda micros, zone: datetime.fromtimestamp(NOW, UTC).astimezone(zone).replace(
        tzinfo=zone) + timedelta(microseconds=micros),
    st.integers(0, 4), st.sampled_from([UTC, timezone(timedelta(hours=2)), None]),
)  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), numbers, texts, moments, st.sampled_from([b"", b"a", b"b"]))
names = st.sampled_from(["x", "y", "0", "ename", "status", "msg_type"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
dicts = st.dictionaries(names, values, max_size=3)

records = st.fixed_dictionaries({}, optional={
    "state": st.sampled_from(["pending", "completed", "failed", None]), "label": st.none() | texts,
    "header": st.none() | dicts, "content": dicts, "metadata": dicts, "result_content": st.none() | dicts,
    "submitted": st.none() | moments, "started": moments, "completed": st.none() | moments, "client_uuid": texts,
    "engine_uuid": texts, "engine_id": st.none() | st.integers(-1, 2), "queue": st.sampled_from(["mux", "task"]),
    "function": st.none() | texts, "attempts": st.lists(dicts, max_size=2), "pyin": values, "pyout": values,
    "stdout": texts, "buffers": st.none() | st.lists(st.sampled_from([b"", b"x"]), max_size=2),
})  # fmt: skip

# not all of them whole microseconds
seconds = st.integers(0, 20).map(lambda n: NOW + n * 3e-7)


@st.composite
def entries(draw: st.DrawFn, names: st.SearchStrategy[str]) -> Entry:
    options = draw(st.none() | st.builds(TaskOptions, label=st.none() | texts, retries=st.integers(0, 1),
                                         metadata=st.none() | st.dictionaries(st.just("x"), texts)))  # fmt: skip
    spec = TaskSpec(
        TaskId(draw(names)),
        Digest(draw(st.sampled_from([b"\x0f", b""]))),
        b"a",
        draw(seconds),
        EngineId(draw(st.integers(-1, 1))),
        (),
        options,
        draw(st.sampled_from(["apply", "execute"])),
    )
    entry = Entry(spec, ClientId(draw(texts)), draw(st.sampled_from([(), (b"1", b"22")])))
    engine = EngineUuid(draw(texts))
    if draw(st.booleans()):
        status = draw(st.sampled_from(["ok", "error", "aborted"]))
        entry.done = TaskDone(spec.id, 1, status, draw(st.none() | seconds), draw(seconds), b"r",
                              EngineId(draw(st.integers(-1, 1))), stdout=draw(texts))  # fmt: skip
        if status == "error":
            entry.done.error = ErrorInfo(draw(texts), "bad")
        entry.done.content = draw(st.none() | st.dictionaries(names_of_content, texts, max_size=2))
        entry.received, entry.engine_uuid = draw(seconds), engine
    if draw(st.booleans()):
        entry.attempts = [Attempt(0, EngineId(0), engine, "host", None, draw(seconds), draw(texts))]
    return entry


names_of_content = st.sampled_from(["ename", "status", "execute_result"])

TOP = [key for key in KEYS if key != "result_buffers"]
keys = st.sampled_from([
    *TOP, *sorted(TIMES), "submitted", "header.x", "header.msg_type", "header.label", "header.session", "metadata.x",
    "metadata.x.y", "metadata.x.0", "result_content.ename", "result_content.status", "result_content.x",
    "attempts.cause", "attempts.0", "attempts.0.x", "attempts.x.y", "pyout.0", "pyout.x", "content.x.0.y", "error",
])  # fmt: skip

patterns = st.sampled_from(["a", "^a", "Err", "b$", "^$", "Ü"])
simple = st.one_of(
    st.builds(
        lambda op, v: {op: v}, st.sampled_from(["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$ge", "$le"]), values
    ),
    st.builds(lambda op, v: {op: v}, st.sampled_from(["$in", "$nin", "$all"]), st.lists(values, max_size=3)),
    st.builds(lambda d, r: {"$mod": [d, r]}, st.sampled_from([1, 2, -2]), st.integers(-1, 1)),
    st.builds(lambda v: {"$exists": v}, st.booleans()),
    st.builds(lambda p, o: {"$regex": p, "$options": o}, patterns, st.sampled_from(["", "i"])),
    st.builds(lambda p: {"$glob": p}, st.sampled_from(["*", "a*", "?", "[ab]"])),
    st.builds(lambda n: {"$size": n}, st.integers(0, 2)),
    st.builds(lambda t: {"$type": t}, st.sampled_from(["string", "number", 3, "array", "null", "bool", "date", "int"])),
)
operators = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(lambda test: {"$not": test}, inner),
        st.builds(lambda test: {"$elemMatch": test}, inner),
        st.builds(lambda name, test: {"$elemMatch": {name: test}}, names, inner | scalars),
        st.builds(lambda a, b: {**a, **b}, inner, inner),
    ),
    max_leaves=3,
)
fields = st.dictionaries(keys, values | operators, max_size=2)
queries = st.recursive(
    fields,
    lambda inner: st.builds(lambda op, parts: {op: parts}, st.sampled_from(["$and", "$or", "$nor"]),
                            st.lists(inner, min_size=1, max_size=3)),
    max_leaves=4,
)  # fmt: skip
sorts = st.none() | st.lists(st.tuples(keys, st.sampled_from([1, -1])), max_size=2)

written = st.lists(entries(st.sampled_from("abcdef")), max_size=6)
added = st.dictionaries(st.sampled_from("mnopqr"), records, max_size=4)
changed = st.dictionaries(st.sampled_from("abmn"), records, max_size=2)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(written=written, added=added, changed=changed, asked=st.lists(st.tuples(queries, sorts), min_size=4, max_size=8),
       limit=st.none() | st.integers(0, 5), skip=st.integers(0, 2))  # fmt: skip
def test_memory_and_sqlite_agree(
    written: list[Entry],
    added: dict[str, Any],
    changed: dict[str, Any],
    asked: list[tuple[Any, Any]],
    limit: int | None,
    skip: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memory, sqlite = DictDB(), SQLiteDB(Path(folder) / "tasks.db", synchronous="OFF")
        try:
            for store in memory, sqlite:
                for entry in written:
                    store.write([entry])
                for msg_id, record in added.items():
                    store.add_record(TaskId(msg_id), record)
                for msg_id, record in changed.items():
                    if msg_id in store.get_history():
                        store.update_record(TaskId(msg_id), record)
            assert memory.get_history() == sqlite.get_history()
            assert repr(memory.find_records({}, list(KEYS))) == repr(sqlite.find_records({}, list(KEYS)))
            for query, sort in asked:
                answers = [
                    [r["msg_id"] for r in store.find_records(query, "msg_id", sort=sort, limit=limit, skip=skip)]
                    for store in (memory, sqlite)
                ]
                assert answers[0] == answers[1], (query, sort)
                assert memory.count(query) == sqlite.count(query)
            assert [e.id for e in memory.unfinished()] == [e.id for e in sqlite.unfinished()]
            assert memory.drop_matching_records(asked[0][0]) == sqlite.drop_matching_records(asked[0][0])
            assert memory.get_history() == sqlite.get_history()
        finally:
            sqlite.close()
