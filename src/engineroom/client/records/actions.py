"""Acting on all tasks that match a query: which tasks an action takes. The acting itself is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ...config import check_switches
from ...ids import TaskId
from .queries import Records
from .query_args import plain_query
from .scope import InSession
from .selection import CONDITIONS, FIRST, Selection


class Searchable(Protocol):
    """Records that can be counted and found: of a cluster, or of a file."""

    def count(self, query: Mapping[str, Any]) -> int:
        """How many match."""

    def find(self, query: Mapping[str, Any], keys: Sequence[str], *, limit: int) -> list[Any]:
        """The first records that match, by submission."""

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value of a key in the matching records, once."""

    @property
    def session(self) -> str:
        """The id of our own session; "" if we have none."""


def checked(query: Any, action: str) -> dict[str, Any]:
    """The query of an action. "all" becomes the empty query, which matches every record.

    Raises
    ------
    ValueError
        It is empty: surely a mistake.
    """
    if isinstance(query, str) and query == "all":
        return {}
    plain = plain_query(query)
    if not plain and action != "export":
        raise ValueError(f'an empty query would {action} every task: say query="all" if that is meant')
    return plain


def taken(query: Mapping[str, Any], action: str) -> dict[str, Any]:
    """The query for the matching tasks that an action takes: finished ones, or pending ones."""
    condition = CONDITIONS[action][0]
    return {"$and": [query, condition]} if query and condition else {**query, **condition}


def select(records: Searchable, query: Any, action: str, *, dry_run: bool) -> Selection:
    """What an action by query takes now."""
    wanted = checked(query, action)
    takes = taken(wanted, action)
    count, total = records.count(takes), records.count(wanted)
    first = [record["msg_id"] for record in records.find(takes, ["msg_id"], limit=FIRST)]
    chosen = Selection(action, count, first, max(0, total - count), dry_run)
    if not count:
        elsewhere = records.count(taken(plain_query(query.anyone), action)) if isinstance(query, InSession) else 0
        return msgspec.structs.replace(chosen, elsewhere=elsewhere)
    foreign = {"client_uuid": {"$ne": records.session}}
    others = {"$and": [takes, foreign]} if takes else foreign
    if not (of_others := records.count(others)):
        return chosen
    sessions = len(records.distinct("client_uuid", others))
    return msgspec.structs.replace(chosen, others=of_others, other_sessions=sessions)


def select_or_none(records: Searchable, query: Any, action: str, *, dry_run: bool, others: Any) -> Selection | None:
    """The selection of a call that takes either a query or `others`, which name tasks; None without a query.

    Raises
    ------
    ConfigError
        `dry_run` is neither True nor False.
    ValueError
        Both are given, or a dry run without a query.
    """
    check_switches(dry_run=dry_run)
    if query is None:
        if dry_run:
            raise ValueError("dry_run tells which tasks a query takes: give query=")
        return None
    if others is not None:
        raise ValueError("give tasks or a query, not both")
    return select(records, query, action, dry_run=dry_run)


def ids_taken(records: Records, query: Any, action: str) -> list[TaskId]:
    """The tasks that an action by query takes now, by submission."""
    wanted = taken(checked(query, action), action)
    return [TaskId(record["msg_id"]) for record in records.iterate(wanted, "msg_id", batch=10_000)]
