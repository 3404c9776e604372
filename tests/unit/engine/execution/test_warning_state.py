"""Warnings per task."""

from __future__ import annotations

import warnings

import pytest

from engineroom.engine.execution.warning_state import WarningState


@pytest.fixture
def shown():
    """The texts of the warnings that are shown."""
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *args, **kwargs: found.append(str(message))
        yield found


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=1)


def test_each_task_shows_a_warning_once(shown):
    state = WarningState()
    for _ in range(3):
        state.begin()
        warn("look out")
        warn("look out")
        state.end(keep=False)
    assert shown == ["look out"] * 3


def test_filters_end_with_the_task_that_set_them(shown):
    state = WarningState()
    state.begin()
    warnings.simplefilter("ignore")
    warnings.showwarning = lambda *args, **kwargs: None
    warn("hidden")
    state.end(keep=False)
    state.begin()
    warn("seen")
    state.end(keep=False)
    assert shown == ["seen"]


def test_warnings_that_are_shown_once_are_shown_once_in_each_task(shown):
    warnings.simplefilter("once")
    state = WarningState()
    for _ in range(2):
        state.begin()
        warn("once")
        warn("once")
        state.end(keep=False)
    assert shown == ["once", "once"]


def test_filters_of_a_cell_stay(shown):
    state = WarningState()
    state.begin()
    warnings.simplefilter("ignore")
    state.end(keep=True)
    state.begin()
    warn("hidden")
    state.end(keep=False)
    state.begin()
    warn("hidden")
    state.end(keep=False)
    assert shown == []
