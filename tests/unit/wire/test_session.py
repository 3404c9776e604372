"""Sessions: both ends talk in memory, through a network that does its worst."""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import msgspec
import pytest

from engineroom import _version
from engineroom.errors import AuthenticationError, ProtocolError
from engineroom.ids import EngineId, TaskId
from engineroom.messages import AttemptKey, Hello, Message, Ping, Pong, Refused, Stored, Watch, Welcome
from engineroom.wire import frames, session
from engineroom.wire.session import LinkSession, PeerSession

STORMS = 3000 if os.environ.get("ENGINEROOM_NIGHTLY") else 300
PING_SECONDS = 1.0


def link_session(now: float = 0.0) -> LinkSession:
    return LinkSession(session.introduce("client", "key", "uuid"), PING_SECONDS, now)


class LinkEnd:
    """A client's end, with a diary of what it has sent and received in this session."""

    def __init__(self, out: deque[Any]) -> None:
        self.out = out
        self.session = link_session()
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.agreements = 0

    def hello(self, now: float) -> None:
        self.sent, self.received = [], []
        self.out.append((self.session.hello(now), None))

    def send(self, message: Message, diary: Any = None) -> None:
        header = frames.encode(message)
        self.session.count_sent(header)
        self.out.append((message, diary))
        self.sent.append(header)

    def ping(self, now: float) -> None:
        self.send(self.session.ping(now), tuple(self.sent))

    def receive(self, message: Message, diary: Any, now: float) -> None:
        header, before = frames.encode(message), tuple(self.received)
        self.session.count_received(header, now)
        self.received.append(header)
        if isinstance(message, Welcome):
            if self.session.on_welcome(message):
                self.received = []
        elif isinstance(message, Pong):
            is_of_now = message.hello == self.session.number
            if not self.session.on_pong(message):
                self.hello(now)
            elif is_of_now:
                assert before == diary, "the link's end believes that nothing was lost"
                self.agreements += 1


class ControllerEnd:
    """A controller's end, with the same diary."""

    def __init__(self, out: deque[Any]) -> None:
        self.out = out
        self.session: PeerSession | None = None
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    def send(self, message: Message, diary: Any = None) -> None:
        if self.session is not None:
            header = frames.encode(message)
            self.session.count_sent(header)
            self.sent.append(header)
            self.out.append((message, diary))

    def receive(self, message: Message, diary: Any, now: float) -> None:
        if isinstance(message, Hello):
            self.session, self.sent, self.received = PeerSession(message, b"key", now), [], []
            self.out.append((self.session.welcome(Welcome("life")), None))
        elif self.session is None:
            if isinstance(message, Ping):
                self.out.append((session.answer_unknown(message), None))
        else:
            header, before = frames.encode(message), tuple(self.received)
            self.session.count_received(header, now)
            self.received.append(header)
            if isinstance(message, Ping):
                pong = self.session.answer(message)
                assert not pong.known or before == diary, "the controller's end believes that nothing was lost"
                self.send(pong, tuple(self.sent))


