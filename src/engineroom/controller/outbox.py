"""Sends what the core decided, to engines and clients, and hands records to the store writer.

What one turn of the loop brings is gathered, and leaves in one message to each peer and one hand-over to the writer
(`flush`). Sending needs nothing but memory: functions are in the library before the core hears of their tasks, and
results that have left memory are read first, while the other messages to their engine wait behind them.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from ..core import actions
from ..core.tasks import Task, TaskState
from ..ids import ClientId, Digest, EngineId, EngineUuid, TaskId
from ..messages import (
    Accepted,
    Cancel,
    CheckProperties,
    Environment,
    ErrorInfo,
    Function,
    Functions,
    InputResult,
    KillTask,
    Message,
    Recall,
    Results,
    ResultsUnavailable,
    Run,
    SignalProcesses,
    Stop,
    Stored,
    TaskDone,
    TaskSpec,
)
from ..records.entry import Entry
from ..stores import TaskStore
from ..wire.frames import FrameTable, size
from .error_info import error_info
from .presence.peers import Peer, Peers
from .storage.backpressure import Unrecorded
from .storage.pending import Scope
from .storage.queued_buffers import QueuedBuffers
from .storage.queued_memory import QueuedMemory
from .storage.store_reader import Reader, ok_value, readable_entries, readable_functions
from .storage.store_writer import Writer
from .supplies.client_environments import ClientEnvironments
from .supplies.function_library import FunctionLibrary
from .supplies.host_buffers import HostBuffers
from .supplies.input_values import InputValues, Raw

log = logging.getLogger(__name__)

# Parts of a message's many tasks, without a step of the interpreter for each.
_spec_of, _attempt_of, _frames_of = attrgetter("spec"), attrgetter("attempt"), attrgetter("frames")
_options_of, _function_of = attrgetter("options"), attrgetter("function")

#: An acknowledgement owed once records are committed: (kind, uuid of the peer, number of its message, how many tasks
#: or results it brought, its bytes).
Token = tuple[str, str, int, int, int]


class LiveOutput(Protocol):
    """Where the output of running tasks is kept."""

    def output_of(self, id: TaskId) -> tuple[str, str]:
        """The end of what this task has printed so far: stdout and stderr."""

    def forget(self, ids: Iterable[TaskId]) -> None:
        """These tasks have ended, or are to run again."""


class ClientBox:
    """The results that one turn has gathered for one client."""

    __slots__ = ("results", "table")

    def __init__(self) -> None:
        self.results: list[TaskDone] = []
        self.table = FrameTable()


class FromStore(msgspec.Struct, frozen=True):
    """What was read for tasks that are to be sent."""

    #: results that are arguments of the tasks
    values: Mapping[TaskId, Raw] = {}
    #: the tasks' own arguments
    arguments: Mapping[TaskId, Raw] = {}
    #: the same, of tasks whose arguments are small
    small: Mapping[TaskId, bytes] = {}


_NOTHING_READ = FromStore()


class Outbox:
    """Performs the actions of the core.

    `reader` reads what has left memory; it is None where nothing is kept (NoDB). `fail` ends tasks with an error.
    `output` has what running tasks have printed. `queued` counts the memory of tasks.
    """

    def __init__(
        self,
        peers: Peers,
        library: FunctionLibrary,
        values: InputValues,
        writer: Writer,
        reader: Reader | None,
        fail: Callable[[Sequence[TaskId], ErrorInfo], None],
        clock: Callable[[], float],
        output: LiveOutput,
        queued: QueuedMemory,
    ) -> None:
        self._output, self._queued = output, queued
        self._peers, self._library, self._values = peers, library, values
        self._writer, self._reader, self._fail, self._clock = writer, reader, fail, clock
        self._boxes: dict[ClientId, ClientBox] = defaultdict(ClientBox)
        #: what waits behind a read for an engine
        self._waiting_for_read: dict[Peer, deque[Callable[[], None]]] = {}
        # for the writer: entries, the acknowledgements owed for them, functions
        self._entries: list[Entry] = []
        self._tokens: list[Token] = []
        self._functions: list[Function] = []
        self._environments: list[tuple[ClientId, Environment]] = []
        self.host_buffers = HostBuffers(peers, clock)
        #: large arguments of tasks
        self._buffers = QueuedBuffers()
        #: the tasks and results that wait for the writer
        self.unrecorded = Unrecorded()
        self.environments = ClientEnvironments()

    def performers(self) -> dict[type[actions.Action], Callable[[Any], None]]:
        """Who performs which type of action."""
        return {
            actions.RecordTasks: self._record,
            actions.RecordProgress: self._record,
            actions.SendTasks: self._send_tasks,
            actions.RecallTasks: lambda a: self._tell(a.engine, Recall(list(a.tasks))),
            actions.CancelTasks: lambda a: self._tell(a.engine, Cancel(list(a.tasks))),
            actions.AskEngine: self._ask_engine,
            actions.KillTask: self._kill_task,
            actions.EndTasks: self._end_tasks,
            actions.StopEngine: lambda a: self._tell(a.engine, Stop(a.restart)),
            actions.KeepValues: self._keep_values,
            actions.ReleaseValues: self._release_values,
        }

    # ------------------------------------------------------------------------------------------ engines and nannies

    def _tell(self, engine: EngineId, message: Message) -> None:
        peer = self._peers.engines.get(engine)
        if peer is None:
            return  # it left in this very moment; the core will hear of it
        if self._waiting_for_read and peer in self._waiting_for_read:
            self._waiting_for_read[peer].append(lambda: self._tell(engine, message))
        else:
            self._peers.send(peer, message)

    def _send_tasks(self, action: actions.SendTasks, read: FromStore | None = None) -> None:
        """`read`: what was read for these tasks; None: nothing was."""
        peer = self._peers.engines.get(action.engine)
        if peer is None:
            return  # it left in this very moment; the core will hear of it
        if self._waiting_for_read and peer in self._waiting_for_read:
            self._waiting_for_read[peer].append(lambda: self._send_tasks(action))
            return
        specs = list(map(_spec_of, action.tasks))
        inputs: list[TaskId] = []
        for options in filter(None, map(_options_of, specs)):
            inputs += options.inputs
        if (inputs or self._buffers.spilled or self._queued.left) and read is None and self._reader is not None:
            values = self._values.spilled(peer.values.missing(inputs)) if inputs else []
            arguments = [task.id for task in action.tasks if task.id in self._buffers.spilled]
            small = self._queued.to_read(action.tasks) if self._queued.left else []
            if values or arguments or small:
                self._read_for(self._reader, peer, action, values, arguments, small)
                return
        read = read or _NOTHING_READ
        table, from_store = FrameTable(), read.arguments
        if from_store or any(map(_frames_of, action.tasks)):
            for number, task in enumerate(action.tasks):
                if from_store and task.id in from_store:
                    payload, frames = from_store[task.id]
                    specs[number] = msgspec.structs.replace(task.spec, payload=payload, frames=table.add(frames))
                elif task.frames:
                    specs[number] = _with_frames(task, table)
        functions = self._new_functions(peer, specs)
        results = self._new_values(peer, inputs, table, read.values) if inputs else []
        attempts = list(map(_attempt_of, action.tasks))
        message = Run(specs, attempts, functions, results, peer.session.sent + 1)
        self.host_buffers.send(peer, message, table.frames)

    def _new_functions(self, peer: Peer, specs: Sequence[TaskSpec]) -> list[Function]:
        """The functions of these tasks, except those that the engine has, or that are not to be had."""
        found = []
        for digest in set(map(_function_of, specs)) - peer.functions:
            function = self._library.get(digest) if digest else None
            if function is not None:
                found.append(function)
        if found:
            peer.note_sent(found)
        return found

    def _new_values(
        self, peer: Peer, inputs: Sequence[TaskId], table: FrameTable, read: Mapping[TaskId, Raw]
    ) -> list[InputResult]:
        """The results that tasks take as arguments, except those that the engine has."""
        values, sizes = [], {}
        for id in peer.values.missing(inputs):
            raw = self._values.get(id) or read.get(id)
            if raw is not None:  # otherwise the engine names what is missing
                values.append(InputResult(id, raw[0], table.add(raw[1])))
                sizes[id] = size(*raw), None
        peer.values.use(inputs, sizes)
        return values

    def _read_for(
        self,
        reader: Reader,
        peer: Peer,
        action: actions.SendTasks,
        values: Sequence[TaskId],
        arguments: Sequence[TaskId],
        small: Sequence[TaskId],
    ) -> None:
        """Read what has left memory, then send the tasks; until then the engine's messages wait.

        `values`: the results to be read; `arguments`: the tasks whose own arguments are to be read; `small`: those
        whose arguments are small: they come back into memory, also those of tasks that are sent later.
        """
        self._waiting_for_read[peer] = deque()

        def work(store: TaskStore) -> FromStore:
            entries, _ = readable_entries(store, [*values, *arguments, *small])
            found = ((id, ok_value(entries.get(id))) for id in values)
            return FromStore(
                {id: value for id, value in found if value is not None},
                {id: (entries[id].spec.payload, entries[id].frames) for id in arguments if id in entries},
                {id: entries[id].spec.payload for id in small if id in entries},
            )

        def then(read: FromStore) -> None:
            self._queued.put_back(small, read.small)
            lost = {id for id in arguments if id not in read.arguments}
            lost |= {task.id for task in action.tasks if task.id in self._queued.left}
            there = [task for task in action.tasks if task.id not in lost]
            self._send_after_read(peer, lambda: self._send_tasks(actions.SendTasks(action.engine, there), read))
            if lost:
                error = ErrorInfo("StoreError", "the arguments of this task cannot be read from the database")
                self._fail(sorted(lost), error)

        def failed(error: Exception) -> None:
            self._queued.put_back(small, {})
            self._send_after_read(peer, lambda: None)
            info = error_info(error, "arguments of tasks could not be read")
            self._fail([task.id for task in action.tasks], info)

        reader.read(work, then, failed, after=None)  # only recorded results leave memory

    def _send_after_read(self, peer: Peer, first: Callable[[], None]) -> None:
        """A read has ended: do what waited for it, unless the engine has come anew or is gone."""
        waiting = self._waiting_for_read.pop(peer, None)
        if waiting is None or self._peers.engines.get(peer.engine) is not peer:
            return  # the core knows that nothing of it arrived
        first()
        for call in waiting:  # each looks whether it has to wait again
            call()

    def _ask_engine(self, action: actions.AskEngine) -> None:
        peer = self._peers.engines.get(action.engine)
        if peer is None:
            return
        if self._waiting_for_read and peer in self._waiting_for_read:
            self._waiting_for_read[peer].append(lambda: self._ask_engine(action))
            return
        new = [digest for digest in action.functions if digest not in peer.functions]
        found = [function for digest in new if (function := self._library.get(digest)) is not None]
        peer.note_sent(found)
        self._peers.send(peer, CheckProperties(list(action.functions), found))

    def send_functions(self, peer: Peer, digests: Sequence[Digest]) -> None:
        """Send an engine functions that it has forgotten, and name those that are not to be had."""
        missing = [digest for digest in digests if digest not in self._library]
        if self._reader is None or not missing:
            self._send_functions(peer, digests)
            return

        def then(found: list[Function]) -> None:
            self.add_functions(self._library.add(found))
            self._send_functions(peer, digests)

        def failed(error: Exception) -> None:
            log.warning("functions could not be read from the database: %s", error)
            self._send_functions(peer, digests)

        self._reader.read(lambda store: readable_functions(store, missing)[0], then, failed, after=Scope())

    def _send_functions(self, peer: Peer, digests: Sequence[Digest]) -> None:
        found = {digest: self._library.get(digest) for digest in digests}
        missing = [digest for digest, function in found.items() if function is None]
        self._peers.send(peer, Functions([f for f in found.values() if f is not None], missing))

    def _kill_task(self, action: actions.KillTask) -> None:
        peer = self._peers.engines.get(action.engine)
        nanny = self._peers.nanny_of(peer) if peer is not None else None
        if peer is not None and nanny is not None:
            self._peers.send(nanny, KillTask(EngineUuid(peer.uuid), action.task))

    def signal_engines(self, number: int, engines: Sequence[EngineId]) -> None:
        """Have nannies signal engine processes."""
        by_nanny: dict[Peer, list[EngineUuid]] = defaultdict(list)
        for id in engines:
            peer = self._peers.engines.get(id)
            nanny = self._peers.nanny_of(peer) if peer is not None else None
            if peer is not None and nanny is not None:
                by_nanny[nanny].append(EngineUuid(peer.uuid))
        for nanny, members in by_nanny.items():
            self._peers.send(nanny, SignalProcesses(number, members))

    # ------------------------------------------------------------------------------------------ outcomes

    def _record(self, action: actions.RecordTasks | actions.RecordProgress) -> None:
        name_of, environment_of = self._library.names.get, self.environments.digests.get
        if self._reader is not None and any(map(_frames_of, action.tasks)):
            self._tokens += [
                ("arguments", task.id, 0, 0, 0) for task in action.tasks if task.frames and self._buffers.add(task)
            ]
        entries = [
            Entry(
                task.spec,
                task.client,
                task.frames,
                attempts=task.attempts,
                function_name=name_of(task.spec.function),
                environment=environment_of(task.client),
            )
            for task in action.tasks
        ]
        self._entries += entries
        if isinstance(action, actions.RecordTasks):
            number = self._queued.add(action.tasks)
            if number:
                self._tokens.append(("small arguments", "", number, 0, 0))
        else:
            # The next attempt prints anew. The output of a task that has ended is taken by `_end_tasks`.
            self._output.forget(t.id for t in action.tasks if t.started is None and t.state is not TaskState.ENDED)
            for task, entry in zip(action.tasks, entries, strict=True):
                peer = None if task.engine is None else self._peers.engines.get(task.engine)
                if task.started is not None and peer is not None:
                    entry.started, entry.engine = task.started, peer.engine
                    entry.engine_uuid, entry.host = EngineUuid(peer.uuid), peer.host

    def _end_tasks(self, action: actions.EndTasks) -> None:
        now, entries, engines = self._clock(), self._entries, self._peers.engines
        client, box, keeps = None, None, self._reader is not None
        known, digest, name, environment = self._library.names, None, None, None
        buffers, queued = self._buffers or None, self._queued
        for ended in action.tasks:
            task, done = ended.task, ended.done
            queued.forget(task)
            if ended.cut_short:
                done.stdout, done.stderr = self._output.output_of(done.id)
                self._output.forget((done.id,))
            engine = engines.get(done.engine)
            if task.spec.function != digest:
                digest = task.spec.function
                name = known.get(digest)
            if task.client != client or box is None:
                client = task.client
                box = self._boxes[client]
                environment = self.environments.digests.get(client)
            frames = ended.frames
            try:
                result = _done_with_frames(done, frames, box.table) if frames else done
                for watcher in task.watchers or ():
                    other = self._boxes[watcher]
                    other.results.append(_done_with_frames(done, frames, other.table) if frames else done)
                if not keeps:
                    self._values.note(done.id, done.payload, frames)
            except Exception as error:  # the core has ended it: an error is its outcome
                info = error_info(error, f"the outcome of task {done.id} could not be delivered")
                result = done = TaskDone(done.id, done.attempt, "error", done.started, done.completed, error=info)
                frames = ()
            entries.append(
                Entry(
                    task.spec,
                    task.client,
                    task.frames,
                    done,
                    frames,
                    now,
                    EngineUuid(engine.uuid) if engine is not None else _lost_uuid(done),
                    task.attempts,
                    engine.host if engine is not None else None,
                    name,
                    environment,
                )
            )
            if buffers is not None:
                buffers.forget(done.id)
            box.results.append(result)

    def _keep_values(self, action: actions.KeepValues) -> None:
        for ended in action.tasks:
            self._values.keep(ended.done.id, ended.done.payload, ended.frames)
            self.host_buffers.keep(ended.frames)
            self._tokens.append(("value", ended.done.id, 0, 0, 0))

    def _release_values(self, action: actions.ReleaseValues) -> None:
        for id in action.tasks:
            self._values.release(id)

    def deliver(self, client: ClientId, done: TaskDone, frames: Sequence[Any]) -> None:
        """Send a client an outcome from the store."""
        box = self._boxes[client]
        if frames:
            done.frames = box.table.add(frames)
        box.results.append(done)

    def forget_client(self, client: ClientId) -> None:
        """A client is gone: nothing needs to be sent to it."""
        self._boxes.pop(client, None)

    # ------------------------------------------------------------------------------------------ the end of a turn

    def owe(self, kind: str, uuid: str, number: int, count: int, weight: int) -> None:
        """Acknowledge a message once everything gathered so far is recorded.

        Parameters
        ----------
        kind : {"accepted", "stored"}
        uuid, number : str, int
            Of the peer, and of its message.
        count, weight : int
            How many tasks or results it brought; its bytes.
        """
        self.unrecorded.add(count, weight)
        self._tokens.append((kind, uuid, number, count, weight))

    def add_functions(self, functions: Sequence[Function]) -> None:
        """Have these functions recorded, too."""
        self._functions += functions

    def leave_in_store(self, ids: Iterable[TaskId]) -> None:
        """The large arguments of these tasks are in the store, and not here."""
        self._buffers.spilled.update(ids)

    def add_environment(self, client: ClientId, environment: Environment) -> None:
        """Have the environment of a client recorded."""
        self.environments.tell(client, environment.digest)
        self._environments.append((client, environment))

    def flush(self) -> None:
        """Send what this turn has gathered, then have it recorded: clients that wait are served first."""
        self.host_buffers.drop_lent()
        if self._boxes:
            boxes = list(self._boxes.items())
            self._boxes.clear()
            for client, box in boxes:
                peer = self._peers.by_uuid.get(client)
                if peer is not None:
                    self._send_results(peer, box)
        if self._tokens or self._entries or self._functions or self._environments:
            self.record()

    def _send_results(self, peer: Peer, box: ClientBox) -> None:
        try:
            self._peers.send(peer, Results(box.results), box.table.frames)
        except Exception as error:
            info = error_info(error, "results could not be sent")
            ids = [done.id for done in box.results]
            reason = f"its result cannot be sent: {info.ename}: {info.evalue}"
            self._peers.send(peer, ResultsUnavailable(ids, reason, info.ename))

    def record(self) -> None:
        """Hand what this turn has gathered to the writer."""
        self._writer.put(self._entries, self._tokens, self._functions, self._environments)
        self._entries, self._tokens, self._functions, self._environments = [], [], [], []

    def acknowledge(self, tokens: Sequence[Token]) -> None:
        """Send the acknowledgements that a commit allows."""
        stored: dict[str, int] = {}
        accepted: dict[str, list[int]] = defaultdict(list)
        for kind, uuid, number, count, weight in tokens:
            self.unrecorded.remove(count, weight)
            if kind == "stored":
                stored[uuid] = number  # the latest says it for all before
            elif kind == "accepted":
                accepted[uuid].append(number)
            elif kind == "arguments":
                self._buffers.recorded(TaskId(uuid))
            elif kind == "small arguments":
                self._queued.recorded(number)
            else:
                self._values.recorded(TaskId(uuid))
        messages: list[tuple[str, Message]] = [(uuid, Accepted(numbers)) for uuid, numbers in accepted.items()]
        messages += [(uuid, Stored(number)) for uuid, number in stored.items()]
        for uuid, message in messages:
            peer = self._peers.by_uuid.get(uuid)
            if peer is not None:
                self._peers.send(peer, message)


def _with_frames(task: Task, table: FrameTable) -> TaskSpec:
    return msgspec.structs.replace(task.spec, frames=table.add(task.frames))


def _done_with_frames(done: TaskDone, frames: Sequence[Any], table: FrameTable) -> TaskDone:
    return msgspec.structs.replace(done, frames=table.add(frames))


def _lost_uuid(done: TaskDone) -> EngineUuid | None:
    """The uuid of an engine that is gone."""
    return EngineUuid(done.error.engine_uuid) if done.error is not None and done.error.engine_uuid else None
