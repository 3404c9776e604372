"""Waiting for engines: when it ends, and when it is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engineroom.client import engines as module
from engineroom.client.engines import Engines
from engineroom.errors import EngineError, TimeoutError


class Changed:
    """A condition in a time of its own: a wait takes as long as it is told to, or until the next change."""

    def __init__(self, channel: Any, changes: list[tuple[float, int, int]]) -> None:
        self.now, self._channel, self._changes = 0.0, channel, changes

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

    def wait(self, seconds: float | None) -> None:
        until = float("inf") if seconds is None else self.now + seconds
        if self._changes and self._changes[0][0] <= until:
            self.now, here, self._channel.starting = self._changes.pop(0)
            self._channel.engines = list(range(here))
        else:
            assert until < float("inf"), "it would wait for ever"
            self.now = until


def waited(
    monkeypatch: pytest.MonkeyPatch, changes: list[tuple[float, int, int]], *, n: int, timeout: float | None = None
) -> float:
    """How long a wait for `n` engines took; `changes`: when, how many engines, and how many that are starting."""
    channel = SimpleNamespace(engines=[], starting=2, failure=None)
    channel.changed = changed = Changed(channel, changes)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: changed.now))
    Engines(channel).wait_for(n, timeout)
    return changed.now


def test_a_nanny_that_is_started_again_may_take_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(monkeypatch, [(1.0, 0, 0), (3.5, 0, 2), (60.0, 2, 0)], n=2) == 60.0


def test_when_nobody_starts_others_the_wait_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="only 1 of 2 engines came, and no more are starting"):
        waited(monkeypatch, [(1.0, 1, 1), (2.0, 1, 0)], n=2, timeout=60)


def test_the_limit_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError, match="1 of 2 engines were there after 3 s"):
        waited(monkeypatch, [(1.0, 1, 1), (2.0, 1, 0)], n=2, timeout=3)
