"""Records that users give as dicts: checked, and brought into the form that every backend stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import StoreError
from ..ids import TaskId
from ..records.entry import instant
from ..records.fields import ALIASES, BULKY, FIELD, KEYS, TIMES
from .query.values import plain


def blank() -> dict[str, Any]:
    """A record with every key and no values."""
    return {**dict.fromkeys(KEYS), "pinned": False}


def canonical(record: Mapping[str, Any], msg_id: TaskId) -> dict[str, Any]:
    """A record, or some keys of one, in canonical form; StoreError says what is wrong with it.

    Aliases become keys; values become plain copies; times are rounded to what a column of seconds can hold: exactly a
    microsecond, until the year 2242. `duration` is left out, because it follows from `started` and `completed`.
    """
    found: dict[str, Any] = {}
    for key, value in record.items():
        name = ALIASES.get(key, key)
        if name not in KEYS:
            raise StoreError(f"record {msg_id}: unknown key {key!r}")
        if name == "duration":
            continue
        value = _checked(name, plain(value, f"record {msg_id}: {name}", StoreError), msg_id)
        if name == "pinned":
            value = bool(value)
        elif value is not None and name in TIMES:
            value = instant(value.timestamp())
        found[name] = value
    if found.get("msg_id", msg_id) != msg_id:
        raise StoreError(f"record {msg_id}: its msg_id says {found['msg_id']!r}")
    return found


def _checked(name: str, value: Any, msg_id: TaskId) -> Any:
    """A value of the type that its key has."""
    if value is None:
        return None
    wanted = FIELD[name].type
    if wanted is bool:
        if not isinstance(value, bool):
            raise StoreError(f"record {msg_id}: {name} must be True or False, got {value!r}")
    elif wanted is not object and (not isinstance(value, wanted) or isinstance(value, bool)):
        raise StoreError(f"record {msg_id}: {name} must be {wanted.__name__} or None, got {value!r}")
    if name in BULKY and not all(isinstance(item, bytes) for item in value):
        raise StoreError(f"record {msg_id}: {name} must be a list of bytes")
    return value
