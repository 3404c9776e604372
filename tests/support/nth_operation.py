"""Kills a process at its n-th change of a file, or has that operation fail; n = 1, 2, 3 … until one pass is clean.

    LD_PRELOAD=nth_operation.so python tests/support/nth_operation.py FOLDER HOW STRIDE [SCENARIO …]

HOW is "kill", "EIO" or "ENOSPC"; with a STRIDE of 7, only every seventh n is tried. A scenario prepares a database, and
takes steps. For each n a forked child takes the steps, and notes each that was acknowledged. If a step fails, the child
takes it again, as the controller's writer does. Then the database must be sound, have everything that was acknowledged,
and take new records. A sync of a file that fails must be an error or a line in the log. (SQLite
does not tell of folders: where it matters, the store syncs them again.) Each scenario prints a line: its name, and
how many operations it has; the last line says how many syncs failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.entries import finished, pending

from engineroom.errors import EngineroomError
from engineroom.ids import TaskId, digest_of
from engineroom.messages import Function
from engineroom.stores import SQLiteDB
from engineroom.stores.maintenance.compact import compact
from engineroom.stores.maintenance.copy import StoreSide, copy
from engineroom.stores.sqlite import connections
from engineroom.stores.sqlite.doctor import repair, verify
from engineroom.stores.sqlite.schema import APPLICATION_ID, back_up_file

SOURCE = Path(__file__).with_name("nth_operation.c")
#: A step that fails is taken again so often.
AGAIN = 3
#: What the last line says.
FAILED_SYNCS = "syncs failed, each of which was told"
#: A database with more operations than this is no small scenario.
MOST = 2000

#: What the database has: the id of each task, and its state.
Content = dict[str, str]


class Step(NamedTuple):
    """Something that is acknowledged as a whole."""

    do: Callable[[SQLiteDB], Any]
    #: what is there afterwards that was not, or is otherwise; None: gone
    changes: dict[str, str | None] = {}


class Scenario(NamedTuple):
    """Steps on a database."""

    steps: list[Step]
    #: what is done before, undisturbed
    prepared: list[Step] = []
    synchronous: Any = "NORMAL"
    #: files that are whole, or are not there: databases with what was prepared
    targets: tuple[str, ...] = ()
    #: makes the file that is opened
    make: Callable[[Path], Content] | None = None
    #: the log is copied into the file when it has so many pages
    copied_pages: int = connections.COPIED_PAGES


def wrote(*names: str, size: int = 0, state: str = "pending") -> Step:
    """Records are written, with a buffer each."""
    made = {"pending": pending, "completed": finished}[state]
    frames = (bytes(size),) if size else ()
    entries = [made(name, buffers=(*frames, name.encode() * 40_000) if size else ()) for name in names]
    return Step(lambda store: store.write(entries), dict.fromkeys(names, state))


def dropped(*names: str) -> Step:
    """Records are dropped with one call."""
    query = {"msg_id": {"$in": list(names)}}
    return Step(lambda store: store.drop_matching_records(query), dict.fromkeys(names))


def _drop_in_pieces(store: SQLiteDB) -> None:
    for _ in store.drop_in_pieces({"state": "completed"}):
        pass


def _compact(store: SQLiteDB) -> None:
    compact(store, lambda what, done, total: None)


def _back_up(store: SQLiteDB) -> None:
    back_up_file(store.path, store.path.with_name("backup.db"))


def old_file(path: Path) -> Content:
    """A database of the first schema, with three records."""
    import sqlite3

    import engineroom.stores.sqlite as package

    first = next((Path(package.__file__).parent / "sql").glob("001*.sql"))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(first.read_text())
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;")
        connection.executemany(
            "INSERT INTO tasks (msg_id, kind, state, submitted, started, completed, received, client_uuid, engine_uuid,"
            " engine_id, queue, target, function, attempt, stdout, stderr, payload, frames, result_payload)"
            " VALUES (?, 'apply', 'completed', 1, 2, 3, 4, 'alice', 'e1', 1, 'task', -1, x'0fff', 1, '', '', x'01',"
            " NULL, x'02')",
            [(f"old{n}",) for n in range(3)],
        )
        connection.commit()
    return dict.fromkeys(("old0", "old1", "old2"), "completed")


def left_by_a_killed_process(path: Path) -> Content:
    """A database whose process was killed: its log has commits that the file has not."""
    child = os.fork()
    if not child:
        store = SQLiteDB(path)
        for step in (wrote("a", size=9), wrote("b", state="completed")):
            step.do(store)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    return {"a": "pending", "b": "completed"}


def _copy_to_another(store: SQLiteDB) -> None:
    target = store.path.with_name("copy.db")
    with closing(SQLiteDB(target)) as other:
        copy(StoreSide(store), StoreSide(other))


def _repair(store: SQLiteDB) -> None:
    target = store.path.with_name("repaired.db")
    with contextlib.suppress(OSError):  # what a step left that failed; this may be the operation that fails
        target.unlink(missing_ok=True)
        for more in target.parent.glob("repaired.db?*"):
            shutil.rmtree(more) if more.is_dir() else more.unlink()
    repair(store.path, target)


FUNCTION = Function(digest_of(bytes(70_000)), bytes(70_000))
FIRST = [wrote("first")]
TWO = [wrote("a", size=300_000), wrote("b", state="completed", size=300_000)]
SCENARIOS = {
    "a new file": Scenario([Step(lambda store: None)]),
    "records": Scenario([wrote("a", "b"), wrote("c")], FIRST),
    "records, synced": Scenario([wrote("a", "b"), wrote("c", size=300_000)], FIRST, synchronous="FULL"),
    "the log copied": Scenario([wrote("a", "b"), wrote("c", size=90_000)], FIRST, copied_pages=1),
    "the log copied, synced": Scenario([wrote("a", "b"), wrote("c")], FIRST, synchronous="FULL", copied_pages=1),
    "large buffers": Scenario([wrote("a", "b", size=300_000), wrote("c", size=100_000)], FIRST),
    "outcomes": Scenario([wrote("a", size=9), wrote("a", state="completed", size=9)], FIRST),
    "functions": Scenario([Step(lambda store: store.add_functions([FUNCTION]))], FIRST),
    "a record dropped": Scenario([dropped("a")], TWO),
    "records dropped in pieces": Scenario([Step(_drop_in_pieces, {"b": None})], TWO),
    "a pin": Scenario([Step(lambda store: store.pin([TaskId("a")], True))], TWO),
    "buffers dropped": Scenario([Step(lambda store: store.drop_buffers([TaskId("b")]))], TWO),
    "space given back": Scenario([Step(_compact)], [*TWO, dropped("a")]),
    "the file written anew": Scenario([Step(lambda store: store.rewrite(lambda: None))], [*TWO, dropped("a")]),
    "an old file migrated": Scenario([wrote("new")], make=old_file, targets=("tasks.db.v1.backup",)),
    "a log taken up": Scenario([wrote("new")], make=left_by_a_killed_process),
    "a backup": Scenario([Step(_back_up)], TWO, targets=("backup.db",)),
    "a copy": Scenario([Step(_copy_to_another)], TWO),
    "a repair": Scenario([Step(_repair)], TWO),
}


def run(name: str, folder: Path, error: int, stride: int) -> int:
    """All points of a scenario; returns how many operations it has."""
    scenario, origin = SCENARIOS[name], folder / "origin"
    origin.mkdir(parents=True)
    before = scenario.make(origin / "tasks.db") if scenario.make else {}
    if scenario.prepared:
        with closing(SQLiteDB(origin / "tasks.db")) as store:
            for step in scenario.prepared:
                step.do(store)
                _apply(before, step)
    for n in range(1, MOST, stride):
        place = folder / "now"
        shutil.copytree(origin, place)
        count, steps = _attempt(scenario, place, n, error)
        try:
            _check(scenario, place, before, steps)
        except BaseException as problem:
            problem.add_note(f"operation {n} of {name!r}, {errno.errorcode.get(error, 'kill')}; {place} is kept")
            raise
        shutil.rmtree(place)
        if count is not None and count < n:
            return count
    raise AssertionError(f"{name!r} has no clean pass in {MOST} operations")


def _attempt(scenario: Scenario, place: Path, n: int, error: int) -> tuple[int | None, int]:
    """A child takes the steps: (operations, or None if it was killed; steps that were acknowledged)."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            library = ctypes.CDLL(None)
            library.nth_hit.restype = ctypes.c_char_p
            library.nth_arm(n, error, str(place).encode())
            _take(scenario, place / "tasks.db", lambda: os.write(writer, b"+"))
            count = int(library.nth_count())
            failed_sync = library.nth_hit() == b"sync"
            assert not failed_sync or _told, "a sync failed, and nobody was told"
            os.write(writer, b"s" * failed_sync + b" %d" % count)
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status)
    assert was_killed == (not error and b" " not in said), f"the child ended with status {status}"
    assert was_killed or status == 0, f"the child failed: {status}"
    _failed_syncs.extend([n] * said.count(b"s"))
    return (None if was_killed else int(said.split()[-1])), said.count(b"+")


