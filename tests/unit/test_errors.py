"""Errors: the tree that the docstring draws, codes, and that each survives pickling."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from engineroom import errors
from engineroom.collecting import collect_exceptions
from engineroom.controller.error_info import error_info
from engineroom.errors import (
    AlreadyDisplayedError,
    CompositeError,
    EngineError,
    EngineroomError,
    RemoteError,
    TaskAborted,
    UnknownTask,
)

CLASSES = [
    c
    for name, c in vars(errors).items()
    if inspect.isclass(c) and issubclass(c, EngineroomError) and not name.startswith("_")
]
REMOTE = RemoteError("ValueError", "no", "Traceback …", {"engine_id": 3, "engine_uuid": "u", "method": "apply"})
COMPOSITE = CompositeError("two raised", [("A", "a", "tb", {"engine_id": 0}), ("B", "b", "tb", {"engine_id": 1})])

SAMPLES = [
    *(c("text") for c in CLASSES if not issubclass(c, RemoteError) or issubclass(c, errors._SchedulerError)),
    REMOTE,
    COMPOSITE,
    EngineError("engine 3 was lost", "", {"engine_id": 3}),
    AlreadyDisplayedError(REMOTE),
]


def test_every_class_has_a_sample():
    assert {type(sample).__name__ for sample in SAMPLES} == {c.__name__ for c in CLASSES}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
def test_an_error_survives_pickling_and_copying(error: EngineroomError):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)


def test_codes_are_stable_and_each_class_but_kin_has_its_own():
    codes = {c.__name__: vars(c)["code"] for c in CLASSES if "code" in vars(c)}
    assert len(set(codes.values())) == len(codes)
    assert set(codes) | {"AlreadyDisplayedError"} == {c.__name__ for c in CLASSES}


def test_the_docstring_draws_every_class():
    for cls in CLASSES:
        if cls is not AlreadyDisplayedError:
            assert cls.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("ConnectionFileError", OSError),
        ("AuthenticationError", PermissionError),
        ("ControllerLost", ConnectionError),
        ("SerializationError", TypeError),
        ("MessageTooLarge", ValueError),
        ("QueryError", ValueError),
        ("UnknownTask", KeyError),
        ("PendingTask", RuntimeError),
    ],
)
def test_an_error_can_be_caught_as_the_builtin_one_would_expect(name: str, builtin: type[Exception]):
    assert issubclass(getattr(errors, name), builtin)


def test_an_unknown_task_says_so_without_quotes():
    assert str(UnknownTask("no such task: x")) == "no such task: x"


def test_a_remote_error_says_where_it_comes_from_and_carries_the_traceback():
    assert str(REMOTE) == "[3:apply] ValueError: no"
    assert REMOTE.__notes__ == ["Traceback on engine 3:\nTraceback …"]
    assert str(RemoteError("ValueError", "no")) == "ValueError: no"
    assert REMOTE.render_traceback() == ["Traceback …", "[3:apply] ValueError: no"]


def test_outcomes_of_our_own_are_raised_as_themselves():
    for name, make in errors.OUTCOMES.items():
        assert type(make("why")).__name__ == name


def test_collecting_results_returns_them_or_raises_what_is_among_them():
    assert collect_exceptions([1, 2]) == [1, 2]
    with pytest.raises(TaskAborted):
        collect_exceptions([1, TaskAborted("t")])
    with pytest.raises(CompositeError) as caught:
        collect_exceptions([REMOTE, TaskAborted("t"), COMPOSITE], "map")
    assert [entry[0] for entry in caught.value.elist] == ["ValueError", "TaskAborted", "A", "B"]
    assert "map" in str(caught.value)


def test_a_composite_error_shows_a_few_and_counts_the_rest():
    many = CompositeError("many", [("E", str(n), f"tb{n}", {"engine_id": n}) for n in range(10)])
    assert "6 more exceptions" in str(many)
    assert "tb3" in "\n".join(many.render_traceback())
    assert "tb4" not in "\n".join(many.render_traceback())
    assert "tb9" in "\n".join(many.render_traceback(9))
    with pytest.raises(RemoteError, match="E: 7"):
        many.raise_exception(7)
    with pytest.raises(IndexError, match="99"):
        many.raise_exception(99)


def test_the_text_of_a_keyerror_is_told_without_quotes() -> None:
    assert error_info(KeyError("nothing is kept")).evalue == "nothing is kept"
    assert error_info(UnknownTask("no such task")).evalue == "no such task"


def test_a_composite_error_ends_with_how_to_catch_it_once():
    last = str(COMPOSITE).splitlines()[-1]
    assert last == "To catch them: `except* Exception`, or `get(return_exceptions=True)`"
    with pytest.raises(CompositeError) as caught:
        collect_exceptions([TaskAborted("t"), RemoteError("CompositeError", str(COMPOSITE), "")])
    assert str(caught.value).count("To catch them") == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [("('x')", ": 'x'"), ("((1, 2))", ": (1, 2)"), ("(3, by=0)", ": 3, by=0"), ("()", " no arguments"),
     ("('x…", ": 'x…"), ("2 items: (1) … (2)", ": 2 items: (1) … (2)")],
)  # fmt: skip
def test_arguments_after_called_with(arguments: str, shown: str):
    assert errors.shown_arguments(arguments) == shown
