"""Which questions wait for tasks that are being looked up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from engineroom.controller.intake import Arriving
from engineroom.controller.loop import Controller
from engineroom.controller.peers import Peer
from engineroom.ids import TaskId
from engineroom.messages import Abort, Explain, Request
from engineroom.messages import ResultStatus as Status


def arriving() -> tuple[Arriving, list[int]]:
    answered: list[int] = []
    hub = SimpleNamespace(answer=lambda peer, request: answered.append(request.number))
    return Arriving(cast(Controller, SimpleNamespace(hub=hub))), answered


def peer(uuid: str) -> Peer:
    return cast(Peer, SimpleNamespace(uuid=uuid))


def ask(number: int, body: Any = None) -> Request:
    return Request(number, body or Status([TaskId("a")]))


def test_a_question_waits_for_what_came_before_it_and_no_longer() -> None:
    made, answered = arriving()
    assert not made.defers(peer("ann"), ask(1))
    first, second = made.begin(peer("ann"), known=True), made.begin(peer("ann"), known=True)
    assert made.defers(peer("ann"), ask(2))
    assert not made.defers(peer("bob"), ask(3)), "another's tasks"
    later = made.begin(peer("ann"), known=True)
    made.end(second)
    assert answered == []
    made.end(first)
    assert answered == [2]
    made.end(later)
    assert answered == [2]
    assert not made.defers(peer("ann"), ask(4))


def test_known_tasks_are_aborted_and_explained_at_once() -> None:
    made, answered = arriving()
    known = made.begin(peer("ann"), known=True)
    abort, explain = Abort([TaskId("a")]), Explain([TaskId("a")])
    assert not made.defers(peer("ann"), ask(1, abort))
    assert not made.defers(peer("ann"), ask(2, explain))
    again = made.begin(peer("ann"), known=False)
    assert made.defers(peer("ann"), ask(3, abort))
    made.end(known)
    made.end(again)
    assert answered == [3]
