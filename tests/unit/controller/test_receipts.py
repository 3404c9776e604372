"""An engine is told that its results are stored once they are, and once it is known whose they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peers_and_time import CODE, Peer, World, task, until

from engineroom.messages import AttemptKey, Cancel, Results, Stored, Submit, TaskDone
from engineroom.records.entry import Entry
from engineroom.stores import DictDB


@pytest.fixture
def store() -> DictDB:
    return DictDB()


@pytest.fixture
def restarted(store: DictDB) -> Iterator[World]:
    made = World(store=store, restarted=True)
    made.controller.recover()
    yield made
    made.close()


def done(number: int) -> TaskDone:
    return TaskDone(task(number).id, 1, "ok", 1.0, 2.0, b"result")


def back(world: World, *numbers: int, stored: int = -1) -> Peer:
    """An engine comes back with these tasks."""
    return world.peer("engine", "engine", held=[AttemptKey(task(number).id, 1) for number in numbers], stored=stored)


def all_is_recorded(world: World) -> None:
    """What has come is recorded, and the receipts for that are given: one that is asked for now comes after them."""
    other = world.peer("engine", "other")
    other.say(Results([], 1))
    until(world, lambda: told(other))


def told(engine: Peer) -> list[int]:
    return [message.number for message in engine.all(Stored)]


def test_what_comes_behind_results_that_were_lost_is_not_taken(restarted: World):
    engine = back(restarted, stored=4)
    engine.say(Results([], 6))  # the fifth was lost with a connection, the first after the Hello
    all_is_recorded(restarted)
    assert told(engine) == []
    engine.say(Results([], 5))
    engine.say(Results([], 6))
    until(restarted, lambda: told(engine))
    assert told(engine)[-1] == 6


def test_results_wait_until_their_client_says_the_tasks_again(restarted: World):
    engine = back(restarted, 0)
    engine.say(Results([done(0)], 1))
    engine.say(Results([], 2))
    all_is_recorded(restarted)
    assert told(engine) == []
    client = restarted.peer("client", "me")
    client.say(Submit(1, [task(0)], [CODE], resent=True, former=True))
    until(restarted, lambda: told(engine) and client.all(Results))
    assert told(engine) == [2]
    assert [one.payload for one in client.all(Results)[0].tasks] == [b"result"]
    engine.say(Results([], 3))
    until(restarted, lambda: told(engine) == [2, 3])


def test_results_wait_no_longer_than_for_the_engines(restarted: World):
    engine = back(restarted, 0)
    engine.say(Results([done(0)], 1))
    all_is_recorded(restarted)
    assert told(engine) == []
    restarted.pass_time(6, engine)
    until(restarted, lambda: told(engine) == [1])


def test_results_that_were_recorded_before_do_not_wait(restarted: World, store: DictDB):
    entry = Entry(task(0), "me")
    entry.done = done(0)
    store.write([entry])
    engine = back(restarted, 0, 1)
    engine.say(Results([done(0)], 1))
    until(restarted, lambda: told(engine) == [1])
    assert not engine.all(Cancel), "nobody knows yet whose the other one is"
