"""Files that are not as they were written: cut, overwritten, bits changed, of an old version, not ours."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from support.entries import failed, finished, pending

from engineroom.controller.storage.store_reader import readable_entries
from engineroom.errors import StoreDamaged, StoreError
from engineroom.ids import ClientId, TaskId, digest_of
from engineroom.messages import Environment, Function
from engineroom.records.fields import KEYS
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite.damaged import DamagedFile
from engineroom.stores.sqlite.doctor import repair, verify
from engineroom.stores.sqlite.file import End, Lock, file_system, log_problem
from engineroom.stores.sqlite.payload_files import PayloadFiles
from engineroom.stores.sqlite.references import used
from engineroom.stores.sqlite.schema import APPLICATION_ID, migrations

COUNT = 1800
NEWEST = migrations()[-1][0]


def make(path: Path, count: int = COUNT) -> None:
    store = SQLiteDB(path)
    store.write([finished(f"t{n:04}", 1e9 + n, payload=os.urandom(300)) for n in range(0, count, 2)])
    store.write([(failed, pending)[n // 2 % 2](f"t{n:04}", 1e9 + n) for n in range(1, count, 2)])
    store.close()


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


def test_a_sound_file_is_sound(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    big = memoryview(os.urandom(100_000))
    store.write([pending("a", buffers=(big,)), finished("b", buffers=(big, b"small")), failed("c"), finished("d")])
    store.write([finished("a", buffers=(big,))])
    store.add_record(TaskId("e"), {"label": "ünï", "metadata": {"x": 1}, "stdout": "\ud83d\ude00"[:0] + "😀"})
    store.update_record(TaskId("c"), {"resubmitted": "d", "pyerr": {"ename": "x"}, "result_buffers": [bytes(big)]})
    store.drop_buffers([TaskId("d")])
    found = verify(store.path)  # … while it is in use
    assert found.sound, found
    assert (found.good, found.unchecked, found.version) == (5, 0, NEWEST)
    assert store._connections._writer is not None
    assert store._connections._writer.execute("SELECT count(*), sum(size) FROM blobs").fetchone() == (1, 100_000)
    store.drop_matching_records({})
    left = "SELECT (SELECT count(*) FROM blobs) + (SELECT count(*) FROM parts)"
    assert store._connections._writer.execute(left).fetchone() == (0,)
    store.close()


@pytest.mark.fault(20)
def test_a_changed_bit_in_a_record_is_found(tmp_path: Path) -> None:
    make(tmp_path / "tasks.db")
    change(tmp_path / "tasks.db", "UPDATE tasks SET result_payload = x'00' WHERE msg_id = 't0006';"
           "UPDATE tasks SET completed = completed + 1 WHERE msg_id = 't0009'")  # fmt: skip
    found = verify(tmp_path / "tasks.db")
    assert (found.damaged, found.good) == (["t0006", "t0009"], COUNT - 2)
    assert found.summary() == f"2 records damaged, {COUNT - 2} good"
    repair(tmp_path / "tasks.db", tmp_path / "new.db")
    store = SQLiteDB(tmp_path / "new.db")
    assert store.get_history() == [f"t{n:04}" for n in range(COUNT) if n not in (6, 9)]
    store.close()
    assert verify(tmp_path / "new.db").sound


@pytest.mark.parametrize("lost", ["outcome_sum = NULL, result_payload = NULL", "attempt = NULL"])
def test_an_outcome_that_has_lost_its_checksum_or_its_attempt_is_damaged(tmp_path: Path, lost: str) -> None:
    make(tmp_path / "tasks.db", 10)
    change(tmp_path / "tasks.db", f"UPDATE tasks SET {lost} WHERE msg_id = 't0004'")
    found = verify(tmp_path / "tasks.db")
    assert (found.damaged, found.good) == (["t0004"], 9)


@pytest.mark.fault(20)
def test_a_damaged_large_buffer_leaves_the_records(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a", buffers=(bytes(100_000),)), finished("b")])
    store.close()
    change(tmp_path / "tasks.db", "UPDATE parts SET data = zeroblob(99999)")
    found = verify(tmp_path / "tasks.db")
    assert (found.damaged, found.lightened, found.good) == ([], ["a"], 2)
    store = SQLiteDB(tmp_path / "tasks.db")
    with pytest.raises(StoreError, match="a large buffer of this task is damaged"):
        store.get_record(TaskId("a"))
    assert [record["msg_id"] for record in store.find_records({})] == ["a", "b"]
    store.close()
    repair(tmp_path / "tasks.db", tmp_path / "new.db")
    store = SQLiteDB(tmp_path / "new.db")
    assert store.get_record(TaskId("a"))["buffers"] is None
    assert store.get_record(TaskId("a"))["result_buffers"] == [b"result"]
    store.close()
    assert verify(tmp_path / "new.db").sound


@pytest.mark.fault(20)
def test_a_damaged_table_of_large_buffers_is_an_error_of_the_database(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a", buffers=(bytes(100_000),))])
    store.close()
    change(store.path, "ALTER TABLE blobs RENAME COLUMN sum TO gone")
    reader = SQLiteDB.open_readonly(store.path)
    with pytest.raises(StoreError, match="could not read: no such column: sum"):
        reader.find_records({}, ["result_buffers", "buffers"])
    reader.close()


@pytest.mark.fault(20)
def test_a_large_buffer_with_a_changed_byte_is_not_read(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a", buffers=(bytes(100_000),))])
    change(tmp_path / "tasks.db", "UPDATE parts SET data = CAST(zeroblob(99999) || x'01' AS BLOB)")
    with pytest.raises(StoreDamaged, match="a large buffer of this task is damaged"):
        store.get_record(TaskId("a"))
    store.close()


@pytest.mark.fault(20, 44)
@pytest.mark.parametrize(
    "damage",
    ["DROP TRIGGER forget_blobs; DELETE FROM uses",
     # as if the buffers had been dropped, and stored again under other numbers
     "CREATE TABLE old AS SELECT * FROM blobs; DROP TABLE blobs; CREATE TABLE blobs"
     " (blob INTEGER PRIMARY KEY, digest BLOB, size INTEGER, file TEXT, sum INTEGER);"
     " INSERT INTO blobs SELECT * FROM old;"
     " INSERT INTO blobs SELECT blob + 1, digest, size, file, sum FROM old;"
     " INSERT INTO parts (blob, data) SELECT blob + 1, data FROM parts"],
    ids=["no uses", "buffers twice"],
)  # fmt: skip
def test_large_buffers_are_saved_whatever_else_is_damaged(tmp_path: Path, damage: str) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(name, buffers=(name.encode() * 100_000,)) for name in ("a", "b")])
    store.close()
    change(tmp_path / "tasks.db", damage)
    repair(tmp_path / "tasks.db", tmp_path / "new.db")
    assert verify(tmp_path / "new.db").sound
    store = SQLiteDB(tmp_path / "new.db")
    buffers = [[name.encode() * 100_000] for name in ("a", "b")]
    assert [store.get_record(TaskId(id))["buffers"][-1:] for id in ("a", "b")] == buffers
    store.drop_record(TaskId("a"))
    assert store.get_record(TaskId("b"))["buffers"][-1:] == buffers[1]
    store.close()


@pytest.mark.fault(20)
def test_a_damaged_file_is_refused_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.db"
    make(path)
    lock = Lock(path)
    lock.found_sound()
    lock.close(well=False)  # its owner was killed
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 8192 * 8192)
        file.write(bytes(8192))
    monkeypatch.setattr("engineroom.stores.sqlite.store.CHECKED_BYTES", 1000)
    for _ in range(2):
        with pytest.raises(StoreDamaged):
            SQLiteDB(path)


@pytest.mark.fault(20)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_that_was_cut(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "tasks.db"
    make(path)
    os.truncate(path, int(path.stat().st_size * kept))
    for opener in (SQLiteDB, SQLiteDB.open_readonly):
        with pytest.raises(StoreDamaged, match=r"has been cut: it has .* bytes\. .*engineroom db repair") as refused:
            opener(path)
    before = path.read_bytes()
    found = repair(path, tmp_path / "new.db")
    counted = f"{found.good:,} of its records are good, {len(found.damaged):,} are damaged"
    assert counted in str(refused.value)
    assert path.read_bytes() == before, "the original is kept"
    assert 0 < found.good < COUNT
    store = SQLiteDB(tmp_path / "new.db")
    assert store.count({}) == found.good
    store.close()
    assert verify(tmp_path / "new.db").sound
    with pytest.raises(StoreError, match="there is a file"):
        repair(path, tmp_path / "new.db")


@pytest.mark.parametrize("kept", [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_what_is_saved_of_large_buffers_is_whole(tmp_path: Path, kept: float) -> None:
    """Parts of a buffer may be found by an index, and not by reading the table from its ends."""
    store = SQLiteDB(tmp_path / "tasks.db")
    for n in range(60):
        store.write([finished(f"t{n}-{i}", 1e9 + n, payload=os.urandom(300)) for i in range(20)])
        store.write([finished(f"big{n}", 1e9 + n, buffers=(os.urandom(200_000),))])
    store.close()
    os.truncate(tmp_path / "tasks.db", int((tmp_path / "tasks.db").stat().st_size * kept))
    found = repair(tmp_path / "tasks.db", tmp_path / "new.db")
    after = verify(tmp_path / "new.db")
    assert after.sound, after.summary()
    assert after.good == found.good
    store = SQLiteDB.open_readonly(tmp_path / "new.db")
    records = store.find_records({"msg_id": {"$regex": "^big"}}, "buffers")
    store.close()
    light = {record["msg_id"] for record in records if record["buffers"] is None}
    assert light == {id for id in found.lightened if id.startswith("big")}


def test_an_empty_file_is_no_database_yet(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").touch()
    with pytest.raises(StoreError, match="it is empty"):
        verify(tmp_path / "tasks.db")


@pytest.mark.fault(20, 44)
def test_rows_that_come_again_and_again_are_read_to_an_end(tmp_path: Path) -> None:
    """SQLite may look for its place in a table again; where rows are not in order it goes round for ever."""
    make(tmp_path / "tasks.db", 3)
    with contextlib.closing(DamagedFile(tmp_path / "tasks.db")) as file:
        file.findings.structure.append("Rowid 2 out of order")
        assert list(file._once("table blobs", itertools.cycle([(1,), (3,), (2,)]))) == [(1,), (3,), (2,)]
        assert "table blobs: its rows are not in order" in file.findings.structure


@pytest.mark.fault(20)
def test_who_opens_a_damaged_file_is_told_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.db"
    make(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 8192 * 8192)
        file.write(bytes(8192))
    found = verify(path)
    assert found.good + len(found.damaged) == COUNT
    with pytest.raises(StoreDamaged) as refused:
        SQLiteDB(path)
    said = str(refused.value)
    assert f"{found.good:,} of its records are good, {len(found.damaged):,} are damaged." in said
    assert f"`engineroom db repair {path}`" in said
    assert f"`engineroom db verify {path}`" in said
    monkeypatch.setattr("engineroom.stores.sqlite.doctor.COUNTED_BYTES", 1000)
    with pytest.raises(StoreDamaged, match="too large to count here"):
        SQLiteDB(path)


@pytest.mark.fault(44)
def test_of_a_large_file_that_may_have_lost_something_every_index_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records are not read: that would take minutes."""
    path = tmp_path / "tasks.db"
    make(path, COUNT)
    path.with_name("tasks.db.lock").unlink()
    monkeypatch.setattr("engineroom.stores.sqlite.doctor.COUNTED_BYTES", 1000)
    monkeypatch.setattr("engineroom.stores.sqlite.doctor.verify", lambda path: pytest.fail("every record was read"))
    SQLiteDB(path).close()
    path.with_name("tasks.db.lock").unlink()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        [(one, first), (other, second), *_] = file.execute(
            "SELECT name, rootpage FROM sqlite_schema WHERE tbl_name = 'tasks' AND type = 'index' AND sql IS NOT NULL"
        )
        file.execute("PRAGMA writable_schema = ON")
        file.executemany("UPDATE sqlite_schema SET rootpage = ? WHERE name = ?", [(second, one), (first, other)])
    with pytest.raises(StoreDamaged, match="too large to count here"):
        SQLiteDB(path)


