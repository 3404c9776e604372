"""Waiting for the engines of a cluster: with what their launchers say if they do not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout

from ..client import Client
from ..errors import EngineError, LaunchError, TimeoutError
from .engine_sets import EngineSets

#: Seconds between two looks at whether the launchers run.
LOOK_SECONDS = 0.1
#: Engines may say goodbye to their launcher a moment before the client hears of them.
SETTLE_SECONDS = 1.0


def wait_for_engines(
    client: Client, n: int, sets: EngineSets, timeout: float, tell: Callable[[int], None] = lambda count: None
) -> None:
    """Wait until a client has `n` engines. See `Cluster.wait_for_engines_sync`."""
    waiting = client.wait_for_engines(n, timeout=timeout, block=False)
    assert waiting is not None
    ended_since = None
    while True:
        try:
            waiting.result(LOOK_SECONDS)
            return
        except (FutureTimeout, TimeoutError) as error:
            if waiting.done():
                why = sets.explain()
                raise TimeoutError(f"{error}. {why}" if why else str(error)) from None
        except EngineError as error:
            why = sets.explain()
            raise (LaunchError(f"{error}. {why}") if why else error) from None
        tell(len(client))
        if sets.running:
            ended_since = None
        elif ended_since is None:
            ended_since = time.monotonic()
        elif time.monotonic() - ended_since > SETTLE_SECONDS and not waiting.done():
            raise LaunchError(f"{len(client)} of {n} engines came, and what started them has ended. {sets.explain()}")
