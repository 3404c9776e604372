"""What every fuzz target has: seeds, a way to change a case, and a run that raises if the product is at fault.

A case is a few bytes. `run` gives them to one parser. The typed errors that the parser promises are caught there. Every
other exception is a finding, and so are a case that takes too long and one that takes too much memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar, Self

from . import mutations

#: Processor time that one case may take, in seconds.
CASE_SECONDS = 10.0
#: Memory that the process may take while cases run, beyond what it had before, in bytes.
MEMORY = 1 << 30
#: Names the folder for the files of targets.
FOLDER_VARIABLE = "ENGINEROOM_FUZZ_FOLDER"


class Finding(AssertionError):
    """The product did what it must not do."""


class TooSlow(BaseException):
    """A case took more than `CASE_SECONDS`. Not an Exception: the product must not catch it."""


class Target(ABC):
    """One parser, and the bytes that it is given. Use it as a context manager: it may have files and threads."""

    #: what `make fuzz TARGET=` calls it
    name: ClassVar[str]
    #: bytes of a case at most
    longest: ClassVar[int] = 4096
    #: values that are put into cases, besides those that all targets have
    atoms: ClassVar[tuple[Any, ...]] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:  # noqa: B027  # most targets have nothing open
        """Close what is open."""

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Good cases. All others are made from them."""

    @abstractmethod
    def run(self, case: bytes) -> None:
        """Give a case to the parser. Raises whatever the parser may not raise, or a Finding."""

    def mutate(self, case: bytes, rng: Random) -> bytes:
        """A case that differs a little."""
        return mutations.change_bytes(case, rng)


class TreeTarget(Target):
    """A target whose cases are lists, dicts and values in msgpack. Most changes keep a case well-formed."""

    def mutate(self, case: bytes, rng: Random) -> bytes:
        return mutations.change_packed(case, rng, self.atoms)


@contextlib.contextmanager
def limits(memory: int = MEMORY) -> Iterator[None]:
    """Within, the process cannot take much more memory than it has: a MemoryError says so."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, before[1]))
    handler = signal.signal(signal.SIGPROF, _too_slow)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def run_case(target: Target, case: bytes, seconds: float = CASE_SECONDS) -> None:
    """Run a case, for a limited time. To be called in the main thread, within `limits`."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        target.run(case)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _too_slow(number: int, frame: object) -> None:
    raise TooSlow(f"a case took more than {CASE_SECONDS:g} s of processor time")


def memory_folder() -> str | None:
    """A folder whose files are in memory, where there is one: targets that write files are much faster there.

    The campaign names a folder, and removes it: libFuzzer ends its process without a chance to do so.
    """
    if FOLDER_VARIABLE in os.environ:
        return os.environ[FOLDER_VARIABLE]
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Complaints(logging.Handler):
    """Collects what the product logs as an error: a guarded bug is a bug. Other lines go nowhere meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger("engineroom")

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Self:
        self._before = self._logger.propagate, self._logger.level
        self._logger.propagate = False
        self._logger.setLevel(logging.WARNING)
        self._logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before[0]
        self._logger.setLevel(self._before[1])

    def check(self) -> None:
        """Raises Finding for the first complaint since the last check."""
        if self.records:
            first = self.records[0]
            self.records.clear()
            cause = first.exc_info[1] if first.exc_info else None
            raise Finding(f"it logged an error: {first.getMessage():.500}") from cause
