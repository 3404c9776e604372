"""Peers of a controller that only pretend: they speak its messages, in virtual time.

A `ClientPeer` submits tasks and takes in their outcomes; an `EnginePeer` runs tasks that take virtual time; a
`NannyPeer` tells how engines died. After the controller's restart each says Hello again, as the real ones do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal, Protocol

import msgspec

from .. import _version
from ..config import SchedulerSettings
from ..ids import ClientId, Digest, EngineId, EngineUuid, NannyId, TaskId, client_of
from ..messages import (
    Accepted,
    AttemptKey,
    Cancel,
    CheckProperties,
    EngineDied,
    ErrorInfo,
    Function,
    Goodbye,
    Hello,
    KillTask,
    Message,
    PropertiesChanged,
    PropertiesChecked,
    PropertyCheck,
    Recall,
    Rejected,
    Request,
    Results,
    ResultsUnavailable,
    Returned,
    Stop,
    Stored,
    Submit,
    TaskDone,
    TaskSpec,
    Watch,
    Welcome,
    pieces,
)
from ..messages import Run as RunMessage
from ..messages.bounds import Status
from ..transport import Frames
from ..wire import frames
from ..wire.input_cache import InputCache
from ..wire.session import prove
from .clock import VirtualClock
from .engine import FakeEngine
from .network import VirtualNetwork, Way

KEY = "key"
#: An engine sends what it has done when it is idle, or this long after it last did.
GATHER = 0.005
#: Engines have one property, a number below this; it changes every so often, on the mean after so many seconds.
LEVELS = 3
DRIFT = 0.2
#: A client asks again for what the controller could not give, after so many seconds, at most so often.
AGAIN = 0.5
PATIENCE = 100

_ERRORS = {
    "error": ErrorInfo("ValueError", "it raised"),
    "unmet": ErrorInfo("UnmetDependency", "not here"),
    "aborted": ErrorInfo("TaskAborted", "interrupted"),
    "overran": ErrorInfo("TaskTimeout", "it ran for too long"),
}


class Run(msgspec.Struct, frozen=True):
    """What an attempt of a task does if it is left alone."""

    seconds: float
    status: Status = "ok"  #: "ok", "error", or "unmet"
    is_deaf: bool = False  #: it does not heed an interruption


#: What a task does on an attempt, by its number.
Conduct = Callable[[TaskSpec, int], Run]


class World(Protocol):
    """What the peers know of the simulation."""

    clock: VirtualClock
    rng: Random
    network: VirtualNetwork
    settings: SchedulerSettings
    #: seconds that a message takes; each takes between half and one and a half of it
    latency: float
    #: all tasks there will be, and what they call
    specs: dict[TaskId, TaskSpec]
    functions: dict[Digest, Function]
    #: what came of it: virtual seconds at work by engine number, and what was asked for
    busy: Counter[int]
    asked: Counter[str]
    begun: int
    #: tasks that must not be begun a second time
    begun_once: set[TaskId]
    #: direct tasks, in the order in which their clients have submitted them → the engines that have begun them
    direct: dict[TaskId, set[EngineUuid]]

    def conduct(self, spec: TaskSpec, attempt: int) -> Run: ...

    def delay(self) -> float: ...

    def has_work(self) -> bool: ...

    def engine_ended(self, peer: EnginePeer) -> None: ...


def _hello(role: str, uuid: str, **more: Any) -> Hello:
    return prove(Hello(_version.PROTOCOL_VERSION, role, "", uuid, 1, "host", **more), KEY.encode())


def _runs_at_most_once(spec: TaskSpec) -> bool:
    return spec.options is not None and spec.options.at_most_once


# ---------------------------------------------------------------------------------------------- clients


class ClientPeer:
    """A client. Its messages take no time, and none is lost."""

    def __init__(self, world: World, uuid: ClientId) -> None:
        self._world, self.uuid = world, uuid
        self.address = f"client {uuid}".encode()
        self._way = world.network.way(self.address, self._hear)
        self._known = self._was_restarted = False
        self._told: set[Digest] = set()
        self._number = 0
        #: submissions that have not been accepted, by number
        self._unaccepted: dict[int, list[TaskSpec]] = {}
        #: those of them that the controller of before a restart was sent
        self._former: set[int] = set()
        self.tasks: dict[TaskId, TaskSpec] = {}
        self.outcomes: dict[TaskId, TaskDone] = {}
        self._gone: Counter[TaskId] = Counter()

    def submit(self, specs: Sequence[TaskSpec]) -> None:
        """Submit tasks, or submit them again."""
        resent = bool(specs) and specs[0].id in self.tasks
        self.tasks.update((spec.id, spec) for spec in specs)
        for spec in specs:
            if spec.engine >= 0:
                self._world.direct.setdefault(spec.id, set())
        numbers = []
        for some in pieces(specs):
            self._number += 1
            numbers.append(self._number)
            self._unaccepted[self._number] = list(some)
        if not self._known and len(self._unaccepted) > len(numbers):  # what was said before comes first
            self.reconnect()
            return
        self._greet()
        for number in numbers:
            self._submit(number, resent)

    def ask(self, body: Any) -> None:
        """CheckProperties something, and ignore the reply."""
        self._greet()
        self._send(Request(1, body))

    def restarted(self) -> None:
        """The controller has lost its memory; this client has not noticed yet."""
        self._known, self._was_restarted = False, True

    def reconnect(self) -> None:
        """It is time to notice that the controller was restarted, or that a message was lost."""
        self._known = False
        self._greet()
        for number in list(self._unaccepted):
            self._submit(number, resent=True)

    def _greet(self) -> None:
        """Say Hello, if it is the first time, and ask for the outcomes of tasks that were accepted."""
        if self._known:
            return
        self._known = True
        self._told.clear()
        if self._was_restarted:
            self._was_restarted = False
            self._former = set(self._unaccepted)
        self._send(_hello("client", self.uuid))
        waiting = {spec.id for specs in self._unaccepted.values() for spec in specs}
        accepted = [id for id in self.tasks if id not in self.outcomes and id not in waiting]
        for some in pieces(accepted):
            self._send(Watch(list(some)))

    def _submit(self, number: int, resent: bool) -> None:
        specs = self._unaccepted[number]
        new = {spec.function for spec in specs if spec.function} - self._told
        self._told |= new
        functions = [self._world.functions[digest] for digest in sorted(new)]
        self._send(Submit(number, specs, functions, resent, former=number in self._former))

    def _send(self, message: Message) -> None:
        self._way.send([frames.encode(message)])

    def _hear(self, parts: Frames) -> None:
        match frames.decode_to_client(parts[0]):
            case Accepted(numbers):
                for number in numbers:
                    self._unaccepted.pop(number, None)
            case Rejected(number, _, code):
                if number in self._unaccepted:
                    self._told.clear()
                    self._world.clock.later(0.0 if code == "functions" else AGAIN, lambda: self._again(number))
            case Results(tasks):
                for done in tasks:
                    self.outcomes.setdefault(done.id, done)
            case ResultsUnavailable(tasks, reason):
                for id in filter(self.tasks.__contains__, tasks):  # it may have asked twice
                    self._gone[id] += 1
                    assert self._gone[id] < PATIENCE, f"{id} cannot be waited for: {reason}"
                again = [id for id in tasks if id in self.tasks]
                if again:
                    self._world.clock.later(AGAIN, lambda: self._send(Watch(again)))

    def _again(self, number: int) -> None:
        if number in self._unaccepted:
            self._submit(number, resent=True)


# ---------------------------------------------------------------------------------------------- engines


class EnginePeer:
    """An engine, and the way to it."""

    def __init__(
        self,
        world: World,
        uuid: EngineUuid,
        nanny: NannyPeer,
        wish: EngineId,
        resources: Mapping[str, Sequence[int]],
    ) -> None:
        self._world, self._nanny = world, nanny
        self.engine = FakeEngine(wish, uuid)
        self.resources = resources
        self.address = f"engine {uuid}".encode()
        self._way: Way = world.network.way(self.address, self._hear, world.delay)
        self.is_alive = True
        self._done: list[TaskDone] = []
        #: messages that have come since the Welcome to the last Hello; -1: it has not come
        self._received = -1
        self._hellos = 0
        #: the tasks that run at most once and that it has begun
        self.begun: list[TaskId] = []
        self._sent = 0.0
        #: the functions it has, and the results of other tasks
        self._functions: set[Digest] = {Digest(b"")}
        self._values: InputCache[None] = InputCache()
        #: its property, and the functions it has been asked about
        self._level = 0
        self._questions: dict[Digest, None] = {}
        #: what it is running since when
        self._run = Run(0.0)
        self._began = 0.0

    # ------------------------------------------------------------------------------------------ messages

    def hello(self) -> None:
        """Say Hello, for the first time or again, and send the results that are not known to be stored."""
        if not self.is_alive:
            return
        self._received = -1
        self._hellos += 1
        held = [*self.engine.held, *(AttemptKey(done.id, done.attempt) for done in self._done)]
        resources = {name: list(indices) for name, indices in self.resources.items()}
        self._send(
            _hello(
                "engine",
                self.engine.uuid,
                nanny=self._nanny.uuid,
                wish=self.engine.id,
                held=held,
                resources=resources,
                number=self._hellos,
                stored=self.engine.last_stored,
            )
        )
        self.send_unstored()

    def send_unstored(self) -> None:
        """Send results that have not been acknowledged once more."""
        for number, results in self.engine.unstored.items():
            self._send(Results(results, number))

    def cut(self) -> None:
        """What is on its way, both ways, is lost."""
        self._way.cut()

    def _send(self, message: Message) -> None:
        self._way.send([frames.encode(message)])

    def _hear(self, parts: Frames) -> None:
        message = frames.decode_to_engine(parts[0])
        if self._received >= 0:
            self._received += 1
        match message:
            case Welcome() as welcome:
                if welcome.hello == self._hellos:
                    self._received = 0
                self.engine.id = welcome.engine
                self._values.clear()
            case RunMessage() as run:
                if self._received == run.sent:
                    self._receive(run)
                elif self._received >= 0:
                    self.hello()  # something was lost before it
            case Recall(tasks):
                self._send(Returned(self.engine.give_back(set(tasks))))
            case Cancel(tasks):
                self._cancel(set(tasks))
            case CheckProperties(digests, functions):
                self._functions.update(function.digest for function in functions)
                self._questions.update(dict.fromkeys(digests))
                self._work()
            case Stored(number):
                self.engine.stored(number)
            case Stop():
                if not self.engine.leaving:
                    self.engine.leaving = True
                    self._work()

    def _receive(self, run: RunMessage) -> None:
        """What a task needs must be here, or come with it."""
        self._functions.update(function.digest for function in run.functions)
        inputs = [id for spec in run.tasks if spec.options is not None for id in spec.options.inputs]
        if inputs:
            there = self._values.use(inputs, {value.id: (len(value.payload), None) for value in run.values})
            missing = [id for id in inputs if id not in there]
            assert not missing, f"a task came without its arguments {missing}"
        for spec in run.tasks:
            assert spec.function in self._functions, f"task {spec.id} came without its function"
        self.engine.receive(AttemptKey(spec.id, attempt) for spec, attempt in zip(run.tasks, run.attempts, strict=True))
        self._work()

    def _cancel(self, ids: set[TaskId]) -> None:
        self._send(Returned(self.engine.give_back(ids)))
        running = self.engine.running
        if running is not None and running.id in ids and not self._run.is_deaf:
            self._world.asked["interruptions"] += 1
            self._finish(running, "aborted")

    # ------------------------------------------------------------------------------------------ its property

    def drift(self) -> None:
        """The engine's property changes, again and again, as long as there is work."""
        if self.is_alive and self._world.has_work():
            self._level = self._world.rng.randrange(LEVELS)
            self._send(PropertiesChanged())
            self._world.clock.later(self._world.rng.expovariate(1 / DRIFT), self.drift)

    def _against(self, function: Digest) -> str:
        """What the property has against tasks with a function: its pickle is the level that they need."""
        return "" if self._level >= int(self._world.functions[function].payload) else "its level is too low"

    def _look_at_properties(self) -> None:
        """Between two tasks: answer questions, and give back what the property does not allow any more."""
        engine, specs = self.engine, self._world.specs
        if engine.running is not None or engine.leaving:
            return
        answers = {function: self._against(function) for function in self._questions}
        self._questions.clear()
        back: list[AttemptKey] = []
        while engine.queue:
            spec = specs[engine.queue[0].id]
            if spec.options is None or not spec.options.depend or not (why := self._against(spec.function)):
                break
            answers[spec.function] = why
            back += engine.give_back([held.id for held in engine.queue if specs[held.id].function == spec.function])
        if answers:
            self._send(PropertiesChecked([PropertyCheck(function, why) for function, why in answers.items()]))
        if back:
            self._send(Returned(back))

    # ------------------------------------------------------------------------------------------ work

    def _work(self) -> None:
        engine, world = self.engine, self._world
        self._look_at_properties()
        held = engine.begin()
        if held is None:
            if engine.running is None:
                self._flush()
                if engine.leaving:
                    self._leave()
            return
        world.begun += 1
        spec = world.specs[held.id]
        if spec.engine >= 0:
            self._begin_direct(spec)
        if _runs_at_most_once(spec):
            assert spec.id not in world.begun_once, f"{spec.id} is begun a second time"
            world.begun_once.add(spec.id)
            self.begun.append(spec.id)
        self._run, self._began = run, _ = world.conduct(spec, held.attempt), world.clock()
        limit = spec.options.run_timeout if spec.options is not None else None
        if limit is not None and run.seconds > limit:
            world.clock.later(limit, lambda: self._overran(held))
        world.clock.later(run.seconds, lambda: self._finish(held, run.status))

    def _begin_direct(self, spec: TaskSpec) -> None:
        """Direct tasks begin in order: nothing that was submitted later by its client for this engine has begun.

        That holds for a second time, too, unless the task is tried again, or the engine is another one.
        """
        id, direct, client, uuid = spec.id, self._world.direct, client_of(spec.id), self.engine.uuid
        begun = direct[id]
        if not begun or spec.options is None or not spec.options.retries:
            order = list(direct)
            later = order[order.index(id) + 1 :]
            here = [o for o in later if (uuid in direct[o] if begun else direct[o]) and client_of(o) == client]
            overtook = [other for other in here if self._world.specs[other].engine == self.engine.id]
            again = " again" if begun else ""
            assert not overtook, f"{overtook} were begun before {id}{again}, which was submitted first"
        begun.add(uuid)

    def _finish(self, held: AttemptKey, status: Status | Literal["overran"]) -> None:
        """The running task ends, unless it has ended otherwise."""
        if not self.is_alive or self.engine.running is not held:
            return
        now, error = self._world.clock(), _ERRORS.get(status)
        self._world.busy[self.engine.id] += now - self._began  # type: ignore[assignment]
        done = self.engine.finish(self._began, now, "error" if status == "overran" else status, error)
        if done.status == "ok":
            done.payload = b"a result"
        self._done.append(done)
        if now - self._sent > GATHER:
            self._flush()
        self._work()

    def _flush(self) -> None:
        if self._done:
            results, self._done = self._done, []
            self._sent = self._world.clock()
            number = self.engine.hand_in(results)
            self._send(Results(results, number))

    # ------------------------------------------------------------------------------------------ its end

    def _overran(self, held: AttemptKey) -> None:
        """A task has used up its run_timeout: it is interrupted, and killed if that does not help."""
        world = self._world
        if not self._run.is_deaf:
            self._finish(held, "overran")
        elif self.is_alive and self.engine.running is held:
            world.clock.later(world.settings.cancel_grace, lambda: self.kill(held, overran=True))

    def kill(self, held: AttemptKey, *, overran: bool = False) -> None:
        """Kill the engine if it is running this; its nanny tells the controller."""
        if self.is_alive and self.engine.running is held:
            self._world.asked["kills"] += 1
            self.end()
            self._nanny.tell(self, held.id, overran=overran)

    def _leave(self) -> None:
        """Give back what has not started, and go."""
        self._send(Returned(self.engine.give_back()))
        self._send(Goodbye())
        self.end()

    def end(self) -> None:
        """The process ends."""
        if self.engine.running is not None:
            self._world.busy[self.engine.id] += self._world.clock() - self._began  # type: ignore[assignment]
        self.is_alive = False
        self._way.close()
        self._world.engine_ended(self)


