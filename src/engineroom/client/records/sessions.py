"""Which sessions there are, and which of them a name means. A session is the life of one client."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, NamedTuple

from ...errors import EngineroomError, QueryError
from ...printable import one_line
from .queries import Records
from .scope import session_id

#: Sessions that an error lists.
LISTED = 12


class SessionInfo(NamedTuple):
    """A session that has submitted tasks."""

    id: str
    name: str
    notebook: str
    tasks: int
    newest: datetime | None

    def means(self, wanted: str) -> bool:
        """Whether a text is its name or its notebook."""
        path = PurePath(self.notebook)
        return wanted == self.name or (bool(self.notebook) and wanted in (self.notebook, path.name, path.stem))

    def __str__(self) -> str:
        called = f" {self.name!r}" if self.name else ""
        where = f" of {self.notebook}" if self.notebook else ""
        when = f", last task {self.newest.astimezone():%Y-%m-%d %H:%M}" if self.newest else ""
        return one_line(f"{self.id}{called}{where}: {self.tasks:,} task{'s' * (self.tasks != 1)}{when}")


class Found(NamedTuple):
    """What a name means."""

    #: ids of sessions
    sessions: list[str]
    #: only results with this label
    label: str | None = None


def sessions(records: Records) -> list[SessionInfo]:
    """All sessions that have records, those with the newest tasks first."""
    facts: dict[str, dict[str, Any]] = {}
    found = []
    for group in records.group("client_uuid"):
        if not group["key"]:
            continue
        query = {"client_uuid": group["key"]}
        [newest] = records.find(query, ["submitted", "environment"], sort=[("submitted", -1)], limit=1) or [{}]
        digest = newest.get("environment")
        if digest and digest not in facts:
            try:
                facts[digest] = records.environment(digest)
            except EngineroomError:  # retention has dropped it
                facts[digest] = {}
        of = facts.get(digest or "", {})
        named, notebook = str(of.get("session") or ""), str(of.get("notebook") or "")
        found.append(SessionInfo(str(group["key"]), named, notebook, int(group["count"]), newest.get("submitted")))
    return sorted(found, key=lambda info: info.newest.timestamp() if info.newest else 0.0, reverse=True)


def find(records: Records, wanted: Any) -> Found:
    """The sessions that a name, a notebook, a label or an id means.

    Raises
    ------
    QueryError
        None. The text lists those that there are.
    """
    if not isinstance(wanted, str) or wanted in ("mine", "last"):
        return Found([session_id(records, wanted)])
    known = sessions(records)
    if meant := [info.id for info in known if info.means(wanted)]:
        return Found(meant)
    if labelled := [str(id) for id in records.distinct("client_uuid", {"label": wanted}) if id]:
        return Found(labelled, wanted)
    begins = [info.id for info in known if wanted and info.id.startswith(wanted)]
    if len(begins) == 1:
        return Found(begins)
    raise QueryError(f"{_problem(wanted, begins)}. {_listed(known)}")


def _problem(wanted: str, begins: Sequence[str]) -> str:
    if begins:
        return f"the ids of {len(begins)} sessions begin with {wanted!r}"
    return f"no session has the name, notebook or id {wanted!r}, and no task that label"


def _listed(known: Sequence[SessionInfo]) -> str:
    if not known:
        return "There is no session: nothing is recorded"
    more = f"\n  … {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    return "There are:\n  " + "\n  ".join(map(str, known[:LISTED])) + more
