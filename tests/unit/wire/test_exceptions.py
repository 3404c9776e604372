"""Exceptions packed on an engine and made again at a client: class, state, notes, causes, groups; what cannot be."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import traceback
from typing import Any

import pytest

from engineroom.errors import RemoteError, TaskTimeout
from engineroom.wire.exceptions import LARGEST, pack, remote_error, text_of


class TwoArguments(Exception):
    """Its constructor has other arguments than `args`, so that it cannot be unpickled in the usual way."""

    def __init__(self, first: int, *, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class WithSlots(ValueError):
    __slots__ = ("place",)


class Unpicklable(ValueError):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()
        self.number = 7


class HostileReduce(KeyError):
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


class HostileAttributes(ValueError):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class NeedsArguments(Exception):
    def __new__(cls, a: int, b: int) -> Any:
        return super().__new__(cls, a)

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


def trip(error: BaseException) -> RemoteError:
    """The error as a client raises it."""
    text = text_of(error)
    name = type(error).__name__
    return remote_error(name, text, "Traceback …", {"engine_id": 0, "msg_id": "a-1"}, pack(error, text))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("k"),
        ValueError("v", 2),
        OSError(2, "No such file", "name"),
        TwoArguments(1, second=2),
        NeedsArguments(1, 2),
        HostileReduce("k"),
        ImportError("no", name="module"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_the_error_is_of_the_original_class_too(error: Exception):
    again = trip(error)
    assert isinstance(again, RemoteError)
    assert isinstance(again, type(error))
    assert again.args == error.args
    assert (again.ename, again.evalue, again.msg_id) == (type(error).__name__, str(error), "a-1")
    assert str(again) == f"[0:apply] {type(error).__name__}: {error}"


def test_attributes_come_along():
    error = trip(TwoArguments(1, second=2))
    assert isinstance(error, TwoArguments)
    assert (error.first, error.second) == (1, 2)
    missing = trip(FileNotFoundError(2, "No such file", "name"))
    assert isinstance(missing, OSError)
    assert (missing.errno, missing.filename) == (2, "name")
    with pytest.raises(json.JSONDecodeError) as decoding:
        json.loads("{")
    again = trip(decoding.value)
    assert isinstance(again, json.JSONDecodeError)
    assert (again.doc, again.pos) == ("{", 1)
    with_slots = WithSlots("v")
    with_slots.place = "here"
    slots = trip(with_slots)
    assert isinstance(slots, WithSlots)
    assert slots.place == "here"


def test_what_cannot_be_pickled_is_left_out():
    error = trip(Unpicklable())
    assert isinstance(error, Unpicklable)
    assert error.number == 7
    assert not hasattr(error, "lock")
    large = trip(ValueError(b"x" * LARGEST))
    assert isinstance(large, ValueError)
    assert large.evalue == str(ValueError(b"x" * LARGEST))


def test_a_class_that_is_not_known_here_gives_way_to_its_builtin_base(monkeypatch: pytest.MonkeyPatch):
    there = type("OnlyThere", (LookupError,), {"__module__": __name__})
    monkeypatch.setitem(globals(), "OnlyThere", there)
    packed = pack(there("gone"), "gone")
    monkeypatch.delitem(globals(), "OnlyThere")
    error = remote_error("OnlyThere", "gone", "", {}, packed)
    assert isinstance(error, LookupError)
    assert type(error).__name__ == "RemoteLookupError"
    assert error.ename == "OnlyThere"


@pytest.mark.parametrize(
    "error", [StopIteration(1), StopAsyncIteration(), SystemExit(3), KeyboardInterrupt(), GeneratorExit(),
              TaskTimeout("its own"), Exception("plain")],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_errors_that_would_steer_the_client_stay_remote_errors(error: BaseException):
    again = trip(error)
    assert not isinstance(again, type(error)) or type(error) is Exception
    assert again.ename == type(error).__name__


def test_a_hostile_exception_keeps_its_text():
    error = HostileAttributes("v")
    try:
        packed = pack(error, "v")
    except Exception:
        packed = b""
    again = remote_error("HostileAttributes", "v", "", {}, packed)
    assert str(again) == "HostileAttributes: v"


@pytest.mark.parametrize("packed", [b"", b"nonsense", b"\x93\xa1a\xa1b\xc4\x03abc"])
def test_bytes_that_cannot_be_read_give_a_plain_remote_error(packed: bytes):
    assert type(remote_error("ValueError", "v", "", {}, packed)) is RemoteError


def test_causes_contexts_and_notes_are_reachable():
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise TwoArguments(1, second=2)  # noqa: B904 — the context is what is tested
        except TwoArguments as second:
            second.add_note("of the second")
            raise ValueError("third") from second
    except ValueError as raised:
        raised.add_note("of the third")
        error = trip(raised)
    assert error.__notes__[0] == "of the third"
    assert error.__notes__[1].startswith("Traceback on engine 0")
    cause = error.__cause__
    assert type(cause) is TwoArguments
    assert cause.__notes__ == ["of the second"]
    assert isinstance(cause.__context__, KeyError)
    assert "direct cause" in "".join(traceback.format_exception(error))


def test_a_chain_that_goes_in_a_circle_ends():
    first, second = ValueError("1"), KeyError("2")
    first.__context__, second.__context__ = second, first
    error = trip(first)
    assert isinstance(error.__context__, KeyError)
    assert error.__context__.__context__ is None


def test_groups_are_caught_by_except_star():
    group = ExceptionGroup("some", [ValueError("v"), ExceptionGroup("inner", [TwoArguments(1, second=2)])])
    group.exceptions[0].add_note("noted")
    error = trip(group)
    caught: list[BaseException] = []
    try:
        raise error
    except* ValueError as values:
        caught += values.exceptions
    except* TwoArguments as others:
        caught.append(others)
    assert [type(one) for one in caught] == [ValueError, ExceptionGroup]
    assert caught[0].__notes__ == ["noted"]
    assert isinstance(error, RemoteError)


def kinds(error: BaseException) -> list[type]:
    assert isinstance(error, BaseExceptionGroup)
    return [type(member) for member in error.exceptions]


def test_all_members_of_a_group_arrive():
    error = trip(ExceptionGroup("many", [ValueError(n) for n in range(300)] + [KeyError("k")]))
    assert kinds(error) == [ValueError] * 300 + [KeyError]
    assert "left out" not in "".join(error.__notes__)


@pytest.mark.parametrize(("count", "length"), [(5000, 1), (300, 2000), (300, 60_000)])
def test_of_a_group_that_is_too_large_one_of_each_class_arrives_and_the_rest_is_told(count: int, length: int):
    members = [ValueError("v" * length) for _ in range(count)]
    error = trip(ExceptionGroup("many", [*members, KeyError("k"), *members, OSError("o")]))
    found = kinds(error)
    assert found[-2:] == [KeyError, OSError]
    assert set(found[:-2]) == {ValueError}
    left_out = 2 * count + 2 - len(found)
    assert error.__notes__[0] == f"{left_out:,} of its {2 * count + 2:,} exceptions were left out on their way"


def test_a_remote_error_is_caught_by_except_star_of_its_class():
    caught: list[BaseException] = []
    try:
        raise trip(KeyError("k"))
    except* KeyError as group:
        caught += group.exceptions
    assert [type(one).__name__ for one in caught] == ["RemoteKeyError"]


def test_it_survives_pickling_and_copying():
    try:
        raise KeyError("k") from ValueError("v")
    except KeyError as raised:
        error = trip(raised)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert (str(other), other.args, other.__notes__) == (str(error), error.args, error.__notes__)
        assert isinstance(other.__cause__, ValueError)


def test_an_error_of_an_inner_cluster_keeps_the_original_class():
    outer = trip(trip(KeyError("k")))
    assert isinstance(outer, KeyError)


def test_one_class_is_made_for_each_original():
    assert type(trip(KeyError(1))) is type(trip(KeyError(2)))
