"""What waits while the store is behind, and in which order it is let in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engineroom.controller.storage import backpressure
from engineroom.controller.storage.backpressure import Room, Unrecorded, WaitingRoom
from engineroom.controller.storage.queued_memory import QueuedMemory
from engineroom.errors import StoreFull
from engineroom.ids import Digest, TaskId
from engineroom.messages import (
    Abort,
    CountRecords,
    FindRecords,
    Ping,
    QueueStatus,
    Request,
    Resubmit,
    ResultStatus,
    StopController,
    Submit,
    TaskSpec,
    Watch,
)


class Peer:
    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


class Door:
    """A waiting room, and what was let in."""

    def __init__(self, room: int) -> None:
        self.room, self.why, self.exempt = room, "database", ""
        self.let: list[Any] = []
        self.waiting = WaitingRoom(self._no_room, self._handle)

    def _no_room(self, peer: Peer) -> str:
        return "" if self.room > 0 or peer.uuid == self.exempt else self.why

    def _handle(self, peer: Peer, message: Any, frames: Any) -> None:
        if isinstance(message, Submit):
            self.room -= 1
        self.let.append((peer.uuid, getattr(message, "number", type(message).__name__)))

    def say(self, uuid: str, *messages: Any) -> None:
        for message in messages:
            self.waiting.receive(Peer(uuid), message, ())

    def open(self, room: int) -> list[Any]:
        self.room, self.let = room, []
        self.waiting.let_in()
        return self.let


def submits(*numbers: int) -> list[Submit]:
    return [Submit(number, []) for number in numbers]


ASK = Request(77, QueueStatus())


@pytest.mark.fault(37)
def test_without_room_tasks_wait_and_the_questions_behind_them() -> None:
    door = Door(1)
    door.say("a", *submits(1, 2), ASK, Ping(3))
    door.say("b", ASK)
    assert door.let == [("a", 1), ("a", "Ping"), ("b", 77)]
    assert len(door.waiting) == 2
    assert door.open(0) == []
    assert door.open(1) == [("a", 2), ("a", 77)]
    assert len(door.waiting) == 0


def test_clients_take_turns() -> None:
    door = Door(0)
    door.say("a", *submits(1, 2, 3))
    door.say("b", *submits(4), ASK)
    assert door.open(3) == [("a", 1), ("b", 4), ("b", 77), ("a", 2)]
    assert door.open(9) == [("a", 3)]


def test_the_end_of_the_cluster_does_not_wait() -> None:
    door = Door(0)
    door.say("a", *submits(1), Request(5, StopController()))
    assert door.let == [("a", 5)]


def test_the_tasks_of_a_client_that_is_gone_are_taken_in_at_once() -> None:
    door = Door(0)
    door.say("a", *submits(1, 2))
    door.say("b", *submits(3))
    door.waiting.client_left("a")
    assert door.let == [("a", 1), ("a", 2)]


def test_a_client_that_begins_anew_sends_everything_again() -> None:
    door = Door(0)
    door.say("a", *submits(1, 2))
    door.waiting.forget("a")
    assert door.open(9) == []


@pytest.mark.fault(37)
def test_what_waits_until_other_tasks_have_ended_keeps_no_question_waiting() -> None:
    door = Door(0)
    door.why = "memory"
    door.say("a", *submits(1), ASK, Watch([TaskId("x")]), Request(3, Resubmit([], [])))
    assert door.let == [("a", 77), ("a", "Watch")]
    assert len(door.waiting) == 2
    door.exempt = "b"  # a client inside an engine
    door.say("b", *submits(2))
    door.say("a", *submits(4))
    assert door.open(0) == []
    assert door.open(3) == [("a", 1), ("a", 3), ("a", 4)]


def test_an_abort_lets_the_tasks_before_it_in() -> None:
    door = Door(0)
    door.why = "memory"
    door.say("a", *submits(1, 2), Request(3, Abort()))
    assert door.let == [("a", 1), ("a", 2), ("a", 3)]


def test_tasks_of_a_client_that_is_gone_are_dropped_if_memory_has_no_room(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(0)
    door.why = "memory"
    door.say("a", *submits(1, 2))
    door.waiting.client_left("a")
    door.waiting.client_left("b")
    assert door.open(9) == []
    assert "client a is gone: its last 2 messages had no room" in caplog.text


def test_a_client_that_may_pass_does_not_wait_behind_others() -> None:
    door = Door(0)
    door.say("a", *submits(1))
    door.say("b", *submits(2))
    door.exempt = "b"
    assert door.open(0) == [("b", 2)]


def test_there_is_room_unless_something_is_too_much() -> None:
    unrecorded, queued, refusals = Unrecorded(), QueuedMemory(100, True), [None, StoreFull("no space")]
    store = SimpleNamespace(hangs=False, refusal=lambda: refusals[0])
    room = Room(unrecorded, queued, store, lambda peer: peer.uuid == "inside")
    outside, inside = Peer("outside"), Peer("inside")
    assert room.lacks(outside) == ""
    queued.bytes = 100
    assert [room.lacks(outside), room.lacks(inside)] == ["memory", ""]
    unrecorded.add(backpressure.MOST, 0)
    assert [room.lacks(outside), room.lacks(inside)] == ["database", "database"]
    store.hangs = True
    assert [room.lacks(outside), room.lacks(inside)] == ["database hangs", "database hangs"]
    refusals.reverse()
    assert room.lacks(outside) == "", "it is refused at once"


def test_questions_do_not_wait_behind_tasks_while_the_database_hangs() -> None:
    door = Door(0)
    door.why = "database hangs"
    door.say("a", *submits(1))
    door.say("a", Request(2, FindRecords({})))
    assert door.let == [("a", 2)], "it is answered with an error"


def test_both_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "MOST", 10)
    monkeypatch.setattr(backpressure, "MOST_BYTES", 1000)
    unrecorded = Unrecorded()
    unrecorded.add(9, 999)
    assert not unrecorded.is_too_much
    unrecorded.add(1, 0)
    assert unrecorded.is_too_much
    unrecorded.remove(9, 0)
    unrecorded.add(0, 1)
    assert unrecorded.is_too_much
    unrecorded.remove(1, 1000)
    assert (unrecorded.count, unrecorded.bytes, unrecorded.is_too_much) == (0, 0, False)


def test_a_question_about_other_tasks_than_those_that_wait_does_not_wait() -> None:
    door = Door(0)
    door.say("a", Submit(1, [TaskSpec(TaskId("a-1"), Digest(b""), b"", 0.0)]))
    door.say("a", Request(2, FindRecords({"msg_id": "a-0"})), Request(3, ResultStatus([TaskId("a-0")])))
    assert door.let == [("a", 2), ("a", 3)]
    door.say("a", Request(4, FindRecords({"msg_id": {"$in": ["a-0", "a-1"]}})), Request(5, CountRecords({})))
    assert len(door.let) == 2
    assert door.open(1) == [("a", 1), ("a", 4), ("a", 5)]
