"""A session: what the two ends of a connection count, so that both notice every message that is lost.

    link (client, engine, nanny)                   listener (controller)

    LinkSession.hello      ── Hello ────────────▶  check_hello, then a PeerSession
    LinkSession.on_welcome ◀─ Welcome ───────────  PeerSession.welcome
    count_sent             ── messages ─────────▶  count_received
    count_received         ◀─ messages ──────────  count_sent
    LinkSession.ping       ── Ping ─────────────▶  PeerSession.answer
    LinkSession.on_pong    ◀─ Pong ──────────────
          False: say Hello again, and reconcile

Both ends count the messages since the last Hello and keep a checksum of them, in order. Ping and Pong compare the
two. A message that was lost, came twice or came out of order makes them differ. Then the link's end says Hello
again: both ends begin to count anew, and say again what may have been lost.

Hello and Welcome prove that their senders have the cluster's key. The key itself is never sent. Until the first Welcome
with a proof, the link's end believes nothing that it receives (`believes`).

There is no socket, no clock and no thread here. Time is an argument. The methods return what is to be sent; the
caller sends it. The caller counts everything it sends and receives, except Hello, Welcome and Refused.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from zlib import crc32

import msgspec

from .. import _version
from ..errors import AuthenticationError, ProtocolError
from ..ids import EngineId
from ..messages import AttemptKey, Goodbye, Hello, Message, Ping, Pong, Refused, Welcome
from ..messages.rights import ROLES as ROLES_OF
from ..messages.rights import Rights
from ..printable import one_line

ROLES = ("client", "engine", "nanny")

#: The wish of an engine that has had no number before.
ANY_NUMBER = EngineId(-1)

#: So many bytes of each header go into the checksum: enough to tell messages apart, and cheap for long ones.
CHECKED = 64


#: Seconds between two signs of life, at most, whatever the controller asks for.
MOST_PING_SECONDS = 60.0

#: What the link's end may hear from a controller that has not proved the key: none of it can run code.
_HARMLESS = (Welcome, Refused, Pong, Goodbye)


class Introduction(msgspec.Struct, frozen=True):
    """Who a process is, and the key by which it proves that it may come in."""

    hello: Hello
    key: bytes


class _Counters:
    """What both ends count."""

    __slots__ = ("_before", "_checksum_received", "_checksum_sent", "last_heard", "received", "sent")

    def __init__(self, now: float) -> None:
        #: messages since the last Hello
        self.sent = self.received = 0
        self._checksum_sent = self._checksum_received = 0
        #: the checksum of what came before the last message
        self._before = 0
        #: when the last message came
        self.last_heard = now

    def count_sent(self, header: bytes) -> None:
        """A message goes out."""
        self.sent += 1
        self._checksum_sent = crc32(header[:CHECKED], self._checksum_sent)

    def count_received(self, header: bytes, now: float) -> None:
        """A message has come: before it is handled."""
        self.received += 1
        self.last_heard = now
        self._before = before = self._checksum_received
        self._checksum_received = crc32(header[:CHECKED], before)

    def is_in_order(self, sent: int) -> bool:
        """Whether all that was sent before the message that came last has come. It says how many were sent; 0: not."""
        return sent in (0, self.received)

    def _reset_sent(self, sent: int) -> None:
        self.sent, self._checksum_sent = sent, 0

    def _reset_received(self, received: int) -> None:
        self.received, self._checksum_received, self._before = received, 0, 0


class LinkSession(_Counters):
    """The end of a client, an engine or a nanny. It begins the session, and begins it anew when something is lost."""

    __slots__ = (
        "_answered",
        "_answered_at",
        "_introduction",
        "_least_ping_seconds",
        "_nonce",
        "_ping_seconds",
        "_proven",
        "confirmed",
        "incarnation",
        "is_welcome",
        "next_ping",
        "number",
        "renew",
    )

    def __init__(self, introduction: Introduction, ping_seconds: float, now: float) -> None:
        """`introduction`: who we are (see `introduce`); `ping_seconds`: between two signs of life, at least."""
        super().__init__(now)
        self._introduction = introduction
        self._ping_seconds = self._least_ping_seconds = ping_seconds
        #: the `sent` of the last Pong since the last Hello
        self._answered = 0
        #: when it came
        self._answered_at = now
        #: of the last Hello
        self._nonce = ""
        #: whether a controller has proved on this link that it has the key
        self._proven = False
        #: how many Hellos we have said
        self.number = 0
        #: whether the controller has answered the last Hello
        self.is_welcome = False
        #: names the life of the controller that answered last; "": none has
        self.incarnation = ""
        #: so many of the messages since the last Hello have certainly arrived
        self.confirmed = 0
        self.next_ping = 0.0
        #: engines: each sign of life says that another process should take the place of this one
        self.renew = False

    def hello(
        self, now: float, wish: EngineId = ANY_NUMBER, held: Sequence[AttemptKey] = (), lends: int = 0, stored: int = -1
    ) -> Hello:
        """Begin (anew). Engines say which number they would like, and which tasks they hold.

        `lends`, `stored`: see `Hello`.
        """
        self.number += 1
        self.is_welcome, self.confirmed, self._answered = False, 0, 0
        self._reset_sent(1)  # the Hello itself
        self._reset_received(0)
        self.next_ping = now + self._ping_seconds
        known = self._introduction
        hello = msgspec.structs.replace(
            known.hello, wish=wish, held=list(held), number=self.number, lends=lends, stored=stored
        )
        hello = prove(hello, known.key)
        self._nonce = hello.nonce
        return hello

    def believes(self, message: Message) -> bool:
        """Whether a message may be handled. Before the controller has proved the key, only harmless ones may."""
        return self._proven or isinstance(message, _HARMLESS)

    def on_welcome(self, message: Welcome) -> bool:
        """The controller answers our Hello. False: it answers an earlier Hello; the caller ignores it.

        Raises
        ------
        AuthenticationError
            It does not prove that it has the key.
        """
        if message.hello != self.number:
            return False
        proof = _welcome_proof(message, self._nonce, self._introduction.key)
        if not hmac.compare_digest(message.proof.encode(), proof):
            raise AuthenticationError(
                "what answers at the address of the connection file does not have the cluster's key: it is not the "
                "controller. Look who listens there; use the connection file in the controller's security folder"
            )
        self._proven = True
        self._reset_received(0)
        self.is_welcome = True
        self.incarnation = message.incarnation
        return True

    def ping(self, now: float, at: float = 0.0) -> Ping:
        """A sign of life, also before it is due. The caller sends it next, before anything else.

        `at`: the time of day, for the controller to compare; 0: it is not told.
        """
        if now >= self.next_ping:
            self.next_ping = now + self._ping_seconds
        since = max(0.0, now - self._answered_at) if self._answered else 0.0
        return Ping(self.sent + 1, self.number, self._checksum_sent, at, self.renew, self._answered, since)

    def on_pong(self, pong: Pong) -> bool:
        """Whether neither end has missed anything. False: the caller says Hello again."""
        if pong.hello != self.number:
            return True  # it answers a Ping from before our last Hello: that is settled
        self._answered, self._answered_at = pong.sent, self.last_heard
        if pong.ping_seconds:
            self._ping_seconds = max(self._least_ping_seconds, min(pong.ping_seconds, MOST_PING_SECONDS))
        is_whole = (
            pong.known
            and self.is_welcome  # else the Welcome was lost
            and pong.sent == self.received
            and pong.checksum == self._before
        )
        if is_whole:
            self.confirmed = pong.heard
        return is_whole

    def silence(self, now: float) -> float:
        """Seconds since the controller was heard."""
        return now - self.last_heard


class PeerSession(_Counters):
    """The controller's end: one for each peer, since its last Hello."""

    __slots__ = ("_key", "_nonce", "hello")

    def __init__(self, hello: Hello, key: bytes, now: float) -> None:
        super().__init__(now)
        self._key, self._nonce = key, hello.nonce
        #: the number of the Hello that began it
        self.hello = hello.number
        self._reset_received(1)  # the Hello itself

    def welcome(self, message: Welcome) -> Welcome:
        """Greet the peer; the caller sends the result. Both ends count from here."""
        message.hello = self.hello
        message.proof = _welcome_proof(message, self._nonce, self._key).decode()
        self._reset_sent(0)
        self._reset_received(1)
        return message

    def answer(self, ping: Ping) -> Pong:
        """Whether everything that the peer sent has come. The caller sends the result next, before anything else."""
        known = ping.hello == self.hello and ping.sent == self.received and ping.checksum == self._before
        return Pong(self.sent + 1, known, ping.hello, self._checksum_sent, self.received)


