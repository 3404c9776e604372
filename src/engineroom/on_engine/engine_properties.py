"""The properties of this engine: a dict that the `depend` of a task looks at, to decide whether the task may run here.

`engineroom.properties` is that dict. Each engine process has its own, empty at first. At every change the controller
is told, and it checks again which tasks this engine may run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any


class Properties(MutableMapping[str, Any]):
    """A dict that reports its changes.

    A change inside a value (a list that grows) is not reported. Assign the value again, or call `TaskClient.spin`.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changed: Callable[[], None] | None = None

    def bind(self, changed: Callable[[], None]) -> None:
        """Set the function that is called at every change. The engine calls this."""
        self._changed = changed

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a property is a str, not {name!r}")
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


#: The properties of this process.
properties = Properties()
