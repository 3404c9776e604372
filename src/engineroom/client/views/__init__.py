"""Views: what users submit work through. A view is a set of engines and a way to use them."""

from .balanced import LoadBalancedView
from .base import View
from .direct import DirectView

__all__ = ["DirectView", "LoadBalancedView", "View"]