#: Which operations were syncs that failed.
_failed_syncs: list[int] = []
#: What an attempt has said of failures: its errors, and lines of the log.
_told: list[object] = []


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _told.append(record)


def _take(scenario: Scenario, path: Path, acknowledge: Callable[[], Any]) -> None:
    logging.getLogger("engineroom").addHandler(_Listener(logging.WARNING))
    connections.COPIED_PAGES = scenario.copied_pages
    with _again(lambda: SQLiteDB(path, synchronous=scenario.synchronous)) as store:
        for step in scenario.steps:
            _until_it_works(lambda step=step: step.do(store))  # type: ignore[misc]
            acknowledge()


@contextlib.contextmanager
def _again(opened: Callable[[], SQLiteDB]) -> Iterator[SQLiteDB]:
    store = _until_it_works(opened)
    try:
        yield store
    finally:
        try:
            store.close()
        except EngineroomError as error:
            _told.append(error)


def _until_it_works(call: Callable[[], Any]) -> Any:
    for _ in range(AGAIN):
        try:
            return call()
        except EngineroomError as error:  # anything else is not what callers expect
            _told.append(error)
    return call()


def _apply(content: Content, step: Step) -> None:
    for name, state in step.changes.items():
        if state is None:
            content.pop(name, None)
        else:
            content[name] = state


