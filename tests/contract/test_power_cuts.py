"""Power cuts: what an SQLite database promises of what was not synced (`tests/support/power_cuts.py`)."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from support.power_cuts import Disk, Liar, built, logged

from engineroom.errors import StoreDamaged, StoreError
from engineroom.ids import TaskId
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite.doctor import repair, verify

#: Writes records in groups, and after each commit the number of the group into `said`: it is acknowledged then.
WRITES = """
import sys
from contextlib import closing
from pathlib import Path
from engineroom.stores import SQLiteDB
from support.entries import finished, pending

folder, synchronous, groups = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
said = open(folder / "said", "wb", buffering=0)
with closing(SQLiteDB(folder / "tasks.db", synchronous=synchronous)) as store:
    for group in range(groups):
        large = bytes([group]) * (300_000 if group % 10 == 3 else 150_000)  # a file beside the database, or a row
        store.write([pending(f"task-{group}", buffers=(large,))])
        if group % 2 and group > 10:
            store.write([finished(f"task-{group - 10}")])
        if group == 30:
            store.drop_record("task-3")
        said.write(b"%d\\n" % group)
"""
GROUPS = 70
NIGHTLY = bool(os.environ.get("ENGINEROOM_NIGHTLY"))
#: Power cuts of a disk that lies, while the log is copied into the file.
LIES = 1000 if NIGHTLY else 8


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = built(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("no C compiler: the library that logs what happens to files cannot be made")
    return made


def log_of(library: Path, folder: Path, script: str, *arguments: str) -> tuple[Path, Path]:
    """The files that a script writes, and what it does to them."""
    files, log = folder / "files", folder / "log"
    files.mkdir()
    logged([sys.executable, "-c", script, str(files), *arguments], library, files, log)
    return files, log


def kept(folder: Path, groups: Iterable[int]) -> list[str]:
    """What the database of a folder has of each group: "all", "no buffer", or "nothing"."""
    if not (folder / "tasks.db").exists():
        return ["nothing" for _ in groups]
    with closing(SQLiteDB(folder / "tasks.db")) as store:  # which refuses a damaged file
        return [_kept(store, group) for group in groups]


def _kept(store: SQLiteDB, group: int) -> str:
    id = TaskId(f"task-{group}")
    try:
        entry = store.entries([id]).get(id)
    except StoreDamaged:
        return "no buffer"
    if entry is None:
        return "nothing"
    assert b"".join(map(bytes, entry.frames)) == large(group), "another buffer than was stored"
    return "all"


def large(group: int) -> bytes:
    """The argument of the task of a group."""
    return bytes([group]) * (300_000 if group % 10 == 3 else 150_000)


def cuts(disk: Disk, folder: Path) -> Iterator[tuple[Path, list[int]]]:
    """Power cuts at random moments: (what is left, the groups that had been acknowledged and not dropped)."""
    rng, acknowledged = Random(1), list[int]()
    for path, data in disk.play():
        if path.endswith("/said") and data:
            acknowledged.append(int(data))
        if acknowledged and rng.random() < 0.007:
            target = folder / f"cut{disk.operations}"
            disk.after_cut(target, rng, rng.choice([0.0, 0.5, 0.9, 1.0]))
            yield target, [group for group in acknowledged if group != 3]
            shutil.rmtree(target)


@pytest.mark.fault(44)
def test_with_full_nothing_is_lost_that_was_acknowledged(library: Path, tmp_path: Path) -> None:
    disk, count = Disk(*log_of(library, tmp_path, WRITES, "FULL", str(GROUPS))), 0
    for left, acknowledged in cuts(disk, tmp_path):
        count += 1
        assert set(kept(left, acknowledged)) == {"all"}, f"after operation {disk.operations}"
    assert count > 5
    assert disk.syncs > GROUPS, "each commit is synced"


@pytest.mark.fault(44)
def test_with_normal_the_last_may_be_lost_and_the_file_is_sound(library: Path, tmp_path: Path) -> None:
    disk, lost = Disk(*log_of(library, tmp_path, WRITES, "NORMAL", str(GROUPS))), Counter[str]()
    for left, acknowledged in cuts(disk, tmp_path):
        states = kept(left, acknowledged)
        lost.update(states)
        there = [state != "nothing" for state in states]
        assert there == sorted(there, reverse=True), "what is lost is the last"
    assert lost["nothing"], "no cut cost anything: the disk did not forget"
    assert lost["no buffer"], "large buffers are not synced"
    assert lost["all"]
    assert disk.syncs, "the log has been copied into the file meanwhile"


# ------------------------------------------------------------------------------------------ a disk that lies

#: Writes, changes and drops records, and copies the log into the file often. The content of each follows from its id.
CHANGES = """
import sys
from contextlib import closing
from pathlib import Path
from engineroom.stores import SQLiteDB
from engineroom.stores.sqlite import connections
from support.entries import finished, pending

