"""Files in memory in the place of file descriptors 1 and 2."""

from __future__ import annotations

import os
import subprocess

import pytest

from engineroom.engine.execution import captured
from engineroom.engine.execution.captured import Captured, CaptureFiles
from engineroom.engine.shared_page import SharedPage


@pytest.fixture
def files():
    made = CaptureFiles()
    yield made
    made.close()


@pytest.fixture
def page():
    made = SharedPage()
    yield made
    made.close()


@pytest.fixture
def descriptor(tmp_path):
    """A file descriptor that leads to a log, in the place of 1."""
    number = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    yield number
    os.close(number)


@pytest.fixture
def stream(files, page, descriptor):
    made = Captured(descriptor, files.descriptors[0], 0, page, 1000)
    yield made
    made.log.close()


def test_what_is_written_is_read_once(stream, descriptor):
    assert stream.read() == ("", 0)
    os.write(descriptor, b"one\n")
    subprocess.run(["echo", "two"], stdout=descriptor, check=True)
    assert stream.read() == ("one\ntwo\n", 0)
    assert stream.read() == ("", 0)


def test_a_character_that_comes_in_two_pieces_is_whole(stream, descriptor):
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    os.write(descriptor, first)
    assert stream.read() == ("", 0)
    os.write(descriptor, second)
    assert stream.read() == ("ü", 0)


def test_what_is_beyond_the_limit_is_counted(stream, descriptor):
    os.write(descriptor, b"x" * 3000)
    assert stream.read() == ("x" * 1000, 2000)
    os.write(descriptor, b"y")
    assert stream.read() == ("y", 0)


def test_a_large_file_is_emptied(stream, descriptor, files, page, monkeypatch):
    monkeypatch.setattr(captured, "LARGEST", 100)
    for _ in range(3):
        os.write(descriptor, b"x" * 200)
        assert stream.read() == ("x" * 200, 0)
        assert os.fstat(files.descriptors[0]).st_size == 0
    assert page.output_read(0) == 0


def test_a_file_that_a_shell_has_emptied_is_read_from_its_beginning(stream, descriptor):
    os.write(descriptor, b"before\n")
    assert stream.read() == ("before\n", 0)
    subprocess.run("echo new > /dev/fd/1", shell=True, stdout=descriptor, check=True)
    assert stream.read() == ("new\n", 0)


def test_the_last_words_of_a_dead_engine_are_what_it_has_not_read(stream, descriptor, files, page, monkeypatch):
    os.write(descriptor, b"read\n")
    stream.read()
    assert files.last_words(page) == b""
    os.write(descriptor, b"not read\n")
    os.write(files.descriptors[1], b"nor this\n")
    assert files.last_words(page) == b"not read\nnor this\n"
    monkeypatch.setattr(captured, "LAST_WORDS", 5)
    assert files.last_words(page) == b"read\nthis\n"


def test_without_files_in_memory_files_on_disk_serve(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    files = CaptureFiles()
    os.write(files.descriptors[0], b"one")
    os.lseek(files.descriptors[0], 0, os.SEEK_SET)
    os.write(files.descriptors[0], b"two")
    assert os.pread(files.descriptors[0], 10, 0) == b"onetwo", "writers append"
    files.close()
