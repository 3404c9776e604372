"""Queries as text: what is not one is refused with a QueryError."""

from __future__ import annotations

import pytest

from engineroom.errors import QueryError
from engineroom.reading.query_text import parse_query


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "state=failed", "{[]: 1}", "{{}: 1}", "{'label': {[]}}", "{'label': {{}: 1}}", "{1: 2}",
        "{'label': 1 + 2j}", "\0",
        '{"label": ' + "[" * 700 + "]" * 700 + "}",
        '{"label": ' * 700 + "1" + "}" * 700,
        "[" * 100_000,
        "{'label': " + "-" * 100_000 + "1}",
        '{"submitted": {"$gt": "-99999999999999999999d"}}',
    ],
)  # fmt: skip
def test_what_is_no_query_is_a_query_error(text: str):
    with pytest.raises(QueryError):
        parse_query(text)
