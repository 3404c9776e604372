"""Engineroom: an interactive parallel-computing cluster for Python, with a memory.

>>> import engineroom as er
>>> with er.Cluster(n=2) as rc:                      # doctest: +SKIP
...     rc.load_balanced_view().map_sync(abs, [-1, -2])
[1, 2]
"""

import typing as _typing

from . import import_watch as _import_watch
from ._version import __version__, version_info
from .compat import paths as _paths
from .wire import former_names as _former_names

_former_names.install(_paths.PATHS)
_import_watch.watch()

# All else is imported when it is first asked for: engines, controllers and many commands need little of it. Type
# checkers read the lines below; at run time `__getattr__` does what they say.
if _typing.TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from . import tasks
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
    from .cluster.cluster import Cluster
    from .cluster.manager import ClusterManager
    from .cluster.reusable import get_reusable_executor
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
    from .compat.top_level import bind_kernel, load_jupyter_server_extension, register_joblib_backend
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
        NotAllowed,
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
else:

    def __getattr__(name: str) -> object:
        """Import what is asked for."""
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"engineroom.{name}")
        home = _homes().get(name)
        if name.startswith(("_jupyter_", "_load_jupyter_")):  # Jupyter asks for them, and not every one is there
            home = ".compat.top_level"
        if home is None:
            module = import_module(__name__)
            raise AttributeError(f"module 'engineroom' has no attribute {name!r}", name=name, obj=module)
        globals()[name] = found = getattr(import_module(home, __name__), name)
        return found


#: module → the public names that come from it
_NAMES = {
    ".client.client": "Client",
    ".client.records.explanation": "Explanation",
    ".client.records.selection": "Selection",
    ".client.results.graph_result": "GraphResult",
    ".client.results.map_result": "AsyncMapResult",
    ".client.results.metadata": "ExecuteReply Metadata",
    ".client.results.result": "AsyncHubResult AsyncResult",
    ".client.views": "BroadcastView DirectView LoadBalancedView",
    ".client.views.dependency": "Dependency",
    ".client.views.executor": "ViewExecutor",
    ".client.views.remote": "ParallelFunction RemoteFunction parallel remote",
    ".cluster.cluster": "Cluster",
    ".cluster.manager": "ClusterManager",
    ".cluster.reusable": "get_reusable_executor",
    ".compat.error": "TaskRejectError",
    ".compat.serialize": (
        "PrePickled can can_map deserialize_object pack_apply_message serialize_object uncan uncan_map"
        " unpack_apply_message use_cloudpickle use_dill use_pickle"
    ),
    ".compat.top_level": "bind_kernel load_jupyter_server_extension register_joblib_backend",
    ".errors": (
        "AlreadyDisplayedError AuthenticationError CompositeError ConfigError ConnectionFileError ControllerLost"
        " DependencyTimeout EngineError EngineroomError IPythonError ImpossibleDependency InvalidDependency KernelError"
        " LaunchError"
        " MessageTooLarge NoEnginesRegistered NotAllowed PendingTask ProtocolError QueryError RemoteError"
        " SerializationError StoreBusy StoreDamaged StoreError StoreFull StoreRefused TaskAborted TaskTimeout"
        " TimeoutError UnknownTask UnmetDependency WaitError"
    ),
    ".on_engine.engine_calls": "Reference",
    ".on_engine.engine_properties": "properties",
    ".on_engine.functional_dependency": "depend dependent require",
    ".on_engine.random_streams": "task_rng",
    ".on_engine.task_context": "current_task",
    ".util": "interactive",
    "concurrent.futures": "ALL_COMPLETED FIRST_COMPLETED FIRST_EXCEPTION",
}
#: modules that are attributes of this one before they are imported: `import engineroom as ipp; ipp.error.RemoteError`
_MODULES = (
    *("apps", "client", "cluster", "config", "controller", "datapub", "engine", "error", "errors", "ids", "joblib"),
    *("messages", "on_engine", "records", "serialize", "tasks", "transport", "util", "wire"),
)


def _homes() -> dict[str, str]:
    """Public name → the module that it comes from."""
    return {name: module for module, names in _NAMES.items() for name in names.split()}


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
    "NotAllowed",
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
    "bind_kernel",
    "can",
    "can_map",
    "current_task",
    "depend",
    "dependent",
    "deserialize_object",
    "get_reusable_executor",
    "interactive",
    "load_jupyter_server_extension",
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
