"""Answers calls from the store, where equal calls have succeeded before.

The tasks of one submission are looked up together, in a reader thread, before the core hears of them. A task that has
an equal one ends at once, as a new record that names the old one; the other tasks are queued. Equal tasks that are
submitted at the same time each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import events
from ..ids import EngineUuid, TaskId
from ..messages import CacheKey, TaskDone, TaskSpec
from ..records.entry import Entry
from ..records.states import COMPLETED, FAILED
from ..stores import TaskStore
from .storage.store_reader import readable_entries

#: Digests looked up with one question: so few that SQLite uses the index on them.
TOGETHER = 400
#: Of tasks with the same arguments, how many are looked at to explain why none could be used.
LOOKED_AT = 100

NOTHING_KEPT = "this controller keeps no task records (NoDB)"


def key_of(spec: TaskSpec) -> CacheKey | None:
    """What a task may be looked up by; None: it may not."""
    key = spec.options.cache if spec.options is not None else None
    return key if key is not None and key.arguments else None


def equal_tasks(store: TaskStore, keys: set[CacheKey]) -> dict[CacheKey, Entry]:
    """For each key the latest task that ran and succeeded, if its result is still there."""
    wanted = sorted({key.arguments for key in keys})
    latest: dict[CacheKey, TaskId] = {}
    for start in range(0, len(wanted), TOGETHER):
        # Nothing is asked of the state: its index would seem the better one, and leads to nearly all records.
        query = {"arguments_digest": {"$in": wanted[start : start + TOGETHER]}, "cached_from": None}
        for record in store.find_records(query, ["state", "code_digest", "arguments_digest"]):
            key = CacheKey(record["code_digest"], record["arguments_digest"])
            if key in keys and record["state"] == COMPLETED:
                latest[key] = record["msg_id"]
    entries, _ = readable_entries(store, list(latest.values()))
    return {key: entries[id] for key, id in latest.items() if id in entries and _has_result(entries[id])}


def _has_result(entry: Entry) -> bool:
    return entry.done is not None and bool(entry.done.payload or entry.result_frames)


def answer_from(entry: Entry, spec: TaskSpec, frames: Sequence[Any], now: float) -> events.Answer:
    """The outcome of a task, from the entry of an equal one."""
    assert entry.done is not None
    done = TaskDone(
        spec.id, 1, "ok", None, now, entry.done.payload, frames=entry.done.frames, content=entry.done.content,
        cached_from=entry.id,
    )  # fmt: skip
    engine = None if entry.engine_uuid is None else EngineUuid(entry.engine_uuid)
    return events.Answer(spec, frames, done, entry.result_frames, engine)


# ---------------------------------------------------------------------------------------------- why not


def why_it_ran(store: TaskStore, record: Mapping[str, Any]) -> str:
    """In words, why a task was not answered from the store, by what the store still knows of that time."""
    if not record["arguments_digest"]:
        return (
            "it was not looked up: it takes results of other tasks or has to wait for some, or its function or an "
            "argument cannot be compared"
        )
    submitted = record["submitted"]
    keys = ["state", "submitted", "completed", "result_content", "code_digest", "arguments_digest"]
    before = {"msg_id": {"$ne": record["msg_id"]}, "submitted": {"$lte": submitted}, "cached_from": None}

    def found(**query: Any) -> list[Any]:
        return store.find_records({**before, **query}, keys, sort=[("submitted", -1)], limit=LOOKED_AT)

    name, code, arguments = record["function_name"], record["code_digest"], record["arguments_digest"]
    same = found(arguments_digest=arguments, code_digest=code)
    if same:
        last = same[0]
        if last["completed"] is None or last["completed"] > submitted:
            return f"an equal call, {last['msg_id']}, had not ended yet: equal calls at the same time each run"
        if last["state"] == COMPLETED:
            return f"the result of {last['msg_id']}, an equal call, is not kept any more"
        error = last["result_content"] or {}
        what = f"failed: {error.get('ename')}" if last["state"] == FAILED else "was aborted"
        return f"the last equal call, {last['msg_id']}, {what}: only what succeeded is used"
    changed = found(arguments_digest=arguments, function_name=name, code_digest={"$ne": code})
    if changed:
        return (
            f"the function has changed: {changed[0]['msg_id']} called {name} with the same arguments, but its digest "
            f"was {changed[0]['code_digest']}, and is {code} now"
        )
    others = found(function_name=name, arguments_digest={"$ne": None})
    if others and any(other["code_digest"] == code for other in others):
        return f"the arguments differ from those of every earlier call of {name}"
    if others:
        return f"the function has changed, and the arguments differ from those of {others[0]['msg_id']}, its last call"
    return f"{name} was never called with cache=True before, or the records are purged"


def with_cache(store: TaskStore, explained: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation that also tells why a task was not answered from the store, if it might have been."""
    if record["cached_from"]:
        explained["details"]["cached_from"] = record["cached_from"]
    elif "cache" in (record["header"] or {}):
        explained["details"]["cache"] = why_it_ran(store, record)
        explained["reason"] += f". It was not answered from the database: {explained['details']['cache']}"
    return explained
