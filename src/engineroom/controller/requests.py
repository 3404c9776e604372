"""Answers clients' questions: from the store in threads of their own, from the core in the controller's.

A question about records is answered after everything that happened before it is committed, so that a client
reads what it wrote.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from ..core import events
from ..core.dependencies import TaskOutcome
from ..core.explain import explain
from ..errors import EngineroomError, PendingTask, StoreError, UnknownTask
from ..ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ..messages import (
    Abort,
    CountRecords,
    DistinctValues,
    ErrorInfo,
    Explain,
    FindRecords,
    GetEnvironment,
    GetFunction,
    GroupRecords,
    History,
    PageRecords,
    Pin,
    Purge,
    QueueStatus,
    RecheckProperties,
    Reply,
    Request,
    Resubmit,
    ResultStatus,
    ResultsUnavailable,
    SignalEngines,
    StopController,
    StopEngines,
    TaskOptions,
    TasksOnEngines,
    TaskSpec,
)
from ..records.record import PENDING, Entry, explain_ended
from ..stores import TaskStore
from .result_cache import NOTHING_KEPT, with_cache
from .store_reader import readable_entries

if TYPE_CHECKING:
    from .loop import Controller
    from .peers import Peer

log = logging.getLogger(__name__)

#: Records fetched from the store in one go, where there may be many.
PAGE = 500
#: How long a task that a client has named as a dependency may be on its way.
LATE_SECONDS = 2.0


class Hub:
    """The questions, each with its answer."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="query")
        #: tasks that may still come, and until when
        self._late: deque[tuple[float, list[TaskId]]] = deque()
        self._from_store: dict[type, Callable[[Any], Any]] = {
            FindRecords: self._find_records,
            CountRecords: lambda body: self._store.count(body.query),
            PageRecords: lambda body: self._store.page(body.query, body.keys, after=body.after, limit=body.limit),
            DistinctValues: lambda body: self._store.distinct(body.key, body.query),
            GroupRecords: lambda body: self._store.group_by(
                body.key, body.query, values=body.values, percentiles=body.percentiles
            ),
            History: lambda body: self._store.get_history(),
            ResultStatus: self._result_status,
            GetFunction: self._get_function,
            GetEnvironment: lambda body: msgspec.json.decode(self._store.get_environment(body.digest)),
        }
        self._at_once: dict[type, Callable[[Peer, Any], Any]] = {
            Abort: self._abort,
            TasksOnEngines: self._held_tasks,
            RecheckProperties: self._look_again,
            StopEngines: self._stop_engines,
            StopController: self._stop_controller,
            SignalEngines: self._signal_engines,
        }

    @property
    def _store(self) -> TaskStore:
        return self._controller.store

    def close(self) -> None:
        """Let the queries under way end."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def answer(self, peer: Peer, request: Request) -> None:
        """Answer a question, now or later: not before the tasks that came before it are taken in."""
        if self._controller.arriving.defers(peer, request):
            return
        self._controller.performer.record()  # what happened before the question is in the answer
        body, number = request.body, request.number
        kind = type(body)
        if kind in self._from_store:
            self._later(peer, number, lambda: self._from_store[kind](body))
        elif isinstance(body, QueueStatus):
            self._queue_status(peer, number, body)
        elif isinstance(body, Resubmit):
            self._resubmit(peer, number, body)
        elif isinstance(body, Purge):
            self._purge(peer, number, body)
        elif isinstance(body, Pin):
            self._pin(peer, number, body)
        elif isinstance(body, Explain):
            self._explain(peer, number, body)
        else:
            self._reply(peer, number, lambda: self._at_once[kind](peer, body))

    # ------------------------------------------------------------------------------------------ ways to answer

    def _reply(self, peer: Peer, number: int, work: Callable[[], Any]) -> None:
        try:
            reply = Reply(number, work())
        except Exception as error:
            reply = Reply(number, error=_described(error))
        self._controller.peers.send(peer, reply)

    def _later(self, peer: Peer, number: int, work: Callable[[], Any]) -> None:
        """Answer from a thread, once all that has happened is committed."""

        def run() -> Any:
            if self._store.keeps:
                self._controller.writer.flush()
            return work()

        self._when_done(peer, number, self._threads.submit(run))

    def _when_done(self, peer: Peer, number: int, future: Future[Any]) -> None:
        future.add_done_callback(
            lambda done: (
                self._controller.post(lambda: self._reply(peer, number, done.result)) if not done.cancelled() else None
            )
        )

    def in_thread(self, work: Callable[[], None], failed: Callable[[], None] | None = None) -> None:
        """Work with the store in a thread, once all that has happened is committed. If it fails, `failed` is posted."""
        self._controller.performer.record()

        def run() -> None:
            try:
                self._controller.writer.flush()
                work()
            except Exception:
                log.exception("a bug, or the store failed, in a query thread")
                if failed is not None:
                    self._controller.post(failed)

        self._threads.submit(run)

    # ------------------------------------------------------------------------------------------ records

    def _find_records(self, body: FindRecords) -> list[Any]:
        return self._store.find_records(body.query, body.keys, sort=body.sort, limit=body.limit, skip=body.skip)

    def _result_status(self, body: ResultStatus) -> dict[str, list[TaskId]]:
        ids = list(dict.fromkeys(body.tasks))
        found = self._store.find_records({"msg_id": {"$in": ids}}, ["msg_id", "completed"])
        known = {record["msg_id"]: record["completed"] is not None for record in found}
        for id in ids:
            if id not in known:
                raise UnknownTask(f"no such task: {id}{self._forgotten()}")
        return {"pending": [id for id in ids if not known[id]], "completed": [id for id in ids if known[id]]}

    def _get_function(self, body: GetFunction) -> dict[str, Any]:
        found = self._store.get_function(Digest(bytes.fromhex(body.digest)))
        return {"name": found.name, "source": found.source, "payload": found.payload}

    def _forgotten(self) -> str:
        """What else is to be said of an unknown task: that a restart of the controller has cost all there was."""
        began = self._controller.restarted
        if began is None or self._store.durable:
            return ""
        return (
            f". The controller was restarted at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began))}, and its "
            f"database ({self._store.url}) kept nothing across that: what was submitted before is lost. Submit it "
            "again; in SQLite, the default database, tasks outlive a restart"
        )

    def send_stored(self, peer: Peer, ids: Sequence[TaskId]) -> None:
        """Send results from the store; tell which cannot be had."""
        if not self._store.keeps:
            why = self._forgotten() or ": it has ended, and this controller keeps no records (NoDB)"
            self._controller.peers.send(peer, ResultsUnavailable(list(ids), f"it is not here any more{why}"))
            return

        def fetch() -> None:
            for start in range(0, len(ids), PAGE):
                page = list(ids[start : start + PAGE])
                found, damaged = readable_entries(self._store, page)
                self._controller.post(functools.partial(self._send_found, peer, page, found, damaged))

        self.in_thread(fetch)

    def _send_found(
        self, peer: Peer, ids: list[TaskId], found: dict[TaskId, Entry], damaged: dict[TaskId, str]
    ) -> None:
        gone, again, light = [], [], []
        for id in ids:
            entry = found.get(id)
            if id in damaged:
                self._controller.peers.send(peer, ResultsUnavailable([id], damaged[id]))
            elif entry is None:
                gone.append(id)
            elif entry.done is not None and entry.is_light:
                light.append(id)
            elif entry.done is not None:
                self._controller.performer.deliver(peer, entry.done, entry.result_frames)
            else:
                again.append(id)
        if gone:
            why = self._forgotten() or ": never submitted here, or purged"
            self._controller.peers.send(peer, ResultsUnavailable(gone, f"no such task{why}"))
        if light:
            reason = "its result is not kept any more (retention); its record is"
            self._controller.peers.send(peer, ResultsUnavailable(light, reason))
        for id in again:  # it is pending in the store: queued, or it has ended in this very moment
            if self._controller.scheduler.task(id) is not None:
                self._controller.decide(events.TasksWatched(ClientId(peer.uuid), [id]))
            else:
                self.send_stored(peer, [id])

    def _purge(self, peer: Peer, number: int, body: Purge) -> None:
        def purge(store: TaskStore) -> int:
            finished = {"completed": {"$ne": None}}
            if body.everything:
                return store.drop_matching_records(finished)
            dropped = 0
            if body.query is not None:
                store.count(body.query)  # an error in it is named as the user wrote it
                dropped += store.drop_matching_records({"$and": [body.query, finished]})
            if body.tasks is not None:
                found = {
                    r["msg_id"]: r for r in store.find_records({"msg_id": {"$in": body.tasks}}, ["msg_id", "completed"])
                }
                for id in body.tasks:
                    if id not in found:
                        raise UnknownTask(f"no such task: {id}; nothing was purged{self._forgotten()}")
                    if found[id]["completed"] is None:
                        raise PendingTask(f"task {id} has not finished, so it cannot be purged; nothing was purged")
                dropped += store.drop_matching_records({"msg_id": {"$in": body.tasks}})
            if body.engines is not None:
                dropped += store.drop_matching_records({"engine_id": {"$in": list(body.engines)}, **finished})
            return dropped

        def purge_and_shrink(store: TaskStore) -> int:
            try:
                return purge(store)
            finally:
                self._controller.writer.housekeeping.shrink()

        self._when_done(peer, number, self._controller.writer.call(purge_and_shrink))

    def _pin(self, peer: Peer, number: int, body: Pin) -> None:
        def pin(store: TaskStore) -> int:
            query = {"msg_id": {"$in": body.tasks}} if body.tasks is not None else body.query or {}
            if body.tasks is not None and store.count(query) < len(set(body.tasks)):
                known = {record["msg_id"] for record in store.find_records(query, "msg_id")}
                unknown = next(id for id in body.tasks if id not in known)
                raise UnknownTask(f"no such task: {unknown}; nothing was changed{self._forgotten()}")
            changed, page = 0, store.page(query, "msg_id", limit=PAGE)
            while page.records:
                changed += store.pin([record["msg_id"] for record in page.records], body.pinned)
                if page.next is None:
                    break
                page = store.page(query, "msg_id", after=page.next, limit=PAGE)
            self._controller.writer.housekeeping.look_anew()
            return changed

        self._when_done(peer, number, self._controller.writer.call(pin))

    def _resubmit(self, peer: Peer, number: int, body: Resubmit) -> None:
        """Copy finished tasks under new ids, then queue them like any others."""

        refused = self._controller.refusal()
        if refused is not None:
            error = refused  # it is unbound where its handler ends
            self._reply(peer, number, lambda: _raise(error))
            return

        def look(store: TaskStore) -> dict[TaskId, Entry]:
            if store.entries(body.new):
                return {}  # the question was asked before, and its answer lost on the way
            found = store.entries(body.tasks)
            for id in body.tasks:
                entry = found.get(id)
                if entry is None:
                    raise UnknownTask(f"no such task: {id}; nothing was resubmitted{self._forgotten()}")
                if not entry.spec.payload and not entry.frames:
                    raise StoreError(
                        f"the arguments of task {id} are not kept any more (retention), so it cannot be resubmitted; "
                        "nothing was resubmitted"
                    )
                if entry.done is None:
                    raise PendingTask(
                        f"task {id} has not finished, so it cannot be resubmitted; nothing was resubmitted"
                    )
            return found

        def queue(future: Future[dict[TaskId, Entry]]) -> None:
            if future.exception() is not None:
                self._reply(peer, number, future.result)
                return
            found = future.result()
            if not found:
                self._reply(peer, number, lambda: body.new)
                self.send_stored(peer, body.new)  # they may have ended while the client was away
                return
            now, specs, beside = time.time(), [], {}
            for old, new in zip(body.tasks, body.new, strict=True):
                entry = found[old]
                spec = entry.spec
                options = spec.options
                if body.changes is not None:
                    changes = {k: v for k, v in msgspec.structs.asdict(body.changes).items() if v is not None}
                    options = msgspec.structs.replace(options or TaskOptions(), **changes)
                specs.append(TaskSpec(new, spec.function, spec.payload, now, EngineId(-1), (), options, spec.kind))
                if entry.frames:
                    beside[new] = entry.frames
                self._controller.library.get(spec.function)
            self._controller.decide(events.TasksSubmitted(ClientId(peer.uuid), specs, beside))
            self._controller.performer.record()
            # The client cannot send these again: it is answered once they are recorded.
            self._controller.writer.call(mark).add_done_callback(
                lambda _: self._controller.post(lambda: self._reply(peer, number, lambda: body.new))
            )

        def mark(store: TaskStore) -> None:
            for old, new in zip(body.tasks, body.new, strict=True):
                store.update_record(old, {"resubmitted": new})

        self._controller.writer.call(look).add_done_callback(
            lambda future: self._controller.post(lambda: queue(future))
        )

    # ------------------------------------------------------------------------------------------ dependencies

    def find_outcomes(self, ids: Sequence[TaskId], *, again: bool = False) -> None:
        """Tell the core how tasks ended that it does not know, and fetch the results that others wait for.

        `again`: what is not known now will not come.
        """
        if not self._store.keeps:
            self._controller.post(lambda: self._found({id: self._recent(id) for id in ids}, again=again))
            return
        wanted = {id for id in ids if self._controller.scheduler.wants(id)}

        def look() -> None:
            found: dict[TaskId, TaskOutcome | None] = dict.fromkeys(ids)
            values: dict[TaskId, Entry] = {}
            for start in range(0, len(ids), PAGE):
                page = list(ids[start : start + PAGE])
                values |= readable_entries(self._store, [id for id in page if id in wanted])[0]
                for record in self._store.find_records({"msg_id": {"$in": page}}, _OUTCOME_KEYS):
                    found[record["msg_id"]] = _outcome(record)
            self._controller.post(lambda: self._found(found, values, again=again))

        self.in_thread(look)

    def _found(
        self,
        outcomes: dict[TaskId, TaskOutcome | None],
        values: Mapping[TaskId, Entry] = MappingProxyType({}),
        *,
        again: bool = False,
    ) -> None:
        controller = self._controller
        for id, entry in values.items():
            if entry.done is not None and not entry.is_light and controller.scheduler.wants(id):
                controller.values.keep(id, entry.done.payload, entry.result_frames, stored=True)
        # What a client that is here has made but we do not know may still be on its way: a message got lost.
        known = controller.scheduler.tasks
        late = [
            id
            for id, outcome in outcomes.items()
            if outcome is None and (id in known or (not again and id[:16] in controller.peers.by_uuid))
        ]
        for id in late:
            del outcomes[id]
        if late and not again:
            self._late.append((time.monotonic() + LATE_SECONDS, late))
        controller.decide(events.OutcomesFound(outcomes))

    def sweep(self, now: float) -> None:
        """Look again for tasks that have not come."""
        while self._late and self._late[0][0] <= time.monotonic():
            known = self._controller.scheduler.tasks
            missing = [id for id in self._late.popleft()[1] if id not in known]
            if missing:
                self.find_outcomes(missing, again=True)

    def _recent(self, id: TaskId) -> TaskOutcome | None:
        """Without a store: what is remembered of a task."""
        controller = self._controller
        outcome, raw = controller.scheduler.outcome(id), controller.values.recent(id)
        if raw is not None and controller.scheduler.wants(id):
            controller.values.keep(id, *raw)
        return outcome if outcome is None or not outcome.ok or raw is not None else None

    def _explain(self, peer: Peer, number: int, body: Explain) -> None:
        now = time.time()
        scheduler, cache = self._controller.scheduler, self._controller.cache
        known = {id: _looked_up(id) if id in cache else explain(scheduler, id, now) for id in body.tasks}
        asking = {  # of these it is told, too, why they were not answered from the store
            id for id in body.tasks
            if (task := scheduler.tasks.get(id)) and task.spec.options and task.spec.options.cache is not None
        }  # fmt: skip

        def look() -> list[dict[str, Any]]:
            rest = [id for id, found in known.items() if found is None or id in asking]
            if not self._store.keeps:
                rest = [id for id in rest if id not in asking]
            found = self._store.find_records({"msg_id": {"$in": rest}}) if rest and self._store.keeps else []
            records = {record["msg_id"]: record for record in found}
            answers = []
            for id in body.tasks:
                record = records.get(id)
                answer = known[id] or _explain_record(id, record, self._forgotten())
                if id in asking and not self._store.keeps:
                    answer["details"]["cache"] = NOTHING_KEPT
                    answer["reason"] += f". It was not answered from the database: {NOTHING_KEPT}"
                answers.append(answer if record is None else with_cache(self._store, answer, record))
            return answers

        self._later(peer, number, look)

    # ------------------------------------------------------------------------------------------ engines and queues

    def _queue_status(self, peer: Peer, number: int, body: QueueStatus) -> None:
        engines = self._controller.scheduler.engines
        targets = list(engines) if body.targets is None else body.targets
        status: dict[str, Any] = {}
        for id in targets:
            engine = engines.get(id)
            if engine is None:
                self._reply(peer, number, functools.partial(_no_engine, id))
                return
            direct = [t.id for t in (*engine.held.values(), *engine.backlog) if t.is_direct]
            balanced = [t.id for t in engine.held.values() if not t.is_direct]
            status[str(id)] = {"queue": direct, "tasks": balanced, "completed": engine.completed, "uuid": engine.uuid}
        unassigned = [task.id for task in self._controller.scheduler.queued()]
        if not body.verbose:
            for inner in status.values():
                inner |= {"queue": len(inner["queue"]), "tasks": len(inner["tasks"])}
                del inner["uuid"]
            self._reply(peer, number, lambda: {"engines": status, "unassigned": len(unassigned)})
            return

        def with_completed() -> dict[str, Any]:
            for inner in status.values():
                found = self._store.find_records(
                    {"engine_uuid": inner.pop("uuid"), "state": {"$ne": PENDING}}, ["msg_id"]
                )
                inner["completed"] = [record["msg_id"] for record in found]
            return {"engines": status, "unassigned": unassigned}

        self._later(peer, number, with_completed)

    def _held_tasks(self, peer: Peer, body: TasksOnEngines) -> list[TaskId]:
        engines = self._controller.scheduler.engines.values()
        return [task.id for engine in engines for task in engine.held.values() if task.client == peer.uuid]

    def _look_again(self, peer: Peer, body: RecheckProperties) -> None:
        self._controller.decide(events.PropertiesChanged(list(self._controller.scheduler.engines)))

    def _abort(self, peer: Peer, body: Abort) -> int:
        scheduler = self._controller.scheduler
        if body.tasks is not None:
            ids: Sequence[TaskId] = body.tasks
        elif body.engines is not None:
            ids = [
                task.id
                for id in body.engines
                if (e := scheduler.engines.get(id)) is not None
                for task in (*e.held.values(), *e.backlog)
            ]
        else:
            ids = [task.id for task in scheduler.tasks_of(ClientId(peer.uuid))]
            ids += self._controller.cache.of_client(peer.uuid)
        self._controller.cache.abort(ids, body.running)
        self._controller.decide(events.AbortRequested(ids, body.running))
        return len(ids)

    def _stop_engines(self, peer: Peer, body: StopEngines) -> list[EngineId]:
        engines = self._engines(body.targets)
        self._controller.decide(events.EnginesStopped(engines))
        return engines

    def _stop_controller(self, peer: Peer, body: StopController) -> None:
        self._controller.stop(f"the cluster was stopped by client {peer.uuid}")

    def _signal_engines(self, peer: Peer, body: SignalEngines) -> list[EngineId]:
        engines = self._engines(body.targets)
        self._controller.performer.signal_engines(body.signal, engines)
        return engines

    def _engines(self, targets: Sequence[EngineId] | None) -> list[EngineId]:
        known = self._controller.scheduler.engines
        if targets is None:
            return list(known)
        for id in targets:
            if id not in known:
                _no_engine(id)
        return list(targets)


#: What a record must tell for others to depend on its task.
_OUTCOME_KEYS = ["state", "engine_uuid", "queue", "result_content"]


def _outcome(record: Mapping[str, Any]) -> TaskOutcome | None:
    """How a recorded task ended; None if it has not."""
    id, direct, uuid = record["msg_id"], record["queue"] == "mux", record["engine_uuid"]
    engine = None if uuid is None else EngineUuid(uuid)
    match record["state"]:
        case "completed":
            return TaskOutcome(True, engine, direct)
        case "failed":
            content = record["result_content"] or {}
            cause = f"failed: {content.get('ename')}: {str(content.get('evalue'))[:200]}"
        case "aborted":
            cause = "was aborted"
        case _:
            return None
    return TaskOutcome(False, engine, direct, cause, (id,), 1)


def _explain_record(id: TaskId, record: Mapping[str, Any] | None, forgotten: str) -> dict[str, Any]:
    """The answer for a task that is not in the core."""
    if record is None:
        return {
            "msg_id": id,
            "state": "unknown",
            "reason": f"there is no such task{forgotten or ': never submitted here, purged, or not kept'}",
            "details": {},
        }
    if record["completed"] is None:  # it ended in this very moment
        return {"msg_id": id, "state": "ended", "reason": "it is about to be recorded", "details": {}}
    return explain_ended(record)


def _raise(error: Exception) -> Any:
    raise error


def _looked_up(id: TaskId) -> dict[str, Any]:
    reason = "it is being looked up in the database whether an equal call has succeeded before"
    return {"msg_id": id, "state": "queued", "reason": reason, "details": {}}


def _no_engine(id: EngineId) -> None:
    raise IndexError(f"there is no engine {id}")


def _described(error: Exception) -> ErrorInfo:
    if not isinstance(error, EngineroomError | IndexError | KeyError | msgspec.ValidationError):
        log.error("a bug: a question could not be answered", exc_info=error)
    text = error.args[0] if type(error) is KeyError and error.args else error  # a KeyError shows the repr of its text
    return ErrorInfo(type(error).__name__, str(text))
