"""The one door for tasks: first submissions, submissions sent again, resubmissions, and tasks of an earlier life.

Is there room? Has the task ended before? Is an equal call's result there? Is its function there? What memory cannot
answer is read from the store, with one read for each submission; then the core hears of the tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from ..core import Scheduler, events
from ..errors import EngineError, EngineroomError, ProtocolError, StoreError
from ..ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ..messages import CacheKey, Environment, ErrorInfo, Function, TaskSpec
from ..records.entry import Entry
from ..stores import TaskStore
from .lookups import Lookup, Lookups
from .outbox import Outbox
from .result_cache import answer_from, equal_tasks, key_of
from .storage.pending import Scope
from .storage.store_reader import Reader, readable_entries, readable_functions
from .supplies.function_library import FunctionLibrary

log = logging.getLogger(__name__)

T = TypeVar("T")

_id_of = attrgetter("id")

#: Characters in the id of a task.
MOST_OF_ID = 256


class Refusal(msgspec.Struct, frozen=True):
    """Why a submission is not taken: none of its tasks runs."""

    error: Exception
    #: functions that are not to be had, and why; the client may send them along
    missing: Mapping[Digest, str] = {}


class Submission:
    """Tasks of a client, and how to tell whether they are taken.

    Parameters
    ----------
    client : ClientId
        Who waits for them.
    tasks : list of TaskSpec
        What to run.
    frames : mapping
        The large buffers of some tasks.
    accept, refuse : callable
        One of the two is called, once.
    functions : sequence of Function
        Functions that were sent along.
    environment : Environment
        Where the client runs, if it was sent along.
    resent : bool
        Some tasks may have been taken before.
    former : bool
        They were said to the controller of before a restart: engines may have begun them.
    aborted : set of TaskId
        The client was told by that one that these were aborted.
    cached : bool
        Some tasks may be answered with the results of equal ones.
    greeting : int
        The number of its client's Hello, if the client says all of its tasks again after a Hello; 0: it does not.
    """

    __slots__ = (
        "aborted",
        "accept",
        "cached",
        "client",
        "environment",
        "former",
        "frames",
        "functions",
        "greeting",
        "refuse",
        "resent",
        "tasks",
    )

    def __init__(
        self,
        client: ClientId,
        tasks: list[TaskSpec],
        frames: Mapping[TaskId, Sequence[Any]],
        accept: Callable[[], None],
        refuse: Callable[[Refusal], None],
        *,
        functions: Sequence[Function] = (),
        environment: Environment | None = None,
        resent: bool = False,
        former: bool = False,
        aborted: Set[TaskId] = frozenset(),
        cached: bool = False,
        greeting: int = 0,
    ) -> None:
        self.client, self.tasks, self.frames = client, tasks, frames
        self.accept, self.refuse = accept, refuse
        self.functions, self.environment = functions, environment
        self.resent, self.former, self.aborted = resent, former, aborted
        self.cached, self.greeting = cached, greeting


class Found(msgspec.Struct):
    """What the store says of a submission."""

    #: tasks that were taken before
    entries: Mapping[TaskId, Entry] = {}
    #: tasks whose records cannot be read
    damaged: Mapping[TaskId, str] = {}
    #: the latest tasks that are equal to some of these
    equal: Mapping[CacheKey, Entry] = {}
    functions: Sequence[Function] = ()
    #: functions that are not to be had, and why
    missing: Mapping[Digest, str] = {}


class Intake:
    """Takes tasks in.

    `refusal` tells why the store has no room for new tasks with so many bytes of buffers; `watch` sends a client the
    results of tasks once they have ended; `reader` is None where nothing is kept (NoDB).
    """

    def __init__(
        self,
        scheduler: Scheduler,
        decide: Callable[[events.Event], None],
        library: FunctionLibrary,
        outbox: Outbox,
        reader: Reader | None,
        refusal: Callable[[int], EngineroomError | None],
        watch: Callable[[ClientId, Sequence[TaskId]], None],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler, self._decide = scheduler, decide
        self._library, self._outbox, self._reader = library, outbox, reader
        self._refusal, self._watch, self._clock = refusal, watch, clock
        self._stopping = False
        #: submissions that wait for the store
        self.lookups = Lookups()
        #: client → the last of its Hellos after which tasks of it were refused, as their functions are missing: what it
        #: has submitted behind them is not taken before its next Hello
        self._incomplete: dict[ClientId, int] = {}

    def stop(self) -> None:
        """Take nothing any more."""
        self._stopping = True

    def client_left(self, client: ClientId) -> None:
        """A client is gone."""
        self._incomplete.pop(client, None)

    def refusal(self, size: int = 0) -> Exception | None:
        """Why new tasks, with so many bytes of buffers, are not taken; None: they are."""
        if self._stopping:
            return EngineError("the cluster is stopping")
        return self._refusal(size)

    def submit(self, submission: Submission, size: int = 0) -> None:
        """Take tasks in, now or after a look into the store. `size`: bytes of their large buffers."""
        if self._is_void(submission):
            return
        refused = self.refusal(size) or _bad_id(submission.tasks)
        if refused is not None:
            submission.refuse(Refusal(refused))
            return
        self._add_functions(submission.functions)
        if submission.environment is not None:
            self._outbox.add_environment(submission.client, submission.environment)
        tasks, known = submission.tasks, self._scheduler.task
        missing = self._library.use(tasks)
        keys: dict[TaskId, CacheKey] = {}
        if self._reader is not None:
            if submission.cached:
                keys = {s.id: key for s in tasks if (key := key_of(s)) is not None and known(s.id) is None}
            reader = self._reader if submission.resent or keys or missing else None
            if reader is not None or self.lookups.has_submission(submission.client):
                self._look_up(reader, submission, keys, missing)
                return
        elif missing:
            self._refuse(submission, dict.fromkeys(missing, "it is not known here"))
            return
        self._take(submission, keys, Found())

    def _look_up(
        self, reader: Reader | None, submission: Submission, keys: Mapping[TaskId, CacheKey], missing: Sequence[Digest]
    ) -> None:
        """Take tasks in after a look into the store, and in turn. `reader`: None, if only their turn is to come."""
        tasks = [spec for spec in submission.tasks if self._scheduler.task(spec.id) is None]
        new = [spec.id for spec in tasks]
        if submission.resent:  # a task that the core knows is taken already, and may end before the store has answered
            submission.tasks = tasks
        submission.functions = self._library.of(submission.tasks)  # memory may let go of them meanwhile
        lookup = self.lookups.begin(submission.client, () if submission.resent else new)

        def look(store: TaskStore) -> Found:
            found = Found()
            if submission.resent:  # a task whose record is damaged may not have ended: it runs again
                found.entries, found.damaged = readable_entries(store, new)
            if keys:
                found.equal = _or_nothing(lambda: equal_tasks(store, set(keys.values())), {})
            if missing:
                found.functions, found.missing = readable_functions(store, missing)
            return found

        def take(found: Found) -> None:
            try:
                self._take(submission, keys, found, lookup)
            except Exception as error:
                submission.refuse(Refusal(error))
            finally:
                self.lookups.end(lookup)

        def refuse(error: Exception) -> None:
            self.lookups.aborted(lookup)
            submission.refuse(Refusal(error))
            self.lookups.end(lookup)

        def then(found: Found) -> None:
            self.lookups.in_turn(lookup, lambda: take(found))

        def failed(error: Exception) -> None:
            if submission.resent:  # they may have ended: no task is to run a second time
                self.lookups.in_turn(lookup, lambda: refuse(error))
            else:
                log.warning("a submission could not be looked up in the database: %s", error)
                then(Found(missing=dict.fromkeys(missing, str(error))))

        if reader is not None:
            reader.read(look, then, failed, after=Scope(submission.client))
        else:
            then(Found())

    def _take(
        self,
        submission: Submission,
        keys: Mapping[TaskId, CacheKey],
        found: Found,
        lookup: Lookup | None = None,
    ) -> None:
        """Everything is in memory: the core hears of the tasks."""
        aborted = self.lookups.aborted(lookup) if lookup is not None else {}
        if self._is_void(submission):
            return
        if found.missing:
            self._refuse(submission, found.missing)
            return
        if lookup is not None:  # memory, or the store, may have let go of the functions meanwhile
            self._add_functions(submission.functions)
            self._add_functions(found.functions)
        client, tasks = submission.client, submission.tasks
        ended = {}
        if found.entries:
            ended = {id: entry for id, entry in found.entries.items() if entry.done is not None}
            tasks = [spec for spec in tasks if spec.id not in ended]
        if submission.resent:  # a task may have come, and ended, while the store was asked
            late = [s.id for s in tasks if self._scheduler.outcome(s.id) is not None and s.id not in found.damaged]
            if late:
                tasks = [spec for spec in tasks if spec.id not in late]
                self._watch(client, late)
        if found.equal:
            tasks = self._answer(submission, tasks, keys, found.equal, aborted)
        known = [id for id in submission.aborted if self._scheduler.task(id) is not None]
        frames, former, told = submission.frames, submission.former, submission.aborted
        self._decide(events.TasksSubmitted(client, tasks, frames, former, told))
        if known:
            self._decide(events.AbortRequested(known, running=True))
        submission.accept()
        for entry in ended.values():
            assert entry.done is not None
            self._outbox.deliver(client, entry.done, entry.result_frames)
        for running in (False, True):
            ids = [id for id, wish in aborted.items() if wish is running]
            if ids:
                self._decide(events.AbortRequested(ids, running))

    def _refuse(self, submission: Submission, missing: Mapping[Digest, str]) -> None:
        """Functions are missing: the client is to say the tasks again, with the functions."""
        if submission.greeting:
            self._incomplete[submission.client] = submission.greeting
        why = next(iter(missing.values()))
        submission.refuse(Refusal(StoreError(_no_function(why)), missing))

    def _is_void(self, submission: Submission) -> bool:
        """Whether a submission comes behind one that was refused: its client says both again, in order."""
        return 0 < submission.greeting <= self._incomplete.get(submission.client, 0)

    def _answer(
        self,
        submission: Submission,
        tasks: Sequence[TaskSpec],
        keys: Mapping[TaskId, CacheKey],
        equal: Mapping[CacheKey, Entry],
        aborted: Mapping[TaskId, bool],
    ) -> list[TaskSpec]:
        """End the tasks that have an equal one; returns the others."""
        now, answers, rest = self._clock(), [], []
        for spec in tasks:
            entry = equal.get(keys[spec.id]) if spec.id in keys and spec.id not in aborted else None
            if entry is None:
                rest.append(spec)
            else:
                answers.append(answer_from(entry, spec, submission.frames.get(spec.id, ()), now))
        if answers:
            self._decide(events.TasksAnswered(submission.client, answers))
        return rest

    def recover(
        self,
        entries: Sequence[Entry],
        functions: Sequence[Function],
        missing: Mapping[Digest, str],
        deadline: float,
        awaited: Mapping[EngineUuid, EngineId] | None,
    ) -> None:
        """Take in the unfinished tasks of the controller's earlier life; engines may claim theirs until `deadline`.

        `missing`: functions that cannot be read, and why. Their tasks end with an error. `awaited`: which engines may
        come back; None: unknown.
        """
        self._add_functions(functions)
        self._library.use(entry.spec for entry in entries)
        found = [events.RecoveredTask(e.spec, e.client, e.frames, e.attempts or (), e.started) for e in entries]
        self._decide(events.TasksRecovered(found, deadline, awaited))
        for digest, why in missing.items():
            ids = [task.spec.id for task in found if task.spec.function == digest]
            self._decide(events.TasksFailed(ids, ErrorInfo(StoreError.__name__, _no_function(why))))

    def _add_functions(self, functions: Sequence[Function]) -> None:
        """Take functions in. New ones go to the store, also those that come from there: it may let go of them."""
        if functions:
            self._outbox.add_functions(self._library.add(functions))


def _bad_id(tasks: Sequence[TaskSpec]) -> Exception | None:
    """Why these ids cannot be: logs, tables and the errors of others show them as they are."""
    ids = list(map(_id_of, tasks))
    together = "".join(ids)
    if together.isascii() and together.isprintable() and max(map(len, ids), default=0) <= MOST_OF_ID:
        return None
    return ProtocolError(f"the id of a task has at most {MOST_OF_ID} characters, printable ones of ASCII")


def _no_function(why: str) -> str:
    return f"the function of this task cannot be had: {why}"


def _or_nothing(read: Callable[[], T], nothing: T) -> T:
    """What is read; `nothing` if the store fails."""
    try:
        return read()
    except EngineroomError as error:
        log.warning("a submission could not be looked up in the database: %s", error)
        return nothing
