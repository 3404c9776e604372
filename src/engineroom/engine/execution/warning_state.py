"""Warnings per task: each task shows its own, and what it does to the filters ends with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

_module: Any = warnings


class WarningState:
    """The filters of warnings that each task begins with. Cells (`execute`) keep what they change, as in a notebook."""

    def __init__(self) -> None:
        self._filters = list(warnings.filters)
        self._show = warnings.showwarning
        #: Called when a task begins: it shows a warning even if an earlier task has shown it.
        self.begin = _forget_shown()

    def end(self, *, keep: bool) -> None:
        """A task has ended. Undo what it has done to the filters, or `keep` it."""
        if warnings.filters == self._filters and warnings.showwarning is self._show and not _module.onceregistry:
            return
        _module.onceregistry.clear()
        if keep:
            self._filters, self._show = list(warnings.filters), warnings.showwarning
            return
        _module.filters[:], warnings.showwarning = self._filters, self._show
        self.begin()


def _forget_shown() -> Callable[[], None]:
    """A function that has modules forget which warnings they have shown: they believe that the filters have changed."""
    forget: Callable[[], None] | None = getattr(_module, "_filters_mutated", None)
    if forget is not None:
        return forget

    def forget_locked() -> None:  # Python 3.14
        with _module._lock:
            _module._filters_mutated_lock_held()

    return forget_locked
