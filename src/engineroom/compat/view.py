"""What ipyparallel has in `client.view`."""

from ..client.results.map_result import AsyncMapResult, LazyMapIterator
from ..client.results.result import AsyncResult
from ..client.views import BroadcastView, DirectView, LoadBalancedView, View
from ..client.views.dependency import Dependency
from ..client.views.executor import ViewExecutor
from ..client.views.remote import ParallelFunction, parallel, remote
from ..on_engine.functional_dependency import dependent

__all__ = [
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Dependency",
    "DirectView",
    "LazyMapIterator",
    "LoadBalancedView",
    "ParallelFunction",
    "View",
    "ViewExecutor",
    "dependent",
    "parallel",
    "remote",
]
