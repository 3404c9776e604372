"""Large buffers as files beside an SQLite database: written once, found again, removed with their last record."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.entries import finished, pending

from engineroom.errors import StoreDamaged, StoreError, StoreFull
from engineroom.ids import TaskId
from engineroom.shared_memory.buffer import SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.stores import SQLiteDB
from engineroom.stores.maintenance.copy import StoreSide, copy
from engineroom.stores.sqlite import payload_files
from engineroom.stores.sqlite.doctor import repair, verify
from engineroom.stores.sqlite.payload_files import FILE_FROM
from engineroom.stores.sqlite.schema import back_up_file

SIZE = 3 * FILE_FROM + 5


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteDB(tmp_path / "tasks.db")) as opened:
        yield opened


def files(store: SQLiteDB) -> list[Path]:
    folder = store.path.with_name(f"{store.path.name}-payloads")
    return sorted(folder.iterdir()) if folder.exists() else []


def frames_of(store: SQLiteDB, name: str) -> list[bytes]:
    [entry] = store.entries([TaskId(name)]).values()
    return [bytes(frame) for frame in (*entry.frames, *entry.result_frames)]


def test_a_large_buffer_is_a_file_that_is_ours_alone(store):
    content = os.urandom(SIZE)
    store.write([pending("a", buffers=(content, b"small"))])
    [path] = files(store)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert frames_of(store, "a") == [content, b"small"]
    assert store.get_record(TaskId("a"))["buffers"][1:] == [content, b"small"]
    assert all(type(buffer) is bytes for buffer in store.get_record(TaskId("a"))["buffers"])


def test_it_is_read_as_a_mapping_of_the_file(store):
    store.write([pending("a", buffers=(os.urandom(SIZE),))])
    [entry] = store.entries([TaskId("a")]).values()
    assert isinstance(entry.frames[0], SharedBuffer)


def test_a_shared_buffer_is_written_without_its_pages_in_memory(store):
    content = os.urandom(SIZE)
    store.write([finished("a", buffers=(Pool().copy(content),))])
    assert content in frames_of(store, "a")


def test_equal_contents_are_one_file(store):
    content = os.urandom(SIZE)
    store.write([pending("a", buffers=(content,)), pending("b", buffers=(bytes(bytearray(content)),))])
    store.write([pending("c", buffers=(bytes(bytearray(content)),))])
    assert len(files(store)) == 1
    assert frames_of(store, "a") == frames_of(store, "b") == frames_of(store, "c") == [content]
    assert store.usage().large == SIZE


def test_other_contents_with_the_same_checksum_are_other_files(store, monkeypatch):
    monkeypatch.setattr(payload_files, "crc32", lambda data, value=0: 7)
    contents = [os.urandom(SIZE) for _ in range(3)]
    for name, content in zip("abc", contents, strict=True):
        store.write([pending(name, buffers=(content,))])
    assert len(files(store)) == 3
    assert [frames_of(store, name) for name in "abc"] == [[content] for content in contents]


def test_a_file_goes_with_its_last_record(store):
    one, other = os.urandom(SIZE), os.urandom(SIZE)
    store.write([finished("a", buffers=(one,)), finished("b", buffers=(one,)), finished("c", buffers=(other,))])
    store.drop_record(TaskId("a"))
    assert len(files(store)) == 2
    store.drop_buffers([TaskId("b")])
    assert [path.read_bytes() for path in files(store)] == [other]
    for _ in store.drop_in_pieces({}):
        pass
    assert files(store) == []


@pytest.mark.parametrize("how", ["matching", "change"])
def test_it_goes_by_every_way(store, how):
    store.write([finished("a", buffers=(os.urandom(SIZE),))])
    if how == "matching":
        store.drop_matching_records({"msg_id": "a"})
    else:
        store.update_record(TaskId("a"), {"buffers": [b"x"], "result_buffers": [b"y"]})
    assert files(store) == []


def test_usage_counts_files(store):
    before = store.usage().used
    store.write([finished("a", buffers=(os.urandom(SIZE),))])
    assert store.usage().used >= before + SIZE
    assert store.large_buffers(10) == [(TaskId("a"), SIZE)]


def test_what_did_not_commit_leaves_no_file(store, monkeypatch):
    def fails(*args):
        raise StoreError("no")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_insert", fails)
        with pytest.raises(StoreError, match="no"):
            store.write([pending("a", buffers=(os.urandom(SIZE),))])
    assert files(store) == []
    store.write([pending("a", buffers=(content := os.urandom(SIZE),))])
    assert frames_of(store, "a") == [content]


@pytest.mark.fault(18)
def test_a_full_disk_is_named_and_leaves_no_file(store, monkeypatch):
    with monkeypatch.context() as patch:
        def full(*args):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        with pytest.raises(StoreFull, match="Free some space"):
            store.write([pending("a", buffers=(os.urandom(SIZE),))])
    assert files(store) == []
    assert store.count({}) == 0


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    """It is killed after the file is written, before the row is committed; and before a dropped file is removed."""
    code = f"""
