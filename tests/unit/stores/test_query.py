"""What queries mean, corner by corner, as MongoDB has it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from engineroom.errors import QueryError
from engineroom.records.fields import BULKY, KEYS
from engineroom.stores.query import values
from engineroom.stores.query.arguments import parse_keys
from engineroom.stores.query.match import compile
from engineroom.stores.query.order import sort_key
from engineroom.stores.query.parse import parse

NAN = float("nan")
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


def matches(query: dict[str, Any], record: dict[str, Any]) -> bool:
    return compile(parse(query))(record)


# condition on `content.v` │ values of v that match │ values that do not; `...` is: no v at all
SEMANTICS: list[tuple[Any, list[Any], list[Any]]] = [
    (1, [1, 1.0, [1], [0, 1]], [True, "1", None, ..., [[1]], 2]),
    (True, [True, [True]], [1, "true"]),
    (None, [None, ..., [None]], [0, "", [], {}, False]),
    ("a", ["a", ["b", "a"]], ["A", b"a", ["ab"]]),
    (b"a", [b"a"], ["a", b"b"]),
    (NAN, [NAN, [NAN]], [0, None]),
    ([1, 2], [[1, 2], [1.0, 2], [[1, 2], 3]], [[2, 1], [1, 2, 3], 1]),
    ([], [[], [[]], [1, []]], [None, ..., [None], {}]),
    ({}, [{}, [{}]], [None, ..., [], {"x": 1}]),
    ({"x": 1, "y": 2}, [{"x": 1, "y": 2}, {"x": 1.0, "y": 2}], [{"y": 2, "x": 1}, {"x": 1}, {"x": 1, "y": 2, "z": 3}]),
    (NOON, [NOON, NOON.astimezone(timezone(timedelta(hours=5)))], [NOON + timedelta(microseconds=1), NOON.timestamp()]),
    (NOON.astimezone().replace(tzinfo=None), [NOON], []),  # naive: local time
    ({"$ne": 1}, [2, "1", None, ..., [], [2]], [1, 1.0, [1, 2]]),
    ({"$ne": None}, [0, [], ""], [None, ..., [None]]),
    ({"$gt": 1}, [2, 1.5, [0, 2], float("inf")], [1, "2", None, ..., True, NAN, [1], NOON, {}]),
    ({"$ge": 1}, [2], [1]),
    ({"$le": 1}, [0], [1]),
    ({"$gte": None}, [None, ..., [None]], [0, ""]),
    ({"$lt": None}, [], [None, ..., 0]),
    ({"$lte": NAN}, [NAN], [0, float("-inf")]),
    ({"$lt": NAN}, [], [NAN, 0]),
    ({"$gt": "a"}, ["b", "aa", "ü", ["", "b"]], ["a", "B", 1, b"b"]),
    ({"$gt": False}, [True], [False, 1, "x"]),
    ({"$gt": b"b"}, [b"c", b"aa"], [b"a", b"b", "c"]),  # longer is later
    ({"$gt": [1, 2]}, [[1, 3], [2], [1, 2, 0]], [[1, 2], [1], 5, [1, 1.9]]),
    ({"$gt": {"x": 1}}, [{"x": 2}, {"y": 1}, {"x": "a"}], [{"x": 1}, {}, {"x": None}, 7]),
    ({"$gte": 1, "$lte": 3}, [2, [0, 5]], [0, 5]),  # each may be met by another element
    ({"$not": {"$gt": 1}}, [1, "x", None, ..., NAN], [2, [0, 2]]),
    ({"$not": re.compile("a")}, ["b", 5, ...], ["cat"]),
    ({"$in": [1, None]}, [1, None, ..., [1]], [0, []]),
    ({"$in": []}, [], [1, None, ...]),
    ({"$in": [re.compile("^a"), 5]}, ["ab", 5, ["ab"]], ["ba", 6]),
    ({"$in": [[1], {}]}, [[1], {}, [[1]]], [1, []]),
    ({"$nin": [1, None]}, [0, [], "x"], [1, None, ..., [2, 1]]),
    ({"$all": [1, 2]}, [[2, 1, 3]], [[1], 1, [], None]),
    ({"$all": [1]}, [1, [1]], [2]),
    ({"$all": []}, [], [[], 1, None, ...]),
    ({"$all": [[1, 2]]}, [[1, 2], [[1, 2], 3]], [[2, 1]]),
    ({"$all": [{"$elemMatch": {"x": 1}}, {"$elemMatch": {"x": 2}}]}, [[{"x": 1}, {"x": 2}]], [[{"x": 1}]]),
    ({"$mod": [3, 1]}, [1, 4, 4.9, [4]], [-2, 3, "4", None, ..., True, NAN, float("inf")]),
    ({"$mod": [3, -2]}, [-5, -2], [1, 4]),
    ({"$exists": True}, [1, None, []], [...]),
    ({"$exists": False}, [...], [1, None]),
    ({"$size": 2}, [[1, 2], [[], None]], [[], [1], 2, "ab", {"a": 1, "b": 2}, [[1, 2]]]),
    ({"$type": "string"}, ["", ["a"]], [1, b"", ...]),
    ({"$type": "array"}, [[], [1]], [1]),
    ({"$type": 10}, [None, [None]], [..., 0]),
    ({"$type": "int"}, [1, -(1 << 31)], [1.0, True, 1 << 31]),
    ({"$type": "long"}, [1 << 31], [1]),
    ({"$type": ["number", "bool"]}, [1, 1.5, True, 1 << 40], ["1", NOON]),
    ({"$type": 9}, [NOON], [5]),
    ({"$regex": "b.d"}, ["abcd", ["x", "bad"]], ["b\nd", "BAD", 5, None]),
    ({"$regex": "^B.D$", "$options": "is"}, ["b\nd"], ["abd"]),
    (re.compile("b", re.IGNORECASE), ["aBc"], ["x"]),
    ({"$glob": "fit_*"}, ["fit_", "fit_12"], ["a fit_1", "FIT_1", 5]),
    ({"$glob": "*.[ch]"}, ["a.c"], ["a.py", "a.cc"]),
    ({"$elemMatch": {"$gt": 1, "$lt": 5}}, [[3], [0, 4]], [[0, 7], 3, [], None, [[3]]]),
    ({"$elemMatch": {"x": 1, "y": None}}, [[{"x": 1}], [{"x": [1], "y": None}]], [{"x": 1}, [{"x": 1, "y": 2}]]),
    ({"$elemMatch": {"0": 5}}, [[[5, 6]]], [[5], [[6]]]),
    ({"$elemMatch": {"$or": [{"x": 1}, {"x": 2}]}}, [[{"x": 2}]], [[{"x": 3}]]),
    ({"$elemMatch": {}}, [[{}], [[1]]], [[], [1], {}]),
]

CASES = [(condition, value, True) for condition, yes, _ in SEMANTICS for value in yes]
CASES += [(condition, value, False) for condition, _, no in SEMANTICS for value in no]


@pytest.mark.parametrize(("condition", "value", "expected"), CASES, ids=repr)
def test_one_value(condition: Any, value: Any, expected: bool) -> None:
    record = {"content": {} if value is ... else {"v": value}}
    assert matches({"content.v": condition}, record) is expected
    if isinstance(condition, dict) and any(key.startswith("$") for key in condition):
        assert matches({"content.v": {"$not": condition}}, record) is not expected
    assert matches({"$nor": [{"content.v": condition}]}, record) is not expected


# query │ value of `content` │ matches?
PATHS: list[tuple[dict[str, Any], Any, bool]] = [
    ({"content.a.b": 1}, {"a": {"b": 1}}, True),
    ({"content.a.b": 1}, {"a": [{"b": 2}, {"b": 1}]}, True),
    ({"content.a.b": 1}, {"a": [[{"b": 1}]]}, False),  # only one level of arrays is looked through
    ({"content.a.0": 1}, {"a": [1, 2]}, True),
    ({"content.a.1": 1}, {"a": [1, 2]}, False),
    ({"content.a.0": 1}, {"a": {"0": 1}}, True),
    ({"content.a.0": 1}, {"a": [{"0": 1}]}, True),  # an index, or the name of a key
    ({"content.a.0.b": 1}, {"a": [{"b": 1}]}, True),
    ({"content.a.0.b": 1}, {"a": [[{"b": 1}]]}, True),
    ({"content.a.00": 1}, {"a": [1]}, False),
    ({"content.a.0": 1}, {"a": [[1]]}, False),
    ({"content.a.b": None}, {"a": 5}, True),
    ({"content.a.b": None}, {}, True),
    ({"content.a.b": None}, {"a": []}, False),
    ({"content.a.b": None}, {"a": [5]}, False),
    ({"content.a.b": None}, {"a": [{"b": 1}, {}]}, True),
    ({"content.a.b": {"$ne": None}}, {"a": [{"b": 1}, {}]}, False),
    ({"content.a.b": {"$exists": False}}, {"a": [{"b": 1}, {}]}, False),
    ({"content.a.b": {"$exists": True}}, {"a": []}, False),
    ({"content.a.b": {"$size": 1}}, {"a": [{"b": [7]}]}, True),
    ({"content.a.b": {"$elemMatch": {"$eq": 7}}}, {"a": [{"b": [7]}]}, True),
    ({"content.a": {"$elemMatch": {"b.c": 7}}}, {"a": [{"b": [{"c": 7}]}]}, True),
    ({"content": {"a": 1}}, {"a": 1}, True),
    ({"content": None}, None, True),
    ({}, None, True),
    ({"$or": [{"content.a": 1}, {"content.a": 2}], "content.b": None}, {"a": 2}, True),
    ({"$and": [{"content.a": 1}, {"content.a": 2}]}, {"a": [1, 2]}, True),
]


@pytest.mark.parametrize(("query", "content", "expected"), PATHS, ids=repr)
def test_paths(query: dict[str, Any], content: Any, expected: bool) -> None:
    assert matches(query, {"content": content}) is expected


# query │ part of the message
REFUSED: list[tuple[Any, str]] = [
    ({"sumbitted": 1}, "unknown key 'sumbitted'; did you mean 'submitted'?"),
    ({"result_contents.ename": "x"}, "did you mean 'result_content'?"),
    ({"state": {"$regx": "x"}}, "unknown operator '$regx'; did you mean '$regex'?"),
    ({"state": {"$EQ": "x"}}, "did you mean '$eq'?"),
    ({"$xor": []}, "did you mean '$or'?"),
    ({"$gt": 5}, "belongs inside"),
    ({"$or": []}, "$or takes a list"),
    ({"$and": {"state": 1}}, "$and takes a list"),
    ({"$or": ["state"]}, "a query must be a dict"),
    ({5: 1}, "a key must be a str"),
    ({"header.": 1}, "empty part"),
    ({"state": {"$in": "abc"}}, "$in takes a list"),
    ({"state": {"$nin": None}}, "$nin takes a list"),
    ({"state": {"$all": 1}}, "$all takes a list"),
    ({"engine_id": {"$mod": [0, 1]}}, "divisor"),
    ({"engine_id": {"$mod": [2]}}, "[divisor, remainder]"),
    ({"engine_id": {"$mod": [2, "1"]}}, "[divisor, remainder]"),
    ({"state": {"$exists": "yes"}}, "$exists takes True or False"),
    ({"attempts": {"$size": -1}}, "$size takes"),
    ({"attempts": {"$size": 1.5}}, "$size takes"),
    ({"state": {"$type": "str"}}, "did you mean 'string'?"),
    ({"state": {"$type": 99}}, "unknown type 99"),
    ({"state": {"$not": "x"}}, "use $ne"),
    ({"state": {"$not": {}}}, "$not takes"),
    ({"attempts": {"$elemMatch": 1}}, "$elemMatch takes a dict"),
    ({"state": {"$regex": "("}}, "not a regular expression"),
    ({"state": {"$regex": 5}}, "$regex takes"),
    ({"state": {"$regex": "x" * 1001}}, "at most 1000"),
    ({"state": {"$regex": "x", "$options": "q"}}, "unknown letter 'q'"),
    ({"state": {"$options": "i"}}, "needs a $regex"),
    ({"state": {"$glob": 5}}, "$glob takes a str"),
    ({"state": {"$gt": 1, "plain": 2}}, "mixes"),
    ({"header": {"label": {"$gt": 1}}}, "dotted key"),
    ({"state": {1, 2}}, "type set"),
    ({"engine_id": 1 << 64}, "64 bits"),
    ({"state": {"$gt": 1j}}, "type complex"),
    ("state", "a query must be a dict"),
]


@pytest.mark.parametrize(("query", "message"), REFUSED, ids=repr)
def test_nonsense_is_refused_with_a_hint(query: Any, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert message in str(caught.value)


def test_deep_queries_are_refused() -> None:
    query: dict[str, Any] = {"state": 1}
    for _ in range(100):
        query = {"$and": [query]}
    with pytest.raises(QueryError, match="nested"):
        parse(query)


@pytest.mark.parametrize("kind", [dict, list])
def test_values_that_are_nested_too_deep_are_refused(kind: type):
    value: Any = 1
    for _ in range(600):
        value = {"a": value} if kind is dict else [value]
    for condition in (value, {"$gt": value}, {"$in": [value]}):
        with pytest.raises(QueryError, match=r"metadata.* is nested more than 100 levels deep"):
            parse({"metadata": condition})


def test_aliases_are_understood() -> None:
    assert parse({"execute_input": 1, "error.ename": "E"}) == parse({"pyin": 1, "pyerr.ename": "E"})


def test_keys() -> None:
    assert parse_keys(None) == [key for key in KEYS if key not in BULKY]
    assert parse_keys("state") == ["msg_id", "state"]
    assert parse_keys(["error", "buffers"]) == ["msg_id", "pyerr", "buffers"]
    assert parse_keys([]) == ["msg_id"]
    with pytest.raises(QueryError, match="did you mean 'buffers'"):
        parse_keys(["bufers"])


def test_types_sort_in_mongodbs_order() -> None:
    ordered = [[], None, NAN, float("-inf"), -1, 0.5, 2, "", "B", "a", {}, {"x": 1}, {"x": 2}, {"x": ""}, [{"y": 0}],
               b"", b"b", b"aa", False, True, NOON, NOON + timedelta(1)]  # fmt: skip
    keys = [sort_key({"pyout": value}, ("pyout",), False) for value in ordered]
    assert keys[:14] == sorted(keys[:14])
    assert keys[15:] == sorted(keys[15:])


def test_an_array_sorts_by_its_least_or_greatest_element() -> None:
    record = {"content": {"a": [{"b": 3}, {"b": [1, 5]}]}}
    assert sort_key(record, ("content", "a", "b"), descending=False) == sort_key({"pyout": 1}, ("pyout",), False)
    assert sort_key(record, ("content", "a", "b"), descending=True) == sort_key({"pyout": 5}, ("pyout",), False)


@pytest.mark.parametrize(
    "pattern",
    ["(?:(?:a{1000}){1000}){1000}", "a{100000000}", "(?:a{500}b{500}){50}", "(?:abc){0,9999}", "(a(?R)?b)", "(a)(?1)"],
)
def test_a_pattern_that_takes_much_memory_is_refused(pattern: str) -> None:
    """The first one took all memory of the controller while it was compiled."""
    with pytest.raises(QueryError, match=r"is not a regular expression: (with its repetitions|a pattern cannot refer)"):
        parse({"label": {"$regex": pattern}})


@pytest.mark.parametrize(
    "pattern",
    [
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}",
        "(?:[a-z]{1,100},){1,100}",
        "[(?R)]{3}",
        r"\(?R\)",
        "a{1000}",
        "{a}{",
    ],
)
def test_patterns_with_repetitions_are_taken(pattern: str) -> None:
    parse({"label": {"$regex": pattern}})


@pytest.mark.parametrize("seconds", [0.0, 1e-6, -1e-6, 0.25, 1000.0, 1.8e9, 1.8e9 + 1e-6, -6.2e10, 2.5e11])
def test_an_instant_is_a_few_floats_around_it_and_is_found_in_a_few_steps_at_the_epoch_too(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(datetime):
        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            made.append(timestamp)
            assert len(made) < 1000, "too many steps"
            return datetime.fromtimestamp(timestamp, tz)

    moment = datetime.fromtimestamp(seconds, UTC)
    monkeypatch.setattr(values, "datetime", Counted)
    first, last = values.seconds_of(moment)
    for inside in (first, last):
        assert datetime.fromtimestamp(inside, UTC) == moment
    for outside in (math.nextafter(first, -math.inf), math.nextafter(last, math.inf)):
        assert datetime.fromtimestamp(outside, UTC) != moment
