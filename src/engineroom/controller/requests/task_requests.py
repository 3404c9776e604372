"""Requests about tasks that have not ended, and about engines: the core answers them, the store completes some."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ...core import Scheduler, events
from ...core.engines import Engine
from ...core.explain import explain
from ...ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ...messages import (
    Abort,
    Explain,
    QueueStatus,
    RecheckProperties,
    SignalEngines,
    StopController,
    StopEngines,
    Sync,
    TasksOnEngines,
)
from ...records.record import explain_ended
from ...stores import TaskStore
from ..lookups import Lookups
from ..result_cache import NOTHING_KEPT, with_cache

#: Tasks that are ended in one turn of the loop: some milliseconds.
PIECE = 2000
#: Completed tasks of an engine that are listed: the newest.
LISTED = 1000

#: Completes an answer from the store.
FromStore = Callable[[TaskStore], Any]


class TaskRequests:
    """The requests, each with its answer.

    `signal` has nannies signal engines, `stop` ends the controller with a reason. `memory` holds the bytes that each
    engine had last. `function_name` names the function of a digest. `forgotten` is what else to say of an unknown task.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        decide: Callable[[events.Event], None],
        lookups: Lookups,
        signal: Callable[[int, Sequence[EngineId]], None],
        stop: Callable[[str], None],
        clock: Callable[[], float],
        memory: Mapping[EngineUuid, int],
        function_name: Callable[[Digest], str | None],
        *,
        keeps: bool,
        forgotten: str,
    ) -> None:
        self._scheduler, self._decide, self._lookups = scheduler, decide, lookups
        self._signal, self._stop, self._clock = signal, stop, clock
        self._keeps, self._forgotten = keeps, forgotten
        self._memory, self._function_name = memory, function_name
        #: answered at once
        self.at_once: dict[type, Callable[[ClientId, Any], Any]] = {
            TasksOnEngines: self._held_tasks,
            RecheckProperties: self._look_again,
            StopEngines: self._stop_engines,
            StopController: self._stop_controller,
            SignalEngines: self._signal_engines,
            Sync: lambda client, body: None,
        }
        #: done in pieces, other work comes in between; what is returned at the end is the answer
        self.in_pieces: dict[type, Callable[[ClientId, Any], Generator[None, None, Any]]] = {Abort: self._abort}
        #: completed from the store, if what they return is a function
        self.with_store: dict[type, Callable[[Any], FromStore | dict[str, Any]]] = {
            Explain: self._explain,
            QueueStatus: self._queue_status,
        }

    # ------------------------------------------------------------------------------------------ tasks

    def _abort(self, client: ClientId, body: Abort) -> Generator[None, None, int]:
        scheduler = self._scheduler
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
            ids = [task.id for task in scheduler.tasks_of(client)] + self._lookups.of_client(client)
        self._lookups.abort(ids, body.running)
        # The last first: a task ends before those that it depends on.
        for end in range(len(ids), 0, -PIECE):
            self._decide(events.AbortRequested(ids[max(0, end - PIECE) : end], body.running))
            if end > PIECE:
                yield
        return len(ids)

    def _held_tasks(self, client: ClientId, body: TasksOnEngines) -> list[TaskId]:
        engines = self._scheduler.engines.values()
        return [task.id for engine in engines for task in engine.held.values() if task.client == client]

    def _look_again(self, client: ClientId, body: RecheckProperties) -> None:
        self._decide(events.PropertiesChanged(list(self._scheduler.engines)))

    def _explain(self, body: Explain) -> FromStore:
        now, scheduler, lookups = self._clock(), self._scheduler, self._lookups
        known = explain(scheduler, [id for id in body.tasks if id not in lookups], now)
        known |= {id: _looked_up(id) for id in body.tasks if id in lookups}
        asking = {  # of these it is told, too, why they were not answered from the store
            id
            for id in body.tasks
            if (task := scheduler.task(id)) and task.spec.options and task.spec.options.cache is not None
        }
        keeps, forgotten = self._keeps, self._forgotten

        def complete(store: TaskStore) -> list[dict[str, Any]]:
            rest = [id for id, found in known.items() if found is None or id in asking] if keeps else []
            found = store.find_records({"msg_id": {"$in": rest}}) if rest else []
            records = {record["msg_id"]: record for record in found}
            answers = []
            for id in body.tasks:
                record = records.get(id)
                answer = known[id] or _explain_record(id, record, forgotten)
                if id in asking and not keeps:
                    answer["details"]["cache"] = NOTHING_KEPT
                    answer["reason"] += f". It was not answered from the database: {NOTHING_KEPT}"
                answers.append(answer if record is None else with_cache(store, answer, record))
            return answers

        return complete

    # ------------------------------------------------------------------------------------------ engines and queues

    def _queue_status(self, body: QueueStatus) -> FromStore | dict[str, Any]:
        engines, now = self._scheduler.engines, self._clock()
        status: dict[str, Any] = {}
        uuids: dict[str, str] = {}
        for id in self._engines(body.targets):
            engine = engines[id]
            uuids[str(id)] = engine.uuid
            direct = [t.id for t in (*engine.held.values(), *engine.backlog) if t.is_direct]
            balanced = [t.id for t in engine.held.values() if not t.is_direct]
            status[str(id)] = {
                "queue": direct,
                "tasks": balanced,
                "completed": engine.completed,
                "running": self._running_on(engine),
                "memory": self._memory.get(engine.uuid),
                "host": engine.host,
                "pid": engine.pid,
                "silent": None if engine.silent_since is None else max(0.0, now - engine.silent_since),
            }
        if not body.verbose:
            for inner in status.values():
                inner |= {"queue": len(inner["queue"]), "tasks": len(inner["tasks"])}
            return {"engines": status, "unassigned": self._scheduler.queued_count()}
        unassigned = [task.id for task in self._scheduler.queued()]

        def complete(store: TaskStore) -> dict[str, Any]:
            for id, inner in status.items():
                ended = {"engine_uuid": uuids[id], "completed": {"$ne": None}}
                found = store.find_records(ended, ["msg_id"], sort=[("submitted", -1)], limit=LISTED)
                inner["completed"] = [record["msg_id"] for record in reversed(found)]
            return {"engines": status, "unassigned": unassigned}

        return complete

    def _running_on(self, engine: Engine) -> dict[str, Any] | None:
        """What an engine is known to run."""
        task = next((task for task in engine.held.values() if task.started is not None), None)
        if task is None:
            return None
        spec = task.spec
        return {
            "msg_id": task.id,
            "label": spec.options.label if spec.options else None,
            "function": self._function_name(spec.function) if spec.function else None,
            "code": spec.payload.decode(errors="replace")[:200] if spec.kind == "execute" else None,
            "started": task.started,
            "attempt": task.attempt,
        }

    def _stop_engines(self, client: ClientId, body: StopEngines) -> list[EngineId]:
        engines = self._engines(body.targets)
        self._decide(events.EnginesStopped(engines, body.restart))
        return engines

    def _stop_controller(self, client: ClientId, body: StopController) -> None:
        self._stop(f"the cluster was stopped by client {client}")

    def _signal_engines(self, client: ClientId, body: SignalEngines) -> list[EngineId]:
        engines = self._engines(body.targets)
        self._signal(body.signal, engines)
        return engines

    def _engines(self, targets: Sequence[EngineId] | None) -> list[EngineId]:
        known = self._scheduler.engines
        if targets is None:
            return list(known)
        for id in targets:
            if id not in known:
                raise IndexError(f"there is no engine {id}")
        return list(targets)


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


def _looked_up(id: TaskId) -> dict[str, Any]:
    reason = "it is being looked up in the database whether an equal call has succeeded before"
    return {"msg_id": id, "state": "queued", "reason": reason, "details": {}}
