"""The channel, its I/O thread included, over a network in memory; the test plays the controller."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from engineroom.client.connection import channel as module
from engineroom.client.connection import connecting, requests, submission
from engineroom.client.connection.channel import Channel
from engineroom.client.connection.connecting import NoEngines, WrongClocks
from engineroom.config import ConnectionInfo
from engineroom.controller.presence.peers import Peer, Peers
from engineroom.errors import AuthenticationError, ControllerLost, MessageTooLarge, SerializationError, StoreFull
from engineroom.ids import Digest, EngineId, EngineUuid, TaskId
from engineroom.messages import (
    Accepted,
    DistinctValues,
    EngineInfo,
    Engines,
    ErrorInfo,
    FindRecords,
    Function,
    Goodbye,
    Hello,
    History,
    Message,
    Output,
    Ping,
    Rejected,
    Reply,
    Request,
    Resubmit,
    Results,
    ResultsUnavailable,
    StopEngines,
    Submit,
    Sync,
    TaskDone,
    TaskSpec,
    Watch,
    Welcome,
    Withdraw,
)
from engineroom.testing import MemoryNetwork

from .waiting import Diary

INFO = ConnectionInfo(url="memory://", key="key")
F = Function(Digest(b"f" * 16), b"pickled")
ENGINE = EngineInfo(EngineId(0), EngineUuid("e"), "host", 1)

M = TypeVar("M", bound=Message)


class Controller:
    """Greets, answers signs of life, keeps everything else for the test."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.begin("first life")
        self.channels: list[Channel] = []

    def begin(self, incarnation: str, key: str = "key") -> None:
        """A (new) life: it knows nobody."""
        self.peers, self.incarnation = Peers(self.network.listener, key), incarnation
        self.heard: list[Message] = []
        self.hellos = 0
        self.engines, self.returning, self.takes_withdrawals = [ENGINE], False, True

    def connect(self, timeout: float = 20.0) -> Channel:
        """A channel that we have welcomed."""
        link = self.network.link(b"client")
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(Channel, INFO, timeout=timeout, link=link)
            self.until(future.done)
        channel = future.result()
        self.channels.append(channel)
        return channel

    def turn(self) -> None:
        for address, frames in self.network.listener.receive(timeout=0.02):
            got = self.peers.receive(address, frames[0], time.monotonic())
            if isinstance(got, Hello):
                peer = self.peers.admit(address, got, time.monotonic())
                if peer is not None:
                    self.hellos += 1
                    welcome = Welcome(
                        self.incarnation, self.engines, scheme="pure", keeps=False, returning=self.returning,
                        takes_withdrawals=self.takes_withdrawals,
                    )  # fmt: skip
                    self.peers.welcome(peer, welcome)
            elif got is not None:
                peer, message = got
                if isinstance(message, Ping):
                    self.peers.pong(peer, message, at=time.time())
                else:
                    self.heard.append(message)

    def until(self, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
        """Listen until something is so; returns it."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not so after {timeout:g} s; heard: {self.heard}"
            self.turn()
        return found

    def next(self, kind: type[M]) -> M:
        """The next message, which must be of this kind."""
        self.until(lambda: self.heard)
        message = self.heard.pop(0)
        assert isinstance(message, kind), f"{message} came"
        return message

    @property
    def peer(self) -> Peer:
        [peer] = self.peers
        return peer

    def say(self, message: Message, *buffers: bytes) -> None:
        self.peers.send(self.peer, message, buffers)


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PING_SECONDS", 0.05)


@pytest.fixture
def controller() -> Iterator[Controller]:
    controller = Controller()
    yield controller
    for channel in controller.channels:
        channel.close(linger=0)
    for link in controller.network.links.values():
        link.close()
    controller.network.listener.close()


@pytest.fixture
def channel(controller: Controller) -> Channel:
    return controller.connect()


@pytest.fixture
def diary() -> Diary:
    return Diary()


def task(channel: Channel, payload: bytes = b"") -> submission.Outgoing:
    return TaskSpec(channel.new_id(), F.digest, payload, 0.0), F, ()


def submit(channel: Channel, diary: Diary) -> TaskId:
    outgoing = task(channel)
    channel.submit_one(outgoing, diary)
    return outgoing[0].id


def done(id: TaskId) -> TaskDone:
    return TaskDone(id, 1, "ok", 0.0, 1.0, b"result")


def test_a_welcome_says_what_there_is(channel: Channel):
    assert channel.engines == [ENGINE]
    assert (channel.scheme, channel.keeps) == ("pure", False)


def test_a_task_goes_out_and_its_result_comes_in(controller: Controller, channel: Channel, diary: Diary):
    id = submit(channel, diary)
    message = controller.next(Submit)
    assert ([spec.id for spec in message.tasks], message.functions) == ([id], [F])
    assert not channel.is_all_accepted
    assert channel.waiter_of(id) is diary
    controller.say(Output(id, "stdout", "hello"))
    controller.say(Accepted([message.number]))
    controller.say(Results([done(id)]))
    controller.until(lambda: diary.announced)
    assert (len(diary.news), diary.done[id].payload) == (1, b"result")
    controller.until(lambda: channel.is_all_accepted)
    assert channel.outstanding() == set()


def test_a_question_does_not_overtake_tasks(controller: Controller, channel: Channel, diary: Diary):
    channel.submit([(task(channel), diary) for _ in range(3)])
    future = channel.request(History())
    sent = []
    while not sent or isinstance(sent[-1], Submit):
        controller.until(lambda: controller.heard)
        sent.append(controller.heard.pop(0))
    assert sum(len(message.tasks) for message in sent[:-1]) == 3
    controller.say(Reply(sent[-1].number, ["a"]))
    controller.until(future.done)
    assert future.result(0) == ["a"]


@pytest.mark.parametrize("takes_withdrawals", [True, False])
def test_the_controller_hears_that_an_answer_is_not_waited_for(controller: Controller, takes_withdrawals: bool):
    """One of an older release does not know what that is."""
    controller.takes_withdrawals = takes_withdrawals
    channel = controller.connect()
    with pytest.raises(TimeoutError):
        channel.ask(History(), timeout=0.001)
    question = controller.next(Request)
    channel.request(Sync())
    asked = [controller.next(Request).body for _ in range(1 + takes_withdrawals)]
    assert asked == ([Withdraw([question.number])] if takes_withdrawals else []) + [Sync()]


@pytest.mark.fault(37)
def test_what_is_over_the_window_waits_here_and_questions_with_it(
    controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(submission, "WINDOW", 1)
    monkeypatch.setattr(submission, "BATCH", 1)
    monkeypatch.setattr(submission, "MANY", 2)
    ids = [submit(channel, diary) for _ in range(3)]
    question = channel.request(History())
    urgent = channel.request(StopEngines([EngineId(0)]))
    first = controller.next(Submit)
    assert [spec.id for spec in first.tasks] == ids[:1]
    request = controller.next(Request)
    assert isinstance(request.body, StopEngines), "what is no question about tasks does not wait"
    told: list[str] = []
    controller.until(lambda: told.append(capsys.readouterr().err) or "2 tasks wait in this process" in "".join(told))
    assert not controller.heard
    controller.say(Reply(request.number, []))
    controller.until(urgent.done)
    for id in ids[1:]:
        controller.say(Accepted([first.number]))
        first = controller.next(Submit)
        assert [spec.id for spec in first.tasks] == [id]
    controller.say(Reply(controller.next(Request).number, []))
    controller.until(question.done)


def test_a_question_about_other_tasks_does_not_wait_for_those_that_are_queued(
    controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(submission, "WINDOW", 1)
    monkeypatch.setattr(submission, "BATCH", 1)
    ids = [submit(channel, diary) for _ in range(3)]
    behind = channel.request(FindRecords({"msg_id": ids[2]}))
    before = channel.request(FindRecords({"msg_id": {"$in": ["another-1", ids[0]]}}))
    first = controller.next(Submit)
    request = controller.next(Request)
    assert request.body.query == {"msg_id": {"$in": ["another-1", ids[0]]}}
    controller.say(Reply(request.number, []))
    controller.until(before.done)
    for id in ids[1:]:
        controller.say(Accepted([first.number]))
        first = controller.next(Submit)
        assert [spec.id for spec in first.tasks] == [id]
    controller.say(Reply(controller.next(Request).number, []))
    controller.until(behind.done)


def test_questions_beyond_what_the_controller_takes_wait_here(
    controller: Controller, channel: Channel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(requests, "MOST_ASKED_AT_ONCE", 2)
    futures = [channel.request(History()) for _ in range(5)]
    for number in range(1, 6):
        controller.until(lambda: controller.heard)
        asked = controller.next(Request)
        assert asked.number == number
        assert len(controller.heard) <= 1, "two are under way"
        controller.say(Reply(number, [number]))
    assert [future.result(20) for future in futures] == [[1], [2], [3], [4], [5]]


def test_many_results_are_asked_for_in_several_messages(controller: Controller, channel: Channel, diary: Diary):
    ids = [TaskId(f"x-{number}") for number in range(10_001)]
    channel.expect(ids, diary)
    first, second = controller.next(Watch), controller.next(Watch)
    assert [*first.tasks, *second.tasks] == ids
    controller.begin("second life")
    first, second = controller.next(Watch), controller.next(Watch)
    assert [*first.tasks, *second.tasks] == ids
    channel.withdraw(ids)


def test_a_question_that_is_too_long_fails_in_the_call(channel: Channel):
    with pytest.raises(MessageTooLarge, match="Ask several"):
        channel.request(FindRecords({"msg_id": {"$in": ["x" * 40] * 110_000}}))


@pytest.mark.fault(29)
def test_an_engine_with_another_python_is_told_once(controller: Controller, channel: Channel, capsys: Any):
    major, minor, _ = platform.python_version_tuple()
    versions = [f"{major}.{minor}.999", "", f"{major}.{int(minor) + 1}.0", f"{major}.{int(minor) + 1}.1"]
    engines = [EngineInfo(EngineId(n), EngineUuid(str(n)), "host", 1, {}, v) for n, v in enumerate(versions)]
    for count in (2, 3, 4):
        controller.say(Engines(engines[:count]))
        controller.until(lambda count=count: len(channel.engines) == count)
    told = capsys.readouterr().err
    assert told.count("runs Python") == 1
    assert f"engine 2 on host runs Python {versions[2]}, and this program {platform.python_version()}" in told


@pytest.mark.fault(39)
def test_wrong_clocks_are_told_once_for_each_host(controller: Controller, channel: Channel, capsys: Any):
    def engine(number: int, host: str, ahead: float) -> EngineInfo:
        return EngineInfo(EngineId(number), EngineUuid(str(number)), host, 1, {}, "", ahead)

    clocks = ("right", 0.0), ("early", 3600.2), ("early", 3600.4), ("late", -86400.0)
    engines = [engine(number, *clock) for number, clock in enumerate(clocks)]
    for count in (2, 3, 4):
        controller.say(Engines(engines[:count]))
        controller.until(lambda count=count: len(channel.engines) == count)
    first, second = capsys.readouterr().err.splitlines()
    assert "engines' clocks differ from the controller's (early is 3,600 s ahead of it)" in first
    assert "(late is 86,400 s behind it)" in second


def test_a_wrong_clock_of_our_own_is_told_once():
    clocks = WrongClocks()
    assert clocks.own(0.0) == ""
    assert clocks.own(-60.0).startswith("the clock of this host is 60 s behind the controller's")
    assert clocks.own(-60.0) == ""


def test_closing_waits_until_all_is_accepted(
    controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(submission, "WINDOW", 1)
    monkeypatch.setattr(submission, "BATCH", 1)
    ids = [submit(channel, diary) for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(channel.close)
        for id in ids:
            message = controller.next(Submit)
            assert [spec.id for spec in message.tasks] == [id]
            assert not closing.done()
            controller.say(Accepted([message.number]))
        controller.next(Goodbye)
    closing.result(20)
    assert channel.is_all_accepted


def test_closing_waits_as_long_as_some_are_accepted(
    controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    passed = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0], time=time.time)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "LOST_SECONDS", 1e6)
    monkeypatch.setattr(submission, "WINDOW", 1)
    monkeypatch.setattr(submission, "BATCH", 1)
    for _ in range(4):
        submit(channel, diary)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(channel.close)
        for _ in range(4):
            message = controller.next(Submit)
            passed[0] += 0.8 * module.CLOSE_SECONDS
            controller.say(Accepted([message.number]))
        controller.next(Goodbye)
    closing.result(60)
    assert channel.is_all_accepted
    assert "may be lost" not in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["by default", "by the caller"])
def test_closing_does_not_wait_for_ever(
    limit: str, controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(submission, "WINDOW", 1)
    monkeypatch.setattr(submission, "BATCH", 1)
    for _ in range(3):
        submit(channel, diary)
    controller.next(Submit)
    if limit == "by default":
        monkeypatch.setattr(module, "CLOSE_SECONDS", 0.0)
        channel.close()
    else:
        channel.close(linger=0)
    assert "3 tasks may be lost: the controller has not accepted them" in capsys.readouterr().err


def test_closing_without_tasks_asks_nothing_of_the_controller(controller: Controller, channel: Channel):
    channel.close()
    controller.next(Goodbye)


def test_a_question_that_cannot_be_sent_fails_in_the_call(controller: Controller, channel: Channel, diary: Diary):
    with pytest.raises(SerializationError, match="cannot be sent"):
        channel.request(DistinctValues(5, {}))  # type: ignore[arg-type]
    with pytest.raises(SerializationError):
        channel.expect([5], diary)  # type: ignore[list-item]
    assert channel.outstanding() == set()
    future = channel.request(History())
    controller.say(Reply(controller.next(Request).number, []))
    controller.until(future.done)


def test_a_task_that_cannot_be_sent_fails_alone(controller: Controller, channel: Channel, diary: Diary):
    endless = TaskSpec(channel.new_id(), F.digest, b"", 10**400)  # type: ignore[arg-type]
    other = Diary()
    channel.submit_one((endless, F, ()), other)
    controller.until(lambda: other.failed)
    assert isinstance(other.failed[endless.id], SerializationError)
    id = submit(channel, diary)
    message = controller.next(Submit)
    assert [spec.id for spec in message.tasks] == [id]
    assert message.functions == [F], "the function has not been sent before"
    assert controller.hellos == 1


def test_a_rejected_message_fails_its_tasks_with_the_controllers_error(
    controller: Controller, channel: Channel, diary: Diary
):
    id = submit(channel, diary)
    controller.say(Rejected(controller.next(Submit).number, ErrorInfo("StoreFull", "the disk is full")))
    controller.until(lambda: diary.failed)
    assert isinstance(diary.failed[id], StoreFull)
    assert channel.outstanding() == set()


def test_missing_functions_are_sent_with_the_tasks(controller: Controller, channel: Channel, diary: Diary):
    first = submit(channel, diary)
    message = controller.next(Submit)
    controller.say(Accepted([message.number]))
    second = submit(channel, diary)
    message = controller.next(Submit)
    assert message.functions == []
    behind = submit(channel, diary)
    controller.next(Submit)
    controller.say(Rejected(message.number, ErrorInfo("ProtocolError", "functions are missing"), "functions"))
    message = controller.next(Submit)
    assert ([spec.id for spec in message.tasks], message.functions) == ([second], [F])
    assert [spec.id for spec in controller.next(Submit).tasks] == [behind]
    assert controller.hellos == 2
    assert not diary.failed
    assert channel.outstanding() == {first, second, behind}


def test_no_more_than_a_window_is_sent(
    controller: Controller, channel: Channel, diary: Diary, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(submission, "WINDOW_BYTES", 100)
    channel.submit_one(task(channel, b"x" * 150), diary)
    message = controller.next(Submit)
    second = submit(channel, diary)
    question = channel.request(History())
    controller.until(lambda: controller.peer.session.received > 4)  # signs of life go on
    assert controller.heard == []
    controller.say(Accepted([message.number]))
    assert [spec.id for spec in controller.next(Submit).tasks] == [second]
    assert isinstance(controller.next(Request).body, History)
    assert not question.done()


def test_tasks_that_are_gone_are_told_so(controller: Controller, channel: Channel, diary: Diary):
    channel.expect([TaskId("old")], diary)
    assert controller.next(Watch).tasks == ["old"]
    controller.say(ResultsUnavailable([TaskId("old")], "no such task"))
    controller.until(lambda: diary.failed)


# -------------------------------------------------------------------------------------------- reconnections


@pytest.mark.fault(22)
def test_what_a_cut_has_swallowed_is_made_up_for(controller: Controller, channel: Channel, diary: Diary):
    """Accepted tasks are asked for, others are sent again; so are questions."""
    accepted = submit(channel, diary)
    controller.say(Accepted([controller.next(Submit).number]))
    controller.until(lambda: channel.is_all_accepted)
    lost = submit(channel, diary)
    first = controller.next(Submit)
    question = channel.request(History())
    asked = controller.next(Request)
    controller.network.cut(b"client")
    controller.say(Results([done(accepted)]))  # they go nowhere
    controller.say(Accepted([first.number]))
    controller.say(Reply(asked.number, []))
    controller.network.mend(b"client")
    again = controller.next(Submit)
    assert ([spec.id for spec in again.tasks], again.resent) == ([lost], True)
    assert controller.next(Watch).tasks == [accepted]
    assert controller.next(Request) == asked
    assert controller.hellos == 2
    controller.say(Accepted([again.number]))
    controller.say(Results([done(accepted), done(lost)]))
    controller.say(Results([done(accepted)]))  # a second time: nobody waits any more
    controller.say(Reply(asked.number, ["both"]))
    controller.until(question.done)
    assert set(diary.done) == {accepted, lost}
    assert channel.is_all_accepted
    assert channel.outstanding() == set()


@pytest.mark.fault(22)
def test_after_a_cut_no_task_overtakes_those_that_were_lost(
    controller: Controller, channel: Channel, diary: Diary
):
    """Tasks for one engine run in the order in which they come to the controller."""
    submit(channel, diary)
    controller.next(Submit)
    controller.network.cut(b"client")
    lost = submit(channel, diary)
    controller.until(lambda: not channel._outgoing)
    controller.network.mend(b"client")
    behind = submit(channel, diary)
    heard: list[str] = []
    while behind not in heard:
        heard += [spec.id for spec in controller.next(Submit).tasks]
    assert heard.index(lost) < heard.index(behind)


def test_until_the_controller_answers_a_hello_new_tasks_wait(
    controller: Controller, channel: Channel, diary: Diary
):
    submit(channel, diary)
    first = controller.next(Submit)
    controller.say(Accepted([first.number]))
    controller.until(lambda: channel.is_all_accepted)
    admit, controller.peers.admit = controller.peers.admit, lambda *_: None  # type: ignore[method-assign]
    channel._driver.wake()
    channel.cut_off()
    controller.until(lambda: not channel._counts.is_welcome)
    waits = submit(channel, diary)
    for _ in range(5):
        controller.turn()
    assert not controller.heard
    controller.peers.admit = admit  # type: ignore[method-assign]
    assert controller.next(Watch).tasks == [first.tasks[0].id], "what is asked again comes first"
    assert [spec.id for spec in controller.next(Submit).tasks] == [waits]


def test_another_life_of_the_controller_gets_everything_anew(
    controller: Controller, channel: Channel, diary: Diary
):
    submit(channel, diary)
    before = controller.next(Submit)
    assert before.environment is not None
    controller.begin("second life")
    again = controller.next(Submit)
    assert [spec.id for spec in again.tasks] == [spec.id for spec in before.tasks]
    assert (again.functions, again.environment, again.resent) == ([F], before.environment, True)


def test_engines_that_may_come_back_to_a_restarted_controller_are_still_listed(
    controller: Controller, channel: Channel
):
    def listed() -> list[tuple[int, str]]:
        return [(engine.id, engine.uuid) for engine in channel.engines]

    other, another = (EngineInfo(EngineId(1), EngineUuid(uuid), "host", 2) for uuid in ("other", "another"))
    controller.say(Engines([ENGINE, other]))
    controller.until(lambda: len(channel.engines) == 2)
    controller.begin("second life")
    controller.engines, controller.returning = [], True
    controller.until(lambda: channel._counts.incarnation == "second life")
    controller.until(lambda: channel._driver.is_asleep)
    assert listed() == [(0, "e"), (1, "other")]
    controller.say(Engines([another], 0, True))
    controller.until(lambda: listed() == [(0, "e"), (1, "another")])
    controller.say(Engines([], 0, True))
    controller.until(lambda: listed() == [(0, "e")])  # the other has come and gone
    controller.say(Engines([], 0, False))
    controller.until(lambda: listed() == [])


def test_resubmitted_tasks_are_not_asked_for_before_they_are_known(
    controller: Controller, channel: Channel, diary: Diary
):
    channel.expect([TaskId("new")], diary, watch=False)
    channel.request(Resubmit([TaskId("old")], [TaskId("new")]))
    controller.next(Request)
    controller.begin("second life")
    assert isinstance(controller.next(Request).body, Resubmit), "no Watch came before it"


# -------------------------------------------------------------------------------------------- the end


@pytest.mark.fault(22)
def test_a_silent_controller_is_noticed_and_then_lost(
    controller: Controller,
    channel: Channel,
    diary: Diary,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    id = submit(channel, diary)
    question = channel.request(History())
    controller.until(lambda: len(controller.heard) == 2)
    monkeypatch.setattr(module, "NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOST_SECONDS", 0.3)
    assert isinstance(question.exception(20), ControllerLost)
    assert "has been silent" in str(diary.failed[id])
    assert "does not answer; reconnecting" in capsys.readouterr().err
    for call in (
        lambda: submit(channel, diary),
        lambda: channel.submit([(task(channel), diary)]),
        lambda: channel.request(History()),
        lambda: channel.expect([TaskId("x")], diary),
    ):
        with pytest.raises(ControllerLost, match="has been silent"):
            call()
    assert channel.outstanding() == set()
    assert channel.engines == []


def test_a_controller_that_stops_says_so(controller: Controller, channel: Channel, diary: Diary):
    id = submit(channel, diary)
    controller.next(Submit)
    controller.say(Goodbye("the controller has stopped"))
    controller.until(lambda: diary.failed)
    assert "has stopped" in str(diary.failed[id])


@pytest.mark.fault(28)
def test_a_wrong_key_is_refused(controller: Controller):
    controller.begin("another", key="another key")
    with pytest.raises(AuthenticationError, match="refused us: the key is wrong"):
        controller.connect()


def test_a_controller_that_never_answers(controller: Controller):
    with pytest.raises(TimeoutError, match="did not answer within"):
        Channel(INFO, timeout=0.05, link=controller.network.link(b"nobody hears this"))


def test_closing_says_goodbye_and_ends_all_waiting(controller: Controller, channel: Channel, diary: Diary):
    id = submit(channel, diary)
    channel.close(linger=0)
    assert isinstance(diary.failed[id], ControllerLost)
    assert isinstance(controller.next(Submit), Submit), "what was submitted has been sent"
    assert isinstance(controller.next(Goodbye), Goodbye)


def test_a_bug_in_the_io_thread_leaves_nobody_waiting(
    controller: Controller, channel: Channel, diary: Diary, caplog: pytest.LogCaptureFixture
):
    id = submit(channel, diary)
    message = controller.next(Submit)
    diary._announce = lambda: 1 / 0  # type: ignore[method-assign]
    other = submit(channel, diary)
    controller.say(Results([done(id)]))
    controller.until(lambda: other in diary.failed)
    assert "ZeroDivisionError" in str(diary.failed[other])
    assert "a bug in the thread that drives the connection" in caplog.text
    assert message.number == 1


class Alarm(BaseException):
    """What a signal handler, or another thread, raises in the middle of anything."""


def test_an_exception_in_a_thread_that_drives_loses_no_outcome(controller: Controller, channel: Channel, diary: Diary):
    id = submit(channel, diary)
    assert [spec.id for spec in controller.next(Submit).tasks] == [id]
    arrived, hellos = diary._arrived, controller.hellos

    def alarm(*given: Any) -> bool:
        diary._arrived = arrived  # type: ignore[method-assign]
        raise Alarm

    diary._arrived = alarm  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(channel.drive, lambda: id in diary.done, 20)
        controller.until(lambda: channel._driver._is_taken)
        controller.say(Results([done(id)]))
        with pytest.raises(Alarm):
            controller.until(future.done) and future.result()
    controller.until(lambda: controller.hellos > hellos)
    submitted = controller.next(Submit)
    assert submitted.resent
    controller.say(Accepted([submitted.number]))
    controller.say(Results([done(id)]))
    controller.until(lambda: id in diary.done)


def test_the_only_task_is_sent_and_its_result_taken_in_by_one_thread(
    controller: Controller, channel: Channel, diary: Diary
):
    threads: list[str] = []
    send, arrived = channel._link.send, diary._arrived

    def note_send(frames: Any) -> None:
        threads.append(threading.current_thread().name)
        send(frames)

    def note_arrived(*given: Any) -> bool:
        threads.append(threading.current_thread().name)
        return arrived(*given)

    def call() -> None:
        outgoing = task(channel)
        channel.submit_one(outgoing, diary, waits=True)
        channel.drive(lambda: outgoing[0].id in diary.done, 20)

    controller.until(lambda: channel._driver.is_asleep)
    channel._counts.next_ping += 60.0
    channel._link.send, diary._arrived = note_send, note_arrived  # type: ignore[method-assign]
    with ThreadPoolExecutor(1, thread_name_prefix="user") as pool:
        future = pool.submit(call)
        submitted = controller.next(Submit)
        controller.say(Results([done(submitted.tasks[0].id)]))
        controller.until(future.done)
        future.result()
    assert threads == ["user_0", "user_0"]


def test_engines_that_are_started_again_at_once_are_not_said_to_be_gone():
    engines = NoEngines(ConnectionInfo(url="memory://", key="key", profile_dir="/data/night", cluster_id="x"))
    engines.heard(False, 0.0)
    assert engines.notice(1, 100.0) == "", "there were none before"
    engines.heard(True, 100.0)
    engines.heard(False, 101.0)
    engines.heard(False, 102.0)
    assert engines.notice(1, 103.0) == "", "others may be starting"
    assert engines.notice(0, 105.0) == "", "nobody waits for them"
    told = engines.notice(2, 105.0)
    assert "2 tasks wait until some join (`ipcluster engines -n 2 --profile-dir=/data/night --cluster-id=x`)" in told
    assert engines.notice(2, 200.0) == "", "it was said"
    engines.heard(True, 201.0)
    engines.heard(False, 202.0)
    engines.heard(True, 202.5)
    assert engines.notice(2, 300.0) == ""


def test_nobody_waits_for_the_tasks_of_a_call_that_ctrl_c_has_cut_off(channel: Channel, diary: Diary):
    class Interrupted(list[tuple[submission.Outgoing, Diary]]):
        def __iter__(self) -> Iterator[tuple[submission.Outgoing, Diary]]:
            yield from list.__iter__(self) if self.is_asked_again else self.first()

        is_asked_again = False

        def first(self) -> Iterator[tuple[submission.Outgoing, Diary]]:
            self.is_asked_again = True
            yield self[0]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        channel.submit(Interrupted([(task(channel), diary), (task(channel), diary)]))
    assert channel.outstanding() == set()


def test_that_no_engines_are_left_is_said(
    controller: Controller,
    channel: Channel,
    diary: Diary,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(connecting, "NOTICE_SECONDS", 0.0)
    submit(channel, diary)
    controller.say(Engines([], 0))
    controller.until(lambda: not channel.engines)
    controller.until(lambda: "no engines left" in capsys.readouterr().err)
    controller.say(Engines([ENGINE], 0))
    with channel.changed:
        assert channel.changed.wait_for(lambda: channel.engines, 20)
