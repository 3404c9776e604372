"""Rows of the tasks table: made of entries, and made into entries and records.

The making of rows is the store's hottest Python: one flat list of parameters for many rows, no calls that an
ordinary task does not need.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any
from zlib import crc32

import msgspec

from ...errors import StoreDamaged, StoreError
from ...ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ...messages import Attempt, ErrorInfo, TaskDone, TaskOptions, TaskSpec
from ...records.record import (  # fmt: skip
    ABORTED,
    ALIASES,
    COMPLETED,
    FAILED,
    KEYS,
    PENDING,
    TIMES,
    Entry,
    TaskRecord,
    attempts_of,
    document,
    instant,
    is_hex,
    request_header,
    result_content,
)
from ..query.values import in_utc, plain
from .packing import (  # fmt: skip
    SUMMED_OUTCOME,
    SUMMED_REQUEST,
    Load,
    four_numbers,
    outcome_sum,
    pack,
    request_sum,
    two_numbers,
    unpack,
)

#: The columns that tell the outcome.
OUTCOME_COLUMNS = (
    "state", "started", "completed", "received", "engine_uuid", "engine_id", "attempt", "peak_memory", "cached_from",
    "ename", "outcome", "stdout", "stderr", "result_payload", "result_frames", "outcome_sum",
)  # fmt: skip

#: Keys whose values stand in a column of the same name, with what each may hold beside None.
COLUMN_TYPES: dict[str, type] = {
    "msg_id": str, "state": str, "label": str, "submitted": datetime, "started": datetime, "completed": datetime,
    "received": datetime, "client_uuid": str, "engine_uuid": str, "engine_id": int, "queue": str, "function": str,
    "resubmitted": str, "code_digest": str, "arguments_digest": str, "cached_from": str, "stdout": str, "stderr": str,
    "duration": float,
}  # fmt: skip

#: Keys that must be of a type, though they have no column.
_OTHER_TYPES: dict[str, type] = {
    "function_name": str, "environment": str,
    "header": dict, "content": dict, "metadata": dict, "result_header": dict, "result_metadata": dict,
    "result_content": dict, "attempts": list, "buffers": list, "result_buffers": list,
}  # fmt: skip

#: In `ename` where the reply's ename or status is not what the columns say.
LOOK_INSIDE = b""

_STATES = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}
_STATUSES = {state: status for status, state in _STATES.items()}

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_options = msgspec.msgpack.Decoder(TaskOptions).decode
_COMPLETED_BYTES = COMPLETED.encode()


class Outcome(msgspec.Struct, array_like=True, omit_defaults=True):
    """The rare parts of an outcome, kept together in one column."""

    error: ErrorInfo | None = None
    content: dict[str, Any] | None = None
    attempts: list[Attempt] | None = None


_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


# ---------------------------------------------------------------------------------------------- entry → row


class Shape(msgspec.Struct, frozen=True):
    """A kind of row: which columns are bound, and the SQL of those that follow from them.

    sqlite3 takes half a microsecond to bind a None or a bytes (it looks for adapters first), 0.03 for a number.
    So tasks that are as most are, are bound without any None, and with bytearrays.
    """

    bound: tuple[str, ...]
    derived: tuple[tuple[str, str], ...]


_QUEUE = "CASE WHEN target < 0 THEN 'task' ELSE 'mux' END"
_REQUEST_BOUND = ("msg_id", "submitted", "client_uuid", "target", "function", "payload", "request_sum")
_PLAIN = (("kind", "'apply'"), ("queue", _QUEUE), ("stdout", "''"), ("stderr", "''"))

#: A call without options or frames, not ended.
WAITING = Shape(_REQUEST_BOUND, (*_PLAIN, ("state", f"'{PENDING}'")))
#: A call without options or frames that has returned something without frames, and printed nothing.
RETURNED = Shape(
    (*_REQUEST_BOUND, "started", "completed", "received", "engine_uuid", "engine_id", "attempt", "peak_memory",
     "result_payload", "outcome_sum"),
    (*_PLAIN, ("state", f"'{COMPLETED}'")),
)  # fmt: skip
#: The same with a label, and perhaps other options.
LABELLED_WAITING = Shape((*WAITING.bound, "label", "options"), WAITING.derived)
LABELLED_RETURNED = Shape((*RETURNED.bound, "label", "options"), RETURNED.derived)
#: Anything else.
ANY = Shape(
    ("msg_id", "kind", "label", "submitted", "client_uuid", "target", "function", "options", "code_digest",
     "arguments_digest", "payload", "frames", "state", "started", "completed", "received", "engine_uuid", "engine_id",
     "attempt", "peak_memory", "cached_from", "ename", "outcome", "stdout", "stderr", "result_payload",
     "result_frames", "request_sum", "outcome_sum"),
    (("queue", _QUEUE),),
)  # fmt: skip


def parameters(entries: Iterable[Entry]) -> list[tuple[Shape, list[Any]]]:
    """What to bind: for each shape the values of its rows in one flat list."""
    waiting: list[Any] = []
    returned: list[Any] = []
    labelled_waiting: list[Any] = []
    labelled_returned: list[Any] = []
    rest: list[Any] = []
    extend_returned, extend_waiting = returned.extend, waiting.extend
    for entry in entries:
        spec, done, options = entry.spec, entry.done, entry.spec.options
        if (
            (options is None or (options.label is not None and options.cache is None)) and not entry.frames
            and entry.attempts is None and spec.function and spec.kind == "apply"
        ):  # fmt: skip
            function, payload, made = spec.function, spec.payload, b"" if options is None else _encode(options)
            names = f"{spec.id} {entry.client} apply".encode()
            first_sum = crc32(b"".join((two_numbers(spec.submitted, spec.engine), names, function, payload, made)))
            if done is None:
                if entry.engine_uuid is None and entry.received is None:
                    request = (spec.id, spec.submitted, entry.client, spec.engine, bytearray(function),
                               bytearray(payload), first_sum)  # fmt: skip
                    if options is None:
                        extend_waiting(request)
                    else:
                        labelled_waiting += (*request, options.label, bytearray(made))
                    continue
            elif (
                done.status == "ok" and not entry.result_frames and not done.stdout and not done.stderr
                and not done.content and done.error is None and done.engine >= 0 and done.peak_memory is not None
                and done.cached_from is None
            ):  # fmt: skip
                result, received, engine = done.payload, entry.received, done.engine
                times = four_numbers(done.started or 0.0, done.completed, received or 0.0, engine)
                row = (
                    spec.id, spec.submitted, entry.client, spec.engine, bytearray(function), bytearray(payload),
                    first_sum, done.started, done.completed, received, entry.engine_uuid, engine, done.attempt,
                    done.peak_memory, bytearray(result), crc32(b"".join((times, result, _COMPLETED_BYTES))),
                )  # fmt: skip
                if options is None:
                    extend_returned(row)
                else:
                    labelled_returned += (*row, options.label, bytearray(made))
                continue
        rest += _any_row(entry)
    shaped = (
        (WAITING, waiting), (LABELLED_WAITING, labelled_waiting), (ANY, rest), (RETURNED, returned),
        (LABELLED_RETURNED, labelled_returned),
    )  # fmt: skip
    return [(shape, flat) for shape, flat in shaped if flat]


def _any_row(entry: Entry) -> tuple[Any, ...]:
    """The columns of `ANY`."""
    spec, done, options, attempts = entry.spec, entry.done, entry.spec.options, entry.attempts
    key, function, made = (
        options and options.cache,
        spec.function or None,
        None if options is None else _encode(options),
    )
    frames = pack(entry.frames) if entry.frames else None
    request = (
        spec.id, spec.kind, options and options.label, spec.submitted, entry.client, spec.engine, function, made,
        (key and key.code) or None, (key and key.arguments) or None, spec.payload, frames,
    )  # fmt: skip
    first_sum = request_sum(
        spec.id, spec.kind, entry.client, spec.submitted, spec.engine, function, spec.payload, frames, made, None
    )
    outcome = None if attempts is None else _encode(Outcome(attempts=attempts))
    if done is None:
        second_sum = outcome_sum(PENDING, None, None, entry.received, None, None, None, outcome, "", "")
        return (*request, PENDING, None, None, entry.received, entry.engine_uuid, None, None, None, None, None, outcome,
                "", "", None, None, first_sum, second_sum)  # fmt: skip
    error, content, ename = done.error, done.content, None
    if error is not None or content:
        outcome = _encode(Outcome(error, content or None, attempts))
        ename = LOOK_INSIDE if content and ("ename" in content or "status" in content) else error and error.ename
    state, engine_id = _STATES[done.status], done.engine if done.engine >= 0 else None
    results = pack(entry.result_frames) if entry.result_frames else None
    second_sum = outcome_sum(
        state, done.started, done.completed, entry.received, engine_id, done.payload, results, outcome, done.stdout,
        done.stderr,
    )  # fmt: skip
    return (
        *request, state, done.started, done.completed, entry.received, entry.engine_uuid, engine_id, done.attempt,
        done.peak_memory, done.cached_from, ename, outcome, done.stdout, done.stderr, done.payload, results, first_sum,
        second_sum,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- row → entry, record

#: What is read of a row, unless its buffers are wanted too. The source of a cell is part of its record.
_NAMES = (
    "msg_id", "kind", "state", "label", "submitted", "started", "completed", "received", "duration", "client_uuid",
    "engine_uuid", "engine_id", "queue", "target", "function", "resubmitted", "code_digest", "arguments_digest",
    "cached_from", "attempt", "peak_memory", "options", "outcome", "document", "stdout", "stderr",
)  # fmt: skip
_HOST = "(SELECT host FROM engines WHERE engines.engine_uuid = tasks.engine_uuid)"
_FUNCTION_NAME = "(SELECT name FROM functions WHERE digest = tasks.function)"
_ENVIRONMENT = "(SELECT environment FROM clients WHERE clients.client_uuid = tasks.client_uuid)"
PINNED = "(msg_id IN (SELECT msg_id FROM pins))"
READ = ", ".join([*_NAMES, _HOST, _FUNCTION_NAME, _ENVIRONMENT, PINNED])
KIND, ATTEMPT, DOCUMENT = (_NAMES.index(name) for name in ("kind", "attempt", "document"))
_NO_REQUEST = ", CASE kind WHEN 'execute' THEN payload ELSE x'' END, NULL"
_REQUEST, _NO_RESULT, _RESULT = ", payload, frames", ", x'', NULL", ", result_payload, result_frames"


def selection(request: bool, result: bool) -> str:
    """The columns to select for `entry_of` and `record_of`, with or without the buffers."""
    return READ + (_REQUEST if request else _NO_REQUEST) + (_RESULT if result else _NO_RESULT)


def entry_of(row: Sequence[Any], load: Load | None = None) -> Entry:
    """The entry a row was made of."""
    (msg_id, kind, state, _label, submitted, started, completed, received, _duration, client, engine_uuid, engine_id,
     _queue, target, function, _resubmitted, _code, _arguments, cached_from, attempt, peak_memory, options, outcome,
     _document, stdout, stderr, host, function_name, environment, _pinned, payload, frames, result_payload,
     result_frames) = row  # fmt: skip
    buffers, result_buffers = unpack(frames, load), unpack(result_frames, load)
    rare = Outcome() if outcome is None else _decode_outcome(outcome)
    done = None
    if attempt is not None:
        done = TaskDone(
            msg_id, attempt, _STATUSES.get(state, "ok"), started, completed or 0.0, result_payload or b"",
            EngineId(-1 if engine_id is None else engine_id), tuple(range(len(result_buffers))), stdout or "",
            stderr or "", rare.error, rare.content, peak_memory, cached_from,
        )  # fmt: skip
    spec = TaskSpec(
        msg_id, Digest(function if isinstance(function, bytes) else b""), payload or b"", submitted or 0.0,
        EngineId(target), tuple(range(len(buffers))), None if options is None else _decode_options(options), kind,
    )  # fmt: skip
    return Entry(
        spec,
        ClientId(client),
        tuple(buffers),
        done,
        tuple(result_buffers),
        received,
        engine_uuid,
        rare.attempts,
        host,
        function_name,
        environment,
    )


def record_of(row: Sequence[Any], load: Load | None = None) -> TaskRecord:
    """The whole record of a row, whatever it was made of."""
    (msg_id, kind, state, label, submitted, started, completed, received, duration, client, engine_uuid, engine_id,
     queue, _target, function, resubmitted, code_digest, arguments_digest, cached_from, _attempt, _peak_memory,
     _options, _outcome, inside, stdout, stderr, _host, _function_name, _environment, pinned, payload, frames,
     result_payload, result_frames) = row  # fmt: skip
    record = TaskRecord.fromkeys(KEYS) if kind is None else document(entry_of(row, load))
    record.update(
        msg_id=msg_id, state=state, label=label, submitted=instant(submitted), started=instant(started),
        completed=instant(completed), received=instant(received), duration=duration, client_uuid=client,
        engine_uuid=engine_uuid, engine_id=engine_id, queue=queue, function=_function(function),
        resubmitted=resubmitted, code_digest=code_digest, arguments_digest=arguments_digest, cached_from=cached_from,
        stdout=stdout, stderr=stderr, pinned=bool(pinned),
    )  # fmt: skip
    if payload is None:
        record["buffers"] = None if frames is None else unpack(frames, load)
    if result_payload is None:
        record["result_buffers"] = None if result_frames is None else unpack(result_frames, load)
    if inside is not None:
        record.update(_decode(inside))
    return TaskRecord(record)


# ---------------------------------------------------------------------------------------------- some keys of a row


class Reader:
    """Reads some keys of rows: `columns` is what to select (`first`, then more), calling it makes a dict of a row.

    Keys that have a column, and the commonest of the others, are made of few columns; any other takes whole rows.
    """

    def __init__(self, keys: Iterable[str], first: Sequence[str] = ("seq",), load: Load | None = None) -> None:
        wanted, self._start, self._load = list(keys), len(first), load
        self._whole = any(key not in COLUMN_TYPES and key not in _COMPOSED for key in wanted)
        if self._whole:
            self.columns = ", ".join([*first, selection("buffers" in wanted, "result_buffers" in wanted)])
            self._keys = wanted
            return
        names = list(dict.fromkeys(name for key in wanted for name in _COMPOSED.get(key, (None, (key,)))[1]))
        self.columns = ", ".join([*first, *names])
        place = {name: number for number, name in enumerate(names, self._start)}
        self._plain = [(k, place[k]) for k in wanted if k in COLUMN_TYPES and k not in _MADE]
        self._made = [(k, _MADE[k], place[k]) for k in wanted if k in _MADE]
        self._composed = [
            (key, _COMPOSED[key][0], [place[name] for name in _COMPOSED[key][1]]) for key in wanted if key in _COMPOSED
        ]
        self._order = wanted if self._made or self._composed else None

    def __call__(self, row: Sequence[Any]) -> TaskRecord:
        if self._whole:
            record = record_of(row[self._start :], self._load)
            return TaskRecord({key: record[key] for key in self._keys})
        found = TaskRecord([(key, row[n]) for key, n in self._plain])
        for key, make, n in self._made:
            found[key] = make(row[n])
        for key, compose, places in self._composed:
            inside = row[places[0]]
            if key == "pinned":
                found[key] = bool(row[places[1]])
            elif inside is not None and key in (decoded := _decode(inside)):
                found[key] = decoded[key]
            elif row[places[1]] is None:  # no task: a record that was added
                found[key] = None
            else:
                found[key] = compose(*[row[n] for n in places[1:]])
        return TaskRecord([(key, found[key]) for key in self._order]) if self._order else found


def _function(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _duration(value: Any) -> float | None:
    """SQLite sorts 0.0 of a computed column as 0, and leaves it at that."""
    return None if value is None else float(value)


#: How values are made of their columns, where they are not the same.
_MADE: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(TIMES, instant), "function": _function, "duration": _duration
}  # fmt: skip


def _header(kind: str, msg_id: TaskId, client: ClientId, options: bytes | None) -> dict[str, Any]:
    decoded = None if options is None else _decode_options(options)
    return request_header(TaskSpec(msg_id, Digest(b""), b"", 0.0, options=decoded, kind=kind), client)


def _metadata(kind: str, options: bytes | None) -> dict[str, Any]:
    return {} if options is None else dict(_decode_options(options).metadata or {})


def _reply(kind: str, state: str, attempt: int | None, outcome: bytes | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    rare = Outcome() if outcome is None else _decode_outcome(outcome)
    status = _STATUSES.get(state, "ok")
    return result_content(TaskDone(TaskId(""), attempt, status, None, 0.0, b"", error=rare.error, content=rare.content))


def _attempts(
    kind: str, attempt: int | None, started: float | None, completed: float | None, engine_id: int | None,
    engine_uuid: EngineUuid | None, state: str, peak_memory: int | None, outcome: bytes | None, host: str | None,
) -> list[dict[str, Any]]:  # fmt: skip
    rare = Outcome() if outcome is None else _decode_outcome(outcome)
    done = None
    if attempt is not None:
        engine = EngineId(-1 if engine_id is None else engine_id)
        status = _STATUSES.get(state, "ok")
        done = TaskDone(
            TaskId(""), attempt, status, started, completed or 0.0, b"", engine, error=rare.error,
            peak_memory=peak_memory,
        )  # fmt: skip
    return attempts_of(Entry(_NO_SPEC, ClientId(""), (), done, (), None, engine_uuid, rare.attempts, host))


_NO_SPEC = TaskSpec(TaskId(""), Digest(b""), b"", 0.0)

#: key → how it is made, and of which columns: the document, which takes precedence, the kind, and what follows
_COMPOSED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "header": (_header, ("document", "kind", "msg_id", "client_uuid", "options")),
    "metadata": (_metadata, ("document", "kind", "options")),
    "attempts": (_attempts, ("document", "kind", "attempt", "started", "completed", "engine_id", "engine_uuid", "state",
                             "peak_memory", "outcome", _HOST)),
    "function_name": (lambda kind, name: name, ("document", "kind", _FUNCTION_NAME)),
    "environment": (lambda kind, digest: digest, ("document", "kind", _ENVIRONMENT)),
    "pinned": (bool, ("document", PINNED)),
    "result_content": (_reply, ("document", "kind", "state", "attempt", "outcome")),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------- documents

def blank() -> dict[str, Any]:
    """A record of which nothing is known."""
    return {**dict.fromkeys(KEYS), "pinned": False}


def normal(record: Mapping[str, Any], msg_id: TaskId) -> dict[str, Any]:
    """A record (or some keys of one) given as a dict, checked and in canonical form; StoreError says what is wrong.

    Times are rounded to what the column can hold: exactly a microsecond, until the year 2242.
    """
    found: dict[str, Any] = {}
    for key, value in record.items():
        name = ALIASES.get(key, key)
        if name not in KEYS:
            raise StoreError(f"record {msg_id}: unknown key {key!r}")
        if name == "duration":  # follows from started and completed
            continue
        value = plain(value, f"record {msg_id}: {name}", StoreError)
        if name == "pinned":
            if not isinstance(value, bool | None):
                raise StoreError(f"record {msg_id}: pinned must be True or False, got {value!r}")
            value = bool(value)
        wanted = COLUMN_TYPES.get(name) or _OTHER_TYPES.get(name)
        if value is not None and wanted and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise StoreError(f"record {msg_id}: {name} must be {wanted.__name__} or None, got {value!r}")
        if value is not None and name in TIMES:
            value = instant(value.timestamp())
        if (
            value is not None
            and name in ("buffers", "result_buffers")
            and not all(isinstance(item, bytes) for item in value)
        ):
            raise StoreError(f"record {msg_id}: {name} must be a list of bytes")
        found[name] = value
    if found.get("msg_id", msg_id) != msg_id:
        raise StoreError(f"record {msg_id}: its msg_id says {found['msg_id']!r}")
    return found


def columns_of(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A canonical document, but for `pinned`, as columns, and what has none."""
    columns: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for key, value in changes.items():
        if key in TIMES:
            columns[key] = None if value is None else in_utc(value).timestamp()
        elif key == "function":
            columns[key] = bytes.fromhex(value) if value and is_hex(value) else value
        elif key in COLUMN_TYPES:
            columns[key] = value
        elif key == "pinned":
            continue
        elif key == "buffers":
            columns |= {"payload": None, "frames": None if value is None else pack(value)}
        elif key == "result_buffers":
            columns |= {"result_payload": None, "result_frames": None if value is None else pack(value)}
        else:
            inside[key] = value
    return columns, inside