# ---------------------------------------------------------------------------------------------- the nanny


class NannyPeer:
    """The nanny of all engines. Its messages take no time, and none is lost."""

    uuid = NannyId("nanny")
    address = b"nanny"

    def __init__(self, world: World, engine_of: Callable[[EngineUuid], EnginePeer | None]) -> None:
        self._world, self._engine_of = world, engine_of
        self._way = world.network.way(self.address, self._hear)

    def hello(self) -> None:
        """Say Hello."""
        self._send(_hello("nanny", self.uuid))

    def tell(self, engine: EnginePeer, running: TaskId | None, *, overran: bool = False, after: float = 0.0) -> None:
        """Tell that an engine has died, once everything that it has sent has arrived."""
        died = EngineDied(engine.engine.uuid, -9, 0, running, True, "killed", overran, engine.begun)
        self._world.clock.later(after + 2 * self._world.latency, lambda: self._send(died))

    def _send(self, message: Message) -> None:
        self._way.send([frames.encode(message)])

    def _hear(self, parts: Frames) -> None:
        message = frames.decode_to_nanny(parts[0])
        if isinstance(message, KillTask):
            self._world.clock.later(self._world.delay(), lambda: self._kill(message))

    def _kill(self, message: KillTask) -> None:
        peer = self._engine_of(message.engine)
        running = peer.engine.running if peer is not None else None
        if peer is not None and running is not None and running.id == message.task:
            peer.kill(running)
