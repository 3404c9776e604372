"""The controller: receives, lets the core decide, performs what it decided.

    transport ──▶ messages ──▶ events ──▶ core ──▶ actions ──▶ outboxes ──▶ transport
                                                        └────▶ store writer (a thread) ──▶ acknowledgements

One thread owns the core, the peers and the listener: `run`. It takes whatever has arrived, handles it all, and
then sends one message to each peer concerned. Queries run in threads of their own (`hub.py`). Nothing here
unpickles anything.
"""

from __future__ import annotations

import itertools
import logging
import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..config import LivenessSettings, RetentionSettings, SchedulerSettings
from ..core import Scheduler, events
from ..errors import ProtocolError, StoreError
from ..ids import ClientId, EngineId, EngineUuid, NannyId, new_uuid
from ..messages import (
    Answers,
    EngineDied,
    EngineInfo,
    Engines,
    ErrorInfo,
    Functions,
    Goodbye,
    Hello,
    Message,
    NeedFunctions,
    Output,
    Ping,
    PropertiesChanged,
    Published,
    Rejected,
    Request,
    Results,
    Returned,
    SignalProcesses,
    Started,
    Starting,
    Stop,
    Submit,
    Unresponsive,
    Watch,
    Welcome,
)
from ..stores import TaskStore
from ..transport import Listener
from ..wire.frames import pick
from .function_library import Library
from .input_values import Values
from .intake import Arriving
from .outbox import Performer
from .peers import Peer, Peers
from .process_watcher import ProcessWatcher
from .requests import Hub
from .result_cache import ResultCache
from .store_writer import StoreWriter
from .unused_functions import Collector

log = logging.getLogger(__name__)

#: How long nannies may take to stop their engines when the controller ends.
STOP_SECONDS = 5.0


