"""What an action by query has taken, or would take: `Selection`, a plain value."""

from __future__ import annotations

from typing import Any

import msgspec

from ...ids import TaskId

#: How many ids a selection names.
FIRST = 10

#: action → the condition for tasks that it takes, and the word for those that it leaves out
CONDITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "resubmit": ({"completed": {"$ne": None}}, "unfinished"),
    "purge": ({"completed": {"$ne": None}}, "unfinished"),
    "abort": ({"completed": None}, "finished"),
    "cancel": ({"completed": None}, "finished"),
    "wait for": ({"completed": None}, "finished"),
    "export": ({}, ""),
}


class Selection(msgspec.Struct, frozen=True):
    """The tasks that an action by query takes, or would take.

    Attributes
    ----------
    action : str
        "resubmit", "purge", "abort", "cancel", "wait for" or "export".
    count : int
    first : list of str
        The msg_ids of the first ten, by submission.
    left_out : int
        How many match but cannot be taken: unfinished ones where finished ones are meant, or the other way round.
    dry_run : bool
        Nothing was done.
    others : int
        How many of these tasks other sessions have submitted, not this client.
    other_sessions : int
        How many sessions that were.
    elsewhere : int
        How many tasks of other sessions match, if the query was narrowed to one session of which none matches.
    """

    action: str
    count: int
    first: list[TaskId]
    left_out: int = 0
    dry_run: bool = False
    others: int = 0
    other_sessions: int = 0
    elsewhere: int = 0

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        verb = f"would {self.action}" if self.dry_run else f"{self.action}:"
        text = f"{verb} {self.count:,} task{'s' if self.count != 1 else ''}"
        if self.first:
            text += f": {', '.join(self.first)}" + (" …" if self.count > len(self.first) else "")
        if self.elsewhere:
            text += f" of this session; {self.elsewhere:,} of others match{'es' if self.elsewhere == 1 else ''}"
        if self.others:
            which = "all" if self.others == self.count else f"{self.others:,}"
            text += f"; {which} of {self.other_sessions:,} other session{'s' if self.other_sessions != 1 else ''}"
        if self.left_out:
            kind = CONDITIONS[self.action][1]
            text += f"; {self.left_out:,} {kind} one{'s' if self.left_out != 1 else ''} left out"
        return text

    def __repr__(self) -> str:
        return f"<{self}>"
