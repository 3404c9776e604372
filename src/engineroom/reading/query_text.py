"""Queries as a user writes them: JSON or a Python dict, with times as text."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from ..client.records.query_args import plain_query
from ..errors import QueryError
from ..messages.bounds import MOST_LEVELS
from ..records.fields import TIMES


def parse_query(text: str) -> dict[str, Any]:
    """A MongoDB-style query as a user writes it in a terminal: JSON or a Python literal.

    Times may be written as ISO text ("2026-01-31 14:00"), as an age ("-2h", "-30m", "-7d"), or as {"$date": …}.

    Raises
    ------
    QueryError
        The text is neither JSON nor a Python literal, or not a dict, or `plain_query` refuses the query.
    """
    try:
        query = json.loads(text)
    except (ValueError, RecursionError) as problem:
        try:
            query = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # a TypeError: {[]: 1}
            raise QueryError(
                f'a query is JSON or a Python dict, like \'{{"state": "failed"}}\'; in {text!r}: {problem}'
            ) from None
    if not isinstance(query, dict):
        raise QueryError(f'a query is a dict, like \'{{"state": "failed"}}\'; got {text!r}')
    return plain_query({key: _with_times(value, key in TIMES) for key, value in query.items()})


def _with_times(value: Any, is_time: bool, depth: int = 0) -> Any:
    if depth > MOST_LEVELS:
        return value  # `plain_query` refuses it
    if isinstance(value, dict):
        if set(value) == {"$date"}:
            return moment(str(value["$date"]))
        return {
            key: _with_times(part, (is_time and str(key).startswith("$")) or key in TIMES, depth + 1)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_with_times(part, is_time, depth + 1) for part in value]
    return moment(value) if is_time and isinstance(value, str) else value


_AGE = re.compile(r"-(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """An instant from ISO text (local time unless it says otherwise) or an age."""
    if age := _AGE.fullmatch(text.strip()):
        with contextlib.suppress(OverflowError):  # before the calendar begins
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
    try:
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise QueryError(f"{text!r} is not a time; write 2026-01-31, 2026-01-31T14:00 or -2h") from None
