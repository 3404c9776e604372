"""Compares the modules that this engine has loaded with those that the client had when it sent a function.

An engine imports a module once. If it is edited later, the engine goes on with the old code, and its client may have
the new one. A task then says so in its output. A call whose result may be reused (`cache=True`) must not run so:
its modules are loaded again first.
"""

from __future__ import annotations

import sys
from typing import Any

from ...ids import EngineId
from ...wire import modules


class ModulesDiffer(Exception):
    """A call was not run, because this engine and its client have different versions of a module."""


class ModuleCheck:
    """What this engine has said about its modules."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        #: (module, version here, version of the client) that a task's output has named
        self._told: set[tuple[str, str | None, str]] = set()

    def tell(self, needs: modules.Needs, engine: EngineId) -> None:
        """Name the modules that differ in the output of the running task: once for each pair of versions."""
        for name, why in modules.differing(needs).items():
            versions = name, modules.version_of(name), needs[name]
            if versions not in self._told:
                self._told.add(versions)
                print(f"engineroom: {_difference(name, why, engine)}", file=sys.stderr)

    def forget(self) -> None:
        """Modules are being loaded again: what differs afterwards is named again."""
        self._told.clear()

    def explain(self, error: BaseException, needs: modules.Needs, engine: EngineId) -> None:
        """Add the modules that differ to an error of unpickling: they may lack what was asked of them."""
        for name, why in modules.differing(needs).items():
            error.add_note(_difference(name, why, engine))

    def renew(self, needs: modules.Needs, engine: EngineId) -> bool:
        """Load the modules that differ again; returns whether there were some.

        Raises
        ------
        ModulesDiffer
            A module still differs.
        """
        differing = modules.differing(needs)
        if not differing:
            return False
        done = modules.renewed(self._namespace, lambda: modules.reload(differing))
        for name, why in modules.differing(needs).items():
            raise ModulesDiffer(
                f"engine {engine} and its client have different versions of the module {name}, also after the engine "
                f"has loaded it again: {why}. So the result could not be reused, and the call, made with cache=True, "
                "was not run"
            )
        print(f"engineroom: engine {engine} has loaded again what has changed: {', '.join(done)}", file=sys.stderr)
        return True


def _difference(name: str, why: str, engine: EngineId) -> str:
    return (
        f"engine {engine} and its client have different versions of the module {name}: {why}. "
        "To have engines load changed modules again: rc.reload_modules()"
    )
