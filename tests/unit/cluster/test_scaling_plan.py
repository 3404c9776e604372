"""Growing and shrinking, as stories: what the plan sees, second by second, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.cluster.scaling.plan import Action, CancelSet, Plan, ScalingSettings, Seen, StartEngines, StopEngines
from engineroom.errors import ConfigError


class Story:
    """A plan, and a cluster as it sees it."""

    def __init__(self, least: int = 1, most: int = 10, **more: float) -> None:
        self.plan = Plan(ScalingSettings(minimum=least, maximum=most, **more))  # type: ignore[arg-type]
        self.now = 0.0
        self.completed: dict[int, int] = dict.fromkeys(range(least), 0)
        self.waiting: dict[str, int] = {}

    def look(self, tasks: int, *, ended: int = 0, after: float = 1.0) -> list[Action]:
        """So many seconds later; `ended`: tasks that each engine has finished meanwhile."""
        self.now += after
        busy = sorted(self.completed)[:tasks]
        for engine in self.completed:
            self.completed[engine] += ended
        seen = Seen(completed=dict(self.completed), busy=frozenset(busy), tasks=tasks, waiting=dict(self.waiting))
        told = self.plan.look(seen, self.now)
        for action in told:
            if isinstance(action, StartEngines):
                self.plan.request(f"set{len(self.waiting)}", action.count)
                self.waiting[f"set{len(self.waiting)}"] = action.count
            elif isinstance(action, CancelSet):
                self.plan.drop(action.set_id)
                del self.waiting[action.set_id]
            elif isinstance(action, StopEngines):
                for engine in action.engines:
                    del self.completed[engine]
        return told

    def come(self, set_id: str, count: int) -> None:
        """Engines of a request are there."""
        self.waiting[set_id] -= count
        first = max(self.completed, default=-1) + 1
        self.completed.update({first + number: 0 for number in range(count)})


def test_without_tasks_nothing_happens():
    story = Story(least=2)
    assert [story.look(0, after=100.0) for _ in range(5)] == [[]] * 5


def test_a_long_queue_asks_for_as_many_engines_as_finish_it_in_time():
    story = Story(most=50, target=10.0)
    assert story.look(100) == [StartEngines(1)]  # nothing is measured yet: twice as many
    assert story.look(100, ended=1) == [StartEngines(8)]
    wanted, requested, observed = story.plan.wanted, sum(story.plan.requested.values()), story.plan.observed
    assert (wanted, requested, observed) == (10, 9, 1)  # 100 tasks of a second in ten seconds


def test_what_was_requested_is_not_requested_again():
    story = Story(most=8)
    story.look(100)
    story.look(100, ended=1)
    asked = sum(story.plan.requested.values())
    assert [story.look(100, ended=1) for _ in range(20)].count([]) >= 19
    assert sum(story.plan.requested.values()) <= max(asked, 7)


def test_more_than_the_most_is_never_asked_for():
    story = Story(most=3, target=1.0)
    for _ in range(30):
        story.look(1000, ended=1)
    assert story.plan.wanted == 3
    assert story.plan.observed + sum(story.plan.requested.values()) == 3


def test_requests_that_still_wait_are_cancelled_when_the_queue_is_empty():
    story = Story(most=4, target=1.0, idle=5.0)
    story.look(100)
    story.look(100, ended=1)
    assert story.waiting
    sets = list(story.waiting)
    told = [action for _ in range(10) for action in story.look(0)]
    assert [action for action in told if isinstance(action, CancelSet)] == [CancelSet(each) for each in reversed(sets)]
    assert (sum(story.plan.requested.values()), story.plan.observed) == (0, 1)


def test_idle_engines_are_given_back_after_a_while_but_for_the_least():
    story = Story(least=2, most=6, target=1.0, idle=60.0)
    story.look(100)
    story.look(100, ended=1)
    for set_id in list(story.waiting):
        story.come(set_id, story.waiting[set_id])
    story.look(100, ended=1)
    assert story.plan.observed == 6
    assert [story.look(0) for _ in range(60)] == [[]] * 60  # not yet
    assert story.look(0) == [StopEngines([5, 4, 3, 2])]
    assert [story.look(0) for _ in range(200)] == [[]] * 200


def test_a_queue_that_comes_and_goes_does_not_make_it_flap():
    story = Story(most=4, target=1.0, idle=60.0)
    story.look(50)
    story.look(50, ended=1)
    for set_id in list(story.waiting):
        story.come(set_id, story.waiting[set_id])
    story.look(50, ended=1)
    told = []
    for _ in range(20):  # thirty seconds without tasks, then some
        told += story.look(0, after=30.0)
        told += story.look(50, ended=1)
    assert told == []
    assert story.plan.observed == 4


def test_busy_engines_are_not_stopped():
    story = Story(least=1, most=4, target=1.0, idle=10.0)
    story.look(50)
    story.look(50, ended=1)
    for set_id in list(story.waiting):
        story.come(set_id, story.waiting[set_id])
    story.look(50, ended=1)
    stopped = [engine for _ in range(30) for a in story.look(2) if isinstance(a, StopEngines) for engine in a.engines]
    assert set(stopped) <= {2, 3}  # 0 and 1 have tasks


def test_a_request_that_fails_is_asked_for_again():
    story = Story(most=4, target=1.0)
    story.look(50)
    story.look(50, ended=1)
    for set_id in list(story.waiting):
        story.plan.drop(set_id)
    story.waiting.clear()
    assert story.look(50, ended=1) == [StartEngines(3)]


def test_tasks_that_take_long_are_noticed_before_the_first_has_ended():
    story = Story(most=100, target=30.0)
    for _ in range(60):
        story.look(40)  # none ends
    assert story.plan.wanted == 40


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0, 4), "at least 1 engine"),
        ((5, 4), "not fewer at most than at least"),
        (4, r"adaptive is \(least, most\) engines"),
        ({"minimum": 1}, "maximum"),
        ({"maximum": 4, "speed": 1}, "speed"),
        ({"maximum": 4, "idle": 0}, "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        ScalingSettings.read(given)
