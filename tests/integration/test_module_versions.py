"""Modules that are edited while engines have them loaded: who runs older code says so, and stores no wrong answer."""

from __future__ import annotations

import importlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import engineroom as er

_numbers = itertools.count()


@pytest.fixture
def module(any_rc: er.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Write a module, and import it here, anew if it was imported; engines can import it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    any_rc[:].execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r})", block=True)
    prefix = f"edited_{next(_numbers)}_"

    def write(name: str, text: str, *, load: bool = True) -> ModuleType | None:
        name, path = prefix + name, tmp_path / f"{prefix}{name}.py"
        before = path.stat().st_mtime_ns if path.exists() else 0
        began = time.time_ns()  # the clock of files is coarser: write until it has passed this moment, too
        while not path.exists() or path.stat().st_mtime_ns == before or path.stat().st_ctime_ns <= began:
            path.write_text(text.replace("low", prefix + "low"))
        importlib.invalidate_caches()
        any_rc[:].execute("import importlib; importlib.invalidate_caches()", block=True)
        if not load:
            return None
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    yield write
    any_rc[:].execute(f"import sys; sys.path.remove({str(tmp_path)!r})", block=True)
    any_rc[:].execute(f"for n in [n for n in sys.modules if n.startswith({prefix!r})]: del sys.modules[n]", block=True)
    for name in [name for name in sys.modules if name.startswith(prefix)]:
        del sys.modules[name]


def words_of(result: er.AsyncResult) -> str:
    """What the tasks of a result wrote to stderr."""
    result.get(60)
    stderr = result.stderr
    return stderr if isinstance(stderr, str) else "".join(stderr)


@pytest.mark.fault(33)
def test_an_engine_that_runs_older_code_says_so_once(any_rc, module):
    low = module("low", "def f(x): return x\n")
    view = any_rc[0]
    assert words_of(view.apply_async(low.f, 1)) == ""
    low = module("low", "def f(x): return 10 * x\n")
    first = view.apply_async(low.f, 1)
    assert f"different versions of the module {low.__name__}: it loaded an older version of" in words_of(first)
    assert "rc.reload_modules()" in words_of(first)
    assert first.get() == 1
    assert words_of(view.apply_async(low.f, 1)) == "", "it has said so"
    assert any_rc.reload_modules(0) == {0: [low.__name__]}
    assert any_rc.reload_modules(0) == {0: []}
    assert view.apply_sync(low.f, 1) == 10


def test_each_further_edit_and_each_reload_has_it_said_again(any_rc, module):
    low = module("low", "def f(x): return x\n")
    view = any_rc[0]
    assert words_of(view.apply_async(low.f, 1)) == ""
    for factor in (10, 100):
        low = module("low", f"def f(x): return {factor} * x\n")
        assert words_of(view.apply_async(low.f, 1)).count(low.__name__ + ":") == 1
        assert words_of(view.apply_async(low.f, 1)) == "", "it has said so"
    assert any_rc.reload_modules(0) == {0: [low.__name__]}
    assert words_of(view.apply_async(low.f, 1)) == ""
    low = module("low", "def f(x): return 1000 * x\n")
    for _ in range(2):
        result = view.apply_async(low.f, 1)
        assert "it loaded an older version of" in words_of(result)
        assert result.get() == 100
        module("low", "raise ValueError('half written')\n", load=False)
        with pytest.raises(ValueError, match="half written"):
            any_rc.reload_modules(0)
        low = module("low", "def f(x): return 1000 * x\n")


def test_a_function_that_the_older_module_lacks(any_rc, module, typed):
    low = module("low", "def f(x): return x\n")
    assert any_rc[:].apply_sync(low.f, 1) == [1, 1]
    low = module("low", "class C:\n    x = 2\ndef f(x): return x\ndef g(x): return 10 * x\n")
    with pytest.raises(AttributeError) as caught:
        any_rc[0].apply_sync(low.g, 1)
    assert any(low.__name__ in note and "rc.reload_modules()" in note for note in caught.value.__notes__)
    cached = any_rc.load_balanced_view(cache=True, targets=[0])
    result = cached.apply_async(low.g, 1)
    assert result.get(60) == 10
    assert "has loaded again what has changed" in words_of(result)
    assert "rc.reload_modules()" not in words_of(result), "nobody need call it"
    of_argument = any_rc.load_balanced_view(cache=True, targets=[1])
    assert of_argument.apply_sync(typed("def x_of(value): return value.x"), low.C()) == 2
    low = module("low", "def f(x): return x\ndef g(x): return x.y\n")
    with pytest.raises(AttributeError, match="'int' object has no attribute 'y'"):
        cached.apply_sync(low.g, 1)


def test_a_module_whose_file_is_gone_is_named(any_rc, module):
    low = module("low", "def f(x): return x\n")
    assert any_rc[0].apply_sync(low.f, 1) == 1
    path = Path(low.__file__)
    text = path.read_text()
    path.unlink()
    try:
        with pytest.raises(ModuleNotFoundError, match=f"not find them any more: {low.__name__} ") as caught:
            any_rc.reload_modules(0)
        assert "called with (None" not in "".join([str(caught.value), *caught.value.__notes__])
    finally:
        path.write_text(text)
        any_rc.reload_modules(0)


