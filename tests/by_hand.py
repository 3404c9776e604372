"""A controller driven by hand: real engines under a real nanny, and a test that says what they are sent."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from engineroom import config
from engineroom.controller.presence.peers import Peer, Peers
from engineroom.ids import EngineId, TaskId
from engineroom.messages import (
    EngineDied,
    Function,
    Hello,
    InputResult,
    Message,
    Ping,
    Results,
    Run,
    Started,
    Stop,
    Stored,
    TaskDone,
    TaskOptions,
    TaskSpec,
    Welcome,
)
from engineroom.transport import Listener, listen
from engineroom.wire import payload
from engineroom.wire.frames import FrameTable, pick
from engineroom.wire.functions import FunctionCache

M = TypeVar("M", bound=Message)


class Hand:
    """Hears everything, answers greetings and signs of life, and keeps the rest for the test."""

    def __init__(self, listener: Listener, key: str) -> None:
        self._listener = listener
        self._key = key
        self.peers = Peers(listener, key)
        self.heard: list[tuple[Peer, Message]] = []
        self.outcomes: dict[TaskId, TaskDone] = {}
        self.values: dict[TaskId, Any] = {}
        self.hellos: list[Hello] = []
        self._has_begun_anew = False
        #: whether signs of life are answered
        self.answers = True
        self._functions = FunctionCache()
        self._count = 0

    def turn(self) -> None:
        """Hear what has come."""
        for address, frames in self._listener.receive(timeout=0.05):
            got = self.peers.receive(address, frames[0], time.monotonic())
            if isinstance(got, Hello):
                peer = self.peers.admit(address, got, time.monotonic())
                assert peer is not None
                self.hellos.append(got)
                if got.role == "engine":
                    known = [e for e in self.peers.engines.values() if e.uuid == got.uuid]
                    number = known[0].engine if known else got.wish if got.wish >= 0 else len(self.peers.engines)
                    peer.engine = EngineId(number)
                    self.peers.engines[peer.engine] = peer
                self.peers.welcome(peer, Welcome("hand", engine=peer.engine))
                continue
            if got is None:
                assert self._has_begun_anew, "a message that makes no sense"
                continue
            peer, message = got
            if isinstance(message, Ping) and self.answers:
                self.peers.pong(peer, message, at=time.time())
            elif isinstance(message, Results):
                for done in message.tasks:
                    # what was not confirmed before a new beginning is sent again
                    assert self._has_begun_anew or done.id not in self.outcomes, "a second outcome"
                    self.outcomes[done.id] = done
                    if done.status == "ok":
                        self.values[done.id] = payload.loads(done.payload, pick(done, frames[1:]))
                self.peers.send(peer, Stored(message.number))
            else:
                if isinstance(message, EngineDied):
                    dead = self.peers.by_uuid.get(message.engine)
                    if dead is not None:
                        self.peers.forget(dead)
                self.heard.append((peer, message))

    def until(self, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Hear until something is so; returns it."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not so after {timeout:g} s; heard: {self.heard}"
            self.turn()
        return found

    def next(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of a kind; those before it are kept."""

        def find() -> M | None:
            for index, (_, message) in enumerate(self.heard):
                if isinstance(message, kind) and where(message):
                    del self.heard[index]
                    return message
            return None

        found = self.until(find)
        assert isinstance(found, kind)
        return found

    def engine(self, number: int = 0) -> Peer:
        """An engine that is there, or will be."""
        peer = self.until(lambda: self.peers.engines.get(EngineId(number)))
        assert isinstance(peer, Peer)
        return peer

    def begin_anew(self) -> None:
        """Another life of the controller: it knows nobody."""
        self.peers = Peers(self._listener, self._key)
        self._has_begun_anew = True

    def greet(self, number: int = 0) -> None:
        """Welcome an engine again."""
        self.peers.welcome(self.engine(number), Welcome("hand", engine=EngineId(number)))

    def has_begun(self, id: TaskId) -> bool:
        """Whether a task has been announced, or has ended."""
        return id in self.outcomes or any(isinstance(m, Started) and m.task == id for _, m in self.heard)

    @property
    def nanny(self) -> Peer:
        """The nanny."""
        return self.until(lambda: self.peers.role("nanny"))[0]

    def task(
        self, function: Callable[..., Any], *args: Any, engine: int = -1, **options: Any
    ) -> tuple[TaskSpec, Function]:
        """A task, not sent yet, and its function."""
        self._count += 1
        found = self._functions.get(function)
        stream, beside = payload.dumps_call(args, {})
        assert not beside
        wishes = TaskOptions(**options) if options else None
        id = TaskId(f"t{self._count}")
        return TaskSpec(id, found.digest, stream, 0.0, EngineId(engine), options=wishes), found

    def run(
        self, *tasks: tuple[TaskSpec, Function], on: int = 0, values: dict[TaskId, Any] | None = None
    ) -> list[TaskId]:
        """Send tasks to an engine; with `values`, these results of others beside them."""
        table = FrameTable()
        sent = []
        for id, value in (values or {}).items():
            stream, beside = payload.dumps(value)
            sent.append(InputResult(id, stream, table.add(beside)))
        specs = [spec for spec, _ in tasks]
        message = Run(specs, [1] * len(specs), [function for _, function in tasks], sent)
        self.peers.send(self.engine(on), message, table.frames)
        return [spec.id for spec in specs]

    def call(self, function: Callable[..., Any], *args: Any, on: int = 0, **options: Any) -> TaskId:
        """Send one task; returns its id."""
        return self.run(self.task(function, *args, **options), on=on)[0]

    def outcome(self, id: TaskId) -> TaskDone:
        """How a task ended."""
        done = self.until(lambda: self.outcomes.get(id))
        assert isinstance(done, TaskDone)
        return done

    def value(self, id: TaskId) -> Any:
        """What a task returned."""
        done = self.outcome(id)
        assert done.status == "ok", done.error
        return self.values[id]


@contextmanager
def by_hand(folder: Path, n: int = 1, args: Sequence[str] = (), **environment: str) -> Iterator[Hand]:
    """Start engines that know nobody but the test."""
    key = secrets.token_hex(8)
    listener = listen([f"ipc://{config.socket_dir()}/{secrets.token_hex(8)}"], "", max_message_size=1 << 32)
    file = folder / "by-hand-engine.json"
    config.write_connection_file(file, config.ConnectionInfo(url=listener.urls[0], key=key))
    command = [sys.executable, "-m", "engineroom.engine", f"--n={n}", f"--file={file}", *args]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    hand = Hand(listener, key)
    try:
        yield hand
    finally:
        for peer in hand.peers.role("nanny"):
            hand.peers.send(peer, Stop())
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            hand.turn()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == 0
        listener.close()
