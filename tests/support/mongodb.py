"""A server that speaks MongoDB's protocol, for the tests: the one that $MONGODB_URI names, or FerretDB.

FerretDB (with SQLite inside) is built once with the machine's Go, from its published module, into `.cache/`:
`make mongodb`, or `python tests/support/mongodb.py`. Where neither can be had, the tests that need it are skipped,
and pytest's summary says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "ferretdb"
BUILD_SECONDS = 900
STOP_SECONDS = 10

HOW = "set MONGODB_URI, or have Go and run `make mongodb`"


def binary() -> Path:
    """Where the built server is, or will be: another place for another source."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")))
    return ROOT / ".cache" / "ferretdb" / digest.hexdigest()[:16] / "ferretdb"


def build() -> str | None:
    """Build the server unless it is there; returns why it cannot be had."""
    place = binary()
    if place.exists():
        return None
    if shutil.which("go") is None:
        return "Go is not installed"
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(f"ferretdb.{os.getpid()}")
    command = ["go", "build", "-trimpath", "-tags", "ferretdb_no_postgresql", "-o", str(made), "."]
    try:
        subprocess.run(command, cwd=SOURCE, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        return f"go build failed: {lines[-1]}"
    except subprocess.TimeoutExpired:
        return f"go build took more than {BUILD_SECONDS} s"
    made.replace(place)
    return None


class Server:
    """FerretDB, in a process of its own with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start it; again, at the address that it had."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [str(binary()), str(self._folder), self._address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the server did not start"
        self._address = self.url.removeprefix("mongodb://").rstrip("/")

    def freeze(self, frozen: bool = True) -> None:
        """Have it do nothing more, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)
        threads, deadline = Path(f"/proc/{self._process.pid}/task"), time.monotonic() + STOP_SECONDS
        while frozen and not all(") T " in thread.read_text() for thread in threads.glob("*/stat")):
            assert time.monotonic() < deadline, "the server does not stop"
            time.sleep(0.001)  # a thread on another core may go on for a moment

    def stop(self, kill: bool = False) -> None:
        """Stop it, politely or not."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        if kill:
            process.kill()
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main() -> None:
    began = time.monotonic()
    if not binary().exists():
        print("building FerretDB for the tests (once) …", flush=True)
        problem = build()
        if problem:
            print(f"*** THE MONGODB TESTS WILL BE SKIPPED: {problem}. To have them, {HOW}. ***", file=sys.stderr)
        else:
            print(f"built in {time.monotonic() - began:.0f} s: {binary().relative_to(ROOT)}")


if __name__ == "__main__":
    main()
