"""How the C library divides the memory of a process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="NOT TESTED: this C library is not glibc"
)

PROGRAM = """
import ctypes, sys, threading
from engineroom.system.heap import one_heap

if sys.argv[1] == "one":
    one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(4)


def allocate():
    libc.malloc(1000)
    together.wait()


threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fflush.argtypes = [ctypes.c_void_p]
libc.malloc_info(0, libc.fdopen(1, b"w"))
libc.fflush(None)
"""

#: Prints how many blocks have pages of their own before and after one of 1 MiB is taken, when a larger one was given
#: back. (The file is there before.)
LARGE_PROGRAM = """
import ctypes, re, sys
from engineroom.system.heap import one_heap

if sys.argv[1] == "one":
    one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fflush.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
file = libc.fopen(sys.argv[2].encode(), b"w")


def own_pages():
    libc.malloc_info(0, file)
    libc.fflush(file)
    return int(re.findall('type="mmap" count="(\\d+)"', open(sys.argv[2]).read())[-1])


own_pages()
libc.free(libc.malloc(4 << 20))
before = own_pages()
libc.malloc(1 << 20)
print(own_pages() - before)
"""


def run(program: str, *arguments: str) -> str:
    """What a program prints. Dask sets variables of the C library for what is started later: not here."""
    command = [sys.executable, "-c", program, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def test_threads_share_one_heap():
    assert run(PROGRAM, "as usual").count("<heap nr=") > 1
    assert run(PROGRAM, "one").count("<heap nr=") == 1


def test_large_blocks_stay_out_of_it(tmp_path: Path):
    assert run(LARGE_PROGRAM, "as usual", str(tmp_path / "usual")) == "0\n"
    assert run(LARGE_PROGRAM, "one", str(tmp_path / "one")) == "1\n"