@pytest.mark.fault(20)
def test_changed_bytes_anywhere_never_end_in_a_traceback(tmp_path: Path) -> None:
    make(tmp_path / "whole.db", 151)
    whole, path, random_ = (tmp_path / "whole.db").read_bytes(), tmp_path / "tasks.db", random.Random(7)
    original = SQLiteDB(tmp_path / "whole.db")
    records = {record["msg_id"]: record for record in original.find_records({}, list(KEYS))}
    original.close()
    refused = saved = 0
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(random_.choice((1, 1, 3, 30))):
            place = random_.randrange(len(damaged))
            if number % 3:
                damaged[place] ^= 1 << random_.randrange(8)
            else:  # a block of zeros, as disks leave it
                damaged[place : place + 4096] = bytes(len(damaged[place : place + 4096]))
        path.write_bytes(damaged)
        target = tmp_path / f"new{number}.db"
        try:
            found = repair(path, target)
        except StoreError:
            refused += 1
            assert not target.exists()
            continue
        store = SQLiteDB(target)
        for record in store.find_records({}, list(KEYS)):
            for key in ("msg_id", "submitted", "completed", "buffers", "result_buffers", "result_content", "stdout"):
                assert record[key] == records[record["msg_id"]][key]
        saved += store.count({})
        assert store.count({}) == found.good
        store.close()
        target.unlink()
    assert refused < 20
    assert saved > 20 * 151


