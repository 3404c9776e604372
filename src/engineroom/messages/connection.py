"""What every peer and the controller say to each other: who they are, that they are there, that they leave."""

import msgspec

from ..ids import EngineId
from .structs import EngineInfo, Held


class Message(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of everything that is sent by itself."""


class Hello(Message):
    """First words on every connection, and again after every reconnection."""

    version: int
    role: str  # "client", "engine" or "nanny"
    key: str
    uuid: str
    pid: int
    host: str
    #: the Python that unpickles: "3.11.7"
    python: str = ""
    #: engines: the nanny that started it, the id it would like to keep, and the tasks it still holds
    nanny: str = ""
    wish: EngineId = EngineId(-1)
    held: list[Held] = []
    #: engines: the indices it has of each named resource
    resources: dict[str, list[int]] = {}
    #: counts the Hellos of this peer: Welcome, Ping and Pong name the one they belong to
    number: int = 0


class Welcome(Message):
    """The peer is known now."""

    #: names this life of the controller; another value after a reconnection means it was restarted
    incarnation: str
    engines: list[EngineInfo] = []
    engine: EngineId = EngineId(-1)  # engines: your id
    #: engines that a nanny is about to start
    starting: int = 0
    #: who chooses engines, unless a task says otherwise
    scheme: str = "leastload"
    #: whether results are recorded, and can be had again
    keeps: bool = True
    #: the number of the Hello that this answers
    hello: int = 0


class Refused(Message):
    """The controller will not talk to this peer, and says why."""

    code: str  # an errors.EngineroomError.code
    reason: str


class Ping(Message):
    """A sign of life. `sent` counts the messages sent since Hello, Hello and this one included."""

    sent: int
    #: the number of the peer's last Hello
    hello: int = 0
    #: of the messages sent since Hello, in order, this one not included
    checksum: int = 0


class Pong(Message):
    """The answer to Ping.

    `sent` counts the messages sent to the peer since Welcome, this one included: a peer that counts otherwise has
    missed some. `known` is False when the controller has no Hello from the peer, or has missed messages of it.
    Either way the peer says Hello again, and both ends reconcile.
    """

    sent: int
    known: bool = True
    #: the same as in the Ping
    hello: int = 0
    #: of the messages sent since Welcome, in order, this one not included
    checksum: int = 0
    #: how many messages of the peer have come since its Hello
    heard: int = 0


class Goodbye(Message):
    """A clean end: what this peer held may be given to others."""

    reason: str = ""
