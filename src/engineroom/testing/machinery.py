"""What stands around the controller's loop in virtual time, where threads and a database stand in a real one.

Writing and reading take virtual time, and happen in the clock's calls. The store is a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from random import Random
from typing import Any, TypeVar, cast

from ..config import RetentionSettings, SchedulerSettings
from ..controller.loop import Machinery, Post
from ..controller.storage.housekeeping import OnScan
from ..controller.storage.pending import Scope
from ..controller.storage.store_reader import hand_over
from ..core import Scheduler, actions, events
from ..errors import StoreError
from ..ids import ClientId, Digest, TaskId
from ..messages import Environment, Function
from ..records.entry import Entry, state_of
from ..records.record import TaskRecord
from ..stores import NoDB, TaskStore
from ..stores.base import QueryDict, Sort
from .clock import VirtualClock

T = TypeVar("T")

#: Seconds until what was handed to the writer is committed.
COMMIT = 0.02
#: Seconds between two attempts while the store fails.
RETRY = 0.5
#: Seconds in which the store answers, once everything before is recorded.
LOOK_UP = 0.02


class VirtualStore(NoDB):
    """Entries in a dictionary: as much of a store as the controller needs to run tasks.

    A fault that is set as `fault` is called before each operation, with its name; it may raise.
    """

    keeps = True
    durable = True
    url = "virtual"

    def __init__(self) -> None:
        self.kept: dict[TaskId, Entry] = {}
        self.functions: dict[Digest, Function] = {}
        self.fault: Callable[[str], None] | None = None

    def _operation(self, name: str) -> None:
        if self.fault is not None:
            self.fault(name)

    def write(self, entries: Sequence[Entry]) -> None:
        self._operation("write")
        for entry in entries:
            self.kept[entry.spec.id] = entry

    def add_functions(self, functions: Sequence[Function]) -> None:
        self._operation("add_functions")
        self.functions.update((function.digest, function) for function in functions)

    def add_environments(self, environments: Sequence[tuple[ClientId, Environment]]) -> None:
        self._operation("add_environments")

    def get_function(self, digest: Digest) -> Function:
        self._operation("get_function")
        return self.functions[digest]

    def unfinished(self) -> Iterator[Entry]:
        return iter([entry for entry in self.kept.values() if entry.done is None])

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        self._operation("entries")
        return {id: self.kept[id] for id in ids if id in self.kept}

    def find_records(
        self,
        query: QueryDict,
        keys: Iterable[str] | str | None = None,
        *,
        sort: Sort | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> list[TaskRecord]:
        """Only by id, and with the keys that tell how a task ended."""
        self._operation("find_records")
        return [_outcome_of(self.kept[id]) for id in query["msg_id"]["$in"] if id in self.kept]

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        self._operation("update_record")


def _outcome_of(entry: Entry) -> TaskRecord:
    error = entry.done.error if entry.done is not None else None
    found: dict[str, Any] = {
        "msg_id": entry.spec.id,
        "state": state_of(entry),
        "engine_uuid": entry.engine_uuid,
        "queue": "mux" if entry.spec.engine >= 0 else "task",
        "result_content": None if error is None else {"ename": error.ename, "evalue": error.evalue},
    }
    return cast(TaskRecord, found)


class VirtualWriter:
    """The store writer in virtual time."""

    hangs = False
    unwritten = 0

    def __init__(self, store: TaskStore, on_commit: Callable[[list[Any]], None], clock: VirtualClock) -> None:
        self._store, self._on_commit, self._clock = store, on_commit, clock
        self._entries: dict[TaskId, Entry] = {}
        self._tokens: list[Any] = []
        self._functions: list[Function] = []
        self._environments: list[tuple[ClientId, Environment]] = []
        self._calls: list[tuple[Callable[[TaskStore], Any], Future[Any]]] = []
        self._planned = False
        self._failure: StoreError | None = None
        #: the controller was killed: what was not written is lost
        self.is_dead = False

    def put(
        self,
        entries: Sequence[Entry],
        tokens: Sequence[Any] = (),
        functions: Sequence[Function] = (),
        environments: Sequence[tuple[ClientId, Environment]] = (),
    ) -> None:
        for entry in entries:
            self._entries[entry.spec.id] = entry
        self._tokens += tokens
        self._functions += functions
        self._environments += environments
        if entries or tokens or functions or environments:
            self._plan(COMMIT)

    def call(self, function: Callable[[TaskStore], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.append((function, future))
        self._plan(COMMIT)
        return future

    def change(self, function: Callable[[TaskStore], Iterator[int]]) -> Future[int]:
        return self.call(lambda store: sum(function(store)))

    def hurry(self) -> None: ...

    def recorded(self, scope: Scope) -> Future[None]:
        return self.call(lambda store: None)

    def refusal(self, size: int = 0) -> StoreError | None:
        return self._failure

    def scan(self, store: TaskStore, on_scan: OnScan) -> None: ...

    def purged(self) -> None: ...

    def pinned(self) -> None: ...

    def close(self) -> bool:
        return True

    def _plan(self, delay: float) -> None:
        if not self._planned:
            self._planned = True
            self._clock.later(delay, self._commit)

    def _commit(self) -> None:
        self._planned = False
        if self.is_dead:
            return
        calls, self._calls = self._calls, []
        try:
            if self._functions:
                self._store.add_functions(self._functions)
            if self._environments:
                self._store.add_environments(self._environments)
            if self._entries:
                self._store.write(list(self._entries.values()))
        except StoreError as error:
            self._failure = error
            for _, future in calls:
                future.set_exception(error)
            self._plan(RETRY)
            return
        self._failure = None
        tokens, self._tokens = self._tokens, []
        self._entries, self._functions, self._environments = {}, [], []
        if tokens:
            self._on_commit(tokens)
        for function, future in calls:
            try:
                future.set_result(function(self._store))
            except Exception as error:
                future.set_exception(error)


class VirtualReader:
    """The store reader in virtual time."""

    def __init__(
        self,
        store: TaskStore,
        writer: VirtualWriter,
        record: Callable[[], None],
        post: Post,
        clock: VirtualClock,
        rng: Random,
    ) -> None:
        self._store, self._writer, self._record, self._post = store, writer, record, post
        self._clock, self._rng = clock, rng

    def read(
        self,
        work: Callable[[TaskStore], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        after: Scope | None,
        client: ClientId | None = None,
        slow: bool = False,
    ) -> Callable[[], None]:
        def run() -> None:
            if self._writer.is_dead:
                return
            try:
                found = work(self._store)
            except Exception as caught:
                error = caught
                self._later(lambda: failed(error))
            else:
                self._later(lambda: hand_over(found, then, failed))

        def flushed(future: Future[Any]) -> None:
            error = future.exception()
            if isinstance(error, Exception):
                self._post(lambda: failed(error))
            else:
                self._clock.later(self._rng.uniform(0, LOOK_UP / 2), run)

        if after is not None:
            self._record()
            self._writer.call(lambda store: None).add_done_callback(flushed)
        else:
            self._clock.later(self._rng.uniform(0, LOOK_UP / 2), run)
        return lambda: None

    def client_left(self, client: ClientId) -> None:
        """Answers to a client that has left harm nobody here."""

    def read_now(self, work: Callable[[TaskStore], T]) -> T:
        return work(self._store)

    def close(self) -> bool:
        return True

    def _later(self, call: Callable[[], None]) -> None:
        """The answer needs some time, too."""
        self._clock.later(self._rng.uniform(0, LOOK_UP / 2), lambda: self._post(call))


class VirtualProcesses:
    """Processes of peers: `ended` is called by whoever ends one."""

    def __init__(self, ended: Callable[[str], None]) -> None:
        self.ended = ended

    def watch(self, uuid: str, pid: int) -> None: ...

    def forget(self, uuid: str) -> None: ...

    def is_running(self, pid: int) -> bool:
        return True

    def close(self) -> None: ...


class ObservedScheduler(Scheduler):
    """A scheduler, and somebody who is told each event with its actions, before they are performed."""

    def __init__(
        self,
        settings: SchedulerSettings | None,
        seed: int,
        observe: Callable[[events.Event, list[actions.Action]], None],
    ) -> None:
        super().__init__(settings, seed)
        self._observe = observe

    def handle(self, event: events.Event, now: float) -> list[actions.Action]:
        todo = super().handle(event, now)
        self._observe(event, todo)
        return todo


class VirtualMachinery(Machinery):
    """One life of a controller in virtual time. `kill` ends it: what is not written by then is lost."""

    def __init__(
        self,
        clock: VirtualClock,
        seed: int,
        rng: Random,
        observe: Callable[[events.Event, list[actions.Action]], None],
    ) -> None:
        self.clock = clock
        self._virtual_clock, self._seed, self._rng, self._observe = clock, seed, rng, observe

    def scheduler(self, settings: SchedulerSettings | None) -> Scheduler:
        return ObservedScheduler(settings, self._seed, self._observe)

    def writer(
        self,
        store: TaskStore,
        on_commit: Callable[[list[Any]], None],
        retention: RetentionSettings,
        on_refused: Callable[[list[Any]], None],
    ) -> VirtualWriter:
        self._writer = VirtualWriter(store, on_commit, self._virtual_clock)
        return self._writer

    def reader(
        self,
        store: TaskStore,
        record: Callable[[], None],
        recorded: Callable[[Scope], Future[None]],
        post: Post,
    ) -> VirtualReader:
        return VirtualReader(store, self._writer, record, post, self._virtual_clock, self._rng)

    def processes(self, ended: Callable[[str], None]) -> VirtualProcesses:
        self._processes = VirtualProcesses(ended)
        return self._processes

    def process_ended(self, uuid: str) -> None:
        """The process of a peer ends."""
        self._processes.ended(uuid)

    def kill(self) -> None:
        """The controller ends without a word."""
        self._writer.is_dead = True
