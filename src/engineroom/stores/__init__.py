"""Task databases: `SQLiteDB` (a file), `DictDB` (memory), `NoDB` (nothing), behind one seam, `TaskStore`."""

from __future__ import annotations

from ..errors import ConfigError
from .base import QueryDict, Sort, TaskStore
from .memory import DictDB
from .none import NoDB
from .sqlite import SQLiteDB

__all__ = ["DictDB", "NoDB", "QueryDict", "SQLiteDB", "Sort", "TaskStore", "open_store"]

_SQLITE = "sqlite://"


def open_store(url: str) -> TaskStore:
    """The store that a URL names: "sqlite:///home/me/tasks.db" (an absolute path), "memory" or "none".

    Raises
    ------
    ConfigError
        The URL names no store.
    StoreError
        The store cannot be opened; StoreBusy if another controller owns it.
    """
    if url.startswith(f"{_SQLITE}/"):
        return SQLiteDB("/" + url.removeprefix(_SQLITE).lstrip("/"))
    if url == "memory":
        return DictDB()
    if url == "none":
        return NoDB()
    raise ConfigError(f"unknown task database {url!r}; available are {_SQLITE}/path/to/tasks.db, memory and none")
