"""Rows of the tasks table → entries and records."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from ....errors import StoreDamaged
from ....ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ....messages import TaskDone, TaskSpec
from ....messages.bounds import Kind
from ....records.entry import Entry, attempts_of, instant, request_header, result_content
from ....records.fields import FIELDS, KEYS
from ....records.record import TaskRecord
from ....records.states import STATUS_OF_STATE
from ...packing import Load, decode, decode_options, decode_outcome, unpack
from .checksums import SUMMED_OUTCOME, SUMMED_REQUEST, outcome_sum, request_sum
from .columns import COLUMN_TYPES, ENVIRONMENT, FUNCTION_NAME, HOST, PINNED, PLACE, selection

# ---------------------------------------------------------------------------------------------- whole rows


def entry_of(row: Sequence[Any], load: Load | None = None) -> Entry:
    """The entry that a row was made of."""
    (msg_id, kind, state, submitted, started, completed, received, client, engine_uuid, engine_id, target, function,
     cached_from, attempt, peak_memory, options, outcome, stdout, stderr, arguments, host, function_name, environment,
     payload, frames, result_payload, result_frames, *_of_records) = row  # fmt: skip
    buffers, result_buffers = unpack(frames, load), unpack(result_frames, load)
    rare = decode_outcome(outcome)
    done = None
    if attempt is not None:
        done = TaskDone(
            msg_id, attempt, STATUS_OF_STATE.get(state, "ok"), started, completed or 0.0, result_payload or b"",
            EngineId(-1 if engine_id is None else engine_id), tuple(range(len(result_buffers))), stdout or "",
            stderr or "", rare.error, rare.content, peak_memory, cached_from,
        )  # fmt: skip
    spec = TaskSpec(
        msg_id, Digest(function if isinstance(function, bytes) else b""), payload or b"", submitted or 0.0,
        EngineId(target), tuple(range(len(buffers))), None if options is None else decode_options(options), kind,
        arguments or "",
    )  # fmt: skip
    return Entry(
        spec, ClientId(client), tuple(buffers), done, tuple(result_buffers), received, engine_uuid, rare.attempts,
        host, function_name, environment, *((started, engine_id) if done is None else ()),
    )  # fmt: skip


def _function(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _float(value: Any) -> float | None:
    """After sorting by a generated column, SQLite answers 0 for 0.0."""
    return None if value is None else float(value)


def _bool(value: Any) -> bool | None:
    return None if value is None else bool(value)


_MAKE: dict[type, Callable[[Any], Any]] = {datetime: instant, float: _float, bool: _bool}


#: How values are made of their columns, where they are not the same.
_MADE: dict[str, Callable[[Any], Any]] = {
    name: make for name, kind in COLUMN_TYPES.items() if (make := _function if name == "function" else _MAKE.get(kind))
}


_BLANK = dict.fromkeys(KEYS)
#: Keys that follow from the entry; those whose column has the value; those whose value is made of the column.
_OF_ENTRY = [(field.name, field.value) for field in FIELDS if field.place in ("derived", "buffers")]
_OF_COLUMN = [(name, PLACE[name]) for name in COLUMN_TYPES if name not in _MADE]
_OF_COLUMN_MADE = [(name, PLACE[name], make) for name, make in _MADE.items()]
_KIND, _DOCUMENT, _PINNED = PLACE["kind"], PLACE["document"], PLACE["pinned"]
_ATTEMPT, _COMPLETED = PLACE["attempt"], PLACE["completed"]
_PAYLOAD, _FRAMES, _RESULT_PAYLOAD, _RESULT_FRAMES = (
    PLACE[name] for name in ("payload", "frames", "result_payload", "result_frames")
)


def record_of(row: Sequence[Any], load: Load | None = None) -> TaskRecord:
    """The whole record of a row, whether it was made of an entry or of a dict."""
    record = TaskRecord(_BLANK)
    if row[_KIND] is not None:
        entry = entry_of(row, load)
        for key, value in _OF_ENTRY:
            record[key] = value(entry)
    for key, place in _OF_COLUMN:
        record[key] = row[place]
    for key, place, make in _OF_COLUMN_MADE:
        record[key] = make(row[place])
    record["pinned"] = bool(row[_PINNED])
    if row[_PAYLOAD] is None:
        record["buffers"] = None if row[_FRAMES] is None else list(map(bytes, unpack(row[_FRAMES], load)))
    if row[_RESULT_PAYLOAD] is None:
        record["result_buffers"] = (
            None if row[_RESULT_FRAMES] is None else list(map(bytes, unpack(row[_RESULT_FRAMES], load)))
        )
    if row[_DOCUMENT] is not None:
        record.update(decode(row[_DOCUMENT]))
    return record


_request_of = itemgetter(*[PLACE[name] for name in SUMMED_REQUEST])
_outcome_of = itemgetter(*[PLACE[name] for name in SUMMED_OUTCOME])


def checked(row: Sequence[Any]) -> Sequence[Any]:
    """A row of `WHOLE`, for `entry_of` and `record_of`; StoreDamaged if it is not as it was written."""
    first, second = row[-2], row[-1]
    try:
        if (first is None or first == request_sum(*_request_of(row))) and (
            second is None or second == outcome_sum(*_outcome_of(row))
        ):
            if row[_ATTEMPT] is not None and row[_COMPLETED] is None and row[_DOCUMENT] is None and first is not None:
                return (*row[:_ATTEMPT], None, *row[_ATTEMPT + 1 : -2])  # damaged: without an end there is no outcome
            return row[:-2]
    except (TypeError, ValueError, AttributeError, struct.error):  # a damaged row may hold anything, of any type
        pass
    raise StoreDamaged(
        f"the record of task {row[0]} is damaged; others are not, unless `engineroom db verify` says so: "
        "`engineroom db repair` saves them"
    )


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
        self._keys = wanted

    @property
    def is_simple(self) -> bool:
        """Whether each key is made of one column, so that `in_columns` can be called."""
        return not (self._whole or self._composed)

    def in_columns(self, rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Of each key its values in these rows, of which there is one or more."""
        columns = list(zip(*rows, strict=True))[self._start :]
        return {
            key: list(map(_MADE[key], column)) if key in _MADE else column
            for key, column in zip(self._keys, columns, strict=True)
        }

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
            elif inside is not None and key in (decoded := decode(inside)):
                found[key] = decoded[key]
            elif row[places[1]] is None:  # no task: a record that was added
                found[key] = None
            else:
                found[key] = compose(*[row[n] for n in places[1:]])
        return TaskRecord([(key, found[key]) for key in self._order]) if self._order else found


