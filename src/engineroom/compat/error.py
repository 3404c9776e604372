"""What ipyparallel has in `error`: the classes of `engineroom.errors`, and what only its own engines use."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any

from ..collecting import collect_exceptions
from ..errors import (
    OUTCOMES,
    AlreadyDisplayedError,
    CompositeError,
    DependencyTimeout,
    EngineError,
    EngineInfo,
    ImpossibleDependency,
    InvalidDependency,
    IPythonError,
    KernelError,
    NoEnginesRegistered,
    RemoteError,
    TaskAborted,
    TaskTimeout,
    TimeoutError,
    UnmetDependency,
)


class TaskRejectError(KernelError):
    """Never raised here. A name for `except`: a task that no engine accepts ends with ImpossibleDependency."""

    code = "task-rejected"


def wrap_exception(engine_info: EngineInfo | None = None) -> dict[str, Any]:
    """The exception that is being handled, as the content of a message: status, ename, evalue, traceback, engine_info.

    `traceback` is a list of lines.
    """
    kind, error, _ = sys.exc_info()
    return {
        "status": "error",
        "ename": kind.__name__ if kind else "None",
        "evalue": str(error),
        "traceback": traceback.format_exc().splitlines(),
        "engine_info": dict(engine_info or {}),
    }


def unwrap_exception(content: Mapping[str, Any]) -> Exception:
    """The exception of a message: of a failure that Engineroom itself reports its own class, else a RemoteError."""
    name, text = content["ename"], content["evalue"]
    if name in OUTCOMES:
        return OUTCOMES[name](text)
    lines = content.get("traceback") or ""
    whole = lines if isinstance(lines, str) else "\n".join(lines)
    return RemoteError(name, text, whole, content.get("engine_info"))


__all__ = [
    "AlreadyDisplayedError",
    "CompositeError",
    "DependencyTimeout",
    "EngineError",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "KernelError",
    "NoEnginesRegistered",
    "RemoteError",
    "TaskAborted",
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UnmetDependency",
    "collect_exceptions",
    "unwrap_exception",
    "wrap_exception",
]
