"""What an engine must be like to run a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...ids import Digest, EngineId, EngineUuid
from ...messages import TaskOptions
from ..engines import Engine
from ..tasks import Task


class Requirement(NamedTuple):
    """Tasks with equal requirements wait in one pool. The default is met by every engine."""

    #: engines by number; None: any
    targets: tuple[EngineId, ...] | None = None
    #: `targets` are the engines on which the followed tasks ran: another engine with the same number is none of them
    follows: bool = False
    #: engines that have raised UnmetDependency
    refused: frozenset[EngineUuid] = frozenset()
    #: engines on which such tasks have failed
    failed: frozenset[EngineUuid] = frozenset()
    #: the amount of each named resource
    resources: tuple[tuple[str, int], ...] = ()
    #: the scheme that chooses among engines that fit; "": the default
    scheme: str = ""
    #: the function that must agree to the engine's properties; b"": they do not matter
    depend: Digest = Digest(b"")

    def fits(self, engine: Engine) -> bool:
        """Whether this engine may run such tasks now."""
        return self.allows(engine) and (not self.depend or engine.answers.get(self.depend) == "")

    def may_fit(self, engine: Engine) -> bool:
        """Whether this engine may run such tasks now, or once it has said that its properties suit them."""
        return self.allows(engine) and (not self.depend or not engine.answers.get(self.depend))

    def allows(self, engine: Engine) -> bool:
        """Whether this engine may run such tasks, whatever its properties are."""
        if self.targets is not None and engine.id not in self.targets:
            return False
        if engine.uuid in self.refused or engine.uuid in self.failed:
            return False
        return all(len(engine.resources.get(name, ())) >= amount for name, amount in self.resources)

    @property
    def excludes(self) -> bool:
        """Whether engines are excluded by name."""
        return bool(self.refused or self.failed)

    @property
    def names_engines(self) -> bool:
        """Whether only some engines fit, so that a list of them is worth its upkeep."""
        return self.targets is not None or bool(self.resources) or bool(self.depend)


ANY = Requirement()


def is_plain(options: TaskOptions) -> bool:
    """Whether tasks with these options may run anywhere, at once, in order."""
    return (
        options.targets is None
        and options.after is None
        and options.follow is None
        and not options.inputs
        and options.timeout is None
        and not options.priority
        and options.resources is None
        and options.scheme is None
        and not options.depend
    )


def requirement_of(task: Task, numbers: Mapping[EngineUuid, EngineId]) -> Requirement:
    """What a load-balanced task requires at this moment; `numbers`: of the engines there are."""
    options, needs = task.spec.options, task.needs
    if needs is None and (options is None or is_plain(options)):
        return ANY
    targets, follows = options.targets if options is not None else None, False
    refused, failed = ANY.refused, ANY.failed
    if needs is not None:
        refused, failed = needs.refused, needs.failed
        if needs.followed is not None:
            follows = True
            there = sorted(numbers[uuid] for uuid in needs.followed if uuid in numbers)
            targets = tuple(id for id in there if targets is None or id in targets)
    resources = tuple(sorted(options.resources.items())) if options is not None and options.resources else ()
    scheme = (options.scheme if options is not None else None) or ""
    depend = task.spec.function if options is not None and options.depend else ANY.depend
    return Requirement(targets, follows, refused, failed, resources, scheme, depend)


def in_words(requirement: Requirement) -> str:
    """What such tasks require of an engine, as part of a sentence after "an engine"."""
    words = []
    if requirement.targets is not None:
        numbers = ", ".join(map(str, requirement.targets)) or "none"
        words.append(
            f"{'on which the tasks it follows ran' if requirement.follows else 'among its targets'} ({numbers})"
        )
    if requirement.resources:
        words.append("with " + ", ".join(f"{name}={amount}" for name, amount in requirement.resources))
    if requirement.depend:
        words.append("whose properties suit it")
    if requirement.refused:
        count = len(requirement.refused)
        words.append(f"that has not refused it ({count} {'engine has' if count == 1 else 'engines have'})")
    if requirement.failed:
        count = len(requirement.failed)
        words.append(f"on which it has not failed ({count} {'engine' if count == 1 else 'engines'} excluded)")
    return " ".join(words)
