"""A whole cluster in virtual time: the real controller, pretended engines, messages that take their time or get lost.

    ClientPeer ──▶ VirtualNetwork ──▶ Controller (loop, intake, core, outbox) ──▶ VirtualNetwork ──▶ EnginePeer
                                           └──▶ VirtualWriter, VirtualReader ──▶ VirtualStore

The controller is the one that runs clusters; only its clock, its network, its store and the threads around that are
others (`machinery.py`). What is promised to a task (that what it depends on has ended, where it may run) is checked
whenever the core decides to send one; that its function and its arguments came with it, when an engine receives it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from ..config import LivenessSettings, SchedulerSettings
from ..controller.loop import Controller
from ..controller.presence.roster import Roster
from ..core import Scheduler, actions, events
from ..core.checks import check, check_at_rest
from ..core.tasks import Task
from ..errors import StoreError
from ..ids import ClientId, Digest, EngineId, EngineUuid, TaskId, digest_of
from ..messages import Abort, Function, GraphDependency, StopEngines, TaskDone, TaskSpec
from .clock import VirtualClock
from .machinery import VirtualMachinery, VirtualStore
from .network import VirtualNetwork
from .peers import KEY, ClientPeer, Conduct, EnginePeer, NannyPeer, Run

#: By now the first engines have come, and submissions begin.
SETTLED = 0.1
#: How long a restarted controller waits for its engines.
GRACE = 1.0
#: Nothing takes this many virtual seconds unless it takes for ever.
FOR_EVER = 1e7

_LIVENESS = LivenessSettings(ping_interval=100 * FOR_EVER, allowed_silence=100 * FOR_EVER, recovery_grace=GRACE)


class VirtualCluster:
    """A controller, its store, and engines.

    Parameters
    ----------
    engines : int
        How many.
    conduct : callable
        `conduct(spec, attempt)` says what an attempt does: a `Run`.
    resources : sequence of dict
        The indices of named resources that each of the first engines has; the others have none.
    settings : SchedulerSettings
        Of the scheduler under test.
    seed : int
        Decides everything that is left to chance.
    latency : float
        Seconds a message takes; each takes between half and one and a half of it, and none overtakes another.
    check_every : int
        Check the scheduler's invariants after every so many events. A check looks at all tasks. 0: only at the end.
    watch : callable
        Told every action before it is performed.

    Attributes
    ----------
    done : dict
        The outcomes so far: msg_id → TaskDone.
    busy : dict
        Virtual seconds at work, by engine number.
    """

    def __init__(
        self,
        engines: int,
        conduct: Conduct,
        *,
        resources: Sequence[Mapping[str, Sequence[int]]] = (),
        settings: SchedulerSettings | None = None,
        seed: int = 0,
        latency: float = 0.0005,
        check_every: int = 1,
        watch: Callable[[actions.Action], None] | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.settings = settings or SchedulerSettings()
        self.latency = latency
        self._conduct, self._check_every, self._watch = conduct, check_every, watch
        self.network = VirtualNetwork(self.clock, self._turn, self._plan_turn)
        self.store = VirtualStore()
        #: whether operations of the store and sends may fail: then the controller may log errors
        self.faulty = False
        self._complaints = _Complaints()
        self._failure: BaseException | None = None  # something that must hold did not: the controller goes on
        self._turn_at: float | None = None
        self._last_planned = 0.0
        # the peers
        self.links: list[EnginePeer] = []  # engines that live
        self._peers: dict[EngineUuid, EnginePeer] = {}
        self._users: dict[ClientId, ClientPeer] = {}
        self._nanny = NannyPeer(self, self._peers.get)
        self._reconnects: dict[bytes, Callable[[], None]] = {self._nanny.address: self._nanny.hello}
        #: called when an engine has come
        self.on_start: Callable[[EnginePeer], None] = lambda link: None
        # what happened
        self.specs: dict[TaskId, TaskSpec] = {}  # all there will be
        self.functions: dict[Digest, Function] = {}
        self.clients: dict[TaskId, ClientId] = {}  # of those that have come
        self.done: dict[TaskId, TaskDone] = {}
        self._unrecorded: dict[TaskId, TaskDone] = {}  # outcomes that a restart has cost
        self._ran_on: dict[TaskId, set[EngineUuid]] = {}  # in any life of the controller
        self.events = self.begun = 0
        self.direct: dict[TaskId, set[EngineUuid]] = {}
        self.begun_once: set[TaskId] = set()  # tasks that must not be begun a second time
        self.busy: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.submitted = 0.0  # when the first task came
        self.ended = 0.0  # when the last one ended
        self._roster = Roster()
        self._begin(seed, restarted=False)
        for number in range(engines):
            self.start_engine(
                EngineId(number),
                self.rng.uniform(0, 0.9 * SETTLED),
                resources[number] if number < len(resources) else {},
            )

    # ------------------------------------------------------------------------------------------ its users

    def plan(self, moment: float, client: str, specs: Sequence[TaskSpec]) -> None:
        """Have a client submit tasks, this many seconds after the engines have come."""
        specs = [self._with_function(spec) for spec in specs]
        self.specs.update((spec.id, spec) for spec in specs)
        self._last_planned = max(self._last_planned, moment)
        self.clock.at(SETTLED + moment, lambda: self.submit(ClientId(client), specs))

    def submit(self, client: ClientId, specs: Sequence[TaskSpec]) -> None:
        """A client submits tasks that are planned, for the first time or again."""
        if not self.clients:
            self.submitted = self.clock()
        self.clients.update((spec.id, client) for spec in specs)
        self._user(client).submit([self.specs[spec.id] for spec in specs])

    def abort(self, ids: Sequence[TaskId], running: bool = False) -> None:
        """A client asks to abort tasks; `running`: those that have started, too."""
        self._user(ClientId("somebody")).ask(Abort(list(ids), None, running))

    def run(self) -> None:
        """Let time pass until everything has ended, and nothing is left to do.

        Raises
        ------
        AssertionError
            Something that must hold did not.
        """
        with self._complaints:
            while self.clock.step():
                assert self.clock() < self._last_planned + FOR_EVER, (
                    f"{len(self.specs) - len(self.done)} tasks wait for ever"
                )
        check(self.scheduler)
        assert len(self.done) == len(self.specs), f"{len(self.specs) - len(self.done)} tasks wait for ever"
        check_at_rest(self.scheduler)
        assert not self.controller.values.bytes, "results are kept that nobody wants"
        for link in self.links:
            assert not link.engine.held, f"engine {link.engine.id} still holds {link.engine.held}"
        for user in self._users.values():
            untold = [id for id in user.tasks if id not in user.outcomes]
            assert not untold, f"{len(untold)} outcomes never came to their client: {untold[:3]}"
        unrecorded = [id for id in self.done if (entry := self.store.kept.get(id)) is None or entry.done is None]
        assert not unrecorded, f"{len(unrecorded)} outcomes are not recorded: {unrecorded[:3]}"

    def has_work(self) -> bool:
        """Whether there are tasks that have not ended."""
        return len(self.done) < len(self.specs)

    def conduct(self, spec: TaskSpec, attempt: int) -> Run:
        """What an attempt does."""
        return self._conduct(spec, attempt)

    def delay(self) -> float:
        """How long a message takes."""
        return self.latency * self.rng.uniform(0.5, 1.5)

    def _user(self, client: ClientId) -> ClientPeer:
        if client not in self._users:
            self._users[client] = user = ClientPeer(self, client)
            self._reconnects[user.address] = user.reconnect
        return self._users[client]

    def _with_function(self, spec: TaskSpec) -> TaskSpec:
        """The function's name becomes its content: the controller looks at the digests of functions."""
        name = spec.function
        if not name or name in self.functions:
            return spec
        function = Function(digest_of(bytes(name)), bytes(name))
        self.functions[function.digest] = function
        return msgspec.structs.replace(spec, function=function.digest)

    # ------------------------------------------------------------------------------------------ the controller

    @property
    def scheduler(self) -> Scheduler:
        """The core of the controller."""
        return self.controller.scheduler

    def _begin(self, seed: int, *, restarted: bool) -> None:
        """A life of the controller begins. After one restart of two it knows which engines were connected before."""
        known = self._roster.listed if restarted and seed % 2 else None
        self._roster = Roster(former=known)
        self._machinery = VirtualMachinery(self.clock, seed, self.rng, self._observe)
        self.controller = Controller(
            self.network,
            self.store,
            KEY,
            scheduler=self.settings,
            liveness=_LIVENESS,
            restarted=restarted,
            roster=self._roster,
            machinery=self._machinery,
        )
        self.controller.recover()
        self._nanny.hello()

    def _plan_turn(self) -> None:
        self._turn_by(self.clock())

    def _turn_by(self, moment: float) -> None:
        if moment < FOR_EVER * 10 and (self._turn_at is None or moment < self._turn_at):
            self._turn_at = moment
            self.clock.at(moment, lambda: self._turn() if self._turn_at == moment else None)

    def _turn(self) -> None:
        """The controller takes a turn: something has arrived, was posted, or is due."""
        self._turn_at = None
        self.controller.turn()
        if self._failure is not None:
            raise self._failure
        assert self.faulty or not self._complaints.texts, f"the controller complains: {self._complaints.texts[0]}"
        due = self.controller.due
        assert due > self.clock(), "time has come, but nothing came of it: the loop would spin"
        self._turn_by(due)

    def _observe(self, event: events.Event, todo: list[actions.Action]) -> None:
        """The core has decided; its actions are about to be performed."""
        self.events += 1
        try:
            self._note_outcomes(todo)
            for action in todo:
                if self._watch is not None:
                    self._watch(action)
                self._check(action)
            if self._check_every and self.events % self._check_every == 0:
                check(self.scheduler)
        except BaseException as error:
            self._failure = self._failure or error
            raise

    def _note_outcomes(self, todo: Iterable[actions.Action]) -> None:
        for action in todo:
            if isinstance(action, actions.EndTasks):
                for ended in action.tasks:
                    done = ended.done
                    before = self.done.get(done.id)
                    assert before is None, f"{ended.task} ends a second time: {done}, before: {before}"
                    self.done[done.id] = done
                    engine = self.scheduler.engines.get(done.engine)
                    if engine is not None:
                        self._ran_on.setdefault(done.id, set()).add(engine.uuid)
                    self.ended = self.clock()

    def _check(self, action: actions.Action) -> None:
        match action:
            case actions.SendTasks(engine, tasks):
                self._promised(engine, tasks)
            case actions.AskEngine(_, functions):
                self.asked["properties"] += len(functions)
            case actions.FindOutcomes(ids):
                self.asked["outcomes"] += len(ids)
            case actions.RecordTasks(tasks):
                for task in tasks:
                    assert task.id in self.clients

    # ------------------------------------------------------------------------------------------ promises

    def _promised(self, engine: EngineId, tasks: Iterable[Task]) -> None:
        """What a task may rely on when it is sent to an engine."""
        for task in tasks:
            options = task.spec.options
            if options is None:
                continue
            uuid = self.scheduler.engines[engine].uuid
            assert options.targets is None or engine in options.targets, f"{task} is not for engine {engine}"
            for name, amount in (options.resources or {}).items():
                has = len(self.scheduler.engines[engine].resources.get(name, ()))
                assert has >= amount, f"{task} needs {name}={amount}, engine {engine} has {has}"
            if options.after is not None:
                assert self._is_met(options.after), f"{task} is sent before its time"
            if options.follow is not None and options.follow.tasks:
                assert self._is_met(options.follow), f"{task} is sent before its time"
                counting = [id for id in options.follow.tasks if self._counts(options.follow, id)]
                where = set[EngineUuid]().union(*(self._ran_on.get(id, ()) for id in counting))
                assert uuid in where, f"{task} follows tasks that ran on {where}, and is sent to {uuid}"

    def _counts(self, dependency: GraphDependency, id: TaskId) -> bool:
        outcomes = [done for known in (self.done, self._unrecorded) if (done := known.get(id)) is not None]
        return any(dependency.success if done.status == "ok" else dependency.failure for done in outcomes)

    def _is_met(self, dependency: GraphDependency) -> bool:
        counts = [self._counts(dependency, id) for id in dependency.tasks]
        return all(counts) if dependency.all else any(counts) or not counts

    # ------------------------------------------------------------------------------------------ engines

    def start_engine(self, wish: EngineId, delay: float, resources: Mapping[str, Sequence[int]]) -> None:
        """Have an engine come; it would like this number."""
        uuid = EngineUuid(f"u{len(self._peers)}")
        link = self._peers[uuid] = EnginePeer(self, uuid, self._nanny, wish, resources)
        self._reconnects[link.address] = link.hello

        def start() -> None:
            self.links.append(link)
            link.hello()
            if any(spec.options is not None and spec.options.depend for spec in self.specs.values()):
                link.drift()
            self.on_start(link)

        self.clock.later(delay, start)

    def engine_ended(self, peer: EnginePeer) -> None:
        """Another engine takes the place of one that has ended."""
        self.links.remove(peer)
        self.start_engine(peer.engine.id, self.rng.uniform(0.01, 0.5), peer.resources)

    # ------------------------------------------------------------------------------------------ faults

    def die(self, link: EnginePeer) -> None:
        """An engine ends without a word; the controller notices some time later, and may not know what it ran."""
        running, uuid = link.engine.running, link.engine.uuid
        link.end()
        after = self.rng.uniform(0, 0.2)
        if self.rng.random() < 0.5:
            self._nanny.tell(link, running.id if running is not None else None, after=after)
        else:
            self.clock.later(after + 2 * self.latency, lambda: self._machinery.process_ended(uuid))

    def cut(self, link: EnginePeer) -> None:
        """What is on its way, both ways, is lost; the engine notices some time later."""
        link.cut()
        self.clock.later(self.rng.uniform(0, 0.2), link.hello)

    def stop(self, link: EnginePeer) -> None:
        """An engine is asked to leave."""
        self._user(ClientId("somebody")).ask(StopEngines([link.engine.id]))

    def fail(self, number: int) -> None:
        """The operation with this number fails: operations are reads and writes of the store, and sends to peers.

        A peer that a message did not reach notices some time later, as a real one does that counts messages.
        """
        self.faulty = True
        self.operations: list[str] = []

        def happens(name: str) -> None:
            self.operations.append(name)
            if len(self.operations) == number:
                raise StoreError(f"operation {number} fails: {name}")

        def send(address: bytes) -> None:
            try:
                happens(f"send to {address.decode()}")
            except StoreError as error:
                self.clock.later(self.rng.uniform(0, 0.2), self._reconnects[address])
                raise OSError(str(error)) from None

        self.store.fault, self.network.fault = happens, send

    def restart(self) -> None:
        """The controller dies, and another one begins with what the store holds."""
        self._machinery.kill()
        self.network.forget_arrived()
        kept = self.store.kept
        for id in [id for id in self.done if (entry := kept.get(id)) is None or entry.done is None]:
            self._unrecorded[id] = self.done.pop(id)  # the task runs again, and may end otherwise
        for user in self._users.values():
            user.restarted()
        self._begin(self.rng.randrange(1 << 30), restarted=True)
        for user in list(self._users.values()):
            self.clock.later(self.rng.uniform(0, 0.2 * GRACE), user.reconnect)
        for link in self.links:
            link.cut()
            self.clock.later(self.rng.uniform(0, 1.2 * GRACE), link.hello)


class _Complaints(logging.Handler):
    """What the controller logs as an error, while it is entered; all else that it logs goes nowhere."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []
        self._logger = logging.getLogger("engineroom.controller")

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def __enter__(self) -> None:
        self._before = self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self)

    def __exit__(self, *_: Any) -> None:
        self._logger.propagate = self._before
        self._logger.removeHandler(self)


