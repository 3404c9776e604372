"""The task record: what the database keeps of every task, and its keys.

`Entry` is the form the controller hands to a store, thousands at a time: the request as the client sent it
and the outcome as the engine sent it. `document` turns it into the record users see: a dict with the keys of
`KEYS`, datetimes in UTC. A store may keep either form, as long as it answers with documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..ids import ClientId, Digest, EngineUuid, TaskId
from ..messages import Attempt, TaskDone, TaskSpec

#: States of a record. "pending" covers queued and running.
PENDING, COMPLETED, FAILED, ABORTED = "pending", "completed", "failed", "aborted"

_STATE_OF_STATUS = {"ok": COMPLETED, "error": FAILED, "aborted": ABORTED}

#: Every key of a record, in the order of a document: name → what it is.
KEYS: dict[str, str] = {
    "msg_id": "the task's id",
    "state": "pending, completed, failed or aborted",
    "label": "given at submission, or None",
    "header": "request header: msg_type, session, and the options given",
    "content": "request content: code for execute, else empty",
    "metadata": "free metadata given at submission",
    "submitted": "when the client submitted it",
    "started": "when the last attempt began on its engine, or None",
    "completed": "when it ended, or None",
    "received": "when the controller had the result, or None",
    "duration": "seconds from started to completed, or None",
    "client_uuid": "the submitting client",
    "engine_uuid": "the engine that ran it, or None",
    "engine_id": "that engine's number, or None",
    "queue": "mux (direct) or task (load-balanced)",
    "function": "digest of the function (hex), or None",
    "function_name": "its name, or None",
    "environment": "digest of the client's environment: Python, packages, working directory; or None",
    "code_digest": "with cache=True: digest of what the function does, or None",
    "arguments_digest": "with cache=True: digest of the arguments, or None",
    "cached_from": "msg_id of the equal task whose result this is, or None: it ran",
    "resubmitted": "msg_id of the task this one was resubmitted as, or None",
    "pinned": "whether retention leaves it alone",
    "attempts": "every attempt: number, engine_id, engine_uuid, host, started, ended, cause, peak_memory, traceback",
    "result_header": "reply header: status, engine, date; None until done",
    "result_metadata": "reply metadata; None until done",
    "result_content": "status, and for errors ename, evalue, traceback; None until done",
    "pyin": "execute: the source",
    "pyout": "execute: the value, as a mime bundle",
    "pyerr": "execute: the error",
    "stdout": "what the task printed",
    "stderr": "what it printed to stderr",
    "buffers": "serialized request: list of bytes",
    "result_buffers": "serialized result: list of bytes, or None",
}

#: Newer spellings of some keys, understood wherever a key is named.
ALIASES = {"execute_input": "pyin", "execute_result": "pyout", "error": "pyerr"}

#: Left out of answers unless asked for.
BULKY = frozenset({"buffers", "result_buffers"})

#: Keys that hold datetimes.
TIMES = frozenset({"submitted", "started", "completed", "received"})


class TaskRecord(dict[str, Any]):
    """A record as returned to users: a dict that also knows the newer spellings of its keys."""

    def __missing__(self, key: str) -> Any:
        if key in ALIASES:
            return self[ALIASES[key]]
        raise KeyError(key)


class Entry(msgspec.Struct, gc=False):
    """All that is known of one task at some moment. Later entries of a task replace earlier ones."""

    spec: TaskSpec
    client: ClientId
    #: the request's out-of-band frames (the pickled call first, where `spec.payload` is empty)
    frames: Sequence[Any] = ()
    done: TaskDone | None = None
    result_frames: Sequence[Any] = ()
    received: float | None = None
    engine_uuid: EngineUuid | None = None
    #: None: a single attempt, told by `done` itself
    attempts: list[Attempt] | None = None
    #: where the engine of a single attempt runs; None: unknown
    host: str | None = None
    #: stores with tables of functions and environments have these from there
    function_name: str | None = None
    environment: str | None = None

    @property
    def id(self) -> TaskId:
        return self.spec.id

    @property
    def is_light(self) -> bool:
        """Whether the result of a call has been let go of: a pickle is never empty."""
        done = self.done
        return done is not None and done.status == "ok" and not (done.payload or self.result_frames or done.content)


def state_of(done: TaskDone | None) -> str:
    """The record's state, given the outcome."""
    return PENDING if done is None else _STATE_OF_STATUS[done.status]


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
    if done.content:
        content |= done.content
    return content


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
    beside = [bytes(f) for f in frames]
    return [payload, *beside] if payload or not beside else beside