def test_a_script_and_an_import_inside_a_function_count_too(any_rc, module, typed):
    low = module("low", "def f(x): return x\n")
    sys.modules["__main__"].low_for_test = low
    calls = [
        typed("def calls(x): return low_for_test.f(x)"),
        typed(f"def imports(x):\n    import {low.__name__} as low\n    return low.f(x)"),
    ]
    try:
        assert [any_rc[:].apply_sync(f, 1) for f in calls] == [[1, 1], [1, 1]]
        module("low", "def f(x): return 10 * x\n")
        assert low.__name__ in words_of(any_rc[0].apply_async(calls[0], 1))
        assert low.__name__ in words_of(any_rc[1].apply_async(calls[1], 1))
        any_rc.reload_modules()
        assert [any_rc[:].apply_sync(f, 1) for f in calls] == [[10, 10], [10, 10]]
    finally:
        del sys.modules["__main__"].low_for_test


def test_an_answer_that_is_reused_is_of_the_code_that_ran(any_rc, module):
    module("low", "def f(x): return x\n")
    high = module("high", "import low\ndef g(x): return low.f(x) + 1\n")
    view = any_rc.load_balanced_view(cache=True, targets=[0])
    first = view.apply_async(high.g, 1)
    assert first.get(60) == 2
    again = view.apply_async(high.g, 1)
    assert (again.get(60), again.metadata["cached_from"]) == (2, first.msg_ids[0])
    module("low", "def f(x): return 10 * x\n")
    second = view.apply_async(high.g, 1)
    assert (second.get(60), second.metadata["cached_from"]) == (11, None), "what it imports has changed"
    assert "has loaded again what has changed" in words_of(second)
    third = view.apply_async(high.g, 1)
    assert (third.get(60), third.metadata["cached_from"]) == (11, second.msg_ids[0])
    assert view.map_sync(high.g, [1, 2]) == [11, 21]


def test_code_of_the_arguments_counts_for_reuse(any_rc, module, typed):
    source = "class Rate:\n    def __init__(self, x): self.x = x\n    def cost(self): return {} * self.x\n"
    low = module("low", source.format(1))
    cost = typed("def cost(rate): return rate.cost()")
    view = any_rc.load_balanced_view(cache=True, targets=[0])
    assert view.apply_sync(cost, low.Rate(2)) == 2
    low = module("low", source.format(30))
    assert view.apply_sync(cost, low.Rate(2)) == 60
    assert view.map_sync(cost, [low.Rate(2), low.Rate(3)]) == [60, 90]
    assert view.apply_sync(typed("def named(*, rate): return rate.cost()"), rate=low.Rate(2)) == 60


def test_a_client_with_older_code_gets_no_wrong_answer(any_rc, module):
    low = module("low", "def f(x): return x\n")
    view = any_rc.load_balanced_view(cache=True)
    first = view.apply_async(low.f, 1)
    assert first.get(60) == 1
    module("low", "def f(x): return 10 * x\n", load=False)
    again = view.apply_async(low.f, 1)
    assert (again.get(60), again.metadata["cached_from"]) == (1, first.msg_ids[0]), "the code that is loaded here"
    assert set(map(tuple, any_rc.reload_modules().values())) <= {(low.__name__,), ()}
    assert any_rc[:].apply_sync(er.Reference(f"__import__({low.__name__!r}).f"), 1) == [10, 10]
    other = view.apply_async(low.f, 2)
    with pytest.raises(er.EngineError, match="reload it in the client") as caught:
        other.get(60)
    assert str(caught.value).count("EngineError") == 1
    assert caught.value.engine_id in (0, 1)


def test_a_module_that_was_edited_before_its_first_use_is_named(any_rc, module):
    low = module("low", "def f(x): return x\n")
    module("low", "def f(x): return 10 * x\n", load=False)
    view = any_rc.load_balanced_view(cache=True)
    with pytest.warns(RuntimeWarning, match=f"{low.__name__} has changed since this process imported it") as w:
        results = [view.apply_async(low.f, 1) for _ in range(2)]
    assert len(w) == 1
    assert w[0].filename == __file__
    assert [(r.get(60), r.metadata["cached_from"]) for r in results] == [(10, None), (10, None)]
    low = importlib.reload(low)
    assert view.apply_sync(low.f, 1) == 10


def test_code_that_reloads_on_an_engine_is_run_by_functions_the_engine_has(any_rc, module):
    low = module("low", "RATE = 2\ndef f(x): return RATE * x\n")
    view = any_rc[0]
    assert view.apply_sync(low.f, 1) == 2
    view.execute(f"import {low.__name__} as low; from {low.__name__} import f", block=True)
    module("low", "RATE = 3\ndef f(x): return 1000 * RATE * x\n", load=False)
    view.execute("import importlib; importlib.reload(low)", block=True)
    result = view.apply_async(low.f, 1)
    assert result.get(60) == 3000
    assert "reload it in the client" in words_of(result)
    module("low", "RATE = 4\ndef f(x): return 2000 * RATE * x\n", load=False)
    view.execute("f = low.f", block=True)
    view.reload_modules(block=True)
    assert view.apply_sync(er.Reference("f"), 1) == 8000, "names of the engine are bound anew"


def test_a_module_that_fails_to_load_says_which(any_rc, module):
    low = module("low", "def f(x): return x\n")
    any_rc[0].apply_sync(low.f, 1)
    module("low", "raise ValueError('half written')\n", load=False)
    with pytest.raises(er.RemoteError, match="half written") as caught:
        any_rc.reload_modules(0)
    assert f"while {low.__name__} was loaded again" in caught.value.traceback
    module("low", "def f(x): return x + 1\n", load=False)
    assert any_rc.reload_modules(0, low.__name__) == {0: [low.__name__]}
