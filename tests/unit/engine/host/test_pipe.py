"""The pipe between a nanny and its zygote: the nanny never waits."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from engineroom.engine.host.pipe import Pipe

MANY = 5000  # the kernel takes some hundreds


@pytest.fixture
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one, other = Pipe(ours, int), Pipe(theirs, int)
    yield one, other
    one.close()
    other.close()


@pytest.mark.fault(36)
def test_who_puts_messages_does_not_wait_for_the_reader_and_all_come_in_order(pipes: tuple[Pipe, Pipe]) -> None:
    nanny, zygote = pipes
    for number in range(MANY):
        nanny.put(number)
    assert not nanny.flush(), "the kernel took them all: nothing was tried"
    came = []
    while len(came) < MANY:
        nanny.flush()
        came.append(zygote.receive())
    assert came == list(range(MANY))
    assert nanny.flush()


def test_a_long_message_comes_whole_and_nobody_waits_for_it(pipes: tuple[Pipe, Pipe]) -> None:
    """Such as the indices of 65,536 units of a resource. The kernel takes some 200,000 bytes at once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nanny, zygote = Pipe(ours, list[int]), Pipe(theirs, list[int])
    try:
        for last in (0, 10_000, 20_000, 65_536, 300_000):
            reading: list[list[int]] = []
            reader = threading.Thread(target=lambda: reading.append(zygote.receive()))  # noqa: B023
            nanny.put(list(range(last)))
            reader.start()
            while not nanny.flush():
                select.select([], [ours], [])
            reader.join()
            assert reading == [list(range(last))]
            thread = threading.Thread(target=lambda: zygote.send(reading[0]))  # noqa: B023
            thread.start()
            assert nanny.receive() == reading[0]
            thread.join()
    finally:
        nanny.close()
        zygote.close()


def test_what_is_put_is_there_at_once(pipes: tuple[Pipe, Pipe]) -> None:
    nanny, zygote = pipes
    nanny.put(1)
    assert zygote.receive() == 1
    zygote.send(2)
    assert nanny.receive() == 2


def test_the_end_of_the_other_side_is_no_message(pipes: tuple[Pipe, Pipe]) -> None:
    nanny, zygote = pipes
    zygote.close()
    assert nanny.receive() is None