@pytest.mark.fault(20)
@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_any_page_may_be_bad(tmp_path: Path, fill: bytes) -> None:
    """With large buffers beside the file, and in it."""
    whole, path = tmp_path / "whole.db", tmp_path / "tasks.db"
    store = SQLiteDB(whole)
    store.write([finished(name, buffers=(name.encode() * size,)) for name, size in (("a", 400_000), ("b", 100_000))])
    store.write([finished(f"t{n}") for n in range(20)])
    store.close()
    content, size = whole.read_bytes(), 8192
    saved = []
    for page in range(len(content) // size):
        path.write_bytes(content[: page * size] + fill * size + content[(page + 1) * size :])
        shutil.copytree(PayloadFiles(whole).folder, PayloadFiles(path).folder)
        with contextlib.suppress(StoreError):
            verify(path)
        try:
            saved.append(repair(path, tmp_path / "new.db").good)
            assert verify(tmp_path / "new.db").sound
        except StoreError:
            assert not list(tmp_path.glob("new.db*"))
        for left in (path, tmp_path / "new.db"):
            left.unlink(missing_ok=True)
            shutil.rmtree(PayloadFiles(left).folder, ignore_errors=True)
    assert len(saved) >= len(content) // size - 3  # the first page, the schema, the settings
    assert saved.count(22) > len(saved) // 2


def test_large_buffers_are_found_without_their_index(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished(name, buffers=(name.encode() * 100_000,)) for name in ("a", "b")])
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as file:
        [root] = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'parts_by_blob'").fetchone()
    with (tmp_path / "tasks.db").open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(bytes(8192))
    found = verify(tmp_path / "tasks.db")
    assert (found.good, found.damaged, found.lightened) == (2, [], [])
    repair(tmp_path / "tasks.db", tmp_path / "new.db")
    store = SQLiteDB(tmp_path / "new.db")
    buffers = [store.get_record(TaskId(id))["buffers"][-1] for id in ("a", "b")]
    assert buffers == [b"a" * 100_000, b"b" * 100_000]
    store.close()