def _check(scenario: Scenario, place: Path, before: Content, steps: int) -> None:
    """The database is sound, has what was acknowledged, and of the next step all or nothing of each record."""
    known, path = dict(before), place / "tasks.db"
    for step in scenario.steps[:steps]:
        _apply(known, step)
    perhaps = dict(known)
    for step in scenario.steps[steps : steps + 1]:
        _apply(perhaps, step)
    with closing(SQLiteDB(path)) as store:
        found = {str(r["msg_id"]): str(r["state"]) for r in store.find_records({}, ["msg_id", "state"])}
        for name in {*known, *perhaps, *found}:
            assert found.get(name) in (known.get(name), perhaps.get(name)), f"{name}: {found}, {known} or {perhaps}"
        store.entries([TaskId(name) for name in found])  # large buffers are there, and are those
        store.write([finished("afterwards")])
    assert verify(path).sound, str(verify(path))
    for target in scenario.targets:
        if (place / target).exists():
            findings = verify(place / target)
            assert findings.sound, str(findings)
            assert findings.good == len(before), str(findings)


def built(folder: Path) -> Path | None:
    """The shared library, compiled into a folder; None: there is no C compiler, or this is not Linux."""
    library = folder / "nth_operation.so"
    try:
        done = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"])
    except OSError:
        return None
    return library if done.returncode == 0 else None


def main() -> None:
    """Run scenarios."""
    folder, how, stride, *names = sys.argv[1:]
    error = 0 if how == "kill" else int(getattr(errno, how))
    for name in names or SCENARIOS:
        place = Path(folder) / name.replace(" ", "-")
        count = run(name, place, error, int(stride))
        print(f"{count} {name}", flush=True)
        shutil.rmtree(place)
    print(f"{len(_failed_syncs)} {FAILED_SYNCS}")


if __name__ == "__main__":
    main()
