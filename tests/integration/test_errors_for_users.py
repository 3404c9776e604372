"""What a user meets when something goes wrong: errors that name their input, waits that end, cells after `clear`."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until

import engineroom as er


def shown(view: er.DirectView, code: str) -> list[str]:
    """What a cell shows, on each engine."""
    return [reply.data.get("text/plain", "") for reply in view.execute(code, silent=False).get()]


# ---------------------------------------------------------------------------------------------- cells after clear


@pytest.mark.parametrize(
    "before", ["1", "_oh = {}\nIn = 3\nget_ipython = None", "del _oh, In, Out, get_ipython", "globals().clear()"]
)
def test_cells_show_values_after_clear(rc: er.Client, before: str):
    shown(rc[:], before)
    rc.clear(block=True)
    assert shown(rc[:], "a = 20\na + 1") == ["21", "21"]
    assert shown(rc[:], "_ + 1") == ["22", "22"]
    assert rc[0].apply_sync(bool, er.Reference("get_ipython().user_ns is globals()"))


@pytest.mark.parametrize("code", ["del _oh, In, Out", "globals().clear()", "%reset -f"])
def test_a_cell_that_deletes_names_of_ipython_does_not_break_the_next(rc: er.Client, code: str):
    shown(rc[0:1], code)
    assert shown(rc[0:1], "1 + 1") == ["2"]


def test_clear_drops_the_values_that_cells_have_shown(rc: er.Client):
    shown(rc[0:1], "'kept'")
    rc.clear(block=True)
    assert "kept" not in shown(rc[0:1], "Out")[0]


# ---------------------------------------------------------------------------------------------- errors name their input


def divide(x: Any, by: Any = 0) -> Any:
    return x / by


def test_an_error_names_task_engine_host_and_arguments(rc: er.Client):
    result = rc[1].apply_async(divide, 3, by=0)
    with pytest.raises(er.RemoteError) as caught:
        result.get()
    error = caught.value
    assert isinstance(error, ZeroDivisionError)
    assert (error.msg_id, error.engine_id, error.host) == (result.msg_ids[0], 1, socket.gethostname())
    assert error.arguments == "(3, by=0)"
    assert error.index is None
    [note] = error.__notes__
    where = f"Traceback on engine 1 ({error.host}), task {error.msg_id}, called with: 3, by=0:"
    assert note.splitlines()[0] == where
    assert any("called with: 3, by=0" in line for line in error.render_traceback())


def test_a_composite_error_names_the_input_of_each(rc: er.Client):
    with pytest.raises(er.CompositeError, match=r"called with: 7") as caught:
        rc[:].apply_sync(divide, 7)
    assert str(caught.value).count("called with: 7") == 2
    assert str(caught.value).endswith("`except* ZeroDivisionError`, or `get(return_exceptions=True)`")
    assert [entry[3]["arguments"] for entry in caught.value.elist] == ["(7)", "(7)"]
    assert [entry[3]["engine_id"] for entry in caught.value.elist] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        caught.value.raise_exception(1)
    found: list[BaseException] = []
    try:
        rc[:].apply_sync(divide, 7)
    except* ZeroDivisionError as group:
        found += group.exceptions
    assert [one.engine_id for one in found if isinstance(one, er.RemoteError)] == [0, 1]


def test_an_error_of_a_map_names_the_item(rc: er.Client):
    balanced, direct = rc.load_balanced_view(), rc[:]
    for give in (
        lambda: balanced.map_async(divide, range(40), [1] * 33 + [0] + [1] * 6),
        lambda: balanced.map_async(divide, range(40), [1] * 33 + [0] + [1] * 6, chunksize=7),
        lambda: direct.map_async(divide, range(40), [1] * 33 + [0] + [1] * 6),
        lambda: direct.map_async(divide, range(40), [1] * 33 + [0] + [1] * 6, dist="r"),
    ):
        result = give()
        with pytest.raises(ZeroDivisionError) as caught:
            result.get()
        assert isinstance(caught.value, er.RemoteError)
        assert (caught.value.index, caught.value.arguments) == (33, "(33, 0)")
        assert caught.value.msg_id in result.msg_ids
        assert "item 33, called with: 33, 0" in caught.value.__notes__[0]


def test_an_error_of_imap_names_the_item_and_the_record_says_map(rc: er.Client):
    view = rc.load_balanced_view()
    for ordered in (True, False):
        values = view.imap(divide, range(40), [1] * 33 + [0] + [1] * 6, ordered=ordered, return_exceptions=True)
        [error] = [value for value in values if isinstance(value, ZeroDivisionError)]
        assert isinstance(error, er.RemoteError)
        assert (error.index, error.arguments) == (33, "(33, 0)")
        [record] = rc.db_query({"msg_id": error.msg_id}, ["header", "result_content"])
        assert record["header"]["msg_type"] == "map_request"


def test_an_error_of_a_growing_map_names_the_item(rc: er.Client):
    values = rc.load_balanced_view().map_async(divide, [1] * 3000, [1] * 2500 + [0] + [1] * 499)
    error = values.get(return_exceptions=True)[2500]
    assert (error.index, error.arguments) == (2500, "(1, 0)")


def test_records_have_the_arguments(any_rc: er.Client):
    view = any_rc.load_balanced_view()
    result = view.apply_async(divide, 6, by=3)
    result.get()
    [record] = any_rc.db_query({"msg_id": result.msg_ids[0]}, keys=["arguments", "state"])
    assert record["arguments"] == "(6, by=3)"
    assert any_rc.db_count({"arguments": "(6, by=3)"}) >= 1
    again = any_rc.resubmit(result.msg_ids, block=True)
    assert any_rc.db_query({"msg_id": again.msg_ids[0]}, keys=["arguments"])[0]["arguments"] == "(6, by=3)"


def test_arguments_are_not_recorded_if_that_is_off(rc: er.Client):
    rc.record_arguments = False
    for view in (rc[0], rc.load_balanced_view()):
        result = view.apply_async(divide, "secret")
        with pytest.raises(er.RemoteError) as caught:
            result.get()
        assert caught.value.arguments is None
        assert "secret" not in "".join(caught.value.render_traceback())
        assert rc.db_query({"msg_id": result.msg_ids[0]}, keys=["arguments"])[0]["arguments"] is None


def test_errors_of_the_engine_name_the_arguments_too(rc: er.Client):
    view = rc.load_balanced_view(run_timeout=0.2)
    with pytest.raises(er.TaskTimeout) as caught:
        view.apply_sync(time.sleep, 30)
    assert caught.value.arguments == "(30)"
    assert caught.value.msg_id == view.history[-1]


# ---------------------------------------------------------------------------------------------- original classes


class Defined(Exception):
    """Its constructor has two arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} {second}")
        self.first = first


