"""The nanny: one per host; starts engines, watches them, tells the controller at once how one died.

Engines' liveness is the nanny's word, not their own: an engine whose task holds the GIL for minutes is alive.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ... import resources
from ...config import ConnectionInfo, EngineSettings, LivenessSettings
from ...descriptors import wait_readable
from ...errors import ControllerLost, EngineroomError
from ...ids import EngineId, EngineUuid, NannyId, new_uuid
from ...messages import (
    Draining,
    DropBuffers,
    EngineDied,
    FetchBuffer,
    Goodbye,
    KeepBuffers,
    KillTask,
    Message,
    Pong,
    Refused,
    SignalProcesses,
    Starting,
    Stop,
    Unresponsive,
    Welcome,
)
from ...system.processes import state_of
from ...transport import connect, lending
from ...transport.addresses import why_unreachable
from ...transport.lending import Lender
from ...transport.opening import is_by_socket, urls_from_here
from ...watchdog.judge import Judge
from ...watchdog.watchdog import Watchdog
from ...wire import frames as wire
from ...wire.session import LinkSession, introduce, keys_refused_error, refusal_error
from ..execution import mpi
from ..session_link import SessionLink
from . import zygote
from .walltime import Walltime, is_in_job, time_left
from .zygote import Died, End, Fork, Forked, Kill, Signal

if TYPE_CHECKING:
    from .buffers import NannyBuffers

log = logging.getLogger(__name__)

#: Engines that die this often in a row before they could be used are not started again.
STILLBORN_LIMIT = 5
#: A life shorter than this counts as such.
STILLBORN_SECONDS = 2.0
#: A controller that has not heard within this time that an engine died is not waited for.
HEAR_SECONDS = 2.0
#: After so many seconds without a word from the controller, the log says so.
QUIET_SECONDS = 4.0
#: An engine is forked in milliseconds: after so many seconds the log says that none is.
ZYGOTE_SECONDS = 10.0
#: How soon to try again when the zygote has not read all that it was told.
FLUSH_SECONDS = 0.05
#: How long engines have to leave at the end, before they are killed.
STOP_SECONDS = 2.0


class _Death:
    """An engine's death that the controller may not have heard of."""

    __slots__ = ("engine", "message", "number", "shares")

    def __init__(self, message: EngineDied, engine: EngineId, shares: dict[str, list[int]] | None) -> None:
        self.message = message
        #: the dead engine's number and share, for the one that is forked in its place; None: none is (any more)
        self.engine, self.shares = engine, shares
        #: which of the session's messages told of it
        self.number = 0


