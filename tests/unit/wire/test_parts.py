"""How the parts of a result are put together."""

from __future__ import annotations

import subprocess
import sys
from array import array

import numpy as np
import pytest

from engineroom.wire.parts import Part, combine, join


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([[1, 2], [3]], [1, 2, 3]),
        ([(1, 2), (3,)], [1, 2, 3]),
        ([range(2), range(1)], [0, 1, 0]),
        ([bytearray(b"a"), array("i", [1])], [97, 1]),
        (["ab", "c"], ["ab", "c"]),
        ([b"ab", b"c"], [b"ab", b"c"]),
        ([{1: 2}, {}], [{1: 2}, {}]),
        ([{1, 2}, {3}], [{1, 2}, {3}]),
        ([np.arange(2), [7]], [0, 1, 7]),
        ([None, 1], [None, 1]),
        ([], []),
    ],
)
def test_sequences_are_chained_and_other_values_are_items(parts, whole):
    assert join(parts, "b") == whole


def test_arrays_without_axes_are_items():
    assert join([np.array(1), np.array(2)], "b") == [1, 2]
    assert join([np.array(1), np.array([2, 3])], "b") == [1, 2, 3]


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_arrays_become_one_array(dist, count):
    whole = np.arange(14).reshape(7, 2)
    parts = np.array_split(whole, count) if dist == "b" else [whole[i::count] for i in range(count)]
    np.testing.assert_array_equal(join(parts, dist), whole)


@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize(
    "parts",
    [
        [np.arange(5.0), np.arange(3.0)],
        [np.arange(12).reshape(4, 3), np.arange(6).reshape(2, 3), np.empty((0, 3), int)],
        [np.asfortranarray(np.arange(12).reshape(4, 3)), np.arange(6).reshape(2, 3)],
        [np.arange(3), np.arange(3.0)],
        [np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")],
        [np.array(["a", 1], object), np.array([None], object)],
        [np.array(["a"]), np.array(["abc"])],
    ],
)
def test_arrays_that_threads_copy_become_the_same_array(
    parts: list[np.ndarray], dist: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = join(parts, dist)
    monkeypatch.setattr("engineroom.wire.parts.COPIED_BY_THREADS", 0)
    found = join(parts, dist)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.flags.c_contiguous) == (expected.dtype, expected.flags.c_contiguous)
    assert found.base is None or dist == "r"
    assert found.flags.writeable


def test_arrays_of_different_shapes_are_refused_as_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engineroom.wire.parts.COPIED_BY_THREADS", 0)
    with pytest.raises(ValueError, match="must match exactly"):
        join([np.zeros((2, 3)), np.zeros((2, 4))], "b")


def test_arrays_of_other_libraries_are_put_together_by_numpy() -> None:
    pandas = pytest.importorskip("pandas")
    parts = [pandas.Categorical(["a", "b"]), pandas.Categorical(["b"])]
    assert list(join(parts, "b")) == ["a", "b", "b"]


def test_large_arrays_become_one_while_the_interpreter_ends() -> None:
    program = """
import atexit, numpy
from engineroom.wire import parts
parts.COPIED_BY_THREADS = 0
atexit.register(lambda: print(parts.join([numpy.arange(3), numpy.arange(2)], "b").tolist()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 0, 1]\n", "")


def test_round_robin_keeps_what_each_array_holds():
    assert join([np.array([1, 3]), np.array([2.5])], "r").tolist() == [1, 2.5, 3]


@pytest.mark.parametrize("dist", ["b", "r"])
def test_masked_arrays_keep_their_masks(dist):
    parts = [np.ma.array([1, 2], mask=[False, True]), np.ma.array([3, 4])]
    whole = combine([Part(part, dist) for part in parts])
    assert whole.tolist() == ([1, None, 3, 4] if dist == "b" else [1, 3, None, 4])
    assert isinstance(whole, np.ma.MaskedArray)


@pytest.mark.parametrize("index", [[0, 1, 2], [0.5, 1.5, 2.5], ["x", "y", "z"]])
def test_pandas_objects_become_one(index):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "dtype": ["p", "q", "r"]}, index=index)
    pandas.testing.assert_frame_equal(join([frame.iloc[:2], frame.iloc[2:]], "b"), frame)
    pandas.testing.assert_frame_equal(join([frame.iloc[::2], frame.iloc[1::2]], "r"), frame)
    pandas.testing.assert_series_equal(join([frame["a"].iloc[:2], frame["a"].iloc[2:]], "b"), frame["a"])
    pandas.testing.assert_series_equal(join([frame["a"].iloc[::2], frame["a"].iloc[1::2]], "r"), frame["a"])


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_tables_of_other_libraries_become_one(library: str):
    module = pytest.importorskip(library)
    columns = {"a": [1, 2, 3, 4, 5], "b": list("vwxyz")}
    table = module.DataFrame(columns) if library == "polars" else module.table(columns)
    assert join([table[:3], table[3:]], "b").equals(table)
    assert join([table[::2], table[1::2]], "r").equals(table)
    if library == "polars":
        assert join([table["b"][:3], table["b"][3:]], "b").equals(table["b"])
        assert join([table["b"][::2], table["b"][1::2]], "r").equals(table["b"])


def test_a_frame_beside_other_values_is_an_item():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1], "dtype": [2]})
    first, second, third = join([frame, [1], pandas.Series([2])], "b")
    assert first is frame
    assert (second, third) == (1, 2)
