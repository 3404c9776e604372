"""What is submitted to a simulated cluster: tasks with their wishes, and what they do."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from ..ids import Digest, EngineId, TaskId
from ..messages import GraphDependency, TaskOptions, TaskSpec
from ..messages.bounds import Status
from .peers import LEVELS, Run

#: A task depends on tasks among the last so many before it.
NEAR = 50


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is submitted. Fractions are of all tasks; those of dependencies are of the load-balanced ones."""

    duration: float = 0.1  #: mean seconds
    spread: str = "exponential"  #: how durations are distributed: "constant", "exponential" or "mixed"
    long: float = 1.0  #: "mixed": `duration` seconds each, but for some that take this many
    long_share: float = 0.01  #: "mixed": … and these are so many
    burst: int = 100  #: tasks per submission
    pause: float = 0.01  #: seconds between submissions
    clients: int = 1  #: they submit in turn
    direct: float = 0.0
    targeted: float = 0.0
    failing: float = 0.0  #: chance of each attempt to raise
    unmet: float = 0.0  #: chance of each attempt to be refused by its engine
    retries: int = 0  #: each task gets 0 … this many
    after: float = 0.0  #: fraction that depends on earlier tasks: on the end of all or any of them …
    follow: float = 0.0  #: … on an engine on which they ran …
    inputs: float = 0.0  #: … or on their results
    fan_in: int = 3  #: on 1 … this many
    strange: float = 0.0  #: chance that one of these is no task, a direct one, or the task itself
    timeouts: float = 0.0  #: fraction whose dependencies must be met within ten durations
    gpus: float = 0.0  #: fraction that needs a "gpu"; one engine in three has one
    choosy: float = 0.0  #: fraction that depends on its engine's property, which changes every so often
    priorities: int = 1  #: each task has 0 … this many less one
    schemes: tuple[str, ...] = ()  #: half of the tasks name one of these
    at_most_once: float = 0.0  #: fraction that must not be started twice
    run_timeouts: float = 0.0  #: fraction that may run for two durations only
    deaf: float = 0.0  #: chance of each attempt to ignore interruptions


class Source:
    """Makes the tasks of a workload, and decides what they do."""

    def __init__(self, workload: Workload, tasks: int, engines: int, seed: int) -> None:
        if workload.spread not in ("constant", "exponential", "mixed"):
            raise ValueError(f"spread is 'constant', 'exponential' or 'mixed', got {workload.spread!r}")
        self.workload, self._tasks, self._engines = workload, tasks, engines
        self._rng = Random(f"{seed} tasks")
        self._direct: set[TaskId] = set()

    def submissions(self) -> list[tuple[float, str, list[TaskSpec]]]:
        """When who submits what."""
        work, found = self.workload, []
        for index, first in enumerate(range(0, self._tasks, work.burst)):
            moment = index * work.pause
            numbers = range(first, min(first + work.burst, self._tasks))
            found.append((moment, self._client(index), [self._spec(n, moment) for n in numbers]))
        return found

    def conduct(self, spec: TaskSpec, attempt: int) -> Run:
        """What an attempt does."""
        rng, work = self._rng, self.workload
        is_unmet = spec.engine < 0 and rng.random() < work.unmet
        status: Status = "unmet" if is_unmet else "error" if rng.random() < work.failing else "ok"
        return Run(0.0 if is_unmet else self._seconds(), status, rng.random() < work.deaf)

    def resources(self) -> list[dict[str, list[int]]]:
        """What the engines have."""
        gpus = bool(self.workload.gpus)
        return [{"gpu": [n // 3]} if gpus and n % 3 == 0 else {} for n in range(self._engines)]

    def _id(self, number: int) -> TaskId:
        """As real ids do, it begins with the client's name."""
        return TaskId(f"{self._client(number // self.workload.burst)}-{number}")

    def _client(self, submission: int) -> str:
        return f"client{submission % self.workload.clients}"

    def _seconds(self) -> float:
        work = self.workload
        match work.spread:
            case "constant":
                return work.duration
            case "mixed":
                return work.long if self._rng.random() < work.long_share else work.duration
            case _:
                return self._rng.expovariate(1 / work.duration)

    def _spec(self, number: int, moment: float) -> TaskSpec:
        rng, work, id, engine = self._rng, self.workload, self._id(number), -1
        wishes: dict[str, Any] = {}
        retries = rng.randint(0, work.retries)
        if retries:
            wishes["retries"] = retries
        if work.at_most_once and rng.random() < work.at_most_once:
            wishes["at_most_once"] = True
        if rng.random() < work.run_timeouts:
            wishes["run_timeout"] = 2 * work.duration
        kind = rng.random()
        if kind < work.direct:
            engine = rng.randrange(self._engines)
            self._direct.add(id)
        else:
            if kind < work.direct + work.targeted:
                wishes["targets"] = tuple(EngineId(e) for e in rng.sample(range(self._engines), min(self._engines, 3)))
            self._dependencies(number, wishes)
            if rng.random() < work.timeouts:
                wishes["timeout"] = 10 * work.duration
            if work.choosy and rng.random() < work.choosy:
                wishes["depend"] = True
            if rng.random() < work.gpus:
                wishes["resources"] = {"gpu": 1}
            if work.priorities > 1 and (priority := rng.randrange(work.priorities)):
                wishes["priority"] = priority
            if work.schemes and rng.random() < 0.5:
                wishes["scheme"] = rng.choice(work.schemes)
        options = TaskOptions(**wishes) if wishes else None
        function = Digest(str(number % LEVELS).encode()) if wishes.get("depend") else Digest(b"")
        return TaskSpec(id, function, b"", moment, EngineId(engine), (), options)

    def _dependencies(self, number: int, wishes: dict[str, Any]) -> None:
        rng, work = self._rng, self.workload
        for word, chance in (("after", work.after), ("follow", work.follow), ("inputs", work.inputs)):
            if rng.random() >= chance or not number:
                continue
            ids = self._earlier(number)
            if not ids:
                continue
            success = rng.random() < 0.8
            wishes[word] = (
                ids
                if word == "inputs"
                else GraphDependency(ids, rng.random() < 0.5, success, not success or rng.random() < 0.5)
            )

    def _earlier(self, number: int) -> tuple[TaskId, ...]:
        rng, near = self._rng, range(max(0, number - NEAR), number)
        if rng.random() < 0.1:
            near = range(number)  # of long ago
        picked = [self._id(n) for n in rng.sample(near, min(len(near), rng.randint(1, self.workload.fan_in)))]
        if rng.random() < self.workload.strange:
            return (*picked, rng.choice((TaskId("nobody"), self._id(number), *picked)))
        return tuple(id for id in picked if id not in self._direct)
