"""`@depend` and `@require`: what they check, where they put things, and how they travel."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import engineroom as er
from engineroom.ids import digest_of
from engineroom.messages import Function
from engineroom.on_engine import task_context
from engineroom.on_engine.functional_dependency import DEPENDENCY_SECONDS
from engineroom.wire import functions
from engineroom.wire.functions import FunctionCache, load_function


def is_set(name: str) -> bool:
    return name in os.environ


@er.depend(is_set, "PATH")
def greeting(name: str = "you") -> str:
    """Says hello."""
    return f"hello {name}"


@er.depend(is_set, "PATH")
@er.require("json", "os.path", limit=7)
def both() -> str:
    return "both"


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    names: dict[str, Any] = {}
    functions.bind_namespace(names)
    yield names
    functions.bind_namespace(None)


@pytest.mark.parametrize("met", [True, None, 0, "", []])
def test_only_false_is_unmet(met: Any):
    assert er.dependent(abs, lambda: met)(-1) == 1


def test_the_false_of_numpy_is_met_too_but_not_silently():
    numpy = pytest.importorskip("numpy")
    with pytest.warns(UserWarning, match=r"<lambda> returned numpy's False, .* abs .* return bool\(…\)"):
        assert er.dependent(abs, lambda: numpy.bool_(False))(-1) == 1
    for met in (numpy.bool_(True), numpy.int64(0), numpy.zeros(2, bool)):
        assert er.dependent(abs, lambda met=met: met)(-1) == 1


def test_unmet_names_both_functions():
    with pytest.raises(er.UnmetDependency, match="is_set returned False on this engine, so abs was not called"):
        er.dependent(abs, is_set, "NO_SUCH_VARIABLE")(-1)


def test_arguments_go_to_their_functions():
    seen = []
    checked = er.depend(lambda *args, **kwargs: seen.append((args, kwargs)), 1, key=2)(lambda *a, **k: (a, k))
    assert checked(3, other=4) == ((3,), {"other": 4})
    assert seen == [((1,), {"key": 2})]


def test_it_looks_like_the_function():
    assert greeting.__name__ == greeting.func_name == "greeting"
    assert greeting.__doc__ == "Says hello."
    assert greeting.__wrapped__("me") == "hello me"
    assert both.__name__ == "both"
    assert repr(greeting) == "<dependent greeting, if is_set>"
    assert er.dependent.__doc__.startswith("A function that runs only on engines")


def test_what_the_dependency_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        er.dependent(abs, lambda: 1 / 0)(-1)


def test_the_time_of_a_dependency_is_limited_where_there_is_a_limit(monkeypatch: pytest.MonkeyPatch):
    import contextlib

    asked = []

    def limit(*wanted: Any) -> Any:
        asked.append(wanted)
        return contextlib.nullcontext()

    monkeypatch.setattr(task_context, "_limit", limit)
    checked = er.dependent(abs, is_set, "PATH")
    checked(-1)
    checked.timeout = 2.5
    pickle.loads(pickle.dumps(checked))(-1)
    text = "the dependency function is_set of abs took longer than {} s"
    assert asked == [
        (DEPENDENCY_SECONDS, "DependencyTimeout", text.format("60")),
        (2.5, "DependencyTimeout", text.format("2.5")),
    ]


def test_required_modules_and_names_are_in_the_namespace(namespace: dict[str, Any]):
    @er.require(json, "os.path", is_set, er.Reference, tolerance=0.5)
    def f() -> list[str]:
        return sorted(namespace)

    assert f() == ["Reference", "is_set", "json", "os", "tolerance"]
    assert namespace["json"] is json
    assert namespace["os"] is os
    assert namespace["is_set"] is is_set


def test_a_module_that_is_missing_is_unmet(namespace: dict[str, Any]):
    ran = []
    f = er.require("json", "no_such_module.part")(lambda: ran.append(1))
    with pytest.raises(er.UnmetDependency, match=r"cannot import no_such_module\.part"):
        f()
    assert ran == []


@pytest.mark.parametrize("bad", [3, None, "not a module", "", ".relative", {"x": 1}, b"json"])
def test_what_cannot_be_required_is_refused_at_once(bad: Any):
    with pytest.raises(er.ConfigError):
        er.require(bad)


def test_what_cannot_be_called_is_refused_at_once():
    for make in (lambda: er.depend("is_set"), lambda: er.dependent(abs, 1), lambda: er.dependent("abs", is_set)):
        with pytest.raises(er.ConfigError, match="must be callable"):
            make()


# ---------------------------------------------------------------------------------------------- travelling


def test_those_of_a_module_travel_by_name():
    assert pickle.loads(pickle.dumps(greeting)) is greeting
    assert pickle.loads(pickle.dumps(both)) is both
    cache = FunctionCache()
    assert cache.get(greeting) == cache.get(greeting)
    payload = cache.get(greeting).payload
    assert len(payload) < 500
    assert b"hello" not in payload


def test_others_travel_by_content():
    def local(x: int) -> int:
        return x + 1

    checked = er.depend(is_set, "PATH")(er.require("json")(local))
    cache = FunctionCache()
    assert cache.get(checked).digest == cache.get(checked).digest == FunctionCache().get(checked).digest
    arrived = load_function(cache.get(checked)).call
    assert arrived is not checked
    assert arrived(1) == 2
    assert arrived.__name__ == "local"


def test_a_change_of_what_it_refers_to_is_a_change_of_content(typed: Any):
    typed("step = 1")
    checked = typed("import engineroom\n@engineroom.depend(bool)\ndef f(x):\n    return x + step")
    cache = FunctionCache()
    first = cache.get(checked)
    typed("step = 2")
    assert cache.get(checked).digest != first.digest


SCRIPT = """
import sys
import engineroom as er
from engineroom.wire.functions import FunctionCache

step = 10

def allowed(low, high=9):
    return low < high

@er.depend(allowed, 1, high=5)
@er.require("json", step_of_mine=3)
def f(n):
    "Doc."
    return 0 if n == 0 else len(json.dumps([n])) + step + step_of_mine + f(n - 1)

sys.stdout.buffer.write(FunctionCache().get(f).payload)
"""


def test_those_of_a_script_arrive_without_it(namespace: dict[str, Any]):
    """It calls itself by its name, which is that of the dependent; modules and names are the engine's."""
    data = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True).stdout
    loaded = load_function(Function(digest_of(data), data))
    assert {"step", "allowed", "f"} >= set(loaded.travelled) >= {"step", "f"}
    namespace.update(loaded.travelled)
    assert loaded.call(2) == 2 * (3 + 10 + 3)
    assert (loaded.call.__name__, loaded.call.__doc__) == ("f", "Doc.")
    assert namespace["json"] is json
