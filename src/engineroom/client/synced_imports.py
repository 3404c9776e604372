"""What `with view.sync_imports():` sees of the import statements in its block. Nothing is sent here.

The function that Python calls for an import is not told under which name the module is bound (`import numpy as np`).
The bytecode behind the call tells it.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import importlib.util
import itertools
import pkgutil
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

#: An import: the module, its alias or None, and [(name in the module, name that is bound), …].
Import = tuple[str, str | None, list[tuple[str, str]]]


@contextlib.contextmanager
def seen(*, local: bool, quiet: bool) -> Iterator[list[Import]]:
    """Collect the imports of this thread in the block; imports that these cause are left out.

    Parameters
    ----------
    local : bool
        Import here, too. With False the names are bound to `Elsewhere`.
    quiet : bool
        Do not print the imports.
    """
    original = builtins.__import__
    found: list[Import] = []
    thread, depth = threading.get_ident(), 0

    def spy(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        nonlocal depth
        if depth or threading.get_ident() != thread:
            return original(name, globals, locals, fromlist, level)
        module = importlib.util.resolve_name("." * level + name, (globals or {}).get("__package__")) if level else name
        found.append((module, *names_bound(sys._getframe(1), module, fromlist or ())))
        if not quiet:
            what = f"{', '.join(fromlist)} from {module}" if fromlist else module
            print(f"importing {what} on engine(s)")
        if not local:
            return Elsewhere(module if fromlist else module.partition(".")[0])
        depth += 1
        try:
            return original(name, globals, locals, fromlist, level)
        finally:
            depth -= 1

    builtins.__import__ = spy
    try:
        yield found
    finally:
        builtins.__import__ = original


def names_bound(frame: FrameType, module: str, members: Sequence[str]) -> tuple[str | None, list[tuple[str, str]]]:
    """Under which names the import statement that a frame runs binds a module (None: its own), or members of one."""
    rest = itertools.dropwhile(lambda step: step.offset != frame.f_lasti, dis.get_instructions(frame.f_code))
    statement = next(rest, None)
    if statement is None or statement.opname != "IMPORT_NAME":  # a call of `__import__`
        return None, [(member, member) for member in members]
    if members:
        return None, [(member, _next_name(rest) if member != "*" else "*") for member in members]
    first = next(rest)
    name = _next_name(itertools.chain([first], rest))
    is_alias = name != module.partition(".")[0] or first.opname == "IMPORT_FROM"  # import os.path as os
    return name if is_alias else None, []


def _next_name(steps: Iterator[dis.Instruction]) -> str:
    """The name that is bound next. Some instructions of Python 3.13 bind one, and do something with another."""
    bound = next(step.argval for step in steps if step.opname.startswith("STORE_"))
    return str(bound[0] if isinstance(bound, tuple) else bound)


class Elsewhere:
    """Stands here for a module, or a name in one, that was imported on the engines alone. There it arrives as that."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Elsewhere:
        if name.startswith("__"):
            raise AttributeError(name)
        return Elsewhere(f"{self._name}.{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return pkgutil.resolve_name, (self._name,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(
            f"{self._name} was imported on the engines alone, by sync_imports(local=False), and is not there in this "
            "process: call it in a function that the engines run, or import it here, too",
            name=self._name,
        )

    def __repr__(self) -> str:
        return f"<{self._name}, imported on the engines alone>"
