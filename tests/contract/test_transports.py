"""What every transport promises, on one host and across hosts."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engineroom.config import ConnectionInfo
from engineroom.descriptors import wait_readable
from engineroom.shared_memory.pool import Pool
from engineroom.transport import Link, Listener, connect, listen, new_identity, stream_listener

LIMIT = 30 << 20


class Host:
    """Makes a listener, again at the same address if it is asked to, and links to it. Closes all at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._certificate, self._secret = new_identity() if kind == "tcp" else ("", "")
        self._url = "tcp://127.0.0.1" if kind == "tcp" else f"ipc://{folder}/socket"
        self._opened: list[Any] = []

    def listen(self) -> Listener:
        listener = listen([self._url], "the key", secret=self._secret, max_message_size=LIMIT)
        self._url = listener.urls[0]
        self._opened.append(listener)
        return listener

    def link(self) -> Link:
        link = connect(ConnectionInfo(url=self._url, key="the key", certificate=self._certificate))
        self._opened.append(link)
        return link

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


@pytest.fixture(params=["unix", "tcp"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    before = set(threading.enumerate())
    host = Host(request.param, folder)
    yield host
    host.close()
    assert set(threading.enumerate()) <= before
    assert list(folder.iterdir()) == [], "the socket is gone"
    shutil.rmtree(folder)


def until(receive: Callable[[], list[Any]], count: int = 1, seconds: float = 20.0) -> list[Any]:
    """Receive so many messages."""
    deadline = time.monotonic() + seconds
    found: list[Any] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} came"
        found += receive()
    return found


def from_listener(listener: Listener, count: int = 1) -> list[tuple[bytes, list[bytes]]]:
    arrived = until(lambda: listener.receive(timeout=0.5), count)
    return [(peer, [bytes(frame) for frame in frames]) for peer, frames in arrived]


def from_link(link: Link, count: int = 1) -> list[list[bytes]]:
    return [[bytes(frame) for frame in frames] for frames in until(lambda: link.receive(timeout=0.5), count)]


def introduced(listener: Listener, link: Link) -> bytes:
    """The name under which the listener knows a link, which is admitted."""
    link.send([b"hello"])
    [(peer, frames)] = from_listener(listener)
    assert frames == [b"hello"]
    listener.admit(peer)
    return peer


def test_messages_go_both_ways(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    assert listener.send(peer, [b"welcome", b"", b"you"])
    assert from_link(link) == [[b"welcome", b"", b"you"]]


def test_the_names_of_links_are_random_and_long(host: Host):
    listener = host.listen()
    names = {introduced(listener, host.link()) for _ in range(3)}
    assert len(names) == 3
    assert min(map(len, names)) >= 16


def test_order_holds_whatever_the_sizes_are(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    messages = [[b"%d" % i, bytes(i * 7919 % 300_000), b"end"] for i in range(60)]
    done = threading.Event()

    def answer() -> None:
        for _, frames in from_listener(listener, len(messages)):
            assert listener.send(peer, frames)
        while not done.is_set():  # a listener sends what waits while it receives
            listener.receive(timeout=0.01)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        for message in messages:
            link.send(message)
        assert from_link(link, len(messages)) == messages
        assert link.flush(5)
    finally:
        done.set()
        thread.join()


def test_a_link_connects_again_once_a_thread_can_be_started(host: Host, monkeypatch: pytest.MonkeyPatch):
    listener, link = host.listen(), host.link()
    introduced(listener, link)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        link._lose()  # type: ignore[attr-defined]
        link.send([b"not yet"])
    link.send([b"now"])
    assert [frames for _, frames in from_listener(listener, 2)] == [[b"not yet"], [b"now"]]


@pytest.mark.parametrize("size", [0, 40, 5000])
def test_a_message_may_have_thousands_of_frames(host: Host, size: int):
    """The kernel takes 1,024 buffers at once."""
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    message = [b"head", *(bytes([n % 251]) * size for n in range(5000))]
    link.send(message)
    [(_, frames)] = from_listener(listener)
    assert frames == message
    assert listener.send(peer, message)
    [frames] = until(lambda: [*link.receive(timeout=0.01), *listener.receive()])
    assert [bytes(frame) for frame in frames] == message
    link.send([b"next"])
    assert from_listener(listener) == [(peer, [b"next"])]


def test_frames_can_be_written_to(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    for size in (20_000, 500_000):
        assert listener.send(peer, [b"head", bytes(size)])
        [frames] = until(lambda: [*link.receive(timeout=0.1), *listener.receive()])
        assert not memoryview(frames[1]).readonly


def test_limit(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    for i in range(200):
        link.send([b"%d" % i])
    heard = 0
    for count in (1, 3):
        found = len(until(lambda count=count: listener.receive(count, timeout=1)))  # type: ignore[misc]
        assert 0 < found <= count
        heard += found
    from_listener(listener, 200 - heard)
    for i in range(200):
        assert listener.send(peer, [b"%d" % i])
    assert 0 < len(until(lambda: link.receive(3, timeout=1))) <= 3


def test_without_a_message_receiving_ends_in_time(host: Host):
    listener, link = host.listen(), host.link()
    introduced(listener, link)
    assert listener.receive() == []
    assert link.receive() == []
    assert listener.receive(timeout=0.02) == []
    assert link.receive(timeout=0.02) == []


def test_a_wake_ends_a_wait_also_from_a_signal_handler(host: Host):
    listener = host.listen()
    introduced(listener, host.link())
    before = signal.signal(signal.SIGUSR1, lambda *_: listener.wake())
    try:
        timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        assert until(lambda: [listener.receive(timeout=60)]) == [[]]
        timer.join()
        timer = threading.Timer(0.05, listener.wake)
        timer.start()
        assert listener.receive(timeout=60) == []
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    listener.close()
    listener.wake()  # harmless


def test_the_descriptor_of_a_link_tells_when_to_receive(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    for i in range(50):
        assert listener.send(peer, [b"%d" % i])

    def arrived() -> list[Any]:
        found = link.receive()
        if not found:
            assert wait_readable([link.fileno()], 10)
        return found

    assert until(arrived, 50) == [[b"%d" % i] for i in range(50)]


@pytest.mark.fault(38)
def test_sending_never_blocks_and_a_peer_that_reads_nothing_has_a_limit(host: Host):
    listener, link, other = host.listen(), host.link(), host.link()
    deaf, peer = introduced(listener, link), introduced(listener, other)
    for _ in range(400):
        link.send([b"x", bytes(100_000)])  # far more than the kernel keeps
    sent = 0
    while listener.send(deaf, [b"y" * 1000]):
        sent += 1
        assert sent < 100_000
    assert sent > 1000
    assert listener.send(peer, [b"z"]), "others are not concerned"
    assert from_link(other) == [[b"z"]]
    heard = 0
    while heard < 400:
        heard += len(until(lambda: listener.receive(timeout=0.5)))
        link.receive()


@pytest.mark.parametrize("kind", ["bytes", "shared memory"])
def test_a_peer_that_reads_nothing_takes_little_memory(host: Host, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_listener, "SEND_BYTES", 20 << 20)
    listener, link, other = host.listen(), host.link(), host.link()
    deaf, peer = introduced(listener, link), introduced(listener, other)
    pool = Pool()
    made = [pool.copy(bytes(4 << 20)) if kind == "shared memory" else bytes(4 << 20) for _ in range(50)]
    sent = [listener.send(deaf, [b"result", buffer]) for buffer in made]
    assert 4 <= sum(sent) <= 8, "what the kernel has, and what is in the queue"
    assert listener.send(deaf, [b"a sign of life"]), "so it notices what it misses"
    assert listener.send(peer, [b"z"]), "others are not concerned"
    assert from_link(other) == [[b"z"]]

    def read() -> list[list[bytes]]:
        listener.receive(timeout=0.01)
        return link.receive(timeout=0.05)

    assert bytes(until(read, sum(sent) + 1)[-1][0]) == b"a sign of life"
    assert listener.send(deaf, [b"result", made[0]]), "when it reads again, it gets all again"
    until(read)


def test_a_message_to_nobody_is_dropped(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    assert not listener.send(b"nobody", [b"x"])
    link.close()
    until(lambda: [] if listener.send(peer, [b"x"]) else [True])


def test_the_last_words_of_a_link_arrive(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    listener.send(peer, [b"something that it does not read"])
    words = [[b"%d" % i, bytes(200_000)] for i in range(20)]
    for message in words:
        link.send(message)
    closing = threading.Thread(target=link.close, args=(20.0,))
    closing.start()
    assert [frames for _, frames in from_listener(listener, 20)] == words
    closing.join()


def test_the_last_words_of_a_listener_arrive(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    assert listener.send(peer, [b"goodbye"])
    listener.close()
    assert from_link(link) == [[b"goodbye"]]


def test_a_link_may_come_first(host: Host):
    host.listen().close()
    link = host.link()
    link.send([b"first"])
    link.send([b"second"])
    listener = host.listen()
    assert [frames for _, frames in from_listener(listener, 2)] == [[b"first"], [b"second"]]


@pytest.mark.fault(22)
def test_a_link_connects_again_by_itself_and_keeps_its_name(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    descriptor = link.fileno()
    for _ in range(3):
        listener.close()
        assert link.receive(timeout=0.05) == []
        listener = host.listen()

        def heard(listener: Listener = listener) -> list[Any]:
            link.receive()
            link.send([b"are you there?"])
            return listener.receive(timeout=0.05)

        assert {peer for peer, _ in until(heard)} == {peer}
        listener.admit(peer)
        assert listener.send(peer, [b"yes"])
        assert from_link(link)[-1] == [b"yes"]
        assert link.fileno() == descriptor
        listener.receive()


@pytest.mark.fault(27)
def test_a_message_that_is_too_long_ends_the_connection_of_its_sender_only(host: Host):
    listener, link, other = host.listen(), host.link(), host.link()
    introduced(listener, link)
    introduced(listener, other)
    link.send([b"x", bytes(LIMIT + 1)])
    link.send([b"lost, too"])
    other.send([b"and I?"])
    assert [frames for _, frames in from_listener(listener)] == [[b"and I?"]]
    other.send([b"z", bytes(LIMIT // 2)])
    assert len(from_listener(listener)[0][1][1]) == LIMIT // 2


def test_closing_twice_is_harmless_and_a_forked_child_cannot_close(host: Host):
    listener, link = host.listen(), host.link()
    peer = introduced(listener, link)
    child = os.fork()
    if not child:
        link.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert listener.send(peer, [b"still there"])
    assert from_link(link) == [[b"still there"]]
    for opened in (link, listener):
        opened.close()
        opened.close()
