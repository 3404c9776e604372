"""A short text for the arguments of a call: for its record, and for the errors that it raises.

No text is longer than `LONGEST`, and making one is quick: containers are read only as far as they are shown, arrays and
tables are named by type, shape and dtype, and a class whose `repr` was slow once is not asked again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

#: Characters of a text.
LONGEST = 200
#: Elements of a container that are shown, and how deep containers are shown inside others.
SHOWN, DEEPEST = 6, 3
#: A class whose repr took this many seconds is named by its type from then on.
SLOW_SECONDS = 0.002

_NUMBERS = frozenset({int, float, bool, complex, type(None)})
#: Packages whose objects have a shape, and a repr that is long or slow.
_ARRAYS = frozenset(
    {"cupy", "dask", "jax", "jaxlib", "numpy", "pandas", "polars", "pyarrow", "scipy", "tensorflow", "torch", "xarray"}
)
_BRACKETS: dict[type, str] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
_slow: set[type] = set()


def of_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The arguments of a call, in parentheses."""
    if not args and not kwargs:
        return "()"
    if not kwargs and len(args) <= SHOWN:  # as most calls are
        for value in args:
            if type(value) not in _NUMBERS and (type(value) is not str or len(value) > LONGEST):
                break
        else:
            try:
                return _cut(repr(tuple(args)) if len(args) > 1 else f"({args[0]!r})")
            except ValueError:  # an int of thousands of digits
                pass
    shown = [short(value) for value in args[:SHOWN]]
    if len(args) > SHOWN:
        shown.append(f"… {len(args) - SHOWN} more")
    for number, (name, value) in enumerate(kwargs.items()):
        if number == SHOWN:
            shown.append(f"… {len(kwargs) - SHOWN} more")
            break
        shown.append(f"{name}={short(value)}")
    return _cut(f"({', '.join(shown)})")


def of_items(columns: Sequence[Sequence[Any]]) -> str:
    """The arguments of several calls of a map, given as one column for each parameter."""
    if not columns or not len(columns[0]):
        return "()"
    if len(columns) == 1 and type(columns[0]) is list and len(columns[0]) == 1:  # the hot path
        return of_call(columns[0], {})
    first, count = of_item(columns, 0), len(columns[0])
    if count == 1:
        return first
    last = of_item(columns, count - 1)
    half = (LONGEST - 40) // 2
    return f"{count} items: {_cut(first, half)} … {_cut(last, half)}"


def of_item(columns: Sequence[Sequence[Any]], index: int) -> str:
    """The arguments of one call of a map."""
    try:  # `column[index]` of a pandas.Series would look for a label
        return of_call([getattr(column, "iloc", column)[index] for column in columns], {})
    except (Exception, SystemExit):
        return f"({', '.join(f'item {index} of {_type_name(column)}' for column in columns)})"


def short(value: Any, depth: int = 0) -> str:
    """A value as a short text. It raises nothing but KeyboardInterrupt and the like."""
    if type(value) is str and len(value) <= LONGEST // 2 and value.isascii():  # as most are
        return _cut(repr(value))
    try:
        return _cut(_short(value, depth))
    except (Exception, SystemExit):
        return f"<{_type_name(value)}, its repr raised>"


def _short(value: Any, depth: int) -> str:
    kind = type(value)
    if kind in _NUMBERS:
        try:
            return repr(value)
        except ValueError:
            return f"<int of {value.bit_length()} bits>"
    if kind in (str, bytes, bytearray):
        return repr(value) if len(value) <= LONGEST else repr(value[:LONGEST])
    if kind in _BRACKETS:
        return _container(value, kind, depth)
    top = kind.__module__.partition(".")[0]
    if top in _ARRAYS and hasattr(value, "shape"):
        if top == "numpy" and value.shape == () and kind.__name__ != "ndarray":
            return repr(value)  # a scalar
        dtype = getattr(value, "dtype", None)
        return f"<{kind.__name__} shape={tuple(value.shape)}{'' if dtype is None else f' dtype={dtype}'}>"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return str(value.__qualname__)
    fields = kind.__dict__.get("__dataclass_fields__")
    if fields is not None and depth < DEEPEST:
        shown = [f"{name}={short(getattr(value, name, None), depth + 1)}" for name in list(fields)[:SHOWN]]
        return f"{kind.__qualname__}({', '.join(shown)}{', …' if len(fields) > SHOWN else ''})"
    if kind in _slow or getattr(kind, "__repr__", None) is object.__repr__:
        return f"<{_type_name(value)}>"
    begin = time.perf_counter()
    text = repr(value).replace("\0", "\\0")
    if time.perf_counter() - begin > SLOW_SECONDS:
        _slow.add(kind)
    return text


def _container(value: Any, kind: type, depth: int) -> str:
    opening, closing = _BRACKETS[kind][0], _BRACKETS[kind][1]
    if not value:
        return repr(value)
    if depth >= DEEPEST:
        return f"{opening}…{closing}"
    shown = []
    for number, item in enumerate(value.items() if kind is dict else value):
        if number == SHOWN:
            shown.append(f"… {len(value) - SHOWN} more")
            break
        if kind is dict:
            shown.append(f"{short(item[0], depth + 1)}: {short(item[1], depth + 1)}")
        else:
            shown.append(short(item, depth + 1))
    text = f"{opening}{', '.join(shown)}{',' if kind is tuple and len(value) == 1 else ''}{closing}"
    return f"frozenset({text})" if kind is frozenset else text


def _cut(text: str, longest: int = LONGEST) -> str:
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if not text.isascii():  # what a user's repr returns may hold half of a surrogate pair, which cannot be sent
        text = text.encode("utf-8", "replace").decode()
    return text


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
