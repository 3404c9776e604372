"""Acting on tasks by query: which are meant, and what was, or would be, done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ...ids import TaskId
from .query_args import plain_query

if TYPE_CHECKING:
    from .queries import HubClient

#: How many ids are told.
FIRST = 10

#: What each action takes, and the word for what it leaves out.
_TAKES: dict[str, tuple[dict[str, Any], str]] = {
    "resubmit": ({"completed": {"$ne": None}}, "pending"),
    "purge": ({"completed": {"$ne": None}}, "pending"),
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
        Of at most ten of them the msg_ids, by submission.
    left_out : int
        How many match but cannot be taken: pending ones where finished ones are meant, or the other way round.
    dry_run : bool
        Nothing was done.
    """

    action: str
    count: int
    first: list[TaskId]
    left_out: int = 0
    dry_run: bool = False

    def __len__(self) -> int:
        return self.count

    def __str__(self) -> str:
        verb = f"would {self.action}" if self.dry_run else f"{self.action}:"
        text = f"{verb} {self.count:,} task{'s' if self.count != 1 else ''}"
        if self.first:
            text += f": {', '.join(self.first)}" + (" …" if self.count > len(self.first) else "")
        if self.left_out:
            kind = _TAKES[self.action][1]
            text += f"; {self.left_out:,} {kind} one{'s' if self.left_out != 1 else ''} left out"
        return text

    def __repr__(self) -> str:
        return f"<{self}>"


def checked(query: Any, action: str) -> dict[str, Any]:
    """A query to act by: "all" is every record, an empty one a mistake.

    Raises
    ------
    ValueError
        It is empty.
    """
    if isinstance(query, str) and query == "all":
        return {}
    plain = plain_query(query)
    if not plain and action != "export":
        raise ValueError(f'an empty query would {action} every task: say query="all" if that is meant')
    return plain


def taken(query: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The query for those of the matching tasks that an action takes."""
    condition = _TAKES[action][0]
    return {"$and": [query, condition]} if query and condition else {**query, **condition}


def select(client: HubClient, query: Any, action: str, *, dry_run: bool) -> Selection:
    """What an action by query takes now."""
    wanted = checked(query, action)
    count, total = client.db_count(taken(wanted, action)), client.db_count(wanted)
    first = [record["msg_id"] for record in client.db_query(taken(wanted, action), "msg_id", limit=FIRST)]
    return Selection(action, count, first, max(0, total - count), dry_run)


def ids_of(client: HubClient, query: Any, action: str) -> list[TaskId]:
    """The tasks that an action by query takes now, by submission."""
    wanted = taken(checked(query, action), action)
    return [TaskId(record["msg_id"]) for record in client.db_iter(wanted, "msg_id", batch=10_000)]
