"""The words in which stories about the scheduler are told: events in, actions out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engineroom.config import SchedulerSettings
from engineroom.core import Scheduler, actions
from engineroom.core.checks import check
from engineroom.core.events import (
    EngineJoined,
    Event,
    PropertiesAnswered,
    PropertiesChanged,
    RecoveredTask,
    TasksFinished,
    TasksRecovered,
    TasksReturned,
    TasksSubmitted,
    TaskStarted,
    TasksWaiting,
)
from engineroom.messages import AttemptKey, ErrorInfo, TaskDone, TaskOptions, TaskSpec


def run(scheduler: Scheduler, *story: Event | tuple[float, Event]) -> list[tuple[Any, ...]]:
    """Tell a story; returns what was to be done, in short. Events come at time 0 unless they say otherwise."""
    told: list[tuple[Any, ...]] = []
    for chapter in story:
        now, event = chapter if isinstance(chapter, tuple) else (scheduler.now, chapter)
        for action in scheduler.handle(event, now):
            told += in_short(action)
        check(scheduler)
    return told


def in_short(action: actions.Action) -> Iterable[tuple[Any, ...]]:
    match action:
        case actions.SendTasks(engine, tasks):
            yield ("send", engine, *(t.id if t.attempt == 1 else f"{t.id}#{t.attempt}" for t in tasks))
        case actions.RecallTasks(engine, ids):
            yield ("recall", engine, *ids)
        case actions.EndTasks(ended):
            for one in ended:
                yield ("end", one.done.id, one.done.error.ename if one.done.error else one.done.status)
        case actions.StopEngine(engine):
            yield ("stop", engine)
        case actions.AskEngine(engine, functions):
            yield ("ask", engine, *functions)
        case actions.CancelTasks(engine, ids):
            yield ("cancel", engine, *ids)
        case actions.KillTask(engine, id):
            yield ("kill", engine, id)
        case actions.FindOutcomes(ids):
            yield ("find", *ids)
        case actions.ReleaseValues(ids):
            yield ("release", *ids)
        case actions.KeepValues(ended):
            yield ("keep", *(one.done.id for one in ended))
        case actions.RecordTasks() | actions.RecordProgress():
            pass


def scheduler(hwm: int | None = 1, **settings: Any) -> Scheduler:
    return Scheduler(SchedulerSettings(hwm=hwm, **settings))


def submitted(
    *ids: str, engine: int = -1, client: str = "me", former: bool = False, aborted: Iterable[str] = (), **options: Any
) -> TasksSubmitted:
    wishes = TaskOptions(**options) if options else None
    specs = [TaskSpec(id, b"f", b"", 0.0, engine, (), wishes) for id in ids]
    return TasksSubmitted(client, specs, {}, former, frozenset(aborted))


def joined(engine: int, uuid: str = "", held: Iterable[tuple[str, int]] = (), **resources: int) -> EngineJoined:
    has = {name: list(range(amount)) for name, amount in resources.items()}
    return EngineJoined(engine, uuid or f"u{engine}", "node", 1, "nanny", [AttemptKey(*h) for h in held], has)


def done(id: str, attempt: int = 1, took: float = 0.0) -> TaskDone:
    return TaskDone(id, attempt, "ok", 0.0, took)


def raised(id: str, attempt: int = 1) -> TaskDone:
    return TaskDone(id, attempt, "error", 0.0, 0.0, error=ErrorInfo("ValueError", "no"))


def unmet(id: str, attempt: int = 1) -> TaskDone:
    return TaskDone(id, attempt, "unmet", 0.0, 0.0, error=ErrorInfo("UnmetDependency", "not here"))


def finished(engine: int, *results: str | TaskDone) -> TasksFinished:
    return TasksFinished(engine, [done(r) if isinstance(r, str) else r for r in results])


def started(engine: int, id: str, at: float = 1.0, attempt: int = 1) -> TaskStarted:
    return TaskStarted(engine, id, attempt, at)


def returned(engine: int, *ids: str, attempt: int = 1) -> TasksReturned:
    return TasksReturned(engine, [AttemptKey(id, attempt) for id in ids])


def waiting(engine: int, *ids: str) -> TasksWaiting:
    return TasksWaiting(engine, ids)


def recovered(
    *ids: str, engine: int = -1, deadline: float = 5.0, awaited: Iterable[int] | None = None, **options: Any
) -> TasksRecovered:
    tasks = [RecoveredTask(s, "me") for s in submitted(*ids, engine=engine, **options).tasks]
    return TasksRecovered(tasks, deadline, None if awaited is None else {f"u{number}": number for number in awaited})


def answered(engine: int, reason: str = "", function: bytes = b"f") -> PropertiesAnswered:
    return PropertiesAnswered(engine, {function: reason})


def changed(*engines: int) -> PropertiesChanged:
    return PropertiesChanged(engines)


def outcome(scheduler: Scheduler, event: Event) -> TaskDone:
    """The single outcome that an event brings."""
    [ended] = [e for a in scheduler.handle(event, scheduler.now) if isinstance(a, actions.EndTasks) for e in a.tasks]
    check(scheduler)
    return ended.done
