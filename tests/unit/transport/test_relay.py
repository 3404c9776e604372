"""Buffers that one host passes on to others, piece by piece."""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import wait_until

from engineroom.messages import buffer_ticket
from engineroom.shared_memory.buffer import SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.transport.tcp import relay
from engineroom.transport.tcp.relay import PIECE, Outcome, Part, RelayDoor, RelayFetches, Source

KEY = "the key of all relays"
SIZE = 3 * PIECE + 1000
CONTENT = os.urandom(SIZE)
NUMBER = 7


class Host:
    """One host: what it has, and what it fetches."""

    def __init__(self, key: str = KEY) -> None:
        self.parts: dict[int, Part | None] = {}
        self.pool = Pool()
        self.door, self.fetches = RelayDoor("127.0.0.1", key), RelayFetches(key, self.pool)
        self.ended: list[Outcome] = []

    def source(self, number: int = NUMBER) -> Source:
        return Source(self.door.urls, self.door.certificate, number, buffer_ticket(self.door.secret, number))

    def look(self) -> None:
        for ended in self.fetches.advance():
            self.ended.append(ended)
            if ended.buffer is not None:
                self.parts[ended.number] = Part(ended.buffer, len(ended.buffer))
        self.door.serve(lambda number: self.fetches.part(number) or self.parts.get(number))

    def close(self) -> None:
        self.door.close()
        self.fetches.close()
        self.pool.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def one(*arguments: Any) -> Host:
        made.append(Host(*arguments))
        return made[-1]

    yield one
    for host in made:
        host.close()


def until(condition: Callable[[], Any], *hosts: Host) -> None:
    """Let hosts do what they can until something is so."""

    def holds() -> Any:
        for host in hosts:
            host.look()
        return condition()

    wait_until(holds)


def test_a_buffer_goes_from_host_to_host(make: Callable[..., Host]):
    first, second, third = make(), make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    assert second.fetches.begin(1, SIZE, first.source())
    assert third.fetches.begin(5, SIZE, second.source(1))
    until(lambda: second.ended and third.ended, first, second, third)
    assert [(each.number, bytes(each.buffer)) for each in second.ended + third.ended] == [(1, CONTENT), (5, CONTENT)]
    assert all(isinstance(each.buffer, SharedBuffer) for each in second.ended + third.ended)


def test_pieces_are_passed_on_while_the_rest_is_coming(make: Callable[..., Host]):
    first, second, third = make(), make(), make()
    first.parts[NUMBER] = Part(CONTENT, 2 * PIECE + 1)
    second.fetches.begin(1, SIZE, first.source())
    third.fetches.begin(1, SIZE, second.source(1))

    def come(host: Host) -> int:
        part = host.fetches.part(1)
        return part.filled if part is not None else 0

    until(lambda: come(third) == 2 * PIECE, first, second, third)
    assert come(second) == 2 * PIECE
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    until(lambda: third.ended, first, second, third)
    assert bytes(third.ended[0].buffer) == CONTENT


def test_who_asks_early_waits(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(b"", 0)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: first.door._waiting, first, second)
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    until(lambda: second.ended, first, second)
    assert bytes(second.ended[0].buffer) == CONTENT


@pytest.mark.parametrize("why", ["it is not there", "it is gone in the middle", "a wrong ticket", "it is shorter"])
def test_what_is_not_to_be_had(make: Callable[..., Host], why: str):
    first, second = make(), make()
    source, size = first.source(), SIZE
    if why == "it is gone in the middle":
        first.parts[NUMBER] = Part(CONTENT, PIECE)
    elif why == "it is shorter":
        first.parts[NUMBER], size = Part(CONTENT, SIZE), SIZE + PIECE
    elif why == "a wrong ticket":
        first.parts[NUMBER] = Part(CONTENT, SIZE)
        source = source._replace(ticket=secrets.token_bytes(16))
    second.fetches.begin(1, size, source)
    if why == "it is gone in the middle":
        until(lambda: second.fetches.part(1) == (second.fetches.part(1).memory, PIECE), first, second)  # type: ignore[union-attr]
        first.parts[NUMBER] = None
    until(lambda: second.ended, first, second)
    assert second.ended == [Outcome(1)]
    assert second.fetches.part(1) is None


def test_what_is_fetched_stays_for_those_who_have_begun(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "AHEAD", 1)
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: first.door._whole, first, second)
    first.parts[NUMBER] = None
    until(lambda: second.ended, first, second)
    assert bytes(second.ended[0].buffer) == CONTENT


def test_it_does_not_stay_when_all_have_got_it(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: second.ended, first, second)
    assert not first.door._whole


def test_it_does_not_stay_for_who_asks_no_more(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "AHEAD", 1)
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: second.fetches.part(1).filled, first, second)  # type: ignore[union-attr]
    assert first.door._whole
    monkeypatch.setattr(relay, "SERVED_SECONDS", 0.0)
    until(lambda: not first.door._whole, first)


