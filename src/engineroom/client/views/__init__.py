"""Views: what users submit work through. A view is a set of engines and a way to use them."""

from .balanced import LoadBalancedView
from .base import View
from .broadcast import BroadcastView
from .direct import DirectView

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView", "View"]
