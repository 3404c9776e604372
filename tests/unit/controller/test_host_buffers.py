"""Which large buffers go to a nanny, and which to the engine itself."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.controller.supplies import host_buffers as module
from engineroom.controller.supplies.host_buffers import HostBuffers
from engineroom.messages import (
    BufferNotFetched,
    DropBuffers,
    FetchBuffer,
    KeepBuffers,
    Message,
    RelayOpened,
    Run,
    buffer_ticket,
)
from engineroom.transport.base import HOST_FRAME_FROM, OF_AN_ENGINE, HostFrame

LARGE = HOST_FRAME_FROM
ROOM = 3 * LARGE
#: the numbers of engines' own buffers begin here
OWN = OF_AN_ENGINE


class Process:
    """An engine or a nanny, as the controller knows it."""

    def __init__(self, uuid: str, nanny: str = "", lends: int = 1) -> None:
        self.uuid, self.nanny, self.lends = uuid, nanny, lends
        self.host = ""


class Connected:
    """Two nannies with their engines, and what was sent to each."""

    def __init__(self) -> None:
        self.by_uuid = {"n": Process("n", lends=ROOM), "m": Process("m", lends=ROOM)}
        self.engines = {uuid: Process(uuid, uuid[0]) for uuid in ("n1", "n2", "m1")}
        self.sent: dict[str, list[tuple[Message, list[Any]]]] = {}
        self.is_full = False

    def nanny_of(self, engine: Process) -> Process | None:
        return self.by_uuid.get(engine.nanny)

    def send(self, peer: Process, message: Message, frames: Any = ()) -> bool:
        if self.is_full and peer.uuid in self.by_uuid:
            return False
        self.sent.setdefault(peer.uuid, []).append((message, list(frames)))
        return True

    def numbers(self, nanny: str) -> list[tuple[type[Message], list[int]]]:
        """What a nanny was told."""
        return [(type(message), message.numbers) for message, _ in self.sent.get(nanny, [])]


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def peers() -> Connected:
    return Connected()


@pytest.fixture
def buffers(peers: Connected, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> HostBuffers:
    monkeypatch.setattr(module.time, "time_ns", lambda: 0)
    return HostBuffers(peers, lambda: clock[0])  # type: ignore[arg-type]


def send(buffers: HostBuffers, peers: Connected, engine: str, *frames: bytes) -> list[Any]:
    """Send frames to an engine; returns what it got in their place."""
    buffers.send(peers.engines[engine], Run([], []), frames)  # type: ignore[arg-type]
    return peers.sent[engine][-1][1]


def test_a_large_buffer_goes_to_each_host_once(buffers: HostBuffers, peers: Connected):
    large, small = bytes(LARGE), b"small"
    for engine in ("n1", "n2", "n1"):
        assert send(buffers, peers, engine, small, large) == [small, HostFrame(1, LARGE)]
    assert send(buffers, peers, "m1", large) == [HostFrame(2, LARGE)]
    assert peers.numbers("n") == [(KeepBuffers, [1])]
    assert peers.sent["n"][0][1] == [large]
    assert peers.numbers("m") == [(KeepBuffers, [2])]


def test_there_is_room_for_so_much_and_the_oldest_makes_room(buffers: HostBuffers, peers: Connected):
    one, two, three, four = (bytes(LARGE) for _ in range(4))
    for large in (one, two, three, one, four):
        send(buffers, peers, "n1", large)
    assert peers.numbers("n") == [
        (KeepBuffers, [1]), (KeepBuffers, [2]), (KeepBuffers, [3]), (DropBuffers, [2]), (KeepBuffers, [4]),
    ]  # fmt: skip
    assert send(buffers, peers, "n2", bytes(ROOM + 1))[0] == bytes(ROOM + 1), "it goes to the engine itself"


def test_what_was_not_used_for_some_seconds_is_dropped(buffers: HostBuffers, peers: Connected, clock: list[float]):
    one, two = bytes(LARGE), bytes(LARGE)
    send(buffers, peers, "n1", one, two)
    clock[0] = module.KEPT_SECONDS
    send(buffers, peers, "n1", two)
    clock[0] += 1
    buffers.sweep()
    assert peers.numbers("n")[2:] == [(DropBuffers, [1])]
    assert send(buffers, peers, "n1", one, two) == [HostFrame(3, LARGE), HostFrame(2, LARGE)]


def test_of_many_bytes_those_that_are_not_used_any_more_are_dropped_earlier(
    buffers: HostBuffers, peers: Connected, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MANY", LARGE - 1)
    one, two = bytes(LARGE), bytes(LARGE)
    send(buffers, peers, "n1", one)
    clock[0] = module.MANY_KEPT_SECONDS + 1
    buffers.sweep()
    send(buffers, peers, "n1", one, two)
    assert peers.numbers("n") == [(KeepBuffers, [1]), (KeepBuffers, [2])], "a single one stays, however large it is"
    clock[0] *= 2
    send(buffers, peers, "n1", two, bytes(LARGE))
    assert peers.numbers("n")[2:] == [(DropBuffers, [1]), (KeepBuffers, [3])], "also between two sweeps"


def test_after_its_next_hello_a_nanny_has_nothing(buffers: HostBuffers, peers: Connected):
    large = bytes(LARGE)
    send(buffers, peers, "n1", large)
    peers.by_uuid["n"] = Process("n", lends=ROOM)
    buffers.sweep()
    assert send(buffers, peers, "n1", large) == [HostFrame(2, LARGE)]
    assert peers.numbers("n") == [(KeepBuffers, [1]), (KeepBuffers, [2])]


@pytest.mark.parametrize("why", ["the engine takes none", "the nanny lends none", "no nanny", "the nanny is congested"])
def test_otherwise_the_engine_gets_it_itself(buffers: HostBuffers, peers: Connected, why: str):
    if why == "the engine takes none":
        peers.engines["n1"].lends = 0
    elif why == "the nanny lends none":
        peers.by_uuid["n"].lends = 0
    elif why == "no nanny":
        del peers.by_uuid["n"]
    else:
        peers.is_full = True
    assert send(buffers, peers, "n1", bytes(LARGE)) == [bytes(LARGE)]
    peers.is_full = False
    assert "n" not in peers.sent


def test_what_is_kept_is_not_confused_with_a_new_buffer_at_the_same_place(buffers: HostBuffers, peers: Connected):
    """A buffer that a nanny has lives here, too: nothing else can have its id."""
    for number in range(20):
        large = number.to_bytes(1, "little") * LARGE
        send(buffers, peers, "n1", large)
        kept = [frames[0] for message, frames in peers.sent["n"] if isinstance(message, KeepBuffers)]
        assert kept[-1] == large
        peers.sent["n"] = list(peers.sent["n"][-1:])


def test_a_result_that_tasks_take_is_not_sent_back_to_its_host(buffers: HostBuffers, peers: Connected):
    result, unused, other = bytes(LARGE), bytes(LARGE), bytes(LARGE)
    buffers.lent(peers.engines["n1"], [OWN + 1, OWN + 2, 3], [result, unused, other])  # type: ignore[arg-type]
    buffers.keep([result, other])
    buffers.drop_lent()
    assert peers.numbers("n") == [(KeepBuffers, [OWN + 1]), (DropBuffers, [OWN + 2])]
    assert [frames for _, frames in peers.sent["n"]] == [[], []]
    assert send(buffers, peers, "n2", result) == [HostFrame(OWN + 1, LARGE)]
    assert send(buffers, peers, "m1", result) == [HostFrame(1, LARGE)], "to another host it goes once"
    assert send(buffers, peers, "n2", unused) == [HostFrame(2, LARGE)]


def test_a_kept_result_takes_room_like_others(buffers: HostBuffers, peers: Connected, clock: list[float]):
    results = [bytes(LARGE) for _ in range(4)]
    buffers.lent(peers.engines["n1"], [OWN + 1, OWN + 2, OWN + 3, OWN + 4], results)  # type: ignore[arg-type]
    buffers.keep(results)
    buffers.drop_lent()
    assert peers.numbers("n")[-2:] == [(DropBuffers, [OWN + 1]), (KeepBuffers, [OWN + 4])]
    clock[0] = module.KEPT_SECONDS + 1
    buffers.sweep()
    assert peers.numbers("n")[-1] == (DropBuffers, [OWN + 2, OWN + 3, OWN + 4])


def test_a_nanny_that_cannot_be_told_keeps_nothing(buffers: HostBuffers, peers: Connected):
    result = bytes(LARGE)
    buffers.lent(peers.engines["n1"], [OWN + 1], [result])  # type: ignore[arg-type]
    peers.is_full = True
    buffers.keep([result])
    buffers.drop_lent()
    assert send(buffers, peers, "n2", result) == [result]


def test_what_is_too_large_for_a_nanny_is_not_kept(buffers: HostBuffers, peers: Connected):
    result = bytes(ROOM + 1)
    buffers.lent(peers.engines["n1"], [OWN + 1], [result])  # type: ignore[arg-type]
    buffers.keep([result])
    buffers.drop_lent()
    assert peers.numbers("n") == [(DropBuffers, [OWN + 1])]


# -------------------------------------------------------------------------------------------- from host to host


def relay(buffers: HostBuffers, peers: Connected, *names: str, url: str = "tcp://10.0.0.1:5000") -> None:
    """Nannies, each with one engine, pass buffers on."""
    for name in names:
        nanny = peers.by_uuid.setdefault(name, Process(name, lends=ROOM))
        nanny.host = f"host-{name}"
        peers.engines[f"{name}1"] = Process(f"{name}1", name)
        buffers.on_relay_opened(nanny, RelayOpened([url], f"certificate of {name}", name.encode()), [])  # type: ignore[arg-type]


def sources(peers: Connected, *names: str) -> list[str]:
    """Where each nanny has its last buffer from: another nanny, or "" for us."""
    last = [peers.sent[name][-1][0] for name in names]
    return [each.certificate[-1] if isinstance(each, FetchBuffer) else "" for each in last]


@pytest.fixture
def small_relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAYED_FROM", LARGE)


@pytest.mark.usefixtures("small_relayed")
def test_a_buffer_leaves_the_controller_once_and_each_host_passes_it_on_to_two(buffers: HostBuffers, peers: Connected):
    relay(buffers, peers, *"abcdefg")
    large = bytes(LARGE)
    frames = [send(buffers, peers, f"{name}1", large) for name in "abcdefg"]
    assert frames == [[HostFrame(number, LARGE)] for number in range(1, 8)]
    assert sources(peers, *"abcdefg") == ["", "a", "a", "b", "b", "c", "c"]
    asked, content = peers.sent["d"][0]
    assert asked == FetchBuffer(4, LARGE, 2, buffer_ticket(b"b", 2), ["tcp://10.0.0.1:5000"], "certificate of b")
    assert not content


@pytest.mark.usefixtures("small_relayed")
def test_who_has_dropped_a_buffer_or_has_gone_passes_nothing_on(
    buffers: HostBuffers, peers: Connected, clock: list[float]
):
    relay(buffers, peers, *"abc")
    large = bytes(LARGE)
    send(buffers, peers, "a1", large)
    clock[0] = module.KEPT_SECONDS + 1
    buffers.sweep()
    send(buffers, peers, "b1", large)
    assert sources(peers, "b") == [""]
    peers.by_uuid["b"] = Process("b", lends=ROOM)
    send(buffers, peers, "c1", large)
    assert sources(peers, "c") == [""], "before the next sweep, too"
    buffers.sweep()
    send(buffers, peers, "a1", large)
    assert sources(peers, "a") == ["c"]


@pytest.mark.parametrize("why", ["small", "no relay there", "no relay here", "a loopback address of another host"])
def test_otherwise_it_comes_from_the_controller(
    buffers: HostBuffers, peers: Connected, monkeypatch: pytest.MonkeyPatch, why: str
):
    monkeypatch.setattr(module, "RELAYED_FROM", LARGE + (why == "small"))
    relay(buffers, peers, *"ab"[why == "no relay there" :][: 1 + (why != "no relay here")])
    peers.engines.setdefault("a1", Process("a1", "a"))
    if why == "a loopback address of another host":
        relay(buffers, peers, *"ab", url="tcp://127.0.0.1:5000")
    first, second = {"no relay there": ("n1", "b1"), "no relay here": ("a1", "n1")}.get(why, ("a1", "b1"))
    large = bytes(LARGE)
    send(buffers, peers, first, large)
    send(buffers, peers, second, large)
    assert sources(peers, second[0]) == [""]


@pytest.mark.usefixtures("small_relayed")
def test_on_one_host_a_loopback_address_will_do(buffers: HostBuffers, peers: Connected):
    relay(buffers, peers, *"ab", url="tcp://127.0.0.1:5000")
    peers.by_uuid["b"].host = peers.by_uuid["a"].host
    large = bytes(LARGE)
    send(buffers, peers, "a1", large)
    send(buffers, peers, "b1", large)
    assert sources(peers, "b") == ["a"]


@pytest.mark.usefixtures("small_relayed")
def test_what_could_not_be_fetched_the_controller_sends(buffers: HostBuffers, peers: Connected, clock: list[float]):
    relay(buffers, peers, *"ab")
    one, two = bytes(LARGE), bytes(LARGE)
    for large in (one, two):
        send(buffers, peers, "a1", large)
        send(buffers, peers, "b1", large)
    nanny: Any = peers.by_uuid["b"]
    buffers.on_not_fetched(nanny, BufferNotFetched(4, unreachable=False), [])
    assert peers.sent["b"][-1] == (KeepBuffers([4]), [two])
    buffers.on_not_fetched(nanny, BufferNotFetched(2, unreachable=True), [])
    assert peers.sent["b"][-1] == (KeepBuffers([2]), [one])
    buffers.on_not_fetched(nanny, BufferNotFetched(77), [])
    assert peers.sent["b"][-1] == (DropBuffers([77]), []), "whoever waits for it hears that it does not come"

    three = bytes(LARGE)
    send(buffers, peers, "a1", three)
    send(buffers, peers, "b1", three)
    assert sources(peers, "b") == [""], "it could not connect"
    clock[0] = module.UNREACHABLE_SECONDS + 1
    buffers.sweep()
    send(buffers, peers, "a1", one)
    send(buffers, peers, "b1", one)
    assert sources(peers, "b") == ["a"]


@pytest.mark.usefixtures("small_relayed")
def test_who_cannot_be_reached_and_who_reaches_nobody(buffers: HostBuffers, peers: Connected):
    def fails(name: str) -> None:
        nanny: Any = peers.by_uuid[name]
        fetched = peers.sent[name][-1][0]
        assert isinstance(fetched, FetchBuffer)
        buffers.on_not_fetched(nanny, BufferNotFetched(fetched.number, unreachable=True), [])

    def push(*names: str) -> list[str]:
        large = bytes(LARGE)
        for name in names:
            send(buffers, peers, f"{name}1", large)
        return sources(peers, *names)

    relay(buffers, peers, *"abcdef")
    assert push(*"ab") == ["", "a"]
    fails("b")
    assert push(*"acb") == ["", "a", "c"], "b tries another"
    fails("b")
    assert push(*"cadb") == ["", "c", "c", ""], "b has failed with two"
    assert push(*"ae") == ["", "a"]
    fails("e")
    assert push(*"adf") == ["", "", "d"], "two have failed with a"
