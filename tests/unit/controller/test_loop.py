"""The controller's loop on a network in memory: whatever fails in it ends what it was about, and the loop goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from engineroom import _version
from engineroom.controller.loop import Controller
from engineroom.errors import StoreDamaged
from engineroom.ids import ClientId, Digest, TaskId
from engineroom.messages import (
    Accepted,
    Function,
    Hello,
    Message,
    Rejected,
    Reply,
    Request,
    Resubmit,
    Submit,
    TaskDone,
    TasksOnEngines,
    TaskSpec,
)
from engineroom.records.entry import Entry
from engineroom.stores import DictDB
from engineroom.testing import MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.functions import digest_of
from engineroom.wire.session import prove

M = TypeVar("M", bound=Message)

CODE = Function(digest_of(b"code"), b"code", "f")
OLD, NEW = TaskId("me-1"), TaskId("me-2")


class Talk:
    """A controller, and a client that talks to it."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.store = DictDB()
        self.controller = Controller(self.network.listener, self.store, "key")
        self.link = self.network.link(b"me")
        self.say(prove(Hello(_version.PROTOCOL_VERSION, "client", "", "me", 0, "elsewhere"), b"key"))

    def say(self, message: Message) -> None:
        self.link.send([frames.encode(message)])

    def hear(self, kind: type[M]) -> M:
        """The next message of a kind; the loop takes turns until it comes."""
        for _ in range(200):
            self.controller.turn()
            for arrived in self.link.receive():
                message = frames.decode_to_client(arrived[0])
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} came")

    def close(self) -> None:
        self.controller.close()
        self.link.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.close()


def recorded(store: DictDB, function: Digest) -> None:
    """A task that has ended."""
    done = TaskDone(OLD, 1, "ok", 1.0, 2.0, b"result")
    store.write([Entry(TaskSpec(OLD, function, b"arguments", 0.0), ClientId("me"), done=done)])


def test_a_posted_function_that_raises_does_not_end_the_loop(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    called = []
    talk.controller.post(lambda: called.append(1 / 0))
    talk.controller.post(lambda: called.append(1))
    talk.say(Request(1, TasksOnEngines()))
    assert talk.hear(Reply).value == []
    assert called == [1]
    assert sum(record.exc_info is not None for record in caplog.records) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_a_resubmission_whose_function_cannot_be_had_fails(
    talk: Talk, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(digest: Digest) -> Any:
        raise StoreDamaged("a checksum is wrong")

    if damaged:
        monkeypatch.setattr(talk.store, "get_function", unreadable)
    recorded(talk.store, CODE.digest)
    talk.say(Request(1, Resubmit([OLD], [NEW])))
    reply = talk.hear(Reply)
    assert reply.error is not None
    assert reply.error.ename == "StoreError"
    why = "a checksum is wrong" if damaged else "it is not in the database (any more)"
    assert reply.error.evalue == f"the function of this task cannot be had: {why}; nothing was resubmitted"
    assert not talk.controller.scheduler.tasks
    talk.say(Request(2, TasksOnEngines()))
    assert talk.hear(Reply).number == 2, "the loop goes on"


def test_a_resubmission_loads_its_function_before_the_core_hears_of_it(talk: Talk) -> None:
    talk.store.add_functions([CODE])
    recorded(talk.store, CODE.digest)
    talk.say(Request(1, Resubmit([OLD], [NEW])))
    assert talk.hear(Reply).value == [NEW]
    assert NEW in talk.controller.scheduler.tasks
    assert talk.store.get_record(OLD)["resubmitted"] == NEW


def test_a_function_that_was_let_go_of_is_read_for_the_next_task(talk: Talk) -> None:
    talk.store.add_functions([CODE])
    talk.say(Submit(1, [TaskSpec(NEW, CODE.digest, b"", 0.0)]))
    assert talk.hear(Accepted).numbers == [1]
    talk.say(Submit(2, [TaskSpec(TaskId("me-3"), digest_of(b"unknown"), b"", 0.0)]))
    rejected = talk.hear(Rejected)
    assert (rejected.number, rejected.code) == (2, "functions"), "the client sends it along"
