"""A peer that has the key sends whatever the types of messages allow, and more: only the peer itself may suffer."""

from __future__ import annotations

import datetime
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from engineroom import _version, messages
from engineroom.controller import loop
from engineroom.controller.loop import Controller, Machinery
from engineroom.errors import ProtocolError
from engineroom.ids import EngineId, EngineUuid, digest_of
from engineroom.messages import (
    Abort,
    Accepted,
    Attempt,
    CheckProperties,
    CountRecords,
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
    PropertiesChecked,
    PropertyCheck,
    Published,
    Purge,
    Reply,
    Request,
    Results,
    Run,
    SignalEngines,
    Started,
    StopController,
    StopEngines,
    Submit,
    TaskDone,
    TaskSpec,
    Unresponsive,
)
from engineroom.stores import SQLiteDB
from engineroom.testing.network import MemoryLink, MemoryNetwork
from engineroom.wire import frames
from engineroom.wire.session import prove

UNIONS = {"client": messages.FromClient, "engine": messages.FromEngine, "nanny": messages.FromNanny}
FUNCTION = Function(digest_of(b"pickled"), b"pickled", "f")
SECONDS = 30.0

#: What peers with the key may do to others: these stay out of the test.
POWERS = (StopController, StopEngines, SignalEngines)

NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, 2**63, -(2**63), 2**64 - 1)
REALS = (0.0, -0.0, 1.5, -1.0, 1e9, 253e9, 1e300, math.inf, -math.inf, math.nan, 5e-324)
TEXTS = ("", "x", "my-0", "my-1", "my-2", "\0", "\x1b[2J", "\u202e", "a" * 300, "$where", "state.x", "{}", "00", "é")
BLOBS = (b"", b"x", b"\xff\xfe", b"\xc1" * 40, FUNCTION.digest)


class Maker:
    """Makes values of types. With `wild`, bounds of numbers and lengths do not count."""

    def __init__(self, seed: int) -> None:
        self.chance, self.wild = random.Random(seed), False

    def anything(self, depth: int = 0) -> Any:
        match self.chance.randrange(10 if depth < 4 else 6):
            case 0:
                return None
            case 1:
                return self.chance.random() < 0.5
            case 2:
                return self.chance.choice(NUMBERS)
            case 3:
                return self.chance.choice(REALS)
            case 4:
                return self.chance.choice(TEXTS)
            case 5:
                return self.chance.choice([*BLOBS, datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)])
            case 6 | 7:
                return [self.anything(depth + 1) for _ in range(self.chance.randrange(3))]
            case _:
                return {self.chance.choice(TEXTS): self.anything(depth + 1) for _ in range(self.chance.randrange(3))}

    def make(self, kind: inspect.Type) -> Any:
        chance = self.chance
        match kind:
            case inspect.StructType():
                given = {}
                for field in kind.fields:
                    if field.required or chance.random() < 0.6:
                        given[field.name] = self.make(field.type)
                return kind.cls(**given)
            case inspect.UnionType():
                return self.make(chance.choice(kind.types))
            case inspect.IntType() | inspect.FloatType():
                choices = NUMBERS if isinstance(kind, inspect.IntType) else REALS
                if self.wild:
                    return chance.choice(choices)
                least, most = kind.ge, kind.le
                least, most = -math.inf if least is None else least, math.inf if most is None else most
                return chance.choice([number for number in choices if least <= number <= most])
            case inspect.StrType():
                fits = [t for t in TEXTS if self.wild or kind.max_length is None or len(t) <= kind.max_length]
                return chance.choice(fits)
            case inspect.LiteralType():
                return chance.choice([*kind.values, "strange"] if self.wild else kind.values)
            case inspect.BytesType():
                return chance.choice(BLOBS)
            case inspect.BoolType():
                return chance.random() < 0.5
            case inspect.NoneType():
                return None
            case inspect.ListType():
                return [self.make(kind.item_type) for _ in range(chance.randrange(4))]
            case inspect.VarTupleType():
                return tuple(self.make(kind.item_type) for _ in range(chance.randrange(4)))
            case inspect.TupleType():
                return tuple(self.make(item) for item in kind.item_types)
            case inspect.DictType():
                return {self.make(kind.key_type): self.make(kind.value_type) for _ in range(chance.randrange(3))}
            case inspect.AnyType():
                return self.anything()
        raise AssertionError(f"the test cannot make a {kind}")

    def message(self, union: Any) -> Message:
        kinds = inspect.type_info(union)
        assert isinstance(kinds, inspect.UnionType)
        while True:
            self.wild = self.chance.random() < 0.3
            message: Message = self.make(self.chance.choice(kinds.types))
            if isinstance(message, Request):
                body = message.body
                if isinstance(body, POWERS):
                    continue
                if isinstance(body, Abort | Purge):
                    body.engines, body.tasks = None, ["my-0", "my-1"]
                    if isinstance(body, Purge):
                        body.query, body.everything = None, False
            return message


