"""The kill campaign, shortened, and what its judge says of rounds in which something went wrong: see campaign.py."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest

from . import campaign, plan, verify
from .injected import FAULTS


@pytest.mark.slow
@pytest.mark.fault(1, 5, 11)
@pytest.mark.parametrize("seed", ["short-1", "short-2"])
def test_whatever_is_killed_or_stopped_nothing_is_lost(seed: str, tmp_path: Path):
    counted = campaign.Campaign(tmp_path, seed, tasks=150).run()
    assert counted["tasks"] >= 150
    assert sum(counted[name] for name in FAULTS) > 0, "no fault was injected"


def round_of(task: plan.Task, outcome: str, record: dict[str, Any] | None, runs: list[int]) -> verify.Round:
    """A round with one task, which was accepted. Process 2 is alive at the end."""
    notes = [{"accepted": ["a"]}, {"told": "a", "number": 0, "outcome": outcome, "text": ""}]
    records = {} if record is None else {"a": {"label": "t0", "result_content": None, "attempts": [], **record}}
    counts = collections.Counter({"engine killed": 1})
    return verify.Round([task], notes, {"a": runs} if runs else {}, records, counts, alive={2})


TASK = plan.Task(number=0, seconds=0.0, size=0)
ONCE = plan.Task(number=0, seconds=0.0, size=0, at_most_once=True, retries=0)
CANCELLED = plan.Task(number=0, seconds=0.0, size=0, cancelled_after=0)
FAILED = {"state": "failed", "result_content": {"ename": "EngineError"}}
COMPLETED = {"state": "completed"}


def test_a_round_in_which_all_is_well():
    assert verify.check(round_of(TASK, "completed", COMPLETED, [1, 2]))["ran twice"] == 1


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (round_of(TASK, "completed", None, [2]), "have no record"),
        (round_of(TASK, "completed", {"state": "running"}, [2]), "have not ended"),
        (round_of(TASK, "completed", COMPLETED, []), "never ran"),
        (round_of(CANCELLED, "TaskAborted", COMPLETED, [2]), "the client was told"),
        (round_of(TASK, "EngineError", FAILED, [2]), "ended as"),
        (round_of(TASK, "completed", COMPLETED, [2, 2]), "nothing was lost with"),
        (round_of(ONCE, "completed", COMPLETED, [1, 2]), "at most once"),
    ],
)
def test_it_says_what_was_lost_doubled_or_told_wrongly(one: verify.Round, says: str):
    with pytest.raises(AssertionError, match=says):
        verify.check(one)


def test_it_says_what_began_too_early():
    first, second = (plan.Task(number=number, seconds=0.0, size=0, engine=0) for number in range(2))
    told = [{"told": f"me-{n}", "number": n, "outcome": "completed", "text": ""} for n in range(2)]
    record = {**COMPLETED, "result_content": None, "attempts": []}
    records = {f"me-{n}": {**record, "label": f"t{n}"} for n in range(2)}
    runs = {"me-1": [2], "me-0": [2]}
    one = verify.Round([first, second], told, runs, records, collections.Counter(), alive={2})
    with pytest.raises(AssertionError, match="me-0 began after me-1"):
        verify.check(one)
    one.notes.append({"balanced": 1})
    verify.check(one)
    one.notes.pop()
    one.runs = {"me-1": [3], "me-0": [2]}
    verify.check(one)


def test_an_outcome_that_changes_is_found_and_counted_where_the_controller_was_killed():
    one = round_of(CANCELLED, "TaskAborted", COMPLETED, [2])
    one.notes.append({"told": "a", "number": 0, "outcome": "completed", "text": ""})
    with pytest.raises(AssertionError, match="the client was told"):
        verify.check(one)
    one.counts["controller killed"] = 1
    assert verify.check(one)["told otherwise"] == 1


def test_rounds_add_up():
    rounds = [{"counted": {"tasks": 200, "engine killed": 3}}, {"counted": {}, "failed": "why"}]
    found = campaign.table(rounds)
    assert "| rounds | 2 |" in found
    assert "| engine killed | 3 |" in found
    assert "left behind | 1 |" in found
