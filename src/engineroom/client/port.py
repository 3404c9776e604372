"""What views and results use of a client: its channel, its engines, and which of its tasks are direct ones.

`Client` makes one port. Views submit through it; results know the few methods of it that `results/port.py` lists.
"""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from ..config import MAX_TASK_BYTES, ConnectionInfo
from ..errors import MessageTooLarge
from ..ids import ClientId, EngineId, TaskId
from ..messages import Abort, EngineInfo, pieces
from ..wire import frames as wire
from ..wire.payload import Keep, as_copy, as_is, shared
from .connection.channel import Channel
from .connection.history import History, Marks
from .connection.requests import total
from .connection.waiters import Growing
from .engines import Engines


class ClientPort:
    """The connection of a client, as its views and results see it.

    Attributes
    ----------
    channel : Channel
        Submits, watches, asks.
    engines : Engines
    history : History
        msg_ids of all tasks that this client has submitted, through any view, in order.
    direct : Marks
        The tasks that direct views have submitted: load-balanced tasks cannot depend on these.
    record_arguments : bool
        Whether tasks carry their arguments as a short text, for records and errors.
    on_interrupt : {"leave", "abort", "cancel"}
        What Ctrl-C in a wait does to the tasks that are waited for.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.engines = Engines(channel)
        self.history = History(channel.session)
        self.direct = Marks(self.history)
        self.record_arguments = True
        self.on_interrupt = "leave"
        pool = channel.pool
        self._keeps = (as_copy, as_is) if pool is None else (shared(pool.copy, as_copy), shared(pool.copy, as_is))
        self._files: tuple[Sequence[EngineInfo], bool] = (), False
        # Client, views and results share this port. When the last of them is forgotten, the connection ends.
        weakref.finalize(self, channel.abandon).atexit = False

    @property
    def info(self) -> ConnectionInfo:
        """The connection file's content: which cluster this is."""
        return self.channel.info

    @property
    def session(self) -> ClientId:
        """The id of this client's session: its msg_ids begin so."""
        return self.channel.session

    @property
    def keeps(self) -> bool:
        """Whether the controller records results, so that they can be fetched again."""
        return self.channel.keeps

    def outstanding(self) -> int:
        """How many tasks of this client have no outcome yet."""
        return sum(id.startswith(self.channel.session) for id in self.channel.outstanding())

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        """Take in results in this thread, until `ready()` or for `limit` seconds. False: the caller has to wait."""
        return self.channel.drive(ready, limit)

    @property
    def files(self) -> bool:
        """Whether all engines are on this host, so that they can open the files that we can open."""
        engines, is_here = self._files
        if engines is not self.channel.engines:
            engines, here = self.channel.engines, socket.gethostname()
            is_here = bool(engines) and all(engine.host == here for engine in engines)
            self._files = engines, is_here
        return is_here

    def keep(self, track: bool) -> Keep:
        """What is sent for the buffers of arguments. `track`: the user does not change them."""
        return self._keeps[track]

    def engine_uuid(self, id: EngineId) -> str | None:
        """The uuid of the engine that has, or last had, this number."""
        return self.engines.uuid_of(id)

    def is_direct(self, id: TaskId) -> bool:
        """Whether a direct view of this client submitted the task."""
        return id in self.direct

    def has_made(self, id: TaskId) -> bool:
        """Whether a msg_id of this client's session is one that this client has made so far."""
        number = self.history.number_of(id)
        if number is None:
            return False
        # Numbers grow. If the newest of the history does not tell, the next number does, which then is no task's.
        newest = self.history.number_of(self.history[-1]) if self.history else None
        return (newest is not None and number <= newest) or number < self.channel.next_number()

    def check_size(self, frames: Sequence[Any]) -> None:
        """Raise MessageTooLarge if the buffers of a task's arguments are more than a task may have."""
        size = wire.size(b"", frames)
        if size > MAX_TASK_BYTES:
            raise MessageTooLarge(
                f"the arguments have {size / 2**30:.1f} GB, more than the limit of {MAX_TASK_BYTES / 2**30:.0f} GB per "
                "task; nothing was sent. Write large data to a file that the engines can read, or send it in parts "
                "(scatter)."
            )

    # ------------------------------------------------------------------------------------------ ending tasks

    def interrupted(self, ids: Collection[TaskId]) -> str:
        """Ctrl-C came in a wait for these tasks: end them, if that is wanted. Returns what `on_interrupt` says."""
        if self.on_interrupt != "leave" and self.channel.failure is None:
            self.abort(list(ids), running=self.on_interrupt == "cancel")
        return self.on_interrupt

    def abort(self, ids: Sequence[TaskId], *, running: bool) -> None:
        """Ask the controller to end tasks; with `running` also those that have started."""
        self.stop_growing(ids)
        self.end(ids, None, running=running)

    def stop_growing(self, ids: Iterable[TaskId] | None) -> None:
        """Have the maps to which these tasks belong submit no further chunks; None: all maps."""
        meant = None if ids is None else set(ids)
        for growing in self.growing.copy():
            if meant is None or not meant.isdisjoint(growing._ids):
                growing._no_more()

    @property
    def growing(self) -> set[Growing]:
        """The maps that submit further tasks as results come: each adds itself, and takes itself out."""
        return self.channel.waiters.growing

    def end(self, tasks: Sequence[TaskId] | None, engines: Sequence[EngineId] | None, *, running: bool) -> Future[Any]:
        """Ask the controller to end tasks, by id or by engine; the Future is done once it has begun to."""
        numbers = None if engines is None else list(engines)
        if tasks is None:
            return self.channel.request(Abort(None, numbers, running))
        # The last first: a task ends before those that it depends on.
        parts = reversed([list(some) for some in pieces(list(tasks))])
        return total([self.channel.request(Abort(some, numbers, running)) for some in parts])
