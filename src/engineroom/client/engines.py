"""The engines of a cluster, as a client knows them: which `targets` names, waiting for some, signalling, stopping."""

from __future__ import annotations

import math
import operator
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from ..errors import EngineError, NoEnginesRegistered, TimeoutError
from ..ids import EngineId
from ..messages import SignalEngines, StopEngines, signal_number
from .connection.channel import Channel
from .connection.connecting import how_to_start_engines

#: Who waits for engines with a progress bar is told this often how many are there.
TELL_SECONDS = 0.2
#: A wait for engines to leave that takes longer is told.
NOTICE_SECONDS = 3.0
#: Fewer engines are there or starting than there were: after so many seconds nobody starts others in their place.
RESTART_SECONDS = 3.0


class Engines:
    """The engines that a channel is told of."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: number → uuid, also of engines that are gone
        self._uuids: dict[int, str] = {}

    @property
    def ids(self) -> list[EngineId]:
        """Numbers of the engines, sorted."""
        return [engine.id for engine in self._channel.engines]

    def __len__(self) -> int:
        return len(self._channel.engines)

    def uuid_of(self, id: EngineId) -> str | None:
        """The uuid of the engine that has, or last had, this number."""
        for engine in self._channel.engines:
            self._uuids[engine.id] = engine.uuid
        return self._uuids.get(id)

    def require(self) -> None:
        """Raise NoEnginesRegistered if there are no engines, and none are starting."""
        channel = self._channel
        if channel.engines or channel.starting:
            return
        if channel.failure is not None:
            raise channel.failure_error()
        raise self.none_here()

    def none_here(self) -> NoEnginesRegistered:
        """The error for a call that needs engines now."""
        starting, command = self._channel.starting, how_to_start_engines(self._channel.info, 4)
        how = f"{starting} are starting:" if starting else f"start some with {command}, or"
        return NoEnginesRegistered(f"there are no engines; {how} wait for them with client.wait_for_engines()")

    def resolve(self, targets: Any) -> list[EngineId]:
        """Engine numbers for an int (negative: from the end), a slice, a list or "all"."""
        if self._channel.failure is not None:
            raise self._channel.failure_error()
        ids = self.ids
        if targets is None or (isinstance(targets, str) and targets == "all"):
            return ids
        if not isinstance(targets, bool) and hasattr(targets, "__index__"):  # numpy's integers are integers too
            targets = operator.index(targets)
        elif hasattr(targets, "tolist"):
            targets = targets.tolist()
        if isinstance(targets, bool) or not isinstance(targets, int | slice | list | tuple | range | set):
            raise TypeError(f"targets are an int, a slice, a list of ints or 'all'; got {targets!r}")
        if isinstance(targets, slice):
            return ids[targets]
        if isinstance(targets, int):
            if targets < 0 and -targets <= len(ids):
                return [ids[targets]]
            if targets not in ids:
                raise IndexError(f"there is no engine {targets}; there are {_listed(ids)}{self._coming()}")
            return [EngineId(targets)]
        return [self.resolve(target)[0] for target in targets]

    def _coming(self) -> str:
        starting = self._channel.starting
        return f", and {starting} are starting: wait for them with client.wait_for_engines()" if starting else ""

    def named(self, targets: Any) -> list[EngineId] | None:
        """The engines that are named; None for "all": the controller knows best which those are."""
        return None if targets is None or (isinstance(targets, str) and targets == "all") else self.resolve(targets)

    def wait_for(self, n: int, timeout: float | None, tell: Callable[[int], object] | None = None) -> None:
        """Wait until `n` engines are there; see `Client.wait_for_engines`.

        `tell` is called, now and then, with how many are there.
        """
        channel = self._channel
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        seen, given_up_at = 0, math.inf
        with channel.changed:
            while (here := len(channel.engines) - len(channel.absent)) < n:
                if channel.failure is not None:
                    raise channel.failure_error()
                starting, now = channel.starting + len(channel.absent), time.monotonic()
                if here + starting < min(n, seen):  # what started has ended; a nanny may be started again
                    given_up_at = min(given_up_at, now + RESTART_SECONDS)
                else:
                    given_up_at = math.inf
                if now >= given_up_at:
                    raise EngineError(
                        f"only {here} of {n} engines came, and no more are starting: see the log of the "
                        "engines in the profile's log folder"
                    )
                seen = max(seen, here + starting)
                if tell is not None:
                    tell(here)
                left = math.inf if deadline is None else deadline - now
                if left <= 0:
                    raise TimeoutError(f"{here} of {n} engines were there after {timeout:g} s")
                left = min(left, given_up_at - now, math.inf if tell is None else TELL_SECONDS)
                channel.changed.wait(None if left == math.inf else left)

    def wait_in_background(self, n: int, timeout: float | None) -> Future[None]:
        """The same in a thread of its own; the Future is done once that has ended. To cancel it is to end the wait."""
        future: Future[None] = Future()

        def look(_: int) -> None:
            if future.cancelled():
                raise CancelledError

        def run() -> None:
            failed: Exception | None = None
            try:
                self.wait_for(n, timeout, look)
            except Exception as error:
                failed = error
            if future.set_running_or_notify_cancel():
                future.set_result(None) if failed is None else future.set_exception(failed)

        threading.Thread(target=run, daemon=True).start()
        return future

    def send_signal(self, sig: int | str, targets: Any) -> None:
        """Send a signal to engine processes, by number or name; None: to all."""
        self._channel.ask(SignalEngines(signal_number(sig), None if targets is None else self.resolve(targets)))

    def stop(self, targets: Any, *, wait: bool, restart: bool = False, timeout: float | None = None) -> None:
        """Stop engines once they have finished what they are running. A long wait is told on stderr.

        Parameters
        ----------
        wait : bool
            Return when they are gone; with `restart`, when the new ones are there.
        restart : bool
            A new engine takes the number of each.
        timeout : float, optional
            Seconds that the wait may take; None: no limit.

        Raises
        ------
        TimeoutError
            Engines are still there. They leave later.
        """
        channel = self._channel
        before, starting = {engine.id: engine.uuid for engine in channel.engines}, channel.starting
        stopping = set(channel.ask(StopEngines(self.named(targets), restart)))

        def missing() -> str:
            """What we wait for; "": it has come about."""
            now = {engine.id: engine.uuid for engine in channel.engines}
            if here := sorted(id for id in stopping if id in before and now.get(id) == before[id]):
                leave = f"engine {here[0]} leaves once what it runs has ended"
                if len(here) > 1:
                    leave = f"engines {_listed(here)} leave once what they run has ended"
                return f"{leave}; rc.cancel(targets=…) ends that"
            if restart and (gone := sorted(stopping - set(now))):
                return f"no new engines have come yet in the place of {_listed(gone)}"
            return ""

        if wait:
            self._wait_until_left(missing, timeout)
            with channel.changed:
                if not restart:  # an engine that has left counts as starting until its nanny has seen its process end
                    channel.changed.wait_for(lambda: channel.starting <= starting or channel.failure, RESTART_SECONDS)

    def _wait_until_left(self, missing: Callable[[], str], timeout: float | None) -> None:
        """Wait until nothing is missing, and tell the user what is if that takes long."""
        channel = self._channel
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        notice = time.monotonic() + NOTICE_SECONDS
        try:
            with channel.changed:
                while (what := missing()) and channel.failure is None:
                    now = time.monotonic()
                    if now >= deadline:
                        raise TimeoutError(f"after {timeout:g} s, {what}")
                    if now >= notice:
                        notice = math.inf
                        print(f"engineroom: waiting: {what}", file=sys.stderr)
                    left = min(deadline, notice) - now
                    channel.changed.wait(None if left == math.inf else left)
        except KeyboardInterrupt as error:
            if what := missing():
                error.add_note(what)
            raise


def _listed(ids: Sequence[int]) -> str:
    if not ids:
        return "none"
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{len(ids)}: {ids[0]} … {ids[-1]}"
