"""Databases that earlier versions made: they open, migrated after a backup, and have what they had."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from upgrade.make_old import COMMITS, HERE, dump, load

import engineroom as er
from engineroom.cli.engineroom import main
from engineroom.errors import StoreError
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite.doctor import verify
from engineroom.stores.sqlite.schema import migrate, migrations

NEWEST = migrations()[-1][0]


@pytest.fixture(params=sorted(COMMITS))
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old(version: int, tmp_path: Path) -> Path:
    """The database that a cluster of that version left when it was killed."""
    load((HERE / f"schema_{version}.sql").read_text(), tmp_path / "tasks.db")
    return tmp_path / "tasks.db"


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_every_version_that_ever_was_is_tried() -> None:
    """A commit that adds a migration adds the database of the version before it: see `make_old.py`."""
    assert sorted(COMMITS) == list(range(1, NEWEST))


@pytest.mark.fault(45)
def test_it_is_migrated_after_a_backup_and_has_its_records(old: Path, version: int) -> None:
    before = dump(old)
    with closing(SQLiteDB(old)) as store:
        assert store.count({}) == 7
        assert store.count({"state": "completed"}) == 5
        squares = store.find_records({"label": "squares"})
        assert [record["stdout"] for record in squares] == ["squaring 0\n", "squaring 1\n", "squaring 2\n"]
        assert all(record["completed"] >= record["started"] > record["submitted"] for record in squares)
        [failed] = store.find_records({"label": "fails"})
        assert (failed["state"], failed["result_content"]["ename"]) == ("failed", "ZeroDivisionError")
        [array] = store.find_records({"label": "array"})
        assert max(len(buffer) for buffer in store.get_record(array["msg_id"])["result_buffers"]) == 70_000
        [unfinished] = store.find_records({"completed": None})
        assert [entry.spec.id for entry in list(store.unfinished())] == [unfinished["msg_id"]]
        assert unfinished["label"] == "unfinished"
    backup = old.with_name(f"tasks.db.v{version}.backup")
    assert (dump(backup), version_of(old)) == (before, NEWEST)
    assert verify(backup).sound
    assert verify(old).sound
    assert backup.stat().st_mode & 0o077 == 0


@pytest.mark.fault(45)
def test_reading_does_not_change_it_and_says_what_to_do(
    old: Path, version: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, files = old.read_bytes(), sorted(old.parent.iterdir())
    with pytest.raises(StoreError, match=f"older schema version {version}, .*`engineroom db migrate {old}` copies it"):
        SQLiteDB.open_readonly(old)
    for words in (["db", "info", old], ["db", "copy", old, old.with_name("copy.db")], ["tasks", f"--db-url={old}"]):
        assert main([str(word) for word in words]) == 1
        assert f"engineroom db migrate {old}" in capsys.readouterr().err
    old.with_name("copy.db").unlink(missing_ok=True)
    old.with_name("copy.db.lock").unlink(missing_ok=True)
    assert main(["db", "verify", str(old)]) == 0
    assert (old.read_bytes(), sorted(old.parent.iterdir())) == (before, files)
    capsys.readouterr()
    assert main(["db", "migrate", str(old)]) == 0
    assert f"schema version {version} → {NEWEST}; a backup is {old}.v{version}.backup" in capsys.readouterr().out
    with closing(SQLiteDB.open_readonly(old)) as store:
        assert store.count({}) == 7


@pytest.mark.fault(45)
def test_a_newer_one_is_refused_and_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tasks.db"
    SQLiteDB(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA journal_mode = DELETE")
    before = path.read_bytes()
    match = rf"schema version 99: a newer Engineroom made it. This one \({er.__version__}\) .*Upgrade it"
    for way in (SQLiteDB, SQLiteDB.open_readonly, verify):
        with pytest.raises(StoreError, match=match):
            way(path)
    for command in ("migrate", "info", "verify", "compact", "repair"):
        assert main(["db", command, str(path)]) == 1
        assert "a newer Engineroom made it" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.fault(45)
@pytest.mark.slow
@pytest.mark.parametrize("version", [3], indirect=True)
def test_a_migration_that_is_killed_leaves_the_old_file_or_the_new_one(old: Path, version: int, tmp_path: Path) -> None:
    def migrated(path: Path, statement: int) -> bool:
        """Migrate it in a process that is killed before a statement. False: there are no more statements."""
        child = os.fork()
        if not child:
            connection = sqlite3.connect(path, isolation_level=None)
            left = iter(range(statement))
            connection.set_trace_callback(lambda _: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
            migrate(connection, path)
            os._exit(0)
        return os.waitpid(child, 0)[1] == signal.SIGKILL

    before, seen = dump(old), set()
    for statement in range(0, 1000, 3):
        path = tmp_path / f"{statement}.db"
        path.write_bytes(old.read_bytes())
        killed = migrated(path, statement)
        seen.add(version_of(path))
        assert version_of(path) == NEWEST or dump(path) == before
        with closing(SQLiteDB(path)) as store:
            assert store.count({}) == 7
            assert len(store.find_records({"label": "squares"})) == 3
        assert version_of(path.with_name(f"{path.name}.v{version}.backup")) == version
        if not killed:
            break
    assert seen == {version, NEWEST}


@pytest.mark.fault(45)
@pytest.mark.parametrize("version", [5], indirect=True)
def test_without_a_backup_there_is_no_migration(old: Path) -> None:
    before = dump(old)
    old.with_name("tasks.db.v5.backup").mkdir()
    with pytest.raises(StoreError, match=r"no backup could be written to .*tasks\.db is as it was before"):
        SQLiteDB(old)
    assert dump(old) == before
    assert sorted(file.name for file in old.parent.iterdir()) == ["tasks.db", "tasks.db.lock", "tasks.db.v5.backup"]


@pytest.mark.slow
@pytest.mark.fault(45)
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="its functions have the code of Python 3.11")
@pytest.mark.parametrize("version", [5], indirect=True)
def test_a_cluster_goes_on_with_it(old: Path) -> None:
    """Results are fetched, tasks are submitted again, and the task that was not finished is."""
    with er.Cluster(n=1, database=f"sqlite://{old}") as rc:
        ids = {
            label: [record["msg_id"] for record in rc.db_query({"label": label}, keys=["msg_id"])]
            for label in ("squares", "fails", "array", "unfinished")
        }
        assert rc.get_result(ids["squares"]).get(60) == [0, 1, 4]
        assert rc.get_result(ids["array"][0]).get(60).nbytes == 70_000
        with pytest.raises(er.RemoteError, match="ZeroDivisionError"):
            rc.get_result(ids["fails"][0]).get(60)
        assert rc.get_result(ids["unfinished"][0]).get(60) == 6
        assert rc.resubmit(ids["squares"]).get(60) == [0, 1, 4]
        assert rc.db_count({"label": "squares", "state": "completed"}) == 6
