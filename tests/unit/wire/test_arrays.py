"""Arrays that show memory many times, and memory maps."""

from __future__ import annotations

import copyreg
import ctypes
import pickle
import subprocess
import sys
from array import array
from typing import Any

import numpy as np
import pytest

from engineroom.errors import SerializationError
from engineroom.wire import functions, payload


def sent(value: Any, **how: bool) -> tuple[Any, int]:
    """The value as it arrives, and how many bytes were sent for it."""
    stream, frames = payload.dumps(value, **how)
    return payload.loads(stream, frames), len(stream) + sum(memoryview(frame).nbytes for frame in frames)


windows = np.lib.stride_tricks.sliding_window_view


@pytest.mark.parametrize(
    ("array", "most"),
    [
        (np.broadcast_to(np.arange(1000.0), (1000, 1000)), 9_000),
        (np.broadcast_to(np.arange(1000.0)[:, None], (1000, 1000)), 9_000),
        (np.broadcast_to(np.datetime64("2020-01-01"), (1000, 100)), 400),
        (np.broadcast_to(np.array([1, "x", None], object), (10_000, 3)), 400),
        (np.broadcast_to(np.zeros(1, [("a", int), ("b", "S3")]), (10_000,)), 600),
        (windows(np.arange(10_000.0), 1000), 81_000),
        (windows(np.arange(10_000.0), 1000)[::-1, ::-3], 81_000),
        (np.broadcast_to(windows(np.arange(10_000.0), 100), (3, 9901, 100)), 81_000),
    ],
)
def test_memory_is_sent_once(array: Any, most: int) -> None:
    for value in (array, [array, lambda: 1]):  # the second needs cloudpickle
        arrived, size = sent(value)
        arrived = arrived if value is array else arrived[0]
        assert size < most + (0 if value is array else 2000)
        assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
        assert (arrived == array).all()
        assert not arrived.flags.writeable


@pytest.mark.parametrize(
    "array",
    [np.arange(10_000.0)[::3], np.arange(10_000.0).reshape(100, 100).T, np.zeros((0, 5)), np.arange(5), np.array(3)],
)
def test_other_arrays_are_pickled_as_ever(array: Any) -> None:
    arrived, size = sent(array)
    assert (arrived == array).all()
    assert size < array.nbytes + 500


def test_a_function_that_holds_one_is_small() -> None:
    wide = np.broadcast_to(np.arange(1000.0), (1000, 1000))
    assert len(functions.FunctionCache().get(lambda: wide).payload) < 12_000


def test_what_users_give_to_copyreg_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        pass

    copyreg.pickle(Odd, lambda odd: (int, (5,)))  # type: ignore[arg-type, return-value]
    try:
        assert sent([Odd()])[0] == [5]
    finally:
        del copyreg.dispatch_table[Odd]


@pytest.fixture
def mapped(tmp_path: Any) -> Any:
    path = tmp_path / "file"
    path.write_bytes(b"head" * 25 + np.arange(1_000_000.0).tobytes())
    return np.memmap(path, np.float64, "r", offset=100, shape=(1000, 1000))


@pytest.mark.parametrize(
    "part",
    [
        lambda m: m, lambda m: m[10:900], lambda m: m[::2, ::3], lambda m: np.asarray(m)[5:], lambda m: m.T,
        lambda m: m[::-1], lambda m: m[:, 7:], lambda m: m.view(np.int64),
    ],
)  # fmt: skip
def test_a_memory_map_is_a_name(mapped: Any, part: Any) -> None:
    array = part(mapped)
    arrived, size = sent(array, files=True)
    assert size < 500
    assert (type(arrived), arrived.dtype) == (np.memmap, array.dtype)
    assert (arrived == array).all()
    assert not arrived.flags.writeable
    there, size = sent(array)
    assert size > array.nbytes
    assert (there == array).all()


def test_a_small_one_is_bytes(mapped: Any) -> None:
    assert type(sent(mapped[0, :100], files=True)[0]) is np.ndarray


@pytest.mark.parametrize("mode", ["r+", "c", "w+"])
def test_a_map_that_this_process_can_change_is_bytes(mapped: Any, mode: Any) -> None:
    array = np.memmap(mapped.filename, np.float64, mode, shape=(100, 1000))
    array[0, 0] = 5
    arrived, size = sent(array, files=True)
    assert size > array.nbytes
    assert arrived[0, 0] == 5


