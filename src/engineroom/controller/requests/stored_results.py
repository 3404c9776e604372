"""Sends clients the results that they ask for: of tasks that have ended from the store, of others when they end.

A client may ask for many at a time, and a client with bad intent without end. So each has a queue, and the queues are
served in pieces: the tasks of a piece are looked up, then other work of the loop comes in between. Of each client one
piece is under way at a time.

A task that nobody knows may be on its way, if the client whose id it has is connected: it is looked for a second time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...core import Scheduler, events
from ...errors import StoreDamaged
from ...ids import ClientId, TaskId, client_of
from ...messages import Message, ResultsUnavailable
from ...records.entry import Entry
from ...stores import TaskStore
from ...stores.sqlite.beside import where_else
from ..error_info import error_info
from ..outbox import Outbox
from ..storage.pending import Scope
from ..storage.store_reader import Reader, readable_entries

#: Tasks of one piece: so many results are read from the store in one go.
PAGE = 500
#: Tasks in the queue of one client. A client that connects again asks for all the results it waits for.
MOST_WANTED = 1_000_000
#: How long a task that is not known may be on its way, in seconds.
LATE_SECONDS = 2.0

#: Tasks that are looked up together, and whether for the last time.
_Piece = tuple[Sequence[TaskId], bool]


class _Wanted:
    """The results that one client has asked for, and that have not been looked up."""

    __slots__ = ("pieces", "tasks")

    def __init__(self) -> None:
        self.pieces: deque[_Piece] = deque()
        self.tasks = 0


class StoredResults:
    """Reads results and sends them.

    `send` sends a message to a client that is here; `reader` is None where nothing is kept (NoDB). `forgotten` is what
    else to say of an unknown task. `url` is that of the store. `post` has the loop call a function in its next turn.
    `news_of` gives what a client has missed of a running task. `is_here` tells whether a client is connected.
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
        post: Callable[[Callable[[], None]], None],
        news_of: Callable[[TaskId], Iterable[Message]],
        is_here: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler, self._decide, self._outbox = scheduler, decide, outbox
        self._send, self._reader, self._forgotten = send, reader, forgotten
        self._url, self._post, self._news_of, self._is_here, self._clock = url, post, news_of, is_here, clock
        #: by client; those of which a piece is under way, too
        self._wanted: dict[ClientId, _Wanted] = {}
        #: (when to look for them again, who wants them, tasks that may be on their way)
        self._late: deque[tuple[float, ClientId, list[TaskId]]] = deque()
        self._late_tasks = 0

    def watch(self, client: ClientId, ids: Sequence[TaskId]) -> None:
        """A client waits for these tasks: send it their results, now or when they end."""
        self._add(client, ids, is_last=False)

    def look_again(self, now: float) -> None:
        """Look a second time for tasks that have not come in time. Those that are not found do not exist."""
        while self._late and self._late[0][0] <= now:
            _, client, ids = self._late.popleft()
            self._late_tasks -= len(ids)
            if self._is_here(client):
                self._add(client, ids, is_last=True)

    def client_left(self, client: ClientId) -> None:
        """Nobody waits for these results any more."""
        self._wanted.pop(client, None)

    def _add(self, client: ClientId, ids: Sequence[TaskId], *, is_last: bool) -> None:
        """Put tasks into the queue of a client; if nothing of it is under way, look up the first ones now."""
        wanted = self._wanted.get(client)
        is_idle = wanted is None
        if wanted is None:
            wanted = self._wanted[client] = _Wanted()
        elif wanted.tasks + len(ids) > MOST_WANTED:
            why = f"more than {MOST_WANTED:,} results are asked for at a time; ask for fewer, or again later"
            self._send(client, ResultsUnavailable(list(ids), why))
            return
        wanted.tasks += len(ids)
        wanted.pieces.extend((ids[start : start + PAGE], is_last) for start in range(0, len(ids), PAGE))
        if is_idle:
            self._go_on(client, wanted)

    def _go_on(self, client: ClientId, wanted: _Wanted) -> None:
        """No piece of a client is under way: look up the next one."""
        if self._wanted.get(client) is not wanted:
            return  # the client has left
        if not wanted.pieces:
            del self._wanted[client]
            return
        ids, is_last = wanted.pieces.popleft()
        wanted.tasks -= len(ids)

        def done() -> None:
            self._post(lambda: self._go_on(client, wanted))

        unknown = self._watch_known(client, ids)
        if not unknown:
            done()
        elif self._reader is None:
            why = self._forgotten or ": it has ended, and this controller keeps no records (NoDB)"
            self._are_gone(client, unknown, f"it is not here any more{why}", is_last=is_last)
            done()
        else:
            self._read(self._reader, client, unknown, done, is_last=is_last)

    def _watch_known(self, client: ClientId, ids: Sequence[TaskId]) -> list[TaskId]:
        """Have the core send the results of those that have not ended, when they do; returns the others."""
        unknown, known = [], []
        for id in ids:
            task = self._scheduler.task(id)
            if task is None:
                unknown.append(id)
                continue
            known.append(id)
            if client != task.client and client not in (task.watchers or ()):
                for news in self._news_of(id):  # what the client has not heard, because it comes later
                    self._send(client, news)
        if known:
            self._decide(events.TasksWatched(client, known))
        return unknown

    def _read(
        self,
        reader: Reader,
        client: ClientId,
        ids: list[TaskId],
        done: Callable[[], None],
        *,
        is_last: bool,
        again: bool = False,
    ) -> None:
        """Send what the store has, then call `done`. `again`: for the second time in this piece."""

        def work(store: TaskStore) -> tuple[dict[TaskId, Entry], dict[TaskId, str]]:
            return readable_entries(store, ids)

        def failed(error: Exception) -> None:
            info = error_info(error, "results could not be read")
            reason = f"its result cannot be read from the database now: {info.evalue}"
            self._send(client, ResultsUnavailable(ids, reason, info.ename))
            done()

        def send(found: tuple[dict[TaskId, Entry], dict[TaskId, str]]) -> None:
            pending = self._watch_known(client, self._send_found(client, ids, *found, is_last=is_last))
            if not pending:
                done()
            elif not again:  # they have ended in this very moment
                self._read(reader, client, pending, done, is_last=is_last, again=True)
            else:
                why = "its record says that it has not ended, but the controller does not have it: resubmit it"
                self._send(client, ResultsUnavailable(pending, why))
                done()

        reader.read(work, send, failed, after=Scope(tasks=frozenset(ids)))

    def _send_found(
        self,
        client: ClientId,
        ids: Sequence[TaskId],
        found: dict[TaskId, Entry],
        damaged: dict[TaskId, str],
        *,
        is_last: bool,
    ) -> list[TaskId]:
        """Send results, and say which cannot be had. Returns the tasks that have not ended."""
        gone, pending, light = [], [], []
        for id in ids:
            entry: Any = found.get(id)
            if id in damaged:
                self._send(client, ResultsUnavailable([id], damaged[id], StoreDamaged.__name__))
            elif entry is None:
                gone.append(id)
            elif entry.done is None:
                pending.append(id)
            elif entry.is_light:
                light.append(id)
            else:
                self._outbox.deliver(client, entry.done, entry.result_frames)
        if gone:
            limits = "`--retain`, `DictDB.size_limit`"
            why = self._forgotten or f": never submitted here, purged, or dropped by a limit ({limits})"
            if others := where_else(self._url):
                why += f". {others}"
            self._are_gone(client, gone, f"no such task{why}", is_last=is_last)
        if light:
            self._send(client, ResultsUnavailable(light, "its result is not kept any more (retention); its record is"))
        return pending

    def _are_gone(self, client: ClientId, ids: Sequence[TaskId], reason: str, *, is_last: bool) -> None:
        """Say that these tasks are not known, but for those that may be on their way."""
        gone: list[TaskId] = []
        late: list[TaskId] = []
        for id in ids:
            # A client asks for its own tasks behind their submission.
            may_come = not is_last and (owner := client_of(id)) != client and self._is_here(owner)
            (late if may_come else gone).append(id)
        if late and self._late_tasks + len(late) <= MOST_WANTED:
            self._late.append((self._clock() + LATE_SECONDS, client, late))
            self._late_tasks += len(late)
        else:
            gone += late
        if gone:
            self._send(client, ResultsUnavailable(gone, reason))
