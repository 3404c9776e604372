"""The keys of a task record: one row for each.

Everything that depends on a record's keys is derived from this table: what queries may ask, what records given as
dicts may hold, the columns that SQLite reads and writes, what an outcome changes, the columns of exported tables. To
add a key, add a row here. If SQLite shall have a column for it, add a migration too (`stores/sqlite/sql/`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from .entry import (
    Entry,
    attempts_of,
    buffers,
    cache_key,
    content_of,
    duration_of,
    engine_of,
    instant,
    metadata_of,
    request_header,
    result_content,
    result_error,
    result_header,
    source_of,
    state_of,
)

#: Where SQLite holds a key: in a column of its name; in a column that SQLite computes; nowhere, it follows from other
#: columns (a value that users set goes into the column `document`); in packed buffers; in the table of pinned records.
Place = Literal["column", "generated", "derived", "buffers", "pins"]


class Field(msgspec.Struct, frozen=True):
    """One key of a record."""

    name: str
    #: of the value, if it is not None; object: any type that a record may hold
    type: type
    #: what the value is, in words
    meaning: str
    #: the value in the record of a task
    value: Callable[[Entry], Any]
    place: Place = "derived"
    #: whether the end of a task changes it
    outcome: bool = False
    #: of a time: the value in seconds since the epoch, which hold more digits than a datetime
    seconds: Callable[[Entry], float | None] | None = None
    #: another spelling of the key
    alias: str | None = None
    #: whether a text may be of any length
    long: bool = False

    @property
    def is_bulky(self) -> bool:
        """Whether it is left out of answers unless somebody asks for it."""
        return self.place == "buffers"

    @property
    def is_nested(self) -> bool:
        """Whether it holds dicts, lists or any value, so that tables show it as JSON."""
        return self.type in (dict, list, object) and not self.is_bulky


def set_later(entry: Entry) -> None:
    """The value of a key that no task has from the start: somebody sets it in the record later."""


def _time(name: str, meaning: str, seconds: Callable[[Entry], float | None], *, outcome: bool = True) -> Field:
    return Field(name, datetime, meaning, lambda e: instant(seconds(e)), "column", outcome, seconds)


#: In the order of a document.
FIELDS: tuple[Field, ...] = (
    Field("msg_id", str, "the task's id", lambda e: e.spec.id, "column"),
    Field("state", str, "pending, running, completed, failed or aborted", state_of, "column", outcome=True),
    Field("label", str, "given at submission, or None",
          lambda e: e.spec.options.label if e.spec.options else None, "column"),
    Field("header", dict, "request header: msg_type, session, and the options given",
          lambda e: request_header(e.spec, e.client)),
    Field("content", dict, "request content: code for execute, else empty", lambda e: content_of(e.spec)),
    Field("metadata", dict, "free metadata given at submission", lambda e: metadata_of(e.spec)),
    _time("submitted", "when the client submitted it", lambda e: e.spec.submitted, outcome=False),
    _time("started", "when the last attempt began on its engine, or None",
          lambda e: e.done.started if e.done else e.started),
    _time("completed", "when it ended, or None", lambda e: e.done.completed if e.done else None),
    _time("received", "when the controller had the result, or None", lambda e: e.received),
    Field("duration", float, "seconds from started to completed, or None",
          lambda e: duration_of(e.done.started, e.done.completed) if e.done else None, "generated", outcome=True),
    Field("client_uuid", str, "the submitting client", lambda e: e.client, "column"),
    Field("engine_uuid", str, "the engine that runs or ran it, or None",
          lambda e: e.engine_uuid, "column", outcome=True),
    Field("engine_id", int, "that engine's number, or None", engine_of, "column", outcome=True),
    Field("queue", str, "mux (direct) or task (load-balanced)",
          lambda e: "task" if e.spec.engine < 0 else "mux", "column"),
    Field("function", str, "digest of the function (hex), or None", lambda e: e.spec.function.hex() or None, "column"),
    Field("function_name", str, "its name, or None", lambda e: e.function_name),
    Field("arguments", str, "the arguments as a short text (at most 200 characters), or None: not recorded",
          lambda e: e.spec.arguments or None, "column"),
    Field("environment", str, "digest of the client's environment: Python, packages, working directory; or None",
          lambda e: e.environment),
    Field("code_digest", str, "with cache=True: digest of what the function does, or None",
          lambda e: cache_key(e.spec).code or None, "column"),
    Field("arguments_digest", str, "with cache=True: digest of the arguments, or None",
          lambda e: cache_key(e.spec).arguments or None, "column"),
    Field("cached_from", str, "msg_id of the equal task whose result this is, or None: it ran",
          lambda e: e.done.cached_from if e.done else None, "column", outcome=True),
    Field("resubmitted", str, "msg_id of the task this one was resubmitted as, or None", set_later, "column"),
    Field("pinned", bool, "whether retention leaves it alone", lambda e: False, "pins"),
    Field("attempts", list, "every attempt: number, engine_id, engine_uuid, host, started, ended, cause, peak_memory, "
          "traceback", attempts_of, outcome=True),
    Field("result_header", dict, "reply header: status, engine, date; None until done", result_header, outcome=True),
    Field("result_metadata", dict, "reply metadata; None until done",
          lambda e: None if e.done is None else {}, outcome=True),
    Field("result_content", dict, "status, and for errors ename, evalue, traceback; None until done",
          lambda e: None if e.done is None else result_content(e.done), outcome=True),
    Field("pyin", object, "execute: the source", lambda e: source_of(e.spec), alias="execute_input"),
    Field("pyout", object, "execute: the value, as a mime bundle",
          lambda e: result_content(e.done).get("execute_result") if e.done and e.spec.kind == "execute" else None,
          outcome=True, alias="execute_result"),
    Field("pyerr", object, "ename, evalue and traceback of a task that failed, or None", result_error, outcome=True,
          alias="error"),
    Field("stdout", str, "what the task printed", lambda e: e.done.stdout if e.done else "", "column", outcome=True,
          long=True),
    Field("stderr", str, "what it printed to stderr", lambda e: e.done.stderr if e.done else "", "column", outcome=True,
          long=True),
    Field("buffers", list, "serialized request: list of bytes", lambda e: buffers(e.spec.payload, e.frames), "buffers"),
    Field("result_buffers", list, "serialized result: list of bytes, or None",
          lambda e: None if e.done is None else buffers(e.done.payload, e.result_frames), "buffers", outcome=True),
)  # fmt: skip

#: key → its row
FIELD: dict[str, Field] = {field.name: field for field in FIELDS}

#: key → what it is, in the order of a document
KEYS: dict[str, str] = {field.name: field.meaning for field in FIELDS}

#: another spelling of a key → the key; understood wherever a key is named
ALIASES: dict[str, str] = {field.alias: field.name for field in FIELDS if field.alias}

#: Keys that are left out of answers unless somebody asks for them.
BULKY = frozenset(field.name for field in FIELDS if field.is_bulky)

#: Keys that are returned unless others are asked for.
DEFAULT_KEYS = tuple(field.name for field in FIELDS if not field.is_bulky)

#: Keys that hold datetimes.
TIMES = frozenset(field.name for field in FIELDS if field.type is datetime)

#: Keys that hold dicts, lists, or any value.
NESTED = frozenset(field.name for field in FIELDS if field.is_nested)

#: Keys that hold texts.
TEXTS = frozenset(field.name for field in FIELDS if field.type is str)

#: Keys that hold numbers.
NUMBERS = frozenset(field.name for field in FIELDS if field.type in (int, float))
