"""What the result of several tasks raises: stories."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

import pytest

from engineroom.collecting import collect_exceptions
from engineroom.errors import (
    CompositeError,
    ControllerLost,
    EngineError,
    ImpossibleDependency,
    RemoteError,
    TaskAborted,
)
from engineroom.wire.exceptions import pack, remote_error


class WithSlots(Exception):
    __slots__ = ("code",)


class OfTwo(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def as_remote(error: Exception) -> RemoteError:
    """The error as the client makes it of what an engine sent."""
    info = {"engine_id": 3, "method": "apply"}
    return remote_error(type(error).__name__, str(error), "Traceback …", info, pack(error, str(error)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("no"),
        lambda: KeyError("k"),
        lambda: FileNotFoundError(2, "gone", "file"),
        lambda: UnicodeDecodeError("ascii", b"\xff", 0, 1, "bad"),
        lambda: AttributeError("a", name="a"),
        lambda: SyntaxError("x", ("f", 1, 2, "t")),
        lambda: WithSlots("slots"),
        lambda: OfTwo(1, 2),
    ],
)
def test_one_error_alone_is_caught_by_its_own_class_and_as_a_composite(make: Callable[[], Exception]):
    original = make()
    error = as_remote(original)
    with pytest.raises(type(original)) as caught:
        collect_exceptions([1, error, 2], "f")
    only = caught.value
    assert isinstance(only, CompositeError)
    assert (str(only), only.args, vars(only).get("two")) == (str(error), error.args, vars(error).get("two"))
    assert only.elist == [(error.ename, error.evalue, "Traceback …", error.engine_info)]
    assert only.exceptions == (error,)
    assert only.render_traceback() == error.render_traceback()
    assert not isinstance(error, CompositeError), "the error itself stays what it is"
    with pytest.raises(type(original)) as caught:
        only.raise_exception(0)
    assert caught.value is error
    again = pickle.loads(pickle.dumps(only))
    assert isinstance(again, CompositeError)
    assert isinstance(again, type(original))
    assert again.elist == only.elist


def test_one_group_alone_is_a_group():
    error = as_remote(ExceptionGroup("some", [ValueError("a"), TypeError("b")]))
    with pytest.raises(CompositeError) as caught:
        collect_exceptions([error])
    assert caught.value.elist[0][0] == "ExceptionGroup"
    assert isinstance(caught.value, ExceptionGroup)


def test_causes_and_notes_are_kept():
    error = as_remote(ValueError("no"))
    error.__cause__ = KeyError("why")
    error.add_note("a note")
    with pytest.raises(ValueError, match="no") as caught:
        collect_exceptions([error])
    shown = "".join(traceback.format_exception(caught.value))
    assert "KeyError: 'why'" in shown
    assert shown.count("a note") == 1
    assert "RemoteValueError" in shown


@pytest.mark.parametrize("error", [EngineError("died"), ImpossibleDependency("never")])
def test_outcomes_that_the_controller_gave_are_composites_too(error: Exception):
    with pytest.raises(type(error)) as caught:
        collect_exceptions([error])
    assert isinstance(caught.value, CompositeError)
    assert caught.value.elist[0][0] == type(error).__name__
    assert type(error).__name__ in repr(caught.value)


@pytest.mark.parametrize("error", [TaskAborted("aborted"), ControllerLost("gone"), KeyboardInterrupt()])
def test_what_no_task_raised_is_raised_as_it_is(error: BaseException):
    with pytest.raises(type(error)) as caught:
        collect_exceptions([error])
    assert caught.value is error


def test_except_star_catches_one_alone():
    caught = []
    try:
        collect_exceptions([as_remote(ValueError("no"))])
    except* ValueError as group:
        caught += group.exceptions
    assert [type(error).__name__ for error in caught] == ["RemoteValueError"]


def test_several_are_a_group_whose_class_reads_as_composite_error():
    with pytest.raises(CompositeError) as caught:
        collect_exceptions([as_remote(ValueError("a")), as_remote(TypeError("b"))], "f")
    error = caught.value
    assert isinstance(error, ExceptionGroup)
    assert type(error).__name__ == "CompositeError"
    again = pickle.loads(pickle.dumps(error))
    assert (again.elist, str(again)) == (error.elist, str(error))
    assert isinstance(CompositeError("message", []), ExceptionGroup)
