"""SQLite files of task databases with bytes changed.

A case is a list in msgpack: the number of a use of the file, then changes to a small database: `[place, bytes]`, or a
number: the file is cut there. A use is a few things that a reader, a controller or the doctor does; all of them in each
case would be slow, and find no more. Each step works, or raises a typed error: a StoreError, or a KeyError for a record
that is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec

from engineroom.errors import QueryError, StoreError
from engineroom.ids import Digest, TaskId
from engineroom.messages import Environment, Function
from engineroom.records.fields import KEYS
from engineroom.stores import SQLiteDB
from engineroom.stores.base import References
from engineroom.stores.sqlite import blobs, payload_files
from engineroom.stores.sqlite.doctor import repair, verify
from engineroom.stores.sqlite.payload_files import PayloadFiles

from .queries import NOW, _entries
from .target import Complaints, Target, memory_folder

#: The first bytes of a page say what the page is: they are changed more often than others.
PAGE, HEAD = 1024, 12
#: Bytes of two large buffers: one is stored apart from its record, one in a file of its own.
LARGE, IN_A_FILE = 70_000, 300_000


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
        entries[1].frames = bytes(LARGE), bytes(IN_A_FILE)
        store.add_functions([Function(Digest(b"\x0f" * 16), b"code", "f", "source")])
        # The same file each time: cases change places in it.
        with (
            patch.object(blobs, "_new_number", count(1).__next__),
            patch.object(payload_files.secrets, "token_hex", lambda size: "f" * 2 * size),
        ):
            store.write(entries)
        store.add_environments([(entries[0].client, Environment("e" * 32, b"{}"))])
        moment = datetime.fromtimestamp(NOW, UTC)
        record = {"label": "ünï", "metadata": {"x": [1, 2]}, "pyout": {"y": 1.5}, "submitted": moment}
        store.add_record(TaskId("t8"), record)
        store.pin([TaskId("t1")], True)
        store.close()
        with contextlib.closing(sqlite3.connect(base, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE}")  # small pages: a small file, with more kinds of pages
            connection.execute("VACUUM")
        self._buffers = PayloadFiles(base).folder
        self.sample, self._lock = base.read_bytes(), base.with_name("base.db.lock").read_bytes()
        self._uses = _uses(self._folder)
        self.files = sorted(path.name for path in self._folder.iterdir())
        return self

    def __exit__(self, *error: object) -> None:
        self._complaints.__exit__()
        shutil.rmtree(self._folder)

    def seeds(self) -> list[bytes]:
        size = len(self.sample)
        changes: list[list[Any]] = [
            [],
            [[100, b"\x0d"]],
            [[24, b"\0\0\0\1"]],
            [size // 2],
            [[size - 300, b"\xff\xff"]],
            [[0, b"not ours"]],
        ]
        changes += [[[at, b"\x05\0\0\0\1"]] for at in range(PAGE, size, PAGE)]
        return [msgspec.msgpack.encode([who, each]) for each in changes[:6] for who in range(len(self._uses))] + [
            msgspec.msgpack.encode([number % len(self._uses), each]) for number, each in enumerate(changes[6:])
        ]

    def mutate(self, case: bytes, rng: Random) -> bytes:
        """Changes are many: the library checks pages, and ours must check what is in them."""
        try:
            who, made = msgspec.msgpack.decode(case, type=_Case)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            who, made = 0, []
        if rng.random() < 0.3:
            who = rng.randrange(len(self._uses) - (rng.random() < 0.9))  # the last, a repair, takes longest
        if made and rng.random() < 0.4:
            del made[rng.randrange(len(made))]
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(self.sample))
            match rng.randrange(8):
                case 0:
                    place = place // PAGE * PAGE + rng.randrange(HEAD)
                case 1:
                    place = rng.randrange(100)
                case 2:
                    made.append(place)
                    continue
                case _ if self.sample[place] == 0:  # where there is something
                    place = _next_used(self.sample, place)
            content = rng.choice(
                (rng.randbytes(1), rng.randbytes(2), rng.randbytes(rng.randint(1, 40)), b"\0" * 8, b"\xff" * 4)
            )
            made.append((place, bytes([self.sample[place] ^ 1 << rng.randrange(8)]) if rng.random() < 0.5 else content))
        return msgspec.msgpack.encode([who, made[-8:]])

    def run(self, case: bytes) -> None:
        try:
            who, changes = msgspec.msgpack.decode(case, type=_Case)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        content = bytearray(self.sample)
        for change in changes:
            if isinstance(change, int):
                if change >= 0:
                    del content[change:]
            elif 0 <= change[0] < len(content):
                content[change[0] : change[0] + len(change[1])] = change[1]
        path = self._folder / "tasks.db"
        try:
            path.write_bytes(content)
            # Its owner ended well: of any other file all is checked first, and most would be refused.
            path.with_name("tasks.db.lock").write_bytes(self._lock)
            shutil.copytree(self._buffers, PayloadFiles(path).folder, copy_function=os.link)
            self._uses[who % len(self._uses)](path)
        finally:
            self._clear()
        self._complaints.records.clear()  # a record that cannot be read is named in the log

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            if path.name not in self.files:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


#: Something that is done with an open store.
_Step = Callable[[SQLiteDB], Any]
_FUNCTION = Digest(b"\x0f" * 16)

_READING: list[list[_Step]] = [
    [
        lambda store: store.find_records({}, list(KEYS)),
        lambda store: store.find_records({"header.label": "a"}, sort=[("completed", -1)], limit=3),
        lambda store: store.count({"state": "failed"}),
    ],
    [
        lambda store: store.page({}, limit=3),
        lambda store: list(store.find_columns({"metadata.x": 1})),
        lambda store: store.distinct("label", {}),
        lambda store: store.group_by("state", {}, values="duration", percentiles=[50]),
    ],
    [
        lambda store: list(store.unfinished()),
        lambda store: store.entries([TaskId(f"t{n}") for n in range(10)]),
        lambda store: store.get_record(TaskId("t1")),
    ],
    [
        lambda store: store.get_function(_FUNCTION),
        lambda store: store.get_environment("e" * 32),
        lambda store: store.get_history(),
        lambda store: store.large_buffers(10),
        lambda store: list(store.used_references()),
        lambda store: list(store.stored_references()),
        lambda store: store.usage(),
    ],
]
_WRITING: list[list[_Step]] = [
    [
        lambda store: list(store.unfinished()),
        lambda store: store.write(_entries()),
        lambda store: store.add_record(TaskId("new"), {"label": "n"}),
        lambda store: store.update_record(TaskId("t1"), {"label": "changed"}),
    ],
    [
        lambda store: store.pin([TaskId("t2")], True),
        lambda store: store.drop_buffers([TaskId("t3")]),
        lambda store: store.drop_matching_records({"state": "failed"}),
        lambda store: store.drop_references(References(frozenset({_FUNCTION}))),
    ],
    [
        lambda store: list(store.drop_in_pieces({})),
        lambda store: store.give_back(1 << 20),
    ],
]


def _uses(folder: Path) -> list[Callable[[Path], None]]:
    """What a case may do with a file. `folder`: for a file that is made of it."""

    def repaired(path: Path) -> None:
        with contextlib.suppress(StoreError):
            repair(path, folder / "repaired.db")

    def verified(path: Path) -> None:
        with contextlib.suppress(StoreError):
            verify(path)

    def owned(path: Path) -> SQLiteDB:
        return SQLiteDB(path, synchronous="OFF", journal="rollback")

    reading = [partial(_use, SQLiteDB.open_readonly, steps) for steps in _READING]
    writing = [partial(_use, owned, steps) for steps in _WRITING]
    logged = partial(_use, lambda path: SQLiteDB(path, synchronous="OFF"), _WRITING[0])
    return [*reading, *writing, verified, logged, repaired]


def _use(opened: Callable[[Path], SQLiteDB], steps: list[_Step], path: Path) -> None:
    """Take steps, each for itself: that one thing fails is no reason that another may crash."""
    try:
        store = opened(path)
    except StoreError:
        return
    try:
        for step in steps:
            with contextlib.suppress(StoreError, KeyError, QueryError):
                step(store)
    finally:
        with contextlib.suppress(StoreError):
            store.close()


def _next_used(content: bytes, place: int) -> int:
    while place < len(content) - 1 and content[place] == 0:
        place += 1
    return place
