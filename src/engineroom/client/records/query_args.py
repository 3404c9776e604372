"""Arguments of queries, and metadata, checked and in types that can be sent.

Queries are parsed by the controller (`stores/query/parse.py`), which knows the operators. Here only slips are refused
that would match nothing: a time compared with a text, a state that does not exist.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ...errors import ConfigError, QueryError
from ...messages.bounds import MOST_LEVELS
from ...records.fields import ALIASES, NUMBERS, TEXTS, TIMES
from ...records.states import STATES
from ..connection.history import History

#: Keys that hold texts, which may be any (states are checked by themselves).
_TEXTS = TEXTS - {"state"}


def settled(query: Any, depth: int = 0) -> Any:
    """The query with a list for every other iterable that `$in`, `$nin` or `$all` has: it may be read only once.

    `{"engine_uuid": {"$in": map(uuids.get, (3, 4))}}` is a query like any other.

    Raises
    ------
    QueryError
        It is nested too deep.
    """
    if depth > MOST_LEVELS:
        raise QueryError(f"the query is nested more than {MOST_LEVELS} levels deep")
    if isinstance(query, list | tuple):
        return [settled(part, depth + 1) for part in query]
    if not isinstance(query, Mapping):
        return query
    return {
        key: list(value) if _is_list_for(key, value) else settled(value, depth + 1) for key, value in query.items()
    }


def _is_list_for(name: str, value: Any) -> bool:
    """Whether this is what the operator takes as a list. An empty text is one: a manual has `{"$nin": ""}`."""
    is_text = isinstance(value, str | bytes | Mapping)
    is_many = not value if is_text else isinstance(value, Iterable)
    return is_many and name in ("$in", "$nin", "$all")


def plain_query(query: Any) -> dict[str, Any]:
    """A query in types that can be sent: naive datetimes become local times, compiled patterns their text.

    Raises
    ------
    QueryError
        It cannot be sent; or it compares a key with a value of another type (a time with a text); or it names a state
        that does not exist.
    """
    if not isinstance(query, Mapping):
        raise QueryError(f"a query is a dict, got {type(query).__name__}")
    sent: dict[str, Any] = _plain(query, "the query", QueryError, 0)
    _check(sent)
    return sent


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata in types that can be sent; numpy's scalars become Python's.

    Raises
    ------
    ConfigError
        It holds a value that a record cannot hold; the message names it.
    """
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"metadata is a dict or None; got {metadata!r}")
    sent: dict[str, Any] = _plain(metadata, "metadata", ConfigError, 0)
    return sent


def plain_keys(keys: Any) -> list[str] | None:
    """The keys to return, from one key or several; None: the default keys."""
    if keys is None or isinstance(keys, str):
        return keys if keys is None else [keys]
    if isinstance(keys, bytes) or not isinstance(keys, Iterable):
        raise QueryError(f"keys are a key or a list of keys, got {keys!r}")
    return [plain_key(key, "a key") for key in keys]


def plain_key(key: Any, name: str) -> str:
    """One key."""
    if not isinstance(key, str):
        raise QueryError(f"{name} is a str, got {key!r}")
    return text(str(key), name, QueryError)


def plain_sort(sort: Any) -> list[tuple[str, int]] | None:
    """What to sort by: a key, with "-" in front for descending order, or a list of (key, 1 or -1)."""
    if sort is None:
        return None
    if isinstance(sort, str):
        return [(plain_key(sort.removeprefix("-"), "sort"), -1 if sort.startswith("-") else 1)]
    how = f'sort is a key, as "label" or "-label", or a list of (key, 1 or -1); got {sort!r}'
    if not isinstance(sort, list | tuple):
        raise QueryError(how)
    pairs = []
    for item in sort:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise QueryError(how)
        try:
            direction = operator.index(item[1])
        except TypeError:
            raise QueryError(how) from None
        pairs.append((plain_key(item[0], "what to sort by"), direction))
    return pairs or None


