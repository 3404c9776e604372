"""Waiting for the engines of a cluster: with what their launchers say if they do not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING

from ...errors import EngineError, LaunchError, TimeoutError
from .engine_sets import EngineSets

if TYPE_CHECKING:
    from ...client import Client  # imported late: see `cluster.py`

#: Seconds between two looks at whether the launchers run.
LOOK_SECONDS = 0.1
#: Seconds in which a client of a cluster that is stopped hands over its last tasks, to be recorded as aborted.
LAST_TASKS_SECONDS = 10.0
#: Engines may say goodbye to their launcher a moment before the client hears of them.
SETTLE_SECONDS = 1.0


def wait_for_engines(
    client: Client, n: int, sets: EngineSets, timeout: float, tell: Callable[[int], None] = lambda count: None
) -> None:
    """Wait until a client has `n` engines. See `Cluster.wait_for_engines_sync`."""
    waiting = client.wait_for_engines(n, timeout=timeout, block=False)
    assert waiting is not None
    short_since = None
    while True:
        try:
            waiting.result(LOOK_SECONDS)
            return
        except (FutureTimeout, TimeoutError) as error:
            if waiting.done():
                why = sets.explain() or sets.last_words()
                raise TimeoutError(f"{error}. {why}" if why else str(error)) from None
        except EngineError as error:
            why = sets.explain()
            raise (LaunchError(f"{error}. {why}") if why else error) from None
        tell(len(client))
        if not sets.missing:
            short_since = None
        elif short_since is None:
            short_since = time.monotonic()
        elif time.monotonic() - short_since > SETTLE_SECONDS and not waiting.done():
            raise LaunchError(f"{len(client)} of {n} engines came, and not all others can come. {sets.explain()}")
