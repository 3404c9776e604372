"""Environments of clients that have gone do not stay for ever."""

from __future__ import annotations

from collections.abc import Collection

from engineroom.controller.supplies.client_environments import GONE_KEPT, ClientEnvironments
from engineroom.ids import ClientId


class Asked:
    """Which clients have tasks, and how often that was asked."""

    def __init__(self, *busy: ClientId) -> None:
        self.busy, self.times = set(busy), 0

    def __call__(self) -> Collection[ClientId]:
        self.times += 1
        return self.busy


def come_and_go(known: ClientEnvironments, names: range, asked: Asked) -> None:
    for number in names:
        client = ClientId(f"c{number}")
        known.tell(client, f"e{number % 3}")
        known.left(client, asked)


def test_clients_that_come_and_go_for_months_take_no_memory() -> None:
    known, asked = ClientEnvironments(), Asked()
    known.tell(ClientId("here"), "e")
    come_and_go(known, range(20 * GONE_KEPT), asked)
    assert len(known.digests) <= 2 * GONE_KEPT + 1
    assert known.digests[ClientId("here")] == "e"
    assert asked.times <= 20


def test_those_that_have_tasks_stay_and_so_do_the_latest() -> None:
    known, asked = ClientEnvironments(), Asked(ClientId("c0"), ClientId("c7"))
    come_and_go(known, range(2 * GONE_KEPT + 1), asked)
    latest = range(GONE_KEPT + 1, 2 * GONE_KEPT + 1)
    assert set(known.digests) == {"c0", "c7", *(f"c{number}" for number in latest)}
    asked.busy.clear()
    come_and_go(known, range(10_000, 10_000 + 2 * GONE_KEPT), asked)
    assert ClientId("c0") not in known.digests


def test_one_that_comes_back_stays_as_long_as_it_is_here() -> None:
    known, asked = ClientEnvironments(), Asked()
    come_and_go(known, range(1), asked)
    known.tell(ClientId("c0"), "new")
    come_and_go(known, range(1, 4 * GONE_KEPT), asked)
    assert known.digests[ClientId("c0")] == "new"


def test_with_many_that_have_tasks_it_is_asked_rarely() -> None:
    known = ClientEnvironments()
    asked = Asked(*(ClientId(f"c{number}") for number in range(20 * GONE_KEPT)))
    come_and_go(known, range(20 * GONE_KEPT), asked)
    assert len(known.digests) == 20 * GONE_KEPT
    assert asked.times <= 5


def test_one_that_has_told_nothing_leaves_nothing() -> None:
    known, asked = ClientEnvironments(), Asked()
    for number in range(4 * GONE_KEPT):
        known.left(ClientId(f"c{number}"), asked)
    assert known.digests == {}
    assert asked.times == 0
