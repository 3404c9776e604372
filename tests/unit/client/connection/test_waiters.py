"""How outcomes reach those who wait."""

from __future__ import annotations

import pytest

from engineroom.client.connection.waiters import Waiters
from engineroom.errors import ControllerLost, ProtocolError, StoreDamaged, StoreError, UnknownTask
from engineroom.ids import TaskId
from engineroom.messages import Output, Results, ResultsUnavailable, TaskDone

from .waiting import Diary

A, B, C = TaskId("a"), TaskId("b"), TaskId("c")


def done(id: TaskId, frames: tuple[int, ...] = ()) -> TaskDone:
    return TaskDone(id, 1, "ok", 0.0, 1.0, b"", frames=frames)


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def waiters(diary: Diary) -> Waiters:
    waiters = Waiters()
    waiters.by_task.update({A: diary, B: diary})
    return waiters


def test_outcomes_are_given_out_once_with_their_own_frames(waiters: Waiters, diary: Diary):
    message = Results([done(A, (1,)), done(C), done(B)])
    waiters.on_results(message, [b"another's", b"large"])
    assert diary.frames == {A: (b"large",), B: ()}
    assert diary.announced == 2
    assert not waiters.by_task
    waiters.on_results(message, [b"another's", b"large"])  # nobody waits any more
    assert diary.announced == 2


def test_an_outcome_with_fewer_frames_than_it_names_fails_its_own_task_only(waiters: Waiters, diary: Diary):
    waiters.on_results(Results([done(A, (3,)), done(B)]), [])
    assert isinstance(diary.failed[A], ProtocolError)
    assert diary.frames == {B: ()}
    assert not waiters.by_task


def test_tasks_that_are_gone_fail_each_with_its_own_error(waiters: Waiters, diary: Diary):
    waiters.on_gone(ResultsUnavailable([A, B, C], "purged"), ())
    assert {id: type(error) for id, error in diary.failed.items()} == {A: UnknownTask, B: UnknownTask}
    assert "result of b cannot be had: purged" in str(diary.failed[B])


def test_a_result_that_cannot_be_read_is_told_from_one_that_is_not_known(waiters: Waiters, diary: Diary):
    waiters.on_gone(ResultsUnavailable([A], "it is damaged", "StoreDamaged"), ())
    waiters.on_gone(ResultsUnavailable([B], "the disk is gone", "StoreError"), ())
    assert {id: type(error) for id, error in diary.failed.items()} == {A: StoreDamaged, B: StoreError}


def test_news_reach_whoever_waits(waiters: Waiters, diary: Diary):
    waiters.on_news(Output(A, "stdout", "hello"), ())
    waiters.on_news(Output(C, "stdout", "nobody's"), ())
    assert [news.text for news in diary.news] == ["hello"]


def test_a_withdrawn_waiter_hears_nothing(waiters: Waiters, diary: Diary):
    waiters.withdraw([A, C])
    waiters.on_results(Results([done(A), done(B)]), ())
    assert list(diary.done) == [B]


def test_each_waiter_gets_an_exception_of_its_own(waiters: Waiters, diary: Diary):
    waiters.fail([A, B, C], lambda: ControllerLost("gone"))
    assert set(diary.failed) == {A, B}
    assert diary.failed[A] is not diary.failed[B], "two threads may raise them at a time"
