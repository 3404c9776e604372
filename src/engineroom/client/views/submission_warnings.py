"""Warnings about functions that are about to be sent: each thing is named once.

The views' cache of functions calls `look` when it pickles one, so a function that is sent again costs nothing here.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import sys
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ... import import_watch
from ...on_engine.functional_dependency import dependent
from ...on_engine.random_streams import Seeded
from ...wire import functions, modules

_OURS = str(Path(__file__).parents[2])
#: Methods with which a class decides what is pickled of its objects.
_SAY_WHAT_TRAVELS = ("__reduce_ex__", "__reduce__", "__getstate__")
_told: set[tuple[Any, ...]] = set()
#: How many items of a list or dict, and how many values in all, are looked at inside an object.
_LARGEST, _MOST = 100, 1000
#: (id of an object, what holds it) → the object, which has been looked into
_looked_into: dict[tuple[int, str], weakref.ref[Any]] = {}


def look(function: Any, needs: modules.Needs) -> None:
    """Warn about a function that may do on engines what its author does not expect."""
    for name, version in needs.items():
        if version == "":
            path = getattr(sys.modules.get(name), "__file__", "?")
            _warn_once(
                ("module", name, import_watch.generation),
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
        elif value is function:
            parts = [("self", value)]  # it is called as a function
        else:
            continue
        is_by_name = isinstance(value, types.FunctionType) and modules.is_importable(value)
        for part_name, part in parts:
            if _is_generator(part):
                yield holder, part_name, part
            elif not is_by_name:
                for inner_name, inner in _inside(part, part_name, holder):
                    yield holder, inner_name, inner
        if not is_by_name:
            waiting += [part for _, part in parts]


def _inside(value: Any, name: str, holder: str) -> Iterator[tuple[str, Any]]:
    """The generators in the attributes of an object, or one level deeper: (name, generator).

    An object is looked into once for each function that holds it, so a task costs nothing here.
    """
    attributes = _attributes(value)
    key = id(value), holder
    if not attributes or key in _looked_into:
        return
    with contextlib.suppress(TypeError):  # no weak references
        _looked_into[key] = weakref.ref(value, lambda _: _looked_into.pop(key, None))
    left = _MOST
    for attribute, held in list(itertools.islice(attributes.items(), _LARGEST)):
        if _is_generator(held):
            yield f"{name}.{attribute}", held
            continue
        for inner_name, inner in _items(held):
            left -= 1
            if left < 0:
                return
            if _is_generator(inner):
                yield f"{name}.{attribute}{inner_name}", inner


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds: (how it is written after the name of the value, item)."""
    if type(value) in (list, tuple):
        yield from ((f"[{index}]", item) for index, item in enumerate(value[:_LARGEST]))
    elif type(value) is dict:
        for key, item in list(itertools.islice(value.items(), _LARGEST)):
            yield f"[{key!r:.40}]" if type(key) in (str, int) else "[…]", item
    else:
        yield from [(f".{key}", item) for key, item in itertools.islice(_attributes(value).items(), _LARGEST)]


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object that travel as they are; {}: it has none, or its class says what travels."""
    kind = type(value)
    if kind.__module__ == "builtins" or isinstance(value, type | types.ModuleType | types.FunctionType):
        return {}
    if any(getattr(kind, name) is not getattr(object, name) for name in _SAY_WHAT_TRAVELS):
        return {}
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}


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
