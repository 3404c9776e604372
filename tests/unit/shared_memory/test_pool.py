"""The pool: pages are used again when nobody has them any more, and never before."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

from engineroom.shared_memory import pool as pool_module
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer, received
from engineroom.shared_memory.pool import Pool

SIZE = 4 * SHARED_FROM

#: A process that takes a buffer over, says so, and keeps it.
HOLDER = """
import socket, sys
from engineroom.shared_memory.buffer import received
ours = socket.socket(fileno=int(sys.argv[1]))
_, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
kept = received(descriptor, int(sys.argv[2]))
mine = kept.own_copy()
if sys.argv[3] == "mapped":
    del kept
ours.send(mine[:8])
ours.recv(1)
assert mine[-8:] == b"before__", mine[-8:]
"""


def content(text: bytes) -> bytes:
    return text * (SIZE // len(text))


def inode(shared: SharedBuffer) -> int:
    return os.fstat(shared.descriptor).st_ino


@pytest.fixture
def holder():
    """Hand a buffer to a new process: returns the process and the socket that leads to it."""
    started: list[tuple[subprocess.Popen[bytes], socket.socket]] = []

    def start(shared: SharedBuffer, how: str = "open"):
        ours, theirs = socket.socketpair()
        with theirs:
            args = [sys.executable, "-c", HOLDER, str(theirs.fileno()), str(len(shared)), how]
            process = subprocess.Popen(args, pass_fds=[theirs.fileno()])
        started.append((process, ours))
        socket.send_fds(ours, [b"x"], [shared.descriptor])
        assert ours.recv(8) == b"before__"
        return process, ours

    yield start
    for process, ours in started:
        process.kill()
        process.wait()
        ours.close()


def test_a_small_buffer_is_plain_bytes():
    assert type(Pool().copy(b"abc")) is bytes


def test_what_is_copied_is_what_it_was_at_that_moment():
    memory = bytearray(content(b"before__"))
    shared = Pool().copy(memory)
    memory[:8] = b"changed!"
    assert bytes(shared) == content(b"before__")


def test_any_contiguous_memory_is_copied_as_bytes():
    numbers = memoryview(content(b"12345678")).cast("d")
    assert bytes(Pool().copy(numbers)) == content(b"12345678")


def test_pages_are_used_again_once_the_buffer_is_gone():
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    number = inode(shared)
    other = pool.copy(content(b"other___"))
    assert inode(other) != number
    del shared
    again = pool.copy(content(b"after___")[:-100])
    assert inode(again) == number
    assert bytes(again) == content(b"after___")[:-100]
    assert bytes(other) == content(b"other___")


def test_an_own_copy_keeps_the_pages():
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    number, mine = inode(shared), shared.own_copy()
    del shared
    new = pool.copy(content(b"after___"))
    assert inode(new) != number
    assert bytes(mine) == content(b"before__")
    del mine, new
    assert number in {inode(buffer) for buffer in [pool.copy(content(b"again___")) for _ in range(3)]}


def test_a_descriptor_on_its_way_keeps_the_pages():
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    number = inode(shared)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [shared.descriptor])
        del shared
        assert inode(pool.copy(content(b"after___"))) != number
        _, [descriptor], _, _ = socket.recv_fds(theirs, 1, 1)
    assert bytes(received(descriptor, SIZE)) == content(b"before__")


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_another_process_keeps_the_pages_until_it_is_killed(holder, how):
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    number = inode(shared)
    process, _ = holder(shared, how)
    del shared
    assert inode(pool.copy(content(b"after___"))) != number
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = {inode(buffer) for buffer in [pool.copy(content(b"again___")) for _ in range(3)]}
    assert number in found


def test_what_another_process_has_outlives_the_pool_and_its_process(holder):
    pool = Pool()
    process, ours = holder(pool.copy(content(b"before__")))
    pool.close()
    del pool
    gc.collect()
    ours.send(b"x")
    assert process.wait(20) == 0


def test_a_forked_process_keeps_the_pages_and_makes_no_shared_buffers():
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    number = inode(shared)
    go_on, ready = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        good = type(pool.copy(content(b"child___"))) is bytes
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0 if good and bytes(shared) == content(b"before__") else 1)
    os.read(ready[0], 1)
    del shared
    assert inode(pool.copy(content(b"after___"))) != number
    os.write(go_on[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert number in {inode(buffer) for buffer in [pool.copy(content(b"again___")) for _ in range(3)]}
    for descriptor in (*go_on, *ready):
        os.close(descriptor)


def test_it_keeps_no_more_than_its_limit():
    pool = Pool(most=3 * SIZE)
    buffers = [pool.copy(content(b"before__")) for _ in range(6)]
    assert pool.kept_bytes == 0
    del buffers
    assert SIZE <= pool.kept_bytes <= 3 * SIZE


def test_pages_that_nobody_needs_go_back_to_the_system(monkeypatch):
    pool = Pool()
    pool.copy(content(b"before__"))
    pool.tidy()
    assert pool.kept_bytes >= SIZE
    monkeypatch.setattr(pool_module, "KEPT_SECONDS", -1.0)
    pool.tidy()
    assert pool.kept_bytes == 0


def test_a_blank_is_written_where_it_stays():
    pool = Pool()
    blank = pool.blank(len(content(b"one")))
    blank.room[:] = content(b"one")
    first = blank.finish()
    assert isinstance(first, SharedBuffer)
    assert bytes(first) == content(b"one")
    assert pool.kept_bytes == 0
    inodes, first, blank = inode(first), None, None
    gc.collect()
    again = pool.blank(len(content(b"two")))
    again.room[:] = content(b"two")
    second = again.finish()
    assert (inode(second), bytes(second)) == (inodes, content(b"two"))


def test_a_blank_that_is_given_up_leaves_nothing():
    before = len(os.listdir("/proc/self/fd"))
    pool = Pool()
    blank = pool.blank(SHARED_FROM)
    blank.room[:4] = b"half"
    blank = None
    gc.collect()
    assert (pool.kept_bytes, len(os.listdir("/proc/self/fd"))) == (0, before)
    assert pool.blank(SHARED_FROM - 1) is None


def test_a_blank_without_a_descriptor_is_memory(monkeypatch):
    blank = Pool().blank(len(content(b"one")))
    blank.room[:] = content(b"one")

    def none_left(*_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(pool_module.os, "open", none_left)
    made = blank.finish()
    assert not isinstance(made, SharedBuffer)
    assert bytes(made) == content(b"one")


def test_without_memory_there_is_no_blank(monkeypatch):
    def no_memory(*_):
        raise OSError(errno.ENOSPC, "no space left")

    pool, before = Pool(), len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(pool_module.os, "posix_fallocate", no_memory)
        assert pool.blank(SHARED_FROM) is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert pool.blank(SHARED_FROM) is not None  # it may be there the next time


def test_a_file_that_is_much_too_large_is_not_used():
    pool = Pool()
    pool.copy(bytes(100 * SHARED_FROM))
    small = pool.copy(bytes(SHARED_FROM))
    assert os.fstat(small.descriptor).st_size < 2 * SHARED_FROM


def test_with_too_few_descriptors_it_gives_bytes(monkeypatch):
    pool = Pool()
    shared = pool.copy(content(b"before__"))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2, 2))
    assert type(pool.copy(content(b"after___"))) is bytes
    assert bytes(shared) == content(b"before__")


#: Begins a process that may open 256 files.
LOW_LIMIT = """
import os, resource
from engineroom.shared_memory.buffer import SHARED_FROM, SharedBuffer, received
from engineroom.shared_memory.pool import Pool
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
def opened():
    return len(os.listdir("/proc/self/fd"))
