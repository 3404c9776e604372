"""Who is connected: clients, engines and nannies, each known since its Hello.

A peer is its connection: the address under which the listener knows it, a random name that only its link knows. The
uuid in its Hello is a name for others. A connection that has not said Hello can only say Hello; nobody can say Hello
under the uuid of a peer that is connected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ...errors import AuthenticationError, ProtocolError
from ...ids import EngineId
from ...messages import Function, Hello, Message, Ping, Refused, Request, Submit, Welcome
from ...messages.bounds import MOST_ASKED
from ...messages.rights import RIGHTS, Rights, key_with_rights
from ...transport import Listener
from ...wire import frames
from ...wire.input_cache import InputCache
from ...wire.session import PeerSession, answer_unknown, check_hello
from .peer_clock import PeerClock
from .said_hellos import SaidHellos

log = logging.getLogger(__name__)

#: So many functions are known to be with an engine, which keeps fewer. Then all are sent again when they are called.
MOST_FUNCTIONS = 4096

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "client": frames.decode_from_client,
    "engine": frames.decode_from_engine,
    "nanny": frames.decode_from_nanny,
}


#: The longest message that a peer may send before its Hello is accepted, in bytes. An engine's Hello names every
#: attempt that it holds, some 40 bytes each.
MOST_BEFORE_HELLO = 16 << 20
#: A connection may say the last of its Hellos again, so many of them: messages may come twice.
OWN_HELLOS = 4
#: Between two log lines of one kind about what strangers do.
LOG_SECONDS = 10.0


class Tally:
    """Counts events of one kind, and says when to write a log line: the first, then one in `LOG_SECONDS` at most."""

    def __init__(self) -> None:
        self.total = 0
        self._quiet_until = float("-inf")

    def count(self, now: float) -> bool:
        """Count one more. Whether a line may be written."""
        self.total += 1
        if now < self._quiet_until:
            return False
        self._quiet_until = now + LOG_SECONDS
        return True


class Peer:
    """One connected process."""

    __slots__ = (
        "address",
        "clock",
        "decode",
        "engine",
        "functions",
        "host",
        "lends",
        "nanny",
        "pid",
        "promised",
        "python",
        "results",
        "rights",
        "role",
        "said",
        "session",
        "uuid",
        "values",
    )

    def __init__(self, address: bytes, hello: Hello, rights: Rights, key: bytes, now: float) -> None:
        self.address = address
        self.rights: Rights = rights
        self.role = hello.role
        self.uuid = hello.uuid
        self.host, self.pid, self.python = hello.host, hello.pid, hello.python
        self.decode = DECODERS[hello.role]
        self.session = PeerSession(hello, key, now)
        #: the nonces of its last Hellos
        self.said: tuple[str, ...] = (hello.nonce,)
        self.clock = PeerClock()
        #: engines: their number, their nanny, and the digests of functions they have (of those they have not they ask)
        self.engine = EngineId(-1)
        self.nanny = hello.nanny
        self.functions: set[bytes] = set()
        #: … and the results that they have had since their Hello
        self.values: InputCache[None] = InputCache()
        #: … and the number of their last message with results; -1: none has come
        self.results = hello.stored
        #: nannies: how many engines they mean to have
        self.promised = 0
        #: see `Hello`
        self.lends = hello.lends

    @property
    def last_heard(self) -> float:
        """When its last message came."""
        return self.session.last_heard

    def note_sent(self, functions: Iterable[Function]) -> None:
        """Note that these functions are sent to an engine."""
        if len(self.functions) > MOST_FUNCTIONS:
            self.functions.clear()
        self.functions.update(function.digest for function in functions)


class Peers:
    """The peers by address, and the door they come in through."""

    def __init__(self, listener: Listener, key: str) -> None:
        self._listener = listener
        #: of each rights the key
        self._keys = _keys(key)
        self._known: dict[bytes, Peer] = {}
        #: uuid → peer
        self.by_uuid: dict[str, Peer] = {}
        self.engines: dict[EngineId, Peer] = {}
        #: role → address → peer; nanny → uuid → engines that have named it
        self._by_role: dict[str, dict[bytes, Peer]] = {role: {} for role in DECODERS}
        self._by_nanny: dict[str, dict[str, Peer]] = {}
        #: host and pid of each of them
        self._engine_processes: set[tuple[str, int]] = set()
        self._said = SaidHellos()
        self._dropped, self._unknown, self._refused = Tally(), Tally(), Tally()
        #: messages of peers that cannot be handled: who has the key could fill the log with them
        self.nonsense = Tally()
        #: called when a peer's session has ended because of what it sent: the peer is forgotten already
        self.on_broken: Callable[[Peer], None] = lambda peer: None

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._known.values()))

    def role(self, role: str) -> list[Peer]:
        """All peers of a role."""
        return list(self._by_role[role].values())

    def engines_of(self, nanny: Peer) -> list[Peer]:
        """The engines that have named a nanny."""
        return list(self._by_nanny.get(nanny.uuid, {}).values())

    def closed(self) -> list[Peer]:
        """The peers that have closed their connections, and have not connected again."""
        return [self._known[address] for address in self._listener.closed() if address in self._known]

    def nanny_of(self, engine: Peer) -> Peer | None:
        """The nanny that an engine has named, if it is here. An engine may name any process: only a nanny counts."""
        nanny = self.by_uuid.get(engine.nanny)
        return nanny if nanny is not None and nanny.role == "nanny" else None

    def receive(self, address: bytes, header: bytes, now: float) -> tuple[Peer, Message] | Hello | None:
        """Decode a message: from a known peer, or the Hello of a new one; None: there is nothing to handle."""
        peer = self._known.get(address)
        try:
            if peer is None:
                return self._receive_unknown(address, header)
            peer.session.count_received(header, now)
            message = peer.decode(header)
            if type(message) is Submit and not peer.session.is_in_order(message.sent):
                return None  # something that came before it was lost: the client notices, and says both again
            if len(header) > MOST_ASKED and type(message) is Request:
                raise ProtocolError(f"a question of {len(header)} bytes")
            return message if type(message) is Hello else (peer, message)
        except ProtocolError as error:
            if peer is None:  # perhaps known to an earlier life of the controller: it will say Hello
                if self._unknown.count(now):
                    log.info("dropped a message of a peer without a Hello (%d so far): %s", self._unknown.total, error)
                return None
            self.forget(peer)
            self._refuse(address, error)
            self.on_broken(peer)
            if self._dropped.count(now):
                log.warning("dropped a message that makes no sense (%d so far): %s", self._dropped.total, error)
            return None

    def _receive_unknown(self, address: bytes, header: bytes) -> Hello | None:
        if len(header) > MOST_BEFORE_HELLO:
            raise ProtocolError(f"{len(header)} bytes in one message; before its Hello a peer may send less")
        message = frames.decode_from_unknown(header)
        if isinstance(message, Hello):
            return message
        # An earlier life of the controller knew the peer, or its Hello was lost: it says Hello again.
        self._listener.send(address, [frames.encode(answer_unknown(message))])
        return None

    def admit(self, address: bytes, hello: Hello, now: float) -> Peer | None:
        """Let a peer in, or refuse it and say why."""
        try:
            rights = check_hello(hello, self._keys)
            before = self._known.get(address)
            self._check_name(address, before, hello)
        except (AuthenticationError, ProtocolError) as error:
            if self._refused.count(now):
                total = self._refused.total
                log.warning("refused a %.20r of %.60r (%d peers so far): %s", hello.role, hello.host, total, error)
            self._refuse(address, error)
            return None
        peer = Peer(address, hello, rights, self._keys[rights], now)
        if before is None or hello.nonce not in before.said:
            self._said.add(hello.nonce)
        if before is not None:
            peer.said = (*before.said[1 - OWN_HELLOS :], hello.nonce)
            peer.functions, peer.promised, peer.engine = before.functions, before.promised, before.engine
            peer.clock = before.clock
            self._leave_family(before)
        self._known[address] = self.by_uuid[peer.uuid] = self._by_role[peer.role][address] = peer
        if peer.role == "engine":
            self._by_nanny.setdefault(peer.nanny, {})[peer.uuid] = peer
        self._listener.admit(address)
        return peer

    def _check_name(self, address: bytes, before: Peer | None, hello: Hello) -> None:
        is_own = before is not None and hello.nonce in before.said
        if not is_own and hello.nonce in self._said:
            raise AuthenticationError("another connection has said this Hello before")
        if before is not None and (before.uuid, before.role) != (hello.uuid, hello.role):
            raise ProtocolError("a connection keeps its uuid and its role")
        owner = self.by_uuid.get(hello.uuid)
        if owner is not None and owner is not before:
            raise ProtocolError("another connection has this uuid")

    def forget(self, peer: Peer) -> None:
        """The peer is gone."""
        if self._known.get(peer.address) is peer:
            del self._known[peer.address], self._by_role[peer.role][peer.address]
            self._leave_family(peer)
        if self.by_uuid.get(peer.uuid) is peer:
            del self.by_uuid[peer.uuid]
        if self.engines.get(peer.engine) is peer:
            del self.engines[peer.engine]
            self._engine_processes.discard((peer.host, peer.pid))

    def _leave_family(self, peer: Peer) -> None:
        family = self._by_nanny.get(peer.nanny, {})
        if family.pop(peer.uuid, None) is not None and not family:
            del self._by_nanny[peer.nanny]

    def seat(self, engine: Peer) -> None:
        """An engine has its number."""
        self.engines[engine.engine] = engine
        self._engine_processes.add((engine.host, engine.pid))

    def is_inside_engine(self, client: Peer) -> bool:
        """Whether a client is in the process of an engine: a task has made it, and may wait for its tasks."""
        return (client.host, client.pid) in self._engine_processes

    def send(self, peer: Peer, message: Message, buffers: Sequence[Any] = ()) -> bool:
        """Send to a peer. A message that is lost is made up for when the peer notices that it misses something."""
        header = frames.encode(message)
        peer.session.count_sent(header)
        try:
            return self._listener.send(peer.address, [header, *buffers])
        except Exception:  # as if it were lost on the way
            log.exception("a message to %s %s could not be sent", peer.role, peer.uuid)
            return False

    def welcome(self, peer: Peer, message: Welcome) -> None:
        """Greet a peer; both ends count messages from here."""
        self._listener.send(peer.address, [frames.encode(peer.session.welcome(message))])

    def pong(
        self,
        peer: Peer,
        message: Ping,
        *,
        at: float,
        unstored_limit: int = 0,
        no_room: str = "",
        ping_seconds: float = 0.0,
    ) -> None:
        """Answer a Ping, and say whether everything that the peer sent has come. `at`: the time of day."""
        answer = peer.session.answer(message)
        answer.unstored_limit, answer.no_room, answer.ahead = unstored_limit, no_room, peer.clock.ahead
        answer.ping_seconds = ping_seconds
        peer.clock.answers(answer.sent, at)
        self.send(peer, answer)

    def _refuse(self, address: bytes, error: AuthenticationError | ProtocolError) -> None:
        self._listener.send(address, [frames.encode(Refused(error.code, str(error)))])


def _keys(cluster_key: str) -> dict[Rights, bytes]:
    return {rights: key_with_rights(cluster_key, rights).encode() for rights in RIGHTS}
