"""Messages of strangers, clients, engines and nannies to a whole controller, in virtual time.

A case is a list of steps in msgpack, `[who, header, [frame, …]]`: a header is bytes, or a tree that is encoded. The
controller is the real one, with its loop, intake, core, outbox and answers to requests. Only its clock, its network and
its threads are those of `engineroom.testing`; its store is the one in memory, and all entries go to SQLite, too.

After each case: no turn raised, no guarded bug is in the log, the core's invariants hold, strangers heard nothing but
refusals, peers were sent only what their decoders accept, and a new client is welcomed and answered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from engineroom.config import LivenessSettings
from engineroom.controller.loop import Controller
from engineroom.core.checks import check
from engineroom.errors import EngineroomError, ProtocolError, StoreRefused
from engineroom.ids import TaskId, digest_of
from engineroom.messages import (
    ErrorInfo,
    FindRecords,
    Function,
    Hello,
    Pong,
    Refused,
    Reply,
    Request,
    Results,
    Started,
    Submit,
    Sync,
    TaskDone,
    TaskOptions,
    TaskSpec,
    Welcome,
)
from engineroom.messages.rights import key_with_rights
from engineroom.records.entry import Entry
from engineroom.records.fields import KEYS
from engineroom.stores import DictDB, SQLiteDB
from engineroom.stores.base import QueryDict
from engineroom.testing.clock import VirtualClock
from engineroom.testing.machinery import VirtualMachinery
from engineroom.testing.network import VirtualNetwork
from engineroom.testing.peers import KEY
from engineroom.wire import frames
from engineroom.wire.session import LinkSession, introduce, prove

from . import samples
from .target import Complaints, Finding, TreeTarget, memory_folder

DIGEST = digest_of(samples.CODE)
#: The number of a task's first attempt.
FIRST = 1
#: Steps of a case that are taken.
MOST_STEPS = 12
#: When virtual time begins, in seconds since the epoch.
BEGIN = 1_800_000_000.0
#: Turns after the last step, and virtual seconds between two of them.
TURNS, BETWEEN = 12, 0.05
#: Who takes a step: an index of these. With `PROVEN` added, the proof in a Hello is made anew, with the key.
STRANGER, CLIENT, ENGINE, NANNY, READER, SUBMITTER = range(6)
PROVEN = 8
_ROLES = ("", "client", "engine", "nanny", "client", "client")
_KEYS = (KEY, KEY, KEY, KEY, key_with_rights(KEY, "readonly"), key_with_rights(KEY, "submit"))
#: What stores know of functions and environments, which go to the one in memory alone.
_NOT_COMPARED = {"environment", "function_name"}
_TO = {"client": frames.decode_to_client, "engine": frames.decode_to_engine, "nanny": frames.decode_to_nanny}


class ControllerTarget(TreeTarget):
    """A controller, and everybody who may send to it."""

    name = "controller"
    longest = 8192
    atoms = (
        "t1", "t2", "u1", "u2", "apply", "execute", "map", "ok", "error", "aborted", "unmet", "state", "msg_id",
        "header.x",
        DIGEST, STRANGER, CLIENT, ENGINE, NANNY, READER, SUBMITTER, CLIENT | PROVEN, "submitted", "engine_id",
        "-label",
        {"state": "pending"}, {"$in": ["t1"]}, {"msg_id": {"$in": ["t1", "t2"]}}, {"duration": {"$gt": 0}}, ["t1",
        "t2"],
        ["t1", 1], {"$regex": "a"}, "$or", "$not",
    )  # fmt: skip

    def __enter__(self) -> ControllerTarget:
        self._complaints = Complaints()
        self._complaints.__enter__()
        self._folder = tempfile.TemporaryDirectory(dir=memory_folder())
        self._sqlite = SQLiteDB(Path(self._folder.name) / "tasks.db", synchronous="OFF")
        self.introductions = [
            introduce(role, key, f"u{n}") for n, (role, key) in enumerate(zip(_ROLES, _KEYS, strict=True))
        ]
        return self

    def __exit__(self, *error: object) -> None:
        self._sqlite.close()
        self._folder.cleanup()
        self._complaints.__exit__()

    def seeds(self) -> list[bytes]:
        found: list[Any] = [[[who, samples.tree_of(message), [b"frame"] * 2]]
                            for who, direction in ((CLIENT, "FromClient"), (ENGINE, "FromEngine"), (NANNY,
                            "FromNanny"))
                            for message in samples.of(direction)]  # fmt: skip
        spec = TaskSpec(TaskId("t1"), DIGEST, b"args", 1.5, frames=(0,), options=TaskOptions(label="a"))
        error = ErrorInfo("ValueError", "bad", "Traceback")
        submit = samples.tree_of(Submit(1, [spec], [Function(DIGEST, samples.CODE, "f")]))
        started = samples.tree_of(Started(spec.id, 1.5, attempt=FIRST))
        results, failed = (
            samples.tree_of(
                Results([TaskDone(spec.id, FIRST, status, 1.5, 2.5, b"value", frames=places, error=wrong)], 1)
            )
            for status, places, wrong in (("ok", (0,), None), ("error", (), error))
        )
        find = ["request", 2, ["findrecords", {"msg_id": "t1"}]]
        hello = samples.tree_of(Hello(3, "client", "", "u9", 1, "host"))
        cases: list[list[Any]] = [
            [
                [CLIENT, submit, [b"x"]],
                [ENGINE, started, []],
                [ENGINE, results, [b"y"]],
                [CLIENT, find, []],
            ],
            [
                [CLIENT, submit, [b"x"]],
                [ENGINE, failed, []],
                [CLIENT, ["request", 3, ["resubmit", ["t1"], ["t2"]]], []],
            ],
            [
                [CLIENT, submit, [b"x"]],
                [NANNY, ["enginedied", "u2", -9, 0, "t1", True], []],
                [CLIENT, ["watch", ["t1"]], []],
            ],
            [
                [CLIENT, submit, [b"x"]],
                [CLIENT, ["request", 4, ["abort", ["t1"], None, True]], []],
                [ENGINE, ["goodbye"], []],
            ],
            [[SUBMITTER, submit, [b"x"]], [READER, find, []], [READER, submit, []], [SUBMITTER, find, []]],
            [[STRANGER | PROVEN, hello, []], [STRANGER, find, []], [STRANGER, submit, [b"x"]]],
            [[STRANGER, hello, []], [STRANGER, ["ping", 1], []], [STRANGER, b"\xff\xff", []]],
        ]
        cases += [[[CLIENT, ["request", n, each], []] for n, each in enumerate(bodies)] for bodies in _questions()]
        return [msgspec.msgpack.encode(case) for case in [*found, *cases]]

    def run(self, case: bytes) -> None:
        try:
            steps = msgspec.msgpack.decode(case, type=list[tuple[int, Any, list[bytes]]])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self._complaints.records.clear()
        world = World(self.introductions, self._sqlite)
        for who, header, buffers in steps[:MOST_STEPS]:
            if (sent := _header(who, header)) is not None:
                world.step(who % PROVEN % len(_ROLES), sent, buffers)
        world.finish()
        self._complaints.check()


def _questions() -> list[list[Any]]:
    """Bodies of requests, a few in each case."""
    bodies = [samples.tree_of(each)[2] for each in samples.of("FromClient") if isinstance(each, Request)]
    return [bodies[at : at + 6] for at in range(0, len(bodies), 6)]


def _header(who: int, header: Any) -> bytes | None:
    """The bytes of a header; None: no message has it, as it cannot be encoded."""
    try:
        encoded = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    if who & PROVEN:
        try:
            hello = frames.decode_from_unknown(encoded)
        except ProtocolError:
            return encoded
        if isinstance(hello, Hello):
            return frames.encode(prove(hello, KEY.encode()))
    return encoded


class _Recorded(DictDB):
    """The store in memory. What is written goes into an SQLite file, too, and must be there as it is here."""

    def __init__(self, sqlite: SQLiteDB) -> None:
        super().__init__()
        self._sqlite = sqlite
        self._written: set[TaskId] = set()
        #: whether the file refused a value, or records were changed here alone
        self._differs = False

    def write(self, entries: Sequence[Entry]) -> None:
        super().write(entries)
        self._written.update(entry.id for entry in entries)
        try:
            self._sqlite.write(entries)
        except StoreRefused:
            self._differs = True

    def update_record(self, msg_id: TaskId, changes: Mapping[str, Any]) -> None:
        self._differs = True
        super().update_record(msg_id, changes)

    def drop_in_pieces(self, query: QueryDict) -> Iterator[int]:
        self._differs = True
        return super().drop_in_pieces(query)

    def drop_buffers(self, ids: Sequence[TaskId]) -> int:
        self._differs = True
        return super().drop_buffers(ids)

    def compare(self) -> None:
        """Raises Finding unless both have the same records. The file is empty then."""
        if not self._written:
            return
        wanted = [key for key in KEYS if key not in _NOT_COMPARED]
        here, there = (repr(store.find_records({}, wanted)) for store in (super(), self._sqlite))
        self._sqlite.drop_matching_records({})
        if here != there and not self._differs:
            raise Finding(f"memory has {here:.1000}, SQLite {there:.1000}")


class World:
    """A controller with a client, an engine, a nanny and two clients of lesser rights, all welcomed."""

    def __init__(self, introductions: Sequence[Any], sqlite: SQLiteDB) -> None:
        self._clock, self._store = VirtualClock(BEGIN), _Recorded(sqlite)
        self._network = VirtualNetwork(self._clock, lambda: None, lambda: None)
        machinery = VirtualMachinery(self._clock, 0, Random(0), lambda event, actions: None)
        self._liveness = LivenessSettings()
        self.controller = Controller(self._network, self._store, KEY, liveness=self._liveness, machinery=machinery)
        self.controller.recover()
        self._heard: list[list[Any]] = []
        self._ways = []
        self._checked: list[int] = []
        for number, introduction in enumerate(introductions):
            self._join(number, introduction)
        self.controller.turn()

    def _join(self, number: int, introduction: Any) -> None:
        heard: list[Any] = []
        self._heard.append(heard)
        self._checked.append(0)
        self._ways.append(self._network.way(b"%d" % number, heard.append))
        if introduction.hello.role:
            hello = LinkSession(introduction, 1.0, self._clock()).hello(self._clock(), lends=1)
            self._ways[number].send([frames.encode(hello)])

    def step(self, who: int, header: bytes, buffers: Sequence[bytes]) -> None:
        """Somebody sends a message."""
        self._ways[who].send([header, *map(memoryview, buffers)])
        self._pass(0.01)

    def _pass(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.controller.turn()

    def finish(self) -> None:
        """Let time pass, and check what must hold."""
        for _ in range(TURNS):
            self._pass(BETWEEN)
        check(self.controller.scheduler)
        for number, heard in enumerate(self._heard):
            self._check_heard(number, heard)
        if self.controller._stopping_until is None:
            self._check_service()
        self._pass(2 * self._liveness.allowed_silence)
        self._pass(1.0)
        check(self.controller.scheduler)
        self.controller.stop()
        self._pass(0.0)
        self.controller.close()
        self._store.compare()

    def _check_heard(self, number: int, heard: list[Any]) -> None:
        """What was sent to a peer, its decoder accepts. A stranger that was not let in hears only that."""
        decoded = []
        if number == STRANGER:
            if not heard:
                return
            try:
                first = frames.decode_to_client(bytes(heard[0][0]))
            except ProtocolError:
                first = frames.decode_to_engine(bytes(heard[0][0]))
            is_in = any(isinstance(self._of(each), Welcome) for each in heard)
            if not is_in and not isinstance(first, Refused | Pong):
                raise Finding(f"a stranger was sent {first!r:.300}")
            return
        for parts in heard:
            try:
                message = _TO[_ROLES[number]](bytes(parts[0]))
                decoded.append(message)
                if (tasks := getattr(message, "tasks", None)) and hasattr(tasks[0], "frames"):
                    frames.pick_all(tasks, parts[1:])
            except EngineroomError as error:
                raise Finding(f"a {_ROLES[number]} is sent what it cannot take: {bytes(parts[0])[:300]!r}") from error

    @staticmethod
    def _of(parts: Any) -> Any:
        for decode in _TO.values():
            try:
                return decode(bytes(parts[0]))
            except ProtocolError:
                continue
        return None

    def _check_service(self) -> None:
        """A client that comes now is welcomed, and answered."""
        number = len(self._heard)
        self._join(number, introduce("client", KEY, "a new client"))
        self._pass(BETWEEN)
        for n, body in enumerate((Sync(), FindRecords({}))):
            self._ways[number].send([frames.encode(Request(n, body))])
        for _ in range(TURNS):
            self._pass(BETWEEN)
        heard = [frames.decode_to_client(bytes(parts[0])) for parts in self._heard[number]]
        if not any(isinstance(each, Welcome) for each in heard):
            raise Finding(f"a new client is not welcomed: {heard!r:.300}")
        replies = {each.number: each.error for each in heard if isinstance(each, Reply)}
        if replies != {0: None, 1: None}:
            raise Finding(f"a new client is not answered: {replies!r:.500}")
