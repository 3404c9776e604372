"""Shows what tasks print and display, in a terminal or a notebook: at their end, or while they run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from .metadata import Metadata

#: Seconds after which we look again, though no news has come.
LOOK_SECONDS = 0.5


def display_outputs(tasks: Sequence[Metadata], groupby: str, result_only: bool, *, single: bool) -> None:
    """Print stdout, stderr, displayed objects and values of tasks, labelled by engine."""
    kinds = ("execute_result",) if result_only else ("stdout", "stderr", "outputs", "execute_result")
    if groupby == "type":
        for kind in kinds:
            for task in tasks:
                _show(task, kind, single)
    else:
        ordered = (
            sorted(tasks, key=lambda t: t["engine_id"] if t["engine_id"] is not None else -1)
            if groupby == "engine"
            else tasks
        )
        for task in ordered:
            for kind in kinds:
                _show(task, kind, single)


def _show(task: Metadata, kind: str, single: bool) -> None:
    value = task[kind]
    if not value:
        return
    engine = "?" if task["engine_id"] is None else task["engine_id"]
    if kind in ("stdout", "stderr"):
        stream = sys.stdout if kind == "stdout" else sys.stderr
        label = "" if single else f"[{kind}:{engine}] " if "\n" not in value.rstrip("\n") else f"[{kind}:{engine}]\n"
        stream.write(label + value + ("" if value.endswith("\n") else "\n"))
        stream.flush()
    elif kind == "outputs":
        for output in value:
            _rich(f"[output:{engine}]", output["data"])
    else:
        _rich(f"Out[{engine}:{value.get('execution_count')}]:", value["data"])


def _rich(label: str, data: dict[str, Any]) -> None:
    """Display a mime bundle: in a notebook richly, elsewhere as text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        from IPython.display import display

        print(label)
        display(data, raw=True)  # type: ignore[no-untyped-call]
    else:
        print(label, data.get("text/plain", ""))


class Printing(Protocol):
    """A result, as far as its output is concerned."""

    _single: bool

    @property
    def _condition(self) -> threading.Condition: ...

    @property
    def msg_ids(self) -> list[Any]:
        """The tasks' ids."""

    def done(self) -> bool:
        """Whether all tasks have ended."""

    def _metadata_of(self, id: Any) -> Metadata:
        """What is known of a task."""


class OutputStream:
    """A context manager: inside it, a thread prints the tasks' stdout and stderr, line by line, with their engines.

    At its end, what tasks that have ended displayed, and their values, are shown, too.
    """

    def __init__(self, result: Printing) -> None:
        self._result = result
        #: (task, stream) → how many characters of it have been printed
        self._printed: dict[tuple[Any, str], int] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._follow, name="engineroom-output", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        with self._result._condition:
            self._stopped = True
            self._result._condition.notify_all()
        self._thread.join()
        self._print_new(whole_lines=False)
        ended = [task for task in self._tasks() if task["completed"] is not None]
        shown = [Metadata(**{**task, "stdout": "", "stderr": ""}) for task in ended]
        display_outputs(shown, "type", False, single=self._result._single)

    def _follow(self) -> None:
        condition = self._result._condition
        while not self._stopped and not self._result.done():
            self._print_new(whole_lines=True)
            with condition:
                if not self._stopped and not self._result.done():
                    condition.wait(LOOK_SECONDS)

    def _tasks(self) -> Iterator[Metadata]:
        return map(self._result._metadata_of, self._result.msg_ids)

    def _print_new(self, *, whole_lines: bool) -> None:
        for task in self._tasks():
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
                key, text = (task["msg_id"], name), task[name] or ""
                begin = self._printed.get(key, 0)
                end = text.rfind("\n") + 1 if whole_lines else len(text)
                if end > begin:
                    self._printed[key] = end
                    self._print(text[begin:end], name, task["engine_id"], stream)

    def _print(self, text: str, name: str, engine: int | None, stream: Any) -> None:
        label = ""
        if not self._result._single:
            several = "\n" in text.rstrip("\n")
            label = f"[{name}:{'?' if engine is None else engine}]" + ("\n" if several else " ")
        stream.write(label + text + ("" if text.endswith("\n") else "\n"))
        stream.flush()
