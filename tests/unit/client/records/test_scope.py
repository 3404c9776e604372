"""Whose tasks a query is about. No cluster."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.client.records.actions import select
from engineroom.client.records.scope import in_session, session_id
from engineroom.errors import QueryError
from engineroom.stores import open_store

MINE, FIRST, SECOND = "00000000000000aa", "b100000000000000", "b200000000000000"


class FakeSessions:
    """The records of three sessions, in memory."""

    def __init__(self, session: str = MINE) -> None:
        self.session = session
        self._store = open_store("memory")
        for number, client in enumerate((MINE, FIRST, FIRST, SECOND)):
            record = {"client_uuid": client, "state": "failed", "completed": None}
            self._store.add_record(f"{client}-{number}", record)

    def count(self, query: Any) -> int:
        return self._store.count(query)

    def distinct(self, key: str, query: Any = None) -> list[Any]:
        return self._store.distinct(key, query or {})

    def find(self, query: Any, keys: Any, *, sort: Any = None, limit: int) -> list[Any]:
        return self._store.find_records(query, keys, sort=sort, limit=limit)


@pytest.fixture
def records() -> FakeSessions:
    return FakeSessions()


def test_mine_an_id_its_beginning_or_a_client(records: FakeSessions):
    class Session:
        session = SECOND

    class Client:
        session = Session()

    assert session_id(records, "mine") == MINE
    assert session_id(records, FIRST) == FIRST
    assert session_id(records, "b2") == SECOND
    assert session_id(records, Client()) == SECOND
    assert session_id(records, "last") in (MINE, FIRST, SECOND)


@pytest.mark.parametrize(
    ("session", "words"),
    [("b", "2 sessions begin with 'b'"), ("c", "no task is of a session"), (7, "got 7"), ("", "got ''")],
)
def test_a_session_that_is_not_clear_is_an_error(records: FakeSessions, session: Any, words: str):
    with pytest.raises(QueryError, match=words):
        session_id(records, session)


def test_without_a_session_of_ones_own_mine_is_an_error():
    with pytest.raises(QueryError, match="no session is ours"):
        session_id(FakeSessions(session=""), "mine")


def test_a_session_narrows_a_query(records: FakeSessions):
    mine = {"client_uuid": MINE}
    assert in_session(records, {"state": "failed"}, None) == {"state": "failed"}
    assert in_session(records, {"state": "failed"}, "mine") == {"$and": [{"state": "failed"}, mine]}
    assert in_session(records, {}, "mine") == in_session(records, "all", "mine") == mine
    with pytest.raises(ValueError, match="give query="):
        in_session(records, None, "mine")


def test_a_selection_names_how_many_other_sessions_it_touches(records: FakeSessions):
    would = select(records, {"state": "failed"}, "cancel", dry_run=True)
    assert (would.count, would.others, would.other_sessions) == (4, 3, 2)
    assert str(would).endswith("; 3 of 2 other sessions")
    mine = select(records, in_session(records, {"state": "failed"}, "mine"), "cancel", dry_run=True)
    assert (mine.count, mine.others, mine.other_sessions) == (1, 0, 0)
    assert "session" not in str(mine)


def test_a_session_of_which_nothing_matches_says_how_many_of_others_do(records: FakeSessions):
    failed = {"state": "failed"}
    nobody = select(records, in_session(records, failed, "0" * 16), "cancel", dry_run=True)
    assert (nobody.count, nobody.elsewhere) == (0, 4)
    assert repr(nobody) == "<would cancel 0 tasks of this session; 4 of others match>"
    one = {"msg_id": f"{SECOND}-3"}
    assert str(select(records, in_session(records, one, "mine"), "cancel", dry_run=False)) == (
        "cancel: 0 tasks of this session; 1 of others matches"
    )
    neither = select(records, in_session(records, {"state": "aborted"}, "mine"), "cancel", dry_run=True)
    assert str(neither) == "would cancel 0 tasks"


def test_a_query_that_has_itself_in_it_is_refused(records: FakeSessions):
    query: dict[str, Any] = {"metadata": {}}
    query["metadata"]["again"] = query
    with pytest.raises(QueryError, match="the query is nested more than 100 levels deep"):
        in_session(records, query, None)
