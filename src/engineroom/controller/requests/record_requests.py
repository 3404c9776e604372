"""Requests about records: each is a function of the store and of the request.

Those of `FROM_STORE` only read, in a reader thread. Those of `IN_WRITER` change records, in the writer's thread.
`forgotten` is what else to say of an unknown task: that a restart of the controller has cost all records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from ...errors import PendingTask, QueryError, UnknownTask
from ...ids import ClientId, Digest, TaskId
from ...messages import (
    CountRecords,
    DistinctValues,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    GroupRecords,
    History,
    PageRecords,
    Pin,
    Purge,
    ResultStatus,
)
from ...messages.requests import RequestBody, tasks_in_question
from ...records.entry import is_hex
from ...stores import TaskStore
from ...stores.base import in_columns
from ...stores.query.parse import parse
from ...stores.query.patterns import is_tame
from ...stores.unreadable import environment_of
from ...wire import frames
from ..storage.pending import Scope

#: Records read from the store in one go, where there may be many.
PAGE = 500
#: A request is long that names more tasks, or whose query has more values.
MANY = 2000


class InFrames(msgspec.Struct, frozen=True):
    """Records as an answer: they are sent in frames of their own, in columns. `value` is what else there is to say."""

    frames: list[bytes]
    value: Any = None


_FINISHED = {"completed": {"$ne": None}}


def find_records(store: TaskStore, body: FindRecords, forgotten: str) -> InFrames:
    """Records that match a query. They are encoded here, a piece at a time: there may be many."""
    found = store.find_columns(body.query, body.keys, sort=body.sort, limit=body.limit, skip=body.skip)
    with contextlib.closing(found):
        return InFrames([frames.encode_columns(columns) for columns in found])


def count_records(store: TaskStore, body: CountRecords, forgotten: str) -> int:
    """How many records match a query."""
    return store.count(body.query)


def page_records(store: TaskStore, body: PageRecords, forgotten: str) -> InFrames:
    """A part of the records that match, and where the next one begins."""
    page = store.page(body.query, body.keys, after=body.after, limit=body.limit)
    return InFrames([frames.encode_columns(columns) for columns in in_columns(page.records)], page.next)


def distinct_values(store: TaskStore, body: DistinctValues, forgotten: str) -> list[Any]:
    """Each value of a key, once."""
    return store.distinct(body.key, body.query)


def group_records(store: TaskStore, body: GroupRecords, forgotten: str) -> list[dict[str, Any]]:
    """The records that match, grouped by a key."""
    return store.group_by(body.key, body.query, values=body.values, percentiles=body.percentiles)


def history(store: TaskStore, body: History, forgotten: str) -> list[TaskId]:
    """All ids by time of submission."""
    return store.get_history()


def result_status(store: TaskStore, body: ResultStatus, forgotten: str) -> dict[str, list[TaskId]]:
    """Which of these tasks are pending, and which completed."""
    ids = list(dict.fromkeys(body.tasks))
    found = store.find_records({"msg_id": {"$in": ids}}, ["msg_id", "completed"])
    known = {record["msg_id"]: record["completed"] is not None for record in found}
    for id in ids:
        if id not in known:
            raise UnknownTask(f"no such task: {id}{forgotten}")
    return {"pending": [id for id in ids if not known[id]], "completed": [id for id in ids if known[id]]}


def get_function(store: TaskStore, body: GetFunction, forgotten: str) -> dict[str, Any]:
    """A function with its source."""
    if not is_hex(body.digest):
        raise QueryError(f"the digest of a function is written in hexadecimal digits, got {body.digest[:80]!r}")
    found = store.get_function(Digest(bytes.fromhex(body.digest)))
    return {"name": found.name, "source": found.source, "payload": found.payload}


def get_environment(store: TaskStore, body: GetEnvironment, forgotten: str) -> Any:
    """Where a client ran."""
    return environment_of(body.digest, store.get_environment(body.digest))


def purge(store: TaskStore, body: Purge, forgotten: str) -> Iterator[int]:
    """Forget finished tasks, a piece at a time; gives how many."""
    if body.everything:
        yield from store.drop_in_pieces(_FINISHED)
        return
    if body.query is not None:
        parse(body.query)  # an error in it is named as the user wrote it
        yield from store.drop_in_pieces({"$and": [body.query, _FINISHED]})
    if body.tasks is not None:
        found = {r["msg_id"]: r for r in store.find_records({"msg_id": {"$in": body.tasks}}, ["msg_id", "completed"])}
        for id in body.tasks:
            if id not in found:
                raise UnknownTask(f"no such task: {id}; nothing was purged{forgotten}")
            if found[id]["completed"] is None:
                raise PendingTask(f"task {id} has not finished, so it cannot be purged; nothing was purged")
        for start in range(0, len(body.tasks), PAGE):
            yield store.drop_matching_records({"msg_id": {"$in": body.tasks[start : start + PAGE]}})
    if body.engines is not None:
        yield from store.drop_in_pieces({"engine_id": {"$in": list(body.engines)}, **_FINISHED})


def pin(store: TaskStore, body: Pin, forgotten: str) -> Iterator[int]:
    """Have retention leave records alone, or not any more, a piece at a time; gives how many that changes."""
    query: Mapping[str, Any] = {"msg_id": {"$in": body.tasks}} if body.tasks is not None else body.query or {}
    if body.tasks is not None and store.count(query) < len(set(body.tasks)):
        known = {record["msg_id"] for record in store.find_records(query, "msg_id")}
        unknown = next(id for id in body.tasks if id not in known)
        raise UnknownTask(f"no such task: {unknown}; nothing was changed{forgotten}")
    page = store.page(query, "msg_id", limit=PAGE)
    while page.records:
        yield store.pin([record["msg_id"] for record in page.records], body.pinned)
        if page.next is None:
            return
        page = store.page(query, "msg_id", after=page.next, limit=PAGE)


def scope_of(body: RequestBody, client: ClientId) -> Scope:
    """What must be recorded before a request is answered: the tasks that it names, else all of its client."""
    tasks = body.tasks if isinstance(body, Explain) else tasks_in_question(body)
    return Scope(client) if tasks is None else Scope(tasks=frozenset(tasks))


def is_slow(body: RequestBody) -> bool:
    """Whether a request is likely to take long: it is long itself, or a search of its regular expression may be."""
    parts: list[Any] = [getattr(body, "query", None), getattr(body, "tasks", None)]
    items = 0
    while parts and items <= MANY:
        part = parts.pop()
        if isinstance(part, dict):
            pattern = part.get("$regex")
            if isinstance(pattern, str) and not is_tame(pattern):
                return True
            items += len(part)
            parts += part.values()
        elif isinstance(part, list):
            items += len(part)
            if items <= MANY:
                parts += part
    return items > MANY


StoreRequest = Callable[[TaskStore, Any, str], Any]

FROM_STORE: dict[type, StoreRequest] = {
    FindRecords: find_records,
    CountRecords: count_records,
    PageRecords: page_records,
    DistinctValues: distinct_values,
    GroupRecords: group_records,
    History: history,
    ResultStatus: result_status,
    GetFunction: get_function,
    GetEnvironment: get_environment,
}

#: Changes, which are made in pieces: each gives how many records it has changed.
IN_WRITER: dict[type, Callable[[TaskStore, Any, str], Iterator[int]]] = {Purge: purge, Pin: pin}
