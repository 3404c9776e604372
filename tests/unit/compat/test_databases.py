"""Task databases as objects, with ipyparallel's methods; the settings of ipyparallel's MongoDB."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from engineroom.controller.dictdb import DictDB, NoDB
from engineroom.controller.mongodb import MongoDB
from engineroom.controller.sqlitedb import SQLiteDB

import engineroom as er
from engineroom.errors import StoreError

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("name", ["dict", "sqlite"])
def test_the_methods_of_a_database(name: str, tmp_path: Path):
    db: Any = DictDB() if name == "dict" else SQLiteDB(location=str(tmp_path), filename="mine.db", table="ipython")
    try:
        ids = [f"{number:032x}_1_2" for number in range(3)]
        for number, id in enumerate(ids):
            db.add_record(id, {"submitted": AT.replace(second=number), "label": f"n{number}", "client_uuid": "me"})
        assert db.get_history() == ids
        assert db.get_record(ids[1])["label"] == "n1"
        db.update_record(ids[1], {"label": "changed"})
        assert db.find_records({"label": "changed"}, keys=["submitted"]) == [
            {"msg_id": ids[1], "submitted": AT.replace(second=1)}
        ]
        with pytest.raises(StoreError):
            db.add_record(ids[0], {})
        db.drop_matching_records({"label": {"$in": ["changed"]}})
        db.drop_record(ids[0])
        assert db.get_history() == ids[2:]
        with pytest.raises(KeyError):
            db.get_record(ids[0])
    finally:
        db.close()
        db.close()
    if name == "sqlite":
        assert (tmp_path / "mine.db").exists()
        assert db.get_history() == ids[2:]
        db.close()


def test_no_database_forgets():
    with pytest.raises(KeyError, match="keeps no task records"):
        NoDB().get_history()


def test_the_records_of_a_cluster_that_has_ended(tmp_path: Path):
    folder = tmp_path / "profile_a"
    with er.Cluster(n=1, profile_dir=folder, cluster_id="") as rc:
        rc[0].apply_sync(abs, -1)
        [id] = rc.history
        with pytest.raises(er.StoreBusy):
            SQLiteDB(location=str(folder)).get_history()
    db = SQLiteDB(location=str(folder))
    assert db.get_history() == [id]
    assert db.get_record(id)["completed"] is not None
    db.close()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"url": "mongodb://a/b"}, "mongodb://a/b"),
        ({"url": "mongodb://a/b", "database": "c"}, "mongodb://a/c"),
        ({"connection_args": ["node1"]}, "mongodb://node1/engineroom"),
        ({"connection_args": ["node1", 27018], "database": "tasks"}, "mongodb://node1:27018/tasks"),
        ({"connection_kwargs": {"port": 5}}, "mongodb://localhost:5/engineroom"),
        ({"connection_kwargs": {"host": "mongodb://u:p@h/d?tls=true"}}, "mongodb://u:p@h/d?tls=true"),
        (
            {"connection_kwargs": {"host": "h", "username": "me", "password": "p@ss", "authSource": "admin"}},
            "mongodb://me:p%40ss@h/engineroom?authSource=admin",
        ),
    ],
)
def test_the_settings_of_mongodb(settings: dict[str, Any], url: str):
    assert MongoDB(**settings).whole_url() == url
