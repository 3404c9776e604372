"""Messages in a stream of bytes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from engineroom.shared_memory.buffer import SharedBuffer
from engineroom.shared_memory.pool import Pool
from engineroom.transport import stream
from engineroom.transport.base import HostFrame
from engineroom.transport.stream import BrokenStream, Reader, Unsent, greeting, pack

NAME = b"sixteen bytes it"

MESSAGES = [
    [b"hello"],
    [b""],
    [b"head", b"", bytes(range(256)) * 3, b""],
    [b"h" * 70_000],
    [b"head", b"x" * 70_000, b"short", b"y" * 200_000],
    [b"last", b"z" * 65_536],
]


def joined(*messages: list[bytes]) -> bytes:
    return b"".join(bytes(buffer) for message in messages for buffer in pack(message)[0])


def pieces(data: bytes, *sizes: int) -> Iterator[bytes]:
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


def read(reader: Reader, data: bytes, *sizes: int) -> list[list[bytes]]:
    """What a reader makes of data that come in pieces, as a socket would bring them."""
    found = []
    for piece in pieces(data, *sizes):
        rest = memoryview(bytearray(piece))
        while rest:
            if (room := reader.room) is None:
                found += reader.feed(rest)
                rest = memoryview(b"")
            else:
                count = min(room.nbytes, rest.nbytes)
                room[:count] = rest[:count]
                found += reader.filled(count)
                rest = rest[count:]
    return [[bytes(frame) for frame in message] for message in found]


@pytest.mark.fault(24)
@pytest.mark.parametrize("sizes", [(1 << 30,), (1 << 16,), (4096,), (1, 100_000), (17, 1, 70_000), (9,)])
def test_messages_come_out_as_they_were_put_in_however_they_are_cut(sizes: tuple[int, ...]):
    reader = Reader(greets=True)
    assert read(reader, greeting(NAME) + joined(*MESSAGES), *sizes) == MESSAGES
    assert reader.name == NAME
    assert reader.room is None


@pytest.mark.fault(24)
def test_a_cut_at_each_byte():
    data, expected = greeting(NAME) + joined(*MESSAGES[:3]), MESSAGES[:3]
    for at in range(len(data) + 1):
        reader = Reader(greets=True)
        found = read(reader, data[:at], 1 << 30) + read(reader, data[at:], 1 << 30)
        assert found == expected, at


def test_a_cut_around_a_large_frame():
    message = [b"head", b"x" * stream.LARGE, b"tail"]
    data = joined(message)
    ends = [0, 8, 16, 24, 32, 36, 37, 36 + stream.LARGE, len(data) - 4, len(data)]
    for first in ends:
        for second in ends:
            if first <= second:
                reader = Reader()
                parts = data[:first], data[first:second], data[second:]
                assert [m for part in parts for m in read(reader, part, 1 << 30)] == [message], (first, second)


def test_frames_do_not_share_the_memory_that_they_came_in():
    memory = bytearray(joined([b"head", b"a" * 100], [b"b" * 100]))
    first, second = Reader().feed(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert first[0] == b"head"
    assert bytes(first[1]) == b"a" * 100
    assert second == [b"b" * 100]
    first[1][0] = 0  # what users get from it can be changed


@pytest.mark.parametrize("size", [stream.LARGE, stream.MAPPED - 1, stream.MAPPED, 5 << 20])
def test_a_large_frame_is_received_where_it_stays(size: int):
    reader = Reader()
    data = joined([b"head", b"x" * size])
    assert reader.feed(memoryview(data)[:1000]) == []
    room = reader.room
    assert room is not None
    room[:] = data[1000:]
    [[head, frame]] = reader.filled(room.nbytes)
    assert head == b"head"
    assert frame.obj is room.obj
    assert frame == b"x" * size


@pytest.mark.parametrize("size", [stream.MAPPED - 1, stream.MAPPED, 5 << 20])
def test_with_a_pool_a_large_frame_is_received_into_its_pages(size: int):
    reader = Reader(pool=Pool())
    data = joined([b"head", b"x" * size, b"tail"])
    assert reader.feed(memoryview(data)[:1000]) == []
    room = reader.room
    assert room is not None
    room[:] = data[1000 : 1000 + room.nbytes]
    assert reader.filled(room.nbytes) == []
    [[head, frame, tail]] = reader.feed(memoryview(data)[1000 + room.nbytes :])
    assert [head, bytes(frame), bytes(tail)] == [b"head", b"x" * size, b"tail"]
    assert isinstance(frame, SharedBuffer) == (size >= stream.MAPPED)


def test_buffers_of_any_shape_and_kind():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(30_000, dtype="<f8").reshape(100, 300)
    empty = numpy.zeros((0, 3))
    [[head, first, second, third]] = read(Reader(), joined([bytearray(b"head"), array, empty, memoryview(b"abc")]), 999)
    assert (head, second, third) == (b"head", b"", b"abc")
    assert first == array.tobytes()


def test_what_is_not_bytes_is_an_error_and_nothing_is_packed():
    with pytest.raises(TypeError):
        pack([b"head", "text"])


GARBAGE = [
    b"\xff\0\0\0\0\0\0\0\x01\x7f" + bytes(54),  # ZeroMQ's
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(64),
    greeting(NAME) + bytes(64),
    greeting(NAME) + b"\xe7\x01" + bytes(14),  # a file descriptor
    greeting(NAME) + b"\xe7\0\0\0" + bytes(12),  # no frames
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_garbage_breaks_the_stream(garbage: bytes, size: int):
    with pytest.raises(BrokenStream):
        read(Reader(greets=True), garbage, size)


@pytest.mark.fault(26)
def test_random_bytes_break_the_stream_or_wait_for_more():
    randomly = random.Random(1)
    for _ in range(300):
        data = randomly.randbytes(randomly.randint(1, 300))
        begin = greeting(NAME) if randomly.random() < 0.5 else b""
        reader = Reader(1 << 20, greets=True, is_admitted=False)
        with contextlib.suppress(BrokenStream):
            assert read(reader, begin + data, randomly.randint(1, 50)) == []


@pytest.mark.fault(27)
@pytest.mark.parametrize("message", [[b"x" * 1001], [b"x" * 500, b"y" * 501], [b"x", b"y" * 100_000]])
def test_a_message_that_is_too_long_breaks_the_stream_before_it_has_come(message: list[bytes]):
    reader = Reader(1000)
    head = joined(message)[: 16 + 8 * (len(message) - 1)]
    with pytest.raises(BrokenStream, match="fewer are allowed"):
        reader.feed(memoryview(head))
    assert reader.room is None
    assert Reader(1000).feed(memoryview(joined([b"x" * 999, b"y"])))


@pytest.mark.fault(27)
def test_too_many_frames_break_the_stream():
    head = b"\xe7\0\0\0" + (stream.MOST_FRAMES + 1).to_bytes(4, "little") + bytes(8)
    with pytest.raises(BrokenStream, match="frames"):
        Reader().feed(memoryview(head))


def test_a_stranger_may_send_little_in_all():
    reader = Reader(greets=True, is_admitted=False)
    half = joined([b"x" * (stream.STRANGER_BYTES // 2)])
    assert len(read(reader, greeting(NAME) + half + half, 1 << 30)) == 2
    with pytest.raises(BrokenStream):
        read(reader, joined([b"x"]), 1 << 30)
    reader = Reader(is_admitted=False)
    assert len(read(reader, joined([b"x"]) * stream.STRANGER_FRAMES, 1 << 30)) == stream.STRANGER_FRAMES
    with pytest.raises(BrokenStream):
        read(reader, joined([b""]), 1 << 30)


def test_an_admitted_peer_may_send_more():
    reader = Reader(greets=True, is_admitted=False)
    read(reader, greeting(NAME), 1 << 30)
    reader.admit()
    size = stream.STRANGER_BYTES + 1
    assert [len(m[0]) for m in read(reader, joined([b"x" * size]), 1 << 30)] == [size]


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 30])
def test_what_the_kernel_does_not_take_is_kept_in_order(step: int):
    randomly = random.Random(step)
    messages = [[randomly.randbytes(randomly.choice([1, 50, 400])) for _ in range(3)] for _ in range(20)]
    messages[3].append(randomly.randbytes(40_000 if step > 1 else 40))
    unsent, sent = Unsent(), b""
    for message in messages:
        buffers, size, _ = pack(message)
        skip = randomly.randrange(size)
        sent_now = b"".join(map(bytes, buffers))[:skip] if not unsent else b""
        unsent.add(buffers, len(sent_now))
        sent += sent_now
    assert unsent.messages == 20
    assert unsent.bytes == len(joined(*messages)) - len(sent)
    while unsent:
        chosen = b"".join(map(bytes, unsent.next()[0]))[:step]
        sent += chosen
        unsent.taken(len(chosen))
    assert sent == joined(*messages)
    assert (unsent.messages, unsent.bytes) == (0, 0)


ELSEWHERE = [b"head", HostFrame(1 << 60, 1 << 40), b"x" * 70_000, HostFrame(7, 3), b""]


@pytest.mark.parametrize("size", [1, 7, 33, 70_001, 1 << 30])
def test_a_frame_that_is_on_this_host_comes_as_its_number(size: int):
    data = b"".join(bytes(buffer) for _ in range(2) for buffer in pack(ELSEWHERE)[0])
    reader, found = Reader(takes_host_frames=True), []
    for piece in pieces(data, size):
        rest = memoryview(bytearray(piece))
        while rest:
            if (room := reader.room) is None:
                found += reader.feed(rest)
                break
            count = min(room.nbytes, rest.nbytes)
            room[:count] = rest[:count]
            found += reader.filled(count)
            rest = rest[count:]
    whole = [[f if isinstance(f, HostFrame) else bytes(f) for f in message] for message in found]
    assert whole == [ELSEWHERE, ELSEWHERE]


@pytest.mark.parametrize("change", ["not taken", "first", "of another size", "passed, too"])
def test_a_number_where_none_may_come_breaks_the_stream(change: str):
    data = bytearray(b"".join(map(bytes, pack(ELSEWHERE[:2])[0])))
    lengths = slice(8, 16) if change == "first" else slice(16, 24)
    if change != "not taken":
        bits = stream.ELSEWHERE | (stream.PASSED if change == "passed, too" else 0)
        data[lengths] = (bits | (24 if change == "of another size" else 16)).to_bytes(8, "little")
    reader = Reader(takes_host_frames=change != "not taken")
    with pytest.raises(BrokenStream):
        reader.feed(memoryview(data))
