"""The properties of this engine: what tasks may look at to decide whether they can run here.

`engineroom.properties` on an engine is such a dict; each engine process has one of its own, empty at first. What
changes it is told to the controller, which then looks again at the tasks that depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any


class Properties(MutableMapping[str, Any]):
    """A dict whose changes are noticed.

    A value that changes inside (a list that grows) is not: bind it anew, or have `TaskClient.spin` look again.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changed: Callable[[], None] | None = None

    def bind(self, changed: Callable[[], None]) -> None:
        """Say who is to be told of changes; called by the engine."""
        self._changed = changed

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a property is named by a str, not {name!r}")
        self._values[name] = value
        self._tell()

    def __delitem__(self, name: str) -> None:
        del self._values[name]
        self._tell()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


#: Those of this process.
properties = Properties()
