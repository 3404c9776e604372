"""Waiting for engines: when it ends, and when it is given up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
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
    channel = SimpleNamespace(engines=[], absent={}, starting=2, failure=None)
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


def test_engines_that_have_not_come_back_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller was restarted: both are listed, and neither is there."""
    channel = SimpleNamespace(engines=[0, 1], absent={0: "a", 1: "b"}, starting=0, failure=None)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    waits = iter([lambda: channel.absent.pop(0), lambda: channel.absent.pop(1)])
    channel.changed = contextlib.nullcontext()
    channel.changed.wait = lambda seconds: next(waits)()  # type: ignore[attr-defined]
    Engines(channel).wait_for(2, None)  # type: ignore[arg-type]
    assert not channel.absent


class Leaving:
    """A channel whose engines leave, or come back, at given times: (when, {number: uuid})."""

    starting, failure = 0, None

    def __init__(self, changes: list[tuple[float, dict[int, str]]], interrupt_at: float = float("inf")) -> None:
        self.now, self.changed, self._changes, self._interrupt_at = 0.0, self, changes, interrupt_at
        self._have(changes.pop(0)[1])

    def _have(self, engines: dict[int, str]) -> None:
        self.absent: dict[int, Any] = {}
        self.engines = [SimpleNamespace(id=id, uuid=uuid) for id, uuid in engines.items()]

    def ask(self, body: Any) -> list[int]:
        return [0, 1]

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

    def wait_for(self, ready: Callable[[], Any], timeout: float) -> None:
        assert ready()

    def wait(self, seconds: float | None) -> None:
        until = float("inf") if seconds is None else self.now + seconds
        if self._changes and self._changes[0][0] <= min(until, self._interrupt_at):
            self.now, engines = self._changes.pop(0)
            self._have(engines)
        elif self._interrupt_at < until:
            raise KeyboardInterrupt
        else:
            assert until < float("inf"), "it would wait for ever"
            self.now = until


BOTH = {0: "a", 1: "b"}


def stopped(monkeypatch: pytest.MonkeyPatch, channel: Leaving, **how: Any) -> float:
    """How long it took until engines 0 and 1 were stopped."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: channel.now))
    Engines(channel).stop([0, 1], wait=True, **how)  # type: ignore[arg-type]
    return channel.now


def test_a_long_wait_for_engines_that_leave_says_for_which(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert stopped(monkeypatch, Leaving([(0.0, BOTH), (1.0, {1: "b"}), (60.0, {})])) == 60.0
    said = capsys.readouterr().err
    assert said == (
        "engineroom: waiting: engine 1 leaves once what it runs has ended; rc.cancel(targets=…) ends that\n"
    )
    assert stopped(monkeypatch, Leaving([(0.0, BOTH), (2.5, {})])) == 2.5
    assert capsys.readouterr().err == "", "a short wait says nothing"


def test_a_wait_for_engines_that_leave_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Leaving([(0.0, BOTH), (60.0, {})])
    with pytest.raises(TimeoutError, match="after 2 s, engines 0, 1 leave once what they run has ended"):
        stopped(monkeypatch, channel, timeout=2.0)
    assert channel.now == 2.0


def test_a_wait_for_engines_in_the_place_of_others_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [(0.0, BOTH), (1.0, {1: "b"}), (2.0, {1: "d"}), (2.5, {0: "c", 1: "d"})]
    assert stopped(monkeypatch, Leaving([*again]), restart=True) == 2.5
    with pytest.raises(TimeoutError, match=r"after 2\.2 s, no new engines have come yet in the place of 0"):
        stopped(monkeypatch, Leaving([*again]), restart=True, timeout=2.2)


def test_an_interrupted_wait_for_engines_says_what_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        stopped(monkeypatch, Leaving([(0.0, BOTH), (1.0, {0: "a"})], interrupt_at=2.0))
    assert caught.value.__notes__ == ["engine 0 leaves once what it runs has ended; rc.cancel(targets=…) ends that"]
