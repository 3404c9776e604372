"""When another process takes the place of an engine, for the memory that it has."""

from __future__ import annotations

import pytest

from engineroom.config import MIB
from engineroom.engine.memory import MemoryLimit, memory_in_use


def test_what_this_process_has():
    used = memory_in_use()
    assert used is not None
    assert used > MIB


@pytest.mark.fault(35)
def test_the_limit_is_passed_after_a_task_that_left_too_much():
    used = [30 * MIB]
    memory = MemoryLimit(100 * MIB, lambda: used[0])
    assert [memory.begin(), memory.passed()] == ["", ""]
    used[0] = 101 * MIB
    assert "have left 101 MiB in memory, and memory_limit is 100 MiB" in memory.passed()
    memory.has_user = True
    assert memory.passed() == "", "the namespace is the user's"


def test_a_limit_below_what_an_engine_needs_has_no_effect():
    memory = MemoryLimit(20 * MIB, lambda: 30 * MIB)
    assert memory.begin().startswith("memory_limit has no effect: it is 20 MiB, and an engine has 30 MiB in memory")
    assert memory.passed() == ""


@pytest.mark.parametrize("used", [1 << 50, None])
def test_without_a_limit_or_a_measure_nothing_happens(used: int | None):
    assert MemoryLimit(0 if used else MIB, lambda: used).passed() == ""
