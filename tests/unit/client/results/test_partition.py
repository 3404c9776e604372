"""How the items of a map are found, and how sequences are split."""

from __future__ import annotations

import ctypes
import itertools
from collections import deque

import numpy as np
import pytest

from engineroom.client.results.partition import as_columns, as_sequence, split


class Numbers:
    """A data set that knows only whole numbers as indices."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if isinstance(index, slice):
            raise TypeError("no slices")
        if not 0 <= index < 3:
            raise IndexError(index)
        return index * 10


def test_what_has_no_slices_becomes_a_list():
    assert as_columns([deque([1, 2, 3]), Numbers()]) == [[1, 2, 3], [0, 10, 20]]


@pytest.mark.parametrize("items", [[1, 2], (1, 2), range(2), "ab", b"ab", bytearray(b"ab"), np.arange(2)])
def test_what_slices_by_position_stays_as_it_is(items):
    assert as_columns([items])[0] is items


def test_a_memoryview_has_the_items_of_its_format():
    assert list(as_columns([memoryview(np.arange(2.0))])[0]) == [0.0, 1.0]
    assert as_columns([memoryview(np.arange(4.0).reshape(2, 2))]) == [[[0.0, 1.0], [2.0, 3.0]]]
    assert list(as_columns([memoryview(b"ab")])[0]) == [97, 98]


def test_a_memoryview_of_a_format_that_python_cannot_read_says_what_to_give():
    with pytest.raises(TypeError, match=r"give numpy\.asarray"):
        as_columns([memoryview((ctypes.c_int * 2 * 2)())])


@pytest.mark.parametrize("index", [[0, 1], [5, 6], [0.5, 1.5], ["a", "b"]])
def test_a_series_has_its_values_as_items_whatever_its_labels(index):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series([1, 2], index=index)
    assert as_columns([series, [7]]) == [[1], [7]]
    assert as_columns([series]) == [[1, 2]]


def test_a_map_over_a_frame_has_its_column_names_as_items():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 1], "b": [3, 4, 5]})
    assert as_columns([frame]) == [["a", "b"]]
    [groups] = as_columns([frame.groupby("a")])
    assert [key for key, _ in groups] == [1, 2]


@pytest.mark.parametrize("index", [[0, 1, 2], [0.5, 1.5, 2.5], ["a", "b", "c"]])
def test_a_frame_is_split_by_rows(index):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3]}, index=index)
    assert as_sequence(frame) is frame
    assert [list(part["a"]) for part in split(frame, 2, "b")] == [[1, 2], [3]]
    assert [list(part["a"]) for part in split(frame, 2, "r")] == [[1, 3], [2]]
    assert [len(column) for column in as_columns([frame, [7, 8]], whole=True)] == [2, 2]


def test_an_iterator_is_read_as_far_as_it_has_partners():
    numbers = itertools.count()
    assert as_columns([range(3), numbers, itertools.repeat("x")]) == [range(3), [0, 1, 2], ["x"] * 3]
    assert next(numbers) == 3
    assert as_columns([itertools.count(), iter("ab")]) == [[0, 1], ["a", "b"]]
    assert as_columns([iter([]), itertools.cycle("ab")]) == [[], []]
    assert as_columns([range(3), iter("ab")]) == [range(2), ["a", "b"]]
    assert as_columns(map(iter, ("abc", "de"))) == [["a", "b"], ["d", "e"]]
    assert as_columns([itertools.repeat(5, 2)]) == [[5, 5]]


def test_a_frame_beside_an_iterator_has_its_column_names_as_items():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1], "b": [2], "c": [3]})
    assert as_columns([frame, itertools.count()]) == [["a", "b", "c"], [0, 1, 2]]
    frames, numbers = as_columns([frame, itertools.count()], whole=True)
    assert (len(frames), numbers) == (1, [0])


@pytest.mark.parametrize(
    "items", [itertools.count(), itertools.cycle("ab"), itertools.repeat(1)], ids=["count", "cycle", "repeat"]
)
def test_endless_items_alone_are_refused(items):
    with pytest.raises(ValueError, match=r"is endless, and a map needs all items: imap takes them one by one"):
        as_columns([items])
    with pytest.raises(ValueError, match="is endless"):
        as_columns([items, itertools.count()])
    with pytest.raises(ValueError, match="is endless: it cannot be split into parts"):
        as_sequence(items)
