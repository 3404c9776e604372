"""Entries → rows of the tasks table.

A batch is written with few, large statements. `executemany` would give up and take back the interpreter's lock for
every row, and each time wait for a busy main thread. One statement with a thousand rows of values runs without the
lock, and is prepared once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from zlib import crc32

import msgspec

from ....records.entry import Entry, state_of
from ....records.fields import FIELDS, Field, set_later
from ....records.states import COMPLETED, PENDING, STATE_OF_STATUS
from ...packing import Outcome, encode, pack
from .checksums import four_numbers, outcome_sum, request_sum, two_numbers
from .columns import LOOK_INSIDE, OUTCOME_COLUMNS

_COMPLETED_BYTES = COMPLETED.encode()

#: Rows per statement at most.
MOST_ROWS = 1024


class Shape(msgspec.Struct, frozen=True):
    """A kind of row: which columns are bound, and the SQL of the columns that follow from them.

    sqlite3 takes half a microsecond to bind a None or a bytes (it looks for adapters first), 0.03 for a number.
    Therefore ordinary tasks have shapes without any None, and their bytes are bound as bytearrays.
    """

    bound: tuple[str, ...]
    derived: tuple[tuple[str, str], ...]


_QUEUE = "CASE WHEN target < 0 THEN 'task' ELSE 'mux' END"
_REQUEST_BOUND = ("msg_id", "submitted", "client_uuid", "target", "function", "payload", "arguments", "request_sum")
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
#: Any other task; the columns that `_any_row` makes.
_BY_HAND = Shape(
    ("msg_id", "kind", "label", "submitted", "client_uuid", "target", "function", "options", "code_digest",
     "arguments_digest", "payload", "frames", "arguments", "state", "started", "completed", "received", "engine_uuid",
     "engine_id", "attempt", "peak_memory", "cached_from", "ename", "outcome", "stdout", "stderr", "result_payload",
     "result_frames", "request_sum", "outcome_sum"),
    (("queue", _QUEUE),),
)  # fmt: skip
#: Keys with a column that the code below does not know: their values come from the table of fields.
_OTHERS = tuple(
    field
    for field in FIELDS
    if field.place == "column" and field.value is not set_later and field.name not in (*_BY_HAND.bound, "queue")
)
ANY = Shape((*_BY_HAND.bound, *[field.name for field in _OTHERS]), _BY_HAND.derived)


def statements(entries: Iterable[Entry], most: int) -> list[tuple[str, list[Any]]]:
    """SQL and parameters (at most `most` of them, as SQLite allows) that write these entries."""
    return [
        (_insert(shape, size), values)
        for shape, flat in parameters(entries)
        for size, values in _chunks(flat, len(shape.bound), _sizes(most))
    ]


@cache
def _insert(shape: Shape, rows: int) -> str:
    """The statement that writes so many rows of a shape. The first outcome of a task stays."""
    names = [f"column{number} AS {name}" for number, name in enumerate(shape.bound, 1)]
    row = f"({', '.join('?' * len(shape.bound))})"
    changes = ", ".join(f"{column} = excluded.{column}" for column in OUTCOME_COLUMNS)
    return (
        f"INSERT INTO tasks ({', '.join([*shape.bound, *dict(shape.derived)])})"
        f" SELECT {', '.join(['*', *dict(shape.derived).values()])}"
        f" FROM (SELECT {', '.join(names)} FROM (VALUES {', '.join([row] * rows)}))"
        f" WHERE msg_id <> 0 ON CONFLICT (msg_id) DO UPDATE SET {changes}"
        " WHERE tasks.completed IS NULL AND tasks.kind IS NOT NULL"
    )


@cache
def _sizes(most: int) -> tuple[int, ...]:
    """Numbers of rows for which there are statements: powers of two, within SQLite's limit of parameters."""
    return tuple(1 << n for n in range(MOST_ROWS.bit_length()) if (1 << n) * len(ANY.bound) <= most)


