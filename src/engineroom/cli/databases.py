"""The settings of the task database in a configuration file, and the url that follows from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

from traitlets import Dict, Enum, Float, Integer, List, Unicode
from traitlets.config import Configurable

from ..errors import ConfigError
from ..records.database_urls import url_of

#: The environment variable that names the MongoDB server.
MONGODB_URL = "ENGINEROOM_MONGODB_URL"

DB_CLASSES = {"sqlitedb": "sqlite", "mongodb": "mongodb", "dictdb": "memory", "nodb": "none"}


class HubFactory(Configurable):
    """Settings under the name that configuration files of IPython use."""

    db_class = Unicode("", help="Like IPController.db_class.").tag(config=True)
    scheme = Unicode("", help="Like TaskScheduler.scheme_name.").tag(config=True)


class SQLiteDB(Configurable):
    """The SQLite task database."""

    filename = Unicode("tasks.db", help="Its file.").tag(config=True)
    location = Unicode("", help="Its folder; default: the profile's.").tag(config=True)
    table = Unicode("", help="Accepted, and without effect: the tables have names of their own.").tag(config=True)
    synchronous = Enum(
        ["NORMAL", "FULL", "OFF"],
        "NORMAL",
        help="What an acknowledged task survives: NORMAL the death of any process, FULL a power cut too (slower).",
    ).tag(config=True)

    journal = Enum(
        ["auto", "wal", "rollback"],
        "auto",
        help="How SQLite writes: wal (a write-ahead log), rollback (a journal; slower, but works on network "
        "file systems), or auto (wal where the file system has the shared memory that it needs).",
    ).tag(config=True)


class MongoDB(Configurable):
    """The task database on a MongoDB server."""

    url = Unicode(
        os.environ.get(MONGODB_URL, "mongodb://localhost/engineroom"),
        help=f"mongodb://USER:PASSWORD@HOST:PORT/DATABASE. Default: ${MONGODB_URL}; other users of this host can see "
        "options, but not this variable.",
    ).tag(config=True)
    connection_args: Any = List(help="As ipyparallel has it: the host, and the port. They win over `url`.").tag(
        config=True
    )
    connection_kwargs = Dict(
        help="As ipyparallel has it: `host`, `port`, `username`, `password`; others are options of the url."
    ).tag(config=True)
    database = Unicode("", help="The name of the database; default: that of `url`.").tag(config=True)

    def whole_url(self) -> str:
        """The url, with what the settings of ipyparallel say instead of its parts."""
        given = {**dict(zip(("host", "port"), self.connection_args, strict=False)), **self.connection_kwargs}
        host = str(given.pop("host", "localhost" if given else ""))
        parts = urlsplit(host if host.startswith("mongodb") else f"mongodb://{host}" if host else self.url)
        place = parts.netloc
        if port := given.pop("port", None):
            place = f"{place}:{port}"
        if user := given.pop("username", None):
            password = given.pop("password", "")
            place = f"{quote_plus(user)}:{quote_plus(password)}@{place.rpartition('@')[2]}"
        query = "&".join(filter(None, [parts.query, urlencode(given)]))
        path = f"/{self.database}" if self.database else parts.path.rstrip("/") or "/engineroom"
        return urlunsplit((parts.scheme, place, path, query, ""))


class DictDB(Configurable):
    """The task database in memory."""

    record_limit = Integer(100_000, help="Records kept. Beyond that, finished ones are dropped, oldest first.").tag(
        config=True
    )
    size_limit = Integer(1 << 30, help="Bytes of arguments and results kept.").tag(config=True)
    cull_fraction = Float(0.1, help="Which share of the limit is dropped at a time.").tag(config=True)


class NoDB(Configurable):
    """No task database. It has no settings."""


def database_url(parent: Configurable, folder: Path, url: str, db_class: str | type) -> str:
    """The url of a profile's database, as `open_store` takes it.

    Parameters
    ----------
    parent : Configurable
        The application whose configuration is used.
    folder : Path
        The folder of the profile.
    url, db_class : str
        The settings of IPController; "" where there is none. `db_class` may be a class of this module.

    Raises
    ------
    ConfigError
        There is no such class.
    """
    if url:
        return url
    if isinstance(db_class, type):
        db_class = db_class.__name__
    chosen = (db_class or HubFactory(parent=parent).db_class or "SQLiteDB").rpartition(".")[2]
    kind = DB_CLASSES.get(chosen.lower())
    if kind is None:
        raise ConfigError(f"there is no db_class {chosen!r}; there are SQLiteDB, MongoDB, DictDB and NoDB")
    if kind == "mongodb":
        return MongoDB(parent=parent).whole_url()
    if kind != "sqlite":
        return kind
    options = SQLiteDB(parent=parent)
    return url_of(Path(options.location or folder, options.filename))
