"""The graph of dependencies around a task, or among the tasks of a query: small graphs, to be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UnknownTask
from ..reading.records import Records
from .tasks import named_tasks, query_of

#: Tasks of a graph, at most.
MOST = 300
#: How many steps away from a task others are looked for.
STEPS = 12
#: Options of a task that name others.
WORDS = ("after", "follow", "inputs")

_KEYS = ["state", "label", "function_name", "header", "started", "completed", "submitted"]


def around(records: Records, id: str) -> dict[str, Any]:
    """The graph that a task belongs to: what it waits for, what waits for it, and so on.

    Raises
    ------
    UnknownTask
        There is no such task.
    """
    first = records.find({"msg_id": id}, [*_KEYS, "client_uuid"], None, 1)
    if not first:
        raise UnknownTask(f"no such task: {id}")
    found: dict[str, Any] = {id: first[0]}
    session = first[0]["client_uuid"]
    new = [id]
    for _ in range(STEPS):
        if not new or len(found) >= MOST:
            break
        parents = {parent for task in new for parent in _parents(found[task])} - set(found)
        more = _get(records, {"msg_id": {"$in": sorted(parents)}}) if parents else []
        # Tasks name tasks of their own client. Those that another client has resubmitted are not looked for.
        asked: list[dict[str, Any]] = [
            {f"header.{word}.0": {"$elemMatch": {"$in": new}}} for word in ("after", "follow")
        ]  # fmt: skip
        more += _get(records, {"client_uuid": session, "$or": [*asked, {"header.inputs": {"$in": new}}]})
        new = []
        for record in more:
            if record["msg_id"] not in found and len(found) < MOST:
                found[record["msg_id"]] = record
                new.append(record["msg_id"])
    return _graph(found.values(), len(found) >= MOST)


def among(records: Records, text: str) -> dict[str, Any]:
    """The graph of the tasks that match a query, as the user typed it."""
    found = _get(records, query_of(records, text))
    return _graph(found, len(found) >= MOST)


def _get(records: Records, query: dict[str, Any]) -> list[Any]:
    return records.find(query, _KEYS, [("submitted", 1)], MOST)


def _parents(record: Mapping[str, Any]) -> list[str]:
    header = record["header"] or {}
    return [parent for word in WORDS for parent in named_tasks(header.get(word))]


def _graph(found: Iterable[Mapping[str, Any]], is_cut: bool) -> dict[str, Any]:
    records = {record["msg_id"]: record for record in found}
    edges = {
        (parent, id, word)
        for id, record in records.items()
        for word in WORDS
        for parent in named_tasks((record["header"] or {}).get(word))
        if parent in records
    }
    return {
        "nodes": [
            {"id": id, "state": record["state"], "label": record["label"], "function": record["function_name"],
             "layer": layer}
            for (id, record), layer in zip(records.items(), _layers(list(records), edges), strict=True)
        ],
        "edges": sorted(edges),
        "is_cut": is_cut,
    }  # fmt: skip


def _layers(ids: list[str], edges: Iterable[tuple[str, str, str]]) -> list[int]:
    """For each task how many others must end before it, one after the other."""
    parents: dict[str, list[str]] = {}
    for parent, child, _ in edges:
        parents.setdefault(child, []).append(parent)
    layers = dict.fromkeys(ids, 0)
    for _ in ids:
        deeper = {id: max((layers[p] + 1 for p in parents.get(id, ())), default=0) for id in ids}
        deeper = {id: min(layer, len(ids)) for id, layer in deeper.items()}
        if deeper == layers:
            break
        layers = deeper
    return [layers[id] for id in ids]
