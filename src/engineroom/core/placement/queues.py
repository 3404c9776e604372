"""Queues of tasks: by priority, then shared fairly between clients, then in order of submission.

Fair means engine time, not number of tasks. For each task that leaves the queue, its client is charged the mean run
time of its tasks; next comes a task of the client charged least (start-time fair queueing). A client that comes back
after a pause starts where the others are: it has saved nothing up, and owes nothing.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Container, Iterator, Sequence

from ...ids import ClientId, TaskId
from ...messages import TaskDone
from ..tasks import Task, TaskState

#: What a task is charged before a task of its client has been measured, and the least it is charged; in seconds.
UNKNOWN_COST = 1e-3
LEAST_COST = 1e-5
#: When there are more accounts than this, those of clients with no queued task are dropped.
CLIENTS_KEPT = 1000


class Share:
    """The account of one client: how much engine time it has had."""

    __slots__ = ("cost", "queued", "used")

    def __init__(self) -> None:
        #: seconds it has been charged
        self.used = 0.0
        #: smoothed run time of its tasks in seconds
        self.cost = UNKNOWN_COST
        #: its entries in all queues
        self.queued = 0


class Shares:
    """The accounts of all clients."""

    def __init__(self) -> None:
        self._shares: dict[ClientId, Share] = {}
        #: the largest `Share.used` of a client at the moment when one of its tasks left a queue. A client that had no
        #: queued task begins here, so that it gains nothing from the time when it asked for nothing.
        self._clock = 0.0

    def of(self, client: ClientId) -> Share:
        """A client's account."""
        share = self._shares.get(client)
        if share is None:
            if len(self._shares) >= CLIENTS_KEPT:
                self._shares = {c: s for c, s in self._shares.items() if s.queued}
            share = self._shares[client] = Share()
        return share

    def joins(self, share: Share, count: int) -> None:
        """Tasks of a client come into a queue."""
        if not share.queued:
            share.used = max(share.used, self._clock)
        share.queued += count

    def serves(self, share: Share, count: int) -> None:
        """Tasks of a client leave a queue for an engine."""
        self._clock = max(self._clock, share.used)
        share.used += count * share.cost

    def learn(self, client: ClientId, done: TaskDone) -> None:
        """Follow the run times of a client's tasks."""
        if done.started is not None:
            share = self.of(client)
            share.cost += (max(LEAST_COST, done.completed - done.started) - share.cost) / 8

    def __len__(self) -> int:
        return len(self._shares)


class Lane:
    """Tasks of one priority, by client."""

    __slots__ = ("_heap", "_number", "_shares", "queues")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        #: none is empty
        self.queues: dict[ClientId, deque[Task]] = {}
        # (charged, number, client), with what the client had been charged when the entry was made. Tasks in other
        # queues may have raised the charge since then, never lowered it: so an entry is checked when it comes up.
        self._heap: list[tuple[float, int, ClientId]] = []
        self._number = 0

    def of(self, client: ClientId, share: Share) -> deque[Task]:
        """A client's queue. The caller must put something into it."""
        queue = self.queues.get(client)
        if queue is None:
            queue = self.queues[client] = deque()
            self._number += 1
            heapq.heappush(self._heap, (share.used, self._number, client))
        return queue

    def next(self) -> tuple[deque[Task], Share]:
        """The queue and the account of the client charged least."""
        while True:
            noted, number, client = self._heap[0]
            share = self._shares.of(client)
            if share.used <= noted:
                return self.queues[client], share
            heapq.heapreplace(self._heap, (share.used, number, client))

    def drop_next(self) -> None:
        """The queue that `next` gave is empty now."""
        del self.queues[heapq.heappop(self._heap)[2]]


class TaskQueue:
    """Tasks that wait. A task that ends while it waits stays inside, and is skipped when it comes up."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        #: by priority; none is empty
        self._lanes: dict[int, Lane] = {}
        #: the priorities, lowest first
        self._order: list[int] = []
        self._length = 0

    def push(self, tasks: Sequence[Task], client: ClientId, priority: int = 0, *, first: bool = False) -> None:
        """Put in tasks of one client, behind its other tasks of this priority; `first`: before them."""
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = Lane(self._shares)
            insort(self._order, priority)
        share = self._shares.of(client)
        self._shares.joins(share, len(tasks))
        queue = lane.of(client, share)
        if first:
            queue.extendleft(reversed(tasks))
        else:
            queue.extend(tasks)
        self._length += len(tasks)

    def take(self, most: int, floor: int | None = None) -> list[Task]:
        """The next tasks, at most so many, of this priority or higher; all of them are QUEUED."""
        taken: list[Task] = []
        while self._order and len(taken) < most and (floor is None or self._order[-1] >= floor):
            lane = self._lanes[self._order[-1]]
            if len(lane.queues) == 1:
                self._take_from_one(lane, taken, most)
            else:
                self._take_fairly(lane, taken, most)
            if not lane.queues:
                del self._lanes[self._order.pop()]
        return taken

    def _take_from_one(self, lane: Lane, taken: list[Task], most: int) -> None:
        [(client, queue)] = lane.queues.items()
        length, queued, room = len(queue), TaskState.QUEUED, most - len(taken)
        missing = room
        while queue and missing:
            task = queue.popleft()
            if task.state is queued:
                taken.append(task)
                missing -= 1
        share = self._shares.of(client)
        self._left(share, length - len(queue))
        self._shares.serves(share, room - missing)
        if not queue:
            lane.drop_next()

    def _take_fairly(self, lane: Lane, taken: list[Task], most: int) -> None:
        while lane.queues and len(taken) < most:
            queue, share = lane.next()
            task = queue.popleft()
            self._left(share, 1)
            if task.state is TaskState.QUEUED:
                self._shares.serves(share, 1)
                taken.append(task)
            if not queue:
                lane.drop_next()

    def _left(self, share: Share, count: int) -> None:
        share.queued -= count
        self._length -= count

    @property
    def top(self) -> int | None:
        """The highest priority of the tasks inside; None: it is empty."""
        return self._order[-1] if self._order else None

    def clear(self) -> None:
        """Take all out."""
        for lane in self._lanes.values():
            for client, queue in lane.queues.items():
                self._left(self._shares.of(client), len(queue))
        self._lanes.clear()
        self._order.clear()

    def places(self, client: ClientId, wanted: Container[TaskId]) -> dict[TaskId, int]:
        """How many tasks of the same priority and client come before each of these tasks of a client."""
        places: dict[TaskId, int] = {}
        for lane in self._lanes.values():
            ahead = 0
            for task in lane.queues.get(client, ()):
                if task.state is TaskState.QUEUED:
                    if task.id in wanted:
                        places[task.id] = ahead
                    ahead += 1
        return places

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        """The tasks that wait, by priority."""
        for priority in reversed(self._order):
            for queue in self._lanes[priority].queues.values():
                for task in queue:
                    if task.state is TaskState.QUEUED:
                        yield task
