"""The engine's main loop and its part of the conversation, without processes: the test plays the controller.

The link is one in memory. Whenever the engine waits for something to arrive, the next step of the test's script is
taken; a script that is at its end tells the engine to stop.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from engineroom._version import __version__
from engineroom.config import EngineSettings
from engineroom.controller.presence.peers import Peer, Peers
from engineroom.engine import main
from engineroom.engine.execution.executor import Executor, Terminated
from engineroom.engine.execution.interrupts import Interrupter
from engineroom.engine.execution.output import Streams
from engineroom.engine.main import Engine
from engineroom.engine.session_link import SessionLink
from engineroom.engine.shared_page import SharedPage
from engineroom.ids import Digest, EngineId, NannyId, TaskId
from engineroom.messages import (
    AttemptKey,
    Cancel,
    CheckProperties,
    Function,
    Functions,
    Goodbye,
    Hello,
    InputResult,
    Message,
    NeedFunctions,
    Ping,
    PropertiesChanged,
    PropertiesChecked,
    PropertyCheck,
    Recall,
    Refused,
    Results,
    Returned,
    Run,
    Stop,
    Stored,
    TaskDone,
    TaskOptions,
    TaskSpec,
    Welcome,
)
from engineroom.testing import MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.session import LinkSession, introduce

F, G = Function(Digest(b"f" * 16), b"pickled f"), Function(Digest(b"g" * 16), b"pickled g")
M = TypeVar("M", bound=Message)


class FakeExecutor:
    """Runs nothing: says that a task has ended. `during[task]` is called while it runs."""

    def __init__(self) -> None:
        self.engine, self.uuid = EngineId(-1), "e"
        self.known: set[Digest] = set()
        self.ran: list[tuple[TaskId, int]] = []
        self.inputs: dict[TaskId, Any] = {}
        self.during: dict[str, Callable[[], None]] = {}
        self.objections: dict[Digest, str] = {}
        self.is_running = self.is_forked = self.output_unchecked = False
        self.seconds = 0.0

    def learn(self, new: Sequence[Function]) -> None:
        self.known |= {function.digest for function in new}

    def knows(self, digest: Digest) -> bool:
        return digest in self.known

    def run(self, spec: TaskSpec, attempt: int, frames: Any, inputs: Any = None) -> tuple[TaskDone, Sequence[Any]]:
        self.ran.append((spec.id, attempt))
        self.inputs[spec.id] = inputs
        self.during.get(spec.id, lambda: None)()
        return TaskDone(spec.id, attempt, "ok", 0.0, 1.0, b"result"), ()

    def refusal_reason(self, digest: Digest, seconds: float) -> str:
        return self.objections.get(digest, "")

    def collect(self) -> None: ...

    def tidy(self) -> None: ...

    def flush_c_library(self) -> None: ...


class FakeInterrupter:
    def __init__(self) -> None:
        self.wishes: list[str] = []
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1
        self.wishes.append("cancelled")

    def look(self) -> None: ...

    def forget(self) -> None:
        self.wishes.clear()


class Script:
    """The controller, step by step; and the engine's link, whose waiting takes the next step."""

    takes_host_frames = False

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.link = self.network.link(b"e")
        self.peers = Peers(self.network.listener, "key")
        self.incarnation = "first life"
        self.steps: list[Callable[[], None]] = []
        self.hellos: list[Hello] = []
        self.heard: list[Message] = []
        self.stores = True
        self.flushed: list[list[str]] = []
        self.executor, self.interrupter = FakeExecutor(), FakeInterrupter()
        self.page = SharedPage()
        self.now = 0.0

    # what the link is asked for

    def receive(self, limit: int = 64, timeout: float = 0.0) -> list[Any]:
        self.listen()
        arrived = self.link.receive(limit)
        if not arrived and timeout:
            if self.steps:
                self.steps.pop(0)()
            elif self.peers.by_uuid:
                self.say(Stop())
            self.listen()
            arrived = self.link.receive(limit)
        return arrived

    def send(self, parts: Any) -> None:
        self.link.send(parts)

    def flush(self, timeout: float) -> bool:
        self.listen()
        self.flushed.append(self.ended)
        return True

    def fileno(self) -> int:
        return self.link.fileno()

    def refused(self) -> bool:
        return False

    def take_renewed(self) -> bool:
        return False

    def wake(self) -> None:
        self.link.wake()

    def close(self, linger: float = 0.0) -> None:
        self.listen()

    # the controller

    def listen(self) -> None:
        for address, parts in self.network.listener.receive():
            got = self.peers.receive(address, parts[0], 0.0)
            if isinstance(got, Hello):
                peer = self.peers.admit(address, got, 0.0)
                if peer is not None:
                    self.hellos.append(got)
                    peer.engine = EngineId(5)
                    self.peers.welcome(peer, Welcome(self.incarnation, engine=peer.engine))
            elif got is not None:
                peer, message = got
                if isinstance(message, Ping):
                    self.peers.pong(peer, message, at=time.time())
                    continue
                self.heard.append(message)
                if isinstance(message, Results) and self.stores:
                    self.say(Stored(message.number))

    @property
    def peer(self) -> Peer:
        return self.peers.by_uuid["e"]

    def say(self, message: Message) -> None:
        self.peers.send(self.peer, message)

    def then(self, *steps: Callable[[], None] | Message) -> Script:
        """Further steps: messages to say, or functions to call."""
        for step in steps:
            self.steps.append((lambda message=step: self.say(message)) if isinstance(step, Message) else step)  # type: ignore[misc]
        return self

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def ended(self) -> list[str]:
        return [done.id for message in self.all(Results) for done in message.tasks]

    # the engine

    def engine(self, **settings: Any) -> Engine:
        session = LinkSession(introduce("engine", "key", "e", nanny=NannyId("n")), main.PING_SECONDS, 0.0)
        return Engine(
            SessionLink(session, self, frames.decode_to_engine),
            cast(Executor, self.executor),
            cast(Interrupter, self.interrupter),
            cast(Streams, SimpleNamespace(stdout=SimpleNamespace(news=str), stderr=SimpleNamespace(news=str))),
            self.page,
            EngineSettings(**settings),
        )

    def play(self, **settings: Any) -> None:
        self.engine(**settings).serve()
        assert not self.steps, "the engine left early"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.link.close()
    script.network.listener.close()
    script.page.close()


