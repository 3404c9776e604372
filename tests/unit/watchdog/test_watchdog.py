"""A loop that hangs is noticed, and the log says where."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from engineroom.controller.loop import Controller
from engineroom.stores import DictDB
from engineroom.testing import MemoryNetwork
from engineroom.watchdog.watchdog import Watchdog, stacks


@pytest.mark.fault(15)
def test_the_log_names_what_the_controllers_loop_hangs_in(caplog: pytest.LogCaptureFixture):
    controller = Controller(MemoryNetwork().listener, DictDB(), "key")
    go_on, turned = threading.Event(), threading.Event()

    def waits_for_ever() -> None:
        assert go_on.wait(20)

    def told(text: str) -> bool:
        deadline = time.monotonic() + 20
        while text not in caplog.text and time.monotonic() < deadline:
            turned.wait(0.01)
        return text in caplog.text

    def look() -> None:
        assert told("the loop has not turned for")
        go_on.set()

    other = threading.Thread(target=look, name="a bystander")
    with caplog.at_level(logging.WARNING), Watchdog("the loop", lambda: controller.turns, 0.2):
        controller.post(waits_for_ever)
        other.start()
        controller.turn()
        while "the loop turns again" not in caplog.text:
            controller.post(lambda: None)
            controller.turn()
    other.join()
    controller.close()
    assert "waits_for_ever" in caplog.text
    assert "thread a bystander" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_stacks_name_other_threads():
    end = threading.Event()
    other = threading.Thread(target=end.wait, args=(20,), name="one that waits")
    other.start()
    found = stacks()
    end.set()
    other.join()
    assert "thread one that waits:" in found
    assert "test_stacks_name_other_threads" not in found, "this thread knows what it does"
