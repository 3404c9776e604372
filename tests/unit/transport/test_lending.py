"""Buffers that one process of a host lends to others, and messages that wait for them."""

from __future__ import annotations

import os
import socket
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from engineroom.shared_memory.buffer import SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.transport import lending
from engineroom.transport.base import Frames, HostFrame
from engineroom.transport.lending import Borrower, BorrowingLink, Lender, new_name

SIZE = 1 << 20
NAME = new_name()


def content(letter: bytes) -> bytes:
    return letter * SIZE


@pytest.fixture
def lender() -> Iterator[Lender]:
    made = Lender(NAME)
    yield made
    made.close()


class Arriving:
    """A link to which messages come when a test says so."""

    shares_memory = False
    takes_host_frames = True

    def __init__(self) -> None:
        self.come: deque[Frames] = deque()
        self.sent: list[Frames] = []
        self.is_renewed = False

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Frames]:
        return [self.come.popleft() for _ in range(min(limit, len(self.come)))]

    def fileno(self) -> int:
        return 0

    def send(self, frames: Frames) -> None:
        self.sent.append(frames)

    def flush(self, timeout: float) -> bool:
        return True

    def refused(self) -> bool:
        return False

    def take_renewed(self) -> bool:
        return self.is_renewed

    def wake(self) -> None: ...

    def close(self, linger: float = 0.0) -> None: ...


class Pair:
    """A link that borrows, and the lender, which looks at what it was asked between two looks of the link."""

    def __init__(self, lender: Lender) -> None:
        self.lender, self.inner = lender, Arriving()
        self.link = BorrowingLink(self.inner, NAME)
        self.got: list[Frames] = []

    def look(self) -> list[list[Any]]:
        """What the link gives now, with buffers as (their first byte, their size)."""
        for _ in range(3):  # to connect, to ask, to answer
            self.got += self.link.receive()
            self.lender.serve()
        self.got += self.link.receive()
        taken, self.got = self.got, []
        return [[(f[:1], len(f)) if isinstance(f, SharedBuffer) else f for f in frames] for frames in taken]


@pytest.fixture
def pair(lender: Lender) -> Iterator[Pair]:
    made = Pair(lender)
    yield made
    made.link.close()


def test_a_message_comes_with_the_buffers_that_it_names(pair: Pair):
    pair.lender.keep([5, 6], [content(b"a"), content(b"b")])
    pair.inner.come.append([b"head", HostFrame(6, SIZE), b"own", HostFrame(5, SIZE), HostFrame(6, SIZE)])
    assert pair.look() == [[b"head", (b"b", SIZE), b"own", (b"a", SIZE), (b"b", SIZE)]]


def test_it_waits_for_buffers_that_have_not_come_and_those_behind_wait_with_it(pair: Pair):
    pair.inner.come += [[b"before"], [b"head", HostFrame(5, SIZE)], [b"behind"]]
    assert pair.look() == [[b"before"]]
    pair.inner.come.append([b"last"])
    assert pair.look() == []
    pair.lender.keep([5], [content(b"a")])
    assert pair.look() == [[b"head", (b"a", SIZE)], [b"behind"], [b"last"]]


def lose_by_dropping(pair: Pair) -> None:
    pair.lender.keep([5], [content(b"a")])
    pair.lender.drop([5])


def lose_by_a_new_session(pair: Pair) -> None:
    assert pair.look() == []
    pair.lender.renew()


@pytest.mark.parametrize("lose", [lose_by_dropping, lose_by_a_new_session])
def test_a_message_whose_buffer_is_not_to_be_had_is_lost_and_the_next_one_comes(pair: Pair, lose: Any):
    assert pair.link.takes_host_frames
    pair.inner.come += [[b"head", HostFrame(5, SIZE)], [b"behind"]]
    lose(pair)
    assert pair.look() == [[b"behind"]]
    assert not pair.link.takes_host_frames, "the next Hello says that buffers are to come to the engine itself"


