"""Answers calls from the store, where equal ones have succeeded before.

The tasks of a Submit that may be are looked up together, in a query thread, before the core hears of them. Those that
are found end at once, as new records that name the old; the others are queued as any. Equal tasks that are submitted
at the same time each run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core import events
from ..ids import ClientId, EngineUuid, TaskId
from ..messages import CacheKey, Submit, TaskDone, TaskSpec
from ..records.entry import Entry
from ..records.states import COMPLETED, FAILED
from ..stores import TaskStore
from ..wire.frames import pick
from .store_reader import readable_entries

if TYPE_CHECKING:
    from .loop import Controller
    from .peers import Peer

#: Digests looked up with one question: so few that SQLite uses the index on them.
TOGETHER = 400
#: Of tasks with the same arguments, how many are looked at to explain why none could be used.
LOOKED_AT = 100

NOTHING_KEPT = "this controller keeps no task records (NoDB)"


class ResultCache:
    """The lookups under way."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        #: tasks that are being looked up: whether they have been aborted meanwhile
        self._under_way: dict[TaskId, bool | None] = {}

    def __contains__(self, id: TaskId) -> bool:
        return id in self._under_way

    def look_up(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        """Answer those of these tasks that can be, and queue the rest."""
        controller = self._controller
        known = controller.scheduler.tasks
        keys = {s.id: key for s in message.tasks if (key := key_of(s)) is not None and s.id not in known}
        if not controller.store.keeps or not keys:
            controller.queue(peer, message, frames)
            return
        for spec in message.tasks:
            self._under_way.setdefault(spec.id, None)
        look_up = controller.arriving.begin(peer, known=True)

        def look() -> None:
            found = equal_tasks(controller.store, set(keys.values()))
            controller.post(lambda: answer(found))

        def answer(found: Mapping[CacheKey, Entry]) -> None:
            self._answer(peer, message, frames, keys, found)
            controller.arriving.end(look_up)

        # A store that fails answers nothing: they run.
        controller.hub.in_thread(look, lambda: answer({}))

    def abort(self, ids: Sequence[TaskId], running: bool) -> None:
        """These are to be ended: so are those of them that are being looked up, once that is over."""
        for id in ids:
            if id in self._under_way:
                self._under_way[id] = running

    def of_client(self, client: str) -> list[TaskId]:
        """The tasks of a client that are being looked up."""
        return [id for id in self._under_way if id.rpartition("-")[0] == client]

    def _answer(
        self,
        peer: Peer,
        message: Submit,
        frames: Sequence[Any],
        keys: Mapping[TaskId, CacheKey],
        found: Mapping[CacheKey, Entry],
    ) -> None:
        self._controller.keep_functions(message)
        now, answers, rest = time.time(), [], []
        aborted: dict[bool, list[TaskId]] = {False: [], True: []}
        for spec in message.tasks:
            running = self._under_way.pop(spec.id, None)
            if running is not None:
                aborted[running].append(spec.id)
            entry = found.get(keys[spec.id]) if spec.id in keys and running is None else None
            if entry is None:
                rest.append(spec)
            else:
                answers.append(_answer(spec, pick(spec, frames) if spec.frames else (), entry, now))
        if answers:
            self._controller.decide(events.TasksAnswered(ClientId(peer.uuid), answers))
        message.tasks = rest
        self._controller.queue(peer, message, frames)
        for running, ids in aborted.items():
            if ids:
                self._controller.decide(events.AbortRequested(ids, running))


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


def _answer(spec: TaskSpec, frames: Sequence[Any], entry: Entry, now: float) -> events.Answer:
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
