"""Records as MongoDB's documents, and queries as its server understands them.

A document is the record, key for key, so that queries work on it as they are. Beside it stand

    _id        the msg_id
    _seconds   the four times as seconds: a BSON date has milliseconds, a record microseconds
    _task      what an `Entry` has that a record does not, in short form; None for records added as dicts
    _apart     keys whose values are too large for a document: they are kept in the chunks, here stands a substitute
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ...errors import QueryError
from ...ids import ClientId, Digest, EngineId, TaskId
from ...messages import TaskDone, TaskOptions, TaskSpec
from ...records.record import COMPLETED, KEYS, PENDING, TIMES, Entry, TaskRecord, document, duration_of, instant
from ..query.parse import (  # fmt: skip
    AllOf,
    Compare,
    Eq,
    Exists,
    In,
    Not,
    Path,
    Test,
    Type,
    glob_regex,
    parse_condition,
    parse_path,
    pattern_of,
)
from ..query.values import DATE, NULL, plain, rank, seconds_of
from ..sqlite.packing import pack, unpack
from ..sqlite.rows import Outcome, blank

Document = dict[str, Any]

#: Bytes of a document's large parts, above which they are kept apart. A document may have 16 MB.
APART_ABOVE = 4 << 20

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_options = msgspec.msgpack.Decoder(TaskOptions).decode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode

_BUFFERS = ("buffers", "result_buffers")
_BLANK: Document = dict.fromkeys(KEYS)
#: Keys that hold what users chose; a server may refuse it.
_FREE = ("metadata", "header", "content", "result_content", "pyin", "pyout", "pyerr", "stdout", "stderr", "attempts",
         "result_header", "result_metadata")  # fmt: skip

#: What an outcome changes.
_OUTCOME = (
    "state", "started", "completed", "received", "duration", "engine_uuid", "engine_id", "attempts", "result_header",
    "result_metadata", "result_content", "pyout", "pyerr", "stdout", "stderr", "result_buffers", "cached_from",
    "_seconds", "_task",
)  # fmt: skip
_STATUSES = {"completed": "ok", "failed": "error", "aborted": "aborted"}


# ---------------------------------------------------------------------------------------------- records → documents


def document_of(entry: Entry) -> tuple[Document, dict[str, bytes]]:
    """The document of an entry, and what is to be kept apart."""
    spec, done, options = entry.spec, entry.done, entry.spec.options
    if _is_plain(entry):
        return _plain_document(entry), {}
    record = document(entry)
    seconds = {
        "submitted": spec.submitted,
        "started": done.started if done else None,
        "completed": done.completed if done else None,
        "received": entry.received,
        "attempts": _attempt_seconds(record["attempts"]),
    }
    task: Document = {"kind": spec.kind, "target": spec.engine, "inline": bool(spec.payload) or not entry.frames}
    if options is not None:
        task["options"] = _encode(options)
    if done is not None:
        task |= {"attempt": done.attempt, "result_inline": bool(done.payload) or not entry.result_frames}
        if entry.host:
            task["host"] = entry.host
        if done.peak_memory is not None:
            task["peak_memory"] = done.peak_memory
    if entry.attempts is not None or (done is not None and (done.error is not None or done.content)):
        task["outcome"] = _encode(
            Outcome(done.error if done else None, (done.content if done else None) or None, entry.attempts)
        )
    return with_large_apart({"_id": spec.id, **to_bson(record), "_seconds": seconds, "_task": task, "_apart": None})


def _is_plain(entry: Entry) -> bool:
    """Whether a task is as most are: a call without options or large buffers, that has not failed."""
    spec, done = entry.spec, entry.done
    return (
        spec.options is None
        and spec.kind == "apply"
        and not entry.frames
        and entry.attempts is None
        and len(spec.payload) <= APART_ABOVE
        and (
            done is None
            or (
                done.status == "ok"
                and done.started is not None
                and done.error is None
                and not done.content
                and not entry.result_frames
                and len(done.payload) + len(done.stdout) + len(done.stderr) <= APART_ABOVE
            )
        )
    )


def _plain_document(entry: Entry) -> Document:
    """The document of a plain entry: what `document_of` makes of any, in a third of the time."""
    spec, done, client, engine_uuid = entry.spec, entry.done, entry.client, entry.engine_uuid
    at, task = spec.submitted, {"kind": "apply", "target": spec.engine, "inline": True}
    made: Document = {
        **_BLANK,
        "_id": spec.id,
        "msg_id": spec.id,
        "state": PENDING,
        "header": {"msg_id": spec.id, "msg_type": "apply_request", "session": client},
        "content": {},
        "metadata": {},
        "submitted": instant(at),
        "received": instant(entry.received),
        "client_uuid": client,
        "engine_uuid": engine_uuid,
        "queue": "task" if spec.engine < 0 else "mux",
        "function": spec.function.hex() or None,
        "function_name": entry.function_name,
        "environment": entry.environment,
        "pinned": False,
        "attempts": [],
        "stdout": "",
        "stderr": "",
        "buffers": [spec.payload],
        "_seconds": {"submitted": at, "started": None, "completed": None, "received": entry.received, "attempts": []},
        "_task": task,
        "_apart": None,
    }
    if done is None:
        return made
    begun, ended, engine = done.started, done.completed, done.engine
    assert begun is not None
    started, completed = instant(begun), instant(ended)
    task |= {"attempt": done.attempt, "result_inline": True}
    if entry.host:
        task["host"] = entry.host
    if done.peak_memory is not None:
        task["peak_memory"] = done.peak_memory
    attempt = {
        "number": done.attempt,
        "engine_id": engine,
        "engine_uuid": engine_uuid,
        "host": entry.host,
        "started": started,
        "ended": completed,
        "cause": "ok",
        "peak_memory": done.peak_memory,
        "traceback": None,
    }
    made |= {
        "state": COMPLETED,
        "started": started,
        "completed": completed,
        "duration": ended - begun,
        "engine_id": engine if engine >= 0 else None,
        "cached_from": done.cached_from,
        "attempts": [attempt],
        "result_header": {"msg_type": "apply_reply", "status": "ok", "engine": engine_uuid},
        "result_metadata": {},
        "result_content": {"status": "ok"},
        "stdout": done.stdout,
        "stderr": done.stderr,
        "result_buffers": [done.payload],
        "_seconds": {
            "submitted": at,
            "started": begun,
            "completed": ended,
            "received": entry.received,
            "attempts": [begun, ended],
        },
    }
    return made


def added_document(msg_id: TaskId, record: Mapping[str, Any]) -> tuple[Document, dict[str, bytes]]:
    """The document of a record that was given as a dict, in canonical form."""
    whole = {**blank(), **record, "msg_id": msg_id}
    seconds = {key: None if whole[key] is None else whole[key].timestamp() for key in sorted(TIMES)}
    whole["duration"] = duration_of(seconds["started"], seconds["completed"])
    seconds["attempts"] = _attempt_seconds(whole["attempts"])
    return with_large_apart({"_id": msg_id, **to_bson(whole), "_seconds": seconds, "_task": None, "_apart": None})


def changes_of(changes: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[Document, dict[str, bytes], list[str]]:
    """A $set for some changed keys, what of them is to be kept apart, and what need not be kept apart any more."""
    made, apart = with_large_apart({**to_bson(changes), "_apart": None})
    del made["_apart"]
    seconds = dict(old["_seconds"])
    for key in TIMES & changes.keys():
        seconds[key] = made[f"_seconds.{key}"] = None if changes[key] is None else changes[key].timestamp()
    if "attempts" in changes:
        made["_seconds.attempts"] = _attempt_seconds(changes["attempts"])
    made["duration"] = duration_of(seconds["started"], seconds["completed"])
    before = set(old.get("_apart") or ())
    made["_apart"] = sorted((before - changes.keys()) | apart.keys()) or None
    return made, apart, sorted(before & changes.keys() - apart.keys())


def outcome_of(document: Document) -> Document:
    """Of a finished task's document what a pending one lacks."""
    changes = {key: document[key] for key in _OUTCOME}
    del changes["_seconds"], changes["_task"]
    changes |= {
        f"_seconds.{key}": document["_seconds"][key] for key in ("started", "completed", "received", "attempts")
    }
    changes |= {
        f"_task.{key}": document["_task"][key]
        for key in ("attempt", "result_inline", "outcome", "host", "peak_memory")
        if key in document["_task"]
    }
    return changes


