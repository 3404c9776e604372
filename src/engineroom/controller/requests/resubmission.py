"""Runs finished tasks again, under new ids: reads their entries, and makes a submission like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from ...errors import PendingTask, ProtocolError, StoreError, UnknownTask
from ...ids import ClientId, EngineId, TaskId
from ...messages import Resubmit, TaskOptions, TaskSpec
from ...records.entry import Entry
from ...stores import TaskStore
from ..intake import Intake, Refusal, Submission
from ..storage.pending import Scope
from ..storage.store_reader import Reader


class Resubmission:
    """Answers `Resubmit`.

    `change` has a change made in pieces once everything before is recorded, and hands its future back to the loop.
    `send_stored` sends a client the results of tasks that have ended.
    """

    def __init__(
        self,
        intake: Intake,
        reader: Reader,
        record: Callable[[], None],
        change: Callable[[Callable[[TaskStore], Iterator[int]], Callable[[Future[Any]], None]], None],
        send_stored: Callable[[ClientId, Sequence[TaskId]], None],
        clock: Callable[[], float],
        forgotten: str,
    ) -> None:
        self._intake, self._reader, self._record, self._change = intake, reader, record, change
        self._send_stored, self._clock, self._forgotten = send_stored, clock, forgotten

    def resubmit(
        self,
        client: ClientId,
        body: Resubmit,
        answer: Callable[[list[TaskId]], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Copy finished tasks under new ids and take them in; `answer` or `fail` is called, once."""
        refused: Exception | None = self._intake.refusal()
        if len(body.tasks) != len(body.new):
            refused = ProtocolError(f"{len(body.tasks)} tasks are resubmitted, and {len(body.new)} new ids are given")
        if refused is not None:
            fail(refused)
            return

        def found(entries: dict[TaskId, Entry]) -> None:
            if entries:
                self._submit(client, body, entries, answer, fail)
            else:
                answer(body.new)
                self._send_stored(client, body.new)  # they may have ended while the client was away

        scope = Scope(tasks={*body.tasks, *body.new})
        self._reader.read(lambda store: self._look(store, body), found, fail, after=scope)

    def _look(self, store: TaskStore, body: Resubmit) -> dict[TaskId, Entry]:
        """The entries of the tasks; {}: this was asked before, and the answer was lost on the way."""
        if store.entries(body.new):
            return {}
        found = store.entries(body.tasks)
        for id in body.tasks:
            entry = found.get(id)
            if entry is None:
                raise UnknownTask(f"no such task: {id}; nothing was resubmitted{self._forgotten}")
            if not entry.spec.payload and not entry.frames:
                raise StoreError(
                    f"the arguments of task {id} are not kept any more (retention), so it cannot be resubmitted; "
                    "nothing was resubmitted"
                )
            if entry.done is None:
                raise PendingTask(f"task {id} has not finished, so it cannot be resubmitted; nothing was resubmitted")
        return found

    def _submit(
        self,
        client: ClientId,
        body: Resubmit,
        entries: Mapping[TaskId, Entry],
        answer: Callable[[list[TaskId]], None],
        fail: Callable[[Exception], None],
    ) -> None:
        now, specs, frames = self._clock(), [], {}
        for old, new in zip(body.tasks, body.new, strict=True):
            entry = entries[old]
            spec = entry.spec
            options = spec.options
            if body.changes is not None:
                changes = {k: v for k, v in msgspec.structs.asdict(body.changes).items() if v is not None}
                options = msgspec.structs.replace(options or TaskOptions(), **changes)
            if options is not None and options.call is not None:  # the new task is a result of its own
                options = msgspec.structs.replace(options, call=None)
            call = spec.function, spec.payload, now, EngineId(-1), (), options, spec.kind, spec.arguments
            specs.append(TaskSpec(new, *call))
            if entry.frames:
                frames[new] = entry.frames

        def mark(store: TaskStore) -> Iterator[int]:
            for old, new in zip(body.tasks, body.new, strict=True):
                store.update_record(old, {"resubmitted": new})
                yield 1

        def accept() -> None:
            # The client cannot send these again: it is answered once they are recorded.
            self._record()
            self._change(mark, lambda marked: answer(body.new))

        def refuse(refusal: Refusal) -> None:
            fail(_not_resubmitted(refusal.error))

        self._intake.submit(Submission(client, specs, frames, accept, refuse, former=body.former))


def _not_resubmitted(error: Exception) -> Exception:
    if type(error) is StoreError:
        return StoreError(f"{error}; nothing was resubmitted")
    return error
