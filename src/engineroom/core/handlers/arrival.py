"""A known task begins its way: it is queued, waits for others, or ends here and now."""

from __future__ import annotations

from ...errors import ConfigError
from ...messages import TaskOptions, TaskSpec
from ..placement.schemes import NOT_WITH_PURE
from ..state import State
from ..tasks import Needs, Task, TaskState
from .waiting import begin_waiting, depends, out_of_time

_NO_OPTIONS = TaskOptions()


def retries_of(spec: TaskSpec) -> int:
    """How often a task may be run again."""
    options = spec.options
    return 0 if options is None or options.at_most_once else options.retries


def arrive(state: State, task: Task, *, first: bool = False) -> None:
    """A known task begins its way: it is queued, waits for others, or ends here and now.

    `first`, of a direct task: before those of its client that are queued; the caller is to call `fill_direct`.
    """
    options = task.spec.options
    if options is None:
        state.enqueue(task, first=first)
        return
    recovering = task.state is TaskState.RECOVERING
    if not recovering:
        state.dependencies.want(task)
    if task.is_direct:
        if depends(options):
            reason = "a direct task cannot depend on others: only its view's order holds"
            state.fail(task, "InvalidDependency", reason)
        else:
            state.enqueue(task, first=first)
        return
    if not check_scheme(state, task):
        return
    if options.timeout is not None:
        deadline = state.now + options.timeout
        if recovering:  # some of it has passed before the restart
            deadline = max(state.now, min(deadline, task.spec.submitted + options.timeout))
        task.needs = task.needs or Needs()
        task.needs.deadline = deadline
        state.deadlines.add(deadline, out_of_time, task)
    if depends(options):
        begin_waiting(state, task)
    else:
        state.enqueue(task)


def check_scheme(state: State, task: Task) -> bool:
    """Whether the scheme that a task asks for exists and can honour its other options. If not, the task ends."""
    options = task.spec.options or _NO_OPTIONS
    if (options.scheme or state.settings.scheme) == "pure":
        wished = [name for name in NOT_WITH_PURE if getattr(options, name) != getattr(_NO_OPTIONS, name)]
        if wished:
            state.fail(
                task,
                "ConfigError",
                f"the scheme 'pure' decides nothing for single tasks, so it cannot honour {', '.join(wished)}: "
                "leave that out, or use another scheme",
            )
            return False
    try:
        state.pools.index_of(options.scheme or "")
    except ConfigError as error:
        state.fail(task, "ConfigError", str(error))
        return False
    return True
