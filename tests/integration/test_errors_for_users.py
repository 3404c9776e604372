"""What a user meets when something goes wrong: errors that name their input, waits that end, cells after `clear`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

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
    where = f"Traceback on engine 1 ({error.host}), task {error.msg_id}, called with (3, by=0):"
    assert note.splitlines()[0] == where
    assert any("called with (3, by=0)" in line for line in error.render_traceback())


def test_a_composite_error_names_the_input_of_each(rc: er.Client):
    with pytest.raises(er.CompositeError, match=r"called with \(7\)") as caught:
        rc[:].apply_sync(divide, 7)
    assert str(caught.value).count("called with (7)") == 2
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
        assert "item 33, called with (33, 0)" in caught.value.__notes__[0]


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
