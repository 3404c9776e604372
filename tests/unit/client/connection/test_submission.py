"""Tasks on their way: batches, the window, what is sent again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engineroom.client.connection import submission
from engineroom.client.connection.submission import Acceptance, Outgoing, SubmissionWindow, tracked
from engineroom.ids import Digest, EngineId, TaskId
from engineroom.messages import Abort, CacheKey, ErrorInfo, Function, Rejected, Submit, TaskOptions, TaskSpec
from engineroom.shared_memory.buffer import SHARED_COUNTS, SHARED_FROM
from engineroom.shared_memory.pool import Pool

F = Function(Digest(b"f" * 16), b"pickled")


def task(id: str, function: Function | None = F, payload: bytes = b"", buffers: tuple[bytes, ...] = ()) -> Outgoing:
    return TaskSpec(TaskId(id), function.digest if function else Digest(b""), payload, 0.0), function, buffers


def window_with(*tasks: Outgoing) -> SubmissionWindow:
    window = SubmissionWindow()
    window.queue.extend(tasks)
    return window


def pack(window: SubmissionWindow) -> tuple[Submit, list[Any]]:
    """The next message, which there must be, and its frames."""
    packed = window.pack_next()
    assert packed is not None
    return packed


def ids(message: Submit) -> list[str]:
    return [spec.id for spec in message.tasks]


def rejected(number: int, code: str = "") -> Rejected:
    return Rejected(number, ErrorInfo("StoreFull", "no room"), code)


def test_what_has_gathered_leaves_in_one_message():
    window = window_with(task("a"), task("b"))
    message, _ = pack(window)
    assert (message.number, ids(message), message.resent) == (1, ["a", "b"], False)
    assert window.pack_next() is None


def test_a_function_and_the_environment_travel_once():
    window = window_with(task("a"), task("b"))
    first, _ = pack(window)
    window.sent(first)
    window.queue.append(task("c"))
    second, _ = pack(window)
    assert (first.functions, second.functions) == ([F], [])
    assert first.environment is not None
    assert second.environment is None


def test_so_many_functions_are_known_and_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "MOST_KNOWN", 3)
    functions = [Function(Digest(bytes([number]) * 16), b"pickled") for number in range(4)]
    window = SubmissionWindow()

    def sent_with(function: Function) -> list[Function]:
        window.queue.append(task("a", function))
        return pack(window)[0].functions

    assert [sent_with(function) for function in functions] == [[function] for function in functions]
    assert sent_with(functions[0]) == [functions[0]], "all are forgotten"
    assert sent_with(functions[0]) == []


def test_large_messages_are_cut(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "BATCH", 2)
    monkeypatch.setattr(submission, "BATCH_BYTES", 100)
    window = window_with(*[task(id) for id in "abc"], task("d", payload=b"x" * 200), task("e"))
    messages = []
    while packed := window.pack_next():
        messages.append(ids(packed[0]))
    assert messages == [["a", "b"], ["c", "d"], ["e"]]


def test_no_more_than_a_window_is_on_its_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "WINDOW_BYTES", 100)
    window = window_with(task("a", buffers=(b"x" * 150,)), task("b", payload=b"y" * 10))
    monkeypatch.setattr(submission, "BATCH", 1)
    first, frames = pack(window)
    assert (ids(first), frames, first.tasks[0].frames) == (["a"], [b"x" * 150], (0,))
    assert not window.has_room
    assert window.pack_next() is None
    window.accepted([first.number])
    assert window.has_room
    assert window.pack_next() is not None


def test_a_rejected_message_gives_up_its_tasks():
    window = window_with(task("a"), task("b"))
    message, _ = pack(window)
    assert window.rejected(rejected(message.number)) == ["a", "b"]
    assert not window.unaccepted_tasks
    assert window.rejected(rejected(message.number)) == [], "twice is as good as once"


def test_tasks_whose_functions_are_missing_are_said_again_in_order():
    window = window_with(task("a"), task("b"))
    message, _ = pack(window)
    window.queue.append(task("c"))
    pack(window)
    assert window.rejected(rejected(message.number, "functions")) == []
    window.queue.append(task("d"))
    again = [(ids(message), message.functions) for message, _ in window.pack_again()]
    assert again == [(["a", "b"], [F]), (["c"], [])]


def test_unaccepted_messages_are_sent_again_as_such():
    window = window_with(task("a"))
    first, _ = pack(window)
    window.queue.append(task("b", buffers=(b"large",)))
    second, _ = pack(window)
    window.accepted([first.number])
    window.queue.append(task("c"))
    assert window.tasks() == {"b", "c"}
    [(again, frames)] = window.pack_again()
    assert (ids(again), again.resent, frames) == (["b"], True, [b"large"])
    assert again.number > second.number
    assert again.functions == [F], "the message that had the function may be the one that was lost"
    window.accepted([second.number])
    assert window.unaccepted_tasks == 2, "an answer to the first sending is not one to the second"
    window.accepted([again.number])
    assert window.unaccepted_tasks == 1, "the one that is queued"
    assert window.has_room


def test_a_restarted_controller_gets_functions_and_environment_again():
    window = window_with(task("a"))
    first, _ = pack(window)
    window.sent(first)
    window.controller_restarted(takes_former=True)
    window.tell_environment_again()
    [(again, _)] = window.pack_again()
    assert again.functions == [F]
    assert again.environment is not None


def test_a_controller_that_may_have_forgotten_us_gets_the_environment_again():
    window = window_with(task("a"))
    first, _ = pack(window)
    window.sent(first)
    window.tell_environment_again()
    [(again, _)] = window.pack_again()
    assert again.environment is not None


def test_a_message_that_cannot_be_encoded_leaves_nothing_behind():
    window = window_with(task("a"))
    message, _ = pack(window)
    assert window.unsendable(message) == ["a"]
    window.queue.append(task("b"))
    following, _ = pack(window)
    assert following.functions == [F]
    assert following.environment is not None
    assert window.unaccepted_tasks == 1


def test_a_message_says_whether_a_task_may_be_answered_from_the_database():
    cached, plain = task("a"), task("b")
    cached[0].options = TaskOptions(cache=CacheKey("code", "arguments"))
    for tasks, expected in (([cached, plain], True), ([plain], False)):
        message, _ = pack(window_with(*tasks))
        assert message.cached is expected


def test_small_tasks_fill_the_window_by_their_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "BATCH", 2)
    monkeypatch.setattr(submission, "WINDOW", 4)
    window = window_with(*[task(id) for id in "abcdef"])
    first, _ = pack(window)
    pack(window)
    assert not window.has_room
    assert window.pack_next() is None
    window.accepted([first.number])
    third, _ = pack(window)
    assert ids(third) == ["e", "f"]


def test_a_task_weighs_more_than_its_arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "WINDOW_BYTES", 3 * submission.TASK_BYTES)
    monkeypatch.setattr(submission, "BATCH", 1)
    window = window_with(*[task(id) for id in "abcd"])
    sent = []
    while packed := window.pack_next():
        sent += ids(packed[0])
    assert sent == ["a", "b", "c"]
    assert [ids(again) for again, _ in window.pack_again()] == [["a"], ["b"], ["c"]]
    assert not window.has_room
    for message in range(4, 7):
        window.accepted([message])
    assert window.has_room
    assert (window._bytes, window._tasks) == (0, 0)


def test_a_long_queue_is_told_of_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "MANY", 4)
    window = window_with(*[task(id) for id in "abc"])
    assert window.notice(0.0) == ""
    window.queue.append(task("d"))
    told = [window.notice(0.0), window.notice(0.0)]
    assert told[0].startswith("4 tasks wait in this process")
    assert told[1] == ""
    window.queue.clear()
    assert window.notice(0.0) == ""
    window.queue.extend([task(id) for id in "abcd"])
    assert window.notice(0.0)


@pytest.mark.fault(37)
def test_that_the_controller_has_no_room_is_told_once_after_some_seconds():
    window = window_with(*[task(id) for id in "abc"])
    window.hear("memory")
    assert [window.notice(at) for at in (10.0, 12.9)] == ["", ""]
    window.hear("")  # for a moment: one message has been taken in
    assert window.notice(12.95) == ""
    window.hear("memory")
    told = [window.notice(13.0), window.notice(14.0)]
    assert told[0].startswith("3 tasks wait until the controller has room: the tasks that it has take all the memory")
    assert "IPController.queued_memory" in told[0]
    assert told[1] == ""
    window.hear("database")
    assert "its database is behind" in window.notice(14.5), "another reason"
    window.hear("memory")
    assert window.notice(14.6) == ""
    window.queue.clear()
    window.hear("")
    assert window.notice(15.0) == ""
    window.queue.append(task("d"))
    window.hear("database")
    assert [window.notice(20.0), "database" in window.notice(23.0)] == ["", True]


def test_without_tasks_that_wait_nothing_is_told():
    window = window_with()
    window.hear("memory")
    assert [window.notice(0.0), window.notice(100.0)] == ["", ""]


@pytest.mark.parametrize(("named", "left"), [(None, []), (["b", "x"], ["a", "c"])])
def test_an_abort_takes_queued_tasks_back_while_others_must_end_first(named: Any, left: list[str]):
    window = window_with(*[task(id) for id in "abc"])
    assert window.take_back(Abort(named)) == []
    window.hear("memory")
    assert window.take_back(Abort(named, [EngineId(0)])) == []
    taken = window.take_back(Abort(named))
    assert taken == [id for id in "abc" if id not in left]
    assert [spec.id for spec, _, _ in window.queue] == left


# ------------------------------------------------------------------------------------------ tracked tasks


def test_tracked_tasks_are_sent_when_all_are_accepted():
    acceptance = Acceptance(2)
    window = window_with(tracked(task("a", buffers=(b"large",)), acceptance))
    first, frames = pack(window)
    assert frames == [b"large"]
    window.queue.append(tracked(task("b"), acceptance))
    second, _ = pack(window)
    window.accepted([first.number])
    assert not acceptance.wait(0)
    window.accepted([second.number])
    assert acceptance.is_complete()


def test_tasks_that_are_sent_again_are_not_accepted_yet():
    acceptance = Acceptance(1)
    window = window_with(tracked(task("a"), acceptance))
    first, _ = pack(window)
    window.rejected(rejected(first.number, "functions"))
    [(again, _)] = window.pack_again()
    [(resent, _)] = window.pack_again()
    window.accepted([first.number, again.number])
    assert not acceptance.is_complete()
    window.accepted([resent.number])
    assert acceptance.is_complete()


@pytest.mark.parametrize("end", ["rejected", "unsendable", "give_up"])
def test_nobody_waits_for_what_will_not_be_sent(end: str):
    acceptance = Acceptance(1)
    window = window_with(tracked(task("a"), acceptance))
    message, _ = pack(window)
    if end == "rejected":
        window.rejected(rejected(message.number))
    elif end == "unsendable":
        window.unsendable(message)
    else:
        window.give_up()
    assert acceptance.is_complete()


def test_which_tasks_are_queued():
    window = window_with(task("a"), task("b"))
    assert window.has_queued([TaskId("x"), TaskId("b")])
    pack(window)
    assert not window.has_queued([TaskId("a"), TaskId("b")]), "they are on their way"


def test_tasks_that_share_a_large_buffer_leave_in_one_message_and_it_counts_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "BATCH_BYTES", 100)
    shared, other = b"s" * 1000, b"o" * 1000
    window = window_with(*[task(id, buffers=(shared,)) for id in "abc"], task("d", buffers=(other,)), task("e"))
    message, frames = pack(window)
    assert (ids(message), frames) == (["a", "b", "c"], [shared])
    assert window._bytes == 1000 + 3 * submission.TASK_BYTES
    message, frames = pack(window)
    assert (ids(message), frames) == (["d"], [other])
    assert ids(pack(window)[0]) == ["e"]


def test_a_shared_buffer_weighs_a_part_of_its_bytes():
    buffer = Pool().copy(bytes(4 * SHARED_FROM))
    window = window_with(task("a", buffers=(buffer,)))
    pack(window)
    assert window._bytes == 4 * SHARED_FROM // SHARED_COUNTS + submission.TASK_BYTES


def test_after_a_restart_what_the_former_controller_was_sent_is_called_so():
    spec, function, buffers = task("once")
    window = window_with((msgspec.structs.replace(spec, options=TaskOptions(at_most_once=True)), function, buffers))
    pack(window)
    assert [message.former for message, _ in window.pack_again()] == [False], "the connection was lost, nothing else"
    window.queue.append(task("other"))
    window.controller_restarted(takes_former=True)
    assert [(ids(message), message.former) for message, _ in window.pack_again()] == [(["once"], True)]
    assert [message.former for message, _ in window.pack_again()] == [True], "and again"
    message, _ = pack(window)
    assert not message.former
    window.accepted([message.number - 1])
    assert not window._former


def test_what_was_aborted_is_said_to_have_been():
    window = window_with(task("a"), task("b"))
    window.aborted |= {"b", "c"}
    first, _ = pack(window)
    assert first.aborted == []
    window.controller_restarted(takes_former=True)
    [(message, _)] = window.pack_again()
    assert message.aborted == ["b"]


def test_not_all_that_was_aborted_is_kept_in_mind_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submission, "MOST_ABORTED", 2)
    window = window_with(task("a"), task("b"))
    message, _ = pack(window)
    window.aborted |= {"b", "c", "d"}
    window.accepted([])
    assert window.aborted == {"b"}
    window.aborted |= {"c", "d"}
    window.accepted([message.number])
    assert window.aborted == set()


def test_tasks_that_run_at_most_once_are_not_sent_again_to_a_controller_that_would_run_them():
    acceptance = Acceptance(1)
    spec, function, buffers = task("once", buffers=(b"x",))
    spec = msgspec.structs.replace(spec, options=TaskOptions(at_most_once=True))
    once = tracked((spec, function, buffers), acceptance)
    window = window_with(once, task("any"))
    pack(window)
    window.queue.append(task("later"))
    window.controller_restarted(takes_former=False)
    assert [ids(message) for message, _ in window.pack_again()] == [["any"]]
    assert ids(pack(window)[0]) == ["later"]
    assert window.tasks() == {"any", "later"}, "the client asks about the other one"
    assert acceptance.is_complete()


def test_a_message_of_which_nothing_is_left_is_not_sent():
    spec, function, buffers = task("once")
    window = window_with((msgspec.structs.replace(spec, options=TaskOptions(at_most_once=True)), function, buffers))
    pack(window)
    window.controller_restarted(takes_former=False)
    assert list(window.pack_again()) == []
    assert not window.unaccepted_tasks
    assert window.has_room
