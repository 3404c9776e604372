"""Messages between every kind of peer and the controller: greeting, liveness, farewell."""

import msgspec

from ..ids import EngineId
from .bounds import Checksum, Count, EngineNumber, Integer, Moment, Name, Seconds, SmallInteger
from .structs import AttemptKey, EngineInfo


class Message(msgspec.Struct, array_like=True, gc=False, tag=str.lower):
    """Base of all messages. What is sent inside a message derives from `structs.NestedStruct`."""


class Hello(Message):
    """The first message of a peer on every connection, and again after every reconnection."""

    version: SmallInteger
    role: Name  # "client", "engine" or "nanny"
    #: that the peer has the key: an HMAC of nonce, version, role and uuid. The key itself never travels
    proof: Name
    uuid: Name
    pid: SmallInteger
    host: Name
    #: version of the Python that unpickles: "3.11.7"
    python: Name = ""
    #: engines: the nanny that started it, the id it wants, and the attempts it has not answered yet
    nanny: Name = ""
    wish: EngineNumber = EngineId(-1)
    held: list[AttemptKey] = []
    #: engines: the indexes it owns of each named resource
    resources: dict[str, list[Count]] = {}
    #: counts the Hellos of this peer: Welcome, Ping and Pong name the one they belong to
    number: Count = 0
    #: random, never used twice: the Welcome proves with it that the controller has the key
    nonce: Name = ""
    #: nannies: how many bytes of large buffers they keep for their engines; engines: above 0 if they take such buffers
    lends: Count = 0
    #: engines: the number of the last message with results that need not be said again; -1: not told
    stored: Integer = -1


class Welcome(Message):
    """The controller has registered the peer."""

    #: names this run of the controller; another value after a reconnection means that it was restarted
    incarnation: str
    engines: list[EngineInfo] = []
    #: engines: the id this engine was given
    engine: EngineNumber = EngineId(-1)
    #: engines that a nanny is about to start
    starting: Count = 0
    #: the scheme that chooses engines, unless a task names another
    scheme: str = "leastload"
    #: whether results are recorded, and can be fetched again
    keeps: bool = True
    #: the number of the Hello that this answers
    hello: Count = 0
    #: engines: bytes of results that this engine may keep until they are stored; 0: as many as it likes
    unstored_limit: Count = 0
    #: that the controller has the key: an HMAC of the nonce in the Hello, `incarnation` and `hello`
    proof: str = ""
    #: clients: the same as in `Engines`
    returning: bool = False
    #: clients: the engines of before the restart that may come back, as far as the controller knows which there were
    awaited: list[EngineInfo] = []
    #: clients: whether a question may be taken back (`Withdraw`)
    takes_withdrawals: bool = False
    #: nannies across TCP: the key of all relays (`transport.tcp.relay`) of the cluster; "": there are to be none
    relay_key: str = ""
    #: clients: whether tasks that run at most once may be said again after a restart (`Submit.former`)
    takes_former: bool = False


class Refused(Message):
    """The controller does not accept this peer."""

    code: str  # an errors.EngineroomError.code
    reason: str


class Ping(Message):
    """A sign of life. `sent` counts the messages sent since Hello, Hello and this one included."""

    sent: Count
    #: the number of the peer's last Hello
    hello: Count = 0
    #: of the messages sent since Hello, in order, this one not included
    checksum: Checksum = 0
    #: the time of day at the peer; 0: it does not say
    at: Moment = 0.0
    #: engines: another process should take the place of this one, whose memory has grown
    renew: bool = False
    #: the `sent` of the last Pong that has come since Hello; 0: none has
    answered: Count = 0
    #: seconds from its arrival to this Ping
    since: Seconds = 0.0


class Pong(Message):
    """The answer to Ping.

    `sent` counts the messages sent to the peer since Welcome, this one included: a peer that counts otherwise has
    missed some. `known` is False when the controller has no Hello from the peer, or has missed messages of it.
    Either way the peer says Hello again, and both ends reconcile.
    """

    sent: Count
    known: bool = True
    #: the same as in the Ping
    hello: Count = 0
    #: of the messages sent since Welcome, in order, this one not included
    checksum: Checksum = 0
    #: how many messages of the peer have come since its Hello
    heard: Count = 0
    #: engines: the same as in the Welcome, with the engines that there are now
    unstored_limit: Count = 0
    #: clients: why tasks have to wait at present before the controller takes them in: "database" (it is behind),
    #: "memory" (the tasks that have not ended take all that they may); "": they need not wait
    no_room: Name = ""
    #: clients: seconds that the peer's clock is ahead of the controller's, if it is wrong
    ahead: Seconds = 0.0
    #: engines: seconds between two signs of life that the controller asks for; 0: it asks for nothing
    ping_seconds: Seconds = 0.0


class Goodbye(Message):
    """The peer leaves in good order. Tasks that it has not finished may be given to others."""

    reason: str = ""
    #: of a controller: so many records could not be written
    unwritten: Count = 0
