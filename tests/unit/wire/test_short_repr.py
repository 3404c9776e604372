"""The arguments of a call as a short text: bounded, quick, and never an error."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from engineroom.wire.short_repr import LONGEST, SLOW_SECONDS, of_call, of_item, of_items, short


@dataclasses.dataclass
class Point:
    x: Any
    y: str = "a"


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Exits:
    def __repr__(self) -> str:
        raise SystemExit(3)


class Plain:
    pass


class HalfAPair:
    def __repr__(self) -> str:
        return "\ud800 and \0"


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "()"),
        ((3,), {}, "(3)"),
        ((3, "a", None), {}, "(3, 'a', None)"),
        ((3,), {"by": 0.5}, "(3, by=0.5)"),
        (([1, 2], {"k": (1,)}, {4}), {}, "([1, 2], {'k': (1,)}, {4})"),
        ((list(range(10)),), {}, "([0, 1, 2, 3, 4, 5, … 4 more])"),
        (tuple(range(10)), {}, "(0, 1, 2, 3, 4, 5, … 4 more)"),
        ((np.zeros((3, 4)),), {}, "(<ndarray shape=(3, 4) dtype=float64>)"),
        ((np.float64(0.5),), {}, f"({np.float64(0.5)!r})"),  # as numpy 1 or 2 shows it
        ((Point(1), len, int), {}, "(Point(x=1, y='a'), len, int)"),
        ((10**6000,), {}, "(<int of 19932 bits>)"),
        ((Plain(),), {}, f"(<{__name__}.Plain>)"),
        ((Raises(),), {}, f"(<{__name__}.Raises, its repr raised>)"),
        ((Exits(),), {}, f"(<{__name__}.Exits, its repr raised>)"),
        ((HalfAPair(),), {}, "(? and \\0)"),
    ],
)
def test_the_text_of_a_call(args: tuple[Any, ...], kwargs: dict[str, Any], text: str):
    assert of_call(args, kwargs) == text


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value] * 9
    return value


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "value", ["x" * 10**6, b"x" * 10**6, list(range(10**6)), deep(60), {"k" * 1000: "v" * 1000}, "é" * 1000]
)
def test_no_text_is_long(value: Any):
    assert len(of_call((value,), {"key": value})) <= LONGEST
    assert len(of_items([[value, value], [value, value]])) <= LONGEST


def test_a_container_that_holds_itself():
    value: list[Any] = []
    value.append(value)
    assert short(value) == "[[[[…]]]]"


def test_a_class_with_a_slow_repr_is_asked_once():
    asked = []

    class Slow:
        def __repr__(self) -> str:
            asked.append(1)
            end = time.perf_counter() + 2 * SLOW_SECONDS
            while time.perf_counter() < end:
                pass
            return "Slow()"

    assert short(Slow()) == "Slow()"
    assert short(Slow()).startswith("<")
    assert len(asked) == 1


def test_the_items_of_a_map():
    assert of_items([range(5, 10)]) == "5 items: (5) … (9)"
    assert of_items([[3], ["a"]]) == "(3, 'a')"
    assert of_items([]) == of_items([[]]) == "()"
    assert of_item([range(10), "abcdefghij"], 2) == "(2, 'c')"


def test_a_column_without_numbered_items():
    pandas = pytest.importorskip("pandas")
    assert of_items([pandas.Series([1, 2, 3])[1:]]) == f"2 items: ({np.int64(2)!r}) … ({np.int64(3)!r})"
    assert of_items([{7, 8}]).startswith("2 items: (item 0 of set)")