class Nanny:
    """Keeps `count` engines alive. `run` returns when they have all left for good.

    `lifeline`: a file descriptor; the engines stop when it comes to its end.

    Raises
    ------
    ConfigError
        The resources in the settings cannot be dealt out.
    """

    def __init__(
        self,
        connection: ConnectionInfo,
        count: int,
        settings: EngineSettings | None = None,
        liveness: LivenessSettings | None = None,
        lifeline: int | None = None,
    ) -> None:
        self._lifeline = lifeline
        self._connection = connection
        self._settings = settings or EngineSettings()
        self._liveness = liveness or LivenessSettings()
        self._uuid = NannyId(new_uuid())
        self._count = count
        # Each engine's share of the host's resources. The replacement of an engine that died takes over its share.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._dealt = resources.deal(self._settings.resources, count, visible)
        self._shares: dict[EngineUuid, dict[str, list[int]]] = {}
        # The zygote first: it must be forked before this process has threads or sockets.
        lender = "" if is_by_socket(connection) else lending.new_name()
        self._zygote, self._pipe = zygote.start(self._uuid, connection, self._settings, count, lender)
        session = LinkSession(
            introduce("nanny", connection.key, self._uuid), self._liveness.ping_interval, time.monotonic()
        )
        keeper = Lender(lender) if lender else None
        link = connect(connection, pool=None if keeper is None else keeper.pool)
        self._link = SessionLink(session, link, wire.decode_to_nanny, 0 if keeper is None else keeper.room)
        #: large buffers for the engines, which would come to each of them else; None: on this host they are handed over
        self._buffers = None if keeper is None else _nanny_buffers(keeper, link, self._link.send)
        #: the engines' processes (0: being forked) and when they were born
        self._pids: dict[EngineUuid, int] = {}
        self._born: dict[EngineUuid, float] = {}
        self._stillborn = 0
        self._rank_died = ""
        #: what started a rank of MPI; 0: this is none. Not each mpiexec ends its ranks when it is killed
        self._parent = os.getppid() if self._settings.mpi else 0
        self._quiet_since = 0.0
        self._deaths: list[_Death] = []
        self._hear_deadline = 0.0
        self._stopped: list[EngineUuid] = []
        seconds = self._settings.walltime or time_left(os.environ, time.time())
        self._walltime = Walltime.of(seconds, self._settings.drain, time.monotonic())
        #: why no more tasks are taken; "": they are
        self._draining = ""
        #: whether a SIGTERM has come: the next one means now
        self._has_grace = False
        self._stop_deadline: float | None = None
        self._turns = 0
        #: how often the process that engines are forked from was heard, and one
        self._heard = 1
        self._zygote_judge = Judge(ZYGOTE_SECONDS)
        self._signals = socket.socketpair()
        for end in self._signals:
            end.setblocking(False)
        self._handlers: dict[type[Message], Callable[[Any, Sequence[Any]], None]] = {
            Welcome: self._on_welcome,
            Refused: self._on_refused,
            Pong: self._on_pong,
            SignalProcesses: self._on_signal,
            KillTask: self._on_kill_task,
            Stop: lambda *_: self._begin_stop(),
        }
        if self._buffers is not None:
            self._handlers |= {
                KeepBuffers: self._buffers.on_keep,
                FetchBuffer: self._buffers.on_fetch,
                DropBuffers: self._buffers.on_drop,
            }

    def run(self) -> None:
        """Serve until stopped, or until the controller has been away for too long.

        Raises
        ------
        ControllerLost, AuthenticationError, ProtocolError
            The controller does not answer, or refuses us.
        """
        signal.set_wakeup_fd(self._signals[1].fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)  # the wakeup socket reports the signal; a handler must only be there
        self._turns = 1
        try:
            with Watchdog("the nanny's loop", lambda: self._turns):
                self._hello()
                # A rank of MPI would like its rank as its number.
                wish = EngineId(mpi.rank_of(os.environ) if self._settings.mpi else -1)
                for shares in self._dealt:
                    self._fork(wish, shares)
                while not self._finished():
                    self._turn()
            self._link.send(Goodbye())
            if self._rank_died:
                raise EngineroomError(self._rank_died)  # mpiexec then ends the other ranks
        finally:
            self._pipe.close()  # the zygote kills what is left, and ends
            os.waitpid(self._zygote, 0)
            self._link.close()
            if self._buffers is not None:
                self._buffers.close()
            signal.set_wakeup_fd(-1)
            for end in self._signals:
                end.close()

    def _turn(self) -> None:
        self._turns += 1
        if time.monotonic() >= self._link.session.next_ping:
            self._look_for_stopped()
            self._look_at_walltime()
            if self._parent and os.getppid() != self._parent and self._stop_deadline is None:
                log.error("mpiexec, or its helper on this host, has been killed: the rank stops")
                self._begin_stop()
            self._link.ping()
            self._check_controller()
            self._check_zygote()
        if self._deaths and time.monotonic() >= self._hear_deadline:
            self._replace(self._deaths)
        self._receive()  # sending may swallow the news of an arrival: look before sleeping
        if self._buffers is not None:
            self._buffers.serve()
        most = 1.0 if self._pipe.flush() else FLUSH_SECONDS
        wait = max(0.0, min(self._link.session.next_ping - time.monotonic(), most))
        watched = [self._link.fileno(), self._pipe.fileno(), self._signals[0].fileno()]
        if self._lifeline is not None:
            watched.append(self._lifeline)
        if self._buffers is not None:
            watched += self._buffers.descriptors()
        ready = wait_readable(watched, wait)
        if self._signals[0].fileno() in ready:
            self._on_signals(set(self._signals[0].recv(64)))
        if self._pipe.fileno() in ready:
            self._hear_zygote()
        if self._lifeline is not None and self._lifeline in ready and not os.read(self._lifeline, 4096):
            log.info("the connection to what started these engines has ended: they stop")
            self._lifeline = None
            self._begin_stop()

    def _on_signals(self, numbers: set[int]) -> None:
        """What was sent to this process since it looked last."""
        if numbers == {signal.SIGUSR1}:  # as `sbatch --signal=B:USR1@60` sends it
            self._drain("its batch system sent a warning (SIGUSR1)")
        elif numbers == {signal.SIGTERM} and self._settings.grace > 0 and not self._has_grace:
            self._has_grace = True
            now = time.monotonic()
            self._walltime = Walltime(drain=now, cut=now + self._settings.grace)
            self._drain("it was told to stop (SIGTERM)")
        else:
            if signal.SIGTERM in numbers and is_in_job(os.environ):
                self._drain("its batch system ended its job (SIGTERM)")
            self._begin_stop()

    def _receive(self) -> None:
        while arrived := self._link.receive(wait=False):
            if self._quiet_since:
                quiet, self._quiet_since = time.monotonic() - self._quiet_since, 0.0
                log.warning("the controller at %s is heard again, after %.1f s", self._urls[0], quiet)
            for parts in arrived:
                message = self._link.read(parts)
                handler = self._handlers.get(type(message))
                if handler is not None:
                    handler(message, parts[1:])

    def _finished(self) -> bool:
        if not self._pids:
            return self._count <= 0 or self._stop_deadline is not None
        if self._stop_deadline is not None and time.monotonic() >= self._stop_deadline:
            for uuid in self._pids:
                self._pipe.put(End(uuid))
            self._stop_deadline = float("inf")
        return False

    # ------------------------------------------------------------------------------------------ engines

    def _fork(self, wish: EngineId, shares: dict[str, list[int]]) -> None:
        uuid = EngineUuid(new_uuid())
        self._shares[uuid] = shares
        self._pids[uuid] = 0
        self._born[uuid] = time.monotonic()
        self._pipe.put(Fork(uuid, wish, shares))

    def _check_zygote(self) -> None:
        """The process that forks engines has no thread of its own that watches it: the log says if it does nothing."""
        waiting = list(self._pids.values()).count(0)
        seconds = self._zygote_judge.look(self._heard if waiting else 0, time.monotonic())
        if seconds is not None and self._zygote_judge.is_hanging:
            log.error("no engine has been forked for %.0f s, and %d wait for it", seconds, waiting)
        elif seconds is not None:
            log.warning("engines are forked again, after %.0f s", seconds)

    def _hear_zygote(self) -> None:
        message = self._pipe.receive()
        self._heard += 1
        if message is None:
            raise EngineroomError("the process engines are forked from has died, and the engines with it")
        if isinstance(message, Forked):
            self._pids[message.uuid] = message.pid
            return
        self._on_died(message)

    def _on_died(self, died: Died) -> None:
        del self._pids[died.uuid]
        age = time.monotonic() - self._born.pop(died.uuid)
        shares = self._shares.pop(died.uuid)
        stopping = self._stop_deadline is not None
        leaves = died.left and not died.restart
        if leaves or stopping:
            self._count -= 1
            if not stopping:
                self._link.send(Starting(self._count))
            return
        if self._settings.mpi:
            self._rank_died = (
                f"MPI rank {mpi.rank_of(os.environ)} (engine {died.engine}) died with exit code {died.exit_code}: "
                "mpiexec ends all ranks"
            )
        early = age < STILLBORN_SECONDS and died.running is None and not died.left
        self._stillborn = self._stillborn + 1 if early else 0
        may_restart = self._settings.restart and not self._draining and self._stillborn < STILLBORN_LIMIT
        restarting = died.left or may_restart
        if not restarting:
            self._count -= 1
        message = EngineDied(
            died.uuid,
            died.exit_code,
            died.peak_memory,
            None if died.left else died.running,
            restarting,
            "it was restarted" if died.left else died.reason,
            died.overran,
            died.begun,
            died.out_of_memory and not died.left,
        )
        death = _Death(message, died.engine, shares if restarting else None)
        self._deaths.append(death)
        self._tell_death(death)
        self._link.send(Starting(self._count))
        # The Hello of the replacement goes another way than our news, and must not overtake it: the number would not
        # be free yet. So the controller is to confirm first.
        self._hear_deadline = time.monotonic() + HEAR_SECONDS
        self._link.ping_now(time.monotonic())
        if self._stillborn >= STILLBORN_LIMIT:
            log.error(
                "%d engines in a row died at once (exit code %d): no more are started", self._stillborn, died.exit_code
            )

    def _tell_death(self, death: _Death) -> None:
        self._link.send(death.message)
        death.number = self._link.session.sent

    def _replace(self, deaths: list[_Death]) -> None:
        """Have engines forked for those that died."""
        for death in deaths:
            if death.shares is not None and self._stop_deadline is None:
                shares, death.shares = death.shares, None
                self._fork(death.engine, shares)

    def _look_for_stopped(self) -> None:
        """Tell the controller which engines are alive but stopped."""
        stopped = [uuid for uuid, pid in self._pids.items() if pid and _is_stopped(pid)]
        if stopped != self._stopped:
            self._stopped = stopped
            self._link.send(Unresponsive(stopped))

    # ------------------------------------------------------------------------------------------ the controller

    def _hello(self) -> None:
        """Begin the session (anew), and say again what the controller may have missed."""
        self._link.hello()
        for death in self._deaths:
            self._tell_death(death)
        self._link.send(Starting(self._count))
        if self._stopped:
            self._link.send(Unresponsive(self._stopped))
        if self._draining:
            self._link.send(Draining(self._draining))

    @property
    def _urls(self) -> Sequence[str]:
        """The controller's addresses, as they are tried from here."""
        return urls_from_here(self._connection)

    def _check_controller(self) -> None:
        session = self._link.session
        silence = session.silence(time.monotonic())
        if self._link.refused():
            raise keys_refused_error(self._urls[0])
        if silence > QUIET_SECONDS and not self._quiet_since:
            self._quiet_since = time.monotonic() - silence
            # In a thread: a name server that does not answer must not keep us from coming back.
            threading.Thread(target=self._tell_why, args=(silence,), name="probe", daemon=True).start()
        if silence > self._settings.connect_timeout and self._stop_deadline is None:
            said = "has been silent" if session.incarnation else "did not answer"
            why = why_unreachable(self._urls)
            raise ControllerLost(
                f"the controller at {self._urls[0]} {said} for {silence:.0f} s ({why}); its engines on "
                f"{socket.gethostname()} stop"
            )

    def _tell_why(self, silence: float) -> None:
        url, patience = self._urls[0], self._settings.connect_timeout
        why = why_unreachable(self._urls)
        log.warning("no word from the controller at %s for %.0f s: %s. Trying for %g s", url, silence, why, patience)

    def _on_welcome(self, message: Welcome, _: Sequence[Any]) -> None:
        if self._link.session.on_welcome(message) and self._buffers is not None:
            self._buffers.welcome(message.relay_key)

    def _on_refused(self, message: Refused, _: Sequence[Any]) -> None:
        raise refusal_error(message, self._urls[0])

    def _on_pong(self, message: Pong, _: Sequence[Any]) -> None:
        session = self._link.session
        if not session.on_pong(message):
            self._hello()
            return
        if self._buffers is not None:
            self._buffers.confirm(session.sent, session.confirmed)
        heard = [death for death in self._deaths if death.number <= session.confirmed]
        self._deaths = [death for death in self._deaths if death.number > session.confirmed]
        self._replace(heard)

    def _on_signal(self, message: SignalProcesses, _: Sequence[Any]) -> None:
        for uuid in message.engines:
            if uuid in self._pids:
                self._pipe.put(Signal(uuid, message.signal))

    def _on_kill_task(self, message: KillTask, _: Sequence[Any]) -> None:
        if message.engine in self._pids:
            self._pipe.put(Kill(message.engine, message.task))

    # ------------------------------------------------------------------------------------------ the end

    def _look_at_walltime(self) -> None:
        now = time.monotonic()
        if self._walltime is not None and now >= self._walltime.drain:
            given = self._settings.walltime
            self._drain(f"the walltime of its job ({given:g} s) ends" if given else "the time limit of its job ends")
        if self._walltime is not None and now >= self._walltime.cut:
            self._begin_stop()

    def _drain(self, reason: str) -> None:
        """The engines get no more tasks, finish what they run, and leave."""
        if not self._draining:
            self._draining = reason
            log.warning("no more tasks are taken: %s", reason)
            self._link.send(Draining(reason))

    def _begin_stop(self) -> None:
        if self._stop_deadline is None:
            self._stop_deadline = time.monotonic() + STOP_SECONDS
            for uuid in self._pids:
                self._pipe.put(Signal(uuid, signal.SIGTERM))
                self._pipe.put(Signal(uuid, signal.SIGCONT))


def _nanny_buffers(lender: Lender, link: Any, send: Callable[[Message], None]) -> NannyBuffers:
    from .buffers import NannyBuffers  # late: on the controller's host nobody needs `ssl`

    return NannyBuffers(lender, link, send)


def _is_stopped(pid: int) -> bool:
    state = state_of(pid)
    return state is not None and state.is_stopped
