"""Shared buffers: what a holder may rely on, and what is refused from others."""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import resource
import socket
import subprocess
import sys

import pytest

from engineroom.shared_memory import buffer
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer, own, pieces, received
from engineroom.shared_memory.pool import Pool

SIZE = 2 * SHARED_FROM
CONTENT = os.urandom(SIZE)


@pytest.fixture
def shared():
    made = Pool().copy(CONTENT)
    assert isinstance(made, SharedBuffer)
    return made


def memfd(size: int = SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(descriptor, bytes(size))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_it_stands_where_bytes_stand(shared):
    assert bytes(shared) == CONTENT
    assert memoryview(shared).nbytes == SIZE
    assert memoryview(shared).readonly


def test_what_one_does_to_an_own_copy_nobody_else_sees(shared):
    mine = own(shared)
    mine[:4] = b"mine"
    assert bytes(shared) == CONTENT
    assert bytes(own(shared)) == CONTENT
    assert mine[:4] == b"mine"


def test_an_own_copy_is_pickled_as_what_it_is(shared):
    """A task gets one as the value of a `PickleBuffer`, and may return it."""
    mine = shared.own_copy()
    mine[:2] = b"ab"
    again = pickle.loads(pickle.dumps(mine))
    assert type(again) is bytearray
    assert again == b"ab" + CONTENT[2:]


def test_own_leaves_other_buffers_as_they_are():
    content = bytearray(b"abc")
    assert own(content) is content


def test_its_pieces_are_its_content(shared):
    assert b"".join(bytes(piece) for piece in pieces(shared)) == CONTENT
    assert bytes(shared.read_all()) == CONTENT


def test_any_buffer_has_pieces():
    assert b"".join(bytes(piece) for piece in pieces(CONTENT)) == CONTENT
    assert b"".join(bytes(piece) for piece in pieces(memoryview(b"abcdef")[::2])) == b"ace"


def test_its_descriptor_is_closed_with_it():
    shared = Pool().copy(CONTENT)
    descriptor = shared.descriptor
    del shared
    assert not is_open(descriptor)


def test_what_is_handed_over_is_the_content(shared):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [shared.descriptor])
        _, [descriptor], _, _ = socket.recv_fds(theirs, 1, 1)
    arrived = received(descriptor, SIZE)
    assert isinstance(arrived, SharedBuffer)
    assert bytes(arrived) == CONTENT


def test_a_file_that_could_be_shortened_is_refused_and_closed():
    descriptor = memfd(seals=fcntl.F_SEAL_GROW)
    with pytest.raises(ValueError, match="shorten"):
        received(descriptor, SIZE)
    assert not is_open(descriptor)


def test_a_file_with_holes_is_refused_and_closed():
    """Reading it would take memory for what its sender has none for."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 40)
    os.pwrite(descriptor, b"x" * SIZE, 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with pytest.raises(ValueError, match="holes"):
        received(descriptor, 1 << 40)
    assert not is_open(descriptor)


def test_a_file_of_huge_pages_is_refused_and_closed():
    """Reading it where the system has no such page left ends a process with SIGBUS."""
    try:
        descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
        os.ftruncate(descriptor, 1 << 30)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError as error:
        pytest.skip(f"NOT TESTED: this kernel has no files of huge pages: {error}")
    with pytest.raises(ValueError, match="huge"):
        received(descriptor, SIZE)
    assert not is_open(descriptor)


def test_a_file_on_a_disk_is_refused_but_of_somebody_trusted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with pytest.raises(ValueError, match="shorten"):
        received(os.open(path, os.O_RDONLY), SIZE)
    assert bytes(received(os.open(path, os.O_RDONLY), SIZE, is_trusted=True)) == CONTENT


@pytest.mark.parametrize("size", [SIZE + 1, 0, -1, 1 << 62])
def test_a_file_with_fewer_bytes_than_announced_is_refused(size):
    descriptor = memfd()
    with pytest.raises(ValueError, match="regular file"):
        received(descriptor, size)
    assert not is_open(descriptor)


def test_what_is_no_file_is_refused():
    reader, writer = os.pipe()
    with pytest.raises(ValueError, match="regular file"):
        received(reader, SIZE)
    os.close(writer)
    one, other = socket.socketpair()
    with one, other, pytest.raises(ValueError, match="regular file"):
        received(one.detach(), SIZE)


def test_a_file_that_cannot_be_read_is_refused():
    writable = memfd()
    descriptor = os.open(f"/proc/self/fd/{writable}", os.O_WRONLY)
    os.close(writable)
    with pytest.raises((ValueError, OSError)):
        received(descriptor, SIZE)
    assert not is_open(descriptor)


def test_a_sealed_file_cannot_be_cut_while_it_is_mapped():
    descriptor = memfd()
    arrived = received(os.dup(descriptor), SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
    assert bytes(arrived) == bytes(SIZE)


def test_small_ones_are_copied():
    arrived = received(memfd(), 100)
    assert arrived == bytes(100)
    assert not isinstance(arrived, mmap.mmap)


def test_with_too_few_descriptors_they_are_copied(monkeypatch, shared):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2, 2))
    descriptor = os.dup(shared.descriptor)
    arrived = received(descriptor, SIZE)
    assert arrived == CONTENT
    assert not isinstance(arrived, SharedBuffer)
    assert not is_open(descriptor)
    assert buffer.are_descriptors_short()


def test_reading_takes_no_memory_of_ours():
    """The controller reads what passes through it without having its pages."""
    code = """
import os, sys
from engineroom.shared_memory.buffer import SharedBuffer
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
size = 64 << 20
fd = os.memfd_create("x"); os.ftruncate(fd, size)
for start in range(0, size, 1 << 20):
    os.pwrite(fd, bytes(1 << 20), start)
before = rss()
shared = SharedBuffer(fd, size)
total = sum(len(piece) for piece in shared.pieces())
assert total == size
print(rss() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 8 << 20