def raise_defined() -> None:
    try:
        {}["k"]
    except KeyError as error:
        raise Defined(1, 2) from error


def test_the_original_class_is_caught(rc: er.Client):
    with pytest.raises(Defined, match="1 2") as caught:
        rc[0].apply_sync(raise_defined)
    assert caught.value.first == 1
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value, er.RemoteError)


def test_a_class_of_the_script_is_caught(rc: er.Client, typed: Callable[[str], Any]):
    function = typed("class OfTheScript(Exception):\n    pass\n\ndef raises():\n    raise OfTheScript('here')\n")
    with pytest.raises(sys.modules["__main__"].__dict__["OfTheScript"], match="here"):
        rc[0].apply_sync(function)


def test_a_result_fetched_again_raises_the_same(any_rc: er.Client):
    result = any_rc[0].apply_async(raise_defined)
    result.wait()
    with any_rc.cluster.connect_client_sync() if any_rc.cluster else er.Client(any_rc.connection) as other:
        with pytest.raises(Defined) as caught:
            other.get_result(result.msg_ids[0]).get()
        assert isinstance(caught.value.__cause__, KeyError)
        assert caught.value.msg_id == result.msg_ids[0]


# ---------------------------------------------------------------------------------------------- waits


@contextlib.contextmanager
def interrupted_in(function: str) -> Iterator[None]:
    """SIGINT comes as soon as this thread is inside a function of this name; the block is to end by then."""
    main, over = threading.get_ident(), threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            frame = sys._current_frames().get(main)
            while frame is not None:
                if frame.f_code.co_name == function:
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                frame = frame.f_back

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("interrupts_arrive")
@pytest.mark.fault(3)
@pytest.mark.parametrize("how", ["get", "wait", "iterate", "rc.wait", "first"])
def test_ctrl_c_in_a_wait_says_what_goes_on(rc: er.Client, how: str):
    result = rc.load_balanced_view().map_async(time.sleep, [30, 30, 30])
    waits: dict[str, Callable[[], Any]] = {
        "get": result.get,
        "wait": result.wait,
        "iterate": lambda: list(result),
        "rc.wait": rc.wait,
        "first": lambda: result.wait(return_when="FIRST_COMPLETED"),
    }
    name = {"first": "wait_for_futures", "iterate": "wait_until"}.get(how, "wait_for_result")
    with pytest.raises(KeyboardInterrupt) as caught, interrupted_in(name):
        waits[how]()
    [note] = caught.value.__notes__
    assert note.startswith("3 tasks of this client go on while the cluster runs. rc.cancel() ends all")
    rc.cancel()
    assert result.wait(60)


