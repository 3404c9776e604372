"""Sends clients the results of tasks that have ended, from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...core import Scheduler, events
from ...ids import ClientId, TaskId
from ...messages import Message, ResultsUnavailable
from ...records.entry import Entry
from ...stores import TaskStore
from ...stores.sqlite.beside import where_else
from ..error_info import error_info
from ..outbox import Outbox
from ..storage.pending import Scope
from ..storage.store_reader import Reader, readable_entries

#: Results read from the store in one go.
PAGE = 500


class StoredResults:
    """Reads results and sends them.

    `send` sends a message to a client that is here; `reader` is None where nothing is kept (NoDB). `forgotten` is what
    else to say of an unknown task. `url` is that of the store.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        decide: Callable[[events.Event], None],
        outbox: Outbox,
        send: Callable[[ClientId, Message], None],
        reader: Reader | None,
        forgotten: str,
        url: str,
    ) -> None:
        self._scheduler, self._decide, self._outbox = scheduler, decide, outbox
        self._send, self._reader, self._forgotten = send, reader, forgotten
        self._url = url

    def watch(self, client: ClientId, ids: Sequence[TaskId]) -> None:
        """A client waits for these tasks: send it their results, now or when they end."""
        unknown = [id for id in ids if self._scheduler.task(id) is None]
        self._decide(events.TasksWatched(client, ids))
        if unknown:
            self.send(client, unknown)

    def send(self, client: ClientId, ids: Sequence[TaskId]) -> None:
        """Send results from the store, and say which cannot be had."""
        if self._reader is None:
            why = self._forgotten or ": it has ended, and this controller keeps no records (NoDB)"
            self._send(client, ResultsUnavailable(list(ids), f"it is not here any more{why}"))
            return
        for start in range(0, len(ids), PAGE):
            self._read(self._reader, client, list(ids[start : start + PAGE]))

    def _read(self, reader: Reader, client: ClientId, ids: list[TaskId], *, again: bool = False) -> None:
        """`again`: the store had these tasks as unfinished a moment ago, and the core did not know them."""

        def work(store: TaskStore) -> tuple[dict[TaskId, Entry], dict[TaskId, str]]:
            return readable_entries(store, ids)

        def failed(error: Exception) -> None:
            info = error_info(error, "results could not be read")
            reason = f"its result cannot be read from the database now: {info.evalue}"
            self._send(client, ResultsUnavailable(ids, reason))

        def then(read: tuple[dict[TaskId, Entry], dict[TaskId, str]]) -> None:
            self._found(reader, client, ids, *read, again)

        reader.read(work, then, failed, after=Scope(client, ids))

    def _found(
        self,
        reader: Reader,
        client: ClientId,
        ids: list[TaskId],
        found: dict[TaskId, Entry],
        damaged: dict[TaskId, str],
        again: bool,
    ) -> None:
        gone, unfinished, light = [], [], []
        for id in ids:
            entry: Any = found.get(id)
            if id in damaged:
                self._send(client, ResultsUnavailable([id], damaged[id]))
            elif entry is None:
                gone.append(id)
            elif entry.done is None:
                unfinished.append(id)
            elif entry.is_light:
                light.append(id)
            else:
                self._outbox.deliver(client, entry.done, entry.result_frames)
        if gone:
            why = self._forgotten or ": never submitted here, or purged"
            if others := where_else(self._url):
                why += f". {others}"
            self._send(client, ResultsUnavailable(gone, f"no such task{why}"))
        if light:
            self._send(client, ResultsUnavailable(light, "its result is not kept any more (retention); its record is"))
        if queued := [id for id in unfinished if self._scheduler.task(id) is not None]:
            self.watch(client, queued)
        lost = [id for id in unfinished if self._scheduler.task(id) is None]
        if lost and not again:  # they may have ended in this very moment
            self._read(reader, client, lost, again=True)
        elif lost:
            why = "its record says that it has not ended, but the controller does not have it: resubmit it"
            self._send(client, ResultsUnavailable(lost, why))
