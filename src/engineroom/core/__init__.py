"""The scheduling core: events in, actions out. Pure: no sockets, clocks, files, threads or global random state."""

from .scheduler import Scheduler

__all__ = ["Scheduler"]
