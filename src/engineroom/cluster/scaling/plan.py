"""How many engines a cluster should have, and what to do about it. Facts in, actions out: no clocks, no processes.

Three numbers are kept apart: what is *wanted* (from the queue and the measured durations), what was *requested* and has
not come yet (jobs may wait in a queue for hours), and what is *observed* (engines that are there).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...errors import ConfigError

#: How much one measurement of the mean duration counts against those before it.
WEIGHT = 0.3


class ScalingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How `Cluster(adaptive=…)` behaves. Times are in seconds."""

    minimum: int = 1  #: engines that are always there
    maximum: int  #: engines at most
    target: float = 30.0  #: the queue should be done within this time
    idle: float = 60.0  #: engines that are not needed for this long are given back
    interval: float = 1.0  #: between two looks

    @classmethod
    def read(cls, given: Any) -> ScalingSettings:
        """From `(minimum, maximum)`, or a dict of these settings. Raises ConfigError."""
        try:
            if isinstance(given, Mapping):
                made = msgspec.convert(dict(given), cls)
            else:
                least, most = given
                made = msgspec.convert({"minimum": least, "maximum": most}, cls)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"adaptive is (least, most) engines, or a dict of {', '.join(cls.__struct_fields__)}: {error}"
            ) from None
        if not 1 <= made.minimum <= made.maximum:
            raise ConfigError(
                f"adaptive: there is at least 1 engine, and not fewer at most than at least; got {made.minimum} and "
                f"{made.maximum}"
            )
        if min(made.target, made.idle, made.interval) <= 0:
            raise ConfigError("adaptive: target, idle and interval are above 0")
        return made


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What there is at one moment."""

    #: engine → tasks that it has finished so far
    completed: Mapping[int, int]
    #: engines that have tasks
    busy: frozenset[int]
    #: tasks that have not ended, with those that run
    tasks: int
    #: set of engines → how many of its engines wait in a batch system's queue
    waiting: Mapping[str, int] = {}


class StartEngines(msgspec.Struct, frozen=True):
    """Start so many more engines."""

    count: int


class CancelSet(msgspec.Struct, frozen=True):
    """Cancel a request that still waits in a queue, with all its engines."""

    set_id: str


class StopEngines(msgspec.Struct, frozen=True):
    """Have these engines leave. They are idle."""

    engines: Sequence[int]


Action = StartEngines | CancelSet | StopEngines


class Plan:
    """Decides from what is seen. `look` at every interval; then do what it says.

    Parameters
    ----------
    settings : ScalingSettings
        The bounds, and how patient it is.
    """

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        #: measured seconds of a task; None: none has ended yet
        self.mean: float | None = None
        #: engines that the queue needs
        self.wanted = settings.minimum
        #: set of engines → how many of its engines were requested and have not come yet
        self.requested: dict[str, int] = {}
        #: engines that are there
        self.observed = 0
        self._completed: dict[int, int] = {}
        self._known: set[int] = set()
        self._busy_seconds = 0.0
        self._ended = 0
        self._last: float | None = None
        #: engine → since when it has been idle
        self._idle_since: dict[int, float] = {}
        #: since when there have been more engines than are wanted
        self._surplus_since: float | None = None

    def request(self, set_id: str, count: int) -> None:
        """A set of engines was requested."""
        self.requested[set_id] = self.requested.get(set_id, 0) + count

    def drop(self, set_id: str) -> None:
        """A request is no more: it was cancelled, or has failed."""
        self.requested.pop(set_id, None)

    def look(self, seen: Seen, now: float) -> list[Action]:
        """What to do."""
        self._count_arrivals(seen)
        self._measure(seen, now)
        self.observed = len(seen.completed)
        self.wanted = self._how_many(seen.tasks)
        have = self.observed + sum(self.requested.values())
        if self.wanted > have:
            self._surplus_since = None
            return [StartEngines(self.wanted - have)]
        if self.wanted == have:
            self._surplus_since = None
            return []
        if self._surplus_since is None:
            self._surplus_since = now
        # A queue that is empty for a moment gives nothing back: engines cost a wait in the batch system's queue.
        if now - self._surplus_since < self._settings.idle:
            return []
        return self._give_back(seen, have - self.wanted, now)

    def _count_arrivals(self, seen: Seen) -> None:
        """Engines have come: they are those that were requested first, but for those that wait in a queue."""
        new = len(set(seen.completed) - self._known)
        self._known = set(seen.completed)
        for set_id in list(self.requested):
            may_come = max(0, self.requested[set_id] - seen.waiting.get(set_id, 0))
            come = min(new, may_come)
            new -= come
            self.requested[set_id] -= come
            if not self.requested[set_id]:
                del self.requested[set_id]

    def _measure(self, seen: Seen, now: float) -> None:
        ended = sum(
            count - self._completed.get(engine, count) for engine, count in seen.completed.items()
        )
        if self._last is not None:
            self._busy_seconds += len(seen.busy) * (now - self._last)
        self._ended += max(0, ended)
        self._completed, self._last = dict(seen.completed), now
        if self._ended and self._busy_seconds:
            measured = self._busy_seconds / self._ended
            self.mean = measured if self.mean is None else (1 - WEIGHT) * self.mean + WEIGHT * measured
            self._busy_seconds, self._ended = 0.0, 0
        elif seen.busy and self._busy_seconds / len(seen.busy) > (self.mean or 0.0):
            self.mean = self._busy_seconds / len(seen.busy)  # tasks take at least as long as these have
        for engine in list(self._idle_since):
            if engine in seen.busy or engine not in seen.completed:
                del self._idle_since[engine]
        for engine in seen.completed:
            if engine not in seen.busy:
                self._idle_since.setdefault(engine, now)

    def _how_many(self, tasks: int) -> int:
        settings = self._settings
        if self.mean is None:
            needed = min(tasks, max(1, 2 * self.observed))  # nothing is known of them yet
        else:
            needed = min(tasks, math.ceil(tasks * self.mean / settings.target))
        return max(settings.minimum, min(settings.maximum, needed))

    def _give_back(self, seen: Seen, surplus: int, now: float) -> list[Action]:
        """Requests that wait in a queue first, the latest first; then engines that have been idle for long enough."""
        actions: list[Action] = []
        for set_id in reversed(list(self.requested)):
            count = self.requested[set_id]
            if count <= surplus and seen.waiting.get(set_id, 0) == count:
                actions.append(CancelSet(set_id))
                surplus -= count
        rested = [
            engine for engine, since in self._idle_since.items() if now - since >= self._settings.idle
        ]
        leaving = sorted(rested, reverse=True)[: max(0, min(surplus, self.observed - self._settings.minimum))]
        if leaving:
            actions.append(StopEngines(leaving))
            for engine in leaving:
                del self._idle_since[engine]
        return actions
