"""State is the only owner of the core's tables: it makes and checks all transitions, and the shell only reads."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stories import finished, joined, run, scheduler, submitted

import engineroom
from engineroom.core import Scheduler, events
from engineroom.core.scheduler import HANDLERS
from engineroom.core.tasks import TRANSITIONS, TaskState

SOURCE = Path(engineroom.__file__).parent
CORE = sorted(SOURCE.joinpath("core").rglob("*.py"))
SHELL = sorted(path for path in SOURCE.rglob("*.py") if path not in CORE)


def changes(path: Path) -> Iterator[str]:
    """Where a file changes the state of a task, or what an engine holds."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Assign(targets=[ast.Attribute(attr="state" | "engine" | "held", value=ast.Name(id="task"))]):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="move")):
                yield ast.unparse(node)
            case ast.Call(func=ast.Attribute(attr="pop" | "clear" | "popitem", value=ast.Attribute(attr="held"))):
                yield ast.unparse(node)
            case ast.Delete(targets=[ast.Subscript(value=ast.Attribute(attr="held"))]):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_state_changes_where_a_task_is(path: Path):
    found = list(changes(path))
    assert bool(found) == (path.name == "state.py"), found


def test_the_shell_reads_the_core_only_by_its_face():
    for path in SHELL:
        for node in ast.walk(ast.parse(path.read_text())):
            inner = isinstance(node, ast.Attribute) and node.attr in ("state", "_effects")
            if inner and ast.unparse(node.value).endswith("scheduler"):
                raise AssertionError(f"{path}: {ast.unparse(node)}")


def test_every_event_has_a_handler():
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    assert HANDLERS.keys() == kinds - {events.Event}


def submit(core: Scheduler) -> None:
    run(core, submitted("new"))


def give(core: Scheduler) -> None:
    run(core, finished(0, "a"))


@pytest.mark.parametrize(
    ("before", "after", "happens"),
    [
        (TaskState.NEW, TaskState.QUEUED, submit),
        (TaskState.QUEUED, TaskState.HELD, give),
        (TaskState.HELD, TaskState.ENDED, give),
        (TaskState.RECOVERING, TaskState.ENDED, give),
    ],
)
def test_transitions_of_many_tasks_are_checked_too(
    monkeypatch: pytest.MonkeyPatch, before: TaskState, after: TaskState, happens: Callable[[Scheduler], None]
):
    core = scheduler()
    run(core, joined(0), submitted("a", "b"))
    legal = {pair: why for pair, why in TRANSITIONS.items() if pair != (before, after)}
    monkeypatch.setattr("engineroom.core.state.TRANSITIONS", legal)
    with pytest.raises(AssertionError):
        happens(core)