@pytest.fixture(autouse=True)
def no_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "GATHER_SECONDS", -1.0)  # each result is sent at once


def spec(id: str, function: Function = F, inputs: tuple[str, ...] = (), depend: bool = False) -> TaskSpec:
    options = TaskOptions(inputs=tuple(TaskId(i) for i in inputs), depend=depend) if inputs or depend else None
    return TaskSpec(TaskId(id), function.digest, b"", 0.0, options=options)


def run(*ids: str, functions: tuple[Function, ...] = (F,), attempt: int = 1) -> Run:
    return Run([spec(id) for id in ids], [attempt] * len(ids), list(functions))


def ping_now(engine_link: SessionLink) -> None:
    engine_link.session.next_ping = 0.0


# -------------------------------------------------------------------------------------------- taking and running


def test_tasks_run_in_order_and_results_are_handed_in(script: Script):
    script.then(run("a", "b"), run("c", attempt=2)).play()
    assert script.executor.ran == [("a", 1), ("b", 1), ("c", 2)]
    assert script.ended == ["a", "b", "c"]
    assert isinstance(script.heard[-1], Goodbye)
    assert script.page.leaving
    assert (script.page.engine, script.executor.engine) == (5, 5)


@pytest.mark.fault(23)
def test_tasks_that_come_after_a_lost_message_wait_until_it_is_said_again(script: Script):
    """Those that were lost may be before them: direct tasks run in the order in which they were submitted."""

    def numbered(*ids: str) -> Run:
        message = run(*ids)
        message.sent = script.peer.session.sent + 1
        return message

    def lose() -> None:
        script.peer.session.count_sent(frames.encode(numbered("lost")))
        script.say(numbered("early"))
        script.say(numbered("early too"))

    def again() -> None:
        script.say(numbered("lost", "early", "early too"))

    script.then(lambda: script.say(numbered("a")), lose, again).play()
    assert script.ended == ["a", "lost", "early", "early too"]
    assert len(script.hellos) == 2
    assert script.hellos[1].held == []