connections.COPIED_PAGES = 40
folder, synchronous, groups = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for half in range(2):
    with closing(SQLiteDB(folder / "tasks.db", synchronous=synchronous)) as store:
        for group in range(half * groups // 2, (half + 1) * groups // 2):
            numbers = range(10 * group, 10 * group + 10)
            contents = [b"%6d" % number * 250 for number in numbers]
            buffers = [b"%6d" % number * (12_000 if group % 4 else 50_000) for number in numbers[:1]]
            entries = [pending(f"t{n}", 1e9 + n, payload=content) for n, content in zip(numbers, contents)]
            entries[0].frames = tuple(buffers)
            store.write(entries)
            store.write([finished(f"t{n}", 1e9 + n, content) for n, content in zip(numbers[:7], contents)])
            if group % 3 == 2:
                gone = [f"t{n}" for n in range(10 * group - 20, 10 * group - 14)]
                store.drop_matching_records({"msg_id": {"$in": gone}})
            if group % 5 == 4:
                late = range(10 * group - 12, 10 * group - 10)
                store.write([finished(f"t{n}", 1e9 + n, b"%6d" % n * 250) for n in late])
                store.update_record(f"t{late[0]}", {"label": f"label {group}"})
"""


def wrong_values(path: Path) -> list[str]:
    """What a database of the script above answers that was never true, without an error."""
    wrong = []
    with closing(SQLiteDB(path)) as store:
        records = store.find_records({}, ["msg_id", "state", "label"])
        ids = sorted(record["msg_id"] for record in records)
        if len(set(ids)) < len(ids) or sorted(store.get_history()) != ids:
            wrong.append("a record is there twice, or missing")
        for key in ("state", "label"):
            for value in {record[key] for record in records}:
                there = sorted(record["msg_id"] for record in records if record[key] == value)
                if sorted(record["msg_id"] for record in store.find_records({key: value}, "msg_id")) != there:
                    wrong.append(f"other records are found by {key} than have it")
        for id in ids:
            try:
                entry = store.entries([id])[id]
            except StoreDamaged:
                continue  # not in silence
            content = b"%6d" % int(id[1:])
            parts = [*entry.frames, *([entry.done.payload] if entry.done else []), entry.spec.payload]
            if any(part != b"call" and bytes(part) != content * (len(part) // 6) for part in parts):
                wrong.append(f"task {id} has another content than was stored")
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(7200 if NIGHTLY else 120)
@pytest.mark.fault(44)
@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_of_a_disk_that_has_not_what_it_says_it_has_nothing_wrong_is_read(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    files = log_of(library, tmp_path, CHANGES, synchronous, "40")
    (tmp_path / "boot").write_text("the boot after the power cut")
    monkeypatch.setattr("engineroom.system.processes._BOOT_ID", tmp_path / "boot")
    rng, found = Random(2), Counter[str]()
    for late in (30, 300):
        disk = Liar(*files, late)
        operations = [(path.endswith(".db"), number) for number, (path, _) in enumerate(disk.play())]
        assert disk.syncs > 10
        # most cuts come while the log is copied into the file
        copying = [number for is_in_file, number in operations if is_in_file]
        moments = {*rng.choices(copying, k=LIES), *rng.choices(range(len(operations)), k=LIES // 4)}
        disk = Liar(*files, late)
        for number, _ in enumerate(disk.play()):
            if number not in moments:
                continue
            left = tmp_path / f"cut{number}"
            disk.after_cut(left, rng, rng.choice([0.0, 0.5, 0.9, 0.98]))
            found[state_of(left / "tasks.db")] += 1
            shutil.rmtree(left)
    assert found["opened"] > 3
    assert found["refused"] > 0, "no cut left a file that is not sound: the disk did not lie"


def state_of(path: Path) -> str:
    """What became of a database: "opened", "refused", or "lost". Fails for answers that are wrong."""
    try:
        wrong, refusal = wrong_values(path), ""
    except StoreDamaged as error:
        wrong, refusal = [], str(error)
    assert wrong == []
    if not refusal:
        return "opened"
    assert f"engineroom db repair {path}" in refusal or "read as a task database" in refusal
    try:
        found = repair(path, path.with_name("saved.db"))
    except StoreError:  # not even its tables are there
        return "lost"
    assert not found.sound
    assert verify(path.with_name("saved.db")).sound
    assert wrong_values(path.with_name("saved.db")) == []
    return "refused"
