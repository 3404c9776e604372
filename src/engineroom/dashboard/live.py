"""What viewers are told again and again: one look at a time, shared by all who watch, and none while nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ..errors import EngineroomError
from .overview import Overview
from .source import Source

#: Seconds between two looks, at least; and in times of how long a look takes.
INTERVAL, RARELY = 1.0, 4
#: Seconds after which a connection is shown to be alive though there is no news.
SILENCE = 15.0


class Live:
    """Looks at the cluster while somebody watches, and hands each look to all."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.overview = Overview(source)
        self._latest: tuple[float, bytes] = (0.0, b"")
        self._number = 0
        self._news = asyncio.Condition()
        self._watchers = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._check: asyncio.Task[None] | None = None
        self._count: asyncio.Task[None] | None = None
        self._early: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()  # looks compare with the look before: there is one at a time

    async def look(self) -> bytes:
        """A look, at most a second old, as JSON."""
        async with self._one:
            if time.monotonic() - self._latest[0] >= INTERVAL:
                found: Any = await self._source.ask(self.overview.look)
                self._latest = (time.monotonic(), msgspec.json.encode(found))
                self._number += 1
                if self._count is None or self._count.done():
                    self._count = asyncio.create_task(self._count_past_engines())
            return self._latest[1]

    async def _count_past_engines(self) -> None:
        """No look waits for this."""
        with contextlib.suppress(TimeoutError):
            await self._source.ask(self.overview.count_past_engines)

    def expect_viewer(self) -> None:
        """A browser fetches the page, and will ask in a moment: look meanwhile."""
        if self._early is None or self._early.done():
            self._early = asyncio.create_task(self._look_early())

    async def _look_early(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self.look()

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, one for each look."""
        self._watchers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
            self._check = asyncio.create_task(self._check_source())
        try:
            latest = await self.look()
            seen = self._number
            yield b"retry: 1000\n\nevent: overview\ndata: " + latest + b"\n\n"
            while not self._closed:
                if not await self._is_newer_than(seen):
                    yield b": nothing new\n\n"
                    continue
                seen = self._number
                yield b"event: overview\ndata: " + self._latest[1] + b"\n\n"
        finally:
            self._watchers -= 1

    async def _is_newer_than(self, seen: int) -> bool:
        """Wait for the next look; False: there was none for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE), self._news:
                await self._news.wait_for(lambda: self._number != seen or self._closed)
        return self._number != seen

    async def _watch(self) -> None:
        while self._watchers > 0:
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await self.look()
            took = time.monotonic() - began
            async with self._news:
                self._news.notify_all()
            await asyncio.sleep(max(INTERVAL, RARELY * took))

    async def _check_source(self) -> None:
        """Notice that the cluster was killed, or runs again: questions to a killed one have no answer."""
        while self._watchers > 0:
            with contextlib.suppress(EngineroomError, OSError, TimeoutError):
                await asyncio.to_thread(self._source.records)
            await asyncio.sleep(INTERVAL)

    async def close(self) -> None:
        """Look no more, and end the streams."""
        self._closed = True
        async with self._news:
            self._news.notify_all()
        for task in (self._task, self._check, self._count, self._early):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