def test_after_a_hello_missing_functions_are_asked_for_again(script: Script):
    def numbered() -> None:
        message = run("c")
        message.sent = script.peer.session.sent + 2  # something was lost
        script.say(message)

    script.then(run("a", functions=()), numbered, lambda: None, Functions([F])).play()
    assert script.all(NeedFunctions) == [NeedFunctions([F.digest])] * 2
    assert script.ended == ["a"]
    assert [held.id for held in script.hellos[1].held] == ["a"]


def test_a_result_leaves_before_the_next_task_begins(script: Script):
    """The next one may hold the GIL: then no thread of this process sends anything."""
    script.steps = [lambda: script.say(run("a", "b"))]
    begun = script.executor.run
    at_begin: list[int] = []

    def note(*given: Any) -> Any:
        at_begin.append(len(script.flushed))
        return begun(*given)

    script.executor.run = note  # type: ignore[method-assign]
    script.play()
    assert script.flushed[:2] == [["a"], ["a", "b"]]
    assert at_begin == [0, 1]


def test_a_running_task_is_on_the_shared_page(script: Script):
    seen = []
    script.executor.during["a"] = lambda: seen.append(script.page.running)
    script.then(run("a")).play()
    assert seen == ["a"]
    assert script.page.running is None


@pytest.mark.fault(15)
def test_the_loop_is_watched_but_not_while_a_task_runs(script: Script):
    """A task may take as long as it likes. Else the count of turns goes up, also while nothing happens."""
    engine, seen, between = script.engine(), list[int](), list[int]()
    for name in ("a", "b"):
        script.executor.during[name] = lambda: seen.append(engine._turns_between_tasks())
    script.steps = [
        lambda: between.append(engine._turns_between_tasks()),
        lambda: between.append(engine._turns_between_tasks()),
        lambda: script.say(run("a", "b")),
        lambda: between.append(engine._turns_between_tasks()),
    ]
    engine.serve()
    assert seen == [0, 0]
    assert 0 < between[0] < between[1] < between[2]


def test_more_work_is_taken_while_there_is_some(script: Script):
    script.executor.during["a"] = lambda: script.say(run("b"))
    script.then(run("a")).play()
    assert script.ended == ["a", "b"]


def test_a_refused_engine_leaves_and_asks_to_be_replaced(script: Script, capsys: pytest.CaptureFixture[str]):
    script.then(Refused("authentication", "the key is wrong"))
    script.play()
    assert script.page.leaving
    assert script.page.restart
    assert f"refused this engine (engineroom {__version__}): the key is wrong" in capsys.readouterr().out


def test_a_signal_to_leave_loses_nothing_that_arrives_at_that_moment(script: Script):
    engine = script.engine()

    def arrives() -> None:
        script.say(run("a"))
        engine._page.is_told = True
        engine._on_sigterm(signal.SIGTERM, None)

    script.steps = [arrives]
    engine.serve()
    assert script.all(Returned) == [Returned([AttemptKey(TaskId("a"), 1)])]
    assert (len(script.hellos), script.ended) == (1, [])
    assert isinstance(script.heard[-1], Goodbye)


# -------------------------------------------------------------------------------------------- functions


def test_a_task_waits_for_its_function_and_others_do_not(script: Script):
    script.executor.learn([G])
    mixed = Run([spec("a"), spec("b", G), spec("c")], [1, 1, 1])
    script.then(mixed, Functions([F])).play()
    assert script.ended == ["b", "a", "c"]
    assert script.all(NeedFunctions) == [NeedFunctions([F.digest])], "it is asked for once"


