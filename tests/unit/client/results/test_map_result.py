"""A growing map over a fake port: who pickles, what an error, an abort or a lost connection does. No cluster."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import engineroom as er
from engineroom.client.results.chunks import SAMPLE, ChunkPlan
from engineroom.client.results.map_result import AsyncMapResult, GrowingMapResult
from engineroom.ids import EngineId, TaskId
from engineroom.messages import ErrorInfo, TaskDone
from engineroom.wire.parts import Part

from ..fakes import FakePort, arrive, done, failed


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not any(thread.name == "engineroom-map" for thread in threading.enumerate()))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.001)


class Cluster:
    """Takes the chunks of a map, and answers them when told to; the thread that calls `answer` is the I/O thread."""

    def __init__(self, fails_at: int | None = None, is_lost: bool = False) -> None:
        self.fails_at, self.is_lost = fails_at, is_lost
        self.submitted: dict[TaskId, list[int]] = {}
        self.answered = 0
        self.pickled_by: list[threading.Thread] = []
        self._ids = (TaskId(f"t{number}") for number in itertools.count())

    def prepare(self, chunks: list[list[Sequence[Any]]]) -> tuple[list[TaskId], Callable[[Any], None]]:
        self.pickled_by.append(threading.current_thread())
        items = [list(column) for [column] in chunks]
        if any(self.fails_at in chunk for chunk in items):
            raise er.SerializationError(f"item {self.fails_at} cannot be pickled")
        ids = [next(self._ids) for _ in chunks]

        def submit(result: Any) -> None:
            if self.is_lost:
                raise er.ControllerLost("it is gone")
            self.submitted |= dict(zip(ids, items, strict=True))

        return ids, submit

    def map(self, count: int, engines: int = 2, **options: Any) -> GrowingMapResult:
        plan = ChunkPlan(count, engines)
        return GrowingMapResult(FakePort(), self.prepare, [range(count)], plan, options=None, **options)

    def answer(self, result: GrowingMapResult, *, seconds: float = 0.001) -> None:
        """Each chunk that is out gives its items, negated."""
        for id, items in list(self.submitted.items())[self.answered :]:
            self.answered += 1
            arrive(result, done(id, Part([-item for item in items]), started=0.0, completed=seconds * len(items)))

    def answer_all(self, result: GrowingMapResult) -> None:
        def answered() -> bool:
            self.answer(result)
            return result.done()

        wait_until(answered)


def test_a_map_that_ctrl_c_cuts_off_as_it_begins_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch):
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    port, cluster = FakePort(), Cluster()
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GrowingMapResult(port, cluster.prepare, [range(5000)], ChunkPlan(5000, 2), options=None)
    assert port.growing == set()


def test_all_items_come_in_order_in_chunks_that_grow():
    cluster = Cluster()
    result = cluster.map(5000)
    assert [len(items) for items in cluster.submitted.values()] == [1] * 2 * SAMPLE
    cluster.answer_all(result)
    assert result.get(0) == [-item for item in range(5000)]
    assert result.progress == len(result) == 5000
    assert max(map(len, cluster.submitted.values())) > 50


def test_the_io_thread_pickles_nothing():
    cluster = Cluster()
    result = cluster.map(5000)
    assert cluster.pickled_by == [threading.current_thread()]
    cluster.answer_all(result)
    assert {thread.name for thread in cluster.pickled_by[1:]} == {"engineroom-map"}


def test_slow_pickling_does_not_hold_up_what_arrives():
    cluster, may_go_on = Cluster(), threading.Event()
    result = cluster.map(5000)
    prepare = result._prepare

    def slow(chunks: Any) -> Any:
        assert may_go_on.wait(10)
        return prepare(chunks)

    result._prepare = slow
    cluster.answer(result)  # would hang
    assert result.progress == 2 * SAMPLE
    may_go_on.set()
    cluster.answer_all(result)


def test_a_map_without_room_for_more_needs_no_thread():
    cluster = Cluster()
    result = cluster.map(2)
    assert not any(thread.name == "engineroom-map" for thread in threading.enumerate())
    cluster.answer_all(result)
    assert result.get(0) == [0, -1]


def test_an_item_that_cannot_be_pickled_ends_the_rest():
    cluster = Cluster(fails_at=3000)
    result = cluster.map(5000)
    cluster.answer_all(result)
    with pytest.raises(er.SerializationError, match="item 3000"):
        result.get(0)
    assert not result.successful()


def test_one_of_the_first_items_too():
    cluster = Cluster(fails_at=0)
    result = cluster.map(5000)
    assert result.done()
    with pytest.raises(er.SerializationError, match="item 0"):
        result.get(0)


def test_code_of_the_user_that_exits_is_no_silent_end():
    cluster = Cluster()
    result = cluster.map(5000)

    def exits(chunks: Any) -> Any:
        raise SystemExit(3)

    result._prepare = exits
    cluster.answer_all(result)
    with pytest.raises(er.SerializationError, match="SystemExit"):
        result.get(0)


def test_a_lost_connection_ends_the_rest():
    cluster = Cluster()
    result = cluster.map(5000)
    cluster.is_lost = True
    cluster.answer_all(result)
    with pytest.raises(er.CompositeError, match="ControllerLost: it is gone"):
        result.get(0)


def test_an_aborted_map_submits_nothing_more():
    cluster = Cluster()
    result = cluster.map(5000)
    result.abort()
    out = len(cluster.submitted)
    [(ids, running)] = result._port.aborted  # type: ignore[attr-defined]
    assert set(cluster.submitted) <= set(ids)
    assert not running
    cluster.answer_all(result)
    assert len(cluster.submitted) == out
    with pytest.raises(er.TaskAborted, match="the rest of a map"):
        result.get(0)


def test_as_an_argument_all_of_it_is_submitted_at_once():
    cluster = Cluster()
    result = cluster.map(5000)
    assert set(result._all_ids()) == set(cluster.submitted)
    assert sorted(item for items in cluster.submitted.values() for item in items) == list(range(5000))
    cluster.answer_all(result)


def test_iterating_gives_items_as_they_come():
    cluster = Cluster()
    result = cluster.map(1500)
    iterator = iter(result)
    cluster.answer(result)
    assert [next(iterator) for _ in range(3)] == [0, -1, -2]
    cluster.answer_all(result)
    assert list(iterator) == [-item for item in range(3, 1500)]


def test_unordered_items_come_by_arrival():
    result = AsyncMapResult(FakePort(), [TaskId("a"), TaskId("b")], ordered=False)
    arrive(result, done("b", Part([3, 4])), done("a", Part([1, 2])))
    assert list(result) == [3, 4, 1, 2]


def test_a_failed_chunk_raises_where_it_comes():
    result = AsyncMapResult(FakePort(), [TaskId("a"), TaskId("b")])
    arrive(result, done("a", Part([1, 2])), failed("b"))
    iterator = iter(result)
    assert [next(iterator), next(iterator)] == [1, 2]
    with pytest.raises(er.RemoteError):
        next(iterator)


def test_a_failed_chunk_may_stand_among_the_items():
    result = AsyncMapResult(FakePort(), [TaskId("a"), TaskId("b")], return_exceptions=True)
    arrive(result, failed("a"), done("b", Part([3])))
    error, value = result.get(0)
    assert (error.ename, value) == ("ValueError", 3)
    assert [type(item) for item in result] == [er.RemoteError, int]


def given_up(id: str, error: str, engine: int | None = None, status: str = "error") -> TaskDone:
    """The report of a task that the controller has ended."""
    number = None if engine is None else EngineId(engine)
    info = ErrorInfo(error, "no good", "", engine_id=number, arguments="3 items: (3) … (5)", stopped=True)
    return TaskDone(TaskId(id), 1, status, None, 1.0, b"", number, error=info)


def map_of(sizes: dict[str, int], *reports: TaskDone, dist: str | None = "b") -> AsyncMapResult:
    ids = [TaskId(id) for id in sizes]
    known = {TaskId(id): size for id, size in sizes.items()}
    result = AsyncMapResult(FakePort(), ids, sizes=known, dist=dist, name="f")
    arrive(result, *reports)
    return result


def test_a_chunk_that_failed_as_a_whole_names_its_items():
    result = map_of({"a": 3, "b": 3}, done("a", Part([0, 1, 2])), given_up("b", "EngineError", engine=1))
    with pytest.raises(er.EngineError) as caught:
        result.get(0)
    assert caught.value.engine_info["items"] == (3, 5)
    assert caught.value.index is None
    [note] = caught.value.__notes__
    assert note == "On engine 1, task b, items 3 to 5, called with: 3 items: (3) … (5)"
    errors = result.get(0, return_exceptions=True)[3:]
    assert [str(error) for error in errors] == ["[1:apply] EngineError: no good"] * 3


def dealt(error: str = "EngineError") -> AsyncMapResult:
    """Items 0 to 4, dealt to two tasks. The first failed as a whole."""
    return map_of({"a": 3, "b": 2}, given_up("a", error, engine=1), done("b", Part([1, 3], "r")), dist="r")


def test_the_errors_of_dealt_items_stand_in_their_places():
    failed = [er.EngineError, int, er.EngineError, int, er.EngineError]
    assert [type(item) for item in dealt().get(0, return_exceptions=True)] == failed
    result = dealt()
    result._return_exceptions = True
    assert [type(item) for item in result] == failed
    assert [type(result[number]) for number in range(5)] == failed


def test_the_errors_of_dealt_items_stand_in_their_places_if_all_failed():
    result = map_of({"a": 3, "b": 2}, given_up("a", "EngineError"), given_up("b", "EngineError"), dist="r")
    tasks = [error.msg_id for error in result.get(0, return_exceptions=True)]
    assert tasks == ["a", "b", "a", "b", "a"]


def test_a_part_of_dealt_items_that_failed_as_a_whole_names_them():
    error = dealt().exception(0)
    assert error.items == (0, 4, 2)
    assert "task a, items 0 to 4 in steps of 2, called with" in error.__notes__[0]
    [note, *_] = dealt("TaskTimeout").exception(0).__notes__
    assert note == "It was items 0 to 4 in steps of 2, called with: 3 items: (3) … (5)"


@pytest.mark.parametrize("error", ["TaskTimeout", "DependencyTimeout", "InvalidDependency", "TaskAborted"])
def test_errors_of_the_scheduler_name_items_too(error: str):
    result = map_of({"a": 3, "b": 3}, done("a", Part([0, 1, 2])), given_up("b", error))
    caught = result.exception(0)
    assert "It was items 3 to 5, called with: 3 items: (3) … (5)" in caught.__notes__
    both = map_of({"a": 3, "b": 3}, given_up("a", error), given_up("b", error)).exception(0)
    assert "[items 0 to 2, called with" in str(both)
    assert "[items 3 to 5, called with" in str(both)


def test_a_task_of_one_item_names_it():
    result = map_of({"a": 1, "b": 1}, done("a", 0), given_up("b", "EngineError", engine=1))
    with pytest.raises(er.EngineError) as caught:
        result.get(0)
    assert caught.value.index == 1
    assert "items" not in caught.value.engine_info


def test_items_whose_places_are_not_known_are_not_named():
    result = map_of({"a": 3, "b": 3}, given_up("a", "EngineError"), done("b", Part([1, 3, 5], "r")), dist=None)
    assert "items" not in result.exception(0).engine_info


def test_a_growing_map_names_the_items_of_a_chunk_that_failed():
    cluster = Cluster()
    result = cluster.map(1000)
    ids = list(result._ids)
    arrive(result, given_up(ids[1], "EngineError", engine=0))
    first = len(cluster.submitted[ids[0]])
    last = first + len(cluster.submitted[ids[1]]) - 1
    assert result._value_of(ids[1]).error.engine_info.get("items", (first, first)) == (first, last)
    result.cancel()
