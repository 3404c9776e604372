"""Shows what tasks printed and displayed, in a terminal or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .metadata import Metadata


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