def test_a_task_whose_function_nobody_has_ends_with_an_error_that_names_it(script: Script):
    script.then(Run([spec("a"), spec("b")], [1, 3]), Functions([], [F.digest]), run("c")).play()
    assert script.executor.ran == [("c", 1)]
    first, _ = script.all(Results)
    assert [(done.id, done.attempt, done.status) for done in first.tasks] == [("a", 1, "error"), ("b", 3, "error")]
    error = first.tasks[0].error
    assert error is not None
    assert error.ename == "SerializationError"
    assert F.digest.hex() in error.evalue
    assert "Submit it again" in error.evalue
    assert error.stopped, "so that the client raises this very class"
    assert (error.engine_id, error.engine_uuid) == (5, "e")
    assert first.tasks[0].started is not None, "no start would mean a death"


def test_a_missing_function_is_told_at_once_though_a_long_task_runs(script: Script):
    engine = script.engine()
    script.executor.learn([G])

    def while_it_runs() -> None:
        script.say(Functions([], [F.digest]))
        engine._receive()  # as the attendant does
        script.listen()
        assert script.ended == ["a"]

    script.executor.during["long"] = while_it_runs
    script.then(Run([spec("a"), spec("long", G)], [1, 1]))
    engine.serve()
    assert script.ended == ["a", "long"]


# -------------------------------------------------------------------------------------------- giving back


def test_unstarted_tasks_are_given_back(script: Script):
    def recall() -> None:
        script.say(Recall([TaskId("a"), TaskId("c"), TaskId("elsewhere")]))

    script.executor.during["a"] = recall
    script.then(run("a", "b", "c"))
    script.play()
    assert script.all(Returned) == [Returned([AttemptKey("c", 1)])]
    assert script.ended == ["a", "b"]


def test_parked_tasks_are_given_back_too(script: Script):
    script.then(Run([spec("a"), spec("b")], [1, 1]), Recall([TaskId("a")]), Functions([F])).play()
    assert script.all(Returned) == [Returned([AttemptKey("a", 1)])]
    assert script.ended == ["b"]


def test_a_running_task_is_interrupted_when_it_is_cancelled(script: Script):
    engine = script.engine()

    def cancel(*ids: str) -> None:
        script.say(Cancel([TaskId(id) for id in ids]))
        engine._receive()  # as the attendant does

    script.executor.during["a"] = lambda: cancel("b", "elsewhere")
    script.executor.during["c"] = lambda: cancel("c")
    script.then(run("a", "b", "c", "d"))
    engine.serve()
    assert script.interrupter.cancelled == 1
    assert script.interrupter.wishes == [], "no other task is interrupted for it"
    assert [message.tasks for message in script.all(Returned)] == [[AttemptKey("b", 1)], []]
    assert script.ended == ["a", "c", "d"]


@pytest.mark.fault(48)
def test_a_leaving_engine_gives_back_what_it_has_not_begun(script: Script):
    script.executor.during["a"] = lambda: script.say(Stop())
    script.then(run("a", "b", "c")).play()
    assert script.ended == ["a"]
    assert [type(message) for message in script.heard] == [Results, Returned, Goodbye]
    assert script.all(Returned) == [Returned([AttemptKey("b", 1), AttemptKey("c", 1)])]


@pytest.mark.fault(48)
def test_a_task_cut_short_by_sigterm_is_left_to_the_controller(script: Script):
    def terminated() -> None:
        raise Terminated

    script.executor.during["a"] = terminated
    script.then(run("a", "b")).play()
    assert script.ended == []
    assert script.all(Returned) == [Returned([AttemptKey("b", 1)])]
    assert isinstance(script.heard[-1], Goodbye)


# -------------------------------------------------------------------------------------------- the session


