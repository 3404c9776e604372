"""What the functions of a script see where they arrive: the globals that travelled with them.

A function looks a name up in its `__globals__`, and then in its `__builtins__`. On an engine, `__globals__` is the
namespace of the engine. `__builtins__` is a dict of the function's own: the builtins of Python, and the globals that
travelled with the function. So the code finds them whenever it runs: in its task, while a value is pickled, in a
thread that outlives the task, in a method that is called later. Names of the engine still come first.

A function that is made while such code runs (an inner function; in Python 3.11 also a comprehension) takes over the
builtins of the namespace. On an engine these are `_fallback`, which has all globals that have travelled, the last of
each name. So have functions that a cell defines, and cells that IPython runs: they may see such a name, too.

This module does not pickle. `functions` does.
"""

from __future__ import annotations

import builtins
import contextlib
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_MISSING = object()

#: The builtins of the namespace of this engine; None: this process is not an engine.
_fallback: dict[str, Any] | None = None
#: The functions that have builtins of their own.
_functions: weakref.WeakSet[Any] = weakref.WeakSet()


def prepare(namespace: dict[str, Any]) -> None:
    """Let this be the namespace of an engine."""
    global _fallback
    _fallback = namespace["__builtins__"] = dict(vars(builtins))
    builtins.__class__ = _Builtins


def make_function(
    code: types.CodeType, namespace: dict[str, Any], name: Any, defaults: Any, closure: Any
) -> types.FunctionType:
    """A function of the namespace, with builtins of its own."""
    before = namespace.get("__builtins__", builtins)
    namespace["__builtins__"] = dict(vars(builtins))  # Python takes them from here, and from nowhere else
    try:
        function = types.FunctionType(code, namespace, name, defaults, closure)
    finally:
        namespace["__builtins__"] = before
    _functions.add(function)
    return function


def show(function: types.FunctionType, travelled: Mapping[str, Any]) -> None:
    """Let a function see the globals that travelled with it."""
    if function in _functions:
        _builtins_of(function).update(travelled)
        if _fallback is not None:
            _fallback.update(travelled)


@contextlib.contextmanager
def plain(namespace: dict[str, Any]) -> Iterator[None]:
    """Inside the block, functions that are made in the namespace see no globals that have travelled."""
    before = namespace.get("__builtins__", builtins)
    namespace["__builtins__"] = builtins
    try:
        yield
    finally:
        namespace["__builtins__"] = before


def execute(code: types.CodeType, namespace: dict[str, Any]) -> Any:
    """Run the code of a cell, or of an expression. Names in it are not looked up among globals that have travelled."""
    with plain(namespace):
        cell = types.FunctionType(code, namespace)
    return cell()


def restore(namespace: dict[str, Any]) -> None:
    """Let functions that are made in the namespace see what has travelled, also if something has changed that."""
    if _fallback is not None:
        namespace["__builtins__"] = _fallback


def refresh() -> None:
    """Something has written to the dict of `builtins`: let all functions see the new names."""
    for own in _all():
        for name, value in vars(builtins).items():
            own.setdefault(name, value)


def _builtins_of(function: Any) -> dict[str, Any]:
    own: dict[str, Any] = function.__builtins__
    return own


def _all() -> list[dict[str, Any]]:
    return [*([] if _fallback is None else [_fallback]), *map(_builtins_of, list(_functions))]


class _Builtins(types.ModuleType):
    """The module `builtins` of an engine. A task may set an attribute, as `mock.patch("builtins.open")` does."""

    def __setattr__(self, name: str, value: Any) -> None:
        self._change(name, lambda own: own.__setitem__(name, value))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._change(name, lambda own: own.pop(name, None))
        super().__delattr__(name)

    def _change(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        before = vars(self).get(name, _MISSING)
        for own in _all():
            if own.get(name, _MISSING) is before:  # else a global that travelled hides it
                change(own)
