"""Schemes: which of the engines with room gets the next task.

A scheme is a function of `loads` (tasks outstanding at each of these engines, the least recently used engine
first) and `rng` (a `random.Random`), which returns an index into `loads`:

    def leastload(loads, rng):
        return loads.index(min(loads))

Each built-in scheme also has an index that gives the same answer without looking at every engine. A user's function is
registered by the entry point group `engineroom.schemes`, or named "module:function" in the controller's settings. It
looks at all engines with room for each task.
"""

from __future__ import annotations

import heapq
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from random import Random

from ...errors import ConfigError
from ...ids import EngineId
from ..engines import Engine

log = logging.getLogger(__name__)

Scheme = Callable[[Sequence[int], Random], int]


# ---------------------------------------------------------------------------------------------- as functions


def lru(loads: Sequence[int], rng: Random) -> int:
    """The least recently used engine."""
    return 0


def plainrandom(loads: Sequence[int], rng: Random) -> int:
    """Any engine."""
    return rng.randrange(len(loads))


def twobin(loads: Sequence[int], rng: Random) -> int:
    """The less recently used of two engines drawn at random."""
    return min(rng.randrange(len(loads)), rng.randrange(len(loads)))


def leastload(loads: Sequence[int], rng: Random) -> int:
    """The engine with the fewest tasks; of several, the least recently used."""
    return loads.index(min(loads))


def weighted(loads: Sequence[int], rng: Random) -> int:
    """The less loaded of two engines, drawn at random with the weight 1 / (1 + load)."""
    first, second = rng.choices(range(len(loads)), [1 / (1 + load) for load in loads], k=2)
    return first if loads[first] <= loads[second] else second


def pure(loads: Sequence[int], rng: Random) -> int:
    """Engines in turn, each as many tasks as it has room for: no task is looked at by itself."""
    return 0


# ---------------------------------------------------------------------------------------------- as indexes


class Index:
    """The engines with room, and which of them is next. Base of all indexes, and the index of users' schemes."""

    #: whether the scheme allows an engine to be given several tasks at a time
    bulk = False

    def __init__(self, scheme: Scheme, rng: Random) -> None:
        self.scheme = scheme
        self._rng = rng
        self._engines: dict[EngineId, Engine] = {}
        self._failures = 0

    def update(self, engine: Engine) -> None:
        """An engine's load or room has changed."""
        if engine.has_room:
            self._engines[engine.id] = engine
        else:
            self._engines.pop(engine.id, None)

    def remove(self, engine: Engine) -> None:
        """An engine is gone."""
        self._engines.pop(engine.id, None)

    def pick(self) -> Engine | None:
        """The engine that gets the next task; None: no engine has room."""
        return self.choose(list(self._engines.values())) if self._engines else None

    def choose(self, engines: list[Engine]) -> Engine:
        """The one of these engines (at least one) that gets the next task."""
        engines.sort(key=lambda engine: engine.used)
        loads = [engine.load for engine in engines]
        try:
            return engines[range(len(engines))[self.scheme(loads, self._rng)]]
        except Exception as error:  # a user's scheme may raise anything, and no task may be lost by that
            self._failed(error)
            return engines[leastload(loads, self._rng)]

    def _failed(self, error: Exception) -> None:
        """Log the 1st, 10th, 100th … failure of a scheme: it may fail for each of a million tasks."""
        self._failures += 1
        if str(self._failures).strip("0") == "1":
            name = getattr(self.scheme, "__name__", self.scheme)
            times = "" if self._failures == 1 else f" (for the {self._failures}th time)"
            log.error("the scheme %s failed%s, so leastload chose: %s: %s", name, times, type(error).__name__, error)

    def __len__(self) -> int:
        return len(self._engines)

    def __contains__(self, engine: Engine) -> bool:
        return engine.id in self._engines

    def __iter__(self) -> Iterator[Engine]:
        """The engines with room, in an order that suits the scheme."""
        return iter(self._engines.values())


class LoadIndex(Index):
    """`leastload`: engines by load, in the order they came to it. All in O(1)."""

    bulk = True

    def __init__(self, scheme: Scheme, rng: Random) -> None:
        super().__init__(scheme, rng)
        # Dicts keep insertion order, so equal engines are served in turn.
        self._levels: dict[int, dict[EngineId, Engine]] = {}
        self._level_of: dict[EngineId, int] = {}
        self._lowest = 0

    def update(self, engine: Engine) -> None:
        self.remove(engine)
        if engine.has_room:
            id, level = engine.id, engine.load
            members = self._levels.get(level)
            if members is None:
                members = self._levels[level] = {}
            members[id] = engine
            self._level_of[id] = level
            if level < self._lowest:
                self._lowest = level

    def remove(self, engine: Engine) -> None:
        level = self._level_of.pop(engine.id, None)
        if level is not None:
            members = self._levels[level]
            del members[engine.id]
            if not members:
                del self._levels[level]

    def pick(self) -> Engine | None:
        levels = self._levels
        if not levels:
            return None
        members = levels.get(self._lowest)
        if members is None:  # the lowest level has emptied: find the next
            self._lowest = min(levels)
            members = levels[self._lowest]
        return next(iter(members.values()))

    def __len__(self) -> int:
        return len(self._level_of)

    def __contains__(self, engine: Engine) -> bool:
        return engine.id in self._level_of

    def __iter__(self) -> Iterator[Engine]:
        """The least loaded first."""
        for level in sorted(self._levels):
            yield from self._levels[level].values()


