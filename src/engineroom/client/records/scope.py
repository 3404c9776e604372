"""Whose tasks a query is about: every session's, or those of one session.

A session is the life of one client. Its id is the `client_uuid` of the records of its tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from ...errors import QueryError
from .query_args import settled

#: Digits of a whole session id.
_DIGITS = 16


class Sessions(Protocol):
    """Records of tasks, of many sessions."""

    @property
    def session(self) -> str:
        """The id of our own session; "" if we have none."""

    def distinct(self, key: str, query: Mapping[str, Any] | None = None) -> list[Any]:
        """Each value of a key in the matching records, once."""

    def find(
        self,
        query: Mapping[str, Any],
        keys: list[str],
        *,
        sort: list[tuple[str, int]],
        limit: int,
    ) -> list[Any]:
        """Matching records."""


def session_id(records: Sessions, session: Any) -> str:
    """The id of a session.

    Parameters
    ----------
    session : str or Client
        "mine": our own. "last": the one that has submitted the newest task. Else an id, the beginning of one that no
        other has, or a client.

    Raises
    ------
    QueryError
        There is no such session; or several ids begin so.
    """
    named = getattr(session, "session", session)
    named = getattr(named, "session", named)  # rc.session.session
    if named == "mine":
        if records.session:
            return records.session
        raise QueryError('session="mine" means nothing here: no session is ours. Give a session id, or "last"')
    if named == "last":
        newest = records.find({}, ["client_uuid"], sort=[("submitted", -1)], limit=1)
        if newest:
            return str(newest[0]["client_uuid"])
        raise QueryError('session="last": there is no task yet, so no session')
    if not isinstance(named, str) or not re.fullmatch(r"[\w.:-]+", named):
        raise QueryError(
            f'a session is "mine", "last", a session id (the client_uuid of records) or a Client; got {session!r}'
        )
    if named == records.session or re.fullmatch(rf"[0-9a-f]{{{_DIGITS}}}", named):
        return named
    found = [id for id in records.distinct("client_uuid", {"client_uuid": {"$regex": f"^{re.escape(named)}"}}) if id]
    if len(found) == 1:
        return str(found[0])
    if named in found:
        return named
    if not found:
        raise QueryError(f"no task is of a session whose id begins with {named!r}")
    raise QueryError(f"the ids of {len(found)} sessions begin with {named!r}: {', '.join(found[:5])}")


class InSession(dict[str, Any]):
    """A query that is narrowed to one session. `anyone` is the query without the session; {}: every record."""

    def __init__(self, narrowed: Mapping[str, Any], anyone: Mapping[str, Any]) -> None:
        super().__init__(narrowed)
        self.anyone = anyone


def in_session(records: Sessions, query: Any, session: Any) -> Any:
    """A query, `settled`, and narrowed to one session if there is one.

    Parameters
    ----------
    query : dict, "all" or None

    Raises
    ------
    ValueError
        There is a session, but no query that it could narrow.
    QueryError
        As for `session_id`.
    """
    query = settled(query)
    if session is None:
        return query
    if query is None:
        raise ValueError('session= narrows a query: give query= too; query="all" means all tasks of the session')
    mine = {"client_uuid": session_id(records, session)}
    if query == "all":
        return InSession(mine, {})
    if not isinstance(query, Mapping):
        raise QueryError(f"a query is a dict, got {type(query).__name__}")
    return InSession({"$and": [query, mine]} if query else mine, query)
