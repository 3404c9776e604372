"""What is kept of tasks that run: the end of their output."""

from __future__ import annotations

from engineroom.controller.requests.running_tasks import CUT, TAIL, RunningTasks
from engineroom.ids import EngineId, EngineUuid, TaskId
from engineroom.messages import Output, Started

A, ENGINE = TaskId("a"), EngineUuid("e")


def started(at: float = 1.0, attempt: int = 1, memory: int | None = None) -> Started:
    return Started(A, at, EngineId(0), attempt, memory)


def test_who_comes_later_hears_what_was_printed_before():
    tasks = RunningTasks()
    assert tasks.news_of(A) == []
    assert tasks.on_started(ENGINE, started()) is True
    tasks.on_output(Output(A, "stdout", "one "))
    tasks.on_output(Output(A, "stdout", "two"))
    tasks.on_output(Output(A, "stderr", "bad"))
    assert tasks.news_of(A) == [started(), Output(A, "stdout", "one two"), Output(A, "stderr", "bad")]


def test_only_the_end_of_much_output_is_kept():
    tasks = RunningTasks()
    for letter in "abc":
        tasks.on_output(Output(A, "stdout", letter * TAIL))
    assert tasks.news_of(A) == [Output(A, "stdout", CUT + "c" * TAIL)]


def test_an_announcement_is_news_once_for_each_attempt():
    tasks = RunningTasks()
    assert [tasks.on_started(ENGINE, started(memory=n)) for n in (5, 6)] == [True, False]
    assert tasks.memory == {ENGINE: 6}
    tasks.on_output(Output(A, "stdout", "first attempt"))
    assert tasks.on_started(ENGINE, started(2.0, attempt=2)) is True
    assert tasks.news_of(A) == [started(2.0, attempt=2)]


def test_what_has_ended_is_forgotten():
    tasks = RunningTasks()
    tasks.on_started(ENGINE, started(memory=5))
    tasks.sweep(lambda id: True, [ENGINE])
    assert tasks.news_of(A)
    tasks.forget([A, TaskId("b")])
    assert tasks.news_of(A) == []
    tasks.on_started(ENGINE, started())
    tasks.sweep(lambda id: False, [])
    assert (tasks.news_of(A), tasks.memory) == ([], {})
