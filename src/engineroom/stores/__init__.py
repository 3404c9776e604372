"""Task databases: `SQLiteDB` (a file), `DictDB` (memory), `NoDB` (nothing), behind one seam, `TaskStore`."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .base import QueryDict, Sort, TaskStore
from .memory import DictDB
from .none import NoDB
from .sqlite import SQLiteDB

__all__ = ["DictDB", "NoDB", "QueryDict", "SQLiteDB", "Sort", "TaskStore", "open_store"]

_SQLITE = "sqlite://"


def open_store(url: str, **options: Any) -> TaskStore:
    """The store that a URL names: "sqlite:///home/me/tasks.db" (an absolute path), "memory" or "none".

    Options that the chosen store does not have are passed over: `synchronous` is SQLiteDB's; `record_limit`,
    `size_limit` and `cull_fraction` are DictDB's.

    Raises
    ------
    ConfigError
        The URL names no store.
    StoreError
        The store cannot be opened; StoreBusy if another controller owns it.
    """
    if url.startswith(f"{_SQLITE}/"):
        return SQLiteDB("/" + url.removeprefix(_SQLITE).lstrip("/"), **_only(options, "synchronous"))
    if url == "memory":
        return DictDB(**_only(options, "record_limit", "size_limit", "cull_fraction"))
    if url == "none":
        return NoDB()
    raise ConfigError(f"unknown task database {url!r}; available are {_SQLITE}/path/to/tasks.db, memory and none")


def _only(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
