"""What the task stream tells about many and about few tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engineroom.dashboard import stream as stream_module
from engineroom.dashboard.source import Source
from engineroom.dashboard.stream import Stream
from engineroom.errors import ConfigError
from engineroom.reading.records import Records
from engineroom.stores import DictDB

BEGIN = datetime(2026, 1, 31, 14, tzinfo=UTC)


class Somewhere:
    """A place with records of our own."""

    name, log_folder = "somewhere", None

    def __init__(self) -> None:
        self.store = DictDB()

    def is_running(self) -> bool:
        return False

    def retention(self) -> dict[str, Any] | None:
        return None

    def open(self) -> Records:
        return Records(store=self.store, url="memory")

    def purge(self, query: dict[str, Any]) -> int:
        return 0

    def add(self, id: str, engine: int, start: float, end: float | None, label: str | None = None) -> None:
        """A task; times in seconds after BEGIN."""
        begun = BEGIN + timedelta(seconds=start)
        ended = None if end is None else BEGIN + timedelta(seconds=end)
        self.store.add_record(
            id,
            {"submitted": begun, "started": begun, "completed": ended, "engine_id": engine, "label": label,
             "state": "running" if end is None else "completed"},
        )  # fmt: skip


@pytest.fixture
def place() -> Somewhere:
    return Somewhere()


@pytest.fixture
def stream(place: Somewhere) -> Stream:
    return Stream(Source(place))


def test_nothing_is_an_empty_picture(stream: Stream):
    found = stream.window(None, None, "label")
    assert (found["count"], found["tasks"], found["engines"]) == (0, [], [])


def test_few_tasks_come_one_by_one(place: Somewhere, stream: Stream):
    place.add("a", 0, 0, 1, "x")
    place.add("b", 1, 0.5, 2, "y")
    place.add("c", 0, 1, 3, "x")
    found = stream.window(None, None, "label")
    assert (found["from"], found["to"]) == (BEGIN.timestamp(), BEGIN.timestamp() + 3)
    assert found["names"] == ["x", "y"], "the most frequent first"
    assert [(t[0], t[1] - found["from"], t[2] - found["from"], t[3], t[4]) for t in found["tasks"]] == [
        (0, 0.0, 1.0, 0, "a"), (1, 0.5, 2.0, 1, "b"), (0, 1.0, 3.0, 0, "c")
    ]  # fmt: skip


def test_a_task_that_is_longer_than_the_window_is_seen_in_it(place: Somewhere, stream: Stream):
    place.add("long", 0, 0, 1000)
    place.add("running", 1, 0, None)
    place.add("other", 2, 900, 901)
    at = BEGIN.timestamp() + 500
    found = stream.window(at, at + 1, "state")
    assert sorted(task[4] for task in found["tasks"]) == ["long", "running"]
    assert {task[4]: task[2] for task in found["tasks"]}["running"] is None


def test_many_tasks_are_gathered_and_none_is_lost(place: Somewhere, stream: Stream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_module, "SINGLE", 100)
    for number in range(400):
        label = "abcdefgh"[number % 8] if number < 200 else "a"
        place.add(f"t{number}", number % 3, number * 0.1, number * 0.1 + 0.05, label)
    found = stream.window(None, None, "label")
    assert found["names"][0] == "a"
    assert len(found["names"]) == stream_module.NAMED
    assert sum(cell[3] for cell in found["cells"]) == 400
    assert sum(cell[4] for cell in found["cells"]) == pytest.approx(400 * 0.05)
    assert found["others"] == sum(cell[3] for cell in found["cells"] if cell[2] == -1) == 75
    assert {cell[1] for cell in found["cells"]} == {0, 1, 2}
    spans = (found["to"] - found["from"]) / found["width"]
    assert 10 < spans <= stream_module.SPANS


def test_long_tasks_among_many_come_one_by_one(place: Somewhere, stream: Stream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_module, "SINGLE", 10)
    for number in range(40):
        place.add(f"t{number}", 0, number * 0.1, number * 0.1 + 0.005)
    place.add("long", 1, 0.5, 3.5, "x")
    place.add("running", 2, 1, None)
    found = stream.window(None, None, "label")
    assert {task[4] for task in found["tasks"]} == {"long", "running"}
    assert sum(cell[3] for cell in found["cells"]) == 40
    assert found["engines"] == [0, 1, 2]


def test_spans_that_are_over_are_asked_once(place: Somewhere, stream: Stream, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stream_module, "SINGLE", 10)
    for number in range(40):
        place.add(f"t{number}", 0, number * 0.1, number * 0.1 + 0.05)
    first = stream.window(None, None, "label")
    asked: list[Any] = []
    group_by = place.store.group_by
    monkeypatch.setattr(place.store, "group_by", lambda *a, **k: asked.append(a) or group_by(*a, **k))
    assert stream.window(None, None, "label") == first
    assert len(asked) == 1, "which labels there are"


@pytest.mark.parametrize(("begin", "end"), [(5.0, 5.0), (6.0, 5.0), (-1.0, 2.0), (0.0, 1e300)])
def test_a_window_that_is_none_becomes_one(place: Somewhere, stream: Stream, begin: float, end: float):
    place.add("a", 0, 0, 1)
    found = stream.window(begin, end, "label")
    assert found["to"] > found["from"]


def test_other_colours_are_refused(stream: Stream):
    with pytest.raises(ConfigError, match="label, function, state"):
        stream.window(None, None, "size")