def test_what_is_in_a_log_that_was_deleted_is_saved(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    for name in ("a", "b"):
        store.write([finished(name)])
    (tmp_path / "tasks.db-wal").unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"tasks.db-wal has been deleted .* copied into the file.*: restart"):
            store.write([finished("c")])
    shutil.copy(tmp_path / "tasks.db", tmp_path / "left.db")  # what the next controller finds, if this one is killed
    left = SQLiteDB(tmp_path / "left.db")
    assert left.get_history() == ["a", "b"]
    left.close()
    store.close()
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("c")])
    assert store.get_history() == ["a", "b", "c"]
    store.close()


def old_file(path: Path, version: int) -> None:
    """A file as that version made it: its own SQL, and rows of that time."""
    connection = sqlite3.connect(path)
    for number in range(1, version + 1):
        files = resources.files("engineroom.stores.sqlite") / "sql"
        [name] = [file for file in files.iterdir() if file.name[:3] == f"{number:03}"]
        connection.executescript(name.read_text())
    connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};")
    connection.executemany(
        "INSERT INTO tasks (msg_id, kind, state, submitted, started, completed, received, client_uuid, engine_uuid,"
        " engine_id, queue, target, function, attempt, stdout, stderr, payload, frames, result_payload)"
        " VALUES (?, 'apply', 'completed', ?, 2, 3, 4, 'alice', 'e1', 1, 'task', -1, x'0fff', 1, '', '', x'01', ?,"
        " x'02')",
        [(f"t{n}", 1e9 + n, b"\x01\0\0\0\x03\0\0\0\0\0\0\0abc" if n == 5 else None) for n in range(100)],
    )
    connection.commit()
    connection.close()


