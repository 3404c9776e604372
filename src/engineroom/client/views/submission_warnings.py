"""Warnings about functions that are about to be sent: each thing is named once.

The views' cache of functions calls `look` when it pickles one, so a function that is sent again costs nothing here.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from ...wire import modules

_OURS = str(Path(__file__).parents[2])
_told: set[tuple[Any, ...]] = set()


def look(function: Any, needs: modules.Needs) -> None:
    """Warn about a function that may do on engines what its author does not expect."""
    for name, version in needs.items():
        if version == "":
            path = getattr(sys.modules.get(name), "__file__", "?")
            _warn_once(
                ("module", name, modules.generation),
                f"the module {name} has changed since this process imported it ({path}), so engines may run newer "
                "code than this process has, and calls with cache=True are not answered from the database. Import it "
                f"again: importlib.reload({name})",
            )


def _warn_once(key: tuple[Any, ...], text: str) -> None:
    if key not in _told:
        _told.add(key)
        warnings.warn(text, RuntimeWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """The stack level of the code that called this package, as `_warn_once` counts it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        level, frame = level + 1, frame.f_back
    return level
