"""Finds and drops unreferenced functions, clients, environments and engines: no record refers to them any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..base import References, TaskStore


def find_unreferenced(store: TaskStore) -> Iterator[References | None]:
    """Unreferenced functions and the like, a piece of the scan at each `next`; None: this piece found none.

    The caller must not drop what records have begun to use since the scan started.
    """
    used: list[set[Any]] = [set() for _ in References.__struct_fields__]
    for piece in store.used_references():
        for found, some in zip(used, msgspec.structs.astuple(piece), strict=True):
            found |= some
        yield None
    for piece in store.stored_references():
        parts = zip(msgspec.structs.astuple(piece), used, strict=True)
        yield References(*[some - found for some, found in parts])


def drop_unreferenced(store: TaskStore) -> int:
    """Drop everything unreferenced; returns how many functions were dropped.

    Nobody else may write to the store meanwhile.
    """
    return sum(store.drop_references(unused) for unused in find_unreferenced(store) if unused)
