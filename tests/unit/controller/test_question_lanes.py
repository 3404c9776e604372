"""The lanes of questions: cheap ones are answered while any number of clients ask slow ones."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from conftest import wait_until

from engineroom.controller.storage import question_lanes as module
from engineroom.controller.storage.question_lanes import DONE, Question, Questions
from engineroom.errors import QueryError, StoreError
from engineroom.ids import ClientId
from engineroom.stores.query.deadline import Asker, Deadline, asked_by


class Asked:
    """A question, and what came of it."""

    def __init__(self, run: Callable[[], object], *, is_slow: bool = False, after: Future[None] = DONE) -> None:
        self.answer: Future[object] = Future()
        self.times = 0

        def once() -> None:
            self.times += 1
            self.answer.set_result(run())

        self.question = Question(lambda: after, once, self.answer.set_exception, is_slow)


@pytest.fixture
def questions() -> Iterator[Questions]:
    questions = Questions()
    yield questions
    questions.close()


def until_stopped() -> None:
    """What a regular expression does that takes for ever: it uses the processor until its time is up."""
    deadline = Deadline(60.0)
    while deadline.left() >= 0:
        pass
    raise deadline.passed()


def test_cheap_questions_are_answered_while_many_clients_ask_slow_ones(questions: Questions) -> None:
    slow = [Asked(until_stopped) for _ in range(8)]
    for number, asked in enumerate(slow):
        questions.add(ClientId(f"slow-{number}"), asked.question)
    for number in range(20):
        cheap = Asked(lambda: "cheap")
        questions.add(ClientId(f"cheap-{number}"), cheap.question)
        assert cheap.answer.result(30) == "cheap"
    assert sum(asked.answer.done() for asked in slow) <= 2, "the slow ones take their turns meanwhile"
    for number in range(8):
        questions.drop(ClientId(f"slow-{number}"))


def test_cheap_questions_come_before_those_of_clients_that_need_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many clients may ask, without end, what takes a little less than the time of the quick lane."""
    monkeypatch.setattr(module, "QUICK_THREADS", 1)
    questions, order = Questions(), list[str]()
    go_on = threading.Event()

    def busy() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass

    def ask(client: str, run: Callable[[], object]) -> Asked:
        asked = Asked(lambda: (run(), order.append(client)))
        questions.add(ClientId(client), asked.question)
        return asked

    first = ask("first", lambda: go_on.wait(30))
    asked = [ask(f"busy-{number}", busy) for number in range(10) for _ in range(3)]
    asked += [ask("cheap", lambda: None) for _ in range(5)]
    go_on.set()
    for one in (first, *asked):
        one.answer.result(30)
    questions.close()
    assert max(place for place, client in enumerate(order) if client == "cheap") < 20, order


def test_what_is_known_to_be_slow_takes_no_quick_thread(questions: Questions) -> None:
    go_on = threading.Event()
    slow = [Asked(lambda: go_on.wait(30), is_slow=True) for _ in range(8)]
    for number, asked in enumerate(slow):
        questions.add(ClientId(f"slow-{number}"), asked.question)
    cheap = Asked(lambda: "cheap")
    questions.add(ClientId("other"), cheap.question)
    assert cheap.answer.result(30) == "cheap"
    go_on.set()
    assert [asked.answer.result(30) for asked in slow] == [True] * 8


def test_a_question_that_takes_long_begins_again_and_has_its_time(questions: Questions) -> None:
    def work() -> str:
        deadline = Deadline(60.0)
        if asked.times == 1:
            while deadline.left() >= 0:
                pass
            raise deadline.passed()
        assert deadline.left() > 30, "nobody else waits"
        return "found"

    asked = Asked(work)
    questions.add(ClientId("a"), asked.question)
    assert asked.answer.result(30) == "found"
    assert asked.times == 2


