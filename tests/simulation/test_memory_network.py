"""The network in memory, and the real controller on it, with pretended peers."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from engineroom import _version
from engineroom.controller.loop import Controller
from engineroom.ids import EngineId, EngineUuid, digest_of
from engineroom.messages import (
    Accepted,
    AttemptKey,
    Function,
    Goodbye,
    Hello,
    Message,
    Results,
    Run,
    Stored,
    Submit,
    TaskSpec,
)
from engineroom.stores import NoDB
from engineroom.testing import FakeEngine, MemoryLink, MemoryNetwork, VirtualClock
from engineroom.wire import frames
from engineroom.wire.session import prove


def test_a_clock_makes_the_calls_that_come_due_in_order():
    clock, calls = VirtualClock(), []
    clock.later(2.0, lambda: calls.append("later"))
    clock.at(1.0, lambda: (calls.append("first"), clock.later(0.5, lambda: calls.append("between"))))
    clock.at(1.0, lambda: calls.append("second"))
    clock.advance(1.5)
    assert (calls, clock()) == (["first", "second", "between"], 1.5)
    assert clock.step()
    assert (calls[-1], clock()) == ("later", 2.0)
    assert not clock.step()


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    network = MemoryNetwork()
    yield network
    network.listener.close()
    for link in network.links.values():
        link.close()


def readable(end: object) -> bool:
    return bool(select.select([end], [], [], 0)[0])


def test_what_is_sent_arrives_in_order_and_can_be_polled_for(network: MemoryNetwork):
    link, listener = network.link(b"a"), network.listener
    assert not readable(listener)
    link.send([b"1"])
    link.send([b"2", b"buffer"])
    assert readable(listener)
    assert listener.receive(1) == [(b"a", [b"1"])]
    assert readable(listener), "there is more"
    assert listener.receive() == [(b"a", [b"2", b"buffer"])]
    assert not readable(listener)
    assert listener.send(b"a", [b"3"])
    assert readable(link)
    assert link.receive() == [[b"3"]]
    assert not listener.send(b"nobody", [b"4"])


@pytest.mark.fault(22)
def test_a_cut_link_loses_what_comes_and_keeps_what_goes(network: MemoryNetwork):
    link, listener = network.link(b"a"), network.listener
    listener.send(b"a", [b"on its way"])
    network.cut(b"a")
    assert not listener.send(b"a", [b"lost"])
    link.send([b"waits"])
    assert listener.receive() == []
    network.mend(b"a")
    assert listener.receive() == [(b"a", [b"waits"])]
    assert link.receive() == []


def hear(link: MemoryLink, kind: type[Message]) -> Message:
    """The next message of a kind."""
    decode = frames.decode_to_engine if kind in (Run, Stored) else frames.decode_to_client
    while arrived := link.receive(1, timeout=20):
        message = decode(arrived[0][0])
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind.__name__} came")


def test_a_controller_serves_pretended_peers(network: MemoryNetwork):
    controller = Controller(network.listener, NoDB(), "key")
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        client, link = network.link(b"client"), network.link(b"engine")
        for end, role in ((client, "client"), (link, "engine")):
            hello = Hello(_version.PROTOCOL_VERSION, role, "", f"my-{role}", 0, "elsewhere")
            end.send([frames.encode(prove(hello, b"key"))])
        function = Function(digest_of(b"pickled"), b"pickled")
        client.send([frames.encode(Submit(1, [TaskSpec("t", function.digest, b"", 0.0)], [function]))])
        assert isinstance(hear(client, Accepted), Accepted)
        run = hear(link, Run)
        engine = FakeEngine(EngineId(0), EngineUuid("my-engine"))
        engine.receive([AttemptKey(spec.id, n) for spec, n in zip(run.tasks, run.attempts, strict=True)])
        engine.begin()
        number = engine.hand_in([engine.finish(0.0, 1.0)])
        link.send([frames.encode(Results(engine.unstored[number], number))])
        assert [done.id for done in hear(client, Results).tasks] == ["t"]
        engine.stored(hear(link, Stored).number)
        assert engine.held == []
        link.send([frames.encode(Goodbye())])
    finally:
        controller.stop()
        thread.join(20)
    assert not thread.is_alive()
