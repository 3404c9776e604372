"""The large buffers of a nanny: for its engines, and for other hosts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from conftest import wait_until

from engineroom.engine.host.buffers import NannyBuffers
from engineroom.messages import (
    BufferNotFetched,
    DropBuffers,
    FetchBuffer,
    KeepBuffers,
    Message,
    RelayOpened,
    buffer_ticket,
)
from engineroom.transport.base import HostFrame
from engineroom.transport.lending import Borrower, Lender, new_name
from engineroom.transport.tcp.link import TcpLink
from engineroom.wire import frames

SIZE = 3 << 20
CONTENT = os.urandom(SIZE)
KEY = "the key of all relays"


class Link:
    """The nanny's link: a message may be coming through it."""

    own_address = "127.0.0.1"

    def __init__(self) -> None:
        self.coming: tuple[list[Any], int] = ([], 0)

    def arriving(self) -> tuple[list[Any], int]:
        return self.coming


class Nanny:
    """The buffers of one nanny, and one of its engines."""

    def __init__(self, key: str = KEY) -> None:
        name = new_name()
        self.link, self.said = Link(), list[Message]()
        self.buffers = NannyBuffers(Lender(name), cast(TcpLink, self.link), self.said.append)
        self.buffers.welcome(key)
        self.engine = Borrower(name)

    @property
    def relay(self) -> RelayOpened:
        [opened] = [message for message in self.said if isinstance(message, RelayOpened)]
        return opened

    def fetch(self, number: int, other: Nanny, theirs: int, size: int = SIZE) -> None:
        relay = other.relay
        ticket = buffer_ticket(relay.secret, theirs)
        self.buffers.on_fetch(FetchBuffer(number, size, theirs, ticket, relay.urls, relay.certificate), ())

    def asks(self, number: int) -> None:
        self.engine.ask([HostFrame(number, SIZE)])

    def got(self, number: int) -> bytes | None:
        """What the engine has got: a buffer, or the news that it is not to be had."""
        buffer = self.engine.take(HostFrame(number, SIZE))
        return None if buffer is None else bytes(buffer)

    def has_answer(self, number: int) -> bool:
        self.engine.hear(0.0)
        return self.engine.has_answers([HostFrame(number, SIZE)])

    def close(self) -> None:
        self.engine.forget()
        self.buffers.close()


@pytest.fixture
def nannies() -> Iterator[Callable[..., Nanny]]:
    made: list[Nanny] = []

    def make(*arguments: Any) -> Nanny:
        made.append(Nanny(*arguments))
        return made[-1]

    yield make
    for nanny in made:
        nanny.close()


def until(condition: Callable[[], Any], *nannies: Nanny) -> None:
    def holds() -> Any:
        for nanny in nannies:
            nanny.buffers.serve()
        return condition()

    wait_until(holds)


def test_an_engine_gets_what_its_nanny_has_from_another_host(nannies: Callable[..., Nanny]):
    first, second = nannies(), nannies()
    first.buffers.on_keep(KeepBuffers([5]), [CONTENT])
    second.asks(9)  # before the nanny knows
    second.buffers.serve()
    second.fetch(9, first, 5)
    second.buffers.on_keep(KeepBuffers([10]), [CONTENT])  # a later one comes earlier
    until(lambda: second.has_answer(9), first, second)
    assert second.got(9) == CONTENT


def test_what_is_still_coming_from_the_controller_is_passed_on(nannies: Callable[..., Nanny]):
    first, second = nannies(), nannies()
    header = frames.encode(KeepBuffers([4, 5]))
    first.link.coming = [header, b"another", memoryview(CONTENT)], SIZE // 2
    second.fetch(9, first, 5)
    second.asks(9)

    def come() -> int:
        part = second.buffers._find(9)
        return 0 if part is None else part.filled

    until(lambda: come() > SIZE // 4, first, second)
    assert not second.has_answer(9)
    first.link.coming = [], 0
    first.buffers.on_keep(KeepBuffers([4, 5]), [bytes(SIZE), CONTENT])
    until(lambda: second.has_answer(9), first, second)
    assert second.got(9) == CONTENT


@pytest.mark.parametrize("coming", [[b"nonsense", b"x"], [frames.encode(DropBuffers([5])), b"x"]])
def test_another_message_that_is_coming_is_none_of_ours(nannies: Callable[..., Nanny], coming: list[bytes]):
    first = nannies()
    first.link.coming = coming, 1
    assert first.buffers._arriving(5) is None


def test_what_cannot_be_fetched_comes_from_the_controller(nannies: Callable[..., Nanny]):
    first, second = nannies(), nannies()
    first.buffers.on_keep(KeepBuffers([5]), [CONTENT])
    second.fetch(9, first, 3)
    second.asks(9)
    until(lambda: BufferNotFetched(9) in second.said, first, second)
    assert not second.has_answer(9), "it waits"
    second.buffers.on_keep(KeepBuffers([9]), [CONTENT])
    until(lambda: second.has_answer(9), second)
    assert second.got(9) == CONTENT


def test_nor_does_the_controller_have_it(nannies: Callable[..., Nanny]):
    first, second = nannies(), nannies()
    first.buffers.on_keep(KeepBuffers([5]), [CONTENT])
    second.fetch(9, first, 3)
    second.asks(9)
    until(lambda: BufferNotFetched(9) in second.said, first, second)
    second.buffers.on_drop(DropBuffers([9]), ())
    until(lambda: second.has_answer(9), second)
    assert second.got(9) is None


def test_what_is_dropped_while_it_is_fetched_is_still_given_to_who_has_asked(nannies: Callable[..., Nanny]):
    first, second, third = nannies(), nannies(), nannies()
    first.buffers.on_keep(KeepBuffers([5]), [CONTENT])
    second.fetch(9, first, 5)
    second.asks(9)
    third.fetch(7, second, 9)
    third.asks(7)
    second.buffers.serve()
    second.buffers.on_drop(DropBuffers([9]), ())
    until(lambda: second.has_answer(9) and third.has_answer(7), first, second, third)
    assert second.got(9) == third.got(7) == CONTENT
    second.asks(9)
    until(lambda: second.has_answer(9), second)
    assert second.got(9) is None


def test_a_new_session_begins_with_nothing(nannies: Callable[..., Nanny]):
    first, second = nannies(), nannies()
    first.buffers.on_keep(KeepBuffers([5]), [CONTENT])
    second.fetch(9, first, 5)
    second.asks(9)
    second.buffers.serve()
    urls = second.relay.urls
    second.said.clear()
    second.buffers.welcome("another key")
    assert second.relay.urls != urls
    until(lambda: second.has_answer(9), first, second)
    assert second.got(9) is None
    second.said.clear()
    second.buffers.welcome("")
    assert not second.said, "no relay is wanted"
    second.fetch(11, first, 5)
    assert second.said == [BufferNotFetched(11)]


def test_a_port_that_cannot_be_had_is_no_failure(
    nannies: Callable[..., Nanny], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    nanny = nannies("")
    monkeypatch.setattr(nanny.link, "own_address", "203.0.113.1")
    nanny.buffers.welcome(KEY)
    assert not nanny.said
    assert "passes no large buffers on" in caplog.text
