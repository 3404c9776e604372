"""What ipyparallel has in `client.view`."""

from ..client.results.map_result import LazyMapIterator
from ..client.views import BroadcastView, DirectView, LoadBalancedView, View
from ..client.views.executor import ViewExecutor

__all__ = ["BroadcastView", "DirectView", "LazyMapIterator", "LoadBalancedView", "View", "ViewExecutor"]
