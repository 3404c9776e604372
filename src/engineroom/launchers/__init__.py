"""What starts controllers and engines."""

from .base import Launcher
from .local import FoundProcess, LocalProcess

__all__ = ["FoundProcess", "Launcher", "LocalProcess"]
