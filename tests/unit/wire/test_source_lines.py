"""Tracebacks of code that travelled: true file names and numbers, and the lines as they were where it was written."""

from __future__ import annotations

import linecache
import pickle
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engineroom.ids import digest_of
from engineroom.messages import Function
from engineroom.wire import functions, payload, source_lines
from engineroom.wire.functions import FunctionCache, load_function

#: Each name is called without arguments, and raises at a line that ends with its name as a comment.
SCRIPT = '''
import functools
import pickle
import sys

from engineroom.messages import Function
from engineroom.wire import payload
from engineroom.wire.functions import FunctionCache


def plain():
    """One."""
    return 1 / 0  # plain


def outer():
    def inner():
        return [
            1,
            2,
        ][5]  # nested
    return inner


nested = outer()


def decorate(function):
    @functools.wraps(function)
    def wrapper():
        return function()
    return wrapper


@decorate
@decorate
def decorated():
    raise LookupError("no")  # decorated


def helper():
    raise LookupError("no")  # helped


def helped():
    return helper()


short = lambda: 1 / 0  # short


@functools.lru_cache
def cached():
    return {}["a"]  # cached


class Thing:
    def method(self):
        return self.nothing  # method

    @property
    def value(self):
        return {}["a"]  # value


def method():
    return Thing().method()


def value():
    return Thing().value


names = ["plain", "nested", "decorated", "helped", "short", "cached", "method", "value"]
cache = FunctionCache()
sent = {name: cache.get(globals()[name]) for name in names}
sys.stdout.buffer.write(pickle.dumps((
    {name: (f.digest, f.payload, f.source) for name, f in sent.items()}, payload.dumps(Thing()),
)))
'''


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    """The namespace of an engine; what linecache learns is forgotten."""
    before = dict(linecache.cache)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    functions.bind_namespace(space)
    yield space
    functions.bind_namespace(None)
    linecache.cache.clear()
    linecache.cache.update(before)


def raised_by(call: Callable[[], Any]) -> list[traceback.FrameSummary]:
    try:
        call()
    except Exception as error:
        source_lines.show_in_traceback(error)
        return list(traceback.extract_tb(error.__traceback__))
    raise AssertionError("it raised nothing")


def in_another_process(script: Path) -> Any:
    return pickle.loads(subprocess.run([sys.executable, script], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("file_is_here", [True, False])
def test_functions_of_a_script_show_the_lines_of_the_script(
    tmp_path: Path, namespace: dict[str, Any], file_is_here: bool
):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    sent, thing = in_another_process(script)
    if not file_is_here:
        script.unlink()
    loaded = {name: load_function(Function(digest, pickled)) for name, (digest, pickled, _) in sent.items()}
    for function in loaded.values():
        namespace.update(function.travelled)
    lines = SCRIPT.splitlines()
    for name, function in loaded.items():
        last = raised_by(function.call)[-1]
        assert last.filename == str(script)
        assert last.lineno is not None
        number = next(i for i, line in enumerate(lines, 1) if line.endswith(f"  # {name}"))
        assert lines[last.lineno - 1 : number][-1].endswith(f"  # {name}"), name
        assert last.line, f"{name}: its line is not shown"
        assert last.line.splitlines()[0].strip() == lines[last.lineno - 1].strip()
    last = raised_by(payload.loads(*thing).method)[-1]  # pushed: it travelled as an argument
    assert (last.filename, last.line) == (str(script), "return self.nothing  # method")


def test_two_versions_of_a_file_each_show_their_own_lines(tmp_path: Path, namespace: dict[str, Any]):
    script = tmp_path / "script.py"
    versions = []
    for body in ("return 1 / 0", "raise KeyError(3)"):
        code = f"""
            import pickle, sys
            from engineroom.wire.functions import FunctionCache
            def f():
                {body}
            sys.stdout.buffer.write(pickle.dumps(FunctionCache().get(f).payload))
        """
        script.write_text(textwrap.dedent(code))
        pickled = in_another_process(script)
        versions.append((body, load_function(Function(digest_of(pickled), pickled)).call))
    for body, call in [*versions, *versions]:
        assert raised_by(call)[-1].line == body


def test_the_lines_in_a_cause_and_in_a_group_are_shown(namespace: dict[str, Any]):
    first, second = (typed(f"def f():\n    raise ValueError({n})\n", "<typed>", namespace) for n in (1, 2))

    def fails() -> None:
        try:
            first()
        except ValueError as error:
            try:
                second()
            except ValueError as other:
                raise ExceptionGroup("both", [other]) from error

    try:
        fails()
    except ExceptionGroup as error:
        source_lines.show_in_traceback(error)
        text = "".join(traceback.format_exception(error))
    # They share a file name, so one text of it is shown for both: that of the code met last.
    assert text.count("raise ValueError(") >= 2


def typed(source: str, file: str, namespace: dict[str, Any]) -> Callable[[], Any]:
    """A function as a notebook makes it, sent and loaded again."""
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    exec(compile(source, file, "exec"), namespace)
    sent = FunctionCache().get(namespace.pop("f"))
    del linecache.cache[file]
    return load_function(sent).call


def test_a_function_typed_into_a_notebook(namespace: dict[str, Any]):
    call = typed("# a cell\n\ndef f():\n    return 1 / 0\n", "<ipython-input-1-abc>", namespace)
    last = raised_by(call)[-1]
    assert (last.filename, last.lineno, last.line) == ("<ipython-input-1-abc>", 4, "return 1 / 0")


def test_code_of_which_no_source_is_known_still_names_its_file(namespace: dict[str, Any]):
    exec("def f():\n    return 1 / 0", namespace)
    last = raised_by(load_function(FunctionCache().get(namespace.pop("f"))).call)[-1]
    assert (last.filename, last.lineno, last.line) == ("<string>", 2, "")


def test_lines_around_the_recorded_ones_are_those_of_the_file(tmp_path: Path, namespace: dict[str, Any]):
    """A script may also be a module that the engine imports."""
    script = tmp_path / "both.py"
    script.write_text("one = 1\ntwo = 2\nthree = 3\n")
    code = compile("\n1 / 0", str(script), "exec").replace(co_firstlineno=2)
    source_lines.remember(code, "1 / 0\n")
    assert linecache.getlines(str(script)) == ["one = 1\n", "1 / 0\n", "three = 3\n"]


def test_a_pickle_of_the_first_release_shows_the_source_of_its_record(namespace: dict[str, Any]):
    """It holds code as cloudpickle leaves it: without lines and, from some versions, without the file."""
    import cloudpickle

    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def f():\n    return 1 / 0\n", "<dynamic-code>", "exec"), space)
    pickled = cloudpickle.dumps(space["f"])
    call = load_function(Function(digest_of(pickled), pickled, source="def f():\n    return 1 / 0\n")).call
    assert raised_by(call)[-1].line == "return 1 / 0"


def test_a_function_that_travels_by_name_leaves_its_module_alone(namespace: dict[str, Any]):
    before = list(linecache.getlines(textwrap.__file__))
    sent = FunctionCache().get(textwrap.dedent)
    load_function(Function(sent.digest, sent.payload, source="def other(): pass\n"))
    assert linecache.getlines(textwrap.__file__) == before


def test_the_same_function_has_the_same_pickle_in_another_process(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    first, second = in_another_process(script)[0], in_another_process(script)[0]
    for name in ("plain", "nested", "decorated", "helped", "short", "cached"):  # cloudpickle numbers classes at random
        assert first[name] == second[name], name
