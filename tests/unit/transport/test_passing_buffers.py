"""Shared buffers over a Unix socket: handed over as descriptors; descriptors that are no good are refused."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import gc
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engineroom.shared_memory import buffer as buffers
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer, received
from engineroom.shared_memory.pool import Pool
from engineroom.transport import stream
from engineroom.transport.connection import TooManyPassed, give_unsent
from engineroom.transport.stream import MOST_DESCRIPTORS, PASSED, BrokenStream, Reader, Unsent, greeting, pack
from engineroom.transport.stream_listener import StreamListener
from engineroom.transport.unix_entrance import UnixEntrance
from engineroom.transport.unix_link import UnixLink
from engineroom.transport.unix_socket import PlainSocket, new_chunk

SIZE = SHARED_FROM + 10
NAME = b"sixteen bytes it"


@pytest.fixture
def listener() -> Iterator[StreamListener]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    made = StreamListener([UnixEntrance(f"ipc://{folder}/socket")])
    yield made
    made.close()
    shutil.rmtree(folder)


@pytest.fixture
def link(listener: StreamListener) -> Iterator[UnixLink]:
    made = UnixLink(listener.urls[0])
    made.send([b"hello"])
    [(peer, _)] = listener.receive(timeout=5)
    listener.admit(peer)
    listener.link_name = peer  # type: ignore[attr-defined]
    yield made
    made.close()


def shared(text: bytes = b"content_") -> SharedBuffer:
    made = Pool().copy((text * SIZE)[:SIZE])
    assert isinstance(made, SharedBuffer)
    return made


def one(listener: StreamListener) -> list:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if arrived := listener.receive(timeout=1):
            return arrived[0][1]
    raise AssertionError("nothing has come")


def inode(found: SharedBuffer) -> int:
    return os.fstat(found.descriptor).st_ino


def open_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def memfd(size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(descriptor, bytes(size))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


# ---------------------------------------------------------------------------------------------- it works


def test_a_buffer_goes_to_the_listener_and_on_to_a_link_as_the_same_pages(listener, link):
    sent = shared()
    link.send([b"head", b"before", sent, b"after", sent])
    head, before, first, after, second = one(listener)
    assert (bytes(head), bytes(before), bytes(after)) == (b"head", b"before", b"after")
    assert inode(first) == inode(second) == inode(sent)
    assert first.key == second.key
    listener.send(listener.link_name, [b"head", first])
    [[_, back]] = link.receive(timeout=5)
    assert inode(back) == inode(sent)
    assert bytes(back) == bytes(sent)


def test_large_and_shared_frames_keep_their_order(listener, link):
    messages = []
    for number in range(20):
        sent, large = shared(b"%08d" % number), b"%d" % number * 100_000
        messages.append((number, bytes(sent), large))
        link.send([b"%d" % number, large, sent])
    for number, content, large in messages:
        head, first, second = one(listener)
        assert (int(bytes(head)), bytes(first), bytes(second)) == (number, large, content)
    assert link.flush(5)


def test_what_waits_until_the_other_end_reads_is_handed_over_too(listener, link):
    """A peer that reads nothing for a while: descriptors wait with their message, and come with it."""
    sent = [shared(b"%08d" % number) for number in range(8)]
    contents = [bytes(buffer) for buffer in sent]
    for number, buffer in enumerate(sent):
        listener.send(listener.link_name, [b"%d" % number, b"x" * 500_000, buffer])
    del sent, buffer
    arrived: list = []
    deadline = time.monotonic() + 10
    while len(arrived) < 8 and time.monotonic() < deadline:
        listener.receive(timeout=0.01)
        arrived += link.receive(timeout=0.01)
    assert [int(bytes(message[0])) for message in arrived] == list(range(8))
    assert [bytes(message[2]) for message in arrived] == contents


def test_more_buffers_than_one_message_may_hand_over_come_as_bytes(listener, link):
    sent = shared()
    frames = [sent] * (MOST_DESCRIPTORS + 3)
    link.send([b"head", *frames])
    arrived = one(listener)[1:]
    assert len(arrived) == len(frames)
    assert sum(isinstance(frame, SharedBuffer) for frame in arrived) == MOST_DESCRIPTORS
    assert all(bytes(frame) == bytes(sent) for frame in arrived[-3:])


def test_the_pages_stay_as_they_were_while_a_message_is_on_its_way(listener, link):
    pool = Pool()
    sent = pool.copy(b"b" * SIZE)
    number = inode(sent)
    link.send([b"head", sent])
    del sent
    assert inode(pool.copy(b"a" * SIZE)) != number
    arrived = one(listener)
    assert bytes(arrived[1]) == b"b" * SIZE
    del arrived
    assert number in {inode(found) for found in [pool.copy(b"a" * SIZE) for _ in range(2)]}


def test_with_too_few_descriptors_the_content_is_copied(listener, link, monkeypatch):
    link.send([b"head", shared()])
    monkeypatch.setattr(buffers, "SHARE_OF_DESCRIPTORS", -1.0)
    arrived = one(listener)
    assert not isinstance(arrived[1], SharedBuffer)
    assert bytes(arrived[1]) == (b"content_" * SIZE)[:SIZE]


def test_no_descriptor_is_left_open(listener, link):
    before = open_descriptors()
    for _ in range(5):
        link.send([b"head", shared(), shared()])
        one(listener)
    assert open_descriptors() == before


def test_a_link_takes_files_of_the_controller_that_others_may_not_hand_over(listener, link, tmp_path):
    path = tmp_path / "payload"
    path.write_bytes(b"f" * SIZE)
    file = received(os.open(path, os.O_RDONLY), SIZE, is_trusted=True)
    listener.send(listener.link_name, [b"head", file])
    [[_, arrived]] = link.receive(timeout=5)
    assert bytes(arrived) == b"f" * SIZE


# ---------------------------------------------------------------------------------------------- what is refused


def hostile(listener: StreamListener, *, admitted: bool = True) -> socket.socket:
    """A connection of somebody who has the key, and does not keep to the rules."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(listener.urls[0].removeprefix("ipc://"))
    peer.sendall(greeting(os.urandom(16)) + b"".join(pack([b"hello"])[0]))
    [(name, _)] = listener.receive(timeout=5)
    if admitted:
        listener.admit(name)
    return peer