def _chunks(flat: list[Any], width: int, sizes: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """Rows cut to sizes that have a statement.

    The last rows are padded with rows of zeros, which the statement leaves out: one more statement would cost more.
    """
    largest = sizes[-1]
    for start in range(0, len(flat), largest * width):
        values = flat[start : start + largest * width] if len(flat) > largest * width else flat
        rows = len(values) // width
        size = next(size for size in sizes if rows <= size)
        yield size, values + [0] * ((size - rows) * width) if size > rows else values


def parameters(entries: Iterable[Entry]) -> list[tuple[Shape, list[Any]]]:
    """What to bind: for each shape the values of its rows in one flat list.

    This is the hottest Python of the store: no calls that an ordinary task does not need.
    """
    waiting: list[Any] = []
    returned: list[Any] = []
    labelled_waiting: list[Any] = []
    labelled_returned: list[Any] = []
    rest: list[Any] = []
    extend_returned, extend_waiting = returned.extend, waiting.extend
    for entry in entries:
        spec, done, options = entry.spec, entry.done, entry.spec.options
        if (
            not (_OTHERS and _has_others(entry))
            and (options is None or (options.label is not None and options.cache is None)) and not entry.frames
            and entry.attempts is None and spec.function and spec.kind == "apply"
        ):  # fmt: skip
            function, payload, made = spec.function, spec.payload, b"" if options is None else encode(options)
            arguments = spec.arguments or None
            names = f"{spec.id} {entry.client} apply{spec.arguments}".encode("utf-8", "surrogatepass")
            first_sum = crc32(b"".join((two_numbers(spec.submitted, spec.engine), names, function, payload, made)))
            if done is None:
                if entry.engine_uuid is None and entry.received is None and entry.started is None:
                    request = (spec.id, spec.submitted, entry.client, spec.engine, bytearray(function),
                               bytearray(payload), arguments, first_sum)  # fmt: skip
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
                    arguments, first_sum, done.started, done.completed, received, entry.engine_uuid, engine,
                    done.attempt, done.peak_memory, bytearray(result),
                    crc32(b"".join((times, result, _COMPLETED_BYTES))),
                )  # fmt: skip
                if options is None:
                    extend_returned(row)
                else:
                    labelled_returned += (*row, options.label, bytearray(made))
                continue
        rest += _any_row(entry)
        if _OTHERS:
            rest += [_column_value(field, entry) for field in _OTHERS]
    shaped = (
        (WAITING, waiting), (LABELLED_WAITING, labelled_waiting), (ANY, rest), (RETURNED, returned),
        (LABELLED_RETURNED, labelled_returned),
    )  # fmt: skip
    return [(shape, flat) for shape, flat in shaped if flat]


def _has_others(entry: Entry) -> bool:
    return any(field.value(entry) is not None for field in _OTHERS)


def _column_value(field: Field, entry: Entry) -> Any:
    return field.seconds(entry) if field.seconds else field.value(entry)


def _any_row(entry: Entry) -> tuple[Any, ...]:
    """The columns of `_BY_HAND`."""
    spec, done, options, attempts = entry.spec, entry.done, entry.spec.options, entry.attempts
    key, function, made = (
        options and options.cache,
        spec.function or None,
        None if options is None else encode(options),
    )
    frames = pack(entry.frames) if entry.frames else None
    request = (
        spec.id, spec.kind, options and options.label, spec.submitted, entry.client, spec.engine, function, made,
        (key and key.code) or None, (key and key.arguments) or None, spec.payload, frames, spec.arguments or None,
    )  # fmt: skip
    first_sum = request_sum(
        spec.id, spec.kind, entry.client, spec.submitted, spec.engine, function, spec.payload, frames, made, None,
        spec.arguments or None,
    )
    outcome = None if attempts is None else encode(Outcome(attempts=attempts))
    if done is None:
        state, began, engine = state_of(entry), entry.started, entry.engine
        second_sum = outcome_sum(state, began, None, entry.received, engine, None, None, outcome, "", "")
        return (*request, state, began, None, entry.received, entry.engine_uuid, engine, None, None, None, None,
                outcome, "", "", None, None, first_sum, second_sum)  # fmt: skip
    error, content, ename = done.error, done.content, None
    if error is not None or content:
        outcome = encode(Outcome(error, content or None, attempts))
        ename = LOOK_INSIDE if content and ("ename" in content or "status" in content) else error and error.ename
    state, engine_id = STATE_OF_STATUS[done.status], done.engine if done.engine >= 0 else None
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
