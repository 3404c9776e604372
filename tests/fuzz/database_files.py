"""SQLite files of task databases with bytes changed.

A case is a list in msgpack: who uses the file (a reader, a controller, the doctor), then changes to a small database:
`[place, bytes]`, or a number: the file is cut there. Everything is done that these do. Each step works, or raises a
typed error: a StoreError, or a KeyError for a record that is gone.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engineroom.errors import QueryError, StoreError
from engineroom.ids import Digest, TaskId
from engineroom.messages import Environment, Function
from engineroom.records.fields import KEYS
from engineroom.stores import SQLiteDB
from engineroom.stores.base import References
from engineroom.stores.sqlite.doctor import repair, verify

from .queries import _entries
from .target import Complaints, Target, memory_folder

#: The first bytes of a page say what the page is: they are changed more often than others.
PAGE, HEAD = 4096, 12
#: Bytes of one large buffer: it is stored apart from its record.
LARGE = 70_000


#: Who uses the file: a reader, a controller, the doctor.
_WHO = 3
_Case = tuple[int, list[tuple[int, bytes] | int]]


class DatabaseFilesTarget(Target):
    """A database that somebody has written to."""

    name = "database-files"

    def __enter__(self) -> DatabaseFilesTarget:
        self._complaints = Complaints()
        self._complaints.__enter__()
        self._folder = Path(tempfile.mkdtemp(prefix="engineroom-fuzz-", dir=memory_folder()))
        base = self._folder / "base.db"
        store = SQLiteDB(base, synchronous="OFF", journal="rollback")
        entries = _entries()
        entries[1].frames = (bytes(LARGE),)
        store.add_functions([Function(Digest(b"\x0f" * 16), b"code", "f", "source")])
        store.write(entries)
        store.add_environments([(entries[0].client, Environment("e" * 32, b"{}"))])
        store.add_record(TaskId("t8"), {"label": "ünï", "metadata": {"x": [1, 2]}, "pyout": {"y": 1.5}})
        store.pin([TaskId("t1")], True)
        store.close()
        self._base = base.read_bytes()
        self.files = sorted(path.name for path in self._folder.iterdir())
        return self

    def __exit__(self, *error: object) -> None:
        self._complaints.__exit__()
        shutil.rmtree(self._folder)

    def seeds(self) -> list[bytes]:
        size = len(self._base)
        changes: list[list[Any]] = [
            [],
            [[100, b"\x0d"]],
            [[24, b"\0\0\0\1"]],
            [size // 2],
            [[size - 300, b"\xff\xff"]],
            [[0, b"not ours"]],
        ]
        changes += [[[at, b"\x05\0\0\0\1"]] for at in range(PAGE, size, PAGE)]
        return [msgspec.msgpack.encode([who, each]) for each in changes for who in range(_WHO)]

    def mutate(self, case: bytes, rng: Random) -> bytes:
        """Changes are many: the library checks pages, and ours must check what is in them."""
        try:
            who, made = msgspec.msgpack.decode(case, type=_Case)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            who, made = 0, []
        if rng.random() < 0.3:
            who = rng.randrange(_WHO)
        if made and rng.random() < 0.4:
            del made[rng.randrange(len(made))]
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(self._base))
            match rng.randrange(8):
                case 0:
                    place = place // PAGE * PAGE + rng.randrange(HEAD)
                case 1:
                    place = rng.randrange(100)
                case 2:
                    made.append(place)
                    continue
                case _ if self._base[place] == 0:  # where there is something
                    place = _next_used(self._base, place)
            content = rng.choice(
                (rng.randbytes(1), rng.randbytes(2), rng.randbytes(rng.randint(1, 40)), b"\0" * 8, b"\xff" * 4)
            )
            made.append((place, bytes([self._base[place] ^ 1 << rng.randrange(8)]) if rng.random() < 0.5 else content))
        return msgspec.msgpack.encode([who, made[-8:]])

    def run(self, case: bytes) -> None:
        try:
            who, changes = msgspec.msgpack.decode(case, type=_Case)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        content = bytearray(self._base)
        for change in changes:
            if isinstance(change, int):
                if change >= 0:
                    del content[change:]
            elif 0 <= change[0] < len(content):
                content[change[0] : change[0] + len(change[1])] = change[1]
        path = self._folder / "tasks.db"
        try:
            path.write_bytes(content)
            match who % _WHO:
                case 0:
                    _use(SQLiteDB.open_readonly, path)
                case 1:
                    _use(lambda path: SQLiteDB(path, synchronous="OFF"), path, writes=True)
                case _:
                    with contextlib.suppress(StoreError):
                        verify(path)
                        repair(path, self._folder / "repaired.db")
        finally:
            self._clear()
        self._complaints.records.clear()  # a record that cannot be read is named in the log

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            if path.name not in self.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _use(opened: Callable[[Path], SQLiteDB], path: Path, writes: bool = False) -> None:
    """All that may be asked of a store, each for itself: that one thing fails is no reason that another may crash."""
    try:
        store = opened(path)
    except StoreError:
        return
    functions = Digest(b"\x0f" * 16)
    steps: list[Callable[[], Any]] = [
        lambda: store.find_records({}, list(KEYS)),
        lambda: store.find_records({"header.label": "a"}, sort=[("completed", -1)], limit=3),
        lambda: store.count({"state": "failed"}),
        lambda: store.page({}, limit=3),
        lambda: list(store.find_columns({"metadata.x": 1})),
        lambda: store.distinct("label", {}),
        lambda: store.group_by("state", {}, values="duration", percentiles=[50]),
        lambda: list(store.unfinished()),
        lambda: store.entries([TaskId(f"t{n}") for n in range(10)]),
        lambda: store.get_record(TaskId("t1")),
        lambda: store.get_function(functions),
        lambda: store.get_environment("e" * 32),
        lambda: store.get_history(),
        lambda: store.large_buffers(10),
        lambda: list(store.used_references()),
        lambda: list(store.stored_references()),
        lambda: store.usage(),
    ]
    if writes:
        steps += [
            lambda: store.write(_entries()),
            lambda: store.add_record(TaskId("new"), {"label": "n"}),
            lambda: store.update_record(TaskId("t1"), {"label": "changed"}),
            lambda: store.pin([TaskId("t2")], True),
            lambda: store.drop_buffers([TaskId("t3")]),
            lambda: store.drop_matching_records({"state": "failed"}),
            lambda: store.drop_references(References(frozenset({functions}))),
            lambda: list(store.drop_in_pieces({})),
            lambda: store.give_back(1 << 20),
        ]
    try:
        for step in steps:
            with contextlib.suppress(StoreError, KeyError, QueryError):
                step()
    finally:
        with contextlib.suppress(StoreError):
            store.close()


def _next_used(content: bytes, place: int) -> int:
    while place < len(content) - 1 and content[place] == 0:
        place += 1
    return place
