"""Queries, names, times and tables of the command line, without processes."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import cloudpickle
import pytest

from engineroom.cli.text import cut, duration, table, when, wide
from engineroom.errors import QueryError
from engineroom.printable import one_line
from engineroom.reading.query_text import parse_query
from engineroom.reading.records import name_in_pickle
from engineroom.wire.functions import FunctionCache


@pytest.mark.parametrize("text", ['{"state": "failed", "engine_id": null}', "{'state': 'failed', 'engine_id': None}"])
def test_a_query_is_json_or_python(text: str) -> None:
    assert parse_query(text) == {"state": "failed", "engine_id": None}


def test_times_in_queries() -> None:
    ago = parse_query('{"submitted": {"$gt": "-2h"}}')["submitted"]["$gt"]
    assert abs(datetime.now(UTC) - timedelta(hours=2) - ago) < timedelta(minutes=1)
    nested = parse_query('{"$or": [{"started": {"$in": ["2026-01-31"]}}, {"label": "-2h"}]}')["$or"]
    assert nested[0]["started"]["$in"][0] == datetime(2026, 1, 31).astimezone(UTC)
    assert nested[1] == {"label": "-2h"}
    assert parse_query('{"metadata.when": {"$date": "2026-01-31T12:00:00+00:00"}}') == {
        "metadata.when": datetime(2026, 1, 31, 12, tzinfo=UTC)
    }


@pytest.mark.parametrize("text", ["", "{", "[1]", "state", "{'a': print}", '{"submitted": "soon"}', "[" * 5000])
def test_what_is_not_a_query(text: str) -> None:
    with pytest.raises(QueryError):
        parse_query(text)


def test_names_of_functions_are_found_without_unpickling() -> None:
    def inner(x: Any) -> Any:
        return x

    cache = FunctionCache()
    assert name_in_pickle(cache.get(math.sqrt).payload) == "math.sqrt"
    assert name_in_pickle(cache.get(abs).payload) == "abs"
    assert name_in_pickle(cloudpickle.dumps(inner)).endswith("inner")
    assert name_in_pickle(cloudpickle.dumps(lambda x: x)).endswith("<lambda>")
    assert name_in_pickle(cloudpickle.dumps([1, 2])) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0.000085, "85 µs"), (0.0032, "3.2 ms"), (0.25, "250 ms"), (1.5, "1.50 s"), (59.96, "60.0 s"),
        (125, "2 min 05 s"), (12000, "3 h 20 min"), (432000, "5.0 days"), (-1.5, "-1.50 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_relative_while_they_are_near() -> None:
    now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    assert when(now - timedelta(seconds=12), now) == "12 s ago"
    assert when(now - timedelta(minutes=5), now) == "5 min ago"
    assert when(now - timedelta(days=40), now).startswith("2025-12-2")
    assert when(None) == ""


@pytest.mark.parametrize("width", [20, 40, 60, 1000])
def test_a_table_fits(width: int) -> None:
    rows = [["a-17", "failed", "日本語 " * 20, "12"], ["b", "completed", "x" * 300, "7"]]
    for line in table(["ID", "STATE", "TEXT", "N"], rows, right=["N"], width=width):
        assert wide(line) <= max(width, 4 * 6 + 6)


def test_text_of_tasks_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[31m\n\tb\x07") == "a[31m b"
    assert cut("日本語", 5) == "日本…"