import os, signal
from support.entries import finished
from engineroom.stores import SQLiteDB
store = SQLiteDB({str(tmp_path / "tasks.db")!r})
store.write([finished("kept", buffers=(bytes({SIZE}),)), finished("dropped", buffers=(b"x" * {SIZE},))])
store._remove_dropped = lambda: None
store.drop_matching_records({{"msg_id": "dropped"}})
store._insert = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
store.write([finished("lost", buffers=(b"y" * {SIZE},))])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
    folder = tmp_path / "tasks.db-payloads"
    assert len(list(folder.iterdir())) == 3
    with closing(SQLiteDB(tmp_path / "tasks.db")) as store:
        [path] = files(store)
        assert path.read_bytes() == bytes(SIZE)
        assert frames_of(store, "kept").count(bytes(SIZE)) == 1


def damage(path: Path, how: str) -> None:
    path.chmod(0o600)
    if how == "missing":
        path.unlink()
    elif how == "cut":
        os.truncate(path, SIZE - 1)
    else:
        with path.open("r+b") as file:
            file.seek(SIZE // 2)
            file.write(b"flip")


@pytest.mark.parametrize("how", ["missing", "cut", "changed"])
def test_a_damaged_file_is_found_and_its_record_saved_without_it(store, how, tmp_path):
    good = os.urandom(SIZE)
    store.write([finished("a", buffers=(b"z" * SIZE,)), finished("b", buffers=(good,))])
    [path] = [path for path in files(store) if path.read_bytes() != good]
    store.close()
    damage(path, how)
    with closing(SQLiteDB.open_readonly(store.path)) as reader:
        with pytest.raises(StoreDamaged, match="large buffer"):
            reader.entries([TaskId("a")])
        assert good in frames_of(reader, "b")
    found = verify(store.path)
    assert (found.lightened, found.good) == (["a"], 2)
    target = tmp_path / "repaired.db"
    repair(store.path, target)
    assert verify(target).sound
    with closing(SQLiteDB(target)) as repaired:
        assert good in frames_of(repaired, "b")
        assert len(files(repaired)) == 1


def test_equal_content_replaces_a_damaged_file(store):
    content = os.urandom(SIZE)
    store.write([pending("a", buffers=(content,))])
    damage(files(store)[0], "changed")
    store.write([pending("b", buffers=(bytes(bytearray(content)),))])
    assert frames_of(store, "b") == [content]


def test_a_backup_has_the_files_and_keeps_them(store, tmp_path):
    content = os.urandom(SIZE)
    store.write([finished("a", buffers=(content,))])
    target = tmp_path / "elsewhere" / "backup.db"
    back_up_file(store.path, target)
    store.drop_matching_records({})
    assert files(store) == []
    assert verify(target).sound
    with closing(SQLiteDB.open_readonly(target)) as backup:
        assert content in frames_of(backup, "a")


def test_a_backup_on_a_file_system_without_links(store, tmp_path, monkeypatch):
    def no_links(*args):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    store.write([finished("a", buffers=(os.urandom(SIZE),))])
    back_up_file(store.path, tmp_path / "backup.db")
    assert verify(tmp_path / "backup.db").sound


def test_a_copy_has_the_contents(store, tmp_path):
    content = os.urandom(SIZE)
    store.write([finished("a", buffers=(content,))])
    with closing(SQLiteDB(tmp_path / "copy.db")) as target:
        copy(StoreSide(store), StoreSide(target))
        assert content in frames_of(target, "a")
        assert len(files(target)) == 1


def test_full_synchronisation_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    with closing(SQLiteDB(tmp_path / "tasks.db", synchronous="FULL")) as store:
        store.write([pending("a", buffers=(os.urandom(SIZE),))])
        [path] = files(store)
        folder = str(path.parent)
        assert synced == [str(tmp_path), str(path), folder, str(tmp_path)], "files, and folders with new ones"
        store.write([pending("b", buffers=(os.urandom(SIZE),))])
        assert synced[-1] == folder


class Faults:
    """`os`, whose n-th call of a function that touches the disk fails."""

    def __init__(self, fails_at: int) -> None:
        self._left = fails_at
        self.fired = False

    def __getattr__(self, name: str):
        function = getattr(os, name)
        if name not in ("open", "write", "close", "fsync", "scandir"):
            return function

        def call(*args, **kwargs):
            self._left -= 1
            if self._left == 0:
                self.fired = True
                if name == "close":
                    function(*args)
                raise OSError(5, "Input/output error")
            return function(*args, **kwargs)

        return call


@pytest.mark.fault(19)
def test_whichever_operation_on_files_fails_a_record_is_whole_or_not_there(tmp_path, monkeypatch):
    contents = [os.urandom(SIZE), os.urandom(SIZE)]
    for number in range(1, 100):
        path = tmp_path / f"tasks{number}.db"
        faults = Faults(number)
        with closing(SQLiteDB(path, synchronous="FULL")) as store:
            with monkeypatch.context() as patch:
                patch.setattr(payload_files, "os", faults)
                try:
                    store.write([finished(f"t{n}", buffers=(content,)) for n, content in enumerate(contents)])
                    stored = True
                except StoreError:
                    stored = False
            assert stored != faults.fired
            assert len(store.get_history()) == len(files(store)) == (2 if stored else 0)
            store.write([finished(f"t{n}", buffers=(content,)) for n, content in enumerate(contents)])
            assert all(content in frames_of(store, f"t{n}") for n, content in enumerate(contents))
            assert len(files(store)) == 2
        assert verify(path).sound
        if not faults.fired:
            break
    else:
        raise AssertionError("it never came to a clean pass")
    assert number > 6


# ---------------------------------------------------------------------------------------------- edited by hand


@pytest.mark.parametrize("what", ["pipe", "link", "endless", "folder"])
def test_what_was_put_in_the_place_of_a_file_is_not_read(store, tmp_path, what):
    """The opening of a pipe would wait for its writer, and a device would be read without end."""
    content = os.urandom(SIZE)
    store.write([finished("a", buffers=(content,)), finished("b", buffers=(b"small",))])
    [path] = files(store)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    match what:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(elsewhere)
        case "endless":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    store.close()
    with closing(SQLiteDB(store.path)) as again:
        with pytest.raises(StoreError):
            again.entries([TaskId("a")])
        assert again.entries([TaskId("b")])
        back_up_file(again.path, tmp_path / "backup.db")
        backup = tmp_path / "backup.db-payloads" / path.name
        assert not os.path.lexists(backup)


@pytest.mark.parametrize("name", ["../victim", "/{}/victim", "..", "", "x/../../victim", "a\0b", 5, b"../victim"])
def test_a_name_in_the_database_leads_to_nothing_outside_of_its_folder(store, tmp_path, name):
    content = os.urandom(SIZE)
    store.write([finished("a", buffers=(content,)), finished("b", buffers=(b"small",))])
    [path] = files(store)
    victim = tmp_path / "victim"
    victim.write_bytes(content)
    store.close()
    name = name.replace("{}", str(tmp_path)) if isinstance(name, str) else name
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("UPDATE blobs SET file = ?", (name,))
        connection.execute("INSERT INTO dropped_files VALUES (?)", (name,))
        connection.commit()
    with closing(SQLiteDB(store.path)) as again:
        with pytest.raises(StoreError):
            again.entries([TaskId("a")])
        back_up_file(again.path, tmp_path / "below" / "backup.db")
        again.drop_matching_records({})
    assert victim.read_bytes() == content
    assert not (tmp_path / "below" / "victim").exists()
    assert path.parent.parent.exists()
