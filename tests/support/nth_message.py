"""Kills a process of a cluster at its n-th operation on a socket or on shared memory, or has that operation fail.

n = 1, 2, 3 … until a pass is clean. The processes have the library of `nth_operation.c` loaded. Before each pass one of
them is armed: a controller, a nanny, a zygote or an engine by a signal, a client by itself. Then a program works with
the cluster: small and large arguments and results, a push, a pull, a task that takes another's result, an engine that
dies. All of it must end, with the right values.

    LD_PRELOAD=nth_operation.so python tests/support/nth_message.py PROFILE_DIR N ERROR

is the client that arms itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import psutil

import engineroom as er

#: The signal that arms a process.
ARM = signal.SIGRTMIN + 5
#: Bytes of large data: they travel in shared memory.
LARGE = 1_500_000
#: Seconds within which all has to end, whatever fails.
PATIENCE = 60.0
#: A program with more operations in one process is too large for this.
MOST = 3000


def work(rc: er.Client, folder: Path, *, engine_dies: bool = False, may_lose_direct: bool = False) -> list[str]:
    """The program; returns the ids of its tasks.

    `engine_dies`: one of the tasks kills its engine, once. `may_lose_direct`: an engine may die at any moment, and with
    it what it alone was to do.
    """
    balanced = rc.load_balanced_view(retries=5)
    data = numpy.frombuffer(os.urandom(LARGE), numpy.uint8)
    run = functools.partial(submitted, rc)
    few = run(lambda: balanced.map_async(lambda x: x * x, range(4), chunksize=2))
    taken = run(lambda: balanced.apply_async(lambda given: int(given.sum()), data))
    made = run(lambda: balanced.apply_async(numpy.arange, LARGE // 8))
    printed = run(lambda: balanced.apply_async(lambda: print("said") or bytearray(LARGE)))
    followed = run(lambda: balanced.apply_async(lambda given: given[:300], made))
    tasks = [few, taken, made, printed, followed]
    if engine_dies:
        tasks.append(run(lambda: balanced.apply_async(die_once, str(folder / f"died-{os.urandom(8).hex()}"))))
        assert tasks[-1].get(PATIENCE) == "lives"
    assert few.get(PATIENCE) == [0, 1, 4, 9]
    assert taken.get(PATIENCE) == int(data.sum())
    assert (made.get(PATIENCE) == numpy.arange(LARGE // 8)).all()
    assert printed.get(PATIENCE) == bytearray(LARGE)
    assert printed.stdout == "said\n"
    assert followed.get(PATIENCE).tolist() == list(range(300))
    with (
        contextlib.suppress(er.EngineError, er.NoEnginesRegistered, IndexError)
        if may_lose_direct
        else contextlib.nullcontext()
    ):
        one = rc[rc.ids[-1]]
        one.push({"pushed": data}).get(PATIENCE)
        assert (one.pull("pushed").get(PATIENCE) == data).all()
    return [id for result in tasks for id in result.msg_ids]


def submitted(rc: er.Client, call: Callable[[], Any]) -> Any:
    """What a call gives. A nanny may have been killed, and the next one has not said yet that it starts engines."""
    while True:
        try:
            return call()
        except er.NoEnginesRegistered:
            rc.wait_for_engines(1, timeout=PATIENCE)


def die_once(path: str) -> str:
    """A task that kills its engine, unless this file is there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "lives"
    os._exit(7)


class Armed:
    """Arms processes, and says what has failed. `folder` must be there before the processes start."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "armed"
        self._hit = folder / "armed.hit"

    def arm(self, process: psutil.Process, n: int, error: int, files: str = "") -> None:
        """From now on, count the operations of this process; the n-th fails (-2: it hangs until `go_on`).

        `files`: count those on files whose paths begin like this; "": those of sockets and shared memory.
        """
        self.write(n, error, files)
        process.send_signal(ARM)  # never to another process that has got its number

    def disarm(self, process: psutil.Process) -> None:
        """Count no more."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.arm(process, 0, 0)

    def write(self, n: int, error: int, files: str = "") -> None:
        """What the next one who is armed reads."""
        self._hit.unlink(missing_ok=True)
        self.file.write_text(f"{n} {error} {files}".rstrip())

    def go_on(self) -> None:
        """What hangs goes on."""
        self.file.with_name(f"{self.file.name}.go").touch()

    def failed(self) -> str | None:
        """The operation that failed; None: there were fewer."""
        return self._hit.read_text() if self._hit.exists() else None


def main() -> None:
    """The client that arms itself."""
    profile, n, error = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ctypes.CDLL(None).nth_arm(n, error, b"")
    with er.Client(profile_dir=profile) as rc:
        print(json.dumps(work(rc, Path(profile))))


if __name__ == "__main__":
    main()
