"""`replay`: a recorded history once more, in virtual time, with another scheme, hwm or number of engines.

Tasks come when they came, take as long as they took, fail where they failed, and wait for the tasks they waited for.
Engines do not die, and messages take a realistic time. What the recorded cluster spent on anything else shows in the
difference between what was recorded and the replay with as many engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ..config import SchedulerSettings
from ..errors import ConfigError
from ..ids import Digest, EngineId, TaskId
from ..messages import GraphDependency, TaskOptions, TaskSpec
from ..records.database_urls import file_of
from ..records.states import STATUS_OF_STATE
from ..stores import SQLiteDB
from .peers import Run
from .virtual import SETTLED, VirtualCluster

#: What is read of a record.
KEYS = (
    "msg_id", "state", "header", "submitted", "started", "completed", "client_uuid", "engine_id", "queue", "attempts",
)  # fmt: skip
#: Tasks of a client that came within this many seconds come together.
TOGETHER = 0.001

_OPTIONS = ("targets", "after", "follow", "priority", "resources", "scheme", "inputs")


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One course of events: as it was recorded, or as it was replayed."""

    engines: int
    makespan: float  #: seconds from the first submission to the last end
    waited: float  #: mean seconds from the submission of a task to the start of its last attempt
    utilisation: dict[int, float]  #: engine number → the part of the makespan that it was at work

    @property
    def busy(self) -> float:
        """The part of the makespan that an engine was at work, on average."""
        return sum(self.utilisation.values()) / self.engines


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay."""

    tasks: int
    left_out: int  #: records of tasks that never ran, or have not ended
    recorded: History
    baseline: History  #: replayed with as many engines, and the default scheme and hwm
    replayed: History  #: … with what was asked for
    not_run: int  #: tasks that would not have run at all

    @property
    def difference(self) -> float:
        """Seconds by which the makespan differs from the baseline; negative: it is shorter."""
        return self.replayed.makespan - self.baseline.makespan


def replay(
    records: str | Path | Iterable[Mapping[str, Any]],
    *,
    engines: int | None = None,
    scheme: str | None = None,
    hwm: int | None = None,
    seed: int = 0,
) -> Replay:
    """Replay a recorded history.

    Parameters
    ----------
    records : path, URL or iterable of records
        A task database ("sqlite:///…" or the path of its file), or records, as `db_query` returns them, with the keys
        `engineroom.testing.replay.KEYS`.
    engines : int
        How many there are; by default as many as ran any of the tasks. If there are fewer or more, each stands for
        one or several of the recorded ones, with their resources.
    scheme : str
        Who chooses engines, also for tasks that named another; by default leastload, or whom they named.
    hwm : int
        Tasks outstanding per engine; None: adaptive.
    seed : int
        Decides what is left to chance.

    Raises
    ------
    ConfigError
        There is nothing to replay, or `engines` is less than one, or there is no such scheme.
    StoreError
        The database cannot be read.
    """
    if engines is not None and engines < 1:
        raise ConfigError(f"a replay needs one engine or more, got {engines}")
    found = _read(records) if isinstance(records, str | Path) else list(records)
    past = _Past(found)
    baseline, _ = past.run(past.count, SchedulerSettings(), seed)
    if engines is None and scheme is None and hwm is None:
        return past.report(baseline, baseline, 0)
    settings = SchedulerSettings(scheme=scheme or "leastload", hwm=hwm)
    replayed, not_run = past.run(engines or past.count, settings, seed, keep_schemes=scheme is None)
    return past.report(baseline, replayed, not_run)


def _read(database: str | Path) -> list[Mapping[str, Any]]:
    store = SQLiteDB.open_readonly(file_of(str(database)) or Path(database))
    try:
        return list(store.find_records({"started": {"$ne": None}}, KEYS))
    finally:
        store.close()


class _Past:
    """The recorded history, ready to be replayed."""

    def __init__(self, found: Sequence[Mapping[str, Any]]) -> None:
        ran = [record for record in found if _has_run(record)]
        if not ran:
            raise ConfigError(f"there is nothing to replay: of {len(found)} records, none is of a task that has run")
        self.records = sorted(ran, key=lambda record: record["submitted"])
        self.left_out = len(found) - len(ran)
        self._known = {record["msg_id"] for record in ran}
        self._begin: datetime = self.records[0]["submitted"]
        self._runs = {record["msg_id"]: list(_runs(record)) for record in ran}
        #: recorded engine number → its number in the replay
        self._place = {id: n for n, id in enumerate(sorted({record["engine_id"] for record in ran}))}

    @property
    def count(self) -> int:
        """How many engines there were."""
        return len(self._place)

    def report(self, baseline: History, replayed: History, not_run: int) -> Replay:
        """All of it."""
        return Replay(
            tasks=len(self.records),
            left_out=self.left_out,
            recorded=self._recorded(),
            baseline=baseline,
            replayed=replayed,
            not_run=not_run,
        )

    def _recorded(self) -> History:
        records, busy = self.records, Counter[int]()
        for record in records:
            busy[record["engine_id"]] += sum(run.seconds for run in self._runs[record["msg_id"]])  # type: ignore[assignment]
        makespan = (max(record["completed"] for record in records) - self._begin).total_seconds()
        waits = [(record["started"] - record["submitted"]).total_seconds() for record in records]
        return History(
            engines=self.count,
            makespan=makespan,
            waited=sum(waits) / len(waits),
            utilisation={id: busy[id] / makespan if makespan else 0.0 for id in self._place},
        )

    def run(
        self, engines: int, settings: SchedulerSettings, seed: int, *, keep_schemes: bool = True
    ) -> tuple[History, int]:
        """Replay it; returns what came of it, and how many tasks could not run."""
        cluster = VirtualCluster(
            engines,
            self._conduct,
            resources=self._resources(engines),
            settings=settings,
            seed=seed,
            check_every=0,
        )
        batches: list[tuple[float, str, list[TaskSpec]]] = []
        for record in self.records:
            moment = (record["submitted"] - self._begin).total_seconds()
            spec = self._spec(record, moment, engines, keep_schemes)
            if batches and batches[-1][1] == record["client_uuid"] and moment - batches[-1][0] < TOGETHER:
                batches[-1][2].append(spec)
            else:
                batches.append((moment, record["client_uuid"], [spec]))
        for batch in batches:
            cluster.plan(*batch)
        cluster.run()
        done = [d for d in cluster.done.values() if d.started is not None]
        makespan = max((d.completed for d in done), default=SETTLED) - SETTLED
        waits = [d.started - SETTLED - cluster.specs[d.id].submitted for d in done if d.started is not None]
        history = History(
            engines=engines,
            makespan=makespan,
            waited=sum(waits) / len(waits) if waits else 0.0,
            utilisation={n: cluster.busy.get(n, 0.0) / makespan if makespan else 0.0 for n in range(engines)},
        )
        return history, len(self.records) - len(done)

    def _conduct(self, spec: TaskSpec, attempt: int) -> Run:
        runs = self._runs[spec.id]
        return runs[min(attempt, len(runs)) - 1]

    def _resources(self, engines: int) -> list[dict[str, list[int]]]:
        """What the engines must have had, to run what they ran."""
        has: list[dict[str, list[int]]] = [{} for _ in range(engines)]
        for record in self.records:
            place = self._place[record["engine_id"]]
            for number in {place % engines, *range(place, engines, self.count)}:
                for name, amount in (record["header"].get("resources") or {}).items():
                    has[number][name] = max(has[number].get(name, []), list(range(amount)), key=len)
        return has

    def _spec(self, record: Mapping[str, Any], moment: float, engines: int, keep_schemes: bool) -> TaskSpec:
        id, header = TaskId(record["msg_id"]), record["header"]
        if record["queue"] == "mux":
            return TaskSpec(id, Digest(b""), b"", moment, self._now(record["engine_id"], engines))
        wishes = {name: header[name] for name in _OPTIONS if header.get(name)}
        if not keep_schemes:
            wishes.pop("scheme", None)
        options = msgspec.convert(wishes, TaskOptions)
        targets = tuple(dict.fromkeys(self._now(t, engines) for t in options.targets or () if t in self._place))
        failures = sum(run.status == "error" for run in self._runs[id][:-1])
        options = msgspec.structs.replace(
            options,
            retries=failures,
            targets=targets or None,
            after=self._still_known(options.after),
            follow=self._still_known(options.follow),
            inputs=tuple(i for i in options.inputs if i in self._known),
        )
        return TaskSpec(id, Digest(b""), b"", moment, options=options if options != TaskOptions() else None)

    def _now(self, recorded: int, engines: int) -> EngineId:
        """The engine that stands for a recorded one."""
        return EngineId(self._place[recorded] % engines)

    def _still_known(self, dependency: GraphDependency | None) -> GraphDependency | None:
        """Without tasks from before, and tasks that never ran."""
        if dependency is None:
            return None
        tasks = tuple(id for id in dependency.tasks if id in self._known)
        return msgspec.structs.replace(dependency, tasks=tasks) if tasks else None


def _has_run(record: Mapping[str, Any]) -> bool:
    times = ("submitted", "started", "completed")
    return (
        record["state"] in STATUS_OF_STATE
        and record["engine_id"] is not None
        and all(record[time] is not None for time in times)
    )


def _runs(record: Mapping[str, Any]) -> Iterable[Run]:
    """What the attempts of a task did, but for those that an engine refused, or died of."""
    for attempt in (record["attempts"] or ())[:-1]:
        started, ended, cause = attempt["started"], attempt["ended"], attempt["cause"]
        if not attempt["traceback"] or cause.startswith("UnmetDependency"):
            continue  # its engine died, and left no traceback; or refused it
        if started is not None and ended is not None:
            yield Run(max(0.0, (ended - started).total_seconds()), "error")
    yield Run(max(0.0, (record["completed"] - record["started"]).total_seconds()), STATUS_OF_STATE[record["state"]])
