"""The tasks that an engine has been given and has not begun. Everything is called with the link's lock held."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ..ids import Digest, TaskId
from ..messages import AttemptKey, Run, TaskSpec
from ..wire import frames as wire
from ..wire.input_cache import InputCache, Inputs

#: A task in hand: (spec, attempt, its frames, the results of others that it takes as arguments)
Job = tuple[TaskSpec, int, Sequence[Any], Inputs | None]


class Jobs:
    """A queue of tasks that can run, and the tasks that wait for their function."""

    def __init__(self) -> None:
        self.queue: deque[Job] = deque()
        #: tasks that wait for their function
        self._parked: dict[Digest, list[Job]] = {}
        self._values: InputCache[tuple[bytes, Sequence[Any]]] = InputCache()
        self._reconciling = self._reconciled = False  # whether we have begun anew, for missing values

    def __iter__(self) -> Iterator[Job]:
        """All tasks, queued or waiting."""
        yield from self.queue
        for jobs in self._parked.values():
            yield from jobs

    def welcomed(self) -> None:
        """After a Hello the controller believes that we have no values: forget ours."""
        self._values.clear()
        self._reconciling, self._reconciled = False, self._reconciling

    def take(self, message: Run, frames: Sequence[Any]) -> bool:
        """Queue the tasks of a message. False: values are missing; the caller says Hello again."""
        tasks, attempts = message.tasks, message.attempts
        inputs = [s.options.inputs if s.options is not None else () for s in tasks]
        if message.values or any(inputs):
            return self._take_with_values(message, inputs, frames)
        if frames:
            self.queue.extend([(s, a, wire.pick(s, frames), None) for s, a in zip(tasks, attempts, strict=True)])
        else:
            self.queue.extend([(s, a, (), None) for s, a in zip(tasks, attempts, strict=True)])
        return True

    def _take_with_values(self, message: Run, inputs: Sequence[tuple[TaskId, ...]], frames: Sequence[Any]) -> bool:
        """Queue tasks that take results of others. A job keeps its values, even if the cache drops them.

        A value is missing only if a message was lost. Then its task is left out once: the engine says Hello again, and
        the controller sends task and values again. If the value is missing even then, nobody has it: the task runs,
        and its error says so.
        """
        new = {v.id: (v.payload, wire.pick(v, frames)) for v in message.values}
        sizes = {id: (wire.size(*value), value) for id, value in new.items()}
        found = self._values.use([id for ids in inputs for id in ids], sizes)
        jobs: list[Job] = []
        is_short = False
        for spec, attempt, ids in zip(message.tasks, message.attempts, inputs, strict=True):
            if not self._reconciled and any(id not in found for id in ids):
                is_short = True
                continue
            own = {id: found[id] for id in ids if id in found} if ids else None
            jobs.append((spec, attempt, wire.pick(spec, frames), own))
        self.queue.extend(jobs)
        if not is_short:
            self._reconciled = False
        elif not self._reconciling:
            self._reconciling = True
            return False
        return True

    def park(self, job: Job) -> bool:
        """Keep a task until its function comes. True: the caller asks the controller for the function."""
        parked = self._parked.setdefault(job[0].function, [])
        parked.append(job)
        return len(parked) == 1

    def unpark(self, function: Digest) -> None:
        """A function has come: move its tasks to the front of the queue."""
        self.queue.extendleft(reversed(self._parked.pop(function, [])))

    def take_parked(self, function: Digest) -> list[Job]:
        """Remove and return the tasks that wait for a function."""
        return self._parked.pop(function, [])

    def take_out(self, function: Digest) -> list[Job]:
        """Remove and return the queued load-balanced tasks that call a function."""
        alike = [job for job in self.queue if job[0].function == function and job[0].engine < 0]
        kept = [job for job in self.queue if job[0].function != function or job[0].engine >= 0]
        self.queue.clear()  # in place: the main thread is working on it
        self.queue.extend(kept)
        return alike

    def give_back(self, wanted: Collection[TaskId] | None) -> list[AttemptKey]:
        """Remove and return the tasks with these ids (None: all tasks) that have not started."""
        back: list[AttemptKey] = []
        for jobs in (self.queue, *self._parked.values()):
            kept = [job for job in jobs if wanted is not None and job[0].id not in wanted]
            if len(kept) < len(jobs):
                back += [held(job) for job in jobs if wanted is None or job[0].id in wanted]
                jobs.clear()  # in place: the main thread is working on it
                jobs.extend(kept)
        return back


def held(job: Job) -> AttemptKey:
    """The name of a task and attempt in messages to the controller."""
    return AttemptKey(job[0].id, job[1])
