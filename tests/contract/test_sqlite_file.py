"""The SQLite file: who may open it, and in what state it must be."""

from __future__ import annotations

import errno
import gc
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.entries import finished, pending

from engineroom.errors import StoreBusy, StoreError
from engineroom.ids import Digest, TaskId
from engineroom.messages import Function
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite import connections
from engineroom.stores.sqlite import store as store_module
from engineroom.stores.sqlite.schema import migrate, migrations
from engineroom.stores.sqlite.write_ahead_log import has_pages, sync_log_again


def test_records_outlive_the_store(tmp_path: Path) -> None:
    for name in "ab":
        store = SQLiteDB(tmp_path / "tasks.db")
        store.add_record(TaskId(name), {"label": name})
        store.close()
    store = SQLiteDB(tmp_path / "tasks.db")
    assert store.get_history() == ["a", "b"]
    store.close()


@pytest.mark.fault(14)
def test_one_controller_owns_the_file(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    with pytest.raises(StoreBusy, match=f"process {os.getpid()} on "):
        SQLiteDB(tmp_path / "tasks.db")
    store.close()
    SQLiteDB(tmp_path / "tasks.db").close()


def test_a_link_to_a_database_is_the_same_database(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "tasks.db")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.db").symlink_to(tmp_path / "link.db")
    for first, second in (("tasks.db", "link.db"), ("link.db", "tasks.db"), ("link.db", "elsewhere/other.db")):
        store = SQLiteDB(tmp_path / first)
        with pytest.raises(StoreBusy, match="belongs to another controller"):
            SQLiteDB(tmp_path / second)
        store.close()


def test_looking_needs_no_ownership(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.add_record(TaskId("a"), {})
    look = SQLiteDB.open_readonly(tmp_path / "tasks.db")
    store.add_record(TaskId("b"), {})
    assert look.get_history() == ["a", "b"]
    with pytest.raises(StoreError, match="reading only"):
        look.drop_record(TaskId("a"))
    look.close()
    store.close()
    with pytest.raises(StoreError, match="there is no task database"):
        SQLiteDB.open_readonly(tmp_path / "missing.db")


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    SQLiteDB(tmp_path / "tasks.db").close()
    assert (tmp_path / "tasks.db").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("Dear diary, " * 100)
    with pytest.raises(StoreError, match="cannot be read as a task database"):
        SQLiteDB(tmp_path / "tasks.db")
    assert (tmp_path / "tasks.db").read_text().startswith("Dear diary")


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    change(tmp_path / "tasks.db", "CREATE TABLE tasks (id)")
    with pytest.raises(StoreError, match="not one of Engineroom's"):
        SQLiteDB(tmp_path / "tasks.db")


@pytest.mark.fault(45)
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    SQLiteDB(tmp_path / "tasks.db").close()
    change(tmp_path / "tasks.db", "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema version 99"):
        SQLiteDB(tmp_path / "tasks.db")


@pytest.mark.fault(45)
def test_a_migration_backs_up_first_and_happens_whole_or_not(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    SQLiteDB(path).close()
    new = migrations()[-1][0] + 1
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(StoreError, match="as it was before"):
        migrate(connection, path, [*migrations(), (new, "CREATE TABLE extra (x); CREATE TABLE tasks (x);")])
    assert connection.execute("PRAGMA user_version").fetchone() == (new - 1,)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'").fetchone() == (0,)
    migrate(connection, path, [*migrations(), (new, "CREATE TABLE extra (x);")])
    assert connection.execute("PRAGMA user_version").fetchone() == (new,)
    connection.close()
    assert path.with_name(f"tasks.db.v{new - 1}.backup").exists()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.close()
    for call in (store.get_history, lambda: store.add_record(TaskId("a"), {})):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_looking_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    SQLiteDB(tmp_path / "tasks.db").close()
    before = sorted(path.name for path in tmp_path.iterdir())
    look = SQLiteDB.open_readonly(tmp_path / "tasks.db")
    assert look.get_history() == []
    look.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before == ["tasks.db", "tasks.db.lock"]


@pytest.mark.fault(45)
def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, path, migrations()[:1])
    connection.execute(
        "INSERT INTO tasks (msg_id, kind, target, submitted, started, completed, attempt, payload, result_payload)"
        " VALUES ('a', 'apply', -1, 0.5, 1.0, 3.5, 1, x'01', x'02')"
    )
    connection.close()
    with pytest.raises(StoreError, match="older schema version 1"):
        SQLiteDB.open_readonly(path)
    store = SQLiteDB(path)
    assert [record["duration"] for record in store.find_records({"duration": {"$gt": 2}})] == [2.5]
    store.close()
    assert path.with_name("tasks.db.v1.backup").exists()


class FailingOnce:
    """A connection whose disk fails once: in a commit, or in another statement."""

    def __init__(self, real: sqlite3.Connection, name: str, at: str = "COMMIT") -> None:
        self._real, self._name, self._at = real, name, at

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == self._at and self._name:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname, self._name = self._name, ""
            raise error
        return self._real.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.fault(19)
def test_after_a_failed_sync_the_log_is_written_again_and_the_file_opened_again_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    did: list[str] = []

    def sync(path: Path) -> None:
        did.append("sync")
        if did.count("sync") == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync_log_again(path)

    store = SQLiteDB(tmp_path / "tasks.db", synchronous="FULL")
    verify = store_module.refuse_damaged
    monkeypatch.setattr(connections, "sync_log_again", sync)
    monkeypatch.setattr(store_module, "refuse_damaged", lambda *given: (did.append("verify"), verify(*given)))
    store.write([pending("a")])
    before = store._connections._writer
    assert before is not None
    store._connections._writer = FailingOnce(before, "SQLITE_IOERR_FSYNC")  # type: ignore[assignment]
    with pytest.raises(StoreError, match="disk I/O error"):
        store.add_functions([Function(Digest(b"d" * 16), b"code")])
    with pytest.raises(StoreError, match="fails to sync what is written: Input/output error"):
        store.write([pending("b")])
    store.write([pending("b")])
    assert did == ["sync", "sync", "verify"]
    assert store._connections._writer is not before
    assert "was opened again and verified, because a sync had failed" in caplog.text
    assert {entry.id for entry in store.unfinished()} == {"a", "b"}
    store.close()


@pytest.mark.fault(19)
def test_a_sync_that_fails_while_the_log_is_copied_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verified: list[Path] = []
    verify = store_module.refuse_damaged
    store = SQLiteDB(tmp_path / "tasks.db")
    monkeypatch.setattr(store_module, "refuse_damaged", lambda *given: (verified.append(tmp_path), verify(*given)))
    monkeypatch.setattr(connections, "COPIED_PAGES", 1)  # a commit is copied at once
    before = store._connections._writer
    assert before is not None
    copies = "PRAGMA wal_checkpoint(PASSIVE)"
    store._connections._writer = FailingOnce(before, "SQLITE_IOERR_FSYNC", copies)  # type: ignore[assignment]
    store.write([pending("a")])  # it is in the log
    assert "cannot be copied into the file, and is kept: disk I/O error" in caplog.text
    assert not verified

    def fail(connection: sqlite3.Connection) -> None:
        FailingOnce(connection, "SQLITE_IOERR_FSYNC", copies).execute(copies)

    with monkeypatch.context() as patch:
        patch.setattr(connections, "copy_log", fail)
        for _ in range(2):
            with pytest.raises(StoreError, match="disk I/O error"):
                store.write([pending("b")])
    store.write([pending("b")])
    assert len(verified) == 3
    assert {entry.id for entry in store.unfinished()} == {"a", "b"}
    store.close()


def test_the_log_is_copied_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copied = tmp_path / "tasks.db", list[int]()
    store = SQLiteDB(path)
    copy = connections.copy_log
    monkeypatch.setattr(connections, "copy_log", lambda connection: (copied.append(written), copy(connection)))
    log = path.with_name("tasks.db-wal")
    page, most, written = 8192, 0, 0
    for written in range(300):  # some 20 pages each
        store.write([pending(f"t{written}", buffers=(bytes([written % 256]) * 150_000,))])
        most = max(most, log.stat().st_size)
    assert 2 <= len(copied) <= 5
    assert most < 2 * connections.COPIED_PAGES * page, "it is written from its start again"
    assert not has_pages(path, page, connections.COPIED_PAGES + 100)
    store.close()
    assert not has_pages(path, page, 1), "there is no log"


def test_a_log_that_cannot_be_copied_at_the_end_is_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([pending("a")])

    def fail(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(connections, "copy_log", fail)
    store.close()
    assert "cannot be copied into the file" in caplog.text
    with closing(SQLiteDB(tmp_path / "tasks.db")) as again:
        assert [entry.id for entry in again.unfinished()] == ["a"]


def test_after_another_failure_the_connection_stays(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    before = store._connections._writer
    assert before is not None
    store._connections._writer = FailingOnce(before, "SQLITE_FULL")  # type: ignore[assignment]
    with pytest.raises(StoreError):
        store.add_functions([Function(Digest(b"d" * 16), b"code")])
    store.add_functions([Function(Digest(b"d" * 16), b"code")])
    assert store._connections._writer is not before, "the stand-in"
    assert not store._connections._is_in_doubt
    store.close()


def test_the_log_that_is_written_again_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = SQLiteDB(path)
    store.write([pending(f"{number}") for number in range(3000)])
    log = tmp_path / "tasks.db-wal"
    before = log.read_bytes()
    assert len(before) > 1 << 18
    sync_log_again(path)
    assert log.read_bytes() == before
    store.write([pending("more")])
    assert len(list(store.unfinished())) == 3001
    store.close()
    sync_log_again(tmp_path / "none.db")


@pytest.mark.parametrize("fails", [True, False])
def test_an_answer_that_was_not_read_to_its_end_is_dropped_after_the_store(
    tmp_path: Path, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback of an error keeps an answer that was being read. Dropped later, it said "closed database"."""
    ignored: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", lambda found: ignored.append(found.exc_value))
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a"), finished("b")])
    rows = store._read("SELECT msg_id FROM tasks ORDER BY msg_id")
    columns = store.find_columns({}, "msg_id")
    assert next(rows) == ("a",)
    assert next(columns)
    store.close()
    if fails:
        with pytest.raises(StoreError, match="closed"):
            list(store.find_columns({}, "msg_id"))
    del rows, columns
    gc.collect()
    assert ignored == []
