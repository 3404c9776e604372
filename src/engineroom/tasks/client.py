"""The client of classic tasks: submits them, and gives their results by number."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..client import Client
from ..client.connection.connecting import find_address
from ..client.connection.submission import Outgoing
from ..client.results.arguments import pickled_call
from ..client.results.result import AsyncResult
from ..client.views import flags
from ..client.views.base import FUNCTIONS
from ..client.views.result_args import inputs_of
from ..config import check_switches
from ..errors import PendingTask, SerializationError, UnknownTask
from ..ids import Digest, EngineId, TaskId
from ..messages import Function, GraphDependency, RecheckProperties, TaskDone, TaskOptions, TasksOnEngines, TaskSpec
from ..on_engine.classic import pickled_work
from ..wire import short_repr
from ..wire.payload import INLINE, describe_failure
from .result import KEYS, TaskResult
from .task import BaseTask

#: Pairs of function and `depend` whose pickle is kept.
WORKS_KEPT = 1024

_ANY = EngineId(-1)

#: A task ready to be sent: (the function that runs it, arguments, their buffers, options)
_Prepared = tuple[Function, bytes, Sequence[Any], dict[str, Any], str]


class TaskClient:
    """A cluster, as classic tasks see it.

    Tasks get numbers, from 0 on; results are asked for by number. Engines, scheduler and records are those of
    load-balanced views. All methods may be called from several threads.

    Parameters
    ----------
    client : Client, (host, port), or what `Client` takes; optional
        Default: connect to the cluster of a profile. An address is looked up in the connection files of all profiles.
    **options
        For `Client`, if one is made: `profile`, `profile_dir`, `cluster_id`, `timeout`, …

    Attributes
    ----------
    client : Client
    """

    def __init__(self, client: Any = None, **options: Any) -> None:
        self._owns = not isinstance(client, Client)
        if isinstance(client, Client):
            if options:
                raise TypeError(f"{', '.join(options)}: cannot be given with a Client, which is connected already")
            self.client = client
        else:
            if isinstance(client, tuple | list):
                client = _address(client, options)
            elif client is not None and not isinstance(client, str | os.PathLike | Mapping):
                raise TypeError(f"a TaskClient is made from a Client, (host, port), or nothing; got {client!r}")
            self.client = Client(client, **options)
        self._view = self.client.load_balanced_view()
        self._port = self.client._port
        self._channel = self._port.channel
        self._lock = threading.Lock()
        #: by number: the results of a task, of its recovery task, …
        self._runs: list[tuple[AsyncResult, ...]] = []
        self._works: dict[tuple[Digest, Digest], Function] = {}

    # ------------------------------------------------------------------------------------------ running

    def run(self, task: BaseTask) -> int:
        """Submit a task; returns its number at once.

        Its recovery tasks are submitted with it: the scheduler runs one when the task before it has failed, even if
        this client is gone. The task is read now: afterwards it may be changed, and run again.

        Raises
        ------
        SerializationError
            A pushed value, an argument, or a function cannot be pickled; nothing is sent.
        NoEnginesRegistered
            There is no engine.
        ValueError
            The recovery tasks form a loop.
        """
        if not isinstance(task, BaseTask):
            raise TypeError(f"run() takes a Task or a MapTask, not {task!r}")
        channel = self._channel
        if not channel.engines and not channel.starting:
            self._port.engines.require()
        if task.recovery_task is None:
            prepared = self._prepare(task)
            with self._lock:
                number = len(self._runs)
                outgoing, result = self._made(prepared, "task", {"task": number}, None)
                channel.submit_one(outgoing, result)
                self._runs.append((result,))
            return number
        chain = [self._prepare(member) for member in task.chain()]
        with self._lock:
            number, before, tasks = len(self._runs), None, []
            for place, prepared in enumerate(chain):
                if before is None:
                    made = self._made(prepared, "task", {"task": number}, None)
                else:
                    about = {"task": number, "recovery": place, "of": before}
                    made = self._made(prepared, "recovery task", about, GraphDependency((before,), True, False, True))
                tasks.append(made)
                before = made[1]._ids[0]
            channel.submit(tasks)
            self._runs.append(tuple(result for _, result in tasks))
        return number

    def _made(
        self, prepared: _Prepared, label: str, about: dict[str, Any], after: GraphDependency | None
    ) -> tuple[Outgoing, AsyncResult]:
        """What is sent for a task, and the result that waits for it."""
        work, payload, frames, given, text = prepared
        channel, now = self._channel, time.time()
        if after is None:
            options = TaskOptions(label=label, metadata=about, **given)
        else:
            options = TaskOptions(label=label, metadata=about, after=after, **given)
        if channel.scheme == "pure":
            flags.check_pure(options, channel.scheme)
        id = channel.new_id()
        result = AsyncResult(self._port, (id,), name=label, submitted=now, label=label)
        if after is not None:
            result._options = options
        self._view._remember((id,))
        return (TaskSpec(id, work.digest, payload, now, _ANY, (), options, "apply", text), work, frames), result

    def priority(self, task: BaseTask) -> int:
        """The priority with which a task is submitted: higher ones go first. Subclasses may override this."""
        return task.priority

    def _prepare(self, task: BaseTask) -> _Prepared:
        work = self._work(task)
        frames: Sequence[Any] = ()
        results: Sequence[AsyncResult] = ()
        arguments = task._arguments()
        if task._is_text and len(arguments[0]) < INLINE // 4:  # the common case: text holds no AsyncResult
            payload = pickle.dumps((arguments, {}), 5)
        else:
            try:
                payload, frames, results = pickled_call(arguments, {}, keep=self._port.keep(False))
            except SerializationError as error:
                raise describe_failure(error, task._parts()) from error
            if frames:
                self._port.check_size(frames)
        given: dict[str, Any] = {}
        if results:
            given["inputs"] = inputs_of(results, self._port)
        if task.retries:
            given["retries"] = task.retries
        if task.depend is not None:
            given["depend"] = True
        priority = self.priority(task)
        if priority != 0:
            given["priority"] = flags.whole("priority", priority, "a whole number of at most 31 bits", 1 - (1 << 31))
        text = short_repr.of_call(arguments, {}) if self._port.record_arguments else ""
        return work, payload, frames, given, text

    def _work(self, task: BaseTask) -> Function:
        """The function that runs a task on an engine: one for each pair of function and `depend`."""
        function, depend = task._function(), task.depend
        called = FUNCTIONS.get(function) if function is not None else _NOTHING
        decides = FUNCTIONS.get(depend) if depend is not None else _NOTHING
        key = called.digest, decides.digest
        work = self._works.get(key)
        if work is None:
            if len(self._works) >= WORKS_KEPT:
                self._works = {}
            work = self._works[key] = pickled_work(called.payload, decides.payload)
        return work

    # ------------------------------------------------------------------------------------------ results

    def get_task_result(self, taskid: int | str, block: bool = False) -> TaskResult | None:
        """The result of a task; None if it has not finished and `block` is not set.

        Parameters
        ----------
        taskid : int or str
            The number that `run` returned. Or the msg_id of any task: then the result is made from its record.

        Raises
        ------
        IndexError
            There is no such number.
        UnknownTask
            There is no such msg_id.
        """
        check_switches(block=block)
        if isinstance(taskid, str):
            return self._recorded(taskid, block)
        number = self._number(taskid)
        if block:
            self.barrier(number)
        final = _final(self._runs[number])
        return None if final is None else TaskResult._of(number, final)

    def _recorded(self, msg_id: str, block: bool) -> TaskResult | None:
        if block:
            self.client.wait([msg_id])
        found = self.client.db_query({"msg_id": msg_id}, KEYS)
        if not found:
            raise UnknownTask(f"no such task: {msg_id}")
        result: TaskResult | None = None
        try:
            result = TaskResult.from_record(found[0])
        except PendingTask:
            return None
        if result.failure is not None and result.taskid is not None:
            behind = self.client.db_query({"metadata.of": msg_id}, "msg_id")
            if behind and found[0]["state"] == "failed":
                return self._recorded(behind[0]["msg_id"], block)
        return result

    def barrier(self, taskids: int | Iterable[int], timeout: float | None = None) -> bool:
        """Wait until tasks have finished, whether they succeed or fail.

        Parameters
        ----------
        taskids : int or list of int
        timeout : float, optional
            Seconds; default: no limit.

        Returns
        -------
        bool
            Whether all have finished.
        """
        numbers = [self._number(taskids)] if isinstance(taskids, int) else [self._number(id) for id in taskids]
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        for number in numbers:
            for result in self._runs[number]:
                status = _status(result)
                if status is None:
                    if not result.wait(_left(deadline)):
                        return False
                    status = _status(result)
                if status != "error":
                    break
        return True

    def queue_status(self, verbose: bool = False) -> dict[str, Any]:
        """How far this client's tasks are.

        Returns
        -------
        dict
            `scheduled`: on no engine yet; `pending`: on an engine;
            `succeeded`; `failed`. Counts, or with `verbose` lists of task numbers.
        """
        check_switches(verbose=verbose)
        with self._lock:
            runs = list(enumerate(self._runs))
        finals = [(number, run, _final(run)) for number, run in runs]
        unfinished = any(final is None for _, _, final in finals)
        held = set(self._channel.ask(TasksOnEngines())) if unfinished else set()
        status: dict[str, list[int]] = {"scheduled": [], "pending": [], "succeeded": [], "failed": []}
        for number, run, final in finals:
            if final is None:
                status["scheduled" if held.isdisjoint(result._ids[0] for result in run) else "pending"].append(number)
            else:
                status["succeeded" if _status(final) == "ok" else "failed"].append(number)
        return dict(status) if verbose else {name: len(numbers) for name, numbers in status.items()}

    def msg_id(self, taskid: int) -> TaskId:
        """The msg_id of a task, for `db_query`, `Client.explain` and the like."""
        return self._runs[self._number(taskid)][0]._ids[0]

    # ------------------------------------------------------------------------------------------ control

    def abort(self, taskid: int) -> None:
        """End a task and its recovery tasks; returns at once. A running task is interrupted.

        Raises
        ------
        IndexError
            There is no such task; or, "Task Already Completed".
        """
        run = self._runs[self._number(taskid)]
        if _final(run) is not None:
            raise IndexError("Task Already Completed")
        self.client.cancel([result._ids[0] for result in run], block=False)

    def spin(self) -> None:
        """Have the scheduler evaluate the `depend` of waiting tasks on all engines again.

        It does so by itself whenever a property is set or removed. Call this when the inside of a property has changed,
        or for a `depend` that uses something else than properties.
        """
        self._channel.ask(RecheckProperties())

    def close(self) -> None:
        """End the connection, if it was made by this TaskClient. Tasks go on."""
        if self._owns:
            self.client.close()

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _number(self, taskid: Any) -> int:
        if type(taskid) is int and 0 <= taskid < len(self._runs):
            return taskid
        if isinstance(taskid, bool) or not hasattr(taskid, "__index__"):
            raise TypeError(f"a task is named by the number that run() gave; got {taskid!r}")
        number = int(taskid)
        if not 0 <= number < len(self._runs):
            raise IndexError(f"there is no task {number}: this TaskClient has run {len(self._runs)}, from 0 on")
        return number

    def __repr__(self) -> str:
        return f"<TaskClient: {len(self._runs)} tasks>"


_NOTHING = Function(Digest(b""), b"")


def _status(result: AsyncResult) -> str | None:
    """How a task ended: "ok", "error", "aborted"; "unknown" if no outcome will come. None: it has not ended."""
    outcome = result._outcomes.get(result._ids[0])
    if outcome is None:
        return None
    return outcome.status if isinstance(outcome, TaskDone) else "unknown"


def _final(run: tuple[AsyncResult, ...]) -> AsyncResult | None:
    """The result of a task, or of its last recovery task that ran; None: not finished."""
    for result in run:
        status = _status(result)
        if status != "error":  # a recovery task comes after errors alone
            return None if status is None else result
    return run[-1]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _address(given: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The connection file of the controller at (host, port)."""
    if len(given) != 2 or not isinstance(given[0], str) or not hasattr(given[1], "__index__"):
        raise TypeError(f"an address is (host, port), like ('127.0.0.1', 10113); got {given!r}")
    return find_address(given[0], int(given[1]), options.get("ipython_dir"))
