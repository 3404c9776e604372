"""What a user does in one round of the kill campaign: the tasks, their data, and what is done to them.

A plan follows from its seed alone, so that a client that takes over from a killed one knows it, too.
"""

from __future__ import annotations

import hashlib
from random import Random

import msgspec

#: Sizes of arguments and results in bytes. From 64 KiB on they may leave the controller's memory; from 256 KiB on they
#: are in shared memory, and files beside the database.
SIZES = (0, 100, 5_000, 70_000, 300_000, 1_500_000)
_WEIGHTS = (60, 20, 10, 5, 4, 1)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a plan."""

    number: int
    #: how long it runs
    seconds: float
    #: bytes that it gets, and returns
    size: int
    #: numbers of tasks whose results it takes
    inputs: tuple[int, ...] = ()
    #: numbers of tasks that must have succeeded before
    after: tuple[int, ...] = ()
    priority: int = 0
    retries: int = 1000
    at_most_once: bool = False
    #: it raises ValueError
    fails: bool = False
    #: it is for the engine with this number
    engine: int | None = None
    #: the client cancels it after it has submitted so many more
    cancelled_after: int | None = None
    #: the client runs it a second time when it has ended
    resubmitted: bool = False

    @property
    def label(self) -> str:
        """By which the client that takes over knows its results."""
        return f"t{self.number}"

    def data(self) -> bytes:
        """What the task gets."""
        return Random(self.number).randbytes(self.size)


def make(seed: object, tasks: int, engines: int) -> list[Task]:
    """The tasks of a round, in the order of their submission."""
    chance = Random(f"{seed} plan")
    made: list[Task] = []
    for number in range(tasks):
        made.append(_task(number, [task.number for task in made if task.engine is None], chance, engines))
    return made


def _task(number: int, balanced: list[int], chance: Random, engines: int) -> Task:
    wishes: dict[str, object] = {}
    kind = chance.random()
    if kind < 0.10:
        wishes["inputs"] = _earlier(balanced, chance)
    elif kind < 0.16:
        wishes["after"] = _earlier(balanced, chance)
    elif kind < 0.26:
        wishes.update(at_most_once=True, retries=0)
    elif kind < 0.30:
        wishes.update(fails=True, retries=chance.randint(0, 2))
    elif kind < 0.42:
        wishes.update(engine=chance.randrange(engines), retries=0)
    elif kind < 0.46:
        wishes["retries"] = 0
    elif kind < 0.50:
        wishes["cancelled_after"] = chance.randint(0, 20)
    elif kind < 0.53:
        wishes["resubmitted"] = True
    elif kind < 0.68:
        wishes["priority"] = chance.randint(-2, 2)
    size = chance.choices(SIZES, _WEIGHTS)[0]
    return Task(number=number, seconds=chance.uniform(0.001, 0.05), size=size, **wishes)  # type: ignore[arg-type]


def _earlier(balanced: list[int], chance: Random) -> tuple[int, ...]:
    """Up to two of the last tasks on which others may depend: no direct ones."""
    return tuple(sorted({chance.choice(balanced[-40:]) for _ in range(2)})) if balanced else ()


def values(tasks: list[Task]) -> dict[int, str]:
    """The digest that each task returns, if it succeeds."""
    found: dict[int, str] = {}
    for task in tasks:
        found[task.number] = digest(task.number, task.data(), [found[number] for number in task.inputs])
    return found


def digest(number: int, data: bytes, inputs: list[str]) -> str:
    """Of everything that a task got."""
    return hashlib.sha256(repr((number, hashlib.sha256(data).hexdigest(), inputs)).encode()).hexdigest()