pool, before = Pool(), opened()
def make(first):
    return pool.copy(bytes([first]) + bytes(SHARED_FROM))
"""


@pytest.mark.parametrize(
    "use",
    [
        "kept = [make(n) for n in range(200)]",
        "kept = [make(n) for n in range(200)]; kept = None; kept = [make(n) for n in range(200)]",
        "kept = [make(n) for n in range(30)]; kept = None; kept = [make(n) for n in range(200)]",
        "kept = [received(os.dup(one.descriptor), len(one)) for one in [make(1)] for _ in range(200)]",
        "first = make(1); kept = [first.own_copy() for _ in range(200)]",
        "first = [make(n) for n in range(20)]; kept = [one.own_copy() for one in first for _ in range(10)]",
        "kept = [make(n) for n in range(200)]; own = [received(os.dup(o.descriptor), len(o)) for o in kept"
        " if isinstance(o, SharedBuffer)]",
    ],
)
def test_all_buffers_of_a_process_together_take_half_of_its_descriptors(use):
    code = f"{LOW_LIMIT}{use}\nassert opened() - before <= 132, opened() - before\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_with_a_small_limit_nearly_all_is_left_to_others():
    code = f"""{LOW_LIMIT}
resource.setrlimit(resource.RLIMIT_NOFILE, (104, 104))
kept = [make(n) for n in range(50)]
assert opened() - before <= 12, opened() - before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_what_the_pool_keeps_makes_room_for_new_buffers():
    code = f"""{LOW_LIMIT}
kept = [make(n) for n in range(200)]
kept = None
larger = pool.copy(bytes(8 * SHARED_FROM))
assert isinstance(larger, SharedBuffer)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize(("code", "again"), [(errno.ENOSYS, bytes), (errno.EMFILE, SharedBuffer)])
def test_where_there_are_no_such_files_it_gives_bytes(monkeypatch, code, again):
    pool = Pool()

    def fails(*args):
        raise OSError(code, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fails)
        assert pool.copy(content(b"before__")) == content(b"before__")
    assert type(pool.copy(content(b"before__"))) is again


def test_it_leaves_no_descriptors():
    pool = Pool()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        pool.copy(content(b"before__")).own_copy()
    pool.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_may_use_it_at_the_same_time():
    pool, good = Pool(), []

    def work(number: int) -> None:
        mine = content(b"%08d" % number)
        good.append(all(bytes(pool.copy(mine)) == mine for _ in range(30)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 4


def test_a_bytes_object_is_copied_once_as_long_as_the_copy_lives():
    pool, constant = Pool(), content(b"constant")
    first = pool.copy(constant)
    assert pool.copy(memoryview(constant)) is first
    assert pool.copy(memoryview(constant)[:-8]) is not first
    assert pool.copy(bytearray(constant)) is not first
    number = inode(first)
    del first
    other = pool.copy(content(b"other___"))
    assert (inode(other), bytes(other)) == (number, content(b"other___"))
    again = pool.copy(constant)
    assert bytes(again) == constant
    assert inode(again) != number


def test_a_bytes_object_is_not_kept_longer_than_its_copy():
    pool = Pool()
    pool.copy(content(b"constant"))
    assert not pool._constants


def test_a_long_tail_of_pages_goes_back_earlier(monkeypatch):
    pool = Pool()
    buffers = [pool.copy(content(b"%08d" % number)) for number in range(4)]
    del buffers
    monkeypatch.setattr(pool_module, "MANY", 2 * pool.kept_bytes // 4)
    monkeypatch.setattr(pool_module, "MANY_KEPT_SECONDS", -1.0)
    pool.tidy()
    assert SIZE <= pool.kept_bytes <= pool_module.MANY


def test_memory_that_is_sent_again_unchanged_is_copied_once():
    pool = Pool()
    memory = bytearray(content(b"before__"))
    first = pool.copy(memory)
    assert pool.copy(memory) is first
    memory[-1] ^= 1
    second = pool.copy(memory)
    assert second is not first
    assert bytes(second) == memory
    assert first[-1] != second[-1]


def test_a_held_copy_has_no_other_user_and_makes_room_for_what_is_new():
    pool = Pool(held=SIZE)
    memory = bytearray(content(b"before__"))
    number = inode(pool.copy(memory))
    assert inode(pool.copy(memory)) == number, "though nobody had it any more"
    memory[:8] = b"changed!"
    changed = pool.copy(memory)
    assert bytes(changed) == memory
    assert inode(changed) == number, "its old copy had no user"
    other = pool.copy(bytearray(content(b"other___")))
    del changed
    assert inode(pool.copy(bytearray(content(b"third___")))) != inode(other)


def test_held_copies_go_after_a_while(monkeypatch):
    pool = Pool(held=4 * SIZE)
    memory = bytearray(content(b"before__"))
    pool.copy(memory)
    assert pool.kept_bytes == 0, "it is held"
    monkeypatch.setattr(pool_module, "KEPT_SECONDS", -1.0)
    pool.tidy()
    assert pool._held == {}


def test_the_pages_of_held_copies_are_not_kept_once_more(monkeypatch):
    pool = Pool(held=4 * SIZE)
    pool.copy(content(b"held____"))
    monkeypatch.setattr(pool_module, "KEPT_SECONDS", 0.0)
    pool.tidy()
    monkeypatch.undo()
    assert pool.kept_bytes == 0
