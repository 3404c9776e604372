"""What an engine notes for its nanny of tasks that run at most once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engineroom.engine.shared_page import SharedPage
from engineroom.ids import TaskId


@pytest.fixture
def page() -> Iterator[SharedPage]:
    made = SharedPage()
    yield made
    made.close()


def test_tasks_that_have_begun_are_noted_until_all_results_have_arrived(page: SharedPage) -> None:
    assert page.begun == []
    page.begin(TaskId("a-1"))
    page.run(TaskId("a-1"))
    page.begin(TaskId("b-22"))
    assert page.begun == ["a-1", "b-22"]
    page.rest()
    assert page.begun == ["a-1", "b-22"]
    page.delivered()
    assert page.begun == []


def test_more_than_fit_are_unknown_and_disturb_nothing_else(page: SharedPage) -> None:
    page.run(TaskId("running"))
    page.set_output_read(1, 12345)
    for number in range(1000):
        page.begin(TaskId(f"0123456789abcdef0123456789abcdef-{number}"))
    assert page.begun is None
    assert page.running == "running"
    assert page.output_read(1) == 12345
    page.delivered()
    page.begin(TaskId("next"))
    assert page.begun == ["next"]


def test_an_id_that_is_too_long_is_unknown(page: SharedPage) -> None:
    page.begin(TaskId("x" * 5000))
    assert page.begun is None
