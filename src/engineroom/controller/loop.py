"""The controller: its loop receives, lets the core decide, and sends what the core decided.

    transport ──▶ messages ──▶ intake ──▶ core ──▶ outbox ──▶ transport
                                 │                   └──────▶ store writer (a thread) ──▶ acknowledgements
                                 └── store reader (threads)

One thread owns the core, the peers and the listener: `run`. A turn takes whatever has arrived, handles it all, and then
sends one message to each peer concerned. Each message, each posted function and each action is guarded on its own:
an error in one of them hurts no other. The loop never touches the store, and it never unpickles anything.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from operator import attrgetter
from typing import Any, Protocol

from ..config import LivenessSettings, RetentionSettings, SchedulerSettings
from ..core import Scheduler, actions, events
from ..core.steady_clock import SteadyClock
from ..errors import ProtocolError, StoreRefused
from ..ids import ClientId, EngineId, EngineUuid, TaskId, new_uuid
from ..messages import (
    BufferNotFetched,
    Draining,
    EngineDied,
    ErrorInfo,
    Goodbye,
    Hello,
    Message,
    NeedFunctions,
    Output,
    Ping,
    PropertiesChanged,
    PropertiesChecked,
    Published,
    Rejected,
    RelayOpened,
    Request,
    Results,
    Returned,
    Started,
    Starting,
    Stop,
    Submit,
    Unresponsive,
    Waiting,
    Watch,
    Welcome,
)
from ..printable import one_line
from ..records.entry import Entry
from ..shared_memory.buffer import weight
from ..stores import TaskStore
from ..transport import Listener
from ..wire.frames import pick_all
from .decisions import Decisions
from .error_info import error_info, forgotten_at_restart
from .intake import Intake, Refusal, Submission
from .outbox import Outbox, Token
from .outcome_lookup import OutcomeLookup
from .presence.membership import Membership, Processes
from .presence.peers import Peer, Peers
from .presence.process_watcher import ProcessWatcher
from .presence.roster import Roster
from .receipts import Receipts
from .requests.door import MAY_SAY, Door
from .requests.requests import Requests
from .requests.resubmission import Resubmission
from .requests.running_tasks import RunningTasks
from .requests.stored_results import StoredResults
from .requests.task_requests import TaskRequests
from .storage.backpressure import Room, WaitingRoom
from .storage.pending import Scope
from .storage.queued_memory import Measured, QueuedMemory
from .storage.store_reader import Reader, StoreReader
from .storage.store_writer import StoreWriter, Writer
from .storage.unfinished import read_unfinished
from .storage.unused_content import UnusedContent
from .supplies.function_library import FunctionLibrary
from .supplies.input_values import InputValues

log = logging.getLogger(__name__)

_payload_of = attrgetter("payload")

#: How long nannies may take to stop their engines when the controller ends.
STOP_SECONDS = 5.0
#: The loop is so late if its process was stopped (then a wait can end without the messages that are there), or a turn
#: took long. Then it takes in so many messages at once, before it does what is due.
PAUSE_SECONDS, CAUGHT_UP = 0.25, 10_000

Post = Callable[[Callable[[], None]], None]
Receive = Callable[[Peer, Any, Sequence[Any]], None]


class WatchedProcesses(Processes, Protocol):
    """A process watcher that can be closed."""

    def close(self) -> None: ...


class Machinery:
    """What makes the threads around the loop. The simulation has its own, in virtual time."""

    clock: Callable[[], float] = SteadyClock(time.time, time.monotonic)

    def scheduler(self, settings: SchedulerSettings | None) -> Scheduler:
        """The core."""
        return Scheduler(settings)

    def writer(
        self,
        store: TaskStore,
        on_commit: Callable[[list[Token]], None],
        retention: RetentionSettings,
        on_refused: Callable[[list[tuple[Entry, StoreRefused]]], None],
    ) -> Writer:
        """Who writes to the store."""
        return StoreWriter(store, on_commit, retention, on_refused)

    def reader(
        self,
        store: TaskStore,
        record: Callable[[], None],
        recorded: Callable[[Scope], Future[None]],
        post: Post,
    ) -> Reader:
        """Who reads from the store."""
        return StoreReader(store, record, recorded, post)

    def processes(self, ended: Callable[[str], None]) -> WatchedProcesses:
        """Who watches the processes of peers."""
        return ProcessWatcher(ended)


class Controller:
    """The process in the middle: makes the parts, and takes the turns. `run` returns when the cluster is stopped."""

    def __init__(
        self,
        listener: Listener,
        store: TaskStore,
        key: str,
        *,
        scheduler: SchedulerSettings | None = None,
        liveness: LivenessSettings | None = None,
        retention: RetentionSettings | None = None,
        queued_memory: int | None = None,
        restarted: bool = False,
        roster: Roster | None = None,
        relay: bool = True,
        machinery: Machinery | None = None,
    ) -> None:
        """`queued_memory`: bytes that tasks may take that have not ended; None: as many as they like.

        `relay`: whether other hosts pass large buffers on to each other.
        """
        machinery = machinery or Machinery()
        self._clock = clock = machinery.clock
        began, roster = clock() if restarted else None, roster or Roster()
        self._liveness = liveness = liveness or LivenessSettings()
        retention = retention or RetentionSettings()
        self._listener, self._store = listener, store
        self._posted: deque[Callable[[], None]] = deque()
        self._stopping_until: float | None = None
        self._next_sweep = 0.0
        self._restarted = restarted
        #: when the last turn was taken, and how many were taken
        self._turned, self.turns = clock(), 0
        self._deadline: float | None = None
        forgotten = forgotten_at_restart(store, began)

        self.scheduler = core = machinery.scheduler(scheduler)
        performers: dict[type[actions.Action], Callable[[Any], None]] = {}
        self.decide = decide = Decisions(core, performers, clock).decide
        self._peers = peers = Peers(listener, key)
        self._library = library = FunctionLibrary(clock)
        self._running = running = RunningTasks()
        #: results that unfinished tasks take as arguments
        self.values = values = InputValues()
        self._processes = processes = machinery.processes(lambda uuid: self.post(lambda: self._process_ended(uuid)))
        self._writer = writer = machinery.writer(store, self._committed, retention, self._refused)
        self._reader = reader = machinery.reader(store, lambda: self._outbox.record(), writer.recorded, self.post)
        kept = reader if store.keeps else None
        here = peers.by_uuid.__contains__

        self._queued = queued = QueuedMemory(queued_memory, may_leave=store.durable)
        self._outbox = outbox = Outbox(peers, library, values, writer, kept, self._fail, clock, running, queued)
        self._receipts = Receipts(core, outbox)
        room = Room(outbox.unrecorded, queued, writer, peers.is_inside_engine)
        self._lookup = OutcomeLookup(core, decide, values, kept, here, self.post, clock)
        performers |= outbox.performers()
        performers[actions.FindOutcomes] = self._lookup.find
        self._stored = StoredResults(
            core, decide, outbox, self._tell, kept, forgotten, store.url, self.post, running.news_of, here, clock
        )
        self._intake = Intake(core, decide, self._library, outbox, kept, writer.refusal, self._stored.watch, clock)
        relay_key = secrets.token_hex(32) if relay else ""
        welcome = Welcome(new_uuid(), scheme=core.settings.scheme, keeps=store.keeps, relay_key=relay_key)
        self._members = Membership(
            peers, core, decide, processes, liveness, welcome, self._client_left, room.lacks, clock, restarted, roster
        )
        tasks = TaskRequests(
            core,
            decide,
            self._intake.lookups,
            outbox.signal_engines,
            self.stop,
            clock,
            running.memory,
            library.names.get,
            keeps=store.keeps,
            forgotten=forgotten,
        )
        resubmission = Resubmission(
            self._intake, reader, outbox.record, self._change, self._stored.watch, clock, forgotten
        )
        self._requests = Requests(
            self._tell,
            self.post,
            self._intake.lookups,
            reader,
            outbox.record,
            self._change,
            tasks,
            resubmission,
            writer.purged,
            writer.pinned,
            forgotten,
        )
        self._unused = UnusedContent(
            store,
            self._library,
            self._call_writer,
            writer.scan,
            writer.purged,
            self.post,
            outbox.environments.digests,
            retention.interval,
            clock,
        )
        self._door = Door(self._tell, lambda: peers.nonsense.count(clock()))
        self._room = WaitingRoom(room.lacks, self._handle)
        self._receivers: dict[type[Message], Receive] = {
            Submit: self._on_submit,
            Watch: self._on_watch,
            Request: self._on_request,
            Results: self._on_results,
            Returned: self._on_returned,
            Waiting: self._on_waiting,
            Output: self._on_output,
            Started: self._on_started,
            Published: self._on_published,
            NeedFunctions: self._on_need_functions,
            PropertiesChecked: self._on_answers,
            PropertiesChanged: self._on_properties_changed,
            Starting: self._members.on_starting,
            EngineDied: self._on_engine_died,
            Unresponsive: self._members.on_unresponsive,
            Draining: self._members.on_draining,
            RelayOpened: outbox.host_buffers.on_relay_opened,
            BufferNotFetched: outbox.host_buffers.on_not_fetched,
            Ping: self._members.on_ping,
            Goodbye: self._members.on_goodbye,
        }

    # ------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until stopped."""
        self.recover()
        try:
            while not self.has_stopped:
                self.turn()
        finally:
            self.close()

    def stop(self, reason: str = "the cluster was stopped") -> None:
        """Begin to end: abort what has not finished, stop the engines. Safe from a signal handler or a thread."""
        self.post(lambda: self._begin_stop(reason))

    def post(self, function: Callable[[], None]) -> None:
        """Have the loop call a function. Safe from any thread."""
        self._posted.append(function)
        self._listener.wake()

    def turn(self) -> None:
        """Wait until something arrives or is due, then handle everything."""
        self.turns += 1
        due = self.due
        received = self._listener.receive(timeout=0.0 if self._posted else max(0.0, due - self._clock()))
        now = self._clock()
        if now - max(self._turned, due) > PAUSE_SECONDS:  # peers were not silent: what they have sent comes first
            received += self._listener.receive(CAUGHT_UP)
        self._turned = now
        for address, parts in received:
            self._receive(address, parts, now)
        self._call_posted()
        self._room.let_in()
        if now >= self._next_sweep:
            self._guard(lambda: self._sweep(now))
        if self._lookup.due is not None:
            self._guard(lambda: self._lookup.look_again(now))
        if self._deadline is not None and now >= self._deadline:
            self._guard(lambda: self.decide(events.Ticked()))
        self._guard(self._members.send_news)
        self._guard(self._receipts.settle)
        self._guard(self._outbox.flush)
        self._deadline = self.scheduler.next_deadline()

    @property
    def due(self) -> float:
        """When the next turn is to be taken, if nothing arrives before."""
        due = self._next_sweep
        for moment in (self._deadline, self._lookup.due, self._stopping_until, self._members.news_due):
            if moment is not None and moment < due:
                due = moment
        return due

    def _call_posted(self) -> None:
        for _ in range(len(self._posted)):  # what these post is called in the next turn
            self._guard(self._posted.popleft())

    def _guard(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            log.exception("a bug: a function of the loop failed; the loop goes on")

    def _receive(self, address: bytes, parts: Sequence[Any], now: float) -> None:
        try:
            arrived = self._peers.receive(address, parts[0], now)
        except Exception:
            log.exception("a bug: while taking in a message")
            return
        if isinstance(arrived, Hello):
            self._guard(lambda: self._on_hello(address, arrived, now))
        elif arrived is not None:
            peer, message = arrived
            if peer.rights in MAY_SAY and (message := self._door.let_in(peer, message)) is None:  # type: ignore[assignment]
                return
            self._room.receive(peer, message, parts[1:])

    def _handle(self, peer: Peer, message: Message, frames: Sequence[Any], receive: Receive | None = None) -> None:
        """Do what a message asks for. What is wrong with it harms its sender alone, and does not fill the log."""
        try:
            (receive or self._receivers[type(message)])(peer, message, frames)
        except ProtocolError as error:
            if self._peers.nonsense.count(self._clock()):
                log.warning("%s %s broke the protocol: %s", peer.role, peer.uuid, error)
            self._reject(peer, message, error)
        except Exception as error:
            if self._peers.nonsense.count(self._clock()):
                log.exception("a bug: while handling %.2000r from %s %s", message, peer.role, peer.uuid)
            self._reject(peer, message, error)

    def _on_hello(self, address: bytes, hello: Hello, now: float) -> None:
        if self._members.hello(address, hello, now):
            self._room.forget(hello.uuid)

    def _reject(self, peer: Peer, message: Message, error: Exception) -> None:
        """Tell a client that its tasks were not taken: nobody waits for ever."""
        if isinstance(message, Submit):
            self._peers.send(peer, Rejected(message.number, ErrorInfo(type(error).__name__, str(error))))

    def _process_ended(self, uuid: str) -> None:
        self._hear_last_words(uuid)
        self._members.process_ended(uuid)

    def _hear_last_words(self, uuid: str) -> None:
        """The process of a peer has ended: take in what it has sent before."""
        peer, now = self._peers.by_uuid.get(uuid), self._clock()
        if peer is not None:
            for address, parts in self._listener.receive_last(peer.address):
                self._receive(address, parts, now)

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + self._liveness.ping_interval
        self._members.sweep(now)
        self._unused.sweep(now)
        self._stored.look_again(now)
        self._outbox.host_buffers.sweep()
        tasks = self.scheduler.tasks
        self._running.sweep(
            lambda id: id in tasks and tasks[id].engine is not None, [peer.uuid for peer in self._peers.role("engine")]
        )
        if self._library.is_full:
            self._library.trim(task.spec.function for task in self.scheduler.tasks.values())

    # ------------------------------------------------------------------------------------------ from clients

    def _on_submit(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        client, number = ClientId(peer.uuid), message.number

        def refuse(refusal: Refusal) -> None:
            if refusal.missing:
                rejected = Rejected(number, ErrorInfo("ProtocolError", "functions are missing"), "functions")
            else:
                rejected = Rejected(number, error_info(refusal.error, "tasks could not be taken in"))
            self._tell(client, rejected)

        buffers = pick_all(message.tasks, frames)
        size = sum(memoryview(frame).nbytes for frame in frames)
        weighs = weight(frames) + sum(map(len, map(_payload_of, message.tasks)))
        self._intake.submit(
            Submission(
                client,
                message.tasks,
                buffers,
                lambda: self._outbox.owe("accepted", client, number, len(message.tasks), weighs),
                refuse,
                functions=message.functions,
                environment=message.environment,
                resent=message.resent,
                former=message.former,
                aborted=set(message.aborted),
                cached=message.cached,
                greeting=peer.session.hello if message.sent else 0,
            ),
            size,
        )

    def _on_watch(self, peer: Peer, message: Watch, frames: Sequence[Any]) -> None:
        self._stored.watch(ClientId(peer.uuid), message.tasks)

    def _on_request(self, peer: Peer, message: Request, frames: Sequence[Any]) -> None:
        self._requests.answer(ClientId(peer.uuid), message)

    def _client_left(self, client: ClientId) -> None:
        self._room.client_left(client)
        self._outbox.forget_client(client)
        self._outbox.environments.left(client, lambda: {task.client for task in self.scheduler.tasks.values()})
        self._reader.client_left(client)
        self._stored.client_left(client)
        self._intake.client_left(client)
        self._requests.client_left(client)
        self._outbox.record()
        self._writer.hurry()  # the client does not keep its tasks for us any more

    # ------------------------------------------------------------------------------------------ from engines

    def _on_results(self, peer: Peer, message: Results, frames: Sequence[Any]) -> None:
        if peer.results >= 0 and message.number != peer.results + 1:
            return  # some before it were lost. To store it would tell the engine that all before are stored, too.
        peer.results = message.number
        if message.lent:
            self._outbox.host_buffers.lent(peer, message.lent, frames)
        number, peak = peer.engine, message.peak_memory
        for done in message.tasks:
            done.engine = number
            done.peak_memory = peak
        self.decide(events.TasksFinished(peer.engine, message.tasks, pick_all(message.tasks, frames)))
        self._running.forget(done.id for done in message.tasks)
        weighs = weight(frames) + sum(map(len, map(_payload_of, message.tasks)))
        self._receipts.owe(EngineUuid(peer.uuid), message.number, len(message.tasks), weighs)

    def _on_returned(self, peer: Peer, message: Returned, frames: Sequence[Any]) -> None:
        self.decide(events.TasksReturned(peer.engine, message.tasks))

    def _on_started(self, peer: Peer, message: Started, frames: Sequence[Any]) -> None:
        message.engine = peer.engine
        if not self._is_running(message.task, peer):
            return
        self.decide(events.TaskStarted(peer.engine, message.task, message.attempt, message.started))
        if self._running.on_started(EngineUuid(peer.uuid), message):
            self._on_live(peer, message, frames)

    def _on_output(self, peer: Peer, message: Output, frames: Sequence[Any]) -> None:
        if self._is_running(message.task, peer):
            self._running.on_output(message)
            self._on_live(peer, message, frames)

    def _on_waiting(self, peer: Peer, message: Waiting, frames: Sequence[Any]) -> None:
        self.decide(events.TasksWaiting(peer.engine, message.tasks))

    def _on_live(self, peer: Peer, message: Output | Started | Published, frames: Sequence[Any]) -> None:
        task = self.scheduler.task(message.task)
        if task is None:
            return  # it has ended meanwhile
        for client in (task.client, *(task.watchers or ())):
            self._tell(client, message, frames)

    def _on_published(self, peer: Peer, message: Published, frames: Sequence[Any]) -> None:
        if self._is_running(message.task, peer):
            self._on_live(peer, message, frames)

    def _is_running(self, id: TaskId, peer: Peer) -> bool:
        """Whether this engine holds a task, so that it may run it."""
        task = self.scheduler.task(id)
        return task is not None and task.engine == peer.engine

    def _on_need_functions(self, peer: Peer, message: NeedFunctions, frames: Sequence[Any]) -> None:
        self._outbox.send_functions(peer, message.digests)

    def _on_engine_died(self, peer: Peer, message: EngineDied, frames: Sequence[Any]) -> None:
        """A result that was sent before is no reason to blame its task for the death: it is heard first."""

        def died() -> None:
            self._hear_last_words(message.engine)
            self._handle(peer, message, frames, self._members.engine_died)

        self.post(died)

    def _on_answers(self, peer: Peer, message: PropertiesChecked, frames: Sequence[Any]) -> None:
        self.decide(events.PropertiesAnswered(peer.engine, {a.digest: one_line(a.reason) for a in message.answers}))

    def _on_properties_changed(self, peer: Peer, message: PropertiesChanged, frames: Sequence[Any]) -> None:
        self.decide(events.PropertiesChanged([peer.engine]))

    # ------------------------------------------------------------------------------------------ between the parts

    def _tell(self, client: ClientId, message: Message, buffers: Sequence[Any] = ()) -> None:
        peer = self._peers.by_uuid.get(client)
        if peer is not None:
            self._peers.send(peer, message, buffers)

    def _fail(self, tasks: Sequence[TaskId], error: ErrorInfo) -> None:
        self.decide(events.TasksFailed(tasks, error))

    def _committed(self, tokens: list[Token]) -> None:
        self.post(lambda: self._outbox.acknowledge(tokens))

    def _refused(self, refused: list[tuple[Entry, StoreRefused]]) -> None:
        """The store cannot hold these: their tasks end."""
        for entry, error in refused:
            self.post(lambda id=entry.spec.id, error=error: self._fail([id], error_info(error)))  # type: ignore[misc]

    def _call_writer(self, function: Callable[[TaskStore], Any]) -> Future[Any]:
        """Call a function in the writer's thread, after everything that happened before is recorded."""
        self._outbox.record()
        return self._writer.call(function)

    def _change(self, function: Callable[[TaskStore], Iterator[int]], then: Callable[[Future[Any]], None]) -> None:
        """The same for a change in pieces; then the loop calls `then` with the future."""
        self._outbox.record()
        self._writer.change(function).add_done_callback(lambda future: self.post(lambda: then(future)))

    # ------------------------------------------------------------------------------------------ begin and end

    def recover(self) -> None:
        """Take up what an earlier life of the controller left unfinished. Nothing else is served before."""
        found = self._reader.read_now(lambda store: read_unfinished(store, Measured(self._queued).takes))
        self._outbox.leave_in_store(found.large)
        if entries := found.entries:
            log.warning("taking up %d unfinished tasks from the store", len(entries))
            # Numbers that direct tasks wait for are for the engines that had them, not for new ones.
            self._members.reserve(EngineId(entry.spec.engine) for entry in entries)
        if entries or self._restarted:  # engines are on their way back also if nothing is unfinished
            deadline, awaited = self._clock() + self._liveness.recovery_grace, self._members.awaited()
            self._intake.recover(entries, found.functions, found.missing, deadline, awaited)
            self._queued.take_up(self.scheduler.tasks.values(), found.small)

    def _begin_stop(self, reason: str) -> None:
        if self._stopping_until is not None:
            return
        self._stopping_until = self._clock() + STOP_SECONDS
        self._intake.stop()
        self.decide(events.ControllerStopped(reason))
        for nanny in self._peers.role("nanny"):
            self._peers.send(nanny, Stop())

    @property
    def has_stopped(self) -> bool:
        """Whether it was stopped, and everybody has left or had the time to."""
        if self._stopping_until is None:
            return False
        return not (self._peers.role("nanny") or self._peers.role("engine")) or self._clock() >= self._stopping_until

    def close(self) -> None:
        """Write and send what is left, and say goodbye."""
        self._members.send_news()
        self._outbox.flush()
        is_written = self._writer.close()
        while self._posted:
            self._call_posted()
        self._outbox.flush()
        for client in self._peers.role("client"):
            self._peers.send(client, Goodbye("the controller has stopped", self._writer.unwritten))
        is_read = self._reader.close()
        self._processes.close()
        self._listener.close()
        if is_written and is_read:  # else closing it would hang, too
            self._store.close()