class World:
    """Two ends and what is under way between them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.up: deque[Any] = deque()
        self.down: deque[Any] = deque()
        self.link, self.controller = LinkEnd(self.up), ControllerEnd(self.down)
        self.now, self.count = 0.0, 0
        self.link.hello(self.now)

    def deliver(self, queue: deque[Any]) -> None:
        if queue:
            message, diary = queue.popleft()
            (self.controller if queue is self.up else self.link).receive(message, diary, self.now)

    def step(self) -> None:
        """Something happens."""
        self.now += self.chance.random() / 10
        self.count += 1
        queue = self.chance.choice([self.up, self.down])
        at = self.chance.randrange(len(queue)) if queue else 0
        match self.chance.choices(
            ["say", "tell", "deliver", "ping", "lose", "repeat", "reorder", "cut", "controller restarts", "we restart"],
            [20, 20, 50, 8, 2, 2, 2, 1, 1, 1],
        ):
            case ["say"]:
                self.link.send(Watch([TaskId(str(self.count))]))
            case ["tell"]:
                self.controller.send(Stored(self.count))
            case ["deliver"]:
                self.deliver(queue)
            case ["ping"]:
                self.link.ping(self.now)
            case ["lose"] if queue:
                del queue[at]
            case ["repeat"] if queue:
                queue.insert(self.chance.randrange(len(queue) + 1), queue[at])
            case ["reorder"] if queue:
                message = queue[at]
                del queue[at]
                queue.insert(self.chance.randrange(len(queue) + 1), message)
            case ["cut"]:
                self.up.clear()
                self.down.clear()
            case ["controller restarts"]:
                self.controller = ControllerEnd(self.down)
            case ["we restart"]:
                self.up.clear()  # a new link has a new name: the controller does not mistake it for the old one
                self.down.clear()
                self.link = LinkEnd(self.up)
                self.link.hello(self.now)

    def calm_down(self) -> None:
        """Deliver everything that is under way, and its answers."""
        while self.up or self.down:
            self.deliver(self.up)
            self.deliver(self.down)


@pytest.mark.parametrize("seed", range(STORMS))
def test_after_a_storm_both_ends_agree_and_neither_has_overlooked_a_loss(seed: int):
    """That a loss is not overlooked is asserted by both ends, whenever they agree."""
    world = World(seed)
    for _ in range(400):
        world.step()
    world.calm_down()
    for _ in range(3):  # it is found out; the ends begin anew; they agree
        world.now += PING_SECONDS
        world.link.ping(world.now)
        world.calm_down()
    hellos, agreements = world.link.session.number, world.link.agreements
    assert agreements, "they have agreed at least once"
    world.link.send(Watch([TaskId("last")]))
    world.controller.send(Stored(1))
    world.link.ping(world.now)
    world.calm_down()
    assert world.link.agreements == agreements + 1
    assert world.link.session.number == hellos, "in the calm nobody begins anew"
    assert world.controller.session is not None
    assert world.controller.session.received == world.link.session.sent == world.link.session.confirmed
    assert world.controller.session.sent == world.link.session.received


def test_storms_do_harm():
    """Of the storms above many lead to a new beginning: they test something."""
    anew = 0
    for seed in range(50):
        world = World(seed)
        for _ in range(400):
            world.step()
        anew += world.link.session.number > 1
    assert anew > 25


# -------------------------------------------------------------------------------------------- one fault at a time


@pytest.fixture
def world() -> World:
    """Two ends that have greeted each other."""
    world = World(0)
    world.calm_down()
    return world


def agree(world: World) -> bool:
    """Whether the next Ping finds nothing wrong."""
    before = world.link.agreements
    world.link.ping(world.now)
    world.calm_down()
    return world.link.agreements > before


def test_nothing_is_lost_and_nobody_begins_anew(world: World):
    world.link.send(Watch([TaskId("a")]))
    world.controller.send(Stored(1))
    assert agree(world)
    assert agree(world)
    assert world.link.session.number == 1


@pytest.mark.parametrize("is_up", [True, False])
def test_a_lost_message_is_noticed_at_the_next_ping(world: World, is_up: bool):
    if is_up:
        world.link.send(Watch([TaskId("a")]))
        world.up.clear()
    else:
        world.controller.send(Stored(1))
        world.down.clear()
    assert not agree(world)
    assert world.link.session.number == 2
    assert agree(world)


@pytest.mark.fault(25)
def test_a_repeated_message_does_not_hide_a_lost_one(world: World):
    world.link.send(Watch([TaskId("a")]))
    world.link.send(Watch([TaskId("b")]))
    world.up[1] = world.up[0]
    assert not agree(world)


@pytest.mark.fault(24)
def test_two_messages_that_change_places_are_noticed(world: World):
    world.controller.send(Stored(1))
    world.controller.send(Stored(2))
    world.down.rotate(1)
    assert not agree(world)


def test_a_lost_hello_is_said_again():
    world = World(0)
    world.up.clear()
    assert not agree(world)
    assert agree(world)


def test_a_lost_welcome_is_noticed(world: World):
    world.link.hello(world.now)
    world.deliver(world.up)
    world.down.clear()
    assert not world.link.session.is_welcome
    assert not agree(world)
    assert world.link.session.is_welcome


def test_a_controller_that_has_restarted_knows_nobody(world: World):
    world.controller = ControllerEnd(world.down)
    world.link.ping(world.now)
    world.link.ping(world.now)
    world.calm_down()
    assert world.link.session.number == 2, "the second answer is of the session before"
    assert agree(world)


def test_answers_to_an_earlier_hello_are_ignored(world: World):
    world.link.hello(world.now)
    world.link.hello(world.now)
    world.deliver(world.up)
    world.deliver(world.down)
    assert not world.link.session.is_welcome
    world.calm_down()
    assert world.link.session.is_welcome
    assert agree(world)


def test_what_was_sent_before_a_ping_is_confirmed_with_it(world: World):
    world.link.send(Watch([TaskId("a")]))
    number = world.link.session.sent
    assert world.link.session.confirmed < number
    assert agree(world)
    assert world.link.session.confirmed >= number


# -------------------------------------------------------------------------------------------- time, and who comes in


def test_a_ping_is_due_so_many_seconds_after_the_last():
    ours = link_session()
    ours.hello(10.0)
    assert ours.next_ping == 11.0
    ours.ping(10.5)
    assert ours.next_ping == 11.0, "one before its time does not put off the next"
    ours.ping(11.0)
    assert ours.next_ping == 12.0


def test_silence_is_counted_from_the_last_message():
    ours = link_session(5.0)
    assert ours.silence(7.0) == 2.0
    ours.count_received(b"anything", 8.0)
    assert ours.silence(9.5) == 1.5


def test_an_engine_says_what_it_holds():
    ours = LinkSession(session.introduce("engine", "key", "uuid", nanny="n", resources={"gpu": [1]}), PING_SECONDS, 0.0)
    hello = ours.hello(0.0, EngineId(3), [AttemptKey(TaskId("t"), 1)])
    assert (hello.role, hello.nanny, hello.resources) == ("engine", "n", {"gpu": [1]})
    assert (hello.wish, hello.held, hello.number) == (3, [AttemptKey("t", 1)], 1)
    assert ours.hello(0.0).held == [], "of one Hello nothing is left in the next"
    assert hello.version == _version.PROTOCOL_VERSION
    session.check_hello(hello, {"full": b"key"})


def test_the_key_is_compared_before_anything_else():
    with pytest.raises(AuthenticationError, match="key is wrong"):
        session.check_hello(Hello(-1, "nobody", "wrong", "uuid", 1, "host"), {"full": b"key"})


@pytest.mark.fault(29)
@pytest.mark.parametrize(("version", "role", "said"), [(0, "client", "version 0"), (None, "nobody", "'nobody'")])
def test_who_does_not_fit_is_refused(version: int | None, role: str, said: str):
    version = _version.PROTOCOL_VERSION if version is None else version
    with pytest.raises(ProtocolError, match=said):
        session.check_hello(session.prove(Hello(version, role, "", "uuid", 1, "host"), b"key"), {"full": b"key"})


@pytest.mark.fault(29)
def test_a_peer_of_a_version_that_sent_the_key_is_told_its_version():
    with pytest.raises(ProtocolError, match="version 2"):
        session.check_hello(Hello(2, "client", "key", "uuid", 1, "host"), {"full": b"key"})


@pytest.mark.fault(25)
def test_the_key_never_travels_and_a_proof_is_good_for_one_hello():
    ours = LinkSession(session.introduce("client", "the secret key", "uuid"), PING_SECONDS, 0.0)
    first, second = ours.hello(0.0), ours.hello(1.0)
    assert b"the secret key" not in frames.encode(first)
    assert first.nonce != second.nonce
    for forged in ({"uuid": "another"}, {"role": "engine"}, {"nonce": second.nonce}):
        with pytest.raises(AuthenticationError):
            session.check_hello(msgspec.structs.replace(first, **forged), {"full": b"the secret key"})


@pytest.mark.fault(28)
@pytest.mark.parametrize("key", [b"another key", b""])
def test_a_controller_without_the_key_is_not_believed(key: bytes):
    ours = link_session()
    hello = ours.hello(0.0)
    stranger = PeerSession(hello, key, 0.0)
    assert not ours.believes(Watch([]))
    with pytest.raises(AuthenticationError, match="does not have the cluster's key"):
        ours.on_welcome(stranger.welcome(Welcome("life")))
    with pytest.raises(AuthenticationError):
        ours.on_welcome(Welcome("life", hello=hello.number))
    assert not ours.believes(Watch([]))
    assert ours.on_welcome(PeerSession(hello, b"key", 0.0).welcome(Welcome("life")))
    assert ours.believes(Watch([]))


def test_a_refusal_becomes_an_error_that_says_what_to_do():
    error = session.refusal_error(Refused(AuthenticationError.code, "the key is wrong"), "tcp://x")
    assert isinstance(error, AuthenticationError)
    assert "security folder" in str(error)
    assert isinstance(session.refusal_error(Refused(ProtocolError.code, "version"), "tcp://x"), ProtocolError)
    assert "encryption keys" in str(session.keys_refused_error("tcp://x"))


def test_the_controller_asks_for_fewer_signs_of_life_but_never_for_too_few_or_too_many():
    link = link_session()
    link.hello(0.0)

    def pause(asked: float, now: float) -> float:
        """Seconds to the sign of life after the next one."""
        link.on_pong(Pong(1, hello=link.number, ping_seconds=asked))
        link.ping(now)
        return link.next_ping - now

    assert pause(0.0, 10.0) == PING_SECONDS
    assert pause(4.0, 20.0) == 4.0
    assert pause(0.01, 30.0) == PING_SECONDS
    assert pause(1e300, 40.0) == session.MOST_PING_SECONDS
    assert pause(-1e300, 200.0) == PING_SECONDS


def test_a_sign_of_life_names_the_last_answer_and_how_long_it_has_been_there():
    link = link_session()
    link.hello(0.0)
    assert (link.ping(1.0).answered, link.ping(1.0).since) == (0, 0.0)
    pong = Pong(7, hello=link.number)
    link.count_received(frames.encode(pong), 2.0)
    link.on_pong(pong)
    assert (link.ping(2.5).answered, link.ping(2.5).since) == (7, 0.5)
    link.hello(3.0)
    assert link.ping(3.5).answered == 0, "both ends count anew"
