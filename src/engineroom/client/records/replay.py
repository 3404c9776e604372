"""A recorded call, run once more: here, in this process, where a debugger can be."""

from __future__ import annotations

import builtins
import linecache
import pdb
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import UnknownTask
from ...ids import Digest, TaskId
from ...messages import Function, GetFunction
from ...remote import engine_calls
from ...wire import functions, payload, source_lines
from ...wire import input_cache as values

if TYPE_CHECKING:
    from .queries import HubClient


def replay(client: HubClient, id: TaskId, namespace: Mapping[str, Any] | None, debug: bool) -> Any:
    """Run the call of a task, or its cell, in this process; see `Client.replay`."""
    found = client.db_query({"msg_id": id}, ["header", "content", "function", "buffers"])
    if not found:
        raise UnknownTask(f"no such task: {id}")
    record = found[0]
    kind = record["header"]["msg_type"].removesuffix("_request") if record["header"] else "apply"
    space = {"__name__": "__main__", "__builtins__": builtins, "__doc__": None, **(namespace or {})}
    try:
        if kind == "execute":
            return _execute(record["content"]["code"], space, id)
        return _call(client, record, kind, space)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
            trace = trace.tb_next
        source_lines.show_in_traceback(error)
        if debug:
            post_mortem(trace or error.__traceback__)
        raise error.with_traceback(trace)  # noqa: B904 - the same error


#: The debugger.
post_mortem = pdb.post_mortem


def _execute(code: str, space: dict[str, Any], id: TaskId) -> None:
    name = f"<cell of {id}>"
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    exec(compile(code, name, "exec"), space)


def _call(client: HubClient, record: Mapping[str, Any], kind: str, space: dict[str, Any]) -> Any:
    buffers = record["buffers"]
    if not buffers or not any(buffers):
        raise UnknownTask(f"the call of task {record['msg_id']} is not kept any more: its payload was dropped")
    if not record["function"]:
        raise UnknownTask(f"the record of task {record['msg_id']} names no function: it was added by hand")
    function = client._channel.ask(GetFunction(record["function"]))
    travelled: dict[str, Any] = {}
    with functions.living_in(space), functions.collecting(travelled):
        call = functions.load_function(
            Function(Digest(bytes.fromhex(record["function"])), function["payload"], source=function["source"])
        )
        with values.providing(_inputs(client, (record["header"] or {}).get("inputs") or ())):
            args, kwargs = payload.loads(buffers[0], [bytearray(buffer) for buffer in buffers[1:]])
    for name, value in {**travelled, **call.travelled}.items():
        space.setdefault(name, value)
    return engine_calls.map_parts(call.call, *args) if kind == "map" else call.call(*args, **kwargs)


def _inputs(client: HubClient, ids: Sequence[TaskId]) -> dict[TaskId, tuple[bytes, Sequence[Any]]]:
    """The results that a call takes, from their records."""
    if not ids:
        return {}
    found = client.db_query({"msg_id": {"$in": list(ids)}, "state": "completed"}, "result_buffers")
    results = {r["msg_id"]: r["result_buffers"] for r in found if r["result_buffers"] and any(r["result_buffers"])}
    for id in ids:
        if id not in results:
            raise UnknownTask(f"the result of task {id}, an argument of this one, is not kept any more")
    return {id: (buffers[0], buffers[1:]) for id, buffers in results.items()}


_OURS = {__file__, *(module.__file__ for module in (functions, engine_calls, payload, values))}
