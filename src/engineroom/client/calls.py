"""Which tasks make one result: noted in the first of them when they are submitted, and read from records later.

So a session that is opened again has the results that it had. Pure: tasks and records in, values out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..ids import TaskId, client_of
from ..messages import Call

#: The keys of records that `calls_in` needs.
KEYS = ["header", "submitted", "label", "function_name", "completed"]


class FoundCall(msgspec.Struct):
    """The tasks of one result, from their records.

    Attributes
    ----------
    ids : list of str
        The msg_ids, in order.
    shape : "single", or as in `messages.Call`
    sizes : dict or None
        Of a map: how many items a task has, where that is not one.
    missing : int
        Of a map: items that its client had not submitted when it ended.
    """

    ids: list[TaskId]
    shape: str
    name: str
    label: str | None
    labels: set[str | None]
    sizes: dict[TaskId, int] | None = None
    missing: int = 0
    #: whether all tasks had ended when the records were read
    ended: bool = False
    #: whether all tasks have a record
    whole: bool = True


def number_of(id: TaskId) -> int:
    """The number in a msg_id."""
    return int(id.rpartition("-")[2])


def call_of(ids: Sequence[TaskId], shape: str, sizes: Mapping[TaskId, int], first: TaskId | None, items: int) -> Call:
    """What the first of these tasks carries. Of a map that grows, `first` is its very first task."""
    numbers: list[tuple[int, int]] = []
    for number in map(number_of, ids):
        if numbers and number == sum(numbers[-1]):
            numbers[-1] = (numbers[-1][0], numbers[-1][1] + 1)
        else:
            numbers.append((number, 1))
    runs: list[tuple[int, int]] = []
    if sizes:
        runs = [(size, len(list(alike))) for size, alike in itertools.groupby(sizes.get(id, 1) for id in ids)]
    return Call(tuple(numbers), shape, tuple(runs), None if first is None else number_of(first), items)


def calls_in(records: Iterable[Mapping[str, Any]]) -> list[FoundCall]:
    """The results of a session, or of several, from the records of their tasks; in the order of submission."""
    known = {record["msg_id"]: record for record in records}
    found: list[FoundCall] = []
    #: first task of a map that grows → its call
    growing: dict[TaskId, FoundCall] = {}
    taken: set[TaskId] = set()
    for id, record in known.items():
        if id in taken:
            continue
        noted = _noted(record)
        name, label = _name_of(record), record.get("label")
        if noted is None:
            found.append(FoundCall([id], "single", name, label, {label}))
            continue
        session = client_of(id)
        all_ids = [TaskId(f"{session}-{first + step}") for first, count in noted.numbers for step in range(count)]
        sizes = dict(zip(all_ids, itertools.chain(*([size] * count for size, count in noted.sizes)), strict=False))
        ids = [other for other in all_ids if other in known]  # others have been purged
        taken.update(ids)
        labels = {known[other].get("label") for other in ids}
        first = id if noted.first is None else TaskId(f"{session}-{noted.first}")
        before = growing.get(first) if noted.first is not None else None
        if before is None:
            before = FoundCall(ids, noted.shape, name, label, labels, sizes or None, noted.items)
            found.append(before)
            if noted.first is not None:
                growing[first] = before
        else:
            before.ids += ids
            before.labels |= labels
            before.sizes = {**(before.sizes or {}), **sizes} or None
        before.whole &= len(ids) == len(all_ids)
        if noted.items:
            before.missing = noted.items - sum((before.sizes or {}).get(other, 1) for other in before.ids)
    for call in found:
        call.ended = all(known[id].get("completed") is not None for id in call.ids)
    return found


def _noted(record: Mapping[str, Any]) -> Call | None:
    noted = (record.get("header") or {}).get("call")
    try:
        return None if noted is None else msgspec.convert(noted, Call)
    except msgspec.ValidationError:  # somebody has changed the record
        return None


def _name_of(record: Mapping[str, Any]) -> str:
    kind = str((record.get("header") or {}).get("msg_type", "")).removesuffix("_request")
    return record.get("function_name") or kind or "task"
