"""Which large arguments stay in memory, and which leave it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engineroom.controller.storage import queued_buffers
from engineroom.controller.storage.queued_buffers import QueuedBuffers
from engineroom.ids import TaskId


class Task:
    def __init__(self, id: str, size: int = 40) -> None:
        self.id = TaskId(id)
        self.frames: Sequence[Any] = (bytes(size),)


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> QueuedBuffers:
    monkeypatch.setattr(queued_buffers, "LIMIT", 100)
    return QueuedBuffers()


def record(buffers: QueuedBuffers, *tasks: Task) -> None:
    for task in tasks:
        assert buffers.add(task)
        buffers.recorded(task.id)


def test_beyond_the_limit_the_latest_leave_memory(buffers: QueuedBuffers) -> None:
    tasks = [Task(id) for id in "abcd"]
    record(buffers, *tasks)
    assert (buffers.spilled, buffers.bytes) == ({"c", "d"}, 80)
    assert [len(task.frames) for task in tasks] == [1, 1, 0, 0]
    buffers.forget(tasks[0].id)
    record(buffers, Task("e"))
    assert buffers.spilled == {"c", "d"}
    for id in "abcde":
        buffers.forget(TaskId(id))
    assert (buffers.spilled, buffers.bytes, bool(buffers)) == (set(), 0, False)


def test_what_is_not_recorded_stays(buffers: QueuedBuffers) -> None:
    task = Task("a", 500)
    buffers.add(task)
    assert task.frames
    buffers.recorded(task.id)
    assert (task.frames, buffers.spilled) == ((), {"a"})


def test_a_task_that_ended_before_its_commit_is_nothing_to_keep(buffers: QueuedBuffers) -> None:
    task = Task("a", 500)
    buffers.add(task)
    buffers.forget(task.id)
    buffers.recorded(task.id)
    assert not buffers


def test_a_second_attempt_changes_nothing(buffers: QueuedBuffers) -> None:
    small, large = Task("a"), Task("b", 500)
    record(buffers, small, large)
    assert not buffers.add(small)
    assert not buffers.add(large)


def test_a_buffer_that_several_tasks_have_counts_once(buffers: QueuedBuffers) -> None:
    tasks = [Task(id) for id in "abc"]
    for task in tasks:
        task.frames = tasks[0].frames
    record(buffers, *tasks)
    assert (buffers.spilled, buffers.bytes) == (set(), 40)
    buffers.forget(tasks[0].id)
    assert buffers.bytes == 40
    buffers.forget(tasks[1].id)
    buffers.forget(tasks[2].id)
    assert (buffers.bytes, bool(buffers)) == (0, False)