def test_what_is_asked_for_after_a_new_session_is_lost_once_the_controller_has_heard_of_a_later_moment(pair: Pair):
    pair.lender.renew()
    pair.inner.come += [[b"head", HostFrame(5, SIZE)], [b"behind"]]
    assert pair.look() == []
    pair.lender.confirm(sent=3, heard=3)  # the answer to what was sent before the question
    pair.lender.confirm(sent=4, heard=3)
    assert pair.look() == [], "it may be on its way"
    pair.lender.confirm(sent=5, heard=4)
    assert pair.look() == [[b"behind"]]
    assert not pair.link.takes_host_frames


def test_a_buffer_that_comes_late_is_not_given_up(pair: Pair):
    pair.inner.come.append([b"head", HostFrame(5, SIZE)])
    assert pair.look() == []
    pair.lender.confirm(sent=3, heard=3)
    pair.lender.keep([5], [content(b"a")])
    pair.lender.confirm(sent=4, heard=4)
    assert pair.look() == [[b"head", (b"a", SIZE)]]
    pair.inner.come.append([b"head", HostFrame(6, SIZE)])
    assert pair.look() == []
    pair.lender.renew()  # its messages are counted from one again
    assert pair.look() == []
    pair.inner.come.append([b"head", HostFrame(7, SIZE)])
    assert pair.look() == []
    pair.lender.confirm(sent=2, heard=2)
    pair.lender.keep([7], [content(b"c")])
    assert pair.look() == [[b"head", (b"c", SIZE)]]


def test_what_waits_for_buffers_is_lost_with_the_connection_it_came_through(pair: Pair):
    pair.lender.keep([4], [content(b"a")])
    before = len(os.listdir("/proc/self/fd"))
    pair.inner.come += [[b"head", HostFrame(4, SIZE), HostFrame(5, SIZE)], [b"behind"]]
    assert pair.look() == []
    pair.inner.is_renewed = True
    assert pair.link.take_renewed()
    pair.inner.is_renewed = False
    pair.lender.keep([5], [content(b"b")])  # too late
    pair.inner.come.append([b"of the new connection"])
    assert pair.look() == [[b"of the new connection"]]
    pair.lender.drop([5])
    pair.lender.pool.close()
    wait_until(lambda: pair.lender.serve() or len(os.listdir("/proc/self/fd")) <= before)
    pair.inner.come.append([b"head", HostFrame(4, SIZE)])
    assert pair.look() == [[b"head", (b"a", SIZE)]], "it asks anew"


def test_without_a_nanny_the_message_is_lost():
    link = Arriving()
    borrowing = BorrowingLink(link, new_name())
    link.come += [[b"head", HostFrame(5, SIZE)], [b"behind"]]
    assert borrowing.receive() == [[b"behind"]]
    assert not borrowing.takes_host_frames
    borrowing.close()


def test_when_the_nanny_ends_the_message_is_lost():
    lender = Lender(NAME)
    pair = Pair(lender)
    pair.inner.come += [[b"head", HostFrame(5, SIZE)], [b"behind"]]
    assert pair.look() == []
    lender.close()
    wait_until(lambda: pair.link.receive() == [[b"behind"]])
    pair.link.close()


def test_a_buffer_that_is_shorter_than_the_message_says_is_not_taken(pair: Pair):
    pair.lender.keep([5], [content(b"a")])
    pair.inner.come.append([b"head", HostFrame(5, 100 * SIZE)])
    assert pair.look() == []
    assert not pair.link.takes_host_frames


def test_who_has_a_buffer_keeps_it_when_the_lender_drops_it(pair: Pair):
    pair.lender.keep([5], [content(b"a")])
    pair.inner.come.append([b"head", HostFrame(5, SIZE)])
    [[_, buffer]] = _received(pair)
    pair.lender.drop([5])
    pair.lender.keep([6], [content(b"b")])  # in other pages
    assert bytes(buffer[:]) == content(b"a")


def _received(pair: Pair) -> Sequence[Frames]:
    found: list[Frames] = []
    while not found:
        found = pair.link.receive()
        pair.lender.serve()
    return found


