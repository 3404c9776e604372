"""Each action of the core is guarded on its own; what cannot be done ends its tasks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engineroom.controller.decisions import Decisions
from engineroom.core import Scheduler, actions, events
from engineroom.ids import ClientId, EngineId, EngineUuid, NannyId, TaskId
from engineroom.messages import GraphDependency, TaskDone, TaskOptions, TaskSpec


def spec(name: str, options: TaskOptions | None = None) -> TaskSpec:
    return TaskSpec(TaskId(name), b"f", b"", 0.0, options=options)  # type: ignore[arg-type]


class Shell:
    """Performs actions by noting them; `broken` is the type of action that fails."""

    def __init__(self, broken: type[actions.Action]) -> None:
        self.scheduler = Scheduler()
        self.broken = broken
        self.recorded: list[TaskId] = []
        self.ended: dict[TaskId, TaskDone] = {}
        kinds = [kind for kind in vars(actions).values() if isinstance(kind, type) and issubclass(kind, actions.Action)]
        performers: dict[type[actions.Action], Callable[[Any], None]] = dict.fromkeys(kinds, self.perform)
        self.decide = Decisions(self.scheduler, performers, lambda: 1.0).decide

    def perform(self, action: actions.Action) -> None:
        if isinstance(action, self.broken):
            raise RuntimeError("it cannot be done")
        if isinstance(action, actions.RecordTasks):
            self.recorded += [task.id for task in action.tasks]
        if isinstance(action, actions.EndTasks):
            self.ended |= {ended.done.id: ended.done for ended in action.tasks}

    def join(self) -> None:
        self.decide(events.EngineJoined(EngineId(0), EngineUuid("u"), "host", 1, NannyId("")))

    def submit(self, *specs: TaskSpec) -> None:
        self.decide(events.TasksSubmitted(ClientId("me"), list(specs)))


@pytest.mark.fault(15)
def test_tasks_that_cannot_be_sent_end_with_an_error_and_other_actions_are_performed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shell = Shell(actions.SendTasks)
    shell.join()
    shell.submit(spec("a"), spec("b", TaskOptions(after=GraphDependency((TaskId("a"),)))))
    assert set(shell.recorded) == {"a", "b"}, "what stands beside the send in the list is done"
    assert shell.ended[TaskId("a")].status == "error"
    error = shell.ended[TaskId("a")].error
    assert error is not None
    assert (error.ename, error.evalue) == ("RuntimeError", "it cannot be done")
    ended = shell.ended[TaskId("b")].error
    assert ended is not None
    assert ended.ename == "ImpossibleDependency", "it depends on a"
    assert not shell.scheduler.tasks
    assert len([record for record in caplog.records if "SendTasks" in record.message]) == 1


def test_an_outcome_that_cannot_be_looked_up_ends_the_tasks_that_depend_on_it() -> None:
    shell = Shell(actions.FindOutcomes)
    shell.join()
    shell.submit(spec("a"), spec("b", TaskOptions(after=GraphDependency((TaskId("long ago"),)))))
    error = shell.ended[TaskId("b")].error
    assert error is not None
    assert error.ename == "ImpossibleDependency"
    assert "could not be looked up: RuntimeError: it cannot be done" in error.evalue
    assert TaskId("a") in shell.scheduler.tasks