class Controller:
    """The process in the middle. `run` returns when the cluster is stopped."""

    def __init__(
        self,
        listener: Listener,
        store: TaskStore,
        key: str,
        *,
        scheduler: SchedulerSettings | None = None,
        liveness: LivenessSettings | None = None,
        retention: RetentionSettings | None = None,
        restarted: bool = False,
    ) -> None:
        self.incarnation = new_uuid()
        #: when this life began, if another one was ended by force before it
        self.restarted = time.time() if restarted else None
        self.scheduler = Scheduler(scheduler)
        self.peers = Peers(listener, key)
        self.store = store
        self.library = Library(store)
        self.values = Values(store)
        self.hub = Hub(self)
        self.arriving = Arriving(self)
        self.cache = ResultCache(self)
        self.performer = Performer(self)
        self._liveness = liveness or LivenessSettings()
        self._listener = listener
        self._processes = ProcessWatcher(lambda uuid: self.post(lambda: self._process_ended(uuid)))
        self._posted: deque[Callable[[], None]] = deque()
        self._reserved: set[EngineId] = set()
        # After a restart engines are on their way back, though none has said so yet.
        self._expecting_until = (self.restarted or -math.inf) + self._liveness.recovery_grace
        self._stopping_until: float | None = None
        self._next_sweep = 0.0
        self._deadline: float | None = None
        self._receivers: dict[type[Message], Callable[[Peer, Any, Sequence[Any]], None]] = {
            Submit: self._on_submit,
            Watch: self._on_watch,
            Request: self._on_request,
            Results: self._on_results,
            Returned: self._on_returned,
            Output: self._on_live,
            Started: self._on_live,
            Published: self._on_live,
            NeedFunctions: self._on_need_functions,
            Answers: self._on_answers,
            PropertiesChanged: self._on_properties_changed,
            Starting: self._on_starting,
            EngineDied: self._on_engine_died,
            Unresponsive: self._on_unresponsive,
            Ping: self._on_ping,
            Goodbye: self._on_goodbye,
        }
        self.writer = StoreWriter(store, self._committed, retention, Collector(self))
        #: engine uuid → since when its process has been stopped
        self.unresponsive: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Serve until stopped."""
        self._recover()
        try:
            while not self._finished():
                self._turn()
        finally:
            self._shut()

    def stop(self, reason: str = "the cluster was stopped") -> None:
        """Begin to end: abort what has not finished, stop the engines. Safe from a signal handler or a thread."""
        self.post(lambda: self._begin_stop(reason))

    def post(self, function: Callable[[], None]) -> None:
        """Have the loop call a function. Safe from any thread."""
        self._posted.append(function)
        self._listener.wake()

    def _turn(self) -> None:
        received = self._listener.receive(timeout=0.0 if self._posted else self._timeout())
        now = time.time()
        for address, parts in received:
            self._receive(address, parts, now)
        while self._posted:
            self._posted.popleft()()
        if now >= self._next_sweep:
            self._sweep(now)
        if self._deadline is not None and now >= self._deadline:
            self.decide(events.Ticked())
        self.performer.flush()
        self._deadline = self.scheduler.next_deadline()

    def _timeout(self) -> float:
        until = self._next_sweep if self._deadline is None else min(self._next_sweep, self._deadline)
        if self._stopping_until is not None:
            until = min(until, self._stopping_until)
        return max(0.0, until - time.time())

    def _receive(self, address: bytes, parts: Sequence[Any], now: float) -> None:
        arrived = self.peers.receive(address, parts[0], now)
        if arrived is None:
            return
        if isinstance(arrived, Hello):
            self._on_hello(address, arrived, now)
            return
        peer, message = arrived
        try:
            self._receivers[type(message)](peer, message, parts[1:])
        except ProtocolError as error:
            log.warning("%s %s broke the protocol: %s", peer.role, peer.uuid, error)
            self._reject(peer, message, error)
        except Exception as error:
            log.exception("a bug: while handling %.2000r from %s %s", message, peer.role, peer.uuid)
            self._reject(peer, message, error)

    def _reject(self, peer: Peer, message: Message, error: Exception) -> None:
        """Tell a client that its tasks were not taken: nobody waits for ever."""
        if isinstance(message, Submit):
            self.peers.send(peer, Rejected(message.number, ErrorInfo(type(error).__name__, str(error))))

    def decide(self, event: events.Event) -> None:
        """Let the core take in an event, and perform what follows."""
        for action in self.scheduler.handle(event, time.time()):
            self.performer.perform(action)

    # ------------------------------------------------------------------------------------------ peers come and go

    def _on_hello(self, address: bytes, hello: Hello, now: float) -> None:
        peer = self.peers.admit(address, hello, now)
        if peer is None:
            return
        if hello.host == socket.gethostname() and peer.role != "engine":
            self._processes.watch(peer.uuid, hello.pid)
        if peer.role == "engine":
            self._engine_hello(peer, hello)
        else:
            welcome = Welcome(
                self.incarnation,
                self.engine_infos(),
                starting=self.starting(),
                scheme=self.scheduler.settings.scheme,
                keeps=self.store.keeps,
            )
            self.peers.welcome(peer, welcome)

    def _engine_hello(self, peer: Peer, hello: Hello) -> None:
        if peer.engine < 0:  # not a repetition
            taken = hello.wish in self.scheduler.engines
            peer.engine = self._free_number() if hello.wish < 0 or taken else hello.wish
            log.info("engine %d joined: %s pid %d", peer.engine, hello.host, hello.pid)
        peer.functions = set()
        self.peers.engines[peer.engine] = peer
        self.peers.welcome(peer, Welcome(self.incarnation, engine=peer.engine))
        self.decide(
            events.EngineJoined(
                peer.engine,
                EngineUuid(peer.uuid),
                hello.host,
                hello.pid,
                NannyId(hello.nanny),
                hello.held,
                hello.resources,
            )
        )
        self.tell_engines()

    def _free_number(self) -> EngineId:
        """The lowest number no engine has: engines started in the place of lost ones take up their numbers."""
        taken = self.scheduler.engines.keys() | self._reserved
        return next(EngineId(number) for number in itertools.count() if number not in taken)

    def _on_ping(self, peer: Peer, message: Ping, frames: Sequence[Any]) -> None:
        self.peers.pong(peer, message)

    def _on_goodbye(self, peer: Peer, message: Goodbye, frames: Sequence[Any]) -> None:
        self._peer_left(peer, message.reason or "it left", clean=True)

    def _peer_left(self, peer: Peer, reason: str, *, clean: bool) -> None:
        self.peers.forget(peer)
        self._processes.forget(peer.uuid)
        match peer.role:
            case "engine":
                self.unresponsive.pop(peer.uuid, None)
                self.decide(events.EngineLeft(peer.engine) if clean else events.EngineLost(peer.engine, reason))
                self.tell_engines()
            case "nanny":
                for engine in self.peers.role("engine"):
                    if engine.nanny == peer.uuid and not clean:
                        self._peer_left(engine, f"its nanny is gone: {reason}", clean=False)
                self.tell_engines()
            case _:
                self.performer.forget_client(peer.uuid)
                self.performer.record()
                self.writer.hurry()  # nobody keeps its tasks for us any more

    def _on_starting(self, peer: Peer, message: Starting, frames: Sequence[Any]) -> None:
        peer.promised = message.count
        self.tell_engines()

    def _on_engine_died(self, peer: Peer, message: EngineDied, frames: Sequence[Any]) -> None:
        cause = _cause_of_death(message)
        self._hear_last_words()  # a result that has been sent is no reason to blame its task for the death
        engine = self.peers.by_uuid.get(message.engine)
        if engine is None:  # it never came to say Hello, or has said goodbye
            log.warning("an engine process ended: %s", cause)
            return
        log.warning("engine %d died: %s", engine.engine, cause)
        self.peers.forget(engine)
        self.unresponsive.pop(message.engine, None)
        self.decide(
            events.EngineLost(
                engine.engine,
                cause,
                message.running,
                known=True,
                overran=message.overran,
                peak_memory=message.peak_memory or None,
            )
        )
        self.tell_engines()

    def _on_unresponsive(self, peer: Peer, message: Unresponsive, frames: Sequence[Any]) -> None:
        now = time.time()
        mine = {e.uuid for e in self.peers.role("engine") if e.nanny == peer.uuid}
        for uuid in mine - set(message.engines):
            self.unresponsive.pop(uuid, None)
        for uuid in message.engines:
            self.unresponsive.setdefault(uuid, now)

    def _sweep(self, now: float) -> None:
        """Declare peers lost that have been silent for too long."""
        self._next_sweep = now + self._liveness.ping_interval
        oldest = now - self._liveness.allowed_silence
        for peer in self.peers:
            if peer.role != "engine" and peer.last_heard < oldest:
                log.warning("%s %s has been silent for %.0f s", peer.role, peer.uuid, now - peer.last_heard)
                self._peer_left(peer, f"no sign of life for {self._liveness.allowed_silence:.0f} s", clean=False)
        for peer in self.peers.role("engine"):
            since = self.unresponsive.get(peer.uuid)
            if since is not None and since < oldest:
                nanny = self.peers.by_uuid.get(peer.nanny)
                if nanny is not None:  # it starts another engine for the one that we kill
                    self.peers.send(nanny, SignalProcesses(signal.SIGKILL, [EngineUuid(peer.uuid)]))
                self._peer_left(peer, f"its process was stopped for {now - since:.0f} s", clean=False)
        self.hub.sweep(now)
        if self._reserved and self.scheduler.recovery_deadline is None:
            self._reserved = set()
        if self.library.is_full:
            self.library.trim(task.spec.function for task in self.scheduler.tasks.values())

    def _hear_last_words(self) -> None:
        """A process has ended: take in what it has sent before."""
        for address, parts in self._listener.receive(1 << 20):
            self._receive(address, parts, time.time())

    def _process_ended(self, uuid: str) -> None:
        self._hear_last_words()
        peer = self.peers.by_uuid.get(uuid)
        if peer is not None:
            log.info("%s %s: its process ended", peer.role, uuid)
            self._peer_left(peer, "its process ended", clean=False)

    def engine_infos(self) -> list[EngineInfo]:
        """The engines there are."""
        return [
            EngineInfo(e.id, e.uuid, e.host, e.pid, {name: list(indices) for name, indices in e.resources.items()})
            for e in self.scheduler.engines.values()
        ]

    def starting(self) -> int:
        """How many engines nannies are about to bring."""
        engines, nannies = self.peers.role("engine"), self.peers.role("nanny")
        coming = sum(max(0, nanny.promised - sum(e.nanny == nanny.uuid for e in engines)) for nanny in nannies)
        return coming or int(not engines and time.time() < self._expecting_until)

    def tell_engines(self) -> None:
        """Tell all clients which engines there are."""
        message = Engines(self.engine_infos(), self.starting())
        for client in self.peers.role("client"):
            self.peers.send(client, message)

    # ------------------------------------------------------------------------------------------ from clients

    def _on_submit(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        if self._stopping_until is not None:
            text = ErrorInfo("EngineError", "the cluster is stopping")
            self.peers.send(peer, Rejected(message.number, text))
            return
        refused = self.refusal(sum(memoryview(frame).nbytes for frame in frames))
        if refused is not None:
            self._reject(peer, message, refused)
            return
        new = self.library.add(message.functions)
        self.performer.add_functions(new)
        functions = self.library.of(message.tasks)
        if functions is None:
            self.peers.send(
                peer, Rejected(message.number, ErrorInfo("ProtocolError", "functions are missing"), "functions")
            )
            return
        message.functions = functions  # they stay with the tasks while those are looked up
        if message.environment is not None:
            self.performer.add_environment(ClientId(peer.uuid), message.environment)
        if message.resent and self.store.keeps:
            self.arriving.sort_out(peer, message, frames)
            return
        self.submit(peer, message, frames)

    def refusal(self, size: int = 0) -> StoreError | None:
        """Why the store has no room for new tasks (with so many bytes of large buffers); None: it has."""
        return self.writer.refusal(size)

    def submit(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        """Queue the tasks of a Submit, but for those that the store can answer."""
        self.keep_functions(message)
        if message.cached:
            self.cache.look_up(peer, message, frames)
        else:
            self.queue(peer, message, frames)

    def keep_functions(self, message: Submit) -> None:
        """After a look into the store: what its tasks call may have been let go of meanwhile."""
        self.performer.add_functions(self.library.add(message.functions))

    def queue(self, peer: Peer, message: Submit, frames: Sequence[Any]) -> None:
        """Queue the tasks of a Submit; it is acknowledged once they are recorded."""
        beside = {spec.id: pick(spec, frames) for spec in message.tasks if spec.frames} if frames else {}
        self.decide(events.TasksSubmitted(ClientId(peer.uuid), message.tasks, beside))
        self.performer.owe("accepted", peer.uuid, message.number)

    def _on_watch(self, peer: Peer, message: Watch, frames: Sequence[Any]) -> None:
        unknown = [id for id in message.tasks if self.scheduler.task(id) is None]
        self.decide(events.TasksWatched(ClientId(peer.uuid), message.tasks))
        if unknown:
            self.hub.send_stored(peer, unknown)

    def _on_request(self, peer: Peer, message: Request, frames: Sequence[Any]) -> None:
        self.hub.answer(peer, message)

    # ------------------------------------------------------------------------------------------ from engines

    def _on_results(self, peer: Peer, message: Results, frames: Sequence[Any]) -> None:
        number, peak = peer.engine, message.peak_memory
        for done in message.tasks:
            done.engine = number
            done.peak_memory = peak
        beside = {done.id: pick(done, frames) for done in message.tasks if done.frames} if frames else {}
        self.decide(events.TasksFinished(peer.engine, message.tasks, beside))
        self.performer.owe("stored", peer.uuid, message.number)

    def _on_returned(self, peer: Peer, message: Returned, frames: Sequence[Any]) -> None:
        self.decide(events.TasksReturned(peer.engine, message.tasks))

    def _on_live(self, peer: Peer, message: Output | Started | Published, frames: Sequence[Any]) -> None:
        task = self.scheduler.tasks.get(message.task)
        if task is None:
            return  # it has ended meanwhile
        if isinstance(message, Started):
            message.engine = peer.engine
        for client in (task.client, *(task.watchers or ())):
            listener = self.peers.by_uuid.get(client)
            if listener is not None:
                self.peers.send(listener, message)

    def _on_need_functions(self, peer: Peer, message: NeedFunctions, frames: Sequence[Any]) -> None:
        found = {digest: self.library.get(digest) for digest in message.digests}
        missing = [digest for digest, function in found.items() if function is None]
        self.peers.send(peer, Functions([f for f in found.values() if f is not None], missing))

    def _on_answers(self, peer: Peer, message: Answers, frames: Sequence[Any]) -> None:
        self.decide(events.PropertiesAnswered(peer.engine, {a.digest: a.reason for a in message.answers}))

    def _on_properties_changed(self, peer: Peer, message: PropertiesChanged, frames: Sequence[Any]) -> None:
        self.decide(events.PropertiesChanged([peer.engine]))

    # ------------------------------------------------------------------------------------------ the store

    def _committed(self, tokens: list[Any]) -> None:
        self.post(lambda: self.performer.acknowledge(tokens))

    # ------------------------------------------------------------------------------------------ begin and end

    def _recover(self) -> None:
        """Take up what an earlier life of the controller left unfinished."""
        found = [events.RecoveredTask(e.spec, e.client, e.frames, e.attempts or ()) for e in self.store.unfinished()]
        if found:
            log.warning("taking up %d unfinished tasks from the store", len(found))
            # Numbers that direct tasks wait for are for the engines that had them, not for new ones.
            self._reserved = {task.spec.engine for task in found}
            self.decide(events.TasksRecovered(found, time.time() + self._liveness.recovery_grace))

    def _begin_stop(self, reason: str) -> None:
        if self._stopping_until is not None:
            return
        self._stopping_until = time.time() + STOP_SECONDS
        self.decide(events.ControllerStopped(reason))
        for nanny in self.peers.role("nanny"):
            self.peers.send(nanny, Stop())

    def _finished(self) -> bool:
        if self._stopping_until is None:
            return False
        return not (self.peers.role("nanny") or self.peers.role("engine")) or time.time() >= self._stopping_until

    def _shut(self) -> None:
        self.performer.flush()
        self.writer.close()
        while self._posted:
            self._posted.popleft()()
        self.performer.flush()
        for client in self.peers.role("client"):
            self.peers.send(client, Goodbye("the controller has stopped"))
        self.hub.close()
        self._processes.close()
        self._listener.close()
        self.store.close()


def _cause_of_death(message: EngineDied) -> str:
    if message.reason:
        return message.reason
    peak = f"; peak memory {message.peak_memory / 2**20:.0f} MB" if message.peak_memory else ""
    if message.exit_code < 0:
        try:
            name = signal.Signals(-message.exit_code).name
        except ValueError:
            name = "unknown signal"
        hint = ""
        if -message.exit_code == signal.SIGKILL:
            hint = " (by somebody, or by the kernel for want of memory)"
        return f"killed by signal {-message.exit_code} ({name}){hint}{peak}"
    return f"exited with code {message.exit_code}{peak}"
