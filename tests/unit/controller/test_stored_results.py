"""Clients ask for the results of tasks: in pieces, in turn, and not without end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engineroom.config import SchedulerSettings
from engineroom.controller.requests import stored_results
from engineroom.controller.requests.stored_results import LATE_SECONDS, PAGE, StoredResults
from engineroom.core import Scheduler, events
from engineroom.ids import ClientId, Digest, TaskId
from engineroom.messages import Message, ResultsUnavailable, TaskDone, TaskSpec
from engineroom.records.entry import Entry
from engineroom.stores import DictDB

ME, OTHER = ClientId("me"), ClientId("other")


def ids_of(owner: str, count: int) -> list[TaskId]:
    return [TaskId(f"{owner}-{number}") for number in range(count)]


class Loop:
    """What stands around: a core, a store, and threads that read from it when the test says so."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.core = Scheduler(SchedulerSettings())
        self.store = DictDB()
        self.posted: deque[Callable[[], None]] = deque()
        self.reads: deque[Callable[[], None]] = deque()
        self.sent: list[tuple[ClientId, Message]] = []
        self.delivered: list[tuple[ClientId, TaskId]] = []
        self.here = {ME, OTHER}
        self.now = 0.0
        self.results = StoredResults(
            self.core,
            self.decide,
            self,  # type: ignore[arg-type]
            lambda client, message: self.sent.append((client, message)),
            self if keeps else None,  # type: ignore[arg-type]
            "",
            "memory://",
            self.posted.append,
            lambda id: (),
            lambda uuid: uuid in self.here,
            lambda: self.now,
        )

    def decide(self, event: events.Event) -> None:
        self.core.handle(event, self.now)

    def deliver(self, client: ClientId, done: TaskDone, frames: Sequence[Any]) -> None:
        self.delivered.append((client, done.id))

    def read(self, work: Any, then: Any, failed: Any, **options: Any) -> None:
        self.reads.append(lambda: then(work(self.store)))

    def turn(self) -> None:
        """A turn of the loop: what was posted before it."""
        for _ in range(len(self.posted)):
            self.posted.popleft()()

    def all(self) -> None:
        while self.posted or self.reads:
            self.turn()
            if self.reads:
                self.reads.popleft()()

    def submit(self, client: ClientId, ids: Sequence[TaskId]) -> None:
        specs = [TaskSpec(id, Digest(b"f"), b"", 0.0) for id in ids]
        self.core.handle(events.TasksSubmitted(client, specs), self.now)

    def record(self, client: ClientId, ids: Sequence[TaskId], *, ended: bool = True) -> None:
        self.store.write(
            [
                Entry(
                    TaskSpec(id, Digest(b"f"), b"x", 0.0),
                    client,
                    done=TaskDone(id, 1, "ok", 1.0, 2.0, b"result") if ended else None,
                )
                for id in ids
            ]
        )

    @property
    def gone(self) -> list[TaskId]:
        return [id for _, message in self.sent if isinstance(message, ResultsUnavailable) for id in message.tasks]


def test_many_results_are_looked_up_in_pieces_and_others_come_in_between() -> None:
    loop = Loop()
    loop.record(ME, ids_of("me", 1))
    loop.results.watch(ME, ids_of("x", 10 * PAGE))
    for _ in range(5):
        loop.results.watch(ME, ids_of("x", 10 * PAGE))
    assert len(loop.reads) == 1, "of one client one piece is under way"
    loop.results.watch(OTHER, ids_of("me", 1))
    loop.reads.popleft()()
    loop.reads.popleft()()
    assert loop.delivered == [(OTHER, "me-0")]
    assert len(loop.gone) == PAGE
    loop.all()
    assert len(loop.gone) == 60 * PAGE, "every one is answered"
    assert not loop.results._wanted


def test_tasks_that_have_not_ended_are_watched_and_those_that_have_are_sent() -> None:
    loop = Loop()
    ids = ids_of("other", 2 * PAGE)
    loop.submit(OTHER, ids[1:])
    loop.record(OTHER, ids[:1])
    loop.results.watch(ME, ids)
    loop.all()
    assert loop.delivered == [(ME, ids[0])]
    assert all(loop.core.tasks[id].watchers == {ME} for id in ids[1:])
    assert not loop.gone


def test_a_client_cannot_ask_for_more_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_results, "MOST_WANTED", 3 * PAGE)
    loop = Loop()
    loop.results.watch(ME, ids_of("a", 3 * PAGE))
    loop.results.watch(ME, ids_of("b", 2 * PAGE))
    (_, refused) = loop.sent[0]
    assert isinstance(refused, ResultsUnavailable)
    assert "asked for at a time" in refused.reason
    assert len(refused.tasks) == 2 * PAGE
    loop.all()
    assert len(loop.gone) == 5 * PAGE


def test_nothing_is_looked_up_for_a_client_that_has_left() -> None:
    loop = Loop()
    loop.results.watch(ME, ids_of("x", 3 * PAGE))
    loop.results.client_left(ME)
    loop.all()
    assert len(loop.gone) <= PAGE
    assert not loop.reads


@pytest.mark.parametrize("keeps", [True, False])
def test_a_task_of_a_connected_client_may_come_a_moment_later(keeps: bool) -> None:
    loop = Loop(keeps=keeps)
    ids = ids_of("other", 2)
    loop.results.watch(ME, ids)
    loop.all()
    assert not loop.gone
    loop.submit(OTHER, ids[:1])
    loop.now = LATE_SECONDS / 2
    loop.results.look_again(loop.now)
    assert not loop.gone
    loop.now = LATE_SECONDS
    loop.results.look_again(loop.now)
    loop.all()
    assert loop.core.tasks[ids[0]].watchers == {ME}
    assert loop.gone == ids[1:], "what has not come does not exist"


def test_what_cannot_come_any_more_is_said_at_once() -> None:
    loop = Loop()
    loop.results.watch(ME, [*ids_of("gone", 1), *ids_of("me", 1)])  # a client that is not here; the client itself
    loop.all()
    assert set(loop.gone) == {"gone-0", "me-0"}


def test_a_record_that_never_ends_is_not_looked_up_for_ever() -> None:
    loop = Loop()
    loop.record(ME, ids_of("me", 1), ended=False)
    loop.results.watch(ME, ids_of("me", 1))
    for _ in range(20):
        loop.turn()
        if loop.reads:
            loop.reads.popleft()()
    assert not loop.reads
    assert not loop.posted
    assert loop.gone == ids_of("me", 1)
