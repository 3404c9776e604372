"""Records ⇄ MongoDB's documents.

A document is the record, key for key, so that queries work on it as they are. It has further keys:

    _id        the msg_id
    _seconds   the four times as seconds: a BSON date has milliseconds, a record microseconds
    _task      what an `Entry` has and a record does not, in short form; None for records that were added as dicts
    _apart     keys whose values are too large for a document: they are in the chunks, the document has a substitute
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ...ids import ClientId, Digest, EngineId, TaskId
from ...messages import TaskDone, TaskSpec
from ...records.entry import Entry, duration_of, instant
from ...records.fields import BULKY, FIELDS, KEYS, TIMES, Field
from ...records.record import TaskRecord, document
from ...records.states import COMPLETED, PENDING, STATUS_OF_STATE
from ..canonical import blank
from ..packing import Outcome, decode, decode_options, decode_outcome, encode, pack, unpack

Document = dict[str, Any]

#: Values with more bytes than this are kept apart from the document, which may have 16 MB.
APART_ABOVE = 4 << 20

#: Keys that hold what users chose, or of any length: a server may refuse the document for it.
_FREE = tuple(field.name for field in FIELDS if field.long or field.is_nested)
#: Keys that an outcome changes.
_OUTCOME = tuple(field.name for field in FIELDS if field.outcome)
_SECONDS = [(field.name, field.seconds) for field in FIELDS if field.seconds]


# ---------------------------------------------------------------------------------------------- records → documents


def document_of(entry: Entry) -> tuple[Document, dict[str, bytes]]:
    """The document of an entry, and the values to be kept apart from it."""
    spec, done, options = entry.spec, entry.done, entry.spec.options
    if _is_plain(entry):
        return _plain_document(entry), {}
    record = document(entry)
    seconds: Document = {name: value(entry) for name, value in _SECONDS}
    seconds["attempts"] = _attempt_seconds(record["attempts"])
    task: Document = {"kind": spec.kind, "target": spec.engine, "inline": bool(spec.payload) or not entry.frames}
    if options is not None:
        task["options"] = encode(options)
    if entry.host:
        task["host"] = entry.host
    if done is not None:
        task |= {"attempt": done.attempt, "result_inline": bool(done.payload) or not entry.result_frames}
        if done.peak_memory is not None:
            task["peak_memory"] = done.peak_memory
    if entry.attempts is not None or (done is not None and (done.error is not None or done.content)):
        task["outcome"] = encode(
            Outcome(done.error if done else None, (done.content if done else None) or None, entry.attempts)
        )
    return with_large_apart({"_id": spec.id, **to_bson(record), "_seconds": seconds, "_task": task, "_apart": None})


def _is_plain(entry: Entry) -> bool:
    """Whether an entry is like most: a call without options or large buffers that has not failed."""
    spec, done = entry.spec, entry.done
    return (
        spec.options is None
        and spec.kind == "apply"
        and not entry.frames
        and entry.attempts is None
        and entry.started is None
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


#: Keys that are None in the document of a plain entry, some of them until it has ended.
_NONE_IF_PLAIN: Document = dict.fromkeys((
    "label", "started", "completed", "duration", "engine_id", "code_digest", "arguments_digest", "cached_from",
    "resubmitted", "result_header", "result_metadata", "result_content", "pyin", "pyout", "pyerr", "result_buffers",
))  # fmt: skip


def _plain_document(entry: Entry) -> Document:
    """The document of a plain entry, made in a third of the time that `document_of` takes for any entry.

    Keys that it does not know (`_OTHERS`) come from the table of fields.
    """
    spec, done, client, engine_uuid = entry.spec, entry.done, entry.client, entry.engine_uuid
    at, task = spec.submitted, {"kind": "apply", "target": spec.engine, "inline": True}
    made: Document = {
        **_NONE_IF_PLAIN,
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
        "arguments": spec.arguments or None,
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
    for field in _OTHERS:
        made[field.name] = field.value(entry)
    if entry.host:
        task["host"] = entry.host
    if done is None:
        return made
    begun, ended, engine = done.started, done.completed, done.engine
    assert begun is not None
    started, completed = instant(begun), instant(ended)
    task |= {"attempt": done.attempt, "result_inline": True}
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


_ANY_TASK = Entry(TaskSpec(TaskId(""), Digest(b""), b"", 0.0), ClientId(""))
_OTHERS: list[Field] = []
_OTHERS += [field for field in FIELDS if field.name not in _plain_document(_ANY_TASK)]


def added_document(msg_id: TaskId, record: Mapping[str, Any]) -> tuple[Document, dict[str, bytes]]:
    """The document of a record that was given as a dict, in canonical form."""
    whole = {**blank(), **record, "msg_id": msg_id}
    seconds = {key: None if whole[key] is None else whole[key].timestamp() for key in sorted(TIMES)}
    whole["duration"] = duration_of(seconds["started"], seconds["completed"])
    seconds["attempts"] = _attempt_seconds(whole["attempts"])
    return with_large_apart({"_id": msg_id, **to_bson(whole), "_seconds": seconds, "_task": None, "_apart": None})


def changes_of(changes: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[Document, dict[str, bytes], list[str]]:
    """(a $set for some changed keys, values to be kept apart, keys that are no longer kept apart)."""
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
    """The part of a finished task's document that the document of a pending task does not have."""
    changes = {key: document[key] for key in _OUTCOME}
    changes |= {f"_seconds.{key}": document["_seconds"][key] for key in (*TIMES.intersection(_OUTCOME), "attempts")}
    changes |= {
        f"_task.{key}": document["_task"][key]
        for key in ("attempt", "result_inline", "outcome", "host", "peak_memory")
        if key in document["_task"]
    }
    return changes


