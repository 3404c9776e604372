"""Changes the size of a cluster: once (`scale_to`), or all the time as the plan decides (`Adaptive`)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import ControllerLost, EngineroomError
from .plan import CancelSet, Plan, ScalingSettings, Seen, StartEngines, StopEngines

if TYPE_CHECKING:
    from ...client import Client  # imported late: it takes about as long as a controller takes to start

log = logging.getLogger(__name__)

#: Seconds to wait for engines that leave, in `scale_to`: their running tasks may take longer.
LEAVE_SECONDS = 30.0


class Scalable(Protocol):
    """What is asked of a cluster."""

    def connect_client_sync(self) -> Client:
        """A client of the cluster."""

    def start_engines_sync(self, n: int) -> str:
        """Start engines; returns the id of their set."""

    def stop_engines_sync(self, engine_set_id: str) -> None:
        """Stop a set of engines, or cancel it."""

    def waiting_engines(self) -> dict[str, int]:
        """Set of engines → how many of them wait in a batch system's queue. Sets that have ended are left out."""

    def started_engines(self) -> int:
        """How many engines should be there, also those that are just starting."""

    def give_back(self, client: Client, engines: Sequence[int]) -> None:
        """Have engines leave, once they have finished what they run."""


def see(client: Client, cluster: Scalable) -> Seen:
    """What there is now."""
    status: dict[Any, Any] = client.queue_status()
    waiting = int(status.pop("unassigned"))
    held = {int(engine): counts["queue"] + counts["tasks"] for engine, counts in status.items()}
    return Seen(
        completed={int(engine): counts["completed"] for engine, counts in status.items()},
        busy=frozenset(engine for engine, count in held.items() if count),
        tasks=waiting + sum(held.values()),
        waiting=cluster.waiting_engines(),
    )


def scale_to(cluster: Scalable, client: Client, n: int) -> str | None:
    """Have a cluster have `n` engines: start some; or cancel requests that wait, and stop engines, idle ones first.

    Returns the id of the set of engines that was started; None: none was.
    """
    seen = see(client, cluster)
    there = max(len(seen.completed), cluster.started_engines())
    surplus = there + sum(seen.waiting.values()) - n
    if surplus < 0:
        return cluster.start_engines_sync(-surplus)
    for set_id, count in reversed(list(seen.waiting.items())):
        if 0 < count <= surplus:
            cluster.stop_engines_sync(set_id)
            surplus -= count
    order = sorted(seen.completed, key=lambda engine: (engine in seen.busy, -engine))
    leaving = order[: max(0, surplus)]
    if leaving:
        cluster.give_back(client, leaving)
        deadline = time.monotonic() + LEAVE_SECONDS
        while set(leaving) & set(client.ids) and time.monotonic() < deadline:
            time.sleep(0.02)
    return None


class Adaptive:
    """Keeps a cluster as large as its queue needs, in a thread of its own, until `stop`."""

    def __init__(self, cluster: Scalable, settings: ScalingSettings) -> None:
        self._cluster, self._settings = cluster, settings
        self.plan = Plan(settings)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adaptive", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End. May be called twice."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._cluster.connect_client_sync() as client:
                while not self._stopped.wait(self._settings.interval):
                    try:
                        self._look(client)
                    except ControllerLost:
                        raise
                    except (EngineroomError, TimeoutError, KeyError) as error:
                        log.warning("the cluster could not be scaled: %s", error)
        except Exception as error:
            if not self._stopped.is_set():
                log.error("the cluster is not scaled any more: %s", error)

    def _look(self, client: Client) -> None:
        seen = see(client, self._cluster)
        for set_id in [set_id for set_id in self.plan.requested if set_id not in seen.waiting]:
            self.plan.drop(set_id)  # it has ended: its engines do not come any more
        for action in self.plan.look(seen, time.monotonic()):
            if self._stopped.is_set():
                return
            match action:
                case StartEngines(count):
                    self.plan.request(self._cluster.start_engines_sync(count), count)
                case CancelSet(set_id):
                    self._cluster.stop_engines_sync(set_id)
                    self.plan.drop(set_id)
                case StopEngines(engines):
                    self._cluster.give_back(client, engines)
            plan = self.plan
            told = (action, plan.wanted, sum(plan.requested.values()), plan.observed)
            log.info("%s (wanted %d, requested %d, observed %d)", *told)
