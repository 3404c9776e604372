"""Where queued tasks wait for an engine, and which engine each of them gets.

Tasks that any engine may run wait in `ready`. Other tasks wait in a *pool*: one pool for each requirement. A pool
that found no engine with room is *stuck*: the core looks at it again only when an engine that fits has room again.
So the cost of a task does not grow with the number of tasks, engines or pools.

Where a requirement depends on engines' properties, each engine is asked once. Its answer holds for all tasks with
this requirement, until the engine's properties change or it says Hello again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from random import Random

from ...ids import Digest, EngineId, EngineUuid
from ..effects import Effects
from ..engines import Engine
from ..tasks import Task
from .queues import Shares, TaskQueue
from .requirements import ANY, Requirement, in_words, requirement_of
from .schemes import Index, make_index

#: When an engine has given more answers than this, those that no waiting task needs are forgotten.
ANSWERS_KEPT = 10_000

#: What to do for a task whose targets are gone.
_NO_WAITING = (
    ". It does not wait for others to take these numbers, whatever its retries: give it more targets, or resubmit it "
    "once one is there"
)

#: an engine, and the tasks it is to get
Assignment = tuple[Engine, list[Task]]


class Pool:
    """Tasks with the same requirement."""

    def __init__(self, requirement: Requirement, queue: TaskQueue, engines: dict[EngineId, Engine] | None) -> None:
        self.requirement = requirement
        self.queue = queue
        #: the engines that fit, if the requirement allows only some; None: nearly all fit
        self.engines = engines
        #: no engine that fits has room
        self.is_stuck = False
        #: since when no engine has had the resources these tasks need; None: one has
        self.orphaned_at: float | None = None


class Pools:
    """Tasks that wait for an engine, and engines that have room."""

    def __init__(
        self, engines: Mapping[EngineId, Engine], scheme: str, rng: Random, effects: Effects
    ) -> None:
        self._engines = engines
        self._effects = effects
        self._numbers: dict[EngineUuid, EngineId] = {}
        self._rng = rng
        self.shares = Shares()
        self.ready = TaskQueue(self.shares)
        self.pools: dict[Requirement, Pool] = {}
        self.index = make_index(scheme, rng, trusted=True)
        self._indexes: dict[str, Index] = {"": self.index, scheme: self.index}
        self._all_indexes = [self.index]
        #: engine → the pools that name it
        self._named: dict[EngineId, dict[Requirement, Pool]] = {}
        #: the pools that name no engines
        self._open: dict[Requirement, Pool] = {}
        #: the pools whose tasks depend on engines' properties, by the function that decides
        self._depending: dict[Digest, dict[Requirement, Pool]] = {}
        #: pools with new tasks; engines with new room
        self._fresh: dict[Requirement, Pool] = {}
        self._freed: dict[EngineId, Engine] = {}
        #: engines with nothing to do
        self.idle: dict[EngineId, Engine] = {}
        self._uses = 0

    def index_of(self, scheme: str) -> Index:
        """The index of a scheme by name; "": the default.

        Raises
        ------
        ConfigError
            There is no such scheme.
        """
        index = self._indexes.get(scheme)
        if index is None:
            index = self._indexes[scheme] = make_index(scheme, self._rng)
            self._all_indexes.append(index)
            for engine in self._engines.values():
                index.update(engine)
        return index

    # ------------------------------------------------------------------------------------------ who may run what

    def requirement_of(self, task: Task) -> Requirement:
        """What a load-balanced task requires of an engine at this moment."""
        return requirement_of(task, self._numbers)

    def may_run(self, task: Task, engine: Engine) -> bool:
        """Whether this engine may run a load-balanced task now."""
        return requirement_of(task, self._numbers).fits(engine)

    def is_worn_out(self, requirement: Requirement) -> bool:
        """Whether such tasks have failed on every engine that may run them, so that they may go to any again."""
        return bool(requirement.failed) and not any(map(requirement.may_fit, self._engines.values()))

    def hopeless(self, requirement: Requirement) -> str | None:
        """Why none of the present engines will ever run such tasks; None: one may."""
        if requirement.targets is not None and not any(target in self._engines for target in requirement.targets):
            reason = f"none of the engines it may run on is there (any more): it needs one {in_words(requirement)}"
            return reason if requirement.follows else reason + _NO_WAITING
        if requirement.refused and not any(requirement.allows(engine) for engine in self._engines.values()):
            return f"every engine that it may run on has raised UnmetDependency: it needs one {in_words(requirement)}"
        return None

    # ------------------------------------------------------------------------------------------ tasks come

    def put(self, task: Task, requirement: Requirement, *, first: bool = False) -> Pool | None:
        """Queue a task. Returns its pool; None: any engine may run it."""
        options = task.spec.options
        priority = options.priority if options is not None else 0
        if requirement is ANY or requirement == ANY:
            self.ready.push((task,), task.client, priority, first=first)
            return None
        pool = self.pools.get(requirement)
        if pool is None:
            pool = self._make(requirement)
        if not pool.is_stuck:
            self._fresh[requirement] = pool
        pool.queue.push((task,), task.client, priority, first=first)
        return pool

    def _make(self, requirement: Requirement) -> Pool:
        engines = None
        if requirement.targets is not None:
            there = (self._engines.get(id) for id in requirement.targets)
            engines = {e.id: e for e in there if e is not None and requirement.fits(e)}
        elif requirement.names_engines:
            engines = {e.id: e for e in self._engines.values() if requirement.fits(e)}
        pool = self.pools[requirement] = Pool(requirement, TaskQueue(self.shares), engines)
        if engines is None:
            self._open[requirement] = pool
        for id in engines or ():
            self._named.setdefault(id, {})[requirement] = pool
        if requirement.depend:
            self._depending.setdefault(requirement.depend, {})[requirement] = pool
            for engine in self._engines.values():
                self._ask(engine, requirement.depend)
        return pool

    def is_orphan(self, pool: Pool) -> bool:
        """Whether no engine has the resources these tasks need."""
        if not pool.requirement.resources or pool.engines:
            return False
        return not pool.requirement.depend or not any(map(pool.requirement.allows, self._engines.values()))

    def take_out(self, pool: Pool) -> list[Task]:
        """Remove a pool; returns the tasks that waited in it, in order."""
        tasks = list(pool.queue)
        pool.queue.clear()
        self._drop(pool)
        return tasks

    def _drop(self, pool: Pool) -> None:
        requirement = pool.requirement
        del self.pools[requirement]
        self._open.pop(requirement, None)
        self._fresh.pop(requirement, None)
        for id in pool.engines or ():
            named = self._named[id]
            del named[requirement]
            if not named:
                del self._named[id]
        if requirement.depend:
            depending = self._depending[requirement.depend]
            del depending[requirement]
            if not depending:
                del self._depending[requirement.depend]

    # ------------------------------------------------------------------------------------------ engines come and go

    def joined(self, engine: Engine) -> None:
        """An engine has joined."""
        self._numbers[engine.uuid] = engine.id
        for requirement, pool in self.pools.items():
            if pool.engines is not None and requirement.fits(engine):
                pool.engines[engine.id] = engine
                self._named.setdefault(engine.id, {})[requirement] = pool
        self.changed(engine)

    def changed(self, engine: Engine) -> None:
        """An engine may have more room than before, or less."""
        for index in self._all_indexes:
            index.update(engine)
        has_room = engine.has_room
        if has_room and len(engine.held) == len(engine.waiting):
            self.idle[engine.id] = engine
        else:
            self.idle.pop(engine.id, None)
        if has_room and self.pools:
            self._freed[engine.id] = engine

    def removed(self, engine: Engine) -> list[Pool]:
        """An engine is gone; returns the pools whose tasks it might have run."""
        self._numbers.pop(engine.uuid, None)
        for index in self._all_indexes:
            index.remove(engine)
        self._freed.pop(engine.id, None)
        self.idle.pop(engine.id, None)
        named = self._named.pop(engine.id, {})
        for pool in named.values():
            assert pool.engines is not None
            del pool.engines[engine.id]
        # Pools that it might have served, but did not fit: for want of resources, an answer, or because it refused.
        others = [
            pool
            for requirement, pool in self.pools.items()
            if requirement not in named and _counts_on(requirement, engine)
        ]
        return [*named.values(), *others]

    # ------------------------------------------------------------------------------------------ engines' properties

    def _ask(self, engine: Engine, depend: Digest) -> None:
        if depend in engine.answers or depend in engine.asked:
            return
        if any(requirement.allows(engine) for requirement in self._depending[depend]):
            engine.asked.add(depend)
            self._effects.ask(engine.id, depend)

    def properties_changed(self, engine: Engine) -> None:
        """The answers of an engine are out of date: ask it again, for the tasks that wait."""
        for requirement, pool in list(self._named.get(engine.id, {}).items()):
            if requirement.depend:
                self._exclude(engine, pool)
        engine.answers.clear()
        for depend in self._depending:
            self._ask(engine, depend)

    def answered(self, engine: Engine, answers: Mapping[Digest, str]) -> None:
        """An engine says why it must not run tasks with these functions; "": it may."""
        for depend, reason in answers.items():
            engine.asked.discard(depend)
            engine.answers[depend] = reason
            for requirement, pool in self._depending.get(depend, {}).items():
                if requirement.fits(engine):
                    assert pool.engines is not None
                    pool.engines[engine.id] = engine
                    self._named.setdefault(engine.id, {})[requirement] = pool
                else:
                    self._exclude(engine, pool)
        if len(engine.answers) > ANSWERS_KEPT:
            engine.answers = {depend: why for depend, why in engine.answers.items() if depend in self._depending}
        self.changed(engine)

    def _exclude(self, engine: Engine, pool: Pool) -> None:
        """An engine does not fit a pool (any more)."""
        if pool.engines is not None and pool.engines.pop(engine.id, None) is not None:
            named = self._named[engine.id]
            del named[pool.requirement]
            if not named:
                del self._named[engine.id]

    def drop_empty(self) -> None:
        """Forget pools that depend on properties and whose tasks have all ended.

        Other empty pools go when an engine has room for their tasks; for these, there may never be one.
        """
        for pool in [pool for pools in self._depending.values() for pool in pools.values()]:
            if next(iter(pool.queue), None) is None:
                self.take_out(pool)

    # ------------------------------------------------------------------------------------------ tasks go

    def assign(self) -> Iterator[Assignment]:
        """Choose engines with room for the tasks that wait.

        The caller must carry out each assignment, and call `given`, before it asks for the next.
        """
        if self._fresh or self._freed:
            heap = [(-(pool.queue.top or 0), number, pool) for number, pool in enumerate(self._to_look_at())]
            heapq.heapify(heap)
            while heap:
                _, number, pool = heapq.heappop(heap)
                top = pool.queue.top
                if top is not None and self.ready.top is not None and self.ready.top > top:
                    yield from self._assign(self.ready, self.index, top + 1)
                if top is not None:
                    yield from self._assign_pool(pool, top)
                if not pool.queue:
                    self._drop(pool)
                elif not pool.is_stuck:
                    heapq.heappush(heap, (-(pool.queue.top or 0), number, pool))
        yield from self._assign(self.ready, self.index, None)

    def _to_look_at(self) -> Iterable[Pool]:
        found = dict(self._fresh)
        for engine in self._freed.values():
            for pools in (self._named.get(engine.id, {}), self._open):
                for requirement, pool in pools.items():
                    if pool.is_stuck and requirement.fits(engine):
                        pool.is_stuck = False
                        found[requirement] = pool
        self._fresh.clear()
        self._freed.clear()
        return found.values()

    def _assign(self, queue: TaskQueue, index: Index, floor: int | None) -> Iterator[Assignment]:
        while queue and (floor is None or (queue.top or 0) >= floor):
            engine = index.pick()
            if engine is None:
                return
            # One task at a time keeps the load even, but each costs an update of the index. Where there are many tasks
            # for each engine, give half of an even share at once: later, smaller shares make the load even again.
            share = min(max(1, len(queue) // (2 * len(index))), engine.room) if index.bulk else 1
            tasks = queue.take(share, floor)
            if tasks:
                yield engine, tasks

    def _assign_pool(self, pool: Pool, floor: int) -> Iterator[Assignment]:
        requirement, queue = pool.requirement, pool.queue
        index = self.index_of(requirement.scheme)
        if not requirement.names_engines and not requirement.excludes:
            yield from self._assign(queue, index, floor)
            pool.is_stuck = bool(queue) and index.pick() is None
            return
        while queue and (queue.top or 0) >= floor:
            engine = self._choose(pool, index)
            if engine is None:
                pool.is_stuck = True
                return
            tasks = queue.take(1, floor)
            if tasks:
                yield engine, tasks

    def _choose(self, pool: Pool, index: Index) -> Engine | None:
        """The engine for the next task of a pool."""
        fits, engines = pool.requirement.fits, pool.engines
        if engines is None and index.bulk:  # the index is in the scheme's order: take the first that fits
            return next((engine for engine in index if fits(engine)), None)
        if engines is None:
            candidates = [engine for engine in index if fits(engine)]
        else:
            candidates = [engine for engine in engines.values() if engine.has_room]
        return index.choose(candidates) if candidates else None

    def given(self, engine: Engine) -> None:
        """An assignment has been carried out: the engine holds more."""
        self._uses += 1
        engine.used = self._uses
        self.idle.pop(engine.id, None)
        for index in self._all_indexes:
            index.update(engine)

    def __len__(self) -> int:
        """How many tasks wait here."""
        return len(self.ready) + sum(len(pool.queue) for pool in self.pools.values())

    def __iter__(self) -> Iterator[Task]:
        """All tasks that wait here."""
        yield from self.ready
        for pool in self.pools.values():
            yield from pool.queue


def _counts_on(requirement: Requirement, engine: Engine) -> bool:
    """Whether the loss of an engine may make such tasks impossible, though it did not fit at the moment."""
    return bool(requirement.depend or requirement.excludes) or engine.id in (requirement.targets or ())
