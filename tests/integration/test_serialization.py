"""What travels, what cannot, and how that is told."""

from __future__ import annotations

import functools
import gc
import io
import os
import socket
import threading

import numpy as np
import pytest

import engineroom as er


class Bomb:
    """Can be unpickled only where it was pickled."""

    def __reduce__(self):
        return explode, (os.getpid(),)


def explode(pid):
    if os.getpid() != pid:
        raise ValueError("not here")


class Pair:
    """An ordinary class of a module."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None

    def total(self):
        return self.a + self.b


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -(2**100),
        1.5,
        float("inf"),
        1j,
        True,
        "",
        "ü\0\U0001f600",
        b"",
        b"\xff" * 70_000,
        bytearray(200_000),
        [],
        [1, [2, [3]]],
        {"a": {1: (2, {3})}},
        frozenset({1, 2}),
        range(5),
        slice(1, 2),
        Ellipsis,
        int,
        len,
        "x" * 1_000_000,
        list(range(100_000)),
        Pair(1, Pair(2, 3)),
    ],
    ids=lambda v: f"{type(v).__name__}-{str(v)[:12]!r}",
)
def test_values_come_back_as_they_went(rc, value):
    for view in (rc[0], rc.load_balanced_view()):
        there = view.apply_sync(lambda x: x, value)
        assert type(there) is type(value)
        assert there == value


def test_an_exception_may_be_a_value(rc):
    there = rc[0].apply_sync(lambda: ValueError("as a value"))
    assert repr(there) == "ValueError('as a value')"


def test_nan_and_many_arguments(rc):
    assert rc[0].apply_sync(lambda *a: len(a), *range(5000)) == 5000
    assert rc[0].apply_sync(lambda **k: len(k), **{f"k{i}": i for i in range(500)}) == 500
    nan = rc[0].apply_sync(lambda: float("nan"))
    assert nan != nan


@pytest.mark.parametrize(
    "array",
    [
        np.arange(0),
        np.arange(5),
        np.zeros((300, 300)),
        np.ones((3, 100_000), dtype=np.int8)[:, ::2],
        np.asfortranarray(np.random.default_rng(1).random((200, 100))),
        np.array(["a", "bc"]),
        np.array([None, {}], dtype=object),
        np.array(5.0),
        np.zeros(30_000, dtype=[("a", "i4"), ("b", "f8")]),
        np.datetime64("2024-01-01") + np.arange(10_000),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}".replace(" ", ""),
)
def test_arrays_travel(rc, array):
    there = rc[0].apply_sync(lambda x: x, array)
    assert there.dtype == array.dtype
    assert there.shape == array.shape
    assert (there == array).all()


def test_large_arrays_go_to_many_and_come_back(any_rc):
    array = np.random.default_rng(2).random(1_000_000)
    assert any_rc[:].apply_sync(lambda x: float(x.sum()), array) == [float(array.sum())] * 2
    back = any_rc[:].apply_sync(lambda x: x * 2, array)
    assert all((b == array * 2).all() for b in back)
    doubled = any_rc.load_balanced_view().map_sync(lambda x: x * 2, [array, array[::2]])
    assert (doubled[1] == array[::2] * 2).all()


def test_an_array_argument_may_be_written_to_by_the_task(rc):
    def add_one(x):
        x += 1
        return x.sum()

    array = np.zeros(100_000)
    assert rc[0].apply_sync(add_one, array) == 100_000
    assert array.sum() == 0
    assert rc[:].apply_sync(add_one, array) == [100_000] * 2


def test_an_array_result_may_be_written_to(rc):
    back = rc[0].apply_sync(np.zeros, 100_000)
    back += 1
    assert back.sum() == 100_000


def test_a_changed_array_is_sent_as_it_is_at_each_call(rc):
    array = np.zeros(50_000)
    assert rc[0].apply_sync(np.sum, array) == 0
    array += 1
    assert rc[0].apply_sync(np.sum, array) == 50_000


def test_functions_of_every_kind_travel(rc):
    view = rc[0]
    offset = 5

    def closure(x):
        return x + offset

    def with_defaults(x, *, y=[1, 2]):  # noqa: B006
        return x + sum(y)

    class Local:
        factor = 3

        def method(self, x):
            return x * self.factor

        @classmethod
        def by_class(cls, x):
            return x + cls.factor

        @staticmethod
        def by_none(x):
            return -x

        def __call__(self, x):
            return x - 1

    assert view.apply_sync(closure, 1) == 6
    assert view.apply_sync(with_defaults, 1) == 4
    assert view.apply_sync(functools.partial(closure, 2)) == 7
    assert view.apply_sync(Local().method, 2) == 6
    assert view.apply_sync(Local.by_class, 2) == 5
    assert view.apply_sync(Local.by_none, 2) == -2
    assert view.apply_sync(Local(), 2) == 1
    assert view.apply_sync(Local).factor == 3
    assert view.apply_sync(Pair(1, 2).total) == 3
    assert view.apply_sync("abc".upper) == "ABC"
    assert view.apply_sync(Pair, 1, 2) == Pair(1, 2)
    assert view.apply_sync(np.add, 1, 2) == 3
    assert view.apply_sync(map, str, [1]).__next__() == "1"


def test_a_closure_is_sent_as_it_is_at_each_call(rc):
    counter = [0]
    limit = 1

    def see():
        return counter[0], limit

    assert rc[0].apply_sync(see) == (0, 1)
    counter[0] = 7
    limit = 2
    assert rc[0].apply_sync(see) == (7, 2)
    see.__defaults__ = ()
    method = Pair(1, 2)
    assert rc[0].apply_sync(method.total) == 3
    method.a = 10
    assert rc[0].apply_sync(method.total) == 12


def test_functions_may_return_functions(rc):
    add = rc[0].apply_sync(lambda n: lambda x: x + n, 5)
    assert add(1) == 6
    assert rc[1].apply_sync(add, 2) == 7


# ---------------------------------------------------------------------------------------------- what cannot travel


@pytest.mark.fault(30)
def test_an_argument_that_cannot_be_pickled_is_named_with_its_path(rc):
    lock = threading.Lock()
    for view in (rc[0], rc[:], rc.load_balanced_view()):
        before = rc.hub_history()
        with pytest.raises(er.SerializationError, match=r"argument 1\['a'\]\[2\] cannot be pickled.*lock"):
            view.apply_async(len, 1, {"a": [0, 1, lock]})
        with pytest.raises(TypeError, match=r"argument 'key'.*socket"), socket.socket() as s:
            view.apply_async(len, key=s)
        with pytest.raises(er.SerializationError, match=r"\.b "):
            view.apply_async(len, Pair(1, lock))
        assert rc.hub_history() == before
        assert rc.outstanding == set()
    with pytest.raises(er.SerializationError):
        rc[0].push({"lock": lock})
    with pytest.raises(er.SerializationError):
        rc[:].scatter("x", [1, lock])
    assert rc.outstanding == set()


@pytest.mark.fault(30)
@pytest.mark.parametrize("chunksize", [1, 3, None])
def test_an_item_of_a_map_that_cannot_be_sent_is_named(rc: er.Client, chunksize: int | None) -> None:
    view, items = rc.load_balanced_view(), [*range(100), [0, threading.Lock()], *range(100)]
    with pytest.raises(er.SerializationError, match=r"^item 100\[1\] cannot be pickled, so nothing was sent.*lock"):
        view.map_async(str, items, chunksize=chunksize)
    with pytest.raises(er.SerializationError, match=r"^item 100, argument 1\[1\] cannot be pickled"):
        view.map_async(divmod, range(201), items, chunksize=chunksize)


def test_an_item_of_a_map_that_cannot_be_pickled_fails_the_map(rc):
    for view in (rc[:], rc.load_balanced_view()):
        with pytest.raises(er.SerializationError):
            view.map_sync(str, [1, threading.Lock(), 3])
    with pytest.raises(er.SerializationError):
        rc.load_balanced_view().map_sync(str, [*range(1200), threading.Lock()])
    assert rc.wait(timeout=60)


def test_a_function_that_cannot_be_pickled_names_what_it_refers_to(rc, typed):
    lock = threading.Lock()
    with pytest.raises(er.SerializationError, match=r"cannot be pickled.*lock \(a lock\)"):
        rc[0].apply_async(lambda: lock)
    uses = typed("import threading\nheld = threading.Lock()\ndef uses(): return held")
    with pytest.raises(er.SerializationError, match=r"uses cannot be pickled.*held \(a lock\)"):
        rc.load_balanced_view().apply_async(uses)
    assert rc.outstanding == set()


@pytest.mark.fault(31)
def test_a_result_that_cannot_be_pickled_is_an_error_of_the_task(rc):
    with pytest.raises(er.RemoteError, match=r"result\['deep'\]\[0\] cannot be pickled.*lock") as caught:
        rc[0].apply_sync(lambda: {"deep": [__import__("threading").Lock()]})
    assert caught.value.ename == "SerializationError"
    with pytest.raises(er.RemoteError, match="generator"):
        rc[0].apply_sync(lambda: (x for x in range(3)))
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.fault(31)
def test_a_result_that_cannot_be_unpickled_here(rc):
    result = rc[0].apply_async(Bomb)
    with pytest.raises(er.RemoteError, match="cannot be unpickled here: not here"):
        result.get(60)
    assert result.status == "ok", "the task itself was well"
    whole = rc[:].apply_async(Bomb)
    with pytest.raises(er.CompositeError):
        whole.get(60)
    assert rc[0].apply_sync(abs, -1) == 1


class Heavy:
    """An array, and a value that cannot be unpickled in the process of the client."""

    def __init__(self, number: int) -> None:
        import numpy

        self.array = numpy.zeros(50_000)

    def __reduce__(self):
        return _heavy, (os.getpid(), self.array)


def _heavy(made_in, array):
    if os.getpid() != made_in:
        raise MemoryError
    return array


@pytest.mark.fault(31)
def test_the_error_of_a_map_whose_results_cannot_be_unpickled_here_is_the_first_one(rc):
    """Not that of an attempt without the buffers, to name the items."""
    for result in (rc.load_balanced_view().map_async(Heavy, range(2)), rc[:].map_async(Heavy, range(2))):
        with pytest.raises(er.CompositeError) as caught:
            result.get(60)
        for error in caught.value.exceptions:
            assert error.ename == "MemoryError"
            assert "there is no memory here for the result, 0.4 MB" in str(error)


class TooLarge:
    """Like a value of which there is no memory for a copy."""

    def __reduce__(self):
        raise MemoryError


def test_without_memory_for_a_copy_nothing_is_said_of_pickles(rc):
    for view in (rc[:], rc.load_balanced_view()):
        with pytest.raises(MemoryError, match="no memory here for a copy of the arguments: nothing was sent"):
            view.apply_async(abs, TooLarge())
        with pytest.raises(MemoryError, match="no memory here for a copy of the arguments: nothing was sent"):
            view.map_async(abs, [TooLarge()])
    with pytest.raises(er.RemoteError, match="MemoryError: there is no memory on the engine for a copy of the result"):
        rc[0].apply_sync(TooLarge)


def test_an_argument_that_cannot_be_unpickled_there(rc):
    class There:
        def __reduce__(self):
            return int, ("not a number",)

    with pytest.raises(er.RemoteError, match=r"ValueError.*not a number"):
        rc[0].apply_sync(str, There())
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.fault(31)
def test_objects_that_misbehave_while_they_are_pickled(rc):
    class Liar:
        def __reduce__(self):
            raise KeyboardInterrupt("from a pickle")

    class Deep:
        def __init__(self):
            self.next = None

    first = last = Deep()
    for _ in range(100_000):
        last.next = Deep()
        last = last.next
    with pytest.raises(er.SerializationError):
        rc[0].apply_async(str, first)
    while first is not None:  # taken apart by hand: the interpreter would recurse
        first = first.next
    with pytest.raises(KeyboardInterrupt):
        rc[0].apply_async(str, Liar())
    assert rc.outstanding == set()
    assert rc[0].apply_sync(abs, -1) == 1


def test_results_are_freed_when_nobody_holds_them(rc):
    import weakref

    result = rc[0].apply_async(np.zeros, 1_000_000)
    array = result.get(60)
    alive = weakref.ref(array)
    del result, array
    gc.collect()
    assert alive() is None


def test_streams_and_files_do_not_travel(rc, tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(er.SerializationError, match="argument 0"):
        rc[0].apply_async(str, file)
    assert rc[0].apply_sync(lambda b: b.getvalue(), io.BytesIO(b"well")) == b"well"
