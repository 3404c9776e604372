"""Databases beside one another. No cluster."""

from __future__ import annotations

from pathlib import Path

from engineroom.stores.sqlite.beside import databases_beside, where_else


def test_the_databases_of_the_same_profile(tmp_path: Path):
    for name in ("tasks.db", "tasks-2.db", "tasks-3.db", "tasks.db-wal", "tasks-old.db", "other.db", "tasks-2.db.lock"):
        (tmp_path / name).touch()
    first, second, third = (tmp_path / name for name in ("tasks.db", "tasks-2.db", "tasks-3.db"))
    assert databases_beside(f"sqlite://{first}") == [second, third]
    assert databases_beside(f"sqlite://{second}") == [third, first]
    assert databases_beside("memory") == []
    assert databases_beside("sqlite:///no/such/folder/tasks.db") == []
    assert "tasks-2.db, tasks-3.db" in where_else(f"sqlite://{first}")
    assert f"--db-url={second}" in where_else(f"sqlite://{first}")
    assert where_else(f"sqlite://{tmp_path / 'other.db'}") == ""
