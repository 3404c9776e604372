"""A nanny as the child of another system's worker: what the launchers for Dask and for Ray have in common.

The connection file reaches the nanny through its stdin, and the nanny ends, with its engines, when its stdin ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .base import OUTPUT_BYTES, LaunchRequest


def shares(n: int, most: int) -> list[int]:
    """How many engines each of several nannies has, if one has `most`: the last one has the rest."""
    full, rest = divmod(n, most)
    return [most] * full + ([rest] if rest else [])


def start_nanny(
    command: Sequence[str], environment: Mapping[str, str], connection: bytes, output: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a nanny here, with this Python, and tell it the connection."""
    nanny = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert nanny.stdin is not None
    with contextlib.suppress(OSError):  # it has ended
        nanny.stdin.write(connection + b"\n")
        nanny.stdin.flush()
    return nanny


def end_of_output(output: IO[bytes]) -> str:
    """The end of what a nanny has printed."""
    output.seek(max(0, output.seek(0, os.SEEK_END) - OUTPUT_BYTES))
    return output.read().decode(errors="replace")


def wait_until(is_done: Callable[[], bool], timeout: float | None) -> bool:
    """Look again and again; returns whether it is done within so many seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not is_done():
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def request_of_another(described: Mapping[str, Any]) -> LaunchRequest:
    """For engines of another process: only that process can end them, or the end of its controller."""
    return LaunchRequest(
        n=0, command=[], environment={}, connection_file=Path(), log_file=Path(described["log_file"]), set_id=""
    )
