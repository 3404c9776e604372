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
from .client.records.explanation import Explanation
from .client.records.selection import Selection
from .client.results.graph_result import GraphResult
from .client.results.map_result import AsyncMapResult
from .client.results.metadata import ExecuteReply, Metadata
from .client.results.result import AsyncHubResult, AsyncResult
from .client.views import BroadcastView, DirectView, LoadBalancedView
from .client.views.dependency import Dependency
from .client.views.executor import ViewExecutor
from .client.views.remote import ParallelFunction, RemoteFunction, parallel, remote
from .compat import paths as _paths
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
    LaunchError,
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

_former_names.install(_paths.PATHS)
_modules.watch()

if _typing.TYPE_CHECKING:
    from . import tasks
    from .cluster.cluster import Cluster
    from .cluster.manager import ClusterManager
    from .compat import error as error
    from .compat import serialize as serialize
    from .compat.error import TaskRejectError
    from .compat.serialize import (
        PrePickled,
        can,
        can_map,
        deserialize_object,
        pack_apply_message,
        serialize_object,
        uncan,
        uncan_map,
        unpack_apply_message,
        use_cloudpickle,
        use_dill,
        use_pickle,
    )
    from .compat.top_level import register_joblib_backend

#: public name → the module that it is imported from when it is first asked for: not every program uses it
_LATER = {
    "Cluster": "cluster.cluster",
    "ClusterManager": "cluster.manager",
    "TaskRejectError": "compat.error",
    "register_joblib_backend": "compat.top_level",
    "PrePickled": "compat.serialize",
    "can": "compat.serialize",
    "can_map": "compat.serialize",
    "deserialize_object": "compat.serialize",
    "pack_apply_message": "compat.serialize",
    "serialize_object": "compat.serialize",
    "uncan": "compat.serialize",
    "uncan_map": "compat.serialize",
    "unpack_apply_message": "compat.serialize",
    "use_cloudpickle": "compat.serialize",
    "use_dill": "compat.serialize",
    "use_pickle": "compat.serialize",
}
#: modules that are attributes of this one before they are imported: `import engineroom as ipp; ipp.error.RemoteError`
_MODULES = ("apps", "cluster", "controller", "datapub", "engine", "error", "joblib", "serialize", "tasks")


def __getattr__(name: str) -> object:
    """What not every program uses is imported when it is first asked for."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"engineroom.{name}")
    if name in _LATER:
        globals()[name] = found = getattr(import_module(f"engineroom.{_LATER[name]}"), name)
        return found
    raise AttributeError(f"module 'engineroom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "AuthenticationError",
    "BroadcastView",
    "Client",
    "Cluster",
    "ClusterManager",
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
    "LaunchError",
    "LoadBalancedView",
    "MessageTooLarge",
    "Metadata",
    "NoEnginesRegistered",
    "ParallelFunction",
    "PendingTask",
    "PrePickled",
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
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UnknownTask",
    "UnmetDependency",
    "ViewExecutor",
    "WaitError",
    "__version__",
    "can",
    "can_map",
    "current_task",
    "depend",
    "dependent",
    "deserialize_object",
    "interactive",
    "pack_apply_message",
    "parallel",
    "properties",
    "register_joblib_backend",
    "remote",
    "require",
    "serialize_object",
    "task_rng",
    "tasks",
    "uncan",
    "uncan_map",
    "unpack_apply_message",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
    "version_info",
]