def head_of(sizes: list[int], passed: int) -> bytes:
    lengths = [size | PASSED for size in sizes]
    return stream._HEAD.pack(stream.MARK, passed, 0, 1 + len(sizes), 4) + b"".join(
        length.to_bytes(8, "little") for length in lengths
    )


def send(peer: socket.socket, data: bytes, descriptors: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        peer.sendmsg([data], rights)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def is_closed(listener: StreamListener, peer: socket.socket) -> bool:
    """Whether the listener closes the connection, and nothing comes through it."""
    peer.settimeout(0.02)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert not listener.receive(timeout=0.01)
        try:
            return peer.recv(1) == b""
        except TimeoutError:
            continue
        except ConnectionResetError:
            return True
    return False


def pipe_end() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


def disk_file() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        return os.dup(file.fileno())


BAD = {
    "not sealed": (lambda: [memfd(seals=fcntl.F_SEAL_GROW)], [SIZE], 1),
    "too short": (lambda: [memfd()], [SIZE + 1], 1),
    "huge": (lambda: [memfd()], [1 << 61], 1),
    "empty": (lambda: [memfd()], [0], 1),
    "a pipe": (lambda: [pipe_end()], [SIZE], 1),
    "a file on a disk": (lambda: [disk_file()], [SIZE], 1),
    "a device": (lambda: [os.open("/dev/zero", os.O_RDONLY)], [SIZE], 1),
    "a folder": (lambda: [os.open("/tmp", os.O_RDONLY)], [SIZE], 1),
    "none": (lambda: [], [SIZE], 1),
    "fewer": (lambda: [memfd()], [SIZE, SIZE], 2),
    "fewer announced than flagged": (lambda: [memfd()], [SIZE, SIZE], 1),
    "announced and not flagged": (lambda: [memfd()], [], 1),
}


@pytest.mark.parametrize("what", BAD)
def test_a_descriptor_that_is_no_good_ends_the_connection_of_its_sender_only(listener, link, what):
    make, sizes, announced = BAD[what]
    with hostile(listener) as peer:
        before = open_descriptors()
        send(peer, head_of(sizes, announced) + b"head", make())
        assert is_closed(listener, peer)
        assert open_descriptors() == before - 1, "its connection is closed, and what it sent"
    link.send([b"still here"])
    assert bytes(one(listener)[0]) == b"still here"


def test_a_stranger_may_hand_over_nothing(listener):
    with hostile(listener, admitted=False) as peer:
        send(peer, head_of([SIZE], 1) + b"head", [memfd()])
        assert is_closed(listener, peer)


def test_a_stranger_may_not_even_bring_descriptors(listener):
    """Else some strangers would use up all that the controller may open."""
    before = open_descriptors()
    with hostile(listener, admitted=False) as peer:
        send(peer, head_of([5], 0)[:3], [os.open(os.devnull, os.O_RDONLY) for _ in range(200)])
        assert is_closed(listener, peer)
    assert open_descriptors() == before


def test_a_link_that_is_not_connected_keeps_no_shared_buffers(tmp_path):
    """It would hand them over before the next controller has admitted it, and lose that connection, too."""
    tmp_path.chmod(0o700)
    url = f"ipc://{tmp_path}/socket"
    waiting = UnixLink(url)
    waiting.send([b"large", shared()])
    waiting.send([b"small"])
    came = StreamListener([UnixEntrance(url)])
    try:
        assert one(came)[0] == b"small"
    finally:
        waiting.close()
        came.close()


def test_descriptors_that_no_message_claims_are_bounded_and_closed(listener):
    before = open_descriptors()
    with hostile(listener) as peer:
        for _ in range(30):
            try:
                send(peer, b"".join(pack([b"x"])[0]), [os.open(os.devnull, os.O_RDONLY) for _ in range(200)])
            except OSError:
                break
            listener.receive(timeout=0.01)
            assert open_descriptors() < before + stream.MOST_DESCRIPTORS + 250
    deadline = time.monotonic() + 5
    while open_descriptors() > before and time.monotonic() < deadline:
        listener.receive(timeout=0.01)
    assert open_descriptors() == before


def test_a_descriptor_that_a_message_does_not_announce_ends_the_connection(listener):
    with hostile(listener) as peer:
        send(peer, b"".join(pack([b"x"])[0]), [os.open(os.devnull, os.O_RDONLY)])
        listener.receive(timeout=1)
        peer.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert not peer.recv(1)


def test_after_a_loss_a_message_brings_fewer_descriptors_both_ways(listener):
    """The other end may be unable to open as many: a message that always breaks its connection would never come."""
    pool, many = Pool(), 70
    buffers = [pool.copy(bytes([number]) * SIZE) for number in range(many)]
    link = UnixLink(listener.urls[0])
    try:
        for expected in (many, 62, 15, 3, 0):
            link.send([b"hello"])
            [(name, _)] = listener.receive(timeout=5)
            listener.admit(name)
            link.send([b"head", *buffers])
            [(_, there)] = listener.receive(timeout=5)
            assert listener.send(name, [b"head", *buffers])
            deadline = time.monotonic() + 5
            while not (came := link.receive(timeout=0.01)) and time.monotonic() < deadline:
                listener.receive()  # it sends
            [back] = came
            for frames in (there, back):
                assert sum(isinstance(frame, SharedBuffer) for frame in frames) == expected
                assert [bytes(frame[:1]) for frame in frames[1:]] == [bytes([number]) for number in range(many)]
            link._lose()
            deadline = time.monotonic() + 5
            while link._socket is None and time.monotonic() < deadline:
                time.sleep(0.001)
    finally:
        link.close()


def test_a_file_that_its_sender_shortens_afterwards_cannot_be(listener):
    """Else a later look at its pages would end the controller with SIGBUS."""
    with hostile(listener) as peer:
        mine = memfd()
        send(peer, head_of([SIZE], 1) + b"head", [os.dup(mine)])
        arrived = one(listener)
        with pytest.raises(PermissionError):
            os.ftruncate(mine, 0)
        os.close(mine)
        assert bytes(arrived[1]) == bytes(SIZE)


# ---------------------------------------------------------------------------------------------- without sockets


def test_a_reader_closes_what_nobody_has_claimed():
    reader, descriptor = Reader(), memfd()
    reader.take_descriptors([descriptor])
    reader.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_head_may_come_in_pieces_and_its_descriptors_before_it():
    sent = shared()
    data, _, passed = pack([b"head", sent, b"rest"])
    reader, found = Reader(), []
    reader.take_descriptors([os.dup(buffer.descriptor) for buffer in passed])
    for byte in b"".join(map(bytes, data)):
        found += reader.feed(memoryview(bytes([byte])))
    [[head, buffer, rest]] = found
    assert (bytes(head), bytes(buffer), bytes(rest)) == (b"head", bytes(sent), b"rest")


def test_what_is_passed_goes_with_the_first_byte_of_its_message_and_only_once():
    unsent, sent = Unsent(), shared()
    plain, with_buffer = pack([b"plain"]), pack([b"head", sent, b"x" * 100])
    unsent.add(plain[0])
    unsent.add(with_buffer[0], 0, with_buffer[2])
    unsent.add(with_buffer[0], 3, with_buffer[2])  # its first bytes have gone already
    views, passed = unsent.next()
    assert (sum(view.nbytes for view in views), list(passed)) == (plain[1], [])
    unsent.taken(plain[1])
    views, passed = unsent.next()
    assert list(passed) == [sent]
    unsent.taken(0)
    assert list(unsent.next()[1]) == [sent]
    unsent.taken(1)
    views, passed = unsent.next()
    assert list(passed) == []
    assert sum(view.nbytes for view in views) == 2 * with_buffer[1] - 4


class Full:
    """A socket through which no descriptor can be sent. The kernel bounds those on their way for each user."""

    def __init__(self, takes: int = 1 << 30) -> None:
        self.takes, self.taken = takes, b""

    def setblocking(self, blocks):
        pass

    def setsockopt(self, *given):
        pass

    def sendmsg(self, views, ancillary=()):
        if ancillary:
            raise OSError(errno.ETOOMANYREFS, "too many")
        return self.send(b"".join(views))

    def send(self, data):
        self.taken += bytes(data[: self.takes])
        return min(self.takes, len(data))


@pytest.mark.parametrize("takes", [1 << 30, 100_000])
@pytest.mark.parametrize(
    "frames", [[b"head", b"shared"], [b"head", b"", b"x" * 100, b"shared", b"y" * 100_000, b"shared"]]
)
def test_with_too_many_descriptors_on_their_way_the_content_is_sent(takes, frames):
    """A process that never receives them would keep the messages of all others waiting, and their senders busy."""
    frames = [shared() if frame == b"shared" else frame for frame in frames]
    data, _, passed = pack(frames)
    full, unsent = Full(takes), Unsent()
    connection = PlainSocket(full, new_chunk())  # type: ignore[arg-type]
    with pytest.raises(TooManyPassed):
        connection.give(data, passed)
    unsent.add(data, 0, passed)
    plain = pack([b"another message"])
    unsent.add(plain[0])
    while unsent:
        give_unsent(connection, unsent)
    assert (unsent.messages, unsent.bytes) == (0, 0)
    came = Reader().feed(memoryview(full.taken))
    assert [[bytes(frame) for frame in message] for message in came] == [
        [bytes(frame) for frame in frames],
        [b"another message"],
    ]


def test_a_message_goes_on_to_a_peer_while_no_descriptor_can_be_sent(listener, link, monkeypatch):
    def none(*args):
        raise TooManyPassed

    real = PlainSocket.give
    given = lambda connection, data, passed=(): none() if passed else real(connection, data)  # noqa: E731
    monkeypatch.setattr(PlainSocket, "give", given)
    sent = shared()
    link.send([b"head", sent])
    arrived = one(listener)
    assert [bytes(frame) for frame in arrived] == [b"head", bytes(sent)]
    assert listener.send(listener.link_name, [b"head", sent])
    deadline, came = time.monotonic() + 5, []
    while not came and time.monotonic() < deadline:
        listener.receive(timeout=0.01)
        came = link.receive(timeout=0.01)
    assert [bytes(frame) for frame in came[0]] == [b"head", bytes(sent)]


def test_a_stream_that_is_broken_says_why():
    reader = Reader()
    with pytest.raises(BrokenStream, match="fewer have come"):
        reader.feed(memoryview(head_of([SIZE], 1) + b"head"))
