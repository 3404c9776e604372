"""The controller's loop on a network in memory: whatever fails in it ends what it was about, and the loop goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from engineroom import _version
from engineroom.config import LivenessSettings
from engineroom.controller.loop import Controller, Machinery
from engineroom.controller.presence import membership
from engineroom.controller.requests import task_requests
from engineroom.controller.storage import backpressure, queued_buffers, queued_memory
from engineroom.errors import StoreDamaged
from engineroom.ids import ClientId, Digest, EngineId, EngineUuid, TaskId, digest_of
from engineroom.messages import (
    Abort,
    Accepted,
    EngineDied,
    Engines,
    FindRecords,
    Function,
    Goodbye,
    Hello,
    Message,
    Output,
    Ping,
    Pong,
    QueueStatus,
    Rejected,
    Reply,
    Request,
    Resubmit,
    Results,
    ResultStatus,
    Run,
    SignalEngines,
    Started,
    Submit,
    TaskDone,
    TaskOptions,
    TasksOnEngines,
    TaskSpec,
    Watch,
    Welcome,
)
from engineroom.records.entry import Entry
from engineroom.stores import DictDB
from engineroom.testing import MemoryNetwork
from engineroom.testing.network import MemoryLink
from engineroom.wire import frames
from engineroom.wire.session import prove

M = TypeVar("M", bound=Message)

CODE = Function(digest_of(b"code"), b"code", "f")
OLD, NEW = TaskId("me-1"), TaskId("me-2")


class Talk:
    """A controller, and a client that talks to it."""

    def __init__(
        self,
        store: DictDB | None = None,
        *,
        restarted: bool = False,
        machinery: Machinery | None = None,
        queued_memory: int | None = None,
    ):
        self.network = MemoryNetwork()
        self.store = store or DictDB()
        self.controller = Controller(
            self.network.listener,
            self.store,
            "key",
            restarted=restarted,
            machinery=machinery,
            queued_memory=queued_memory,
        )
        self.link = self.network.link(b"me")
        self.greet(0)

    def greet(self, number: int) -> None:
        self.say(prove(Hello(_version.PROTOCOL_VERSION, "client", "", "me", 0, "elsewhere", number=number), b"key"))

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

    def until(self, condition: Callable[[], bool]) -> None:
        """The loop takes turns until this is so."""
        for _ in range(200):
            if condition():
                return
            self.controller.turn()
        raise AssertionError("it does not come to that")

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


@pytest.mark.fault(15)
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


@pytest.mark.parametrize("new", [[], [NEW, TaskId("newer")]])
def test_a_resubmission_has_a_new_id_for_each_task(
    talk: Talk, new: list[TaskId], caplog: pytest.LogCaptureFixture
) -> None:
    recorded(talk.store, digest_of(b"pickled"))
    talk.say(Request(1, Resubmit([OLD], new)))
    error = talk.hear(Reply).error
    assert error is not None
    assert error.ename == "ProtocolError"
    assert error.evalue == f"1 tasks are resubmitted, and {len(new)} new ids are given"
    assert not [record for record in caplog.records if record.exc_info]


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


def test_behind_tasks_whose_function_is_missing_none_are_taken(talk: Talk) -> None:
    """Direct tasks are to keep their order: the client says Hello, and all of them again."""
    talk.store.add_functions([CODE])
    unknown = Function(digest_of(b"unknown"), b"unknown")
    first = TaskSpec(TaskId("me-3"), unknown.digest, b"", 0.0)
    behind = TaskSpec(TaskId("me-4"), CODE.digest, b"", 0.0)
    talk.greet(1)
    talk.say(Submit(1, [first], sent=2))
    talk.say(Submit(2, [behind], sent=3))
    assert talk.hear(Rejected).number == 1
    talk.say(Submit(3, [behind], sent=4))
    talk.say(Request(1, TasksOnEngines()))
    assert talk.hear(Reply).number == 1
    assert behind.id not in talk.controller.scheduler.tasks
    talk.greet(2)
    talk.say(Submit(4, [first], [unknown], resent=True, sent=2))
    talk.say(Submit(5, [behind], resent=True, sent=3))
    talk.until(lambda: behind.id in talk.controller.scheduler.tasks)
    assert list(talk.controller.scheduler.tasks) == [first.id, behind.id]


class Holding(DictDB):
    """Writes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, entries: Sequence[Entry]) -> None:
        assert self.go_on.wait(20)
        super().write(entries)


