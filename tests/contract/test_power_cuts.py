"""Power cuts: what an SQLite database promises of what was not synced (`tests/support/power_cuts.py`)."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from support.power_cuts import Disk, built, logged

from engineroom.errors import StoreDamaged
from engineroom.ids import TaskId
from engineroom.stores import SQLiteDB

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


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = built(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("no C compiler: the library that logs what happens to files cannot be made")
    return made


def disk_of(library: Path, folder: Path, synchronous: str) -> Disk:
    """The files that the script above writes."""
    files, log = folder / "files", folder / "log"
    files.mkdir()
    logged([sys.executable, "-c", WRITES, str(files), synchronous, str(GROUPS)], library, files, log)
    return Disk(files, log)


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
    disk, count = disk_of(library, tmp_path, "FULL"), 0
    for left, acknowledged in cuts(disk, tmp_path):
        count += 1
        assert set(kept(left, acknowledged)) == {"all"}, f"after operation {disk.operations}"
    assert count > 5
    assert disk.syncs > GROUPS, "each commit is synced"


@pytest.mark.fault(44)
def test_with_normal_the_last_may_be_lost_and_the_file_is_sound(library: Path, tmp_path: Path) -> None:
    disk, lost = disk_of(library, tmp_path, "NORMAL"), Counter[str]()
    for left, acknowledged in cuts(disk, tmp_path):
        states = kept(left, acknowledged)
        lost.update(states)
        there = [state != "nothing" for state in states]
        assert there == sorted(there, reverse=True), "what is lost is the last"
    assert lost["nothing"], "no cut cost anything: the disk did not forget"
    assert lost["no buffer"], "large buffers are not synced"
    assert lost["all"]
    assert disk.syncs, "the log has been copied into the file meanwhile"
