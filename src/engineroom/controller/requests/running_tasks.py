"""What running tasks have printed lately, and the memory of their engines: for clients that come later, and for `top`.

Only the end of each output is kept. All of it is in the record when the task has ended. Where an engine dies, and
sends no outcome, the record of its task gets what is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from ...ids import EngineUuid, TaskId
from ...messages import Message, Output, Started
from ...messages.bounds import StreamName

#: Characters of each stream of a task that are kept.
TAIL = 1 << 16

#: Stands before a tail whose beginning was dropped.
CUT = "[… earlier output is not kept while the task runs …]\n"


class _Running(msgspec.Struct):
    """One running task."""

    started: Started | None = None
    tails: dict[StreamName, str] = {}
    #: streams whose beginning was dropped
    cut: set[str] = set()


class RunningTasks:
    """The news of tasks that run. Tasks that print nothing, and end within a moment, are not here."""

    def __init__(self) -> None:
        self._tasks: dict[TaskId, _Running] = {}
        #: bytes that each engine process last had in memory
        self.memory: dict[EngineUuid, int] = {}

    def on_started(self, engine: EngineUuid, message: Started) -> bool:
        """An engine runs a task. Returns whether that is news: engines say so again and again."""
        if message.memory is not None:
            self.memory[engine] = message.memory
        task = self._tasks.get(message.task)
        if task is not None and task.started is not None:
            known = task.started
            if (known.started, known.attempt, known.engine) == (message.started, message.attempt, message.engine):
                return False
            task = None  # another attempt: what the one before printed is of no interest any more
        if task is None:
            task = self._tasks[message.task] = _Running()
        task.started = message
        return True

    def on_output(self, message: Output) -> None:
        """A task has printed something."""
        task = self._tasks.setdefault(message.task, _Running())
        text = task.tails.get(message.stream, "") + message.text
        if len(text) > TAIL:
            text = text[-TAIL:]
            task.cut.add(message.stream)
        task.tails[message.stream] = text

    def news_of(self, id: TaskId) -> list[Message]:
        """What a client must hear that begins to wait for this task now."""
        task = self._tasks.get(id)
        if task is None:
            return []
        news: list[Message] = [] if task.started is None else [task.started]
        for stream, text in task.tails.items():
            news.append(Output(id, stream, CUT + text if stream in task.cut else text))
        return news

    def output_of(self, id: TaskId) -> tuple[str, str]:
        """The end of what this task has printed so far: stdout and stderr."""
        printed = {news.stream: news.text for news in self.news_of(id) if isinstance(news, Output)}
        return printed.get("stdout", ""), printed.get("stderr", "")

    def forget(self, ids: Iterable[TaskId]) -> None:
        """These tasks have ended, or are to run again."""
        if self._tasks:
            for id in ids:
                self._tasks.pop(id, None)

    def sweep(self, runs: Callable[[TaskId], bool], engines: Iterable[str]) -> None:
        """Forget the tasks that do not run any more, and the engines that are gone."""
        for id in [id for id in self._tasks if not runs(id)]:
            del self._tasks[id]
        gone = self.memory.keys() - set(engines)
        for uuid in gone:
            del self.memory[uuid]