def plain_count(name: str, value: Any) -> int | None:
    """A number of records, 0 or more, that fits into 62 bits."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise QueryError(f"{name} is a whole number, got {value!r}") from None
    if isinstance(value, bool) or not 0 <= number < 1 << 62:
        raise QueryError(f"{name} is a whole number, 0 or more, got {value!r}")
    return number


def plain_percentiles(percentiles: Any) -> list[float]:
    """Percentiles as numbers."""
    try:
        if not isinstance(percentiles, str | bytes):
            return [float(percentile) for percentile in percentiles]
    except (TypeError, ValueError):
        pass
    raise QueryError(f"percentiles are a list of numbers from 0 to 100, got {percentiles!r}")


def plain_label(label: Any) -> str | None:
    """A label.

    Raises
    ------
    ConfigError
        It is not a str.
    """
    if label is not None and not isinstance(label, str):
        raise ConfigError(f"a label is a str or None; got {label!r}")
    return label if label is None else text(str(label), "the label", ConfigError)


def _plain(value: Any, where: str, error: type[Exception], depth: int) -> Any:
    if depth > MOST_LEVELS:
        raise error(f"{where:.60}… is nested more than {MOST_LEVELS} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float | bytes):  # numpy's are subclasses, and cannot be sent
        return float(value) if isinstance(value, float) else bytes(value)
    if isinstance(value, str):
        return text(str(value), where, error)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise error(f"{where} has a whole number of more than 64 bits: {value}")
        return int(value)
    if isinstance(value, datetime):
        try:
            return value.astimezone() if value.tzinfo is None else value
        except (ValueError, OverflowError):
            raise error(f"{where} has a time that no clock shows: {value}") from None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise error(f"{where}: keys are strings, got {key!r}")
        return {
            text(key, where, error): _plain(part, f"{where}[{key!r}]", error, depth + 1) for key, part in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset | History):
        return [_plain(part, where, error, depth + 1) for part in value]
    if isinstance(value, re.Pattern):
        flags = "".join(
            letter for letter, flag in (("i", re.I), ("m", re.M), ("s", re.S), ("x", re.X)) if value.flags & flag
        )
        return {"$regex": value.pattern, "$options": flags}
    if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:  # a numpy scalar
        return _plain(value.item(), where, error, depth + 1)
    raise error(
        f"{where} cannot hold {value!r} (a {type(value).__name__}); what can be kept are numbers, text, bytes, "
        "datetimes, lists and dicts"
    )


def text(value: str, where: str, error: type[Exception]) -> str:
    """Text that can be encoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error(f"{where} has text that is not valid Unicode: {value!r}") from None
    return value


def _check(query: Mapping[str, Any]) -> None:
    """Refuse conditions that could never match: surely slips."""
    for key, condition in query.items():
        if key in ("$and", "$or", "$nor") and isinstance(condition, list):
            for part in condition:
                if isinstance(part, Mapping):
                    _check(part)
            continue
        key = ALIASES.get(key, key)
        for argument in _arguments(condition):
            if argument is None:
                continue
            if isinstance(argument, Mapping) and "$regex" in argument and argument is not condition:
                raise QueryError(
                    f"{key}: no list or plain comparison can hold a regular expression; write "
                    f"{{{key!r}: {{'$regex': …}}}}, and join several with $or"
                )
            if key == "state" and argument not in STATES:
                raise QueryError(f"there is no state {argument!r}; there are {', '.join(STATES)}")
            if key in TIMES and isinstance(argument, bool | str | int | float):
                raise QueryError(
                    f"{key} is a time and compares with a datetime, not with {argument!r}: "
                    "datetime.now() - timedelta(hours=2), say"
                )
            if key in _TEXTS and isinstance(argument, bool | int | float | bytes | datetime):
                raise QueryError(f"{key} is a text and compares with a str, not with {argument!r}")
            if key in NUMBERS and isinstance(argument, bool | str | bytes | datetime):
                raise QueryError(f"{key} is a number and compares with one, not with {argument!r}")


def _arguments(condition: Any) -> list[Any]:
    """The values that a condition compares with."""
    if not isinstance(condition, Mapping):
        return [condition]
    found = []
    for name, argument in condition.items():
        if name in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$ge", "$le"):
            found.append(argument)
        elif name in ("$in", "$nin", "$all") and isinstance(argument, list):
            found += argument
    return found
