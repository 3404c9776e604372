"""The nanny, as far as it can be tested without engines."""

from __future__ import annotations

import logging

import pytest

from engineroom.engine.host import nanny as module
from engineroom.engine.host.nanny import Nanny
from engineroom.ids import EngineUuid
from engineroom.watchdog.judge import Judge


@pytest.mark.fault(15)
def test_it_says_that_engines_are_not_forked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    nanny = object.__new__(Nanny)  # one that has started nothing
    nanny._heard, nanny._zygote_judge, nanny._pids = 1, Judge(module.ZYGOTE_SECONDS), {}
    for pids in ({}, {"a": 7}):  # nothing to do: nothing is expected
        nanny._pids = {EngineUuid(uuid): pid for uuid, pid in pids.items()}
        for _ in range(20):
            now += 1.0
            nanny._check_zygote()
    nanny._pids = {EngineUuid("a"): 7, EngineUuid("b"): 0, EngineUuid("c"): 0}
    for _ in range(30):
        now += 1.0
        nanny._check_zygote()
    assert [record.message for record in caplog.records] == ["no engine has been forked for 10 s, and 2 wait for it"]
    nanny._heard += 1
    nanny._check_zygote()
    assert "engines are forked again" in caplog.text