def introduce(
    role: str, key: str, uuid: str, *, nanny: str = "", resources: Mapping[str, list[int]] | None = None
) -> Introduction:
    """Who this process is, for a `LinkSession`."""
    hello = Hello(
        _version.PROTOCOL_VERSION,
        role,
        "",
        uuid,
        os.getpid(),
        socket.gethostname(),
        platform.python_version(),
        nanny,
        resources=dict(resources or {}),
    )
    return Introduction(hello, key.encode())


def prove(hello: Hello, key: bytes) -> Hello:
    """The Hello with a fresh nonce, and with the proof that we have the key."""
    fresh = msgspec.structs.replace(hello, nonce=os.urandom(16).hex())
    return msgspec.structs.replace(fresh, proof=_hello_proof(fresh, key).decode())


def _hello_proof(hello: Hello, key: bytes) -> bytes:
    # Of fields that every later version has, too: a peer of another version is told so.
    return _proof(key, "hello", hello.nonce, hello.version, hello.role, hello.uuid)


def _welcome_proof(message: Welcome, nonce: str, key: bytes) -> bytes:
    return _proof(key, "welcome", nonce, message.incarnation, message.hello)


def _proof(key: bytes, *facts: str | int) -> bytes:
    return hmac.new(key, msgspec.msgpack.encode(facts), hashlib.sha256).hexdigest().encode()