def test_the_more_slow_questions_wait_the_less_time_each_has(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_SECONDS", 1.0)
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.01)
    begun = threading.Event()

    def run() -> None:
        begun.set()
        until_stopped()

    first = Asked(run, is_slow=True)
    questions.add(ClientId("first"), first.question)
    assert begun.wait(30)
    assert not first.answer.done()
    others = [Asked(until_stopped, is_slow=True) for _ in range(50)]
    for number, asked in enumerate(others):
        questions.add(ClientId(f"other-{number}"), asked.question)
    with pytest.raises(QueryError, match="others wait for slow queries"):
        first.answer.result(30)
    for number in range(50):
        questions.drop(ClientId(f"other-{number}"))


def test_questions_whose_client_has_left_do_not_count(questions: Questions) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def work() -> float:
        begun.set()
        assert go_on.wait(30)
        return Deadline().left()

    first = Asked(work, is_slow=True)
    questions.add(ClientId("first"), first.question)
    assert begun.wait(30)
    questions.add(ClientId("other"), Asked(until_stopped, is_slow=True).question)
    wait_until(lambda: len(questions._waiting) == 1)
    questions.drop(ClientId("other"))
    go_on.set()
    assert first.answer.result(30) == float("inf")


def test_no_thread_waits_for_what_is_not_recorded(questions: Questions) -> None:
    recorded = [Future[None]() for _ in range(20)]
    waiting = [Asked(lambda: "late", after=future) for future in recorded]
    for number, asked in enumerate(waiting):
        questions.add(ClientId(f"waits-{number}"), asked.question)
    cheap = Asked(lambda: "cheap")
    questions.add(ClientId("other"), cheap.question)
    assert cheap.answer.result(30) == "cheap"
    for future in recorded:
        future.set_result(None)
    assert {asked.answer.result(30) for asked in waiting} == {"late"}


def test_questions_of_a_store_that_fails_all_get_its_error(questions: Questions) -> None:
    failed: Future[None] = Future()
    failed.set_exception(StoreError("no room"))
    asked = [Asked(lambda: "never", after=failed) for _ in range(2000)]
    for one in asked:
        questions.add(ClientId("a"), one.question)
    for one in asked:
        with pytest.raises(StoreError, match="no room"):
            one.answer.result(30)


def test_closing_ends_slow_questions() -> None:
    questions = Questions()
    begun = threading.Event()

    def run() -> None:
        begun.set()
        until_stopped()

    asked = Asked(run, is_slow=True)
    questions.add(ClientId("a"), asked.question)
    questions.add(ClientId("b"), Asked(lambda: pytest.fail("nobody wants it"), is_slow=True).question)
    assert begun.wait(30)
    questions.close()
    with contextlib.suppress(QueryError):
        asked.answer.result(0)


def test_a_server_has_the_time_of_the_clock_not_of_our_thread() -> None:
    asker = Asker()
    asker.until_thread_time = 0.0  # used up
    with asked_by(asker):
        deadline = Deadline(60.0)
    assert deadline.left() < 0 < deadline.left_elsewhere()


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_question_that_is_withdrawn_ends_and_the_next_one_of_its_client_begins(
    questions: Questions, is_slow: bool
) -> None:
    running, behind, last = Asked(until_stopped, is_slow=is_slow), Asked(lambda: "behind"), Asked(lambda: "last")
    for asked in (running, behind, last):
        questions.add(ClientId("me"), asked.question)
    questions.withdraw(ClientId("me"), behind.question)
    questions.withdraw(ClientId("me"), running.question)
    assert last.answer.result(30) == "last"
    for asked in (running, behind):
        with pytest.raises(QueryError, match="nobody waits"):
            asked.answer.result(30)
    assert behind.times == 0
    questions.withdraw(ClientId("me"), last.question)  # it was answered: nothing happens


def test_a_question_that_waits_for_the_slow_lane_can_be_withdrawn(questions: Questions) -> None:
    go_on = threading.Event()
    first, waiting, after = Asked(lambda: go_on.wait(30), is_slow=True), Asked(until_stopped, is_slow=True), Asked(int)
    questions.add(ClientId("first"), first.question)
    questions.add(ClientId("me"), waiting.question)
    questions.add(ClientId("me"), after.question)
    questions.withdraw(ClientId("me"), waiting.question)
    assert after.answer.result(30) == 0
    go_on.set()
    assert first.answer.result(30)
    assert waiting.times == 0
