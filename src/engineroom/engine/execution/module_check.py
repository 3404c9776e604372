"""Compares the modules that this engine has loaded with those that the client had when it sent a function.

An engine imports a module once. If it is edited later, the engine goes on with the old code, and its client may have
the new one. A task then says so in its output. A call whose result may be reused (`cache=True`) must not run so:
its modules are loaded again first.
"""

from __future__ import annotations

import sys
from typing import Any

from ...errors import EngineError
from ...ids import EngineId
from ...wire import modules


class ModuleCheck:
    """What this engine has said about its modules."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._told: set[tuple[str, str]] = set()

    def tell(self, needs: modules.Needs, engine: EngineId) -> None:
        """Name the modules that differ in the output of the running task, each once."""
        for name, why in modules.differing(needs).items():
            if (name, why) not in self._told:
                self._told.add((name, why))
                print(
                    f"engineroom: engine {engine} and its client have different versions of the module {name}: {why}. "
                    "To have engines load changed modules again: rc.reload_modules()",
                    file=sys.stderr,
                )

    def renew(self, needs: modules.Needs, engine: EngineId) -> bool:
        """Load the modules that differ again; returns whether there were some.

        Raises
        ------
        EngineError
            A module still differs.
        """
        differing = modules.differing(needs)
        if not differing:
            return False
        done = modules.renewed(self._namespace, lambda: modules.reload(differing))
        for name, why in modules.differing(needs).items():
            raise EngineError(
                f"engine {engine} and its client have different versions of the module {name}, also after the engine "
                f"has loaded it again: {why}. So the result could not be reused, and the call, made with cache=True, "
                "was not run"
            )
        print(f"engineroom: engine {engine} has loaded again what has changed: {', '.join(done)}", file=sys.stderr)
        return True
