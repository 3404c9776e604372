"""How the last owner of an SQLite file ended: what its note says, and what is checked then."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from support.entries import finished

from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite.file import End, Lock, Note, end_of_owner, has_lost_its_host

LEFT = (8192, 123)
NOTE = Note(1, "here", "2026-01-31", "this boot", is_sound=True)
ENDED = msgspec.structs.replace(NOTE, left=LEFT)
UNCHECKED = msgspec.structs.replace(NOTE, is_sound=False)


@pytest.mark.parametrize(
    ("note", "boot", "found", "end"),
    [
        (ENDED, "this boot", LEFT, End.WELL),
        (ENDED, "next boot", LEFT, End.WELL),
        (ENDED, "next boot", (8192, 124), End.UNKNOWN),
        (ENDED, "next boot", (4096, 123), End.UNKNOWN),
        (NOTE, "this boot", LEFT, End.KILLED),
        (NOTE, "next boot", LEFT, End.UNKNOWN),
        (UNCHECKED, "this boot", LEFT, End.UNKNOWN),
        (None, "this boot", LEFT, End.UNKNOWN),
        (None, "this boot", (0, 0), End.WELL),
        (NOTE, "next boot", (0, 0), End.WELL),
    ],
)
def test_what_a_note_says(note: Note | None, boot: str, found: tuple[int, int], end: End):
    assert end_of_owner(b"" if note is None else msgspec.json.encode(note), boot, found) is end


@pytest.mark.parametrize("noted", [b"{", b"\xff", b"[]", b'{"pid": 1, "host": "here", "since": "2026"}', b"{}{}"])
def test_a_note_that_is_none_says_nothing(noted: bytes):
    assert end_of_owner(noted, "this boot", LEFT) is End.UNKNOWN


def test_a_file_that_was_not_found_sound_keeps_its_note(tmp_path: Path):
    path, noted = tmp_path / "tasks.db", tmp_path / "tasks.db.lock"
    path.write_bytes(b"x")
    noted.write_bytes(b"a note")
    lock = Lock(path)
    assert end_of_owner(noted.read_bytes(), lock._note.boot, LEFT) is End.UNKNOWN, "if it is killed now"
    lock.close(well=True)
    assert noted.read_bytes() == b"a note"


def test_a_reader_is_told_that_nobody_has_checked_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    path, boot = tmp_path / "tasks.db", tmp_path / "boot"
    store = SQLiteDB(path)
    store.write([finished("a")])
    SQLiteDB.open_readonly(path).close()
    assert not has_lost_its_host(path)
    assert not has_lost_its_host(tmp_path / "other.db")
    assert not caplog.text
    boot.write_text("next boot")
    monkeypatch.setattr("engineroom.system.processes._BOOT_ID", boot)
    SQLiteDB.open_readonly(path).close()
    assert "this host was started again while" in caplog.text
    assert f"`engineroom db verify {path}` does" in caplog.text
    store.close()
    assert not has_lost_its_host(path)
