"""The tasks of a client over a channel without a network: history, waiting, views that are gone."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest

from engineroom.client.connection.waiters import Waiter, Waiters
from engineroom.client.own_tasks import OwnTasks
from engineroom.client.port import ClientPort
from engineroom.client.records.queries import Records
from engineroom.client.results import task_future
from engineroom.client.results.result import AsyncResult
from engineroom.client.views import DirectView, LoadBalancedView
from engineroom.errors import PendingTask
from engineroom.ids import ClientId, EngineId, EngineUuid, TaskId
from engineroom.messages import EngineInfo

from .fakes import arrive, done


class FakeChannel:
    """Takes tasks in, and gives no outcomes."""

    scheme, failure, starting, keeps = "leastload", None, 0, True
    pool = None

    def __init__(self) -> None:
        self.session = ClientId("5e55")
        self.engines = [EngineInfo(EngineId(0), EngineUuid("e"), "host", 1)]
        self.waiters = Waiters()
        self.next_number = itertools.count().__next__

    def id_of(self, number: int) -> TaskId:
        return TaskId(f"{self.session}-{number}")

    def new_id(self) -> TaskId:
        return self.id_of(self.next_number())

    def drive(self, ready: Callable[[], bool], limit: float | None) -> bool:
        return False

    def submit_one(self, outgoing: Any, waiter: Waiter, *, waits: bool = False) -> None:
        self.waiters.by_task[outgoing[0].id] = waiter

    def submit(self, tasks: Iterable[tuple[Any, Waiter]]) -> None:
        for outgoing, waiter in tasks:
            self.submit_one(outgoing, waiter)

    def waiter_of(self, id: TaskId) -> Any:
        return self.waiters.by_task.get(id)

    def outstanding(self) -> set[TaskId]:
        return set(self.waiters.by_task)

    def abandon(self) -> None:
        pass

    def finish(self, ids: Iterable[TaskId]) -> None:
        for id in ids:
            arrive(self.waiters.by_task.pop(id), done(id, 1))


class FakeClient:
    """What views need of a client."""

    block = False

    def __init__(self) -> None:
        self.channel = FakeChannel()
        self._port = ClientPort(cast(Any, self.channel))
        self.tasks = OwnTasks(self._port, cast(Records, None))

    def view(self, kind: Any = LoadBalancedView, targets: Any = None) -> Any:
        view = kind(cast(Any, self), targets)
        self.tasks.views.add(view)
        return view


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


def test_the_history_is_that_of_all_views_as_submitted(client: FakeClient):
    one, other = client.view(), client.view(DirectView, 0)
    made = [view.apply_async(abs, -1).msg_ids[0] for view in (one, other, one)]
    made += client.view().map_async(abs, [1, 2]).msg_ids
    assert client.tasks.history() == made
    assert (one.history, other.history) == ([made[0], made[2]], [made[1]])
    assert [client._port.is_direct(id) for id in made[:3]] == [False, True, False]
    assert client.tasks.ids_of(-1) == [made[-1]]
    assert client.tasks.ids_of([0, -2]) == [made[0], made[-2]]
    with pytest.raises(IndexError, match="has submitted 5 tasks"):
        client.tasks.ids_of(5)


def test_views_are_forgotten_and_their_tasks_are_not(client: FakeClient):
    view = client.view(DirectView, 0)
    gone = weakref.ref(view)
    [id] = view.apply_async(abs, -1).msg_ids
    del view
    client.channel.finish([id])
    gc.collect()
    assert gone() is None
    assert len(client.tasks.views) == 0
    assert client.tasks.history() == [id]
    assert client.tasks.finished() == [id]


def test_forgetting_tasks(client: FakeClient):
    view = client.view()
    ids = [view.apply_async(abs, -1).msg_ids[0] for _ in range(4)]
    client.channel.finish(ids[:3])
    client.tasks.forget(ids[0])
    assert client.tasks.history() == view.history == ids[1:]
    for jobs in (ids[-1], None):
        with pytest.raises(PendingTask, match="1 of these tasks"):
            client.tasks.forget(jobs)
    client.channel.finish(ids[3:])
    client.tasks.forget(None)
    assert client.tasks.history() == view.history == []


def results(client: FakeClient, count: int) -> Sequence[AsyncResult]:
    view = client.view()
    return [view.apply_async(abs, -1) for _ in range(count)]


def test_finished_results_need_no_condition_to_be_waited_for(client: FakeClient):
    made = results(client, 10)
    client.channel.finish(client.channel.outstanding())
    assert client.tasks.wait(made, 0.0)
    assert client.tasks.wait([result.msg_ids[0] for result in made], 0.0)
    assert client.tasks.wait(None, 0.0)
    assert all(result._cond is None for result in made)


def test_one_waiter_waits_for_many(client: FakeClient):
    made = results(client, 10)
    client.channel.finish([made[0].msg_ids[0]])
    assert not client.tasks.wait(made, 0.0)
    assert not client.tasks.wait(None, 0.0)
    assert sum(result._cond is not None for result in made) <= 2


def test_nobody_is_asked_once_the_time_is_over(client: FakeClient, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(AsyncResult, "done", lambda self: asked.append(self) or False)
    made = results(client, 1000)
    assert not task_future.wait_for_all(made, 0.001)
    assert len(asked) < 10


def test_futures_of_others_are_waited_for_as_well(client: FakeClient):
    from concurrent.futures import Future

    foreign: Future[int] = Future()
    [mine] = results(client, 1)
    client.channel.finish(mine.msg_ids)
    assert not client.tasks.wait([mine, foreign], 0.001)
    foreign.set_result(1)
    assert client.tasks.wait([foreign, mine], time.monotonic())
