"""Modules under other names than their own, so that old pickles and old programs find them.

`FORMER` has the names that modules had in Engineroom 0.1: what that release pickled can still be unpickled. Pickles
name functions and classes by their module. The records of 0.1 hold such pickles, and users' functions in them may
import a public module by its former name. The names that ipyparallel has are in `compat/paths.py`.

No new code should use such a name.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

#: former name → name now, of every module whose functions or classes may be in a pickle
FORMER = {
    f"engineroom.{former}": f"engineroom.{now}"
    for former, now in {
        "client.dependency": "client.views.dependency",
        "client.explanation": "client.records.explanation",
        "client.mapping": "client.results.partition",
        "client.metadata": "client.results.metadata",
        "client.remote": "client.views.remote",
        "datapub": "on_engine.datapub",
        "dependency": "on_engine.functional_dependency",
        "engine_properties": "on_engine.engine_properties",
        "task_context": "on_engine.task_context",
        "wire.classic": "on_engine.classic",
        "wire.on_engine": "on_engine.engine_calls",
        "wire.values": "wire.input_cache",
    }.items()
}


class _Renamed:  # `importlib.abc`, which has the class of loaders, takes as long to import as all else here
    """Gives the module of today for a former name, and leaves it as it is."""

    def __init__(self, now: str) -> None:
        self._now = now
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._now)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # import has just put that of the former name there


class _Finder:
    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def has(self, name: str) -> bool:
        """Whether this is a former name."""
        return name in self._names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        now = self._names.get(name)
        return None if now is None else ModuleSpec(name, _Renamed(now))  # type: ignore[arg-type]


def install(more: Mapping[str, str]) -> None:
    """Let `import` find modules by their former names, and by those of `more` (name → module), in this process."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder({**FORMER, **more}))  # a package's own finder would load a second copy


def submodule(package: str, name: str) -> ModuleType:
    """A module by a former name, as an attribute of its package: `engineroom.client.view` without an import of it.

    Packages call this in their `__getattr__`: programs know that `import ipyparallel` imports all modules.
    """
    former = f"{package}.{name}"
    if any(isinstance(finder, _Finder) and finder.has(former) for finder in sys.meta_path):
        return importlib.import_module(former)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
