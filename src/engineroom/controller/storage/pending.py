"""What the writer has been given and not taken over yet: entries in order, and what waits for them.

    put ──▶ entries, tokens │ entries, tokens, a call │ …, the mark of a question ──▶ take: a group of limited size

The oldest entries are written first, a limited number at a time. A question does not wait for all of them. Those that
it is about (its `Scope`) are taken first, wherever they stand, and some of the oldest with them. So a question sees
everything that came before it while little is pending, and at least what is in its scope while much is.

There is no store and no thread here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from ...ids import ClientId, TaskId
from ...records.entry import Entry
from ...shared_memory.buffer import key_of
from ...stores import TaskStore

#: Entries that are written in one go: a small part of a second.
GROUP_MOST = 4000
#: The same while somebody waits.
FEW = 1000
#: Bytes of their large buffers, beyond which the group ends.
GROUP_BYTES = 64 << 20

#: A function for the writer's thread, and what it returns.
Call = tuple[Callable[[TaskStore], Any], Future[Any]]


class Scope(NamedTuple):
    """What must be recorded before a question is answered, however much is pending."""

    #: all tasks of this client; None: of none
    client: ClientId | None = None
    #: these tasks
    tasks: Collection[TaskId] = ()

    def has(self, entry: Entry) -> bool:
        """Whether an entry belongs to it."""
        return entry.client == self.client or entry.spec.id in self.tasks


class Mark:
    """A place in the order: what may happen once all entries before it are written."""

    __slots__ = ("calls", "tokens")

    def __init__(self) -> None:
        self.tokens: list[Any] = []
        self.calls: list[Call] = []


class Question:
    """Somebody waits for the entries of a scope that came before this."""

    __slots__ = ("future", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.future: Future[None] = Future()


class Group(NamedTuple):
    """What is written next, and what may happen then."""

    entries: dict[TaskId, Entry]
    tokens: list[Any]
    calls: list[Call]
    #: those that are answered by this group
    questions: list[Question]
    #: whether it is all that there was
    is_all: bool


class Pending:
    """The entries in order, and marks between them."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        #: a later entry of a task takes the place of the earlier one: it says all that that one did
        self._order: dict[TaskId | int, Entry | Mark] = {}
        #: number of its mark → question
        self._questions: dict[int, Question] = {}
        self._last: Mark | None = None

    def __len__(self) -> int:
        """About how many entries there are."""
        return len(self._order)

    def __bool__(self) -> bool:
        return bool(self._order or self._questions)

    def add(self, entries: Sequence[Entry], tokens: Sequence[Any]) -> None:
        """Entries are to be written, then the tokens come back."""
        order = self._order
        if entries:
            self._last = None
            for entry in entries:
                order[entry.spec.id] = entry
        if tokens:
            self._mark().tokens += tokens

    def call(self, call: Call) -> None:
        """Call a function once everything before is written."""
        self._mark().calls.append(call)

    def ask(self, scope: Scope) -> Question:
        """Somebody waits for the entries of a scope."""
        question = Question(scope)
        self._last = None
        number = next(self._numbers)
        self._order[number] = Mark()
        self._questions[number] = question
        return question

    def _mark(self) -> Mark:
        if self._last is None:
            self._last = self._order[next(self._numbers)] = Mark()
        return self._last

    @property
    def entries(self) -> list[Entry]:
        """All entries."""
        return [one for one in self._order.values() if type(one) is Entry]

    def has(self, ids: Collection[TaskId]) -> bool:
        """Whether one of these tasks is here."""
        return not self._order.keys().isdisjoint(ids)

    def pop(self, id: TaskId) -> Entry | None:
        """Take the entry of a task, if there is one."""
        found = self._order.pop(id, None)
        return found if type(found) is Entry else None

    def take(self) -> Group:
        """Take what is written next: what questions are about, then the oldest entries."""
        most = FEW if self._questions else GROUP_MOST
        entries: dict[TaskId, Entry] = {}
        answered: list[Question] = []
        waiting = list(self._questions.items())
        for number, question in waiting:
            if self._take_scope(number, question.scope, entries, most // len(waiting)):
                answered.append(question)
                del self._questions[number]
        tokens: list[Any] = []
        calls: list[Call] = []
        order, questions, room, bytes_left, taken = self._order, self._questions, most - len(entries), GROUP_BYTES, 0
        counted: set[Any] = set()
        for key, one in order.items():
            if type(one) is Entry:
                if room <= 0:
                    break
                room -= 1
                entries[key] = one  # type: ignore[index]
                if one.frames or one.result_frames:
                    bytes_left -= buffer_bytes((one,), counted)
                    if bytes_left <= 0:
                        room = 0
            else:
                assert type(one) is Mark
                tokens += one.tokens
                calls += one.calls
            taken += 1
        if taken == len(order):
            self._order = {number: order[number] for number in questions}
        else:
            for key in list(itertools.islice(order, taken)):
                if key not in questions:
                    del order[key]
        self._last = None
        return Group(entries, tokens, calls, answered, not self._order)

    def _take_scope(self, number: int, scope: Scope, entries: dict[TaskId, Entry], most: int) -> bool:
        """Take the entries of a scope that came before a place; whether that is all of them."""
        order = self._order
        named: Any = scope.tasks if len(scope.tasks) < len(order) else order.keys() & scope.tasks
        for id in self._with_those_before(named):
            if (found := self.pop(id)) is not None:
                entries[id] = found
        if scope.client is None:
            return True
        taken: list[TaskId | int] = []
        is_all = False
        for key, one in order.items():
            if key == number:
                is_all = True
                break
            if type(one) is Entry and one.client == scope.client:
                if len(taken) >= most:
                    break
                entries[key] = one  # type: ignore[index]
                taken.append(key)
        for key in taken:
            del order[key]
        return is_all

    def _with_those_before(self, named: Collection[TaskId]) -> list[TaskId]:
        """These, and the direct tasks that come before direct ones of them: see `backlog.py`."""
        wanted = [one for id in named if type(one := self._order.get(id)) is Entry]
        direct = {(one.client, one.spec.engine) for one in wanted if one.spec.engine >= 0}
        if not direct:
            return [one.spec.id for one in wanted]
        ids, before = {one.spec.id for one in wanted}, dict[Any, list[TaskId]]()
        found: list[TaskId] = []
        for one in self._order.values():
            if type(one) is not Entry:
                continue
            key = one.client, one.spec.engine
            if one.spec.id in ids:
                found += [*before.pop(key, ()), one.spec.id]
            elif key in direct:
                before.setdefault(key, []).append(one.spec.id)
        return found

    def give_back(self, entries: dict[TaskId, Entry], tokens: Sequence[Any]) -> None:
        """The store did not take these: they are the first again. Later entries win."""
        mark = Mark()
        mark.tokens += tokens
        first: dict[TaskId | int, Entry | Mark] = {id: entry for id, entry in entries.items()}  # noqa: C416
        first[next(self._numbers)] = mark
        self._order = first | self._order
        self._last = None

    def drop_futures(self) -> list[Future[Any]]:
        """Nobody can be answered now: returns all that wait, and forgets them."""
        dropped: list[Future[Any]] = [question.future for question in self._questions.values()]
        self._questions.clear()
        for one in self._order.values():
            if type(one) is Mark and one.calls:
                dropped += [future for _, future in one.calls]
                one.calls = []
        return dropped


def buffer_bytes(entries: Iterable[Entry], counted: set[Any]) -> int:
    """Bytes of large buffers, each content once. Those in `counted` are left out, and the others are added to it."""
    size = 0
    for entry in entries:
        for frame in (*entry.frames, *entry.result_frames):
            if (key := key_of(frame)) not in counted:
                counted.add(key)
                size += memoryview(frame).nbytes
    return size
