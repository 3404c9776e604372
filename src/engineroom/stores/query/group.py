"""Groups, distinct values, percentiles: computed here for every backend, so that all give the same answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .match import MISSING, walk
from .nodes import Path
from .values import NUMBER, Key, key_of, rank, type_code


def value_at(record: Mapping[str, Any], path: Path) -> Any:
    """The value at a path, None if there is none. Through an array: the list of the values in its elements."""
    top = value = record.get(path[0])
    for name in path[1:]:
        if isinstance(value, list | tuple):
            return [found for found in walk(top, path[1:], spread=False) if found is not MISSING]
        value = value.get(name) if isinstance(value, dict) else None
    return value


def elements_at(record: Mapping[str, Any], path: Path) -> Iterator[Any]:
    """The values at a path. An array gives its elements; a missing value gives none."""
    for value in walk(record.get(path[0], MISSING), path[1:], spread=False):
        if isinstance(value, list | tuple):
            yield from value
        elif value is not MISSING:
            yield value


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each value once, in MongoDB's order of values."""
    found: dict[Key, Any] = {}
    for value in values:
        _keep(found, key_of(value), value)
    return [found[key] for key in sorted(found)]


def group(pairs: Iterable[tuple[Any, Any]], percentiles: Sequence[float], measured: bool) -> list[dict[str, Any]]:
    """Pairs of (key, value) grouped by key: how many there are, and measures of the values that are numbers."""
    names: dict[Key, Any] = {}
    counts: dict[Key, int] = {}
    numbers: dict[Key, list[float]] = {}
    # sort keys of the commonest types, computed once
    made: dict[type, dict[Any, Key]] = {str: {}, int: {}, type(None): {}}
    for name, value in pairs:
        known = made.get(name.__class__)
        key = None if known is None else known.get(name)
        if key is None:
            key = key_of(name)
            _keep(names, key, name)
            if key not in counts:
                counts[key], numbers[key] = 0, []
            if known is not None:
                known[name] = key
        counts[key] += 1
        if measured and (value.__class__ is float or rank(value) == NUMBER) and math.isfinite(value):
            numbers[key].append(value)
    return [
        {"key": names[key], "count": counts[key], **(_measures(numbers[key], percentiles) if measured else {})}
        for key in sorted(names)
    ]


def _keep(found: dict[Key, Any], key: Key, value: Any) -> None:
    """Equal values (1 and 1.0) are shown as the one whose type comes first, in whatever order they came."""
    if key not in found or type_code(value) < type_code(found[key]):
        found[key] = value


def _measures(numbers: list[float], percentiles: Sequence[float]) -> dict[str, Any]:
    numbers.sort()
    size = len(numbers)
    made: dict[str, Any] = {
        "values": size,
        "mean": math.fsum(numbers) / size if size else None,
        "min": numbers[0] if size else None,
        "max": numbers[-1] if size else None,
    }
    return made | {f"p{percentile:g}": _percentile(numbers, percentile) for percentile in percentiles}


def _percentile(ordered: list[float], percentile: float) -> float | None:
    """Interpolated between the two nearest ranks, as numpy does."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * percentile / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