@pytest.mark.fault(37)
def test_while_the_store_is_behind_tasks_wait_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "MOST", 2)
    talk = Talk(store := Holding())
    try:
        for number in range(1, 5):
            tasks = [TaskSpec(TaskId(f"me-{number}-{n}"), CODE.digest, b"", 0.0) for n in range(2)]
            talk.say(Submit(number, tasks, [CODE]))
        talk.say(Request(1, ResultStatus([TaskId("me-4-0")])))
        talk.say(Request(2, SignalEngines(2, [])))
        assert talk.hear(Reply).number == 2, "what is not about tasks does not wait"
        assert set(talk.controller.scheduler.tasks) == {"me-1-0", "me-1-1"}
        store.go_on.set()
        assert [talk.hear(Accepted).numbers for _ in range(2)] == [[1], [2]]
        reply = talk.hear(Reply)
        assert (reply.number, reply.error) == (1, None), "a question waits for the tasks before it"
        assert len(talk.controller.scheduler.tasks) == 8
    finally:
        store.go_on.set()
        talk.close()


def test_engines_share_one_limit_on_results_that_are_not_stored(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "UNSTORED", 100)
    monkeypatch.setattr(membership, "LEAST_UNSTORED", 30)
    links, told = [], []
    for name in (b"e1", b"e2", b"e3", b"e4"):
        link = talk.network.link(name)
        links.append(link)
        greeting = Hello(_version.PROTOCOL_VERSION, "engine", "", name.decode(), 0, "elsewhere", number=1)
        hello = prove(greeting, b"key")
        link.send([frames.encode(hello)])
        talk.controller.turn()
        [[header]] = link.receive()
        told.append(frames.decode_to_engine(header).unstored_limit)
    assert told == [100, 50, 33, 30], "many engines have at least a little each"
    links[3].send([frames.encode(Goodbye())])
    links[0].send([frames.encode(Ping(2, 1))])
    talk.controller.turn()
    [[header]] = links[0].receive()
    assert frames.decode_to_engine(header).unstored_limit == 33, "a sign of life tells how it is now"
    for link in links:
        link.close()


def large_tasks(talk: Talk) -> list[bytes]:
    """Three tasks with large arguments, taken in and recorded; returns the arguments."""
    arguments = [bytes([n]) * 1000 for n in range(1, 4)]
    tasks = [TaskSpec(TaskId(f"me-{n}"), CODE.digest, b"", 0.0, frames=(n,)) for n in range(3)]
    talk.link.send([frames.encode(Submit(1, tasks, [CODE])), *arguments])
    talk.hear(Accepted)
    return arguments


def engine_of(talk: Talk) -> MemoryLink:
    """An engine comes."""
    link = talk.network.link(b"engine")
    hello = Hello(_version.PROTOCOL_VERSION, "engine", "", "engine", 7, "elsewhere", nanny="nanny")
    link.send([frames.encode(prove(hello, b"key"))])
    return link


def runs_on(talk: Talk, link: MemoryLink, count: int) -> dict[str, tuple[bytes, ...]]:
    """The arguments of the first tasks that an engine is given."""
    got: dict[str, tuple[bytes, ...]] = {}
    for _ in range(200):
        talk.controller.turn()
        for header, *buffers in link.receive():
            message = frames.decode_to_engine(header)
            if isinstance(message, Run):
                got |= {spec.id: tuple(map(bytes, frames.pick(spec, buffers))) for spec in message.tasks}
                results = [TaskDone(spec.id, 1, "ok", 1.0, 2.0, b"result") for spec in message.tasks]
                link.send([frames.encode(Results(results, len(got)))])
        if len(got) >= count:
            return got
    raise AssertionError(f"only {sorted(got)} came")


