"""Tasks on their way to the controller: queued, packed into messages, kept until they are accepted.

There is no network here: `pack_next` and `pack_again` return messages, which the channel sends.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...ids import Digest, TaskId
from ...messages import Abort, Function, Rejected, RequestBody, Submit, TaskSpec
from ...shared_memory.buffer import weight
from ...wire import frames as wire
from .environment import environment

#: Tasks in one message.
BATCH = 512
#: Bytes of arguments in one message, beyond which the next begins.
BATCH_BYTES = 8 << 20
#: Tasks on their way and not yet accepted. More tasks wait here, so that the controller's memory is bounded however
#: fast tasks are submitted …
WINDOW = 50_000
#: … and bytes of their arguments, with what each task weighs in the controller besides.
WINDOW_BYTES = 256 << 20
TASK_BYTES = 1024
#: When so many tasks wait here, the user is told …
MANY = 500_000
#: … or when the controller has had no room for so many seconds.
NO_ROOM_SECONDS = 3.0

#: So many functions are known to be with the controller; then all of them are sent again when they are called.
MOST_KNOWN = 10_000
#: So many aborted tasks are kept in mind; then only those that are not accepted.
MOST_ABORTED = 1000

#: Why the controller has no room, in words (`Pong.no_room`).
_WHY = {
    "database": "its database is behind. They are taken in as it records others",
    "database hangs": "its database does not answer (look at its disk). They are taken in when it does",
    "memory": "the tasks that it has take all the memory that they may (IPController.queued_memory). They are taken in "
    "as others end",
}

#: One task on its way out: (spec, its function or None, its large buffers)
Outgoing = tuple[TaskSpec, Function | None, Sequence[Any]]


class Acceptance:
    """Whether the controller has accepted all tasks of a call. Until then they may have to be sent again."""

    def __init__(self, tasks: int) -> None:
        self._left = tasks
        self._accepted = threading.Event()
        if not tasks:
            self._accepted.set()

    def count(self) -> None:
        """One more task is accepted, or will never be. The I/O thread calls this."""
        self._left -= 1
        if self._left <= 0:
            self._accepted.set()

    def is_complete(self) -> bool:
        """Whether all are accepted."""
        return self._accepted.is_set()

    def wait(self, limit: float | None) -> bool:
        """Wait until all are accepted; returns whether they are."""
        return self._accepted.wait(limit)


class TrackedBuffers(tuple[Any, ...]):
    """The large buffers of a task that somebody tracks. They are not copied, and must not change until then."""

    acceptance: Acceptance

    def __bool__(self) -> bool:
        return True  # a task without buffers is tracked, too


def tracked(task: Outgoing, acceptance: Acceptance) -> Outgoing:
    """The task, with an `Acceptance` that counts it once it is accepted."""
    spec, function, buffers = task
    with_acceptance = TrackedBuffers(buffers)
    with_acceptance.acceptance = acceptance
    return spec, function, with_acceptance


class SubmissionWindow:
    """The queue of tasks, and the batches that the controller has not accepted yet.

    Users' threads append to `queue`. The I/O thread does everything else.
    """

    def __init__(self) -> None:
        self.queue: deque[Outgoing] = deque()
        self._numbers = itertools.count(1)
        #: number → (tasks, bytes that they weigh)
        self._unaccepted: dict[int, tuple[list[Outgoing], int]] = {}
        #: those of them that were sent to the controller of before a restart
        self._former: set[int] = set()
        #: tasks that were aborted, as we were told: those that are not accepted, and others
        self.aborted: set[TaskId] = set()
        #: number → who tracks tasks of the message, once for each task
        self._tracked: dict[int, list[Acceptance]] = {}
        #: of all that is not accepted
        self._bytes = self._tasks = 0
        self._has_told_of_many = False
        #: why the controller takes no tasks in, as it said last; "": it does
        self._no_room = ""
        #: since when tasks wait for that; None: they do not
        self._no_room_since: float | None = None
        #: the reasons that the user was told
        self._told_no_room: set[str] = set()
        #: the functions that the controller has from us
        self._known: set[Digest] = set()
        self._has_told_environment = False
        #: the name of the client's session; "": it has none
        self.session_name = ""
        #: when the last message was packed (monotonic seconds)
        self.last_packed = 0.0

    @property
    def has_room(self) -> bool:
        """Whether the next batch may be sent."""
        return self._bytes < WINDOW_BYTES and self._tasks < WINDOW

    def hear(self, no_room: str) -> None:
        """The controller has said why it takes no tasks in; "": it does."""
        self._no_room = no_room

    @property
    def is_shut(self) -> bool:
        """Whether nobody knows for how long tasks wait, so that nothing should wait behind them."""
        return self._no_room in ("memory", "database hangs")

    def notice(self, now: float) -> str:
        """What the user should know of the tasks that wait; "": nothing, or it was said. `now`: monotonic seconds."""
        waiting = len(self.queue)
        if waiting < MANY // 2:
            self._has_told_of_many = False
        if not self._no_room or not self.unaccepted_tasks:
            if not waiting:
                self._no_room_since = None
                self._told_no_room.clear()
        elif self._no_room_since is None:
            self._no_room_since = now
        elif now - self._no_room_since >= NO_ROOM_SECONDS and self._no_room not in self._told_no_room:
            self._told_no_room.add(self._no_room)
            why = _WHY.get(self._no_room, self._no_room)
            return f"{self.unaccepted_tasks:,} tasks wait until the controller has room: {why}"
        if waiting < MANY or self._has_told_of_many or self._told_no_room:
            return ""
        self._has_told_of_many = True
        return (
            f"{waiting:,} tasks wait in this process: tasks are submitted faster than the cluster's database records "
            "them. They are sent as it does; questions wait behind them"
        )

    def take_back(self, body: RequestBody) -> list[TaskId]:
        """An abort is about to be sent: take back the tasks that it is about and that are queued. Returns their ids.

        Only while nothing waits behind tasks (`is_shut`): else they are sent before the abort.
        """
        if type(body) is not Abort or body.engines is not None or not self.is_shut:
            return []
        named = None if body.tasks is None else set(body.tasks)
        left, taken = [], []
        for _ in range(len(self.queue)):
            task = self.queue.popleft()
            if named is not None and task[0].id not in named:
                left.append(task)
                continue
            taken.append(task[0].id)
            if type(task[2]) is TrackedBuffers:
                task[2].acceptance.count()
        self.queue.extendleft(reversed(left))
        return taken

    @property
    def unaccepted_tasks(self) -> int:
        """How many tasks are queued, or sent and not accepted yet."""
        return len(self.queue) + self._tasks

    def pack_next(self) -> tuple[Submit, list[Any]] | None:
        """The next message and its frames; None: nothing is queued, or there is no room."""
        queue = self.queue
        if not queue or not self.has_room:
            return None
        batch: list[Outgoing] = []
        size = 0
        sent: set[int] = set()  # buffers in this message: further tasks that have them add nothing
        while queue and len(batch) < BATCH:
            buffers = queue[0][2]
            if size >= BATCH_BYTES and not (buffers and sent.issuperset(map(id, buffers))):
                break
            task = queue.popleft()
            batch.append(task)
            size += len(task[0].payload)
            if buffers:
                size += weight([buffer for buffer in buffers if id(buffer) not in sent])
                sent.update(map(id, buffers))
        size += len(batch) * TASK_BYTES
        return self._pack(batch, size, resent=False)

    def _pack(self, batch: list[Outgoing], size: int, *, resent: bool) -> tuple[Submit, list[Any]]:
        number = next(self._numbers)
        self.last_packed = time.monotonic()
        self._unaccepted[number] = (batch, size)
        self._bytes += size
        self._tasks += len(batch)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        known, functions, specs, cached = self._known, [], [], False
        table: wire.FrameTable | None = None
        for spec, function, buffers in batch:
            if function is not None and function.digest not in known:
                known.add(function.digest)
                functions.append(function)
            if buffers:
                table = table or wire.FrameTable()
                spec.frames = table.add(buffers)
                if type(buffers) is TrackedBuffers:
                    self._tracked.setdefault(number, []).append(buffers.acceptance)
            if spec.options is not None and spec.options.cache is not None:
                cached = True
            specs.append(spec)
        told = None if self._has_told_environment else environment(self.session_name)
        return Submit(number, specs, functions, resent, cached, told), table.frames if table else []

    def sent(self, message: Submit) -> None:
        """A message has been sent."""
        if message.environment is not None:
            self._has_told_environment = True

    def unsendable(self, message: Submit) -> list[TaskId]:
        """A message could not be encoded; returns its tasks, which are given up."""
        self._known.difference_update(function.digest for function in message.functions)
        return [spec.id for spec, _, _ in self._answered(message.number)]

    # ------------------------------------------------------------------------------------------ answers

    def accepted(self, numbers: Iterable[int]) -> None:
        """The controller has recorded the tasks of these messages."""
        for number in numbers:
            self._answered(number)
        if len(self.aborted) > MOST_ABORTED:
            self.aborted &= self.tasks()

    def rejected(self, message: Rejected) -> list[TaskId]:
        """The controller has not taken the tasks of a message; returns those that are given up.

        If only functions are missing, the tasks stay: after the next Hello they are sent again, with the functions.
        """
        if message.code == "functions":
            return []
        return [spec.id for spec, _, _ in self._answered(message.number)]

    def _answered(self, number: int) -> list[Outgoing]:
        batch, size = self._unaccepted.pop(number, ([], 0))
        self._former.discard(number)
        self._bytes -= size
        self._tasks -= len(batch)
        if self._tracked:
            for acceptance in self._tracked.pop(number, ()):
                acceptance.count()
        return batch

    def give_up(self) -> None:
        """Nothing will be sent any more."""
        for _, _, buffers in [*self.queue, *(task for batch, _ in self._unaccepted.values() for task in batch)]:
            if type(buffers) is TrackedBuffers:
                buffers.acceptance.count()

    # ------------------------------------------------------------------------------------------ another session

    def tell_environment_again(self) -> None:
        """We have been away: the controller may have forgotten our environment."""
        self._has_told_environment = False

    def controller_restarted(self, *, takes_former: bool) -> None:
        """This one does not have our functions. Engines may have begun what was sent to the former one.

        If it does not understand that (`Welcome.takes_former`), tasks that run at most once are not sent again.
        The client asks for their results, as if they had been accepted.
        """
        self._known, self._former = set(), set(self._unaccepted)
        if takes_former:
            return
        for batch, _ in self._unaccepted.values():
            for _, _, buffers in [task for task in batch if _runs_at_most_once(task)]:
                if type(buffers) is TrackedBuffers:
                    buffers.acceptance.count()
            batch[:] = [task for task in batch if not _runs_at_most_once(task)]

    def pack_again(self) -> Iterator[tuple[Submit, list[Any]]]:
        """The messages that have not been answered, packed anew: the controller recognises tasks it has.

        Their functions are sent again, too: a task whose function is missing would be taken in after later ones.
        """
        unaccepted, self._unaccepted, self._tracked = self._unaccepted, {}, {}
        former, self._former = self._former, set()
        self._known -= {spec.function for batch, _ in unaccepted.values() for spec, _, _ in batch}
        self._bytes = self._tasks = 0
        for number, (batch, size) in unaccepted.items():
            if not batch:
                continue
            message, frames = self._pack(batch, size, resent=True)
            if number in former:
                self._former.add(message.number)
                message.former = True
                message.aborted = [spec.id for spec, _, _ in batch if spec.id in self.aborted]
            yield message, frames

    def has_queued(self, ids: Iterable[TaskId]) -> bool:
        """Whether one of these tasks is queued."""
        return not {spec.id for spec, _, _ in list(self.queue)}.isdisjoint(ids)

    def tasks(self) -> set[TaskId]:
        """All tasks that are queued or not accepted yet: the controller may not know them."""
        batches = [batch for batch, _ in self._unaccepted.values()]
        return {spec.id for batch in (*batches, list(self.queue)) for spec, _, _ in batch}


def _runs_at_most_once(task: Outgoing) -> bool:
    options = task[0].options
    return options is not None and options.at_most_once