#: Columns from which other keys of a task's record are derived, and those keys.
_SOURCES = frozenset({"state", "started", "completed", "client_uuid", "engine_uuid", "engine_id", "payload",
                      "function"})  # fmt: skip
_DERIVED = (
    "header",
    "content",
    "pyin",
    "function_name",
    "environment",
    "attempts",
    "result_header",
    "result_metadata",
    "result_content",
    "pyout",
    "pyerr",
)
_DERIVED_WHEN_PENDING = ("header", "content", "pyin", "function_name", "environment")


def to_freeze(columns: Iterable[str], row: Sequence[Any]) -> dict[str, Any]:
    """What must be written out before these columns of a row are changed by hand, lest it change with them."""
    kind, attempt = row[KIND], row[ATTEMPT]
    if kind is None or not _SOURCES & set(columns):
        return {}
    record = record_of(row)
    return {key: record[key] for key in (_DERIVED_WHEN_PENDING if attempt is None else _DERIVED)}


def merged(inside: bytes | None, changes: Mapping[str, Any]) -> bytes:
    """A `document` column with some keys changed."""
    return _encode({**(_decode(inside) if inside else {}), **changes})


# ---------------------------------------------------------------------------------------------- whole rows, checked

#: All that `checked` takes.
WHOLE = f"{selection(True, True)}, request_sum, outcome_sum"
_PLACES = {name: n for n, name in enumerate((*_NAMES, *[""] * 4, "payload", "frames", "result_payload",
                                             "result_frames"))}  # fmt: skip
_request_of = itemgetter(*[_PLACES[name] for name in SUMMED_REQUEST])
_outcome_of = itemgetter(*[_PLACES[name] for name in SUMMED_OUTCOME])


def checked(row: Sequence[Any]) -> Sequence[Any]:
    """A row of `WHOLE`, for `entry_of` and `record_of`; StoreDamaged if it is not as it was written."""
    first, second = row[-2], row[-1]
    try:
        if (first is None or first == request_sum(*_request_of(row))) and (
            second is None or second == outcome_sum(*_outcome_of(row))
        ):
            return row[:-2]
    except (TypeError, ValueError, AttributeError, struct.error):  # a damaged row may hold anything, of any type
        pass
    raise StoreDamaged(
        f"the record of task {row[0]} is damaged; others are not, unless `engineroom db verify` says so: "
        "`engineroom db repair` saves them"
    )
