"""Records as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

KINDS = ("pandas", "polars")


def check_kind(kind: str | None) -> None:
    """Raise ValueError if there is no such kind of frame, ImportError if its library is missing."""
    if kind is None:
        return
    if kind not in KINDS:
        raise ValueError(f"as_frame is {' or '.join(map(repr, KINDS))}, got {kind!r}")
    try:
        import_module(kind)
    except ImportError as error:
        raise ImportError(f"as_frame={kind!r} needs {kind}: pip install 'engineroom[frames]'") from error


def as_frame_of(records: Sequence[Mapping[str, Any]], columns: Sequence[str], kind: str) -> Any:
    """A frame with a row for each record. Columns of dicts, or of values of several types, hold Python objects.

    Behind the column `metadata` there is a column `metadata.KEY` for each key that the metadata of a record has.
    """
    module: Any = import_module(kind)
    by_column: dict[str, list[Any]] = {}
    for name in columns:
        by_column[name] = [record[name] for record in records]
        if name == "metadata":
            found = [value if isinstance(value, Mapping) else {} for value in by_column[name]]
            for key in dict.fromkeys(key for value in found for key in value):
                by_column[f"metadata.{key}"] = [value.get(key) for value in found]
    if kind == "pandas":
        return module.DataFrame(by_column, columns=list(by_column))
    return module.DataFrame([_series(module, name, values) for name, values in by_column.items()])


def _series(polars: Any, name: str, values: list[Any]) -> Any:
    """A column of a polars frame: typed if all values have one type, else of Python objects."""
    if any(isinstance(value, dict) for value in values):
        return polars.Series(name, values, dtype=polars.Object)
    try:
        return polars.Series(name, values, strict=True)
    except (TypeError, OverflowError, polars.exceptions.PolarsError):
        return polars.Series(name, values, dtype=polars.Object)
