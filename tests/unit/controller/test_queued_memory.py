"""How the memory of tasks is counted, and whose arguments leave it and come back."""

from __future__ import annotations

import pytest

from engineroom.controller.storage import queued_memory
from engineroom.controller.storage.queued_memory import SMALLEST, TASK_BYTES, Measured, QueuedMemory
from engineroom.core.tasks import Task, TaskState
from engineroom.ids import ClientId, Digest, EngineId, TaskId
from engineroom.messages import TaskSpec

ARGUMENTS = b"x" * 512
#: what a task with these takes
SIZE = TASK_BYTES + len(ARGUMENTS)


def task(id: str, payload: bytes = ARGUMENTS, state: TaskState = TaskState.QUEUED) -> Task:
    return Task(TaskSpec(TaskId(id), Digest(b"f"), payload, 0.0), ClientId("me"), state=state)


def tight(memory: QueuedMemory) -> None:
    """Fill half of the memory."""
    assert memory.limit is not None
    assert memory.add([task(f"first-{n}", b"") for n in range(memory.limit // TASK_BYTES // 2 + 1)]) == 0


def left(memory: QueuedMemory, *ids: str) -> list[Task]:
    """Tasks whose arguments have left the memory."""
    tasks = [task(id) for id in ids]
    number = memory.add(tasks)
    assert number
    memory.recorded(number)
    assert set(ids) <= memory.left.keys()
    return tasks


def test_below_the_half_nothing_happens():
    memory, tasks = QueuedMemory(10 * SIZE, True), [task(id) for id in "abcd"]
    assert memory.add(tasks) == 0
    assert (memory.bytes, memory.is_tight, memory.is_full) == (4 * SIZE, False, False)
    for one in tasks:
        memory.forget(one)
    assert memory.bytes == 0


@pytest.mark.fault(37)
def test_beyond_the_half_small_arguments_leave_memory_once_they_are_recorded():
    memory = QueuedMemory(100 * SIZE, True)
    tight(memory)
    before = memory.bytes
    tasks = [task("a"), task("held"), task("tiny", b"x" * (SMALLEST - 1)), task("framed"), task("ended")]
    tasks[3].frames = (b"large",)
    number = memory.add(tasks)
    assert number
    assert tasks[0].spec.payload, "not before"
    tasks[1].state, tasks[1].engine = TaskState.HELD, EngineId(0)
    tasks[4].state = TaskState.ENDED
    memory.forget(tasks[4])
    memory.recorded(number)
    assert [bool(one.spec.payload) for one in tasks] == [False, True, True, True, True]
    assert set(memory.left) == {"a"}
    assert memory.bytes == before + 4 * TASK_BYTES + 2 * len(ARGUMENTS) + SMALLEST - 1
    for one in tasks[:4]:
        memory.forget(one)
    assert (memory.bytes, memory.left) == (before, {})


def test_it_is_full_at_the_limit_and_without_one_never():
    memory, endless = QueuedMemory(2 * SIZE, True), QueuedMemory(None, True)
    for each in memory, endless:
        each.add([task("a"), task("b")])
    assert [memory.is_full, endless.is_full, endless.is_tight] == [True, False, False]


def test_where_the_store_is_in_this_process_nothing_leaves_memory():
    memory = QueuedMemory(2 * SIZE, False)
    assert memory.add([task("a"), task("b")]) == 0
    assert memory.is_full


def test_arguments_are_read_with_those_of_the_tasks_that_came_with_them():
    memory = QueuedMemory(1000 * SIZE, True)
    tight(memory)
    tasks, others = left(memory, *"abcd"), left(memory, *"ef")
    asked = memory.to_read(tasks[1:2])
    assert asked == ["b", "a", "c", "d"]
    assert memory.to_read(tasks[2:3] + others[:1]) == ["c", "e", "f"], "a and d are on their way"
    before = memory.bytes
    memory.forget(tasks[3])
    memory.put_back(asked, dict.fromkeys(asked, ARGUMENTS))
    assert [one.spec.payload for one in tasks] == [ARGUMENTS, ARGUMENTS, ARGUMENTS, b""]
    assert memory.bytes == before - TASK_BYTES + 3 * len(ARGUMENTS)
    memory.put_back(["c", "e", "f"], {TaskId("c"): ARGUMENTS, TaskId("e"): ARGUMENTS})
    assert memory.bytes == before - TASK_BYTES + 4 * len(ARGUMENTS), "each once"
    assert set(memory.left) == {"f"}, "it could not be read"


def test_only_so_many_are_read_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queued_memory, "TOGETHER", 3)
    memory = QueuedMemory(1000 * SIZE, True)
    tight(memory)
    tasks = left(memory, *"abcdefg")
    assert memory.to_read(tasks[4:5]) == ["e", "d", "f"]
    assert memory.to_read(tasks[:5]) == list("abcde"), "those that are needed now always"


def test_without_room_only_what_is_needed_is_read():
    memory = QueuedMemory(20 * SIZE, True)
    tight(memory)
    tasks = left(memory, *"abcdef")
    memory.add([task("more", b"") for _ in range(8)])
    assert memory.to_read(tasks[2:3]) == ["c"]


def test_what_a_restart_finds_is_counted_and_taken_in_up_to_the_half():
    memory = QueuedMemory(10 * SIZE, True)
    measured = Measured(memory)
    assert [measured.takes(len(ARGUMENTS)) for _ in range(6)] == [True] * 4 + [False] * 2
    assert measured.takes(1), "what is smaller than the task stays"
    tasks = [task(id, b"" if id in "ef" else ARGUMENTS, TaskState.RECOVERING) for id in "abcdef"]
    memory.take_up(tasks, {TaskId("e"), TaskId("f")})
    assert memory.bytes == 6 * TASK_BYTES + 4 * len(ARGUMENTS)
    assert memory.to_read([tasks[4]]) in (["e"], ["e", "f"])
    assert all(Measured(QueuedMemory(None, True)).takes(1 << 20) for _ in range(100))