def test_callbacks_may_wait_and_keep_their_order(rc: er.Client):
    view, heard = rc.load_balanced_view(), queue.SimpleQueue[Any]()

    def ask(first: er.AsyncResult) -> None:
        heard.put(view.apply_sync(divide, first.get(), 2))
        heard.put(list(view.map_async(divide, [4, 6], [2, 2])))
        heard.put(rc.wait())
        heard.put(len(rc.db_query({"msg_id": first.msg_ids[0]})))

    with_gate = view.apply_async(time.sleep, 0.2)
    result = view.apply_async(delayed, 0.2, 12)
    for call in (ask, lambda first: 1 / 0, lambda first: sys.exit(1), lambda first: heard.put("last")):
        result.add_done_callback(call)
    assert [heard.get(timeout=60) for _ in range(5)] == [6.0, [2.0, 3.0], True, 1, "last"]
    with_gate.get()
    result.add_done_callback(lambda done: heard.put(threading.current_thread()))
    assert heard.get(timeout=60) is threading.current_thread()


def delayed(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


class WaitsWhenUnpickled:
    result: er.AsyncResult

    def __reduce__(self) -> Any:
        return wait_here, ()


def wait_here() -> Any:
    return WaitsWhenUnpickled.result.get() if hasattr(WaitsWhenUnpickled, "result") else None


def publish(seconds: float) -> None:
    from engineroom.on_engine.datapub import publish_data

    publish_data({"waits": WaitsWhenUnpickled()})
    time.sleep(seconds)


def test_a_wait_in_the_thread_of_the_results_is_an_error(rc: er.Client, monkeypatch: pytest.MonkeyPatch):
    result = rc[0].apply_async(publish, 0.3)
    monkeypatch.setattr(WaitsWhenUnpickled, "result", result, raising=False)
    assert result.get(timeout=60) is None
    assert result.data == {}


# ---------------------------------------------------------------------------------------------- waits in tasks


def run_inside(info: Any, function: Callable[..., Any], *items: Any) -> Any:
    print("before")
    with er.Client(info) as rc:
        values = rc.load_balanced_view().map_sync(function, items)
        direct = rc[:].apply_sync(function, 100)
    print("after")
    task = er.current_task()
    return values, direct, task.msg_id if task else None


def say(x: Any) -> Any:
    print(f"inside {x}")
    return x


def dive(info: Any, depth: int) -> int:
    if depth == 0:
        return 0
    with er.Client(info) as rc:
        return 1 + rc.load_balanced_view().apply_sync(dive, info, depth - 1)


def wait_for_ever(info: Any) -> None:
    with er.Client(info) as rc:
        rc.load_balanced_view(after=[rc.load_balanced_view().apply_async(time.sleep, 60)]).apply_sync(say, 1)


def test_a_task_that_waits_for_its_own_cluster_on_its_last_engine(fresh_cluster: Callable[..., er.Client]):
    rc = fresh_cluster(n=1)
    view = rc.load_balanced_view()
    result = view.apply_async(run_inside, rc.connection, say, 1, 2, 3)
    assert result.get(timeout=60) == ([1, 2, 3], [100], result.msg_ids[0])
    assert result.stdout == "before\nafter\n"
    [inside] = rc.db_query({"arguments": "(2)"}, keys=["stdout", "state"])
    assert (inside["stdout"], inside["state"]) == ("inside 2\n", "completed")
    assert view.apply_async(dive, rc.connection, 8).get(timeout=60) == 8
    with pytest.raises(er.RemoteError, match="WaitError: 20 tasks of this engine wait"):
        view.apply_async(dive, rc.connection, 30).get(timeout=60)
    assert view.apply_sync(say, 5) == 5

    # What waits can be stopped like anything else.
    result = view.apply_async(wait_for_ever, rc.connection)
    wait_until(lambda: "waits for other tasks" in str(rc.explain(result)))
    rc.cancel(query={"arguments": "(60)"})
    result.cancel()
    with pytest.raises(er.TaskAborted):
        result.get(timeout=60)
    late = rc.load_balanced_view(run_timeout=0.5).apply_async(dive_and_sleep, rc.connection)
    with pytest.raises(er.TaskTimeout):
        late.get(timeout=30)
    rc.cancel(query="all")
    assert view.apply_async(say, 6).get(timeout=60) == 6


def dive_and_sleep(info: Any) -> None:
    with er.Client(info) as rc:
        rc.load_balanced_view(after=[rc.load_balanced_view().apply_async(time.sleep, 1)]).apply_sync(say, 1)
        time.sleep(60)
