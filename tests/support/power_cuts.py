"""A disk that forgets what was not synced: the files of a process as a power cut would leave them.

`logged` runs a process and logs what it does to the files of a folder (`disk_log.c`). `Disk` reads the log. At any
point of it, `Disk.after_cut` writes what a power cut may leave: what was synced, and of the rest what chance decides,
sector by sector. A file that was made counts as synced when its folder was. This is stricter than most file systems.

`Liar` is a disk that says it has synced and has not: it forgets some of the last operations, whether they were synced
or not.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

SOURCE = Path(__file__).with_name("disk_log.c")
#: What a disk writes whole or not at all, in bytes.
SECTOR = 4096


def built(folder: Path) -> Path | None:
    """The shared library, compiled into a folder; None: there is no C compiler, or this is not Linux."""
    library = folder / "disk_log.so"
    try:
        done = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"])
    except OSError:
        return None
    return library if done.returncode == 0 else None


def logged(command: Sequence[str], library: Path, folder: Path, log: Path) -> None:
    """Run a command to its end, and log what it does to the files in a folder."""
    surroundings = {"LD_PRELOAD": str(library), "DISK_LOG_FOLDER": str(folder), "DISK_LOG": str(log)}
    subprocess.run(command, check=True, env={**os.environ, **surroundings}, timeout=100)


class _File:
    """The changes of one file, in order."""

    def __init__(self) -> None:
        #: (operation, offset, bytes) of a write of up to a sector; (operation, size, None) of a cut
        self.changes: list[tuple[int, int, bytes | None]] = []
        #: changes of operations before this one are on the disk
        self.synced = 0

    def write(self, operation: int, offset: int, data: bytes) -> None:
        while data:
            size = SECTOR - offset % SECTOR
            self.changes.append((operation, offset, data[:size]))
            offset, data = offset + size, data[size:]

    def content(self, rng: Random, share: float, synced: int) -> bytes:
        """What is there after a power cut: a `share` of what is not of operations before `synced`."""
        made = bytearray()
        for operation, offset, data in self.changes:
            if operation >= synced and rng.random() >= share:
                continue
            if data is None:
                del made[offset:]
                made.extend(bytes(offset - len(made)))
            else:
                made.extend(bytes(max(0, offset + len(data) - len(made))))
                made[offset : offset + len(data)] = data
        return bytes(made)


#: What a name means: a file, a folder ("folder"), or nothing (None).
_Thing = _File | str | None


class Disk:
    """The state of the files, operation by operation."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder = folder
        self._log = log.read_bytes()
        self._names: dict[str, _Thing] = {}
        self._durable: dict[str, _Thing] = {}
        #: changes of names that were not synced, in order: (operation, name, what it means)
        self._pending: list[tuple[int, str, _Thing]] = []
        self.syncs = self.operations = 0

    def play(self) -> Iterator[tuple[str, bytes]]:
        """Take in the log. Yields (path, bytes) after each write, and (path, b"") after each other operation."""
        position, log = 0, self._log
        while position < len(log):
            end = log.index(b"\n", position)
            word, _, rest = log[position:end].decode().partition(" ")
            position = end + 1
            self.operations += 1
            if word == "W":
                offset, length, path = rest.split(" ", 2)
                data = log[position : position + int(length)]
                position += int(length)
                self._file(path).write(self.operations, int(offset), data)
                yield path, data
                continue
            yield self._change(word, rest), b""

    def _change(self, word: str, rest: str) -> str:
        path = rest
        match word:
            case "T":
                size, path = rest.split(" ", 1)
                self._file(path).changes.append((self.operations, int(size), None))
            case "C":
                self._rename(path, _File())
            case "M":
                self._rename(path, "folder")
            case "U":
                self._rename(path, None)
            case "R":
                before, path = rest.split("\t")
                thing = self._names.get(before)
                self._rename(before, None)
                self._rename(path, thing)
            case "S":
                self._sync(path)
        return path

    def _file(self, path: str) -> _File:
        found = self._names.get(path)
        # A file that was there before, or that has been deleted and is still open.
        return found if isinstance(found, _File) else self._names.setdefault(path, _File())  # type: ignore[return-value]

    def _rename(self, path: str, thing: _Thing) -> None:
        self._names[path] = thing
        self._pending.append((self.operations, path, thing))

    def _sync(self, path: str) -> None:
        self.syncs += 1
        found = self._names.get(path)
        if isinstance(found, _File):
            found.synced = self.operations
            return
        self._durable.update((name, thing) for _, name, thing in self._pending if os.path.dirname(name) == path)
        self._pending = [one for one in self._pending if os.path.dirname(one[1]) != path]

    def after_cut(self, target: Path, rng: Random, share: float) -> None:
        """Write the files as a power cut leaves them: of what was not synced, a `share` has reached the disk."""
        self._leave(target, self._durable, self._pending, rng, share, None)

    def _leave(
        self,
        target: Path,
        durable: dict[str, _Thing],
        pending: list[tuple[int, str, _Thing]],
        rng: Random,
        share: float,
        synced: int | None,
    ) -> None:
        names = {**durable, **{name: thing for _, name, thing in pending if rng.random() < share}}
        target.mkdir(parents=True)
        for path in sorted(names):
            place = target / Path(path).relative_to(self._folder)
            if names[path] == "folder" and place.parent.is_dir():
                place.mkdir(exist_ok=True)
        for path, thing in names.items():
            place = target / Path(path).relative_to(self._folder)
            if isinstance(thing, _File) and place.parent.is_dir():  # else its folder is lost
                place.write_bytes(thing.content(rng, share, thing.synced if synced is None else synced))


class Liar(Disk):
    """A disk that does nothing when it is told to sync: it writes when it likes, up to so many operations later."""

    def __init__(self, folder: Path, log: Path, late: int) -> None:
        super().__init__(folder, log)
        self._late = late

    def _sync(self, path: str) -> None:
        self.syncs += 1

    def after_cut(self, target: Path, rng: Random, share: float) -> None:
        written = self.operations - self._late
        durable = {name: thing for operation, name, thing in self._pending if operation < written}
        pending = [one for one in self._pending if one[0] >= written]
        self._leave(target, durable, pending, rng, share, written)
