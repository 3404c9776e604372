"""Notes when each import of this process begins, so that `modules` can tell which source a module was loaded from.

`import engineroom` imports this module: the sooner it watches, the more modules are known. So it imports nothing that
takes time.
"""

from __future__ import annotations

import sys
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

#: Counts the times that a module whose version was asked for has been loaded again.
generation = 0
#: the modules whose version was asked for
asked: set[str] = set()
#: module → when its last import began (ns)
_begun: dict[str, int] = {}
#: The modules that were there before we watched, and when that was.
_before: tuple[frozenset[str], int] = frozenset(), 0
_listeners: weakref.WeakSet[Any] = weakref.WeakSet()
#: `modules` asks itself where a module is: nothing is imported.
_is_paused = False


class _Witness:
    """Finds nothing, and sees all imports."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        global generation
        if _is_paused:
            return
        _begun[name] = time.time_ns()
        if name in asked:
            generation += 1
            for listener in list(_listeners):
                listener.modules_changed()


def watch() -> None:
    """Begin to see imports."""
    global _before
    if not any(isinstance(finder, _Witness) for finder in sys.meta_path):
        _before = frozenset(sys.modules), time.time_ns()
        sys.meta_path.insert(0, _Witness())  # a MetaPathFinder in all but name


class paused:
    """Inside the block, to ask finders for a module does not count as its import."""

    def __enter__(self) -> None:
        global _is_paused
        _is_paused = True

    def __exit__(self, *_: object) -> None:
        global _is_paused
        _is_paused = False


def begin_of(name: str) -> int:
    """When the last import of a module began (ns since the epoch); now, if that is not known."""
    return _begun.get(name) or (_before[1] if name in _before[0] else time.time_ns())


def tell(listener: Any) -> None:
    """Call `listener.modules_changed()` when a module whose version was asked for is about to be loaded again."""
    _listeners.add(listener)
