"""Output that is shown while tasks run: in a notebook `clear_output` on an engine clears the cell."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from engineroom.client.results import display
from engineroom.client.results.display import OutputStream, display_outputs
from engineroom.printable import CLEARED, CLEARED_BY_NEXT


class Result:
    """Two tasks, of which the test says what they have printed so far."""

    _single = False
    msg_ids = ("a", "b")

    def __init__(self) -> None:
        self._condition = threading.Condition()
        empty = {"stdout": "", "stderr": "", "outputs": [], "execute_result": None, "completed": None}
        self.tasks: dict[str, dict[str, Any]] = {id: {"msg_id": id, **empty} for id in self.msg_ids}
        self.tasks["a"]["engine_id"], self.tasks["b"]["engine_id"] = 0, 1

    def done(self) -> bool:
        return all(task["completed"] for task in self.tasks.values())

    def _metadata_of(self, id: str) -> Any:
        return self.tasks[id]


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A notebook, and how its cell has been cleared: whether the clearing waits for what comes next."""
    calls: list[bool] = []
    monkeypatch.setattr(display, "is_notebook", lambda: True)
    monkeypatch.setattr(display, "clear_cell", lambda wait: calls.append(wait))
    return calls


def test_clearing_prints_again_what_is_left(cleared: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    result = Result()
    stream = OutputStream(result)

    def shown(a: str, b: str) -> str:
        result.tasks["a"]["stdout"] += a
        result.tasks["b"]["stdout"] += b
        stream._show_new(whole_lines=True)
        return capsys.readouterr().out

    assert shown("one\n", "other\n") == "[stdout:0] one\n[stdout:1] other\n"
    assert shown(CLEARED_BY_NEXT, "") == ""
    assert cleared == []
    assert shown("two\n", "") == "[stdout:0] two\n[stdout:1] other\n"
    assert cleared == [True]
    assert shown("three\n", "") == "[stdout:0] three\n"
    assert shown(f"{CLEARED}four\n", "more\n") == "[stdout:0] four\n[stdout:1]\nother\nmore\n"
    assert cleared == [True, False]


def test_what_was_never_shown_needs_no_clearing(cleared: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    result = Result()
    result.tasks["a"] |= {"stdout": f"one\n{CLEARED}two\n", "completed": 1.0}
    OutputStream(result)._show_new(whole_lines=True)
    assert capsys.readouterr().out == "[stdout:0] two\n"
    assert cleared == []


def test_at_the_end_only_what_is_left_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    task = Result().tasks["a"] | {"stdout": f"one\n{CLEARED}two\n", "stderr": f"gone\n{CLEARED}", "completed": 1.0}
    display_outputs([task], "type", False, single=True)  # type: ignore[list-item]
    assert capsys.readouterr() == ("two\n", "")


def test_a_terminal_shows_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "is_notebook", lambda: False)
    result = Result()
    stream = OutputStream(result)
    for text in ("one\n", f"{CLEARED}two\n"):
        result.tasks["a"]["stdout"] += text
        stream._show_new(whole_lines=True)
    assert capsys.readouterr().out == "[stdout:0] one\n[stdout:0] two\n"
