"""The roster: a file that says which engines are connected, so that a restarted controller knows which may come back.

It is no record of tasks, and nothing is lost without it: then the controller waits the whole `recovery_grace` for
engines. Each line is an engine that came, or the uuid of one that went. The line of an engine is in the file before the
engine is sent its first task. Lines are not synced to the disk: the file is believed only as long as its host has not
been restarted.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ...ids import EngineId, EngineUuid, NannyId
from ...system.processes import boot_id, state_of

log = logging.getLogger(__name__)

#: A file with so many more lines than there are engines is written anew, with a line for each engine.
MOST_SURPLUS = 1000


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """A connected engine."""

    uuid: EngineUuid
    number: EngineId
    nanny: NannyId
    host: str
    pid: int
    #: when its process began, in clock ticks since the host's start; 0: it is no process that this controller can see
    born: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether its process is certainly gone."""
        return self.born > 0 and _born(self.pid) != self.born


class _Line(msgspec.Struct, omit_defaults=True):
    boot: str = ""
    came: Listed | None = None
    went: EngineUuid | None = None


class Roster:
    """The engines that are connected, and those that were before the restart and may come back.

    Parameters
    ----------
    path : Path, optional
        Where they are kept; None: only in memory.
    former : mapping, optional
        Those of before the restart by uuid; None: unknown.
    """

    def __init__(self, path: Path | None = None, former: Mapping[EngineUuid, Listed] | None = None) -> None:
        self._path = path
        self._file = -1
        #: the engines that were connected before the restart; None: unknown
        self.former = former
        self.listed: dict[EngineUuid, Listed] = dict(former or {})
        self._news: list[_Line] = []
        self._lines = 0
        self._rewrite()

    @classmethod
    def at(cls, path: Path, *, restarted: bool) -> Roster:
        """The roster in a file. `restarted`: engines of the file may come back."""
        return cls(path, _read(path) if restarted else {})

    def came(self, uuid: EngineUuid, number: EngineId, nanny: NannyId, host: str, pid: int) -> None:
        """An engine is connected."""
        born = _born(pid) if host == socket.gethostname() else 0
        entry = Listed(uuid, number, nanny, host, pid, born)
        if self.listed.get(uuid) != entry:
            self.listed[uuid] = entry
            self._news.append(_Line(came=entry))

    def went(self, uuids: Sequence[EngineUuid]) -> None:
        """Engines are gone, or are awaited no more. Unknown ones are ignored."""
        for uuid in uuids:
            if self.listed.pop(uuid, None) is not None:
                self._news.append(_Line(went=uuid))

    def write(self) -> None:
        """Write what is new."""
        if not self._news:
            return
        news, self._news = self._news, []
        if self._file < 0:
            return
        self._lines += len(news)
        if self._lines > 2 * len(self.listed) + MOST_SURPLUS:
            self._rewrite()
        else:
            self._append(news)

    def close(self, *, remove: bool = False) -> None:
        """Close the file; `remove`: no engine is to come back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if remove and self._path is not None:
            self._path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        """Begin a new file."""
        self.close()
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        try:
            self._file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            lines = [_Line(came=entry) for entry in self.listed.values()]
            self._lines = len(lines)
            self._append([_Line(boot=boot_id()), *lines])
            if self._file >= 0:
                new.rename(self._path)
        except OSError as error:
            self._give_up(error)

    def _append(self, lines: Sequence[_Line]) -> None:
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            written = os.write(self._file, content)
            if written != len(content):
                raise OSError(f"{written} of {len(content)} bytes were written")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A file that is not complete must not be believed."""
        log.warning("which engines are connected cannot be written to %s: %s", self._path, error)
        self.close(remove=True)


def _read(path: Path) -> dict[EngineUuid, Listed] | None:
    """The engines in a file; None: there is none that can be believed."""
    found: dict[EngineUuid, Listed] = {}
    try:
        first, *rest = msgspec.json.Decoder(_Line).decode_lines(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not first.boot or first.boot != boot_id():
        return None
    for line in rest:
        if line.came is not None:
            found[line.came.uuid] = line.came
        elif line.went is not None:
            found.pop(line.went, None)
    return found


def _born(pid: int) -> int:
    """When a process of this host began; 0: there is none, or it is unknown."""
    state = state_of(pid)
    return 0 if state is None or state.has_ended else state.born
