"""A controller in a time that the test decides, and peers that say what it wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conftest import wait_until

from engineroom import _version
from engineroom.config import LivenessSettings, SchedulerSettings
from engineroom.controller.loop import Controller, Machinery
from engineroom.controller.presence.roster import Roster
from engineroom.ids import Digest, EngineId, TaskId
from engineroom.messages import (
    Function,
    Hello,
    Message,
    Ping,
    TaskOptions,
    TaskSpec,
)
from engineroom.stores import DictDB
from engineroom.testing import MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.functions import digest_of
from engineroom.wire.session import prove

CODE = Function(digest_of(b"code"), b"code", "f")
SILENCE = 15.0
DECODERS: dict[str, Any] = {
    "engine": frames.decode_to_engine,
    "nanny": frames.decode_to_nanny,
    "client": frames.decode_to_client,
}


class Processes:
    """The processes of this host."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.watched: dict[str, int] = {}

    def watch(self, uuid: str, pid: int) -> None:
        self.watched[uuid] = pid

    def forget(self, uuid: str) -> None:
        self.watched.pop(uuid, None)

    def is_running(self, pid: int) -> bool:
        return pid in self.running

    def close(self) -> None:
        pass


class World:
    """A controller in a time that the test decides, and peers."""

    def __init__(
        self,
        scheduler: SchedulerSettings | None = None,
        *,
        store: DictDB | None = None,
        roster: Roster | None = None,
        restarted: bool = False,
    ) -> None:
        self.now = 1000.0
        self.roster = roster or Roster()
        self.processes = Processes()
        machinery = Machinery()
        machinery.clock = lambda: self.now  # type: ignore[method-assign]
        machinery.processes = lambda ended: self.processes  # type: ignore[method-assign]
        self.network = MemoryNetwork()
        liveness = LivenessSettings(ping_interval=1.0, allowed_silence=SILENCE)
        self.controller = Controller(
            self.network.listener,
            store or DictDB(),
            "key",
            scheduler=scheduler,
            liveness=liveness,
            restarted=restarted,
            roster=self.roster,
            machinery=machinery,
        )
        self.peers: list[Peer] = []

    def peer(self, role: str, uuid: str, **more: Any) -> Peer:
        peer = Peer(self, role, uuid, more)
        self.peers.append(peer)
        return peer

    def turns(self, until: Callable[[], Any] | None = None) -> None:
        for _ in range(200):
            self.controller._listener.wake()
            self.controller.turn()
            for peer in self.peers:
                peer.hear()
            if until is not None and until():
                return
        assert until is None, "it does not come to that"

    def pass_time(self, seconds: float, *alive: Peer) -> None:
        """Time passes; these give signs of life."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for peer in alive:
                peer.say(Ping(0))
            self.controller._listener.wake()
            self.controller.turn()

    @property
    def engines(self) -> list[EngineId]:
        return list(self.controller.scheduler.engines)

    def close(self) -> None:
        self.controller.close()
        for peer in self.peers:
            peer.link.close()


class Peer:
    """An engine, a nanny or a client that says what the test wants."""

    def __init__(self, world: World, role: str, uuid: str, more: dict[str, Any]) -> None:
        self.role, self.uuid, self.more = role, uuid, more
        self.link = world.network.link(uuid.encode())
        self.heard: list[Any] = []
        self.decode: Callable[[bytes], Any] = DECODERS[role]
        self.hello()

    def hello(self, **more: Any) -> None:
        hello = Hello(_version.PROTOCOL_VERSION, self.role, "", self.uuid, 7, "far away")
        for name, value in {**self.more, **more}.items():
            setattr(hello, name, value)
        self.say(prove(hello, b"key"))

    def say(self, message: Message) -> None:
        self.link.send([frames.encode(message)])

    def hear(self) -> None:
        self.heard += [self.decode(bytes(parts[0])) for parts in self.link.receive()]

    def all(self, kind: type) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]


def task(number: int) -> TaskSpec:
    return TaskSpec(TaskId(f"me-{number}"), Digest(CODE.digest), b"", 0.0, options=TaskOptions(retries=1))


def until(world: World, condition: Callable[[], Any]) -> None:
    """Take turns until something is so: the store has threads of its own."""
    wait_until(lambda: world.turns() or condition())
