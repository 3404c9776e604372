"""Tasks that depend on others of which nobody knows yet."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from peers_and_time import CODE, World, task, until

from engineroom.messages import GraphDependency, Results, Run, Submit, TaskOptions
from engineroom.stores import DictDB


@pytest.fixture
def restarted() -> Iterator[World]:
    made = World(store=DictDB(), restarted=True)
    made.controller.recover()
    yield made
    made.close()


def test_after_a_restart_a_task_waits_for_one_that_its_client_may_say_again(restarted: World):
    engine, other = restarted.peer("engine", "engine"), restarted.peer("client", "other")
    depends = TaskOptions(after=GraphDependency((task(0).id,)))
    other.say(Submit(1, [msgspec.structs.replace(task(1), id="other-1", options=depends)], [CODE]))
    restarted.pass_time(4, engine, other)
    restarted.turns()
    assert not other.all(Results)
    client = restarted.peer("client", "me")
    client.say(Submit(1, [task(0)], [CODE], resent=True, former=True))
    until(restarted, lambda: restarted.controller.scheduler.task(task(0).id))
    restarted.pass_time(2, engine, other, client)
    until(restarted, lambda: engine.all(Run))
    assert [spec.id for spec in engine.all(Run)[0].tasks] == ["me-0"]
    restarted.pass_time(8, engine, other, client)
    assert not other.all(Results), "it waits for a task that runs"


def test_it_waits_no_longer_than_for_clients(restarted: World):
    engine, other = restarted.peer("engine", "engine"), restarted.peer("client", "other")
    depends = TaskOptions(after=GraphDependency((task(0).id,)))
    other.say(Submit(1, [msgspec.structs.replace(task(1), id="other-1", options=depends)], [CODE]))
    restarted.pass_time(4, engine, other)
    assert not other.all(Results)
    restarted.pass_time(3, engine, other)
    until(restarted, lambda: other.all(Results))
    [done] = other.all(Results)[0].tasks
    assert done.error.ename == "InvalidDependency"
