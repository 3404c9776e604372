"""The history of tasks as a picture. No cluster."""

from __future__ import annotations

import pytest

from engineroom.client.pictures import history
from engineroom.client.pictures.history import HistoryPlot, Span

from .looking import LARGEST, at, root_of, spans_of, texts


def test_history_names_what_it_counts():
    picture = HistoryPlot(spans_of(["fit", None]), {at(3): 2}, "label", (at(0), at(20)))
    assert {"tasks per second", "fit 60", "no label 60", "failed 2"} <= set(texts(picture))
    assert "120 tasks ended" in repr(picture)
    assert "2 failed" in repr(picture)


def test_many_names_are_one():
    picture = HistoryPlot(spans_of([f"l{i}" for i in range(30)]), {}, "label", (at(0), at(20)))
    assert f"{30 - history.NAMED} other labels {60 * (30 - history.NAMED):,}" in texts(picture)
    assert len(picture.svg()) < LARGEST


@pytest.mark.parametrize("seconds", [0.001, 1.0, 3600.0, 86400.0 * 30])
def test_history_of_any_length(seconds: float):
    picture = HistoryPlot(spans_of(["a"], 30, seconds), {}, "label", (at(0), at(30 * seconds)))
    assert len(texts(picture)) < 40
    assert all("days 1" not in text for text in texts(picture))


def test_history_without_durations_and_of_nothing():
    root_of(HistoryPlot([Span(at(0), 1.0, None, 1, None, None)], {}, "label", (at(0), at(0))))
    nothing = HistoryPlot([], {}, "label", None)
    assert texts(nothing) == ["no task that matches has ended"]


@pytest.mark.parametrize("seconds", [1e-3, 0.7, 59.0, 3600.0, 5e6, 5e8])
def test_spans_are_round_and_not_too_many(seconds: float):
    width = history.span_width(seconds, 60)
    assert seconds / width <= 60
    assert width in history.STEPS or width % 86400 == 0
