"""`engineroom db`, as it is typed."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import engineroom as er
from engineroom.cli.engineroom import main
from engineroom.ids import Digest, TaskId
from engineroom.messages import Function
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite.doctor import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with contextlib.closing(SQLiteDB(tmp_path / "tasks.db")) as store:
        for n in range(30):
            store.add_record(f"t{n:02}", {"submitted": None, "state": "completed", "stdout": f"line {n}"})  # type: ignore[arg-type]
    return tmp_path / "tasks.db"


@pytest.fixture
def db(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: Any) -> tuple[int, str, str]:
        code = main(["db", *map(str, words)])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_a_sound_file(db: Any, path: Path, tmp_path: Path) -> None:
    assert db("verify", path)[:2] == (0, f"{path}: it is sound\n  30 records good, 0 damaged\n")
    code, output, _ = db("info", path, "--json")
    told = json.loads(output)
    assert (code, told["records"], told["states"], told["pinned"]) == (0, 30, {"completed": 30}, 0)
    assert "30 completed; 0 pinned" in db("info", f"sqlite://{path}")[1]
    assert db("backup", path, tmp_path / "b.db") == (0, f"{tmp_path}/b.db: 30 records\n", "")
    assert "exists already" in db("backup", path, tmp_path / "b.db")[2]
    assert "the newest" in db("migrate", path)[1]
    assert db("copy", path, tmp_path / "c.db")[1] == "30 records and 0 functions copied\n"
    assert db("copy", path, tmp_path / "c.db")[1] == "0 records and 0 functions copied; 30 were there already\n"


@pytest.mark.fault(20)
def test_what_is_no_database(db: Any, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, words in (("ftp://host/x", "no database ftp://…"), (tmp_path, "is not a file"), ("", "is not a file")):
        for command in (("verify", name), ("info", name), ("copy", path, name)):
            code, _, error = db(*command)
            assert (code, words in error, len(error.splitlines())) == (2, True, 1)
    assert db("backup", path, "/proc/none/x.db")[0] == 1
    assert db("backup", path, "new/folder/b.db")[0] == 0
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith("tasks.db")] == ["new"]


@pytest.mark.fault(20)
def test_a_damaged_file_is_an_error_and_can_be_repaired(db: Any, path: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE tasks SET stdout = 'x' WHERE msg_id = 't03'")
        connection.commit()
    code, output, error = db("verify", path)
    assert code == 1
    assert "IT IS DAMAGED\n  29 records good, 1 damaged\n  damaged: t03\n" in output
    assert "1 records damaged, 29 good" in error
    code, output, _ = db("repair", path)
    assert (code, "29 records were written to" in output) == (0, True)
    assert db("verify", tmp_path / "tasks.repaired.db")[0] == 0
    os.truncate(path, 30_000)
    code, output, error = db("verify", path, "--json")
    told = json.loads(output)
    assert (code, told["sound"]) == (1, False)
    assert "has been cut" in told["structure"][0]


def test_what_makes_no_sense(db: Any, path: Path, tmp_path: Path) -> None:
    assert db("heal", path)[0] == 2
    assert db("verify", path, path)[0] == 2
    assert db("copy", path)[0] == 2
    assert "are the same file" in db("copy", path, path)[2]
    assert db("verify")[0] != 0
    assert db("verify", "mongodb://localhost/x")[0] == 2
    for command in ("verify", "repair", "backup", "migrate", "info"):
        code, _, error = db(command, tmp_path / "missing.db")
        assert (code, "there is no task database" in error) == (1, True), command
    assert not (tmp_path / "missing.db").exists()


def test_beside_a_running_controller(db: Any, rc: er.Client, tmp_path: Path) -> None:
    view = rc.load_balanced_view(label="kept apart")
    view.map_sync(abs, range(50), chunksize=1)
    url = rc.cluster.connection.database
    assert rc.db_count({"label": "kept apart"}) == 50
    assert db("verify", url)[0] == 0
    assert db("backup", url, tmp_path / "b.db")[0] == 0
    pytest.importorskip("pyarrow")
    assert db("copy", url, tmp_path / "b.parquet")[0] == 0
    assert db("copy", tmp_path / "b.parquet", tmp_path / "c.db")[0] == 0
    with contextlib.closing(SQLiteDB(tmp_path / "c.db")) as store:
        assert store.count({"label": "kept apart"}) == 50
    code, _, error = db("migrate", url)
    assert (code, "belongs to another controller" in error) == (12, True) or code == 1


def test_a_file_is_compacted_and_a_running_controller_is_named(
    db: Any, path: Path, rc: er.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(SQLiteDB(path)) as store:
        store.add_functions([Function(Digest(b"f" * 20), bytes(5_000_000), "f")])
        for n in range(30):
            store.add_record(TaskId(f"large{n}"), {"completed": None, "buffers": [os.urandom(200_000)]})
        store.drop_matching_records({"msg_id": {"$glob": "large*"}})
    assert path.stat().st_size > 11_000_000
    code, output, _ = db("compact", path, "--json")
    told = json.loads(output)
    assert (code, told["functions"], told["after"]) == (0, 1, path.stat().st_size)
    assert told["before"] > 11_000_000 > 500_000 > told["after"]
    assert db("verify", path)[0] == 0
    assert "0.2 MB → " in db("compact", path)[1]
    code, _, error = db("compact", rc.cluster.connection.database)
    assert code != 0
    assert "belongs to another controller" in error
    assert "returns unused space by itself; to compact the file, stop it" in error
    assert "there is no task database" in db("compact", path.with_name("none.db"))[2]
    empty = path.with_name("empty.db")
    empty.touch()
    assert "is not a task database yet: it is empty" in db("compact", empty)[2]
    assert not empty.stat().st_size


def test_compacting_fills_pages_that_are_half_empty(db: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(SQLiteDB(path)) as store:
        for n in range(600):
            store.add_record(TaskId(f"m{n}"), {"state": "odd" if n % 2 else "even", "stdout": "x" * 3000})  # type: ignore[arg-type]
        assert sum(store.drop_in_pieces({"state": "odd"})) == 300
    before = path.stat().st_size
    with monkeypatch.context() as full:
        full.setattr("engineroom.stores.sqlite.store.free_bytes", lambda path: 1000)
        assert "no room to write the file anew" in db("compact", path)[1]
    assert db("compact", path)[0] == 0
    assert path.stat().st_size < 0.7 * before
    assert db("verify", path)[0] == 0
    with contextlib.closing(SQLiteDB(path)) as store:
        assert store.count({"state": "even"}) == 300
        assert store.give_back(1 << 20) == 0, "it can still shrink"


def test_what_takes_long_shows_how_far_it_is(db: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr("engineroom.stores.sqlite.damaged.PAGE", 10)
    verify(path, lambda *step: told.append(step))
    assert told[0] == ("structure", 0, 0)
    assert [step for step in told if step[0] == "records"] == [("records", n, 30) for n in (10, 20, 30, 30)]
    assert db("verify", path)[2] == "", "no bar without a terminal"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "records: " in db("verify", path)[2]
    assert "records: " in db("repair", path, path.with_name("new.db"))[2]
    assert "records: " in db("copy", path, path.with_name("copy.db"))[2]


def test_a_purge_without_a_cluster_gives_the_space_back(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(SQLiteDB(path)) as store:
        for n in range(30):
            store.add_record(TaskId(f"l{n}"), {"completed": datetime.now(UTC), "buffers": [os.urandom(200_000)]})
    assert path.stat().st_size > 6_000_000
    assert main(["purge", "all", "--yes", f"--profile-dir={path.parent}"]) == 0
    assert path.stat().st_size < 500_000
    assert "30 tasks" in capsys.readouterr().out
