"""The thread that runs done-callbacks: in order, whatever they raise; it ends when there is nothing to do."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from engineroom.client.waiting import callbacks


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engineroom-callbacks"]


def test_callbacks_run_in_order_and_the_thread_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(callbacks, "IDLE_SECONDS", 0.01)
    runner, heard = callbacks.CallbackThread(), queue.SimpleQueue[Any]()

    def fails(future: Any) -> None:
        raise SystemExit(future)

    runner.run("a", [heard.put, fails, lambda future: heard.put(future + "!")])
    runner.run("b", [heard.put])
    assert [heard.get(timeout=10) for _ in range(3)] == ["a", "a!", "b"]
    for thread in threads():
        thread.join(10)
    assert not threads()
    runner.run("c", [heard.put])  # it begins again
    assert heard.get(timeout=10) == "c"
    for thread in threads():
        thread.join(10)


def test_a_callback_may_add_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(callbacks, "IDLE_SECONDS", 0.01)
    runner, heard = callbacks.CallbackThread(), queue.SimpleQueue[Any]()
    runner.run("a", [lambda future: runner.run("b", [heard.put]), heard.put])
    assert [heard.get(timeout=10) for _ in range(2)] == ["a", "b"]
    for thread in threads():
        thread.join(10)