def with_large_apart(document: Document, free: bool = False) -> tuple[Document, dict[str, bytes]]:
    """Take large values out of a document; with `free`, all values of keys that hold what users chose."""
    apart: dict[str, bytes] = {}
    for key in sorted(BULKY):
        value = document.get(key)
        if value and sum(len(part) for part in value if part is not None) > APART_ABOVE:
            apart[key] = pack(value)
            document[key] = [None] * len(value)
    for key in _FREE:
        value = document.get(key)
        if value and (free or (isinstance(value, str) and len(value) > APART_ABOVE)):
            apart[key] = encode(from_bson(value))
            document[key] = None
    if apart:
        document["_apart"] = sorted({*(document["_apart"] or ()), *apart})
    return document, apart


_ATTEMPT_TIMES = ("started", "ended")


def _attempt_seconds(attempts: Sequence[Any] | None) -> list[float | None]:
    """The times in attempts as seconds, in one flat list: BSON dates would round them."""
    found = [a.get(key) if isinstance(a, dict) else None for a in attempts or () for key in _ATTEMPT_TIMES]
    return [time.timestamp() if isinstance(time, datetime) else None for time in found]


def _with_times(attempts: Any, seconds: Sequence[float | None]) -> Any:
    for number, value in enumerate(seconds):
        if value is not None:
            attempts[number // 2][_ATTEMPT_TIMES[number % 2]] = instant(value)
    return attempts


def to_bson(value: Any) -> Any:
    """A value as a document holds it. In keys of dicts, dots and dollars are replaced: MongoDB reads them as paths."""
    if isinstance(value, dict):
        return {key_of(name): to_bson(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_bson(item) for item in value]
    return value


_NOT_IN_KEYS = str.maketrans({".": "\uff0e", "$": "\uff04", "\0": "\u2400"})
_IN_KEYS = str.maketrans({"\uff0e": ".", "\uff04": "$", "\u2400": "\0"})


def key_of(name: str) -> str:
    """The name of a key, or of a part of one, as documents have it."""
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
            record[key] = unpack(apart[key]) if key in BULKY else decode(apart[key])
        else:
            record[key] = from_bson(document.get(key))
            if key == "attempts":
                _with_times(record[key], seconds["attempts"])
    return record


def entry_of(document: Document, apart: Mapping[str, bytes]) -> Entry:
    """The entry a document was made of."""
    record, task, seconds = record_of(document, apart, KEYS), document["_task"], document["_seconds"]
    payload, frames = _split(record["buffers"], task["inline"])
    rare = decode_outcome(task.get("outcome"))
    options = decode_options(task["options"]) if task.get("options") else None
    id, function, engine_id = TaskId(document["_id"]), record["function"] or "", record["engine_id"]
    spec = TaskSpec(
        id, Digest(bytes.fromhex(function)), payload, seconds["submitted"] or 0.0, EngineId(task["target"]),
        tuple(range(len(frames))), options, task["kind"], record["arguments"] or "",
    )  # fmt: skip
    done: TaskDone | None = None
    result_frames: tuple[bytes, ...] = ()
    if task.get("attempt") is not None:
        payload, result_frames = _split(record["result_buffers"], task["result_inline"])
        done = TaskDone(
            id, task["attempt"], STATUS_OF_STATE.get(record["state"], "ok"), seconds["started"],
            seconds["completed"] or 0.0, payload, EngineId(-1 if engine_id is None else engine_id),
            tuple(range(len(result_frames))), record["stdout"] or "", record["stderr"] or "", rare.error, rare.content,
            task.get("peak_memory"), record["cached_from"],
        )  # fmt: skip
    return Entry(
        spec, ClientId(record["client_uuid"]), frames, done, result_frames, seconds["received"],
        record["engine_uuid"], rare.attempts, task.get("host"), record["function_name"], record["environment"],
        *((seconds["started"], engine_id) if done is None else ()),
    )  # fmt: skip


def _split(buffers: Sequence[bytes] | None, inline: bool) -> tuple[bytes, tuple[bytes, ...]]:
    """Buffers as a payload and the frames that follow it."""
    if not buffers:
        return b"", ()
    return (buffers[0], tuple(buffers[1:])) if inline else (b"", tuple(buffers))