class Honest:
    """A client and an engine that work, one task after the other, and ask for all records."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network, self.number, self.results = network, 0, 0
        self.client, self.engine = self.join("client", "honest"), self.join("engine", "engine")
        self.heard: list[Message] = []
        self.columns: list[dict[str, list[Any]]] = []
        self.wait_for(lambda: any(isinstance(message, Engines) and message.engines for message in self.heard))
        self.engine_number = EngineId(0)

    def join(self, role: str, uuid: str, nanny: str = "") -> MemoryLink:
        link = self.network.link(uuid.encode())
        hello = Hello(_version.PROTOCOL_VERSION, role, "", uuid, 1, "elsewhere", nanny=nanny, number=1)
        link.send([frames.encode(prove(hello, b"key"))])
        return link

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"heard only {self.heard[-20:]}"
            self.run_tasks()
            for parts in self.client.receive(64, timeout=0.01):
                self.heard.append(frames.decode_to_client(bytes(parts[0])))
                if isinstance(self.heard[-1], Reply):
                    self.columns = [frames.decode_columns(part) for part in parts[1:]]

    def run_tasks(self) -> None:
        """What the engine does: every task is done at once."""
        for parts in self.engine.receive():
            message = frames.decode_to_engine(bytes(parts[0]))
            if isinstance(message, Run):
                pairs = zip(message.tasks, message.attempts, strict=True)
                done = [TaskDone(task.id, attempt, "ok", 1e9, 2e9, b"result") for task, attempt in pairs]
                self.results += 1
                self.engine.send([frames.encode(Results(done, self.results))])
            elif isinstance(message, CheckProperties):
                answers = [PropertyCheck(digest) for digest in message.digests]
                self.engine.send([frames.encode(PropertiesChecked(answers))])

    def ask(self, body: Any) -> Any:
        self.number += 1
        self.client.send([frames.encode(Request(self.number, body))])
        self.wait_for(lambda: any(isinstance(m, Reply) and m.number == self.number for m in self.heard))
        [reply] = [m for m in self.heard if isinstance(m, Reply) and m.number == self.number]
        assert reply.error is None
        return reply.value

    def work(self) -> None:
        self.number += 1
        id = f"good-{self.number}"
        spec = TaskSpec(id, FUNCTION.digest, b"arguments", 1e9, self.engine_number)
        self.client.send([frames.encode(Submit(self.number, [spec], [FUNCTION]))])
        self.wait_for(lambda: any(isinstance(m, Accepted) and self.number in m.numbers for m in self.heard))
        self.wait_for(lambda: any(done.id == id for m in self.heard if isinstance(m, Results) for done in m.tasks))
        self.ask(FindRecords({}, ["msg_id", "state", "header", "submitted"]))
        states: dict[str, str] = {}
        for piece in self.columns:
            states |= dict(zip(piece["msg_id"], piece["state"], strict=True))
        assert states[id] == "completed"
        self.ask(FindRecords({}))
        assert self.columns, "a question for everything in all records"
        self.heard.clear()


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryNetwork]:
    monkeypatch.setattr(loop, "STOP_SECONDS", 0.0)  # nobody here says goodbye
    network = MemoryNetwork()
    controller = Controller(network.listener, SQLiteDB(tmp_path / "tasks.db", query_seconds=5.0), "key")
    thread = threading.Thread(target=controller.run)
    thread.start()
    yield network
    assert thread.is_alive(), "the controller goes on"
    controller.stop()
    for link in list(network.links.values()):
        link.close()
    thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.mark.fault(26)
@pytest.mark.parametrize("role", UNIONS)
@pytest.mark.parametrize("seed", range(3))
def test_random_messages_of_a_peer_with_the_key_hurt_nobody_else(
    network: MemoryNetwork, role: str, seed: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.ERROR)
    maker, honest = Maker(seed), Honest(network)
    honest.work()
    for round in range(12):
        hostile = honest.join(role, f"hostile-{round}")
        for _ in range(25):
            message = maker.message(UNIONS[role])
            try:
                header = frames.encode(message)
            except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
                continue
            hostile.send([header, *([b"frame"] if maker.chance.random() < 0.3 else [])])
        honest.work()
    bugs = [record.getMessage() for record in caplog.records if "a bug" in record.getMessage()]
    assert bugs == []


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    "message",
    [
        Submit(1, [TaskSpec("bad", FUNCTION.digest, b"", 1e9, EngineId(2**63))], [FUNCTION]),
        Submit(1, [TaskSpec("bad", FUNCTION.digest, b"", 1e300)], [FUNCTION]),
        Submit(1, [TaskSpec("bad", FUNCTION.digest, b"", math.nan)], [FUNCTION]),
        Submit(1, [TaskSpec("bad", b"", b"\xff\xfe", 1e9, kind="execute")]),
        Submit(1, [TaskSpec("bad", FUNCTION.digest, b"", 1e9, kind="strange")], [FUNCTION]),  # type: ignore[arg-type]
        Results([TaskDone("good-1", 1, "strange", 1e9, 2e9)], 1),  # type: ignore[arg-type]
        Hello(_version.PROTOCOL_VERSION, "nanny", "", "pid", 2**40, "elsewhere"),
    ],
    ids=lambda message: str(message)[:40],
)
def test_one_malformed_value_stops_nobody(network: MemoryNetwork, message: Message):
    honest = Honest(network)
    role = "engine" if isinstance(message, Results) else "client"
    hostile = honest.join(role, "hostile")
    if isinstance(message, Hello):
        import socket

        message = prove(msgspec.structs.replace(message, host=socket.gethostname()), b"key")
        hostile = network.link(b"another")
    hostile.send([frames.encode(message)])
    for _ in range(3):
        honest.work()


@pytest.mark.parametrize("victim", ["honest", "engine"])
def test_only_a_nanny_is_told_to_signal_processes(network: MemoryNetwork, victim: str):
    honest = Honest(network)
    honest.join("engine", "hostile", nanny=victim)
    numbers = lambda: {engine.id for m in honest.heard if isinstance(m, Engines) for engine in m.engines}  # noqa: E731
    honest.wait_for(lambda: len(numbers()) == 2)
    honest.ask(SignalEngines(0, [EngineId(1)]))  # decoding fails at a client or an engine that gets SignalProcesses
    honest.join("engine", "hostile", nanny=victim).send([frames.encode(Goodbye("it left"))])
    honest.wait_for(lambda: any(isinstance(m, Engines) and len(m.engines) == 1 for m in honest.heard[-3:]))
    honest.work()


def test_a_nanny_speaks_for_its_own_engines_only(network: MemoryNetwork, caplog: pytest.LogCaptureFixture):
    honest = Honest(network)
    hostile = honest.join("nanny", "hostile")
    for uuid in ("engine", "honest"):
        hostile.send([frames.encode(EngineDied(uuid, 0, 0, None, False, "it is said"))])
    hostile.send([frames.encode(Unresponsive(["engine", "honest"]))])
    for _ in range(3):
        honest.work()
    [told] = [record.getMessage() for record in caplog.records if "its engine" in record.getMessage()]
    assert "broke the protocol: a nanny tells the death of a process that is not its engine" in told
    assert not [record for record in caplog.records if record.exc_info]


def test_tasks_do_not_wait_for_an_engine_whose_session_was_ended(network: MemoryNetwork):
    honest = Honest(network)
    hostile = honest.join("engine", "hostile")
    engines = lambda: {e.id for m in honest.heard[-1:] if isinstance(m, Engines) for e in m.engines}  # noqa: E731
    honest.wait_for(lambda: engines() == {0, 1})
    spec = TaskSpec("caught", FUNCTION.digest, b"arguments", 1e9, EngineId(1))
    honest.client.send([frames.encode(Submit(1, [spec], [FUNCTION]))])
    honest.wait_for(lambda: any(isinstance(frames.decode_to_engine(bytes(p[0])), Run) for p in hostile.receive()))
    hostile.send([b"\xc1"])
    ended = lambda: {d.id for m in honest.heard if isinstance(m, Results) for d in m.tasks}  # noqa: E731
    honest.wait_for(lambda: "caught" in ended())
    honest.wait_for(lambda: any(isinstance(m, Engines) and len(m.engines) == 1 for m in honest.heard[-3:]))
    honest.number = 1
    honest.work()


def test_an_outcome_that_names_frames_it_does_not_have_is_refused(network: MemoryNetwork):
    honest = Honest(network)
    hostile = honest.join("engine", "hostile")
    hostile.send([frames.encode(Results([TaskDone("good-1", 1, "ok", 1e9, 2e9, b"", frames=(5,))], 1))])
    for _ in range(3):
        honest.work()


def test_attempts_are_bounded_like_everything_else():
    header = msgspec.msgpack.encode(Attempt(1, EngineId(0), "u", "h", 1e300, 2.0, "ok"))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(header, type=Attempt)


@pytest.mark.parametrize("union", [*UNIONS.values(), messages.ToClient, messages.ToEngine, messages.ToNanny])
def test_every_number_in_a_message_has_bounds(union: Any):
    """A number without them breaks what stores or sends it on: a column, a date, another decoder."""
    seen: set[type] = set()

    def check(kind: inspect.Type, where: str) -> None:
        match kind:
            case inspect.IntType() | inspect.FloatType():
                assert kind.ge is not None, where
                assert kind.le is not None, where
            case inspect.StructType():
                if kind.cls not in seen:
                    seen.add(kind.cls)
                    for field in kind.fields:
                        check(field.type, f"{kind.cls.__name__}.{field.name}")
            case inspect.UnionType():
                for part in kind.types:
                    check(part, where)
            case inspect.ListType() | inspect.VarTupleType():
                check(kind.item_type, where)
            case inspect.TupleType():
                for part in kind.item_types:
                    check(part, where)
            case inspect.DictType():
                check(kind.key_type, where)
                check(kind.value_type, where)

    check(inspect.type_info(union), str(union))
    assert len(seen) > 3


def test_a_task_cannot_name_a_frame_without_end():
    with pytest.raises(ProtocolError, match="names frames"):
        frames.pick(TaskSpec("t", b"", b"", 0.0, frames=(0,) * 1_000_000), [b"x" * 1000])


# ---------------------------------------------------------------------------------------- what is not a peer's own


def held_task(honest: Honest) -> tuple[str, int]:
    """A task that the honest engine has, and has not finished; with its attempt."""
    spec = TaskSpec("mine-1", FUNCTION.digest, b"", 1e9, EngineId(0))
    honest.client.send([frames.encode(Submit(1, [spec], [FUNCTION]))])
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for parts in honest.engine.receive(64, timeout=0.05):
            message = frames.decode_to_engine(bytes(parts[0]))
            if isinstance(message, Run):
                return message.tasks[0].id, message.attempts[0]
    raise AssertionError("the task did not come")


def answered(link: MemoryLink, sent: int) -> None:
    """Wait until the controller has handled what a peer has sent."""
    link.send([frames.encode(Ping(sent + 1, 1, 0))])
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if any(frames.decode_to_engine(bytes(p[0])).__class__ is Pong for p in link.receive(64, timeout=0.05)):
            return
    raise AssertionError("no answer")


def test_an_engine_publishes_prints_and_starts_only_its_own_tasks(network: MemoryNetwork):
    honest = Honest(network)
    task, attempt = held_task(honest)
    hostile = honest.join("engine", "hostile")
    lies = [
        Published(task, b"lie"),
        Output(task, "stdout", "lie"),
        Started(task, 1e9, EngineId(0), attempt),
    ]
    for number, lie in enumerate(lies):
        hostile.send([frames.encode(lie)])
        answered(hostile, 2 + 2 * number)
    for true in (Published(task, b"true"), Output(task, "stdout", "true"), Started(task, 2e9, EngineId(0), attempt)):
        honest.engine.send([frames.encode(true)])
    honest.engine.send([frames.encode(Results([TaskDone(task, attempt, "ok", 1e9, 2e9, b"result")], 1))])
    honest.wait_for(lambda: any(isinstance(message, Results) for message in honest.heard))
    assert [m.payload for m in honest.heard if isinstance(m, Published)] == [b"true"]
    assert [m.text for m in honest.heard if isinstance(m, Output)] == ["true"]
    assert [m.started for m in honest.heard if isinstance(m, Started)] == [2e9]


class Later(Machinery):
    """A clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.clock = lambda: time.time() + self.ahead


