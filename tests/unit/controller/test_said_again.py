"""Tasks that a client says again after a restart, and that the database has, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peers_and_time import CODE, Peer, World, task, until

from engineroom.messages import Results, Run, Submit
from engineroom.records.entry import Entry
from engineroom.stores import DictDB


@pytest.fixture
def restarted() -> Iterator[World]:
    """The store has a task that has not ended."""
    store = DictDB()
    store.add_functions([CODE])
    store.write([Entry(task(0), "me")])
    made = World(store=store, restarted=True)
    made.controller.recover()
    yield made
    made.close()


def outcomes(client: Peer) -> dict[str, str]:
    return {done.id: done.status for message in client.all(Results) for done in message.tasks}


def test_one_that_was_aborted_is_aborted_though_the_database_does_not_know(restarted: World):
    client = restarted.peer("client", "me")
    client.say(Submit(1, [task(0), task(1)], [CODE], resent=True, former=True, aborted=[task(0).id, task(1).id]))
    until(restarted, lambda: outcomes(client))
    assert outcomes(client) == {task(1).id: "aborted"}
    engine = restarted.peer("engine", "engine")
    restarted.pass_time(9, engine, client)
    until(restarted, lambda: len(outcomes(client)) == 2)
    assert outcomes(client)[task(0).id] == "aborted"
    assert not engine.all(Run)


def test_others_run_once(restarted: World):
    client = restarted.peer("client", "me")
    client.say(Submit(1, [task(0), task(1)], [CODE], resent=True, former=True))
    engine = restarted.peer("engine", "engine")
    until(restarted, lambda: restarted.controller.scheduler.task(task(1).id))
    restarted.pass_time(9, engine, client)
    until(restarted, lambda: engine.all(Run))
    assert [spec.id for run in engine.all(Run) for spec in run.tasks] == [task(0).id, task(1).id]
