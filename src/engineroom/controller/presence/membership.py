"""Peers come and go: clients, engines and nannies say Hello, leave, fall silent, or die.

The core hears of engines only; clients hear which engines there are.
"""

from __future__ import annotations

import itertools
import logging
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Protocol

from ...config import MIB, LivenessSettings
from ...core import Scheduler, events
from ...errors import ProtocolError
from ...ids import ClientId, EngineId, EngineUuid, NannyId
from ...messages import (
    Draining,
    EngineDied,
    EngineInfo,
    Engines,
    Goodbye,
    Hello,
    Ping,
    SignalProcesses,
    Starting,
    Unresponsive,
    Welcome,
)
from ...printable import one_line
from .peers import Peer, Peers
from .roster import Listed, Roster
from .successors import Successors

log = logging.getLogger(__name__)

#: Bytes of results that all engines together may keep until they are stored. Each has an equal share …
UNSTORED = 256 * MIB
#: … but for very many engines, which have so much each.
LEAST_UNSTORED = MIB // 4
#: An engine and its nanny are silent that have left out so many signs of life of a nanny, and if the engine's next sign
#: of life is so many seconds late.
SILENT_PINGS, LATE_SECONDS = 3, 3.0
#: Seconds between two signs of life of an engine. Very many engines give fewer: so many a second, all together …
ENGINE_PING_SECONDS, PINGS_A_SECOND = 2.0, 1000
#: … but each gives some within the silence that is allowed, and one in so many seconds.
PINGS_IN_SILENCE, MOST_PING_SECONDS = 3, 5.0
#: A process that lives connects again within a second or two after its connection was closed. A nanny that has not done
#: so for so many seconds has ended.
GONE_SECONDS = 3.0
#: So many engines are remembered that died before their Hellos came.
MOST_DEAD = 10_000
#: Seconds between two lists of engines that clients are sent, for each engine in them: 0.1 s for a thousand. So the
#: lists of those that come one after the other stay a small part of the work. Short lists do not wait.
NEWS_REST, SHORT_LIST = 1e-4, 200
#: Characters of the reason that a peer gives.
MOST_OF_REASON = 1000


class Processes(Protocol):
    """Watches processes of this host (`process_watcher.py`)."""

    def watch(self, uuid: str, pid: int) -> None: ...

    def forget(self, uuid: str) -> None: ...

    def is_running(self, pid: int) -> bool: ...