@pytest.fixture
def later(tmp_path: Path) -> Iterator[tuple[MemoryNetwork, Later]]:
    network, machinery = MemoryNetwork(), Later()
    controller = Controller(network.listener, SQLiteDB(tmp_path / "tasks.db"), "key", machinery=machinery)
    thread = threading.Thread(target=controller.run)
    thread.start()
    yield network, machinery
    controller.stop()
    for link in list(network.links.values()):
        link.close()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_only_its_own_nanny_can_say_that_an_engine_is_stopped(later: tuple[MemoryNetwork, Later]):
    network, machinery = later
    honest = Honest(network)
    nanny, stranger = honest.join("nanny", "nanny"), honest.join("nanny", "stranger")
    honest.join("engine", "second", nanny="nanny")
    honest.join("engine", "third", nanny="nanny")
    sent = dict.fromkeys((nanny, stranger, honest.engine), 1)
    engines = lambda: [{e.uuid for e in m.engines} for m in honest.heard if isinstance(m, Engines)]  # noqa: E731
    honest.wait_for(lambda: {"second", "third"} < engines()[-1])
    nanny.send([frames.encode(Unresponsive([EngineUuid("third")]))])
    stranger.send([frames.encode(Unresponsive([EngineUuid("engine"), EngineUuid("second"), EngineUuid("third")]))])
    honest.client.send([frames.encode(Unresponsive([EngineUuid("second")]))])  # its session ends …
    honest.client = honest.join("client", "honest-2")  # … and another begins
    for _ in range(4):
        machinery.ahead += 5.0  # after a longer pause the controller would take itself for the one that was stopped
        for link in (nanny, stranger, honest.engine, honest.client):
            link.send([frames.encode(Ping(sent.get(link, 1), 1, 0))])
        honest.ask(CountRecords({}))
    honest.wait_for(lambda: "third" not in engines()[-1])
    machinery.ahead += 5.0
    honest.ask(CountRecords({}))
    assert {"engine", "second"} <= engines()[-1]


def test_results_behind_a_gap_are_not_taken(network: MemoryNetwork):
    """To store them would tell the engine that all before them are stored, too, and it would forget what was lost."""
    honest = Honest(network)
    task, attempt = held_task(honest)
    late = Results([TaskDone(task, attempt, "ok", 1e9, 2e9, b"result")], 3)
    honest.engine.send([frames.encode(Results([], 1))])
    honest.engine.send([frames.encode(late)])  # the second was lost
    honest.ask(FindRecords({"msg_id": task}, ["state"]))
    assert honest.columns[0]["state"] != ["completed"]
    honest.engine.send([frames.encode(Results([], 2))])
    honest.engine.send([frames.encode(late)])
    honest.wait_for(lambda: any(isinstance(message, Results) for message in honest.heard))