@pytest.mark.fault(37)
def test_large_arguments_that_are_recorded_leave_memory_and_are_read_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_buffers, "LIMIT", 1500)
    arguments = large_tasks(talk)
    kept = {id: len(task.frames) for id, task in talk.controller.scheduler.tasks.items()}
    assert kept == {"me-0": 1, "me-1": 0, "me-2": 0}
    link = engine_of(talk)
    assert runs_on(talk, link, 3) == {f"me-{n}": (arguments[n],) for n in range(3)}
    talk.hear(Results)
    assert talk.store.get_record(TaskId("me-2"))["buffers"] == [arguments[2]], "the record still has them"
    link.close()


class Counting(DictDB):
    """A database that counts how often tasks are read. It says that it is not in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.durable = True
        self.reads: list[int] = []

    def entries(self, ids: Sequence[TaskId]) -> dict[TaskId, Entry]:
        self.reads.append(len(ids))
        return super().entries(ids)


def small_tasks(first: int, count: int) -> list[TaskSpec]:
    """Tasks with 1,000 bytes of arguments."""
    return [TaskSpec(TaskId(f"me-{n}"), CODE.digest, b"%4d" % n * 250, 0.0) for n in range(first, first + count)]


def run_all(talk: Talk, link: MemoryLink, count: int) -> dict[str, bytes]:
    """Have an engine run all tasks, of which there are so many; returns the arguments that it was given."""
    given: dict[str, bytes] = {}

    def all_ended() -> bool:
        for header, *_ in link.receive():
            message = frames.decode_to_engine(header)
            if isinstance(message, Run):
                given.update({spec.id: spec.payload for spec in message.tasks})
                pairs = zip(message.tasks, message.attempts, strict=True)
                done = [TaskDone(spec.id, attempt, "ok", 1.0, 2.0, b"r") for spec, attempt in pairs]
                link.send([frames.encode(Results(done, (numbers := len(sent)) + 1))])
                sent.append(numbers)
        return len(given) == count and not talk.controller.scheduler.tasks

    sent: list[int] = []
    talk.until(all_ended)
    return given


@pytest.mark.fault(37)
def test_small_arguments_that_are_recorded_leave_memory_and_are_read_together() -> None:
    talk = Talk(store := Counting(), queued_memory=60 * (1000 + queued_memory.TASK_BYTES))
    talk.say(Submit(1, small_tasks(0, 31), [CODE]))
    talk.hear(Accepted)
    talk.say(Submit(2, small_tasks(31, 20), []))
    talk.hear(Accepted)
    tasks = talk.controller.scheduler.tasks
    # The first message passed the half; so the arguments of both leave.
    assert {len(task.spec.payload) for task in tasks.values()} == {0}
    link = engine_of(talk)
    given = run_all(talk, link, 51)
    assert given == {spec.id: spec.payload for spec in small_tasks(0, 51)}
    assert len(store.reads) <= 6, "not one for each task"
    assert (talk.controller._queued.bytes, talk.controller._queued.left) == (0, {})
    talk.close()
    record = store.get_record(TaskId("me-50"))
    assert (record["state"], record["buffers"]) == ("completed", [small_tasks(50, 1)[0].payload])
    link.close()


@pytest.mark.fault(37)
def test_tasks_wait_outside_until_memory_has_room_for_them() -> None:
    talk = Talk(queued_memory=2 * queued_memory.TASK_BYTES)
    talk.say(Submit(1, small_tasks(0, 2), [CODE]))
    talk.say(Submit(2, small_tasks(2, 2)))
    talk.say(Ping(4, 0))
    assert talk.hear(Pong).no_room == "memory"
    talk.say(Request(1, TasksOnEngines()))
    assert talk.hear(Reply).value == [], "questions do not wait"
    assert set(talk.controller.scheduler.tasks) == {"me-0", "me-1"}
    nested = talk.network.link(b"nested")
    link = engine_of(talk)
    inside = Hello(_version.PROTOCOL_VERSION, "client", "", "nested", 7, "elsewhere")
    nested.send([frames.encode(prove(inside, b"key"))])
    nested.send([frames.encode(Submit(1, [TaskSpec(TaskId("nested-1"), CODE.digest, b"", 0.0)], [CODE]))])
    talk.until(lambda: "nested-1" in talk.controller.scheduler.tasks)
    assert set(run_all(talk, link, 5)) == {"me-0", "me-1", "me-2", "me-3", "nested-1"}
    talk.say(Ping(6, 0))
    assert talk.hear(Pong).no_room == ""
    talk.close()
    nested.close()
    link.close()


def test_small_arguments_of_unfinished_tasks_stay_in_the_store_beyond_the_half() -> None:
    store = Counting()
    store.add_functions([CODE])
    store.write([Entry(spec, ClientId("me")) for spec in small_tasks(0, 20)])
    talk = Talk(store, queued_memory=10 * (1000 + queued_memory.TASK_BYTES))
    talk.controller._liveness = LivenessSettings(recovery_grace=0.0)
    talk.controller.recover()
    lengths = [len(task.spec.payload) for task in talk.controller.scheduler.tasks.values()]
    assert lengths[:4] == [1000] * 4
    assert lengths[4:].count(0) >= 14
    link = engine_of(talk)
    assert run_all(talk, link, 20) == {spec.id: spec.payload for spec in small_tasks(0, 20)}
    talk.close()
    link.close()


def test_arguments_that_cannot_be_read_again_end_their_task(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queued_buffers, "LIMIT", 1500)
    arguments = large_tasks(talk)
    talk.store.drop_record(TaskId("me-1"))
    link = engine_of(talk)
    got = runs_on(talk, link, 2)
    assert got == {"me-0": (arguments[0],), "me-2": (arguments[2],)}
    ended: dict[str, Any] = {}
    while "me-1" not in ended:
        ended |= {done.id: done.error for done in talk.hear(Results).tasks}
    assert "cannot be read" in ended["me-1"].evalue
    link.close()


def test_what_a_task_has_printed_is_in_its_record_when_no_outcome_comes(talk: Talk) -> None:
    """Its engine dies, twice; of the next task, the cluster stops."""
    nanny = talk.network.link(b"nanny")
    nanny.send([frames.encode(prove(Hello(_version.PROTOCOL_VERSION, "nanny", "", "nanny", 0, "elsewhere"), b"key"))])
    link = engine_of(talk)
    task, tasks = TaskSpec(NEW, CODE.digest, b"x", 0.0, options=TaskOptions(retries=1)), talk.controller.scheduler.tasks
    talk.say(Submit(1, [task, TaskSpec(TaskId("me-3"), CODE.digest, b"x", 0.0)], [CODE]))
    talk.hear(Accepted)
    for attempt, text in (1, "first"), (2, "second"):
        link.send([frames.encode(Output(NEW, "stdout", text))])
        if attempt == 1:  # the other is never announced
            link.send([frames.encode(Started(NEW, 1.0, attempt=1))])
        talk.hear(Output)
        nanny.send([frames.encode(EngineDied(EngineUuid("engine"), -9, 0, NEW, True))])
        if attempt == 1:
            talk.until(lambda: tasks[NEW].attempt == 2)
            link.close()
            link = engine_of(talk)
            talk.until(lambda: tasks[NEW].engine is not None)
    [done] = talk.hear(Results).tasks
    assert (done.id, done.stdout, done.started) == (NEW, "second", None)
    talk.until(lambda: talk.store.get_record(NEW)["completed"] is not None)
    record = talk.store.get_record(NEW)
    assert (record["state"], record["stdout"], len(record["attempts"])) == ("failed", "second", 2)
    assert record["attempts"][0]["started"] is not None
    link.close()
    link, id = engine_of(talk), TaskId("me-3")
    talk.until(lambda: tasks[id].engine is not None)
    link.send([frames.encode(Started(id, 2.0, attempt=tasks[id].attempt))])
    link.send([frames.encode(Output(id, "stderr", "a complaint"))])
    talk.hear(Output)
    talk.controller.stop()
    [done] = talk.hear(Results).tasks
    assert (done.status, done.stderr, done.started) == ("aborted", "a complaint", 2.0)
    talk.until(lambda: talk.store.get_record(id)["completed"] is not None)
    record = talk.store.get_record(id)
    assert (record["state"], record["stderr"], record["engine_uuid"]) == ("aborted", "a complaint", "engine")
    assert record["duration"] > 0
    assert [a["cause"] for a in record["attempts"]] == ["the cluster was stopped"]
    nanny.close()
    link.close()


def test_many_tasks_are_aborted_in_pieces_and_others_are_answered_in_between(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_requests, "PIECE", 10)
    ids = [TaskId(f"me-{n}") for n in range(35)]
    talk.say(Submit(1, [TaskSpec(id, CODE.digest, b"", 0.0) for id in ids], [CODE]))
    talk.hear(Accepted)
    left = talk.controller.scheduler.tasks
    talk.say(Request(1, Abort()))
    talk.say(Request(2, TasksOnEngines()))
    assert talk.hear(Reply).number == 2, "before the abort is done"
    assert 0 < len(left) < 35
    assert list(left) == ids[: len(left)], "the last ones end first"
    reply = talk.hear(Reply)
    assert (reply.number, reply.value, len(left)) == (1, 35, 0)


def test_the_status_of_queues_reads_a_bounded_number_of_records(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_requests, "LISTED", 3)
    engine = talk.network.link(b"engine")
    engine.send([frames.encode(prove(Hello(_version.PROTOCOL_VERSION, "engine", "", "e-1", 0, "elsewhere"), b"key"))])
    talk.say(Request(1, TasksOnEngines()))
    talk.hear(Reply)
    for n in range(10):
        done = TaskDone(TaskId(f"old-{n}"), 1, "ok", 1.0, 2.0, b"result")
        spec = TaskSpec(done.id, CODE.digest, b"", float(n))
        talk.store.write([Entry(spec, ClientId("me"), done=done, engine_uuid=EngineUuid("e-1"))])
    talk.say(Submit(1, [TaskSpec(TaskId("me-1"), CODE.digest, b"", 0.0, EngineId(-1))], [CODE]))
    talk.hear(Accepted)
    talk.say(Request(2, QueueStatus(None, True)))
    status = talk.hear(Reply).value
    [inner] = status["engines"].values()
    assert inner["completed"] == ["old-7", "old-8", "old-9"]
    talk.say(Request(3, QueueStatus(None, False)))
    assert talk.hear(Reply).value["unassigned"] == len(status["unassigned"])
    engine.close()


def test_large_arguments_of_unfinished_tasks_stay_in_the_store_until_they_are_sent() -> None:
    store = DictDB()
    store.durable = True  # as if it were a database of an earlier life
    store.add_functions([CODE])
    specs = [TaskSpec(TaskId(f"me-{n}"), CODE.digest, b"", 0.0, frames=(0,)) for n in range(3)]
    store.write([Entry(spec, ClientId("me"), frames=[bytes([n]) * 100_000]) for n, spec in enumerate(specs)])
    talk = Talk(store)
    talk.controller._liveness = LivenessSettings(recovery_grace=0.0)
    talk.controller.recover()
    assert [task.frames for task in talk.controller.scheduler.tasks.values()] == [(), (), ()]
    engine = talk.network.link(b"engine")
    hello = Hello(_version.PROTOCOL_VERSION, "engine", "", "engine", 0, "elsewhere")
    engine.send([frames.encode(prove(hello, b"key"))])
    sent: dict[str, bytes] = {}

    def all_sent() -> bool:
        for header, *buffers in engine.receive():
            message = frames.decode_to_engine(bytes(header))
            if isinstance(message, Run):
                sent.update({task.id: bytes(frames.pick(task, buffers)[0]) for task in message.tasks})
                pairs = zip(message.tasks, message.attempts, strict=True)
                done = [TaskDone(task.id, attempt, "ok", 1.0, 2.0, b"r") for task, attempt in pairs]
                engine.send([frames.encode(Results(done, len(sent)))])
        return len(sent) == 3 and not talk.controller.scheduler.tasks

    talk.until(all_sent)
    assert sent == {f"me-{n}": bytes([n]) * 100_000 for n in range(3)}
    talk.controller.close()
    for n in range(3):
        record = store.get_record(TaskId(f"me-{n}"))
        assert record["state"] == "completed"
        assert [bytes(buffer) for buffer in record["buffers"] or ()] == [bytes([n]) * 100_000]


def test_a_restarted_controller_gives_engines_time_to_come_back_though_nothing_is_unfinished() -> None:
    now = [1000.0]
    machinery = Machinery()
    machinery.clock = lambda: now[0]  # type: ignore[method-assign]
    talk = Talk(restarted=True, machinery=machinery)
    talk.controller.recover()
    welcome = talk.hear(Welcome)
    assert (welcome.engines, welcome.starting, welcome.returning) == ([], 1, True)
    talk.say(Submit(1, [TaskSpec(NEW, CODE.digest, b"", 0.0, engine=EngineId(0))], [CODE]))
    talk.hear(Accepted)
    stranger = talk.network.link(b"stranger")
    hello = Hello(_version.PROTOCOL_VERSION, "engine", "", "stranger", 0, "elsewhere")
    stranger.send([frames.encode(prove(hello, b"key"))])
    news = talk.hear(Engines)
    assert ([engine.id for engine in news.engines], news.returning) == ([1], True), "0 is for the engine that had it"
    assert list(talk.controller.scheduler.tasks) == [NEW], "it waits"
    now[0] += 5.0
    news = talk.hear(Engines)
    assert ([engine.id for engine in news.engines], news.returning) == ([1], False)
    assert not talk.controller.scheduler.tasks, "it has failed"
    talk.close()
    stranger.close()


def test_a_message_that_names_too_much_ends_the_session_of_its_sender_alone(talk: Talk) -> None:
    other = talk.network.link(b"other")
    other.send([frames.encode(prove(Hello(_version.PROTOCOL_VERSION, "client", "", "other", 0, "elsewhere"), b"key"))])
    for message in (
        Watch([TaskId("x")] * 10_001),
        Request(1, Abort([TaskId("x")] * 10_001)),
        Request(1, FindRecords({"label": "x" * (4 << 20)})),
    ):
        other.send([frames.encode(message)])
        talk.until(lambda: "other" not in talk.controller._peers.by_uuid)
        hello = Hello(_version.PROTOCOL_VERSION, "client", "", "other", 0, "elsewhere", number=2)
        other.send([frames.encode(prove(hello, b"key"))])
        talk.until(lambda: "other" in talk.controller._peers.by_uuid)
    talk.say(Request(1, TasksOnEngines()))
    assert talk.hear(Reply).value == []
    other.close()


def test_an_engine_whose_death_was_told_before_its_hello_came_does_not_join(talk: Talk) -> None:
    nanny, engine = talk.network.link(b"nanny"), talk.network.link(b"engine")
    nanny.send([frames.encode(prove(Hello(_version.PROTOCOL_VERSION, "nanny", "", "nanny", 0, "far"), b"key"))])
    nanny.send([frames.encode(EngineDied(EngineUuid("engine"), -9, 0, None, False))])
    talk.until(lambda: bool(talk.controller._members._dead))
    engine.send([frames.encode(prove(_engine_hello("nanny"), b"key"))])
    talk.say(Request(1, TasksOnEngines()))
    talk.hear(Reply)
    assert not talk.controller.scheduler.engines
    engine.send([frames.encode(prove(_engine_hello("another nanny"), b"key"))])
    talk.until(lambda: bool(talk.controller.scheduler.engines))
    nanny.close()
    engine.close()


@pytest.mark.fault(39)
def test_clients_and_the_log_hear_of_an_engine_whose_clock_is_wrong(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    talk.controller.turn()
    engine = talk.network.link(b"engine")
    engine.send([frames.encode(prove(_engine_hello(""), b"key"))])
    assert [one.ahead for one in talk.hear(Engines).engines] == [0.0]
    for number in range(4):
        engine.send([frames.encode(Ping(number + 2, at=time.time() + 3600))])
    [told] = talk.hear(Engines).engines
    assert 3590 < told.ahead < 3610
    assert "the clock of far (engine 0) is +3600" in caplog.text
    answered = 0
    for number in range(4):
        talk.say(Ping(number + 2, at=time.time() - 100, answered=answered))
        pong = talk.hear(Pong)
        answered = pong.sent
    assert "the clock of elsewhere (a client) is -100" in caplog.text
    assert -110 < pong.ahead < -90
    engine.close()


def _engine_hello(nanny: str) -> Hello:
    return Hello(_version.PROTOCOL_VERSION, "engine", "", "engine", 0, "far", nanny=nanny)
