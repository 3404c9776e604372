"""Tools for tests: a clock that obeys, a network in memory, engines that only pretend, a simulation of it all, and
recorded histories once more.

>>> from engineroom.testing import Chaos, simulate
>>> report = simulate(seed=7, engines=20, tasks=200, chaos=Chaos.wild())
>>> report.outcomes.total()
200
"""

from .clock import VirtualClock
from .engine import FakeEngine
from .network import MemoryLink, MemoryListener, MemoryNetwork
from .peers import Run
from .replay import History, Replay, replay
from .simulation import Chaos, Report, simulate
from .virtual import VirtualCluster
from .workload import Workload

__all__ = [
    "Chaos",
    "FakeEngine",
    "History",
    "MemoryLink",
    "MemoryListener",
    "MemoryNetwork",
    "Replay",
    "Report",
    "Run",
    "VirtualClock",
    "VirtualCluster",
    "Workload",
    "replay",
    "simulate",
]
