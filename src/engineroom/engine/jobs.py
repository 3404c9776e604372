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
    """A queue of tasks that can run, and the tasks that wait for their function.

    Direct tasks run in the order in which they come. So if one waits for its function, those behind it wait, too.
    """

    def __init__(self) -> None:
        self.queue: deque[Job] = deque()
        #: tasks that wait for their function
        self._parked: dict[Digest, list[Job]] = {}
        #: the function of the first direct task among them; None: there is none. And the direct tasks behind it
        self._awaited: Digest | None = None
        self._behind: list[Job] = []
        self._values: InputCache[tuple[bytes, Sequence[Any]]] = InputCache()
        self._reconciling = self._reconciled = False  # whether we have begun anew, for missing values

    def __iter__(self) -> Iterator[Job]:
        """All tasks, queued or waiting."""
        yield from self.queue
        for jobs in self._parked.values():
            yield from jobs
        yield from self._behind

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
            self._add([(s, a, wire.pick(s, frames), None) for s, a in zip(tasks, attempts, strict=True)])
        else:
            self._add([(s, a, (), None) for s, a in zip(tasks, attempts, strict=True)])
        return True

    def _add(self, jobs: list[Job]) -> None:
        self.queue.extend(jobs)
        if self._awaited is not None:
            self._hold_back()

    def _hold_back(self) -> None:
        """Let the direct tasks in the queue wait behind the one that is parked."""
        direct = [job for job in self.queue if job[0].engine >= 0]
        if direct:
            others = [job for job in self.queue if job[0].engine < 0]
            self._behind += direct
            self.queue.clear()  # in place: the main thread is working on it
            self.queue.extend(others)

    def _let_go(self, function: Digest) -> list[Job]:
        """The tasks that wait no more as no direct task waits for this function (any more)."""
        if function != self._awaited:
            return []
        self._awaited, behind, self._behind = None, self._behind, []
        return behind

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
        self._add(jobs)
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
        if job[0].engine >= 0 and self._awaited is None:
            self._awaited = job[0].function
            self._hold_back()
        return len(parked) == 1

    def awaited_functions(self) -> list[Digest]:
        """The functions that tasks wait for."""
        return list(self._parked)

    def unpark(self, function: Digest) -> None:
        """A function has come: move its tasks to the front of the queue."""
        jobs = self._parked.pop(function, []) + self._let_go(function)
        self.queue.extendleft(reversed(jobs))

    def take_parked(self, function: Digest) -> list[Job]:
        """Remove and return the tasks that wait for a function, which does not come."""
        self.queue.extendleft(reversed(self._let_go(function)))
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
        for jobs in (self.queue, *self._parked.values(), self._behind):
            kept = [job for job in jobs if wanted is not None and job[0].id not in wanted]
            if len(kept) < len(jobs):
                back += [held(job) for job in jobs if wanted is None or job[0].id in wanted]
                jobs.clear()  # in place: the main thread is working on it
                jobs.extend(kept)
        return back


def held(job: Job) -> AttemptKey:
    """The name of a task and attempt in messages to the controller."""
    return AttemptKey(job[0].id, job[1])
