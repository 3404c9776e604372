"""Source lines that travel with pickled code, so that a traceback made elsewhere can show them.

A code object that travels by value takes along the name of its file and its own source lines. Where it is rebuilt,
`linecache` is given these lines under that file name: `traceback`, `pdb` and `inspect` find them there, whether the
file exists on that machine or not.

`linecache` holds one text for each file name, but two versions of a script, or the cells of two notebooks, may share
a name. So the lines are also remembered for each code object, and `show_in_traceback` puts those of the code that
failed in place before its traceback is formatted.

This module does not pickle. `functions` does, and asks here for the lines.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import textwrap
import types
import weakref
from collections.abc import Sequence
from typing import Any

#: Characters of a function's source that are recorded, and that travel with it.
SOURCE_LIMIT = 20_000

#: The source lines of code that was rebuilt in this process, with the number of the first.
_lines_of: weakref.WeakKeyDictionary[types.CodeType, tuple[int, Sequence[str]]] = weakref.WeakKeyDictionary()


# ------------------------------------------------------------------------------------------ where code was written


def source_of(function: Any) -> str:
    """The source of a function for its record, as far as it is known; at most `SOURCE_LIMIT` characters."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return _source(code) if isinstance(code, types.CodeType) else ""


@functools.lru_cache(1024)
def _source(code: types.CodeType) -> str:
    if code.co_filename == "<string>":  # the name of everything that `exec` runs: it says nothing
        return ""
    try:
        return _sendable(textwrap.dedent(inspect.getsource(code)))
    except Exception:  # typed into a plain interpreter, or its file has gone, or changed
        return ""


def lines_of(code: types.CodeType) -> str:
    """The whole source lines of code, from `co_firstlineno` on; "" if they are not known."""
    return _lines(code, code.co_filename)  # equal code objects may come from different files


@functools.lru_cache(1024)
def _lines(code: types.CodeType, file: str) -> str:
    try:
        lines = linecache.getlines(file) or inspect.findsource(_function_with(code))[0]
    except Exception:  # as above
        return ""
    return _sendable("".join(lines[code.co_firstlineno - 1 : _last_line(code)]))


def _function_with(code: types.CodeType) -> types.FunctionType:
    """A function with this code: Python 3.13 keeps what was typed into its terminal for functions alone."""
    cells = tuple(types.CellType() for _ in code.co_freevars)
    return types.FunctionType(code, {}, closure=cells)


def _last_line(code: types.CodeType) -> int:
    last = code.co_firstlineno
    for start, end, _, _ in code.co_positions():
        last = max(last, start or 0, end or 0)
    return max([last, *(_last_line(inner) for inner in inner_code(code))])


def inner_code(code: types.CodeType) -> list[types.CodeType]:
    """The code of functions and classes that are written inside this code."""
    return [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:SOURCE_LIMIT]


# ------------------------------------------------------------------------------------------ where code was rebuilt


def remember(code: types.CodeType, source: str) -> None:
    """Note the source lines of code, from `co_firstlineno` on, and let `linecache` show them."""
    lines = source.splitlines(keepends=True)
    _remember(code, code.co_firstlineno, lines)
    _show(code.co_filename, code.co_firstlineno, lines)


def is_remembered(code: types.CodeType) -> bool:
    """Whether the source lines of code have come with it."""
    return code in _lines_of


def _remember(code: types.CodeType, first: int, lines: Sequence[str]) -> None:
    _lines_of[code] = first, lines
    for inner in inner_code(code):
        _remember(inner, first, lines)


def _show(file: str, first: int, lines: Sequence[str]) -> None:
    known = linecache.getlines(file)
    end = first - 1 + len(lines)
    if known[first - 1 : end] == lines:
        return
    known = [*known, *["\n"] * (end - len(known))]
    known[first - 1 : end] = lines
    # Without a time of modification, linecache does not look whether the file has changed: these lines are the true
    # ones, also if the script has been edited since.
    linecache.cache[file] = (sum(map(len, known)), None, known, file)


def show_in_traceback(error: BaseException) -> None:
    """Let `linecache` have the lines of the code that raised an error, its causes, and the errors it groups."""
    met: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in met:
            continue
        met.add(id(one))
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        step = one.__traceback__
        while step is not None:
            code = step.tb_frame.f_code
            if code in _lines_of:
                _show(code.co_filename, *_lines_of[code])
            step = step.tb_next
