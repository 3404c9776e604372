"""Shows what tasks print and display, in a terminal or a notebook: at their end, or while they run."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from ...config import check_switches
from ...printable import CLEARED, last_cleared, left_after_clearing
from ..notebook import clear_cell, is_notebook, show
from .metadata import Metadata

#: Seconds after which we look again, though no news has come.
LOOK_SECONDS = 0.5


def check_display(groupby: str, result_only: bool) -> None:
    """Raise ValueError if `display_outputs` does not take these arguments."""
    check_switches(result_only=result_only)
    if groupby not in ("type", "engine", "order"):
        raise ValueError(f"groupby is 'type', 'engine' or 'order', not {groupby!r}")


def display_outputs(tasks: Sequence[Metadata], groupby: str, result_only: bool, *, single: bool) -> None:
    """Print stdout, stderr, displayed objects and values of tasks, labelled by engine.

    Parameters
    ----------
    groupby : {"type", "engine", "order"}
        All stdout first, then all stderr, then what was displayed, then values; or all of one engine, then all of the
        next; or as "type", with the first object that each engine displayed, then the second of each …
    result_only : bool
        Only the values of cells.
    """
    if groupby == "engine":
        for task in sorted(tasks, key=lambda task: -1 if task["engine_id"] is None else task["engine_id"]):
            if not result_only:
                _printed([task], single)
                _displayed([task], single)
            _values([task])
        return
    if not result_only:
        _printed(tasks, single)
        if groupby == "order":
            for number in range(max((len(task["outputs"]) for task in tasks), default=0)):
                for task in tasks:
                    _show_outputs(task, task["outputs"][number : number + 1], single)
        else:
            _displayed(tasks, single)
    _values(tasks)


def _engine(task: Metadata) -> str:
    return "?" if task["engine_id"] is None else str(task["engine_id"])


def _printed(tasks: Iterable[Metadata], single: bool) -> None:
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        for task in tasks:
            if text := left_after_clearing(task[name] or ""):
                _print(text, name, _engine(task), stream, single)


def _print(text: str, name: str, engine: str, stream: Any, single: bool) -> None:
    label = ""
    if not single:
        label = f"[{name}:{engine}]" + ("\n" if "\n" in text.rstrip("\n") else " ")
    stream.write(label + text + ("" if text.endswith("\n") else "\n"))
    stream.flush()


def _displayed(tasks: Iterable[Metadata], single: bool) -> None:
    for task in tasks:
        _show_outputs(task, task["outputs"], single)


def _show_outputs(task: Metadata, outputs: Sequence[dict[str, Any]], single: bool) -> None:
    if not outputs:
        return
    if not is_notebook():
        for output in outputs:
            print(f"[output:{_engine(task)}]", output["data"].get("text/plain", ""))
        return
    if not single:
        print(f"[output:{_engine(task)}]", flush=True)
    for output in outputs:
        show(output["data"], output.get("metadata"))


def _values(tasks: Iterable[Metadata]) -> None:
    for task in tasks:
        if task["execute_result"]:
            _show_value(task)


def _show_value(task: Metadata) -> None:
    value = task["execute_result"]
    data, label = value["data"], f"Out[{_engine(task)}:{value.get('execution_count')}]:"
    if is_notebook() and set(data) != {"text/plain"}:
        print(label, flush=True)
        show(data, value.get("metadata"))
        return
    text = data.get("text/plain", "")
    print(label + ("\n" if "\n" in text else " ") + text, flush=True)


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

    What a task displayed, and its value, is shown when it ends.
    """

    def __init__(self, result: Printing) -> None:
        self._result = result
        #: (task, stream) → how many characters of it have been printed
        self._printed: dict[tuple[Any, str], int] = {}
        #: tasks that have ended, and whose outputs have been shown
        self._shown: set[Any] = set()
        #: (task, stream) → up to where `clear_output` has cleared it in the cell
        self._cleared: dict[tuple[Any, str], int] = {}
        self._stopped = False
        # In a copy of our context: a notebook shows what the thread prints in the cell that began it.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._follow,), name="engineroom-output", daemon=True
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        with self._result._condition:
            self._stopped = True
            self._result._condition.notify_all()
        self._thread.join()
        self._show_new(whole_lines=False)

    def _follow(self) -> None:
        condition = self._result._condition
        while not self._stopped and not self._result.done():
            self._show_new(whole_lines=True)
            with condition:
                if not self._stopped and not self._result.done():
                    condition.wait(LOOK_SECONDS)

    def _tasks(self) -> Iterator[Metadata]:
        shown = self._shown
        return (self._result._metadata_of(id) for id in self._result.msg_ids if id not in shown)

    def _show_new(self, *, whole_lines: bool) -> None:
        if is_notebook() and (marks := self._new_marks(whole_lines)):
            # What other tasks have printed is cleared, too: all that is left is printed again.
            clear_cell(wait=CLEARED not in marks)
            self._printed.clear()
            self._shown.clear()
        ended = []
        for task in self._tasks():
            has_ended = task["completed"] is not None
            for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
                key, text = (task["msg_id"], name), task[name] or ""
                begin = self._printed.get(key, 0)
                end = _end_of(text, whole_lines and not has_ended)
                if end > begin:
                    self._printed[key] = end
                    if left := left_after_clearing(text[begin:end]):
                        _print(left, name, _engine(task), stream, self._result._single)
            if has_ended:
                ended.append(task)
        for task in ended:
            self._shown.add(task["msg_id"])
            for name in ("stdout", "stderr"):
                self._printed.pop((task["msg_id"], name), None)
        _displayed(ended, self._result._single)
        _values(ended)

    def _new_marks(self, whole_lines: bool) -> list[str]:
        """The marks of `clear_output` that have come since we looked last, in text of which the cell shows a part."""
        found = []
        for task in self._tasks():
            for name in ("stdout", "stderr"):
                key, text = (task["msg_id"], name), task[name] or ""
                text = text[: _end_of(text, whole_lines and task["completed"] is None)]
                at = last_cleared(text)
                if at > self._cleared.get(key, -1):
                    self._cleared[key] = at
                    mark = text[at : at + len(CLEARED)]
                    comes_next = mark == CLEARED or at + len(mark) < len(text)
                    if comes_next and self._printed.get(key, 0):
                        found.append(mark)
                    elif not comes_next:
                        self._cleared.pop(key)  # it clears when more is printed
        return found


def _end_of(text: str, whole_lines: bool) -> int:
    """How much of a text is printed now."""
    return text.rfind("\n") + 1 if whole_lines else len(text)