def with_large_apart(document: Document, free: bool = False) -> tuple[Document, dict[str, bytes]]:
    """Take large values out of a document; with `free` all that users chose."""
    apart: dict[str, bytes] = {}
    for key in _BUFFERS:
        value = document.get(key)
        if value and sum(len(part) for part in value if part is not None) > APART_ABOVE:
            apart[key] = pack(value)
            document[key] = [None] * len(value)
    for key in _FREE:
        value = document.get(key)
        if value and (free or (isinstance(value, str) and len(value) > APART_ABOVE)):
            apart[key] = _encode(from_bson(value))
            document[key] = None
    if apart:
        document["_apart"] = sorted({*(document["_apart"] or ()), *apart})
    return document, apart


_ATTEMPT_TIMES = ("started", "ended")


def _attempt_seconds(attempts: Sequence[Any] | None) -> list[float | None]:
    """The times in attempts, which a BSON date would round, in one flat list."""
    found = [a.get(key) if isinstance(a, dict) else None for a in attempts or () for key in _ATTEMPT_TIMES]
    return [time.timestamp() if isinstance(time, datetime) else None for time in found]


def _with_times(attempts: Any, seconds: Sequence[float | None]) -> Any:
    for number, value in enumerate(seconds):
        if value is not None:
            attempts[number // 2][_ATTEMPT_TIMES[number % 2]] = instant(value)
    return attempts


def to_bson(value: Any) -> Any:
    """A value as a document holds it: keys of dicts without dots and dollars, which MongoDB reads as paths."""
    if isinstance(value, dict):
        return {_key(name): to_bson(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_bson(item) for item in value]
    return value


_NOT_IN_KEYS = str.maketrans({".": "\uff0e", "$": "\uff04", "\0": "\u2400"})
_IN_KEYS = str.maketrans({"\uff0e": ".", "\uff04": "$", "\u2400": "\0"})


def _key(name: str) -> str:
    return name.translate(_NOT_IN_KEYS) if "." in name or "$" in name or "\0" in name else name


# ---------------------------------------------------------------------------------------------- documents → records


def from_bson(value: Any) -> Any:
    """A value as a record holds it."""
    if isinstance(value, dict):
        return {name if name.isascii() else name.translate(_IN_KEYS): from_bson(v) for name, v in value.items()}
    if isinstance(value, list):
        return [from_bson(item) for item in value]
    return int(value) if isinstance(value, int) and type(value) is not bool else value


def record_of(document: Document, apart: Mapping[str, bytes], keys: Iterable[str]) -> TaskRecord:
    """Some keys of the record that a document holds."""
    record = TaskRecord()
    seconds = document["_seconds"]
    for key in keys:
        if key in TIMES:
            record[key] = instant(seconds[key])
        elif key in apart:
            record[key] = unpack(apart[key]) if key in _BUFFERS else _decode(apart[key])
        else:
            record[key] = from_bson(document.get(key))
            if key == "attempts":
                _with_times(record[key], seconds["attempts"])
    return record


def entry_of(document: Document, apart: Mapping[str, bytes]) -> Entry:
    """The entry a document was made of."""
    record, task, seconds = record_of(document, apart, KEYS), document["_task"], document["_seconds"]
    payload, frames = _split(record["buffers"], task["inline"])
    rare = _decode_outcome(task["outcome"]) if task.get("outcome") else Outcome()
    options = _decode_options(task["options"]) if task.get("options") else None
    id, function, engine_id = TaskId(document["_id"]), record["function"] or "", record["engine_id"]
    spec = TaskSpec(
        id, Digest(bytes.fromhex(function)), payload, seconds["submitted"] or 0.0, EngineId(task["target"]),
        tuple(range(len(frames))), options, task["kind"],
    )  # fmt: skip
    done: TaskDone | None = None
    result_frames: tuple[bytes, ...] = ()
    if task.get("attempt") is not None:
        payload, result_frames = _split(record["result_buffers"], task["result_inline"])
        done = TaskDone(
            id, task["attempt"], _STATUSES.get(record["state"], "ok"), seconds["started"],
            seconds["completed"] or 0.0, payload, EngineId(-1 if engine_id is None else engine_id),
            tuple(range(len(result_frames))), record["stdout"] or "", record["stderr"] or "", rare.error, rare.content,
            task.get("peak_memory"), record["cached_from"],
        )  # fmt: skip
    return Entry(
        spec, ClientId(record["client_uuid"]), frames, done, result_frames, seconds["received"],
        record["engine_uuid"], rare.attempts, task.get("host"), record["function_name"], record["environment"],
    )  # fmt: skip


def _split(buffers: Sequence[bytes] | None, inline: bool) -> tuple[bytes, tuple[bytes, ...]]:
    """Buffers as a payload and the frames beside it."""
    if not buffers:
        return b"", ()
    return (buffers[0], tuple(buffers[1:])) if inline else (b"", tuple(buffers))


# ---------------------------------------------------------------------------------------------- queries

NOTHING: Document = {"_id": {"$exists": False}}

_RENAMED = {"$ge": "$gt", "$le": "$lt"}


def relayed(query: Mapping[str, Any]) -> Document:
    """A query, parsed before, as the server gets it: the same, but for what only we say.

    Aliases and old spellings get MongoDB's names, naive datetimes UTC, compiled patterns a form that it reads, and
    conditions on the four times compare seconds.
    """
    parts: list[Document] = []
    for key, value in query.items():
        if key.startswith("$"):
            parts.append({key: [relayed(part) for part in value]})
            continue
        path = parse_path(key)
        if len(path) == 1 and path[0] in TIMES:
            parts += [_on_time(path[0], test) for test in parse_condition(key, value)]
            continue
        if _is_operators(value) and isinstance(value.get("$not"), Mapping):  # $not takes one of each operator, $nor all
            parts.append({"$nor": [relayed({key: value["$not"]})]})
            value = {name: argument for name, argument in value.items() if name != "$not"}
            if not value:
                continue
        parts += [{server_path(path): condition} for condition in _conditions(value)]
    names = [name for part in parts for name in part]
    if len(set(names)) < len(names):
        return {"$and": parts}
    return {name: condition for part in parts for name, condition in part.items()}


def server_path(path: Path) -> str:
    """Where a key stands in a document, to search and to sort by it."""
    if path == ("msg_id",):
        return "_id"
    return f"_seconds.{path[0]}" if len(path) == 1 and path[0] in TIMES else ".".join(map(_key, path))


def _conditions(value: Any) -> list[Any]:
    """Conditions that must all hold, with one operator each."""
    if not _is_operators(value):
        return [_literal(value)]
    options = value.get("$options")
    made: list[Any] = []
    for name, argument in value.items():
        if name == "$regex":
            made.append(_pattern(argument, options))
        elif name == "$glob":
            made.append({"$regex": glob_regex(argument, r"\z")})
        elif name in ("$eq", "$ne") and isinstance(argument, re.Pattern):
            made.append(_pattern(argument, None) if name == "$eq" else {"$not": _pattern(argument, None)})
        elif name == "$not":
            made.append({"$not": _inner(argument)})
        elif name == "$elemMatch":
            made.append({name: _element(argument)})
        elif name == "$all":
            made.append({name: [_all_item(item) for item in argument]})
        elif name != "$options":
            made.append({_RENAMED.get(name, name): _literal(argument)})
    return made


def _inner(value: Any) -> Any:
    """Conditions as one dict, where the server takes no list of them."""
    if isinstance(value, re.Pattern):
        return _pattern(value, None)
    merged: Document = {}
    for condition in _conditions(value):
        if merged.keys() & condition.keys():
            raise QueryError(
                f"{value!r}: two patterns, or the same operator twice, inside $elemMatch: the server takes one"
            )
        merged |= condition
    return merged


def _element(argument: Mapping[str, Any]) -> Document:
    if _is_operators(argument) and next(iter(argument)) not in ("$and", "$or", "$nor"):
        return _inner(argument)  # type: ignore[no-any-return]
    parts: list[Document] = []
    for key, value in argument.items():
        if key.startswith("$"):
            parts.append({key: [_element(part) for part in value]})
        else:
            parts += [{key: condition} for condition in _conditions(value)]
    names = [name for part in parts for name in part]
    return {"$and": parts} if len(set(names)) < len(names) else {k: v for part in parts for k, v in part.items()}


def _all_item(item: Any) -> Any:
    if isinstance(item, Mapping) and len(item) == 1 and "$elemMatch" in item:
        return {"$elemMatch": _element(item["$elemMatch"])}
    return _literal(item)


def _is_operators(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(name.startswith("$") for name in value)


def _pattern(pattern: Any, options: str | None) -> Document:
    text, letters = pattern_of(pattern, options)
    return {"$regex": text, "$options": letters} if letters else {"$regex": text}


def _literal(value: Any) -> Any:
    if isinstance(value, re.Pattern):
        from bson.regex import Regex

        return Regex(*pattern_of(value, None))
    if isinstance(value, list | tuple):
        return [_literal(item) for item in value]
    return to_bson(plain(value, "a value", QueryError))


def _on_time(key: str, test: Test) -> Document:
    """A condition on a time, which is a datetime or None, as one on its seconds."""
    column = f"_seconds.{key}"
    if isinstance(test, Not):
        return {"$nor": [_on_time(key, test.test)]}
    if isinstance(test, AllOf):
        return {"$and": [_on_time(key, part) for part in test.tests]}
    if isinstance(test, In):
        return {"$or": [_on_time(key, Eq(value)) for value in test.values]} if test.values else NOTHING
    if isinstance(test, Exists):
        return {}
    if isinstance(test, Type):
        return {key: {"$type": sorted(test.codes)}}
    if isinstance(test, Eq | Compare):
        if rank(test.value) == NULL:
            return {column: None} if isinstance(test, Eq) else {column: {test.op: None}}
        if rank(test.value) == DATE:
            first, last = seconds_of(test.value)
            if isinstance(test, Eq):
                return {column: {"$gte": first, "$lte": last}}
            return {column: {test.op: last if test.op in ("$lte", "$gt") else first}}
    return NOTHING
