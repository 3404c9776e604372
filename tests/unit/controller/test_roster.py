"""The roster: which engines were connected, for a controller that is started again."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from engineroom.controller.presence import roster
from engineroom.controller.presence.roster import Listed, Roster
from engineroom.ids import EngineId, EngineUuid, NannyId


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engines.jsonl"


def came(one: Roster, *numbers: int, pid: int = 1, host: str = "node") -> None:
    for number in numbers:
        one.came(EngineUuid(f"u{number}"), EngineId(number), NannyId("n"), host, pid)
    one.write()


def again(path: Path) -> list[int] | None:
    """The numbers that a controller finds that is started again; None: nobody knows."""
    found = Roster.at(path, restarted=True)
    found.close()
    return None if found.former is None else sorted(each.number for each in found.former.values())


def test_who_was_connected_is_known_after_a_restart_and_after_the_next(path: Path):
    one = Roster.at(path, restarted=False)
    came(one, 0, 1, 2)
    one.went([EngineUuid("u1"), EngineUuid("nobody")])
    one.write()
    one.close()
    assert again(path) == [0, 2]
    two = Roster.at(path, restarted=True)
    came(two, 0, 3)  # 2 may still come back
    two.close()
    assert again(path) == [0, 2, 3]


def test_what_is_not_written_yet_is_not_there(path: Path):
    one = Roster.at(path, restarted=False)
    one.came(EngineUuid("u0"), EngineId(0), NannyId("n"), "node", 1)
    assert again(path) == []
    one.close()


def test_another_cluster_begins_with_nobody(path: Path):
    one = Roster.at(path, restarted=False)
    came(one, 0)
    one.close()
    two = Roster.at(path, restarted=False)
    assert two.former == {}
    two.close()
    assert again(path) == []
    two.close(remove=True)
    assert not path.exists()


@pytest.mark.parametrize("how", ["no file", "cut", "other", "another boot"])
def test_a_file_that_cannot_be_believed_says_nothing(path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    one = Roster.at(path, restarted=False)
    came(one, 0, 1)
    one.close()
    match how:
        case "no file":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "other":
            path.write_text("[]\n")
        case "another boot":
            monkeypatch.setattr(roster, "boot_id", lambda: "after the host was started again")
    assert again(path) is None


def test_a_file_that_cannot_be_written_is_removed(path: Path):
    one = Roster.at(path, restarted=False)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, one._file)
    os.close(full)
    came(one, 0)
    assert not path.exists()
    came(one, 1)
    assert one.listed.keys() == {"u0", "u1"}
    one.close()


def test_the_file_does_not_grow_without_end(path: Path):
    one = Roster.at(path, restarted=False)
    came(one, 0)
    for _ in range(3 * roster.MOST_SURPLUS):
        came(one, 1)
        one.went([EngineUuid("u1")])
    one.write()
    assert len(path.read_bytes().splitlines()) <= roster.MOST_SURPLUS + 10
    one.close()
    assert again(path) == [0]


def test_a_hello_that_is_said_again_is_no_news(path: Path):
    one = Roster.at(path, restarted=False)
    came(one, 0, 0, 0)
    assert len(path.read_bytes().splitlines()) == 2
    one.close()


def test_an_engine_whose_process_is_gone_has_ended():
    with subprocess.Popen(["sleep", "60"]) as process:
        one = Roster()
        came(one, 0, pid=process.pid, host=socket.gethostname())
        listed = one.listed[EngineUuid("u0")]
        assert listed.born > 0
        assert not listed.has_ended
        process.kill()
        process.wait()
    assert listed.has_ended
    reused = Listed(EngineUuid("u1"), EngineId(1), NannyId("n"), "node", os.getpid(), born=1)
    assert reused.has_ended, "another process has its number"


def test_of_a_process_that_cannot_be_seen_nothing_is_known():
    one = Roster()
    came(one, 0, pid=os.getpid(), host="elsewhere")
    came(one, 1, pid=2**22 + 1, host=socket.gethostname())
    assert [each.has_ended for each in one.listed.values()] == [False, False]
