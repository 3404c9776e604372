"""Launchers: they start the processes of a cluster. One file for each kind."""

from .base import Launcher
from .found import FoundProcess
from .local import LocalProcess

__all__ = ["FoundProcess", "Launcher", "LocalProcess"]