def document(entry: Entry) -> TaskRecord:
    """The record as users see it, every key present."""
    spec, done = entry.spec, entry.done
    options = spec.options
    cache = options.cache if options else None
    execute = spec.kind == "execute"
    reply = None if done is None else result_content(done)
    return TaskRecord(
        msg_id=spec.id,
        state=state_of(done),
        label=options.label if options else None,
        header=request_header(spec, entry.client),
        content={"code": spec.payload.decode()} if execute else {},
        metadata=dict(options.metadata or {}) if options else {},
        submitted=instant(spec.submitted),
        started=instant(done.started) if done else None,
        completed=instant(done.completed) if done else None,
        received=instant(entry.received),
        duration=duration_of(done.started, done.completed) if done else None,
        client_uuid=entry.client,
        engine_uuid=entry.engine_uuid,
        engine_id=done.engine if done and done.engine >= 0 else None,
        queue="task" if spec.engine < 0 else "mux",
        function=spec.function.hex() or None,
        function_name=entry.function_name,
        environment=entry.environment,
        code_digest=cache.code or None if cache else None,
        arguments_digest=cache.arguments or None if cache else None,
        cached_from=done.cached_from if done else None,
        resubmitted=None,
        pinned=False,
        attempts=attempts_of(entry),
        result_header=None
        if done is None
        else {"msg_type": f"{spec.kind}_reply", "status": done.status, "engine": entry.engine_uuid},
        result_metadata=None if done is None else {},
        result_content=reply,
        pyin=spec.payload.decode() if execute else None,
        pyout=reply.get("execute_result") if execute and reply else None,
        pyerr={k: reply.get(k) for k in ("ename", "evalue", "traceback")}
        if execute and reply and "ename" in reply
        else None,
        stdout=done.stdout if done else "",
        stderr=done.stderr if done else "",
        buffers=buffers(spec.payload, entry.frames),
        result_buffers=None if done is None else buffers(done.payload, entry.result_frames),
    )


def explain_ended(record: Mapping[str, Any]) -> dict[str, Any]:
    """How, when and where a recorded task ended: `msg_id`, `state` "ended", `reason` in words, `details`."""
    words = {COMPLETED: "it ended well", FAILED: "it failed", ABORTED: "it was aborted"}
    attempts, error = record["attempts"] or [], record["result_content"] or {}
    host = next((attempt["host"] for attempt in reversed(attempts) if attempt.get("host")), None)
    reason = words.get(record["state"], record["state"])
    if record["engine_id"] is not None:
        reason += f" on engine {record['engine_id']}" + (f" ({host})" if host else "")
    if record["completed"] is not None:
        reason += f" at {record['completed'].astimezone():%Y-%m-%d %H:%M:%S}"
        if record["started"] is not None:
            reason += f", after {(record['completed'] - record['started']).total_seconds():.3g} s of running"
    if len(attempts) > 1:
        reason += f", at attempt {len(attempts)}"
    if record["cached_from"]:
        reason += f", with the result of {record['cached_from']}, an equal call"
    if error.get("ename"):
        reason += f": {error['ename']}: {error.get('evalue', '')}"
    details = {key: record[key] for key in ("submitted", "started", "completed", "engine_id", "attempts")}
    details["outcome"] = record["state"]
    return {"msg_id": record["msg_id"], "state": "ended", "reason": reason, "details": details}