def test_nothing_is_given_to_another_user(pair: Pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lending, "why_not_ours", lambda connection: "another user")
    pair.lender.keep([5], [content(b"a")])
    pair.inner.come.append([b"head", HostFrame(5, SIZE)])
    assert pair.look() == []
    assert not pair.link.takes_host_frames


def test_nothing_stays_open(lender: Lender):
    before = len(os.listdir("/proc/self/fd"))
    pair = Pair(lender)
    pair.lender.keep([5], [content(b"a")])
    pair.inner.come.append([b"head", HostFrame(5, SIZE)])
    assert len(_received(pair)) == 1
    borrower = Borrower(NAME)
    borrower.ask([HostFrame(5, SIZE)])
    lender.serve()
    lender.serve()
    borrower.hear(20)
    borrower.forget()
    pair.link.close()
    lender.drop([5])
    lender.serve()
    lender.pool.close()
    wait_until(lambda: lender.serve() or len(os.listdir("/proc/self/fd")) <= before)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


@pytest.fixture
def other(lender: Lender) -> Iterator[Pair]:
    made = Pair(lender)
    yield made
    made.link.close()


def test_what_an_engine_lends_another_one_gets(pair: Pair, other: Pair, pool: Pool):
    number = pair.link.lend(pool.copy(content(b"a")))
    other.inner.come.append([b"head", HostFrame(number, SIZE)])
    assert other.look() == [[b"head", (b"a", SIZE)]]


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_controller_says_what_becomes_of_it(
    pair: Pair, other: Pair, pool: Pool, is_kept: bool, monkeypatch: pytest.MonkeyPatch
):
    number = pair.link.lend(pool.copy(content(b"a")))
    if is_kept:
        pair.lender.keep([number], [])
    else:
        pair.lender.drop([number])
    monkeypatch.setattr(lending, "OFFERED_SECONDS", -1.0)  # what nobody has spoken of is dropped
    other.inner.come.append([b"head", HostFrame(number, SIZE)])
    assert other.look() == ([[b"head", (b"a", SIZE)]] if is_kept else [])
    assert other.link.takes_host_frames is is_kept


def test_of_what_nobody_has_spoken_the_oldest_makes_room(pair: Pair, other: Pair, pool: Pool):
    pair.lender.room = 2 * SIZE
    one, two, three = (pair.link.lend(pool.copy(content(letter))) for letter in (b"1", b"2", b"3"))
    other.inner.come += [[b"head", HostFrame(two, SIZE)], [b"head", HostFrame(three, SIZE)]]
    assert other.look() == [[b"head", (b"2", SIZE)], [b"head", (b"3", SIZE)]]
    other.inner.come.append([b"head", HostFrame(one, SIZE)])
    assert other.look() == []


def test_what_is_small_or_in_no_shared_pages_is_not_lent(pair: Pair, pool: Pool):
    assert [pair.link.lend(buffer) for buffer in (content(b"a"), pool.copy(content(b"a")[: SIZE - 1]))] == [0, 0]


def test_where_nobody_lends_nothing_is_lent(pool: Pool):
    borrowing = BorrowingLink(Arriving(), new_name())
    assert borrowing.lend(pool.copy(content(b"a"))) == 0
    borrowing.close()


def test_a_nanny_that_takes_nothing_in_does_not_stop_the_engine(pair: Pair, pool: Pool):
    numbers = [pair.link.lend(pool.copy(content(b"a"))) for _ in range(2_000)]
    assert numbers[0] > 0
    assert numbers[-1] == 0


def test_a_file_that_could_be_shortened_is_not_taken(lender: Lender, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "file"
    path.write_bytes(content(b"a"))
    borrower = Borrower(NAME)
    assert borrower.offer(SharedBuffer(os.open(path, os.O_RDONLY), SIZE))
    lender.serve()
    lender.serve()
    assert "nobody can shorten" in caplog.text
    borrower._socket.sendmsg([b"short"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0]))])  # type: ignore[union-attr]
    before = len(os.listdir("/proc/self/fd"))
    lender.serve()
    assert "0 bytes" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == before
    assert not lender._offered
    borrower.forget()