@pytest.mark.fault(45)
@pytest.mark.parametrize("version", range(1, NEWEST))
def test_an_old_file_is_backed_up_and_migrated(tmp_path: Path, version: int) -> None:
    path = tmp_path / "tasks.db"
    old_file(path, version)
    found = verify(path)
    assert (found.version, found.good, found.unchecked, found.sound) == (version, 100, 100, True)
    store = SQLiteDB(path)
    assert store.count({"state": "completed"}) == 100
    assert store.get_record(TaskId("t5"))["buffers"] == [b"\x01", b"abc"]
    assert store.entries([TaskId("t5")])[TaskId("t5")].frames == (b"abc",)
    store.write([finished("new")])
    assert store._connections._writer is not None
    assert store._connections._writer.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    store.close()
    backup = verify(path.with_name(f"tasks.db.v{version}.backup"))
    assert (backup.version, backup.good) == (version, 100)
    found = verify(path)
    assert (found.version, found.good, found.unchecked, found.sound) == (NEWEST, 101, 100, True)
    old_file(tmp_path / "other.db", version)
    repair(tmp_path / "other.db", tmp_path / "new.db")
    store = SQLiteDB(tmp_path / "new.db")
    assert store.count({}) == 100
    store.close()


@pytest.mark.fault(20)
def test_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Dear diary, " * 100)
    with pytest.raises(StoreDamaged, match=r"nothing of .*text can be read"):
        verify(tmp_path / "text")
    change(tmp_path / "theirs", "CREATE TABLE tasks (id)")
    with pytest.raises(StoreError, match="not one of Engineroom's"):
        verify(tmp_path / "theirs")
    make(tmp_path / "new", 3)
    change(tmp_path / "new", "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema version 99"):
        verify(tmp_path / "new")
    with pytest.raises(StoreError, match="there is no task database"):
        verify(tmp_path / "missing")


