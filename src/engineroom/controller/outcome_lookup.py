"""Finds out how tasks ended that the core does not know, because tasks that it knows depend on them.

Results that such tasks take as arguments are read at the same time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

from ..core import Scheduler, actions, events
from ..core.dependencies import TaskOutcome
from ..ids import EngineUuid, TaskId, client_of
from ..records.entry import Entry
from ..stores import TaskStore
from .decisions import not_found
from .error_info import error_info
from .storage.pending import Scope
from .storage.store_reader import Reader, ok_value, readable_entries
from .supplies.input_values import InputValues

#: Records read from the store in one go, where there may be many.
PAGE = 500
#: How long to wait for a dependency whose submission has not arrived, in seconds.
LATE_SECONDS = 2.0

Found = tuple[dict[TaskId, TaskOutcome | None], dict[TaskId, Entry]]


class OutcomeLookup:
    """Answers `FindOutcomes`.

    `is_here` tells whether a client is connected. `reader` is None where nothing is kept (NoDB).
    """

    def __init__(
        self,
        scheduler: Scheduler,
        decide: Callable[[events.Event], None],
        values: InputValues,
        reader: Reader | None,
        is_here: Callable[[str], bool],
        post: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler, self._decide, self._values = scheduler, decide, values
        self._reader, self._is_here, self._post, self._clock = reader, is_here, post, clock
        #: a heap: when to look again for tasks that may still come
        self._late: list[tuple[float, list[TaskId]]] = []

    def find(self, action: actions.FindOutcomes) -> None:
        """Look up how these ended."""
        self._look(list(action.tasks), again=False)

    @property
    def due(self) -> float | None:
        """When to call `look_again`; None: not needed."""
        return self._late[0][0] if self._late else None

    def look_again(self, now: float) -> None:
        """Look a second time for tasks that have not come in time. Those that are not found do not exist."""
        while self._late and self._late[0][0] <= now:
            missing = [id for id in heapq.heappop(self._late)[1] if self._scheduler.task(id) is None]
            if missing:
                self._look(missing, again=True)

    def _look(self, ids: list[TaskId], *, again: bool) -> None:
        if self._reader is None:
            self._post(lambda: self._found(({id: self._recent(id) for id in ids}, {}), again=again))
            return
        wanted = {id for id in ids if self._scheduler.wants(id)}

        def look(store: TaskStore) -> Found:
            found: dict[TaskId, TaskOutcome | None] = dict.fromkeys(ids)
            values: dict[TaskId, Entry] = {}
            for start in range(0, len(ids), PAGE):
                page = ids[start : start + PAGE]
                values |= readable_entries(store, [id for id in page if id in wanted])[0]
                for record in store.find_records({"msg_id": {"$in": page}}, _OUTCOME_KEYS):
                    found[record["msg_id"]] = _outcome(record)
            return found, values

        def failed(error: Exception) -> None:
            self._decide(not_found(ids, error_info(error, "outcomes could not be looked up")))

        self._reader.read(look, lambda found: self._found(found, again=again), failed, after=Scope(tasks=ids))

    def _found(self, found: Found, *, again: bool) -> None:
        outcomes, entries = found
        for id, entry in entries.items():
            value = ok_value(entry)
            if value is not None and self._scheduler.wants(id):
                self._values.keep(id, *value, recorded=True)
        # A task that the store does not have may be on its way, if its client is here: a message can get lost. After a
        # restart its client may come back, and say it again.
        awaited_until = self._scheduler.clients_awaited_until

        def may_come(id: TaskId) -> bool:
            if self._scheduler.task(id) is not None:
                return True
            return not again and (awaited_until is not None or self._is_here(client_of(id)))

        late = [id for id, outcome in outcomes.items() if outcome is None and may_come(id)]
        for id in late:
            del outcomes[id]
        if late and not again:
            heapq.heappush(self._late, (max(self._clock() + LATE_SECONDS, awaited_until or 0.0), late))
        self._decide(events.OutcomesFound(outcomes))

    def _recent(self, id: TaskId) -> TaskOutcome | None:
        """Without a store: what is remembered of a task."""
        outcome, raw = self._scheduler.outcome(id), self._values.recent(id)
        if raw is not None and self._scheduler.wants(id):
            self._values.keep(id, *raw)
        return outcome if outcome is None or not outcome.ok or raw is not None else None


#: The keys of a record from which its outcome is made.
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


