"""The settings of the task database in a configuration file, and the url that follows from them."""

from __future__ import annotations

import os
from pathlib import Path

from traitlets import Enum, Float, Integer, Unicode
from traitlets.config import Configurable

from ..errors import ConfigError

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
        return MongoDB(parent=parent).url
    if kind != "sqlite":
        return kind
    options = SQLiteDB(parent=parent)
    return f"sqlite:///{Path(options.location or folder, options.filename).absolute()}"