def test_a_file_that_is_gone_is_bytes(mapped: Any) -> None:
    import os

    os.unlink(mapped.filename)
    assert (sent(mapped, files=True)[0] == mapped).all()


def test_another_file_is_an_error_where_it_is_opened(mapped: Any) -> None:
    import os

    stream, frames = payload.dumps(mapped, files=True)
    os.utime(mapped.filename, ns=(1, 1))
    with pytest.raises(OSError, match="has changed since the call"):
        payload.loads(stream, frames)
    os.unlink(mapped.filename)
    with pytest.raises(OSError, match="cannot open"):
        payload.loads(stream, frames)


# ------------------------------------------------------------------------------------------ copies


@pytest.mark.parametrize(
    "make", [lambda: np.zeros(100_000), lambda: bytearray(100_000), lambda: np.zeros((300, 300)).T]
)
def test_what_can_change_is_copied(make: Any) -> None:
    for value in (make(), [make()], {"a": (make(),)}):
        holder = value if not isinstance(value, list | dict) else value[0] if isinstance(value, list) else value["a"][0]
        stream, frames = payload.dumps(value)
        before = pickle.dumps(payload.loads(stream, frames))
        holder[:] = b"1" * 100_000 if isinstance(holder, bytearray) else 1
        assert pickle.dumps(payload.loads(stream, frames)) == before


def test_what_cannot_change_is_not_copied() -> None:
    constant = bytes(100_000)
    assert payload.dumps(constant)[1][0] is constant
    shown = np.frombuffer(constant, np.uint8)[16:]
    [frame] = payload.dumps(shown)[1]
    assert np.shares_memory(np.frombuffer(frame, np.uint8), shown)
    [frame] = payload.dumps_call((constant,), {})[1]
    assert np.shares_memory(np.frombuffer(frame, np.uint8), np.frombuffer(constant, np.uint8))


def test_a_caller_may_do_without_copies() -> None:
    array = np.zeros(100_000)
    [frame] = payload.dumps_call((array,), {}, keep=payload.as_is)[1]
    assert np.shares_memory(np.frombuffer(frame, np.float64), array)


VIEWS = {
    "bytes": memoryview(b"abc"),
    "writable": memoryview(bytearray(b"abc")),
    "empty": memoryview(b"").cast("i"),
    "numbers": memoryview(array("d", [1.5, 2.5])),
    "large": memoryview(array("l", range(5000))),
    "two dimensions": memoryview(bytes(range(24))).cast("i", (2, 3)),
    "no dimension": memoryview(np.array(2.5)),
    "with gaps": memoryview(np.arange(10))[::-3],
    "columns first": memoryview(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "no items": memoryview(np.zeros((0, 3))),
    "complex": memoryview(np.array([1 + 2j, 3j])),
    "records": memoryview(np.array([(1, 2.5)], [("a", int), ("b", float)])),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("wrap", [lambda view: view, lambda view: [view, {"a": view}], lambda view: (view, lambda: 1)])
def test_a_memoryview_keeps_its_format_and_its_shape(name: str, wrap: Any) -> None:
    view = VIEWS[name]
    arrived, _ = sent(wrap(view))
    arrived = arrived if wrap(view) is view else arrived[0]
    assert type(arrived) is memoryview
    assert (arrived.format, arrived.shape, arrived.tobytes()) == (view.format, view.shape, view.tobytes())
    assert arrived.readonly or not view.readonly


def test_a_large_memoryview_is_sent_beside_the_pickle() -> None:
    stream, frames = payload.dumps(VIEWS["large"])
    assert (len(stream) < 200, len(frames)) == (True, 1)


def test_a_memoryview_travels_without_numpy() -> None:
    code = """if True:
        import sys
        from engineroom.wire import payload
        arrived = payload.loads(*payload.dumps([memoryview(bytes(16)).cast("i", (2, 2))]))[0]
        assert (arrived.format, arrived.shape) == ("i", (2, 2)), arrived
        assert "numpy" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_memoryview_that_cannot_be_rebuilt_is_an_error_that_says_what_to_send() -> None:
    with pytest.raises(SerializationError, match=r"argument 0.* format '<i' .*numpy\.asarray\(view\)"):
        payload.dumps_call((memoryview((ctypes.c_int * 3)()),), {})
