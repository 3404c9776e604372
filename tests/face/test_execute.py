"""Cells on engines: what comes out of them, as `ExecuteReply` and AsyncResult show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import engineroom as ipp


@pytest.fixture
def view(memory_cluster: ipp.Cluster) -> Iterator[ipp.DirectView]:
    with memory_cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=30)
        yield rc[0]
        rc[:].clear(block=True)


#: cell → (the text of its value, what it prints)
CELLS: dict[str, tuple[str | None, str]] = {
    "1 + 1": ("2", ""),
    "import asyncio\nawait asyncio.sleep(0)\n5": ("5", ""),
    "async def f(x):\n    return x\nawait asyncio.gather(f(1), f(2))": ("[1, 2]", ""),
    "print('p')\n'v'": ("'v'", "p\n"),
    "None": (None, ""),
    "4;": (None, ""),
    "x = 4": (None, ""),
    "": (None, ""),
    "%%capture c\nprint(3)": (None, ""),
    "!echo from a shell": (None, "from a shell\r\n"),
    "for i in range(2): print(i)": (None, "0\n1\n"),
}


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_gives_its_value_and_its_output(view: ipp.DirectView, cell: str):
    view.execute("import asyncio", block=True)
    text, printed = CELLS[cell]
    result = view.execute(cell, silent=False)
    reply = result.get(60)
    assert isinstance(reply, ipp.ExecuteReply)
    assert (reply.data.get("text/plain"), reply.stdout, reply.source) == (text, printed, cell)
    assert repr(reply) == f"<ExecuteReply[{reply.execution_count}]: {text or ''}>"
    assert (result.stdout, result.execute_input) == (printed, cell)
    assert (result.execute_result or {}).get("data", {}).get("text/plain") == text
    assert reply["engine_id"] == reply.engine_id == 0
    assert reply.msg_id == result.msg_ids[0]


def test_cells_are_counted_but_for_silent_ones(view: ipp.DirectView):
    first = view.execute("1", silent=False).get(60).execution_count
    assert view.execute("a = 1").get(60).execution_count is None
    assert view.execute("1 / 0", silent=False).exception(30).ename == "ZeroDivisionError"
    result = view.execute("_ + 1", silent=False)
    assert result.get(60).execution_count == first + 2
    assert result.execute_result["execution_count"] == first + 2
    assert result.get().data["text/plain"] == "2", "the last value has a name"


def test_what_is_displayed_is_kept_in_order(view: ipp.DirectView, capsys: pytest.CaptureFixture[str]):
    result = view.execute("from IPython.display import HTML, display\ndisplay(3, HTML('<b>'))\n'end'", silent=False)
    reply = result.get(60)
    assert [output["data"].get("text/html", output["data"]["text/plain"]) for output in result.outputs] == ["3", "<b>"]
    assert reply.outputs == result.outputs
    result.display_outputs()
    shown = capsys.readouterr().out
    assert "'end'" in shown
    assert shown.index("3") < shown.index("'end'")
    reply.display()
    assert "'end'" in capsys.readouterr().out


def test_help_is_printed(view: ipp.DirectView):
    assert "Return the number of items" in view.execute("len?", silent=False, block=True).stdout


@pytest.mark.parametrize("cell", ["exit", "exit()", "quit()", "import sys; sys.exit(3)", "raise SystemExit"])
def test_exit_ends_the_cell_not_the_engine(view: ipp.DirectView, cell: str):
    uuid = view.client._engines[0]
    with pytest.raises(ipp.RemoteError, match="SystemExit"):
        view.execute(cell, silent=False, block=True)
    assert view.execute("1", silent=False).get(60).data["text/plain"] == "1"
    assert view.client._engines[0] == uuid


@pytest.mark.parametrize(
    ("cell", "error"), [("1 +", SyntaxError), ("1 / 0", ZeroDivisionError), ("await nothing()", NameError)]
)
def test_an_error_of_a_cell_is_raised_as_its_own_class(view: ipp.DirectView, cell: str, error: type[Exception]):
    result = view.execute(cell, silent=False)
    with pytest.raises(error) as caught:
        result.get(60)
    assert isinstance(caught.value, ipp.RemoteError)
    assert result.error["ename"] == error.__name__
    assert result.status == "error"


def test_several_engines_have_lists(view: ipp.DirectView):
    result: Any = view.client[:].execute("import os\nos.getpid()", silent=False)
    replies = result.get(60)
    assert [reply.engine_id for reply in replies] == result.engine_id == [0, 1]
    texts = [reply.data["text/plain"] for reply in replies]
    assert [shown["data"]["text/plain"] for shown in result.execute_result] == texts
    assert len(set(texts)) == 2
