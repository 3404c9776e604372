"""Faults of the kill campaign: who is killed, stopped for a moment, or cut off; each counted once it has happened.

A kill counts when the process is gone, a stop when the kernel says that the process is stopped, a cut when the host
cannot be reached any more.
"""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from random import Random
from typing import Any

import psutil

from engineroom.system.processes import birth_of

#: The chance of each: victims that are killed, and that are stopped and go on.
WEIGHTS = {
    "engine killed": 6,
    "nanny killed": 1,
    "zygote killed": 1,
    "controller killed": 2,
    "client killed": 2,
    "engine stopped": 1,
    "nanny stopped": 1,
    "controller stopped": 1,
    "client stopped": 1,
}
#: How often a host is cut off, where there are hosts; and all faults that there are.
CUT = ("host cut off", 6)
FAULTS = (*WEIGHTS, CUT[0])
#: After this long the kernel must have done what it was told.
KERNEL_SECONDS = 20.0
#: Nobody starts a part of a cluster again that has died five times in a row within 2 s of its start.
OFTEN = {"nanny": 2.5, "zygote": 2.5, "controller": 2.5}


class Injector:
    """Injects faults into one cluster.

    Parameters
    ----------
    chance : Random
        Chooses.
    processes : callable
        The running processes of the cluster.
    client : callable
        The process of the user's program.
    hosts : support.hosts.Namespaces, optional
        Hosts that can be cut off.
    """

    def __init__(
        self,
        chance: Random,
        processes: Callable[[], list[psutil.Process]],
        client: Callable[[], psutil.Process],
        hosts: Any = None,
    ) -> None:
        self._chance, self._processes, self._client, self._hosts = chance, processes, client, hosts
        self._not_before: dict[str, float] = {}
        #: what has happened
        self.counts: collections.Counter[str] = collections.Counter()
        #: processes that were killed
        self.killed: set[int] = set()

    def inject(self) -> None:
        """One fault, by chance; nothing if its victim is not there at the moment."""
        weights = dict(WEIGHTS)
        if self._hosts is not None:
            weights.update([CUT])
            del weights["nanny killed"], weights["zygote killed"]  # no launcher starts those of other hosts again
        [what] = self._chance.choices(list(weights), list(weights.values()))
        part, _, how = what.rpartition(" ")
        with contextlib.suppress(psutil.NoSuchProcess):
            if part == "host cut":
                self._cut(what)
            elif victim := self._victim(part):
                (self._kill if how == "killed" else self._stop)(what, victim)

    def _victim(self, part: str) -> psutil.Process | None:
        if time.monotonic() < self._not_before.get(part, 0.0):
            return None
        victims = [self._client()] if part == "client" else self.parts().get(part, [])
        if not victims:
            return None
        if part in OFTEN:
            self._not_before[part] = time.monotonic() + OFTEN[part]
        return self._chance.choice(victims)

    def parts(self) -> dict[str, list[psutil.Process]]:
        """The running processes of the cluster by what they are."""
        return parts_of(self._processes())

    def _kill(self, what: str, victim: psutil.Process) -> None:
        victim.send_signal(signal.SIGKILL)
        self.killed.add(victim.pid)
        _until(lambda: not (victim.is_running() and birth_of(victim.pid)), f"{victim} still lives")
        self.counts[what] += 1

    def _stop(self, what: str, victim: psutil.Process) -> None:
        victim.send_signal(signal.SIGSTOP)
        try:
            _until(lambda: victim.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), f"{victim} still runs")
            is_stopped = victim.status() == psutil.STATUS_STOPPED
            time.sleep(self._chance.uniform(0.05, 1.5))
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGCONT)
        self.counts[what] += is_stopped

    def _cut(self, what: str) -> None:
        name = self._chance.choice(sorted(self._hosts.addresses))
        _until(lambda: _reached(self._hosts.addresses[name]), f"{name} cannot be reached before it is cut off")
        self._hosts.cut(name)
        try:
            assert not _reached(self._hosts.addresses[name]), f"{name} was not cut off"
            self.counts[what] += 1
            time.sleep(self._chance.uniform(0.0, self._chance.choice((4.0, 8.0))))  # connections live for 5 s
        finally:
            self._hosts.mend(name)


def parts_of(processes: list[psutil.Process]) -> dict[str, list[psutil.Process]]:
    """The processes of a cluster by what they are: the nanny starts the zygote, and this one the engines."""
    found: dict[str, list[psutil.Process]] = {}
    kin = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if "engineroom.controller" in words:
                found.setdefault("controller", []).append(process)
            elif "engineroom.engine" in words and "ssh" not in words[0]:
                above = [one.pid in kin and "engineroom.engine" in one.cmdline() for one in process.parents()]
                found.setdefault(("nanny", "zygote", "engine")[min(2, sum(above))], []).append(process)
    return found


def _reached(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 22), timeout=0.5):
        return True
    return False


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + KERNEL_SECONDS
    with contextlib.suppress(psutil.NoSuchProcess):
        while not condition():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.002)
