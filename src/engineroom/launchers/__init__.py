"""Launchers: they start the processes of a cluster. One file for each kind; `registry` finds them by name."""

from .base import EngineLauncher, Launcher, LaunchRequest
from .found import FoundProcess
from .local import LocalProcess

__all__ = ["EngineLauncher", "FoundProcess", "LaunchRequest", "Launcher", "LocalProcess"]
