"""Task databases behind one seam, `TaskStore`: `SQLiteDB` (a file), `MongoDB` (a server), `DictDB` (memory), `NoDB`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..records.database_urls import file_of
from .base import QueryDict, Sort, TaskStore

if TYPE_CHECKING:
    from .memory.none import NoDB
    from .memory.store import DictDB
    from .mongodb.store import MongoDB
    from .sqlite.store import SQLiteDB
else:

    def __getattr__(name: str) -> Any:
        """Import a database when it is first asked for: a controller has one."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = found = getattr(import_module(_MODULES[name], __name__), name)
        return found


__all__ = ["DictDB", "MongoDB", "NoDB", "QueryDict", "SQLiteDB", "Sort", "TaskStore", "open_store"]

_MODULES = {
    "DictDB": ".memory.store",
    "MongoDB": ".mongodb.store",
    "NoDB": ".memory.none",
    "SQLiteDB": ".sqlite.store",
}


def open_store(url: str, **options: Any) -> TaskStore:
    """The store that a URL names.

    "sqlite:///home/me/tasks.db" (an absolute path), "mongodb://user:password@host/database", "memory" or "none".

    Options that the chosen store does not have are ignored. SQLiteDB has `query_seconds`, `synchronous` and `journal`;
    MongoDB has `query_seconds`; DictDB has `query_seconds`, `record_limit`, `size_limit` and `cull_fraction`.

    Raises
    ------
    ConfigError
        The URL names no store.
    StoreError
        The store cannot be opened; StoreBusy if another controller owns it.
    """
    path = file_of(url)
    if path is not None and ":///" in url:
        from .sqlite.store import SQLiteDB

        if path.is_dir():
            raise ConfigError(f"the task database {url} is a folder: name a file, as in sqlite:///home/me/tasks.db")
        return SQLiteDB(path, **_only(options, "synchronous", "query_seconds", "journal"))
    if url == "memory":
        from .memory.store import DictDB

        return DictDB(**_only(options, "record_limit", "size_limit", "cull_fraction", "query_seconds"))
    if url.startswith(("mongodb://", "mongodb+srv://")):
        from .mongodb.store import MongoDB

        return MongoDB(url, **_only(options, "query_seconds"))
    if url == "none":
        from .memory.none import NoDB

        return NoDB()
    raise ConfigError(
        f"unknown task database {url!r}; available are sqlite:///path/to/tasks.db, mongodb://host/database, memory "
        "and none"
    )


def _only(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}
