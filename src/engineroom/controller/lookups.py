"""Submissions that wait for the store, and the submissions and questions that wait for them.

The tasks of a client are taken in as it has submitted them, since those for one engine run in this order. A client may
ask about tasks that it has just submitted: its question is answered once those tasks are taken in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import msgspec

from ..ids import ClientId, TaskId, client_of


class Lookup(msgspec.Struct, frozen=True):
    """One submission that waits for the store, or behind another one."""

    number: int
    client: ClientId
    #: its tasks, by which they can be explained and aborted meanwhile; empty: the core may know some of them
    tasks: frozenset[TaskId]


class Lookups:
    """The submissions that wait for the store."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._under_way: set[Lookup] = set()
        #: client → its submissions, in order, each with what takes it in; None: the store has not answered
        self._turns: dict[ClientId, dict[Lookup, Callable[[], None] | None]] = {}
        self._behind: list[tuple[set[Lookup], Callable[[], None]]] = []
        #: task → whether an abort was asked for meanwhile, and whether of a running task, too
        self._aborted: dict[TaskId, bool | None] = {}

    def __contains__(self, id: TaskId) -> bool:
        return id in self._aborted

    def begin(self, client: ClientId, tasks: Iterable[TaskId] = ()) -> Lookup:
        """A submission waits from now on, until `end`.

        `tasks`: its tasks, if the core knows none of them.
        """
        lookup = Lookup(next(self._numbers), client, frozenset(tasks))
        self._under_way.add(lookup)
        self._turns.setdefault(client, {})[lookup] = None
        for id in lookup.tasks:
            self._aborted.setdefault(id, None)
        return lookup

    def has_submission(self, client: ClientId) -> bool:
        """Whether a submission of a client waits: the next one is to wait behind it."""
        return client in self._turns

    def in_turn(self, lookup: Lookup, take: Callable[[], None]) -> None:
        """The store has answered: call `take` once those that the client submitted before are taken in."""
        turns = self._turns[lookup.client]
        turns[lookup] = take
        while turns and (next_take := turns[first := next(iter(turns))]) is not None:
            del turns[first]
            next_take()
        if not turns:
            self._turns.pop(lookup.client, None)

    def aborted(self, lookup: Lookup) -> dict[TaskId, bool]:
        """The tasks of a submission for which an abort was asked: whether also if they run.

        From now on the core is to know its tasks.
        """
        found = {id: running for id in lookup.tasks if (running := self._aborted.pop(id, None)) is not None}
        return dict(sorted(found.items()))

    def end(self, lookup: Lookup) -> None:
        """The submission is taken in: answer the questions that waited for that."""
        self._under_way.discard(lookup)
        waiting, self._behind = self._behind, []
        for before, answer in waiting:
            before.discard(lookup)
            if before:
                self._behind.append((before, answer))
            else:
                answer()

    def defers(self, client: ClientId, answer: Callable[[], None], *, about_known: bool) -> bool:
        """Whether a question of a client has to wait; then `answer` is called later.

        `about_known`: the question (abort, explain) can be answered before the lookup of its tasks ends.
        """
        if not self._under_way:
            return False
        before = {one for one in self._under_way if one.client == client and not (about_known and one.tasks)}
        if before:
            self._behind.append((before, answer))
        return bool(before)

    def abort(self, ids: Iterable[TaskId], running: bool) -> None:
        """Abort those of these tasks that wait for the store, once they are taken in."""
        for id in ids:
            if id in self._aborted:
                self._aborted[id] = running

    def of_client(self, client: ClientId) -> list[TaskId]:
        """The tasks of a client that wait for the store."""
        return [id for id in self._aborted if client_of(id) == client]