class Membership:
    """Who is here.

    Parameters
    ----------
    welcome : Welcome
        What clients and nannies are told, but for the engines.
    client_left : callable
        Called when a client is gone.
    no_room : callable
        Why a client's tasks have to wait; "": they need not.
    restarted : bool
        An earlier life of the controller was ended by force: its engines may come back.
    roster : Roster
        Keeps which engines are connected, and knows which were before a restart.
    """

    def __init__(
        self,
        peers: Peers,
        scheduler: Scheduler,
        decide: Callable[[events.Event], None],
        processes: Processes,
        liveness: LivenessSettings,
        welcome: Welcome,
        client_left: Callable[[ClientId], None],
        no_room: Callable[[Peer], str],
        clock: Callable[[], float],
        restarted: bool,
        roster: Roster,
    ) -> None:
        self._peers, self._scheduler, self._decide = peers, scheduler, decide
        self._processes, self._liveness, self._welcome = processes, liveness, welcome
        self._client_left, self._no_room, self._clock = client_left, no_room, clock
        peers.on_broken = lambda peer: self._left(peer, "it sent a message that makes no sense", clean=False)
        #: when `sweep` was called last; before this moment it declares nobody lost
        self._swept = self._lenient_until = clock()
        #: engine uuid → since when its process has been stopped
        self._unresponsive: dict[str, float] = {}
        #: uuid → nanny of engines whose deaths were told before their Hellos came; the latest
        self._dead: dict[str, str] = {}
        #: numbers of engines that may come back
        self._reserved: set[EngineId] = set()
        #: uuid → when `sweep` first saw that a nanny has closed its connection
        self._closed: dict[str, float] = {}
        #: engines that get no more tasks, as nothing is heard of their hosts
        self._silent: frozenset[EngineId] = frozenset()
        #: uuid → when a nanny was declared lost; the latest
        self._given_up: dict[str, float] = {}
        #: clients are to be told which engines there are, but not before this moment
        self._engines_changed, self._next_news = False, 0.0
        #: all lower numbers are taken
        self._lowest = 0
        #: clients were told, or are to be told, that engines of the controller's earlier life may come back
        self._returning = restarted
        self._roster = roster
        self._successors = Successors()

    def reserve(self, numbers: Iterable[EngineId]) -> None:
        """Keep these numbers for the engines that had them, as long as recovered tasks wait for those."""
        self._reserved = set(numbers)

    def awaited(self) -> dict[EngineUuid, EngineId] | None:
        """The engines that may come back after a restart, with their numbers; None: unknown."""
        former = self._roster.former
        if former is None:
            return None
        ended = [each.uuid for each in former.values() if each.has_ended]
        self._roster.went(ended)
        return {each.uuid: each.number for each in former.values() if each.uuid not in ended}

    # ------------------------------------------------------------------------------------------ they come

    def hello(self, address: bytes, hello: Hello, now: float) -> bool:
        """A peer says Hello, for the first time or again. Returns whether it may come in."""
        if hello.role == "engine" and hello.nanny and self._dead.get(hello.uuid) == hello.nanny:
            return False
        peer = self._peers.admit(address, hello, now)
        if peer is None:
            return False
        # The death of an engine is its nanny's to tell, if it has one.
        if hello.host == socket.gethostname() and (peer.role != "engine" or self._peers.nanny_of(peer) is None):
            self._processes.watch(peer.uuid, hello.pid)
        if peer.role == "nanny":
            for engine in self._peers.engines_of(peer):
                self._processes.forget(engine.uuid)
        if peer.role == "engine":
            self._engine_hello(peer, hello)
            return True
        since = self._given_up.pop(peer.uuid, None)
        if since is not None:
            log.warning("the nanny on %s is back, %.1f s after it was given up", peer.host, now - since)
        known = self._welcome
        welcome = Welcome(known.incarnation, scheme=known.scheme, keeps=known.keeps, returning=self._returning)
        if peer.role == "client":
            welcome.engines, welcome.starting = self._engine_infos(), self._starting()
            welcome.awaited = self._awaited_infos()
            welcome.takes_withdrawals = welcome.takes_former = True
        elif peer.lends:
            welcome.relay_key = known.relay_key
        self._peers.welcome(peer, welcome)
        return True

    def _engine_hello(self, peer: Peer, hello: Hello) -> None:
        if peer.engine < 0:  # not a repetition
            taken = hello.wish in self._scheduler.engines
            peer.engine = self._free_number() if hello.wish < 0 or taken else hello.wish
            log.info("engine %d joined: %s pid %d", peer.engine, hello.host, hello.pid)
        peer.functions = set()
        self._peers.seat(peer)
        self._roster.came(EngineUuid(peer.uuid), peer.engine, NannyId(hello.nanny), hello.host, hello.pid)
        incarnation, share = self._welcome.incarnation, self._unstored_limit()
        self._peers.welcome(peer, Welcome(incarnation, engine=peer.engine, unstored_limit=share))
        self._decide(
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
        self._engines_changed = True

    def _unstored_limit(self) -> int:
        """What each engine may keep. As engines come and go, the others hear of it with the next sign of life."""
        return max(LEAST_UNSTORED, UNSTORED // max(1, len(self._peers.engines)))

    def _free_number(self) -> EngineId:
        """The lowest number no engine has: engines started in the place of lost ones take up their numbers."""
        numbers, reserved = self._scheduler.numbers, self._reserved
        self._lowest = next(n for n in itertools.count(self._lowest) if n not in numbers and n not in reserved)
        return EngineId(self._lowest)

    def on_starting(self, peer: Peer, message: Starting, frames: Sequence[Any]) -> None:
        """A nanny is about to start engines."""
        if not peer.promised:
            self._successors.came()
        peer.promised = message.count
        self._engines_changed = True

    def on_ping(self, peer: Peer, message: Ping, frames: Sequence[Any]) -> None:
        """A sign of life."""
        at = time.time()
        if message.at and peer.clock.heard(message.at, at, message.answered, message.since):
            self._clock_changed(peer)
        if peer.role == "engine":
            pause, share = self._engine_ping_seconds(), self._unstored_limit()
            self._peers.pong(peer, message, at=at, unstored_limit=share, ping_seconds=pause)
            engine = self._scheduler.engines.get(peer.engine)
            if message.renew and engine is not None and not engine.stopping:
                log.warning("engine %d is replaced: its memory has grown beyond its memory_limit", peer.engine)
                self._decide(events.EnginesStopped([peer.engine], restart=True))
        else:
            self._peers.pong(peer, message, at=at, no_room=self._no_room(peer) if peer.role == "client" else "")

    def _engine_ping_seconds(self) -> float:
        return ping_seconds(len(self._peers.engines), self._liveness.allowed_silence)

    def _clock_changed(self, peer: Peer) -> None:
        """The clock of a peer is found to be wrong, or to be right again."""
        ahead = peer.clock.ahead
        self._engines_changed |= peer.role == "engine"  # clients are told
        if peer.role == "engine" and self._peers.nanny_of(peer) is not None:
            return  # the nanny's clock is the same one: it is named once for each host
        name = f"engine {peer.engine}" if peer.role == "engine" else f"a {peer.role}"
        if ahead:
            log.warning("the clock of %s (%s) is %+.1f s off ours: so are its times in records", peer.host, name, ahead)
        else:
            log.info("the clock of %s (%s) is right again", peer.host, name)

    # ------------------------------------------------------------------------------------------ they go

    def on_goodbye(self, peer: Peer, message: Goodbye, frames: Sequence[Any]) -> None:
        """A peer leaves."""
        self._left(peer, _harmless(message.reason) or "it left", clean=True)

    def engine_died(self, nanny: Peer, message: EngineDied, frames: Sequence[Any]) -> None:
        """A nanny has told how an engine died. It speaks for its own engines only."""
        cause = _cause_of_death(message)
        engine = self._peers.by_uuid.get(message.engine)
        if engine is None:  # it never came to say Hello, or has said goodbye
            if self._peers.nonsense.count(self._clock()):
                log.warning("an engine process ended: %s", cause)
            self._dead[message.engine] = nanny.uuid
            if len(self._dead) > MOST_DEAD:
                del self._dead[next(iter(self._dead))]
            former = (self._roster.former or {}).get(message.engine)
            if former is not None and former.nanny == nanny.uuid:
                self._will_not_return([message.engine])
            return
        if engine.role != "engine" or engine.nanny != nanny.uuid:
            raise ProtocolError("a nanny tells the death of a process that is not its engine")
        log.warning("engine %d died: %s", engine.engine, cause)
        self._forget_engine(engine)
        self._decide(
            events.EngineLost(
                engine.engine,
                cause,
                message.running,
                known=True,
                overran=message.overran,
                peak_memory=message.peak_memory or None,
                begun=None if message.begun is None else frozenset(message.begun),
                out_of_memory=message.out_of_memory,
            )
        )
        self._engines_changed = True

    def on_draining(self, peer: Peer, message: Draining, frames: Sequence[Any]) -> None:
        """The job of a nanny ends soon: its engines leave when they have finished what they run."""
        engines = [each.engine for each in self._peers.engines_of(peer)]
        reason = one_line(message.reason)
        log.warning("engines %s on %s get no more tasks: %s", ", ".join(map(str, engines)), peer.host, reason)
        self._decide(events.EnginesStopped(engines, preempted=reason))

    def on_unresponsive(self, peer: Peer, message: Unresponsive, frames: Sequence[Any]) -> None:
        """A nanny names the engines whose processes are stopped."""
        now = self._clock()
        mine = {each.uuid for each in self._peers.engines_of(peer)}
        for uuid in mine - set(message.engines):
            self._unresponsive.pop(uuid, None)
        for uuid in mine.intersection(message.engines):
            self._unresponsive.setdefault(uuid, now)

    def process_ended(self, uuid: str) -> None:
        """The process of a peer has ended."""
        peer = self._peers.by_uuid.get(uuid)
        if peer is not None:
            log.info("%s %s: its process ended", peer.role, uuid)
            if peer.role == "nanny" and peer.promised:
                self._successors.killed(peer.promised, self._clock())
            self._left(peer, "its process ended", clean=False)

    def sweep(self, now: float) -> None:
        """Declare peers lost that have been silent for too long."""
        self._engines_changed |= self._successors.give_up(now)
        silence = self._liveness.allowed_silence
        if now - self._swept > max(silence / 2, 2 * self._liveness.ping_interval):
            # We did not run ourselves: what peers have sent meanwhile comes now.
            self._lenient_until = now + silence
        self._swept = now
        if now < self._lenient_until:
            return
        self._look_for_closed(now)
        self._look_for_silent(now)
        oldest = now - silence
        is_running = cache(self._processes.is_running)  # thousands of engines may be in one process
        for peer in self._peers:
            if peer.last_heard < oldest and (peer.role != "engine" or self._is_lost(peer, is_running)):
                log.warning(
                    "%s %s on %s has been silent for %.0f s: it is given up, until it comes back",
                    *(peer.role, peer.uuid, peer.host, now - peer.last_heard),
                )
                self._give_up(peer, f"no sign of life for {silence:.0f} s", now)
        for peer in self._peers.role("engine") if self._unresponsive else ():
            since = self._unresponsive.get(peer.uuid)
            if since is not None and since < oldest:
                nanny = self._peers.nanny_of(peer)
                if nanny is not None:  # it starts another engine for the one that we kill
                    self._peers.send(nanny, SignalProcesses(signal.SIGKILL, [EngineUuid(peer.uuid)]))
                self._left(peer, f"its process was stopped for {now - since:.0f} s", clean=False)
        self._look_after_recovery()

    def _look_for_closed(self, now: float) -> None:
        """Declare nannies lost that have closed their connections and do not come back.

        A host that is cut off closes nothing. An engine may do so: while a task holds the GIL, it cannot connect again.
        """
        closed = [peer for peer in self._peers.closed() if peer.role == "nanny"]
        self._closed = {peer.uuid: self._closed.get(peer.uuid, now) for peer in closed}
        for peer in closed:
            gone = now - self._closed[peer.uuid]
            if gone >= min(GONE_SECONDS, self._liveness.allowed_silence):
                log.warning("the nanny on %s has closed its connection and stays away: it is given up", peer.host)
                self._give_up(peer, f"its connection was closed, and it did not come back within {gone:.0f} s", now)

    def _look_for_silent(self, now: float) -> None:
        """Have engines get no more tasks while neither they nor their nannies are heard: their hosts may be cut off."""
        before = now - max(SILENT_PINGS * self._liveness.ping_interval, self._engine_ping_seconds() + LATE_SECONDS)
        silent: dict[EngineId, Peer] = {}
        for nanny in self._peers.role("nanny"):
            if nanny.last_heard < before:
                silent |= {each.engine: each for each in self._peers.engines_of(nanny) if each.last_heard < before}
        if silent.keys() == self._silent:
            return
        for id in silent.keys() - self._silent:
            log.info("engine %d on %s is silent: it gets no more tasks until it is heard", id, silent[id].host)
        self._silent = frozenset(silent)
        self._decide(events.EnginesSilent({id: silent[id].last_heard for id in sorted(silent)}))

    def _give_up(self, peer: Peer, why: str, now: float) -> None:
        if peer.role == "nanny":
            self._given_up[peer.uuid] = now
            if len(self._given_up) > MOST_DEAD:
                del self._given_up[next(iter(self._given_up))]
        self._left(peer, why, clean=False)

    def _look_after_recovery(self) -> None:
        """Notice awaited engines that have ended; once the recovery is over, nobody is awaited."""
        if self._scheduler.recovery_deadline is None:
            self._reserved, self._lowest = set(), 0
            self._roster.went([each.uuid for each in self._absent()])
            self._roster.former = None
        elif ended := [each.uuid for each in self._absent() if each.has_ended]:
            self._will_not_return(ended)

    def _absent(self) -> list[Listed]:
        """The engines of before the restart that have not come back, as far as it is known which there were."""
        return [each for uuid, each in (self._roster.former or {}).items() if uuid not in self._peers.by_uuid]

    def _will_not_return(self, engines: Sequence[EngineUuid]) -> None:
        """Engines of before the restart have ended without coming back."""
        self._roster.went(engines)
        self._decide(events.AwaitedEnginesEnded(engines))

    def _is_lost(self, engine: Peer, is_running: Callable[[int], bool]) -> bool:
        """Whether an engine that is silent is lost. A task may hold the GIL for long: then it is silent, and lives.

        Its nanny tells if it does not. Without one we look ourselves (`is_running`), if it is a process of this host.
        """
        if self._peers.nanny_of(engine) is not None:
            return False
        return engine.host != socket.gethostname() or not is_running(engine.pid)

    def _left(self, peer: Peer, reason: str, *, clean: bool) -> None:
        self._peers.forget(peer)
        self._processes.forget(peer.uuid)
        match peer.role:
            case "engine":
                self._forget_engine(peer)
                self._decide(events.EngineLeft(peer.engine) if clean else events.EngineLost(peer.engine, reason))
                self._engines_changed = True
            case "nanny":
                if not clean:
                    self._engines_lost(self._peers.engines_of(peer), f"its nanny is gone: {reason}")
                self._engines_changed = True
            case _:
                self._client_left(ClientId(peer.uuid))

    def _engines_lost(self, engines: Sequence[Peer], reason: str) -> None:
        """Engines are gone together. Told one by one, the core would send a task of each to the next of them."""
        for engine in engines:
            self._processes.forget(engine.uuid)
            self._forget_engine(engine)
        if engines:
            self._decide(events.EnginesLost([engine.engine for engine in engines], reason))

    def _forget_engine(self, engine: Peer) -> None:
        self._peers.forget(engine)
        self._unresponsive.pop(engine.uuid, None)
        self._roster.went([EngineUuid(engine.uuid)])
        self._lowest = max(0, min(self._lowest, engine.engine))

    # ------------------------------------------------------------------------------------------ the engines

    def send_news(self) -> None:
        """Tell all clients which engines there are, if that has changed: once for all that joined together.

        Long lists wait (`NEWS_REST`). The roster is written first: the engines get their first tasks after this.
        """
        self._roster.write()
        if self._returning and self._scheduler.recovery_deadline is None:
            self._returning, self._engines_changed = False, True
        now = self._clock()
        if not self._engines_changed or now < self._next_news:
            return
        self._engines_changed = False
        count = len(self._peers.engines)
        self._next_news = now + count * NEWS_REST if count > SHORT_LIST else 0.0
        clients = self._peers.role("client")
        if clients:
            message = Engines(self._engine_infos(), self._starting(), self._returning)
            for client in clients:
                self._peers.send(client, message)

    @property
    def news_due(self) -> float | None:
        """When to call `send_news` because a long list waits; None: none does."""
        return self._next_news if self._engines_changed and self._next_news else None

    def _engine_infos(self) -> list[EngineInfo]:
        peers, infos = self._peers.engines, []
        for engine in self._scheduler.engines.values():
            resources = {name: list(indices) for name, indices in engine.resources.items()}
            peer = peers.get(engine.id)
            more = (peer.python, peer.clock.ahead) if peer is not None else ()
            infos.append(EngineInfo(engine.id, engine.uuid, engine.host, engine.pid, resources, *more))
        return infos

    def _awaited_infos(self) -> list[EngineInfo]:
        """The engines of before the restart that may come back, and have not."""
        absent = self._absent() if self._returning else []
        return [EngineInfo(each.number, each.uuid, each.host, each.pid) for each in absent if not each.has_ended]

    def _starting(self) -> int:
        """How many engines nannies are about to bring, or others in the place of killed ones."""
        engines, nannies = self._peers.role("engine"), self._peers.role("nanny")
        there = Counter(engine.nanny for engine in engines)
        coming = sum(max(0, nanny.promised - there[nanny.uuid]) for nanny in nannies)
        return coming + self._successors.count or int(not engines and self._returning)


def ping_seconds(engines: int, allowed_silence: float) -> float:
    """Seconds between two signs of life of an engine, for so many engines. A sign of life takes some 40 µs here."""
    most = max(ENGINE_PING_SECONDS, min(MOST_PING_SECONDS, allowed_silence / PINGS_IN_SILENCE))
    return min(most, max(ENGINE_PING_SECONDS, engines / PINGS_A_SECOND))


def _harmless(reason: str) -> str:
    """A peer's reason, for logs, records and the errors of others."""
    return one_line(reason)[:MOST_OF_REASON]


def _cause_of_death(message: EngineDied) -> str:
    if message.reason:
        return _harmless(message.reason)
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
