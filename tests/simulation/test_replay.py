"""Recorded histories once more, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engineroom.errors import ConfigError
from engineroom.testing import replay

BEGIN = datetime(2026, 1, 31, 14, tzinfo=UTC)


def record(id: str, engine: int, started: float, completed: float, **changes: Any) -> dict[str, Any]:
    """A record of a task that was submitted at the beginning, unless it says otherwise."""
    options = changes.pop("options", {})
    submitted = changes.pop("submitted", 0.0)
    at = {
        name: BEGIN + timedelta(seconds=value)
        for name, value in (("submitted", submitted), ("started", started), ("completed", completed))
    }
    return {
        "msg_id": id,
        "state": "completed",
        "header": {"msg_id": id, **options},
        "client_uuid": "me",
        "engine_id": engine,
        "queue": "task",
        "attempts": [],
        **at,
        **changes,
    }


def history(tasks: int = 40, engines: int = 2, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Equal tasks, all submitted at once, which engines took in turn."""
    return [record(f"t{n}", n % engines, n // engines * seconds, (n // engines + 1) * seconds) for n in range(tasks)]


def test_a_replay_with_the_same_engines_takes_as_long():
    course = replay(history())
    assert (course.tasks, course.left_out, course.not_run) == (40, 0, 0)
    assert course.recorded.makespan == 20.0
    assert course.recorded.utilisation == {0: 1.0, 1: 1.0}
    assert course.recorded.waited == 9.5
    assert course.baseline.makespan == pytest.approx(20.0, rel=0.01)
    assert course.baseline.waited == pytest.approx(9.5, rel=0.01)
    assert course.difference == 0


def test_four_times_the_engines_take_a_quarter_of_the_time():
    course = replay(history(), engines=8)
    assert course.replayed.engines == 8
    assert course.replayed.makespan == pytest.approx(5.0, rel=0.01)
    assert course.difference == pytest.approx(-15.0, rel=0.01)
    assert course.replayed.busy == pytest.approx(1.0, rel=0.01)


def test_pauses_between_submissions_stay():
    found = [record(f"t{n}", 0, n * 100.0, n * 100.0 + 1, submitted=n * 100.0) for n in range(5)]
    course = replay(found, engines=5)
    assert course.replayed.makespan == pytest.approx(401.0, rel=0.01)
    assert course.difference == pytest.approx(0, abs=0.01)


def test_dependencies_hold_in_a_replay():
    found = [record("a", 0, 0, 1)]
    found += [record("b", 0, 1, 2, options={"after": [["a"], True, True, False]})]
    found += [record("c", 0, 2, 3, options={"inputs": ["b", "long ago"]})]
    found += [record("d", 0, 3, 4, options={"follow": [["never ran"], True, True, False]})]
    course = replay(found, engines=4)
    assert course.replayed.makespan == pytest.approx(3.0, rel=0.01), "d waits for nobody that is known"
    assert course.not_run == 0


def test_failures_and_retries_are_repeated_as_they_were():
    def moment(seconds: float) -> datetime:
        return BEGIN + timedelta(seconds=seconds)

    attempts = [
        {"started": moment(0), "ended": moment(3), "cause": "ValueError: no", "traceback": "Traceback"},
        {"started": moment(3), "ended": moment(4), "cause": "killed", "traceback": None},
        {"started": moment(4), "ended": moment(4), "cause": "UnmetDependency: not here", "traceback": "…"},
        {"started": moment(5), "ended": moment(6), "cause": "ok", "traceback": None},
    ]
    found = [record("a", 0, 5, 6, attempts=attempts), record("b", 0, 6, 7, state="failed")]
    found += [record("c", 0, 7, 8, options={"after": [["b"], True, False, True]})]
    found += [record("d", 0, 0, 0, state="pending")]
    course = replay(found)
    assert course.left_out == 1
    assert course.baseline.makespan == pytest.approx(3 + 1 + 1 + 1, rel=0.01)
    assert course.recorded.makespan == 8.0


def test_targets_direct_tasks_and_resources_find_their_engines():
    found = [record(f"t{n}", 4, n, n + 1, options={"targets": [4]}) for n in range(3)]
    found += [record(f"d{n}", 7, n, n + 1, queue="mux") for n in range(3)]
    found += [record(f"g{n}", 7, n + 3, n + 4, options={"resources": {"gpu": 2}}) for n in range(3)]
    assert replay(found).baseline.makespan == pytest.approx(6.0, rel=0.01)
    one = replay(found, engines=1)
    assert (one.not_run, one.replayed.makespan) == (0, pytest.approx(9.0, rel=0.01))
    many = replay(found, engines=4)
    assert many.replayed.makespan == pytest.approx(3.0, rel=0.01), "two of the four have gpus"


def test_a_scheme_that_cannot_do_what_was_asked_says_so():
    found = [*history(4), record("p", 0, 2, 3, options={"priority": 1})]
    assert replay(found, scheme="pure").not_run == 1
    assert replay(found, scheme="lru").not_run == 0


@pytest.mark.parametrize("scheme", ["lru", "plainrandom", "twobin", "leastload", "weighted", "pure"])
def test_any_scheme_can_be_tried(scheme: str):
    found = history(200, seconds=0.01)
    assert replay(found, scheme=scheme, hwm=1, seed=3).replayed.makespan < 1.5 * 1.0
    assert replay(found, scheme=scheme, seed=3) == replay(found, scheme=scheme, seed=3)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="nothing to replay"):
        replay([record("a", 0, 0, 0, state="pending")])
    with pytest.raises(ConfigError, match="one engine or more"):
        replay(history(), engines=0)
    with pytest.raises(ConfigError, match="no scheme 'fastest'"):
        replay(history(), scheme="fastest")