def _header(kind: Kind, msg_id: TaskId, client: ClientId, options: bytes | None) -> dict[str, Any]:
    decoded = None if options is None else decode_options(options)
    return request_header(TaskSpec(msg_id, Digest(b""), b"", 0.0, options=decoded, kind=kind), client)


def _metadata(kind: str, options: bytes | None) -> dict[str, Any]:
    return {} if options is None else dict(decode_options(options).metadata or {})


def _reply(kind: str, state: str, attempt: int | None, outcome: bytes | None) -> dict[str, Any] | None:
    if attempt is None:
        return None
    rare = decode_outcome(outcome)
    status = STATUS_OF_STATE.get(state, "ok")
    return result_content(TaskDone(TaskId(""), attempt, status, None, 0.0, b"", error=rare.error, content=rare.content))


def _attempts(
    kind: str, attempt: int | None, started: float | None, completed: float | None, engine_id: int | None,
    engine_uuid: EngineUuid | None, state: str, peak_memory: int | None, outcome: bytes | None, host: str | None,
) -> list[dict[str, Any]]:  # fmt: skip
    rare = decode_outcome(outcome)
    done = None
    if attempt is not None:
        engine = EngineId(-1 if engine_id is None else engine_id)
        status = STATUS_OF_STATE.get(state, "ok")
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
                             "peak_memory", "outcome", HOST)),
    "function_name": (lambda kind, name: name, ("document", "kind", FUNCTION_NAME)),
    "environment": (lambda kind, digest: digest, ("document", "kind", ENVIRONMENT)),
    "pinned": (bool, ("document", PINNED)),
    "result_content": (_reply, ("document", "kind", "state", "attempt", "outcome")),
}  # fmt: skip
