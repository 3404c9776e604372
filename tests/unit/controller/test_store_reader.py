"""The threads that read: nobody's slow questions keep others waiting."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engineroom.controller.storage.pending import Scope
from engineroom.controller.storage.question_lanes import DONE
from engineroom.controller.storage.store_reader import StoreReader
from engineroom.ids import ClientId
from engineroom.stores import DictDB, TaskStore
from engineroom.stores.query.deadline import Deadline

ALICE, BOB = ClientId("alice"), ClientId("bob")


class Desk:
    """A reader, and the loop that takes its answers."""

    def __init__(self, store: TaskStore) -> None:
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.reader = StoreReader(store, lambda: None, lambda scope: DONE, self.posted.put)
        self.answers: list[Any] = []

    def ask(self, work: Callable[[TaskStore], Any], client: ClientId | None) -> None:
        self.reader.read(work, self.answers.append, self.answers.append, after=Scope(), client=client)

    def wait(self, number: int) -> list[Any]:
        while len(self.answers) < number:
            self.posted.get(timeout=30)()
        return self.answers


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk(DictDB())
    yield desk
    desk.reader.close()


def test_slow_questions_of_one_client_keep_neither_others_nor_the_controller_waiting(desk: Desk):
    go_on = threading.Event()
    running = threading.Semaphore(0)

    def slow(store: TaskStore) -> str:
        running.release()
        assert go_on.wait(30)
        return "slow"

    for _ in range(6):
        desk.ask(slow, ALICE)
    assert running.acquire(timeout=30)
    assert not running.acquire(blocking=False), "one question of a client runs at a time"
    desk.ask(lambda store: "bob's", BOB)
    desk.ask(lambda store: "the controller's", None)
    assert sorted(desk.wait(2)) == ["bob's", "the controller's"]
    go_on.set()
    assert desk.wait(8).count("slow") == 6


def test_many_clients_with_slow_questions_do_not_keep_the_controller_waiting(desk: Desk):
    go_on = threading.Event()
    for number in range(20):
        desk.ask(lambda store: go_on.wait(30), ClientId(f"client-{number}"))
    desk.ask(lambda store: "the controller's", None)
    assert desk.wait(1) == ["the controller's"]
    go_on.set()
    assert desk.wait(21).count(True) == 20


def test_questions_of_a_client_are_answered_in_their_order(desk: Desk):
    for number in range(50):
        desk.ask(lambda store, number=number: number, ALICE)  # type: ignore[misc]
    assert desk.wait(50) == list(range(50))


def test_the_questions_of_a_client_that_leaves_end(desk: Desk):
    begun = threading.Event()

    def until_given_up(store: TaskStore) -> str:
        deadline = Deadline()
        begun.set()
        limit = time.monotonic() + 30
        while deadline.left() >= 0:
            assert time.monotonic() < limit
        return str(deadline.passed())

    desk.ask(until_given_up, ALICE)
    desk.ask(lambda store: pytest.fail("it has not begun, and nobody wants it"), ALICE)
    assert begun.wait(30)
    desk.reader.client_left(ALICE)
    assert "has left" in desk.wait(1)[0]
    desk.ask(lambda store: "another", ALICE)
    assert desk.wait(2)[1] == "another", "its questions before are forgotten"


def test_closing_ends_what_runs():
    desk = Desk(DictDB())
    begun = threading.Event()

    def until_given_up(store: TaskStore) -> None:
        deadline = Deadline()
        begun.set()
        while deadline.left() >= 0:
            pass

    desk.ask(until_given_up, ALICE)
    desk.ask(until_given_up, ALICE)
    assert begun.wait(30)
    desk.reader.close()
