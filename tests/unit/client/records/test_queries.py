"""Questions that name more tasks than one message may are asked in several; a change is made as a whole, or not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from engineroom.client.connection.channel import Channel
from engineroom.client.records.queries import Records
from engineroom.errors import PendingTask, UnknownTask
from engineroom.ids import TaskId
from engineroom.messages import Explain, Pin, Purge, ResultStatus

IDS = [TaskId(f"x-{number}") for number in range(25_000)]


class FakeChannel:
    """Answers for tasks that have ended, but for some."""

    def __init__(self) -> None:
        self.pending: set[str] = set()
        self.unknown: set[str] = set()
        self.changed: list[str] = []

    def ask(self, body: Any, timeout: float | None = None) -> Any:
        assert len(body.tasks) <= 10_000
        if unknown := self.unknown.intersection(body.tasks):
            raise UnknownTask(min(unknown))
        match body:
            case ResultStatus():
                pending = [id for id in body.tasks if id in self.pending]
                return {"pending": pending, "completed": [id for id in body.tasks if id not in self.pending]}
            case Explain():
                return [{"msg_id": id, "state": "ended", "reason": "", "details": {}} for id in body.tasks]
            case Purge() | Pin():
                self.changed += body.tasks
                return len(body.tasks)


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def records(channel: FakeChannel) -> Records:
    return Records(cast(Channel, channel))


def test_the_answers_are_put_together(records: Records, channel: FakeChannel) -> None:
    channel.pending = {IDS[3], IDS[24_000]}
    status = records.result_status(IDS)
    assert status["pending"] == [IDS[3], IDS[24_000]]
    assert len(status["completed"]) == len(IDS) - 2
    assert [answer.msg_id for answer in records.explain(IDS)] == IDS


def test_a_change_of_many_is_made_in_parts(records: Records, channel: FakeChannel) -> None:
    assert records.purge([*IDS, IDS[0]]) == len(IDS)
    assert channel.changed == IDS
    channel.changed.clear()
    assert records.pin(IDS, None, True) == len(IDS)
    assert channel.changed == IDS


def test_no_part_of_a_change_is_made_if_one_is_refused(records: Records, channel: FakeChannel) -> None:
    channel.pending = {IDS[-1]}
    with pytest.raises(PendingTask, match="nothing was changed"):
        records.purge(IDS)
    channel.unknown = {IDS[-1]}
    for change in (lambda: records.purge(IDS), lambda: records.pin(IDS, None, True)):
        with pytest.raises(UnknownTask):
            change()
    assert not channel.changed
