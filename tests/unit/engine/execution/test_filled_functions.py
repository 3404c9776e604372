"""Functions whose large buffers travel beside them, and how many of them an engine keeps."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from engineroom.engine.execution import filled_functions
from engineroom.engine.execution.filled_functions import FilledFunctions
from engineroom.shared_memory.pool import Pool
from engineroom.wire.functions import FunctionCache, Hollow, load_function

MB = 1 << 20


def item(values: np.ndarray, index: int) -> int:
    return int(values[index])


class Table:
    def __init__(self, values: np.ndarray) -> None:
        self.values, self.calls = values, 0

    def at(self, index: int) -> int:
        self.calls += 1
        return int(self.values[index])

    def count(self, index: int) -> int:
        self.calls += 1
        return self.calls


def sent(function, pool=None):
    """What travels of a function: (digest, the Hollow that arrives, its buffers)."""
    apart: list[memoryview] = []
    pickled = FunctionCache().get(function, apart)
    assert len(pickled.payload) < 20_000
    hollow = load_function(pickled).call
    assert isinstance(hollow, Hollow)
    return pickled.digest, hollow, [(pool or Pool()).copy(memory) for memory in apart]


def numbers(first: int) -> np.ndarray:
    return np.arange(first, first + MB // 8, dtype=np.int64)


def test_methods_partials_and_closures_travel_without_their_arrays():
    values = numbers(7)
    for function in (Table(values).at, functools.partial(item, values), lambda index: int(values[index])):
        digest, hollow, buffers = sent(function)
        assert sum(map(len, buffers)) == MB
        assert FilledFunctions().get(digest, hollow, ["of the arguments", *buffers], 0.0).call(3) == 10


def test_small_arrays_stay_in_the_pickle():
    values, apart = np.arange(1000), []
    pickled = FunctionCache().get(lambda: int(values[5]), apart)
    assert apart == []
    assert load_function(pickled).call() == 5


def test_a_function_is_unpickled_once_for_the_same_buffers():
    digest, hollow, buffers = sent(Table(numbers(0)).count)
    filled = FilledFunctions()
    assert [filled.get(digest, hollow, buffers, 0.0).call(1) for _ in range(3)] == [1, 2, 3]
    assert filled.bytes == MB


def test_the_same_function_with_other_buffers_is_another():
    table, pool, filled = Table(numbers(0)), Pool(), FilledFunctions()
    first = sent(table.at, pool)
    table.values[1] = 77
    second = sent(table.at, pool)
    assert first[0] == second[0], "the digest is that of the pickle without buffers"
    assert [filled.get(*arrived, 0.0).call(1) for arrived in (first, second, first)] == [1, 77, 1]


def test_what_a_function_does_to_its_array_nobody_else_sees():
    table = Table(numbers(0))
    digest, hollow, buffers = sent(table.at)
    before = bytes(buffers[0])
    function = FilledFunctions().get(digest, hollow, buffers, 0.0).call
    function.__self__.values[:] = 0
    assert bytes(buffers[0]) == before


def test_the_function_used_longest_ago_is_dropped_first_and_the_last_one_never():
    filled = FilledFunctions(limit=2 * MB)
    arrived = [sent(Table(numbers(first)).count) for first in range(3)]
    for each in arrived:
        filled.get(*each, 0.0)
    assert filled.bytes == 2 * MB
    assert filled.get(*arrived[1], 0.0).call(0) == 1
    large = FilledFunctions(limit=10)
    large.get(*arrived[0], 0.0)
    assert large.get(*arrived[0], 0.0).call(0) == 1
    assert large.bytes == MB


def test_a_function_that_is_not_used_any_more_leaves_memory():
    filled = FilledFunctions()
    filled.get(*sent(Table(numbers(0)).at), 100.0)
    filled.tidy(100.0 + filled_functions.KEPT_SECONDS / 2)
    assert filled.bytes == MB
    filled.tidy(101.0 + filled_functions.KEPT_SECONDS)
    assert filled.bytes == 0


def test_a_hollow_cannot_be_called():
    with pytest.raises(TypeError, match="buffers of this function are missing"):
        Hollow(b"", 1)()
