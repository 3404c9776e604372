"""Questions and their answers."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from engineroom.client.connection.requests import PendingRequests, total
from engineroom.errors import ControllerLost, QueryError, RemoteError, UnknownTask
from engineroom.ids import TaskId
from engineroom.messages import ErrorInfo, FindRecords, History, Reply, RequestBody, Resubmit, Withdraw


@pytest.fixture
def pending() -> PendingRequests:
    return PendingRequests()


def test_each_answer_finds_its_question(pending: PendingRequests):
    first, one = pending.add(History())
    second, two = pending.add(History())
    pending.on_reply(Reply(second.number, [2]), ())
    pending.on_reply(Reply(first.number, [1]), ())
    assert (one.result(0), two.result(0)) == ([1], [2])
    pending.on_reply(Reply(first.number, [3]), ())  # again, after a reconnection: nobody waits any more
    assert one.result(0) == [1]


def test_records_come_in_frames(pending: PendingRequests):
    request, future = pending.add(FindRecords({}))
    pending.on_reply(Reply(request.number), [b"one", b"two"])
    assert future.result(0) == (None, [b"one", b"two"])


@pytest.mark.parametrize(
    ("ename", "kind"),
    [("QueryError", QueryError), ("KeyError", UnknownTask), ("IndexError", IndexError), ("OddError", RemoteError)],
)
def test_an_answer_may_be_an_error(pending: PendingRequests, ename: str, kind: type[Exception]):
    request, future = pending.add(History())
    pending.on_reply(Reply(request.number, error=ErrorInfo(ename, "this is why")), ())
    with pytest.raises(kind, match="this is why"):
        future.result(0)


def test_who_has_cancelled_gets_no_answer(pending: PendingRequests):
    request, future = pending.add(History())
    assert future.cancel()
    pending.on_reply(Reply(request.number, []), ())
    assert future.cancelled()


def test_unanswered_questions_are_known_in_order(pending: PendingRequests):
    first, _ = pending.add(History())
    again = Resubmit([TaskId("a")], [TaskId("new")])
    second, _ = pending.add(again)
    third, _ = pending.add(History())
    pending.drop(third)
    assert pending.unanswered() == [first, second]
    assert pending.resubmitted() == {"new"}
    pending.on_reply(Reply(second.number), ())
    assert pending.resubmitted() == set()


def test_without_a_controller_every_question_fails(pending: PendingRequests):
    futures = [pending.add(History())[1] for _ in range(2)]
    pending.fail(lambda: ControllerLost("gone"))
    assert [type(future.exception(0)) for future in futures] == [ControllerLost, ControllerLost]
    assert futures[0].exception(0) is not futures[1].exception(0)
    assert pending.unanswered() == []


def test_the_total_of_several_answers_is_there_with_the_last():
    one, two = Future[int](), Future[int]()
    whole = total([one, two])
    one.set_result(3)
    assert not whole.done()
    two.set_result(4)
    assert whole.result(0) == 7
    lone = Future[int]()
    assert total([lone]) is lone


def test_the_total_of_answers_of_which_one_failed_is_its_error():
    one, two = Future[int](), Future[int]()
    whole = total([one, two])
    two.set_exception(QueryError("no"))
    one.set_result(3)
    with pytest.raises(QueryError, match="no"):
        whole.result(0)


@pytest.mark.parametrize("may_withdraw", [True, False])
def test_a_controller_that_takes_questions_back_is_told_when_nobody_waits(pending: PendingRequests, may_withdraw: bool):
    pending.may_withdraw = may_withdraw
    asked: list[RequestBody] = []
    _, first = pending.add(History())
    request, second = pending.add(History())
    with pytest.raises(TimeoutError):
        pending.wait(second, 0, asked.append)
    assert asked == ([Withdraw([2])] if may_withdraw else [])
    pending.on_reply(Reply(request.number, error=ErrorInfo("QueryError", "nobody waits")), ())
    with pytest.raises(QueryError):
        pending.wait(second, 0, asked.append)
    assert len(asked) <= 1
    assert not first.done()


def test_an_interrupted_wait_stays_that_when_the_controller_is_gone(pending: PendingRequests):
    def ask(body: RequestBody) -> None:
        raise ControllerLost("gone")

    pending.may_withdraw = True
    _, answer = pending.add(History())
    with pytest.raises(TimeoutError):
        pending.wait(answer, 0, ask)