@pytest.mark.fault(23)
def test_after_a_loss_the_engine_says_what_it_holds_and_what_may_not_be_stored(script: Script):
    engine = script.engine()
    script.stores = False

    def lose() -> None:
        script.network.cut(b"e")
        script.say(run("lost"))
        script.network.mend(b"e")
        ping_now(engine._link)

    def in_the_middle() -> None:
        """While the second task runs, the loss is noticed."""
        lose()
        engine._link.ping()
        script.listen()
        engine._receive()
        script.listen()

    script.executor.during["b"] = in_the_middle
    script.then(run("a", "b", "c"), lambda: setattr(script, "stores", True), lambda: script.say(Stored(2)))
    engine.serve()
    [first, second] = script.hellos
    assert (first.held, first.wish) == ([], -1)
    assert [held.id for held in second.held] == ["b", "c", "a"]
    assert second.wish == 5, "it would like to keep its number"
    assert script.ended == ["a", "a", "b", "c"], "the first result is sent again, then come the others"
    assert [message.number for message in script.all(Results)] == [1, 1, 2], "the others gather until it is welcome"


def test_a_restarted_controller_gets_to_know_its_engine(script: Script):
    engine = script.engine()

    def restart() -> None:
        script.peers, script.incarnation = Peers(script.network.listener, "key"), "second life"
        ping_now(engine._link)

    script.then(run("a"), restart, lambda: None, run("b"))
    engine.serve()
    assert [hello.wish for hello in script.hellos] == [-1, 5]
    assert script.ended == ["a", "b"]
    assert engine._link.session.incarnation == "second life"


def test_a_lost_welcome_is_asked_for(script: Script):
    engine = script.engine()
    welcome, swallowed = script.peers.welcome, []

    def swallow(peer: Peer, message: Welcome) -> None:
        script.network.cut(b"e")
        welcome(peer, message)
        script.network.mend(b"e")
        swallowed.append(message)
        script.peers.welcome = welcome  # type: ignore[method-assign]

    script.peers.welcome = swallow  # type: ignore[method-assign]
    script.then(lambda: ping_now(engine._link), lambda: None, run("a"))
    engine.serve()
    assert swallowed
    assert script.executor.engine == 5
    assert script.ended == ["a"]


def test_missing_inputs_lead_to_one_new_beginning(script: Script):
    """The controller believed that the engine had the value; after the Welcome it sends it again."""
    missing = Run([spec("a", inputs=("v",))], [1], [F])
    whole = Run([spec("a", inputs=("v",))], [1], [], [InputResult(TaskId("v"), b"pickled")])
    script.then(missing, whole).play()
    assert len(script.hellos) == 2
    assert script.executor.inputs["a"] == {"v": (b"pickled", ())}
    assert script.ended == ["a"]


def test_an_engine_with_too_many_unstored_results_waits_for_the_store(script: Script):
    script.stores = False
    ran_before: list[Any] = []

    def look() -> None:
        ran_before.extend(script.executor.ran)
        script.stores = True

    script.then(run("a", "b"), look, Stored(1)).play(unstored_limit=1)
    assert ran_before == [("a", 1)]
    assert script.ended == ["a", "b"]


# -------------------------------------------------------------------------------------------- properties


def test_a_question_about_properties_is_answered_between_two_tasks(script: Script):
    script.executor.objections[G.digest] = "not here"
    script.then(run("a"), CheckProperties([F.digest, G.digest], [G])).play()
    checks = [PropertyCheck(F.digest, ""), PropertyCheck(G.digest, "not here")]
    assert script.all(PropertiesChecked) == [PropertiesChecked(checks)]


def test_a_task_that_does_not_suit_any_more_is_given_back_with_its_like(script: Script):
    script.executor.objections[F.digest] = "not here"
    tasks = [spec("a", depend=True), spec("b", G), spec("c", depend=True)]
    script.then(Run(tasks, [1, 1, 1], [F, G])).play()
    assert script.all(Returned) == [Returned([AttemptKey("a", 1), AttemptKey("c", 1)])]
    assert script.all(PropertiesChecked) == [PropertiesChecked([PropertyCheck(F.digest, "not here")])]
    assert script.ended == ["b"]


def test_a_task_that_changes_properties_is_followed_by_that_news(script: Script):
    engine = script.engine()
    script.executor.during["a"] = engine._note_change
    script.then(run("a", "b"))
    engine.serve()
    kinds = [type(message) for message in script.heard]
    assert kinds.index(PropertiesChanged) < kinds.index(Results)
    assert script.ended == ["a", "b"]
