"""Runs a recorded call again in this process, where a debugger can be. (`testing/replay` replays whole histories.)"""

from __future__ import annotations

import builtins
import linecache
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UnknownTask
from ...ids import Digest, TaskId
from ...messages import Function
from ...on_engine import engine_calls
from ...on_engine.random_streams import Seeded
from ...wire import functions, input_cache, payload, source_lines
from .queries import Records


def replay(
    records: Records, id: TaskId, *, namespace: Mapping[str, Any] | None = None, debug: bool = False
) -> Any:
    """Run a task's recorded call in this process, to debug it; nothing is recorded.

    The function, its arguments and results of other tasks among them are unpickled here: so the database must be
    as trustworthy as code is. A function of a `__main__` runs in a new namespace, with the globals that were sent
    with it. A cell runs in an empty namespace, as plain Python.

    Parameters
    ----------
    id : str
        The task: for `Client.replay` also an index, or an AsyncResult.
    namespace : dict, optional
        Names that the call finds, as if they had been pushed to the engine. (Pushed names are not recorded.)
    debug : bool
        If the call raises, start the debugger (`pdb`) there, then raise.

    Returns
    -------
    object
        What the call returns; None for a cell.

    Raises
    ------
    Exception
        Whatever the call raises, with a traceback of this process.
    UnknownTask
        There is no such record, or its payload is not kept any more.
    """
    if not isinstance(namespace, Mapping | None):
        raise TypeError(f"namespace is a dict of names and values; got {namespace!r:.60}")
    found = records.find({"msg_id": id}, ["header", "content", "function", "buffers"])
    if not found:
        raise UnknownTask(f"no such task: {id}")
    record = found[0]
    kind = record["header"]["msg_type"].removesuffix("_request") if record["header"] else "apply"
    space = {"__name__": "__main__", "__builtins__": builtins, "__doc__": None, **(namespace or {})}
    try:
        if kind == "execute":
            return _execute(record["content"]["code"], space, id)
        return _call(records, record, kind, space)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
            trace = trace.tb_next
        source_lines.show_in_traceback(error)
        if debug:
            post_mortem(trace or error.__traceback__)
        raise error.with_traceback(trace)  # noqa: B904 - the same error


def post_mortem(trace: Any) -> None:
    """Start the debugger where a traceback ends."""
    import pdb

    pdb.post_mortem(trace)


def _execute(code: str, space: dict[str, Any], id: TaskId) -> None:
    name = f"<cell of {id}>"
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    exec(compile(code, name, "exec"), space)


def _call(records: Records, record: Mapping[str, Any], kind: str, space: dict[str, Any]) -> Any:
    buffers = record["buffers"]
    if not buffers or not any(buffers):
        raise UnknownTask(f"the call of task {record['msg_id']} is not kept any more: its payload was dropped")
    if not record["function"]:
        raise UnknownTask(f"the record of task {record['msg_id']} names no function: it was added by hand")
    function = records.function(record["function"])
    travelled: dict[str, Any] = {}
    with functions.living_in(space), functions.collecting(travelled):
        call = functions.load_function(
            Function(Digest(bytes.fromhex(record["function"])), function["payload"], source=function["source"])
        )
        if isinstance(call.call, functions.Hollow):
            call = functions.fill(call.call, [bytearray(b) for b in call.call.buffers_of(buffers)])
        with input_cache.providing(_inputs(records, (record["header"] or {}).get("inputs") or ())):
            args, kwargs = payload.loads(buffers[0], [bytearray(buffer) for buffer in buffers[1:]])
    for name, value in {**travelled, **call.travelled}.items():
        space.setdefault(name, value)
    if kind == "map":
        of_items = call.call
        if isinstance(of_items, Seeded):
            of_items = of_items.items(kwargs.get("first", 0), kwargs.get("step", 1))
        return engine_calls.map_parts(of_items, *args)
    return call.call(*args) if kind == "part" else call.call(*args, **kwargs)


def _inputs(records: Records, ids: Sequence[TaskId]) -> dict[TaskId, tuple[bytes, Sequence[Any]]]:
    """The results that a call takes, from their records."""
    if not ids:
        return {}
    found = records.find({"msg_id": {"$in": list(ids)}, "state": "completed"}, "result_buffers")
    results = {r["msg_id"]: r["result_buffers"] for r in found if r["result_buffers"] and any(r["result_buffers"])}
    for id in ids:
        if id not in results:
            raise UnknownTask(f"the result of task {id}, an argument of this one, is not kept any more")
    return {id: (buffers[0], buffers[1:]) for id, buffers in results.items()}


#: Files whose frames are left out of tracebacks.
_OURS = {__file__, *(module.__file__ for module in (functions, input_cache, engine_calls, payload))}