def test_a_file_whose_owner_died_is_looked_through(tmp_path: Path) -> None:
    code = (
        "import os, sys; from engineroom.stores import SQLiteDB as S; S(sys.argv[1]).add_record('a', {}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "tasks.db")], check=True)
    assert end_of_owner(tmp_path / "tasks.db") is End.KILLED
    store = SQLiteDB(tmp_path / "tasks.db")
    assert store.get_history() == ["a"]
    store.close()
    assert end_of_owner(tmp_path / "tasks.db") is End.WELL


def end_of_owner(path: Path) -> End:
    lock = Lock(path)
    lock.close(well=False)
    return lock.end


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
30 22 0:30 / /home rw,relatime - nfs4 server:/home rw
31 22 0:31 / /mnt/my\\040share rw - cifs //server/share rw
32 22 0:32 / /mnt/remote rw - fuse.sshfs me@there: rw
33 30 0:33 / /home/local rw - xfs /dev/sdb1 rw
"""


@pytest.mark.fault(21)
def test_a_log_needs_a_local_file_system(tmp_path: Path) -> None:
    kinds = {
        "/home/me": "nfs4",
        "/mnt/my share/x": "cifs",
        "/mnt/remote": "fuse.sshfs",
        "/home/local/x": "xfs",
        "/homes": "ext4",
    }
    assert {folder: file_system(Path(folder), MOUNTS) for folder in kinds} == kinds
    problem = log_problem(Path("/home/me"), MOUNTS)
    assert problem is not None
    assert "nfs4" in problem
    assert log_problem(tmp_path) is None


@pytest.mark.fault(21)
def test_a_rollback_journal_does_the_same(tmp_path: Path) -> None:
    store = SQLiteDB(tmp_path / "tasks.db", journal="rollback")
    reader = SQLiteDB.open_readonly(tmp_path / "tasks.db")
    for number in range(20):
        store.write([finished(f"t{number}", 1e9 + number)])
        assert reader.count({}) == number + 1
    assert not (tmp_path / "tasks.db-wal").exists()
    reader.close()
    store.close()
    assert verify(tmp_path / "tasks.db").sound


@pytest.mark.parametrize(
    "damage",
    ["payload = x'00'", "result_payload = x'00'", "completed = completed + 1", "client_uuid = 'eve'", "state = 7",
     "stdout = CAST(x'ff' AS TEXT)", "function = 7"],
)  # fmt: skip
def test_a_damaged_record_is_named_when_it_is_read_and_the_others_are_not(tmp_path: Path, damage: str) -> None:
    names = [TaskId(name) for name in ("a", "b", "c")]
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a"), failed("b"), finished("c")])
    change(store.path, f"UPDATE tasks SET {damage} WHERE msg_id = 'b'")
    for read in (store.get_record, lambda id: store.entries([id]), lambda _: store.entries(names)):
        with pytest.raises(StoreDamaged, match=r"the record of task b is damaged|decode"):
            read(TaskId("b"))
    assert store.get_record(TaskId("a"))["result_buffers"] == [b"result"]
    found, damaged = readable_entries(store, names)
    assert (list(found), list(damaged)) == (["a", "c"], ["b"])
    assert readable_entries(store, [names[0], names[2]])[1] == {}
    store.close()


@pytest.mark.fault(20)
def test_a_damaged_unfinished_task_does_not_keep_the_others_from_being_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([pending(name) for name in ("a", "b", "c")])
    change(store.path, "UPDATE tasks SET payload = x'00' WHERE msg_id = 'b'")
    assert [entry.id for entry in store.unfinished()] == ["a", "c"]
    assert "the record of task b is damaged" in caplog.text
    store.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE functions SET payload = 5",
        "UPDATE functions SET name = CAST(x'ff' AS TEXT)",
        "UPDATE engines SET host = CAST(x'ff' AS TEXT)",
        "UPDATE engines SET engine_uuid = x'ff'",
        "UPDATE environments SET content = 5",
        "UPDATE clients SET environment = CAST(x'ff' AS TEXT)",
        "UPDATE parts SET data = 5",
        "UPDATE parts SET data = 'text'",
        "UPDATE blobs SET size = 'text'",
        "UPDATE blobs SET digest = NULL",
        "UPDATE pins SET msg_id = x'ff'",
        "UPDATE uses SET result = 'text'",
        "UPDATE tasks SET seq = 9000000000000000000 WHERE msg_id = 'c'",
    ],
)
def test_a_row_may_hold_anything(tmp_path: Path, sql: str) -> None:
    """The file is sound, and what is in it is not: the doctor and a store raise nothing but errors of ours."""
    store = SQLiteDB(tmp_path / "tasks.db")
    store.write([finished("a", buffers=(bytes(100_000),)), finished("b"), pending("c")])
    store.add_functions([Function(digest_of(b"code"), b"code", "f")])
    store.add_environments([(ClientId("alice"), Environment("e" * 32, b"{}"))])
    store.pin([TaskId("b")], True)
    store.close()
    connection = sqlite3.connect(tmp_path / "tasks.db")
    connection.execute("PRAGMA ignore_check_constraints = 1")
    with contextlib.suppress(sqlite3.IntegrityError):
        connection.executescript(sql)
    connection.close()
    verify(tmp_path / "tasks.db")
    repair(tmp_path / "tasks.db", tmp_path / "new.db")
    assert verify(tmp_path / "new.db").sound
    store = SQLiteDB(tmp_path / "tasks.db")
    for ask in (lambda: store.find_records({}, list(KEYS)), lambda: list(store.used_references()),
                lambda: list(store.stored_references()), lambda: store.get_function(digest_of(b"code")),
                lambda: store.get_environment("e" * 32), lambda: list(store.unfinished()), store.get_history,
                lambda: store.drop_matching_records({})):  # fmt: skip
        with contextlib.suppress(StoreError):
            ask()
    store.close()


def test_a_schema_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    """SQLite quotes it in its error, and then Python cannot read the error."""
    make(tmp_path / "tasks.db", 10)
    change(tmp_path / "tasks.db", "PRAGMA writable_schema = 1; "
           "UPDATE sqlite_schema SET name = CAST(x'd3ff' AS TEXT), sql = 'x' WHERE name = 'pins'")  # fmt: skip
    for opener in (SQLiteDB, SQLiteDB.open_readonly):
        with pytest.raises(StoreDamaged):
            opener(tmp_path / "tasks.db")
    with contextlib.suppress(StoreError):
        verify(tmp_path / "tasks.db")


def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    os.mkfifo(path)  # who opens it to read waits until somebody writes
    uses = (SQLiteDB, SQLiteDB.open_readonly, verify, lambda path: repair(path, tmp_path / "repaired.db"))
    for use in uses:
        with pytest.raises(StoreError, match="is not a file"):
            use(path)


def test_a_task_without_an_end_has_no_outcome_whatever_its_attempt_says(tmp_path: Path) -> None:
    """No checksum covers the outcome of a task that has none, and one bit makes 0 of the NULL of its attempt."""
    path, mended = tmp_path / "tasks.db", tmp_path / "mended.db"
    make(path, 4)
    change(path, "UPDATE tasks SET attempt = 0 WHERE completed IS NULL")
    repair(path, mended)
    for file in (path, mended):
        with contextlib.closing(SQLiteDB(file)) as store:
            [entry] = store.unfinished()
            assert (entry.id, entry.done) == ("t0003", None)
            assert store.get_record(TaskId("t0003"))["result_content"] is None
    assert verify(mended).sound


@pytest.mark.parametrize("first", ["a", -1])
def test_rows_that_are_not_in_order_do_not_make_what_they_use_unused(first: object) -> None:
    with pytest.raises(StoreDamaged, match="not in order"):
        list(used(lambda sql, values: iter([(first,)])))


def test_a_small_file_with_a_large_number_is_not_searched_for_long(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    make(path, 40)
    change(path, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE tasks SET seq = 800000000000 WHERE seq = 40")
    change(path, "PRAGMA journal_mode = DELETE")
    os.truncate(path, path.stat().st_size - 8192)
    with contextlib.closing(DamagedFile(path)) as file:
        asked: list[str] = []
        file._connection.set_trace_callback(asked.append)
        list(file.records())
        assert file.findings.structure
        assert 1000 < len(asked) <= path.stat().st_size + 1000, "100 for each row of 100 bytes"


def test_an_index_that_names_a_row_which_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(SQLiteDB(tmp_path / "tasks.db")) as store:
        store.write([finished("a"), finished("b")])
        monkeypatch.setattr(store._search, "_scan", lambda *given: iter([(98, None), (99, None)]))
        with pytest.raises(StoreDamaged, match="an index names a record that is not there"):
            store.page({}, limit=2)
