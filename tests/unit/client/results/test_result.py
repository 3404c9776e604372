"""AsyncResults over a fake port: becoming ready, values, errors, parts, arguments. No cluster."""

from __future__ import annotations

import pickle
import sys
import threading
from typing import Any

import pytest

import engineroom as er
from engineroom.client.results.arguments import pickled_call
from engineroom.client.results.result import AsyncResult
from engineroom.ids import TaskId
from engineroom.messages import TaskDone
from engineroom.wire import input_cache, payload

from ..fakes import FakePort, arrive, done, failed


def result(*ids: str, port: FakePort | None = None, **options: object) -> AsyncResult:
    return AsyncResult(port or FakePort(), [TaskId(id) for id in ids], single=len(ids) == 1, **options)  # type: ignore[arg-type]


def test_one_task_gives_its_value():
    ar = result("a")
    assert not ar.done()
    arrive(ar, done("a", 42))
    assert ar.done()
    assert ar.get(0) == 42
    assert ar.successful()


def test_several_give_a_list_in_order_whatever_comes_first():
    ar = result("a", "b")
    arrive(ar, done("b", 2))
    assert not ar.done()
    arrive(ar, done("a", 1))
    assert ar.get(0) == [1, 2]


def test_nothing_to_wait_for_is_ready_at_once():
    assert result().done()


def test_the_first_outcome_of_a_task_is_kept():
    ar = result("a", "b")
    arrive(ar, done("a", 1), done("a", 9), done("b", 2))
    assert ar.get(0) == [1, 2]


def test_a_thread_that_waits_is_told():
    ar, values = result("a"), []
    thread = threading.Thread(target=lambda: values.append(ar.get(10)))
    thread.start()
    arrive(ar, done("a", 7))
    thread.join(10)
    assert values == [7]


def test_callbacks_run_once_before_or_after_the_end():
    ar, heard = result("a"), []
    ar.add_done_callback(heard.append)
    assert heard == []
    arrive(ar, done("a", 7))
    ar.add_done_callback(heard.append)
    assert heard == [ar, ar]


def test_an_error_is_raised_and_stands_in_its_place_if_wanted():
    ar = result("a", "b")
    arrive(ar, failed("a"), done("b", 2))
    with pytest.raises(er.RemoteError, match="no good"):
        ar.get(0)
    error, value = ar.get(0, return_exceptions=True)
    assert (error.ename, value) == ("ValueError", 2)
    assert not ar.successful()


def test_an_exception_may_be_a_value():
    ar = result("a")
    arrive(ar, done("a", KeyError("x")))
    assert isinstance(ar.get(0), KeyError)


def test_what_cannot_be_unpickled_fails_with_its_engine_named():
    ar = result("a")
    arrive(ar, TaskDone(TaskId("a"), 1, "ok", 0.0, 1.0, b"no pickle", 3))
    with pytest.raises(er.RemoteError, match="cannot be unpickled here") as caught:
        ar.get(0)
    assert caught.value.engine_info["engine_id"] == 3


class Exits:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


def test_unpickling_does_not_end_the_program():
    ar = result("a")
    arrive(ar, TaskDone(TaskId("a"), 1, "ok", 0.0, 1.0, pickle.dumps(Exits()), 3))
    with pytest.raises(er.RemoteError, match="cannot be unpickled here: 3") as caught:
        ar.get(0)
    assert caught.value.ename == "SystemExit"


def test_not_in_time():
    with pytest.raises(TimeoutError):
        result("a").get(0.001)


def test_parts_and_joined_results_follow_the_whole():
    ar = result("a", "b")
    first, second = ar.split()
    both = AsyncResult.join(second, first)
    arrive(ar, done("a", 1))
    assert first.get(0) == 1
    assert not second.done()
    arrive(ar, done("b", 2))
    assert both.get(0) == [2, 1]


def test_parts_made_after_the_values_were_read_have_them_too():
    ar = result("a", "b")
    arrive(ar, done("a", "x" * 10_000), done("b", 2))
    ar.get(0)  # drops large pickles
    assert [part.get(0) for part in ar.split()] == ["x" * 10_000, 2]


def test_abort_and_cancel_go_through_the_port():
    port = FakePort()
    ar = result("a", "b", port=port)
    ar.abort()
    assert ar.cancel()
    assert port.aborted == [(["a", "b"], False), (["a", "b"], True)]
    arrive(ar, done("a", 1), done("b", 2))
    assert not ar.cancel()
    assert len(port.aborted) == 2


def test_times():
    ar = result("a", "b", submitted=4.0)
    with pytest.raises(TimeoutError, match="not ready"):
        _ = ar.serial_time
    arrive(ar, done("a", 1, started=5.0, completed=6.0), done("b", 2, started=5.0, completed=8.0), now=10.0)
    assert (ar.serial_time, ar.wall_time, ar.elapsed) == (4.0, 6.0, 6.0)


def test_metadata_names_the_engine():
    ar = result("a", label="mine")
    arrive(ar, done("a", 1, engine=2))
    assert (ar.metadata.engine_id, ar.engine_uuid, ar.metadata.label, ar.status) == (2, "uuid2", "mine", "ok")


# ---------------------------------------------------------------------------------------------- as an argument


def test_as_an_argument_it_is_noted_and_unpickles_as_the_value():
    ar = result("a")
    stream, frames, results = pickled_call((ar, 2), {})
    assert results == [ar]
    made, _ = payload.dumps("the value")
    with input_cache.providing({TaskId("a"): (made, ())}):
        assert payload.loads(stream, frames) == (("the value", 2), {})


def test_outside_a_call_it_is_no_value():
    with pytest.raises(er.SerializationError, match="give its value"):
        pickle.dumps(result("a"))


def test_where_nothing_is_kept_the_value_itself_is_sent():
    ar = result("a", port=FakePort(keeps=False))
    arrive(ar, done("a", 5))
    stream, frames, results = pickled_call((ar,), {})
    assert (list(results), payload.loads(stream, frames)) == ([], ((5,), {}))
    direct = result("a", port=FakePort(keeps=False, direct=["a"]))
    arrive(direct, done("a", 5))
    with pytest.raises(er.InvalidDependency, match="cannot depend on direct tasks"):
        pickled_call((direct,), {})