def check_hello(hello: Hello, keys: Mapping[Rights, bytes]) -> Rights:
    """Decide whether a peer may come in. The proof of a key is checked before anything else.

    `keys`: those of this cluster, by their rights. Returns the rights of the key that the peer has.

    Raises
    ------
    AuthenticationError
        The peer has none of these keys, or one that does not allow its role.
    ProtocolError
        The peer speaks another version of the protocol, or has a role that does not exist.
    """
    proof = hello.proof.encode()
    rights = next((r for r, key in keys.items() if hmac.compare_digest(proof, _hello_proof(hello, key))), None)
    if rights is None and hello.version < 3:  # such peers sent the key itself: they are told which version they speak
        rights = next((r for r, key in keys.items() if hmac.compare_digest(proof, key)), None)
    if rights is None:
        raise AuthenticationError("the key is wrong")
    if hello.version != _version.PROTOCOL_VERSION:
        raise ProtocolError(
            f"it speaks protocol version {hello.version}, this controller {_version.PROTOCOL_VERSION} (engineroom "
            f"{_version.__version__}). Use one release at both ends: there `pip install "
            f"engineroom=={_version.__version__}`, or upgrade here and start the cluster again"
        )
    if hello.role not in ROLES:
        raise ProtocolError(f"a peer is a client, an engine or a nanny, not {hello.role!r}")
    if hello.role not in ROLES_OF[rights]:
        article = "an" if hello.role == "engine" else "a"
        raise AuthenticationError(f"its key has the rights {rights!r}: {article} {hello.role} needs another one")
    return rights


def answer_unknown(ping: Ping) -> Pong:
    """The answer to the Ping of a peer without a session: it says Hello again."""
    return Pong(0, known=False, hello=ping.hello)


def refusal_error(message: Refused, url: str) -> AuthenticationError | ProtocolError:
    """The exception for a controller that has refused us."""
    if message.code == AuthenticationError.code:
        return AuthenticationError(
            f"the controller at {url} refused us: {one_line(message.reason)}. The connection file is not this "
            "controller's (any more): use the one in its profile's security folder."
        )
    return ProtocolError(
        f"the controller at {url} refused us: {one_line(message.reason)}. This process has engineroom "
        f"{_version.__version__}, with protocol version {_version.PROTOCOL_VERSION}."
    )


def keys_refused_error(url: str) -> AuthenticationError:
    """The exception for a controller that has turned down our encryption keys."""
    return AuthenticationError(
        f"the controller at {url} refused our encryption keys: this connection file is not its own (any more). Use "
        "the one in its profile's security folder."
    )
