"""The classes of `ipyparallel.controller.dictdb`, `sqlitedb` and `mongodb`: settings, and task databases as objects.

As `c.IPController.db_class` they choose a database. As objects they open one when it is first used, with the methods
that ipyparallel has. They are thin: `stores` does the work, and its own stores have more methods. A database that a
controller has open is busy: `Client.db_query` asks the controller.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..cli import databases as settings
from ..config import profile_dir
from ..ids import TaskId
from ..records.database_urls import url_of
from ..records.record import TaskRecord
from ..stores import TaskStore, open_store


class BaseDB:
    """A task database, opened when it is first used."""

    def _url(self) -> tuple[str, dict[str, Any]]:
        """What is opened, and with which options."""
        raise NotImplementedError

    @functools.cached_property
    def _store(self) -> TaskStore:
        url, options = self._url()
        return open_store(url, **options)

    def add_record(self, msg_id: str, rec: Mapping[str, Any]) -> None:
        """Add a record; missing keys are None. StoreError if the id is taken."""
        self._store.add_record(TaskId(msg_id), rec)

    def get_record(self, msg_id: str) -> TaskRecord:
        """A record; KeyError if there is none."""
        return self._store.get_record(TaskId(msg_id))

    def update_record(self, msg_id: str, rec: Mapping[str, Any]) -> None:
        """Change some keys of a record; KeyError if there is none."""
        self._store.update_record(TaskId(msg_id), rec)

    def drop_record(self, msg_id: str) -> None:
        """Drop a record; KeyError if there is none."""
        self._store.drop_record(TaskId(msg_id))

    def drop_matching_records(self, check: Mapping[str, Any]) -> None:
        """Drop the records that match a query."""
        self._store.drop_matching_records(check)

    def find_records(self, check: Mapping[str, Any], keys: Iterable[str] | None = None) -> list[TaskRecord]:
        """The records that match a query, by time of submission, with these keys."""
        return self._store.find_records(check, keys)

    def get_history(self) -> list[str]:
        """All ids, by time of submission."""
        return [record["msg_id"] for record in self._store.find_records({}, ["msg_id"])]

    def close(self) -> None:
        """Close the database. It is opened again when it is used again; what was in memory is gone."""
        if (store := vars(self).pop("_store", None)) is not None:
            store.close()


class DictDB(BaseDB, settings.DictDB):
    """A task database in memory."""

    def _url(self) -> tuple[str, dict[str, Any]]:
        names = ("record_limit", "size_limit", "cull_fraction")
        return "memory", {name: getattr(self, name) for name in names}


class NoDB(BaseDB, settings.NoDB):
    """No task database: questions to it are a KeyError."""

    def _url(self) -> tuple[str, dict[str, Any]]:
        return "none", {}


class SQLiteDB(BaseDB, settings.SQLiteDB):
    """A task database in a file."""

    def _url(self) -> tuple[str, dict[str, Any]]:
        path = Path(self.location or profile_dir(), self.filename)
        return url_of(path), {"synchronous": self.synchronous, "journal": self.journal}


class MongoDB(BaseDB, settings.MongoDB):
    """A task database on a MongoDB server."""

    def _url(self) -> tuple[str, dict[str, Any]]:
        return self.whole_url(), {}
