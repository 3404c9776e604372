"""Entries: a task in the form that the controller hands to a store, thousands at a time.

An entry holds the request as the client sent it and the outcome as the engine sent it. The functions below make parts
of a record from it. Which keys a record has, and the value of each, stands in `fields.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ..messages import Attempt, CacheKey, TaskDone, TaskSpec
from ..messages.bounds import Moment
from .states import PENDING, RUNNING, STATE_OF_STATUS


class Entry(msgspec.Struct, gc=False):
    """Everything known about one task at some moment. Later entries of a task replace earlier ones."""

    spec: TaskSpec
    client: ClientId
    #: the request's out-of-band frames (the pickled call first, where `spec.payload` is empty)
    frames: Sequence[Any] = ()
    done: TaskDone | None = None
    result_frames: Sequence[Any] = ()
    received: float | None = None
    engine_uuid: EngineUuid | None = None
    #: None: there was one attempt at most, and `done` describes it
    attempts: list[Attempt] | None = None
    #: where the engine of a single attempt runs; None: unknown
    host: str | None = None
    #: stores that have tables of functions and environments take these two from there
    function_name: str | None = None
    environment: str | None = None
    #: when the running attempt began, on `engine`; None: no engine has announced that it runs the task
    started: float | None = None
    engine: EngineId | None = None

    @property
    def id(self) -> TaskId:
        return self.spec.id

    @property
    def is_light(self) -> bool:
        """Whether the result of a call has been dropped from the database: a pickle is never empty."""
        done = self.done
        return done is not None and done.status == "ok" and not (done.payload or self.result_frames or done.content)


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(
    tuple[TaskSpec, TaskDone | None, list[Attempt], ClientId, EngineUuid | None, str | None, Moment | None]
).decode


def checked(entry: Entry) -> Entry:
    """An entry that was read from a database, which may hold anything. Its parts are sent in messages later.

    Raises
    ------
    msgspec.ValidationError
        It has a value that no message may have.
    """
    e = entry
    _decode(_encode((e.spec, e.done, e.attempts or [], e.client, e.engine_uuid, e.host, e.started)))
    return entry


def state_of(entry: Entry) -> str:
    """The record's state."""
    if entry.done is not None:
        return STATE_OF_STATUS[entry.done.status]
    return PENDING if entry.started is None else RUNNING


def engine_of(entry: Entry) -> EngineId | None:
    """The number of the engine that ran the task, or runs it."""
    if entry.done is None:
        return entry.engine
    return entry.done.engine if entry.done.engine >= 0 else None


def instant(seconds: float | None) -> datetime | None:
    """Seconds since the epoch as an aware datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


_HEX = re.compile("(?:[0-9a-f]{2})+")


def is_hex(text: str) -> bool:
    """Whether a text is the hexadecimal form of bytes, as the digests in records are."""
    return _HEX.fullmatch(text) is not None


def as_digest(function: str | None) -> Digest | None:
    """The digest that the `function` of a record names; None if it names none."""
    return Digest(bytes.fromhex(function)) if function and is_hex(function) else None


def duration_of(started: float | None, completed: float | None) -> float | None:
    """Seconds between two times, if both are known."""
    return None if started is None or completed is None else completed - started


def request_header(spec: TaskSpec, client: ClientId) -> dict[str, Any]:
    """The header of the request, as IPython.parallel's users know it."""
    header: dict[str, Any] = {"msg_id": spec.id, "msg_type": f"{spec.kind}_request", "session": client}
    if spec.options is not None:
        header |= msgspec.to_builtins(spec.options)
        header.pop("metadata", None)
        if "cache" in header:  # its digests have keys of their own
            header["cache"] = True
    return header


_NO_KEY = CacheKey()


def cache_key(spec: TaskSpec) -> CacheKey:
    """The digests under which equal calls find its result; empty ones without the flag `cache`."""
    return (spec.options and spec.options.cache) or _NO_KEY


def source_of(spec: TaskSpec) -> str | None:
    """The source of a cell; None for calls."""
    return spec.payload.decode(errors="replace") if spec.kind == "execute" else None


def content_of(spec: TaskSpec) -> dict[str, Any]:
    """The content of the request: the source of a cell, nothing for a call."""
    return {"code": source_of(spec)} if spec.kind == "execute" else {}


def metadata_of(spec: TaskSpec) -> dict[str, Any]:
    """The metadata given at submission."""
    return dict(spec.options.metadata or {}) if spec.options else {}


def result_content(done: TaskDone) -> dict[str, Any]:
    """The content of the reply: its status, and the error where there is one."""
    content: dict[str, Any] = {"status": done.status}
    if done.error is not None:
        error = done.error
        content |= {
            "ename": error.ename,
            "evalue": error.evalue,
            "traceback": error.traceback,
            "engine_info": {"engine_id": error.engine_id, "engine_uuid": error.engine_uuid, "method": error.method},
        }
        if error.index is not None:
            content["engine_info"] |= {"index": error.index, "arguments": error.arguments}
    if done.content:
        content |= done.content
    return content


def result_header(entry: Entry) -> dict[str, Any] | None:
    """The header of the reply; None until the task has ended."""
    if entry.done is None:
        return None
    return {"msg_type": f"{entry.spec.kind}_reply", "status": entry.done.status, "engine": entry.engine_uuid}


def result_error(entry: Entry) -> dict[str, Any] | None:
    """The error that the task ended with; None where there was none."""
    if entry.done is None or not (entry.done.error or entry.done.content):  # quicker
        return None
    reply = result_content(entry.done)
    return {key: reply.get(key) for key in ("ename", "evalue", "traceback")} if "ename" in reply else None


def cause_of(done: TaskDone) -> str:
    """How an attempt ended: "ok", or the error's name and text."""
    return "ok" if done.error is None else f"{done.error.ename}: {done.error.evalue}"


def attempts_of(entry: Entry) -> list[dict[str, Any]]:
    """Every attempt as a dict."""
    done = entry.done
    if entry.attempts is not None:
        return [
            {
                "number": a.number,
                "engine_id": a.engine,
                "engine_uuid": a.engine_uuid,
                "host": a.host,
                "started": instant(a.started),
                "ended": instant(a.ended),
                "cause": a.cause,
                "peak_memory": a.peak_memory,
                "traceback": a.traceback,
            }
            for a in entry.attempts
        ]
    if done is None or done.started is None:
        return []
    return [
        {
            "number": done.attempt,
            "engine_id": done.engine,
            "engine_uuid": entry.engine_uuid,
            "host": entry.host,
            "started": instant(done.started),
            "ended": instant(done.completed),
            "cause": cause_of(done),
            "peak_memory": done.peak_memory,
            "traceback": done.error.traceback or None if done.error else None,
        }
    ]


def buffers(payload: bytes, frames: Sequence[Any]) -> list[bytes]:
    """A request or a result as a list of bytes, the pickle stream first."""
    large = [bytes(frame) for frame in frames]
    return [payload, *large] if payload or not large else large
