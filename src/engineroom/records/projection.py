"""Records with the keys that were asked for: dotted ones, as `"metadata.run"`, and other spellings of a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .fields import ALIASES
from .record import TaskRecord


def whole_keys(keys: Sequence[str]) -> list[str]:
    """The keys of the record that these dotted keys reach into, each once."""
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def is_projection(keys: Sequence[str] | None) -> bool:
    """Whether one of the keys reaches into a value, or is another spelling of a key: "error"."""
    return keys is not None and any("." in key or key in ALIASES for key in keys)


def part_of(record: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key. A name reaches into each element of a list, a number takes one; None: not there."""
    top, *path = key.split(".")
    return _follow(record[top], path)


def _follow(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return _follow(value.get(first), rest)
    if isinstance(value, list | tuple):
        if first.isdecimal():
            return _follow(value[int(first)], rest) if int(first) < len(value) else None
        return [_follow(item, path) for item in value]
    return None


def projected(record: TaskRecord, keys: Sequence[str]) -> TaskRecord:
    """A record with these keys, as they were asked for, and its msg_id."""
    return TaskRecord({key: part_of(record, key) for key in dict.fromkeys(["msg_id", *keys])})
