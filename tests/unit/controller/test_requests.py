"""The way of a request: clients in turn, requests of one client in order, and not without end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from engineroom.controller.lookups import Lookups
from engineroom.controller.requests import requests
from engineroom.controller.requests.requests import Requests
from engineroom.ids import ClientId, TaskId
from engineroom.messages import (
    Abort,
    FindRecords,
    Message,
    QueueStatus,
    Reply,
    Request,
    ResultStatus,
    StopController,
    Sync,
    Withdraw,
)

ME, OTHER = ClientId("me"), ClientId("other")


class Loop:
    """Stands for all whom requests need. What threads answer is answered when the test says so."""

    def __init__(self) -> None:
        self.posted: deque[Callable[[], None]] = deque()
        self.reads: deque[Callable[[], None]] = deque()
        self.slow: list[bool] = []
        self.begun: list[tuple[ClientId, str]] = []
        self.replies: list[tuple[ClientId, Reply]] = []
        self.at_once = {Sync: self._note, StopController: self._note}
        self.with_store = {QueueStatus: lambda body: self._note(ME, body) or {}}
        self.in_pieces = {Abort: self._abort}
        unused: Any = None
        self.requests = Requests(
            self._send,
            self.posted.append,
            Lookups(),
            self,  # type: ignore[arg-type]
            lambda: None,
            unused,
            self,  # type: ignore[arg-type]
            unused,
            unused,
            unused,
            "",
        )

    def _send(self, client: ClientId, message: Message, buffers: Sequence[Any] = ()) -> None:
        assert isinstance(message, Reply)
        self.replies.append((client, message))

    def _note(self, client: ClientId, body: Any) -> None:
        self.begun.append((client, type(body).__name__))

    def _abort(self, client: ClientId, body: Abort) -> Iterator[None]:
        self._note(client, body)
        yield

    def read(self, work: Any, then: Any, failed: Any, *, client: ClientId, slow: bool = False, **options: Any) -> Any:
        self.begun.append((client, "read"))
        self.slow.append(slow)
        self.reads.append(lambda: then([]))
        return lambda: self.begun.append((client, "end"))

    def turn(self) -> None:
        for _ in range(len(self.posted)):
            self.posted.popleft()()

    def ask(self, client: ClientId, *bodies: Any) -> None:
        for number, body in enumerate(bodies):
            self.requests.answer(client, Request(number, body))

    @property
    def refused(self) -> list[str]:
        return [reply.error.evalue for _, reply in self.replies if reply.error is not None]


@pytest.fixture
def loop() -> Loop:
    return Loop()


def many(count: int = 10_000) -> list[TaskId]:
    return [TaskId(f"x-{number}") for number in range(count)]


@pytest.mark.parametrize("body", [QueueStatus(verbose=True), Abort(many()), ResultStatus(many())])
def test_in_one_turn_one_long_request_of_a_client_begins(loop: Loop, body: Any) -> None:
    loop.ask(ME, body, body, body, Sync())
    loop.ask(OTHER, Sync())
    assert len(loop.begun) == 2
    assert loop.begun[1] == (OTHER, "Sync")
    for count in (3, 4, 5):
        loop.turn()
        assert len(loop.begun) == count
    assert loop.begun[-1] == (ME, "Sync"), "in their order"


def test_short_requests_do_not_wait(loop: Loop) -> None:
    loop.ask(ME, *[Sync()] * 5, *[FindRecords({"msg_id": "x"})] * 5)
    assert len(loop.begun) == 10
    assert not loop.posted


def test_a_long_question_goes_to_the_slow_lane(loop: Loop) -> None:
    loop.ask(ME, ResultStatus(many(5)), ResultStatus(many()))
    assert loop.slow == [False, True]


def test_a_client_with_too_many_questions_is_told_so(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_UNANSWERED", 3)
    loop.ask(ME, *[FindRecords({})] * 5)
    assert len(loop.begun) == 3
    assert len(loop.refused) == 2
    assert "has 3 questions without an answer" in loop.refused[0]
    loop.ask(ME, StopController())
    loop.ask(OTHER, FindRecords({}))
    assert loop.begun[-2:] == [(ME, "StopController"), (OTHER, "read")]
    while loop.reads:
        loop.reads.popleft()()
    loop.ask(ME, *[FindRecords({})] * 3)
    assert len(loop.refused) == 2, "those that are answered do not count"


def test_a_client_whose_questions_name_too_much_is_told_so(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_TASKS_UNANSWERED", 15_000)
    loop.ask(ME, ResultStatus(many()), ResultStatus(many()), Sync())
    loop.turn()
    assert len(loop.refused) == 1
    assert "which name 10,000 tasks" in loop.refused[0]


def test_nothing_begins_for_a_client_that_has_left(loop: Loop) -> None:
    loop.ask(ME, *[QueueStatus()] * 5)
    loop.requests.client_left(ME)
    loop.turn()
    assert len(loop.begun) == 1


def test_questions_that_are_withdrawn_end_and_others_go_on(loop: Loop) -> None:
    """The third one waits for the next turn. The abort changes something: it is not taken back."""
    loop.ask(ME, Abort(many()), FindRecords({}), ResultStatus(many()), FindRecords({}), Withdraw([0, 1, 2, 9]))
    loop.ask(OTHER, Withdraw([3]))
    for _ in range(6):
        loop.turn()
        while loop.reads:
            loop.reads.popleft()()
    mine = {reply.number: reply for client, reply in loop.replies if client == ME}
    assert len(mine) == len([reply for client, reply in loop.replies if client == ME]) == 5, "each is answered once"
    assert [number for number, reply in sorted(mine.items()) if reply.error is not None] == [1, 2]
    assert "nobody waits" in mine[1].error.evalue
    assert [what for _, what in loop.begun].count("read") == 1, "what had not begun does not"
