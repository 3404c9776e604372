"""The door: who may say what before, with and after a Hello."""

from __future__ import annotations

import logging

import pytest

from engineroom import _version
from engineroom.controller.presence import peers as module
from engineroom.controller.presence import said_hellos
from engineroom.controller.presence.peers import Peer, Peers
from engineroom.messages import Hello, Message, Refused, StopController, Submit
from engineroom.messages import Request as RequestMessage
from engineroom.testing.network import MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.session import prove


class Door:
    """Peers, and links that knock."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.peers = Peers(self.network.listener, "key")
        self.now = 0.0

    def say(self, name: bytes, message: Message | bytes) -> tuple[Peer, Message] | Hello | None:
        header = message if isinstance(message, bytes) else frames.encode(message)
        return self.peers.receive(name, header, self.now)

    def hello(self, name: bytes, hello: Hello) -> Peer | None:
        if name not in self.network.links:
            self.network.link(name)
        arrived = self.say(name, hello)
        assert isinstance(arrived, Hello)
        return self.peers.admit(name, arrived, self.now)

    def answers(self, name: bytes) -> list[Message]:
        return [frames.decode_to_client(bytes(parts[0])) for parts in self.network.links[name].receive()]


def hello(uuid: str = "alice", role: str = "client", key: bytes = b"key", number: int = 1) -> Hello:
    return prove(Hello(_version.PROTOCOL_VERSION, role, "", uuid, 1, "host", number=number), key)


@pytest.fixture
def door() -> Door:
    return Door()


def refusal(door: Door, name: bytes) -> str:
    [refused] = door.answers(name)
    assert isinstance(refused, Refused)
    return refused.reason


def test_knowing_the_uuid_of_a_client_is_not_enough_to_speak_for_it(door: Door):
    assert door.hello(b"one", hello("alice"))
    for name in (b"alice", b"two"):
        assert door.say(name, RequestMessage(1, StopController())) is None
        assert door.say(name, Submit(1, [])) is None


def test_nobody_takes_over_a_live_connection(door: Door):
    alice = door.hello(b"one", hello("alice"))
    assert door.hello(b"two", hello("alice")) is None
    assert "another connection has this uuid" in refusal(door, b"two")
    assert door.peers.by_uuid["alice"] is alice


def test_a_connection_keeps_its_name(door: Door):
    assert door.hello(b"one", hello("alice"))
    assert door.hello(b"one", hello("bob")) is None
    assert "keeps its uuid" in refusal(door, b"one")
    assert door.hello(b"one", hello("alice", "engine")) is None
    assert set(door.peers.by_uuid) == {"alice"}
    assert door.hello(b"one", hello("alice", number=2)), "it may say Hello again"


def test_a_uuid_is_free_again_when_its_peer_is_gone(door: Door):
    alice = door.hello(b"one", hello("alice"))
    assert alice is not None
    door.peers.forget(alice)
    assert door.hello(b"two", hello("alice"))


@pytest.mark.fault(25)
def test_a_hello_that_was_overheard_is_worth_nothing(door: Door):
    overheard = hello("alice")
    alice = door.hello(b"one", overheard)
    assert alice is not None
    door.peers.forget(alice)
    assert door.hello(b"two", overheard) is None
    assert "said this Hello before" in refusal(door, b"two")


def test_remembered_hellos_do_not_grow_for_ever(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(said_hellos, "GROUPS", 1)
    monkeypatch.setattr(said_hellos, "EACH", 3)
    said = [hello("alice", number=number) for number in range(10)]
    for each in said:
        assert door.hello(b"one", each)
    assert len(door.peers._said) == 3
    assert door.hello(b"one", said[-1]), "a message may come twice"
    assert len(door.peers._said) == 3
    assert door.hello(b"one", said[7])
    door.peers.forget(door.peers.by_uuid["alice"])
    assert [door.hello(b"two", each) for each in said[7:]] == [None] * 3
    assert door.hello(b"two", said[6]), "it is forgotten"


def test_tasks_that_come_after_a_lost_message_are_not_taken(door: Door):
    """Those that were lost may be before them: the client says all of them again."""
    door.hello(b"one", hello())
    first = door.say(b"one", Submit(1, [], sent=2))
    assert isinstance(first, tuple)
    assert door.say(b"one", Submit(3, [], sent=4)) is None
    door.hello(b"one", hello(number=2))
    assert isinstance(door.say(b"one", Submit(4, [], sent=2)), tuple)
    assert isinstance(door.say(b"one", Submit(5, [])), tuple), "a client of an earlier release does not count"


def test_before_its_hello_a_peer_may_say_little(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_BEFORE_HELLO", 1000)
    monkeypatch.setattr(frames, "decode_from_unknown", lambda header: pytest.fail("it is not even decoded"))
    assert door.say(b"one", bytes(1001)) is None


def test_strangers_do_not_fill_the_log(door: Door, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for number in range(500):
        door.now = number / 100
        assert door.hello(b"one", hello("alice", key=b"guess")) is None
        assert door.say(b"two", b"nonsense") is None
    assert len(caplog.records) == 2, "one of each kind"
    door.now = 100.0
    assert door.hello(b"one", hello("alice", key=b"guess")) is None
    assert "501 peers so far" in caplog.text
