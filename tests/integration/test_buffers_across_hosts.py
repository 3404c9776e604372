"""Over TCP, large buffers come to a host once, and its engines share them."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import hold, processes_of, wait_until

import engineroom as er

SIZE = 4 << 20


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[er.Client]:
    folder = tmp_path_factory.mktemp("tcp")
    with er.Cluster(n=3, controller_ip="127.0.0.1", profile_dir=folder / "profile_default") as client:
        yield client
    wait_until(lambda: not processes_of(folder))


def numbers(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, SIZE, dtype=np.uint8)


def is_shared(array: Any) -> bool:
    """Whether an array lies in pages that other processes of this host have, too."""
    memory = array
    while True:
        deeper = memory.obj if isinstance(memory, memoryview) else getattr(memory, "base", None)
        if deeper is None:
            return type(memory).__name__ == "_OwnCopy"
        memory = deeper


def break_borrowing() -> None:
    """On an engine: nobody answers where it asks for buffers."""
    import gc

    from engineroom.transport.lending import BorrowingLink

    [link] = [found for found in gc.get_objects() if isinstance(found, BorrowingLink)]
    link._borrower.forget()
    link._borrower._name = "\0nobody"


def total(array: Any, index: int) -> tuple[int, bool]:
    return int(array[index]), is_shared(array)


def test_what_is_pushed_is_shared_and_each_engine_may_change_its_own(rc: er.Client):
    array = numbers(1)
    rc[:].push({"pushed": array}, block=True)
    assert rc[:].apply_sync(is_shared, er.Reference("pushed")) == [True] * 3
    rc[0].execute("pushed[:] = 0", block=True)
    assert rc[:].apply_sync(np.sum, er.Reference("pushed")) == [0, int(array.sum()), int(array.sum())]


def test_a_map_over_a_large_array_has_it_on_every_engine(rc: er.Client):
    array = numbers(2)
    found = rc.load_balanced_view().map_sync(functools.partial(total, array), range(50), chunksize=1)
    assert found == [(int(array[index]), True) for index in range(50)]


def test_results_that_are_arguments_are_shared_too(rc: er.Client):
    view = rc.load_balanced_view()
    made = view.apply_async(numbers, 3)
    found = [view.apply_async(total, made, index) for index in range(6)]
    assert [ar.get()[0] for ar in found] == list(map(int, numbers(3)[:6]))


def make(gate: str, seed: int) -> Any:
    hold(gate)
    return numbers(seed)


def inode_of(array: Any) -> int:
    """Of the file in memory in which an array lies."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < end:
            return int(line.split()[4])
    raise LookupError


def inodes() -> set[int]:
    """Of the files that this process has open, or mapped."""
    found = {int(line.split()[4]) for line in Path("/proc/self/maps").read_text().splitlines()}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/self/fd/{descriptor}").st_ino)
    return found


def test_a_result_is_mapped_where_it_was_made(rc: er.Client, gate: Path):
    made = rc.load_balanced_view([0]).apply_async(make, str(gate), 8)
    found = [rc.load_balanced_view([engine]).apply_async(inode_of, made) for engine in (1, 2, 1)]
    values = rc.load_balanced_view([2]).apply_async(total, made, 5)
    gate.touch()
    assert len({ar.get() for ar in found}) == 1
    assert found[0].get() in rc[0].apply_sync(inodes)
    assert values.get() == (numbers(8)[5], True)


def test_an_engine_that_cannot_borrow_gets_the_buffer_itself(rc: er.Client):
    rc[0].apply_sync(break_borrowing)
    array = numbers(4)
    rc[:].push({"sent": array}, block=True)
    assert rc[:].apply_sync(total, er.Reference("sent"), 7) == [
        (array[7], False), (array[7], True), (array[7], True),
    ]  # fmt: skip


def test_while_the_nanny_is_stopped_messages_wait_for_their_buffers(rc: er.Client):
    engine = psutil.Process(rc[1].apply_sync(os.getpid))
    nanny = engine.parent().parent()
    array = numbers(5)
    nanny.send_signal(signal.SIGSTOP)
    try:
        pushed = rc[1].push({"late": array}, block=False)
        behind = rc[1].apply_async(np.sum, er.Reference("late"))
        assert not pushed.wait(0.2)
    finally:
        nanny.send_signal(signal.SIGCONT)
    assert behind.get() == int(array.sum())


def test_an_engine_that_takes_the_place_of_a_dead_one_borrows_too(rc: er.Client):
    pid = rc[2].apply_sync(os.getpid)
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        with contextlib.suppress(er.EngineError, IndexError):  # it has not been noticed, or the new one is not there
            return bool(rc[2].apply_sync(os.getpid) != pid)
        return False

    wait_until(is_back)
    assert rc[2].apply_sync(total, numbers(6), 9) == (int(numbers(6)[9]), True)
