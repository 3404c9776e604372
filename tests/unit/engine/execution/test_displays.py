"""What a task displays: kept, replaced, cleared, bounded, and made plain."""

from __future__ import annotations

import importlib
import json
import math
import sys
from typing import Any

import pytest

from engineroom.engine.execution import displays
from engineroom.engine.execution.displays import Displays, plain


def texts(shown: Displays) -> list[str]:
    return [output["data"]["text/plain"] for output in shown.outputs]


def test_outputs_are_kept_in_order_and_replaced_by_their_id():
    shown = Displays()
    shown.add({"text/plain": "a"}, transient={"display_id": "1"})
    shown.add({"text/plain": "b"})
    shown.add({"text/plain": "new"}, {"m": 1}, {"display_id": "1"}, update=True)
    shown.add({"text/plain": "nowhere"}, transient={"display_id": "2"}, update=True)
    shown.add({"text/plain": "no id"}, update=True)
    assert texts(shown) == ["new", "b"]
    assert shown.outputs[0]["metadata"] == {"m": 1}


def test_clearing_at_once_and_when_something_new_comes():
    shown = Displays()
    shown.add({"text/plain": "a"})
    shown.clear(wait=True)
    assert texts(shown) == ["a"]
    shown.add({"text/plain": "b"})
    assert texts(shown) == ["b"]
    shown.clear()
    assert texts(shown) == []


def test_what_is_too_much_is_left_out_with_a_word(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(displays, "MOST", 100)
    shown = Displays()
    shown.add({"text/plain": "x" * 60})
    shown.add({"text/html": "y" * 60})
    assert texts(shown)[0] == "x" * 60
    assert "left out" in texts(shown)[1]
    assert "text/html" not in shown.outputs[1]["data"]


def test_any_value_becomes_one_that_json_and_the_wire_can_say():
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    odd = {1: b"\x00\xff", "big": 1 << 80, "nan": math.nan, "set": {3}, "tuple": (1, None, True), "deep": deep,
           "lone": "\ud800"}  # fmt: skip
    made = plain(odd)
    assert made["1"] == "AP8="
    assert made["big"] == str(1 << 80)
    assert made["nan"] == "nan"
    assert made["set"] == "{3}"
    assert made["tuple"] == [1, None, True]
    json.dumps(made, allow_nan=False).encode()


def test_functions_are_changed_when_their_module_is_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """The finder, tried on a module of our own."""
    (tmp_path / "shown_late.py").write_text("def display(x): return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(displays, "_MODULE", "shown_late")
    calls: list[str] = []
    before = list(sys.meta_path)
    displays.watch(lambda: calls.append("made"))
    try:
        module = importlib.import_module("shown_late")
        assert sys.meta_path == before, "it has done its work"
        assert module.display(5) == 5
        assert module.display.__module__ == "shown_late"
        assert calls == ["made"]
        displays.watch(lambda: calls.append("again"))
        assert module.display(6) == 6
        assert calls == ["made", "again", "made"]
    finally:
        sys.meta_path[:] = before
        sys.modules.pop("shown_late", None)
