"""Engineroom: an interactive parallel-computing cluster for Python, with a memory.

>>> import engineroom as er
>>> with er.Cluster(n=2) as rc:                      # doctest: +SKIP
...     rc.load_balanced_view().map_sync(abs, [-1, -2])
[1, 2]
"""

import typing as _typing
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

from ._version import __version__, version_info
from .client import Client
from .client.interop.executor import ViewExecutor
from .client.records.explanation import Explanation
from .client.records.selection import Selection
from .client.results.graph_result import GraphResult
from .client.results.map_result import AsyncMapResult
from .client.results.metadata import ExecuteReply, Metadata
from .client.results.result import AsyncHubResult, AsyncResult
from .client.views import DirectView, LoadBalancedView
from .client.views.dependency import Dependency
from .client.views.remote import ParallelFunction, RemoteFunction, parallel, remote
from .errors import (
    AlreadyDisplayedError,
    AuthenticationError,
    CompositeError,
    ConfigError,
    ConnectionFileError,
    ControllerLost,
    DependencyTimeout,
    EngineError,
    EngineroomError,
    ImpossibleDependency,
    InvalidDependency,
    IPythonError,
    KernelError,
    MessageTooLarge,
    NoEnginesRegistered,
    PendingTask,
    ProtocolError,
    QueryError,
    RemoteError,
    SerializationError,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreRefused,
    TaskAborted,
    TaskTimeout,
    TimeoutError,
    UnknownTask,
    UnmetDependency,
    WaitError,
)
from .on_engine.engine_calls import Reference
from .on_engine.engine_properties import properties
from .on_engine.functional_dependency import depend, dependent, require
from .on_engine.random_streams import task_rng
from .on_engine.task_context import current_task
from .util import interactive
from .wire import former_names as _former_names
from .wire import modules as _modules

_former_names.install()
_modules.watch()

if _typing.TYPE_CHECKING:
    from . import tasks
    from .cluster.cluster import Cluster


def __getattr__(name: str) -> object:
    """What not every program uses is imported when it is first asked for."""
    if name == "tasks":
        from importlib import import_module

        return import_module("engineroom.tasks")
    if name == "Cluster":
        from .cluster.cluster import Cluster

        globals()[name] = Cluster
        return Cluster
    raise AttributeError(f"module 'engineroom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "AuthenticationError",
    "Client",
    "Cluster",
    "CompositeError",
    "ConfigError",
    "ConnectionFileError",
    "ControllerLost",
    "Dependency",
    "DependencyTimeout",
    "DirectView",
    "EngineError",
    "EngineroomError",
    "ExecuteReply",
    "Explanation",
    "GraphResult",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "KernelError",
    "LoadBalancedView",
    "MessageTooLarge",
    "Metadata",
    "NoEnginesRegistered",
    "ParallelFunction",
    "PendingTask",
    "ProtocolError",
    "QueryError",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "Selection",
    "SerializationError",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreRefused",
    "TaskAborted",
    "TaskTimeout",
    "TimeoutError",
    "UnknownTask",
    "UnmetDependency",
    "ViewExecutor",
    "WaitError",
    "__version__",
    "current_task",
    "depend",
    "dependent",
    "interactive",
    "parallel",
    "properties",
    "remote",
    "require",
    "task_rng",
    "tasks",
    "version_info",
]
