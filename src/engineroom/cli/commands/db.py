"""`engineroom db`: check, repair, back up, migrate, copy, compact and describe a task database."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from ...errors import StoreBusy, StoreDamaged, StoreError
from ...records.database_urls import file_of, url_of
from ...stores import SQLiteDB, TaskStore, open_store
from ...stores.maintenance.compact import compact
from ...stores.maintenance.copy import Copied, Source, StoreSide, Target, copy
from ...stores.maintenance.parquet import ParquetReader, ParquetWriter
from ...stores.mongodb.store import MongoDB
from ...stores.sqlite.damaged import Findings
from ...stores.sqlite.doctor import repair, verify
from ...stores.sqlite.schema import back_up_file, backup_of
from ..bars import bar
from ..base import UsageError
from ..text import as_json
from .records import RecordsApp

_NO_ROOM = "; pages that are partly empty stay so, because the disk has no room to write the file anew"
#: How many damaged records are named.
NAMED = 20


class Db(RecordsApp):
    """Check, repair, back up, migrate, copy, compact or describe a task database.

    verify DATABASE: check that every record is as it was written. A controller may use it meanwhile.
    repair DATABASE [TARGET]: write all good records to a new file; the old file is not changed.
    backup DATABASE [TARGET]: copy it as it is now. A controller may use it meanwhile.
    migrate DATABASE: back it up and bring it to the schema of this version. A controller does the same at its start.
    copy DATABASE TARGET: copy all records to another database, which may hold some already.
    compact DATABASE: make the file as small as its records. No controller may use it meanwhile; a running controller
    returns unused space by itself. With three times its size free on the disk, the file is also written anew.
    info DATABASE: show how many records it holds, and how large it is.

    DATABASE and TARGET are files (tasks.db, or tasks.parquet for copy) or urls (sqlite:///PATH, mongodb://HOST/NAME).
    Without DATABASE the database of the profile is used. Exit code 1: it is damaged, or the command failed.
    """

    description = __doc__
    usage = "engineroom db COMMAND [DATABASE] [TARGET] [options]"
    positional: ClassVar[tuple[int, int, str]] = (1, 3, "COMMAND")
    completes: ClassVar[tuple[str, ...]] = ("verify", "repair", "backup", "migrate", "copy", "compact", "info")
    examples = """
engineroom db verify                                  # the profile's
engineroom db backup ~/.ipython/profile_default/tasks.db /backup/tasks.db
engineroom db repair tasks.db saved.db
engineroom db copy tasks.db mongodb://localhost/lab
engineroom db copy mongodb://localhost/lab lab.parquet
engineroom db compact
engineroom db info lab.db --json
"""

    def start(self) -> None:
        command, *names = self.extra_args
        commands: dict[str, Callable[[list[str]], None]] = {
            "verify": self._verify,
            "repair": self._repair,
            "backup": self._backup,
            "migrate": self._migrate,
            "copy": self._copy,
            "compact": self._compact,
            "info": self._info,
        }
        if command not in commands:
            raise UsageError(f"there is no `engineroom db {command}`; there are {', '.join(commands)}")
        if len(names) > (2 if command in ("repair", "backup", "copy") else 1):
            raise UsageError(f"`engineroom db {command}` takes no target: {names[-1]!r}")
        commands[command](names or [self.database])

    def _tell(self, what: Any, lines: list[str]) -> None:
        print(as_json(what) if self.json else "\n".join(lines))

    # ------------------------------------------------------------------------------------------ the commands

    def _verify(self, names: list[str]) -> None:
        found = _verified(_file(names[0]))
        self._report(found)
        if not found.sound:
            raise StoreDamaged(f"{found.summary()}. `engineroom db repair {found.path}` saves the good ones")

    def _repair(self, names: list[str]) -> None:
        path = _file(names[0])
        target = _file(names[1]) if len(names) > 1 else path.with_name(f"{path.stem}.repaired{path.suffix}")
        with bar("") as progress:
            found = repair(path, target, progress)
        self._report(found, target)

    def _report(self, found: Findings, target: Path | None = None) -> None:
        lines = [f"{found.path}: {'it is sound' if found.sound else 'IT IS DAMAGED'}"]
        lines.append(f"  {found.good} records good, {len(found.damaged)} damaged")
        if found.unchecked:
            lines.append(f"  {found.unchecked} of the good ones were written before there were checksums")
        if found.lightened:
            lines.append(f"  {len(found.lightened)} have lost large buffers: {_few(found.lightened)}")
        if found.damaged:
            lines.append(f"  damaged: {_few(found.damaged)}")
        if found.damaged_functions:
            lines.append(f"  {found.damaged_functions} of {found.functions} functions are damaged")
        lines += [f"  {text}" for text in found.structure[:5]]
        if target is not None:
            lines.append(f"{found.good} records were written to {target}; {found.path} was not changed")
        told = {
            **msgspec.structs.asdict(found),
            "sound": found.sound,
            "target": None if target is None else str(target),
        }
        self._tell(told, lines)

    def _backup(self, names: list[str]) -> None:
        path = _file(names[0])
        target = _file(names[1]) if len(names) > 1 else path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        if not path.exists():
            raise StoreError(f"there is no task database {path}")
        if target.exists():
            raise StoreError(f"the file {target} exists already; name another target")
        back_up_file(path, target)
        found = _verified(target)
        self._tell({"target": str(target), "records": found.good, "sound": found.sound},
                   [f"{target}: {found.good} records"])  # fmt: skip
        if not found.sound:
            raise StoreDamaged(f"{path} is damaged, and so is its backup: {found.summary()}")

    def _migrate(self, names: list[str]) -> None:
        path = _file(names[0])
        if not path.exists():
            raise StoreError(f"there is no task database {path}")
        before = verify(path).version
        with contextlib.closing(SQLiteDB(path)):
            pass
        after = verify(path).version
        backup = backup_of(path, before)
        done = before != after
        self._tell({"before": before, "after": after, "backup": str(backup) if done else None},
                   [f"{path}: schema version {before} → {after}; a backup is {backup}" if done else
                    f"{path} has schema version {after}, the newest"])  # fmt: skip

    def _copy(self, names: list[str]) -> None:
        if len(names) < 2:
            raise UsageError("name both databases: engineroom db copy DATABASE TARGET")
        if not any(map(_is_server, names)) and os.path.realpath(_file(names[0])) == os.path.realpath(_file(names[1])):
            raise UsageError(f"{names[0]} and {names[1]} are the same file: name another as the target")
        with _source(names[0]) as source, _target(names[1]) as target, bar("") as progress:
            done: Copied = copy(source, target, lambda made: progress("records", made.read, 0))
        there = f"; {done.read - done.new} were there already" if done.new < done.read else ""
        self._tell(msgspec.structs.asdict(done), [f"{done.new} records and {done.functions} functions copied{there}"])

    def _compact(self, names: list[str]) -> None:
        path = _file(names[0])
        if not path.exists():
            raise StoreError(f"there is no task database {path}")
        before = path.stat().st_size
        if not before:
            raise StoreError(f"{path} is not a task database yet: it is empty")
        try:
            store = SQLiteDB(path)
        except StoreBusy as error:
            raise StoreBusy(
                f"{error} While it runs, it returns unused space by itself; to compact the file, stop it "
                "(`ipcluster stop`)."
            ) from None
        with contextlib.closing(store), bar("B") as progress:
            functions = compact(store, progress)
            rewritten = store.rewrite(lambda: progress("rewriting", 0, 0))
        after = path.stat().st_size
        told = {"before": before, "after": after, "functions": functions, "rewritten": rewritten}
        dropped = f"; {functions} functions dropped that no record refers to" if functions else ""
        room = "" if rewritten else _NO_ROOM
        self._tell(told, [f"{path}: {before / 1e6:.1f} MB → {after / 1e6:.1f} MB{dropped}{room}"])

    def _info(self, names: list[str]) -> None:
        with _opened(names[0]) as store:
            usage, records = store.usage(), store.count({})
            states = {group["key"]: group["count"] for group in store.group_by("state", {})}
            ends = [store.find_records({}, "submitted", sort=[("submitted", way)], limit=1) for way in (1, -1)]
            first, last = (found[0]["submitted"] if found else None for found in ends)
            pinned = store.count({"pinned": True})
            url = store.url
        told = {"database": url, "records": records, "states": states, "pinned": pinned, 
                "first": first, "last": last, "bytes": usage.used, "unused_bytes": usage.unused,
                "free_on_disk": usage.room}  # fmt: skip
        counts = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        lines = [url, f"  records   {records} ({counts}; {pinned} pinned)"]
        if first is not None and last is not None:
            lines.append(f"  submitted {first.astimezone():%Y-%m-%d %H:%M} to {last.astimezone():%Y-%m-%d %H:%M}")
        lines.append(f"  size      {usage.used / 1e6:.1f} MB, and {usage.unused / 1e6:.1f} MB unused")
        self._tell(told, lines)


def _verified(path: Path) -> Findings:
    with bar("") as progress:
        return verify(path, progress)


def _few(ids: list[Any]) -> str:
    names = [str(id) if id is not None else "(unknown)" for id in ids[:NAMED]]
    return ", ".join(names) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")


def _file(name: str) -> Path:
    if name.startswith("mongodb") and "://" in name:
        raise UsageError("this works on SQLite files. For a MongoDB server use its own tools, or `engineroom db copy`")
    found = file_of(name)
    if "://" in name and found is None:
        scheme = name.partition("://")[0]
        raise UsageError(f"there is no database {scheme}://…; there are files, sqlite:///PATH and mongodb://HOST/NAME")
    path = found or Path(name).expanduser()
    if not name or path.is_dir():
        raise UsageError(f"{name!r} is not a file")
    return path.absolute()


def _is_server(name: str) -> bool:
    return name.startswith(("mongodb://", "mongodb+srv://"))


@contextlib.contextmanager
def _opened(name: str) -> Iterator[TaskStore]:
    """A database, opened for reading only."""
    store: TaskStore = MongoDB(name, readonly=True) if _is_server(name) else SQLiteDB.open_readonly(_file(name))
    with contextlib.closing(store):
        yield store


@contextlib.contextmanager
def _source(name: str) -> Iterator[Source]:
    if name.endswith(".parquet"):
        with contextlib.closing(ParquetReader(_file(name))) as reader:
            yield reader
        return
    with _opened(name) as store:
        yield StoreSide(store)


@contextlib.contextmanager
def _target(name: str) -> Iterator[Target]:
    if name.endswith(".parquet"):
        writer = ParquetWriter(_file(name))
        whole = False
        try:
            yield writer
            whole = True
        finally:
            writer.close(whole)
        return
    with contextlib.closing(open_store(name if _is_server(name) else url_of(_file(name)))) as store:
        yield StoreSide(store)
