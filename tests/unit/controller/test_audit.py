"""The lines of the log about changes: who, what, which tasks, how many."""

from __future__ import annotations

import logging
from typing import Any, get_args

import pytest

from engineroom.controller.requests import audit
from engineroom.ids import ClientId, EngineId
from engineroom.messages import (
    Abort,
    ErrorInfo,
    FindRecords,
    Pin,
    Purge,
    Resubmit,
    SignalEngines,
    StopController,
    StopEngines,
)
from engineroom.messages.requests import AnyRequestBody

ME = ClientId("me")


def lines(caplog: pytest.LogCaptureFixture, body: Any, outcome: Any) -> list[str]:
    caplog.clear()
    caplog.set_level(logging.INFO)
    audit.note(ME, body, outcome)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("body", "outcome", "line"),
    [
        (Purge(query={"label": "test"}), 12, 'audit: client me purged, query {"label":"test"}: 12'),
        (Purge(everything=True), 5, "audit: client me purged, all that have ended: 5"),
        (Purge(["a-1", "a-2"]), 2, "audit: client me purged, 2 tasks by id from a-1: 2"),
        (Purge(engines=[EngineId(3)]), 2, "audit: client me purged, of engines [3]: 2"),
        (Pin(None, {}, False), 7, "audit: client me unpinned, query {}: 7"),
        (Abort(["other-1"]), 1, "audit: client me aborted, 1 tasks by id from other-1: 1"),
        (Abort(None, [EngineId(0)]), 4, "audit: client me aborted, of engines [0]: 4"),
        (Resubmit(["other-1"], ["me-1"]), None, "audit: client me resubmitted, 1 tasks by id from other-1: done"),
        (StopEngines(None), [1], "audit: client me stopped engines: done"),
        (StopController(), None, "audit: client me stopped the cluster: done"),
        (SignalEngines(9, [EngineId(0)]), [0], "audit: client me signalled engines, of engines [0]: done"),
        (Purge(["a-1"]), ErrorInfo("PendingTask", "a secret"), "audit: client me purged, 1 tasks by id from a-1: "
         "refused (PendingTask)"),
    ],
)  # fmt: skip
def test_each_change_leaves_one_line(caplog: pytest.LogCaptureFixture, body: Any, outcome: Any, line: str):
    assert lines(caplog, body, outcome) == [line]


@pytest.mark.parametrize(
    "body", [FindRecords({"label": "x"}), Abort(), Abort(["me-1", "me-2"]), Resubmit(["me-1"], ["me-2"])]
)
def test_questions_and_what_is_ones_own_leave_none(caplog: pytest.LogCaptureFixture, body: Any):
    assert lines(caplog, body, 1) == []


def test_no_query_breaks_out_of_its_line(caplog: pytest.LogCaptureFixture):
    [line] = lines(caplog, Purge(query={"label": "x\ny\u202e" + "z" * 5000}), 1)
    assert "\n" not in line
    assert "\u202e" not in line
    assert len(line) < 700


def test_every_request_that_changes_something_is_known():
    only_asks = {
        *("FindRecords", "CountRecords", "PageRecords", "DistinctValues", "GroupRecords", "History", "ResultStatus"),
        *("QueueStatus", "TasksOnEngines", "RecheckProperties", "Explain", "GetFunction", "GetEnvironment", "Sync"),
        "Withdraw",
    }
    assert {kind.__name__ for kind in get_args(AnyRequestBody)} == only_asks | {kind.__name__ for kind in audit.CHANGES}
