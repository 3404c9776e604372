"""Entries that the writer has taken over and not yet written: which are due, and what may then be acknowledged.

For some stores, completing a pending record costs far more than writing a whole one. For these stores the backlog
holds back tasks that have not ended, for a moment: most end meanwhile, and are written once. Acknowledgements keep
their order, so those behind a task that is held back wait with it.

Of the direct tasks of one client for one engine those that are recorded come before those that are not. After a restart
the recorded ones run first, and then those that the client says again: so they keep their order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...ids import ClientId, EngineId, TaskId
from ...records.entry import Entry
from .pending import GROUP_MOST, Scope


def _none(id: TaskId) -> None:
    """No entry has come since."""


class Group:
    """The entries and tokens that came together."""

    __slots__ = ("held", "since", "tokens")

    def __init__(self, since: float, held: dict[TaskId, Entry], tokens: list[Any]) -> None:
        self.since = since
        #: tasks that have not ended, nor been written
        self.held = held
        self.tokens = tokens


class Backlog:
    """Groups, the oldest first. `take` says what to write now; then either `written` or `failed`."""

    def __init__(self, hold_seconds: float) -> None:
        self._hold = hold_seconds
        self._groups: deque[Group] = deque()
        self._group_of: dict[TaskId, Group] = {}
        #: direct tasks that are held back, in order
        self._direct: dict[tuple[ClientId, EngineId], dict[TaskId, None]] = {}
        self._writing: dict[TaskId, Entry] = {}

    def due_in(self, now: float) -> float | None:
        """Seconds until an entry that is held back must be written; None: there is none."""
        return max(0.0, self._groups[0].since + self._hold - now) if self._groups else None

    def __len__(self) -> int:
        """How many entries are held back."""
        return len(self._group_of)

    def holds(self, ids: Collection[TaskId]) -> bool:
        """Whether one of these tasks is held back."""
        return not self._group_of.keys().isdisjoint(ids)

    def take(
        self,
        entries: dict[TaskId, Entry],
        tokens: Sequence[Any],
        now: float,
        all: bool,
        scopes: Sequence[Scope] = (),
        newest: Callable[[TaskId], Entry | None] = _none,
    ) -> dict[TaskId, Entry]:
        """Add entries; returns those to write now.

        With `all` these are all. Else they are the tasks that have ended, those of `scopes`, and of those that have
        waited long enough so many that the group is not too large. `newest` gives an entry that has come since for a
        task that was held back: that is written in its place.
        """
        if not (self._hold or self._groups):
            self._groups.append(Group(now, {}, list(tokens)))
            self._writing = entries
            return entries
        writing: dict[TaskId, Entry] = {}
        group = Group(now, {}, list(tokens))
        self._groups.append(group)
        for id, entry in entries.items():
            older = self._group_of.get(id)
            if entry.done is not None:
                if older is not None:
                    self._forget(id)
                writing[id] = entry
            elif older is not None:
                older.held[id] = entry  # it says more, and has waited as long
            elif entry.frames:  # the client's window of unacknowledged bytes waits for it
                self._release(self._before(entry), writing, newest)
                writing[id] = entry
            else:
                self._hold_back(entry, group)
        for group in self._groups:
            if not all and (group.since + self._hold > now or len(writing) >= GROUP_MOST):
                break
            self._release(list(group.held), writing, newest)
        if scopes and self._group_of:  # nothing is held back that somebody asks about
            for group in self._groups:
                for entry in [entry for entry in group.held.values() if any(scope.has(entry) for scope in scopes)]:
                    if entry.id in self._group_of:
                        self._release([*self._before(entry), entry.id], writing, newest)
        self._writing = writing
        return writing

    def _hold_back(self, entry: Entry, group: Group) -> None:
        group.held[entry.id] = entry
        self._group_of[entry.id] = group
        if entry.spec.engine >= 0:
            self._direct.setdefault((entry.client, entry.spec.engine), {})[entry.id] = None

    def _forget(self, id: TaskId) -> Entry:
        """A task is not held back any more."""
        entry = self._group_of.pop(id).held.pop(id)
        if entry.spec.engine >= 0:
            key = entry.client, entry.spec.engine
            del self._direct[key][id]
            if not self._direct[key]:
                del self._direct[key]
        return entry

    def _before(self, entry: Entry) -> list[TaskId]:
        """The direct tasks that are held back, and come before this one."""
        direct = self._direct.get((entry.client, entry.spec.engine), {})
        return list(itertools.takewhile(entry.id.__ne__, direct))

    def _release(
        self, ids: Sequence[TaskId], writing: dict[TaskId, Entry], newest: Callable[[TaskId], Entry | None]
    ) -> None:
        """Hold back these tasks no longer."""
        for id in ids:
            held = self._forget(id)
            writing[id] = newest(id) or held

    def written(self) -> list[Any]:
        """The entries taken are in the store; returns the tokens that may be acknowledged."""
        self._writing = {}
        free: list[Any] = []
        while self._groups and not self._groups[0].held:
            free += self._groups.popleft().tokens
        return free

    def failed(self) -> tuple[dict[TaskId, Entry], list[Any]]:
        """The store did not take the entries: gives back all entries and tokens, oldest first."""
        entries = self._writing
        tokens: list[Any] = []
        for group in self._groups:
            entries = group.held | entries  # an outcome stays
            tokens += group.tokens
        self._groups.clear()
        self._group_of.clear()
        self._direct.clear()
        self._writing = {}
        return entries, tokens
