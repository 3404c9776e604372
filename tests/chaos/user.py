"""A user's program in the kill campaign: it submits the tasks of a plan, and notes what it is told.

    python -m tests.chaos.user FOLDER

The folder has the plan, and gets the notes and the ledger. If the program is killed, another one takes over: it finds
the session's results by their labels, and submits only tasks that are not recorded.

A note is a line of JSON: {"accepted": [msg_id, …]}, {"told": msg_id, "number": …, "outcome": …}, {"done": true}, or
{"balanced": number} for a task that was for an engine which was not there.
The ledger has a line for each time that a task began: its msg_id and the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import engineroom as er

from . import plan

SESSION = "campaign"
#: The program asks whether its tasks are accepted after so many submissions.
ASK_EVERY = 25
#: A task that takes longer to end, with all that is killed meanwhile, is lost.
TASK_SECONDS = 90.0


def work(number: int, seconds: float, fails: bool, ledger: str, data: bytes, *inputs: Any) -> tuple[str, bytes]:
    """Leave a trace, take a moment, return something that can be checked."""
    import hashlib
    import os
    import time

    import engineroom

    task = engineroom.current_task()
    assert task is not None
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND)
    os.write(file, f"{task.msg_id} {os.getpid()}\n".encode())
    os.close(file)
    time.sleep(seconds)
    if fails:
        raise ValueError(str(number))
    got = [digest for digest, _ in inputs]
    return hashlib.sha256(repr((number, hashlib.sha256(data).hexdigest(), got)).encode()).hexdigest(), data[::-1]


class User:
    """One life of the program."""

    def __init__(self, folder: Path) -> None:
        self.tasks = msgspec.json.decode((folder / "plan.json").read_bytes(), type=list[plan.Task])
        self.values = plan.values(self.tasks)
        self.ledger = str(folder / "ledger")
        self._notes = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.client = er.Client(next((folder / "profile" / "security").glob("*-client.json")), timeout=60)
        self.found = self._found()
        self.client.session.name = SESSION
        self.views: dict[tuple[Any, ...], Any] = {}

    def note(self, **what: Any) -> None:
        """Write a line of notes, at once and whole."""
        os.write(self._notes, json.dumps(what).encode() + b"\n")

    def _found(self) -> dict[str, list[er.AsyncResult]]:
        """The results that earlier lives left, by label."""
        found: dict[str, list[er.AsyncResult]] = {}
        try:
            results = self.client.session(SESSION)
        except er.QueryError:  # nothing was recorded
            return found
        for result in results:
            found.setdefault(result.label, []).append(result)
        return found

    def run(self) -> None:
        """Submit what is not recorded, and note how everything ends."""
        results: dict[int, er.AsyncResult] = {}
        cancels: list[tuple[int, er.AsyncResult]] = []
        unasked: list[str] = []
        for task in self.tasks:
            earlier = self.found.get(task.label)
            if earlier:
                results[task.number] = earlier[0]
            else:
                results[task.number] = self._when_engines_are_there(self._submit, task, results)
                unasked += results[task.number].msg_ids
            if task.cancelled_after is not None:
                cancels.append((task.number + task.cancelled_after, results[task.number]))
            for _, result in [one for one in cancels if one[0] <= task.number]:
                result.cancel()
            cancels = [one for one in cancels if one[0] > task.number]
            if len(unasked) >= ASK_EVERY:
                self._ask(unasked)
        for _, result in cancels:
            result.cancel()
        self._ask(unasked)
        for task in self.tasks:
            for result in self.found.get(task.label) or [results[task.number]]:
                self._told(task, result)
            if task.resubmitted:
                again = self._when_engines_are_there(self.client.resubmit, results[task.number])
                self._told(task, again)
        self.note(done=True)
        self.client.close()

    def _ask(self, ids: list[str]) -> None:
        """A question about tasks is answered when they are recorded."""
        self.note(accepted=[id for id in ids if self._is_recorded(id)])
        ids.clear()

    def _is_recorded(self, id: str) -> bool:
        try:
            self.client.result_status([id])
        except er.UnknownTask:  # it runs at most once, and the controller died before it was recorded
            return False
        return True

    def _when_engines_are_there(self, call: Callable[..., er.AsyncResult], *arguments: Any) -> er.AsyncResult:
        """Submit; while all engines are dead or cut off, wait for others."""
        while True:
            try:
                return call(*arguments)
            except IndexError:  # its engine has died since it was chosen: choose again
                continue
            except er.NoEnginesRegistered:
                self.client.wait_for_engines(1, timeout=TASK_SECONDS)

    def _submit(self, task: plan.Task, results: dict[int, er.AsyncResult]) -> er.AsyncResult:
        inputs = [results[number] for number in task.inputs]
        if task.engine is not None:
            call = self._direct(task)
        else:
            view = self.client.load_balanced_view(retries=task.retries, label=task.label, priority=task.priority)
            view.set_flags(at_most_once=task.at_most_once, after=[results[number] for number in task.after] or None)
            call = view.apply_async
        return call(work, task.number, task.seconds, task.fails, self.ledger, task.data(), *inputs)

    def _direct(self, task: plan.Task) -> Callable[..., er.AsyncResult]:
        """For an engine; for any, while that one is being replaced."""
        with contextlib.suppress(IndexError, er.EngineroomError):
            return self.client.direct_view(task.engine, label=task.label).apply_async
        self.note(balanced=task.number)
        return self.client.load_balanced_view(label=task.label).apply_async

    def _told(self, task: plan.Task, result: er.AsyncResult) -> None:
        error = result.exception(timeout=TASK_SECONDS)
        outcome = "completed" if error is None else type(error).__name__
        if error is None:
            value = result.get()
            value = value[0] if isinstance(value, list) else value
            assert value[0] == self.values[task.number], f"task {task.number} got something else: {result.msg_ids}"
            assert value[1] == task.data()[::-1], f"task {task.number} returned something else: {result.msg_ids}"
        elif isinstance(error, er.RemoteError):
            outcome = error.ename
        self.note(told=result.msg_ids[0], number=task.number, outcome=outcome, text=str(error)[:300])


if __name__ == "__main__":
    User(Path(sys.argv[1])).run()
