"""Warnings about functions that are about to be sent: each thing is named once.

The views' cache of functions calls `look` when it pickles one, so a function that is sent again costs nothing here.
"""

from __future__ import annotations

import functools
import random
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...on_engine.functional_dependency import dependent
from ...on_engine.random_streams import Seeded
from ...wire import functions, modules

_OURS = str(Path(__file__).parents[2])
_told: set[tuple[Any, ...]] = set()


def look(function: Any, needs: modules.Needs) -> None:
    """Warn about a function that may do on engines what its author does not expect."""
    for name, version in needs.items():
        if version == "":
            path = getattr(sys.modules.get(name), "__file__", "?")
            _warn_once(
                ("module", name, modules.generation),
                f"the module {name} has changed since this process imported it ({path}), so engines may run newer "
                "code than this process has, and calls with cache=True are not answered from the database. Import it "
                f"again: importlib.reload({name})",
            )
    for user, name, value in _generators(function):
        kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
        _warn_once(
            ("generator", user, name),
            f"{user} uses {name}, a {kind}: each engine gets a copy in the same state, so tasks draw the same numbers. "
            "Draw from er.task_rng() instead, and give map a seed (docs/random-numbers.md)",
        )


def _generators(function: Any) -> Iterator[tuple[str, str, Any]]:
    """The random generators that a function takes along: (the function that names it, its name, the generator)."""
    waiting: list[Any] = [function]
    met: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in met:
            continue
        met.add(id(value))
        holder = getattr(value, "__qualname__", None) or type(value).__name__
        if isinstance(value, Seeded):
            parts: list[tuple[str, Any]] = [("f", value.f)]
        elif isinstance(value, dependent):
            parts = [("f", value.f), ("g", value.g)]
        elif isinstance(value, functools.partial):
            parts = [("func", value.func), *_enumerated(value.args), *value.keywords.items()]
            holder = "a partial"
        elif isinstance(value, types.MethodType | types.BuiltinFunctionType) and not functions.module_with_state(value):
            parts = [("self", value.__self__)]
        elif isinstance(value, types.FunctionType):
            parts = [*functions.references(value), *_defaults_of(value)]
        else:
            continue
        for part_name, part in parts:
            if _is_generator(part):
                yield holder, part_name, part
        if not (isinstance(value, types.FunctionType) and modules.is_importable(value)):
            waiting += [part for _, part in parts]


def _enumerated(values: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(f"argument {index}", value) for index, value in enumerate(values)]


def _defaults_of(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The values of its parameters that have some."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return [*zip(names, values, strict=True), *(function.__kwdefaults__ or {}).items()]


def _is_generator(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, random.Random):
        return not isinstance(value, random.SystemRandom)
    return any(
        base.__module__.startswith("numpy.random") and base.__name__ in ("Generator", "RandomState", "BitGenerator")
        for base in kind.__mro__
    )


def _warn_once(key: tuple[Any, ...], text: str) -> None:
    if key not in _told:
        _told.add(key)
        warnings.warn(text, RuntimeWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """The stack level of the code that called this package, as `_warn_once` counts it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    return level