def test_a_relay_that_is_gone(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "REACH_SECONDS", 0.1)
    first, second = make(), make()
    source = first.source()
    first.door.close()
    second.fetches.begin(1, SIZE, source)
    until(lambda: second.ended, second)
    assert second.ended == [Outcome(1, unreachable=True)]


def test_a_relay_that_has_never_answered_was_not_reached(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "REACH_SECONDS", 0.1)
    first, second = make(), make()
    first.parts[NUMBER] = Part(b"", 0)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: first.door._waiting, first, second)
    first.door.close()
    until(lambda: second.ended, second)
    assert second.ended == [Outcome(1, unreachable=True)]


def test_what_was_lost_before_the_first_answer_is_asked_for_again(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(b"", 0)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: first.door._waiting, first, second)
    ((link, _),) = second.fetches._links.values()
    link._lose()
    first.door._waiting.clear()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    until(lambda: second.ended, first, second)
    assert bytes(second.ended[0].buffer) == CONTENT


def test_a_relay_that_dies_in_the_middle(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, PIECE)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: second.fetches.part(1).filled == PIECE, first, second)  # type: ignore[union-attr]
    first.door.close()
    until(lambda: second.ended, second)
    assert second.ended == [Outcome(1)]


def test_a_relay_that_does_nothing_is_given_up(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "PATIENCE_SECONDS", 0.5)
    first, second = make(), make()
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: second.ended, second)
    assert second.ended == [Outcome(1)]


@pytest.mark.parametrize("wrong", ["key", "certificate"])
def test_both_ends_must_be_those_that_the_controller_has_named(
    make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch, wrong: str
):
    monkeypatch.setattr(relay, "REACH_SECONDS", 0.5)
    first, second = make(), make("another key") if wrong == "key" else make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    source = first.source()
    if wrong == "certificate":
        source = source._replace(certificate=make().door.certificate)
    second.fetches.begin(1, SIZE, source)
    until(lambda: second.ended, first, second)
    assert second.ended == [Outcome(1, unreachable=True)]


def test_a_stranger_hears_nothing_and_keeps_nobody_waiting(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    host, port = first.door.urls[0].removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        second.fetches.begin(1, SIZE, first.source())
        until(lambda: second.ended, first, second)
        assert bytes(second.ended[0].buffer) == CONTENT
        stranger.settimeout(30)
        heard = b""
        while chunk := stranger.recv(4096):
            heard += chunk
        assert CONTENT[:16] not in heard


def test_one_that_is_not_needed_any_more_is_still_fetched(make: Callable[..., Host]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    assert second.fetches.let_end([1, 2]) == [2]
    until(lambda: second.ended, first, second)
    assert second.ended[0].unneeded
    assert bytes(second.ended[0].buffer) == CONTENT


def test_without_memory_nothing_is_begun(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    first, second = make(), make()
    monkeypatch.setattr(second.pool, "blank", lambda size: None)
    assert not second.fetches.begin(1, SIZE, first.source())


@pytest.mark.parametrize("wrong", [{"urls": ["nowhere"]}, {"certificate": "none"}, {"certificate": "bm9uZQ=="}])
def test_a_relay_that_is_none_harms_nobody(make: Callable[..., Host], wrong: dict[str, Any]):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    assert not second.fetches.begin(1, SIZE, first.source()._replace(**wrong))
    assert second.fetches.begin(2, SIZE, first.source())
    until(lambda: second.ended, first, second)
    assert bytes(second.ended[0].buffer) == CONTENT


def test_connections_that_nobody_uses_are_closed(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch):
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    until(lambda: second.ended, first, second)
    assert second.fetches._links
    monkeypatch.setattr(relay, "IDLE_SECONDS", 0.0)
    until(lambda: not second.fetches._links, first, second)
    second.fetches.begin(2, SIZE, first.source())
    until(lambda: len(second.ended) == 2, first, second)
    assert bytes(second.ended[1].buffer) == CONTENT


def test_the_descriptors_say_when_there_is_something_to_do(make: Callable[..., Host]):
    """Who looks only then misses nothing, not even the first answer after the connection was made."""
    first, second = make(), make()
    first.parts[NUMBER] = Part(CONTENT, SIZE)
    second.fetches.begin(1, SIZE, first.source())
    poll = select.poll()
    for part in (first.door, first.fetches, second.door, second.fetches):
        poll.register(part.fileno(), select.POLLIN)
    deadline = time.monotonic() + 60
    for host in (first, second):
        host.look()
    while not second.ended:
        assert poll.poll(max(0.0, deadline - time.monotonic()) * 1000), "nothing to do, and nothing has come"
        for host in (first, second):
            host.look()
    assert bytes(second.ended[0].buffer) == CONTENT
