"""Requests about records with bad parameters: errors for the asker, no bugs of the controller."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.controller.requests.record_requests import FROM_STORE, is_slow, scope_of
from engineroom.controller.storage.pending import Scope
from engineroom.errors import QueryError
from engineroom.ids import ClientId, TaskId
from engineroom.messages import CountRecords, FindRecords, GetFunction, PageRecords, ResultStatus
from engineroom.stores import DictDB


@pytest.mark.parametrize(
    "body",
    [PageRecords({}, None, -5), PageRecords({}, None, 0), FindRecords({}, limit=-5), GetFunction("zz")],
)
def test_bad_parameters_are_query_errors(body: Any) -> None:
    with pytest.raises(QueryError):
        FROM_STORE[type(body)](DictDB(), body, "")


@pytest.mark.parametrize(
    ("body", "scope"),
    [
        (FindRecords({"state": "failed"}), Scope(ClientId("me"))),
        (CountRecords({}), Scope(ClientId("me"))),
        (FindRecords({"msg_id": "a-1", "state": "failed"}), Scope(tasks=frozenset({TaskId("a-1")}))),
        (FindRecords({"msg_id": {"$in": ["a-1", "b-2"]}}), Scope(tasks=frozenset({TaskId("a-1"), TaskId("b-2")}))),
        (FindRecords({"msg_id": {"$in": ["a-1", {"no": "id"}]}}), Scope(ClientId("me"))),
        (FindRecords({"msg_id": {"$ne": "a-1"}}), Scope(ClientId("me"))),
        (FindRecords({"$or": [{"msg_id": "a-1"}, {"state": "failed"}]}), Scope(ClientId("me"))),
        (ResultStatus([TaskId("a-1")]), Scope(tasks=frozenset({TaskId("a-1")}))),
    ],
)
def test_a_question_waits_for_the_tasks_it_names_or_for_those_of_its_client(body: Any, scope: Scope) -> None:
    assert scope_of(body, ClientId("me")) == scope


@pytest.mark.parametrize(
    ("query", "slow"),
    [
        ({"label": {"$regex": "^fit"}}, False),
        ({"label": {"$regex": "(a+)+$"}}, True),
        ({"$or": [{"state": "failed"}, {"stdout": {"$not": {"$regex": "(a|aa)+$"}}}]}, True),
        ({"state": "failed"}, False),
    ],
)
def test_a_regular_expression_that_may_take_any_time_is_slow(query: dict[str, Any], slow: bool) -> None:
    assert is_slow(FindRecords(query)) is slow


def test_a_deep_query_is_no_bug() -> None:
    query: Any = {}
    for _ in range(100_000):
        query = {"$and": [query]}
    assert is_slow(FindRecords(query))
    while query:  # its end would exceed the recursion limit, too
        query = query["$and"].pop()


def test_a_long_query_is_slow() -> None:
    assert is_slow(FindRecords({"label": {"$in": ["x"] * 3000}}))
    assert is_slow(FindRecords({"$or": [{"label": str(number)} for number in range(3000)]}))
    assert is_slow(ResultStatus([TaskId("x")] * 3000))
    assert not is_slow(FindRecords({"msg_id": {"$in": ["x"] * 1000}}))
