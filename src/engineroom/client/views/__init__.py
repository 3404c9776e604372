"""Views: what one works with. A view is a set of engines and a way to use them."""

from ..interop.executor import ViewExecutor
from .balanced import LoadBalancedView
from .base import View
from .direct import DirectView

__all__ = ["DirectView", "LoadBalancedView", "View", "ViewExecutor"]