class LruIndex(Index):
    """`lru`: a heap by last use."""

    def __init__(self, scheme: Scheme, rng: Random) -> None:
        super().__init__(scheme, rng)
        self._heap: list[tuple[int, EngineId]] = []

    def update(self, engine: Engine) -> None:
        super().update(engine)
        if engine.id in self._engines:
            heapq.heappush(self._heap, (engine.used, engine.id))
            if len(self._heap) > 4 * len(self._engines) + 64:  # most entries are out of date
                self._heap = [(e.used, e.id) for e in self._engines.values()]
                heapq.heapify(self._heap)

    def pick(self) -> Engine | None:
        while self._heap:
            used, id = self._heap[0]
            engine = self._engines.get(id)
            if engine is not None and engine.used == used:
                return engine
            heapq.heappop(self._heap)
        return None


class RandomIndex(Index):
    """`plainrandom`: an array. When an engine leaves it, the last one takes its place."""

    def __init__(self, scheme: Scheme, rng: Random) -> None:
        super().__init__(scheme, rng)
        self._array: list[Engine] = []
        self._place: dict[EngineId, int] = {}

    def update(self, engine: Engine) -> None:
        if not engine.has_room:
            self.remove(engine)
        elif engine.id not in self._place:
            self._place[engine.id] = len(self._array)
            self._array.append(engine)

    def remove(self, engine: Engine) -> None:
        place = self._place.pop(engine.id, None)
        if place is not None:
            last = self._array.pop()
            if last.id != engine.id:
                self._array[place] = last
                self._place[last.id] = place

    def pick(self) -> Engine | None:
        return self._array[int(self._rng.random() * len(self._array))] if self._array else None

    def __len__(self) -> int:
        return len(self._array)

    def __contains__(self, engine: Engine) -> bool:
        return engine.id in self._place

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._array)


class TwobinIndex(RandomIndex):
    """`twobin`: two draws from the array."""

    def pick(self) -> Engine | None:
        first, second = super().pick(), super().pick()
        if first is None or second is None:
            return None
        return first if first.used <= second.used else second


class WeightedIndex(Index):
    """`weighted`: an array for each load."""

    def __init__(self, scheme: Scheme, rng: Random) -> None:
        super().__init__(scheme, rng)
        self._levels: dict[int, RandomIndex] = {}
        self._level_of: dict[EngineId, int] = {}

    def update(self, engine: Engine) -> None:
        self.remove(engine)
        if engine.has_room:
            level = self._level_of[engine.id] = engine.load
            if level not in self._levels:
                self._levels[level] = RandomIndex(self.scheme, self._rng)
            self._levels[level].update(engine)

    def remove(self, engine: Engine) -> None:
        level = self._level_of.pop(engine.id, None)
        if level is not None:
            self._levels[level].remove(engine)
            if not self._levels[level]:
                del self._levels[level]

    def pick(self) -> Engine | None:
        if not self._levels:
            return None
        levels = list(self._levels)
        weights = [len(self._levels[level]) / (1 + level) for level in levels]
        return self._levels[min(self._rng.choices(levels, weights, k=2))].pick()

    def __len__(self) -> int:
        return len(self._level_of)

    def __contains__(self, engine: Engine) -> bool:
        return engine.id in self._level_of

    def __iter__(self) -> Iterator[Engine]:
        for level in sorted(self._levels):
            yield from self._levels[level]


class TurnIndex(Index):
    """`pure`: engines in the order they came to have room."""

    bulk = True

    def update(self, engine: Engine) -> None:
        self.remove(engine)
        super().update(engine)

    def pick(self) -> Engine | None:
        return next(iter(self._engines.values()), None)


# ---------------------------------------------------------------------------------------------- by name

SCHEMES: dict[str, tuple[Scheme, type[Index]]] = {
    "leastload": (leastload, LoadIndex),
    "lru": (lru, LruIndex),
    "plainrandom": (plainrandom, RandomIndex),
    "twobin": (twobin, TwobinIndex),
    "weighted": (weighted, WeightedIndex),
    "pure": (pure, TurnIndex),
}

#: The options that `pure` cannot honour.
NOT_WITH_PURE = (
    "retries",
    "targets",
    "after",
    "follow",
    "timeout",
    "priority",
    "resources",
    "inputs",
    "depend",
)


def make_index(name: str, rng: Random, *, trusted: bool = False) -> Index:
    """The index of a scheme.

    Parameters
    ----------
    name : str
        One of `SCHEMES`, of the entry points in `engineroom.schemes`, or, if `trusted`, "module:function".
    trusted : bool
        The name comes from the controller's own settings, not from a task.

    Raises
    ------
    ConfigError
        There is no such scheme.
    """
    if name in SCHEMES:
        scheme, index = SCHEMES[name]
        return index(scheme, rng)
    module, _, function = name.partition(":")
    try:
        if function and trusted:
            found = getattr(importlib.import_module(module), function)
        else:
            from importlib.metadata import entry_points  # takes long to import

            [entry] = entry_points(group="engineroom.schemes", name=name)
            found = entry.load()
    except (ImportError, AttributeError, ValueError) as error:
        import difflib

        near = difflib.get_close_matches(name, SCHEMES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"there is no scheme {name!r} ({error}): {hint}It is one of {', '.join(SCHEMES)}, an entry point of "
            "'engineroom.schemes', or, in the controller's own settings, 'module:function'"
            if function
            else f"there is no scheme {name!r}: {hint}it is one of {', '.join(SCHEMES)}, or an entry point of "
            "'engineroom.schemes'"
        ) from None
    if not callable(found):
        raise ConfigError(f"the scheme {name!r} is not a function")
    return Index(found, rng)
