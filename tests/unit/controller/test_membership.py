"""Who comes, who is silent, who is given up: without sockets, with the time as a number."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from engineroom import _version
from engineroom.config import LivenessSettings
from engineroom.controller.membership import Membership
from engineroom.controller.peers import Peers
from engineroom.core import events
from engineroom.messages import Hello, Welcome
from engineroom.wire.session import prove


class Room:
    """A membership, and what it decides."""

    def __init__(self) -> None:
        listener = SimpleNamespace(admit=lambda peer: None, send=lambda peer, frames: True)
        self.peers = Peers(listener, "key")  # type: ignore[arg-type]
        self.happened: list[Any] = []
        scheduler: Any = SimpleNamespace(engines={}, numbers=set(), recovery_deadline=None)
        processes: Any = SimpleNamespace(watch=lambda uuid, pid: None, forget=lambda uuid: None)
        liveness = LivenessSettings(allowed_silence=15.0)
        self.members = Membership(
            self.peers, scheduler, self.happened.append, processes, liveness, Welcome("life"), print, lambda: 0.0, False
        )

    def hello(self, role: str, uuid: str, now: float, nanny: str = "") -> None:
        hello = Hello(_version.PROTOCOL_VERSION, role, "", uuid, 1, "far", nanny=nanny)
        assert self.members.hello(uuid.encode(), prove(hello, b"key"), now)

    def lost(self) -> list[Any]:
        return [event.cause for event in self.happened if isinstance(event, events.EngineLost)]


def test_a_silent_engine_lives_as_long_as_its_nanny_speaks():
    room = Room()
    room.hello("nanny", "n", 0.0)
    room.hello("engine", "e", 0.0, nanny="n")
    room.peers.by_uuid["n"].session.last_heard = 90.0
    room.members.sweep(100.0)
    assert room.lost() == []


def test_an_engine_whose_nanny_has_not_come_is_given_up_when_it_is_silent():
    room = Room()
    room.hello("engine", "e", 0.0, nanny="n")  # its host was cut off again before its nanny came back
    room.members.sweep(14.0)
    assert room.lost() == []
    room.members.sweep(16.0)
    assert room.lost() == ["no sign of life for 15 s"]


def test_the_log_says_that_a_nanny_is_given_up_and_that_it_is_back(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    room = Room()
    room.hello("nanny", "n", 0.0)
    room.hello("engine", "e", 0.0, nanny="n")
    room.members.sweep(16.0)
    assert room.lost() == ["its nanny is gone: no sign of life for 15 s"]
    room.hello("nanny", "n", 20.0)
    assert "nanny n on far has been silent for 16 s: it is given up" in caplog.text
    assert "the nanny on far is back, 4.0 s after it was given up" in caplog.text
