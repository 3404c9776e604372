"""What waits while the store is behind, and in which order it is let in."""

from __future__ import annotations

from typing import Any

import pytest

from engineroom.controller.storage import backpressure
from engineroom.controller.storage.backpressure import Unrecorded, WaitingRoom
from engineroom.ids import Digest, TaskId
from engineroom.messages import (
    CountRecords,
    FindRecords,
    Ping,
    QueueStatus,
    Request,
    ResultStatus,
    StopController,
    Submit,
    TaskSpec,
)


class Peer:
    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


class Door:
    """A waiting room, and what was let in."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.let: list[Any] = []
        self.waiting = WaitingRoom(lambda: self.room <= 0, self._handle)

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
    door.waiting.let_all_in("a")
    assert door.let == [("a", 1), ("a", 2)]


def test_a_client_that_begins_anew_sends_everything_again() -> None:
    door = Door(0)
    door.say("a", *submits(1, 2))
    door.waiting.forget("a")
    assert door.open(9) == []


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
