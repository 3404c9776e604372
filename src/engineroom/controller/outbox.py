"""Does what the core decided: sends to engines and clients, hands records to the writer.

What one turn of the loop brings is gathered, and leaves in one message to each peer and one hand-over to the
writer (`flush`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..core import actions
from ..core.tasks import Task
from ..ids import ClientId, EngineId, EngineUuid, TaskId
from ..messages import (
    Accepted,
    Ask,
    Cancel,
    Environment,
    Function,
    KillTask,
    Message,
    Recall,
    Results,
    Run,
    SignalProcesses,
    Stop,
    Stored,
    TaskDone,
    Value,
)
from ..records.entry import Entry
from ..wire.frames import FrameTable, size
from .peers import Peer

if TYPE_CHECKING:
    from .loop import Controller


class Outbox:
    """What one turn has gathered for one client."""

    __slots__ = ("results", "table")

    def __init__(self) -> None:
        self.results: list[TaskDone] = []
        self.table = FrameTable()


class Performer:
    """The hands of the controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._peers = controller.peers
        self._outboxes: dict[ClientId, Outbox] = defaultdict(Outbox)
        # for the writer: entries, the acknowledgements owed for them, functions
        self._entries: list[Entry] = []
        self._tokens: list[tuple[str, str, int]] = []
        self._functions: list[Function] = []
        self._environments: list[tuple[ClientId, Environment]] = []
        #: digests; also of clients that have gone, whose tasks may not have ended
        self.environment_of: dict[ClientId, str] = {}
        self._performers: dict[type[actions.Action], Callable[[Any], None]] = {
            actions.RecordTasks: self._record,
            actions.RecordAttempts: self._record,
            actions.SendTasks: self._send_tasks,
            actions.RecallTasks: lambda a: self._tell(a.engine, Recall(list(a.tasks))),
            actions.CancelTasks: lambda a: self._tell(a.engine, Cancel(list(a.tasks))),
            actions.AskEngine: self._ask_engine,
            actions.KillTask: self._kill_task,
            actions.EndTasks: self._end_tasks,
            actions.StopEngine: lambda a: self._tell(a.engine, Stop()),
            actions.FindOutcomes: lambda a: controller.hub.find_outcomes(a.tasks),
            actions.KeepValues: self._keep_values,
            actions.ReleaseValues: self._release_values,
        }

    def perform(self, action: actions.Action) -> None:
        """Do it, or gather it for the end of the turn."""
        self._performers[type(action)](action)

    # ------------------------------------------------------------------------------------------ engines and nannies

    def _tell(self, engine: EngineId, message: Message) -> None:
        peer = self._peers.engines.get(engine)
        if peer is not None:
            self._peers.send(peer, message)

    def _send_tasks(self, action: actions.SendTasks) -> None:
        peer = self._peers.engines.get(action.engine)
        if peer is None:
            return  # it left in this very moment; the core will hear of it
        library = self._controller.library
        table, tasks, attempts, functions = FrameTable(), [], [], []
        inputs: list[TaskId] = []
        known = peer.functions
        for task in action.tasks:
            spec = task.spec
            if spec.function not in known and spec.function:
                function = library.get(spec.function)
                if function is not None:
                    known.add(spec.function)
                    functions.append(function)
            if spec.options is not None:
                inputs += spec.options.inputs
            tasks.append(_with_frames(task, table) if task.frames else spec)
            attempts.append(task.attempt)
        values = self._values(peer, inputs, table) if inputs else []
        self._peers.send(peer, Run(tasks, attempts, functions, values), table.frames)

    def _values(self, peer: Peer, inputs: Sequence[TaskId], table: FrameTable) -> list[Value]:
        """The results that tasks take as arguments, but for those the engine has."""
        values, sizes = [], {}
        for id in peer.values.missing(inputs):
            raw = self._controller.values.get(id)
            if raw is not None:  # else the engine names what is missing
                values.append(Value(id, raw[0], table.add(raw[1])))
                sizes[id] = size(*raw), None
        peer.values.use(inputs, sizes)
        return values

    def _ask_engine(self, action: actions.AskEngine) -> None:
        peer = self._peers.engines.get(action.engine)
        if peer is None:
            return
        new = [digest for digest in action.functions if digest not in peer.functions]
        found = [function for digest in new if (function := self._controller.library.get(digest)) is not None]
        peer.functions.update(function.digest for function in found)
        self._peers.send(peer, Ask(list(action.functions), found))

    def _kill_task(self, action: actions.KillTask) -> None:
        peer = self._peers.engines.get(action.engine)
        nanny = self._peers.by_uuid.get(peer.nanny) if peer is not None else None
        if peer is not None and nanny is not None:
            self._peers.send(nanny, KillTask(EngineUuid(peer.uuid), action.task))

    def signal_engines(self, number: int, engines: Sequence[EngineId]) -> None:
        """Have nannies signal engine processes."""
        by_nanny: dict[str, list[EngineUuid]] = defaultdict(list)
        for id in engines:
            peer = self._peers.engines.get(id)
            if peer is not None:
                by_nanny[peer.nanny].append(EngineUuid(peer.uuid))
        for uuid, members in by_nanny.items():
            nanny = self._peers.by_uuid.get(uuid)
            if nanny is not None:
                self._peers.send(nanny, SignalProcesses(number, members))

    # ------------------------------------------------------------------------------------------ outcomes

    def _record(self, action: actions.RecordTasks | actions.RecordAttempts) -> None:
        name_of, environment_of = self._controller.library.names.get, self.environment_of.get
        self._entries += [
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

    def _end_tasks(self, action: actions.EndTasks) -> None:
        now, entries, engines = time.time(), self._entries, self._peers.engines
        client, outbox, keeps = None, None, self._controller.store.keeps
        known, digest, name, environment = self._controller.library.names, None, None, None
        for ended in action.tasks:
            task, done = ended.task, ended.done
            engine = engines.get(done.engine)
            if task.spec.function != digest:
                digest = task.spec.function
                name = known.get(digest)
            if task.client != client or outbox is None:
                client = task.client
                outbox = self._outboxes[client]
                environment = self.environment_of.get(client)
            entries.append(
                Entry(
                    task.spec,
                    task.client,
                    task.frames,
                    done,
                    ended.frames,
                    now,
                    EngineUuid(engine.uuid) if engine is not None else _lost_uuid(done),
                    task.attempts,
                    engine.host if engine is not None else None,
                    name,
                    environment,
                )
            )
            if not keeps:
                self._controller.values.note(done.id, done.payload, ended.frames)
            outbox.results.append(_done_with_frames(ended, outbox.table) if ended.frames else done)
            for watcher in task.watchers or ():
                other = self._outboxes[watcher]
                other.results.append(_done_with_frames(ended, other.table) if ended.frames else done)

    def _keep_values(self, action: actions.KeepValues) -> None:
        for ended in action.tasks:
            self._controller.values.keep(ended.done.id, ended.done.payload, ended.frames)
            self._tokens.append(("value", ended.done.id, 0))

    def _release_values(self, action: actions.ReleaseValues) -> None:
        for id in action.tasks:
            self._controller.values.release(id)

    def deliver(self, peer: Peer, done: TaskDone, frames: Sequence[Any]) -> None:
        """Put an outcome from the store into a client's outbox."""
        outbox = self._outboxes[ClientId(peer.uuid)]
        if frames:
            done.frames = outbox.table.add(frames)
        outbox.results.append(done)

    def forget_client(self, uuid: str) -> None:
        """A client is gone: nothing needs to be sent to it."""
        self._outboxes.pop(ClientId(uuid), None)

    # ------------------------------------------------------------------------------------------ the end of a turn

    def owe(self, kind: str, uuid: str, number: int) -> None:
        """Once what has been gathered is recorded, this is to be acknowledged."""
        self._tokens.append((kind, uuid, number))

    def add_functions(self, functions: Sequence[Function]) -> None:
        """Have these recorded, too."""
        self._functions += functions

    def add_environment(self, client: ClientId, environment: Environment) -> None:
        """Have recorded where a client runs."""
        self.environment_of[client] = environment.digest
        self._environments.append((client, environment))

    def flush(self) -> None:
        """Send what this turn has gathered, then have it recorded: who waits is served first."""
        if self._outboxes:
            for client, outbox in self._outboxes.items():
                peer = self._peers.by_uuid.get(client)
                if peer is not None:
                    self._peers.send(peer, Results(outbox.results), outbox.table.frames)
            self._outboxes.clear()
        if self._tokens or self._entries or self._functions or self._environments:
            self.record()

    def record(self) -> None:
        """Hand what this turn has gathered to the writer."""
        self._controller.writer.put(self._entries, self._tokens, self._functions, self._environments)
        self._entries, self._tokens, self._functions, self._environments = [], [], [], []

    def acknowledge(self, tokens: list[tuple[str, str, int]]) -> None:
        """Send the acknowledgements that a commit allows."""
        stored: dict[str, int] = {}
        accepted: dict[str, list[int]] = defaultdict(list)
        for kind, uuid, number in tokens:
            if kind == "stored":
                stored[uuid] = number  # the latest says it for all before
            elif kind == "accepted":
                accepted[uuid].append(number)
            else:
                self._controller.values.stored(TaskId(uuid))
        messages: list[tuple[str, Message]] = [(uuid, Accepted(numbers)) for uuid, numbers in accepted.items()]
        messages += [(uuid, Stored(number)) for uuid, number in stored.items()]
        for uuid, message in messages:
            peer = self._peers.by_uuid.get(uuid)
            if peer is not None:
                self._peers.send(peer, message)


def _with_frames(task: Task, table: FrameTable) -> Any:
    spec = task.spec
    return type(spec)(
        spec.id,
        spec.function,
        spec.payload,
        spec.submitted,
        spec.engine,
        table.add(task.frames),
        spec.options,
        spec.kind,
    )


def _done_with_frames(ended: actions.Ended, table: FrameTable) -> TaskDone:
    d = ended.done
    return TaskDone(
        d.id,
        d.attempt,
        d.status,
        d.started,
        d.completed,
        d.payload,
        d.engine,
        table.add(ended.frames),
        d.stdout,
        d.stderr,
        d.error,
        d.content,
        d.peak_memory,
        d.cached_from,
    )


def _lost_uuid(done: TaskDone) -> EngineUuid | None:
    """The uuid of an engine that is not there any more."""
    return EngineUuid(done.error.engine_uuid) if done.error is not None and done.error.engine_uuid else None
